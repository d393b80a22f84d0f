-- FoldFlow's network: sizes to the last parameter, what it is blind to, motifs, residue indices, what a flow asks of it.
local mf = require "moonfold"
local help = require "spec.support.nn"
local support = require "spec.support"

-- A compiled trace keeps the closures it has met, and they the tensors they captured: let go before live bytes are counted.
teardown(function() jit.flush() end)

local tiny = {
  node = 16, edge = 8, position = 8, hidden = 4, skip = 8, heads = 2, query_points = 2, value_points = 3, blocks = 2,
  transformer_heads = 2, transformer_layers = 1, bins = 6, feat = 4, neighbours = 3, rank = 2,
}
local MODES = { "orig_2d_bias", "flash_1d_bias" }

local function model_of(o)
  local given = { rng = mf.rng(31) }
  for key, value in pairs(tiny) do given[key] = value end
  for key, value in pairs(o or {}) do given[key] = value end
  return help.stir(mf.models.foldflow(given), mf.rng(32))
end

local function noisy_of(lengths, rng)
  local packing, times = mf.packing(lengths), {}
  for i = 1, #lengths do times[i] = 0.2 + 0.1 * i end
  local n = packing:total()
  local R, t = help.chain(n, rng)
  -- Uneven steps: between neighbours at equal distances the last bit would decide, and a rotation changes it.
  t = (t + mf.randn(n, 3, { rng = rng }) * 0.1) * 10
  return { t = mf.tensor(times), translations = t, rotations = R, packing = packing, trans_sc = t + mf.randn(n, 3, { rng = rng }) }
end

local function with(batch, changes)
  local result = {}
  for key, value in pairs(batch) do result[key] = value end
  for key, value in pairs(changes) do result[key] = value end
  return result
end

