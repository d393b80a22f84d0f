--- Writing into a tensor: leaves, or anything under mf.no_grad.
-- Each returns the tensor. A tensor that a recorded operation still needs cannot be written: the backward pass says so.
-- @module moonfold.tensor.inplace
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local make = require "moonfold.make"

local C, ctx, out, again, check, adopt, is_tensor = F.C, F.ctx, F.out, F.again, F.check, F.adopt, F.is_tensor

local M = {}

--- Sets every element to a number.
-- @tparam number value
-- @treturn tensor x
function M.fill_(x, value)
  T.tensor_argument("fill_", 0, x)
  check(C.mf_tensor_fill(x, T.number_argument("fill_", 1, value)))
  return x
end

--- Sets every element to 0.
-- @treturn tensor x
function M.zero_(x)
  check(C.mf_tensor_fill(T.tensor_argument("zero_", 0, x), 0))
  return x
end

--- Copies values from another tensor of any type, device and broadcastable shape.
-- @tparam tensor y
-- @treturn tensor x
function M.copy_(x, y)
  T.tensor_argument("copy_", 0, x)
  T.tensor_argument("copy_", 1, y)
  local status = C.mf_tensor_copy(x, y)
  if status ~= 0 and again(status) then check(C.mf_tensor_copy(x, y)) end
  return x
end

-- f(x) computed apart and copied back, unrecorded.
local function rewrite(x, scale, shift)
  local before = C.mf_grad_enable(ctx, 0)
  local status = C.mf_affine(out, x, scale, shift)
  if status == C.MF_ENOMEM then
    collectgarbage()
    status = C.mf_affine(out, x, scale, shift)
  end
  C.mf_grad_enable(ctx, before)
  check(status)
  return M.copy_(x, adopt(out[0]))
end

--- Adds a times y.
-- @tparam tensor|number y
-- @tparam[opt=1] number a
-- @treturn tensor x
function M.add_(x, y, a)
  T.tensor_argument("add_", 0, x)
  a = T.number_argument("add_", 2, a, 1)
  if type(y) == "number" then return rewrite(x, 1, a * y) end
  if not is_tensor(y) then T.bad_argument("add_", 1, "a tensor or a number", y) end
  local status = C.mf_tensor_axpy(x, a, y)
  if status ~= 0 and again(status) then check(C.mf_tensor_axpy(x, a, y)) end
  return x
end

--- Multiplies by a number.
-- @tparam number a
-- @treturn tensor x
function M.mul_(x, a)
  T.tensor_argument("mul_", 0, x)
  check(C.mf_tensor_scale(x, T.number_argument("mul_", 1, a)))
  return x
end

--- Draws every element uniformly from [lo, hi).
-- @tparam[opt=0] number lo
-- @tparam[opt=1] number hi
-- @tparam ?rng rng
-- @treturn tensor x
function M.uniform_(x, lo, hi, rng)
  T.tensor_argument("uniform_", 0, x)
  lo, hi = T.number_argument("uniform_", 1, lo, 0), T.number_argument("uniform_", 2, hi, 1)
  check(C.mf_random_uniform(x, make.generator("uniform_", rng), lo, hi))
  return x
end

--- Draws every element from a normal distribution.
-- @tparam[opt=0] number mean
-- @tparam[opt=1] number deviation
-- @tparam ?rng rng
-- @treturn tensor x
function M.normal_(x, mean, deviation, rng)
  T.tensor_argument("normal_", 0, x)
  mean, deviation = T.number_argument("normal_", 1, mean, 0), T.number_argument("normal_", 2, deviation, 1)
  check(C.mf_random_normal(x, make.generator("normal_", rng), mean, deviation))
  return x
end

--- Draws every element from N(0, deviation) cut at two deviations.
-- @tparam[opt=1] number deviation
-- @tparam ?rng rng
-- @treturn tensor x
function M.truncated_normal_(x, deviation, rng)
  T.tensor_argument("truncated_normal_", 0, x)
  deviation = T.number_argument("truncated_normal_", 1, deviation, 1)
  check(C.mf_random_truncated(x, make.generator("truncated_normal_", rng), deviation))
  return x
end

return { methods = M }
