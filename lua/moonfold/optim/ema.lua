--- Running averages of parameters, in one pass.
-- @module moonfold.optim.ema
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"
local lists = require "moonfold.optim.lists"
local options = require "moonfold.options"

local C, check, is_tensor = F.C, F.check, F.is_tensor
local named, pointers, zeros_like = lists.named, lists.pointers, lists.zeros_like

local list_box = ffi.new("mf_optim_list")

local Average = {}
Average.__index = Average

local function tensor_of(entry) return entry.tensor end
local function own_average_of(entry) return entry.average end

-- One kernel a device for real types; a 16-bit average takes one each.
local function update_entries(self, entries)
  local by_device = {}
  for _, entry in ipairs(entries) do
    local dtype = entry.tensor:dtype()
    if dtype == "float32" or dtype == "float64" then
      by_device[entry.device] = by_device[entry.device] or {}
      table.insert(by_device[entry.device], entry)
    else
      check(C.mf_ema_step(entry.average, entry.tensor, self.decay))
    end
  end
  for _, device in ipairs(options.sorted_keys(by_device)) do
    local list = by_device[device]
    list_box.count, list_box.decay, list_box.gradients, list_box.m, list_box.v = #list, self.decay, nil, nil, nil
    list_box.parameters = pointers(self.boxes, "parameters", list, tensor_of)
    list_box.averages = pointers(self.boxes, "averages", list, own_average_of)
    check(C.mf_ema_many(list_box))
  end
end

--- average = decay average + (1 - decay) parameter. An optimizer that was given this average as `ema` does it in its own pass.
function Average:update() update_entries(self, self.entries) end

-- The entries that an optimizer's list of items has not updated.
function Average:update_others(items)
  if #items == #self.entries then return end
  local done, rest = {}, {}
  for _, item in ipairs(items) do done[item.entry.averaged] = true end
  for _, entry in ipairs(self.entries) do
    if not done[entry] then rest[#rest + 1] = entry end
  end
  update_entries(self, rest)
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

--- Running averages of parameters.
-- @tparam table params tensors
-- @tparam[opt=0.999] number decay
-- @treturn average with `update()`, `swap()`, `state()`, `load(state)`
-- @usage local average = mf.optim.ema(model:parameters(), 0.999)
local function ema(params, decay)
  decay = T.number_argument("ema", 2, decay, 0.999)
  if not (decay >= 0 and decay <= 1) then fail("ema: the decay must lie in 0 .. 1, got %g", decay) end
  local entries, by_id = named("ema", params), {}
  for _, entry in ipairs(entries) do
    entry.average = zeros_like(entry.tensor):copy_(entry.tensor)
    by_id[entry.tensor:id()] = entry
  end
  return setmetatable({ entries = entries, by_id = by_id, decay = decay, boxes = {} }, Average)
end

--- Whether x is a running average.
local function is_average(x) return type(x) == "table" and getmetatable(x) == Average end

return { ema = ema, is_average = is_average }
