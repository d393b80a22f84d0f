--- The container of a data set: which tensors its safetensors file holds, and how its entries are stored.
--
-- The one place that what writes sets (data.set, data.prepare) and what reads them share. Every tensor but `offsets` has a row
-- for each residue; T is the number of residues, K of torsions (`atoms.of(kind).torsion_count`), A of atoms a residue:
--
--     offsets       (n + 1)     int64    where each entry begins
--     translations  (T, 3)      float32  angstrom, centred
--     rotations     (T, 3, 3)   float32
--     torsions      (T, K, 2)   float32  pairs (sin, cos)
--     torsion_mask  (T, K)      bool
--     mask          (T)         bool     the frame is there
--     aatype        (T)         int32    residue type
--     index         (T)         int32    position in the sequence; gaps are visible
--     chain         (T)         int32    from 0 within an entry
--
-- and, optional, read only when asked for:
--
--     atoms         (T, A, 3)   float32  angstrom, in the same place as the frames; 0 where absent
--     atom_mask     (T, A)      bool
--
-- The metadata hold `format`, `kind` ("protein" or "rna"), `atoms` (a JSON list of the A names, where there are any) and
-- `entries`: a JSON list with a table for each entry, of which `name` is always there. A header of safetensors may have 100 MB at
-- the most, so the entries of a large set are a tensor `entries` (U8) instead, the same text.
-- @module moonfold.data.layout

local fail = require "moonfold.fail"
local json = require "moonfold.json"

local M = {}

M.FORMAT = "moonfold data set 1"

--- What each residue has: `name`, `dtype`, `shape` of one row; "torsions" and "atoms" stand for K and A.
M.fields = {
  { name = "translations", dtype = "float32", shape = { 3 } },
  { name = "rotations", dtype = "float32", shape = { 3, 3 } },
  { name = "torsions", dtype = "float32", shape = { "torsions", 2 } },
  { name = "torsion_mask", dtype = "bool", shape = { "torsions" } },
  { name = "mask", dtype = "bool", shape = {} },
  { name = "aatype", dtype = "int32", shape = {} },
  { name = "index", dtype = "int32", shape = {} },
  { name = "chain", dtype = "int32", shape = {} },
}

--- The same for what a set may lack.
M.optional = {
  { name = "atoms", dtype = "float32", shape = { "atoms", 3 } },
  { name = "atom_mask", dtype = "bool", shape = { "atoms" } },
}

local function names_of(fields)
  local names = {}
  for i, field in ipairs(fields) do names[i] = field.name end
  return names
end

--- Names of `fields`, in their order, and of `optional`.
M.names, M.optional_names = names_of(M.fields), names_of(M.optional)

--- The shape of a field's tensor.
-- @tparam table field one of `fields` or `optional`
-- @tparam number rows residues
-- @tparam table sizes `torsions` and `atoms`: K and A
-- @treturn table
function M.shape(field, rows, sizes)
  local shape = { rows }
  for _, size in ipairs(field.shape) do shape[#shape + 1] = sizes[size] or size end
  return shape
end

--- The entries of an open archive: a lazy list (json.lazy) of tables with a `name`.
-- @tparam archive archive
-- @treturn table `count`, `:get(i)`
function M.entries(archive)
  local text = archive:metadata().entries
  if not text and archive:has "entries" then text = archive:bytes "entries" end
  local entries, message = json.lazy(text or "")
  if not entries then fail("data.open: %s: entries: %s", archive.path, message) end
  return entries
end

return M
