-- How a structure is read: which locations of an atom, how many models, which part of a file, how many bytes.
local structure = require "moonfold.structure_file"
local support = require "spec.support"

local function atom(serial, name, alt, x, occupancy)
  local line = "ATOM  %5d  %-3s%1sALA A   1    %8.3f%8.3f%8.3f%6.2f%6.2f           %s\n"
  return line:format(serial, name, alt, x, 0, 0, occupancy, 10, name:sub(1, 1))
end

local TEXT = "MODEL        1\n" .. atom(1, "N", " ", 0, 1) .. atom(2, "CA", "A", 1, 0.4) .. atom(3, "CA", "B", 2, 0.6) ..
  atom(4, "C", " ", 3, 1) .. "ENDMDL\nMODEL        2\n" .. atom(1, "N", " ", 5, 1) .. "ENDMDL\nEND\n"

local function positions(s)
  local list = {}
  for _, chain in ipairs(s:chains()) do
    for _, residue in ipairs(s:residues(chain.index)) do
      for _, a in ipairs(s:residue_atoms(residue.index)) do list[#list + 1] = a.name .. a.altloc .. a.x end
    end
  end
  return table.concat(list, " ")
end

describe("reading a structure", function()
  it("keeps the best location of an atom, or every one", function()
    local best, all = structure.parse(TEXT), structure.parse(TEXT, { altlocs = "all" })
    assert.equal("N0 CAB2 C3 N5", positions(best))
    assert.equal("N0 CAA1 CAB2 C3 N5", positions(all))
    assert.same({ records = 5, alternates = 2 }, best:read_counts())
    assert.same(best:read_counts(), all:read_counts())
  end)

  it("stops after so many models", function()
    local s = structure.parse(TEXT, { models = 1 })
    assert.equal(1, s:counts().models)
    assert.equal("N0 CAB2 C3", positions(s))
  end)

  it("has the chains of a model together, wherever the file has them", function()
    local rows = { "1 N A 1 1", "2 N A 2 2", "3 N B 1 3", "4 N A 2 4", "5 N A 1 5" }
    local s = structure.parse("data_x\nloop_\n_atom_site.id\n_atom_site.label_atom_id\n_atom_site.auth_asym_id\n"
      .. "_atom_site.pdbx_PDB_model_num\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\n_atom_site.label_alt_id\n"
      .. table.concat(rows, " 0 0 .\n") .. " 0 0 .\n", { altlocs = "all" })
    local models = {}
    for i, chain in ipairs(s:chains()) do models[i] = chain.id .. chain.model end
    assert.same({ "A1", "B1", "A2" }, models)
    assert.equal("N1 N5 N3 N2 N4", positions(s))
  end)

  it("reads a part of a file, bounded", function()
    local path = os.tmpname()
    local f = assert(io.open(path, "wb"))
    f:write("rubbish\n", TEXT, "\n\0more")
    f:close()
    assert.equal("N0 CAB2 C3 N5", positions(structure.read(path, { offset = 8, bytes = #TEXT })))
    local function bounded() structure.read(path, { offset = 8, bytes = #TEXT, max_bytes = 100 }) end
    support.error_matches(bounded, "limit of 100 bytes")
    os.remove(path)
  end)

  it("refuses options that it does not know", function()
    support.error_matches(function() structure.parse(TEXT, { altloc = "all" }) end, "unknown option 'altloc'")
    support.error_matches(function() structure.parse(TEXT, { altlocs = "some" }) end, "'some' %(known: all, best%)")
    support.error_matches(function() structure.parse(TEXT, { models = -1 }) end, "models must be a whole number")
  end)
end)
