-- The model of examples/embed/main.c: two functions of tensors, called from C.
local mf = require "moonfold"

local packing = mf.packing { 8 }
local rng = mf.rng(4)
local attend = mf.nn.ipa { dim = 16, edge = 8, heads = 2, hidden = 8, init = "default", rng = rng }
local R, z = mf.random.rotations(8, { rng = rng }), mf.randn(8, 2, 2, 8, { rng = rng })

return {
  -- Features (8, 16) of eight residues at the positions x (8, 3) in nm.
  features = function(x)
    return attend { s = mf.ones(8, 16), frames = { R = R, t = x }, pair = z, packing = packing }
  end,
  -- A tensor for C to write into.
  positions = function() return mf.zeros(8, 3) end,
}
