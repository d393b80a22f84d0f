--- RNA-FrameFlow with dense pairs, as published.
-- @module moonfold.models.presets.rna_frameflow_base
return {
  kind = "rna_frameflow",
  source = "rish-16/rna-backbone-design, configs/config.yaml",
  model = {
    mode = "orig_2d_bias", node = 256, edge = 128, position = 128, time = 128, time_scale = 2056, hidden = 128, heads = 8,
    query_points = 8, value_points = 12, transformer_heads = 4, transformer_layers = 2, blocks = 6, feat = 64, bins = 22,
  },
  flow = {
    profile = "rna", ot = "kabsch", prior = "igso3", sigma = 1.5, rotation = "exp", rate = 10, self_condition = 0.5, gate = 0.25,
    loss_atoms = 0, weights = { trans = 2, rot = 1, bb = 1, dm = 1, tors = 1 },
  },
  data = { mode = "lengths", rule = "rna-ipa", shortest = 40, longest = 150, epochs = 200 },
  train = { optimizer = "adamw", lr = 1e-4, weight_decay = 0.01, clip = 0, steps = 200000 },
  sample = { steps = 50, lengths = { 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150 }, n = 50 },
}
