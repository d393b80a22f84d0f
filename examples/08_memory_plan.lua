--- What a model would take at 20,000 residues, before there is a machine that has it.
--
-- On the device "null" operators compute shapes and count bytes, and nothing else: a whole training step of any size runs
-- in about a second. Prints the peak of sampling and of a training step, with and without recomputing each block in
-- backward, beside parameters and inputs; and what the quadratic model would need for its pairs alone.
--
--     moonfold examples/08_memory_plan.lua
local mf = require "moonfold"

local GIB = 2 ^ 30

local function inputs(length)
  local packing = mf.packing { length }
  return {
    translations = mf.empty(length, 3, { device = "null" }), rotations = mf.empty(length, 3, 3, { device = "null" }),
    t = mf.full({ 1 }, 0.5, { device = "null" }), packing = packing,
  }
end

-- The most that was held at once while `fn` ran, beside what was there before (parameters and inputs).
local function peak(fn)
  collectgarbage()
  local before = mf.memory("null").live
  mf.reset_peak "null"
  mf.scope(fn)
  return mf.memory("null").peak - before
end

local models = {}
for _, recompute in ipairs { false, true } do
  models[recompute] = mf.models.flash_ipa { blocks = 6, checkpoint = recompute }:to "null"
end

local function training(model, length)
  local batch = inputs(length)
  return peak(function() model(batch).translations:square():sum():backward() end) / GIB
end

local function sampling(model, length)
  local batch = inputs(length)
  return peak(function() mf.no_grad(function() model(batch) end) end) / GIB
end

print(("a model of %.1f million parameters"):format(models[false]:count() / 1e6))
print "residues   sampling   training   training, blocks recomputed   (GiB)"
local grown = {}
for _, length in ipairs { 5000, 10000, 20000 } do
  local kept = training(models[false], length)
  print(("%8d   %8.2f   %8.2f   %27.2f"):format(length, sampling(models[false], length), kept, training(models[true], length)))
  grown[#grown + 1] = kept
end
print(("dense pairs of 20000 residues, 128 channels, float32: %.0f GiB a copy"):format(20000 ^ 2 * 128 * 4 / GIB))
assert(grown[3] / grown[2] < 2.1, "memory must be linear in the length")
