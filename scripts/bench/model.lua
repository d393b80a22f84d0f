-- The six-block FlashIPA model at its default widths: forward, and a training step (forward, backward, optimizer).
local mf = require "moonfold"
local stopwatch = require "moonfold.stopwatch"

return function(o, report)
  local model = mf.models.flash_ipa {}:to(o.device)
  local optimizer = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1 })
  for _, length in ipairs(o.lengths) do
    local walk = mf.randn(length, 3)
    local call = {
      node_embeddings = mf.randn(length, 256):to(o.device), packing = mf.packing { length },
      translations = (walk / walk:norm(2, true) * 3.8):cumsum(1):to(o.device), rotations = mf.random.rotations(length):to(o.device),
    }
    local forward = mf.no_grad(stopwatch.median, o.repeats, function() model(call) end)
    mf.reset_peak(o.device)
    local step = stopwatch.median(o.repeats, function()
      local out = model(call)
      optimizer:step(out.translations:square():mean() + out.rotations:square():mean())
    end)
    report { "model", ("6 blocks L=%d"):format(length), "forward_ms", forward * 1e3, "step_ms", step * 1e3,
      "residues/s", length / step, "peak_MB", mf.memory(o.device).peak / 1e6 }
  end
end
