--- The two recipes: numbers that a profile fixes, and its two clocks.
--
-- `protein` runs from data at t = 0 to noise at t = 1; `rna` from noise at t = 0 to data at t = 1. What follows is
-- written once for both with the share of noise: lambda = t for proteins, 1 - t for RNA.

local M = {}

-- Of a time, or of a tensor of times.
local function below(t, gate)
  if type(t) == "number" then return t < gate end
  return t:lt(gate)
end
local function above(t, gate)
  if type(t) == "number" then return t > gate end
  return t:gt(gate)
end

M.protein = {
  kind = "protein",
  time_low = 0.01, time_span = 0.99,      -- training t = low + u span
  sample_from = 1, sample_to = 0.01, data_time = 0,
  prior = "uniform",                       -- of rotations, in training
  ot = "none",
  gate = 0.25,                             -- auxiliary terms below this t
  behind_gate = { bb = true, dm = true },
  bins = 5,
  weights = { trans = 1, axis = 1, angle = 0.5, rot = 0.5, bb = 0.25, dm = 0.25 },
  noise_share = function(t) return t end,
  gated = below,
}

M.rna = {
  kind = "rna",
  time_low = 0.01, time_span = 0.98,
  sample_from = 0.01, sample_to = 1, data_time = 1,
  prior = "igso3",                         -- R1 times IGSO3(1.5): close to the data's own rotation
  ot = "kabsch",
  gate = 0.25,                             -- auxiliary terms above this t
  behind_gate = { bb = true, dm = true, tors = true },
  bins = 4,
  weights = { trans = 2, rot = 1, bb = 1, dm = 1, tors = 1 },
  noise_share = function(t) return 1 - t end,
  gated = above,
}

--- Width of the noise of translations in angstrom, both profiles.
M.NOISE = 10
--- Scale of the IGSO(3) prior.
M.SIGMA = 1.5

return M
