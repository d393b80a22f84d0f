--- A number as hi + lo, hi rounded to 16 bits: what carries more than 16 bits through products of 16-bit operands.
-- q (hi, hi, lo) . k (hi, lo, hi) keeps all but the product of the two small halves. The gradient goes through hi
-- alone (round_to lets it pass), as if hi were x; lo is a constant.
-- @module moonfold.nn.halves
local mf = require "moonfold"

local M = {}

--- The halves.
-- @tparam tensor x
-- @tparam string kind "fp16" or "bf16"
-- @treturn tensor hi
-- @treturn tensor lo
function M.of(x, kind)
  local hi = x:round_to(kind)
  return hi, x:detach() - hi:detach()
end

--- Columns of a query and a key, three for each given.
-- @tparam tensor q (N, H, w)
-- @tparam tensor k (N, H, w)
-- @tparam string kind
-- @treturn tensor (N, H, 3w)
-- @treturn tensor (N, H, 3w)
function M.columns(q, k, kind)
  local q_hi, q_lo = M.of(q, kind)
  local k_hi, k_lo = M.of(k, kind)
  return mf.cat({ q_hi, q_hi, q_lo }, 3), mf.cat({ k_hi, k_lo, k_hi }, 3)
end

return M
