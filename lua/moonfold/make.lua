--- Making tensors: from Lua values, filled, drawn at random.
-- @module moonfold.make
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local capture = require "moonfold.capture"
local fail = require "moonfold.fail"

local C, ctx, out, again, check, adopt = F.C, F.ctx, F.out, F.again, F.check, F.adopt

local M = {}

local FLOAT32, INT32, BOOL = T.dtype_code.float32, T.dtype_code.int32, T.dtype_code.bool

-- Splits "sizes..., options" or "{ sizes }, options".
local function split_options(name, first, ...)
  if type(first) == "table" then
    if first[1] == nil and next(first) ~= nil then return first, T.shape(name, {}) end
    return (...), T.shape(name, first)
  end
  local n = select("#", ...)
  local last = n > 0 and select(n, ...) or nil
  if type(last) == "table" then
    local sizes = { first, ... }
    sizes[n + 1] = nil
    return last, T.shape(name, sizes)
  end
  return nil, T.shape(name, first, ...)
end

local function finish(x, requires_grad)
  if requires_grad then check(C.mf_tensor_require_grad(x, 1)) end
  return x
end

local function empty(device, dtype, box, n)
  local status = C.mf_tensor_empty(out, ctx, device, dtype, n, box)
  if status ~= 0 and again(status) then check(C.mf_tensor_empty(out, ctx, device, dtype, n, box)) end
  return adopt(out[0])
end
M.new = empty

local function filled(device, dtype, box, n, value)
  local status = C.mf_tensor_full(out, ctx, device, dtype, n, box, value)
  if status ~= 0 and again(status) then check(C.mf_tensor_full(out, ctx, device, dtype, n, box, value)) end
  return adopt(out[0])
end

local function from(device, dtype, box, n, data)
  local status = C.mf_tensor_from(out, ctx, device, dtype, n, box, data)
  if status ~= 0 and again(status) then check(C.mf_tensor_from(out, ctx, device, dtype, n, box, data)) end
  return adopt(out[0])
end

--- A tensor of unset values.
-- @tparam number ... sizes, or one table of them; then options: `dtype` ("float32"), `device` ("cpu"), `requires_grad`
-- @treturn tensor
-- @usage local x = mf.empty(4, 3, { dtype = "float64" })
function M.empty(...)
  local given, box, n = split_options("empty", ...)
  local dtype, device, requires_grad = T.tensor_options("empty", given)
  return finish(empty(device, dtype, box, n), requires_grad)
end

--- A tensor of zeros.
-- @tparam number ... sizes, or one table of them; then options: `dtype`, `device`, `requires_grad`
-- @treturn tensor
-- @usage local x = mf.zeros(4, 3)
function M.zeros(...)
  local given, box, n = split_options("zeros", ...)
  local dtype, device, requires_grad = T.tensor_options("zeros", given)
  return finish(filled(device, dtype, box, n, 0), requires_grad)
end

--- A tensor of ones.
-- @tparam number ... sizes, or one table of them; then options: `dtype`, `device`, `requires_grad`
-- @treturn tensor
-- @usage local x = mf.ones(4, 3)
function M.ones(...)
  local given, box, n = split_options("ones", ...)
  local dtype, device, requires_grad = T.tensor_options("ones", given)
  return finish(filled(device, dtype, box, n, 1), requires_grad)
end

--- A tensor of one value.
-- @tparam table shape sizes; {} for a scalar
-- @tparam number value
-- @tparam ?table options `dtype`, `device`, `requires_grad`
-- @treturn tensor
-- @usage local x = mf.full({ 4, 3 }, 0.5)
function M.full(shape, value, given)
  if type(shape) ~= "table" then T.bad_argument("full", 1, "a table of sizes", shape) end
  T.number_argument("full", 2, value)
  local dtype, device, requires_grad = T.tensor_options("full", given)
  local box, n = T.shape("full", shape)
  return finish(filled(device, dtype, box, n, value), requires_grad)
end

--- The whole numbers 0 .. n - 1: int32 unless asked otherwise, ready to be used as an index.
-- @tparam number n
-- @tparam ?table options `dtype` ("int32"), `device`
-- @treturn tensor
-- @usage local i = mf.arange(5)          --> 0 1 2 3 4
function M.arange(n, given)
  T.integer_argument("arange", 1, n)
  if n < 0 then fail("arange: the count must not be negative, got %d", n) end
  if n >= 2 ^ 28 then fail("arange: %.0f numbers, expected fewer than 2^28", n) end  -- what a buffer of LuaJIT holds
  local dtype, device, requires_grad = T.tensor_options("arange", given, INT32)
  local exact = T.buffer_of[dtype] ~= nil and not T.is_bool(dtype)
  local buffer = T.buffer_of[exact and dtype or FLOAT32](n)
  for i = 0, n - 1 do buffer[i] = i end
  local box = T.shape("arange", n)
  local x = from(device, exact and dtype or FLOAT32, box, 1, buffer)
  return finish(T.cast(x, dtype), requires_grad)
end

