local mf = require "moonfold"
local support = require "spec.support"

describe("backward", function()
  it("adds to the gradients of leaves", function()
    local x = mf.tensor({ 1, 2, 3 }, { requires_grad = true })
    assert.is_nil(x:grad())
    x:square():sum():backward()
    assert.same({ 2, 4, 6 }, x:grad():totable())
    x:sum():backward()
    assert.same({ 3, 5, 7 }, x:grad():totable())
    assert.is_nil(x:zero_grad():grad())
  end)

  it("takes a cotangent, and refuses a tensor without one", function()
    local x = mf.tensor({ 1, 2 }, { requires_grad = true })
    x:mul(3):backward(mf.tensor { 1, 10 })
    assert.same({ 3, 30 }, x:grad():totable())
    support.error_matches(function() x:mul(3):backward() end, "not a scalar", true)
    support.error_matches(function() mf.ones(1):backward() end, "backward", true)
    support.error_matches(function() x:mul(3):backward(3) end, "backward: argument 1 must be a tensor or nil, got a number", true)
  end)

  it("walks a graph twice only when asked to retain it", function()
    local x = mf.tensor(3, { requires_grad = true })
    local y = x * x
    y:backward { retain = true }
    y:backward()
    assert.equal(12, x:grad():item())
    support.error_matches(function() y:backward() end, "already walked", true)
  end)

  it("records nothing under no_grad, which ends after an error too", function()
    local x = mf.tensor(3, { requires_grad = true })
    local y, enabled = mf.no_grad(function(a) return a * 2, mf.grad_enabled() end, x)
    assert.is_false(y:requires_grad())
    assert.is_false(enabled)
    assert.is_false(pcall(mf.no_grad, function() error("x") end))
    assert.is_true(mf.grad_enabled())
    assert.is_false(x:detach():mul(2):requires_grad())
    assert.is_true(x:mul(2):requires_grad())
  end)

  it("frees what was recorded, so that nothing leaks", function()
    support.no_leaks(function()
      local w = mf.ones(50, 50, { requires_grad = true })
      for _ = 1, 5 do
        local x = mf.ones(7, 50)
        for _ = 1, 4 do x = x:linear(w):tanh() end
        x:sum():backward()
        w:zero_grad()
      end
    end)
  end)

  it("agrees with differences through broadcasts, views and mixtures #grad", function()
    support.gradients_match(function(a, b) return ((a + b) * a - b / 3):exp():mean(1) end,
      { support.random.normal(5, 3), support.random.normal(3) })
    support.gradients_match(function(a) return (2 ^ a:t():reshape(-1):narrow(1, 2, 5)), a:clone():square():norm(1) end,
      { support.random.normal(3, 4) })
    support.gradients_match(function(a, b) return mf.where(a:gt(0), a * b, b:square()), (3 / (b:square() + 1)) end,
      { support.random.uniform(0.1, 1, 4) * 2 - 1.05, support.random.normal(4) })
  end)
end)

