--- CIF files as they are: any category of mmCIF, chemical components, small molecules, structure factors, dictionaries.
--
-- Text (CIF 1.1) and BinaryCIF, plain or gzip, told apart by content. Names ignore case.
--
--     local file = mf.cif.read "1abc.cif.gz"
--     local block = file[1]                          -- a data block, by its place or by its name: file["1ABC"]
--     block.name, block.frames                       -- its name; its save frames, which are blocks too
--     block:value "_refine.ls_d_res_high"            -- the first value of a tag, nil when there is no such tag
--     block:column "_entity_poly.type"               -- all of them, in a list
--     local poly = block:category "_entity_poly"     -- nil when there is none
--     poly.name, poly.rows, poly.columns             -- "_entity_poly", a number, { "entity_id", "type", ... }
--     poly:value(2, "type"), poly:kind(2, "type")
--     for row in poly:each() do print(row.entity_id, row.type) end
--
-- A value is a string, or a number where BinaryCIF stores one, or false where it is absent: `.` (not applicable) or `?`
-- (not known) without quotes. `kind` tells: "text", "quoted", "integer", "real", "inapplicable", "unknown".
-- @module moonfold.cif
local ffi = require "ffi"
local binding = require "moonfold.ffi"
local fail = require "moonfold.fail"

local C = binding.C
local M = {}
local check = binding.check -- raises the library's text at the user's line

local File, Block, Category = {}, {}, {}

local KINDS = {
  [C.MF_CIF_TEXT] = "text", [C.MF_CIF_QUOTED] = "quoted", [C.MF_CIF_INTEGER] = "integer", [C.MF_CIF_REAL] = "real",
  [C.MF_CIF_INAPPLICABLE] = "inapplicable", [C.MF_CIF_UNKNOWN] = "unknown",
}

local cell = ffi.new "mf_cif_cell"

-- ---- categories ----

local function get(t, row, column)
  check(C.mf_cif_value(cell, t.handle, t.index, row - 1, column))
  local kind = cell.kind
  if kind <= C.MF_CIF_QUOTED then return ffi.string(cell.text, cell.bytes), kind end
  if kind <= C.MF_CIF_REAL then return cell.number, kind end
  return false, kind
end

local function column_of(t, name)
  local column = type(name) == "string" and t.places[name:lower()]
  if not column then fail("cif: %s has no column '%s' (known: %s)", t.title, tostring(name), table.concat(t.columns, ", ")) end
  return column
end

local function check_row(t, row)
  if type(row) ~= "number" or row < 1 or row > t.rows or row % 1 ~= 0 then
    fail("cif: %s has no row %s (rows: %d)", t.title, tostring(row), t.rows)
  end
end

local category = {}

--- One value.
-- @tparam number row from 1
-- @tparam string column such as "type"
-- @treturn string|number|boolean false where it is absent
function category.value(t, row, column)
  column = column_of(t, column)
  check_row(t, row)
  return (get(t, row, column))
end

--- What one value is: "text", "quoted" (in quotes or a text field), "integer", "real", "inapplicable" (.) or "unknown" (?).
-- @tparam number row from 1
-- @tparam string column
-- @treturn string
function category.kind(t, row, column)
  column = column_of(t, column)
  check_row(t, row)
  local _, kind = get(t, row, column)
  return KINDS[kind]
end

--- The values of a column.
-- @tparam string column
-- @treturn table a list, false where a value is absent
function category.column(t, column)
  column = column_of(t, column)
  local list = {}
  for row = 1, t.rows do list[row] = get(t, row, column) end
  return list
end

--- Rows one after another, each a table from column name to value.
-- @treturn function an iterator
-- @usage for row in block:category("_entity"):each() do print(row.id, row.type) end
function category.each(t)
  local row = 0
  return function()
    if row >= t.rows then return nil end
    row = row + 1
    local record = {}
    for i, name in ipairs(t.columns) do record[name] = get(t, row, i - 1) end
    return record
  end
end

