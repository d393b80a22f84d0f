-- Metrics of single backbones and of sets: ideal geometry, counted clashes, secondary structure, distributions.
local mf = require "moonfold"
local support = require "spec.support"
local cells = require "moonfold.metrics.cells"

-- Positions of a chain grown atom by atom: each from three before it by bond, angle and torsion.
local function extend(a, b, c, bond, angle, torsion)
  local function sub(p, q) return { p[1] - q[1], p[2] - q[2], p[3] - q[3] } end
  local function unit(v) local l = math.sqrt(v[1] ^ 2 + v[2] ^ 2 + v[3] ^ 2); return { v[1] / l, v[2] / l, v[3] / l } end
  local function cross(p, q) return { p[2] * q[3] - p[3] * q[2], p[3] * q[1] - p[1] * q[3], p[1] * q[2] - p[2] * q[1] } end
  local bc = unit(sub(c, b))
  local n = unit(cross(sub(b, a), bc))
  local m = cross(n, bc)
  local x, y, z = -bond * math.cos(angle), bond * math.sin(angle) * math.cos(torsion), bond * math.sin(angle) * math.sin(torsion)
  return { c[1] + x * bc[1] + y * m[1] + z * n[1], c[2] + x * bc[2] + y * m[2] + z * n[2], c[3] + x * bc[3] + y * m[3] + z * n[3] }
end

local rad = math.rad

-- N, CA, C, O of a chain with ideal peptides and the given phi and psi in degrees.
local function chain_of(n, phi, psi)
  local list = { { 0, 0, 0 }, { 1.458, 0, 0 }, { 2.009, 1.423, 0 } }
  for _ = 2, n do
    local k = #list
    list[k + 1] = extend(list[k - 2], list[k - 1], list[k], 1.329, rad(116.57), rad(psi))
    list[k + 2] = extend(list[k - 1], list[k], list[k + 1], 1.458, rad(121.35), math.pi)
    list[k + 3] = extend(list[k], list[k + 1], list[k + 2], 1.525, rad(111), rad(phi))
  end
  local x = { N = {}, CA = {}, C = {}, O = {} }
  for i = 1, n do
    local N, CA, C = list[3 * i - 2], list[3 * i - 1], list[3 * i]
    local O = extend(N, CA, C, 1.231, rad(120.5), rad(psi + 180))
    for name, p in pairs { N = N, CA = CA, C = C, O = O } do
      for a = 1, 3 do x[name][3 * i - 3 + a] = p[a] end
    end
  end
  return x
end

-- The same chain as frames and psi, as a sample would hold it.
local function as_structure(x)
  local n = #x.CA / 3
  local columns = {}
  for i, name in ipairs(mf.atoms.protein.inputs) do columns[i] = mf.tensor(x[name]):reshape(n, 1, 3) end
  local f = mf.atoms.protein.features(mf.cat(columns, 2), mf.ones(n, 4):bool())
  return { kind = "protein", rotations = f.rotations, translations = f.translations, torsions = f.torsions }
end

