--- FoldFlow with noise assigned by optimal transport among proteins of one length.
-- @module moonfold.models.presets.foldflow_ot
return {
  extends = "foldflow/base",
  source = "DreamFold/FoldFlow, flow_matcher.ot_plan: true; its defects (flow.couple) are not reproduced",
  flow = { ot = "squared", ot_group = 10 },
}
