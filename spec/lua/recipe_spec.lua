-- Presets, what a command line makes of them, plans, and weights that say what they are of.
local mf = require "moonfold"
local command = require "moonfold.command"
local files = require "moonfold.files"
local help = require "spec.support.nn"
local recipe = require "moonfold.recipe"
local support = require "spec.support"
local weights = require "moonfold.weights"

local presets = mf.models.presets

-- A compiled trace keeps the closures it has met, and they the tensors they captured: let go before live bytes are counted.
teardown(function() jit.flush() end)

local SMALL = {
  foldflow = { node = 16, edge = 8, position = 8, hidden = 4, skip = 8, heads = 2, query_points = 2, value_points = 2, blocks = 1,
    transformer_heads = 2, transformer_layers = 1, neighbours = 4, feat = 4 },
  rna_frameflow = { node = 16, edge = 8, position = 8, time = 8, hidden = 4, heads = 2, query_points = 2, value_points = 2,
    blocks = 1, transformer_heads = 2, transformer_layers = 1, neighbours = 4, feat = 4 },
}

local function temporary()
  local path = os.tmpname()
  os.remove(path)
  return files.make_folder(path)
end

local function write_set(path, kind, lengths)
  local rng, list = mf.rng(61), {}
  local count = mf.atoms.of(kind).torsion_count
  for i, n in ipairs(lengths) do
    local R, t = help.chain(n, rng)
    local torsions = mf.randn(n, count, 2, { rng = rng })
    list[i] = {
      rotations = R, translations = t * 10, torsions = torsions / torsions:norm(3, true),
      torsion_mask = mf.ones(n, count):bool(), entry = { name = "chain " .. i },
    }
  end
  mf.data.write(path, kind, list)
end

describe("presets", function()
  it("are complete: each builds its model and its flow, and its options are those of the constructors", function()
    for _, name in ipairs(presets.names()) do
      local preset = presets.load(name)
      assert.equal(name:match "^(.-)/", preset.kind)
      assert.is_string(preset.source)
      for key in pairs(preset.model) do assert.truthy(mf.models[preset.kind].defaults[key] ~= nil, key) end
      mf.flow.se3(preset.flow)
      local rule = preset.data.rule
      assert.truthy(rule and require("moonfold.data.rules").rule(rule) or preset.data.residues)
      assert.truthy(preset.train.lr and preset.train.steps and preset.sample.steps)
    end
  end)

  it("differ where the publications do", function()
    local flash, base = presets.load "foldflow/flash", presets.load "foldflow/base"
    assert.same({ 5, 128, "protein-flash", "bf16" },
      { flash.model.blocks, flash.model.hidden, flash.data.rule, flash.train.precision })
    assert.same({ 4, 256, "protein-ipa" }, { base.model.blocks, base.model.hidden, base.data.rule })
    assert.is_nil(base.train.precision)
    local rna = presets.load "rna_frameflow/flash"
    assert.same({ "adamw", 0, "kabsch", "rna-flash", 200 },
      { rna.train.optimizer, rna.train.clip, rna.flow.ot, rna.data.rule, rna.data.epochs })
    base.model.blocks, base.flow.weights.bb = 99, 99                 -- a copy
    assert.equal(4, presets.load("foldflow/base").model.blocks)
    assert.equal(0.25, presets.load("foldflow/flash").flow.weights.bb)
  end)

  it("are asked for by name", function()
    support.error_matches(function() presets.load "foldflow/smal" end,
      "no preset 'foldflow/smal', did you mean 'foldflow/small'?", true)
    support.error_matches(function() presets.load(3) end, "no preset '3' (known: ", true)
  end)
end)

