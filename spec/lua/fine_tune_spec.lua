-- Fine-tuning: warm starts and what they report, groups with rates of their own, frozen parts, training without a limit of length.
local mf = require "moonfold"
local command = require "moonfold.command"
local files = require "moonfold.files"
local help = require "spec.support.flow"
local recipe = require "moonfold.recipe"
local support = require "spec.support"
local trainer = require "moonfold.trainer"
local weights = require "moonfold.weights"

local presets = mf.models.presets
local moonfold = (os.getenv "MOONFOLD_BUILD" or "build") .. "/moonfold"

teardown(function() jit.flush() end)

local TINY = { node = 16, edge = 8, position = 8, hidden = 4, skip = 8, heads = 2, query_points = 2, value_points = 2, blocks = 2,
  transformer_heads = 2, transformer_layers = 1, neighbours = 4, feat = 4 }

local function tiny(o)
  local options = { preset = "flash", rng = mf.rng(71) }
  for key, value in pairs(TINY) do options[key] = value end
  for key, value in pairs(o or {}) do options[key] = value end
  return mf.models.foldflow(options)
end

local function words(...)
  local list = { "data=x", ... }
  for key, value in pairs(TINY) do list[#list + 1] = ("model.%s=%s"):format(key, value) end
  return list
end

local function parse(preset, ...) return command.parse(words(...), recipe.program(preset)) end

local function copies(model)
  local state = {}
  for name, x in pairs(model:state()) do state[name] = x:detach():clone():keep() end
  return state
end

local function write_set(path, lengths)
  local list = {}
  for i, n in ipairs(lengths) do
    local one = help.random_batch("protein", { n }, { seed = 20 + i })
    list[i] = { translations = one.translations, rotations = one.rotations, torsions = one.torsions,
                torsion_mask = mf.ones(n, 1):bool(), entry = { name = "e" .. i } }
  end
  mf.data.write(path, "protein", list)
end

describe("fine-tuning", function()
  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    files.make_folder(folder)
  end)
  after_each(function() os.execute("rm -r '" .. folder .. "'") end)

  -- Weights of a tiny FoldFlow that say what they are of.
  local function save_weights(model)
    local path = folder .. "/w.safetensors"
    local about = weights.about(model, { profile = "protein", ot = "kabsch" })
    about.preset = "foldflow/flash"
    mf.save(path, model:state(), weights.metadata(about))
    return path
  end

  it("begins with weights, and reports what matched, what is missing, left over, and of another shape", function()
    local old = tiny { rng = mf.rng(72) }
    local state = copies(old)
    state["vectorfield.trunk.ipa_0.linear_q.weight"] = nil
    state["vectorfield.trunk.ipa_0.linear_q.bias"] = mf.zeros(3)
    state["another.layer"] = mf.zeros(2)
    local path = folder .. "/w.safetensors"
    mf.save(path, state)
    local model = tiny()
    local before = copies(model)
    local report = recipe.warm_start(path, model)
    assert.same({ "vectorfield.trunk.ipa_0.linear_q.weight" }, report.missing)
    assert.same({ "another.layer" }, report.extra)
    assert.equal(1, #report.mismatched)
    assert.equal(#model:named_tensors() - 2, report.loaded)
    local text = tostring(report)
    assert.matches("init: %d+ tensors of .*w.safetensors\n", text)
    assert.matches("1 missing, left as they were made: vectorfield.trunk.ipa_0.linear_q.weight\n", text)
    assert.matches("1 of another shape, .*: vectorfield.trunk.ipa_0.linear_q.bias %(3%), expected %(8%)\n", text)
    assert.matches("1 in the file alone, not used: another.layer$", text)
    for name, x in pairs(model:state()) do
      support.same_bits(x:detach(), name:find "ipa_0.linear_q%." and before[name] or old:state()[name]:detach())
    end
    mf.save(path, { x = mf.zeros(2) })
    support.error_matches(function() recipe.warm_start(path, model) end, "has no tensor of the name and shape", true)
  end)

  it("takes model and flow from the weights unless a preset is named", function()
    local path = save_weights(tiny())
    local preset = recipe.preset { "data=x", "init=" .. path }
    assert.equal("foldflow/flash", preset.name)
    local o = command.parse({ "data=x", "init=" .. path, "flow.ot=none" }, recipe.program(preset))
    local about = recipe.about(preset, o, "protein")
    assert.same({ 16, 2, "flash_1d_bias", "none" }, { about.model.node, about.model.blocks, about.model.mode, about.flow.ot })
    recipe.warm_start(path, weights.build(about))
    local again = command.parse({ "data=x", "init=" .. path }, recipe.program(preset))
    assert.equal("kabsch", again.flow.ot)
    -- a checkpoint of PyTorch tells its sizes by its tensors
    local public = folder .. "/public.pth"
    mf.convert.read(path):save(public)
    preset = recipe.preset { "init=" .. public }
    assert.same({ "foldflow/flash", 16, 2 }, { preset.name, preset.model.node, preset.model.blocks })
    local model = tiny { transformer_heads = 4 }
    assert.equal(#model:named_tensors(), recipe.warm_start(public, model).loaded)
    assert.equal(256, recipe.preset({ "preset=foldflow/base", "init=" .. path }).model.node)
    mf.save(path, { x = mf.zeros(2) })
    support.error_matches(function() recipe.preset { "init=" .. path } end, "does not say how to build its model", true)
  end)

  it("freezes by pattern, and never thaws what does nothing", function()
    local preset, model = presets.load "foldflow/flash", tiny()
    local idle = model:count() - model:count(true)
    assert.is_true(idle > 0)
    recipe.freeze(parse(preset, "freeze=^embedding_layer%.,ipa_0"), model)
    for _, entry in ipairs(model:named_parameters()) do
      assert.is_nil(entry[1]:find "^embedding_layer%." or entry[1]:find "ipa_0", entry[1])
    end
    model:freeze(nil, false)
    assert.equal(idle, model:count() - model:count(true))
    for _, name in ipairs { "vectorfield.trunk.ipa_0.linear_rbf.weight", "vectorfield.torsion_pred.linear_3.bias" } do
      assert.is_false(model:state()[name]:requires_grad())
    end
    support.error_matches(function() recipe.freeze(parse(preset, "freeze=embeding"), model) end,
      "freeze: no parameter of the model matches 'embeding'", true)
  end)

  it("groups parameters by the first pattern that matches", function()
    local preset, model = presets.load "foldflow/flash", tiny()
    local o = parse(preset, "groups=torsion_pred:1e-2,vectorfield:1e-3", "lr=1e-4")
    local optimizer = recipe.optimizer(o, model)
    assert.equal(3, #optimizer.groups)
    assert.same({ 1e-2, 1e-3 }, { optimizer.groups[1].lr, optimizer.groups[2].lr })
    assert.is_nil(optimizer.groups[3].lr)
    local counts = { 0, 0, 0 }
    for _, entry in ipairs(model:named_parameters()) do
      local g = entry[1]:find "torsion_pred" and 1 or entry[1]:find "vectorfield" and 2 or 3
      counts[g] = counts[g] + 1
    end
    assert.same(counts, { #optimizer.groups[1].entries, #optimizer.groups[2].entries, #optimizer.groups[3].entries })
    local function refused(message, ...)
      local given = parse(preset, ...)
      support.error_matches(function() recipe.optimizer(given, model) end, message, true)
    end
    refused("matches 'torsion_prd'", "groups=torsion_prd:1e-3")
    refused("matches 'torsion_pred'", "groups=vectorfield:1e-3,torsion_pred:1e-3")
    refused("'torsion_pred' is not pattern:rate", "groups=torsion_pred")
    refused("'torsion_pred:fast' is not pattern:rate", "groups=torsion_pred:fast")
    -- torsion_pred.linear_3 is never trained: a group of it alone has nothing
    refused("matches 'torsion_pred.linear_3'", "groups=torsion_pred.linear_3:1e-3")
  end)

  it("moves each group at its rate under one schedule, leaves frozen parts, and averages from the weights on", function()
    write_set(folder .. "/set.safetensors", { 8, 8, 8 })
    local function run(rate, name)
      local model, old = tiny(), tiny { rng = mf.rng(72) }
      local path = save_weights(old)
      recipe.warm_start(path, model)
      local preset = presets.load "foldflow/flash"
      local o = parse(preset, "groups=torsion_pred:" .. rate, "lr=1e-3", "freeze=^embedding_layer", "optimizer=adam")
      recipe.freeze(o, model)
      local seen = {}
      local r = trainer {
        folder = folder .. "/" .. name, model = model, flow = mf.flow.se3 { self_condition = 0 }, steps = 4, warmup = 4,
        batches = mf.data.open(folder .. "/set.safetensors"):batches { residues = 16, seed = 7 },
        optimizer = recipe.optimizer(o, model), average = mf.optim.ema(model:parameters(), 0.9),
        on_step = function(self) seen[#seen + 1] = { self.optimizer.lr, self.optimizer.groups[1].lr } end,
      }
      r:go()
      return old:state(), model, seen, r
    end
    local old, model, seen, r = run("1e-2", "a")
    for k = 1, 4 do
      assert.is_true(math.abs(seen[k][1] - 1e-3 * k / 4) < 1e-12 and math.abs(seen[k][2] - 1e-2 * k / 4) < 1e-12)
    end
    local moved = { still = 0, group = 0, rest = 0 }
    for name, x in pairs(model:state()) do
      local by = (x - old[name]):abs():sum():item()
      local where = (name:find "^embedding_layer" or name:find "linear_rbf" or name:find "torsion_pred.linear_3") and "still"
        or name:find "torsion_pred" and "group" or "rest"
      moved[where] = moved[where] + by
    end
    assert.equal(0, moved.still)
    assert.is_true(moved.group > 0 and moved.rest > 0)
    -- Adam's first steps are of the size of the rate: at a hundredth of it the group moves far less
    local old2, slow = run("1e-4", "b")
    local by = 0
    for name, x in pairs(slow:state()) do
      if name:find "torsion_pred" then by = by + (x - old2[name]):abs():sum():item() end
    end
    assert.is_true(by > 0 and by < 0.05 * moved.group, ("%g, %g"):format(by, moved.group))
    -- the average began at the weights: after four steps of decay 0.9 it is nearer to them than the parameters are
    local near, far = 0, 0
    local saved = mf.load(folder .. "/a/weights.safetensors")
    for name, x in pairs(model:state()) do
      if x:requires_grad() then
        near, far = near + (saved[name] - old[name]):abs():sum():item(), far + (x - old[name]):abs():sum():item()
      end
    end
    assert.is_true(near > 0 and near < 0.5 * far)
    assert.is_truthy(r.average)
  end)

  it("lifts the limit of length", function()
    local path = folder .. "/set.safetensors"
    write_set(path, { 70, 600, 900 })
    local set = mf.data.open(path)
    local function counted(name, ...)
      local preset = presets.load(name)
      local o = parse(preset, ...)
      local rule = recipe.batches(preset, o, set)
      return #rule.use, rule
    end
    assert.equal(1, (counted "foldflow/flash"))
    assert.equal(3, (counted("foldflow/flash", "longest=0")))
    local count, made = counted "foldflow/flash_all"
    assert.equal(3, count)
    assert.equal(2, made.rule:size(8800, 1))
    assert.same({ 0, 40, 2880 }, { presets.load("rna_frameflow/flash_all").data.longest,
      presets.load("rna_frameflow/flash_all").data.shortest, presets.load("rna_frameflow/flash_all").train.minutes })
  end)

  it("is a command: init, freeze, groups, and resuming it", function()
    if not files.exists(moonfold) then return pending "the program is not built" end
    write_set(folder .. "/set.safetensors", { 70, 70 })
    local path = save_weights(tiny { rng = mf.rng(72) })
    local function run(text, ...)
      local pipe = io.popen(("'%s' " .. text .. " 2>&1; echo \"status $?\""):format(moonfold, ...))
      local out = pipe:read "*a"
      pipe:close()
      return out, tonumber(out:match "status (%d+)%s*$")
    end
    local text, status = run("scripts/train.lua init='%s' data='%s/set.safetensors' out='%s/run' steps=2 cap=2 budget=200 "
      .. "threads=1 freeze=^embedding_layer groups=torsion_pred:1e-3 ema=0.9 precision=float32 log_every=1", path, folder, folder)
    assert.equal(0, status, text)
    assert.matches("init: %d+ tensors of", text)
    assert.matches("train: foldflow/flash", text)
    local old = mf.load(path)
    for name, x in pairs(mf.load(folder .. "/run/weights.safetensors")) do
      if name:find "^embedding_layer" then support.same_bits(x, old[name]) end
    end
    local rows = {}
    for line in files.read(folder .. "/run/loss_by_time.csv"):gmatch "[^\n]+" do rows[#rows + 1] = line end
    assert.equal(3, #rows)
    assert.matches("^step,angle_0%.00%-0%.20,", rows[1])
    os.remove(path)                                      -- a resumed run needs the weights no more
    text, status = run("scripts/train.lua resume='%s/run' steps=3", folder)
    assert.equal(0, status, text)
    assert.matches("from step 2", text)
    text, status = run("scripts/train.lua init='%s/run/weights.safetensors' data='%s/set.safetensors' out='%s/other' "
      .. "freeze=nothing", folder, folder, folder)
    assert.equal(2, status)
    assert.matches("^train: freeze: no parameter of the model matches 'nothing'\n", text:match "train: freeze.*")
    text, status = run("scripts/train.lua data='%s/set.safetensors' out='%s/third' split=trian steps=1 threads=1",
      folder, folder)
    assert.equal(2, status)
    assert.truthy(text:find "^train: set:view: no entry has split 'trian' [^\n]*\nstatus 2\n$", text)
  end)
end)
