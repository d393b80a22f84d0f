local mf = require "moonfold"
local support = require "spec.support"
local naive = require "spec.support.naive"
local gradients_match = require "spec.support.gradients"
local F = require "moonfold.ffi"
local ffi = require "ffi"
local C = F.C

local inf, nan = math.huge, 0 / 0

-- Phi(x) in double: the series around 0, the continued fraction beyond 1.5.
local function phi(x)
  local a = math.abs(x)
  if a < 1.5 then
    local term, sum = a, a
    for k = 1, 80 do
      term = term * a * a / (2 * k + 1)
      sum = sum + term
    end
    local half = sum * math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    return x > 0 and 0.5 + half or 0.5 - half
  end
  local fraction = a
  for k = 600, 1, -1 do fraction = a + k / fraction end
  local tail = math.exp(-a * a / 2) / math.sqrt(2 * math.pi) / fraction
  return x > 0 and 1 - tail or tail
end

local function sigmoid(x) return 1 / (1 + math.exp(-x)) end

-- 1 + u loses the low digits of a small u: four terms of the series are exact to 1e-17 below 1e-3
local function softplus(x)
  local u = math.exp(x)
  if u < 1e-3 then return u * (1 - u * (1 / 2 - u * (1 / 3 - u * (1 / 4 - u / 5)))) end
  return math.log(1 + u)
end

-- name, function, interval of inputs
local unary = {
  { "neg", function(x) return -x end, -9, 9 }, { "abs", math.abs, -9, 9 }, { "floor", math.floor, -9, 9 },
  { "sign", function(x) return x > 0 and 1 or x < 0 and -1 or 0 end, -9, 9 },
  { "exp", math.exp, -80, 80 }, { "log", math.log, 1e-3, 1e3 }, { "sqrt", math.sqrt, 1e-3, 1e3 },
  { "rsqrt", function(x) return 1 / math.sqrt(x) end, 1e-3, 1e3 }, { "square", function(x) return x * x end, -9, 9 },
  { "reciprocal", function(x) return 1 / x end, 0.1, 9 }, { "sin", math.sin, -9, 9 }, { "cos", math.cos, -9, 9 },
  { "acos", math.acos, -0.99, 0.99 }, { "tanh", math.tanh, -6, 6 }, { "sigmoid", sigmoid, -60, 60 },
  { "relu", function(x) return math.max(x, 0) end, -9, 9 }, { "gelu", function(x) return x * phi(x) end, -12, 9 },
  { "silu", function(x) return x * sigmoid(x) end, -60, 60 },
  { "softplus", softplus, -60, 19 },
}

local function relative(x, expected)
  local worst = 0
  for i, v in ipairs(x:values()) do
    local d = math.abs(v - expected[i]) / math.max(math.abs(expected[i]), 1e-30)
    worst = math.max(worst, v == expected[i] and 0 or d == d and d or inf)
  end
  return worst
end

local function map(x, f)
  local out = {}
  for i, v in ipairs(x:values()) do out[i] = f(v) end
  return out
end

