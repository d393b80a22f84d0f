--- Nodes and pairs from time, motif, residue index and the last prediction: FoldFlow's embedder.
--
--     p_i  = tau(t) | fixed_i
--     s_i  = MLP_node( p_i | E(index_i) ) m_i
--     z_ij = MLP_edge( p_i | p_j | E(index_i - index_j) | D(|sc_i - sc_j|) ) m_i m_j
--
-- tau and E are `position` wide, tau with scale 10000; D bins the distances of the self-conditioning positions in angstrom. An
-- index is any whole number, so that gaps in a chain are seen. That is mode "orig_2d_bias"; in the other modes pairs come from
-- `nn.edge_embedder`, from s and with the index in the place of positions.
-- @module moonfold.nn.indexed_embedder
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local mlp = require "moonfold.nn.mlp"
local edge_embedder = require "moonfold.nn.edge_embedder"
local features = require "moonfold.nn.features"
local mask_of = require "moonfold.nn.mask"

local TIME_SCALE = 10000

local function build(self, o)
  local own = o.position + 1
  self.node_embedder = mlp { input = own + o.position, output = o.node, norm = true, rng = o.rng }
  if o.mode == "orig_2d_bias" then
    self.edge_embedder = mlp {
      input = 2 * own + o.position + (o.self_condition and o.bins or 0), output = o.edge, norm = true, rng = o.rng,
    }
    return
  end
  if not o.self_condition then fail("self_condition = false: only mode orig_2d_bias can do without") end
  self.edge_embedder = edge_embedder {
    mode = o.mode, node = o.node, edge = o.edge, feat = o.feat, bins = o.bins, rank = o.rank, neighbours = o.neighbours,
    min_bin = o.min_bin, max_bin = o.max_bin, max_len = o.max_len, factor_init = o.factor_init, compat = o.compat, rng = o.rng,
  }
end

local function dense(self, inputs, own, index, like)
  local o, packing, device = self._options, inputs.packing, like:device()
  local offset = features.pair_offsets(index, packing, device)
  local parts = {
    own:index_select(1, packing:pair_row(device)), own:index_select(1, packing:pair_column(device)),
    features.index(offset, o.position):to(like:dtype()),
  }
  if o.self_condition then
    local x = inputs.trans_sc and inputs.trans_sc:detach() or mf.zeros(own:size(1), 3, { dtype = like:dtype(), device = device })
    parts[4] = features.pair_distances(x, { bins = o.bins, lo = o.min_bin, hi = o.max_bin }, packing)
  end
  return mask_of.apply(self.edge_embedder(mf.cat(parts, 2)), mask_of.pairs(inputs.mask, packing))
end

local function forward(self, inputs)
  local o, packing = self._options, inputs.packing
  local like = self.node_embedder[1].weight
  local type_of, device = like:dtype(), like:device()
  local fixed = mask_of.column(inputs.fixed) or mf.zeros(packing:total(), 1, { device = device })
  local time = features.time(inputs.t, o.position, TIME_SCALE):to(device):segment_expand(packing)
  local own = mf.cat({ time:to(type_of), fixed:to(type_of) }, 2)
  local index = inputs.index
  local s = self.node_embedder(mf.cat({ own, features.index(index, o.position):to(type_of) }, 2))
  s = mask_of.apply(s, mask_of.column(inputs.mask))
  if o.mode == "orig_2d_bias" then return s, dense(self, inputs, own, index, like) end
  return s, self.edge_embedder {
    s = s, translations = inputs.translations, trans_sc = inputs.trans_sc, mask = inputs.mask, packing = packing, index = index,
  }
end

--- The embedder; called with `{ t (n), packing, index int32 (N), translations (N, 3), trans_sc, fixed (N), mask (N) }`, the last
-- three may be missing; gives nodes (N, node) and the pairs that the mode's attention takes.
-- @tparam table o `mode` ("orig_2d_bias"), `node` (256), `edge` (128), `position` (32), `self_condition` (true), `bins` (22),
--   `min_bin` (1e-5), `max_bin` (20), and for the other modes what `nn.edge_embedder` takes: `feat` (64), `rank` (2),
--   `neighbours` (20), `max_len`, `factor_init`, `compat`; `rng`
-- @usage local embed = nn.indexed_embedder { node = 256, edge = 128 }
--        local s, z = embed { t = t, packing = packing, index = packing:position() + 1, translations = x }
return module.define("indexed_embedder", {
  mode = "orig_2d_bias", node = 256, edge = 128, position = 32, self_condition = true, bins = 22, min_bin = 1e-5, max_bin = 20,
  feat = 64, rank = 2, neighbours = 20, max_len = module.OPTIONAL, factor_init = "alike", compat = false,
  rng = module.OPTIONAL,
}, build, forward, { describe = function(self) return self._options.mode end })
