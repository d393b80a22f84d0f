local mf = require "moonfold"
local naive = require "spec.support.naive"
local F = require "moonfold.ffi"
local ffi = require "ffi"
local C = F.C

local epsilon = { float32 = 2 ^ -24, float64 = 2 ^ -53 }

local function adam_reference(p, m, v, g, o)
  for i = 1, #p do
    local gi = o.scale * g[i] + (o.decoupled and 0 or o.decay * p[i])
    m[i] = o.b1 * m[i] + (1 - o.b1) * gi
    v[i] = o.b2 * v[i] + (1 - o.b2) * gi * gi
    local kept = o.decoupled and (1 - o.lr * o.decay) * p[i] or p[i]
    p[i] = kept - o.lr * (m[i] / (1 - o.b1 ^ o.step)) / (math.sqrt(v[i] / (1 - o.b2 ^ o.step)) + o.eps)
  end
end

local function params(o)
  return ffi.new("mf_adam_params", {
    lr = o.lr or 0, beta1 = o.b1, beta2 = o.b2, epsilon = o.eps, weight_decay = o.decay, scale = o.scale or 0, step = o.step or 0,
    decoupled = o.decoupled and 1 or 0,
  })
end

local function text() return ffi.string(C.mf_error_text()) end

describe("adam", function()
  for _, dtype in ipairs { "float32", "float64" } do
    for _, decoupled in ipairs { false, true } do
      it(("follows its equations, decay %s (%s)"):format(decoupled and "decoupled" or "in the gradient", dtype), function()
        for _, n in ipairs { 1, 31, 33, 70001 } do
          local x = naive.normal({ n }, dtype, 1)
          local m, v = mf.zeros(n, { dtype = dtype }), mf.zeros(n, { dtype = dtype })
          local p, rm, rv = x:values(), m:values(), v:values()
          for step = 1, 3 do
            local o = { lr = 0.01, b1 = 0.9, b2 = 0.99, eps = 1e-8, decay = 0.1, scale = 0.5, step = step, decoupled = decoupled }
            local g = naive.normal({ n }, dtype, 1 + step)
            assert.are.equal(0, C.mf_adam_step(x, m, v, g, params(o)))
            adam_reference(p, rm, rv, g:values(), o)
          end
          -- every step rounds p once and the update, which is of size lr, a dozen times; 1 - b2 and b2^t are rounded
          -- constants whose error the division by 1 - b2^t leaves in place; v near 0 sees the cancellation in m only
          naive.close(p, x, 3 * 4 * epsilon[dtype])
          naive.close(rm, m, 3 * 8 * epsilon[dtype])
          naive.close(rv, v, 3 * 8 * epsilon[dtype])
        end
      end)
    end
  end

  it("takes a gradient that is not contiguous", function()
    local function run(g)
      local x, m, v = naive.normal({ 5, 7 }), mf.zeros(5, 7, { dtype = "float64" }), mf.zeros(5, 7, { dtype = "float64" })
      local o = { lr = 1, b1 = 0.9, b2 = 0.99, eps = 1e-8, decay = 0, scale = 1, step = 1 }
      assert.are.equal(0, C.mf_adam_step(x, m, v, g, params(o)))
      return x:values()
    end
    local g = naive.normal({ 5, 7 }, "float64", 2)
    assert.are.same(run(g), run(naive.strided(g)))
  end)

  it("changes nothing and says why when something does not fit", function()
    local x, m, v, g = mf.ones(3), mf.zeros(3), mf.zeros(3), mf.ones(3)
    local version = tonumber(C.mf_tensor_version(x))
    local good = { lr = 1, b1 = 0.9, b2 = 0.99, eps = 1e-8, decay = 0, scale = 1, step = 1 }
    local function with(key, value)
      local o = {}
      for k, w in pairs(good) do o[k] = w end
      o[key] = value
      return params(o)
    end
    local y = mf.ones(3):require_grad() * 2
    local cases = {
      { C.MF_ESHAPE, "(4)", x, m, v, mf.ones(4), params(good) },
      { C.MF_EDTYPE, "float64", x, m, v, mf.ones(3, { dtype = "float64" }), params(good) },
      { C.MF_EDTYPE, "int32", mf.arange(3), m, v, g, params(good) },
      { C.MF_EVALUE, "share memory", x, m, m, g, params(good) },
      { C.MF_EVALUE, "step 0", x, m, v, g, with("step", 0) },
      { C.MF_EVALUE, "betas", x, m, v, g, with("b1", 1) },
      { C.MF_EVALUE, "finite", x, m, v, g, with("lr", 0 / 0) },
      { C.MF_EVALUE, "no parameters", x, m, v, g, nil },
      { C.MF_ESTATE, "contiguous", mf.ones(3, 2):select(2, 1), m, v, g, params(good) },
      { C.MF_ESTATE, "leaves", y, m, v, g, params(good) },
    }
    for i, case in ipairs(cases) do
      assert.are.equal(case[1], C.mf_adam_step(case[3], case[4], case[5], case[6], case[7]), "case " .. i)
      assert.is_truthy(text():find(case[2], 1, true), text())
    end
    assert.are.same({ 1, 1, 1 }, x:values())
    assert.are.same({ 0, 0, 0 }, m:values())
    assert.are.equal(version, tonumber(C.mf_tensor_version(x)))
  end)

  it("writes to a parameter that requires a gradient, and counts the version", function()
    local x = mf.ones(3):require_grad()
    local before = tonumber(C.mf_tensor_version(x))
    local opt = mf.optim.adam({ x }, { lr = 0.5 })
    opt:step((x * x):sum())
    naive.close({ 0.5, 0.5, 0.5 }, x, 1e-6)
    assert.are.equal(before + 1, tonumber(C.mf_tensor_version(x)))
    assert.is_true(mf.grad_enabled())
  end)
end)

