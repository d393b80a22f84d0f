-- What published models take at a length: a training step of one chain and a sampling of 50 steps, time and peak memory, dense
-- pairs beside FlashIPA. A step is the trainer's (moonfold.learner): corruption, prediction, loss, gradients, update; without the
-- extra prediction that self-conditioning makes in half of the steps, but with its input. Steps are captured where the trainer
-- would. What the plan says does not fit is not tried; then blocks are recomputed in backward (checkpoint), if that fits.
--
-- The FlashIPA paper on one L40S: memory of a forward pass 2.4e-3 L^2 MB dense, 7.5e-2 L MB FlashIPA; generation of RNA at L = 2048
-- in 50 steps about 30 times as long with dense pairs.
local mf = require "moonfold"
local C = require("moonfold.ffi").C
local atoms = require "moonfold.atoms"
local learner = require "moonfold.learner"
local presets = require "moonfold.models.presets"
local stopwatch = require "moonfold.stopwatch"
local words = require "moonfold.words"

local STEPS = 50
local LONG = 5                  -- seconds: what takes longer is measured once
local USABLE = 0.92             -- of a GPU's memory: contexts and what kernels work in are not in a plan
local RECOMPUTED = 4096         -- residues from which models recompute attention by themselves (models.trunk)
local PAPER = { ["rna_frameflow L=2048"] = 30 }

local function collect(device)
  collectgarbage()
  collectgarbage()
  if device:sub(1, 4) == "cuda" then mf.flush(device) end
end

-- A chain whose times lie where every term of the loss acts.
local function chain(o, flow, length)
  local torsions = mf.randn(length, atoms.of(flow.kind).torsion_count, 2)
  return {
    packing = mf.packing { length }, translations = o.measure.walk(length, 1), rotations = mf.random.rotations(length):to(o.device),
    torsions = (torsions / torsions:norm(3, true)):to(o.device), examples = { 1 }, seed = 1, step = 1,
    times = { flow.kind == "protein" and flow.gate / 2 or (1 + flow.gate) / 2 },
  }
end

