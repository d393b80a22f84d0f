-- Checks of the specification (flow.md 4, data.md 4, metrics.md 9) that no other spec makes.
--
-- Elsewhere: flow.md 4.1 to 4.3 spec/core/rotations_spec.lua; 4.4 (means and quantiles) spec/core/random_spec.lua; 4.6 and 4.7
-- flow_spec.lua; 4.8 sample_spec.lua; 4.9 spec/core/assignment_spec.lua. data.md 4.1 data_spec.lua. metrics.md 9.1
-- spec/core/frames_spec.lua; 9.2 spec/core/tm_score_spec.lua; 9.4 and 9.5 metrics_spec.lua; 9.6 evaluate_spec.lua.
local mf = require "moonfold"
local help = require "spec.support.flow"
local rules = require "moonfold.data.rules"
local support = require "spec.support"

teardown(function() jit.flush() end)

-- The two formulas of flow.md 1.6, densities with respect to the Haar measure.
local function series(w, sigma)
  local sum = 0
  for l = 0, 1000 do
    local decay = l * (l + 1) * sigma * sigma / 2
    if decay > 30 then break end
    sum = sum + (2 * l + 1) * math.exp(-decay) * math.sin((l + 0.5) * w) / math.sin(w / 2)
  end
  return sum
end

local function closed(w, sigma)
  local e = sigma * sigma / 2
  local around = w - (w - 2 * math.pi) * math.exp(math.pi * (w - math.pi) / e)
    - (w + 2 * math.pi) * math.exp(-math.pi * (w + math.pi) / e)
  return math.sqrt(math.pi) / 2 * e ^ -1.5 * math.exp((e - w * w / e) / 4) * around / math.sin(w / 2)
end

