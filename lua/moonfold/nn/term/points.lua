--- The point term of lifted attention: -gamma/2 sum_p |T_i q_p - T_j k_p|^2, and value points.
--
-- With a = T_i q, b = T_j k (global coordinates, in the gauge) and gamma_h = softplus(head_weights_h) / sqrt(3 P 9/2):
--
--     -gamma/2 |a - b|^2 = gamma a . b  - gamma/2 |b|^2  - gamma/2 |a|^2
--
-- |a|^2 is constant over j and cancels; |b|^2 is a key bias in float32; what is left is 3P columns: q = a, k = gamma b.
-- layout = "published" builds the 5P columns of the public code instead (|a|^2 and |b|^2 as columns), for comparison.
--
-- precision "split" writes a coordinate in two halves (nn.halves): 9P columns of q and k, 6 Pv of v.
--
-- Readout of v = T_j x:  o = T_i^-1 sum_j alpha_ij v_j, then  o_x | o_y | o_z | sqrt(|o|^2 + 1e-8).
-- Linear outputs of width 3n hold all x, then all y, then all z; point h P + p belongs to head h.
-- @module moonfold.nn.term.points
local mf = require "moonfold"
local fail = require "moonfold.fail"
local halves = require "moonfold.nn.halves"
local module = require "moonfold.nn.module"
local initial = require "moonfold.nn.initial"
local linear = require "moonfold.nn.linear"

-- (N, 3n), coordinates outermost -> (N, n, 3) in global coordinates.
local function placed(x, context)
  local local_points = x:reshape(x:size(1), 3, -1):transpose(2, 3)
  return mf.geometry.apply(context.R, context.t, local_points)
end

-- Columns of q and k, and the key bias, from points (N, H, P, 3).
local function columns_3p(a, b, gamma, context)
  local n, heads, points = a:size(1), a:size(2), a:size(3)
  local q = a:reshape(n, heads, 3 * points)
  local flat = b:reshape(n, heads, 3 * points)
  local k = flat * gamma:reshape(1, heads, 1)
  local bias = flat:square():sum(3) * gamma:affine(-0.5, 0)
  if context.precision == "split" then
    q, k = halves.columns(q, k, context.split_type)
  end
  return q, k, bias
end

local function columns_published(a, b, gamma)
  local n, heads, points = a:size(1), a:size(2), a:size(3)
  local half = gamma:affine(-0.5, 0):reshape(1, heads, 1)
  local ones = mf.ones(n, heads, points, { dtype = a:dtype(), device = a:device() })
  local q = mf.cat({ a:reshape(n, heads, 3 * points), a:square():sum(4), ones }, 3)
  local k = mf.cat({
    b:reshape(n, heads, 3 * points) * gamma:reshape(1, heads, 1), ones * half, b:square():sum(4) * half,
  }, 3)
  return q, k, nil
end

--- Query, key and value points in the frames of the residues (`inputs.frames = { R =, t = }`, nm).
-- @tparam table o `query` (8) and `value` (12) points a head, `layout` ("3p" or "published")
-- @usage nn.term.points { query = 8, value = 12 }
return module.define("points", { query = 8, value = 12, layout = "3p" },
  function(self, o)
    if o.layout ~= "3p" and o.layout ~= "published" then fail("points: unknown layout '%s' (known: 3p, published)", o.layout) end
    self._query, self._value, self._layout = o.query, o.value, o.layout
  end,
  nil,
  {
    attach = function(self, o)
      local h, p, v = o.heads, self._query, self._value
      self.head_weights = module.parameter(mf.full({ h }, initial.SOFTPLUS_ONE))
      self.linear_q_points = linear { input = o.node, output = 3 * h * p, init = "default", rng = o.rng }
      self.linear_kv_points = linear { input = o.node, output = 3 * h * (p + v), init = "default", rng = o.rng }
      return 4 * h * v
    end,
    lift = function(self, inputs, context)
      if not context.R then fail("points: inputs have no frames ({ R =, t = })") end
      local n, heads, p, v = inputs.s:size(1), context.heads, self._query, self._value
      if context.precision == "split" and self._layout == "published" then
        fail("points: precision 'split' needs layout '3p'")
      end
      local gamma = self.head_weights:softplus():affine(math.sqrt(1 / (3 * (p * 9 / 2))), 0)
      local a = placed(self.linear_q_points(inputs.s), context):reshape(n, heads, p, 3)
      local kv = placed(self.linear_kv_points(inputs.s), context):reshape(n, heads, p + v, 3)
      local b, value_points = unpack(kv:split({ p, v }, 3))
      local build = self._layout == "3p" and columns_3p or columns_published
      local q, k, bias = build(a, b, gamma, context)
      local values = value_points:reshape(n, heads, 3 * v)
      if context.precision == "split" then values = mf.cat({ halves.of(values, context.split_type) }, 3) end
      return { q = q, k = k, v = values, key_bias = bias }
    end,
    readout = function(self, columns, _, context)
      local n, width = columns:size(1), 3 * self._value
      if context.precision == "split" then
        local hi, lo = unpack(columns:split(width, 3))
        columns = hi + lo
      end
      local points = mf.geometry.invert_apply(context.R, context.t, columns:reshape(n, -1, 3))
      local norms = points:square():sum(3):affine(1, 1e-8):sqrt()
      return mf.cat({ points:transpose(2, 3):reshape(n, -1), norms }, 2)
    end,
    describe = function(self)
      return ("%d query, %d value%s"):format(self._query, self._value, self._layout == "3p" and "" or ", published")
    end,
  })
