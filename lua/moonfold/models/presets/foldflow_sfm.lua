--- FoldFlow with optimal transport and noise along the paths.
-- @module moonfold.models.presets.foldflow_sfm
return {
  extends = "foldflow/ot",
  source = "DreamFold/FoldFlow, flow_matcher.ot_plan and stochastic_paths: true",
  flow = { stochastic = true, g = 0.1, sigma_min = 0.01 },
}
