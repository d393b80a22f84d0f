-- What fuzzing found (spec/fuzz): files that were read, written, and read back as something else. Each case is the least that
-- shows it.
local ffi = require "ffi"
local structure = require "moonfold.structure_file"
local difference = require("spec.support.structures").difference
local support = require "spec.support"

local C = require("moonfold.ffi").C
local folder
before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(support.shell("mkdir " .. folder))
end)
after_each(function() support.shell("rm -rf " .. folder) end)

local function again(s, ending)
  s:write(folder .. "/x" .. ending)
  return structure.read(folder .. "/x" .. ending, { altlocs = "all" })
end

local function parse(text) return structure.parse(text, { altlocs = "all" }) end

local function entity(s, i)
  local e = ffi.new "mf_entity_info"
  assert.are.equal(C.MF_OK, C.mf_structure_entity(s.handle, i, e))
  return e
end

local function monomers(s, i)
  local e, names = entity(s, i), {}
  for k = 0, tonumber(e.monomers) - 1 do
    names[k + 1] = ffi.string(C.mf_structure_text(s.handle, C.MF_TEXT_MONOMER, e.first_monomer + k))
  end
  return table.concat(names, " ")
end

local function labels(s)
  local list = {}
  for i, residue in ipairs(s:residues(1)) do list[i] = residue.label end
  return list
end

local function atom(record, name, alt, residue, chain, number, x, element)
  return ("%-6s%5d %-4s%1s%3s %1s%4d    %8.3f%8.3f%8.3f  1.00  0.00          %2s\n"):format(record, 1, name, alt, residue, chain,
    number, x, 0, 0, element)
end

local ROWS = "loop_\n_atom_site.group_PDB\n_atom_site.type_symbol\n_atom_site.label_atom_id\n_atom_site.label_comp_id\n"
  .. "_atom_site.label_asym_id\n_atom_site.label_entity_id\n_atom_site.label_seq_id\n_atom_site.auth_seq_id\n"
  .. "_atom_site.auth_asym_id\n_atom_site.pdbx_PDB_ins_code\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\n"

describe("a text of PDB", function()
  it("has one blank between words, as the same text of mmCIF", function()
    local s = parse("HEADER    X\nTITLE     A   SMALL    THING\nEXPDTA    X-RAY   DIFFRACTION\n"
      .. "COMPND    MOL_ID: 1; MOLECULE: SOME   THING; CHAIN: A;\nSEQRES   1 A    1  ALA\n"
      .. "HETNAM     ATP SOME    LIGAND\nREMARK 350 BIOMOLECULE: 1\n"
      .. "REMARK 350 AUTHOR DETERMINED BIOLOGICAL UNIT: VERY   LARGE\n"
      .. "CRYST1   40.000   50.000   60.000  90.00 100.00  90.00 P  1   1\n" .. atom("ATOM", " CA", "", "ALA", "A", 1, 1, "C"))
    assert.are.equal("A SMALL THING", s.title)
    assert.are.equal("X-RAY DIFFRACTION", s.method)
    assert.are.equal("SOME THING", ffi.string(C.mf_structure_text(s.handle, C.MF_TEXT_ENTITY_NAME, 0)))
    assert.are.equal("SOME LIGAND", ffi.string(C.mf_structure_text(s.handle, C.MF_TEXT_ENTITY_NAME, 1)))
    assert.are.equal("P 1 1", ffi.string(C.mf_structure_text(s.handle, C.MF_TEXT_SPACE_GROUP, 0)))
    assert.are.equal("very large", ffi.string(C.mf_structure_text(s.handle, C.MF_TEXT_OLIGOMER, 0)))
    assert.is_nil(difference(s, again(s, ".cif")))
  end)

  it("is written in full over several lines where it has no blanks to break at", function()
    local method = ("1234567890"):rep(25)
    local s = parse("data_x\n_exptl.method " .. method .. "\n" .. ROWS .. "ATOM C CA ALA A 1 1 1 A ? 1 2 3\n")
    assert.are.equal(method, s.method)
    assert.are.equal(method, (again(s, ".pdb").method:gsub(" ", "")))
  end)
end)

