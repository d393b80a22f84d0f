-- Tar archives: members by name, offset and bytes, of ustar, pax and GNU, plain and gzip; what is cut or false is refused.
local mf = require "moonfold"
local structure = require "moonfold.structure_file"
local support = require "spec.support"

local folder
local shell = support.shell

before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(shell("mkdir " .. folder))
end)
after_each(function() shell("rm -rf " .. folder) end)

local function write(name, text)
  local file = assert(io.open(folder .. "/" .. name, "wb"))
  file:write(text)
  file:close()
  return folder .. "/" .. name
end

-- A header; o overrides fields, which are text.
local function header(name, size, o)
  o = o or {}
  local function field(text, width) return (text .. ("\0"):rep(width)):sub(1, width) end
  local octal = type(size) == "string" and size or ("%011o\0"):format(size)
  local before = field(name, 100) .. field("0000644\0", 8) .. field("0000000\0", 8) .. field("0000000\0", 8) .. field(octal, 12)
    .. field("00000000000\0", 12)
  local after = field(o.type or "0", 1) .. field(o.link or "", 100) .. field(o.magic or "ustar\00000", 8) .. ("\0"):rep(80)
    .. field(o.prefix or "", 167)
  local sum = 8 * 32
  for byte in (before .. after):gmatch "." do sum = sum + byte:byte() end
  return before .. ("%06o\0 "):format(o.sum or sum) .. after
end

