--- Optimizers: one fused pass a parameter, clipping by the global norm, state that resumes bit for bit.
--
--     local opt = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1.0 })
--     opt:step(loss)        -- backward, clip, update, gradients freed
--     opt.lr = 5e-5         -- a schedule sets the field
--
-- @module moonfold.optim
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"
local options = require "moonfold.options"
local make = require "moonfold.make"

local C, out, check, is_tensor = F.C, F.out, F.check, F.is_tensor

local M = {}

local norm_box = ffi.new("double[1]")
local adam_box = ffi.new("mf_adam_params")
local gradients_box = ffi.typeof("mf_tensor *[?]")

-- A tensor of zeros like x, which no scope frees.
local function zeros_like(x)
  return make.zeros(x:shape(), { dtype = x:dtype(), device = x:device() }):keep()
end

-- Tensors with the names that their state is stored under: an array counts, a table of names is taken in sorted order.
local function named(name, params)
  if type(params) ~= "table" then T.bad_argument(name, 1, "a table of tensors", params) end
  local list = {}
  for _, key in ipairs(options.sorted_keys(params)) do
    local x = params[key]
    if not is_tensor(x) then fail("%s: parameter '%s' must be a tensor, got %s", name, tostring(key), T.kind(x)) end
    list[#list + 1] = { name = tostring(key), tensor = x }
  end
  return list
end

-- Groups: { { params = ..., lr = ... }, ... }, or one group of all.
local function grouped(name, params, defaults)
  local groups
  if type(params) == "table" and type(params[1]) == "table" and params[1].params then
    groups = {}
    local known = { params = options.REQUIRED }
    for key in pairs(defaults) do known[key] = options.OPTIONAL end
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
  local count = 0
  for _, group in ipairs(groups) do count = count + #group.entries end
  if count == 0 then fail("%s: there are no parameters", name) end
  return groups
end

local Optimizer = {}
Optimizer.__index = Optimizer

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

-- The global norm; gradients may live on several devices, and each device reduces its own.
local function global_norm(list)
  local by_device, sum = {}, 0
  for _, item in ipairs(list) do
    local device = C.mf_tensor_device(item.gradient)
    by_device[device] = by_device[device] or {}
    table.insert(by_device[device], item.gradient)
  end
  for _, device in ipairs(options.sorted_keys(by_device)) do
    local gradients = by_device[device]
    local box = gradients_box(#gradients)
    for i, gradient in ipairs(gradients) do box[i - 1] = gradient end
    check(C.mf_grad_norm(norm_box, box, #gradients))
    sum = sum + norm_box[0] * norm_box[0]
  end
  return math.sqrt(sum)
end

--- Backward (when a loss is given), clip by the global norm, update, forget the gradients.
-- A gradient norm that is not finite skips the update; `opt.skipped` counts those.
-- @tparam ?tensor loss
-- @treturn number the norm of the gradient before clipping
function Optimizer:step(loss)
  if loss ~= nil then T.tensor_argument(self.name, 1, loss):backward() end
  local list = with_gradients(self)
  if #list == 0 then fail("%s: no parameter has a gradient; call backward first, or give the loss to step", self.name) end
  local norm = global_norm(list)
  self.norm = norm
  if norm ~= norm or norm == math.huge then
    self.skipped = self.skipped + 1
  else
    self.steps = self.steps + 1
    local clip = self.clip
    local scale = clip and norm > clip and clip / norm or 1
    for _, item in ipairs(list) do self:update(item.entry, item.gradient, item.group, scale) end
  end
  self:zero_grad()
  for _, item in ipairs(list) do C.mf_tensor_drop(item.gradient) end  -- not when the collector comes by
  return norm
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
  self.steps, self.skipped = tonumber(state.steps) or 0, tonumber(state.skipped) or 0
  if state.lr then self.lr = tonumber(state.lr) end
end

function Optimizer:__tostring()
  local count = 0
  for _, group in ipairs(self.groups) do count = count + #group.entries end
  return ("%s: %d tensors, lr %g, %d steps, %d skipped"):format(self.name, count, self.lr, self.steps, self.skipped)
end

local function new(class, name, slots, defaults, params, given)
  local self = options(name, defaults, given)
  self.groups = grouped(name, params, defaults)
  self.name, self.slots, self.steps, self.skipped = name, slots, 0, 0
  return setmetatable(self, class)
end

local Adam = setmetatable({ __tostring = Optimizer.__tostring }, { __index = Optimizer })
Adam.__index = Adam

function Adam:update(entry, gradient, group, scale)
  local betas = group.betas or self.betas
  adam_box.lr = group.lr or self.lr
  adam_box.beta1, adam_box.beta2 = betas[1], betas[2]
  adam_box.epsilon = group.eps or self.eps
  adam_box.weight_decay = group.weight_decay or self.weight_decay
  adam_box.scale, adam_box.step, adam_box.decoupled = scale, self.steps, self.decoupled
  check(C.mf_adam_step(entry.tensor, entry.m, entry.v, gradient, adam_box))
end

local function adam(name, decoupled, defaults, params, given)
  local self = new(Adam, name, { "m", "v" }, defaults, params, given)
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
-- @tparam ?table options `lr` (1e-3), `betas` ({ 0.9, 0.999 }), `eps` (1e-8), `weight_decay` (0.01), `clip` (none)
-- @treturn optimizer
-- @usage local opt = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1.0 })
function M.adamw(params, given)
  return adam("adamw", 1, { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0.01, clip = options.OPTIONAL },
    params, given)
end

--- Adam: weight decay, if any, joins the gradient.
-- @tparam table params tensors, or groups `{ params =, lr =, ... }`
-- @tparam ?table options `lr` (1e-3), `betas` ({ 0.9, 0.999 }), `eps` (1e-8), `weight_decay` (0), `clip` (none)
-- @treturn optimizer
function M.adam(params, given)
  return adam("adam", 0, { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 0, clip = options.OPTIONAL },
    params, given)
end

local Sgd = setmetatable({ __tostring = Optimizer.__tostring }, { __index = Optimizer })
Sgd.__index = Sgd

function Sgd:update(entry, gradient, group, scale)
  if scale ~= 1 then gradient:mul_(scale) end
  check(C.mf_sgd_step(entry.tensor, entry.velocity, gradient, group.lr or self.lr, group.momentum or self.momentum,
    group.weight_decay or self.weight_decay))
end

--- Stochastic gradient descent, with momentum if asked.
-- @tparam table params tensors, or groups `{ params =, lr =, ... }`
-- @tparam ?table options `lr` (required), `momentum` (0), `weight_decay` (0), `clip` (none)
-- @treturn optimizer
function M.sgd(params, given)
  local self = new(Sgd, "sgd", { "velocity" },
    { lr = options.REQUIRED, momentum = 0, weight_decay = 0, clip = options.OPTIONAL }, params, given)
  for _, group in ipairs(self.groups) do
    if (group.momentum or self.momentum) ~= 0 then
      for _, entry in ipairs(group.entries) do entry.velocity = zeros_like(entry.tensor) end
    end
  end
  return self
end

local Average = {}
Average.__index = Average

--- Running averages of parameters.
-- @tparam table params tensors
-- @tparam[opt=0.999] number decay
-- @treturn average with `update()`, `swap()`, `state()`, `load(state)`
-- @usage local average = mf.optim.ema(model:parameters(), 0.999)
function M.ema(params, decay)
  decay = T.number_argument("ema", 2, decay, 0.999)
  if not (decay >= 0 and decay <= 1) then fail("ema: the decay must lie in 0 .. 1, got %g", decay) end
  local entries = named("ema", params)
  for _, entry in ipairs(entries) do entry.average = zeros_like(entry.tensor):copy_(entry.tensor) end
  return setmetatable({ entries = entries, decay = decay }, Average)
end

--- average = decay average + (1 - decay) parameter.
function Average:update()
  for _, entry in ipairs(self.entries) do check(C.mf_ema_step(entry.average, entry.tensor, self.decay)) end
end

--- Exchanges parameters and averages: once to sample with the averages, once more to go on training.
function Average:swap()
  local before = C.mf_grad_enable(F.ctx, 0)
  local ok, message = pcall(function()
    for _, entry in ipairs(self.entries) do
      local held = entry.tensor:clone()
      entry.tensor:copy_(entry.average)
      entry.average:copy_(held)
    end
  end)
  C.mf_grad_enable(F.ctx, before)
  if not ok then error(message, 0) end
end

--- Copies of the averages by name.
-- @treturn table
function Average:state()
  local state = {}
  for _, entry in ipairs(self.entries) do state[entry.name] = entry.average:clone() end
  return state
end

--- Takes averages back.
-- @tparam table state
function Average:load(state)
  for _, entry in ipairs(self.entries) do
    if not is_tensor(state[entry.name]) then fail("ema: the state has no '%s'", entry.name) end
  end
  for _, entry in ipairs(self.entries) do entry.average:copy_(state[entry.name]) end
end

return M
