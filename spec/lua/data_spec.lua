-- Data sets: the file and back, batches by rule and by budget, resuming, ranks.
local mf = require "moonfold"
local support = require "spec.support"
local json = require "moonfold.json"

local lengths = { 40, 7, 13, 40, 1, 25, 40, 31, 7, 60 }

local function make(path)
  local rng, list = mf.rng(77), {}
  for i, n in ipairs(lengths) do
    list[i] = {
      translations = mf.randn(n, 3, { rng = rng }), rotations = mf.random.rotations(n, { rng = rng }),
      torsions = mf.randn(n, 1, 2, { rng = rng }), torsion_mask = mf.ones(n, 1):bool(),
      entry = { name = "e" .. i, cluster = i % 4 },
    }
  end
  mf.data.write(path, "protein", list)
  return list
end

describe("a data set", function()
  local path, list, set
  setup(function()
    path = os.tmpname()
    list = make(path)
    set = mf.data.open(path)
  end)
  teardown(function() os.remove(path) end)

  local function steps_of(o)
    local result = {}
    for step, batch in set:batches(o) do result[step] = batch end
    return result
  end

  it("gives back what was written", function()
    assert.equal(#lengths, #set)
    for i, n in ipairs(lengths) do
      assert.equal(n, set:length(i))
      local item = set:get(i)
      assert.equal("e" .. i, item.name)
      support.same_bits(item.translations, list[i].translations)
      support.same_bits(item.rotations, list[i].rotations)
      assert.is_true(item.mask:all())
      assert.same({ n }, item.packing:lengths())
    end
    support.error_matches(function() set:get(11) end, "entry 11 of 10", true)
  end)

  it("packs every entry once an epoch within the budget", function()
    local seen = {}
    for _, batch in ipairs(steps_of { residues = 70, epochs = 1 }) do
      assert.is_true(batch.packing:total() <= 70)
      assert.equal(batch.packing:total(), batch.translations:size(1))
      for k, i in ipairs(batch.entries) do
        seen[i] = (seen[i] or 0) + 1
        local first = batch.packing:offset(k) + 1
        support.same_bits(batch.translations:narrow(1, first, lengths[i]):contiguous(), list[i].translations)
      end
    end
    for i in ipairs(lengths) do assert.equal(1, seen[i]) end
  end)

  it("crops long entries to windows, drawn anew each time and the same again", function()
    local whole, firsts = steps_of { residues = 70, crop = 16, steps = 12, seed = 3 }, {}
    for step, batch in ipairs(steps_of { residues = 70, crop = 16, steps = 12, seed = 3 }) do
      support.same_bits(batch.translations, whole[step].translations)
      assert.is_true(batch.packing:total() <= 70)
      local index = batch.index:values()
      for k, i in ipairs(batch.entries) do
        local count, offset = math.min(lengths[i], 16), batch.packing:offset(k)
        assert.equal(count, batch.packing:lengths()[k])
        local first = index[offset + 1] + 1                     -- index counts from 0 in these entries
        support.same_bits(batch.translations:narrow(1, offset + 1, count):contiguous(),
          list[i].translations:narrow(1, first, count):contiguous())
        if lengths[i] == 60 then firsts[first] = true end
      end
    end
    local different = 0
    for _ in pairs(firsts) do different = different + 1 end
    assert.is_true(different >= 2)
    support.error_matches(function() set:batches { residues = 70, crop = 1.5 } end, "crop must be a whole number", true)
  end)

  it("lets an entry longer than the budget come alone", function()
    for _, batch in ipairs(steps_of { residues = 20, epochs = 1 }) do
      assert.is_true(batch.packing:total() <= 20 or #batch.entries == 1)
    end
  end)

  local function names(batches)
    local rows = {}
    for k, batch in ipairs(batches) do rows[k] = table.concat(batch.names, " ") end
    return table.concat(rows, "; ")
  end

  it("depends on the seed and the epoch alone", function()
    local a = names(steps_of { residues = 70, epochs = 3, seed = 1 })
    assert.equal(a, names(steps_of { residues = 70, epochs = 3, seed = 1 }))
    assert.are_not.equal(a, names(steps_of { residues = 70, epochs = 3, seed = 2 }))
    local second = names(steps_of { residues = 70, epochs = 1, epoch = 2, seed = 1 })
    assert.is_truthy(a:find(second, 1, true))
    assert.are_not.equal(second, names(steps_of { residues = 70, epochs = 1, epoch = 1, seed = 1 }))
  end)

  it("goes on from a saved state as if it had not stopped", function()
    for _, o in ipairs { { residues = 70 }, { rule = { budget = 80 } }, { mode = "copies", rule = { budget = 200 } } } do
      o.steps = 17
      local whole = steps_of(o)
      local flow = mf.flow.se3 {}
      for stop = 1, 16, 5 do
        local first = set:batches(o)
        for _ = 1, stop do first() end
        local state = json.decode(json.encode(first:state()))      -- it survives a checkpoint
        o.state = state
        for step, batch in set:batches(o) do
          assert.equal(names { whole[step] }, names { batch })
          support.same_bits(flow:corrupt(whole[step]).translations, flow:corrupt(batch).translations)
        end
        o.state = nil
      end
      support.error_matches(function()
        set:batches { residues = 70, seed = 5, state = set:batches { residues = 70 }:state() }
      end, "the state has seed 123", true)
    end
  end)

  it("batches one length at a time by a rule", function()
    for _, batch in ipairs(steps_of { rule = { budget = 80 }, epochs = 1 }) do
      local n = batch.packing:longest()
      for _, length in ipairs(batch.packing:lengths()) do assert.equal(n, length) end
      assert.is_true(#batch.entries <= math.max(1, math.floor(80 / n)))
    end
  end)

  it("copies one entry as often as the rule says", function()
    local batches = steps_of { mode = "copies", rule = { budget = 120, cap = 9 }, epochs = 1 }
    assert.equal(#lengths, #batches)
    for _, batch in ipairs(batches) do
      local n = lengths[batch.entries[1]]
      assert.equal(math.max(1, math.min(9, math.floor(120 / n))), #batch.entries)
    end
  end)

  it("draws one entry of each cluster", function()
    for epoch = 1, 3 do
      local seen = {}
      for _, batch in ipairs(steps_of { residues = 70, epochs = 1, epoch = epoch, clusters = true }) do
        for _, i in ipairs(batch.entries) do
          assert.is_nil(seen[i % 4])
          seen[i % 4] = true
        end
      end
      assert.is_true(seen[0] and seen[1] and seen[2] and seen[3])
    end
  end)

  it("shares an epoch among ranks without loss, with numbers that do not clash", function()
    for _, o in ipairs { { residues = 50 }, { mode = "copies", rule = { budget = 200, scope = "global" } } } do
      local counts, by_step = {}, {}
      for rank = 1, 3 do
        o.rank, o.ranks, o.epochs = rank, 3, 1
        local batches = steps_of(o)
        counts[rank] = #batches
        for step, batch in ipairs(batches) do
          by_step[step] = by_step[step] or {}
          for _, number in ipairs(batch.examples) do
            assert.is_nil(by_step[step][number])
            by_step[step][number] = true
          end
        end
      end
      assert.equal(counts[1], counts[2])
      assert.equal(counts[1], counts[3])
      for _, numbers in ipairs(by_step) do
        local n = 0
        for _ in pairs(numbers) do n = n + 1 end
        for k = 1, n do assert.is_true(numbers[k]) end
      end
    end
  end)

  it("refuses files that are not one", function()
    local other = os.tmpname()
    mf.save(other, { x = mf.zeros(2) })
    support.error_matches(function() mf.data.open(other) end, "is not a data set", true)
    os.remove(other)
    support.error_matches(function() set:batches { rule = "protein-flsh" } end, "no rule 'protein-flsh'", true)
    support.error_matches(function() set:batches {} end, "mode lengths needs rule", true)
  end)
end)

describe("batch rules", function()
  it("give the published sizes", function()
    local ipa, flash = mf.data.rule "protein-ipa", mf.data.rule "protein-flash"
    local paper = mf.data.rule { kind = "quadratic", budget = 5e5, round = "nearest", scope = "global" }
    for _, row in ipairs {
      { 60, 138, 556, 333, 1333 }, { 100, 50, 200, 200, 800 }, { 128, 30, 122, 156, 625 }, { 256, 7, 31, 78, 312 },
      { 400, 3, 12, 50, 200 }, { 512, 1, 8, 39, 156 }, { 1024, 1, 2, 20, 78 }, { 2048, 1, 1, 10, 39 }, { 8800, 1, 1, 2, 9 },
    } do
      local n = row[1]
      assert.same(row, { n, ipa:size(n), paper:size(n, 4), flash:size(n), flash:size(n, 4) })
    end
    local rna, linear = mf.data.rule "rna-ipa", mf.data.rule "rna-flash"
    assert.same({ 23, 17, 6, 2 }, { rna:size(128), rna:size(150), rna:size(256), rna:size(512) })
    assert.same({ 28, 19, 10, 5 }, { linear:size(703), linear:size(1024), linear:size(2048), linear:size(4417) })
  end)

  it("share a global size as evenly as can be", function()
    local rule = mf.data.rule { kind = "fixed", budget = 10, scope = "global" }
    local sum = 0
    for rank = 1, 4 do
      local count, before = rule:share(100, rank, 4)        -- 40 examples among 4
      assert.equal(sum, before)
      sum = sum + count
    end
    assert.equal(40, sum)
  end)
end)

describe("json", function()
  it("survives the round trip", function()
    local value = { a = { 1, 2.5, -1e300, 1 / 3 }, b = json.array(), s = "\"\\\n\1é", t = true, f = false, n = json.null }
    local back = assert(json.decode(json.encode(value)))
    assert.same(value.a, back.a)
    assert.equal("[]", json.encode(back.b))
    assert.equal(value.s, back.s)
    assert.equal(json.null, back.n)
    assert.equal(json.encode(value), json.encode(back))
    assert.equal("😀", (json.decode '"\\ud83d\\ude00"'))
  end)

  it("refuses what is not JSON, with a place", function()
    for _, text in ipairs { "", "{", "[1,]", "{\"a\" 1}", "01", "nul", "\"a", "[1] 2", "\"\\x\"", ("["):rep(1000) } do
      local value, message = json.decode(text)
      assert.is_nil(value)
      assert.is_truthy(message:find "^json.decode: ", text)
    end
    assert.has_error(function() json.encode { 0 / 0 } end)
  end)
end)
