--- Awkward inputs for every operator: sizes 0, 1, 31, 33, primes and one past a tile; ties, NaN and infinities; |x| near 1000;
-- masks that leave nothing. Differentiable rows have small cases besides, in cases.lua.
local mf = require "moonfold"
local F = require "moonfold.ffi"

local g = mf.geometry
local inf, nan = math.huge, 0 / 0

local function normal(seed, ...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end
local function uniform(seed, ...) return mf.rand({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end
local function numbers(list) return mf.tensor(list, { dtype = "float64" }) end
local function total(lengths)
  local n = 0
  for _, l in ipairs(lengths) do n = n + l end
  return n
end
local function method(name, ...)
  local arguments, n = { ... }, select("#", ...)
  return function(t) return t[name](t, unpack(arguments, 1, n)) end
end

-- Lengths of one pack: nothing, one, one past a warp, one past a tile.
local packs = { { 0 }, { 1 }, { 33, 0, 1, 67 } }
local packs_large = { { 1025, 0, 4099, 31 } }

--- The cases, row by row: lists of functions place -> case (see agreement.lua).
-- @tparam boolean large sizes for a real device as well
return function(large)
  local rows = {}
  -- Values at which functions overflow, jump, or leave their domain. Not denormal: the two sides may flush differently.
  local special = numbers { 0, 1, -1, 0.5, -0.5, 1e-30, -1e-30, 1e3, -1e3, 1e30, -1e30, 20, -20, 88, 89, -88, -104, inf, -inf, nan }

  --- One case: f and its inputs, options beside them.
  local function case(name, f, inputs, options)
    rows[name] = rows[name] or {}
    table.insert(rows[name], function(place)
      local c = { inputs = inputs, f = function(...) return f(place, ...) end }
      for key, value in pairs(options or {}) do c[key] = value end
      if c.oracle then
        local oracle = c.oracle
        c.oracle = function(...) return oracle(place, ...) end
      end
      return c
    end)
  end
  local function plain(name, f, inputs, options) case(name, function(_, ...) return f(...) end, inputs, options) end
  local function with(list, more)
    if large then
      for _, x in ipairs(more) do list[#list + 1] = x end
    end
    return list
  end

  -- ---- elementwise ----
  local sixteen = { dtypes = { "float32", "float64", "float16", "bfloat16" } }
  local lengths = with({ 0, 1, 31, 33, 1025 }, { 100003 })
  -- name, arguments, a map from N(0, 1) to the domain
  local function same(x) return x end
  local function positive(x) return x:abs() + 0.01 end
  local function off(x) return x:floor() + 0.5 end
  local unary = {
    { "affine", same, "affine", 2.5, -1 }, { "pow_scalar", positive, "pow", 1.7 }, { "pow_scalar", same, "pow", 3 },
    { "pow_scalar", positive, "pow", -0.5 }, { "clamp", same, "clamp", -0.7, 0.7 }, { "neg", same, "neg" }, { "abs", same, "abs" },
    { "sign", same, "sign" }, { "floor", off, "floor" }, { "exp", same, "exp" }, { "log", positive, "log" },
    { "sqrt", positive, "sqrt" }, { "rsqrt", positive, "rsqrt" }, { "square", same, "square" },
    { "reciprocal", positive, "reciprocal" }, { "sin", same, "sin" }, { "cos", same, "cos" },
    { "acos", function(x) return x:tanh() * 0.99 end, "acos" }, { "tanh", same, "tanh" }, { "sigmoid", same, "sigmoid" },
    { "relu", same, "relu" }, { "gelu", same, "gelu" }, { "silu", same, "silu" }, { "softplus", same, "softplus" },
  }
  for _, u in ipairs(unary) do
    local name, domain, f = u[1], u[2], method(unpack(u, 3))
    for i, n in ipairs(lengths) do plain(name, f, { domain(normal(i, n)) }, i == 4 and sixteen or nil) end
    plain(name, f, { domain(normal(7, 31, 33)) })
    if name ~= "acos" and name ~= "exp" and u[4] ~= -0.5 then plain(name, f, { domain(normal(8, 33) * 1000) }) end
    if name ~= "pow_scalar" then plain(name, f, { special }, { gradients = false }) end
  end
  plain("pow_scalar", method("pow", 0), { special }, { gradients = false })
  plain("pow_scalar", method("pow", 2), { special }, { gradients = false })
  plain("dropout", function(x) return x:dropout(0.3, mf.rng(5)) end, { normal(1, 1025) })
  plain("dropout", function(x) return x:dropout(0.3, mf.rng(5)) end, { normal(1, 0) })
  for _, precision in ipairs { "fp16", "bf16" } do
    plain("round_to", method("round_to", precision), { normal(1, 31, 33) * 100 }, { exact = true, gradients = false })
    plain("round_to", method("round_to", precision), { special }, { gradients = false })
  end

  local shapes = {
    { { 0 }, { 1 } }, { { 1 }, { 33 } }, { { 31, 1, 33 }, { 7, 1 } }, { { 33, 31 }, { 33, 31 } }, { { 1025 }, { 1025 } },
    { { 5, 33 }, { 33 } }, { { 5, 33 }, { 5, 1 } },
  }
  for _, name in ipairs { "add", "sub", "mul", "div", "pow", "atan2", "maximum", "minimum" } do
    local base = name == "pow" and positive or same
    for i, s in ipairs(shapes) do
      local a, b = base(normal(i, unpack(s[1]))), normal(i + 20, unpack(s[2]))
      if name == "div" then b = b:sign() * positive(b) end
      plain(name, function(p, q) return p[name](p, q) end, { a, b }, i == 4 and name ~= "pow" and sixteen or nil)
    end
    plain(name, function(p, q) return p[name](p, q) end, { special:unsqueeze(1), special:unsqueeze(2) }, { gradients = false })
  end
  local whole = (normal(1, 31, 33) * 3):floor()
  for _, dtype in ipairs { "int32", "int64" } do
    for _, name in ipairs { "add", "sub", "mul", "maximum", "minimum" } do
      plain(name, function(p, q) return p[name](p, q) end, { whole:to(dtype), whole:narrow(1, 2, 1):to(dtype) })
    end
  end
  for name, f in pairs { equal = "eq", less = "lt", less_equal = "le" } do
    for _, dtype in ipairs { "float64", "int32", "int64", "float16", "bfloat16" } do
      plain(name, function(p, q) return p[f](p, q) end, { whole:to(dtype), whole:narrow(1, 3, 1):to(dtype) },
        { gradients = false })
    end
    plain(name, function(p, q) return p[f](p, q) end, { special:unsqueeze(1), special:unsqueeze(2) }, { gradients = false })
    plain(name, function(p, q) return p[f](p, q) end, { normal(1, 0, 3), normal(2, 3) }, { gradients = false })
  end
  local odd, even = whole:gt(0), whole:narrow(1, 2, 1):lt(1)
  plain("logical_and", function(p, q) return p:logical_and(q) end, { odd, even })
  plain("logical_or", function(p, q) return p:logical_or(q) end, { odd, even })
  plain("logical_not", method("logical_not"), { odd })
  plain("logical_not", method("logical_not"), { odd:narrow(1, 1, 0) })
  plain("where", function(c, p, q) return mf.where(c, p, q) end, { odd, normal(1, 31, 33), normal(2, 33) }, sixteen)
  plain("where", function(c, p, q) return mf.where(c, p, q) end, { odd, whole:int(), whole:int() + 1 })
  plain("where", function(c, p) return mf.where(c, p, -inf) end, { even, normal(3, 5, 33) })

  -- ---- copies ----
  local dtypes = { "float32", "float64", "float16", "bfloat16", "int32", "int64", "bool" }
  for _, from in ipairs(dtypes) do
    for _, to in ipairs(dtypes) do
      plain("cast", method("to", to), { (normal(4, 33, 5) * 50):to(from) }, { gradients = false })
    end
    local x = (normal(5, 5, 31, 7) * 50):to(from)
    plain("contiguous", function(t) return t:transpose(1, 3):contiguous() end, { x })
    plain("contiguous", function(t) return t:transpose(2, 3):contiguous() end, { x })
    plain("cat", function(t) return mf.cat({ t, t:narrow(2, 1, 3), t:narrow(2, 1, 0) }, 2) end, { x })
    plain("to_device", function(t) return t:to("cpu") end, { x })
  end
  plain("contiguous", function(t) return t:permute(2, 4, 1, 3):contiguous() end, { normal(1, 3, 33, 2, 31) }, { exact = true })
  plain("contiguous", function(t) return t:t():contiguous() end, { normal(1, 65, 129) }, { exact = true })
  plain("reshape", function(t) return t:transpose(1, 2):reshape(-1) end, { normal(1, 33, 31) }, { exact = true })
  plain("permute", method("permute", 3, 1, 2), { normal(1, 3, 0, 5) })
  plain("narrow", method("narrow", 2, 3, 29), { normal(1, 5, 33) }, { exact = true })
  plain("select", method("select", 2, -1), { normal(1, 5, 33) }, { exact = true })
  plain("expand", method("expand", 31, 33, 5), { normal(1, 33, 1) }, { exact = true })
  plain("split", function(t) return unpack(t:split({ 1, 0, 31, 1 }, 2)) end, { normal(1, 3, 33) }, { exact = true })
  plain("cat", function(a, b) return mf.cat({ a, b, a }, 1) end, { normal(1, 33, 7), normal(2, 1, 7) }, { exact = true })
  plain("to_device", function(t) return t:to("cpu") * 2 end, { normal(1, 33, 7) })

  -- ---- reductions ----
  local reduced = with({ { 1, 1 }, { 7, 3 }, { 33, 31 }, { 3, 1025, 2 }, { 5, 4099 }, { 2, 257, 65 } },
    { { 1000003 }, { 3, 70001, 5 }, { 70001, 3 } })
  for i, shape in ipairs(reduced) do
    local x, ties = normal(i, unpack(shape)), (normal(i, unpack(shape)) * 2):floor()
    for axis = 1, #shape do
      local length = shape[axis]
      plain("sum", method("sum", axis), { x }, i == 2 and sixteen or nil)
      plain("mean", method("mean", axis, true), { x + 1000 })
      for _, name in ipairs { "max", "min" } do
        plain(name, method(name, axis), { x })
        plain(name, method(name, axis), { ties }, { exact = true })
      end
      plain("argmax", method("argmax", axis), { ties })
      plain("argmin", method("argmin", axis), { ties })
      plain("logsumexp", method("logsumexp", axis), { x * 3 })
      plain("cumsum", method("cumsum", axis), { x })
      plain("softmax", method("softmax", axis), { x * 3 })
      plain("log_softmax", method("log_softmax", axis), { x * 3 })
      if length < 5000 or large then
        plain("sort", method("sort", axis), { ties }, { gradients = length < 300 })
        plain("sort", method("sort", axis, true), { x }, { exact = true, gradients = false })
        plain("topk", method("topk", math.min(7, length), axis), { x })
        plain("topk", method("topk", math.min(3, length), axis, false), { ties }, { gradients = false })
      end
    end
    plain("sum", method("sum"), { x })
    plain("sum", method("sum", #shape > 1 and { 1, #shape } or 1), { x:int() })
  end
  plain("sum", method("sum", 2), { normal(1, 2, 0, 3) })
  plain("mean", method("mean", 1), { normal(1, 2, 0) })
  plain("sum", method("sum", 1), { odd })
  plain("sum", method("sum"), { normal(1, 31, 33) * 1000 })
  for _, name in ipairs { "max", "min", "argmax", "argmin", "logsumexp" } do
    plain(name, method(name, 2), { mf.stack({ special, special * 0 + 1, special * 0 - inf }, 2) }, { gradients = false })
    plain(name, method(name, 1), { normal(1, 3, 0) })
  end
  for _, name in ipairs { "max", "argmin" } do plain(name, method(name, 1), { whole:int() }) end
  for _, name in ipairs { "softmax", "log_softmax" } do
    plain(name, method(name, 2), { normal(1, 3, 33) * 1000 })
    plain(name, method(name, 2), { numbers { { 0, -inf, 1 }, { -inf, -inf, -inf }, { inf, 0, 1 }, { nan, 0, 1 } } },
      { gradients = false })
    plain(name, method(name, 1), { normal(1, 0, 3) })
  end
  plain("cumsum", method("cumsum", 1), { normal(1, 0, 3) })
  plain("sort", method("sort", 1), { special }, { gradients = false })
  plain("sort", method("sort", 1, true), { special }, { gradients = false })
  plain("sort", method("sort", 1), { whole:int() })
  plain("sort", method("sort", 1), { normal(1, 0, 3) })
  for i, pack in ipairs(with({ unpack(packs) }, packs_large)) do
    for _, inner in ipairs { 1, 3, 64 } do
      plain("segment_sum", function(t) return t:segment_sum(mf.packing(pack)) end, { normal(i, total(pack), inner) })
      plain("segment_expand", function(t) return t:segment_expand(mf.packing(pack)) end, { normal(i, #pack, inner) })
    end
  end

  -- ---- products, norms ----
  local products = with({ { 1, 1, 1 }, { 31, 33, 5 }, { 33, 0, 5 }, { 0, 3, 5 }, { 65, 129, 67 } }, { { 1025, 513, 257 } })
  for i, s in ipairs(products) do
    local m, k, n = unpack(s)
    plain("matmul", function(a, b) return a:matmul(b) end, { normal(i, m, k), normal(i + 9, k, n) })
    plain("matmul", function(a, b) return a:t():matmul(b:t()) end, { normal(i, k, m), normal(i + 9, n, k) })
    plain("linear", function(a, w, b) return a:linear(w, b) end, { normal(i, 2, m, k), normal(i + 9, n, k), normal(3, n) })
    plain("linear", function(a, w) return a:linear(w) end, { normal(i, m, k), normal(i + 9, n, k) })
    plain("linear_relu", function(a, w, b) return a:linear(w, b, "relu") end,
      { normal(i, m, k), normal(i + 9, n, k), normal(3, n) })
  end
  plain("matmul", function(a, b) return a:matmul(b) end, { normal(1, 3, 1, 7, 5), normal(2, 33, 5, 2) })
  plain("matmul", function(a, b) return a:matmul(b) end, { normal(1, 33, 3, 3), normal(2, 33, 3, 1) })
  local normed = with({ { 0, 5 }, { 33, 1 }, { 1, 31 }, { 33, 128 }, { 5, 257 }, { 3, 1025 } }, { { 4099, 256 }, { 7, 70001 } })
  for i, s in ipairs(normed) do
    for _, offset in ipairs { 0, 1000 } do
      plain("layer_norm", function(a, w, b) return a:layer_norm(w, b) end,
        { normal(i, s[1], s[2]) + offset, normal(2, s[2]), normal(3, s[2]) })
    end
  end

  -- ---- indexing ----
  local function index(seed, n, ...) return (uniform(seed, ...) * n):floor():int() end
  for i, s in ipairs(with({ { 33, 31, 1 }, { 1, 5, 3 }, { 7, 1025, 64 }, { 5, 0, 3 } }, { { 1009, 100003, 5 } })) do
    local size, m, inner = unpack(s)
    for _, kind in ipairs { "int32", "int64" } do
      local flat, full = index(i, size, m):to(kind), index(i, size, m, inner):to(kind)
      plain("index_select", function(t, at) return t:index_select(1, at) end, { normal(i, size, inner), flat })
      plain("index_select", function(t, at) return t:index_select(2, at) end, { normal(i, 3, size, inner), flat })
      plain("index_add", function(t, at, from) return t:index_add(1, at, from) end,
        { normal(i, size, inner), flat, normal(9, m, inner) })
      plain("gather", function(t, at) return t:gather(1, at) end, { normal(i, size, inner), full })
      plain("scatter_add", function(t, at, from) return t:scatter_add(1, at, from) end,
        { normal(i, size, inner), full, normal(9, m, inner) })
    end
  end
  plain("index_select", function(t, at) return t:index_select(2, at) end, { whole:int(), index(1, 33, 7) })
  plain("index_select", function(t, at) return t:index_select(1, at) end, { odd, index(1, 31, 7) })

  -- ---- geometry ----
  local counts = with({ 0, 1, 31, 33, 257 }, { 100003 })
  -- Angles of every size, zero and nearly pi among them.
  local function turns(n)
    local v = normal(31, n, 3)
    if n < 5 then return v end
    return mf.cat({ v:narrow(1, 1, n - 4), numbers { { 0, 0, 0 }, { 1e-9, 0, 0 }, { 3.1415, 0, 0 }, { 0, 1e-4, 0 } } }, 1)
  end
  local function rotations(n) return g.so3_exp(turns(n)) end
  for i, n in ipairs(counts) do
    local x, y, z = normal(i, n, 3), normal(i + 20, n, 3), normal(i + 40, n, 3)
    local q = normal(i, n, 4)
    q = q / q:norm(2, true)
    plain("quat_to_rot", g.quat_to_rot, { q })
    plain("quat_multiply", g.quat_multiply, { q, normal(2, n, 4) })
    plain("so3_exp", g.so3_exp, { turns(n) })
    plain("rot_to_quat", g.rot_to_quat, { g.quat_to_rot(q) })
    plain("so3_log", g.so3_log, { g.so3_exp(normal(i, n, 3) * 0.5) })
    plain("frames_from_points", g.frames_from_points, { x, y, z })
    for _, points in ipairs { 1, 5, 33 } do
      plain("frames_apply", g.apply, { rotations(n), x * 100, normal(3, n, points, 3) })
      plain("frames_invert_apply", g.invert_apply, { rotations(n), x * 100, normal(3, n, points, 3) })
    end
    plain("frames_update", g.frames_update, { q, x * 100, normal(4, n, 6), uniform(1, n):gt(0.3):double() })
    plain("dihedral", g.dihedral, { normal(i, n, 4, 3) * 3 })
    plain("distogram", function(d) return g.distogram(d, 0.001, 20, 22) end, { uniform(i, n, 7) * 25 }, { gradients = false })
    for _, width in ipairs { 2, 32, 130 } do
      plain("index_embedding", function(at) return g.index_embedding(at, width) end, { index(i, 2000, n, 3) })
    end
  end
  for i, pack in ipairs(with({ unpack(packs) }, packs_large)) do
    local n = total(pack)
    local x, packing = normal(i, n, 3) * 20, function() return mf.packing(pack) end
    local some, none = uniform(2, n):gt(0.3), mf.zeros(n, { dtype = "float64" })
    plain("frames_gauge", function(R, t) return g.gauge(R, t, nil, packing()) end, { rotations(n), x }, { gradients = false })
    for _, mask in ipairs { some:double(), none } do
      plain("frames_gauge", function(R, t, m) return g.gauge(R, t, m, packing()) end, { rotations(n), x, mask },
        { gradients = false })
    end
    if n > 1 then
      -- the best rotation of a handful of points is well determined, of one or two it is not
      local four = mf.packing { 4, 33 }
      plain("kabsch", function(a, b) return g.kabsch(a, b, nil, four) end, { normal(1, 37, 3) * 10, normal(2, 37, 3) * 10 },
        { gradients = false })
      plain("kabsch", function(a, b, w) return g.kabsch(a, b, w, four) end,
        { normal(1, 37, 3) * 10, normal(2, 37, 3) * 10, uniform(3, 37) }, { gradients = false })
    end
    plain("kabsch", function(a, b, w) return (select(3, g.kabsch(a, b, w, packing()))) end, { x, normal(7, n, 3), some:double() },
      { gradients = false })
    if n > 1 then
      local five = mf.packing { 33, 7, 33, 0, 7 }
      local pairs_of = mf.tensor({ { 0, 2 }, { 2, 0 }, { 4, 1 }, { 3, 3 }, { 2, 2 } }, { dtype = "int32" })
      for _, weight in ipairs { false, uniform(3, 80) } do
        plain("kabsch_pairs", function(a, b, list)
          return g.kabsch_pairs(a, b, weight and weight:to(a:device()):to(a:dtype()) or nil, five, list)
        end, { normal(1, 80, 3) * 10, normal(2, 80, 3) * 10, pairs_of }, { gradients = false })
      end
    end
    for _, atoms in ipairs { 1, 3, 5 } do
      for _, cutoff in ipairs { 0, 15 } do
        plain("pair_distance_loss", function(a, b, m) return g.pair_distance_loss(a, b, m, cutoff, packing()) end,
          { normal(1, n, atoms, 3) * 10, normal(2, n, atoms, 3) * 10, uniform(3, n, atoms):gt(0.2) })
      end
    end
    plain("pair_distance_loss", function(a, b, m) return g.pair_distance_loss(a, b, m, 0, packing()) end,
      { normal(1, n, 3, 3) * 10, normal(2, n, 3, 3) * 10, mf.zeros(n, 3):bool() })
  end
  -- k is at most the shortest length
  for i, pack in ipairs(with({ { 1 }, { 33, 40, 67 } }, { { 1025, 33, 4099 } })) do
    local n = total(pack)
    local x, packing = normal(i, n, 3) * 20, function() return mf.packing(pack) end
    for _, cloud in ipairs { x, x:floor() / 8, x * 0 } do     -- spread out, with ties, all in one place
      for _, k in ipairs(n == 1 and { 1 } or { 1, 17, 33 }) do
        plain("neighbours", function(t) return g.neighbours(t, nil, k, packing()) end, { cloud }, { gradients = false })
      end
      for _, mask in ipairs { uniform(2, n):gt(0.3), mf.zeros(n):bool() } do
        plain("neighbours", function(t, m) return g.neighbours(t, m, 1, packing()) end, { cloud, mask }, { gradients = false })
      end
    end
  end
  for _, s in ipairs(with({ { 0, 3, 5 }, { 1, 1, 33 }, { 33, 30, 128 } }, { { 4099, 30, 128 } })) do
    local n, k, outputs = unpack(s)
    case("neighbour_linear", function(place, w, b)
      return g.neighbour_linear(place(index(1, 500, n, k)), place((uniform(2, n, k) * 25):float()), w, b,
        { lo = 0.001, hi = 20, bins = 22, feat = 32 })
    end, { normal(1, outputs, k * 54), normal(2, outputs) }, { dtypes = { "float32" } })    -- positions are embedded in float32
  end
  -- n, heads, width, dim: copied columns, vectors and not, more heads than threads, more columns than a block takes
  for i, s in ipairs(with({
    { 0, 3, 6, 4 }, { 1, 1, 2, 2 }, { 257, 1, 2, 2 }, { 31, 3, 9, 6 }, { 33, 8, 64, 32 }, { 3, 300, 8, 8 }, { 2, 1, 700, 600 },
    { 2, 2, 1100, 8 },
  }, { { 4099, 8, 256, 128 } })) do
    local n, heads, width, dim = unpack(s)
    plain("rotary", function(x, at) return g.rotary(x, at, dim) end, { normal(i, n, heads, width), index(i, 2000, n) })
  end

  -- ---- attention: key biases with masked keys, and a sequence where all are ----
  local precisions = { false, "fp16", "bf16" }
  -- A lone residue's dq and dk are dP - delta, two sums of a value's width, some hundred products, times k and q.
  local LONE = 1000
  local widths = { { 1, 3 }, { 3, 1 }, { 33, 20 }, { 154, 228 }, { 300, 7 } }
  local function key_bias(lengths_, heads)
    local n = total(lengths_)
    local b = normal(4, n, heads)
    b = mf.where(uniform(5, n, 1):gt(0.8), -inf, b)
    local last = lengths_[#lengths_]
    return n == 1 and b or mf.cat({ b:narrow(1, 1, n - last), mf.full({ last, heads }, -inf, { dtype = "float64" }) }, 1)
  end
  for _, pack in ipairs(with({ { 0 }, { 1 }, { 33, 0, 67, 1, 5 }, { 130 } }, { { 1025, 0, 513, 64 } })) do
    local n, heads = total(pack), 2
    for _, width in ipairs(n > 0 and widths or { { 3, 5 } }) do
      local dqk, dv = unpack(width)
      for _, precision in ipairs(precisions) do
        local function attend(_, q, k, v, b) return mf.attention(q, k, v, b, mf.packing(pack), precision or "exact") end
        local function exact(_, q, k, v, b) return mf.attention(q, k, v, b, mf.packing(pack)) end
        local options = precision and { dtypes = { "float32" }, oracle = exact } or {}
        options.cancels = n == 1 and LONE or 0
        local q, k, v = normal(1, n, heads, dqk) / math.sqrt(dqk), normal(2, n, heads, dqk), normal(3, n, heads, dv)
        case("attention", attend, { q, k, v }, options)
        if width == widths[3] or width == widths[4] then
          case("attention", function(place, a, b, c) return attend(place, a, b, c, place(key_bias(pack, heads))) end, { q, k, v }, {
            dtypes = options.dtypes, cancels = options.cancels,
            oracle = precision and function(place, a, b, c) return exact(place, a, b, c, place(key_bias(pack, heads))) end,
          })
          case("attention", attend, { q, k, v, normal(6, n, heads) }, options)
        end
        if not precision then
          plain("attention_attend", function(a, b, c, bias)
            F.check(F.C.mf_attention_attend(F.out, F.out2, a, b, c, bias, mf.packing(pack), F.C.MF_EXACT))
            local lse = F.adopt(F.out2[0])
            return F.adopt(F.out[0]), lse
          end, { q, k, v, normal(6, n, heads) })
        end
      end
    end
  end
  for _, pack in ipairs(with({ { 0 }, { 1 }, { 33, 0, 7 } }, { { 257, 130 } })) do
    local n, p, heads, dz = total(pack), 0, 3, 5
    for _, l in ipairs(pack) do p = p + l * l end
    for _, precision in ipairs(precisions) do
      local function attend(how)
        return function(place, q, k, v, pb, pv, b)
          return mf.pair_attention(q, k, v, b or place(key_bias(pack, heads)), pb, pv, mf.packing(pack), how)
        end
      end
      local options = precision and { dtypes = { "float32" }, oracle = attend "exact" } or {}
      options.cancels = n == 1 and LONE or 0
      local q, k, v = normal(1, n, heads, 31) / 5, normal(2, n, heads, 31), normal(3, n, heads, 20)
      local pb, pv = normal(5, p, heads), normal(6, p, dz)
      case("pair_attention", attend(precision or "exact"), { q, k, v, pb, pv }, options)
      case("pair_attention", attend(precision or "exact"), { q, k, v, pb, pv, normal(7, n, heads) }, options)
    end
  end

  -- ---- flash IPA: heads, c, P, Pv, r, dz ----
  for i, pack in ipairs(with({ { 0 }, { 1 }, { 33, 0, 7 }, { 67 } }, { { 513, 130 } })) do
    local n = total(pack)
    for _, w in ipairs { { 2, 5, 3, 4, 2, 3 }, { 3, 16, 8, 12, 2, 8 }, { 1, 1, 1, 1, 0, 0 } } do
      local heads, c, P, Pv, r, dz = unpack(w)
      for _, precision in ipairs { "exact", "fp16", "bf16", "split" } do
        local function attend(name, how)
          return function(_, q, kv, q_points, kv_points, head_weights, R, t, pair_bias, pair_value, mask)
            return mf[name] {
              q = q, kv = kv, q_points = q_points, kv_points = kv_points, head_weights = head_weights, R = R, t = t,
              pair_bias = pair_bias, pair_value = pair_value, mask = mask, packing = mf.packing(pack), heads = heads,
              precision = how == "split" and "fp16" or how, split = how == "split",
            }
          end
        end
        local inputs = {
          normal(i, n, heads * c), normal(2, n, 2 * heads * c), normal(3, n, 3 * heads * P), normal(4, n, 3 * heads * (P + Pv)),
          uniform(5, heads), rotations(n), normal(6, n, 3) * 10, n = 10,
        }
        if r > 0 then inputs[8], inputs[9] = normal(7, n, 2, r, heads), normal(8, n, 2, r, dz) end
        local options = precision ~= "exact" and { dtypes = { "float32" }, oracle = attend("flash_ipa", "exact") } or {}
        options.cancels = n == 1 and LONE or 0
        case("flash_ipa", attend("flash_ipa", precision), inputs, options)
        if n > 1 then
          local masked = { unpack(inputs, 1, 10) }
          masked[10], masked.n = uniform(9, n):gt(0.3), 10
          case("flash_ipa", attend("flash_ipa", precision), masked, options)
          masked = { unpack(masked, 1, 10) }
          masked[10], masked.n = mf.zeros(n):bool(), 10
          case("flash_ipa", attend("flash_ipa", precision), masked, options)
        end
        case("flash_ipa_attend", attend("flash_ipa_attend", precision), inputs,
          { dtypes = options.dtypes, oracle = precision ~= "exact" and attend("flash_ipa_attend", "exact") or nil })
      end
    end
  end

  return rows
end
