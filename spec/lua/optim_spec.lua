local mf = require "moonfold"
local support = require "spec.support"

-- One step of Adam by the published formulas, on plain numbers.
local function adam(p, m, v, g, o, step)
  if not o.decoupled then g = g + o.decay * p end
  m = 0.9 * m + 0.1 * g
  v = 0.999 * v + 0.001 * g * g
  if o.decoupled then p = p - o.lr * o.decay * p end
  return p - o.lr * (m / (1 - 0.9 ^ step)) / (math.sqrt(v / (1 - 0.999 ^ step)) + 1e-8), m, v
end

local function small(dtype)
  return mf.tensor({ 1, -2, 3 }, { dtype = dtype or "float64", requires_grad = true })
end

describe("adam and adamw", function()
  for _, name in ipairs { "adam", "adamw" } do
    it(("follow the formulas for five steps: %s"):format(name), function()
      local w = small()
      local opt = mf.optim[name]({ w }, { lr = 0.1, weight_decay = 0.05 })
      local p, m, v = { 1, -2, 3 }, { 0, 0, 0 }, { 0, 0, 0 }
      for step = 1, 5 do
        opt:step((w:square() * 0.5 + w):sum())
        for i = 1, 3 do
          p[i], m[i], v[i] = adam(p[i], m[i], v[i], p[i] + 1, { lr = 0.1, decay = 0.05, decoupled = name == "adamw" }, step)
        end
        support.close(w, p, 1e-13)
      end
      assert.is_nil(w:grad())
      assert.equal(5, opt.steps)
    end)
  end

  it("clip by the global norm and tell it", function()
    local a, b = small(), small()
    local opt = mf.optim.sgd({ a, b }, { lr = 1, clip = 1 })
    local norm = opt:step((a * 3 + b * 4):sum())
    support.close(mf.tensor(norm, { dtype = "float64" }), math.sqrt(75), 1e-14)
    local scale = 1 / math.sqrt(75)
    support.close(a, { 1 - 3 * scale, -2 - 3 * scale, 3 - 3 * scale }, 1e-14)
    support.close(b, { 1 - 4 * scale, -2 - 4 * scale, 3 - 4 * scale }, 1e-14)
  end)

  it("skip a step whose gradient is not finite, and count it", function()
    for _, bad in ipairs { 0 / 0, math.huge } do
      local w = small()
      local opt = mf.optim.adamw { w }
      opt:step((w * bad):sum())
      assert.equal(1, opt.skipped)
      assert.equal(0, opt.steps)
      assert.same({ 1, -2, 3 }, w:totable())
      opt:step(w:sum())
      assert.equal(1, opt.steps)
      assert.is_true(w:select(1, 1):item() < 1)
    end
  end)

  it("resume bit for bit", function()
    local function run(w, opt, steps)
      for i = 1, steps do opt:step((w:square() * i):sum()) end
    end
    local w = small("float32")
    local opt = mf.optim.adamw({ w }, { lr = 0.01 })
    run(w, opt, 3)
    local state, values = opt:state(), w:bytes()
    run(w, opt, 4)
    local again = mf.from_bytes(values, { 3 }, { requires_grad = true })
    local resumed = mf.optim.adamw({ again }, { lr = 0.5 })
    resumed:load(state)
    assert.equal(3, resumed.steps)
    assert.equal(0.01, resumed.lr)
    run(again, resumed, 4)
    support.same_bits(again, w)
  end)

  it("keep their own state in scopes", function()
    local w = small()
    local opt = mf.scope(function() return mf.optim.adamw { w } end)
    for _ = 1, 3 do mf.scope(function() opt:step((w * w):sum()) end) end
    assert.equal(3, opt.steps)
    assert.is_false(w:is_released())
  end)

  it("take groups of parameters", function()
    local a, b = small(), small()
    local opt = mf.optim.sgd({ { params = { a }, lr = 1 }, { params = { b } } }, { lr = 0.5 })
    opt:step((a + b):sum())
    assert.same({ 0, -3, 2 }, a:totable())
    assert.same({ 0.5, -2.5, 2.5 }, b:totable())
    opt.lr = 0.25
    opt:step((a + b):sum())
    assert.same({ 0.25, -2.75, 2.25 }, b:totable())
  end)

  it("keep the average in the same pass, also of what has no gradient", function()
    local function run(fused)
      local a, b, c = small("float32"), small("float32"), small("float32")
      local average = mf.optim.ema({ a, b, c }, 0.75)
      local opt = mf.optim.adamw({ a, b }, { lr = 0.1, ema = fused and average or nil })
      for i = 1, 4 do
        mf.no_grad(function() c:add_(1) end)
        opt:step((a:square() * (i == 3 and 0 / 0 or i)):sum())
        if not fused then average:update() end
      end
      assert.equal(3, opt.steps)
      assert.equal(1, opt.skipped)
      return average:state()
    end
    local fused, apart = run(true), run(false)
    for name, x in pairs(apart) do support.same_bits(fused[name], x) end
  end)

  it("count, and refuse to be told", function()
    local w = small()
    local opt = mf.optim.adamw { w }
    assert.equal(0, opt.steps)
    local norm = opt:step(w:sum())
    assert.equal(norm, opt.norm)
    support.error_matches(function() opt.steps = 5 end, "adamw: 'steps' is counted, not set", true)
  end)

  it("give the norm of a captured step as a tensor and write what schedules say before replays", function()
    local capture = require "moonfold.capture"
    local w = small()
    local opt = mf.optim.sgd({ w }, { lr = 1, clip = 100 })
    opt:step(w:sum())
    local notes = capture.begin()
    local ok, norm = pcall(function() return opt:step((w * 2):sum()) end)
    capture.finish()
    assert.is_true(ok, norm)
    assert.same({ 1 }, norm:shape())
    support.close(norm, { 2 * math.sqrt(3) }, 1e-15)
    assert.equal(1, #notes.hooks)
    opt.lr = 0.5
    notes.hooks[1]()
    assert.equal(2, opt.steps)
    w:grad()
    assert.same({ 1 - 1 - 2, -2 - 1 - 2, 3 - 1 - 2 }, w:totable())
  end)

  it("explain what is wrong", function()
    local w = small()
    support.error_matches(function() mf.optim.adamw({ w }, { learning_rate = 1 }) end,
      "adamw: unknown option 'learning_rate'", true)
    support.error_matches(function() mf.optim.adamw {} end, "adamw: there are no parameters", true)
    support.error_matches(function() mf.optim.adamw { 3 } end, "adamw: parameter '1' must be a tensor, got a number", true)
    support.error_matches(function() mf.optim.sgd { w } end, "sgd: option 'lr' is required", true)
    support.error_matches(function() mf.optim.adamw { a = w, b = w } end, "adamw: parameters 'a' and 'b' are the same tensor", true)
    support.error_matches(function() mf.optim.adamw({ w }, { ema = {} }) end, "adamw: ema must come from mf.optim.ema, got", true)
    support.error_matches(function() mf.optim.adamw({ w }, { ema = mf.optim.ema { small() } }) end,
      "adamw: the running average does not have parameter '1'", true)
    support.error_matches(function() mf.optim.adamw({ w }):step() end, "adamw: no parameter has a gradient", true)
    support.error_matches(function() mf.optim.adamw({ w }):load {} end, "adamw: the state has no 'm.1'", true)
    local state = mf.optim.adamw({ w }):state()
    state["m.2"] = w
    support.error_matches(function() mf.optim.adamw({ w }):load(state) end, "belongs to no parameter", true)
  end)
end)

describe("sgd", function()
  it("follows momentum and decay", function()
    local w = small()
    local opt = mf.optim.sgd({ w }, { lr = 0.1, momentum = 0.9, weight_decay = 0.01 })
    local p, u = { 1, -2, 3 }, { 0, 0, 0 }
    for _ = 1, 4 do
      opt:step(w:square():sum())
      for i = 1, 3 do
        u[i] = 0.9 * u[i] + 2 * p[i] + 0.01 * p[i]
        p[i] = p[i] - 0.1 * u[i]
      end
      support.close(w, p, 1e-13)
    end
  end)
end)

describe("running averages", function()
  it("follow, exchange and resume", function()
    local w = small()
    local average = mf.optim.ema({ w = w }, 0.5)
    mf.no_grad(function() w:add_(2) end)
    average:update()
    average:swap()
    assert.same({ 2, -1, 4 }, w:totable())
    average:swap()
    assert.same({ 3, 0, 5 }, w:totable())
    local state = average:state()
    assert.same({ 2, -1, 4 }, state.w:totable())
    local other = mf.optim.ema({ w = w }, 0.5)
    other:load(state)
    other:swap()
    assert.same({ 2, -1, 4 }, w:totable())
  end)
end)