describe("sgd", function()
  it("follows its equations with and without momentum", function()
    for _, dtype in ipairs { "float32", "float64" } do
      for _, momentum in ipairs { 0, 0.9 } do
        local n = 33
        local x, velocity = naive.normal({ n }, dtype), mf.zeros(n, { dtype = dtype })
        local p, w = x:values(), velocity:values()
        for step = 1, 4 do
          local g = naive.normal({ n }, dtype, 1 + step)
          assert.are.equal(0, C.mf_sgd_step(x, momentum > 0 and velocity or nil, g, 0.1, momentum, 0.01))
          for i, gi in ipairs(g:values()) do
            w[i] = momentum * w[i] + gi + 0.01 * p[i]
            p[i] = p[i] - 0.1 * w[i]
          end
        end
        naive.close(p, x, 4 * 4 * epsilon[dtype])
      end
    end
  end)

  it("refuses a momentum without a velocity", function()
    assert.are.equal(C.MF_EVALUE, C.mf_sgd_step(mf.ones(3), nil, mf.ones(3), 0.1, 0.9, 0))
    assert.is_truthy(text():find("needs a velocity", 1, true))
  end)
end)

describe("the running average", function()
  it("moves by 1 - decay toward the value", function()
    local average, x = mf.full({ 2, 3 }, 1), mf.full({ 2, 3 }, 5)
    assert.are.equal(0, C.mf_ema_step(average, x, 0.75))
    assert.are.same({ 2, 2, 2, 2, 2, 2 }, average:values())
    assert.are.equal(0, C.mf_ema_step(average, x, 0))
    assert.are.same(x:values(), average:values())
  end)

  it("refuses a decay outside [0, 1]", function()
    assert.are.equal(C.MF_EVALUE, C.mf_ema_step(mf.ones(2), mf.ones(2), 1.5))
  end)
end)

