--- ZIP archives: what checkpoints of PyTorch and arrays of NumPy come in.
--
-- Archives are checked wholly when they are opened and data against their CRC when they are read; nothing is ever
-- written to a file but by `zip.write`, whatever names the entries have.
-- @module moonfold.zip
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local options = require "moonfold.options"
local fail = require "moonfold.fail"

local C, ctx, out, again, check, adopt = F.C, F.ctx, F.out, F.again, F.check, F.adopt

local M = {}

local Zip = {}
Zip.__index = Zip

local kinds = {
  float = C.MF_LAYOUT_FLOAT, bfloat = C.MF_LAYOUT_BFLOAT, signed = C.MF_LAYOUT_SIGNED, unsigned = C.MF_LAYOUT_UNSIGNED,
  bool = C.MF_LAYOUT_BOOL,
}

--- How another program laid out elements, for the library.
-- @tparam table l `kind` ("float", "bfloat", "signed", "unsigned", "bool"), `width` in bytes, `big_endian`, `offset`, `shape`,
--   `stride` (elements)
-- @treturn cdata mf_layout
function M.layout(l)
  local box = ffi.new "mf_layout"
  if #l.shape > C.MF_MAX_DIMS then fail("a tensor of %d axes, expected at most %d", #l.shape, tonumber(C.MF_MAX_DIMS)) end
  box.kind, box.width, box.big_endian = kinds[l.kind], l.width, l.big_endian and 1 or 0
  box.ndim, box.offset = #l.shape, l.offset or 0
  for d = 1, #l.shape do box.shape[d - 1], box.stride[d - 1] = l.shape[d], l.stride[d] end
  return box
end

--- A tensor of elements in a string.
-- @tparam table l as for `layout`
-- @tparam string bytes
-- @treturn tensor
function M.decode(l, bytes)
  local box = M.layout(l)
  local status = C.mf_layout_tensor(out, ctx, box, bytes, #bytes)
  if status ~= 0 and again(status) then check(C.mf_layout_tensor(out, ctx, box, bytes, #bytes)) end
  return adopt(out[0])
end

--- Opens an archive.
-- @tparam string path
-- @treturn zip
-- @usage local archive = require("moonfold.zip").open "arrays.npz"
function M.open(path)
  if type(path) ~= "string" then T.bad_argument("zip.open", 1, "a path", path) end
  local box = ffi.new "mf_zip *[1]"
  check(C.mf_zip_open(box, path))
  local handle = ffi.gc(box[0], C.mf_zip_close)
  local names, index = {}, {}
  for i = 0, tonumber(C.mf_zip_count(handle)) - 1 do
    local name = ffi.string(C.mf_zip_name(handle, i))
    names[i + 1], index[name] = name, i
  end
  return setmetatable({ path = path, handle = handle, names = names, index = index }, Zip)
end

function Zip:__tostring() return ("zip %s: %d entries"):format(self.path, #self.names) end

local function position(self, name)
  if not self.handle then fail("zip: %s is closed", self.path) end
  local i = self.index[name]
  if i then return i end
  local near = options.nearest(name, self.names)
  fail("zip: %s has no entry '%s'%s", self.path, name, near and (", did you mean '%s'?"):format(near) or "")
end

--- The size of an entry's content in bytes.
function Zip:size(name) return tonumber(C.mf_zip_size(self.handle, position(self, name))) end

--- The content of an entry.
-- @treturn string
function Zip:read(name)
  local i = position(self, name)
  local data, bytes = ffi.new "char *[1]", ffi.new "int64_t[1]"
  check(C.mf_zip_read(data, bytes, self.handle, i))
  local content = ffi.string(data[0], bytes[0])
  C.mf_file_free(data[0])
  return content
end

--- A tensor of an entry's elements, copied to the CPU.
-- @tparam string name
-- @tparam table l as for `layout`
-- @treturn tensor
function Zip:tensor(name, l)
  local i, box = position(self, name), M.layout(l)
  local status = C.mf_zip_tensor(out, self.handle, ctx, i, box)
  if status ~= 0 and again(status) then check(C.mf_zip_tensor(out, self.handle, ctx, i, box)) end
  return adopt(out[0])
end

--- The tensor of an entry that is an array of NumPy.
-- @tparam string name
-- @treturn tensor
function Zip:array(name)
  local i = position(self, name)
  local status = C.mf_zip_npy(out, self.handle, ctx, i)
  if status ~= 0 and again(status) then check(C.mf_zip_npy(out, self.handle, ctx, i)) end
  return adopt(out[0])
end

--- Closes the file; what was read stays.
function Zip:close()
  if self.handle then
    C.mf_zip_close(ffi.gc(self.handle, nil))
    self.handle = nil
  end
end

--- Writes an archive, atomically.
-- @tparam string path
-- @tparam table parts in order: { name, data = string, tensor = tensor, deflate = boolean }; data come before the tensor's elements
-- @tparam ?number alignment of the content in bytes (1)
function M.write(path, parts, alignment)
  if type(path) ~= "string" then T.bad_argument("zip.write", 1, "a path", path) end
  local box, host = ffi.new("mf_zip_part[?]", #parts + 1), {}
  for i, part in ipairs(parts) do
    local row = box[i - 1]
    row.name, row.deflate = part.name, part.deflate and 1 or 0
    if part.data then row.data, row.bytes = part.data, #part.data end
    if part.tensor then
      host[i] = part.tensor:detach():to("cpu")     -- keeps a copy from a device alive until the file is written
      row.tensor = host[i]
    end
  end
  check(C.mf_zip_write(path, box, #parts, alignment or 1))
end

return M