describe("a chain of an author's", function()
  it("keeps the kinds of two polymers that mmCIF counts to it", function()
    local s = parse("data_x\nloop_ _entity.id _entity.type 1 polymer 2 polymer\n"
      .. "loop_ _entity_poly.entity_id _entity_poly.type 1 'polypeptide(L)' 2 polyribonucleotide\n" .. ROWS
      .. "ATOM C CA ALA A 1 1 1 X ? 1 2 3\nATOM C CA GLY A 1 2 2 X ? 2 2 3\nATOM P P U B 2 1 9 X ? 3 2 3\n")
    local back = again(s, ".cif")
    assert.is_nil(difference(s, back))
    assert.are.same({ C.MF_POLYMER_PROTEIN, C.MF_POLYMER_RNA }, { entity(back, 0).polymer, entity(back, 1).polymer })
  end)

  it("has a polymer of the kind that its own atoms are, whatever ligand shares the entity", function()
    local s = parse("data_x\n_entity.id 2 _entity.type polymer\n" .. ROWS .. "ATOM C CA ALA A 1 1 1 X ? 1 2 3\n"
      .. "HETATM P P ATP B 2 . 5 X ? 2 2 3\nATOM P P U C 2 1 9 Y ? 3 2 3\n")
    assert.are.same({ "protein", "rna" }, { s:chains()[1].polymer, s:chains()[2].polymer })
    assert.is_nil(difference(s, again(s, ".cif")))
  end)

  it("without an id is none, nor is its sequence", function()
    local s = parse("data_x\nloop_ _entity.id _entity.type 1 polymer ? polymer '' water\n"
      .. "loop_ _entity_poly_seq.entity_id _entity_poly_seq.num _entity_poly_seq.mon_id ? 1 GLY ? 2 TRP 1 1 ALA\n" .. ROWS
      .. "ATOM C CA ALA A 1 1 1 X ? 1 2 3\n")
    assert.are.equal(1, entity(s, 0).monomers)
    assert.is_false(pcall(entity, s, 1))
    assert.is_nil(difference(s, again(s, ".cif")))
  end)

  it("is a polymer if a residue of it is, and not where another name stands first at its place", function()
    -- HETATM of MSE without a backbone is no residue of a polymer; SER at the same place is one
    local s = parse(atom("HETATM", "SE", "A", "MSE", "A", 3, 1, "SE") .. atom("ATOM", " CA", "B", "SER", "A", 3, 2, "C"))
    local residues = s:residues(1)
    assert.are.same({ 0, 1 }, { residues[1].label, residues[2].label })
    assert.are.equal("protein", s:chains()[1].polymer)
    assert.is_nil(difference(s, again(s, ".cif")))
  end)

  it("is of ligands alone where the entities say so, also without any label", function()
    local s = parse("data_x\nloop_ _entity.id _entity.type 1 non-polymer 2 water\n" .. ROWS
      .. "ATOM C CA ALA A 1 . 1 X ? 1 2 3\nATOM C CA GLY B 1 . 2 X ? 2 2 3\n")
    assert.are.same({ 0, 0 }, { s:residues(1)[1].label, s:residues(1)[2].label })
    assert.is_nil(difference(s, again(s, ".cif")))
  end)
end)

describe("a method", function()
  it("has the room of a title, and is cut where there is no more", function()
    local function of(methods)
      return parse("data_x\nloop_ _exptl.method " .. methods .. "\n"
        .. ROWS .. "ATOM C CA ALA A 1 1 1 X ? 1 2 3\n")
    end
    local long = ("m"):rep(1000)
    assert.are.equal(long, again(of(long), ".cif").method)
    assert.are.equal(long .. "; " .. ("n"):rep(21), of(long .. " " .. ("n"):rep(50)).method)
    assert.are.equal("a; b", of("a ? b").method)
  end)
end)

