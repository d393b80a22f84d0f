--- A post-norm transformer encoder along each sequence, with the names of PyTorch's (`layers.0.self_attn.in_proj_weight`).
--
--     x <- LN1( x + Lin_out(MHA(x)) );   x <- LN2( x + Lin_2(relu(Lin_1(x))) )        feed-forward width = dim
--     MHA: heads of dim / heads, softmax(q . k / sqrt(dim / heads)), masked residues are no keys
--
-- No positions, no dropout. The layers begin as copies of one.
-- @module moonfold.nn.sequence_transformer
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local initial = require "moonfold.nn.initial"
local linear = require "moonfold.nn.linear"
local layer_norm = require "moonfold.nn.layer_norm"
local lift = require "moonfold.nn.lift"
local mask_of = require "moonfold.nn.mask"

local attention = module.define("self_attention",
  { dim = module.REQUIRED, heads = module.REQUIRED, precision = module.OPTIONAL, rng = module.OPTIONAL },
  function(self, o)
    local d = o.dim
    self.in_proj_weight = initial.weight("glorot", { 3 * d, d }, o.rng)
    self.in_proj_bias = module.parameter(mf.zeros(3 * d))
    self.out_proj = linear { input = d, output = d, rng = o.rng }
    mf.no_grad(self.out_proj.bias.zero_, self.out_proj.bias)
  end,
  function(self, x, packing, key_bias)
    local o = self._options
    local n, width = x:size(1), o.dim / o.heads
    -- split and not select: its backward writes the three gradients into one tensor
    local q, k, v = unpack(x:linear(self.in_proj_weight, self.in_proj_bias):reshape(n, 3 * o.heads, width):split(o.heads, 2))
    q = q:affine(1 / math.sqrt(width), 0)
    local precision = lift.precision(o.precision)
    if precision == "split" then precision = "fp16" end
    local out = mf.attention(q, k, v, key_bias, packing, precision)
    return self.out_proj(out:reshape(n, o.dim))
  end)

local layer = module.define("transformer_layer",
  { dim = module.REQUIRED, heads = module.REQUIRED, precision = module.OPTIONAL, rng = module.OPTIONAL },
  function(self, o)
    self.self_attn = attention(o)
    self.linear1 = linear { input = o.dim, output = o.dim, rng = o.rng }
    self.linear2 = linear { input = o.dim, output = o.dim, rng = o.rng }
    self.norm1 = layer_norm { dim = o.dim }
    self.norm2 = layer_norm { dim = o.dim }
  end,
  function(self, x, packing, key_bias)
    x = self.norm1(x, self.self_attn(x, packing, key_bias))
    return self.norm2(x, self.linear2(self.linear1(x, "relu")))
  end)

-- (N, heads): -inf, or the number given, where a residue is masked; nil without a mask.
local function key_bias_of(mask, heads, x, logit)
  if not mask then return nil end
  return mf.zeros(x:size(1), heads, { dtype = x:dtype(), device = x:device() })
    :masked_fill(mask_of.bool(mask):logical_not():reshape(-1, 1), logit or -math.huge)
end

local function forward(self, x, packing, mask, key_bias)
  key_bias = key_bias or key_bias_of(mask, self._options.heads, x)
  for _, item in ipairs(self.layers) do x = item(x, packing, key_bias) end
  return x
end

--- A sequence transformer; called with (x (N, dim), packing, mask or nil). A network with several of them may make the mask's
-- key bias once, `key_bias_of(mask, heads, x)`, and pass it as the fourth argument; `key_bias_of(mask, heads, x, 1)` is what
-- PyTorch makes of a floating mask of padding: masked residues are keys, with 1 more on their logits.
-- @tparam table o `dim`, `heads` (4), `layers` (2), `precision` (the global one), `rng`
-- @usage h = nn.sequence_transformer { dim = 256 }(s, packing)
local constructor = module.define("sequence_transformer",
  { dim = module.REQUIRED, heads = 4, layers = 2, precision = module.OPTIONAL, rng = module.OPTIONAL },
  function(self, o)
    if o.dim % o.heads ~= 0 then fail("sequence_transformer: dim %d does not divide into %d heads", o.dim, o.heads) end
    self.layers = {}
    for i = 1, o.layers do
      self.layers[i] = layer { dim = o.dim, heads = o.heads, precision = o.precision, rng = o.rng }
      if i > 1 then self.layers[i]:load(self.layers[1]:state()) end
    end
  end, forward,
  { describe = function(self) return ("%d, %d heads"):format(self._options.dim, self._options.heads) end })

constructor.key_bias_of = key_bias_of

return constructor
