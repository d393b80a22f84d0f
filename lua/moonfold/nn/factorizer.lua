--- Two factors from dense pairs: each axis of z (P, dim) is compressed from L to r by one learned matrix.
--
--     row_{C,rho} = sum_R W_rho,R z_RC          col_{R,rho} = sum_C W_rho,C z_RC          R, C: positions in the sequence
--     f(y) = LN_inner( Lin_inner( LN_length(y) ) ) / sqrt(r)        LN_length over the r ranks
--     factor 1 = f(row), indexed by the second residue of the pair; factor 2 = f(col)
--
-- LN over r values carries little: r = 1 leaves its bias alone, r = 2 gives about +-1. The pair is an encoder's output, not an
-- approximation of z. Only the first L columns of W act, so L may not exceed max_len.
-- @module moonfold.nn.factorizer
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local linear = require "moonfold.nn.linear"
local layer_norm = require "moonfold.nn.layer_norm"

-- sum over pairs of weight(one residue of the pair) * z, gathered at the other residue: (N, r, dim). One rank at a time, so
-- that r copies of z are never held together.
local function compress(weight, z, from, to, position, n)
  local where = position:index_select(1, from)
  local out = {}
  for rho = 1, weight:size(1) do
    local w = weight:select(1, rho):index_select(1, where):reshape(-1, 1)
    local zero = mf.zeros(n, z:size(2), { dtype = z:dtype(), device = z:device() })
    out[rho] = zero:index_add(1, to, z * w)
  end
  return mf.stack(out, 2)
end

local function finish(self, y)
  y = self.length_norm(y:transpose(2, 3)):transpose(2, 3)
  return self.inner_norm(self.inner_compressor(y)):affine(1 / math.sqrt(self._options.rank), 0)
end

local function forward(self, z, packing)
  local o, device = self._options, z:device()
  if packing:longest() > o.max_len then
    fail("factorizer: a sequence has %d residues, max_len is %d", packing:longest(), o.max_len)
  end
  local row, column, position = packing:pair_row(device), packing:pair_column(device), packing:position(device)
  local n, weight = packing:total(), self.length_compressor.weight
  local first = finish(self, compress(weight, z, row, column, position, n))
  local second = finish(self, compress(weight, z, column, row, position, n))
  return mf.stack({ first, second }, 2)
end

--- A learned low-rank encoder of dense pairs; called with (z, packing), gives (N, 2, rank, dim).
-- @tparam table o `dim` channels of z, `max_len`, `rank` (2), `rng`
-- @usage local z12 = nn.factorizer { dim = 128, max_len = 512 }(z, packing)
return module.define("factorizer", { dim = module.REQUIRED, max_len = module.REQUIRED, rank = 2, rng = module.OPTIONAL },
  function(self, o)
    self.length_compressor = linear { input = o.max_len, output = o.rank, bias = false, rng = o.rng }
    self.inner_compressor = linear { input = o.dim, output = o.dim, bias = false, rng = o.rng }
    self.length_norm = layer_norm { dim = o.rank }
    self.inner_norm = layer_norm { dim = o.dim }
  end, forward)
