--- Data sets: structures packed end to end in one memory-mapped safetensors file (data.layout says what is in it).
--
--     local set = mf.data.open "train.safetensors"
--     local train = set:view { split = "train", max_length = 512 }
--     for step, batch in train:batches { residues = 20000, seed = 7 } do ... end
--
-- A set is a list of entries of one file. A view is a set too: other entries of the same file. Entries are numbered from 1 to #set
-- within each; the array part holds the numbers that they have in the file. Only the rows that are asked for are read.
-- @module moonfold.data.set

local mf = require "moonfold"
local atoms = require "moonfold.atoms"
local batches = require "moonfold.data.batches"
local container = require "moonfold.data.container"
local fail = require "moonfold.fail"
local json = require "moonfold.json"
local layout = require "moonfold.data.layout"
local options = require "moonfold.options"
local streams = require "moonfold.flow.streams"
local summary = require "moonfold.data.summary"

local M = {}
local Set = {}
Set.__index = Set

local FORMAT, FIELDS = layout.FORMAT, layout.names
local OPTIONAL = options.OPTIONAL

local function over(file, numbers)
  numbers.container, numbers.path, numbers.kind, numbers.count = file, file.path, file.kind, #numbers
  return setmetatable(numbers, Set)
end

--- Opens a data set.
-- @tparam string path
-- @treturn Set
-- @usage local set = mf.data.open "train.safetensors"
function M.open(path)
  local file, numbers = container.open(path), {}
  for i = 1, file.count do numbers[i] = i end
  return over(file, numbers)
end

