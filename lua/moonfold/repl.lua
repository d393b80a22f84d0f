--- The program `moonfold`: a prompt, scripts, one-liners.
-- Nothing global is replaced: names typed at the prompt are globals, and `mf`, `who` and `_` (the last value shown) live
-- in the prompt's own environment. Without a terminal it reads lines, prints results and nothing else.
-- @module moonfold.repl
local mf = require "moonfold"
local F = require "moonfold.ffi"
local show = require "moonfold.repl.show"
local words = require "moonfold.words"
local completion = require "moonfold.repl.complete"

local M = {}

local usage = [=[
usage: moonfold [script.lua [arguments]]
       moonfold -e code [arguments]
       moonfold --info | --version | --help

Without arguments a prompt starts. In it:
  mf.randn(3, 2)     values print by themselves; a ; at the end of the line keeps quiet
  _                  the last value shown
  ? mf.randn         help on a name
  who()              the variables, with shapes and bytes
  TAB                completes names, x:methods and file names inside quotes
  Ctrl-C             stops what runs, Ctrl-D leaves
]=]

-- Without libedit (the module required from another interpreter): plain lines.
local plain = {
  readline = function(prompt)
    io.write(prompt)
    io.flush()
    return io.read("*l")
  end,
  remember = function() end, load_history = function() end, save_history = function() end, set_completer = function() end,
  is_terminal = function() return false, false end,
  columns = function() return 80 end,
  seconds = os.clock,
  list_folder = function() return {} end,
}

-- Where chunks run: reads and writes fall through to the globals.
local function new_environment()
  local known = {}
  for name in pairs(_G) do known[name] = true end
  local environment = { mf = mf }
  local own = { mf = true, who = true, _ = true }
  function environment.who()
    local variables = {}
    for name, value in pairs(_G) do
      if not known[name] then variables[name] = value end
    end
    for name, value in pairs(environment) do
      if not own[name] or (name == "mf" and value ~= mf) then variables[name] = value end
    end
    print(show.who(variables))
  end
  return setmetatable(environment, { __index = _G, __newindex = _G })
end

-- A chunk of the text, as an expression if it is one. Also says whether more lines could complete it.
local function compile(text, name)
  local chunk = loadstring("return " .. text, name)
  if chunk then return chunk end
  local message
  chunk, message = loadstring(text, name)
  return chunk, message, message and message:find("'<eof>'", 1, true) ~= nil
end

local function with_traceback(message)
  if type(message) ~= "string" then return message end
  return debug.traceback(message, 2)
end

local function call(chunk, environment, handler, ...)
  setfenv(chunk, environment)
  local arguments, n = { ... }, select("#", ...)
  return xpcall(function() return chunk(unpack(arguments, 1, n)) end, handler)
end

local function count(...) return { n = select("#", ...), ... } end

-- Runs what was typed: prints its values unless muted, or the error.
local function evaluate(chunk, environment, muted)
  -- Machine code cannot be interrupted, so what is typed here stays interpreted; what it calls does not.
  jit.off(chunk, true)
  local results = count(call(chunk, environment, function(message) return message end))
  if not results[1] then
    io.stderr:write(F.is_tensor(results[2]) and "error" or tostring(results[2]), "\n")
    return false
  end
  if results.n > 1 then rawset(environment, "_", results[2]) end
  if not muted then
    for i = 2, results.n do print(show.text(results[i])) end
  end
  return true
end

local function peak()
  local total = 0
  for _, device in ipairs(M.measured) do total = total + mf.memory(device).peak end
  return total
end

-- The devices whose memory is shown.
M.measured = { "cpu" }

