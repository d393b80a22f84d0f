-- Rotary positions against a computation in plain Lua, and what rotations have to fulfil.
local mf = require "moonfold"
local support = require "spec.support"
local single = require("spec.support.geometry").single

local rotary = mf.geometry.rotary

-- Indices with gaps, long and negative ones among them.
local places = { 0, 1, 2, 17, 40, 41, 1000, 20000, 99999, 100000, -3 }

local function normal(seed, ...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end
local function index(list, dtype) return mf.tensor(list, { dtype = dtype or "int32" }) end

-- As the index embedding has it (features.h): each step rounded to float32.
local function rounded_angle(n, l, dim, max_len)
  return single(single(n * single(math.pi)) / single(max_len ^ single(2 * l / dim)))
end
local function exact_angle(n, l, dim, max_len) return n * math.pi / max_len ^ (2 * l / dim) end

-- f(i, h, l, a, b): every pair of columns of every head, as tables of x and y have them.
local function each_pair(x, dim, f)
  for i = 1, #x do
    for h = 1, #x[i] do
      for l = 0, dim / 2 - 1 do f(i, h, l, x[i][h][l + 1], x[i][h][dim / 2 + l + 1]) end
    end
  end
end

local function turned(x, list, dim, max_len)
  local from, to = x:totable(), x:totable()
  each_pair(from, dim, function(i, h, l, a, b)
    local angle = rounded_angle(list[i], l, dim, max_len or 2056)
    to[i][h][l + 1] = a * math.cos(angle) - b * math.sin(angle)
    to[i][h][dim / 2 + l + 1] = a * math.sin(angle) + b * math.cos(angle)
  end)
  return mf.tensor(to, { dtype = "float64" })
end

describe("rotary", function()
  for _, size in ipairs { { 1, 2, 2 }, { 3, 6, 6 }, { 2, 9, 6 }, { 2, 300, 270 }, { 1, 5, 2 } } do
    local heads, width, dim = unpack(size)
    it(("turns columns by angles of their residue, copies the rest: %d heads of %d, %d turned"):format(unpack(size)), function()
      local x = normal(1, #places, heads, width)
      local want = turned(x, places, dim)
      -- angles are the same to the bit: a sum of two products of a sine is left, four roundings of 2^-53 each of two terms
      support.close(rotary(x, index(places), dim), want, 8 * 2 ^ -53)
      local narrow = rotary(x:float(), index(places), dim)
      support.close(narrow, turned(x:float():double(), places, dim), 8 * 2 ^ -24)
      assert.equal("float32", narrow:dtype())
      if width > dim then
        local rest = width - dim
        assert.equal(0, support.difference(rotary(x, index(places), dim):narrow(3, dim + 1, rest), x:narrow(3, dim + 1, rest)))
      end
    end)
  end

  it("has the frequencies pi / max_len^(2l / dim)", function()
    local dim = 8
    for _, max_len in ipairs { 2056, 100, 3.5 } do
      local x = normal(2, #places, 2, dim)
      local y = rotary(x, index(places), dim, max_len):totable()
      each_pair(x:totable(), dim, function(i, h, l, a, b)
        local angle = exact_angle(places[i], l, dim, max_len)
        -- rounded to float32 are pi, the product, the power, the quotient, and an exponent of log max_len at most
        local off = (4 + math.log(max_len)) * 2 ^ -24 * math.abs(angle) + 1e-15
        local reach = off * math.sqrt(a * a + b * b) + 1e-15
        assert.near(a * math.cos(angle) - b * math.sin(angle), y[i][h][l + 1], reach)
        assert.near(a * math.sin(angle) + b * math.cos(angle), y[i][h][dim / 2 + l + 1], reach)
      end)
    end
    local x = normal(2, 3, 1, 4)
    support.close(rotary(x, index { 1, 2, 3 }, 4), rotary(x, index { 1, 2, 3 }, 4, 2056), 0)
  end)

  it("sends gradients back by the opposite angles", function()
    local back = {}
    for i, n in ipairs(places) do back[i] = -n end
    for _, dtype in ipairs { "float64", "float32" } do
      local x, dy = normal(3, #places, 2, 7):to(dtype):require_grad(), normal(4, #places, 2, 7):to(dtype)
      local y = rotary(x, index(places), 4)
      y:backward(dy)
      support.close(x:grad(), rotary(dy, index(back), 4), 0)
      -- there and back: lengths stay, so two roundings of each operation are left
      support.close(rotary(y:detach(), index(back), 4), x:detach(), 16 * (dtype == "float64" and 2 ^ -53 or 2 ^ -24))
    end
  end)

  it("keeps the index alone for backward", function()
    local n = 1000
    local leaf, at = mf.randn(n, 4, 16, { rng = mf.rng(5) }):require_grad(), mf.arange(n):int()
    collectgarbage()
    collectgarbage()
    local before = mf.memory().live
    local x = leaf * 2
    local y = rotary(x, at, 16)
    x:release()
    assert.equal(y:nbytes(), mf.memory().live - before)
    at:release()
    y:sum():backward()
    support.close(leaf:grad(), rotary(mf.full({ n, 4, 16 }, 2), -mf.arange(n):int(), 16), 0)
  end)

  it("takes views and an int64 index, here and backward", function()
    local x, dy = normal(6, #places, 2, 7), normal(7, #places, 2, 7)
    local leaf = support.strided(x):require_grad()
    local y = rotary(leaf, support.strided(index(places, "int64")), 4)
    support.close(y, rotary(x, index(places), 4), 0)
    y:backward(support.strided(dy))
    local plain = x:clone():require_grad()
    rotary(plain, index(places), 4):backward(dy)
    support.close(leaf:grad(), plain:grad(), 0)
    local swapped = normal(8, 2, #places, 7):transpose(1, 2)
    support.close(rotary(swapped, index(places), 4), rotary(swapped:contiguous(), index(places), 4), 0)
  end)

  it("takes no residues and no heads", function()
    for _, shape in ipairs { { 0, 3, 6 }, { 2, 0, 6 } } do
      local x = mf.zeros(shape):require_grad()
      local y = rotary(x, mf.zeros(shape[1]):int(), 4)
      assert.same(shape, y:shape())
      y:sum():backward()
      assert.same(shape, x:grad():shape())
    end
  end)

  it("says what is wrong", function()
    local x, at = mf.zeros(3, 2, 6), index { 1, 2, 3 }
    local function says(message, ...)
      local arguments, n = { ... }, select("#", ...)
      support.error_matches(function() rotary(unpack(arguments, 1, n)) end, message, true)
    end
    says("rotary: x (3, 12) must be (N, heads, width)", x:reshape(3, 12), at, 4)
    says("rotary: x is bfloat16; geometry takes float32 or float64", x:to "bfloat16", at, 4)
    says("rotary: index is float32, expected int32 or int64", x, at:float(), 4)
    says("rotary: index (2) must be (3)", x, index { 1, 2 }, 4)
    says("rotary: index (3, 1) must be (3)", x, at:unsqueeze(2), 4)
    says("rotary: dim is 5, expected an even number of at least 2", x, at, 5)
    says("rotary: dim is 0, expected an even number of at least 2", x, at, 0)
    says("rotary: dim is -2, expected an even number of at least 2", x, at, -2)
    says("rotary: dim is 8, x (3, 2, 6) has 6 columns a head", x, at, 8)
    says("rotary: max_len is 0, expected a positive number", x, at, 4, 0)
    says("rotary: max_len is inf, expected a positive number", x, at, 4, math.huge)
    says("rotary: argument 2 must be a tensor", x, { 1, 2, 3 }, 4)
  end)
end)
