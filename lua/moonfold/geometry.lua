--- Rotations, frames, superposition, neighbours. R is (N, 3, 3), t is (N, 3), quaternions are (w, x, y, z).
-- @module moonfold.geometry
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"

local C, out, out2, out3, again, check, adopt = F.C, F.out, F.out2, F.out3, F.again, F.check, F.adopt
local is_tensor = F.is_tensor

local M = {}

-- Checks that the arguments are tensors; positions count from 1.
local function tensors(name, ...)
  for i = 1, select("#", ...) do T.tensor_argument(name, i, (select(i, ...))) end
end

local function one(f, ...)
  local status = f(out, ...)
  if status ~= 0 and again(status) then check(f(out, ...)) end
  return adopt(out[0])
end

local function two(f, ...)
  local status = f(out, out2, ...)
  if status ~= 0 and again(status) then check(f(out, out2, ...)) end
  local second = out2[0]
  return adopt(out[0]), adopt(second)
end

--- Rotations whose x axis points from the origin to `x_axis`, with `xy` on the positive side of y (Gram-Schmidt).
-- @tparam tensor x_axis (N, 3)
-- @tparam tensor xy (N, 3)
-- @tparam tensor origin (N, 3)
-- @treturn tensor (N, 3, 3)
function M.frames_from_points(x_axis, xy, origin)
  tensors("frames_from_points", x_axis, xy, origin)
  return one(C.mf_frames_from_points, x_axis, xy, origin)
end

-- Points (N, 3) are one point a frame.
local function with_points(name, f, R, t, points)
  tensors(name, R, t, points)
  if points:ndim() == 2 then return one(f, R, t, points:unsqueeze(2)):squeeze(2) end
  return one(f, R, t, points)
end

--- R x + t for every point of every frame.
-- @tparam tensor R (N, 3, 3)
-- @tparam tensor t (N, 3)
-- @tparam tensor points (N, P, 3) or (N, 3)
-- @treturn tensor shaped like the points
function M.apply(R, t, points) return with_points("apply", C.mf_frames_apply, R, t, points) end

--- R' (x - t) for every point of every frame.
-- @tparam tensor R (N, 3, 3)
-- @tparam tensor t (N, 3)
-- @tparam tensor points (N, P, 3) or (N, 3)
-- @treturn tensor shaped like the points
function M.invert_apply(R, t, points) return with_points("invert_apply", C.mf_frames_invert_apply, R, t, points) end

--- The frame that applies (R2, t2) first and then (R1, t1).
-- @tparam tensor R1 (N, 3, 3)
-- @tparam tensor t1 (N, 3)
-- @tparam tensor R2 (N, 3, 3)
-- @tparam tensor t2 (N, 3)
-- @treturn tensor (N, 3, 3)
-- @treturn tensor (N, 3)
function M.compose(R1, t1, R2, t2)
  tensors("compose", R1, t1, R2, t2)
  return R1:matmul(R2), M.apply(R1, t1, t2)
end

--- Rotation matrices of quaternions; the quaternion is not normalised first.
-- @tparam tensor q (N, 4)
-- @treturn tensor (N, 3, 3)
function M.quat_to_rot(q)
  tensors("quat_to_rot", q)
  return one(C.mf_quat_to_rot, q)
end

--- The unit quaternion of each rotation, its first non-zero component positive.
-- @tparam tensor R (N, 3, 3)
-- @treturn tensor (N, 4)
function M.rot_to_quat(R)
  tensors("rot_to_quat", R)
  return one(C.mf_rot_to_quat, R)
end

--- The product of quaternions.
-- @tparam tensor p (N, 4)
-- @tparam tensor q (N, 4)
-- @treturn tensor (N, 4)
function M.quat_multiply(p, q)
  tensors("quat_multiply", p, q)
  return one(C.mf_quat_multiply, p, q)
end

--- Rotations of rotation vectors.
-- @tparam tensor v (N, 3)
-- @treturn tensor (N, 3, 3)
function M.so3_exp(v)
  tensors("so3_exp", v)
  return one(C.mf_so3_exp, v)
end

--- Rotation vectors of rotations, valid up to an angle of pi.
-- @tparam tensor R (N, 3, 3)
-- @treturn tensor (N, 3)
function M.so3_log(R)
  tensors("so3_log", R)
  return one(C.mf_so3_log, R)
end

--- The point at s of the shortest way from R0 (s = 0) to R1 (s = 1).
-- @tparam tensor R0 (N, 3, 3)
-- @tparam tensor R1 (N, 3, 3)
-- @tparam number|tensor s one for all, or (N) or (N, 1)
-- @treturn tensor (N, 3, 3)
function M.geodesic(R0, R1, s)
  tensors("geodesic", R0, R1)
  if type(s) ~= "number" then
    T.tensor_argument("geodesic", 3, s)
    if s:ndim() == 1 then s = s:unsqueeze(2) end
  end
  return R0:matmul(M.so3_exp(M.so3_log(R0:transpose(-1, -2):matmul(R1)) * s))
