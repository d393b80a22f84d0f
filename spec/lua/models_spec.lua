-- Whole networks: sizes to the last parameter, invariance, packs, checkpointing, what a flow asks of them.
local mf = require "moonfold"
local help = require "spec.support.nn"

-- A compiled trace keeps the closures it has met, and they the tensors they captured: let go before live bytes are counted.
teardown(function() jit.flush() end)

local tiny = {
  node = 16, edge = 8, hidden = 4, heads = 2, query_points = 2, value_points = 3, blocks = 2, neighbours = 3, feat = 4, bins = 6,
  transformer_heads = 2,
}

local function model_of(o, kind)
  local options = { rng = mf.rng(91) }
  for key, value in pairs(tiny) do options[key] = value end
  for key, value in pairs(o or {}) do options[key] = value end
  return help.stir(mf.models[kind or "flash_ipa"](options), mf.rng(92))
end

local function inputs_of(lengths, rng, width)
  local packing = mf.packing(lengths)
  local n = packing:total()
  local R, t = help.chain(n, rng)
  -- Uneven steps: between neighbours at equal distances the last bit would decide, and a rotation changes it.
  t = t + mf.randn(n, 3, { rng = rng }) * 0.1
  return {
    rotations = R, translations = t * 10, packing = packing, node_embeddings = mf.randn(n, width or 16, { rng = rng }),
    trans_sc = t * 10 + mf.randn(n, 3, { rng = rng }),
  }
end

local MODES = { "flash_1d_bias", "flash_2d_factorize_bias", "flash_no_bias", "orig_2d_bias", "orig_no_bias" }
local ROTARY = { "flash_1d_bias", "orig_2d_bias" }

-- The most that a forward and backward pass holds at once.
local function peak(inputs, checkpoint)
  local model = model_of { checkpoint = checkpoint, blocks = 6 }
  collectgarbage()
  collectgarbage()
  local before = mf.memory().live
  mf.reset_peak()
  model(inputs).translations:sum():backward()
  return mf.memory().peak - before
end

