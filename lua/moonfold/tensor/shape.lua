--- Views and copies of other shapes, joining and splitting.
-- A view shares the values of its tensor; gradients flow through it.
-- @module moonfold.tensor.shape
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"

local C, out, again, check, adopt, is_tensor = F.C, F.out, F.again, F.check, F.adopt, F.is_tensor

local M, functions = {}, {}

local int_box = ffi.typeof("int[?]")
local list_box = ffi.typeof("const mf_tensor *[?]")

local function reshape(x, n, box)
  local status = C.mf_reshape(out, x, n, box)
  if status ~= 0 and again(status) then check(C.mf_reshape(out, x, n, box)) end
  return adopt(out[0])
end

local function size(x, axis) return tonumber(C.mf_tensor_size(x, axis)) end

-- An axis from 0 that exists.
local function position(name, x, axis)
  local n = C.mf_tensor_ndim(x)
  local zero = T.axis(name, axis)
  local real = zero < 0 and zero + n or zero
  if real < 0 or real >= n then fail("%s: axis %d does not exist, the tensor has %d axes", name, axis, n) end
  return real
end

--- The same values in another shape; a view where the lay-out allows it, else a copy.
-- @tparam number ... sizes, or one table of them; one may be -1
-- @treturn tensor
-- @usage local y = x:reshape(-1, 3)
function M.reshape(x, ...)
  if not is_tensor(x) then T.tensor_argument("reshape", 0, x) end
  local box, n = T.shape("reshape", ...)
  return reshape(x, n, box)
end

--- Another name of `reshape`.
-- @function view
M.view = M.reshape

--- The axes in another order: `x:permute(3, 1, 2)`.
-- @tparam number ... every axis once, or one table of them
-- @treturn tensor
function M.permute(x, first, ...)
  T.tensor_argument("permute", 0, x)
  local axes = type(first) == "table" and first or { first, ... }
  local n = C.mf_tensor_ndim(x)
  if #axes ~= n then fail("permute: the tensor has %d axes, got %d", n, #axes) end
  local box = int_box(n + 1)
  for i = 1, n do box[i - 1] = T.axis("permute", axes[i]) end
  local status = C.mf_permute(out, x, box)
  if status ~= 0 and again(status) then check(C.mf_permute(out, x, box)) end
  return adopt(out[0])
end

--- Two axes exchanged.
-- @tparam number a
-- @tparam number b
-- @treturn tensor
function M.transpose(x, a, b)
  T.tensor_argument("transpose", 0, x)
  a, b = position("transpose", x, a), position("transpose", x, b)
  local n = C.mf_tensor_ndim(x)
  local box = int_box(n)
  for i = 0, n - 1 do box[i] = i end
  box[a], box[b] = b, a
  local status = C.mf_permute(out, x, box)
  if status ~= 0 and again(status) then check(C.mf_permute(out, x, box)) end
  return adopt(out[0])
end

--- The transpose of a matrix.
-- @treturn tensor
function M.t(x)
  T.tensor_argument("t", 0, x)
  local n = C.mf_tensor_ndim(x)
  if n ~= 2 then fail("t: takes a matrix, the tensor has %d axes (transpose(a, b) swaps two)", n) end
  return M.transpose(x, 1, 2)
end

--- A part of an axis: `length` positions from `first` (from 1; negative from the end).
-- @tparam number axis
-- @tparam number first
-- @tparam number length
-- @treturn tensor
function M.narrow(x, axis, first, length)
  T.tensor_argument("narrow", 0, x)
  T.integer_argument("narrow", 2, first)
  T.integer_argument("narrow", 3, length)
  if first == 0 then fail("narrow: positions count from 1 (or from -1 at the end), got 0") end
  local at = position("narrow", x, axis)
  local start = first > 0 and first - 1 or size(x, at) + first
  local status = C.mf_narrow(out, x, at, start, length)
  if status ~= 0 and again(status) then check(C.mf_narrow(out, x, at, start, length)) end
  return adopt(out[0])
end

