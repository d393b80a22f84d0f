--- The layer protocol: how a layer is declared, called, named, saved, moved and printed.
--
-- A layer is a table of tensors and of other layers; nothing is registered. `define` makes its constructor:
--
--     local Scale = module.define("scale", { dim = module.REQUIRED },
--       function(self, o) self.weight = module.parameter(mf.ones(o.dim)) end,    -- build
--       function(self, x) return x * self.weight end)                            -- forward
--     local scale = Scale { dim = 8 }
--     y = scale(x)
--
-- `layer(...)` runs `forward` inside `mf.scope`: every tensor made on the way is let go when it returns, but for
-- the results (tensors, or tables of tensors one level deep); the tape keeps what backward needs. An error inside
-- is raised with the path of the layer that failed:
--
--     train.lua:20: flash_ipa.trunk.ipa_0.linear_q: linear: x (5, 4) ...
-- @module moonfold.nn.module
local mf = require "moonfold"
local fail = require "moonfold.fail"
local options = require "moonfold.options"
local types = require "moonfold.types"
local tree = require "moonfold.nn.tree"
local words = require "moonfold.words"

-- Not compiled: a trace keeps the closures it has met, and those below hold lists of a model's tensors.
jit.off(true, true)

local M = { REQUIRED = options.REQUIRED, OPTIONAL = options.OPTIONAL }
local Module = {}

-- ---- errors -------------------------------------------------------------------------------------------------

-- The failure that is on its way up: its parts, and the text as last raised; and the layer it began in, weakly, so that the
-- last failure does not keep a model alive.
local failure, began = {}, setmetatable({}, { __mode = "v" })

