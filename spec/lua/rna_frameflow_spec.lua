-- RNA-FrameFlow's network: sizes to the last parameter, what it is blind to, what a flow asks of it.
local mf = require "moonfold"
local help = require "spec.support.nn"
local support = require "spec.support"

-- A compiled trace keeps the closures it has met, and they the tensors they captured: let go before live bytes are counted.
teardown(function() jit.flush() end)

local tiny = {
  node = 16, edge = 8, position = 8, time = 8, hidden = 4, heads = 2, query_points = 2, value_points = 3, blocks = 2,
  transformer_heads = 2, transformer_layers = 1, bins = 6, feat = 4, neighbours = 3, rank = 2,
}

local function model_of(o)
  local given = { rng = mf.rng(51) }
  for key, value in pairs(tiny) do given[key] = value end
  for key, value in pairs(o or {}) do given[key] = value end
  return help.stir(mf.models.rna_frameflow(given), mf.rng(52))
end

describe("RNA-FrameFlow's network", function()
  it("has the published parameters, dense and with FlashIPA, in all and in every part", function()
    local sizes = {
      base = { 16879892, 396, 84224, 1890560 },
      flash = { 17921732, 410, 465584, 2551040 },
    }
    for preset, size in pairs(sizes) do
      local model = mf.models.rna_frameflow { preset = preset }
      local parts = { node_embedder = 0, edge_embedder = 0, edge_transition = 0, angle_pred_net = 0, trunk = 0 }
      for _, entry in ipairs(model:named_tensors()) do
        local part = entry[1]:match "^trunk%.(edge_transition)_" or entry[1]:match "^[^.]+"
        parts[part] = parts[part] + entry[2]:count()
      end
      assert.equal(size[1], model:count())
      assert.equal(size[1], model:count(true))
      assert.equal(size[2], #model:named_tensors())
      assert.same({ node_embedder = 65792, edge_embedder = size[3], edge_transition = size[4], angle_pred_net = 133904,
        trunk = 14705412 }, parts)
      collectgarbage()
    end
  end)

  it("is the denoiser with eight torsions", function()
    local model = model_of()
    local denoiser = { torsions = "rna", mode = "orig_2d_bias" }
    for key, value in pairs(tiny) do denoiser[key] = value end
    denoiser = mf.models.denoiser(denoiser)
    denoiser:load(model:state())
    local a = { packing = mf.packing { 7, 5 }, t = mf.tensor { 0.3, 0.8 } }
    a.rotations, a.translations = help.chain(12, mf.rng(53))
    local x, y = model(a), denoiser(a)
    assert.equal(0, help.apart(x.torsions, y.torsions))
    assert.equal(0, help.apart(x.translations, y.translations))
  end)

  for _, mode in ipairs { "orig_2d_bias", "flash_1d_bias" } do
    it(("is trained and sampled by a flow, and learns (%s)"):format(mode), function()
      local rng = mf.rng(54)
      local model = mf.models.rna_frameflow {
        preset = "base", mode = mode, node = 32, edge = 16, position = 16, time = 16, hidden = 16, heads = 2, query_points = 2,
        value_points = 4, blocks = 2, transformer_heads = 2, transformer_layers = 1, feat = 8, neighbours = 6, rng = rng,
      }
      local flow = mf.flow.se3(mf.models.presets.load("rna_frameflow/base").flow)
      local R, t = help.chain(40, rng)
      local torsions = mf.randn(40, 8, 2, { rng = rng })
      local noisy = flow:corrupt({
        packing = mf.packing { 22, 18 }, rotations = R, translations = t * 10, times = { 0.2, 0.6 },
        torsions = torsions / torsions:norm(3, true),
      }, rng)
      help.close(model(noisy).translations, noisy.translations, 1e-6)          -- a fresh one moves nothing
      local optimizer, first, last = mf.optim.adamw(model:parameters(), { lr = 3e-3, clip = 1 }), nil, nil
      for _ = 1, 30 do
        last = mf.scope(function()
          local loss, terms = flow:loss(model(noisy), noisy)
          assert.truthy(terms.tors)
          local value = loss:item()
          optimizer:step(loss)
          return value
        end)
        first = first or last
      end
      assert.is_true(last < 0.6 * first, ("the loss went from %.3f to %.3f"):format(first, last))
      for _, s in mf.sample(model, flow, { lengths = { 9, 7 }, steps = 3, seed = 5 }) do
        assert.same({ s.translations:size(1), 8, 2 }, s.torsions:shape())
      end
    end)
  end

  it("refuses options and presets that it does not have", function()
    local function refused(text, o) support.error_matches(function() mf.models.rna_frameflow(o) end, text, true) end
    refused("rna_frameflow: unknown option 'torsions'", { torsions = "protein" })
    refused("rna_frameflow: no preset 'rna_frameflow/flsh', did you mean 'rna_frameflow/flash'?", { preset = "flsh" })
    refused("rna_frameflow: preset foldflow/base is of models.foldflow", { preset = "foldflow/base" })
    local model = model_of()
    support.error_matches(function() model { packing = mf.packing { 3 }, translations = mf.zeros(3, 3) } end,
      "the noisy batch needs t", true)
  end)
end)
