--- Checkpoints of the public models: which model it is, its weights under our names, what fits and what does not.
--
--     local c = mf.convert.read "foldflow-sfm.pth"
--     print(c)                                          --> foldflow, orig_2d_bias, 4 blocks: 282 tensors match
--     c:save "foldflow-sfm.safetensors"                 -- what mf.weights.open reads
--     c:save "again.pth"                                -- what PyTorch reads, under the public code's names
--     model:load(c.tensors, { strict = false })         -- a warm start
--
-- FoldFlow, RNA-FrameFlow and flash_ipa are recognised by their tensors, in PyTorch's .pth and .ckpt, in .npz and .safetensors. Of
-- FoldFlow-2, which Moonfold does not have, the weights alone are kept. What shapes cannot tell is the number of heads of the
-- sequence transformer: the checkpoint's configuration says, else it is 4, as in every published one.
-- @module moonfold.convert
local mf = require "moonfold"
local archive = require "moonfold.archive"
local config = require "moonfold.convert.config"
local json = require "moonfold.json"
local options = require "moonfold.options"
local pickle = require "moonfold.pickle"
local recognise = require "moonfold.convert.recognise"
local weights = require "moonfold.weights"
local zip = require "moonfold.zip"
local T = require "moonfold.types"
local fail = require "moonfold.fail"

local M = {}

local Checkpoint = {}
Checkpoint.__index = Checkpoint

-- ---- opening ----

local function first_bytes(path)
  local file, reason = io.open(path, "rb")
  if not file then fail("convert: %s", reason) end
  local head = file:read(9) or ""
  file:close()
  return head
end

local function is_npz(path)
  local entries, found = zip.open(path), false
  for _, name in ipairs(entries.names) do found = found or name:match "%.npy$" ~= nil end
  entries:close()
  return found
end

-- What stands in a file: a tree of tables and tensors, notes on types, the format's name, metadata.
local function open(path)
  local head = first_bytes(path)
  if head:sub(1, 2) == "PK" and is_npz(path) then return mf.numpy.load(path), {}, "npz", {} end
  if head:sub(9, 9) == "{" and head:sub(1, 2) ~= "PK" then
    local tensors, metadata = archive.load(path)
    return tensors, {}, "safetensors", metadata
  end
  local tree, notes = mf.torch.load(path)
  return tree, notes, "PyTorch", {}
end

local function is_plain(value) return type(value) == "table" and value ~= json.null and not pickle.is_inert(value) end

-- The weights' own table: under one of the keys that writers use, else the file itself.
local function weights_of(tree, path)
  if not is_plain(tree) then fail("convert: %s holds no table of weights", path) end
  for _, key in ipairs { "state_dict", "model" } do
    if is_plain(tree[key]) then return tree[key], key end
  end
  return tree
end

-- ---- names ----

-- DistributedDataParallel's module may stand anywhere before a name; the others are FoldFlow's.
local function without_wrappers(name)
  local parts = ("." .. name):gsub("%.module%f[.]", ""):gsub("%.vectorfield_network%f[.]", ""):sub(2)
  return (parts:gsub("^score_model%.", "vectorfield."))
end

