-- PDB: what its header declares, where residues stand in SEQRES, and the habits of those who write the format.
local structure = require "moonfold.structure_file"
local support = require "spec.support"

-- One atom record; o overrides columns.
local function atom(name, residue, chain, number, x, o)
  o = o or {}
  return ("%-6s%5s %-4s%1s%3s %1s%4s%1s   %8.3f%8.3f%8.3f%6.2f%6.2f          %2s%2s\n"):format(o.record or "ATOM", o.serial or 1,
    #name < 4 and " " .. name or name, o.alt or "", residue, chain, number, o.insertion or "", x, o.y or 0, 0, o.occupancy or 1, 0,
    o.element or name:sub(1, 1), o.charge or "")
end

-- A residue whose C is bonded to the next one's N where places follow each other.
local function amino(residue, chain, number, place, o)
  return atom("N", residue, chain, number, 3 * place, o) .. atom("CA", residue, chain, number, 3 * place + 1, o)
    .. atom("C", residue, chain, number, 3 * place + 2, o)
end

local function seqres(chain, names)
  local lines, list = {}, {}
  for name in names:gmatch "%S+" do list[#list + 1] = ("%3s"):format(name) end
  for i = 1, #list, 13 do
    lines[#lines + 1] = ("SEQRES %3d %s %4d  %s\n"):format(math.floor(i / 13) + 1, chain, #list,
      table.concat(list, " ", i, math.min(i + 12, #list)))
  end
  return table.concat(lines)
end

local function labels(text, o) return structure.parse(text, o):chains()[1].labels end

local HET = { record = "HETATM" }

describe("the header of PDB", function()
  local s = structure.parse([[
COMPND    MOL_ID: 2;
COMPND   2 MOLECULE: A LONG
COMPND   3 NAME;
COMPND   4 CHAIN: B, C;
COMPND   5 MOL_ID: 3; MOLECULE: SHORT; CHAIN: A
HETNAM     XYZ A LIGAND OF-
HETNAM   2 XYZ TWO LINES
HETNAM     MSE SELENOMETHIONINE
FORMUL   4  HOH   *2(H2 O)
REMARK 350 BIOMOLECULE: 1
REMARK 350 AUTHOR DETERMINED BIOLOGICAL UNIT: TRIMERIC
REMARK 350 SOFTWARE DETERMINED QUATERNARY STRUCTURE: TRIMERIC
REMARK 350 BIOMOLECULE: 2
REMARK 350 SOFTWARE DETERMINED QUATERNARY STRUCTURE: 24-MERIC
CRYST1   30.060   40.500   50.125  90.00  91.50  90.00 P 1 21 1      4
]] .. seqres("A", "A U") .. seqres("B", "GLY MSE ALA") .. seqres("C", "GLY MSE ALA") .. atom("P", "A", "A", 1, 1) .. "TER\n"
    .. amino("MSE", "B", 8, 1, HET) .. amino("ALA", "B", 9, 2) .. "TER\n" .. amino("GLY", "C", 7, 0) .. "TER\n"
    .. atom("X", "XYZ", "B", 100, 1, HET) .. atom("O", "HOH", "C", 100, 1, HET))

  it("makes entities of molecules and sequences, ligands and water", function()
    assert.are.same({
      { id = "1", kind = "polymer", polymer = "protein", description = "A LONG NAME", monomers = { "GLY", "MSE", "ALA" } },
      { id = "2", kind = "polymer", polymer = "rna", description = "SHORT", monomers = { "A", "U" } },
      { id = "3", kind = "non-polymer", polymer = "none", description = "A LIGAND OF-TWO LINES", monomers = {} },
      { id = "4", kind = "water", polymer = "none", description = "water", monomers = {} },
    }, s:entities())
    local chains = s:chains()
    assert.are.same({ "2", "1", "1" }, { chains[1].entity, chains[2].entity, chains[3].entity })
    assert.are.same({ "1", "1", "3" }, { s:residues(2)[1].entity, s:residues(2)[2].entity, s:residues(2)[3].entity })
    assert.are.equal("4", s:residues(3)[2].entity)
    assert.are.same({ { 2, 3 }, { 1 } }, { chains[2].labels, chains[3].labels })
  end)

  it("leaves nobody without an entity: what it does not declare gets one", function()
    local mixed = structure.parse(seqres("A", "GLY ALA") .. amino("GLY", "A", 1, 1) .. "TER\n" .. amino("TRP", "B", 1, 5) .. "TER\n"
      .. atom("S", "SO4", "A", 9, 1, HET) .. atom("O", "HOH", "A", 10, 1, HET) .. atom("O", "HOH", "B", 10, 1, HET))
    local list = {}
    for c = 1, 2 do
      for _, r in ipairs(mixed:residues(c)) do list[#list + 1] = r.name .. r.entity end
    end
    assert.are.equal("GLY1 SO43 HOH4 TRP2 HOH4", table.concat(list, " "))
    assert.are.same({ "protein", "protein", "none", "none" }, { mixed:entities()[1].polymer, mixed:entities()[2].polymer,
      mixed:entities()[3].polymer, mixed:entities()[4].polymer })
    local wrong = structure.parse(seqres("A", "GLY ALA") .. amino("TRP", "A", 1, 1) .. amino("TRP", "A", 2, 2))
    assert.are.same({ "2", {} }, { wrong:chains()[1].entity, wrong:entities()[2].monomers })
  end)

  it("tells DNA with names from before 2007", function()
    local old = structure.parse(seqres("A", "A C G T") .. atom("P", "A", "A", 1, 1)
      .. atom("C4*", "T", "A", 4, 9, { element = "C" }))
    assert.are.same({ "dna", "dna" }, { old:entities()[1].polymer, old:chains()[1].polymer })
  end)

  it("tells assemblies and the cell", function()
    assert.are.same({
      { id = "1", details = "author_and_software_defined_assembly", oligomer = "trimeric", count = 3 },
      { id = "2", details = "software_defined_assembly", oligomer = "24-meric", count = 24 },
    }, s:assemblies())
    assert.are.same({ 30.06, 40.5, 50.125, 90, 91.5, 90 }, s.cell)
    assert.are.equal("P 1 21 1", s.space_group)
    assert.is_nil(structure.parse("CRYST1   30.060   40.5\n" .. atom("CA", "ALA", "A", 1, 1)).cell)
  end)
end)

describe("residues in SEQRES", function()
  local header = seqres("A", "GLY ALA SER ALA VAL ALA SER ALA LEU")

  it("keep their distance by number, whatever numbering begins with", function()
    local text = header .. amino("SER", "A", -3, 1) .. amino("ALA", "A", -2, 2) .. amino("SER", "A", 1, 9)
      .. amino("LEU", "A", 3, 20)
    assert.are.same({ 3, 4, 7, 9 }, labels(text))
  end)

  it("go by bonds where numbers jump, and by numbers where atoms are missing", function()
    local jump = header .. amino("SER", "A", 3, 1) .. amino("ALA", "A", 40, 2) .. amino("LEU", "A", 60, 9)
    assert.are.same({ 3, 4, 9 }, labels(jump))
    local bare = header .. atom("CA", "ALA", "A", 12, 1) .. atom("C", "SER", "A", 17, 50) .. atom("C", "ALA", "A", 18, 60)
    assert.are.same({ 2, 7, 8 }, labels(bare))
  end)

  it("may have another name than the sequence, once in a while", function()
    local text = header
    for i, name in ipairs { "GLY", "ALA", "THR", "ALA", "VAL" } do text = text .. amino(name, "A", i + 20, i) end
    assert.are.same({ 1, 2, 3, 4, 5 }, labels(text))
  end)

  it("count as before where the sequence is of something else", function()
    local text = header .. amino("TRP", "A", 1, 1) .. amino("TRP", "A", 2, 2) .. amino("TYR", "A", 3, 3)
    assert.are.same({ 1, 2, 3 }, labels(text))
  end)

  it("are of the polymer for that: HETATM of unknown names too, but no ligand, and nothing after the TER", function()
    local unknown = seqres("A", "QQA QQB QQA") .. atom("X", "QQA", "A", 1, 1, HET) .. atom("X", "QQA", "A", 3, 1, HET) .. "TER\n"
      .. atom("X", "QQB", "A", 4, 1, HET)
    assert.are.same({ 1, 3 }, labels(unknown))
    local open = header .. amino("GLY", "A", 1, 1) .. amino("ALA", "A", 2, 2) .. atom("O1", "SO4", "A", 9, 9, HET)
    assert.are.same({ 1, 2 }, labels(open))
  end)

  it("share a number where they share a place", function()
    local text = header .. amino("GLY", "A", 1, 1) .. amino("SER", "A", 2, 2, { alt = "A", occupancy = 0.6 })
      .. amino("ALA", "A", 2, 2, { alt = "B", occupancy = 0.4 }) .. amino("SER", "A", 3, 3)
    assert.are.same({ 1, 2, 3 }, labels(text))
    assert.are.equal("GSS", structure.parse(text):chains()[1].sequence)
    assert.are.same({ 1, 2, 2, 3 }, labels(text, { altlocs = "all" }))
    assert.are.same({ 1, 2, 2, 3 }, labels(text:gsub("SEQRES[^\n]*\n", ""), { altlocs = "all" }))
  end)

  it("find their places in time that grows with the chain", function()
    local names, text = {}, {}
    for i = 1, 60000 do
      names[i] = "ALA"
      text[i] = atom("CA", i % 7000 == 0 and "TRP" or "ALA", "A", i % 9, 4 * i % 900, { insertion = string.char(65 + i % 26) })
    end
    local started = os.clock()
    local s = structure.parse(seqres("A", table.concat(names, " ")) .. table.concat(text))
    assert.are.equal(60000, s:counts().residues)
    assert.is_true(os.clock() - started < 60)    -- 3.6e9 alignments of one residue would take longer
  end)
end)

describe("habits of PDB", function()
  it("are charges on either side, serials of six digits, and elements that are none", function()
    local s = structure.parse(atom("FE", "HEM", "A", 1, 1, { element = "FE", charge = "3+", record = "HETATM" })
      .. atom("O", "HEM", "A", 1, 2, { charge = "-1", record = "HETATM" })
      .. atom("C1", "HEM", "A", 1, 3, { element = "A", charge = "42" }) .. "ATOM 123456" .. atom("C2", "HEM", "A", 1, 4):sub(12)
      .. atom("BR", "HEM", "A", 1, 5, { element = "" }):gsub(" BR ", "BR  "))
    local list = s:residue_atoms(1)
    assert.are.same({ 3, -1, 0 }, { list[1].charge, list[2].charge, list[3].charge })
    local elements = {}
    for i, a in ipairs(list) do elements[i] = a.element end
    assert.are.same({ "FE", "O", "C", "C", "BR" }, elements)
    assert.are.equal(123456, list[4].serial)
  end)

  it("are atoms of a residue after its TER, and others that only look like it", function()
    local s = structure.parse(atom("CA", "ALA", "A", 1, 1) .. "TER\n" .. atom("CB", "ALA", "A", 1, 2)
      .. atom("CA", "ALA", "A", 1, 3))
    assert.are.same({ 1, 2 }, { s:counts().residues, s:counts().atoms })
    local twice = structure.parse(atom("CA", "ALA", "A", 1, 1) .. "TER\n" .. atom("CA", "ALA", "A", 1, 2))
    assert.are.equal(2, twice:counts().residues)
  end)

  it("are lines of any length, but not endless ones", function()
    local text = atom("CA", "ALA", "A", 1, 1)
    local long = text:sub(1, -2) .. ("x"):rep(60000) .. "\n"
    assert.are.equal(2, structure.parse(long .. text:gsub("   1 ", "   2 ")):counts().residues)
    support.error_matches(function() structure.parse(text .. ("x"):rep(70000)) end, "line 2: more than 65536 characters")
    support.error_matches(function() structure.parse(text .. ("\n"):rep(70000) .. "ATOM\0") end, "line 70002: a zero byte")
  end)

  it("are coordinates of other than three decimals, each the double of its text", function()
    for _, x in ipairs { "  -0.500", "    .125", " -12.34 ", "1234.567", "-999.999", "   1e-3 ", "   0.1  ", " 12.3456" } do
      local text = atom("CA", "ALA", "A", 1, 1)
      local found = structure.parse(text:sub(1, 30) .. x .. text:sub(39)):residue_atoms(1)[1].x
      assert.are.equal(tonumber(x), found)
    end
  end)

  it("are modified residues, told by their parents in the chemical component dictionary", function()
    local function code(name) return structure.parse(amino(name, "A", 1, 1, HET)):residues(1)[1].code end
    assert.are.equal("MQSTCGUCTX", code "MSE" .. code "PCA" .. code "DHA" .. code "DBU" .. code "BB9" .. code "G7M" .. code "PSU"
      .. code "1SC" .. code "DT" .. code "QQQ")
  end)
end)
