--- matmul and linear: against loops, over broadcast axes and views, and their gradients.
local mf = require "moonfold"
local naive = require "spec.support.naive"
local check = require "spec.support.geometry"

local function normal(shape, dtype, seed)
  for _, n in ipairs(shape) do
    if n == 0 then return mf.empty(shape, { dtype = dtype or "float64" }) end
  end
  return naive.normal(shape, dtype, seed)
end

--- a (m, k) times b (k, n) by three loops, as a flat list.
local function loops(a, b)
  local m, k, n = a:size(1), a:size(2), b:size(2)
  local x, y, out = a:values(), b:values(), {}
  for i = 0, m - 1 do
    for j = 1, n do
      local sum = 0
      for l = 0, k - 1 do sum = sum + x[i * k + l + 1] * y[l * n + j] end
      out[i * n + j] = sum
    end
  end
  return out
end

-- one past the sizes at which the kernel changes its way: vectors, plain loops (512 products), a fork (2^19 products)
local sizes = { { 1, 1, 1 }, { 3, 3, 3 }, { 1, 67, 33 }, { 67, 33, 1 }, { 8, 8, 9 }, { 31, 1, 33 }, { 67, 130, 67 }, { 0, 3,
  2 }, { 3, 0, 2 } }

describe("matmul", function()
  for _, size in ipairs(sizes) do
    local m, k, n = unpack(size)
    it(("agrees with loops at %dx%d by %dx%d, on views too"):format(m, k, k, n), function()
      local a, b = normal({ m, k }, nil, 1), normal({ k, n }, nil, 2)
      local expected = loops(a, b)
      local a_turned, b_turned = a:t():contiguous():t(), b:t():contiguous():t()
      for _, x in ipairs { a, a_turned } do
        for _, y in ipairs { b, b_turned } do
          -- a sum of k products of size 1: k roundings of at most its own size
          naive.close(expected, x:matmul(y), 1e-15 * (k + 1))
          naive.close(expected, x:float():matmul(y:float()), 1.2e-7 * (k + 3))
        end
      end
    end)
  end

  it("reads a slice with gaps and a matrix repeated by expand", function()
    local wide = normal { 7, 20 }
    local a, b = wide:narrow(2, 3, 5), normal({ 5, 4 }, nil, 2)
    naive.close(loops(a:contiguous(), b), a:matmul(b), 1e-14)
    local every_other = normal({ 7, 5, 2 }, nil, 3):select(3, 2)
    naive.close(loops(every_other:contiguous(), b), every_other:matmul(b), 1e-14)
    local row = normal({ 1, 5 }, nil, 4):expand(7, 5)
    naive.close(loops(row:contiguous(), b), row:matmul(b), 1e-14)
  end)

  it("broadcasts leading axes, merged or not", function()
    for _, case in ipairs {
      { { 3, 4, 5 }, { 5, 2 } }, { { 4, 5 }, { 3, 5, 2 } }, { { 2, 1, 4, 5 }, { 3, 5, 2 } }, { { 2, 3, 4, 5 }, { 2, 1, 5, 2 } },
      { { 6, 2, 3, 4, 5 }, { 2, 1, 5, 2 } }, { { 70, 3, 3 }, { 70, 3, 3 } }, { { 0, 4, 5 }, { 5, 2 } },
    } do
      local a, b = normal(case[1], nil, 1), normal(case[2], nil, 2)
      local y = a:matmul(b)
      local shape = y:shape()
      local lead = {}
      for i = 1, #shape - 2 do lead[i] = shape[i] end
      local function full(x)
        local s = { unpack(lead) }
        s[#s + 1], s[#s + 2] = x:size(-2), x:size(-1)
        return x:expand(s):contiguous():reshape(-1, x:size(-2), x:size(-1))
      end
      if y:count() > 0 then
        local fa, fb, flat = full(a), full(b), y:reshape(-1, shape[#shape - 1], shape[#shape])
        for i = 1, flat:size(1) do naive.close(loops(fa:select(1, i), fb:select(1, i)), flat:select(1, i), 1e-14) end
      end
    end
  end)

  it("rounds once in 16-bit types", function()
    local a, b = normal({ 33, 67 }, "float32", 1), normal({ 67, 31 }, "float32", 2)
    for name, half_spacing in pairs { bfloat16 = 2 ^ -8, float16 = 2 ^ -11 } do
      local x, y = a:to(name), b:to(name)
      local expected = loops(x:to("float64"), y:to("float64"))
      -- the float32 sum's own error, 67 products of size up to 10, is far below half a spacing
      naive.close(expected, x:matmul(y):to("float64"), half_spacing * 1.01)
    end
  end)

  it("differentiates both sides #grad", function()
    for _, case in ipairs { { { 3, 4 }, { 4, 2 } }, { { 2, 3, 4 }, { 4, 2 } }, { { 3, 4 }, { 2, 4, 2 } }, { { 2, 1, 3, 2 }, { 3,
      2, 2 } }, { { 2, 2, 3, 2 }, { 1, 2, 3 } } } do
      check.gradients_match(function(a, b) return a:matmul(b) end, { normal(case[1], nil, 3), normal(case[2], nil, 4) })
    end
    check.gradients_match(function(a, b) return a:t():matmul(b:narrow(2, 2, 2)) end, { normal({ 4, 3 }, nil, 5), normal({ 4,
      3 }, nil, 6) })
  end)

  it("gives the same bits twice", function()
    local a, b = normal({ 257, 300 }, "float32", 7), normal({ 300, 129 }, "float32", 8)
    assert.equal(a:matmul(b):bytes(), a:matmul(b):bytes())
  end)

  it("says what does not fit", function()
    naive.fails(function() mf.zeros(2, 3):matmul(mf.zeros(4, 5)) end,
      "matmul: (2, 3) by (4, 5): axis 2 of the first is 3, axis 1 of the second 4")
    naive.fails(function() mf.zeros(3):matmul(mf.zeros(3, 5)) end, "at least 2 expected; reshape a vector")
    naive.fails(function() mf.zeros(2, 2, 3):matmul(mf.zeros(3, 3, 5)) end, "do not broadcast: 2 against 3")
    naive.fails(function() mf.zeros(2, 3):matmul(mf.zeros(3, 5, { dtype = "float64" })) end, "matmul: float32 and float64")
    naive.fails(function() mf.zeros(2, 3):int():matmul(mf.zeros(3, 5):int()) end, "int32 is not a floating type")
  end)
end)

describe("linear", function()
  for _, case in ipairs { { { 5 }, 3 }, { { 1, 7 }, 2 }, { { 0, 7 }, 2 }, { { 31, 33 }, 67 }, { { 2, 3, 5 }, 4 }, { { 4, 0 },
    3 } } do
    local shape, width = case[1], case[2]
    it(("is x w' + b for x %s"):format(table.concat(shape, "x")), function()
      local inner = shape[#shape]
      local x, w, b = normal(shape, nil, 1), normal({ width, inner }, nil, 2), normal({ width }, nil, 3)
      local rows = x:count() / math.max(inner, 1)
      if inner == 0 then rows = 4 end
      local expected, bias = loops(x:reshape(rows, inner), w:t():contiguous()), b:values()
      naive.close(expected, x:linear(w), 1e-13)
      for i = 1, #expected do expected[i] = expected[i] + bias[(i - 1) % width + 1] end
      naive.close(expected, x:linear(w, b), 1e-13)
      naive.close(expected, x:float():linear(w:float(), b:float()), 1e-5)   -- 33 roundings of 2^-24, and room
      if #shape > 1 and x:count() > 0 then naive.close(expected, naive.strided(x):linear(w, b), 1e-13) end
    end)
  end

  it("differentiates x, weight and bias #grad", function()
    check.gradients_match(function(x, w, b) return x:linear(w, b) end, { normal({ 2, 3, 4 }, nil, 1), normal({ 5, 4 }, nil, 2),
      normal({ 5 }, nil, 3) })
    check.gradients_match(function(x, w) return x:transpose(1, 2):linear(w) end, { normal({ 4, 3 }, nil, 1), normal({ 2, 4 },
      nil, 2) })
  end)

  it("makes no gradient that nobody asked for", function()
    local x, w = normal({ 3, 4 }, "float32", 1), normal({ 2, 4 }, "float32", 2):require_grad()
    x:linear(w):sum():backward()
    assert.is_nil(x:grad())
    assert.is_not_nil(w:grad())
  end)

  it("says what does not fit", function()
    naive.fails(function() mf.zeros(2, 3):linear(mf.zeros(4, 5)) end,
      "linear: x (2, 3) and weight (4, 5), expected x (..., in) and weight (out, in)")
    naive.fails(function() mf.zeros(2, 3):linear(mf.zeros(4, 3), mf.zeros(3)) end, "linear: bias (3) must be (4)")
  end)
end)

--- v rounded to `bits` binary digits after the first, to nearest; random values meet no ties.
local function rounded(values, bits)
  local out = {}
  for i, v in ipairs(values) do
    local m, e = math.frexp(v)
    out[i] = math.ldexp(math.floor(math.ldexp(m, bits + 1) + 0.5), e - bits - 1)
  end
  return out
end

describe("linear with relu", function()
  local function bits_equal(a, b) assert.is_true(a:bytes() == b:bytes()) end

  for _, case in ipairs { { { 5 }, 3 }, { { 1, 7 }, 2 }, { { 0, 7 }, 2 }, { { 31, 33 }, 67 }, { { 2, 3, 5 }, 4 }, { { 4, 0 }, 3 },
    { { 601, 33 }, 65 }, { { 300, 1 }, 1 } } do
    local shape, width = case[1], case[2]
    local name = table.concat(shape, "x")
    it(("is relu of linear, bit for bit, for x %s"):format(name), function()
      for _, dtype in ipairs { "float32", "float64", "bfloat16", "float16" } do
        local function to(t) return dtype == "float32" and t or t:to(dtype) end
        local x, w = to(normal(shape, "float32", 1)), to(normal({ width, shape[#shape] }, "float32", 2))
        local b = to(normal({ width }, "float32", 3))
        bits_equal(x:linear(w, b):relu(), x:linear(w, b, "relu"))
        bits_equal(x:linear(w):relu(), x:linear(w, nil, "relu"))
      end
    end)

    it(("has the gradients of relu of linear for x %s #grad"):format(name), function()
      local function gradients(fused, gaps)
        local x, w = normal(shape, nil, 1):require_grad(), normal({ width, shape[#shape] }, nil, 2):require_grad()
        local b = normal({ width }, nil, 3):require_grad()
        local y = fused and x:linear(w, b, "relu") or x:linear(w, b):relu()
        local dy = normal(y:shape(), nil, 4)
        if gaps and #shape > 1 and dy:count() > 0 then dy = naive.strided(dy) end
        y:backward(dy)
        return { x:grad(), w:grad(), b:grad() }
      end
      local expected = gradients(false)
      for _, gaps in ipairs { false, true } do
        for i, got in ipairs(gradients(true, gaps)) do naive.close(expected[i]:values(), got, 1e-12) end
      end
    end)
  end

  it("sums gradients of the bias over rows with gaps and in 16-bit types", function()
    local dy = normal({ 700, 20 }, nil, 1):narrow(2, 3, 9)
    local expected = dy:sum(1)
    local x, w = normal({ 700, 4 }, nil, 2), normal({ 9, 4 }, nil, 3)
    local b = mf.zeros(9, { dtype = "float64", requires_grad = true })
    x:linear(w, b):backward(dy)
    naive.close(expected:values(), b:grad(), 1e-13)
    for name, half_spacing in pairs { bfloat16 = 2 ^ -8, float16 = 2 ^ -11 } do
      local short = dy:to(name)
      local bias = mf.zeros(9):to(name):require_grad()
      x:to(name):linear(w:to(name), bias, "relu"):backward(short)
      local kept = x:to(name):linear(w:to(name)):gt(0):double()
      naive.close((short:double() * kept):sum(1):values(), bias:grad():double(), half_spacing * 1.01)
    end
  end)

  it("keeps no more than linear does where its result is the next input", function()
    local x, w = mf.zeros(64, 32), mf.zeros(32, 32, { requires_grad = true })
    local before = mf.memory().live
    local y = x:linear(w, nil, "relu")
    assert.equal(before + 64 * 32 * 4, mf.memory().live)
    assert.is_true(y:requires_grad())
  end)

  it("refuses other activations", function()
    naive.fails(function() mf.zeros(2, 3):linear(mf.zeros(4, 3), nil, "gelu") end,
      "linear: unknown activation 'gelu' (known: none, relu)")
  end)
end)

describe("the precision of products", function()
  local bits = { tf32 = 10, bf16 = 7 }

  after_each(function() mf.products "float32" end)

  for name, digits in pairs(bits) do
    it("rounds the operands of float32 products to " .. name, function()
      local a, b = normal({ 33, 67 }, "float32", 1), normal({ 67, 31 }, "float32", 2)
      local function round(x) return mf.tensor(rounded(x:values(), digits), { dtype = "float64" }):reshape(x:shape()) end
      local expected = loops(round(a), round(b))
      local got = mf.products(name, a.matmul, a, b)
      naive.close(expected, got, 1.2e-7 * 70)             -- 67 products summed in float32
      local bias = normal({ 31 }, "float32", 3)
      for i = 1, #expected do expected[i] = expected[i] + bias:values()[(i - 1) % 31 + 1] end
      naive.close(expected, mf.products(name, function() return a:linear(b:t(), bias) end), 1.2e-7 * 71)
      assert.is_true(got:bytes() ~= a:matmul(b):bytes())
    end)
  end

  it("goes with the product into its gradient #grad", function()
    local function gradients(precision, outside)
      local x, w, b = normal({ 40, 33 }, "float32", 1):require_grad(), normal({ 35, 33 }, "float32", 2):require_grad(),
        normal({ 35 }, "float32", 3):require_grad()
      local y = mf.products(precision, function() return x:linear(w, b, "relu"):matmul(w) end)
      mf.products(outside, y.backward, y, normal({ 40, 33 }, "float32", 4))
      return x:grad():bytes() .. w:grad():bytes() .. b:grad():bytes()
    end
    assert.is_true(gradients("tf32", "float32") == gradients("tf32", "tf32"))
    assert.is_true(gradients("float32", "tf32") == gradients("float32", "float32"))
    assert.is_true(gradients("tf32", "tf32") ~= gradients("float32", "float32"))
  end)

  it("leaves float64, 16-bit types and matrices with a side under 16 as they are", function()
    for _, case in ipairs { { 40, 33, 15 }, { 15, 33, 40 }, { 40, 3, 40 }, { 40, 33, 20, "float64" },
      { 40, 33, 20, "bfloat16" } } do
      local m, k, n, dtype = unpack(case)
      local a, b = normal({ m, k }, "float32", 1):to(dtype or "float32"), normal({ k, n }, "float32", 2):to(dtype or "float32")
      assert.is_true(a:matmul(b):bytes() == mf.products("tf32", a.matmul, a, b):bytes())
    end
    local x, w = normal({ 40, 33 }, "float32", 1), normal({ 6, 33 }, "float32", 2)
    assert.is_true(x:linear(w):bytes() == mf.products("tf32", x.linear, x, w):bytes())
  end)

  it("is the same when a checkpoint calls again", function()
    local w = normal({ 32, 32 }, "float32", 2):require_grad()
    local function gradient(run)
      local x = normal({ 32, 32 }, "float32", 1):require_grad()
      local y = mf.products("bf16", run, function(t) return t:linear(w, nil, "relu"):linear(w) end, x)
      y:sum():backward()
      return x:grad():bytes()
    end
    assert.is_true(gradient(mf.checkpoint) == gradient(function(f, x) return f(x) end))
    assert.equal("float32", mf.products())
  end)

  it("is set for good or for a call, and back after an error", function()
    assert.equal("float32", mf.products())
    assert.equal("tf32", mf.products "tf32")
    assert.equal("bf16", mf.products("bf16", mf.products))
    assert.equal("tf32", mf.products())
    assert.is_false(pcall(mf.products, "bf16", error, "no"))
    assert.equal("tf32", mf.products())
    naive.fails(function() mf.products "fp16" end, "products: unknown precision 'fp16' (known: bf16, float32, tf32)")
  end)
end)
