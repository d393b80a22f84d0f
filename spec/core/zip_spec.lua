-- ZIP archives and NumPy's arrays: what is written comes back, also what Python wrote; what is damaged, hostile or not ours is
-- refused by name.
local ffi = require "ffi"
local mf = require "moonfold"
local zip = require "moonfold.zip"
local support = require "spec.support"

local folder
before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(support.shell("mkdir " .. folder))
end)
after_each(function() support.shell("rm -rf " .. folder) end)

local function write(name, text)
  local path = folder .. "/" .. name
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

local function little(value, bytes)
  local out = {}
  for k = 1, bytes do
    out[k] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(out)
end

local function patched(text, at, bytes) return text:sub(1, at - 1) .. bytes .. text:sub(at + #bytes) end

-- Offset of the nth record of a kind, from 1.
local function record(text, kind, n)
  local at = 0
  for _ = 1, n or 1 do at = assert(text:find("PK" .. kind, at + 1, true)) end
  return at
end
local LOCAL, CENTRAL, FINISH, END64, LOCATOR = "\3\4", "\1\2", "\5\6", "\6\6", "\6\7"

local function archive(parts, alignment)
  zip.write(folder .. "/made.zip", parts, alignment)
  return support.read_file(folder .. "/made.zip")
end

local function refuses(text, message)
  local path = write("bad.zip", text)
  local said = support.error_matches(function()
    local z = zip.open(path)
    for _, name in ipairs(z.names) do z:read(name) end
  end, message, true)
  assert.truthy(said:find("bad.zip", 1, true))
end

describe("ZIP archives", function()
  it("give back what was written, stored or deflated", function()
    local x = support.random.normal(5, 3)
    local long = ("residue "):rep(50000)
    archive({
      { name = "empty", data = "" }, { name = "a/text é", data = long, deflate = true }, { name = "stored", data = "abc" },
      { name = "both", data = "head", tensor = x:t() }, { name = "packed", data = "head", tensor = x, deflate = true },
      { name = "nothing", data = "", deflate = true },
    }, 64)
    local z = zip.open(folder .. "/made.zip")
    assert.are.same({ "empty", "a/text é", "stored", "both", "packed", "nothing" }, z.names)
    assert.are.equal("", z:read "empty")
    assert.are.equal(long, z:read "a/text é")
    assert.are.equal(#long, z:size "a/text é")
    assert.are.equal("abc", z:read "stored")
    assert.are.equal("head" .. x:t():contiguous():bytes(), z:read "both")
    assert.are.equal("head" .. x:bytes(), z:read "packed")
    assert.are.equal("", z:read "nothing")
    z:close()
    support.error_matches(function() z:read "stored" end, "is closed")
  end)

  it("begin their data at multiples of the alignment", function()
    local text = archive({ { name = "a", data = "first" }, { name = "longer name", data = "second" } }, 64)
    assert.are.equal(1, text:find("first", 1, true) % 64)
    assert.are.equal(1, text:find("second", 1, true) % 64)
  end)

  it("are the same bytes for the same content", function()
    local parts = { { name = "a", data = "first", deflate = true }, { name = "b", data = "second" } }
    assert.are.equal(archive(parts), archive(parts))
  end)

  it("of Python's zipfile are read: stored, deflated, ZIP64 with a comment", function()
    local z = zip.open "spec/fuzz/corpus/zip/deflated"
    assert.are.equal("\147NUMPY", z:read("x.npy"):sub(1, 6))
    assert.are.equal("\128\2}.", zip.open("spec/fuzz/corpus/zip/stored"):read "archive/data.pkl")
    assert.are.equal("12345678", zip.open("spec/fuzz/corpus/zip/zip64"):read("a"):sub(-8))
  end)

  it("may have more entries than 16 bits count", function()
    local parts = {}
    for i = 1, 65540 do parts[i] = { name = "n" .. i, data = i == 65540 and "last" or "" } end
    local text = archive(parts)
    assert.truthy(text:find("PK" .. END64, 1, true) and text:find("PK" .. LOCATOR, 1, true))
    local z = zip.open(folder .. "/made.zip")
    assert.are.equal(65540, #z.names)
    assert.are.equal("last", z:read "n65540")
    -- what both records say must agree
    local at = record(text, END64)
    refuses(patched(text, at + 32, little(65539, 8)), "longer than its entries")
    refuses(patched(text, at + 48, ("\255"):rep(8)), "out of range")
    refuses(patched(text, record(text, FINISH) + 12, little(5, 4)), "differ")
    refuses(patched(text, record(text, LOCATOR) + 8, little(2 ^ 40, 8)), "ZIP64 record lies outside")
    refuses(patched(text, record(text, LOCATOR) + 8, little(0, 8)), "no ZIP64 record where")
  end)

  it("of more than 4 GiB are written and read #slow", function()
    if os.getenv "MOONFOLD_LONG" == nil then return pending "writes 4.5 GB: MOONFOLD_LONG=1" end
    local count = 2 ^ 29 + 1
    local x = mf.zeros(count, { dtype = "int64" })
    x:narrow(1, count, 1):fill_(77)
    local parts = { { name = "before", data = "abc" }, { name = "large", tensor = x }, { name = "after", data = "xyz" } }
    zip.write(folder .. "/large.zip", parts, 64)
    local z = zip.open(folder .. "/large.zip")
    assert.are.equal(8 * count, z:size "large")
    assert.are.equal("xyz", z:read "after")
    local last = z:tensor("large", { kind = "signed", width = 8, offset = count - 2, shape = { 2 }, stride = { 1 } })
    assert.are.same({ 0, 77 }, last:totable())
    local check = "python3 -c \"import zipfile; assert zipfile.ZipFile('%s/large.zip').testzip() is None\""
    assert.is_true(support.shell(check:format(folder)))
  end)

  local function two() return archive { { name = "a", data = "first" }, { name = "b", data = "second" } } end

  it("are refused when cut anywhere", function()
    local text = two()
    for n = 0, #text - 1 do assert.is_false((pcall(zip.open, write("cut.zip", text:sub(1, n)))), n .. " bytes") end
    refuses(text:sub(1, -2), "no end record: truncated")
  end)

  it("are refused when they are something else, a folder, absent", function()
    refuses("", "not a ZIP archive")
    refuses(("x"):rep(100), "not a ZIP archive")
    support.error_matches(function() zip.open(folder) end, "directory")
    support.error_matches(function() zip.open(folder .. "/none") end, "No such file")
    support.error_matches(function() zip.open() end, "argument 1 must be a path")
    refuses("program" .. two(), "the central directory is corrupt")
  end)

  it("are refused when damaged: every byte is guarded by a check, or does not matter", function()
    local text = two()
    for at = 1, #text do
      local damaged = patched(text, at, string.char((text:byte(at) + 1) % 256))
      local ok, a, b = pcall(function()
        local z = zip.open(write("damaged.zip", damaged))
        return z:read "a", z:read "b"
      end)
      assert.is_true(not ok or a == "first" and b == "second", "byte " .. at)
    end
  end)

  it("tell what is wrong with an entry", function()
    local text = two()
    local first, second = record(text, CENTRAL, 1), record(text, CENTRAL, 2)
    refuses(patched(text, first + 20, little(6, 4)), "'a': it is stored and has two sizes")
    refuses(patched(patched(text, first + 20, little(900, 4)), first + 24, little(900, 4)), "'a': its data lie outside the file")
    refuses(patched(text, first + 42, little(2 ^ 31, 4)), "'a': its header lies outside the file")
    refuses(patched(text, first + 42, little(1, 4)), "'a': there is no header where")
    refuses(patched(text, first + 46, "c"), "'c': its header has another name")
    refuses(patched(text, first + 46, "\7"), "not printable")
    refuses(patched(text, first + 46, "\255"), "not printable")
    refuses(patched(text, first + 34, little(1, 2)), "'a': it is in another volume")
    refuses(patched(text, first + 8, little(1, 2)), "'a' is encrypted")
    refuses(patched(text, first + 10, little(12, 2)), "'a': its header has another method")
    refuses(patched(patched(text, first + 10, little(12, 2)), 9, little(12, 2)), "'a' is packed by method 12")
    refuses(patched(text, first + 16, little(1, 4)), "'a': its CRC is wrong")
    -- the second entry is the first once more, under its own name or another
    refuses(patched(patched(text, second + 42, little(0, 4)), second + 46, "a"), "'a': the name occurs twice")
  end)

  it("are refused when entries share data", function()
    -- an entry whose data are the whole next entry, header and all
    local text = two()
    local first, next_at = record(text, CENTRAL, 1), record(text, LOCAL, 2)
    local reach = record(text, CENTRAL, 1) - next_at + #"first"
    text = patched(patched(text, first + 20, little(reach, 4)), first + 24, little(reach, 4))
    refuses(text, "'b': its data overlap")
  end)

  it("are refused when they inflate to too much or to another size", function()
    local text = archive { { name = "a", data = ("x"):rep(1000), deflate = true } }
    local at = record(text, CENTRAL)
    refuses(patched(text, at + 24, little(999, 4)), "corrupt or truncated")
    refuses(patched(text, at + 24, little(1001, 4)), "corrupt or truncated")
    refuses(patched(text, at + 24, little(2 ^ 31, 4)), "more than its data can inflate to")
    local bytes = text:byte(at + 20)
    refuses(patched(text, at + 20, little(bytes - 1, 4)), "corrupt or truncated")
    -- a gibibyte and more of 1.2 MB: refused before anything is inflated
    text = archive { { name = "a", tensor = mf.rand(300000), deflate = true } }
    refuses(patched(text, record(text, CENTRAL) + 24, little(1100000000, 4)), "inflates to 1100000000 bytes")
  end)

  it("name the part that cannot be written", function()
    local function fails(parts, message, alignment)
      support.error_matches(function() zip.write(folder .. "/x.zip", parts, alignment) end, message, true)
    end
    fails({ { name = "", data = "" } }, "name 1 is not UTF-8")
    fails({ { name = "\255", data = "" } }, "name 1 is not UTF-8")
    fails({ { name = "a", data = "" }, { name = "a", data = "" } }, "'a' occurs twice")
    fails({}, "an alignment of 0", 0)
    fails({}, "an alignment of 5000", 5000)
  end)
end)

describe("elements of another layout", function()
  local function decode(kind, width, shape, stride, bytes, o)
    o = o or {}
    local layout = { kind = kind, width = width, shape = shape, stride = stride, offset = o.offset, big_endian = o.big_endian }
    return zip.decode(layout, bytes)
  end

  it("are widened exactly and swapped", function()
    assert.are.same({ -1, 127, -128 }, decode("signed", 1, { 3 }, { 1 }, "\255\127\128"):totable())
    assert.are.same({ 255, 127, 128 }, decode("unsigned", 1, { 3 }, { 1 }, "\255\127\128"):totable())
    assert.are.same({ -2, 0x7fff }, decode("signed", 2, { 2 }, { 1 }, "\254\255\255\127"):totable())
    assert.are.same({ 65534, 0x7fff }, decode("unsigned", 2, { 2 }, { 1 }, "\255\254\127\255", { big_endian = true }):totable())
    assert.are.same({ 2 ^ 32 - 1 }, decode("unsigned", 4, { 1 }, { 1 }, ("\255"):rep(4)):totable())
    assert.are.same({ 1.5 }, decode("float", 8, { 1 }, { 1 }, "\63\248\0\0\0\0\0\0", { big_endian = true }):totable())
    assert.are.equal("bfloat16", decode("bfloat", 2, { 1 }, { 1 }, "\128\63"):dtype())
    assert.are.same({ true, false }, decode("bool", 1, { 2 }, { 1 }, "\1\0"):totable())
    assert.are.equal(2 ^ 53, decode("unsigned", 8, {}, {}, "\0\0\0\0\0\0\32\0"):item())
  end)

  it("follow strides and offsets", function()
    local bytes = ""
    for i = 0, 11 do bytes = bytes .. string.char(i) end
    assert.are.same({ { 0, 4, 8 }, { 1, 5, 9 } }, decode("unsigned", 1, { 2, 3 }, { 1, 4 }, bytes):totable())
    assert.are.same({ { 5, 5 }, { 9, 9 } }, decode("unsigned", 1, { 2, 2 }, { 4, 0 }, bytes, { offset = 5 }):totable())
    assert.are.same({ 0, 3 }, decode("float", 4, { 0, 3 }, { 3, 1 }, ""):shape())
  end)

  it("are refused where they leave the data, or are no elements", function()
    local function fails(message, ...)
      local arguments = { n = select("#", ...), ... }
      support.error_matches(function() decode(unpack(arguments, 1, arguments.n)) end, message, true)
    end
    fails("the last element is number 4, the storage has 3", "signed", 1, { 4 }, { 1 }, "abc")
    fails("the last element is number 5, the storage has 3", "signed", 1, { 2 }, { 4 }, "abc")
    fails("the last element is number 4", "signed", 1, {}, {}, "abc", { offset = 3 })
    fails("offset lies outside", "signed", 1, { 1 }, { 1 }, "abc", { offset = 4 })
    fails("offset lies outside", "signed", 1, { 0 }, { 1 }, "abc", { offset = -1 })
    fails("a negative size", "signed", 1, { -1 }, { 1 }, "abc")
    fails("a negative stride", "signed", 1, { 2 }, { -1 }, "abc", { offset = 2 })
    fails("the shape overflows", "signed", 1, { 2 ^ 40, 2 ^ 40 }, { 0, 0 }, "abc")
    fails("the strides overflow", "signed", 1, { 2 ^ 40, 2 }, { 2 ^ 40, 1 }, "abc")
    fails("elements made of 3: refused", "signed", 1, { 2 ^ 27 }, { 0 }, "abc")
    fails("no element type", "float", 1, { 1 }, { 1 }, "abc")
    fails("no element type", "signed", 3, { 1 }, { 1 }, "abc")
    fails("a bool is neither", "bool", 1, { 3 }, { 1 }, "\0\1\2")
    fails("unsigned number of 2^63", "unsigned", 8, { 1 }, { 1 }, ("\255"):rep(8))
    support.error_matches(function() decode("signed", 1, { 1, 1, 1, 1, 1, 1, 1, 1, 1 }, {}, "a") end, "9 axes, expected at most 8")
  end)
end)

describe("arrays of NumPy", function()
  local function array(header, data, version)
    version = version or "\1\0"
    return "\147NUMPY" .. version .. little(#header, version:byte(1) > 1 and 4 or 2) .. header .. (data or "")
  end
  local function dictionary(descr, order, shape)
    return ("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }"):format(descr, order, shape)
  end

  it("that NumPy wrote are read in every type, order and version", function()
    local function load(name) return mf.numpy.load("spec/fuzz/corpus/npy/" .. name) end
    assert.are.same({ { 0, 1, 2 }, { 3, 4, 5 } }, load("f4"):totable())
    assert.are.same({ { 0, 1, 2 }, { 3, 4, 5 } }, load("fo"):totable())
    assert.are.equal("float64", load("fo"):dtype())
    assert.are.same({ 0, 1, 2, 3 }, load("be"):totable())
    assert.are.same({ true, false }, load("b"):totable())
    assert.are.equal(3, load("s"):item())
    assert.are.same({ 0, 3 }, load("e"):shape())
    assert.are.same({ 0, 1, 2 }, load("v2"):totable())
  end)

  it("are written and come back, one and several, stored and deflated", function()
    local given = {}
    for _, dtype in ipairs { "float32", "float64", "float16", "int32", "int64", "bool" } do
      for _, shape in ipairs { {}, { 1 }, { 0 }, { 31 }, { 5, 7, 2 } } do
        local x = shape[1] == 0 and mf.zeros(shape) or mf.randn(shape) * 40
        given[dtype .. "/" .. table.concat(shape, "x")] = dtype == "bool" and x:gt(0) or x:to(dtype)
      end
    end
    for _, compress in ipairs { false, true } do
      mf.numpy.save(folder .. "/all.npz", given, { compress = compress })
      local found = mf.numpy.load(folder .. "/all.npz")
      for name, x in pairs(given) do support.same_bits(found[name], x, name) end
    end
    mf.numpy.save(folder .. "/one.npy", given["float32/5x7x2"]:permute(3, 1, 2))
    support.same_bits(mf.numpy.load(folder .. "/one.npy"), given["float32/5x7x2"]:permute(3, 1, 2):contiguous())
    assert.are.equal(0, (support.read_file(folder .. "/one.npy"):find("\n", 1, true)) % 64)
  end)

  it("refuse what NumPy or Moonfold lacks", function()
    support.error_matches(function() mf.numpy.save(folder .. "/x.npy", mf.ones(2):to "bfloat16") end, "no type for bfloat16")
    local bf = "bfloat16"
    support.error_matches(function() mf.numpy.save(folder .. "/x.npz", { a = mf.ones(2):to(bf) }) end, "no type for bfloat16")
    support.error_matches(function() mf.numpy.save(folder .. "/x.txt", {}) end, "neither .npy nor .npz")
    support.error_matches(function() mf.numpy.save(folder .. "/x.npy", {}) end, "argument 2 must be a tensor")
    support.error_matches(function() mf.numpy.save(folder .. "/x.npz", { a = 1 }) end, "'a' must be a tensor")
    support.error_matches(function() mf.numpy.load(folder .. "/none.npy") end, "No such file")
    support.error_matches(function() mf.numpy.load(write("x.npz", "PK")) end, "x.npz")
    zip.write(folder .. "/t.npz", { { name = "a.txt", data = "x" } })
    support.error_matches(function() mf.numpy.load(folder .. "/t.npz") end, "entry 'a.txt' is not an array")
  end)

  local good = dictionary("<f4", "False", "(2,)")
  local bad = {
    { "nothing", "", "not an array of NumPy" },
    { "another version", array(good, ("x"):rep(8), "\4\0"), "version 4.0" },
    { "a header past the end", "\147NUMPY\1\0\255\0{}", "truncated" },
    { "a header of 4 GB", "\147NUMPY\2\0\255\255\255\255{}", "a header of 4294967295 bytes" },
    { "no dictionary", array("[]"), "not a dictionary" },
    { "an unknown key", array "{'a': 1}", "unknown one" },
    { "a key twice", array "{'shape': (), 'shape': ()}", "a key twice" },
    { "a key missing", array "{'shape': (), 'descr': '<f4'}", "is missing" },
    { "text after the header", array(good .. "x", ("x"):rep(8)), "text after its header" },
    { "code for a shape", array(dictionary("<f4", "False", "(__import__('os'),)")), "not a tuple of sizes" },
    { "a negative size", array(dictionary("<f4", "False", "(-1,)")), "not a tuple of sizes" },
    { "a size that overflows", array(dictionary("<f4", "False", "(99999999999999999999,)")), "a size overflows" },
    { "a shape that overflows", array(dictionary("<f4", "False", "(4294967296, 4294967296, 2)")), "the shape overflows" },
    { "nine axes", array(dictionary("<f4", "False", "(1,1,1,1,1,1,1,1,1)"), "1234"), "more than 8 axes" },
    { "too few data", array(good, "1234567"), "7 bytes of data, the shape needs 8" },
    { "too many data", array(good, "123456789"), "9 bytes of data, the shape needs 8" },
    { "objects", array(dictionary("|O", "False", "(1,)"), "12345678"), "Python objects: never unpickled" },
    { "records", array("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "1234"), "array of records" },
    { "complex numbers", array(dictionary("<c8", "False", "(1,)"), "12345678"), "type '<c8'" },
    { "bfloat16", array(dictionary("|V2", "False", "(1,)"), "12"), "type '|V2' (known: f2" },
    { "an order that is neither", array(dictionary("<f4", "1", "(2,)"), "12345678"), "neither True nor False" },
    { "gzip", nil, "limit" },
  }
  for _, case in ipairs(bad) do
    it("are refused: " .. case[1], function()
      local path = write("bad.npy", case[2] or array(dictionary("<f4", "False", "(2500,)"), ("\0"):rep(10000)))
      if not case[2] then assert(support.shell(("cd %s && gzip bad.npy && mv bad.npy.gz bad.npy"):format(folder))) end
      local message = support.error_matches(function() mf.numpy.load(path) end, case[3], true)
      assert.truthy(message:find("bad.npy", 1, true))
    end)
  end

  it("are refused when cut anywhere", function()
    local text = array(good, "12345678")
    for n = 0, #text - 1 do assert.is_false((pcall(mf.numpy.load, write("cut.npy", text:sub(1, n)))), n .. " bytes") end
  end)
end)

describe("the C interface of ZIP", function()
  it("tells a number that is no entry's, and a layout that is missing", function()
    local C, ctx = require("moonfold.ffi").C, require("moonfold.ffi").ctx
    local box, out, text, bytes = ffi.new "mf_zip *[1]", ffi.new "mf_tensor *[1]", ffi.new "char *[1]", ffi.new "int64_t[1]"
    assert.are.equal(C.MF_OK, C.mf_zip_open(box, "spec/fuzz/corpus/zip/stored"))
    for _, i in ipairs { -1, 2 } do
      assert.is_true(C.mf_zip_name(box[0], i) == nil)
      assert.are.equal(-1, tonumber(C.mf_zip_size(box[0], i)))
      assert.are.equal(C.MF_EVALUE, C.mf_zip_read(text, bytes, box[0], i))
      assert.are.equal(C.MF_EVALUE, C.mf_zip_npy(out, box[0], ctx, i))
    end
    assert.are.equal(C.MF_EVALUE, C.mf_zip_tensor(out, box[0], ctx, 0, nil))
    C.mf_zip_close(box[0])
    C.mf_zip_close(nil)
  end)
end)
