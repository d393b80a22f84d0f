--- What classes and functions in a checkpoint of PyTorch mean to us: the whole list. Every other stays inert.
--
--   collections.OrderedDict, defaultdict, builtins' containers     plain tables
--   torch._utils._rebuild_tensor, _v2, _v3, _rebuild_parameter     tensors of ours, of the storages that `open` gives
--   torch.Size, torch.device, _codecs.encode, builtins.bytes       lists and texts
--   numpy's scalars and arrays of numbers                          numbers and tensors
--   copyreg._reconstructor                                         an inert object of the class that it names
-- @module moonfold.torch.rules
local ffi = require "ffi"
local json = require "moonfold.json"
local pickle = require "moonfold.pickle"
local zip = require "moonfold.zip"
local types = require "moonfold.torch.types"
local fail = require "moonfold.fail"

local M = {}

local function numbers(path, what, list)
  if type(list) ~= "table" then fail("torch.load: %s: the %s of a tensor is not a tuple", path, what) end
  if #list > 8 then fail("torch.load: %s: a tensor of %d axes (at most 8)", path, #list) end
  for _, n in ipairs(list) do
    if type(n) ~= "number" or n % 1 ~= 0 then fail("torch.load: %s: the %s of a tensor is not of whole numbers", path, what) end
  end
  return list
end

-- ---- tensors ----

local Storage = {}

--- Marks a storage, so that nothing that a pickle holds can pass for one.
-- @tparam table record `entry` of the archive, `dtype` by PyTorch's name
function M.storage(record) return setmetatable(record, Storage) end

local function tensor(open, storage, offset, shape, stride, name)
  if getmetatable(storage) ~= Storage then fail("torch.load: %s: a tensor without a storage", open.path) end
  name = name or storage.dtype
  numbers(open.path, "shape", shape)
  numbers(open.path, "stride", stride)
  numbers(open.path, "offset", { offset })
  if #shape ~= #stride then fail("torch.load: %s: a tensor of %d axes has %d strides", open.path, #shape, #stride) end
  local layout = types.layouts[name]
  if not layout then
    open.note("%s, which Moonfold has no type for, was kept as inert data", name)
    return pickle.inert { class = "torch.Tensor", dtype = name, shape = shape, entry = storage.entry }
  end
  if layout.widened then open.note("%s became %s, exactly", name, layout.widened) end
  return open.tensor(storage, {
    kind = layout.kind, width = layout.width, offset = offset, shape = shape, stride = stride, big_endian = open.big_endian,
  })
end

local function class_of(value) return pickle.is_inert(value) and value.class or nil end

-- ---- NumPy ----

local numpy_kinds = { f = "float", i = "signed", u = "unsigned", b = "bool" }
local formats = {
  f8 = "double", f4 = "float", i8 = "int64_t", i4 = "int32_t", i2 = "int16_t", i1 = "int8_t", u8 = "uint64_t", u4 = "uint32_t",
  u2 = "uint16_t", u1 = "uint8_t", b1 = "uint8_t",
}

local function numpy_dtype(args)
  return pickle.inert { class = "numpy.dtype", args = args, code = args[1], order = "<" }
end

local function numpy_dtype_state(dtype, state)
  if type(state) == "table" then dtype.order = state[2] end
  return dtype
end

local function numpy_layout(dtype)
  local code = pickle.is_inert(dtype) and dtype.class == "numpy.dtype" and dtype.code
  local kind, width = tostring(code):match "^([fiub])([1248])$"
  if not kind then return nil end
  return { kind = numpy_kinds[kind], width = tonumber(width), big_endian = dtype.order == ">" }
end

