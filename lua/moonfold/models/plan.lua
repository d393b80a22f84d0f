--- What a model would take before there is a machine that has it: bytes of sampling and of a training step.
--
-- A copy of the network, with tensors of the "null" device, is run: operators compute shapes and count bytes, and nothing else.
-- Counted is every tensor that is alive at once; what kernels of a GPU use besides while they run is not, nor is a second copy
-- of the inputs where steps are captured (mf.graph). How long it would take depends on the machine and is not told.
-- @module moonfold.models.plan
local mf = require "moonfold"
local fail = require "moonfold.fail"
local options = require "moonfold.options"
local tree = require "moonfold.nn.tree"
local words = require "moonfold.words"

local defaults = {
  length = options.REQUIRED,     -- residues of each sequence, or a list of lengths
  batch = 1,                     -- sequences of that length
  train = true,                  -- also a training step
  optimizer = "adamw",           -- of mf.optim
  flow = options.OPTIONAL,       -- whose losses a training step has; without one, squares of the outputs
}

-- The tables of a model once more, with tensors that have no values; what is one table or tensor here is one there.
local function twin(value, made)
  if tree.is_tensor(value) then
    if not made[value:id()] then
      local x = mf.empty(value:shape(), { dtype = value:dtype(), device = "null" }):keep()
      made[value:id()] = value:requires_grad() and x:require_grad() or x
    end
    return made[value:id()]
  end
  if type(value) ~= "table" then return value end
  if not made[value] then
    local result = setmetatable({}, getmetatable(value))
    made[value] = result
    for key, inner in pairs(value) do rawset(result, key, key == "_options" and inner or twin(inner, made)) end
  end
  return made[value]
end

local function lengths_of(o)
  local list = type(o.length) == "table" and o.length or {}
  if type(o.length) == "number" then
    for i = 1, o.batch do list[i] = o.length end
  end
  if #list == 0 then
    fail("plan: length is %s and batch %s, expected residues and sequences", tostring(o.length), tostring(o.batch))
  end
  return list
end

-- A batch as flow:corrupt makes it, at times that lie inside every gate; torsions come when it is known how many.
local function batch_of(lengths, flow)
  local packing, times = mf.packing(lengths), {}
  local n, on = packing:total(), { device = "null" }
  for i = 1, #lengths do times[i] = flow and flow.kind == "protein" and flow.gate / 2 or 1 - 1e-3 end
  local function points() return mf.empty(n, 3, on) end
  local function rotations() return mf.empty(n, 3, 3, on) end
  local targets = { translations = points(), rotations = rotations(), noise = points(), noise_rotations = rotations() }
  return {
    t = mf.tensor(times, on), times = times, packing = packing, translations = points(), rotations = rotations(),
    trans_sc = points(), loss_mask = mf.empty(n, { device = "null", dtype = "bool" }), targets = targets,
  }
end

local function squares(out)
  local loss = out.translations:square():sum() + out.rotations:square():sum()
  if out.torsions then loss = loss + out.torsions:square():sum() end
  return loss
end

local Plan = {}
Plan.__index = Plan

function Plan:__tostring()
  local text = ("%d residues in %d sequence%s: parameters %s, sampling %s"):format(self.residues, self.sequences,
    self.sequences == 1 and "" or "s", words.bytes(self.parameters), words.bytes(self.sampling))
  if not self.training then return text end
  return ("%s, training %s (optimizer %s of it)"):format(text, words.bytes(self.training), words.bytes(self.optimizer))
end

-- The most that is alive while fn runs, `before` not counted.
local function peak(before, fn)
  collectgarbage()
  collectgarbage()
  mf.reset_peak "null"
  mf.scope(fn)
  return mf.memory("null").peak - before
end

local function measure(self, o, lengths)
  local before = mf.memory("null").live
  local function held() return mf.memory("null").live - before end
  local model = twin(self, {})
  local plan = setmetatable({ parameters = held(), sequences = #lengths }, Plan)
  local batch, torsions = batch_of(lengths, o.flow), nil
  plan.residues = batch.packing:total()
  plan.sampling = peak(before, function()
    local out = mf.no_grad(model, batch)
    torsions = out.torsions and out.torsions:size(2)
  end)
  if not o.train then return plan end
  local make = type(o.optimizer) == "string" and mf.optim[o.optimizer]
    or fail("plan: optimizer is %s, expected the name of one in mf.optim", tostring(o.optimizer))
  if torsions then
    batch.targets.torsions = mf.empty(plan.residues, torsions, 2, { device = "null" })
    batch.targets.torsion_mask = mf.empty(plan.residues, torsions, { device = "null", dtype = "bool" })
  end
  plan.inputs = held() - plan.parameters
  local optimizer = make(model:parameters(), { lr = 1e-4, clip = 1 })
  plan.optimizer = held() - plan.parameters - plan.inputs
  local function step()
    local answer = model(batch)
    optimizer:step(o.flow and o.flow:loss(answer, batch) or squares(answer))
  end
  plan.training = peak(before, step)
  return plan
end

--- What sampling and training would hold.
-- @tparam table self the model; it is not touched
-- @tparam table o `length` residues, a number or a list; `batch` (1) sequences of that length; `train` (true) false: sampling
--   alone; `optimizer` ("adamw"), a name in mf.optim; `flow`, whose losses the step has (squares of the outputs without)
-- @treturn table bytes: `parameters`; `sampling`, the peak of one evaluation, parameters and inputs included; and of a training
--   step `training`, its peak with everything included, `optimizer`, `inputs`; `residues`, `sequences`; prints as a line
-- @usage print(mf.models.rna_frameflow { preset = "flash" }:plan { length = 4096 })
return function(self, o)
  o = options("plan", defaults, o)
  local lengths = lengths_of(o)
  local plan = measure(self, o, lengths)
  collectgarbage()
  collectgarbage()
  return plan
end
