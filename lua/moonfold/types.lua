--- Between Lua values and what the library takes: element types, devices, axes, shapes, host buffers.
-- Axes and positions count from 1 in Lua and from 0 below: they are converted here and nowhere else.
-- @module moonfold.types
local bit = require "bit"
local ffi = require "ffi"
local F = require "moonfold.ffi"
local fail = require "moonfold.fail"
local options = require "moonfold.options"

local band = bit.band
local C, out, again, check, adopt, is_tensor = F.C, F.out, F.again, F.check, F.adopt, F.is_tensor

local M = {}

--- Element type names by code, and codes by name.
M.dtype_name, M.dtype_code = {}, {}
for code = 0, tonumber(C.MF_DTYPE_COUNT) - 1 do
  local name = ffi.string(C.mf_dtype_name(code))
  M.dtype_name[code], M.dtype_code[name] = name, code
end
local dtype_name, dtype_code = M.dtype_name, M.dtype_code

local MF_CUDA, MF_NULL = tonumber(C.MF_CUDA), tonumber(C.MF_NULL)

-- What a row-major copy of each type looks like on the host; 16-bit floats are widened before they are read.
M.buffer_of = {
  [dtype_code.float32] = ffi.typeof("float[?]"), [dtype_code.float64] = ffi.typeof("double[?]"),
  [dtype_code.int32] = ffi.typeof("int32_t[?]"), [dtype_code.int64] = ffi.typeof("int64_t[?]"),
  [dtype_code.bool] = ffi.typeof("uint8_t[?]"),
}

local shape_box = ffi.typeof("int64_t[?]")
local axes_box = ffi.typeof("int[?]")

--- What a value is, for messages: "a table", "nil", "a tensor".
function M.kind(value)
  if is_tensor(value) then return "a tensor" end
  if value == nil then return "nil" end
  local kind = type(value)
  return (kind:find "^[aeiou]" and "an " or "a ") .. kind
end
local kind = M.kind

--- Raises "name: argument 2 must be a tensor, got nil".
function M.bad_argument(name, position, expected, value)
  fail("%s: argument %d must be %s, got %s", name, position, expected, kind(value))
end
local bad_argument = M.bad_argument

--- A tensor argument, or an error. Methods count their arguments after the receiver, which is argument 0.
function M.tensor_argument(name, position, value)
  if not is_tensor(value) then
    if position == 0 then fail("%s: must be called on a tensor (x:%s(...)), got %s", name, name, kind(value)) end
    bad_argument(name, position, "a tensor", value)
  end
  return value
end

--- A tensor argument that may be nil.
function M.optional_tensor(name, position, value)
  if value ~= nil and not is_tensor(value) then bad_argument(name, position, "a tensor or nil", value) end
  return value
end

--- A number argument, with a default when it is nil.
function M.number_argument(name, position, value, default)
  if value == nil and default ~= nil then return default end
  if type(value) ~= "number" then bad_argument(name, position, "a number", value) end
  return value
end

-- Beyond it doubles skip whole numbers, and further on C's integers end.
local LARGEST = 2 ^ 53

--- A whole number argument, with a default when it is nil.
-- @tparam ?number largest in absolute value; 2^53 by default, 2^31 - 1 where C takes an int
function M.integer_argument(name, position, value, default, largest)
  if value == nil and default ~= nil then return default end
  if type(value) ~= "number" or value % 1 ~= 0 then bad_argument(name, position, "a whole number", value) end
  if math.abs(value) > (largest or LARGEST) then
    fail("%s: argument %d is %.16g, beyond %.0f", name, position, value, largest or LARGEST)
  end
  return value
end
--- The largest int of C.
M.INT_MAX = 2 ^ 31 - 1

--- A packing argument.
function M.packing_argument(name, position, value)
  if not F.is_packing(value) then bad_argument(name, position, "a packing (mf.packing)", value) end
  return value
end

--- An axis of the library from an axis of Lua.
-- @tparam string name of the operation, for messages
-- @tparam number axis from 1, or negative from the end
-- @treturn number
function M.axis(name, axis)
  if type(axis) ~= "number" or axis % 1 ~= 0 then fail("%s: an axis must be a whole number, got %s", name, kind(axis)) end
  if axis == 0 then fail("%s: axes count from 1 (or from -1 at the end), got 0", name) end
  if math.abs(axis) > M.INT_MAX then fail("%s: there is no axis %.16g", name, axis) end
  return axis > 0 and axis - 1 or axis
end

--- The box of axes and how many, from an axis, a table of axes or nil (all).
function M.axes(name, axes)
  if axes == nil then return nil, 0 end
  if type(axes) == "number" then
    local box = axes_box(1)
    box[0] = M.axis(name, axes)
    return box, 1
  end
  if type(axes) ~= "table" then fail("%s: axes must be a number or a table of numbers, got %s", name, kind(axes)) end
  local n = #axes
  -- No axes in the library means all of them; an empty table would say the opposite of what it looks like.
  if n == 0 then fail("%s: the table of axes is empty", name) end
  local box = axes_box(n)
  for i = 1, n do box[i - 1] = M.axis(name, axes[i]) end
  return box, n
end

--- The code of an element type.
-- @tparam string name of the operation, for messages
-- @tparam string dtype such as "float32"
-- @treturn number
function M.dtype(name, dtype)
  local code = dtype_code[dtype]
  if code then return code end
  local known = options.sorted_keys(dtype_code)
  local near = type(dtype) == "string" and options.nearest(dtype, known)
  fail("%s: unknown dtype '%s'%s (known: %s)", name, tostring(dtype),
    near and (", did you mean '%s'?"):format(near) or "", table.concat(known, ", "))
