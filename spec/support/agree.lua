--- `agreement.check` in float32 and float64 on plain tensors, for a function of its inputs.
local agreement = require "spec.support.agreement"

--- Fails unless f on the device is as accurate as on the CPU.
-- @tparam string device
-- @tparam function f of the inputs; other tensors that it uses it must bring to their device and type
-- @tparam table inputs tensors, float64 where they are floating; `n` where some are nil
-- @tparam ?table o `gradients` (false): of the inputs, too; `dtypes` (both)
return function(device, f, inputs, o)
  o = o or {}
  for _, dtype in ipairs(o.dtypes or { "float32", "float64" }) do
    agreement.check(device, function() return { f = f, inputs = inputs } end, dtype, "plain", o.gradients or false)
  end
end
