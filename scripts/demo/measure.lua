-- What the demo measures: data and samples by the same numbers.
local mf = require "moonfold"
local columns = require "moonfold.columns"
local streams = require "moonfold.flow.streams"
local structure = require "moonfold.structure"

local M = {}

local IDEAL = 3.8    -- angstrom between neighbouring CA of a trans peptide

function M.mean(list, first, last)
  local sum, count = 0, 0
  for i = first or 1, last or #list do sum, count = sum + list[i], count + 1 end
  return sum / count
end

local function distance(x, i)
  local u, v, w = x[3 * i + 1] - x[3 * i - 2], x[3 * i + 2] - x[3 * i - 1], x[3 * i + 3] - x[3 * i]
  return math.sqrt(u * u + v * v + w * w)
end

--- Measures structures: CA-CA distances of neighbours, and the means of the backbone metrics.
function M.set(structures)
  local distances, radii, rows = {}, {}, {}
  for _, s in ipairs(structures) do
    local x = s.translations:values()
    for i = 1, #x / 3 - 1 do distances[#distances + 1] = distance(x, i) end
    radii[s.length] = radii[s.length] or {}
    table.insert(radii[s.length], mf.metrics.radius_of_gyration(x))
    rows[#rows + 1] = mf.metrics.backbone(s)
  end
  return { distances = distances, radii = radii, summary = mf.metrics.summary(rows), count = #structures }
end

--- Measures windows of the data as long as the samples, several of each length, where no residue is missing.
function M.data(set, lengths, n, seed)
  local list = {}
  for _, length in ipairs(lengths) do
    local rng, got, tries = streams.rng(seed, "crop", 0, length), 0, 0
    while got < 4 * n and tries < 1000 do
      tries = tries + 1
      local i = 1 + math.floor(rng:number() * set.count)
      local room = set:length(i) - length
      if room >= 0 then
        local window = set:collate({ i }, { windows = { { 1 + math.floor(rng:number() * (room + 1)), length } } })
        local index = window.index:values()
        if window.mask:all() and index[length] - index[1] == length - 1 then
          got = got + 1
          list[#list + 1] = structure.new {
            kind = "protein", rotations = window.rotations, translations = window.translations, torsions = window.torsions,
          }
        end
      end
    end
  end
  return M.set(list)
end

local function share(distances, within)
  local count = 0
  for _, d in ipairs(distances) do
    if math.abs(d - IDEAL) <= within then count = count + 1 end
  end
  return count / #distances
end

--- The table: a row for each of `list` = { name, measured }; distances against those of `data`.
function M.table(data, list)
  local rows = {}
  for _, item in ipairs(list) do
    local m = item[2]
    local d, s = mf.metrics.describe(m.distances), m.summary
    rows[#rows + 1] = {
      item[1], m.count, d.mean, d.sd, share(m.distances, 0.1), share(m.distances, 0.4),
      mf.metrics.wasserstein(m.distances, data.distances), s.num_ca_steric_clashes.mean, s.radius_gyration.mean * 10,
      s.helix_percent.mean, s.strand_percent.mean,
    }
  end
  local text = columns(
    { "backbones", "n", "CA-CA", "sd", "3.8+-0.1", "3.8+-0.4", "W1", "clashes", "Rg", "helix", "strand" }, rows)
  local radii, lengths = {}, {}
  for length in pairs(data.radii) do lengths[#lengths + 1] = length end
  table.sort(lengths)
  for k, length in ipairs(lengths) do
    radii[k] = { length }
    for j, item in ipairs(list) do
      radii[k][j + 1] = item[2].radii[length] and M.mean(item[2].radii[length]) or 0 / 0
    end
  end
  local names = { "Rg at length" }
  for j, item in ipairs(list) do names[j + 1] = item[1] end
  local note = "angstrom and shares of 1; clashes: CA pairs nearer than 1.5, a backbone; data: windows as long as the samples"
  return text .. "\n  (" .. note .. ")\n\n" .. columns(names, radii)
end

return M
