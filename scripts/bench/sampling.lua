-- Sampling one chain: 50 steps of the flow with the model of `blocks` blocks and random weights, as sample.lua does it.
local mf = require "moonfold"
local stopwatch = require "moonfold.stopwatch"

local STEPS = 50

return function(o, report)
  local model = o.measure.fill(mf.models.flash_ipa { blocks = o.blocks, node = o.node, neighbours = o.neighbours }, 0.05)
  local flow = mf.flow.se3 { profile = "protein" }
  for _, pack in ipairs(o.measure.packs({ 128, 512 })) do
    local name, list = unpack(pack)
    local function draw()
      for _, structure in mf.sample(model, flow, { lengths = list, steps = STEPS, device = o.device }) do
        assert(structure)
      end
    end
    local seconds = stopwatch.median(math.min(o.repeats, 5), draw, o.device)
    report { "sampling", name, "steps", STEPS, "seconds", seconds, "ms/step", seconds / STEPS * 1e3 }
  end
end
