local mf = require "moonfold"
local naive = require "spec.support.naive"

local inf, nan = math.huge, 0 / 0

-- Sums of n numbers of size 1 in pairwise order: the error is below (the straight part of a block / 4 chains + log n)
-- roundings of the sum of magnitudes; 64 of them cover every size here.
local tolerance = { float32 = 64 * 2 ^ -24, float64 = 64 * 2 ^ -53 }

local function total(list)
  local sum = 0
  for _, v in ipairs(list) do sum = sum + v end
  return sum
end

local shapes = { { 1 }, { 31 }, { 5, 33 }, { 33, 5 }, { 3, 7, 2 }, { 2, 513, 3 }, { 2, 3, 65 } }

describe("sum and mean", function()
  for _, dtype in ipairs { "float32", "float64" } do
    for _, shape in ipairs(shapes) do
      it(("agree with a loop along every axis of %s (%s)"):format(table.concat(shape, "x"), dtype), function()
        local x = naive.normal(shape, dtype)
        for axis = 1, #shape do
          local expected = naive.reduce(x, axis, total)
          -- magnitudes, not the sum, carry the error
          local slack = tolerance[dtype] * shape[axis]
          naive.close(expected, x:sum(axis), slack)
          naive.close(expected, x:sum(axis, true), slack)
          if #shape > 1 then naive.close(expected, naive.strided(x):sum(axis), slack) end
          for i, v in ipairs(expected) do expected[i] = v / shape[axis] end
          naive.close(expected, x:mean(axis), slack)
        end
      end)
    end
  end

  it("take several axes, side by side or apart", function()
    local x = naive.normal { 3, 5, 2, 7 }
    for _, axes in ipairs { { 1, 2 }, { 2, 3 }, { 1, 3 }, { 4, 1 }, { 1, 2, 4 }, { 1, 2, 3, 4 } } do
      local one_by_one = x
      for _, axis in ipairs(axes) do one_by_one = one_by_one:sum(axis, true) end
      local kept = x:sum(axes, true)
      assert.are.same(one_by_one:shape(), kept:shape())
      naive.close(one_by_one:values(), kept, 1e-13)
      naive.close(one_by_one:values(), x:sum(axes), 1e-13)
      assert.are.equal(4 - #axes, x:sum(axes):ndim())
    end
  end)

  it("stay accurate over a million float32 numbers", function()
    -- one accumulator would be off by about 1e-3 here. Of a block of 512 each of four chains adds 128 numbers one by one, and
    -- 11 levels of pairs follow: at most 139 roundings of 2^-24, all one way because the numbers are equal
    local x = mf.full({ 1000003 }, 0.1)
    local exact = 1000003 * 0.1000000014901161
    local bound = 139 * 2 ^ -24
    assert.is_true(math.abs(x:sum():item() / exact - 1) < bound)
    assert.is_true(math.abs(x:reshape(1000003, 1):expand(1000003, 3):sum(1):values()[3] / exact - 1) < bound)
  end)

  it("count bools and add integers in 64 bits", function()
    local x = mf.tensor({ 2000000000, 2000000000, 5 }, { dtype = "int32" })
    assert.are.equal("int64", x:sum():dtype())
    assert.are.equal(4000000005, x:sum():item())
    assert.are.equal(2, mf.tensor({ 1, 0, 3 }):bool():sum():item())
  end)

  it("accumulate 16-bit floats in float", function()
    for _, dtype in ipairs { "float16", "bfloat16" } do
      local x = mf.ones(5000, 2, { dtype = dtype })
      assert.are.equal(dtype, x:sum(1):dtype())
      -- 5000 is 4992 + 8: the nearest value with 8 bits of fraction (bfloat16), exact in float16
      assert.are.equal(dtype == "float16" and 5000 or 4992, x:sum(1):values()[1])
      assert.are.equal(1, x:mean():item())
    end
    -- a mean within the range of float16 whose sum is not
    assert.are.equal(60000, mf.full({ 4 }, 60000, { dtype = "float16" }):mean():item())
  end)

  it("give 0 for the sum of nothing and refuse its mean", function()
    local x = mf.zeros(3, 0, 2)
    naive.close({ 0, 0, 0, 0, 0, 0 }, x:sum(2), 0)
    assert.are.equal(0, x:sum():item())
    assert.are.equal(0, x:sum(1):count())
    naive.fails(function() x:mean(2) end, "mean: shape (3, 0, 2) has no elements to average")
  end)

  it("name what does not fit", function()
    local x = mf.zeros(3, 2)
    naive.fails(function() x:sum { 1, -2 } end, "sum: axis 1 of (3, 2) is listed twice")
    naive.fails(function() x:sum(3) end, "sum: there is no axis 3 in shape (3, 2)")
    naive.fails(function() x:int():mean(1) end, "mean: int32 has no mean")
  end)
end)

describe("max, min, argmax and argmin", function()
  local function best(list, better)
    local at = 1
    for i, v in ipairs(list) do
      if better(v, list[at]) or (v ~= v and list[at] == list[at]) then at = i end
    end
    return at
  end
  local function above(a, b) return a > b end
  local function below(a, b) return a < b end

  for _, dtype in ipairs { "float32", "float64", "int32", "int64", "float16", "bfloat16" } do
    it("agree with a loop and take the first of equals in " .. dtype, function()
      for _, shape in ipairs(shapes) do
        local x = (naive.normal(shape, "float64", 3) * 3):floor():to(dtype)
        for axis = 1, #shape do
          naive.close(naive.reduce(x, axis, function(l) return l[best(l, above)] end), x:max(axis), 0)
          naive.close(naive.reduce(x, axis, function(l) return l[best(l, below)] end), x:min(axis, true), 0)
          naive.close(naive.reduce(x, axis, function(l) return best(l, above) - 1 end), x:argmax(axis), 0)
          naive.close(naive.reduce(x, axis, function(l) return best(l, below) - 1 end), x:argmin(axis), 0)
        end
      end
    end)
  end

  it("let NaN through, at its first place", function()
    for _, rows in ipairs { 4, 100, 20000 } do
      local list = {}
      for i = 1, rows do list[i] = i end
      list[3], list[rows] = nan, nan
      local x = mf.tensor(list)
      for _, y in ipairs { x:reshape(rows, 1):expand(rows, 2), x:reshape(rows, 1) } do
        assert.is_true(y:max(1):values()[1] ~= y:max(1):values()[1])
        assert.is_true(y:min(1):values()[1] ~= y:min(1):values()[1])
        assert.are.equal(2, y:argmax(1):values()[1])
        assert.are.equal(2, y:argmin(1):values()[1])
      end
    end
  end)

  it("send the gradient of equals to the first", function()
    local x = mf.tensor({ { 1, 5, 5 }, { 2, 2, 1 } }, { requires_grad = true })
    x:max(2):sum():backward()
    naive.close({ 0, 1, 0, 1, 0, 0 }, x:grad(), 0)
  end)

  it("refuse an empty axis", function()
    naive.fails(function() mf.zeros(3, 0):max(2) end, "max: axis 2 of (3, 0) is empty")
    naive.fails(function() mf.zeros(3, 0):argmin(2) end, "argmin: axis 2 of (3, 0) is empty")
    assert.are.equal(0, mf.zeros(0, 3):max(2):count())
  end)
end)

describe("logsumexp", function()
  local function lse(list)
    local m = -inf
    for _, v in ipairs(list) do m = math.max(m, v) end
    if m == -inf then return m end
    local sum = 0
    for _, v in ipairs(list) do sum = sum + math.exp(v - m) end
    return m + math.log(sum)
  end

  it("agrees with a loop and does not overflow", function()
    for _, shape in ipairs(shapes) do
      local x = naive.normal(shape) * 300
      for axis = 1, #shape do
        naive.close(naive.reduce(x, axis, lse), x:logsumexp(axis), 1e-13)
        naive.close(naive.reduce(x:float(), axis, lse), x:float():logsumexp(axis, true), 2 ^ -20)
      end
    end
  end)

  it("is -inf where everything is masked, with a gradient of zero", function()
    for _, dtype in ipairs { "float32", "float64" } do
      local x = mf.tensor({ { -inf, -inf }, { -inf, 2 } }, { dtype = dtype, requires_grad = true })
      local y = x:logsumexp(2)
      naive.close({ -inf, 2 }, y, 0)
      y:backward(mf.ones(2, { dtype = dtype }))
      naive.close({ 0, 0, 0, 1 }, x:grad(), 0)
      naive.close({ -inf, 2 }, mf.tensor({ { -inf, -inf }, { -inf, 2 } }, { dtype = dtype }):logsumexp(1), 0)
    end
    assert.are.equal(-inf, mf.zeros(1, 0):logsumexp(2):item())
  end)
end)

describe("cumsum", function()
  it("agrees with a loop", function()
    for _, dtype in ipairs { "float32", "float64", "int32", "int64" } do
      for _, shape in ipairs(shapes) do
        local x = (naive.normal(shape) * 3):to(dtype)
        for axis = 1, #shape do
          local expected = naive.map(x, axis, function(list)
            local sum, out = 0, {}
            for i, v in ipairs(list) do
              sum = sum + v
              out[i] = sum
            end
            return out
          end)
          naive.close(expected, x:cumsum(axis), dtype == "float32" and 2 ^ -23 or 1e-13)
        end
      end
    end
  end)
end)

describe("sort and topk", function()
  local function ranked(list, descending)
    local at = {}
    for i = 1, #list do at[i] = i end
    table.sort(at, function(i, j)
      local a, b = list[i], list[j]
      if a ~= a or b ~= b then return a == a or (b ~= b and i < j) end
      if a == b then return i < j end
      if descending then return a > b end
      return a < b
    end)
    return at
  end

  for _, dtype in ipairs { "float32", "float64", "int32", "int64" } do
    it("are stable in both directions, ties by index, in " .. dtype, function()
      for _, shape in ipairs { { 1 }, { 33 }, { 200 }, { 3, 70, 2 } } do
        local x = (naive.normal(shape) * 4):floor():to(dtype)
        for axis = 1, #shape do
          for _, descending in ipairs { false, true } do
            local function places(list)
              local at = ranked(list, descending)
              for i, v in ipairs(at) do at[i] = v - 1 end
              return at
            end
            local values, index = x:sort(axis, descending)
            naive.close(naive.map(x, axis, places), index, 0)
            naive.close(x:gather(axis, index):values(), values, 0)
            for _, k in ipairs { 0, 1, math.floor(shape[axis] / 9), shape[axis] } do
              local top, at = x:topk(k, axis, descending)
              naive.close(values:narrow(axis, 1, k):values(), top, 0)
              naive.close(index:narrow(axis, 1, k):values(), at, 0)
            end
          end
        end
      end
    end)
  end

  it("put NaN last in both directions and take -0 for 0", function()
    local x = mf.tensor { nan, 2, -0.0, inf, 0, -inf, nan }
    local _, up = x:sort(1)
    naive.close({ 5, 2, 4, 1, 3, 0, 6 }, up, 0)
    local _, down = x:sort(1, true)
    naive.close({ 3, 1, 2, 4, 5, 0, 6 }, down, 0)
  end)

  it("name a k that is too large", function()
    naive.fails(function() mf.zeros(2, 5):topk(6, 2) end, "topk: 6 elements of axis 2 of (2, 5), which has 5")
  end)
end)

describe("segment sums", function()
  it("agree with a loop, with empty and long sequences", function()
    local lengths = { 3, 0, 1, 700, 33 }
    local packing = mf.packing(lengths)
    for _, width in ipairs { 1, 2, 65 } do
      local x = naive.normal { packing:total(), width }
      local values, expected, row = x:values(), {}, 0
      for s, length in ipairs(lengths) do
        for j = 1, width do expected[(s - 1) * width + j] = 0 end
        for _ = 1, length do
          for j = 1, width do
            local at = (s - 1) * width + j
            expected[at] = expected[at] + values[row * width + j]
          end
          row = row + 1
        end
      end
      naive.close(expected, x:segment_sum(packing), 1e-13)
      naive.close(expected, naive.strided(x):segment_sum(packing), 1e-13)
    end
  end)

  it("are undone in shape by segment_expand", function()
    local packing = mf.packing { 2, 0, 3 }
    local y = mf.tensor({ { 1, 2 }, { 3, 4 }, { 5, 6 } }):segment_expand(packing)
    naive.close({ 1, 2, 1, 2, 5, 6, 5, 6, 5, 6 }, y, 0)
    assert.are.equal(2, mf.ones(5):bool():segment_sum(packing):values()[1])
  end)

  it("name a shape that does not fit the packing", function()
    local packing = mf.packing { 2, 3 }
    naive.fails(function() mf.zeros(4, 2):segment_sum(packing) end, "segment_sum: shape (4, 2) does not begin with the 5 residues")
    naive.fails(function() mf.zeros(3, 2):segment_expand(packing) end, "segment_expand: (3, 2) must have 2 along axis 1")
  end)
end)
