local mf = require "moonfold"
local naive = require "spec.support.naive"
local support = require "spec.support"
local F = require "moonfold.ffi"
local ffi = require "ffi"
local C = F.C

-- mean and variance of a flat tensor, in double
local function moments(x)
  local sum, squares, n = 0, 0, x:count()
  local values = x:values()
  for _, v in ipairs(values) do sum = sum + v end
  for _, v in ipairs(values) do squares = squares + (v - sum / n) ^ 2 end
  return sum / n, squares / n
end

-- Fails unless |got - expected| is within five standard errors.
local function within(got, expected, standard_error)
  local near = math.abs(got - expected) <= 5 * standard_error
  if not near then error(("%.8g is not %.8g within 5 x %.3g"):format(got, expected, standard_error), 2) end
end

-- The share of values below a q-quantile is q, with standard error sqrt(q (1 - q) / n).
local function quantiles(values, expected, slack)
  for q, at in pairs(expected) do
    local below, n = 0, #values
    for _, v in ipairs(values) do if v < at then below = below + 1 end end
    within(below / n, q, math.sqrt(q * (1 - q) / n) + (slack or 0) / 5)
  end
end

describe("philox", function()
  it("gives the published words", function()
    -- Random123's known answers for 4x32-10: uniforms are the top bits of words 0 and 1
    local function number(word0, word1)
      return (math.floor(word0 / 2 ^ 5) * 2 ^ 26 + math.floor(word1 / 2 ^ 6)) * 2 ^ -53
    end
    assert.are.equal(number(0x6627e8d5, 0xe169c58d), mf.rng(0, 0):number())
    local ones = ffi.new("mf_rng", { seed = -1ULL, stream = -1ULL, counter = -1ULL })
    assert.are.equal(number(0x408f276d, 0x41c83b0e), C.mf_random_number(ones))
    -- counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0
    local pi = ffi.new("mf_rng", { seed = 0x299f31d0a4093822ULL, stream = 0x0370734413198a2eULL, counter = 0x85a308d3243f6a88ULL })
    assert.are.equal(number(0xd16cfe09, 0x94fdcceb), C.mf_random_number(pi))
  end)

  it("makes element i from (seed, stream, counter + i), however a draw is split", function()
    for _, dtype in ipairs { "float32", "float64" } do
      for _, make in ipairs {
        function(n, rng) return mf.rand(n, { rng = rng, dtype = dtype }) end,
        function(n, rng) return mf.randn(n, { rng = rng, dtype = dtype }) end,
        function(n, rng) return mf.empty(n, { dtype = dtype }):truncated_normal_(1, rng) end,
        function(n, rng) return mf.random.rotations(n, { rng = rng, dtype = dtype }) end,
        function(n, rng) return mf.random.igso3(n, 0.5, { rng = rng, dtype = dtype }) end,
      } do
        local whole, parts = mf.rng(5, 2), mf.rng(5, 2)
        local x = make(1009, whole)
        local y = mf.cat({ make(1, parts), make(31, parts), make(0, parts), make(977, parts) }, 1)
        assert.are.equal(x:bytes(), y:bytes())
        assert.are.same(whole:state(), parts:state())
        assert.are.equal(1009, whole:state().counter)
        assert.are_not.equal(x:bytes(), make(1009, mf.rng(5, 3)):bytes())
        assert.are_not.equal(x:bytes(), make(1009, mf.rng(6, 2)):bytes())
      end
    end
  end)

  it("gives float32 the double draw, rounded", function()
    local double = mf.randn(1009, { rng = mf.rng(1), dtype = "float64" })
    assert.are.equal(double:float():bytes(), mf.randn(1009, { rng = mf.rng(1) }):bytes())
  end)

  it("fills tensors with gaps like tensors without", function()
    local x, y = mf.zeros(7, 5), mf.zeros(5, 7):t()
    x:normal_(0, 1, mf.rng(9))
    y:normal_(0, 1, mf.rng(9))
    assert.are.equal(x:bytes(), y:bytes())
  end)
end)

