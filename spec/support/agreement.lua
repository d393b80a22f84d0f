--- One device against another, by the rule that a fast kernel may be at most twice, its gradients three times, as wrong as
-- the CPU's operator in the same element type, both measured against the CPU in float64.
--
-- Errors are the largest over a tensor. Two roundings of one exact value differ by luck, so the rule has a floor: ULPS units in
-- the last place of the largest value (CUDA's float32 functions are documented to 4: powf; most to 2), and twice what the exact
-- result changes by when every input is rounded once more, each up or down at random. That is what the conditioning of the
-- function allows any kernel to lose, and all that is left of the floor of a sum whose terms cancel.
-- Gradients that vanish because all their terms cancel (queries and keys of a lone residue) are noise of the size of the
-- terms: their cases say by how many units of the largest gradient.
-- The CPU may be right by luck, mostly where a result is one sum: before a kernel is found wrong, the CPU's error is taken as the
-- largest over DRAWS inputs a rounding away.
-- In float64 there is nothing more exact: the CPU's result is the exact one; its error in float32 says how much larger than the
-- floor two orders of summation may differ.
local mf = require "moonfold"
local support = require "spec.support"

local M = {}

local ULPS, DRAWS = 4, 8
local epsilon = { float32 = 2 ^ -23, float64 = 2 ^ -52, float16 = 2 ^ -10, bfloat16 = 2 ^ -7 }
-- A change larger than this fraction is a jump (floor, sign), not conditioning.
local JUMP = 1e-3

local function is_float(x) return mf.is_tensor(x) and epsilon[x:dtype()] ~= nil end

-- ---- views --------------------------------------------------------------------------------------------------

M.views = {
  --- As it is.
  plain = function(x) return x end,
  --- Elements with gaps between them.
  strided = function(x) return x:ndim() > 0 and support.strided(x) or x end,
  --- Contiguous, but beginning one element after an aligned address.
  shifted = function(x)
    if x:ndim() == 0 or x:count() == 0 then return x end
    local one = mf.zeros(1, { dtype = x:dtype(), device = x:device() })
    return mf.cat({ one, x:reshape(-1) }, 1):narrow(1, 2, x:count()):reshape(x:shape())
  end,
}

-- ---- running ------------------------------------------------------------------------------------------------

local function pack(...) return { n = select("#", ...), ... } end

-- Outputs and, when `gradients`, the gradients of their contraction with fixed random numbers: two lists of CPU tensors.
local function run(inputs, o)
  local leaves, given = { n = inputs.n }, { n = inputs.n }
  for i = 1, inputs.n do
    local x = inputs[i]
    if is_float(x) and x:dtype() == "float64" then
      x = x:to(o.dtype):to(o.device)
      if o.gradients then x = x:detach():clone():require_grad() end
      leaves[i], given[i] = x, o.view(x)
    else
      given[i] = mf.is_tensor(x) and x:to(o.device) or x
    end
  end
  local outputs, gradients = pack(o.f(unpack(given, 1, given.n))), {}
  local values, total = {}, nil
  for i = 1, outputs.n do
    local y = outputs[i]
    if mf.is_tensor(y) then
      values[#values + 1] = y:detach():to("cpu")
      if o.gradients and is_float(y) and y:requires_grad() then
        local weights = mf.randn(y:shape(), { dtype = "float64", rng = mf.rng(40 + i) }):to(o.weights or y:dtype()):to(y:dtype())
        local part = (y * weights:to(y:device())):sum():to("cpu")
        if part:dtype() ~= "float64" and total and total:dtype() == "float64" then part = part:double() end
        total = total and total + part or part
      end
    end
  end
  if total then
    total:backward()
    for i = 1, inputs.n do
      if leaves[i] then
        local g = leaves[i]:grad()
        gradients[#gradients + 1] = g and g:to("cpu") or leaves[i]:detach():to("cpu") * 0
      end
    end
  end
  return values, gradients
end

-- The inputs as `dtype` holds them, in float64; with `shake`, a number, each moved by half a unit (of `unit`) up or down.
local function rounded(inputs, dtype, shake, unit)
  local list = { n = inputs.n or #inputs }
  for i = 1, list.n do
    local x = inputs[i]
    if is_float(x) and x:dtype() == "float64" then
      x = x:to(dtype):double()
      if shake then
        local up = (mf.rand(x:shape(), { dtype = "float64", rng = mf.rng(60 + i, shake) }) - 0.5):sign()
        x = x + x * up * (epsilon[unit or dtype] / 2)
      end
    end
    list[i] = x
  end
  return list
end

-- ---- comparing ----------------------------------------------------------------------------------------------

local function same_shape(a, b) return table.concat(a:shape(), "x") == table.concat(b:shape(), "x") end

-- Largest difference of finite values and largest finite |b|; infinite when NaN or infinities are not in the same places.
local function distance(a, b)
  local x, y = a:double():values(), b:double():values()
  local worst, scale, place = 0, 0, 0
  for i = 1, #y do
    local p, q = x[i], y[i]
    if p ~= q and not (p ~= p and q ~= q) then
      local d = math.abs(p - q)
      if d ~= d then d = math.huge end
      if d > worst then worst, place = d, i end
    end
    if math.abs(q) < math.huge then scale = math.max(scale, math.abs(q)) end
  end
  return worst, scale, place
end

-- Nil, or what is wrong. `c`: what, dtype, factor, mine, naive, exact, shaken, noise, luck (an error of the CPU's).
local function compare(c)
  local mine, naive, exact = c.mine, c.naive, c.exact
  if not same_shape(mine, naive) then
    return ("%s: shape (%s), expected (%s)"):format(c.what, table.concat(mine:shape(), ", "), table.concat(naive:shape(), ", "))
  end
  if mine:dtype() ~= naive:dtype() then return ("%s: type %s, expected %s"):format(c.what, mine:dtype(), naive:dtype()) end
  if not is_float(mine) then
    local d, _, place = distance(mine, naive)
    return d ~= 0 and ("%s: element %d differs by %g"):format(c.what, place, d) or nil
  end
  local theirs, scale = distance(naive, exact)
  if theirs == math.huge then     -- overflow in the narrower type: the same elements must overflow
    exact, theirs = naive, 0
    scale = select(2, distance(naive, exact))
  end
  local moved = c.shaken and distance(c.shaken, exact) or 0
  if moved ~= moved or moved > JUMP * scale then moved = 0 end
  local eps = math.max(epsilon[c.dtype], epsilon[mine:dtype()])
  local floor = ULPS * eps * scale + 2 * moved
  theirs = math.max(theirs, c.luck or 0)
  local allowed = c.factor * theirs + (c.dtype == "float64" and 8 or 1) * floor + (c.noise or 0) * eps
  local d, _, place = distance(mine, exact)
  if d <= allowed then return end
  return ("%s: element %d is off by %.3g (%.9g, exact %.9g); the CPU by %.3g; allowed %.3g"):format(c.what, place, d,
    mine:double():values()[place], exact:double():values()[place], theirs, allowed)
end

--- Fails unless the device agrees with the CPU on one case.
-- @tparam string device
-- @tparam function build place -> case; a case is `f`, `inputs` (float64 ones are cast to the element type), and perhaps
--   `oracle` (what f computes, where f itself rounds), `gradients` = false, `exact` = true (the CPU's bits), `cancels`
--   (see above)
-- @tparam string dtype element type
-- @tparam string view "plain", "strided" or "shifted"
-- @tparam ?boolean gradients
function M.check(device, build, dtype, view, gradients)
  local function on(where, of) return function(x) return (x:dtype() == "float64" and x:to(of) or x):to(where) end end
  local there, here, exact = build(on(device, dtype)), build(on("cpu", dtype)), build(on("cpu", "float64"))
  local inputs, plain = rounded(here.inputs, dtype), M.views.plain
  if here.gradients == false then gradients = false end
  local function go(c, given, where, of, how)
    return run(given, {
      f = of == "float64" and dtype ~= "float64" and c.oracle or c.f, device = where, dtype = of, view = how,
      gradients = gradients, weights = dtype,
    })
  end
  local mine, mine_g = go(there, inputs, device, dtype, M.views[view])
  local naive, naive_g = go(here, inputs, "cpu", dtype, plain)
  if here.exact then
    for i, y in ipairs(mine) do support.same_bits(y, naive[i], ("output %d, %s, %s"):format(i, dtype, view)) end
  end
  local best, best_g = go(exact, inputs, "cpu", "float64", plain)
  local shaken, shaken_g = go(exact, rounded(here.inputs, dtype, 0), "cpu", "float64", plain)
  assert(#mine == #naive and #mine_g == #naive_g)

  -- Largest errors of the CPU in 32 (or 16) bits over inputs a rounding away: lists like outputs and gradients.
  local outputs_luck, gradients_luck
  local function luck()
    outputs_luck, gradients_luck = {}, {}
    local of = dtype == "float64" and "float32" or dtype
    local narrow = of == dtype and here or build(on("cpu", of))
    for draw = 1, DRAWS do
      local near = rounded(rounded(here.inputs, of, draw, here.oracle and "bfloat16"), of)
      local a, a_g = go(narrow, near, "cpu", of, plain)
      local b, b_g = go(exact, near, "cpu", "float64", plain)
      local units = dtype == "float64" and epsilon.float64 / epsilon.float32 or 1
      for i, y in ipairs(a) do outputs_luck[i] = math.max(outputs_luck[i] or 0, (distance(y, b[i])) * units) end
      for i, y in ipairs(a_g) do gradients_luck[i] = math.max(gradients_luck[i] or 0, (distance(y, b_g[i])) * units) end
    end
  end
  local function agrees(c, lucky)
    local message = compare(c)
    if message and is_float(c.mine) then
      if not outputs_luck then luck() end
      c.luck = lucky()
      if c.luck < math.huge then message = compare(c) end
    end
    if message then error(message, 0) end
  end

  for i, y in ipairs(mine) do
    agrees({
      what = ("output %d, %s, %s"):format(i, dtype, view), mine = y, naive = naive[i], exact = best[i],
      shaken = is_float(y) and shaken[i], factor = 2, dtype = dtype,
    }, function() return outputs_luck[i] end)
  end
  local largest = 0
  for _, y in ipairs(best_g) do largest = math.max(largest, (select(2, distance(y, y)))) end
  for i, y in ipairs(mine_g) do
    agrees({
      what = ("gradient %d, %s, %s"):format(i, dtype, view), mine = y, naive = naive_g[i], exact = best_g[i], shaken = shaken_g[i],
      factor = 3, dtype = dtype, noise = (here.cancels or 0) * largest,
    }, function() return gradients_luck[i] end)
  end
end

return M
