--- A worker: makes parts of a data set in a process of its own, told by lines of JSON, telling by lines of words.
--
--     it reads     {"options": {...}}                              once
--                  {"part": 3, "path": "...", "inputs": [...], "crashed": {"2": "SIGSEGV"}}
--     and writes   ready                                           once
--                  begin 3 2        before each file
--                  done 3 2 151     after it, with its residues
--                  note 3 2 why     it could not be read at first, but then
--                  part 3 made      or "reused"; without a path: records 3 [...]
--                  failed 3 why     what no other file would change: the disk is full
-- @module moonfold.data.prepare.worker

local mf = require "moonfold"
local json = require "moonfold.json"
local part = require "moonfold.data.prepare.part"
local profiles = require "moonfold.data.prepare.profiles"

local M = {}

--- What a worker says first, so that a program that is none is told from one.
M.GREETING = "ready moonfold worker"

local function say(...) io.stdout:write(table.concat({ ... }, " "), "\n") io.stdout:flush() end

local function read_line()
  local line = io.read "*l"
  return line and assert(json.decode(line))
end

-- Options that JSON left out because they are infinite or absent are the defaults again.
local function options_of(plain)
  local o = {}
  for _, key in ipairs(profiles.local_keys) do o[key] = plain[key] == nil and profiles.defaults[key] or plain[key] end
  return o
end

local function make(o, job)
  local records, reused = part.make(o, job.path, job.inputs, {
    crashed = job.crashed,
    begin = function(i) say("begin", job.part, i) end,
    done = function(i, residues) say("done", job.part, i, residues) end,
    note = function(i, reason) say("note", job.part, i, (reason:gsub("%s+", " "))) end,
  })
  if job.path then say("part", job.part, reused and "reused" or "made")
  else say("records", job.part, json.encode(records)) end
end

--- Works until its input ends.
function M.serve()
  mf.threads(1)
  say(M.GREETING)
  local first = read_line()
  if not first then return end
  local o = options_of(first.options)
  for job in read_line do
    local ok, message = pcall(make, o, job)
    if not ok then say("failed", job.part, (tostring(message):gsub("%s+", " "))) end
  end
end

-- As a script, with the word "serve"; `require` gives the module's name.
if ... == "serve" then M.serve() end

return M
