--- Distributions of local geometry: bonds, angles and torsions of many backbones, and how far apart two sets of them are.
--
-- Definitions: metrics.md 3.2 for the peptide bond, 4 for RNA; torsions by IUPAC (chemistry.torsions), which need the bonds on
-- their way (C-N, O3'-P of at most 2.5 angstrom), and the model's own of data.md 3.2. Two sets are compared by the Wasserstein-1
-- distance, in the distribution's own unit: how far values must be moved, on average.

local atoms = require "moonfold.atoms"
local backbone = require "moonfold.metrics.backbone"
local chemistry = require "moonfold.chemistry"
local summary = require "moonfold.metrics.summary"

local M = {}

local function bond(name, title, lo, hi) return { name = name, title = title, unit = "A", lo = lo, hi = hi } end
local function angle(name, title, lo, hi) return { name = name, title = title, unit = "deg", lo = lo, hi = hi } end
local function torsion(name, title, lo)
  return { name = name, title = title, unit = "deg", lo = lo or -180, hi = (lo or -180) + 360, circular = true }
end

--- By kind a list of { `name`, `title`, `unit` ("A", "deg"), `lo` and `hi` of a picture, `circular` }.
M.definitions = {
  protein = {
    bond("ca_ca", "CA-CA", 2, 6), bond("c_n", "C-N", 0.6, 3), angle("ca_c_n", "CA-C-N", 60, 180),
    angle("c_n_ca", "C-N-CA", 60, 180), angle("ca_angle", "CA-CA-CA", 60, 180), torsion("ca_dihedral", "CA-CA-CA-CA"),
    torsion("phi", "phi"), torsion("psi", "psi"), torsion("omega", "omega", 0),
  },
  rna = {
    bond("c4_c4", "C4'-C4'", 2, 10), bond("p_p", "P-P", 2, 10), bond("o3_p", "O3'-P, next", 0.6, 4),
    bond("c3_o3", "C3'-O3'", 1.2, 1.7), bond("c5_o5", "C5'-O5'", 1.2, 1.7), bond("o5_p", "O5'-P", 1.3, 1.9),
    angle("c3_o3_p", "C3'-O3'-P", 60, 180), angle("o3_p_o5", "O3'-P-O5'", 40, 180),
    angle("c4_angle", "C4'-C4'-C4'", 40, 180), torsion("c4_dihedral", "C4'-C4'-C4'-C4'"),
    torsion("alpha", "alpha"), torsion("beta", "beta", 0), torsion("gamma", "gamma"), torsion("delta", "delta", 0),
    torsion("epsilon", "epsilon", 0), torsion("zeta", "zeta"), torsion("pucker", "phase of the pucker", 0),
  },
}

-- "torsion_3" of the eight that an RNA model predicts; some lie about 180 degrees
local OWN, FROM = {}, { [6] = 0, [8] = 0 }
for k, quartet in ipairs(atoms.rna.quartets) do
  local names = {}
  for i, column in ipairs(quartet) do names[i] = atoms.rna.inputs[column]:match "[^|]+" end
  OWN[k] = "torsion_" .. k
  table.insert(M.definitions.rna, torsion(OWN[k], table.concat(names, "-"), FROM[k]))
end

local function difference(x, i, y, j)
  return x[3 * i - 2] - y[3 * j - 2], x[3 * i - 1] - y[3 * j - 1], x[3 * i] - y[3 * j]
end

local function distance(x, i, y, j)
  local u, v, w = difference(x, i, y, j)
  return math.sqrt(u * u + v * v + w * w)
end

local function angle_at(x, i, y, j, z, k)           -- degrees, at y
  local a1, a2, a3 = difference(x, i, y, j)
  local b1, b2, b3 = difference(z, k, y, j)
  local dot = a1 * b1 + a2 * b2 + a3 * b3
  local c1, c2, c3 = a2 * b3 - a3 * b2, a3 * b1 - a1 * b3, a1 * b2 - a2 * b1
  return math.deg(math.atan2(math.sqrt(c1 * c1 + c2 * c2 + c3 * c3), dot))
end

local function dihedral(x, i)                       -- degrees, of points i to i + 3, IUPAC sign
  local a1, a2, a3 = difference(x, i + 1, x, i)
  local b1, b2, b3 = difference(x, i + 2, x, i + 1)
  local c1, c2, c3 = difference(x, i + 3, x, i + 2)
  local m1, m2, m3 = a2 * b3 - a3 * b2, a3 * b1 - a1 * b3, a1 * b2 - a2 * b1
  local n1, n2, n3 = b2 * c3 - b3 * c2, b3 * c1 - b1 * c3, b1 * c2 - b2 * c1
  local across = math.sqrt(b1 * b1 + b2 * b2 + b3 * b3) * (a1 * n1 + a2 * n2 + a3 * n3)
  return math.deg(math.atan2(across, m1 * n1 + m2 * n2 + m3 * n3))
end

local function put(list, value)
  if value == value then list[#list + 1] = value end
end

-- Neighbours of a trace: distances, angles of three, dihedrals of four.
local function trace(t, specimen, x, bonds, angles, dihedrals)
  for i = 1, specimen.length - 1 do
    if specimen.joined(i) then
      put(t[bonds], distance(x, i, x, i + 1))
      if angles and i > 1 and specimen.joined(i - 1) then
        put(t[angles], angle_at(x, i - 1, x, i, x, i + 1))
        if i > 2 and specimen.joined(i - 2) then put(t[dihedrals], dihedral(x, i - 2)) end
      end
    end
  end
end

local function protein(t, specimen, x)
  trace(t, specimen, x.CA, "ca_ca", "ca_angle", "ca_dihedral")
  for i = 1, specimen.length - 1 do
    if specimen.joined(i) then
      put(t.c_n, distance(x.C, i, x.N, i + 1))
      put(t.ca_c_n, angle_at(x.CA, i, x.C, i, x.N, i + 1))
      put(t.c_n_ca, angle_at(x.C, i, x.N, i + 1, x.CA, i + 1))
    end
  end
end

local function rna(t, specimen, x)
  local o3, p, o5 = x["O3'"], x.P, x["O5'"]
  trace(t, specimen, x["C4'"], "c4_c4", "c4_angle", "c4_dihedral")
  trace(t, specimen, p, "p_p")
  for i = 1, specimen.length do
    put(t.c3_o3, distance(x["C3'"], i, o3, i))
    put(t.c5_o5, distance(x["C5'"], i, o5, i))
    put(t.o5_p, distance(o5, i, p, i))
    if i < specimen.length and specimen.joined(i) then
      put(t.o3_p, distance(o3, i, p, i + 1))
      put(t.c3_o3_p, angle_at(x["C3'"], i, o3, i, p, i + 1))
      put(t.o3_p_o5, angle_at(o3, i, p, i + 1, o5, i + 1))
    end
    for k, name in ipairs(OWN) do
      local at = 2 * ((i - 1) * #OWN + k)
      put(t[name], math.deg(math.atan2(specimen.torsions[at - 1], specimen.torsions[at])))
    end
  end
end

-- Turns an angle into the range of a picture.
local function wrapped(value, lo) return lo + (value - lo) % 360 end

--- Adds a backbone's values.
-- @tparam table t name -> list, as an earlier call gave; {} to begin with
-- @tparam table specimen see metrics.specimen
-- @treturn table t
-- @usage local t = distributions.add({}, specimen)
function M.add(t, specimen)
  for _, d in ipairs(M.definitions[specimen.kind]) do t[d.name] = t[d.name] or {} end
  local x = backbone.split(specimen.flat, atoms.of(specimen.kind).names);
  (specimen.kind == "protein" and protein or rna)(t, specimen, x)
  local s = specimen:structure()
  for _, rows in pairs(chemistry.torsions(s)) do
    for _, row in ipairs(rows) do
      for name, value in pairs(row) do
        if t[name] then t[name][#t[name] + 1] = value end
      end
    end
  end
  s:release()
  return t
end

--- The values of one distribution within the range of its picture: angles are turned into it.
-- @tparam table d a definition
-- @tparam table values
-- @treturn table
function M.within(d, values)
  if not d.circular then return values end
  local list = {}
  for k, value in ipairs(values) do list[k] = wrapped(value, d.lo) end
  return list
end

--- How far apart two sets of values are: the Wasserstein-1 distance, round the circle for torsions.
-- @tparam table d a definition
-- @tparam table a values
-- @tparam table b values
-- @treturn number in d.unit; nan when one is empty
function M.apart(d, a, b)
  if d.circular then return summary.circular_wasserstein(a, b, 360) end
  return summary.wasserstein(a, b)
end

return M
