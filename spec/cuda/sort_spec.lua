-- Sorting on a GPU: the CPU's values and indices exactly.
local mf = require "moonfold"
local support = require "spec.support"

describe("sorting on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local types = { "float32", "float64", "int32", "int64" }

  local function same(x, k, axis)
    local there = x:to(device)
    for _, descending in ipairs { false, true } do
      local values, index = x:sort(axis, descending)
      local got, at = there:sort(axis, descending)
      support.close(got:to "cpu", values, 0, "values")
      support.close(at:to "cpu", index, 0, "index")
      values, index = x:topk(k, axis, descending)
      got, at = there:topk(k, axis, descending)
      support.close(got:to "cpu", values, 0, "values of topk")
      support.close(at:to "cpu", index, 0, "index of topk")
    end
  end

  -- 2048 and 4096 items fill a tile of 64 and of 32 bits; beyond, tiles are merged
  local cases = {
    { { 1 }, 1, 1 }, { { 2 }, 1, 1 }, { { 7, 3 }, 1, 2 }, { { 7, 33 }, 2, 20 }, { { 3, 5, 4 }, 2, 3 },
    { { 40, 17 }, 1, 5 }, { { 1, 1025 }, 2, 2 }, { { 2, 4097 }, 2, 30 }, { { 13000 }, 1, 3000 },
    { { 9001, 2 }, 1, 1 }, { { 3, 0 }, 2, 0 }, { { 0, 5 }, 2, 2 },
  }
  for _, case in ipairs(cases) do
    local shape, axis, k = unpack(case)
    it(("sorts %s along axis %d"):format(table.concat(shape, "x"), axis), function()
      local x = (mf.randn(shape, { dtype = "float64", rng = mf.rng(4) }) * 20):floor()      -- with many equals
      for _, dtype in ipairs(types) do same(x:to(dtype), k, axis) end
    end)
  end

  it("puts NaN last both ways and takes -0 for 0", function()
    local x = mf.tensor { 0, -0.0, 0 / 0, -math.huge, math.huge, 1, 0 / 0, -0.0, -1 }
    same(x, 9, 1)
    same(x:double(), 4, 1)
    local signs = x:to(device):sort(1):to("cpu"):reciprocal():values()
    assert.same({ math.huge, -math.huge, -math.huge }, { signs[3], signs[4], signs[5] })
  end)

  it("orders the largest and smallest integers", function()
    same(mf.tensor({ 2147483647, -2147483648, 0, -1 }, { dtype = "int32" }), 2, 1)
    same(mf.tensor({ 2 ^ 52, -2 ^ 52, 0, -1, 1 }, { dtype = "int64" }), 2, 1)
  end)
end)
