--- Sampling backbones with a model and a flow.
--
-- Samples of any lengths are integrated together, packed. Sample i draws from its own streams of (seed, i), so it is the
-- same structure whatever is sampled beside it, up to the rounding of the model's own arithmetic.
--
-- A motif (mf.motif) gives some residues their frames: they stay as they are, bit for bit, and samples tell `fixed`, `contig` and
-- `motif_rmsd`. Guidance (moonfold.guidance) changes what the network predicts at each step by a function of yours.

local mf = require "moonfold"
local fail = require "moonfold.fail"
local guidance = require "moonfold.guidance"
local options = require "moonfold.options"
local streams = require "moonfold.flow.streams"
local structure = require "moonfold.structure"

local M = {}
local OPTIONAL = options.OPTIONAL

--- Options of `sample` and their defaults.
M.defaults = {
  length = OPTIONAL,       -- of every sample
  lengths = OPTIONAL,      -- or of each: a list; with n, each of them n times
  motif = OPTIONAL,        -- or as a motif says: mf.motif, or a function (seed, number) that returns what Motif:draw does
  n = OPTIONAL,            -- samples (1)
  steps = 50,              -- points of the time grid
  seed = 123,
  first = 1,               -- number of the first sample: skips those that exist already
  trajectory = false,      -- keep every step's frames, on the host
  self_condition = true,
  noise_scale = OPTIONAL,  -- of a stochastic flow; the flow's own by default
  schedule = OPTIONAL,     -- schedule(k, steps) -> the profile's own t
  guidance = OPTIONAL,     -- guidance(prediction, state) -> energy, or a prediction; called at every step
  guidance_weight = OPTIONAL, -- of the gradient of an energy: a number (1) or a function of the state
  residues = 20000,        -- integrate at most so many at once
  device = OPTIONAL,       -- where the state lives, "cpu" by default
  graph = true,            -- on a GPU: capture the model's work and replay it at every step (mf.graph)
}