return function(o, report)
  local device = o.device
  local ratios, order = {}, {}

  -- Median seconds and peak bytes, warming up included; on a GPU the second call captures, the third replays.
  local function measured(warm, f)
    collect(device)
    mf.reset_peak(device)
    for _ = 1, o.gpu and 3 or 1 do mf.scope(warm) end
    local times = {}
    for i = 1, o.repeats do
      mf.synchronize(device)
      local began = C.mf_clock()
      mf.scope(f)
      mf.synchronize(device)
      times[i] = C.mf_clock() - began
      if times[1] > LONG then break end
    end
    return { seconds = stopwatch.middle(times), peak = mf.memory(device).peak }
  end

  -- Whether so many bytes are there, of which the model has `own` already.
  local function fits(bytes, own)
    local m = mf.memory(device)
    local most = m.limit > 0 and m.limit or m.total > 0 and USABLE * m.total or math.huge
    return bytes <= most - (m.live - own)
  end

  -- What f measures; or nil and a cell that says why not.
  local function try(what, bytes, own, f, ...)
    local no = ("does not fit (plan: %s)"):format(words.bytes(bytes))
    if not fits(bytes, own) then return nil, no end
    local ok, result = pcall(f, ...)
    if ok then return result end
    collect(device)
    io.stderr:write(("bench: %s: %s\n"):format(what, (tostring(result):gsub("\nstack.*", ""))))
    return nil, tostring(result):find("out of memory", 1, true) and no or "failed"
  end

  local function train(model, preset, flow, length, graph)
    local optimizer = mf.optim[preset.train.optimizer](model:parameters(), { lr = preset.train.lr, clip = 1 })
    local batch = chain(o, flow, length)
    local work = learner { model = model, flow = flow, optimizer = optimizer, graph = graph }
    local captured
    local function step()
      local noisy = flow:corrupt(batch)
      noisy.trans_sc = noisy.targets.translations
      captured = work.captures(noisy)
      return work.learn(noisy):values()       -- the trainer reads them at every step
    end
    local ok, result = pcall(measured, step, step)
    work.release()
    if not ok then error(result, 0) end
    result.how = captured and "graph" or "eager"
    return result
  end

  local function sample(model, flow, length)
    local function draw(steps)
      local asked = { length = length, steps = steps, device = device, graph = o.graph }
      for _, s in mf.sample(model, flow, asked) do assert(s.length == length) end
    end
    return measured(function() draw(3) end, function() draw(STEPS) end)
  end

  local function megabytes(result) return result and result.peak / 1e6 or "-" end

  -- One row; returns whether both were measured.
  local function one(preset, flow, model, length, checkpoint)
    local name = ("%s L=%d"):format(preset.name, length)
    local plan = model:plan { length = length, optimizer = preset.train.optimizer, flow = flow }
    local function attempt(graph)
      return try(name .. ": training", plan.training, plan.parameters, mf.scope, train, model, preset, flow, length, graph)
    end
    local sampled, why_not
    if not checkpoint then
      sampled, why_not = try(name .. ": sampling", plan.sampling, plan.parameters, mf.scope, sample, model, flow, length)
    end
    local step, no = attempt(o.graph)
    if not step and o.graph and fits(plan.training, plan.parameters) then step, no = attempt(false) end
    local notes = { no and "step " .. no }
    notes[#notes + 1] = why_not and "sampling " .. why_not
    report {
      "lengths", name, "recompute", checkpoint and "blocks" or length >= RECOMPUTED and "attention" or "no",
      "step_ms", step and step.seconds * 1e3 or "-", "how", step and step.how or "-", "step_MB", megabytes(step),
      "step_plan_MB", plan.training / 1e6, "sampling_s", sampled and sampled.seconds or "-", "sampling_MB", megabytes(sampled),
      "sampling_plan_MB", plan.sampling / 1e6, "note", table.concat(notes, ", "),
    }
    return step, sampled
  end

  local function all(preset)
    local flow_options, current = {}, {}
    for key, value in pairs(preset.flow) do flow_options[key] = value end
    local flow = mf.flow.se3(flow_options)
    local function drop()
      for _, p in ipairs(current.model and current.model:parameters() or {}) do p:release() end
      current = {}
    end
    -- One at a time, so that no other is in the peaks.
    local function model_of(checkpoint)
      if current.checkpoint ~= checkpoint then
        drop()
        local options = { checkpoint = checkpoint or nil }
        for key, value in pairs(preset.model) do options[key] = value end
        for key, value in pairs(o.small and o.measure.small or {}) do options[key] = value end
        if mf.models[preset.kind].defaults.torsions then options.torsions = preset.flow.profile end
        current = { checkpoint = checkpoint, model = o.measure.fill(mf.models[preset.kind](options), 0.1) }
      end
      return current.model
    end
    local dense = preset.model.mode == "orig_2d_bias"
    for _, length in ipairs(o.lengths or o.gpu and { 512, 2048, 8192, 32768 } or { 128, 256 }) do
      local step, sampled = one(preset, flow, model_of(false), length, false)
      local recomputed = not step
      if recomputed then step = one(preset, flow, model_of(true), length, true) end
      local key = ("%s L=%d"):format(preset.kind, length)
      if not ratios[key] then
        ratios[key], order[#order + 1] = {}, key
      end
      ratios[key][dense and "dense" or "flash"] = { step = step, sampled = sampled, recomputed = step and recomputed }
    end
    drop()
  end

  if o.memory then mf.memory_limit(math.floor(o.memory * 2 ^ 30), device) end
  for _, name in ipairs(o.presets) do
    all(presets.load(name))
    collect(device)
  end
  if o.memory then mf.memory_limit(0, device) end

  local function ratio(a, b, key) return a and b and a[key] / b[key] or "-" end
  for _, key in ipairs(order) do
    local dense, flash = ratios[key].dense, ratios[key].flash
    if dense and flash then
      report {
        "dense / FlashIPA", key, "step_time", ratio(dense.step, flash.step, "seconds"),
        "step_memory", ratio(dense.step, flash.step, "peak"), "dense recomputes", dense.recomputed and "blocks" or "-",
        "sampling_time", ratio(dense.sampled, flash.sampled, "seconds"),
        "sampling_memory", ratio(dense.sampled, flash.sampled, "peak"), "paper: sampling_time", PAPER[key] or "-",
      }
    end
  end
end
