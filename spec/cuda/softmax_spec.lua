-- Softmax, its logarithm and logsumexp on a GPU against the CPU.
local mf = require "moonfold"
local agree = require "spec.support.agree"
local support = require "spec.support"

local inf = math.huge

describe("softmax on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function normal(...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(2) }) * 4 end

  for _, shape in ipairs {
    { 1 }, { 3, 2 }, { 5, 33 }, { 33, 5 }, { 3, 7, 2 }, { 2, 513, 3 }, { 2, 3, 65 }, { 4, 128 }, { 66001 }, { 14001, 5 }, { 0, 3 },
  } do
    for axis = 1, #shape do
      it(("agrees over %s along axis %d, gradients too"):format(table.concat(shape, "x"), axis), function()
        local x = normal(unpack(shape))
        local o = { gradients = true }
        if shape[axis] > 0 then
          agree(device, function(t) return t:softmax(axis) end, { x }, o)
          agree(device, function(t) return t:log_softmax(axis) end, { x }, o)
        end
        agree(device, function(t) return t:logsumexp(axis) end, { x }, o)
      end)
    end
  end

  it("writes zeros, and a logarithm of -inf, where everything is masked, and keeps NaN and infinity visible", function()
    local x = mf.tensor { { -inf, -inf, -inf }, { 1e4, 1e4 - 1, -1e4 }, { -inf, 0 / 0, 1 }, { inf, 1, 2 }, { 0, -inf, 0 } }
    for _, y in ipairs { x, x:t():contiguous(), mf.cat({ x:t(), x:t() }, 1):contiguous() } do
      local axis = y:size(1) == 5 and 2 or 1
      for _, name in ipairs { "softmax", "log_softmax", "logsumexp" } do
        for _, dtype in ipairs { "float32", "float64" } do
          local z = y:to(dtype)
          support.close(z:to(device)[name](z:to(device), axis):to "cpu", z[name](z, axis), 4e-7, name)
        end
      end
    end
    local masked = mf.full({ 3, 3 }, -inf):to(device):require_grad()
    masked:softmax(2):backward(mf.ones(3, 3):to(device))
    support.close(masked:grad():to "cpu", mf.zeros(3, 3), 0)
  end)
end)