describe("uniform numbers", function()
  it("stay in [lo, hi) with the right moments, in every floating type", function()
    local n = 200000
    for i, dtype in ipairs { "float32", "float64", "float16", "bfloat16" } do
      local x = mf.empty(n, { dtype = dtype }):uniform_(-1, 3, mf.rng(i)):double()
      local mean, variance = moments(x)
      -- bfloat16 rounds by up to 2^-8 near 2, unbiased but for the values that would reach hi and go to lo instead
      local bias = dtype == "bfloat16" and 4 * 2 ^ -9 or dtype == "float16" and 4 * 2 ^ -12 or 0
      within(mean, 1, math.sqrt(16 / 12 / n) + bias)
      within(variance, 16 / 12, 16 * math.sqrt(1 / 180 / n) + 4 * bias)
      assert.is_true(x:min():item() >= -1 and x:max():item() < 3)
    end
  end)

  it("never give hi, also where rounding would", function()
    local x = mf.empty(100003):uniform_(1, 1 + 2 ^ -22, mf.rng(1))
    assert.is_true(x:max():item() < 1 + 2 ^ -22)
    assert.is_true(x:min():item() >= 1)
  end)

  it("refuse empty and infinite intervals, and whole numbers", function()
    naive.fails(function() mf.empty(3):uniform_(1, 1) end, "not a finite interval")
    naive.fails(function() mf.empty(3):uniform_(0, math.huge) end, "not a finite interval")
    naive.fails(function() mf.zeros(3, { dtype = "int32" }):uniform_(0, 1) end, "floating")
  end)
end)

describe("normal numbers", function()
  it("have the moments and quantiles of the normal law", function()
    local n = 200000
    local x = mf.empty(n, { dtype = "float64" }):normal_(2, 3, mf.rng(1))
    local mean, variance = moments(x)
    within(mean, 2, 3 / math.sqrt(n))
    within(variance, 9, 9 * math.sqrt(2 / n))
    local z = ((x - 2) / 3):values()
    quantiles(z, { [0.00135] = -3, [0.0227501] = -2, [0.158655] = -1, [0.5] = 0, [0.841345] = 1, [0.99865] = 3 })
    local product = 0
    for i = 1, n - 1 do product = product + z[i] * z[i + 1] end
    within(product / n, 0, 1 / math.sqrt(n))   -- neighbours are not correlated
  end)

  it("refuse a negative deviation", function()
    naive.fails(function() mf.empty(3):normal_(0, -1) end, "deviation")
  end)
end)

describe("truncated normal numbers", function()
  it("follow the normal law cut at two deviations", function()
    local n, deviation = 200000, 0.5
    local x = mf.empty(n, { dtype = "float64" }):truncated_normal_(deviation, mf.rng(4))
    assert.is_true(x:abs():max():item() <= 2 * deviation)
    local mean, variance = moments(x)
    -- variance of the cut law: 1 - 2 * 2 phi(2) / (1 - 2 P(z < -2)) = 0.774; fourth moments are below 2
    within(mean, 0, deviation / math.sqrt(n))
    within(variance, 0.7737413 * deviation ^ 2, deviation ^ 2 * math.sqrt(2 / n))
    local inside = 0.9544997361
    quantiles((x / deviation):values(), {
      [(0.1586552539 - 0.0227501319) / inside] = -1, [0.5] = 0, [(0.9331927987 - 0.0227501319) / inside] = 1.5,
      [(0.9331927987 - 0.0227501319 + 0.0334) / inside] = 1.8349,   -- 0.96659 is Phi(1.8349): the outer range of the inverse
    }, 1e-4)
  end)
end)

describe("random rotations", function()
  it("are rotations, uniform: density (1 - cos w) / pi of the angle", function()
    local n = 100000
    local R = mf.random.rotations(n, { dtype = "float64", rng = mf.rng(2) })
    local identity = R:matmul(R:transpose(2, 3)) - mf.eye(3, { dtype = "float64" })
    assert.is_true(identity:abs():max(1):max():item() < 1e-14)
    local values, angles, mean = R:values(), {}, {}
    for i = 0, n - 1 do
      local m = {}
      for k = 1, 9 do
        m[k] = values[9 * i + k]
        mean[k] = (mean[k] or 0) + m[k] / n
      end
      local d = m[1] * (m[5] * m[9] - m[6] * m[8]) - m[2] * (m[4] * m[9] - m[6] * m[7]) + m[3] * (m[4] * m[8] - m[5] * m[7])
      assert.is_true(math.abs(d - 1) < 1e-13)
      angles[i + 1] = math.acos(math.max(-1, math.min(1, (m[1] + m[5] + m[9] - 1) / 2)))
    end
    for k = 1, 9 do within(mean[k], 0, math.sqrt(1 / 3 / n)) end
    -- flow.md 1.6, last row; the quantiles have four decimals and the density is below 2 / pi
    quantiles(angles, { [0.1] = 1.2690, [0.25] = 1.7664, [0.5] = 2.3099, [0.75] = 2.7437, [0.9] = 2.9842 }, 5e-5)
  end)

  it("name a shape that does not end in 3 x 3", function()
    assert.are.equal(C.MF_ESHAPE, C.mf_random_rotations(mf.zeros(3, 4), mf.rng(1)))
    assert.is_truthy(ffi.string(C.mf_error_text()):find("(3, 4) must end in 3 x 3", 1, true))
  end)
end)

