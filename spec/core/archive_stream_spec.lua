-- Archives written piece by piece: the same file as at once, whatever the order of the pieces; never half a file.
local ffi = require "ffi"
local mf = require "moonfold"
local archive = require "moonfold.archive"
local support = require "spec.support"
local read = support.read_file

local folder
before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(support.shell("mkdir " .. folder))
end)
after_each(function() support.shell("rm -rf " .. folder) end)

local function listing()
  local pipe = io.popen("ls -A " .. folder)
  local text = pipe:read "*a"
  pipe:close()
  return text
end

describe("an archive stream", function()
  it("gives the file that writing at once gives, in any order of any pieces", function()
    support.seed(3)
    local n = 40000                                            -- 12 and 1 bytes a row: past the buffers, and within
    local x = support.random.normal(n, 3):float()
    local c = support.random.index(9, n):int()
    local tensors = { a = x, b = x:select(2, 1):gt(0), c = c, d = mf.zeros(0, 2), e = mf.full({}, 3) }
    local once, pieces = folder .. "/once.safetensors", folder .. "/pieces.safetensors"
    mf.save(once, tensors, { k = "v", l = "w\n\"" })
    local declared = {}
    for i, name in ipairs { "a", "b", "c", "d", "e" } do
      declared[i] = { name = name, dtype = tensors[name]:dtype(), shape = tensors[name]:shape() }
    end
    local s = archive.stream(pieces, declared, { k = "v", l = "w\n\"" })
    local rng, at, open = mf.rng(9), { a = 1, b = 1, c = 1 }, { "a", "b", "c" }
    s:append("e", tensors.e)
    while #open > 0 do
      local k = 1 + math.floor(rng:number() * #open)
      local name = open[k]
      local count = math.min(math.floor(rng:number() ^ 3 * 9000), n + 1 - at[name])
      local rows = tensors[name]:narrow(1, at[name], count)
      if rng:number() < 0.5 then s:append(name, rows) else s:put(name, rows:contiguous():bytes()) end
      at[name] = at[name] + count
      if at[name] > n then table.remove(open, k) end
    end
    s:commit()
    assert.equal(read(once), read(pieces))
    support.error_matches(function() s:append("a", x) end, "was committed", true)
  end)

  it("copies rows of an archive and keeps texts", function()
    local x = support.random.normal(10, 2, 2):float()
    mf.save(folder .. "/x", { x = x })
    local from = mf.archive(folder .. "/x")
    local s = archive.stream(folder .. "/y",
      { { name = "x", dtype = "float32", shape = { 5, 2, 2 } }, { name = "t", dtype = "bytes", shape = { 7 } } })
    s:copy("x", from, 8, 3)
    s:put("t", "four")
    s:copy("x", from, 1, 2)
    s:put("t", "six")
    s:commit()
    local y = mf.archive(folder .. "/y")
    support.same_bits(mf.cat({ x:narrow(1, 8, 3), x:narrow(1, 1, 2) }, 1), y:tensor "x")
    assert.equal("foursix", y:bytes "t")
  end)

  it("says what does not fit, and leaves the old file", function()
    local path = folder .. "/x"
    mf.save(path, { x = mf.zeros(3) })
    local before = read(path)
    local function declared() return archive.stream(path, { { name = "x", dtype = "float32", shape = { 4, 3 } } }) end
    local from = mf.archive(path)
    for _, row in ipairs {
      { "rows F64 (4, 3) do not fit tensor 'x', F32 (4, 3)", function(s) s:append("x", mf.zeros(4, 3):double()) end },
      { "rows F32 (4, 2) do not fit", function(s) s:append("x", mf.zeros(4, 2)) end },
      { "rows F32 (3) do not fit", function(s) s:copy("x", from, 1, 3) end },
      { "takes 48 bytes, 36 are there and 24 come", function(s)
        s:append("x", mf.zeros(3, 3))
        s:append("x", mf.zeros(2, 3))
      end },
      { "tensor 'x' has 12 bytes of 48", function(s)
        s:append("x", mf.zeros(1, 3))
        s:commit()
      end },
      { "no tensor 'y' was declared", function(s) s:put("y", "") end },
      { "takes 48 bytes, 0 are there and 49 come", function(s) s:put("x", ("."):rep(49)) end },
    } do
      local s = declared()
      support.error_matches(function() row[2](s) end, row[1], true)
      s:abandon()
      s:abandon()
      assert.equal(before, read(path))
    end
    assert.equal("x\n", listing())
    support.error_matches(function()
      archive.stream(path, { { name = "x", dtype = "float3", shape = {} } })
    end, "unknown dtype", true)
    support.error_matches(function()
      local x = { name = "x", dtype = "bool", shape = { 1 } }
      archive.stream(path, { x, x }):put("x", "\1")
    end, "the name 'x' occurs twice", true)
    collectgarbage()
    assert.equal("x\n", listing())
  end)

  it("declares before rows, and is not for .gz", function()
    local C = require("moonfold.ffi").C
    local box, one = ffi.new "mf_archive_stream *[1]", ffi.new("int64_t[1]", 1)
    assert.equal(0, C.mf_archive_stream_open(box, folder .. "/x"))
    assert.equal(0, C.mf_archive_stream_declare(box[0], "x", C.MF_BOOL, 1, one))
    assert.equal(C.MF_EVALUE, C.mf_archive_stream_declare(box[0], "__metadata__", C.MF_BOOL, 1, one))
    assert.equal(C.MF_EDTYPE, C.mf_archive_stream_declare(box[0], "y", 99, 1, one))
    assert.equal(C.MF_EVALUE, C.mf_archive_stream_put(box[0], 1, "a", 1))
    assert.equal(0, C.mf_archive_stream_put(box[0], 0, "\1", 1))
    assert.equal(C.MF_ESTATE, C.mf_archive_stream_declare(box[0], "y", C.MF_BOOL, 1, one))
    assert.equal(C.MF_ESTATE, C.mf_archive_stream_metadata(box[0], "y", "z"))
    assert.equal(0, C.mf_archive_stream_commit(box[0]))
    support.error_matches(function() mf.save(folder .. "/x.gz", { x = mf.zeros(3) }) end, "a name without .gz", true)
    assert.equal("x\n", listing())
  end)

  it("a full disk leaves the old file and nothing else", function()
    local script = ([[
      local mf, archive = require "moonfold", require "moonfold.archive"
      local s = archive.stream("%s/x", { { name = "x", dtype = "float32", shape = { 1000000 } } })
      local ok, message = pcall(function()
        for _ = 1, 100 do s:append("x", mf.zeros(10000)) end
        s:commit()
      end)
      s:abandon()
      print(ok, message)
    ]]):format(folder)
    mf.save(folder .. "/x", { x = mf.ones(3) })
    local before = read(folder .. "/x")
    -- a write past the limit of sizes fails as one on a full disk does; trap '' lets it return an error
    local p = require("moonfold.process").start(
      { "sh", "-c", [[trap '' XFSZ; ulimit -f 1000; exec luajit -e "$0"]], script },
      { LUA_PATH = package.path, MOONFOLD_LIBRARY = require("moonfold.ffi").library })
    local line = p:lines()()
    assert.is_truthy(line and line:find("false", 1, true) and line:find("File too large", 1, true), (line or "") .. p:errors())
    assert.equal(0, p:wait())
    assert.equal(before, read(folder .. "/x"))
    assert.equal("x\n", listing())
    support.error_matches(function() mf.save("/dev/full", { x = mf.zeros(100000) }) end, "No space left", true)
  end)
end)
