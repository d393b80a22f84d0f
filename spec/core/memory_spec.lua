-- What a training step holds: linear in the length, predicted by the null device, freed as the backward pass goes.
local ffi = require "ffi"
local mf = require "moonfold"
local F = require "moonfold.ffi"
local support = require "spec.support"

local quick, slow = { 512, 1024 }, { 2048 }

-- Bytes at the peak of the second step (the first makes the optimizer's moments), the largest storage of its forward
-- pass, and the tensors that are alive at its end.
local function step(length, device)
  mf.seed(1)
  local model = mf.models.denoiser {
    node = 32, edge = 16, hidden = 8, heads = 2, query_points = 2, value_points = 4, blocks = 2, neighbours = 5,
    transformer_heads = 2, transformer_layers = 1, torsions = "protein",
  }:to(device)
  local flow = mf.flow.se3 { profile = "protein" }
  local optimizer = mf.optim.adamw(model:parameters(), { lr = 1e-4, clip = 1 })
  local largest = 0
  local function once()
    mf.scope(function()
      local walk = mf.randn(length, 3)
      local batch = {
        packing = mf.packing { length }, translations = (walk / walk:norm(2, true) * 3.8):cumsum(1):to(device),
        rotations = mf.random.rotations(length):to(device), torsions = mf.randn(length, 1, 2):to(device), times = { 0.1 },
      }
      local noisy = flow:corrupt(batch)
      local loss = flow:loss(model(noisy), noisy)
      largest = tonumber(mf.memory_report():match "(%d+) bytes")
      optimizer:step((loss))
    end)
  end
  once()
  collectgarbage()
  collectgarbage()
  mf.reset_peak(device)
  local before = mf.memory(device).live
  once()
  return mf.memory(device).peak - before, largest, mf.memory(device).live - before
end

describe("a training step", function()
  local function check(length)
    local one, largest_one = step(length, "cpu")
    local two, largest_two, left = step(2 * length, "cpu")
    assert.is_true(two <= 2.1 * one, ("%d bytes at L = %d, %d at %d"):format(one, length, two, 2 * length))
    assert.is_true(largest_two <= 2.1 * largest_one, ("largest storage %d and %d"):format(largest_one, largest_two))
    -- L x L floats would be this large:
    assert.is_true(largest_two < 4 * (2 * length) ^ 2)
    assert.is_true(left <= 0, left .. " bytes stay behind a step")
    local planned = step(2 * length, "null")
    assert.is_true(math.abs(planned / two - 1) < 0.05, ("null device: %d, cpu: %d"):format(planned, two))
  end
  for _, length in ipairs(quick) do
    it(("takes twice the bytes at twice the length %d, as the null device foretells"):format(length), function() check(length) end)
  end
  for _, length in ipairs(slow) do
    it(("takes twice the bytes at twice the length %d #slow"):format(length), function() check(length) end)
  end
end)

describe("the record of operations", function()
  it("frees a forward pass that nobody keeps", function()
    local w = support.random.normal(64, 64):require_grad()
    support.no_leaks(function()
      local y = w
      for _ = 1, 20 do y = (y:matmul(w) * 0.01):tanh() end
    end)
    local before = mf.memory().live
    mf.scope(function()
      local y = w
      for _ = 1, 20 do y = (y:matmul(w) * 0.01):tanh() end
    end)
    assert.equal(before, mf.memory().live)
  end)

  it("frees what a node kept as the backward pass goes by", function()
    support.no_leaks(function()
      local n, bytes = 40, 1000 * 8
      local w = support.random.normal(1000):require_grad()
      local loss = mf.scope(function()
        local y = w
        for _ = 1, n do y = y:sin() end
        return y:sum()
      end)
      collectgarbage()
      mf.reset_peak()
      local before = mf.memory().live
      assert.is_true(before >= n * bytes)
      loss:backward()
      -- two cotangents at a time, while kept inputs go
      assert.is_true(mf.memory().peak <= before + 3 * bytes, ("%d over %d"):format(mf.memory().peak, before))
      assert.is_true(mf.memory().live <= before - (n - 3) * bytes)
    end)
  end)

  it("goes back over the same graph twice when it is retained, and not when it is not", function()
    support.no_leaks(function()
      local x = support.random.normal(7):require_grad()
      local y = (x:sin() * x):sum()
      y:backward { retain = true }
      local once = x:grad():values()
      y:backward { retain = true }
      y:backward()
      for i, value in ipairs(x:grad():values()) do assert.is_true(math.abs(value - 3 * once[i]) <= 1e-15 * 8 * math.abs(value)) end
      support.error_matches(function() y:backward() end, "already walked and freed; give retain", true)
    end)
  end)

  it("names both operators when a kept tensor was written in place", function()
    support.no_leaks(function()
      local x = support.random.normal(4):require_grad()
      local y = x * 2
      local z = y:exp()
      mf.no_grad(function() z:add_(z:detach()) end)
      support.error_matches(function() z:sum():backward() end, "output 1 (4) of exp was written in place by add_", true)
      local a = x * 3
      local b = a:sin()
      mf.no_grad(function() a:select(1, 2):fill_(0) end)  -- a view of it
      support.error_matches(function() b:sum():backward() end, "input 1 (4) of sin was written in place by fill", true)
      support.error_matches(function() x:fill_(1) end, "fill: a tensor that requires a gradient", true)
    end)
  end)

  it("forgets nothing of tensors that were released after they were recorded", function()
    support.no_leaks(function()
      local x = support.random.normal(5):require_grad()
      local y = x * x
      local z = y:exp()
      local want = (2 * x:detach() * z:detach()):values()
      y:release()
      z:sum():backward()
      for i, value in ipairs(x:grad():values()) do assert.is_true(math.abs(value - want[i]) <= 1e-14 * math.abs(want[i])) end
      support.error_matches(function() return y + 1 end, "was released", true)
    end)
  end)

  for _, n in ipairs { 100000 } do
    it(("releases and walks chains of %d nodes without a deep stack"):format(n), function()
      support.no_leaks(function()
        local x = mf.ones(1):require_grad()
        mf.scope(function()
          local y = x
          for _ = 1, n do y = y + 1 end
        end)
        local y = mf.scope(function()
          local z = x
          for _ = 1, n do z = z + 1 end
          return z
        end)
        y:sum():backward()
        assert.equal(1, x:grad():item())
      end)
    end)
  end

  it("frees a walk that was given up, and lets the graph be walked again", function()
    support.no_leaks(function()
      local fail = true
      local f = mf.differentiable {
        forward = function(_, x) return x * 2 end,
        backward = function(_, dy)
          if fail then error "not yet" end
          return dy * 2
        end,
      }
      local x = support.random.normal(3):require_grad()
      local y = f(x * 1):sum()
      assert.has_error(function() y:backward { retain = true } end)
      fail = false
      y:backward()
      assert.same({ 2, 2, 2 }, x:grad():values())
    end)
  end)
end)

describe("gradients", function()
  it("of two leaves are two tensors, also where one cotangent reaches both", function()
    support.no_leaks(function()
      local a, b = support.random.normal(3):require_grad(), support.random.normal(3):require_grad()
      ;((a + b) * 2):sum():backward()
      a:grad():mul_(5)
      assert.same({ 2, 2, 2 }, b:grad():values())
      local cotangent = mf.ones({ 3 }, { dtype = "float64" })
      a:zero_grad()
      a:backward(cotangent)
      cotangent:mul_(7)
      assert.same({ 1, 1, 1 }, a:grad():values())
    end)
  end)

  it("do not keep the tensor that they are a part of", function()
    support.no_leaks(function()
      local before = support.live_bytes()
      local a, b = mf.zeros(2, 3):require_grad(), mf.zeros(1000, 3):require_grad()
      mf.cat({ a, b }, 1):square():sum():backward()
      b:release()
      assert.equal(2 * 3 * 4 + 2 * 3 * 4, support.live_bytes() - before)
      assert.equal(6, a:grad():count())
    end)
  end)

  it("begin anew where they were released", function()
    support.no_leaks(function()
      local a = support.random.normal(3):require_grad()
      ;(a * 2):sum():backward()
      a:grad():release()
      assert.is_nil(a:grad())
      ;(a * 3):sum():backward()
      assert.same({ 3, 3, 3 }, a:grad():values())
    end)
  end)

  it("lent to a function in Lua may be released by it", function()
    support.no_leaks(function()
      local f = mf.differentiable {
        forward = function(_, x) return x * 1 end,
        backward = function(_, dy)
          dy:release()
          return nil
        end,
      }
      local a = support.random.normal(3):require_grad()
      local y = (f(a * 1) + a * 1) * 2
      y:sum():backward()
      assert.same({ 2, 2, 2 }, a:grad():values())
    end)
  end)
end)

describe("a checkpoint", function()
  local function block(w)
    return function(x)
      for _ = 1, 8 do x = (x:matmul(w) * 0.2):tanh() end
      return x
    end
  end

  it("gives the same gradients for less memory", function()
    support.no_leaks(function()
      local w = support.random.normal(32, 32):require_grad()
      local x = support.random.normal(500, 32):require_grad()
      local function measure(call)
        w:zero_grad()
        x:zero_grad()
        collectgarbage()
        collectgarbage()
        mf.reset_peak()
        local before = mf.memory().live
        local loss = mf.scope(function()
          local y, f = x, block(w)
          for _ = 1, 4 do y = call(f, y) end
          return y:square():sum()
        end)
        loss:backward()
        return mf.memory().peak - before, w:grad():bytes(), x:grad():bytes()
      end
      local plain, w1, x1 = measure(function(f, ...) return f(...) end)
      local less, w2, x2 = measure(mf.checkpoint)
      assert.is_true(less < 0.6 * plain, ("%d against %d"):format(less, plain))
      assert.equal(x1, x2)
      assert.equal(#w1, #w2)
    end)
  end)

  it("may hold functions in Lua, dropout, other checkpoints and scopes", function()
    support.no_leaks(function()
      local w = support.random.normal(5, 5):require_grad()
      local square = mf.differentiable {
        forward = function(saved, x)
          saved.x = x
          return x * x
        end,
        backward = function(saved, dy) return dy * saved.x * 2 end,
      }
      local function inner(x) return square(x:matmul(w)):dropout(0.3) end
      local function outer(x)
        return mf.scope(function() return mf.scope(function() return mf.checkpoint(inner, x) end) * x + x end)
      end
      local x = support.random.normal(6, 5)
      local function gradient(call)
        mf.seed(3)
        w:zero_grad()
        call(outer, x):sum():backward()
        return w:grad():detach()
      end
      local want = gradient(function(f, ...)
        local checkpoint = mf.checkpoint
        mf.checkpoint = function(g, ...) return g(...) end
        local y = f(...)
        mf.checkpoint = checkpoint
        return y
      end)
      support.close(gradient(mf.checkpoint), want, 1e-14)
    end)
  end)
end)

describe("in-place writes", function()
  it("read what was there where both sides are one storage", function()
    local x = mf.tensor { { 1, 2 }, { 3, 4 } }
    x:copy_(x:t())
    assert.same({ 1, 3, 2, 4 }, x:values())
    x:add_(x:narrow(1, 1, 1))
    assert.same({ 2, 6, 3, 7 }, x:values())
  end)

  it("that are refused count for nothing", function()
    local x = mf.ones(3)
    local before = tonumber(F.C.mf_tensor_version(x))
    assert.equal(F.C.MF_ESHAPE, F.C.mf_tensor_write(x, ffi.new "float[4]", 16))
    assert.has_error(function() x:copy_(mf.ones(4)) end)
    assert.has_error(function() x:add_(mf.ones({ 3 }, { dtype = "float64" })) end)
    assert.equal(before, tonumber(F.C.mf_tensor_version(x)))
  end)
end)
