--- Secondary structure of backbones that were made: the rule is in C (moonfold.chemistry), here are its shares.

local chemistry = require "moonfold.chemistry"

local M = {}

--- Letters of DSSP 4 for each residue: H, G, I, E, B, T, S or -, and ? where a coordinate is not a number.
-- @tparam table x `N`, `CA`, `C`, `O`: flat lists of coordinates in angstrom, three numbers a residue
-- @tparam[opt] table o `chain`: a list with a value for each residue, a break where it changes (long C-N distances are
--   breaks in any case); `proline`: a list, true where the nitrogen has no hydrogen
-- @treturn string one letter a residue
-- @usage dssp.assign(x):gsub("[^HGI]", "")   -- the helical residues
M.assign = chemistry.backbone_letters

--- Shares of helix (H, G, I), strand (E, B) and coil.
-- @tparam string letters from `assign`
-- @treturn table `helix`, `strand`, `coil`, `non_coil`
function M.shares(letters)
  local n = math.max(#letters, 1)
  local classes = chemistry.three_classes(letters)
  local _, helix = classes:gsub("H", "")
  local _, strand = classes:gsub("E", "")
  return { helix = helix / n, strand = strand / n, coil = (#letters - helix - strand) / n, non_coil = (helix + strand) / n }
end

return M
