-- TM-score and GDT: the scale of each molecule, what no motion changes, and the digits of the program TMscore.
local mf = require "moonfold"
local support = require "spec.support"

local tm_score, tm_d0 = mf.metrics.tm_score, mf.metrics.tm_d0

local function random(n, scale, rng) return mf.randn(n, 3, { rng = rng, dtype = "float64" }) * scale end

-- A chain that folds back and forth: a smoothed random walk with steps of about 3.8.
local function walk(n, rng)
  local list, at, step = {}, { 0, 0, 0 }, { 0, 0, 0 }
  for i, row in ipairs(random(n, 1, rng):totable()) do
    for a = 1, 3 do
      step[a] = 0.7 * step[a] + 1.6 * row[a] - 0.03 * at[a]
      at[a] = at[a] + step[a]
    end
    list[i] = { at[1], at[2], at[3] }
  end
  return mf.tensor(list, { dtype = "float64" })
end

-- The same chain told differently: noise, drift along the chain, a hinge, a shifted register, or another chain.
local function altered(x, how, rng)
  local n = x:size(1)
  if how == 1 then return x + random(n, 0.5 + 3 * rng:number(), rng) end
  if how == 2 then return x + walk(n, rng) * 0.15 end
  if how == 3 then
    local half, R = math.floor(n / 2), mf.random.rotations(1, { rng = rng, dtype = "float64" }):select(1, 1)
    return mf.cat({ x:narrow(1, 1, half), x:narrow(1, half + 1, n - half):matmul(R) }, 1)
  end
  if how == 4 then return mf.cat({ x:narrow(1, 3, n - 2), x:narrow(1, 1, 2) }, 1) end
  return walk(n, rng)
end

local function rounded(x)
  local list = x:contiguous():totable()
  for _, row in ipairs(list) do
    for a = 1, 3 do row[a] = tonumber(("%.3f"):format(row[a])) end
  end
  return list
end

local function write_trace(path, rows)
  local file = assert(io.open(path, "w"))
  for i, row in ipairs(rows) do
    file:write(("ATOM  %5d  CA  ALA A%4d    %8.3f%8.3f%8.3f  1.00  0.00           C\n"):format(i, i, row[1], row[2], row[3]))
  end
  file:close()
end

describe("metrics.md 9.2", function()
  it("the scale d0 is that of the table, and of short nucleic chains", function()
    local lengths = { 22, 40, 50, 100, 150, 200, 300, 500, 512 }
    local protein = { 0.572, 1.826, 2.256, 3.652, 4.561, 5.266, 6.360, 7.942, 8.022 }
    local rna = { 0.6, 1.271, 1.721, 3.485, 4.836, 5.975, 7.884, 10.910, 11.070 }
    for k, length in ipairs(lengths) do
      assert.is_true(math.abs(tm_d0(length) - protein[k]) <= 5e-4, length)
      assert.is_true(math.abs(tm_d0(length, "rna") - rna[k]) <= 5e-4, length)
      assert.equal(tm_d0(length, "rna"), tm_d0(length, "dna"))
    end
    for k, range in ipairs { { 1, 11 }, { 12, 15 }, { 16, 19 }, { 20, 23 }, { 24, 29 } } do
      for length = range[1], range[2] do assert.is_true(math.abs(0.2 + 0.1 * k - tm_d0(length, "rna")) < 1e-12) end
    end
    for _, length in ipairs { 1, 15, 21 } do assert.equal(0.5, tm_d0(length)) end
  end)

  it("a structure has 1 with itself, wherever it stands, and a mirror image has less", function()
    local rng = mf.rng(3)
    for _, n in ipairs { 1, 2, 3, 4, 5, 7, 8, 31, 120 } do
      for _, kind in ipairs { "protein", "rna" } do
        local x, Q = walk(n, rng), mf.random.rotations(1, { rng = rng, dtype = "float64" }):select(1, 1)
        local same = tm_score(x, x:matmul(Q) + random(1, 50, rng), { kind = kind })
        for _, name in ipairs { "tm", "gdt_ts", "gdt_ha", "gdt_superposed" } do
          assert.is_true(math.abs(same[name] - 1) < 1e-9, name)
        end
        assert.is_true(same.rmsd < 1e-6 and same.mean_distance < 1e-6)
        local mirrored = x * mf.tensor({ -1, 1, 1 }, { dtype = "float64" })
        if n > 30 then assert.is_true(tm_score(x, mirrored, { kind = kind }).tm < 0.7) end
      end
    end
  end)

  it("no motion of either structure changes a score, and the motion that is told gives it", function()
    local rng = mf.rng(4)
    for how = 1, 5 do
      local x = walk(60, rng)
      local y = altered(x, how, rng)
      local Q = mf.random.rotations(1, { rng = rng, dtype = "float64" }):select(1, 1)
      local a, b = tm_score(x, y), tm_score(x:matmul(Q) + 7, y)
      for _, name in ipairs { "tm", "gdt_ts", "gdt_ha", "rmsd", "mean_distance" } do
        assert.is_true(math.abs(a[name] - b[name]) < 1e-6 * math.max(1, a[name]), name)
      end
      local R, t = mf.tensor(a.rotation, { dtype = "float64" }):reshape(3, 3), mf.tensor(a.translation, { dtype = "float64" })
      local d = (x:matmul(R:t()) + t - y):norm(2) / tm_d0(60)
      assert.is_true(math.abs((1 / (d * d + 1)):mean():item() - a.tm) < 1e-9)
      assert.is_true(a.rmsd >= a.mean_distance and a.gdt_superposed <= a.gdt_ts)
    end
  end)

  it("the program TMscore prints the same digits, for proteins and with the scale of RNA", function()
    if os.execute "command -v TMscore >/dev/null" ~= 0 then return pending "TMscore is not there (package tm-align)" end
    local rng, pairs_ = mf.rng(5), 0
    local one, other = os.tmpname(), os.tmpname()
    for round = 1, 12 do
      for how = 1, 5 do
        local n = 12 + 11 * round + how
        local x = walk(n, rng)
        local p, q = rounded(x), rounded(altered(x, how, rng))
        write_trace(one, p)
        write_trace(other, q)
        local kind = (round + how) % 2 == 0 and "protein" or "rna"
        local scale = kind == "rna" and ("-d %.9f"):format(tm_d0(n, "rna")) or ""
        local pipe = io.popen(("TMscore %s %s %s"):format(one, other, scale))
        local text = pipe:read "*a"
        pipe:close()
        local s = tm_score(mf.tensor(p, { dtype = "float64" }), mf.tensor(q, { dtype = "float64" }), { kind = kind })
        -- half a unit of the last digit that is printed, and as much again for the program's single precision
        for name, label in pairs { tm = "TM%-score    = ", gdt_ts = "GDT%-TS%-score= ", gdt_ha = "GDT%-HA%-score= " } do
          local printed = assert(tonumber(text:match(label .. "([%d.]+)")), text)
          assert.is_true(math.abs(s[name] - printed) <= 1e-4, ("%s of %d: %g, printed %g"):format(name, n, s[name], printed))
        end
        assert.is_true(math.abs(s.rmsd - tonumber(text:match "common residues=%s*([%d.]+)")) <= 1e-3)
        pairs_ = pairs_ + 1
      end
    end
    os.remove(one)
    os.remove(other)
    assert.equal(60, pairs_)
  end)
end)

