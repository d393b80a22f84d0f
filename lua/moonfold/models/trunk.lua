--- The trunk that the networks share: nodes, pairs and frames through blocks of attention, transformer, transition, frame update.
--
-- One block b, with mask m and s0 the masked node embeddings:
--
--     s <- LN(s + IPA(s, pair, T) m)                 ipa_{b}, ipa_ln_{b}
--     h  = s, or s | Lin(s0) where there is a skip   skip_embed_{b}
--     s <- s + Lin(SeqTransformer(h))                seq_tfmr_{b}, post_tfmr_{b}
--     s <- NodeTransition(s) m                       node_transition_{b}
--     T <- T o BackboneUpdate(s mu)                  bb_update_{b}          mu = m, 0 where `fixed`
--     pair <- EdgeTransition(s, pair) m              edge_transition_{b}, not after the last block
--
-- Translations come and go in angstrom and are nm inside. Frames travel as quaternions from the first update on.
-- @module moonfold.models.trunk
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local linear = require "moonfold.nn.linear"
local layer_norm = require "moonfold.nn.layer_norm"
local ipa = require "moonfold.nn.ipa"
local dense_ipa = require "moonfold.nn.dense_ipa"
local edge_transition = require "moonfold.nn.edge_transition"
local node_transition = require "moonfold.nn.node_transition"
local backbone_update = require "moonfold.nn.backbone_update"
local sequence_transformer = require "moonfold.nn.sequence_transformer"
local mask_of = require "moonfold.nn.mask"

local M = {}

local NM = 0.1    -- nm in an angstrom

--- Options of a trunk and their defaults, shared by every network that has one.
M.defaults = {
  mode = "flash_1d_bias", node = 256, edge = 128, hidden = 128, heads = 8, query_points = 8, value_points = 12, rank = 2,
  transformer_heads = 4, transformer_layers = 2, blocks = 6, rotary = false, gauge = "canonical", layout = "3p",
  precision = module.OPTIONAL, split_type = "fp16", checkpoint = module.OPTIONAL, factor_init = "alike", compat = false,
  rng = module.OPTIONAL,
}

-- What only some networks have: `skip` channels of s0 beside s in the transformer; `unused` layers that stand in the peer's
-- checkpoints and do nothing; `renormalise`, which also makes quaternions unit that do not move; `padding_logit`, what compat
-- adds to the logit of a masked residue in the transformer where others leave it out.
local function attention(o)
  local paired = o.mode == "flash_1d_bias" or o.mode == "flash_2d_factorize_bias"
  local shared = {
    dim = o.node, edge = o.edge, heads = o.heads, hidden = o.hidden, query_points = o.query_points,
    value_points = o.value_points, rotary = o.rotary, gauge = o.gauge, rng = o.rng,
  }
  local layer
  if o.mode == "orig_2d_bias" then
    layer = dense_ipa(shared)
  else
    shared.rank, shared.layout, shared.precision, shared.split_type = paired and o.rank or 0, o.layout, o.precision, o.split_type
    -- The public no-bias dense mode differs from the flash one in the kernel alone, and its products are float32.
    if o.mode == "orig_no_bias" then shared.precision = "float32" end
    layer = ipa(shared)
  end
  if o.unused then
    layer.linear_rbf = module.idle(linear { input = 20, output = 1, init = "default", rng = o.rng })
  end
  return layer
end

--- Makes the layers of a trunk.
-- @tparam table o options as in `defaults`, and of the network's own `skip`, `unused`, `renormalise`
-- @treturn table of layers, to be kept under the name that the network's checkpoints have for it
function M.build(o)
  local known = o.checkpoint == nil or type(o.checkpoint) == "boolean" or o.checkpoint == "attention"
  if not known then fail("trunk: checkpoint is '%s' (known: true, false, attention)", tostring(o.checkpoint)) end
  local trunk, dim, rng = {}, o.node, o.rng
  local wide = dim + (o.skip or 0)
  local paired = o.mode == "flash_1d_bias" or o.mode == "flash_2d_factorize_bias"
  for b = 0, o.blocks - 1 do
    trunk["ipa_" .. b] = attention(o)
    trunk["ipa_ln_" .. b] = layer_norm { dim = dim }
    if o.skip then trunk["skip_embed_" .. b] = linear { input = dim, output = o.skip, init = "final", rng = rng } end
    trunk["seq_tfmr_" .. b] = sequence_transformer {
      dim = wide, heads = o.transformer_heads, layers = o.transformer_layers, precision = o.precision, rng = rng,
    }
    trunk["post_tfmr_" .. b] = linear { input = wide, output = dim, init = "final", rng = rng }
    trunk["node_transition_" .. b] = node_transition { dim = dim, rng = rng }
    trunk["bb_update_" .. b] = backbone_update { dim = dim, renormalise = o.renormalise or false, rng = rng }
    if b < o.blocks - 1 then
      trunk["edge_transition_" .. b] = edge_transition {
        node = dim, edge = o.edge, dense = o.mode == "orig_2d_bias", rank = paired and o.rank or 0,
        factor_init = o.factor_init, rng = rng,
      }
    end
  end
  return trunk
