--- A training run in a folder: steps, journal, progress, checkpoints, clean stops, resuming bit for bit.
--
--     local run = trainer {
--       folder = "runs/a", model = model, flow = flow, batches = set:batches { residues = 2000, seed = 7 },
--       optimizer = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1 }), steps = 1000,
--     }
--     run:resume()                    -- goes on from runs/a/checkpoint.safetensors where there is one
--     local outcome = run:go()        -- "done", "SIGINT", or "time"
--
-- The folder holds checkpoint.safetensors (everything needed to go on), weights.safetensors (the model to sample from:
-- the running average where there is one), loss.csv, loss.jsonl and loss.svg, and loss_by_time.csv and .jsonl: every `log_every`
-- steps the mean of each term in each bin of time since the row before; and summary.json: `parameters`, `steps`, `seconds`,
-- `steps_per_second`, `residues_per_second` (medians), `peak_bytes` of the `device`, its `hardware`, and the `outcome`. A step
-- draws its random numbers from the batch's seed and step, so that a resumed run is the run that was stopped. The first SIGINT,
-- SIGTERM or SIGUSR1 finishes the step, writes the checkpoint and ends; a second SIGINT ends at once.
-- @module moonfold.trainer
local mf = require "moonfold"
local F = require "moonfold.ffi"
local archive = require "moonfold.archive"
local checkpoint = require "moonfold.checkpoint"
local files = require "moonfold.files"
local journal = require "moonfold.journal"
local json = require "moonfold.json"
local learner = require "moonfold.learner"
local loss_log = require "moonfold.loss_log"
local options = require "moonfold.options"
local progress = require "moonfold.progress"

local C = F.C
local REQUIRED, OPTIONAL = options.REQUIRED, options.OPTIONAL

local Trainer = {}
Trainer.__index = Trainer

local defaults = {
  folder = REQUIRED, model = REQUIRED, flow = REQUIRED, batches = REQUIRED, optimizer = REQUIRED,
  steps = REQUIRED,          -- in all, earlier runs included
  average = OPTIONAL,        -- from mf.optim.ema
  warmup = 0,                -- steps over which the learning rate rises
  decay = "none",            -- "cosine": falls to a hundredth over the run
  checkpoint_every = 500,
  log_every = 100,           -- steps of a row of loss_by_time
  minutes = OPTIONAL,        -- stop after so long, with a checkpoint
  graph = true,              -- on a GPU: capture steps whose shapes recur (mf.graph)
  metadata = {},             -- strings for weights.safetensors (how to build the model)
  label = "train",
  on_step = OPTIONAL,        -- on_step(run, row) after each step; it may change run.steps
}

-- Signals are only noted while a step is under way; the program `moonfold` provides the module, plain luajit does not.
local has_signals, signals = pcall(require, "moonfold.signals")
if not has_signals then
  signals = { hold = function() end, pending = function() end, release = function() end }
end

-- The optimizer's rate and those that groups have of their own, all by the same factor.
local function set_rates(self, step)
  local factor = 1
  if step <= self.warmup then factor = step / self.warmup
  elseif self.decay == "cosine" then
    local part = (step - self.warmup) / math.max(self.steps - self.warmup, 1)
    factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * part))
  end
  self.optimizer.lr = self.base_rate * factor
  for group, rate in pairs(self.group_rates) do group.lr = rate * factor end
end

local function check_loss(self, loss, batch)
  if loss ~= loss or math.abs(loss) == math.huge then
    error(("trainer: the loss is %s at step %d (%s); nothing was saved since the last checkpoint"):format(
      loss, self.step + 1, table.concat(batch.names or {}, ", ")), 0)
  end
end

-- One step; everything made on the way is freed, only numbers leave.
local function advance(self)
  local row = { step = self.step + 1 }
  local batch
  row.batch_step, batch = self.batches()
  if not batch then return nil end
  local noisy = self.flow:corrupt(batch)
  self.flow:self_condition(self.learner.predict, noisy)
  set_rates(self, row.step)
  local tensor, names, norm = self.learner.learn(noisy, function(loss) check_loss(self, loss, batch) end)
  local values, count = tensor:values(), batch.packing:count()
  row.loss = values[1]
  row.gradient = type(norm) == "number" and norm or norm:item()
  check_loss(self, row.loss, batch)       -- a captured step has not changed anything: not finite, skipped
  for k, name in ipairs(names) do
    local term, sum = {}, 0
    for i = 1, count do
      term[i] = values[1 + (k - 1) * count + i]
      sum = sum + term[i]
    end
    row[name] = sum / count
    self.by_time:add_values(name, term, noisy.times)
  end
  row.rate, row.residues, row.sequences = self.optimizer.lr, batch.packing:total(), count
  return row
end

--- Writes the checkpoint and the weights; both are replaced atomically.
function Trainer:save()
  checkpoint.save(self.folder .. "/checkpoint.safetensors", {
    step = self.step, model = self.model:state(), optimizer = self.optimizer:state(), batches = self.batches:state(),
    average = self.average and self.average:state(), rng = mf.default_rng():state(), by_time = self.by_time:state(),
  })
  if self.average then self.average:swap() end
  local ok, message = pcall(archive.save, self.folder .. "/weights.safetensors", self.model:state(), self.metadata)
  if self.average then self.average:swap() end
  if not ok then error(message, 0) end
