--- Packed sequences: a batch is one residue axis, and a packing says where each sequence begins.
-- @module moonfold.packing
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"
local make = require "moonfold.make"
local arith = require "moonfold.tensor.arith"

local C, ctx, out, again, check, adopt, is_tensor = F.C, F.ctx, F.out, F.again, F.check, F.adopt, F.is_tensor

local methods, functions = {}, {}

local packing_box = ffi.new("mf_packing *[1]")
local lengths_box = ffi.typeof("int64_t[?]")

--- A packing of sequences of the given lengths.
-- @tparam table lengths
-- @treturn packing
-- @usage local p = mf.packing { 50, 60 }
function functions.packing(lengths)
  if type(lengths) ~= "table" then T.bad_argument("packing", 1, "a table of lengths", lengths) end
  local n = #lengths
  local box = lengths_box(n + 1)
  for i = 1, n do
    local length = lengths[i]
    if type(length) ~= "number" or length % 1 ~= 0 then
      fail("packing: length %d must be a whole number, got %s", i, type(length) == "number" and length or T.kind(length))
    end
    box[i - 1] = length
  end
  local status = C.mf_packing_create(packing_box, ctx, box, n)
  if status ~= 0 and again(status) then check(C.mf_packing_create(packing_box, ctx, box, n)) end
  return F.adopt_packing(packing_box[0])
end

--- How many sequences.
-- @treturn number
function methods.count(p) return tonumber(C.mf_packing_count(p)) end

--- How many residues in all.
-- @treturn number
function methods.total(p) return tonumber(C.mf_packing_total(p)) end

--- The sum of the squared lengths.
-- @treturn number
function methods.pairs(p) return tonumber(C.mf_packing_pairs(p)) end

--- The longest length, 0 without sequences.
-- @treturn number
function methods.longest(p) return tonumber(C.mf_packing_longest(p)) end

--- The first residue of sequence i, counted from 0; i counts from 1, and count + 1 gives the total.
-- @tparam number i
-- @treturn number
function methods.offset(p, i)
  T.integer_argument("offset", 1, i)
  local n = methods.count(p)
  if i < 1 or i > n + 1 then fail("offset: sequence %d does not exist, the packing has %d", i, n) end
  return tonumber(C.mf_packing_offset(p, i - 1))
end

--- The lengths as a table.
-- @treturn table
function methods.lengths(p)
  local lengths, n = {}, methods.count(p)
  for i = 1, n do lengths[i] = tonumber(C.mf_packing_offset(p, i) - C.mf_packing_offset(p, i - 1)) end
  return lengths
end

local function tensor_of(name, what)
  return function(p, device)
    local code = device and T.device(name, device) or 0
    local status = C.mf_packing_tensor(out, p, code, what)
    if status ~= 0 and again(status) then check(C.mf_packing_tensor(out, p, code, what)) end
    return adopt(out[0])
  end
end

--- First residue of each sequence, and the total: int32 (n + 1).
-- @function offsets
-- @tparam[opt="cpu"] string device
-- @treturn tensor
methods.offsets = tensor_of("offsets", C.MF_PACK_OFFSETS)

--- The sequence of each residue, from 0: int32 (N).
-- @function sequence
-- @tparam[opt="cpu"] string device
-- @treturn tensor
methods.sequence = tensor_of("sequence", C.MF_PACK_SEQUENCE)

--- The position of each residue in its sequence, from 0: int32 (N).
-- @function position
-- @tparam[opt="cpu"] string device
-- @treturn tensor
methods.position = tensor_of("position", C.MF_PACK_POSITION)

--- Residue i of each pair (i, j), from 0 over the whole pack: int32 (pairs).
-- @function pair_row
-- @tparam[opt="cpu"] string device
-- @treturn tensor
methods.pair_row = tensor_of("pair_row", C.MF_PACK_PAIR_ROW)

--- Residue j of each pair (i, j), from 0 over the whole pack: int32 (pairs).
-- @function pair_column
-- @tparam[opt="cpu"] string device
-- @treturn tensor
methods.pair_column = tensor_of("pair_column", C.MF_PACK_PAIR_COLUMN)

