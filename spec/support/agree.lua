--- The rule of accuracy for a device: against the CPU in float64, a kernel in float32 may be twice as far off as the CPU's in
-- float32 (gradients three times), and in float64 some last bits.
local mf = require "moonfold"
local support = require "spec.support"

local FLOOR = { float32 = 2 ^ -23, float64 = 2 ^ -46 }    -- of the largest value: float32 may be right by
-- chance on the CPU; in float64 the oracle itself rounds, and sums of hundreds of terms in another order differ by some units of 2^-52

local function converted(inputs, dtype, device, leaves)
  local list = {}
  for i, x in pairs(inputs) do
    if mf.is_tensor(x) then
      if x:dtype() == "float64" then x = x:to(dtype) end
      x = x:to(device):detach()
      if leaves and x:dtype() == dtype then x = x:clone():require_grad() end
    end
    list[i] = x
  end
  return list
end

-- Results of f, then gradients of its floating inputs, all on the CPU.
local function run(f, inputs, n, dtype, device, leaves)
  local list = converted(inputs, dtype, device, leaves)
  local results = { f(unpack(list, 1, n)) }
  local outputs, total = {}, nil
  for i, y in ipairs(results) do
    outputs[i] = y:detach():to("cpu")
    if leaves and y:requires_grad() and y:count() > 0 then
      local dy = mf.randn(y:shape(), { dtype = "float64", rng = mf.rng(90 + i) }):to(dtype):to(device)
      local term = (y * dy):sum()
      total = total and total + term or term
    end
  end
  local gradients = {}
  if total then
    total:backward()
    for i = 1, n do
      local x = list[i]
      if mf.is_tensor(x) and x:requires_grad() then gradients[#gradients + 1] = x:grad():to("cpu") end
    end
  end
  return outputs, gradients
end

--- Fails unless f on the device is as accurate as on the CPU, results and gradients.
-- @tparam string device
-- @tparam function f of the inputs, its results tensors
-- @tparam table inputs tensors, float64 where they are floating; other values are passed as they are; `n` where some are nil
-- @tparam ?table o `gradients` (false); `types`; `factor` (2)
return function(device, f, inputs, o)
  o = o or {}
  local n = inputs.n or #inputs
  local exact = { run(f, inputs, n, "float64", "cpu", o.gradients) }
  for _, dtype in ipairs(o.types or { "float32", "float64" }) do
    local naive = { run(f, inputs, n, dtype, "cpu", o.gradients) }
    local ours = { run(f, inputs, n, dtype, device, o.gradients) }
    for kind, what in ipairs { "result", "gradient" } do
      if #ours[kind] ~= #exact[kind] then error(("%d %ss, expected %d"):format(#ours[kind], what, #exact[kind]), 2) end
      for i, y in ipairs(ours[kind]) do
        local want = exact[kind][i]
        if y:dtype() ~= naive[kind][i]:dtype() then error(what .. " of another type: " .. y:dtype(), 2) end
        local allowed = ((o.factor or 2) + kind - 1) * support.difference(naive[kind][i], want) + FLOOR[dtype]
        support.close(y, want, allowed, ("%s %d in %s on %s"):format(what, i, dtype, device))
      end
    end
  end
end
