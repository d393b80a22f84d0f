-- What the specs of layers share: chains, rigid motions, distances between tensors.
local mf = require "moonfold"

local M = {}

--- A random walk with steps of 0.38 nm and a random rotation at each residue: R (N, 3, 3), t (N, 3).
function M.chain(n, rng)
  local step = mf.randn(n, 3, { rng = rng })
  local t = (step / step:norm(2, true)):cumsum(1) * 0.38
  return mf.random.rotations(n, { rng = rng }), t
end

--- The same chain turned and shifted as one body.
function M.moved(R, t, shift, rng)
  local G = mf.random.rotations(1, { rng = rng }):squeeze(1)
  local u = mf.randn(3, { rng = rng })
  u = u / u:norm() * shift
  return G:matmul(R), t:matmul(G:t()) + u
end

--- Norm of the difference over norm of the second.
function M.relative(x, y)
  x, y = x:detach():to("float64"), y:detach():to("float64")
  return (x - y):norm():item() / y:norm():item()
end

--- The largest absolute difference.
function M.apart(x, y) return (x:detach() - y:detach()):abs():max(1):max():item() end

--- Raises unless x and y agree.
function M.close(x, y, bound)
  assert(table.concat(x:shape(), " ") == table.concat(y:shape(), " "), "shapes differ")
  local d = M.relative(x, y)
  if d > bound or d ~= d then error(("off by %.3g of the norm, allowed %.3g"):format(d, bound), 2) end
end

--- Makes every parameter random: fresh layers begin with zeros that would hide mistakes.
function M.stir(layer, rng, deviation)
  mf.no_grad(function()
    for _, p in ipairs(layer:parameters()) do p:add_(mf.randn(p:shape(), { rng = rng }), deviation or 0.1) end
  end)
  return layer
end

--- Rows of x (0-based list) as a new tensor.
function M.rows(x, list)
  return x:index_select(1, mf.tensor(list, { dtype = "int32" }))
end

return M
