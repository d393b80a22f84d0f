--- Holds backbone torsions against gemmi's (Debian package python3-gemmi) over a folder and prints the largest difference.
--
--     luajit spec/tools/torsions.lua [folder [every]]      -- ../shared/data/protein and rna
--
-- Ends with status 1 where one in a thousand differs by more than 0.01 degrees.
local mf = require "moonfold"
local files = require "moonfold.files"
local pythons = require "spec.tools.pythons"

local folders, every = arg[1] and { arg[1] } or { "../shared/data/protein", "../shared/data/rna" }, tonumber(arg[2]) or 1
local NAMES = {
  [3] = { "phi", "psi", "omega" }, [7] = { "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "chi" },
}
local TOLERANCE = 0.01
local here = arg[0]:match "^(.*)/[^/]*$" or "."

local python = pythons("gemmi")[1]
local list = {}
for _, folder in ipairs(folders) do
  for _, path in ipairs(files.list(folder, { ".pdb", ".pdb.gz", ".cif", ".cif.gz" })) do list[#list + 1] = path end
end
if not python or #list == 0 then
  print(python and "skipped: no structures in " .. folders[1] or "skipped: no gemmi for python3")
  os.exit(0)
end
table.sort(list)

local names = os.tmpname()
local out = assert(io.open(names, "w"))
for k = 1, #list, every do out:write(list[k], "\n") end
out:close()
local pipe = io.popen(("%s %s/gemmi_torsions.py < %s"):format(python, here, names))

local totals = { files = 0, compared = 0, far = 0, worst = 0, only = 0, absent = 0 }
local where, unread = "", {}

-- Our torsions by chain and number; the first of a number that comes twice, and what it came with.
local function ours(path)
  local ok, s = pcall(mf.structure.read, path)
  if not ok then return nil end
  local by_name = {}
  local torsions = s:torsions()
  for _, chain in ipairs(s:chains(1)) do
    if chain.polymer ~= "none" then
      local row = 0
      for _, residue in ipairs(s:residues(chain.index)) do
        if residue.polymer then
          row = row + 1
          local key = chain.id .. "\t" .. residue.number .. residue.insertion
          by_name[key] = by_name[key] or torsions[chain.index][row]
        end
      end
    end
  end
  return by_name
end

local path, mine
for line in pipe:lines() do
  if line:sub(1, 1) == "#" then
    path = line:sub(2)
    mine = ours(path)
    if mine then totals.files = totals.files + 1 else unread[#unread + 1] = path end
  elseif line:sub(1, 1) == "!" then unread[#unread + 1] = path .. ": " .. line:sub(2)
  elseif mine then
    local key, rest = line:match "^([^\t]*\t[^\t]*)\t(.*)$"
    local row, values = mine[key], {}
    for text in rest:gmatch "%S+" do values[#values + 1] = text end
    for k, text in ipairs(values) do
      local name = NAMES[#values][k]
      local theirs, value = tonumber(text), row and row[name]
      if theirs and theirs == theirs and value then
        local d = math.abs((value - theirs + 180) % 360 - 180)
        totals.compared = totals.compared + 1
        if d > TOLERANCE then
          totals.far = totals.far + 1
          if os.getenv "MOONFOLD_LONG" then print(path, key, name, theirs, value) end
        elseif d > totals.worst then totals.worst, where = d, path .. " " .. key:gsub("\t", " ") .. " " .. name end
      elseif theirs and theirs == theirs then
        if row then totals.only = totals.only + 1 else totals.absent = totals.absent + 1 end
      end
    end
  end
end
pipe:close()
os.remove(names)

for _, text in ipairs(unread) do print("not compared: " .. text) end
print(("torsions: %d files, %d angles compared, %d differ by more than %g degrees, the others by at most %.5f (%s)"):format(
  totals.files, totals.compared, totals.far, TOLERANCE, totals.worst, where))
print(("  %d that gemmi measures over breaks of the chain, %d of residues that are not ours"):format(totals.only, totals.absent))
os.exit(totals.compared > 0 and totals.far <= totals.compared / 1000 and 0 or 1)
