-- What holds for batches of any set with any options: every entry once an epoch, ranks disjoint, budgets kept, resuming and reading
-- ahead change no bit, views change nothing but who is in.
local mf = require "moonfold"
local json = require "moonfold.json"
local support = require "spec.support"

-- A set whose row r of entry i holds the number 1000 i + r, so that a batch tells where its rows come from.
local function write(path, lengths, rng)
  local list = {}
  for i, n in ipairs(lengths) do
    local numbers = mf.arange(n) + 1000 * i
    list[i] = {
      translations = mf.randn(n, 3, { rng = rng }), rotations = mf.random.rotations(n, { rng = rng }),
      torsions = mf.randn(n, 1, 2, { rng = rng }), torsion_mask = mf.rand(n, 1, { rng = rng }):gt(0.5), index = numbers:int(),
      entry = { name = "e" .. i, cluster = i % 3 ~= 0 and math.floor(i / 3) or nil },
    }
  end
  mf.data.write(path, "protein", list)
end

local function pick(rng, list) return list[1 + math.floor(rng:number() * #list)] end

local function random_lengths(rng)
  local lengths, most = {}, pick(rng, { 3, 12, 40, 90 })
  for i = 1, pick(rng, { 1, 2, 5, 17, 40, 61 }) do lengths[i] = math.floor(rng:number() * (most + 1)) end
  lengths[1] = math.max(lengths[1], 1)          -- a set of empty entries has no batch
  return lengths
end

local function random_options(rng)
  local o = {
    seed = math.floor(rng:number() * 1000), ranks = pick(rng, { 1, 1, 2, 3, 5 }), shuffle = rng:number() < 0.8,
    clusters = rng:number() < 0.3,
    prefetch = 0, epochs = 1, crop = rng:number() < 0.3 and pick(rng, { 1, 7, 30 }) or nil,
  }
  local mode = pick(rng, { "packed", "packed", "bucketed", "bucketed by rule", "fixed", "lengths", "copies" })
  o.mode = mode:match "^%w+"
  local rule = {
    kind = pick(rng, { "linear", "quadratic", "fixed" }), budget = pick(rng, { 1, 9, 60, 700 }),
    round = pick(rng, { "floor", "nearest" }), scope = pick(rng, { "rank", "global" }),
    cap = pick(rng, { 2, 8, 100 }), plus = pick(rng, { 0, 1 }),
  }
  if rule.kind == "fixed" then rule.budget = math.min(rule.budget, 9) end
  if mode == "packed" or mode == "bucketed" then o.residues = pick(rng, { 1, 20, 64, 300 })
  elseif mode == "fixed" then o.size = pick(rng, { 1, 3, 10 })
  else o.rule = rule end
  if mode == "copies" then o.proteins_per_step = 1 + math.floor(rng:number() * o.ranks) end
  return o
end

local function text(o)
  local parts = {}
  for key, value in pairs(o) do
    parts[#parts + 1] = key .. "=" .. (type(value) == "table" and text(value) or tostring(value))
  end
  table.sort(parts)
  return "{" .. table.concat(parts, " ") .. "}"
end

local function with(o, changes)
  local result = {}
  for key, value in pairs(o) do result[key] = value end
  for key, value in pairs(changes) do result[key] = value end
  return result
end

local function collect(set, o)
  local result = {}
  for step, batch in set:batches(o) do
    assert.equal(#result + 1, step)
    result[step] = batch
  end
  return result
end

local FIELDS = { "translations", "rotations", "torsions", "torsion_mask", "mask", "aatype", "index", "chain" }

local function same_batch(a, b, what)
  assert.same(a.entries, b.entries, what)
  assert.same(a.names, b.names, what)
  assert.same(a.examples, b.examples, what)
  assert.same({ a.step, a.epoch, a.seed, a.total }, { b.step, b.epoch, b.seed, b.total }, what)
  assert.same(a.packing:lengths(), b.packing:lengths(), what)
  for _, name in ipairs(FIELDS) do support.same_bits(a[name], b[name], what .. " " .. name) end
end

describe("batches", function()
  local path, rng = os.tmpname(), mf.rng(2024)
  teardown(function() os.remove(path) end)

  -- Runs property(set, lengths, o, what) over random sets and options.
  local function over(sets, each, property)
    for _ = 1, sets do
      local lengths = random_lengths(rng)
      write(path, lengths, rng)
      local set = mf.data.open(path)
      for _ = 1, each do
        local o = random_options(rng)
        mf.scope(property, set, lengths, o, ("%s of lengths %s"):format(text(o), table.concat(lengths, " ")))
      end
    end
  end

  local function cluster_of(set, i) return set:entry(i).cluster or -i end

  it("hold every entry once an epoch, and ranks are disjoint, as many steps each, numbered without gaps", function()
    over(12, 25, function(set, lengths, o, what)
      local ranks, seen, who = {}, {}, {}
      for rank = 1, o.ranks do ranks[rank] = collect(set, with(o, { rank = rank })) end
      local has_empty, can_halve = false, false
      for rank = 2, o.ranks do assert.equal(#ranks[1], #ranks[rank], what) end
      for step in ipairs(ranks[1]) do
        local numbers, total, here = {}, 0, {}
        for rank = 1, o.ranks do
          local batch = ranks[rank][step]
          assert.equal(#batch.entries, #batch.examples, what)
          assert.equal(ranks[1][step].total, batch.total, what)
          total = total + #batch.examples
          for k, number in ipairs(batch.examples) do
            assert.is_nil(numbers[number], what)
            numbers[number] = true
            local i = batch.entries[k]
            if o.mode ~= "copies" then seen[i] = (seen[i] or 0) + 1 else here[i] = true end
          end
          has_empty = has_empty or #batch.entries == 0
          can_halve = can_halve or #batch.entries > 1
        end
        assert.equal(total, ranks[1][step].total, what)
        for number = 1, total do assert.is_true(numbers[number], what) end
        for i in pairs(here) do seen[i] = (seen[i] or 0) + 1 end         -- copies of an entry are one step's
      end
      for i, n in ipairs(lengths) do
        if o.clusters then
          if seen[i] then
            assert.equal(1, seen[i], what)
            assert.is_nil(who[cluster_of(set, i)], what)
            who[cluster_of(set, i)] = i
          end
        else
          assert.equal(n > 0 and 1 or nil, seen[i], what)
        end
      end
      for i, n in ipairs(lengths) do
        if o.clusters and n > 0 then assert.is_not_nil(who[cluster_of(set, i)], what) end
      end
      -- a rank is left without work only where batches cannot be divided further or are shared
      local shared = o.mode == "copies" or o.rule and o.rule.scope == "global"
      if has_empty and not shared then assert.is_false(can_halve, what) end
    end)
  end)

  it("keep the budget: an entry that is longer comes alone", function()
    over(12, 25, function(set, lengths, o, what)
      local rule = o.rule and mf.data.rule(o.rule)
      local function length(i) return math.min(lengths[i], o.crop or math.huge) end
      for rank = 1, o.ranks do
        for _, batch in ipairs(collect(set, with(o, { rank = rank }))) do
          local sum, longest, shortest = 0, 0, math.huge
          for k, i in ipairs(batch.entries) do
            assert.equal(length(i), batch.packing:lengths()[k], what)
            sum, longest, shortest = sum + length(i), math.max(longest, length(i)), math.min(shortest, length(i))
          end
          assert.equal(sum, batch.translations:size(1), what)
          if o.residues then assert.is_true(sum <= o.residues or #batch.entries == 1, what) end
          if o.size then assert.is_true(#batch.entries <= o.size, what) end
          if o.mode == "lengths" and sum > 0 then assert.equal(longest, shortest, what) end
          if (o.mode == "lengths" or o.mode == "bucketed" and rule) and sum > 0 then
            assert.is_true((rule.scope == "global" and batch.total or #batch.entries) <= rule:size(longest, o.ranks), what)
          end
          if o.mode == "copies" and sum > 0 then
            assert.equal(longest, shortest, what)
            if o.proteins_per_step == 1 then
              assert.equal(rule:size(longest, o.ranks) * (rule.scope == "rank" and o.ranks or 1), batch.total, what)
            end
          end
        end
      end
    end)
  end)

  it("go on from a state in the middle as if they had not stopped", function()
    over(10, 16, function(set, _, o, what)
      o = with(o, { epochs = 3, steps = 40, rank = 1 + math.floor(rng:number() * o.ranks) })
      local whole = collect(set, o)
      for _ = 1, 3 do
        local stop = math.floor(rng:number() * (#whole + 1))
        local first = set:batches(with(o, { prefetch = pick(rng, { 0, 1, 4 }) }))
        for _ = 1, stop do first() end
        local state = assert(json.decode(json.encode(first:state())))      -- it survives a checkpoint
        local rest = set:batches(with(o, { state = state, prefetch = pick(rng, { 0, 2 }) }))
        for step = stop + 1, #whole do
          local at, batch = rest()
          assert.equal(step, at, what)
          same_batch(whole[step], batch, what)
        end
        assert.is_nil((rest()), what)
        first:load(state)                                                  -- an iterator in use goes back too
        if stop < #whole then same_batch(whole[stop + 1], select(2, first()), what) end
      end
    end)
  end)

  it("are the same bits read ahead, by any number of threads", function()
    over(10, 12, function(set, _, o, what)
      o = with(o, { epochs = 2, steps = 30 })
      local plain = collect(set, o)
      for _, ahead in ipairs { { 1, 1 }, { 2, 1 }, { 3, 4 }, { 9, 8 } } do
        local other = collect(set, with(o, { prefetch = ahead[1], threads = ahead[2] }))
        assert.equal(#plain, #other, what)
        for step, batch in ipairs(plain) do same_batch(batch, other[step], what) end
      end
    end)
  end)

  it("of a view are those of a set that has its entries alone", function()
    local other = os.tmpname()
    over(8, 12, function(set, lengths, o, what)
      local chosen, own = {}, {}
      for i, n in ipairs(lengths) do
        if n > 0 and (rng:number() < 0.6 or #chosen == 0) then
          chosen[#chosen + 1] = i
          own[#own + 1] = with(set:get(i), { entry = set:entry(i) })
        end
      end
      mf.data.write(other, "protein", own)
      local alone, view = collect(mf.data.open(other), o), collect(set:view { entries = chosen }, o)
      assert.equal(#alone, #view, what)
      for step, batch in ipairs(alone) do same_batch(batch, view[step], what) end
    end)
    os.remove(other)
  end)

  it("differ from epoch to epoch and from seed to seed, and pack well", function()
    local lengths = {}
    for i = 1, 3000 do lengths[i] = 10 + math.floor(190 * rng:number() ^ 2) end
    write(path, lengths, rng)
    local set = mf.data.open(path)
    local batches = set:batches { residues = 2000, seed = 3 }
    local function mean_fill(plan)
      local sum = 0
      for _, batch in ipairs(plan) do
        for _, i in ipairs(batch) do sum = sum + lengths[i] end
      end
      return sum / (2000 * #plan)
    end
    local first, second = batches:plan(1), batches:plan(2)
    assert.is_true(mean_fill(first) > 0.99, mean_fill(first))
    assert.is_true(mean_fill(set:batches({ residues = 2000, mode = "bucketed" }):plan(1)) > 0.95)
    assert.same(first, set:batches({ residues = 2000, seed = 3 }):plan(1))
    assert.are_not.same(first, second)
    assert.are_not.same(first, set:batches({ residues = 2000, seed = 4 }):plan(1))
    -- who is together in one epoch is not in the next
    local batch_of, together, pairs_seen = {}, 0, 0
    for k, batch in ipairs(second) do
      for _, i in ipairs(batch) do batch_of[i] = k end
    end
    for _, batch in ipairs(first) do
      for a = 2, #batch do
        pairs_seen = pairs_seen + 1
        together = together + (batch_of[batch[a]] == batch_of[batch[1]] and 1 or 0)
      end
    end
    assert.is_true(together / pairs_seen < 3 / #first, ("%d of %d"):format(together, pairs_seen))
    -- neighbouring lengths share a bucket
    for _, batch in ipairs(set:batches({ rule = { kind = "fixed", budget = 20 }, mode = "bucketed" }):plan(1)) do
      local least, most = math.huge, 0
      for _, i in ipairs(batch) do least, most = math.min(least, lengths[i]), math.max(most, lengths[i]) end
      assert.is_true(most <= 1.25 * least + 5, least .. " " .. most)
    end
  end)

  it("in order when not shuffled", function()
    write(path, { 5, 9, 2, 8, 30, 1, 1 }, rng)
    local set = mf.data.open(path)
    assert.same({ { 1, 2 }, { 3, 4 }, { 5 }, { 6, 7 } }, set:batches({ residues = 14, shuffle = false }):plan(1))
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 }, { 7 } }, set:batches({ size = 3, shuffle = false }):plan(1))
    -- three batches for two ranks: the first that has most entries is halved
    assert.same({ { 1, 2 }, { 4, 5, 6 }, { 7 }, { 3 } }, set:batches({ size = 3, shuffle = false, ranks = 2 }):plan(1))
  end)

  it("repeat what the original programs do when asked to", function()
    write(path, { 4, 4, 4, 4, 4, 4, 7, 7, 7, 9, 9 }, rng)
    local set = mf.data.open(path)
    -- RNA: on every rank as many steps as it has entries, its passes the same again
    local o = { rule = { kind = "linear", budget = 8, plus = 1, cap = 2 }, compat = true, epochs = 1, ranks = 2 }
    for rank = 1, 2 do
      local steps = collect(set, with(o, { rank = rank }))
      assert.equal(6, #steps)
      local pass, seen = 0, {}
      for _, batch in ipairs(steps) do
        if seen[batch.entries[1]] then break end
        pass = pass + 1
        for _, i in ipairs(batch.entries) do seen[i] = true end
      end
      assert.is_true(pass < 6)
      for step, batch in ipairs(steps) do assert.same(steps[(step - 1) % pass + 1].entries, batch.entries) end
    end
    -- proteins: what was drawn of the clusters comes in their order, in every epoch; without compat it does not
    local function order(compat, epoch)
      local clusters = {}
      local drawn = { mode = "cluster_time_batch", rule = "protein-ipa", compat = compat, epochs = 1, epoch = epoch }
      for _, batch in ipairs(collect(set, drawn)) do
        clusters[#clusters + 1] = set:entry(batch.entries[1]).cluster or 1000
      end
      return clusters
    end
    for epoch = 1, 5 do
      local clusters = order(true, epoch)
      for k = 2, #clusters do assert.is_true(clusters[k - 1] <= clusters[k]) end
    end
    assert.are_not.same(order(false, 1), order(false, 2))
    local shared = { rule = "protein-flash", compat = true }
    support.error_matches(function() set:batches(shared) end, "the rule's scope must be rank", true)
  end)

  it("hold the published examples of one protein, on one rank and on four", function()
    for _, row in ipairs {
      { 60, 138, 556, 333, 1333 }, { 128, 30, 122, 156, 625 }, { 512, 1, 8, 39, 156 }, { 2048, 1, 1, 10, 39 },
    } do
      write(path, { row[1] }, rng)
      local set = mf.data.open(path)
      local paper = { kind = "quadratic", budget = 5e5, round = "nearest", scope = "global" }
      local function count(rule, ranks)
        local sum = 0
        for rank = 1, ranks do
          local _, batch = set:batches({ mode = "time_batch", rule = rule, rank = rank, ranks = ranks, prefetch = 0 })()
          sum = sum + #batch.examples
        end
        return sum
      end
      assert.same(row, { row[1], count("protein-ipa", 1), count(paper, 4), count("protein-flash", 1), count("protein-flash", 4) })
    end
  end)

  it("carry the fields that were asked for", function()
    write(path, { 5, 9 }, rng)
    local set = mf.data.open(path)
    local _, batch = set:batches({ residues = 20, fields = { "translations", "mask" } })()
    assert.is_not_nil(batch.translations)
    assert.is_not_nil(batch.mask)
    assert.is_nil(batch.rotations)
  end)

  it("leave nothing behind when they are abandoned or closed", function()
    write(path, { 50, 90, 20, 60, 40 }, rng)
    local set = mf.data.open(path)
    set:collate { 1 }
    support.no_leaks(function()
      for k = 1, 12 do
        local batches = set:batches { residues = 100, prefetch = 6, threads = 3 }
        for _ = 1, k % 4 do batches() end
        if k % 2 == 0 then batches:close() end
      end
    end)
  end)

  it("raise what a thread found at the user's line, and stay where they are", function()
    write(path, { 50, 90, 20, 60, 40 }, rng)
    local bytes = support.read_file(path)
    local batches = mf.data.open(path):batches { residues = 100, prefetch = 2, seed = 1 }
    local broken = assert(io.open(path, "r+b"))          -- the masks of all entries, after whatever was written before them
    broken:seek("set", #bytes - 260)
    broken:write(("\5"):rep(260))
    broken:close()
    for _ = 1, 2 do
      local line = debug.getinfo(1, "l").currentline + 1
      local ok, message = pcall(function() return batches() end)
      assert.is_false(ok)
      assert.is_truthy(message:find(("batches_spec.lua:%d: rows: '%s'"):format(line, path), 1, true), message)
      assert.equal(0, batches:state().step)
    end
    local whole = assert(io.open(path, "wb"))
    whole:write(bytes)
    whole:close()
    assert.equal(1, (batches()))
  end)

  it("refuse options that make no sense, by name", function()
    write(path, { 5, 9, 4 }, rng)
    local set = mf.data.open(path)
    for message, o in pairs {
      ["mode 'pakced' (known: bucketed, copies, fixed, lengths, packed, cluster_length_batch"] = { mode = "pakced", residues = 9 },
      ["mode packed needs residues"] = { mode = "packed" }, ["mode fixed needs size"] = { mode = "fixed" },
      ["mode bucketed needs residues (the budget of a batch) or rule (data.rules)"] = { mode = "bucketed" },
      ["mode copies needs rule"] = { mode = "copies" },
      ["mode packed goes by residues; it takes no rule"] = { residues = 9, rule = "rna-ipa" },
      ["mode fixed goes by size; it takes no residues"] = { mode = "fixed", size = 2, residues = 9 },
      ["mode bucketed goes by residues; it takes no rule"] = { mode = "bucketed", residues = 9, rule = "rna-ipa" },
      ["proteins_per_step must be a whole number from 1 to 1, got 2"] = { residues = 9, ranks = 2, proteins_per_step = 2 },
      ["residues must be a whole number of at least 1, got 1.5"] = { residues = 1.5 },
      ["size must be a whole number of at least 1, got 0"] = { size = 0 },
      ["rank must be a whole number from 1 to 2, got 3"] = { residues = 9, rank = 3, ranks = 2 },
      ["threads must be a whole number from 1 to 64, got 0"] = { residues = 9, threads = 0 },
      ["prefetch must be a whole number of at least 0, got -1"] = { residues = 9, prefetch = -1 },
      ["proteins_per_step must be a whole number from 1 to 2, got 3"] = {
        mode = "copies", rule = "protein-ipa", ranks = 2, proteins_per_step = 3,
      },
      ["no field 'maks'"] = { residues = 9, fields = { "maks" } }, ["has no atoms"] = { residues = 9, atoms = true },
      ["no entry is left"] = { residues = 9, filter = function() return false end },
    } do
      support.error_matches(function() set:batches(o) end, message, true)
    end
    local state = set:batches({ residues = 9 }):state()
    support.error_matches(function() set:batches { residues = 10, state = state } end,
      "the state has residues 9, this iterator 10", true)
    support.error_matches(function() set:view({ entries = { 1 } }):batches { residues = 9, state = state } end,
      "the state has content 3 entries, 18 residues, this iterator 1 entries, 5 residues", true)
    state.plan = nil
    support.error_matches(function() set:batches { residues = 9, state = state } end, "of another version of Moonfold", true)
  end)
end)
