--- Reads what another program encodes: mmCIF files that biotite (PyPI) turns into BinaryCIF must give the structure of their text,
-- each number the same double (but for the sign of 0, which a fixed-point number does not have).
--
--     PYTHON=python3 luajit spec/tools/bcif_biotite.lua [folder [every]]      -- ../shared/data/rna, every tenth
--
-- Skipped where no Python has biotite. Ends with status 1 where a structure differs.
local files = require "moonfold.files"
local structure = require "moonfold.structure_file"
local pythons = require "spec.tools.pythons"
local text_of = require "spec.support.structure_text"

local python, here = pythons("biotite")[1], arg[0]:match "^(.*)/[^/]*$" or "."
local list = files.list(arg[1] or "../shared/data/rna", { ".cif", ".cif.gz" })
if not python or #list == 0 then
  print(python and "skipped: no mmCIF files" or "skipped: no biotite for python3")
  os.exit(0)
end

local path, compared, atoms, wrong = os.tmpname(), 0, 0, 0
for i = 1, #list, tonumber(arg[2]) or 10 do
  local ok, s = pcall(structure.read, list[i])
  if ok and os.execute(("%s %s/biotite_bcif.py %s %s 2>/dev/null"):format(python, here, list[i], path)) == 0 then
    local read, other = pcall(structure.read, path, "bcif")
    compared, atoms = compared + 1, atoms + s:counts().atoms
    if not read or text_of(s) ~= text_of(other) then
      wrong = wrong + 1
      print(list[i] .. ": " .. (read and "differs" or tostring(other)))
    end
  end
end
os.remove(path)
print(("%d files, %d atoms; %d differ"):format(compared, atoms, wrong))
os.exit(wrong == 0 and compared > 0 and 0 or 1)
