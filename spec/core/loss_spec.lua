local mf = require "moonfold"
local naive = require "spec.support.naive"
local support = require "spec.support"

local inf = math.huge
local float64 = { dtype = "float64" }

-- The same from small operations.
local function composed(a, b, weight)
  local square = (a - b):square()
  if weight then
    local shape = weight:shape()
    for i = #shape + 1, a:ndim() do shape[i] = 1 end
    square = square * weight:reshape(shape)
  end
  return square:reshape(a:size(1), -1):sum(2)
end

-- Result and gradients of f(a, b) for a cotangent that differs by row.
local function all(f, a, b)
  a, b = a:clone():require_grad(), b:clone():require_grad()
  local y = f(a, b)
  y:backward(mf.arange(y:size(1)):to(y:dtype()) + 1)
  return y:detach(), a:grad(), b:grad()
end

describe("squared_error", function()
  for _, shape in ipairs { { 0, 3 }, { 1, 1 }, { 33, 3 }, { 7, 5, 3 }, { 3, 0 }, { 2, 1537 }, { 5 } } do
    it("is the sum of squares of " .. table.concat(shape, "x") .. ", with and without weights", function()
      local a, b = naive.normal(shape), naive.normal(shape)
      for first = 0, #shape do
        local weight = first > 0 and naive.normal({ unpack(shape, 1, first) }) or nil
        local want = { all(function(u, v) return composed(u, v, weight) end, a, b) }
        for i, got in ipairs { all(function(u, v) return u:squared_error(v, weight) end, a, b) } do
          support.close(got, want[i], 1e-14, "float64 " .. i)
        end
        local single = weight and weight:float()
        for i, got in ipairs { all(function(u, v) return u:squared_error(v, single) end, a:float(), b:float()) } do
          support.close(got, want[i], 8 * 2 ^ -24, "float32 " .. i)    -- two roundings of inputs, difference, square, sum
        end
      end
    end)
  end

  it("takes views and gives one side's gradient alone", function()
    local a, b = naive.normal { 5, 4 }, naive.normal { 5, 4 }
    support.close(support.strided(a):squared_error(support.strided(b)), a:squared_error(b), 0)
    local leaf = b:clone():require_grad()
    a:squared_error(leaf):sum():backward()
    support.close(leaf:grad(), (b - a) * 2, 1e-15)
  end)

  it("says what does not fit", function()
    local a = mf.zeros(3, 4)
    naive.fails(function() a:squared_error(mf.zeros(4, 3)) end, "squared_error: shapes (3, 4) and (4, 3) must be equal")
    naive.fails(function() a:squared_error(mf.zeros(3, 4, float64)) end,
      "squared_error: float32 against float64, the types must be equal")
    naive.fails(function() a:squared_error(a, mf.ones(4)) end, "squared_error: weight (4) must be the first axes of (3, 4)")
    naive.fails(function() a:squared_error(a, mf.ones(3, float64)) end, "squared_error: weight is float64, the values are float32")
    naive.fails(function() mf.zeros(3, 4):require_grad():squared_error(a, mf.ones(3):require_grad()) end,
      "squared_error: the weight takes no gradient; detach it")
    naive.fails(function() mf.arange(3):squared_error(mf.arange(3)) end, "squared_error: int32, float32 or float64 expected")
  end)
end)

describe("cross_entropy", function()
  for _, shape in ipairs { { 0, 3 }, { 1, 1 }, { 33, 5 }, { 3, 1025 } } do
    it("is what log_softmax gives at the target of " .. table.concat(shape, "x"), function()
      local rows, classes = unpack(shape)
      local x = naive.normal(shape) * 5
      for _, dtype in ipairs { "int32", "int64" } do
        local target = (mf.rand(rows, { rng = mf.rng(3) }) * classes):floor():to(dtype)
        local function picked(a) return -a:log_softmax(2):gather(2, target:reshape(rows, 1)):reshape(rows) end
        local want = { all(picked, x, x) }
        local got = { all(function(a) return a:cross_entropy(target) end, x, x) }
        support.close(got[1], want[1], 1e-14)
        support.close(got[2], want[2], 1e-14)
        got = { all(function(a) return a:cross_entropy(target) end, x:float(), x) }
        support.close(got[1], want[1], 2e-6)     -- logits up to 20 are rounded to 2^-20
        support.close(got[2], want[2], 4e-6)
      end
    end)
  end

  it("does not overflow, and is infinite where the target is masked", function()
    local target = mf.arange(3)
    local y = mf.tensor({ { 1e4, 0, 0 }, { 0, -1e4, 0 }, { 1, 2, -inf } }, float64):cross_entropy(target)
    naive.close({ 0, 1e4 + math.log(2), inf }, y, 1e-15)
    local x = mf.full({ 1, 2 }, -inf):require_grad()
    local loss = x:cross_entropy(mf.zeros(1, { dtype = "int32" }))
    naive.close({ inf }, loss, 0)
  end)

  it("says what does not fit", function()
    local x = mf.zeros(2, 3)
    local function target(...) return mf.tensor({ ... }, { dtype = "int64" }) end
    naive.fails(function() x:cross_entropy(target(0, 3)) end,
      "cross_entropy: target 3 (row 2) must be at least 0 and below 3, the number of classes")
    naive.fails(function() x:cross_entropy(target(-1, 0)) end, "cross_entropy: target -1 (row 1) must be at least 0 and below 3")
    naive.fails(function() x:cross_entropy(target(0)) end, "cross_entropy: logits (2, 3) and target (1), (N, C) and (N) expected")
    naive.fails(function() x:cross_entropy(x) end, "cross_entropy: target is float32, int32 or int64 expected")
  end)
end)
