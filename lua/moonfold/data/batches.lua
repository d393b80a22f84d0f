--- Batches of a data set: deterministic by seed, resumable, one rank's share of them, read ahead on threads.
--
--     for step, batch in set:batches { residues = 20000, seed = 7, epochs = 2 } do ... end
--
-- The batches of an epoch are a list that depends on (seed, epoch) and the options alone; data.plan says how it is made and what
-- ranks get of it. The state of an iterator is where it stands in that list: a few numbers. `prefetch` batches are read on
-- `threads` threads while the last one is worked on; it changes no bit of them.
--
-- A batch carries `seed`, `step`, `epoch`, `examples`, its sequences' numbers among all ranks (flow:corrupt draws by them),
-- and `total`, how many all ranks have in this step: gradients averaged over ranks are weighted by #batch.examples / batch.total.
-- @module moonfold.data.batches

local fail = require "moonfold.fail"
local options = require "moonfold.options"
local plan = require "moonfold.data.plan"
local rules = require "moonfold.data.rules"
local streams = require "moonfold.flow.streams"

local M = {}
local Batches = {}
Batches.__index = Batches

local OPTIONAL = options.OPTIONAL

M.defaults = {
  mode = OPTIONAL,       -- packed, bucketed, fixed, lengths or copies; packed with residues, fixed with size, else lengths
  residues = OPTIONAL,   -- budget of a batch
  size = OPTIONAL,       -- entries of a batch in mode fixed
  rule = OPTIONAL,       -- of modes lengths, copies and bucketed: a name or a table, data.rules
  seed = 123,
  epoch = 1,             -- the first
  epochs = OPTIONAL,     -- how many; endless without epochs and steps
  steps = OPTIONAL,      -- stop after so many batches
  crop = OPTIONAL,       -- a longer entry gives a window of so many residues, drawn anew each time
  shuffle = true,
  clusters = false,      -- each epoch one entry of each cluster (field `cluster` of the entries)
  filter = OPTIONAL,     -- filter(entry, i) -> true to use it; set:view knows more
  rank = 1, ranks = 1,
  proteins_per_step = 1, -- mode copies: entries that the ranks divide among them
  compat = false,        -- as the original programs: clusters unshuffled, RNA's passes repeated within an epoch
  fields = OPTIONAL,     -- tensors of a batch, by default all that every set has
  atoms = false,         -- `atoms` and `atom_mask` too
  device = OPTIONAL,
  prefetch = 2,          -- batches read ahead; 0: read when asked for
  threads = 1,           -- that read them
  state = OPTIONAL,      -- from :state(): go on there
}

-- What the original programs call their modes.
local NAMES = {
  time_batch = { "copies", false }, cluster_time_batch = { "copies", true },
  length_batch = { "lengths", false }, cluster_length_batch = { "lengths", true },
}
-- Which options say how large a batch is.
local MODES = {
  packed = { "residues" }, bucketed = { "residues", "rule" }, fixed = { "size" }, lengths = { "rule" }, copies = { "rule" },
}
local SIZES = { residues = "the budget of a batch", size = "the entries of a batch", rule = "data.rules" }

local function whole(name, value, least, most)
  if type(value) ~= "number" or value < least or value > (most or math.huge) or value ~= math.floor(value) then
    local range = most and ("from %d to %d"):format(least, most) or ("of at least %d"):format(least)
    fail("set:batches: %s must be a whole number %s, got %s", name, range, tostring(value))
  end
end

-- Exactly one of the options that a mode takes its size from.
local function check_size(o)
  local takes, given, names = MODES[o.mode], nil, {}
  for k, name in ipairs(takes) do
    given = given or o[name] ~= nil and name
    names[k] = ("%s (%s)"):format(name, SIZES[name])
  end
  if not given then fail("set:batches: mode %s needs %s", o.mode, table.concat(names, " or ")) end
  for _, name in ipairs(options.sorted_keys(SIZES)) do
    if o[name] ~= nil and name ~= given then
      fail("set:batches: mode %s goes by %s; it takes no %s beside it", o.mode, given, name)
    end
  end
