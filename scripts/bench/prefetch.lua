-- Whether a GPU ever waits for data: steps of a preset's training as the trainer makes them, and how long the host stands in
-- batches:next() meanwhile, with 0, 1, 2 and 4 batches read ahead. The device has nothing to do then, for every step ends with
-- reading its loss. Means over steps; the same batches for every row. Reading ahead takes a core that is free.
local mf = require "moonfold"
local C = require("moonfold.ffi").C
local atoms = require "moonfold.atoms"
local command = require "moonfold.command"
local learner = require "moonfold.learner"
local presets = require "moonfold.models.presets"
local recipe = require "moonfold.recipe"
local stopwatch = require "moonfold.stopwatch"
local weights = require "moonfold.weights"

local ENTRIES, SHORTEST, LONGEST = 600, 60, 150
local WARM, STEPS = 10, 60      -- steps: before shapes have recurred and are captured, and measured ones
local SMALL = { warm = 1, steps = 4, entries = 20, words = { "cap=2" } }

-- Random walks of lengths that every preset takes.
local function make(path, kind, entries)
  local rng, list, count = mf.rng(3), {}, atoms.of(kind).torsion_count
  for i = 1, entries do
    local n = SHORTEST + math.floor((LONGEST - SHORTEST + 1) * rng:number())
    local step = mf.randn(n, 3, { rng = rng })
    local torsions = mf.randn(n, count, 2, { rng = rng })
    list[i] = {
      translations = (step / step:norm(2, true) * 3.8):cumsum(1), rotations = mf.random.rotations(n, { rng = rng }),
      torsions = torsions / torsions:norm(3, true), torsion_mask = mf.ones(n, count):bool(),
      entry = { name = ("walk %d"):format(i), cluster = i },
    }
  end
  mf.data.write(path, kind, list)
end

return function(o, report)
  local device = o.device
  local warm, steps = o.small and SMALL.warm or WARM, o.small and SMALL.steps or STEPS

  -- Seconds of each step and of the wait in it, and all residues.
  local function go(batches, flow, work)
    local took, waited, residues = {}, {}, 0
    for k = 1, warm + steps do
      mf.scope(function()
        local began = C.mf_clock()
        local _, batch = batches()
        local ready = C.mf_clock()
        local noisy = flow:corrupt(batch)
        flow:self_condition(work.predict, noisy)
        work.learn(noisy):values()
        if k > warm then
          took[k - warm], waited[k - warm] = C.mf_clock() - began, ready - began
          residues = residues + batch.packing:total()
        end
      end)
    end
    return took, waited, residues
  end

  local function sum(list)
    local total = 0
    for _, value in ipairs(list) do total = total + value end
    return total
  end

  local function all(name, path)
    local preset = presets.load(name)
    local words = { "preset=" .. name, "data=" .. path, "device=" .. device, unpack(o.small and SMALL.words or {}) }
    for key, value in pairs(o.small and o.measure.small or {}) do words[#words + 1] = ("model.%s=%s"):format(key, value) end
    local set = mf.data.open(path)
    for _, ahead in ipairs { 0, 1, 2, 4 } do
      mf.seed(1)
      local asked = command.parse({ "prefetch=" .. ahead, unpack(words) }, recipe.program(preset))
      local about = recipe.about(preset, asked, set.kind)
      local model, flow = weights.build(about):to(device), mf.flow.se3(about.flow)
      local work = learner { model = model, flow = flow, optimizer = recipe.optimizer(asked, model), graph = o.graph }
      local took, waited, residues = go(recipe.batches(preset, asked, set), flow, work)
      work.release()
      collectgarbage()               -- closes what reads ahead, frees the model
      local step, wait = sum(took) / steps, sum(waited) / steps
      report {
        "prefetch", name, "ahead", ahead, "step_ms", 1e3 * step, "wait_ms", 1e3 * wait, "median_wait_ms",
        1e3 * stopwatch.middle(waited), "waiting_%", 100 * wait / step, "residues/s", residues / (steps * step),
      }
    end
  end

  for _, name in ipairs(o.presets) do
    if o.data then all(name, o.data)
    else
      local path = os.tmpname()
      local ok, problem = pcall(function()
        mf.scope(make, path, presets.load(name).flow.profile, o.small and SMALL.entries or ENTRIES)
        all(name, path)
      end)
      os.remove(path)
      if not ok then error(problem, 0) end
    end
  end
end
