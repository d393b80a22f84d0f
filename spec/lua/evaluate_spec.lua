-- Evaluation of sets of samples: specimens, distributions, references, alignment, diversity and novelty, the program.
local mf = require "moonfold"
local support = require "spec.support"
local files = require "moonfold.files"
local json = require "moonfold.json"

local specimen, distributions, align = mf.metrics.specimen, mf.metrics.distributions, mf.metrics.align

-- Backbones of ideal bonds, each of its own shape: torsions of helices, strands and turns at random.
local function chain_of(n, seed, mirror)
  local rng, rows, phi, psi, left = mf.rng(seed), {}, -60, -45, 0
  for i = 1, n do
    if left == 0 then
      local kind = rng:number()
      phi, psi, left = -60, -45, 8 + math.floor(rng:number() * 8)
      if kind > 0.5 then phi, psi, left = -120, 130, 5 + math.floor(rng:number() * 4) end
      if kind > 0.75 then phi, psi, left = 55 + 20 * rng:number(), 40, 2 end
    end
    rows[i], left = { phi = phi + 8 * rng:number(), psi = psi + 8 * rng:number(), omega = 180 }, left - 1
  end
  local x = mf.chemistry.backbone(rows):float()
  if mirror then x = x * mf.tensor { 1, 1, -1 } end
  return x:narrow(2, 1, 4):contiguous()
end

local function protein_of(n, seed, mirror)
  local f = mf.atoms.protein.features(chain_of(n, seed, mirror), mf.ones(n, 4):bool())
  return mf.structure.new { kind = "protein", rotations = f.rotations, translations = f.translations, torsions = f.torsions }
end

-- A helix of C4' with frames and torsions at random: RNA enough to be measured.
local function rna_of(n, seed)
  local rng, t = mf.rng(seed), {}
  for i = 1, n do t[i] = { 9 * math.cos(i * 0.57), 9 * math.sin(i * 0.57), 2.8 * i } end
  local angles = mf.rand(n, 8, { rng = rng }) * (2 * math.pi)
  return mf.structure.new {
    kind = "rna", rotations = mf.random.rotations(n, { rng = rng }), translations = mf.tensor(t),
    torsions = mf.stack({ angles:sin(), angles:cos() }, 3),
  }
end

local function entry_of(s, name)
  return { translations = s.translations, rotations = s.rotations, torsions = s.torsions,
    torsion_mask = mf.ones(s.length, s.torsions:size(2)):bool(), entry = { name = name } }
end

local function set_of(list, kind)
  local path = os.tmpname()
  mf.data.write(path, kind or "protein", list)
  local set = mf.data.open(path)
  os.remove(path)
  return set
end

local function measured(s) return specimen.of_structure(s:as_file(), "sample") end

local function near(a, b, what)
  assert.is_true(math.abs(a - b) < 2e-3 * math.max(1, math.abs(b)), ("%s: %g, %g"):format(what, a, b))
end

