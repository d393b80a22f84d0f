--- What a training program takes from a preset and what its command line may change: every number of the model and of the flow,
-- the batches and the optimizer.
--
--     local preset = recipe.preset(arg)                      -- preset=foldflow/base, that of the run that is resumed, or of init
--     local o = command.parse(arg, recipe.program(preset))
--     local about = recipe.about(preset, o, set.kind)        -- for mf.weights.build and the metadata of the weights
--     recipe.freeze(o, model); recipe.optimizer(o, model)    -- what is trained, at which rates
-- @module moonfold.recipe
local mf = require "moonfold"
local command = require "moonfold.command"
local fail = require "moonfold.fail"
local files = require "moonfold.files"
local json = require "moonfold.json"
local options = require "moonfold.options"
local partners = require "moonfold.flow.partners"
local presets = require "moonfold.models.presets"
local rules = require "moonfold.data.rules"

local M = {}

local OPTIONAL = options.OPTIONAL

-- A row without a default of its own has the preset's.
local TRAINING = {
  { "data", "path", command.REQUIRED, "data set" },
  { "out", "path", "runs/train", "folder of the run" },
  { "resume", "path", OPTIONAL, "folder of a run to go on with, its options included" },
  { "init", "path", OPTIONAL, "weights or public checkpoint to begin with; without preset= its model and flow too" },
  { "freeze", "words", OPTIONAL, "do not train parameters whose names match one of these Lua patterns: ^embedding_layer,ipa_0" },
  { "groups", "words", OPTIONAL, "learning rates of parameters whose names match, the first that does: torsion_pred:1e-3" },
  { "steps", "integer", nil, "optimizer steps in all" },
  { "minutes", "number", nil, "stop after so long, with a checkpoint" },
  { "epochs", "integer", nil, "stop after so many passes over the data" },
  { "residues", "integer", nil, "residue budget of a batch of mixed lengths, in the place of a rule" },
  { "rule", "string", nil, "how many examples of one length make a batch: protein-ipa, protein-flash, rna-ipa, rna-flash" },
  { "mode", "string", nil, "of batches: packed (mixed lengths), bucketed (neighbouring), lengths (of one), copies (of one entry)" },
  { "budget", "number", nil, "of the rule, in the place of its own" },
  { "cap", "integer", nil, "of the rule: most examples in a batch" },
  { "clusters", "boolean", false, "each epoch one entry of each cluster" },
  { "split", "string", nil, "take entries of this split alone" },
  { "max_resolution", "number", nil, "leave out entries that are resolved worse, or not known how well, angstrom" },
  { "shortest", "integer", nil, "leave out shorter entries" },
  { "longest", "integer", nil, "leave out longer entries; 0: none is too long" },
  { "crop", "integer", nil, "train on windows of so many residues of longer entries" },
  { "prefetch", "integer", 2, "batches that are read while a step runs, 0 for none" },
  { "seed", "integer", 123, "of weights, batches and noise" },
  { "device", "string", "cpu", "where tensors live" },
  { "threads", "integer", 0, "CPU threads, 0 for all cores" },
  { "precision", "string", "float32", "of attention: float32, tf32, fp16, bf16, split" },
  { "products", "string", nil, "of matrices: float32, tf32, bf16; by default tf32 on a GPU, float32 elsewhere" },
  { "optimizer", "string", "adamw", "adamw or adam" },
  { "lr", "number", 1e-4, "learning rate" },
  { "warmup", "integer", 0, "steps over which it rises" },
  { "decay", "string", "none", "or cosine" },
  { "weight_decay", "number", 0.01, "of the optimizer" },
  { "clip", "number", 1, "global gradient norm, 0 for none" },
  { "ema", "number", 0, "decay of the running average of weights, 0 for none" },
  { "checkpoint_every", "integer", 1000, "steps between checkpoints" },
  { "log_every", "integer", 100, "steps of a row of loss_by_time" },
}

