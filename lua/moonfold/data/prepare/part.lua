--- A part: some files' results in one safetensors file, written whole or not at all, found again by what made it.
--
-- A part's name is the hash of the options that its results depend on, of our version and of its files' names and sizes. It is
-- reused when every file's hash is still what it was. Records (take.lua) stand in it as JSON, rows as data.layout says.
-- @module moonfold.data.prepare.part

local mf = require "moonfold"
local archive = require "moonfold.archive"
local atoms = require "moonfold.atoms"
local features = require "moonfold.data.prepare.features"
local files = require "moonfold.files"
local json = require "moonfold.json"
local layout = require "moonfold.data.layout"
local profiles = require "moonfold.data.prepare.profiles"
local take = require "moonfold.data.prepare.take"

local M = {}

--- What the results of a file depend on beside the file and the options: counted up when the rules change.
M.RULES = 2

local MOST_FILES, MOST_BYTES = 64, 32 * 2 ^ 20

--- Divides the inputs into parts: consecutive files, enough parts for many workers, none too large for memory.
-- @tparam table inputs of inputs.gather
-- @treturn table a list of { `first`, `last`: positions in `inputs` }
function M.divide(inputs)
  local most, parts, bytes = math.max(1, math.min(MOST_FILES, math.ceil(#inputs / 32))), {}, 0
  for i, input in ipairs(inputs) do
    local part = parts[#parts]
    if not part or part.last - part.first + 1 >= most or bytes + (input.bytes or 0) > MOST_BYTES then
      part, bytes = { first = i }, 0
      parts[#parts + 1] = part
    end
    part.last, bytes = i, bytes + (input.bytes or 0)
  end
  return parts
end

--- The name of the file of a part.
-- @tparam table o resolved options
-- @tparam table inputs its inputs
-- @treturn string
function M.name(o, inputs)
  local list = json.array()
  for i, input in ipairs(inputs) do list[i] = ("%s\n%d"):format(input.path, input.bytes or -1) end
  local key = json.encode { rules = M.RULES, version = mf.version(), format = layout.FORMAT,
                            options = profiles.plain(o, profiles.local_keys), inputs = list }
  return ("part-%s.safetensors"):format(files.sha256_of(key):sub(1, 32))
end

--- Reads the records of a part.
-- @tparam string path
-- @treturn ?table nil when it is absent or is no part
-- @treturn ?archive the open file
function M.open(path)
  if not files.exists(path) then return nil end
  local ok, a = pcall(mf.archive, path)
  if not ok or not a:has "records" then return nil end
  local records = json.decode(a:bytes "records")
  if not records then return nil end
  return records, a
end

-- Is every file still what the part was made of?
local function is_current(records, inputs)
  if #records ~= #inputs then return false end
  for i, input in ipairs(inputs) do
    local hash = files.sha256(input.file, input.offset, input.offset and input.bytes)
    local record = records[i]
    if record.path ~= input.path or record.sha256 ~= hash then return false end
  end
  return true
end

local function write(path, o, records, entries)
  local rows = 0
  for _, entry in ipairs(entries) do rows = rows + entry.length end
  local sizes = { torsions = atoms.of(o.polymer).torsion_count, atoms = #features.atom_names(o.polymer, o.atoms) }
  local text = json.encode(records)
  local tensors = { { name = "records", dtype = "bytes", shape = { #text } } }
  for _, fields in ipairs { layout.fields, sizes.atoms > 0 and layout.optional or {} } do
    for _, field in ipairs(fields) do
      tensors[#tensors + 1] = { name = field.name, dtype = field.dtype, shape = layout.shape(field, rows, sizes) }
    end
  end
  local stream = archive.stream(path, tensors)
  local ok, message = pcall(function()
    stream:put("records", text)
    for _, entry in ipairs(entries) do
      for i = 2, #tensors do stream:append(tensors[i].name, entry[tensors[i].name]) end
    end
    stream:commit()
  end)
  if ok then return end
  stream:abandon()
  error(message, 0)
end

-- A file that cannot be read must fail twice: what a set leaves out is to depend on the file alone, not on a moment in which the
-- disk, a network file system or memory gave less than it has.
local function take_surely(o, input, note)
  local record, entries = take.take(o, input)
  if not record.skipped or record.skipped:match "^no %a+ chain" then return record, entries end
  local again, more = take.take(o, input)
  if again.skipped ~= record.skipped then note(record.skipped) end
  return again, more
end

--- Makes a part, or finds that it is there.
-- @tparam table o resolved options
-- @tparam ?string path where it is written; nil keeps nothing
-- @tparam table inputs
-- @tparam table o2 `crashed`: position -> why a file is not to be read; `begin(i)` and `done(i, residues)`: called around each
--   file; `note(i, reason)`: it failed so, and not when it was read again
-- @treturn table the records
-- @treturn boolean whether it was there
function M.make(o, path, inputs, o2)
  local records = path and M.open(path)
  if records and is_current(records, inputs) then return records, true end
  records = json.array()
  local entries = {}
  for i, input in ipairs(inputs) do
    local residues = 0
    if o2.crashed and o2.crashed[tostring(i)] then
      local hash, bytes = files.sha256(input.file, input.offset, input.offset and input.bytes)
      records[i] = { path = input.path, chains = json.array(), sha256 = hash, bytes = hash and bytes,
                     skipped = "reader crashed: " .. o2.crashed[tostring(i)] }
    else
      o2.begin(i)
      local list
      records[i], list = take_surely(o, input, function(reason) o2.note(i, reason) end)
      for _, entry in ipairs(list) do
        residues = residues + entry.length
        if path then entries[#entries + 1] = entry end
      end
      o2.done(i, residues)
    end
  end
  if path then write(path, o, records, entries) end
  return records, false
end

return M
