--- IPA and FlashIPA at growing length: seconds and bytes of one forward and backward pass.
--
-- The attention of AlphaFold 2 holds L x L pairs, FlashIPA two factors of L. Prints a table with the growth from each
-- length to the next (4 is quadratic, 2 linear) and draws it with gnuplot where that is installed.
--
--     moonfold examples/03_length.lua [folder]     writes length.csv, memory.svg and time.svg there
local mf = require "moonfold"
local nn = mf.nn
local files = require "moonfold.files"
local journal = require "moonfold.journal"
local stopwatch = require "moonfold.stopwatch"

local LENGTHS = { 128, 256, 512, 1024 }

mf.threads(1)      -- on one core the times compare, whatever else the machine does
local options = { dim = 64, edge = 32, heads = 4, hidden = 16, query_points = 4, value_points = 8, init = "default" }

local function inputs(length, pairs_shape)
  local z = mf.randn(pairs_shape)
  return {
    s = mf.randn(length, options.dim), pair = z, packing = mf.packing { length },
    frames = { R = mf.random.rotations(length), t = mf.randn(length, 3) * 2 },
  }
end

-- Seconds of a forward and backward pass (the median of two), and the bytes at its peak beside the parameters.
local function measure(layer, length, pairs_shape)
  local x = inputs(length, pairs_shape)
  local function pass() layer(x):square():sum():backward() end
  local seconds = stopwatch.median(2, pass)
  collectgarbage()
  local before = mf.memory().live
  mf.reset_peak()
  mf.scope(pass)
  -- the pairs, or their factors, are part of what the layer needs
  return seconds, mf.memory().peak - before + x.pair:nbytes()
end

local own_folder = os.tmpname()
os.remove(own_folder)
local folder = files.make_folder(arg[1] or own_folder)
local log = journal.open(folder .. "/length", { "residues", "ipa_mib", "flash_mib", "ipa_seconds", "flash_seconds" })
local dense, flash = nn.dense_ipa(options), nn.ipa(options)
local rows = {}
print "residues       IPA: seconds      MiB (growth)   FlashIPA: seconds      MiB (growth)"
for i, length in ipairs(LENGTHS) do
  local dense_seconds, dense_bytes = measure(dense, length, { length * length, options.edge })
  local flash_seconds, flash_bytes = measure(flash, length, { length, 2, 2, options.edge })
  local row = {
    residues = length, ipa_mib = dense_bytes / 2 ^ 20, flash_mib = flash_bytes / 2 ^ 20,
    ipa_seconds = dense_seconds, flash_seconds = flash_seconds,
  }
  rows[i] = row
  log:write(row)
  local last = rows[i - 1] or row
  print(("%8d  %17.3f %9.1f (%4.1f) %21.3f %8.1f (%4.1f)"):format(length, dense_seconds, row.ipa_mib,
    row.ipa_mib / last.ipa_mib, flash_seconds, row.flash_mib, row.flash_mib / last.flash_mib))
end
log:close()

local drawn = journal.plot(folder .. "/length.csv", folder .. "/memory.svg",
  { x = "residues", y = { "ipa_mib", "flash_mib" }, log = "xy", title = "peak of a training step", ylabel = "MiB" })
  and journal.plot(folder .. "/length.csv", folder .. "/time.svg",
  { x = "residues", y = { "ipa_seconds", "flash_seconds" }, log = "xy", title = "forward and backward", ylabel = "seconds" })
print(drawn and "pictures in " .. folder or "no pictures: gnuplot is not installed")
assert(rows[#rows].flash_mib / rows[#rows - 1].flash_mib < 2.1, "memory of FlashIPA must be linear in the length")