end

--- The code of a device.
-- @tparam string name of the operation, for messages
-- @tparam string device "cpu", "null", "cuda" or "cuda:1"
-- @treturn number
function M.device(name, device)
  if device == "cpu" then return 0 end
  if device == "null" then return MF_NULL end
  if device == "cuda" then return MF_CUDA end
  local index = type(device) == "string" and device:match("^cuda:(%d%d?)$")
  if index then return MF_CUDA + tonumber(index) end
  local near = type(device) == "string" and options.nearest(device, { "cpu", "cuda", "null" })
  fail("%s: unknown device '%s'%s (known: cpu, cuda, cuda:N, null)", name, tostring(device),
    near and (", did you mean '%s'?"):format(near) or "")
end

--- The name of a device from its code.
function M.device_name(code)
  if code == 0 then return "cpu" end
  if code >= MF_CUDA then return code == MF_CUDA and "cuda" or "cuda:" .. (code - MF_CUDA) end
  return "null"
end

-- One size of a shape.
local function size_of(name, value)
  if type(value) ~= "number" or value % 1 ~= 0 then
    fail("%s: a size must be a whole number, got %s", name, type(value) == "number" and tostring(value) or kind(value))
  end
  if math.abs(value) > LARGEST then fail("%s: a size of %.16g is beyond %.0f", name, value, LARGEST) end
  return value
end

--- The box of a shape and its number of axes, from a table of sizes or from sizes.
-- @tparam string name of the operation, for messages
-- @param first a table of sizes, or the first size
-- @param ... further sizes
function M.shape(name, first, ...)
  if type(first) == "table" then
    local n = #first
    if n > 8 then fail("%s: at most 8 axes, got %d", name, n) end
    local box = shape_box(n + 1)
    for i = 1, n do box[i - 1] = size_of(name, first[i]) end
    return box, n
  end
  local n = first == nil and 0 or 1 + select("#", ...)
  if n > 8 then fail("%s: at most 8 axes, got %d", name, n) end
  local box = shape_box(n + 1)
  if n > 0 then box[0] = size_of(name, first) end
  for i = 2, n do box[i - 1] = size_of(name, (select(i - 1, ...))) end
  return box, n
end

local known_options = { dtype = true, device = true, requires_grad = true, rng = true }

--- Checks a table of tensor options and returns dtype code, device code, requires_grad, rng.
function M.tensor_options(name, given, default_dtype)
  if given == nil then return default_dtype or 0, 0, false, nil end
  if type(given) ~= "table" then fail("%s: options must be a table, got %s", name, kind(given)) end
  for key in pairs(given) do
    if not known_options[key] then
      options.options(name, { dtype = "", device = "", requires_grad = false, rng = options.OPTIONAL }, given)
    end
  end
  return given.dtype and M.dtype(name, given.dtype) or default_dtype or 0,
    given.device and M.device(name, given.device) or 0, given.requires_grad, given.rng
end

--- A tensor of one value, like x unless dtype says otherwise: how a number meets a tensor.
function M.scalar_like(x, value, dtype)
  local device = C.mf_tensor_device(x)
  dtype = dtype or C.mf_tensor_dtype(x)
  local status = C.mf_tensor_full(out, F.ctx, device, dtype, 0, nil, value)
  if status ~= 0 and again(status) then
    check(C.mf_tensor_full(out, F.ctx, device, dtype, 0, nil, value))
  end
  return adopt(out[0])
end

--- x in another element type (x itself when it has it).
function M.cast(x, dtype)
  if C.mf_tensor_dtype(x) == dtype then return x end
  local status = C.mf_cast(out, x, dtype)
  if status ~= 0 and again(status) then check(C.mf_cast(out, x, dtype)) end
  return adopt(out[0])
end

-- LuaJIT keeps its own types in the bits of NaNs: one with other bits than the usual, which files and devices may hold, would
-- be read as nil, or as an object at some address. All become the usual one.
local function canonical(buffer, count, dtype)
  local words = ffi.cast("int32_t *", buffer)
  if dtype == dtype_code.float32 then
    for i = 0, count - 1 do
      if band(words[i], 0x7fffffff) > 0x7f800000 then words[i] = 0x7fc00000 end
    end
  elseif dtype == dtype_code.float64 then
    for i = 0, 2 * count - 2, 2 do
      local high = band(words[i + 1], 0x7fffffff)
      if high > 0x7ff00000 or high == 0x7ff00000 and words[i] ~= 0 then words[i], words[i + 1] = 0, 0x7ff80000 end
    end
  end
end

--- The values on the host: a buffer of doubles, floats, integers or bytes, and how many.
function M.read(x)
  local dtype = C.mf_tensor_dtype(x)
  if not M.buffer_of[dtype] then
    x = M.cast(x, dtype_code.float32)
    dtype = dtype_code.float32
  end
  local count = tonumber(C.mf_tensor_count(x))
  if tonumber(C.mf_tensor_bytes(x)) >= 2 ^ 31 then
    fail("read: %.0f elements are more than Lua takes at once; narrow first", count)
  end
  local buffer = M.buffer_of[dtype](count)
  check(C.mf_tensor_read(buffer, C.mf_tensor_bytes(x), x))
  canonical(buffer, count, dtype)
  return buffer, count, dtype
end

--- Raises unless a value can be called: a function, or a table such as a layer.
function M.callable_argument(name, position, value)
  if type(value) == "function" then return value end
  local metatable = type(value) == "table" and getmetatable(value)
  if metatable and metatable.__call then return value end
  M.bad_argument(name, position, "a function", value)
end

M.is_bool = function(dtype) return dtype == dtype_code.bool end
M.dtypes = dtype_name

return M
