--- Small inputs for every differentiable row of core/ops/ops.def: for gradients, and for one device against another.
local ffi = require "ffi"
local mf = require "moonfold"
local F = require "moonfold.ffi"
local naive = require "spec.support.naive"

local g = mf.geometry

local function x(...) return naive.normal({ ... }, "float64", 11) end
local function y(...) return naive.normal({ ... }, "float64", 12) end
local function z(...) return naive.normal({ ... }, "float64", 13) end
local function positive(...) return x(...):abs() + 0.5 end
-- Between -1 and 1, away from both ends.
local function inside(...) return x(...):tanh() * 0.8 end
-- Halfway between integers, give or take 0.2: away from every kink at an integer.
local function between(...) return x(...):floor() + 0.5 + y(...):tanh() * 0.2 end
-- Multiples of 1/64: exact in 16-bit floats, like those of the step that goes with them.
local function dyadic(...) return (inside(...) * 64):floor() / 64 end
local exact = { step = 1 / 64 }
local function packing() return mf.packing { 3, 1, 2 } end
local function rotations(n, seed) return g.so3_exp(naive.normal({ n, 3 }, "float64", seed or 14)) end

local function method(name, ...)
  local arguments, n = { ... }, select("#", ...)
  return function(t) return t[name](t, unpack(arguments, 1, n)) end
end

-- The row itself: x:split may be made of narrow.
local function split(t, axis, ...)
  local n = select("#", ...)
  local outs, parts = ffi.new("mf_tensor *[?]", n), {}
  F.check(F.C.mf_split(outs, t, axis, ffi.new("int64_t[?]", n, ...), n))
  for i = 1, n do parts[i] = F.adopt(outs[i - 1]) end
  return unpack(parts)
end

