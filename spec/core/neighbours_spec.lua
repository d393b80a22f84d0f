local mf = require "moonfold"
local support = require "spec.support.geometry"

local geometry, tensor, near, single = mf.geometry, support.tensor, support.near, support.single

local function normal(shape, seed) return mf.randn(shape, { dtype = "float64", rng = mf.rng(seed) }) end

-- Rows of indices and distances by sorting every distance; `round` is the arithmetic of the tensor's type.
local function brute(x, n, k, mask, round)
  local index, distance = {}, {}
  for i = 0, n - 1 do
    local row = {}
    if not mask or mask[i + 1] ~= 0 then
      for j = 0, n - 1 do
        if j ~= i and (not mask or mask[j + 1] ~= 0) then
          local s = {}
          for c = 1, 3 do
            local d = round(x[3 * j + c] - x[3 * i + c])
            s[c] = round(d * d)
          end
          row[#row + 1] = { j, round(math.sqrt(round(round(s[1] + s[2]) + s[3]))) }
        end
      end
      table.sort(row, function(a, b) return a[2] < b[2] or (a[2] == b[2] and a[1] < b[1]) end)
    end
    for m = 1, k do
      index[#index + 1] = row[m] and row[m][1] or i
      distance[#distance + 1] = row[m] and row[m][2] or 1e6
    end
  end
  return index, distance
end

local clouds = {
  ball = function(n, seed) return normal({ n, 3 }, seed) * 20 end,
  chain = function(n, seed) return normal({ n, 3 }, seed):cumsum(1) * 3.8 end,
  line = function(n) return mf.arange(n):double():unsqueeze(2) * tensor({ 3.8, 0, 0 }, { 1, 3 }) end,
  spot = function(n) return mf.zeros({ n, 3 }, { dtype = "float64" }) end,
  lattice = function(n, seed) return normal({ n, 3 }, seed):floor() end,
  clusters = function(n, seed) return normal({ n, 3 }, seed) * 0.01 + (normal({ n, 1 }, seed + 1):sign() * 1000) end,
}
local identity = function(v) return v end

describe("neighbours", function()
  for name, cloud in pairs(clouds) do
    it("are those of the sorted row of distances: " .. name, function()
      for _, n in ipairs { 1, 2, 3, 16, 17, 33, 65, 200 } do
        local x = cloud(n, n)
        local chosen = {}
        for i = 1, n do chosen[i] = (i * 7) % 5 == 0 and 0 or 1 end
        for _, mask in ipairs { false, chosen } do
          for dtype, round in pairs { float32 = single, float64 = identity } do
            local y = x:to(dtype)
            local all_index, all_distance = brute(y:values(), n, n, mask, round)
            for _, k in ipairs { 1, math.min(n, 6), n } do
              local index, distance = geometry.neighbours(y, mask and tensor(mask, { n }) or nil, k, mf.packing { n })
              near(index, tensor(all_index, { n, n }):narrow(2, 1, k), 0)
              near(distance, tensor(all_distance, { n, n }):narrow(2, 1, k), 0)
            end
          end
        end
      end
    end)
  end

  it("stay inside their sequence", function()
    local lengths = { 40, 1, 17, 90 }
    local x, first = normal({ 148, 3 }, 5), 0
    local index, distance = geometry.neighbours(x, nil, 1, mf.packing(lengths))
    for _, n in ipairs(lengths) do
      local want_index, want_distance = brute(x:narrow(1, first + 1, n):contiguous():values(), n, 1, nil, identity)
      near(index:narrow(1, first + 1, n), want_index, 0)
      near(distance:narrow(1, first + 1, n), want_distance, 0)
      first = first + n
    end
    assert.equal("int32", index:dtype())
  end)

  it("come in a moment for 20,000 residues, any cloud, and are right", function()
    local n, k = 20000, 20
    for _, name in ipairs { "ball", "chain", "line", "spot", "clusters" } do
      local x = clouds[name](n, 6):float()
      local start = os.clock()
      local index, distance = geometry.neighbours(x, nil, k, mf.packing { n })
      local seconds = os.clock() - start
      assert(seconds < 2, ("%s: %.2f s"):format(name, seconds))
      for i = 1, n, 4001 do  -- some rows against one pass over all residues, in double
        local all = (x:double() - x:double():select(1, i):unsqueeze(1)):norm(2)
        local values = all:topk(k + 1, 1, false)
        -- coordinates up to 76,000 in float: a difference of them is exact to 2^-8, nearby ones to 2^-24 of the distance
        near(distance:select(1, i), values:narrow(1, 2, k), 1e-3)
        near(all:index_select(1, index:select(1, i)), distance:select(1, i), 1e-3)
      end
    end
  end)

  it("take the lower position of equals, so zero coordinates give the first ones", function()
    local index = geometry.neighbours(mf.zeros(40, 3), nil, 3, mf.packing { 40 })
    near(index:select(1, 1), { 1, 2, 3 }, 0)
    near(index:select(1, 3), { 0, 1, 3 }, 0)
    near(index:select(1, 40), { 0, 1, 2 }, 0)
  end)

  it("say what is wrong", function()
    local x = mf.zeros(9, 3)
    local p = mf.packing { 5, 4 }
    support.fails(function() geometry.neighbours(x, nil, 5, p) end, "neighbours: k is 5, but sequence 2 has 4 residues")
    support.fails(function() geometry.neighbours(x, nil, 0, p) end, "neighbours: k is 0")
    support.fails(function() geometry.neighbours(x, mf.ones(4), 1, p) end, "neighbours: mask (4) must be (9)")
    support.fails(function() geometry.neighbours(mf.zeros(8, 3), nil, 1, p) end, "neighbours")
    x:select(1, 7):fill_(0 / 0)
    support.fails(function() geometry.neighbours(x, nil, 1, p) end, "residue 2 of sequence 2 has a coordinate that is not finite")
    local mask = mf.ones(9)
    mask:select(1, 7):fill_(0)
    near(geometry.neighbours(x, mask, 1, p):select(1, 7), { 1 }, 0)
  end)
end)

describe("distogram", function()
  local edges = {
    0.001, 0.95333332, 1.9056667, 2.8579998, 3.8103333, 4.7626667, 5.7149997, 6.6673331, 7.6196666, 8.5719995, 9.5243330,
    10.4766665, 11.4289999, 12.3813334, 13.3336658, 14.2859993, 15.2383337, 16.1906662, 17.1429996, 18.0953331, 19.0476665, 20,
  }

  it("has the edges of the specification, both sides strict", function()
    -- the printed edges have 8 or 9 digits: a float32 is determined by them to one unit, so step two units aside
    for b = 1, 22 do
      local below = geometry.distogram(tensor({ edges[b] * (1 - 3e-7) }, { 1 }, "float32"), 1e-3, 20, 22):squeeze(1)
      local above = geometry.distogram(tensor({ edges[b] * (1 + 3e-7) }, { 1 }, "float32"), 1e-3, 20, 22):squeeze(1)
      assert.equal(1, above:values()[b])
      assert.equal(1, above:sum():item())
      assert.equal(b > 1 and 1 or 0, below:sum():item())
      if b > 1 then assert.equal(1, below:values()[b - 1]) end
    end
  end)

  it("is empty on an edge, at zero, beyond 1e8 and for NaN; 1e6 falls in the last bin", function()
    local x = tensor({ 0, single(1e-3), 20, 1e8, 1e9, 0 / 0, -3 }, { 7 }, "float32")
    near(geometry.distogram(x, 1e-3, 20, 22), mf.zeros(7, 22), 0)
    assert.equal(1, geometry.distogram(mf.tensor { 1e6 }, 1e-3, 20, 22):values()[22])
    assert.same({ 2, 3, 5 }, geometry.distogram(mf.zeros(2, 3), 0.5, 2, 5):shape())
    support.fails(function() geometry.distogram(x, 20, 1e-3, 22) end, "distogram: edges go from 20 to 0.001")
    support.fails(function() geometry.distogram(x, 1e-3, 20, 0) end, "distogram: bins is 0")
  end)
end)

describe("index_embedding", function()
  it("is sin and cos of n pi / M^(2c/d), rounded to float32 step by step", function()
    local list, width = { 0, 1, 2, 17, 1000, 20000, -3 }, 32
    local y = geometry.index_embedding(mf.tensor(list, { dtype = "int32" }), width)
    local want = {}
    for i, n in ipairs(list) do
      for c = 0, width / 2 - 1 do
        local angle = single(single(n * single(math.pi)) / single(2056 ^ single(2 * c / width)))
        want[(i - 1) * width + c + 1], want[(i - 1) * width + width / 2 + c + 1] = math.sin(angle), math.cos(angle)
      end
    end
    -- 1e-7 for the sine itself; the power may round the other way, which moves an angle by one unit of 2^-23
    near(y:narrow(1, 1, 5), { unpack(want, 1, 5 * width) }, 1000 * math.pi * 2 ^ -23)
    near(y, want, 20000 * math.pi * 2 ^ -23)
    assert.is_true(math.abs(y:values()[4 * width + 1]) > 1e-5)  -- sin(1000 pi) is its rounding noise, not 0
    near(y, geometry.index_embedding(mf.tensor(list, { dtype = "int64" }), width), 0)
    support.fails(function() geometry.index_embedding(mf.zeros(3), 32) end, "index_embedding: index is float32")
    support.fails(function() geometry.index_embedding(mf.arange(3), 31) end, "index_embedding: width is 31")
  end)
end)

describe("pair_distance_loss", function()
  -- Sum and count of one sequence over all ordered pairs.
  local function naive(predicted, truth, mask, cutoff)
    local sum, count, n = 0, 0, #mask
    for a = 1, n do
      for b = 1, n do
        if a ~= b and mask[a] ~= 0 and mask[b] ~= 0 then
          local s, r = 0, 0
          for c = 1, 3 do
            s = s + (truth[3 * a - 3 + c] - truth[3 * b - 3 + c]) ^ 2
            r = r + (predicted[3 * a - 3 + c] - predicted[3 * b - 3 + c]) ^ 2
          end
          if cutoff == 0 or math.sqrt(s) < cutoff then
            sum, count = sum + (math.sqrt(s) - math.sqrt(r)) ^ 2, count + 1
          end
        end
      end
    end
    return sum, count
  end

  local function case(lengths, atoms, seed)
    local n = 0
    for _, l in ipairs(lengths) do n = n + l end
    local truth = clouds.chain(n, seed):unsqueeze(2) + normal({ n, atoms, 3 }, seed + 1)
    return truth + normal({ n, atoms, 3 }, seed + 2) * 0.5, truth, normal({ n, atoms }, seed + 3):gt(-0.8), n
  end

  for _, cutoff in ipairs { 0, 2.5, 6, 1e4 } do
    it(("sums over ordered pairs closer than %g"):format(cutoff), function()
      for _, lengths in ipairs { { 1 }, { 7 }, { 31, 33, 2 }, { 60 } } do
        for _, atoms in ipairs { 1, 3, 5 } do
          local predicted, truth, mask = case(lengths, atoms, 11)
          local sum, pairs_ = geometry.pair_distance_loss(predicted, truth, mask, cutoff, mf.packing(lengths))
          local sum32, pairs32 = geometry.pair_distance_loss(predicted:float(), truth:float(), mask, cutoff, mf.packing(lengths))
          local first = 0
          for s, l in ipairs(lengths) do
            local function part(x) return x:narrow(1, first + 1, l):contiguous():values() end
            local want, count = naive(part(predicted), part(truth), part(mask:double()), cutoff)
            assert.near(want, sum:values()[s], 1e-12 * (1 + want))
            assert.equal(count, pairs_:values()[s])
            -- a distance up to 200 is rounded by 1e-5 and squared errors are near 0.5: 1e-5 of the sum is ample
            assert.near(want, sum32:values()[s], 1e-5 * (1 + want))
            assert.equal(count, pairs32:values()[s])
            first = first + l
          end
        end
      end
    end)

    it(("differentiates with pairs closer than %g #grad"):format(cutoff), function()
      for _, lengths in ipairs { { 6 }, { 3, 1, 5 } } do
        local predicted, truth, mask = case(lengths, 2, 17)
        support.gradients_match(function(p) return (geometry.pair_distance_loss(p, truth, mask, cutoff, mf.packing(lengths))) end,
                                { predicted }, { floor = 1 })
      end
    end)
  end

  it("has no pull between predicted atoms on one spot, and none on masked ones", function()
    local truth = normal({ 4, 1, 3 }, 19)
    local predicted = mf.zeros({ 4, 1, 3 }, { dtype = "float64" }):require_grad()
    geometry.pair_distance_loss(predicted, truth, nil, 0, mf.packing { 4 }):sum():backward()
    near(predicted:grad(), mf.zeros({ 4, 1, 3 }, { dtype = "float64" }), 0)
    local moved = normal({ 4, 1, 3 }, 20):require_grad()
    geometry.pair_distance_loss(moved, truth, tensor({ 1, 1, 0, 1 }, { 4, 1 }), 0, mf.packing { 4 }):sum():backward()
    near(moved:grad():select(1, 3), { 0, 0, 0 }, 0)
    assert.is_true(moved:grad():select(1, 1):norm():item() > 0)
  end)

  it("stores nothing of size L x L", function()
    local n = 20000
    local truth = (clouds.ball(n, 21) * 3):float():unsqueeze(2)
    local predicted = (truth + mf.randn(n, 1, 3, { rng = mf.rng(22) })):require_grad()
    local before = mf.memory().peak
    local sum, pairs_ = geometry.pair_distance_loss(predicted, truth, nil, 6, mf.packing { n })
    sum:sum():backward()
    assert.is_true(pairs_:item() > 1000 and sum:item() > 0)
    assert.is_true(mf.memory().peak - before < 100 * n)
  end)

  it("says what does not fit", function()
    local x, p = mf.zeros(5, 2, 3), mf.packing { 5 }
    local function fails(text, predicted, truth, mask, cutoff)
      support.fails(function() geometry.pair_distance_loss(predicted, truth, mask, cutoff, p) end, text)
    end
    fails("pair_distance_loss: truth (5, 3, 3) must be (5, 2, 3)", x, mf.zeros(5, 3, 3), nil, 6)
    fails("pair_distance_loss: mask (5) must be (5, 2)", x, x, mf.ones(5), 6)
    fails("pair_distance_loss: cutoff is -1", x, x, nil, -1)
    fails("predicted (5, 3) must be (5, atoms, 3)", mf.zeros(5, 3), mf.zeros(5, 3), nil, 6)
    local y = mf.zeros(5, 2, 3)
    y:select(1, 4):fill_(0 / 0)
    fails("true atom 1 of residue 4 of sequence 1 is not finite; mask it", x, y, nil, 6)
  end)
end)
