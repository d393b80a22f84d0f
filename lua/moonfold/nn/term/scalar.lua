--- The scalar term of lifted attention: q_i . k_j scaled, and a value of its own.
--
--     q = Lin_q(s)                    k | v = Lin_kv(s), split inside each head
--     columns of k are scale * k      scale = sqrt(1 / (3 c)) unless given
--
-- sqrt(1/3) of the scale is the weight of one of three kinds of terms in invariant point attention. With `rotary` queries and keys
-- are turned by their residue's index first (nn.rotary): `inputs.index` int32 (N), or else the position in the sequence.
-- @module moonfold.nn.term.scalar
local module = require "moonfold.nn.module"
local linear = require "moonfold.nn.linear"
local rotary = require "moonfold.nn.rotary"

--- Scalar queries, keys and values.
-- @tparam table o `dim` (128) channels a head, `scale` (sqrt(1 / (3 dim))), `rotary` (false)
-- @usage nn.term.scalar { dim = 128 }
return module.define("scalar", { dim = 128, scale = module.OPTIONAL, rotary = false },
  function(self, o)
    self._dim, self._scale, self._rotary = o.dim, o.scale or math.sqrt(1 / (3 * o.dim)), o.rotary
    if o.rotary then rotary.check(o.dim) end
  end,
  nil,
  {
    attach = function(self, o)
      local width = o.heads * self._dim
      self.linear_q = linear { input = o.node, output = width, init = "default", rng = o.rng }
      self.linear_kv = linear { input = o.node, output = 2 * width, init = "default", rng = o.rng }
      return width
    end,
    -- q (N, heads dim) and k | v (N, heads 2 dim), neither scaled.
    project = function(self, inputs, heads)
      local q, kv = self.linear_q(inputs.s), self.linear_kv(inputs.s)
      if not self._rotary then return q, kv end
      local n, dim = q:size(1), self._dim
      local index = inputs.index or inputs.packing:position(q:device())
      return rotary.turn(q:reshape(n, heads, dim), dim, index):reshape(n, heads * dim),
        rotary.turn(kv:reshape(n, heads, 2 * dim), dim, index):reshape(n, heads * 2 * dim)
    end,
    lift = function(self, inputs, context)
      local n, heads, dim = inputs.s:size(1), context.heads, self._dim
      local q, kv = self:project(inputs, heads)
      local k, v = unpack(kv:reshape(n, heads, 2 * dim):split(dim, 3))
      return { q = q:reshape(n, heads, dim), k = k:affine(self._scale, 0), v = v }
    end,
    readout = function(self, columns, _, context)
      return columns:reshape(-1, context.heads * self._dim)
    end,
    describe = function(self) return ("dim %d"):format(self._dim) end,
  })
