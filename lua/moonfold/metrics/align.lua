--- Structural alignment without a correspondence, by the program TMalign (Debian package tm-align), several pairs at once.
--
-- Proteins are compared by CA and scored as TMalign prints. Nucleic acids are given to it as traces of C3', and the residues that
-- it aligned are scored by the TM-score with the d0 of RNA. RNA-align (US-align) would search with that scale and with base pairs
-- as its secondary structure; TMalign's search has those of proteins, so its alignment of RNA is an approximation from below.

local ffi = require "ffi"
local binding = require "moonfold.ffi"
local fail = require "moonfold.fail"
local files = require "moonfold.files"
local options = require "moonfold.options"
local process = require "moonfold.process"

local C = binding.C
local M = {}

local LEAST = 5        -- residues; TMalign cannot align fewer
local ATOMS = { protein = "CA", rna = "C3'" }

--- Whether TMalign is on the PATH.
-- @treturn boolean
function M.available() return os.execute "command -v TMalign >/dev/null 2>&1" == 0 end

--- What is aligned of a specimen.
-- @tparam table specimen see metrics.specimen
-- @treturn table a trace: `kind`, `length` (residues with the atom) and flat coordinates
function M.trace(specimen)
  local trace, x = { kind = specimen.kind, name = specimen.name }, specimen:atom(ATOMS[specimen.kind])
  for i = 1, #x, 3 do
    if x[i] == x[i] then
      for a = 0, 2 do trace[#trace + 1] = x[i + a] end
    end
  end
  trace.length = #trace / 3
  return trace
end

local function write(path, trace)
  local lines = {}
  for i = 1, trace.length do
    lines[i] = ("ATOM  %5d  CA  ALA A%4d    %8.3f%8.3f%8.3f  1.00  0.00           C")
      :format(i % 100000, i % 10000, trace[3 * i - 2], trace[3 * i - 1], trace[3 * i])
  end
  lines[#lines + 1] = "TER\n"
  files.replace(path, table.concat(lines, "\n"))
end

-- The TM-score of the aligned residues with the scale of their kind, as a share of `length` residues.
local function rescored(a, b, aligned, length, polymer)
  local n = #aligned
  local p, q, result = ffi.new("double[?]", 3 * n + 1), ffi.new("double[?]", 3 * n + 1), ffi.new "mf_tm_result"
  for k, pair in ipairs(aligned) do
    for m = 1, 3 do p[3 * k - 4 + m], q[3 * k - 4 + m] = a[3 * pair[1] - 3 + m], b[3 * pair[2] - 3 + m] end
  end
  binding.check(C.mf_tm_score(result, p, q, n, length, C.mf_tm_d0(length, polymer)))
  return result.tm
end

-- Pairs of residues that two lines of an alignment put on each other; TMalign's third line marks those nearer than 5.
local function aligned_of(first, second)
  local list, i, j = {}, 0, 0
  for k = 1, #first do
    local x, y = first:sub(k, k) ~= "-", second:sub(k, k) ~= "-"
    i, j = i + (x and 1 or 0), j + (y and 1 or 0)
    if x and y then list[#list + 1] = { i, j } end
  end
  return list
end

local function read(text, a, b)
  local tm1 = text:match "TM%-score=%s*([%d.]+) %(if normalized by length of Chain_1"
  local tm2 = text:match "TM%-score=%s*([%d.]+) %(if normalized by length of Chain_2"
  local first, second = text:match "denotes[^\n]*\n([%a-]+) *\n[^\n]*\n([%a-]+)"
  if not tm1 or not tm2 or not first then fail("metrics.align: TMalign said of %s and %s:\n%s", a.name, b.name, text) end
  local aligned = aligned_of(first, second)
  local result = { tm1 = tonumber(tm1), tm2 = tonumber(tm2), aligned = #aligned }
  result.rmsd = tonumber(text:match "RMSD=%s*([%d.]+)")
  if a.kind == "rna" and #aligned > 0 then
    result.tm1 = rescored(a, b, aligned, a.length, C.MF_POLYMER_RNA)
    result.tm2 = rescored(a, b, aligned, b.length, C.MF_POLYMER_RNA)
  end
  return result
end

local defaults = { jobs = 2, progress = options.OPTIONAL }

-- A folder for traces, each written once, when it is first needed.
local function open_folder()
  local path, paths, count = os.tmpname(), {}, 0
  os.remove(path)
  files.make_folder(path)
  local folder = {}
  function folder.file(trace)
    if not paths[trace] then
      count = count + 1
      paths[trace] = ("%s/%d.pdb"):format(path, count)
      write(paths[trace], trace)
    end
    return paths[trace]
  end
  function folder.remove()
    for _, file in pairs(paths) do os.remove(file) end
    os.remove(path)
  end
  return folder
end

-- The pairs' results, `jobs` programs at once; `running` lists those that have not ended.
local function run_all(pairs_, o, folder, running)
  local results, next_pair, done = {}, 1, 0
  local function finish(k, result)
    results[k], done = result, done + 1
    if o.progress then o.progress(done, #pairs_) end
  end
  local function start(k)
    local a, b = pairs_[k][1], pairs_[k][2]
    if a.kind ~= b.kind then fail("metrics.align: %s is %s, %s is %s", a.name, a.kind, b.name, b.kind) end
    if a.length < LEAST or b.length < LEAST then return finish(k, false) end
    local p = process.start { "TMalign", folder.file(a), folder.file(b) }
    p.pair, p.text = k, {}
    running[#running + 1] = p
  end
  while done < #pairs_ do
    while #running < o.jobs and next_pair <= #pairs_ do
      start(next_pair)
      next_pair = next_pair + 1
    end
    local p = #running > 0 and process.poll(running, 3600)
    for line in p and p.line or function() end, p do p.text[#p.text + 1] = line end
    if p and p:ended() then
      for k, other in ipairs(running) do
        if other == p then table.remove(running, k) break end
      end
      p:wait()
      local text, pair = table.concat(p.text, "\n") .. "\n" .. p:errors(), pairs_[p.pair]
      p:release()
      finish(p.pair, read(text, pair[1], pair[2]))
    end
  end
  return results
end

--- Aligns pairs of structures.
-- @tparam table pairs_ a list of { trace, trace }, of one kind; the same table stands for the same structure
-- @tparam ?table o `jobs` (2): programs at once; `progress(done, total)`
-- @treturn table a list of { `tm1`, `tm2`: TM-scores as shares of the first and of the second structure's residues, `rmsd` of the
--   `aligned` residues }; false where a structure has fewer than 5
-- @usage local two = { align.trace(a), align.trace(b) }; print(align.pairs({ two })[1].tm1)
function M.pairs(pairs_, o)
  o = options("metrics.align", defaults, o or {})
  if not M.available() then fail "metrics.align: TMalign is not on the PATH (Debian package tm-align)" end
  local folder, running = open_folder(), {}
  local ok, results = pcall(run_all, pairs_, o, folder, running)
  for _, p in ipairs(running) do p:release() end
  folder.remove()
  if not ok then error(results, 0) end
  return results
end

return M
