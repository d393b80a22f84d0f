--- Training losses, one value a sequence.
--
-- A prediction is of clean frames; errors are measured on the vector fields that they imply. Lengths are nanometres in
-- the terms (angstrom times 0.1), except the protein's atoms. Every mean is over a sequence's own valid residues, so
-- a packed batch and a padded one give the same numbers. The auxiliary terms of atoms are only computed for sequences
-- whose time lies inside the gate.

local mf = require "moonfold"
local atoms = require "moonfold.atoms"
local constant = require "moonfold.constant"
local segments = require "moonfold.flow.segments"

local M = {}

-- |v| of (N, 3) as (N, 1); 1e-20 keeps the derivative at zero finite and is below float32's resolution elsewhere.
local function length(v) return (v:square():sum(2, true) + 1e-20):sqrt() end

-- Mean of |a - b|^2 over each sequence's valid residues (n). Factors that a sequence has in common are left to the caller.
local function mean_square(a, b, c)
  c.total = c.total or c.weights:segment_sum(c.packing) + 1e-10
  return a:squared_error(b, c.weights):segment_sum(c.packing) / c.total
end

-- What both sides of the atom terms need for the sequences inside the gate; nil when there are none.
--
-- The host knows the times and leaves out the other sequences. Without `noisy.times` (in a captured graph, where which
-- sequences are inside changes from replay to replay) all are computed and those outside count as zero.
local function gated(c, prediction, noisy)
  local which = noisy.times and {}
  for i, t in ipairs(noisy.times or {}) do
    if c.profile.gated(t, c.gate) then which[#which + 1] = i end
  end
  if which and #which == 0 then return nil end
  local target = noisy.targets
  local g = {
    which = which, inside = not which and c.profile.gated(noisy.t, c.gate) or nil,
    packing = c.packing, mask = noisy.loss_mask, times = noisy.t,
    translations = prediction.translations, rotations = prediction.rotations, torsions = prediction.torsions,
    true_translations = target.translations, true_rotations = target.rotations, true_torsions = target.torsions,
    torsion_mask = target.torsion_mask,
  }
  if not which or #which == c.packing:count() then return g end
  local index, packing = segments.rows(which, c.packing, noisy.t:device())
  for key, value in pairs(g) do
    if key ~= "which" and key ~= "packing" and key ~= "times" then g[key] = value:index_select(1, index) end
  end
  g.packing = packing
  local picked = {}
  for k, i in ipairs(which) do picked[k] = noisy.times[i] end
  g.times = mf.tensor(picked, { device = noisy.t:device() })
  return g
end

-- Values of the gated sequences at their places among all, zeros elsewhere.
local function spread_out(values, g, packing)
  if g.inside then return mf.where(g.inside, values, 0) end
  return segments.scatter(values, g.which, packing)
end

-- The lengths of the sequences as numbers.
local function lengths(packing, like)
  return mf.ones(packing:total(), { dtype = like:dtype(), device = like:device() }):segment_sum(packing)
end

-- Predicted and true atoms of the gated sequences with the mask of those that can be compared.
local function both_atoms(c, g)
  local rules = atoms.of(c.profile.kind)
  local predicted = rules.build(g.rotations, g.translations, g.torsions)
  local truth = rules.build(g.true_rotations, g.true_translations, g.true_torsions)
  local present = rules.present(g.mask, not c.compat and g.torsion_mask or nil)
  return predicted, truth, present
end

-- Sum over the atoms of |p - p'|^2 and how many were compared, each (k).
local function atom_error(predicted, truth, present, packing)
  local w = present:float()
  return predicted:squared_error(truth, w):segment_sum(packing), w:sum(2):segment_sum(packing)
end

--- Terms of the protein profile.
-- @tparam table c `profile`, `compat`, `packing`, `weights` (N), `gate`, `rotation_scaling`, `time_floor`, `stochastic`,
--   `x0_threshold`, `angle_gate`
-- @treturn table name -> tensor (n)
function M.protein(c, prediction, noisy)
  local packing, target = c.packing, noisy.targets
  local t = segments.spread(noisy.t, packing)
  local x_t, x_0 = noisy.translations, target.translations
  local field
  if c.stochastic and not c.compat then
    field = (x_t - x_0) / t
  else
    field = target.noise - x_0
  end
  -- field - (x_t - prediction) / t is the distance of the prediction from what the field leads to, over t
  local factor = (noisy.t + 1e-10):reciprocal() * 0.1
  if c.time_floor then factor = factor * (noisy.t / c.time_floor):clamp(nil, 1) end
  local led_to = x_t - field * (t + 1e-10)
  if c.x0_threshold > 0 then
    factor = mf.where(noisy.t:le(c.x0_threshold), 0.1, factor)
    led_to = mf.where(t:le(c.x0_threshold), x_0, led_to)
  end
  local terms = { trans = mean_square(prediction.translations, led_to, c) * factor:square() }

  local scale = c.rotation_scaling
  if not scale then scale = t:clamp(1e-4, 1 - 1e-4):clamp(c.time_floor or 0.01, nil):reciprocal() end
  local w = mf.geometry.so3_log(segments.relative(target.rotations, noisy.rotations)) * scale
  local w_hat = mf.geometry.so3_log(segments.relative(prediction.rotations, noisy.rotations)) * scale
  if c.separate_rotation then
    local a, b = length(w), length(w_hat)
    terms.axis = mean_square(w / (a + 1e-6), w_hat / (b + 1e-6), c)
    terms.angle = mean_square(a, b, c)
    if c.angle_gate > 0 then terms.angle = terms.angle * noisy.t:gt(c.angle_gate):float() end
  else
    terms.rot = mean_square(w, w_hat, c)
  end

  local g = gated(c, prediction, noisy)
  if g then
    local p, p_true, present = both_atoms(c, g)
    local error2, count = atom_error(p, p_true, present, g.packing)
    terms.bb = spread_out(error2 / (count + 1e-10), g, packing)
    local sum, pairs_ = mf.geometry.pair_distance_loss(p, p_true, present, 6, g.packing)
    if c.compat then
      -- the original counts every atom with itself and subtracts the residues, padding too
      pairs_ = pairs_ + count - lengths(g.packing, count)
    end
    terms.dm = spread_out(sum / pairs_:float():maximum(1), g, packing)
  end
  return terms
end

--- Terms of the RNA profile.
-- @tparam table c as for proteins, with `loss_atoms`: 0, 3 or 7 beside the frame's own
-- @treturn table name -> tensor (n)
function M.rna(c, prediction, noisy)
  local packing, target = c.packing, noisy.targets
  local s = noisy.t:clamp(nil, 0.9):affine(-1, 1)
  local factor = s:square():reciprocal() / 3
  local terms = { trans = mean_square(target.translations, prediction.translations, c) * factor * 0.01 }
  local v = mf.geometry.so3_log(segments.relative(noisy.rotations, target.rotations))
  local v_hat = mf.geometry.so3_log(segments.relative(noisy.rotations, prediction.rotations))
  terms.rot = mean_square(v, v_hat, c) * factor

  local g = gated(c, prediction, noisy)
  if not g then return terms end
  local p, p_true, present = both_atoms(c, g)
  local at = constant(atoms.rna.loss_columns(c.loss_atoms), { dtype = "int32", device = p:device() }) - 1
  p, p_true, present = p:index_select(2, at), p_true:index_select(2, at), present:index_select(2, at)
  local scale = (g.times:clamp(nil, 0.9):affine(-1, 1):reciprocal() * 0.1):square()
  local error2, count = atom_error(p, p_true, present, g.packing)
  terms.bb = spread_out(error2 * scale / (count + 1e-10), g, packing)
  local sum, pairs_ = mf.geometry.pair_distance_loss(p, p_true, present, 0, g.packing)
  pairs_ = pairs_:float()
  if c.compat then pairs_ = pairs_ + count - lengths(g.packing, count) end
  terms.dm = spread_out(sum * scale / pairs_:maximum(1), g, packing)

  if g.torsions then
    local n, k = g.torsions:size(1), g.torsions:size(2)
    local w = g.mask:float():reshape(n, 1):expand(n, k)
    if not c.compat then w = w * g.torsion_mask:float() end
    local off = g.torsions:squared_error(g.true_torsions, w):segment_sum(g.packing)
    terms.tors = spread_out(off / (w:sum(2):segment_sum(g.packing) + 1e-10), g, packing)
  end
  return terms
end

return M
