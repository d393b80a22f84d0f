local mf = require "moonfold"
local naive = require "spec.support.naive"
local support = require "spec.support"

local inf = math.huge

local function softmax(list)
  local m, sum, out = -inf, 0, {}
  for _, v in ipairs(list) do m = math.max(m, v) end
  if m == -inf then
    for i = 1, #list do out[i] = 0 end
    return out
  end
  for _, v in ipairs(list) do sum = sum + math.exp(v - m) end
  for i, v in ipairs(list) do out[i] = math.exp(v - m) / sum end
  return out
end

local function log_softmax(list)
  local out = softmax(list)
  for i, v in ipairs(out) do out[i] = math.log(v) end
  return out
end

local shapes = { { 1 }, { 31 }, { 5, 33 }, { 33, 5 }, { 3, 7, 2 }, { 2, 513, 3 }, { 2, 3, 65 } }

describe("softmax and log_softmax", function()
  for _, shape in ipairs(shapes) do
    it("agree with a loop along every axis of " .. table.concat(shape, "x"), function()
      local x = naive.normal(shape) * 5
      for axis = 1, #shape do
        local y, l = naive.map(x, axis, softmax), naive.map(x, axis, log_softmax)
        naive.close(y, x:softmax(axis), 1e-14)
        naive.close(l, x:log_softmax(axis), 1e-12)
        -- float: x - m, |x| up to 25, is rounded to 2^-20, the exponential to 1.5e-7
        naive.close(naive.map(x:float(), axis, softmax), x:float():softmax(axis), 1e-6)
        naive.close(naive.map(x:float(), axis, log_softmax), x:float():log_softmax(axis), 1e-6)
        if #shape > 1 then naive.close(y, naive.strided(x):softmax(axis), 1e-14) end
      end
    end)
  end

  it("write zeros, and a logarithm of -inf, where everything is masked", function()
    for _, dtype in ipairs { "float32", "float64" } do
      for _, axis in ipairs { 1, 2 } do
        local x = mf.full({ 3, 3 }, -inf, { dtype = dtype })
        local zeros, lows = {}, {}
        for i = 1, 9 do zeros[i], lows[i] = 0, -inf end
        naive.close(zeros, x:softmax(axis), 0)
        naive.close(lows, x:log_softmax(axis), 0)
        x:require_grad()
        x:softmax(axis):backward(mf.ones(3, 3, { dtype = dtype }))
        naive.close(zeros, x:grad(), 0)
      end
    end
  end)

  it("do not overflow at 1e4 and keep NaN visible", function()
    local x = mf.tensor { 1e4, 1e4 - 1, -1e4 }
    naive.close(softmax { 1, 0, -2e4 }, x:softmax(1), 1e-6)
    local y = mf.tensor({ -inf, 0 / 0, -inf }):softmax(1):values()
    assert.is_true(y[2] ~= y[2])
  end)

  it("refuse integers and axes that are not there", function()
    naive.fails(function() mf.arange(3):softmax(1) end, "softmax: int32, float32 or float64 expected")
    naive.fails(function() mf.zeros(3):log_softmax(2) end, "log_softmax: there is no axis 2 in shape (3)")
  end)
end)

