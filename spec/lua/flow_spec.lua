-- Flow matching: interpolants, losses, couplings against what the recipes say, and that packing changes nothing.
local mf = require "moonfold"
local support = require "spec.support"
local couple = require "moonfold.flow.couple"
local help = require "spec.support.flow"

local random_batch, perfect, near_miss = help.random_batch, help.perfect, help.near_miss

describe("the floor under time", function()
  it("changes nothing above it and bounds the weight of small times", function()
    local plain = mf.flow.se3 { profile = "protein", separate_rotation = false }
    local floored = mf.flow.se3 { profile = "protein", separate_rotation = false, time_floor = 0.1 }
    local batch = random_batch("protein", { 7, 9 }, { times = { 0.5, 0.02 } })
    local noisy = plain:corrupt(batch)
    local prediction = near_miss(noisy)
    local a, b = plain:terms(prediction, noisy), floored:terms(prediction, noisy)
    for _, name in ipairs { "trans", "rot" } do
      local x, y = a[name]:values(), b[name]:values()
      assert.is_true(math.abs(x[1] - y[1]) <= 1e-5 * x[1], name)
      -- the weight is 1 / t^2: 1 / 0.1^2 in place of 1 / 0.02^2; float32 rounds a logarithm of small angles, hence 1e-4
      assert.is_true(math.abs(x[2] * (0.02 / 0.1) ^ 2 - y[2]) <= 1e-4 * y[2], name)
    end
  end)
end)

describe("FoldFlow's thresholds of time", function()
  it("measure positions in nm up to x0_threshold and fields above, the same otherwise", function()
    local plain = mf.flow.se3 { profile = "protein" }
    local batch = random_batch("protein", { 7, 9 }, { times = { 0.5, 0.1 } })
    local noisy = plain:corrupt(batch)
    local prediction = near_miss(noisy)
    local fields = plain:terms(prediction, noisy).trans:values()
    local both = mf.flow.se3({ profile = "protein", x0_threshold = 0.2 }):terms(prediction, noisy).trans:values()
    assert.equal(fields[1], both[1])
    local off = (prediction.translations - noisy.targets.translations):narrow(1, 8, 9) * 0.1
    support.close(mf.tensor(both[2]), mf.tensor(off:square():sum():item() / 9), 1e-5)
    -- along a stochastic path the field leads elsewhere than to x_0, the position does not
    local compat = mf.flow.se3 { profile = "protein", x0_threshold = 0.2, compat = true }
    local defective = compat:corrupt(batch)
    local terms = compat:terms(perfect(defective), defective).trans:values()
    assert.is_true(terms[1] > 1e-4 and terms[2] == 0)
  end)

  it("let the angle act above angle_gate", function()
    local noisy = mf.flow.se3({}):corrupt(random_batch("protein", { 7, 9 }, { times = { 0.5, 0.1 } }))
    local prediction = near_miss(noisy)
    local plain = mf.flow.se3({}):terms(prediction, noisy)
    local late = mf.flow.se3({ angle_gate = 0.2 }):terms(prediction, noisy)
    support.same_bits(plain.axis, late.axis)
    assert.same({ plain.angle:values()[1], 0 }, late.angle:values())
  end)
end)

local function means(x, packing) return x:segment_sum(packing):norm():item() end

