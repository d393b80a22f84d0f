-- The layer protocol: names, state, errors, trees.
local mf = require "moonfold"
local nn = mf.nn
local help = require "spec.support.nn"

-- A compiled trace keeps the closures it has met, and they the tensors they captured: let go before live bytes are counted.
teardown(function() jit.flush() end)

local function small(rng)
  return mf.models.flash_ipa {
    node = 16, edge = 8, hidden = 4, heads = 2, query_points = 2, value_points = 3, blocks = 2, neighbours = 3, feat = 4,
    bins = 6, transformer_heads = 2, rng = rng,
  }
end

describe("a module", function()
  it("names parameters by their paths, items of a list from 0, in one order", function()
    local model = small()
    local names = {}
    for i, p in ipairs(model:named_parameters()) do names[i] = p[1] end
    local seen = {}
    for _, name in ipairs(names) do
      assert.is_nil(seen[name])
      seen[name] = true
    end
    assert.is_true(seen["edge_embedder.edge_embedder.5.weight"])
    assert.is_true(seen["trunk.ipa_1.linear_kv_points.bias"])
    assert.is_true(seen["trunk.seq_tfmr_0.layers.1.self_attn.in_proj_weight"])
    local again = {}
    for i, p in ipairs(small():named_parameters()) do again[i] = p[1] end
    assert.same(names, again)
  end)

  it("gives each shared tensor once as a parameter and under every name in its state", function()
    local one = nn.linear { input = 3, output = 3 }
    local both = nn.sequential { one, nn.relu, one }
    assert.equal(2, #both:parameters())
    assert.equal(12, both:count())
    local state = both:state()
    assert.equal(state["0.weight"]:id(), state["2.weight"]:id())
  end)

  it("survives saving and loading bit for bit", function()
    local model, other = small(mf.rng(1)), small(mf.rng(2))
    local path = os.tmpname()
    mf.save(path, model:state())
    local report = other:load((mf.load(path)))
    os.remove(path)
    local state = other:state()
    local count = 0
    for name, x in pairs(model:state()) do
      assert.equal(x:bytes(), state[name]:bytes())
      count = count + 1
    end
    assert.equal(count, report.loaded)
    assert.same({}, report.missing)
  end)

  it("reports what a state lacks, has too much of, or has in another shape", function()
    local layer = nn.linear { input = 3, output = 2 }
    local before = layer.weight:bytes()
    local state = { ["net.weight"] = mf.zeros(3, 2), ["net.more"] = mf.zeros(1), other = mf.zeros(1) }
    assert.has_error(function() layer:load(state, { prefix = "net." }) end)
    local ok, message = pcall(layer.load, layer, state, { prefix = "net." })
    assert.is_false(ok)
    assert.matches("missing net.bias", message, 1, true)
    assert.matches("unknown net.more", message, 1, true)
    assert.matches("net.weight (3, 2), expected (2, 3)", message, 1, true)
    assert.equal(before, layer.weight:bytes())
    local report = layer:load({ bias = mf.ones(2) }, { strict = false })
    assert.same({ "weight" }, report.missing)
    assert.equal(1, report.loaded)
    assert.same({ 1, 1 }, layer.bias:totable())
  end)

  it("freezes by pattern and counts what is trained", function()
    local model = small()
    local all = model:count(true)
    local frozen = model:freeze "^edge_embedder%."
    assert.is_true(frozen > 0)
    assert.equal(all - model.edge_embedder:count(), model:count(true))
    model:freeze("^edge_embedder%.", false)
    assert.equal(all, model:count(true))
  end)

  it("moves to another type in place", function()
    local layer = nn.linear { input = 3, output = 2 }:to("float64")
    assert.equal("float64", layer.weight:dtype())
    assert.is_true(layer.weight:requires_grad())
    assert.equal("float64", layer(mf.ones(4, 3, { dtype = "float64" })):dtype())
  end)

  it("names the layer that failed, once, and keeps the reason", function()
    local model = small()
    local R, t = help.chain(5, mf.rng(3))
    local ok, message = pcall(model, {
      node_embeddings = mf.zeros(5, 15), rotations = R, translations = t, packing = mf.packing { 5 },
    })
    assert.is_false(ok)
    assert.matches("flash_ipa.edge_embedder.linear_s_p: ", message, 1, true)
    assert.matches("16", message, 1, true)
    local _, count = message:gsub("flash_ipa", "")
    assert.equal(1, count)
  end)

  it("keeps the line of an error in a layer that a user wrote", function()
    local Broken = nn.define("broken", {}, function() end, function() error "no such thing" end)
    local net = nn.sequential { nn.relu, Broken() }
    local ok, message = pcall(net, mf.ones(2))
    assert.is_false(ok)
    assert.matches("nn_module_spec.lua:%d+: sequential.1: no such thing$", message)
  end)

  it("refuses an option it does not know and lists those it does", function()
    for name, constructor in pairs { ipa = nn.ipa, linear = nn.linear, flash_ipa = mf.models.flash_ipa } do
      local ok, message = pcall(function() return constructor { head = 8 } end)
      assert.is_false(ok)
      assert.matches(name .. ": unknown option 'head'", message, 1, true)
      assert.matches("known: ", message, 1, true)
      assert.matches("nn_module_spec.lua:", message, 1, true)
    end
    assert.has_error(function() nn.linear { input = 3 } end)
    assert.has_error(function() nn.edge_embedder { mode = "flash_3d" } end)
    assert.has_error(function() nn.lifted_attention { terms = {} } end)
  end)

  it("prints its tree", function()
    local text = tostring(small())
    assert.matches("^flash_ipa flash_1d_bias, 2 blocks", text)
    assert.matches("trunk: table", text, 1, true)
    assert.matches("ipa_1: ipa 16, 2 heads of 4, 2 + 3 points, rank 2", text, 1, true)
    assert.matches("0: transformer_layer", text, 1, true)
    assert.equal("linear 1 -> 1234567  1,234,567 (4.7 MiB)", nn.linear { input = 1, output = 1234567, bias = false }:summary())
    local frozen = small()
    frozen:freeze "^edge_embedder%."
    local idle = frozen.edge_embedder:count()
    assert.matches(("^flash_ipa [^\n]+, %d not trained%%)\n"):format(idle), (frozen:summary():gsub("(%d),(%d)", "%1%2")))
    assert.equal(1, select(2, small():summary(0):gsub("[^\n]+", "")))
  end)

  it("drops in training mode only", function()
    local drop = nn.sequential { nn.dropout { rate = 0.5, rng = mf.rng(4) } }
    local x = mf.ones(1000)
    local zeros = drop(x):eq(0):to("float32"):sum():item()
    assert.is_true(zeros > 400 and zeros < 600)
    assert.equal(1000, drop:eval()(x):sum():item())
  end)

  it("lets go of what it makes on the way", function()
    local layer = nn.mlp { input = 64, output = 64 }
    local x = mf.randn(512, 64)
    collectgarbage()
    local before = mf.memory().live
    local y = mf.no_grad(function() return layer(x) end)
    assert.is_true(mf.memory().live - before <= 1.1 * y:nbytes())
  end)
end)

describe("initial values", function()
  it("have the moments that their names promise", function()
    local rng = mf.rng(11)
    local function moments(kind)
      local w = nn.linear { input = 400, output = 500, init = kind, rng = rng }.weight:detach()
      return w:mean():item(), w:square():mean():item(), w:abs():reshape(-1):max(1):item()
    end
    for kind, variance in pairs { default = 1 / 400, relu = 2 / 400, normal = 1 / 400, torch = 1 / 1200, glorot = 2 / 900 } do
      local mean, square, largest = moments(kind)
      -- 200,000 draws: five standard errors of the mean and of the variance
      assert.is_true(math.abs(mean) < 5 * math.sqrt(variance / 2e5), kind)
      assert.is_true(math.abs(square / variance - 1) < 5 * math.sqrt(2 / 2e5), kind)
      if kind == "default" or kind == "relu" then
        assert.is_true(largest <= 2 * math.sqrt(variance) / 0.87962566103423978 * (1 + 1e-6), kind)
      end
    end
    assert.equal(0, nn.linear { input = 4, output = 4, init = "final" }.weight:abs():sum():item())
    assert.equal(4, nn.linear { input = 4, output = 4, init = "gating" }.bias:sum():item())
  end)

  it("follow their generator", function()
    local a, b = nn.ipa { dim = 8, hidden = 2, rng = mf.rng(5) }, nn.ipa { dim = 8, hidden = 2, rng = mf.rng(5) }
    assert.equal(a.scalar.linear_q.weight:bytes(), b.scalar.linear_q.weight:bytes())
  end)
end)
