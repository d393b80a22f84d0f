--- s <- LN( s + Lin_3(relu(Lin_2(relu(Lin_1(s))))) ); a fresh one is a layer norm, for Lin_3 begins at 0.
-- @module moonfold.nn.node_transition
local module = require "moonfold.nn.module"
local linear = require "moonfold.nn.linear"
local layer_norm = require "moonfold.nn.layer_norm"

--- The transition of nodes after attention.
-- @tparam table o `dim`, `rng`
-- @usage s = nn.node_transition { dim = 256 }(s)
return module.define("node_transition", { dim = module.REQUIRED, rng = module.OPTIONAL },
  function(self, o)
    self.linear_1 = linear { input = o.dim, output = o.dim, init = "relu", rng = o.rng }
    self.linear_2 = linear { input = o.dim, output = o.dim, init = "relu", rng = o.rng }
    self.linear_3 = linear { input = o.dim, output = o.dim, init = "final", rng = o.rng }
    self.ln = layer_norm { dim = o.dim }
  end,
  function(self, s)
    return self.ln(s, self.linear_3(self.linear_2(self.linear_1(s, "relu"), "relu")))
  end)