describe("igso3", function()
  local n = 100000
  local function angles_of(sigma, seed)
    local v = mf.random.igso3(n, sigma, { dtype = "float64", rng = mf.rng(seed) }):values()
    local angles, axis = {}, { 0, 0, 0 }
    for i = 1, n do
      local x, y, z = v[3 * i - 2], v[3 * i - 1], v[3 * i]
      local w = math.sqrt(x * x + y * y + z * z)
      angles[i] = w
      if w > 0 then axis[1], axis[2], axis[3] = axis[1] + x / w, axis[2] + y / w, axis[3] + z / w end
    end
    for k = 1, 3 do within(axis[k] / n, 0, math.sqrt(1 / 3 / n)) end
    return angles
  end

  it("has the mean angles of flow.md 1.6", function()
    for sigma, expected in pairs { [0.05] = 0.079780, [0.1] = 0.159510, [0.5] = 0.789547, [1.0] = 1.521210, [1.5] = 2.006532 } do
      local mean, variance = moments(mf.tensor(angles_of(sigma, 11), { dtype = "float64" }))
      within(mean, expected, math.sqrt(variance / n) + 1e-6)
    end
  end)

  it("has the quantiles of flow.md 1.6", function()
    -- printed to four decimals: at a density of at most 1 / sigma that is 5e-5 / sigma of probability
    quantiles(angles_of(0.1, 12), { [0.1] = 0.0764, [0.25] = 0.1101, [0.5] = 0.1538, [0.75] = 0.2026, [0.9] = 0.2500 }, 5e-4)
    quantiles(angles_of(1.5, 13), { [0.1] = 1.0395, [0.25] = 1.4903, [0.5] = 2.0503, [0.75] = 2.5820, [0.9] = 2.9146 }, 5e-5)
  end)

  it("is uniform for a very wide sigma, flat for a very narrow one, and nothing for 0", function()
    quantiles(angles_of(1000, 14), { [0.1] = 1.2690, [0.5] = 2.3099, [0.9] = 2.9842 }, 5e-5)
    -- angle / sigma has the law of the length of three normals: mean 2 sqrt(2 / pi), variance 3 - 8 / pi
    for _, sigma in ipairs { 1e-3, 1e-9 } do
      local mean = moments(mf.tensor(angles_of(sigma, 15), { dtype = "float64" }) / sigma)
      within(mean, 2 * math.sqrt(2 / math.pi), math.sqrt((3 - 8 / math.pi) / n))
    end
    assert.are.equal(0, mf.random.igso3(33, 0, { rng = mf.rng(1) }):abs():sum():item())
  end)

  it("agrees across the change of formula at sigma 1", function()
    local a = mf.random.igso3(1009, 1 - 1e-9, { dtype = "float64", rng = mf.rng(3) })
    local b = mf.random.igso3(1009, 1, { dtype = "float64", rng = mf.rng(3) })
    -- six digits of the closed form; the density stays above 0.01 over nearly all of the draws
    assert.is_true((a - b):abs():max(1):max():item() < 1e-4)
  end)

  it("takes a sigma for each element and gives each what it would get alone", function()
    local sigma = mf.tensor({ 1.5, 0.1, 1.5, 0.7, 0.1 }, { dtype = "float64" })
    local all = mf.random.igso3(sigma, { dtype = "float64", rng = mf.rng(8) })
    for i, s in ipairs { 1.5, 0.1, 1.5, 0.7, 0.1 } do
      local one = mf.random.igso3(5, s, { dtype = "float64", rng = mf.rng(8) })
      assert.are.equal(one:narrow(1, i, 1):bytes(), all:narrow(1, i, 1):bytes())
    end
  end)

  it("refuses a negative sigma and draws nothing", function()
    local rng = mf.rng(1)
    naive.fails(function() mf.random.igso3(5, -0.5, { rng = rng }) end, "sigma -0.5")
    assert.are.equal(0, rng:state().counter)
  end)
end)

