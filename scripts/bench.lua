-- bench: times layers, kernels and models side by side in one run; prints a table and, with json=FILE, JSON lines.
--
--   moonfold scripts/bench.lua                              the cases that take a minute or two
--   moonfold scripts/bench.lua cases=layer lengths=256,1024,4096 json=layer.jsonl plot=layer.svg
--   moonfold scripts/bench.lua device=cuda cases=layer,model,kernel,sampling json=gpu.jsonl
--
-- Each case is a file of scripts/bench/: a function (o, report) that measures and calls report(row). Times are medians. On a GPU
-- columns come twice, eager and as a graph (mf.graph), a dash where there is no graph, with the reason on stderr.
local mf = require "moonfold"
local command = require "moonfold.command"
local json = require "moonfold.json"
local options = require "moonfold.options"

local known = {
  "gemm", "kernel", "geometry", "layer", "model", "sampling", "memory", "precision", "determinism", "profile", "overhead",
  "rows", "agreement", "batches", "structures", "lengths", "prefetch",
}

local program = {
  name = "bench", summary = "times layers, kernels and models. Cases: " .. table.concat(known, ", ") .. ".",
  { "cases", "paths", { "gemm", "kernel", "layer", "overhead" }, "what to measure" },
  { "lengths", "integers", options.OPTIONAL, "residues; each case has its own by default" },
  { "batches", "paths", options.OPTIONAL, "packs, as 39x512, or 64x64-512 for lengths between; on a GPU 39x512" },
  { "widths", "paths", options.OPTIONAL, "of the kernel case: query and value, as 158x228" },
  { "structures", "paths", options.OPTIONAL, "files: of the case structures; precision and agreement take their longest chains" },
  { "presets", "words", { "rna_frameflow/flash", "rna_frameflow/base", "foldflow/flash", "foldflow/base" },
    "of the cases lengths and prefetch" },
  { "small", "boolean", false, "their models at a tenth of their widths: to see it work" },
  { "memory", "number", options.OPTIONAL, "GiB that tensors of the lengths case may take, by default what the device has" },
  { "data", "path", options.OPTIONAL, "data set of the prefetch case; by default one is made" },
  { "mode", "string", "flash_1d_bias", "of the profile case's model, or layer" },
  { "blocks", "integer", 6, "of the model" },
  { "node", "integer", 256, "channels of the model" },
  { "neighbours", "integer", 20, "of each residue in the model" },
  { "device", "string", "cpu", "where tensors live" },
  { "precision", "string", options.OPTIONAL, "of attention: float32, fp16, bf16, split; fp16 on a GPU, else float32" },
  { "products", "string", options.OPTIONAL, "of matrix products: float32, tf32, bf16; tf32 on a GPU, else float32" },
  { "graph", "boolean", true, "on a GPU also through mf.graph" },
  { "threads", "integer", 0, "CPU threads, 0 for all cores" },
  { "repeats", "integer", 5, "timed runs of which the median counts" },
  { "torch", "boolean", true, "compare with PyTorch where python3 has it (CPU)" },
  { "dense", "boolean", true, "compare with dense-pair IPA" },
  { "json", "path", options.OPTIONAL, "append a JSON line for every row" },
  { "plot", "path", options.OPTIONAL, "picture of the layer case, .svg or .png" },
}
local o = command.parse(arg, program)

local gpu = o.device:sub(1, 4) == "cuda"
o.gpu, o.graph = gpu, o.graph and gpu
o.precision = o.precision or gpu and "fp16" or "float32"
o.products = o.products or gpu and "tf32" or "float32"

local folder = arg[0]:match "^(.*/)[^/]*$" or "./"
o.folder = folder
local sink

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

command.run(program, function()
  local is_known = {}
  for _, name in ipairs(known) do is_known[name] = true end
  for _, name in ipairs(o.cases) do
    if not is_known[name] then command.stop(program, "no case '%s' (known: %s)", name, table.concat(known, ", ")) end
  end
  mf.threads(o.threads)
  mf.precision(o.precision)
  mf.products(o.products)
  mf.seed(1)
  sink = o.json and assert(io.open(o.json, "a"))
  o.measure = assert(loadfile(folder .. "bench/measure.lua"))()(o)
  o.chains = assert(loadfile(folder .. "bench/chains.lua"))()
  print(("moonfold bench: %s, %d threads, attention %s, products %s"):format(o.device, mf.threads(), o.precision, o.products))
  for _, name in ipairs(o.cases) do assert(loadfile(folder .. "bench/" .. name .. ".lua"))()(o, report) end
  if sink then sink:close() end
end)
