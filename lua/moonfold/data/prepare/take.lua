--- One file: what it is, which entries it gives, and why its other chains give none.
-- @module moonfold.data.prepare.take

local mf = require "moonfold"
local features = require "moonfold.data.prepare.features"
local files = require "moonfold.files"
local filters = require "moonfold.data.prepare.filters"
local json = require "moonfold.json"
local structure = require "moonfold.structure_file"

local M = {}

local function rounded(x) return tonumber(("%.4f"):format(x)) end

-- A place in some script means nothing to whoever reads a manifest.
local function message_of(problem) return (tostring(problem):gsub("^[^':]*:%d+: ", "")) end

local function stem(path) return (path:match "[^/:]*$":gsub("%.gz$", ""):gsub("%.%w+$", "")) end

local function is_labelled(path) return path:lower():gsub("%.gz$", ""):match "cif$" ~= nil end

-- How long the text is: of gzip, what its trailer says.
local function text_bytes(input, stored)
  local file = io.open(input.file, "rb")
  local offset = input.offset or 0
  file:seek("set", offset)
  local magic = file:read(2)
  if magic ~= "\31\139" or stored < 18 then
    file:close()
    return stored
  end
  file:seek("set", offset + stored - 4)
  local a, b, c, d = file:read(4):byte(1, 4)
  file:close()
  return a + 256 * (b + 256 * (c + 256 * d))
end

local function facts_of(o, s, chains, bytes)
  local proteins, sequences, distinct = 0, {}, 0
  for _, chain in ipairs(chains) do
    if chain.polymer == "protein" then proteins = proteins + 1 end
    if not sequences[chain.sequence] then sequences[chain.sequence], distinct = true, distinct + 1 end
  end
  return { bytes = bytes, resolution = s.resolution, oligomeric = o.oligomeric ~= "any" and features.oligomeric(s) or nil,
           chains = #chains, proteins = proteins, homomer = distinct == 1 }
end

-- The polymer chains of model 1. The peers keep chains by their ids in capitals: a later one takes the place of an earlier one,
-- water too.
local function polymers_of(s, fold)
  local list, place = {}, {}
  for _, chain in ipairs(s:chains(1)) do
    local key = fold and chain.id:upper() or #list + 1
    place[key] = place[key] or #list + 1
    list[place[key]] = chain
  end
  local polymers = {}
  for _, chain in ipairs(list) do
    if chain.polymer ~= "none" then polymers[#polymers + 1] = chain end
  end
  return polymers
end

-- The groups of chains that make an entry each.
local function groups_of(o, chains)
  local groups = {}
  for _, chain in ipairs(chains) do
    if chain.polymer == o.polymer then
      if o.chains == "join" and groups[1] then table.insert(groups[1], chain) else groups[#groups + 1] = { chain } end
    end
  end
  return groups
end

local function ids_of(group)
  local ids = {}
  for i, chain in ipairs(group) do ids[i] = chain.id end
  return table.concat(ids, "+")
end

-- The entry's table: what the set's metadata say of it.
local function metadata(s, input, group, facts, c, o)
  local id = s.id ~= "" and s.id:lower() or stem(input.path)
  local entity = group[1].entity
  return {
    name = o.chains == "join" and id or ("%s_%s"):format(id, group[1].id), source = input.path, entry = id, chain = ids_of(group),
    entity = entity ~= "" and entity or nil, length = c.length, sequence = c.sequence, resolution = s.resolution,
    date = s.date ~= "" and s.date or nil, method = s.method ~= "" and s.method or nil, chains_in_entry = facts.chains,
    quaternary = facts.homomer and "homomer" or "heteromer", radius_of_gyration = rounded(features.gyration(s, group)),
    helix = c.helix and rounded(c.helix), strand = c.strand and rounded(c.strand), coil = c.coil and rounded(c.coil),
  }
end

local function take_group(s, input, group, facts, o, letters)
  local info = { chain = ids_of(group), residues = 0 }
  for _, chain in ipairs(group) do info.residues = info.residues + chain.residues end
  info.skipped, info.step = filters.file(o, facts)
  if info.skipped then return info end
  o.labelled = is_labelled(input.path)
  local done, c, reason = pcall(features.entry, s, group, o)
  if not done then
    info.skipped, info.step = "malformed: " .. message_of(c), "frames"
  elseif not c then
    info.skipped, info.step = reason, "frames"
  else
    if o.polymer == "protein" then
      for key, value in pairs(features.shares(letters(), group, c)) do c[key] = value end
    end
    info.length = c.length
    info.skipped, info.step = filters.entry(o, c)
    if not info.skipped then
      info.entry = metadata(s, input, group, facts, c, o)
      return info, c
    end
  end
  return info
end

local function take(o, input)
  local record, entries = { path = input.path, chains = json.array() }, {}
  local function leave(reason)
    record.skipped = reason
    return record, entries
  end
  local hash, stored = files.sha256(input.file, input.offset, input.offset and input.bytes)
  if not hash then return leave("unreadable: " .. stored) end
  record.sha256, record.bytes = hash, stored
  local bytes = text_bytes(input, stored)
  if stored == 0 then return leave "malformed: the file is empty" end
  local ok, s = pcall(structure.read, input.file, { models = 1, offset = input.offset, bytes = input.offset and input.bytes })
  if not ok then return leave("malformed: " .. message_of(s)) end
  record.method, record.resolution = s.method ~= "" and s.method or nil, s.resolution
  local chains = polymers_of(s, o.fold_chains)
  local facts, letters = facts_of(o, s, chains, bytes), nil
  local function secondary_structure()
    letters = letters or features.secondary_structure(s)
    return letters
  end
  for k, group in ipairs(groups_of(o, chains)) do
    local info, c = take_group(s, input, group, facts, o, secondary_structure)
    record.chains[k] = info
    if c then entries[#entries + 1] = c end
  end
  if #record.chains == 0 then return leave(("no %s chain"):format(o.polymer)) end
  return record, entries
end

--- Reads one file.
-- @tparam table o resolved options
-- @tparam table input of inputs.gather
-- @treturn table the record for the manifest: `path`, `sha256`, `bytes` as stored, `method`, `resolution`, `skipped` (why nothing
--   was read), and `chains`: a list of { `chain`, `residues`, `length`, `skipped` and `step` or `entry` }
-- @treturn table for each chain with an `entry`, in order, its tensors
function M.take(o, input)
  local ok, record, entries = pcall(mf.no_grad, take, o, input)
  if ok then return record, entries end
  return { path = input.path, chains = json.array(), skipped = "malformed: " .. message_of(record) }, {}
end

return M
