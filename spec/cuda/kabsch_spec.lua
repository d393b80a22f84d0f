local mf = require "moonfold"
local agree = require "spec.support.agree"
local support = require "spec.support"

local g = mf.geometry

describe("kabsch on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function normal(seed, ...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end

  for _, lengths in ipairs { { 4 }, { 33, 5, 130 }, { 300, 7 } } do
    it("superposes sequences of " .. table.concat(lengths, ", "), function()
      local packing = mf.packing(lengths)
      local n = packing:total()
      local fixed = normal(1, n, 3) * 10
      local moving = fixed + normal(2, n, 3) * 0.5 + 30
      agree(device, function(p, q) return g.kabsch(p, q, nil, packing) end, { moving, fixed })
      agree(device, function(p, q, w) return g.kabsch(p, q, w, packing) end, { moving, fixed, (normal(3, n) + 1):clamp(0, nil) })
    end)
  end

  it("takes points on a line, one point and none", function()
    local packing = mf.packing { 3, 1, 0, 2 }
    local double = { dtype = "float64" }
    local line = mf.tensor({ { 0, 0, 0 }, { 1, 0, 0 }, { 2, 0, 0 }, { 5, 5, 5 }, { 1, 2, 3 }, { 0 / 0, 0, 0 } }, double)
    local fixed = mf.tensor({ { 0, 0, 0 }, { 0, 1, 0 }, { 0, 2, 0 }, { 1, 2, 3 }, { 0, 0, 0 }, { 0, 0, 0 } }, double)
    local weight = mf.tensor({ 1, 1, 1, 1, 0, 0 }, double)
    local function identities(n) return mf.eye(3, double):unsqueeze(1):expand(n, 3, 3):contiguous() end
    local R, t, rmsd = g.kabsch(line:to(device), fixed:to(device), weight:to(device), packing)
    local moved = g.apply(R:segment_expand(packing), t:segment_expand(packing), line:to(device)):to "cpu"
    support.close(moved:narrow(1, 1, 4), fixed:narrow(1, 1, 4), 1e-14)
    support.close(R:matmul(R:transpose(2, 3)):to "cpu", identities(4), 1e-14)
    assert.is_true(rmsd:max(1):item() < 1e-14)
    support.close(R:narrow(1, 3, 2):to "cpu", identities(2), 0)
  end)
end)