end

--- Sine and cosine of the torsion of four points.
-- @tparam tensor points (N, 4, 3)
-- @treturn tensor (N, 2)
function M.dihedral(points)
  tensors("dihedral", points)
  return one(C.mf_dihedral, points)
end

--- The frame of each sequence: origin at the mean of its translations, axes of its first valid residue. Constants.
-- @tparam tensor R (N, 3, 3)
-- @tparam tensor t (N, 3)
-- @tparam ?tensor mask (N)
-- @tparam packing packing
-- @treturn tensor (n, 3, 3)
-- @treturn tensor (n, 3)
function M.gauge(R, t, mask, packing)
  tensors("gauge", R, t)
  T.optional_tensor("gauge", 3, mask)
  T.packing_argument("gauge", 4, packing)
  return two(C.mf_frames_gauge, R, t, mask, packing)
end

--- The rigid motion of each sequence that brings `moving` nearest to `fixed`.
-- @tparam tensor moving (N, 3)
-- @tparam tensor fixed (N, 3)
-- @tparam ?tensor weight (N)
-- @tparam packing packing
-- @treturn tensor rotations (n, 3, 3)
-- @treturn tensor translations (n, 3)
-- @treturn tensor root mean square distance (n)
function M.kabsch(moving, fixed, weight, packing)
  tensors("kabsch", moving, fixed)
  T.optional_tensor("kabsch", 3, weight)
  T.packing_argument("kabsch", 4, packing)
  local status = C.mf_kabsch(out, out2, out3, moving, fixed, weight, packing)
  if status ~= 0 and again(status) then check(C.mf_kabsch(out, out2, out3, moving, fixed, weight, packing)) end
  local t, rmsd = out2[0], out3[0]
  return adopt(out[0]), adopt(t), adopt(rmsd)
end

--- The rotation about the origin that brings a sequence nearest to another of its length, for many pairs at once; and what distance
-- is left. Centre both first. No gradients.
-- @tparam tensor moving (N, 3)
-- @tparam tensor fixed (N, 3)
-- @tparam ?tensor weight (N), of the residues of fixed
-- @tparam packing packing
-- @tparam tensor pairs int32 (P, 2): sequence of moving, sequence of fixed, from 0
-- @treturn tensor rotations (P, 3, 3)
-- @treturn tensor weighted mean of the distances of turned and fixed points (P)
function M.kabsch_pairs(moving, fixed, weight, packing, pairs)
  tensors("kabsch_pairs", moving, fixed)
  T.optional_tensor("kabsch_pairs", 3, weight)
  T.packing_argument("kabsch_pairs", 4, packing)
  T.tensor_argument("kabsch_pairs", 5, pairs)
  return two(C.mf_kabsch_pairs, moving, fixed, weight, pairs, packing)
end

--- The k nearest residues of each residue in its sequence, nearest first.
-- @tparam tensor x (N, 3)
-- @tparam ?tensor mask (N)
-- @tparam number k
-- @tparam packing packing
-- @treturn tensor positions in the sequence from 0, int32 (N, k)
-- @treturn tensor distances (N, k)
function M.neighbours(x, mask, k, packing)
  tensors("neighbours", x)
  T.optional_tensor("neighbours", 2, mask)
  T.integer_argument("neighbours", 3, k, nil, T.INT_MAX)
  T.packing_argument("neighbours", 4, packing)
  return two(C.mf_neighbours, x, mask, k, packing)
end

--- One-hot bins of distances.
-- @tparam tensor distance
-- @tparam number lo
-- @tparam number hi
-- @tparam number bins
-- @treturn tensor
function M.distogram(distance, lo, hi, bins)
  tensors("distogram", distance)
  T.number_argument("distogram", 2, lo)
  T.number_argument("distogram", 3, hi)
  T.integer_argument("distogram", 4, bins, nil, T.INT_MAX)
  return one(C.mf_distogram, distance, lo, hi, bins)
end

--- Sines and cosines of positions.
-- @tparam tensor index
-- @tparam number width
-- @tparam[opt=2056] number max_len
-- @treturn tensor the shape of the index, then width
function M.index_embedding(index, width, max_len)
  tensors("index_embedding", index)
  T.integer_argument("index_embedding", 2, width, nil, T.INT_MAX)
  max_len = T.number_argument("index_embedding", 3, max_len, 2056)
  return one(C.mf_index_embedding, index, width, max_len)
end

--- Pairs of columns turned by angles that grow with the residue's index, so that products of two heads know the offset: columns
-- l and l + dim / 2 by index pi / max_len^(2l / dim), l < dim / 2 from 0. Columns behind the first `dim` stay as they are.
-- @tparam tensor x (N, H, w)
-- @tparam tensor index (N), int32 or int64
-- @tparam number dim even, at most w
-- @tparam[opt=2056] number max_len see `index_embedding`
-- @treturn tensor (N, H, w)
function M.rotary(x, index, dim, max_len)
  tensors("rotary", x, index)
  T.integer_argument("rotary", 3, dim)
  max_len = T.number_argument("rotary", 4, max_len, 2056)
  return one(C.mf_rotary, x, index, dim, max_len)
