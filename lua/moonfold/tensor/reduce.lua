--- Sums, means, extremes, sorting, softmax, sums over packed sequences.
-- @module moonfold.tensor.reduce
local F = require "moonfold.ffi"
local T = require "moonfold.types"

local C, out, out2, again, check, adopt, is_tensor = F.C, F.out, F.out2, F.again, F.check, F.adopt, F.is_tensor

local M = {}

local function over_axes(name, f, x, axes, keep)
  if not is_tensor(x) then T.tensor_argument(name, 0, x) end
  local box, n = T.axes(name, axes)
  local status = f(out, x, box, n, keep and 1 or 0)
  if status ~= 0 and again(status) then check(f(out, x, box, n, keep and 1 or 0)) end
  return adopt(out[0])
end

-- Without an axis: over all elements, as one long axis.
local function over_axis(name, f, x, axis, keep)
  if not is_tensor(x) then T.tensor_argument(name, 0, x) end
  if axis == nil then
    x, axis = x:reshape(-1), 1
  end
  axis = T.axis(name, axis)
  local status = f(out, x, axis, keep and 1 or 0)
  if status ~= 0 and again(status) then check(f(out, x, axis, keep and 1 or 0)) end
  return adopt(out[0])
end

local function along(name, f, x, axis)
  if not is_tensor(x) then T.tensor_argument(name, 0, x) end
  axis = T.axis(name, axis)
  local status = f(out, x, axis)
  if status ~= 0 and again(status) then check(f(out, x, axis)) end
  return adopt(out[0])
end

--- The sum over axes, or over everything.
-- @tparam ?number|table axes one axis or a table of them, from 1
-- @tparam ?boolean keep leave the axes with size 1
-- @treturn tensor
-- @usage local total = x:sum()
--        local columns = x:sum(1)
function M.sum(x, axes, keep) return over_axes("sum", C.mf_sum, x, axes, keep) end

--- The mean over axes, or over everything.
-- @tparam ?number|table axes one axis or a table of them, from 1
-- @tparam ?boolean keep leave the axes with size 1
-- @treturn tensor
function M.mean(x, axes, keep) return over_axes("mean", C.mf_mean, x, axes, keep) end

--- The Euclidean norm over axes, or over everything. Its gradient at zero is not finite.
-- @tparam ?number|table axes one axis or a table of them, from 1
-- @tparam ?boolean keep leave the axes with size 1
-- @treturn tensor
function M.norm(x, axes, keep)
  T.tensor_argument("norm", 0, x)
  return over_axes("norm", C.mf_sum, x:square(), axes, keep):sqrt()
end

--- The largest along an axis, or of all; the gradient of equals goes to the first.
-- @tparam ?number axis
-- @tparam ?boolean keep
-- @treturn tensor
function M.max(x, axis, keep) return over_axis("max", C.mf_max, x, axis, keep) end

--- The smallest along an axis, or of all; the gradient of equals goes to the first.
-- @tparam ?number axis
-- @tparam ?boolean keep
-- @treturn tensor
function M.min(x, axis, keep) return over_axis("min", C.mf_min, x, axis, keep) end

--- Where the largest is along an axis: int32, counted from 0 like every tensor of indices.
-- @tparam ?number axis
-- @tparam ?boolean keep
-- @treturn tensor
function M.argmax(x, axis, keep) return over_axis("argmax", C.mf_argmax, x, axis, keep) end

--- Where the smallest is along an axis: int32, counted from 0 like every tensor of indices.
-- @tparam ?number axis
-- @tparam ?boolean keep
-- @treturn tensor
function M.argmin(x, axis, keep) return over_axis("argmin", C.mf_argmin, x, axis, keep) end

--- log(sum(exp(x))) along an axis, without overflow.
-- @tparam ?number axis
-- @tparam ?boolean keep
-- @treturn tensor
function M.logsumexp(x, axis, keep) return over_axis("logsumexp", C.mf_logsumexp, x, axis, keep) end

--- Running sums along an axis.
-- @tparam number axis
-- @treturn tensor
function M.cumsum(x, axis) return along("cumsum", C.mf_cumsum, x, axis) end