Category.__index = category
function Category:__tostring() return ("cif category %s: %d rows, %d columns"):format(self.title, self.rows, #self.columns) end

local function new_category(handle, index, info)
  local tags, columns, places = {}, {}, {}
  for i = 1, tonumber(info.columns) do
    tags[i] = ffi.string(C.mf_cif_tag(handle, index, i - 1))
    columns[i] = tags[i]:match "%.(.*)" or tags[i]
    places[columns[i]:lower()] = i - 1
    places[tags[i]:lower()] = i - 1
  end
  local name = tags[1]:match "^[^.]*%f[.]" or ""
  return setmetatable({
    handle = handle, index = index, name = name, title = name ~= "" and name or tags[1], rows = tonumber(info.rows),
    loop = info.loop ~= 0, columns = columns, tags = tags, places = places,
  }, Category)
end

-- ---- blocks ----

local block = {}

--- A category of the block.
-- @tparam string name such as "_entity_poly"
-- @treturn ?Category nil when there is none
function block.category(b, name) return b.by_name[name:lower()] end

--- The category that a tag is of; tags of small molecules have no other name for theirs.
-- @tparam string tag such as "_atom_site_label"
-- @treturn ?Category nil when there is none
function block.category_of(b, tag) return b.by_tag[tag:lower()] end

--- The values of a tag.
-- @tparam string tag such as "_entity_poly.type"
-- @treturn ?table a list, false where a value is absent; nil when there is no such tag
function block.column(b, tag)
  local found = b.by_tag[tag:lower()]
  return found and found:column(tag)
end

--- The first value of a tag.
-- @tparam string tag such as "_entry.id"
-- @treturn ?string|number|boolean false where it is absent; nil when there is no such tag or no row
function block.value(b, tag)
  local found = b.by_tag[tag:lower()]
  if not found or found.rows == 0 then return nil end
  return found:value(1, tag)
end

Block.__index = block
function Block:__tostring()
  local frames = #self.frames > 0 and (", %d save frames"):format(#self.frames) or ""
  return ("cif block %s: %d categories%s"):format(self.name, #self.categories, frames)
end

-- ---- files ----

function File:__index(name)
  local blocks = rawget(self, "blocks")
  if type(name) ~= "string" then return blocks[name] end
  for _, b in ipairs(blocks) do
    if b.name:lower() == name:lower() then return b end
  end
end

function File:__tostring()
  local names = {}
  for i, b in ipairs(self.blocks) do
    names[i] = i <= 4 and b.name or i == 5 and "..." or nil
  end
  return ("cif file of %d blocks: %s"):format(#self.blocks, table.concat(names, ", "))
end

local function adopt(pointer)
  local handle = ffi.gc(pointer, C.mf_cif_release)
  local counts, info, parent = ffi.new "mf_cif_counts", ffi.new "mf_cif_table_info", ffi.new "int64_t[1]"
  C.mf_cif_count(counts, handle)
  local all, blocks = {}, {}
  for i = 1, tonumber(counts.blocks) do
    local name = ffi.string(C.mf_cif_block(handle, i - 1, parent))
    all[i] = setmetatable({ name = name, categories = {}, frames = {}, by_name = {}, by_tag = {} }, Block)
    local above = parent[0] >= 0 and all[tonumber(parent[0]) + 1].frames or blocks
    above[#above + 1] = all[i]
  end
  for i = 0, tonumber(counts.tables) - 1 do
    check(C.mf_cif_table(info, handle, i))
    local b, found = all[tonumber(info.block) + 1], new_category(handle, i, info)
    b.categories[#b.categories + 1] = found
    b.by_name[found.name:lower()] = b.by_name[found.name:lower()] or found
    for _, tag in ipairs(found.tags) do b.by_tag[tag:lower()] = found end
  end
  return setmetatable({ blocks = blocks }, File)
end

--- Reads a CIF file: text or BinaryCIF, plain or gzip.
-- @tparam string path
-- @tparam[opt=1073741824] number max_bytes of the inflated file; more is refused
-- @treturn File
-- @usage local file = mf.cif.read "1abc.cif.gz"
--        print(file[1]:value "_entry.id")
function M.read(path, max_bytes)
  local out = ffi.new "mf_cif *[1]"
  if type(path) ~= "string" then fail("cif.read: the path is a %s, expected a string", type(path)) end
  check(C.mf_cif_read(out, path, max_bytes or 0))
  return adopt(out[0])
end

--- The same of a string: what a member of a tar archive holds, or a text at hand.
-- @tparam string data
-- @tparam[opt="text"] string name stands in errors
-- @treturn File
-- @usage local file = mf.cif.parse "data_x _cell.length_a 30.5"
function M.parse(data, name)
  local out = ffi.new "mf_cif *[1]"
  if type(data) ~= "string" then fail("cif.parse: the text is a %s, expected a string", type(data)) end
  check(C.mf_cif_parse(out, data, #data, name))
  return adopt(out[0])
end

return M
