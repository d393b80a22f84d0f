--- Flash invariant point attention as one operator, from the projections to the input of the last linear layer.
-- @module moonfold.tensor.ipa
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"
local options = require "moonfold.options"

local C, out, out2, out3, again, check, adopt, is_tensor = F.C, F.out, F.out2, F.out3, F.again, F.check, F.adopt, F.is_tensor

local M = {}

local gauges = { canonical = C.MF_GAUGE_CANONICAL, centred = C.MF_GAUGE_CENTRED, none = C.MF_GAUGE_NONE }
local precisions = { exact = C.MF_EXACT, fp16 = C.MF_FP16, bf16 = C.MF_BF16, tf32 = C.MF_TF32 }

local defaults = {
  q = options.REQUIRED, kv = options.REQUIRED, q_points = options.REQUIRED, kv_points = options.REQUIRED,
  pair_bias = options.OPTIONAL, pair_value = options.OPTIONAL, head_weights = options.REQUIRED, R = options.REQUIRED,
  t = options.REQUIRED, mask = options.OPTIONAL, packing = options.REQUIRED, heads = options.REQUIRED,
  gauge = "canonical", precision = "exact", split = false, scale = 0, attended = options.OPTIONAL, lse = options.OPTIONAL,
}
local tensors = {
  "q", "kv", "q_points", "kv_points", "pair_bias", "pair_value", "head_weights", "R", "t", "mask", "attended", "lse",
}

local inputs, params = ffi.new "mf_flash_ipa_inputs", ffi.new "mf_flash_ipa_params"

-- Fills `inputs` and `params`; what they point to lives in the caller's table.
local function fill(name, o)
  o = options(name, defaults, o)
  for _, key in ipairs(tensors) do
    if o[key] ~= nil and not is_tensor(o[key]) then fail("%s: %s must be a tensor, got %s", name, key, T.kind(o[key])) end
    inputs[key] = o[key]
  end
  if not F.is_packing(o.packing) then fail("%s: packing must be a packing (mf.packing), got %s", name, T.kind(o.packing)) end
  params.heads = type(o.heads) == "number" and o.heads % 1 == 0 and o.heads
    or fail("%s: heads must be a whole number, got %s", name, tostring(o.heads))
  params.gauge = gauges[o.gauge] or fail("%s: unknown gauge '%s' (known: canonical, centred, none)", name, o.gauge)
  params.precision = precisions[o.precision]
    or fail("%s: unknown precision '%s' (known: exact, fp16, bf16, tf32)", name, o.precision)
  params.split, params.scale = o.split and 1 or 0, o.scale
  return o
end

--- Scalars, points and pair factors through attention: lifted into the gauge, attended, read out into the residues' frames.
--
-- The result holds o | o_x | o_y | o_z | norms | pair, (N, H c + 4 H Pv + H dz); nn.ipa is the layer around it.
-- @tparam table o `q` (N, H c), `kv` (N, 2 H c), `q_points` (N, 3 H P), `kv_points` (N, 3 H (P + Pv)), `pair_bias` (N, 2, r, H)
--   and `pair_value` (N, 2, r, dz) or neither, `head_weights` (H), `R` (N, 3, 3), `t` (N, 3), `mask` (N) bool or nil, `packing`,
--   `heads`; `gauge` ("canonical", "centred" or "none"), `precision` ("exact", "fp16", "bf16" or "tf32"), `split` (false: true
--   carries points in two halves of 16 bits), `scale` of q . k (0: sqrt(1 / (3 c))); `attended` and `lse` of
--   `flash_ipa_attend` on the same inputs, so that attention is not done again
-- @treturn tensor
function M.flash_ipa(o)
  o = fill("flash_ipa", o)
  local log = not o.attended and F.attention_log
  if log then                             -- inside mf.recompute
    local entry = log:next()
    if not entry then
      local features, attended, lse = M.flash_ipa_attend(o)
      log:keep(attended, lse)
      return features
    end
    inputs.attended, inputs.lse = entry[1], entry[2]
  end
  local status = C.mf_flash_ipa(out, inputs, o.packing, params)
  if status ~= 0 and again(status) then check(C.mf_flash_ipa(out, inputs, o.packing, params)) end
  return adopt(out[0])
end

--- The same without a record, and what attention gave: with it `flash_ipa` can be differentiated later at no quadratic cost.
-- @tparam table o as for `flash_ipa`
-- @treturn tensor the features
-- @treturn tensor attended (N, H, value columns)
-- @treturn tensor lse (N, H)
function M.flash_ipa_attend(o)
  o = fill("flash_ipa_attend", o)
  local status = C.mf_flash_ipa_attend(out, out2, out3, inputs, o.packing, params)
  if status ~= 0 and again(status) then check(C.mf_flash_ipa_attend(out, out2, out3, inputs, o.packing, params)) end
  local attended, lse = out2[0], out3[0]
  return adopt(out[0]), adopt(attended), adopt(lse)
end

return { methods = {}, functions = M }
