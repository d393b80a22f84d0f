--- What an entry of a data set is made of, from the chains of a structure: frames, torsions, atoms, positions, and what is
-- known of it.
-- @module moonfold.data.prepare.features

local ffi = require "ffi"
local mf = require "moonfold"
local atoms = require "moonfold.atoms"
local binding = require "moonfold.ffi"
local chemistry = require "moonfold.chemistry"

local C, check = binding.C, binding.check
local M = {}

-- Heavy atoms in the order of the peers' arrays (atom37; the RNA's 27 slots); selenium stands in sulphur's place.
local HEAVY = {
  protein = [[N CA C CB O CG CG1 CG2 OG OG1 SG CD CD1 CD2 ND1 ND2 OD1 OD2 SD|SE CE CE1 CE2 CE3 NE NE1 NE2 OE1 OE2 CH2 NH1 NH2
    OH CZ CZ2 CZ3 NZ OXT]],
  rna = [[C1' C2' C3' C4' C5' O5' O4' O3' O2' P OP1|O1P OP2|O2P N1 N2 N3 N4 N6 N7 N9 C2 C4 C5 C6 C8 O2 O4 O6]],
}
-- The backbone in the order of `atoms.of(kind).build`; a pyrimidine's N1 stands in the place of N9.
local BACKBONE = {
  protein = "N CA C CB O", rna = "C3' C4' O4' C5' C2' C1' N9|N1 O3' O5' P OP1|O1P OP2|O2P O2'",
}

--- Atoms that a set holds.
-- @tparam string kind "protein" or "rna"
-- @tparam string which "backbone", "heavy" or "none"
-- @treturn table what is asked of a structure: names with their alternatives
-- @treturn table their names
function M.atom_names(kind, which)
  local queries, names = {}, {}
  local list = which == "heavy" and HEAVY[kind] or which == "backbone" and BACKBONE[kind] or ""
  for query in list:gmatch "%S+" do queries[#queries + 1], names[#names + 1] = query, query:match "^[^|]+" end
  return queries, names
end

local STANDARD = {}
for name in ("ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL MSE A C G U"):gmatch "%S+" do
  STANDARD[name] = true
end

-- One letter a residue; "X" where the type does not count.
local function letters_of(chain, types)
  if types == "parents" then return chain.sequence end
  local letters = {}
  for i, name in ipairs(chain.names) do letters[i] = STANDARD[name] and chain.sequence:sub(i, i) or "X" end
  return table.concat(letters)
end

local function types_of(letters, known)
  local result = {}
  for i = 1, #letters do result[i] = (known:find(letters:sub(i, i), 1, true) or #known + 1) - 1 end
  return result
end

-- Positions of a chain's residues: see profiles.defaults.
local function positions_of(chain, rule, labelled)
  if rule == "author" then return chain.numbers end
  if rule == "rows" then
    local rows = {}
    for i = 1, chain.residues do rows[i] = i end
    return rows
  end
  if labelled then return chain.labels end
  for i = 2, #chain.numbers do
    if chain.numbers[i] <= chain.numbers[i - 1] then return chain.labels end
  end
  return chain.numbers
end

-- First and last true value of a list, and how many there are.
local function extent(n, is_true)
  local first, last, count = nil, nil, 0
  for i = 1, n do
    if is_true(i) then first, last, count = first or i, i, count + 1 end
  end
  return first, last, count
end

-- The chains' rows end to end: positions of the atoms, letters, positions in the sequence, number of the chain.
local function gather(s, chains, o, queries)
  local inputs = atoms.of(o.polymer).inputs
  local g = { x = {}, present = {}, atoms = {}, atom_mask = {}, letters = {}, index = {}, chain = {} }
  local before = 0
  for c, chain in ipairs(chains) do
    g.x[c], g.present[c] = s:atoms(chain.index, inputs)
    if #queries > 0 then g.atoms[c], g.atom_mask[c] = s:atoms(chain.index, queries) end
    g.letters[c] = letters_of(chain, o.types)
    local positions = positions_of(chain, o.positions, o.labelled)
    local n = #g.index
    local shift = c == 1 and 0 or g.index[n] + 1 + o.chain_gap - positions[1]
    for i = 1, chain.residues do g.index[n + i], g.chain[n + i] = positions[i] + shift, c - 1 end
    before = before + chain.residues
  end
  for _, name in ipairs { "x", "present", "atoms", "atom_mask" } do
    g[name] = #g[name] > 1 and mf.cat(g[name], 1) or g[name][1]
  end
  g.letters, g.n = table.concat(g.letters), before
  return g
end

local function whole_numbers(list, first, last, less)
  local part = {}
  for i = first, last do part[#part + 1] = list[i] - less end
  return mf.tensor(part, { dtype = "int32" })
end

-- Frames as the peers' arrays give them: absent atoms are at the centre, and one atom decides about the residue. Where that
-- fixes no frame the rotation is the identity; theirs is no rotation.
local function peers_frames(f, rules, x, present)
  local there = present:select(2, rules.peers_valid)
  local weight = there:double():unsqueeze(2)
  local points = x:select(2, rules.peers_valid):double()
  local centre = (points * weight):sum(1, true) / weight:sum():item()
  local filled = mf.where(present:unsqueeze(3), x, centre:float():unsqueeze(1))
  f.rotations = rules.features(filled, present:logical_or(present:logical_not())).rotations
  f.translations, f.mask, f.centres = filled:select(2, rules.origin), there, points
end

local function make(s, chains, o)
  local rules, queries = atoms.of(o.polymer), M.atom_names(o.polymer, o.atoms)
  local g = gather(s, chains, o, queries)
  local f = rules.features(g.x, g.present)
  if o.valid_by == "atom" then peers_frames(f, rules, g.x, g.present) end
  local frame = f.mask:float():values()
  local first, last = extent(g.n, o.trim == "frames" and function(i) return frame[i] > 0 end
    or function(i) return rules.types:find(g.letters:sub(i, i), 1, true) ~= nil end)
  if not first then return nil, o.trim == "frames" and "no frames: backbone atoms are missing" or "no known residue" end
  local _, _, count = extent(last - first + 1, function(i) return frame[first + i - 1] > 0 end)
  if count == 0 then return nil, "no frames: backbone atoms are missing" end
  local n = last - first + 1
  local function cut(tensor) return tensor:narrow(1, first, n):contiguous() end
  local mask = cut(f.mask)
  local column = mask:float():reshape(n, 1)
  local translations = cut(f.translations):double()
  local centre = (cut(f.centres or f.translations):double() * column:double()):sum(1, true) / count
  local entry = {
    translations = ((translations - centre) * column:double()):float(), rotations = cut(f.rotations), torsions = cut(f.torsions),
    torsion_mask = cut(f.torsion_mask), mask = mask,
    aatype = mf.tensor(types_of(g.letters:sub(first, last), rules.types), { dtype = "int32" }),
    index = whole_numbers(g.index, first, last, g.index[first]), chain = whole_numbers(g.chain, first, last, g.chain[first]),
    sequence = g.letters:sub(first, last), valid = count / n, length = n, rows = g.n, first = first,
  }
  if #queries > 0 then
    entry.atom_mask = cut(g.atom_mask)
    entry.atoms = mf.where(entry.atom_mask:unsqueeze(3), (cut(g.atoms):double() - centre:reshape(1, 1, 3)):float(), 0)
  end
  return entry
end

--- An entry of one chain or of several joined, trimmed at both ends and centred on its valid residues.
-- @tparam Structure s from structure_file
-- @tparam table chains of `s:chains()`
-- @tparam table o `polymer`, `trim`, `types`, `positions`, `chain_gap`, `atoms`, `valid_by` as in prepare.profiles, and `labelled`:
--   the file has label_seq_id
-- @treturn ?table the tensors of data.layout, `sequence`, `length`, `rows` (before trimming), `first` (row of them), `valid`
--   (share of residues with a frame); nil and a reason
function M.entry(s, chains, o)
  local rows = 0
  for _, chain in ipairs(chains) do rows = rows + chain.residues end
  if rows == 0 then return nil, "no residues" end
  return mf.scope(make, s, chains, o)
end

--- Radius of gyration of the heavy atoms of some chains' polymers, equal masses.
-- @treturn number angstrom
function M.gyration(s, chains)
  local info, residue, atom = ffi.new "mf_chain_info", ffi.new "mf_residue_info", ffi.new "mf_atom_info"
  local n, x, y, z, square = 0, 0, 0, 0, 0
  local x0, y0, z0                                       -- near the atoms, so that no digits are lost
  for _, chain in ipairs(chains) do
    check(C.mf_structure_chain(s.handle, chain.index - 1, info))
    local first = tonumber(info.first_residue)
    for r = first, first + tonumber(info.residues) - 1 do
      check(C.mf_structure_residue(s.handle, r, residue))
      local from = tonumber(residue.first_atom)
      for a = from, from + (residue.label ~= 0 and tonumber(residue.atoms) or 0) - 1 do
        local element = C.mf_structure_text(s.handle, C.MF_TEXT_ELEMENT, a)
        local hydrogen = (element[0] == 72 or element[0] == 68) and element[1] == 0     -- H, D
        if not hydrogen then
          check(C.mf_structure_atom(s.handle, a, atom))
          if not x0 then x0, y0, z0 = atom.x, atom.y, atom.z end
          local dx, dy, dz = atom.x - x0, atom.y - y0, atom.z - z0
          n, x, y, z, square = n + 1, x + dx, y + dy, z + dz, square + dx * dx + dy * dy + dz * dz
        end
      end
    end
  end
  if n == 0 then return 0 end
  return math.sqrt(math.max(0, square / n - (x * x + y * y + z * z) / (n * n)))
end

--- Shares of helix, strand and coil (DSSP's letters in three classes) among the residues of an entry.
-- @tparam table letters of the whole model: chemistry.secondary_structure
-- @tparam table chains the entry's
-- @tparam table entry of `entry`
-- @treturn table `helix`, `strand`, `coil`: counts over the entry's length
function M.shares(letters, chains, entry)
  local parts = {}
  for c, chain in ipairs(chains) do parts[c] = letters[chain.index] or ("?"):rep(chain.residues) end
  local text = table.concat(parts):sub(entry.first, entry.first + entry.length - 1)
  local function share(letter) return select(2, text:gsub(letter, "")) / entry.length end
  return { helix = share "H", strand = share "E", coil = share "C" }
end

--- Three classes of secondary structure for the protein chains of model 1.
-- @treturn table by chain index
function M.secondary_structure(s) return chemistry.secondary_structure(s, { classes = 3, ppii = 0 }) end

--- What every assembly of the file is, in lower case with commas between: "monomeric"; "" where the file does not say.
function M.oligomeric(s)
  local counts, list = ffi.new "mf_structure_counts", {}
  C.mf_structure_count(s.handle, counts)
  for i = 0, tonumber(counts.assemblies) - 1 do
    list[i + 1] = ffi.string(C.mf_structure_text(s.handle, C.MF_TEXT_OLIGOMER, i)):lower()
  end
  return table.concat(list, ",")
end

return M
