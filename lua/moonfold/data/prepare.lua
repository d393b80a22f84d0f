--- Making a data set of structure files: read, choose chains, filter, drop duplicates, write.
--
-- Every input is accounted for: the manifest names each file with its size and hash, each of its chains, and the reason
-- why it was left out. A reason is a short sentence whose part before ':' is what `counts` counts by.

local mf = require "moonfold"
local atoms = require "moonfold.atoms"
local fail = require "moonfold.fail"
local file = require "moonfold.structure_file"
local files = require "moonfold.files"
local json = require "moonfold.json"
local options = require "moonfold.options"
local set = require "moonfold.data.set"

local M = {}
local OPTIONAL, REQUIRED = options.OPTIONAL, options.REQUIRED

--- Options of `prepare` and their defaults.
M.defaults = {
  inputs = REQUIRED,           -- list of files and folders
  out = REQUIRED,              -- the data set to write
  manifest = OPTIONAL,         -- by default the name of the set with .manifest.json
  polymer = "protein",         -- or "rna"
  min_length = 1,
  max_length = math.huge,      -- after trimming the ends without frames
  max_resolution = math.huge,  -- angstrom; a file that states none passes unless need_resolution
  need_resolution = false,
  min_valid = 0.9,             -- share of residues that have a frame
  max_bytes = math.huge,       -- of a file
  unique = true,               -- of chains with one sequence keep the best resolved, then the first
  clusters = OPTIONAL,         -- function(candidate) -> a name or number for the entry's `cluster`
  filters = OPTIONAL,          -- list of function(candidate) -> reason to leave it out, or nil
  log = OPTIONAL,              -- function(line), called for each file
  progress = OPTIONAL,         -- function(done, total, path), called for each file
  dry_run = false,             -- count only: write neither set nor manifest
}

local ENDINGS = { ".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz", ".mmcif.gz" }
local PRIME = 0x100000001b3ULL

--- The 64-bit FNV-1a hash of a text, as 16 hexadecimal digits.
-- @tparam string text
-- @treturn string
function M.fnv1a64(text)
  local hash = 0xcbf29ce484222325ULL
  for i = 1, #text do hash = bit.bxor(hash, text:byte(i)) * PRIME end
  return bit.tohex(bit.rshift(hash, 32), 8) .. bit.tohex(hash % 0x100000000ULL, 8)
end

local function raw_bytes(path)
  local handle, message = io.open(path, "rb")
  if not handle then return nil, message end
  local bytes = handle:read "*a"
  handle:close()
  if not bytes then return nil, "cannot be read" end
  return bytes
end

