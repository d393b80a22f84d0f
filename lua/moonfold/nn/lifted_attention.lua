--- Attention assembled from terms: each adds columns to the lifted query, key and value of one fused kernel.
--
-- The weights are softmax_j(sum over terms of q_i . k_j + key_bias_j) and the kernel never knows which column belongs
-- to which term, so a new kind of interaction needs no C and gets its gradients from the tape. A term is a table with
--
--     attach(self, o) -> features       once, with { node =, heads =, rng = }: make parameters; how many features readout gives
--     lift(self, inputs, context) -> { q = (N, H, w), k = (N, H, w), v = (N, H, wv), key_bias = (N, H) }    any may be nil
--     readout(self, columns, inputs, context) -> (N, features) or nil     columns: its (N, H, wv) of the output
--
-- `inputs` is the table given to the layer; `context` has heads, packing, mask (bool or nil), precision and the frames
-- R, t in the gauge of the call. attach and readout may be missing when there is nothing to make or to read.
--
-- A term that prefers residues whose frames point the same way, w_h sum_a (R_i e_a) . (R_j e_a):
--
--     local Orientation = {}
--     Orientation.__index = Orientation
--     function Orientation:attach(o)
--       self.weight = nn.parameter(mf.zeros(o.heads))      -- found, saved and trained as "terms.3.weight"
--       return 0
--     end
--     function Orientation:lift(_, context)
--       local n, h = context.R:size(1), context.heads
--       local axes = context.R:reshape(n, 1, 9):expand(n, h, 9)
--       return { q = axes, k = axes * self.weight:reshape(1, h, 1) }
--     end
--     local attend = nn.lifted_attention { heads = 8, terms = { nn.term.scalar { dim = 32 }, setmetatable({}, Orientation) } }
--     local out = attend { s = s, frames = { R = R, t = t }, packing = packing }
--
-- @module moonfold.nn.lifted_attention
local mf = require "moonfold"
local fail = require "moonfold.fail"
local module = require "moonfold.nn.module"
local linear = require "moonfold.nn.linear"
local lift = require "moonfold.nn.lift"

local function forward(self, inputs)
  local o = self._options
  local context = lift.context(o, inputs)
  local q, k, v, bias, widths = lift.gather(self._terms, inputs, context)
  local out = mf.attention(q, k, v, bias, context.packing, lift.kernel_precision(context))
  local features = lift.hand_back(self._terms, out, widths, inputs, context, o.order)
  return self.linear_out(mf.cat(features, 2))
end

local function attach(terms, o)
  local features = 0
  for i, term in ipairs(terms) do
    if type(term) ~= "table" or not term.lift then fail("lifted_attention: term %d has no lift()", i) end
    features = features + (term.attach and term:attach { node = o.node, heads = o.heads, rng = o.rng } or 0)
  end
  if features == 0 then fail("lifted_attention: no term reads features out") end
  return features
end

--- Attention over a list of terms, from (N, node) to (N, output).
-- @tparam table o `terms`, `heads` (8), `node` (256) width of s, `output` (node), `order` positions of the terms in the
--   order of their features (as listed), `gauge` ("canonical", "centred" or "none"), `precision` (the global one), `split_type`
--   ("fp16"), `init` ("final") of the output projection, `rng`
-- @usage local attend = nn.lifted_attention { heads = 8, terms = {
--          nn.term.scalar { dim = 128 }, nn.term.points { query = 8, value = 12 }, nn.term.pair { rank = 2, dim = 128 } } }
--        s = s + attend { s = s, frames = { R = R, t = t }, pair = z, packing = packing }
local constructor = module.define("lifted_attention", {
  terms = module.REQUIRED, heads = 8, node = 256, output = module.OPTIONAL, order = module.OPTIONAL, gauge = "canonical",
  precision = module.OPTIONAL, split_type = "fp16", init = "final", rng = module.OPTIONAL,
}, function(self, o)
  lift.check_gauge(o.gauge)
  self.terms, self._terms = o.terms, o.terms
  self.linear_out = linear { input = attach(o.terms, o), output = o.output or o.node, init = o.init, rng = o.rng }
end, forward, { describe = function(self) return ("%d heads"):format(self._options.heads) end })

return constructor
