--- Other proteins beside a batch that is one protein many times over, for FoldFlow's optimal transport.
--
-- Its coupling assigns noise among K proteins of one length, the target among them (flow.couple). In batches of copies the target
-- is alone, so each batch gets up to K - 1 other entries of exactly its length, drawn without repetition as a function of the
-- batch's seed and step: `batch.partners`, a batch like any. Where the set has none, or the batch is a window of a longer entry,
-- there are none, and the coupling is the independent one.
-- @module moonfold.flow.partners
local streams = require "moonfold.flow.streams"

local Partners = {}
Partners.__index = Partners

local function draw(self, batch)
  local target = batch.entries[1]
  local set, length = self.batches.set, batch.packing:longest()
  if set:length(target) ~= length then return nil end
  local left = {}
  for _, i in ipairs(self.by_length[length]) do if i ~= target then left[#left + 1] = i end end
  if #left == 0 then return nil end
  local rng, list = streams.rng(batch.seed, "coupling", batch.step), {}
  for k = 1, math.min(self.count - 1, #left) do
    local j = rng:integer(k, #left)
    left[k], left[j] = left[j], left[k]
    list[k] = left[k]
  end
  return set:collate(list, self.batches.device)
end

function Partners:__call()
  local step, batch = self.batches()
  if batch and #batch.entries > 0 then batch.partners = draw(self, batch) end
  return step, batch
end

--- Where the batches stand, as theirs.
function Partners:state() return self.batches:state() end

--- Goes on from a saved state.
function Partners:load(state) self.batches:load(state) end

--- Batches with partners; called like those it is made of.
-- @tparam Batches batches of mode copies
-- @tparam number count K, the target included
-- @treturn table
return function(batches, count)
  local set, by_length = batches.set, {}
  for i = 1, set.count do
    local n = set:length(i)
    by_length[n] = by_length[n] or {}
    table.insert(by_length[n], i)
  end
  return setmetatable({ batches = batches, count = count, by_length = by_length }, Partners)
end
