--- Masked sums, means and centring over the sequences of a packed batch.

local mf = require "moonfold"

local M = {}

--- The mask as numbers (N), ones where there is none.
function M.weights(mask, packing, device)
  if not mask then return mf.ones(packing:total(), { device = device }) end
  return mask:float()
end

--- Weighted mean of each sequence; zero where the weights are zero.
-- @tparam tensor x (N)
-- @tparam tensor w (N)
-- @treturn tensor (n)
function M.mean(x, w, packing)
  return (x * w):segment_sum(packing) / (w:segment_sum(packing) + 1e-10)
end

--- Subtracts the weighted mean of each sequence and sets residues that are not valid to zero.
-- @tparam tensor x (N, 3)
-- @tparam tensor w (N), 0 or 1; a sequence of zeros is not moved
-- @tparam packing packing
-- @tparam[opt=w] tensor valid (N), 0 or 1
-- @treturn tensor (N, 3)
function M.centre(x, w, packing, valid)
  local column = w:reshape(w:size(1), 1)
  local count = w:segment_sum(packing):maximum(1):reshape(packing:count(), 1)
  local centre = (x * column):segment_sum(packing) / count
  return (x - centre:segment_expand(packing)) * (valid and valid:reshape(valid:size(1), 1) or column)
end

--- What holds each sequence in its place: the residues that are fixed, all valid ones where none is.
-- @tparam tensor w (N), the valid residues
-- @tparam ?tensor fixed (N) bool
-- @treturn tensor anchor (N), weights of the residues whose centre is the origin
-- @treturn tensor loose (N), w in the sequences without a fixed residue, zeros in the others
function M.anchors(w, fixed, packing)
  if not fixed then return w, w end
  local held = fixed:float() * w
  local loose = w * held:segment_sum(packing):eq(0):float():segment_expand(packing)
  return held + loose, loose
end

--- A value of each sequence at each of its residues, as a column.
-- @tparam tensor x (n)
-- @treturn tensor (N, 1)
function M.spread(x, packing)
  return x:segment_expand(packing):reshape(packing:total(), 1)
end

--- AᵀB of rotations (N, 3, 3).
function M.relative(a, b)
  return a:transpose(2, 3):matmul(b)
end

--- Rows of a list of sequences, as an index tensor, and their packing.
-- @tparam table which sequences, from 1
-- @treturn tensor int32 residue indices, from 0
-- @treturn packing
function M.rows(which, packing, device)
  local index, lengths, all = {}, {}, packing:lengths()
  for k, i in ipairs(which) do
    lengths[k] = all[i]
    local first = packing:offset(i)
    for j = first, first + all[i] - 1 do index[#index + 1] = j end
  end
  return mf.tensor(index, { dtype = "int32", device = device }), mf.packing(lengths)
end

--- Values of some sequences (k) at their places among all (n), zeros elsewhere.
function M.scatter(values, which, packing)
  local index = {}
  for k, i in ipairs(which) do index[k] = i - 1 end
  local opts = { dtype = values:dtype(), device = values:device() }
  local at = mf.tensor(index, { dtype = "int32", device = values:device() })
  return mf.zeros(packing:count(), opts):index_add(1, at, values)
end

return M
