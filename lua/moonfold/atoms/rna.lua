--- RNA backbones: frames and eight torsions from coordinates, and twelve atoms from frames and torsions.
--
-- A frame sits on C4', x toward O4', y on the side of C3'. Group g = parent o D_g o Rx(torsion g) places one atom:
--
--     residue -> 1 C2'    residue -> 2 C1' -> 3 N9    residue -> 4 O3'    residue -> 5 O5' -> 6 P -> 7 OP1, 8 OP2
--
-- Rx(s, c) = [1 0 0; 0 c -s; 0 s c] is used as given, even if s^2 + c^2 is not 1. Every nucleotide is built with
-- adenosine's numbers. Atoms are present by mask, so C4' is exactly the origin.

local mf = require "moonfold"
local constant = require "moonfold.constant"
local frame = require "moonfold.atoms.frame"

-- origin, peers_valid: as the protein's. The peers mean C4' and take C2': the slot of C4' in another order of the atoms.
local M = { kind = "rna", torsion_count = 8, origin = 2, peers_valid = 4 }

--- Atoms that `features` reads, in the order of its columns.
M.inputs = { "C3'", "C4'", "O4'", "C2'", "C1'", "C5'", "O3'", "O5'", "P", "OP1|O1P", "OP2|O2P", "N9|N1" }

--- What `build` makes, in the order of its columns: fixed atoms first, then groups 1 to 8.
M.names = { "C3'", "C4'", "O4'", "C5'", "C2'", "C1'", "N9", "O3'", "O5'", "P", "OP1", "OP2" }
M.elements = { "C", "C", "O", "C", "C", "C", "N", "O", "O", "P", "O", "O" }
M.residue = "A"
M.types = "ACGU"

-- positions of A0 A1 A2 A3 in `inputs`; a pyrimidine's N1 comes in the column of N9
local C3, C4, O4, C2, C1, C5, O3, O5, P, OP1, OP2, N9 = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
M.quartets = {
  { C5, C4, C3, C2 }, { C3, C4, O4, C1 }, { C4, O4, C1, N9 }, { C5, C4, C3, O3 },
  { C3, C4, C5, O5 }, { C4, C5, O5, P }, { C5, O5, P, OP1 }, { C5, O5, P, OP2 },
}

local FIXED = { { -0.378, 1.475, 0 }, { 0, 0, 0 }, { 1.450, 0, 0 }, { -0.508, -0.803, -1.174 } }
local BEHIND = { -1, 0, 0 }
local LOCAL = {   -- the atom of each group in its group
  { 0.4258, 1.4607, 0 }, { 0.4765, 1.3345, 0 }, { 0.4550, 1.4004, 0 }, { 0.524, 1.321, 0 },
  { 0.511, 1.333, 0 }, { 0.817, 1.367, 0 }, { 0.470, 1.407, 0 }, { 0.464, 1.409, 0 },
}
local ALONE, ZERO_ANGLE = {}, { 0, 1 }
for g, atom in ipairs(LOCAL) do ALONE[g] = { atom } end
-- O2' = C2' + these along x = C3' - C2', y = the rest of C1' - C2', z: frames.md 5.4
local O2_PRIME = { -0.519, -0.579, 1.184 }

local function unit(v)
  local length = math.sqrt(v[1] ^ 2 + v[2] ^ 2 + v[3] ^ 2)
  return { v[1] / length, v[2] / length, v[3] / length }
end

-- The default frame of a group: rows of the matrix whose columns are the axes, and the origin.
local function basis(axis, xy, origin)
  local x = unit(axis)
  local along = xy[1] * x[1] + xy[2] * x[2] + xy[3] * x[3]
  local y = unit { xy[1] - along * x[1], xy[2] - along * x[2], xy[3] - along * x[3] }
  local z = { x[2] * y[3] - x[3] * y[2], x[3] * y[1] - x[1] * y[3], x[1] * y[2] - x[2] * y[1] }
  return { rows = { { x[1], y[1], z[1] }, { x[2], y[2], z[2] }, { x[3], y[3], z[3] } }, origin = origin }
end

