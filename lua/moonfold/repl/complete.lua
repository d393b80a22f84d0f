--- What TAB offers: globals, fields of tables, methods, file names inside quotes.
-- @module moonfold.repl.complete
local ffi = require "ffi"
local F = require "moonfold.ffi"

local list_files = require("moonfold.files").list

local M = {}

local here = debug.getinfo(1, "S").source:match("^@(.*)repl/complete%.lua$") or ""

local keywords = {
  "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil", "not", "or",
  "repeat", "return", "then", "true", "until", "while",
}

-- Adds the names that a table offers itself and through its metatables.
local function fields(found, t, depth)
  for key in pairs(t) do
    if type(key) == "string" then found[key] = true end
  end
  local metatable = debug.getmetatable(t)
  if type(metatable) ~= "table" or depth > 8 then return end
  -- Modules that load later tell their names by __pairs, which LuaJIT itself does not ask.
  if type(metatable.__pairs) == "function" then
    for key in metatable.__pairs(t) do found[key] = true end
  end
  if type(metatable.__index) == "table" then fields(found, metatable.__index, depth + 1) end
end

-- A package of ours that loads its modules when they are named has them as files in its folder.
local function modules(found, t)
  for name, module in pairs(package.loaded) do
    local below = module == t and name:match("^moonfold%.([%w_.]+)$")
    if below then
      local folder = here .. below:gsub("%.", "/") .. "/"
      for _, path in ipairs(list_files(folder, { ".lua" })) do
        local inner = path:sub(#folder + 1):match("^([%w_]+)%.lua$")
        if inner and inner ~= "init" then found[inner] = true end
      end
    end
  end
end

-- The names after a dot or colon behind a value.
local function names_of(value)
  local found = {}
  if type(value) == "table" then
    fields(found, value, 0)
    modules(found, value)
  elseif type(value) == "string" then
    fields(found, string, 0)
  elseif type(value) == "cdata" then
    for name, metatable in pairs(F.metatypes) do
      if ffi.istype(name, value) and type(metatable.__index) == "table" then fields(found, metatable.__index, 0) end
    end
  end
  return found
end

local function index(value, key) return value[key] end

-- File names that begin with what stands between the quote and the cursor.
local function files(before, word, list_folder)
  local typed = before:match("[\"']([^\"']*)$") .. word
  local folder, beginning = typed:match("^(.*/)([^/]*)$")
  if not folder then folder, beginning = "", typed end
  local found = {}
  for _, name in ipairs(list_folder(folder == "" and "." or folder) or {}) do
    local hidden = name:sub(1, 1) == "." and beginning:sub(1, 1) ~= "."
    if name:sub(1, #beginning) == beginning and not hidden then
      -- Only what stands after the last word break is replaced.
      found[#found + 1] = (folder .. name):sub(#typed - #word + 1)
    end
  end
  table.sort(found)
  return found
end

--- The replacements for the word that ends at the cursor.
-- @tparam table environment where globals are looked up
-- @tparam string line the whole line
-- @tparam number first where the word begins, from 0
-- @tparam number last where the cursor is, from 0
-- @tparam function list_folder path -> table of names, folders with a slash at the end
-- @treturn table strings, sorted
function M.complete(environment, line, first, last, list_folder)
  local before, word = line:sub(1, first), line:sub(first + 1, last)
  local _, double = before:gsub("\"", "")
  local _, single = before:gsub("'", "")
  if double % 2 == 1 or single % 2 == 1 then return files(before, word, list_folder) end
  local path, separator, beginning = word:match("^(.*)([.:])([%w_]*)$")
  local found, value
  if path then
    value = environment
    for name in path:gmatch("[%w_]+") do
      local ok, inner = pcall(index, value, name)
      if not ok or inner == nil then return {} end
      value = inner
    end
    found = names_of(value)
  else
    beginning = word
    found = {}
    fields(found, environment, 0)
    fields(found, _G, 0)
    for _, keyword in ipairs(keywords) do found[keyword] = true end
  end
  local list = {}
  for name in pairs(found) do
    local private = name:sub(1, 1) == "_" and beginning:sub(1, 1) ~= "_"
    local fits = name:sub(1, #beginning) == beginning and name:match("^[%a_][%w_]*$") and not private
    if fits and separator == ":" then
      local ok, member = pcall(index, value, name)
      fits = ok and (type(member) == "function" or (type(member) == "table" and (getmetatable(member) or {}).__call))
    end
    if fits then list[#list + 1] = (path and path .. separator or "") .. name end
  end
  table.sort(list)
  return list
end

return M
