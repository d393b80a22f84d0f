--- Attention with dense pairs on a GPU: against the quadratic softmax in float64; as good as the naive operator in float32.
local mf = require "moonfold"
local common = require "spec.support"
local relative = require("spec.support.nn").relative
local support = require "spec.support.attention"

local inf = math.huge
local normal, each, floats, quadratic = support.normal, support.each, support.floats, support.quadratic
local with_gradients, as_good_as = support.with_gradients, support.as_good_as

local function leaves_of(packing, h, dqk, dv, dz)
  local n, p = packing:total(), packing:pairs()
  return { normal({ n, h, dqk }, 1) * dqk ^ -0.5, normal({ n, h, dqk }, 2), normal({ n, h, dv }, 3), normal({ n, h }, 4),
    normal({ p, h }, 5), normal({ p, dz }, 6) }, { normal({ n, h, dv }, 7), normal({ n, h, dz }, 8) }
end

describe("pair_attention on a GPU #gpu", function()
  local device = common.cuda()
  if not device then return end

  -- lengths, heads, widths; 8 heads, 128 keys and 32 or 128 channels are done at a time
  local cases = {
    { { 1 }, 3, 3, 4, 5 }, { { 0, 5 }, 3, 16, 1, 32 }, { { 31, 0, 33, 1 }, 9, 7, 5, 33 }, { { 67 }, 8, 20, 12, 64 },
    { { 11, 3 }, 17, 3, 2, 132 }, { { 131 }, 2, 9, 70, 36 }, { { 129, 2 }, 8, 5, 4, 260 }, { { 9 }, 2, 70, 300, 6 },
  }
  for _, case in ipairs(cases) do
    local lengths, h, dqk, dv, dz = unpack(case)
    it(("is the quadratic softmax for lengths %s, %d heads, pair width %d"):format(table.concat(lengths, ","), h, dz), function()
      local packing = mf.packing(lengths)
      local inputs, g = leaves_of(packing, h, dqk, dv, dz)
      local function fused(q, k, v, b, pb, pv) return mf.pair_attention(q, k, v, b, pb, pv, packing) end
      local function naive(q, k, v, b, pb, pv) return quadratic(q, k, v, b, packing, pb, pv) end
      local exact = with_gradients(naive, inputs, g)
      for i, x in ipairs(with_gradients(fused, inputs, g, device)) do
        assert.is_true((x - exact[i]):norm():item() <= 1e-13 * (1 + exact[i]:norm():item()))
      end
      if packing:total() > 1 then
        local singles, singles_g = floats(inputs), floats(g)
        as_good_as(with_gradients(naive, singles, singles_g), with_gradients(fused, singles, singles_g, device), exact, 2, 1e-7)
      end
    end)
  end

  it("takes either kind of pairs alone, or none", function()
    local packing = mf.packing { 9, 12 }
    local inputs = leaves_of(packing, 2, 3, 4, 6)
    local on = each(inputs, function(x) return x:to(device) end)
    local q, k, v, b, pb, pv = unpack(on)
    local out, empty = mf.pair_attention(q, k, v, b, nil, nil, packing)
    assert.is_true(relative(out:to "cpu", quadratic(inputs[1], inputs[2], inputs[3], inputs[4], packing)) < 1e-14)
    assert.equal(0, empty:count())
    out = mf.pair_attention(q, k, v, nil, pb, nil, packing)
    assert.is_true(relative(out:to "cpu", quadratic(inputs[1], inputs[2], inputs[3], nil, packing, inputs[5])) < 1e-14)
    local _, pair_out = mf.pair_attention(q, k, v, nil, nil, pv, packing)
    local _, expected = quadratic(inputs[1], inputs[2], inputs[3], nil, packing, nil, inputs[6])
    assert.is_true(relative(pair_out:to "cpu", expected) < 1e-14)
  end)

  it("differentiates when only one of its results is used", function()
    local packing = mf.packing { 30, 2 }
    local inputs, g = leaves_of(packing, 2, 3, 4, 6)
    for only = 1, 2 do
      local lists = {}
      for i, place in ipairs { "cpu", device } do
        local leaves = each(inputs, function(x) return x:to(place):detach():require_grad() end)
        local q, k, v, b, pb, pv = unpack(leaves)
        local out = select(only, mf.pair_attention(q, k, v, b, pb, pv, packing))
        out:backward(g[only]:to(place))
        lists[i] = leaves
      end
      for i, x in ipairs(lists[1]) do
        local theirs, mine = x:grad(), lists[2][i]:grad()
        assert.equal(theirs == nil, mine == nil)
        if theirs and theirs:norm():item() == 0 then assert.equal(0, mine:norm():item())
        elseif theirs then assert.is_true(relative(mine:to "cpu", theirs) < 1e-13) end
      end
    end
  end)

  it("gives zeros where every key is masked", function()
    local packing = mf.packing { 4, 3 }
    local b = mf.cat({ mf.full({ 4, 2 }, -inf), mf.zeros(3, 2) }, 1)
    local inputs = { normal({ 7, 2, 3 }, 1, "float32"), normal({ 7, 2, 3 }, 2, "float32"), normal({ 7, 2, 3 }, 3, "float32"),
      normal({ 25, 5 }, 4, "float32") }
    local function fused(q, k, v, pv) return mf.pair_attention(q, k, v, b:to(device), nil, pv, packing) end
    local list = with_gradients(fused, inputs, { mf.ones(7, 2, 3), mf.ones(7, 2, 5) }, device)
    for i, x in ipairs(list) do
      assert.equal(0, x:narrow(1, 1, i == 6 and 16 or 4):abs():sum():item())
      assert.is_true(x:abs():sum():item() < inf)
    end
  end)

  it("gives the same bits twice, and takes no residues", function()
    local packing = mf.packing { 40, 33 }
    local inputs, g = leaves_of(packing, 8, 20, 12, 32)
    local function fused(q, k, v, b, pb, pv) return mf.pair_attention(q, k, v, b, pb, pv, packing) end
    local first = with_gradients(fused, floats(inputs), floats(g), device)
    for i, x in ipairs(with_gradients(fused, floats(inputs), floats(g), device)) do assert.equal(first[i]:bytes(), x:bytes()) end
    local function zeros(...) return mf.zeros(..., { device = device }) end
    local q, v, pairs_ = zeros { 0, 2, 3 }, zeros { 0, 2, 5 }, zeros { 0, 4 }
    local out, pair_out = mf.pair_attention(q, q, v, nil, nil, pairs_, mf.packing { 0 })
    assert.same({ 0, 2, 5 }, out:shape())
    assert.same({ 0, 2, 4 }, pair_out:shape())
  end)
end)