local c3, o4, c5 = FIXED[1], FIXED[3], FIXED[4]
local DEFAULT = {
  basis(c3, c5, c3), basis(o4, c3, o4), basis(LOCAL[2], BEHIND, LOCAL[2]), basis(c3, c5, c3),
  basis(c5, c3, c5), basis(LOCAL[5], BEHIND, LOCAL[5]), basis(LOCAL[6], BEHIND, LOCAL[6]), basis(LOCAL[6], BEHIND, LOCAL[6]),
}

--- Frames, torsions and masks of a chain.
-- @tparam tensor positions (N, 12, 3) angstrom, columns as `inputs`
-- @tparam tensor mask bool (N, 12), which atoms are there
-- @treturn table `rotations` (N, 3, 3), `translations` (N, 3), `mask` (N) bool: C3', C4' and O4' present and not collinear,
--   `torsions` (N, 8, 2), `torsion_mask` (N, 8) bool
function M.features(positions, mask)
  local n = positions:size(1)
  local c4 = positions:select(2, C4)
  local rotations, ok = frame.from_points(positions:select(2, O4), positions:select(2, C3), c4)
  local valid = frame.all_of(mask, { C3, C4, O4 }):logical_and(ok)
  local eye = constant(frame.IDENTITY, { device = positions:device() }):unsqueeze(1):expand(n, 3, 3)
  local pairs_, masks = {}, {}
  for k, quartet in ipairs(M.quartets) do
    local points = {}
    for i, column in ipairs(quartet) do points[i] = positions:narrow(2, column, 1) end
    masks[k] = valid:logical_and(frame.all_of(mask, quartet))
    pairs_[k] = frame.dihedral(mf.cat(points, 2), masks[k])
  end
  return {
    rotations = mf.where(valid:reshape(n, 1, 1), rotations, eye),
    translations = mf.where(valid:reshape(n, 1), c4, 0),
    mask = valid,
    torsions = mf.stack(pairs_, 2),
    torsion_mask = mf.stack(masks, 2),
  }
end

-- Points (N, m, 3) of group `g` in its parent: D_g o Rx(torsion g).
local function place(g, points, torsions, opts)
  local s, c = torsions:narrow(2, g, 1):narrow(3, 1, 1), torsions:narrow(2, g, 1):narrow(3, 2, 1)
  local x, y, z = points:narrow(3, 1, 1), points:narrow(3, 2, 1), points:narrow(3, 3, 1)
  local turned = mf.cat({ x, y * c - z * s, y * s + z * c }, 3)
  return turned:linear(constant(DEFAULT[g].rows, opts), constant(DEFAULT[g].origin, opts))
end

