--- Gradients against central differences, and against themselves.
local mf = require "moonfold"

local function pack(...) return { n = select("#", ...), ... } end

-- The results of f, contracted with fixed random numbers so that every element matters.
local function contract(f, inputs, weights)
  local results, total = pack(f(unpack(inputs, 1, inputs.n))), nil
  for i = 1, results.n do
    local y = results[i]
    local dtype = mf.is_tensor(y) and y:dtype()
    if dtype == "float64" or dtype == "float32" then
      weights[i] = weights[i] or mf.randn(y:shape(), { dtype = dtype, rng = mf.rng(40 + i) })
      local part = (y * weights[i]):sum()
      total = total and total + part or part
    end
  end
  return total
end

local function analytic(f, inputs, weights)
  local leaves, gradients = { n = inputs.n }, {}
  for i = 1, inputs.n do
    local x = inputs[i]
    leaves[i] = mf.is_tensor(x) and x:dtype() == "float64" and x:detach():clone():require_grad() or x
  end
  contract(f, leaves, weights):backward()
  for i = 1, inputs.n do
    if leaves[i] ~= inputs[i] then gradients[i] = leaves[i]:grad() or error(("input %d got no gradient"):format(i), 3) end
  end
  return gradients
end

--- Compares the gradient of f at every element of its float64 inputs with a central difference of four points,
--     (8 (f(x + h) - f(x - h)) - (f(x + 2h) - f(x - 2h))) / 12 h,
-- whose error is h^4 / 30 of the fifth derivative; then takes the gradient again, which must give the same bits.
-- With h = 1e-3 that is 3e-14 f''''', and rounding adds 1e-16 |f| / h = 1e-13 |f|; the tolerance of 1e-9 (1 + |gradient|) leaves
-- room for the curvature and the size of the functions used. Near a kink the difference means nothing: keep inputs
-- 2h away from it.
-- @tparam function f gets the inputs, returns one or more tensors
-- @tparam table inputs tensors; those not float64 are passed as they are; `n` when some are nil
-- @tparam ?table options `step`, `tolerance`
return function(f, inputs, options)
  local step, tolerance = options and options.step or 1e-3, options and options.tolerance or 1e-9
  inputs.n = inputs.n or #inputs
  local weights = {}
  local gradients = analytic(f, inputs, weights)
  for i, again in pairs(analytic(f, inputs, weights)) do
    if again:bytes() ~= gradients[i]:bytes() then error(("the gradient of input %d differs when taken twice"):format(i), 2) end
  end
  local function at(i, values, place, shift)
    local moved, replaced = { unpack(values) }, { unpack(inputs, 1, inputs.n) }
    moved[place] = moved[place] + shift
    replaced[i], replaced.n = mf.tensor(moved, { dtype = "float64" }):reshape(inputs[i]:shape()), inputs.n
    return mf.no_grad(contract, f, replaced, weights):item()
  end
  for i, gradient in pairs(gradients) do
    local values, got = inputs[i]:values(), gradient:values()
    assert(#got == #values)
    for place = 1, #values do
      local near = at(i, values, place, step) - at(i, values, place, -step)
      local far = at(i, values, place, 2 * step) - at(i, values, place, -2 * step)
      local want = (8 * near - far) / (12 * step)
      local agrees = math.abs(got[place] - want) <= tolerance * (1 + math.abs(want))
      if not agrees then
        error(("input %d, element %d: gradient %.12g, difference quotient %.12g"):format(i, place, got[place], want), 2)
      end
    end
  end
end