local function numpy_scalar(args)
  local dtype, bytes = args[1], args[2]
  local layout = numpy_layout(dtype)
  if not layout or type(bytes) ~= "string" or #bytes ~= layout.width or not formats[dtype.code] then
    return pickle.inert { class = "numpy.scalar", args = args }
  end
  if layout.big_endian then bytes = bytes:reverse() end
  local box = ffi.new(formats[dtype.code] .. "[1]")
  ffi.copy(box, bytes, #bytes)
  local value = box[0]
  if dtype.code == "b1" then return value ~= 0 end
  local number = tonumber(value)
  if number ~= number then return 0 / 0 end
  return (dtype.code:sub(1, 1) == "f" or math.abs(number) <= 2 ^ 53) and number or value
end

local function strides(shape, fortran)
  local stride, at = {}, 1
  for k = 1, #shape do
    local d = fortran and k or #shape + 1 - k
    stride[d] = at
    at = at * shape[d]
  end
  return stride
end

local function numpy_array(open, dtype, shape, fortran, bytes)
  local layout = numpy_layout(dtype)
  if not layout or type(bytes) ~= "string" then
    open.note "an array of NumPy that holds no plain numbers was kept as inert data"
    return pickle.inert { class = "numpy.ndarray", args = { dtype, shape, bytes } }
  end
  local count = 1
  for _, n in ipairs(numbers(open.path, "shape", shape)) do count = count * n end
  if count * layout.width ~= #bytes then fail("torch.load: %s: an array of NumPy does not have its size", open.path) end
  open.spend(#bytes)
  layout.shape, layout.stride = shape, strides(shape, fortran)
  return zip.decode(layout, bytes)
end

-- Protocol 2 has no bytes: they are text of which every character is one.
local function latin1(text)
  return (text:gsub("[\194\195][\128-\191]", function(c)
    return string.char((c:byte(1) - 194) * 64 + c:byte(2))
  end))
end

local function encode(open, args)
  if type(args[1]) == "string" and args[2] == "latin1" then
    open.spend(#args[1])
    return latin1(args[1])
  end
  return pickle.inert { class = "_codecs.encode", args = args }
end

-- ---- the list ----

local function container(make) return { make = make or function() return {} end, container = true } end
local function plain(make) return { make = make } end

local function copied(args)
  local list = args[1]
  return type(list) == "table" and list or json.array {}
end

--- The rules for one checkpoint.
-- @tparam table open `path`, `big_endian`, `storage(payload)` for references, `tensor(storage, layout)`, `note(text, ...)`,
--   `spend(bytes)`, which counts what is made of things that may be used any number of times
-- @treturn table as pickle.load takes them
function M.new(open)
  local rules = {
    ["torch._utils._rebuild_tensor"] = plain(function(a) return tensor(open, a[1], a[2], a[3], a[4]) end),
    ["torch._utils._rebuild_tensor_v2"] = plain(function(a) return tensor(open, a[1], a[2], a[3], a[4]) end),
    ["torch._utils._rebuild_tensor_v3"] = plain(function(a)
      return tensor(open, a[1], a[2], a[3], a[4], tostring(class_of(a[7])):gsub("^torch%.", ""))
    end),
    ["torch._utils._rebuild_parameter"] = plain(function(a) return a[1] end),
    ["torch._utils._rebuild_parameter_with_state"] = plain(function(a) return a[1] end),
    ["torch.Size"] = plain(copied),
    ["torch.device"] = plain(function(a) return a[2] and ("%s:%s"):format(tostring(a[1]), tostring(a[2])) or a[1] end),
    ["collections.OrderedDict"] = container(function(a)
      local t, pairs = {}, type(a[1]) == "table" and a[1] or {}            -- protocol 0 and 1 give the pairs as an argument
      open.spend(32 * #pairs)
      for _, pair in ipairs(pairs) do
        if type(pair) == "table" and type(pair[1]) == "string" then t[pair[1]] = pair[2] end
      end
      return t
    end),
    ["collections.defaultdict"] = container(),
    ["_codecs.encode"] = plain(function(a) return encode(open, a) end),
    ["numpy.dtype"] = { make = numpy_dtype, state = numpy_dtype_state },
    ["copyreg._reconstructor"] = plain(function(a)
      return pickle.inert { class = class_of(a[1]) or "an object without a class", args = json.array {} }
    end),
    persistent = open.storage,
  }
  rules["copyreg._reconstructor"].state = function(object, state)
    object.state = state
    return object
  end
  rules["copy_reg._reconstructor"] = rules["copyreg._reconstructor"]
  for _, module in ipairs { "builtins", "__builtin__" } do
    for _, name in ipairs { "list", "tuple", "set", "frozenset" } do rules[module .. "." .. name] = plain(copied) end
    rules[module .. ".dict"] = container()
    for _, name in ipairs { "bytes", "bytearray" } do
      rules[module .. "." .. name] = plain(function(a) return type(a[1]) == "string" and a[1] or "" end)
    end
  end
  for _, module in ipairs { "numpy.core", "numpy._core" } do
    rules[module .. ".multiarray.scalar"] = plain(numpy_scalar)
    rules[module .. ".multiarray._reconstruct"] = {
      make = function() return pickle.inert { class = "numpy.ndarray" } end,
      state = function(array, s)
        if type(s) ~= "table" then return array end
        return numpy_array(open, s[3], s[2], s[4] == true, s[5])
      end,
    }
    rules[module .. ".numeric._frombuffer"] = plain(function(a) return numpy_array(open, a[2], a[3], a[4] == "F", a[1]) end)
  end
  return rules
end

return M
