--- Losses in one pass: squared errors and cross entropies, a value for each row.
-- @module moonfold.tensor.loss
local F = require "moonfold.ffi"
local T = require "moonfold.types"

local C, out, again, check, adopt = F.C, F.out, F.again, F.check, F.adopt

local M = {}

--- The sum of weight (x - y)^2 over all axes but the first: (N, ...) to (N).
-- @tparam tensor y shaped like x
-- @tparam ?tensor weight its shape is the first axes of x: (N), (N, A), ...; it has no gradient
-- @treturn tensor
-- @usage local loss = x:squared_error(x * 0.5):mean()
function M.squared_error(x, y, weight)
  T.tensor_argument("squared_error", 0, x)
  T.tensor_argument("squared_error", 1, y)
  T.optional_tensor("squared_error", 2, weight)
  local status = C.mf_squared_error(out, x, y, weight)
  if status ~= 0 and again(status) then check(C.mf_squared_error(out, x, y, weight)) end
  return adopt(out[0])
end

--- log(sum(exp(x_i))) - x_i[target_i] of each row of logits: (N, C) to (N).
-- @tparam tensor target (N) the class of each row from 0, int32 or int64
-- @treturn tensor
-- @usage local loss = mf.zeros(3, 5):cross_entropy(mf.arange(3)):mean()
function M.cross_entropy(x, target)
  T.tensor_argument("cross_entropy", 0, x)
  T.tensor_argument("cross_entropy", 1, target)
  local status = C.mf_cross_entropy(out, x, target)
  if status ~= 0 and again(status) then check(C.mf_cross_entropy(out, x, target)) end
  return adopt(out[0])
end

return { methods = M }
