--- The 16-bit attention kernels of a GPU: every pair of widths they are made for and the general one, both ways to sum dq,
-- tails of every kind. At most twice (gradients three times) as far from float64 as the CPU in the same precision.
local mf = require "moonfold"
local common = require "spec.support"
local support = require "spec.support.attention"
local normal, with_gradients, as_good_as = support.normal, support.with_gradients, support.as_good_as

describe("16-bit attention on a GPU #gpu", function()
  local device = common.cuda()
  if not device then return end

  local function compare(lengths, heads, dqk, dv, precision, masked)
    local packing = mf.packing(lengths)
    local n = packing:total()
    local bias = normal({ n, heads }, 4, "float32")
    if masked then bias = bias:masked_fill(mf.arange(n):float():unsqueeze(2):expand(n, heads):gt(n - 5), -math.huge) end
    local inputs = { normal({ n, heads, dqk }, 1, "float32") / math.sqrt(dqk), normal({ n, heads, dqk }, 2, "float32"),
      normal({ n, heads, dv }, 3, "float32") }
    local g = normal({ n, heads, dv }, 5, "float32")
    local function attention(how, b) return function(q, k, v) return mf.attention(q, k, v, b, packing, how) end end
    local exact = with_gradients(attention("exact", bias:double()), support.doubled(inputs), { g:double() })
    local cpu = with_gradients(attention(precision, bias), inputs, { g })
    local function mine() return with_gradients(attention(precision, bias:to(device)), inputs, { g }, device) end
    as_good_as(cpu, mine(), exact, 1, 1e-6)
    mf.deterministic(true, function()
      local fixed, again = mine(), mine()
      as_good_as(cpu, fixed, exact, 1, 1e-6)
      for i, x in ipairs(fixed) do assert.equal(x:bytes(), again[i]:bytes()) end
    end)
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
