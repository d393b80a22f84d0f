-- Secondary structure, torsions, contacts, clashes, base pairs: on a real protein, on structures made here whose answer is
-- known, and on what files do to them: missing atoms, breaks, one residue, CA alone, alternate locations, nothing at all.
local mf = require "moonfold"
local support = require "spec.support"
local chemistry = mf.chemistry

local NAMES = { "N", "CA", "C", "O", "CB" }

-- n residues with the same torsions, as rows for `backbone`.
local function rows(n, phi, psi)
  local list = {}
  for i = 1, n do list[i] = { phi = phi, psi = psi, omega = 180 } end
  return list
end

-- A structure of chains: lists of rows; o.move: a shift along x for each chain after the first, o.keep(chain, i, name).
local function made(lists, o)
  o = o or {}
  local chains = {}
  for c, list in ipairs(lists) do
    local x, residues = chemistry.backbone(list):totable(), {}
    for i = 1, #list do
      local atoms = {}
      for a, name in ipairs(NAMES) do
        local p = x[i][a]
        if not o.keep or o.keep(c, i, name) then
          atoms[#atoms + 1] = { name = name, element = name:sub(1, 1), x = p[1] + (c - 1) * (o.move or 50), y = p[2], z = p[3] }
        end
      end
      residues[i] = { name = o.names and o.names[i] or "ALA", atoms = atoms }
    end
    chains[c] = { id = string.char(64 + c), residues = residues }
  end
  return mf.structure.build { chains = chains }
end

local function ubiquitin() return mf.structure.read "spec/fixtures/1ubq.pdb.gz" end

describe("a residue's name", function()
  it("has a polymer, a letter, a parent and heavy atoms", function()
    assert.same({ name = "ALA", polymer = "protein", code = "A", standard = true, parent = "ALA",
      atoms = { "N", "CA", "C", "O", "CB" } }, chemistry.residue "ALA")
    local function short(name)
      local r = chemistry.residue(name)
      local state, atoms = r.standard and "standard" or "modified", #(r.atoms or {})
      return ("%s %s %s %s %d"):format(r.polymer, r.code, state, r.parent or "-", atoms)
    end
    local expected = {
      MSE = "protein M modified MET 8", HIE = "protein H modified HIS 10", PSU = "rna U modified U 20",
      A = "rna A standard A 22",
      DA = "dna A standard DA 21", DT = "dna T standard DT 20", T = "dna T modified DT 20", ADE = "nucleic A modified - 0",
      ACE = "cap X modified - 0", HOH = "water X modified - 0", XYZ = "unknown X modified - 0",
      [""] = "unknown X modified - 0",
    }
    for name, text in pairs(expected) do assert.equal(text, short(name), name) end
    chemistry.residue("ALA").atoms[1] = "no"       -- a table of the caller's own
    assert.equal("N", chemistry.residue("ALA").atoms[1])
    support.error_matches(function() chemistry.residue(7) end, "takes the name of a residue, not a number", true)
  end)

  it("lists the atoms that files hold, in their order", function()
    for _, r in ipairs(ubiquitin():residues(1)) do
      if r.polymer then
        local names = {}
        for i, a in ipairs(ubiquitin():residue_atoms(r.index)) do names[i] = a.name ~= "OXT" and a.name or nil end
        assert.same(names, chemistry.residue(r.name).atoms)
      end
    end
  end)

  it("lists 167 atoms of the amino acids, which are those of atom37 but for OXT", function()
    local heavy, names, total, distinct = require "moonfold.atoms.heavy", {}, 0, 0
    for name, atoms in pairs(heavy) do
      for _, atom in ipairs(#name == 3 and atoms or {}) do
        total = total + 1
        if not names[atom] then names[atom], distinct = true, distinct + 1 end
      end
    end
    assert.same({ 167, 36 }, { total, distinct })
  end)
end)

describe("secondary structure", function()
  -- by mkdssp 4.2.2
  local UBIQUITIN = "-EEEEEETTS-EEEEE--TTSBHHHHHHHHHHHH---GGGEEEEETTEEPPTTSBTGGGTPPTT-EEEEEE--S--"

  it("is the reference program's on ubiquitin", function()
    local s = ubiquitin()
    assert.same({ UBIQUITIN }, s:secondary_structure())
    assert.same({ (UBIQUITIN:gsub("P", "-")) }, s:secondary_structure { ppii = 0 })
    local three = s:secondary_structure({ classes = 3 })[1]
    assert.equal("CEEEEEECCCCEEEEECCCCCEHHHHHHHHHHHHCCCHHHEEEEECCEECCCCCECHHHCCCCCCEEEEEECCCCC", three)
  end)

  it("is an alpha, a 3-10 and a pi helix of ideal torsions", function()
    assert.equal("-" .. ("H"):rep(18) .. "-", made({ rows(20, -57.8, -47) }):secondary_structure()[1])
    assert.truthy(made({ rows(20, -49, -26) }):secondary_structure()[1]:find "^%-GGGGGGGGGGG")
    assert.truthy(made({ rows(24, -57, -70) }):secondary_structure()[1]:find "IIIIIIIIII")
  end)

  it("finds polyproline helices of two or three residues, or does not look", function()
    local s = made { rows(8, -75, 145) }
    -- (the reference program looks for no stretch of two at the last but two)
    assert.same({ "-PPPPPP-", "-PPPPP--", "--------" }, { s:secondary_structure()[1], s:secondary_structure({ ppii = 2 })[1],
      s:secondary_structure({ ppii = 0 })[1] })
    local list = rows(9, -140, 120)
    list[4], list[5] = { phi = -75, psi = 145 }, { phi = -75, psi = 145 }
    assert.same({ "---------", "---PP----" }, { made({ list }):secondary_structure()[1],
      made({ list }):secondary_structure({ ppii = 2 })[1] })
  end)

  it("breaks at the end of a chain and at a gap, and marks residues that lack an atom", function()
    local list = rows(12, -57.8, -47)
    assert.same({ "-HHHHHHHHHH-", "-HHHHHHHHHH-" }, made({ list, list }):secondary_structure())
    local lacking = made({ rows(20, -57.8, -47) }, { keep = function(_, i, name) return not (i == 9 and name == "O") end })
    local letters = lacking:secondary_structure()[1]
    assert.equal("?", letters:sub(9, 9))
    assert.equal("-HHHHHH", letters:sub(1, 7))
    assert.equal("HHHHHHHHH-", letters:sub(11, 20))
    assert.equal(20, #letters)
  end)

  it("bridges chains: strands side by side, neither of which has a partner of its own", function()
    -- the first hairpin of ubiquitin without its turn
    local from = ubiquitin()
    local function strand(id, first, last)
      local residues = {}
      for _, r in ipairs(from:residues(1)) do
        if r.number >= first and r.number <= last and r.polymer then
          residues[#residues + 1] = { name = r.name, number = r.number, atoms = from:residue_atoms(r.index) }
        end
      end
      return { id = id, residues = residues }
    end
    local both = mf.structure.build({ chains = { strand("A", 1, 8), strand("B", 10, 17) } }):secondary_structure()
    assert.same({ "-EEEEE--", "--EEEEE-" }, both)        -- mkdssp's
    assert.is_nil((mf.structure.build({ chains = { strand("A", 1, 8) } }):secondary_structure()[1]):find "[EB]")
  end)

  it("has no letter for water, ligands, nucleic acids and other models", function()
    local s = mf.structure.build { chains = {
      { id = "A", polymer = "rna", residues = { { name = "G", atoms = { { name = "P", x = 0, y = 0, z = 0 } } } } },
      { id = "B", residues = { { name = "GLY", atoms = { { name = "CA", x = 0, y = 0, z = 0 } } } } },
      { id = "B", model = 2, residues = { { name = "GLY", atoms = {} }, { name = "GLY", atoms = {} } } },
    } }
    assert.same({ [2] = "?" }, s:secondary_structure())
    assert.same({ [3] = "??" }, s:secondary_structure { model = 2 })
  end)

  it("survives one residue, CA alone and atoms on one spot", function()
    assert.same({ "-" }, made({ rows(1, 0, 0) }):secondary_structure())
    assert.same({ "?????" }, made({ rows(5, 0, 0) }, { keep = function(_, _, name) return name == "CA" end }):secondary_structure())
    local spot, residues = {}, {}
    for a, name in ipairs(NAMES) do spot[a] = { name = name, x = 1, y = 2, z = 3 } end
    for i = 1, 40 do residues[i] = { name = "ALA", atoms = spot } end
    assert.equal(40, #mf.structure.build({ chains = { { residues = residues } } }):secondary_structure()[1])
    assert.same({}, mf.structure.build({ chains = {} }):chains())
  end)

  it("takes the location that reading kept", function()
    local text = {}
    local x = chemistry.backbone(rows(12, -57.8, -47)):totable()
    for i = 1, 12 do
      for _, location in ipairs { { "A", 0.4, 30 }, { "B", 0.6, 0 } } do    -- the first one is nonsense
        for a = 1, 4 do
          text[#text + 1] = ("ATOM  %5d  %-3s%sALA A%4d    %8.3f%8.3f%8.3f%6.2f  0.00           %s"):format(#text + 1, NAMES[a],
            location[1], i, x[i][a][1] + location[3] * (i % 3), x[i][a][2], x[i][a][3], location[2], NAMES[a]:sub(1, 1))
        end
      end
    end
    assert.same({ "-HHHHHHHHHH-" }, mf.structure.parse(table.concat(text, "\n") .. "\nEND\n"):secondary_structure())
  end)
end)

describe("torsions", function()
  it("come back from a backbone that was made of them", function()
    local rng, list = mf.rng(5), {}
    for i = 1, 33 do
      list[i] = { phi = rng:number() * 300 - 150, psi = rng:number() * 300 - 150, omega = i % 7 == 0 and 1 or 178 }
    end
    local found = made({ list }):torsions()[1]
    assert.equal(33, #found)
    assert.is_nil(found[1].phi)
    assert.is_nil(found[33].psi or found[33].omega)
    for i = 1, 33 do
      for name, value in pairs(found[i]) do
        if list[i][name] then assert.is_true(math.abs(value - list[i][name]) < 1e-6, i .. name) end
      end
    end
  end)

  it("are those of ubiquitin, omega with the bond to the next residue", function()
    local t = ubiquitin():torsions()[1]
    -- gemmi's, degrees
    local expected = { { nil, 149.6288, 178.3074 }, { -91.0202, 138.2641, 173.3590 }, { -131.0989, 163.0465, 179.5694 } }
    for i, row in ipairs(expected) do
      for k, name in ipairs { "phi", "psi", "omega" } do
        if row[k] then assert.is_true(math.abs(t[i][name] - row[k]) < 1e-3) else assert.is_nil(t[i][name]) end
      end
    end
  end)

  it("do not reach over a break, past a missing atom, or into another chain", function()
    local list = rows(6, -60, -45)
    local s = made({ list, list }, { keep = function(c, i, name) return not (c == 1 and i == 3 and name == "C") end })
    local a, b = s:torsions()[1], s:torsions()[2]
    assert.same({ 6, 6 }, { #a, #b })
    assert.is_nil(a[3].phi or a[3].psi or a[3].omega)
    assert.is_nil(a[4].phi)
    assert.truthy(a[4].psi)
    assert.truthy(a[2].psi)
    assert.is_nil(b[1].phi)
    assert.same({ {} }, made({ rows(1, 0, 0) }):torsions()[1])
  end)

  it("puts carbonyl and CB where they belong", function()
    local x = chemistry.backbone(rows(3, -60, 140))
    assert.same({ 3, 5, 3 }, x:shape())
    local function distance(i, a, j, b) return (x:select(1, i):select(1, a) - x:select(1, j):select(1, b)):norm():item() end
    for _, bond in ipairs { { 1, 2, 1.458 }, { 2, 3, 1.525 }, { 3, 4, 1.231 }, { 2, 5, 1.53 } } do
      assert.is_true(math.abs(distance(2, bond[1], 2, bond[2]) - bond[3]) < 1e-9)
    end
    assert.is_true(math.abs(distance(1, 3, 2, 1) - 1.329) < 1e-9)
    assert.is_true(math.abs(distance(1, 4, 2, 1) - 2.25) < 0.03)      -- O to the next N, over the planar bond
    assert.is_true(math.abs(distance(2, 3, 2, 5) - 2.50) < 0.03)      -- C to CB: the angle at CA
    assert.same({ 0, 5, 3 }, chemistry.backbone({}):shape())
    support.error_matches(function() chemistry.backbone { { phi = 1 / 0 } } end, "torsion 1 of residue 1 is infinite", true)
  end)

  it("are an RNA's, with its pucker", function()
    -- a ring of known torsions: C3'-endo of amplitude 38, by its own formula
    local s = mf.structure.build { chains = { { id = "R", polymer = "rna", residues = { { name = "A", atoms = {
      { name = "C4'", x = 0, y = 0, z = 0 }, { name = "C3*", x = 1.52, y = 0, z = 0 }, { name = "O4'", x = -0.36, y = 1.40, z = 0 },
      { name = "C2'", x = 1.95, y = 1.43, z = 0.35 }, { name = "C1'", x = 0.75, y = 2.25, z = -0.1 },
    } } } } } }
    local t = s:torsions()[1][1]
    assert.truthy(t.pucker >= 0 and t.pucker < 360 and t.pucker_amplitude > 0)
    assert.is_nil(t.alpha or t.chi or t.phi)
  end)
end)

describe("torsions of a tRNA", function()
  it("are gemmi's, and the pucker is C3'-endo", function()
    local file = io.open("../shared/data/rna/1ehz.pdb.gz")
    if not file then return pending "skipped: no shared data" end
    file:close()
    local t = mf.structure.read("../shared/data/rna/1ehz.pdb.gz"):torsions()[1]
    local expected = { alpha = -67.4, beta = -178.4, gamma = 53.8, delta = 83.4, epsilon = -145.1, zeta = -76.8, chi = -163.8 }
    for name, value in pairs(expected) do assert.is_true(math.abs(t[2][name] - value) < 0.06, name) end
    assert.is_true(t[2].pucker > 0 and t[2].pucker < 36 and math.abs(t[2].pucker_amplitude - 36) < 5)
    assert.is_nil(t[1].alpha or t[76].zeta)
  end)
end)

describe("contacts", function()
  local function naive(s, cutoff, any, separation)
    local points, result = {}, {}
    for _, chain in ipairs(s:chains(1)) do
      for _, r in ipairs(s:residues(chain.index)) do
        for _, a in ipairs(r.polymer and s:residue_atoms(r.index) or {}) do
          if a.element ~= "H" and (any or a.name == "CA") then
            points[#points + 1] = { a.x, a.y, a.z, r.index - 1, chain.index }
          end
        end
      end
    end
    for i, p in ipairs(points) do
      for j = i + 1, #points do
        local q = points[j]
        local d = math.sqrt((p[1] - q[1]) ^ 2 + (p[2] - q[2]) ^ 2 + (p[3] - q[3]) ^ 2)
        if p[4] ~= q[4] and d <= cutoff and (p[5] ~= q[5] or q[4] - p[4] >= separation) then
          local key = p[4] .. " " .. q[4]
          result[key] = math.min(result[key] or d, d)
        end
      end
    end
    return result
  end

  it("are those of a double loop, by CA and by any atom", function()
    for _, s in ipairs { ubiquitin(), made({ rows(7, -57, -47), rows(5, -57, -47) }, { move = 4 }) } do
      for _, any in ipairs { false, true } do
        local expected = naive(s, 6.5, any, 3)
        local pairs_, d = s:contacts { cutoff = 6.5, atoms = any and "any" or "representative", separation = 3 }
        local ends, distances, last = pairs_:values(), d:values(), -1
        for k = 1, #distances do
          local i, j = ends[2 * k - 1], ends[2 * k]
          local key = i .. " " .. j
          assert.is_true(math.abs(expected[key] - distances[k]) < 1e-4, key)
          assert.is_true(i < j and i * 1e6 + j > last)
          last, expected[key] = i * 1e6 + j, nil
        end
        assert.is_nil(next(expected))
      end
    end
  end)

  it("are none where there is nothing to touch", function()
    local s = made { rows(1, 0, 0) }
    local pairs_, d = s:contacts()
    assert.same({ { 0, 2 }, { 0 } }, { pairs_:shape(), d:shape() })
  end)
end)

describe("clashes", function()
  it("are atoms of residues apart that overlap, with the depth", function()
    local function pair(element, x, separate)
      local residues = { { name = "CYS", atoms = { { name = element, element = element, x = 0, y = 0, z = 0 } } } }
      local filler = { name = "GLY", atoms = { { name = "CA", element = "C", x = 50, y = 0, z = 0 } } }
      for k = 1, separate - 1 do residues[k + 1] = filler end
      residues[separate + 1] = { name = "CYS", atoms = { { name = element, element = element, x = x, y = 0, z = 0 } } }
      return mf.structure.build { chains = { { residues = residues } } }
    end
    local pairs_, depth = pair("C", 1.5, 2):clashes()
    assert.same({ { 0, 2 } }, pairs_:totable())
    assert.is_true(math.abs(depth:item() - 0.4) < 1e-6)
    assert.equal(0, (pair("C", 2.0, 2):clashes()):size(1))
    assert.equal(1, (pair("C", 2.0, 2):clashes { overlap = 1 }):size(1))
    assert.equal(0, (pair("C", 1.5, 1):clashes()):size(1))       -- neighbours are bonded
    assert.equal(0, (pair("S", 2.0, 2):clashes()):size(1))       -- a disulphide
    assert.equal(0, (pair("H", 1.0, 2):clashes()):size(1))
  end)

  it("are none in ubiquitin, many when a chain lies on another", function()
    assert.equal(0, (ubiquitin():clashes()):size(1))
    local list = rows(9, -57, -47)
    assert.is_true(made({ list, list }, { move = 0.5 }):clashes():size(1) >= 9 * 5)
  end)
end)

describe("radius of gyration", function()
  it("is that of the polymers' heavy atoms", function()
    assert.is_true(math.abs(ubiquitin():radius_of_gyration() - 11.7257) < 1e-3)
    local s = mf.structure.build { chains = { { residues = { { name = "GLY", atoms = {
      { name = "N", element = "N", x = -2, y = 0, z = 0 }, { name = "C", element = "C", x = 2, y = 0, z = 0 },
      { name = "H", element = "H", x = 90, y = 0, z = 0 },
    } } } } } }
    assert.equal(2, s:radius_of_gyration())
    assert.equal(0, mf.structure.build({ chains = { { residues = {} } } }):radius_of_gyration())
  end)
end)

-- bases in the standard frame of a pair (Olson et al. 2001); the partner is turned about x
local BASES = {
  G = "C1' -2.477 5.399 N9 -1.289 4.551 C8 0.023 4.962 N7 0.870 3.969 C5 0.071 2.833 C6 0.424 1.460 O6 1.554 0.955 "
    .. "N1 -0.700 0.641 C2 -1.999 1.087 N2 -2.949 0.139 N3 -2.342 2.364 C4 -1.265 3.177",
  C = "C1' -2.477 5.402 N1 -1.285 4.542 C2 -1.472 3.158 O2 -2.628 2.709 N3 -0.391 2.344 C4 0.837 2.868 N4 1.875 2.027 "
    .. "C5 1.056 4.275 C6 -0.023 5.068",
  A = "C1' -2.479 5.346 N9 -1.291 4.498 C8 0.024 4.897 N7 0.877 3.902 C5 0.071 2.771 C6 0.369 1.398 N6 1.611 0.909 "
    .. "N1 -0.668 0.532 C2 -1.912 1.023 N3 -2.320 2.290 C4 -1.267 3.124",
  U = "C1' -2.481 5.354 N1 -1.284 4.500 C2 -1.462 3.131 O2 -2.563 2.608 N3 -0.302 2.397 C4 0.989 2.884 O4 1.935 2.094 "
    .. "C5 1.089 4.311 C6 -0.024 5.053",
  T = "C1' -2.481 5.354 N1 -1.284 4.500 C2 -1.462 3.135 O2 -2.562 2.608 N3 -0.298 2.407 C4 0.994 2.897 O4 1.944 2.119 "
    .. "C5 1.106 4.338 C7 2.466 4.961 C6 -0.024 5.057",
}

-- A uridine of these atoms, named as pseudouridine's.
local function turned(atoms)
  local names = { N1 = "C5", C5 = "N1", O2 = "O4", O4 = "O2", C2 = "C4", C4 = "C2" }
  for _, a in ipairs(atoms) do a.name = names[a.name] or a.name end
end

describe("base pairs", function()
  -- A helix step by step; second: on the other strand. dx shears the base (a wobble).
  local function base(letter, step, second, dx)
    local angle, atoms = math.rad(32.7) * step, {}
    for name, x, y in BASES[letter]:gmatch "(%S+) (%S+) (%S+)" do
      local u, v = tonumber(x) + (dx or 0), second and -tonumber(y) or tonumber(y)
      atoms[#atoms + 1] = { name = name, element = name:sub(1, 1), x = u * math.cos(angle) - v * math.sin(angle),
                            y = u * math.sin(angle) + v * math.cos(angle), z = 2.8 * step }
    end
    return { name = letter, atoms = atoms }
  end
  -- One strand up, a loop of bases far away, the other strand down.
  local function hairpin(up, down, loop)
    local residues = {}
    for k = 1, #up do residues[k] = base(up:sub(k, k), k) end
    for k = 1, loop do residues[#residues + 1] = base("A", 30 + 3 * k) end
    for k = 1, #down do
      local wobble = (up:sub(#up + 1 - k, #up + 1 - k) .. down:sub(k, k)):find "GU" and 2.2
      residues[#residues + 1] = base(down:sub(k, k), #down + 1 - k, true, wobble)
    end
    return { id = "A", polymer = "rna", residues = residues }
  end

  it("are Watson-Crick and wobble, and read as brackets", function()
    local s = mf.structure.build { chains = { hairpin("GAGC", "GUUC", 4) } }
    assert.same({
      { first = 1, second = 12, kind = "GC" }, { first = 2, second = 11, kind = "AU" },
      { first = 3, second = 10, kind = "GU" }, { first = 4, second = 9, kind = "GC" },
    }, s:base_pairs())
    local brackets, letters = s:dot_bracket()
    assert.same({ "((((....))))", "GAGCAAAAGUUC" }, { brackets, letters })
  end)

  it("are none between bases that do not match, or that are turned, or out of the plane", function()
    assert.equal("..........", (mf.structure.build({ chains = { hairpin("GAA", "GAG", 4) } }):dot_bracket()))
    local lifted = hairpin("G", "C", 4)
    for _, a in ipairs(lifted.residues[6].atoms) do a.z = a.z + 3.4 end
    assert.same({}, mf.structure.build({ chains = { lifted } }):base_pairs())
  end)

  it("take the next kind of bracket where helices cross, the longer one keeps the round ones", function()
    -- two strands that pair with two, interleaved: helices of 3 and of 2 far from each other
    local function shifted(residue, x)
      for _, a in ipairs(residue.atoms) do a.x = a.x + x end
      return residue
    end
    local residues = {}
    for k = 1, 2 do residues[#residues + 1] = shifted(base("G", k), 60) end
    for k = 1, 3 do residues[#residues + 1] = base("A", k) end
    for k = 2, 1, -1 do residues[#residues + 1] = shifted(base("C", k, true), 60) end
    for k = 3, 1, -1 do residues[#residues + 1] = base("U", k, true) end
    local s = mf.structure.build { chains = { { polymer = "rna", residues = residues } } }
    assert.equal("[[(((]])))", (s:dot_bracket()))
  end)

  it("know pseudouridine, whose O2 is where uridine has O4", function()
    local b = hairpin("", "U", 0)
    b.id, b.residues[1].name = "B", "PSU"
    turned(b.residues[1].atoms)
    assert.equal("(&)", (mf.structure.build({ chains = { hairpin("A", "", 0), b } }):dot_bracket()))
  end)

  it("are the clover leaf of a tRNA", function()
    local file = io.open("../shared/data/rna/1ehz.pdb.gz")
    if not file then return pending "skipped: no shared data" end
    file:close()
    assert.equal("(((((((..((((.....[..)))).((((.........)))).....(((((..]....))))))))))))....",
      (mf.structure.read("../shared/data/rna/1ehz.pdb.gz"):dot_bracket()))
  end)

  it("go between chains and skip bases that lack atoms", function()
    local a, b = hairpin("GGG", "", 0), hairpin("", "CCC", 0)
    b.id = "B"
    assert.equal("(((&)))", (mf.structure.build({ chains = { a, b } }):dot_bracket()))
    local atoms = a.residues[2].atoms
    for k = #atoms, 1, -1 do if atoms[k].name == "C6" then table.remove(atoms, k) end end
    assert.equal("(.(&).)", (mf.structure.build({ chains = { a, b } }):dot_bracket()))
    assert.equal("", (ubiquitin():dot_bracket()))
  end)
end)

describe("base frames", function()
  -- The standard base, each atom moved by R x + t.
  local function placed(letter, R, t, name)
    local atoms = {}
    for atom, x, y in BASES[letter]:gmatch "(%S+) (%S+) (%S+)" do
      local p = {}
      for a = 1, 3 do p[a] = R[a][1] * tonumber(x) + R[a][2] * tonumber(y) + t[a] end
      atoms[#atoms + 1] = { name = atom, element = atom:sub(1, 1), x = p[1], y = p[2], z = p[3] }
    end
    return { name = name or letter, atoms = atoms }
  end
  local function frames(residues, polymer)
    return mf.structure.build({ chains = { { polymer = polymer or "rna", residues = residues } } }):base_frames()[1]
  end
  local IDENTITY = { { 1, 0, 0 }, { 0, 1, 0 }, { 0, 0, 1 } }
  local function without(residue, ...)
    local kept = {}
    for _, a in ipairs(residue.atoms) do
      local stays = true
      for _, name in ipairs { ... } do stays = stays and a.name ~= name end
      if stays then kept[#kept + 1] = a end
    end
    return { name = residue.name, atoms = kept }
  end

  it("are the motion that the standard base was moved by", function()
    mf.seed(11)
    -- residue name, its base; modified ones by their parents
    local names = { "A", "C", "G", "U", "DA", "DC", "DG", "DT", "DU", "5MC", "2MG", "H2U", "PSU", "1MA", "5MU", "I" }
    local bases = { "A", "C", "G", "U", "A", "C", "G", "T", "U", "C", "G", "U", "U", "A", "U", "G" }
    local n = #names
    local R = mf.geometry.so3_exp(mf.randn(n, 3, { dtype = "float64" }) * 2)
    local t = mf.randn(n, 3, { dtype = "float64" }) * 50
    local turns, shifts, residues = R:totable(), t:totable(), {}
    for i = 1, n do
      residues[i] = placed(bases[i], turns[i], shifts[i], names[i])
      if names[i] == "PSU" then turned(residues[i].atoms) end
    end
    for _, polymer in ipairs { "rna", "dna" } do
      local f = frames(residues, polymer)
      assert.same({ { n, 3, 3 }, { n, 3 } }, { f.rotations:shape(), f.translations:shape() })
      assert.same({ { n }, { n } }, { f.rmsd:shape(), f.mask:shape() })
      assert.equal(n, f.mask:float():sum():item())
      -- coordinates of 100 angstrom are rounded to 1e-14; the smallest arm is 1
      assert.is_true((f.rotations - R):abs():max():item() < 1e-12)
      assert.is_true((f.translations - t):abs():max():item() < 1e-11)
      assert.is_true(f.rmsd:max():item() < 1e-12)
    end
  end)

  it("fit what is there of a ring, and are masked where less than half of it is, or it lies on a line", function()
    local t = { 1, 2, 3 }
    local line, spot, far = placed("U", IDENTITY, t), placed("A", IDENTITY, t), placed("C", IDENTITY, t)
    for k, a in ipairs(line.atoms) do a.x, a.y, a.z = k, 2 * k, 3 end
    for _, a in ipairs(spot.atoms) do a.x, a.y, a.z = 1, 1, 1 end
    far.atoms[1].x = 900                    -- C1' is not of the ring
    local G, U = placed("G", IDENTITY, t), placed("U", IDENTITY, t)
    local f = frames {
      without(G, "N9", "C8", "N7", "C5"), without(G, "N9", "C8", "N7", "C5", "C6"), without(U, "C4", "C5", "C6"),
      without(U, "C2", "N3", "C4", "C5"), line, spot, far, { name = "A", atoms = {} }, placed("A", IDENTITY, t, "N"),
    }
    local kept = { true, false, true, false, false, false, true, false, false }
    for i, there in ipairs(f.mask:totable()) do
      assert.equal(kept[i], there == true or there == 1, i)
      local R, at = f.rotations:select(1, i), f.translations:select(1, i):totable()
      assert.is_true((R - mf.tensor(IDENTITY, { dtype = "float64" })):abs():max():item() < 1e-9)
      for a = 1, 3 do assert.is_true(math.abs(at[a] - (kept[i] and t[a] or 0)) < 1e-9) end
      assert.is_true(f.rmsd:select(1, i):item() < 1e-9)
    end
  end)

  it("tell how far a ring is from the standard one", function()
    local bent = placed("U", IDENTITY, { 0, 0, 0 })
    for k, a in ipairs(bent.atoms) do a.z = k % 2 == 0 and 0.1 or -0.1 end
    local rmsd = frames({ bent }).rmsd:item()
    assert.is_true(rmsd > 0.05 and rmsd <= 0.1 + 1e-9)
  end)

  it("have rows for the polymer's residues of nucleic chains of one model", function()
    local water = { name = "HOH", atoms = { { name = "O", element = "O", x = 0, y = 0, z = 9 } } }
    local list = { placed("A", IDENTITY, { 0, 0, 0 }), placed("C", IDENTITY, { 0, 0, 3 }) }
    local s = mf.structure.build { chains = {
      { id = "A", polymer = "rna", residues = list }, { id = "W", residues = { water } },
      { id = "P", polymer = "protein", residues = { { name = "GLY", atoms = {} } } },
      { id = "A", model = 2, polymer = "dna", residues = {} },
    } }
    local function lengths(found)
      local result = {}
      for c, f in pairs(found) do result[c] = f.mask:size(1) end
      return result
    end
    assert.same({ [1] = 2 }, lengths(s:base_frames()))
    assert.same({ [4] = 0 }, lengths(s:base_frames { model = 2 }))
    support.error_matches(function() s:base_frames { model = 3 } end, "base_frames: there is no model 3, the structure has 2", true)
    support.error_matches(function() s:base_frames { model = 1.5 } end, "there is no model 1.5", true)
    assert.same({}, ubiquitin():base_frames())
  end)

  -- Of each pair: angle between the z axes in degrees, distance of the origins in angstrom.
  local function pairs_of(s)
    local frames_of, row, list = s:base_frames(), {}, {}
    for _, chain in ipairs(s:chains(1)) do
      local n = 0
      for _, r in ipairs(s:residues(chain.index)) do
        if r.polymer then
          n = n + 1
          row[r.index] = { frames_of[chain.index], n }
        end
      end
    end
    for _, p in ipairs(s:base_pairs()) do
      local a, b = row[p.first], row[p.second]
      local function of(x) return x[1].rotations:select(1, x[2]):totable(), x[1].translations:select(1, x[2]):totable() end
      local R, t = of(a)
      local Q, u = of(b)
      local dot, square = 0, 0
      for k = 1, 3 do
        dot, square = dot + R[k][3] * Q[k][3], square + (t[k] - u[k]) ^ 2
      end
      list[#list + 1] = { kind = p.kind, angle = math.deg(math.acos(math.max(-1, math.min(1, dot)))), distance = math.sqrt(square) }
    end
    return list
  end

  it("of an ideal pair stand in one place, turned about x", function()
    local half_turn = { { 1, 0, 0 }, { 0, -1, 0 }, { 0, 0, -1 } }
    for _, pair in ipairs { { "G", "C" }, { "A", "U" } } do
      local s = mf.structure.build { chains = {
        { id = "A", polymer = "rna", residues = { placed(pair[1], IDENTITY, { 5, 6, 7 }) } },
        { id = "B", polymer = "rna", residues = { placed(pair[2], half_turn, { 5, 6, 7 }) } },
      } }
      local p = pairs_of(s)[1]
      assert.is_true(p.distance < 1e-9 and p.angle > 180 - 1e-4)
    end
  end)

  it("of a tRNA's Watson-Crick pairs oppose each other and nearly meet", function()
    local file = io.open("../shared/data/rna/1ehz.pdb.gz")
    if not file then return pending "skipped: no shared data" end
    file:close()
    local s = mf.structure.read "../shared/data/rna/1ehz.pdb.gz"
    local n, distances, angles = 0, {}, {}
    for _, p in ipairs(pairs_of(s)) do
      if p.kind ~= "GU" then
        n = n + 1
        distances[n], angles[n] = p.distance, p.angle
      end
    end
    table.sort(distances)
    table.sort(angles)
    -- stems of A-RNA: propeller and buckle tilt a pair by some 13 degrees
    assert.equal(20, n)
    assert.is_true(distances[10] < 0.4 and distances[20] < 1, distances[20])
    assert.is_true(angles[10] > 160 and angles[1] > 140, angles[1])
    -- z goes along the strand: in the acceptor's helix each base is a rise of A-RNA above the one before
    local f = s:base_frames()[1]
    local R, t = f.rotations:totable(), f.translations:totable()
    for i = 1, 6 do
      local rise = 0
      for a = 1, 3 do rise = rise + R[i][a][3] * (t[i + 1][a] - t[i][a]) end
      assert.is_true(rise > 2 and rise < 4, rise)
    end
    assert.equal(76, f.mask:float():sum():item())           -- dihydrouridine, pseudouridine, wybutosine and all
  end)
end)

describe("looking at a structure", function()
  it("is one line when printed", function()
    assert.equal("structure 1UBQ: A protein 76; 1 model, 1 chain, 134 residues, 660 atoms", tostring(ubiquitin()))
    assert.equal("structure ?: 0 models, 0 chains, 0 residues, 0 atoms", tostring(mf.structure.build { chains = {} }))
    local lists = {}
    for c = 1, 6 do lists[c] = rows(1, 0, 0) end
    assert.equal("structure ?: A protein 1, B protein 1, C protein 1, D protein 1, 2 more; 1 model, 6 chains, 6 residues, 30 atoms",
      tostring(made(lists)))
  end)

  it("shows sequence, letters and gaps, in the width there is", function()
    local text = ubiquitin():show { width = 60 }
    for line in text:gsub("^.-\n", ""):gmatch "[^\n]+" do assert.is_true(#line <= 60, line) end
    assert.truthy(text:find("chain A: protein, 76 residues\n  1         11", 1, true))
    assert.truthy(text:find("\n  MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQL\n  -EEEEEETTS-EEEEE--TTSBHHHH", 1, true))
    local s = mf.structure.parse "ATOM      1  CA  GLY A   1       1.000   2.000   3.000  1.00  0.00           C\nEND\n"
    assert.truthy(s:show():find("chain A: protein, 1 residue\n  1\n  G\n  ?", 1, true))
    local empty = mf.structure.build { chains = {} }
    support.error_matches(function() empty:show() end, "there is no model 1, the structure has 0", true)
  end)

  it("marks residues that are missing, but not where numbers jump over a bond", function()
    local function text(first_of_second, shift)
      local x, lines = chemistry.backbone(rows(6, -57, -47)):totable(), {}
      for i = 1, 6 do
        for a = 1, 4 do
          local away = i > 3 and shift or 0
          lines[#lines + 1] = ("ATOM  %5d  %-3s ALA A%4d    %8.3f%8.3f%8.3f  1.00  0.00           %s"):format(#lines + 1, NAMES[a],
            i > 3 and first_of_second + i - 4 or i, x[i][a][1] + away, x[i][a][2], x[i][a][3], NAMES[a]:sub(1, 1))
        end
      end
      return mf.structure.parse(table.concat(lines, "\n") .. "\nEND\n"):show()
    end
    assert.truthy(text(9, 20):find("6 residues, 1 gap\n  1\n  AAA~AAA\n  ---~---", 1, true))
    assert.truthy(text(9, 0):find("6 residues\n  1\n  AAAAAA\n", 1, true))
    assert.truthy(text(4, 20):find("6 residues\n", 1, true))
  end)

  it("looks at samples as well", function()
    local x = chemistry.backbone(rows(12, -57.8, -47)):float()
    local f = mf.atoms.protein.features(x:narrow(2, 1, 4):contiguous(), mf.ones(12, 4):bool())
    local sample = mf.structure.new {
      kind = "protein", rotations = f.rotations, translations = f.translations, torsions = f.torsions,
    }
    assert.truthy(sample:show():find("  AAAAAAAAAAAA\n  -HHHHHHHHHH-", 1, true))
    assert.is_true(sample:as_file():radius_of_gyration() > 4)
    local path = os.tmpname()
    assert.is_true(sample:contact_map(path .. ".svg") > 0)
    os.remove(path)
    os.remove(path .. ".svg")
  end)

  it("draws a contact map as PNG and as SVG", function()
    local path = os.tmpname()
    local s = ubiquitin()
    local n = s:contact_map { path = path .. ".png", scale = 2 }
    assert.equal((s:contacts()):size(1), n)
    local text = support.read_file(path .. ".png")
    assert.equal("\137PNG\r\n\26\n\0\0\0\rIHDR\0\0\0\152\0\0\0\152\8\2", text:sub(1, 26))
    assert.equal(n, s:contact_map(path .. ".svg"))
    local drawn = support.read_file(path .. ".svg")
    assert.truthy(drawn:find "^<svg" and drawn:find "</svg>\n$")
    assert.equal(n, select(2, drawn:gsub("h1v1h%-1zM", "")))
    os.remove(path)
    os.remove(path .. ".png")
    os.remove(path .. ".svg")
  end)
end)

describe("chemistry refuses", function()
  local s = ubiquitin()
  for _, case in ipairs {
    { "a model that is not there", function() s:secondary_structure { model = 2 } end, "there is no model 2, the structure has 1" },
    { "model 0", function() s:torsions { model = 0 } end, "torsions: there is no model 0" },
    { "stretches of 4", function() s:secondary_structure { ppii = 4 } end, "takes 2 or 3 residues" },
    { "4 classes", function() s:secondary_structure { classes = 4 } end, "expected 8 or 3" },
    { "an unknown option", function() s:contacts { cutof = 8 } end, "unknown option 'cutof'" },
    { "a cutoff of 0", function() s:contacts { cutoff = 0 } end, "a cutoff of 0 angstrom" },
    { "a cutoff that is no number", function() s:contacts { cutoff = 0 / 0 } end, "a cutoff of" },
    { "other atoms", function() s:contacts { atoms = "CB" } end, "expected 'representative' or 'any'" },
    { "a negative overlap", function() s:clashes { overlap = -1 } end, "expected 0 or more" },
    { "an image of another kind", function() s:contact_map "map.gif" end, "ends neither in .png nor in .svg" },
    { "a folder that is not there", function() s:contact_map "/nowhere/map.png" end, "/nowhere/map.png" },
    { "half a pixel", function() s:contact_map { path = "map.png", scale = 0.5 } end, "expected 1, 2, ..." },
    { "what is no structure", function() chemistry.torsions {} end, "takes a structure" },
    { "lists of unequal length", function() chemistry.backbone_letters { N = {}, CA = { 1, 2, 3 }, C = {}, O = {} } end,
      "0 coordinates of N for 1 residues" },
    { "an image without pixels", function()
      local F = require "moonfold.ffi"
      F.check(F.C.mf_image_png("x.png", nil, 0, 4, 3))
    end, "0 x 4 pixels" },
  } do
    it(case[1], function()
      support.error_matches(case[2], case[3], true)
      support.error_matches(case[2], "chemistry_spec%.lua:%d+: ")      -- at the user's line
    end)
  end
end)