--- The identity matrix.
-- @tparam number n
-- @tparam ?table options `dtype`, `device`, `requires_grad`
-- @treturn tensor (n, n)
-- @usage local identity = mf.eye(3)
function M.eye(n, given)
  T.integer_argument("eye", 1, n)
  if n < 0 then fail("eye: the size must not be negative, got %d", n) end
  if n >= 2 ^ 14 then fail("eye: %.0f rows, expected fewer than 2^14", n) end  -- what a buffer of LuaJIT holds
  local dtype, device, requires_grad = T.tensor_options("eye", given)
  local buffer = ffi.new("float[?]", n * n)
  for i = 0, n - 1 do buffer[i * n + i] = 1 end
  local box = T.shape("eye", n, n)
  return finish(T.cast(from(device, FLOAT32, box, 2, buffer), dtype), requires_grad)
end

-- The shape of nested tables, from their first elements.
local function nested_shape(value)
  local shape = {}
  while type(value) == "table" do
    shape[#shape + 1] = #value
    value = value[1]
  end
  return shape, value
end

-- Copies nested tables into a buffer, checking that they are not ragged. `position` says where we are.
local function fill(buffer, value, shape, depth, at, position)
  if depth > #shape then
    if type(value) == "boolean" then value = value and 1 or 0 end
    if type(value) ~= "number" then
      fail("tensor: element [%s] must be a number or a boolean, got %s", table.concat(position, "]["), T.kind(value))
    end
    buffer[at] = value
    return at + 1
  end
  if type(value) ~= "table" or #value ~= shape[depth] then
    fail("tensor: the nested tables are ragged: element [%s] has %s, expected a table of %d",
      table.concat(position, "]["), type(value) == "table" and #value .. " elements" or T.kind(value), shape[depth])
  end
  for i = 1, shape[depth] do
    position[depth] = i
    at = fill(buffer, value[i], shape, depth + 1, at, position)
  end
  position[depth] = nil
  return at
end

--- A tensor of Lua values.
-- @tparam number|boolean|table value a number for a scalar, or nested tables of numbers or of booleans
-- @tparam ?table options `dtype` ("float32"; "bool" for booleans), `device`, `requires_grad`
-- @treturn tensor
-- @usage local x = mf.tensor({ { 1, 2 }, { 3, 4 } })
function M.tensor(value, given)
  local kind = type(value)
  if kind ~= "number" and kind ~= "boolean" and kind ~= "table" then
    T.bad_argument("tensor", 1, "a number, a boolean or nested tables of them", value)
  end
  local shape, first = nested_shape(value)
  local dtype, device, requires_grad = T.tensor_options("tensor", given, type(first) == "boolean" and BOOL or FLOAT32)
  local box, n = T.shape("tensor", shape)
  local count = 1
  for i = 1, #shape do count = count * shape[i] end
  local host = T.buffer_of[dtype] and dtype or FLOAT32
  local buffer = T.buffer_of[host](count)
  fill(buffer, value, shape, 1, 0, {})
  return finish(T.cast(from(device, host, box, n, buffer), dtype), requires_grad)
end

--- A tensor of raw bytes in row-major order, the counterpart of `x:bytes()`.
-- @tparam string bytes
-- @tparam table shape
-- @tparam ?table options `dtype`, `device`, `requires_grad`
-- @treturn tensor
-- @usage local x = mf.from_bytes(y:bytes(), y:shape(), { dtype = y:dtype() })
function M.from_bytes(bytes, shape, given)
  if type(bytes) ~= "string" then T.bad_argument("from_bytes", 1, "a string", bytes) end
  if type(shape) ~= "table" then T.bad_argument("from_bytes", 2, "a table of sizes", shape) end
  local dtype, device, requires_grad = T.tensor_options("from_bytes", given)
  local box, n = T.shape("from_bytes", shape)
  local count = 1
  for i = 1, #shape do count = count * shape[i] end
  local expected = count * tonumber(C.mf_dtype_bytes(dtype))
  if #bytes ~= expected then
    fail("from_bytes: %d bytes given, a %s tensor of that shape takes %d", #bytes, T.dtype_name[dtype], expected)
  end
  return finish(from(device, dtype, box, n, bytes), requires_grad)
end

local function generator(name, rng)
  if rng == nil then return C.mf_ctx_rng(ctx) end
  if not ffi.istype("mf_rng", rng) then fail("%s: rng must be a generator (mf.rng), got %s", name, T.kind(rng)) end
  return capture.hold(rng)      -- a captured graph goes on drawing from it
end
M.generator = generator

--- A tensor of standard normal values.
-- @tparam number ... sizes, or one table of them; then options: `dtype`, `device`, `requires_grad`, `rng`
-- @treturn tensor
-- @usage local x = mf.randn(4, 3, { rng = mf.rng(7) })
function M.randn(...)
  local given, box, n = split_options("randn", ...)
  local dtype, device, requires_grad, rng = T.tensor_options("randn", given)
  local x = empty(device, dtype, box, n)
  check(C.mf_random_normal(x, generator("randn", rng), 0, 1))
  return finish(x, requires_grad)
end

--- A tensor of values uniform in [0, 1).
-- @tparam number ... sizes, or one table of them; then options: `dtype`, `device`, `requires_grad`, `rng`
-- @treturn tensor
-- @usage local x = mf.rand(4, 3)
function M.rand(...)
  local given, box, n = split_options("rand", ...)
  local dtype, device, requires_grad, rng = T.tensor_options("rand", given)
  local x = empty(device, dtype, box, n)
  check(C.mf_random_uniform(x, generator("rand", rng), 0, 1))
  return finish(x, requires_grad)
end

return M
