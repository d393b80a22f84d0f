--- y = (x - mean) / sqrt(var + eps) * weight + bias over the last axis, biased variance; `weight` 1, `bias` 0.
--
-- Called with (x, b), the norm of x + b, and with (x, b, mask), of x + mask b, both without making that sum.
-- @module moonfold.nn.layer_norm
local mf = require "moonfold"
local module = require "moonfold.nn.module"

--- A layer normalisation.
-- @tparam table o `dim`, `eps` (1e-5)
-- @usage local norm = nn.layer_norm { dim = 256 }
return module.define("layer_norm", { dim = module.REQUIRED, eps = 1e-5 },
  function(self, o)
    self.weight = module.parameter(mf.ones(o.dim))
    self.bias = module.parameter(mf.zeros(o.dim))
    self._eps = o.eps
  end,
  function(self, x, b, mask)
    if b then return x:add_layer_norm(b, self.weight, self.bias, self._eps, mask) end
    return x:layer_norm(self.weight, self.bias, self._eps)
  end,
  { describe = function(self) return tostring(self.weight:size(1)) end })
