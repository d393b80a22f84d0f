--- How the prompt prints values: tensors with their edges, tables two levels deep.
-- @module moonfold.repl.show
local F = require "moonfold.ffi"
local words = require "moonfold.words"

local M = {}

local MOST, DEEPEST = 20, 2

local function key_text(key)
  if type(key) == "string" and key:match("^[%a_][%w_]*$") then return key end
  if type(key) == "string" then return ("[%q]"):format(key) end
  return "[" .. tostring(key) .. "]"
end

local function by_kind(a, b)
  if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
  if type(a) ~= type(b) then return type(a) < type(b) end
  return tostring(a) < tostring(b)
end

local function short(value, depth, seen)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" or (getmetatable(value) or {}).__tostring then return tostring(value) end
  if next(value) == nil then return "{}" end
  if seen[value] then return "{ itself }" end
  if depth >= DEEPEST then return "{ ... }" end
  seen[value] = true
  local keys, lines = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, by_kind)
  local plain = true
  for i, key in ipairs(keys) do
    if type(value[key]) == "table" or F.is_tensor(value[key]) then plain = false end
    if i <= MOST then
      local text = short(value[key], depth + 1, seen)
      lines[i] = key == i and text or key_text(key) .. " = " .. text
    end
  end
  if #keys > MOST then lines[#lines + 1] = ("... %d more"):format(#keys - MOST) end
  seen[value] = nil
  local joined = "{ " .. table.concat(lines, ", ") .. " }"
  if plain and #joined <= 100 then return joined end
  local indent = ("  "):rep(depth + 1)
  return "{\n" .. indent .. table.concat(lines, ",\n" .. indent) .. "\n" .. ("  "):rep(depth) .. "}"
end

--- The text that the prompt prints for a value.
-- @param value
-- @treturn string
function M.text(value)
  if F.is_tensor(value) then return value:show() end
  if type(value) == "string" then return value end
  return short(value, 0, {})
end

-- What `who` says of one variable: shape, element type, bytes.
local function describe(value)
  if F.is_tensor(value) then
    if value:is_released() then return "tensor", "(released)", "", 0 end
    local shape = table.concat(value:shape(), "x")
    return "tensor", shape == "" and "scalar" or shape, value:dtype() .. " " .. value:device(), value:nbytes()
  end
  if type(value) == "table" and type(value.parameters) == "function" then
    local ok, parameters = pcall(value.parameters, value)
    if ok and type(parameters) == "table" then
      local bytes, count = 0, 0
      for _, x in pairs(parameters) do
        if F.is_tensor(x) then bytes, count = bytes + x:nbytes(), count + x:count() end
      end
      return "model", ("%d parameters"):format(count), "", bytes
    end
  end
  if type(value) == "table" then
    local n = 0
    for _ in pairs(value) do n = n + 1 end
    return "table", ("%d entries"):format(n), "", nil
  end
  if type(value) == "cdata" then return "cdata", tostring(value), "", nil end
  local text = type(value) == "string" and ("%q"):format(value) or tostring(value)
  return type(value), #text > 40 and text:sub(1, 37) .. "..." or text, "", nil
end

--- A table of variables: name, kind, shape, element type, bytes.
-- @tparam table variables name -> value
-- @treturn string
function M.who(variables)
  local rows, widths = {}, { 0, 0, 0, 0 }
  local names = {}
  for name in pairs(variables) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for _, name in ipairs(names) do
    local kind, shape, dtype, bytes = describe(variables[name])
    local row = { name, kind, shape, dtype, bytes and words.bytes(bytes) or "" }
    for i = 1, 4 do widths[i] = math.max(widths[i], #row[i]) end
    rows[#rows + 1] = row
  end
  local lines = {}
  for i, row in ipairs(rows) do
    local format = "%-" .. widths[1] .. "s  %-" .. widths[2] .. "s  %-" .. widths[3] .. "s  %-" .. widths[4] .. "s  %s"
    lines[i] = (format:format(unpack(row)):gsub("%s+$", ""))
  end
  return #lines > 0 and table.concat(lines, "\n") or "no variables"
end

return M
