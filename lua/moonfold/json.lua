--- JSON: a small encoder and decoder for metadata and manifests.
--
-- Arrays are tables whose keys are 1..#t; an empty table is an object unless made by `json.array`. `null` inside
-- a document becomes `json.null`, so that nothing is lost on the way through. Keys are written sorted: the same table always
-- gives the same text.

local ffi = require "ffi"

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

--- Would a table be written as an array? One made by `json.array`, or with a first element.
-- @tparam table t
-- @treturn boolean
function M.is_array(t)
  return getmetatable(t) == array_mark or #t > 0
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
    local is_array = M.is_array(x)
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

-- Reading goes byte by byte through a pointer, which LuaJIT compiles; patterns it does not. A text's byte `at`, from 1, is
-- p[at - 1], and p[#text] is 0.
local QUOTE, BACKSLASH, COMMA, COLON, MINUS, PLUS, POINT = 34, 92, 44, 58, 45, 43, 46
local OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT, ZERO, NINE = 91, 93, 123, 125, 48, 57

local unescape = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function read_escape(text, stop)
  local e = text:sub(stop + 1, stop + 1)
  if e ~= "u" then return unescape[e] or fail(text, stop, "a bad escape"), stop + 2 end
  local code = tonumber(text:match("^%x%x%x%x", stop + 2) or fail(text, stop, "a bad \\u escape"), 16)
  local at = stop + 6
  if code >= 0xD800 and code < 0xDC00 then
    local low = text:match("^\\u(%x%x%x%x)", at)
    low = low and tonumber(low, 16)
    if low and low >= 0xDC00 and low < 0xE000 then
      code = 0x10000 + (code - 0xD800) * 1024 + (low - 0xDC00)
      at = at + 6
    end
  end
  return utf8(code), at
end

-- The string whose opening quote is byte `at`, and where what follows it begins.
local function read_string(text, p, at)
  local from, stop, parts = at + 1, at, nil
  while true do
    repeat
      stop = stop + 1
      local c = p[stop - 1]
    until c == QUOTE or c == BACKSLASH or c < 32 or c == 127
    local c = p[stop - 1]
    local part = text:sub(from, stop - 1)
    if c == QUOTE then
      if not parts then return part, stop + 1 end
      parts[#parts + 1] = part
      return table.concat(parts), stop + 1
    end
    if c ~= BACKSLASH then fail(text, stop, stop > #text and "the string does not end" or "a control character in a string") end
    parts = parts or {}
    parts[#parts + 1] = part
    parts[#parts + 1], from = read_escape(text, stop)
    stop = from - 1
  end
end

local function skip_digits(p, at)
  while p[at - 1] >= ZERO and p[at - 1] <= NINE do at = at + 1 end
  return at
end

local function read_number(text, p, at)
  local first = p[at - 1] == MINUS and at + 1 or at
  local stop = skip_digits(p, first)
  local good = stop > first and (p[first - 1] ~= ZERO or stop == first + 1)
  if p[stop - 1] == POINT then
    local from = stop + 1
    stop = skip_digits(p, from)
    good = good and stop > from
  end
  if p[stop - 1] == 101 or p[stop - 1] == 69 then       -- e or E
    local from = stop + 1
    if p[from - 1] == PLUS or p[from - 1] == MINUS then from = from + 1 end
    stop = skip_digits(p, from)
    good = good and stop > from
  end
  local value = good and tonumber(text:sub(at, stop - 1))
  if not value then fail(text, at, "not a JSON value") end
  return value, stop
end

local words = { ["true"] = true, ["false"] = false, null = M.null }

local function read_word(text, at)
  local word = text:match("^%a+", at)
  if not word or words[word] == nil then fail(text, at, at > #text and "the text ends too early" or "not a JSON value") end
  return words[word], at + #word
end

-- The first byte from `at` on that is no white space.
local function skip(p, at)
  local c = p[at - 1]
  while c == 32 or c == 10 or c == 13 or c == 9 do
    at = at + 1
    c = p[at - 1]
  end
  return at
end

local MAX_DEPTH = 200   -- no document of ours is deeper; a hostile one must not take memory for every bracket

-- The value that begins at byte `at` or after, and the byte after it. Tables under way stand on a stack of our own.
local function read(text, at)
  local p, depth = ffi.cast("const uint8_t *", text), 0
  local tables, keys, table_now, key = {}, {}, nil, nil
  while true do
    at = skip(p, at)
    local c, opened, value = p[at - 1], false, nil       -- luacheck: ignore value
    if c == QUOTE then value, at = read_string(text, p, at)
    elseif c == OPEN_OBJECT or c == OPEN_LIST then
      if depth >= MAX_DEPTH then fail(text, at, "nested too deeply") end
      value, opened = c == OPEN_OBJECT and {} or M.array(), true
      at = skip(p, at + 1)
      if p[at - 1] == (c == OPEN_OBJECT and CLOSE_OBJECT or CLOSE_LIST) then opened, at = false, at + 1 end
    elseif c == MINUS or c >= ZERO and c <= NINE then value, at = read_number(text, p, at)
    else value, at = read_word(text, at) end

    if opened then
      depth = depth + 1
      tables[depth], keys[depth] = table_now or false, key or false
      table_now, key = value, c == OPEN_LIST and 1 or nil
    else
      -- a value is whole: it goes into the table around it, which may then be whole itself
      while true do
        if depth == 0 then return value, at end
        table_now[key] = value
        at = skip(p, at)
        local mark, list = p[at - 1], type(key) == "number"
        if mark == COMMA then
          at = at + 1
          key = list and key + 1 or nil
          break
        end
        if mark ~= (list and CLOSE_LIST or CLOSE_OBJECT) then
          fail(text, at, ("expected ',' or '%s'"):format(list and "]" or "}"))
        end
        at = at + 1
        value, table_now, key = table_now, tables[depth], keys[depth]
        depth = depth - 1
      end
    end
    if not key then
      at = skip(p, at)
      if p[at - 1] ~= QUOTE then fail(text, at, at > #text and "the text ends too early" or "a key must be a string") end
      key, at = read_string(text, p, at)
      at = skip(p, at)
      if p[at - 1] ~= COLON then fail(text, at, "expected ':'") end
      at = at + 1
    end
  end
end

--- The value that a JSON text stands for.
-- @tparam string text
-- @return the value, or nil and a message with line and byte
function M.decode(text)
  local ok, value, at = pcall(read, text, 1)
  if not ok then return nil, value end
  at = text:find("[^ \t\r\n]", at)
  if at then return nil, ("json.decode: byte %d: text after the value"):format(at) end
  return value
end

-- Where the string that begins at byte `at` ends, and whether there are escapes in it.
local function skip_string(text, p, at)
  local stop, escaped = at, false
  repeat
    stop = stop + 1
    local c = p[stop - 1]
    if c == BACKSLASH then stop, escaped = stop + 1, true end
  until c == QUOTE or stop > #text
  return stop, escaped
end

-- The byte after the value that begins at `at`, told by its brackets and strings alone.
local function skip_value(text, p, at)
  local depth = 0
  while at <= #text do
    local c = p[at - 1]
    if c == QUOTE then at = skip_string(text, p, at)
    elseif c == OPEN_LIST or c == OPEN_OBJECT then depth = depth + 1
    elseif c == CLOSE_LIST or c == CLOSE_OBJECT then
      if depth == 0 then return at end
      depth = depth - 1
    elseif c == COMMA and depth == 0 then return at end
    at = at + 1
  end
  fail(text, at, "the text ends too early")
end

-- Is what stands between the quotes at bytes `at` and `stop` this string? Without making one of it.
local function same(p, at, stop, wanted)
  if stop - at - 1 ~= #wanted then return false end
  local w = ffi.cast("const uint8_t *", wanted)
  for k = 0, #wanted - 1 do
    if p[at + k] ~= w[k] then return false end
  end
  return true
end

-- The value of a key of the object that begins at byte `at`; of several the last, as `read` has it.
local function field(text, at, wanted)
  local p, found = ffi.cast("const uint8_t *", text), nil
  if p[at - 1] ~= OPEN_OBJECT then fail(text, at, "expected an object") end
  at = skip(p, at + 1)
  while p[at - 1] ~= CLOSE_OBJECT do
    if p[at - 1] ~= QUOTE then fail(text, at, "a key must be a string") end
    local stop, escaped = skip_string(text, p, at)
    local is_it
    if escaped then is_it = read_string(text, p, at) == wanted else is_it = same(p, at, stop, wanted) end
    at = skip(p, stop + 1)
    if p[at - 1] ~= COLON then fail(text, at, "expected ':'") end
    at = skip(p, at + 1)
    if is_it then found = at end
    at = skip_value(text, p, at)
    if p[at - 1] == COMMA then at = skip(p, at + 1) end
  end
  if found then return (read(text, found)) end
end

local List = {}
List.__index = List

--- Element i of a lazy list.
-- @tparam number i from 1
-- @return the value, or nil and a message
function List:get(i)
  local ok, value, at = pcall(read, self.text, self.places[2 * i - 2])
  if not ok then return nil, value end
  at = skip(ffi.cast("const uint8_t *", self.text), at)
  if at <= self.places[2 * i - 1] then return nil, ("json.decode: byte %d: text after the value"):format(at) end
  return value
end

--- One value of element i, an object, without making the others.
-- @tparam number i from 1
-- @tparam string key
-- @return the value, or nil where the object has none; nil and a message
function List:field(i, key)
  local ok, value = pcall(field, self.text, self.places[2 * i - 2], key)
  if not ok then return nil, value end
  return value
end

local function index(text)
  local p = ffi.cast("const uint8_t *", text)
  local at, count, room = skip(p, 1), 0, 1024
  local places = ffi.new("double[?]", room)       -- first and last byte of each element
  if p[at - 1] ~= OPEN_LIST then fail(text, at, "expected '['") end
  local after = skip(p, at + 1)
  if p[after - 1] == CLOSE_LIST then return places, 0, after + 1 end
  while true do
    at = skip(p, at + 1)
    local stop = skip_value(text, p, at)
    if 2 * count + 2 > room then
      local more = ffi.new("double[?]", 2 * room)
      ffi.copy(more, places, 8 * room)
      places, room = more, 2 * room
    end
    places[2 * count], places[2 * count + 1] = at, stop - 1
    count, at = count + 1, stop
    if p[at - 1] == CLOSE_LIST then return places, count, at + 1 end
    if p[at - 1] ~= COMMA then fail(text, at, "expected ',' or ']'") end
  end
end

--- A JSON list whose elements are decoded when they are asked for: `count`, and `:get(i)`. Brackets and strings are looked at
-- now, the rest of an element by `get`.
-- @tparam string text
-- @return the list, or nil and a message with line and byte
-- @usage local list = json.lazy '[{"name":"1ubq"}]'; print(list:get(1).name)
function M.lazy(text)
  local ok, places, count, at = pcall(index, text)
  if not ok then return nil, places end
  at = text:find("[^ \t\r\n]", at)
  if at then return nil, ("json.decode: byte %d: text after the value"):format(at) end
  return setmetatable({ text = text, places = places, count = count }, List)
end

return M
