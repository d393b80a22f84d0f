--- Checkpoints of PyTorch, read and written without it.
--
--     local c, notes = mf.torch.load "foldflow.pth"        -- what was saved: tables, tensors, numbers, texts
--     model:load(c.model)
--     mf.torch.save("ours.pth", { model = model:state(), step = 100 })     -- torch.load("ours.pth") reads it
--
-- A checkpoint is a ZIP archive: `data.pkl`, a pickle that names its tensors' storages, and one entry for each storage. The
-- pickle is read as data (moonfold.pickle): classes that are not on a short list (moonfold.torch.rules) stay inert and nothing
-- is ever executed. Tensors come as copies on the CPU, views row-major; None is `json.null`.
-- @module moonfold.torch
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local json = require "moonfold.json"
local pickle = require "moonfold.pickle"
local pickle_write = require "moonfold.pickle_write"
local zip = require "moonfold.zip"
local rules = require "moonfold.torch.rules"
local types = require "moonfold.torch.types"
local fail = require "moonfold.fail"

local M = {}

--- Is a value a part of a checkpoint that was left as data: a class that is not on the list?
-- @treturn boolean
M.is_inert = pickle.is_inert

-- ---- reading ----

local function refuse_other_formats(path)
  local file, reason = io.open(path, "rb")
  if not file then fail("torch.load: %s", reason) end
  local head = file:read(262) or ""
  file:close()
  if head:sub(1, 2) == "PK" then return end
  if head:sub(1, 1) == "\128" or head:sub(258, 262) == "ustar" then
    fail("torch.load: '%s' is of PyTorch's format before 1.6, which is not read: load and save it again with a newer PyTorch", path)
  end
  fail("torch.load: '%s' is not a checkpoint of PyTorch: it is no ZIP archive", path)
end

-- The folder that the archive's entries stand in.
local function root_of(archive)
  local root
  for _, name in ipairs(archive.names) do
    local folder = name:match "^(.*/)data%.pkl$" or name == "data.pkl" and ""
    if folder and root then fail("torch.load: '%s' holds two checkpoints, in '%s' and '%s'", archive.path, root, folder) end
    root = folder or root
  end
  if not root then fail("torch.load: '%s' is a ZIP archive without data.pkl: not a checkpoint of PyTorch", archive.path) end
  if archive.index[root .. "constants.pkl"] then
    fail("torch.load: '%s' is a TorchScript program, not a checkpoint: save its state_dict() instead", archive.path)
  end
  return root
end

-- Storages and bytes may be shared, and are copied; this much more than the file holds is no checkpoint.
local MOST_COPIES, ROOM = 16, 2 ^ 26

