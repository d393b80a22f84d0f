--- Pickles of Python as Lua values. Nothing in one is imported, looked up or called.
--
-- `load` reads numbers, texts, lists, tuples, sets and dictionaries. Whatever a pickle wanted built by a class or
-- function is an inert object, `{ class = "os.system", args = ..., state = ... }`, unless the caller's rules name it. Rules are
-- functions in Lua that get the arguments as values: a name that is not among them can do nothing.
--
-- None becomes `json.null`; an integer beyond 2^53 an int64_t, one beyond 64 bits an inert "int". A value that is reached by
-- several paths is made once, so a pickle that repeats itself exponentially stays small; one nested too deeply is refused.
-- @module moonfold.pickle
local ffi = require "ffi"
local F = require "moonfold.ffi"
local json = require "moonfold.json"
local fail = require "moonfold.fail"

local C, check = F.C, F.check

local M = {}

--- Values nested deeper than this are refused.
M.MAX_DEPTH = 200

local Inert = {}
Inert.__index = Inert
function Inert:__tostring() return "inert " .. self.class end

--- Is this an object that was left as data?
-- @treturn boolean
function M.is_inert(value) return getmetatable(value) == Inert end

local function inert(object) return setmetatable(object, Inert) end
M.inert = inert

-- The order of a dictionary's keys; a table of Lua has none.
local orders = setmetatable({}, { __mode = "k" })

--- The keys of a dictionary in its own order, or nil for a table that no pickle made.
-- @tparam table t
-- @treturn ?table
function M.order(t) return orders[t] end

-- What a dictionary holds under keys that Lua has no like of: None, tuples, NaN.
local others = setmetatable({}, { __mode = "k" })

--- The pairs of a dictionary whose keys are neither text, number nor boolean: a list of { key, value }, or nil.
-- @tparam table t
-- @treturn ?table
function M.others(t) return others[t] end

local value_of      -- function(walk, number, depth)

local function children(walk, i, node)
  local items, pairs = ffi.new("int64_t[?]", tonumber(node.items) + 1), ffi.new("int64_t[?]", 2 * tonumber(node.pairs) + 1)
  check(C.mf_pickle_children(items, pairs, walk.handle, i))
  return items, pairs
end

local function fill_list(walk, list, items, count, depth)
  for k = 0, count - 1 do list[k + 1] = value_of(walk, tonumber(items[k]), depth) end
  return list
end

local function is_key(key)
  local kind = type(key)
  return kind == "string" or kind == "boolean" or kind == "number" and key == key
end

