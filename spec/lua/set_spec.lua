-- Sets and views of them: who is in, what is read, what they say of themselves; files that are damaged.
local ffi = require "ffi"
local mf = require "moonfold"
local json = require "moonfold.json"
local support = require "spec.support"

local entries = {
  { name = "a", split = "train", resolution = 1.5, method = "X-RAY DIFFRACTION", cluster = 1, helix = 0.5, strand = 0.2,
    coil = 0.3 },
  { name = "b", split = "test", method = "SOLUTION NMR", cluster = 1, resolution = json.null },
  { name = "c", split = "train", resolution = 3.25, method = "ELECTRON MICROSCOPY", cluster = "x", sequence = "ACD\"[{,\\" },
  { name = "d", split = "validation", resolution = 2, method = "X-RAY DIFFRACTION" },
  { name = "e", resolution = 2.5, method = "X-RAY DIFFRACTION", cluster = 1, split = "train" },
}
local lengths = { 30, 12, 30, 50, 7 }

local function items(rng, kind)
  local list, torsions = {}, mf.atoms.of(kind or "protein").torsion_count
  for i, n in ipairs(lengths) do
    list[i] = {
      translations = mf.randn(n, 3, { rng = rng }), rotations = mf.random.rotations(n, { rng = rng }),
      torsions = mf.randn(n, torsions, 2, { rng = rng }), torsion_mask = mf.ones(n, torsions):bool(),
      aatype = (mf.arange(n) * i):float():mul(1 / 3):floor():int(), atoms = mf.randn(n, 4, 3, { rng = rng }),
      atom_mask = mf.rand(n, 4, { rng = rng }):gt(0.3), entry = entries[i],
    }
  end
  return list
end

