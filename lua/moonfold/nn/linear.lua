--- y = x W' + b over the last axis; parameters `weight` (output, input), `bias` (output).
-- @module moonfold.nn.linear
local module = require "moonfold.nn.module"
local initial = require "moonfold.nn.initial"

--- A linear layer.
-- @tparam table o `input`, `output`, `bias` (true), `init` ("torch", see `nn.initial`), `rng`
-- @usage local layer = nn.linear { input = 256, output = 128 }
--        y = layer(x)
--        z = layer(x, "relu")        -- the same as layer(x):relu(), in one kernel
return module.define("linear",
  { input = module.REQUIRED, output = module.REQUIRED, bias = true, init = "torch", rng = module.OPTIONAL },
  function(self, o)
    local size = { o.output, o.input }
    self.weight = initial.weight(o.init, size, o.rng)
    if o.bias then self.bias = initial.bias(o.init, size, o.rng) end
  end,
  function(self, x, activation) return x:linear(self.weight, self.bias, activation) end,
  { activates = { relu = true },        -- what forward takes as its second argument
    describe = function(self) return self.weight:size(2) .. " -> " .. self.weight:size(1) end })