end

--- What the masks of a call mean to each part of a block.
-- @tparam table o options of the network; `padding_logit` only under compat
-- @tparam table inputs `mask` (N), `fixed` (N), `edge_mask` (P), each may be missing, and `packing`
-- @param x a tensor (N, ...) of the type and device that the network works in
-- @param index int32 (N) or nil: residues' numbers in the place of their positions, for `rotary`
-- @treturn table for `run`; `column` is the mask as (N, 1) numbers
function M.masks(o, inputs, x, index)
  local mask, free, packing = inputs.mask, inputs.mask, inputs.packing
  local column = mask_of.column(mask)
  if inputs.fixed then
    free = mask_of.column(inputs.fixed):affine(-1, 1)
    if column then free = free * column end
    free = free:reshape(-1)
  end
  local pair_column = column
  if o.mode == "orig_2d_bias" then
    pair_column = mask_of.column(inputs.edge_mask) or mask_of.pairs(mask, packing)
  end
  return {
    packing = packing, index = index, mask = mask_of.bool(mask), column = column, pair_column = pair_column, free = free,
    key_bias = sequence_transformer.key_bias_of(mask, o.transformer_heads, x, o.compat and o.padding_logit or nil),
  }
end

-- One block; frame is a matrix in the first one and a quaternion after. Only tensors in and out: it may be recomputed.
local function block(trunk, b, call, s, frame, t, pair, initial)
  local R = frame:ndim() == 3 and frame or mf.geometry.quat_to_rot(frame)
  local attended = trunk["ipa_" .. b] {
    s = s, frames = { R = R, t = t }, pair = pair, packing = call.packing, index = call.index, mask = call.mask,
  }
  s = trunk["ipa_ln_" .. b](s, attended, call.column)
  local skip = trunk["skip_embed_" .. b]
  local h = skip and mf.cat({ s, skip(initial) }, 2) or s
  s = s + trunk["post_tfmr_" .. b](trunk["seq_tfmr_" .. b](h, call.packing, call.mask, call.key_bias))
  s = mask_of.apply(trunk["node_transition_" .. b](s), call.column)
  local q
  -- s times the mask in the definition: the update of a frame that may not move is masked itself.
  q, t = trunk["bb_update_" .. b](s, frame, t, call.free)
  if not pair then return s, q, t end
  local transition = trunk["edge_transition_" .. b]
  if not transition then return s, q, t end
  return s, q, t, mask_of.apply(transition(s, pair, call.packing), call.pair_column)
end

local function plain(fn, ...) return fn(...) end

-- How a block is called. Past this length attention is most of a step, and what precedes and follows it is cheap to do again.
local LONG = 4096
local function runner(checkpoint, packing)
  if checkpoint == nil then checkpoint = packing:longest() >= LONG and "attention" end
  return checkpoint == "attention" and mf.recompute or checkpoint and mf.checkpoint or plain
end

--- Raises unless a network was given frames and a packing.
-- @tparam table inputs
-- @treturn packing
function M.check(inputs)
  if type(inputs) ~= "table" or not inputs.translations or not inputs.rotations then
    fail("inputs need translations (N, 3) in angstrom and rotations (N, 3, 3) or quaternions (N, 4)")
  end
  return inputs.packing or fail("packing is missing: which residues belong together (mf.packing { 120, 80 })")
end

--- Runs all blocks.
-- @tparam table trunk from `build`
-- @tparam table o options of the network
-- @tparam table inputs `translations` (N, 3) angstrom, `rotations` (N, 3, 3) or unit quaternions (N, 4)
-- @tparam table call from `masks`
-- @tparam tensor s (N, node), masked
-- @tparam ?tensor pair what the mode's attention takes
-- @treturn table `translations` (N, 3) angstrom, `rotations` (N, 3, 3), `quaternions` (N, 4), `node` (N, node), `initial`
function M.run(trunk, o, inputs, call, s, pair)
  local initial = s
  local frame, t, run = inputs.rotations, inputs.translations:affine(NM, 0), runner(o.checkpoint, call.packing)
  for b = 0, o.blocks - 1 do
    s, frame, t, pair = run(block, trunk, b, call, s, frame, t, pair, o.skip and initial or nil)
  end
  if frame:ndim() == 3 then frame = mf.geometry.rot_to_quat(frame) end     -- no blocks
  return {
    translations = t:affine(1 / NM, 0), rotations = mf.geometry.quat_to_rot(frame), quaternions = frame,
    node = s, initial = initial,
  }
end

return M
