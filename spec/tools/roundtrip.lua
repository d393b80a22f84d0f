--- Writes every structure of a folder and reads it back: as mmCIF, and as PDB where that fits.
--
--     luajit spec/tools/roundtrip.lua [folder [every [first]]]         -- other programs look at every n-th file only
--
-- Ours: what is read (every location of an atom) is what was written, all of it; of PDB, what its columns hold: no label ids, no
-- entities beyond the sequences, coordinates to 0.001, B and occupancy to 0.01. gemmi (python3-gemmi) reads the file and what we
-- made of it and has to find the same atoms; mkdssp has to accept both formats and find the secondary structure that it finds in
-- the file; TM-align has to lay our PDB on the file with a TM-score of 1; PyMOL has to show the same atoms. A program that is not
-- there is skipped with a word. Ends with status 1 when something differs that is not explained in EXPLAINED.
local mf = require "moonfold"
local columns = require "moonfold.columns"
local files = require "moonfold.files"
local pythons = require "spec.tools.pythons"
local difference = require("spec.support.structures").difference

local folder, every, first = arg[1] or "../shared/data", tonumber(arg[2]) or 10, tonumber(arg[3]) or 1

local list = files.list(folder, { ".pdb", ".pdb.gz", ".cif", ".cif.gz", ".ent", ".ent.gz", ".bcif", ".bcif.gz" })
if #list == 0 then
  print("roundtrip: skipped: no structures in " .. folder)
  os.exit(0)
end

-- Differences that are no fault of what we write: of these files, in these checks, with the reason.
local EXPLAINED = {}
local function explain(files_of, checks, reason)
  for name in files_of:gmatch "%S+" do
    EXPLAINED[name] = EXPLAINED[name] or {}
    for _, check in ipairs(checks) do EXPLAINED[name][check] = reason end
  end
end
local GEMMI = { "gemmi mmCIF", "gemmi PDB" }
explain("1cbs_insert_crlf.cif.gz", { "mmCIF" }, "a label_seq_id of -32767, and no asym ids: residues are counted anew")
explain("1cbs_insert_crlf.cif.gz", GEMMI, "auth_comp_id is GLY where label_comp_id is ALA: gemmi takes the author's, we do not")
explain("1cbs_insert_crlf.cif.gz", { "PyMOL mmCIF", "PyMOL PDB" }, "the same, in PyMOL")
explain("defects.pdb.gz models.pdb", { "PyMOL mmCIF", "PyMOL PDB" }, "PyMOL begins a state at ENDMDL alone")
explain("9api.pdb.gz", { "PyMOL mmCIF", "PyMOL PDB" }, "SCALE is not CRYST1's: PyMOL moves the file's atoms by it")
explain("hy36res_1csp.pdb.gz", { "PyMOL mmCIF" }, "PyMOL knows no hybrid-36: it reads wrong numbers from the file")
explain("defects.pdb.gz incomplete.pdb nucl_res.pdb", GEMMI, "without an element gemmi takes a CA in columns 13-14 for calcium")
explain("end_endmdl.pdb", GEMMI, "gemmi stops at END, before the second model")
explain("lower_1csp.pdb.gz", GEMMI, "names in lower case: gemmi keeps them")
explain("resid_5_digits.pdb sameresid_diffresname.pdb xl_serial.pdb", GEMMI,
  "CHARMM's four-letter residue names: gemmi gives their last letter to the chain")
explain("1h68.pdb.gz", GEMMI, "dummy atoms without an occupancy: gemmi reads 0, we 1")

local function found(command)
  local pipe = io.popen("command -v " .. command .. " 2>/dev/null")
  local text = pipe:read "*a"
  pipe:close()
  return text ~= ""
end

local temporary = os.tmpname()
os.remove(temporary)
files.make_folder(temporary)

-- ---- what each check found ----

local ORDER = {
  "mmCIF", "PDB", "gemmi mmCIF", "gemmi PDB", "mkdssp mmCIF", "mkdssp PDB", "TM-align", "PyMOL mmCIF", "PyMOL PDB",
}
local table_of, failures, explained = {}, {}, {}
for _, name in ipairs(ORDER) do table_of[name] = { tried = 0, same = 0, explained = 0, differ = 0, none = 0 } end