end

local function check_options(o)
  local named = NAMES[o.mode]
  if named then o.mode, o.clusters = named[1], named[2] or o.clusters end
  o.mode = o.mode or (o.residues and "packed" or o.size and "fixed" or "lengths")
  if not MODES[o.mode] then
    local known = options.sorted_keys(MODES)
    for _, name in ipairs(options.sorted_keys(NAMES)) do known[#known + 1] = name end
    fail("set:batches: mode '%s' (known: %s)", tostring(o.mode), table.concat(known, ", "))
  end
  check_size(o)
  if o.rule then o.rule = rules.rule(o.rule) end
  for _, name in ipairs { "residues", "size", "crop", "steps", "epochs" } do
    if o[name] ~= nil then whole(name, o[name], (name == "steps" or name == "epochs") and 0 or 1) end
  end
  whole("ranks", o.ranks, 1)
  whole("rank", o.rank, 1, o.ranks)
  whole("prefetch", o.prefetch, 0)
  whole("threads", o.threads, 1, 64)
  whole("proteins_per_step", o.proteins_per_step, 1, o.mode == "copies" and o.ranks or 1)
  if o.compat and o.mode == "lengths" and o.rule.scope == "global" then
    fail "set:batches: compat batches by length on each rank: the rule's scope must be rank"
  end
end

--- An iterator over batches.
-- @tparam Set set
-- @tparam table o see `defaults`
-- @treturn Batches
function M.new(set, o)
  o = options("set:batches", M.defaults, o)
  check_options(o)
  if o.filter then set = set:view { filter = o.filter } end
  local use, lengths, total = {}, {}, 0
  for i = 1, set.count do
    local n = set:length(i)
    if n > 0 then
      use[#use + 1] = i
      total = total + n
    end
    lengths[i] = math.min(n, o.crop or math.huge)
  end
  if #use == 0 then fail "set:batches: no entry is left" end
  local state = o.state
  o.state = nil                       -- the option would hide the method
  local self = setmetatable(o, Batches)
  self.set, self.use, self.lengths = set, use, lengths
  self.cluster = o.clusters and set:column "cluster" or nil
  self.content = ("%d entries, %.0f residues"):format(#use, total)
  self.names = set.container:fields(o.fields, o.atoms, "set:batches")
  self.first_epoch, self.next_batch, self.step = o.epoch, 1, 0
  self:forget()
  if state then self:load(state) end
  return self
end

function Batches:__tostring()
  return ("batches of %s: %s, seed %d, at step %d of epoch %d"):format(self.content, self.mode, self.seed, self.step, self.epoch)
end

-- What makes the list of batches what it is; a state is good for an iterator that has the same.
local function settings(self)
  return {
    plan = 2, seed = self.seed, mode = self.mode, ranks = self.ranks, content = self.content, residues = self.residues,
    size = self.size, crop = self.crop, rule = self.rule and tostring(self.rule), shuffle = self.shuffle, clusters = self.clusters,
    compat = self.compat, proteins_per_step = self.proteins_per_step,
  }
end

-- Forgets what was read ahead: the next batch is the one after the last that was handed out.
function Batches:forget()
  if self.reader then self.reader:close() end
  self.reader, self.ahead = nil, {}
  self.cursor = { epoch = self.epoch, next_batch = self.next_batch, step = self.step }
end

--- Goes on where another iterator over the same entries stood.
-- @tparam table state from `:state()`
function Batches:load(state)
  local own = settings(self)
  if state.plan ~= own.plan then
    fail("set:batches: the state is of another version of Moonfold, whose batches were others (plan %s, here %d)",
      tostring(state.plan), own.plan)
  end
  for _, key in ipairs { "seed", "mode", "ranks", "content", "residues", "size", "crop", "rule", "shuffle", "clusters",
                         "compat", "proteins_per_step" } do
    if state[key] ~= own[key] then
      fail("set:batches: the state has %s %s, this iterator %s", key, tostring(state[key]), tostring(own[key]))
    end
  end
  self.first_epoch, self.epoch, self.next_batch, self.step = state.first_epoch, state.epoch, state.next_batch, state.step
  self:forget()
end

--- Where the iterator stands: plain numbers and strings, to be saved in a checkpoint. What was read ahead does not count.
-- @treturn table
function Batches:state()
  local state = settings(self)
  state.first_epoch, state.epoch, state.next_batch, state.step = self.first_epoch, self.epoch, self.next_batch, self.step
  return state
end

local function plan_of(self, epoch)
  if not self.current or self.current.epoch ~= epoch then self.current = plan.make(self, epoch) end
  return self.current
end

--- The batches of an epoch, all ranks: a list of lists of entries.
-- @tparam number epoch
-- @treturn table
function Batches:plan(epoch) return plan.make(self, epoch).batches end

--- How many batches an epoch gives one rank.
-- @tparam number epoch
function Batches:count(epoch) return plan.make(self, epoch).steps end

-- Windows of the entries that are longer than the crop: a function of the seed, the step and the example's number.
local function windows_of(self, entries, before, step)
  if not self.crop then return nil end
  local windows = {}
  for k, i in ipairs(entries) do
    local room = self.set:length(i) - self.crop
    if room > 0 then
      local u = streams.rng(self.seed, "crop", step, before + k):number()
      windows[k] = { 1 + math.floor(u * (room + 1)), self.crop }
    end
  end
  return windows
end

-- The batch at the cursor, which moves on; nil at the end.
local function describe(self)
  local at = self.cursor
  if self.steps and at.step >= self.steps then return nil end
  local epoch, k = at.epoch, at.next_batch
  local function is_over() return self.epochs and epoch >= self.first_epoch + self.epochs end
  while not is_over() and k > plan_of(self, epoch).steps do epoch, k = epoch + 1, 1 end
  if is_over() then return nil end
  local entries, before, total = plan_of(self, epoch):choose(k)
  local step = at.step + 1
  self.cursor = { epoch = epoch, next_batch = k + 1, step = step }
  return {
    entries = entries, before = before, total = total, cursor = self.cursor,
    runs = self.set:runs(entries, windows_of(self, entries, before, step)),
  }
end

-- Describes and submits batches until the next one and `prefetch` more are under way.
local function read_ahead(self)
  if not self.reader then
    self.reader = self.set.container.archive:reader(self.names, self.prefetch > 0 and self.threads or 0)
  end
  while #self.ahead <= self.prefetch do
    local cursor = self.cursor
    local batch = describe(self)
    if not batch then return end
    local ok, message = pcall(self.reader.submit, self.reader, batch.runs.first, batch.runs.count)
    if not ok then
      self.cursor = cursor
      error(message, 0)
    end
    self.ahead[#self.ahead + 1] = batch
  end
end

--- The next batch.
-- @treturn ?number the step, from 1; nil at the end
-- @treturn ?table the batch: see data.set, and `seed`, `step`, `epoch`, `examples`, `total`
function Batches:next()
  read_ahead(self)
  local made = self.ahead[1]
  if not made then return nil end
  local ok, rows = pcall(self.reader.next, self.reader)
  if not ok then
    self:forget()             -- whoever calls again gets this batch, or the same error
    error(rows, 0)
  end
  table.remove(self.ahead, 1)
  self.epoch, self.next_batch, self.step = made.cursor.epoch, made.cursor.next_batch, made.cursor.step
  local batch = self.set:finish(rows, made.entries, made.runs, self.device)
  batch.seed, batch.step, batch.epoch, batch.examples, batch.total = self.seed, self.step, self.epoch, {}, made.total
  for k = 1, #made.entries do batch.examples[k] = made.before + k end
  return self.step, batch
end

--- Stops reading ahead and frees what was read; the iterator may be used again. One that nobody holds is closed by the collector.
function Batches:close() self:forget() end

Batches.__call = Batches.next

return M
