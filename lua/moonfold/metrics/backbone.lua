--- Local geometry of one backbone, no reference needed: bonds, clashes, violations, radius of gyration (metrics.md 3 and 4).
--
-- Everything works on the host from coordinates and takes time and memory that grow with the length. Atoms that a file does not
-- have are NaN, and `partial` says that there are such: then what needs them is left out. A sample lacks nothing, so there NaN
-- shows.

local atoms = require "moonfold.atoms"
local cells = require "moonfold.metrics.cells"
local dssp = require "moonfold.metrics.dssp"
local fail = require "moonfold.fail"

local M = {}

local CA_IDEAL, CA_TOLERANCE, CA_CLASH = 3.80209737096, 0.1, 1.5
local C4_IDEAL, C4_TOLERANCE, C4_CLASH = 6.12, 0.1, 1.0

-- van der Waals radii, and by how much atoms may overlap: AlphaFold's for proteins, RNA-FrameFlow's for RNA
local RADII = { C = 1.7, N = 1.55, O = 1.52, P = 1.8 }
local OVERLAP_PROTEIN, OVERLAP_RNA = 1.5, 0.6

--- The distance of point i of x and point j of y: flat coordinates.
local function distance(x, i, y, j)
  local u, v, w = x[3 * i - 2] - y[3 * j - 2], x[3 * i - 1] - y[3 * j - 1], x[3 * i] - y[3 * j]
  return math.sqrt(u * u + v * v + w * w)
end

