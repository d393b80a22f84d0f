-- FoldFlow's optimal transport in batches of copies: the target among other proteins of its length.
local mf = require "moonfold"
local help = require "spec.support.flow"
local partners = require "moonfold.flow.partners"
local segments = require "moonfold.flow.segments"
local streams = require "moonfold.flow.streams"
local support = require "spec.support"

local LENGTH = 7

local function write_set(path, lengths)
  local list = {}
  for i, n in ipairs(lengths) do
    local one = help.random_batch("protein", { n }, { seed = 100 + i })
    list[i] = {
      translations = segments.centre(one.translations, mf.ones(n), one.packing), rotations = one.rotations,
      torsions = one.torsions, torsion_mask = mf.ones(n, 1):bool(), entry = { name = "e" .. i },
    }
  end
  mf.data.write(path, "protein", list)
end

-- The cheapest of all orders of the columns, as the column of the first row.
local function brute(cost)
  local n, best, first = #cost, math.huge, nil
  local used = {}
  local function place(row, sum, column)
    if sum >= best then return end
    if row > n then best, first = sum, column return end
    for j = 1, n do
      if not used[j] then
        used[j] = true
        place(row + 1, sum + cost[row][j], column or j)
        used[j] = false
      end
    end
  end
  place(1, 0, nil)
  return first
end

