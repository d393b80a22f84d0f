-- Pickles as inert data: what Python writes comes back as values, what would run something does not, what is wrong or hostile is
-- refused with the byte at which it went wrong.
local ffi = require "ffi"
local mf = require "moonfold"
local json = require "moonfold.json"
local pickle = require "moonfold.pickle"
local support = require "spec.support"

local function load(text, rules) return pickle.load(text, "test.pkl", rules) end
local function refuses(text, message) return support.error_matches(function() load(text) end, message, true) end

describe("pickles", function()
  it("give numbers, texts and containers of every protocol", function()
    -- pickletools' own view of {'a': [1, 2**40, -3, 0.1, None, True], 'b': (b'x', 'é', {1, 2}), 'n': 2**70, 'self': the list}
    for protocol = 0, 5 do
      local value = load(support.read_file(("spec/fuzz/corpus/pickle/values%d"):format(protocol)))
      assert.are.same({ 1, 2 ^ 40, -3, 0.1, json.null, true }, { unpack(value.a, 1, 6) })
      assert.are.equal(value.a, value.self, "one list stays one")
      assert.are.equal("é", value.b[2])
      assert.are.same({ "a", "b", "n", "self" }, pickle.order(value))
    end
  end)

  it("read integers of every width and sign", function()
    local cases = {
      { "K\255", 255 }, { "M\255\255", 65535 }, { "J\255\255\255\255", -1 }, { "J\0\0\0\128", -2 ^ 31 },
      { "\138\0", 0 }, { "\138\1\255", -1 },
      { "\138\2\255\0", 255 }, { "\138\7\0\0\0\0\0\0\32", 2 ^ 53 }, { "I-12\n", -12 }, { "L-12L\n", -12 },
      { "I01\n", true }, { "I00\n", false },
      { "I9223372036854775807\n", 9223372036854775807LL }, { "I-9223372036854775808\n", -9223372036854775807LL - 1 },
      { "\138\8\1\0\0\0\0\0\0\128", -9223372036854775807LL },
    }
    for _, case in ipairs(cases) do
      local value = load(case[1] .. ".")
      assert.is_true(value == case[2], ("%q gives %s"):format(case[1], tostring(value)))
    end
    assert.are.equal("builtins.int", load("\138\9\0\0\0\0\0\0\0\0\1.").class)
    local large = "\0\0\0\0\0\0\0\0\64\0"                 -- 2^70 = 1180591620717411303424
    assert.are.equal(large, load("L1180591620717411303424L\n.").bytes)
    assert.are.equal("\0\0\0\0\0\0\0\0\192\255", load("L-1180591620717411303424L\n.").bytes)
  end)

  it("read fractions and strings of protocol 0", function()
    assert.are.equal(-1.5e-3, load "F-1.5e-3\n.")
    assert.are.equal(math.huge, load "Finf\n.")
    assert.are.equal("a\n'\0A\\", load "S'a\\n\\'\\0\\x41\\\\'\n.")
    assert.are.equal("é€😀ü", load "V\\u00e9\\u20ac\\U0001f600\252\n.")
  end)

  it("keep keys that Lua has no like of beside the table", function()
    local value = load "\128\2}(X\1\0\0\0aK\1K\1K\2\134K\3NK\4u."
    assert.are.same({ a = 1 }, value)
    assert.are.same({ { { 1, 2 }, 3 }, { json.null, 4 } }, pickle.others(value))
  end)

  it("let a list contain itself", function()
    local value = load "\128\2]q\0h\0a."
    assert.are.equal(value, value[1])
  end)

  it("run nothing: what would be called is data", function()
    local marker = os.tmpname()
    os.remove(marker)
    local payload = "touch " .. marker
    local calls = {
      posix = ("cposix\nsystem\n(S'%s'\ntR."):format(payload),
      os = ("\128\2cos\nsystem\nX%s\0\0\0%s\133R."):format(string.char(#payload), payload),
      builtins = "\128\4\140\8builtins\140\4eval\147\140\3x()\133R.",
      newobj = "\128\2csubprocess\nPopen\nX\4\0\0\0true\133\129.",
      inst = "(S'true'\nios\nsystem\n.", obj = "(cos\nsystem\nS'true'\no.",
      kwargs = "\128\4\140\2os\140\6system\147)}\140\7command\140\4trues\146.",
      lua = "cos\nexecute\n(S'true'\ntR.",
    }
    for name, text in pairs(calls) do
      local value = load(text)
      assert.is_true(pickle.is_inert(value), name)
      assert.truthy(value.class:find "%.", name)
    end
    assert.are.same({ class = "os.system", args = { payload } }, { class = load(calls.os).class, args = load(calls.os).args })
    assert.are.same({ command = "true" }, load(calls.kwargs).keywords)
    assert.is_nil(io.open(marker))
  end)

  it("keep objects of objects, their state and what fills them", function()
    local value = load "\128\2cfunctools\npartial\ncos\nsystem\n\133R(S'true'\ntR(S'x'\nK\1d}S'k'\nK\2s\134b."
    assert.are.equal("functools.partial", value.maker.class)
    assert.are.equal("os.system", value.maker.args[1].class)
    assert.are.same({ x = 1 }, value.state[1])
    local filled = load "\128\2cm\nC\n)\129(K\1K\2e(S'k'\nK\3u."
    assert.are.same({ 1, 2 }, { unpack(filled.items) })
    assert.are.same({ k = 3 }, filled.dict)
  end)

  it("ask the caller's rules, and those alone", function()
    local asked = {}
    local rules = {
      ["m.point"] = { make = function(args) return { x = args[1] } end, state = function(value, state)
        value.state = state
        return value
      end },
      ["m.bag"] = { make = function() return {} end, container = true },
      persistent = function(payload)
        asked[#asked + 1] = payload
        return "outside"
      end,
    }
    assert.are.same({ x = 5, state = 6 }, load("\128\2cm\npoint\nK\5\133RK\6b.", rules))
    assert.are.same({ k = 1 }, load("\128\2cm\nbag\n)RS'k'\nK\1s.", rules))
    assert.are.equal("outside", load("\128\2K\7Q.", rules))
    assert.are.same({ 7 }, asked)
    assert.is_true(pickle.is_inert(load("\128\2cm\npoint2\nK\5\133R.", rules)))
    support.error_matches(function() load "\128\2K\7Q." end, "refers to something outside")
  end)

  it("do not follow a repetition path by path", function()
    -- ten to the power of sixty numbers, if written out: each list holds the one before ten times
    local text = { "\128\2(](" .. ("K\1"):rep(10) .. "eq\0" }
    for level = 1, 60 do text[#text + 1] = "](" .. ("h" .. string.char(level - 1)):rep(10) .. "eq" .. string.char(level) end
    local value = load(table.concat(text) .. "t.")
    assert.are.equal(61, #value)
    for level = 2, 61 do
      for k = 1, 10 do assert.are.equal(value[level - 1], value[level][k]) end
    end
  end)

  it("are refused when nested too deeply, and at no depth overflow a stack", function()
    local function nested(n) return ("]"):rep(n) .. ("a"):rep(n - 1) .. "." end
    assert.truthy(load(nested(pickle.MAX_DEPTH)))
    refuses(nested(pickle.MAX_DEPTH + 2), "nested deeper than 200")
    refuses(nested(1000000), "nested deeper than 200")
    refuses(("("):rep(1000000) .. ("t"):rep(1000000) .. ".", "nested deeper than 200")
  end)

  local bad = {
    { "nothing", "", "byte 0: truncated" },
    { "no end", "\128\2K\1", "truncated" },
    { "nothing on the stack", ".", "more or less than one value" },
    { "two values", "NN.", "more or less than one value" },
    { "a mark left over", "N(.", "more or less than one value" },
    { "bytes after the end", "N.N", "bytes after its end" },
    { "an unknown opcode", "\255.", "unknown opcode" },
    { "a later protocol", "\128\6N.", "a protocol after 5" },
    { "a frame past the end", "\149\255\255\255\255\255\255\255\255N.", "truncated" },
    { "an empty stack", "0.", "stack is empty" },
    { "a tuple of too few", "N\134.", "stack is empty" },
    { "no mark", "Nt.", "there is no mark" },
    { "a value taken past a mark", "N(\133.", "stack is empty" },
    { "a text past the end", "X\255\255\255\255ab.", "truncated" },
    { "a text of 2^63 bytes", "\141\0\0\0\0\0\0\0\128ab.", "truncated" },
    { "bytes of 2^64 - 1", "\142\255\255\255\255\255\255\255\255.", "truncated" },
    { "a string of negative length", "T\255\255\255\255ab.", "negative length" },
    { "a long of negative length", "\139\255\255\255\255ab.", "negative length" },
    { "a text that is not UTF-8", "X\1\0\0\0\255.", "not UTF-8" },
    { "half a surrogate pair", "V\\ud83d\n.", "bad escape" },
    { "a code past Unicode", "V\\U00110000\n.", "bad escape" },
    { "a string without quotes", "Sabc\n.", "without quotes" },
    { "a bad escape", "S'\\q'\n.", "bad escape" },
    { "no decimal number", "I1x\n.", "not a decimal number" },
    { "a sign alone", "I-\n.", "not a decimal number" },
    { "a decimal of thousands of digits", "L1" .. ("0"):rep(4300) .. "L\n.", "more than 4300 digits" },
    { "no fraction", "F1.5x\n.", "not a decimal fraction" },
    { "a fraction in C's hexadecimal", "F0x1p3\n.", "not a decimal fraction" },
    { "a memo that is empty", "h\0.", "nothing was remembered" },
    { "a memo number past any memo", "Nr\255\255\255\255.", "beyond what could have been remembered" },
    { "a memo number that is none", "Np-1\n.", "not a memo number" },
    { "a memo of nothing", "q\0.", "stack is empty" },
    { "appending to a number", "K\1K\2a.", "neither a list nor an object" },
    { "appending to a tuple", ")K\2a.", "neither a list nor an object" },
    { "setting in a list", "]K\1K\2s.", "neither a dictionary nor an object" },
    { "adding to a list", "](K\1\144.", "neither a set nor an object" },
    { "a key without a value", "}(K\1u.", "a key without a value" },
    { "a dictionary of three", "(K\1K\2K\3d.", "a key without a value" },
    { "a state for a list", "]}b.", "what is no object" },
    { "a state for a class", "cos\nsystem\n}b.", "what is no object" },
    { "two states", "cm\nC\n)\129}b}b.", "second state" },
    { "calling a number", "K\1)R.", "neither a class nor an object" },
    { "calling a text", "X\2\0\0\0os)R.", "neither a class nor an object" },
    { "arguments that are a list", "cm\nC\n]R.", "not a tuple" },
    { "a class with an empty name", "c\n\n.", "not a name" },
    { "a class with a control character", "ca\27[2J\nb\n.", "not a name" },
    { "a class made of numbers", "K\1K\2\147.", "not a name" },
    { "a class whose line does not end", "cos", "truncated" },
    { "an object without a class", "(o.", "without a class" },
    { "the extension registry", "\130\1.", "extension registry" },
    { "a buffer from outside", "\151.", "out-of-band buffer" },
  }
  for _, case in ipairs(bad) do
    it("are refused: " .. case[1], function()
      local message = refuses(case[2], case[3])
      assert.truthy(message:find("test.pkl", 1, true))
    end)
  end

  it("refuse an argument that contains its own object, where a rule would need it first", function()
    local text = "cm\nC\n]q\0\133Rq\1h\0h\1a0."       -- x = C(list), list = [x]
    local value = load(text)
    assert.are.equal(value, value.args[1][1])
    local rules = { ["m.C"] = { make = function(args) return args end } }
    support.error_matches(function() load(text, rules) end, "contains its own object")
  end)

  it("are refused when there are too many values", function()
    refuses(("]"):rep(2 ^ 22 + 8) .. ".", "more values than a checkpoint can have")
  end)

  it("are refused when cut anywhere", function()
    for protocol = 0, 5 do
      local text = support.read_file(("spec/fuzz/corpus/pickle/values%d"):format(protocol))
      for n = 0, #text - 1 do assert.is_false((pcall(load, text:sub(1, n))), ("protocol %d: %d bytes"):format(protocol, n)) end
    end
  end)

  it("tell a number that is not one of theirs", function()
    local box, value = ffi.new "mf_pickle *[1]", ffi.new "mf_pickle_value"
    local C = require("moonfold.ffi").C
    assert.are.equal(C.MF_OK, C.mf_pickle_parse(box, "N.", 2, "x"))
    for _, i in ipairs { -1, 100 } do
      assert.are.equal(C.MF_EVALUE, C.mf_pickle_get(box[0], i, value))
      assert.are.equal(C.MF_EVALUE, C.mf_pickle_children(nil, nil, box[0], i))
    end
    C.mf_pickle_release(box[0])
    assert.are.equal(C.MF_EVALUE, C.mf_pickle_parse(box, nil, 5, "x"))
    assert.is_true(box[0] == nil)
    assert.truthy(mf.torch.is_inert(load "cos\nsystem\n."))
  end)
end)
