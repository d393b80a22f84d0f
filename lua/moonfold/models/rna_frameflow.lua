--- RNA-FrameFlow: noisy RNA frames and a time in, clean frames and eight torsions out.
--
-- Time is 0 at the noise and 1 at the data. It is `models.denoiser` with the parameters of the public code, by name and
-- shape, dense (preset "base") and with FlashIPA (preset "flash"): node_embedder, edge_embedder, trunk, angle_pred_net.
-- Residues are counted by their position from 0, as there.
--
-- Against the public code: masked residues are no neighbours of the FlashIPA pair features; `compat` makes them so.
-- @module moonfold.models.rna_frameflow
local module = require "moonfold.nn.module"
local tree = require "moonfold.nn.tree"
local denoiser = require "moonfold.models.denoiser"
local plan = require "moonfold.models.plan"
local presets = require "moonfold.models.presets"

local inherited = {}
for key, value in pairs(denoiser.defaults) do if key ~= "torsions" then inherited[key] = value end end
inherited.neighbours = 20
local defaults = presets.defaults("rna_frameflow/base", inherited)

local define = module.define("rna_frameflow", defaults, function(self, o)
  local inner = { torsions = "rna" }
  for key, value in pairs(o) do inner[key] = value end
  self.network = tree.inline(denoiser(inner))
end, function(self, noisy) return self.network(noisy) end, {
  plan = plan,
  describe = function(self)
    local o = self._options
    return ("%s, %d blocks, node %d, edge %d"):format(o.mode, o.blocks, o.node, o.edge)
  end,
})

--- RNA-FrameFlow's network. Called with what `flow:corrupt` makes: t (n), translations (N, 3) angstrom, rotations (N, 3, 3),
-- packing; then, each may be missing: trans_sc (N, 3) angstrom, mask (N), fixed (N), 1 where a frame must not move.
--
-- It returns `{ translations (N, 3), rotations (N, 3, 3), quaternions (N, 4), torsions (N, 8, 2), node, initial }`.
-- @tparam table o `preset` ("base"; also "flash"), and over it every option of `models.denoiser` but `torsions`; the public
--   code's names are understood too
-- @usage local model = mf.models.rna_frameflow { preset = "flash" }
--        print(model:plan { length = 4096 })
return setmetatable({ name = "rna_frameflow", defaults = defaults, methods = define.methods }, {
  __call = function(_, o) return define(presets.apply("rna_frameflow", o)) end,
})
