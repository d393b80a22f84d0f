--- Help from the comments above the functions: one source for the prompt and for the reader.
-- At first use every Lua file of Moonfold is scanned for comments that begin with three dashes; the line of code
-- below gives the name and the arguments.
-- @module moonfold.help
local options = require "moonfold.options"

local M = {}

local here = debug.getinfo(1, "S").source:match("^@(.*)help%.lua$") or ""

-- "nn/linear.lua" -> "nn.linear", "nn/init.lua" -> "nn", "init.lua" -> "".
local function module_name(path)
  return (path:gsub("%.lua$", ""):gsub("/", "."):gsub("%.?init$", ""))
end

-- The name and arguments that a line of code declares.
local function declared(line)
  local name, arguments = line:match("^%s*local function ([%w_]+)(%b())")
  if not name then name, arguments = line:match("^%s*function ([%w_.:]+)(%b())") end
  if not name then
    name, arguments = line:match("^%s*l?o?c?a?l?%s*([%w_.]+)%s*=%s*function%s*(%b())")
  end
  if not name then name = line:match("^%s*([%w_]+[.][%w_.]+)%s*=") end
  return name, arguments or ""
end

-- What a comment documents: the code's own name, without the table it is stored in.
local function entry_of(module, comment, line)
  local lines, tags, usage, name, arguments = {}, {}, {}, nil, nil
  local section = lines
  for _, text in ipairs(comment) do
    local tag, rest = text:match("^@(%w+)%s*(.*)$")
    local decorated = not tag and text:match("^@(%w+%b[].*)$")
    if decorated then tag, rest = text:match("^@(%w+)(.*)$") end
    if tag == "function" then
      name = rest
    elseif tag == "module" then
      return nil
    elseif tag == "usage" then
      section = usage
      usage[1] = rest
    elseif tag then
      section = tags
      tags[#tags + 1] = { tag = tag, text = rest }
    elseif section == tags then
      tags[#tags].text = tags[#tags].text .. " " .. text
    else
      section[#section + 1] = section == usage and (text:gsub("^       ", "")) or text
    end
  end
  local code, signature = declared(line)
  -- what a file returns is known by the file's own name: constructors of layers and models, takers of one table
  if not code and line:match("^return ") then code, signature = module:match("[^.]*$"), " { ... }" end
  name = name or code
  if not name then return nil end
  local owner, last = name:match("^(.-)[.:]?([%w_]+)$")
  if arguments == nil then arguments = signature end
  -- In the tensor's files a function is a method unless its first argument is documented.
  local receiver = arguments:match("^%((%w+)")
  local method = owner:find("^methods") ~= nil or name:find(":", 1, true) ~= nil
  if module:find("^tensor%.") and owner == "M" and receiver then
    method = true
    for _, tag in ipairs(tags) do
      if tag.text:match("^%S+%s+(%w+)") == receiver then method = false end
    end
  end
  return {
    module = module, owner = owner, name = last, arguments = arguments,
    text = lines, tags = tags, usage = usage, method = method,
  }
end

--- The documented functions of one Lua text.
-- @tparam string module the module's name below `moonfold`
-- @tparam string text
-- @treturn table entries: module, name, arguments, text, tags, usage
function M.scan(module, text)
  local entries, comment = {}, nil
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do
    local opening, further = line:match("^%s*%-%-%-%s?(.*)$"), line:match("^%s*%-%-%s?(.*)$")
    if opening and not line:match("^%s*%-%-%-%-") then
      comment = { opening }
    elseif comment and further then
      comment[#comment + 1] = further
    elseif comment then
      local entry = entry_of(module, comment, line)
      if entry then entries[#entries + 1] = entry end
      comment = nil
    end
  end
  return entries
end

local cached

--- Every documented function, in the order of files.
-- @treturn table
function M.entries()
  if cached then return cached end
  cached = {}
  for _, path in ipairs(require("moonfold.files").list(here == "" and "." or here, { ".lua" })) do
    local file = io.open(path, "rb")
    if file then
      local text = file:read("*a")
      file:close()
      for _, entry in ipairs(M.scan(module_name(path:sub(#here + 1):gsub("^/", "")), text)) do
        cached[#cached + 1] = entry
      end
    end
  end
  return cached
end

-- Files whose functions are found in `mf` itself.
local flat = { make = true, device = true, grad = true, scope = true, packing = true, archive = true }

local function title(entry)
  if entry.method and (entry.owner == "methods" or entry.owner == "M") then
    return ("x:%s%s"):format(entry.name, (entry.arguments:gsub("^%((%w+),?%s*", "(")))
  end
  local inner = flat[entry.module] or entry.module:match("^tensor%.")
    or (entry.owner == "functions" and entry.module == "random")
  local path = inner and "" or entry.module
  if path:match("[^.]*$") == entry.name then path = path:match("^(.*)%.[^.]*$") or "" end
  return ("mf.%s%s%s"):format(path == "" and "" or path .. ".", entry.name, entry.arguments)
end

local function show(entry)
  local lines = { title(entry), "" }
  for _, text in ipairs(entry.text) do lines[#lines + 1] = "  " .. text end
  if #entry.tags > 0 then lines[#lines + 1] = "" end
  for _, tag in ipairs(entry.tags) do
    local word = tag.tag:gsub("^t", "")
    lines[#lines + 1] = ("  %-7s %s"):format(word, tag.text)
  end
  if #entry.usage > 0 then
    lines[#lines + 1] = ""
    for _, text in ipairs(entry.usage) do lines[#lines + 1] = "    " .. text end
  end
  return table.concat(lines, "\n")
end

--- Help on a name: "sum", "x:sum", "mf.zeros", "nn.linear".
-- @tparam string name
-- @treturn string
-- @usage print(mf.help.about("zeros"))
function M.about(name)
  local wanted = name:gsub("^%s+", ""):gsub("%s+$", ""):gsub("%(.*$", "")
  local path, last = wanted:match("^(.-)[.:]?([%w_]+)$")
  if not last then return "help is asked for by name: ? mf.zeros" end
  path = path:gsub("^mf%.?", "")
  local exact, loose, names = {}, {}, {}
  for _, entry in ipairs(M.entries()) do
    names[#names + 1] = entry.name
    if entry.name == last then
      local full = "." .. entry.module .. "."
      local fits = path == "" or full:find("." .. path .. ".", 1, true) or wanted:find(":", 1, true) and entry.method
      table.insert(fits and exact or loose, entry)
    elseif entry.module:match("[^.]*$") == last and (entry.name == "new" or entry.name == "__call") then
      table.insert(exact, entry)
    end
  end
  local found = #exact > 0 and exact or loose
  if #found == 0 then
    local near = options.nearest(last, names)
    return ("no help on '%s'%s"):format(wanted, near and (", did you mean '%s'?"):format(near) or "")
  end
  local texts = {}
  for i, entry in ipairs(found) do texts[i] = show(entry) end
  return table.concat(texts, "\n\n")
end

return M