--- Writes a data set, atomically.
-- @tparam string path
-- @tparam string kind "protein" or "rna"
-- @tparam table list a table for each entry: the tensors that data.layout names (`torsions` and `torsion_mask` as
--   `atoms.of(kind).features` makes them), and `entry`, a table with a `name` and any other metadata. With `atom_names`, a list
--   of A names beside the entries, each has `atoms` (N, A, 3) and `atom_mask` (N, A) too
-- @usage mf.data.write("toy.safetensors", "protein", { { translations = t, rotations = r, ..., entry = { name = "1ubq" } } })
function M.write(path, kind, list)
  local rules = atoms.of(kind)
  if #list == 0 then fail("data.write: no entries for %s", path) end
  local offsets, entries, columns, fields = { 0 }, json.array(), {}, {}
  for _, name in ipairs(FIELDS) do fields[#fields + 1] = name end
  for _, name in ipairs(list.atom_names and layout.optional_names or {}) do fields[#fields + 1] = name end
  for _, name in ipairs(fields) do columns[name] = {} end
  for i, item in ipairs(list) do
    local n = item.translations:size(1)
    if not item.entry or type(item.entry.name) ~= "string" then fail("data.write: entry %d has no name", i) end
    if item.torsions:size(2) ~= rules.torsion_count then
      fail("data.write: entry %d has %d torsions a residue, %s has %d", i, item.torsions:size(2), kind, rules.torsion_count)
    end
    offsets[i + 1] = offsets[i] + n
    entries[i] = item.entry
    for _, name in ipairs(fields) do
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
  for _, name in ipairs(fields) do tensors[name] = mf.cat(columns[name], 1) end
  mf.save(path, tensors, {
    format = FORMAT, kind = kind, entries = json.encode(entries), atoms = list.atom_names and json.encode(list.atom_names),
  })
end

function Set:__tostring()
  local file = self.container
  local part = self.count < file.count and ("%d of %d"):format(self.count, file.count) or ("%d"):format(self.count)
  return ("data set %s: %s %s entries, %.0f residues"):format(self.path, part, self.kind, self:residues())
end

-- The number that entry i has in the file.
local function number(self, i)
  local n = type(i) == "number" and i >= 1 and rawget(self, i)
  if not n then fail("set: entry %s of %d", tostring(i), self.count) end
  return n
end

--- Residues of an entry.
-- @tparam number i from 1
function Set:length(i) return self.container:length(number(self, i)) end

--- Residues of all entries.
-- @treturn number
function Set:residues()
  local sum = 0
  for k = 1, self.count do sum = sum + self.container:length(self[k]) end
  return sum
end

--- What is known of an entry: its `name` and the rest of its metadata.
-- @tparam number i from 1
function Set:entry(i) return self.container:entry(number(self, i)) end

--- One value of every entry.
-- @tparam string key such as "resolution"
-- @treturn table by entry; nil where an entry lacks it
function Set:column(key)
  local values, result = self.container:column(key), {}
  for k = 1, self.count do result[k] = values[self[k]] end
  return result
end

--- Where the rows of some entries stand in the file; for `finish` and a row reader.
-- @tparam table list entries
-- @tparam ?table windows for each of the list nil, or { first residue, count }: only those
-- @treturn table `first`, from 1, and `count`
function Set:runs(list, windows)
  local first, count, file = {}, {}, self.container
  for k, i in ipairs(list) do
    local n = number(self, i)
    local window = windows and windows[k]
    first[k], count[k] = file.starts[n - 1] + 1, file:length(n)
    if window then
      if window[1] < 1 or window[2] < 0 or window[1] + window[2] - 1 > count[k] then
        fail("set:collate: entry %d has %d residues, %s from %s do not fit", i, count[k], tostring(window[2]), tostring(window[1]))
      end
      first[k], count[k] = first[k] + window[1] - 1, window[2]
    end
  end
  return { first = first, count = count }
end

--- Rows that were read as a batch.
-- @tparam table rows name -> tensor
-- @tparam table list entries
-- @tparam table runs what `runs` said of the list
-- @tparam ?string device
-- @treturn table
function Set:finish(rows, list, runs, device)
  local names, entries = {}, {}
  for k, i in ipairs(list) do names[k], entries[k] = self.container:name(self[i]), i end
  local batch = { packing = mf.packing(runs.count), names = names, entries = entries }
  for name, x in pairs(rows) do batch[name] = device and x:to(device) or x end
  return batch
end

local collate_defaults = { device = OPTIONAL, windows = OPTIONAL, fields = OPTIONAL, atoms = false }

--- Several entries as one packed batch; an entry may come more than once.
-- @tparam table list entries
-- @tparam ?table|string o a device, or options: `device` ("cpu"), `windows` (for each of the list nil, or { first residue,
--   count }: only those), `fields` (names of the tensors; by default all that every set has), `atoms` (true for `atoms` and
--   `atom_mask` too)
-- @treturn table `packing`, the tensors, `names`, `entries`
-- @usage local batch = set:collate({ 3, 1 }, { fields = { "translations", "mask" } })
function Set:collate(list, o)
  o = options("set:collate", collate_defaults, type(o) == "string" and { device = o } or o)
  local runs = self:runs(list, o.windows)
  local names = self.container:fields(o.fields, o.atoms, "set:collate")
  return self:finish(self.container:rows(names, runs.first, runs.count), list, runs, o.device)
end

--- One entry.
-- @tparam number i from 1
-- @tparam ?table|string o as `collate` takes, without windows
-- @treturn table `packing`, the tensors, `name`, `entry` (its metadata)
-- @usage local protein = set:get(1)
--        local whole = set:get(1, { atoms = true })
function Set:get(i, o)
  local item = self:collate({ i }, o)
  item.name, item.names, item.entries, item.entry = item.names[1], nil, nil, self:entry(i)
  return item
end

local view_defaults = {
  split = OPTIONAL, method = OPTIONAL, min_length = OPTIONAL, max_length = OPTIONAL, max_resolution = OPTIONAL,
  entries = OPTIONAL, filter = OPTIONAL,
}

-- The values that a text or list of them names, checked against those that entries have.
local function wanted(self, key, given)
  local allowed, known, values = {}, {}, self:column(key)
  for k = 1, self.count do
    if values[k] ~= nil then known[values[k]] = true end
  end
  for _, value in ipairs(type(given) == "table" and given or { given }) do
    if not known[value] then
      fail("set:view: no entry has %s '%s' (known: %s)", key, tostring(value), table.concat(options.sorted_keys(known), ", "))
    end
    allowed[value] = true
  end
  return allowed, values
end

--- Some of the entries: a set over the same file.
-- @tparam table o what an entry has to be, all of it: `split` and `method` (a text or a list of them), `min_length`, `max_length`
--   (residues), `max_resolution` (angstrom; an entry without a resolution is not in it), `filter` (filter(entry, i) -> true);
--   `entries`, a list, chooses and orders them first, and may name one more than once
-- @treturn Set
-- @usage local train = set:view { split = "train", min_length = 60, max_length = 512 }
function Set:view(o)
  o = options("set:view", view_defaults, o)
  local splits, split, methods, method
  if o.split ~= nil then splits, split = wanted(self, "split", o.split) end
  if o.method ~= nil then methods, method = wanted(self, "method", o.method) end
  local resolution = o.max_resolution and self:column "resolution"
  local least, most = o.min_length or 0, o.max_length or math.huge
  local file, numbers = self.container, {}
  for k = 1, o.entries and #o.entries or self.count do
    local i = o.entries and o.entries[k] or k
    local n = number(self, i)
    local length = file:length(n)
    if length >= least and length <= most and (not splits or split[i] ~= nil and splits[split[i]])
      and (not methods or method[i] ~= nil and methods[method[i]])
      and (not resolution or (resolution[i] or math.huge) <= o.max_resolution)
      and (not o.filter or o.filter(file:entry(n), i)) then
      numbers[#numbers + 1] = n
    end
  end
  return over(file, numbers)
end

local validation_defaults = { lengths = 10, samples = OPTIONAL, seed = 123 }

--- The validation subset of the original programs: some lengths spread evenly over the distinct lengths of the set, and some
-- entries of each, drawn with replacement. Nothing is held out from training by it.
-- @tparam ?table o `lengths` (10), `samples` of each (4 for proteins, 5 for RNA), `seed` (123)
-- @treturn Set
-- @treturn table the lengths
function Set:validation(o)
  o = options("set:validation", validation_defaults, o)
  local members, distinct = {}, {}
  for k = 1, self.count do
    local n = self:length(k)
    if not members[n] then
      members[n] = {}
      distinct[#distinct + 1] = n
    end
    table.insert(members[n], k)
  end
  if #distinct == 0 then fail "set:validation: the set is empty" end
  -- proteins in ascending order, RNA in descending, which matters to what is cut off below
  table.sort(distinct, function(a, b) if self.kind == "rna" then return a > b end return a < b end)
  local rng, chosen, lengths = streams.rng(o.seed, "shuffle", 0), {}, {}
  for k = 0, o.lengths - 1 do
    -- as the original computes it: linspace(0, 1, lengths) times (distinct - 1), truncated
    local share = k == o.lengths - 1 and k > 0 and 1 or k * (1 / math.max(o.lengths - 1, 1))
    local length = distinct[1 + math.floor((#distinct - 1) * share)]
    lengths[k + 1] = length
    for _ = 1, o.samples or (self.kind == "rna" and 5 or 4) do
      local list = members[length]
      chosen[#chosen + 1] = list[1 + math.floor(rng:number() * #list)]
    end
  end
  return self:view { entries = chosen }, lengths
end

--- What the set holds: counts, lengths, splits, methods, resolutions; printed as a table.
-- @treturn table see data.summary
-- @usage print(set:summary())
function Set:summary() return summary.of(self) end

--- Draws the distribution of lengths and the composition of the set.
-- @tparam string path .svg, or .png where gnuplot is
-- @usage set:plot "train.svg"
function Set:plot(path) summary.plot(self, path) end

--- Batches for training; see data.batches for the options.
-- @treturn Batches call it, or write `for step, batch in set:batches { ... } do`
-- @usage for step, batch in set:batches { residues = 20000, seed = 7, steps = 1000 } do print(step, batch.packing:total()) end
function Set:batches(o)
  return batches.new(self, o)
end

return M
