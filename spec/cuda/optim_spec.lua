-- Optimizers on a GPU: the same steps as on the CPU, one by one and captured in a graph.
local mf = require "moonfold"
local support = require "spec.support"

describe("optimizers on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  -- Sizes around vectors and blocks; more than 64 tensors take the long list.
  local function parameters(dtype, to, count)
    local list = {}
    for i = 1, count do
      local n = ({ 1, 3, 4, 33, 4096, 4097, 9000, 0 })[(i - 1) % 8 + 1]
      if count > 8 then n = i % 40 + 1 end
      list[i] = mf.randn(n, { dtype = "float64", rng = mf.rng(100 + i) }):to(dtype):to(to):require_grad()
    end
    return list
  end

  local function loss_of(list, scale)
    local total
    for _, p in ipairs(list) do
      local term = ((p:square() * 0.5 + p) * scale):sum()
      total = total and total + term or term
    end
    return total
  end

  local makers = {
    adamw = function(list, ema) return mf.optim.adamw(list, { lr = 0.01, clip = 2, weight_decay = 0.1, ema = ema }) end,
    adam = function(list, ema) return mf.optim.adam(list, { lr = 0.01, weight_decay = 0.1, ema = ema }) end,
    ["sgd with momentum"] = function(list, ema) return mf.optim.sgd(list, { lr = 0.01, momentum = 0.9, clip = 2, ema = ema }) end,
    ["plain sgd"] = function(list, ema) return mf.optim.sgd(list, { lr = 0.01, weight_decay = 0.1, ema = ema }) end,
  }
  -- three steps of a dozen roundings, on values that the update moves by at most lr each
  local allowed = { float32 = 2 ^ -20, float64 = 2 ^ -48 }

  for name, make in pairs(makers) do
    for dtype, bound in pairs(allowed) do
      it(("%s follows the CPU, %s"):format(name, dtype), function()
        for _, count in ipairs { 8, 70 } do
          local function run(to)
            local list = parameters(dtype, to, count)
            local average = mf.optim.ema(list, 0.75)
            local opt = make(list, average)
            local norms = {}
            for step = 1, 4 do norms[step] = opt:step(loss_of(list, step == 2 and 0 / 0 or step)) end
            assert.equal(3, opt.steps)
            assert.equal(1, opt.skipped)
            return list, average:state(), norms, opt:state()
          end
          local ours, our_average, our_norms, our_state = run(device)
          local theirs, average, norms, state = run "cpu"
          for i = 1, count do
            support.close(ours[i]:detach():to "cpu", theirs[i]:detach(), bound)
            support.close(our_average[tostring(i)]:to "cpu", average[tostring(i)], bound)
          end
          for step = 1, 4 do
            if step ~= 2 then assert.is_true(math.abs(our_norms[step] / norms[step] - 1) < bound) end
          end
          for key, value in pairs(state) do
            if mf.is_tensor(value) then support.close(our_state[key]:to "cpu", value, 4 * bound, key) end
          end
        end
      end)
    end
  end

  it("give the same bits twice", function()
    local function run()
      local list = parameters("float32", device, 8)
      local opt = makers.adamw(list)
      for step = 1, 3 do opt:step(loss_of(list, step)) end
      return list
    end
    local a, b = run(), run()
    for i = 1, #a do support.same_bits(a[i]:to "cpu", b[i]:to "cpu") end
  end)

  it("resume bit for bit", function()
    local list = parameters("float32", device, 8)
    local opt = makers.adamw(list)
    for step = 1, 2 do opt:step(loss_of(list, step)) end
    local state, values = opt:state(), {}
    for i, p in ipairs(list) do values[i] = p:detach():clone() end
    for step = 3, 4 do opt:step(loss_of(list, step)) end
    local again = {}
    for i, v in ipairs(values) do again[i] = v:require_grad() end
    local resumed = makers.adamw(again)
    resumed:load(state)
    for step = 3, 4 do resumed:step(loss_of(again, step)) end
    assert.equal(4, resumed.steps)
    for i = 1, #list do support.same_bits(again[i]:to "cpu", list[i]:to "cpu") end
  end)

  it("take part in a captured step: learning rates, clipping, skips and counts as without", function()
    local function run(wrap)
      local list = parameters("float32", device, 8)
      local average = mf.optim.ema(list, 0.75)
      local opt = makers.adamw(list, average)
      local step = wrap(function(scale) return opt:step(loss_of(list, scale)) end)
      local norms = {}
      for i = 1, 6 do
        opt.lr, opt.clip = 0.01 / i, i
        local norm = step(mf.tensor(i == 4 and 0 / 0 or i):to(device))
        norms[i] = type(norm) == "number" and norm or norm:item()
        if i == 5 then assert.equal(4, opt.steps) end
      end
      assert.equal(5, opt.steps)
      assert.equal(1, opt.skipped)
      assert.equal(norms[6], opt.norm)
      return list, norms, average:state()
    end
    local captured, norms, average = run(mf.graph)
    local eager, eager_norms, eager_average = run(function(f) return f end)
    for i = 1, #eager do
      support.same_bits(captured[i]:to "cpu", eager[i]:to "cpu")
      support.same_bits(average[tostring(i)]:to "cpu", eager_average[tostring(i)]:to "cpu")
    end
    for i = 1, 6 do
      if i ~= 4 then assert.equal(eager_norms[i], norms[i]) end
    end
  end)

  it("update parameters on two devices by their common norm, outside of graphs", function()
    local capture = require "moonfold.capture"
    local a, b = mf.tensor({ 3 }, { requires_grad = true }), mf.tensor({ 4 }):to(device):require_grad()
    local opt = mf.optim.sgd({ a = a, b = b }, { lr = 1, clip = 1 });
    (a * a * 0.5):sum():backward();
    (b * b * 0.5):sum():backward()
    assert.is_true(math.abs(opt:step() - 5) < 1e-12)
    assert.equal(1, opt.steps)
    support.close(a:detach(), { 3 - 0.6 }, 2 ^ -23)
    support.close(b:detach():to "cpu", { 4 - 0.8 }, 2 ^ -23);
    (a * a):sum():backward()
    capture.begin()
    local ok, message = pcall(function() opt:step() end)
    capture.finish()
    assert.is_false(ok)
    assert.is_truthy(message:find("several devices meet on the host", 1, true), message)
    opt:zero_grad();
    (a * (0 / 0)):sum():backward();
    (b * b):sum():backward()
    opt:step()
    assert.equal(1, opt.skipped)
    support.close(b:detach():to "cpu", { 4 - 0.8 }, 2 ^ -23)
  end)
end)
