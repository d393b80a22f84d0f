--- Holding two structures against each other.
local ffi = require "ffi"
local C = require("moonfold.ffi").C

local M = {}

local function count(s)
  local n = ffi.new "mf_structure_counts"
  C.mf_structure_count(s.handle, n)
  return n
end

local function text(s, what, i) return ffi.string(C.mf_structure_text(s.handle, C[what], i)) end

local function rounded(x, decimals)
  local ten = 10 ^ decimals
  local whole = math.floor(math.abs(x) * ten + 0.5) -- away from zero, like llround
  return (x < 0 and -whole or whole) / ten
end

-- Serials in the order of the archive's files: of polymers and then of the rest.
local function serials(s)
  local list, chain, residue, atom = {}, ffi.new "mf_chain_info", ffi.new "mf_residue_info", ffi.new "mf_atom_info"
  local function take(c, polymer)
    C.mf_structure_chain(s.handle, c, chain)
    for r = tonumber(chain.first_residue), tonumber(chain.first_residue + chain.residues) - 1 do
      C.mf_structure_residue(s.handle, r, residue)
      for i = tonumber(residue.first_atom), tonumber(residue.first_atom + residue.atoms) - 1 do
        C.mf_structure_atom(s.handle, i, atom)
        if (residue.label ~= 0) == polymer then list[#list + 1] = atom.serial end
      end
    end
  end
  for _, polymer in ipairs { true, false } do
    for c = 0, tonumber(count(s).chains) - 1 do take(c, polymer) end
  end
  return list
end

-- Can they be kept: do they rise?
local function rising(s)
  local list = serials(s)
  for i = 2, #list do
    if list[i] <= list[i - 1] then return false end
  end
  return list[1] >= 0
end

--- The first difference between a structure and what was read back of it: every field that the C interface shows.
-- Label ids and serials that the first has not (or that do not rise) may be new in the second.
-- @param a what was written
-- @param b what was read
-- @tparam[opt] string format "pdb": only what its columns hold (no label ids, entities, assemblies, serials; coordinates to 0.001,
-- B and occupancy to 0.01, ids of four letters, blanks of titles)
-- @treturn ?string
function M.difference(a, b, format)
  local pdb = format == "pdb"
  local function squeezed(x) return pdb and (x:gsub("%s+", " ")) or x end
  for _, field in ipairs { "id", "title", "method", "date" } do
    local lost = pdb and field == "id" and #a.id > 4
    if not lost and squeezed(a[field]) ~= squeezed(b[field]) then return ("%s: '%s' -> '%s'"):format(field, a[field], b[field]) end
  end
  if a.resolution ~= b.resolution then
    return ("resolution: %s -> %s"):format(a.resolution, b.resolution)
  end
  local n, m = count(a), count(b)
  for _, field in ipairs { "models", "chains", "residues", "atoms" } do
    if n[field] ~= m[field] then return ("%s: %d -> %d"):format(field, tonumber(n[field]), tonumber(m[field])) end
  end
  local cell = { ffi.new "double[6]", ffi.new "double[6]" }
  C.mf_structure_cell(cell[1], a.handle)
  C.mf_structure_cell(cell[2], b.handle)
  for i = 0, 5 do
    local x = pdb and rounded(cell[1][i], i < 3 and 3 or 2) or cell[1][i]
    if x ~= cell[2][i] then return ("cell %d: %g -> %g"):format(i + 1, cell[1][i], cell[2][i]) end
  end
  local lost = pdb and cell[1][0] == 0 -- the conventional cell stands for none
  if not lost and text(a, "MF_TEXT_SPACE_GROUP", 0) ~= text(b, "MF_TEXT_SPACE_GROUP", 0) then
    return ("space group: '%s' -> '%s'"):format(text(a, "MF_TEXT_SPACE_GROUP", 0), text(b, "MF_TEXT_SPACE_GROUP", 0))
  end
  local c1, c2 = ffi.new "mf_chain_info", ffi.new "mf_chain_info"
  for c = 0, tonumber(n.chains) - 1 do
    C.mf_structure_chain(a.handle, c, c1)
    C.mf_structure_chain(b.handle, c, c2)
    local id, other = text(a, "MF_TEXT_CHAIN", c), text(b, "MF_TEXT_CHAIN", c)
    if id ~= other then return ("chain %d: id '%s' -> '%s'"):format(c + 1, id, other) end
    for _, field in ipairs { "model", "polymer", "residues", "first_residue" } do
      local x, y = tonumber(c1[field]), tonumber(c2[field])
      if x ~= y then return ("chain %s: %s: %d -> %d"):format(id, field, x, y) end
    end
  end
  local r1, r2 = ffi.new "mf_residue_info", ffi.new "mf_residue_info"
  for r = 0, tonumber(n.residues) - 1 do
    C.mf_structure_residue(a.handle, r, r1)
    C.mf_structure_residue(b.handle, r, r2)
    local name = text(a, "MF_TEXT_RESIDUE", r)
    local where = ("residue %d (%s %d)"):format(r + 1, name, r1.number)
    if name ~= text(b, "MF_TEXT_RESIDUE", r) then return where .. ": name -> " .. text(b, "MF_TEXT_RESIDUE", r) end
    for _, field in ipairs { "first_atom", "atoms", "number", "insertion", "code", "hetero", "label" } do
      local same = r1[field] == r2[field] or (pdb and field == "label" and (r1.label == 0) == (r2.label == 0))
      if not same then return ("%s: %s: %d -> %d"):format(where, field, tonumber(r1[field]), tonumber(r2[field])) end
    end
    for _, field in ipairs(pdb and {} or { "MF_TEXT_ASYM", "MF_TEXT_RESIDUE_ENTITY" }) do
      local x, y = text(a, field, r), text(b, field, r)
      if x ~= "" and x ~= y then return ("%s: %s: '%s' -> '%s'"):format(where, field, x, y) end
    end
  end
  local keeps = not pdb and rising(a)
  local a1, a2 = ffi.new "mf_atom_info", ffi.new "mf_atom_info"
  for i = 0, tonumber(n.atoms) - 1 do
    C.mf_structure_atom(a.handle, i, a1)
    C.mf_structure_atom(b.handle, i, a2)
    local where = ("atom %d"):format(i + 1)
    for _, field in ipairs { "MF_TEXT_ATOM", "MF_TEXT_ELEMENT" } do
      local x, y = text(a, field, i), text(b, field, i)
      if x ~= y then return ("%s: %s: '%s' -> '%s'"):format(where, field, x, y) end
    end
    for _, field in ipairs { "x", "y", "z", "occupancy", "b", "altloc", "charge" } do
      local x, y = a1[field], a2[field]
      if pdb and #field == 1 and field ~= "b" then x = rounded(x, 3)
      elseif pdb and (field == "b" or field == "occupancy") then x = rounded(x, x < 999.995 and x > -99.995 and 2 or 1) end
      if x ~= y then return ("%s: %s: %.17g -> %.17g"):format(where, field, tonumber(a1[field]), tonumber(y)) end
    end
    if keeps and a1.serial ~= a2.serial then return ("%s: serial: %d -> %d"):format(where, a1.serial, a2.serial) end
  end
  if not pdb and n.entities > 0 then
    for _, field in ipairs { "entities", "monomers", "assemblies" } do
      -- residues that had no entity have one, entities that had no sequence too
      local grown = field ~= "assemblies" and m[field] >= n[field]
      if n[field] ~= m[field] and not grown then return ("%s: %d -> %d"):format(field, tonumber(n[field]), tonumber(m[field])) end
    end
    local e1, e2 = ffi.new "mf_entity_info", ffi.new "mf_entity_info"
    for e = 0, tonumber(n.entities) - 1 do
      C.mf_structure_entity(a.handle, e, e1)
      C.mf_structure_entity(b.handle, e, e2)
      for _, field in ipairs { "MF_TEXT_ENTITY_ID", "MF_TEXT_ENTITY_NAME" } do
        local x, y = text(a, field, e), text(b, field, e)
        if x ~= y then return ("entity %d: '%s' -> '%s'"):format(e + 1, x, y) end
      end
      for k = 0, tonumber(e1.monomers) - 1 do
        local x, y = text(a, "MF_TEXT_MONOMER", e1.first_monomer + k), text(b, "MF_TEXT_MONOMER", e2.first_monomer + k)
        if x ~= y then return ("entity %d: monomer %d: %s -> %s"):format(e + 1, k + 1, x, y) end
      end
      local x, y = tonumber(e1.monomers), tonumber(e2.monomers)
      if x > 0 and x ~= y then return ("entity %d: %d monomers -> %d"):format(e + 1, x, y) end
    end
  end
end

return M
