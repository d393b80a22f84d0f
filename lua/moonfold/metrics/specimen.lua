--- Backbones to be measured, from wherever they come: one form for files, samples and windows of a data set.
--
-- A specimen has `kind`, `length`, `name`, `flat` (coordinates in the order of `atoms.of(kind).names`, angstrom, NaN where absent)
-- and `torsions` (the model's own: flat pairs of sine and cosine, NaN where absent); for each residue `chain` (from 1), `number`
-- (jumps where residues are missing) and `run` (from 1, another after every break); `joined(i)`: whether i and i + 1 are of one
-- run.

local mf = require "moonfold"
local atoms = require "moonfold.atoms"
local backbone = require "moonfold.metrics.backbone"
local fail = require "moonfold.fail"
local file = require "moonfold.structure_file"

local M = {}
local Specimen = {}
Specimen.__index = Specimen

-- The atoms of `names` as files may call them.
local ALIASES = { N9 = "N9|N1", OP1 = "OP1|O1P", OP2 = "OP2|O2P" }

local function names_of(rules)
  local names = {}
  for k, name in ipairs(rules.names) do names[k] = ALIASES[name] or name end
  return names
end

-- Values with NaN where the mask, which has a value for every `width` of them, says no.
local function masked(values, mask, width)
  for i = 1, #values do
    local there = mask[math.floor((i - 1) / width) + 1]
    if there == false or there == 0 then values[i] = 0 / 0 end
  end
  return values
end

local function new(o)
  local run = {}
  for i = 1, #o.chain do
    local follows = i > 1 and o.chain[i] == o.chain[i - 1] and o.number[i] - o.number[i - 1] == 1
    run[i] = (run[i - 1] or 0) + (follows and 0 or 1)
  end
  o.length, o.run = #run, run
  function o.joined(i) return run[i] == run[i + 1] end
  return setmetatable(o, Specimen)
end

--- The polymer of the first model of a structure; all its chains, which must be of one kind.
-- @tparam Structure s read or built; a sample's `as_file()`
-- @tparam[opt] string name what messages call it
-- @treturn table a specimen
-- @usage local m = specimen.of_structure(mf.structure.read "spec/fixtures/1ubq.pdb.gz"):metrics()
function M.of_structure(s, name)
  local kind, flat, torsions, chains, numbers = nil, {}, {}, {}, {}
  for c, chain in ipairs(s:chains(1)) do
    if chain.residues > 0 and (chain.polymer == "protein" or chain.polymer == "rna") then
      if kind and kind ~= chain.polymer then fail("%s: holds protein and RNA; one kind is measured at a time", name or s.id) end
      kind = chain.polymer
      local rules = atoms.of(kind)
      local x, mask = s:atoms(chain.index, names_of(rules))
      for _, value in ipairs(masked(x:values(), mask:values(), 3)) do flat[#flat + 1] = value end
      local f = rules.features(s:atoms(chain.index, rules.inputs))
      for _, value in ipairs(masked(f.torsions:values(), f.torsion_mask:values(), 2)) do torsions[#torsions + 1] = value end
      for i = 1, chain.residues do
        chains[#chains + 1], numbers[#numbers + 1] = c, chain.labels[i]
      end
    end
  end
  if not kind then fail("%s: holds neither protein nor RNA", name or s.id) end
  return new { kind = kind, name = name or s.id, flat = flat, torsions = torsions, chain = chains, number = numbers }
end

--- A window of a data set's entry; residues without a frame are not in it.
-- @tparam Set set
-- @tparam number entry
-- @tparam[opt=1] number first residue of the window
-- @tparam[opt] number count residues, to the end by default
-- @tparam[opt=false] boolean exact the positions of the files (the set's `atoms`) rather than atoms built of frames and torsions,
--   as those of samples are
-- @treturn table a specimen
function M.of_window(set, entry, first, count, exact)
  first = first or 1
  count = count or set:length(entry) - first + 1
  local rules = atoms.of(set.kind)
  local names = set.container.atom_names
  return mf.no_grad(function()
    local w = set:collate({ entry }, { windows = { { first, count } }, atoms = exact })
    local x, present
    if exact then
      x, present = w.atoms, w.atom_mask
    else
      x, present = rules.build(w.rotations, w.translations, w.torsions), rules.present(w.mask, w.torsion_mask)
      names = rules.names
    end
    local column = {}
    for k, name in ipairs(names) do column[name] = k end
    local values, there, mask = x:values(), present:values(), w.mask:values()
    local index, chain = w.index:values(), w.chain:values()
    local pairs_, known = w.torsions:values(), w.torsion_mask:values()
    local flat, torsions, chains, numbers = {}, {}, {}, {}
    for i = 1, count do
      if mask[i] ~= 0 and mask[i] ~= false then
        chains[#chains + 1], numbers[#numbers + 1] = chain[i] + 1, index[i] + 1
        for _, name in ipairs(rules.names) do
          local at = column[name] and (i - 1) * #names + column[name]
          local shown = at and there[at] ~= 0 and there[at] ~= false
          for a = 2, 0, -1 do flat[#flat + 1] = shown and values[3 * at - a] or 0 / 0 end
        end
        for k = (i - 1) * rules.torsion_count + 1, i * rules.torsion_count do
          local shown = known[k] ~= 0 and known[k] ~= false
          torsions[#torsions + 1] = shown and pairs_[2 * k - 1] or 0 / 0
          torsions[#torsions + 1] = shown and pairs_[2 * k] or 0 / 0
        end
      end
    end
    return new { kind = set.kind, name = set:entry(entry).name, flat = flat, torsions = torsions, chain = chains, number = numbers }
  end)
end

--- The specimen as a structure like those that are read; its numbers jump where residues are missing.
-- @treturn Structure release it
function Specimen:structure()
  local rules, lengths, present, x = atoms.of(self.kind), {}, {}, {}
  for i, chain in ipairs(self.chain) do
    if i == 1 or chain ~= self.chain[i - 1] then lengths[#lengths + 1] = 0 end
    lengths[#lengths] = lengths[#lengths] + 1
  end
  for i = 1, #self.flat do
    local value = self.flat[i]
    x[i] = value == value and value or 0
    if i % 3 == 0 then present[i / 3] = value == value and 1 or 0 end
  end
  local n, width = self.length, #rules.names
  return file.from_atoms {
    atoms = mf.tensor(x, { dtype = "float64" }):reshape(n, width, 3), mask = mf.tensor(present):reshape(n, width):gt(0.5),
    names = rules.names, elements = rules.elements, residue_names = rules.residue, polymer = self.kind, lengths = lengths,
    numbers = self.number, id = self.name,
  }
end

--- What `metrics.backbone` says of a sample.
-- @treturn table
-- @treturn ?string letters of the secondary structure
function Specimen:metrics()
  return backbone.of_atoms(self.kind, self.flat, { chain = self.run, joined = self.joined, partial = true })
end

--- Coordinates of one atom a residue.
-- @tparam string name of atoms.of(kind).names
-- @treturn table flat, NaN where absent
function Specimen:atom(name)
  return backbone.split(self.flat, atoms.of(self.kind).names)[name]
end

return M
