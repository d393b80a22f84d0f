--- Attention over packed sequences and with dense pairs: against the quadratic softmax, sequence by sequence.
local mf = require "moonfold"
local check = require "spec.support.geometry"
local relative = require("spec.support.nn").relative
local support = require "spec.support.attention"

local inf = math.huge
local normal, each, doubled, floats = support.normal, support.each, support.doubled, support.floats
local quadratic, rounded = support.quadratic, support.rounded
local with_gradients, as_good_as = support.with_gradients, support.as_good_as

local packs = { { 1 }, { 31, 0, 33 }, { 67, 1, 130 }, { 0, 300 } }
local widths = { { 1, 3 }, { 3, 1 }, { 154, 228 }, { 300, 7 } }

describe("attention", function()
  for _, lengths in ipairs(packs) do
    for _, width in ipairs(widths) do
      local dqk, dv = unpack(width)
      it(("is the quadratic softmax for lengths %s, widths %d and %d"):format(table.concat(lengths, ","), dqk, dv), function()
        local packing, n, h = mf.packing(lengths), 0, 2
        for _, l in ipairs(lengths) do n = n + l end
        local inputs = { normal({ n, h, dqk }, 1) / math.sqrt(dqk), normal({ n, h, dqk }, 2), normal({ n, h, dv }, 3),
          normal({ n, h }, 4) }
        local cotangent = { normal({ n, h, dv }, 5) }
        local function fused(q, k, v, b) return mf.attention(q, k, v, b, packing) end
        local function naive(q, k, v, b) return (quadratic(q, k, v, b, packing)) end
        local exact = with_gradients(naive, inputs, cotangent)
        -- float64: a few hundred roundings of 1e-16 of the largest intermediate. A lone residue's dq and dk are zeros made
        -- of dP - delta, two sums of dv products in different orders, times k or q: 2 dv^2 1e-16 |k|, 1e-10 at most
        local bound = n == 1 and 1e-10 or 1e-13
        for i, x in ipairs(with_gradients(fused, inputs, cotangent)) do
          assert.is_true((x - exact[i]):norm():item() <= bound * (1 + exact[i]:norm():item()))
        end
        if n > 1 then   -- alone, dS = P (dP - delta) is rounding noise on both sides
          as_good_as(with_gradients(naive, floats(inputs), floats(cotangent)), with_gradients(fused, floats(inputs),
            floats(cotangent)),
                     exact, 1, 1e-7)
        end
      end)
    end
  end

  it("works without a key bias and on views", function()
    local packing, n = mf.packing { 33, 5 }, 38
    local q, k, v = normal({ n, 4, 3 }, 1), normal({ n, 3, 4 }, 2):transpose(2, 3), normal({ 4, n, 5 }, 3):transpose(1, 2)
    check.near(mf.attention(q, k, v, nil, packing), quadratic(q, k, v, nil, packing), 1e-13)
  end)

  it("takes an empty pack", function()
    local packing = mf.packing { 0, 0 }
    local q = mf.zeros(0, 2, 3):require_grad()
    local y = mf.attention(q, mf.zeros(0, 2, 3), mf.zeros(0, 2, 5), nil, packing)
    assert.same({ 0, 2, 5 }, y:shape())
    y:sum():backward()
  end)

  it("does not care how a pack is divided or ordered", function()
    local n, h = 130 + 67 + 31, 2
    local inputs = { normal({ n, h, 20 }, 1, "float32"), normal({ n, h, 20 }, 2, "float32"), normal({ n, h, 7 }, 3, "float32"),
      normal({ n, h }, 4, "float32") }
    local cotangent = { normal({ n, h, 7 }, 5, "float32") }
    local function run(lengths, list, g)
      local packing = mf.packing(lengths)
      return with_gradients(function(q, k, v, b) return mf.attention(q, k, v, b, packing) end, list, g)
    end
    local function exchanged(x) return mf.cat({ x:narrow(1, 131, 67), x:narrow(1, 198, 31), x:narrow(1, 1, 130) }, 1) end
    local function alone(x) return x:narrow(1, 131, 67):contiguous() end
    local whole = run({ 130, 67, 31 }, inputs, cotangent)
    local other = run({ 67, 31, 130 }, each(inputs, exchanged), each(cotangent, exchanged))
    local one = run({ 67 }, each(inputs, alone), each(cotangent, alone))
    for i, x in ipairs(whole) do
      assert.equal(exchanged(x):bytes(), other[i]:bytes())
      assert.equal(alone(x):bytes(), one[i]:bytes())
    end
  end)

  it("gives the same bits twice and with other numbers of inputs that want gradients", function()
    local packing, n = mf.packing { 300, 257 }, 557
    local inputs = { normal({ n, 2, 33 }, 1, "float32"), normal({ n, 2, 33 }, 2, "float32"), normal({ n, 2, 20 }, 3, "float32"),
      normal({ n, 2 }, 4, "float32") }
    local g = { normal({ n, 2, 20 }, 5, "float32") }
    local function fused(q, k, v, b) return mf.attention(q, k, v, b, packing) end
    local first, again = with_gradients(fused, inputs, g), with_gradients(fused, inputs, g)
    for i = 1, #first do assert.equal(first[i]:bytes(), again[i]:bytes()) end
    for wanted = 1, 4 do
      local list = each(inputs, function(x) return x:clone() end)
      list[wanted]:require_grad()
      fused(unpack(list)):backward(g[1])
      for i = 1, 4 do
        if i == wanted then assert.equal(first[1 + i]:bytes(), list[i]:grad():bytes()) else assert.is_nil(list[i]:grad()) end
      end
    end
  end)

  it("leaves masked keys out, and gives zeros where every key is masked", function()
    for _, dtype in ipairs { "float32", "float64" } do
      local packing = mf.packing { 40, 33 }
      local inputs = { normal({ 73, 2, 9 }, 1, dtype), normal({ 73, 2, 9 }, 2, dtype), normal({ 73, 2, 4 }, 3, dtype) }
      local mask = mf.cat({ mf.ones(20, 2), mf.zeros(20, 2), mf.ones(33, 2) }, 1):eq(0)       -- the last 20 of the first
      local bias = mf.zeros(73, 2, { dtype = dtype }):masked_fill(mask, -inf)
      local g = normal({ 73, 2, 4 }, 4, dtype)
      local y = mf.attention(inputs[1], inputs[2], inputs[3], bias, packing)
      local kept = each(inputs, function(x) return x:narrow(1, 1, 20):contiguous() end)
      local short = mf.attention(inputs[1]:narrow(1, 1, 20), kept[2], kept[3], nil, mf.packing { 20 })
      check.near(y:narrow(1, 1, 20), short, dtype == "float32" and 1e-6 or 1e-14)

      local all = mf.cat({ mf.full({ 40, 2 }, -inf, { dtype = dtype }), mf.zeros(33, 2, { dtype = dtype }) }, 1)
      local results = with_gradients(function(q, k, v, b) return mf.attention(q, k, v, b, packing) end, { inputs[1], inputs[2],
        inputs[3], all }, { g })
      for _, x in ipairs(results) do
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
        local list = with_gradients(function(x, y) return mf.attention(x, q, y, nil, packing, precision) end, { q, q },
          { mf.ones(7, 1, 2) })
        for _, x in ipairs(list) do assert.is_true(x:narrow(1, 4, 4):abs():sum():item() < inf) end
      end
    end
  end)

  it("differentiates against central differences #grad", function()
    local packing = mf.packing { 4, 1, 3 }
    check.gradients_match(function(q, k, v, b) return mf.attention(q, k, v, b, packing) end,
                          { normal({ 8, 2, 3 }, 1), normal({ 8, 2, 3 }, 2), normal({ 8, 2, 2 }, 3), normal({ 8, 2 }, 4) })
  end)

  for _, precision in ipairs { "fp16", "bf16" } do
    for _, size in ipairs { 1, 2 ^ -20, 2 ^ 12 } do
      it(("in %s is as good as the naive operator, with cotangents of size %g"):format(precision, size), function()
        local n, h, packing = 259, 2, mf.packing { 259 }
        local inputs = { normal({ n, h, 154 }, 1, "float32") * 0.1, normal({ n, h, 154 }, 2, "float32"), normal({ n, h, 228 },
          3, "float32"), normal({ n, h }, 4, "float32") }
        local g = normal({ n, h, 228 }, 5, "float32") * size
        local exact = rounded(inputs[1]:double(), inputs[2]:double(), inputs[3]:double(), inputs[4]:double(), g:double(), nil,
          1)
        local function naive(scale) return rounded(inputs[1], inputs[2], inputs[3], inputs[4], g, precision, scale) end
        local fused = with_gradients(function(q, k, v, b) return mf.attention(q, k, v, b, packing, precision) end, inputs,
          { g })
        local same = naive(1 / size)
        as_good_as(same, fused, exact, 1, 0)
        if precision == "fp16" and size < 1 then                -- and the scale is what does it
          assert.is_true(relative(naive(1)[2], exact[2]) > 20 * relative(fused[2], exact[2]))
        end
      end)
    end
  end

  it("rounds P and dS too, where the naive operator does", function()
    local n, packing = 259, mf.packing { 259 }
    for _, precision in ipairs { "fp16", "bf16" } do
      local function operand(shape, seed, size) return (normal(shape, seed, "float32") * size):round_to(precision) end
      local inputs = { operand({ n, 2, 154 }, 1, 0.1), operand({ n, 2, 154 }, 2, 1),
                       operand({ n, 2, 228 }, 3, 1), operand({ n, 2 }, 4, 1) }
      local g = operand({ n, 2, 228 }, 5, 1)
      local d = doubled(inputs)
      local exact = rounded(d[1], d[2], d[3], d[4], g:double(), nil, 1)
      local same = rounded(inputs[1], inputs[2], inputs[3], inputs[4], g, precision, 1)
      local fused = with_gradients(function(q, k, v, b) return mf.attention(q, k, v, b, packing, precision) end, inputs, { g })
      -- inputs are representable, so all that is lost is lost by rounding P and dS; had they been left alone, `fused`
      -- would lie as far from `same` as the truth does (1.00)
      for i = 2, 4 do assert.is_true(relative(fused[i], same[i]) < 0.95 * relative(same[i], exact[i])) end
    end
  end)

  it("says what does not fit", function()
    local z, packing = mf.zeros, mf.packing { 2, 3 }
    check.fails(function() mf.attention(z(4, 2, 3), z(4, 2, 3), z(4, 2, 1), nil, packing) end,
                "attention: q (4, 2, 3), k (4, 2, 3), v (4, 2, 1); expected q and k (N, H, dqk), v (N, H, dv) with N = 5")
    check.fails(function() mf.attention(z(5, 2, 3), z(5, 2, 4), z(5, 2, 1), nil, packing) end, "k (5, 2, 4)")
    check.fails(function() mf.attention(z(5, 2, 3), z(5, 2, 3), z(5, 3, 1), nil, packing) end, "v (5, 3, 1)")
    check.fails(function() mf.attention(z(5, 2, 3), z(5, 2, 3), z(5, 2, 1), z(5, 3), packing) end,
      "key_bias (5, 3) must be (5, 2)")
    check.fails(function() mf.attention(z(5, 2, 3):to("bfloat16"), z(5, 2, 3), z(5, 2, 1), nil, packing) end,
      "bfloat16, float32 or float64 expected")
    check.fails(function() mf.attention(z(5, 2, 3):double(), z(5, 2, 3), z(5, 2, 1), nil, packing) end, "one type expected")
  end)

  it("holds no L x L anywhere", function()
    local function peak(n)
      local inputs = { normal({ n, 1, 8 }, 1, "float32"), normal({ n, 1, 8 }, 2, "float32"), normal({ n, 1, 8 }, 3, "float32") }
      collectgarbage()
      mf.reset_peak()
      local before, packing = mf.memory().live, mf.packing { n }
      with_gradients(function(q, k, v) return mf.attention(q, k, v, nil, packing) end, inputs, { normal({ n, 1, 8 }, 4,
        "float32") })
      return mf.memory().peak - before
    end
    assert.is_true(peak(2000) <= 2.1 * peak(1000))
  end)
end)

