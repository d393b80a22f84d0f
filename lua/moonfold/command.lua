--- Command lines of programs: `key=value` options with types, defaults and help.
--
--     local o = command.parse(arg, {
--       name = "train", summary = "Trains a model on a data set.",
--       { "data", "path", command.REQUIRED, "data set made by prepare" },
--       { "steps", "integer", 1000, "optimizer steps" },
--       { "model.blocks", "integer", 4, "trunk blocks" },
--     })
--     o.steps, o.model.blocks
--
-- `--help` prints the table and ends the program; `--dry-run` is `dry_run=yes`, for booleans alone. `config=FILE` reads
-- options saved by `command.save` first; what the command line says wins. An unknown key is an error that names the nearest;
-- a value of the wrong type names both.
-- @module moonfold.command
local json = require "moonfold.json"
local options = require "moonfold.options"

local M = { REQUIRED = options.REQUIRED }

local function number(text)
  local value = tonumber(text)
  if value and value == value then return value end
end

local readers = {
  string = function(text) return text end,
  path = function(text) return text ~= "" and text or nil end,
  number = number,
  integer = function(text)
    local value = number(text)
    return value and value == math.floor(value) and value or nil
  end,
  boolean = function(text)
    if text == "true" or text == "yes" or text == "1" then return true end
    if text == "false" or text == "no" or text == "0" then return false end
  end,
  integers = function(text)
    local list = json.array {}
    for word in text:gmatch "[^,]+" do
      local value = number(word)
      if not value or value ~= math.floor(value) then return nil end
      list[#list + 1] = value
    end
    return #list > 0 and list or nil
  end,
  paths = function(text)
    local list = json.array {}
    for word in text:gmatch "[^,]+" do list[#list + 1] = word end
    return #list > 0 and list or nil
  end,
}
readers.words = readers.paths

local wanted = {
  string = "a text", path = "a path", number = "a number", integer = "a whole number", boolean = "true or false",
  integers = "whole numbers with commas between", paths = "paths with commas between",
  words = "words with commas between",
}

local function show(value)
  if value == options.REQUIRED then return "required" end
  if value == options.OPTIONAL then return "" end
  if type(value) == "table" then return table.concat(value, ",") end
  return tostring(value)
end

--- The help text of a program.
-- @tparam table program as for `parse`
-- @treturn string
function M.help(program)
  local lines = { ("%s: %s"):format(program.name, program.summary), "", "  key=value options:" }
  for _, row in ipairs(program) do
    lines[#lines + 1] = ("  %-26s %-9s %-16s %s"):format(row[1], row[2], show(row[3]), row[4])
  end
  lines[#lines + 1] = ("  %-26s %-9s %-16s %s"):format("config", "path", "",
    "options saved by an earlier run; the command line wins")
  return table.concat(lines, "\n")
end

--- Ends a program that cannot do what it was asked: a line on stderr, status 2.
-- @tparam table program with its `name`
-- @tparam string message a format
-- @param ... its values
function M.stop(program, message, ...)
  io.stderr:write(program.name, ": ", message:format(...), "\n")
  os.exit(2, true)
end

--- What was raised, without the place in a script: that means nothing to who typed a command.
-- @tparam table program with its `name`, which is not said twice
-- @param problem
-- @treturn string
function M.reason(program, problem)
  local text = tostring(problem):gsub("^[^\n:]*%.lua:%d+: ", "")
  return (text:gsub("^" .. program.name .. ": ", ""))
end

--- Runs a program. What it or Moonfold raises by `error` or `assert` is about what was asked, and ends the program as `stop`
-- does; a fault of the code itself (a call of nil, an interrupt) shows its traceback, status 1.
-- @tparam table program with its `name`
-- @tparam function body
-- @usage command.run(program, function() train(command.parse(arg, program)) end)
function M.run(program, body)
  local raised, trace
  local ok, problem = xpcall(body, function(message)
    local by = debug.getinfo(2, "f")
    raised = by and (by.func == error or by.func == assert) and not tostring(message):find ": attempt to "   -- raised again
    trace = debug.traceback(tostring(message), 2)
    return message
  end)
  if ok then return end
  if raised then M.stop(program, "%s", M.reason(program, problem)) end
  io.stderr:write(program.name, ": ", trace, "\n")
  os.exit(1, true)
end

--- Calls a function on a program's behalf: what it raises ends the program, as `stop` does.
-- @tparam table program
-- @tparam function fn
-- @param ... its arguments
-- @return what fn returns
function M.attempt(program, fn, ...)
  local function settle(ok, ...)
    if not ok then M.stop(program, "%s", M.reason(program, (...))) end
    return ...
  end
  return settle(pcall(fn, ...))
end

local function read_config(program, path)
  local file, reason = io.open(path, "rb")
  if not file then M.stop(program, "config: %s", reason) end
  local text = file:read "*a"
  file:close()
  local ok, saved = pcall(json.decode, text)
  if not ok or type(saved) ~= "table" then M.stop(program, "config: %s is not a JSON object of options", path) end
  return saved
end

local function flat(into, prefix, value)
  for key, item in pairs(value) do
    if type(item) == "table" and #item == 0 then flat(into, prefix .. key .. ".", item)
    else into[prefix .. key] = item end
  end
  return into
end

local function place(o, key, value)
  local at = o
  for part in key:gmatch "([^.]+)%." do
    at[part] = at[part] or {}
    at = at[part]
  end
  at[key:match "[^.]+$"] = value
end

--- Reads a program's command line.
-- @tparam table arguments the words, as in `arg`
-- @tparam table program `name`, `summary` and rows of { key, type, default, help }; the default may be
--   `command.REQUIRED` or `options.OPTIONAL`
-- @treturn table options; a dotted key is a nested table
function M.parse(arguments, program)
  local rows, known, given = {}, {}, {}
  for _, row in ipairs(program) do
    rows[row[1]] = row
    known[#known + 1] = row[1]
  end
  local function take(key, text, from)
    local row = rows[key]
    if not row then
      local near = options.nearest(key, known)
      M.stop(program, "%s: unknown option '%s'%s; --help lists them", from, key,
        near and (", did you mean '%s'?"):format(near) or "")
    end
    local value = readers[row[2]](text)
    if value == nil then M.stop(program, "%s: %s=%s is not %s", from, key, text, wanted[row[2]]) end
    given[key] = value
  end
  for _, word in ipairs(arguments) do
    if word == "--help" or word == "-h" then
      print(M.help(program))
      os.exit(0, true)
    end
    local path = word:match "^config=(.*)$"
    if path then
      for key, value in pairs(flat({}, "", read_config(program, path))) do take(key, show(value), path) end
    end
  end
  for _, word in ipairs(arguments) do
    local key, text = word:match "^([%w_.]+)=(.*)$"
    local flag = word:match "^%-%-([%w%-]+)$"
    if flag then
      key, text = flag:gsub("%-", "_"), "yes"
      if rows[key] and rows[key][2] ~= "boolean" then M.stop(program, "'%s' needs a value: %s=...", word, key) end
    end
    if not key then M.stop(program, "'%s' is not key=value; --help lists the options", word) end
    if key ~= "config" then take(key, text, "command line") end
  end
  local o = {}
  for _, row in ipairs(program) do
    local value = given[row[1]]
    if value == nil and row[3] == options.REQUIRED then
      M.stop(program, "%s is required (%s); --help lists the options", row[1], row[4])
    end
    if value == nil and row[3] ~= options.OPTIONAL then value = row[3] end
    place(o, row[1], value)
  end
  return o
end

--- Saves resolved options beside a run.
-- @tparam string path
-- @tparam table o what `parse` returned
function M.save(path, o)
  require("moonfold.files").replace(path, json.encode(o) .. "\n")
end

return M
