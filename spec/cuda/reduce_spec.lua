-- Reductions on a GPU against the CPU: every shape of grid (lines of a few lanes, a warp, a block; columns; serial; chunks).
local mf = require "moonfold"
local agree = require "spec.support.agree"
local support = require "spec.support"

describe("reductions on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function normal(...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(1) }) end
  local function method(name, ...)
    local arguments, n = { ... }, select("#", ...)
    return function(x) return x[name](x, unpack(arguments, 1, n)) end
  end
  local function text(shape) return table.concat(shape, "x") end

  -- shapes and the axis that is reduced
  local shapes = {
    { { 1 }, 1 }, { { 5, 2 }, 2 }, { { 5, 3 }, 2 }, { { 3, 7 }, 2 }, { { 40, 32 }, 2 }, { { 7, 33 }, 2 }, { { 2, 1025 }, 2 },
    { { 3, 4096 }, 2 }, { { 1, 9001 }, 2 }, { { 70001 }, 1 }, { { 2, 66564 }, 2 },
    { { 31, 3 }, 1 }, { { 129, 8 }, 1 }, { { 5, 4 }, 1 }, { { 200, 36 }, 1 },
    { { 2, 65, 5 }, 2 }, { { 3, 20, 64 }, 2 }, { { 700, 132 }, 1 },
    { { 14001, 5 }, 1 }, { { 2200, 32 }, 1 }, { { 9, 4, 3 }, 2 },
  }
  for _, case in ipairs(shapes) do
    local shape, axis = unpack(case)
    it(("sums and averages %s along axis %d"):format(text(shape), axis), function()
      local x = normal(unpack(shape))
      agree(device, method("sum", axis), { x }, { gradients = true })
      agree(device, method("mean", axis, true), { x })
      if x:count() < 5000 then agree(device, function(t) return support.strided(t):sum(axis) end, { x }) end
      local shifted = mf.cat({ normal(1), x:reshape(-1) }, 1)
      agree(device, function(t) return t:narrow(1, 2, x:count()):reshape(shape):sum(axis) end, { shifted })
    end)

    it(("finds the extremes of %s along axis %d, the first of equals"):format(text(shape), axis), function()
      local x = (normal(unpack(shape)) * 3):floor()
      for _, dtype in ipairs { "float32", "float64", "float16", "bfloat16", "int32", "int64", "bool" } do
        local here = x:to(dtype)
        local there = here:to(device)
        for _, name in ipairs { "max", "min", "argmax", "argmin" } do
          support.close(there[name](there, axis):to "cpu", here[name](here, axis), 0, name .. " of " .. dtype)
        end
      end
    end)

    it(("runs sums over %s along axis %d, both ways"):format(text(shape), axis), function()
      agree(device, method("cumsum", axis), { normal(unpack(shape)) }, { gradients = true })
      local whole = (normal(unpack(shape)) * 50):floor()
      for _, dtype in ipairs { "int32", "int64" } do
        local x = whole:to(dtype)
        support.close(x:to(device):cumsum(axis):to "cpu", x:cumsum(axis), 0)
      end
    end)
  end

  for _, dtype in ipairs { "float16", "bfloat16", "int32", "int64", "bool" } do
    it("sums " .. dtype, function()
      for _, shape in ipairs { { 3, 70 }, { 70, 12 }, { 66000 } } do
        local x = (normal(unpack(shape)) * 2):floor():to(dtype)
        for axis = 1, #shape do support.close(x:to(device):sum(axis):to "cpu", x:sum(axis), 0) end
        if dtype:find "float" then support.close(x:to(device):mean():to "cpu", x:mean(), 0) end
      end
    end)
  end

  it("takes NaN for more extreme than every number", function()
    local x = mf.tensor { { 1, 0 / 0, 3, 0 / 0 }, { -math.huge, 2, math.huge, 1 }, { -0.0, 0, -0.0, 0 } }
    for _, name in ipairs { "max", "min", "argmax", "argmin" } do
      for _, y in ipairs { x, x:t():contiguous() } do
        local axis = y:size(1) == 3 and 2 or 1
        support.close(y:to(device)[name](y:to(device), axis):to "cpu", y[name](y, axis), 0, name)
      end
    end
  end)

  it("sums nothing to zero and refuses the extremes of nothing", function()
    support.close(mf.zeros(3, 0, 2):to(device):sum(2):to "cpu", mf.zeros(3, 2), 0)
    support.close(mf.zeros(3, 0):to(device):sum(2):to "cpu", mf.zeros(3), 0)
    assert.equal(0, mf.zeros(0, 3):to(device):sum(2):count())
    assert.has_error(function() mf.zeros(3, 0):to(device):max(2) end)
  end)

  it("gives the same bits again", function()
    local x = normal(2, 66564):float():to(device)
    support.same_bits(x:sum():to "cpu", x:sum():to "cpu")
    support.same_bits(x:sum(1):to "cpu", x:sum(1):to "cpu")
  end)

  it("counts beyond 2^31 elements #slow", function()
    if support.emulated() then return end
    local rows, columns = 1024, 2 ^ 21 + 1
    local x = mf.ones(rows, columns, { dtype = "bool", device = device })
    assert.equal(rows * columns, x:sum():item())
    for axis, count in ipairs { rows, columns } do
      local y = x:sum(axis)
      assert.equal(count, y:min():item())
      assert.equal(count, y:max():item())
    end
    x:narrow(2, columns, 1):zero_()
    assert.equal(columns - 1, x:argmin(2):min():item())
    local float = mf.ones(columns, rows, { device = device })
    local bias = mf.arange(rows):to(device):float()
    local y = float:layer_norm(bias, bias)
    for _, row in ipairs { 1, columns } do support.close(y:select(1, row):to "cpu", bias:to "cpu", 0) end
    assert.equal(columns, float:sum(1):min():item())
    assert.equal(0, float:squared_error(float):max():item())
  end)
end)
