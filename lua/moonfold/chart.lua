--- Charts as a picture: bars, outlines of histograms, points. SVG written here, PNG drawn by gnuplot.
--
--     chart.draw("set.svg", "train.safetensors", {
--       { title = "lengths", x = "residues", y = "entries", from = 0, width = 20, values = { 3, 14, 15 } },
--       { title = "types", y = "share", labels = { "A", "C" }, values = { 0.08, 0.02 } },
--     })
--
-- A panel has bars of equal width over numbers (`from`, `width`) or one for each of its `labels`. Or it compares several `series`:
-- { name, values } are outlines of bars over `from`, `width`; { name, x, y } are points.
-- @module moonfold.chart
local fail = require "moonfold.fail"
local files = require "moonfold.files"
local journal = require "moonfold.journal"

local quoted = journal.quoted
local M = {}

local WIDTH, HEIGHT = 460, 280                      -- of a panel, in points
local LEFT, RIGHT, TOP, BOTTOM = 58, 16, 34, 46     -- of its margins
local HEAD = 34                                     -- of the picture's title

-- Round numbers from 0 or `lo` to at least `hi`: about `count` steps of 1, 2, 2.5 or 5 times a power of ten.
local function ticks(lo, hi, count)
  local span = math.max(hi - lo, 1e-12)
  local power = 10 ^ math.floor(math.log10(span / count))
  local step = power
  for _, factor in ipairs { 1, 2, 2.5, 5, 10 } do
    step = factor * power
    if span / step <= count then break end
  end
  local list, k = {}, math.ceil(lo / step)
  while k * step <= hi + 1e-9 * span do
    list[#list + 1] = k * step
    k = k + 1
  end
  return list
end

local function escaped(text)
  return (tostring(text):gsub("[&<>]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }))
end

local COLOURS = { "#4878a8", "#c8502d", "#5a9e4b", "#8a63a8" }      -- of series

local function highest(panel)
  local most = 0
  for _, one in ipairs(panel.series or { panel }) do
    for _, value in ipairs(one.values or one.y) do most = math.max(most, value) end
  end
  return most > 0 and most * 1.05 or 1
end

-- Where the axis of numbers begins and ends.
local function range(panel)
  local first = panel.series and panel.series[1] or panel
  if first.values then return panel.from, panel.from + panel.width * #first.values end
  local least, most = math.huge, -math.huge
  for _, one in ipairs(panel.series) do
    for _, value in ipairs(one.x) do least, most = math.min(least, value), math.max(most, value) end
  end
  if least > most then return 0, 1 end
  local margin = math.max(0.05 * (most - least), 0.5)
  return least - margin, most + margin
end

local function bars_svg(put, panel, left, right, top, bottom, high)
  local bar = (right - left) / math.max(#panel.values, 1)
  local gap = panel.labels and 0.12 * bar or 0
  for k, value in ipairs(panel.values) do
    local tall = (bottom - top) * value / high
    if tall > 0 then
      put('<rect x="%.2f" y="%.2f" width="%.2f" height="%.2f" fill="#4878a8"/>', left + (k - 1) * bar + gap, bottom - tall,
        bar - 2 * gap, tall)
    end
    if panel.labels then
      put('<text x="%.1f" y="%g" text-anchor="middle">%s</text>', left + (k - 0.5) * bar, bottom + 15, escaped(panel.labels[k]))
    end
  end
end

local function series_svg(put, panel, left, right, top, bottom, high)
  local lo, hi = range(panel)
  for k, one in ipairs(panel.series) do
    local colour = COLOURS[(k - 1) % #COLOURS + 1]
    if one.values then
      local steps, bar = { ("M%.1f %.1f"):format(left, bottom) }, (right - left) / math.max(#one.values, 1)
      for i, value in ipairs(one.values) do
        steps[#steps + 1] = ("V%.1fH%.1f"):format(bottom - (bottom - top) * value / high, left + i * bar)
      end
      put('<path d="%sV%.1f" fill="%s" fill-opacity="0.13" stroke="%s" stroke-width="1.3"/>', table.concat(steps), bottom,
        colour, colour)
    else
      for i, x in ipairs(one.x) do
        put('<circle cx="%.1f" cy="%.1f" r="2.6" fill="%s" fill-opacity="0.55"/>', left + (right - left) * (x - lo) / (hi - lo),
          bottom - (bottom - top) * one.y[i] / high, colour)
      end
    end
    put('<rect x="%g" y="%g" width="9" height="9" fill="%s"/>', right - 78, top + 14 * k - 12, colour)
    put('<text x="%g" y="%g">%s</text>', right - 65, top + 14 * k - 4, escaped(one.name))
  end
end

local function panel_svg(out, panel, x, y)
  local function put(format, ...) out[#out + 1] = format:format(...) end
  local left, right, top, bottom = x + LEFT, x + WIDTH - RIGHT, y + TOP, y + HEIGHT - BOTTOM
  local high, middle = highest(panel), (left + right) / 2
  put('<text x="%g" y="%g" text-anchor="middle" font-weight="bold">%s</text>', middle, y + TOP - 12, escaped(panel.title))
  for _, value in ipairs(ticks(0, high, 5)) do
    local at = bottom - (bottom - top) * value / high
    put('<line x1="%g" y1="%.1f" x2="%g" y2="%.1f" stroke="#ddd"/>', left, at, right, at)
    put('<text x="%g" y="%.1f" text-anchor="end" dy="0.35em">%g</text>', left - 6, at, value)
  end
  local draw = panel.series and series_svg or bars_svg
  draw(put, panel, left, right, top, bottom, high)
  if not panel.labels then
    local lo, hi = range(panel)
    for _, value in ipairs(ticks(lo, hi, 6)) do
      local at = left + (right - left) * (value - lo) / (hi - lo)
      put('<line x1="%.1f" y1="%g" x2="%.1f" y2="%g" stroke="#444"/>', at, bottom, at, bottom + 4)
      put('<text x="%.1f" y="%g" text-anchor="middle">%g</text>', at, bottom + 17, value)
    end
  end
  put('<line x1="%g" y1="%g" x2="%g" y2="%g" stroke="#444"/>', left, bottom, right, bottom)
  put('<text x="%g" y="%g" text-anchor="middle" fill="#555">%s</text>', middle, bottom + 35, escaped(panel.x or ""))
  put('<text x="%g" y="%g" text-anchor="middle" fill="#555" transform="rotate(-90 %g %g)">%s</text>', x + 14, (top + bottom) / 2,
    x + 14, (top + bottom) / 2, escaped(panel.y or ""))
end

-- Panels side by side: two, or three where there are many.
local function columns_of(panels) return math.min(#panels > 6 and 3 or 2, #panels) end

local function size_of(panels)
  return WIDTH * columns_of(panels), HEAD + HEIGHT * math.ceil(#panels / columns_of(panels))
end

local function svg(title, panels)
  local width, height = size_of(panels)
  local columns = columns_of(panels)
  local out = {
    ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="11">')
      :format(width, height, width, height),
    '<rect width="100%" height="100%" fill="white"/>',
    ('<text x="%g" y="22" text-anchor="middle" font-size="14">%s</text>'):format(width / 2, escaped(title)),
  }
  for k, panel in ipairs(panels) do
    panel_svg(out, panel, WIDTH * ((k - 1) % columns), HEAD + HEIGHT * math.floor((k - 1) / columns))
  end
  out[#out + 1] = "</svg>\n"
  return table.concat(out, "\n")
end

local function gnuplot(path, title, panels)
  local width, height = size_of(panels)
  local columns = columns_of(panels)
  local script = {
    ("set terminal pngcairo noenhanced size %d,%d font 'sans,9'"):format(width, height), "set output " .. quoted(path),
    ("set multiplot layout %d,%d"):format(math.ceil(#panels / columns), columns) .. " title " .. quoted(title),
    "set grid ytics lc rgb '#dddddd'", "set style fill solid border lc rgb '#4878a8'",
  }
  for _, panel in ipairs(panels) do
    local lo, hi = 0.5, panel.labels and 0.5 + #panel.labels
    if not panel.labels then lo, hi = range(panel) end
    local names, plots, data = {}, {}, {}
    for k, label in ipairs(panel.labels or {}) do names[k] = ("%s %d"):format(quoted(label), k) end
    for k, one in ipairs(panel.series or { panel }) do
      local colour = panel.series and COLOURS[(k - 1) % #COLOURS + 1] or "#4878a8"
      local step = one.values and (hi - lo) / math.max(#one.values, 1)
      if not panel.series then
        plots[k] = ("'-' using 1:2:(%.17g) with boxes lc rgb '%s'"):format(step * (panel.labels and 0.76 or 1), colour)
      else
        plots[k] = ("'-' using 1:2 with %s lc rgb '%s' title %s")
          :format(one.values and "histeps lw 2" or "points pt 7 ps 0.7", colour, quoted(one.name))
      end
      for i, value in ipairs(one.values or one.y) do
        data[#data + 1] = ("%.17g %.17g"):format(one.values and lo + step * (i - 0.5) or one.x[i], value)
      end
      data[#data + 1] = "e"
    end
    script[#script + 1] = table.concat({
      "set title " .. quoted(panel.title), "set xlabel " .. quoted(panel.x or ""), "set ylabel " .. quoted(panel.y or ""),
      panel.series and "set key" or "unset key",
      ("set xrange [%.17g:%.17g]"):format(lo, hi), ("set yrange [0:%.17g]"):format(highest(panel)),
      panel.labels and ("set xtics (%s)"):format(table.concat(names, ", ")) or "set xtics auto",
      "plot " .. table.concat(plots, ", "), table.concat(data, "\n"),
    }, "\n")
  end
  script[#script + 1] = "unset multiplot\n"
  return journal.gnuplot(table.concat(script, "\n"))
end

--- Draws panels side by side, two in a row, three from seven on.
-- @tparam string path .svg, or .png, which takes gnuplot
-- @tparam string title
-- @tparam table panels see the head of this module; `title`, `x` and `y` are texts
function M.draw(path, title, panels)
  local ending = type(path) == "string" and path:match "%.(%w+)$"
  if ending ~= "svg" and ending ~= "png" then fail("plot: '%s' ends neither in .svg nor in .png", tostring(path)) end
  if ending == "svg" then return files.replace(path, svg(title, panels)) end
  if not gnuplot(path, title, panels) then
    fail("plot: %s: gnuplot, which draws .png, is not installed or refused; .svg needs no program", path)
  end
end

return M
