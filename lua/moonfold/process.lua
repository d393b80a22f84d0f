--- Child processes: started, written to, read from a line at a time, waited for.
--
--     local process = require "moonfold.process"
--     local p = process.start({ "sort", "-u" }, { LC_ALL = "C" })
--     p:write "b\na\nb\n"
--     p:close_input()
--     for line in p:lines() do print(line) end
--     print(p:wait())                              --> 0
--
-- A child dies with this process, and Ctrl-C at a terminal does not reach it: whoever started it decides.
-- @module moonfold.process

local ffi = require "ffi"
local binding = require "moonfold.ffi"
local fail = require "moonfold.fail"
local options = require "moonfold.options"

local C, check = binding.C, binding.check
local M = {}
local Process = {}
Process.__index = Process

local line_box, bytes_box = ffi.new "const char *[1]", ffi.new "int64_t[1]"

-- A NULL-terminated list of texts; the second result keeps them alive.
local function texts(list)
  local box = ffi.new("const char *[?]", #list + 1)
  for i, text in ipairs(list) do box[i - 1] = text end
  return box, list
end

--- Starts a program.
-- @tparam table arguments the program, found on the PATH, and its arguments
-- @tparam ?table environment name -> value, set over this process's
-- @treturn Process
function M.start(arguments, environment)
  if type(arguments) ~= "table" or #arguments == 0 then fail "process.start: takes a list, the program first" end
  for i, word in ipairs(arguments) do
    if type(word) ~= "string" then fail("process.start: word %d is a %s, expected a text", i, type(word)) end
  end
  local settings = {}
  for _, name in ipairs(options.sorted_keys(environment or {})) do settings[#settings + 1] = name .. "=" .. environment[name] end
  local words, keep = texts(arguments)
  local added, keep_added = texts(settings)
  local out = ffi.new "mf_process *[1]"
  check(C.mf_process_start(out, words, added))
  assert(keep and keep_added)
  return setmetatable({ handle = ffi.gc(out[0], C.mf_process_release), name = arguments[1] }, Process)
end

local function handle_of(p)
  if not p.handle then fail("process: '%s' was released", p.name) end
  return p.handle
end

--- Gives a text to the child's input; waits until it is taken.
-- @tparam string text
function Process:write(text) check(C.mf_process_write(handle_of(self), text, #text)) end

--- Ends the child's input.
function Process:close_input() C.mf_process_close_input(handle_of(self)) end

--- The next whole line that is there, without its end; never waits.
-- @treturn ?string nil when there is none yet, or none will come: `ended` tells which
function Process:line()
  check(C.mf_process_line(line_box, bytes_box, handle_of(self)))
  if line_box[0] ~= nil then return ffi.string(line_box[0], bytes_box[0]) end
end

--- Whether no line will come any more.
function Process:ended() return C.mf_process_ended(handle_of(self)) ~= 0 end

--- The lines to come; waits for each.
-- @treturn function for `for`
function Process:lines()
  return function()
    while true do
      local line = self:line()
      if line or self:ended() then return line end
      M.poll({ self }, 3600)
    end
  end
end

--- The last of what the child wrote to stderr, 4096 bytes at the most.
-- @treturn string
function Process:errors()
  local text = ffi.new "char[4097]"
  C.mf_process_errors(text, 4097, handle_of(self))
  return ffi.string(text)
end

--- Sends a signal.
-- @tparam[opt=15] number signal
function Process:kill(signal) C.mf_process_kill(handle_of(self), signal or 15) end

local SIGNALS = {
  [1] = "SIGHUP", [2] = "SIGINT", [3] = "SIGQUIT", [4] = "SIGILL", [6] = "SIGABRT", [7] = "SIGBUS", [8] = "SIGFPE", [9] = "SIGKILL",
  [11] = "SIGSEGV", [13] = "SIGPIPE", [15] = "SIGTERM", [24] = "SIGXCPU", [25] = "SIGXFSZ", [31] = "SIGSYS",
}

--- Closes the child's input and waits for its end.
-- @treturn ?number its exit status; nil when a signal ended it
-- @treturn ?string the signal's name
function Process:wait()
  local code, signal = ffi.new "int[1]", ffi.new "int[1]"
  check(C.mf_process_wait(code, signal, handle_of(self)))
  if signal[0] == 0 then return code[0] end
  return nil, SIGNALS[signal[0]] or "signal " .. signal[0]
end

--- Ends the child if it still runs, and forgets it.
function Process:release()
  if not self.handle then return end
  C.mf_process_release(ffi.gc(self.handle, nil))
  self.handle = nil
end

--- Waits until one of some children has a line or has ended.
-- @tparam table list of Process
-- @tparam number seconds at the most
-- @treturn ?Process the first of them; nil when time is up or a signal came
function M.poll(list, seconds)
  local box, ready = ffi.new("mf_process *[?]", math.max(#list, 1)), ffi.new "int64_t[1]"
  for i, p in ipairs(list) do box[i - 1] = handle_of(p) end
  check(C.mf_process_poll(ready, box, #list, seconds))
  return list[tonumber(ready[0]) + 1]
end

return M
