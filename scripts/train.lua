-- train: trains a backbone generator on a data set.
--
--   moonfold scripts/train.lua data=train.safetensors out=runs/a steps=20000 model.blocks=6
--   moonfold scripts/train.lua preset=foldflow/flash data=train.safetensors out=runs/b      as published
--   moonfold scripts/train.lua resume=runs/a              goes on, bit for bit
--   moonfold scripts/train.lua init=runs/b/weights.safetensors data=long.safetensors out=runs/c longest=0 lr=1e-5 \
--       freeze=^embedding_layer groups=torsion_pred:1e-4 ema=0.999        fine-tunes, and says what of the weights it took
--
-- A preset gives every option its published value; what the command line says wins. `preset=foldflow/base --help` lists them.
local mf = require "moonfold"
local command = require "moonfold.command"
local files = require "moonfold.files"
local recipe = require "moonfold.recipe"
local trainer = require "moonfold.trainer"
local weights = require "moonfold.weights"

local words = {}
for i, word in ipairs(arg) do
  local folder = word:match "^resume=(.+)$"
  if folder then words[#words + 1] = "config=" .. folder .. "/options.json" end
  words[#words + 1] = arg[i]
end
local preset, reason = command.attempt({ name = "train" }, recipe.preset, words)
if not preset then command.stop({ name = "train" }, "%s", reason) end
local program = recipe.program(preset)
local o = command.parse(words, program)
if o.resume then o.out = o.resume end

command.run(program, function()
  mf.threads(o.threads)
  mf.precision(o.precision)
  o.products = mf.products(o.products or o.device:find "^cuda" and "tf32" or "float32")
  mf.seed(o.seed)

  local set = mf.data.open(o.data)
  local about = recipe.about(preset, o, set.kind)
  local model = weights.build(about)
  if o.init and not o.resume then print(recipe.warm_start(o.init, model)) end
  recipe.freeze(o, model)
  model:to(o.device)
  local run = trainer {
    folder = o.out, model = model, flow = mf.flow.se3(about.flow),
    batches = recipe.batches(preset, o, set), optimizer = recipe.optimizer(o, model),
    average = o.ema > 0 and mf.optim.ema(model:parameters(), o.ema) or nil,
    steps = o.steps, minutes = o.minutes, warmup = o.warmup, decay = o.decay, checkpoint_every = o.checkpoint_every,
    log_every = o.log_every, metadata = weights.metadata(about),
  }

  local resumed = o.resume and run:resume()
  if o.resume and not resumed then command.stop(program, "%s holds no checkpoint", o.out) end
  if not resumed and files.exists(o.out .. "/loss.csv") then
    command.stop(program, "%s holds an earlier run; resume=%s goes on with it, out= takes another folder", o.out, o.out)
  end
  o.resume = nil
  command.save(o.out .. "/options.json", o)
  print(("train: %s, %s, %d parameters%s"):format(preset.name, tostring(set), model:count(true),
    resumed and (", from step %d"):format(run.step) or ""))

  local outcome = run:go()
  os.exit(outcome == "done" and 0 or outcome == "time" and 0 or 130, true)
end)