local FLOW = {
  { "ot", "string", "coupling: none, kabsch, squared, sinkhorn" },
  { "ot_group", "integer", "examples matched together by squared and sinkhorn" },
  { "ot_regularisation", "number", "of sinkhorn" },
  { "prior", "string", "rotation noise in training: uniform or igso3" },
  { "sigma", "number", "of igso3" },
  { "stochastic", "boolean", "noise along the path" },
  { "g", "number", "its size" },
  { "sigma_min", "number", "its least" },
  { "noise_scale", "number", "sampling: share of it that is injected" },
  { "rotation", "string", "sampling: angles shrink by exp or linear" },
  { "rate", "number", "of exp" },
  { "self_condition", "number", "probability, once a step" },
  { "motif", "number", "probability that spans of an example are held fixed" },
  { "separate_rotation", "boolean", "proteins: axis and angle terms instead of one" },
  { "rotation_scaling", "number", "proteins: a constant instead of 1 / max(t, 0.01)" },
  { "x0_threshold", "number", "proteins: up to this t the translation term is of positions" },
  { "angle_gate", "number", "proteins: the angle term acts above this t" },
  { "time_floor", "number", "proteins: losses below this t count as at it; short runs learn faster" },
  { "loss_atoms", "integer", "RNA: 0, 3 or 7 atoms beside the frame's own" },
  { "gate", "number", "time where the terms of atoms begin, by default the profile's" },
  { "time_bins", "integer", "of the log" },
  { "compat", "boolean", "losses as the original programs compute them" },
}

local MODEL = {
  { "mode", "string", "pairs: flash_1d_bias, orig_2d_bias (dense), or another of models.flash_ipa" },
  { "node", "integer", "node channels" },
  { "edge", "integer", "pair channels" },
  { "hidden", "integer", "scalar channels a head" },
  { "heads", "integer", "attention heads" },
  { "query_points", "integer", "query and key points a head" },
  { "value_points", "integer", "value points a head" },
  { "rank", "integer", "rank of the pair factors" },
  { "blocks", "integer", "trunk blocks" },
  { "neighbours", "integer", "nearest residues in the pair features" },
  { "skip", "integer", "channels of the first nodes beside those of each block" },
  { "position", "integer", "width of the position embedding" },
  { "time", "integer", "width of the time embedding" },
  { "time_scale", "number", "its scale" },
  { "feat", "integer", "width of the pair features" },
  { "bins", "integer", "of distances" },
  { "min_bin", "number", "edge of the first, angstrom" },
  { "max_bin", "number", "edge of the last, angstrom" },
  { "self_condition", "boolean", "distances of the last prediction in the pairs" },
  { "max_len", "integer", "longest sequence of mode flash_2d_factorize_bias" },
  { "transformer_heads", "integer", "heads of the sequence transformer" },
  { "transformer_layers", "integer", "its layers" },
  { "rotary", "boolean", "attention knows offsets along the chain: queries and keys turned by their residue's index" },
  { "gauge", "string", "of attention: canonical, centred, none" },
  { "layout", "string", "of attention's columns: 3p or published" },
  { "precision", "string", "of attention, where it differs from the run's" },
  { "split_type", "string", "of precision split: fp16 or bf16" },
  { "checkpoint", "boolean", "recompute blocks in backward; by default but for attention, from 4096 residues on" },
  { "factor_init", "string", "how pair factors begin: alike, or published (dead after the first block)" },
  { "compat", "boolean", "masks as the original programs apply them" },
}

