--- The scalar term of lifted attention: q_i . k_j scaled, and a value of its own.
--
--     q = Lin_q(s)                    k | v = Lin_kv(s), split inside each head
--     columns of k are scale * k      scale = sqrt(1 / (3 c)) unless given
--
-- sqrt(1/3) of the scale is the weight of one of three kinds of terms in invariant point attention.
-- @module moonfold.nn.term.scalar
local module = require "moonfold.nn.module"
local linear = require "moonfold.nn.linear"

--- Scalar queries, keys and values.
-- @tparam table o `dim` (128) channels a head, `scale` (sqrt(1 / (3 dim)))
-- @usage nn.term.scalar { dim = 128 }
return module.define("scalar", { dim = 128, scale = module.OPTIONAL },
  function(self, o) self._dim, self._scale = o.dim, o.scale or math.sqrt(1 / (3 * o.dim)) end,
  nil,
  {
    attach = function(self, o)
      local width = o.heads * self._dim
      self.linear_q = linear { input = o.node, output = width, init = "default", rng = o.rng }
      self.linear_kv = linear { input = o.node, output = 2 * width, init = "default", rng = o.rng }
      return width
    end,
    lift = function(self, inputs, context)
      local n, heads, dim = inputs.s:size(1), context.heads, self._dim
      local k, v = unpack(self.linear_kv(inputs.s):reshape(n, heads, 2 * dim):split(dim, 3))
      return { q = self.linear_q(inputs.s):reshape(n, heads, dim), k = k:affine(self._scale, 0), v = v }
    end,
    readout = function(self, columns, _, context)
      return columns:reshape(-1, context.heads * self._dim)
    end,
    describe = function(self) return ("dim %d"):format(self._dim) end,
  })
