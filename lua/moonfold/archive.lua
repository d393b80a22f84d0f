--- safetensors files: one container for weights, checkpoints and data sets.
-- Files are written to a temporary name, synced and renamed, so that a file is whole or absent.
-- @module moonfold.archive
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local options = require "moonfold.options"
local fail = require "moonfold.fail"
local row_reader = require "moonfold.row_reader"

local C, ctx, out, again, check, adopt, is_tensor = F.C, F.ctx, F.out, F.again, F.check, F.adopt, F.is_tensor

local M = {}

local Archive = {}
Archive.__index = Archive

local archive_box = ffi.new("mf_archive *[1]")

--- Opens a file without reading its tensors.
-- @tparam string path
-- @treturn archive
-- @usage local a = mf.archive("weights.safetensors")
--        local w = a:tensor("head.weight")
function M.archive(path)
  if type(path) ~= "string" then T.bad_argument("archive", 1, "a path", path) end
  local status = C.mf_archive_open(archive_box, path)
  if status ~= 0 and again(status) then check(C.mf_archive_open(archive_box, path)) end
  local handle = ffi.gc(archive_box[0], C.mf_archive_close)
  local names, index = {}, {}
  for i = 0, tonumber(C.mf_archive_count(handle)) - 1 do
    local name = ffi.string(C.mf_archive_name(handle, i))
    names[i + 1], index[name] = name, i
  end
  return setmetatable({ path = path, handle = handle, list = names, index = index }, Archive)
end

