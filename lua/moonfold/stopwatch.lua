--- Timing for benchmarks: medians over runs, after warming up.
-- @module moonfold.stopwatch
local mf = require "moonfold"
local C = require("moonfold.ffi").C

local M = {}

local SHORT, MANY = 0.01, 50    -- seconds; calls between two looks at the clock

--- The middle one of some numbers, the lower of two; sorts them.
-- @tparam table numbers
-- @treturn ?number nil of none
function M.middle(numbers)
  table.sort(numbers)
  return numbers[math.ceil(#numbers / 2)]
end

-- Seconds for each of `calls` calls on a device that works behind the program.
local function each(device, calls, f)
  mf.synchronize(device)
  local began = C.mf_clock()
  for _ = 1, calls do mf.scope(f) end
  mf.synchronize(device)
  return (C.mf_clock() - began) / calls
end

--- The median time of a function. On a GPU short functions are called several times between two looks at the clock, so that waiting
-- for the device is not measured, and three calls warm up: with mf.graph the first runs, the second captures, the third replays.
-- @tparam number repeats timed runs; one more warms up
-- @tparam function f what to time; tensors it makes are freed after each run
-- @tparam[opt="cpu"] string device what to wait for
-- @treturn number seconds
function M.median(repeats, f, device)
  local times = {}
  if device and device:sub(1, 4) == "cuda" then
    for _ = 1, 3 do mf.scope(f) end
    local calls = math.max(1, math.min(MANY, math.ceil(SHORT / each(device, 1, f))))
    for i = 1, repeats do
      collectgarbage()
      times[i] = each(device, calls, f)
    end
    return M.middle(times)
  end
  for i = 0, repeats do
    collectgarbage()
    local began = C.mf_clock()
    mf.scope(f)
    times[i] = C.mf_clock() - began
  end
  return M.middle(times)
end

return M
