--- Loss terms stratified by time: the edges are linspace(0, 1.001, bins + 1).
--
-- A term that acts inside a gate is counted where it acts, so that its mean is not one of zeros.

local TimeBins = {}
TimeBins.__index = TimeBins

local M = {}
local LAST_EDGE = 1.001

--- An empty log.
-- @tparam number bins
-- @tparam ?function acts acts(name, t) -> whether a term counts at a time; all do by default
function M.new(bins, acts)
  return setmetatable({ bins = bins, acts = acts or function() return true end, sums = {}, counts = {} }, TimeBins)
end

local function row_of(self, rows, name)
  if not rows[name] then
    rows[name] = {}
    for b = 1, self.bins do rows[name][b] = 0 end
  end
  return rows[name]
end

--- Adds the values of one term.
-- @tparam string name
-- @tparam table values numbers, one a sequence
-- @tparam table times of the sequences
function TimeBins:add_values(name, values, times)
  local sums, counts = row_of(self, self.sums, name), row_of(self, self.counts, name)
  for i, value in ipairs(values) do
    if self.acts(name, times[i]) then
      local bin = math.floor(times[i] / LAST_EDGE * self.bins) + 1
      sums[bin], counts[bin] = sums[bin] + value, counts[bin] + 1
    end
  end
end

--- Adds the terms of a batch.
-- @tparam table terms name -> tensor (n), the second result of `flow:loss`
-- @tparam table noisy from `flow:corrupt`
function TimeBins:add(terms, noisy)
  for name, tensor in pairs(terms) do self:add_values(name, tensor:values(), noisy.times) end
end

--- Mean of each term, over all and in each bin.
-- @treturn table name -> { mean =, count =, bins = { mean or false, ... } }
function TimeBins:means()
  local result = {}
  for name, sums in pairs(self.sums) do
    local total, count, bins = 0, 0, {}
    for b = 1, self.bins do
      local n = self.counts[name][b]
      bins[b] = n > 0 and sums[b] / n
      total, count = total + sums[b], count + n
    end
    result[name] = { mean = total / math.max(count, 1), count = count, bins = bins }
  end
  return result
end

--- The means, and empties the log.
-- @treturn table as `means`
-- @usage log:flush().trans.bins[1]      -- the translation loss at the smallest times
function TimeBins:flush()
  local result = self:means()
  self.sums, self.counts = {}, {}
  return result
end

--- Names of the columns that a term has in a journal, one a bin: "trans_0.00-0.20".
-- @tparam string name
-- @treturn table
function TimeBins:columns(name)
  local list = {}
  for b = 1, self.bins do list[b] = ("%s_%.2f-%.2f"):format(name, (b - 1) / self.bins, b / self.bins) end
  return list
end

--- The means as a row of a journal.
-- @treturn table column -> mean, of the bins that have one
function TimeBins:row()
  local row = {}
  for name, report in pairs(self:means()) do
    for b, column in ipairs(self:columns(name)) do row[column] = report.bins[b] or nil end
  end
  return row
end

--- What was added since the last flush: plain numbers, to be saved in a checkpoint.
-- @treturn table
function TimeBins:state() return { sums = self.sums, counts = self.counts } end

--- Goes on from a saved state.
-- @tparam table state
function TimeBins:load(state) self.sums, self.counts = state.sums, state.counts end

return M
