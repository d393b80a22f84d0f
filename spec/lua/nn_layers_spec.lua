-- Embedders, transitions, updates, the transformer, torsions: what fresh layers do, masks, packs, mistakes.
local mf = require "moonfold"
local nn = mf.nn
local help = require "spec.support.nn"

-- A compiled trace keeps the closures it has met, and they the tensors they captured: let go before live bytes are counted.
teardown(function() jit.flush() end)

local function positions(n, rng)
  local _, t = help.chain(n, rng)
  return t * 10
end

describe("a fresh layer", function()
  it("returns nothing, or what it was given, where its last weights are zero", function()
    local rng = mf.rng(61)
    local R, t = help.chain(9, rng)
    local s, packing = mf.randn(9, 16, { rng = rng }), mf.packing { 9 }
    local ipa = nn.ipa { dim = 16, rank = 0, heads = 2, hidden = 4 }
    assert.equal(0, ipa { s = s, frames = { R = R, t = t }, packing = packing }:abs():sum():item())
    local q, moved = nn.backbone_update { dim = 16 }(s, R, t)
    help.close(mf.geometry.quat_to_rot(q), R, 1e-6)
    help.close(moved, t, 1e-7)
    local z = mf.randn(9, 2, 2, 8, { rng = rng })
    -- LN of a residual of random inputs is not zero; LN of nothing is
    local transition = nn.edge_transition { node = 16, edge = 8 }
    assert.same({ 9, 2, 2, 8 }, transition(s, z):shape())
    assert.equal(0, nn.torsion_angles { dim = 16 }(s):abs():sum():item())
  end)
end)

