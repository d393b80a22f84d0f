--- Atoms from frames and frames from atoms, by kind of polymer.
--
--     local atoms = mf.atoms.of "rna"
--     local f = atoms.features(positions, mask)                -- rotations, translations, torsions, masks
--     local xyz = atoms.build(f.rotations, f.translations, f.torsions)

local M = {
  protein = require "moonfold.atoms.protein",
  rna = require "moonfold.atoms.rna",
}

--- The rules of one kind of polymer.
-- @tparam string kind "protein" or "rna"
-- @treturn table `inputs`, `names`, `elements`, `features`, `build`, `present`, `atom37`
-- @usage local names = mf.atoms.of("protein").names --> N CA C CB O
function M.of(kind)
  if kind ~= "protein" and kind ~= "rna" then
    error("atoms: kind is '" .. tostring(kind) .. "', expected 'protein' or 'rna'", 2)
  end
  return M[kind]
end

return M
