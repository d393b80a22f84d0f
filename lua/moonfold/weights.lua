--- Weights that know their model: a safetensors file whose metadata say how to build the network and the flow.
--
--     mf.weights.metadata { model = { kind = "denoiser", node = 64 }, flow = { profile = "protein" } }  -- for the trainer
--     mf.weights.metadata(mf.weights.about(model, { profile = "rna" }))                                 -- of a model there is
--     local model, flow, about = mf.weights.open "runs/a/weights.safetensors"
--
-- What a file says names every option with its value, so that it builds the same network when a preset or a default has changed.
-- @module moonfold.weights
local mf = require "moonfold"
local archive = require "moonfold.archive"
local fail = require "moonfold.fail"
local json = require "moonfold.json"
local options = require "moonfold.options"

local M = {}

local KINDS = { "denoiser", "flash_ipa", "foldflow", "rna_frameflow" }

--- The metadata of a weights file.
-- @tparam table about `model`: `kind`, the name of a constructor in mf.models, and its options; `flow`: options of
--   mf.flow.se3; `preset`: the name of the one that they came from; anything else that JSON can hold
-- @treturn table of strings
function M.metadata(about)
  return { moonfold = json.encode(about) }
end

--- What `metadata` takes, of a model that is there.
-- @tparam table model made by a constructor in mf.models
-- @tparam ?table flow options of mf.flow.se3
-- @treturn table
-- @usage mf.save("w.safetensors", model:state(), mf.weights.metadata(mf.weights.about(model, { profile = "rna" })))
function M.about(model, flow)
  local about = { model = { kind = model._class }, flow = flow or {} }
  for key, value in pairs(model._options) do
    if key ~= "rng" then about.model[key] = value end
  end
  return about
end

local function constructor(kind)
  for _, known in ipairs(KINDS) do
    if kind == known then return mf.models[kind] end
  end
  local near = type(kind) == "string" and options.nearest(kind, KINDS)
  fail("weights: no model '%s'%s (known: %s)", tostring(kind), near and (", did you mean '%s'?"):format(near) or "",
    table.concat(KINDS, ", "))
end

--- Builds the network that `about.model` describes.
-- @tparam table about as for `metadata`; without `model.kind`, the model of `preset` with the options of `model` over it
-- @treturn model
-- @usage local model = mf.weights.build { preset = "foldflow/flash", model = { blocks = 2 } }
function M.build(about)
  local o, kind = {}, about.model and about.model.kind
  for key, value in pairs(about.model or {}) do if key ~= "kind" then o[key] = value end end
  if not kind and about.preset then
    kind, o.preset = mf.models.presets.load(about.preset).kind, about.preset
  end
  return constructor(kind)(o)
end

local function about_of(path, metadata)
  if not metadata.moonfold then fail("weights: %s does not say how to build its model", path) end
  return json.decode(metadata.moonfold)
end

--- What a weights file says of itself; its tensors are not read.
-- @tparam string path
-- @treturn table as for `metadata`
function M.about_file(path) return about_of(path, archive.archive(path):metadata()) end

--- Opens weights: builds the model, loads it by name, makes the flow.
-- @tparam string path
-- @treturn model
-- @treturn flow
-- @treturn table what the metadata say
function M.open(path)
  local tensors, metadata = archive.load(path)
  local about = about_of(path, metadata)
  local model = M.build(about)
  model:load(tensors)
  return model, mf.flow.se3(about.flow), about
end

return M
