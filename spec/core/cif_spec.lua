-- CIF 1.1: what the grammar says a text holds is what blocks, categories and values hold; what it forbids is refused with
-- its line; what is huge, deep or endless is refused in little memory.
local ffi = require "ffi"
local mf = require "moonfold"
local binding = require "moonfold.ffi"
local support = require "spec.support"

local C = binding.C
local DATA = "../shared/data/edge/"

local function parse(text) return mf.cif.parse(text, "x.cif") end

local function refused(text, ...)
  local ok, message = pcall(parse, text)
  assert.is_false(ok, "was read")
  for _, wanted in ipairs { ... } do assert.truthy(message:find(wanted, 1, true), message) end
  return message
end

-- Every value of a file as text, for comparing files.
local function dump(file)
  local lines = {}
  local function block(b)
    lines[#lines + 1] = "block " .. b.name
    for _, c in ipairs(b.categories) do
      lines[#lines + 1] = table.concat(c.tags, " ") .. (c.loop and " loop" or "")
      for row = 1, c.rows do
        local cells = {}
        for i, tag in ipairs(c.tags) do cells[i] = c:kind(row, tag) .. ":" .. tostring(c:value(row, tag)) end
        lines[#lines + 1] = table.concat(cells, "|")
      end
    end
    for _, frame in ipairs(b.frames) do block(frame) end
  end
  for _, b in ipairs(file.blocks) do block(b) end
  return table.concat(lines, "\n")
end

describe("CIF values", function()
  it("may be bare, quoted, or text fields, and keep what is in them", function()
    local b = parse(table.concat({
      "data_x", "_a.bare C5'", "_a.hash a#b", "_a.single 'a dog's life'", '_a.double "a "b"c"', "_a.empty ''", "_a.semicolon a;b",
      "_a.inner", " ;bare", "_a.text", ";first", " 'second' # no comment", ";", "_a.none", ";", ";", "_a.last ';'", "",
    }, "\n"))[1]
    local c = b:category "_a"
    assert.are.same({ "C5'", "a#b", "a dog's life", 'a "b"c', "", "a;b", ";bare", "first\n 'second' # no comment", "", ";" }, {
      c:value(1, "bare"), c:value(1, "hash"), c:value(1, "single"), c:value(1, "double"), c:value(1, "empty"),
      c:value(1, "semicolon"), c:value(1, "inner"), c:value(1, "text"), c:value(1, "none"), c:value(1, "last"),
    })
    assert.are.equal("text", c:kind(1, "bare"))
    for _, column in ipairs { "single", "double", "empty", "text", "none", "last" } do
      assert.are.equal("quoted", c:kind(1, column))
    end
  end)

  it("tell . and ? from quoted ones and from each other", function()
    local c = parse "data_x loop_ _a.v . ? '.' \"?\" .5 ?? \n;.\n;\n"[1]:category "_a"
    assert.are.same({ false, false, ".", "?", ".5", "??", "." }, c:column "v")
    local kinds = {}
    for row = 1, c.rows do kinds[row] = c:kind(row, "v") end
    assert.are.same({ "inapplicable", "unknown", "quoted", "quoted", "text", "text", "quoted" }, kinds)
  end)

  it("end lines with LF, CRLF, CR or all of them, also in text fields", function()
    local text = "data_x\n# comment\nloop_\n_a.u\n_a.v\n1 '2'\n;one\ntwo\n;\n'4'\n"
    for _, ending in ipairs { "\n", "\r\n", "\r" } do
      local c = parse((text:gsub("\n", ending)))[1]:category "_a"
      assert.are.same({ "1", "one" .. ending .. "two" }, c:column "u")
      assert.are.same({ "2", "4" }, c:column "v")
    end
    assert.are.same({ "1", "2", "3" }, parse "data_x\rloop_\r\n_a.v\n1\r2\n\r3"[1]:column "_a.v")
  end)

  it("are separated by any blanks and comments, and folded lines are one", function()
    local c = parse "\239\187\191data_x\tloop_\f_a.u _a.v #c\n1\t#2\n\v2 \n3 4#5 6\n7"[1]:category "_a"
    assert.are.same({ "1", "3", "6" }, c:column "u")
    assert.are.same({ "2", "4#5", "7" }, c:column "v")
    local folded = parse "data_x\n_a.v\n;\\\nlong \\\nline\\  \n, and\nmore\n;\n_a.w\n;\\ not\n;\n"[1]
    assert.are.equal("long line, and\nmore", folded:value "_a.v")
    assert.are.equal("\\ not", folded:value "_a.w")
  end)

  it("may begin with brackets or a dollar, hold bytes past ASCII, or look like keywords when quoted", function()
    local b = parse "data_x _a.u [1] _a.v $2 _a.w caf\233 _a.x 'loop_' _a.y data _a.z loop_x _a.s '_tag'"[1]
    assert.are.same({ "[1]", "$2", "caf\233", "loop_", "data", "loop_x", "_tag" }, {
      b:value "_a.u", b:value "_a.v", b:value "_a.w", b:value "_a.x", b:value "_a.y", b:value "_a.z", b:value "_a.s",
    })
  end)
end)

describe("CIF blocks", function()
  it("hold categories by tags and by loops, whatever the case of names and keywords", function()
    local file = parse "DATA_One _Cell.A 1 LOOP_ _s.ID _s.v a 1 b 2 _cell.b 2 Data_two _x 5"
    assert.are.same({ "One", "two" }, { file[1].name, file.TWO.name })
    local one = file[1]
    assert.are.same({ "1", "2" }, { one:value "_cell.a", one:value "_CELL.B" })
    assert.are.equal(1, one:category("_cell").rows)   -- a loop stands between its tags
    assert.is_false(one:category("_cell").loop)
    assert.are.same({ "a", "b" }, one:column "_S.id")
    local rows = {}
    for row in one:category("_s"):each() do rows[#rows + 1] = row end
    assert.are.same({ { ID = "a", v = "1" }, { ID = "b", v = "2" } }, rows)
    assert.are.same({ nil, nil, nil }, { one:category "_none", one:value "_s.none", one:column "_none.x" })
    assert.are.equal("5", file.two:value "_x")
    assert.is_nil(file.three)
  end)

  it("keep categories whose tags are mixed apart", function()
    local b = parse "data_x _a.p 1 _b.p 2 _a.q 3 _c 4 _b.q 5 _d 6"[1]
    assert.are.same({ "p", "q" }, b:category("_a").columns)
    assert.are.same({ "2", "5" }, { b:value "_b.p", b:value "_b.q" })
    assert.are.equal(b:category_of "_c", b:category_of "_d")
    assert.are.equal(3, #b.categories)
  end)

  it("hold save frames, and go on after them", function()
    local file = parse "data_dict _a.x 1 save__item.one _a.x 2 loop_ _b.v 1 2 save_ save_two _a.x 3 SAVE_ _b.v 9"
    local b = file[1]
    assert.are.same({ "1", "9" }, { b:value "_a.x", b:value "_b.v" })
    assert.are.same({ "_item.one", "two" }, { b.frames[1].name, b.frames[2].name })
    assert.are.same({ "2", "3" }, { b.frames[1]:value "_a.x", b.frames[2]:value "_a.x" })
    assert.are.same({ "1", "2" }, b.frames[1]:column "_b.v")
  end)

  it("take stop_ after a loop, a loop without rows, and global_ as a block", function()
    local file = parse "global_ _a.x 1 data_x loop_ _b.v 1 2 stop_ _c.v 3 loop_ _e.u _e.v loop_ _f.u 1"
    assert.are.equal("1", file["global_"]:value "_a.x")
    assert.are.same({ "1", "2" }, file.x:column "_b.v")
    assert.are.equal("3", file.x:value "_c.v")
    assert.are.equal(0, file.x:category("_e").rows)
    assert.is_nil(file.x:value "_e.u")
    assert.are.equal("1", file.x:value "_f.u")
  end)

  it("are none in a file of comments, and are printed in a line", function()
    assert.are.equal(0, #parse("# nothing\n").blocks)
    local file = parse "data_x loop_ _a.u _a.v 1 2 3 4 save_f _b 1 save_"
    assert.are.equal("cif file of 1 blocks: x", tostring(file))
    assert.are.equal("cif block x: 1 categories, 1 save frames", tostring(file[1]))
    assert.are.equal("cif category _a: 2 rows, 2 columns", tostring(file[1]:category "_a"))
  end)
end)

describe("CIF refuses", function()
  for _, case in ipairs {
    { "a value without a block", "# c\nvalue\n", "x.cif", "line 2", "not a CIF file" },
    { "a tag without a block", "_a 1", "line 1", "a tag before any data_ block" },
    { "a loop without a block", "loop_ _a 1", "line 1", "loop_ before any data_ block" },
    { "a frame without a block", "save_x _a 1 save_", "line 1", "a save frame before any data_ block" },
    { "a value without a tag", "data_x\n_a 1\n2", "line 3", "a value without a tag" },
    { "a tag without a value", "data_x\n_a.u\n_a.v 1", "line 2", "_a.u has no value" },
    { "a tag without a value at the end", "data_x\n_a.u", "line 2", "_a.u has no value" },
    { "a loop without tags", "data_x\nloop_\n1", "line 2", "loop_ without tags" },
    { "a loop that ends in a row", "data_x\nloop_\n_a.u _a.v\n1 2\n3\n_b 1", "line 6", "2 columns that begins in line 2",
      "3 values" },
    { "a row cut by a keyword", "data_x\nloop_ _a.u _a.v 1 loop_ _b 1", "line 2", "ends in the middle of a row" },
    { "a tag twice in a loop", "data_x\nloop_ _a.u _A.U 1 2", "line 2", "_A.U is given twice" },
    { "a tag twice among tags", "data_x\n_a.u 1\n_b 1\n_a.U 2", "line 2", "_a.U is given twice" },
    { "a tag twice in a block", "data_x _a.u 1\nloop_ _a.v\n1\n_a.u 2", "line 4", "the tag _a.u is given twice" },
    { "a block twice", "data_x _a 1\ndata_X _a 1", "line 2", "the data block X is given twice" },
    { "a frame twice", "data_x save_f _a 1 save_\nsave_F _a 1 save_", "line 2", "the save frame F is given twice" },
    { "a quote that does not end in its line", "data_x\n_a 'b\n'", "line 2", "a quoted value does not end in its line" },
    { "a quote that does not end", 'data_x _a "b', "line 1", "a quoted value does not end in its line" },
    { "a text field that does not end", "data_x\n_a\n;b\n c;\n", "line 3", "a text field (;) does not end" },
    { "text after a text field", "data_x\n_a\n;b\n;c\n", "line 4", "text after the ;" },
    { "a frame in a frame", "data_x save_a _b 1\nsave_c _b 1 save_ save_", "line 2", "a save frame inside another" },
    { "a frame that does not end", "data_x save_a _b 1", "line 1", "save_ is missing" },
    { "a frame cut by a block", "data_x save_a _b 1\ndata_y", "line 2", "save_ is missing" },
    { "the end of no frame", "data_x\nsave_", "line 2", "save_ without a save frame" },
    { "stop_ without a loop", "data_x\n_a 1\nstop_", "line 3", "stop_ without a loop" },
    { "a zero byte", "data_x\n_a 1\0", "line 2", "a zero byte" },
  } do
    it(case[1], function() refused(case[2], unpack(case, 3)) end)
  end

  it("no text by a crash, wherever it is cut", function()
    local text = "data_x\r\n_a.u 'q' # c\n_b.v\n;te\\\nxt\n;\nloop_\n_c.u _c.v\n1 \"2\"\n3 4\nsave_f _d . save_\n_e 5\n"
    local read = 0
    for n = 0, #text do
      local ok, file = pcall(parse, text:sub(1, n))
      if ok then
        read = read + 1
        -- A prefix: nothing in it that the whole does not have.
        assert.is_true(#dump(file) <= #dump(parse(text)))
      else
        assert.truthy(file:find("x.cif': line %d+: "), file)
      end
    end
    assert.is_true(read > 10 and read < #text / 2)
  end)
end)

describe("CIF of any size", function()
  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(support.shell("mkdir " .. folder))
  end)
  after_each(function() support.shell("rm -rf " .. folder) end)

  -- Longer than the window several times over: every kind of token falls on its end.
  it("is the same in a window as in one piece", function()
    local lines, u, v = { "data_x", "loop_", "_a.u", "_a.v" }, {}, {}
    for i = 1, 30000 do
      u[i] = ("%d"):format(i * 7919)
      v[i] = ("t%d "):format(i):rep(i % 13) .. (i % 7 == 0 and "it's " or "") .. (i % 11 == 0 and "\n" or "") .. i
      lines[#lines + 1] = u[i]
      if v[i]:find "\n" then lines[#lines + 1] = ";" .. v[i] .. "\n;"
      elseif v[i]:find " " then lines[#lines + 1] = (i % 2 == 0 and "'%s'" or '"%s"'):format(v[i])
      else lines[#lines + 1] = v[i] end
      if i % 17 == 0 then lines[#lines + 1] = "# " .. ("comment "):rep(i % 29) end
    end
    local text = table.concat(lines, "\n")
    for _, t in ipairs { text, (text:gsub("\n", "\r\n")) } do
      local b = parse(t)[1]
      assert.are.same(u, b:column "_a.u")
      local found = b:column "_a.v"
      for i = 1, #v do assert.are.equal(v[i], (found[i]:gsub("\r", ""))) end
    end
  end)

  it("goes on past values longer than the window", function()
    local long = ("x"):rep(700000)
    local b = parse(("data_x _a.u %s _a.v '%s' _a.w\n;%s\n; loop_ _b.u _b.v 1 %s 2 3 # %s"):format(long, long, long, long, long))[1]
    assert.are.same({ long, long, long }, { b:value "_a.u", b:value "_a.v", b:value "_a.w" })
    assert.are.same({ long, "3" }, b:column "_b.v")
  end)

  -- Peak of resident memory in MB since the last call, where the system tells.
  local function peak()
    local file = io.open("/proc/self/clear_refs", "w")
    local status = io.open("/proc/self/status", "r")
    if not file or not status then return 0 end
    local megabytes = tonumber(status:read("*a"):match "VmHWM:%s*(%d+)") / 1024
    status:close()
    file:write "5"
    file:close()
    return megabytes
  end

  local most = 2 ^ 40
  local function refused_in_little_memory(limit, wanted, script)
    local path = folder .. "/x.cif.gz"
    assert(support.shell(("luajit -e 'io.write(\"data_x \") %s' | gzip -1 > %s"):format(script, path)))
    collectgarbage()
    peak()
    local before, box = peak(), ffi.new "mf_cif *[1]"
    assert.are.equal(C.MF_EFORMAT, C.mf_cif_read(box, path, limit))
    assert.is_true(box[0] == nil)
    local message = ffi.string(C.mf_error_text())
    assert.truthy(message:find(wanted, 1, true), message)
    assert.is_true(peak() - before < 200, "took more than 200 MB")
  end

  it("is refused in little memory where a value, a row, a header or the file does not end", function()
    refused_in_little_memory(most, "more than 67108864 bytes",
      [[io.write("_a \n;") for i = 1, 90 do io.write(("x"):rep(2^20)) end]])
    refused_in_little_memory(most, "more than 67108864 bytes",
      [[io.write("loop_ _a ") for i = 1, 90 do io.write(("x"):rep(2^20)) end]])
    refused_in_little_memory(most, "more than 65,536 tags",
      [[io.write("loop_ ") for i = 1, 2e5 do io.write("_a.", i, "\n") end]])
    refused_in_little_memory(most, "more than 65,536 tags",
      [[for i = 1, 2e5 do io.write("_a.", i, " 1\n") end]])
    refused_in_little_memory(4e6, "limit of 4000000 bytes",
      [[io.write("loop_ _a ") for i = 1, 3e6 do io.write("1 ") end]])
  end)
end)

describe("the edge files", function()
  local wanted = {
    ["1ake_err.cif"] = { 85, "ends in the middle of a row" }, ["ragged_1kfo.cif.gz"] = { 465, "ends in the middle of a row" },
    ["trunc_1kfo.cif.gz"] = { 803, "ends in the middle of a row" },
  }
  it("are read, or refused with the line and the reason", function()
    local pipe = io.popen(("ls %s 2>/dev/null"):format(DATA))
    local names = {}
    for name in pipe:lines() do
      if name:find "%.cif" then names[#names + 1] = name end
    end
    pipe:close()
    if #names == 0 then pending "no ../shared/data/edge" return end
    for _, name in ipairs(names) do
      local ok, file = pcall(mf.cif.read, DATA .. name)
      if wanted[name] then
        assert.is_false(ok, name)
        assert.truthy(file:find(("line %d: "):format(wanted[name][1]), 1, true) and file:find(wanted[name][2], 1, true), file)
      else
        assert.is_true(ok, tostring(file))
        assert.is_true(#file.blocks > 0 and #file[1].categories > 0, name)
      end
    end
  end)

  it("hold what their origin tells", function()
    if not mf.files.exists(DATA .. "misc.cif") then pending "no ../shared/data/edge" return end
    local misc = mf.cif.read(DATA .. "misc.cif")
    assert.are.same({ "Strings", "numbers", "loops", "frames" }, { misc[1].name, misc[2].name, misc[3].name, misc[4].name })
    assert.are.same({ "tomato", "carrot", "ginger" }, misc.loops:column "_single_tag")
    assert.are.same({ "2", "3", "4" }, misc.frames.frames[1]:column "_b")
    assert.are.same({ "fr", "anoTHer" }, { misc.frames.frames[1].name, misc.frames.frames[2].name })
    assert.truthy(misc.frames:value("_exptl_crystal_grow.pdbx_details"):find("\160", 1, true))
    local component = mf.cif.read(DATA .. "ccd_component.cif").SEC
    assert.are.equal("SEC", component:value "_chem_comp.id")
    local atoms = component:category "_chem_comp_atom"
    assert.are.equal("N CA CB SE C O OXT H H2 HA HB2 HB3 HE HXT", table.concat(atoms:column "atom_id", " "))
    local small = mf.cif.read(DATA .. "small_molecule.cif")[1]
    assert.truthy(small:category_of("_atom_site_label").rows > 1)
    assert.are.equal(#small:column "_atom_site_label", #small:column "_atom_site_fract_x")
  end)
end)
