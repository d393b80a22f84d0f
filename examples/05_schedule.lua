--- Sampling with a schedule of one's own, and a guidance that pulls the two ends of the chain together.
--
-- A schedule is a function from the number of the step to a time, a guidance a function that may change the network's
-- prediction at every step: both are written here, the sampler stays as it is. Prints the times of three schedules, and the
-- distance of the ends with and without guidance. The network is untrained, and such a one hands back the frames it is
-- given: what comes out is no protein, and is the same for each schedule until guidance acts.
--
--     moonfold examples/05_schedule.lua
local mf = require "moonfold"

mf.threads(1)      -- small tensors: a second core would mostly wait
mf.seed(3)

local LENGTH, STEPS = 60, 12
local model = mf.models.denoiser {
  node = 32, position = 16, time = 16, edge = 16, hidden = 8, heads = 4, blocks = 1, transformer_layers = 1, feat = 16,
}
local flow = mf.flow.se3 { profile = "protein" }

-- The protein's clock runs from noise at t = 1 to data at t = 0; the grid must end where the flow's own does.
local LAST = 0.01
local schedules = {
  { "linear" },
  { "cosine", function(k, steps) return LAST + (1 - LAST) * math.cos(0.5 * math.pi * (k - 1) / (steps - 1)) end },
  { "log", function(k, steps) return LAST ^ ((k - 1) / (steps - 1)) end },
}

-- Moves the predicted ends toward each other until they are `target` angstrom apart; the pull fades along the chain.
local function close_ends(target)
  local ramp = mf.arange(LENGTH, { dtype = "float32" }) / (LENGTH - 1)
  local weight = (ramp * 2 - 1):reshape(LENGTH, 1)      -- -1 at the first residue, 1 at the last
  return function(prediction)
    local x = prediction.translations
    local gap = x:narrow(1, LENGTH, 1) - x:narrow(1, 1, 1)
    local distance = gap:norm():item()
    local shift = gap * (0.5 * (target - distance) / distance)
    return { translations = x + weight * shift, rotations = prediction.rotations, torsions = prediction.torsions }
  end
end

local function ends(o)
  o.length, o.steps = LENGTH, STEPS
  local _, made = mf.sample(model, flow, o)()
  local x = made.translations
  return (x:select(1, LENGTH) - x:select(1, 1)):norm():item()
end

for _, entry in ipairs(schedules) do
  local name, schedule = entry[1], entry[2]
  local times = {}
  for k, at in ipairs(flow:plan(STEPS, schedule)) do times[k] = ("%.2f"):format(at.t) end
  print(("%-7s t = %s"):format(name, table.concat(times, " ")))
  local free = ends { schedule = schedule }
  local guided = ends { schedule = schedule, guidance = close_ends(10) }
  print(("        ends %.1f angstrom apart, guided %.1f"):format(free, guided))
  assert(math.abs(guided - 10) < 0.5, "guidance brings the ends to 10 angstrom")
end
