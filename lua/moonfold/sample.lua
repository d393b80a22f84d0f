--- Sampling backbones with a model and a flow.
--
-- Samples of any lengths are integrated together, packed. Sample i draws from its own streams of (seed, i), so it is the
-- same structure whatever is sampled beside it, up to the rounding of the model's own arithmetic.

local mf = require "moonfold"
local fail = require "moonfold.fail"
local options = require "moonfold.options"
local streams = require "moonfold.flow.streams"
local structure = require "moonfold.structure"

local M = {}
local OPTIONAL = options.OPTIONAL

--- Options of `sample` and their defaults.
M.defaults = {
  length = OPTIONAL,       -- of every sample
  lengths = OPTIONAL,      -- or of each: a list; with n, each of them n times
  n = OPTIONAL,            -- samples (1)
  steps = 50,              -- points of the time grid
  seed = 123,
  first = 1,               -- number of the first sample: skips those that exist already
  trajectory = false,      -- keep every step's frames, on the host
  self_condition = true,
  noise_scale = OPTIONAL,  -- of a stochastic flow; the flow's own by default
  schedule = OPTIONAL,     -- schedule(k, steps) -> the profile's own t
  guidance = OPTIONAL,     -- guidance(prediction, state) -> prediction, called at every step
  residues = 20000,        -- integrate at most so many at once
  device = OPTIONAL,       -- where the state lives, "cpu" by default
  graph = true,            -- on a GPU: capture the model's work and replay it at every step (mf.graph)
}

local function check_lengths(o)
  if (o.length == nil) == (o.lengths == nil) then fail "sample: give one of length and lengths" end
  local lengths, n = {}, o.n or 1
  for _, length in ipairs(o.lengths or { o.length }) do
    if type(length) ~= "number" or length < 1 or length ~= math.floor(length) then
      fail("sample: a length of %s residues", tostring(length))
    end
    for _ = 1, n do lengths[#lengths + 1] = length end
  end
  return lengths
end

-- What the network is asked: the same table that flow:corrupt makes, without targets.
local function question(at, state)
  local device = state.translations:device()
  return {
    t = mf.full({ state.packing:count() }, at, { device = device }),
    translations = state.translations, rotations = state.rotations, packing = state.packing, trans_sc = state.trans_sc,
  }
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
local function integrate(model, flow, o, plan, packing, numbers)
  local source = streams.keyed(o.seed, 0, numbers)
  local trajectory = o.trajectory and { state = {}, clean = {} }
  local state = { packing = packing }
  state.translations, state.rotations = flow:prior_state(packing, source, o.device)
  if trajectory then keep(trajectory.state, state.translations, state.rotations) end
  if o.self_condition and flow.kind == "protein" then
    state.trans_sc = mf.scope(function() return model(question(plan[1].t, state)).translations:detach() end)
  end
  for k, at in ipairs(plan) do
    source.step = k
    local x, r, clean, torsions = mf.scope(function()
      local prediction = model(question(at.t, state))
      if o.guidance then
        state.t, state.step = at.t, k
        prediction = o.guidance(prediction, state) or fail "sample: guidance must return a prediction"
      end
      local x, r = flow:step(state.translations, state.rotations, prediction, at, {
        packing = packing, source = source, noise_scale = o.noise_scale,
      })
      if trajectory then
        keep(trajectory.clean, prediction.translations, prediction.rotations, prediction.torsions)
        keep(trajectory.state, x, r, prediction.torsions)
      end
      return x, r, prediction.translations, prediction.torsions
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

--- Draws backbones.
-- @param model callable, from `noisy` to a prediction (see flow.se3)
-- @param flow from `mf.flow.se3`
-- @tparam table o see `defaults`
-- @treturn function an iterator over the number of a sample and its structure (module structure)
-- @usage for i, structure in mf.sample(model, flow, { length = 300, n = 8 }) do structure:save(("s_%d.pdb"):format(i)) end
function M.sample(model, flow, o)
  o = options("sample", M.defaults, o)
  local lengths, plan = check_lengths(o), flow:plan(o.steps, o.schedule)
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
      local state, trajectory = integrate(ask, flow, o, plan, packing, numbers)
      local list = {}
      for k, number in ipairs(numbers) do
        local first, count = packing:offset(k) + 1, pack[k]
        local frame = rows(state, first, count)
        frame.kind, frame.number, frame.seed, frame.name = flow.kind, number, o.seed, ("sample_%d"):format(number)
        if trajectory then
          frame.trajectory = { state = cut(trajectory.state, first, count), clean = cut(trajectory.clean, first, count) }
        end
        list[k] = structure.new(frame)
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