--- The cases, row by row. A case is `f` and its float64 `inputs`; `options` for gradients_match; `kinks` says where the function
-- is not smooth and so where its inputs were kept from. A row may have several. What f uses besides its inputs goes through
-- place, which moves it to where the inputs will be.
-- @tparam ?function place tensor -> tensor
return function(place)
  place = place or function(t) return t end
  local cases = {}
  local function case(name, f, inputs, options, kinks)
    local c = { f = f, inputs = inputs, options = options, kinks = kinks }
    cases[name] = cases[name] or {}
    table.insert(cases[name], c)
    return c
  end
  local function int32(list) return place(mf.tensor(list, { dtype = "int32" })) end
  local function mask(list) return place(mf.tensor(list):bool()) end

  case("affine", method("affine", 2.5, -1), { x(5) })
  case("pow_scalar", method("pow", 1.7), { positive(5) })
  case("pow_scalar", method("pow", 3), { x(5) })
  case("clamp", method("clamp", -1, 1), { between(17) }, nil, "at both limits")
  case("abs", method("abs"), { between(7) }, nil, "at 0")
  case("sign", method("sign"), { between(7) }, nil, "at 0")
  case("floor", method("floor"), { between(7) }, nil, "at integers")
  case("relu", method("relu"), { between(7) }, nil, "at 0")
  case("softplus", method("softplus"), { mf.tensor({ -30, -1, 0.5, 3, 19, 21 }, { dtype = "float64" }) }, nil,
    "at 20, by 2e-9")
  for _, name in ipairs { "neg", "exp", "square", "sin", "cos", "tanh", "sigmoid", "gelu", "silu" } do
    case(name, method(name), { x(7) })
  end
  for _, name in ipairs { "log", "sqrt", "rsqrt", "reciprocal" } do case(name, method(name), { positive(7) }) end
  case("acos", method("acos"), { inside(7) })

  for _, name in ipairs { "add", "sub", "mul" } do
    case(name, function(a, b) return a[name](a, b) end, { x(3, 1, 2), y(4, 1) })
    case(name, function(a) return a[name](a, a) end, { x(5) })
  end
  case("div", function(a, b) return a / b end, { x(3, 2), positive(2) })
  case("pow", function(a, b) return a:pow(b) end, { positive(3, 2), y(2) })
  case("atan2", function(a, b) return a:atan2(b) end, { x(3, 2), positive(2) })
  case("maximum", function(a, b) return a:maximum(b) end, { between(9), mf.zeros(9, { dtype = "float64" }) }, nil,
    "where both are equal")
  case("minimum", function(a, b) return a:minimum(b) end, { between(3, 3), mf.zeros(3, { dtype = "float64" }) }, nil,
    "where both are equal")
  case("where", function(a, b) return mf.where(mask { 1, 0, 1 }, a, b) end, { x(2, 3), y(3) })
  case("round_to", method("round_to", "fp16"), { dyadic(5) }, exact, "between the values it rounds to")
  case("dropout", function(t) return t:dropout(0.4, mf.rng(3)) end, { x(40) })

  -- The cotangent goes through float32 as well, which rounds it.
  case("cast", function(t) return t:float():double() end, { dyadic(5) }, { step = 1 / 64, tolerance = 2 ^ -24 })
  case("contiguous", function(t) return t:transpose(1, 2):contiguous() end, { x(3, 4) })
  case("reshape", function(t) return t:transpose(1, 2):reshape(2, -1) end, { x(3, 4) })
  case("permute", method("permute", 3, 1, 2), { x(2, 3, 4) })
  case("narrow", method("narrow", 2, 2, 3), { x(2, 5) })
  case("select", method("select", -1, 2), { x(2, 5) })
  case("expand", method("expand", 4, 3, 2), { x(3, 1) })
  case("split", function(t) return split(t, 1, 2, 0, 3) end, { x(2, 5, 2) })
  case("split", function(t) return (select(2, split(t, -1, 1, 2))) end, { x(2, 3) })
  case("cat", function(a, b) return mf.cat({ a, b, a }, 2) end, { x(2, 3), y(2, 1) })

  case("sum", method("sum", { 1, 3 }), { x(2, 3, 4) })
  case("sum", method("sum"), { x(2, 3) })
  case("mean", method("mean", 2, true), { x(2, 3, 4) })
  case("max", method("max", 2), { x(3, 7) }, nil, "where the largest changes place")
  case("min", method("min", 1, true), { x(7, 3) }, nil, "where the smallest changes place")
  case("logsumexp", method("logsumexp", 1), { x(5, 3) })
  case("logsumexp", method("logsumexp", 2, true), { x(5, 3) })
  case("cumsum", method("cumsum", 2), { x(2, 5, 2) })
  case("sort", method("sort", 1, true), { x(6, 2) }, nil, "where two change places")
  case("topk", method("topk", 2, 2), { x(3, 6) }, nil, "where two change places")
  case("segment_sum", function(t) return t:segment_sum(packing()) end, { x(6, 2) })
  case("segment_expand", function(t) return t:segment_expand(packing()) end, { x(3, 2) })

  case("matmul", function(a, b) return a:matmul(b) end, { x(2, 1, 3, 4), y(5, 4, 2) })
  case("linear", function(a, w, b) return a:linear(w, b) end, { x(2, 3, 4), y(5, 4), z(5) })
  -- Sums of a few products and a bias, all at least 1e-2 away from 0 for these values.
  case("linear_relu", function(a, w, b) return a:linear(w, b, "relu") end, { x(2, 3, 4), y(5, 4), z(5) }, nil, "at 0")
  case("linear_relu", function(a, w) return a:linear(w, nil, "relu") end, { x(7, 3), y(2, 3) }, nil, "at 0")
  case("softmax", method("softmax", 2), { x(3, 5, 2) })
  case("softmax", method("softmax", -1), { x(3, 5) })
  case("log_softmax", method("log_softmax", 1), { x(5, 2) })
  case("log_softmax", method("log_softmax", 2), { x(2, 5) })
  case("layer_norm", function(a, w, b) return a:layer_norm(w, b) end, { x(4, 7), y(7), z(7) })
  local rows = place(mf.tensor({ 1, 0, 0.5, 1 }, { dtype = "float64" }))
  case("add_layer_norm", function(a, b, w, c) return a:add_layer_norm(b, w, c) end, { x(4, 7), z(4, 7), y(7), z(7) })
  case("add_layer_norm", function(a, b, w, c) return a:add_layer_norm(b, w, c, 1e-2, rows) end, { x(4, 7), z(4, 7), y(7), z(7) })
  case("add_layer_norm", function(a) return a:add_layer_norm(a, a:select(1, 1), a:select(1, 2)) end, { x(4, 7) })
  case("squared_error", function(a, b) return a:squared_error(b) end, { x(5, 3), y(5, 3) })
  case("squared_error", function(a, b) return a:squared_error(b, rows:to(a:dtype())) end, { x(4, 3), y(4, 3) })
  local weights = place(z(2, 3))
  case("squared_error", function(a, b) return a:squared_error(b, weights:to(a:dtype())) end, { x(2, 3, 4), y(2, 3, 4) })
  local classes = int32 { 2, 0, 4 }
  case("cross_entropy", function(a) return a:cross_entropy(classes) end, { x(3, 5) })

  local index, each = int32 { 2, 0, 2, 1 }, int32 { { 2, 0 }, { 2, 1 }, { 0, 0 }, { 1, 2 } }
  case("index_select", function(t) return t:index_select(1, index) end, { x(3, 2) })
  case("index_add", function(t, s) return t:index_add(1, index, s) end, { x(3, 2), y(4, 2) })
  case("gather", function(t) return t:gather(1, each) end, { x(3, 2) })
  case("scatter_add", function(t, s) return t:scatter_add(1, each, s) end, { x(3, 2), y(4, 2) })

  case("quat_to_rot", g.quat_to_rot, { x(5, 4) })
  case("quat_multiply", g.quat_multiply, { x(5, 4), y(5, 4) })
  case("so3_exp", g.so3_exp, { x(5, 3) })
  case("so3_exp", g.so3_exp, { x(2, 3) * 1e-4 }, { step = 1e-2 })
  -- The gradients at R lie in the tangent space of SO(3): differences are taken along it.
  case("rot_to_quat", function(v) return g.rot_to_quat(g.so3_exp(v)) end, { x(5, 3) }, nil,
    "where w = 0: the sign jumps")
  case("so3_log", function(v) return g.so3_log(place(rotations(5)):matmul(g.so3_exp(v))) end, { x(5, 3) * 0.3 }, nil,
    "at the angle pi")
  case("frames_from_points", g.frames_from_points, { x(4, 3), y(4, 3), z(4, 3) })
  case("frames_apply", g.apply, { rotations(4), x(4, 3), y(4, 5, 3) })
  case("frames_invert_apply", g.invert_apply, { rotations(4), x(4, 3), y(4, 5, 3) })
  case("frames_update", function(q, t, u)
    return g.frames_update(q, t, u, place(mf.tensor({ 1, 0, 1 }, { dtype = "float64" })))
  end,
    { x(3, 4) / x(3, 4):norm(2, true), y(3, 3), z(3, 6) })
  case("dihedral", g.dihedral, { x(5, 4, 3) * 2 })
  case("pair_distance_loss", function(t)
    return (g.pair_distance_loss(t, place(y(6, 2, 3)), place(mf.ones(6, 2):bool()), 0, packing()))
  end, { x(6, 2, 3) * 3 })
  case("neighbour_linear", function(w, b)
    local distance = place(mf.tensor { { 0.3, 1.2 }, { 9, 0.31 }, { 0, 1.5 } })
    return g.neighbour_linear(int32 { { 1, 2 }, { 40, 3 }, { 0, 1 } }, distance, w, b,
      { lo = 0.1, hi = 2, bins = 3, feat = 4 })
  end, { x(5, 2 * (3 + 4)), y(5) }).dtypes = { "float32" }    -- positions are embedded in float32 always, each device's own
  case("rotary", function(t) return g.rotary(t, int32 { 0, 1, 40, 100000, -3 }, 4) end, { x(5, 2, 7) })
  case("rotary", function(t) return g.rotary(t, int32 { 7, 8 }, 2, 100) end, { x(2, 3, 2) })

  -- Heads 2, c 3, P 2, Pv 3, r 2, dz 2; the gauge hangs on R and t, but what is computed in it does not.
  local function flash_ipa(o)
    return function(q, kv, q_points, kv_points, head_weights, R, t, pair_bias, pair_value)
      return mf.flash_ipa {
        q = q, kv = kv, q_points = q_points, kv_points = kv_points, pair_bias = pair_bias, pair_value = pair_value,
        head_weights = head_weights, R = R, t = t, packing = packing(), heads = 2, gauge = o.gauge, mask = o.mask,
      }
    end
  end
  case("flash_ipa", flash_ipa { mask = mask { 1, 0, 1, 1, 1, 1 } }, {
    x(6, 6), y(6, 12), z(6, 12) * 0.5, x(6, 30) * 0.5, y(2), rotations(6), z(6, 3), x(6, 2, 2, 2), y(6, 2, 2, 2),
  })
  case("flash_ipa", flash_ipa { gauge = "centred" }, {
    x(6, 6), y(6, 12), z(6, 12) * 0.5, x(6, 30) * 0.5, y(2), rotations(6), z(6, 3),
  })
  case("attention", function(q, k, v, b) return mf.attention(q, k, v, b, packing()) end,
    { x(6, 2, 3), y(6, 2, 3), z(6, 2, 4), x(6, 2) })
  case("pair_attention", function(q, k, v, b, pb, pv) return mf.pair_attention(q, k, v, b, pb, pv, packing()) end,
    { x(6, 2, 3), y(6, 2, 3), z(6, 2, 4), x(6, 2), y(14, 2), z(14, 3) })

  return cases
end
