--- The FlashIPA network: nodes, pairs and frames through blocks of attention, transformer, transition and frame update.
--
-- One block b, with mask m and s0 the masked node embeddings:
--
--     s <- LN(s + IPA(s, pair, T) m)                 trunk.ipa_{b}, trunk.ipa_ln_{b}
--     s <- s + Lin(SeqTransformer(s))                trunk.seq_tfmr_{b}, trunk.post_tfmr_{b}
--     s <- NodeTransition(s) m                       trunk.node_transition_{b}
--     T <- T o BackboneUpdate(s mu)                  trunk.bb_update_{b}          mu = m, 0 where `fixed`
--     pair <- EdgeTransition(s, pair) m              trunk.edge_transition_{b}, not after the last block
--
-- Translations come and go in angstrom and are nm inside. Frames travel as quaternions from the first update on. Names
-- and shapes of all parameters are those of the public code; its option names are understood too (`node_embed_size`,
-- `edge_embed_size`, `c_hidden`, `no_heads`, `no_qk_points`, `no_v_points`, `z_factor_rank`, `num_blocks`, `k`, ...).
-- @module moonfold.models.flash_ipa
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local linear = require "moonfold.nn.linear"
local layer_norm = require "moonfold.nn.layer_norm"
local ipa = require "moonfold.nn.ipa"
local dense_ipa = require "moonfold.nn.dense_ipa"
local edge_embedder = require "moonfold.nn.edge_embedder"
local edge_transition = require "moonfold.nn.edge_transition"
local node_transition = require "moonfold.nn.node_transition"
local node_embedder = require "moonfold.nn.node_embedder"
local backbone_update = require "moonfold.nn.backbone_update"
local sequence_transformer = require "moonfold.nn.sequence_transformer"
local mask_of = require "moonfold.nn.mask"
local names = require "moonfold.models.names"

local NM = 0.1    -- nm in an angstrom

local function build_trunk(o)
  local trunk, dim, rng = {}, o.node, o.rng
  local dense = o.mode == "orig_2d_bias"
  local paired = o.mode == "flash_1d_bias" or o.mode == "flash_2d_factorize_bias"
  for b = 0, o.blocks - 1 do
    local shared = {
      dim = dim, edge = o.edge, heads = o.heads, hidden = o.hidden, query_points = o.query_points,
      value_points = o.value_points, gauge = o.gauge, rng = rng,
    }
    if dense then
      trunk["ipa_" .. b] = dense_ipa(shared)
    else
      shared.rank, shared.layout, shared.precision, shared.split_type = paired and o.rank or 0, o.layout, o.precision, o.split_type
      -- The public no-bias dense mode differs from the flash one in the kernel alone, and its products are float32.
      if o.mode == "orig_no_bias" then shared.precision = "float32" end
      trunk["ipa_" .. b] = ipa(shared)
    end
    trunk["ipa_ln_" .. b] = layer_norm { dim = dim }
    trunk["seq_tfmr_" .. b] = sequence_transformer {
      dim = dim, heads = o.transformer_heads, layers = o.transformer_layers, precision = o.precision, rng = rng,
    }
    trunk["post_tfmr_" .. b] = linear { input = dim, output = dim, init = "final", rng = rng }
    trunk["node_transition_" .. b] = node_transition { dim = dim, rng = rng }
    trunk["bb_update_" .. b] = backbone_update { dim = dim, rng = rng }
    if b < o.blocks - 1 then
      trunk["edge_transition_" .. b] = edge_transition {
        node = dim, edge = o.edge, dense = dense, rank = paired and o.rank or 0, rng = rng,
      }
    end
  end
  return trunk
end

-- One block; frame is a matrix in the first one and a quaternion after. Only tensors in and out: it may be recomputed.
local function block(self, b, call, s, frame, t, pair)
  local trunk = self.trunk
  local R = frame:ndim() == 3 and frame or mf.geometry.quat_to_rot(frame)
  local attended = trunk["ipa_" .. b] {
    s = s, frames = { R = R, t = t }, pair = pair, packing = call.packing, mask = call.mask,
  }
  s = trunk["ipa_ln_" .. b](s, attended, call.column)
  s = s + trunk["post_tfmr_" .. b](trunk["seq_tfmr_" .. b](s, call.packing, call.mask, call.key_bias))
  s = mask_of.apply(trunk["node_transition_" .. b](s), call.column)
  local q
  -- s times the mask in the definition: the update of a frame that may not move is masked itself.
  q, t = trunk["bb_update_" .. b](s, frame, t, call.free)
  if not pair then return s, q, t end
  local transition = trunk["edge_transition_" .. b]
  if not transition then return s, q, t end
  return s, q, t, mask_of.apply(transition(s, pair, call.packing), call.pair_column)
end

-- Position and time features stand in for node embeddings that the caller does not have: no parameters.
local function own_embeddings(o, inputs, packing, device)
  if not inputs.t then fail("inputs have neither node_embeddings nor t, from which they could be made") end
  local half = math.floor(o.node / 4) * 2
  return node_embedder.features({ position = half, time = o.node - half, scale = 2056 }, inputs.t, packing, device)
