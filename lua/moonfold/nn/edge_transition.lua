--- Pairs updated from nodes between blocks; z is replaced, there is no residual around it.
--
--     G(e) = LN( Lin_final( relu(Lin_2(relu(Lin_0(e)))) + e ) ),      n = Lin_initial(s), N' = node / dilation channels
--     dense     z_ij <- G( z_ij | n_i | n_j )
--     factors   z^f_i,rho <- G( (z^f_i,rho | beta_i[f, rho]) / sqrt(2) ),      beta = Lin_edge_bias(n) viewed [2, r, 2N']
--
-- A fresh one of dense pairs returns 0, and so does one of factors with factor_init = "published" (nn.initial says why that is not
-- the default). The caller masks.
-- @module moonfold.nn.edge_transition
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local initial = require "moonfold.nn.initial"
local linear = require "moonfold.nn.linear"
local layer_norm = require "moonfold.nn.layer_norm"
local sequential = require "moonfold.nn.sequential"
local activations = require "moonfold.nn.activations"

local function build(self, o)
  local narrow, rng = math.floor(o.node / o.dilation), o.rng
  local wide = 2 * narrow + o.edge
  self._narrow = narrow
  self.initial_embed = linear { input = o.node, output = narrow, init = "relu", rng = rng }
  if not o.dense then
    self.edge_bias_linear = linear { input = narrow, output = 4 * o.rank * narrow, init = "final", rng = rng }
  end
  self.trunk = sequential {
    linear { input = wide, output = wide, init = "relu", rng = rng }, activations.relu,
    linear { input = wide, output = wide, init = "relu", rng = rng }, activations.relu,
  }
  local begins = initial.alike(o.factor_init) and not o.dense and "default" or "final"
  self.final_layer = linear { input = wide, output = o.output or o.edge, init = begins, rng = rng }
  self.layer_norm = layer_norm { dim = o.output or o.edge }
end

local function tail(self, e)
  return self.layer_norm(self.final_layer(self.trunk(e) + e))
end

local function forward(self, s, z, packing)
  local o = self._options
  local n = self.initial_embed(s)
  if o.dense then
    if not packing then fail("a dense edge transition needs the packing: layer(s, z, packing)") end
    local device = s:device()
    return tail(self, mf.cat({
      z, n:index_select(1, packing:pair_row(device)), n:index_select(1, packing:pair_column(device)),
    }, 2))
  end
  if z:ndim() ~= 4 or z:size(2) ~= 2 or z:size(3) ~= o.rank then
    fail("factors (%s), expected (N, 2, %d, %d)", table.concat(z:shape(), ", "), o.rank, o.edge)
  end
  local beta = self.edge_bias_linear(n):reshape(z:size(1), 2, o.rank, 2 * self._narrow)
  return tail(self, mf.cat({ z, beta }, 4):affine(math.sqrt(0.5), 0))
end

--- An edge transition; called with (s, z) for factors (N, 2, r, edge), with (s, z, packing) for dense pairs (P, edge).
-- @tparam table o `node` (256), `edge` (128), `output` (edge), `rank` (2), `dense` (false), `dilation` (2),
--   `factor_init` ("alike", or "published"), `rng`
-- @usage z = nn.edge_transition { node = 256, edge = 128, rank = 2 }(s, z)
return module.define("edge_transition", {
  node = 256, edge = 128, output = module.OPTIONAL, rank = 2, dense = false, dilation = 2, factor_init = "alike",
  rng = module.OPTIONAL,
}, build, forward, { describe = function(self)
  return self._options.dense and "dense" or ("rank %d"):format(self._options.rank)
end })
