--- The batches of one epoch: a function of the seed, the epoch and the options, and of nothing else.
--
--     packed     mixed lengths, as many entries as fit into `residues`; an entry longer than that comes alone
--     bucketed   neighbouring lengths, within `residues` or as many as `rule` says of the longest
--     fixed      `size` entries of any length
--     lengths    entries of one length, as many as `rule` says
--     copies     one entry, as many times as `rule` says (independent times and noise)
--
-- An epoch is one pass: every entry (with clusters, one of each) is in one batch; what the RNA program calls an epoch, several
-- passes, is several epochs here, each with a seed of its own. Batches belong to one rank each, the first
-- `ranks` of them make the first step and so on; where their number is not a multiple of `ranks`, those with most entries are
-- halved until it is, so that no entry comes twice and every rank makes as many steps. Only where no batch is left to halve does
-- a rank get an empty one. Copies, and a rule whose scope is "global", make steps that the ranks share: each takes as even a
-- part as can be, which may be none. The mean over a step weighs a rank by its examples: `total` of `choose` says of how many.
-- @module moonfold.data.plan

local streams = require "moonfold.flow.streams"

local M = {}
local Plan = {}
Plan.__index = Plan

local OPEN_BINS = 64    -- measured: more fill no better and take longer
local SPREAD = 0.1      -- how far from its place among the lengths an entry may stand in a bucket

local function shuffled(list, rng)
  local result = {}
  for i = 1, #list do result[i] = list[i] end
  for i = #result, 2, -1 do
    local j = 1 + math.floor(rng:number() * i)
    result[i], result[j] = result[j], result[i]
  end
  return result
end

