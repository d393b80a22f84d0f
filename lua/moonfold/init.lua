--- Moonfold: SE(3) models of protein and RNA backbones.
--
--     local mf = require "moonfold"
--     local x = mf.randn(4, 3, { requires_grad = true })
--     (x * x):sum():backward()
--     print(x:grad():show())
--
-- Axes and positions written in Lua count from 1, or from -1 at the end; tensors of indices hold positions from 0.
-- @module moonfold
local F = require "moonfold.ffi"

local mf = {}

local function take(functions)
  for name, f in pairs(functions) do mf[name] = f end
end

local random = require "moonfold.random"
local make = require "moonfold.make"

for _, name in ipairs { "empty", "zeros", "ones", "full", "arange", "eye", "tensor", "from_bytes", "randn", "rand" } do
  mf[name] = make[name]
end
take(require("moonfold.tensor").functions)
take(require("moonfold.packing").functions)
take(random.functions)
take(require "moonfold.device")
take(require "moonfold.archive")
take(require "moonfold.graph")
take(require "moonfold.profile")
mf.random = random.random
mf.geometry = require "moonfold.geometry"
mf.optim = require "moonfold.optim"
mf.options = require "moonfold.options"

-- Loaded when first named, so that a script pays for what it uses.
local later = {
  nn = true, models = true, flow = true, data = true, metrics = true, atoms = true, structure = true, sample = true,
  trainer = true, weights = true, help = true, chemistry = true, cif = true, files = true,
  torch = true, numpy = true, convert = true, motif = true, picture = true,
}

setmetatable(mf, {
  __pairs = function() return pairs(later) end,  -- for completion: names that are still to be loaded
  __index = function(t, name)
    if not later[name] then return nil end
    local module = require("moonfold." .. name)
    rawset(t, name, module)
    return module
  end,
})

package.loaded["moonfold"] = mf
F.anchor()

return mf
