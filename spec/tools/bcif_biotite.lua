--- Reads what another program encodes: mmCIF files that biotite (PyPI) turns into BinaryCIF must give the structure of their text,
-- each number the same double (but for the sign of 0, which a fixed-point number does not have).
--
--     PYTHON=python3 luajit spec/tools/bcif_biotite.lua [folder [every]]      -- ../shared/data/rna, every tenth
--
-- Skipped where PYTHON has no biotite. Ends with status 1 where a structure differs.
local files = require "moonfold.files"
local structure = require "moonfold.structure_file"

local python, here = os.getenv "PYTHON" or "python3", arg[0]:match "^(.*)/[^/]*$" or "."
local list = files.list(arg[1] or "../shared/data/rna", { ".cif", ".cif.gz" })
if os.execute(python .. " -c 'import biotite' 2>/dev/null") ~= 0 or #list == 0 then
  print(#list == 0 and "skipped: no mmCIF files" or "skipped: no biotite for " .. python)
  os.exit(0)
end

local function text_of(s)
  local lines = { s.id, s.title, s.method, s.date, tostring(s.resolution) }
  for _, chain in ipairs(s:chains()) do
    lines[#lines + 1] = table.concat({ chain.id, chain.entity, chain.model, chain.polymer, chain.sequence }, " ")
    for _, r in ipairs(s:residues(chain.index)) do
      lines[#lines + 1] = table.concat({ r.name, r.number, r.label, r.insertion, tostring(r.hetero) }, " ")
      for _, a in ipairs(s:residue_atoms(r.index)) do
        lines[#lines + 1] = ("%s %s %s %d"):format(a.name, a.element, a.altloc, a.serial)
        lines[#lines + 1] = ("%.17g %.17g %.17g %.17g %.17g"):format(a.x + 0, a.y + 0, a.z + 0, a.occupancy, a.b) -- no -0
      end
    end
  end
  return table.concat(lines, "\n")
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
