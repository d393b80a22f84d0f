--- Activations as plain functions, for `nn.sequential` and by name in options.
-- @module moonfold.nn.activations
-- @usage local y = nn.relu(x)
local fail = require "moonfold.fail"

local M = {}

for _, name in ipairs { "relu", "gelu", "silu", "tanh", "sigmoid", "softplus" } do
  M[name] = function(x) return x[name](x) end
end

--- The activation of a name; a function passes unchanged.
-- @tparam string|function what
-- @treturn function
function M.named(what)
  if type(what) == "function" then return what end
  local f = what ~= "named" and M[what]
  if not f then fail("unknown activation '%s' (known: gelu, relu, sigmoid, silu, softplus, tanh)", tostring(what)) end
  return f
end

return M
