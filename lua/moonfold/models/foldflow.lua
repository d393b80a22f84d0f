--- FoldFlow: noisy protein frames and a time in, clean frames and psi out.
--
--     s, z = Embedder(t, fixed, index, sc)  ->  trunk with a skip from s0  ->  frames;  psi = TorsionAngles(s)
--
-- Time is 0 at the data and 1 at the noise. The residue index counts from 1 and shows gaps: the batch's `index` (which counts
-- from 0) plus one, or the position where a batch has none. Where `fixed` is 1 a frame does not move, and its psi is the one
-- given. Names and shapes of all parameters are those of the public checkpoints, with the layers that do nothing there
-- (`linear_rbf`, `torsion_pred.linear_3`): loaded, saved, never trained.
--
-- Against the public code: masked residues are no keys of the sequence transformer. Its floating mask of padding adds 1 to their
-- logits instead; `compat` does so too.
-- @module moonfold.models.foldflow
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local indexed_embedder = require "moonfold.nn.indexed_embedder"
local torsion_angles = require "moonfold.nn.torsion_angles"
local mask_of = require "moonfold.nn.mask"
local plan = require "moonfold.models.plan"
local presets = require "moonfold.models.presets"
local trunk = require "moonfold.models.trunk"

local inherited = { feat = 64, neighbours = 20, max_len = module.OPTIONAL }
for key, value in pairs(trunk.defaults) do inherited[key] = value end
local defaults = presets.defaults("foldflow/base", inherited)

local function build(self, o)
  self.embedding_layer = indexed_embedder {
    mode = o.mode, node = o.node, edge = o.edge, position = o.position, self_condition = o.self_condition, bins = o.bins,
    min_bin = o.min_bin, max_bin = o.max_bin, feat = o.feat, rank = o.rank, neighbours = o.neighbours, max_len = o.max_len,
    factor_init = o.factor_init, compat = o.compat, rng = o.rng,
  }
  -- what is FoldFlow's own in the shared trunk, and no choice
  self._trunk = setmetatable({ unused = true, renormalise = true, padding_logit = 1 }, { __index = o })
  self.vectorfield = { trunk = trunk.build(self._trunk), torsion_pred = torsion_angles { dim = o.node, rng = o.rng } }
end

local function forward(self, noisy)
  local o, packing = self._trunk, trunk.check(noisy)
  if not noisy.t then fail("the noisy batch needs t, one number a sequence") end
  local x = noisy.translations
  local call = trunk.masks(o, noisy, x, noisy.index)
  local index = noisy.index or packing:position(x:device())
  local s, pair = self.embedding_layer {
    t = noisy.t, packing = packing, index = index + 1, translations = x, trans_sc = noisy.trans_sc, fixed = noisy.fixed,
    mask = noisy.mask,
  }
  local out = trunk.run(self.vectorfield.trunk, o, noisy, call, s, pair)
  out.torsions = self.vectorfield.torsion_pred(out.node)
  if noisy.fixed and noisy.torsions then
    out.torsions = mf.where(mask_of.bool(noisy.fixed):reshape(-1, 1, 1), noisy.torsions, out.torsions)
  end
  return out
end

local define = module.define("foldflow", defaults, build, forward, {
  plan = plan,
  describe = function(self)
    local o = self._options
    return ("%s, %d blocks, node %d, edge %d"):format(o.mode, o.blocks, o.node, o.edge)
  end,
})

--- FoldFlow's network. Called with what `flow:corrupt` makes:
--
--   t (n), translations (N, 3) angstrom, rotations (N, 3, 3) or unit quaternions (N, 4), packing; then, each may be missing:
--   index int32 (N), trans_sc (N, 3) angstrom, the previous prediction; mask (N); fixed (N), 1 where a frame must not move;
--   torsions (N, 1, 2), psi as (sin, cos), of which those of fixed residues are read.
--
-- It returns `{ translations (N, 3), rotations (N, 3, 3), quaternions (N, 4), torsions (N, 1, 2), node, initial }`.
-- @tparam table o `preset` ("base"; also "flash", "small"), and over it `mode`, `node` (256), `edge` (128), `position` (32, width
--   of index and time embeddings), `hidden` (256), `skip` (64), `heads` (8), `query_points` (8), `value_points` (12), `blocks` (4),
--   `transformer_heads` (4), `transformer_layers` (2), `bins` (22), `min_bin` (1e-5), `max_bin` (20), `self_condition` (true),
--   `rank` (2), `neighbours` (20) and `feat` (64) of the FlashIPA modes, `compat` (false), and what `models.flash_ipa` has of
--   `rotary`, `gauge`, `layout`, `precision`, `split_type`, `checkpoint`, `factor_init`, `max_len`, `rng`; the public code's
--   names are understood too
-- @usage local model = mf.models.foldflow { preset = "flash", blocks = 2 }
--        local clean = model(mf.flow.se3 { profile = "protein" }:corrupt(batch))
return setmetatable({ name = "foldflow", defaults = defaults, methods = define.methods }, {
  __call = function(_, o) return define(presets.apply("foldflow", o)) end,
})
