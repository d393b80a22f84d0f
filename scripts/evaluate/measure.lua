-- What evaluate measures: samples and data by the same code, length by length and all together.
local mf = require "moonfold"
local distributions = mf.metrics.distributions

local M = {}

-- One row of numbers: those of metrics.backbone, the radius in angstrom for both kinds.
local function row_of(specimen)
  local row, letters = specimen:metrics()
  row.radius_gyration = row.radius_gyration * (specimen.kind == "protein" and 10 or 1)
  row.residues, row.breaks = specimen.length, specimen.run[specimen.length] - 1
  return row, letters
end

-- Rows, their summary and the values of distributions of some specimens; `halves`: the values of every other one too.
local function measured(specimens, advance)
  local group = { count = #specimens, rows = {}, values = {}, halves = { {}, {} }, specimens = specimens }
  for k, specimen in ipairs(specimens) do
    group.rows[k], specimen.letters = row_of(specimen)
    specimen.row = group.rows[k]
    distributions.add(group.values, specimen)
    distributions.add(group.halves[k % 2 + 1], specimen)
    advance()
  end
  group.summary = mf.metrics.summary(group.rows)
  return group
end

--- Samples and references of every length that samples have.
-- @treturn table a list of { length, samples =, data =, whole = }
function M.lengths(samples, set, o, show)
  local by_length, list, done = {}, {}, 0
  for _, specimen in ipairs(samples) do
    local at = by_length[specimen.length]
    if not at then
      at = { length = specimen.length, specimens = {} }
      by_length[specimen.length], list[#list + 1] = at, at
    end
    table.insert(at.specimens, specimen)
  end
  local total = #samples + #list * o.references
  local function advance()
    done = done + 1
    show(done, total)
  end
  for _, at in ipairs(list) do
    local references, whole = mf.metrics.references(set, at.length, {
      n = o.references, seed = o.seed, exact = o.reference == "atoms",
    })
    at.samples, at.whole = measured(at.specimens, advance), whole
    at.data = measured(references, advance)
    done = done + o.references - #references
  end
  return list
end

local function pooled(lengths, get)
  local all = {}
  for _, at in ipairs(lengths) do
    for name, values in pairs(get(at)) do
      all[name] = all[name] or {}
      for _, value in ipairs(values) do table.insert(all[name], value) end
    end
  end
  return all
end

--- The distributions of all samples against those of the data: a list of { definition, samples, data, apart, floor }. `floor` is
-- how far one half of the data is from the other, which no sample can be asked to beat.
function M.compare(kind, lengths)
  local samples = pooled(lengths, function(at) return at.samples.values end)
  local data = pooled(lengths, function(at) return at.data.values end)
  local one = pooled(lengths, function(at) return at.data.halves[1] end)
  local other = pooled(lengths, function(at) return at.data.halves[2] end)
  local list = {}
  for k, d in ipairs(distributions.definitions[kind]) do
    local a, b = samples[d.name] or {}, data[d.name] or {}
    list[k] = {
      definition = d, samples = distributions.within(d, a), data = distributions.within(d, b),
      apart = distributions.apart(d, a, b), floor = distributions.apart(d, one[d.name] or {}, other[d.name] or {}),
    }
  end
  return list
end

local function traces_of(specimens)
  local traces = {}
  for k, specimen in ipairs(specimens) do traces[k] = mf.metrics.align.trace(specimen) end
  return traces
end

--- Clusters of the samples.
function M.diversity(samples, kind, o, show)
  local cut = o.cut or (kind == "rna" and 0.45 or 0.5)
  local clusters = mf.metrics.clusters(traces_of(samples), { cut = cut, jobs = o.jobs, progress = show })
  for c, cluster in ipairs(clusters) do
    for _, k in ipairs(cluster) do samples[k].row.cluster = c end
  end
  return { cut = cut, clusters = #clusters, diversity = #clusters / #samples }
end

-- The entries that are among the `most` nearest in length of some sample: a set of any size is not read whole.
local function candidates(samples, set, most)
  if not most or most >= set.count then return set end
  local seen, wanted, list = {}, {}, {}
  for _, specimen in ipairs(samples) do
    local length, order = specimen.length, {}
    if not seen[length] then
      seen[length] = true
      for i = 1, set.count do order[i] = i end
      table.sort(order, function(a, b)
        local u, v = math.abs(set:length(a) - length), math.abs(set:length(b) - length)
        if u ~= v then return u < v end
        return a < b
      end)
      for k = 1, most do wanted[order[k]] = true end
    end
  end
  for i = 1, set.count do
    if wanted[i] then list[#list + 1] = i end
  end
  return set:view { entries = list }
end

--- The nearest entries of the data.
function M.nearest(samples, set, o, show)
  local references, names = {}, {}
  local most = o.nearest_n > 0 and o.nearest_n or nil
  local near = candidates(samples, set, most)
  for i = 1, near.count do
    local specimen = mf.metrics.specimen.of_window(near, i)
    if specimen.length > 0 then
      references[#references + 1], names[#names + 1] = mf.metrics.align.trace(specimen), near:entry(i).name
    end
  end
  local list = mf.metrics.nearest(traces_of(samples), references, { most = most, jobs = o.jobs, progress = show })
  local tm, tm_reference = {}, {}
  for k, best in ipairs(list) do
    if best then
      local row = samples[k].row
      row.nearest_tm, row.nearest_tm_reference, row.nearest = best.tm, best.tm_reference, names[best.reference]
      tm[#tm + 1], tm_reference[#tm_reference + 1] = best.tm, best.tm_reference
    end
  end
  return {
    entries = math.min(most or #references, #references),
    tm = mf.metrics.describe(tm), tm_reference = mf.metrics.describe(tm_reference),
  }
end

return M
