-- bench: times layers, kernels and models side by side in one run; prints a table and, with json=FILE, JSON lines.
--
--   moonfold scripts/bench.lua                              the cases that take a minute or two
--   moonfold scripts/bench.lua cases=layer lengths=256,1024,4096 json=layer.jsonl plot=layer.svg
--
-- Each case is a file of scripts/bench/: a function (o, report) that measures and calls report(row). Times are medians.
local mf = require "moonfold"
local command = require "moonfold.command"
local json = require "moonfold.json"
local options = require "moonfold.options"

local known = { "gemm", "attention", "layer", "model", "memory", "precision", "overhead" }

local o = command.parse(arg, {
  name = "bench", summary = "times layers, kernels and models. Cases: " .. table.concat(known, ", ") .. ".",
  { "cases", "paths", { "gemm", "attention", "layer", "overhead" }, "what to measure" },
  { "lengths", "integers", { 256, 512, 1024, 2048 }, "residues" },
  { "device", "string", "cpu", "where tensors live" },
  { "threads", "integer", 0, "CPU threads, 0 for all cores" },
  { "repeats", "integer", 5, "timed runs of which the median counts" },
  { "torch", "boolean", true, "compare with PyTorch where python3 has it" },
  { "dense", "boolean", true, "compare with dense-pair IPA" },
  { "json", "path", options.OPTIONAL, "append a JSON line for every row" },
  { "plot", "path", options.OPTIONAL, "picture of the layer case, .svg or .png" },
})

mf.threads(o.threads)
mf.seed(1)

local folder = arg[0]:match "^(.*/)[^/]*$" or "./"
o.folder = folder
local sink = o.json and assert(io.open(o.json, "a"))

local function cell(value)
  if type(value) ~= "number" then return tostring(value) end
  if value == math.floor(value) and math.abs(value) < 1e15 then return ("%d"):format(value) end
  if math.abs(value) < 1e-2 then return ("%.2e"):format(value) end
  return ("%.3f"):format(value)
end

-- Prints rows as they come; a row of other columns than the last one's gets a new heading.
local heading
local function report(row)
  local keys = {}
  for i = 1, #row, 2 do keys[#keys + 1] = row[i] end
  local head = table.concat(keys, " ")
  local cells, names, object = {}, {}, {}
  for i = 1, #row, 2 do
    local width = math.max(#row[i], i == 1 and 26 or 10)
    names[#names + 1] = ("%-" .. width .. "s"):format(row[i])
    cells[#cells + 1] = ("%-" .. width .. "s"):format(cell(row[i + 1]))
    object[row[i]] = row[i + 1]
  end
  if head ~= heading then
    print("\n" .. table.concat(names, "  "))
    heading = head
  end
  print(table.concat(cells, "  "))
  io.stdout:flush()
  if sink then
    sink:write(json.encode(object), "\n")
    sink:flush()
  end
end

print(("moonfold bench: %s, %d threads"):format(o.device, mf.threads()))
for _, name in ipairs(o.cases) do
  local path = folder .. "bench/" .. name .. ".lua"
  local case, problem = loadfile(path)
  if not case then
    io.stderr:write(("bench: no case '%s' (known: %s)\n%s\n"):format(name, table.concat(known, ", "), problem))
    os.exit(2, true)
  end
  case()(o, report)
end
if sink then sink:close() end
