--- Functions of one tensor, element by element.
-- @module moonfold.tensor.unary
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"
local make = require "moonfold.make"

local C, out, again, check, adopt, is_tensor = F.C, F.out, F.again, F.check, F.adopt, F.is_tensor

local M = {}

local function unary(name, f, x)
  if not is_tensor(x) then T.tensor_argument(name, 0, x) end
  local status = f(out, x)
  if status ~= 0 and again(status) then check(f(out, x)) end
  return adopt(out[0])
end

--- -x; also `-x`.
-- @treturn tensor
function M.neg(x) return unary("neg", C.mf_neg, x) end

--- |x|.
-- @treturn tensor
function M.abs(x) return unary("abs", C.mf_abs, x) end

--- -1, 0 or 1.
-- @treturn tensor
function M.sign(x) return unary("sign", C.mf_sign, x) end

--- The largest whole number not above x.
-- @treturn tensor
function M.floor(x) return unary("floor", C.mf_floor, x) end

--- e to the x.
-- @treturn tensor
function M.exp(x) return unary("exp", C.mf_exp, x) end

--- The natural logarithm.
-- @treturn tensor
function M.log(x) return unary("log", C.mf_log, x) end

--- The square root.
-- @treturn tensor
function M.sqrt(x) return unary("sqrt", C.mf_sqrt, x) end

--- One over the square root.
-- @treturn tensor
function M.rsqrt(x) return unary("rsqrt", C.mf_rsqrt, x) end

--- x times x.
-- @treturn tensor
function M.square(x) return unary("square", C.mf_square, x) end

--- One over x.
-- @treturn tensor
function M.reciprocal(x) return unary("reciprocal", C.mf_reciprocal, x) end

--- The sine.
-- @treturn tensor
function M.sin(x) return unary("sin", C.mf_sin, x) end

--- The cosine.
-- @treturn tensor
function M.cos(x) return unary("cos", C.mf_cos, x) end

--- The arc cosine, in [0, pi].
-- @treturn tensor
function M.acos(x) return unary("acos", C.mf_acos, x) end

--- The hyperbolic tangent.
-- @treturn tensor
function M.tanh(x) return unary("tanh", C.mf_tanh, x) end

--- 1 / (1 + exp(-x)).
-- @treturn tensor
function M.sigmoid(x) return unary("sigmoid", C.mf_sigmoid, x) end

--- max(x, 0).
-- @treturn tensor
function M.relu(x) return unary("relu", C.mf_relu, x) end

--- x times the normal distribution function of x (exact, by erf).
-- @treturn tensor
function M.gelu(x) return unary("gelu", C.mf_gelu, x) end

--- x sigmoid(x).
-- @treturn tensor
function M.silu(x) return unary("silu", C.mf_silu, x) end

--- log(1 + exp(x)); x itself past 20.
-- @treturn tensor
function M.softplus(x) return unary("softplus", C.mf_softplus, x) end

--- x cut to [lo, hi]; a nil leaves that side open.
-- @tparam ?number lo
-- @tparam ?number hi
-- @treturn tensor
function M.clamp(x, lo, hi)
  T.tensor_argument("clamp", 0, x)
  lo = T.number_argument("clamp", 1, lo, -math.huge)
  hi = T.number_argument("clamp", 2, hi, math.huge)
  local status = C.mf_clamp(out, x, lo, hi)
  if status ~= 0 and again(status) then check(C.mf_clamp(out, x, lo, hi)) end
  return adopt(out[0])
end

local roundings = { fp16 = C.MF_FP16, bf16 = C.MF_BF16 }

--- x rounded to the nearest float16 or bfloat16 value, in its own element type; the gradient passes through.
-- @tparam string precision "fp16" or "bf16"
-- @treturn tensor
function M.round_to(x, precision)
  T.tensor_argument("round_to", 0, x)
  local code = roundings[precision]
  if not code then fail("round_to: precision must be \"fp16\" or \"bf16\", got %s", tostring(precision)) end
  local status = C.mf_round_to(out, x, code)
  if status ~= 0 and again(status) then check(C.mf_round_to(out, x, code)) end
  return adopt(out[0])
end

--- x with elements set to 0 at random and the others scaled by 1 / (1 - rate).
-- @tparam number rate in [0, 1)
-- @tparam ?rng rng the context's own by default
-- @treturn tensor
function M.dropout(x, rate, rng)
  T.tensor_argument("dropout", 0, x)
  T.number_argument("dropout", 1, rate)
  rng = make.generator("dropout", rng)
  local status = C.mf_dropout(out, x, rate, rng)
  if status ~= 0 and again(status) then check(C.mf_dropout(out, x, rate, rng)) end
  return adopt(out[0])
end

return { methods = M }
