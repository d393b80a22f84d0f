--- Clusters and splits: which entries are alike, and which are kept from training.
--
--     split = "cluster"   whole clusters go to "test", "valid" and "train" by a hash of the cluster and the seed, about `test` and
--                         `valid` of them: neither the order of the entries nor other entries matter
--     split = "date"      entries of `test_from` or later are "test", of `valid_from` or later "valid"; the others, and those
--                         without a date, "train"
--     split = "length"    the same with residues
--
-- A cluster file has a cluster a line, ENTRY_ENTITY words with blanks between (RCSB clusters-by-entity-30.txt). An entry belongs to
-- the line of its own entity; where the file or the set does not know that, to the last line that names its entry. Entries in no
-- line are clusters of their own.
-- @module moonfold.data.prepare.split

local fail = require "moonfold.fail"
local files = require "moonfold.files"

local M = {}

--- Reads a cluster file.
-- @tparam string path
-- @treturn table `entity` ("1ABC_1" -> line), `entry` ("1ABC" -> line), `lines` how many, `first` line -> its first word
function M.read_clusters(path)
  local text, message = files.read(path)
  if not text then fail("data.prepare: clusters: %s", message) end
  local clusters, line = { entity = {}, entry = {}, first = {} }, 0
  for words in (text:gsub("\r", "") .. "\n"):gmatch "([^\n]*)\n" do
    line = line + 1
    for word in words:gmatch "%S+" do
      local id = word:match "^(.-)_" or word
      clusters.entity[word:upper()], clusters.entry[id:upper()] = line, line
      clusters.first[line] = clusters.first[line] or word:upper()
    end
  end
  if #text == 0 then fail("data.prepare: clusters: %s is empty", path) end
  clusters.lines = line
  return clusters
end

local function whole(x) return type(x) == "number" and x == math.floor(x) and x >= 1 end

--- Checks the options of a split before any work is done.
function M.check(o)
  if o.split == "cluster" then
    if not o.clusters then fail "data.prepare: split 'cluster' needs clusters, the path of a cluster file" end
    if o.valid < 0 or o.test < 0 or o.valid + o.test >= 1 then
      fail("data.prepare: valid %g and test %g are shares that leave some for training", o.valid, o.test)
    end
  elseif o.split ~= "none" then
    if not (o.valid_from or o.test_from) then fail("data.prepare: split '%s' needs valid_from or test_from", o.split) end
    for _, key in ipairs { "valid_from", "test_from" } do
      local value = o[key]
      local fits = value == nil or (o.split == "date" and tostring(value):match "^%d%d%d%d%-%d%d%-%d%d$")
        or (o.split == "length" and whole(tonumber(value)))
      if not fits then
        fail("data.prepare: %s is '%s', expected %s", key, tostring(value), o.split == "date" and "a date such as 2023-10-31"
          or "a number of residues")
      end
    end
  end
end

-- A number in [0, 1) that depends on the text alone.
local function share_of(text) return tonumber(files.sha256_of(text):sub(1, 12), 16) / 16 ^ 12 end

local function by_threshold(o, value)
  local function from(limit) return limit ~= nil and value ~= nil and value >= limit end
  local read = o.split == "length" and tonumber or tostring
  if from(o.test_from and read(o.test_from)) then return "test" end
  if from(o.valid_from and read(o.valid_from)) then return "valid" end
  return "train"
end

--- What gives entries their `cluster` and `split`.
-- @tparam table o resolved options
-- @treturn function(entry) called in the order of the set
function M.assigner(o)
  local clusters = type(o.clusters) == "string" and M.read_clusters(o.clusters) or nil
  local fresh = clusters and clusters.lines or 0
  local function cluster_of(entry)
    if type(o.clusters) == "function" then return o.clusters(entry) end
    local id = entry.entry:upper()
    local line = not o.compat and entry.entity and clusters.entity[id .. "_" .. entry.entity:upper()] or clusters.entry[id]
    if line then return line, clusters.first[line] end
    fresh = fresh + 1
    return fresh, entry.name
  end
  return function(entry)
    local word
    if o.clusters then
      entry.cluster, word = cluster_of(entry)
    end
    if o.split == "cluster" then
      local share = share_of(("%d %s"):format(o.seed, word or tostring(entry.cluster)))
      entry.split = share < o.test and "test" or share < o.test + o.valid and "valid" or "train"
    elseif o.split == "date" then
      entry.split = by_threshold(o, entry.date)
    elseif o.split == "length" then
      entry.split = by_threshold(o, entry.length)
    end
  end
end

return M