describe("unary functions", function()
  -- float: 2e-7 is what vector.h promises, Phi 3.3e-7 and a product more for gelu. libm's double functions are good to
  -- a unit or two; the Lua formulas of sigmoid, gelu and softplus lose as much again. sin and cos near their
  -- zeros: both sides round the same argument. 16 bits: the result is rounded once more.
  local bound = { float32 = 4e-7, float64 = 2e-13, float16 = 2 ^ -11 + 4e-7, bfloat16 = 2 ^ -8 + 4e-7 }
  for _, case in ipairs(unary) do
    local name, f, lo, hi = case[1], case[2], case[3], case[4]
    it("compute " .. name .. " in every floating type, with gaps and without", function()
      for dtype, limit in pairs(bound) do
        for _, n in ipairs { 1, 31, 33, 1009 } do
          local x = support.random.uniform(lo, hi, n)
          if dtype == "float16" then x = x:clamp(-9, 9) end
          x = x:to(dtype)
          local got, expected = x[name](x), map(x, f)
          local gaps = support.strided(x)
          assert.are.equal(dtype, got:dtype())
          -- float16 results below its least normal number keep fewer digits
          if dtype == "float16" then naive.close(expected, got, limit)
          else assert.is_true(relative(got, expected) <= limit, ("%s %s %g"):format(name, dtype, relative(got, expected))) end
          assert.are.equal(got:bytes(), gaps[name](gaps):bytes())
        end
      end
    end)
  end

  it("give nothing for no elements and keep scalars scalar", function()
    assert.are.same({ 0, 3 }, mf.zeros(0, 3):exp():shape())
    assert.are.same({}, mf.tensor(0):exp():shape())
    assert.are.equal(1, mf.tensor(0):exp():item())
  end)

  it("keep limits and NaN", function()
    local x = mf.tensor { inf, -inf, nan, 1e4, -1e4 }
    local expected = {
      exp = { inf, 0, nan, inf, 0 }, tanh = { 1, -1, nan, 1, -1 }, sigmoid = { 1, 0, nan, 1, 0 },
      relu = { inf, 0, nan, 1e4, 0 }, gelu = { inf, 0, nan, 1e4, 0 }, silu = { inf, 0, nan, 1e4, 0 },
      softplus = { inf, 0, nan, 1e4, 0 }, abs = { inf, inf, nan, 1e4, 1e4 }, sign = { 1, -1, nan, 1, -1 },
    }
    for _, dtype in ipairs { "float32", "float64" } do
      for name, list in pairs(expected) do
        local t = x:to(dtype)
        for i, v in ipairs(t[name](t):values()) do
          assert.is_true(v == list[i] or (v ~= v and list[i] ~= list[i]), ("%s %s, element %d: %g"):format(name, dtype, i, v))
        end
      end
      local slopes = {
        exp = { 0 }, gelu = { 1, 0 }, silu = { 1, 0 }, softplus = { 1, 0 }, sigmoid = { 0, 0 }, tanh = { 0, 0 }, relu = { 1, 0 },
      }
      for name, list in pairs(slopes) do
        local t = (name == "exp" and mf.tensor { -inf } or mf.tensor { inf, -inf }):to(dtype):require_grad()
        t[name](t):sum():backward()
        assert.are.same(list, t:grad():values(), name .. " " .. dtype)
      end
    end
    assert.are.same({ -2, 3, 0.5 }, mf.tensor({ -inf, inf, 0.5 }):clamp(-2, 3):values())
  end)

  it("work on whole numbers where that has a meaning, and say so where not", function()
    for _, dtype in ipairs { "int32", "int64" } do
      local x = mf.tensor({ -3, 0, 5 }, { dtype = dtype })
      assert.are.same({ 3, 0, -5 }, x:neg():values())
      assert.are.same({ 3, 0, 5 }, x:abs():values())
      assert.are.same({ -1, 0, 1 }, x:sign():values())
      assert.are.same({ -5, 1, 11 }, x:affine(2, 1):values())
      assert.are.same({ -2, 0, 4 }, x:clamp(-2.5, 4.5):values())
      assert.are.equal(dtype, x:affine(2, 1):dtype())
      naive.fails(function() x:tanh() end, "tanh: needs a floating type, not " .. dtype)
      assert.are.equal(C.MF_EVALUE, C.mf_affine(F.out, x, 0.5, 0))
    end
    assert.are.same({ -2147483648 }, mf.tensor({ -2147483648 }, { dtype = "int32" }):neg():values())   -- wraps
  end)
end)

