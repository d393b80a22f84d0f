-- Atoms from frames and frames from atoms: the published templates, the peers' own outputs, real geometry, gradients.
local mf = require "moonfold"
local support = require "spec.support"

local protein, rna = mf.atoms.protein, mf.atoms.rna

local function identity(n) return mf.eye(3):unsqueeze(1):expand(n, 3, 3):contiguous(), mf.zeros(n, 3) end

local function pairs_of(angles)
  local rows = {}
  for k, angle in ipairs(angles) do rows[k] = { math.sin(angle), math.cos(angle) } end
  return mf.tensor({ rows })
end

local function random_torsions(n, k)
  local angle = support.random.uniform(-math.pi, math.pi, n, k):float()
  return mf.stack({ angle:sin(), angle:cos() }, 3)
end

local function random_frames(n)
  local R, t = support.random.frames(n, { dtype = "float32" })
  return R, t
end

local function column(rules, name)
  for i, other in ipairs(rules.names) do if other == name then return i end end
end

-- Reorders built atoms into the columns that `features` reads.
local function as_inputs(rules, atoms)
  local list = {}
  for i, name in ipairs(rules.inputs) do list[i] = atoms:narrow(2, column(rules, name:match "^[^|]*"), 1) end
  return mf.cat(list, 2)
end

describe("atoms.protein", function()
  it("agrees with the peer's atom37 array", function()
    local golden = mf.load "spec/fixtures/protein_atoms.safetensors"
    local built = protein.build(golden["in.rots"]:squeeze(1), golden["in.trans"]:squeeze(1), golden["in.psi"]:squeeze(1))
    support.close(protein.atom37(built), golden["out.atom37"]:squeeze(1), 1e-6)
  end)

  it("puts O where the table says for psi = 0 and psi = 90 degrees", function()
    local R, t = identity(2)
    local o = protein.build(R, t, mf.tensor { { 0, 1 }, { 1, 0 } }):select(2, 5)
    support.close(o, { { 2.153, -1.062, 0 }, { 2.153, 0, -1.062 } }, 1e-6)
  end)

  it("leaves O on the x axis without a torsion, as a fresh head's (0, 0) does", function()
    local R, t = identity(1)
    support.close(protein.build(R, t):select(2, 5), { { 2.153, 0, 0 } }, 1e-6)
    support.same_bits(protein.build(R, t), protein.build(R, t, mf.zeros(1, 2)))
  end)

  it("gets back the frames and psi it was built from", function()
    local R, t = random_frames(33)
    local psi = random_torsions(33, 1)
    local atoms = protein.build(R, t, psi)
    local f = protein.features(as_inputs(protein, atoms), mf.ones(33, 4):bool())
    -- coordinates of some 10 angstrom in float32 are known to 1e-6, over bonds of 1 to 1.5
    support.close(f.rotations, R, 1e-5)
    support.close(f.translations, t, 1e-6)
    support.close(f.torsions, psi, 1e-5)
    assert.is_true(f.mask:all())
    assert.is_true(f.torsion_mask:all())
  end)

  it("flags residues whose atoms are missing, collinear, equal or not numbers, and gives them the identity", function()
    local R, t = random_frames(6)
    local x = as_inputs(protein, protein.build(R, t, random_torsions(6, 1))):totable()
    local present = {}
    for i = 1, 6 do present[i] = { true, true, true, true } end
    present[2][3] = false
    for a = 1, 3 do
      x[3][1][a], x[3][3][a] = x[3][2][a] + a, x[3][2][a] + 2 * a        -- N, CA and C on one line
      x[4][1][a] = x[4][2][a]
    end
    x[5][1][2] = 0 / 0
    present[6][4] = false
    local f = protein.features(mf.tensor(x), mf.tensor(present))
    assert.same({ true, false, false, false, false, true }, f.mask:totable())
    assert.same({ { true }, { false }, { false }, { false }, { false }, { false } }, f.torsion_mask:totable())
    for _, i in ipairs { 2, 3, 4, 5 } do support.close(f.rotations:select(1, i), mf.eye(3), 0) end
    assert.equal(f.torsions:sum():item(), f.torsions:sum():item())       -- no nan gets out
  end)

  it("differentiates build #grad", function()
    local R, t = support.random.frames(5)
    support.gradients_match(function(r, x, psi) return protein.build(r, x, psi):square() end,
      { R, t, support.random.normal(5, 1, 2) })
  end)

  it("makes no atoms of no residues", function()
    assert.same({ 0, 5, 3 }, protein.build(mf.zeros(0, 3, 3), mf.zeros(0, 3), mf.zeros(0, 1, 2)):shape())
  end)
end)

