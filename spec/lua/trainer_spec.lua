-- Training runs: resuming bit for bit, stopping on a signal, and the programs prepare, train and sample end to end.
local mf = require "moonfold"
local support = require "spec.support"
local checkpoint = require "moonfold.checkpoint"
local files = require "moonfold.files"
local json = require "moonfold.json"
local trainer = require "moonfold.trainer"
local weights = require "moonfold.weights"

local build = os.getenv "MOONFOLD_BUILD" or "build"
local moonfold = build .. "/moonfold"

local about = {
  model = {
    kind = "denoiser", torsions = "protein", node = 16, edge = 8, hidden = 4, heads = 2, query_points = 2, value_points = 2,
    blocks = 2, neighbours = 4, feat = 4, position = 8, time = 8, transformer_heads = 2, transformer_layers = 1,
  },
  flow = { profile = "protein" },
}

local function write_set(path)
  local rng, list = mf.rng(77), {}
  for i, n in ipairs { 12, 9, 17, 11 } do
    list[i] = {
      translations = mf.randn(n, 3, { rng = rng }) * 8, rotations = mf.random.rotations(n, { rng = rng }),
      torsions = mf.stack({ mf.ones(n, 1), mf.zeros(n, 1) }, 3), torsion_mask = mf.ones(n, 1):bool(),
      entry = { name = "e" .. i },
    }
  end
  mf.data.write(path, "protein", list)
end

-- Runs a command; returns what it wrote and its exit status.
local function shell(command, ...)
  local pipe = io.popen((command):format(...) .. " 2>&1; echo \"status $?\"")
  local text = pipe:read "*a"
  pipe:close()
  return text, tonumber(text:match "status (%d+)%s*$")
end

