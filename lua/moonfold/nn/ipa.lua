--- Flash invariant point attention: scalar, point and pair-factor terms, with the parameter names of the public code.
--
--     a_ij = sqrt(1/(3c)) q_i . k_j - gamma/2 sum_p |T_i q_p - T_j k_p|^2 + sum_rho b1_i,rho b2_j,rho      alpha = softmax_j(a)
--     out_i = Lin_out( o | o_x | o_y | o_z | norms | pair )
--
-- Parameters: head_weights, linear_q, linear_kv, linear_q_points, linear_kv_points, linear_b, down_z, linear_out. With rank = 0
-- there is no pair term and linear_b, down_z do not exist.
--
-- Between its linear layers it is one operator (mf.flash_ipa). layout = "published" is assembled from terms instead, by
-- nn.lifted_attention, as would be any attention with terms of your own.
-- @module moonfold.nn.ipa
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local tree = require "moonfold.nn.tree"
local linear = require "moonfold.nn.linear"
local lift = require "moonfold.nn.lift"
local lifted_attention = require "moonfold.nn.lifted_attention"
local scalar = require "moonfold.nn.term.scalar"
local points = require "moonfold.nn.term.points"
local pair = require "moonfold.nn.term.pair"
local mask_of = require "moonfold.nn.mask"

local function forward(self, inputs)
  local o = self._options
  if o.layout ~= "3p" then return lifted_attention.methods.forward(self, inputs) end
  lift.check(inputs)
  local precision = lift.precision(o.precision)
  local frames = inputs.frames or fail("points: inputs have no frames ({ R =, t = })")
  local s, at = inputs.s, self.points
  local q, kv = self.scalar:project(inputs, o.heads)
  local pair_bias, pair_value
  if self.pair then pair_bias, pair_value = self.pair:project(inputs) end
  return self.linear_out(mf.flash_ipa {
    q = q, kv = kv, q_points = at.linear_q_points(s), kv_points = at.linear_kv_points(s),
    pair_bias = pair_bias, pair_value = pair_value, head_weights = at.head_weights, R = frames.R, t = frames.t,
    mask = mask_of.bool(inputs.mask), packing = inputs.packing, heads = o.heads, gauge = o.gauge,
    precision = precision == "split" and o.split_type or precision, split = precision == "split",
  })
end

--- A FlashIPA layer, from s (N, dim) to (N, dim); no residual inside.
-- @tparam table o `dim` (256) node channels, `edge` (128) channels of the factors, `rank` (2, 0 for none), `heads` (8),
--   `hidden` (128) scalar channels a head, `query_points` (8), `value_points` (12), `gauge` ("canonical"), `layout` ("3p"),
--   `rotary` (false: true turns q and k by the residue's index, see nn.rotary), `precision` (the global one), `split_type`
--   ("fp16"), `init` ("final") of linear_out, `rng`
-- @usage local attend = nn.ipa { dim = 256, heads = 8 }
--        s = s + attend { s = s, frames = { R = R, t = t }, pair = z, packing = packing }
return module.define("ipa", {
  dim = 256, edge = 128, rank = 2, heads = 8, hidden = 128, query_points = 8, value_points = 12, gauge = "canonical",
  layout = "3p", rotary = false, precision = module.OPTIONAL, split_type = "fp16", init = "final", rng = module.OPTIONAL,
}, function(self, o)
  lift.check_gauge(o.gauge)
  self.scalar = tree.inline(scalar { dim = o.hidden, rotary = o.rotary })
  self.points = tree.inline(points { query = o.query_points, value = o.value_points, layout = o.layout })
  self._terms = { self.scalar, self.points }
  if o.rank > 0 then
    self.pair = tree.inline(pair { dim = o.edge, rank = o.rank })
    self._terms[3] = self.pair
  end
  local features = 0
  for _, term in ipairs(self._terms) do
    features = features + term:attach { node = o.dim, heads = o.heads, rng = o.rng }
  end
  self.linear_out = linear { input = features, output = o.dim, init = o.init, rng = o.rng }
end, forward, {
  describe = function(self)
    local o = self._options
    return ("%d, %d heads of %d, %d + %d points, rank %d"):format(o.dim, o.heads, o.hidden, o.query_points, o.value_points, o.rank)
  end,
})
