-- Files that a parser must survive (../shared/data/edge): each is read, or refused with the reason that
-- spec/tools/known_differences.lua lists. spec/tools/gemmi_counts.lua holds what is read against gemmi.
local files = require "moonfold.files"
local structure = require "moonfold.structure_file"
local known = dofile "spec/tools/known_differences.lua"

local FOLDER = "../shared/data/edge"
local list = files.list(FOLDER, { ".pdb", ".pdb.gz", ".cif", ".cif.gz" })

describe("files to survive", function()
  if #list == 0 then pending "no ../shared/data/edge" end
  for _, path in ipairs(list) do
    local name = path:match "[^/]*$"
    local entry = known["edge/" .. name]
    local reason = entry and entry[1]:match "^refused: (.*)$"
    it(name .. (reason and " is refused" or " is read"), function()
      for _, read in ipairs { structure.read, function(p) for _ in structure.chains(p) do end end } do
        local ok, message = pcall(read, path)
        if reason then
          assert.is_false(ok)
          assert.is_truthy(message:find(reason, 1, true), message)
          assert.is_truthy(message:find(path, 1, true), message)
        else
          assert.is_true(ok, message)
        end
      end
    end)
  end
end)
