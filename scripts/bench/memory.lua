-- Peak bytes of a whole training step (model, flow, loss, backward, optimizer) against length, and what the null device
-- predicts for the same step without running it. On a GPU the default model, up to the length that no longer fits.
local mf = require "moonfold"

local function small()
  return mf.models.denoiser {
    node = 64, edge = 32, hidden = 16, heads = 4, query_points = 4, value_points = 6, blocks = 2, neighbours = 10,
    transformer_heads = 4, transformer_layers = 1, torsions = "protein",
  }
end
local function default(o)
  return mf.models.denoiser { node = o.node, blocks = o.blocks, neighbours = o.neighbours, torsions = "protein" }
end

local function step_bytes(o, length, device)
  mf.seed(1)
  local model = (o.gpu and default(o) or small()):to(device)
  local flow = mf.flow.se3 { profile = "protein" }
  local optimizer = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1 })
  local function step()
    mf.scope(function()
      local walk = mf.randn(length, 3)
      local batch = {
        packing = mf.packing { length }, translations = (walk / walk:norm(2, true) * 3.8):cumsum(1):to(device),
        rotations = mf.random.rotations(length):to(device), torsions = mf.randn(length, 1, 2):to(device), times = { 0.1 },
      }
      local noisy = flow:corrupt(batch)
      optimizer:step((flow:loss(model(noisy), noisy)))
    end)
  end
  step()                       -- the optimizer's moments are made by the first
  collectgarbage()
  collectgarbage()
  mf.reset_peak(device)
  step()
  return mf.memory(device).peak
end

return function(o, report)
  local last
  local lengths = o.gpu and { 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072 } or { 256, 512, 1024, 2048 }
  for _, length in ipairs(o.lengths or lengths) do
    local fits, peak = pcall(step_bytes, o, length, o.device)
    collectgarbage()
    collectgarbage()
    if not fits then
      io.stderr:write(("bench: a training step at L=%d: %s\n"):format(length, tostring(peak)))
      break
    end
    local planned = step_bytes(o, length, "null")
    report { "memory", ("training step L=%d"):format(length), "peak_MB", peak / 1e6, "null_MB", planned / 1e6,
      "null/peak", planned / peak, "growth", last and last[1] * 2 == length and peak / last[2] or "-" }
    last = { length, peak }
  end
end
