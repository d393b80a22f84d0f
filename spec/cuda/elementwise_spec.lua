-- Copies, arithmetic and unary functions on a GPU: what support/cases.lua does not reach. Every operator against the CPU is in
-- agree_spec.lua; here are casts between all types, permuted copies, lengths around vectors, alignment, steps in place, dropout.
local mf = require "moonfold"
local support = require "spec.support"
local C = require("moonfold.ffi").C

describe("elementwise kernels on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local types = { "float32", "float64", "bfloat16", "float16", "int32", "int64", "bool" }
  local inf, nan = math.huge, 0 / 0
  -- Rounding to every type, ties, bounds of the integers, subnormal halves.
  local special = {
    0, -0.0, 1, -1, 0.5, 1.5, 2.5, 1 + 2 ^ -11, 1 + 3 * 2 ^ -11, 1 + 2 ^ -8, 65504, 65519, 65520, 65536, 2 ^ -24, 2 ^ -25,
    3 * 2 ^ -26, 2 ^ 31 - 1, 2 ^ 31, -2 ^ 31, -2 ^ 31 - 1, 2 ^ 53 + 2, 2 ^ 62, 2 ^ 63, -2 ^ 63,
    3e38, 1e39, -1e300, 1e-40, inf, -inf, nan,
  }
  local x = mf.tensor(special, { dtype = "float64" })

  -- The same bits but for the payload of NaN.
  local function same(ours, theirs, what)
    assert.are.same(theirs:shape(), ours:shape())
    assert.are.equal(theirs:dtype(), ours:dtype())
    local a, b = ours:to("cpu"):to("float64"):values(), theirs:to("float64"):values()
    for i = 1, #b do
      local equal = a[i] == b[i] and (b[i] ~= 0 or 1 / a[i] == 1 / b[i]) or a[i] ~= a[i] and b[i] ~= b[i]
      if not equal then error(("%s: element %d is %.17g, expected %.17g"):format(what, i, a[i], b[i]), 2) end
    end
  end

  for _, from in ipairs(types) do
    it(("cast %s to every type as the CPU does, views too"):format(from), function()
      local source = x:to(from)
      local square = mf.cat({ source, source }, 1):reshape(8, 8)
      for _, to in ipairs(types) do
        local name = from .. " to " .. to
        same(source:to(device):to(to), source:to(to), name)
        same(square:to(device):t():to(to), square:t():to(to), name .. " turned")
        same(square:to(device):narrow(2, 2, 5):to(to), square:narrow(2, 2, 5):to(to), name .. " of a part")
        same(source:to(device):expand(3, #special):to(to), source:expand(3, #special):to(to), name .. " repeated")
      end
    end)
  end

  it("turn axes of every length", function()
    for _, shape in ipairs { { 1, 40 }, { 31, 33 }, { 64, 17 }, { 16, 16 }, { 15, 100 }, { 3, 40, 37 }, { 20, 3, 2, 35 } } do
      for _, dtype in ipairs { "bool", "float16", "float32", "float64" } do
        local count = 1
        for _, size in ipairs(shape) do count = count * size end
        local y = (mf.arange(count) * 7):to("float64"):reshape(shape):to(dtype)
        local back = {}
        for i = 1, #shape do back[i] = #shape + 1 - i end
        support.same_bits(y:to(device):permute(unpack(back)):contiguous():to "cpu", y:permute(unpack(back)):contiguous())
        local swapped = { unpack(back) }
        swapped[1], swapped[#back] = swapped[#back], swapped[1]
        support.same_bits(y:to(device):permute(unpack(swapped)):contiguous():to "cpu", y:permute(unpack(swapped)):contiguous())
      end
    end
  end)

  it("take vectors, what is left of them, and rows that begin anywhere", function()
    for _, n in ipairs { 0, 1, 3, 4, 5, 127, 128, 129, 1000 } do
      for _, dtype in ipairs { "float32", "bfloat16", "int64", "bool" } do
        local a = (mf.arange(n + 3) * 37 - 90):to(dtype)
        local b = a:to(device)
        for first = 1, 4 do
          local part, ours = a:narrow(1, first, n), b:narrow(1, first, n)
          support.same_bits(ours:clone():to "cpu", part:clone())
          if dtype == "bool" then
            support.same_bits((ours:logical_not()):to "cpu", part:logical_not())
          else
            support.same_bits((ours + ours):to "cpu", part + part)
            support.same_bits(ours:le(3):to "cpu", part:le(3))
          end
        end
      end
    end
  end)

  it("broadcast rows, columns and numbers in rows of any length", function()
    for _, columns in ipairs { 1, 4, 6, 7, 64, 129 } do
      local a, row = mf.randn(5, 3, columns, { rng = mf.rng(1) }), mf.randn(columns, { rng = mf.rng(2) })
      local column, one = mf.randn(3, 1, { rng = mf.rng(3) }), mf.tensor(1.25)
      for _, b in ipairs { row, column, one, a:narrow(1, 2, 1) } do
        support.same_bits((a:to(device) + b:to(device)):to "cpu", a + b)
        support.same_bits((b:to(device) - a:to(device)):to "cpu", b - a)
      end
      local mask = row:gt(0)
      support.same_bits(mf.where(mask:to(device), a:to(device), 2):to "cpu", mf.where(mask, a, 2))
    end
  end)

  it("write in place through views", function()
    local function both(f)
      local a = mf.randn(6, 10, { rng = mf.rng(1) })
      local ours = a:to(device)
      mf.no_grad(function()
        f(a)
        f(ours)
      end)
      support.same_bits(ours:to "cpu", a)
    end
    both(function(t) t:narrow(2, 3, 5):fill_(7) end)
    both(function(t) t:t():narrow(1, 1, 4):copy_(t:t():narrow(1, 6, 4)) end)
    both(function(t) t:select(2, 4):add_(t:select(2, 5)) end)
    both(function(t) t:mul_(0.5) end)
    both(function(t) t:zero_() end)
  end)

  it("do not read what is multiplied by 0", function()
    local function nothing() return mf.full({ 9 }, nan, { device = device }) end
    local a, b = nothing(), mf.full({ 9 }, 2, { device = device })
    assert.are.equal(0, C.mf_ema_step(a, b, 0))
    assert.are.equal(0, C.mf_ema_step(a, nothing(), 1))
    support.same_bits(a:to "cpu", b:to "cpu")
  end)

  it("drop the elements that the CPU drops", function()
    for _, dtype in ipairs { "float32", "float64", "float16" } do
      local a = mf.randn(1001, { rng = mf.rng(1) }):to(dtype)
      support.same_bits(a:to(device):dropout(0.3, mf.rng(5)):to "cpu", a:dropout(0.3, mf.rng(5)))
    end
  end)

  it("round as the CPU does", function()
    for _, dtype in ipairs { "float32", "float64" } do
      for _, precision in ipairs { "fp16", "bf16" } do
        local a = x:to(dtype)
        same(a:to(device):round_to(precision), a:round_to(precision), dtype .. " to " .. precision)
      end
    end
  end)
end)
