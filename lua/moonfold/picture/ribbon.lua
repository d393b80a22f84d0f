--- The ribbon of one chain: a smooth curve along its trace, cut into short pieces that face somewhere.
--
-- The curve is the uniform cubic B-spline of the trace (CA of proteins, C4' of nucleic acids), which smooths the winding of helices
-- and the pleat of strands. Across it lies a vector: in the peptide planes of helices and strands (Carson and Bugg 1986, J Mol
-- Graph 4, 121), of no particular meaning in coils, which are drawn as tubes.

local M = {}

local sqrt = math.sqrt

local function sub(a, b) return { a[1] - b[1], a[2] - b[2], a[3] - b[3] } end
local function add(a, b, s) return { a[1] + s * b[1], a[2] + s * b[2], a[3] + s * b[3] } end
local function dot(a, b) return a[1] * b[1] + a[2] * b[2] + a[3] * b[3] end
local function cross(a, b) return { a[2] * b[3] - a[3] * b[2], a[3] * b[1] - a[1] * b[3], a[1] * b[2] - a[2] * b[1] } end
local function unit(a, otherwise)
  local length = sqrt(dot(a, a))
  if length < 1e-6 then return otherwise end
  return { a[1] / length, a[2] / length, a[3] / length }
end
local function mixed(a, b, u) return { a[1] + u * (b[1] - a[1]), a[2] + u * (b[2] - a[2]), a[3] + u * (b[3] - a[3]) } end

M.sub, M.add, M.dot, M.cross, M.unit = sub, add, dot, cross, unit

--- Angstrom between neighbours of a trace that can hardly be bonded.
M.FAR = { protein = 4.5, rna = 8 }

-- half widths in angstrom
local WIDTH = { H = 1.45, E = 1.25, C = 0.32 }
local ARROW, TUBE = 2.3, { protein = 0.32, rna = 0.75 }       -- barbs of a strand; tubes

-- Across the chain at each residue: in the plane of the peptides before and behind it, turned so that neighbours agree.
local function across(trace, oxygen)
  local n, planes, result = #trace, {}, {}
  for i = 1, n - 1 do
    local along = sub(trace[i + 1], trace[i])
    local aside
    if oxygen and oxygen[i] then aside = sub(oxygen[i], trace[i])
    elseif i > 1 then aside = cross(sub(trace[i], trace[i - 1]), along)      -- the binormal: along the axis of a helix
    else aside = { 0.3, 0.5, 0.8 } end
    local normal = cross(along, aside)
    planes[i] = unit(cross(normal, along), planes[i - 1] or { 0, 0, 1 })
    if planes[i - 1] and dot(planes[i], planes[i - 1]) < 0 then planes[i] = add({ 0, 0, 0 }, planes[i], -1) end
  end
  for i = 1, n do
    local a, b = planes[i - 1] or planes[i], planes[i] or planes[i - 1]
    result[i] = a and unit(add(a, b, 1), a) or { 0, 0, 1 }
  end
  return result
end

-- Half a ribbon's width at u in [0, 1] from residue i to the next; strands end in arrows.
local function width_at(classes, i, u, tube)
  local function of(k)
    local class = classes:sub(k, k)
    return class == "C" and tube or WIDTH[class]
  end
  local here, there = classes:sub(i, i), classes:sub(i + 1, i + 1)
  if here == "E" and there ~= "E" then return tube end
  if here == "E" and classes:sub(i + 2, i + 2) ~= "E" then return ARROW + u * (tube - ARROW) end
  if here ~= "E" and there == "E" then return tube + (u > 0.5 and (u - 0.5) * 2 or 0) * (WIDTH.E - tube) end
  return of(i) + u * (of(i + 1) - of(i))
end

-- How much of a ribbon rather than a tube.
local function flat_at(classes, i, u)
  local here, there = classes:sub(i, i) ~= "C" and 1 or 0, classes:sub(i + 1, i + 1) ~= "C" and 1 or 0
  return here + u * (there - here)
end

-- Point and tangent of the B-spline between residues i and i + 1; beyond the ends the trace goes straight on.
local function curve_at(trace, i, u)
  local n = #trace
  local p1, p2 = trace[i], trace[i + 1]
  local p0 = trace[i - 1] or add(p1, sub(p2, p1), -1)
  local p3 = i + 2 <= n and trace[i + 2] or add(p2, sub(p2, p1), 1)
  local v = 1 - u
  local w = { v ^ 3 / 6, (3 * u ^ 3 - 6 * u ^ 2 + 4) / 6, (3 * v ^ 3 - 6 * v ^ 2 + 4) / 6, u ^ 3 / 6 }
  local d = { -v ^ 2 / 2, (3 * u ^ 2 - 4 * u) / 2, -(3 * v ^ 2 - 4 * v) / 2, u ^ 2 / 2 }
  local point, tangent = {}, {}
  for a = 1, 3 do
    point[a] = w[1] * p0[a] + w[2] * p1[a] + w[3] * p2[a] + w[4] * p3[a]
    tangent[a] = d[1] * p0[a] + d[2] * p1[a] + d[3] * p2[a] + d[4] * p3[a]
  end
  return point, unit(tangent, { 1, 0, 0 })
end

-- Toward the inside of the bend at residue i.
local function inward(trace, i)
  local a, b, c = trace[i - 1], trace[i], trace[i + 1]
  if not a or not c then return { 0, 0, 0 } end
  return { a[1] + c[1] - 2 * b[1], a[2] + c[2] - 2 * b[2], a[3] + c[3] - 2 * b[3] }
end

--- The pieces of a chain.
-- @tparam table chain `trace`: points; `oxygen`: points of O or nil; `classes`: a letter H, E or C for each; `kind`
-- @tparam number steps pieces between two residues
-- @treturn table a list of pieces: `from` and `to` = { `at`: point, `along` and `across`: unit vectors, `width`: half of it,
--   `flat`: 0 tube to 1 ribbon }, `inward`, `share`: of the way along the chain, `class`
function M.pieces(chain, steps)
  local trace, classes, n = chain.trace, chain.classes, #chain.trace
  local directions, tube = across(trace, chain.oxygen), TUBE[chain.kind]
  local list = {}
  local function stop(i, u)
    local point, tangent = curve_at(trace, i, u)
    local side = mixed(directions[i], directions[i + 1], u)
    side = unit(add(side, tangent, -dot(side, tangent)), directions[i])
    return { at = point, along = tangent, across = side, width = width_at(classes, i, u, tube), flat = flat_at(classes, i, u) }
  end
  local far = M.FAR[chain.kind]
  for i = 1, n - 1 do
    local before, along = stop(i, 0), sub(trace[i + 1], trace[i])
    local broken = dot(along, along) > far * far
    for k = 1, steps do
      local behind = stop(i, k / steps)
      local near = (k - 0.5) / steps < 0.5 and i or i + 1
      list[#list + 1] = {
        from = before, to = behind, inward = inward(trace, near), class = classes:sub(near, near), broken = broken,
        share = n > 1 and (i - 1 + (k - 0.5) / steps) / (n - 1) or 0,
      }
      before = behind
    end
  end
  return list
end

return M
