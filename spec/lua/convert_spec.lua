-- Checkpoints of the public models: recognised by tensors, renamed, sized by shapes, reported, written.
local mf = require "moonfold"
local config = require "moonfold.convert.config"
local files = require "moonfold.files"
local options = require "moonfold.options"
local support = require "spec.support"

local folder
before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(support.shell("mkdir " .. folder))
end)
after_each(function() support.shell("rm -rf " .. folder) end)

local function renamed(state, rename)
  local result = {}
  for name, x in pairs(state) do result[rename(name)] = x end
  return result
end

local SMALL = {
  node = 16, edge = 8, hidden = 8, heads = 2, query_points = 3, value_points = 5, blocks = 3, transformer_layers = 1,
  transformer_heads = 4, rank = 3, neighbours = 5, bins = 7, feat = 10,
}
local function small(over)
  local o = {}
  for key, value in pairs(SMALL) do o[key] = value end
  for key, value in pairs(over) do o[key] = value end
  return o
end

-- As the public programs write each: kind, options, how the file is made of the state.
local function foldflow_file(state, extra)
  local tree = extra or {}
  tree.model = renamed(state, function(name) return "module." .. name:gsub("^vectorfield%.", "score_model.") end)
  tree.epoch, tree.step = 3, 1000
  return tree
end
local function lightning_file(state)
  return {
    state_dict = renamed(state, function(name) return "model." .. name end), hyper_parameters = { cfg = {} }, global_step = 7,
    ["pytorch-lightning_version"] = "2.0.4",
  }
end
local cases = {
  { "foldflow", "foldflow", { preset = "base", skip = 4, position = 6, feat = nil }, foldflow_file },
  { "foldflow without self-conditioning", "foldflow", { preset = "base", skip = 4, position = 6, self_condition = false },
    foldflow_file },
  { "foldflow, flash", "foldflow", { preset = "flash", skip = 4, position = 6 }, foldflow_file },
  { "rna_frameflow", "rna_frameflow", { preset = "base", position = 12, time = 12 }, lightning_file },
  { "rna_frameflow, flash", "rna_frameflow", { preset = "flash", position = 12, time = 12 }, lightning_file },
  { "flash_ipa, 1-D", "flash_ipa", { mode = "flash_1d_bias" }, function(state) return state end },
  { "flash_ipa, dense", "flash_ipa", { mode = "orig_2d_bias" }, function(state) return { model = state } end },
  { "flash_ipa, factorized", "flash_ipa", { mode = "flash_2d_factorize_bias", max_len = 9 }, function(state) return state end },
  { "flash_ipa, no pairs", "flash_ipa", { mode = "flash_no_bias" }, function(state) return { state_dict = state } end },
  { "flash_ipa, compiled and distributed", "flash_ipa", { mode = "flash_1d_bias" }, function(state)
    return { state_dict = renamed(state, function(name) return "_orig_mod.module." .. name end) }
  end },
}

-- What the sizes of a model are: what shapes cannot tell, and its mode does not need, is left out.
local function sizes(model)
  local o, found = model._options, {}
  for _, key in ipairs(options.sorted_keys(SMALL)) do found[key] = o[key] end
  for _, key in ipairs { "skip", "position", "mode", "max_len", "self_condition" } do found[key] = o[key] end
  if o.mode ~= "flash_1d_bias" then found.neighbours, found.rank = nil, o.max_len and o.rank or nil end
  if o.mode == "flash_no_bias" then found.bins, found.feat = nil, nil end
  if model._class == "foldflow" and o.mode == "orig_2d_bias" then found.feat = nil end
  if o.self_condition == false then found.bins = nil end
  return found
end

