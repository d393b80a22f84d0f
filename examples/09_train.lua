--- Training both models by their presets: from a structure file to weights, with the loss of every term by time.
--
-- Makes a data set of ubiquitin (spec/fixtures) and one of an ideal RNA helix, and trains a tiny FoldFlow and a tiny RNA-FrameFlow
-- on them: the published presets with smaller numbers, as the command line of scripts/train.lua would set them. Prints the loss in
-- the first and the second half, and from loss_by_time.jsonl the translation term in each bin of time.
--
--     moonfold examples/09_train.lua [folder]      the runs stay in that folder
local mf = require "moonfold"
local command = require "moonfold.command"
local files = require "moonfold.files"
local json = require "moonfold.json"
local recipe = require "moonfold.recipe"
local trainer = require "moonfold.trainer"

mf.threads(1)      -- small tensors: a second core would mostly wait

local here = arg[0]:match "^(.*/)" or "./"
local given = arg[1]
local folder = given or os.tmpname()
if not given then os.remove(folder) end
files.make_folder(folder)

-- ---- data ----

-- Nucleotides on a helix like that of A-form RNA: each is the one before, turned by 32.7 degrees and raised by 2.81 angstrom.
local function helix(length)
  local angle = mf.arange(length, { dtype = "float32" }) * math.rad(32.7)
  local zero, one = mf.zeros(length), mf.ones(length)
  local c, s = angle:cos(), angle:sin()
  local turn = mf.stack({ c, -s, zero, s, c, zero, zero, zero, one }, 2):reshape(length, 3, 3)
  local rise = mf.stack({ zero, zero, (angle / math.rad(32.7)) * 2.81 }, 2)
  local x = turn:matmul(mf.tensor({ 8.7, 0, 0 }):reshape(3, 1)):squeeze(3) + rise
  local torsions = mf.tensor { 0.5, -1.0, 1.5, -2.0, 2.5, -3.0, 1.0, -1.5 }
  return {
    translations = x - x:mean(1, true), rotations = turn, torsion_mask = mf.ones(length, 8):bool(),
    torsions = mf.stack({ torsions:sin(), torsions:cos() }, 2):unsqueeze(1):expand(length, 8, 2):contiguous(),
    entry = { name = "helix" },
  }
end

-- ---- training ----

local TINY = {
  "model.node=32", "model.edge=16", "model.hidden=8", "model.heads=4", "model.query_points=4", "model.value_points=4",
  "model.blocks=2", "model.transformer_heads=2", "model.transformer_layers=1", "model.neighbours=8", "model.feat=8",
}

local function train(name, kind, path, ...)
  local out = ("%s/%s"):format(folder, kind)
  local words = { "preset=" .. name, "data=" .. path, "lr=2e-3", "cap=4", "steps=40", "precision=float32", ... }
  for _, word in ipairs(TINY) do words[#words + 1] = word end
  local preset = recipe.preset(words)
  local o = command.parse(words, recipe.program(preset))

  mf.seed(7)
  local set = mf.data.open(path)
  local about = recipe.about(preset, o, kind)
  local model = mf.weights.build(about)
  local run = trainer {
    folder = out, model = model, flow = mf.flow.se3(about.flow), batches = recipe.batches(preset, o, set),
    optimizer = recipe.optimizer(o, model), steps = o.steps, log_every = 20, metadata = mf.weights.metadata(about), label = kind,
  }
  run:go()

  local means = {}
  for line in files.read(out .. "/loss.jsonl"):gmatch "[^\n]+" do
    local row = json.decode(line)
    local half = row.step <= o.steps / 2 and 1 or 2
    means[half] = (means[half] or 0) + row.loss / (o.steps / 2)
  end
  print(("%s: %d parameters, loss %.2f in the first half, %.2f in the second"):format(name, model:count(true), means[1], means[2]))
  local last = files.read(out .. "/loss_by_time.jsonl"):match "([^\n]+)\n$"
  local row, bins = json.decode(last), {}
  for _, column in ipairs(run.by_time:columns "trans") do
    bins[#bins + 1] = ("t %s: %s"):format(column:match "_(.*)", row[column] and ("%.3f"):format(row[column]) or "-")
  end
  print("  trans  " .. table.concat(bins, "   "))
  return means
end

local path = folder .. "/protein.safetensors"
mf.data.prepare { inputs = { here .. "../spec/fixtures/1ubq.pdb.gz" }, out = path }
local a = train("foldflow/flash", "protein", path, "model.skip=8")

path = folder .. "/rna.safetensors"
mf.data.write(path, "rna", { helix(40) })
local b = train("rna_frameflow/flash", "rna", path, "mode=copies")
print(given and "runs in " .. folder or "the runs were deleted: name a folder to keep them")
if not given then os.execute("rm -r '" .. folder .. "'") end
assert(a[2] < a[1] and b[2] < b[1], "the loss falls")
