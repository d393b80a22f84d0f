-- train: trains a backbone generator on a data set.
--
--   moonfold scripts/train.lua data=train.safetensors out=runs/a steps=20000 model.blocks=6
--   moonfold scripts/train.lua resume=runs/a              goes on, bit for bit
local mf = require "moonfold"
local command = require "moonfold.command"
local files = require "moonfold.files"
local options = require "moonfold.options"
local trainer = require "moonfold.trainer"
local weights = require "moonfold.weights"

local program = {
  name = "train", summary = "trains a backbone generator on a data set made by prepare.",
  { "data", "path", command.REQUIRED, "data set" },
  { "out", "path", "runs/train", "folder of the run" },
  { "resume", "path", options.OPTIONAL, "folder of a run to go on with, its options included" },
  { "steps", "integer", 20000, "optimizer steps in all" },
  { "minutes", "number", options.OPTIONAL, "stop after so long, with a checkpoint" },
  { "residues", "integer", 20000, "residue budget of a batch" },
  { "crop", "integer", options.OPTIONAL, "train on windows of so many residues of longer entries" },
  { "seed", "integer", 123, "of weights, batches and noise" },
  { "device", "string", "cpu", "where tensors live" },
  { "threads", "integer", 0, "CPU threads, 0 for all cores" },
  { "precision", "string", "float32", "of attention: float32, tf32, fp16, bf16, split" },
  { "products", "string", options.OPTIONAL, "of matrices: float32, tf32, bf16; by default tf32 on a GPU, float32 elsewhere" },
  { "lr", "number", 1e-4, "learning rate" },
  { "warmup", "integer", 0, "steps over which it rises" },
  { "decay", "string", "none", "or cosine" },
  { "weight_decay", "number", 0.01, "of AdamW" },
  { "clip", "number", 1, "global gradient norm" },
  { "ema", "number", 0, "decay of the running average of weights, 0 for none" },
  { "checkpoint_every", "integer", 1000, "steps between checkpoints" },
  { "flow.ot", "string", options.OPTIONAL, "coupling: none, kabsch, squared, sinkhorn" },
  { "flow.stochastic", "boolean", false, "noise along the path" },
  { "flow.gate", "number", options.OPTIONAL, "time where the terms of atoms begin, by default the profile's" },
  { "flow.time_floor", "number", options.OPTIONAL, "proteins: losses below this t count as at it; short runs learn faster" },
  { "flow.separate_rotation", "boolean", true, "proteins: axis and angle terms instead of one" },
  { "flow.compat", "boolean", false, "losses as the original programs compute them" },
  { "model.mode", "string", "flash_1d_bias", "pairs: see models.flash_ipa" },
  { "model.node", "integer", 256, "node channels" },
  { "model.edge", "integer", 128, "pair channels" },
  { "model.hidden", "integer", 128, "scalar channels a head" },
  { "model.heads", "integer", 8, "attention heads" },
  { "model.query_points", "integer", 8, "query and key points a head" },
  { "model.value_points", "integer", 12, "value points a head" },
  { "model.rank", "integer", 2, "rank of the pair factors" },
  { "model.blocks", "integer", 6, "trunk blocks" },
  { "model.neighbours", "integer", 20, "nearest residues in the pair features" },
  { "model.position", "integer", 128, "width of the position embedding" },
  { "model.time", "integer", 128, "width of the time embedding" },
  { "model.transformer_heads", "integer", 4, "heads of the sequence transformer" },
  { "model.transformer_layers", "integer", 2, "its layers" },
  { "model.checkpoint", "boolean", false, "recompute blocks in backward: less memory, a third more time" },
}

local words = {}
for i, word in ipairs(arg) do
  local folder = word:match "^resume=(.+)$"
  if folder then words[#words + 1] = "config=" .. folder .. "/options.json" end
  words[#words + 1] = arg[i]
end
local o = command.parse(words, program)
if o.resume then o.out = o.resume end

mf.threads(o.threads)
mf.precision(o.precision)
o.products = mf.products(o.products or o.device:find "^cuda" and "tf32" or "float32")
mf.seed(o.seed)

local set = mf.data.open(o.data)
local about = { model = { kind = "denoiser", torsions = set.kind }, flow = { profile = set.kind } }
for key, value in pairs(o.model) do about.model[key] = value end
for key, value in pairs(o.flow) do about.flow[key] = value end

local model = weights.build(about):to(o.device)
local run = trainer {
  folder = o.out, model = model, flow = mf.flow.se3(about.flow),
  batches = set:batches { residues = o.residues, crop = o.crop, seed = o.seed, device = o.device },
  optimizer = mf.optim.adamw(model:parameters(), { lr = o.lr, weight_decay = o.weight_decay, clip = o.clip }),
  average = o.ema > 0 and mf.optim.ema(model:parameters(), o.ema) or nil,
  steps = o.steps, minutes = o.minutes, warmup = o.warmup, decay = o.decay, checkpoint_every = o.checkpoint_every,
  metadata = weights.metadata(about),
}

local resumed = o.resume and run:resume()
if o.resume and not resumed then
  io.stderr:write(("train: %s holds no checkpoint\n"):format(o.out))
  os.exit(2, true)
end
if not resumed and files.exists(o.out .. "/loss.csv") then
  io.stderr:write(("train: %s holds an earlier run; resume=%s goes on with it, out= takes another folder\n"):format(o.out, o.out))
  os.exit(2, true)
end
o.resume = nil
command.save(o.out .. "/options.json", o)
print(("train: %s, %d parameters%s"):format(tostring(set), model:count(), resumed and (", from step %d"):format(run.step) or ""))

local outcome = run:go()
os.exit(outcome == "done" and 0 or outcome == "time" and 0 or 130, true)
