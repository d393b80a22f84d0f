local mf = require "moonfold"
local support = require "spec.support.geometry"

local geometry, tensor, near = mf.geometry, support.tensor, support.near
local double = { dtype = "float64" }

local function normal(shape, seed) return mf.randn(shape, { dtype = "float64", rng = mf.rng(seed) }) end
local function rotations(n, seed) return mf.random.rotations(n, { dtype = "float64", rng = mf.rng(seed) }) end

-- R x for one matrix of each sequence and points (N, 3), as sums of products.
local function turned(R, x) return geometry.apply(R:contiguous(), mf.zeros({ R:size(1), 3 }, double), x) end

describe("frames_from_points", function()
  it("puts x toward the first point and y on the side of the second", function()
    local x_axis, xy, origin = normal({ 30, 3 }, 1), normal({ 30, 3 }, 2), normal({ 30, 3 }, 3)
    local R = geometry.frames_from_points(x_axis, xy, origin)
    local x, y = geometry.invert_apply(R, origin, x_axis), geometry.invert_apply(R, origin, xy)
    local along = (x_axis - origin):norm(2)
    -- 1e-8 under the root shortens an axis of length d by 0.5e-8 / d^2, d > 0.1 here
    near(x:select(2, 1), along, 1e-6)
    near(x:narrow(2, 2, 2), mf.zeros({ 30, 2 }, double), 1e-6)
    near(y:select(2, 3), mf.zeros({ 30 }, double), 1e-6)
    assert.is_true(y:select(2, 2):gt(0):all())
    local identity = mf.eye(3):double():unsqueeze(1):expand(30, 3, 3)
    local columns = {}
    for j = 1, 3 do columns[j] = geometry.invert_apply(R, mf.zeros({ 30, 3 }, double), R:select(3, j)) end
    near(mf.stack(columns, 3), identity, 1e-5)
  end)

  it("stays finite where points coincide or lie on a line", function()
    local zero, one = mf.zeros({ 1, 3 }, double), tensor({ 1, 0, 0 }, { 1, 3 })
    near(geometry.frames_from_points(zero, zero, zero), mf.zeros({ 1, 3, 3 }, double), 0)
    for _, points in ipairs { { zero, zero, zero }, { one, one * 2, zero } } do
      local leaves = {}
      for i = 1, 3 do leaves[i] = points[i]:clone():require_grad() end
      geometry.frames_from_points(unpack(leaves)):sum():backward()
      for i = 1, 3 do
        for _, g in ipairs(leaves[i]:grad():values()) do assert.is_true(g == g and math.abs(g) < 1e9) end
      end
    end
  end)

  it("differentiates #grad", function()
    local points = { normal({ 4, 3 }, 4), normal({ 4, 3 }, 5), normal({ 4, 3 }, 6) }
    support.gradients_match(geometry.frames_from_points, points, { bound = 1e-6 })
  end)
end)

