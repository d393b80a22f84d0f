--- Steps captured once and replayed: what a GPU is told in one call instead of in thousands.
--
--     local step = mf.graph(function(batch)
--       local loss = flow:loss(model(batch), batch)
--       optimizer:step(loss)
--       return loss
--     end)
--     for i = 1, 1000 do print(step(next_batch()):item()) end
--
-- A call whose arguments have shapes that were not seen before runs the function. The second such call (a later one, where many
-- shapes take turns and graphs would be dropped before they are worth their capture) captures it: it
-- runs once more, but kernels are recorded, on copies of the tensors that were passed. From then on a call copies its tensors to
-- those places, replays, and returns copies of the results. So what depends on the arguments' tensors alone is right at every
-- call, random numbers move on as if the function had run, and optimizers see their learning rate; but Lua code inside does
-- not run again: numbers, strings and booleans among the arguments are part of what makes a graph, and whatever else the
-- function looks at stays as it was. What needs an answer from the device (item, totable, a Lua `if` on a value) or brings
-- values from the host cannot be captured and is an error that says so. Gradients must be taken and forgotten inside.
--
-- Only CUDA devices have graphs: with tensors on the CPU or the null device every call simply runs the function.
-- @module moonfold.graph
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local capture = require "moonfold.capture"
local fail = require "moonfold.fail"
local grad = require "moonfold.grad"
local options = require "moonfold.options"

local C, ctx, check, is_tensor = F.C, F.ctx, F.check, F.is_tensor

local graph_box = ffi.new("mf_graph *[1]")
local packing_t = ffi.typeof("mf_packing *")
local MOST_SEEN = 1000
-- A capture costs what a few calls save. After a graph that was dropped with fewer than POOR replays, twice as many calls of a
-- shape are waited for before it is captured; after one with more than RICH, half as many.
local POOR, RICH, MOST_WANTED = 8, 32, 64

local Graph = {}
Graph.__index = Graph

local no_grad = grad.functions.no_grad

-- A fresh tensor with x's values and no history.
local function clone(x) return no_grad(x.clone, x) end

-- The same, which no scope frees and which requires a gradient where x does.
local function copied(x)
  local y = clone(x):keep()
  if x:requires_grad() then y:require_grad() end
  return y
end

