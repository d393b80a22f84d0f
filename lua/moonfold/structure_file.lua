--- PDB and mmCIF files: reading them, taking atoms out as tensors, building and writing structures.
--
-- A structure holds models, chains, residues and atoms, in file order. Indices count from 1 and run over the
-- whole structure (chain 3 may be the first chain of model 2). One location is kept per atom (the highest
-- occupancy, then the first). A chain is an author chain of one model: its polymer first of all, but also the
-- ligands and waters that carry its id; `sequence`, `numbers`, `atoms` speak of the polymer residues only.
--
--     local structure = require "moonfold.structure_file"
--     local s = structure.read "1abc.cif.gz"          -- plain or gzip, PDB or mmCIF, told apart by content
--     s.id, s.title, s.method, s.date                 -- strings, "" where absent; the date is yyyy-mm-dd
--     s.resolution                                    -- angstrom, nil where absent
--     s.cell, s.space_group                           -- a, b, c in angstrom, three angles in degrees; nil where absent
--     s:entities(), s:assemblies()                    -- what the file says its chains and ligands are
--     for _, chain in ipairs(s:chains(1)) do          -- of model 1; without an argument, of all models
--       chain.index, chain.id, chain.entity, chain.model
--       chain.polymer                                 -- "protein", "rna", "dna" or "none"
--       chain.residues, chain.sequence                -- polymer residues: how many, one letter each ("X" unknown)
--       chain.names, chain.numbers, chain.labels      -- lists: "MSE", author number, label_seq_id (in PDB 1, 2, ...)
--       local x, mask = s:atoms(chain.index, { "N", "CA", "C", "O", "CB" })   -- (N, A, 3) float32, (N, A) bool
--     end
--     s:residues(i) -> every residue of chain i; s:residue_atoms(r) -> the atoms of residue r
--     print(s:show()); s:secondary_structure(), s:torsions(), s:contacts() ... -> moonfold.chemistry
--
--     structure.from_atoms { atoms = x, names = { "N", "CA", "C" }, residue_names = "ALA" }:write "out.pdb"
--
-- A file that cannot be read raises an error that names the path and the line.
-- @module moonfold.structure_file

local ffi = require "ffi"
local binding = require "moonfold.ffi"
local fail = require "moonfold.fail"
local options = require "moonfold.options"

local C = binding.C
local M = {}
local Structure = {}

local POLYMERS = { [0] = "none", "protein", "rna", "dna" }
local ENTITIES = { [0] = "unknown", "polymer", "non-polymer", "branched", "water", "macrolide" }
local FORMATS = { auto = 0, pdb = 1, mmcif = 2, bcif = 3 }
local ALTLOCS = { best = 0, all = 1 }

local check = binding.check -- raises the library's text at the user's line

local function format_code(format)
  local code = FORMATS[format or "auto"]
  if not code then fail("structure: unknown format '%s' (known: auto, bcif, mmcif, pdb)", tostring(format)) end
  return code
end

local READ = { format = "auto", altlocs = "best", models = 0, max_bytes = 0, offset = 0, bytes = 0 }

-- What a caller says of reading, for C: a format, or a table of options.
local function read_params(o)
  if type(o) == "string" then o = { format = o } end
  o = options("structure.read", READ, o or {})
  local params = ffi.new "mf_read_params"
  C.mf_read_params_init(params)
  params.format, params.altlocs = format_code(o.format), ALTLOCS[o.altlocs] or -1
  if params.altlocs < 0 then fail("structure: unknown altlocs '%s' (known: all, best)", tostring(o.altlocs)) end
  for _, name in ipairs { "models", "max_bytes", "offset", "bytes" } do
    if type(o[name]) ~= "number" or o[name] < 0 or o[name] ~= math.floor(o[name]) then
      fail("structure: %s must be a whole number, not negative, got %s", name, tostring(o[name]))
    end
    params[name] = o[name]
  end
  return params
end