describe("the command line of training", function()
  it("changes every option of every model and of the flow", function()
    for _, name in ipairs(presets.names()) do
      local preset, rows = presets.load(name), {}
      for _, row in ipairs(recipe.program(preset)) do rows[row[1]] = row end
      for key in pairs(mf.models[preset.kind].defaults) do
        if key ~= "rng" and key ~= "torsions" then assert.truthy(rows["model." .. key], name .. " model." .. key) end
      end
      for key in pairs(mf.flow.defaults) do
        if key ~= "profile" and key ~= "seed" and key ~= "weights" then assert.truthy(rows["flow." .. key], "flow." .. key) end
      end
      for key, value in pairs(preset.model) do assert.equal(value, rows["model." .. key][3], key) end
    end
  end)

  it("starts from the preset, and from the plain denoiser without one", function()
    local preset = recipe.preset { "preset=rna_frameflow/flash", "data=x" }
    local o = command.parse({ "data=x", "model.blocks=2", "flow.weights.tors=0.5", "lr=1e-3" }, recipe.program(preset))
    local about = recipe.about(preset, o, "rna")
    assert.equal("rna_frameflow", about.model.kind)
    assert.same({ 2, 20, "flash_1d_bias" }, { about.model.blocks, about.model.neighbours, about.model.mode })
    local flow = about.flow
    assert.same({ "rna", "kabsch", 0.5, 2 }, { flow.profile, flow.ot, flow.weights.tors, flow.weights.trans })
    assert.same({ 1e-3, 0, "bf16", 40, 150 }, { o.lr, o.clip, o.precision, o.shortest, o.longest })
    support.error_matches(function() recipe.about(preset, o, "protein") end,
      "preset rna_frameflow/flash is for rna, the data set holds protein", true)

    preset = recipe.preset {}
    o = command.parse({ "data=x" }, recipe.program(preset))
    about = recipe.about(preset, o, "rna")
    local model = about.model
    assert.same({ "denoiser", "rna", 20, 256 }, { model.kind, model.torsions, model.neighbours, model.node })
    assert.same({ 1, 20000, "float32" }, { o.clip, o.steps, o.precision })
    local _, reason = recipe.preset { "preset=rna_frameflw/flash" }
    assert.matches("did you mean 'rna_frameflow/flash'?", reason, 1, true)
  end)

  it("takes a budget of residues or a rule, the preset's when there is neither", function()
    local folder = temporary()
    write_set(folder .. "/set.safetensors", "protein", { 70, 70, 50, 600 })
    local set = mf.data.open(folder .. "/set.safetensors")
    local preset = presets.load "foldflow/flash"
    local function batches(...)
      local o = command.parse({ "data=x", ... }, recipe.program(preset))
      return recipe.batches(preset, o, set), o
    end
    local made, o = batches()
    assert.same({ "copies", 2, "protein-flash" }, { made.mode, #made.use, o.rule })          -- 60 to 512 residues
    assert.equal(286, made.rule:size(70, 1))
    made = batches("budget=700", "mode=lengths", "shortest=10")
    assert.same({ "lengths", 3, 10 }, { made.mode, #made.use, made.rule:size(70, 1) })
    made, o = batches "residues=500"
    assert.equal("packed", made.mode)
    assert.is_nil(o.rule)
    support.error_matches(function() batches("residues=500", "rule=rna-ipa") end,
      "residues (mixed lengths) and rule (one length)", true)
    support.error_matches(function() batches "rule=rna" end, "batch rule: no rule 'rna'", true)
    support.error_matches(function() recipe.optimizer({ optimizer = "lion" }) end, "optimizer 'lion' (known: adam, adamw)", true)
    os.execute("rm -rf " .. folder)
  end)

  it("trains by a preset, goes on, and samples from what was saved", function()
    local moonfold = (os.getenv "MOONFOLD_BUILD" or "build") .. "/moonfold"
    if not files.exists(moonfold) then return pending "the program is not built" end
    for name, kind in pairs { ["foldflow/flash"] = "protein", ["rna_frameflow/base"] = "rna" } do
      local folder, words = temporary(), {}
      write_set(folder .. "/set.safetensors", kind, { 12, 12, 9 })
      for key, value in pairs(SMALL[presets.load(name).kind]) do words[#words + 1] = ("model.%s=%s"):format(key, value) end
      local function run(text, ...)
        return support.shell(("'%s' " .. text .. " >>'%s/log' 2>&1"):format(moonfold, ...))
      end
      assert.is_true(run("scripts/train.lua preset=%s data='%s/set.safetensors' out='%s/run' steps=2 shortest=5 cap=4 threads=1 "
        .. "precision=float32 %s", name, folder, folder, table.concat(words, " "), folder), support.read_file(folder .. "/log"))
      assert.is_true(run("scripts/train.lua resume='%s/run' steps=3", folder, folder), support.read_file(folder .. "/log"))
      local model, flow, about = weights.open(folder .. "/run/weights.safetensors")
      assert.same({ name, presets.load(name).kind, kind, 1 }, { about.preset, model._class, flow.kind, model._options.blocks })
      assert.is_true(run("scripts/sample.lua weights='%s/run/weights.safetensors' out='%s/samples' lengths=8 n=1 steps=3",
        folder, folder, folder), support.read_file(folder .. "/log"))
      assert.is_true(files.exists(folder .. "/samples/length_8/sample_1/sample_1.pdb"))
      assert.matches('"n": ?1', support.read_file(folder .. "/samples/inference_conf.json"))
      os.execute("rm -rf " .. folder)
    end
  end)
end)

describe("weights", function()
  it("tell what model they are of, whatever becomes of presets", function()
    local folder = temporary()
    for kind, small in pairs(SMALL) do
      local o = { preset = "flash", rng = mf.rng(62) }
      for key, value in pairs(small) do o[key] = value end
      local model, path = mf.models[kind](o), folder .. "/" .. kind .. ".safetensors"
      local profile = kind == "foldflow" and "protein" or "rna"
      mf.save(path, model:state(), weights.metadata(weights.about(model, { profile = profile })))
      local again, flow, about = weights.open(path)
      assert.equal(tostring(model), tostring(again))
      assert.equal(profile, flow.kind)
      assert.equal("flash_1d_bias", about.model.mode)                  -- said in full
      for name, x in pairs(model:state()) do assert.equal(0, help.apart(again:state()[name], x)) end
    end
    os.execute("rm -rf " .. folder)
  end)

  it("are built from a preset with options over it", function()
    local model = weights.build { preset = "foldflow/small", model = { node = 16, skip = 16 } }
    assert.same({ "foldflow", 16, 32 }, { model._class, model._options.node, model._options.edge })
    support.error_matches(function() weights.build { model = { kind = "foldflo" } } end,
      "weights: no model 'foldflo', did you mean 'foldflow'?", true)
    support.error_matches(function() weights.build { preset = "foldflow/tiny" } end, "presets: no preset 'foldflow/tiny'", true)
    support.error_matches(function() weights.build {} end, "weights: no model 'nil' (known: ", true)
  end)
end)

describe("a plan", function()
  it("tells what a step holds: what the CPU then holds", function()
    for kind, small in pairs(SMALL) do
      local flow = mf.flow.se3 { profile = kind == "foldflow" and "protein" or "rna", ot = "none" }
      local R, t = help.chain(360, mf.rng(64))
      local batch = { packing = mf.packing { 120, 120, 120 }, rotations = R, translations = t, times = {} }
      batch.torsions = mf.randn(360, kind == "foldflow" and 1 or 8, 2)
      for i = 1, 3 do batch.times[i] = kind == "foldflow" and 0.1 or 0.9 end
      local noisy = flow:corrupt(batch)
      noisy.trans_sc = noisy.translations:clone()
      for _, preset in ipairs(kind == "foldflow" and { "base", "flash" } or { "flash" }) do
        collectgarbage()
        collectgarbage()
        local before, o = mf.memory().live, { preset = preset, rng = mf.rng(63) }
        for key, value in pairs(small) do o[key] = value end
        local model = mf.models[kind](o)
        local plan = model:plan { length = 120, batch = 3, flow = flow }
        local optimizer = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1 })
        local function step() optimizer:step((flow:loss(model(noisy), noisy))) end
        mf.scope(step)
        mf.reset_peak()
        mf.scope(step)
        -- to the byte, but for small tables of constants that are uploaded once (moonfold.constant)
        local off = mf.memory().peak - before - (plan.training - plan.inputs)
        assert.is_true(math.abs(off) < 4096, ("%s/%s: %d bytes more than planned"):format(kind, preset, off))
      end
    end
  end)

  it("grows with the length for factors, and with its square for dense pairs", function()
    local model = mf.models.rna_frameflow { preset = "flash" }
    local states = model:named_parameters()[1][2]:device()
    model:plan { length = 50, train = false }                          -- constants are made once
    local null = mf.memory("null").live
    local short, long = model:plan { length = 2000, train = false }, model:plan { length = { 2000, 2000 }, train = false }
    assert.equal("cpu", states)
    assert.equal(null, mf.memory("null").live)
    assert.same({ 4 * 17921732, 1, 2000 }, { short.parameters, short.sequences, short.residues })
    assert.is_nil(short.training)
    assert.matches("^2000 residues in 1 sequence: parameters 68.4 MiB, sampling", tostring(short))
    local ratio = (long.sampling - long.parameters) / (short.sampling - short.parameters)
    assert.is_true(math.abs(ratio - 2) < 0.05, ratio)
    local dense = mf.models.foldflow { preset = "base" }
    local a, b = dense:plan { length = 500, batch = 2 }, dense:plan { length = 1000 }
    assert.is_true(math.abs(a.optimizer / (8 * 17380314) - 1) < 0.01)
    ratio = (b.training - b.parameters) / (a.training - a.parameters)
    assert.is_true(ratio > 1.8 and ratio < 2.1, ratio)
  end)

  it("says what it cannot plan", function()
    local model = mf.models.foldflow { preset = "small" }
    local function refused(text, o) support.error_matches(function() model:plan(o) end, text, true) end
    refused("plan: option 'length' is required", {})
    refused("plan: length is", { length = {} })
    refused("plan: unknown option 'lenght', did you mean 'length'?", { lenght = 3 })
    refused("plan: optimizer is lion, expected the name of one in mf.optim", { length = 10, optimizer = "lion" })
  end)
end)