describe("a residue", function()
  it("that repeats another name's location at a place is another residue, with a label of its own", function()
    local function at(name, alt, residue) return atom("ATOM", name, alt, residue, "A", 3, 1, "C") end
    local s = parse(at(" CA", "A", "SER") .. at(" CA", "B", "CYS") .. at(" CB", "A", "SER") .. at(" CA", "B", "CYS")
      .. atom("ATOM", " CA", "", "GLY", "A", 4, 1, "C"))
    assert.are.same({ 1, 1, 2, 3 }, labels(s))
    assert.is_nil(difference(s, again(s, ".cif")))
  end)

  it("of water is of no polymer, also at the place of one that is", function()
    local s = parse("SEQRES   1 A    1  SER\n" .. atom("ATOM", " CA", "A", "SER", "A", 3, 1, "C")
      .. atom("ATOM", " O", "B", "HOH", "A", 3, 1, "O"))
    assert.are.same({ 1, 0 }, labels(s))
    assert.is_nil(difference(s, again(s, ".cif")))
  end)

  it("outside polymers is kept apart from one of its name and number, whatever stands between them", function()
    local function at(name, number, residue) return atom("ATOM", name, "", residue, "A", number, 1, name:sub(2, 2)) end
    local s = parse(at(" O", 1, "XYZ") .. at(" CA", 2, "ALA") .. at(" O", 1, "XYZ") .. at(" N", 1, "XYZ") .. at(" CA", 1, "XYZ")
      .. at(" CA", 3, "ALA") .. at(" N", 1, "XYZ"))
    assert.are.same({ 0, 1, 2, 3, 0 }, labels(s))
    assert.is_nil(difference(s, again(s, ".cif")))
  end)

  it("of water alone that has a label does not say which residues are of a polymer", function()
    local s = parse("data_x\n" .. ROWS .. "ATOM C CA GLY A 1 . 1 X ? 1 2 3\nHETATM O O HOH B 2 9 2 Y ? 3 2 3\n")
    assert.are.same({ 1 }, labels(s))
    assert.is_nil(difference(s, again(s, ".cif")))
  end)
end)

describe("an entity", function()
  local function of(entities, rows) return parse("data_x\n" .. entities .. "\n" .. ROWS .. rows) end

  it("that _entity_poly lists is a polymer, whatever _entity calls it and whichever comes first", function()
    local called = "loop_ _entity.id _entity.type 1 water\n"
    local listed = "loop_ _entity_poly.entity_id _entity_poly.type 1 'polypeptide(L)'"
    for _, entities in ipairs { called .. listed, listed .. "\n" .. called } do
      local s = of(entities, "ATOM C CA SER A 1 . 1 A ? 1 2 3\n")
      assert.are.equal(C.MF_ENTITY_POLYMER, entity(s, 0).kind)
      assert.are.same({ 1 }, labels(s))
      assert.is_nil(difference(s, again(s, ".cif")))
    end
  end)

  it("has a sequence as long as the longest of its chains, of its own residues in an asym that it shares", function()
    local s = of("loop_ _entity.id _entity.type 1 polymer 2 polymer",
      "ATOM C CA ALA A 1 1 1 X ? 1 2 3\nATOM C CA GLY A 2 2 2 X ? 2 2 3\n"
      .. "ATOM C CA ALA B 1 1 1 Y ? 1 3 3\nATOM C CA SER B 1 3 3 Y ? 1 4 3\n")
    local back = again(s, ".cif")
    assert.is_nil(difference(s, back))
    assert.are.same({ "ALA UNK SER", "UNK GLY" }, { monomers(back, 0), monomers(back, 1) })
  end)

  it("that only a residue names keeps its id beside those that are made", function()
    local s = of("", "ATOM P P U A ? 1 1 X ? 1 2 3\nATOM C CA ALA B 1 1 1 Y ? 1 2 3\n")
    assert.is_nil(difference(s, again(s, ".cif")))
  end)

  it("has a sequence up to a gap that is nonsense", function()
    local s = of("", "ATOM C CA ALA A 1 1 1 X ? 1 2 3\nATOM C CA GLY A 1 5000 2 X ? 2 2 3\n")
    local back = again(s, ".cif")
    assert.is_nil(difference(s, back))
    assert.are.equal("ALA", monomers(back, 0))
    s = of("", "ATOM C CA ALA A 1 5000 1 X ? 1 2 3\n")
    back = again(s, ".cif")
    assert.is_nil(difference(s, back))
    assert.are.equal("", monomers(back, 0))
  end)

  it("has the kind of polymer of the chain that is one of it, not of one that has it beside its own", function()
    local s = of("loop_ _entity_poly.entity_id _entity_poly.type 1 'polypeptide(L)' 2 other", "ATOM C CA ALA A 1 1 1 X ? 1 2 3\n"
      .. "ATOM P P U B 2 1 9 X ? 3 2 3\nATOM P P U C 2 1 9 Y ? 3 2 3\n")
    assert.are.same({ "protein", "rna" }, { s:chains()[1].polymer, s:chains()[2].polymer })
    assert.is_nil(difference(s, again(s, ".cif")))
  end)
end)

