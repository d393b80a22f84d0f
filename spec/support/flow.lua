--- Batches and predictions for specs of flows.
local mf = require "moonfold"

local M = {}

--- A batch of random frames; deterministic by its seed.
function M.random_batch(kind, lengths, o)
  o = o or {}
  local rng = mf.rng(o.seed or 11)
  local packing = mf.packing(lengths)
  local n, k = packing:total(), kind == "protein" and 1 or 8
  local angle = mf.rand(n, k, { rng = rng }) * (2 * math.pi)
  local examples = {}
  for i in ipairs(lengths) do examples[i] = i end
  return {
    packing = packing, translations = mf.randn(n, 3, { rng = rng }) * 8, rotations = mf.random.rotations(n, { rng = rng }),
    torsions = mf.stack({ angle:sin(), angle:cos() }, 3), seed = 5, step = 1, examples = examples,
    times = o.times, mask = o.mask,
  }
end

--- The truth.
function M.perfect(noisy)
  local target = noisy.targets
  return { translations = target.translations, rotations = target.rotations, torsions = target.torsions }
end

--- A prediction some way off the truth.
function M.near_miss(noisy, seed)
  local rng = mf.rng(seed or 3)
  local target, n = noisy.targets, noisy.translations:size(1)
  return {
    translations = target.translations + mf.randn(n, 3, { rng = rng }),
    rotations = target.rotations:matmul(mf.geometry.so3_exp(mf.randn(n, 3, { rng = rng }) * 0.3)),
    torsions = target.torsions + mf.randn(n, target.torsions:size(2), 2, { rng = rng }) * 0.2,
  }
end

--- Moves every weight of a model: fresh ones hand back the frames that they are given, as what ends a branch is zero.
function M.stir(model, seed)
  local rng = mf.rng(seed)
  mf.no_grad(function()
    for _, entry in ipairs(model:named_tensors()) do
      local x = entry[2]
      x:copy_(x + mf.randn(x:shape(), { rng = rng }) * 0.1)
    end
  end)
  return model
end

return M
