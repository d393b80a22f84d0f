--- Whole networks.
--
--   flash_ipa        the network of the FlashIPA publication in its five modes
--   denoiser         node embedding from time and position, the flash_ipa network, torsions: what a flow trains
--   foldflow         FoldFlow's network of protein backbones, dense and with FlashIPA
--   rna_frameflow    RNA-FrameFlow's, dense and with FlashIPA
--   presets          their published configurations
-- @module moonfold.models
-- @usage local model = mf.models.flash_ipa { node = 256, edge = 128, blocks = 6, rank = 2 }
local files = { flash_ipa = true, denoiser = true, foldflow = true, rna_frameflow = true, presets = true }

return setmetatable({}, {
  __index = function(self, key)
    if not files[key] then return nil end
    local value = require("moonfold.models." .. key)
    rawset(self, key, value)
    return value
  end,
})
