--- Holds our secondary structure against mkdssp's (Debian package dssp), residue by residue, and prints the agreement.
--
--     luajit spec/tools/dssp.lua [folder [every [first]]]              -- all files, or every n-th from the first
--     luajit spec/tools/dssp.lua folder 1 1 original                   -- mkdssp reads the files themselves
--
-- What mkdssp reads is our own mmCIF of the structure that was read, so that both see the same atoms. Of the files themselves (a
-- HEADER is put before PDBs without one) it refuses some, takes the last location of an atom where we take the fullest, and numbers
-- chains in its own order: there files with other residues are listed and left out. MOONFOLD_LONG=1 prints every residue that
-- differs. Ends with status 1 below 99.5 % of the residues.
local mf = require "moonfold"
local files = require "moonfold.files"

local folder, every, first = arg[1] or "../shared/data/protein", tonumber(arg[2]) or 1, tonumber(arg[3]) or 1
local original = arg[4] == "original"
local LEAST = 99.5

local function found(command)
  local pipe = io.popen("command -v " .. command)
  local text = pipe:read "*a"
  pipe:close()
  return text ~= ""
end
if not found "mkdssp" then
  print "skipped: no mkdssp"
  os.exit(0)
end

local list = files.list(folder, { ".pdb", ".pdb.gz", ".cif", ".cif.gz" })
table.sort(list)
if #list == 0 then
  print("skipped: no structures in " .. folder)
  os.exit(0)
end

local temporary = os.tmpname()
os.remove(temporary)

-- The letters of mkdssp, one for each residue with a whole backbone, chains in order.
local function reference(s, path)
  local input = original and path or temporary .. ".cif"
  if not original then s:write(input)
  elseif path:find "%.pdb" then      -- mkdssp tells a PDB file by its first line
    input = temporary .. ".pdb"
    local header = "HEADER    UNKNOWN                                 01-JAN-00   1XXX"
    os.execute(("(zcat -f %s | head -1 | grep -q ^HEADER || echo '%s'; zcat -f %s) > %s"):format(path, header, path, input))
  end
  os.remove(temporary .. ".dssp")
  os.execute((("timeout 300 mkdssp --quiet --output-format dssp " .. input .. " @.dssp >@.log 2>&1"):gsub("@", temporary)))
  local file = io.open(temporary .. ".dssp")
  if not file then
    local log = io.open(temporary .. ".log")
    local why = log and log:read "*l" or "no output"
    return nil, why
  end
  local letters, names, started = {}, {}, false
  for line in file:lines() do
    if line:find "^  #  RESIDUE" then started = true
    elseif started and line:sub(14, 14) ~= "!" then
      letters[#letters + 1] = line:sub(17, 17):gsub(" ", "-")
      names[#names + 1] = line:sub(6, 14)
    end
  end
  file:close()
  return letters, names
end

local function ours(s)
  local letters, by_chain = {}, s:secondary_structure()
  for _, chain in ipairs(s:chains(1)) do
    for letter in (by_chain[chain.index] or ""):gmatch "[^?]" do letters[#letters + 1] = letter end
  end
  return letters
end

local totals = { files = 0, residues = 0, equal = 0, three = 0 }
local refused, uneven, differing, wrong = {}, {}, {}, {}
local function class(letter) return letter:find "[HGI]" and "H" or letter:find "[EB]" and "E" or "C" end

for k = first, #list, every do
  local path = list[k]
  local name = path:match "([^/]+)$"
  local ok, s = pcall(mf.structure.read, path)
  local a = ok and ours(s) or {}
  if not ok then refused[#refused + 1] = name .. " (unread): " .. tostring(s)
  elseif #a > 0 then
    local b, names = reference(s, path)
    if not b then refused[#refused + 1] = name .. ": " .. tostring(names)
    elseif #a ~= #b then uneven[#uneven + 1] = ("%s: %d residues here, %d there"):format(name, #a, #b)
    else
      local equal = 0
      for i = 1, #a do
        if a[i] == b[i] then equal = equal + 1
        else
          local kind = b[i] .. " -> " .. a[i]
          wrong[kind] = (wrong[kind] or 0) + 1
          if os.getenv "MOONFOLD_LONG" then print(name, names[i], b[i], a[i]) end
        end
        if class(a[i]) == class(b[i]) then totals.three = totals.three + 1 end
      end
      totals.files, totals.residues, totals.equal = totals.files + 1, totals.residues + #a, totals.equal + equal
      if equal < #a then differing[#differing + 1] = ("%s: %d of %d"):format(name, #a - equal, #a) end
    end
  end
end
os.execute("rm -f " .. temporary .. "*")

for title, group in pairs { ["not compared"] = refused, ["other residues"] = uneven, ["residues that differ"] = differing } do
  if #group > 0 then print(title .. ":\n  " .. table.concat(group, "\n  ")) end
end
for kind, count in pairs(wrong) do print(("  %s  %d (theirs -> ours)"):format(kind, count)) end
local share = 100 * totals.equal / math.max(totals.residues, 1)
print(("dssp: %d files, %d residues, %.4f %% equal, %.4f %% in three classes; %d files not compared"):format(totals.files,
  totals.residues, share, 100 * totals.three / math.max(totals.residues, 1), #refused + #uneven))
os.exit(share >= LEAST and (original or #refused + #uneven <= totals.files / 50) and 0 or 1)
