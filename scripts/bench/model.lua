-- The FlashIPA model at its default widths: forward; forward and backward (what the peers' bench calls a training step); a whole
-- step with clipping and AdamW. Then the same with dense pairs (mode orig_2d_bias) where they fit.
local mf = require "moonfold"

local DENSE_LIMIT = 1.5e6    -- pairs

return function(o, report)
  local measure = o.measure
  local ms = measure.ms

  local function one(name, model, optimizer, pack)
    local call = measure.call(pack)
    local function forward(x)
      local out = model(x)
      return out.translations, out.rotations
    end
    local function both(x)
      local loss = measure.loss(model, x)
      loss:backward()
      measure.clear(model)
      return loss:detach()
    end
    local function step(x)
      local loss = measure.loss(model, x)
      optimizer:step(loss)
      return loss:detach()
    end
    local f, fg = mf.no_grad(measure.try, name, forward, call), mf.no_grad(measure.graph, name, forward, call)
    local fb = measure.try(name, both, call)
    local ok, peak = pcall(measure.peak, both, call)
    local fbg = measure.graph(name, both, call)
    local s, sg = measure.try(name, step, call), measure.graph(name, step, call)
    local fastest = type(sg) == "number" and sg or s
    local residues = type(fastest) == "number" and call.packing:total() / fastest or "-"
    local megabytes = ok and peak / 1e6 or "-"
    if o.gpu then
      report { "model", name, "forward_ms", ms(f), "graph_ms", ms(fg), "both_ms", ms(fb), "both_graph_ms", ms(fbg),
        "step_ms", ms(s), "step_graph_ms", ms(sg), "residues/s", residues, "peak_MB", megabytes }
    else
      report { "model", name, "forward_ms", ms(f), "both_ms", ms(fb), "step_ms", ms(s), "residues/s", residues,
        "peak_MB", megabytes }
    end
  end

  local function all(label, mode, packs)
    local built = mf.models.flash_ipa { mode = mode, blocks = o.blocks, node = o.node, neighbours = o.neighbours }
    local model = measure.fill(built, 0.3)
    local optimizer = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1 })
    for _, pack in ipairs(packs) do
      local name, list = unpack(pack)
      if mode ~= "orig_2d_bias" or #list * list[1] ^ 2 <= DENSE_LIMIT then
        mf.scope(one, ("%s %s"):format(label, name), model, optimizer, list)
      end
    end
  end

  local packs = measure.packs(o.gpu and { 128, 512, 2048, 8192 } or { 256, 512, 1024, 2048 }, { "39x512", "28x128" })
  all("FlashIPA", "flash_1d_bias", packs)
  collectgarbage()
  if o.dense then all("dense IPA", "orig_2d_bias", packs) end
end
