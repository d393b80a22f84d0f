--- Building structures: from plain tables, or from tensors of coordinates.
-- @module moonfold.structure_build

local ffi = require "ffi"
local binding = require "moonfold.ffi"
local fail = require "moonfold.fail"
local file = require "moonfold.structure_file"
local options = require "moonfold.options"

local C, check = binding.C, binding.check
local OPTIONAL = options.OPTIONAL
local M = {}

local POLYMER_CODE = { none = 0, protein = 1, rna = 2, dna = 3 }

-- One chain letter after another: A..Z, a..z, 0..9, then AA, AB, ... (which only mmCIF can hold).
local LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
local function chain_name(i)
  if i <= #LETTERS then return LETTERS:sub(i, i) end
  local name = ""
  i = i - #LETTERS + 26 -- AA is the 27th of A, ..., Z, AA, AB, ...
  while i > 0 do
    local low = (i - 1) % 26
    name = LETTERS:sub(low + 1, low + 1) .. name
    i = (i - 1 - low) / 26
  end
  return name
end

local function create(id, title)
  local out = ffi.new "mf_structure *[1]"
  check(C.mf_structure_create(out, id, title))
  return out[0]
end

local BUILD = { id = "", title = "", chains = OPTIONAL }

--- Builds a structure from plain tables.
-- @tparam table o `id`, `title`, `chains`: a list of { `id`, `model` (1), `polymer` ("protein"), `residues`: a list of
-- { `name`, `number`, `atoms`: a list of { `name`, `element`, `x`, `y`, `z`, `b` (0) } } }
-- @treturn Structure
-- @usage structure.build { chains = { { id = "A", residues = { { name = "GLY", number = 1, atoms = {} } } } } }
function M.build(o)
  o = options("structure.build", BUILD, o)
  local handle = ffi.gc(create(o.id, o.title), C.mf_structure_release)
  local xyz = ffi.new "double[3]"
  for _, chain in ipairs(o.chains or {}) do
    local polymer = POLYMER_CODE[chain.polymer or "protein"]
    if not polymer then fail("structure.build: unknown polymer '%s'", tostring(chain.polymer)) end
    check(C.mf_structure_add_chain(handle, chain.model or 1, chain.id or "A", polymer))
    for i, residue in ipairs(chain.residues) do
      check(C.mf_structure_add_residue(handle, residue.name, residue.number or i))
      for _, atom in ipairs(residue.atoms) do
        xyz[0], xyz[1], xyz[2] = atom.x, atom.y, atom.z
        check(C.mf_structure_add_atom(handle, atom.name, atom.element or "", xyz, atom.b or 0))
      end
    end
  end
  return file.adopt(ffi.gc(handle, nil))
end

local FROM = {
  atoms = OPTIONAL, models = OPTIONAL, names = OPTIONAL, elements = OPTIONAL, residue_names = OPTIONAL, mask = OPTIONAL,
  lengths = OPTIONAL, chain_ids = OPTIONAL, numbers = OPTIONAL, polymer = OPTIONAL, b = OPTIONAL, id = "", title = "",
}

-- "protein", "rna" or "dna" from a residue name.
local function polymer_of(name)
  if #name == 1 then return "rna" end
  return name:match "^D[ACGTUI]$" and "dna" or "protein"
end

local function shape_text(x) return "(" .. table.concat(x:shape(), ", ") .. ")" end

local function check_shape(x, n, atoms, last, what)
  local ok = x:ndim() == (last and 3 or 2) and x:size(1) == n and x:size(2) == atoms and (not last or x:size(3) == last)
  if not ok then
    fail("structure.from_atoms: %s %s must be (%d, %d%s)", what, shape_text(x), n, atoms, last and ", 3" or "")
  end
end

-- What a float32 near 100 angstrom can tell, and the formats print.
local function thousandth(x) return math.floor(x * 1000 + 0.5) / 1000 end

--- Builds a structure from tensors of coordinates, which it keeps to 0.001 angstrom.
-- @tparam table o
-- `atoms` (N, A, 3), or `models`: a list of such tensors, one MODEL each;
-- `names`: A atom names; `elements`: A symbols (default: the first letter of each name);
-- `residue_names`: one for all or a list of N ("ALA"); `mask` (N, A) bool, default all present;
-- `lengths`: residues of each chain (default: one chain of N); `chain_ids` (A, B, ...);
-- `numbers`: N residue numbers (default: 1, 2, ... in each chain); `polymer` (from the residue names);
-- `b`: a number or a list of N, default 0; `id`; `title`
-- @treturn Structure
-- @usage structure.from_atoms { atoms = x, names = { "N", "CA", "C", "O" }, residue_names = "GLY" }:write "x.pdb"
function M.from_atoms(o)
  o = options("structure.from_atoms", FROM, o)
  local models = o.models or { o.atoms }
  if not models[1] or not o.names or not o.residue_names then
    fail("structure.from_atoms: 'atoms' (or 'models'), 'names' and 'residue_names' are required")
  end
  local n, width = models[1]:size(1), #o.names
  local mask
  if o.mask then
    check_shape(o.mask, n, width, nil, "mask")
    mask = o.mask:values()
  end
  local lengths, total = o.lengths or { n }, 0
  for _, length in ipairs(lengths) do total = total + length end
  if total ~= n then fail("structure.from_atoms: lengths sum to %d, atoms have %d residues", total, n) end
  local each = type(o.residue_names) == "table" and o.residue_names
  local handle = ffi.gc(create(o.id, o.title), C.mf_structure_release)
  local xyz = ffi.new "double[3]"
  for m, tensor in ipairs(models) do
    check_shape(tensor, n, width, 3, o.models and ("model " .. m) or "atoms")
    local values, row = tensor:values(), 0
    for c, length in ipairs(lengths) do
      local name = each and each[row + 1] or o.residue_names
      local polymer = POLYMER_CODE[o.polymer or (length > 0 and polymer_of(name) or "none")]
      if not polymer then fail("structure.from_atoms: unknown polymer '%s'", tostring(o.polymer)) end
      check(C.mf_structure_add_chain(handle, m, o.chain_ids and o.chain_ids[c] or chain_name(c), polymer))
      for i = 1, length do
        row = row + 1
        check(C.mf_structure_add_residue(handle, each and each[row] or o.residue_names, o.numbers and o.numbers[row] or i))
        local b = type(o.b) == "table" and o.b[row] or o.b or 0
        for a = 1, width do
          local at = (row - 1) * width + a
          local present = not mask or (mask[at] ~= 0 and mask[at] ~= false)
          if present then
            xyz[0], xyz[1], xyz[2] = thousandth(values[3 * at - 2]), thousandth(values[3 * at - 1]), thousandth(values[3 * at])
            check(C.mf_structure_add_atom(handle, o.names[a], o.elements and o.elements[a] or o.names[a]:match "%a" or "", xyz, b))
          end
        end
      end
    end
  end
  return file.adopt(ffi.gc(handle, nil))
end

return M
