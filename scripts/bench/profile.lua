-- Where a training step's time goes on a GPU, or with mode=layer one IPA layer's, kernel by kernel, beside what the device's peak
-- rates allow; then the kernels' sum against the whole step as a graph: what is left over is gaps between kernels.
local mf = require "moonfold"

return function(o, report)
  if not o.gpu then error("bench: the profile case needs device=cuda", 0) end
  local measure = o.measure
  local model, optimizer, layer
  if o.mode == "layer" then
    layer = measure.fill(mf.nn.ipa(measure.widths), 1)
  else
    local built = mf.models.flash_ipa { mode = o.mode, blocks = o.blocks, node = o.node, neighbours = o.neighbours }
    model = measure.fill(built, 0.3)
    optimizer = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1 })
  end

  local function one(name, pack)
    local call, cotangent
    if layer then call, cotangent = measure.layer_call(pack) else call = measure.call(pack) end
    local function step(x)
      if layer then return measure.layer_both(layer, x, cotangent) end
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