describe("a coupling among partners", function()
  local path, set
  before_each(function()
    path = os.tmpname()
    write_set(path, { LENGTH, 5, LENGTH, LENGTH, LENGTH, LENGTH, 12 })
    set = mf.data.open(path)
  end)
  after_each(function()
    set = nil
    os.remove(path)
  end)

  local function batches()
    return partners(set:batches { mode = "copies", rule = { kind = "fixed", budget = 4 }, seed = 9 }, 4)
  end

  it("brings other entries of exactly the target's length, as many as there are, never the target", function()
    local seen = {}
    local iterate = batches()
    for _ = 1, 21 do
      local _, batch = iterate()
      local length = batch.packing:longest()
      if length ~= LENGTH then
        assert.is_nil(batch.partners)
      else
        assert.equal(3, batch.partners.packing:count())
        local names = {}
        for _, name in ipairs(batch.partners.names) do
          assert.is_nil(names[name])
          assert.is_true(name ~= batch.names[1] and name ~= "e2" and name ~= "e7")
          names[name] = true
          seen[name] = true
        end
      end
    end
    for _, i in ipairs { 1, 3, 4, 5, 6 } do assert.is_true(seen["e" .. i]) end
  end)

  it("goes on from a saved state with the same partners", function()
    local whole, first = batches(), batches()
    for _ = 1, 3 do whole(); first() end
    local second = batches()
    second:load(first:state())
    for _ = 1, 6 do
      local a, x = whole()
      local b, y = second()
      assert.equal(a, b)
      assert.same(x.partners and x.partners.names, y.partners and y.partners.names)
    end
  end)

  local function batch_of_target()
    local iterate = batches()
    while true do
      local _, batch = iterate()
      if batch.partners then return batch end
    end
  end

  it("gives each copy the noise that the best plan of all of them gives the target", function()
    local flow = mf.flow.se3 { profile = "protein", ot = "squared" }
    local batch = batch_of_target()
    local differ = 0
    for step = 1, 5 do
      batch.step = step
      local noisy = flow:corrupt(batch)
      local plain = mf.flow.se3 { profile = "protein", ot = "none" }:corrupt(batch)
      for i = 1, 4 do
        local source = streams.keyed(batch.seed, batch.step, { batch.examples[i] })
        local one = mf.packing { LENGTH }
        local x = { plain.targets.noise:narrow(1, LENGTH * (i - 1) + 1, LENGTH) }
        local r = { plain.targets.noise_rotations:narrow(1, LENGTH * (i - 1) + 1, LENGTH) }
        local more_x, more_r = source:normal("ot_translations", one, "cpu", 3) * 10, source:rotations("ot_rotations", one, "cpu", 3)
        for k = 1, 3 do
          x[k + 1] = segments.centre(more_x:narrow(1, LENGTH * (k - 1) + 1, LENGTH):contiguous(), mf.ones(LENGTH), one)
          r[k + 1] = more_r:narrow(1, LENGTH * (k - 1) + 1, LENGTH)
        end
        local cost = {}
        for j = 1, 4 do
          local from = j == 1 and batch or batch.partners
          local at = j == 1 and 1 or LENGTH * (j - 2) + 1
          cost[j] = {}
          for k = 1, 4 do
            local angle = mf.geometry.so3_log(segments.relative(from.rotations:narrow(1, at, LENGTH), r[k]))
            local apart = (from.translations:narrow(1, at, LENGTH) - x[k]) * 0.1
            cost[j][k] = (angle:square():sum() + apart:square():sum()):item()
          end
        end
        local k = brute(cost)
        if k ~= 1 then differ = differ + 1 end
        support.close(noisy.targets.noise:narrow(1, LENGTH * (i - 1) + 1, LENGTH), x[k], 1e-5)
        support.close(noisy.targets.noise_rotations:narrow(1, LENGTH * (i - 1) + 1, LENGTH), r[k], 1e-6)
      end
    end
    assert.is_true(differ > 5, differ)               -- of 20, 15 expected
  end)

  it("makes noise nearer to the data than independent draws, and is independent where there are no partners", function()
    local batch = batch_of_target()
    local function cost(ot, b)
      local targets = mf.flow.se3({ profile = "protein", ot = ot }):corrupt(b).targets
      local angle = mf.geometry.so3_log(segments.relative(targets.rotations, targets.noise_rotations))
      return (angle:square():sum() + ((targets.noise - targets.translations) * 0.1):square():sum()):item()
    end
    local sums = { none = 0, squared = 0, sinkhorn = 0 }
    for step = 1, 40 do
      batch.step = step
      for ot in pairs(sums) do sums[ot] = sums[ot] + cost(ot, batch) end
    end
    assert.is_true(sums.squared < 0.95 * sums.none and sums.sinkhorn < 0.97 * sums.none)
    local one = help.random_batch("protein", { 6 })
    local coupled, free = mf.flow.se3 { ot = "squared" }, mf.flow.se3 { ot = "none" }
    support.same_bits(coupled:corrupt(one).translations, free:corrupt(one).translations)
  end)

  it("says what does not fit", function()
    local batch = batch_of_target()
    support.error_matches(function() mf.flow.se3({ ot = "squared", prior = "igso3" }):corrupt(batch) end,
      "needs prior uniform, this flow has igso3", true)
    batch.partners = set:collate { 2 }
    support.error_matches(function() mf.flow.se3({ ot = "squared" }):corrupt(batch) end,
      "partners have one length, that of the examples; found 5 and 7", true)
  end)

  it("is what presets foldflow/ot and foldflow/sfm train with", function()
    local recipe, command = require "moonfold.recipe", require "moonfold.command"
    for name, stochastic in pairs { ot = false, sfm = true } do
      local preset = mf.models.presets.load("foldflow/" .. name)
      local o = command.parse({ "data=x", "shortest=2" }, recipe.program(preset))
      local about = recipe.about(preset, o, "protein")
      assert.same({ "squared", 10, stochastic }, { about.flow.ot, about.flow.ot_group, about.flow.stochastic })
      local made = recipe.batches(preset, o, set)
      local partnered = 0
      for _ = 1, 7 do
        local _, batch = made()
        if batch.partners then partnered = partnered + 1 end
      end
      assert.equal(5, partnered)
      assert.same({ 17446190 }, { mf.models.foldflow(preset.model):count() })
    end
    local base = mf.models.presets.load "foldflow/base"
    local o = command.parse({ "data=x", "shortest=2" }, recipe.program(base))
    assert.equal("copies", recipe.batches(base, o, set).mode)
  end)
end)
