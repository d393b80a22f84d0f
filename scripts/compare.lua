-- compare: training runs side by side: their curves in one picture, what they came to, which is better beyond the seeds.
--
--   moonfold scripts/compare.lua runs=runs/dense_1,runs/dense_2,runs/flash_1,runs/flash_2 out=curves.svg
--
-- Runs that differ in their seed alone are a group: one colour, the mean as a line, a band from the least to the greatest. Of one
-- run the values are pale behind a running mean. Losses are means over the last steps; a group's is worse than the first one's
-- where Welch's test at 5 % says so. The table goes into a JSON file beside the picture too.
require "moonfold"
local columns = require "moonfold.columns"
local command = require "moonfold.command"
local compare = require "moonfold.compare"
local files = require "moonfold.files"
local journal = require "moonfold.journal"
local json = require "moonfold.json"
local options = require "moonfold.options"
local words = require "moonfold.words"

local program = {
  name = "compare", summary = "training runs side by side.",
  { "runs", "paths", command.REQUIRED, "their folders; the first one's group is what others are held against" },
  { "out", "path", "curves.svg", "picture, .svg or .png; the table goes into .json of the same name" },
  { "names", "words", options.OPTIONAL, "of the runs, in place of their options; runs of one name are a group" },
  { "window", "integer", options.OPTIONAL, "last steps that losses are means over, by default a tenth" },
  { "steps", "integer", options.OPTIONAL, "look at the first so many steps alone" },
}
local o = command.parse(arg, program)

local NONE = 0 / 0

local function runs_table(c)
  local heading, rows = { "run", "parameters", "steps", "loss" }, {}
  for _, term in ipairs(c.terms) do heading[#heading + 1] = term end
  for _, name in ipairs { "steps/s", "residues/s", "peak", "outcome" } do heading[#heading + 1] = name end
  for k, run in ipairs(c.runs) do
    local row = { run.name, run.parameters and words.thousands(run.parameters) or "-", run.steps, run.loss or NONE }
    for _, term in ipairs(c.terms) do row[#row + 1] = run.terms[term] or NONE end
    row[#row + 1] = run.steps_per_second or NONE
    row[#row + 1] = run.residues_per_second and math.floor(run.residues_per_second + 0.5) or NONE
    row[#row + 1] = run.peak_bytes and words.bytes(run.peak_bytes) or "-"
    row[#row + 1] = run.outcome or "-"
    rows[k] = row
  end
  return columns(heading, rows)
end

local function spread(moments)
  if moments.n == 0 then return "-" end
  return moments.deviation and ("%.4f +- %.4f"):format(moments.mean, moments.deviation) or ("%.4f"):format(moments.mean)
end

local function groups_table(c)
  local heading, rows = { "group", "seeds", "loss" }, {}
  for _, term in ipairs(c.terms) do heading[#heading + 1] = term end
  for k, group in ipairs(c.groups) do
    rows[k] = { group.name, #group.runs, spread(group.loss) }
    for _, term in ipairs(c.terms) do table.insert(rows[k], spread(group.terms[term])) end
  end
  return columns(heading, rows)
end

local function verdict(c, group)
  local a = group.against
  local number = a.difference and (" by %+.4f"):format(a.difference) or ""
  local reason = a.reason and (" (%s)"):format(a.reason) or (" (standard error %.4f, p = %.3g)"):format(a.error, a.p)
  return ("%s against %s: %s%s%s"):format(group.name, c.groups[1].name, a.verdict, number, reason)
end

-- What a JSON file is told: numbers and texts, neither logs nor lists of runs within groups.
local function told(c)
  local function picked(list, kept)
    local result = json.array {}
    for k, item in ipairs(list) do
      result[k] = {}
      for _, key in ipairs(kept) do result[k][key] = item[key] end
    end
    return result
  end
  return {
    runs = picked(c.runs, {
      "name", "group", "folder", "seed", "parameters", "steps", "window", "loss", "terms", "seconds", "steps_per_second",
      "residues_per_second", "peak_bytes", "hardware", "outcome",
    }),
    groups = picked(c.groups, { "name", "loss", "terms", "against" }),
  }
end

command.run(program, function()
  local ending = o.out:match "%.(%w+)$"
  if ending ~= "svg" and ending ~= "png" then command.stop(program, "out=%s ends neither in .svg nor in .png", o.out) end
  local c = compare.runs(o.runs, { names = o.names, window = o.window, steps = o.steps })
  print(runs_table(c))
  print("\n" .. groups_table(c) .. "\n")
  for _, group in ipairs(c.groups) do if group.against then print(verdict(c, group)) end end
  local path = o.out:gsub("%.%w+$", ".json")
  files.replace(path, json.encode(told(c)) .. "\n")
  if journal.panels(o.out, compare.panels(c), { title = "training", xlabel = "step" }) then
    print(("%s, %s"):format(o.out, path))
  else
    print(("%s; no picture: gnuplot is not there or refused (package gnuplot-nox)"):format(path))
  end
end)
