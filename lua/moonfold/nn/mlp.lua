--- A stack of linear layers with an activation between: Lin_2n(... act(Lin_2(act(Lin_0(x))))).
--
-- It is a `sequential`, so its parameters are named 0, 2, 4, ... (and 5 for the norm of a three-layer one).
-- @module moonfold.nn.mlp
local module = require "moonfold.nn.module"
local options = require "moonfold.options"
local activations = require "moonfold.nn.activations"
local linear = require "moonfold.nn.linear"
local layer_norm = require "moonfold.nn.layer_norm"
local sequential = require "moonfold.nn.sequential"

local defaults = {
  input = module.REQUIRED, output = module.REQUIRED, hidden = module.OPTIONAL, layers = 3, activation = module.OPTIONAL,
  norm = false, init = "torch", last = module.OPTIONAL, rng = module.OPTIONAL,
}

--- A multi-layer perceptron.
-- @tparam table o `input`, `output`, `hidden` (output), `layers` (3), `activation` ("relu", or a function),
--   `norm` (false: true adds a layer norm at the end), `init` ("torch"), `last` (initial values of the last layer), `rng`
-- @usage local net = nn.mlp { input = 236, output = 128, norm = true }
return setmetatable({ name = "mlp", defaults = defaults }, {
  __call = function(_, o)
    o = options("mlp", defaults, o)
    local hidden, activation, list = o.hidden or o.output, activations.named(o.activation or "relu"), {}
    for i = 1, o.layers do
      local is_last = i == o.layers
      list[#list + 1] = linear {
        input = i == 1 and o.input or hidden, output = is_last and o.output or hidden,
        init = is_last and o.last or o.init, rng = o.rng,
      }
      if not is_last then list[#list + 1] = activation end
    end
    if o.norm then list[#list + 1] = layer_norm { dim = o.output } end
    return sequential(list)
  end,
})
