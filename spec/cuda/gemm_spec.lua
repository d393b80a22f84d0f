--- Products on a GPU against products of the CPU in float64, over sizes, transposes, batches, types and epilogues.
--
-- A sum of k products is allowed (2 sqrt(k) + 8) roundings of the sum of their sizes: rounding errors are as good as random, two
-- standard deviations of a sum in any order are 2 sqrt(k) / sqrt(3), and what follows (parts, bias) takes a few more.
-- Operands in tf32 may be cut instead of rounded: 2^-10 of each, bf16 2^-7; results in 16 bits half a unit, 2^-8 and 2^-11.
local mf = require "moonfold"
local support = require "spec.support"

local UNIT = { float32 = 2 ^ -24, float64 = 2 ^ -53, bfloat16 = 2 ^ -24, float16 = 2 ^ -24 }
local STORED = { float32 = 0, float64 = 0, bfloat16 = 2 ^ -8, float16 = 2 ^ -11 }
local OPERANDS = { float32 = 0, tf32 = 2 ^ -9, bf16 = 2 ^ -6 }

local function normal(seed, ...)
  local shape = { ... }
  for _, size in ipairs(shape) do if size == 0 then return mf.empty(shape, { dtype = "float64" }) end end
  return mf.randn(shape, { dtype = "float64", rng = mf.rng(seed) })
end

--- Fails unless |y - exact| <= `terms`' allowance of `sizes` everywhere; NaN fails.
local function within(y, exact, sizes, terms, dtype, products)
  assert.same(exact:shape(), y:shape())
  if y:count() == 0 then return end
  local allowed = OPERANDS[products or "float32"] + STORED[dtype] + UNIT[dtype] * (2 * math.sqrt(terms) + 8)
  local worst = ((y:to("cpu"):double() - exact):abs() / (sizes + 1e-30)):max(1):item()
  local fits = worst <= allowed               -- not so for NaN
  if not fits then error(("off by %.3g of the sum of sizes, allowed %.3g"):format(worst, allowed), 2) end
end
local function flat(x) return x:contiguous():reshape(-1) end

