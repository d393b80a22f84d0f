--- The configuration that stands in a checkpoint, as plain values: omegaconf's nodes are read, never made.
-- @module moonfold.convert.config
local json = require "moonfold.json"
local pickle = require "moonfold.pickle"

local M = {}

local plain

-- A table may stand in any number of places, and is written in each.
local MOST_VALUES = 2 ^ 16

local function table_of(value, open)
  if open[value] then return "(itself)" end
  open.count = open.count + 1
  if open.count > MOST_VALUES then return "(more)" end
  open[value] = true
  local result = json.is_array(value) and json.array {} or {}
  if json.is_array(value) then
    for i, item in ipairs(value) do result[i] = plain(item, open) end
  else
    for key, item in pairs(value) do result[tostring(key)] = plain(item, open) end
  end
  open[value] = nil
  return result
end

function plain(value, open)
  local kind = type(value)
  if kind == "number" then
    if value ~= value or math.abs(value) == math.huge then return tostring(value) end
    return value
  end
  if value == json.null or kind == "string" or kind == "boolean" then return value end
  if kind ~= "table" then return tostring(value) end
  if not pickle.is_inert(value) then return table_of(value, open) end
  -- a container of omegaconf keeps its content in _content, a leaf its value in _val
  local state = type(value.state) == "table" and not pickle.is_inert(value.state) and value.state or {}
  local inner = state._content
  if inner == nil then inner = state._val end
  if inner == nil or open[value] then return "(" .. tostring(value.class) .. ")" end
  open[value] = true
  local result = plain(inner, open)
  open[value] = nil
  return result
end

--- Plain tables, numbers, texts of a value, for JSON; objects of other classes become their names in brackets.
-- @param value
-- @return the value
function M.plain(value) return plain(value, { count = 0 }) end

--- The first number that stands under a key, at any depth, the shallowest and then the alphabetically first.
-- @tparam table tree plain values
-- @tparam string key
-- @treturn ?number
function M.find(tree, key)
  local level = { tree }
  while #level > 0 do
    local following = {}
    for _, t in ipairs(level) do
      if type(t[key]) == "number" then return t[key] end
      local keys = {}
      for name, item in pairs(t) do if type(item) == "table" and item ~= json.null then keys[#keys + 1] = name end end
      table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
      for _, name in ipairs(keys) do following[#following + 1] = t[name] end
    end
    level = following
  end
end

return M
