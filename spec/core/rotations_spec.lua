local mf = require "moonfold"
local support = require "spec.support.geometry"

local geometry, tensor, near = mf.geometry, support.tensor, support.near
local double = { dtype = "float64" }

local function normal(shape, seed) return mf.randn(shape, { dtype = "float64", rng = mf.rng(seed) }) end
local function rotations(n, seed) return mf.random.rotations(n, { dtype = "float64", rng = mf.rng(seed) }) end

-- n vectors along random axes; angle(i) is the length of the i-th.
local function vectors(n, seed, angle)
  local axis, length = normal({ n, 3 }, seed), {}
  for i = 1, n do length[i] = angle(i) end
  return axis / axis:norm(2, true) * tensor(length, { n, 1 })
end

describe("so3_exp and so3_log", function()
  it("give the numbers of the specification", function()
    local R = geometry.so3_exp(tensor({ 0.3, -0.2, 0.5 }, { 1, 3 }))
    near(R, { 0.859534, -0.497992, -0.114917, 0.439868, 0.835316, -0.329794, 0.260227, 0.232921, 0.937032 }, 5e-7)
    local A = geometry.so3_exp(tensor({ 0.1, 0.2, 0.3 }, { 1, 3 }))
    local B = geometry.so3_exp(tensor({ -1, 0.5, 2 }, { 1, 3 }))
    local v = geometry.so3_log(A:transpose(2, 3):matmul(B))
    near(v, { -1.102375, 0.605893, 1.604586 }, 5e-7)
    near(v:norm(), { 2.038881 }, 5e-7)
    near(geometry.geodesic(A, B, 0.25):select(2, 1), { 0.706777, -0.677993, 0.201968 }, 5e-7)
    near(geometry.geodesic(A, B, 0), A, 1e-15)
    near(geometry.geodesic(A, B, 1), B, 1e-15)
  end)

  it("undo each other up to pi - 1e-3", function()
    local limit = math.pi - 1e-3
    local v = vectors(1000, 1, function(i)
      if i <= 10 then return 0 end
      if i <= 200 then return 10 ^ -(i / 10) end
      return limit * (i - 200) / 800
    end)
    near(geometry.so3_log(geometry.so3_exp(v)), v, 1e-12)
    near(geometry.so3_log(geometry.so3_exp(v:float())), v, 2e-6)
  end)

  it("rebuild the rotation up to pi inclusive", function()
    local v = vectors(1000, 2, function(i) return i <= 100 and math.pi or math.pi - 10 ^ -(i / 60) end)
    local R = geometry.so3_exp(v)
    local w = geometry.so3_log(R)
    near(geometry.so3_exp(w), R, 1e-14)
    assert.is_true(w:norm(2):max(1):item() <= math.pi + 1e-15)
    local R32 = R:float()
    near(geometry.so3_exp(geometry.so3_log(R32)), R32, 1e-6)
  end)

  it("take the axis at pi whose first non-zero component is positive", function()
    for _, axis in ipairs { { 1, 0, 0 }, { 0, 1, 0 }, { 0, 0, 1 }, { -0.6, 0.8, 0 }, { 0, -0.6, 0.8 }, { 0.6, 0, -0.8 } } do
      local first = axis[1] ~= 0 and axis[1] or axis[2] ~= 0 and axis[2] or axis[3]
      local R, want = {}, {}
      for i = 1, 3 do
        want[i] = axis[i] * math.pi * (first > 0 and 1 or -1)
        for j = 1, 3 do R[3 * i + j - 3] = 2 * axis[i] * axis[j] - (i == j and 1 or 0) end
      end
      near(geometry.so3_log(tensor(R, { 1, 3, 3 })), want, 1e-14)
    end
  end)

  it("keep NaN visible", function()
    local R = tensor({ 0 / 0, 0, 0, 0, 1, 0, 0, 0, 1 }, { 1, 3, 3 })
    for _, y in ipairs { geometry.so3_log(R), geometry.rot_to_quat(R) } do
      for _, v in ipairs(y:values()) do assert.is_true(v ~= v) end
    end
  end)

  it("differentiate: the logarithm along the group #grad", function()
    -- log(R exp(d)) at d = 0: the cotangent of the matrix is a tangent one, so only d shows what it means
    local R = geometry.so3_exp(vectors(40, 3, function(i) return 1e-3 + (math.pi - 3e-3) * i / 40 end))
    support.gradients_match(function(d) return geometry.so3_log(R:matmul(geometry.so3_exp(d))) end,
                            { mf.zeros({ 40, 3 }, double) }, { bound = 1e-6 })
  end)

  it("differentiate: the exponential at every angle #grad", function()
    for _, angle in ipairs { 0, 1e-9, 1e-4, 0.0099, 0.0101, 0.099, 0.101, 1, 3, 6.3, 12 } do
      support.gradients_match(geometry.so3_exp, { vectors(3, 4, function() return angle end) })
    end
  end)
end)

