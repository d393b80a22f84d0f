--- Which files a run reads: files, folder trees, members of tar archives, lists of all these; each once, in a settled order.
-- @module moonfold.data.prepare.inputs

local fail = require "moonfold.fail"
local files = require "moonfold.files"

local M = {}

local ENDINGS = { ".pdb", ".ent", ".cif", ".mmcif", ".bcif" }
local STRUCTURES = {}
for _, ending in ipairs(ENDINGS) do
  STRUCTURES[#STRUCTURES + 1], STRUCTURES[#STRUCTURES + 2] = ending, ending .. ".gz"
end
local ARCHIVES = { ".tar", ".tar.gz", ".tgz" }
local IN_FOLDERS = {}
for _, list in ipairs { STRUCTURES, ARCHIVES } do
  for _, ending in ipairs(list) do IN_FOLDERS[#IN_FOLDERS + 1] = ending end
end
local EISDIR = 21   -- what reading a folder gives

local function ends_in(path, endings)
  for _, ending in ipairs(endings) do
    if path:sub(-#ending):lower() == ending then return true end
  end
  return false
end

local function size_of(path)
  local file = io.open(path, "rb")
  local bytes = file and file:seek "end"
  if file then file:close() end
  return bytes
end

-- Adds the structure files of an archive. A compressed one can only be read from its beginning, so it is unpacked once.
local function add_archive(list, path, unpack_to)
  local at = path
  if not path:lower():match "%.tar$" then at = unpack_to(path) end
  for member in files.tar(at) do
    if ends_in(member.name, STRUCTURES) then
      list[#list + 1] = { path = path .. ":" .. member.name, file = at, offset = member.offset, bytes = member.bytes }
    end
  end
end

local function is_folder(path)
  local file = io.open(path, "rb")
  if not file then return false end
  local _, _, code = file:read(0)
  file:close()
  return code == EISDIR
end

local function add_file(list, path, o)
  if ends_in(path, ARCHIVES) then add_archive(list, path, o.unpack)
  else list[#list + 1] = { path = path, file = path, bytes = size_of(path) } end
end

local function add(list, path, o)
  if not is_folder(path) then return add_file(list, path, o) end
  for _, inside in ipairs(files.list(path, IN_FOLDERS)) do add_file(list, inside, o) end
end

-- The lines of a list file: a path each; blank lines and what begins with # are passed over.
local function lines_of(path)
  local text, message = files.read(path)
  if not text then fail("data.prepare: %s", message) end
  local lines = {}
  for line in text:gmatch "[^\r\n]+" do
    line = line:match "^%s*(.-)%s*$"
    if line ~= "" and line:sub(1, 1) ~= "#" then lines[#lines + 1] = line end
  end
  return lines
end

--- The files of a run.
-- @tparam table given what the user named: paths of files, folders and archives; "@path" is a list of such
-- @tparam table o `unpack` function(path of a .tar.gz) -> path of its .tar; `sorted` (false keeps the order given)
-- @treturn table a list of { path: its name in the manifest; file: what to open; offset, bytes: which part of it }
function M.gather(given, o)
  local list = {}
  for _, input in ipairs(given) do
    if input:sub(1, 1) == "@" then
      for _, line in ipairs(lines_of(input:sub(2))) do add(list, line, o) end
    else
      if not size_of(input) then fail("data.prepare: input '%s' cannot be opened", input) end
      add(list, input, o)
    end
  end
  local result, seen = {}, {}
  for _, input in ipairs(list) do
    if not seen[input.path] then
      seen[input.path] = true
      result[#result + 1] = input
    end
  end
  if o.sorted then table.sort(result, function(a, b) return a.path < b.path end) end
  return result
end

return M
