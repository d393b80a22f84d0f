--- Workers: as many processes as asked for, each given a part at a time; what dies is started again.
--
-- A worker that ends while it reads a file is given the same part once more; if it ends at that file again, the file is passed over
-- with a reason. Ctrl-C (under the program `moonfold`, whose signals module notes it) stops between two lines: the parts that are
-- written stay.
-- @module moonfold.data.prepare.pool

local binding = require "moonfold.ffi"
local json = require "moonfold.json"
local part = require "moonfold.data.prepare.part"
local process = require "moonfold.process"
local profiles = require "moonfold.data.prepare.profiles"
local worker = require "moonfold.data.prepare.worker"

local M = {}

local has_signals, signals = pcall(require, "moonfold.signals")
if not has_signals then
  signals = { hold = function() end, pending = function() end, release = function() end }
end

local here = debug.getinfo(1, "S").source:match "^@(.*)pool%.lua$"

--- How many processors there are.
function M.cores()
  local pipe = io.popen "nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null"
  local n = tonumber(pipe:read "*l" or "")
  pipe:close()
  return n or 1
end

local Pool = {}
Pool.__index = Pool

-- The environment of a worker: our modules and library, and one thread, for there are as many workers as cores.
local function environment()
  return {
    LUA_PATH = package.path, LUA_CPATH = package.cpath, MOONFOLD_LIBRARY = binding.library, MOONFOLD_HEADER = binding.header,
    OMP_NUM_THREADS = "1", OPENBLAS_NUM_THREADS = "1", MOONFOLD_PREPARE_WORKER = "1",
  }
end

-- A worker that cannot be told anything has ended: `bury` finds out how.
local function tell(w, message) pcall(w.process.write, w.process, json.encode(message) .. "\n") end

local function start(self)
  local words = {}
  for _, word in ipairs(self.o.program or { "/proc/self/exe", here .. "worker.lua", "serve" }) do words[#words + 1] = word end
  local p = process.start(words, environment())
  local w = { process = p, words = table.concat(words, " ") }
  self.workers[#self.workers + 1] = w
  tell(w, { options = profiles.plain(self.o, profiles.local_keys) })
end

local function give(self, w)
  local job = table.remove(self.waiting, 1)
  w.job = job
  if not job then
    w.process:close_input()
    return
  end
  job.at = nil
  local crashed = next(job.crashed) and job.crashed or nil
  tell(w, { part = job.number, path = job.path, inputs = job.inputs, crashed = crashed })
end

local function hear(self, w, line)
  if not w.greeted then
    if line ~= worker.GREETING then
      error(("data.prepare: '%s' does not run as a worker: it says '%s'; name another program, or workers = 0"):format(
        w.words, line:sub(1, 80)), 0)
    end
    w.greeted = true
    return give(self, w)
  end
  local word, rest = line:match "^(%S+) %d+ ?(.*)$"
  if word == "begin" then
    w.job.at = tonumber(rest)
  elseif word == "done" then
    local i, residues = rest:match "^(%d+) (%d+)"
    w.job.at = nil
    self.told(w.job, tonumber(i), tonumber(residues))
  elseif word == "note" then
    local i, reason = rest:match "^(%d+) (.*)"
    self.noted(w.job, tonumber(i), reason)
  elseif word == "part" or word == "records" then
    self.finished(w.job, word == "records" and assert(json.decode(rest)) or nil, rest)
    give(self, w)
  elseif word == "failed" then
    error("data.prepare: " .. rest, 0)
  else
    error(("data.prepare: a worker says '%s'"):format(line:sub(1, 80)), 0)
  end
end

-- A worker has ended. With work in hand it died: the file that it was reading is tried once more, then passed over.
local function bury(self, w)
  local code, signal = w.process:wait()
  local words = w.process:errors():gsub("%s+$", ""):match "[^\n]*$"
  w.process:release()
  for i, other in ipairs(self.workers) do
    if other == w then table.remove(self.workers, i) break end
  end
  local job = w.job
  if not job and w.greeted and code == 0 then return end
  local how = signal or ("exit status %d"):format(code)
  if not job or not job.at then
    self.deaths = self.deaths + 1
    if self.deaths > 3 or not w.greeted then
      local why = words ~= "" and ": " .. words or ""
      error(("data.prepare: a worker ('%s') ended before its first file: %s%s"):format(w.words, how, why), 0)
    end
  elseif job.tried == job.at then
    job.crashed[tostring(job.at)] = how
    self.told(job, job.at, 0)
  end
  if job then
    job.tried = job.at
    table.insert(self.waiting, 1, job)
  end
  start(self)
end

local function step(self)
  local list = {}
  for i, w in ipairs(self.workers) do list[i] = w.process end
  local ready = process.poll(list, 0.2)
  if signals.pending() then error({ stopped = signals.pending() }, 0) end
  for _, w in ipairs(self.workers) do
    if w.process == ready then
      local line = ready:line()
      while line do
        hear(self, w, line)
        line = ready:line()
      end
      if ready:ended() then bury(self, w) end
      return
    end
  end
end

--- Has parts made.
-- @tparam table o resolved options; `workers`, `program`
-- @tparam table jobs a list of { `number`, `inputs`, `path` (nil: the records are told instead of written) }
-- @tparam function told (job, i, residues) after each file
-- @tparam function finished (job, records or nil, "made" or "reused") after each part
-- @tparam function noted (job, i, reason): a file could be read the second time only
function M.run(o, jobs, told, finished, noted)
  for _, job in ipairs(jobs) do job.crashed = {} end
  if os.getenv "MOONFOLD_PREPARE_WORKER" then
    error("data.prepare: called in a worker of another; pass workers = 0, or program: what runs Lua scripts", 0)
  end
  local self = setmetatable({ o = o, workers = {}, waiting = {}, deaths = 0, told = told, finished = finished,
    noted = noted }, Pool)
  for i, job in ipairs(jobs) do self.waiting[i] = job end
  signals.hold()
  local ok, message = pcall(function()
    for _ = 1, math.min(o.workers, #jobs) do start(self) end
    while #self.workers > 0 do step(self) end
  end)
  signals.release()
  for _, w in ipairs(self.workers) do w.process:release() end
  if not ok then error(message, 0) end
end

--- The same in this process.
function M.run_here(o, jobs, told, finished, noted)
  signals.hold()
  local ok, message = pcall(function()
    for _, job in ipairs(jobs) do
      local records, reused = part.make(o, job.path, job.inputs, {
        begin = function()
          if signals.pending() then error({ stopped = signals.pending() }, 0) end
        end,
        done = function(i, residues) told(job, i, residues) end,
        note = function(i, reason) noted(job, i, reason) end,
      })
      finished(job, not job.path and records or nil, reused and "reused" or "made")
    end
  end)
  signals.release()
  if not ok then error(message, 0) end
end

return M