describe("FoldFlow's network", function()
  it("has the published parameters, in all and in every part", function()
    local model = mf.models.foldflow { preset = "base" }
    assert.equal(17446190, model:count())
    assert.equal(17380314, model:count(true))
    assert.equal(282, #model:named_tensors())
    local trunk = model.vectorfield.trunk
    local sizes = {
      ipa_0 = 2445285, ipa_ln_1 = 512, skip_embed_2 = 16448, seq_tfmr_3 = 1235200, post_tfmr_0 = 82176, node_transition_1 = 197888,
      bb_update_2 = 1542, edge_transition_2 = 378112,
    }
    for name, size in pairs(sizes) do assert.equal(size, trunk[name]:count(), name) end
    assert.is_nil(trunk.edge_transition_3)
    assert.equal(148992, model.embedding_layer.node_embedder:count())
    assert.equal(48768, model.embedding_layer.edge_embedder:count())
    assert.equal(197890, model.vectorfield.torsion_pred:count())
    local state = model:state()
    for _, name in ipairs {
      "embedding_layer.node_embedder.0.weight", "embedding_layer.edge_embedder.5.bias", "vectorfield.trunk.ipa_0.head_weights",
      "vectorfield.trunk.ipa_3.linear_rbf.weight", "vectorfield.torsion_pred.linear_3.bias",
    } do assert.truthy(state[name], name) end
  end)

  it("has with FlashIPA what the paper states, and the pair embedder of flash_ipa", function()
    assert.equal(16545113, mf.models.foldflow({ hidden = 128, blocks = 5 }):count())
    local model = mf.models.foldflow { preset = "foldflow/flash" }
    assert.equal(17490313, model:count())
    assert.equal(17073497, model:count() - model.embedding_layer.edge_embedder:count() + 48768)
  end)

  it("has a small form", function()
    local model = mf.models.foldflow { preset = "small" }
    -- 33 + 32 -> 32 and 98 + 22 -> 32, each a perceptron of three layers and a norm
    assert.equal(65 * 32 + 32 + 2 * (32 * 32 + 32) + 64, model.embedding_layer.node_embedder:count())
    assert.equal(120 * 32 + 32 + 2 * (32 * 32 + 32) + 64, model.embedding_layer.edge_embedder:count())
    assert.equal(96, model.vectorfield.trunk.seq_tfmr_0._options.dim)
    assert.is_nil(model.vectorfield.trunk.ipa_1)
  end)

  it("understands the public option names, over a preset too", function()
    local model = mf.models.foldflow { preset = "small", node_embed_size = 16, c_skip = 16, num_blocks = 2, index_embed_size = 8 }
    local o = model._options
    assert.same({ 16, 16, 2, 8, 32 }, { o.node, o.skip, o.blocks, o.position, o.edge })
  end)

  for _, mode in ipairs(MODES) do
    it(("turns with its input and is blind to where it lies (%s)"):format(mode), function()
      local rng = mf.rng(33)
      local model, a = model_of { mode = mode }, noisy_of({ 20, 11 }, rng)
      local G, shift = mf.random.rotations(1, { rng = rng }):squeeze(1), mf.tensor { 30, -50, 70 }
      local b = with(a, {
        rotations = G:matmul(a.rotations), translations = a.translations:matmul(G:t()) + shift,
        trans_sc = a.trans_sc:matmul(G:t()) + shift,
      })
      mf.no_grad(function()
        local x, y = model(a), model(b)
        help.close(y.node, x.node, 2e-5)
        help.close(y.torsions, x.torsions, 2e-5)
        help.close(y.rotations, G:matmul(x.rotations), 2e-5)
        help.close(y.translations, x.translations:matmul(G:t()) + shift, 2e-5)
      end)
    end)

    it(("gives each chain of a pack what it gives it alone (%s)"):format(mode), function()
      local model, a = model_of { mode = mode }, noisy_of({ 5, 9, 6 }, mf.rng(34))
      a.index = mf.arange(20) * 2
      local alone = { packing = mf.packing { 9 }, t = a.t:narrow(1, 2, 1) }
      for key, value in pairs(a) do if alone[key] == nil then alone[key] = value:narrow(1, 6, 9) end end
      mf.no_grad(function()
        local x, y = model(a), model(alone)
        help.close(y.translations, x.translations:narrow(1, 6, 9), 2e-6)
        help.close(y.rotations, x.rotations:narrow(1, 6, 9), 2e-6)
        help.close(y.torsions, x.torsions:narrow(1, 6, 9), 2e-6)
      end)
    end)

    it(("leaves motifs where they are, with their psi, and masked frames (%s)"):format(mode), function()
      local model, a = model_of { mode = mode }, noisy_of({ 8 }, mf.rng(35))
      a.mask, a.fixed = mf.tensor { 1, 1, 0, 1, 1, 1, 1, 1 }, mf.tensor { 1, 0, 0, 0, 0, 1, 1, 0 }
      a.torsions = mf.randn(8, 1, 2, { rng = mf.rng(36) })
      local out = model(a)
      for row, held in ipairs { true, false, true, false, false, true, true, false } do
        local moved = help.apart(out.translations:narrow(1, row, 1), a.translations:narrow(1, row, 1))
        local turned = help.apart(out.rotations:narrow(1, row, 1), a.rotations:narrow(1, row, 1))
        if held then
          assert.is_true(moved < 2e-5 and turned < 1e-6, ("residue %d moved by %g"):format(row, moved))
        else
          assert.is_true(moved > 1e-3 and turned > 1e-3, ("residue %d rests"):format(row))
        end
      end
      for _, row in ipairs { 1, 6, 7 } do
        assert.equal(0, help.apart(out.torsions:narrow(1, row, 1), a.torsions:narrow(1, row, 1)))
      end
      help.close(out.torsions:narrow(1, 2, 4):square():sum(3), mf.ones(4, 1), 1e-5)
      -- being a motif is a feature of the residue, too
      assert.is_true(help.relative(model(with(a, { fixed = false })).node, out.node) > 1e-4)
    end)

    it(("counts residues by the batch's index, and by position without one (%s)"):format(mode), function()
      local model, a = model_of { mode = mode }, noisy_of({ 7, 6 }, mf.rng(37))
      local plain = model(a).node
      a.index = a.packing:position()
      assert.equal(0, help.apart(model(a).node, plain))
      a.index = mf.tensor({ 0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 13, 14, 15 }, { dtype = "int32" })
      local gap = model(a).node
      assert.equal(0, help.apart(gap:narrow(1, 1, 7), plain:narrow(1, 1, 7)))
      assert.is_true(help.relative(gap:narrow(1, 8, 3), plain:narrow(1, 8, 3)) > 1e-4)     -- the others see the gap
    end)

    it(("recomputes to the same gradients when checkpointed (%s)"):format(mode), function()
      local a, lists = noisy_of({ 8, 5 }, mf.rng(38)), {}
      for i, checkpoint in ipairs { false, true, "attention" } do
        local model = model_of { mode = mode, checkpoint = checkpoint }
        local out = model(a)
        local loss = (out.translations * 0.1):square():sum() + out.rotations:narrow(2, 1, 1):sum() + out.torsions:sum()
        loss:backward()
        lists[i] = {}
        for k, p in ipairs(model:named_parameters()) do lists[i][k] = p[2]:grad() or mf.zeros(1) end
      end
      for i = 2, 3 do
        for k, x in ipairs(lists[1]) do
          -- A parameter may have no say (a bias before a softmax): compare to the larger of its norm and rounding.
          assert.is_true((x - lists[i][k]):norm():item() <= 1e-5 * math.max(1e-2, x:norm():item()))
        end
      end
    end)

    it(("is trained and sampled by a flow (%s)"):format(mode), function()
      local rng = mf.rng(39)
      local model, flow = model_of { mode = mode }, mf.flow.se3 { profile = "protein" }
      local R, t = help.chain(30, rng)
      local fixed = mf.zeros(30):bool()
      local batch = {
        packing = mf.packing { 18, 12 }, rotations = R, translations = t * 10, times = { 0.1, 0.6 }, fixed = fixed,
        torsions = mf.randn(30, 1, 2, { rng = rng }), index = mf.arange(30),
      }
      local noisy = flow:corrupt(batch, rng)
      assert.equal(batch.torsions, noisy.torsions)
      noisy.trans_sc = model(noisy).translations:detach()
      local loss, terms = flow:loss(model(noisy), noisy)
      assert.is_true(loss:item() > 0 and terms.bb ~= nil)
      loss:backward()
      for _, p in ipairs(model:named_parameters()) do
        assert.truthy(p[2]:grad(), p[1] .. " has no gradient")
      end
      local count = 0
      for _, s in mf.sample(model, flow, { lengths = { 9, 6 }, steps = 3, seed = 5 }) do
        assert.same({ s.translations:size(1), 1, 2 }, s.torsions:shape())
        count = count + 1
      end
      assert.equal(2, count)
    end)
  end

  it("begins without moving anything, and learns", function()
    local rng = mf.rng(40)
    local model = mf.models.foldflow { preset = "small", blocks = 2, rng = rng }
    local flow = mf.flow.se3 { profile = "protein", self_condition = 0, separate_rotation = false }
    local R, t = help.chain(60, rng)
    local batch = { packing = mf.packing { 35, 25 }, rotations = R, translations = t * 10, times = { 0.4, 0.7 } }
    local noisy = flow:corrupt(batch, rng)
    help.close(model(noisy).translations, noisy.translations, 1e-6)
    local optimizer, first, last = mf.optim.adam(model:parameters(), { lr = 3e-3, clip = 1 }), nil, nil
    for _ = 1, 30 do
      last = mf.scope(function()
        local loss = flow:loss(model(noisy), noisy)
        local value = loss:item()
        optimizer:step(loss)
        return value
      end)
      first = first or last
    end
    assert.is_true(last < 0.5 * first, ("the loss went from %.3f to %.3f"):format(first, last))
  end)

  it("says what a call lacks, at the user's line", function()
    local model, a = model_of(), noisy_of({ 6 }, mf.rng(41))
    local function refused(text, changes, drop)
      local b = with(a, changes or {})
      if drop then b[drop] = nil end
      support.error_matches(function() model(b) end, text, true)
    end
    a.t = nil
    refused("the noisy batch needs t, one number a sequence")
    a = noisy_of({ 6 }, mf.rng(41))
    refused("packing is missing", {}, "packing")
    refused("inputs need translations (N, 3) in angstrom and rotations", {}, "rotations")
  end)

  it("refuses options and presets that it does not have", function()
    local function refused(text, o) support.error_matches(function() mf.models.foldflow(o) end, text, true) end
    refused("foldflow: unknown option 'bloks', did you mean 'blocks'?", { bloks = 2 })
    refused("foldflow: no preset 'foldflow/bse', did you mean 'foldflow/base'?", { preset = "bse" })
    refused("foldflow: preset rna_frameflow/base is of models.rna_frameflow", { preset = "rna_frameflow/base" })
    refused("foldflow: options 'c_skip' and 'skip' are two names of one thing", { c_skip = 8, skip = 16 })
    refused("only mode orig_2d_bias can do without", { mode = "flash_1d_bias", self_condition = false })
    refused("unknown mode '2d'", { mode = "2d" })
  end)
end)