describe("gradients", function()
  teardown(function() jit.flush() end)   -- compiled traces hold closures, and those the tensors of a case

  for _, case in ipairs(unary) do
    local name = case[1]
    it("of " .. name .. " agree with differences", function()
      local lo, hi = case[3], case[4]
      if lo < -9 or hi > 9 then lo, hi = math.max(lo, -4), math.min(hi, 4) end
      local x = support.random.uniform(lo, hi, 3, 11)
      -- away from the kinks at whole numbers and, for log and its like, from their pole
      x = name == "log" and x + 0.5 or name == "sqrt" and x + 0.5 or name == "rsqrt" and x + 0.5 or name == "reciprocal" and x + 0.5
        or name == "acos" and x * 0.8 or name == "floor" and x:floor() + 0.4 or (x:abs() + 0.05) * x:sign()
      gradients_match(function(t) return t[name](t) end, { x }, { tolerance = 1e-8 })
    end)
  end

  it("of powers, clamp, rounding and affine agree with differences", function()
    local x = support.random.uniform(0.5, 2, 7)
    gradients_match(function(t) return t ^ 3, t ^ -1.5, t:affine(3, -1), t:clamp(0.1, 3) * t end, { x }, { tolerance = 1e-8 })
    gradients_match(function(t) return t:clamp(0.1, 0.4), t:clamp(3, 4) end, { x })
    local t = support.random.normal(33):require_grad()
    t:round_to("bf16"):sum():backward()
    assert.are.same(mf.ones(33):values(), t:grad():values())
  end)

  it("of two inputs are summed over what was broadcast", function()
    local shapes = { { {}, { 3 } }, { { 5, 1 }, { 1, 3 } }, { { 2, 3 }, { 3 } }, { { 4, 1, 3 }, { 2, 1 } }, { { 3 }, { 2, 5, 3 } } }
    for _, pair in ipairs(shapes) do
      local function make(shape) return mf.rand(shape, { dtype = "float64", rng = mf.rng(#shape) }) + 0.5 end
      for _, name in ipairs { "add", "sub", "mul", "div", "pow", "maximum", "minimum", "atan2" } do
        -- the shift keeps maximum away from ties
        local a, b = make(pair[1]), make(pair[2]) * 1.7 + 0.01
        gradients_match(function(x, y) return x[name](x, y) end, { a, b }, { tolerance = 1e-8 })
      end
    end
  end)

  it("of a power at 0 are the limits, not NaN", function()
    local a = mf.tensor({ 0, 0, 2 }, { dtype = "float64" }):require_grad()
    local b = mf.tensor({ 0, 2, 0 }, { dtype = "float64" }):require_grad()
    a:pow(b):sum():backward()
    assert.are.same({ 0, 0, 0 }, a:grad():values())
    assert.are.same({ 0, 0, math.log(2) }, b:grad():values())
  end)

  it("of maximum and minimum go to the first at ties", function()
    for _, name in ipairs { "maximum", "minimum" } do
      local a, b = mf.ones(3):require_grad(), mf.ones(3):require_grad()
      a[name](a, b):sum():backward()
      assert.are.same({ 1, 1, 1 }, a:grad():values())
      assert.are.same({ 0, 0, 0 }, b:grad():values())
    end
  end)

  it("of where follow the choice, summed to the shapes of both sides", function()
    local choice = mf.tensor { { 1, 0, 1 }, { 0, 0, 1 } }:gt(0)
    gradients_match(function(a, b) return mf.where(choice, a, b) end, { support.random.normal(3), support.random.normal(2, 1) })
  end)
end)

describe("binary functions", function()
  local forms = {
    add = function(a, b) return a + b end, sub = function(a, b) return a - b end, mul = function(a, b) return a * b end,
    div = function(a, b) return a / b end, pow = function(a, b) return a ^ b end, maximum = math.max, minimum = math.min,
    atan2 = math.atan2,
  }
  it("broadcast any pair of shapes, contiguous or not", function()
    local shapes = {
      { { 5 }, { 5 } }, { { 31, 33 }, { 33 } }, { { 31, 1 }, { 31, 33 } }, { { 3, 1, 5 }, { 7, 1 } }, { {}, { 4, 3 } },
      { { 1 }, { 1, 1 } }, { { 0, 3 }, { 1, 3 } }, { { 257, 129 }, { 257, 129 } },
    }
    for _, pair in ipairs(shapes) do
      local a, b = support.random.uniform(0.5, 2, unpack(pair[1])), support.random.uniform(0.5, 2, unpack(pair[2]))
      if #pair[1] == 0 then a = mf.tensor(1.5, { dtype = "float64" }) end
      for name, f in pairs(forms) do
        local got = a[name](a, b)
        local x, y = a:expand(got:shape()):values(), b:expand(got:shape()):values()
        local expected = {}
        for i = 1, #x do expected[i] = f(x[i], y[i]) end
        naive.close(expected, got, 1e-15)
        local gaps, also = support.strided(a), support.strided(b)
        assert.are.equal(got:bytes(), gaps[name](gaps, also):bytes())
        -- float: one rounding of each input moves the result by that much; pow has exponents up to 2 and logarithms below 1
        naive.close(expected, a:float()[name](a:float(), b:float()), 5 * 2 ^ -24)
      end
    end
  end)

  it("refuse shapes that do not fit and name both", function()
    naive.fails(function() return mf.ones(5, 4) + mf.ones(3, 4) end, "add: shapes (5, 4) and (3, 4) do not broadcast: 5 against 3")
  end)

  it("do not promote types by themselves in C", function()
    local a, b = mf.ones(3), mf.ones(3, { dtype = "float64" })
    assert.are.equal(C.MF_EDTYPE, C.mf_add(F.out, a, b))
    assert.are.equal("add: one side is float32, the other float64; cast one with :to", ffi.string(C.mf_error_text()))
    assert.is_true(F.out[0] == nil)
    assert.are.equal(C.MF_EDTYPE, C.mf_logical_and(F.out, a, a))
    assert.are.equal(C.MF_EDTYPE, C.mf_div(F.out, mf.arange(3), mf.arange(3)))
    assert.are.equal(C.MF_EVALUE, C.mf_add(F.out, a, nil))
  end)

  it("wrap whole numbers instead of trapping", function()
    local x = mf.tensor({ 2147483647 }, { dtype = "int32" })
    assert.are.same({ -2147483648 }, (x + mf.ones(1, { dtype = "int32" })):values())
    assert.are.same({ 12, -1 }, (mf.tensor({ 3, -1 }, { dtype = "int64" }) * mf.tensor({ 4, 1 }, { dtype = "int64" })):values())
  end)

  it("compare to bool, and NaN with nothing", function()
    local a, b = mf.tensor { 1, 2, nan, 3 }, mf.tensor { 1, 3, nan, 2 }
    assert.are.same({ 1, 0, 0, 0 }, a:eq(b):float():values())
    assert.are.same({ 0, 1, 0, 0 }, a:lt(b):float():values())
    assert.are.same({ 1, 1, 0, 0 }, a:le(b):float():values())
    assert.are.equal("bool", a:le(b):dtype())
    local t, f = mf.tensor({ 1, 1, 0, 0 }):gt(0), mf.tensor({ 1, 0, 1, 0 }):gt(0)
    assert.are.same({ 1, 0, 0, 0 }, t:logical_and(f):float():values())
    assert.are.same({ 1, 1, 1, 0 }, t:logical_or(f):float():values())
    assert.are.same({ 0, 0, 1, 1 }, t:logical_not():float():values())
    assert.are.same({ 1, 0, 0, 1 }, t:eq(f):float():values())
  end)

  it("let NaN through maximum and minimum from either side", function()
    local a, b = mf.tensor { nan, 1 }, mf.tensor { 1, nan }
    for _, v in ipairs(a:maximum(b):values()) do assert.is_true(v ~= v) end
    for _, v in ipairs(a:minimum(b):values()) do assert.is_true(v ~= v) end
  end)
end)

describe("where", function()
  it("chooses elements of every type unchanged", function()
    local choice = mf.tensor({ { 1 }, { 0 } }):gt(0)
    for _, dtype in ipairs { "float32", "float64", "bfloat16", "float16", "int32", "int64", "bool" } do
      local a, b = mf.tensor({ 1, 0, 1 }, { dtype = dtype }), mf.tensor({ { 0 }, { 1 } }, { dtype = dtype })
      assert.are.same({ 1, 0, 1, 1, 1, 1 }, mf.where(choice, a, b):to("float32"):values())
    end
  end)

  it("names the shapes that do not fit, and the type of a condition that is not bool", function()
    naive.fails(function() return mf.where(mf.ones(2):gt(0), mf.ones(3), mf.ones(3)) end, "(2) and (3)")
    assert.are.equal(C.MF_EDTYPE, C.mf_where(F.out, mf.ones(2), mf.ones(2), mf.ones(2)))
  end)
end)

describe("casts", function()
  local types = { "float32", "float64", "bfloat16", "float16", "int32", "int64", "bool" }
  it("keep 0 and 1 through every pair, contiguous or not", function()
    for _, from in ipairs(types) do
      for _, to in ipairs(types) do
        for _, n in ipairs { 0, 1, 37 } do
          local x = mf.arange(n):lt(n / 2):to(from)
          local expected = mf.arange(n):lt(n / 2):float():values()
          assert.are.same(expected, x:to(to):float():values())
          assert.are.same(expected, mf.stack({ x, x }, 2):select(2, 1):to(to):float():values())
        end
      end
    end
  end)

  it("round to nearest, ties to even, once", function()
    local function through(dtype, x, from) return mf.tensor({ x }, { dtype = from or "float64" }):to(dtype):to("float64"):item() end
    assert.are.equal(1, through("float16", 1 + 2 ^ -11))
    assert.are.equal(1 + 2 ^ -9, through("float16", 1 + 3 * 2 ^ -11))
    assert.are.equal(1 + 2 ^ -10, through("float16", 1 + 2 ^ -11 + 2 ^ -40))    -- through float it would tie, and go down
    assert.are.equal(65504, through("float16", 65519.99))
    assert.are.equal(inf, through("float16", 65520))
    assert.are.equal(-inf, through("float16", -1e300))
    assert.are.equal(2 ^ -24, through("float16", 2 ^ -24))
    assert.are.equal(2 ^ -24, through("float16", 2 ^ -25 + 2 ^ -60))
    assert.are.equal(0, through("float16", 2 ^ -25))
    assert.are.equal(1, through("bfloat16", 1 + 2 ^ -8))
    assert.are.equal(1 + 2 ^ -7, through("bfloat16", 1 + 2 ^ -8 + 2 ^ -40))
    assert.are.equal(2 ^ -133, through("bfloat16", 2 ^ -133))
    assert.are.equal(inf, through("bfloat16", 3.4e38))
    assert.are.equal(1 + 2 ^ -9, through("float16", 1 + 3 * 2 ^ -11, "float32"))
    local v = through("float16", nan)
    assert.is_true(v ~= v)
  end)

  it("cut fractions off and stop at the bounds of whole numbers", function()
    local x = mf.tensor({ 2.9, -2.9, 1e30, -1e30, nan }, { dtype = "float64" })
    assert.are.same({ 2, -2, 2147483647, -2147483648, 0 }, x:to("int32"):values())
    assert.are.same({ 2, -2, 2147483647, -2147483648, 0 }, x:float():to("int32"):values())
    assert.are.same({ 2147483647, -2147483648 }, mf.tensor({ 2 ^ 40, -2 ^ 40 }, { dtype = "int64" }):to("int32"):values())
    assert.are.same({ 1, 1, 1, 1, 1 }, x:to("bool"):float():values())
  end)
end)

describe("round_to", function()
  it("keeps the type and gives what a cast there and back gives", function()
    for _, pair in ipairs { { "fp16", "float16" }, { "bf16", "bfloat16" } } do
      for _, dtype in ipairs { "float32", "float64" } do
        local x = support.random.normal(1009):to(dtype)
        x = mf.cat({ x, x * 1e-6, x * 1e5, x * 1e-39 }, 1)
        local got = x:round_to(pair[1])
        assert.are.equal(dtype, got:dtype())
        assert.are.equal(x:to(pair[2]):to(dtype):bytes(), got:bytes())
        assert.are.equal(got:bytes(), got:round_to(pair[1]):bytes())
      end
    end
  end)
end)

describe("dropout", function()
  it("keeps a share of 1 - rate, scaled, and draws the same mask for the gradient", function()
    for _, dtype in ipairs { "float32", "float64" } do
      local n, rate = 100003, 0.3
      local x, rng = mf.ones(n, { dtype = dtype }):require_grad(), mf.rng(3)
      local y = x:dropout(rate, rng)
      assert.are.equal(n, rng:state().counter)
      local kept = 0
      for _, v in ipairs(y:values()) do
        assert.is_true(v == 0 or math.abs(v - 1 / (1 - rate)) < 2e-7)
        if v ~= 0 then kept = kept + 1 end
      end
      assert.is_true(math.abs(kept / n - 0.7) < 5 * math.sqrt(0.21 / n))
      y:sum():backward()
      assert.are.equal(y:bytes(), x:grad():bytes())
    end
  end)

  it("is the identity at rate 0 and refuses 1", function()
    local x, rng = mf.randn(5):require_grad(), mf.rng(3)
    local y = x:dropout(0, rng)
    assert.are.equal(x:bytes(), y:bytes())
    assert.are.equal(0, rng:state().counter)
    y:sum():backward()
    assert.are.same({ 1, 1, 1, 1, 1 }, x:grad():values())
    assert.are.equal(C.MF_EVALUE, C.mf_dropout(F.out, x, 1, rng))
    assert.are.equal(C.MF_EVALUE, C.mf_dropout(F.out, x, -0.1, rng))
    assert.are.equal(C.MF_EVALUE, C.mf_dropout(F.out, x, nan, rng))
  end)
end)

describe("threads", function()
  it("do not change a bit of any result", function()
    local x, b = mf.randn(307, 331), mf.rand(307, 1)
    local function all()
      local h = x:to("float16")
      return { x:gelu():bytes(), (x * b):bytes(), x:t():contiguous():bytes(), h:exp():bytes(), x:dropout(0.5, mf.rng(1)):bytes(),
        mf.randn(100003, { rng = mf.rng(2) }):bytes() }
    end
    C.mf_ctx_threads(F.ctx, 1)
    local one = all()
    C.mf_ctx_threads(F.ctx, 3)
    local three = all()
    C.mf_ctx_threads(F.ctx, 0)
    assert.are.same(one, three)
  end)
end)

describe("the null device", function()
  it("computes the shape alone", function()
    local a = mf.ones(5, 1, { device = "null" })
    assert.are.same({ 5, 3 }, (a + mf.ones(1, 3, { device = "null" })):gelu():shape())
  end)
end)
