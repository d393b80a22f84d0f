--- Packed attention on a GPU: against the quadratic softmax in float64; as good as the naive operator on the CPU in the same type.
local mf = require "moonfold"
local common = require "spec.support"
local relative = require("spec.support.nn").relative
local support = require "spec.support.attention"

local inf = math.huge
local normal, each, doubled, floats = support.normal, support.each, support.doubled, support.floats
local quadratic, rounded = support.quadratic, support.rounded
local with_gradients, as_good_as = support.with_gradients, support.as_good_as

describe("attention on a GPU #gpu", function()
  local device = common.cuda()
  if not device then return end

  -- lengths; widths: below, at and beyond a tile of 64 and the 256 columns that one block makes
  local cases = {
    { { 1 }, 1, 3 }, { { 31, 0, 33 }, 3, 1 }, { { 64, 65 }, 16, 64 }, { { 3, 130, 1 }, 154, 228 }, { { 40 }, 300, 7 },
    { { 33 }, 5, 520 }, { { 12, 5 }, 0, 4 },
  }
  for _, case in ipairs(cases) do
    local lengths, dqk, dv = unpack(case)
    it(("is exact for lengths %s, widths %d and %d"):format(table.concat(lengths, ","), dqk, dv), function()
      local packing, h = mf.packing(lengths), 2
      local n = packing:total()
      local inputs = { normal({ n, h, dqk }, 1) / math.sqrt(math.max(dqk, 1)), normal({ n, h, dqk }, 2), normal({ n, h, dv }, 3),
        normal({ n, h }, 4) }
      local g = { normal({ n, h, dv }, 5) }
      local function fused(q, k, v, b) return mf.attention(q, k, v, b, packing) end
      local function naive(q, k, v, b) return (quadratic(q, k, v, b, packing)) end
      local exact = with_gradients(naive, inputs, g)
      -- float64: see spec/core/attention_spec.lua
      local bound = n == 1 and 1e-10 or 1e-13
      for i, x in ipairs(with_gradients(fused, inputs, g, device)) do
        assert.is_true((x - exact[i]):norm():item() <= bound * (1 + exact[i]:norm():item()))
      end
      if n > 1 and dqk > 0 then
        local singles, singles_g = floats(inputs), floats(g)
        as_good_as(with_gradients(naive, singles, singles_g), with_gradients(fused, singles, singles_g, device), exact, 1, 1e-7)
      end
    end)
  end

  it("takes no key bias, views, no residues, and a width of nothing", function()
    local packing = mf.packing { 33, 5 }
    local q, k, v = normal({ 38, 4, 3 }, 1), normal({ 38, 3, 4 }, 2):transpose(2, 3), normal({ 4, 38, 5 }, 3):transpose(1, 2)
    local y = mf.attention(q:to(device), k:to(device), v:to(device), nil, packing)
    assert.is_true(relative(y:to "cpu", quadratic(q, k, v, nil, packing)) < 1e-13)
    local empty = mf.zeros(0, 2, 3, { device = device }):require_grad()
    mf.attention(empty, empty, mf.zeros(0, 2, 5, { device = device }), nil, mf.packing { 0, 0 }):sum():backward()
    for _, precision in ipairs { "exact", "fp16" } do
      local leaf = mf.zeros(5, 2, 3, { device = device }):require_grad()
      local none = mf.attention(leaf, leaf, mf.zeros(5, 2, 0, { device = device }), nil, mf.packing { 5 }, precision)
      assert.same({ 5, 2, 0 }, none:shape())
      none:sum():backward()
      assert.equal(0, leaf:grad():abs():sum():item())
    end
  end)

  for _, precision in ipairs { "fp16", "bf16" } do
    for _, size in ipairs { 1, 2 ^ -20, 2 ^ 12 } do
      it(("in %s is as good as the naive operator, with cotangents of size %g"):format(precision, size), function()
        local n, h = common.emulated() and 83 or 259, 2
        local packing = mf.packing { n }
        local inputs = { normal({ n, h, 154 }, 1, "float32") * 0.1, normal({ n, h, 154 }, 2, "float32"),
          normal({ n, h, 228 }, 3, "float32"), normal({ n, h }, 4, "float32") }
        local g = normal({ n, h, 228 }, 5, "float32") * size
        local d = doubled(inputs)
        local exact = rounded(d[1], d[2], d[3], d[4], g:double(), nil, 1)
        local naive = rounded(inputs[1], inputs[2], inputs[3], inputs[4], g, precision, 1 / size)
        local function fused(q, k, v, b) return mf.attention(q, k, v, b, packing, precision) end
        local mine = with_gradients(fused, inputs, { g }, device)
        as_good_as(naive, mine, exact, 1, 0)
        if precision == "fp16" and size < 1 then                -- and the scale is what does it
          local plain = rounded(inputs[1], inputs[2], inputs[3], inputs[4], g, precision, 1)
          assert.is_true(relative(plain[2], exact[2]) > 20 * relative(mine[2], exact[2]))
        end
      end)
    end

    -- where float64 is rounded the softmax's running maximum differs, and with it what P is rounded from
    it(("rounds float64 to %s as the CPU does"):format(precision), function()
      local packing, n = mf.packing { 40, 0, 33 }, 73
      local inputs = { normal({ n, 2, 17 }, 1), normal({ n, 2, 17 }, 2), normal({ n, 2, 9 }, 3), normal({ n, 2 }, 4) }
      local g = { normal({ n, 2, 9 }, 5) * 1e-6 }
      local function fused(q, k, v, b) return mf.attention(q, k, v, b, packing, precision) end
      local function exact(q, k, v, b) return mf.attention(q, k, v, b, packing) end
      local truth, cpu = with_gradients(exact, inputs, g), with_gradients(fused, inputs, g)
      as_good_as(cpu, with_gradients(fused, inputs, g, device), truth, 1, 0)
      for i, x in ipairs(cpu) do assert.is_true(relative(x, truth[i]) > 1e-5) end
    end)
  end

  it("does not care how a pack is divided or ordered, and gives the same bits twice", function()
    local n = 130 + 67 + 31
    local inputs = { normal({ n, 2, 20 }, 1, "float32"), normal({ n, 2, 20 }, 2, "float32"), normal({ n, 2, 7 }, 3, "float32"),
      normal({ n, 2 }, 4, "float32") }
    local g = { normal({ n, 2, 7 }, 5, "float32") }
    local function run(lengths, list, cotangents)
      local packing = mf.packing(lengths)
      return with_gradients(function(q, k, v, b) return mf.attention(q, k, v, b, packing) end, list, cotangents, device)
    end
    local function exchanged(x) return mf.cat({ x:narrow(1, 131, 67), x:narrow(1, 198, 31), x:narrow(1, 1, 130) }, 1) end
    local whole, again = run({ 130, 67, 31 }, inputs, g), run({ 130, 67, 31 }, inputs, g)
    local other = run({ 67, 31, 130 }, each(inputs, exchanged), each(g, exchanged))
    for i, x in ipairs(whole) do
      assert.equal(x:bytes(), again[i]:bytes())
      assert.equal(exchanged(x):bytes(), other[i]:bytes())
    end
  end)

  it("gives each gradient alone as it gives all of them", function()
    local packing = mf.packing { 70, 5 }
    local inputs = { normal({ 75, 2, 33 }, 1, "float32"), normal({ 75, 2, 33 }, 2, "float32"), normal({ 75, 2, 20 }, 3, "float32"),
      normal({ 75, 2 }, 4, "float32") }
    local g = normal({ 75, 2, 20 }, 5, "float32")
    local function fused(q, k, v, b) return mf.attention(q, k, v, b, packing) end
    local all = with_gradients(fused, inputs, { g }, device)
    for wanted = 1, 4 do
      local list = each(inputs, function(x) return x:to(device):detach() end)
      list[wanted]:require_grad()
      fused(unpack(list)):backward(g:to(device))
      for i = 1, 4 do
        if i == wanted then assert.equal(all[1 + i]:bytes(), list[i]:grad():bytes()) else assert.is_nil(list[i]:grad()) end
      end
    end
  end)

  it("leaves masked keys out, and gives zeros where every key is masked", function()
    for _, precision in ipairs { "exact", "fp16", "bf16" } do
      local packing = mf.packing { 40, 33 }
      local inputs = { normal({ 73, 2, 9 }, 1, "float32"), normal({ 73, 2, 9 }, 2, "float32"), normal({ 73, 2, 4 }, 3, "float32") }
      local g = normal({ 73, 2, 4 }, 4, "float32")
      local mask = mf.cat({ mf.ones(20, 2), mf.zeros(20, 2), mf.ones(33, 2) }, 1):eq(0)       -- the last 20 of the first
      local bias = mf.zeros(73, 2):masked_fill(mask, -inf):to(device)
      local function masked(q, k, v) return mf.attention(q, k, v, bias, packing, precision) end
      local lists = with_gradients(masked, inputs, { g }, device)
      assert.equal(0, lists[3]:narrow(1, 21, 20):abs():sum():item() + lists[4]:narrow(1, 21, 20):abs():sum():item())
      local kept = each(inputs, function(x) return x:narrow(1, 1, 20):contiguous():to(device) end)
      local short = mf.attention(kept[1], kept[2], kept[3], nil, mf.packing { 20 }, precision):to "cpu"
      assert.is_true(relative(lists[1]:narrow(1, 1, 20), short) < (precision == "exact" and 1e-6 or 1e-2))

      local none = mf.cat({ mf.full({ 40, 2 }, -inf), mf.zeros(33, 2) }, 1)
      local function fused(q, k, v, b) return mf.attention(q, k, v, b, packing, precision) end
      for _, x in ipairs(with_gradients(fused, { inputs[1], inputs[2], inputs[3], none }, { g }, device)) do
        assert.equal(0, x:narrow(1, 1, 40):abs():max(1):max():item())
        assert.is_true(x:narrow(1, 41, 33):abs():sum():item() < inf)
      end
    end
  end)

  it("survives infinities and NaN, which stay inside their sequence", function()
    local packing = mf.packing { 3, 4 }
    for _, bad in ipairs { inf, -inf, 0 / 0, 3e38 } do
      local q = mf.cat({ mf.full({ 3, 1, 2 }, bad), mf.ones(4, 1, 2) }, 1)
      for _, precision in ipairs { "exact", "fp16", "bf16", "tf32" } do
        local function fused(x, y) return mf.attention(x, q:to(device), y, nil, packing, precision) end
        for _, x in ipairs(with_gradients(fused, { q, q }, { mf.ones(7, 1, 2) }, device)) do
          assert.is_true(x:narrow(1, 4, 4):abs():sum():item() < inf)
        end
      end
    end
  end)

  it("holds no L x L anywhere", function()
    local function peak(n)
      local inputs = {}
      for i = 1, 4 do inputs[i] = normal({ n, 1, 8 }, i, "float32") end
      collectgarbage()
      mf.reset_peak(device)
      local before, packing = mf.memory(device).live, mf.packing { n }
      local function fused(q, k, v) return mf.attention(q, k, v, nil, packing) end
      with_gradients(fused, { inputs[1], inputs[2], inputs[3] }, { inputs[4] }, device)
      return mf.memory(device).peak - before
    end
    local n = common.emulated() and 200 or 4000
    assert.is_true(peak(2 * n) <= 2.1 * peak(n))
  end)
end)
