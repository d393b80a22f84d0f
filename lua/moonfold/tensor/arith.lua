--- Arithmetic between tensors and numbers, with broadcasting; comparisons.
-- Tensors of different element types meet in the wider one: bool, int32, int64, 16-bit floats, float32, float64.
-- @module moonfold.tensor.arith
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"

local C, out, again, check, adopt, is_tensor = F.C, F.out, F.again, F.check, F.adopt, F.is_tensor
local scalar_like, cast = T.scalar_like, T.cast

local M, meta = {}, {}

local MF_EDTYPE = C.MF_EDTYPE
local code = T.dtype_code
local rank = {
  [code.bool] = 0, [code.int32] = 1, [code.int64] = 2, [code.float16] = 3, [code.bfloat16] = 3,
  [code.float32] = 4, [code.float64] = 5,
}

-- The element type in which two meet.
local function wider(a, b)
  if a == b then return a end
  if rank[a] == rank[b] then return code.float32 end
  return rank[a] > rank[b] and a or b
end

-- A number as a tensor that x can meet: in x's type when that type holds it, else x is widened.
local function meet_number(x, value)
  local dtype = C.mf_tensor_dtype(x)
  if rank[dtype] <= 2 and (value % 1 ~= 0 or dtype == code.bool) then
    local wanted = value % 1 ~= 0 and code.float32 or code.int32
    if value % 1 ~= 0 and dtype == code.int64 then wanted = code.float64 end
    return cast(x, wanted), scalar_like(x, value, wanted)
  end
  return x, scalar_like(x, value)
end

-- Both operands as tensors. Arguments 0 and 1: methods count after the receiver.
local function operands(name, a, b)
  if is_tensor(a) then
    if is_tensor(b) then return a, b end
    if type(b) == "number" then return meet_number(a, b) end
    T.bad_argument(name, 1, "a tensor or a number", b)
  end
  if type(a) == "number" and is_tensor(b) then
    b, a = meet_number(b, a)
    return a, b
  end
  fail("%s: takes tensors and numbers, got %s and %s", name, T.kind(a), T.kind(b))
end

-- out = f(a, b), widening when the element types differ.
local function binary(name, f, a, b)
  if not (is_tensor(a) and is_tensor(b)) then a, b = operands(name, a, b) end
  local status = f(out, a, b)
  if status ~= 0 then
    local da, db = C.mf_tensor_dtype(a), C.mf_tensor_dtype(b)
    if status == MF_EDTYPE and da ~= db then
      local dtype = wider(da, db)
      a, b = cast(a, dtype), cast(b, dtype)
      status = f(out, a, b)
    end
    if status ~= 0 and again(status) then check(f(out, a, b)) end
  end
  return adopt(out[0])
end

local function affine(x, scale, shift)
  if rank[C.mf_tensor_dtype(x)] <= 2 then
    local both = scale % 1 == 0 and shift % 1 == 0
    local wanted = C.mf_tensor_dtype(x)
    if not both then
      wanted = wanted == code.int64 and code.float64 or code.float32
    elseif wanted == code.bool then
      wanted = code.int32
    end
    x = cast(x, wanted)
  end
  local status = C.mf_affine(out, x, scale, shift)
  if status ~= 0 and again(status) then check(C.mf_affine(out, x, scale, shift)) end
  return adopt(out[0])
end

-- Sums, differences and products of a tensor and a number are one affine operation, exact in either order.
local function pair_of(name, a, b)
  if is_tensor(a) and type(b) == "number" then return a, b end
  if type(a) == "number" and is_tensor(b) then return b, a end
  return operands(name, a, b)
end

--- Sum, element by element; also `x + y`.
-- @tparam tensor|number y
-- @treturn tensor
-- @usage local z = x:add(y)
function M.add(x, y)
  if is_tensor(x) and is_tensor(y) then return binary("add", C.mf_add, x, y) end
  local t, number = pair_of("add", x, y)
  return affine(t, 1, number)
end

--- Difference, element by element; also `x - y`.
-- @tparam tensor|number y
-- @treturn tensor
function M.sub(x, y)
  if is_tensor(x) and is_tensor(y) then return binary("sub", C.mf_sub, x, y) end
  local t, number = pair_of("sub", x, y)
  if is_tensor(x) then return affine(t, 1, -number) end
  return affine(t, -1, number)
end

--- Product, element by element; also `x * y`.
-- @tparam tensor|number y
-- @treturn tensor
function M.mul(x, y)
  if is_tensor(x) and is_tensor(y) then return binary("mul", C.mf_mul, x, y) end
  local t, number = pair_of("mul", x, y)
  return affine(t, number, 0)
end

-- Division of whole numbers gives float32, so that 1 / 2 is not 0.
local function fractional(x)
  if is_tensor(x) and rank[C.mf_tensor_dtype(x)] <= 2 then
    return cast(x, C.mf_tensor_dtype(x) == code.int64 and code.float64 or code.float32)
  end
  return x
end

--- Quotient, element by element; also `x / y`. Whole numbers divide into floats.
-- @tparam tensor|number y
-- @treturn tensor
function M.div(x, y) return binary("div", C.mf_div, fractional(x), fractional(y)) end

