--- Why an entry is left out, filter by filter in a settled order, so that what is left after each can be told.
--
-- A reason is a short sentence whose part before ':' is what counts are counted by.
-- @module moonfold.data.prepare.filters

local gyration = require "moonfold.data.prepare.gyration"

local M = {}

--- The filters in their order: `name`, and what they ask.
M.steps = {
  "size", "resolution", "assembly", "one chain", "homomer", "no protein", "frames", "length", "secondary structure",
  "radius of gyration", "own filters", "duplicates", "most",
}

local function oligomeric_reason(state)
  return state == "" and "oligomeric state not stated" or ("another oligomeric state: %s"):format(state)
end

-- Of a file: what is known before any atom is looked at. f: bytes, resolution, oligomeric, chains (polymers), proteins, homomer.
local file_filters = {
  { "size", function(o, f)
    if f.bytes < o.min_bytes then return ("file too small: %d bytes"):format(f.bytes) end
    if f.bytes > o.max_bytes then return ("file too large: %d bytes"):format(f.bytes) end
  end },
  { "resolution", function(o, f)
    if o.need_resolution and not f.resolution then return "no resolution" end
    local r = f.resolution or 0
    if r > o.max_resolution or (o.need_resolution and r == o.max_resolution) then return ("low resolution: %g A"):format(r) end
  end },
  { "assembly", function(o, f)
    if o.oligomeric ~= "any" and f.oligomeric ~= o.oligomeric then return oligomeric_reason(f.oligomeric) end
  end },
  { "one chain", function(o, f)
    if o.one_chain and f.chains > 1 then return ("several chains: %d"):format(f.chains) end
  end },
  { "homomer", function(o, f)
    if o.homomer and not f.homomer then return ("chains of several sequences: %d chains"):format(f.chains) end
  end },
  { "no protein", function(o, f)
    if o.no_protein and f.proteins > 0 then return ("protein chains: %d"):format(f.proteins) end
  end },
}

-- Of an entry: c has length, rows, valid and, where they were asked for, helix, strand, coil.
local entry_filters = {
  { "frames", function(o, c)
    if c.valid < o.min_valid then return ("missing frames: %.0f %%"):format(100 * (1 - c.valid)) end
  end },
  { "length", function(o, c)
    if c.length < o.min_length then return ("too short: %d residues"):format(c.length) end
    if c.length > o.max_length then return ("too long: %d residues"):format(c.length) end
    if c.rows > o.max_rows then return ("too long: %d residues before trimming"):format(c.rows) end
  end },
  { "secondary structure", function(o, c)
    if not c.helix then return nil end
    if c.helix >= o.max_helix then return ("helix alone: %.0f %%"):format(100 * c.helix) end
    if c.coil >= o.max_coil then return ("too much coil: %.0f %%"):format(100 * c.coil) end
    if c.strand <= o.min_strand then return ("too little strand: %.0f %%"):format(100 * c.strand) end
  end },
}

local function first_reason(filters, o, facts)
  for _, filter in ipairs(filters) do
    local reason = filter[2](o, facts)
    if reason then return reason, filter[1] end
  end
end

--- Why all chains of a file are left out.
-- @treturn ?string
-- @treturn ?string the filter
function M.file(o, facts) return first_reason(file_filters, o, facts) end

--- Why an entry is left out.
function M.entry(o, facts) return first_reason(entry_filters, o, facts) end

-- ---- what needs all entries; each takes the list in order and drops from it ----

local function drop(entry, reason, step) entry.skipped, entry.step = reason, step end

local function keep(list)
  local kept = {}
  for _, entry in ipairs(list) do
    if not entry.skipped then kept[#kept + 1] = entry end
  end
  return kept
end

local function too_wide(o, list)
  local lengths, radii = {}, {}
  for i, entry in ipairs(list) do lengths[i], radii[i] = entry.length, entry.radius end
  if #list == 0 then return nil end
  local limit, fit = gyration.limit(lengths, radii, o.gyration_quantile)
  for _, entry in ipairs(list) do
    local most = limit(entry.length - (o.compat and 1 or 0)) + o.gyration_margin
    if entry.radius >= most then
      drop(entry, ("too wide: radius of gyration %.2f A"):format(entry.radius), "radius of gyration")
    end
  end
  return fit
end

local function own(o, list, entry_of)
  for _, entry in ipairs(list) do
    for _, filter in ipairs(o.filters) do
      local reason = not entry.skipped and filter(entry_of(entry))
      if reason then drop(entry, tostring(reason), "own filters") end
    end
  end
end

-- Of entries with one sequence the best resolved stays; unknown resolutions come last.
local function duplicates(list)
  local best = {}
  for _, entry in ipairs(list) do
    local other = best[entry.sequence]
    if not other or (entry.resolution or math.huge) < (other.resolution or math.huge) then best[entry.sequence] = entry end
  end
  for _, entry in ipairs(list) do
    if best[entry.sequence] ~= entry then drop(entry, "same sequence: " .. best[entry.sequence].name, "duplicates") end
  end
end

--- Applies the filters that look at all entries together.
-- @tparam table o
-- @tparam table list of { length, radius, resolution, sequence, name } in the order of the set; `skipped` and `step` are set
-- @tparam function entry_of (item) -> the entry's table, for the user's own filters
-- @treturn table those that are left
-- @treturn ?table coefficients of the polynomial of radii
function M.together(o, list, entry_of)
  local fit
  if o.gyration_quantile then
    fit = too_wide(o, list)
    list = keep(list)
  end
  if o.filters then
    own(o, list, entry_of)
    list = keep(list)
  end
  if o.unique then
    duplicates(list)
    list = keep(list)
  end
  for i = #list, (o.most or math.huge) + 1, -1 do drop(list[i], "more than were asked for", "most") end
  return keep(list), fit
end

return M
