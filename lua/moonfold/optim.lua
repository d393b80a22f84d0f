--- Optimizers: one fused pass over all parameters, clipping by the global norm, state that resumes bit for bit.
--
--     local opt = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1.0 })
--     opt:step(loss)        -- backward, clip, update, gradients freed
--     opt.lr = 5e-5         -- a schedule sets the field
--
-- Norm, clip scale and counts stay on the device (moonfold.optim.control), so a step can be captured by mf.graph: then `step`
-- gives the norm as a tensor, `lr` and `clip` are written before each replay, and `opt.norm`, `opt.steps` and `opt.skipped` are
-- read from the device when they are asked for. Betas, decays and epsilons of a captured step stay what they were. Parameters on
-- several devices are updated too, but their norms meet on the host: such a step cannot be captured.
--
-- @module moonfold.optim
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"
local options = require "moonfold.options"
local capture = require "moonfold.capture"
local lists = require "moonfold.optim.lists"
local new_control = require "moonfold.optim.control"
local running = require "moonfold.optim.ema"

local C, out, check, is_tensor = F.C, F.out, F.check, F.is_tensor
local named, pointers, zeros_like = lists.named, lists.pointers, lists.zeros_like

local M = { ema = running.ema }

local adam_box = ffi.new("mf_adam_params")
local list_box = ffi.new("mf_optim_list")

-- Two names for one tensor would be two updates of it.
local function distinct(name, entries, seen)
  for _, entry in ipairs(entries) do
    local id = entry.tensor:id()
    if seen[id] then fail("%s: parameters '%s' and '%s' are the same tensor", name, seen[id], entry.name) end
    seen[id] = entry.name
  end
end

-- Groups: { { params = ..., lr = ... }, ... }, or one group of all.
local function grouped(name, params, defaults)
  local groups
  if type(params) == "table" and type(params[1]) == "table" and params[1].params then
    groups = {}
    local known = { params = options.REQUIRED }
    for key in pairs(defaults) do
      if key ~= "clip" and key ~= "ema" then known[key] = options.OPTIONAL end
    end
    for i, group in ipairs(params) do
      local given = options(name, known, group)
      given.entries = named(name, given.params)
      given.params = nil
      for _, entry in ipairs(given.entries) do entry.name = i .. "." .. entry.name end
      groups[i] = given
    end
  else
    groups = { { entries = named(name, params) } }
  end
  local count, seen = 0, {}
  for _, group in ipairs(groups) do
    count = count + #group.entries
    distinct(name, group.entries, seen)
  end
  if count == 0 then fail("%s: there are no parameters", name) end
  return groups
end

local function gradient_of(item) return item.gradient end
local function parameter_of(item) return item.entry.tensor end
local function average_of(item) return item.entry.averaged.average end

local Optimizer = {}

-- What a step leaves on the device: looked up when asked for.
local on_device = { norm = true, steps = true, skipped = true }

-- The metatable of a kind of optimizer.
local function kind()
  local methods = setmetatable({}, { __index = Optimizer })
  return methods, {
    __tostring = function(self) return Optimizer.__tostring(self) end,
    __index = function(self, key)
      if not on_device[key] then return methods[key] end
      self:sync()
      return self.values[key]
    end,
    __newindex = function(self, key, value)
      if on_device[key] then fail("%s: '%s' is counted, not set", self.name, key) end
      rawset(self, key, value)
    end,
  }
end

