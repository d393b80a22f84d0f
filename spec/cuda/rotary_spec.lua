-- Rotary positions on a GPU: what agree_spec.lua's cases leave out.
local mf = require "moonfold"
local agree = require "spec.support.agree"
local support = require "spec.support"

local rotary = mf.geometry.rotary

describe("rotary positions #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function normal(seed, ...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end

  it("are the CPU's for long and negative indices", function()
    local at = mf.tensor({ 0, 1, 2, 17, 1000, 20000, 99999, 100000, 131071, 2000000000, -3 }, { dtype = "int32" })
    for _, dim in ipairs { 2, 6, 64, 300 } do
      agree(device, function(x) return rotary(x, at:to(x:device()), dim) end, { normal(dim, at:count(), 3, dim + 4) },
        { gradients = true })
    end
  end)

  it("refuse heads that are wider than the grid of a GPU", function()
    local x = mf.zeros({ 1, 1, 65535 * 256 + 3 }, { device = device })
    support.error_matches(function() rotary(x, mf.zeros(1):int():to(device), 2) end,
      "rotary: width 16776963 is more than the grid of a GPU takes", true)
  end)
end)