-- Mean over the list, 0 for an empty one.
local function mean(list)
  local sum = 0
  for _, v in ipairs(list) do sum = sum + v end
  return sum / math.max(#list, 1)
end

-- Whether residues i and i + 1 are bonded, and what tells it is there.
local function is_joint(o, i, value)
  return (not o.joined or o.joined(i)) and (not o.partial or value == value)
end

--- Distances of neighbours along a chain against an ideal, and points too near each other.
-- @tparam table x flat coordinates
-- @tparam table o `ideal`, `tolerance`, `clash`; `joined(i)`: whether i and i + 1 are bonded; `partial`: leave out what is NaN
-- @treturn table `mean`, `deviation`, `valid` (shorter than ideal + tolerance), `valid_two_sided`, `clashes`, `clash_share`
--   (of all pairs)
function M.trace(x, o)
  local n = #x / 3
  local lengths, deviations, valid, two_sided = {}, {}, 0, 0
  for i = 1, n - 1 do
    local b = distance(x, i, x, i + 1)
    if is_joint(o, i, b) then
      lengths[#lengths + 1], deviations[#deviations + 1] = b, math.abs(b - o.ideal)
      if b < o.ideal + o.tolerance then valid = valid + 1 end
      if math.abs(b - o.ideal) < o.tolerance then two_sided = two_sided + 1 end
    end
  end
  local clashes = 0
  cells.pairs(x, o.clash, function(_, _, d2) if d2 > 0 then clashes = clashes + 1 end end)
  local bonds = math.max(#lengths, 1)
  return {
    mean = mean(lengths), deviation = mean(deviations), valid = valid / bonds, valid_two_sided = two_sided / bonds,
    clashes = clashes, clash_share = clashes / math.max(n * (n - 1) / 2, 1),
  }
end

-- The points that are there.
local function finite(x)
  local list = {}
  for i = 1, #x, 3 do
    local sum = x[i] + x[i + 1] + x[i + 2]
    if sum == sum then
      local n = #list
      list[n + 1], list[n + 2], list[n + 3] = x[i], x[i + 1], x[i + 2]
    end
  end
  return list
end

--- Root mean square distance from the centroid.
-- @tparam table x flat coordinates
-- @treturn number in the unit of the coordinates
function M.radius_of_gyration(x)
  local n = #x / 3
  if n == 0 then return 0 end
  local c = { 0, 0, 0 }
  for i = 1, #x do c[(i - 1) % 3 + 1] = c[(i - 1) % 3 + 1] + x[i] / n end
  local sum = 0
  for i = 1, #x do sum = sum + (x[i] - c[(i - 1) % 3 + 1]) ^ 2 end
  return math.sqrt(sum / n)
end

local function cosine(x, i, y, j, z, k)          -- of the angle at y
  local dot, a, b = 0, 0, 0
  for m = -2, 0 do
    local u, v = x[3 * i + m] - y[3 * j + m], z[3 * k + m] - y[3 * j + m]
    dot, a, b = dot + u * v, a + u * u, b + v * v
  end
  return dot / math.sqrt(a * b + 1e-12)
end

--- Violations of peptide geometry, AlphaFold's definitions with every residue as alanine.
-- @tparam table x `N`, `CA`, `C`, ...: flat coordinates by atom name
-- @tparam ?table o `joined(i)` and `partial` as of `trace`
-- @treturn table means over the joints: `bonds_c_n`, `angles_ca_c_n`, `angles_c_n_ca`
function M.peptide_violations(x, o)
  local bonds, at_c, at_n = {}, {}, {}
  for i = 1, #x.CA / 3 - 1 do
    local b = distance(x.C, i, x.N, i + 1)
    if is_joint(o or {}, i, b) then
      local k = #bonds + 1
      bonds[k] = math.max(0, math.abs(b - 1.329) - 12 * 0.014)
      at_c[k] = math.max(0, math.abs(cosine(x.CA, i, x.C, i, x.N, i + 1) + 0.4473) - 12 * 0.0311)
      at_n[k] = math.max(0, math.abs(cosine(x.C, i, x.N, i + 1, x.CA, i + 1) + 0.5203) - 12 * 0.0353)
    end
  end
  return { bonds_c_n = mean(bonds), angles_ca_c_n = mean(at_c), angles_c_n_ca = mean(at_n) }
end

-- Overlaps of atoms of different residues: the summed depth and the number, and the number of pairs of atoms.
local function overlaps(flat, width, elements, allowed, bonded)
  local depth, count, n = 0, 0, #flat / 3
  cells.pairs(flat, 2 * RADII.P - allowed, function(a, b, d2)
    local i, j = math.floor((a - 1) / width) + 1, math.floor((b - 1) / width) + 1
    local p, q = (a - 1) % width + 1, (b - 1) % width + 1
    if i ~= j and not bonded(i, p, j, q) then
      local short = RADII[elements[p]] + RADII[elements[q]] - allowed - math.sqrt(d2)
      if short >= 0 then depth, count = depth + short, count + 1 end
    end
  end)
  local residues = n / width
  return depth, count, (n * n - residues * width * width) / 2
end

--- Coordinates by atom.
-- @tparam table flat coordinates, every residue's atoms in the order of names
-- @tparam table names
-- @treturn table name -> flat coordinates of one atom a residue
function M.split(flat, names)
  local by_name, width = {}, #names
  for a, name in ipairs(names) do
    local list = {}
    for i = 0, #flat / (3 * width) - 1 do
      for m = 1, 3 do list[3 * i + m] = flat[3 * (i * width + a - 1) + m] end
    end
    by_name[name] = list
  end
  return by_name
end

local function column(names, name)
  for i, other in ipairs(names) do
    if other == name then return i end
  end
end

local function protein(flat, rules, o)
  local x = M.split(flat, rules.names)
  local trace = M.trace(x.CA, {
    ideal = CA_IDEAL, tolerance = CA_TOLERANCE, clash = CA_CLASH, joined = o.joined, partial = o.partial,
  })
  local violations = M.peptide_violations(x, o)
  local n_at, c_at = column(rules.names, "N"), column(rules.names, "C")
  local depth, clashes, pairs_ = overlaps(flat, #rules.names, rules.elements, OVERLAP_PROTEIN, function(i, p, j, q)
    return (j == i + 1 and p == c_at and q == n_at) or (i == j + 1 and q == c_at and p == n_at)
  end)
  local result = {
    ca_ca_bond_dev = trace.deviation, ca_ca_valid_percent = trace.valid, ca_ca_valid_two_sided = trace.valid_two_sided,
    num_ca_steric_clashes = trace.clashes, ca_steric_clash_percent = trace.clash_share,
    bonds_c_n_loss_mean = violations.bonds_c_n, angles_ca_c_n_loss_mean = violations.angles_ca_c_n,
    angles_c_n_ca_loss_mean = violations.angles_c_n_ca,
    clashes_mean_loss = depth / math.max(pairs_, 1), num_clashes = clashes,
    radius_gyration = M.radius_of_gyration(o.partial and finite(flat) or flat) / 10,
  }
  local letters = dssp.assign(x, o)
  local shares = dssp.shares(letters)
  result.helix_percent, result.strand_percent, result.coil_percent = shares.helix, shares.strand, shares.coil
  result.non_coil_percent = shares.non_coil
  return result, letters
end

local function rna(flat, rules, o)
  local x = M.split(flat, rules.names)
  local c4 = x["C4'"]
  local trace = M.trace(c4, {
    ideal = C4_IDEAL, tolerance = C4_TOLERANCE, clash = C4_CLASH, joined = o.joined, partial = o.partial,
  })
  local o3, p_ = column(rules.names, "O3'"), column(rules.names, "P")
  local _, clashes = overlaps(flat, #rules.names, rules.elements, OVERLAP_RNA, function(i, p, j, q)
    return (j == i + 1 and p == o3 and q == p_) or (i == j + 1 and q == o3 and p == p_)
  end)
  local joints = {}
  for i = 1, #c4 / 3 - 1 do
    local b = distance(x["O3'"], i, x.P, i + 1)
    if is_joint(o, i, b) then joints[#joints + 1] = b end
  end
  return {
    c4_c4_mean = trace.mean, c4_c4_bond_dev = trace.deviation, c4_c4_valid_percent = trace.valid,
    c4_c4_valid_two_sided = trace.valid_two_sided, num_c4_steric_clashes = trace.clashes,
    num_clashes = clashes, clashes_per_100_atoms = 100 * clashes / math.max(#(o.partial and finite(flat) or flat) / 3, 1),
    o3_p_mean = mean(joints), radius_gyration = M.radius_of_gyration(o.partial and finite(c4) or c4),
  }
end

--- The metrics of coordinates.
-- @tparam string kind "protein" or "rna"
-- @tparam table flat coordinates in the order of `atoms.of(kind).names`, NaN where absent
-- @tparam ?table o `chain`: a list with a value for each residue; `joined(i)`: whether residues i and i + 1 are bonded; `partial`
-- @treturn table as of `backbone`
-- @treturn ?string as of `backbone`
function M.of_atoms(kind, flat, o)
  return (kind == "protein" and protein or rna)(flat, atoms.of(kind), o or {})
end

--- The metrics of one backbone.
-- @tparam table structure a sample, or a table with `kind`, `rotations`, `translations`, `torsions`; all residues present
-- @tparam[opt] table o `chain`: a list with a value for each residue; residues are bonded where it does not change
-- @treturn table protein: `ca_ca_bond_dev`, `ca_ca_valid_percent`, `ca_ca_valid_two_sided`, `num_ca_steric_clashes`,
--   `ca_steric_clash_percent`, `bonds_c_n_loss_mean`, `angles_ca_c_n_loss_mean`, `angles_c_n_ca_loss_mean`, `clashes_mean_loss`,
--   `num_clashes`, `radius_gyration` (nm), `helix_percent`, `strand_percent`, `coil_percent`, `non_coil_percent`; RNA:
--   `c4_c4_mean`, `c4_c4_bond_dev`, `c4_c4_valid_percent`, `c4_c4_valid_two_sided`, `num_c4_steric_clashes`, `num_clashes`,
--   `clashes_per_100_atoms`, `o3_p_mean`, `radius_gyration` (angstrom); percents are shares of 1
-- @treturn ?string the letters of the secondary structure, proteins only
-- @usage local m = mf.metrics.backbone(structure)
function M.backbone(structure, o)
  if type(structure) ~= "table" or not structure.kind then fail "metrics.backbone: takes a structure with a kind" end
  local rules = atoms.of(structure.kind)
  local mf = require "moonfold"
  local built = mf.no_grad(rules.build, structure.rotations, structure.translations, structure.torsions)
  local chain = o and o.chain
  return M.of_atoms(structure.kind, built:values(), {
    chain = chain, joined = chain and function(i) return chain[i] == chain[i + 1] end,
  })
end

return M