describe("a cell", function()
  it("with a length that is not above 0 is none", function()
    for _, lengths in ipairs { { 0, 5, 6 }, { 4, -5, 6 }, { 4, 5, 0 } } do
      local heading = ("data_x\n_cell.length_a %g _cell.length_b %g _cell.length_c %g\n"):format(unpack(lengths))
        .. "_cell.angle_alpha 90 _cell.angle_beta 90 _cell.angle_gamma 90\n"
      local s, cell = parse(heading .. ROWS .. "ATOM C CA ALA A 1 1 1 X ? 1 2 3\n"), ffi.new "double[6]"
      assert.are.equal(0, C.mf_structure_cell(cell, s.handle))
      for i = 0, 5 do assert.are.equal(0, cell[i]) end
      assert.is_nil(difference(s, again(s, ".cif")))
    end
  end)
end)

describe("a whole number", function()
  it("has the range of 32 bits, as in BinaryCIF", function()
    local function numbered(number) return "data_x\n" .. ROWS .. "ATOM C CA ALA A 1 1 " .. number .. " X ? 1 2 3\n" end
    for _, number in ipairs { "2147483647", "-2147483648" } do
      local s = parse(numbered(number))
      assert.are.equal(tonumber(number), s:residues(1)[1].number)
      assert.is_nil(difference(s, again(s, ".cif")))
    end
    for _, number in ipairs { "2147483648", "-2147483649", "99999999999" } do
      assert.error_matches(function() parse(numbered(number)) end, "auth_seq_id '" .. number .. "' is not a whole number", 1, true)
    end
  end)
end)

describe("PDB", function()
  local function refused(row, what)
    local s = parse("data_x\n" .. ROWS .. row .. "\n")
    assert.error_matches(function() s:write(folder .. "/x.pdb") end, what .. " does not fit the columns of PDB", 1, true)
    assert.is_nil(difference(s, again(s, ".cif")))
  end

  it("has 11 columns for a space group, and none of a longer name: a part of it would be another's", function()
    local function of(group)
      return parse("data_x\n_cell.length_a 40 _cell.length_b 50 _cell.length_c 60\n"
        .. "_cell.angle_alpha 90 _cell.angle_beta 90 _cell.angle_gamma 90\n"
        .. "_symmetry.space_group_name_H-M '" .. group .. "'\n" .. ROWS .. "ATOM C CA ALA A 1 1 1 X ? 1 2 3\n")
    end
    local function group(s) return ffi.string(C.mf_structure_text(s.handle, C.MF_TEXT_SPACE_GROUP, 0)) end
    assert.are.equal("P 21 21 21a", group(again(of "P 21 21 21a", ".pdb")))
    assert.are.equal("", group(again(of "P 21 21 2 (a)", ".pdb")))
    assert.are.equal("P 21 21 2 (a)", group(again(of "P 21 21 2 (a)", ".cif")))
  end)

  it("cannot hold a cell whose numbers are wider than their columns, or a length that reads as none there", function()
    local function has(a, alpha)
      local s = parse(("data_x\n_cell.length_a %s _cell.length_b 50 _cell.length_c 60\n"):format(a)
        .. ("_cell.angle_alpha %s _cell.angle_beta 90 _cell.angle_gamma 90\n"):format(alpha)
        .. ROWS .. "ATOM C CA ALA A 1 1 1 X ? 1 2 3\n")
      return pcall(s.write, s, folder .. "/x.pdb")
    end
    assert.is_true(has("99999.999", "179.99"))
    assert.is_true(has("1.0004", "90"))
    for _, case in ipairs { { "100000", "90", "length a" }, { "0.0004", "90", "length a" }, { "40", "90300", "angle alpha" } } do
      local ok, message = has(case[1], case[2])
      assert.is_false(ok)
      assert.matches("the cell " .. case[3] .. " '%d[%d.e-]*' does not fit the columns of PDB", message)
    end
  end)

  it("cannot hold an insertion code that is a digit: it would be one of the number", function()
    refused("ATOM C CA ALA A 1 1 6 X 2 1 2 3", "the insertion code '2'")
  end)

  it("cannot hold names with blanks at their ends or line ends in them", function()
    refused("ATOM C 'CA ' ALA A 1 1 6 X ? 1 2 3", "the atom name 'CA '")
    refused("ATOM C CA 'S ' A 1 1 6 X ? 1 2 3", "the residue name 'S '")
    refused("ATOM C CA ALA A 1 1 6 ' ' ? 1 2 3", "the chain id ' '")
    refused("ATOM C\n;C\nA\n;\nALA A 1 1 6 X ? 1 2 3", "the atom name 'C\nA'")
  end)
end)
