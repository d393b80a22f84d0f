--- Tensors and gradients: fit a line to noisy points by gradient descent.
--
-- Shows making tensors, broadcasting, `backward` and an optimizer. Prints the fitted slope and intercept beside those that
-- least squares gives in closed form, and what a gradient of a product looks like.
--
--     moonfold examples/01_tensors.lua
local mf = require "moonfold"

-- A gradient: d/dx sum(x * x) = 2 x.
local x = mf.tensor({ 1, 2, 3 }, { requires_grad = true })
local loss = (x * x):sum()
loss:backward()
print("x         ", table.concat(x:values(), " "))
print("sum of x^2", loss:item())
print("gradient  ", table.concat(x:grad():values(), " "))

-- A thousand points on y = 1.5 x - 0.5, with noise of 0.1.
local rng = mf.rng(1)
local input = mf.rand(1000, { rng = rng }) * 4 - 2
local output = input * 1.5 - 0.5 + mf.randn(1000, { rng = rng }) * 0.1

local slope = mf.zeros(1, { requires_grad = true })
local intercept = mf.zeros(1, { requires_grad = true })
local optimizer = mf.optim.adam({ slope, intercept }, { lr = 0.05 })
for step = 1, 300 do
  -- What a step makes is freed when the scope ends; a tensor that is not returned does not wait for the collector.
  local error = mf.scope(function()
    local l = (input * slope + intercept - output):square():mean()
    optimizer:step(l)
    return l:item()
  end)
  if step % 100 == 0 then print(("step %d: mean squared error %.5f"):format(step, error)) end
end

-- The same line in closed form: covariance over variance.
local dx, dy = input - input:mean(), output - output:mean()
local exact = ((dx * dy):sum() / dx:square():sum()):item()
print(("slope     %.4f, least squares %.4f"):format(slope:item(), exact))
print(("intercept %.4f"):format(intercept:item()))
assert(math.abs(slope:item() - exact) < 1e-3)