--- One position of an axis, which disappears.
-- @tparam number axis
-- @tparam number index from 1; negative from the end
-- @treturn tensor
function M.select(x, axis, index)
  T.tensor_argument("select", 0, x)
  T.integer_argument("select", 2, index)
  if index == 0 then fail("select: positions count from 1 (or from -1 at the end), got 0") end
  local at = position("select", x, axis)
  local start = index > 0 and index - 1 or size(x, at) + index
  local status = C.mf_select(out, x, at, start)
  if status ~= 0 and again(status) then check(C.mf_select(out, x, at, start)) end
  return adopt(out[0])
end

--- Axes of size 1 repeated without a copy; -1 leaves a size as it is, new axes come in front.
-- @tparam number ... sizes, or one table of them
-- @treturn tensor
function M.expand(x, ...)
  T.tensor_argument("expand", 0, x)
  local box, n = T.shape("expand", ...)
  local own = C.mf_tensor_ndim(x)
  for i = 1, own do
    local at = n - own + i - 1
    if at >= 0 and box[at] == -1 then box[at] = C.mf_tensor_size(x, i - 1) end
  end
  local status = C.mf_expand(out, x, n, box)
  if status ~= 0 and again(status) then check(C.mf_expand(out, x, n, box)) end
  return adopt(out[0])
end

--- A new axis of size 1 at a place: 1 is in front, -1 at the end.
-- @tparam number axis
-- @treturn tensor
function M.unsqueeze(x, axis)
  T.tensor_argument("unsqueeze", 0, x)
  local n = C.mf_tensor_ndim(x)
  local zero = T.axis("unsqueeze", axis)
  local at = zero < 0 and zero + n + 1 or zero
  if at < 0 or at > n then fail("unsqueeze: axis %d does not fit a tensor of %d axes", axis, n) end
  local shape = x:shape()
  table.insert(shape, at + 1, 1)
  local box, count = T.shape("unsqueeze", shape)
  return reshape(x, count, box)
end

