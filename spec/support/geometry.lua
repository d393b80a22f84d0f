--- What the specs of geometry share: tensors from flat lists, differences, single-precision arithmetic in Lua.
local ffi = require "ffi"
local mf = require "moonfold"
local naive = require "spec.support.naive"

local M = {}

--- A float64 tensor of the given shape from a flat list.
function M.tensor(values, shape, dtype)
  return mf.tensor(values, { dtype = dtype or "float64" }):reshape(shape)
end

--- The largest absolute difference; NaN anywhere is an error.
function M.apart(a, b)
  a = type(a) == "table" and a or a:values()
  b = type(b) == "table" and b or b:values()
  assert(#a == #b, ("%d values against %d"):format(#a, #b))
  local worst = 0
  for i = 1, #a do
    local d = math.abs(a[i] - b[i])
    assert(d == d, "NaN")
    worst = math.max(worst, d)
  end
  return worst
end

--- Fails unless a and b agree to `bound` in every element.
function M.near(a, b, bound)
  local d = M.apart(a, b)
  if d > bound then error(("off by %.3g, allowed %.3g"):format(d, bound), 2) end
end

--- Compares the gradients of f(inputs...), which returns one or more tensors, with central differences in float64.
-- At a step of 1e-6 rounding leaves 1e-16 / 1e-6 = 1e-10 of the function's size and the third derivative 1e-12 of its,
-- so 1e-7 of the largest difference has room for sums over a few hundred terms.
function M.gradients_match(f, inputs, options)
  options = options or {}
  local step, bound, rng = options.step or 1e-6, options.bound or 1e-7, mf.rng(77)
  local weights = {}
  local function loss(list)
    local total
    for i, y in ipairs { f(unpack(list)) } do
      weights[i] = weights[i] or mf.randn(y:shape(), { dtype = "float64", rng = rng })
      local term = (y * weights[i]):sum()
      total = total and total + term or term
    end
    return total
  end
  local leaves = {}
  for i, x in ipairs(inputs) do leaves[i] = x:detach():clone():require_grad() end
  loss(leaves):backward()
  for i, x in ipairs(inputs) do
    local values, shape, expected, size = x:contiguous():values(), x:shape(), {}, 0
    for e = 1, #values do
      local sides = {}
      for s = -1, 1, 2 do
        local moved, list = {}, {}
        for k = 1, #values do moved[k] = values[k] end
        moved[e] = values[e] + s * step
        for k = 1, #inputs do list[k] = k == i and M.tensor(moved, shape) or inputs[k] end
        sides[s] = mf.no_grad(function() return loss(list) end):item()
      end
      expected[e] = (sides[1] - sides[-1]) / (2 * step)
      size = math.max(size, math.abs(expected[e]))
    end
    local d = M.apart(leaves[i]:grad(), expected)
    if d > bound * math.max(size, options.floor or 0) then
      error(("input %d: gradient off by %.3g, largest %.3g, allowed %.1g of it"):format(i, d, size, bound), 2)
    end
  end
  jit.flush()  -- a trace keeps the function it was made for, and with it the tensors in its upvalues
end

local cell = ffi.new("float[1]")

--- The nearest float to a double; applied after each operation it gives single-precision arithmetic.
function M.single(x)
  cell[0] = x
  return tonumber(cell[0])
end

--- Fails unless f raises an error whose text contains `text`.
M.fails = naive.fails

return M