--- Takes ownership of a new mf_structure; the one place that attaches the finalizer.
-- @param handle read from a box
-- @treturn Structure
function M.adopt(handle)
  local s = setmetatable({ handle = ffi.gc(handle, C.mf_structure_release) }, Structure)
  local function text(what) return ffi.string(C.mf_structure_text(handle, what, 0)) end
  s.id, s.title = text(C.MF_TEXT_ID), text(C.MF_TEXT_TITLE)
  s.method, s.date = text(C.MF_TEXT_METHOD), text(C.MF_TEXT_DATE)
  local resolution, cell = C.mf_structure_resolution(handle), ffi.new "double[6]"
  if resolution > 0 then s.resolution = resolution end
  if C.mf_structure_cell(cell, handle) ~= 0 then
    s.cell, s.space_group = {}, text(C.MF_TEXT_SPACE_GROUP)
    for i = 1, 6 do s.cell[i] = cell[i - 1] end
  end
  return s
end

--- Reads a PDB or mmCIF file, plain or gzip.
-- @tparam string path
-- @tparam[opt] table|string o a format, or `format` ("auto": by content, then by name; "pdb", "mmcif", "bcif"), `altlocs`
-- ("best": one location an atom; "all"), `models` (only the first so many; 0: all), `max_bytes` of the inflated text
-- (1 GiB), `offset` and `bytes` of a part of the file
-- @treturn Structure
-- @usage local s = structure.read "1abc.pdb.gz"
function M.read(path, o)
  local params = read_params(o)
  local out = ffi.new "mf_structure *[1]"
  check(C.mf_structure_read(out, path, params))
  return M.adopt(out[0])
end

