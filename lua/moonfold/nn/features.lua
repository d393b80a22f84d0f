--- Features without parameters: times, positions, and the distances of nearest neighbours.
-- @module moonfold.nn.features
local mf = require "moonfold"
local constant = require "moonfold.constant"

local M = {}

local known = {}     -- "half scale" -> { M exp(-j ln M / (half - 1)), ... }

local function frequencies(half, scale)
  local key = ("%d %.17g"):format(half, scale)
  if not known[key] then
    local list = {}
    for j = 0, half - 1 do list[j + 1] = scale * math.exp(-j * math.log(scale) / math.max(half - 1, 1)) end
    known[key] = list
  end
  return known[key]
end

--- Sinusoidal embedding of times: (sin a_j ..., cos a_j ...), a_j = t M exp(-j ln M / (half - 1)), half = floor(width / 2).
--
-- Angles reach M, so they are computed in float64: in float32 channel 0 would be off by 1e-4.
-- @param t tensor (n)
-- @tparam number width of the result; an odd one ends in a zero
-- @tparam[opt=10000] number scale M
-- @return a tensor (n, width), float32, on t's device
-- @usage local e = nn.features.time(t, 128, 2056)
function M.time(t, width, scale)
  local frequency = frequencies(math.floor(width / 2), scale or 10000)
  t = t:detach():to("float64"):reshape(-1, 1)
  local angle = t * constant(frequency, { dtype = "float64", device = t:device() })
  local parts = { angle:sin(), angle:cos() }
  if width % 2 == 1 then parts[3] = t:affine(0, 0) end
  return mf.cat(parts, 2):to("float32")
end

--- Sinusoidal embedding E_width of residue positions or offsets.
-- @param index int32 tensor (m)
-- @tparam number width even
-- @tparam[opt=2056] number max_len
-- @return a tensor (m, width)
function M.index(index, width, max_len)
  return mf.geometry.index_embedding(index, width, max_len or 2056)
end

--- The offset i - j of each pair, in residue indices where they are given and in positions otherwise.
-- @param index int32 tensor (N) or nil
-- @param packing
-- @tparam string device
-- @return an int32 tensor (P)
function M.pair_offsets(index, packing, device)
  if not index then return packing:pair_offset(device) * -1 end     -- the packing has j - i
  return index:index_select(1, packing:pair_row(device)) - index:index_select(1, packing:pair_column(device))
end

--- One-hot bins of distances in angstrom: bin b is open between two of `bins` edges, even from lo to hi; the last is endless.
-- @param distance tensor of any shape
-- @tparam table o `bins`, `lo` (1e-3), `hi` (20)
-- @return a tensor of one more axis
function M.one_hot(distance, o)
  return mf.geometry.distogram(distance, o.lo or 1e-3, o.hi or 20, o.bins)
end

-- Consecutive residues are equally far apart, so that which of the two comes first is a matter of the last bit: the search
-- runs in float64 on positions as they are given, which is what the definition says.
local function nearest(x, mask, k, packing) return mf.geometry.neighbours(x:to("float64"), mask, k, packing) end

--- For each residue, over its k nearest neighbours, nearest first: the one-hot of the distance and E_feat of the
-- neighbour's position.
-- @param x (N, 3) positions
-- @param mask bool (N) or nil: who may be a neighbour
-- @tparam table o `k`, `feat`, `bins`, `lo` (1e-3), `hi` (20)
-- @param packing
-- @return a tensor (N, k (bins + feat))
function M.neighbours(x, mask, o, packing)
  local index, distance = nearest(x, mask, o.k, packing)
  local n = x:size(1)
  local near = M.one_hot(distance, o):to(x:dtype())
  local where = M.index(index:reshape(-1), o.feat):to(x:dtype()):reshape(n, o.k, o.feat)
  return mf.cat({ near, where }, 3):reshape(n, -1)
end

-- Numbers of residues at the places where `neighbours` found positions in the sequence. The first row of each sequence is
-- summed up on the device: packing:offsets() comes from the host, which a captured graph cannot ask.
local function of_neighbours(number, position, packing)
  local lengths = mf.ones(packing:total(), { device = position:device() }):segment_sum(packing)
  local first = (lengths:cumsum(1) - lengths):segment_expand(packing):to "int32"
  local rows = position + first:reshape(-1, 1)
  return number:index_select(1, rows:reshape(-1)):reshape(position:shape())
end

--- A linear layer over `neighbours` without making them: its gradient goes to the layer only.
-- @param x (N, 3) positions
-- @tparam linear layer k (bins + feat) wide
-- @param mask bool (N) or nil: who may be a neighbour
-- @tparam table o `k`, `feat`, `bins`, `lo` (1e-3), `hi` (20)
-- @param packing
-- @param[opt] number int32 tensor (N): what stands for the neighbour's position
-- @return a tensor (N, outputs)
function M.neighbour_linear(x, layer, mask, o, packing, number)
  local index, distance = nearest(x, mask, o.k, packing)
  if number then index = of_neighbours(number, index, packing) end
  return mf.geometry.neighbour_linear(index, distance, layer.weight, layer.bias,
    { bins = o.bins, feat = o.feat, lo = o.lo or 1e-3, hi = o.hi or 20 })
end

--- One-hot distances of all pairs of each sequence.
-- @param x (N, 3)
-- @tparam table o `bins`, `lo` (1e-3), `hi` (20)
-- @param packing
-- @return a tensor (P, bins)
function M.pair_distances(x, o, packing)
  local device = x:device()
  local d = (x:index_select(1, packing:pair_row(device)) - x:index_select(1, packing:pair_column(device))):square():sum(2):sqrt()
  return M.one_hot(d, o)
end

return M
