--- Zeroes elements at a rate and scales the rest by 1 / (1 - rate), in training mode only.
-- @module moonfold.nn.dropout
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"

--- A dropout layer; `model:eval()` turns it off.
-- @tparam table o `rate` (0.1), `rng` (the context's own by default)
-- @usage local drop = nn.dropout { rate = 0.2 }
return module.define("dropout", { rate = 0.1, rng = module.OPTIONAL },
  function(self, o)
    if o.rate < 0 or o.rate >= 1 then fail("dropout: rate is %g, expected 0 <= rate < 1", o.rate) end
    self._rate, self._rng = o.rate, o.rng
  end,
  function(self, x)
    if not self._training or self._rate == 0 then return x end
    return x:dropout(self._rate, self._rng)
  end,
  { describe = function(self) return tostring(self._rate) end })