-- trouble: what differs, nil when nothing does; reason: why it is no fault of ours, where the check itself knows.
local function note(check, path, trouble, reason)
  local t = table_of[check]
  t.tried = t.tried + 1
  local why = reason or (EXPLAINED[path:match "([^/]+)$"] or {})[check]
  if not trouble then t.same = t.same + 1
  elseif why then
    t.explained = t.explained + 1
    explained[#explained + 1] = ("%s: %s: %s"):format(path, check, why)
  else
    t.differ = t.differ + 1
    failures[#failures + 1] = ("%s: %s: %s"):format(path, check, trouble)
  end
end
local function none(check) table_of[check].none = table_of[check].none + 1 end

-- ---- other programs ----

-- One process for all files: pairs go in, a line comes out for each.
local function pairs_through(program, module, pairs_of)
  local python = pythons(module)[1]
  if not python then return print(("roundtrip: %s skipped: no Python has it"):format(program)) end
  local input = temporary .. "/pairs"
  files.replace(input, table.concat(pairs_of, "\n") .. (#pairs_of > 0 and "\n" or ""))
  local pipe = io.popen(("%s spec/tools/%s_same.py < %s 2>&1"):format(python, module, input))
  for line in pipe:lines() do
    local check, path, result = line:match "^([^\t]*)\t([^\t]*)\t(.*)$"
    if not check then failures[#failures + 1] = program .. ": " .. line
    elseif result:find "^unread" then none(check)
    else note(check, path, result ~= "same" and result or nil) end
  end
  pipe:close()
end

-- number, insertion code and chain -> letter, or nil and what mkdssp says
local function dssp(path)
  local out, log = temporary .. "/dssp", temporary .. "/log"
  os.remove(out)
  os.execute(("timeout 300 mkdssp --quiet --output-format dssp %s %s >%s 2>&1"):format(path, out, log))
  local file = io.open(out)
  if not file then
    local said = io.open(log)
    local line = said:read "*l"
    said:close()
    return nil, line or "no output"
  end
  local letters, started = {}, false
  for line in file:lines() do
    if line:find "^  #  RESIDUE" then started = true
    elseif started and line:sub(14, 14) ~= "!" then letters[#letters + 1] = line:sub(6, 12) .. line:sub(17, 17) end
  end
  file:close()
  return letters
end

-- The file, inflated; mkdssp tells a PDB file by its first line, which some lack.
local function plain(path)
  local name = temporary .. "/original" .. (path:find "%.cif" and ".cif" or ".pdb")
  local header = "HEADER    UNKNOWN                                 01-JAN-00   1XXX"
  local text = files.read(path)
  files.replace(name, (name:find "%.pdb" and not text:find "^HEADER" and header .. "\n" or "") .. text)
  return name
end

-- Why mkdssp may find other residues than in the file: a place that has two, or HETATM and modified ones, which it leaves out of
-- a PDB file's where nothing names them; we have `more` than it found there.
local function dssp_reason(path, s, more)
  local odd = 0
  for _, chain in ipairs(s:chains(1)) do
    local last
    for _, r in ipairs(s:residues(chain.index)) do
      local same_place = last and r.number == last.number and r.insertion == last.insertion
      if r.polymer and same_place and r.name ~= last.name then
        return "two residue names at one place: mkdssp counts them in its own way"
      end
      if r.polymer and (r.hetero or not mf.chemistry.residue(r.name).standard) then odd = odd + 1 end
      last = r
    end
  end
  if not path:find "%.cif" and more > 0 and more <= odd then
    return ("%d residues, HETATM or modified, are of the polymer: mkdssp leaves them out of a PDB file's"):format(more)
  end
end

local function compare_dssp(check, path, original, written, s)
  local mine, why = dssp(written)
  if original and #original == 0 then none(check)
  elseif not original then
    -- what it refuses as PDB it may refuse of ours, which says the same; mmCIF has no excuse
    if mine or check ~= "mkdssp PDB" then note(check, path, not mine and "refused, as the file is: " .. why or nil)
    else none(check) end
  elseif not mine then note(check, path, "refused: " .. why)
  else
    local differ = #mine ~= #original and ("%d residues -> %d"):format(#original, #mine) or nil
    for i = 1, differ and 0 or #mine do
      if mine[i] ~= original[i] then differ = ("'%s' -> '%s'"):format(original[i], mine[i]) break end
    end
    note(check, path, differ, differ and dssp_reason(path, s, #mine - #original))
  end
end

-- TM-align reads an mmCIF file up to a HETATM, a PDB file up to a TER: ours, with one TER, then goes on after what it aligned.
local function tm_align(path, original, written)
  local pipe = io.popen(("timeout 300 TMalign %s %s 2>&1"):format(written, original))
  local said = pipe:read "*a"
  pipe:close()
  local read, stopped = tonumber(said:match "Length of Chain_1: *(%d+)"), tonumber(said:match "Length of Chain_2: *(%d+)")
  local score, of_theirs = said:match "TM%-score= ([%d.]+).-TM%-score= ([%d.]+)"
  if not score then return none "TM-align" end
  local reason
  if stopped < read and tonumber(of_theirs) >= 0.9999 then
    reason = ("TM-align reads %d of the %d residues of the file, up to a %s, and all of ours"):format(stopped, read,
      path:find "%.cif" and "HETATM" or "TER")
  end
  note("TM-align", path, tonumber(score) < 0.9999 and "TM-score " .. score or nil, reason)
end

-- ---- all files ----

local alike, shown = {}, {} -- pairs for gemmi, and for PyMOL
local unread, has_dssp, has_tm = 0, found "mkdssp", found "TMalign"
if not has_dssp then print "roundtrip: mkdssp skipped: it is not there" end
if not has_tm then print "roundtrip: TM-align skipped: it is not there" end
for k, path in ipairs(list) do
  local ok, s = pcall(mf.structure.read, path, { altlocs = "all" })
  if not ok then unread = unread + 1
  else
    local name = ("%s/%d"):format(temporary, k)
    local looked = (k - first) % every == 0
    s:write(name .. ".cif")
    local back = mf.structure.read(name .. ".cif", { altlocs = "all" })
    note("mmCIF", path, difference(s, back))
    back:release()
    alike[#alike + 1] = ("gemmi mmCIF\t%s\t%s.cif"):format(path, name)
    local fits, why = pcall(s.write, s, name .. ".pdb")
    if fits then
      back = mf.structure.read(name .. ".pdb", { altlocs = "all" })
      note("PDB", path, difference(s, back, "pdb"))
      back:release()
      alike[#alike + 1] = ("gemmi PDB\t%s\t%s.pdb"):format(path, name)
    elseif tostring(why):find "does not fit the columns of PDB" then none "PDB"
    else note("PDB", path, tostring(why)) end
    if looked then
      local original = plain(path)
      shown[#shown + 1] = ("PyMOL mmCIF\t%s\t%s.cif"):format(path, name)
      if fits then shown[#shown + 1] = ("PyMOL PDB\t%s\t%s.pdb"):format(path, name) end
      local protein = false
      for _, chain in ipairs(s:chains(1)) do protein = protein or (chain.polymer == "protein" and chain.residues > 4) end
      if has_dssp and protein then
        local letters = dssp(original)
        compare_dssp("mkdssp mmCIF", path, letters, name .. ".cif", s)
        if fits then compare_dssp("mkdssp PDB", path, letters, name .. ".pdb", s) end
      end
      if has_tm and fits and protein then tm_align(path, original, name .. ".pdb") end
    end
    s:release()
  end
end
pairs_through("gemmi", "gemmi", alike)
pairs_through("PyMOL", "pymol", shown)
os.execute("rm -rf " .. temporary)

local rows, bad = {}, false
for _, name in ipairs(ORDER) do
  local t = table_of[name]
  rows[#rows + 1] = { name, t.tried, t.same, t.explained, t.differ, t.none }
  bad = bad or t.differ > 0
end
for _, line in ipairs(explained) do print("explained: " .. line) end
for _, line in ipairs(failures) do print(line) end
print(columns({ "check", "files", "same", "explained", "differ", "not comparable" }, rows))
print(("roundtrip: %d files, %d of them refused by the reader"):format(#list, unread))
os.exit((bad or #failures > 0) and 1 or 0)
