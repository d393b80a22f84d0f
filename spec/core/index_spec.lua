local mf = require "moonfold"
local naive = require "spec.support.naive"

local function indices(shape, size, dtype, seed)
  local rng, count, list = mf.rng(seed or 5), 1, {}
  for _, n in ipairs(shape) do count = count * n end
  for i = 1, count do list[i] = math.floor(rng:number() * size) end
  if count == 0 then return mf.zeros(shape, { dtype = dtype }) end
  return mf.tensor(list, { dtype = dtype }):reshape(shape)
end

local function with_size(shape, axis, m)
  local out = {}
  for i, n in ipairs(shape) do out[i] = i == axis and m or n end
  return out
end

local shapes = { { 1 }, { 31 }, { 5, 33 }, { 3, 7, 2 }, { 2, 13, 67 } }

describe("index_select and index_add", function()
  for _, shape in ipairs(shapes) do
    for _, dtype in ipairs { "int32", "int64" } do
      it(("agree with a loop over %s with %s indices"):format(table.concat(shape, "x"), dtype), function()
        for axis = 1, #shape do
          for _, m in ipairs { 0, 1, 41 } do
            local index = indices({ m }, shape[axis], dtype)
            local at, x = index:values(), naive.normal(shape)
            local sources, xs = naive.lines(with_size(shape, axis, m), axis), x:values()
            local expected = {}
            for l, line in ipairs(naive.lines(shape, axis)) do
              for j = 1, m do expected[sources[l][j]] = xs[line[at[j] + 1]] end
            end
            local y = x:index_select(axis, index)
            naive.close(expected, y, 0)
            if #shape > 1 then naive.close(expected, naive.strided(x):index_select(axis, index), 0) end

            local source = naive.normal(with_size(shape, axis, m), nil, 9)
            local s, sum = source:values(), x:values()
            for l, line in ipairs(naive.lines(shape, axis)) do
              for j = 1, m do sum[line[at[j] + 1]] = sum[line[at[j] + 1]] + s[sources[l][j]] end
            end
            naive.close(sum, x:index_add(axis, index, source), 1e-13)
            naive.close(xs, x, 0)
          end
        end
      end)
    end
  end

  it("select from every type", function()
    for _, dtype in ipairs { "float32", "float64", "float16", "bfloat16", "int32", "int64", "bool" } do
      local x = mf.tensor({ 0, 1, 0, 1 }, { dtype = "float32" }):to(dtype)
      local y = x:index_select(1, mf.tensor({ 3, 0, 1 }, { dtype = "int32" }))
      assert.are.equal(dtype, y:dtype())
      naive.close({ 1, 0, 1 }, y:to("float32"), 0)
    end
  end)

  it("name an index that is out of range, its place and the size", function()
    local x = mf.zeros(4, 3)
    local index = mf.tensor({ 0, 3, 4 }, { dtype = "int32" })
    naive.fails(function() x:index_select(1, index) end,
      "index_select: index 4 (entry 3 of the index tensor) must be at least 0 and below 4, the size of the axis")
    naive.fails(function() x:index_add(1, index - 1, mf.zeros(3, 3)) end, "index_add: index -1 (entry 1 of the index tensor)")
  end)

  it("name what does not fit", function()
    local x, index = mf.zeros(4, 3), mf.arange(2)
    naive.fails(function() x:index_select(1, index:float()) end, "index_select: the index is float32, int32 or int64 expected")
    naive.fails(function() x:index_select(1, index:reshape(2, 1)) end, "index_select: the index (2, 1) must have one axis")
    naive.fails(function() x:index_add(2, index, mf.zeros(4, 3)) end,
      "index_add: the source (4, 3) must be like x (4, 3) with 2 along axis 2")
    naive.fails(function() x:index_add(2, index, mf.zeros(4, 2, { dtype = "float64" })) end,
      "index_add: the source is float64, x is float32")
  end)
end)

describe("gather and scatter_add", function()
  for _, shape in ipairs(shapes) do
    it("agree with a loop over " .. table.concat(shape, "x"), function()
      for axis = 1, #shape do
        for _, m in ipairs { 0, 1, 41 } do
          local index = indices(with_size(shape, axis, m), shape[axis], m == 1 and "int64" or "int32")
          local source = naive.normal(with_size(shape, axis, m), nil, 9)
          local at, x, s = index:values(), naive.normal(shape), source:values()
          local places, xs, expected, sum = naive.lines(with_size(shape, axis, m), axis), x:values(), {}, x:values()
          for l, line in ipairs(naive.lines(shape, axis)) do
            for j = 1, m do
              local from = line[at[places[l][j]] + 1]
              expected[places[l][j]] = xs[from]
              sum[from] = sum[from] + s[places[l][j]]
            end
          end
          naive.close(expected, x:gather(axis, index), 0)
          naive.close(sum, x:scatter_add(axis, index, source), 1e-13)
          if #shape > 1 and m > 1 then
            naive.close(expected, naive.strided(x):gather(axis, naive.strided(index)), 0)
            naive.close(sum, x:scatter_add(axis, naive.strided(index), naive.strided(source)), 1e-13)
          end
        end
      end
    end)
  end

  it("give the same bits every time, whatever the collisions", function()
    local x, source = mf.zeros(7), mf.randn(50000, { rng = mf.rng(3) })
    local index = indices({ 50000 }, 7, "int32")
    local first = x:scatter_add(1, index, source):bytes()
    for _ = 1, 5 do assert.are.equal(first, x:scatter_add(1, index, source):bytes()) end
    assert.are.equal(first, x:index_add(1, index, source):bytes())
  end)

  it("name an index that is out of range and a shape that does not fit", function()
    local x = mf.zeros(4, 3)
    local index = mf.tensor({ { 0, 1, 4 } }, { dtype = "int32" })
    naive.fails(function() x:gather(1, index) end, "gather: index 4 (entry 3 of the index tensor) must be at least 0 and below 4")
    naive.fails(function() x:scatter_add(1, index, mf.zeros(1, 3)) end, "scatter_add: index 4 (entry 3")
    naive.fails(function() x:gather(1, mf.arange(3)) end, "gather: the index (3) must have as many axes as x (4, 3)")
    naive.fails(function() x:gather(2, index) end, "gather: the index (1, 3) must be like x (4, 3) with 3 along axis 2")
    naive.fails(function() x:scatter_add(1, index, mf.zeros(2, 3)) end,
      "scatter_add: the source (2, 3) must be like x (4, 3) with 1 along axis 1")
  end)
end)