--- Without an axis of size 1, or without all of them.
-- @tparam ?number axis
-- @treturn tensor
function M.squeeze(x, axis)
  T.tensor_argument("squeeze", 0, x)
  local shape, kept = x:shape(), {}
  local at = axis and position("squeeze", x, axis) + 1
  if at and shape[at] ~= 1 then fail("squeeze: axis %d has size %d, not 1", axis, shape[at]) end
  for i, n in ipairs(shape) do
    if n ~= 1 or (at and i ~= at) then kept[#kept + 1] = n end
  end
  local box, count = T.shape("squeeze", kept)
  return reshape(x, count, box)
end

--- The axes from first to last as one.
-- @tparam[opt=1] number first
-- @tparam[opt=-1] number last
-- @treturn tensor
function M.flatten(x, first, last)
  T.tensor_argument("flatten", 0, x)
  local shape = x:shape()
  if #shape == 0 then return x:reshape(1) end
  local a, b = position("flatten", x, first or 1) + 1, position("flatten", x, last or -1) + 1
  if a > b then fail("flatten: axis %d comes after axis %d", a, b) end
  local joined, product = {}, 1
  for i = a, b do product = product * shape[i] end
  for i, n in ipairs(shape) do
    if i == a then joined[#joined + 1] = product
    elseif i < a or i > b then joined[#joined + 1] = n end
  end
  local box, count = T.shape("flatten", joined)
  return reshape(x, count, box)
end

--- x itself in row-major order without gaps; a copy where it is not.
-- @treturn tensor
function M.contiguous(x)
  T.tensor_argument("contiguous", 0, x)
  if C.mf_tensor_contiguous(x) ~= 0 then return x end
  local status = C.mf_contiguous(out, x)
  if status ~= 0 and again(status) then check(C.mf_contiguous(out, x)) end
  return adopt(out[0])
end

-- One operator for all pieces: its backward fills one gradient instead of adding up a padded one for each.
local MOST_PIECES = 16
local piece_boxes, piece_sizes = ffi.new("mf_tensor *[16]"), ffi.new("int64_t[16]")

local function split_at_once(x, axis, sizes)
  local n, parts = #sizes, {}
  for i = 1, n do piece_sizes[i - 1] = sizes[i] end
  local status = C.mf_split(piece_boxes, x, axis, piece_sizes, n)
  if status ~= 0 and again(status) then check(C.mf_split(piece_boxes, x, axis, piece_sizes, n)) end
  for i = 1, n do parts[i] = adopt(piece_boxes[i - 1]) end
  return parts
end

local function split_by_narrow(x, axis, sizes)
  local parts, first = {}, 0
  for i, n in ipairs(sizes) do
    local status = C.mf_narrow(out, x, axis, first, n)
    if status ~= 0 and again(status) then check(C.mf_narrow(out, x, axis, first, n)) end
    parts[i] = adopt(out[0])
    first = first + n
  end
  return parts
end

--- Parts along an axis: views.
-- @tparam number|table sizes the size of each part (the last may be smaller), or a table of all sizes
-- @tparam[opt=1] number axis
-- @treturn table tensors
-- @usage local q, k = unpack(x:split({ 16, 16 }, 2))
function M.split(x, sizes, axis)
  T.tensor_argument("split", 0, x)
  axis = axis or 1
  local at = position("split", x, axis)
  local length = size(x, at)
  if type(sizes) == "number" then
    if sizes < 1 or sizes % 1 ~= 0 then fail("split: the size of a part must be a whole number above 0, got %s", sizes) end
    local step = sizes
    sizes = {}
    for first = 0, length - 1, step do sizes[#sizes + 1] = math.min(step, length - first) end
  elseif type(sizes) ~= "table" then
    T.bad_argument("split", 1, "a number or a table of numbers", sizes)
  end
  local total = 0
  for i, n in ipairs(sizes) do total = total + T.integer_argument("split", i, n) end
  if total ~= length then fail("split: the sizes add up to %d, axis %d has %d", total, axis, length) end
  return (#sizes >= 1 and #sizes <= MOST_PIECES and split_at_once or split_by_narrow)(x, at, sizes)
end

local function cat(list, n, axis)
  local box = list_box(n)
  for i = 1, n do box[i - 1] = list[i] end
  local status = C.mf_cat(out, box, n, axis)
  if status ~= 0 and again(status) then check(C.mf_cat(out, box, n, axis)) end
  return adopt(out[0])
end

local function check_list(name, list)
  if type(list) ~= "table" then T.bad_argument(name, 1, "a table of tensors", list) end
  local n = #list
  if n == 0 then fail("%s: the table of tensors is empty", name) end
  for i = 1, n do
    if not is_tensor(list[i]) then fail("%s: element %d must be a tensor, got %s", name, i, T.kind(list[i])) end
  end
  return n
end

--- Tensors one after the other along an axis that exists.
-- @tparam table list tensors
-- @tparam[opt=1] number axis
-- @treturn tensor
-- @usage local z = mf.cat({ x, y }, -1)
function functions.cat(list, axis)
  local n = check_list("cat", list)
  return cat(list, n, T.axis("cat", axis or 1))
end

--- Tensors of one shape along a new axis.
-- @tparam table list tensors
-- @tparam[opt=1] number axis where the new axis stands
-- @treturn tensor
function functions.stack(list, axis)
  local n = check_list("stack", list)
  axis = axis or 1
  local parts = {}
  for i = 1, n do parts[i] = M.unsqueeze(list[i], axis) end
  return cat(parts, n, T.axis("stack", axis))
end

--- A copy with its own values; gradients flow through it.
-- @treturn tensor
function M.clone(x)
  T.tensor_argument("clone", 0, x)
  -- Joining one tensor copies its bits and is recorded; a scalar needs an axis to be joined along.
  if C.mf_tensor_ndim(x) == 0 then return cat({ x:reshape(1) }, 1, 0):reshape({}) end
  return cat({ x }, 1, 0)
end

return { methods = M, functions = functions }
