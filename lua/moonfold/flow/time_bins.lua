--- Loss terms stratified by time: the edges are linspace(0, 1.001, bins + 1).

local TimeBins = {}
TimeBins.__index = TimeBins

local M = {}
local LAST_EDGE = 1.001

--- An empty log.
-- @tparam number bins
function M.new(bins)
  return setmetatable({ bins = bins, sums = {}, counts = {} }, TimeBins)
end

--- Adds the terms of a batch.
-- @tparam table terms name -> tensor (n), the second result of `flow:loss`
-- @tparam table noisy from `flow:corrupt`
function TimeBins:add(terms, noisy)
  for name, tensor in pairs(terms) do
    local sums, counts = self.sums[name] or {}, self.counts[name] or {}
    self.sums[name], self.counts[name] = sums, counts
    for i, value in ipairs(tensor:values()) do
      local bin = math.floor(noisy.times[i] / LAST_EDGE * self.bins) + 1
      sums[bin], counts[bin] = (sums[bin] or 0) + value, (counts[bin] or 0) + 1
    end
  end
end

--- Mean of each term, over all and in each bin, and empties the log.
-- @treturn table name -> { mean =, count =, bins = { mean or false, ... } }
-- @usage log:flush().trans.bins[1]      -- the translation loss at the smallest times
function TimeBins:flush()
  local result = {}
  for name, sums in pairs(self.sums) do
    local total, count, bins = 0, 0, {}
    for b = 1, self.bins do
      local n = self.counts[name][b] or 0
      bins[b] = n > 0 and sums[b] / n
      total, count = total + (sums[b] or 0), count + n
    end
    result[name] = { mean = total / math.max(count, 1), count = count, bins = bins }
  end
  self.sums, self.counts = {}, {}
  return result
end

return M
