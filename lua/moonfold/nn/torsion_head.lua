--- The eight torsions of a nucleotide, from the final and the initial node embedding, as (sin, cos).
--
--     y = Lin_in(relu(s)) + Lin_initial(relu(s0));   y <- y + Lin_2(relu(Lin_1(relu(y)))), once a block
--     o = Lin_out(relu(y)) viewed [angles, 2];       out = o / sqrt(max(|o|^2, 1e-12)) per angle
-- @module moonfold.nn.torsion_head
local module = require "moonfold.nn.module"
local linear = require "moonfold.nn.linear"

local block = module.define("torsion_block", { dim = module.REQUIRED, rng = module.OPTIONAL },
  function(self, o)
    self.linear_1 = linear { input = o.dim, output = o.dim, init = "relu", rng = o.rng }
    self.linear_2 = linear { input = o.dim, output = o.dim, init = "final", rng = o.rng }
  end,
  function(self, y) return y + self.linear_2(self.linear_1(y:relu(), "relu")) end)

--- A torsion head; called with (s, s0), both (N, dim), gives (N, angles, 2).
-- @tparam table o `dim`, `hidden` (128), `angles` (8), `blocks` (2), `rng`
-- @usage local torsions = nn.torsion_head { dim = 256 }(s, s0)
return module.define("torsion_head",
  { dim = module.REQUIRED, hidden = 128, angles = 8, blocks = 2, rng = module.OPTIONAL },
  function(self, o)
    self.linear_in = linear { input = o.dim, output = o.hidden, init = "default", rng = o.rng }
    self.linear_initial = linear { input = o.dim, output = o.hidden, init = "default", rng = o.rng }
    self.layers = {}
    for i = 1, o.blocks do self.layers[i] = block { dim = o.hidden, rng = o.rng } end
    self.linear_out = linear { input = o.hidden, output = 2 * o.angles, init = "default", rng = o.rng }
  end,
  function(self, s, s0)
    local y = self.linear_in(s:relu()) + self.linear_initial(s0:relu())
    for _, item in ipairs(self.layers) do y = item(y) end
    local out = self.linear_out(y:relu()):reshape(s:size(1), self._options.angles, 2)
    return out * out:square():sum(3, true):clamp(1e-12, nil):rsqrt()
  end)