local function padded(text) return text .. ("\0"):rep(-#text % 512) end
local function file(name, text, o) return header(name, #text, o) .. padded(text) end
local function record(key, value)
  local rest = " " .. key .. "=" .. value .. "\n"
  local n = #rest + 1
  while #(n .. rest) ~= n do n = n + 1 end
  return n .. rest
end
local function pax(records) return file("pax", records, { type = "x" }) end
local ENDS = ("\0"):rep(1024)

-- Every member with its data, by both ways where the archive is plain.
local function members(path)
  local list = {}
  for m in mf.files.tar(path) do
    local text = m:read()
    assert.are.equal(m.bytes, #text)
    if m.offset then
      local whole = support.read_file(path)
      assert.are.equal(text, whole:sub(m.offset + 1, m.offset + m.bytes))
    end
    list[#list + 1] = { m.name, text }
  end
  return list
end

local function refused(archive, ...)
  local ok, message = pcall(members, write("x.tar", archive))
  assert.is_false(ok, "was read")
  for _, wanted in ipairs { "x.tar", ... } do assert.truthy(message:find(wanted, 1, true), message) end
end

describe("tar archives", function()
  it("are walked and read, plain and gzip", function()
    local texts = { a = "", b = "one", c = ("0123456789"):rep(300000), d = ("x"):rep(512) }
    local archive, wanted = {}, {}
    for _, name in ipairs { "a", "b", "c", "d" } do
      archive[#archive + 1] = file("dir/" .. name, texts[name])
      wanted[#wanted + 1] = { "dir/" .. name, texts[name] }
    end
    archive = table.concat(archive) .. ENDS
    assert.are.same(wanted, members(write("x.tar", archive)))
    assert(shell(("gzip -k %s/x.tar"):format(folder)))
    assert.are.same(wanted, members(folder .. "/x.tar.gz"))
    local names = {}                                     -- passing over data is no reading of them
    for m in mf.files.tar(folder .. "/x.tar.gz") do
      names[#names + 1] = m.name .. " " .. m.bytes
      assert.is_nil(m.offset)
    end
    assert.are.same({ "dir/a 0", "dir/b 3", "dir/c 3000000", "dir/d 512" }, names)
  end)

  it("are what tar writes, in each of its formats, with long names, links and folders", function()
    local long = ("long_folder_name_"):rep(8) .. "/" .. ("and_a_long_name_"):rep(8) .. ".cif"
    local make = "cd %s && mkdir -p in/$(dirname %s) && echo one > in/%s && echo two > in/b && ln in/b in/hard && ln -s b in/soft"
    assert(shell(make:format(folder, long, long)))
    for _, format in ipairs { "pax", "gnu", "oldgnu", "ustar", "v7" } do
      local names = (format == "v7" or format == "ustar") and "in/b in/soft in/hard" or "in"
      if shell(("cd %s && tar --format=%s -cf %s.tar %s 2>/dev/null"):format(folder, format, format, names)) then
        local found = {}
        for _, m in ipairs(members(folder .. "/" .. format .. ".tar")) do found[m[1]] = m[2] end
        if names == "in" then assert.are.equal("one\n", found["in/" .. long]) end
        assert.are.equal("two\n", found["in/b"] or found["in/hard"])
        assert.is_nil(found["in/soft"])
      else
        error("tar failed")
      end
    end
  end)

  it("tell names and sizes by every way there is", function()
    local archive = file("ustar", "1", { prefix = "a/b" })
      .. file("long", ("n"):rep(300) .. "\0", { type = "L" }) .. file("cut", "2")
      .. pax(record("path", "p/" .. ("q"):rep(200)) .. record("mtime", "1.5")) .. file("cut", "3")
      .. pax(record("size", "4")) .. header("sized", 0) .. padded "four"
      .. file("g", record("comment", "all"), { type = "g" }) .. file("k", "target\0", { type = "K" })
      .. file("old", "5", { magic = "", type = "\0" })
      .. header("binary", "\128\0\0\0\0\0\0\0\0\0\0\6") .. padded "sixsix"
      .. file("spaces", "7", { magic = "ustar  " })
      .. header("folder/", 0, { type = "5" }) .. header("link", 0, { type = "2", link = "x" })
      .. file("odd", "passed over", { type = "V" })
      .. file("last", "8", { type = "7" }) .. ENDS
    assert.are.same({
      { "a/b/ustar", "1" }, { ("n"):rep(300), "2" }, { "p/" .. ("q"):rep(200), "3" }, { "sized", "four" }, { "old", "5" },
      { "binary", "sixsix" }, { "spaces", "7" }, { "last", "8" },
    }, members(write("x.tar", archive)))
  end)

  it("give structures by the offset of a member, or by its data", function()
    local text = "ATOM      1  CA  GLY A   1       1.000   2.000   3.000  1.00  0.00           C\nEND\n"
    write("s.pdb", text)
    assert(shell(("gzip -k %s/s.pdb"):format(folder)))
    local zipped = support.read_file(folder .. "/s.pdb.gz")
    local path = write("x.tar", file("no.txt", "nothing") .. file("s.pdb", text) .. file("s.pdb.gz", zipped) .. ENDS)
    assert(shell(("gzip -k %s"):format(path)))
    local read = 0
    for m in mf.files.tar(path) do
      if m.name:find "pdb" then
        read = read + 1
        assert.are.equal(1, structure.read(path, { offset = m.offset, bytes = m.bytes }):counts().atoms)
      end
    end
    for m in mf.files.tar(path .. ".gz") do
      if m.name == "s.pdb" then
        read = read + 1
        assert.are.equal(1, structure.parse(m:read()):counts().atoms)
      end
    end
    assert.are.equal(3, read)
  end)

  it("give the data of a member once, and at its time", function()
    local path = write("x.tar", file("a", "1") .. file("b", "2") .. ENDS)
    local iterate = mf.files.tar(path)
    local a = iterate()
    assert.are.equal("1", a:read())
    assert.error_matches(function() a:read() end, "has been read", 1, true)
    iterate()
    assert.is_nil(iterate())
    assert.is_nil(iterate())
    assert.error_matches(function() a:read() end, "no member is open", 1, true)
  end)
end)

describe("tar refuses", function()
  for _, case in ipairs {
    { "a file that is none", ("nothing of the kind "):rep(100), "byte 0", "not a tar archive" },
    { "a wrong checksum", file("a", "1", { sum = 77 }) .. ENDS, "byte 0", "the checksum of a header is wrong" },
    { "an empty file", "", "byte 0", "truncated" },
    { "a size that is no number", header("a", "12x45678901\0") .. ENDS, "size of a member" },
    { "a size below 0", header("a", "\255\255\255\255\255\255\255\255\255\255\255\255") .. ENDS, "size of a member" },
    { "a size past all", header("a", "\191\255\255\255\255\255\255\255\255\255\255\255") .. ENDS, "size of a member" },
    { "a member that is promised more than there is", header("a", "\128\0\0\0\0\0\0\0\0\1\0\0") .. "xy", "byte 514", "truncated" },
    { "a member past the limit", header("a", "\128\0\0\0\16\0\0\0\0\0\0\0") .. "xy", "'a'", "limit of 1073741824 bytes" },
    { "a long name of 2 MiB", header("a", 2097152, { type = "L" }) .. ("x"):rep(2097152), "more than 1 MiB" },
    { "a sparse file", header("a", 0, { type = "S" }) .. ENDS, "sparse" },
    { "a sparse file of pax", pax(record("GNU.sparse.major", "1")) .. file("a", "1") .. ENDS, "sparse" },
    { "a pax record without a length", file("p", "path=x\n", { type = "x" }) .. ENDS, "pax record is broken" },
    { "a pax record that is too long", file("p", "99 path=x\n", { type = "x" }) .. ENDS, "pax record is broken" },
    { "a pax record that is too short", file("p", "3 path=x\n", { type = "x" }) .. ENDS, "pax record is broken" },
    { "a pax record without a value", file("p", "7 path\n", { type = "x" }) .. ENDS, "pax record is broken" },
    { "a pax size that is none", pax(record("size", "4x")) .. file("a", "1") .. ENDS, "no size" },
    { "a pax size past all", pax(record("size", ("9"):rep(30))) .. file("a", "1") .. ENDS, "no size" },
  } do
    it(case[1], function() refused(case[2], unpack(case, 3)) end)
  end

  it("an archive that is cut anywhere, or gives the members before", function()
    local archive = pax(record("path", "long")) .. file("a", "one") .. file("b", "two")
    for n = 0, #archive do refused(archive:sub(1, n), "truncated") end
    assert.are.same({ { "long", "one" }, { "b", "two" } }, members(write("x.tar", archive .. ("\0"):rep(512))))
  end)

  it("a path that is none", function()
    assert.error_matches(function() mf.files.tar(folder .. "/none") end, "No such file", 1, true)
    assert.error_matches(function() mf.files.tar(folder) end, "directory", 1, true)
    assert.error_matches(function() mf.files.tar() end, "files.tar: the path is a nil, expected a string", 1, true)
  end)
end)
