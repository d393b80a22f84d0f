-- Files a chain at a time: the pieces hold what the whole holds, in bounded memory and in time that grows with the file.
local ffi = require "ffi"
local structure = require "moonfold.structure_file"
local support = require "spec.support"

local path
before_each(function() path = os.tmpname() end)
after_each(function() os.remove(path) end)

local function write(text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
  return path
end

local function atom(name, residue, chain, number, x, record)
  return ("%-6s    1  %-3s %3s %1s%4d    %8.3f   0.000   0.000  1.00  0.00           %s\n"):format(record or "ATOM", name, residue,
    chain, number, x, name:sub(1, 1))
end

-- Chain, model, residues with labels, and the entities of polymers (others are numbered anew in a whole file), atoms.
local function words(s)
  local list = {}
  for _, chain in ipairs(s:chains()) do
    for _, r in ipairs(s:residues(chain.index)) do
      local text = { chain.model .. chain.id, r.name .. r.number, r.label, r.label > 0 and r.entity or "" }
      for _, a in ipairs(s:residue_atoms(r.index)) do text[#text + 1] = a.name .. a.x end
      list[#list + 1] = table.concat(text, " ")
    end
  end
  return list
end

-- What all the pieces hold together, in the order of the whole.
local function together(o)
  local count, list = 0, {}
  for s in structure.chains(path, o) do
    count = count + 1
    for _, text in ipairs(words(s)) do list[#list + 1] = text end
  end
  return list, count
end

local function sorted(list)
  table.sort(list)
  return list
end

local PDB = "HEADER    X                                       14-DEC-16   5MOO\nSEQRES   1 A    4  ALA GLY MSE SER\n"
  .. "SEQRES   1 B    2  GLY GLY\nHETNAM     SO4 SULFATE\n"
  .. "MODEL        1\n" .. atom("CA", "GLY", "A", 2, 1) .. atom("CA", "MSE", "A", 3, 2, "HETATM") .. "TER\n"
  .. atom("CA", "GLY", "B", 8, 3) .. atom("CA", "GLY", "B", 9, 3.5) .. "TER\n"
  .. atom("S", "SO4", "A", 100, 4, "HETATM") .. atom("CA", "GLY", "A", 101, 5, "HETATM")
  .. atom("O", "HOH", "B", 200, 6, "HETATM") .. "ENDMDL\n"
  .. "MODEL        2\n" .. atom("CA", "GLY", "A", 2, 7) .. "TER\nENDMDL\nEND\n"

describe("a PDB file by chains", function()
  it("comes in the pieces that TER, chain and model end, as the whole has them", function()
    write(PDB)
    local list, count = together()
    assert.are.equal(5, count)
    assert.are.same(sorted(words(structure.read(path))), sorted(list))
    assert.are.equal("5MOO", structure.chains(path)().id)
    local kinds = {}
    for s in structure.chains(path) do
      kinds[#kinds + 1] = s:chains()[1].polymer
      assert.are.equal(3, #s:entities())
      assert.are.same({ "ALA", "GLY", "MSE", "SER" }, s:entities()[1].monomers)
    end
    assert.are.same({ "protein", "protein", "none", "none", "protein" }, kinds)
  end)

  it("ends after the models that are wanted", function()
    write(PDB)
    local _, count = together { models = 1 }
    assert.are.equal(4, count)
  end)

  it("gives structures that outlive the reader and each other", function()
    write(PDB)
    local held = {}
    for s in structure.chains(path) do held[#held + 1] = s end
    table.remove(held, 1)
    collectgarbage()
    collectgarbage()
    assert.are.equal("GLY", held[1]:residues(1)[1].name)
    assert.are.same({ "GLY", "GLY" }, held[4]:entities()[2].monomers)
  end)
end)

describe("an mmCIF file by chains", function()
  local columns = {
    "label_atom_id", "label_comp_id", "label_asym_id", "label_entity_id", "label_seq_id", "Cartn_x", "Cartn_y", "Cartn_z",
    "auth_asym_id", "auth_seq_id", "pdbx_PDB_model_num",
  }
  local function cif(rows, before)
    local head = "data_X\n" .. (before or "") .. "loop_\n_atom_site." .. table.concat(columns, "\n_atom_site.")
    return head .. "\n" .. table.concat(rows, "\n") .. "\n"
  end

  it("comes in runs of label_asym_id", function()
    write(cif({ "CA ALA A 1 1 1 0 0 X 10 1", "CA GLY A 1 2 2 0 0 X 11 1", "O HOH B 2 . 3 0 0 X 20 1", "CA ALA C 1 1 4 0 0 Y 10 1",
      "CA ALA A 1 1 5 0 0 X 10 2" },
      "loop_\n_entity.id\n_entity.type\n1 polymer\n2 water\n"
        .. "loop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.num\n_entity_poly_seq.mon_id\n1 1 ALA\n1 2 GLY\n"))
    local list, count = together()
    assert.are.equal(4, count)
    assert.are.same(sorted(words(structure.read(path))), sorted(list))
    for s in structure.chains(path) do
      assert.are.same({ "ALA", "GLY" }, s:entities()[1].monomers)
      assert.are.equal("water", s:entities()[2].kind)
    end
  end)

  it("takes entities that come after atoms into the piece at hand", function()
    write(cif({ "CA ALA A 1 1 1 0 0 X 10 1", "CA GLY B 1 2 2 0 0 Y 11 1" }, "_entity.id 1\n")
      .. "_entity_poly.entity_id 2\n_entity_poly.type polyribonucleotide\n")
    local counts = {}
    for s in structure.chains(path) do counts[#counts + 1] = #s:entities() end
    assert.are.same({ 1, 2 }, counts)
  end)

  it("says what is wrong where it comes, and ends then", function()
    write(cif { "CA ALA A 1 1 1 0 0 X 10 1", "CA GLY B 1 2 inf 0 0 Y 11 1" })
    local next_chain = structure.chains(path)
    assert.are.equal("X", next_chain():chains()[1].id)
    support.error_matches(function() next_chain() end, "line 15: Cartn_x 'inf' is not a finite number")
    assert.is_nil(next_chain())
    support.error_matches(function() structure.chains "none.cif" end, "No such file")
    support.error_matches(function() structure.chains(path, { modles = 1 }) end, "unknown option 'modles'")
  end)
end)

-- What a square of N would take: 1e10 of the cheapest steps. A sum of N takes a hundredth of it, also under sanitizers.
local SQUARE = 60

describe("many", function()
  local function seconds(f)
    local started = os.clock()
    f()
    return os.clock() - started
  end
  local function lines(n, f)
    local list = {}
    for i = 1, n do list[i] = f(i) end
    return table.concat(list)
  end
  local N = 100000
  local cases = {
    models = function(i) return "MODEL\n" .. atom("CA", "ALA", "A", i % 10000, 1) .. "ENDMDL\n" end,
    chains = function(i) return atom("CA", "ALA", string.char(33 + i % 90), i % 10000, 1) end,
    locations = function(i) return (atom("CA", "ALA", "A", 1, 1):gsub(" ALA", string.char(65 + i % 26) .. "ALA")) end,
    ["residues in turns"] = function(i) return atom(("%X"):format(i % 4096), "ALA", "A", i % 2, 1) end,
    ["names at one place"] = function(i) return (atom("CA", ("%03X"):format(i % 4096), "A", 1, 1):gsub("CA  ", "CA A")) end,
  }
  for name, f in pairs(cases) do
    it(name .. " cost no more than as many lines", function()
      local text = lines(N, f)
      write(text)
      assert.is_true(seconds(function() structure.parse(text) end) < SQUARE)
      assert.is_true(seconds(function() structure.parse(text, { altlocs = "all" }) end) < SQUARE)
      assert.is_true(seconds(function() for _ in structure.chains(path) do end end) < SQUARE)
    end)
  end

  it("chains and entities of mmCIF cost no more than as many lines", function()
    local entities = lines(N, function(i) return i .. " polymer\n" end)
    local rows = lines(N, function(i) return ("%d CA ALA C%d %d 1 1 2 3\n"):format(i, i, i) end)
    write("data_x\nloop_\n_entity.id\n_entity.type\n" .. entities
      .. "loop_\n_atom_site.id\n_atom_site.label_atom_id\n"
      .. "_atom_site.label_comp_id\n_atom_site.label_asym_id\n_atom_site.label_entity_id\n_atom_site.label_seq_id\n"
      .. "_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\n" .. rows)
    local whole
    assert.is_true(seconds(function() whole = structure.read(path) end) < SQUARE)
    local n = ffi.new "mf_structure_counts"
    require("moonfold.ffi").C.mf_structure_count(whole.handle, n)
    assert.are.same({ N, N, N }, { tonumber(n.chains), tonumber(n.entities), tonumber(n.atoms) })
    assert.is_true(seconds(function() for _ in structure.chains(path) do end end) < SQUARE)
  end)
end)