describe("products on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  -- Rounded to the type first, so that the CPU and the GPU multiply the same values.
  local function on(x, dtype)
    local y = x:to(dtype)
    return y:to(device), y:double()
  end

  -- The same values with rows or columns `gap` further apart than they need to be, from an odd address.
  local function spread(x, turned, gap)
    local rows, columns = x:size(-2), x:size(-1)
    if turned then x = x:transpose(-1, -2):contiguous():transpose(-1, -2) end
    if gap == 0 or rows * columns == 0 then return x end
    if turned then return spread(x:transpose(-1, -2), false, gap):transpose(-1, -2) end
    local shape = x:shape()
    shape[#shape] = gap
    return mf.cat({ mf.zeros(shape, { dtype = x:dtype(), device = x:device() }), x }, #shape):narrow(-1, gap + 1, columns)
  end

  local function check(a, b, dtype, products, turned_a, turned_b, gap)
    local da, ea = on(a, dtype)
    local db, eb = on(b, dtype)
    local x, y = spread(da, turned_a, gap), spread(db, turned_b, gap)
    local got = mf.products(products or "float32", x.matmul, x, y)
    within(flat(got), flat(ea:matmul(eb)), flat(ea:abs():matmul(eb:abs())), a:size(-1), dtype, products)
    assert.is_true(got:bytes() == mf.products(products or "float32", x.matmul, x, y):bytes())
  end

  for _, size in ipairs { { 1, 1, 1 }, { 3, 3, 3 }, { 1, 67, 33 }, { 67, 33, 1 }, { 31, 1, 33 }, { 33, 65, 127 }, { 67, 130, 67 },
    { 0, 3, 2 }, { 3, 0, 2 }, { 3, 2, 0 }, { 128, 256, 64 }, { 129, 300, 20 }, { 1000, 3, 3 }, { 5, 2000, 7 } } do
    local m, k, n = unpack(size)
    it(("multiplies %dx%d by %dx%d"):format(m, k, k, n), function()
      local a, b = normal(1, m, k), normal(2, k, n)
      for _, dtype in ipairs { "float32", "float64", "bfloat16", "float16" } do
        for way = 0, 3 do
          check(a, b, dtype, nil, way % 2 == 1, way >= 2, 0)
          check(a, b, dtype, nil, way % 2 == 1, way >= 2, 3)
        end
      end
      for products in pairs { tf32 = true, bf16 = true } do
        check(a, b, "float32", products, false, true, 0)
        check(a, b, "float32", products, true, false, 1)
      end
    end)
  end

  it("takes batches, shared and repeated matrices", function()
    for _, case in ipairs {
      { { 3, 4, 5 }, { 5, 2 } }, { { 4, 5 }, { 3, 5, 2 } }, { { 2, 1, 4, 5 }, { 3, 5, 2 } }, { { 2, 3, 40, 33 }, { 2, 1, 33, 20 } },
      { { 70, 3, 3 }, { 70, 3, 3 } }, { { 0, 4, 5 }, { 5, 2 } }, { { 5, 33, 65 }, { 5, 65, 35 } },
      { { 70000, 2, 2 }, { 70000, 2, 2 } },
    } do
      for _, dtype in ipairs { "float32", "float64", "bfloat16" } do
        check(normal(1, unpack(case[1])), normal(2, unpack(case[2])), dtype, nil, false, false, 0)
        if case[1][1] < 100 then
          check(normal(1, unpack(case[1])), normal(2, unpack(case[2])), dtype, nil, true, true, 2)
        end
      end
    end
  end)

  for _, size in ipairs { { 1, 5, 3 }, { 0, 7, 2 }, { 4, 0, 3 }, { 33, 31, 67 }, { 300, 64, 40 }, { 1500, 24, 5 } } do
    local rows, input, output = unpack(size)
    for _, activation in ipairs { "none", "relu" } do
      local name = ("%d rows, %d to %d, %s"):format(rows, input, output, activation)
      it("is a linear layer of " .. name .. ", with its gradients #grad", function()
        local values = { normal(1, rows, input), normal(2, output, input), normal(3, output) }
        for _, dtype in ipairs { "float32", "float64", "bfloat16" } do
          for _, products in ipairs { "float32", "tf32" } do
            if products == "float32" or dtype == "float32" then
              local ours, exact, sizes = {}, {}, {}
              for i, v in ipairs(values) do
                local d, e = on(v, dtype)
                ours[i], exact[i], sizes[i] = d:clone():require_grad(), e:clone():require_grad(), e:abs()
              end
              local y = mf.products(products, ours[1].linear, ours[1], ours[2], ours[3], activation)
              local z = exact[1]:linear(exact[2], exact[3], activation)
              local room = sizes[1]:linear(sizes[2], sizes[3])
              within(flat(y:detach()), flat(z:detach()), flat(room), input + 1, dtype, products)
              -- The same zeros on both sides, or the gradients are those of different functions; values near 0 get no cotangent.
              local unclear = OPERANDS[products] + STORED[dtype] + UNIT[dtype] * (2 * math.sqrt(input) + 8)
              local clear = z:detach():abs():gt(room * unclear)
              local dy = on(normal(4, rows, output) * clear:double(), dtype)
              local same = dy:to("cpu"):double()
              y:backward(dy)
              z:backward(same)
              if activation == "relu" then same = same * z:detach():gt(0):double() end
              local dz = same:abs()
              within(flat(ours[1]:grad()), flat(exact[1]:grad()), flat(dz:matmul(sizes[2])), output, dtype, products)
              within(flat(ours[2]:grad()), flat(exact[2]:grad()), flat(dz:t():matmul(sizes[1])), rows, dtype, products)
              within(flat(ours[3]:grad()), flat(exact[3]:grad()), flat(dz:sum(1)), rows, dtype, products)
            end
          end
        end
      end)
    end
  end

  it("sums the bias's gradient over tall and strided cotangents", function()
    for _, rows in ipairs { 513, 5000 } do
      local x, exact = on(normal(1, rows, 2), "float32")
      local w = on(normal(2, 37, 2), "float32")
      local bias = mf.zeros(37, { device = device, requires_grad = true })
      local dy, same = on(normal(3, rows, 41), "float32")
      x:linear(w, bias):backward(dy:narrow(2, 4, 37))
      same = same:narrow(2, 4, 37)
      within(bias:grad(), same:sum(1), same:abs():sum(1), rows, "float32")
      assert.equal(rows, exact:size(1))
    end
  end)

  it("does not read what it overwrites", function()
    -- Fresh memory holds NaN here (guard mode).
    for _, size in ipairs { { 3, 3, 3 }, { 64, 48, 80 } } do
      local m, k, n = unpack(size)
      local y = normal(1, m, k):float():to(device):matmul(normal(2, k, n):float():to(device))
      assert.is_false(y:ne(y):any())
    end
  end)
end)
