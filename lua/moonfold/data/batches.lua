--- Batches of a data set: deterministic by seed, resumable, one rank's share of them.
--
-- The batches of an epoch are a list that depends on (seed, epoch) and the options alone; the state of an iterator is
-- where it stands in that list. Three modes:
--
--     packed    mixed lengths, as many entries as fit into `residues`; an entry longer than that comes alone
--     lengths   entries of one length, as many as `rule` says
--     copies    one entry, as many times as `rule` says (independent times and noise)
--
-- A batch carries `seed`, `step` and `examples`, its sequences' numbers among all ranks: flow:corrupt draws by them.

local fail = require "moonfold.fail"
local options = require "moonfold.options"
local rules = require "moonfold.data.rules"
local streams = require "moonfold.flow.streams"

local M = {}
local Batches = {}
Batches.__index = Batches

local OPTIONAL = options.OPTIONAL

M.defaults = {
  residues = OPTIONAL,   -- budget of a packed batch
  rule = OPTIONAL,       -- of modes lengths and copies: a name or a table, data.rules
  mode = OPTIONAL,       -- packed when residues is given, else lengths
  seed = 123,
  epoch = 1,             -- the first
  epochs = OPTIONAL,     -- how many; endless without epochs and steps
  steps = OPTIONAL,      -- stop after so many batches
  crop = OPTIONAL,       -- a longer entry gives a window of so many residues, drawn anew each time
  shuffle = true,
  clusters = false,      -- each epoch one entry of each cluster (field `cluster` of the entries)
  filter = OPTIONAL,     -- filter(entry, i) -> true to use it
  rank = 1, ranks = 1,
  device = OPTIONAL,
  state = OPTIONAL,      -- from :state(): go on there
}

