local mf = require "moonfold"
local agree = require "spec.support.agree"
local support = require "spec.support"

local g = mf.geometry

describe("frames on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function normal(seed, ...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end

  -- 1, 8 and 32 lanes a frame, and one more than each takes in one step
  local sizes = {
    { 0, 3 }, { 1, 1 }, { 300, 1 }, { 257, 2 }, { 65, 3 }, { 33, 8 }, { 31, 12 }, { 9, 13 }, { 7, 32 }, { 5, 33 },
    { 3, 97 }, { 4, 0 },
  }
  for _, size in ipairs(sizes) do
    local n, points = unpack(size)
    for _, name in ipairs { "apply", "invert_apply" } do
      it(("%s %d points to each of %d"):format(name, points, n), function()
        local R, t = g.so3_exp(normal(1, n, 3)), normal(2, n, 3) * 5
        agree(device, g[name], { R, t, normal(3, n, points, 3) }, { gradients = points > 0 })
      end)
    end
  end

  it("gives only the gradients that are wanted", function()
    local R, t, x = g.so3_exp(normal(1, 5, 3)), normal(2, 5, 3), normal(3, 5, 4, 3)
    for _, name in ipairs { "apply", "invert_apply" } do
      local function like(y, p) return y:to(p:dtype()):to(p:device()) end
      agree(device, function(p) return g[name](like(R, p), like(t, p), p) end, { x }, { gradients = true })
      agree(device, function(p) return g[name](like(R, p), p, like(x, p)) end, { t }, { gradients = true })
      agree(device, function(p) return g[name](p, like(t, p), like(x, p)) end, { R }, { gradients = true })
    end
  end)

  for _, lengths in ipairs { { 1 }, { 33, 1, 257 }, { 1100, 5 } } do
    it(("the gauge of sequences of " .. table.concat(lengths, ", ")), function()
      local packing = mf.packing(lengths)
      local n = packing:total()
      local R, t = g.so3_exp(normal(1, n, 3)), normal(2, n, 3) * 20
      local mask = normal(3, n):gt(0)
      agree(device, function(a, b) return g.gauge(a, b, nil, packing) end, { R, t })
      agree(device, function(a, b) return g.gauge(a, b, mask:to(a:device()), packing) end, { R, t })
    end)
  end

  it("the gauge of sequences without valid residues is the identity at the origin", function()
    local packing = mf.packing { 2, 0, 3 }
    local R, t = normal(1, 5, 3, 3):to(device), normal(2, 5, 3):to(device)
    local frame, origin = g.gauge(R, t, mf.zeros(5):to(device), packing)
    support.close(frame:to "cpu", mf.eye(3, { dtype = "float64" }):unsqueeze(1):expand(3, 3, 3):contiguous(), 0)
    assert.equal(0, origin:abs():sum():item())
  end)
end)
