--- Data sets: structures packed end to end in one memory-mapped safetensors file.
--
--     offsets, translations, rotations, torsions, torsion_mask, mask, aatype, index, chain: see data.layout
--
-- The metadata holds `format`, `kind` ("protein" or "rna") and `entries`, a JSON list with a `name` for each entry and
-- whatever else was known of it. Only the rows that are asked for are read.

local mf = require "moonfold"
local atoms = require "moonfold.atoms"
local batches = require "moonfold.data.batches"
local fail = require "moonfold.fail"
local json = require "moonfold.json"
local layout = require "moonfold.data.layout"

local M = {}
local Set = {}
Set.__index = Set

local FORMAT, FIELDS = layout.FORMAT, layout.names

--- Opens a data set.
-- @tparam string path
-- @treturn Set
-- @usage local set = mf.data.open "train.safetensors"
function M.open(path)
  local archive = mf.archive(path)
  local metadata = archive:metadata()
  if metadata.format ~= FORMAT then fail("data.open: %s is not a data set (no '%s' in its metadata)", path, FORMAT) end
  local entries = layout.entries(archive)
  local offsets = archive:tensor("offsets"):values()
  local present = {}
  for _, name in ipairs(archive:names()) do present[name] = true end
  for _, name in ipairs(FIELDS) do
    if not present[name] then fail("data.open: %s has no tensor '%s'", path, name) end
  end
  if #offsets ~= #entries + 1 or offsets[1] ~= 0 then
    fail("data.open: %s: %d offsets do not fit %d entries", path, #offsets, #entries)
  end
  for i = 1, #entries do
    if offsets[i + 1] < offsets[i] then fail("data.open: %s: offsets of entry %d run backwards", path, i) end
  end
  atoms.of(metadata.kind)
  -- the entries are the array part, so that #set counts them (plain LuaJIT does not ask __len of a table)
  local set = { path = path, archive = archive, kind = metadata.kind, offsets = offsets, count = #entries }
  for i, entry in ipairs(entries) do set[i] = entry end
  return setmetatable(set, Set)
end

--- Writes a data set, atomically.
-- @tparam string path
-- @tparam string kind "protein" or "rna"
-- @tparam table list a table for each entry: the tensors named at the head of this module (`torsions` and what follows
--   as `atoms.of(kind).features` makes them), and `entry`, a table with a `name` and any other metadata
-- @usage mf.data.write("toy.safetensors", "protein", { { translations = t, rotations = r, ..., entry = { name = "1ubq" } } })
function M.write(path, kind, list)
  local rules = atoms.of(kind)
  if #list == 0 then fail("data.write: no entries for %s", path) end
  local offsets, entries, columns = { 0 }, json.array(), {}
  for _, name in ipairs(FIELDS) do columns[name] = {} end
  for i, item in ipairs(list) do
    local n = item.translations:size(1)
    if not item.entry or type(item.entry.name) ~= "string" then fail("data.write: entry %d has no name", i) end
    if item.torsions:size(2) ~= rules.torsion_count then
      fail("data.write: entry %d has %d torsions a residue, %s has %d", i, item.torsions:size(2), kind, rules.torsion_count)
    end
    offsets[i + 1] = offsets[i] + n
    entries[i] = item.entry
    for _, name in ipairs(FIELDS) do
      local x = item[name]
      if not x then
        if name == "mask" then x = mf.ones(n):bool()
        elseif name == "index" then x = mf.arange(n)
        elseif name == "aatype" or name == "chain" then x = mf.zeros(n, { dtype = "int32" })
        else fail("data.write: entry %d ('%s') has no %s", i, item.entry.name, name) end
      end
      if x:size(1) ~= n then fail("data.write: entry %d: %s has %d rows of %d", i, name, x:size(1), n) end
      columns[name][i] = x
    end
  end
  local tensors = { offsets = mf.tensor(offsets, { dtype = "int64" }) }
  for _, name in ipairs(FIELDS) do tensors[name] = mf.cat(columns[name], 1) end
  mf.save(path, tensors, { format = FORMAT, kind = kind, entries = json.encode(entries) })
end

function Set:__tostring()
  return ("data set %s: %d %s entries, %d residues"):format(self.path, self.count, self.kind, self.offsets[self.count + 1])
end

local function check(self, i)
  if type(i) ~= "number" or i < 1 or i > self.count or i ~= math.floor(i) then
    fail("set: entry %s of %d", tostring(i), self.count)
  end
end

--- Residues of an entry.
-- @tparam number i from 1
function Set:length(i)
  check(self, i)
  return self.offsets[i + 1] - self.offsets[i]
end

--- What is known of an entry: its `name` and the rest of its metadata.
-- @tparam number i from 1
function Set:entry(i)
  check(self, i)
  return self[i]
end

-- Rows of one entry, field by field: all, or `count` from its residue `first` on.
local function rows(self, i, first, count)
  local item, at = {}, self.offsets[i] + (first or 1)
  for _, name in ipairs(FIELDS) do item[name] = self.archive:rows(name, at, count or self:length(i)) end
  return item
end

--- One entry.
-- @tparam number i from 1
-- @treturn table `packing`, the tensors of the head of this module, `name`, `entry`
-- @usage local protein = set:get(1)
function Set:get(i)
  check(self, i)
  local item = rows(self, i)
  item.packing, item.name, item.entry = mf.packing { self:length(i) }, self[i].name, self[i]
  return item
end

--- Several entries as one packed batch; an entry may come more than once.
-- @tparam table list positions from 1
-- @tparam[opt="cpu"] string device
-- @tparam ?table windows for each of the list nil, or { first residue, count }: only those
-- @treturn table `packing`, the tensors, `names`, `entries`
function Set:collate(list, device, windows)
  local cache, columns, lengths, names, entries = {}, {}, {}, {}, {}
  for _, name in ipairs(FIELDS) do columns[name] = {} end
  for k, i in ipairs(list) do
    check(self, i)
    local window = windows and windows[k]
    local item = window and rows(self, i, window[1], window[2]) or cache[i] or rows(self, i)
    if not window then cache[i] = item end
    for _, name in ipairs(FIELDS) do columns[name][k] = item[name] end
    lengths[k], names[k], entries[k] = window and window[2] or self:length(i), self[i].name, i
  end
  local batch = { packing = mf.packing(lengths), names = names, entries = entries }
  for _, name in ipairs(FIELDS) do
    local x = mf.cat(columns[name], 1)
    batch[name] = device and x:to(device) or x
  end
  return batch
end

--- Batches for training; see data.batches for the options.
-- @treturn Batches call it, or write `for step, batch in set:batches { ... } do`
-- @usage for step, batch in set:batches { residues = 20000, seed = 7, steps = 1000 } do print(step, batch.packing:total()) end
function Set:batches(o)
  return batches.new(self, o)
end

return M