describe("permutations", function()
  it("hold every number once, in both types", function()
    for _, dtype in ipairs { "int32", "int64" } do
      for _, n in ipairs { 0, 1, 2, 31, 1009 } do
        local seen = {}
        for _, v in ipairs(mf.random.permutation(n, { dtype = dtype, rng = mf.rng(n) }):values()) do seen[v] = true end
        for i = 0, n - 1 do assert.is_true(seen[i]) end
      end
    end
    local small = mf.random.permutation(97, { rng = mf.rng(1) }):values()
    assert.are.same(small, mf.random.permutation(97, { dtype = "int64", rng = mf.rng(1) }):values())
  end)

  it("come in every order equally often", function()
    local counts, n, rng = {}, 24000, mf.rng(6)
    for _ = 1, n do
      local key = table.concat(mf.random.permutation(4, { rng = rng }):values())
      counts[key] = (counts[key] or 0) + 1
    end
    local chi, orders = 0, 0
    for _, count in pairs(counts) do
      orders = orders + 1
      chi = chi + (count - n / 24) ^ 2 / (n / 24)
    end
    assert.are.equal(24, orders)
    within(chi, 23, math.sqrt(2 * 23))
  end)
end)

describe("draws of a packing", function()
  local lengths, streams = { 5, 0, 1, 300, 4 }, { 7, 7, 2 ^ 40, 3, 12 }
  local packing, first = mf.packing(lengths), mf.rng_from { seed = 5, stream = 100, counter = 17 }
  local sigma = mf.rand({ packing:total() }, { dtype = "float64", rng = mf.rng(4) })

  -- What the generator of each sequence draws by itself, joined.
  local function one_by_one(draw)
    local parts = {}
    for s, n in ipairs(lengths) do
      local rng = mf.rng_from { seed = 5, stream = 100 + streams[s], counter = 17 }
      if n > 0 then parts[#parts + 1] = draw(n, rng, packing:offset(s)) end
    end
    return mf.cat(parts, 1)
  end

  for _, dtype in ipairs { "float32", "float64" } do
    local o = { dtype = dtype }
    it("are those of each sequence's own generator, bit for bit: " .. dtype, function()
      for _, rows in ipairs { 1, 3 } do
        support.same_bits(mf.random.normal_each(first, streams, packing, 3, { dtype = dtype, rows = rows }),
          one_by_one(function(n, rng) return mf.randn(rows * n, 3, { dtype = dtype, rng = rng }) end))
        support.same_bits(mf.random.rotations_each(first, streams, packing, { dtype = dtype, rows = rows }),
          one_by_one(function(n, rng) return mf.random.rotations(rows * n, { dtype = dtype, rng = rng }) end))
      end
      local scales = sigma:to(dtype)
      support.same_bits(mf.random.igso3_each(first, mf.tensor(streams, { dtype = "int64" }), packing, scales, o),
        one_by_one(function(n, rng, at)
          return mf.random.igso3(scales:narrow(1, at + 1, n):contiguous(), { dtype = dtype, rng = rng })
        end))
      support.same_bits(mf.random.igso3_each(first, streams, packing, mf.tensor({ 0.3 }, o), o),
        one_by_one(function(n, rng) return mf.random.igso3(n, 0.3, { dtype = dtype, rng = rng }) end))
    end)
  end

  it("do not move the generator on, and exist for no residues", function()
    mf.random.normal_each(first, streams, packing, 3)
    assert.same({ seed = 5, stream = 100, counter = 17 }, first:state())
    assert.same({ 0, 3 }, mf.random.normal_each(first, { 1 }, mf.packing { 0 }, 3):shape())
  end)

  it("say what does not fit", function()
    naive.fails(function() mf.random.normal_each(first, { 1, 2 }, packing, 3) end, "streams (2) must be (5), one a sequence")
    naive.fails(function() mf.random.normal_each(first, mf.zeros(5), packing, 3) end, "streams is float32, expected int64")
    naive.fails(function() mf.random.rotations_each(7, streams, packing) end, "argument 1 must be a generator")
    naive.fails(function() mf.random.normal_each(first, streams, packing, 3, { dtype = "int32" }) end, "needs float32 or float64")
    naive.fails(function() mf.random.igso3_each(first, streams, packing, mf.zeros(3)) end, "sigma (3) must be (1) or (310)")
    naive.fails(function() mf.random.igso3_each(first, streams, packing, mf.tensor { -1 }) end, "sigma -1")
  end)
end)
