--- FoldFlow with FlashIPA on proteins of all lengths.
-- @module moonfold.models.presets.foldflow_flash_all
return {
  extends = "foldflow/flash",
  source = "arXiv 2505.11580, trained without a limit of length (40,492 proteins, up to 8.8k residues)",
  data = { longest = 0 },
}
