-- Squared errors and cross entropies on a GPU against the CPU.
local mf = require "moonfold"
local agree = require "spec.support.agree"
local support = require "spec.support"

describe("losses on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function normal(seed, ...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end

  for _, shape in ipairs { { 0, 3 }, { 1, 1 }, { 5 }, { 33, 3 }, { 7, 5, 3 }, { 6, 2, 4 }, { 3, 0 }, { 2, 1537 }, { 1, 70001 } } do
    it("squares the errors of " .. table.concat(shape, "x"), function()
      local a, b = normal(1, unpack(shape)), normal(2, unpack(shape))
      for first = 0, #shape do
        local weight = first > 0 and normal(3, unpack(shape, 1, first)) or nil
        agree(device, function(u, v) return u:squared_error(v, weight and weight:to(u:device()):to(u:dtype())) end, { a, b },
          { gradients = true })
      end
    end)
  end

  for _, shape in ipairs { { 0, 3 }, { 1, 1 }, { 33, 5 }, { 3, 1025 }, { 2, 66001 } } do
    it("takes the cross entropy of " .. table.concat(shape, "x"), function()
      local x = normal(1, unpack(shape)) * 5
      for _, dtype in ipairs { "int32", "int64" } do
        local target = (mf.rand(shape[1], { rng = mf.rng(3) }) * shape[2]):floor():to(dtype)
        agree(device, function(a) return a:cross_entropy(target:to(a:device())) end, { x }, { gradients = true })
      end
    end)
  end

  it("raises a target out of range when the device is waited for", function()
    local x, target = mf.zeros(3, 4):to(device), mf.tensor({ 0, 4, 1 }, { dtype = "int32" }):to(device)
    local ok, message = pcall(function() return x:cross_entropy(target):totable() end)
    assert.is_false(ok)
    assert.truthy(tostring(message):find("cross_entropy", 1, true))
    assert.truthy(tostring(message):find("4", 1, true))
    support.close(x:cross_entropy(mf.arange(3):to(device)):to "cpu", mf.full({ 3 }, math.log(4)), 1e-6)
  end)
end)
