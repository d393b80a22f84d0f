--- What the specs of attention share: the quadratic softmax, the same on rounded operands, results with gradients, on any device.
local mf = require "moonfold"
local relative = require("spec.support.nn").relative

local M = {}

function M.normal(shape, seed, dtype) return mf.randn(shape, { dtype = dtype or "float64", rng = mf.rng(seed) }) end
local function turn(x) return x:transpose(x:ndim() - 1, x:ndim()) end
local function heads(x) return x:transpose(1, 2) end
local function each(list, f)
  local out = {}
  for i, x in ipairs(list) do out[i] = f(x) end
  return out
end
M.each = each

--- What the fused operators must equal: L x L weights, differentiated by the tape. Pair inputs may be nil.
function M.quadratic(q, k, v, key_bias, packing, pair_bias, pair_value)
  local outs, pair_outs, pair = {}, {}, 1
  local lengths = packing:lengths()
  local first = 1
  for _, length in ipairs(lengths) do
    local function part(x) return heads(x:narrow(1, first, length)) end
    if length > 0 then
      local s = part(q):matmul(turn(part(k)))
      if key_bias then s = s + key_bias:narrow(1, first, length):t():unsqueeze(2) end
      if pair_bias then s = s + pair_bias:narrow(1, pair, length * length):t():reshape(-1, length, length) end
      local p = s:softmax(3)
      outs[#outs + 1] = heads(p:matmul(part(v)))
      if pair_value then
        pair_outs[#pair_outs + 1] = heads(p):matmul(pair_value:narrow(1, pair, length * length):reshape(length, length, -1))
      end
    end
    first, pair = first + length, pair + length * length
  end
  return mf.cat(outs, 1), pair_value and mf.cat(pair_outs, 1)
end

--- Results and gradients of f(unpack(inputs)) for cotangents: a list, outputs first, on the CPU. `device`: where f runs.
function M.with_gradients(f, inputs, cotangents, device)
  device = device or "cpu"
  local leaves = each(inputs, function(x) return x:detach():clone():to(device):detach():require_grad() end)
  local outs = { f(unpack(leaves)) }
  local loss
  for i, y in ipairs(outs) do
    local term = (y * cotangents[i]:to(device)):sum()
    loss = loss and loss + term or term
  end
  loss:backward()
  local list = each(outs, function(y) return y:detach():to "cpu" end)
  for _, x in ipairs(leaves) do list[#list + 1] = x:grad():to "cpu" end
  return list
end

function M.doubled(list) return each(list, function(x) return x:double() end) end
function M.floats(list) return each(list, function(x) return x:float() end) end

--- Fails unless every x is at most `factor` (outputs) or 3 (gradients) times as far from the exact value as the naive one is.
function M.as_good_as(naive, fused, exact, outputs, floor)
  for i = 1, #exact do
    local mine, theirs = relative(fused[i], exact[i]), relative(naive[i], exact[i])
    local allowed = (i <= outputs and 2 or 3) * theirs + floor
    if mine > allowed or mine ~= mine then error(("result %d is off by %.3g, the naive one by %.3g"):format(i, mine, theirs), 2) end
  end
end

--- Fails unless attention on `device` is as good as on the CPU in the same precision, forward and backward, with atomics and
-- without; without, two runs must give the same bits.
-- options: lengths, heads, dqk, dv, precision, masked (how many of the last keys), sharp (factor of q).
function M.agrees(device, options)
  local packing, h = mf.packing(options.lengths), options.heads
  local n = packing:total()
  local bias = M.normal({ n, h }, 4, "float32")
  if options.masked then
    bias = bias:masked_fill(mf.arange(n):float():unsqueeze(2):expand(n, h):gt(n - options.masked - 1), -math.huge)
  end
  local inputs = { M.normal({ n, h, options.dqk }, 1, "float32") * ((options.sharp or 1) / math.sqrt(options.dqk)),
    M.normal({ n, h, options.dqk }, 2, "float32"), M.normal({ n, h, options.dv }, 3, "float32") }
  local g = M.normal({ n, h, options.dv }, 5, "float32")
  local function attention(how, b) return function(q, k, v) return mf.attention(q, k, v, b, packing, how) end end
  local exact = M.with_gradients(attention("exact", bias:double()), M.doubled(inputs), { g:double() })
  local cpu = M.with_gradients(attention(options.precision, bias), inputs, { g })
  local on_device = bias:to(device)
  local function mine() return M.with_gradients(attention(options.precision, on_device), inputs, { g }, device) end
  M.as_good_as(cpu, mine(), exact, 1, 1e-6)
  mf.deterministic(true, function()
    local fixed, again = mine(), mine()
    M.as_good_as(cpu, fixed, exact, 1, 1e-6)
    for i, x in ipairs(fixed) do assert(x:bytes() == again[i]:bytes(), "deterministic, but two runs differ") end
  end)
end

--- The naive operator on rounded operands, forward and backward, one sequence.
function M.rounded(q, k, v, bias, g, precision, scale)
  local function r(x) return precision and x:round_to(precision) or x end
  q, k, v, g = r(heads(q)), r(heads(k)), r(heads(v)), r(heads(g) * scale)
  local s = q:matmul(turn(k)) + bias:t():unsqueeze(2)
  local weights = (s - s:max(3, true)):exp()
  local rows = r(weights):sum(3, true)                -- a row is divided by what was really multiplied
  local p, out = weights / rows, r(weights):matmul(v) / rows
  local ds = p * (g:matmul(turn(v)) - (g * out):sum(3, true))
  return { heads(out), heads(r(ds):matmul(k)) / scale, heads(turn(r(ds)):matmul(q)) / scale,
    heads(turn(r(p)):matmul(g)) / scale, ds:sum(2):t() / scale }
end

return M
