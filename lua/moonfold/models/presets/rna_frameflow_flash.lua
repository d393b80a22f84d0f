--- RNA-FrameFlow with FlashIPA, as published.
-- @module moonfold.models.presets.rna_frameflow_flash
return {
  extends = "rna_frameflow/base",
  source = "rish-16/rna-backbone-design, configs/config_flashipa.yaml",
  model = { mode = "flash_1d_bias", rank = 2, neighbours = 20 },
  data = { rule = "rna-flash" },
  train = { minutes = 1200, precision = "bf16" },
}
