--- The invariant point attention of AlphaFold 2 over dense pairs z (P, edge): quadratic, kept as the baseline.
--
--     a_ij = sqrt(1/(3c)) q_i . k_j + pair_scale Lin_b(z_ij) - gamma/2 sum_p |T_i q_p - T_j k_p|^2
--     out_i = Lin_out( o | o_x | o_y | o_z | norms | sum_j alpha_ij Lin_down(z_ij) )
--
-- P runs over the ordered pairs of each sequence, i outermost (`packing:pair_row()`). pair_scale is sqrt(1/3); the
-- factorised layer (`nn.ipa`) has no such factor in the public code, so the two differ by it on the same pair bias.
-- Names and shapes of parameters are those of `nn.ipa`.
-- @module moonfold.nn.dense_ipa
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local tree = require "moonfold.nn.tree"
local linear = require "moonfold.nn.linear"
local lift = require "moonfold.nn.lift"
local scalar = require "moonfold.nn.term.scalar"
local points = require "moonfold.nn.term.points"

local function forward(self, inputs)
  local o = self._options
  local context = lift.context(o, inputs)
  -- The dense kernel is float32: rounding the columns would only add error.
  context.precision = "exact"
  local z = inputs.pair or fail("inputs have no pairs (P, %d)", o.edge)
  local q, k, v, bias, widths = lift.gather(self._terms, inputs, context)
  local out, pair_out = mf.pair_attention(q, k, v, bias, self.linear_b(z):affine(o.pair_scale, 0), self.down_z(z), context.packing)
  local features = lift.hand_back(self._terms, out, widths, inputs, context)
  features[#features + 1] = pair_out:reshape(pair_out:size(1), -1)
  return self.linear_out(mf.cat(features, 2))
end

--- An IPA layer with dense pairs, from s (N, dim) to (N, dim).
-- @tparam table o `dim` (256), `edge` (128) channels of z, `heads` (8), `hidden` (128), `query_points` (8), `value_points`
--   (12), `pair_scale` (sqrt(1/3)), `gauge` ("canonical"), `rotary` (false), `init` ("final") of linear_out, `rng`
-- @usage local attend = nn.dense_ipa { dim = 256, heads = 8 }
--        s = s + attend { s = s, frames = { R = R, t = t }, pair = z, packing = packing }
return module.define("dense_ipa", {
  dim = 256, edge = 128, heads = 8, hidden = 128, query_points = 8, value_points = 12, pair_scale = math.sqrt(1 / 3),
  gauge = "canonical", rotary = false, init = "final", rng = module.OPTIONAL,
}, function(self, o)
  lift.check_gauge(o.gauge)
  local down = math.floor(o.edge / 4)
  self.scalar = tree.inline(scalar { dim = o.hidden, rotary = o.rotary })
  self.points = tree.inline(points { query = o.query_points, value = o.value_points })
  self._terms = { self.scalar, self.points }
  local features = o.heads * down
  for _, term in ipairs(self._terms) do
    features = features + term:attach { node = o.dim, heads = o.heads, rng = o.rng }
  end
  self.linear_b = linear { input = o.edge, output = o.heads, init = "default", rng = o.rng }
  self.down_z = linear { input = o.edge, output = down, init = "default", rng = o.rng }
  self.linear_out = linear { input = features, output = o.dim, init = o.init, rng = o.rng }
end, forward, {
  describe = function(self)
    local o = self._options
    return ("%d, %d heads of %d, %d + %d points, dense pairs of %d"):format(o.dim, o.heads, o.hidden, o.query_points,
      o.value_points, o.edge)
  end,
})
