-- Invariant point attention: against the definition, under rigid motions, in packs.
local mf = require "moonfold"
local nn = mf.nn
local help = require "spec.support.nn"

-- A compiled trace keeps the closures it has met, and they the tensors they captured: let go before live bytes are counted.
teardown(function() jit.flush() end)

local function layer_of(o)
  local options = {
    dim = 24, edge = 12, rank = 2, heads = 3, hidden = 8, query_points = 4, value_points = 5, init = "default", rng = mf.rng(21),
  }
  for key, value in pairs(o or {}) do options[key] = value end
  return nn.ipa(options)
end

local function inputs_of(lengths, rng, o)
  o = o or {}
  local packing = mf.packing(lengths)
  local n = packing:total()
  local R, t = help.chain(n, rng)
  return {
    s = mf.randn(n, o.dim or 24, { rng = rng }), frames = { R = R, t = t }, packing = packing,
    pair = mf.randn(n, 2, o.rank or 2, o.edge or 12, { rng = rng }),
  }
end

local function with_frames(inputs, R, t)
  local other = {}
  for key, value in pairs(inputs) do other[key] = value end
  other.frames = { R = R, t = t }
  return other
end

-- The layer written down pair by pair, in float64, from its own weights: quadratic, head by head.
local function by_definition(layer, inputs)
  local w = layer:state()
  local function lin(name, x) return x:linear(w[name .. ".weight"], w[name .. ".bias"]) end
  local o = layer._options
  local H, c, P, V, N = o.heads, o.hidden, o.query_points, o.value_points, inputs.s:size(1)
  local s, R, t = inputs.s, inputs.frames.R, inputs.frames.t
  local function points(name, count)                       -- (N, count, 3), global
    local x = lin(name, s):reshape(N, 3, count):transpose(2, 3)
    return x:matmul(R:transpose(2, 3)) + t:reshape(N, 1, 3)
  end
  local q, kv = lin("linear_q", s):reshape(N, H, c), lin("linear_kv", s):reshape(N, H, 2 * c)
  local qp = points("linear_q_points", H * P):reshape(N, H, P, 3)
  local kvp = points("linear_kv_points", H * (P + V)):reshape(N, H, P + V, 3)
  local b, y = lin("linear_b", inputs.pair), lin("down_z", inputs.pair)
  local gamma = w.head_weights:softplus() * math.sqrt(1 / (3 * P * 4.5))
  local sequence = inputs.packing:sequence()
  local apart = sequence:reshape(N, 1):ne(sequence:reshape(1, N))
  if inputs.mask then apart = apart:logical_or(inputs.mask:reshape(1, N):lt(0.5)) end
  local parts = { {}, {}, {}, {}, {}, {} }
  for h = 1, H do
    local a = q:select(2, h):matmul(kv:select(2, h):narrow(2, 1, c):t()) * math.sqrt(1 / (3 * c))
    local from, to = qp:select(2, h), kvp:select(2, h):narrow(2, 1, P)
    local square = (from:reshape(N, 1, P, 3) - to:reshape(1, N, P, 3)):square():sum({ 3, 4 })
    a = a - square * gamma:select(1, h) * 0.5
    for rho = 1, o.rank do
      a = a + b:select(2, 1):select(2, rho):select(2, h):reshape(N, 1) * b:select(2, 2):select(2, rho):select(2, h):reshape(1, N)
    end
    local alpha = a:masked_fill(apart, -math.huge):softmax(2)
    parts[1][h] = alpha:matmul(kv:select(2, h):narrow(2, c + 1, c))
    local placed = alpha:matmul(kvp:select(2, h):narrow(2, P + 1, V):reshape(N, V * 3)):reshape(N, V, 3)
    local back = (placed - t:reshape(N, 1, 3)):matmul(R)    -- rows times R: R' (x - t)
    for axis = 1, 3 do parts[1 + axis][h] = back:select(3, axis) end
    parts[5][h] = (back:square():sum(3) + 1e-8):sqrt()
    local pair
    for rho = 1, o.rank do
      local mixed = y:select(2, 1):select(2, rho) * alpha:matmul(y:select(2, 2):select(2, rho))
      pair = pair and pair + mixed or mixed
    end
    parts[6][h] = pair
  end
  for i = 1, 6 do parts[i] = mf.cat(parts[i], 2) end
  return lin("linear_out", mf.cat(parts, 2))
