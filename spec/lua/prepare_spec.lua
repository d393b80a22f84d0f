-- data.prepare: every file and chain accounted for; the rules of both recipes; clusters and splits.
local mf = require "moonfold"
local files = require "moonfold.files"
local gyration = require "moonfold.data.prepare.gyration"
local json = require "moonfold.json"
local made = require "spec.support.structure_files"
local split = require "moonfold.data.prepare.split"
local support = require "spec.support"

local folder
before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  files.make_folder(folder)
end)
after_each(function() support.shell("rm -rf " .. folder) end)

local function text_file(name, text)
  files.replace(folder .. "/" .. name, text)
  return folder .. "/" .. name
end

local count = 0
local function prepare(o)
  count = count + 1
  o.inputs, o.out = o.inputs or { folder .. "/in" }, o.out or ("%s/%d.safetensors"):format(folder, count)
  o.workers = o.workers or 0
  local report = mf.data.prepare(o)
  local manifest = not o.dry_run and assert(json.decode(support.read_file(report.manifest))) or nil
  return report, manifest, not o.dry_run and mf.data.open(o.out) or nil
end

local function entries_of(set)
  local names = {}
  for i = 1, #set do names[i] = set:entry(i).name end
  return table.concat(names, " ")
end

-- Why the chains of a file were left out.
local function reasons(manifest, name)
  local list = {}
  for _, record in ipairs(manifest.inputs) do
    if record.path:sub(-#name) == name then
      list[#list + 1] = record.skipped
      for _, info in ipairs(record.chains) do list[#list + 1] = info.skipped end
    end
  end
  return table.concat(list, "; ")
end

describe("data.prepare", function()
  it("accounts for every file and chain", function()
    made.protein(folder .. "/in/a.pdb", 30, { residue = "ALA", drop = { 1, 2, 17 } })
    made.protein(folder .. "/in/b.cif", 30, { residue = "GLY" })
    made.protein(folder .. "/in/c.pdb", 5, { residue = "ALA" })
    made.protein(folder .. "/in/d.pdb", 30, { residue = "GLY" })
    made.protein(folder .. "/in/e.pdb", 40, { residue = "SER", drop = { 3, 4, 5, 6, 7, 8, 9, 10 } })
    text_file("in/f.cif", "data_x\nloop_\n_atom_site.id\n")
    text_file("in/g.pdb", "")
    text_file("in/notes.txt", "no structure")
    local report, manifest, set = prepare { min_length = 10 }
    assert.equal(2, report.entries)
    assert.equal(58, report.residues)
    assert.same({ kept = 2, ["too short"] = 1, ["same sequence"] = 1, ["missing frames"] = 1, malformed = 2 }, report.counts)
    assert.same(report.counts, manifest.counts)
    assert.equal(7, #manifest.inputs)
    local steps = {}
    for i, step in ipairs(report.steps) do steps[i] = ("%s %d"):format(step.step, step.left) end
    assert.equal("files 7, files read 5, protein chains 5, frames 4, length 3, duplicates 2", table.concat(steps, ", "))
    assert.equal("protein", set.kind)
    for _, record in ipairs(manifest.inputs) do
      local pipe = io.popen("sha256sum " .. record.path)
      assert.equal(pipe:read "*l":sub(1, 64), record.sha256)
      pipe:close()
      assert.equal(#support.read_file(record.path), record.bytes)
    end
    assert.equal(files.sha256_of(support.read_file(folder .. "/1.safetensors")), manifest.set_sha256)
    assert.equal("same sequence: b_A", reasons(manifest, "d.pdb"))
    assert.is_truthy(reasons(manifest, "f.cif"):find "^malformed: ")
    for i = 1, #set do
      local item = set:get(i)
      local n = set:length(i)
      -- trimmed to frames at both ends, centred on the valid ones
      assert.is_true(item.mask:select(1, 1):all() and item.mask:select(1, n):all())
      local w = item.mask:float():reshape(n, 1)
      assert.is_true(((item.translations * w):sum(1) / w:sum()):abs():max(1):item() < 1e-4)
    end
    local first = set:get(1)
    assert.equal(28, first.packing:total())
    assert.same({ 0, 1, 2 }, first.index:narrow(1, 1, 3):totable())
    assert.is_false(first.mask:select(1, 15):all())
  end)

  it("says why nothing is left, still writes the manifest, and keeps the old set", function()
    made.protein(folder .. "/in/a.pdb", 30)
    local out = folder .. "/none.safetensors"
    prepare { out = out }
    local before = support.read_file(out)
    support.error_matches(function() prepare { out = out, min_length = 1000 } end, "nothing is left of 1 files (1 too short)", true)
    assert.is_truthy(support.read_file(folder .. "/none.manifest.json"):find("too short: 30 residues", 1, true))
    assert.equal(before, support.read_file(out))
  end)

  it("writes nothing in a dry run, and counts the same", function()
    made.protein(folder .. "/in/a.pdb", 30)
    made.protein(folder .. "/in/b.pdb", 3)
    local wet = prepare { min_length = 5, out = folder .. "/wet.safetensors" }
    for workers = 0, 1 do
      local dry = prepare { min_length = 5, dry_run = true, workers = workers }
      assert.same(wet.counts, dry.counts)
      assert.same(wet.steps, dry.steps)
    end
    local pipe = io.popen("ls " .. folder)
    assert.equal("in\nwet.manifest.json\nwet.safetensors\n", pipe:read "*a")
    pipe:close()
  end)

  it("writes atoms in the place of the frames", function()
    local _, _, set = prepare { inputs = { "spec/fixtures/1ubq.pdb.gz" } }
    local archive, item = mf.archive(set.path), set:get(1)
    assert.equal('["N","CA","C","CB","O"]', archive:metadata().atoms)
    local x, mask = archive:tensor "atoms", archive:tensor "atom_mask"
    assert.same({ 76, 5, 3 }, x:shape())
    support.close(x:select(2, 2):double(), item.translations:double(), 1e-6)
    local gly, glycines = item.aatype:values(), 0
    for i, there in ipairs(mask:select(2, 4):float():values()) do
      assert.equal(gly[i] == 7 and 0 or 1, there)                     -- 7: glycine has no CB
      glycines = glycines + (gly[i] == 7 and 1 or 0)
    end
    assert.equal(6, glycines)
    local rebuilt = mf.atoms.protein.build(item.rotations, item.translations, item.torsions)
    local distance = (rebuilt - x):square():sum(3):sqrt() * mask:float()
    assert.is_true(distance:max(1):max(1):item() < 0.35)
    -- all heavy atoms, and none
    local _, _, heavy = prepare { inputs = { "spec/fixtures/1ubq.pdb.gz" }, atoms = "heavy" }
    local all = mf.archive(heavy.path)
    assert.same({ 76, 37, 3 }, all:info("atoms").shape)
    assert.equal(602, all:tensor("atom_mask"):float():sum():item())  -- the protein's atoms of the entry
    local _, _, none = prepare { inputs = { "spec/fixtures/1ubq.pdb.gz" }, atoms = "none" }
    assert.is_false(mf.archive(none.path):has "atoms")
  end)

  it("tells what is known of an entry", function()
    local _, _, set = prepare { inputs = { "spec/fixtures/1ubq.pdb.gz" } }
    local e = set:entry(1)
    local s = mf.structure.read "spec/fixtures/1ubq.pdb.gz"
    assert.equal("1ubq_A", e.name)
    assert.equal("1ubq", e.entry)
    assert.equal("A", e.chain)
    assert.equal(76, e.length)
    assert.equal(s:chains(1)[1].sequence, e.sequence)
    assert.equal(s.resolution, e.resolution)
    assert.equal(s.date, e.date)
    assert.equal(s.method, e.method)
    assert.equal(1, e.chains_in_entry)
    assert.equal("homomer", e.quaternary)
    assert.is_true(math.abs(s:radius_of_gyration() - e.radius_of_gyration) < 6e-5)
    local letters = s:secondary_structure { classes = 3, ppii = 0 }[1]
    for key, letter in pairs { helix = "H", strand = "E", coil = "C" } do
      assert.is_true(math.abs(select(2, letters:gsub(letter, "")) / 76 - e[key]) < 6e-5, key)
    end
  end)

  it("reads lists, folders and compressed files, each once", function()
    made.protein(folder .. "/in/ab/1abc.pdb.gz", 12, { residue = "ALA" })
    made.protein(folder .. "/in/cd/2cde.cif.gz", 13, { residue = "GLY" })
    made.protein(folder .. "/3x.ent", 14, { residue = "SER" })
    local list = text_file("list.txt", ("# two\n%s/3x.ent\r\n\n  %s/in\n%s/none.pdb\n"):format(folder, folder, folder))
    local report, manifest, set = prepare { inputs = { folder .. "/in/cd", "@" .. list, folder .. "/3x.ent" } }
    assert.equal(4, report.files)
    assert.equal("3x_A 1abc_A 2cde_A", entries_of(set))
    assert.is_truthy(reasons(manifest, "none.pdb"):find("unreadable: .*No such file"))
    support.error_matches(function() prepare { inputs = { folder .. "/no" } } end, "/no' cannot be opened", true)
    support.error_matches(function() prepare { inputs = { "@" .. folder .. "/no" } } end, "No such file", true)
    files.make_folder(folder .. "/empty")
    support.error_matches(function() prepare { inputs = { folder .. "/empty" } } end, "no input files", true)
    local _, _, given = prepare { inputs = { folder .. "/in/cd", folder .. "/3x.ent" }, order = "given" }
    assert.equal("2cde_A 3x_A", entries_of(given))
  end)

  it("reads the members of tar archives, compressed or not, as the files themselves", function()
    for i = 1, 6 do made.protein(("%s/in/%02d/%d.%s"):format(folder, i % 2, i, i % 3 == 0 and "cif.gz" or "pdb"), 10 + i) end
    text_file("in/00/bad.pdb", "ATOM   no atom\n")
    local shell = "cd %s/in && tar cf ../a.tar * && tar czf ../b.tar.gz * && cp ../b.tar.gz ../c.tgz"
    assert(support.shell(shell:format(folder)))
    local _, plain_manifest, plain = prepare { inputs = { folder .. "/in" } }
    for _, name in ipairs { "a.tar", "b.tar.gz", "c.tgz" } do
      local report, manifest, set = prepare { inputs = { folder .. "/" .. name }, workers = 2 }
      assert.equal(7, report.files)
      assert.equal(6, report.entries)
      assert.equal(entries_of(plain), entries_of(set))
      local a, b = mf.archive(plain.path), mf.archive(set.path)
      for _, tensor in ipairs(a:names()) do assert.is_true(a:bytes(tensor) == b:bytes(tensor), tensor) end
      for i, record in ipairs(manifest.inputs) do
        assert.equal(plain_manifest.inputs[i].sha256, record.sha256)
        assert.equal(folder .. "/" .. name .. ":" .. plain_manifest.inputs[i].path:sub(#folder + 5), record.path)
      end
      assert.equal(set:entry(1).source, manifest.inputs[1].path)
      assert.is_true((mf.data.prepare { inputs = { folder .. "/" .. name }, out = set.path, workers = 1 }).unchanged)
    end
    local pipe = io.popen("ls " .. folder)
    assert.is_nil(pipe:read "*a":find("work", 1, true))
    pipe:close()
    text_file("d.tar", "no archive")
    support.error_matches(function() prepare { inputs = { folder .. "/d.tar" } } end, "d.tar", true)
  end)

  it("applies filters of the user's own, and stops at so many entries", function()
    for i = 1, 5 do made.protein(("%s/in/%d.pdb"):format(folder, i), 10 + i) end
    local report, manifest, set = prepare {
      filters = { function(entry) return entry.length == 12 and ("twelve: %s"):format(entry.name) or nil end }, most = 3,
    }
    assert.equal("1_A 3_A 4_A", entries_of(set))
    assert.equal("twelve: 2_A", reasons(manifest, "2.pdb"))
    assert.same({ kept = 3, twelve = 1, ["more than were asked for"] = 1 }, report.counts)
  end)

  it("gives two entries of one name names of their own", function()
    made.protein(folder .. "/in/a/x.pdb", 11)
    made.protein(folder .. "/in/b/x.pdb", 12)
    local _, _, set = prepare {}
    assert.equal("x_A x_A.2", entries_of(set))
  end)

  it("refuses options that it does not know, before any work", function()
    for message, o in pairs {
      ["profile 'proteins' (known: none, protein, rna)"] = { profile = "proteins" },
      ["chains is 'all' (known: each, join)"] = { chains = "all" },
      ["unknown option 'min_lenght', did you mean 'min_length'?"] = { min_lenght = 3 },
      ["needs clusters"] = { split = "cluster" },
      ["needs valid_from or test_from"] = { split = "date" },
      ["test_from is '2023', expected a date"] = { split = "date", test_from = "2023" },
      ["valid_from is '1.5', expected a number of residues"] = { split = "length", valid_from = 1.5 },
      ["are shares that leave some for training"] = { split = "cluster", clusters = "x", valid = 1 },
    } do
      support.error_matches(function() prepare(o) end, message, true)
    end
  end)
end)

describe("the protein profile", function()
  local assembly = "loop_\n_pdbx_struct_assembly.id\n_pdbx_struct_assembly.oligomeric_details\n"
  local function monomer(name, n, o)
    o = o or {}
    made.protein(("%s/in/%s.cif"):format(folder, name), n, o)
    local path = ("%s/in/%s.cif"):format(folder, name)
    local text = support.read_file(path)
    text = text .. "\n" .. (o.assembly or assembly .. "1 monomeric\n")
      .. (o.resolution ~= false and ("_refine.ls_d_res_high %s\n"):format(o.resolution or "2.0") or "")
    files.replace(path, text)
  end

  it("keeps monomers of 60 to 512 residues, well resolved, and says of the others why not", function()
    local helix = { phi = -57, psi = -47 }
    monomer("good", 80, helix)
    monomer("longer", 90, helix)
    monomer("short", 59, helix)
    monomer("long", 513, helix)
    monomer("dimer", 80, { phi = -57, psi = -47, assembly = assembly .. "1 Dimeric\n" })
    monomer("twice", 80, { phi = -57, psi = -47, assembly = assembly .. "1 monomeric\n2 monomeric\n" })
    monomer("silent", 80, { phi = -57, psi = -47, assembly = "" })
    monomer("nmr", 80, { phi = -57, psi = -47, resolution = false })
    monomer("blurred", 80, { phi = -57, psi = -47, resolution = "5.0" })
    monomer("pair", 80, { phi = -57, psi = -47, copies = 2 })
    monomer("coil", 80, { phi = -120, psi = 20 })
    monomer("ends", 70, { phi = -57, psi = -47, names = { [1] = "PCA", [2] = "MSE", [35] = "SEP", [70] = "UNK" } })
    local report, manifest, set = prepare { profile = "protein", max_helix = math.huge }
    for name, reason in pairs {
      short = "too short: 59 residues", long = "too long: 513 residues", dimer = "another oligomeric state: dimeric",
      twice = "another oligomeric state: monomeric,monomeric", silent = "oligomeric state not stated", nmr = "no resolution",
      blurred = "low resolution: 5 A", pair = "several chains: 2", coil = "too much coil: 100 %",
    } do
      assert.equal(reason, (reasons(manifest, name .. ".cif"):gsub(";.*", "")), name)
    end
    assert.equal("longer_A good_A ends_A", entries_of(set))              -- longest first
    assert.equal(3, report.entries)
    -- the ends without a type go, types inside are those of the recipe: MSE is MET, SEP is none
    local ends = set:entry(3)
    assert.equal(68, ends.length)
    assert.equal("M", ends.sequence:sub(1, 1))
    assert.equal("X", ends.sequence:sub(34, 34))
    local types = set:get(3).aatype:values()
    assert.equal(12, types[1])
    assert.equal(20, types[34])
    -- as the peers do: a file of two chains passes, and a state that is not asked for does
    local _, _, loose = prepare { profile = "protein", max_helix = math.huge, compat = true, oligomeric = "any" }
    assert.is_truthy(entries_of(loose):find("pair_A", 1, true) and entries_of(loose):find("twice_A", 1, true))
  end)

  it("drops what is helix alone", function()
    monomer("helix", 80, { phi = -57, psi = -47 })
    monomer("other", 80, { phi = -57, psi = -47, bend = 30 })
    local _, manifest, set = prepare { profile = "protein", max_helix = 0.9 }
    assert.equal("other_A", entries_of(set))
    assert.is_truthy(reasons(manifest, "helix.cif"):find "^helix alone")
  end)
end)

describe("radii of gyration", function()
  it("are held against the quantile of each length, linear between ranks", function()
    assert.equal(5, gyration.quantile({ 5 }, 0.96))
    assert.is_true(math.abs(gyration.quantile({ 1, 2, 3, 4 }, 0.96) - 3.88) < 1e-12)
    assert.equal(2, gyration.quantile({ 1, 2, 3 }, 0.5))
  end)

  it("are fitted by the polynomial of degree 4 that least squares give", function()
    local function quartic(n) return 3 + 0.02 * n - 1e-5 * n ^ 2 + 2e-9 * n ^ 3 + 1e-13 * n ^ 4 end
    local xs, ys = {}, {}
    for n = 60, 8800, 97 do xs[#xs + 1], ys[#ys + 1] = n, quartic(n) end
    local value = gyration.fit(xs, ys, 4)
    for _, n in ipairs { 60, 61, 512, 3000, 8800 } do assert.is_true(math.abs(value(n) / quartic(n) - 1) < 1e-11, n) end
    -- overdetermined: residuals are orthogonal to every power
    local noise = mf.rng(4)
    for i in ipairs(ys) do ys[i] = ys[i] + noise:number() end
    local fitted = gyration.fit(xs, ys, 4)
    for power = 0, 4 do
      local dot, size = 0, 0
      for i, x in ipairs(xs) do
        local t = (2 * x - 60 - xs[#xs]) / (xs[#xs] - 60)
        dot, size = dot + (ys[i] - fitted(x)) * t ^ power, size + math.abs(ys[i] * t ^ power)
      end
      assert.is_true(math.abs(dot) < 1e-12 * size)
    end
    -- fewer points than coefficients: through all of them
    local few = gyration.fit({ 60, 70, 95, 120 }, { 10, 12, 11, 15 }, 4)
    for n, y in pairs { [60] = 10, [70] = 12, [95] = 11, [120] = 15 } do assert.is_true(math.abs(few(n) - y) < 1e-9) end
    assert.equal(7, gyration.fit({ 80 }, { 7 }, 4)(80))
  end)

  it("drop what is wider than its length allows", function()
    for i = 1, 40 do made.protein(("%s/in/%02d.pdb"):format(folder, i), 60 + i % 4, { phi = -57, psi = -47 }) end
    made.protein(folder .. "/in/wide.pdb", 62, { phi = -120, psi = 130 })
    local report, manifest = prepare { gyration_quantile = 0.5, gyration_margin = 1, unique = false }
    assert.equal(40, report.entries)
    assert.is_truthy(reasons(manifest, "wide.pdb"):find "^too wide: radius of gyration")
    assert.equal(60, manifest.gyration.low)
    assert.equal(63, manifest.gyration.high)
  end)

  it("are evaluated at the length, as the peers do at one less", function()
    local filters = require "moonfold.data.prepare.filters"
    local fit = gyration.fit({ 60, 70, 80, 90, 100 }, { 6, 7, 8, 9, 10 }, 4)
    local function passes(compat, radius)
      local list = { { length = 80, radius = radius, name = "x" } }
      for n = 60, 100, 10 do list[#list + 1] = { length = n, radius = n / 10, name = "e" .. n } end
      for _, entry in ipairs((filters.together({ gyration_quantile = 0, gyration_margin = 1, compat = compat }, list))) do
        if entry.name == "x" then return true end
      end
      return false
    end
    assert.is_true(math.abs(fit(79) - 7.9) < 1e-9)
    assert.is_true(passes(false, 8.95))
    assert.is_false(passes(true, 8.95))
    assert.is_true(passes(true, 8.85))
    assert.is_false(passes(false, 9.05))
  end)
end)

describe("the RNA profile", function()
  it("joins the chains of homomers with a gap, and leaves out what holds proteins", function()
    made.rna(folder .. "/in/one.pdb", { 45 })
    made.rna(folder .. "/in/two.pdb", { 30, 30 })
    made.rna(folder .. "/in/uneven.pdb", { 30, 40 })
    made.rna(folder .. "/in/short.pdb", { 39 })
    made.rna(folder .. "/in/long.pdb", { 151 })
    made.protein(folder .. "/in/protein.pdb", 50)
    local report, manifest, set = prepare { profile = "rna" }
    assert.equal("two one", entries_of(set))
    for name, reason in pairs {
      uneven = "chains of several sequences: 2 chains", short = "too short: 39 residues", long = "too long: 151 residues",
      protein = "no rna chain",
    } do
      assert.equal(reason, reasons(manifest, name .. ".pdb"))
    end
    assert.equal(2, report.counts.kept)
    local two = set:get(1)
    local index, chain = two.index:values(), two.chain:values()
    assert.same({ 0, 29, 94, 123 }, { index[1], index[30], index[31], index[60] })
    assert.same({ 0, 0, 1, 1 }, { chain[1], chain[30], chain[31], chain[60] })
    assert.equal("A+B", set:entry(1).chain)
    assert.equal(2, set:entry(1).chains_in_entry)
    assert.same({ 60, 13, 3 }, { mf.archive(set.path):info("atoms").shape[1] - 45, 13, 3 })
    local _, _, compat = prepare { profile = "rna", compat = true }
    assert.equal(59, compat:get(1).index:values()[60])                   -- as if covalently continuous
    local _, _, each = prepare { polymer = "rna", unique = false, max_length = 30 }
    assert.equal("two_A two_B uneven_A", entries_of(each))
    assert.equal("A", each:entry(1).chain)
  end)

  it("leaves out files with protein chains", function()
    made.rna(folder .. "/in/both.pdb", { 45 }, { protein = 20 })
    made.rna(folder .. "/in/alone.pdb", { 45 })
    local _, manifest = prepare { profile = "rna", homomer = false }
    assert.equal("protein chains: 1", reasons(manifest, "both.pdb"))
  end)
end)

describe("what the peers do otherwise", function()
  -- The file without atoms that `gone(number, name)` names.
  local function strip(path, gone)
    local kept = {}
    for line in support.read_file(path):gmatch "[^\n]+" do
      local name, number = line:sub(13, 16):match "%S+", tonumber(line:sub(23, 26))
      if not line:find "^ATOM" or not gone(number, name) then kept[#kept + 1] = line end
    end
    files.replace(path, table.concat(kept, "\n") .. "\n")
  end
  local function coordinates(path, name)
    local s = mf.structure.read(path)
    return (s:atoms(1, { name })):select(2, 1):double():totable()
  end
  local function mean(list, without)
    local sum, n = { 0, 0, 0 }, 0
    for i, x in ipairs(list) do
      if i ~= without then
        n = n + 1
        for a = 1, 3 do sum[a] = sum[a] + x[a] end
      end
    end
    return { sum[1] / n, sum[2] / n, sum[3] / n }
  end
  local function near(expected, found, tolerance)
    for a = 1, 3 do assert.is_true(math.abs(expected[a] - found[a]) < tolerance, ("%g, not %g"):format(found[a], expected[a])) end
  end
  local function minus(a, b) return { a[1] - b[1], a[2] - b[2], a[3] - b[3] } end
  local function unit(v)
    local length = math.sqrt(v[1] ^ 2 + v[2] ^ 2 + v[3] ^ 2)
    return { v[1] / length, v[2] / length, v[3] / length }
  end
  -- coordinates are float32 of some 60 angstrom: steps of 4e-6, and as many in the centre
  local STEP = 2e-5

  it("is that CA alone makes a residue of a protein valid, what its frame lacks being at the centre", function()
    local path = folder .. "/in/a.pdb"
    made.protein(path, 70)
    strip(path, function(number, name)
      return number == 5 and (name == "N" or name == "C") or number == 9 and name == "N" or number == 12 and name == "CA"
    end)
    local ca = coordinates(path, "CA")
    local centre = mean(ca, 12)
    local _, _, plain = prepare {}
    local _, _, set = prepare { valid_by = "atom" }
    local before, after = plain:get(1), set:get(1)
    local function invalid(item)
      local list = {}
      for i, v in ipairs(item.mask:float():values()) do if v == 0 then list[#list + 1] = i end end
      return list
    end
    assert.same({ 5, 9, 12 }, invalid(before))
    assert.same({ 12 }, invalid(after))
    local t, R = after.translations:totable(), after.rotations:totable()
    for _, i in ipairs { 1, 5, 9, 70 } do near(minus(ca[i], centre), t[i], STEP) end
    near({ 0, 0, 0 }, t[12], 1e-9)
    near({ 1, 0, 0 }, { R[5][1][1], R[5][2][1], R[5][3][1] }, 1e-9)           -- N and C on one spot: no frame
    -- the y axis is N's side, and N is at the centre
    local x = { R[9][1][1], R[9][2][1], R[9][3][1] }
    local toward = minus(centre, ca[9])
    local along = toward[1] * x[1] + toward[2] * x[2] + toward[3] * x[3]
    near(unit { toward[1] - along * x[1], toward[2] - along * x[2], toward[3] - along * x[3] },
      { R[9][1][2], R[9][2][2], R[9][3][2] }, 1e-4)
    assert.is_true((before.rotations:select(1, 30) - after.rotations:select(1, 30)):abs():max():item() < 1e-6)
    assert.equal(0, after.torsion_mask:float():select(1, 9):item())         -- psi is still that of a frame
  end)

  it("is that C2' stands for C4' in RNA, in the mask and as the centre", function()
    local path = folder .. "/in/a.pdb"
    made.rna(path, { 45 })
    strip(path, function(number, name) return number == 3 and name == "C2'" or number == 7 and name == "C4'" end)
    local c4, c2 = coordinates(path, "C4'"), coordinates(path, "C2'")
    local _, _, plain = prepare { profile = "rna" }
    local _, _, set = prepare { profile = "rna", compat = true }
    local before, after = plain:get(1), set:get(1)
    local function mask(item, i) return item.mask:float():select(1, i):item() end
    assert.same({ 1, 0 }, { mask(before, 3), mask(before, 7) })
    assert.same({ 0, 1 }, { mask(after, 3), mask(after, 7) })
    local t = after.translations:totable()
    near(minus(c4[20], mean(c2, 3)), t[20], STEP)
    near({ 0, 0, 0 }, t[7], STEP)                                           -- C4' is absent: at the centre
    near(minus(c4[20], mean(c4, 7)), before.translations:totable()[20], STEP)
  end)

  it("is that of chains whose ids differ in case alone the last one is left", function()
    local chains = {}
    for c, id in ipairs { "A", "B", "a" } do
      chains[c] = { id = id, polymer = "protein", residues = {} }
      local x = mf.structure.read("spec/fixtures/1ubq.pdb.gz")
      for i, r in ipairs(x:residues(1)) do
        if i <= 10 * c + 20 then chains[c].residues[i] = { name = r.name, number = i, atoms = x:residue_atoms(r.index) } end
      end
    end
    files.make_folder(folder .. "/in")
    mf.structure.build({ chains = chains }):write(folder .. "/in/x.cif")
    local function lengths(o)
      local _, _, set = prepare(o)
      local list = {}
      for i = 1, #set do list[i] = ("%s %d"):format(set:entry(i).chain, set:entry(i).length) end
      return table.concat(list, ", ")
    end
    assert.equal("A 30, B 40, a 50", lengths { unique = false })
    assert.equal("a 50, B 40", lengths { unique = false, fold_chains = true })
    local _, _, folded = prepare { profile = "protein", compat = true, oligomeric = "any", need_resolution = false, max_coil = 9,
      min_length = 1 }
    assert.equal(2, folded:entry(1).chains_in_entry)
  end)
end)

describe("clusters and splits", function()
  local lines = "1AAA_1 2BBB_1\n\n3CCC_1 1AAA_2\n4DDD_1\n"

  local function assign(o, list)
    local give, result = split.assigner(o), {}
    for i, e in ipairs(list) do
      give(e)
      result[i] = e
    end
    return result
  end

  it("read the archive's cluster files", function()
    local path = text_file("clusters.txt", lines)
    local function entry(id, entity) return { name = id, entry = id, entity = entity, length = 5 } end
    local o = { clusters = path, split = "none" }
    local list = assign(o, {
      entry("1aaa", "1"), entry("1aaa", "2"), entry("1aaa"), entry("2bbb", "7"), entry "9zzz", entry "8yyy",
    })
    local got = {}
    for i, e in ipairs(list) do got[i] = e.cluster end
    assert.same({ 1, 3, 3, 1, 6, 7 }, got)                              -- what is in no line has a cluster of its own
    o.compat = true                                                     -- the last line of the entry
    assert.equal(3, assign(o, { entry("1aaa", "1") })[1].cluster)
    support.error_matches(function() split.read_clusters(text_file("none.txt", "")) end, "is empty", true)
    support.error_matches(function() split.read_clusters(folder .. "/no") end, "No such file", true)
  end)

  it("keep a cluster together, and depend on it and the seed alone", function()
    local text, all = {}, {}
    for i = 1, 400 do
      text[i] = ("%04d_1 X%03d_1"):format(i, i)
      all[#all + 1] = { name = ("%04d"):format(i), entry = ("%04d"):format(i), entity = "1" }
      all[#all + 1] = { name = ("x%03d"):format(i), entry = ("x%03d"):format(i), entity = "1" }
    end
    local o = { clusters = text_file("c.txt", table.concat(text, "\n")), split = "cluster", valid = 0.1, test = 0.05, seed = 5 }
    local counts, by_cluster = { train = 0, valid = 0, test = 0 }, {}
    for _, e in ipairs(assign(o, all)) do
      counts[e.split] = counts[e.split] + 1
      assert.is_true(by_cluster[e.cluster] == nil or by_cluster[e.cluster] == e.split)
      by_cluster[e.cluster] = e.split
    end
    -- 400 clusters of two: 40 and 20 expected, five deviations
    assert.is_true(math.abs(counts.valid / 2 - 40) < 30 and math.abs(counts.test / 2 - 20) < 22, counts.valid .. " " .. counts.test)
    local alone = assign(o, { { name = "0007", entry = "0007", entity = "1" } })[1].split
    assert.equal(by_cluster[7], alone)
    o.seed = 6
    local moved = 0
    for _, e in ipairs(assign(o, all)) do moved = moved + (by_cluster[e.cluster] ~= e.split and 1 or 0) end
    assert.is_true(moved > 20)
  end)

  it("split by date and by length", function()
    local function splits(o, key, values)
      local list = {}
      for i, value in ipairs(values) do list[i] = { [key] = value ~= 0 and value or nil } end
      local got = {}
      for i, e in ipairs(assign(o, list)) do got[i] = e.split end
      return table.concat(got, " ")
    end
    local dates = { split = "date", valid_from = "2020-01-01", test_from = "2021-06-01" }
    local days = { "2019-12-31", "2020-01-01", "2021-05-31", "2021-06-01", 0 }
    assert.equal("train valid valid test train", splits(dates, "date", days))
    assert.equal("train valid", splits({ split = "length", valid_from = "100" }, "length", { 99, 100 }))
    assert.equal("train test", splits({ split = "length", test_from = 100 }, "length", { 20, 1000 }))
  end)

  it("stand in the entries of a set", function()
    made.protein(folder .. "/in/1aaa.pdb", 10)
    made.protein(folder .. "/in/3ccc.pdb", 20)
    local _, _, set = prepare { clusters = text_file("clusters.txt", lines), split = "length", test_from = 15 }
    assert.same({ 1, "train" }, { set:entry(1).cluster, set:entry(1).split })
    assert.same({ 3, "test" }, { set:entry(2).cluster, set:entry(2).split })
    local _, _, own = prepare { clusters = function(entry) return entry.length % 3 end }
    assert.same({ 1, 2 }, { own:entry(1).cluster, own:entry(2).cluster })
  end)
end)
