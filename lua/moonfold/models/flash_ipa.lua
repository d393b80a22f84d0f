--- The FlashIPA network: pairs embedded once, then the trunk (`models.trunk`), in five modes of pairs.
--
-- Names and shapes of all parameters are those of the public code; its option names are understood too (`node_embed_size`,
-- `edge_embed_size`, `c_hidden`, `no_heads`, `no_qk_points`, `no_v_points`, `z_factor_rank`, `num_blocks`, `k`, ...).
-- @module moonfold.models.flash_ipa
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local edge_embedder = require "moonfold.nn.edge_embedder"
local node_embedder = require "moonfold.nn.node_embedder"
local mask_of = require "moonfold.nn.mask"
local names = require "moonfold.models.names"
local plan = require "moonfold.models.plan"
local trunk = require "moonfold.models.trunk"

-- Position and time features stand in for node embeddings that the caller does not have: no parameters.
local function own_embeddings(o, inputs, packing, device)
  if not inputs.t then fail("inputs have neither node_embeddings nor t, from which they could be made") end
  local half = math.floor(o.node / 4) * 2
  return node_embedder.features({ position = half, time = o.node - half, scale = 2056 }, inputs.t, packing, device,
    inputs.residue_t)
end

local function forward(self, inputs)
  local o, packing = self._options, trunk.check(inputs)
  local x = inputs.translations
  local call = trunk.masks(o, inputs, x)
  local s = mask_of.apply(inputs.node_embeddings or own_embeddings(o, inputs, packing, x:device()), call.column)
  local pair = self.edge_embedder {
    s = s, translations = x, trans_sc = inputs.trans_sc, mask = inputs.mask, packing = packing,
    edge = inputs.edge_embeddings, edge_mask = inputs.edge_mask,
  }
  return trunk.run(self.trunk, o, inputs, call, s, pair)
end

local defaults = { feat = 64, bins = 22, neighbours = 10, max_len = module.OPTIONAL }
for key, value in pairs(trunk.defaults) do defaults[key] = value end

local define = module.define("flash_ipa", defaults, function(self, o)
  self.edge_embedder = edge_embedder {
    mode = o.mode, node = o.node, edge = o.edge, feat = o.feat, bins = o.bins, rank = o.rank, neighbours = o.neighbours,
    max_len = o.max_len, factor_init = o.factor_init, compat = o.compat, rng = o.rng,
  }
  self.trunk = trunk.build(o)
end, forward, {
  plan = plan,
  describe = function(self)
    local o = self._options
    return ("%s, %d blocks, node %d, edge %d"):format(o.mode, o.blocks, o.node, o.edge)
  end,
})

--- The FlashIPA network. Called with one table:
--
--   translations (N, 3) angstrom, rotations (N, 3, 3), packing; then, each may be missing: node_embeddings (N, node);
--   t (n), from which they are made when missing: half sinusoids of the position, half of the time; trans_sc (N, 3), the
--   previous prediction; mask (N); fixed (N), 1 where a frame must not move; edge_embeddings (P, edge) and edge_mask (P) in
--   the 2-D modes.
--
-- It returns `{ translations (N, 3) angstrom, rotations (N, 3, 3), quaternions (N, 4), node (N, node), initial (N, node) }`.
-- @tparam table o `mode` ("flash_1d_bias"; also "flash_2d_factorize_bias", "flash_no_bias", "orig_2d_bias", "orig_no_bias"),
--   `node` (256), `edge` (128), `hidden` (128), `heads` (8), `query_points` (8), `value_points` (12), `rank` (2), `blocks` (6),
--   `neighbours` (10), `transformer_heads` (4), `transformer_layers` (2), `feat` (64), `bins` (22), `max_len` (for factorizing),
--   `rotary` (false: true lets attention know offsets along the chain, see `nn.rotary`), `gauge` ("canonical"), `layout` ("3p"),
--   `precision` (the global one), `split_type` ("fp16"), `checkpoint` (what backward makes again instead of keeping it: "attention"
--   each block but for its attention, true each block, false nothing; by default "attention" from sequences of 4096 residues
--   on), `factor_init` ("alike", or "published": how pair factors begin, see `nn.initial`), `compat` (false: true lets masked
--   residues be neighbours), `rng`
-- @usage local model = mf.models.flash_ipa { node = 256, edge = 128, blocks = 6, rank = 2 }
--        local out = model { translations = x, rotations = R, node_embeddings = s, packing = packing }
return setmetatable({ name = "flash_ipa", defaults = defaults, methods = define.methods }, {
  __call = function(_, o) return define(names.translate("flash_ipa", o)) end,
})