-- What kind of call this is, in words, and its tensors and packings in a fixed order.
local function describe(value, path, words, tensors, packings)
  local kind = type(value)
  if is_tensor(value) then
    tensors[#tensors + 1] = value
    words[#words + 1] = ("%s %s %s %s%s"):format(path, value:dtype(), value:device(), table.concat(value:shape(), "x"),
      value:requires_grad() and " grad" or "")
  elseif ffi.istype(packing_t, value) then
    packings[#packings + 1] = value
    words[#words + 1] = ("%s packing %s"):format(path, table.concat(value:lengths(), " "))
  elseif kind == "number" then
    words[#words + 1] = ("%s %.17g"):format(path, value)
  elseif kind == "string" or kind == "boolean" or kind == "nil" then
    words[#words + 1] = ("%s %s"):format(path, tostring(value))
  elseif kind == "table" and not getmetatable(value) then
    words[#words + 1] = path .. " table"
    for _, key in ipairs(options.sorted_keys(value)) do
      describe(value[key], path .. "." .. tostring(key), words, tensors, packings)
    end
  else
    fail("graph: argument %s is %s; pass tensors, packings, numbers, strings, booleans and plain tables of them, "
      .. "and let the function use the rest as upvalues", path, T.kind(value))
  end
end

-- The same value with each tensor replaced.
local function rebuilt(value, replace)
  if is_tensor(value) then return replace(value) end
  if type(value) ~= "table" or getmetatable(value) then return value end
  local result = {}
  for key, inner in pairs(value) do result[key] = rebuilt(inner, replace) end
  return result
end

local function device_of(tensors)
  for _, x in ipairs(tensors) do
    local device = x:device()
    if device:sub(1, 4) == "cuda" then return device end
  end
end

-- Writes the tensors of a call into the places that the graph reads; one that is unchanged since the last call stays.
local function fill(entry, tensors)
  no_grad(function()
    for i, x in ipairs(tensors) do
      local id, version = tonumber(C.mf_tensor_id(x)), tonumber(C.mf_tensor_version(x))
      if entry.ids[i] ~= id or entry.versions[i] ~= version then
        entry.inputs[i]:copy_(x)
        entry.ids[i], entry.versions[i] = id, version
      end
    end
  end)
end

local function replay(entry, tensors)
  fill(entry, tensors)
  for _, hook in ipairs(entry.hooks) do hook() end
  check(C.mf_graph_replay(entry.graph))
  entry.replays = entry.replays + 1
  return entry.results
end

-- Runs the function on copies of its arguments while kernels are recorded.
local function captured(self, device, tensors, n, arguments)
  local entry = { inputs = {}, ids = {}, versions = {}, replays = 0 }
  local at = {}
  for i, x in ipairs(tensors) do
    entry.inputs[i] = copied(x)
    at[tonumber(C.mf_tensor_id(x))] = entry.inputs[i]
  end
  local given = {}
  for i = 1, n do given[i] = rebuilt(arguments[i], function(x) return at[tonumber(C.mf_tensor_id(x))] end) end
  F.collect()      -- what would be released during the capture could not be given to it
  local sibling = self.order[1] and self.entries[self.order[1]].graph or nil
  check(C.mf_graph_begin(graph_box, ctx, T.device("graph", device), sibling))
  local graph = ffi.gc(graph_box[0], C.mf_graph_release)
  local noted = capture.begin()
  local results = { pcall(self.fn, unpack(given, 1, n)) }
  capture.finish()
  if not results[1] then
    C.mf_graph_end(graph, 0)
    error(results[2], 0)
  end
  check(C.mf_graph_end(graph, 1))
  entry.graph, entry.hooks, entry.held, entry.arguments = graph, noted.hooks, noted.held, given
  entry.results = { n = #results - 1, unpack(results, 2) }
  for i = 1, entry.results.n do
    rebuilt(entry.results[i], function(x) return x:keep() end)
  end
  return entry
end

-- The latest used comes first; the last goes when there are too many.
local function remember(self, key, entry)
  for i, known in ipairs(self.order) do
    if known == key then
      table.remove(self.order, i)
      break
    end
  end
  table.insert(self.order, 1, key)
  self.entries[key] = entry
  if #self.order > self.keep then
    local dropped = table.remove(self.order)
    local replays = self.entries[dropped].replays
    if replays < POOR then self.wanted = math.min(2 * self.wanted, MOST_WANTED)
    elseif replays > RICH then self.wanted = math.max(self.wanted / 2, 1) end
    self.entries[dropped], self.seen[dropped] = nil, self.seen[dropped] and 0
  end
end

-- Counts the calls of such a shape that were not captured; shapes that never recur must not pile up.
local function note(self, key)
  if not self.seen[key] then
    if self.seen_count >= MOST_SEEN then self.seen, self.seen_count = {}, 0 end
    self.seen_count = self.seen_count + 1
  end
  self.seen[key] = (self.seen[key] or 0) + 1
end

--- Calls the function, or replays what it did.
function Graph:__call(...)
  local n, words, tensors, packings = select("#", ...), {}, {}, {}
  local arguments = { ... }
  for i = 1, n do describe(arguments[i], tostring(i), words, tensors, packings) end
  local device = device_of(tensors)
  if not device or capture.active() then return self.fn(...) end
  words[#words + 1] = C.mf_grad_enabled(ctx) ~= 0 and "grad" or "no grad"
  local key = table.concat(words, "\n")
  local entry = self.entries[key]
  if not entry then
    if (self.seen[key] or 0) < self.wanted then
      note(self, key)
      return self.fn(...)
    end
    for _, packing in ipairs(packings) do check(C.mf_packing_prepare(packing, T.device("graph", device))) end
    entry = captured(self, device, tensors, n, arguments)
  end
  remember(self, key, entry)
  local results = replay(entry, tensors)
  local fresh = {}
  for i = 1, results.n do fresh[i] = rebuilt(results[i], clone) end
  return unpack(fresh, 1, results.n)
end

--- How many graphs are kept.
-- @treturn number
function Graph:count() return #self.order end

--- Forgets all graphs and gives their memory back.
function Graph:release()
  for _, entry in pairs(self.entries) do
    C.mf_graph_release(ffi.gc(entry.graph, nil))
  end
  self.entries, self.order, self.seen, self.seen_count, self.wanted = {}, {}, {}, 0, 1
end

function Graph:__tostring() return ("graph of %d captured steps"):format(#self.order) end

local known = { keep = 4 }

--- A function that is captured into a CUDA graph when it is called a second time with the same shapes, and replayed after.
-- @tparam function fn of tensors, packings, numbers, strings, booleans and plain tables of them
-- @tparam ?table o `keep` (4) how many different shapes to keep captured; the one unused for longest goes
-- @treturn graph called like fn
-- @usage local step = mf.graph(function(batch) return model(batch).translations end)
local function graph(fn, o)
  T.callable_argument("graph", 1, fn)
  local given = options.options("graph", known, o)
  T.integer_argument("graph: keep", 2, given.keep)
  if given.keep < 1 then fail("graph: keep must be at least 1, got %d", given.keep) end
  return setmetatable({ fn = fn, keep = given.keep, entries = {}, order = {}, seen = {}, seen_count = 0, wanted = 1 }, Graph)
end

return { graph = graph }
