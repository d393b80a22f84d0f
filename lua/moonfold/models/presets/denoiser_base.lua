--- The general denoiser with FlashIPA, for either kind of molecule: what a training run without a preset takes.
-- @module moonfold.models.presets.denoiser_base
return {
  kind = "denoiser",
  source = "the sizes of flagshippioneering/flash_ipa, 20 neighbours as in its paper",
  model = { mode = "flash_1d_bias", neighbours = 20 },
  flow = {},
  data = { residues = 20000 },
  train = { optimizer = "adamw", lr = 1e-4, weight_decay = 0.01, clip = 1, steps = 20000 },
  sample = { steps = 50, lengths = { 100, 150, 200, 250, 300 }, n = 8 },
}
