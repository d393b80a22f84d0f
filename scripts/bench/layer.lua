-- One IPA layer, forward and backward, at the default widths: FlashIPA, dense-pair IPA, and the same mathematics in
-- PyTorch on the same cores (scripts/bench/layer_torch.py). Times and peak bytes against length.
local mf = require "moonfold"
local journal = require "moonfold.journal"
local json = require "moonfold.json"
local stopwatch = require "moonfold.stopwatch"

local DENSE_LIMIT = 6e9     -- bytes of pairs and their gradients; beyond it the dense layer is left out

local function inputs(length)
  local s = mf.randn(length, 256):require_grad()
  local walk = (mf.randn(length, 3) * 0.38):cumsum(1)
  return s, { R = mf.random.rotations(length), t = walk }
end

local function measure(o, layer, make)
  local call, leaves = make()
  local function clear()
    for _, leaf in ipairs(leaves) do leaf:zero_grad() end
    for _, p in ipairs(layer:parameters()) do p:zero_grad() end
  end
  local forward = mf.no_grad(stopwatch.median, o.repeats, function() layer(call) end)
  mf.reset_peak()
  local before = mf.memory().live
  local both = stopwatch.median(o.repeats, function()
    layer(call):sum():backward()
    clear()
  end)
  return forward, both, mf.memory().peak - before
end

local function with_torch(o)
  if not o.torch then return {} end
  local pipe = io.popen(("/usr/bin/python3 '%sbench/layer_torch.py' %d %d %s 2>/dev/null"):format(o.folder, mf.threads(), o.repeats,
    table.concat(o.lengths, " ")))
  local rows = {}
  for line in pipe:lines() do
    local ok, row = pcall(json.decode, line)
    if ok then rows[row.length] = row end
  end
  pipe:close()
  return rows
end

return function(o, report)
  local flash = mf.nn.ipa { dim = 256, edge = 128, heads = 8, hidden = 128, query_points = 8, value_points = 12, rank = 2 }
  local dense = mf.nn.dense_ipa { dim = 256, edge = 128, heads = 8, hidden = 128, query_points = 8, value_points = 12 }
  for _, layer in ipairs { flash, dense } do
    mf.no_grad(function() layer.linear_out.weight:normal_(0, 0.02) end)   -- fresh ones are zero, which a backward could skip
  end
  local torch = with_torch(o)
  local plot = o.plot and io.open(o.plot .. ".csv", "w")
  if plot then plot:write "length,flash_ipa,dense_ipa,pytorch\n" end
  for _, length in ipairs(o.lengths) do
    local packing = mf.packing { length }
    local f, fb, bytes = measure(o, flash, function()
      local s, frames = inputs(length)
      local z1, z2 = mf.randn(length, 2, 128):require_grad(), mf.randn(length, 2, 128):require_grad()
      return { s = s, frames = frames, pair = { z1, z2 }, packing = packing }, { s, z1, z2 }
    end)
    report { "layer", ("FlashIPA L=%d"):format(length), "forward_ms", f * 1e3, "both_ms", fb * 1e3, "peak_MB", bytes / 1e6 }
    local dense_both
    if o.dense and length * length * 128 * 4 * 3 < DENSE_LIMIT then
      local df, dfb, dbytes = measure(o, dense, function()
        local s, frames = inputs(length)
        local z = mf.randn(length * length, 128):require_grad()
        return { s = s, frames = frames, pair = z, packing = packing }, { s, z }
      end)
      dense_both = dfb
      report { "layer", ("dense IPA L=%d"):format(length), "forward_ms", df * 1e3, "both_ms", dfb * 1e3, "peak_MB", dbytes / 1e6 }
    end
    local row = torch[length]
    if row then
      report { "layer", ("PyTorch %s L=%d"):format(row.version, length), "forward_ms", row.forward * 1e3, "both_ms", row.both * 1e3,
        "peak_MB", "-" }
    end
    if plot then
      plot:write(("%d,%g,%s,%s\n"):format(length, fb * 1e3, dense_both and dense_both * 1e3 or "", row and row.both * 1e3 or ""))
    end
  end
  if plot then
    plot:close()
    journal.plot(o.plot .. ".csv", o.plot, {
      x = "length", y = { "flash_ipa", "dense_ipa", "pytorch" }, log = "xy", title = "IPA layer, forward and backward",
      xlabel = "residues", ylabel = "ms", points = true,
    })
    os.remove(o.plot .. ".csv")
  end
end