describe("apply and invert_apply", function()
  for _, points in ipairs { 0, 1, 3, 8, 33 } do
    it(("cancel, and differentiate, with %d points a frame #grad"):format(points), function()
      local R, t, x = rotations(5, 7), normal({ 5, 3 }, 8), normal({ 5, 33, 3 }, 9):narrow(2, 1, points)
      near(geometry.invert_apply(R, t, geometry.apply(R, t, x)), x, 1e-14)
      near(geometry.apply(R, t, geometry.invert_apply(R, t, x)), x, 1e-14)
      if points > 0 and points < 33 then
        support.gradients_match(geometry.apply, { R, t, x })
        support.gradients_match(geometry.invert_apply, { R, t, x })
      end
    end)
  end

  it("are R x + t, in float to rounding", function()
    local R, t, x = rotations(7, 10), normal({ 7, 3 }, 11) * 30, normal({ 7, 4, 3 }, 12) * 10
    local y = (R:unsqueeze(2) * x:unsqueeze(3)):sum(4) + t:unsqueeze(2)
    near(geometry.apply(R, t, x), y, 1e-13)
    -- sums of four terms up to 100: each rounding is 100 * 2^-24 = 6e-6
    near(geometry.apply(R:float(), t:float(), x:float()), y, 4e-5)
    near(geometry.apply(R, t, t), geometry.apply(R, t, t:unsqueeze(2)):squeeze(2), 0)
  end)

  it("read views, and give only the gradients that are asked for #grad", function()
    local R, t, x = rotations(4, 13), normal({ 3, 4 }, 14):t(), normal({ 4, 3, 5 }, 15):transpose(2, 3)
    near(geometry.apply(R:transpose(2, 3), t, x), geometry.apply(R:transpose(2, 3):contiguous(), t:contiguous(), x:contiguous()), 0)
    for only = 1, 3 do
      local inputs = { R, t, x }
      inputs[only] = inputs[only]:clone():require_grad()
      geometry.invert_apply(unpack(inputs)):sum():backward()
      for i = 1, 3 do assert.equal(i == only, inputs[i]:grad() ~= nil) end
    end
  end)

  it("compose as functions", function()
    local R1, t1, R2, t2, x = rotations(6, 16), normal({ 6, 3 }, 17), rotations(6, 18), normal({ 6, 3 }, 19), normal({ 6, 3 }, 20)
    local R, t = geometry.compose(R1, t1, R2, t2)
    near(geometry.apply(R, t, x), geometry.apply(R1, t1, geometry.apply(R2, t2, x)), 1e-14)
  end)

  it("say what does not fit", function()
    local R, t = rotations(5, 1), mf.zeros({ 5, 3 }, double)
    local function fails(text, ...)
      local arguments = { ... }
      support.fails(function() geometry.apply(unpack(arguments)) end, text)
    end
    fails("frames_apply: points (5, 4, 2) must be (5, 4, 3)", R, t, mf.zeros({ 5, 4, 2 }, double))
    fails("frames_apply: points (6, 4, 3) must be (5, 4, 3)", R, t, mf.zeros({ 6, 4, 3 }, double))
    fails("frames_apply: t (4, 3) must be (5, 3)", R, mf.zeros({ 4, 3 }, double), t)
    fails("frames_apply: R (5, 3) must be (..., 3, 3)", t, t, t)
    fails("points is float32, the first operand float64", R, t, t:float())
  end)
end)

describe("frames_update", function()
  it("gives the numbers of the specification", function()
    local q, t = mf.full({ 1, 4 }, 0.5, double), tensor({ 1, 2, 3 }, { 1, 3 })
    local u = tensor({ 0.1, 0.2, 0.3, 0.4, 0.5, 0.6 }, { 1, 6 })
    for _, mask in ipairs { mf.ones({ 1 }, double), mf.ones({ 1 }, { dtype = "bool" }), false } do
      local q2, t2 = geometry.frames_update(q, t, u, mask or nil)
      near(q2, { 0.1873, 0.5620, 0.4683, 0.6556 }, 5e-5)
      near(t2, { 1.6, 2.4, 3.5 }, 1e-15)
    end
  end)

  it("leaves masked residues as they are, unnormalised ones too", function()
    local q, t, u = normal({ 6, 4 }, 21) * 3, normal({ 6, 3 }, 22), normal({ 6, 6 }, 23)
    local q2, t2 = geometry.frames_update(q, t, u, tensor({ 1, 0, 1, 0, 0, 1 }, { 6 }))
    for i = 1, 6 do
      local still = i == 2 or i == 4 or i == 5
      assert.equal(still, support.apart(q2:select(1, i), q:select(1, i)) == 0)
      assert.equal(still, support.apart(t2:select(1, i), t:select(1, i)) == 0)
      if not still then assert.near(1, q2:select(1, i):norm():item(), 1e-15) end
    end
  end)

  it("differentiates, one result at a time too #grad", function()
    local q, t, u, mask = normal({ 6, 4 }, 24), normal({ 6, 3 }, 25), normal({ 6, 6 }, 26), tensor({ 1, 0, 1, 1, 0, 1 }, { 6 })
    support.gradients_match(function(a, b, c) return geometry.frames_update(a, b, c, mask) end, { q, t, u })
    support.gradients_match(function(a, b, c) return (select(2, geometry.frames_update(a, b, c))) end, { q, t, u })
    support.gradients_match(function(a, c) return (geometry.frames_update(a, t, c, mask)) end, { q, u })
  end)
end)