describe("a function that differentiates in Lua", function()
  local cube = mf.differentiable {
    name = "cube",
    forward = function(saved, x, k)
      saved.x, saved.k = x, k
      return x * x * x * k
    end,
    backward = function(saved, dy) return dy * saved.x * saved.x * (3 * saved.k) end,
  }

  it("takes part in a backward pass #grad", function()
    support.gradients_match(function(a) return cube(a * 0.5, 2):sin() end, { support.random.normal(4) })
    support.gradients_match(function(a) return cube(cube(a, 1), 0.5) end, { support.random.uniform(0.5, 1, 3) })
  end)

  it("may have several inputs and outputs, some without a gradient", function()
    local seen
    local both = mf.differentiable {
      forward = function(_, a, b) return a + b, a * 2, "text" end,
      backward = function(_, d_sum, d_double)
        seen = { d_sum ~= nil, d_double ~= nil }
        return d_sum, d_sum
      end,
    }
    local a, b = mf.tensor(1, { requires_grad = true }), mf.tensor(2, { requires_grad = true })
    local s, d, text = both(a, b)
    assert.equal("text", text)
    assert.equal(2, d:item())
    s:backward()
    assert.same({ true, false }, seen)
    assert.equal(1, b:grad():item())
  end)

  it("may return its input, and is not recorded where no gradient is wanted", function()
    local same = mf.differentiable { forward = function(_, x) return x end, backward = function(_, dy) return dy * 5 end }
    local x = mf.tensor(1, { requires_grad = true })
    same(x):backward()
    assert.equal(5, x:grad():item())
    assert.is_false(same(mf.tensor(1)):requires_grad())
    assert.is_false(mf.no_grad(same, x):requires_grad())
  end)

  it("passes its errors on and names what it gave wrongly", function()
    local bad = mf.differentiable {
      name = "bad", forward = function(_, x) return x * 1 end, backward = function() return "nothing" end,
    }
    local x = mf.tensor(1, { requires_grad = true })
    support.error_matches(function() bad(x):backward() end, "bad: gradient 1 must be a tensor or nil, got a string", true)
    local wrong = mf.differentiable {
      forward = function(_, y) return y * 1 end, backward = function() return mf.ones(2) end,
    }
    support.error_matches(function() wrong(x):backward() end, "gradient", true)
    x:zero_grad()
    cube(x, 1):backward()
    assert.equal(3, x:grad():item())
  end)

  it("is forgotten with its graph", function()
    local F = require "moonfold.ffi"
    local function entries()
      local n = 0
      for _ in pairs(F.recorded) do n = n + 1 end
      return n
    end
    local x = mf.tensor(1, { requires_grad = true })
    for _ = 1, 5 do cube(x, 1) end
    collectgarbage()
    cube(x, 1):backward()
    assert.equal(0, entries())
  end)

  it("leaks nothing", function()
    support.no_leaks(function()
      local x = mf.ones(100, { requires_grad = true })
      for _ = 1, 3 do
        cube(x, 2):sum():backward()
        cube(x, 2)
      end
    end)
  end)
end)

describe("recompute", function()
  local packing, layer
  setup(function()
    packing = mf.packing { 5, 2 }
    layer = mf.nn.ipa { dim = 8, edge = 4, heads = 2, hidden = 3, query_points = 2, value_points = 2, init = "default" }
  end)
  teardown(function() packing, layer = nil, nil end)

  -- Attention of both kinds between other things.
  local function block(x, frames, z)
    local h = x:reshape(7, 2, 4)
    x = x + mf.attention(h, h:tanh(), h, nil, packing):reshape(7, 8)
    return x + layer { s = x, frames = frames, pair = z, packing = packing }:tanh(), x:square()
  end

  local function gradients(run, retain)
    mf.seed(71)
    local x, z = mf.randn(7, 8):require_grad(), mf.randn(7, 2, 2, 4):require_grad()
    local frames = { R = mf.random.rotations(7), t = mf.randn(7, 3):require_grad() }
    for _, p in ipairs(layer:parameters()) do p:zero_grad() end
    local y, square = run(x, frames, z)
    local loss = y:square():sum() + square:sum()
    if retain then loss:backward(nil, { retain = true }) end
    loss:backward()
    local list = { x:grad(), z:grad(), frames.t:grad(), layer.points.head_weights:grad(), layer.scalar.linear_q.weight:grad() }
    return list
  end

  local function frames_apart(fn)
    return function(x, frames, z)
      return fn(function(a, R, t, b) return block(a, { R = R, t = t }, b) end, x, frames.R, frames.t, z)
    end
  end

  it("gives the gradients of the plain call", function()
    local want, got = gradients(block), gradients(frames_apart(mf.recompute))
    for i, x in ipairs(want) do support.close(got[i], x, 1e-6) end
    for i, x in ipairs(gradients(frames_apart(mf.recompute), true)) do support.close(x, want[i] * 2, 1e-6) end
  end)

  it("may hold checkpoints and other recomputes, and stand in them", function()
    local want = gradients(block)
    for _, outer in ipairs { mf.recompute, mf.checkpoint } do
      for _, inner in ipairs { mf.recompute, mf.checkpoint } do
        local got = gradients(frames_apart(function(fn, ...)
          return outer(function(x, R, t, z)
            local y, square = inner(fn, x, R, t, z)
            local h = x:reshape(7, 1, 8)
            return y + mf.attention(h, h, h, nil, packing):reshape(7, 8) * 0, square
          end, ...)
        end))
        for i, x in ipairs(want) do support.close(got[i], x, 1e-6) end
      end
    end
  end)

  it("does not do attention twice", function()
    local calls, attention = 0, mf.attention
    local function count(...)
      local before = mf.memory().live
      local y = attention(...)
      if mf.memory().live > before then calls = calls + 1 end     -- what is resumed makes no storage of its own
      return y
    end
    local q = mf.randn(7, 2, 4):require_grad()
    mf.recompute(function(x) return count(x, x, x, nil, packing) end, q):sum():backward()
    assert.equal(1, calls)
  end)

  it("leaves nothing behind", function()
    support.no_leaks(function() gradients(frames_apart(mf.recompute)) end)
    local x = mf.randn(7, 2, 4):require_grad()
    local function step() mf.recompute(function(a) return mf.attention(a, a, a, nil, packing) end, x):sum():backward() end
    step()
    collectgarbage()
    collectgarbage "stop"
    local before = mf.memory().live
    mf.scope(step)
    local after = mf.memory().live
    collectgarbage "restart"
    assert.equal(before, after)
  end)
end)

