-- What evaluate tells: tables, files, pictures.
local mf = require "moonfold"
local chart = require "moonfold.chart"
local columns = require "moonfold.columns"
local files = require "moonfold.files"
local json = require "moonfold.json"

local M = {}

-- Numbers of a backbone that the tables show: heading, column, what it says.
local SHOWN = {
  protein = {
    { "CA-CA valid", "ca_ca_valid_two_sided", "share of CA-CA within 0.1 A of 3.802" },
    { "clashes", "num_ca_steric_clashes", "CA pairs nearer than 1.5 A, a backbone" },
    { "Rg", "radius_gyration", "radius of gyration, A" },
    { "helix", "helix_percent", "share of residues, DSSP" },
    { "strand", "strand_percent", "share of residues, DSSP" },
  },
  rna = {
    { "C4'-C4' valid", "c4_c4_valid_two_sided", "share of C4'-C4' within 0.1 A of 6.12" },
    { "C4' clashes", "num_c4_steric_clashes", "C4' pairs nearer than 1.0 A, a backbone" },
    { "clashes", "clashes_per_100_atoms", "heavy atoms of different residues, per 100 atoms" },
    { "Rg", "radius_gyration", "radius of gyration of C4', A" },
    { "O3'-P", "o3_p_mean", "distance to the next residue, A (ideal 1.602)" },
  },
}

local function mean(group, column)
  local d = group.summary[column]
  return d and d.mean or 0 / 0
end