describe("gauge", function()
  it("is the mean of valid translations and the axes of the first valid residue", function()
    local p = mf.packing { 3, 1, 4 }
    local R, t, mask = rotations(8, 27), normal({ 8, 3 }, 28), tensor({ 0, 1, 1, 0, 1, 0, 1, 1 }, { 8 })
    local G, o = geometry.gauge(R, t, mask, p)
    near(G, mf.stack({ R:select(1, 2), mf.eye(3):double(), R:select(1, 5) }, 1), 0)
    near(o:select(1, 1), (t:select(1, 2) + t:select(1, 3)) / 2, 1e-15)
    near(o:select(1, 2), { 0, 0, 0 }, 0)
    near(o:select(1, 3), (t:select(1, 5) + t:select(1, 7) + t:select(1, 8)) / 3, 1e-15)
    near(geometry.gauge(R, t, nil, p), mf.stack({ R:select(1, 1), R:select(1, 4), R:select(1, 5) }, 1), 0)
  end)

  it("moves with the sequence and carries no gradient", function()
    local p = mf.packing { 50 }
    local R, t = rotations(50, 29), normal({ 50, 3 }, 30) * 20
    local G, o = geometry.gauge(R, t, nil, p)
    local M, s = rotations(1, 31), normal({ 1, 3 }, 32) * 100
    local R2, t2 = geometry.compose(M:expand(50, 3, 3):contiguous(), s:expand(50, 3):contiguous(), R, t)
    local G2, o2 = geometry.gauge(R2, t2, nil, p)
    local function inside(g, origin, x) return geometry.invert_apply(g:expand(50, 3, 3), origin:expand(50, 3), x) end
    near(inside(G2, o2, t2), inside(G, o, t), 1e-12)
    assert.is_false((geometry.gauge(R:clone():require_grad(), t, nil, p)):requires_grad())
  end)
end)

describe("dihedral", function()
  local function torsion(angle)  -- atoms with this angle about the z axis, clockwise positive along it
    return { 1, 0, 0, 0, 0, 0, 0, 0, 1.5, math.cos(angle), math.sin(angle), 1.5 }
  end

  it("is the IUPAC angle: cis is 0, clockwise positive", function()
    for degrees = -170, 180, 10 do
      local angle = math.rad(degrees)
      near(geometry.dihedral(tensor(torsion(angle), { 1, 4, 3 })), { math.sin(angle), math.cos(angle) }, 1e-7)
    end
  end)

  it("does not change under a rigid motion and is finite on a line", function()
    local x = normal({ 20, 4, 3 }, 33)
    local R, t = rotations(1, 34):expand(20, 3, 3):contiguous(), normal({ 1, 3 }, 35):expand(20, 3):contiguous()
    near(geometry.dihedral(geometry.apply(R, t, x)), geometry.dihedral(x), 1e-12)
    for _, v in ipairs(geometry.dihedral(tensor({ 0, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0 }, { 1, 4, 3 })):values()) do
      assert.is_true(math.abs(v) <= 1)
    end
    near(geometry.dihedral(mf.zeros({ 1, 4, 3 }, double)), { 0, 0 }, 0)
  end)

  it("differentiates #grad", function()
    support.gradients_match(geometry.dihedral, { normal({ 5, 4, 3 }, 36) }, { bound = 1e-6 })
    support.fails(function() geometry.dihedral(mf.zeros(5, 3, 3)) end, "dihedral: points (5, 3, 3) must be (..., 4, 3)")
  end)
end)