end

--- Goes on from the folder's checkpoint where there is one.
-- @treturn boolean whether there was
function Trainer:resume()
  local path = self.folder .. "/checkpoint.safetensors"
  if not files.exists(path) then return false end
  local c = checkpoint.load(path)
  self.model:load(c.model)
  self.optimizer:load(c.optimizer)
  self.batches:load(c.batches)
  if self.average and c.average then self.average:load(c.average) end
  mf.default_rng():load(c.rng)
  if c.by_time then self.by_time:load(c.by_time) end
  self.step = c.step
  return true
end

--- The journal's picture.
function Trainer:plot()
  return journal.plot(self.folder .. "/loss.csv", self.folder .. "/loss.svg", {
    x = "step", y = { "loss" }, log = "y", title = "training loss", ylabel = "loss",
  })
end

-- What a run says of itself at its end. The peak is that of all parts of a run that was resumed, where they had one.
local function summarise(self, device, outcome, before)
  local path = self.folder .. "/summary.json"
  local summary = loss_log.read(self.folder):speed()
  summary.parameters, summary.steps, summary.outcome = self.model:count(), self.step, outcome
  summary.device, summary.hardware = device, mf.hardware(device)
  summary.peak_bytes = math.max(mf.memory(device).peak, before.device == device and before.peak_bytes or 0)
  files.replace(path, json.encode(summary) .. "\n")
end

-- The summary of the parts of a run before this one.
local function earlier(self)
  local text = self.step > 0 and files.read(self.folder .. "/summary.json")
  return text and json.decode(text) or {}
end

local function write_by_time(self)
  local row = self.by_time:row()
  row.step = self.step
  self.binned:write(row)
end

--- Trains until the steps are done, the time is up or a signal comes.
-- @treturn string "done", "time", or the signal's name
-- @treturn number the last loss
function Trainer:go()
  local columns = { "step", "loss", "gradient", "rate", "residues", "sequences", "seconds" }
  local binned = { "step" }
  for _, name in ipairs(options.sorted_keys(self.flow.weights)) do
    columns[#columns + 1] = name
    for _, column in ipairs(self.by_time:columns(name)) do binned[#binned + 1] = column end
  end
  self.journal = journal.open(self.folder .. "/loss", columns, self.step > 0 and self.step or nil)
  -- without the row of less than log_every steps that ended an earlier run: its steps are still in the log
  self.binned = journal.open(self.folder .. "/loss_by_time", binned, self.step - self.step % self.log_every)
  local bar = progress { label = self.label, total = self.steps, unit = "residues", first = self.step }
  local device, before = self.model:parameters()[1]:device(), earlier(self)
  mf.reset_peak(device)
  local began, smooth, outcome = C.mf_clock(), nil, "done"
  signals.hold()
  local ok, message = xpcall(function()
    while self.step < self.steps do
      local row = mf.scope(advance, self)
      if not row then break end
      self.step = row.step
      row.seconds = C.mf_clock() - began
      self.journal:write(row)
      if self.step % self.log_every == 0 then
        write_by_time(self)
        self.by_time:flush()
      end
      smooth = smooth and 0.95 * smooth + 0.05 * row.loss or row.loss
      bar.total = self.steps         -- on_step may change its mind
      bar:update(self.step, { amount = row.residues, text = ("loss %.4f"):format(smooth) })
      if self.on_step then self.on_step(self, row) end
      outcome = signals.pending() or self.minutes and row.seconds > 60 * self.minutes and "time" or "done"
      if outcome ~= "done" then break end
      if self.step % self.checkpoint_every == 0 and self.step < self.steps then self:save() end
    end
    self:save()
    if self.step % self.log_every ~= 0 then write_by_time(self) end       -- dropped by a run that goes on
  end, function(problem) return problem end)
  signals.release()
  self.journal:close()
  self.binned:close()
  local told, why = pcall(summarise, self, device, ok and outcome or "failed: " .. tostring(message), before)
  if not ok then error(message, 0) end       -- what ended the run, not that a full disk took no summary either
  if not told then error(why, 0) end
  bar:done(("step %d, loss %.4f%s"):format(self.step, smooth or 0 / 0, outcome == "done" and "" or ", stopped by " .. outcome))
  self:plot()
  return outcome, smooth
end

--- A training run.
-- @tparam table o see the head of this module
-- @treturn table
return function(o)
  local self = setmetatable(options("trainer", defaults, o), Trainer)
  self.step, self.base_rate, self.group_rates, self.by_time = 0, self.optimizer.lr, {}, self.flow:time_log()
  for _, group in ipairs(self.optimizer.groups) do self.group_rates[group] = group.lr end
  self.fused = self.average and self.optimizer:fuse(self.average)   -- averaged in the pass of the update
  files.make_folder(self.folder)
  self.learner = learner {
    model = self.model, flow = self.flow, optimizer = self.optimizer, average = not self.fused and self.average or nil,
    graph = self.graph,
  }
  return self
end
