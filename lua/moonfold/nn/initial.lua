--- Initial values of weights and biases, by the names that the networks of this field use.
--
--     kind      weight (out, in)                                  bias
--     default   truncated normal, scale 1                         0
--     relu      truncated normal, scale 2                         0
--     final     0                                                 0
--     gating    0                                                 1
--     glorot    U(+-sqrt(6 / (in + out)))                         0
--     normal    N(0, 1 / in)                                      0
--     torch     U(+-1 / sqrt(in))                                 U(+-1 / sqrt(in))
--
-- A truncated normal of scale c has sigma = sqrt(c / in) / 0.8796..., the standard deviation of N(0, 1) cut to
-- [-2, 2], so that after cutting at two sigma the variance is c / in.
-- @module moonfold.nn.initial
local mf = require "moonfold"
local fail = require "moonfold.fail"
local parameter = require("moonfold.nn.module").parameter

local M = {}

local CUT = 0.87962566103423978

--- softplus of this is 1: where the weights of the point term begin.
M.SOFTPLUS_ONE = 0.541324854612918

local weights = {
  default = function(x, _, inputs, rng) return x:truncated_normal_(math.sqrt(1 / inputs) / CUT, rng) end,
  relu = function(x, _, inputs, rng) return x:truncated_normal_(math.sqrt(2 / inputs) / CUT, rng) end,
  final = function(x) return x:zero_() end,
  gating = function(x) return x:zero_() end,
  glorot = function(x, outputs, inputs, rng)
    local bound = math.sqrt(6 / (inputs + outputs))
    return x:uniform_(-bound, bound, rng)
  end,
  normal = function(x, _, inputs, rng) return x:normal_(0, math.sqrt(1 / inputs), rng) end,
  torch = function(x, _, inputs, rng)
    local bound = 1 / math.sqrt(inputs)
    return x:uniform_(-bound, bound, rng)
  end,
}

local function known()
  local names = {}
  for name in pairs(weights) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

local function check(kind)
  if not weights[kind] then fail("unknown initial values '%s' (known: %s)", tostring(kind), known()) end
end

--- A weight matrix (out, in) as a parameter.
-- @tparam string kind
-- @tparam table size `{ outputs, inputs }`
-- @param[opt] rng generator, the context's own by default
-- @return a tensor
function M.weight(kind, size, rng)
  check(kind)
  local outputs, inputs = size[1], size[2]
  local x = mf.empty(outputs, inputs)
  weights[kind](x, outputs, inputs, rng)
  return parameter(x)
end

-- How the two factors of a pair begin (`factor_init`): "published" as the public code has it, "alike" as Moonfold does.
local FACTORS = { alike = true, published = true }

--- Should pair factors begin alike? The published start keeps FlashIPA from learning some of what its parameters could: a fresh
-- edge transition gives z1 = z2 = 0, where the gradient of z1 z2 is 0 too, so that no step ever leaves it and pairs end after
-- the first block; and two unrelated factors make a bias of noise. Alike, the transitions begin with random last layers, and
-- both factors of the embedder with the same weights: the bias is a kernel z_i . z_j, large where residues have like features.
-- @tparam string kind "alike" or "published"
-- @treturn boolean
function M.alike(kind)
  if not FACTORS[kind] then fail("unknown factor_init '%s' (known: alike, published)", tostring(kind)) end
  return kind == "alike"
end

--- Gives the second half of a linear layer's outputs the weights and biases of the first.
-- @tparam linear layer of an even number of outputs
function M.halves_alike(layer)
  for _, values in ipairs { layer.weight:detach(), layer.bias:detach() } do
    local half = values:size(1) / 2
    values:narrow(1, half + 1, half):copy_(values:narrow(1, 1, half))
  end
end

--- A bias (out) as a parameter.
-- @tparam string kind
-- @tparam table size `{ outputs, inputs }` of its weight
-- @param[opt] rng generator
-- @return a tensor
function M.bias(kind, size, rng)
  check(kind)
  local x = mf.zeros(size[1])
  if kind == "gating" then x:fill_(1) end
  if kind == "torch" then weights.torch(x, size[1], size[2], rng) end
  return parameter(x)
end

return M
