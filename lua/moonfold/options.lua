--- Option tables: defaults, unknown keys, types.
-- Every constructor takes one named table. The defaults table is the whole contract: a key that is not in it is an
-- error that lists the known ones, and a value must have the type of its default.
-- @module moonfold.options
local fail = require "moonfold.fail"

local M = {}

--- Marks an option that has no default: leaving it out is an error.
M.REQUIRED = setmetatable({}, { __tostring = function() return "REQUIRED" end })

--- Marks an option that may be absent and may have any type.
M.OPTIONAL = setmetatable({}, { __tostring = function() return "OPTIONAL" end })

-- Edits (insert, delete, replace, swap of neighbours) between two names.
local function distance(a, b)
  local before, last = nil, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before, last = last, row
  end
  return last[#b]
end

--- The name of a list that is nearest to a mistyped one, or nil when none is near.
-- @tparam string name what was written
-- @tparam table known the names that exist
-- @treturn ?string
function M.nearest(name, known)
  local best, least = nil, math.max(1, math.floor(#name / 2)) + 1
  for _, candidate in ipairs(known) do
    local d = distance(name, candidate)
    if candidate:sub(1, #name) == name then d = math.min(d, 1) end
    if d < least then best, least = candidate, d end
  end
  return best
end

--- The keys of a table of strings, sorted.
-- @tparam table t
-- @treturn table
function M.sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and type(a) ~= "boolean" then return a < b end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local function raise(level, message)
  if level then error(message, level + 2) end
  fail(message)
end

--- Merges what the user gave over the defaults; `options(...)` is the same call.
-- @tparam string name of the constructor, for messages
-- @tparam table defaults key -> default, `REQUIRED` or `OPTIONAL`; a nil cannot be a default
-- @tparam ?table given what the user wrote
-- @tparam ?number level where to point: 1 the caller, 2 its caller; by default the first line outside Moonfold
-- @treturn table a new table with every key of the defaults that has a value
-- @usage local o = options("linear", { inputs = REQUIRED, outputs = REQUIRED, bias = true }, given)
function M.options(name, defaults, given, level)
  if given == nil then given = {} end
  if type(given) ~= "table" then
    raise(level, ("%s: takes one table of options, got %s"):format(name, type(given)))
  end
  local merged = {}
  for key, value in pairs(given) do
    local default = defaults[key]
    if default == nil then
      local known = M.sorted_keys(defaults)
      local near = type(key) == "string" and M.nearest(key, known)
      raise(level, ("%s: unknown option '%s'%s (known: %s)"):format(name, tostring(key),
        near and (", did you mean '%s'?"):format(near) or "", table.concat(known, ", ")))
    end
    if default ~= M.REQUIRED and default ~= M.OPTIONAL and type(value) ~= type(default) then
      raise(level, ("%s: option '%s' must be a %s, got %s"):format(name, key, type(default), type(value)))
    end
    merged[key] = value
  end
  for key, default in pairs(defaults) do
    if merged[key] == nil then
      if default == M.REQUIRED then raise(level, ("%s: option '%s' is required"):format(name, key)) end
      if default ~= M.OPTIONAL then merged[key] = default end
    end
  end
  return merged
end

return setmetatable(M, { __call = function(_, name, defaults, given, level)
  if level then level = level + 1 end
  return (M.options(name, defaults, given, level))
end })
