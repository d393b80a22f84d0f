-- More elements than 32 bits count, on a real GPU with room for them (20 GB): first and last elements and those around 2^31 are
-- right.
local mf = require "moonfold"
local support = require "spec.support"

describe("more than 2^31 elements on a GPU #gpu #large", function()
  local device = support.cuda()
  if not device then return end
  if support.emulated() then return pending("an emulated GPU has no room for them") end
  mf.zeros(1, { device = device }):release()      -- opens it
  if mf.memory(device).total < 20e9 then return pending("the GPU has less than 20 GB") end

  local BORDER = 2 ^ 31
  local n = BORDER + 4099
  local places = { 1, 2, BORDER - 1, BORDER, BORDER + 1, BORDER + 2, n - 1, n }

  after_each(function()
    collectgarbage()
    mf.flush(device)
  end)

  -- Element i (from 1) of x as a number, whatever its shape.
  local function at(x, i) return x:reshape(x:count()):narrow(1, i, 1):to("float64"):item() end
  -- A tensor of `value` with a number of its own at each of `places`.
  local function marked(dtype, value, count)
    local x = mf.full({ count or n }, value, { dtype = dtype, device = device })
    mf.no_grad(function()
      for k, i in ipairs(places) do x:narrow(1, i, 1):fill_(dtype == "bool" and 1 or k) end
    end)
    return x
  end
  local function check(x, other, expected)
    for k, i in ipairs(places) do assert.are.equal(expected(k), at(x, i), "element " .. i) end
    assert.are.equal(other, at(x, 3))
    assert.are.equal(other, at(x, BORDER + 4))
  end

  it("are filled, copied, cast and summed", function()
    mf.scope(function()
      local x = marked("bool", 0)
      assert.are.equal(#places, x:sum():item())
      check(x:clone(), 0, function() return 1 end)
      local half = x:to "float16"
      check(half, 0, function() return 1 end)
      check(half:to "bool":logical_not(), 1, function() return 0 end)
    end)
  end)

  it("go through unary and binary functions, broadcast and not", function()
    mf.scope(function()
      local x = marked("float16", 9)
      check(x:square(), 81, function(k) return k * k end)
      check(x + x, 18, function(k) return 2 * k end)
      check(x:ge(5), 1, function(k) return k >= 5 and 1 or 0 end)
      check(x * mf.tensor(2, { dtype = "float16" }):to(device), 18, function(k) return 2 * k end)
    end)
  end)

  it("lie in rows, apart and turned", function()
    mf.scope(function()
      local rows, columns = 65537, 32772
      local x = mf.zeros(rows, columns, { dtype = "float16", device = device })
      local function mark(i, j, value) mf.no_grad(function() x:narrow(1, i, 1):narrow(2, j, 1):fill_(value) end) end
      mark(1, 1, 1)
      mark(rows, columns, 2)
      mark(rows, 1, 3)
      mark(1, columns, 4)
      mark(40000, 32000, 5)
      local function look(y, turned)
        local function value(i, j)
          if turned then i, j = j, i end
          return y:narrow(1, i, 1):narrow(2, j, 1):to("float64"):item()
        end
        assert.are.same({ 1, 2, 3, 4, 5, 0, 0 }, {
          value(1, 1), value(rows, columns), value(rows, 1), value(1, columns), value(40000, 32000), value(40000, 31999),
          value(65536, 32772),
        })
      end
      look(x:t():contiguous(), true)
      look(x:narrow(2, 1, columns) + mf.zeros(columns, { dtype = "float16", device = device }))
      local part = x:narrow(2, 2, columns - 1):contiguous()       -- rows that are no vectors
      assert.are.equal(5, part:narrow(1, 40000, 1):narrow(2, 31999, 1):to("float64"):item())
      assert.are.equal(2, part:narrow(1, rows, 1):narrow(2, columns - 1, 1):to("float64"):item())
    end)
  end)

  it("are selected from and into", function()
    mf.scope(function()
      local x = marked("float16", 9, n + 5):reshape((n + 5) / 8, 8)
      local rows = x:size(1)
      local index = mf.tensor({ 0, BORDER / 8 - 1, BORDER / 8, rows - 1 }, { dtype = "int64" }):to(device)
      local y = x:index_select(1, index):to "cpu":to("float64"):totable()
      assert.are.same({ 1, 2, 9, 9, 9, 9, 9, 9 }, y[1])
      assert.are.same({ 9, 9, 9, 9, 9, 9, 3, 4 }, y[2])
      assert.are.same({ 5, 6, 9, 9, 9, 9, 9, 9 }, y[3])
      local z = x:gather(1, index:unsqueeze(2):expand(4, 8)):to "cpu":to("float64"):totable()
      assert.are.same(y, z)
    end)
    mf.scope(function()
      local m = 2 ^ 27 + 5
      local index = mf.zeros(m, { dtype = "int32", device = device })
      mf.no_grad(function() index:narrow(1, m, 1):fill_(2) end)
      local y = (mf.arange(48):to(device):reshape(3, 16)):gt(31):index_select(1, index)
      assert.are.equal(BORDER + 80, y:count())
      assert.are.equal(16, y:sum():item())
      assert.are.equal(1, at(y, y:count()))
      assert.are.equal(1, at(y, y:count() - 15))
      assert.are.equal(0, at(y, y:count() - 16))
    end)
  end)

  it("are drawn", function()
    mf.scope(function()
      local x = mf.zeros(n, { dtype = "float16", device = device }):uniform_(0, 1, mf.rng(5))
      local late = mf.rng(5):state()
      late.counter = late.counter + BORDER
      local tail = mf.zeros(4099, { dtype = "float16" }):uniform_(0, 1, mf.rng_from(late))
      support.same_bits(x:narrow(1, BORDER + 1, 4099):clone():to "cpu", tail)
      support.same_bits(x:narrow(1, 1, 64):clone():to "cpu", mf.zeros(64, { dtype = "float16" }):uniform_(0, 1, mf.rng(5)))
    end)
  end)
end)
