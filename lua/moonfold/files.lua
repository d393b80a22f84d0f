--- Files and folders for programs: making folders, whole-file reads, atomic replacement, listing.
-- @module moonfold.files
local ffi = require "ffi"
local binding = require "moonfold.ffi"
local fail = require "moonfold.fail"

local C = binding.C
local M = {}
local check = binding.check -- raises the library's text at the user's line

local function quoted(path)
  return "'" .. path:gsub("'", [['\'']]) .. "'"
end

--- Replaces a file's contents atomically: a reader sees the old text or the new, never a part.
-- @tparam string path
-- @tparam string text
function M.replace(path, text)
  if C.mf_file_replace(path, text, #text) ~= 0 then fail(ffi.string(C.mf_error_text())) end
end

--- The contents of a file, inflated when it is gzip.
-- @tparam string path
-- @treturn ?string nil and a message when it cannot be read
function M.read(path)
  local text, bytes = ffi.new "char *[1]", ffi.new "int64_t[1]"
  if C.mf_file_read(text, bytes, path, 0) ~= 0 then return nil, ffi.string(C.mf_error_text()) end
  local contents = ffi.string(text[0], bytes[0])
  C.mf_file_free(text[0])
  return contents
end

--- Puts a file in the place of another, atomically, and makes sure that it stays; both on one file system.
-- @tparam string from
-- @tparam string to
function M.move(from, to)
  if C.mf_file_move(from, to) ~= 0 then fail(ffi.string(C.mf_error_text())) end
end

--- Writes what a gzip file holds; a plain one is copied.
-- @tparam string from
-- @tparam string to
function M.inflate(from, to)
  if C.mf_file_inflate(from, to) ~= 0 then fail(ffi.string(C.mf_error_text())) end
end

local hex, size = ffi.new "char[65]", ffi.new "int64_t[1]"

--- The SHA-256 of a text.
-- @tparam string text
-- @treturn string 64 hexadecimal digits
-- @usage files.sha256_of "abc" --> "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
function M.sha256_of(text)
  if C.mf_sha256(hex, text, #text) ~= 0 then fail(ffi.string(C.mf_error_text())) end
  return ffi.string(hex, 64)
end

--- The SHA-256 of a file as it is stored, or of a part of it.
-- @tparam string path
-- @tparam[opt=0] number offset bytes
-- @tparam ?number bytes to the end by default
-- @treturn ?string 64 hexadecimal digits; nil and a message when it cannot be read
-- @treturn number|string bytes
function M.sha256(path, offset, bytes)
  if C.mf_file_sha256(hex, size, path, offset or 0, bytes or -1) ~= 0 then return nil, ffi.string(C.mf_error_text()) end
  return ffi.string(hex, 64), tonumber(size[0])
end

--- Makes a folder and those above it; an error when that is refused.
-- @tparam string path
-- @treturn string the path
function M.make_folder(path)
  local ok = os.execute("mkdir -p " .. quoted(path) .. " 2>/dev/null")
  if ok ~= 0 and ok ~= true then fail("cannot make the folder %s", path) end
  return path
end

--- Whether something can be opened at a path.
-- @tparam string path
-- @treturn boolean
function M.exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- Files under a folder whose names end in one of some endings, sorted.
-- @tparam string folder
-- @tparam table endings such as { ".pdb", ".cif.gz" }
-- @treturn table paths
function M.list(folder, endings)
  local found = {}
  local pipe = io.popen("find -L " .. quoted(folder) .. " -type f 2>/dev/null", "r")
  for path in pipe:lines() do
    for _, ending in ipairs(endings) do
      if path:sub(-#ending) == ending then
        found[#found + 1] = path
        break
      end
    end
  end
  pipe:close()
  table.sort(found)
  return found
end

-- A member of a tar archive; its data can be had while the archive stands at it.
local member = {}
member.__index = member

--- The data of the member that an iteration over an archive stands at, as they are: a .gz is not inflated.
-- @treturn string
function member.read(m)
  local data, bytes = ffi.new "char *[1]", ffi.new "int64_t[1]"
  check(C.mf_tar_read(data, bytes, m.archive, 0))
  local text = ffi.string(data[0], bytes[0])
  C.mf_file_free(data[0])
  return text
end

--- The regular files in a tar archive, plain or gzip, in order: `name`, `bytes`, `offset` (of its data in the archive, from
-- 0; nil in a compressed one) and `:read()`, which gives the data once, before the iteration goes on.
-- @tparam string path
-- @treturn function an iterator
-- @usage for m in mf.files.tar "entries.tar" do print(m.name, m.bytes) end
function M.tar(path)
  local out = ffi.new "mf_tar *[1]"
  if type(path) ~= "string" then fail("files.tar: the path is a %s, expected a string", type(path)) end
  check(C.mf_tar_open(out, path))
  local archive = ffi.gc(out[0], C.mf_tar_close)
  local found = ffi.new "mf_tar_member"
  return function()
    check(C.mf_tar_next(found, archive))
    if found.name == nil then return nil end
    local offset = found.offset >= 0 and tonumber(found.offset) or nil
    local name, bytes = ffi.string(found.name), tonumber(found.bytes)
    return setmetatable({ name = name, bytes = bytes, offset = offset, archive = archive }, member)
  end
end

return M
