--- Training runs side by side: what each came to, what their seeds make of it, which is better beyond them.
--
--     local c = compare.runs({ "runs/dense_1", "runs/dense_2", "runs/flash_1", "runs/flash_2" }, {})
--     c.runs[1].loss, c.groups[2].loss.mean, c.groups[2].verdict
--
-- Runs whose options differ in their seed alone are a group. A group is named by what tells it from the others: the preset, the
-- mode of the model, and as many more options as it takes.
-- @module moonfold.compare
local fail = require "moonfold.fail"
local files = require "moonfold.files"
local json = require "moonfold.json"
local loss_log = require "moonfold.loss_log"
local options = require "moonfold.options"

local M = {}

local defaults = {
  names = options.OPTIONAL,       -- one a run; those of one name are a group
  steps = options.OPTIONAL,       -- look at so many alone
  window = options.OPTIONAL,      -- steps that the last values are means over; by default a tenth of the run's
}

-- What changes nothing of what is learned.
local ASIDE = {
  out = true, seed = true, threads = true, prefetch = true, minutes = true, checkpoint_every = true, log_every = true,
}
-- Losses are numbers of one kind only where these agree, beside the weights and the terms themselves.
local LOSS = {
  "gate", "separate_rotation", "rotation_scaling", "x0_threshold", "angle_gate", "time_floor", "loss_atoms", "compat",
}
local SIGNIFICANT = 0.05

-- Options by dotted key, as texts.
local function flat(value, prefix, into)
  for key, inner in pairs(value) do
    if type(inner) == "table" and #inner == 0 then flat(inner, prefix .. key .. ".", into)
    else into[prefix .. key] = type(inner) == "table" and table.concat(inner, ",") or tostring(inner) end
  end
  return into
end

local function read_json(path)
  local text = files.read(path)
  if not text then return nil end
  local ok, value = pcall(json.decode, text)
  if not ok or type(value) ~= "table" then fail("%s is not a JSON object", path) end
  return value
end

local function last_part(folder) return folder:gsub("/+$", ""):match "[^/]*$" end

local function read(folder, name, o)
  local log = loss_log.read(folder, o.steps)
  if log.steps == 0 then fail("%s holds no step", log.path) end
  local saved, summary = read_json(folder .. "/options.json"), read_json(folder .. "/summary.json") or {}
  local run = {
    folder = folder, log = log, options = saved and flat(saved, "", {}), named = name, steps = log.steps,
    window = math.min(o.window or math.ceil(log.steps / 10), log.steps), terms = {},
    parameters = summary.parameters, peak_bytes = summary.peak_bytes, hardware = summary.hardware, outcome = summary.outcome,
  }
  run.seed = run.options and run.options.seed
  run.loss = log:mean("loss", run.window)
  for _, term in ipairs(log.terms) do run.terms[term] = log:mean(term, run.window) end
  for key, value in pairs(log:speed()) do run[key] = value end
  return run
end