-- The position at the head of a message stays: the binding has put the user's own line there.
local function raise(self, err)
  if type(err) ~= "string" then error(err, 0) end
  if err ~= failure.text then
    began.layer = self
    failure.position = err:match("^[^\n]-:%d+: ") or ""
    failure.message = err:sub(#failure.position + 1)
  end
  local path = tree.path(self, began.layer)
  local where = rawget(self, "_class")
  if path and path ~= "" then where = where .. "." .. path end
  failure.text = failure.position .. where .. ": " .. failure.message
  error(failure.text, 0)
end

local function forward(self, ...) return self:forward(...) end

local function settle(self, ok, ...)
  if ok then return ... end
  raise(self, (...))
end

local function call(self, ...)
  return settle(self, pcall(mf.scope, forward, self, ...))
end

-- ---- state --------------------------------------------------------------------------------------------------

local function is_float(x)
  local kind = x:dtype()
  return kind == "float32" or kind == "float64" or kind == "bfloat16" or kind == "float16"
end

--- Marks a fresh tensor as a parameter: it survives scopes and takes gradients.
-- @param x a tensor
-- @return the same tensor
function M.parameter(x)
  return x:keep():require_grad(true)
end

--- Every tensor of the tree by name, in the fixed order.
-- @treturn table a list of `{ name, tensor }`
function Module:named_tensors()
  local list = {}
  tree.walk(self, function(name, x) list[#list + 1] = { name, x } end)
  return list
end

--- Parameters that take gradients, with their names; a shared one is listed once, under its first name.
-- @treturn table a list of `{ name, tensor }`
-- @usage for _, p in ipairs(model:named_parameters()) do print(p[1], p[2]) end
function Module:named_parameters()
  local list, seen = {}, {}
  tree.walk(self, function(name, x)
    if x:requires_grad() and not seen[x:id()] then
      seen[x:id()] = true
      list[#list + 1] = { name, x }
    end
  end)
  return list
end

--- Parameters that take gradients, in order: what an optimizer wants.
-- @treturn table a list of tensors
-- @usage local opt = mf.optim.adamw(model:parameters(), { lr = 1e-4 })
function Module:parameters()
  local list = self:named_parameters()
  for i, p in ipairs(list) do list[i] = p[2] end
  return list
end

--- All tensors by name, for `mf.save`; they are the model's own, not copies.
-- @treturn table name -> tensor
-- @usage mf.save("model.safetensors", model:state())
function Module:state()
  local state = {}
  tree.walk(self, function(name, x) state[name] = x end)
  return state
end

local function shape_text(x) return "(" .. table.concat(x:shape(), ", ") .. ")" end

local function same_shape(a, b)
  local s, r = a:shape(), b:shape()
  if #s ~= #r then return false end
  for i = 1, #s do if s[i] ~= r[i] then return false end end
  return true
end

local function some(list)
  local shown = {}
  for i = 1, math.min(#list, 5) do shown[i] = list[i] end
  if #list > 5 then shown[6] = ("and %d more"):format(#list - 5) end
  return table.concat(shown, ", ")
end

local function report_text(report)
  local parts = {}
  if #report.missing > 0 then parts[#parts + 1] = "missing " .. some(report.missing) end
  if #report.extra > 0 then parts[#parts + 1] = "unknown " .. some(report.extra) end
  if #report.mismatched > 0 then parts[#parts + 1] = "of another shape " .. some(report.mismatched) end
  return table.concat(parts, "; ")
end

local function copy_all(list)
  for _, pair in ipairs(list) do pair[1]:copy_(pair[2]) end
end

local load_defaults = { strict = true, prefix = "" }

--- Copies values into the tensors of the same names.
-- @tparam table state name -> tensor, as `state()` or `mf.load` give it
-- @tparam[opt] table o `strict` (true): anything missing, unknown or of another shape is an error and nothing is
--   copied; false: what fits is copied. `prefix` (""): what stands before every name in `state`
-- @treturn table a report: lists `missing`, `extra`, `mismatched`, and `loaded`, how many were copied
-- @usage model:load(mf.load("model.safetensors"))
function Module:load(state, o)
  o = options("load", load_defaults, o)
  local report = { missing = {}, extra = {}, mismatched = {}, loaded = 0 }
  local known, copies = {}, {}
  for _, entry in ipairs(self:named_tensors()) do
    local name, target = o.prefix .. entry[1], entry[2]
    local source = state[name]
    known[name] = true
    if not source then
      report.missing[#report.missing + 1] = name
    elseif not same_shape(source, target) then
      report.mismatched[#report.mismatched + 1] = ("%s %s, expected %s"):format(name, shape_text(source), shape_text(target))
    else
      copies[#copies + 1] = { target, source }
    end
  end
  for name in pairs(state) do
    if not known[name] and name:sub(1, #o.prefix) == o.prefix then report.extra[#report.extra + 1] = name end
  end
  table.sort(report.extra)
  local text = report_text(report)
  if o.strict and text ~= "" then fail("%s: load: %s", self._class, text) end
  mf.no_grad(copy_all, copies)
  report.loaded = #copies
  return report
end

--- Moves the model to a device or its floating tensors to a type, in place: make optimizers afterwards.
-- @tparam string where "cpu", "cuda", "cuda:1", "null", "float32", "float64", ...
-- @return the model
-- @usage local model = mf.models.flash_ipa { blocks = 2 }:to("cuda")
function Module:to(where)
  local moved = {}
  local is_type = types.dtype_code[where] ~= nil
  tree.walk(self, function(_, x, holder, key)
    local y = moved[x:id()]
    if not y then
      y = x
      if not is_type or is_float(x) then
        y = mf.no_grad(x.to, x, where)
        if y:id() ~= x:id() then y = y:detach():keep():require_grad(x:requires_grad()) end
      end
      moved[x:id()] = y
    end
    holder[key] = y
  end)
  return self
end

--- Stops (or starts again) the gradients of the parameters whose names match. Layers that stand in the public checkpoints and do
-- nothing stay frozen.
-- @tparam[opt=".*"] string pattern a Lua pattern on the name
-- @tparam[opt=true] boolean frozen false thaws
-- @treturn number how many tensors matched
-- @usage model:freeze "^edge_embedder%."
function Module:freeze(pattern, frozen)
  local count = 0
  tree.walk(self, function(name, x, holder)
    if name:find(pattern or "") and is_float(x) and not (frozen == false and holder._idle) then
      x:require_grad(frozen == false)
      count = count + 1
    end
  end)
  return count
end

--- Marks a layer that is loaded and saved and does nothing else: frozen for good.
-- @tparam table layer one that holds its tensors itself
-- @treturn table the same layer
function M.idle(layer)
  rawset(layer, "_idle", true)
  layer:freeze()
  return layer
end

--- How many numbers the model holds.
-- @tparam[opt=false] boolean trained only those that take gradients
-- @treturn number
function Module:count(trained)
  local total, seen = 0, {}
  tree.walk(self, function(_, x)
    if not seen[x:id()] and (not trained or x:requires_grad()) then total = total + x:count() end
    seen[x:id()] = true
  end)
  return total
end

local function set_training(self, training)
  rawset(self, "_training", training)
  tree.walk(self, nil, function(_, t) if M.is_module(t) then rawset(t, "_training", training) end end)
  return self
end

--- Puts the model in training mode (dropout acts), where it begins.
-- @return the model
function Module:train() return set_training(self, true) end

--- Puts the model in evaluation mode (dropout does nothing).
-- @return the model
function Module:eval() return set_training(self, false) end

-- ---- printing -----------------------------------------------------------------------------------------------

local function describe(t)
  local class = rawget(t, "_class") or "table"
  local detail = M.is_module(t) and t.describe and t:describe()
  return detail and class .. " " .. detail or class
end

local function bytes_of(t)
  local total, seen = 0, {}
  tree.walk(t, function(_, x)
    if not seen[x:id()] then total = total + x:nbytes() end
    seen[x:id()] = true
  end)
  return total
end

-- How many numbers, in how many bytes, and how many of them are not trained.
local function size_of(t)
  local count = Module.count(t)
  local idle = count - Module.count(t, true)
  return ("%s (%s%s)"):format(words.thousands(count), words.bytes(bytes_of(t)),
    idle > 0 and (", %s not trained"):format(words.thousands(idle)) or "")
end

local function lines(t, key, depth, limit, out)
  out[#out + 1] = ("%s%s%s  %s"):format(("  "):rep(depth), key and key .. ": " or "", describe(t), size_of(t))
  if depth >= limit then return end
  for _, k in ipairs(tree.keys(t)) do
    local child = rawget(t, k)
    local name = type(k) == "number" and tostring(k - 1) or k
    if type(child) == "table" then
      lines(child, name, depth + 1, limit, out)
    elseif tree.is_tensor(child) and not M.is_module(t) then
      out[#out + 1] = ("%s%s: %s"):format(("  "):rep(depth + 1), name, tostring(child))
    end
  end
end

--- The tree of layers with their sizes, a line each: parameters, bytes, and how many of them take no gradients.
-- @tparam[opt] number depth how deep to go, all the way by default
-- @treturn string
-- @usage print(model:summary(2))
function Module:summary(depth)
  local out = {}
  lines(self, nil, 0, depth or math.huge, out)
  return table.concat(out, "\n")
end

-- ---- declaring ----------------------------------------------------------------------------------------------

local metatables = setmetatable({}, { __mode = "k" })

--- Whether `x` was made by a constructor of this protocol.
-- @param x anything
-- @treturn boolean
function M.is_module(x)
  return type(x) == "table" and metatables[getmetatable(x)] == true
end

--- Declares a kind of layer.
-- @tparam string name what errors and trees call it
-- @tparam ?table defaults its options; `REQUIRED` and `OPTIONAL` mark those without a default. nil: the
--   constructor takes its table unchecked
-- @tparam function build `build(self, o)` puts tensors and layers into `self`
-- @tparam function run `run(self, ...)` is the layer's forward
-- @tparam[opt] table methods more methods (`describe` adds to its line in trees)
-- @treturn table a callable constructor, with `name`, `defaults` and `methods`
function M.define(name, defaults, build, run, methods)
  local class = setmetatable({ forward = run }, { __index = Module })
  for key, method in pairs(methods or {}) do class[key] = method end
  local metatable = { __index = class, __call = call, __tostring = Module.summary }
  metatables[metatable] = true
  local constructor = { name = name, defaults = defaults, methods = class }
  return setmetatable(constructor, {
    __call = function(_, o)
      if defaults then o = options(name, defaults, o) end
      local self = setmetatable({ _class = name, _options = o, _training = true }, metatable)
      build(self, o)
      return self
    end,
    __tostring = function() return "moonfold layer " .. name end,
  })
end

return M