describe("the flash_ipa network", function()
  it("has the published number of parameters in every mode", function()
    local sizes = {
      flash_1d_bias = 17570676, orig_2d_bias = 16680196, flash_2d_factorize_bias = 17357448, flash_no_bias = 16235412,
      orig_no_bias = 16235412,
    }
    for mode, size in pairs(sizes) do
      assert.equal(size, mf.models.flash_ipa({ mode = mode, max_len = 64 }):count(), mode)
      collectgarbage()
    end
    assert.equal(17357448 + 2, mf.models.flash_ipa({ mode = "flash_2d_factorize_bias", max_len = 65 }):count())
  end)

  it("has the published number of parameters in every part", function()
    local model = mf.models.flash_ipa {}
    local trunk = model.trunk
    local sizes = {
      ipa_0 = 1393616, ipa_ln_1 = 512, seq_tfmr_2 = 791552, post_tfmr_3 = 65792, node_transition_4 = 197888, bb_update_5 = 1542,
      edge_transition_4 = 510208,
    }
    for name, size in pairs(sizes) do assert.equal(size, trunk[name]:count(), name) end
    assert.is_nil(trunk.edge_transition_5)
    assert.equal(314224, model.edge_embedder:count())
  end)

  it("understands the public option names, and refuses two names of one thing", function()
    local model = mf.models.flash_ipa {
      node_embed_size = 16, edge_embed_size = 8, c_hidden = 4, no_heads = 2, num_blocks = 1, k = 3,
    }
    assert.equal(16, model._options.node)
    assert.equal(3, model._options.neighbours)
    assert.has_error(function() mf.models.flash_ipa { node = 16, node_embed_size = 32 } end)
  end)

  local function holds(mode, rotary)
    local name = rotary and mode .. ", rotary" or mode
    it(("turns with its input and is blind to where it lies (%s)"):format(name), function()
      local rng = mf.rng(93)
      local model = model_of { mode = mode, rotary = rotary, max_len = 20 }
      local a = inputs_of({ 20, 11 }, rng)
      local G = mf.random.rotations(1, { rng = rng }):squeeze(1)
      local shift = mf.tensor { 30, -50, 70 }
      local b = {}
      for key, value in pairs(a) do b[key] = value end
      b.rotations, b.translations = G:matmul(a.rotations), a.translations:matmul(G:t()) + shift
      b.trans_sc = a.trans_sc:matmul(G:t()) + shift
      mf.no_grad(function()
        local x, y = model(a), model(b)
        help.close(y.node, x.node, 2e-5)
        help.close(y.rotations, G:matmul(x.rotations), 2e-5)
        help.close(y.translations, x.translations:matmul(G:t()) + shift, 2e-5)
      end)
    end)

    it(("gives each chain of a pack what it gives it alone (%s)"):format(name), function()
      local model = model_of { mode = mode, rotary = rotary, max_len = 9 }
      local a = inputs_of({ 5, 9, 3 }, mf.rng(94))
      local alone = { packing = mf.packing { 9 } }
      for key, value in pairs(a) do if key ~= "packing" then alone[key] = value:narrow(1, 6, 9) end end
      mf.no_grad(function()
        local x, y = model(a), model(alone)
        help.close(y.translations, x.translations:narrow(1, 6, 9), 2e-6)
        help.close(y.rotations, x.rotations:narrow(1, 6, 9), 2e-6)
      end)
    end)

    it(("recomputes to the same gradients when checkpointed (%s)"):format(name), function()
      local plain = model_of { mode = mode, rotary = rotary, max_len = 8 }
      local saved = { model_of { mode = mode, rotary = rotary, max_len = 8, checkpoint = true } }
      saved[2] = model_of { mode = mode, rotary = rotary, max_len = 8, checkpoint = "attention" }
      local a = inputs_of({ 8, 3 }, mf.rng(95))
      local function gradients(model)
        a.node_embeddings = a.node_embeddings:detach():clone():require_grad()
        local out = model(a)
        local loss = (out.translations * 0.1):square():sum() + out.rotations:narrow(2, 1, 1):sum() + out.node:square():sum()
        loss:backward()
        local list = { a.node_embeddings:grad() }
        for _, p in ipairs(model:named_parameters()) do list[#list + 1] = p[2]:grad() or mf.zeros(1) end
        return list
      end
      local x = gradients(plain)
      for _, model in ipairs(saved) do
        local y = gradients(model)
        assert.equal(#x, #y)
        for i = 1, #x do
          -- A parameter may have no say (a bias before a softmax): compare to the larger of its norm and rounding.
          assert.is_true((x[i] - y[i]):norm():item() <= 1e-5 * math.max(1e-2, x[i]:norm():item()))
        end
      end
    end)
  end
  for _, mode in ipairs(MODES) do holds(mode, false) end
  for _, mode in ipairs(ROTARY) do holds(mode, true) end

  it("keeps frames that are fixed or masked", function()
    local model = model_of {}
    local a = inputs_of({ 6 }, mf.rng(96))
    a.fixed, a.mask = mf.tensor { 1, 0, 0, 0, 0, 1 }, mf.tensor { 1, 1, 0, 1, 1, 1 }
    local out = model(a)
    for _, row in ipairs { 1, 3, 6 } do
      help.close(out.translations:narrow(1, row, 1), a.translations:narrow(1, row, 1), 1e-6)
      help.close(out.rotations:narrow(1, row, 1), a.rotations:narrow(1, row, 1), 1e-6)
    end
    assert.is_true(help.relative(out.translations:narrow(1, 2, 1), a.translations:narrow(1, 2, 1)) > 1e-4)
  end)

  it("takes masks as truth values and as numbers, in float64 too", function()
    for _, mode in ipairs(MODES) do
      local model = model_of { mode = mode, max_len = 7 }:to("float64")
      local a = inputs_of({ 7 }, mf.rng(90))
      for key, value in pairs(a) do if key ~= "packing" then a[key] = value:to("float64") end end
      a.mask = mf.tensor { 1, 1, 1, 0, 1, 1, 1 }
      local numbers = model(a)
      a.mask = a.mask:gt(0.5)
      local truths = model(a)
      assert.equal("float64", truths.node:dtype())
      help.close(truths.node, numbers.node, 1e-14)
      help.close(truths.translations, numbers.translations, 1e-14)
    end
  end)

  it("tells on the null device what a long chain would take, which grows linearly", function()
    local model, o = model_of():to("null"), { device = "null" }
    local function peak_at(n)
      local before = mf.memory("null").live
      mf.reset_peak("null")
      local out = model {
        node_embeddings = mf.zeros(n, 16, o), translations = mf.zeros(n, 3, o), rotations = mf.zeros(n, 3, 3, o),
        packing = mf.packing { n },
      }
      assert.same({ n, 3 }, out.translations:shape())
      out.translations:sum():backward()
      return mf.memory("null").peak - before
    end
    peak_at(10)
    local small, large = peak_at(10000), peak_at(20000)
    assert.is_true(small > 1e6)
    assert.is_true(large <= 2.1 * small)
  end)

  it("answers a noisy batch without node embeddings", function()
    local model = model_of {}
    local a = inputs_of({ 6, 5 }, mf.rng(97))
    a.node_embeddings = nil
    assert.has_error(function() model(a) end)
    a.t = mf.tensor { 0.2, 0.7 }
    local early = model(a)
    assert.same({ 11, 3 }, early.translations:shape())
    assert.same({ 11, 3, 3 }, early.rotations:shape())
    a.t = mf.tensor { 0.2, 0.1 }
    local late = model(a)
    help.close(late.translations:narrow(1, 1, 6), early.translations:narrow(1, 1, 6), 1e-6)
    assert.is_true(help.relative(late.translations:narrow(1, 7, 5), early.translations:narrow(1, 7, 5)) > 1e-6)
  end)

  it("takes dense pairs from outside in the modes that have them", function()
    local a = inputs_of({ 5 }, mf.rng(98))
    a.edge_embeddings = mf.randn(25, 8, { rng = mf.rng(99) })
    local model = model_of { mode = "orig_2d_bias" }
    local out = model(a)
    a.edge_mask = mf.zeros(25)
    assert.is_true(help.relative(model(a).node, out.node) > 1e-6)
    assert.has_error(function() model_of {}(a) end)
  end)

  it("plans a training step of 8192 residues in 280 KB a residue, parameters and optimizer included", function()
    local before = mf.precision()
    mf.precision "fp16"
    local n = 8192
    local function empty(...) return mf.empty(n, ..., { device = "null" }) end
    local model = mf.models.flash_ipa {}:to "null"
    local optimizer = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1 })
    local inputs = {
      translations = empty(3), rotations = mf.empty(n, 3, 3, { device = "null" }), node_embeddings = empty(256),
      packing = mf.packing { n },
    }
    local function step()
      mf.scope(function()
        local out = model(inputs)
        optimizer:step(out.translations:square():mean() + out.rotations:square():mean())
      end)
    end
    step()
    collectgarbage()
    collectgarbage()
    mf.reset_peak "null"
    step()
    mf.precision(before)
    assert.is_true(mf.memory("null").peak / n <= 280e3, mf.memory("null").peak / n .. " bytes a residue")
  end)

  it("begins with pair factors that learn in every block, which the published start does not", function()
    local function begun(factor_init)
      local o = { rng = mf.rng(91), blocks = 3, factor_init = factor_init }
      for key, value in pairs(tiny) do if o[key] == nil then o[key] = value end end
      local model, rng = mf.models.flash_ipa(o), mf.rng(93)
      -- fresh attention gives nothing, whatever its pairs are
      for b = 0, 2 do model.trunk["ipa_" .. b].linear_out.weight:detach():normal_(0, 1, rng) end
      return model
    end
    local function slope(model, name)
      for _, named in ipairs(model:named_parameters()) do
        if named[1] == name then return named[2]:grad():abs():max():item() end
      end
      error(name)
    end
    for factor_init, learns in pairs { alike = true, published = false } do
      local model, rng = begun(factor_init), mf.rng(94)
      local inputs = inputs_of({ 7, 5 }, rng)
      local z = model.edge_embedder { s = inputs.node_embeddings, translations = inputs.translations, packing = inputs.packing }
      assert.equal(learns, z:select(2, 1):bytes() == z:select(2, 2):bytes())
      local out = model(inputs)
      local loss = (out.translations * mf.randn(12, 3, { rng = rng })):sum() + (out.node * mf.randn(12, 16, { rng = rng })):sum()
      loss:backward()
      for b = 0, 1 do
        for _, name in ipairs { "edge_transition_" .. b .. ".final_layer.weight", "ipa_" .. (b + 1) .. ".linear_b.weight" } do
          assert.equal(learns, slope(model, "trunk." .. name) > 0, name)
        end
      end
    end
    local ok, message = pcall(mf.models.flash_ipa, { factor_init = "like" })
    assert.is_false(ok)
    assert.matches("models_spec.lua:%d+: unknown factor_init 'like' %(known: alike, published%)", message)
  end)

  it("refuses to recompute what it does not know", function()
    local ok, message = pcall(model_of, { checkpoint = "blocks" })
    assert.is_false(ok)
    assert.matches("checkpoint is 'blocks' (known: true, false, attention)", message, 1, true)
  end)

  it("holds less for backward when checkpointed", function()
    local a = inputs_of({ 200 }, mf.rng(100))
    assert.is_true(peak(a, true) < 0.5 * peak(a, false))
  end)
end)

