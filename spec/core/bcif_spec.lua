-- BinaryCIF: real files, encoded in every way that the format has, give what their text gives; counts, sizes and nesting
-- that no file can mean are refused before memory is taken for them.
local mf = require "moonfold"
local bcif = require "spec.support.bcif"
local structure = require "moonfold.structure_file"
local text_of = require "spec.support.structure_text"

local function parse(data) return mf.cif.parse(data, "x.bcif") end

-- A file of one category with one row for each value.
local function one(data, rows, mask)
  local column = { name = "v", data = data, mask = mask }
  return bcif.file { { header = "X", categories = { { name = "_a", rowCount = rows, columns = { column } } } } }
end

local function decoded(data, rows, mask) return parse(one(data, rows, mask)).X:column "_a.v" end

local function refused(data, ...)
  local ok, message = pcall(parse, data)
  assert.is_false(ok, "was read")
  for _, wanted in ipairs { "x.bcif", ... } do assert.truthy(message:find(wanted, 1, true), message) end
end

local function bytes(type) return { kind = "ByteArray", type = type } end

describe("BinaryCIF numbers", function()
  local cases = {
    { 1, { -128, 0, 127 } }, { 2, { -32768, 1, 32767 } }, { 3, { -2147483648, 2, 2147483647 } }, { 4, { 0, 128, 255 } },
    { 5, { 0, 40000, 65535 } }, { 6, { 0, 3000000000, 4294967295 } }, { 32, { -1.5, 0, 1024.25 } },
    { 33, { -1 / 3, 0, 1e300 } },
  }
  for _, case in ipairs(cases) do
    it("are arrays of bytes of type " .. case[1], function()
      local file = parse(one(bcif.numbers(case[2], { bytes(case[1]) }), 3))
      assert.are.same(case[2], file.X:column "_a.v")
      assert.are.equal(case[1] >= 32 and "real" or "integer", file.X:category("_a"):kind(1, "v"))
    end)
  end

  local lists = {
    { 0 }, { 5, 5, 5, 5, -3, -3, 127, 128, -128, -129, 255, 256, 0 }, { 1, 2, 3, 4, 5, 6, 7, 8, 1000, 70000 },
    { 32767, 32768, -32768, -32769, 65535, 65536, 1000000, -1000000 },
  }
  local whole = {
    { { kind = "IntegerPacking", byteCount = 1 } }, { { kind = "IntegerPacking", byteCount = 2 } },
    { { kind = "Delta" }, bytes(3) }, { { kind = "RunLength" }, bytes(3) },
    { { kind = "Delta" }, { kind = "RunLength" }, { kind = "IntegerPacking", byteCount = 1 } },
    { { kind = "RunLength" }, { kind = "Delta" }, { kind = "IntegerPacking", byteCount = 2 } },
  }
  for i, encodings in ipairs(whole) do
    it("are whole, in chain " .. i, function()
      for _, list in ipairs(lists) do assert.are.same(list, decoded(bcif.numbers(list, encodings), #list)) end
      local positive = { 0, 254, 255, 256, 65534, 65535, 65536, 400 }
      assert.are.same(positive, decoded(bcif.numbers(positive, encodings), #positive))
    end)
  end

  it("are decimals: the double nearest to what was written", function()
    local list = {}
    for i = 1, 2000 do list[i] = tonumber(("%.3f"):format((i * 7919 % 200003 - 100000) / 1000)) end
    for _, encodings in ipairs {
      { { kind = "FixedPoint", factor = 1000 }, bytes(3) },
      { { kind = "FixedPoint", factor = 1000 }, { kind = "Delta" }, { kind = "IntegerPacking", byteCount = 2 } },
    } do assert.are.same(list, decoded(bcif.numbers(list, encodings), #list)) end
  end)

  it("are steps of an interval", function()
    local list = decoded(bcif.numbers({ 0, 0.25, 1, 0.74 }, {
      { kind = "IntervalQuantization", min = 0, max = 1, numSteps = 5 }, { kind = "IntegerPacking", byteCount = 1 },
    }), 4)
    assert.are.same({ 0, 0.25, 1, 0.75 }, list)
  end)
end)

describe("BinaryCIF strings and masks", function()
  local list = { "ALA", "", "GLY", "ALA", "it's", "\195\165ngstr\195\182m \240\159\167\172!", "GLY", "two\nlines" }

  it("are slices of one text, in units of UTF-16", function()
    local packing = { { kind = "Delta" }, { kind = "RunLength" }, { kind = "IntegerPacking", byteCount = 1 } }
    for _, o in ipairs { {}, { indices = packing, offsets = packing } } do
      assert.are.same(list, decoded(bcif.strings(list, o), #list))
    end
  end)

  it("may be absent, . or ?", function()
    local file = parse(one(bcif.strings(list), #list, bcif.mask { 0, 1, 2, 0, 0, 0, 0, 1 }))
    local found, kinds = file.X:category "_a", {}
    for row = 1, found.rows do kinds[row] = found:kind(row, "v") end
    assert.are.same({ "ALA", false, false, "ALA", "it's", list[6], "GLY", false }, found:column "v")
    assert.are.same({ "text", "inapplicable", "unknown", "text", "text", "text", "text", "inapplicable" }, kinds)
    assert.are.same({ 1, false, 3 }, decoded(bcif.numbers({ 1, 0, 3 }, { bytes(3) }), 3, bcif.mask { 0, 2, 0 }))
  end)

  it("of no rows are no values, and the empty string has no number", function()
    assert.are.same({}, decoded(bcif.strings {}, 0))
    local data = bcif.strings { "a" }
    data.data = bcif.bytes "\255\255\255\255\0\0\0\0"
    assert.are.same({ "", "a" }, decoded(data, 2))
  end)
end)

-- A file of text as BinaryCIF: `encode` makes the data of a column from its values and kinds.
local function encoded(file, encode)
  local blocks = {}
  for _, b in ipairs(file.blocks) do
    local categories = {}
    for _, c in ipairs(b.categories) do
      local columns = {}
      for i, name in ipairs(c.columns) do
        local values, mask, some = {}, {}, false
        for row = 1, c.rows do
          local kind = c:kind(row, name)
          values[row] = c:value(row, name) or "."
          mask[row] = kind == "inapplicable" and 1 or kind == "unknown" and 2 or 0
          some = some or mask[row] > 0
        end
        columns[i] = { name = name, data = encode(name, values, mask), mask = some and bcif.mask(mask) or nil }
      end
      categories[#categories + 1] = { name = c.name, rowCount = c.rows, columns = columns }
    end
    blocks[#blocks + 1] = { header = b.name, categories = categories }
  end
  return bcif.file(blocks)
end

-- Numbers as chains that change from column to column; what is not all numbers of few decimals stays strings.
local function mixed()
  local turn = 0
  local chains = {
    { { kind = "IntegerPacking", byteCount = 1 } }, { { kind = "Delta" }, { kind = "IntegerPacking", byteCount = 2 } },
    { { kind = "RunLength" }, { kind = "IntegerPacking", byteCount = 2 } }, { bytes(3) },
    { { kind = "Delta" }, { kind = "RunLength" }, { kind = "IntegerPacking", byteCount = 1 } },
  }
  return function(_, values, mask)
    turn = turn + 1
    local numbers, decimals = {}, 0
    for row, text in ipairs(values) do
      local places = text:match "^%-?%d+$" and 0 or #(text:match "^%-?%d+%.(%d+)$" or "")
      numbers[row] = mask[row] > 0 and 0 or (text:match "^%-?%d+$" or places > 0) and tonumber(text)
      decimals = math.max(decimals, mask[row] > 0 and 0 or places)
      if not numbers[row] or math.abs(numbers[row]) * 10 ^ decimals > 2e9 then
        return bcif.strings(values, { indices = chains[turn % #chains + 1], offsets = chains[(turn + 1) % #chains + 1] })
      end
    end
    local chain = { unpack(chains[turn % #chains + 1]) }
    if decimals > 0 then table.insert(chain, 1, { kind = "FixedPoint", factor = 10 ^ decimals }) end
    return bcif.numbers(numbers, chain)
  end
end

local SMALL = "data_T\nloop_\n_entity.id _entity.type _entity.pdbx_description\n1 polymer 'An mRNA'\n2 water .\n"
  .. "_cell.length_a 10.5 _cell.length_b 11 _cell.length_c 12 _cell.angle_alpha 90 _cell.angle_beta 91.5 _cell.angle_gamma 90\n"
  .. "loop_\n_atom_site.group_PDB _atom_site.id _atom_site.type_symbol _atom_site.label_atom_id _atom_site.label_alt_id\n"
  .. "_atom_site.label_comp_id _atom_site.label_asym_id _atom_site.label_entity_id _atom_site.label_seq_id\n"
  .. "_atom_site.Cartn_x _atom_site.Cartn_y _atom_site.Cartn_z _atom_site.occupancy\n"
  .. "_atom_site.auth_seq_id _atom_site.auth_asym_id\n"
  .. "ATOM 1 P P . G A 1 1 1.125 -2.25 3 1 -5 X\nATOM 2 C \"C4'\" A G A 1 1 4.001 5.002 -6.003 0.5 -5 X\n"
  .. "HETATM 3 O O . HOH B 2 . 7 8 9 1 101 X\n"

describe("mmCIF as BinaryCIF", function()
  local function check(file, s)
    for _, encode in ipairs { mixed(), function(_, values) return bcif.strings(values) end } do
      local data = encoded(file, encode)
      local back = parse(data)
      for i, b in ipairs(file.blocks) do
        for k, c in ipairs(b.categories) do
          local other = back[i].categories[k]
          assert.are.same(c.columns, other.columns)
          for _, name in ipairs(c.columns) do
            for row = 1, c.rows do
              local value, found = c:value(row, name), other:value(row, name)
              local same = value == found or (type(found) == "number" and tonumber(value) == found)
              if not same or (value == false and c:kind(row, name) ~= other:kind(row, name)) then
                error(("%s.%s row %d: %s is now %s"):format(c.name, name, row, tostring(value), tostring(found)))
              end
            end
          end
        end
      end
      if s then assert.are.equal(text_of(s), text_of(structure.parse(data))) end
    end
  end

  it("gives the same values and the same structure", function()
    check(mf.cif.parse(SMALL), structure.parse(SMALL))
    local s = structure.parse(encoded(mf.cif.parse(SMALL), mixed()))
    assert.are.same({ 1, 2, 3 }, { #s:chains(), #s:residues(1), s:counts().atoms })
  end)

  it("takes no tag for another that it begins with and a zero ends", function()
    local column = { name = "Cartn_x\0 and much more than the name of any item", data = bcif.numbers({ 1 }, { bytes(3) }) }
    local data = bcif.file { { header = "X", categories = { { name = "_atom_site", rowCount = 1, columns = { column } } } } }
    assert.error_matches(function() structure.parse(data) end, "_atom_site has no Cartn_x", 1, true)
  end)

  it("does without the columns that need not be there", function()
    local few = "data_x\n_atom_site.label_atom_id CA\n_atom_site.Cartn_x 1\n_atom_site.Cartn_y 2\n_atom_site.Cartn_z 3\n"
    check(mf.cif.parse(few), structure.parse(few))
  end)

  it("does so for whole entries", function()
    local names, some = { "protein/102m", "rna/1kfo", "rna/6e7l", "edge/4zhl" }, false
    for _, name in ipairs(names) do
      local path = "../shared/data/" .. name .. ".cif.gz"
      if mf.files.exists(path) then
        some = true
        check(mf.cif.read(path), structure.read(path))
      end
    end
    if not some then pending "no ../shared/data" end
  end)
end)

describe("BinaryCIF refuses", function()
  local function chain(list, encodings, rows) return one(bcif.numbers(list, encodings), rows or #list) end
  local three = { 1, 2, 3 }
  for _, case in ipairs {
    { "a map that is no file", bcif.pack { version = "1" }, "no dataBlocks" },
    { "another type in a place", bcif.pack { dataBlocks = 5 }, "byte 12", "dataBlocks is not an array" },
    { "more values in a list than bytes", "\129\170dataBlocks\221\255\255\255\255", "more values than the file bytes" },
    { "a text longer than the file", "\129\219\255\255\255\255", "longer than the file" },
    { "what is no MessagePack", "\129\161x\193", "begins with this byte" },
    { "nesting past 32", "\129\161x" .. ("\145"):rep(100000) .. "\192", "nested more than 32 deep" },
    { "fewer values than rows", chain(three, { bytes(3) }, 4), "_a.v", "fewer values than rows" },
    { "more values than rows", chain(three, { bytes(3) }, 2), "_a.v", "more values than rows" },
    { "a billion rows", chain({ 1 }, { { kind = "RunLength", srcSize = 1e9 }, bytes(3) }, 1e9), "more than the limit" },
    { "ten billion rows", chain({ 1 }, { { kind = "RunLength", srcSize = 1e10 }, bytes(3) }, 1e10), "more than the limit" },
    { "a run longer than its srcSize", chain({ 7, 7, 7 }, { { kind = "RunLength", srcSize = 2 }, bytes(3) }),
      "more values than its" },
    { "runs that end before their srcSize", chain({ 7, 7 }, { { kind = "RunLength", srcSize = 3 }, bytes(3) }, 3), "ends before" },
    { "a run of less than none", one({
      data = bcif.bytes "\5\255", encoding = { { kind = "RunLength", srcSize = 1, srcType = 3 }, bytes(1) },
    }, 1), "more values than its srcSize" },
    { "packing that ends in a sum", one({
      data = bcif.bytes "\1\127",
      encoding = { { kind = "IntegerPacking", byteCount = 1, srcSize = 2, isUnsigned = false }, bytes(1) },
    }, 2), "IntegerPacking ends" },
    { "packing of three bytes", chain(three, { { kind = "IntegerPacking", byteCount = 3 }, bytes(3) }), "byteCount than 1 or 2" },
    { "sums past 32 bits", chain({ 1, 3e9 }, { { kind = "Delta", origin = 2e9 }, bytes(6) }), "more than 32 bits" },
    { "an unknown type of bytes", (chain(three, { bytes(33) }, 3):gsub("\164type\33", "\164type\7")), "unknown type" },
    { "half a value", one({ data = bcif.bytes "\1\2\3", encoding = { bytes(2) } }, 1), "no whole number of values" },
    { "data without ByteArray", one({ data = bcif.bytes "\1", encoding = { { kind = "Delta" } } }, 1), "not ByteArray" },
    { "an unknown encoding", one({ data = bcif.bytes "\1", encoding = { { kind = "Zip" }, bytes(1) } }, 1), "unknown encoding" },
    { "nine encodings", one({ data = bcif.bytes "\1", encoding = {
      { kind = "Delta" }, { kind = "Delta" }, { kind = "Delta" }, { kind = "Delta" }, { kind = "Delta" }, { kind = "Delta" },
      { kind = "Delta" }, { kind = "Delta" }, bytes(1),
    } }, 1), "longer than 8" },
    { "a factor of nothing", (chain(three, { { kind = "FixedPoint", factor = 1 }, bytes(3) }):gsub("factor\1", "factor\0")),
      "without a factor" },
    { "a mask of something else", one(bcif.numbers(three, { bytes(3) }), 3, bcif.mask { 0, 3, 0 }), "a mask other than" },
    { "a category without rowCount", bcif.file { { header = "X", categories = { { name = "_a", columns = {} } } } }, "rowCount" },
    { "a column without data", bcif.file { { header = "X", categories = {
      { name = "_a", rowCount = 0, columns = { { name = "v" } } },
    } } }, "a column without name or data" },
    { "a column twice", bcif.file { { header = "X", categories = { { name = "_a", rowCount = 3, columns = {
      { name = "v", data = bcif.numbers(three, { bytes(3) }) }, { name = "V", data = bcif.numbers(three, { bytes(3) }) },
    } } } } }, "_a.V is given twice" },
  } do
    it(case[1], function() refused(case[2], unpack(case, 3)) end)
  end

  for name, change in pairs {
    ["a number past the strings"] = function(e) e.data = bcif.bytes "\9\0\0\0" end,
    ["offsets past the text"] = function(e) e.encoding[1].stringData = "" end,
    ["offsets out of order"] = function(e)
      e.encoding[1].offsets = bcif.bytes "\3\0\0\0\1\0\0\0"
    end,
    ["a zero byte in a string"] = function(e) e.encoding[1].stringData = "a\0c" end,
    ["text that is not UTF-8"] = function(e) e.encoding[1].stringData = "a\255c" end,
  } do
    it(name, function()
      local data = bcif.strings { "abc" }
      change(data)
      refused(one(data, 1), "_a.v")
    end)
  end

  it("no file by a crash, wherever it is cut or changed", function()
    local data = encoded(mf.cif.parse(SMALL), mixed())
    for n = 1, #data - 1 do assert.is_false((pcall(parse, data:sub(1, n)))) end
    local seed = 12345
    for _ = 1, 3000 do
      local changed = data
      for _ = 1, 3 do
        seed = (seed * 1103515245 + 12345) % 2147483648
        local at = seed % #changed + 1
        changed = changed:sub(1, at - 1) .. string.char(math.floor(seed / 65536) % 256) .. changed:sub(at + 1)
      end
      pcall(parse, changed)
      pcall(structure.parse, changed)
    end
  end)
end)
