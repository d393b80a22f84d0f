--- FoldFlow with FlashIPA, as far as the FlashIPA paper states it: c_hidden 128, 5 blocks, rank 2, 20 neighbours, "17.1 M".
--
-- Without its pair embedder the network would have 17,073,497 parameters (FoldFlow's own, 1-D edge transitions); FoldFlow's pair
-- embedder makes L x L pairs, which FlashIPA is there to avoid, and the paper does not say what stood in its place. Ours
-- is that of the flash_ipa code (20 neighbours), which makes 17,490,313, reading residue indices for positions and FoldFlow's
-- edges of bins.
-- @module moonfold.models.presets.foldflow_flash
return {
  extends = "foldflow/base",
  source = "arXiv 2505.11580 (protein experiments); the pair embedder of flagshippioneering/flash_ipa",
  model = { mode = "flash_1d_bias", hidden = 128, blocks = 5, rank = 2, neighbours = 20, feat = 64 },
  data = { rule = "protein-flash" },
  train = { precision = "bf16" },
}
