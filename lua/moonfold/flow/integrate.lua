--- Sampling: the prior, the plan of network evaluations, one Euler step.
--
-- A plan is a list of { t =, dt =, last = }: the network is asked at t, then the state moves by dt, and at `last` the
-- prediction itself is the sample. Moving by dt takes the share min(1, dt / d) of the way to the predicted clean
-- frame, where d is the time left to the data. (The protein's `compat` takes the full step at its last point
-- and overshoots: x = x_clean - 1.0204 (x - x_clean) for 50 steps.)

local mf = require "moonfold"
local fail = require "moonfold.fail"
local profiles = require "moonfold.flow.profile"
local segments = require "moonfold.flow.segments"

local M = {}

--- The state at the noise end.
-- @tparam packing packing
-- @tparam table source draws, from flow.streams
-- @tparam[opt="cpu"] string device
-- @treturn tensor translations (N, 3) angstrom
-- @treturn tensor rotations (N, 3, 3), uniform
function M:prior_state(packing, source, device)
  local x = source:normal("start_translations", packing, device) * profiles.NOISE
  if not (self.compat and self.kind == "protein") then
    x = segments.centre(x, segments.weights(nil, packing, device), packing)
  end
  return x, source:rotations("start_rotations", packing, device)
end

--- The times at which the network is asked.
-- @tparam number steps at least 2
-- @tparam ?function schedule schedule(k, steps) -> the profile's own t of evaluation k
-- @treturn table a list of { t, dt, last }
function M:plan(steps, schedule)
  if type(steps) ~= "number" or steps < 2 or steps ~= math.floor(steps) then
    fail("flow:plan: steps must be a whole number of at least 2, got %s", tostring(steps))
  end
  local from, to = self.profile.sample_from, self.profile.sample_to
  local grid = {}
  for k = 1, steps do
    grid[k] = schedule and schedule(k, steps) or from + (to - from) * (k - 1) / (steps - 1)
    if type(grid[k]) ~= "number" or not (grid[k] >= 0 and grid[k] <= 1) then
      fail("flow:plan: the schedule gives t = %s at evaluation %d, expected a number in [0, 1]", tostring(grid[k]), k)
    end
    if k > 1 and (grid[k] - grid[k - 1]) * (to - from) <= 0 then
      fail("flow:plan: the schedule must move toward the data (t = %g): %g follows %g", to, grid[k], grid[k - 1])
    end
  end
  local plan = {}
  for k, t in ipairs(grid) do
    plan[k] = { t = t, dt = math.abs((grid[k + 1] or t) - t), last = k == steps }
  end
  if self.compat and self.kind == "protein" then
    plan[steps].dt, plan[steps].last = plan[steps - 1].dt, false
  end
  return plan
end

-- Which part of the way to the clean frame a step covers: translations, rotations.
local function shares(self, t, dt)
  local protein = self.kind == "protein"
  local left = protein and t or 1 - t
  local along = dt / left
  local turn = self.rotation == "exp" and self.rate * dt or dt / (protein and math.max(t, 0.01) or left)
  if not (self.compat and protein) then along, turn = math.min(1, along), math.min(1, turn) end
  return along, turn
end

-- What moved, where residues are not fixed.
local function held(fixed, x, r, moved, turned)
  if not fixed then return moved, turned end
  local n = x:size(1)
  return mf.where(fixed:reshape(n, 1), x, moved), mf.where(fixed:reshape(n, 1, 1), r, turned)
end

--- One step of a plan.
-- @tparam tensor x translations (N, 3) angstrom
-- @tparam tensor r rotations (N, 3, 3)
-- @tparam table prediction clean `translations` and `rotations`
-- @tparam table at an entry of the plan
-- @tparam table o `packing`, `source` (for the noise of a stochastic flow), `noise_scale`, `fixed` (N) bool or nil: those
--   residues stay, bit for bit, and a sequence that has some is not centred: they hold it in its place
-- @treturn tensor translations
-- @treturn tensor rotations
function M:step(x, r, prediction, at, o)
  if at.last then return held(o.fixed, x, r, prediction.translations, prediction.rotations) end
  local along, turn = shares(self, at.t, at.dt)
  local moved = x + (prediction.translations - x) * along
  local turned = r:matmul(mf.geometry.so3_exp(mf.geometry.so3_log(segments.relative(r, prediction.rotations)) * turn))
  if self.stochastic and o.source then
    local device = x:device()
    local spread = self.g * math.sqrt(at.dt) * (o.noise_scale or self.noise_scale)
    moved = moved + o.source:normal("path_translations", o.packing, device) * (spread * profiles.NOISE)
    local kick = o.source:normal("path_rotations", o.packing, device) * spread
    turned = turned:matmul(mf.geometry.so3_exp(kick))
  end
  if self.kind == "protein" then
    local all = segments.weights(nil, o.packing, x:device())
    local _, loose = segments.anchors(all, o.fixed, o.packing)
    moved = segments.centre(moved, loose, o.packing, all)
  end
  return held(o.fixed, x, r, moved, turned)
end

return M
