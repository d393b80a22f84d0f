--- The pair term of lifted attention: a bias and a value from two factors, z_ij = sum_rho z1_i,rho * z2_j,rho.
--
--     b^f = Lin_b(z^f)  (r numbers a head)      q = b^1_i, k = b^2_j
--     y^f = Lin_down(z^f)  (dim / 4 channels)   v = y^2_j;   readout sum_rho y^1_i,rho * w_i,rho,  w = sum_j alpha_ij y^2_j
--
-- The bias of a pair is a product of r numbers of size one, so 16-bit operands would round it by some 4e-4: most of the
-- layer's whole error (5.8e-4 against 2.9e-4 at the default widths). In 16-bit precision its columns are therefore
-- halves (nn.halves), 3r instead of r. That is free: 158 columns fit the 160 that matrix units take for 154.
--
-- Both factors go through the same weights, biases included. `inputs.pair` is (N, 2, r, dim), the factor on axis 2, or a
-- list { z1, z2 } of (N, r, dim).
-- @module moonfold.nn.term.pair
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local halves = require "moonfold.nn.halves"
local linear = require "moonfold.nn.linear"

local SIXTEEN_BIT = { fp16 = "fp16", bf16 = "bf16" }

--- Factors of the pair representation.
-- @tparam table o `dim` (128) channels of z, `rank` (2)
-- @usage nn.term.pair { rank = 2, dim = 128 }
return module.define("pair", { dim = 128, rank = 2 },
  function(self, o) self._dim, self._rank, self._down = o.dim, o.rank, math.floor(o.dim / 4) end,
  nil,
  {
    attach = function(self, o)
      self.linear_b = linear { input = self._dim, output = o.heads, init = "default", rng = o.rng }
      self.down_z = linear { input = self._dim, output = self._down, init = "default", rng = o.rng }
      return o.heads * self._down
    end,
    -- b (N, 2, r, heads) and y (N, 2, r, dim / 4) of both factors.
    project = function(self, inputs)
      local z = inputs.pair or fail("pair: inputs have no pair factors (N, 2, %d, %d)", self._rank, self._dim)
      if type(z) == "table" then z = mf.stack({ z[1], z[2] }, 2) end
      if z:ndim() ~= 4 or z:size(2) ~= 2 or z:size(3) ~= self._rank then
        fail("pair: factors (%s), expected (N, 2, %d, %d)", table.concat(z:shape(), ", "), self._rank, self._dim)
      end
      return self.linear_b(z), self.down_z(z)
    end,
    lift = function(self, inputs, context)
      local b, y = self:project(inputs)
      local n, r, down = b:size(1), self._rank, self._down
      context[self] = y:select(2, 1)
      local q, k = b:select(2, 1):transpose(2, 3), b:select(2, 2):transpose(2, 3)
      local kind = SIXTEEN_BIT[context.precision] or context.precision == "split" and context.split_type
      if kind then q, k = halves.columns(q, k, kind) end
      return {
        q = q,
        k = k,
        v = y:select(2, 2):reshape(n, 1, r * down):expand(n, context.heads, r * down),
      }
    end,
    readout = function(self, columns, _, context)
      local n, heads, r, down = columns:size(1), context.heads, self._rank, self._down
      local mixed = columns:reshape(n, heads, r, down) * context[self]:reshape(n, 1, r, down)
      return mixed:sum(3):reshape(n, heads * down)
    end,
    describe = function(self) return ("rank %d, dim %d"):format(self._rank, self._dim) end,
  })