-- Drops what stands before every name: Lightning's attribute, a compiled module.
local function without_prefix(names, prefix)
  for _, name in ipairs(names) do
    if name:sub(1, #prefix) ~= prefix then return names end
  end
  local short = {}
  for i, name in ipairs(names) do short[i] = name:sub(#prefix + 1) end
  return short
end

-- name -> tensor under our names; the list of { theirs, ours } in the file's order.
local function rename(tensors, order, path)
  local names = {}
  for i, name in ipairs(order) do names[i] = without_wrappers(name) end
  for _, prefix in ipairs { "model.", "_orig_mod.", "model." } do names = without_prefix(names, prefix) end
  local renamed, map = {}, {}
  for i, name in ipairs(order) do
    if renamed[names[i]] then fail("convert: %s: '%s' and another tensor both stand for '%s'", path, name, names[i]) end
    renamed[names[i]], map[i] = tensors[name], { name, names[i] }
  end
  return renamed, map
end

-- ---- the model ----

local function settings(tree)
  if not is_plain(tree) then return {} end
  local found = {}
  for _, key in ipairs { "conf", "hyper_parameters" } do
    if tree[key] ~= nil then found[key] = config.plain(tree[key]) end
  end
  for _, key in ipairs { "epoch", "step", "global_step", "pytorch-lightning_version" } do
    if type(tree[key]) == "number" or type(tree[key]) == "string" then found[key] = tree[key] end
  end
  return found
end

local function transformer_heads(kind, o, found, path)
  local heads = config.find(found, "seq_tfmr_num_heads") or 4
  local width = o.node + (kind == "foldflow" and o.skip or 0)
  if heads < 1 or width % heads ~= 0 then
    fail("convert: %s: its configuration says %g heads of the sequence transformer, which is %d wide", path, heads, width)
  end
  return heads
end

local function preset_of(kind, o)
  if kind == "flash_ipa" then return nil end
  return kind .. (o.mode == "orig_2d_bias" and "/base" or "/flash")
end

local function matched_names(c, report)
  local wrong = {}
  for _, name in ipairs(report.extra) do wrong[name] = true end
  for _, text in ipairs(report.mismatched) do wrong[text:match "^(%S+)"] = true end
  local names = {}
  for _, pair in ipairs(c.names) do
    if not wrong[pair[2]] then names[#names + 1] = pair[2] end
  end
  return names
end

-- A file of our own says itself what it is.
local function stated(metadata)
  local about = metadata.moonfold and json.decode(metadata.moonfold)
  return type(about) == "table" and type(about.model) == "table" and about or nil
end

--- Reads a checkpoint of a public model.
-- @tparam string path .pth, .pt, .ckpt, .npz or .safetensors; told by content
-- @treturn table `kind`; `options` of its constructor; `model`, which has the weights (nil for FoldFlow-2); `tensors` by our
--   names; `names`, a list of { theirs, ours }; `report` of lists `matched`, `missing`, `extra`, `mismatched`; `notes` on types;
--   `settings`, what stands beside the weights
-- @usage local c = mf.convert.read "rna_frameflow_public_weights.ckpt"
function M.read(path)
  if type(path) ~= "string" then T.bad_argument("convert.read", 1, "a path", path) end
  local tree, notes, format, metadata = open(path)
  local held, key = weights_of(tree, path)
  local flat, order = mf.torch.flatten(held)
  if #order == 0 then fail("convert: %s holds no tensors", path) end
  local c = setmetatable({ path = path, format = format, key = key, notes = notes, settings = settings(tree) }, Checkpoint)
  c.tensors, c.names = rename(flat, order, path)
  local about = stated(metadata)
  if about then
    c.kind, c.about, c.model = about.model.kind, about, weights.build(about)
  else
    c.kind, c.options = recognise(c.tensors, path)
    if not c.kind then
      fail("convert: %s is none of FoldFlow, FoldFlow-2, RNA-FrameFlow, flash_ipa: its first tensor is '%s'", path, order[1])
    end
    if c.kind == "foldflow2" then
      c.report = { matched = {}, missing = {}, extra = {}, mismatched = {} }
      return c
    end
    c.options.transformer_heads = transformer_heads(c.kind, c.options, c.settings, path)
    c.model = mf.models[c.kind](c.options)
    local preset = preset_of(c.kind, c.options)
    c.about = weights.about(c.model, preset and mf.models.presets.load(preset).flow)
    c.about.preset = preset
    c.about.source = { file = path:match "[^/]*$", settings = c.settings }
  end
  c.report = c.model:load(c.tensors, { strict = false })
  c.report.matched = matched_names(c, c.report)
  return c
end

function Checkpoint:__tostring()
  if self.kind == "foldflow2" then
    return ("%s: FoldFlow-2, which Moonfold does not have: %d tensors, weights only"):format(self.path, #self.names)
  end
  local o, r = self.model._options, self.report
  local text = "%s: %s, %s, %d blocks: %d tensors match, %d are missing, %d unknown, %d of another shape"
  return text:format(self.path, self.kind, o.mode, o.blocks, #r.matched, #r.missing, #r.extra, #r.mismatched)
end

-- ---- writing ----

-- How the public programs keep each model.
local layouts = {
  foldflow = { key = "model", prefix = "" }, foldflow2 = { key = "state_dict", prefix = "vectorfield_network." },
  rna_frameflow = { key = "state_dict", prefix = "model." }, flash_ipa = { prefix = "" },
}

local function kept(c)
  if c.kind == "foldflow2" then return c.tensors end
  if #c.report.missing > 0 or #c.report.mismatched > 0 then
    fail("convert: %s lacks tensors of its model and is not written: %s", c.path, c.report.missing[1] or c.report.mismatched[1])
  end
  local tensors = {}
  for _, name in ipairs(c.report.matched) do tensors[name] = c.tensors[name] end
  return tensors
end

local writers = {}

function writers.safetensors(c, path, tensors)
  local metadata = c.about and weights.metadata(c.about) or { model = c.kind }
  metadata.format = "pt"           -- what other programs ask for
  archive.save(path, tensors, metadata)
end

function writers.npz(_, path, tensors) mf.numpy.save(path, tensors) end

function writers.torch(c, path, tensors)
  local layout = layouts[c.kind] or { prefix = "" }
  local state = {}
  for name, x in pairs(tensors) do state[layout.prefix .. name] = x end
  mf.torch.save(path, layout.key and { [layout.key] = state } or state)
end

local endings = { safetensors = "safetensors", npz = "npz", pth = "torch", pt = "torch", ckpt = "torch" }
local save_defaults = { to = options.OPTIONAL, type = options.OPTIONAL }
local TYPES = { float32 = true, float16 = true, bfloat16 = true, float64 = true }

-- Floating tensors in another type; what does not fit into it (float16 ends at 65504) is an error.
local function of_type(tensors, dtype, path)
  local result = {}
  for name, x in pairs(tensors) do
    if x:dtype():find "float" then
      local y = x:to(dtype)
      if y:to("float64"):abs():max():item() == math.huge and x:to("float64"):abs():max():item() < math.huge then
        fail("convert: %s: %s has values that %s cannot hold; nothing is written", path, name, dtype)
      end
      x = y
    end
    result[name] = x
  end
  return result
end

--- Writes what matched: as safetensors for `mf.weights.open`, as .npz, or for PyTorch under the public code's names.
-- Unknown tensors are left out; a model that lacks some is not written.
-- @tparam string path
-- @tparam ?table o `to`: "safetensors", "npz" or "torch", by default the name tells; `type`: "float16", "bfloat16", "float32" or
--   "float64" for floating tensors, by default each keeps its own. A model takes weights of any of them.
-- @treturn number how many tensors were written
-- @usage mf.convert.read("foldflow-sfm.pth"):save "foldflow-sfm.safetensors"
function Checkpoint:save(path, o)
  o = options("convert.save", save_defaults, o)
  if type(path) ~= "string" then T.bad_argument("convert.save", 1, "a path", path) end
  local to = o.to or endings[path:match "%.(%w+)$" or ""]
  if not writers[to] then
    fail("convert: what to write as '%s'? Its name ends in none of .safetensors, .npz, .pth, .pt, .ckpt, and to is '%s'", path,
      tostring(o.to))
  end
  if o.type and not TYPES[o.type] then
    fail("convert: type '%s' (known: %s)", tostring(o.type), table.concat(options.sorted_keys(TYPES), ", "))
  end
  local tensors, count = kept(self), 0
  if o.type then tensors = of_type(tensors, o.type, self.path) end
  for _ in pairs(tensors) do count = count + 1 end
  writers[to](self, path, tensors)
  return count
end

return M