--- j - i of each pair: int32 (pairs).
-- @function pair_offset
-- @tparam[opt="cpu"] string device
-- @treturn tensor
methods.pair_offset = tensor_of("pair_offset", C.MF_PACK_PAIR_OFFSET)

F.metatype("mf_packing", {
  __index = methods,
  __tostring = function(p)
    return ("packing of %d sequences, %d residues, longest %d"):format(methods.count(p), methods.total(p), methods.longest(p))
  end,
})

--- The packed tensor (N, ...) as a padded one.
-- @tparam tensor x
-- @tparam packing packing
-- @tparam[opt=0] number value of the padding
-- @treturn tensor (sequences, longest, ...)
-- @treturn tensor bool mask (sequences, longest), true where there is a residue
function functions.pad(x, packing, value)
  T.tensor_argument("pad", 1, x)
  T.packing_argument("pad", 2, packing)
  value = T.number_argument("pad", 3, value, 0)
  local total, n, longest = packing:total(), packing:count(), packing:longest()
  local shape = x:shape()
  if shape[1] ~= total then
    fail("pad: the tensor has %s rows, the packing has %d residues", tostring(shape[1] or "no"), total)
  end
  local padded, spread = { n, longest }, { n, longest }
  for i = 2, #shape do padded[i + 1], spread[i + 1] = shape[i], 1 end
  local positions, real = ffi.new("int32_t[?]", n * longest + 1), ffi.new("uint8_t[?]", n * longest + 1)
  for i, length in ipairs(packing:lengths()) do
    local first = packing:offset(i)
    for j = 0, length - 1 do
      positions[(i - 1) * longest + j] = first + j
      real[(i - 1) * longest + j] = 1
    end
  end
  local device = x:device()
  local mask = make.from_bytes(ffi.string(real, n * longest), { n, longest }, { dtype = "bool", device = device })
  if total == 0 then
    return make.full(padded, value, { dtype = x:dtype(), device = device }), mask
  end
  local index = make.from_bytes(ffi.string(positions, 4 * n * longest), { n * longest }, { dtype = "int32", device = device })
  local rows = x:index_select(1, index):reshape(padded)
  return arith.methods.where(mask:reshape(spread), rows, value), mask
end

--- A padded tensor (sequences, longest, ...) as a packed one.
-- @tparam tensor x
-- @tparam table|tensor lengths a table of lengths, or a bool mask (sequences, longest)
-- @treturn tensor (N, ...)
-- @treturn packing
function functions.unpad(x, lengths)
  T.tensor_argument("unpad", 1, x)
  local shape = x:shape()
  if #shape < 2 then fail("unpad: takes (sequences, longest, ...), the tensor has %d axes", #shape) end
  local n, longest = shape[1], shape[2]
  local chosen, counts = {}, {}
  if is_tensor(lengths) then
    local wanted = lengths:shape()
    if #wanted ~= 2 or wanted[1] ~= n or wanted[2] ~= longest then
      fail("unpad: the mask (%s) must be (%d, %d)", table.concat(wanted, ", "), n, longest)
    end
    local real = lengths:bool():values()
    for i = 1, n do
      counts[i] = 0
      for j = 1, longest do
        local at = (i - 1) * longest + j - 1
        if real[at + 1] then
          chosen[#chosen + 1] = at
          counts[i] = counts[i] + 1
        end
      end
    end
  elseif type(lengths) == "table" then
    if #lengths ~= n then fail("unpad: %d lengths for %d sequences", #lengths, n) end
    for i, length in ipairs(lengths) do
      T.integer_argument("unpad", 2, length)
      if length < 0 or length > longest then
        fail("unpad: length %d is %d, the padded sequences have %d", i, length, longest)
      end
      counts[i] = length
      for j = 0, length - 1 do chosen[#chosen + 1] = (i - 1) * longest + j end
    end
  else
    T.bad_argument("unpad", 2, "a table of lengths or a mask", lengths)
  end
  local flat = { n * longest }
  for i = 3, #shape do flat[i - 1] = shape[i] end
  local index = make.tensor(chosen, { dtype = "int32", device = x:device() })
  return x:reshape(flat):index_select(1, index), functions.packing(counts)
end

return { functions = functions, methods = methods }