describe("the denoiser", function()
  it("has the parameters of RNA-FrameFlow, dense and flash", function()
    assert.equal(16879892, mf.models.denoiser({ mode = "orig_2d_bias", torsions = "rna" }):count())
    collectgarbage()
    local flash = mf.models.denoiser { torsions = "rna", k = 20 }
    assert.equal(17921732, flash:count())
    local tensors = 0
    for _ in pairs(flash:state()) do tensors = tensors + 1 end
    assert.equal(410, tensors)
  end)

  it("predicts frames and torsions from a noisy batch", function()
    local a = inputs_of({ 6, 5 }, mf.rng(101))
    a.t, a.node_embeddings = mf.tensor { 0.3, 0.9 }, nil
    for kind, angles in pairs { protein = 1, rna = 8 } do
      local out = model_of({ torsions = kind, position = 8, time = 8 }, "denoiser")(a)
      assert.same({ 11, angles, 2 }, out.torsions:shape())
      assert.is_true(help.apart(out.torsions:square():sum(3), mf.ones(11, angles)) < 1e-5)
      assert.same({ 11, 3 }, out.translations:shape())
    end
    assert.is_nil(model_of({ position = 8, time = 8 }, "denoiser")(a).torsions)
    assert.has_error(function() mf.models.denoiser { torsions = "dna" } end)
  end)

  it("learns: a few steps bring the loss down", function()
    local rng = mf.rng(102)
    local model = model_of({ position = 8, time = 8, torsions = "protein" }, "denoiser")
    local a = inputs_of({ 12, 9 }, rng)
    a.t, a.node_embeddings = mf.tensor { 0.3, 0.9 }, nil
    local target = a.translations + mf.randn(21, 3, { rng = rng })
    local opt = mf.optim.adamw(model:parameters(), { lr = 3e-3 })
    local first, last
    for _ = 1, 12 do
      local loss = (model(a).translations - target):square():mean()
      last = loss:item()
      first = first or last
      opt:step(loss)
    end
    assert.is_true(last < 0.8 * first)
  end)
end)
