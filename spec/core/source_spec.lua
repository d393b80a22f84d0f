-- Bytes as they come: what readers make of a file does not depend on whether it is plain, gzip, in memory or a part of
-- another, nor on how it comes in; what is past a limit is refused as it is read (bombs: hostile_spec.lua).
local ffi = require "ffi"
local mf = require "moonfold"
local structure = require "moonfold.structure_file"
local support = require "spec.support"

local folder
local shell, read = support.shell, support.read_file

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

-- Some 300 KB: more than what is read ahead and than the window.
local function text_of(rows)
  local lines = { "data_x", "loop_", "_a.n", "_a.s" }
  for i = 1, rows do lines[#lines + 1] = i .. " 'row number " .. i .. "'" end
  return table.concat(lines, "\n") .. "\n"
end

local function count(file) return file.x:category("_a").rows, file.x:category("_a"):value(7, "s") end

describe("a source", function()
  it("is a file, gzip of one or two members, memory, or a pipe", function()
    local text = text_of(12000)
    local path = write("x.cif", text)
    local two = "head -c 200000 x.cif | gzip > two.gz && tail -c +200001 x.cif | gzip >> two.gz"
    assert(shell(("cd %s && gzip -k x.cif && %s"):format(folder, two)))
    for _, file in ipairs {
      mf.cif.read(path), mf.cif.read(path .. ".gz"), mf.cif.read(folder .. "/two.gz"), mf.cif.parse(text),
      mf.cif.parse(read(path .. ".gz")), mf.cif.parse(read(folder .. "/two.gz")),
    } do assert.are.same({ 12000, "row number 7" }, { count(file) }) end
    assert(shell(("cd %s && mkfifo pipe && (cat x.cif.gz > pipe &)"):format(folder)))
    assert.are.same({ 12000, "row number 7" }, { count(mf.cif.read(folder .. "/pipe")) })
  end)

  it("is a part of a file, plain or gzip, and nothing outside it", function()
    local pdb = "ATOM      1  CA  GLY A   1       1.000   2.000   3.000  1.00  0.00           C\nEND\n"
    write("s.pdb", pdb)
    assert(shell(("gzip -k %s/s.pdb"):format(folder)))
    local zipped = read(folder .. "/s.pdb.gz")
    for _, part in ipairs { pdb, zipped } do
      local path = write("x", pdb:rep(3) .. part .. "\31\139" .. pdb)
      assert.are.equal(1, structure.read(path, { offset = 3 * #pdb, bytes = #part }):counts().atoms)
      assert.error_matches(function() structure.read(path, { offset = 3 * #pdb, bytes = 10 * #pdb }) end, "x': ", 1, true)
    end
    local path = write("y", pdb)
    assert.error_matches(function() structure.read(path, { bytes = 1000 }) end,
      ("the file ends %d bytes before the part that was asked for"):format(1000 - #pdb), 1, true)
  end)

  it("is refused past its limit while it is read, and up to it is not", function()
    local path = write("x.cif", text_of(12000))
    local bytes = #read(path)
    assert(shell("gzip -k " .. path))
    for _, name in ipairs { path, path .. ".gz" } do
      assert.are.equal(12000, (count(mf.cif.read(name, bytes))))
      assert.error_matches(function() mf.cif.read(name, bytes - 1) end, "more than the limit of " .. bytes - 1 .. " bytes", 1, true)
    end
  end)

  it("refuses a gzip stream that is cut, corrupt or followed by something else, wherever that is noticed", function()
    local path = write("x.cif", text_of(12000))
    assert(shell("gzip -nk " .. path))
    local zipped = read(path .. ".gz")
    for n = 2, #zipped - 1, 97 do
      assert.error_matches(function() mf.cif.parse(zipped:sub(1, n)) end, "the gzip stream is truncated", 1, true)
    end
    assert.error_matches(function() mf.cif.parse(zipped .. "tail") end, "bytes after the gzip stream", 1, true)
    assert.are.equal(12000, (count(mf.cif.parse(zipped .. ("\0"):rep(1000)))))
    local wrong = zipped:sub(1, -9) .. string.char((zipped:byte(-8) + 1) % 256) .. zipped:sub(-7)
    assert.error_matches(function() mf.cif.parse(wrong) end, "corrupt gzip stream (incorrect data check)", 1, true)
  end)
end)

describe("decimal numbers", function()
  it("are the nearest doubles, of any length", function()
    local lines = { "data_x loop_" }
    for item in ("id type_symbol label_atom_id label_comp_id label_asym_id Cartn_x Cartn_y Cartn_z"):gmatch "%S+" do
      lines[#lines + 1] = "_atom_site." .. item
    end
    local numbers = {
      "0", "-0.001", "+3.140", ".75", "85.", "3.e08", "1.7e+3", "-003.1", "123456789.123456", "0.1234567890123456789",
      "9007199254740993", "9007199254740992.9999999999999999", "1e22", "1e23", "8.5e-300", "4.9e-324", "2.2250738585072011e-308",
      "1.7976931348623157e308", "0." .. ("0"):rep(400) .. "1e390", ("9"):rep(300), "5e-400",
      "1." .. ("0"):rep(900) .. "1", "123.456(12)", "1.5e3(2)",
    }
    local seed = 99
    for _ = 1, 3000 do
      seed = (seed * 1103515245 + 12345) % 2147483648
      local digits = ("%d%09d"):format(seed, seed * 7 % 1000000007):sub(1, 1 + seed % 19)
      local place = seed % (#digits + 1)
      numbers[#numbers + 1] = digits:sub(1, place) .. "." .. digits:sub(place + 1)
    end
    for i, number in ipairs(numbers) do lines[#lines + 1] = ("%d C C%d LIG A %s 0 0"):format(i, i, number) end
    local s = structure.parse(table.concat(lines, "\n"))
    local atoms = s:residue_atoms(1)
    assert.are.equal(#numbers, #atoms)
    ffi.cdef "double strtod(const char *text, char **end);"
    for i, number in ipairs(numbers) do
      local wanted = ffi.C.strtod((number:gsub("%(.*", "")), nil)
      if wanted ~= atoms[i].x then error(("%s: %.17g, not %.17g"):format(number, atoms[i].x, wanted)) end
    end
  end)

  it("are refused where they are none, or not finite", function()
    local wrong = "1-0 1.2.3 e5 '.' - 1e 1e5x nan inf 1e999 0x10 1.5( 1.5() 1.5(2)3 1,5"
    for number in wrong:gmatch "%S+" do
      local text = "data_x _atom_site.id 1 _atom_site.label_atom_id C _atom_site.Cartn_x 1 _atom_site.Cartn_z 1 _atom_site.Cartn_y "
        .. number
      assert.error_matches(function() structure.parse(text) end, "is not a finite number", 1, true)
    end
  end)
end)