describe("metrics.backbone", function()
  it("finds a helix, its bonds right and no clashes in an ideal alpha helix", function()
    local m, letters = mf.metrics.backbone(as_structure(chain_of(20, -57.8, -47)))
    assert.is_true(m.helix_percent >= 0.8, letters)
    assert.is_true(m.ca_ca_bond_dev < 0.02)
    assert.equal(1, m.ca_ca_valid_percent)
    assert.equal(1, m.ca_ca_valid_two_sided)
    assert.equal(0, m.num_ca_steric_clashes)
    assert.equal(0, m.bonds_c_n_loss_mean)
    assert.equal(0, m.angles_ca_c_n_loss_mean)
    assert.equal(0, m.angles_c_n_ca_loss_mean)
    assert.equal(0, m.clashes_mean_loss)
  end)

  it("counts clashes and broken bonds that were put there", function()
    local s = as_structure(chain_of(20, -120, 130))
    local t = s.translations:totable()
    t[15] = { t[3][1] + 0.5, t[3][2], t[3][3] }
    s.translations = mf.tensor(t)
    local m = mf.metrics.backbone(s)
    assert.equal(1, m.num_ca_steric_clashes)
    support.close(mf.tensor(m.ca_steric_clash_percent), mf.tensor(1 / 190), 1e-6)
    support.close(mf.tensor(m.ca_ca_valid_percent), mf.tensor(17 / 19), 1e-6)
    assert.is_true(m.num_clashes > 0 and m.clashes_mean_loss > 0 and m.bonds_c_n_loss_mean > 0)
  end)

  it("does not bond residues of different chains", function()
    local s = as_structure(chain_of(10, -57.8, -47))
    local t = s.translations:totable()
    for i = 6, 10 do t[i][1] = t[i][1] + 50 end
    s.translations = mf.tensor(t)
    local apart = mf.metrics.backbone(s, { chain = { 1, 1, 1, 1, 1, 2, 2, 2, 2, 2 } })
    assert.is_true(apart.ca_ca_bond_dev < 0.02)
    assert.is_true(mf.metrics.backbone(s).ca_ca_bond_dev > 1)
  end)

  it("is unchanged by a rigid motion", function()
    local s = as_structure(chain_of(25, -70, -30))
    local Q, q = support.random.rigid { dtype = "float32" }
    local moved = { kind = "protein", rotations = Q:matmul(s.rotations), torsions = s.torsions,
                    translations = s.translations:matmul(Q:select(1, 1):t()) + q }
    local a, b = mf.metrics.backbone(s), mf.metrics.backbone(moved)
    for name, value in pairs(a) do
      assert.is_true(math.abs(value - b[name]) <= 1e-4 * math.max(1, math.abs(value)), name)
    end
  end)

  it("measures RNA", function()
    local rng = mf.rng(3)
    local t = {}
    for i = 1, 10 do t[i] = { 6.12 * i, 0, 0 } end
    local m = mf.metrics.backbone { kind = "rna", rotations = mf.random.rotations(10, { rng = rng }), translations = mf.tensor(t) }
    support.close(mf.tensor(m.c4_c4_mean), mf.tensor(6.12), 1e-6)
    assert.equal(1, m.c4_c4_valid_percent)
    assert.equal(0, m.num_c4_steric_clashes)
    support.close(mf.tensor(m.radius_gyration), mf.tensor(6.12 * math.sqrt(99 / 12)), 1e-5)
  end)

  it("survives one residue, and coordinates that are not numbers", function()
    assert.equal(0, mf.metrics.backbone(as_structure(chain_of(1, 0, 0))).ca_ca_bond_dev)
    local s = as_structure(chain_of(6, -57, -47))
    s.translations = s.translations * (0 / 0)
    assert.equal(0, mf.metrics.backbone(s).num_clashes)
  end)

  it("knows the radius of gyration of a ball and of the prior", function()
    local rng, flat, n = mf.rng(9), {}, 0
    while n < 20000 do
      local x, y, z = rng:number() * 2 - 1, rng:number() * 2 - 1, rng:number() * 2 - 1
      if x * x + y * y + z * z <= 1 then
        flat[3 * n + 1], flat[3 * n + 2], flat[3 * n + 3] = x, y, z
        n = n + 1
      end
    end
    assert.is_true(math.abs(mf.metrics.radius_of_gyration(flat) / math.sqrt(3 / 5) - 1) < 0.01)
    local prior = (mf.randn(20000, 3, { rng = rng }) * 10):values()
    assert.is_true(math.abs(mf.metrics.radius_of_gyration(prior) / (math.sqrt(3) * 10) - 1) < 0.01)
  end)
end)

describe("cells", function()
  it("meet the same pairs as a double loop, once each", function()
    local rng = mf.rng(13)
    for _, n in ipairs { 0, 1, 2, 33, 211 } do
      local x, expected, met = {}, 0, {}
      for i = 1, 3 * n do x[i] = (rng:number() - 0.5) * 20 end
      for i = 1, n do
        for j = i + 1, n do
          local d2 = (x[3 * i] - x[3 * j]) ^ 2 + (x[3 * i - 1] - x[3 * j - 1]) ^ 2 + (x[3 * i - 2] - x[3 * j - 2]) ^ 2
          if d2 < 9 then expected = expected + 1 end
        end
      end
      local count = 0
      cells.pairs(x, 3, function(i, j)
        assert.is_true(i < j and not met[i * 1000 + j])
        met[i * 1000 + j], count = true, count + 1
      end)
      assert.equal(expected, count)
    end
  end)
end)

