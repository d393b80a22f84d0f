--- The work of a training step on one noisy batch: prediction, loss, gradients, update. On a GPU it is captured where shapes recur.
--
--     local learner = require "moonfold.learner" { model = model, flow = flow, optimizer = optimizer }
--     local noisy = flow:corrupt(batch)
--     flow:self_condition(learner.predict, noisy)
--     local values, names, norm = learner.learn(noisy)
--
-- @module moonfold.learner
local mf = require "moonfold"
local F = require "moonfold.ffi"
local capture = require "moonfold.capture"
local options = require "moonfold.options"

local REQUIRED, OPTIONAL = options.REQUIRED, options.OPTIONAL

local defaults = {
  model = REQUIRED, flow = REQUIRED, optimizer = REQUIRED,
  average = OPTIONAL,        -- from mf.optim.ema, updated after each step
  graph = true,              -- on a GPU: capture steps whose shapes recur (mf.graph)
}

-- Above this launches cost nothing beside the work, and a captured step would hold its memory twice.
local MOST_CAPTURED = 32768   -- residues

-- Loss, backward and update: the loss and the terms of each sequence in one tensor, the names of the terms, the gradient's norm.
local function learn(o, noisy, check)
  local loss, terms = o.flow:loss(o.model(noisy), noisy)
  if check and not capture.active() then check(loss:item()) end
  local names, values = {}, { loss:detach():reshape(1) }
  for _, name in ipairs(options.sorted_keys(terms)) do
    if name ~= "total" then
      names[#names + 1], values[#values + 1] = name, terms[name]
    end
  end
  local norm = o.optimizer:step(loss)
  if o.average then o.average:update() end
  return mf.cat(values, 1), names, norm
end

-- What a graph may be given of a noisy batch: its tensors. Times, names and numbers stay behind.
local function tensors_of(noisy)
  local result = { packing = noisy.packing, targets = noisy.targets }
  for key, value in pairs(noisy) do
    if F.is_tensor(value) then result[key] = value end
  end
  return result
end

local function on_gpu(noisy) return noisy.translations:device():sub(1, 4) == "cuda" end

--- The step of a model.
-- @tparam table o `model`, `flow`, `optimizer`; `average`, a running average to update after each step; `graph` (true) false:
--   capture nothing
-- @treturn table functions: `learn(noisy, check)` returns a tensor (the loss, then the terms of each sequence, term by term), the
--   terms' names and the gradient's norm, and calls `check(loss)` before anything is changed where the host may look;
--   `predict(noisy)` returns a table with `translations`; `captures(noisy)` tells whether a second step of its shapes is
--   captured; `release()` forgets what was
return function(o)
  o = options("learner", defaults, o)
  local asked       -- by the call of learn that is under way: no argument of a graph
  local step = mf.graph(function(noisy) return learn(o, noisy, asked) end)
  local predict = mf.graph(function(noisy) return { translations = o.model(noisy).translations } end)
  local function captures(noisy) return o.graph and on_gpu(noisy) and noisy.packing:total() <= MOST_CAPTURED end
  return {
    captures = captures,
    learn = function(noisy, check)
      -- the same work with a graph as without, so that it changes no bit
      local inputs = on_gpu(noisy) and tensors_of(noisy) or noisy
      asked = check
      if captures(noisy) then return step(inputs) end
      return learn(o, inputs, check)
    end,
    predict = function(noisy)
      if captures(noisy) then return predict(tensors_of(noisy)) end
      return o.model(noisy)
    end,
    release = function()
      step:release()
      predict:release()
    end,
  }
end
