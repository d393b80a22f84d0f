--- What a tensor is, and its values as Lua values and as text.
-- @module moonfold.tensor.describe
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"
local shape_of = require "moonfold.tensor.shape"

local C, check = F.C, F.check
local tensor_argument = T.tensor_argument

local M = {}

--- The size of an axis.
-- @tparam number axis from 1, negative from the end
-- @treturn number
function M.size(x, axis)
  tensor_argument("size", 0, x)
  local zero, n = T.axis("size", axis), C.mf_tensor_ndim(x)
  local at = zero < 0 and zero + n or zero
  if at < 0 or at >= n then fail("size: axis %d does not exist, the tensor has %d axes", axis, n) end
  return tonumber(C.mf_tensor_size(x, at))
end

--- The sizes of all axes.
-- @treturn table
function M.shape(x)
  tensor_argument("shape", 0, x)
  local shape = {}
  for i = 1, C.mf_tensor_ndim(x) do shape[i] = tonumber(C.mf_tensor_size(x, i - 1)) end
  return shape
end

--- The number of axes.
-- @treturn number
function M.ndim(x) return C.mf_tensor_ndim(tensor_argument("ndim", 0, x)) end

--- The number of elements.
-- @treturn number
function M.count(x) return tonumber(C.mf_tensor_count(tensor_argument("count", 0, x))) end

--- The element type: "float32", "float64", "bfloat16", "float16", "int32", "int64" or "bool".
-- @treturn string
function M.dtype(x) return T.dtype_name[C.mf_tensor_dtype(tensor_argument("dtype", 0, x))] end

--- The device: "cpu", "null", "cuda" or "cuda:1".
-- @treturn string
function M.device(x) return T.device_name(C.mf_tensor_device(tensor_argument("device", 0, x))) end

--- The bytes of all elements.
-- @treturn number
function M.nbytes(x) return tonumber(C.mf_tensor_bytes(tensor_argument("nbytes", 0, x))) end

--- A number that no other tensor of this process has or had.
-- @treturn number
function M.id(x) return tonumber(C.mf_tensor_id(tensor_argument("id", 0, x))) end

--- How many times the values were written in place.
-- @treturn number
function M.version(x) return tonumber(C.mf_tensor_version(tensor_argument("version", 0, x))) end

--- Do the elements lie in row-major order without gaps?
-- @treturn boolean
function M.is_contiguous(x) return C.mf_tensor_contiguous(tensor_argument("is_contiguous", 0, x)) ~= 0 end

local item = ffi.new("double[1]")

--- The value of a tensor of one element.
-- @treturn number|boolean
function M.item(x)
  check(C.mf_tensor_item(item, tensor_argument("item", 0, x)))
  if T.is_bool(C.mf_tensor_dtype(x)) then return item[0] ~= 0 end
  return item[0]
end

--- The values in row-major order as one Lua table.
-- @treturn table numbers, or booleans
function M.values(x)
  tensor_argument("values", 0, x)
  local buffer, count, dtype = T.read(x)
  local list = {}
  if T.is_bool(dtype) then
    for i = 1, count do list[i] = buffer[i - 1] ~= 0 end
  else
    for i = 1, count do list[i] = tonumber(buffer[i - 1]) end
  end
  return list
end

--- The values as nested Lua tables; a scalar is a number.
-- @treturn table|number
function M.totable(x)
  local list, shape = M.values(x), M.shape(x)
  local at = 0
  local function nest(depth)
    if depth > #shape then
      at = at + 1
      return list[at]
    end
    local t = {}
    for i = 1, shape[depth] do t[i] = nest(depth + 1) end
    return t
  end
  return nest(1)
end

--- The values in row-major order as they lie in memory.
-- @treturn string
function M.bytes(x)
  local count = tonumber(C.mf_tensor_bytes(tensor_argument("bytes", 0, x)))
  local buffer = ffi.new("char[?]", count)
  check(C.mf_tensor_read(buffer, count, x))
  return ffi.string(buffer, count)
end

local function one_line(x)
  if C.mf_tensor_dropped(x) ~= 0 then return "tensor (released)" end
  local shape = table.concat(M.shape(x), "x")
  return ("tensor %s %s %s%s"):format(shape == "" and "scalar" or shape, M.dtype(x), M.device(x),
    C.mf_tensor_requires_grad(x) ~= 0 and " grad" or "")
end

-- Columns of equal width: short numbers for whole values, otherwise four significant digits.
local function formatter(list)
  local whole, largest = true, 0
  for _, v in ipairs(list) do
    if type(v) == "boolean" then return function(b) return b and "true" or "false" end, 5 end
    if v == v and math.abs(v) ~= math.huge then
      if v % 1 ~= 0 then whole = false end
      largest = math.max(largest, math.abs(v))
    end
  end
  local format = "%.4f"
  if whole and largest < 1e10 then
    format = "%.0f"
  elseif largest >= 1e5 or (largest < 1e-3 and largest > 0) then
    format = "%.4e"
  end
  local width = 0
  for _, v in ipairs(list) do width = math.max(width, #format:format(v)) end
  return function(v) return format:format(v) end, width
end

local EDGE, FULL = 3, 8

-- The positions to print along an axis of n, with a gap (0) in the middle of long ones.
local function edges(n)
  local list = {}
  if n <= FULL then
    for i = 1, n do list[i] = i end
    return list
  end
  for i = 1, EDGE do list[i] = i end
  list[EDGE + 1] = 0
  for i = n - EDGE + 1, n do list[#list + 1] = i end
  return list
end

-- The corners of x that are printed.
local function corners(x)
  for axis, n in ipairs(M.shape(x)) do
    if n > FULL then x = shape_of.functions.cat({ x:narrow(axis, 1, EDGE), x:narrow(axis, -EDGE, EDGE) }, axis) end
  end
  return x
end

--- The values as text, edges only: a line that describes the tensor, then at most 8 rows and columns of each matrix.
-- @treturn string
function M.show(x)
  tensor_argument("show", 0, x)
  local lines = { one_line(x) }
  if M.device(x) == "null" or C.mf_tensor_dropped(x) ~= 0 then return lines[1] end
  local shape, count = M.shape(x), M.count(x)
  if count == 0 then return lines[1] end
  local list = M.values(corners(x:detach()))
  local format, width = formatter(list)
  local at = 0
  local function row(n)
    local cells = {}
    for _, i in ipairs(edges(n)) do
      if i == 0 then
        cells[#cells + 1] = "..."
      else
        at = at + 1
        local text = format(list[at])
        cells[#cells + 1] = (" "):rep(width - #text) .. text
      end
    end
    return table.concat(cells, "  ")
  end
  local function block(depth, prefix)
    if depth == #shape then
      lines[#lines + 1] = "  " .. row(shape[depth])
      return
    end
    if depth == #shape - 1 and prefix ~= "" then lines[#lines + 1] = ("[%s]"):format(prefix) end
    for _, i in ipairs(edges(shape[depth])) do
      if i == 0 then
        lines[#lines + 1] = "  ..."
      else
        block(depth + 1, depth < #shape - 1 and prefix .. i .. ", " or prefix)
      end
    end
  end
  if #shape == 0 then lines[2] = "  " .. format(list[1]) else block(1, "") end
  return table.concat(lines, "\n")
end

return { methods = M, meta = { __tostring = one_line } }