-- One entry of each cluster; an entry without a cluster is its own. In the order of the clusters when `sorted`.
local function draw_clusters(use, cluster, rng, sorted)
  local members, order = {}, {}
  for _, i in ipairs(use) do
    local key = cluster[i]
    local list = key ~= nil and members[key]
    if not list then
      list = { cluster = key }
      if key ~= nil then members[key] = list end
      order[#order + 1] = list
    end
    list[#list + 1] = i
  end
  if sorted then
    local place = {}
    for k, list in ipairs(order) do place[list] = k end
    -- numbers, then names, then those without
    local function rank(list) return type(list.cluster) == "number" and 1 or list.cluster ~= nil and 2 or 3 end
    table.sort(order, function(a, b)
      if rank(a) ~= rank(b) then return rank(a) < rank(b) end
      if a.cluster ~= b.cluster then return a.cluster < b.cluster end
      return place[a] < place[b]
    end)
  end
  local result = {}
  for k, list in ipairs(order) do result[k] = list[1 + math.floor(rng:number() * #list)] end
  return result
end

-- One after the other: a new batch where `fits(count, sum, longest)`, of a batch with the next entry in it, says no.
local function cut(order, lengths, fits)
  local result, batch, sum, longest = {}, nil, 0, 0
  for _, i in ipairs(order) do
    local n = lengths[i]
    if not batch or not fits(#batch + 1, sum + n, math.max(longest, n)) then
      batch, sum, longest = {}, 0, 0
      result[#result + 1] = batch
    end
    batch[#batch + 1] = i
    sum, longest = sum + n, math.max(longest, n)
  end
  return result
end

-- Best fit: into the fullest batch that has room. Of the batches that are open the fullest is closed when they become too many.
local function pack(order, lengths, residues)
  local shortest = math.huge
  for _, i in ipairs(order) do shortest = math.min(shortest, lengths[i]) end
  local result, open, sums, n_open = {}, {}, {}, 0
  for _, i in ipairs(order) do
    local n, best, fullest = lengths[i], 0, 1
    for k = 1, n_open do
      if sums[k] + n <= residues and (best == 0 or sums[k] > sums[best]) then best = k end
      if sums[k] > sums[fullest] then fullest = k end
    end
    if best == 0 then
      if n_open < OPEN_BINS then
        n_open = n_open + 1
        best = n_open
      else
        best = fullest
      end
      open[best], sums[best] = {}, 0
      result[#result + 1] = open[best]
    end
    local batch = open[best]
    batch[#batch + 1] = i
    sums[best] = sums[best] + n
    if sums[best] + shortest > residues then
      open[best], sums[best] = open[n_open], sums[n_open]
      n_open = n_open - 1
    end
  end
  return result
end

local function by_length(order, lengths, rule, ranks)
  local result, open = {}, {}
  for _, i in ipairs(order) do
    local n = lengths[i]
    local batch = open[n]
    if not batch or #batch >= rule:size(n, ranks) then
      batch = {}
      open[n] = batch
      result[#result + 1] = batch
    end
    batch[#batch + 1] = i
  end
  return result
end

local function bucketed(order, lengths, o, rng)
  local key, place = {}, {}
  for k, i in ipairs(order) do
    key[i], place[i] = lengths[i] * (1 + SPREAD * (o.shuffle and rng:number() or 0)), k
  end
  local sorted = {}
  for k, i in ipairs(order) do sorted[k] = i end
  table.sort(sorted, function(a, b)
    if key[a] ~= key[b] then return key[a] < key[b] end
    return place[a] < place[b]
  end)
  return cut(sorted, lengths, function(count, sum, longest)
    if o.residues then return sum <= o.residues end
    return count <= o.rule:size(longest, o.ranks)
  end)
end

-- Brings the number of batches to a multiple of `ranks`.
local function even_out(batches, ranks)
  while #batches % ranks ~= 0 do
    local most = 1
    for k, batch in ipairs(batches) do
      if #batch > #batches[most] then most = k end
    end
    local whole, first, second = batches[most], {}, {}
    if #whole < 2 then
      batches[#batches + 1] = {}
    else
      local half = math.ceil(#whole / 2)
      for k, i in ipairs(whole) do
        if k <= half then first[k] = i else second[k - half] = i end
      end
      batches[most], batches[#batches + 1] = first, second
    end
  end
  return batches
end

-- What the RNA program does: every rank batches each ranks-th entry by itself, and an epoch has as many steps as a rank has
-- entries, for which the rank's batches come again and again in the same order.
local function replicas(order, lengths, o, rng)
  local steps, lists = math.ceil(#order / o.ranks), {}
  for rank = 1, o.ranks do
    local own = {}
    for k = rank, #order, o.ranks do own[#own + 1] = order[k] end
    lists[rank] = shuffled(by_length(own, lengths, o.rule, 1), rng)
  end
  local result = {}
  for step = 1, steps do
    for rank = 1, o.ranks do
      local list = lists[rank]
      result[#result + 1] = #list > 0 and list[(step - 1) % #list + 1] or {}
    end
  end
  return result
end

--- The plan of an epoch.
-- @tparam table o options of data.batches, `use` (positions of the entries that take part), `lengths` (by position: residues
--   that an entry brings) and, with clusters, `cluster` (by position)
-- @tparam number epoch
-- @treturn Plan `batches`, `steps`, `shared` (whether ranks share a step)
function M.make(o, epoch)
  local rng = streams.rng(o.seed, "shuffle", epoch)
  local as_they_are = o.compat and o.clusters      -- the protein program never shuffles what it drew
  local order = o.use
  if o.clusters then order = draw_clusters(order, o.cluster, rng, as_they_are) end
  local shuffle = o.shuffle and not as_they_are
  if shuffle then order = shuffled(order, rng) end
  local shared = o.mode == "copies" or o.rule ~= nil and o.rule.scope == "global"
  local self = setmetatable({ o = o, epoch = epoch, shared = shared }, Plan)
  if o.mode == "copies" then
    self.batches = cut(order, o.lengths, function(count) return count <= o.proteins_per_step end)
  elseif o.mode == "lengths" and o.compat then
    self.batches, self.shared = replicas(order, o.lengths, o, rng), false
  else
    local batches
    if o.mode == "fixed" then
      batches = cut(order, o.lengths, function(count) return count <= o.size end)
    elseif o.mode == "bucketed" then
      batches = bucketed(order, o.lengths, o, rng)
    elseif o.mode == "lengths" then
      batches = by_length(order, o.lengths, o.rule, o.ranks)
    elseif o.shuffle then
      batches = pack(order, o.lengths, o.residues)
    else
      batches = cut(order, o.lengths, function(_, sum) return sum <= o.residues end)
    end
    if not self.shared then batches = even_out(batches, o.ranks) end
    self.batches = shuffle and shuffled(batches, rng) or batches
  end
  self.steps = self.shared and #self.batches or #self.batches / o.ranks
  return self
end

-- A part of n things, as even as can be: how many, and how many come before it.
local function part(n, k, parts)
  local base, rest = math.floor(n / parts), n % parts
  return base + (k <= rest and 1 or 0), base * (k - 1) + math.min(k - 1, rest)
end

-- The ranks are divided among the step's entries, and those of one entry share its copies.
local function copies(self, entries)
  local o, total, result, before = self.o, 0, {}, 0
  for k, i in ipairs(entries) do
    local group, first = part(o.ranks, k, #entries)
    local rank = o.rank - first
    if rank >= 1 and rank <= group then
      local count, earlier = o.rule:share(o.lengths[i], rank, group)
      for c = 1, count do result[c] = i end
      before = total + earlier
    end
    for r = 1, group do total = total + (o.rule:share(o.lengths[i], r, group)) end
  end
  return result, before, total
end

--- What a rank does at a step.
-- @tparam number step from 1 to `steps`
-- @treturn table positions of entries, may be empty
-- @treturn number examples of the ranks before it
-- @treturn number examples of all ranks
function Plan:choose(step)
  local o, result = self.o, {}
  if self.shared then
    local batch = self.batches[step]
    if o.mode == "copies" then return copies(self, batch) end
    local count, before = part(#batch, o.rank, o.ranks)
    for k = 1, count do result[k] = batch[before + k] end
    return result, before, #batch
  end
  local before, total = 0, 0
  for rank = 1, o.ranks do
    local batch = self.batches[(step - 1) * o.ranks + rank]
    if rank < o.rank then before = before + #batch end
    if rank == o.rank then result = batch end
    total = total + #batch
  end
  return result, before, total
end

return M