--- exp(x) over its sum along an axis.
-- @tparam number axis
-- @treturn tensor
function M.softmax(x, axis) return along("softmax", C.mf_softmax, x, axis) end

--- The logarithm of softmax along an axis.
-- @tparam number axis
-- @treturn tensor
function M.log_softmax(x, axis) return along("log_softmax", C.mf_log_softmax, x, axis) end

--- Sorts along an axis; equals keep their order.
-- @tparam[opt=-1] number axis
-- @tparam ?boolean descending
-- @treturn tensor the values
-- @treturn tensor where they came from, int32 from 0
function M.sort(x, axis, descending)
  T.tensor_argument("sort", 0, x)
  axis = T.axis("sort", axis or -1)
  local flag = descending and 1 or 0
  local status = C.mf_sort(out, out2, x, axis, flag)
  if status ~= 0 and again(status) then check(C.mf_sort(out, out2, x, axis, flag)) end
  local index = out2[0]
  return adopt(out[0]), adopt(index)
end

--- The k largest (or smallest) along an axis, in order.
-- @tparam number k
-- @tparam[opt=-1] number axis
-- @tparam[opt=true] boolean largest
-- @treturn tensor the values
-- @treturn tensor where they came from, int32 from 0
function M.topk(x, k, axis, largest)
  T.tensor_argument("topk", 0, x)
  T.integer_argument("topk", 1, k, nil, T.INT_MAX)
  axis = T.axis("topk", axis or -1)
  local flag = largest == false and 0 or 1
  local status = C.mf_topk(out, out2, x, k, axis, flag)
  if status ~= 0 and again(status) then check(C.mf_topk(out, out2, x, k, axis, flag)) end
  local index = out2[0]
  return adopt(out[0]), adopt(index)
end

-- The truth values as floats, which every backend reduces.
local function truth(name, x)
  T.tensor_argument(name, 0, x)
  return T.cast(T.cast(x:detach(), T.dtype_code.bool), T.dtype_code.float32):reshape(-1)
end

--- Is any element true (not 0)?
-- @treturn boolean
function M.any(x)
  local t = truth("any", x)
  return t:count() > 0 and t:max(1):item() ~= 0
end

--- Are all elements true (not 0)? True of no elements.
-- @treturn boolean
function M.all(x)
  local t = truth("all", x)
  return t:count() == 0 or t:min(1):item() ~= 0
end

--- The sum over each packed sequence: (N, ...) to (n, ...).
-- @tparam packing packing
-- @treturn tensor
function M.segment_sum(x, packing)
  T.tensor_argument("segment_sum", 0, x)
  T.packing_argument("segment_sum", 1, packing)
  local status = C.mf_segment_sum(out, x, packing)
  if status ~= 0 and again(status) then check(C.mf_segment_sum(out, x, packing)) end
  return adopt(out[0])
end

--- The mean over each packed sequence: (N, ...) to (n, ...); 0 for a sequence of no residues.
-- @tparam packing packing
-- @treturn tensor
function M.segment_mean(x, packing)
  local sum = M.segment_sum(x, packing)
  local inverse, shape = {}, { packing:count() }
  for i, length in ipairs(packing:lengths()) do inverse[i] = length > 0 and 1 / length or 0 end
  for i = 2, sum:ndim() do shape[i] = 1 end
  local made = require "moonfold.make"
  local weight = made.tensor(inverse, { dtype = sum:dtype(), device = sum:device() })
  return sum * weight:reshape(shape)
end

--- One value a sequence, repeated for each of its residues: (n, ...) to (N, ...).
-- @tparam packing packing
-- @treturn tensor
function M.segment_expand(x, packing)
  T.tensor_argument("segment_expand", 0, x)
  T.packing_argument("segment_expand", 1, packing)
  local status = C.mf_segment_expand(out, x, packing)
  if status ~= 0 and again(status) then check(C.mf_segment_expand(out, x, packing)) end
  return adopt(out[0])
end

return { methods = M }