describe("layer_norm", function()
  local function loop(x, weight, bias, epsilon)
    local w, b = weight:values(), bias:values()
    return naive.map(x, x:ndim(), function(list)
      local mean, variance, out = 0, 0, {}
      for _, v in ipairs(list) do mean = mean + v / #list end
      for _, v in ipairs(list) do variance = variance + (v - mean) ^ 2 / #list end
      for j, v in ipairs(list) do out[j] = (v - mean) / math.sqrt(variance + epsilon) * w[j] + b[j] end
      return out
    end)
  end

  for _, shape in ipairs { { 1 }, { 2, 1 }, { 5, 33 }, { 3, 7, 2 }, { 2, 700 } } do
    it("agrees with a loop over " .. table.concat(shape, "x"), function()
      local columns = shape[#shape]
      local x, w, b = naive.normal(shape), naive.normal({ columns }, nil, 2), naive.normal({ columns }, nil, 3)
      naive.close(loop(x, w, b, 1e-5), x:layer_norm(w, b), 1e-12)
      naive.close(loop(x, w, b, 1e-2), x:layer_norm(w, b, 1e-2), 1e-12)
      -- a row of one column is all epsilon: x - mean is exactly 0 in both
      naive.close(loop(x:float(), w:float(), b:float(), 1e-5), x:float():layer_norm(w:float(), b:float()), 64 * 2 ^ -24)
      if #shape > 1 then naive.close(loop(x, w, b, 1e-5), naive.strided(x):layer_norm(w, b), 1e-12) end
    end)
  end

  it("survives a mean far above the deviation", function()
    -- x is exact in float32; one pass, mean of squares less the square of the mean, would lose every digit
    local x = mf.tensor { 100000, 100001, 100002, 100003 }
    local w, b = mf.ones(4), mf.zeros(4)
    naive.close(loop(x, w, b, 1e-5), x:layer_norm(w, b), 1e-6)
  end)

  it("sums the gradients of weight and bias over any number of rows", function()
    for _, rows in ipairs { 0, 1, 63, 65, 1000 } do
      local x, dy = naive.normal { rows, 3 }, naive.normal({ rows, 3 }, nil, 4)
      local w = mf.ones(3, { dtype = "float64", requires_grad = true })
      local b = mf.zeros(3, { dtype = "float64", requires_grad = true })
      local plain = mf.no_grad(function() return x:layer_norm(w, b) end)
      x:layer_norm(w, b):backward(dy)
      naive.close((plain * dy):sum(1):values(), w:grad(), 1e-11)
      naive.close(dy:sum(1):values(), b:grad(), 1e-11)
    end
  end)

  it("names the operand that does not fit", function()
    local x = mf.zeros(2, 5)
    naive.fails(function() x:layer_norm(mf.ones(4), mf.zeros(5)) end,
      "layer_norm: weight (4) must be (5), the last axis of x (2, 5)")
    naive.fails(function() x:layer_norm(mf.ones(5), mf.zeros(5, { dtype = "float64" })) end,
      "layer_norm: bias is float64, x is float32")
  end)
end)

describe("add_layer_norm", function()
  local function outcome(f, a, b, w, c)
    local leaves = {}
    for i, t in ipairs { a, b, w, c } do leaves[i] = t:clone():require_grad() end
    local y = f(unpack(leaves))
    local dy = naive.normal(a:shape(), "float64", 5):to(a:dtype())
    y:backward(dy)
    local list = { y:detach() }
    for i, leaf in ipairs(leaves) do list[i + 1] = leaf:grad() end
    return list
  end

  for _, shape in ipairs { { 5, 1 }, { 3, 33 }, { 2, 3, 7 }, { 129, 8 }, { 2, 1030 }, { 0, 4 }, { 6 } } do
    it("is the layer norm of the sum of " .. table.concat(shape, "x"), function()
      local columns, rows = shape[#shape], 1
      for i = 1, #shape - 1 do rows = rows * shape[i] end
      local a, b = naive.normal(shape, "float64", 1), naive.normal(shape, "float64", 2)
      local w, c = naive.normal({ columns }, "float64", 3), naive.normal({ columns }, "float64", 4)
      local mask = naive.normal({ rows }, "float64", 6)
      local column_shape = { unpack(shape, 1, #shape - 1) }
      column_shape[#column_shape + 1] = 1
      for _, m in ipairs { false, mask } do
        local want = outcome(function(u, v, x, y)
          return (u + (m and v * m:reshape(column_shape) or v)):layer_norm(x, y)
        end, a, b, w, c)
        local got = outcome(function(u, v, x, y) return u:add_layer_norm(v, x, y, 1e-5, m or nil) end, a, b, w, c)
        for i = 1, 5 do support.close(got[i], want[i], 1e-13, "tensor " .. i) end
        local float = { a:float(), b:float(), w:float(), c:float() }
        local small = outcome(function(u, v, x, y)
          return (u + (m and v * m:float():reshape(column_shape) or v)):layer_norm(x, y)
        end, unpack(float))
        local ours = outcome(function(u, v, x, y) return u:add_layer_norm(v, x, y, 1e-5, m and m:float() or nil) end, unpack(float))
        for i = 1, 5 do
          support.close(ours[i], want[i], 2 * support.difference(small[i], want[i]) + 2 ^ -23, "float32 tensor " .. i)
        end
      end
    end)
  end

  it("takes a bool mask, a column, and views", function()
    local a, b = naive.normal { 4, 6 }, naive.normal({ 4, 6 }, "float64", 2)
    local one, zero = mf.ones(6, { dtype = "float64" }), mf.zeros(6, { dtype = "float64" })
    local mask = mf.tensor { 1, 0, 1, 1 }
    local want = (a + b * mask:double():reshape(4, 1)):layer_norm(one, zero)
    for _, m in ipairs { mask, mask:bool(), mask:reshape(4, 1) } do
      support.close(support.strided(a):add_layer_norm(support.strided(b), one, zero, 1e-5, m), want, 1e-14)
    end
  end)

  it("gives a and b one gradient, which sums where they are one tensor", function()
    local a = naive.normal({ 3, 5 }):require_grad()
    local one, zero = mf.ones(5, { dtype = "float64" }), mf.zeros(5, { dtype = "float64" })
    local dy = naive.normal({ 3, 5 }, "float64", 9)
    a:add_layer_norm(a, one, zero):backward(dy)
    local twice = (a:detach() * 1):require_grad()
    local doubled = twice * 2
    doubled:layer_norm(one, zero):backward(dy)
    support.close(a:grad(), twice:grad(), 1e-14)
  end)

  it("names the tensor that does not fit", function()
    local x, one = mf.zeros(2, 5), mf.ones(5)
    naive.fails(function() x:add_layer_norm(mf.zeros(5), one, one) end,
      "add_layer_norm: (5) cannot be added to (2, 5), the shapes must be equal")
    naive.fails(function() x:add_layer_norm(mf.zeros(2, 5, { dtype = "float64" }), one, one) end,
      "add_layer_norm: float64 to be added to float32")
    naive.fails(function() x:add_layer_norm(x, mf.ones(4), one) end,
      "add_layer_norm: weight (4) must be (5), the last axis of x (2, 5)")
    naive.fails(function() x:add_layer_norm(x, one, one, 1e-5, mf.ones(3)) end,
      "add_layer_norm: mask (3) must have 2 elements, one for each row of x (2, 5)")
    naive.fails(function() mf.zeros(2, 5):require_grad():add_layer_norm(x, one, one, 1e-5, mf.ones(2):require_grad()) end,
      "add_layer_norm: the mask takes no gradient; detach it")
  end)
end)
