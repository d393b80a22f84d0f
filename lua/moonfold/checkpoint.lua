--- Checkpoints: a tree of tensors, numbers, strings and booleans in one safetensors file, written atomically.
--
--     checkpoint.save("runs/a/checkpoint.safetensors", { model = model:state(), optimizer = opt:state(), step = 100 })
--     local c = checkpoint.load "runs/a/checkpoint.safetensors"
--     model:load(c.model)
--
-- Tensors are entries named by their path with "/" between ("model/trunk.ipa_0.linear_q.weight"), so that the
-- model's part can be read by anything that reads safetensors; the rest is JSON in the metadata. Numbers come back
-- bit for bit.
-- @module moonfold.checkpoint
local archive = require "moonfold.archive"
local json = require "moonfold.json"
local fail = require "moonfold.fail"

local M = {}

local FORMAT = "moonfold-checkpoint-1"

local function is_tensor(value)
  return type(value) == "cdata"
end

-- Moves tensors into `tensors` by path and returns what is left.
local function divide(value, path, tensors)
  if is_tensor(value) then
    tensors[path] = value
    return nil
  end
  if type(value) ~= "table" then return value end
  local kept, rest = 0, #value > 0 and json.array {} or {}
  for key, item in pairs(value) do
    local name = type(key) == "number" and "#" .. key or key
    if key ~= name and key % 1 ~= 0 or name:find("/", 1, true) or key == name and name:sub(1, 1) == "#" then
      fail("checkpoint: the key '%s' is neither a whole number nor a name without '/' and '#'", tostring(key))
    end
    rest[key] = divide(item, path == "" and name or path .. "/" .. name, tensors)
    kept = kept + (rest[key] ~= nil and 1 or 0)
  end
  if #value > 0 and kept > 0 and kept < #value then fail("checkpoint: the list '%s' holds tensors and other values", path) end
  return rest
end

-- Lists are told from names by the sign before the number: "moments/#1" is moments[1], "moments/1" is moments["1"].
local function key_of(part)
  return tonumber(part:match "^#(%d+)$") or part
end

local function put(tree, path, tensor)
  local at = tree
  for part in path:gmatch "([^/]+)/" do
    local key = key_of(part)
    at[key] = at[key] or {}
    at = at[key]
  end
  at[key_of(path:match "[^/]+$")] = tensor
end

--- Writes a checkpoint; a reader sees the old one or the new, never a part.
-- @tparam string path
-- @tparam table tree nested tables of tensors, numbers, strings, booleans
function M.save(path, tree)
  local tensors = {}
  local rest = divide(tree, "", tensors)
  archive.save(path, tensors, { format = FORMAT, state = json.encode(rest) })
end

--- Reads a checkpoint.
-- @tparam string path
-- @treturn table the tree that was saved
function M.load(path)
  local tensors, metadata = archive.load(path)
  if metadata.format ~= FORMAT then
    fail("checkpoint: %s is not a checkpoint of Moonfold (its format is %s)", path, tostring(metadata.format))
  end
  local tree = json.decode(metadata.state)
  for name, tensor in pairs(tensors) do put(tree, name, tensor) end
  return tree
end

return M
