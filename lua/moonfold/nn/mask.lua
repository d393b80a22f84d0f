--- Masks of residues: what is real but absent (missing residues, fixed motifs), never padding.
--
-- A mask is a tensor (N) or (N, 1), bool or 0 and 1 in a floating type; nil stands for all ones.
-- @module moonfold.nn.mask
local M = {}

local function floating(mask) return mask:dtype() == "bool" and mask:to("float32") or mask end

--- The mask as a bool tensor (N).
-- @param mask tensor or nil
-- @return a tensor or nil
function M.bool(mask)
  if not mask then return nil end
  if mask:ndim() == 2 then mask = mask:reshape(-1) end
  return mask:dtype() == "bool" and mask or mask:gt(0.5)
end

--- The mask as a column (N, 1) of zeros and ones, to multiply features with.
-- @param mask tensor or nil
-- @return a tensor or nil
function M.column(mask)
  if not mask then return nil end
  return floating(mask):reshape(-1, 1)
end

--- The mask of pairs (P, 1): m_i m_j.
-- @param mask tensor or nil
-- @param packing which residues pair up
-- @return a tensor or nil
function M.pairs(mask, packing)
  if not mask then return nil end
  local m, device = M.column(mask), mask:device()
  return m:index_select(1, packing:pair_row(device)) * m:index_select(1, packing:pair_column(device))
end

--- x with masked rows zero; x may have any number of axes after the first.
-- @param x tensor (N, ...)
-- @param column what `column` or `pairs` returned, in any floating type, or nil
-- @return a tensor
function M.apply(x, column)
  if not column then return x end
  if column:dtype() ~= x:dtype() then column = column:to(x:dtype()) end
  if x:ndim() > 2 then
    local shape = { x:size(1) }
    for i = 2, x:ndim() do shape[i] = 1 end
    column = column:reshape(shape)
  end
  return x * column
end

return M
