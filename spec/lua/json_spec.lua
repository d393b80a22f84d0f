-- JSON that is not as it should be: whatever the text, there is a value or a message, in little memory, and what is decoded is
-- encoded again as the same.
local json = require "moonfold.json"

local SEEDS = {
  '{"a":[1,2.5,-1e300,0.1],"b":[],"s":"\\"\\\\\\n\\u0001\\u00e5\\ud83d\\ude00","t":true,"f":false,"n":null,"o":{"":{}}}',
  '[{"name":"1ubq","lengths":[76],"keep":true},{"name":"\\/x"},[[[[[]]]]],-0,1E+2,"é"]',
  ' { "k" : [ null , "a\\tb" ,\r\n\t{ } ] } ', '"x"', "12", "[]",
}
local WORDS = {
  "{", "}", "[", "]", ",", ":", '"', "\\", "\\u", "\\ud800", "\\u0000", "e", "-", ".", "0", "1e999", "nul", "null", "true", " ",
  "\0", "\255", "\n", ("9"):rep(400), ("["):rep(300), ('{"a":'):rep(300), '"a":', "//", "'",
}

-- A generator of our own: the same texts on every machine.
local state = 20240229
local function random(n)
  state = (state * 1103515245 + 12345) % 2147483648
  return math.floor(state / 65536) % n + 1
end

local function mutate(text)
  for _ = 1, random(4) do
    local at, kind = random(#text + 1), random(4)
    if kind == 1 then text = text:sub(1, at - 1) .. WORDS[random(#WORDS)] .. text:sub(at)
    elseif kind == 2 then text = text:sub(1, at - 1) .. text:sub(at + random(5))
    elseif kind == 3 then text = text:sub(1, at - 1) .. string.char(random(256) - 1) .. text:sub(at + 1)
    else
      local other = SEEDS[random(#SEEDS)]
      text = text:sub(1, at - 1) .. other:sub(random(#other))
    end
  end
  return text
end

local function depth(value)
  if type(value) ~= "table" then return 0 end
  local most = 0
  for _, v in pairs(value) do most = math.max(most, depth(v)) end
  return most + 1
end

-- Infinities can be decoded, of 1e999, but have no text.
local function finite(value)
  if type(value) == "number" then return value - value == 0 end
  if type(value) ~= "table" then return true end
  for _, v in pairs(value) do
    if not finite(v) then return false end
  end
  return true
end

describe("json of any text", function()
  it("is a value or a message with a place", function()
    local values, messages = 0, 0
    for round = 1, 20000 do
      local text = mutate(SEEDS[round % #SEEDS + 1])
      local value, message = json.decode(text)
      if value == nil then
        assert(type(message) == "string" and message:find "^json%.decode: .*byte %d+: ", text)
        messages = messages + 1
      else
        values = values + 1
        assert(depth(value) <= 200, text)
        if finite(value) then
          local once = json.encode(value)
          assert.are.equal(once, json.encode((assert(json.decode(once)))))
        end
      end
    end
    assert.is_true(values > 1000 and messages > 1000, ("%d values, %d messages"):format(values, messages))
  end)

  it("as a lazy list is one too, and so is each of its elements and fields", function()
    local lists, elements = 0, 0
    for round = 1, 20000 do
      local text = mutate(round % 2 == 0 and SEEDS[2] or "[" .. SEEDS[round % #SEEDS + 1] .. ",1]")
      local list, message = json.lazy(text)
      if not list then
        assert(type(message) == "string" and message:find "^json%.decode: ", text)
      else
        lists = lists + 1
        for i = 1, list.count do
          local value, why = list:get(i)
          local _, of_field = list:field(i, "name")
          assert(value ~= nil or why:find "^json%.decode: ", text)
          assert(of_field == nil or of_field:find "^json%.decode: ", text)
          if value ~= nil then elements = elements + 1 end
        end
      end
    end
    assert.is_true(lists > 1000 and elements > 1000, ("%d lists, %d elements"):format(lists, elements))
  end)

  it("takes no memory for brackets that are nested too deeply", function()
    local texts = { ("["):rep(4000000), ('{"a":'):rep(1000000), ("["):rep(201) .. ("]"):rep(201) }
    for _, text in ipairs(texts) do
      collectgarbage()
      local before = collectgarbage "count"
      local value, message = json.decode(text)
      assert.is_nil(value)
      assert.truthy(message:find("nested too deeply", 1, true), message)
      assert.is_true(collectgarbage "count" - before < 1024)
    end
    assert.are.equal(200, depth((json.decode(("["):rep(200) .. ("]"):rep(200)))))
  end)
end)
