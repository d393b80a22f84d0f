--- FoldFlow-base, as published.
-- @module moonfold.models.presets.foldflow_base
return {
  kind = "foldflow",
  source = "DreamFold/FoldFlow, runner/config: model/benchmark, flow_matcher, experiment, data, inference",
  model = {
    mode = "orig_2d_bias", node = 256, edge = 128, position = 32, hidden = 256, skip = 64, heads = 8, query_points = 8,
    value_points = 12, transformer_heads = 4, transformer_layers = 2, blocks = 4, bins = 22, min_bin = 1e-5, max_bin = 20,
    self_condition = true,
  },
  flow = {
    profile = "protein", ot = "none", stochastic = false, g = 0.1, sigma_min = 0.01, rotation = "exp", rate = 10,
    separate_rotation = true, self_condition = 0.5, gate = 0.25, noise_scale = 0.1,
    weights = { trans = 1, axis = 1, angle = 0.5, rot = 0.5, bb = 0.25, dm = 0.25 },
  },
  data = { mode = "copies", rule = "protein-ipa", clusters = true, shortest = 60, longest = 512 },
  train = { optimizer = "adam", lr = 1e-4, weight_decay = 0, clip = 1, steps = 200000, checkpoint_every = 5000 },
  sample = { steps = 50, lengths = { 100, 150, 200, 250, 300 }, n = 50 },
}
