-- The samples of a folder, in the order of length and number.
local mf = require "moonfold"
local files = require "moonfold.files"

local ENDINGS = { ".pdb", ".cif", ".pdb.gz", ".cif.gz", ".bcif", ".bcif.gz" }

-- What sample wrote, where that is what the folder holds; else every structure in it but trajectories.
local function paths_of(folder)
  local all, samples, others = files.list(folder, ENDINGS), {}, {}
  for _, path in ipairs(all) do
    local name = path:match "[^/]*$"
    if path:find "/sample_%d+/sample_1%.[^/]*$" then samples[#samples + 1] = path
    elseif not name:find "_traj_" then others[#others + 1] = path end
  end
  return #samples > 0 and samples or others
end

--- Reads them.
-- @treturn table specimens with `path` and `label`
-- @treturn string kind
return function(folder)
  local paths, list, kind, first = paths_of(folder), {}, nil, nil
  if #paths == 0 then error(("%s holds no structure (%s)"):format(folder, table.concat(ENDINGS, ", ")), 0) end
  for k, path in ipairs(paths) do
    local s = mf.structure.read(path, { models = 1 })
    local specimen = mf.metrics.specimen.of_structure(s, path)
    s:release()
    kind, first = kind or specimen.kind, first or path
    if specimen.kind ~= kind then
      error(("%s is %s, %s is %s; one kind is measured at a time"):format(first, kind, path, specimen.kind), 0)
    end
    specimen.path, specimen.order = path, k
    specimen.sample = tonumber(path:match "/sample_(%d+)/[^/]*$") or k
    specimen.label = path:find "/sample_%d+/" and ("%d, sample %d"):format(specimen.length, specimen.sample)
      or path:match "([^/]*)%.%w+$"
    list[k] = specimen
  end
  table.sort(list, function(a, b)
    if a.length ~= b.length then return a.length < b.length end
    if a.sample ~= b.sample then return a.sample < b.sample end
    return a.order < b.order
  end)
  return list, kind
end