for _, kind in ipairs { "protein", "rna" } do
  describe("flow.se3 " .. kind, function()
    local flow = mf.flow.se3 { profile = kind }

    it("starts at the data and ends at the noise", function()
      local clean, noisy_end = kind == "protein" and 0 or 1, kind == "protein" and 1 or 0
      local batch = random_batch(kind, { 7, 13 }, { times = { clean, noisy_end } })
      local noisy = flow:corrupt(batch)
      local target, p = noisy.targets, noisy.packing
      support.close(noisy.translations:narrow(1, 1, 7), target.translations:narrow(1, 1, 7), 1e-6)
      support.close(noisy.rotations:narrow(1, 1, 7), target.rotations:narrow(1, 1, 7), 1e-6)
      support.close(noisy.translations:narrow(1, 8, 13), target.noise:narrow(1, 8, 13), 1e-6)
      support.close(noisy.rotations:narrow(1, 8, 13), target.noise_rotations:narrow(1, 8, 13), 1e-5)
      assert.is_true(means(noisy.translations, p) < 1e-3)
    end)

    it("draws times inside the training range and the same ones again", function()
      local lengths = {}
      for i = 1, 200 do lengths[i] = 1 + i % 3 end
      local a, b = flow:corrupt(random_batch(kind, lengths)), flow:corrupt(random_batch(kind, lengths))
      support.same_bits(a.translations, b.translations)
      support.same_bits(a.rotations, b.rotations)
      local sum = 0
      for _, t in ipairs(a.times) do
        assert.is_true(t >= 0.01 and t <= (kind == "protein" and 1 or 0.99))
        sum = sum + t
      end
      assert.is_true(math.abs(sum / 200 - 0.5) < 4 * math.sqrt(1 / 12 / 200) + 0.005)   -- four standard errors
    end)

    it("loses nothing on a perfect prediction, at any time", function()
      local batch = random_batch(kind, { 9, 9, 9, 9 }, { times = { 0.01, 0.2, 0.6, 0.99 } })
      local noisy = flow:corrupt(batch)
      local loss = flow:loss(perfect(noisy), noisy):item()
      -- x_t - (x_t - x_0) in float32 at t = 0.01 leaves some 1e-7 of 10 angstrom over t
      assert.is_true(loss >= 0 and loss < 1e-7)
    end)

    it("has finite gradients at the ends of time and for identical and opposite rotations", function()
      local batch = random_batch(kind, { 6, 6, 6 }, { times = { 0.01, 0.5, kind == "protein" and 1 or 0.99 } })
      local noisy = flow:corrupt(batch)
      for _, start in ipairs { perfect(noisy), near_miss(noisy) } do
        for name, x in pairs(start) do start[name] = x:detach():clone():require_grad() end
        flow:loss(start, noisy):backward()
        for name, x in pairs(start) do
          local g = x:grad()
          local total = g and g:abs():sum():item() or 0
          assert.is_true(total == total and total < math.huge, name)
        end
      end
      local turned = near_miss(noisy)
      turned.rotations = noisy.rotations:matmul(mf.tensor { { 1, 0, 0 }, { 0, -1, 0 }, { 0, 0, -1 } }):require_grad()
      flow:loss(turned, noisy):backward()
      local total = turned.rotations:grad():abs():sum():item()
      assert.is_true(total == total and total < math.huge)
    end)

    it("gives one sequence the same terms alone, in a pack and padded", function()
      local gate_t = kind == "protein" and 0.1 or 0.7
      local both = random_batch(kind, { 5, 17 }, { times = { gate_t, 0.4 } })
      local noisy = flow:corrupt(both)
      local guess = near_miss(noisy)
      local terms = flow:terms(guess, noisy)
      local packing, first = mf.packing { 17 }, 6
      local function alone(x) return x:narrow(1, first, 17):contiguous() end
      -- padded by four residues of nonsense outside the mask
      local function padded(x) return mf.cat({ alone(x), alone(x):narrow(1, 1, 4) }, 1) end
      for _, case in ipairs { { alone, packing }, { padded, mf.packing { 21 } } } do
        local cut, p = case[1], case[2]
        local one = { packing = p, t = mf.tensor { 0.4 }, times = { 0.4 }, targets = {} }
        for _, name in ipairs { "translations", "rotations" } do one[name] = cut(noisy[name]) end
        for name, x in pairs(noisy.targets) do one.targets[name] = cut(x) end
        one.loss_mask = cut(noisy.loss_mask)
        if p:total() == 21 then
          one.loss_mask = mf.cat({ mf.ones(17), mf.zeros(4) }, 1):bool()
        end
        local single = flow:terms({ translations = cut(guess.translations), rotations = cut(guess.rotations),
                                    torsions = cut(guess.torsions) }, one)
        for name, value in pairs(single) do
          support.close(value, terms[name]:narrow(1, 2, 1), 1e-5, name)
        end
      end
    end)

    it("does not change when everything is turned together", function()
      local batch = random_batch(kind, { 8, 11 }, { times = { 0.1, 0.6 } })
      local noisy = flow:corrupt(batch)
      local guess = near_miss(noisy)
      local before = flow:loss(guess, noisy):item()
      local Q = mf.random.rotations(1, { rng = mf.rng(9) })
      local function turned(x)
        if x:ndim() == 3 then return Q:matmul(x) end
        return x:matmul(Q:select(1, 1):t())
      end
      noisy.translations, noisy.rotations = turned(noisy.translations), turned(noisy.rotations)
      for _, name in ipairs { "translations", "noise" } do noisy.targets[name] = turned(noisy.targets[name]) end
      noisy.targets.rotations = turned(noisy.targets.rotations)
      guess.translations, guess.rotations = turned(guess.translations), turned(guess.rotations)
      support.close(flow:loss(guess, noisy):item(), mf.tensor(before), 1e-5)
    end)

    it("counts terms by time", function()
      local lengths, times = {}, {}
      for i = 1, 10 do lengths[i], times[i] = 4, (i - 0.5) / 10 end
      local noisy = flow:corrupt(random_batch(kind, lengths, { times = times }))
      local _, terms = flow:loss(near_miss(noisy), noisy)
      local log = flow:time_log()
      log:add(terms, noisy)
      local report = log:flush().trans
      assert.equal(kind == "protein" and 5 or 4, #report.bins)
      assert.equal(10, report.count)
      support.close(mf.tensor(report.mean), terms.trans:mean(), 1e-6)
    end)

    it("conditions the network on itself about as often as asked, alike for alike steps", function()
      local noisy = flow:corrupt(random_batch(kind, { 4 }))
      local calls = 0
      local function model(x) calls = calls + 1; return { translations = x.translations + 1, rotations = x.rotations } end
      for step = 1, 100 do
        noisy.step = step
        flow:self_condition(model, noisy)
        local first = noisy.trans_sc ~= nil
        flow:self_condition(model, noisy)
        assert.equal(first, noisy.trans_sc ~= nil)
      end
      assert.is_true(calls > 60 and calls < 140)            -- 100 expected, standard deviation 10
    end)
  end)
end

describe("the published numbers", function()
  local function one_angstrom_off(kind, o, times)
    local lengths = {}
    for i in ipairs(times) do lengths[i] = 10 end
    o.profile = kind
    local flow = mf.flow.se3(o)
    local noisy = flow:corrupt(random_batch(kind, lengths, { times = times }))
    local guess = perfect(noisy)
    guess.translations = guess.translations + mf.tensor { { 1, 0, 0 } }
    return flow:terms(guess, noisy).trans, flow
  end

  it("of a translation error of one angstrom, RNA: 2 * 0.04 / 3 at t = 0.5, 2 / 3 from t = 0.9", function()
    local terms, flow = one_angstrom_off("rna", {}, { 0.5, 0.9, 0.95 })
    support.close(terms * flow.weights.trans, { 0.026667, 0.666667, 0.666667 }, 2e-5)
  end)

  it("of the same error, protein: 0.04 at t = 0.5", function()
    support.close((one_angstrom_off("protein", {}, { 0.5 })), { 0.04 }, 1e-5)
  end)

  it("of a perfect prediction in compat: the protein's floor of 3 / n", function()
    local flow, n, sum = mf.flow.se3 { profile = "protein", compat = true }, 20, 0
    local lengths, times = {}, {}
    for i = 1, 400 do lengths[i], times[i] = n, 0.5 end
    local batch = random_batch("protein", lengths, { times = times })
    local centred = mf.flow.se3 { profile = "protein" }:corrupt(batch).targets.translations
    batch.translations = centred
    local noisy = flow:corrupt(batch)
    for _, v in ipairs(flow:terms(perfect(noisy), noisy).trans:values()) do sum = sum + v / 400 end
    -- the mean of three squared normals of variance 1 / n: standard error sqrt(6 / 400) / n
    assert.is_true(math.abs(sum - 3 / n) < 4 * math.sqrt(6 / 400) / n)
  end)

  it("mask torsions that the truth lacks, except in compat", function()
    local batch = random_batch("rna", { 5 }, { times = { 0.5 } })
    local mask = mf.ones(5, 8):totable()
    mask[1][6], mask[1][7], mask[1][8] = 0, 0, 0
    batch.torsion_mask = mf.tensor(mask):bool()
    local values = {}
    for _, compat in ipairs { false, true } do
      local flow = mf.flow.se3 { profile = "rna", compat = compat, ot = "none" }
      local noisy = flow:corrupt(batch)
      local guess = perfect(noisy)
      local off = mf.zeros(5, 8, 2):totable()
      off[1][7] = { 1, 1 }
      guess.torsions = guess.torsions + mf.tensor(off)
      values[compat] = flow:terms(guess, noisy).tors:item()
    end
    assert.equal(0, values[false])
    support.close(mf.tensor(values[true]), mf.tensor(2 / 40), 1e-5)
  end)
end)

describe("couplings", function()
  it("of kabsch turn the noise with the data", function()
    local flow = mf.flow.se3 { profile = "rna" }
    local batch = random_batch("rna", { 9, 9, 9, 14 })
    local Q = mf.random.rotations(1, { rng = mf.rng(4) })
    local before = flow:corrupt(batch)
    batch.translations, batch.rotations = batch.translations:matmul(Q:select(1, 1):t()), Q:matmul(batch.rotations)
    local after = flow:corrupt(batch)
    support.close(after.translations, before.translations:matmul(Q:select(1, 1):t()), 1e-4)
    support.close(after.rotations, Q:matmul(before.rotations), 1e-4)
  end)

  local function cost_between(x, y, packing)
    return (x - y):norm(2):segment_mean(packing):sum():item()
  end

  it("of kabsch cost no more than any other pairing of turned noise", function()
    local packing = mf.packing { 6, 6, 6, 6 }
    local rng = mf.rng(21)
    local w = mf.ones(24)
    local data = require("moonfold.flow.segments").centre(mf.randn(24, 3, { rng = rng }) * 5, w, packing)
    local noise = require("moonfold.flow.segments").centre(mf.randn(24, 3, { rng = rng }) * 5, w, packing)
    local best = cost_between(couple.kabsch(noise, data, w, packing), data, packing)
    local orders, order = {}, { 1, 2, 3, 4 }
    local function permute(k)
      if k > 4 then orders[#orders + 1] = { unpack(order) } end
      for j = k, 4 do
        order[k], order[j] = order[j], order[k]
        permute(k + 1)
        order[k], order[j] = order[j], order[k]
      end
    end
    permute(1)
    local least = math.huge
    for _, o in ipairs(orders) do
      local parts = {}
      for b, a in ipairs(o) do
        local x, y = noise:narrow(1, 6 * a - 5, 6):contiguous(), data:narrow(1, 6 * b - 5, 6):contiguous()
        local R = mf.geometry.kabsch(x, y, nil, mf.packing { 6 })
        parts[b] = x:matmul(R:select(1, 1):t())
      end
      least = math.min(least, cost_between(mf.cat(parts, 1), data, packing))
    end
    support.close(mf.tensor(best), mf.tensor(least), 1e-5)
  end)

  it("of squared give every example noise of the batch and never a dearer whole", function()
    local packing = mf.packing { 5, 5, 5, 8 }
    local rng = mf.rng(8)
    local o = { data = mf.randn(23, 3, { rng = rng }) * 10, noise = mf.randn(23, 3, { rng = rng }) * 10,
                data_rotations = mf.random.rotations(23, { rng = rng }), noise_rotations = mf.random.rotations(23, { rng = rng }),
                weights = mf.ones(23) }
    local function cost(x, r)
      local angle2 = mf.geometry.so3_log(o.data_rotations:transpose(2, 3):matmul(r)):square():sum(2)
      return (angle2 + ((x - o.data) * 0.1):square():sum(2)):sum():item()
    end
    local x, r = couple.squared(o, packing)
    assert.is_true(cost(x, r) <= cost(o.noise, o.noise_rotations) * (1 + 1e-6))
    support.close(x:sum(1), o.noise:sum(1), 1e-5)
    support.same_bits(x:narrow(1, 16, 8):contiguous(), o.noise:narrow(1, 16, 8):contiguous())
  end)

  it("of sinkhorn have uniform margins and near the assignment as the regularisation falls", function()
    local cost = { { 1, 0, 5 }, { 0, 3, 2 }, { 4, 1, 0 } }
    local plan = couple.sinkhorn(cost, 0.05)
    for i = 1, 3 do
      support.close(mf.tensor(plan[i][1] + plan[i][2] + plan[i][3]), mf.tensor(1 / 3), 1e-6)
      support.close(mf.tensor(plan[1][i] + plan[2][i] + plan[3][i]), mf.tensor(1 / 3), 1e-6)
    end
    local sharp = couple.sinkhorn(cost, 0.01)
    assert.is_true(sharp[1][2] > 0.33 and sharp[2][1] > 0.33 and sharp[3][3] > 0.33)
  end)

  it("exist under every name with every profile", function()
    for _, kind in ipairs { "protein", "rna" } do
      for _, ot in ipairs { "none", "kabsch", "squared", "sinkhorn" } do
        for _, stochastic in ipairs { false, true } do
          local flow = mf.flow.se3 { profile = kind, ot = ot, stochastic = stochastic }
          local noisy = flow:corrupt(random_batch(kind, { 4, 4, 1, 7 }))
          local total = flow:loss(near_miss(noisy), noisy):item()
          assert.is_true(total == total and total > 0)
        end
      end
    end
  end)
end)

describe("flow.se3", function()
  it("keeps a motif where it is and does not score it", function()
    local batch = random_batch("protein", { 6 }, { times = { 0.9 } })
    batch.fixed = mf.tensor { true, true, false, false, false, false }
    local flow = mf.flow.se3 {}
    local noisy = flow:corrupt(batch)
    support.same_bits(noisy.translations:narrow(1, 1, 2):contiguous(), noisy.targets.translations:narrow(1, 1, 2):contiguous())
    local guess = perfect(noisy)
    local moved = mf.zeros(6, 3):totable()
    moved[1] = { 30, 0, 0 }
    local before = flow:terms(guess, noisy).trans:item()
    guess.translations = guess.translations + mf.tensor(moved)
    support.close(flow:terms(guess, noisy).trans, { before }, 1e-6)
  end)

  it("sets residues outside the mask to the origin and the identity", function()
    local batch = random_batch("rna", { 5, 3 })
    batch.mask = mf.tensor { true, false, true, true, true, false, false, false }
    local noisy = mf.flow.se3 { profile = "rna" }:corrupt(batch)
    support.close(noisy.translations:narrow(1, 6, 3), mf.zeros(3, 3), 0)
    support.close(noisy.rotations:select(1, 2), mf.eye(3), 0)
    -- an example without residues does not count among the examples
    local flow = mf.flow.se3 { profile = "rna" }
    local guess = near_miss(noisy)
    local loss, terms = flow:loss(guess, noisy)
    support.close(loss, mf.tensor(terms.total:values()[1]), 1e-6)
  end)

  it("names an option that does not exist, and the values of one that does", function()
    support.error_matches(function() mf.flow.se3 { rotations = "exp" } end, "unknown option 'rotations'", true)
    support.error_matches(function() mf.flow.se3 { ot = "kabsh" } end,
      "ot is 'kabsh' (known: kabsch, none, sinkhorn, squared)", true)
    support.error_matches(function() mf.flow.se3 { weights = { tors = 1 } } end, "no loss term 'tors'", true)
    support.error_matches(function() mf.flow.se3 {}:corrupt {} end, "a batch is a table", true)
  end)
end)
