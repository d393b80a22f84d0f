--- The tree of a model: tables that hold tensors and other tables, walked in one fixed order.
--
-- Names of parameters are paths through this tree, and checkpoints stand on them, so the rules are few:
--   * keys are visited in sorted order, integers before strings; keys that begin with "_" are private and skipped;
--   * an integer key n is named n - 1, as PyTorch names the items of a list ("layers.0.norm1.weight");
--   * a child marked by `tree.inline` adds no segment: its fields appear under its parent's path;
--   * a table that contains itself is visited once on each path.
-- @module moonfold.nn.tree
local F = require "moonfold.ffi"

-- Not compiled: a trace keeps the closures it has met, and with them the model that was walked.
jit.off(true, true)

local M = {}

local INLINE = "_inline"

--- Whether `x` is a tensor.
-- @param x anything
-- @treturn boolean
function M.is_tensor(x)
  return F.is_tensor(x)
end

--- Lets the fields of `child` be named as if they were its parent's own.
-- @tparam table child a module or a term
-- @treturn table the same table
function M.inline(child)
  child[INLINE] = true
  return child
end

local function before(a, b)
  if type(a) == type(b) then return a < b end
  return type(a) == "number"
end

--- The public keys of a table in the order in which they are visited.
-- @tparam table t
-- @treturn table a list of keys
function M.keys(t)
  local keys = {}
  for key in pairs(t) do
    if type(key) == "number" or (type(key) == "string" and key:byte(1) ~= 95) then keys[#keys + 1] = key end
  end
  table.sort(keys, before)
  return keys
end

--- The path of a child, given its parent's path and its key.
-- @tparam string path the parent's path, "" for the root
-- @tparam string|number key
-- @tparam table child
-- @treturn string
function M.join(path, key, child)
  if type(child) == "table" and rawget(child, INLINE) then return path end
  local name = type(key) == "number" and tostring(key - 1) or key
  return path == "" and name or path .. "." .. name
end

local function walk(t, path, seen, on_tensor, on_table)
  if seen[t] then return end
  seen[t] = true
  for _, key in ipairs(M.keys(t)) do
    local value = rawget(t, key)
    local kind = type(value)
    if kind == "table" then
      local name = M.join(path, key, value)
      if on_table then on_table(name, value) end
      walk(value, name, seen, on_tensor, on_table)
    elseif kind == "cdata" and on_tensor and M.is_tensor(value) then
      on_tensor(M.join(path, key), value, t, key)
    end
  end
  seen[t] = nil
end

--- Visits every tensor and every table below `root`.
-- @tparam table root
-- @tparam[opt] function on_tensor called with (name, tensor, holder, key)
-- @tparam[opt] function on_table called with (name, table)
function M.walk(root, on_tensor, on_table)
  walk(root, "", {}, on_tensor, on_table)
end

--- The path from `root` to the table `target`, nil when it is not below it.
-- @tparam table root
-- @tparam table target
-- @treturn ?string
function M.path(root, target)
  if root == target then return "" end
  local found
  walk(root, "", {}, nil, function(name, t) if t == target then found = found or name end end)
  return found
end

return M