-- Rows "prefix.key" for the options that exist, with the preset's value, else the option's own default.
local function rows_of(prefix, list, given, defaults, into)
  for _, row in ipairs(list) do
    local key = row[1]
    if defaults[key] ~= nil then
      local value = given[key]
      if value == nil then value = defaults[key] end
      into[#into + 1] = { prefix .. key, row[2], value, row[3] }
    end
  end
end

--- The command line of a training program.
-- @tparam table preset from `presets.load`
-- @treturn table for command.parse
function M.program(preset)
  local program = {
    name = "train", summary = "trains a backbone generator on a data set made by prepare.",
    { "preset", "string", preset.name, "published model and training: " .. table.concat(presets.names(), ", ") },
  }
  for _, row in ipairs(TRAINING) do
    local key, value = row[1], row[3]
    -- residues and rule exclude each other, so neither may come from the preset before it is known what the user wants
    if key ~= "residues" and key ~= "rule" and key ~= "mode" then
      for _, section in ipairs { "train", "data" } do
        if preset[section][key] ~= nil then value = preset[section][key] end
      end
    end
    local help = row[4]
    if value == nil then
      value = OPTIONAL
      if preset.data[key] then help = ("%s; by default %s"):format(help, preset.data[key]) end
    end
    program[#program + 1] = { key, row[2], value, help }
  end
  rows_of("flow.", FLOW, preset.flow, mf.flow.defaults, program)
  local profiles = require "moonfold.flow.profile"
  local kind, weights = preset.flow.profile, {}
  for _, profile in pairs(kind and { profiles[kind] } or { profiles.protein, profiles.rna }) do
    for term in pairs(profile.weights) do weights[term] = true end
  end
  for _, term in ipairs(options.sorted_keys(weights)) do
    program[#program + 1] = { "flow.weights." .. term, "number", (preset.flow.weights or {})[term] or OPTIONAL,
      ("weight of the loss term %s, by default the profile's"):format(term) }
  end
  rows_of("model.", MODEL, preset.model, mf.models[preset.kind].defaults, program)
  return program
end

-- The preset that a saved run names; one from before there were presets has the plain denoiser.
local function saved_name(path)
  local text = files.read(path)
  local ok, saved = pcall(json.decode, text or "")
  return ok and type(saved) == "table" and saved.preset or nil
end

local function is_own(path) return path:match "%.safetensors$" ~= nil end

-- The preset that weights name, with what they say of their model and flow in the place of the preset's own.
local function of_weights(path)
  local about = is_own(path) and require("moonfold.weights").about_file(path) or mf.convert.read(path).about
  if not about then return nil, ("init=%s: Moonfold has no such model"):format(path) end
  local preset, reason = presets.find(about.preset or about.model.kind .. "/base")
  if not preset then return nil, ("init=%s: %s"):format(path, reason) end
  for _, section in ipairs { "model", "flow" } do
    for key, value in pairs(about[section] or {}) do
      if key ~= "kind" and key ~= "torsions" and key ~= "profile" then preset[section][key] = value end
    end
  end
  return preset
end

--- The preset that a command line asks for.
-- @tparam table words as in `arg`, with config=FILE for a run that is resumed
-- @treturn ?table nil where there is none of that name
-- @treturn ?string why
function M.preset(words)
  local name, init
  for _, word in ipairs(words) do
    local path = word:match "^config=(.+)$"
    name = path and saved_name(path) or name
  end
  for _, word in ipairs(words) do
    name = word:match "^preset=(.*)$" or name
    init = word:match "^init=(.+)$" or init
  end
  if init and not name then return of_weights(init) end
  return presets.find(name or "denoiser/base")
end

--- How to build the model and the flow: what the weights will say of themselves.
-- @tparam table preset
-- @tparam table o from command.parse
-- @tparam string kind of the data set, "protein" or "rna"
-- @treturn table for mf.weights.build and mf.weights.metadata; its `flow` for mf.flow.se3
function M.about(preset, o, kind)
  local profile = preset.flow.profile
  if profile and profile ~= kind then fail("preset %s is for %s, the data set holds %s", preset.name, profile, kind) end
  local about = {
    preset = preset.name, model = { kind = preset.kind }, flow = { profile = kind }, sample = preset.sample,
  }
  for key, value in pairs(o.model) do about.model[key] = value end
  for key, value in pairs(o.flow) do about.flow[key] = value end
  if about.flow.weights and not next(about.flow.weights) then about.flow.weights = nil end
  if mf.models[preset.kind].defaults.torsions then about.model.torsions = kind end
  return about
end

-- A named rule with what was asked of it changed.
local function rule_of(o)
  local named = rules.named[o.rule]
  if not named or not (o.budget or o.cap) then return o.rule end       -- the rules themselves refuse a name
  local rule = {}
  for key, value in pairs(named) do rule[key] = value end
  rule.budget, rule.cap = o.budget or rule.budget, o.cap or rule.cap
  return rule
end

--- The batches of a run; what the preset says of them is written into `o`.
-- @tparam table preset
-- @tparam table o from command.parse
-- @tparam Set set
-- @treturn Batches
function M.batches(preset, o, set)
  if o.residues and o.rule then fail("residues (mixed lengths) and rule (one length) exclude each other") end
  if not o.residues and not o.rule then
    o.residues, o.rule, o.mode = preset.data.residues, preset.data.rule, o.mode or preset.data.mode
  end
  local view = set:view {
    split = o.split, min_length = o.shortest, max_length = o.longest ~= 0 and o.longest or nil, max_resolution = o.max_resolution,
  }
  local batches = view:batches {
    residues = o.residues, rule = rule_of(o), mode = o.mode, clusters = o.clusters, epochs = o.epochs, crop = o.crop,
    seed = o.seed, device = o.device, prefetch = o.prefetch,
  }
  local coupled = o.flow and (o.flow.ot == "squared" or o.flow.ot == "sinkhorn")
  if batches.mode == "copies" and coupled then return partners(batches, o.flow.ot_group) end
  return batches
end

--- Takes over weights to begin with: values go to the parameters of the same name and shape, the others stay as they were made.
-- @tparam string path safetensors, or a public checkpoint as mf.convert.read takes it
-- @tparam table model
-- @treturn table the report of `model:load`, with `path`; it prints as a few lines
function M.warm_start(path, model)
  local tensors = is_own(path) and mf.load(path) or mf.convert.read(path).tensors
  local report = model:load(tensors, { strict = false })
  if report.loaded == 0 then fail("init: %s has no tensor of the name and shape of one of the model's", path) end
  report.path = path
  return setmetatable(report, { __tostring = function(r)
    local lines = { ("init: %d tensors of %s"):format(r.loaded, r.path) }
    for _, part in ipairs {
      { "missing", "missing, left as they were made" }, { "mismatched", "of another shape, left as they were made" },
      { "extra", "in the file alone, not used" },
    } do
      local list = r[part[1]]
      if #list > 0 then lines[#lines + 1] = ("  %d %s: %s"):format(#list, part[2], table.concat(list, ", ")) end
    end
    return table.concat(lines, "\n")
  end })
end

--- Freezes what the patterns of a command line name. Layers that do nothing stay frozen whatever they say.
-- @tparam table o from command.parse
-- @tparam table model
function M.freeze(o, model)
  for _, pattern in ipairs(o.freeze or {}) do
    if model:freeze(pattern) == 0 then fail("freeze: no parameter of the model matches '%s'", pattern) end
  end
end

-- Parameters by the first pattern that their names match, and the others.
local function groups_of(o, model)
  if not o.groups then return model:parameters() end
  local groups, rest = {}, {}
  for i, word in ipairs(o.groups) do
    local pattern, rate = word:match "^(.+):([^:]+)$"
    if not tonumber(rate) then fail("groups: '%s' is not pattern:rate, as in torsion_pred:1e-3", word) end
    groups[i] = { params = {}, lr = tonumber(rate), pattern = pattern }
  end
  for _, entry in ipairs(model:named_parameters()) do
    local into = rest
    for _, group in ipairs(groups) do
      if entry[1]:find(group.pattern) then into = group.params; break end
    end
    into[#into + 1] = entry[2]
  end
  for i, group in ipairs(groups) do
    if #group.params == 0 then
      fail("groups: no parameter that is trained and not in an earlier group matches '%s'", group.pattern)
    end
    groups[i] = { params = group.params, lr = group.lr }
  end
  if #rest > 0 then groups[#groups + 1] = { params = rest } end
  return groups
end

--- The optimizer of a run: of the parameters that take gradients, in the groups of the command line. A schedule changes all rates
-- by the same factor.
-- @tparam table o from command.parse
-- @tparam table model
-- @treturn optimizer
function M.optimizer(o, model)
  local make = (o.optimizer == "adam" or o.optimizer == "adamw") and mf.optim[o.optimizer]
    or fail("optimizer '%s' (known: adam, adamw)", o.optimizer)
  return make(groups_of(o, model), { lr = o.lr, weight_decay = o.weight_decay, clip = o.clip > 0 and o.clip or nil })
end

return M