--- Reads a structure from a string that holds the text of a file.
-- @tparam string text
-- @tparam[opt] table|string o as for `read`
-- @tparam[opt="text"] string name what error messages call it
-- @treturn Structure
function M.parse(text, o, name)
  local params = read_params(o)
  local out = ffi.new "mf_structure *[1]"
  check(C.mf_structure_parse(out, text, #text, name or "text", params))
  return M.adopt(out[0])
end

--- Reads a file one chain at a time, in the memory of the largest chain: a whole ribosome, or a trajectory.
-- Each step gives a structure of one polymer chain, or of ligands and water. In mmCIF it ends where `label_asym_id` or the model
-- changes, in PDB at TER or where the chain id or the model does; a chain that comes back in the file is a further piece.
-- Each has the title, entities and assemblies that the file names before its first atom.
-- @tparam string path
-- @tparam[opt] table|string o as for `read`
-- @treturn function an iterator over Structures
-- @usage for s in structure.chains "6zu5.cif.gz" do print(s:chains()[1].id, s:counts().atoms) end
function M.chains(path, o)
  local params = read_params(o)
  local box, out = ffi.new "mf_chain_reader *[1]", ffi.new "mf_structure *[1]"
  check(C.mf_chain_reader_open(box, path, params))
  local reader = ffi.gc(box[0], C.mf_chain_reader_close)
  return function()
    if not reader then return nil end
    local status = C.mf_chain_reader_next(out, reader)
    if status ~= C.MF_OK or out[0] == nil then
      C.mf_chain_reader_close(ffi.gc(reader, nil))
      reader = nil
      check(status)
      return nil
    end
    return M.adopt(out[0])
  end
end

Structure.__index = {}
local methods = Structure.__index

function Structure.__tostring(s) return require("moonfold.structure_show").line(s) end

--- How many models, chains, residues and atoms there are.
-- @treturn table `models`, `chains`, `residues`, `atoms`
function methods.counts(s)
  local n = ffi.new "mf_structure_counts"
  C.mf_structure_count(s.handle, n)
  return { models = tonumber(n.models), chains = tonumber(n.chains), residues = tonumber(n.residues), atoms = tonumber(n.atoms) }
end

--- What the file held, whether it was kept or not.
-- @treturn table `records`: atoms; `alternates`: those with an alternate location
function methods.read_counts(s)
  local n = ffi.new "mf_structure_counts"
  C.mf_structure_count(s.handle, n)
  return { records = tonumber(n.records), alternates = tonumber(n.alternates) }
end

local function text_of(s, what, index) return ffi.string(C.mf_structure_text(s.handle, what, index)) end

local function residue_record(s, info, index)
  check(C.mf_structure_residue(s.handle, index, info))
  local insertion = info.insertion ~= 0 and info.insertion ~= 32 and string.char(info.insertion) or ""
  return {
    index = index + 1, name = text_of(s, C.MF_TEXT_RESIDUE, index), number = info.number, label = info.label,
    insertion = insertion, code = string.char(info.code), hetero = info.hetero ~= 0, polymer = info.label ~= 0,
    first_atom = tonumber(info.first_atom) + 1, atoms = tonumber(info.atoms), asym = text_of(s, C.MF_TEXT_ASYM, index),
    entity = text_of(s, C.MF_TEXT_RESIDUE_ENTITY, index),
  }
end

local function chain_record(s, index)
  local info, residue = ffi.new "mf_chain_info", ffi.new "mf_residue_info"
  check(C.mf_structure_chain(s.handle, index, info))
  local names, numbers, labels, letters = {}, {}, {}, {}
  local first = tonumber(info.first_residue)
  for r = first, first + tonumber(info.residues) - 1 do
    check(C.mf_structure_residue(s.handle, r, residue))
    if residue.label ~= 0 then
      local n = #numbers + 1
      names[n], numbers[n], labels[n] = text_of(s, C.MF_TEXT_RESIDUE, r), residue.number, residue.label
      letters[n] = string.char(residue.code)
    end
  end
  return {
    index = index + 1, id = text_of(s, C.MF_TEXT_CHAIN, index), entity = text_of(s, C.MF_TEXT_ENTITY, index),
    model = info.model, polymer = POLYMERS[info.polymer], residues = #numbers, sequence = table.concat(letters),
    names = names, numbers = numbers, labels = labels,
  }
end

--- The chains of one model or of all.
-- @tparam[opt] number model from 1
-- @treturn table a list, fields as listed at the head of this module
function methods.chains(s, model)
  local list, info = {}, ffi.new "mf_chain_info"
  for i = 0, s:counts().chains - 1 do
    check(C.mf_structure_chain(s.handle, i, info))
    if not model or info.model == model then list[#list + 1] = chain_record(s, i) end
  end
  return list
end

--- What the file says its chains and ligands are. mmCIF always does; PDB by COMPND, SEQRES and HETNAM.
-- @treturn table a list of `id`, `kind` ("polymer", "non-polymer", "branched", "water", "macrolide", "unknown"), `polymer`
-- ("protein", "rna", "dna", "none"), `description`, `monomers`: the names of its whole sequence, which labels count along
-- @usage for _, e in ipairs(s:entities()) do print(e.id, e.kind, e.description, #e.monomers) end
function methods.entities(s)
  local list, info, n = {}, ffi.new "mf_entity_info", ffi.new "mf_structure_counts"
  C.mf_structure_count(s.handle, n)
  for i = 0, tonumber(n.entities) - 1 do
    check(C.mf_structure_entity(s.handle, i, info))
    local monomers, first = {}, tonumber(info.first_monomer)
    for k = 1, tonumber(info.monomers) do monomers[k] = text_of(s, C.MF_TEXT_MONOMER, first + k - 1) end
    list[i + 1] = {
      id = text_of(s, C.MF_TEXT_ENTITY_ID, i), kind = ENTITIES[info.kind], polymer = POLYMERS[info.polymer],
      description = text_of(s, C.MF_TEXT_ENTITY_NAME, i), monomers = monomers,
    }
  end
  return list
end

--- The biological assemblies that the file names.
-- @treturn table a list of `id`, `details` ("author_defined_assembly"), `oligomer` ("dimeric"), `count` (nil where absent)
function methods.assemblies(s)
  local list, count, n = {}, ffi.new "int[1]", ffi.new "mf_structure_counts"
  C.mf_structure_count(s.handle, n)
  for i = 0, tonumber(n.assemblies) - 1 do
    check(C.mf_structure_assembly(s.handle, i, count))
    list[i + 1] = {
      id = text_of(s, C.MF_TEXT_ASSEMBLY, i), details = text_of(s, C.MF_TEXT_ASSEMBLY_DETAILS, i),
      oligomer = text_of(s, C.MF_TEXT_OLIGOMER, i), count = count[0] > 0 and count[0] or nil,
    }
  end
  return list
end

--- Every residue of a chain, ligands and waters too.
-- @tparam number chain its index, from 1
-- @treturn table a list of `index`, `name`, `number`, `label` (0 outside the polymer), `insertion`, `code`, `hetero`,
-- `polymer`, `first_atom`, `atoms`, `asym` (label_asym_id), `entity`
function methods.residues(s, chain)
  local info, residue, list = ffi.new "mf_chain_info", ffi.new "mf_residue_info", {}
  check(C.mf_structure_chain(s.handle, chain - 1, info))
  local first = tonumber(info.first_residue)
  for r = first, first + tonumber(info.residues) - 1 do list[#list + 1] = residue_record(s, residue, r) end
  return list
end

--- The atoms of one residue.
-- @tparam number residue its index, from 1
-- @treturn table a list of `name`, `element`, `x`, `y`, `z`, `occupancy`, `b`, `altloc`, `serial`, `charge`
function methods.residue_atoms(s, residue)
  local info, atom, list = ffi.new "mf_residue_info", ffi.new "mf_atom_info", {}
  check(C.mf_structure_residue(s.handle, residue - 1, info))
  local first = tonumber(info.first_atom)
  for a = first, first + tonumber(info.atoms) - 1 do
    check(C.mf_structure_atom(s.handle, a, atom))
    list[#list + 1] = {
      name = text_of(s, C.MF_TEXT_ATOM, a), element = text_of(s, C.MF_TEXT_ELEMENT, a), x = atom.x, y = atom.y, z = atom.z,
      occupancy = atom.occupancy, b = atom.b, serial = atom.serial, charge = atom.charge,
      altloc = atom.altloc ~= 0 and atom.altloc ~= 32 and string.char(atom.altloc) or "",
    }
  end
  return list
end

--- Named atoms of the polymer residues of a chain; `sequence` and `numbers` of the chain go with its rows.
-- @tparam number chain its index, from 1
-- @tparam table names atom names; a name may list alternatives: "N9|N1". ' and * are one character
-- @treturn tensor positions (N, A, 3) float32, 0 where absent
-- @treturn tensor mask (N, A) bool
-- @usage local x, mask = s:atoms(1, { "N", "CA", "C" })
function methods.atoms(s, chain, names)
  local list = ffi.new("const char *[?]", math.max(#names, 1))
  for i, name in ipairs(names) do list[i - 1] = name end
  local x, mask = ffi.new "mf_tensor *[1]", ffi.new "mf_tensor *[1]"
  check(C.mf_structure_atoms(x, mask, s.handle, binding.ctx, chain - 1, list, #names))
  return binding.adopt(x[0]), binding.adopt(mask[0])
end

--- Frees the structure now, not when the collector comes by: nothing can be asked of it any more.
-- @usage s:release()
function methods.release(s)
  C.mf_structure_release(ffi.gc(s.handle, nil))
  s.handle = nil
end

-- What builds structures, writes them or looks at them is loaded when it is first called.
for _, name in ipairs { "build", "from_atoms" } do
  M[name] = function(...) return require("moonfold.structure_build")[name](...) end
end
function M.writer(...) return require("moonfold.structure_write").writer(...) end
for module, names in pairs {
  ["moonfold.chemistry"] = {
    "secondary_structure", "torsions", "radius_of_gyration", "contacts", "clashes", "base_pairs", "base_frames",
    "dot_bracket",
  },
  ["moonfold.structure_show"] = { "show", "contact_map" },
  ["moonfold.structure_write"] = { "write" },
  ["moonfold.picture"] = { "picture" },
} do
  for _, name in ipairs(names) do
    methods[name] = function(...) return require(module)[name](...) end
  end
end

return M
