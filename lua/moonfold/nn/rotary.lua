--- Rotary positions: queries and keys turned by angles that grow along the chain, so that their product knows the offset.
--
--     (a_l | b_l) <- (a_l cos w_l i - b_l sin w_l i | a_l sin w_l i + b_l cos w_l i)       l < dim / 2,  w_l = pi / 2056^(2l / dim)
--
-- i is the residue's index, and q_i . k_j of what was turned depends on i - j alone (Su et al. 2021, arXiv 2104.09864, here with
-- the frequencies of the index embedding). Attention over factors needs it: dense pairs tell each head how far apart two residues
-- are in the chain, a product of r numbers a head cannot. It costs no column and no parameter.
-- @module moonfold.nn.rotary
local mf = require "moonfold"
local fail = require "moonfold.fail"

local M = {}

--- Raises unless columns of this width can be turned.
-- @tparam number dim channels a head
function M.check(dim)
  if dim < 2 or dim % 2 == 1 then fail("rotary: %d channels a head, expected an even number of at least 2", dim) end
end

--- Turns the first `dim` columns of each head (geometry.rotary).
-- @tparam tensor x (N, H, w), w at least dim
-- @tparam number dim even
-- @tparam tensor index int32 (N)
-- @treturn tensor (N, H, w)
-- @usage local q = nn.rotary.turn(q, 32, packing:position())
function M.turn(x, dim, index)
  return mf.geometry.rotary(x, index, dim)
end

return M