-- Files of a list of files and folders, each once, in the order given; folders are sorted inside.
local function gather(inputs)
  local result, seen = {}, {}
  for _, input in ipairs(inputs) do
    local inside = files.list(input, ENDINGS)
    for _, path in ipairs(#inside > 0 and inside or { input }) do
      if not seen[path] then
        seen[path] = true
        result[#result + 1] = path
      end
    end
  end
  return result
end

-- Positions in the sequence, 0 at residue `first`: author numbers of a PDB file where they only grow, else the label numbers.
local function positions_of(chain, is_cif, first, last)
  local numbers = chain.labels
  if not is_cif then
    local grows = true
    for i = 2, #chain.numbers do grows = grows and chain.numbers[i] > chain.numbers[i - 1] end
    if grows then numbers = chain.numbers end
  end
  local result = {}
  for i = first, last do result[#result + 1] = numbers[i] - numbers[first] end
  return result
end

local function types_of(sequence, kind)
  local known, result = atoms.of(kind).types, {}
  for i = 1, #sequence do
    result[i] = (known:find(sequence:sub(i, i), 1, true) or #known + 1) - 1
  end
  return result
end

-- First and last residue with a frame, and how many have one.
local function extent(mask)
  local first, last, count = nil, nil, 0
  for i, value in ipairs(mask:float():values()) do
    if value > 0 then first, last, count = first or i, i, count + 1 end
  end
  return first, last, count
end

--- The features of one chain, trimmed to its first and last frame and centred on its valid residues.
-- @tparam Structure s from structure_file
-- @tparam table chain of `s:chains()`
-- @tparam string kind "protein" or "rna"
-- @tparam[opt=false] boolean is_cif label numbers instead of author numbers
-- @treturn ?table what `data.write` takes, and `sequence`, `valid` (share of residues with a frame); nil and a reason
function M.features(s, chain, kind, is_cif)
  local rules = atoms.of(kind)
  if chain.residues == 0 then return nil, "no residues" end
  local x, present = s:atoms(chain.index, rules.inputs)
  local f = rules.features(x, present)
  local first, last, count = extent(f.mask)
  if not first then return nil, "no frames: backbone atoms are missing" end
  local n = last - first + 1
  local function cut(tensor) return tensor:narrow(1, first, n):contiguous() end
  local mask = cut(f.mask)
  local column = mask:float():reshape(n, 1)
  local translations = cut(f.translations):double()
  local centre = (translations * column:double()):sum(1, true) / count
  local sequence = chain.sequence:sub(first, last)
  return {
    translations = ((translations - centre) * column:double()):float(), rotations = cut(f.rotations),
    torsions = cut(f.torsions), torsion_mask = cut(f.torsion_mask), mask = mask,
    aatype = mf.tensor(types_of(sequence, kind), { dtype = "int32" }),
    index = mf.tensor(positions_of(chain, is_cif, first, last), { dtype = "int32" }),
    sequence = sequence, valid = count / n, length = n,
  }
end

-- Why a candidate is left out, or nil.
local function refuse(o, c)
  if c.length < o.min_length then return ("too short: %d residues"):format(c.length) end
  if c.length > o.max_length then return ("too long: %d residues"):format(c.length) end
  if o.need_resolution and not c.entry.resolution then return "no resolution" end
  if (c.entry.resolution or 0) > o.max_resolution then return ("low resolution: %g A"):format(c.entry.resolution) end
  if c.valid < o.min_valid then return ("missing frames: %.0f %%"):format(100 * (1 - c.valid)) end
  for _, filter in ipairs(o.filters or {}) do
    local reason = filter(c)
    if reason then return reason end
  end
end

local function stem(path)
  return (path:match "[^/]*$":gsub("%.gz$", ""):gsub("%.%w+$", ""))
end

-- Reads one file: its record for the manifest, its candidates appended to the list.
local function take_file(o, path, candidates)
  local record = { path = path, chains = json.array() }
  local bytes, message = raw_bytes(path)
  if not bytes then
    record.skipped = "unreadable: " .. message
    return record
  end
  record.bytes, record.hash = #bytes, M.fnv1a64(bytes)
  if #bytes > o.max_bytes then
    record.skipped = ("too large: %d bytes"):format(#bytes)
    return record
  end
  local ok, s = pcall(file.read, path)
  if not ok then
    record.skipped = "malformed: " .. tostring(s):gsub("^[^:]*%.lua:%d+: ", "")
    return record
  end
  record.method, record.resolution = s.method ~= "" and s.method or nil, s.resolution
  local is_cif = path:gsub("%.gz$", ""):match "cif$" ~= nil
  local name = s.id ~= "" and s.id:lower() or stem(path)
  for _, chain in ipairs(s:chains(1)) do
    if chain.polymer == o.polymer then
      local info = { chain = chain.id, residues = chain.residues }
      record.chains[#record.chains + 1] = info
      local done, c, reason = pcall(M.features, s, chain, o.polymer, is_cif)
      if not done then
        info.skipped = "malformed: " .. tostring(c)
      elseif not c then
        info.skipped = reason
      else
        c.entry = { name = ("%s_%s"):format(name, chain.id), source = path, chain = chain.id, length = c.length,
                    sequence = c.sequence, resolution = s.resolution, method = record.method,
                    date = s.date ~= "" and s.date or nil, entity = chain.entity ~= "" and chain.entity or nil }
        c.info = info
        info.length, info.skipped = c.length, refuse(o, c)
        if not info.skipped then candidates[#candidates + 1] = c end
      end
    end
  end
  if #record.chains == 0 then record.skipped = ("no %s chain"):format(o.polymer) end
  return record
end

-- Of the candidates with one sequence the best resolved stays; unknown resolutions come last.
local function drop_duplicates(candidates)
  local best, result = {}, {}
  for _, c in ipairs(candidates) do
    local other = best[c.sequence]
    if not other or (c.entry.resolution or math.huge) < (other.entry.resolution or math.huge) then best[c.sequence] = c end
  end
  for _, c in ipairs(candidates) do
    if best[c.sequence] == c then
      result[#result + 1] = c
    else
      c.info.skipped = "same sequence: " .. best[c.sequence].entry.name
    end
  end
  return result
end

-- Names are made unique, so that an entry can be found by its own.
local function name_apart(candidates)
  local seen = {}
  for _, c in ipairs(candidates) do
    local name, k = c.entry.name, 1
    while seen[c.entry.name] do
      k = k + 1
      c.entry.name = ("%s.%d"):format(name, k)
    end
    seen[c.entry.name], c.info.name = true, c.entry.name
  end
end

local function count_reasons(records)
  local counts = { kept = 0 }
  local function add(reason)
    local key = reason:match "^[^:]*"
    counts[key] = (counts[key] or 0) + 1
  end
  for _, record in ipairs(records) do
    if record.skipped then add(record.skipped) end
    for _, info in ipairs(record.chains) do
      if info.skipped then add(info.skipped) else counts.kept = counts.kept + 1 end
    end
  end
  return counts
end

local function written_options(o)
  local result = {}
  for key, value in pairs(o) do
    if type(value) ~= "function" and type(value) ~= "table" and value ~= math.huge then result[key] = value end
  end
  return result
end

--- Makes a data set and its manifest.
-- @tparam table o see `defaults`
-- @treturn table `entries` (how many were kept), `residues`, `counts` (reason -> how often), `manifest` (its path), `files`
-- @usage mf.data.prepare { inputs = { "pdb/" }, out = "train.safetensors", min_length = 60, max_length = 512 }
function M.prepare(o)
  o = options("data.prepare", M.defaults, o)
  atoms.of(o.polymer)
  local paths = gather(o.inputs)
  if #paths == 0 then fail "data.prepare: no input files" end
  local candidates, records = {}, json.array()
  for k, path in ipairs(paths) do
    records[k] = mf.no_grad(take_file, o, path, candidates)
    if o.log then o.log(("%d/%d %s: %s"):format(k, #paths, path, records[k].skipped or #records[k].chains .. " chains")) end
    if o.progress then o.progress(k, #paths, path) end
  end
  if o.unique then candidates = drop_duplicates(candidates) end
  name_apart(candidates)
  local residues = 0
  for _, c in ipairs(candidates) do
    residues = residues + c.length
    if o.clusters then c.entry.cluster = o.clusters(c) end
  end
  local counts = count_reasons(records)
  local manifest = o.manifest or o.out:gsub("%.safetensors$", "") .. ".manifest.json"
  local result = { entries = #candidates, residues = residues, counts = counts, manifest = manifest, files = #paths }
  if o.dry_run then return result end
  files.replace(manifest, json.encode({
    set = o.out, kind = o.polymer, entries = #candidates, residues = residues, counts = counts,
    options = written_options(o), inputs = records,
  }, " ") .. "\n")
  if #candidates == 0 then
    local reasons = {}
    for _, reason in ipairs(options.sorted_keys(counts)) do
      if reason ~= "kept" then reasons[#reasons + 1] = ("%d %s"):format(counts[reason], reason) end
    end
    fail("data.prepare: nothing is left of %d files (%s); %s tells of each", #paths, table.concat(reasons, ", "), manifest)
  end
  set.write(o.out, o.polymer, candidates)
  return result
end

return M
