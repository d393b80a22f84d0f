-- The linear layer over neighbours' features against the features themselves, multiplied.
local mf = require "moonfold"
local support = require "spec.support"

local geometry = mf.geometry

-- Distances from 0 (in no bin) to beyond the last edge, and far ones as lonely residues have.
local function inputs(n, k, seed)
  local rng = mf.rng(seed)
  local distance = mf.rand(n, k, { dtype = "float64", rng = rng }) * 24 - 1
  if n > 2 then distance:select(1, 2):fill_(1e6) end
  return (mf.rand(n, k, { dtype = "float64", rng = rng }) * 500):floor():int(), distance
end

local function composed(index, distance, weight, bias, o)
  local n, k = index:size(1), index:size(2)
  local near = geometry.distogram(distance, o.lo, o.hi, o.bins):to(weight:dtype())
  local where = geometry.index_embedding(index, o.feat):to(weight:dtype())
  return mf.cat({ near, where }, 3):reshape(n, k * (o.bins + o.feat)):linear(weight, bias)
end

local function gradients(f, index, distance, weight, bias, o)
  local w, b = weight:clone():require_grad(), bias and bias:clone():require_grad()
  local y = f(index, distance, w, b, o)
  local dy = mf.randn(y:shape(), { dtype = y:dtype(), rng = mf.rng(5) })
  if y:count() > 0 then (y * dy):sum():backward() else y:sum():backward() end
  return y, w:grad(), b and b:grad()
end

describe("neighbour_linear", function()
  local sizes = {            -- n, k, bins, feat, outputs; the last has several chunks of the product
    { 0, 3, 4, 2, 5 }, { 1, 1, 1, 2, 1 }, { 33, 20, 22, 64, 88 }, { 257, 5, 3, 6, 7 }, { 130, 64, 2, 1024, 17 },
  }
  for _, size in ipairs(sizes) do
    local n, k, bins, feat, outputs = unpack(size)
    it(("is the layer over the features, %d residues, k %d, %d bins, %d features, %d outputs"):format(unpack(size)), function()
      local index, distance = inputs(n, k, n + k)
      local o = { lo = 1e-3, hi = 20, bins = bins, feat = feat }
      for _, with in ipairs { true, false } do
        local weight = mf.randn(outputs, k * (bins + feat), { dtype = "float64", rng = mf.rng(3) })
        local bias = with and mf.randn(outputs, { dtype = "float64", rng = mf.rng(4) }) or nil
        local y, dw, db = gradients(geometry.neighbour_linear, index, distance, weight, bias, o)
        local want, want_dw, want_db = gradients(composed, index, distance, weight, bias, o)
        -- sums of some thousand terms of order 1 in another order
        support.close(y, want, 1e-12, "out")
        support.close(dw, want_dw, 1e-12, "dweight")
        if with then support.close(db, want_db, 1e-12, "dbias") end
      end
    end)
  end

  it("is as accurate in float32 as the product of the features", function()
    local index, distance = inputs(300, 20, 9)
    local o = { lo = 1e-3, hi = 20, bins = 22, feat = 64 }
    local weight = mf.randn(88, 20 * 86, { dtype = "float64", rng = mf.rng(3) })
    local bias = mf.randn(88, { dtype = "float64", rng = mf.rng(4) })
    local exact = { gradients(composed, index, distance, weight, bias, o) }
    local ours = { gradients(geometry.neighbour_linear, index, distance, weight:float(), bias:float(), o) }
    local naive = { gradients(composed, index, distance, weight:float(), bias:float(), o) }
    for i, factor in ipairs { 2, 3, 3 } do
      assert.is_true(support.difference(ours[i], exact[i]) <= factor * support.difference(naive[i], exact[i]))
    end
  end)

  it("takes views, an int64 index and float32 distances", function()
    local index, distance = inputs(20, 3, 2)
    local o = { lo = 1e-3, hi = 20, bins = 4, feat = 6 }
    local weight = mf.randn(5, 30, { dtype = "float64", rng = mf.rng(3) })
    local want = composed(index, distance:float(), weight, nil, o)
    local got = geometry.neighbour_linear(index:long(), support.strided(distance:float()), support.strided(weight), nil, o)
    support.close(got, want, 1e-12)
  end)

  it("holds no features", function()
    local n, k = 20000, 20
    local index, distance = inputs(n, k, 1)
    local weight = mf.randn(88, k * 86, { rng = mf.rng(3) }):require_grad()
    collectgarbage()
    collectgarbage()
    mf.reset_peak()
    local before = mf.memory().live
    local y = geometry.neighbour_linear(index, distance, weight, nil, { lo = 1e-3, hi = 20, bins = 22, feat = 64 })
    -- the result, 352 bytes a residue; the weight twice; one chunk of 16 MB
    assert.is_true(mf.memory().peak - before < 352 * n + 3 * weight:nbytes() + 17e6)
    y:sum():backward()
    assert.is_true(mf.memory().peak - before < 3 * 352 * n + 5 * weight:nbytes() + 17e6)
  end)

  it("says what is wrong", function()
    local index, distance = inputs(4, 3, 2)
    local weight, o = mf.zeros(5, 30), { lo = 1e-3, hi = 20, bins = 4, feat = 6 }
    local function with(changes)
      local all = {}
      for key, value in pairs(o) do all[key] = value end
      for key, value in pairs(changes) do all[key] = value end
      return function() geometry.neighbour_linear(index, distance, weight, nil, all) end
    end
    support.error_matches(with { bins = 5 },
      "neighbour_linear: weight (5, 30) must be (outputs, 33): 3 neighbours of 5 bins and 6 features", true)
    support.error_matches(with { feat = 5 }, "neighbour_linear: feat is 5, expected an even number of at least 2", true)
    support.error_matches(with { lo = 30 }, "neighbour_linear: edges go from 30 to 20, expected lo < hi < 1e8", true)
    support.error_matches(function() geometry.neighbour_linear(distance, distance, weight, nil, o) end,
      "neighbour_linear: index is float64", true)
    support.error_matches(function() geometry.neighbour_linear(index, distance:t(), weight, nil, o) end,
      "neighbour_linear: distance (3, 4) must be (4, 3)", true)
    support.error_matches(function() geometry.neighbour_linear(index, distance, weight, mf.zeros(4), o) end,
      "neighbour_linear: bias (4) must be (5)", true)
    support.error_matches(function() geometry.neighbour_linear(index, distance, weight:to "bfloat16", nil, o) end,
      "neighbour_linear: weight is bfloat16; geometry takes float32 or float64", true)
  end)
end)
