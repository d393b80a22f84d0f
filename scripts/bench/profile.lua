-- Where a training step's time goes on a GPU, kernel by kernel, beside what the device's peak rates allow; then the kernels' sum
-- against the whole step as a graph: what is left over is gaps between kernels.
local mf = require "moonfold"

return function(o, report)
  if not o.gpu then error("bench: the profile case needs device=cuda", 0) end
  local measure = o.measure
  local built = mf.models.flash_ipa { mode = o.mode, blocks = o.blocks, node = o.node, neighbours = o.neighbours }
  local model = measure.fill(built, 0.3)
  local optimizer = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1 })

  local function one(name, pack)
    local call = measure.call(pack)
    local function step(x)
      local loss = measure.loss(model, x)
      optimizer:step(loss)
      return loss:detach()
    end
    for _ = 1, 2 do mf.scope(step, call) end
    local profile = mf.profile(function() mf.scope(step, call) end)
    print(("\n%s, %s"):format(o.mode, name))
    print(profile)
    local bound = 0
    for _, row in ipairs(profile) do bound = bound + row.bound end
    local whole = measure.graph(name, step, call)
    report { "profile", name, "kernels", profile.calls, "kernels_ms", profile.seconds * 1e3, "bound_ms", bound * 1e3,
      "step_graph_ms", measure.ms(whole), "bound/step", type(whole) == "number" and bound / whole or "-" }
  end

  for _, pack in ipairs(measure.packs({ 512, 8192 })) do mf.scope(one, unpack(pack)) end
end