end

local function masks(self, inputs, packing, x)
  local mask, free = inputs.mask, inputs.mask
  local column = mask_of.column(mask)
  if inputs.fixed then
    free = mask_of.column(inputs.fixed):affine(-1, 1)
    if column then free = free * column end
    free = free:reshape(-1)
  end
  local pair_column = column
  if self._options.mode == "orig_2d_bias" then
    pair_column = mask_of.column(inputs.edge_mask) or mask_of.pairs(mask, packing)
  end
  return {
    packing = packing, mask = mask_of.bool(mask), column = column, pair_column = pair_column, free = free,
    key_bias = sequence_transformer.key_bias_of(mask, self._options.transformer_heads, x),
  }
end

local function plain(fn, ...) return fn(...) end

-- How a block is called. Past this length attention is most of a step, and what precedes and follows it is cheap to do again.
local LONG = 4096
local function runner(checkpoint, packing)
  if checkpoint == nil then checkpoint = packing:longest() >= LONG and "attention" end
  return checkpoint == "attention" and mf.recompute or checkpoint and mf.checkpoint or plain
end

local function forward(self, inputs)
  local o = self._options
  local x, R = inputs.translations, inputs.rotations
  if not x or not R then fail("inputs need translations (N, 3) in angstrom and rotations (N, 3, 3)") end
  local packing = inputs.packing or fail("packing is missing: which residues belong together (mf.packing { 120, 80 })")
  local call = masks(self, inputs, packing, x)
  local s = inputs.node_embeddings or own_embeddings(o, inputs, packing, x:device())
  s = mask_of.apply(s, call.column)
  local initial = s
  local pair = self.edge_embedder {
    s = s, translations = x, trans_sc = inputs.trans_sc, mask = inputs.mask, packing = packing,
    edge = inputs.edge_embeddings, edge_mask = inputs.edge_mask,
  }
  local frame, t, run = R, x:affine(NM, 0), runner(o.checkpoint, packing)
  for b = 0, o.blocks - 1 do
    s, frame, t, pair = run(block, self, b, call, s, frame, t, pair)
  end
  return {
    translations = t:affine(1 / NM, 0), node = s, initial = initial,
    rotations = frame:ndim() == 2 and mf.geometry.quat_to_rot(frame) or frame,
  }
end

local defaults = {
  mode = "flash_1d_bias", node = 256, edge = 128, hidden = 128, heads = 8, query_points = 8, value_points = 12, rank = 2,
  transformer_heads = 4, transformer_layers = 2, blocks = 6, feat = 64, bins = 22, neighbours = 10,
  max_len = module.OPTIONAL, gauge = "canonical", layout = "3p", precision = module.OPTIONAL, split_type = "fp16",
  checkpoint = module.OPTIONAL, compat = false, rng = module.OPTIONAL,
}

local define = module.define("flash_ipa", defaults, function(self, o)
  local known = o.checkpoint == nil or type(o.checkpoint) == "boolean" or o.checkpoint == "attention"
  if not known then fail("flash_ipa: checkpoint is '%s' (known: true, false, attention)", tostring(o.checkpoint)) end
  self.edge_embedder = edge_embedder {
    mode = o.mode, node = o.node, edge = o.edge, feat = o.feat, bins = o.bins, rank = o.rank, neighbours = o.neighbours,
    max_len = o.max_len, compat = o.compat, rng = o.rng,
  }
  self.trunk = build_trunk(o)
end, forward, {
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
-- It returns `{ translations (N, 3) angstrom, rotations (N, 3, 3), node (N, node), initial (N, node) }`.
-- @tparam table o `mode` ("flash_1d_bias"; also "flash_2d_factorize_bias", "flash_no_bias", "orig_2d_bias", "orig_no_bias"),
--   `node` (256), `edge` (128), `hidden` (128), `heads` (8), `query_points` (8), `value_points` (12), `rank` (2), `blocks` (6),
--   `neighbours` (10), `transformer_heads` (4), `transformer_layers` (2), `feat` (64), `bins` (22), `max_len` (for factorizing),
--   `gauge` ("canonical"), `layout` ("3p"), `precision` (the global one), `split_type` ("fp16"), `checkpoint` (what
--   backward makes again instead of keeping it: "attention" each block but for its attention, true each block, false nothing;
--   by default "attention" from sequences of 4096 residues on), `compat` (false: true lets masked residues be neighbours), `rng`
-- @usage local model = mf.models.flash_ipa { node = 256, edge = 128, blocks = 6, rank = 2 }
--        local out = model { translations = x, rotations = R, node_embeddings = s, packing = packing }
return setmetatable({ name = "flash_ipa", defaults = defaults, methods = define.methods }, {
  __call = function(_, o) return define(names.translate("flash_ipa", o)) end,
})
