-- Writing structures: what is read back is what was written, to the last digit; what a format cannot hold is refused with its name;
-- whatever fails, the old file stays.
local mf = require "moonfold"
local files = require "moonfold.files"
local structure = require "moonfold.structure_file"
local difference = require("spec.support.structures").difference
local support = require "spec.support"
local shell, read = support.shell, support.read_file

local folder

before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(shell("mkdir " .. folder))
end)
after_each(function() shell("rm -rf " .. folder) end)

local function listing()
  local pipe = io.popen("ls -A " .. folder)
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function only(s)
  local chains = s:chains(1)
  assert.are.equal(1, #chains)
  return chains[1]
end

-- What a text holds, written in a format and read back, with every location of its atoms.
local function again(text, ending)
  local s = structure.parse(text, { altlocs = "all" })
  s:write(folder .. "/again" .. ending)
  return s, structure.read(folder .. "/again" .. ending, { altlocs = "all" })
end

local function is_same(text, formats)
  for _, ending in ipairs(formats or { ".cif", ".pdb" }) do
    local s, back = again(text, ending)
    assert.is_nil(difference(s, back, ending:sub(2)))
  end
end

-- A file in mmCIF of atoms that are given as the ends of their rows.
local COLUMNS = {
  "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id", "label_entity_id",
  "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "pdbx_formal_charge",
  "auth_seq_id", "auth_asym_id", "pdbx_PDB_model_num",
}
local function cif(heading, rows)
  return "data_X\n" .. heading .. "loop_\n_atom_site." .. table.concat(COLUMNS, "\n_atom_site.") .. "\n" .. rows .. "#\n"
end

describe("writing", function()
  local names = { "N", "CA", "C", "O", "CB" }

  local function sample(n)
    local rng = mf.rng(11)
    return mf.randn({ n, 5, 3 }, { rng = rng }) * 20
  end

  it("returns what was written, in both formats, plain and gzip", function()
    for _, n in ipairs { 1, 31, 33 } do
      local x = sample(n)
      local mask = mf.rand({ n, 5 }, { rng = mf.rng(3) }):lt(0.8):logical_or(mf.arange(5):eq(1))
      local s = structure.from_atoms { atoms = x, mask = mask, names = names, residue_names = "ALA", b = 55.25, id = "TEST",
        title = "it's a \"test\"" }
      for _, ending in ipairs { ".pdb", ".cif", ".pdb.gz", ".cif.gz" } do
        local path = folder .. "/x" .. ending
        s:write(path)
        local back = structure.read(path)
        local chain = only(back)
        assert.are.same({ "A", "protein", ("A"):rep(n), "TEST", "it's a \"test\"" }, { chain.id, chain.polymer, chain.sequence,
          back.id, back.title })
        local y, seen = back:atoms(1, names)
        assert.are.same(mask:totable(), seen:totable())
        -- Three decimals: half a thousandth, and the rounding of float32 near 100.
        local off = (y - x):abs():masked_fill(mask:logical_not():unsqueeze(-1), 0):max():item()
        assert.is_true(off <= 0.0005 + 1e-5, off)
        assert.are.equal(55.25, back:residue_atoms(1)[1].b)
      end
    end
  end)

  it("puts everything in the columns of PDB", function()
    local s = structure.from_atoms { atoms = mf.full({ 1, 5, 3 }, -1.5), names = names, residue_names = "ALA", b = 100 }
    s:write(folder .. "/x.pdb")
    local lines = {}
    for line in read(folder .. "/x.pdb"):gmatch "[^\n]+" do
      assert.are.equal(80, #line)
      lines[#lines + 1] = line
    end
    assert.are.equal("HEADER", lines[1]:sub(1, 6))
    assert.are.equal("SEQRES   1 A    1  ALA", lines[2]:sub(1, 22))
    assert.are.equal("CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1", lines[3]:sub(1, 70))
    assert.are.equal("ATOM      2  CA  ALA A   1      -1.500  -1.500  -1.500  1.00100.00           C  ", lines[5])
    assert.are.equal("TER       6      ALA A   1", lines[9]:sub(1, 26))
    assert.are.equal("END", (lines[10]:gsub(" ", "")))
    assert.are.equal(10, #lines)
  end)

  it("numbers models from 1 and keeps chains", function()
    for _, ending in ipairs { ".pdb", ".cif" } do
      local path = folder .. "/t" .. ending
      structure.from_atoms { models = { sample(5), sample(5), sample(5) }, names = names, residue_names = "GLY", lengths = { 2,
        3 } }:write(path)
      local back = structure.read(path)
      assert.are.same({ models = 3, chains = 6, residues = 15, atoms = 75 }, back:counts())
      assert.are.same({ "A", "B", 1, 3 }, { back:chains(3)[1].id, back:chains(3)[2].id, back:chains(3)[2].numbers[1],
        back:chains(3)[2].residues })
    end
    assert.truthy(read(folder .. "/t.pdb"):find "MODEL        3")
    assert.are.equal(3, select(2, read(folder .. "/t.pdb"):gsub("ENDMDL", "")))
  end)

  it("goes on past 9,999 residues and 99,999 atoms", function()
    local n = 20003
    local s = structure.from_atoms { atoms = sample(n), names = names, residue_names = "ALA" }
    s:write(folder .. "/x.pdb")
    s:write(folder .. "/x.cif")
    s:write(folder .. "/unnamed")
    assert.truthy(read(folder .. "/x.pdb"):find "\nATOM  A0000")
    assert.are.equal("data_", read(folder .. "/unnamed"):sub(1, 5))
    for _, ending in ipairs { ".pdb", ".cif" } do
      local back = structure.read(folder .. "/x" .. ending)
      assert.are.equal(n, only(back).numbers[n])
      assert.are.equal(5 * n, back:counts().atoms)
      if ending == ".pdb" then assert.are.equal(5 * n, back:residue_atoms(n)[5].serial) end
    end
  end)

  it("says what PDB cannot hold and leaves no file", function()
    local function refused(o, text)
      support.error_matches(function() structure.build { chains = { o } }:write(folder .. "/x.pdb") end, text, true)
      assert.are.equal("", listing())
    end
    local function chain(id, residue, number, name, x)
      return { id = id, residues = { { name = residue, number = number, atoms = { { name = name, element = "C", x = x, y = 0,
        z = 0 } } } } }
    end
    refused(chain("AA", "ALA", 1, "CA", 0), "the chain id 'AA' does not fit the columns of PDB: write mmCIF")
    refused(chain("A", "ALAN", 1, "CA", 0), "the residue name 'ALAN'")
    refused(chain("A", "ALA", 1, "HH123", 0), "the atom name 'HH123'")
    refused(chain("A", "ALA", -1000, "CA", 0), "the residue number '-1000'")
    refused(chain("A", "ALA", 1, "CA", 10000), "the coordinate '10000'")
    refused(chain("A", "ALA", 1, "CA", 0 / 0), "not finite")
    refused(chain("A B", "ALA", 1, "CA", 0), "the chain id 'A B' has a blank")
    refused({ id = "A", residues = {} }, "the structure has no atoms")
    support.error_matches(function() structure.from_atoms { atoms = mf.ones(1, 5, 3), names = names,
      residue_names = "ALA" }:write "/dev/full" end, "No space left")
  end)

  it("is read by DSSP and TMalign where they are installed", function()
    local s = structure.from_atoms { atoms = sample(40), names = names, residue_names = "ALA" }
    s:write(folder .. "/x.pdb")
    s:write(folder .. "/x.cif")
    for _, ending in ipairs { ".pdb", ".cif" } do
      if shell "command -v mkdssp >/dev/null" then
        assert.is_true(shell(("mkdssp --output-format dssp %s/x%s %s/x.dssp >%s/log 2>&1"):format(folder, ending, folder,
          folder)), ending)
        assert.are.equal("", read(folder .. "/log"))
        assert.are.equal(40, select(2, read(folder .. "/x.dssp"):gsub("\n *%d+ +%d+ A A ", "")))
      end
    end
    if shell "command -v TMalign >/dev/null" then
      local pipe = io.popen(("TMalign %s/x.pdb %s/x.cif"):format(folder, folder))
      assert.truthy(pipe:read "*a":find "TM%-score= 1%.0000")
      pipe:close()
    end
  end)

  it("writes as many digits as it takes to read the same numbers", function()
    local rows, rng = {}, mf.rng(5)
    local random = mf.rand({ 200, 3 }, { rng = rng, dtype = "float64" }):values()
    for i = 1, 200 do
      local function number(k) return ("%." .. (i % 17) .. "f"):format((random[3 * (i - 1) + k] - 0.5) * 10 ^ (i % 5)) end
      rows[i] = ("HETATM %d O O . HOH A 1 . ? %s %s %s 0.%d 1.5e-7 ? %d A 1\n"):format(i, number(1), number(2), number(3), i, i)
    end
    is_same(cif("", table.concat(rows)), { ".cif", ".cif.gz" })
    local s = structure.parse(cif("", "HETATM 1 O O . HOH A 1 . ? -0.000 12.3456 1e-3 1 1e3 ? 1 A 1\n"))
    s:write(folder .. "/x.cif")
    assert.truthy(read(folder .. "/x.cif"):find(" 0.000 12.3456 0.001 1.00 1000.00 ", 1, true))
    -- computed, no decimal of 15 digits
    local x = structure.build { chains = { { residues = { { name = "ALA", atoms = {
      { name = "CA", element = "C", x = 1 / 3, y = 2 ^ 0.5 * 100, z = -1e-9 / 7 } } } } } } }
    x:write(folder .. "/x.cif")
    assert.is_nil(difference(x, structure.read(folder .. "/x.cif")))
  end)

  it("keeps coordinates of tensors to 0.001", function()
    local s = structure.from_atoms { atoms = mf.full({ 1, 1, 3 }, 0.1), names = { "CA" }, residue_names = "GLY" }
    assert.are.equal(0.1, s:residue_atoms(1)[1].x)
  end)

  it("quotes what CIF would misread", function()
    local awkward = {
      "O5'", "C\"", "'", '"', "a'b\"c", "_x", "#1", "$f", "[a", "]", ";", ";x", "data_", "DATA_x", "save_", "loop_", "Stop_",
      "global_", ".", "?", "x#", "a;b", "\195\133",
    }
    local atoms = {}
    for i, name in ipairs(awkward) do atoms[i] = { name = name, element = "C", x = i, y = 0, z = 0 } end
    local s = structure.build { id = "a'b", title = "it's a \"test\" of 'all ' and \"all \" _quotes",
      chains = { { id = "'", polymer = "none", residues = { { name = "loop_", atoms = atoms } } },
        { id = "#", polymer = "none", residues = { { name = "?", atoms = atoms } } } } }
    s:write(folder .. "/x.cif")
    assert.is_nil(difference(s, structure.read(folder .. "/x.cif")))
  end)

  it("quotes blanks that only a file can bring, and refuses what no text of CIF can hold", function()
    local row = "_atom_site.Cartn_x 1 _atom_site.Cartn_y 2 _atom_site.Cartn_z 3 _atom_site.label_comp_id %s\n"
      .. "_atom_site.label_atom_id\n%s\n"
    for _, name in ipairs { "'A\fB'", "\"A\vB'\f\"", ";A\r\nB\n;" } do
      local s = structure.parse("data_x\n" .. row:format(name:find ";" and "G" or name, name))
      s:write(folder .. "/x.cif")
      assert.is_nil(difference(s, structure.read(folder .. "/x.cif")))
    end
    local s = structure.parse("data_x\n" .. row:format("G", ";\\\n\\A\nB\n;"))     -- a folded text, which begins with a backslash
    support.error_matches(function() s:write(folder .. "/y.cif") end, "CIF cannot hold a text of lines that begins with")
    assert.are.equal("x.cif\n", listing())
  end)

  -- microheterogeneity at 2, altlocs, an insertion code, charges, a modified residue, a ligand, two waters of one number
  local awkward = [[
HEADER    HYDROLASE                               05-MAR-99   1ABC
TITLE     A TITLE THAT GOES ON FOR SO LONG THAT IT NEEDS A SECOND LINE AND
TITLE    2 THEN SOME
EXPDTA    X-RAY DIFFRACTION
REMARK   2 RESOLUTION.    1.85 ANGSTROMS.
ATOM      5  N   ALA A  -1       1.000   2.000   3.000  1.00 10.00           N1+
ATOM      6  CA AALA A  -1       1.500  -2.000   3.000  0.40 10.00           C
ATOM      7  CA BALA A  -1       1.600  -2.100   3.000  0.60100.25           C
ATOM      8  C   ALA A  -1       1.700  -2.100   4.000  1.00-10.25           C
ATOM      9  N  ASER A   2       2.000   2.000   3.000  0.50 10.00           N
ATOM     10  CA ASER A   2       2.500   2.000   3.000  0.50 10.00           C
ATOM     11  C  ASER A   2       2.500   2.500   3.000  0.50 10.00           C
ATOM     12  N  BTHR A   2       2.100   2.000   3.000  0.50 10.00           N
ATOM     13  CA BTHR A   2       2.600   2.000   3.000  0.50 10.00           C
ATOM     14  C  BTHR A   2       2.600   2.500   3.000  0.50 10.00           C
ATOM     15  N   GLY A   2A      3.000   2.000   3.000  1.00 10.00           N
ATOM     16  CA  GLY A   2A      3.500   2.000   3.000  1.00 10.00           C
ATOM     17  C   GLY A   2A      3.500   2.500   3.000  1.00 10.00           C
HETATM   18  N   MSE A   3       4.000   2.000   3.000  1.00 10.00           N
HETATM   19  CA  MSE A   3       4.500   2.000   3.000  1.00 10.00           C
HETATM   20  C   MSE A   3       4.500   2.500   3.000  1.00 10.00           C
TER      21      MSE A   3
ATOM     22  P     C b   1      -4.000   2.000   3.000  1.00 10.00           P
ATOM     23  C4'   C b   1      -4.500   2.000   3.000  1.00 10.00           C
ATOM     24  O2'   C b   1      -4.500   2.500   3.000  1.00 10.00           O1-
TER      25        C b   1
HETATM   26 CA    CA A 301     -14.500   2.500   3.000  1.00 10.00          CA2+
HETATM   27  O   HOH A 401     -24.500   2.500   3.000  1.00 10.00           O
HETATM   28  O  AHOH A 402     -25.500   2.500   3.000  0.30 10.00           O
HETATM   29  O  BHOH A 402     -26.500   2.500   3.000  0.70 10.00           O
END
]]

  it("keeps every location, insertion codes, modified residues, ligands, water and their order", function()
    is_same(awkward)
    local s, back = again(awkward, ".pdb")
    assert.are.equal("1ABC", back.id)
    assert.are.equal("1999-03-05", back.date)
    assert.are.equal(1.85, back.resolution)
    assert.is_nil(read(folder .. "/again.pdb"):find "SEQRES") -- the file does not say that this was all
    assert.are.equal(s:counts().atoms, back:counts().atoms)
    local text = read(folder .. "/again.pdb")
    for _, line in ipairs {
      "HEADER                                            05-MAR-99   1ABC", "EXPDTA    X-RAY DIFFRACTION",
      "TITLE     A TITLE THAT GOES ON FOR SO LONG THAT IT NEEDS A SECOND LINE AND THEN", "TITLE    2 SOME",
      "REMARK   2 RESOLUTION.    1.85 ANGSTROMS.", "MODRES 1ABC MSE A    3  MET", "TER      21      MSE A   3 ",
      "ATOM      7  CA BALA A  -1       1.600  -2.100   3.000  0.60100.25           C  ",
      "HETATM   26 CA    CA A 301     -14.500   2.500   3.000  1.00 10.00          CA",
    } do assert.truthy(text:find(line, 1, true), line) end
    again(awkward, ".cif")
    text = read(folder .. "/again.cif")
    for _, line in ipairs {
      "_entry.id 1ABC\n", "_exptl.method 'X-RAY DIFFRACTION'\n", "_refine.ls_d_res_high 1.85 \n",
      "recvd_initial_deposition_date 1999-03-05\n", "ATOM 7 C CA B ALA A ", "C \"C4'\" . C b ", "MSE 3 ? MET",
    } do assert.truthy(text:find(line, 1, true), line) end
  end)

  it("keeps chains without an id, and apart what only a TER keeps apart", function()
    local function atom(residue, number, x)
      return ("HETATM    1  O   %s  %4d    %8.3f   2.000   3.000  1.00 10.00           O\n"):format(residue, number, x)
    end
    is_same((awkward:gsub(" A (  ?%d)", "   %1"):gsub(" A  %-1", "    -1"):gsub("(HOH) A", "%1  ")))
    local s, back = again(atom("HOH", 7, 1) .. "TER\n" .. atom("HOH", 7, 2) .. "TER\n", ".pdb")
    assert.are.equal(2, s:counts().residues)
    assert.is_nil(difference(s, back, "pdb"))
  end)

  it("keeps entities, label ids, gaps, cell and assemblies of mmCIF", function()
    local heading = [[
_entry.id 1XYZ
_cell.length_a 10.123
_cell.length_b 20.5
_cell.length_c 30
_cell.angle_alpha 90
_cell.angle_beta 91.25
_cell.angle_gamma 120
_symmetry.space_group_name_H-M 'P 21 21 21'
loop_
_entity.id
_entity.type
_entity.pdbx_description
7 polymer 'a "protein" that isn''t'
w water water
L non-polymer 'CALCIUM ION'
_entity_poly.entity_id 7
_entity_poly.type 'polypeptide(L)'
loop_
_entity_poly_seq.entity_id
_entity_poly_seq.num
_entity_poly_seq.mon_id
7 1 MET
7 2 ALA
7 3 GLY
7 4 SER
7 5 MSE
7 6 TRP
loop_
_pdbx_struct_assembly.id
_pdbx_struct_assembly.details
_pdbx_struct_assembly.oligomeric_details
_pdbx_struct_assembly.oligomeric_count
1 author_defined_assembly dimeric 2
XAU 'complete icosahedral assembly' ? ?
]]
    local rows = [[
ATOM 3 N N . ALA Axp 7 2 ? 1 2 3 1 5 ? 102 H 1
ATOM 4 C CA . ALA Axp 7 2 ? 1.5 2 3 1 5 ? 102 H 1
ATOM 9 C CA A SER Axp 7 4 B 2.5 2 3 0.5 5 ? 104 H 1
ATOM 10 C CA B THR Axp 7 4 B 2.6 2 3 0.5 5 ? 104 H 1
HETATM 11 C CA . MSE Axp 7 5 ? 3.5 2 3 1 5 ? 105 H 1
HETATM 12 CA CA . CA Q L . ? 9 9 9 1 5 2 200 H 1
HETATM 13 O O . HOH R w . ? 9 8 9 1 5 ? 300 H 1
]]
    is_same(cif(heading, rows), { ".cif" })
    local s, back = again(cif(heading, rows), ".cif")
    local chain = only(back)
    assert.are.same({ "7", "ASTM" }, { chain.entity, chain.sequence })
    assert.are.same({ { 2, 4, 4, 5 }, { 102, 104, 104, 105 } }, { chain.labels, chain.numbers })
    assert.are.equal(2, s:residues(1)[1].label)
    local text = read(folder .. "/again.cif")
    for _, line in ipairs {
      "_cell.length_a 10.123 \n", "_cell.angle_gamma 120.00 \n", "_symmetry.space_group_name_H-M 'P 21 21 21'\n",
      "XAU 'complete icosahedral assembly' ? ? \n", "\n7 3 GLY n\n7 4 SER y\n7 4 THR y\n7 5 MSE n\n7 6 TRP n\n",
      "7 'polypeptide(L)' no yes H\n;MAGS(MSE)W\n;\n\n;MAGSMW\n;\n", "Axp 7 1 MET 1 101 ? ? ? H . n\n",
      "Axp 7 3 GLY 3 103 ? ? ? H . n\n", "Axp 7 4 SER 4 104 104 SER SER H B y\n", "Axp 7 6 TRP 6 106 ? ? ? H . n\n",
      "HETATM 12 CA CA . CA Q L . ? 9.000 9.000 9.000 1.00 5.00 2 200 CA H CA 1 \n",
    } do assert.truthy(text:find(line, 1, true), line) end
    again(cif(heading, rows), ".pdb")
    text = read(folder .. "/again.pdb")
    for _, line in ipairs {
      "SEQRES   1 H    6  MET ALA GLY SER MSE TRP", "CRYST1   10.123   20.500   30.000  90.00  91.25 120.00 P 21 21 21  ",
      "HETATM    7 CA    CA H 200       9.000   9.000   9.000  1.00  5.00          CA2+",
    } do assert.truthy(text:find(line, 1, true), line) end
  end)

  it("writes the pieces of a file that is read a chain at a time", function()
    local text = awkward:gsub("EXPDTA", "COMPND    MOL_ID: 1;\nCOMPND   2 MOLECULE: ENZYME;\nCOMPND   3 CHAIN: A;\nEXPDTA")
    files.replace(folder .. "/whole.pdb", text)
    structure.read(folder .. "/whole.pdb", { altlocs = "all" }):write(folder .. "/whole.cif")
    for _, from in ipairs { ".pdb", ".cif" } do
      local pieces, atoms = 0, 0
      for s in structure.chains(folder .. "/whole" .. from, { altlocs = "all" }) do
        pieces, atoms = pieces + 1, atoms + s:counts().atoms
        for _, ending in ipairs { ".pdb", ".cif" } do
          s:write(folder .. "/piece" .. ending)
          local back = structure.read(folder .. "/piece" .. ending, { altlocs = "all" })
          assert.is_nil(difference(s, back, ending:sub(2)))
        end
      end
      assert.is_true(pieces > 2)
      assert.are.equal(23, atoms)
    end
  end)

  it("writes SEQRES over several lines", function()
    structure.from_atoms { atoms = mf.ones(28, 1, 3), names = { "CA" }, residue_names = "GLY", chain_ids = { "x" } }:write(folder
      .. "/x.pdb")
    local lines = {}
    for line in read(folder .. "/x.pdb"):gmatch "SEQRES[^\n]+" do lines[#lines + 1] = line end
    assert.are.equal(3, #lines)
    assert.are.equal("SEQRES   1 x   28 " .. (" GLY"):rep(13) .. (" "):rep(10), lines[1])
    assert.are.equal("SEQRES   3 x   28 " .. (" GLY"):rep(2) .. (" "):rep(54), lines[3])
  end)

  it("narrows B and occupancy before it refuses them, and goes to mmCIF by itself where PDB does not suffice", function()
    local function one(o)
      local atom = { name = "CA", element = "C", x = o.x or 0, y = 0, z = 0, b = o.b }
      local residue = { name = o.residue or "ALA", number = o.number, atoms = { atom } }
      return structure.build { chains = { { id = o.id or "A", residues = { residue } } } }
    end
    one({ b = 12345.678 }):write(folder .. "/x.pdb")
    assert.truthy(read(folder .. "/x.pdb"):find("  1.00 12346           C", 1, true))
    one({ b = -123.456 }):write(folder .. "/x.pdb")
    assert.truthy(read(folder .. "/x.pdb"):find("  1.00-123.5           C", 1, true))
    support.error_matches(function() one({ b = 1e6 }):write(folder .. "/x.pdb") end, "the B factor '1e+06'", true)
    for _, o in ipairs { { id = "AB" }, { residue = "ALAN" }, { number = 10000 }, { number = -1000 }, { x = 1e4 }, { b = 1e6 } } do
      one(o):write(folder .. "/x")
      assert.are.equal("data_", read(folder .. "/x"):sub(1, 5))
    end
    one({}):write(folder .. "/x")
    assert.are.equal("HEADER", read(folder .. "/x"):sub(1, 6))
    support.error_matches(function() one({}):write(folder .. "/x.bcif") end, "BinaryCIF cannot be written", true)
    support.error_matches(function() one({}):write(folder .. "/x", "xyz") end, "cannot write the format 'xyz'", true)
  end)

  it("leaves the old file when the disk is full", function()
    local s = structure.from_atoms { atoms = sample(3000), names = names, residue_names = "ALA" }
    for _, ending in ipairs { ".pdb", ".cif" } do
      local path = folder .. "/x" .. ending
      files.replace(path, "the old one")
      local script = ([[mf = require "moonfold"; s = mf.structure.build { chains = { { residues = { { name = "GLY", atoms = {
        { name = "CA", element = "C", x = 1, y = 2, z = 3 } } } } } } } w = mf.structure.writer "%s"
        ok, why = pcall(function() for i = 1, 10000 do w:add(s) end w:commit() end) print(ok, why)]]):format(path)
      files.replace(folder .. "/script.lua", script)
      local pipe = io.popen(("ulimit -f 100; trap '' XFSZ; LUA_PATH='%s' luajit %s/script.lua 2>&1"):format(package.path, folder))
      local said = pipe:read "*a"
      pipe:close()
      assert.truthy(said:find "^false" and said:find "File too large", said)
      assert.are.equal("the old one", read(path))
      assert.is_nil(listing():find(".tmp", 1, true))
    end
    support.error_matches(function() s:write "/dev/full" end, "No space left")
  end)
end)