--- An iterator over batches.
-- @tparam Set set
-- @tparam table o see `defaults`
-- @treturn Batches
function M.new(set, o)
  o = options("set:batches", M.defaults, o)
  local mode = o.mode or (o.residues and "packed" or "lengths")
  if mode ~= "packed" and mode ~= "lengths" and mode ~= "copies" then
    fail("set:batches: mode '%s' (known: copies, lengths, packed)", tostring(mode))
  end
  if mode == "packed" and not (type(o.residues) == "number" and o.residues >= 1) then
    fail "set:batches: mode packed needs residues, the budget of a batch"
  end
  if mode ~= "packed" and not o.rule then fail("set:batches: mode %s needs a rule", mode) end
  if o.crop and not (type(o.crop) == "number" and o.crop >= 1 and o.crop == math.floor(o.crop)) then
    fail("set:batches: crop must be a whole number of residues, got %s", tostring(o.crop))
  end
  if o.rank < 1 or o.rank > o.ranks then fail("set:batches: rank %s of %s", tostring(o.rank), tostring(o.ranks)) end
  local use = {}
  for i = 1, set.count do
    if set:length(i) > 0 and (not o.filter or o.filter(set:entry(i), i)) then use[#use + 1] = i end
  end
  if #use == 0 then fail "set:batches: no entry is left" end
  local state = o.state
  o.state = nil                       -- the option would hide the method
  local self = setmetatable(o, Batches)
  self.set, self.mode, self.use = set, mode, use
  self.rule = mode ~= "packed" and rules.rule(o.rule) or nil
  self.first_epoch, self.next_batch, self.step = o.epoch, 1, 0
  if state then self:load(state) end
  return self
end

--- Goes on where another iterator over the same entries stood.
-- @tparam table state from `:state()`
function Batches:load(state)
  for _, key in ipairs { "seed", "mode", "ranks" } do
    if state[key] ~= self[key] then
      fail("set:batches: the state has %s %s, this iterator %s", key, tostring(state[key]), tostring(self[key]))
    end
  end
  if state.entries ~= #self.use then
    fail("set:batches: the state was made over %s entries, here are %d", tostring(state.entries), #self.use)
  end
  self.first_epoch, self.epoch, self.next_batch, self.step = state.first_epoch, state.epoch, state.next_batch, state.step
end

--- Where the iterator stands: plain numbers and strings, to be saved in a checkpoint.
-- @treturn table
function Batches:state()
  return { seed = self.seed, mode = self.mode, ranks = self.ranks, entries = #self.use, first_epoch = self.first_epoch,
           epoch = self.epoch, next_batch = self.next_batch, step = self.step }
end

-- Residues that an entry brings into a batch.
local function length_of(self, i)
  return math.min(self.set:length(i), self.crop or math.huge)
end

local function shuffled(list, rng)
  local result = {}
  for i, x in ipairs(list) do result[i] = x end
  for i = #result, 2, -1 do
    local j = 1 + math.floor(rng:number() * i)
    result[i], result[j] = result[j], result[i]
  end
  return result
end

-- One entry of each cluster; an entry without a cluster is its own.
local function draw_clusters(self, rng)
  local members, order = {}, {}
  for _, i in ipairs(self.use) do
    local key = self.set:entry(i).cluster
    key = key == nil and -i or key
    if not members[key] then
      members[key] = {}
      order[#order + 1] = members[key]
    end
    table.insert(members[key], i)
  end
  local result = {}
  for k, list in ipairs(order) do result[k] = list[1 + math.floor(rng:number() * #list)] end
  return result
end

local function pack(self, order)
  local result, current, sum = {}, nil, 0
  for _, i in ipairs(order) do
    local length = length_of(self, i)
    if not current or sum + length > self.residues then
      current, sum = {}, 0
      result[#result + 1] = current
    end
    current[#current + 1], sum = i, sum + length
  end
  return result
end

local function by_length(self, order)
  local result, open = {}, {}
  for _, i in ipairs(order) do
    local length = length_of(self, i)
    local list = open[length]
    if not list or #list >= self.rule:size(length, self.ranks) then
      list = {}
      open[length] = list
      result[#result + 1] = list
    end
    list[#list + 1] = i
  end
  return result
end

--- The batches of an epoch, all ranks: a list of lists of entries.
-- @tparam number epoch
-- @treturn table
function Batches:plan(epoch)
  local rng = streams.rng(self.seed, "shuffle", epoch)
  local order = self.clusters and draw_clusters(self, rng) or self.use
  if self.shuffle then order = shuffled(order, rng) end
  if self.mode == "packed" then return pack(self, order) end
  if self.mode == "copies" then
    local result = {}
    for k, i in ipairs(order) do result[k] = { i } end
    return result
  end
  local result = by_length(self, order)
  return self.shuffle and shuffled(result, rng) or result
end

-- The part of a batch that belongs to a rank when the whole batch is shared, with the number of its first example.
local function part_of(self, list)
  local length = length_of(self, list[1])
  local copies = self.mode == "copies"
  if not copies and self.rule.scope == "rank" then return list, 0 end
  local result = {}
  if copies then
    local count, before = self.rule:share(length, self.rank, self.ranks)
    for k = 1, count do result[k] = list[1] end
    return result, before
  end
  local base, rest = math.floor(#list / self.ranks), #list % self.ranks
  local before = base * (self.rank - 1) + math.min(self.rank - 1, rest)
  for k = 1, base + (self.rank <= rest and 1 or 0) do result[k] = list[before + k] end
  return result, before
end

-- What this rank does at batch `k` of the epoch: entries, and the number of its first example among all ranks.
local function choose(self, k)
  local shared = self.mode == "copies" or (self.mode == "lengths" and self.rule.scope == "global")
  if shared then return part_of(self, self.current[k]) end
  local before = 0
  for rank = 1, self.rank - 1 do before = before + #self.current[((k - 1) * self.ranks + rank - 1) % #self.current + 1] end
  -- past the end of an epoch the list begins again, so that every rank makes as many steps
  return self.current[((k - 1) * self.ranks + self.rank - 1) % #self.current + 1], before
end

-- Windows of the entries that are longer than the crop: a function of the seed, the step and the example's number.
local function windows_of(self, entries, before)
  if not self.crop then return nil end
  local windows = {}
  for k, i in ipairs(entries) do
    local room = self.set:length(i) - self.crop
    if room > 0 then
      local u = streams.rng(self.seed, "crop", self.step, before + k):number()
      windows[k] = { 1 + math.floor(u * (room + 1)), self.crop }
    end
  end
  return windows
end

--- How many batches an epoch gives one rank.
-- @tparam number epoch
function Batches:count(epoch)
  local plan = self:plan(epoch)
  local shared = self.mode == "copies" or (self.mode == "lengths" and self.rule.scope == "global")
  return shared and #plan or math.ceil(#plan / self.ranks)
end

--- The next batch.
-- @treturn ?number the step, from 1; nil at the end
-- @treturn ?table the batch: see data.set, and `seed`, `step`, `epoch`, `examples`
function Batches:next()
  if self.steps and self.step >= self.steps then return nil end
  while true do
    if self.epochs and self.epoch >= self.first_epoch + self.epochs then return nil end
    if self.current_epoch ~= self.epoch then
      self.current, self.current_epoch, self.length = self:plan(self.epoch), self.epoch, self:count(self.epoch)
    end
    if self.next_batch <= self.length then break end
    self.epoch, self.next_batch = self.epoch + 1, 1
  end
  local entries, before = choose(self, self.next_batch)
  self.next_batch, self.step = self.next_batch + 1, self.step + 1
  local batch = { entries = {}, names = {} }
  if #entries > 0 then batch = self.set:collate(entries, self.device, windows_of(self, entries, before)) end
  batch.seed, batch.step, batch.epoch, batch.examples = self.seed, self.step, self.epoch, {}
  for k = 1, #entries do batch.examples[k] = before + k end
  return self.step, batch
end

Batches.__call = Batches.next

return M
