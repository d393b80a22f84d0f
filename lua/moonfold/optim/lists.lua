--- Lists of parameters with names, and arrays of their pointers for the core.
-- @module moonfold.optim.lists
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"
local make = require "moonfold.make"
local options = require "moonfold.options"

local is_tensor = F.is_tensor
local tensors_box = ffi.typeof("mf_tensor *[?]")

local M = {}

--- A tensor of zeros like x, which no scope frees.
function M.zeros_like(x)
  return make.zeros(x:shape(), { dtype = x:dtype(), device = x:device() }):keep()
end

--- Tensors with the names that their state is stored under: an array counts, a table of names is taken in sorted order.
function M.named(name, params)
  if type(params) ~= "table" then T.bad_argument(name, 1, "a table of tensors", params) end
  local list = {}
  for _, key in ipairs(options.sorted_keys(params)) do
    local x = params[key]
    if not is_tensor(x) then fail("%s: parameter '%s' must be a tensor, got %s", name, tostring(key), T.kind(x)) end
    list[#list + 1] = { name = tostring(key), tensor = x, device = x:device() }
  end
  return list
end

--- Pointers to one tensor of each item, in a box that is used again; what they point to is held by the entries and items.
function M.pointers(boxes, key, items, tensor_of)
  if not boxes[key] or boxes[key].room < #items then boxes[key] = { room = #items, box = tensors_box(#items) } end
  local box = boxes[key].box
  for i = 1, #items do box[i - 1] = tensor_of(items[i]) end
  return box
end
return M