describe("a checkpoint of a public model", function()
  for _, case in ipairs(cases) do
    it("is recognised, sized, written and opened: " .. case[1], function()
      local model = mf.models[case[2]](small(case[3]))
      mf.torch.save(folder .. "/theirs.pth", case[4](model:state()))
      local c = mf.convert.read(folder .. "/theirs.pth")
      assert.are.equal(case[2], c.kind)
      assert.are.same(sizes(model), sizes(c.model))
      assert.are.same({ {}, {}, {} }, { c.report.missing, c.report.extra, c.report.mismatched })
      local count = 0
      for name, x in pairs(model:state()) do
        support.same_bits(c.tensors[name], x, name)
        count = count + 1
      end
      assert.are.equal(count, #c.report.matched)

      assert.are.equal(count, c:save(folder .. "/ours.safetensors"))
      local opened, _, about = mf.weights.open(folder .. "/ours.safetensors")
      assert.are.equal(case[2], about.model.kind)
      for name, x in pairs(model:state()) do support.same_bits(opened:state()[name], x, name) end

      -- from our file, through PyTorch's and NumPy's formats
      local again = mf.convert.read(folder .. "/ours.safetensors")
      again:save(folder .. "/back.ckpt")
      local back = mf.convert.read(folder .. "/back.ckpt")
      back:save(folder .. "/last.npz")
      local last = mf.convert.read(folder .. "/last.npz")
      for name, x in pairs(model:state()) do support.same_bits(last.tensors[name], x, name) end
    end)
  end

  it("is written under the names that its own program reads", function()
    local state = mf.models.rna_frameflow(small { preset = "base", position = 12, time = 12 }):state()
    mf.torch.save(folder .. "/a.ckpt", lightning_file(state))
    mf.convert.read(folder .. "/a.ckpt"):save(folder .. "/b.ckpt")
    local tree = mf.torch.load(folder .. "/b.ckpt")
    assert.truthy(tree.state_dict["model.node_embedder.linear.weight"])
    state = mf.models.foldflow(small { preset = "base", skip = 4, position = 6 }):state()
    mf.torch.save(folder .. "/a.pth", foldflow_file(state))
    mf.convert.read(folder .. "/a.pth"):save(folder .. "/b.pth")
    assert.truthy(mf.torch.load(folder .. "/b.pth").model["vectorfield.trunk.ipa_0.head_weights"])
  end)

  it("is written in half the bytes, each number rounded once, and opens as the same model", function()
    local model = mf.models.foldflow(small { preset = "flash", skip = 4, position = 6 })
    mf.save(folder .. "/a.safetensors", model:state(), mf.weights.metadata(mf.weights.about(model, { profile = "protein" })))
    local c = mf.convert.read(folder .. "/a.safetensors")
    c:save(folder .. "/b.safetensors", { type = "float16" })
    local half, opened = mf.load(folder .. "/b.safetensors"), mf.weights.open(folder .. "/b.safetensors")
    for name, x in pairs(model:state()) do
      assert.are.equal("float16", half[name]:dtype())
      support.same_bits(opened:state()[name], x:to("float16"):to("float32"), name)
    end
    support.error_matches(function() c:save(folder .. "/c.safetensors", { type = "half" }) end, "type 'half' %(known: bfloat16")
    mf.no_grad(function() model:state()["vectorfield.trunk.ipa_0.head_weights"]:fill_(1e6) end)
    mf.save(folder .. "/a.safetensors", model:state(), mf.weights.metadata(mf.weights.about(model, { profile = "protein" })))
    c = mf.convert.read(folder .. "/a.safetensors")
    support.error_matches(function() c:save(folder .. "/c.safetensors", { type = "float16" }) end,
      "ipa_0.head_weights has values that float16 cannot hold; nothing is written")
    assert.is_false(files.exists(folder .. "/c.safetensors"))
  end)

  it("has as many heads in its transformer as its configuration says", function()
    local o = small { preset = "base", skip = 4, position = 6, transformer_heads = 2 }
    local state = mf.models.foldflow(o):state()
    mf.torch.save(folder .. "/a.pth", foldflow_file(state, { conf = { model = { ipa = { seq_tfmr_num_heads = 2 } } } }))
    local c = mf.convert.read(folder .. "/a.pth")
    assert.are.equal(2, c.model._options.transformer_heads)
    assert.are.equal(3, c.settings.epoch)
    c:save(folder .. "/a.safetensors")
    local _, _, about = mf.weights.open(folder .. "/a.safetensors")
    assert.are.equal(2, about.source.settings.conf.model.ipa.seq_tfmr_num_heads)
    mf.torch.save(folder .. "/a.pth", foldflow_file(state, { conf = { seq_tfmr_num_heads = 3 } }))
    support.error_matches(function() mf.convert.read(folder .. "/a.pth") end, "says 3 heads .* which is 20 wide")
  end)

  it("shows omegaconf's nodes as what they hold", function()
    local conf = mf.torch.load("spec/fixtures/torch_plain.pth").conf
    assert.are.same({ model = { ipa = { c_s = 4, no_heads = 2 }, dropout = 0.1 } }, config.plain(conf))
    local loop = {}
    loop.loop = loop
    assert.are.same({ loop = "(itself)" }, config.plain(loop))
    assert.are.equal("(os.system)", config.plain(require("moonfold.pickle").load("cos\nsystem\n(S'x'\ntR.", "x")))
  end)

  it("tells what is missing, of another shape and unknown, and is not written then", function()
    local state = mf.models.flash_ipa(small {}):state()
    state["trunk.bb_update_1.linear.bias"] = nil
    state["trunk.ipa_ln_2.weight"] = mf.ones(17)
    state["trunk.extra"] = mf.ones(2)
    mf.torch.save(folder .. "/a.pth", state)
    local c = mf.convert.read(folder .. "/a.pth")
    assert.are.same({ "trunk.bb_update_1.linear.bias" }, c.report.missing)
    assert.are.same({ "trunk.extra" }, c.report.extra)
    assert.are.same({ "trunk.ipa_ln_2.weight (17), expected (16)" }, c.report.mismatched)
    assert.truthy(tostring(c):find("1 are missing, 1 unknown, 1 of another shape", 1, true))
    support.error_matches(function() c:save(folder .. "/a.safetensors") end, "lacks tensors of its model and is not written")
    assert.is_nil(io.open(folder .. "/a.safetensors"))
  end)

  it("leaves unknown tensors out", function()
    local state = mf.models.flash_ipa(small {}):state()
    state["trunk.extra"] = mf.ones(2)
    mf.save(folder .. "/a.safetensors", state)
    local c = mf.convert.read(folder .. "/a.safetensors")
    c:save(folder .. "/b.safetensors")
    assert.is_nil((mf.load(folder .. "/b.safetensors"))["trunk.extra"])
    assert.truthy(mf.weights.open(folder .. "/b.safetensors"))
  end)

  it("of FoldFlow-2 gives its weights alone", function()
    local state = {
      ["vectorfield_network.bb_encoder.trunk.ipa_0.head_weights"] = mf.ones(8),
      ["vectorfield_network.combiner_network.layer_norm_single.weight"] = mf.ones(256),
    }
    mf.torch.save(folder .. "/ff2.pth", { state_dict = state, esm_model = "esm2_650M" })
    local c = mf.convert.read(folder .. "/ff2.pth")
    assert.are.equal("foldflow2", c.kind)
    assert.truthy(tostring(c):find("which Moonfold does not have", 1, true))
    c:save(folder .. "/ff2.safetensors")
    local tensors, metadata = mf.load(folder .. "/ff2.safetensors")
    assert.truthy(tensors["combiner_network.layer_norm_single.weight"])
    assert.are.equal("foldflow2", metadata.model)
    support.error_matches(function() mf.weights.open(folder .. "/ff2.safetensors") end, "does not say how to build")
  end)

  it("is a warm start for another network", function()
    local dense = mf.models.rna_frameflow(small { preset = "base", position = 12, time = 12 })
    mf.torch.save(folder .. "/a.ckpt", lightning_file(dense:state()))
    local c = mf.convert.read(folder .. "/a.ckpt")
    local flash = mf.models.rna_frameflow(small { preset = "flash", position = 12, time = 12 })
    local report = flash:load(c.tensors, { strict = false })
    assert.truthy(report.loaded > 100)
    for _, name in ipairs(report.missing) do assert.truthy(name:find "distogram" or name:find "edge_bias", name) end
    support.same_bits(flash:state()["trunk.ipa_0.linear_q.weight"], dense:state()["trunk.ipa_0.linear_q.weight"])
  end)

  it("is refused when it is something else, or its shapes contradict each other", function()
    local function fails(tree, message)
      mf.torch.save(folder .. "/x.pth", tree)
      local said = support.error_matches(function() mf.convert.read(folder .. "/x.pth") end, message, true)
      assert.truthy(said:find("x.pth", 1, true))
    end
    fails({ weight = mf.ones(3) }, "is none of FoldFlow")
    fails({ epoch = 3 }, "holds no tensors")
    fails("text", "holds no table of weights")
    fails({ ["trunk.ipa_0.head_weights"] = mf.ones(2) }, "'trunk.ipa_0.linear_q.weight' is missing")
    fails({ ["module.a"] = mf.ones(1), a = mf.ones(1) }, "both stand for 'a'")
    local state = mf.models.flash_ipa(small {}):state()
    state["trunk.ipa_0.head_weights"] = mf.ones(5)
    fails(state, "comes out as")
    state["trunk.ipa_0.head_weights"] = mf.ones(5, 5)
    fails(state, "has 2 axes, expected 1")
    support.error_matches(function() mf.convert.read "none.pth" end, "No such file")
    support.error_matches(function() mf.convert.read(1) end, "argument 1 must be a path")
    mf.torch.save(folder .. "/x.pth", mf.models.flash_ipa(small {}):state())
    support.error_matches(function() mf.convert.read(folder .. "/x.pth"):save(folder .. "/x.txt") end, "ends in none of")
  end)
end)

describe("scripts/convert.lua", function()
  local function run(arguments)
    local command = "LUA_PATH='%s' MOONFOLD_LIBRARY='%s' luajit scripts/convert.lua %s 2>&1; echo status $?"
    local pipe = io.popen(command:format(package.path, require("moonfold.ffi").library, arguments))
    local text = pipe:read "*a"
    pipe:close()
    return text
  end

  it("reports, writes and ends with a status", function()
    local state = mf.models.foldflow(small { preset = "base", skip = 4, position = 6 }):state()
    mf.torch.save(folder .. "/a.pth", foldflow_file(state))
    local text = run(("in=%s/a.pth out=%s/a.safetensors names=yes"):format(folder, folder))
    assert.truthy(text:find("foldflow, orig_2d_bias, 3 blocks", 1, true), text)
    assert.truthy(text:find("module.score_model.trunk.ipa_0.head_weights", 1, true))
    assert.truthy(text:find("status 0", 1, true))
    assert.truthy(mf.weights.open(folder .. "/a.safetensors"))
    assert.truthy(run(("in=%s/a.safetensors out=%s/b to=torch"):format(folder, folder)):find("status 0", 1, true))
    assert.truthy(mf.torch.load(folder .. "/b").model)
    state["vectorfield.trunk.ipa_1.head_weights"] = nil
    mf.torch.save(folder .. "/a.pth", foldflow_file(state))
    text = run(("in=%s/a.pth out=%s/none.safetensors"):format(folder, folder))
    assert.truthy(text:find("missing (1):\n  vectorfield.trunk.ipa_1.head_weights", 1, true), text)
    assert.truthy(text:find("status 1", 1, true))
    assert.truthy(run("in=spec/fixtures/torch_legacy.pth"):find("format before 1.6, which is not read", 1, true))
  end)
end)
