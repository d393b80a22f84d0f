-- Sampling: where integrators land, what a step does under rotation, streams, trajectories, files.
local mf = require "moonfold"
local support = require "spec.support"
local segments = require "moonfold.flow.segments"

-- A network that knows the answer: the data frames of each sequence, whatever it is asked.
local function oracle(data)
  return function(noisy)
    local n = noisy.translations:size(1) / data.length
    local function repeated(x)
      local parts = {}
      for k = 1, n do parts[k] = x end
      return mf.cat(parts, 1)
    end
    return { translations = repeated(data.translations), rotations = repeated(data.rotations), torsions = repeated(data.torsions) }
  end
end

local function random_data(kind, n)
  local rng = mf.rng(31)
  local k = kind == "protein" and 1 or 8
  local angle = mf.rand(n, k, { rng = rng }) * 6
  local x = segments.centre(mf.randn(n, 3, { rng = rng }) * 8, mf.ones(n), mf.packing { n })
  return { length = n, translations = x, rotations = mf.random.rotations(n, { rng = rng }),
           torsions = mf.stack({ angle:sin(), angle:cos() }, 3) }
end

-- A smooth network: pulls positions in and turns frames as their neighbours' positions say; equivariant and per sequence.
local function smooth(noisy)
  local x = noisy.translations * 0.5
  if noisy.trans_sc then x = x + noisy.trans_sc * 0.1 end
  local spread = segments.spread(noisy.t, noisy.packing) * 0.1
  local turn = mf.geometry.so3_exp(mf.cat({ spread, spread * 2, spread - 1 }, 2))
  local n = x:size(1)
  return { translations = x, rotations = noisy.rotations:matmul(turn), torsions = mf.ones(n, 1, 2) * 0.7 }
end

