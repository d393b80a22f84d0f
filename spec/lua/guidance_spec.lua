-- Guidance: energies whose slope is taken, predictions that are replaced, and that one sample does not move another.
local mf = require "moonfold"
local guidance = require "moonfold.guidance"
local support = require "spec.support"

teardown(function() jit.flush() end)

-- A network that always says the same, whatever it is asked: per sample a cloud of its own.
local function stubborn(lengths)
  local parts = {}
  for i, n in ipairs(lengths) do parts[i] = mf.randn(n, 3, { rng = mf.rng(40 + i) }) * (4 + i) end
  return function(noisy)
    local n = noisy.packing:total()
    -- alone, a sample is the last that was asked for
    local x = n == parts[1]:size(1) and parts[1] or mf.cat(parts, 1):narrow(1, 1, n)
    return { translations = x, rotations = mf.eye(3):unsqueeze(1):expand(n, 3, 3):contiguous() }
  end
end

-- Squared distance of each sequence's radius of gyration from a target, times its residues.
local function to_radius(target)
  return function(prediction, state)
    local p = state.packing
    local x = prediction.translations
    local centred = x - x:segment_mean(p):segment_expand(p)
    local rg = centred:square():sum(2):segment_mean(p):sqrt()
    return ((rg - target):square() * mf.tensor(p:lengths())):sum()
  end
end

local function radius(s)
  local x = s.translations
  return ((x - x:mean(1, true)):square():sum() / s.length):sqrt():item()
end

