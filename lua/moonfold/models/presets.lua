--- Presets: a published model with the flow, the batches, the training and the sampling that belong to it, one file each.
--
--     foldflow/base, foldflow/ot, foldflow/sfm, foldflow/small, foldflow/flash, foldflow/flash_all, rna_frameflow/base,
--     rna_frameflow/flash, rna_frameflow/flash_all, denoiser/base
--
-- A preset is a table of `kind` (the constructor in mf.models), `source` and the sections `model`, `flow`, `data`, `train`,
-- `sample`. One that `extends` another states what differs from it. Constructors take one by name: `mf.models.foldflow { preset =
-- "flash" }`; the training program does too: `preset=foldflow/flash`.
-- @module moonfold.models.presets
local fail = require "moonfold.fail"
local names = require "moonfold.models.names"
local options = require "moonfold.options"

local M = {}

local KNOWN = {
  "denoiser/base", "foldflow/base", "foldflow/flash", "foldflow/flash_all", "foldflow/ot", "foldflow/sfm", "foldflow/small",
  "rna_frameflow/base", "rna_frameflow/flash", "rna_frameflow/flash_all",
}
local SECTIONS = { "model", "flow", "data", "train", "sample" }

--- The names of all presets.
-- @treturn table
function M.names() return { unpack(KNOWN) } end

local function copy(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for key, inner in pairs(value) do result[key] = copy(inner) end
  return result
end

local function known(name)
  for _, other in ipairs(KNOWN) do if other == name then return true end end
  return false
end

--- A preset by its full name.
-- @tparam string name one of `names()`
-- @treturn ?table a copy, with `name`; nil where there is none
-- @treturn ?string why there is none
function M.find(name)
  if not known(name) then
    local near = type(name) == "string" and options.nearest(name, KNOWN)
    return nil, ("no preset '%s'%s (known: %s)"):format(tostring(name), near and (", did you mean '%s'?"):format(near) or "",
      table.concat(KNOWN, ", "))
  end
  local own = require("moonfold.models.presets." .. name:gsub("/", "_"))
  local preset = own.extends and M.find(own.extends) or { kind = own.kind }
  preset.name, preset.source = name, own.source
  for _, section in ipairs(SECTIONS) do
    preset[section] = preset[section] or {}
    for key, value in pairs(own[section] or {}) do preset[section][key] = copy(value) end
  end
  return preset
end

--- The same, where a name that is not known is an error.
-- @tparam string name
-- @treturn table
-- @usage local preset = mf.models.presets.load "rna_frameflow/flash"
--        local model = mf.models[preset.kind](preset.model)
function M.load(name)
  local preset, reason = M.find(name)
  return preset or fail("presets: %s", reason)
end

--- The options of a constructor: those of a preset over others.
-- @tparam string name of the preset
-- @tparam table inherited
-- @treturn table
function M.defaults(name, inherited)
  local result = {}
  for key, value in pairs(inherited) do result[key] = value end
  for key, value in pairs(M.load(name).model) do result[key] = value end
  return result
end

--- What a user gave to a constructor, over the preset that it names, in our names of options.
-- @tparam string kind the constructor
-- @tparam ?table o with `preset`, short ("base") or full ("foldflow/base")
-- @treturn ?table
function M.apply(kind, o)
  if type(o) ~= "table" then return o end
  local given = names.translate(kind, o)
  local name = given.preset
  if name == nil then return given end
  given.preset = nil
  if type(name) == "string" and not name:find("/", 1, true) then name = kind .. "/" .. name end
  local preset, reason = M.find(name)
  if not preset then fail("%s: %s", kind, reason) end
  if preset.kind ~= kind then fail("%s: preset %s is of models.%s", kind, name, preset.kind) end
  for key, value in pairs(preset.model) do if given[key] == nil then given[key] = value end end
  return given
end

return M
