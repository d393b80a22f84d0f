-- Training and sampling on a GPU: with graphs as without, bit for bit, resumed as uninterrupted, near the CPU's.
local mf = require "moonfold"
local support = require "spec.support"
local files = require "moonfold.files"
local trainer = require "moonfold.trainer"
local weights = require "moonfold.weights"

-- `own`: the model's kind and what it does not share with others; a denoiser by default.
local function about(kind, own)
  local model = {
    node = 16, edge = 8, hidden = 4, heads = 2, query_points = 2, value_points = 2, blocks = 2, neighbours = 4, feat = 4,
    position = 8, transformer_heads = 2, transformer_layers = 1,
  }
  for key, value in pairs(own or { kind = "denoiser", torsions = kind, time = 8 }) do model[key] = value end
  return { model = model, flow = { profile = kind } }
end

local FOLDFLOW = {
  dense = { kind = "foldflow", mode = "orig_2d_bias", skip = 8 }, flash = { kind = "foldflow", mode = "flash_1d_bias", skip = 8 },
}

local function write_set(path, kind)
  local rng, list = mf.rng(77), {}
  local torsions = kind == "rna" and 8 or 1
  for i = 1, 3 do        -- equal lengths: shapes recur
    local n = 11
    list[i] = {
      translations = mf.randn(n, 3, { rng = rng }) * 8, rotations = mf.random.rotations(n, { rng = rng }),
      torsions = mf.stack({ mf.ones(n, torsions), mf.zeros(n, torsions) }, 3), torsion_mask = mf.ones(n, torsions):bool(),
      entry = { name = "e" .. i },
    }
  end
  mf.data.write(path, kind, list)
end

describe("training on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    files.make_folder(folder)
    mf.deterministic(true)
  end)
  after_each(function()
    mf.deterministic(false)
    os.execute("rm -r '" .. folder .. "'")
  end)

  local function run(kind, name, steps, o)
    write_set(folder .. "/set.safetensors", kind)
    mf.seed(3)
    local given = about(kind, o.model)
    local where = o.device or device
    local model = weights.build(given):to(where)
    local options = {
      folder = folder .. "/" .. name, model = model, flow = mf.flow.se3(given.flow), steps = steps, warmup = 2,
      batches = mf.data.open(folder .. "/set.safetensors"):batches { residues = 22, seed = 7, device = where },
      optimizer = mf.optim.adamw(model:parameters(), { lr = 1e-3, clip = 1 }),
      average = mf.optim.ema(model:parameters(), 0.9), metadata = weights.metadata(given), graph = o.graph,
    }
    local r = trainer(options)
    if o.resume then assert.is_true(r:resume()) end
    r:go()
    return r, model
  end

  local function journal(name)
    local rows = {}
    for line in files.read(folder .. "/" .. name .. "/loss.csv"):gmatch "[^\n]+" do
      rows[#rows + 1] = line:gsub(",[^,]*$", "")           -- without the seconds
    end
    return rows
  end

  local function same(a, b)
    for name, x in pairs(a:state()) do support.same_bits(x:to("cpu"), b:state()[name]:to("cpu")) end
  end

  for _, kind in ipairs { "protein", "rna" } do
    it(kind .. ": a graph gives what the functions give, bit for bit", function()
      local _, plain = run(kind, "plain", 7, { graph = false })
      local _, graphed = run(kind, "graphed", 7, { graph = true })
      same(plain, graphed)
    end)
  end

  for name, model in pairs(FOLDFLOW) do
    it("FoldFlow, " .. name .. ": a graph gives what the functions give, bit for bit", function()
      local _, plain = run("protein", "plain", 7, { graph = false, model = model })
      local _, graphed = run("protein", "graphed", 7, { graph = true, model = model })
      same(plain, graphed)
    end)
  end

  it("resumes as if it had not stopped", function()
    local _, whole = run("protein", "whole", 6, { graph = true })
    local first = run("protein", "part", 3, { graph = true })
    assert.equal(3, first.step)
    local _, resumed = run("protein", "part", 6, { graph = true, resume = true })
    same(whole, resumed)
  end)

  it("begins as the CPU begins", function()
    run("protein", "gpu", 2, { graph = true })
    run("protein", "cpu", 2, { device = "cpu" })
    local gpu, cpu = journal "gpu", journal "cpu"
    assert.equal(#cpu, #gpu)
    -- The loss alone: this untrained network's gradient has a norm of 1e7, and the last bit of an input moves it by percents.
    local a, b = tonumber(gpu[2]:match "^1,([^,]+)"), tonumber(cpu[2]:match "^1,([^,]+)")
    assert.is_true(math.abs(a - b) <= 1e-3 * math.abs(b), a .. " against " .. b)
  end)

  for _, own in ipairs { false, FOLDFLOW.dense, FOLDFLOW.flash } do
    it(("samples the same with a graph as without (%s)"):format(own and own.kind .. " " .. own.mode or "denoiser"), function()
      local given = about("protein", own)
      mf.seed(4)
      local model, flow = weights.build(given):to(device), mf.flow.se3(given.flow)
      local list = {}
      for i, graph in ipairs { false, true } do
        for _, s in mf.sample(model, flow, { lengths = { 9, 14 }, n = 2, steps = 5, seed = 3, device = device, graph = graph }) do
          list[i] = list[i] or {}
          table.insert(list[i], s.translations:to("cpu"))
        end
      end
      assert.equal(4, #list[1])
      for k, x in ipairs(list[1]) do support.same_bits(x, list[2][k]) end
    end)
  end

  local NETWORKS = {
    { "FoldFlow, dense", "protein", FOLDFLOW.dense }, { "FoldFlow, flash", "protein", FOLDFLOW.flash },
    { "RNA-FrameFlow, dense", "rna", { kind = "rna_frameflow", mode = "orig_2d_bias", time = 8 } },
    { "RNA-FrameFlow, flash", "rna", { kind = "rna_frameflow", mode = "flash_1d_bias", time = 8 } },
  }
  for _, network in ipairs(NETWORKS) do
    local name, kind, own = unpack(network)

    it(name .. ": the same seed trains to the same bits", function()
      local _, first = run(kind, "first", 5, { model = own })
      local _, second = run(kind, "second", 5, { model = own })
      same(first, second)
    end)

    it(name .. ": a sample is the same bits again, and the same structure beside samples of other lengths", function()
      local given = about(kind, own)
      mf.seed(4)
      local model, flow = weights.build(given):to(device), mf.flow.se3(given.flow)
      local function samples(o)
        local list = {}
        o.steps, o.device, o.seed = 5, device, o.seed or 3
        for i, s in mf.sample(model, flow, o) do list[i] = s.translations:to "cpu" end
        return list
      end
      local mixed, again = samples { lengths = { 9, 30, 14 } }, samples { lengths = { 9, 30, 14 } }
      local alone, other = samples { lengths = { 9, 30, 14 }, residues = 1 }, samples { lengths = { 9, 30, 14 }, seed = 5 }
      for i = 1, 3 do
        support.same_bits(again[i], mixed[i])
        support.close(alone[i], mixed[i], 1e-4)
        assert.is_true(support.difference(other[i], mixed[i]) > 0.01)
      end
    end)
  end
end)
