-- Chains in space for the cases that measure accuracy: random ones as compact as a protein, or those of structure files.
local mf = require "moonfold"
local atoms = require "moonfold.atoms"
local structure_file = require "moonfold.structure_file"

local NM = 0.1
local M = {}

-- A random walk pulled back to the origin: each coordinate is an autoregressive process of the wanted variance. In nm.
local function compact(length)
  local radius, step = 0.22 * length ^ 0.38, 0.38
  local keep = 1 - step ^ 2 / (2 * radius ^ 2)
  local rng, at, rows = mf.rng(7), { 0, 0, 0 }, {}
  for i = 1, length do
    local direction = mf.randn(3, { rng = rng }):totable()
    local norm = math.sqrt(direction[1] ^ 2 + direction[2] ^ 2 + direction[3] ^ 2)
    for axis = 1, 3 do at[axis] = keep * at[axis] + step * direction[axis] / norm end
    rows[i] = { at[1], at[2], at[3] }
  end
  return mf.tensor(rows)
end

-- The longest chain of a file: its frames as they lie, in nm, and which residues have one.
local function longest(path)
  local structure, best = structure_file.read(path), nil
  for _, chain in ipairs(structure:chains(1)) do
    local known = chain.polymer == "protein" or chain.polymer == "rna"
    if known and #chain.sequence > (best and #best.sequence or 0) then best = chain end
  end
  if not best then error(("bench: structure: %s has no protein and no RNA"):format(path), 0) end
  local rules = atoms.of(best.polymer)
  local f = rules.features(structure:atoms(best.index, rules.inputs))
  return {
    name = ("%s %s"):format(path:match "([^/.]*)[^/]*$", best.id), length = f.mask:size(1), mask = f.mask,
    frames = { R = f.rotations, t = f.translations * NM },
  }
end

--- Lists { name, length, frames = { R, t }, mask or nil } on the CPU: files first, then one of each length.
function M.list(files, lengths)
  local list = {}
  for i, path in ipairs(files or {}) do list[i] = longest(path) end
  for _, length in ipairs(lengths) do
    list[#list + 1] = {
      name = ("L=%d"):format(length), length = length, frames = { R = mf.random.rotations(length), t = compact(length) },
    }
  end
  return list
end

return M
