--- BinaryCIF written for tests, by the definition of its encodings and by nothing that the library does.
--
--     local column = bcif.numbers({ 1.5, 2.25 }, { { kind = "FixedPoint", factor = 100 }, { kind = "Delta" },
--       { kind = "IntegerPacking", byteCount = 1 }, { kind = "ByteArray", type = 1 } })
--     bcif.file { { header = "X", categories = { { name = "_a", rowCount = 2, columns = { { name = "x", data = column } } } } } }
--
-- The fields of an encoding that the encoder works out (srcSize, origin, isUnsigned) can be given to be wrong on purpose.
-- @module spec.support.bcif
local ffi = require "ffi"

local M = {}

-- ---- MessagePack ----

local Bytes = {}

--- A value that is written as bytes, not as a text.
function M.bytes(s) return setmetatable({ s = s }, Bytes) end

local function big_endian(n, width)
  local digits = {}
  for i = width, 1, -1 do
    digits[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(digits)
end

local function sized(n, small, most, codes)
  if n <= most then return string.char(small + n) end
  for i, width in ipairs { 1, 2, 4 } do
    if codes[i] and n < 256 ^ width then return string.char(codes[i]) .. big_endian(n, width) end
  end
end

local function double(x)
  local data = ffi.new("double[1]", x)
  return "\203" .. ffi.string(data, 8):reverse()
end

local function integer(n)
  if n >= 0 and n < 128 then return string.char(n) end
  if n < 0 and n >= -32 then return string.char(256 + n) end
  if n >= 0 and n < 2 ^ 32 then return "\206" .. big_endian(n, 4) end
  if n < 0 and n >= -2 ^ 31 then return "\210" .. big_endian(n + 2 ^ 32, 4) end
  return double(n)
end

--- A Lua value in MessagePack: lists are arrays, other tables maps (keys in sorted order).
function M.pack(value)
  local kind = type(value)
  if kind == "number" then return value % 1 == 0 and integer(value) or double(value) end
  if kind == "boolean" then return value and "\195" or "\194" end
  if kind == "nil" then return "\192" end
  if kind == "string" then return sized(#value, 0xa0, 31, { 0xd9, 0xda, 0xdb }) .. value end
  if getmetatable(value) == Bytes then return sized(#value.s, 0, -1, { 0xc4, 0xc5, 0xc6 }) .. value.s end
  local parts = {}
  if #value > 0 or next(value) == nil then
    parts[1] = sized(#value, 0x90, 15, { nil, 0xdc, 0xdd }) or "\220" .. big_endian(#value, 2)
    for _, v in ipairs(value) do parts[#parts + 1] = M.pack(v) end
    return table.concat(parts)
  end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys)
  parts[1] = sized(#keys, 0x80, 15, { nil, 0xde })
  for _, key in ipairs(keys) do
    parts[#parts + 1] = M.pack(key)
    parts[#parts + 1] = M.pack(value[key])
  end
  return table.concat(parts)
end

-- ---- encodings ----

local TYPES = {
  [1] = "int8_t", [2] = "int16_t", [3] = "int32_t", [4] = "uint8_t", [5] = "uint16_t", [6] = "uint32_t",
  [32] = "float", [33] = "double",
}

local function round(x) return math.floor(x + 0.5) end

-- Each takes a list and its encoding, fills in what a decoder has to be told, and gives the encoded list.
local encoders = {}

function encoders.FixedPoint(list, e)
  local out = {}
  for i, x in ipairs(list) do out[i] = round(x * e.factor) end
  e.srcType = e.srcType or 33
  return out
end

function encoders.IntervalQuantization(list, e)
  local out = {}
  for i, x in ipairs(list) do out[i] = round((x - e.min) / (e.max - e.min) * (e.numSteps - 1)) end
  e.srcType = e.srcType or 33
  return out
end

function encoders.Delta(list, e)
  local out, before = {}, list[1] or 0
  e.origin, e.srcType = e.origin or before, e.srcType or 3
  for i, x in ipairs(list) do out[i], before = x - before, x end
  return out
end

function encoders.RunLength(list, e)
  local out = {}
  for _, x in ipairs(list) do
    if out[#out - 1] == x then out[#out] = out[#out] + 1
    else out[#out + 1], out[#out + 2] = x, 1 end
  end
  e.srcSize, e.srcType = e.srcSize or #list, e.srcType or 3
  return out
end

function encoders.IntegerPacking(list, e)
  local out, unsigned = {}, true
  for _, x in ipairs(list) do unsigned = unsigned and x >= 0 end
  if e.isUnsigned == nil then e.isUnsigned = unsigned end
  local top = 2 ^ (8 * e.byteCount - (e.isUnsigned and 0 or 1)) - 1
  local bottom = e.isUnsigned and 0 or -top - 1
  for _, x in ipairs(list) do
    while x >= top do out[#out + 1], x = top, x - top end
    while bottom < 0 and x <= bottom do out[#out + 1], x = bottom, x - bottom end
    out[#out + 1] = x
  end
  e.srcSize = e.srcSize or #list
  return out
end

local function byte_array(list, e)
  local data = ffi.new(TYPES[e.type] .. "[?]", math.max(#list, 1))
  for i, x in ipairs(list) do data[i - 1] = x end
  return ffi.string(data, #list * ffi.sizeof(TYPES[e.type]))
end

local function copy(encodings)
  local list = {}
  for i, e in ipairs(encodings) do
    list[i] = {}
    for key, value in pairs(e) do list[i][key] = value end
  end
  return list
end

-- The type that packed integers need.
local function packed_type(e)
  if e.byteCount == 1 then return e.isUnsigned and 4 or 1 end
  return e.isUnsigned and 5 or 2
end

--- A column's data from numbers. ByteArray may be left out after IntegerPacking, whose type it follows.
function M.numbers(list, encodings)
  encodings = copy(encodings)
  for _, e in ipairs(encodings) do
    if e.kind ~= "ByteArray" then list = encoders[e.kind](list, e) end
  end
  local last = encodings[#encodings]
  if last.kind ~= "ByteArray" then
    last = { kind = "ByteArray", type = last.kind == "IntegerPacking" and packed_type(last) or 3 }
    encodings[#encodings + 1] = last
  end
  return { data = M.bytes(byte_array(list, last)), encoding = encodings }
end

--- A column's data from strings.
-- @tparam table list
-- @tparam[opt] table o `indices`, `offsets`: encodings of both
function M.strings(list, o)
  o = o or {}
  local distinct, number, indices, offsets, at = {}, {}, {}, { 0 }, 0
  for i, s in ipairs(list) do
    if not number[s] then
      distinct[#distinct + 1] = s
      number[s] = #distinct - 1
      local units = 0 -- of UTF-16
      for byte in s:gmatch "." do
        byte = byte:byte()
        units = units + (byte >= 0xf0 and 2 or (byte < 0x80 or byte >= 0xc0) and 1 or 0)
      end
      at = at + units
      offsets[#offsets + 1] = at
    end
    indices[i] = number[s]
  end
  local integers = { { kind = "ByteArray", type = 3 } }
  local where = M.numbers(offsets, o.offsets or integers)
  local which = M.numbers(indices, o.indices or integers)
  return {
    data = which.data,
    encoding = { {
      kind = "StringArray", dataEncoding = which.encoding, stringData = table.concat(distinct), offsetEncoding = where.encoding,
      offsets = where.data,
    } },
  }
end

--- A mask of 0 (there), 1 (.) and 2 (?).
function M.mask(list) return M.numbers(list, { { kind = "RunLength" }, { kind = "ByteArray", type = 3 } }) end

--- A file of blocks as the format has them.
function M.file(blocks) return M.pack { version = "0.3.0", encoder = "spec", dataBlocks = blocks } end

return M
