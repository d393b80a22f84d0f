--- Layers and plain functions, one after the other; item n is named n - 1 ("0.weight", "2.weight").
-- @module moonfold.nn.sequential
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local activations = require "moonfold.nn.activations"

local function callable(f)
  return type(f) == "function" or module.is_module(f) or (getmetatable(f) or {}).__call ~= nil
end

--- A chain of layers.
-- @tparam table list layers or functions of one tensor
-- @usage local net = nn.sequential { nn.linear { input = 8, output = 8 }, nn.relu, nn.layer_norm { dim = 8 } }
return module.define("sequential", nil,
  function(self, list)
    for i, item in ipairs(list) do
      if not callable(item) then fail("sequential: item %d is a %s, expected a layer or a function", i, type(item)) end
      self[i] = item
    end
    if #self == 0 then fail("sequential: expected at least one layer") end
  end,
  function(self, x)
    local i = 1
    while self[i] do
      local item = self[i]
      if self[i + 1] == activations.relu and module.is_module(item) and item.activates and item.activates.relu then
        x = item(x, "relu")
        i = i + 2
      else
        x = item(x)
        i = i + 1
      end
    end
    return x
  end)
