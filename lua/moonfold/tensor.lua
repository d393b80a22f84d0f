--- The tensor: methods and operators of `mf_tensor`, gathered from moonfold/tensor/.
-- @module moonfold.tensor
local F = require "moonfold.ffi"

local methods, meta, functions = {}, {}, {}

for _, name in ipairs {
  "moonfold.tensor.describe", "moonfold.tensor.arith", "moonfold.tensor.unary", "moonfold.tensor.reduce",
  "moonfold.tensor.shape", "moonfold.tensor.index", "moonfold.tensor.loss", "moonfold.tensor.ipa", "moonfold.tensor.inplace",
  "moonfold.grad", "moonfold.scope",
} do
  local part = require(name)
  for key, method in pairs(part.methods) do methods[key] = method end
  for key, method in pairs(part.meta or {}) do meta[key] = method end
  for key, f in pairs(part.functions or {}) do functions[key] = f end
end
functions.where = methods.where
methods.where = nil

meta.__index = methods
F.metatype("mf_tensor", meta)

return { methods = methods, functions = functions }
