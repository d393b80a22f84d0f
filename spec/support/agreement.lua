--- One device against another, by the rule that a fast kernel may be at most twice, its gradients three times, as wrong as
-- the CPU's operator in the same element type, both measured against the CPU in float64.
--
-- Errors are the largest over a tensor. Two roundings of one exact value differ by luck, so the rule has a floor: ULPS units in
-- the last place of the largest value (CUDA's float32 functions are documented to 4: powf; most to 2), and twice what the exact
-- result changes by when every input is rounded once more, each up or down at random. That is what the conditioning of the
-- function allows any kernel to lose, and all that is left of the floor of a sum whose terms cancel.
-- Gradients that vanish because all their terms cancel (queries and keys of a lone residue) are noise of the size of the
-- terms: their cases say by how many units of the largest gradient.
-- In float64 there is nothing more exact: the CPU's result is the exact one and the floor is all.
local mf = require "moonfold"
local support = require "spec.support"

local M = {}

local ULPS = 4
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

-- The inputs as `dtype` holds them, in float64; with `shake` each moved by half a unit up or down.
local function rounded(inputs, dtype, shake)
  local list = { n = inputs.n or #inputs }
  for i = 1, list.n do
    local x = inputs[i]
    if is_float(x) and x:dtype() == "float64" then
      x = x:to(dtype):double()
      if shake then
        local up = (mf.rand(x:shape(), { dtype = "float64", rng = mf.rng(60 + i) }) - 0.5):sign()
        x = x + x * up * (epsilon[dtype] / 2)
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

local function compare(what, mine, naive, exact, shaken, factor, dtype, noise)
  if not same_shape(mine, naive) then
    error(("%s: shape (%s), expected (%s)"):format(what, table.concat(mine:shape(), ", "), table.concat(naive:shape(), ", ")), 0)
  end
  if mine:dtype() ~= naive:dtype() then error(("%s: type %s, expected %s"):format(what, mine:dtype(), naive:dtype()), 0) end
  if not is_float(mine) then
    local d, _, place = distance(mine, naive)
    if d ~= 0 then error(("%s: element %d differs by %g"):format(what, place, d), 0) end
    return
  end
  local theirs, scale = distance(naive, exact)
  if theirs == math.huge then     -- overflow in the narrower type: the same elements must overflow
    exact, theirs = naive, 0
    scale = select(2, distance(naive, exact))
  end
  local moved = shaken and distance(shaken, exact) or 0
  if moved ~= moved or moved > JUMP * scale then moved = 0 end
  local eps = math.max(epsilon[dtype], epsilon[mine:dtype()])
  local d, _, place = distance(mine, exact)
  local allowed = factor * theirs + ULPS * eps * scale + 2 * moved + (noise or 0) * eps
  if dtype == "float64" then allowed = 8 * (ULPS * eps * scale + 2 * moved) + (noise or 0) * eps end
  if d > allowed then
    error(("%s: element %d is off by %.3g (%.9g, exact %.9g); the CPU by %.3g; allowed %.3g"):format(what, place, d,
      mine:double():values()[place], exact:double():values()[place], theirs, allowed), 0)
  end
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
  local shaken, shaken_g = go(exact, rounded(here.inputs, dtype, true), "cpu", "float64", plain)
  for i, y in ipairs(mine) do
    compare(("output %d, %s, %s"):format(i, dtype, view), y, naive[i], best[i], is_float(y) and shaken[i], 2, dtype)
  end
  assert(#mine == #naive and #mine_g == #naive_g)
  local largest = 0
  for _, y in ipairs(best_g) do largest = math.max(largest, (select(2, distance(y, y)))) end
  for i, y in ipairs(mine_g) do
    compare(("gradient %d, %s, %s"):format(i, dtype, view), y, naive_g[i], best_g[i], shaken_g[i], 3, dtype,
      (here.cancels or 0) * largest)
  end
end

return M