describe("tm_score", function()
  it("is a share of the reference's residues when that one is longer", function()
    local rng = mf.rng(6)
    local x = walk(40, rng)
    local half = tm_score(x, x, { length = 80 })
    assert.is_true(math.abs(half.tm - 0.5) < 1e-12 and math.abs(half.gdt_ts - 0.5) < 1e-12)
    assert.equal(1, tm_score(x, x, { length = 80 }).gdt_superposed)
  end)

  it("takes samples, and compares what their kind is compared by", function()
    local rng = mf.rng(7)
    local function sample(kind)
      return mf.structure.new { kind = kind, rotations = mf.random.rotations(30, { rng = rng }),
        translations = walk(30, rng):float() }
    end
    local a, b = sample "rna", sample "rna"
    local atoms = a:atoms()
    local c3 = atoms:select(2, 1)
    assert.same("C3'", select(2, a:atoms())[1])
    assert.is_true(math.abs(tm_score(a, b).tm - tm_score(c3, b, { kind = "rna" }).tm) < 1e-12)
    assert.is_true(math.abs(tm_score(a, a).tm - 1) < 1e-9)
    support.error_matches(function() tm_score(a, sample "protein") end, "a rna and a protein are not compared", true)
  end)

  it("says what is wrong", function()
    local x, none = mf.zeros(5, 3), mf.zeros(0, 3)
    support.error_matches(function() tm_score(x, mf.zeros(6, 3)) end, "5 residues against 6; they must correspond one to one", true)
    support.error_matches(function() tm_score(x, mf.zeros(5, 2)) end, "argument 2 is", true)
    support.error_matches(function() tm_score(x, 7) end, "must be a tensor (N, 3) or a sampled structure", true)
    support.error_matches(function() tm_score(x, x, { kind = "fat" }) end, "kind is 'fat', expected 'protein'", true)
    support.error_matches(function() tm_score(x, x, { length = 4 }) end, "a reference of 4 residues, but 5 pairs", true)
    support.error_matches(function() tm_score(x, x, { d0 = 0 }) end, "d0 is 0, expected a positive number of angstrom", true)
    support.error_matches(function() tm_score(none, none) end, "0 pairs of residues", true)
    support.error_matches(function() tm_score(x, x + 0 / 0) end, "residue 1 of the second structure is at", true)
    support.error_matches(function() tm_d0(0) end, "length is 0, expected a number of residues", true)
  end)
end)
