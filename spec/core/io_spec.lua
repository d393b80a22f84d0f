-- Files in and out, and safetensors: what is written comes back, what is wrong is refused by name, what fails
-- leaves the old file alone.
local ffi = require "ffi"
local mf = require "moonfold"
local binding = require "moonfold.ffi"
local files = require "moonfold.files"
local support = require "spec.support"
local C = binding.C

local folder

local shell, read = support.shell, support.read_file

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

local function listing()
  local pipe = io.popen("ls -A " .. folder)
  local text = pipe:read "*a"
  pipe:close()
  return text
end

-- Reads through the library: text, or nil and the message.
local function slurp(path, limit)
  local text, bytes = ffi.new "char *[1]", ffi.new "int64_t[1]"
  local status = C.mf_file_read(text, bytes, path, limit or 0)
  if status ~= 0 then
    assert(text[0] == nil)
    return nil, ffi.string(C.mf_error_text()), status
  end
  local s = ffi.string(text[0], bytes[0])
  C.mf_file_free(text[0])
  return s
end

local function u64(n)
  local bytes = {}
  for i = 1, 8 do
    bytes[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(bytes)
end

local function safetensors(header, data) return u64(#header) .. header .. (data or "") end

before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(shell("mkdir " .. folder))
end)
after_each(function() shell("rm -rf " .. folder) end)

describe("reading files", function()
  it("reads plain and gzip text of awkward sizes alike", function()
    for _, n in ipairs { 0, 1, 2, 31, 131071, 131072, 131073, 400009 } do
      local text = (("abcdefg\n"):rep(math.ceil(n / 8))):sub(1, n)
      local path = write(folder .. "/x", text)
      assert.are.equal(text, slurp(path))
      assert(shell("gzip -kf " .. path))
      assert.are.equal(text, slurp(path .. ".gz"))
    end
  end)

  it("joins the members of a gzip file", function()
    write(folder .. "/a", "one ")
    write(folder .. "/b", "two")
    assert(shell(("cd %s && gzip a b && cat a.gz b.gz > c"):format(folder)))
    assert.are.equal("one two", slurp(folder .. "/c"))
  end)

  it("refuses a gzip stream that is cut anywhere", function()
    write(folder .. "/a", ("0123456789"):rep(50))
    assert(shell("gzip -n " .. folder .. "/a"))
    local whole = read(folder .. "/a.gz")
    for n = 2, #whole - 1 do
      local text, message, status = slurp(write(folder .. "/cut.gz", whole:sub(1, n)))
      assert.is_nil(text)
      assert.are.equal(C.MF_EFORMAT, status)
      assert.truthy(message:find("cut.gz", 1, true) and message:find("truncated", 1, true), message)
    end
  end)

  it("refuses a corrupt stream and bytes after its end", function()
    write(folder .. "/a", ("0123456789"):rep(50))
    assert(shell("gzip -n " .. folder .. "/a"))
    local whole = read(folder .. "/a.gz")
    local flipped = whole:sub(1, -6) .. string.char((whole:byte(-5) + 1) % 256) .. whole:sub(-4)
    assert.truthy(select(2, slurp(write(folder .. "/f.gz", whole:sub(1, -9) .. "\1\2\3\4" .. whole:sub(-4)))):find "corrupt")
    assert.truthy(select(2, slurp(write(folder .. "/f.gz", flipped))):find "corrupt")
    assert.truthy(select(2, slurp(write(folder .. "/g.gz", whole .. "tail"))):find "no gzip")
  end)

  it("stops at the limit, plain or inflated, and allows exactly it", function()
    assert(shell(("head -c 3000000 /dev/zero | gzip > %s/bomb.gz"):format(folder)))
    assert.are.equal(3000000, #slurp(folder .. "/bomb.gz", 3000000))
    local text, message = slurp(folder .. "/bomb.gz", 2999999)
    assert.is_nil(text)
    assert.truthy(message:find("limit of 2999999 bytes", 1, true), message)
    write(folder .. "/plain", ("x"):rep(100))
    assert.are.equal(100, #slurp(folder .. "/plain", 100))
    assert.truthy(select(2, slurp(folder .. "/plain", 99)):find("limit of 99 bytes", 1, true))
  end)

  it("names a file that is absent, and a folder", function()
    local _, message, status = slurp(folder .. "/none")
    assert.are.equal(C.MF_EIO, status)
    assert.truthy(message:find("none", 1, true) and message:find("No such file", 1, true))
    assert.truthy(select(2, slurp(folder)):find("directory", 1, true))
  end)
end)

describe("SHA-256", function()
  it("is that of FIPS 180-4, at every length around a block's end", function()
    local million = ("a"):rep(1000000)
    for text, hash in pairs {
      [""] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
      [million] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
    } do
      assert.are.equal(hash, files.sha256_of(text))
      assert.are.same({ hash, #text }, { files.sha256(write(folder .. "/x", text)) })
    end
    for n = 50, 130 do
      local path = write(folder .. "/x", ("b"):rep(n))
      local pipe = io.popen("sha256sum < " .. path)
      assert.are.equal(pipe:read "*l":sub(1, 64), files.sha256_of(("b"):rep(n)))
      pipe:close()
    end
  end)

  it("is of a part of a file where asked, and says what is missing", function()
    local path = write(folder .. "/x", "0123456789")
    assert.are.same({ files.sha256_of "345", 3 }, { files.sha256(path, 3, 3) })
    assert.are.same({ files.sha256_of "89", 2 }, { files.sha256(path, 8) })
    local none, message = files.sha256(path, 8, 3)
    assert.is_nil(none)
    assert.truthy(message:find("ends 1 bytes before byte 11", 1, true), message)
    assert.truthy(select(2, files.sha256(folder .. "/none")):find("No such file", 1, true))
    assert.truthy(select(2, files.sha256(folder)):find("directory", 1, true))
  end)
end)

describe("replacing files", function()
  local function replace(path, text) return C.mf_file_replace(path, text, #text) end

  it("writes, replaces, keeps the mode, follows a link and leaves nothing beside", function()
    local path = folder .. "/x"
    assert.are.equal(0, replace(path, "first"))
    assert(shell("chmod 640 " .. path))
    assert(shell(("ln -s x %s/link"):format(folder)))
    assert.are.equal(0, replace(folder .. "/link", "second\0zero"))
    assert.are.equal("second\0zero", read(path))
    assert.are.equal("link\nx\n", listing())
    local pipe = io.popen(("stat -c %%a %s"):format(path))
    assert.are.equal("640\n", pipe:read "*a")
    pipe:close()
  end)

  it("compresses when the name ends in .gz", function()
    local text = ("line of text\n"):rep(50000)
    assert.are.equal(0, replace(folder .. "/x.gz", text))
    assert(shell("gzip -t " .. folder .. "/x.gz"))
    assert.is_true(#read(folder .. "/x.gz") < #text / 50)
    assert.are.equal(text, slurp(folder .. "/x.gz"))
  end)

  it("moves a file over another, keeping its mode and its link", function()
    write(folder .. "/new", "new")
    write(folder .. "/old", "old")
    assert(shell(("chmod 640 %s/old; ln -s old %s/link"):format(folder, folder)))
    files.move(folder .. "/new", folder .. "/link")
    assert.are.equal("new", read(folder .. "/old"))
    assert.are.equal("link\nold\n", listing())
    support.error_matches(function() files.move(folder .. "/none", folder .. "/x") end, "none': No such file", true)
    support.error_matches(function() files.move(folder .. "/old", folder .. "/no/x") end, "No such file", true)
    assert.are.equal("new", read(folder .. "/old"))
  end)

  it("reports a folder that is not there, a folder as target, a full disk", function()
    for path, text in pairs {
      [folder .. "/no/x"] = "No such file", [folder] = "directory", ["/dev/full"] = "No space left",
    } do
      assert.are.equal(C.MF_EIO, replace(path, "text"))
      local message = ffi.string(C.mf_error_text())
      assert.truthy(message:find(path, 1, true) and message:find(text, 1, true), message)
    end
    assert.are.equal("", listing())
  end)

  it("leaves the old file and no temporary when writing breaks off", function()
    local path = write(folder .. "/weights.safetensors", "old")
    local script = write(folder .. "/child.lua", ([[
      local mf = require "moonfold"
      local ok, message = pcall(mf.save, %q, { w = mf.zeros(100000) })
      io.stdout:write(tostring(ok), " ", tostring(message))
    ]]):format(path))
    local program = "LUA_PATH='" .. package.path .. "' MOONFOLD_LIBRARY='" .. binding.library .. "'"
    local pipe = io.popen(("trap '' XFSZ; ulimit -f 20; %s luajit %s 2>&1"):format(program, script))
    local said = pipe:read "*a"
    pipe:close()
    assert.truthy(said:find("^false ") and said:find("File too large", 1, true), said)
    assert.are.equal("old", read(path))
    assert.are.equal("child.lua\nweights.safetensors\n", listing())
  end)
end)

describe("safetensors", function()
  it("returns every type, shape and value it was given", function()
    local path, given = folder .. "/all.safetensors", {}
    for _, dtype in ipairs { "float32", "float64", "bfloat16", "float16", "int32", "int64", "bool" } do
      for _, shape in ipairs { {}, { 1 }, { 0 }, { 31 }, { 3, 0, 2 }, { 5, 7, 2 }, { 1, 2, 1, 2, 1, 2, 1, 2 } } do
        local empty = false
        for _, n in ipairs(shape) do empty = empty or n == 0 end
        local make = empty and mf.zeros or mf.randn
        local x = make(shape, { dtype = "float64" }) * 40
        if dtype == "bool" then x = x:gt(0) else x = x:to(dtype) end
        given[dtype .. "/" .. table.concat(shape, "x")] = x
      end
    end
    mf.save(path, given, { ["k\"ey\n\1"] = "\\ ü €", empty = "" })
    local found, metadata = mf.load(path)
    for name, x in pairs(given) do
      assert.are.equal(x:dtype(), found[name]:dtype(), name)
      assert.are.same(x:shape(), found[name]:shape(), name)
      assert.are.equal(x:bytes(), found[name]:bytes(), name)
      found[name] = nil
    end
    assert.is_nil(next(found))
    assert.are.equal("\\ ü €", metadata["k\"ey\n\1"])
    assert.are.equal("", metadata.empty)
  end)

  it("writes views row-major and begins data at a multiple of 64 bytes", function()
    local x = support.random.normal(5, 3)
    local path = folder .. "/x.safetensors"
    mf.save(path, { a = x:t(), b = support.strided(x), c = mf.ones(3, { dtype = "bool" }) })
    local found = mf.load(path)
    assert.are.same(x:t():totable(), found.a:totable())
    assert.are.same(x:totable(), found.b:totable())
    local text = read(path)
    local length = text:byte(1) + 256 * text:byte(2)
    assert.are.equal(0, (8 + length) % 64)
    assert.are.equal("{", text:sub(9, 9))
    assert.are.equal(8 + length + 2 * 5 * 3 * 8 + 3, #text)
  end)

  it("reads some rows of a tensor", function()
    local x = support.random.normal(7, 2, 3)
    local path = folder .. "/x.safetensors"
    mf.save(path, { x = x })
    local a = mf.archive(path)
    assert.are.same(x:narrow(1, 3, 4):totable(), a:rows("x", 3, 4):totable())
    assert.are.same({ 0, 2, 3 }, a:rows("x", 8, 0):shape())
    support.error_matches(function() a:rows("x", 6, 3) end, "do not fit")
  end)

  it("gives a tensor's bytes whatever its type", function()
    local header = [[{"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},]]
      .. [["b":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[5,6]}}]]
    local a = mf.archive(write(folder .. "/x", safetensors(header, "text\0b")))
    assert.are.equal("text\0", a:bytes "a")
    assert.are.equal("b", a:bytes "b")
    local part = ffi.new "char[2]"
    assert.are.equal(0, C.mf_archive_bytes(part, a.handle, 0, 2, 2))
    assert.are.equal("xt", ffi.string(part, 2))
    assert.are.equal(C.MF_EVALUE, C.mf_archive_bytes(part, a.handle, 0, 4, 2))
    assert.truthy(ffi.string(C.mf_error_text()):find("5 bytes, 2 from byte 5 do not fit", 1, true))
  end)

  it("decodes the escapes of JSON", function()
    local header =
      [[{"a\u00e9\ud83d\ude00\"\\\/\t":{"shape":[],"dtype":"F32","data_offsets":[0,4]}, "__metadata__":{"x":"\u20ac"}}  ]]
    local found, metadata = mf.load(write(folder .. "/x", safetensors(header, "\0\0\128\63")))
    assert.are.equal(1, found["aé😀\"\\/\t"]:item())
    assert.are.equal("€", metadata.x)
  end)

  it("lists types it lacks and refuses their tensors by name", function()
    local header =
      [[{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[2,3]}}]]
    local a = mf.archive(write(folder .. "/x", safetensors(header, "abc")))
    assert.are.equal(2, #a:names())
    support.error_matches(function() a:tensor "a" end, "'a' has dtype U8")
    support.error_matches(function() a:tensor "b" end, "'b' has dtype F8_E4M3")
  end)

  it("refuses a BOOL that is neither 0 nor 1", function()
    local a = mf.archive(write(folder .. "/x", safetensors([[{"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}]], "\1\2")))
    support.error_matches(function() a:tensor "a" end, "BOOL and holds a 2")
  end)

  local function entry(name, dtype, shape, from, to)
    return ('"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%s,%s]}'):format(name, dtype, shape, from, to)
  end
  local good = entry("a", "F32", "2", 0, 8)
  local bad = {
    { "an empty file", "", "too few" },
    { "seven bytes", "1234567", "too few" },
    { "a header past the end", u64(100) .. "{}", "truncated" },
    { "a header past 100 MB", u64(100000001) .. "{}", "at most 100000000" },
    { "a header length past all", ("\255"):rep(8) .. "{}", "not a safetensors file" },
    { "an empty header", safetensors "", "expected '{'" },
    { "a blank first", safetensors " {}", "expected '{'" },
    { "an array", safetensors "[]", "expected '{'" },
    { "no closing brace", safetensors("{" .. good, ("x"):rep(8)), "expected '}'" },
    { "a comma before the brace", safetensors("{" .. good .. ",}", ("x"):rep(8)), "expected '\"'" },
    { "text after the header", safetensors("{" .. good .. "} x", ("x"):rep(8)), "text after" },
    { "a name that does not end", safetensors '{"abc', "does not end" },
    { "an unknown escape", safetensors '{"a\\x":1}', "unknown escape" },
    { "a short \\u", safetensors '{"\\u12":1}', "four hexadecimal" },
    { "half a surrogate pair", safetensors '{"\\ud83d":1}', "surrogate" },
    { "a zero in a name", safetensors '{"\\u0000":1}', "zero character" },
    { "a control character in a name", safetensors '{"a\nb":1}', "control character" },
    { "a name that is not UTF-8", safetensors '{"a\255":1}', "not UTF-8" },
    { "a name twice",
      safetensors("{" .. good .. "," .. entry("a", "F32", "1", 8, 12) .. "}", ("x"):rep(12)), "'a': the name occurs twice" },
    { "an unknown key", safetensors('{"a":{"dtyp":"F32"}}'), "'a': an unknown key" },
    { "a key twice", safetensors('{"a":{"dtype":"F32","dtype":"F32"}}'), "'a': a key occurs twice" },
    { "a key missing", safetensors('{"a":{"dtype":"F32","shape":[]}}'), "'a': dtype, shape or data_offsets is missing" },
    { "a negative size", safetensors("{" .. entry("a", "F32", "-1", 0, 4) .. "}", "1234"), "expected a number" },
    { "a fractional size", safetensors("{" .. entry("a", "F32", "1.0", 0, 4) .. "}", "1234"), "whole number" },
    { "a size past int64", safetensors("{" .. entry("a", "F32", "99999999999999999999", 0, 4) .. "}", "1234"), "too large" },
    { "a shape that overflows",
      safetensors("{" .. entry("a", "F32", "4294967296,4294967296", 0, 4) .. "}", "1234"), "'a': the shape overflows" },
    { "a shape that overflows in bytes",
      safetensors("{" .. entry("a", "F32", "4611686018427387904", 0, 0) .. "}"), "'a': the shape overflows" },
    { "offsets that do not fit the shape",
      safetensors("{" .. entry("a", "F32", "2", 0, 4) .. "}", "1234"), "span 4 bytes, the shape needs 8" },
    { "offsets past the file", safetensors("{" .. good .. "}", "1234"), "'a': data_offsets lie outside" },
    { "offsets that run backwards",
      safetensors("{" .. entry("a", "F32", "0", 8, 0) .. "}", "12345678"), "'a': data_offsets run backwards" },
    { "a hole", safetensors("{" .. good .. "," .. entry("b", "F32", "1", 12, 16) .. "}", ("x"):rep(16)), "'b': unused bytes" },
    { "an overlap", safetensors("{" .. good .. "," .. entry("b", "F32", "1", 4, 8) .. "}", ("x"):rep(8)), "'b': its data overlap" },
    { "bytes at the end", safetensors("{" .. good .. "}", ("x"):rep(9)), "end at byte 8 of 9" },
    { "metadata that are no strings", safetensors '{"__metadata__":{"a":1}}', "expected '\"'" },
    { "a metadata key twice", safetensors '{"__metadata__":{"a":"1","a":"2"}}', "'a' occurs twice" },
    { "metadata twice", safetensors '{"__metadata__":{},"__metadata__":{}}', "__metadata__ occurs twice" },
    { "nine axes", safetensors("{" .. entry("a", "F32", "1,1,1,1,1,1,1,1,1", 0, 4) .. "}", "1234"), "'a' has more than 8 axes" },
  }
  for _, case in ipairs(bad) do
    it("refuses " .. case[1], function()
      local path = write(folder .. "/bad.safetensors", case[2])
      support.error_matches(function() mf.archive(path) end, case[3], true)
      support.error_matches(function() mf.archive(path) end, "bad.safetensors", true)
    end)
  end

  it("refuses every file cut short", function()
    local path = folder .. "/x.safetensors"
    mf.save(path, { a = mf.ones(3), b = mf.ones(2, 2, { dtype = "int64" }) }, { k = "v" })
    local whole = read(path)
    for n = 0, #whole - 1 do
      local cut = write(folder .. "/cut", whole:sub(1, n))
      assert.is_false((pcall(mf.archive, cut)), "accepted the first " .. n .. " bytes")
    end
  end)

  it("gives back all memory when an allocation fails", function()
    local path = folder .. "/x.safetensors"
    mf.save(path, { a = mf.ones(3) })
    local box, out = ffi.new "mf_archive *[1]", ffi.new "mf_tensor *[1]"
    assert.are.equal(0, C.mf_archive_open(box, path))
    local before = support.live_bytes()
    for nth = 1, 20 do
      C.mf_memory_fail_at(binding.ctx, nth)
      local status = C.mf_archive_tensor(out, box[0], binding.ctx, 0)
      C.mf_memory_fail_at(binding.ctx, 0)
      if status == 0 then
        C.mf_tensor_release(out[0])
        assert.is_true(nth > 1)
        break
      end
      assert.are.equal(C.MF_ENOMEM, status)
      assert.is_true(out[0] == nil)
    end
    assert.are.equal(before, support.live_bytes())
    C.mf_archive_close(box[0])
  end)
end)