describe("quaternions", function()
  it("make the matrix of the specification, unnormalised ones scaled", function()
    local q = mf.full({ 1, 4 }, 0.5, double)
    near(geometry.quat_to_rot(q), { 0, 0, 1, 1, 0, 0, 0, 1, 0 }, 0)
    near(geometry.quat_to_rot(q * 3), { 0, 0, 9, 9, 0, 0, 0, 9, 0 }, 1e-15)
  end)

  it("multiply as their rotations do", function()
    local p, q = normal({ 20, 4 }, 5), normal({ 20, 4 }, 6)
    near(geometry.quat_to_rot(geometry.quat_multiply(p, q)), geometry.quat_to_rot(p):matmul(geometry.quat_to_rot(q)), 1e-12)
  end)

  it("come back from a matrix with the first non-zero component positive", function()
    local R = rotations(50, 7)
    local q = geometry.rot_to_quat(R)
    near(geometry.quat_to_rot(q), R, 1e-14)
    near(q:norm(2), mf.ones({ 50 }, double), 1e-15)
    assert.is_true(q:select(2, 1):ge(0):all())
    local half_turns = { 1, 0, 0, 0, -1, 0, 0, 0, -1, -1, 0, 0, 0, 1, 0, 0, 0, -1, -1, 0, 0, 0, -1, 0, 0, 0, 1 }
    near(geometry.rot_to_quat(tensor(half_turns, { 3, 3, 3 })), { 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1 }, 0)
  end)

  it("are the nearest rotation of a matrix that is none", function()
    local R = rotations(10, 8) + normal({ 10, 3, 3 }, 9) * 0.2
    local q = geometry.rot_to_quat(R)
    local function fit(p) return (geometry.quat_to_rot(p / p:norm(2, true)) * R):sum({ 2, 3 }) end
    for seed = 1, 20 do
      assert.is_true(fit(q):ge(fit(q + normal({ 10, 4 }, 100 + seed) * 0.01)):all())
    end
  end)

  it("differentiate #grad", function()
    support.gradients_match(geometry.quat_to_rot, { normal({ 5, 4 }, 10) })
    support.gradients_match(geometry.quat_multiply, { normal({ 5, 4 }, 11), normal({ 5, 4 }, 12) })
    support.gradients_match(geometry.rot_to_quat, { rotations(5, 13) })
    support.gradients_match(geometry.rot_to_quat, { rotations(5, 13) + normal({ 5, 3, 3 }, 14) * 0.2 })
  end)
end)

describe("rotation operators", function()
  it("take any view, any leading axes and no rows", function()
    local R = rotations(6, 15)
    local turned = R:transpose(2, 3)
    near(geometry.so3_log(turned), -geometry.so3_log(R), 1e-14)
    assert.same({ 2, 3, 3 }, geometry.so3_log(R:reshape(2, 3, 3, 3)):shape())
    assert.same({ 0, 3, 3 }, geometry.so3_exp(mf.zeros({ 0, 3 }, double)):shape())
    assert.same({ 3, 3 }, geometry.so3_exp(mf.zeros({ 3 }, double)):shape())
  end)

  it("say what does not fit", function()
    support.fails(function() geometry.so3_log(mf.zeros(5, 3)) end, "so3_log: R (5, 3) must be (..., 3, 3)")
    support.fails(function() geometry.so3_exp(mf.zeros(5, 4)) end, "so3_exp: v (5, 4) must be (..., 3)")
    support.fails(function() geometry.quat_multiply(mf.zeros(5, 4), mf.zeros(6, 4)) end, "quat_multiply: q (6, 4) must be (5, 4)")
    support.fails(function() geometry.quat_multiply(mf.zeros(5, 4), mf.zeros({ 5, 4 }, double)) end, "q is float64")
    support.fails(function() geometry.so3_exp(mf.zeros({ 5, 3 }, { dtype = "int32" })) end, "geometry takes float32 or float64")
    support.fails(function() geometry.so3_log(mf.tensor(1)) end, "must be (..., 3, 3)")
  end)
end)
