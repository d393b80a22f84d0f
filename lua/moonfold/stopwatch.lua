--- Timing for benchmarks: medians over runs, after warming up.
-- @module moonfold.stopwatch
local mf = require "moonfold"
local C = require("moonfold.ffi").C

local M = {}

--- The median time of a function.
-- @tparam number repeats timed runs; one more warms up
-- @tparam function f what to time; tensors it makes are freed after each run
-- @treturn number seconds
function M.median(repeats, f)
  local times = {}
  for i = 0, repeats do
    collectgarbage()
    local began = C.mf_clock()
    mf.scope(f)
    times[i] = C.mf_clock() - began
  end
  table.sort(times)
  return times[math.ceil(#times / 2)]
end

return M