--- The prompt: reads lines until the end of input.
-- @tparam ?table terminal what the program gives (line editing); plain lines without it
-- @treturn number exit status
function M.run(terminal)
  terminal = terminal or plain
  local input_terminal, output_terminal = terminal.is_terminal()
  local read = terminal.readline
  if not input_terminal then
    read = function() return io.read("*l") end
  end
  local environment = new_environment()
  local history = os.getenv("HOME") and os.getenv("HOME") .. "/.moonfold_history"
  if input_terminal then
    for _, name in ipairs(mf.devices()) do
      if name:sub(1, 4) == "cuda" then M.measured[#M.measured + 1] = name end
    end
    if history then terminal.load_history(history) end
    terminal.set_completer(function(line, first, last)
      return completion.complete(environment, line, first, last, terminal.list_folder)
    end)
    print(("Moonfold %s  ? name for help, Ctrl-D to leave"):format(mf.version()))
  else
    io.stdout:setvbuf("line")
  end

  local pending, failed = nil, false
  while true do
    local line = read(pending and ">> " or "> ")
    if line == nil then break end
    if line == false then
      pending = nil
    else
      local text = pending and pending .. "\n" .. line or line
      local question = not pending and line:match("^%s*%?%s*(.-)%s*$")
      if question then
        print(question == "" and usage or mf.help.about(question))
        if input_terminal then terminal.remember(line) end
      elseif text:match("^%s*$") then
        pending = nil
      else
        local chunk, message, incomplete = compile(text, "=prompt")
        if incomplete then
          pending = text
        else
          pending = nil
          if input_terminal then terminal.remember((text:gsub("\n", " "))) end
          if chunk then
            for _, device in ipairs(M.measured) do mf.reset_peak(device) end
            local before = terminal.seconds()
            if not evaluate(chunk, environment, text:match(";%s*$") ~= nil) then failed = true end
            if input_terminal and output_terminal then
              local note = ("%.3f s  peak %s"):format(terminal.seconds() - before, words.bytes(peak()))
              print(("\27[90m%s%s\27[0m"):format((" "):rep(terminal.columns() - #note - 1), note))
            end
          else
            io.stderr:write(message, "\n")
            failed = true
          end
        end
      end
    end
  end
  if pending then
    local _, message = loadstring(pending, "=prompt")
    io.stderr:write(tostring(message), "\n")
    failed = true
  end
  if input_terminal then
    print("")
    if history then terminal.save_history(history) end
    return 0
  end
  return failed and 1 or 0
end

--- Version, devices, threads and libraries of this build, as text.
-- @treturn string
function M.info()
  local cuda, reason = mf.cuda()
  return table.concat({
    "moonfold  " .. mf.version(),
    "luajit    " .. jit.version .. " " .. jit.arch,
    "library   " .. F.library,
    "header    " .. tostring(F.header),
    "devices   " .. table.concat(mf.devices(), " "),
    "threads   " .. mf.threads(),
    "cuda      " .. (cuda and table.concat(cuda, " ") or "no: " .. reason),
  }, "\n")
end

-- Runs a chunk as a program: an error goes to stderr with its traceback.
local function program(chunk, environment, ...)
  local ok, message = call(chunk, environment, with_traceback, ...)
  if ok then return 0 end
  io.stderr:write("moonfold: ", tostring(message), "\n")
  return 1
end

-- The global `arg` as every Lua program sees it.
local function set_arguments(arguments, script)
  local list = {}
  for i, text in pairs(arguments) do list[i - script] = text end
  rawset(_G, "arg", list)
  return unpack(list, 1, #list)
end

--- What the executable runs.
-- @tparam table arguments from 0, the program's own name
-- @tparam table terminal line editing, from C
-- @treturn number exit status
function M.main(arguments, terminal)
  local first = arguments[1]
  if first == nil then return M.run(terminal) end
  if first == "--help" or first == "-h" then
    io.write(usage)
    return 0
  elseif first == "--version" or first == "-v" then
    print("moonfold " .. mf.version())
    return 0
  elseif first == "--info" then
    print(M.info())
    return 0
  elseif first == "-e" then
    if not arguments[2] then
      io.stderr:write("moonfold: -e needs code\n")
      return 2
    end
    local chunk, message = loadstring(arguments[2], "=-e")
    if not chunk then
      io.stderr:write("moonfold: ", message, "\n")
      return 1
    end
    return program(chunk, new_environment(), set_arguments(arguments, 2))
  elseif first:sub(1, 1) == "-" and first ~= "-" then
    io.stderr:write(("moonfold: unknown option '%s'\n"):format(first), usage)
    return 2
  end
  local chunk, message = loadfile(first ~= "-" and first or nil)
  if not chunk then
    io.stderr:write("moonfold: ", message, "\n")
    return 1
  end
  return program(chunk, _G, set_arguments(arguments, 1))
end

return M