-- A column of a metric over all lengths.
local function all_rows(lengths, side)
  local rows = {}
  for _, at in ipairs(lengths) do
    for _, row in ipairs(at[side].rows) do rows[#rows + 1] = row end
  end
  return { summary = mf.metrics.summary(rows) }
end

--- The tables as text.
function M.text(result)
  local shown, parts = SHOWN[result.kind], {}
  local heading, rows = { "length", "samples", "data", "whole" }, {}
  for _, column in ipairs(shown) do
    heading[#heading + 1] = column[1]
    heading[#heading + 1] = "(data)"
  end
  local function line(first, samples, data)
    for _, column in ipairs(shown) do
      first[#first + 1] = mean(samples, column[2])
      first[#first + 1] = mean(data, column[2])
    end
    rows[#rows + 1] = first
  end
  local n, n_data, whole = 0, 0, 0
  for _, at in ipairs(result.lengths) do
    line({ tostring(at.length), at.samples.count, at.data.count, at.whole }, at.samples, at.data)
    n, n_data, whole = n + at.samples.count, n_data + at.data.count, whole + at.whole
  end
  line({ "all", n, n_data, whole }, all_rows(result.lengths, "samples"), all_rows(result.lengths, "data"))
  parts[1] = "\nmeans, samples and (data); whole: how many of the data are entries about as long, not windows of longer ones\n"
    .. columns(heading, rows)
  local notes = {}
  for k, column in ipairs(shown) do notes[k] = ("%s: %s"):format(column[1], column[3]) end
  parts[2] = "  (" .. table.concat(notes, ";\n   ") .. ")"
  rows = {}
  for k, c in ipairs(result.distributions) do
    local a, b = mf.metrics.describe(c.samples), mf.metrics.describe(c.data)
    rows[k] = { c.definition.title, c.definition.unit, a.n, a.median, a.sd, b.n, b.median, b.sd, c.apart, c.floor }
  end
  parts[3] = "\ndistributions; W1: Wasserstein-1 distance, in the unit; floor: that of one half of the data from the other\n"
    .. columns({ "distribution", "unit", "n", "median", "sd", "(n)", "(median)", "(sd)", "W1", "floor" }, rows)
  if result.diversity then
    local d = result.diversity
    parts[#parts + 1] = ("\ndiversity %.3f: %d clusters of %d samples, qTMclust's rule at TM %.2f of the longer one")
      :format(d.diversity, d.clusters, result.count, d.cut)
  end
  if result.nearest then
    local d = result.nearest
    parts[#parts + 1] = ("\nnearest data: TM %.3f +- %.3f of the sample's residues, %.3f +- %.3f of the reference's;\n%s"):format(
      d.tm.mean, d.tm.sd, d.tm_reference.mean, d.tm_reference.sd,
      ("  means and deviations over samples, each against the %d entries nearest in length%s"):format(d.entries,
        result.kind == "rna" and ";\n  C3' traces aligned by TMalign, scored with the d0 of RNA" or ""))
  end
  return table.concat(parts, "\n")
end

local FIRST = { path = 1, residues = 2, breaks = 3, cluster = 4, nearest = 5, nearest_tm = 6, nearest_tm_reference = 7 }

local function csv(samples)
  local seen, names = {}, { "path" }
  for _, specimen in ipairs(samples) do
    for name in pairs(specimen.row) do
      if not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  table.sort(names, function(a, b)
    local u, v = FIRST[a] or 99, FIRST[b] or 99
    if u ~= v then return u < v end
    return a < b
  end)
  local lines = { table.concat(names, ",") }
  for _, specimen in ipairs(samples) do
    local cells = {}
    for k, name in ipairs(names) do
      local value = name == "path" and specimen.path or specimen.row[name]
      if type(value) == "number" then value = ("%.9g"):format(value) end
      value = value == nil and "" or tostring(value)
      if value:find '[",\n]' then value = '"' .. value:gsub('"', '""') .. '"' end
      cells[k] = value
    end
    lines[#lines + 1] = table.concat(cells, ",")
  end
  return table.concat(lines, "\n") .. "\n"
end

-- JSON has no nan and no infinity.
local function plain(value)
  if type(value) == "number" then return value - value == 0 and value or nil end
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = plain(item) end
  return copy
end

--- samples.csv and summary.json.
-- @treturn table the paths
function M.write(out, samples, result)
  files.replace(out .. "/samples.csv", csv(samples))
  local lengths, compared = json.array(), {}
  for k, at in ipairs(result.lengths) do
    lengths[k] = {
      length = at.length, samples = at.samples.count, data = at.data.count, data_whole = at.whole,
      metrics = plain(at.samples.summary), data_metrics = plain(at.data.summary),
    }
  end
  for _, c in ipairs(result.distributions) do
    compared[c.definition.name] = plain {
      title = c.definition.title, unit = c.definition.unit, wasserstein = c.apart, floor = c.floor,
      samples = mf.metrics.describe(c.samples), data = mf.metrics.describe(c.data),
    }
  end
  files.replace(out .. "/summary.json", json.encode {
    kind = result.kind, count = result.count, options = result.options, lengths = lengths, distributions = compared,
    diversity = result.diversity, nearest = plain(result.nearest),
  } .. "\n")
  return { out .. "/samples.csv", out .. "/summary.json" }
end

local BINS = 60

local function histogram(values, d)
  local counts, width = {}, (d.hi - d.lo) / BINS
  for k = 1, BINS do counts[k] = 0 end
  for _, value in ipairs(values) do
    local k = math.floor((value - d.lo) / width) + 1
    if k >= 1 and k <= BINS then counts[k] = counts[k] + 1 / #values end
  end
  return counts
end

local function distribution_panels(result)
  local panels = {}
  for k, c in ipairs(result.distributions) do
    local d = c.definition
    panels[k] = {
      title = ("%s (W1 %.3g)"):format(d.title, c.apart), x = d.unit == "A" and "angstrom" or "degrees", y = "share",
      from = d.lo, width = (d.hi - d.lo) / BINS,
      series = { { name = "data", values = histogram(c.data, d) }, { name = "samples", values = histogram(c.samples, d) } },
    }
  end
  return panels
end

-- A point for each backbone of samples and data.
local function length_panels(result)
  local panels = {}
  for k, column in ipairs(SHOWN[result.kind]) do
    local series = {}
    for i, side in ipairs { "data", "samples" } do
      series[i] = { name = side, x = {}, y = {} }
      for _, at in ipairs(result.lengths) do
        for _, row in ipairs(at[side].rows) do
          table.insert(series[i].x, row.residues)
          table.insert(series[i].y, row[column[2]])
        end
      end
    end
    panels[k] = { title = column[1], x = "residues", y = column[3], series = series }
  end
  return panels
end

-- So many backbones of each length on one sheet; false where there is none.
local function sheet(path, result, side, limit, label)
  local list = {}
  for _, at in ipairs(result.lengths) do
    for k = 1, math.min(limit, at[side].count) do
      local specimen = at[side].specimens[k]
      list[#list + 1] = { structure = specimen:structure(), label = label(specimen) }
    end
  end
  if #list == 0 then return false end
  mf.picture.sheet(path, list, { columns = limit > 4 and limit or 2 * limit, title = ("%s, %s"):format(result.kind, side) })
  for _, item in ipairs(list) do item.structure:release() end
  return true
end

--- Draws everything.
-- @treturn table the paths
function M.draw(out, result, pictures)
  local paths = { out .. "/distributions.svg", out .. "/lengths.svg" }
  chart.draw(paths[1], "local geometry", distribution_panels(result))
  chart.draw(paths[2], "against length", length_panels(result))
  for _, side in ipairs(pictures > 0 and { "samples", "data" } or {}) do
    local path = ("%s/%s.svg"):format(out, side)
    local function label(specimen) return specimen.label or ("%d, %s"):format(specimen.length, specimen.name) end
    if sheet(path, result, side, pictures, label) then paths[#paths + 1] = path end
  end
  return paths
end

return M
