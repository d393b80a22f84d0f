--- Making a data set of structure files: read, choose chains, filter, drop duplicates, write.
--
--     plan     which files, divided into parts                 inputs, part
--     take     each part in a worker: records and rows         pool, worker, take, features, filters
--     decide   what needs all entries: radii, duplicates       tally, filters, split
--     write    rows streamed from parts to the set, manifest   merge, manifest
--
-- Every input is accounted for: the manifest names each file with its size and hash, each of its chains, and the reason why it was
-- left out. Parts are written into a folder beside the set as they are made, so that a run that was stopped, killed or that found
-- the disk full goes on from there; set and manifest are put in place at the very end. The result depends on files and options
-- alone: not on workers, kills, or the order of the inputs (unless order = "given").
--
-- An entry of the set has
--
--     name                          1abc_A, of joined chains 1abc; unique in the set
--     source, entry, chain, entity  the file, the id in it, chain ids ("A+B" where joined), the entity of the first
--     length, sequence              residues after trimming, a letter each, X where the type does not count
--     resolution, date, method      of the file, where it states them
--     chains_in_entry, quaternary   polymer chains of model 1; "homomer" when they have one sequence
--     radius_of_gyration            angstrom, of the heavy atoms of its chains before trimming
--     helix, strand, coil           of proteins: shares by DSSP over `length`
--     cluster, split                where they were asked for
-- @module moonfold.data.prepare

local mf = require "moonfold"
local fail = require "moonfold.fail"
local files = require "moonfold.files"
local filters = require "moonfold.data.prepare.filters"
local inputs_of = require "moonfold.data.prepare.inputs"
local json = require "moonfold.json"
local layout = require "moonfold.data.layout"
local manifest = require "moonfold.data.prepare.manifest"
local merge = require "moonfold.data.prepare.merge"
local options = require "moonfold.options"
local part = require "moonfold.data.prepare.part"
local pool = require "moonfold.data.prepare.pool"
local profiles = require "moonfold.data.prepare.profiles"
local split = require "moonfold.data.prepare.split"
local tally = require "moonfold.data.prepare.tally"

local M = { defaults = profiles.defaults, profiles = profiles.profiles }

-- A temporary folder that a dry run may unpack into.
local function scratch()
  local path = os.tmpname()
  os.remove(path)
  return path
end

-- The archive of a compressed one, unpacked once into the folder of the work.
local function unpacker(work)
  return function(path)
    files.make_folder(work)
    local hash, message = files.sha256(path)
    if not hash then fail("data.prepare: %s", message) end
    local to = ("%s/unpacked-%s.tar"):format(work, hash:sub(1, 32))
    if not files.exists(to) then files.inflate(path, to) end
    return to
  end
end