describe("a training run", function()
  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    files.make_folder(folder)
    write_set(folder .. "/set.safetensors")
  end)
  after_each(function() os.execute("rm -r '" .. folder .. "'") end)

  local function start(name, steps, o)
    mf.seed(3)
    local model = weights.build(about)
    local options = {
      folder = folder .. "/" .. name, model = model, flow = mf.flow.se3(about.flow), steps = steps, warmup = 2, decay = "none",
      log_every = 2,
      batches = mf.data.open(folder .. "/set.safetensors"):batches { residues = 30, seed = 7, crop = 10 },
      optimizer = mf.optim.adamw(model:parameters(), { lr = 1e-3, clip = 1 }),
      average = mf.optim.ema(model:parameters(), 0.9), metadata = weights.metadata(about),
    }
    for key, value in pairs(o or {}) do options[key] = value end
    return trainer(options)
  end

  local function same(a, b, path)
    if type(a) == "cdata" then return support.same_bits(a, b) end
    if type(a) ~= "table" then return assert.equal(a, b, path) end
    for key, value in pairs(a) do same(value, b[key], path .. "/" .. key) end
    for key in pairs(b) do assert.is_not_nil(a[key], path .. "/" .. key) end
  end

  it("is, stopped and resumed, the run that did not stop, bit for bit", function()
    assert.equal("done", (start("whole", 6):go()))
    assert.equal("done", (start("parts", 3):go()))
    local second = start("parts", 6)
    assert.is_true(second:resume())
    assert.equal(3, second.step)
    assert.equal("done", (second:go()))
    local a = checkpoint.load(folder .. "/whole/checkpoint.safetensors")
    local b = checkpoint.load(folder .. "/parts/checkpoint.safetensors")
    assert.equal(6, b.step)
    assert.is_truthy(next(a.model) and next(a.optimizer) and next(a.average))
    same(a, b, "")
    same(mf.load(folder .. "/whole/weights.safetensors"), mf.load(folder .. "/parts/weights.safetensors"), "weights")
    local function losses(name)
      local list = {}
      for line in files.read(folder .. "/" .. name .. "/loss.jsonl"):gmatch "[^\n]+" do
        local row = json.decode(line)
        row.seconds = nil
        list[#list + 1] = row
      end
      return list
    end
    assert.equal(6, #losses "whole")
    assert.same(losses "whole", losses "parts")
    -- three steps were a row and a half: the half that ended the first part is not in the file of the second
    assert.equal(files.read(folder .. "/whole/loss_by_time.csv"), files.read(folder .. "/parts/loss_by_time.csv"))
  end)

  it("logs each term by bins of time: means of what the steps had", function()
    local run = start("run", 5, { average = false })
    local sums, counts = {}, {}
    local loss = run.flow.loss
    run.flow.loss = function(flow, prediction, noisy)
      local total, terms = loss(flow, prediction, noisy)
      for name, x in pairs(terms) do
        if name ~= "total" then
          for i, value in ipairs(x:values()) do
            local bin = math.floor(noisy.times[i] / 0.2002) + 1
            local key = ("%s_%.2f-%.2f"):format(name, (bin - 1) / 5, bin / 5)
            -- terms of atoms act below t = 0.25
            if not (name == "bb" or name == "dm") or noisy.times[i] < 0.25 then
              sums[key], counts[key] = (sums[key] or 0) + value, (counts[key] or 0) + 1
            end
          end
        end
      end
      return total, terms
    end
    run.log_every = 10
    run:go()
    local row = json.decode(files.read(folder .. "/run/loss_by_time.jsonl"))
    assert.equal(5, row.step)
    row.step = nil
    for key, sum in pairs(sums) do
      assert.is_true(math.abs(row[key] - sum / counts[key]) <= 1e-6 * math.abs(row[key]), key)
      row[key] = nil
    end
    assert.is_nil(next(row))
    local header = files.read(folder .. "/run/loss_by_time.csv"):match "[^\n]+"
    assert.equal(1 + 5 * 6, select(2, header:gsub(",", "")) + 1)           -- five bins of six terms
  end)

  it("learns: the parameters move, and the weights are the average", function()
    local run = start("run", 4)
    local before = {}
    for name, x in pairs(run.model:state()) do before[name] = x:detach():clone() end
    run:go()
    local moved = 0
    local saved = mf.load(folder .. "/run/weights.safetensors")
    for name, x in pairs(run.model:state()) do
      if not (x - before[name]):eq(0):all() then moved = moved + 1 end
      assert.is_truthy(saved[name], name)
    end
    assert.is_true(moved > 10)
    local average = run.average:state()
    for name, x in pairs(average) do
      if saved[name] then support.same_bits(x, saved[name]) end
    end
    local model, flow = weights.open(folder .. "/run/weights.safetensors")
    for _, s in mf.sample(model, flow, { length = 6, steps = 3 }) do assert.equal(6, s.length) end
  end)

  it("sums itself up at its end, parts before it included", function()
    local function summary(name) return json.decode(files.read(folder .. "/" .. name .. "/summary.json")) end
    local run = start("run", 3)
    run:go()
    local first = summary "run"
    assert.equal("done", first.outcome)
    assert.equal(3, first.steps)
    assert.equal(run.model:count(), first.parameters)
    assert.equal("cpu", first.device)
    assert.equal(mf.hardware(), first.hardware)
    assert.is_true(first.peak_bytes > 3 * 4 * first.parameters and first.peak_bytes < 1e9)
    assert.is_true(first.seconds > 0 and first.steps_per_second > 0 and first.residues_per_second > 0)
    first.peak_bytes = 2 ^ 40          -- what this part will not reach
    files.replace(folder .. "/run/summary.json", json.encode(first))
    local second = start("run", 5)
    second:resume()
    second:go()
    local whole = summary "run"
    assert.equal(5, whole.steps)
    assert.equal(2 ^ 40, whole.peak_bytes)
    assert.is_true(whole.seconds > first.seconds)
  end)

  it("says that there is nothing to resume", function() assert.is_false(start("none", 1):resume()) end)

  it("stops when the time is up, with a checkpoint", function()
    assert.equal("time", (start("time", 1000, { minutes = 0.5 / 60 }):go()))
    assert.is_true(start("time", 1000):resume())
  end)

  it("stops at a loss that is no number, and saves nothing", function()
    local run = start("nan", 5)
    run.flow.loss = function() return mf.tensor(0 / 0), {} end
    local ok, message = pcall(run.go, run)
    assert.is_false(ok)
    assert.is_truthy(message:find "the loss is %-?nan at step 1 %(e%d, ")
    assert.is_false(files.exists(folder .. "/nan/checkpoint.safetensors"))
    local summary = json.decode(files.read(folder .. "/nan/summary.json"))
    assert.truthy(summary.outcome:find "^failed: trainer: the loss is %-?nan at step 1")
    assert.is_nil(summary.steps_per_second)
  end)

  describe("as a program", function()
    local function has_program() return files.exists(moonfold) end
    local small = "residues=30 threads=1 model.node=16 model.edge=8 model.hidden=4 model.heads=2 model.query_points=2 "
      .. "model.value_points=2 model.blocks=2 model.neighbours=4 model.position=8 model.time=8 model.transformer_heads=2 "
      .. "model.transformer_layers=1"

    it("ends cleanly on a signal, with a checkpoint to go on from", function()
      if not has_program() then return pending "the program is not built" end
      local text, status = shell(
        "( '%s' scripts/train.lua data='%s/set.safetensors' out='%s/run' steps=1000000 %s & child=$!; "
        .. "for i in $(seq 100); do sleep 0.1; grep -q '^3,' '%s/run/loss.csv' 2>/dev/null && break; done; "
        .. "kill -INT $child; wait $child )", moonfold, folder, folder, small, folder)
      assert.is_truthy(text:find("stopped by SIGINT", 1, true), text)
      assert.equal(130, status)
      local c = checkpoint.load(folder .. "/run/checkpoint.safetensors")
      assert.is_true(c.step >= 3)
      local rows = select(2, files.read(folder .. "/run/loss.csv"):gsub("\n", "")) - 1
      assert.equal(c.step, rows)
      local again, ended = shell("'%s' scripts/train.lua resume='%s/run' steps=%d", moonfold, folder, c.step + 2)
      assert.equal(0, ended, again)
      assert.is_truthy(again:find(("from step %d"):format(c.step), 1, true), again)
      assert.equal(c.step + 2, checkpoint.load(folder .. "/run/checkpoint.safetensors").step)
    end)

    it("prepares, trains and samples end to end", function()
      if not has_program() then return pending "the program is not built" end
      -- a structure to begin with: what a model that knows nothing samples is a valid file
      mf.seed(1)
      for _, s in mf.sample(weights.build(about), mf.flow.se3(about.flow), { length = 14, steps = 2 }) do
        s:save(folder .. "/a.pdb")
      end
      local text, status = shell("'%s' scripts/prepare.lua in='%s/a.pdb' out='%s/train.safetensors'", moonfold, folder, folder)
      assert.equal(0, status, text)
      assert.is_truthy(text:find("1 entries, 14 residues", 1, true), text)
      local train = ("'%s' scripts/train.lua data='%s/train.safetensors' out='%s/run' steps=2 ema=0.9 %s"):format(
        moonfold, folder, folder, small)
      text, status = shell("%s", train)
      assert.equal(0, status, text)
      text, status = shell("%s", train)
      assert.equal(2, status)
      assert.is_truthy(text:find("holds an earlier run", 1, true), text)
      local sample = ("'%s' scripts/sample.lua weights='%s/run/weights.safetensors' out='%s/samples' lengths=5,8 n=2 steps=2 "
        .. "trajectory=yes"):format(moonfold, folder, folder)
      text, status = shell("%s", sample)
      assert.equal(0, status, text)
      assert.is_truthy(text:find("4 structures", 1, true), text)
      for _, name in ipairs { "sample_1.pdb", "bb_traj_1.pdb", "x0_traj_1.pdb" } do
        assert.is_true(files.exists(folder .. "/samples/length_8/sample_2/" .. name), name)
      end
      text = shell("%s", sample)
      assert.is_truthy(text:find("0 structures in .*, 4 were there"), text)
    end)
  end)
end)
