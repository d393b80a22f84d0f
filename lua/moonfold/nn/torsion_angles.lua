--- Torsions of a residue from its node, as (sin, cos): the psi of protein backbones.
--
--     y = Lin_final( s + Lin_2(relu(Lin_1(s))) );   out = y / sqrt(max(|y|^2, 1e-8))
--
-- The norm is over all angles together. linear_3 is never used: it stands in the checkpoints of the peer, frozen. Fresh weights
-- give (0, 0), which is no angle yet.
-- @module moonfold.nn.torsion_angles
local module = require "moonfold.nn.module"
local linear = require "moonfold.nn.linear"

--- A torsion head; called with s (N, dim), gives (N, angles, 2).
-- @tparam table o `dim`, `angles` (1), `rng`
-- @usage local psi = nn.torsion_angles { dim = 256 }(s)
return module.define("torsion_angles", { dim = module.REQUIRED, angles = 1, rng = module.OPTIONAL },
  function(self, o)
    self.linear_1 = linear { input = o.dim, output = o.dim, init = "relu", rng = o.rng }
    self.linear_2 = linear { input = o.dim, output = o.dim, init = "relu", rng = o.rng }
    self.linear_3 = module.idle(linear { input = o.dim, output = o.dim, init = "final", rng = o.rng })
    self.linear_final = linear { input = o.dim, output = 2 * o.angles, init = "final", rng = o.rng }
  end,
  function(self, s)
    local y = self.linear_final(s + self.linear_2(self.linear_1(s, "relu")))
    local square = y:square():sum(2, true):clamp(1e-8, nil)
    return (y * square:rsqrt()):reshape(s:size(1), self._options.angles, 2)
  end)
