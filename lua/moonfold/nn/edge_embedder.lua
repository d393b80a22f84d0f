--- Pairs from node embeddings, positions and distances, once before the trunk.
--
--     mode                      gives                    how
--     orig_no_bias              nothing
--     orig_2d_bias              z (P, edge)              MLP( n_i | n_j | Lin E(i - j) | D(t_ij) | D(sc_ij) ) m_i m_j
--     flash_no_bias             nothing
--     flash_1d_bias             z (N, 2, r, edge)        per factor and rank: MLP( Lin s | Lin E(i) | Lin kappa(t) | Lin kappa(sc))
--     flash_2d_factorize_bias   z (N, 2, r, edge)        the dense z, compressed by `nn.factorizer`
--
-- kappa lists, for the k nearest neighbours, the one-hot distance D and the embedding of the neighbour's position: its memory
-- is linear in the length. Translations are in angstrom here. E counts positions from 0 in each sequence, or reads the
-- residue's `index` where the caller gives one.
-- compat: masked residues count as neighbours, as in the public code; by default they do not.
-- @module moonfold.nn.edge_embedder
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local initial = require "moonfold.nn.initial"
local linear = require "moonfold.nn.linear"
local mlp = require "moonfold.nn.mlp"
local factorizer = require "moonfold.nn.factorizer"
local features = require "moonfold.nn.features"
local mask_of = require "moonfold.nn.mask"

local MODES = {
  orig_no_bias = "none", flash_no_bias = "none", orig_2d_bias = "dense", flash_1d_bias = "factors",
  flash_2d_factorize_bias = "factorized",
}

local function build(self, o)
  local kind = MODES[o.mode]
    or fail("edge_embedder: unknown mode '%s' (known: orig_no_bias, orig_2d_bias, flash_no_bias, flash_1d_bias, "
      .. "flash_2d_factorize_bias)", tostring(o.mode))
  local F, B, r, k, rng = o.feat, o.bins, o.rank, o.neighbours, o.rng
  local function lin(input, output) return linear { input = input, output = output, rng = rng } end
  self._kind = kind
  -- The public code builds the perceptron in every mode, and checkpoints hold it.
  self.edge_embedder = mlp { input = 3 * F + 2 * B, output = o.edge, norm = true, rng = rng }
  if kind == "factors" then
    self.linear_s_p = lin(o.node, 2 * r * F)
    self.linear_relpos = lin(F, 4 * r * F)
    self.linear_t_distogram = lin(k * (B + F), 2 * r * B)
    self.linear_sc_distogram = lin(k * (B + F), 2 * r * B)
    if initial.alike(o.factor_init) then
      for _, layer in ipairs { self.linear_s_p, self.linear_relpos, self.linear_t_distogram, self.linear_sc_distogram } do
        initial.halves_alike(layer)
      end
    end
  elseif kind ~= "none" then
    self.linear_s_p = lin(o.node, F)
    self.linear_relpos = lin(F, F)
    if kind == "factorized" then
      if not o.max_len then fail("edge_embedder: mode flash_2d_factorize_bias needs max_len, the longest sequence") end
      self.factorizer = factorizer { dim = o.edge, rank = r, max_len = o.max_len, rng = rng }
    end
  end
end

-- Distances and positions of the nearest neighbours through a linear layer: (N, 2, r, bins).
local function kappa(x, layer, mask, o, inputs)
  local near = { k = o.neighbours, feat = o.feat, bins = o.bins, lo = o.min_bin, hi = o.max_bin }
  return features.neighbour_linear(x, layer, mask, near, inputs.packing, inputs.index):reshape(x:size(1), 2, o.rank, o.bins)
end

local function factors(self, inputs, trans_sc)
  local o, packing = self._options, inputs.packing
  local n, r, F = inputs.s:size(1), o.rank, o.feat
  -- nil: everybody counts as a neighbour.
  local mask = not o.compat and mask_of.bool(inputs.mask) or nil
  local position = features.index(inputs.index or packing:position(inputs.s:device()), F):to(inputs.s:dtype())
  return self.edge_embedder(mf.cat({
    self.linear_s_p(inputs.s):reshape(n, 2, r, F),
    self.linear_relpos(position):reshape(n, 2, r, 2 * F),
    kappa(inputs.translations:detach(), self.linear_t_distogram, mask, o, inputs),
    kappa(trans_sc, self.linear_sc_distogram, mask, o, inputs),
  }, 4))
end

local function dense(self, inputs, trans_sc)
  local o, packing, device = self._options, inputs.packing, inputs.s:device()
  local row, column = packing:pair_row(device), packing:pair_column(device)
  local n = self.linear_s_p(inputs.s)
  local offset = features.pair_offsets(inputs.index, packing, device)
  local edges = { bins = o.bins, lo = o.min_bin, hi = o.max_bin }
  local z = self.edge_embedder(mf.cat({
    n:index_select(1, row), n:index_select(1, column),
    self.linear_relpos(features.index(offset, o.feat):to(inputs.s:dtype())),
    features.pair_distances(inputs.translations:detach(), edges, packing),
    features.pair_distances(trans_sc, edges, packing),
  }, 2))
  return mask_of.apply(z, mask_of.pairs(inputs.mask, packing))
end

local function forward(self, inputs)
  local kind = self._kind
  local given = inputs.edge
  if given and (kind == "none" or kind == "factors") then fail("mode %s takes no edge embeddings", self._options.mode) end
  if kind == "none" then return nil end
  local x = inputs.translations
  local trans_sc = inputs.trans_sc and inputs.trans_sc:detach()
    or mf.zeros(x:size(1), 3, { dtype = x:dtype(), device = x:device() })
  if kind == "factors" then return factors(self, inputs, trans_sc) end
  local z
  if given then
    z = given
    if kind == "dense" then z = mask_of.apply(z, mask_of.column(inputs.edge_mask) or mask_of.pairs(inputs.mask, inputs.packing)) end
  else
    z = dense(self, inputs, trans_sc)
  end
  return kind == "factorized" and self.factorizer(z, inputs.packing) or z
end

--- The edge embedder; called with `{ s, translations, packing, trans_sc, mask, index, edge, edge_mask }` (the last five may be
-- missing; `index` int32 (N) stands in for positions, `edge` (P, edge) for the computed pairs in the modes that have dense ones).
-- @tparam table o `mode` ("flash_1d_bias"), `node` (256), `edge` (128), `feat` (64), `bins` (22), `rank` (2), `neighbours` (10),
--   `min_bin` (1e-3) and `max_bin` (20), the edges of the first and last bin in angstrom, `max_len` (required to factorize),
--   `factor_init` ("alike", or "published": `nn.initial`), `compat` (false), `rng`
-- @usage local embed = nn.edge_embedder { mode = "flash_1d_bias", neighbours = 20 }
--        local z = embed { s = s, translations = t, packing = packing }
return module.define("edge_embedder", {
  mode = "flash_1d_bias", node = 256, edge = 128, feat = 64, bins = 22, rank = 2, neighbours = 10, min_bin = 1e-3, max_bin = 20,
  max_len = module.OPTIONAL, factor_init = "alike", compat = false, rng = module.OPTIONAL,
}, build, forward, { describe = function(self) return self._options.mode end })
