--- Holds every value of CIF files against gemmi's (Debian package python3-gemmi), and the time that reading takes.
--
--     luajit spec/tools/cif_values.lua [folder ...]      -- ../shared/data/protein, rna and edge
--
-- Values of all files, and which of them are refused; then seconds of one core for the files that both read, plain text
-- counted. Ends with status 1 where a value differs.
local mf = require "moonfold"
local files = require "moonfold.files"
local structure = require "moonfold.structure_file"
local pythons = require "spec.tools.pythons"

local folders = arg[1] and { unpack(arg) } or { "../shared/data/protein", "../shared/data/rna", "../shared/data/edge" }
local here = arg[0]:match "^(.*)/[^/]*$" or "."

local python = pythons("gemmi")[1]
local list = {}
for _, folder in ipairs(folders) do
  for _, path in ipairs(files.list(folder, { ".cif", ".cif.gz" })) do list[#list + 1] = path end
end
if not python or #list == 0 then
  print(python and "skipped: no CIF files in " .. folders[1] or "skipped: no gemmi for python3")
  os.exit(0)
end

local names = os.tmpname()
local function ask(what, paths)
  local out = assert(io.open(names, "w"))
  out:write(table.concat(paths, "\n"), "\n")
  out:close()
  return io.popen(("%s %s/gemmi_cif.py %s < %s"):format(python, here, what, names))
end

-- ---- values ----

local function text_of(c, row, tag)
  local value = c:value(row, tag)
  if not value then return c:kind(row, tag) == "unknown" and "\1?" or "\1." end
  return (value:gsub("\r\n", "\n"):gsub("\n", "\2"))
end

local count = 0
local function lines_of(b, add)
  local lines = {}
  add("BLOCK " .. b.name)
  for _, c in ipairs(b.categories) do
    for _, tag in ipairs(c.tags) do
      local parts = { tag:lower() }
      for row = 1, c.rows do parts[row + 1] = text_of(c, row, tag) end
      lines[#lines + 1] = table.concat(parts, "\3")
      count = count + c.rows
    end
  end
  table.sort(lines)
  for _, line in ipairs(lines) do add(line) end
  for _, frame in ipairs(b.frames) do lines_of(frame, add) end
end

local both, wrong, refused = {}, 0, 0
local pipe = ask("values", list)
for _, path in ipairs(list) do
  local differs = false
  local function add(line)
    local theirs = pipe:read "*l"
    if theirs == line or differs then return end
    differs = true
    wrong = wrong + 1
    print(("%s: ours '%.60s', gemmi's '%.60s'"):format(path, line, tostring(theirs)))
  end
  add("FILE " .. path)
  local ok, file = pcall(mf.cif.read, path)
  if ok then
    for _, b in ipairs(file.blocks) do lines_of(b, add) end
    both[#both + 1] = path
  else
    refused = refused + 1
    add "REFUSED"
  end
end
pipe:close()
print(("%d files, %d of them refused by both; %d values; %d files differ"):format(#list, refused, count, wrong))

-- ---- time ----

local structures, megabytes = {}, 0
for _, path in ipairs(both) do
  if pcall(structure.read, path) then
    structures[#structures + 1] = path
    megabytes = megabytes + #files.read(path) / 1e6
  end
end
local function seconds(read)
  local start = os.clock()
  for _, path in ipairs(structures) do read(path) end
  return os.clock() - start
end
local inflate, values, atoms = seconds(files.read), seconds(mf.cif.read), seconds(structure.read)
local times = ask("seconds", structures)
local their_values, their_atoms = times:read("*n", "*n")
times:close()
os.remove(names)
print(("%d structures, %.1f MB of text; MB/s of one core"):format(#structures, megabytes))
print(("  inflated only            %6.1f"):format(megabytes / inflate))
print(("  every value   moonfold   %6.1f   gemmi.cif.read        %6.1f"):format(megabytes / values, megabytes / their_values))
print(("  structures    moonfold   %6.1f   gemmi.read_structure  %6.1f"):format(megabytes / atoms, megabytes / their_atoms))
os.exit(wrong == 0 and 0 or 1)