describe("a set", function()
  local path, list, set
  setup(function()
    path, list = os.tmpname(), items(mf.rng(4))
    list.atom_names = { "N", "CA", "C", "O" }
    mf.data.write(path, "protein", list)
    set = mf.data.open(path)
  end)
  teardown(function() os.remove(path) end)

  local function names(s)
    local result = {}
    for i = 1, #s do result[i] = s:entry(i).name end
    return table.concat(result)
  end

  it("says what it is", function()
    assert.equal(("data set %s: 5 protein entries, 129 residues"):format(path), tostring(set))
    local view = set:view { min_length = 30, max_length = 49 }
    assert.equal(("data set %s: 2 of 5 protein entries, 60 residues"):format(path), tostring(view))
  end)

  it("reads atoms when asked to, and only what is asked for", function()
    assert.is_nil(set:get(2).atoms)
    local item = set:get(3, { atoms = true })
    support.same_bits(item.atoms, list[3].atoms)
    support.same_bits(item.atom_mask, list[3].atom_mask)
    support.same_bits(item.rotations, list[3].rotations)
    assert.same({ "N", "CA", "C", "O" }, set.container.atom_names)
    local batch = set:collate({ 4, 2, 4 }, { fields = { "atoms", "mask" } })
    assert.is_nil(batch.translations)
    support.same_bits(batch.atoms, mf.cat({ list[4].atoms, list[2].atoms, list[4].atoms }, 1))
    local _, first = set:batches({ residues = 200, atoms = true })()
    assert.same({ 129, 4, 3 }, first.atoms:shape())
    support.error_matches(function() set:collate({ 1 }, { fields = { "atom" } }) end,
      "set:collate: no field 'atom' (known: translations", true)
    support.error_matches(function() set:collate({ 1 }, { fields = {} }) end, "fields is an empty list", true)
    support.error_matches(function() set:collate({ 1, 6 }) end, "entry 6 of 5", true)
    support.error_matches(function() set:get(1.5) end, "entry 1.5 of 5", true)
    support.error_matches(function() set:collate({ 2 }, { windows = { { 8, 6 } } }) end,
      "entry 2 has 12 residues, 6 from 8 do not fit", true)
    assert.equal(0, set:collate({}).packing:count())
  end)

  it("is seen through views, and views of views", function()
    for expected, o in pairs {
      abcde = {}, ace = { split = "train" }, bd = { split = { "test", "validation" } }, ade = { method = "X-RAY DIFFRACTION" },
      ac = { min_length = 20, max_length = 30 }, ad = { max_resolution = 2 }, ca = { entries = { 3, 5, 1 }, min_length = 8 },
      dbd = { entries = { 4, 2, 4 } }, be = { filter = function(entry, i) return entry.name == "b" or i == 5 end },
      e = { split = "train", max_length = 29, filter = function() return true end }, [""] = { min_length = 51 },
    } do
      local view = set:view(o)
      assert.equal(expected, names(view))
      assert.equal(#expected, view.count)
      for k = 1, #view do
        local i = expected:byte(k) - 96
        assert.equal(lengths[i], view:length(k))
        support.same_bits(view:get(k).rotations, list[i].rotations)
      end
    end
    local view = set:view({ entries = { 5, 4, 3, 2, 1 } }):view { split = "train" }
    assert.equal("eca", names(view))
    assert.equal("ca", names(view:view { min_length = 10 }))
    assert.equal("ac", names(view:view { entries = { 3, 2 } }))
    assert.same({ 2.5, 3.25, 1.5 }, view:column "resolution")
    support.same_bits(view:collate({ 3, 1 }).translations, mf.cat({ list[1].translations, list[5].translations }, 1))
    support.error_matches(function() set:view { split = "trian" } end,
      "set:view: no entry has split 'trian' (known: test, train, validation)", true)
    support.error_matches(function() view:view { entries = { 4 } } end, "entry 4 of 3", true)
    support.error_matches(function() set:view { splt = "train" } end, "did you mean 'split'?", true)
  end)

  it("summarises itself", function()
    local s = set:summary()
    assert.equal(129, s.residues)
    assert.same({ count = 5, least = 7, quarter = 12, median = 30, three_quarters = 30, most = 50, mean = 129 / 5 }, s.lengths)
    assert.same({ train = 3, test = 1, validation = 1 }, s.splits)
    assert.same({ 4, 1.5, 3.25 }, { s.resolution.count, s.resolution.least, s.resolution.most })
    assert.same({ 2, 1 }, { s.clusters, s.unclustered })
    local text = tostring(s)
    for _, line in ipairs {
      "5 protein entries, 129 residues", "lengths     7 to 50, quartiles 12 30 30, mean 25.8",
      "splits      test 1, train 3, validation 1",
      "methods     ELECTRON MICROSCOPY 1, SOLUTION NMR 1, X-RAY DIFFRACTION 3", "mean 2.313 A, unknown for 1",
      "clusters    2, and 1 entries in none",
    } do
      assert.is_truthy(text:find(line, 1, true), line .. "\nin\n" .. text)
    end
    assert.equal(1, select(2, tostring(set:view { min_length = 99 }:summary()):gsub("0 protein entries, 0 residues", "")))
  end)

  it("draws itself", function()
    local picture = os.tmpname()
    os.remove(picture)
    set:plot(picture .. ".svg")
    local text = support.read_file(picture .. ".svg")
    assert.is_truthy(text:find("5 protein entries, 129 residues", 1, true))
    for _, title in ipairs { "length", "residue types", "secondary structure", "resolution" } do
      assert.is_truthy(text:find('font-weight="bold">' .. title .. "<", 1, true), title)
    end
    -- every bar stands on its panel's ground and is as tall as its value is to the highest
    local bars = {}
    for x, y, width, tall in text:gmatch '<rect x="([%d.]+)" y="([%d.]+)" width="([%d.]+)" height="([%d.]+)" fill="#4878a8"/>' do
      bars[#bars + 1] = { tonumber(x), tonumber(y), tonumber(width), tonumber(tall) }
    end
    local high = 280 - 34 - 46
    assert.near(high / 1.05, bars[3][4], 0.01)         -- two chains of 30 residues, one each of 7, 12, 50
    assert.near(high / 1.05 / 2, bars[1][4], 0.01)
    for k = 1, 4 do assert.near(34 + 280 - 46, bars[k][2] + bars[k][4], 0.02) end
    os.remove(picture .. ".svg")
    support.error_matches(function() set:plot(picture .. ".jpg") end, "ends neither in .svg nor in .png", true)
    support.error_matches(function() set:plot() end, "ends neither in .svg nor in .png", true)
    support.error_matches(function() set:view({ min_length = 99 }):plot(picture .. ".svg") end, "the set is empty", true)
    if os.execute "command -v gnuplot >/dev/null" == 0 then
      set:plot(picture .. ".png")
      assert.equal("\137PNG", support.read_file(picture .. ".png"):sub(1, 4))
      os.remove(picture .. ".png")
    end
  end)

  it("chooses the original programs' validation lengths", function()
    -- trunc((M - 1) linspace(0, 1, 10)) in double precision: for M = 10 index 7 falls to 6
    local expected = {
      { 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, { 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 }, { 5, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4 },
      { 10, 0, 1, 2, 3, 4, 5, 6, 6, 8, 9 }, { 19, 0, 2, 4, 6, 8, 10, 12, 13, 16, 18 },
      { 106, 0, 11, 23, 35, 46, 58, 70, 81, 93, 105 }, { 347, 0, 38, 76, 115, 153, 192, 230, 269, 307, 346 },
      { 453, 0, 50, 100, 150, 200, 251, 301, 351, 401, 452 },
    }
    local other, rng = os.tmpname(), mf.rng(9)
    for _, kind in ipairs { "protein", "rna" } do
      local torsions = mf.atoms.of(kind).torsion_count
      for _, row in ipairs(expected) do
        local m, short = row[1], {}
        for k = 1, m + 5 do                                -- lengths 1 .. m, some twice, in any order
          local n = 1 + (k * 7 + math.floor(rng:number() * 2) * m) % m
          if k <= m then n = k end
          short[k] = {
            translations = mf.zeros(n, 3), rotations = mf.zeros(n, 3, 3), torsions = mf.zeros(n, torsions, 2),
            torsion_mask = mf.zeros(n, torsions):bool(), entry = { name = "e" .. k },
          }
        end
        mf.data.write(other, kind, short)
        local view, chosen = mf.data.open(other):validation()
        local samples = kind == "rna" and 5 or 4
        assert.equal(10 * samples, #view)
        for k = 1, 10 do
          assert.equal(kind == "rna" and m - row[k + 1] or row[k + 1] + 1, chosen[k])
          for c = 1, samples do assert.equal(chosen[k], view:length((k - 1) * samples + c)) end
        end
      end
    end
    os.remove(other)
    assert.same({ 7, 50 }, select(2, set:validation { lengths = 2, samples = 1 }))
    assert.equal(names((set:validation())), names((set:validation { seed = 123 })))
  end)

  it("says what is wrong with a file", function()
    local other = os.tmpname()
    local whole, metadata = mf.load(path)
    local function open(changes, texts)
      local tensors, meta = {}, {}
      for key, value in pairs(whole) do tensors[key] = value end
      for key, value in pairs(metadata) do meta[key] = value end
      for key, value in pairs(changes) do tensors[key] = value ~= 0 and value or nil end
      for key, value in pairs(texts or {}) do meta[key] = value ~= 0 and value or nil end
      mf.save(other, tensors, meta)
      return mf.data.open(other)
    end
    for message, case in pairs {
      ["has no tensor 'mask'"] = { { mask = 0 } }, ["has no tensor 'offsets'"] = { { offsets = 0 } },
      ["offsets are int64 (5), expected int64 (6) for 5 entries"] = { { offsets = whole.offsets:narrow(1, 1, 5):contiguous() } },
      ["offsets are int32 (6), expected int64 (6)"] = { { offsets = whole.offsets:int() } },
      ["offsets of entry 3 run backwards"] = { { offsets = mf.tensor({ 0, 30, 42, 40, 122, 129 }, { dtype = "int64" }) } },
      ["offsets begin at 1"] = { { offsets = whole.offsets + 1 } },
      ["offsets of entry 1 run backwards"] = { { offsets = whole.offsets - 1 } },
      ["translations is float32 (128, 3), expected float32 (129, 3)"] = {
        { translations = whole.translations:narrow(1, 1, 128):contiguous() },
      },
      ["rotations is float64 (129, 3, 3), expected float32 (129, 3, 3)"] = { { rotations = whole.rotations:double() } },
      ["torsions is float32 (129, 1, 2), expected float32 (129, 8, 2)"] = { {}, { kind = "rna" } },
      ["kind is 'dna', expected 'protein' or 'rna'"] = { {}, { kind = "dna" } },
      ["entries: json.decode: line 1, byte 1: expected '['"] = { {}, { entries = "{}" } },
      ["entries: json.decode: line 1, byte 3: the text ends too early"] = { {}, { entries = "[{" } },
      ["has atoms, but no names of atoms in its metadata"] = { {}, { atoms = 0 } },
      ["atoms is float32 (129, 4, 3), expected float32 (129, 2, 3)"] = { {}, { atoms = '["N","CA"]' } },
      ["atoms: json.decode"] = { {}, { atoms = '[' } },
    } do
      support.error_matches(function() open(case[1], case[2]) end, "data.open: " .. other, true)
      support.error_matches(function() open(case[1], case[2]) end, message, true)
    end
    local damaged = open({}, { entries = '[{"name":"a"},{"nam":"b"},{"name":01},7,{"name":"e"} ]' })
    assert.equal("e", damaged:entry(5).name)
    for i, message in pairs {
      [2] = "entry 2 has no name", [3] = "entry 3 is damaged: json.decode: line 1, byte 35: not a JSON value",
      [4] = "entry 4 has no name",
    } do
      support.error_matches(function() damaged:entry(i) end, ("data set %s: %s"):format(other, message), true)
    end
    support.error_matches(function() damaged:get(3) end, "entry 3 is damaged", true)
    os.remove(other)
  end)

  it("takes a large set's entries from a tensor", function()
    local other, bytes = os.tmpname(), support.read_file(path)
    local n = bytes:byte(1) + 256 * bytes:byte(2) + 65536 * bytes:byte(3)
    local header, data = json.decode(bytes:sub(9, 8 + n)), bytes:sub(9 + n)
    local text = header.__metadata__.entries
    header.__metadata__.entries = nil
    header.entries = { dtype = "U8", shape = { #text }, data_offsets = { #data, #data + #text } }
    local encoded = json.encode(header)
    local file = assert(io.open(other, "wb"))
    file:write(ffi.string(ffi.new("int64_t[1]", #encoded), 8), encoded, data, text)
    file:close()
    local moved = mf.data.open(other)
    assert.equal("abcde", names(moved))
    support.same_bits(moved:get(4).rotations, list[4].rotations)
    os.remove(other)
  end)
end)

describe("a lazy JSON list", function()
  it("gives each element as decoding all of it would", function()
    local texts = {
      "[]", " [ ] ", "[1]", '[{"a":1,"b":[2,{"c":"]}\\""}]} , "x,[\\\\" ,null,\t-1.5e3,[[],[]],{}, {"a":"\\u00e9", "b":7,"a":8},' ..
        '{"\\u0061":1,"aa":2,"":3, "c\\"":4, "b" : [] }]',
      '["\\"","\\\\",[1,2,[3]],true]\n',
    }
    for _, text in ipairs(texts) do
      local whole, lazy = assert(json.decode(text)), assert(json.lazy(text))
      assert.equal(#whole, lazy.count)
      for i = 1, #whole do
        assert.same(whole[i], lazy:get(i))
        if text:sub(lazy.places[2 * i - 2], lazy.places[2 * i - 2]) == "{" then
          for _, key in ipairs { "a", "b", "c" } do assert.same(whole[i][key], lazy:field(i, key)) end
        end
      end
    end
  end)

  it("refuses what is no list at once, and a bad element when it is asked for", function()
    for _, text in ipairs { "", "{}", "[", "[1", "[1,", "[1}", '["a]', "[1] 2", "[[1]", "7" } do
      local list, message = json.lazy(text)
      assert.is_nil(list, text)
      assert.is_truthy(message:find "^json.decode: ", text)
    end
    local list = assert(json.lazy '[{"a":1},{a:1},1 2,"\1",]')
    assert.equal(5, list.count)
    assert.same({ a = 1 }, list:get(1))
    for i = 2, 5 do
      local value, message = list:get(i)
      assert.is_nil(value)
      assert.is_truthy(message:find "^json.decode: .*byte %d+: ", message)
    end
    assert.is_truthy(select(2, list:field(2, "a")):find("a key must be a string", 1, true))
    assert.is_truthy(select(2, list:field(3, "a")):find("expected an object", 1, true))
  end)
end)
