--- Slow, plain Lua in double precision: what the reductions, norms and indexing are compared with.
local mf = require "moonfold"

local M = {}

--- Values of N(0, 1), always the same for the same seed.
function M.normal(shape, dtype, seed)
  return mf.randn(shape, { dtype = dtype or "float64", rng = mf.rng(seed or 1) })
end

--- A non-contiguous view with the same shape and values as x (at least two axes).
function M.strided(x)
  local n = x:ndim()
  local y = x:transpose(1, n):contiguous():transpose(1, n)
  assert(x:count() == 0 or x:size(1) == 1 or x:size(n) == 1 or not y:is_contiguous())
  return y
end

--- The lines of a row-major shape along `axis`: a list of lists of places in the flat table, from 1.
function M.lines(shape, axis)
  local outer, inner, lines = 1, 1, {}
  for i = 1, axis - 1 do outer = outer * shape[i] end
  for i = axis + 1, #shape do inner = inner * shape[i] end
  for o = 0, outer - 1 do
    for i = 0, inner - 1 do
      local line = {}
      for m = 0, shape[axis] - 1 do line[m + 1] = (o * shape[axis] + m) * inner + i + 1 end
      lines[#lines + 1] = line
    end
  end
  return lines
end

--- One number for every line: f gets the list of its values.
function M.reduce(x, axis, f)
  local values, out = x:values(), {}
  for i, line in ipairs(M.lines(x:shape(), axis)) do
    local list = {}
    for m, place in ipairs(line) do list[m] = values[place] end
    out[i] = f(list)
  end
  return out
end

--- As many numbers as there were: f gets the list of values of a line and returns such a list.
function M.map(x, axis, f)
  local values, out = x:values(), {}
  for _, line in ipairs(M.lines(x:shape(), axis)) do
    local list = {}
    for m, place in ipairs(line) do list[m] = values[place] end
    local result = f(list)
    for m, place in ipairs(line) do out[place] = result[m] end
  end
  return out
end

--- Fails unless every element is within tolerance * (1 + |expected|); equal infinities pass, NaN never.
function M.close(expected, x, tolerance)
  local values = type(x) == "table" and x or x:values()
  assert(#values == #expected, ("%d values, %d expected"):format(#values, #expected))
  for i, want in ipairs(expected) do
    local got = values[i]
    local near = math.abs(got - want) <= tolerance * (1 + math.abs(want))
    if got ~= want and not near then
      error(("element %d is %.17g, expected %.17g (tolerance %g)"):format(i, got, want, tolerance), 2)
    end
  end
end

--- Fails unless f raises an error whose text contains `text`.
function M.fails(f, text)
  local ok, message = pcall(f)
  if ok then error("no error; expected: " .. text, 2) end
  if not tostring(message):find(text, 1, true) then error(("the error says: %s\nexpected: %s"):format(message, text), 2) end
end

return M
