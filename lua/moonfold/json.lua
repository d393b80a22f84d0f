--- JSON: a small encoder and decoder for metadata and manifests.
--
-- Arrays are tables whose keys are 1..#t; an empty table is an object unless made by `json.array`. `null` inside
-- a document becomes `json.null`, so that nothing is lost on the way through. Keys are written sorted: the same table always
-- gives the same text.

local M = {}

--- What stands for `null` in a decoded document.
M.null = setmetatable({}, { __tostring = function() return "null" end })

local array_mark = {}

--- Mark a table as an array, so that an empty one is written `[]`.
-- @tparam[opt] table t
-- @treturn table the same table
function M.array(t)
  return setmetatable(t or {}, array_mark)
end

local escapes = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
}

local function quote(s)
  return '"' .. s:gsub('[%c"\\\127]', function(c)
    return escapes[c] or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local function number(x)
  if x ~= x or x == math.huge or x == -math.huge then
    error("json.encode: " .. tostring(x) .. " has no JSON form", 0)
  end
  if x == math.floor(x) and math.abs(x) < 2 ^ 53 then return ("%.0f"):format(x) end
  local short = ("%.15g"):format(x)
  return tonumber(short) == x and short or ("%.17g"):format(x)
end

local function write(x, out, seen, indent, level)
  local kind = type(x)
  if x == M.null then
    out[#out + 1] = "null"
  elseif kind == "string" then
    out[#out + 1] = quote(x)
  elseif kind == "number" then
    out[#out + 1] = number(x)
  elseif kind == "boolean" then
    out[#out + 1] = tostring(x)
  elseif kind == "table" then
    if seen[x] then error("json.encode: the table contains itself", 0) end
    seen[x] = true
    local is_array = getmetatable(x) == array_mark or #x > 0
    local keys = {}
    if not is_array then
      for key in pairs(x) do
        if type(key) ~= "string" then error("json.encode: a key of an object must be a string, not " .. type(key), 0) end
        keys[#keys + 1] = key
      end
      table.sort(keys)
    end
    local open, close = is_array and "[" or "{", is_array and "]" or "}"
    local inner = indent and "\n" .. indent:rep(level + 1) or ""
    out[#out + 1] = open
    for i = 1, is_array and #x or #keys do
      if i > 1 then out[#out + 1] = "," end
      out[#out + 1] = inner
      if not is_array then
        out[#out + 1] = quote(keys[i]) .. (indent and ": " or ":")
        write(x[keys[i]], out, seen, indent, level + 1)
      else
        write(x[i], out, seen, indent, level + 1)
      end
    end
    if indent and (is_array and #x or #keys) > 0 then out[#out + 1] = "\n" .. indent:rep(level) end
    out[#out + 1] = close
    seen[x] = nil
  else
    error("json.encode: cannot write a " .. kind, 0)
  end
end

--- The JSON text of a value.
-- @param x string, number, boolean, `json.null` or table
-- @tparam[opt] string indent one level of indentation; without it everything stands on one line
-- @treturn string
-- @usage json.encode { name = "1ubq", lengths = { 76 } } --> {"lengths":[76],"name":"1ubq"}
function M.encode(x, indent)
  local out = {}
  local ok, message = pcall(write, x, out, {}, indent, 0)
  if not ok then error(message, 2) end
  return table.concat(out)
end

local function fail(text, at, message)
  local _, line = text:sub(1, at - 1):gsub("\n", "")
  error(("json.decode: line %d, byte %d: %s"):format(line + 1, at, message), 0)
end

local function utf8(code)
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(0xC0 + math.floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then
    return string.char(0xE0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
  end
  return string.char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
                     0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

local unescape = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function read_string(text, at)
  local parts, from = {}, at + 1
  while true do
    local stop = text:find('["\\%c]', from)
    if not stop then fail(text, at, "the string does not end") end
    parts[#parts + 1] = text:sub(from, stop - 1)
    local c = text:sub(stop, stop)
    if c == '"' then return table.concat(parts), stop + 1 end
    if c ~= "\\" then fail(text, stop, "a control character in a string") end
    local e = text:sub(stop + 1, stop + 1)
    if e == "u" then
      local code = tonumber(text:match("^%x%x%x%x", stop + 2) or fail(text, stop, "a bad \\u escape"), 16)
      from = stop + 6
      if code >= 0xD800 and code < 0xDC00 then
        local low = text:match("^\\u(%x%x%x%x)", from)
        low = low and tonumber(low, 16)
        if low and low >= 0xDC00 and low < 0xE000 then
          code = 0x10000 + (code - 0xD800) * 1024 + (low - 0xDC00)
          from = from + 6
        end
      end
      parts[#parts + 1] = utf8(code)
    else
      parts[#parts + 1] = unescape[e] or fail(text, stop, "a bad escape")
      from = stop + 2
    end
  end
end

local MAX_DEPTH = 200   -- deeper documents would overflow the C stack of a hostile file's reader
local words = { ["true"] = true, ["false"] = false, null = M.null }

local function read(text, at, depth)
  if depth > MAX_DEPTH then fail(text, at, "nested too deeply") end
  at = text:find("[^ \t\r\n]", at) or fail(text, #text + 1, "the text ends too early")
  local c = text:sub(at, at)
  if c == "{" or c == "[" then
    local object, close = c == "{", c == "{" and "}" or "]"
    local result = object and {} or M.array()
    at = text:find("[^ \t\r\n]", at + 1) or fail(text, #text + 1, "the text ends too early")
    if text:sub(at, at) == close then return result, at + 1 end
    while true do
      local key, value
      if object then
        at = text:find("[^ \t\r\n]", at) or fail(text, #text + 1, "the text ends too early")
        if text:sub(at, at) ~= '"' then fail(text, at, "a key must be a string") end
        key, at = read_string(text, at)
        at = text:match("^[ \t\r\n]*:()", at) or fail(text, at, "expected ':'")
      end
      value, at = read(text, at, depth + 1)
      result[object and key or #result + 1] = value
      local mark
      mark, at = text:match("^[ \t\r\n]*([,%]}])()", at)
      if mark == close then return result, at end
      if mark ~= "," then fail(text, at or #text, "expected ',' or '" .. close .. "'") end
    end
  elseif c == '"' then
    return read_string(text, at)
  end
  local word = text:match("^%a+", at)
  if word and words[word] ~= nil then return words[word], at + #word end
  local digits = text:match("^-?%d+%.?%d*[eE]?[+-]?%d*", at)
  local value = digits and not digits:find("^-?0%d") and tonumber(digits)
  if not value then fail(text, at, "not a JSON value") end
  return value, at + #digits
end

--- The value that a JSON text stands for.
-- @tparam string text
-- @return the value, or nil and a message with line and byte
function M.decode(text)
  local ok, value, at = pcall(read, text, 1, 0)
  if not ok then return nil, value end
  at = text:find("[^ \t\r\n]", at)
  if at then return nil, ("json.decode: byte %d: text after the value"):format(at) end
  return value
end

return M