end

local function to_double(inputs)
  local out = { packing = inputs.packing, mask = inputs.mask }
  out.s, out.pair = inputs.s:to("float64"), inputs.pair:to("float64")
  out.frames = { R = inputs.frames.R:to("float64"), t = inputs.frames.t:to("float64") }
  return out
end

describe("ipa", function()
  for _, gauge in ipairs { "canonical", "centred", "none" } do
    for _, layout in ipairs { "3p", "published" } do
      it(("is the quadratic reference on the same factors (gauge %s, layout %s)"):format(gauge, layout), function()
        local rng = mf.rng(31)
        local layer = help.stir(layer_of { gauge = gauge, layout = layout }, rng):to("float64")
        local inputs = to_double(inputs_of({ 7, 1, 12 }, rng))
        -- float64: sums of some hundred terms of size 1 after a cancellation of some 100
        help.close(layer(inputs), by_definition(layer, inputs), 1e-12)
      end)
    end
  end

  it("has the gradients of the quadratic reference, whatever the gauge", function()
    local rng = mf.rng(32)
    local layer = help.stir(layer_of {}, rng):to("float64")
    local inputs = to_double(inputs_of({ 6, 5 }, rng))
    inputs.mask = mf.tensor { 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0 }
    local cotangent = mf.randn(11, 24, { rng = rng, dtype = "float64" })
    local function gradients(run)
      local leaves = { inputs.s, inputs.pair, inputs.frames.R, inputs.frames.t }
      for i, x in ipairs(leaves) do leaves[i] = x:clone():require_grad() end
      for _, p in ipairs(layer:parameters()) do p:zero_grad() end
      local out = run {
        s = leaves[1], pair = leaves[2], frames = { R = leaves[3], t = leaves[4] }, packing = inputs.packing, mask = inputs.mask,
      }
      out:backward(cotangent)
      local list = {}
      for _, x in ipairs(leaves) do list[#list + 1] = x:grad():clone() end
      for _, p in ipairs(layer:parameters()) do list[#list + 1] = p:grad():clone() end
      return list
    end
    local ours = gradients(layer)
    local theirs = gradients(function(x) return by_definition(layer, x) end)
    assert.equal(#theirs, #ours)
    for i, reference in ipairs(theirs) do help.close(ours[i], reference, 1e-10) end
  end)

  it("does not move when the structure turns and is carried 10 nm away", function()
    local rng = mf.rng(33)
    local layer = layer_of { dim = 64, edge = 32, heads = 4, hidden = 32, query_points = 8, value_points = 12 }
    local inputs = inputs_of({ 512 }, rng, { dim = 64, edge = 32 })
    local R, t = help.moved(inputs.frames.R, inputs.frames.t, 10, rng)
    local there = with_frames(inputs, R, t)
    mf.no_grad(function()
      layer._options.precision = "float32"
      -- the moved coordinates are themselves rounded: 2^-24 of 20 nm against distances of some nm
      help.close(layer(there), layer(inputs), 1e-5)
      layer._options.precision = "fp16"
      help.close(layer(there), layer(inputs), 5e-5)
    end)
  end)

  it("loses less to rounding the smaller the numbers: published, centred, canonical, split", function()
    local rng = mf.rng(34)
    local inputs = inputs_of({ 256 }, rng)
    local R, t = help.moved(inputs.frames.R, inputs.frames.t, 10, rng)
    local there = with_frames(inputs, R, t)
    local function change(o)
      o.precision = "fp16"
      if o.split then o.precision, o.split = "split", nil end
      local layer = layer_of(o)
      return mf.no_grad(function() return help.relative(layer(there), layer(inputs)) end)
    end
    local published = change { layout = "published", gauge = "none" }
    local centred = change { gauge = "centred" }
    local canonical = change { gauge = "canonical" }
    assert.is_true(centred < published)
    assert.is_true(canonical < centred)
  end)

  it("comes nearer to float32 with split points", function()
    local rng = mf.rng(35)
    local inputs = inputs_of({ 128 }, rng)
    local layer = layer_of { hidden = 4 }
    local function at(precision)
      layer._options.precision = precision
      return mf.no_grad(function() return layer(inputs) end)
    end
    local exact = at "float32"
    assert.is_true(help.relative(at "split", exact) < help.relative(at "fp16", exact))
    layer._options.split_type = "bf16"
    assert.is_true(help.relative(at "split", exact) < help.relative(at "bf16", exact))
  end)

  it("passes gradients through split points as if they were whole", function()
    local rng = mf.rng(36)
    local inputs = inputs_of({ 33 }, rng)
    local layer = layer_of {}
    local function gradient(precision)
      layer._options.precision = precision
      local t = inputs.frames.t:clone():require_grad()
      layer(with_frames(inputs, inputs.frames.R, t)):square():sum():backward()
      return t:grad()
    end
    -- sixteen-bit products: 2^-11 of each, a few hundred of them
    help.close(gradient "split", gradient "float32", 5e-3)
  end)

  it("gives each chain of a pack what it gives it alone, in any order", function()
    local rng = mf.rng(37)
    local layer = layer_of {}
    local inputs = inputs_of({ 5, 0, 9, 1 }, rng)
    local together = layer(inputs)
    local function part(list, lengths)
      local one = { packing = mf.packing(lengths), s = help.rows(inputs.s, list), pair = help.rows(inputs.pair, list) }
      one.frames = { R = help.rows(inputs.frames.R, list), t = help.rows(inputs.frames.t, list) }
      return layer(one)
    end
    local order = { 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0, 1, 2, 3, 4 }
    help.close(part(order, { 9, 1, 5 }), help.rows(together, order), 1e-6)
    help.close(part({ 0, 1, 2, 3, 4 }, { 5 }), together:narrow(1, 1, 5), 1e-6)
    help.close(part({ 14 }, { 1 }), together:narrow(1, 15, 1), 1e-6)
  end)

  it("does not see masked residues", function()
    local rng = mf.rng(38)
    local layer = layer_of {}
    local inputs = inputs_of({ 8 }, rng)
    inputs.mask = mf.tensor { 1, 1, 0, 1, 1, 1, 0, 1 }
    local before = layer(inputs)
    local keep = inputs.mask:reshape(8, 1)
    local other = with_frames(inputs, inputs.frames.R, inputs.frames.t * keep + (1 - keep) * 50)
    other.s = inputs.s * keep - (1 - keep) * 3
    local rows = { 0, 1, 3, 4, 5, 7 }
    help.close(help.rows(layer(other), rows), help.rows(before, rows), 1e-6)
    inputs.mask = inputs.mask:gt(0.5)
    help.close(layer(inputs), before, 1e-7)
  end)

  it("stays finite for a chain with no residue left", function()
    local inputs = inputs_of({ 3, 4 }, mf.rng(39))
    inputs.mask = mf.tensor { 0, 0, 0, 1, 1, 1, 1 }
    inputs.s:require_grad()
    local out = layer_of()(inputs)
    assert.is_true(out:square():sum():item() < math.huge)
    out:sum():backward()
    assert.is_true(inputs.s:grad():square():sum():item() < math.huge)
  end)

  it("needs no pairs at rank 0", function()
    local layer = layer_of { rank = 0 }
    local inputs = inputs_of({ 6 }, mf.rng(40))
    inputs.pair = nil
    assert.same({ 6, 24 }, layer(inputs):shape())
    assert.is_nil(layer:state()["linear_b.weight"])
    assert.same({ 24, 3 * (8 + 4 * 5) }, layer.linear_out.weight:shape())
  end)

  it("takes factors as a list too, and refuses those of another rank", function()
    local layer = layer_of {}
    local inputs = inputs_of({ 6 }, mf.rng(41))
    local before = layer(inputs)
    inputs.pair = { inputs.pair:select(2, 1), inputs.pair:select(2, 2) }
    help.close(layer(inputs), before, 1e-7)
    inputs.pair = mf.randn(6, 2, 3, 12)
    local ok, message = pcall(layer, inputs)
    assert.is_false(ok)
    assert.matches("factors (6, 2, 3, 12), expected (N, 2, 2, 12)", message, 1, true)
  end)

  it("grows linearly in memory", function()
    local layer = layer_of {}
    local function peak(n)
      local inputs = inputs_of({ n }, mf.rng(42))
      collectgarbage()
      collectgarbage()
      local before = mf.memory().live
      mf.reset_peak()
      layer(inputs):sum():backward()
      return mf.memory().peak - before
    end
    peak(64)
    assert.is_true(peak(1024) <= 2.1 * peak(512))
  end)
end)

describe("dense_ipa", function()
  it("is ipa without pairs when its pair weights vanish", function()
    local rng = mf.rng(43)
    local o = { dim = 24, edge = 12, heads = 3, hidden = 8, query_points = 4, value_points = 5, init = "default" }
    local dense = nn.dense_ipa(o)
    o.rank = 0
    local flash = nn.ipa(o)
    mf.no_grad(function()
      for _, layer in ipairs { dense.linear_b, dense.down_z } do
        layer.weight:zero_()
        layer.bias:zero_()
      end
    end)
    local state = {}
    for name, x in pairs(dense:state()) do if not name:find "^linear_b" and not name:find "^down_z" then state[name] = x end end
    state["linear_out.weight"] = state["linear_out.weight"]:narrow(2, 1, 3 * (8 + 20)):contiguous()
    flash:load(state)
    local inputs = inputs_of({ 9, 4 }, rng)
    local z = mf.randn(9 * 9 + 4 * 4, 12, { rng = rng })
    local bare = { s = inputs.s, frames = inputs.frames, packing = inputs.packing }
    local dense_inputs = { s = inputs.s, frames = inputs.frames, packing = inputs.packing, pair = z }
    help.close(dense(dense_inputs), flash(bare), 1e-6)
  end)

  it("changes by less than 1e-6 when a Gaussian cloud of unit size is moved as one body", function()
    local rng, n = mf.rng(47), 128
    local layer = nn.dense_ipa { dim = 64, edge = 16, heads = 4, hidden = 16, init = "default", rng = rng }
    local z, s = mf.randn(n * n, 16, { rng = rng }), mf.randn(n, 64, { rng = rng })
    local R, t = mf.random.rotations(n, { rng = rng }), mf.randn(n, 3, { rng = rng })
    local function run(at, to) return layer { s = s, frames = { R = at, t = to }, pair = z, packing = mf.packing { n } } end
    local there = run(help.moved(R, t, 1, rng))
    assert.is_true(help.relative(there, run(R, t)) < 1e-6)
  end)

  it("weighs pairs by pair_scale", function()
    local rng = mf.rng(44)
    local o = { dim = 24, edge = 12, heads = 3, hidden = 8, query_points = 4, value_points = 5, init = "default", pair_scale = 1 }
    local whole = help.stir(nn.dense_ipa(o), rng)
    o.pair_scale = nil
    local scaled = nn.dense_ipa(o)
    scaled:load(whole:state())
    mf.no_grad(function()
      scaled.linear_b.weight:mul_(math.sqrt(3))
      scaled.linear_b.bias:mul_(math.sqrt(3))
    end)
    local inputs = inputs_of({ 6, 3 }, rng)
    inputs.pair = mf.randn(45, 12, { rng = rng })
    help.close(scaled(inputs), whole(inputs), 1e-6)
  end)
end)
