--- What the loss.csv of a training run says: its columns as numbers, how long each step took, how fast the run went.
--
--     local log = loss_log.read "runs/a"
--     log.steps, log.terms, log.values.loss[10], log.durations[10]
--     log:speed().residues_per_second
--
-- @module moonfold.loss_log
local fail = require "moonfold.fail"
local files = require "moonfold.files"
local stopwatch = require "moonfold.stopwatch"

local M = {}
local Log = {}
Log.__index = Log

local NEEDED = { "step", "loss", "residues", "seconds" }
local OWN = { step = true, loss = true, gradient = true, rate = true, residues = true, sequences = true, seconds = true }
local WARM = 0.1         -- share of the steps that come before speeds count: graphs are captured, caches fill

local function cells_of(line)
  local cells = {}
  for cell in (line .. ","):gmatch "([^,]*)," do cells[#cells + 1] = cell end
  return cells
end

-- A step's seconds by the clock of its run. A run that was resumed starts its clock anew, and there the clock itself is the step's
-- duration.
local function durations_of(clock)
  local list = {}
  for i, now in ipairs(clock) do
    local before = clock[i - 1]
    list[i] = before and now >= before and now - before or now
  end
  return list
end

--- Reads the log of a run.
-- @tparam string folder of the run
-- @tparam ?number most steps to read, from the first
-- @treturn table `steps`, how many; `columns` and `terms`, names, terms being those of the loss; `values`, by column a list
--   of numbers, not a number where a step has none; `durations`, seconds of each step
function M.read(folder, most)
  local path = folder .. "/loss.csv"
  local text = files.read(path) or fail("%s holds no loss.csv: not the folder of a training run", folder)
  local log = setmetatable({ folder = folder, path = path, steps = 0, terms = {}, values = {} }, Log)
  local number = 0
  for line in text:gmatch "([^\n]*)\n" do        -- what has no end is being written
    if log.steps == most then break end
    number = number + 1
    local cells = cells_of(line)
    if number == 1 then
      log.columns = cells
      for _, name in ipairs(cells) do
        log.values[name] = {}
        if not OWN[name] then log.terms[#log.terms + 1] = name end
      end
      for _, name in ipairs(NEEDED) do
        if not log.values[name] then fail("%s: no column '%s' in its heading", path, name) end
      end
    else
      if #cells ~= #log.columns then fail("%s:%d: %d cells, expected %d", path, number, #cells, #log.columns) end
      log.steps = log.steps + 1
      for k, name in ipairs(log.columns) do
        local value = cells[k] == "" and 0 / 0 or tonumber(cells[k])
        log.values[name][log.steps] = value or fail("%s:%d: '%s' in column %s is not a number", path, number, cells[k], name)
      end
    end
  end
  if number == 0 then fail("%s is empty, not even a heading", path) end
  log.durations = durations_of(log.values.seconds)
  return log
end

--- The mean of a column over its last steps; those without a value do not count.
-- @tparam string name
-- @tparam number window steps
-- @treturn ?number nil where no step has one
function Log:mean(name, window)
  local sum, count, values = 0, 0, self.values[name] or {}
  for i = math.max(1, self.steps - window + 1), self.steps do
    local value = values[i]
    if value and value == value then sum, count = sum + value, count + 1 end
  end
  return count > 0 and sum / count or nil
end

--- How fast the run went: medians over the steps after the first tenth.
-- @treturn table `seconds` in all, `steps_per_second` and `residues_per_second`; none of these two before the first step
function Log:speed()
  local seconds, took, rates = 0, {}, {}
  for i, duration in ipairs(self.durations) do
    seconds = seconds + duration
    if i > WARM * self.steps and duration > 0 then
      took[#took + 1], rates[#rates + 1] = duration, self.values.residues[i] / duration
    end
  end
  local typical = stopwatch.middle(took)
  return { seconds = seconds, steps_per_second = typical and 1 / typical, residues_per_second = stopwatch.middle(rates) }
end

return M
