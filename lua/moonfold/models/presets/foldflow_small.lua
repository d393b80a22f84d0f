--- FoldFlow's small network, for trying things out.
-- @module moonfold.models.presets.foldflow_small
return {
  extends = "foldflow/base",
  source = "DreamFold/FoldFlow, runner/config/model/small",
  model = { node = 32, edge = 32, hidden = 32, heads = 2, query_points = 2, value_points = 4, blocks = 1 },
}
