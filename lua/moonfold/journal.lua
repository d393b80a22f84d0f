--- A run's journal: rows of named numbers as CSV and JSON lines, and pictures of them by gnuplot.
--
--     local log = journal.open("runs/a/loss", { "step", "loss", "rotation" })
--     log:write { step = 1, loss = 2.5, rotation = 1.1 }
--     log:plot("runs/a/loss.svg", { x = "step", y = { "loss" }, title = "training" })
--
-- A resumed run truncates the rows after its checkpoint, so the file is what an uninterrupted run would have written.
-- @module moonfold.journal
local files = require "moonfold.files"
local json = require "moonfold.json"

local M = {}
local Journal = {}
Journal.__index = Journal

local function number(value)
  if type(value) ~= "number" then return tostring(value) end
  return ("%.9g"):format(value)
end

local function append(self, row)
  local cells, object = {}, {}
  for i, name in ipairs(self.columns) do
    local value = row[name]
    cells[i] = value == nil and "" or number(value)
    if type(value) ~= "number" or value - value == 0 then object[name] = value end     -- JSON has no nan and no infinity
  end
  self.csv:write(table.concat(cells, ","), "\n")
  self.lines:write(json.encode(object), "\n")
end

--- Opens a journal: `path`.csv and `path`.jsonl.
-- @tparam string path without ending
-- @tparam table columns names, in order; the first counts up
-- @tparam ?number keep rows whose first column is at most this are kept from an earlier run, later ones dropped
-- @treturn table
function M.open(path, columns, keep)
  local kept = {}
  if keep then
    for line in (files.read(path .. ".jsonl") or ""):gmatch "[^\n]+" do
      local ok, row = pcall(json.decode, line)
      if ok and row and row[columns[1]] <= keep then kept[#kept + 1] = row end
    end
  end
  local self = setmetatable({ path = path, columns = columns }, Journal)
  self.csv = assert(io.open(path .. ".csv", "w"))
  self.lines = assert(io.open(path .. ".jsonl", "w"))
  self.csv:write(table.concat(columns, ","), "\n")
  for _, row in ipairs(kept) do append(self, row) end
  return self
end

--- Adds a row.
-- @tparam table row column name -> number
function Journal:write(row)
  append(self, row)
  self.csv:flush()
  self.lines:flush()
end

function Journal:close()
  self.csv:close()
  self.lines:close()
end

--- Runs a script of gnuplot.
-- @tparam string script
-- @treturn boolean false when gnuplot is not installed or refuses
function M.gnuplot(script)
  local path = os.tmpname()         -- a file, not a pipe: closing a pipe does not tell what became of the program
  local file = assert(io.open(path, "w"))
  file:write(script)
  file:close()
  local ok = os.execute("gnuplot '" .. path .. "' >/dev/null 2>&1")
  os.remove(path)
  return ok == true or ok == 0
end

--- A text for a script of gnuplot: in single quotes it is taken as it is, but for the quote itself.
-- @param text
-- @treturn string
function M.quoted(text) return "'" .. tostring(text):gsub("'", "''") .. "'" end

local function terminal(path, width, height)
  local kind, size = path:match "%.(%w+)$", ("size %d,%d"):format(width or 900, height or 560)
  return kind == "png" and ("pngcairo %s font 'sans,11'"):format(size) or ("svg %s font 'sans,13' background 'white'"):format(size)
end

--- Draws columns of a CSV file over another one.
-- @tparam string csv path
-- @tparam string picture .svg or .png
-- @tparam table o `x`, `y` = names, `title`, `xlabel`, `ylabel`, `log` ("", "y", "xy"), `points` (true: few values, each
--   drawn as it is; else the values are pale and a smooth curve leads through them)
-- @treturn boolean false when gnuplot is not installed or refuses
function M.plot(csv, picture, o)
  local parts = {}
  for _, name in ipairs(o.y) do
    local data = ("'%s' using '%s':'%s'"):format(csv, o.x, name)
    local title = name:gsub("_", " ")
    if o.points then
      parts[#parts + 1] = ("%s with linespoints lw 2 pt 7 title '%s'"):format(data, title)
    else
      parts[#parts + 1] = data .. " with lines lw 1 lc rgb '#bbccdd' notitle"
      parts[#parts + 1] = ("%s smooth bezier with lines lw 2 title '%s'"):format(data, title)
    end
  end
  return M.gnuplot(table.concat({
    "set datafile separator comma", "set terminal " .. terminal(picture), ("set output '%s'"):format(picture),
    ("set title '%s'"):format(o.title or ""), ("set xlabel '%s'"):format(o.xlabel or o.x),
    ("set ylabel '%s'"):format(o.ylabel or ""), o.log and o.log ~= "" and ("set logscale " .. o.log) or "",
    "set grid lc rgb '#dddddd'", "set key top right",
    "plot " .. table.concat(parts, ", "), "",
  }, "\n"))
end

--- Draws the journal.
-- @tparam string picture .svg or .png
-- @tparam table o as `journal.plot`
-- @treturn boolean
function Journal:plot(picture, o)
  self.csv:flush()
  return M.plot(self.path .. ".csv", picture, o)
end

local COLOURS = { "#0b6fb8", "#d1495b", "#2e8b57", "#b8860b", "#6a4c93", "#555555" }
local PANEL_WIDTH, PANEL_HEIGHT = 460, 300
local FACTOR = 5         -- an axis is logarithmic where values differ by more than this factor

-- The least and the greatest of all that a panel shows.
local function range_of(panel)
  local low, high = math.huge, -math.huge
  for _, curve in ipairs(panel.curves) do
    for _, point in ipairs(curve.points) do
      low, high = math.min(low, point.low or point.y), math.max(high, point.high or point.y)
    end
  end
  return low, high
end

-- An axis with marks at 1, 2 and 5 of each decade: gnuplot's own may show a single one.
local function logarithmic_axis(low, high)
  local marks = {}
  for decade = math.floor(math.log10(low)), math.floor(math.log10(high)) do
    for _, digit in ipairs { 1, 2, 5 } do marks[#marks + 1] = ("%.9g"):format(digit * 10 ^ decade) end
  end
  return ("set logscale y; set yrange [%.9g:%.9g]; set ytics (%s)"):format(0.9 * low, 1.1 * high, table.concat(marks, ", "))
end

--- Draws panels of curves in one picture, the legend in the first.
-- @tparam string picture .svg or .png
-- @tparam table panels list of { title =, curves = { { name =, colour =, points = { { x =, y =, low =, high =, pale = } } } } }:
--   colours count from 1; where points have `low` and `high` a band is drawn between them, where they have `pale` a pale line
-- @tparam table o `title`, `xlabel`
-- @treturn boolean false when gnuplot is not installed or refuses
function M.panels(picture, panels, o)
  local across = math.min(3, math.ceil(math.sqrt(#panels)))
  local down = math.ceil(#panels / across)
  local script, rest = {}, {}
  for p, panel in ipairs(panels) do
    local low, high = range_of(panel)
    local plots, behind = {}, {}
    for c, curve in ipairs(panel.curves) do
      local data = ("$panel%d_%d"):format(p, c)
      local colour = COLOURS[(curve.colour - 1) % #COLOURS + 1]
      script[#script + 1] = data .. " << END"
      local banded, pale = false, false
      for _, point in ipairs(curve.points) do
        banded, pale = banded or point.low ~= nil, pale or point.pale ~= nil
        script[#script + 1] = ("%.9g %.9g %.9g %.9g %.9g"):format(point.x, point.y, point.low or point.y, point.high or point.y,
          point.pale or point.y)
      end
      script[#script + 1] = "END"
      if banded then
        local style = "with filledcurves lc rgb '%s' fs transparent solid 0.25 noborder notitle"
        behind[#behind + 1] = ("%s using 1:3:4 " .. style):format(data, colour)
      end
      if pale then behind[#behind + 1] = ("%s using 1:5 with lines lw 1 lc rgb '#c0%s' notitle"):format(data, colour:sub(2)) end
      plots[#plots + 1] = ("%s using 1:2 with lines lw 2 lc rgb '%s' title %s"):format(data, colour, M.quoted(curve.name))
    end
    for _, plot in ipairs(plots) do behind[#behind + 1] = plot end
    rest[#rest + 1] = "set title " .. M.quoted(panel.title)
    local logarithmic = low > 0 and high > FACTOR * low
    rest[#rest + 1] = logarithmic and logarithmic_axis(low, high) or "unset logscale y; set yrange [*:*]; set ytics auto"
    rest[#rest + 1] = p == 1 and "set key top right" or "unset key"
    rest[#rest + 1] = "plot " .. table.concat(behind, ", ")
  end
  return M.gnuplot(table.concat({
    table.concat(script, "\n"),
    "set terminal " .. terminal(picture, PANEL_WIDTH * across, PANEL_HEIGHT * down + 40) .. " noenhanced",
    "set output " .. M.quoted(picture), "set grid lc rgb '#dddddd'", "set xlabel " .. M.quoted(o.xlabel or ""),
    ("set multiplot layout %d,%d title %s"):format(down, across, M.quoted(o.title or "")),
    table.concat(rest, "\n"), "unset multiplot", "",
  }, "\n"))
end

--- Draws histograms of several samples over the same range, as shares.
-- @tparam string picture .svg or .png
-- @tparam table samples list of { name =, values = }
-- @tparam table o `lo`, `hi`, `bins`, `title`, `xlabel`
-- @treturn boolean
function M.histograms(picture, samples, o)
  local width = (o.hi - o.lo) / o.bins
  local script = {
    "set terminal " .. terminal(picture), ("set output '%s'"):format(picture), ("set title '%s'"):format(o.title or ""),
    ("set xlabel '%s'"):format(o.xlabel or ""), "set ylabel 'share'", "set grid lc rgb '#dddddd'",
  }
  local plots, data = {}, {}
  for _, sample in ipairs(samples) do
    local counts, inside = {}, 0
    for _, value in ipairs(sample.values) do
      local bin = math.floor((value - o.lo) / width)
      if bin >= 0 and bin < o.bins then
        counts[bin] = (counts[bin] or 0) + 1
        inside = inside + 1
      end
    end
    plots[#plots + 1] = ("'-' with histeps lw 2 title '%s'"):format(sample.name)
    for bin = 0, o.bins - 1 do
      data[#data + 1] = ("%g %g"):format(o.lo + (bin + 0.5) * width, (counts[bin] or 0) / math.max(#sample.values, 1))
    end
    data[#data + 1] = "e"
  end
  script[#script + 1] = "plot " .. table.concat(plots, ", ")
  return M.gnuplot(table.concat(script, "\n") .. "\n" .. table.concat(data, "\n") .. "\n")
end

return M