-- The same rows for every residue: (n, rows, 3).
local function repeated(rows, n, opts)
  return constant(rows, opts):unsqueeze(1):expand(n, #rows, 3)
end

--- Atoms in the residue's own frame.
-- @tparam ?tensor torsions (N, 8, 2) pairs (sin, cos); nil for all zero angles
-- @tparam number n residues
-- @tparam table opts `dtype`, `device`
-- @treturn tensor (N, 12, 3) in the order of `names`
function M.local_atoms(torsions, n, opts)
  if not torsions then
    torsions = constant(ZERO_ANGLE, opts):reshape(1, 1, 2):expand(n, 8, 2)
  end
  local function atom(g) return repeated(ALONE[g], n, opts) end
  local c2 = place(1, atom(1), torsions, opts)
  local base = place(2, mf.cat({ atom(2), place(3, atom(3), torsions, opts) }, 2), torsions, opts)
  local o3 = place(4, atom(4), torsions, opts)
  local phosphate = mf.cat({ atom(6), place(7, atom(7), torsions, opts), place(8, atom(8), torsions, opts) }, 2)
  local tail = place(5, mf.cat({ atom(5), place(6, phosphate, torsions, opts) }, 2), torsions, opts)
  return mf.cat({ repeated(FIXED, n, opts), c2, base, o3, tail }, 2)
end

local function cross(a, b)
  local function part(i, j)
    return a:narrow(3, i, 1) * b:narrow(3, j, 1) - a:narrow(3, j, 1) * b:narrow(3, i, 1)
  end
  return mf.cat({ part(2, 3), part(3, 1), part(1, 2) }, 3)
end

local function normalised(v) return v * (v:square():sum(3, true) + 1e-12):rsqrt() end

-- The thirteenth atom from C3', C2' and C1': all (N, 1, 3).
local function o2_prime(atoms)
  local at3, at2, at1 = atoms:narrow(2, 1, 1), atoms:narrow(2, 5, 1), atoms:narrow(2, 6, 1)
  local x = normalised(at3 - at2)
  local toward = at1 - at2
  local y = normalised(toward - x * (x * toward):sum(3, true))
  return at2 + x * O2_PRIME[1] + y * O2_PRIME[2] + cross(x, y) * O2_PRIME[3]
end

--- Twelve atoms a nucleotide from frames and torsions; differentiable in all three.
-- @tparam tensor rotations (N, 3, 3)
-- @tparam tensor translations (N, 3) angstrom
-- @tparam ?tensor torsions (N, 8, 2) pairs (sin, cos), used as given; nil for all zero angles
-- @tparam[opt] table o `o2_prime = true` appends O2', placed from its neighbours
-- @treturn tensor (N, 12, 3) in the order of `names`, or (N, 13, 3)
function M.build(rotations, translations, torsions, o)
  local n = rotations:size(1)
  local opts = { dtype = rotations:dtype(), device = rotations:device() }
  local atoms = M.local_atoms(torsions, n, opts)
  if o and o.o2_prime then atoms = mf.cat({ atoms, o2_prime(atoms) }, 2) end
  return mf.geometry.apply(rotations, translations, atoms)
end

-- Which torsions place each atom of `names`.
local NEEDS = { {}, {}, {}, {}, { 1 }, { 2 }, { 2, 3 }, { 4 }, { 5 }, { 5, 6 }, { 5, 6, 7 }, { 5, 6, 8 } }

--- Which built atoms mean something, given what the truth had.
-- @tparam tensor mask bool (N)
-- @tparam ?tensor torsion_mask bool (N, 8)
-- @treturn tensor bool (N, 12): an atom needs every torsion on its way
function M.present(mask, torsion_mask)
  local columns = {}
  for i, needs in ipairs(NEEDS) do
    columns[i] = mask
    if torsion_mask then
      for _, k in ipairs(needs) do columns[i] = columns[i]:logical_and(torsion_mask:select(2, k)) end
    end
  end
  return mf.stack(columns, 2)
end

local SETS = {
  [0] = { "C3'", "C4'", "O4'" },
  [3] = { "C3'", "C4'", "O4'", "C1'", "O3'", "P" },
  [7] = { "C3'", "C4'", "O4'", "C1'", "C5'", "O3'", "P", "OP1", "OP2", "N9" },
}

local LOSS_COLUMNS = {}
for extra, names in pairs(SETS) do LOSS_COLUMNS[extra] = frame.columns(M.names, names) end

--- Columns of `build` that a loss looks at.
-- @tparam number extra atoms beside the frame's own: 0, 3 or 7
-- @treturn table positions from 1
function M.loss_columns(extra)
  return LOSS_COLUMNS[extra] or error("loss atoms: 0, 3 or 7 beside the frame, not " .. tostring(extra), 2)
end

-- slot (from 0) of the peers' array and the column of `build` that goes there
local SLOTS = { [0] = 6, [1] = 5, [2] = 1, [3] = 2, [4] = 4, [5] = 9, [6] = 3, [7] = 8, [9] = 10, [10] = 11,
                [11] = 12, [18] = 7 }

--- The peers' layout: 27 named slots of 37, zeros where nothing is built.
-- @tparam tensor atoms (N, 12, 3)
-- @treturn tensor (N, 37, 3)
function M.atom37(atoms)
  local blank = mf.zeros(atoms:size(1), 1, 3, { dtype = atoms:dtype(), device = atoms:device() })
  local slots = {}
  for slot = 0, 36 do slots[slot + 1] = SLOTS[slot] and atoms:narrow(2, SLOTS[slot], 1) or blank end
  return mf.cat(slots, 2)
end

return M
