-- Random numbers on a GPU: the CPU's bits where arithmetic is exact, the CPU's values to rounding elsewhere.
local mf = require "moonfold"
local support = require "spec.support"

describe("random numbers on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function both(make)
    return make(mf.rng(3, 7), device):to "cpu", make(mf.rng(3, 7), "cpu")
  end
  -- log, sin, cos, exp and erf in double differ by a few units between libraries; then a value is rounded to its type
  local rounding = { float64 = 2 ^ -48, float32 = 2 ^ -24, float16 = 2 ^ -11, bfloat16 = 2 ^ -8 }

  for dtype, epsilon in pairs(rounding) do
    it("are drawn as on the CPU: " .. dtype, function()
      for _, n in ipairs { 0, 1, 33, 5003 } do
        support.same_bits(both(function(rng, to) return mf.rand(n, { dtype = dtype, rng = rng, device = to }) end))
        local ours, theirs = both(function(rng, to) return mf.randn(n, { dtype = dtype, rng = rng, device = to }) end)
        support.close(ours, theirs, epsilon)
        ours, theirs = both(function(rng, to)
          return mf.zeros(n, { dtype = dtype, device = to }):truncated_normal_(0.3, rng)
        end)
        support.close(ours, theirs, epsilon)
      end
    end)
  end

  it("never reach the upper bound", function()
    local x = mf.zeros(4096, { dtype = "bfloat16", device = device }):uniform_(1, 1.01, mf.rng(1)):to "cpu":float()
    assert.is_true(x:max(1):item() < 1.01)
    assert.is_true(x:min(1):item() >= 1)
  end)

  it("move the generator on as on the CPU", function()
    local a, b = mf.rng(1), mf.rng(1)
    mf.randn(33, { rng = a, device = device })
    mf.randn(33, { rng = b })
    assert.are.same(b:state(), a:state())
  end)

  for _, dtype in ipairs { "float32", "float64" } do
    it("make rotations and angles of the CPU: " .. dtype, function()
      for _, n in ipairs { 0, 1, 129 } do
        local ours, theirs = both(function(rng, to) return mf.random.rotations(n, { dtype = dtype, rng = rng, device = to }) end)
        support.close(ours, theirs, rounding[dtype])
        for _, sigma in ipairs { 0, 1e-8, 0.02, 0.5, 1.5, 200 } do
          ours, theirs = both(function(rng, to)
            local o = { dtype = dtype, device = to, rng = rng }
            return mf.random.igso3(mf.full({ n }, sigma, { dtype = dtype, device = to }), o)
          end)
          -- the table of 1000 knots is summed in another order, and an angle divides by the difference of two entries
          support.close(ours, theirs, math.max(rounding[dtype], 1e-9))
        end
      end
    end)
  end

  it("draw for each sequence of a packing as on the CPU", function()
    local packing, streams = mf.packing { 5, 0, 1, 300, 4 }, { 7, 7, 2 ^ 40, 3, 12 }
    for dtype, epsilon in pairs { float64 = rounding.float64, float32 = rounding.float32 } do
      for _, rows in ipairs { 1, 3 } do
        local function o(to) return { dtype = dtype, device = to, rows = rows } end
        local ours, theirs = both(function(rng, to) return mf.random.normal_each(rng, streams, packing, 3, o(to)) end)
        support.close(ours, theirs, epsilon)
        ours, theirs = both(function(rng, to) return mf.random.rotations_each(rng, streams, packing, o(to)) end)
        support.close(ours, theirs, epsilon)
      end
      local ours, theirs = both(function(rng, to)
        local sigma = mf.full({ 310 }, 1.5, { dtype = dtype, device = to })
        return mf.random.igso3_each(rng, streams, packing, sigma, { dtype = dtype, device = to })
      end)
      support.close(ours, theirs, math.max(epsilon, 1e-9))
    end
  end)

  it("make angles of runs of equal sigmas and of none", function()
    local sigmas = {}
    for i = 1, 300 do sigmas[i] = i <= 100 and 0.1 or i <= 200 and 1.2 or i % 7 == 0 and 0 or i / 200 end
    local ours, theirs = both(function(rng, to)
      return mf.random.igso3(mf.tensor(sigmas, { dtype = "float64" }):to(to), { dtype = "float64", rng = rng, device = to })
    end)
    support.close(ours, theirs, 1e-9)
  end)

  it("refuse a sigma that is none when the host next waits", function()
    local sigma = mf.tensor({ 0.5, -0.5 }, { dtype = "float64" }):to(device)
    mf.random.igso3(sigma, { dtype = "float64", rng = mf.rng(1), device = device })
    support.error_matches(function() mf.synchronize(device) end,
      "random.igso3: sigma of element 2 must be finite and at least 0", true)
  end)

  it("permute as on the CPU, bit for bit", function()
    for _, dtype in ipairs { "int32", "int64" } do
      for _, n in ipairs { 0, 1, 2, 3, 33, 1000, 20011 } do
        support.same_bits(both(function(rng, to) return mf.random.permutation(n, { dtype = dtype, rng = rng, device = to }) end))
      end
    end
  end)
end)
