--- Arrays of NumPy: .npy files with one, .npz files with several by name.
--
--     local w = mf.numpy.load "w.npy"                  -- a tensor
--     local all = mf.numpy.load "all.npz"              -- name -> tensor
--     mf.numpy.save("all.npz", all, { compress = true })
--
-- Both orders of axes and of bytes are read. NumPy's int8, int16, uint8 and uint16 become int32 and its uint32 and uint64 int64,
-- exactly (2^63 and more is an error); text, dates, records, complex numbers and objects are refused. It has no bfloat16.
-- @module moonfold.numpy
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local options = require "moonfold.options"
local zip = require "moonfold.zip"
local fail = require "moonfold.fail"

local C, ctx, out, again, check, adopt, is_tensor = F.C, F.ctx, F.out, F.again, F.check, F.adopt, F.is_tensor

local M = {}

local function begins_with_zip(path)
  local file, reason = io.open(path, "rb")
  if not file then fail("numpy.load: %s", reason) end
  local magic = file:read(2)
  file:close()
  return magic == "PK"
end

--- Reads a file that NumPy wrote, .npy or .npz by its content.
-- @tparam string path
-- @treturn tensor|table a tensor, or tensors by name
-- @usage local arrays = mf.numpy.load "features.npz"
function M.load(path)
  if type(path) ~= "string" then T.bad_argument("numpy.load", 1, "a path", path) end
  if not begins_with_zip(path) then
    local status = C.mf_npy_read(out, ctx, path)
    if status ~= 0 and again(status) then check(C.mf_npy_read(out, ctx, path)) end
    return adopt(out[0])
  end
  local archive, arrays = zip.open(path), {}
  for _, name in ipairs(archive.names) do
    local array = name:match "^(.+)%.npy$" or fail("numpy.load: %s: entry '%s' is not an array (.npy)", path, name)
    arrays[array] = archive:array(name)
  end
  archive:close()
  return arrays
end

local save_defaults = { compress = false }

--- Writes a tensor as .npy or tensors by name as .npz, atomically.
-- @tparam string path ends in .npy or .npz
-- @tparam tensor|table x a tensor for .npy, tensors by name for .npz
-- @tparam ?table o `compress` (false): deflate an .npz
-- @usage mf.numpy.save("w.npy", mf.ones(3))
function M.save(path, x, o)
  o = options("numpy.save", save_defaults, o)
  if type(path) ~= "string" then T.bad_argument("numpy.save", 1, "a path", path) end
  if path:match "%.npy$" then
    if not is_tensor(x) then T.bad_argument("numpy.save", 2, "a tensor for an .npy file", x) end
    if o.compress then fail("numpy.save: an .npy file cannot be compressed; write an .npz") end
    check(C.mf_npy_write(path, x:detach():to("cpu")))
    return
  end
  if not path:match "%.npz$" then fail("numpy.save: the name '%s' ends in neither .npy nor .npz", path) end
  if type(x) ~= "table" then T.bad_argument("numpy.save", 2, "a table of tensors for an .npz file", x) end
  local names, host = options.sorted_keys(x), {}
  local name_box, tensor_box = ffi.new("const char *[?]", #names + 1), ffi.new("const mf_tensor *[?]", #names + 1)
  for i, name in ipairs(names) do
    if type(name) ~= "string" then fail("numpy.save: names must be strings, got %s", T.kind(name)) end
    if not is_tensor(x[name]) then fail("numpy.save: '%s' must be a tensor, got %s", name, T.kind(x[name])) end
    host[i] = x[name]:detach():to("cpu")
    name_box[i - 1], tensor_box[i - 1] = name, host[i]
  end
  check(C.mf_npz_write(path, name_box, tensor_box, #names, o.compress and 1 or 0))
end

return M
