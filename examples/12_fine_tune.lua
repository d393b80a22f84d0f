--- Fine-tuning on chains without a limit of length: a warm start, frozen parts, rates of their own, memory that grows with length.
--
-- A tiny FoldFlow is trained on ubiquitin under the limit that its preset has. A second run begins with those weights and lifts
-- the limit (longest=0) for a set that has longer chains too, made of repeated ubiquitin: its embedding stays frozen, its torsion
-- head learns faster, and what is saved is the running average. Prints what the warm start took over, the lengths that each run
-- met, and the peak memory of a training step at growing length, from the plan that needs no machine.
--
--     moonfold examples/12_fine_tune.lua [folder]      the runs stay in that folder
local mf = require "moonfold"
local command = require "moonfold.command"
local files = require "moonfold.files"
local recipe = require "moonfold.recipe"
local trainer = require "moonfold.trainer"

mf.threads(1)      -- small tensors: a second core would mostly wait

local here = arg[0]:match "^(.*/)" or "./"
local folder = arg[1] or os.tmpname()
if not arg[1] then os.remove(folder) end
files.make_folder(folder)

-- ---- data: ubiquitin once, and several times along a line ----

local s = mf.structure.read(here .. "../spec/fixtures/1ubq.pdb.gz")
local one = mf.atoms.protein.features(s:atoms(1, mf.atoms.protein.inputs))

local function repeated(times)
  local item = { entry = { name = ("ubiquitin x %d"):format(times) } }
  for _, name in ipairs { "rotations", "torsions", "torsion_mask", "translations" } do
    local parts = {}
    for k = 1, times do parts[k] = name == "translations" and one[name] + mf.tensor { { 35 * k, 0, 0 } } or one[name] end
    item[name] = mf.cat(parts, 1)
  end
  return item
end

local set = folder .. "/set.safetensors"
mf.data.write(set, "protein", { repeated(1), repeated(2), repeated(8) })        -- 76, 152 and 608 residues

-- ---- two runs ----

local TINY = {
  "model.node=32", "model.edge=16", "model.hidden=8", "model.heads=4", "model.query_points=4", "model.value_points=4",
  "model.blocks=2", "model.skip=8", "model.transformer_heads=2", "model.transformer_layers=1", "model.neighbours=8",
}

-- What scripts/train.lua does with a command line.
local function train(label, words)
  words[#words + 1] = "data=" .. set
  words[#words + 1] = "precision=float32"
  local preset = recipe.preset(words)
  local o = command.parse(words, recipe.program(preset))
  local about = recipe.about(preset, o, "protein")
  mf.seed(7)
  local model = mf.weights.build(about)
  if o.init then print(recipe.warm_start(o.init, model)) end
  recipe.freeze(o, model)
  local met = {}
  local run = trainer {
    folder = ("%s/%s"):format(folder, label), model = model, flow = mf.flow.se3(about.flow), label = label,
    batches = recipe.batches(preset, o, mf.data.open(set)), optimizer = recipe.optimizer(o, model), steps = o.steps,
    average = o.ema > 0 and mf.optim.ema(model:parameters(), o.ema) or nil, metadata = mf.weights.metadata(about),
    on_step = function(_, row) met[row.residues / row.sequences] = true end,
  }
  run:go()
  local lengths = mf.options.sorted_keys(met)
  print(("%s: %s, %d of %d parameters trained, chains of %s residues"):format(label, preset.name, model:count(true),
    model:count(), table.concat(lengths, ", ")))
  return lengths, model, run.folder .. "/weights.safetensors"
end

local words = { "preset=foldflow/flash", "steps=10", "cap=4", "lr=1e-3" }
for _, word in ipairs(TINY) do words[#words + 1] = word end
local short, _, saved = train("limited", words)
local long, tuned = train("unlimited", {
  "init=" .. saved, "longest=0", "cap=2", "steps=9", "lr=1e-4", "freeze=^embedding_layer%.node_embedder",
  "groups=torsion_pred:1e-3", "ema=0.9",
})
assert(#short == 2 and #long == 3, "the limit of 512 residues is lifted")

-- ---- what length costs ----

local last
for _, length in ipairs { 512, 2048, 8192, 32768 } do
  local plan = tuned:plan { length = length }
  local mib = (plan.training - plan.optimizer - plan.parameters) / 2 ^ 20
  print(("%6d residues: %8.1f MiB for a training step%s"):format(length, mib, last and (", %.2f times"):format(mib / last) or ""))
  -- from 4096 residues on blocks are recomputed but for attention, which costs less; never more than four times for four times
  assert(not last or mib / last < 4.2)
  last = mib
end
print(arg[1] and "runs in " .. folder or "the runs were deleted: name a folder to keep them")
if not arg[1] then os.execute("rm -r '" .. folder .. "'") end