describe("a specimen", function()
  for _, kind in ipairs { "protein", "rna" } do
    local make = kind == "protein" and protein_of or rna_of
    it(kind .. ": has the metrics that the sample has, from the file and from the set", function()
      local s = make(40, 5)
      local expected = mf.metrics.backbone(s)
      local set = set_of({ entry_of(s, "one") }, kind)
      for _, one in ipairs { measured(s), specimen.of_window(set, 1) } do
        local m = one:metrics()
        for name, value in pairs(expected) do near(m[name], value, name) end
      end
    end)

    it(kind .. ": is the same structure again, and its own torsions are told", function()
      local s = make(20, 6)
      local one = measured(s)
      local again = one:structure()
      local x, present = again:atoms(1, mf.atoms.of(kind).names)
      assert.is_true(present:all())
      support.close(x, (s:atoms()), 1e-2)
      local angles = s.torsions:values()
      for k, value in ipairs(one.torsions) do near(value, angles[k], "torsion") end
    end)
  end

  it("leaves out residues without a frame, and breaks there", function()
    local s = protein_of(12, 7)
    local item = entry_of(s, "gap")
    item.mask = mf.arange(12):ge(7):logical_or(mf.arange(12):lt(5))
    local one = specimen.of_window(set_of { item }, 1)
    assert.equal(10, one.length)
    assert.same({ 1, 1, 1, 1, 1, 2, 2, 2, 2, 2 }, one.run)
    assert.same({ 1, 2, 3, 4, 5, 8, 9, 10, 11, 12 }, one.number)
    assert.is_false(one.joined(5))
    assert.is_true(one:metrics().ca_ca_bond_dev < 0.05)           -- the gap is no bond
    assert.equal(8, #distributions.add({}, one).ca_ca)
  end)

  it("measures only what a file has", function()
    local s = protein_of(12, 8)
    local atoms, names = s:atoms()
    local mask = mf.ones(12, 5):bool()
    mask = mask:logical_and(mf.arange(60):reshape(12, 5):ne(5 * 4 + 2))          -- no C in residue 5
    local file = mf.structure.from_atoms { atoms = atoms, mask = mask, names = names, residue_names = "ALA" }
    local values = distributions.add({}, specimen.of_structure(file))
    assert.same({ 11, 10, 10 }, { #values.ca_ca, #values.c_n, #values.ca_c_n })
    local m = specimen.of_structure(file):metrics()
    assert.equal(0, m.bonds_c_n_loss_mean)
    assert.equal(m.radius_gyration, m.radius_gyration)
  end)

  it("is of one kind", function()
    local two = mf.structure.build { chains = {
      { id = "A", polymer = "protein", residues = { { name = "ALA", atoms = { { name = "CA", x = 0, y = 0, z = 0 } } } } },
      { id = "B", polymer = "rna", residues = { { name = "A", atoms = { { name = "C4'", x = 0, y = 0, z = 9 } } } } },
    } }
    support.error_matches(function() specimen.of_structure(two, "two.pdb") end, "two.pdb: holds protein and RNA", true)
    local none = mf.structure.build { chains = {} }
    support.error_matches(function() specimen.of_structure(none, "none.pdb") end, "holds neither protein nor RNA", true)
  end)
end)

describe("distributions", function()
  it("give an ideal helix its bonds, angles and torsions", function()
    local rows = {}
    for i = 1, 20 do rows[i] = { phi = -57.8, psi = -47, omega = 180 } end
    local x = mf.chemistry.backbone(rows)
    local s = mf.structure.from_atoms { atoms = x, names = { "N", "CA", "C", "O", "CB" }, residue_names = "ALA" }
    local t = distributions.add({}, specimen.of_structure(s))
    local expected = {
      ca_ca = 3.8, ca_angle = 91, ca_dihedral = 51, phi = -57.8, psi = -47, c_n = 1.329, ca_c_n = 116.6, c_n_ca = 121.4,
    }
    for name, value in pairs(expected) do
      local d = mf.metrics.describe(t[name])
      assert.is_true(math.abs(d.median - value) < 0.02 * math.abs(value) and d.max - d.min < 1.5, ("%s: %g"):format(name, d.median))
    end
    for _, omega in ipairs(t.omega) do assert.is_true(math.abs(omega) > 178) end
    assert.same({ 19, 18, 17 }, { #t.ca_ca, #t.ca_angle, #t.ca_dihedral })
  end)

  it("of RNA are those of its atoms", function()
    local s = rna_of(15, 9)
    local t = distributions.add({}, measured(s))
    for _, d in ipairs(distributions.definitions.rna) do assert.is_table(t[d.name], d.name) end
    local atoms, names = s:atoms()
    local at = {}
    for k, name in ipairs(names) do at[name] = atoms:select(2, k) end
    local function apart(a, b) return (a - b):norm(2):values() end
    local last = 14
    local expected = {
      c4_c4 = apart(at["C4'"]:narrow(1, 2, last), at["C4'"]:narrow(1, 1, last)),
      p_p = apart(at.P:narrow(1, 2, last), at.P:narrow(1, 1, last)),
      o3_p = apart(at["O3'"]:narrow(1, 1, last), at.P:narrow(1, 2, last)), c3_o3 = apart(at["C3'"], at["O3'"]),
      c5_o5 = apart(at["C5'"], at["O5'"]), o5_p = apart(at["O5'"], at.P),
    }
    for name, list in pairs(expected) do
      assert.equal(#list, #t[name])
      for k, value in ipairs(list) do near(t[name][k], value, name) end
    end
    local angles = s.torsions:values()
    for k = 1, 8 do
      local value = math.deg(math.atan2(angles[2 * k - 1], angles[2 * k]))
      assert.is_true(math.abs((t["torsion_" .. k][1] - value + 180) % 360 - 180) < 0.5)
    end
  end)

  it("are as far apart as one must be moved, round the circle where it is one", function()
    local d = {}
    for _, one in ipairs(distributions.definitions.protein) do d[one.name] = one end
    near(distributions.apart(d.ca_ca, { 3.8, 3.9 }, { 4.0, 4.1 }), 0.2, "bond")
    near(distributions.apart(d.omega, { 179, 178 }, { -179, -178 }), 3, "torsion")
    assert.same({ 190, 10 }, distributions.within(d.omega, { -170, 10 }))
    assert.equal(0, distributions.apart(d.phi, { -60, 50 }, { 50, -60 }))
  end)
end)

describe("references", function()
  it("are entries about as long first, then windows of longer ones, the same for the same seed", function()
    local list = {}
    for k, n in ipairs { 30, 31, 29, 80, 90, 12 } do list[k] = entry_of(protein_of(n, k), "e" .. k) end
    local set = set_of(list)
    local chosen, whole = mf.metrics.references(set, 30, { n = 8 })
    assert.same({ 8, 3 }, { #chosen, whole })
    for k, one in ipairs(chosen) do
      assert.is_true(k <= 3 and math.abs(one.length - 30) <= 3 or one.length == 30)
      assert.is_true(k <= 3 or one.name == "e4" or one.name == "e5")
    end
    local again = mf.metrics.references(set, 30, { n = 8 })
    for k, one in ipairs(chosen) do assert.same(one.flat, again[k].flat) end
    assert.equal(0, #mf.metrics.references(set, 200))
    assert.equal(2, #mf.metrics.references(set, 30, { n = 2 }))
  end)
end)

describe("metrics.md 9.6", function()
  -- by a table of who is like whom, so that the rule is seen without a program
  local function clusters(lengths, alike, cut)
    local traces = {}
    for k, length in ipairs(lengths) do traces[k] = { length = length, k = k } end
    return mf.metrics.clusters(traces, { cut = cut or 0.5, similar = function(one, others)
      local scores = {}
      for i, other in ipairs(others) do scores[i] = alike(one.k, other.k) and 0.9 or 0.2 end
      return scores
    end })
  end

  it("identical copies are one cluster, dissimilar structures one each", function()
    assert.same({ { 1, 2, 3, 4 } }, clusters({ 50, 50, 50, 50 }, function() return true end))
    assert.equal(4, #clusters({ 50, 50, 50, 50 }, function() return false end))
  end)

  it("the longest founds, the next joins the latest that is like it, a much longer founder is never asked", function()
    local asked = {}
    local found = clusters({ 40, 60, 50, 20, 4 }, function(one, other)
      asked[one .. "," .. other] = true
      return one == 1
    end)
    assert.same({ { 2 }, { 3, 1 }, { 4 }, { 5 } }, found)
    assert.is_nil(asked["4,2"])                     -- 20 of 60 residues cannot reach 0.5
    assert.is_nil(asked["5,4"])                     -- up to five residues stand alone
  end)

  local needs = align.available() and it or function(name) pending(name .. ": TMalign is not there (package tm-align)") end

  needs("copies of one structure by alignment, whatever way they lie, and strangers", function()
    local rng, copies, strangers = mf.rng(4), {}, {}
    local x = chain_of(60, 11)
    for k = 1, 4 do
      local R = mf.random.rotations(1, { rng = rng }):select(1, 1)
      local moved = mf.structure.from_atoms {
        atoms = x:reshape(240, 3):matmul(R):reshape(60, 4, 3) + k, names = { "N", "CA", "C", "O" }, residue_names = "ALA",
      }
      copies[k] = align.trace(specimen.of_structure(moved, "copy"))
    end
    for k, one in ipairs { chain_of(90, 1), chain_of(70, 2), chain_of(52, 3), chain_of(64, 8) } do
      local s = mf.structure.from_atoms { atoms = one, names = { "N", "CA", "C", "O" }, residue_names = "ALA" }
      strangers[k] = align.trace(specimen.of_structure(s, "stranger"))
    end
    assert.equal(1 / 4, #mf.metrics.clusters(copies, { cut = 0.5 }) / 4)
    assert.equal(1, #mf.metrics.clusters(strangers, { cut = 0.5 }) / 4)
  end)

  needs("the novelty of a structure of the training set is one", function()
    for kind, make in pairs { protein = protein_of, rna = rna_of } do
      local references = {}
      for k, n in ipairs { 40, 45, 50 } do references[k] = align.trace(measured(make(n, k))) end
      local best = mf.metrics.nearest({ references[2], references[3] }, references)
      for k = 1, 2 do
        near(best[k].tm, 1, kind)
        near(best[k].tm_reference, 1, kind)
      end
      if kind == "protein" then assert.same({ 2, 3 }, { best[1].reference, best[2].reference }) end
    end
  end)

  needs("a share of the longer structure's residues is less, and RNA has its own scale", function()
    local long, rng = protein_of(80, 12), mf.rng(5)
    local part = mf.structure.new { kind = "protein", rotations = long.rotations:narrow(1, 1, 50):contiguous(),
      translations = long.translations:narrow(1, 1, 50):contiguous(), torsions = long.torsions:narrow(1, 1, 50):contiguous() }
    local one, other = align.trace(measured(part)), align.trace(measured(long))
    local result = align.pairs({ { one, other } })[1]
    near(result.tm1, 1, "of the part")
    assert.is_true(math.abs(result.tm2 - 50 / 80) < 0.02)
    -- noise that the proteins' scale at this length forgives more: d0 of 60 is 2.62, of RNA 2.13
    local a = rna_of(60, 3)
    local b = mf.structure.new { kind = "rna", rotations = a.rotations, torsions = a.torsions,
      translations = a.translations + mf.randn(60, 3, { rng = rng }) }
    local p, q = align.trace(measured(a)), align.trace(measured(b))
    local pair = align.pairs({ { p, q } })[1]
    local by_number = mf.metrics.tm_score(a, b).tm
    assert.is_true(math.abs(pair.tm1 - by_number) < 0.05, ("%g, %g"):format(pair.tm1, by_number))
    p.kind, q.kind = "protein", "protein"
    assert.is_true(align.pairs({ { p, q } })[1].tm1 > pair.tm1)
  end)

  needs("what cannot be aligned is told", function()
    local small, big = { kind = "protein", name = "a", length = 3 }, align.trace(measured(protein_of(20, 3)))
    assert.same({ false }, align.pairs { { small, big } })
    assert.same({ false }, mf.metrics.nearest({ small }, { big }))
    local other = { kind = "rna", name = "b", length = 20 }
    support.error_matches(function() align.pairs { { big, other } } end, "b is rna", true)
    support.error_matches(function() mf.metrics.nearest({ big }, {}) end, "metrics.nearest: no references", true)
    support.error_matches(function() mf.metrics.clusters({ big }, { cut = 2 }) end, "cut is 2, expected a TM-score", true)
  end)
end)

describe("scripts/evaluate.lua #slow", function()
  local moonfold = (os.getenv "MOONFOLD_BUILD" or "build") .. "/moonfold"
  local folder

  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    local list = {}
    for k, n in ipairs { 30, 31, 29, 60, 90 } do list[k] = entry_of(protein_of(n, k), "e" .. k) end
    files.make_folder(folder)
    mf.data.write(folder .. "/set.safetensors", "protein", list)
    for k, seed in ipairs { 1, 2, 4 } do
      local n = k < 3 and 30 or 60
      local s = protein_of(n, seed)
      local at = files.make_folder(("%s/samples/length_%d/sample_%d"):format(folder, n, k))
      s:save(at .. "/sample_1.pdb")
      files.replace(at .. "/bb_traj_1.pdb", "nothing to read")
    end
    rna_of(12, 3):save(files.make_folder(folder .. "/mixed") .. "/a.pdb")
    protein_of(12, 3):save(folder .. "/mixed/b.cif")
    rna_of(12, 3):save(files.make_folder(folder .. "/rna") .. "/a.pdb")
    files.make_folder(folder .. "/empty")
  end)
  teardown(function() os.execute("rm -rf '" .. folder .. "'") end)

  local function evaluate(words)
    local command = "%s scripts/evaluate.lua data=%s/set.safetensors out=%s/out references=4 %s 2>&1"
    local pipe = io.popen(command:format(moonfold, folder, folder, words))
    local text = pipe:read "*a"
    pipe:close()
    return text
  end

  it("measures and draws a folder of samples", function()
    if not files.exists(moonfold) then return pending "the program is not built" end
    local with = align.available() and " nearest=yes diversity=yes jobs=2" or ""
    local text = evaluate("samples=" .. folder .. "/samples" .. with)
    assert.truthy(text:find("3 protein samples", 1, true), text)
    assert.truthy(text:find("distribution", 1, true), text)
    local summary = json.decode(support.read_file(folder .. "/out/summary.json"))
    assert.same({ 30, 60 }, { summary.lengths[1].length, summary.lengths[2].length })
    assert.same({ 2, 3 }, { summary.lengths[1].samples, summary.lengths[1].data_whole })
    assert.is_true(summary.lengths[1].metrics.ca_ca_valid_two_sided.mean > 0.9)
    assert.is_number(summary.distributions.ca_ca.wasserstein)
    local csv = support.read_file(folder .. "/out/samples.csv")
    assert.equal(4, select(2, csv:gsub("\n", "")))
    if align.available() then
      -- two samples are in the set, the other lacks the last residue of an entry
      assert.is_true(summary.nearest.tm.min > 0.99 and summary.diversity.clusters <= 3)
      assert.truthy(csv:find(",e4,1,1,", 1, true), csv)
    end
    for _, name in ipairs { "samples", "data", "distributions", "lengths" } do
      assert.truthy(support.read_file(("%s/out/%s.svg"):format(folder, name)):find "</svg>%s*$")
    end
  end)

  it("measures RNA against the atoms of the files, with few of the nearest in length", function()
    if not files.exists(moonfold) then return pending "the program is not built" end
    local list, path = { atom_names = mf.atoms.rna.names }, folder .. "/rna.safetensors"
    for k, n in ipairs { 12, 13, 30, 31 } do
      list[k] = entry_of(rna_of(n, k), "r" .. k)
      list[k].atoms = rna_of(n, k):atoms()
      list[k].atom_mask = mf.ones(n, 12):bool()
    end
    mf.data.write(path, "rna", list)
    local with = align.available() and " nearest=yes nearest_n=1" or ""
    local text = evaluate(("samples=%s/rna data=%s reference=atoms pictures=0%s"):format(folder, path, with))
    assert.truthy(text:find("1 rna samples", 1, true), text)
    local summary = json.decode(support.read_file(folder .. "/out/summary.json"))
    assert.same({ 12, 2 }, { summary.lengths[1].length, summary.lengths[1].data_whole })
    assert.is_true(summary.distributions.c4_c4.wasserstein < 0.01)
    if align.available() then assert.same({ 1, 1 }, { summary.nearest.entries, summary.nearest.tm.n }) end
  end)

  it("says what it cannot measure", function()
    if not files.exists(moonfold) then return pending "the program is not built" end
    for words, message in pairs {
      ["samples=" .. folder .. "/empty"] = "empty holds no structure",
      ["samples=" .. folder .. "/nowhere"] = "nowhere holds no structure",
      ["samples=" .. folder .. "/mixed"] = "one kind is measured at a time",
      ["samples=" .. folder .. "/rna"] = "the samples are rna",
      ["samples=" .. folder .. "/samples reference=atoms"] = "has no atoms",
      ["samples=" .. folder .. "/samples split=x"] = "no entry has split",
      ["reference=own samples=x"] = "reference=own is neither frames nor atoms",
    } do
      local text = evaluate(words)
      assert.truthy(text:find(message, 1, true), text)
      assert.is_nil(text:find("traceback", 1, true))
    end
    assert.truthy(evaluate("--help"):find("nearest_n", 1, true))
  end)
end)
