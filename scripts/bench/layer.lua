-- One IPA layer, forward and backward, at the default widths: FlashIPA, dense-pair IPA, and on the CPU the same mathematics in
-- PyTorch on the same cores (scripts/bench/layer_torch.py). Times and peak bytes, above what was there, against length.
local mf = require "moonfold"
local journal = require "moonfold.journal"
local json = require "moonfold.json"

local DENSE_LIMIT = 6e9     -- bytes of pairs and their gradients; beyond it the dense layer is left out

local function with_torch(o, lengths)
  if not o.torch or o.device ~= "cpu" then return {} end
  local pipe = io.popen(("/usr/bin/python3 '%sbench/layer_torch.py' %d %d %s 2>/dev/null"):format(o.folder, mf.threads(), o.repeats,
    table.concat(lengths, " ")))
  local rows = {}
  for line in pipe:lines() do
    local ok, row = pcall(json.decode, line)
    if ok then rows[row.length] = row end
  end
  pipe:close()
  return rows
end

return function(o, report)
  local measure = o.measure
  local lengths = o.lengths or o.gpu and { 128, 256, 512, 1024, 2048, 4096, 8192, 16384 } or { 256, 512, 1024, 2048 }
  local dense = measure.fill(mf.nn.dense_ipa { dim = 256, edge = 128 }, 1)
  local flash = measure.fill(mf.nn.ipa(measure.widths), 1)

  local function one(name, layer, pack, pairs)
    local call, g = measure.layer_call(pack, pairs)
    local function forward(x) return layer(x) end
    local function both(x, cotangent) measure.layer_both(layer, x, cotangent) end
    local f = mf.no_grad(measure.try, name, forward, call)
    local fg = mf.no_grad(measure.graph, name, forward, call)
    local fb = measure.try(name, both, call, g)
    local ok, _, extra = pcall(measure.peak, both, call, g)
    local fbg = measure.graph(name, both, call, g)
    local ms = measure.ms
    local row = { "layer", name, "forward_ms", ms(f), "both_ms", ms(fb), "peak_MB", ok and extra / 1e6 or "-" }
    if o.gpu then row = { "layer", name, "forward_ms", ms(f), "graph_ms", ms(fg), "both_ms", ms(fb), "both_graph_ms", ms(fbg),
      "peak_MB", ok and extra / 1e6 or "-" } end
    report(row)
    return fb
  end

  local torch = with_torch(o, lengths)
  local plot = o.plot and io.open(o.plot .. ".csv", "w")
  if plot then plot:write "length,flash_ipa,dense_ipa,pytorch\n" end
  local function number(seconds) return type(seconds) == "number" and seconds * 1e3 or "" end
  for _, pack in ipairs(measure.packs(lengths, { "39x512" })) do
    local name, list = unpack(pack)
    local length, pairs = list[1], #list * list[1] ^ 2
    local both = mf.scope(one, "FlashIPA " .. name, flash, list, false)
    local dense_both
    if o.dense and pairs * 128 * 4 * 3 < DENSE_LIMIT then dense_both = mf.scope(one, "dense IPA " .. name, dense, list, true) end
    local row = #list == 1 and torch[length]
    if row then
      report { "layer", ("PyTorch %s L=%d"):format(row.version, length), "forward_ms", row.forward * 1e3, "both_ms", row.both * 1e3,
        "peak_MB", "-" }
    end
    if plot and #list == 1 then
      plot:write(("%d,%s,%s,%s\n"):format(length, number(both), number(dense_both), row and row.both * 1e3 or ""))
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
