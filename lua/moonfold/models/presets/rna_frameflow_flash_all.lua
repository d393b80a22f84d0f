--- RNA-FrameFlow with FlashIPA on RNA of all lengths.
-- @module moonfold.models.presets.rna_frameflow_flash_all
return {
  extends = "rna_frameflow/flash",
  source = "arXiv 2505.11580, trained without a limit of length (up to 4,417 nt) for 48 h",
  data = { longest = 0 },
  train = { minutes = 2880 },
}