--- Power, element by element; also `x ^ y`.
-- @tparam tensor|number y
-- @treturn tensor
function M.pow(x, y)
  if type(y) == "number" and is_tensor(x) then
    x = fractional(x)
    if y == 2 then
      local status = C.mf_square(out, x)
      if status ~= 0 and again(status) then check(C.mf_square(out, x)) end
    else
      local status = C.mf_pow_scalar(out, x, y)
      if status ~= 0 and again(status) then check(C.mf_pow_scalar(out, x, y)) end
    end
    return adopt(out[0])
  end
  return binary("pow", C.mf_pow, fractional(x), fractional(y))
end

--- The larger of two, element by element; the gradient of equals goes to x.
-- @tparam tensor|number y
-- @treturn tensor
function M.maximum(x, y) return binary("maximum", C.mf_maximum, x, y) end

--- The smaller of two, element by element; the gradient of equals goes to x.
-- @tparam tensor|number y
-- @treturn tensor
function M.minimum(x, y) return binary("minimum", C.mf_minimum, x, y) end

--- The angle of the point (x, y) in (-pi, pi], as `y:atan2(x)`.
-- @tparam tensor|number x
-- @treturn tensor
function M.atan2(y, x) return binary("atan2", C.mf_atan2, fractional(y), fractional(x)) end

--- Where x equals y: a bool tensor.
-- @tparam tensor|number y
-- @treturn tensor
function M.eq(x, y) return binary("eq", C.mf_equal, x, y) end

--- Where x differs from y: a bool tensor.
-- @tparam tensor|number y
-- @treturn tensor
function M.ne(x, y) return M.logical_not(binary("ne", C.mf_equal, x, y)) end

--- Where x < y: a bool tensor.
-- @tparam tensor|number y
-- @treturn tensor
function M.lt(x, y) return binary("lt", C.mf_less, x, y) end

--- Where x <= y: a bool tensor.
-- @tparam tensor|number y
-- @treturn tensor
function M.le(x, y) return binary("le", C.mf_less_equal, x, y) end

--- Where x > y: a bool tensor.
-- @tparam tensor|number y
-- @treturn tensor
function M.gt(x, y)
  x, y = operands("gt", x, y)
  return binary("gt", C.mf_less, y, x)
end

--- Where x >= y: a bool tensor.
-- @tparam tensor|number y
-- @treturn tensor
function M.ge(x, y)
  x, y = operands("ge", x, y)
  return binary("ge", C.mf_less_equal, y, x)
end

local function logical(name, f, x, y)
  T.tensor_argument(name, 0, x)
  T.tensor_argument(name, 1, y)
  return binary(name, f, cast(x, code.bool), cast(y, code.bool))
end

--- Where both are true.
-- @tparam tensor y
-- @treturn tensor
function M.logical_and(x, y) return logical("logical_and", C.mf_logical_and, x, y) end

--- Where at least one is true.
-- @tparam tensor y
-- @treturn tensor
function M.logical_or(x, y) return logical("logical_or", C.mf_logical_or, x, y) end

--- Where x is false.
-- @treturn tensor
function M.logical_not(x)
  x = cast(T.tensor_argument("logical_not", 0, x), code.bool)
  local status = C.mf_logical_not(out, x)
  if status ~= 0 and again(status) then check(C.mf_logical_not(out, x)) end
  return adopt(out[0])
end

local function choose(name, condition, a, b)
  condition = cast(condition, code.bool)
  if not is_tensor(a) and not is_tensor(b) then
    local wanted = code.float32
    a, b = scalar_like(condition, a, wanted), scalar_like(condition, b, wanted)
  else
    a, b = operands(name, a, b)
    local da, db = C.mf_tensor_dtype(a), C.mf_tensor_dtype(b)
    if da ~= db then
      local dtype = wider(da, db)
      a, b = cast(a, dtype), cast(b, dtype)
    end
  end
  local status = C.mf_where(out, condition, a, b)
  if status ~= 0 and again(status) then check(C.mf_where(out, condition, a, b)) end
  return adopt(out[0])
end

--- a where the condition holds, b elsewhere; shapes broadcast.
-- @tparam tensor condition bool
-- @tparam tensor|number a
-- @tparam tensor|number b
-- @treturn tensor
-- @usage local positive = mf.where(x:gt(0), x, 0)
function M.where(condition, a, b)
  T.tensor_argument("where", 1, condition)
  if not is_tensor(a) and type(a) ~= "number" then T.bad_argument("where", 2, "a tensor or a number", a) end
  if not is_tensor(b) and type(b) ~= "number" then T.bad_argument("where", 3, "a tensor or a number", b) end
  return choose("where", condition, a, b)
end

--- x with a number where the mask is true.
-- @tparam tensor mask bool, broadcast to x
-- @tparam number value
-- @treturn tensor
function M.masked_fill(x, mask, value)
  T.tensor_argument("masked_fill", 0, x)
  T.tensor_argument("masked_fill", 1, mask)
  T.number_argument("masked_fill", 2, value)
  return choose("masked_fill", mask, value, x)
end

--- scale x + shift, in one pass.
-- @tparam number scale
-- @tparam[opt=0] number shift
-- @treturn tensor
function M.affine(x, scale, shift)
  T.tensor_argument("affine", 0, x)
  return affine(x, T.number_argument("affine", 1, scale), T.number_argument("affine", 2, shift, 0))
end

meta.__add, meta.__sub, meta.__mul, meta.__div, meta.__pow = M.add, M.sub, M.mul, M.div, M.pow
meta.__unm = function(x) return x:neg() end

return { methods = M, meta = meta, binary = binary }