describe("a checkpoint", function()
  local function block(x, w) return (x:matmul(w):tanh() * x):exp() end

  it("gives the gradients of the plain call, bit for bit, also those of captured parameters", function()
    local x, w = support.random.normal(5, 3), support.random.normal(3, 3)
    local function gradients(call)
      local a, b = x:clone():require_grad(), w:clone():require_grad()
      call(a, b):sum():backward()
      return a:grad(), b:grad()
    end
    local x1, w1 = gradients(block)
    local x2, w2 = gradients(function(a, b) return mf.checkpoint(block, a, b) end)
    local x3, w3 = gradients(function(a, b) return mf.checkpoint(function(c) return block(c, b) end, a) end)
    support.same_bits(x1, x2)
    support.same_bits(w1, w2)
    support.same_bits(x1, x3)
    support.same_bits(w1, w3)
  end)

  it("reaches captured parameters where no argument requires a gradient", function()
    local w = support.random.normal(3, 3):require_grad()
    mf.checkpoint(block, support.random.normal(5, 3), w):sum():backward()
    assert.is_true(w:grad():norm():item() > 0)
    w:zero_grad()
    local x = support.random.normal(5, 3)
    mf.checkpoint(function() return block(x, w) end):sum():backward()
    assert.is_true(w:grad():norm():item() > 0)
  end)

  it("repeats random draws", function()
    local x = mf.ones(1000, { requires_grad = true })
    mf.seed(11)
    local y = mf.checkpoint(function(a) return a:dropout(0.5) end, x)
    local drawn = mf.default_rng():state()
    y:sum():backward()
    support.same_bits(x:grad(), y:detach())
    assert.same(drawn, mf.default_rng():state())
  end)

  it("may have several outputs and be nested #grad", function()
    support.gradients_match(function(a, b)
      local u, v = mf.checkpoint(function(c, d)
        return mf.checkpoint(block, c, d), c:square()
      end, a, b)
      return u * 0.5, v
    end, { support.random.normal(4, 2), support.random.normal(2, 2) * 0.3 })
  end)

  it("holds less until backward", function()
    local x = mf.ones(100, 100, { requires_grad = true })
    local function deep(a)
      for _ = 1, 20 do a = a:tanh() end
      return a
    end
    -- A function of its own, so that no register of the spec keeps an intermediate alive.
    local function held(call)
      local before = support.live_bytes()
      local y = call()
      return support.live_bytes() - before, y:count()
    end
    local plain = held(function() return deep(x) end)
    local checkpointed = held(function() return mf.checkpoint(deep, x) end)
    assert.is_true(plain >= 20 * 40000, plain)
    -- The result and the scalar that puts the function on the tape.
    assert.is_true(checkpointed <= 40000 + 100, checkpointed)
  end)
end)
