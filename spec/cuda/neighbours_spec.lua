-- Nearest neighbours, their features and the layer over them on a GPU. Neighbours and bins have the CPU's bits.
local mf = require "moonfold"
local agree = require "spec.support.agree"
local support = require "spec.support"

local g = mf.geometry

local function normal(seed, ...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end

local clouds = {
  ball = function(n) return normal(n, n, 3) * 20 end,
  chain = function(n) return normal(n, n, 3):cumsum(1) * 3.8 end,
  line = function(n) return mf.arange(n):double():unsqueeze(2) * mf.tensor({ { 3.8, 0, 0 } }, { dtype = "float64" }) end,
  spot = function(n) return mf.zeros({ n, 3 }, { dtype = "float64" }) end,
  lattice = function(n) return normal(n, n, 3):mul(2):floor() end,
  far = function(n) return normal(n, n, 3):mul(1e-3) + normal(n + 1, n, 1):sign():mul(1e7) end,
  tiny = function(n) return normal(n, n, 3) * 1e-25 end,
  huge = function(n) return normal(n, n, 3) * 1e19 end,
}

describe("neighbours on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function same(x, mask, k, packing)
    for _, dtype in ipairs { "float64", "float32" } do
      local y = x:to(dtype)
      local want, apart = g.neighbours(y, mask, k, packing)
      local index, distance = g.neighbours(y:to(device), mask and mask:to(device), k, packing)
      support.same_bits(distance:to "cpu", apart, dtype .. " distances")
      support.same_bits(index:to "cpu", want, dtype .. " index")
    end
  end

  for name, cloud in pairs(clouds) do
    it("are the CPU's to the last bit: " .. name, function()
      for _, n in ipairs { 1, 2, 31, 33, support.emulated() and 130 or 5003 } do
        local x, packing = cloud(n), mf.packing { n }
        for _, k in ipairs { 1, 20, 33, 70 } do
          if k <= n then same(x, nil, k, packing) end
        end
      end
    end)
  end

  it("fill up with themselves at k = L", function()
    same(clouds.ball(7), nil, 7, mf.packing { 7 })
    same(clouds.ball(67), nil, 67, mf.packing { 67 })
  end)

  it("stay within their sequence", function()
    local lengths = { 3, 64, 0, 5, 33, 32, 70 }
    local packing = mf.packing(lengths)
    same(normal(1, packing:total(), 3) * 10, nil, 3, packing)
  end)

  it("are the CPU's in packs of thousands, where a warp has two residues", function()
    local lengths = { 1, 2 }
    for i = 3, 130 do lengths[i] = 30 + i % 9 end
    local packing = mf.packing(lengths)
    local n = packing:total()
    assert.is_true(n > 4096)
    same(normal(1, n, 3) * 10, normal(2, n):gt(-1):double(), 1, packing)
    lengths[1], lengths[2] = 33, 40
    packing = mf.packing(lengths)
    n = packing:total()
    same(normal(1, n, 3):mul(2):floor(), nil, 20, packing)
    same(normal(3, n, 3) * 10, normal(2, n):gt(-1):double(), 30, packing)
  end)

  it("leave masked residues out, whatever they hold", function()
    local packing = mf.packing { 40, 33, 5 }
    local x = normal(1, 78, 3) * 10
    local mask = normal(2, 78):gt(0.3):double()
    mask:narrow(1, 74, 5):fill_(0)            -- a sequence without anybody
    mask:narrow(1, 1, 1):fill_(0)             -- the origin of the packed positions
    local bad = mf.where(mask:eq(0):reshape(78, 1), mf.full({ 78, 3 }, 0 / 0, { dtype = "float64" }), x)
    same(bad, mask, 5, packing)
    same(x, mask, 5, packing)
  end)

  it("name a residue whose coordinate is not finite", function()
    local x = normal(1, 9, 3)
    x:select(1, 7):fill_(0 / 0)
    support.error_matches(function()
      local index = g.neighbours(x:to(device), nil, 1, mf.packing { 5, 4 })
      index:to "cpu"
    end, "neighbours: residue 2 of sequence 2 has a coordinate that is not finite", true)
    assert.equal(3, mf.ones(3):to(device):sum():item())      -- and the device goes on
  end)

  it("have bins with the CPU's bits", function()
    local edges = {}
    for b = 0, 21 do edges[b + 1] = 1e-3 + b * (20 - 1e-3) / 21 end
    local x = mf.tensor(edges, { dtype = "float32" })
    local anywhere, nowhere = mf.rand(100, { rng = mf.rng(1) }) * 24, mf.tensor { 0, -1, 1e6, 1e8, 1e9, 0 / 0 }
    x = mf.cat({ x, x * (1 - 1e-7), x * (1 + 1e-7), anywhere, nowhere }, 1)
    for _, bins in ipairs { 1, 2, 5, 22 } do
      for _, y in ipairs { x, x:double() } do
        support.same_bits(g.distogram(y:to(device), 1e-3, 20, bins):to "cpu", g.distogram(y, 1e-3, 20, bins))
      end
    end
    assert.same({ 0, 3, 4 }, g.distogram(mf.zeros({ 0, 3 }, { device = device }), 1, 2, 4):shape())
  end)

  it("have positions embedded as on the CPU", function()
    local index = mf.tensor({ 0, 1, 2, 17, 1000, 20000, 131071, 2000000000, -3 }, { dtype = "int32" })
    for _, width in ipairs { 2, 6, 64, 300 } do
      -- both round the angle in the same steps; a sine may be off by two units of float32, a power by one, which moves a large
      -- angle: up to 20000 an angle of 20000 pi by 2^-8 would show, were powers not the same
      support.close(g.index_embedding(index:to(device), width):to "cpu", g.index_embedding(index, width), 4 * 2 ^ -24)
    end
  end)

  local sizes = {
    { 0, 3, 4, 2, 5 }, { 1, 1, 1, 2, 1 }, { 33, 20, 22, 8, 88 }, { 257, 3, 3, 6, 7 }, { 70, 40, 5, 2, 130 }, { 20, 2, 400, 2, 36 },
  }
  for _, size in ipairs(sizes) do
    local n, k, bins, feat, outputs = unpack(size)
    it(("have a linear layer over them: %d residues, k %d, %d bins, %d features, %d outputs"):format(unpack(size)), function()
      local index = (mf.rand(n, k, { rng = mf.rng(3) }) * 500):floor():int()
      local distance = mf.rand(n, k, { dtype = "float64", rng = mf.rng(4) }) * 24 - 1
      if n > 2 then distance:select(1, 2):fill_(1e6) end
      local function layer(weight, bias)
        local there = weight:device()
        local o = { lo = 1e-3, hi = 20, bins = bins, feat = feat }
        return g.neighbour_linear(index:to(there), distance:to(there), weight, bias, o)
      end
      local weight, bias = normal(1, outputs, k * (bins + feat)), normal(2, outputs)
      local o = { gradients = true, dtypes = { "float32" } }
      agree(device, layer, { weight, bias }, o)
      agree(device, layer, { weight, n = 2 }, o)
      -- positions are embedded in float32 also here: two units of a sine's last place in each of k feat terms of either sign
      support.close(layer(weight:to(device), bias:to(device)):to "cpu", layer(weight, bias), 2 ^ -22)
    end)
  end

  it("refuse more bins than fit shared memory", function()
    local index, distance = mf.zeros(2, 1):int():to(device), mf.ones(2, 1):to(device)
    local weight = mf.zeros(1, 4002):to(device):require_grad()
    local y = g.neighbour_linear(index, distance, weight, nil, { lo = 1e-3, hi = 20, bins = 4000, feat = 2 })
    support.error_matches(function() y:sum():backward() end, "bytes of shared memory", true)
  end)
end)
