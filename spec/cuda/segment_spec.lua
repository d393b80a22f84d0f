-- Sums over packed sequences and values repeated for their residues, on a GPU against the CPU.
local mf = require "moonfold"
local agree = require "spec.support.agree"
local support = require "spec.support"

describe("segments on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function normal(...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(5) }) end
  local many = {}
  for i = 1, 100 do many[i] = i % 7 end

  for name, lengths in pairs { one = { 33 }, some = { 5, 0, 1, 31, 70 }, many = many, long = { 66001, 3 } } do
    it("sums and repeats " .. name, function()
      local packing = mf.packing(lengths)
      local n, count = packing:total(), packing:count()
      for _, rest in ipairs { {}, { 3 }, { 8 }, { 2, 5 }, { 36 } } do
        if n * (rest[1] or 1) < 200000 then
          agree(device, function(x) return x:segment_sum(packing) end, { normal(n, unpack(rest)) }, { gradients = true })
          agree(device, function(x) return x:segment_expand(packing) end, { normal(count, unpack(rest)) }, { gradients = true })
        end
      end
    end)
  end

  it("does so for every type", function()
    local packing = mf.packing { 4, 0, 9 }
    for _, dtype in ipairs { "float16", "bfloat16", "int32", "int64", "bool" } do
      for _, width in ipairs { 1, 3, 8 } do
        local x, y = (normal(13, width) * 3):floor():to(dtype), (normal(3, width) * 3):floor():to(dtype)
        support.close(x:to(device):segment_sum(packing):to "cpu", x:segment_sum(packing), 0, dtype)
        support.close(y:to(device):segment_expand(packing):to "cpu", y:segment_expand(packing), 0, dtype)
      end
    end
  end)

  it("takes packings of nothing", function()
    local none, empty = mf.packing {}, mf.packing { 0, 0 }
    assert.equal(0, mf.zeros(0, 3):to(device):segment_sum(none):count())
    support.close(mf.zeros(0, 3):to(device):segment_sum(empty):to "cpu", mf.zeros(2, 3), 0)
    assert.equal(0, mf.zeros(2, 3):to(device):segment_expand(empty):count())
  end)
end)
