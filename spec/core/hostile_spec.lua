-- Files that are made to do harm: what grows without end or nests without end is refused in little memory, what is no number is
-- refused with its place, and no cut of a file is more than an error or a part of it.
local ffi = require "ffi"
local mf = require "moonfold"
local bcif = require "spec.support.bcif"
local structure = require "moonfold.structure_file"
local support = require "spec.support"

local C = require("moonfold.ffi").C
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

-- What a process of its own says when it calls this, and the most memory that it had, in MiB above one that calls nothing.
local function peak(call)
  local function run(body)
    local script = write("child.lua", [[
      local mf, structure = require "moonfold", require "moonfold.structure_file"
      local ok, message = pcall(function() ]] .. body .. [[ end)
      for line in io.lines "/proc/self/status" do
        local kb = line:match "^VmHWM:%s+(%d+)"
        if kb then print(kb, ok, message) end
      end]])
    local pipe = io.popen(("%s/moonfold %s 2>&1"):format(os.getenv "MOONFOLD_BUILD" or "build", script))
    local said = pipe:read "*a"
    pipe:close()
    local kb, ok, message = said:match "^(%d+)%s+(%a+)%s+(.*)$"
    assert(kb, said)
    return kb / 1024, ok == "true", message
  end
  local none = run ""
  local most, ok, message = run(call)
  assert.is_false(ok)
  return most - none, message
end

describe("memory", function()
  -- 10 GB of text in 44 MB of gzip: a member of 100 MB over and over
  local function bomb(name, begin, again)
    local hundred = ("yes '%s' | head -c 100000000"):format(again)
    assert(shell(("cd %s && (printf '%s'; %s) | gzip -1 > one && %s | gzip -1 > more"):format(folder, begin, hundred, hundred)))
    assert(shell(("cd %s && (cat one; for i in $(seq 99); do cat more; done) > %s"):format(folder, name)))
    return folder .. "/" .. name
  end

  it("for a bomb of 10 GB is what its window takes, whoever reads", function()
    local path = bomb("bomb.cif.gz", "data_x\\n", "# a comment")
    for _, call in ipairs { "mf.cif.read('%s')", "structure.read('%s')", "for _ in structure.chains('%s') do end" } do
      local start = C.mf_clock()
      local most, message = peak(call:format(path))
      assert.is_true(C.mf_clock() - start < 60)
      assert.truthy(message:find("inflates to more than the limit of 1073741824 bytes", 1, true), message)
      assert.is_true(most < 16, most .. " MiB")
    end
  end)

  it("for a loop of tags without end is that of 65,536", function()
    local path = write("tags.cif", "data_x\nloop_\n" .. ("_a.b\n"):rep(20000000))
    local most, message = peak(("structure.read('%s')"):format(path))
    assert.truthy(message:find("line 65539: more than 65,536 tags that belong together", 1, true), message)
    assert.is_true(most < 16, most .. " MiB")
  end)

  it("for headers of a billion rows is that of the file", function()
    local data = { data = bcif.numbers({ 1 }, { { kind = "RunLength", srcSize = 1e9 }, { kind = "ByteArray", type = 3 } }).data,
      encoding = { { kind = "RunLength", srcSize = 1e9, srcType = 3 }, { kind = "ByteArray", type = 3 } } }
    local columns = {}
    for i, name in ipairs { "Cartn_x", "Cartn_y", "Cartn_z" } do columns[i] = { name = name, data = data } end
    local path = write("rows.bcif", bcif.file { { header = "X", categories = {
      { name = "_atom_site", rowCount = 1e9, columns = columns } } } })
    for _, call in ipairs { "mf.cif.read('%s')", "structure.read('%s')" } do
      local most, message = peak(call:format(path))
      assert.truthy(message:find("more than the limit", 1, true), message)
      assert.is_true(most < 16, most .. " MiB")
    end
  end)

  it("for brackets without end in a header of safetensors is that of the header, twice", function()
    local n = 20000000
    for open, refusal in pairs {
      ["["] = "byte 5: expected '{'", ['{"a":'] = "tensor 'a': an unknown key", ['{"shape":['] = "expected a number from 0",
    } do
      local header = '{"a":' .. open:rep(math.floor(n / #open))
      local length = ffi.new("uint64_t[1]", #header)
      local path = write("deep.safetensors", ffi.string(length, 8) .. header)
      local most, message = peak(("mf.archive('%s')"):format(path))
      assert.truthy(message:find(refusal, 1, true), message)
      assert.is_true(most < 2 * n / 2 ^ 20 + 16, most .. " MiB")
    end
  end)
end)

describe("a coordinate that is no finite number is refused with its place", function()
  local ROWS = "data_x\nloop_\n_atom_site.label_atom_id\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\n"
  local PDB = "ATOM      1  CA  ALA A   1    "

  for _, word in ipairs { "nan", "NaN", "inf", "-inf", "Infinity", "1e999", "-1e999" } do
    it(word .. " in mmCIF, in PDB", function()
      for column, item in ipairs { "Cartn_x", "Cartn_y", "Cartn_z" } do
        local xyz = { "1", "2", "3" }
        xyz[column] = word
        assert.error_matches(function() structure.parse(ROWS .. "CA 1 2 3\nCB " .. table.concat(xyz, " ") .. "\n") end,
          ("line 8: %s '%s' is not a finite number"):format(item, word), 1, true)
        local fields = ("%8s%8s%8s"):format(unpack(xyz))
        assert.error_matches(function() structure.parse("REMARK\n" .. PDB .. fields .. "\n") end,
          ("line 2: the coordinate '%s' is not a finite number"):format(word), 1, true)
      end
    end)
  end

  it("in BinaryCIF of either width", function()
    for name, x in pairs { ["%-?nan"] = 0 / 0, ["inf"] = math.huge, ["%-inf"] = -math.huge } do
      for type_of, kind in pairs { [32] = "float[3]", [33] = "double[3]" } do
        local raw = ffi.new(kind, { 1, 2, x })
        local bad = { data = bcif.bytes(ffi.string(raw, ffi.sizeof(raw))), encoding = { { kind = "ByteArray", type = type_of } } }
        local good = bcif.numbers({ 1, 2, 3 }, { { kind = "ByteArray", type = 33 } })
        local columns = { { name = "label_atom_id", data = bcif.strings { "CA", "CB", "CG" } }, { name = "Cartn_x", data = good },
          { name = "Cartn_y", data = bad }, { name = "Cartn_z", data = good } }
        local file = bcif.file { { header = "X", categories = { { name = "_atom_site", rowCount = 3, columns = columns } } } }
        support.error_matches(function() structure.parse(file) end, "row 3: Cartn_y '" .. name .. "' is not a finite number")
      end
    end
  end)
end)

describe("a file that is cut at any byte", function()
  it("is refused where it is gzip of a text", function()
    local lines = { "data_x", "loop_", "_a.n", "_a.s" }
    for i = 1, 200 do lines[#lines + 1] = i .. " 'row number " .. i * i .. "'" end
    local path = write("x.cif", table.concat(lines, "\n") .. "\n")
    assert(shell("gzip -nk " .. path))
    local zipped = support.read_file(path .. ".gz")
    for n = 2, #zipped - 1 do
      assert.error_matches(function() mf.cif.parse(zipped:sub(1, n)) end, "the gzip stream is truncated", 1, true)
    end
    assert.are.equal(200, mf.cif.parse(zipped).x:category("_a").rows)
  end)
end)