describe("atoms.rna", function()
  it("agrees with the peer's array of 37 slots", function()
    local golden = mf.load "spec/fixtures/rna_atoms.safetensors"
    local built = rna.build(golden["in.rots"]:squeeze(1), golden["in.trans"]:squeeze(1), golden["in.torsions"]:reshape(30, 8, 2))
    -- the peer keeps C4' a millionth of an angstrom off the origin
    support.close(rna.atom37(built), golden["out.atom37"]:squeeze(1), 1e-6)
  end)

  local function matches(angles, expected)
    local R, t = identity(1)
    local atoms = rna.build(R, t, pairs_of(angles))
    for name, xyz in pairs(expected) do
      support.close(atoms:select(2, column(rna, name)), { xyz }, 5e-5, name)     -- four printed decimals
    end
  end

  it("places the published golden vector", function()
    matches({ 0.5, -1.0, 1.5, -2.0, 2.5, -3.0, 1.0, -1.5 }, {
      ["C2'"] = { -1.6984, 1.5762, -0.7492 }, ["C1'"] = { 1.9265, 0.7210, -1.1229 }, N9 = { 1.9862, 2.1460, -0.7568 },
      ["O3'"] = { 0.7648, 2.3088, -0.1359 }, ["O5'"] = { 0.4517, -1.7792, -1.5790 }, P = { 0.2434, -2.6260, -2.9115 },
      OP1 = { 0.1082, -1.6849, -4.0502 }, OP2 = { -0.5931, -3.8068, -2.5849 },
    })
  end)

  it("places the table of zero angles and of 0.1 to 0.8", function()
    matches({ 0, 0, 0, 0, 0, 0, 0, 0 }, {
      ["C2'"] = { -1.2018, 1.7034, -1.2586 }, N9 = { 0.7607, 2.2339, 0 }, P = { -1.4763, 1.5670, -1.7676 },
      OP2 = { -0.7867, 1.8940, -0.4955 },
    })
    matches({ 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8 }, {
      ["C2'"] = { -1.3199, 1.6732, -1.1783 }, ["C1'"] = { 1.9265, 1.3079, 0.2651 }, N9 = { 0.8196, 2.0866, 0.8452 },
      ["O3'"] = { -1.5356, 1.7193, -0.7873 }, ["O5'"] = { -0.6566, 0.0207, -2.3305 }, P = { 0.3465, 1.2257, -2.6097 },
      OP1 = { 1.7186, 0.7865, -2.2561 }, OP2 = { 1.7301, 0.7385, -2.3881 },
    })
  end)

  it("gets back the frames and torsions it was built from", function()
    local R, t = random_frames(31)
    local torsions = random_torsions(31, 8)
    local f = rna.features(as_inputs(rna, rna.build(R, t, torsions)), mf.ones(31, 12):bool())
    support.close(f.rotations, R, 1e-5)
    support.close(f.torsions, torsions, 2e-5)
    assert.is_true(f.torsion_mask:all())
  end)

  it("masks exactly the torsions that touch a missing phosphate", function()
    local R, t = random_frames(2)
    local mask = mf.ones(2, 12):totable()
    for _, missing in ipairs { 9, 10, 11 } do mask[1][missing] = 0 end
    local f = rna.features(as_inputs(rna, rna.build(R, t, random_torsions(2, 8))), mf.tensor(mask):bool())
    assert.same({ true, true, true, true, true, false, false, false }, f.torsion_mask:totable()[1])
    assert.is_true(f.mask:all())
    local there = rna.present(f.mask, f.torsion_mask):totable()
    for i, name in ipairs(rna.names) do
      assert.equal(not (name == "P" or name == "OP1" or name == "OP2"), there[1][i])
      assert.is_true(there[2][i])
    end
  end)

  it("adds O2' where its bond, its angles and its handedness are right", function()
    local R, t = random_frames(7)
    local atoms = rna.build(R, t, random_torsions(7, 8), { o2_prime = true })
    assert.same({ 7, 13, 3 }, atoms:shape())
    local c3, c2, c1, o2 = atoms:select(2, 1), atoms:select(2, 5), atoms:select(2, 6), atoms:select(2, 13)
    support.close((o2 - c2):norm(2), mf.full({ 7 }, math.sqrt(0.519 ^ 2 + 0.579 ^ 2 + 1.184 ^ 2)), 1e-5)
    support.close(((o2 - c2) * (c3 - c2)):sum(2) / (c3 - c2):norm(2), mf.full({ 7 }, -0.519), 1e-4)
    assert.is_true(((o2 - c1):norm(2)):gt(2):all())
  end)

  it("differentiates build, with and without O2' #grad", function()
    local R, t = support.random.frames(3)
    for _, o2 in ipairs { false, true } do
      support.gradients_match(function(r, x, a) return rna.build(r, x, a, { o2_prime = o2 }):square() end,
        { R, t, support.random.normal(3, 8, 2) })
    end
  end)

  it("knows the atoms that a loss looks at", function()
    local function names(extra)
      local list = {}
      for i, at in ipairs(rna.loss_columns(extra)) do list[i] = rna.names[at] end
      return table.concat(list, " ")
    end
    assert.equal("C3' C4' O4'", names(0))
    assert.equal("C3' C4' O4' C1' O3' P", names(3))
    assert.equal("C3' C4' O4' C1' C5' O3' P OP1 OP2 N9", names(7))
    support.error_matches(function() mf.flow.se3 { profile = "rna", loss_atoms = 4 } end, "loss_atoms is '4'", true)
  end)
end)

it("atoms.of names the kinds it knows", function()
  support.error_matches(function() mf.atoms.of "dna" end, "kind is 'dna', expected 'protein' or 'rna'", true)
end)
