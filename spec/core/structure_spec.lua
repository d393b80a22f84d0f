-- PDB and mmCIF: what a file says is what chains, residues and atoms hold; what it should not say is refused with
-- its line; what is written is read back.
local ffi = require "ffi"
local mf = require "moonfold"
local binding = require "moonfold.ffi"
local structure = require "moonfold.structure_file"
local support = require "spec.support"

local folder

local shell = support.shell

before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(shell("mkdir " .. folder))
end)
after_each(function() shell("rm -rf " .. folder) end)

-- One PDB atom record; o overrides columns.
local function atom(name, residue, chain, number, x, o)
  o = o or {}
  return ("%-6s%5s %-4s%1s%3s %1s%4s%1s   %8.3f%8.3f%8.3f%6.2f%6.2f          %2s\n"):format(o.record or "ATOM", o.serial or 1,
    #name < 4 and " " .. name or name, o.alt or "", residue, chain, number, o.insertion or "", x, 2 * x, -x, o.occupancy or 1,
      o.b or 0,
    o.element or name:sub(1, 1))
end

-- N, CA, C of one residue, at x, x + 1, x + 2.
local function backbone(residue, chain, number, x, o)
  return atom("N", residue, chain, number, x, o) .. atom("CA", residue, chain, number, x + 1, o) .. atom("C", residue, chain,
    number, x + 2, o)
end

