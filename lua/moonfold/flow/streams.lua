--- Random numbers of a batch: one Philox stream for each purpose, step and example.
--
-- A draw is a function of (seed, purpose, step, example) alone, so a sequence gets the same noise whatever else is in its
-- batch, on whatever rank, and a resumed run goes on with the numbers of the run that was interrupted.

local mf = require "moonfold"

local M = {}

--- What a stream is for; part of its number, so these never change.
M.purpose = {
  times = 1, translations = 2, rotations = 3, coupling = 4, self_condition = 5, shuffle = 6,
  path_translations = 7, path_rotations = 8, start_translations = 9, start_rotations = 10,
  crop = 11, motif = 12, ot_translations = 13, ot_rotations = 14,
}

-- purpose < 16, example < 2^17, step < 2^31: together below 2^52, exact in a double
local PURPOSES, EXAMPLES = 16, 2 ^ 17

--- The generator of one purpose, step and example.
-- @tparam number seed
-- @tparam string purpose a key of `purpose`
-- @tparam[opt=0] number step
-- @tparam[opt=0] number example
function M.rng(seed, purpose, step, example)
  return mf.rng(seed, M.purpose[purpose] + PURPOSES * ((example or 0) + EXAMPLES * (step or 0)))
end

local Source = {}
Source.__index = Source

--- Draws keyed by seed, step and each example's own number.
-- @tparam number seed
-- @tparam number step
-- @tparam table examples a whole number for each sequence of the batch
function M.keyed(seed, step, examples)
  return setmetatable({ seed = seed, step = step, examples = examples }, Source)
end

--- Draws from one generator, in order.
-- @param rng a generator, or nil for the context's own
function M.single(rng)
  return setmetatable({ one = rng, is_single = true }, Source)
end

--- A number in [0, 1) for each of `count` sequences.
function Source:numbers(purpose, count)
  local result = {}
  for i = 1, count do
    if self.is_single then
      result[i] = self.one and self.one:number() or mf.rand(1):item()
    else
      result[i] = M.rng(self.seed, purpose, self.step, self.examples[i]):number()
    end
  end
  return result
end

-- The generator of a purpose and what each example adds to its stream.
local function each(self, purpose)
  local added = {}
  for i, example in ipairs(self.examples) do added[i] = PURPOSES * example end
  return M.rng(self.seed, purpose, self.step), added
end

--- Standard normal numbers (N, 3), or `many` times as many rows, sequence by sequence.
function Source:normal(purpose, packing, device, many)
  if self.is_single then return mf.randn(packing:total() * (many or 1), 3, { device = device, rng = self.one }) end
  local rng, streams = each(self, purpose)
  return mf.random.normal_each(rng, streams, packing, 3, { device = device, rows = many })
end

--- Uniform rotations (N, 3, 3), or `many` times as many, sequence by sequence.
function Source:rotations(purpose, packing, device, many)
  if self.is_single then return mf.random.rotations(packing:total() * (many or 1), { device = device, rng = self.one }) end
  local rng, streams = each(self, purpose)
  return mf.random.rotations_each(rng, streams, packing, { device = device, rows = many })
end

--- The generator of one sequence of the batch.
-- @tparam string purpose
-- @tparam number i
function Source:rng(purpose, i)
  if self.is_single then return self.one or mf.default_rng() end
  return M.rng(self.seed, purpose, self.step, self.examples[i])
end

--- Rotation vectors (N, 3) of IGSO(3).
-- @tparam tensor sigma (N), one scale a residue
function Source:igso3(purpose, packing, sigma, device)
  if self.is_single then return mf.random.igso3(sigma:contiguous(), { device = device, rng = self.one }) end
  local rng, streams = each(self, purpose)
  return mf.random.igso3_each(rng, streams, packing, sigma, { device = device })
end

return M
