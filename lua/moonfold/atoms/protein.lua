--- Protein backbones: frames and psi from N, CA, C, O, and five atoms from frames and psi.
--
-- A frame sits on CA, x toward C, y on the side of N. Every residue is built as alanine:
--
--     N (-0.525, 1.363, 0)   CA 0   C (1.526, 0, 0)   CB (-0.529, -0.774, -1.205)
--     O (2.153, -1.062 cos psi, -1.062 sin psi)
--
-- psi is stored as (sin, cos) of minus the dihedral N-CA-C-O, which is the psi of the next residue's N.

local mf = require "moonfold"
local constant = require "moonfold.constant"
local frame = require "moonfold.atoms.frame"

-- ca, origin: columns of `inputs`; peers_valid: that of the atom whose presence alone makes a residue valid to the peers
local M = { kind = "protein", torsion_count = 1, ca = 2, origin = 2, peers_valid = 2 }

--- Atoms that `features` reads, in the order of its columns.
M.inputs = { "N", "CA", "C", "O" }

--- What `build` makes, in the order of its columns (the order of atom37).
M.names = { "N", "CA", "C", "CB", "O" }
M.elements = { "N", "C", "C", "C", "O" }
M.residue = "ALA"

--- Residue types 0..19; 20 is anything else.
M.types = "ARNDCQEGHILKMFPSTWYV"

local TEMPLATE = { { -0.525, 1.363, 0 }, { 0, 0, 0 }, { 1.526, 0, 0 }, { -0.529, -0.774, -1.205 } }
local O_X, O_R = 1.526 + 0.627, 1.062
-- O is (O_X, -r cos, -r sin): a linear map of the pair (sin, cos)
local O_OF_PSI, O_AT = { { 0, 0 }, { 0, -O_R }, { -O_R, 0 } }, { O_X, 0, 0 }
local ATOM37 = 37

--- Frames, psi and masks of a chain.
-- @tparam tensor positions (N, 4, 3) angstrom, columns as `inputs`
-- @tparam tensor mask bool (N, 4), which atoms are there
-- @treturn table `rotations` (N, 3, 3), `translations` (N, 3), `mask` (N) bool: N, CA and C present and not collinear,
--   `torsions` (N, 1, 2), `torsion_mask` (N, 1) bool
function M.features(positions, mask)
  local n = positions:size(1)
  local ca = positions:select(2, 2)
  local rotations, ok = frame.from_points(positions:select(2, 3), positions:select(2, 1), ca)
  local valid = frame.all_of(mask, { 1, 2, 3 }):logical_and(ok)
  local eye = constant(frame.IDENTITY, { device = positions:device() }):unsqueeze(1):expand(n, 3, 3)
  local psi_ok = valid:logical_and(mask:select(2, 4))
  return {
    rotations = mf.where(valid:reshape(n, 1, 1), rotations, eye),
    translations = mf.where(valid:reshape(n, 1), ca, 0),
    mask = valid,
    torsions = (-frame.dihedral(positions, psi_ok)):reshape(n, 1, 2),
    torsion_mask = psi_ok:reshape(n, 1),
  }
end

--- Five atoms a residue from frames and psi; differentiable in all three.
-- @tparam tensor rotations (N, 3, 3)
-- @tparam tensor translations (N, 3) angstrom
-- @tparam ?tensor torsions (N, 1, 2) or (N, 2) pairs (sin, cos), used as given; nil leaves O on the x axis, where the
--   pair (0, 0) would put it
-- @treturn tensor (N, 5, 3) in the order of `names`
function M.build(rotations, translations, torsions)
  local n = rotations:size(1)
  local opts = { dtype = rotations:dtype(), device = rotations:device() }
  local fixed = constant(TEMPLATE, opts):unsqueeze(1):expand(n, 4, 3)
  local pair = torsions and torsions:reshape(n, 2) or mf.zeros(n, 2, opts)
  local o = pair:linear(constant(O_OF_PSI, opts), constant(O_AT, opts)):unsqueeze(2)
  return mf.geometry.apply(rotations, translations, mf.cat({ fixed, o }, 2))
end

--- Which built atoms mean something, given what the truth had.
-- @tparam tensor mask bool (N)
-- @tparam ?tensor torsion_mask bool (N, 1)
-- @treturn tensor bool (N, 5): O needs its psi
function M.present(mask, torsion_mask)
  local n = mask:size(1)
  local four = mask:reshape(n, 1):expand(n, 4)
  local o = torsion_mask and mask:logical_and(torsion_mask:reshape(n)) or mask
  return mf.cat({ four:contiguous(), o:reshape(n, 1):contiguous() }, 2)
end

--- The peers' layout: slots N 0, CA 1, C 2, CB 3, O 4 of 37, zeros elsewhere.
-- @tparam tensor atoms (N, 5, 3)
-- @treturn tensor (N, 37, 3)
function M.atom37(atoms)
  local n = atoms:size(1)
  return mf.cat({ atoms, mf.zeros(n, ATOM37 - 5, 3, { dtype = atoms:dtype(), device = atoms:device() }) }, 2)
end

return M
