--- What an optimizer's step reads and writes on the device: norm, clip scale, counts, learning rates (moonfold.h).
--
-- A step changes nothing on the host, so it can be captured in a graph; the host writes what a schedule says when it has changed
-- and reads the counts when someone asks.
-- @module moonfold.optim.control
local ffi = require "ffi"
local F = require "moonfold.ffi"
local make = require "moonfold.make"

local C, check = F.C, F.check

local numbers = ffi.typeof("double[?]")
local NORM, SCALE, STEPS, SKIPPED = C.MF_CONTROL_NORM, C.MF_CONTROL_SCALE, C.MF_CONTROL_STEPS, C.MF_CONTROL_SKIPPED
local CLIP, RATE = C.MF_CONTROL_CLIP, C.MF_CONTROL_RATE

local Control = {}
Control.__index = Control

--- Writes the largest norm and the learning rates of the groups, when they have changed.
-- @tparam number clip
-- @tparam table rates
function Control:set(clip, rates)
  local changed = not self.written
  self.written = self.written or {}
  for i = 0, #rates do
    local value = i == 0 and clip or rates[i]
    if self.written[i] ~= value then changed = true end
    self.written[i], self.settings[i] = value, value
  end
  if changed then check(C.mf_tensor_write(self.settings_part, self.settings, 8 * (#rates + 1))) end
end

--- Writes what a step writes.
function Control:begin(norm, scale, steps, skipped)
  local head = self.head
  head[NORM], head[SCALE], head[STEPS], head[SKIPPED] = norm, scale, steps, skipped
  check(C.mf_tensor_write(self.head_part, head, 8 * CLIP))
end

--- Waits for the device and reads what the last step wrote. The null device has no values: there norms are 1 and every step counts.
-- @treturn number norm
-- @treturn number steps
-- @treturn number skipped
function Control:read()
  local head = self.head
  if self.null then return 1, self.steps_on_null, 0 end
  check(C.mf_tensor_read(head, 8 * CLIP, self.head_part))
  return head[NORM], head[STEPS], head[SKIPPED]
end

--- The norm of these gradients, the scale and the counts, on the device.
-- @tparam cdata gradients `mf_tensor *[]`
-- @tparam number count
function Control:norm(gradients, count)
  check(C.mf_optim_norm(self.tensor, gradients, count))
  self.steps_on_null = self.steps_on_null + 1
end

--- The norm as a tensor of one element.
function Control:norm_tensor() return self.tensor:narrow(1, NORM + 1, 1):clone() end

--- A control tensor.
-- @tparam string device
-- @tparam number groups
-- @treturn table
return function(device, groups)
  local tensor = make.zeros(RATE + groups, { dtype = "float64", device = device }):keep()
  return setmetatable({
    device = device, tensor = tensor, null = device == "null", steps_on_null = 0,
    head = numbers(CLIP), head_part = tensor:narrow(1, 1, CLIP):keep(),
    settings = numbers(groups + 1), settings_part = tensor:narrow(1, CLIP + 1, groups + 1):keep(),
  }, Control)
end