describe("kabsch", function()
  local function determinant(m)
    return m[1] * (m[5] * m[9] - m[6] * m[8]) - m[2] * (m[4] * m[9] - m[6] * m[7]) + m[3] * (m[4] * m[8] - m[5] * m[7])
  end
  -- All sequences of one length: R (n, 3, 3) for each, t (n, 3), applied to x (n, L, 3).
  local function moved(R, t, x) return geometry.apply(R, t, x) end

  it("recovers rotations and translations", function()
    local R, t, x = rotations(20, 37), normal({ 20, 3 }, 38) * 100, normal({ 20, 31, 3 }, 39) * 15
    local lengths = {}
    for i = 1, 20 do lengths[i] = 31 end
    local R2, t2, rmsd = geometry.kabsch(x:reshape(620, 3), moved(R, t, x):reshape(620, 3), nil, mf.packing(lengths))
    near(R2, R, 1e-12)
    near(moved(R2, t2, x), moved(R, t, x), 1e-6)
    near(rmsd, mf.zeros({ 20 }, double), 1e-6)
  end)

  it("is a proper rotation, the same each time, for points on a plane, on a line, on a spot, alone, or none", function()
    local p = mf.packing { 9 }
    for kind = 1, 5 do
      local n = kind == 5 and 1 or 9
      local q = n == 1 and mf.packing { 1 } or p
      local shape = ({ { 1, 1, 1 }, { 1, 1, 0 }, { 1, 0, 0 }, { 0, 0, 0 }, { 1, 1, 1 } })[kind]
      local x = normal({ n, 3 }, 40) * tensor(shape, { 1, 3 })
      local y = moved(rotations(1, 41), normal({ 1, 3 }, 42), x:unsqueeze(1)):squeeze(1)
      local R, t, rmsd = geometry.kabsch(x, y, nil, q)
      near(moved(R, t, x:unsqueeze(1)):squeeze(1), y, 1e-12)
      near(rmsd, { 0 }, 1e-12)
      assert.near(1, determinant(R:values()), 1e-13)
      near((geometry.kabsch(x, y, nil, q)), R, 0)
    end
    local R, t, rmsd = geometry.kabsch(normal({ 9, 3 }, 40), normal({ 9, 3 }, 41), mf.zeros({ 9 }, double), p)
    near(R, { 1, 0, 0, 0, 1, 0, 0, 0, 1 }, 0)
    near(t, { 0, 0, 0 }, 0)
    near(rmsd, { 0 }, 0)
  end)

  it("never matches a mirror image", function()
    local x = normal({ 30, 3 }, 43) * 10
    local R, _, rmsd = geometry.kabsch(x, x * tensor({ 1, 1, -1 }, { 1, 3 }), nil, mf.packing { 30 })
    assert.near(1, determinant(R:values()), 1e-13)
    assert.is_true(rmsd:item() > 1)
  end)

  it("weighs, and its rmsd is that of the moved points and of the closed form", function()
    local p, n = mf.packing { 12, 40 }, 52
    local x, y, w = normal({ n, 3 }, 44) * 10, normal({ n, 3 }, 45) * 10, mf.rand({ n }, { dtype = "float64", rng = mf.rng(46) })
    y = x + y * 0.3
    w:narrow(1, 3, 4):fill_(0)
    x:select(1, 4):fill_(0 / 0)  -- weight 0: not looked at
    local R, t, rmsd = geometry.kabsch(x, y, w, p)
    local clean = mf.where(w:unsqueeze(2):gt(0), x, mf.zeros({ n, 3 }, double))
    local weight = w:unsqueeze(2)
    local total = w:segment_sum(p)
    local function centred(z) return z - ((z * weight):segment_sum(p) / total:unsqueeze(2)):segment_expand(p) end
    local fit = turned(R:segment_expand(p), clean)
    local error = ((fit + t:segment_expand(p) - y):square():sum(2) * w):segment_sum(p)
    near(rmsd, (error / total):sqrt(), 1e-12)
    local a, b = centred(clean), centred(y)
    local form = ((a:square() + b:square() - turned(R:segment_expand(p), a) * b * 2):sum(2) * w):segment_sum(p)
    near(rmsd, (form / total):sqrt(), 1e-9)
    -- a minimum: no small turn does better
    for seed = 1, 20 do
      local nudge = geometry.so3_exp(normal({ 2, 3 }, 200 + seed) * 0.01)
      local other = turned(R:segment_expand(p), turned(nudge:segment_expand(p), a))
      assert.is_true((((other - b):square():sum(2) * w):segment_sum(p) - error):ge(0):all())
    end
  end)

  it("turns pairs of sequences about the origin as it turns one on another, and measures what is left", function()
    local p = mf.packing { 6, 9, 6, 0, 9, 6, 0 }
    local n, w = p:total(), mf.rand({ p:total() }, { dtype = "float64", rng = mf.rng(46) })
    w:narrow(1, 8, 3):fill_(0)
    local function centred(z)
      local total = w:segment_sum(p):unsqueeze(2):maximum(1e-300)
      return z - ((z * w:unsqueeze(2)):segment_sum(p) / total):segment_expand(p)
    end
    local x, y = normal({ n, 3 }, 47) * 10, centred(normal({ n, 3 }, 48) * 10)
    local list = { { 0, 0 }, { 0, 2 }, { 2, 0 }, { 5, 2 }, { 1, 4 }, { 4, 4 }, { 3, 6 } }
    local R, distance = geometry.kabsch_pairs(x, y, w, p, mf.tensor(list, { dtype = "int32" }))
    assert.same({ 7, 3, 3 }, R:shape())
    for i, pair in ipairs(list) do
      local length = p:lengths()[pair[1] + 1]
      local a = x:narrow(1, p:offset(pair[1] + 1) + 1, length)
      local b, v = y:narrow(1, p:offset(pair[2] + 1) + 1, length), w:narrow(1, p:offset(pair[2] + 1) + 1, length)
      if length == 0 then
        near(R:select(1, i), { 1, 0, 0, 0, 1, 0, 0, 0, 1 }, 0)
        assert.equal(0, distance:values()[i])
      else
        -- with b centred the covariance does not see where a's centre is
        near(R:select(1, i), geometry.kabsch(a:contiguous(), b:contiguous(), v:contiguous(), mf.packing { length }), 1e-9)
        local left = (a:matmul(R:select(1, i):t()) - b):norm(2)
        assert.near(((left * v):sum() / v:sum()):item(), distance:values()[i], 1e-12)
      end
    end
    support.fails(function() geometry.kabsch_pairs(x, y, w, p, mf.tensor({ { 0, 1 } }, { dtype = "int32" })) end,
      "kabsch_pairs: pair 1 is of sequences of two lengths")
    support.fails(function() geometry.kabsch_pairs(x, y, w, p, mf.tensor({ { 0, 7 } }, { dtype = "int32" })) end,
      "kabsch_pairs: sequence 7 is out of range for 7")
    support.fails(function() geometry.kabsch_pairs(x, y, w, p, mf.zeros(3, 2)) end,
      "kabsch_pairs: pairs is float32, expected int32")
    support.fails(function() geometry.kabsch_pairs(x, y, w, p, mf.tensor({ 1, 2 }, { dtype = "int32" })) end,
      "kabsch_pairs: pairs (2) must be (P, 2)")
  end)

  it("says what does not fit", function()
    local x = mf.zeros({ 5, 3 }, double)
    local p, short = mf.packing { 5 }, mf.zeros({ 4 }, double)
    support.fails(function() geometry.kabsch(x, x:narrow(1, 1, 4), nil, p) end, "kabsch: fixed (4, 3) must be (5, 3)")
    support.fails(function() geometry.kabsch(x, x, short, p) end, "kabsch: weight (4) must be (5)")
    support.fails(function() geometry.kabsch(x, x, nil, mf.packing { 4 }) end, "kabsch")
  end)
end)