local COLUMNS = {
  "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id", "label_entity_id",
    "label_seq_id",
  "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "auth_seq_id", "auth_asym_id",
    "pdbx_PDB_model_num",
}
local function cif(rows, before)
  local lines = { "data_TEST", before or "", "loop_" }
  for _, name in ipairs(COLUMNS) do lines[#lines + 1] = "_atom_site." .. name end
  return table.concat(lines, "\n") .. "\n" .. table.concat(rows, "\n") .. "\n#\n"
end
local function row(name, alt, residue, label_chain, entity, label, x, occupancy, number, chain, model, group)
  return ("%s 1 %s %s %s %s %s %s %s ? %g %g %g %g 7.5 %s %s %d"):format(group or "ATOM", name:sub(1, 1), name:find "'" and '"'
    .. name .. '"' or name,
    alt, residue, label_chain, entity, label, x, 2 * x, -x, occupancy, number, chain, model or 1)
end

local function only(s)
  local chains = s:chains(1)
  assert.are.equal(1, #chains)
  return chains[1]
end

describe("reading PDB", function()
  it("keeps names, numbers, insertion codes and coordinates", function()
    local s = structure.parse("HEADER    HYDROLASE                               14-DEC-16   5MOO              \n"
      .. "TITLE     A LONG TITLE THAT GOES\nTITLE    2 ON\nEXPDTA    X-RAY DIFFRACTION\nREMARK   2 RESOLUTION.    1.43 ANGSTROMS.\n"
      .. backbone("MET", "a", -3, 1) .. backbone("LYS", "a", 52, 4) .. backbone("GLY", "a", 52, 7, { insertion = "A" }) .. "TER\n"
      .. atom("O", "HOH", "a", 300, 9, { record = "HETATM" }) .. "END\n")
    assert.are.same({ "5MOO", "A LONG TITLE THAT GOES ON", "X-RAY DIFFRACTION", "2016-12-14", 1.43 }, { s.id, s.title, s.method,
      s.date, s.resolution })
    local chain = only(s)
    assert.are.same({ "a", "protein", "MKG", 3 }, { chain.id, chain.polymer, chain.sequence, chain.residues })
    assert.are.same({ -3, 52, 52 }, chain.numbers)
    assert.are.same({ 1, 2, 3 }, chain.labels)
    local residues = s:residues(1)
    assert.are.same({ 4, "A", "HOH", true, false, 0 }, { #residues, residues[3].insertion, residues[4].name, residues[4].hetero,
      residues[4].polymer, residues[4].label })
    local x, mask = s:atoms(1, { "CA", "CB", "N" })
    assert.are.same({ { { 2, 4, -2 }, { 0, 0, 0 }, { 1, 2, -1 } } }, x:narrow(1, 1, 1):totable())
    assert.are.same({ 3, 3, 3 }, x:shape())
    assert.are.same({ true, false, true }, mask:narrow(1, 2, 1):totable()[1])
  end)

  it("reads CRLF, CR and gzip like LF", function()
    local text = backbone("ALA", "A", 1, 1) .. backbone("GLY", "A", 2, 5) .. "END\n"
    for _, ending in ipairs { "\n", "\r\n", "\r" } do
      local s = structure.parse((text:gsub("\n", ending)))
      assert.are.equal("AG", only(s).sequence)
    end
    local file = io.open(folder .. "/x.pdb", "wb")
    file:write("\239\187\191" .. text)
    file:close()
    assert(shell("gzip " .. folder .. "/x.pdb"))
    assert.are.equal("AG", only(structure.read(folder .. "/x.pdb.gz")).sequence)
  end)

  it("keeps the location of the highest occupancy, then the first, even when conformers come one after the other", function()
    local s = structure.parse(atom("N", "SER", "A", 1, 1, { alt = "A", occupancy = 0.5 }) .. atom("CA", "SER", "A", 1, 2,
      { alt = "A", occupancy = 0.3 })
      .. atom("N", "GLY", "A", 2, 9) .. atom("N", "SER", "A", 1, 11, { alt = "B", occupancy = 0.5 })
      .. atom("CA", "SER", "A", 1, 12, { alt = "B", occupancy = 0.7 }))
    assert.are.equal("SG", only(s).sequence)
    local atoms = s:residue_atoms(1)
    assert.are.same({ 2, 1, "A", 12, "B" }, { #atoms, atoms[1].x, atoms[1].altloc, atoms[2].x, atoms[2].altloc })
  end)

  it("chooses one of two residue names at one place", function()
    local function both(a, b)
      return only(structure.parse(backbone("PRO", "A", 22, 1, { alt = "A", occupancy = a }) .. backbone("SER", "A", 22, 4,
        { alt = "B", occupancy = b })
        .. backbone("GLY", "A", 23, 9))).sequence
    end
    assert.are.same({ "PG", "SG", "PG" }, { both(0.6, 0.4), both(0.4, 0.6), both(0.5, 0.5) })
    local apart = structure.parse(backbone("PRO", "A", 22, 1) .. backbone("SER", "A", 22, 4))
    assert.are.equal("PS", only(apart).sequence)
  end)

  it("counts models itself, whatever MODEL records say", function()
    local one = backbone("ALA", "A", 1, 1)
    for _, text in ipairs { "MODEL 0\n" .. one .. "MODEL 0\n" .. one, one .. "ENDMDL\n" .. one .. "ENDMDL\n", "MODEL        1\n"
      .. one .. "ENDMDL\nMODEL        7\n" .. one .. "ENDMDL\nEND\n" } do
      local s = structure.parse(text)
      assert.are.equal(2, s:counts().models)
      assert.are.same({ 1, 2 }, { s:chains(1)[1].model, s:chains(2)[1].model })
    end
  end)

  it("reads hybrid-36 and overflown serials and numbers", function()
    local s = structure.parse(backbone("ALA", "A", 9999, 1, { serial = "A000Z" }) .. backbone("GLY", "A", "A000", 4,
      { serial = "*****" })
      .. backbone("SER", "A", "A00Z", 7, { serial = "a0000" }) .. backbone("SER", "A", "zzzz", 7, { serial = "186a0" }))
    assert.are.same({ 9999, 10000, 10035, 10000 + 52 * 36 ^ 3 - 1 }, only(s).numbers)
    assert.are.same({ 100035, 0, 100000 + 26 * 36 ^ 4, 100000 },
      { s:residue_atoms(1)[1].serial, s:residue_atoms(2)[1].serial, s:residue_atoms(3)[1].serial, s:residue_atoms(4)[1].serial })
  end)

  it("takes modified residues for polymer and ligands not", function()
    local het = { record = "HETATM" }
    local s = structure.parse("MODRES 0XAA XAA A    5  MET  TEST\n" .. backbone("ALA", "A", 1, 1) .. backbone("MSE", "A", 2, 4, het)
      .. backbone("SEP", "A", 3, 7, het) .. backbone("XAA", "A", 4, 10, het) .. backbone("QQQ", "A", 5, 13, het)
        .. backbone("GLY", "A", 6, 16)
      .. "TER\n" .. backbone("GLU", "A", 401, 30, het) .. atom("CA", "CA", "A", 402, 1, { record = "HETATM", element = "CA" }))
    assert.are.equal("AMSMXG", only(s).sequence)
    assert.are.same({ "ALA", "MSE", "SEP", "XAA", "QQQ", "GLY" }, only(s).names)
    local open = structure.parse(backbone("ALA", "A", 1, 1) .. backbone("MSE", "A", 2, 4, het) .. backbone("QQQ", "A", 3, 4, het))
    assert.are.equal("AM", only(open).sequence)
  end)

  it("tells proteins, RNA and DNA apart, in old names too", function()
    local function nucleotide(name, number, mark, ribose)
      local text = ""
      for i, a in ipairs { "P", "C4" .. mark, "C1" .. mark, "C3" .. mark } do text = text .. atom(a, name, "A", number, i) end
      return ribose and text .. atom("O2" .. mark, name, "A", number, 9) or text
    end
    local function kind(...)
      local text = ""
      for i, name in ipairs { ... } do text = text .. nucleotide(name:gsub("+", ""), i, "*", name:find("+", 1, true)) end
      local chain = only(structure.parse(text))
      return chain.polymer .. " " .. chain.sequence
    end
    assert.are.equal("rna ACGU", kind("A+", "C+", "G+", "U+"))
    assert.are.equal("rna AAA", kind("A", "A", "A"))
    assert.are.equal("dna ACGT", kind("A", "C", "G", "T"))
    assert.are.equal("dna ACGT", kind("DA", "DC", "DG", "DT"))
    assert.are.equal("rna GUC", kind("GUA+", "PSU+", "5MC+"))
    assert.are.equal("dna ACGT", kind("ADE", "CYT", "GUA", "THY"))
    local s = structure.parse(nucleotide("G", 1, "'", true))
    local x, mask = s:atoms(1, { "C4*", "N9|P", "N9|N1" })
    assert.are.same({ { true, true, false } }, mask:totable())
    assert.are.same({ 2, 1 }, { x:totable()[1][1][1], x:totable()[1][2][1] })
  end)

  it("reads residue names of lower-case records in upper case, those of the sequence too", function()
    local text = "SEQRES   1 a    2  GLY MSE\nMODRES 1ABC MSE a    2  MET\n" .. backbone("GLY", "a", 1, 1)
    local s = structure.parse(text:lower())
    assert.are.same({ "GLY" }, only(s).names)
    assert.are.equal("GLY", ffi.string(binding.C.mf_structure_text(s.handle, binding.C.MF_TEXT_MONOMER, 0)))
    assert.are.equal("MSE", ffi.string(binding.C.mf_structure_text(s.handle, binding.C.MF_TEXT_MONOMER, 1)))
  end)

  it("keeps the case of chain ids", function()
    local s = structure.parse(backbone("ALA", "a", 1, 1) .. backbone("ALA", "A", 1, 1) .. atom("O", "HOH", "a", 9, 1,
      { record = "HETATM" }))
    assert.are.same({ "a", "A" }, { s:chains()[1].id, s:chains()[2].id })
    assert.are.equal(2, #s:residues(1))
  end)
end)

describe("reading mmCIF", function()
  local rows = {
    row("N", ".", "MET", "A", 1, 3, 1, 1, 10, "X"), row("CA", ".", "MET", "A", 1, 3, 2, 1, 10, "X"),
    row("CA", "A", "MSE", "A", 1, 5, 3, 0.4, 12, "X", 1, "HETATM"), row("CA", "B", "MSE", "A", 1, 5, 4, 0.6, 12, "X", 1, "HETATM"),
    row("CA", ".", "CA", "B", 2, ".", 5, 1, 501, "X", 1, "HETATM"), row("O", ".", "HOH", "C", 3, ".", 6, 1, 601, "X", 1, "HETATM"),
    row("N", ".", "MET", "A", 1, 3, 7, 1, 10, "X", 4),
  }

  it("guesses elements where the file has none: two letters where nothing else is called so", function()
    local lines = { "data_TEST\nloop_" }
    for _, item in ipairs { "group_PDB", "label_atom_id", "label_comp_id", "auth_asym_id", "auth_seq_id", "Cartn_x", "Cartn_y",
      "Cartn_z" } do lines[#lines + 1] = "_atom_site." .. item end
    local expected, names = { "C", "C", "BR", "SE", "CL", "CL", "CA", "N", "O", "C", "MG", "H" }, {
      "ATOM CA ALA", "HETATM CA MSE", "HETATM BR 5BU", "HETATM SE MSE", "HETATM CL1 ABC", "HETATM CL CL", "HETATM CA CA",
      "HETATM NA HEM", "ATOM OP1 A", "HETATM CD CIT", "HETATM MG CHL", "ATOM HE1 MET",
    }
    for i, name in ipairs(names) do lines[#lines + 1] = ("%s A %d %d 0 0"):format(name, i, i) end
    local s, found = structure.parse(table.concat(lines, "\n") .. "\n"), {}
    for i in ipairs(names) do found[i] = s:residue_atoms(i)[1].element end
    assert.are.same(expected, found)
  end)

  it("keys chains by author id, labels by sequence, models in order", function()
    local s = structure.parse(cif(rows, "_entry.id 1ABC\n_struct.title\n;two\nlines\n;\n_exptl.method 'SOLUTION NMR'\n"
      .. "_refine.ls_d_res_high .\n_em_3d_reconstruction.resolution 4.1\n_reflns.d_resolution_high 9\n"
      .. "_pdbx_database_status.recvd_initial_deposition_date 2020-01-02"))
    assert.are.same({ "1ABC", "two lines", "SOLUTION NMR", "2020-01-02", 4.1 }, { s.id, s.title, s.method, s.date, s.resolution })
    assert.are.same({ models = 2, chains = 2, residues = 5, atoms = 6 }, s:counts())
    local chain = only(s)
    assert.are.same({ "X", "1", "protein", "MM" }, { chain.id, chain.entity, chain.polymer, chain.sequence })
    assert.are.same({ { 10, 12 }, { 3, 5 } }, { chain.numbers, chain.labels })
    assert.are.equal(4, s:residue_atoms(2)[1].x)
    assert.are.equal(2, s:chains()[2].model)
  end)

  it("reads tags in any case and order, comments, quotes and text fields, a category without a loop", function()
    local text = cif(rows)
    assert.are.equal("MM", only(structure.parse((text:gsub("_atom_site", "_ATOM_SITE"):gsub("loop_",
      "Loop_ # not a tag")))).sequence)
    assert.are.equal("MM", only(structure.parse((text:gsub(" MSE ", "\n;MSE\n;\n"):gsub(" HOH ", " 'HOH' ")))).sequence)
    assert.are.equal("MM", only(structure.parse((text:gsub("\n", "\r\n")))).sequence)
    local pairs_of = { "data_x" }
    local values = {}
    for value in rows[1]:gmatch "%S+" do values[#values + 1] = value end
    for i = #COLUMNS, 1, -1 do pairs_of[#pairs_of + 1] = "_atom_site." .. COLUMNS[i] .. "\t" .. values[i]
      .. "\n_other.tag" .. i .. " 'it's'" end
    assert.are.equal("M", only(structure.parse(table.concat(pairs_of, "\n"))).sequence)
  end)

  it("does not take a quoted . for an absent value", function()
    local s = structure.parse(cif { (row("CA", ".", "ALA", "A", 1, 1, 1, 1, 1, "X"):gsub(" X ", " '.' ")) })
    assert.are.equal(".", only(s).id)
  end)

  it("uses the declared polymer type", function()
    local plain = { row("C4'", ".", "A", "A", 1, 1, 1, 1, 1, "X"), row("P", ".", "A", "A", 1, 1, 1, 1, 1, "X") }
    assert.are.equal("rna", only(structure.parse(cif(plain))).polymer)
    assert.are.equal("dna", only(structure.parse(cif(plain,
      "_entity_poly.entity_id 1\n_entity_poly.type polydeoxyribonucleotide"))).polymer)
  end)
end)

describe("refusing", function()
  local ala = atom("CA", "ALA", "A", 1, 1)
  local whole = cif { row("CA", ".", "ALA", "A", 1, 1, 1, 1, 1, "X") }
  local cases = {
    { "an empty text", "", "the file is empty" },
    { "blanks", " \n\n", "blank" },
    { "HTML", "<!DOCTYPE html>\n<html>", "HTML" },
    { "binary", "ATOM\n\0\1\2", "line 2: a zero byte" },
    { "prose", "hello\nworld\n", "neither PDB nor mmCIF" },
    { "a PDB header without atoms", "HEADER    X\n", "no atoms" },
    { "a cut atom record", ala .. ala:sub(1, 50), "line 2: an atom record ends before its coordinates" },
    { "blank coordinates", ala:sub(1, 30) .. (" "):rep(8) .. ala:sub(39), "line 1: a coordinate is blank" },
    { "nan", "REMARK\n" .. ala:sub(1, 30) .. "     nan" .. ala:sub(39), "line 2: the coordinate 'nan'" },
    { "inf", ala:sub(1, 30) .. "     inf" .. ala:sub(39), "line 1: the coordinate 'inf'" },
    { "an overflown coordinate", ala:sub(1, 30) .. "********" .. ala:sub(39), "line 1: the coordinate '********'" },
    { "a residue number that is none", ala:sub(1, 22) .. " x-y" .. ala:sub(27), "line 1: the residue number" },
    { "a ragged loop", whole:gsub("\n#\n", "\nATOM 2 C\n"), "ends in the middle of a row" },
    { "a quote that does not end", "data_x\n_a.b 'c\n", "line 2: a quoted value does not end" },
    { "a text field that does not end", "data_x\n_a.b\n;c\nd\n", "line 3: a text field" },
    { "a tag without value", "data_x\n_a.b\n_c.d 1\n", "line 2: _a.b has no value" },
    { "a value without tag", "data_x\n1 2\n", "line 2: a value without a tag" },
    { "a loop without tags", "data_x\nloop_\n1\n", "line 2: loop_ without tags" },
    { "a CIF without atoms", "data_x\n_a.b 1\n", "no _atom_site" },
    { "an infinite coordinate in mmCIF", whole:gsub("\n(ATOM.- %? )1 ", "\n%11e999 "), "line 22: Cartn_x '1e999'" },
    { "an absent coordinate in mmCIF", whole:gsub("\n(ATOM.- %? )1 ", "\n%1? "), "line 22: Cartn_x '?'" },
    { "fractional coordinates", (whole:gsub("Cartn_", "fract_")), "no Cartn_x" },
  }
  for _, case in ipairs(cases) do
    it(case[1], function()
      support.error_matches(function() structure.parse(case[2], "auto", "bad.ent?") end, case[3], true)
      support.error_matches(function() structure.parse(case[2], "auto", "bad.ent?") end, "'bad.ent?'", true)
    end)
  end

  it("a folder, an absent file, unknown formats and options", function()
    support.error_matches(function() structure.read(folder) end, "directory")
    support.error_matches(function() structure.read(folder .. "/none.pdb") end, "No such file")
    support.error_matches(function() structure.read(folder, "xyz") end, "known: auto, bcif, mmcif, pdb", true)
    support.error_matches(function() structure.from_atoms { atom = 1 } end, "unknown option 'atom'", true)
  end)

  it("no cut of a good file by a crash", function()
    for _, text in ipairs { backbone("ALA", "A", 1, 1) .. "TER\nEND\n", whole } do
      for n = 0, #text do
        local ok, result = pcall(structure.parse, text:sub(1, n))
        assert.is_true(ok or type(result) == "string")
      end
    end
  end)
end)

describe("writing and reading back", function()
  it("keeps RNA, ligands, modified residues and gaps", function()
    local het = { record = "HETATM" }
    local text = backbone("ALA", "A", 1, 1) .. backbone("MSE", "A", 2, 4, het) .. "TER\n" .. atom("FE", "HEM", "A", 9, 1,
      { record = "HETATM", element = "FE" })
      .. atom("O", "HOH", "A", 10, 1, het)
    local s = structure.parse(text)
    for _, ending in ipairs { ".pdb", ".cif" } do
      s:write(folder .. "/x" .. ending)
      local back = structure.read(folder .. "/x" .. ending)
      assert.are.equal("AM", only(back).sequence)
      local residues = back:residues(1)
      assert.are.same({ "HEM", "HOH", 9, true }, { residues[3].name, residues[4].name, residues[3].number, residues[3].hetero })
      assert.are.equal("FE", back:residue_atoms(3)[1].element)
    end
    local gap = structure.parse(cif { row("CA", ".", "ALA", "A", 1, 3, 1, 1, 7, "A"), row("CA", ".", "GLY", "A", 1, 6, 2, 1, 10,
      "A") })
    gap:write(folder .. "/gap.cif")
    assert.are.same({ { 3, 6 }, { 7, 10 } }, { only(structure.read(folder .. "/gap.cif")).labels, only(structure.read(folder
      .. "/gap.cif")).numbers })
    structure.from_atoms { atoms = mf.ones(4, 2, 3), names = { "C4'", "P" }, residue_names = "A" }:write(folder .. "/r.cif")
    assert.are.equal("rna", only(structure.read(folder .. "/r.cif")).polymer)
  end)

  it("leaves no tensor behind when an allocation fails", function()
    local s = structure.parse(backbone("ALA", "A", 1, 1))
    local x, mask = ffi.new "mf_tensor *[1]", ffi.new "mf_tensor *[1]"
    local list = ffi.new("const char *[1]", { "CA" })
    local before = support.live_bytes()
    for nth = 1, 20 do
      binding.C.mf_memory_fail_at(binding.ctx, nth)
      local status = binding.C.mf_structure_atoms(x, mask, s.handle, binding.ctx, 0, list, 1)
      binding.C.mf_memory_fail_at(binding.ctx, 0)
      if status == 0 then
        assert.is_true(nth > 2)
        binding.C.mf_tensor_release(x[0])
        binding.C.mf_tensor_release(mask[0])
        break
      end
      assert.is_true(x[0] == nil and mask[0] == nil)
    end
    assert.are.equal(before, support.live_bytes())
  end)
end)