describe("pair_attention", function()
  for _, lengths in ipairs { { 1 }, { 0, 5 }, { 31, 0, 33, 1 }, { 67 } } do
    for _, width in ipairs { { 3, 4, 5 }, { 16, 1, 33 } } do
      it(("is the quadratic softmax for lengths %s, pair width %d"):format(table.concat(lengths, ","), width[3]), function()
        local packing, n, h, dz = mf.packing(lengths), 0, 3, width[3]
        for _, l in ipairs(lengths) do n = n + l end
        local pairs_ = packing:pairs()
        local inputs = { normal({ n, h, width[1] }, 1), normal({ n, h, width[1] }, 2), normal({ n, h, width[2] }, 3),
          normal({ n, h }, 4),
                         normal({ pairs_, h }, 5), normal({ pairs_, dz }, 6) }
        local cotangents = { normal({ n, h, width[2] }, 7), normal({ n, h, dz }, 8) }
        local function fused(q, k, v, b, pb, pv) return mf.pair_attention(q, k, v, b, pb, pv, packing) end
        local function naive(q, k, v, b, pb, pv) return quadratic(q, k, v, b, packing, pb, pv) end
        local exact = with_gradients(naive, inputs, cotangents)
        for i, x in ipairs(with_gradients(fused, inputs, cotangents)) do
          assert.is_true((x - exact[i]):norm():item() <= 1e-13 * (1 + exact[i]:norm():item()))
        end
        if n > 1 then
          as_good_as(with_gradients(naive, floats(inputs), floats(cotangents)), with_gradients(fused, floats(inputs),
            floats(cotangents)),
                     exact, 2, 1e-7)
        end
      end)
    end
  end

  it("is attention when there are no pairs, and takes either kind alone", function()
    local packing = mf.packing { 9, 12 }
    local q, k, v, b = normal({ 21, 2, 3 }, 1), normal({ 21, 2, 3 }, 2), normal({ 21, 2, 4 }, 3), normal({ 21, 2 }, 4)
    local pb, pv = normal({ packing:pairs(), 2 }, 5), normal({ packing:pairs(), 6 }, 6)
    local out, empty = mf.pair_attention(q, k, v, b, nil, nil, packing)
    check.near(out, mf.attention(q, k, v, b, packing), 1e-14)
    assert.equal(0, empty:count())
    check.near(mf.pair_attention(q, k, v, nil, pb, nil, packing), quadratic(q, k, v, nil, packing, pb), 1e-14)
    local _, pair_out = mf.pair_attention(q, k, v, nil, nil, pv, packing)
    local _, expected = quadratic(q, k, v, nil, packing, nil, pv)
    check.near(pair_out, expected, 1e-14)
  end)

  it("differentiates when only one of its results is used #grad", function()
    local packing = mf.packing { 3, 2 }
    local inputs = { normal({ 5, 2, 3 }, 1), normal({ 5, 2, 3 }, 2), normal({ 5, 2, 2 }, 3), normal({ 5, 2 }, 4), normal({ 13,
      2 }, 5), normal({ 13, 3 }, 6) }
    check.gradients_match(function(...)
      local list = { ... }
      list[7] = packing
      local out, pair_out = mf.pair_attention(unpack(list))
      return out, pair_out
    end, inputs)
    local p = each(inputs, function(x) return x:clone():require_grad() end)
    local _, pair_out = mf.pair_attention(p[1], p[2], p[3], p[4], p[5], p[6], packing)
    pair_out:sum():backward()
    assert.equal(0, p[3]:grad():abs():sum():item())
    local o = each(inputs, function(x) return x:clone():require_grad() end)
    mf.pair_attention(o[1], o[2], o[3], o[4], o[5], o[6], packing):sum():backward()
    assert.is_nil(o[6]:grad())
    assert.is_not_nil(o[5]:grad())
  end)

  it("gives zeros where every key is masked", function()
    local packing = mf.packing { 4, 3 }
    local b = mf.cat({ mf.full({ 4, 2 }, -inf), mf.zeros(3, 2) }, 1)
    local f = function(q, k, v, pv) return mf.pair_attention(q, k, v, b, nil, pv, packing) end
    local inputs = { normal({ 7, 2, 3 }, 1, "float32"), normal({ 7, 2, 3 }, 2, "float32"), normal({ 7, 2, 3 }, 3, "float32"),
      normal({ 25, 5 }, 4, "float32") }
    local list = with_gradients(f, inputs, { mf.ones(7, 2, 3), mf.ones(7, 2, 5) })
    for i, x in ipairs(list) do assert.equal(0, x:narrow(1, 1, i == 6 and 16 or 4):abs():max(1):max():item()) end
  end)

  it("says what does not fit", function()
    local z, packing = mf.zeros, mf.packing { 2, 3 }
    check.fails(function() mf.pair_attention(z(5, 2, 3), z(5, 2, 3), z(5, 2, 1), nil, z(12, 2), nil, packing) end,
      "pair_bias (12, 2) must be (13, 2)")
    check.fails(function() mf.pair_attention(z(5, 2, 3), z(5, 2, 3), z(5, 2, 1), nil, nil, z(13, 2, 2), packing) end,
      "pair_value (13, 2, 2) must be (13, dz)")
  end)
end)