describe("flow.md 4.4", function()
  it("both formulas of IGSO(3) agree from 0.1 to 1.5, and integrate to one", function()
    for _, sigma in ipairs { 0.1, 0.2, 0.5, 1, 1.5 } do
      local sum, steps = 0, 4000
      for i = 1, steps do
        local w = math.pi * (i - 0.5) / steps
        local a, b = series(w, sigma), closed(w, sigma)
        -- where the density is a millionth of its peak the series is a difference of large numbers
        if w < 4 * sigma then assert.is_true(math.abs(a / b - 1) < 1e-6, ("%g at %g: %g, %g"):format(sigma, w, a, b)) end
        sum = sum + b * (1 - math.cos(w)) / math.pi * math.pi / steps
      end
      assert.is_true(math.abs(sum - 1) < 1e-5, sum)
    end
  end)

  it("the draws follow that density: shares of ten parts of equal probability", function()
    local n, sigma, parts = 100000, 0.7, 10
    local cumulative, edges, sum, steps = 0, {}, 0, 20000
    for i = 1, steps do
      local w = math.pi * (i - 0.5) / steps
      cumulative = cumulative + closed(w, sigma) * (1 - math.cos(w)) / steps
      if cumulative >= (#edges + 1) / parts then edges[#edges + 1] = math.pi * i / steps end
    end
    local counts = {}
    for k = 1, parts do counts[k] = 0 end
    for _, w in ipairs(mf.random.igso3(n, sigma, { dtype = "float64", rng = mf.rng(14) }):norm(2):values()) do
      local k = 1
      while k < parts and w > edges[k] do k = k + 1 end
      counts[k], sum = counts[k] + 1, sum + w
    end
    for k = 1, parts do assert.is_true(math.abs(counts[k] - n / parts) < 5 * math.sqrt(n / parts), k) end
  end)
end)

describe("flow.md 4.5", function()
  for _, kind in ipairs { "protein", "rna" } do
    it(kind .. ": the interpolant is the straight way and the geodesic, and turns with data and noise", function()
      local flow = mf.flow.se3 { profile = kind, ot = "none" }
      local batch = help.random_batch(kind, { 8, 5 }, { times = { 0.3, 0.8 } })
      local noisy = flow:corrupt(batch)
      local target = noisy.targets
      local share = kind == "protein" and { 0.3, 0.8 } or { 0.7, 0.2 }
      local wide = mf.tensor(share):segment_expand(noisy.packing):reshape(13, 1)
      local function interpolated(data, noise, data_rotations, noise_rotations)
        return data * (1 - wide) + noise * wide, mf.geometry.geodesic(data_rotations, noise_rotations, wide)
      end
      local x, r = interpolated(target.translations, target.noise, target.rotations, target.noise_rotations)
      support.close(noisy.translations, x, 1e-5)
      support.close(noisy.rotations, r, 1e-5)
      local Q = mf.random.rotations(1, { rng = mf.rng(3) })
      local function turned(v) return v:matmul(Q:select(1, 1):t()) end
      local y, q = interpolated(turned(target.translations), turned(target.noise), Q:matmul(target.rotations),
        Q:matmul(target.noise_rotations))
      support.close(y, turned(noisy.translations), 1e-5)
      support.close(q, Q:matmul(noisy.rotations), 1e-5)
    end)
  end
end)

describe("data.md 4", function()
  it("gives the sizes of both papers: the presets' rules", function()
    local function rule(name) return rules.rule(mf.models.presets.load(name).data.rule) end
    -- 4.1: floor(5e5 / N^2) up to 256 of one rank, round(2e4 g / N) of all; the paper's 39 at N = 512 is of one GPU
    assert.same({ 256, 138, 1 }, { rule("foldflow/base"):size(20), rule("foldflow/base"):size(60), rule("foldflow/ot"):size(512) })
    assert.same({ 39, 156, 2, 9 }, { rule("foldflow/flash"):size(512, 1), rule("foldflow/flash"):size(512, 4),
      rule("foldflow/flash_all"):size(8800, 1), rule("foldflow/flash_all"):size(8800, 4) })
    -- its printed formula for IPA gives round(1.907) = 2 at N = 512, not 1; ties go to the even number
    local printed = rules.rule { kind = "quadratic", budget = 5e5, round = "nearest", scope = "global" }
    assert.equal(2, printed:size(512, 1))
    local ties = rules.rule { kind = "linear", budget = 5, round = "nearest" }
    assert.same({ 2, 2 }, { ties:size(2), rules.rule({ kind = "linear", budget = 3, round = "nearest" }):size(2) })
    -- 4.2: floor(Q / N^2) + 1 and floor(Q / N) + 1, at most 28; with the cap of 512 of one GPU 40 nt have 476
    local ipa, flash = rule "rna_frameflow/base", rule "rna_frameflow/flash_all"
    assert.same({ 28, 23, 17, 6, 2 }, { ipa:size(40), ipa:size(128), ipa:size(150), ipa:size(256), ipa:size(512) })
    assert.same({ 28, 28, 27, 19, 10, 5 }, { flash:size(40), flash:size(703), flash:size(704), flash:size(1024), flash:size(2048),
      flash:size(4417) })
    assert.equal(476, rules.rule({ kind = "linear", budget = 19000, plus = 1, cap = 512 }):size(40))
  end)
end)

describe("metrics.md 9.3", function()
  it("a root mean square is not less than a mean, and equal for equal deviations alone", function()
    local rng, packing = mf.rng(6), mf.packing { 40 }
    for _ = 1, 20 do
      local p, q = mf.randn(40, 3, { rng = rng }) * 8, mf.randn(40, 3, { rng = rng }) * 8
      local R, t, rmsd = mf.geometry.kabsch(p, q, nil, packing)
      local mean = (p:matmul(R:select(1, 1):t()) + t - q):norm(2):mean():item()
      assert.is_true(rmsd:item() > mean)
    end
    -- two squares, one turned by 90 degrees about its own axis against the other's height: every corner is as far off
    local p = mf.tensor { { 1, 1, 0 }, { -1, 1, 0 }, { -1, -1, 0 }, { 1, -1, 0 } }
    local q = p * 1.5
    local R, t, rmsd = mf.geometry.kabsch(p, q, nil, mf.packing { 4 })
    local mean = (p:matmul(R:select(1, 1):t()) + t - q):norm(2):mean():item()
    assert.is_true(math.abs(rmsd:item() - mean) < 1e-6)
  end)
end)

describe("samples", function()
  for _, kind in ipairs { "protein", "rna" } do
    it(kind .. ": the same bytes for the same seed, and the same structure alone and in a pack of mixed lengths", function()
      local o = { preset = "flash", node = 16, edge = 8, position = 8, hidden = 4, heads = 2, query_points = 2, value_points = 2,
        blocks = 2, transformer_heads = 2, transformer_layers = 1, neighbours = 4, feat = 4, rng = mf.rng(5) }
      if kind == "protein" then o.skip = 8 else o.time = 8 end
      local model = kind == "protein" and mf.models.foldflow(o) or mf.models.rna_frameflow(o)
      help.stir(model, 6)
      local flow = mf.flow.se3 { profile = kind }
      local function draw(residues, seed)
        local list = {}
        for i, s in mf.sample(model, flow, { lengths = { 12, 31, 7 }, n = 2, steps = 6, seed = seed or 3, residues = residues }) do
          list[i] = s
        end
        return list
      end
      local a, b, alone, other = draw(20000), draw(20000), draw(1), draw(20000, 4)
      for i = 1, 6 do
        for _, name in ipairs { "translations", "rotations", "torsions" } do support.same_bits(a[i][name], b[i][name]) end
        support.close(alone[i].translations, a[i].translations, 1e-4)
        support.close(alone[i].rotations, a[i].rotations, 1e-4)
        assert.is_true(support.difference(other[i].translations, a[i].translations) > 0.01)
      end
    end)
  end
end)