-- The lengths of all samples and, with a motif, how each is laid out.
local function check_lengths(o)
  local given = (o.length and 1 or 0) + (o.lengths and 1 or 0) + (o.motif and 1 or 0)
  if given ~= 1 then fail "sample: give one of length, lengths and motif" end
  local lengths, n, plans = {}, o.n or 1, {}
  if o.motif then
    for number = 1, n do
      plans[number] = o.motif(o.seed, number)
      lengths[number] = plans[number].length
    end
    return lengths, plans
  end
  for _, length in ipairs(o.lengths or { o.length }) do
    if type(length) ~= "number" or length < 1 or length ~= math.floor(length) then
      fail("sample: a length of %s residues", tostring(length))
    end
    for _ = 1, n do lengths[#lengths + 1] = length end
  end
  return lengths, plans
end

-- What the plans of some samples give of their residues, packed; empty without a motif.
local function given_of(plans, numbers, device)
  local given = {}
  if #plans == 0 then return given end
  for _, name in ipairs { "fixed", "translations", "rotations", "torsions", "torsion_mask", "index", "chain" } do
    local parts = {}
    for k, number in ipairs(numbers) do parts[k] = plans[number][name] end
    if #parts == #numbers then given[name] = mf.cat(parts, 1):to(device or "cpu")
    elseif #parts > 0 then fail("sample: the motif gives %s of some samples only", name) end
  end
  if given.fixed and not (given.translations and given.rotations) then
    fail "sample: a motif that says fixed must give translations and rotations"
  end
  return given
end

-- What the network is asked: the same table that flow:corrupt makes, without targets.
local function question(flow, at, state)
  local given = state.given
  local t = mf.full({ state.packing:count() }, at, { device = state.translations:device() })
  return {
    t = t, residue_t = flow:residue_times(t, given.fixed, state.packing),
    translations = state.translations, rotations = state.rotations, packing = state.packing, trans_sc = state.trans_sc,
    fixed = given.fixed, index = given.index, chain = given.chain, torsions = given.fixed and given.torsions,
  }
end

-- Frames, those of fixed residues replaced by what is given.
local function held(given, x, r)
  if not given.fixed then return x, r end
  local n = x:size(1)
  return mf.where(given.fixed:reshape(n, 1), given.translations, x), mf.where(given.fixed:reshape(n, 1, 1), given.rotations, r)
end

-- Torsions, those of fixed residues that the file tells replaced by them.
local function held_torsions(given, torsions)
  if not torsions or not given.torsions or not given.fixed then return torsions end
  local n, k = torsions:size(1), torsions:size(2)
  if given.torsions:size(2) ~= k then
    fail("sample: the motif has %d torsions a residue, the model %d", given.torsions:size(2), k)
  end
  local known = given.fixed:reshape(n, 1)
  if given.torsion_mask then known = known:logical_and(given.torsion_mask) end
  return mf.where(known:reshape(n, -1, 1), given.torsions, torsions)
end

-- A step of a trajectory, on the host: a GPU has better uses for its memory.
local function keep(list, x, r, torsions)
  local frame = { translations = x:to "cpu", rotations = r:to "cpu", torsions = torsions and torsions:to "cpu" }
  for _, tensor in pairs(frame) do tensor:keep() end
  list[#list + 1] = frame
end

-- The model, captured where that is possible: what it predicts is a function of the question's tensors.
local function asking(model, o)
  if not o.graph or o.guidance then return model end
  return mf.graph(function(asked)
    local prediction = model(asked)
    return { translations = prediction.translations, rotations = prediction.rotations, torsions = prediction.torsions }
  end)
end

-- Integrates one pack; returns the final frames and torsions and the trajectories.
local function integrate(model, flow, o, plan, packing, numbers, given)
  local source = streams.keyed(o.seed, 0, numbers)
  local trajectory = o.trajectory and { state = {}, clean = {} }
  local state = { packing = packing, given = given, fixed = given.fixed }
  state.translations, state.rotations = held(given, flow:prior_state(packing, source, o.device))
  if trajectory then keep(trajectory.state, state.translations, state.rotations) end
  if o.self_condition and flow.kind == "protein" then
    state.trans_sc = mf.scope(function() return model(question(flow, plan[1].t, state)).translations:detach() end)
  end
  for k, at in ipairs(plan) do
    source.step = k
    local x, r, clean, torsions = mf.scope(function()
      local prediction = model(question(flow, at.t, state))
      if o.guidance then
        state.t, state.step = at.t, k
        prediction = guidance.apply(o.guidance, o.guidance_weight, prediction, state)
      end
      local clean, turned = held(given, prediction.translations, prediction.rotations)
      local torsions = held_torsions(given, prediction.torsions)
      local x, r = flow:step(state.translations, state.rotations, { translations = clean, rotations = turned }, at, {
        packing = packing, source = source, noise_scale = o.noise_scale, fixed = given.fixed,
      })
      if trajectory then
        keep(trajectory.clean, clean, turned, torsions)
        keep(trajectory.state, x, r, torsions)
      end
      return x, r, clean, torsions
    end)
    state.translations, state.rotations, state.torsions = x, r, torsions
    if o.self_condition then state.trans_sc = clean end
  end
  return state, trajectory
end

local function rows(frame, first, count)
  return {
    translations = frame.translations:narrow(1, first, count):contiguous(),
    rotations = frame.rotations:narrow(1, first, count):contiguous(),
    torsions = frame.torsions and frame.torsions:narrow(1, first, count):contiguous() or nil,
  }
end

local function cut(list, first, count)
  local result = {}
  for k, frame in ipairs(list) do result[k] = rows(frame, first, count) end
  return result
end

-- What a sample says of its motif.
local function tell_motif(s, plan)
  s.contig, s.index, s.chains = plan.contig, plan.index, plan.chains
  if plan.motif then s.motif_rmsd = plan.motif:rmsd(s.translations, plan) end
end

--- Draws backbones.
-- @param model callable, from `noisy` to a prediction (see flow.se3)
-- @param flow from `mf.flow.se3`
-- @tparam table o see `defaults`
-- @treturn function an iterator over the number of a sample and its structure (module structure)
-- @usage for i, structure in mf.sample(model, flow, { length = 300, n = 8 }) do structure:save(("s_%d.pdb"):format(i)) end
function M.sample(model, flow, o)
  o = options("sample", M.defaults, o)
  local lengths, plans = check_lengths(o)
  local plan = flow:plan(o.steps, o.schedule)
  if o.motif and type(o.motif) == "table" and o.motif.kind ~= flow.kind then
    fail("sample: the motif is %s, the flow %s", tostring(o.motif.kind), flow.kind)
  end
  local ask = asking(model, o)
  local next_number = o.first
  local ready, at = {}, 1

  local function more()
    local pack, numbers, total = {}, {}, 0
    while next_number <= #lengths and (#pack == 0 or total + lengths[next_number] <= o.residues) do
      pack[#pack + 1], numbers[#numbers + 1] = lengths[next_number], next_number
      total, next_number = total + lengths[next_number], next_number + 1
    end
    if #pack == 0 then return false end
    ready, at = mf.no_grad(function()
      local packing = mf.packing(pack)
      local given = given_of(plans, numbers, o.device)
      local state, trajectory = integrate(ask, flow, o, plan, packing, numbers, given)
      local list = {}
      for k, number in ipairs(numbers) do
        local first, count = packing:offset(k) + 1, pack[k]
        local frame = rows(state, first, count)
        frame.kind, frame.number, frame.seed, frame.name = flow.kind, number, o.seed, ("sample_%d"):format(number)
        if trajectory then
          frame.trajectory = { state = cut(trajectory.state, first, count), clean = cut(trajectory.clean, first, count) }
        end
        if given.fixed then frame.fixed = given.fixed:narrow(1, first, count):contiguous() end
        list[k] = structure.new(frame)
        if plans[number] then tell_motif(list[k], plans[number]) end
      end
      return list
    end), 1
    return true
  end

  return function()
    if at > #ready and not more() then return nil end
    local s = ready[at]
    ready[at], at = false, at + 1
    return s.number, s
  end
end

return setmetatable(M, { __call = function(_, ...) return M.sample(...) end })