-- What the runs of a group have in common.
local function signature(run)
  if run.named then return run.named end
  if not run.options then return "folder " .. run.folder end
  local words = {}
  for _, key in ipairs(options.sorted_keys(run.options)) do
    if not ASIDE[key] then words[#words + 1] = key .. "=" .. run.options[key] end
  end
  return table.concat(words, "\n")
end

local function distinct(labels)
  local seen, count = {}, 0
  for _, label in ipairs(labels) do
    if not seen[label] then seen[label], count = true, count + 1 end
  end
  return count
end

-- Options in the order in which labels try them.
local function candidates(groups)
  local keys = {}
  for _, group in ipairs(groups) do
    for key in pairs(group.runs[1].options or {}) do if not ASIDE[key] then keys[key] = true end end
  end
  keys.preset, keys["model.mode"] = nil, nil
  local list = options.sorted_keys(keys)
  table.insert(list, 1, "preset")
  table.insert(list, 2, "model.mode")
  return list
end

local function label(groups)
  local labels = {}
  for k in ipairs(groups) do labels[k] = "" end
  for _, key in ipairs(candidates(groups)) do
    local longer = {}
    for k, group in ipairs(groups) do
      local value = (group.runs[1].options or {})[key]
      local text = (key == "preset" or key == "model.mode") and value or value and ("%s=%s"):format(key, value)
      longer[k] = labels[k] .. (text and labels[k] ~= "" and ", " or "") .. (text or "")
    end
    if distinct(longer) > distinct(labels) then labels = longer end
  end
  for k, group in ipairs(groups) do
    local first = group.runs[1]
    local plain = #groups == 1 and first.options and first.options.preset
    group.name = first.named or plain or labels[k] ~= "" and labels[k] or last_part(first.folder)
  end
end

local function name_runs(group)
  local seeds = {}
  for _, run in ipairs(group.runs) do seeds[#seeds + 1] = run.seed end
  local by_seed = distinct(seeds) == #group.runs
  for _, run in ipairs(group.runs) do
    run.group = group.name
    if #group.runs == 1 then run.name = group.name
    elseif by_seed then run.name = ("%s seed %s"):format(group.name, run.seed)
    else run.name = ("%s %s"):format(group.name, last_part(run.folder)) end
  end
end

--- The mean and the standard deviation (n - 1) of numbers.
-- @tparam table values
-- @treturn table `n`, `mean`, and with two or more `deviation`
function M.moments(values)
  local n, sum, squares = #values, 0, 0
  if n == 0 then return { n = 0 } end
  for _, value in ipairs(values) do sum = sum + value end
  local mean = sum / n
  for _, value in ipairs(values) do squares = squares + (value - mean) ^ 2 end
  return { n = n, mean = mean, deviation = n > 1 and math.sqrt(squares / (n - 1)) or nil }
end

-- The probability that Student's t of nu >= 1 degrees of freedom is above t. With t = sqrt(nu) tan a its density is
-- proportional to cos(a)^(nu - 1), which Simpson's rule adds up.
local INTERVALS = 2000
local function above(t, nu)
  local function area(from)
    local step, sum = (math.pi / 2 - from) / INTERVALS, 0
    for k = 0, INTERVALS do
      local weight = (k == 0 or k == INTERVALS) and 1 or k % 2 == 1 and 4 or 2
      sum = sum + weight * math.max(math.cos(from + k * step), 0) ^ (nu - 1)
    end
    return sum * step / 3
  end
  return area(math.atan(t / math.sqrt(nu))) / area(-math.pi / 2)
end

--- Whether numbers of one kind are larger than others beyond their spread: Welch's test, one-sided.
-- @tparam table a moments, of two numbers at least
-- @tparam table b the same of the others
-- @treturn table `difference` (b - a), `error` (its standard error), `p`, the probability that chance alone would have made b as
--   much larger
function M.welch(a, b)
  local va, vb = a.deviation ^ 2 / a.n, b.deviation ^ 2 / b.n
  local difference, err = b.mean - a.mean, math.sqrt(va + vb)
  if err == 0 then return { difference = difference, error = 0, p = difference > 0 and 0 or difference < 0 and 1 or 0.5 } end
  local nu = (va + vb) ^ 2 / (va ^ 2 / (a.n - 1) + vb ^ 2 / (b.n - 1))
  return { difference = difference, error = err, p = above(difference / err, nu) }
end

-- Why the losses of two runs cannot be compared, or nil.
local function unlike(a, b)
  local x, y = a.options or {}, b.options or {}
  local keys = {}
  for _, key in ipairs(LOSS) do keys[#keys + 1] = "flow." .. key end
  for _, list in ipairs { a.log.terms, b.log.terms } do
    for _, term in ipairs(list) do
      if not a.log.values[term] or not b.log.values[term] then return "the losses have other terms" end
      keys[#keys + 1] = "flow.weights." .. term
    end
  end
  for _, key in ipairs(keys) do
    if x[key] ~= y[key] then return ("the losses differ in %s"):format(key) end
  end
  if a.steps ~= b.steps then return ("%d and %d steps: give steps=%d"):format(a.steps, b.steps, math.min(a.steps, b.steps)) end
end

-- What is to be said of a group beside the first.
local function judge(first, group)
  for _, a in ipairs(first.runs) do
    for _, b in ipairs(group.runs) do
      local reason = unlike(a, b)
      if reason then return { verdict = "not comparable", reason = reason } end
    end
  end
  if first.loss.n == 0 or group.loss.n == 0 then return { verdict = "not comparable", reason = "no loss is a number" } end
  if first.loss.n < 2 or group.loss.n < 2 then
    return { verdict = "unknown", reason = "one seed has no spread", difference = group.loss.mean - first.loss.mean }
  end
  local test = M.welch(first.loss, group.loss)
  test.verdict = test.p < SIGNIFICANT and "worse" or 1 - test.p < SIGNIFICANT and "better" or "within the spread of seeds"
  return test
end

--- Reads runs and compares them.
-- @tparam table folders of the runs
-- @tparam ?table o `names` (one a run; those of one name are a group), `steps` (look at so many alone), `window` (steps that
--   the last values are means over, by default a tenth of a run)
-- @treturn table `runs`: { name, group, folder, seed, steps, window, loss, terms = { name = mean }, seconds, steps_per_second,
--   residues_per_second, and of runs that ended parameters, peak_bytes, hardware, outcome }; `groups`: { name, runs, loss =
--   moments, terms = { name = moments }, against = { verdict, difference, error, p, reason } but of the first }; `terms`, names
function M.runs(folders, o)
  o = options("compare", defaults, o)
  if o.names and #o.names ~= #folders then fail("names: %d for %d runs", #o.names, #folders) end
  for _, key in ipairs { "steps", "window" } do
    if o[key] and o[key] < 1 then fail("%s must be at least 1, got %d", key, o[key]) end
  end
  local c, by_signature, known = { runs = {}, groups = {}, terms = {} }, {}, {}
  for k, folder in ipairs(folders) do
    local run = read(folder, o.names and o.names[k], o)
    c.runs[k] = run
    local key = signature(run)
    local group = by_signature[key]
    if not group then
      group = { runs = {} }
      by_signature[key], c.groups[#c.groups + 1] = group, group
    end
    group.runs[#group.runs + 1] = run
    for term in pairs(run.terms) do known[term] = true end
  end
  c.terms = options.sorted_keys(known)
  label(c.groups)
  for k, group in ipairs(c.groups) do
    name_runs(group)
    local function over_seeds(value_of)
      local values = {}
      for _, run in ipairs(group.runs) do values[#values + 1] = value_of(run) end
      return M.moments(values)
    end
    group.loss, group.terms = over_seeds(function(run) return run.loss end), {}
    for _, term in ipairs(c.terms) do group.terms[term] = over_seeds(function(run) return run.terms[term] end) end
    group.against = k > 1 and judge(c.groups[1], group) or nil
  end
  return c
end

local POINTS, SMOOTH = 300, 0.025        -- of a curve at the most; half the width of its running mean, as a share of them

-- Means of a column over `width` steps at a time, false where there is none.
local function binned(log, name, width)
  local sums, counts, list = {}, {}, {}
  for i, value in ipairs(log.values[name] or {}) do
    local bin = math.floor((i - 1) / width) + 1
    sums[bin], counts[bin] = sums[bin] or 0, counts[bin] or 0
    if value == value then sums[bin], counts[bin] = sums[bin] + value, counts[bin] + 1 end
  end
  for bin, sum in ipairs(sums) do list[bin] = counts[bin] > 0 and sum / counts[bin] end
  return list
end

-- A running mean, narrower towards both ends, so that it never leans to one side.
local function smoothed(list)
  local result = {}
  for i, own in ipairs(list) do
    local half, sum, count = math.min(math.ceil(SMOOTH * POINTS), i - 1, #list - i), 0, 0
    for j = i - half, i + half do
      if list[j] then sum, count = sum + list[j], count + 1 end
    end
    result[i] = own and sum / count
  end
  return result
end

-- A group's curve: the mean of its runs where each has a value, with the least and the greatest; of one run its own values, pale.
local function curve(group, number, name, width)
  local raw, lines, points = {}, {}, {}
  for k, run in ipairs(group.runs) do
    raw[k] = binned(run.log, name, width)
    lines[k] = smoothed(raw[k])
  end
  for i in ipairs(lines[1]) do
    local sum, low, high = 0, math.huge, -math.huge
    for _, line in ipairs(lines) do
      local value = line[i] or 0 / 0
      sum, low, high = sum + value, math.min(low, value), math.max(high, value)
    end
    if sum == sum then
      local one = #lines == 1
      points[#points + 1] = {
        x = (i - 0.5) * width, y = sum / #lines, low = not one and low or nil, high = not one and high or nil,
        pale = one and raw[1][i] or nil,
      }
    end
  end
  return { name = group.name, colour = number, points = points }
end

--- The curves of a comparison, a panel for the loss and one for each term: what `journal.panels` draws.
-- @tparam table c from `runs`
-- @treturn table
function M.panels(c)
  local most = 0
  for _, run in ipairs(c.runs) do most = math.max(most, run.steps) end
  local panels, width = {}, math.ceil(most / POINTS)
  for _, name in ipairs { "loss", unpack(c.terms) } do
    local panel = { title = name, curves = {} }
    for number, group in ipairs(c.groups) do
      local line = curve(group, number, name, width)
      if #line.points > 0 then panel.curves[#panel.curves + 1] = line end
    end
    if #panel.curves > 0 then panels[#panels + 1] = panel end
  end
  return panels
end

return M
