--- Holds labels along SEQRES against label_seq_id: gemmi (Debian package python3-gemmi) writes mmCIF files as PDB, where labels are
-- gone and have to be found again by aligning residues with the sequence.
--
--     moonfold spec/tools/seqres.lua [folder ...]      -- ../shared/data/protein, rna and edge
--
-- Ends with status 1 where one in a thousand differs, or is of the polymer in one format only.
local mf = require "moonfold"
local files = require "moonfold.files"
local pythons = require "spec.tools.pythons"

local folders = #arg > 0 and arg or { "../shared/data/protein", "../shared/data/rna", "../shared/data/edge" }
local here = arg[0]:match "^(.*)/[^/]*$" or "."
local python = pythons("gemmi")[1]
local list = {}
for _, folder in ipairs(folders) do
  for _, path in ipairs(files.list(folder, { ".cif", ".cif.gz" })) do list[#list + 1] = path end
end
if not python or #list == 0 then
  print(python and "skipped: no structures in " .. folders[1] or "skipped: no gemmi for python3")
  os.exit(0)
end

local scratch = os.tmpname()
os.remove(scratch)
assert(os.execute("mkdir " .. scratch) == 0)
local names = scratch .. "/names"
local out = assert(io.open(names, "w"))
out:write(table.concat(list, "\n"), "\n")
out:close()

-- label by chain, number, insertion code and name of the polymer residues of the first model
local function labels(s)
  local found = {}
  for _, chain in ipairs(s:chains(1)) do
    for _, r in ipairs(s:residues(chain.index)) do
      if r.polymer then found[("%s %d%s %s"):format(chain.id, r.number, r.insertion, r.name)] = r.label end
    end
  end
  return found
end

local totals = { files = 0, same = 0, differ = 0, only = 0 }
local verbose = os.getenv "MOONFOLD_LONG"
local function note(path, ...)
  if verbose then print(path, ...) end
end
local pipe = io.popen(("%s %s/gemmi_seqres.py %s < %s"):format(python, here, scratch, names))
for line in pipe:lines() do
  local path, pdb = line:match "^(.-)\t(.*)$"
  local ok, original = pcall(mf.structure.read, path, { models = 1 })
  local again, written = pcall(mf.structure.read, pdb, { models = 1 })
  if ok and again and #original:entities() > 0 then
    local theirs, ours = labels(original), labels(written)
    totals.files = totals.files + 1
    for key, label in pairs(theirs) do
      if ours[key] == label then totals.same = totals.same + 1
      elseif ours[key] then
        totals.differ = totals.differ + 1
        note(path, key, "label_seq_id " .. label, "here " .. ours[key])
      else
        totals.only = totals.only + 1
        note(path, key, "not of the polymer in PDB")
      end
    end
    for key in pairs(ours) do
      if not theirs[key] then
        totals.only = totals.only + 1
        note(path, key, "not of the polymer in mmCIF")
      end
    end
  end
  if pdb:sub(1, 1) ~= "!" then os.remove(pdb) end
end
pipe:close()
os.remove(names)
os.remove(scratch)
print(("seqres: %d files: %d labels equal to label_seq_id, %d other, %d residues of the polymer in one format only"):format(
  totals.files, totals.same, totals.differ, totals.only))
os.exit(totals.same > 0 and totals.differ + totals.only <= totals.same / 1000 and 0 or 1)