local function fill_pairs(walk, t, boxed, count, depth)
  local order = orders[t] or {}
  for k = 0, count - 1 do
    local key = value_of(walk, tonumber(boxed[2 * k]), depth)
    local value = value_of(walk, tonumber(boxed[2 * k + 1]), depth)
    if is_key(key) then
      if t[key] == nil then order[#order + 1] = key end
      t[key] = value
    else
      others[t] = others[t] or {}
      table.insert(others[t], { key, value })
    end
  end
  orders[t] = order
  return t
end

local function class_name(walk, node)
  local module, name = ffi.new "mf_pickle_value", ffi.new "mf_pickle_value"
  check(C.mf_pickle_get(walk.handle, node.first, module))
  check(C.mf_pickle_get(walk.handle, node.second, name))
  return ffi.string(module.text, module.bytes) .. "." .. ffi.string(name.text, name.bytes)
end

-- What an object is made by: the name of a class, or that of what is itself an object.
local function maker_of(walk, node)
  local called = ffi.new "mf_pickle_value"
  check(C.mf_pickle_get(walk.handle, node.first, called))
  if called.kind == C.MF_PICKLE_GLOBAL then return class_name(walk, called) end
end

local function fill_inert(walk, object, i, node, depth)
  object.args = value_of(walk, tonumber(node.second), depth)
  if not object.class then
    object.class = "the result of another object"
    object.maker = value_of(walk, tonumber(node.first), depth)
  end
  if node.third >= 0 then object.keywords = value_of(walk, tonumber(node.third), depth) end
  local items, pairs = children(walk, i, node)
  if node.items > 0 then object.items = fill_list(walk, json.array {}, items, tonumber(node.items), depth) end
  if node.pairs > 0 then
    object.dict = fill_pairs(walk, {}, pairs, tonumber(node.pairs), depth)
  end
  if node.state >= 0 then object.state = value_of(walk, tonumber(node.state), depth) end
  return object
end

local BUSY = {}

local function object_of(walk, i, node, depth)
  local name = maker_of(walk, node)
  local rule = name and walk.rules[name]
  if not rule or node.third >= 0 then
    local object = inert { class = name }
    walk.values[i] = object          -- before it is filled: it may contain itself
    return fill_inert(walk, object, i, node, depth)
  end
  walk.values[i] = BUSY
  local args = value_of(walk, tonumber(node.second), depth)
  local value = rule.make(args)
  walk.values[i] = value
  local items, pairs = children(walk, i, node)
  if node.items > 0 or node.pairs > 0 then
    if not rule.container then fail("pickle: %s: %s is filled like a container", walk.name, name) end
    fill_list(walk, value, items, tonumber(node.items), depth)
    fill_pairs(walk, value, pairs, tonumber(node.pairs), depth)
  end
  if node.state >= 0 and rule.state then
    value = rule.state(value, value_of(walk, tonumber(node.state), depth))
    walk.values[i] = value
  end
  return value
end

local function dictionary(walk, i, node, depth)
  local t = {}
  walk.values[i] = t
  local _, pairs = children(walk, i, node)
  return fill_pairs(walk, t, pairs, tonumber(node.pairs), depth)
end

local function integer(value)
  local number = tonumber(value)
  return math.abs(number) <= 2 ^ 53 and number or value
end

local readers = {
  [C.MF_PICKLE_NONE] = function() return json.null end,
  [C.MF_PICKLE_BOOL] = function(_, _, node) return node.integer ~= 0 end,
  [C.MF_PICKLE_INTEGER] = function(_, _, node) return integer(node.integer) end,
  [C.MF_PICKLE_REAL] = function(_, _, node) return node.real == node.real and node.real or 0 / 0 end,
  [C.MF_PICKLE_LONG] = function(_, _, node) return inert { class = "builtins.int", bytes = ffi.string(node.text, node.bytes) } end,
  [C.MF_PICKLE_TEXT] = function(_, _, node) return ffi.string(node.text, node.bytes) end,
  [C.MF_PICKLE_GLOBAL] = function(walk, _, node) return inert { class = class_name(walk, node) } end,
  [C.MF_PICKLE_DICT] = dictionary,
  [C.MF_PICKLE_OBJECT] = object_of,
  [C.MF_PICKLE_PERSISTENT] = function(walk, _, node, depth)
    local payload = value_of(walk, tonumber(node.first), depth)
    if not walk.rules.persistent then fail("pickle: %s: it refers to something outside", walk.name) end
    return walk.rules.persistent(payload)
  end,
}
readers[C.MF_PICKLE_BYTES] = readers[C.MF_PICKLE_TEXT]
local function list(walk, i, node, depth)
  local t = json.array {}
  walk.values[i] = t
  local items = children(walk, i, node)
  return fill_list(walk, t, items, tonumber(node.items), depth)
end
readers[C.MF_PICKLE_LIST], readers[C.MF_PICKLE_TUPLE], readers[C.MF_PICKLE_SET] = list, list, list

function value_of(walk, i, depth)
  local known = walk.values[i]
  if known == BUSY then fail("pickle: %s: an argument contains its own object", walk.name) end
  if known ~= nil then return known end
  if depth > M.MAX_DEPTH then fail("pickle: %s: values are nested deeper than %d", walk.name, M.MAX_DEPTH) end
  local node = ffi.new "mf_pickle_value"
  check(C.mf_pickle_get(walk.handle, i, node))
  local value = readers[node.kind](walk, i, node, depth + 1)
  if walk.values[i] == nil or walk.values[i] == BUSY then walk.values[i] = value end
  return value
end

--- Reads a pickle.
-- @tparam string text
-- @tparam string name for messages
-- @tparam ?table rules by the full name of a class or function ("collections.OrderedDict"): `{ make = function(args) end }`
--   gives the value; with `container = true` what the pickle appends and sets goes into it; `state = function(value, state) end`
--   gives the value after BUILD. `persistent = function(payload) end` resolves references to the outside
-- @return the value
-- @usage local value = require("moonfold.pickle").load(text, "x.pkl")
function M.load(text, name, rules)
  local box = ffi.new "mf_pickle *[1]"
  check(C.mf_pickle_parse(box, text, #text, name))
  local handle = ffi.gc(box[0], C.mf_pickle_release)
  local walk = { handle = handle, name = name, rules = rules or {}, values = {} }
  local value = value_of(walk, tonumber(C.mf_pickle_root(handle)), 0)
  C.mf_pickle_release(ffi.gc(handle, nil))
  return value
end

return M