local function collect(...)
  local list = {}
  for i, s in mf.sample(...) do list[#list + 1] = s; assert.equal(i, s.number) end
  return list
end

for _, kind in ipairs { "protein", "rna" } do
  describe("sampling " .. kind, function()
    for _, steps in ipairs { 2, 3, 50 } do
      it(("lands on the data of an oracle in %d steps"):format(steps), function()
        local data = random_data(kind, 12)
        for _, rotation in ipairs { "exp", "linear" } do
          local flow = mf.flow.se3 { profile = kind, rotation = rotation }
          local list = collect(oracle(data), flow, { length = 12, n = 2, steps = steps })
          assert.equal(2, #list)
          support.close(list[1].translations, data.translations, 1e-6)
          support.close(list[2].rotations, data.rotations, 1e-6)
          support.close(list[2].torsions, data.torsions, 0)
        end
      end)
    end

    it("asks the network as often as the recipe says", function()
      local calls, times = 0, {}
      local data = random_data(kind, 4)
      local answer = oracle(data)
      local function model(noisy)
        calls = calls + 1
        times[calls] = noisy.t:values()[1]
        return answer(noisy)
      end
      collect(model, mf.flow.se3 { profile = kind }, { length = 4, steps = 50 })
      assert.equal(kind == "protein" and 51 or 50, calls)
      support.close(mf.tensor(times[calls]), mf.tensor(kind == "protein" and 0.01 or 1), 1e-6)
    end)

    it("moves with the state when everything is turned", function()
      local flow, data = mf.flow.se3 { profile = kind }, random_data(kind, 9)
      local rng, packing = mf.rng(12), mf.packing { 9 }
      local x, r = segments.centre(mf.randn(9, 3, { rng = rng }) * 10, mf.ones(9), packing), mf.random.rotations(9, { rng = rng })
      local at = flow:plan(50)[20]
      local Q = mf.random.rotations(1, { rng = rng })
      local function turned(v) return v:matmul(Q:select(1, 1):t()) end
      local x1, r1 = flow:step(x, r, data, at, { packing = packing })
      local x2, r2 = flow:step(turned(x), Q:matmul(r), { translations = turned(data.translations),
        rotations = Q:matmul(data.rotations) }, at, { packing = packing })
      support.close(x2, turned(x1), 1e-5)
      support.close(r2, Q:matmul(r1), 1e-5)
    end)

    it("makes a sample by its number, whatever is sampled beside it", function()
      local flow = mf.flow.se3 { profile = kind, stochastic = true, noise_scale = 1 }
      local together = collect(smooth, flow, { lengths = { 5, 9, 7 }, steps = 5, seed = 3 })
      local apart = collect(smooth, flow, { lengths = { 5, 9, 7 }, steps = 5, seed = 3, residues = 1 })
      local last = collect(smooth, flow, { lengths = { 5, 9, 7 }, steps = 5, seed = 3, first = 3 })
      local other = collect(smooth, flow, { lengths = { 5, 9, 7 }, steps = 5, seed = 4 })
      assert.equal(1, #last)
      for i = 1, 3 do
        support.close(apart[i].translations, together[i].translations, 1e-5)
        support.close(apart[i].rotations, together[i].rotations, 1e-5)
        assert.is_true(support.difference(other[i].translations, together[i].translations) > 0.01)
      end
      support.close(last[1].translations, together[3].translations, 1e-5)
    end)

    it("keeps trajectories of states and of clean predictions, cut by sample", function()
      local data = random_data(kind, 6)
      local flow = mf.flow.se3 { profile = kind }
      local list = collect(oracle(data), flow, { length = 6, n = 2, steps = 4, trajectory = true })
      local t = list[2].trajectory
      assert.equal(5, #t.state)
      assert.equal(4, #t.clean)
      for k = 1, 4 do support.close(t.clean[k].translations, data.translations, 1e-6) end
      support.same_bits(t.state[5].translations, list[2].translations)
      assert.is_true(support.difference(t.state[1].translations, list[1].trajectory.state[1].translations) > 0.01)
    end)

    it("hands every prediction to the guidance, and steps by the user's schedule", function()
      local data, seen = random_data(kind, 5), {}
      local flow = mf.flow.se3 { profile = kind }
      local from, to = flow.profile.sample_from, flow.profile.sample_to
      local shift = mf.tensor { { 0, 0, 3 } }
      local list = collect(oracle(data), flow, {
        length = 5, steps = 4,
        schedule = function(k, steps) return from + (to - from) * ((k - 1) / (steps - 1)) ^ 2 end,
        guidance = function(prediction, state)
          seen[state.step] = state.t
          prediction.translations = prediction.translations + shift
          return prediction
        end,
      })
      assert.equal(4, #seen)
      support.close(mf.tensor(seen[2]), mf.tensor(from + (to - from) / 9), 1e-6)
      support.close(list[1].translations, data.translations + shift, 1e-5)
    end)

    it("writes files that read back as the same atoms", function()
      local path = os.tmpname()
      local data = random_data(kind, 7)
      local s = collect(oracle(data), mf.flow.se3 { profile = kind }, { length = 7, steps = 3, trajectory = true })[1]
      local atoms, names = s:atoms()
      for _, format in ipairs { "pdb", "mmcif" } do
        s:save(path, format)
        local back = mf.structure.read(path, format)
        local chain = back:chains()[1]
        assert.equal(kind, chain.polymer)
        assert.equal(1, chain.numbers[1])
        local x, present = back:atoms(1, names)
        assert.is_true(present:all())
        -- three decimals
        assert.is_true((x - atoms):abs():max(1):max(1):max(1):item() <= 5.1e-4)
      end
      s:save_trajectory(path, "clean", "pdb")
      assert.equal(3, mf.structure.read(path, "pdb"):counts().models)
      os.remove(path)
    end)
  end)
end

it("the protein's compat step overshoots its last point by the published factor", function()
  local flow, data = mf.flow.se3 { profile = "protein", compat = true }, random_data("protein", 8)
  local plan = flow:plan(50)
  local packing = mf.packing { 8 }
  local rng = mf.rng(2)
  local x = segments.centre(mf.randn(8, 3, { rng = rng }), mf.ones(8), packing) + data.translations
  local moved = flow:step(x, data.rotations, data, plan[50], { packing = packing })
  support.close((moved - data.translations), (x - data.translations) * -1.0204, 1e-4)
end)

describe("sample", function()
  local flow = mf.flow.se3 {}
  it("refuses what it cannot do, at the user's line", function()
    support.error_matches(function() mf.sample(smooth, flow, {}) end, "give one of length, lengths and motif", true)
    support.error_matches(function() mf.sample(smooth, flow, { length = 0 }) end, "a length of 0 residues", true)
    support.error_matches(function() mf.sample(smooth, flow, { length = 5, steps = 1 }) end, "at least 2", true)
    support.error_matches(function()
      mf.sample(smooth, flow, { length = 5, steps = 3, schedule = function(k) return k / 3 end })
    end, "must move toward the data", true)
  end)
end)