end

local neighbour_params = ffi.new "mf_neighbour_params[1]"

--- A linear layer over the features of nearest neighbours: for each, first the one-hot bins of its distance, then the
-- embedding of its position. The same as `x:linear(weight, bias)` of those features side by side, which are never made for
-- all residues at once.
-- @tparam tensor index positions (N, k), as `neighbours` returns them
-- @tparam tensor distance (N, k)
-- @tparam tensor weight (outputs, k (bins + feat))
-- @tparam ?tensor bias (outputs)
-- @tparam table o `bins`, `feat` (even), `lo` and `hi` (edges, see `distogram`), `max_len` (2056, see `index_embedding`)
-- @treturn tensor (N, outputs)
function M.neighbour_linear(index, distance, weight, bias, o)
  tensors("neighbour_linear", index, distance, weight)
  T.optional_tensor("neighbour_linear", 4, bias)
  if type(o) ~= "table" then T.bad_argument("neighbour_linear", 5, "a table of options", o) end
  local p = neighbour_params[0]
  p.bins = T.integer_argument("neighbour_linear", 5, o.bins, nil, T.INT_MAX)
  p.feat = T.integer_argument("neighbour_linear", 5, o.feat, nil, T.INT_MAX)
  p.lo = T.number_argument("neighbour_linear", 5, o.lo)
  p.hi = T.number_argument("neighbour_linear", 5, o.hi)
  p.max_len = T.number_argument("neighbour_linear", 5, o.max_len, 2056)
  return one(C.mf_neighbour_linear, index, distance, weight, bias, neighbour_params)
end

--- For each sequence, the sum over ordered pairs of points a ~= b of (D - D')^2, and how many pairs there were.
-- Tile by tile: nothing of size L x L is stored.
-- @tparam tensor predicted (N, A, 3)
-- @tparam tensor truth (N, A, 3)
-- @tparam tensor mask (N, A)
-- @tparam number cutoff pairs with a true distance below it count; 0 for all
-- @tparam packing packing
-- @treturn tensor sums (n)
-- @treturn tensor pairs (n)
function M.pair_distance_loss(predicted, truth, mask, cutoff, packing)
  tensors("pair_distance_loss", predicted, truth)
  T.optional_tensor("pair_distance_loss", 3, mask)
  T.number_argument("pair_distance_loss", 4, cutoff)
  T.packing_argument("pair_distance_loss", 5, packing)
  return two(C.mf_pair_distance_loss, predicted, truth, mask, cutoff, packing)
end

--- Frames composed with an update of six numbers a residue: three of a quaternion's vector part, three of a shift.
-- @tparam tensor q (N, 4)
-- @tparam tensor t (N, 3)
-- @tparam tensor update (N, 6)
-- @tparam ?tensor mask (N)
-- @treturn tensor (N, 4)
-- @treturn tensor (N, 3)
function M.frames_update(q, t, update, mask)
  tensors("frames_update", q, t, update)
  T.optional_tensor("frames_update", 4, mask)
  return two(C.mf_frames_update, q, t, update, mask)
end

-- A square table of numbers or tensor as doubles in row-major order, and its side.
local function square_of(cost)
  if is_tensor(cost) then
    local n = cost:ndim() == 2 and cost:size(1)
    if n ~= cost:size(-1) then fail("assignment: shape (%s) must be (n, n)", table.concat(cost:shape(), ", ")) end
    local x = cost:detach():to("cpu"):double():contiguous()
    local values = ffi.new("double[?]", n * n + 1)
    check(C.mf_tensor_read(values, 8 * n * n, x))
    return values, n
  end
  if type(cost) ~= "table" then T.bad_argument("assignment", 1, "a table of rows or a tensor", cost) end
  local n = #cost
  local values = ffi.new("double[?]", n * n + 1)
  for i = 1, n do
    if type(cost[i]) ~= "table" or #cost[i] ~= n then fail("assignment: row %d must have %d numbers", i, n) end
    for j = 1, n do values[(i - 1) * n + j - 1] = T.number_argument("assignment", 1, cost[i][j]) end
  end
  return values, n
end

--- The cheapest assignment of columns to rows of a square cost table, exactly.
-- @tparam table|tensor cost rows of numbers, or (n, n)
-- @treturn table the row of each column, from 1
function M.assignment(cost)
  local values, n = square_of(cost)
  local rows = ffi.new("int32_t[?]", n + 1)
  check(C.mf_assignment(rows, values, n))
  local row_of = {}
  for j = 1, n do row_of[j] = rows[j - 1] + 1 end
  return row_of
end

return M
