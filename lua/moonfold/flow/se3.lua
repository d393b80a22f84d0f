--- Flow matching on SE(3): how training examples are corrupted, what the loss is, how a sample is integrated.
--
--     local flow = mf.flow.se3 { profile = "rna" }
--     local noisy = flow:corrupt(batch)
--     flow:self_condition(model, noisy)
--     local loss, terms = flow:loss(model(noisy), noisy)
--
-- A residue is x (angstrom) and R. With the share of noise lambda (t for proteins, 1 - t for RNA, see flow.profile):
--
--     x_t = (1 - lambda) x_data + lambda x_noise        R_t = R_data exp(lambda log(R_data' R_noise))
--
-- A motif is what `batch.fixed` marks: those residues stay where the data have them, they do not count in the loss, and the
-- example's origin is their centre, for that is all that is known of a molecule's place when its motif is given to a sampler.
-- With `motif` training draws spans of its own.
--
-- `compat = true` computes what the two original programs compute, with their defects, for comparison with published numbers.

local mf = require "moonfold"
local fail = require "moonfold.fail"
local options = require "moonfold.options"
local couple = require "moonfold.flow.couple"
local integrate = require "moonfold.flow.integrate"
local profiles = require "moonfold.flow.profile"
local segments = require "moonfold.flow.segments"
local spans = require "moonfold.flow.spans"
local streams = require "moonfold.flow.streams"
local terms = require "moonfold.flow.terms"
local mask_of = require "moonfold.nn.mask"

local M = {}
local Flow = {}
Flow.__index = Flow

local OPTIONAL = options.OPTIONAL

--- Options of `se3` and their defaults; those without one come from the profile.
M.defaults = {
  profile = "protein",        -- or "rna"
  compat = false,             -- reproduce the originals
  rotation = "exp",           -- sampling: angles shrink by exp(-rate s), or "linear"
  rate = 10,
  ot = OPTIONAL,              -- "none", "kabsch", "squared", "sinkhorn"
  ot_group = 10,              -- examples matched together by "squared" and "sinkhorn"
  ot_regularisation = 0.05,
  prior = OPTIONAL,           -- rotation noise in training: "uniform" or "igso3"
  sigma = profiles.SIGMA,     -- of "igso3"
  stochastic = false,         -- noise along the path (FoldFlow's SFM)
  g = 0.1,
  sigma_min = 0.01,
  noise_scale = 0.1,          -- sampling: share of the path noise that is injected
  self_condition = 0.5,       -- probability, once a step
  motif = 0,                  -- training: probability that spans of an example are fixed (flow.spans)
  separate_rotation = true,   -- protein: axis and angle terms instead of one
  rotation_scaling = OPTIONAL,-- protein: a constant instead of 1 / max(t, 0.01)
  x0_threshold = 0,           -- protein: up to this t the translation term is of positions, not of fields
  angle_gate = 0,             -- protein: the angle term acts above this t
  time_floor = OPTIONAL,      -- protein: losses count as at this t below it, so that no example outweighs a batch
  loss_atoms = 0,             -- RNA: 0, 3 or 7 atoms beside the frame's own
  gate = OPTIONAL,            -- where the auxiliary terms begin
  weights = OPTIONAL,         -- term -> weight, over those of the profile
  time_bins = OPTIONAL,       -- of the log
  seed = 123,                 -- of batches that carry none
}

local CHOICES = {
  profile = { protein = true, rna = true },
  rotation = { exp = true, linear = true },
  ot = { none = true, kabsch = true, squared = true, sinkhorn = true },
  prior = { uniform = true, igso3 = true },
  loss_atoms = { [0] = true, [3] = true, [7] = true },
}

--- A flow.
-- @tparam table o see `defaults`
-- @usage local flow = mf.flow.se3 { profile = "rna", ot = "none" }
function M.se3(o)
  o = options("flow.se3", M.defaults, o)
  for key, known in pairs(CHOICES) do
    if o[key] ~= nil and not known[o[key]] then
      fail("flow.se3: %s is '%s' (known: %s)", key, tostring(o[key]), table.concat(options.sorted_keys(known), ", "))
    end
  end
  if not (o.motif >= 0 and o.motif <= 1) then fail("flow.se3: motif is a probability, got %g", o.motif) end
  local profile = profiles[o.profile]
  local flow = setmetatable(o, Flow)
  flow.conditioned, flow.self_condition = o.self_condition, nil       -- the option would hide the method
  flow.kind, flow.profile = o.profile, profile
  for _, key in ipairs { "ot", "prior", "gate" } do
    if flow[key] == nil then flow[key] = profile[key] end
  end
  flow.time_bins = o.time_bins or profile.bins
  local weights = {}
  for name, weight in pairs(profile.weights) do weights[name] = weight end
  for name, weight in pairs(o.weights or {}) do
    if not weights[name] then
      fail("flow.se3: no loss term '%s' (known: %s)", name, table.concat(options.sorted_keys(profile.weights), ", "))
    end
    weights[name] = weight
  end
  flow.weights = weights
  return flow
end

function Flow:__tostring()
  return ("flow.se3 %s, ot %s, rotation %s%s%s"):format(self.kind, self.ot, self.rotation,
    self.stochastic and ", stochastic" or "", self.compat and ", compat" or "")
end

-- Where a batch's random numbers come from: the caller's generator, the batch's own streams, or the context's.
local function source_of(self, batch, rng)
  if rng then return streams.single(rng) end
  if batch.examples then return streams.keyed(batch.seed or self.seed, batch.step or 0, batch.examples) end
  return streams.single(nil)
end

local function noise_rotations(self, source, data, packing, device)
  if self.prior == "uniform" then return source:rotations("rotations", packing, device) end
  local sigma = mf.full({ packing:total() }, self.sigma, { device = device })
  return data:matmul(mf.geometry.so3_exp(source:igso3("rotations", packing, sigma, device)))
end

-- Batches of one protein many times over bring others of its length for the coupling; each example then has as much noise more.
local function among_others(self, source, o, packing, partners)
  local device, count = o.data:device(), partners.packing:count()
  if self.prior ~= "uniform" then
    fail("flow:corrupt: a coupling among partners needs prior uniform, this flow has %s", self.prior)
  end
  local length = partners.packing:longest()
  for _, part in ipairs { packing, partners.packing } do
    for _, other in ipairs(part:lengths()) do
      if other ~= length then
        fail("flow:corrupt: partners have one length, that of the examples; found %d and %d", length, other)
      end
    end
  end
  local w = segments.weights(partners.mask, partners.packing, device)
  o.others = {
    translations = segments.centre(partners.translations, w, partners.packing):reshape(count, length, 3),
    rotations = partners.rotations:reshape(count, length, 3, 3), weights = w:reshape(count, length),
  }
  local many = {}
  for i = 1, packing:count() * count do many[i] = length end
  local repeated = o.weights:reshape(-1, 1, length):expand(packing:count(), count, length):reshape(-1)
  o.more_noise = source:normal("ot_translations", packing, device, count) * profiles.NOISE
  o.more_noise = segments.centre(o.more_noise, repeated, mf.packing(many))
  o.more_noise_rotations = source:rotations("ot_rotations", packing, device, count)
  return couple.beside(o, packing)
end

local function coupled(self, source, o, packing, partners)
  if self.ot == "none" then return o.noise, o.noise_rotations end
  if self.ot == "kabsch" then
    return couple.kabsch(o.noise, o.data, o.weights, packing, self.compat), o.noise_rotations
  end
  o.group = self.ot_group
  if self.ot == "sinkhorn" then
    o.regularisation, o.numbers = self.ot_regularisation, source:numbers("coupling", packing:count())
  end
  if partners then return among_others(self, source, o, packing, partners) end
  return couple.squared(o, packing)
end

-- Noise along the path, sigma(t) = sqrt(g^2 t (1 - t) + sigma_min^2), in nanometres and radians.
local function wander(self, source, x, r, t, packing, device)
  local sigma = (t * (1 - t) * (self.g * self.g) + self.sigma_min * self.sigma_min):sqrt()
  local step = source:normal("path_translations", packing, device) * segments.spread(sigma, packing) * profiles.NOISE
  local turn = source:igso3("path_rotations", packing, sigma:segment_expand(packing), device)
  return x + step, r:matmul(mf.geometry.so3_exp(turn))
end

-- The fixed residues of a batch (N) bool, or nil: the batch's own, else spans drawn with the probability of a motif.
local function fixed_of(self, batch, source, device)
  local fixed = mask_of.bool(batch.fixed)
  if not fixed and self.motif > 0 then
    local rows = {}
    for i, length in ipairs(batch.packing:lengths()) do
      local rng, first = source:rng("motif", i), #rows
      for k = 1, length do rows[first + k] = 0 end
      if rng:number() < self.motif then
        for _, span in ipairs(spans.draw(length, rng)) do
          for k = span[1], span[2] do rows[first + k] = 1 end
        end
      end
    end
    fixed = mf.tensor(rows, { device = device }):gt(0.5)
  end
  return fixed and batch.mask and fixed:logical_and(batch.mask) or fixed
end

-- Rows outside the mask become the origin and the identity.
local function blank(x, r, mask, n)
  if not mask then return x, r end
  local eye = mf.eye(3, { device = r:device() }):unsqueeze(1):expand(n, 3, 3)
  return mf.where(mask:reshape(n, 1), x, 0), mf.where(mask:reshape(n, 1, 1), r, eye)
end

local function corrupt(self, batch, rng)
  local packing, profile = batch.packing, self.profile
  local n, device = packing:total(), batch.translations:device()
  local source = source_of(self, batch, rng)
  local weights = segments.weights(batch.mask, packing, device)
  local data, data_rotations = batch.translations, batch.rotations
  local fixed = fixed_of(self, batch, source, device)
  local anchor, loose = segments.anchors(weights, fixed, packing)
  if not self.compat then data = segments.centre(data, anchor, packing, weights) end
  data, data_rotations = blank(data, data_rotations, batch.mask, n)

  local times = batch.times or source:numbers("times", packing:count())
  if not batch.times then
    for i, u in ipairs(times) do times[i] = profile.time_low + profile.time_span * u end
  end
  local t = mf.tensor(times, { device = device })
  local share = profile.noise_share(t)
  local wide = segments.spread(share, packing)

  local noise = source:normal("translations", packing, device) * profiles.NOISE
  local uncentred = self.compat and self.kind == "protein"
  if not uncentred then noise = segments.centre(noise, weights, packing) end
  local rotations = noise_rotations(self, source, data_rotations, packing, device)
  noise, rotations = coupled(self, source, {
    data = data, data_rotations = data_rotations, noise = noise, noise_rotations = rotations, weights = weights,
  }, packing, batch.partners)

  local x = data * (1 - wide) + noise * wide
  local turn = mf.geometry.so3_log(segments.relative(data_rotations, rotations)) * wide
  local r = data_rotations:matmul(mf.geometry.so3_exp(turn))
  if self.stochastic then x, r = wander(self, source, x, r, t, packing, device) end
  if self.kind == "protein" then x = segments.centre(x, loose, packing, weights) end
  local loss_mask = batch.mask
  if fixed then
    x = mf.where(fixed:reshape(n, 1), data, x)
    r = mf.where(fixed:reshape(n, 1, 1), data_rotations, r)
    loss_mask = fixed:logical_not()
    if batch.mask then loss_mask = loss_mask:logical_and(batch.mask) end
  end
  x, r = blank(x, r, batch.mask, n)

  local rules = require("moonfold.atoms").of(self.kind)
  local torsions = batch.torsions or mf.zeros(n, rules.torsion_count, 2, { device = device })
  local full = batch.mask or mf.ones(n, { device = device }):bool()
  local torsion_mask = batch.torsion_mask
  if not torsion_mask then
    torsion_mask = mf.full({ n, rules.torsion_count }, batch.torsions and 1 or 0, { device = device }):bool()
  end
  return {
    t = t, times = times, residue_t = self:residue_times(t, fixed, packing), translations = x, rotations = r, packing = packing,
    mask = batch.mask,
    fixed = fixed, index = batch.index, aatype = batch.aatype, chain = batch.chain,
    torsions = fixed and torsions or nil,            -- of a motif they are known; a model may read those
    loss_mask = loss_mask or full, examples = batch.examples, seed = batch.seed, step = batch.step,
    targets = {
      translations = data, rotations = data_rotations, torsions = torsions, torsion_mask = torsion_mask,
      noise = noise, noise_rotations = rotations,
    },
  }
end

--- The time of each residue: that of its sequence, and of the data where it is fixed. A network that is not told of `fixed` in
-- another way sees by it what it may rely on.
-- @tparam tensor t (n)
-- @tparam ?tensor fixed (N) bool
-- @tparam packing packing
-- @treturn ?tensor (N); nil where nothing is fixed
function Flow:residue_times(t, fixed, packing)
  return fixed and mf.where(fixed, self.profile.data_time, t:segment_expand(packing)) or nil
end

--- Corrupts a batch: draws times and noise, interpolates, keeps the targets.
-- @tparam table batch `packing`, `translations` (N, 3) angstrom, `rotations` (N, 3, 3); and where there are any
--   `torsions` (N, K, 2), `torsion_mask` (N, K), `mask` (N), `fixed` (N) bool; `seed`, `step` and `examples` (a whole number
--   for each sequence) make the draws a function of those; `times` (a list) sets the times instead of drawing them; `partners`,
--   a batch of other entries of one length (flow.partners), is what ot "squared" and "sinkhorn" couple each sequence among
-- @param[opt] rng a generator to draw from instead
-- @treturn table what a model reads (`t`, `translations`, `rotations`, `packing`, `mask`, ...) and `targets`
-- @usage local noisy = flow:corrupt(batch)
function Flow:corrupt(batch, rng)
  if type(batch) ~= "table" or not batch.packing or not batch.translations or not batch.rotations then
    fail("flow:corrupt: a batch is a table with packing, translations and rotations")
  end
  if batch.packing:count() == 0 then fail("flow:corrupt: the batch holds no sequence") end
  return mf.no_grad(corrupt, self, batch, rng)
end

--- With probability `self_condition`, runs the model once without gradients and hands its translations to the next run.
-- @param model callable
-- @tparam table noisy from `corrupt`; `trans_sc` is set or cleared
-- @param[opt] rng a generator; without it the draw is keyed by the batch's seed and step, the same on every rank
-- @treturn table noisy
function Flow:self_condition(model, noisy, rng)
  local chosen
  if self.compat and self.kind == "protein" and noisy.step then
    chosen = noisy.step % 2 == 1
  else
    if not rng and noisy.step then rng = streams.rng(noisy.seed or self.seed, "self_condition", noisy.step) end
    local u = rng and rng:number() or mf.rand(1):item()
    chosen = u < self.conditioned
  end
  noisy.trans_sc = nil
  if chosen then
    noisy.trans_sc = mf.scope(mf.no_grad, function() return model(noisy).translations:detach() end)
  end
  return noisy
end

--- The loss terms of each sequence, unweighted.
-- @tparam table prediction `translations` (N, 3), `rotations` (N, 3, 3), `torsions` (N, K, 2) or nil
-- @tparam table noisy from `corrupt`
-- @treturn table name -> tensor (n); the terms of atoms are absent when no sequence is inside the gate
function Flow:terms(prediction, noisy)
  local device = noisy.translations:device()
  return terms[self.kind]({
    profile = self.profile, compat = self.compat, stochastic = self.stochastic, gate = self.gate,
    packing = noisy.packing, weights = segments.weights(noisy.loss_mask, noisy.packing, device),
    rotation_scaling = self.rotation_scaling, separate_rotation = self.separate_rotation, loss_atoms = self.loss_atoms,
    time_floor = self.time_floor, x0_threshold = self.x0_threshold, angle_gate = self.angle_gate,
  }, prediction, noisy)
end

--- The training loss: the weighted terms, summed over sequences, over the number of sequences with a valid residue.
-- @tparam table prediction
-- @tparam table noisy
-- @treturn tensor scalar
-- @treturn table name -> detached tensor (n), and `total`
-- @usage local loss, terms = flow:loss(model(noisy), noisy)
function Flow:loss(prediction, noisy)
  local values, total = self:terms(prediction, noisy), nil
  for _, name in ipairs(options.sorted_keys(values)) do
    local part = values[name] * self.weights[name]
    total = total and total + part or part
  end
  local log = mf.no_grad(function()
    local detached = { total = total:detach() }
    for name, value in pairs(values) do detached[name] = value:detach() end
    return detached
  end)
  local weights = segments.weights(noisy.loss_mask, noisy.packing, noisy.translations:device())
  local examples = mf.no_grad(function()
    return weights:segment_sum(noisy.packing):gt(0):float():sum():maximum(1)
  end)
  return total:sum() / examples, log
end

--- A log of loss terms by time; those of atoms count inside their gate.
-- @treturn TimeBins
function Flow:time_log()
  local profile, gate = self.profile, self.gate
  return require("moonfold.flow.time_bins").new(self.time_bins, function(name, t)
    return not profile.behind_gate[name] or profile.gated(t, gate)
  end)
end

for name, method in pairs(integrate) do Flow[name] = method end

return M
