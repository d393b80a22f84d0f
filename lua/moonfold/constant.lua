--- Tables of numbers as tensors, uploaded once for each type and device.
--
-- What a step uploads at every call cannot be captured in a graph and costs a transfer; a table that never changes need not.
-- The table itself is the key, so keep it where the module is loaded, not inside the function.
-- @module moonfold.constant
local make = require "moonfold.make"

local M = {}

local made = setmetatable({}, { __mode = "k" })   -- table -> "dtype device" -> tensor

--- Frees them all; they are made again when they are asked for.
function M.forget() made = setmetatable({}, { __mode = "k" }) end

--- The tensor of a table. Do not write into it.
-- @tparam table values numbers, nested, never changed
-- @tparam table o `dtype` ("float32"), `device` ("cpu")
-- @treturn tensor
-- @usage local fixed = constant(TEMPLATE, { device = x:device() })   -- the module itself is this function
function M.of(values, o)
  local key = (o.dtype or "float32") .. " " .. (o.device or "cpu")
  local of = made[values]
  if not of then
    of = {}
    made[values] = of
  end
  if not of[key] or of[key]:is_released() then of[key] = make.tensor(values, { dtype = o.dtype, device = o.device }):keep() end
  return of[key]
end

return setmetatable(M, { __call = function(_, ...) return M.of(...) end })
