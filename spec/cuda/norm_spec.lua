-- Layer norms on a GPU against the CPU: rows of a few lanes, of a warp and of a block; gradients from one block and from many.
local mf = require "moonfold"
local agree = require "spec.support.agree"
local support = require "spec.support"

describe("layer norms on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function normal(seed, ...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end

  local shapes = {
    { 5, 1 }, { 70, 2 }, { 33, 3 }, { 9, 24 }, { 5, 4, 8 }, { 3, 33 }, { 131, 128 }, { 37, 256 },
    { 5, 255 }, { 4, 257 }, { 3, 512 },
    { 3, 1024 }, { 2, 1030 }, { 3, 4100 }, { 4500, 4 }, { 0, 8 }, { 6 },
  }
  for _, shape in ipairs(shapes) do
    local columns, rows = shape[#shape], 1
    for i = 1, #shape - 1 do rows = rows * shape[i] end
    local x, b = normal(1, unpack(shape)), normal(2, unpack(shape))
    local w, c, mask = normal(3, columns), normal(4, columns), normal(5, rows)
    it("agrees over rows of " .. table.concat(shape, "x"), function()
      agree(device, function(t, u, v) return t:layer_norm(u, v) end, { x, w, c }, { gradients = true })
    end)
    it("agrees on sums of rows of " .. table.concat(shape, "x"), function()
      agree(device, function(t, s, u, v) return t:add_layer_norm(s, u, v, 1e-2) end, { x, b, w, c }, { gradients = true })
      local function masked(t, s, u, v) return t:add_layer_norm(s, u, v, 1e-5, mask:to(t:device()):to(t:dtype())) end
      agree(device, masked, { x, b, w, c }, { gradients = true })
    end)
  end

  it("agrees where rows do not begin at a multiple of 16 bytes", function()
    local x, w = normal(1, 7 * 8 + 1), normal(2, 9)
    local function shifted(t, u) return t:narrow(1, 2, 56):reshape(7, 8):layer_norm(u:narrow(1, 2, 8), u:narrow(1, 1, 8)) end
    agree(device, shifted, { x, w }, { gradients = true })
  end)

  it("keeps the digits of rows far from zero", function()
    local x = normal(1, 5, 64) * 0.1 + 1000
    agree(device, function(t, u, v) return t:layer_norm(u, v) end, { x, normal(2, 64), normal(3, 64) }, { gradients = true })
  end)

  it("gives one input's gradient alone", function()
    local x, b, w, c = normal(1, 9, 16), normal(2, 9, 16), normal(3, 16), normal(4, 16)
    local mask = normal(5, 9)
    for which = 1, 4 do
      local inputs = { x, b, w, c }
      local fixed = {}
      for i, t in ipairs(inputs) do fixed[i] = i ~= which and t end
      for _, m in ipairs { false, mask } do
        agree(device, function(leaf)
          local all = {}
          for i = 1, 4 do all[i] = fixed[i] and fixed[i]:to(leaf:device()):to(leaf:dtype()) or leaf end
          return all[1]:add_layer_norm(all[2], all[3], all[4], 1e-5, m and m:to(leaf:device()):to(leaf:dtype()) or nil)
        end, { inputs[which] }, { gradients = true })
      end
    end
  end)
end)