describe("the norm of gradients", function()
  it("is the square root of the sum of all squares, the same for every thread count", function()
    local list, sum = {}, 0
    for i, shape in ipairs { { 1 }, { 31 }, { 33, 7 }, { 100003 }, { 0 } } do
      list[i] = naive.normal(shape, i % 2 == 0 and "float32" or "float64", i)
      for _, v in ipairs(list[i]:values()) do sum = sum + v * v end
    end
    local box, norm = ffi.new("mf_tensor *[?]", #list, list), ffi.new "double[1]"
    local norms = {}
    for threads = 1, 3 do
      C.mf_ctx_threads(F.ctx, threads)
      assert.are.equal(0, C.mf_grad_norm(norm, box, #list))
      norms[threads] = norm[0]
    end
    C.mf_ctx_threads(F.ctx, 0)
    -- 1.1e5 squares added in double, in order here
    assert.is_true(math.abs(norms[1] / math.sqrt(sum) - 1) < 1.1e5 * 2 ^ -53)
    assert.are.equal(norms[1], norms[2])
    assert.are.equal(norms[1], norms[3])
  end)

  it("does not overflow in float32", function()
    local box, norm = ffi.new("mf_tensor *[1]", { mf.full({ 4 }, 1e30) }), ffi.new "double[1]"
    assert.are.equal(0, C.mf_grad_norm(norm, box, 1))
    assert.is_true(math.abs(norm[0] / 2e30 - 1) < 1e-6)
  end)
end)

-- The many-tensor step against the steps of single tensors, which the specs above hold to their equations.
local function box(list) return ffi.new("mf_tensor *[?]", math.max(#list, 1), list) end
local function control(clip, ...)
  local values = { 0, 0, 0, 0, clip, ... }
  return mf.tensor(values, { dtype = "float64" })
end

describe("a step over many tensors", function()
  local sizes = { 1, 33, 0, 5000, 7 }
  -- Tensors in both real types, the same at every call with the same salt.
  local function tensors(salt)
    local list = {}
    for i, n in ipairs(sizes) do list[i] = naive.normal({ n }, i == 2 and "float64" or "float32", salt + i) end
    return list
  end
  local function zeros()
    local list = {}
    for i, n in ipairs(sizes) do list[i] = mf.zeros(n, { dtype = i == 2 and "float64" or "float32" }) end
    return list
  end
  local function list_of(o)
    local list = ffi.new("mf_optim_list")
    list.count, list.decay, list.group = #sizes, o.decay or 0, o.group or 0
    local boxes = {}
    for _, key in ipairs { "parameters", "gradients", "m", "v", "averages" } do
      if o[key] then
        boxes[key] = box(o[key])
        list[key] = boxes[key]
      end
    end
    return list, boxes
  end
  local function same(a, b)
    for i = 1, #sizes do assert.are.equal(a[i]:bytes(), b[i]:bytes()) end
  end

  it("has the norm, the scale and the counts in the control tensor", function()
    local g, norm = tensors(1), ffi.new "double[1]"
    assert.are.equal(0, C.mf_grad_norm(norm, box(g), #g))
    local c = control(1 / 0, 1)
    assert.are.equal(0, C.mf_optim_norm(c, box(g), #g))
    assert.are.same({ norm[0], 1, 1, 0 }, c:narrow(1, 1, 4):values())
    c = control(2, 1)
    assert.are.equal(0, C.mf_optim_norm(c, box(g), #g))
    assert.are.same({ norm[0], 2 / norm[0], 1, 0 }, c:narrow(1, 1, 4):values())
    g[4] = g[4] * (1 / 0)
    assert.are.equal(0, C.mf_optim_norm(c, box(g), #g))
    local values = c:values()
    assert.is_true(values[1] == 1 / 0 or values[1] ~= values[1])
    assert.are.same({ -1, 1, 1 }, { values[2], values[3], values[4] })
  end)

  it("updates like single steps, bit for bit, with averages", function()
    local p, m, v, a = tensors(20), zeros(), zeros(), tensors(40)
    local q, n, w, b = tensors(20), zeros(), zeros(), tensors(40)
    local o = { lr = 0.01, b1 = 0.9, b2 = 0.99, eps = 1e-8, decay = 0.1, decoupled = true }
    local c = control(3, 0, 0.01)
    local list, boxes = list_of { parameters = p, m = m, v = v, averages = a, decay = 0.9, group = 1 }
    for step = 1, 3 do
      local g = tensors(100 * step)
      boxes.gradients = box(g)
      list.gradients = boxes.gradients
      assert.are.equal(0, C.mf_optim_norm(c, boxes.gradients, #g))
      assert.are.equal(0, C.mf_adam_many(c, list, params { b1 = 0.9, b2 = 0.99, eps = 1e-8, decay = 0.1, decoupled = true }))
      o.scale, o.step = c:values()[2], step
      for i = 1, #sizes do
        assert.are.equal(0, C.mf_adam_step(q[i], n[i], w[i], g[i], params(o)))
        assert.are.equal(0, C.mf_ema_step(b[i], q[i], 0.9))
      end
    end
    same(p, q)
    same(m, n)
    same(v, w)
    same(a, b)
  end)

  it("updates by stochastic gradient descent, clipped or not", function()
    for _, clip in ipairs { 1 / 0, 3 } do
      local p, m, q, n = tensors(20), zeros(), tensors(20), zeros()
      local c, g = control(clip, 0.1), tensors(1)
      local list, boxes = list_of { parameters = p, m = m, gradients = g }
      assert.are.equal(0, C.mf_optim_norm(c, boxes.gradients, #g))
      assert.are.equal(0, C.mf_sgd_many(c, list, 0.9, 0.01))
      for i = 1, #sizes do
        local scaled = clip == 3 and g[i] * c:values()[2] or g[i]
        assert.are.equal(0, C.mf_sgd_step(q[i], n[i], scaled, 0.1, 0.9, 0.01))
      end
      same(p, q)
      same(m, n)
    end
  end)

  it("skips where the norm is not finite, but averages", function()
    local p, m, v, a = tensors(20), zeros(), zeros(), tensors(40)
    local q, b, g = tensors(20), tensors(40), tensors(1)
    g[1] = g[1] * (0 / 0)
    local c = control(1, 0.1)
    local list, boxes = list_of { parameters = p, m = m, v = v, gradients = g, averages = a, decay = 0.5 }
    assert.are.equal(0, C.mf_optim_norm(c, boxes.gradients, #g))
    assert.are.equal(0, C.mf_adam_many(c, list, params { b1 = 0.9, b2 = 0.99, eps = 1e-8, decay = 0.1 }))
    assert.are.equal(0, C.mf_sgd_many(c, list, 0, 0))
    same(p, q)
    same(m, zeros())
    for _ = 1, 2 do
      for i = 1, #sizes do C.mf_ema_step(b[i], q[i], 0.5) end
    end
    same(a, b)
    assert.are.equal(0, C.mf_ema_many(list))
    for i = 1, #sizes do C.mf_ema_step(b[i], q[i], 0.5) end
    same(a, b)
  end)

  it("says what does not fit and changes nothing", function()
    local p, m, v, g = tensors(20), zeros(), zeros(), tensors(1)
    local good = params { b1 = 0.9, b2 = 0.99, eps = 1e-8, decay = 0 }
    local function adam_of(change, c)
      local o = { parameters = p, m = m, v = v, gradients = g }
      for key, value in pairs(change) do o[key] = value end
      local list, boxes = list_of(o)
      return C.mf_adam_many(c or control(1, 0.1), list, good), boxes
    end
    local wrong = { unpack(g) }
    wrong[4] = mf.ones(3)
    local cases = {
      { C.MF_ESHAPE, "the gradient has shape (3), the parameter (5000)", { gradients = wrong } },
      { C.MF_ESHAPE, "at least 7 numbers for group 2", { group = 1 } },
      { C.MF_ESHAPE, "at least 6 numbers", {}, control(1) },
      { C.MF_EDTYPE, "needed float64", {}, mf.zeros(6) },
      { C.MF_EVALUE, "share memory", { m = v } },
      { C.MF_EVALUE, "share memory", { averages = p, decay = 0.5 } },
      { C.MF_EVALUE, "decay 2", { averages = zeros(), decay = 2 } },
    }
    for _, case in ipairs(cases) do
      assert.are.equal(case[1], (adam_of(case[3], case[4])))
      assert.is_truthy(text():find(case[2], 1, true), text())
    end
    same(p, tensors(20))
    same(m, zeros())
  end)
end)