describe("the small layers", function()
  it("compute what their names say", function()
    local rng = mf.rng(62)
    local x = mf.randn(3, 4, { rng = rng })
    local net = nn.mlp { input = 4, hidden = 5, output = 2, activation = "silu", norm = true, rng = rng }
    local w = net:state()
    local names = {}
    for name in pairs(w) do names[#names + 1] = name end
    table.sort(names)
    assert.same({ "0.bias", "0.weight", "2.bias", "2.weight", "4.bias", "4.weight", "5.bias", "5.weight" }, names)
    local y = x:linear(w["0.weight"], w["0.bias"]):silu():linear(w["2.weight"], w["2.bias"]):silu()
    y = y:linear(w["4.weight"], w["4.bias"])
    local centred = y - y:mean(2, true)
    help.close(net(x), centred / (centred:square():mean(2, true) + 1e-5):sqrt(), 1e-5)
    local rows = nn.embedding { count = 6, dim = 3, rng = rng }
    local index = mf.tensor({ 5, 0, 5 }, { dtype = "int32" })
    local picked = rows(index)
    assert.equal(picked:narrow(1, 1, 1):bytes(), rows.weight:narrow(1, 6, 1):bytes())
    picked:sum():backward()
    assert.same({ 1, 0, 0, 0, 0, 2 }, rows.weight:grad():select(2, 1):totable())
  end)

  it("refuse what they cannot be", function()
    for _, make in ipairs {
      function() nn.mlp { input = 2, output = 2, activation = "cube" } end,
      function() nn.linear { input = 2, output = 2, init = "best" } end,
      function() nn.sequential { 3 } end,
      function() nn.sequential {} end,
      function() nn.dropout { rate = 1 } end,
      function() nn.term.points { layout = "4p" } end,
      function() nn.ipa { dim = 4, hidden = 2, gauge = "lorenz" } end,
    } do
      local ok, message = pcall(make)
      assert.is_false(ok)
      assert.matches("nn_layers_spec.lua:", message, 1, true)
    end
    local ok, message = pcall(nn.ipa { dim = 4, hidden = 2, precision = "fp8" }, { s = mf.zeros(1, 4), packing = mf.packing { 1 } })
    assert.is_false(ok)
    assert.matches("unknown precision 'fp8'", message, 1, true)
  end)
end)

describe("the time embedding", function()
  it("is the published series, with a zero at odd widths", function()
    local e = nn.features.time(mf.tensor { 0, 0.25, 1 }, 7, 10000):totable()
    for row, t in ipairs { 0, 0.25, 1 } do
      for j = 0, 2 do
        local angle = t * 10000 * math.exp(-j * math.log(10000) / 2)
        assert.near(math.sin(angle), e[row][j + 1], 1e-6)
        assert.near(math.cos(angle), e[row][j + 4], 1e-6)
      end
      assert.equal(0, e[row][7])
    end
  end)
end)

describe("the edge embedder", function()
  local function embed(o, inputs)
    local options = { node = 12, edge = 8, feat = 6, bins = 5, rank = 2, neighbours = 3, rng = mf.rng(71) }
    for key, value in pairs(o) do options[key] = value end
    return nn.edge_embedder(options)(inputs)
  end

  local function inputs_of(lengths, rng)
    local packing = mf.packing(lengths)
    local n = packing:total()
    return { s = mf.randn(n, 12, { rng = rng }), translations = positions(n, rng), trans_sc = positions(n, rng), packing = packing }
  end

  it("gives factors, dense pairs or nothing, by its mode", function()
    local inputs = inputs_of({ 7, 4 }, mf.rng(72))
    assert.same({ 11, 2, 2, 8 }, embed({ mode = "flash_1d_bias" }, inputs):shape())
    assert.same({ 65, 8 }, embed({ mode = "orig_2d_bias" }, inputs):shape())
    assert.same({ 11, 2, 2, 8 }, embed({ mode = "flash_2d_factorize_bias", max_len = 7 }, inputs):shape())
    assert.is_nil(embed({ mode = "flash_no_bias" }, inputs))
    assert.is_nil(embed({ mode = "orig_no_bias" }, inputs))
  end)

  for _, o in ipairs { { mode = "flash_1d_bias" }, { mode = "orig_2d_bias" }, { mode = "flash_2d_factorize_bias", max_len = 9 } } do
    it(("gives each chain of a pack what it gives it alone (%s)"):format(o.mode), function()
      local inputs = inputs_of({ 4, 9, 3 }, mf.rng(73))
      local whole = embed(o, inputs)
      local alone = {
        s = inputs.s:narrow(1, 5, 9), translations = inputs.translations:narrow(1, 5, 9),
        trans_sc = inputs.trans_sc:narrow(1, 5, 9), packing = mf.packing { 9 },
      }
      local dense = o.mode == "orig_2d_bias"
      help.close(embed(o, alone), whole:narrow(1, dense and 17 or 5, dense and 81 or 9), 1e-6)
    end)
  end

  it("leaves masked residues out of the neighbours unless compat", function()
    local rng = mf.rng(74)
    local inputs = inputs_of({ 9 }, rng)
    inputs.mask = mf.tensor { 1, 1, 1, 0, 1, 1, 1, 1, 1 }
    local keep = inputs.mask:reshape(9, 1)
    local elsewhere = { s = inputs.s, packing = inputs.packing, mask = inputs.mask, trans_sc = inputs.trans_sc }
    elsewhere.translations = inputs.translations * keep + (1 - keep) * inputs.translations:mean(1, true)
    local rows = { 0, 1, 2, 4, 5, 6, 7, 8 }
    local function change(compat)
      local a = embed({ compat = compat }, inputs)
      return help.relative(help.rows(embed({ compat = compat }, elsewhere), rows), help.rows(a, rows))
    end
    assert.equal(0, change(false))
    assert.is_true(change(true) > 1e-3)
  end)

  it("takes an absent self-condition for zeros", function()
    local inputs = inputs_of({ 6 }, mf.rng(75))
    inputs.trans_sc = mf.zeros(6, 3)
    local zeros = embed({}, inputs)
    inputs.trans_sc = nil
    help.close(embed({}, inputs), zeros, 1e-7)
  end)

  it("names the chain that is shorter than the neighbours asked for", function()
    local ok, message = pcall(embed, { neighbours = 5 }, inputs_of({ 8, 4 }, mf.rng(76)))
    assert.is_false(ok)
    assert.matches("k is 5, but sequence 2 has 4 residues", message, 1, true)
    assert.same({ 13, 2, 2, 8 }, embed({ neighbours = 5 }, inputs_of({ 8, 5 }, mf.rng(76))):shape())
  end)

  it("applies the mask alone to pairs that are given, and refuses them elsewhere", function()
    local rng = mf.rng(77)
    local inputs = inputs_of({ 3 }, rng)
    inputs.edge = mf.randn(9, 8, { rng = rng })
    inputs.mask = mf.tensor { 1, 0, 1 }
    local z = embed({ mode = "orig_2d_bias" }, inputs)
    local m = mf.tensor { { 1 }, { 0 }, { 1 }, { 0 }, { 0 }, { 0 }, { 1 }, { 0 }, { 1 } }
    help.close(z, inputs.edge * m, 1e-7)
    assert.has_error(function() embed({ mode = "flash_1d_bias" }, inputs) end)
    assert.has_error(function() embed({ mode = "flash_no_bias" }, inputs) end)
  end)

  it("names the chain that is too long to factorize", function()
    local ok, message = pcall(embed, { mode = "flash_2d_factorize_bias", max_len = 5 }, inputs_of({ 6 }, mf.rng(78)))
    assert.is_false(ok)
    assert.matches("a sequence has 6 residues, max_len is 5", message, 1, true)
    assert.has_error(function() nn.edge_embedder { mode = "flash_2d_factorize_bias" } end)
  end)
end)

describe("the sequence transformer", function()
  it("begins with equal layers that train apart", function()
    local net = nn.sequence_transformer { dim = 8, heads = 2, layers = 3, rng = mf.rng(81) }
    local state = net:state()
    assert.equal(state["layers.0.linear1.weight"]:bytes(), state["layers.2.linear1.weight"]:bytes())
    assert.not_equal(state["layers.0.linear1.weight"]:id(), state["layers.2.linear1.weight"]:id())
    assert.same({ 24, 8 }, state["layers.1.self_attn.in_proj_weight"]:shape())
  end)

  it("keeps chains apart and does not see masked residues", function()
    local rng = mf.rng(82)
    local net = help.stir(nn.sequence_transformer { dim = 8, heads = 2 }, rng)
    local x = mf.randn(10, 8, { rng = rng })
    local together = net(x, mf.packing { 6, 4 })
    help.close(net(x:narrow(1, 7, 4), mf.packing { 4 }), together:narrow(1, 7, 4), 1e-6)
    local mask = mf.tensor { 1, 1, 0, 1, 1, 1, 1, 1, 1, 0 }
    local y = x * mask:reshape(10, 1) + (1 - mask:reshape(10, 1)) * 7
    local rows = { 0, 1, 3, 4, 5, 6, 7, 8 }
    help.close(help.rows(net(y, mf.packing { 6, 4 }, mask), rows), help.rows(net(x, mf.packing { 6, 4 }, mask), rows), 1e-6)
  end)

  it("refuses heads that do not divide its width", function()
    assert.has_error(function() nn.sequence_transformer { dim = 10, heads = 4 } end)
  end)
end)

describe("the backbone update", function()
  it("keeps masked frames and moves the others rigidly", function()
    local rng = mf.rng(83)
    local R, t = help.chain(5, rng)
    local update = mf.randn(5, 6, { rng = rng })
    local q, moved = nn.backbone_update.compose(R, t, update, mf.tensor { 1, 0, 1, 1, 1 })
    local R2 = mf.geometry.quat_to_rot(q)
    help.close(R2:narrow(1, 2, 1), R:narrow(1, 2, 1), 1e-6)
    help.close(moved:narrow(1, 2, 1), t:narrow(1, 2, 1), 1e-7)
    local eye = mf.eye(3):reshape(1, 3, 3):expand(5, 3, 3)
    assert.is_true(help.apart(R2:matmul(R2:transpose(2, 3)), eye) < 1e-6)
    -- translations use the rotation from before
    local shift = R:matmul(update:narrow(2, 4, 3):unsqueeze(3)):squeeze(3)
    help.close(moved:narrow(1, 3, 3), (t + shift):narrow(1, 3, 3), 1e-6)
  end)

  it("carries on from a quaternion as from the matrix", function()
    local rng = mf.rng(84)
    local R, t = help.chain(6, rng)
    local update = mf.randn(6, 6, { rng = rng })
    local from_matrix, t1 = nn.backbone_update.compose(R, t, update)
    local from_quaternion, t2 = nn.backbone_update.compose(mf.geometry.rot_to_quat(R), t, update)
    help.close(from_quaternion, from_matrix, 1e-6)
    help.close(t2, t1, 1e-6)
  end)
end)

describe("torsion heads", function()
  it("give unit pairs", function()
    local rng = mf.rng(85)
    local s, s0 = mf.randn(7, 16, { rng = rng }), mf.randn(7, 16, { rng = rng })
    for _, out in ipairs { help.stir(nn.torsion_angles { dim = 16 }, rng)(s), nn.torsion_head { dim = 16, hidden = 8 }(s, s0) } do
      assert.is_true(help.apart(out:square():sum(3), mf.ones(out:size(1), out:size(2))) < 1e-5)
    end
  end)

  it("freeze the layer that the checkpoints hold and nobody uses", function()
    local head = nn.torsion_angles { dim = 16 }
    assert.equal(head:count() - 16 * 16 - 16, head:count(true))
  end)
end)
