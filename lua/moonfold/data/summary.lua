--- What a data set holds, as a table that prints itself and as a picture.
-- @module moonfold.data.summary
local ffi = require "ffi"
local atoms = require "moonfold.atoms"
local chart = require "moonfold.chart"
local fail = require "moonfold.fail"
local options = require "moonfold.options"

local M = {}
local Summary = {}
Summary.__index = Summary

-- Least, quartiles, mean and most of a list of numbers; nil without any.
local function spread(values)
  if #values == 0 then return nil end
  local sorted, sum = {}, 0
  for i, value in ipairs(values) do sorted[i], sum = value, sum + value end
  table.sort(sorted)
  local function at(share) return sorted[1 + math.floor(share * (#sorted - 1) + 0.5)] end
  return {
    count = #sorted, least = sorted[1], quarter = at(0.25), median = at(0.5), three_quarters = at(0.75), most = sorted[#sorted],
    mean = sum / #sorted,
  }
end

local function lengths_of(set)
  local lengths = {}
  for i = 1, set.count do lengths[i] = set:length(i) end
  return lengths
end

local function numbers_of(set, key)
  local values, result = set:column(key), {}
  for i = 1, set.count do
    if type(values[i]) == "number" then result[#result + 1] = values[i] end
  end
  return result
end

-- How many entries have each value of a key; `without` counts those that have none.
local function counts_of(set, key)
  local values, counts, without, distinct = set:column(key), {}, 0, 0
  for i = 1, set.count do
    local value = values[i]
    if value == nil then
      without = without + 1
    else
      distinct = distinct + (counts[value] and 0 or 1)
      counts[value] = (counts[value] or 0) + 1
    end
  end
  return counts, without, distinct
end

--- The summary of a set.
-- @tparam Set set
-- @treturn table `path`, `kind`, `entries`, `residues`; `lengths` and `resolution` (angstrom), each `count`, `least`, `quarter`,
--   `median`, `mean`, `three_quarters`, `most`, or nil; `splits` and `methods`, how many entries have each; `clusters`, how many
--   there are, and `unclustered` entries
function M.of(set)
  local s = setmetatable({ path = set.path, kind = set.kind, entries = set.count, residues = set:residues() }, Summary)
  s.lengths, s.resolution = spread(lengths_of(set)), spread(numbers_of(set, "resolution"))
  s.splits, s.methods = counts_of(set, "split"), counts_of(set, "method")
  local _
  _, s.unclustered, s.clusters = counts_of(set, "cluster")
  return s
end

local function spread_text(s, format)
  if not s then return nil end
  return ("%s to %s, quartiles %s %s %s, mean %.4g"):format(format:format(s.least), format:format(s.most), format:format(s.quarter),
    format:format(s.median), format:format(s.three_quarters), s.mean)
end

local function counts_text(counts)
  local parts = {}
  for _, key in ipairs(options.sorted_keys(counts)) do parts[#parts + 1] = ("%s %d"):format(key, counts[key]) end
  return #parts > 0 and table.concat(parts, ", ") or nil
end

function Summary:__tostring()
  local lines = { ("data set %s: %d %s entries, %.0f residues"):format(self.path, self.entries, self.kind, self.residues) }
  local function add(name, text)
    if text then lines[#lines + 1] = ("  %-11s %s"):format(name, text) end
  end
  add("lengths", spread_text(self.lengths, "%d"))
  add("splits", counts_text(self.splits))
  add("methods", counts_text(self.methods))
  local resolution = self.resolution
  add("resolution", resolution and spread_text(resolution, "%.2f") .. (resolution.count < self.entries
    and (" A, unknown for %d"):format(self.entries - resolution.count) or " A"))
  if self.clusters > 0 then
    local rest = self.unclustered > 0 and (", and %d entries in none"):format(self.unclustered) or ""
    add("clusters", self.clusters .. rest)
  end
  return table.concat(lines, "\n")
end

-- Bars of a round width, about 40 of them, from 0 or from the least value.
local function histogram(values, least)
  local most = least
  for _, value in ipairs(values) do most = math.max(most, value) end
  local width = 10 ^ math.floor(math.log10(math.max(most - least, 1e-9) / 40))
  for _, factor in ipairs { 1, 2, 5, 10 } do
    if (most - least) / (factor * width) <= 40 then
      width = factor * width
      break
    end
  end
  local counts = {}
  local function bin(value) return 1 + math.floor((value - least) / width + 1e-9) end      -- 2.3 belongs to 2.3 .. 2.4
  for k = 1, bin(most) do counts[k] = 0 end
  for _, value in ipairs(values) do counts[bin(value)] = counts[bin(value)] + 1 end
  return counts, width
end

local AT_ONCE = 4000000     -- residues whose types are read at a time

-- Share of each residue type, and, as X, of all that are none of them.
local function types_of(set)
  local known = atoms.of(set.kind).types
  local counts, total = ffi.new("double[?]", #known + 1), 0
  local first, count, sum = {}, {}, 0
  local function add_up()
    local x = set.container:rows({ "aatype" }, first, count).aatype
    local text = x:bytes()
    local types = ffi.cast("const int32_t *", text)
    for k = 0, sum - 1 do
      local t = types[k]
      if t < 0 or t > #known then t = #known end
      counts[t] = counts[t] + 1
    end
    x:release()
    total = total + sum
    first, count, sum = {}, {}, 0
  end
  for i = 1, set.count do
    local run = set:runs { i }
    first[#first + 1], count[#count + 1] = run.first[1], run.count[1]
    sum = sum + run.count[1]
    if sum >= AT_ONCE then add_up() end
  end
  add_up()
  local labels, shares = {}, {}
  for k = 0, #known do
    labels[k + 1] = k < #known and known:sub(k + 1, k + 1) or "X"
    shares[k + 1] = total > 0 and counts[k] / total or 0
  end
  return labels, shares
end

local STRUCTURE = { "helix", "strand", "coil" }     -- shares of an entry's residues

--- Draws a set: lengths, residue types, and where entries tell of them secondary structure and resolution.
-- @tparam Set set
-- @tparam string path .svg, or .png where gnuplot is
function M.plot(set, path)
  if set.count == 0 then fail "set:plot: the set is empty" end
  local lengths = lengths_of(set)
  local counts, width = histogram(lengths, 0)
  local labels, shares = types_of(set)
  local panels = {
    { title = "length", x = "residues", y = "entries", from = 0, width = width, values = counts },
    { title = "residue types", x = "X: any other", y = "share of residues", labels = labels, values = shares },
  }
  local names, means = {}, {}
  for _, key in ipairs(STRUCTURE) do
    local values, sum, residues = set:column(key), 0, 0
    for i = 1, set.count do
      if type(values[i]) == "number" then
        sum, residues = sum + values[i] * lengths[i], residues + lengths[i]
      end
    end
    if residues > 0 then names[#names + 1], means[#means + 1] = key, sum / residues end
  end
  if #names > 0 then
    panels[#panels + 1] = { title = "secondary structure", y = "share of residues", labels = names, values = means }
  end
  local resolution = numbers_of(set, "resolution")
  if #resolution > 0 then
    local bars, step = histogram(resolution, 0)
    panels[#panels + 1] = { title = "resolution", x = "angstrom", y = "entries", from = 0, width = step, values = bars }
  end
  chart.draw(path, ("%d %s entries, %.0f residues"):format(set.count, set.kind, set:residues()), panels)
end

return M
