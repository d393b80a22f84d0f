--- An open data set file: what is in it, checked, and reading rows of it.
--
-- Opening 40,000 entries makes no table for each: where they begin is an array of numbers outside Lua's heap, and an entry's
-- metadata stay text until somebody asks (json.lazy). What is asked of all entries, as `split` or `cluster`, is kept as a column.
-- @module moonfold.data.container

local ffi = require "ffi"
local mf = require "moonfold"
local atoms = require "moonfold.atoms"
local fail = require "moonfold.fail"
local json = require "moonfold.json"
local layout = require "moonfold.data.layout"

local M = {}
local Container = {}
Container.__index = Container

local function sizes_of(self, metadata)
  local names
  if metadata.atoms then
    local problem
    names, problem = json.decode(metadata.atoms)
    if type(names) ~= "table" then fail("data.open: %s: atoms: %s", self.path, problem or "not a list of names") end
  end
  self.atom_names = names
  return { torsions = atoms.of(self.kind).torsion_count, atoms = names and #names or nil }
end

-- That a tensor is what the layout says.
local function check_field(self, field, rows, sizes)
  local info = self.archive:info(field.name)
  local expected = layout.shape(field, rows, sizes)
  local good = info.dtype == field.dtype and #info.shape == #expected
  for i, size in ipairs(expected) do good = good and (info.shape[i] == size) end
  if not good then
    fail("data.open: %s: %s is %s (%s), expected %s (%s)", self.path, field.name, info.dtype or "of an unknown type",
      table.concat(info.shape, ", "), field.dtype, table.concat(expected, ", "))
  end
end

-- Where the entries begin, from row 0: starts[0] .. starts[count].
local function read_starts(self)
  local info = self.archive:info "offsets"
  local count = self.list.count
  if info.dtype ~= "int64" or #info.shape ~= 1 or info.shape[1] ~= count + 1 then
    fail("data.open: %s: offsets are %s (%s), expected int64 (%d) for %d entries", self.path, info.dtype or "of an unknown type",
      table.concat(info.shape, ", "), count + 1, count)
  end
  local text = self.archive:bytes "offsets"
  local from, starts = ffi.new("int64_t[?]", count + 1), ffi.new("double[?]", count + 1)
  ffi.copy(from, text, 8 * (count + 1))
  for i = 0, count do
    starts[i] = tonumber(from[i])
    if starts[i] < (i == 0 and 0 or starts[i - 1]) then
      fail("data.open: %s: offsets of entry %d run backwards", self.path, math.max(i, 1))
    end
  end
  if starts[0] ~= 0 then fail("data.open: %s: offsets begin at %.0f, expected 0", self.path, starts[0]) end
  self.starts = starts
end

--- Opens a file.
-- @tparam string path
-- @treturn Container `path`, `kind`, `count`, `residues`, `atom_names`, `archive`
function M.open(path)
  local archive = mf.archive(path)
  local metadata = archive:metadata()
  if metadata.format ~= layout.FORMAT then
    fail("data.open: %s is not a data set (no '%s' in its metadata)", path, layout.FORMAT)
  end
  local self = setmetatable({ path = path, archive = archive, kind = metadata.kind }, Container)
  self.columns, self.names, self.readers = {}, {}, {}       -- what was asked for before
  local rules, problem = pcall(atoms.of, self.kind)
  if not rules then fail("data.open: %s: %s", path, problem) end
  local sizes = sizes_of(self, metadata)
  self.list = layout.entries(archive)
  self.count = self.list.count
  for _, name in ipairs { "offsets", unpack(layout.names) } do
    if not archive:has(name) then fail("data.open: %s has no tensor '%s'", path, name) end
  end
  read_starts(self)
  self.residues = self.starts[self.count]
  for _, field in ipairs(layout.fields) do check_field(self, field, self.residues, sizes) end
  for _, field in ipairs(layout.optional) do
    if archive:has(field.name) then
      if not sizes.atoms then fail("data.open: %s has %s, but no names of atoms in its metadata", path, field.name) end
      check_field(self, field, self.residues, sizes)
    end
  end
  return self
end

--- Residues of an entry.
-- @tparam number i from 1
function Container:length(i) return self.starts[i] - self.starts[i - 1] end

local function damaged(self, i, message)
  fail("data set %s: entry %d %s", self.path, i, message and "is damaged: " .. message or "has no name")
end

--- An entry's metadata.
-- @tparam number i from 1
-- @treturn table
function Container:entry(i)
  local entry, message = self.list:get(i)
  if type(entry) ~= "table" or type(entry.name) ~= "string" then damaged(self, i, message) end
  return entry
end

--- An entry's name.
-- @tparam number i from 1
-- @treturn string
function Container:name(i)
  local name = self.names[i]
  if not name then
    local message
    name, message = self.list:field(i, "name")
    if type(name) ~= "string" then damaged(self, i, message) end
    self.names[i] = name
  end
  return name
end

--- One value of every entry.
-- @tparam string key
-- @treturn table by entry; nil where one lacks it
function Container:column(key)
  local values = self.columns[key]
  if not values then
    values = {}
    for i = 1, self.count do
      local value, message = self.list:field(i, key)
      if message then damaged(self, i, message) end
      if value ~= json.null then values[i] = value end
    end
    self.columns[key] = values
  end
  return values
end

--- The tensors that somebody asks for.
-- @tparam ?table fields names, by default all that every set has
-- @tparam ?boolean with_atoms `atoms` and `atom_mask` too
-- @tparam string who for messages
-- @treturn table names
function Container:fields(fields, with_atoms, who)
  local names, seen = {}, {}
  for _, name in ipairs(fields or layout.names) do
    local known = false
    for _, other in ipairs(layout.names) do known = known or other == name end
    for _, other in ipairs(layout.optional_names) do known = known or other == name end
    if not known then
      fail("%s: no field '%s' (known: %s, %s)", who, tostring(name), table.concat(layout.names, ", "),
        table.concat(layout.optional_names, ", "))
    end
    if not seen[name] then names[#names + 1], seen[name] = name, true end
  end
  for _, name in ipairs(with_atoms and layout.optional_names or {}) do
    if not seen[name] then names[#names + 1], seen[name] = name, true end
  end
  for _, name in ipairs(names) do
    if not self.archive:has(name) then fail("%s: %s has no %s (prepare keeps atoms when asked to)", who, self.path, name) end
  end
  if #names == 0 then fail("%s: fields is an empty list", who) end
  return names
end

--- The rows of some entries, end to end.
-- @tparam table names of tensors
-- @tparam table first from row 1 of the file
-- @tparam table count
-- @treturn table name -> tensor on the CPU
function Container:rows(names, first, count)
  local key = table.concat(names, " ")
  local reader = self.readers[key]
  if not reader then
    reader = self.archive:reader(names, 0)
    self.readers[key] = reader
  end
  reader:submit(first, count)
  return reader:next()
end

return M