describe("an energy", function()
  it("pulls samples to a radius of gyration", function()
    -- dE/dx = 2 (rg - target) / rg (x - c): at weight 1/2 each step lands on the target
    local flow, model = mf.flow.se3 {}, stubborn { 30, 50 }
    for i, s in mf.sample(model, flow, { lengths = { 30, 50 }, steps = 6, guidance = to_radius(12), guidance_weight = 0.5 }) do
      assert.is_true(math.abs(radius(s) - 12) < 1e-3, i)
    end
    -- a quarter goes half of the way
    for _, s in mf.sample(model, flow, { lengths = { 30 }, steps = 6, guidance = to_radius(12), guidance_weight = 0.25 }) do
      local _, plain = mf.sample(model, flow, { lengths = { 30 }, steps = 6 })()
      assert.is_true(math.abs(radius(s) - 0.5 * (radius(plain) + 12)) < 1e-3)
    end
  end)

  it("has a weight that may follow the time", function()
    local flow, seen = mf.flow.se3 { profile = "rna" }, {}
    local function weight(state)
      seen[#seen + 1] = state.t
      return state.t > 0.9 and 0.5 or 0
    end
    for _, s in mf.sample(stubborn { 20 }, flow, { length = 20, steps = 5, guidance = to_radius(9), guidance_weight = weight }) do
      assert.is_true(math.abs(radius(s) - 9) < 1e-3)
    end
    assert.equal(5, #seen)
    support.close(mf.tensor(seen[5]), mf.tensor(1), 1e-6)
    for _, s in mf.sample(stubborn { 20 }, flow, { length = 20, steps = 5, guidance = to_radius(9), guidance_weight = 0 }) do
      local _, plain = mf.sample(stubborn { 20 }, flow, { length = 20, steps = 5 })()
      support.same_bits(s.translations, plain.translations)
    end
  end)

  it("moves by its gradient, in translations and along rotations", function()
    local rng, n = mf.rng(4), 6
    local prediction = { translations = mf.randn(n, 3, { rng = rng }) * 5, rotations = mf.random.rotations(n, { rng = rng }) }
    local target = mf.randn(n, 5, 3, { rng = rng }) * 5
    local function energy(p)
      return (mf.atoms.protein.build(p.rotations, p.translations) - target):square():sum()
    end
    local state = { packing = mf.packing { n } }
    local before = energy(prediction):item()
    -- a small step lowers the energy by w |gradient|^2, to first order
    local w = 1e-5
    local moved = guidance.apply(energy, w, prediction, state)
    local dx = (prediction.translations - moved.translations) / w
    local turn = mf.geometry.so3_log(prediction.rotations:transpose(2, 3):matmul(moved.rotations):double()) / -w
    local slope = dx:square():sum():item() + turn:square():sum():item()
    assert.is_true(turn:square():sum():item() > 1)
    local fall = (before - energy(moved):item()) / w
    assert.is_true(math.abs(fall / slope - 1) < 0.02, ("%g against %g"):format(fall, slope))
    local eye = moved.rotations:transpose(2, 3):matmul(moved.rotations)
    support.close(eye, mf.eye(3):unsqueeze(1):expand(n, 3, 3), 1e-5)
    assert.is_false(moved.translations:requires_grad())
  end)

  it("of one sample leaves the others alone", function()
    local flow, model = mf.flow.se3 {}, stubborn { 30, 50 }
    local o = { lengths = { 30, 50 }, steps = 4, guidance = to_radius(12), guidance_weight = 0.3, seed = 2 }
    local _, first = mf.sample(model, flow, o)()
    o.residues = 1
    local _, alone = mf.sample(model, flow, o)()
    support.close(alone.translations, first.translations, 1e-5)
  end)

  it("does not move a motif, nor what it does not depend on", function()
    local motif = mf.motif { file = "spec/fixtures/1ubq.pdb.gz", contig = "10,A42-50,10" }
    local function model(noisy) return { translations = noisy.translations * 0.9, rotations = noisy.rotations } end
    local _, s = mf.sample(model, mf.flow.se3 {}, { motif = motif, steps = 5, guidance = to_radius(30), guidance_weight = 0.2 })()
    support.same_bits(s.translations:narrow(1, 11, 9):contiguous(), motif.translations)
    local prediction = { translations = mf.ones(2, 3), rotations = mf.eye(3):unsqueeze(1):expand(2, 3, 3):contiguous() }
    local out = guidance.apply(function() return mf.tensor(3) end, 1, prediction, { packing = mf.packing { 2 } })
    support.same_bits(out.translations, prediction.translations)
  end)
end)

describe("a guidance that returns a prediction", function()
  it("is followed, without its gradients", function()
    local function shift(p) return { translations = p.translations + 1, rotations = p.rotations, torsions = p.torsions } end
    local prediction = { translations = mf.ones(2, 3), rotations = mf.eye(3):unsqueeze(1):expand(2, 3, 3):contiguous() }
    local out = guidance.apply(shift, 1, prediction, { packing = mf.packing { 2 } })
    support.close(out.translations, mf.full({ 2, 3 }, 2), 0)
    assert.is_false(out.translations:requires_grad())
    assert.is_false(mf.no_grad(function() return guidance.apply(shift, 1, prediction, {}).translations:requires_grad() end))
  end)

  it("is told what it should have returned", function()
    local function refused(message, fn, weight)
      support.error_matches(function()
        mf.sample(stubborn { 4 }, mf.flow.se3 {}, { length = 4, steps = 2, guidance = fn, guidance_weight = weight })()
      end, message, true)
    end
    refused("guidance returned nil, expected an energy (a tensor) or a prediction", function() end)
    refused("guidance returned a table without them", function() return {} end)
    refused("guidance_weight is nil, expected a number or a function", to_radius(5), function() end)
  end)
end)

describe("enable_grad", function()
  it("records inside no_grad, and puts things back", function()
    local x = mf.ones(3):require_grad()
    mf.no_grad(function()
      local y = mf.enable_grad(function() return x:square():sum() end)
      assert.is_true(y:requires_grad())
      assert.is_false(mf.grad_enabled())
      assert.is_false(x:square():requires_grad())
      assert.has_error(function() mf.enable_grad(function() error "no" end) end)
      assert.is_false(mf.grad_enabled())
    end)
  end)
end)