local function opener(archive, root, notes)
  local total, made, seen = 0, 0, {}
  for _, name in ipairs(archive.names) do total = total + archive:size(name) end
  local open = { path = archive.path }
  open.big_endian = archive.index[root .. "byteorder"] and archive:read(root .. "byteorder") == "big" or false

  function open.note(text, ...)
    text = text:format(...)
    if not seen[text] then
      seen[text] = { text = text, count = 0 }
      notes[#notes + 1] = seen[text]
    end
    seen[text].count = seen[text].count + 1
  end

  function open.storage(payload)
    local kind, class, key, _, numel = unpack(type(payload) == "table" and payload or {}, 1, 5)
    if kind ~= "storage" or not pickle.is_inert(class) or type(key) ~= "string" or type(numel) ~= "number" then
      fail("torch.load: '%s': a reference to something that is no storage", archive.path)
    end
    local dtype = types.storages[class.class]
    if not dtype then fail("torch.load: '%s': a storage of class %s", archive.path, class.class) end
    local entry = root .. "data/" .. key
    if not archive.index[entry] then fail("torch.load: '%s': storage '%s' is missing", archive.path, key) end
    local width = dtype == "bytes" and 1 or types.layouts[dtype] and types.layouts[dtype].width
    if width and numel * width ~= archive:size(entry) then
      fail("torch.load: '%s': storage '%s' has %.0f bytes, expected %.0f elements of %d", archive.path, key, archive:size(entry),
        numel, width)
    end
    return rules.storage { entry = entry, dtype = dtype }
  end

  function open.spend(bytes)
    made = made + bytes
    if made > MOST_COPIES * total + ROOM then
      fail("torch.load: '%s': its tensors are more than %d times the file: refused", archive.path, MOST_COPIES)
    end
  end

  function open.tensor(storage, layout)
    local bytes = layout.width
    for _, n in ipairs(layout.shape) do bytes = bytes * n end
    open.spend(bytes)
    return archive:tensor(storage.entry, layout)
  end

  return open
end

--- Reads a checkpoint that torch.save wrote (.pth, .pt, Lightning's .ckpt).
-- @tparam string path
-- @return what was saved: dictionaries and lists are tables, tensors tensors; objects of classes that are not on the list are
--   inert (`{ class, args, state }`)
-- @treturn table notes: `{ text, count }` for each kind of element type that was widened or kept as it was
-- @usage local checkpoint = mf.torch.load "weights.pth"
function M.load(path)
  if type(path) ~= "string" then T.bad_argument("torch.load", 1, "a path", path) end
  refuse_other_formats(path)
  local archive, notes = zip.open(path), {}
  local root = root_of(archive)
  local value = pickle.load(archive:read(root .. "data.pkl"), path, rules.new(opener(archive, root, notes)))
  archive:close()
  return value, notes
end

-- ---- writing ----

local ALIGNMENT = 64

local function tensor_writer(parts)
  local keys, stored = {}, 0
  return function(x, path)
    if not F.is_tensor(x) then return nil end
    local class = types.classes[x:dtype()] or fail("torch.save: %s is %s, which PyTorch lacks", path, x:dtype())
    local key = keys[x:id()]
    if not key then
      key, stored = tostring(stored), stored + 1
      keys[x:id()] = key
      parts[#parts + 1] = { name = "archive/data/" .. key, tensor = x }
    end
    local shape, stride, at = x:shape(), {}, 1
    for d = #shape, 1, -1 do
      stride[d] = pickle_write.integer(at)
      at = at * math.max(shape[d], 1)
    end
    for d = 1, #shape do shape[d] = pickle_write.integer(shape[d]) end
    local storage = pickle_write.tuple {
      pickle_write.text "storage", pickle_write.global("torch", class), pickle_write.text(key), pickle_write.text "cpu",
      pickle_write.integer(x:count()),
    } .. "Q"
    return pickle_write.global("torch._utils", "_rebuild_tensor_v2") .. pickle_write.tuple {
      storage, pickle_write.integer(0), pickle_write.tuple(shape), pickle_write.tuple(stride), "\137",
      pickle_write.global("collections", "OrderedDict") .. ")R",
    } .. "R"
  end
end

--- Writes a checkpoint that torch.load reads, with weights_only=True too. Atomic.
-- @tparam string path
-- @param state tables, tensors, numbers (whole ones become int), texts, booleans, `json.null` for None; a tensor that occurs
--   twice is stored once
-- @usage mf.torch.save("ours.pth", { model = { weight = mf.ones(3) }, step = 100 })
function M.save(path, state)
  if type(path) ~= "string" then T.bad_argument("torch.save", 1, "a path", path) end
  if state == nil then T.bad_argument("torch.save", 2, "a value", state) end
  local parts = { { name = "archive/data.pkl" }, { name = "archive/byteorder", data = "little" } }
  parts[1].data = pickle_write.dump(state, "torch.save", tensor_writer(parts))
  parts[#parts + 1] = { name = "archive/version", data = "3\n" }
  zip.write(path, parts, ALIGNMENT)
end

-- Names go by path, and a table may stand under any number of them.
local MOST_NAMES = 2 ^ 20

--- The tensors of a table by name, with the names of nested tables joined by dots.
-- @tparam table tree
-- @treturn table name -> tensor
-- @treturn table names in the checkpoint's order
function M.flatten(tree)
  local tensors, names = {}, {}
  local open, visits = {}, 0
  local function walk(value, prefix)
    visits = visits + 1
    if visits > MOST_NAMES then fail("torch.flatten: more than %d names: refused", MOST_NAMES) end
    if open[value] then return end
    open[value] = true
    local keys = pickle.order(value)
    if not keys then
      keys = {}
      for key in pairs(value) do keys[#keys + 1] = key end
      table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    end
    for _, key in ipairs(keys) do
      local item, name = value[key], prefix .. tostring(key)
      if F.is_tensor(item) then
        names[#names + 1], tensors[name] = name, item
      elseif type(item) == "table" and item ~= json.null and not pickle.is_inert(item) then
        walk(item, name .. ".")
      end
    end
    open[value] = nil
  end
  walk(tree, "")
  return tensors, names
end

return M
