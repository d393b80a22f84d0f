--- From parts to the data set: the rows of the entries that are left, streamed in the order of the set.
-- @module moonfold.data.prepare.merge

local mf = require "moonfold"
local archive = require "moonfold.archive"
local atoms = require "moonfold.atoms"
local features = require "moonfold.data.prepare.features"
local json = require "moonfold.json"
local layout = require "moonfold.data.layout"

local M = {}

-- Entries as metadata while they are short: any reader of safetensors shows them. The header's own limit is 100 MB.
local MOST_IN_HEADER = 2 ^ 24

local function fields_of(o)
  local fields = {}
  for _, field in ipairs(layout.fields) do fields[#fields + 1] = field end
  if o.atoms ~= "none" then
    for _, field in ipairs(layout.optional) do fields[#fields + 1] = field end
  end
  return fields
end

-- The offsets in pieces: a tensor of a few hundred thousand numbers at once would be a Lua table of them.
local function put_offsets(stream, items)
  local piece, at = { 0 }, 0
  for _, item in ipairs(items) do
    at = at + item.length
    piece[#piece + 1] = at
    if #piece == 65536 then
      stream:append("offsets", mf.tensor(piece, { dtype = "int64" }))
      piece = {}
    end
  end
  if #piece > 0 then stream:append("offsets", mf.tensor(piece, { dtype = "int64" })) end
end

--- Writes the set.
-- @tparam string path
-- @tparam table o resolved options
-- @tparam table items in the order of the set: { `part`: number, `row`: its first row there, `length`, `text`: its entry as JSON }
-- @tparam function open (part) -> the part's archive
function M.write(path, o, items, open)
  local rows, bytes, texts = 0, 2, {}
  for i, item in ipairs(items) do
    rows, bytes, texts[i] = rows + item.length, bytes + #item.text + 1, item.text
  end
  local queries, names = features.atom_names(o.polymer, o.atoms)
  local sizes = { torsions = atoms.of(o.polymer).torsion_count, atoms = #queries }
  local entries = "[" .. table.concat(texts, ",\n") .. "]"
  local metadata = { format = layout.FORMAT, kind = o.polymer, atoms = o.atoms ~= "none" and json.encode(names) or nil }
  local tensors, fields = { { name = "offsets", dtype = "int64", shape = { #items + 1 } } }, fields_of(o)
  for _, field in ipairs(fields) do
    tensors[#tensors + 1] = { name = field.name, dtype = field.dtype, shape = layout.shape(field, rows, sizes) }
  end
  if bytes <= MOST_IN_HEADER then metadata.entries = entries
  else tensors[#tensors + 1] = { name = "entries", dtype = "bytes", shape = { #entries } } end
  local stream = archive.stream(path, tensors, metadata)
  local ok, message = pcall(function()
    put_offsets(stream, items)
    if not metadata.entries then stream:put("entries", entries) end
    for _, item in ipairs(items) do
      local from = open(item.part)
      for _, field in ipairs(fields) do stream:copy(field.name, from, item.row, item.length) end
    end
    stream:commit()
  end)
  if ok then return rows end
  stream:abandon()
  error(message, 0)
end

return M