-- Our own files in the folder of the work, and the folder when nothing else is in it.
local function clear(work)
  for _, path in ipairs(files.list(work, { ".safetensors", ".tmp", ".tar", ".json" })) do
    local name = path:match "[^/]*$"
    local ours = name:match "^part%-%x+%.safetensors" or name:match "^set%.safetensors" or name:match "^manifest%.json"
      or name:match "^unpacked%-"
    if ours and path:sub(1, -#name - 2) == work then os.remove(path) end
  end
  os.remove(work)
end

-- What a second run must find unchanged; nil where functions decide.
local function plan_of(o, inputs)
  if o.filters or type(o.clusters) == "function" then return nil end
  local list = {}
  for i, input in ipairs(inputs) do list[i] = ("%s\n%d"):format(input.path, input.bytes or -1) end
  local plain = profiles.plain(o, options.sorted_keys(profiles.defaults))
  for _, key in ipairs { "out", "manifest", "workers", "work", "dry_run" } do plain[key] = nil end
  if type(o.clusters) == "string" then
    local hash, message = files.sha256(o.clusters)
    if not hash then fail("data.prepare: clusters: %s", message) end
    plain.clusters = hash
  end
  return files.sha256_of(json.encode { options = plain, versions = M.versions(), inputs = json.array(list) })
end

--- What made a set: in every manifest.
function M.versions() return { moonfold = mf.version(), format = layout.FORMAT, rules = part.RULES } end

-- Options as the manifest tells them: neither where things lie nor how the work was shared.
local function told_options(o)
  local plain = profiles.plain(o, options.sorted_keys(profiles.defaults))
  for _, key in ipairs { "out", "manifest", "workers", "work", "dry_run" } do plain[key] = nil end
  return plain
end

local function run_parts(o, inputs, work, count)
  local jobs = {}
  for k, range in ipairs(part.divide(inputs)) do
    local own = {}
    for i = range.first, range.last do own[#own + 1] = inputs[i] end
    local path = not o.dry_run and ("%s/%s"):format(work, part.name(o, own)) or nil
    jobs[k] = { number = k, inputs = own, path = path, heard = {} }
  end
  local done, finished = 0, 0
  local function heard(job, i, residues)
    if job.heard[i] then return end
    job.heard[i], done = true, done + 1
    if o.progress then o.progress(done, #inputs, job.inputs[i].path, residues) end
  end
  local ok, message = pcall(o.workers == 0 and pool.run_here or pool.run, o, jobs, heard, function(job, records, how)
    finished = finished + 1
    for i in ipairs(job.inputs) do heard(job, i, 0) end
    records = records or part.open(job.path) or error("data.prepare: " .. job.path .. " is gone", 0)
    count:part(job.number, records)
    if o.log then o.log(("part %d of %d: %d files, %s"):format(job.number, #jobs, #job.inputs, how)) end
  end, function(job, i, reason)
    if o.log then o.log(("%s: read the second time only: %s"):format(job.inputs[i].path, reason)) end
  end)
  if ok then return jobs end
  if o.dry_run then clear(work) end
  local rest = ""
  if not o.dry_run then
    rest = ("; %d of %d parts are in %s, and the same call goes on from there"):format(finished, #jobs, work)
  end
  if type(message) == "table" and message.stopped then fail("data.prepare: stopped by %s%s", message.stopped, rest) end
  fail("%s%s", tostring(message):gsub("^[^':]*:%d+: ", ""), rest)
end

-- Names are made unique, so that an entry can be found by its own; clusters and splits are given in the order of the set.
local function finish_entries(o, items)
  local seen, assign, residues = {}, split.assigner(o), 0
  for _, item in ipairs(items) do
    local entry = assert(json.decode(item.text))
    local name, k = entry.name, 1
    while seen[entry.name] do
      k = k + 1
      entry.name = ("%s.%d"):format(name, k)
    end
    seen[entry.name], item.name = true, entry.name
    assign(entry)
    item.text, residues = json.encode(entry), residues + item.length
  end
  return residues
end

-- The records of all inputs in order, with what was decided over all entries.
local function final_records(jobs, by_part)
  return coroutine.wrap(function()
    for k, job in ipairs(jobs) do
      local records = assert(part.open(job.path))
      local at = 0
      for _, record in ipairs(records) do
        for _, info in ipairs(record.chains) do
          if info.entry then
            at = at + 1
            local item = by_part[k][at]
            info.entry, info.skipped, info.step = nil, item.skipped, item.step
            info.name = not item.skipped and item.name or nil
          end
        end
        coroutine.yield(record)
      end
    end
  end)
end

-- Opens parts as they are asked for and keeps the latest few: mapped pages of thousands of them would count as ours.
local MOST_OPEN = 64
local function opener(jobs)
  local archives, latest = {}, {}
  return function(k)
    if archives[k] then return archives[k] end
    if #latest == MOST_OPEN then
      local oldest = table.remove(latest, 1)
      archives[oldest]:close()
      archives[oldest] = nil
    end
    archives[k] = mf.archive(jobs[k].path)
    latest[#latest + 1] = k
    return archives[k]
  end
end

local function write_all(o, jobs, count, items, head, work)
  local set, text = work .. "/set.safetensors", work .. "/manifest.json"
  if #items > 0 then
    merge.write(set, o, items, opener(jobs))
    local hash, bytes = files.sha256(set)
    head.set_sha256, head.set_bytes = hash, bytes
  end
  manifest.write(text, head, final_records(jobs, count.parts))
  if #items > 0 then files.move(set, o.out) end
  files.move(text, o.manifest)
end

local function nothing_left(o, count, inputs)
  local reasons = {}
  for _, reason in ipairs(options.sorted_keys(count.counts)) do
    if reason ~= "kept" then reasons[#reasons + 1] = ("%d %s"):format(count.counts[reason], reason) end
  end
  fail("data.prepare: nothing is left of %d files (%s); %s tells of each", #inputs, table.concat(reasons, ", "), o.manifest)
end

--- Makes a data set and its manifest.
-- @tparam table o see `prepare.profiles`
-- @treturn table `entries` (how many were kept), `residues`, `counts` (reason -> how often), `steps` (a list of
--   { step, left, dropped }), `manifest` (its path), `files`, `unchanged` (true where set and manifest were there already)
-- @usage mf.data.prepare { inputs = { "spec/fixtures/1ubq.pdb.gz" }, out = os.tmpname() .. ".safetensors", workers = 0 }
function M.prepare(o)
  o = profiles.resolve(o)
  split.check(o)
  o.workers = o.workers or pool.cores()
  o.manifest = o.manifest or o.out:gsub("%.safetensors$", "") .. ".manifest.json"
  local work = o.dry_run and scratch() or o.work or o.out:gsub("%.safetensors$", "") .. ".work"
  local inputs = inputs_of.gather(o.inputs, { sorted = o.order ~= "given", unpack = unpacker(work) })
  if #inputs == 0 then fail "data.prepare: no input files" end
  local plan = plan_of(o, inputs)
  local head = not o.dry_run and manifest.current(o.manifest, o.out, plan, inputs)
  if head then
    clear(work)
    return { entries = head.entries, residues = head.residues, counts = head.counts, steps = head.steps,
             manifest = o.manifest, files = #inputs, unchanged = true }
  end
  if not o.dry_run then files.make_folder(work) end
  local count = tally.new(o, #inputs)
  local jobs = run_parts(o, inputs, work, count)
  local ordered = count:ordered()
  local items, fit = filters.together(o, ordered, function(item) return assert(json.decode(item.text)) end)
  count:decided(ordered)
  local residues = finish_entries(o, items)
  local result = { entries = #items, residues = residues, counts = count.counts, steps = count:steps(), manifest = o.manifest,
                   files = #inputs, gyration = fit }
  if o.dry_run then
    clear(work)
    return result
  end
  local ok, message = pcall(write_all, o, jobs, count, items, {
    set = o.out:match "[^/]*$", kind = o.polymer, profile = o.profile, options = told_options(o), versions = M.versions(),
    plan = plan, entries = #items, residues = residues, counts = count.counts, steps = result.steps, gyration = fit,
  }, work)
  if not ok then
    fail("%s; the parts are in %s, and the same call goes on from there", tostring(message):gsub("^[^':]*:%d+: ", ""), work)
  end
  clear(work)
  if #items == 0 then nothing_left(o, count, inputs) end
  return result
end

return M
