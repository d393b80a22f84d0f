local mf = require "moonfold"
local support = require "spec.support"

local nn = mf.nn

-- The same calls, through fn alone and through a graph: lists of what they gave.
local function both(make, calls)
  local results = {}
  for i, wrap in ipairs { function(fn) return fn end, mf.graph } do
    local fn = wrap(make())
    results[i] = {}
    for k, call in ipairs(calls()) do results[i][k] = fn(call):to("cpu") end
  end
  return results[1], results[2]
end

describe("a graph on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function filled(n, value) return mf.full({ n }, value, { device = device }) end

  it("replays with the data of each call", function()
    local runs = 0
    local double = mf.graph(function(x)
      runs = runs + 1
      return x * 2 + 1
    end)
    for i = 1, 6 do assert.equal(3 * (2 * i + 1), double(filled(3, i)):sum():item()) end
    assert.equal(2, runs)          -- once as it is, once to capture
    assert.equal(1, double:count())
  end)

  it("gives results that later calls leave alone", function()
    local same = mf.graph(function(x) return { x = x + 0 } end)
    local kept = {}
    for i = 1, 5 do kept[i] = same(filled(2, i)).x end
    for i = 1, 5 do assert.equal(2 * i, kept[i]:sum():item()) end
  end)

  it("keeps the shapes used last", function()
    local sum = mf.graph(function(x, add) return (x + add):sum() end, { keep = 2 })
    for _ = 1, 3 do
      for n = 1, 4 do assert.equal(n * 3, sum(filled(n, 1), 2):item()) end
    end
    assert.equal(2, sum:count())
    assert.equal(4 * 6, sum(filled(4, 1), 5):item())       -- another number is another graph
    sum:release()
    assert.equal(0, sum:count())
    assert.equal(8, sum(filled(4, 1), 1):item())
  end)

  it("waits with shapes that take turns, until a graph is worth its capture", function()
    local capture, captures = require "moonfold.capture", 0
    local sum = mf.graph(function(x)
      if capture.active() then captures = captures + 1 end
      return x:sum()
    end, { keep = 1 })
    local function rounds(count, shapes)
      local before = captures
      for _ = 1, count do
        for n = 1, shapes do assert.equal(2 * n, sum(filled(n, 2)):item()) end
      end
      return captures - before
    end
    assert.is_true(rounds(100, 3) <= 20, captures)                   -- of 300 calls; each graph is dropped for the next shape
    captures = 0
    assert.is_true(rounds(200, 1) <= 1, captures)          -- one shape alone is captured all the same
    assert.equal(0, rounds(20, 1))
  end)

  it("tells packings apart by their lengths", function()
    local means = mf.graph(function(x, packing) return x:segment_sum(packing) end)
    for _ = 1, 3 do
      assert.same({ 1, 2 }, means(filled(3, 1), mf.packing { 1, 2 }):values())
      assert.same({ 2, 1 }, means(filled(3, 1), mf.packing { 2, 1 }):values())
    end
  end)

  it("draws new random numbers at every replay, those of the function itself", function()
    local plain, graphed = both(function()
      local rng = mf.rng(11, 3)
      return function(x) return mf.randn(5, { device = device, rng = rng }) + x end
    end, function()
      local calls = {}
      for i = 1, 5 do calls[i] = filled(5, i) end
      return calls
    end)
    for k = 1, 5 do assert.same(plain[k]:values(), graphed[k]:values()) end
  end)

  it("drops out anew, and the same in backward", function()
    local plain, graphed = both(function()
      local rng = mf.rng(5)
      return function(x)
        local y = x:detach():require_grad()
        local sum = (y:dropout(0.5, rng) * x):sum()
        sum:backward()
        local gradient = y:grad()
        y:zero_grad()
        return gradient
      end
    end, function()
      local calls = {}
      for i = 1, 4 do calls[i] = filled(64, i) end
      return calls
    end)
    for k = 1, 4 do assert.same(plain[k]:values(), graphed[k]:values()) end
    assert.not_same((graphed[3] / 3):values(), (graphed[4] / 4):values())
  end)

  -- Eight steps of a small network, the learning rate changing: its parameters after each.
  local function train(wrap, clip)
    mf.seed(1)
    local model = nn.mlp { input = 6, hidden = 16, output = 3, rng = mf.rng(2) }:to(device)
    local opt = mf.optim.adamw(model:parameters(), { lr = 1e-2, clip = clip })
    local step = wrap(function(x, y)
      local loss = (model(x) - y):square():mean()
      local norm = opt:step(loss)
      return loss, norm
    end)
    local losses = {}
    for i = 1, 8 do
      opt.lr = 1e-2 / i
      local rng = mf.rng(100 + i)
      local x, y = mf.randn(20, 6, { rng = rng }):to(device), mf.randn(20, 3, { rng = rng }):to(device)
      losses[i] = step(x, y):item()
    end
    return losses, opt, model
  end

  it("trains as the function does, bit for bit", function()
    mf.deterministic(true, function()
      local plain, opt = train(function(fn) return fn end, 0.5)
      local graphed, graphed_opt = train(mf.graph, 0.5)
      assert.same(plain, graphed)
      local a, b = opt:state(), graphed_opt:state()
      assert.equal(8, a.steps)
      assert.equal(8, b.steps)
      for name, x in pairs(a) do
        if mf.is_tensor(x) then assert.same(x:to("cpu"):values(), b[name]:to("cpu"):values()) end
      end
    end)
  end)

  describe("refuses, saying why,", function()
    local function captured(fn, x)
      local g = mf.graph(fn)
      x = x or filled(3, 1)
      g(x)
      local ok, message = pcall(g, x)
      assert.is_false(ok)
      assert.equal(3, filled(3, 1):sum():item())          -- the session goes on
      return message
    end

    it("to read a value", function()
      assert.matches("reading values .* cannot be captured", captured(function(x) return x:sum():item() end))
    end)
    it("to bring values from the host", function()
      local message = captured(function(x) return x + mf.tensor { 1, 2, 3 }:to(device) end)
      assert.matches("values from the host cannot be captured", message)
    end)
    it("to draw a number for the host", function()
      local rng = mf.rng(3)
      assert.matches("number: a number for the host cannot be captured", captured(function(x) return x * rng:number() end))
    end)
    it("to draw on the CPU", function()
      assert.matches("random numbers on cpu cannot be captured", captured(function(x) mf.randn(3); return x * 2 end))
    end)
    it("two generators of one seed and stream", function()
      local a, b = mf.rng(9), mf.rng(9)
      assert.matches("two generators of seed 9 and stream 0", captured(function(x)
        return mf.randn(3, { device = device, rng = a }) + mf.randn(3, { device = device, rng = b }) + x
      end))
    end)
    it("to leave gradients behind", function()
      local w = mf.ones(3, { device = device, requires_grad = true })
      local g = mf.graph(function(x)
        local sum = (w * x):sum()
        sum:backward()
        return sum:detach()
      end)
      g(filled(3, 1))
      w:zero_grad()
      local ok, message = pcall(g, filled(3, 1))
      assert.is_false(ok)
      assert.matches("leaves gradients of 1 tensor", message)
      w:zero_grad()
    end)
    it("arguments that it cannot compare", function()
      local ok, message = pcall(mf.graph(function() end), { model = function() end })
      assert.is_false(ok)
      assert.matches("graph: argument 1.model is a function", message)
    end)
    it("an error of the function, as it is", function()
      local count = 0
      local message = captured(function(x)
        count = count + 1
        if count > 1 then error("mine", 0) end
        return x * 1
      end)
      assert.equal("mine", message)
    end)
  end)

  it("holds what it uses: a tensor that the program forgets keeps its place", function()
    local held = { w = filled(1000, 2) }
    local g = mf.graph(function(x) return (x * held.w):sum() end)
    for _ = 1, 2 do g(filled(1000, 1)) end
    held.w = nil
    collectgarbage()
    local others = {}
    for i = 1, 50 do others[i] = filled(1000, 100 + i) end
    assert.equal(6000, g(filled(1000, 3)):item())
    assert.equal(101, others[1]:max(1):item())
  end)

  it("gives its memory back", function()
    collectgarbage()
    local before = mf.memory(device).live
    do
      local g = mf.graph(function(x) return (x * 2):sum() end)
      for i = 1, 3 do g(filled(100000, i)) end
      g:release()
    end
    collectgarbage()
    collectgarbage()
    assert.equal(before, mf.memory(device).live)
  end)

  it("may be given up while another is captured, as the collector does", function()
    local other = mf.graph(function(x) return (x * 2):sum() end)
    local before
    for i = 1, 3 do assert.equal(600000 * i, other(filled(300000, i)):item()) end
    local calls = 0
    local g = mf.graph(function(x)
      calls = calls + 1
      if calls == 2 then
        other:release()
        before = mf.memory(device).reserved
      end
      return (x + 1):sum()
    end)
    for i = 1, 4 do assert.equal(1000 * (i + 1), g(filled(1000, i)):item()) end
    assert.equal(2, calls)
    collectgarbage()
    collectgarbage()
    assert.is_true(mf.memory(device).reserved < before)        -- its memory went when the capture had ended
  end)

  -- Blocks of an eighth of the device, which is not to be had in an emulator's memory unless that is small.
  mf.synchronize(device)           -- a device that was never used has no size
  local total = mf.memory(device).total
  local function eighths(n)
    local list = {}
    for i = 1, n do list[i] = mf.empty(math.floor(total / 32), { device = device }) end
    for i = 1, n do list[i]:release() end
  end
  local on_whole_device = support.emulated() and total > 2 ^ 29 and pending or it

  on_whole_device("is captured where the pool holds most of the device #memory", function()
    mf.flush(device)
    local calls = 0
    local g = mf.graph(function(x)
      calls = calls + 1
      eighths(5)
      return x * 2
    end)
    for i = 1, 4 do assert.equal(6 * i, g(filled(3, i)):sum():item()) end
    assert.equal(2, calls)
  end)

  on_whole_device("is captured after memory ran out, in a call and in a capture #memory", function()
    mf.flush(device)
    local many = 9
    local g = mf.graph(function(x)
      eighths(many)
      return x * 2
    end)
    assert.error_matches(function() g(filled(3, 1)) end, "out of memory: %d+ bytes wanted on cuda:0")
    assert.error_matches(function() g(filled(3, 1)) end, "out of memory: %d+ bytes wanted on cuda:0")
    many = 5
    local allocations
    for i = 1, 4 do
      assert.equal(10 * i, g(filled(5, i)):sum():item())
      if i == 3 then allocations = mf.memory(device).allocations end
    end
    assert.is_true(mf.memory(device).allocations - allocations < 10)    -- replayed, not run
  end)
end)

describe("a graph on the CPU", function()
  it("runs the function", function()
    local runs = 0
    local g = mf.graph(function(x)
      runs = runs + 1
      return x:sum():item()
    end)
    for i = 1, 3 do assert.equal(2 * i, g(mf.full({ 2 }, i))) end
    assert.equal(3, runs)
  end)

  it("checks its options", function()
    assert.error_matches(function() mf.graph(1) end, "graph: argument 1 must be a function")
    assert.error_matches(function() mf.graph(function() end, { keep = 0 }) end, "keep must be at least 1")
  end)
end)
