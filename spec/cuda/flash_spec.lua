--- The 16-bit attention kernels of a GPU: every pair of widths they are made for and the general one, both ways to sum dq,
-- tails of every kind. At most twice (gradients three times) as far from float64 as the CPU in the same precision.
local common = require "spec.support"
local support = require "spec.support.attention"

describe("16-bit attention on a GPU #gpu", function()
  local device = common.cuda()
  if not device then return end

  local function compare(lengths, heads, dqk, dv, precision, masked)
    support.agrees(device, { lengths = lengths, heads = heads, dqk = dqk, dv = dv, precision = precision, masked = masked and 5 })
  end

  -- at, below and beyond each pair; odd widths; 16 x 16 products with a half left over
  for _, widths in ipairs { { 1, 1 }, { 64, 64 }, { 65, 40 }, { 96, 128 }, { 158, 228 }, { 160, 232 }, { 206, 264 },
    { 256, 250 }, { 257, 31 }, { 31, 257 }, { 384, 512 } } do
    it(("agrees for widths %d and %d"):format(widths[1], widths[2]), function()
      compare({ 40, 0, 33 }, 1, widths[1], widths[2], "fp16")
    end)
  end
  it("agrees in bf16", function()
    compare({ 70 }, 2, 158, 228, "bf16")
    compare({ 70 }, 1, 30, 300, "bf16")
  end)
  it("agrees for sequences that end at, before and after a tile, with keys masked", function()
    compare({ 128, 1, 129, 64, 65, 127 }, 1, 33, 24, "fp16", true)
    compare({ 17, 130 }, 2, 158, 228, "fp16", true)
    compare({ 5, 131 }, 1, 270, 300, "fp16", true)
  end)
  it("agrees for many short sequences, some of them empty", function()
    local lengths = {}
    for i = 1, 70 do lengths[i] = i * 7 % 5 end
    compare(lengths, 2, 30, 20, "fp16")
  end)
  it("agrees for a length that fills the device", function()
    local n = common.emulated() and 150 or 2049
    compare({ n, n }, 8, 30, 40, "fp16", true)
    if not common.emulated() then compare({ 1000, 999 }, 8, 158, 228, "fp16") end
  end)
end)
