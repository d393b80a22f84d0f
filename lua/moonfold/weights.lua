--- Weights that know their model: a safetensors file whose metadata say how to build the network and the flow.
--
--     mf.weights.metadata { model = { kind = "denoiser", node = 64 }, flow = { profile = "protein" } }  -- for the trainer
--     local model, flow, about = mf.weights.open "runs/a/weights.safetensors"
-- @module moonfold.weights
local mf = require "moonfold"
local archive = require "moonfold.archive"
local fail = require "moonfold.fail"
local json = require "moonfold.json"

local M = {}

--- The metadata of a weights file.
-- @tparam table about `model`: `kind`, the name of a constructor in mf.models, and its options; `flow`: options of
--   mf.flow.se3; anything else that JSON can hold
-- @treturn table of strings
function M.metadata(about)
  return { moonfold = json.encode(about) }
end

--- Builds the network that `about.model` describes.
-- @tparam table about as for `metadata`
-- @treturn model
function M.build(about)
  local o = {}
  for key, value in pairs(about.model) do if key ~= "kind" then o[key] = value end end
  return mf.models[about.model.kind](o)
end

--- Opens weights: builds the model, loads it by name, makes the flow.
-- @tparam string path
-- @treturn model
-- @treturn flow
-- @treturn table what the metadata say
function M.open(path)
  local tensors, metadata = archive.load(path)
  if not metadata.moonfold then fail("weights: %s does not say how to build its model", path) end
  local about = json.decode(metadata.moonfold)
  local model = M.build(about)
  model:load(tensors)
  return model, mf.flow.se3(about.flow), about
end

return M