function Archive:__tostring() return ("archive %s: %d tensors"):format(self.path, #self.list) end

local function open(self)
  if not self.handle then fail("archive: %s is closed", self.path) end
  return self.handle
end

local function position(self, name)
  local i = self.index[name]
  if i then return i end
  local near = type(name) == "string" and options.nearest(name, self.list)
  fail("archive: %s has no tensor '%s'%s", self.path, tostring(name), near and (", did you mean '%s'?"):format(near) or "")
end

--- The names of the tensors, in the order of the file.
-- @treturn table
function Archive:names()
  local names = {}
  for i, name in ipairs(self.list) do names[i] = name end
  return names
end

--- Is there a tensor of this name?
-- @treturn boolean
function Archive:has(name) return self.index[name] ~= nil end

--- What a tensor is without reading it.
-- @tparam string name
-- @treturn table dtype, shape, bytes
function Archive:info(name)
  local dtype, ndim, shape, bytes = ffi.new("int[1]"), ffi.new("int[1]"), ffi.new("int64_t[8]"), ffi.new("int64_t[1]")
  check(C.mf_archive_info(open(self), position(self, name), dtype, ndim, shape, bytes))
  local sizes = {}
  for i = 1, ndim[0] do sizes[i] = tonumber(shape[i - 1]) end
  return { dtype = T.dtype_name[dtype[0]], shape = sizes, bytes = tonumber(bytes[0]) }
end

--- A tensor, copied to the CPU.
-- @tparam string name
-- @treturn tensor
function Archive:tensor(name)
  local handle, i = open(self), position(self, name)
  local status = C.mf_archive_tensor(out, handle, ctx, i)
  if status ~= 0 and again(status) then check(C.mf_archive_tensor(out, handle, ctx, i)) end
  return adopt(out[0])
end

--- Some rows (of axis 1) of a tensor, copied to the CPU; only they are read.
-- @tparam string name
-- @tparam number first from 1
-- @tparam number count
-- @treturn tensor
function Archive:rows(name, first, count)
  local handle, i = open(self), position(self, name)
  T.integer_argument("rows", 2, first)
  T.integer_argument("rows", 3, count)
  local status = C.mf_archive_rows(out, handle, ctx, i, first - 1, count)
  if status ~= 0 and again(status) then check(C.mf_archive_rows(out, handle, ctx, i, first - 1, count)) end
  return adopt(out[0])
end

--- The bytes of a tensor as they stand in the file, whatever its type.
-- @tparam string name
-- @treturn string
function Archive:bytes(name)
  local bytes = self:info(name).bytes
  local buffer = ffi.new("char[?]", math.max(bytes, 1))
  check(C.mf_archive_bytes(buffer, open(self), position(self, name), 0, bytes))
  return ffi.string(buffer, bytes)
end

--- Reads runs of rows of several tensors ahead of time; see row_reader.
-- @tparam table names
-- @tparam[opt=0] number threads 0 to 64
-- @treturn table
-- @usage local reader = archive:reader({ "translations", "mask" }, 1)
function Archive:reader(names, threads)
  local positions = {}
  for i, name in ipairs(names) do positions[i] = position(self, name) end
  return row_reader.new(open(self), names, positions, T.integer_argument("reader", 2, threads, 0))
end

--- The texts stored beside the tensors.
-- @treturn table key -> text
function Archive:metadata()
  local handle, metadata = open(self), {}
  for i = 0, tonumber(C.mf_archive_metadata_count(handle)) - 1 do
    metadata[ffi.string(C.mf_archive_metadata_key(handle, i))] = ffi.string(C.mf_archive_metadata_value(handle, i))
  end
  return metadata
end

--- Closes the file; the tensors read from it stay.
function Archive:close()
  if self.handle then
    C.mf_archive_close(ffi.gc(self.handle, nil))
    self.handle = nil
  end
end

--- Reads every tensor of a file.
-- @tparam string path
-- @treturn table name -> tensor
-- @treturn table metadata, key -> text
-- @usage local weights, metadata = mf.load("weights.safetensors")
function M.load(path)
  local archive = M.archive(path)
  local tensors = {}
  for _, name in ipairs(archive.list) do tensors[name] = archive:tensor(name) end
  local metadata = archive:metadata()
  archive:close()
  return tensors, metadata
end

--- Writes tensors to a file, in the order of their names.
-- @tparam string path
-- @tparam table tensors name -> tensor
-- @tparam ?table metadata key -> text
-- @usage mf.save("weights.safetensors", { w = w }, { step = "100" })
function M.save(path, tensors, metadata)
  if type(path) ~= "string" then T.bad_argument("save", 1, "a path", path) end
  if type(tensors) ~= "table" then T.bad_argument("save", 2, "a table of tensors", tensors) end
  if metadata ~= nil and type(metadata) ~= "table" then T.bad_argument("save", 3, "a table of texts", metadata) end
  local names, keys, host = options.sorted_keys(tensors), options.sorted_keys(metadata or {}), {}
  local name_box, key_box = ffi.new("const char *[?]", #names + 1), ffi.new("const char *[?]", #keys + 1)
  local value_box, tensor_box = ffi.new("const char *[?]", #keys + 1), ffi.new("const mf_tensor *[?]", #names + 1)
  for i, name in ipairs(names) do
    if type(name) ~= "string" then fail("save: names must be strings, got %s", T.kind(name)) end
    if not is_tensor(tensors[name]) then fail("save: '%s' must be a tensor, got %s", name, T.kind(tensors[name])) end
    -- The table keeps what is copied from a device alive until the file is written.
    host[i] = tensors[name]:detach():to("cpu")
    name_box[i - 1], tensor_box[i - 1] = name, host[i]
  end
  local values = {}
  for i, key in ipairs(keys) do
    local value = metadata[key]
    if type(key) ~= "string" or (type(value) ~= "string" and type(value) ~= "number") then
      fail("save: metadata must be texts by name, '%s' is %s", tostring(key), T.kind(value))
    end
    values[i] = tostring(value)
    key_box[i - 1], value_box[i - 1] = key, values[i]
  end
  check(C.mf_archive_write(path, name_box, tensor_box, #names, key_box, value_box, #keys))
end

local Stream = {}
Stream.__index = Stream

--- Begins a file that is written piece by piece: what was there before stays until `commit`.
-- @tparam string path
-- @tparam table tensors in the order of the header: { name =, dtype =, shape = }; dtype "bytes" is plain text
-- @tparam ?table metadata key -> text
-- @treturn stream
-- @usage local s = archive.stream("x.safetensors", { { name = "x", dtype = "float32", shape = { 100, 3 } } })
--        for _ = 1, 10 do s:append("x", mf.zeros(10, 3)) end
--        s:commit()
function M.stream(path, tensors, metadata)
  if type(path) ~= "string" then T.bad_argument("stream", 1, "a path", path) end
  local box = ffi.new "mf_archive_stream *[1]"
  check(C.mf_archive_stream_open(box, path))
  local handle = ffi.gc(box[0], C.mf_archive_stream_abandon)
  local places = {}
  for i, x in ipairs(tensors) do
    local dtype = x.dtype == "bytes" and C.MF_ARCHIVE_BYTES or T.dtype("stream", x.dtype)
    check(C.mf_archive_stream_declare(handle, x.name, dtype, #x.shape, ffi.new("int64_t[8]", x.shape)))
    places[x.name] = i - 1
  end
  for _, key in ipairs(options.sorted_keys(metadata or {})) do check(C.mf_archive_stream_metadata(handle, key, metadata[key])) end
  return setmetatable({ path = path, handle = handle, places = places }, Stream)
end

local function place(self, name)
  if not self.handle then fail("archive: %s was committed or abandoned", self.path) end
  return self.places[name] or fail("archive: %s: no tensor '%s' was declared", self.path, tostring(name))
end

--- Appends rows to a tensor.
-- @tparam string name
-- @tparam tensor rows
function Stream:append(name, rows)
  if not is_tensor(rows) then T.bad_argument("append", 2, "a tensor", rows) end
  local i = place(self, name)
  check(C.mf_archive_stream_append(self.handle, i, rows:detach():to "cpu"))
end

--- Appends bytes to a tensor: any piece of what comes next, row-major.
-- @tparam string name
-- @tparam string bytes
function Stream:put(name, bytes)
  local i = place(self, name)
  check(C.mf_archive_stream_put(self.handle, i, bytes, #bytes))
end

--- Appends rows of a tensor of the same name of an open archive, without reading them into memory.
-- @tparam string name
-- @tparam archive from
-- @tparam number first from 1
-- @tparam number count
function Stream:copy(name, from, first, count)
  local i = place(self, name)
  check(C.mf_archive_stream_copy(self.handle, i, open(from), position(from, name), first - 1, count))
end

--- Puts the file in its place; every tensor must be whole.
function Stream:commit()
  if not self.handle then fail("archive: %s was committed or abandoned", self.path) end
  local handle = ffi.gc(self.handle, nil)
  self.handle = nil
  check(C.mf_archive_stream_commit(handle))
end

--- Forgets what was written.
function Stream:abandon()
  if not self.handle then return end
  C.mf_archive_stream_abandon(ffi.gc(self.handle, nil))
  self.handle = nil
end

return M
