--- Lua values as a pickle of protocol 2, of the few opcodes that every reader of checkpoints allows.
-- @module moonfold.pickle_write
local bit = require "bit"
local ffi = require "ffi"
local json = require "moonfold.json"
local options = require "moonfold.options"
local pickle = require "moonfold.pickle"
local fail = require "moonfold.fail"

local M = {}

local function little(value, bytes)
  local out = {}
  for k = 1, bytes do
    out[k] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(out)
end

local int64 = ffi.typeof "int64_t"

--- A whole number, as Python's int.
function M.integer(value)
  if value >= 0 and value < 256 then return "K" .. little(tonumber(value), 1) end
  if value >= -2 ^ 31 and value < 2 ^ 31 then return "J" .. little(tonumber(value) % 2 ^ 32, 4) end
  local box = ffi.new("int64_t[1]", value)
  return "\138\8" .. ffi.string(box, 8)
end

local function real(value)
  local box = ffi.new("double[1]", value)
  return "G" .. ffi.string(box, 8):reverse()
end

-- Text of UTF-8: what Python could not decode is refused here.
local function is_utf8(s)
  local at = 1
  while at <= #s do
    local c = s:byte(at)
    local more = c < 0x80 and 0 or c >= 0xC2 and c < 0xE0 and 1 or c >= 0xE0 and c < 0xF0 and 2 or c >= 0xF0 and c < 0xF5 and 3
    if not more then return false end
    for k = 1, more do
      local d = s:byte(at + k)
      if not d or bit.band(d, 0xC0) ~= 0x80 then return false end
    end
    at = at + 1 + more
  end
  return true
end

--- A text.
function M.text(s)
  return "X" .. little(#s, 4) .. s
end

--- The name of a class or function.
function M.global(module, name) return "c" .. module .. "\n" .. name .. "\n" end

--- A tuple of parts that are pickled already.
function M.tuple(parts)
  if #parts == 0 then return ")" end
  return "(" .. table.concat(parts) .. "t"
end

local function keys_of(t)
  local order, count = pickle.order(t), 0
  for _ in pairs(t) do count = count + 1 end
  if order and #order == count then
    local whole = true
    for _, key in ipairs(order) do whole = whole and t[key] ~= nil end
    if whole then return order end
  end
  return options.sorted_keys(t)
end

-- A table that occurs twice is written twice: what repeats itself without end has to end somewhere.
local MOST_VALUES = 2 ^ 22

local write

local function write_table(w, t, path)
  if w.open[t] then fail("%s: %s contains itself", w.name, path) end
  if pickle.is_inert(t) then fail("%s: %s is an %s, which cannot be written", w.name, path, tostring(t)) end
  if pickle.others(t) then fail("%s: %s has keys that are neither text nor numbers", w.name, path) end
  w.open[t] = true
  local out = w.out
  if json.is_array(t) then
    out[#out + 1] = "]("
    for i = 1, #t do write(w, t[i], path .. "[" .. i .. "]") end
    out[#out + 1] = "e"
  else
    out[#out + 1] = "}("
    for _, key in ipairs(keys_of(t)) do
      write(w, key, path .. "'s key")
      write(w, t[key], path .. "." .. tostring(key))
    end
    out[#out + 1] = "u"
  end
  w.open[t] = nil
end

function write(w, value, path)
  local kind, out = type(value), w.out
  w.count = w.count + 1
  if w.count > MOST_VALUES then fail("%s: more than %d values", w.name, MOST_VALUES) end
  if value == json.null then
    out[#out + 1] = "N"
  elseif kind == "boolean" then
    out[#out + 1] = value and "\136" or "\137"
  elseif kind == "number" then
    out[#out + 1] = value % 1 == 0 and math.abs(value) <= 2 ^ 53 and M.integer(value) or real(value)
  elseif kind == "string" then
    if not is_utf8(value) then fail("%s: %s is not text of UTF-8", w.name, path) end
    out[#out + 1] = M.text(value)
  elseif kind == "cdata" and ffi.istype(int64, value) then
    out[#out + 1] = M.integer(value)
  elseif kind == "table" then
    write_table(w, value, path)
  else
    local text = w.special and w.special(value, path) or fail("%s: %s is a %s, which cannot be written", w.name, path, kind)
    out[#out + 1] = text
  end
end

--- The pickle of a value: nil cannot be written, `json.null` is None, a whole number an int and any other a float; a table is a
-- list when it is a sequence or made by `json.array`, else a dictionary, in the order in which it was read where it was.
-- @param value
-- @tparam string name of the caller, for messages
-- @tparam ?function special called with a value that is none of these and its path: its pickle, or nil
-- @treturn string
function M.dump(value, name, special)
  local w = { out = { "\128\2" }, open = {}, count = 0, name = name, special = special }
  write(w, value, "the value")
  w.out[#w.out + 1] = "."
  return table.concat(w.out)
end

return M
