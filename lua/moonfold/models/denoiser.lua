--- The network that a flow trains: noisy frames and a time in, clean frames and torsions out.
--
--     s = NodeEmbedder(position, t)  ->  flash_ipa network  ->  frames, torsions from the last nodes
--
-- With torsions = "rna" its parameters are, by name and shape, those of RNA-FrameFlow (node_embedder, edge_embedder, trunk,
-- angle_pred_net): mode "orig_2d_bias" is its dense variant, "flash_1d_bias" its FlashIPA variant.
-- @module moonfold.models.denoiser
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local tree = require "moonfold.nn.tree"
local node_embedder = require "moonfold.nn.node_embedder"
local torsion_angles = require "moonfold.nn.torsion_angles"
local torsion_head = require "moonfold.nn.torsion_head"
local flash_ipa = require "moonfold.models.flash_ipa"
local names = require "moonfold.models.names"
local plan = require "moonfold.models.plan"

local own = { position = 128, time = 128, time_scale = 2056, torsions = "none" }

local defaults = {}
for key, value in pairs(flash_ipa.defaults) do defaults[key] = value end
for key, value in pairs(own) do defaults[key] = value end

local function build(self, o)
  local inner = {}
  for key, value in pairs(o) do if own[key] == nil then inner[key] = value end end
  self.node_embedder = node_embedder {
    dim = o.node, position = o.position, time = o.time, scale = o.time_scale, rng = o.rng,
  }
  self.network = tree.inline(flash_ipa(inner))
  if o.torsions == "rna" then
    self.angle_pred_net = torsion_head { dim = o.node, rng = o.rng }
  elseif o.torsions == "protein" then
    self.torsion_pred = torsion_angles { dim = o.node, rng = o.rng }
  elseif o.torsions ~= "none" then
    fail("denoiser: unknown torsions '%s' (known: none, protein, rna)", o.torsions)
  end
end

local function forward(self, noisy)
  if not noisy.t or not noisy.packing then fail("the noisy batch needs t (one a sequence) and packing") end
  local inputs = {}
  for key, value in pairs(noisy) do inputs[key] = value end
  inputs.node_embeddings = self.node_embedder(noisy.t, noisy.packing, noisy.mask, noisy.residue_t)
  local out = self.network(inputs)
  if self.angle_pred_net then out.torsions = self.angle_pred_net(out.node, out.initial) end
  if self.torsion_pred then out.torsions = self.torsion_pred(out.node) end
  return out
end

local define = module.define("denoiser", defaults, build, forward, {
  plan = plan,
  describe = function(self) return ("torsions %s"):format(self._options.torsions) end,
})

--- A backbone generator. Called with `{ t (n), translations (N, 3) angstrom, rotations (N, 3, 3), packing, trans_sc, mask,
-- fixed, residue_t (N), times in the place of the sequences' }`, returns `{ translations, rotations, torsions (N, K, 2) or nil,
-- node, initial }`.
-- @tparam table o every option of `models.flash_ipa`, and `torsions` ("none", "protein": psi, "rna": eight), `position` (128),
--   `time` (128), `time_scale` (2056)
-- @usage local model = mf.models.denoiser { node = 128, blocks = 4, torsions = "protein" }
--        local clean = model(flow:corrupt(batch))
return setmetatable({ name = "denoiser", defaults = defaults, methods = define.methods }, {
  __call = function(_, o) return define(names.translate("denoiser", o)) end,
})