describe("dssp", function()
  it("sees no bond in an extended chain and none in an empty one", function()
    assert.equal(("-"):rep(12), mf.metrics.dssp(chain_of(12, -140, 140)))
    assert.equal("", mf.metrics.dssp { N = {}, CA = {}, C = {}, O = {} })
  end)

  it("gives prolines no hydrogen and breaks helices at chain ends", function()
    local x, proline, chain = chain_of(20, -57.8, -47), {}, {}
    for i = 1, 20 do proline[i], chain[i] = true, i <= 10 and 1 or 2 end
    assert.equal("--" .. ("S"):rep(16) .. "--", mf.metrics.dssp(x, { proline = proline }))
    local whole, cut = mf.metrics.dssp(x), mf.metrics.dssp(x, { chain = chain })
    assert.equal("-" .. ("H"):rep(18) .. "-", whole)
    assert.equal("-HHHHHHHH--HHHHHHHH-", cut)
  end)

  -- ubiquitin by the reference program (mkdssp 4.2.2), without its polyproline helices
  local REFERENCE = "-EEEEEETTS-EEEEE--TTSBHHHHHHHHHHHH---GGGEEEEETTEE--TTSBTGGGT--TT-EEEEEE--S--"

  it("agrees with the reference program on ubiquitin, residue by residue", function()
    local s = mf.structure.read "spec/fixtures/1ubq.pdb.gz"
    local x, present = s:atoms(1, { "N", "CA", "C", "O" })
    assert.is_true(present:all())
    local parts = {}
    for k, name in ipairs { "N", "CA", "C", "O" } do parts[name] = x:select(2, k):contiguous():values() end
    local proline = {}
    local sequence = s:chains()[1].sequence
    for i = 1, #sequence do proline[i] = sequence:sub(i, i) == "P" end
    local letters = mf.metrics.dssp(parts, { proline = proline })
    assert.equal(REFERENCE, letters)
    support.close(mf.tensor(mf.metrics.dssp_shares("HHGE-").coil), mf.tensor(0.2), 1e-6)
  end)
end)

describe("summary", function()
  it("describes columns", function()
    local t = mf.metrics.summary { { a = 1, name = "x" }, { a = 3 }, { a = 2 }, { a = 4 } }
    assert.is_nil(t.name)
    assert.same({ 4, 2.5, 1, 1.75, 2.5, 3.25, 4 }, { t.a.n, t.a.mean, t.a.min, t.a.q25, t.a.median, t.a.q75, t.a.max })
    support.close(mf.tensor(t.a.sd), mf.tensor(math.sqrt(5 / 3)), 1e-6)
    assert.equal(2.5, mf.metrics.quantile({ 1, 0 / 0, 4 }, 0.5))
  end)

  it("measures how far one distribution must be moved to become another", function()
    local w = mf.metrics.wasserstein
    assert.equal(0, w({ 3, 1, 2 }, { 1, 2, 3 }))
    assert.equal(5, w({ 1, 2, 3 }, { 6, 7, 8 }))
    assert.equal(0.5, w({ 0 }, { 0, 1 }))
    assert.are_not.equal(w({}, { 1 }), w({}, { 1 }))           -- nan
  end)

  it("goes round the circle the short way", function()
    local w = mf.metrics.circular_wasserstein
    support.close(mf.tensor(w({ 0.1 }, { 2 * math.pi - 0.1 })), mf.tensor(0.2), 1e-6)
    support.close(mf.tensor(w({ 10, 350 }, { 20, 0 }, 360)), mf.tensor(10), 1e-6)
    assert.is_true(w({ 1, 2, 3 }, { 3, 2, 1 }) < 1e-12)
  end)
end)