-- Every parameter that has a gradient, with that gradient.
local function with_gradients(self)
  local list = {}
  for _, group in ipairs(self.groups) do
    for _, entry in ipairs(group.entries) do
      check(C.mf_tensor_grad(out, entry.tensor))
      if out[0] ~= nil then
        list[#list + 1] = { group = group, entry = entry, gradient = F.adopt_shared(out[0]) }
      end
    end
  end
  return list
end

local function on(control, list, group)
  local found = {}
  for _, item in ipairs(list) do
    if item.entry.device == control.device and (not group or item.group == group) then found[#found + 1] = item end
  end
  return found
end

local function write_settings(self)
  local rates = {}
  for i, group in ipairs(self.groups) do rates[i] = group.lr or self.lr end
  for _, control in ipairs(self.controls) do control:set(self.clip or math.huge, rates) end
end

-- Norms of several devices meet here; every control tensor gets what one would have found.
local function join_norms(self)
  local steps, skipped, sum = self.steps, self.skipped, 0
  for _, control in ipairs(self.controls) do sum = sum + control:read() ^ 2 end
  local norm, clip = math.sqrt(sum), self.clip or math.huge
  local finite = norm < math.huge
  local scale = finite and (norm > clip and clip / norm or 1) or -1
  for _, control in ipairs(self.controls) do
    control:begin(norm, scale, steps + (finite and 1 or 0), skipped + (finite and 0 or 1))
  end
end

local function find_norm(self, list)
  if #self.controls > 1 then self:sync() end
  for _, control in ipairs(self.controls) do
    local items = on(control, list)
    control:norm(pointers(control, "gradients", items, gradient_of), #items)
  end
  if #self.controls > 1 then join_norms(self) end
end

local function update(self, list)
  for index, group in ipairs(self.groups) do
    for _, control in ipairs(self.controls) do
      local items = on(control, list, group)
      if #items > 0 then
        local boxes = group.boxes
        list_box.count, list_box.group = #items, index - 1
        list_box.parameters = pointers(boxes, "parameters", items, parameter_of)
        list_box.gradients = pointers(boxes, "gradients", items, gradient_of)
        list_box.m, list_box.v, list_box.averages, list_box.decay = nil, nil, nil, 0
        if self.ema then
          list_box.averages, list_box.decay = pointers(boxes, "averages", items, average_of), self.ema.decay
        end
        self:update(control, items, group)
      end
    end
  end
end

--- Backward (when a loss is given), clip by the global norm, update, forget the gradients.
-- A gradient norm that is not finite skips the update; `opt.skipped` counts those.
-- @tparam ?tensor loss
-- @treturn number the norm of the gradient before clipping; inside a step that mf.graph captures, a tensor of one element
function Optimizer:step(loss)
  if loss ~= nil then T.tensor_argument(self.name, 1, loss):backward() end
  local list = with_gradients(self)
  if #list == 0 then fail("%s: no parameter has a gradient; call backward first, or give the loss to step", self.name) end
  local captured = capture.active()
  if captured and #self.controls > 1 then
    fail("%s: parameters on several devices meet on the host, which a graph cannot capture; step outside of mf.graph", self.name)
  end
  if captured then
    capture.on_replay(function()
      write_settings(self)
      self.stale = true
    end)
  else
    write_settings(self)
  end
  find_norm(self, list)
  update(self, list)
  if self.ema then self.ema:update_others(list) end
  self:zero_grad()
  for _, item in ipairs(list) do C.mf_tensor_drop(item.gradient) end  -- not when the collector comes by
  if captured then return self.controls[1]:norm_tensor() end
  self.stale = true
  return self.norm
end

--- Waits for the device and takes over its counts; reading `opt.norm`, `opt.steps` or `opt.skipped` does it where it is needed.
function Optimizer:sync()
  if not self.stale then return end
  local values = self.values
  values.norm, values.steps, values.skipped = self.controls[1]:read()
  self.stale = false
end

--- Lets steps update this running average from now on, in their own pass, as the option `ema` does: `average:update()` is not
-- called then.
-- @tparam average average from mf.optim.ema
-- @treturn boolean false, and nothing is changed, when the average lacks a parameter
-- @treturn ?string the name of that parameter
function Optimizer:fuse(average)
  local found = {}
  for _, group in ipairs(self.groups) do
    for _, entry in ipairs(group.entries) do
      found[entry] = average.by_id[entry.tensor:id()]
      if not found[entry] then return false, entry.name end
    end
  end
  for entry, averaged in pairs(found) do entry.averaged = averaged end
  rawset(self, "ema", average)
  return true
end

--- Forgets the gradients of all parameters.
function Optimizer:zero_grad()
  for _, group in ipairs(self.groups) do
    for _, entry in ipairs(group.entries) do check(C.mf_tensor_set_grad(entry.tensor, nil)) end
  end
end

--- Everything needed to go on later: copies of the moments by name, and numbers. `load` takes it back.
-- @treturn table
function Optimizer:state()
  local state = { steps = self.steps, skipped = self.skipped, lr = self.lr }
  for _, group in ipairs(self.groups) do
    for _, entry in ipairs(group.entries) do
      for _, slot in ipairs(self.slots) do
        if entry[slot] then state[slot .. "." .. entry.name] = entry[slot]:clone() end
      end
    end
  end
  return state
end

--- Goes on from a saved state.
-- @tparam table state
function Optimizer:load(state)
  if type(state) ~= "table" then T.bad_argument("load", 1, "a table", state) end
  local known = { steps = true, skipped = true, lr = true }
  for _, group in ipairs(self.groups) do
    for _, entry in ipairs(group.entries) do
      for _, slot in ipairs(self.slots) do
        if entry[slot] then
          local key = slot .. "." .. entry.name
          known[key] = true
          if not is_tensor(state[key]) then fail("%s: the state has no '%s'", self.name, key) end
          local ours, given = table.concat(entry[slot]:shape(), ", "), table.concat(state[key]:shape(), ", ")
          if ours ~= given then fail("%s: state '%s' is (%s), the parameter is (%s)", self.name, key, given, ours) end
        end
      end
    end
  end
  for key in pairs(state) do
    if not known[key] then fail("%s: the state has '%s', which belongs to no parameter", self.name, tostring(key)) end
  end
  -- Nothing is written before everything is known to fit.
  for _, group in ipairs(self.groups) do
    for _, entry in ipairs(group.entries) do
      for _, slot in ipairs(self.slots) do
        if entry[slot] then entry[slot]:copy_(state[slot .. "." .. entry.name]) end
      end
    end
  end
  local steps, skipped = tonumber(state.steps) or 0, tonumber(state.skipped) or 0
  self.values = { norm = 0, steps = steps, skipped = skipped }
  self.stale = false
  for _, control in ipairs(self.controls) do
    control:begin(0, 1, steps, skipped)
    control.steps_on_null = steps
  end
  if state.lr then self.lr = tonumber(state.lr) end
end

function Optimizer:__tostring()
  local count = 0
  for _, group in ipairs(self.groups) do count = count + #group.entries end
  return ("%s: %d tensors, lr %g, %d steps, %d skipped"):format(self.name, count, self.lr, self.steps, self.skipped)
end

local function new(class, name, slots, defaults, params, given)
  local self = options(name, defaults, given)
  if self.ema and not running.is_average(self.ema) then
    fail("%s: ema must come from mf.optim.ema, got %s", name, T.kind(self.ema))
  end
  self.groups = grouped(name, params, defaults)
  self.name, self.slots, self.stale = name, slots, false
  self.values = { norm = 0, steps = 0, skipped = 0 }
  local devices = {}
  for _, group in ipairs(self.groups) do
    group.boxes = {}
    for _, entry in ipairs(group.entries) do devices[entry.device] = true end
  end
  self.controls = {}
  for i, device in ipairs(options.sorted_keys(devices)) do self.controls[i] = new_control(device, #self.groups) end
  setmetatable(self, class)
  if self.ema then
    local whole, missing = self:fuse(self.ema)
    if not whole then fail("%s: the running average does not have parameter '%s'", name, missing) end
  end
  return self
end

local Adam, adam_class = kind()

local function m_of(item) return item.entry.m end
local function v_of(item) return item.entry.v end

function Adam:update(control, items, group)
  local betas = group.betas or self.betas
  adam_box.beta1, adam_box.beta2 = betas[1], betas[2]
  adam_box.epsilon = group.eps or self.eps
  adam_box.weight_decay = group.weight_decay or self.weight_decay
  adam_box.decoupled = self.decoupled
  list_box.m, list_box.v = pointers(group.boxes, "m", items, m_of), pointers(group.boxes, "v", items, v_of)
  check(C.mf_adam_many(control.tensor, list_box, adam_box))
end

local function adam(name, decoupled, defaults, params, given)
  local self = new(adam_class, name, { "m", "v" }, defaults, params, given)
  self.decoupled = decoupled
  for _, group in ipairs(self.groups) do
    for _, entry in ipairs(group.entries) do
      entry.m, entry.v = zeros_like(entry.tensor), zeros_like(entry.tensor)
    end
  end
  return self
end

--- AdamW: weight decay apart from the gradient.
-- @tparam table params tensors, or groups `{ params =, lr =, ... }`
-- @tparam ?table options `lr` (1e-3), `betas` ({ 0.9, 0.999 }), `eps` (1e-8), `weight_decay` (0.01), `clip` (none),
--  `ema` (none: a running average of the same parameters that is updated in the same pass, instead of by `average:update()`)
-- @treturn optimizer
-- @usage local opt = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1.0 })
function M.adamw(params, given)
  return adam("adamw", 1, { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0.01, clip = options.OPTIONAL,
    ema = options.OPTIONAL }, params, given)
end

--- Adam: weight decay, if any, joins the gradient.
-- @tparam table params tensors, or groups `{ params =, lr =, ... }`
-- @tparam ?table options `lr` (1e-3), `betas` ({ 0.9, 0.999 }), `eps` (1e-8), `weight_decay` (0), `clip` (none), `ema` (none)
-- @treturn optimizer
function M.adam(params, given)
  return adam("adam", 0, { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0, clip = options.OPTIONAL,
    ema = options.OPTIONAL }, params, given)
end

local Sgd, sgd_class = kind()

local function velocity_of(item) return item.entry.velocity end

function Sgd:update(control, items, group)
  if items[1].entry.velocity then list_box.m = pointers(group.boxes, "m", items, velocity_of) end
  check(C.mf_sgd_many(control.tensor, list_box, group.momentum or self.momentum, group.weight_decay or self.weight_decay))
end

--- Stochastic gradient descent, with momentum if asked.
-- @tparam table params tensors, or groups `{ params =, lr =, ... }`
-- @tparam ?table options `lr` (required), `momentum` (0), `weight_decay` (0), `clip` (none), `ema` (none)
-- @treturn optimizer
function M.sgd(params, given)
  local self = new(sgd_class, "sgd", { "velocity" },
    { lr = options.REQUIRED, momentum = 0, weight_decay = 0, clip = options.OPTIONAL, ema = options.OPTIONAL },
    params, given)
  for _, group in ipairs(self.groups) do
    if (group.momentum or self.momentum) ~= 0 then
      for _, entry in ipairs(group.entries) do entry.velocity = zeros_like(entry.tensor) end
    end
  end
  return self
end

return M
