--- What a picture of a structure is made of: pieces of ribbons and rungs of bases, with their colours, from far to near.

local chemistry = require "moonfold.chemistry"
local fail = require "moonfold.fail"
local ribbon = require "moonfold.picture.ribbon"
local view = require "moonfold.picture.view"

local M = {}

local ATOMS = { protein = { "CA", "O" }, rna = { "C4'", "C1'", "N9|N1" } }
ATOMS.dna = ATOMS.rna

-- Points of one atom; false where it is absent.
local function points_of(x, mask, column, n, width)
  local list = {}
  for i = 1, n do
    local at = (i - 1) * width + column
    list[i] = (mask[at] == 1 or mask[at] == true) and { x[3 * at - 2], x[3 * at - 1], x[3 * at] } or false
  end
  return list
end

-- Whether residues are missing before residue i at p: the sequence says so, or the author's numbers where it is far.
local function gap_before(chain, i, p, last, far)
  if chain.labels[i] - chain.labels[i - 1] > 1 then return true end
  local d = ribbon.sub(p, last)
  return chain.numbers[i] - chain.numbers[i - 1] > 1 and ribbon.dot(d, d) > far * far
end

-- The chains of a model as runs without a gap: trace, oxygen or bases, secondary structure.
local function chains_of(s, model)
  local letters, list = chemistry.secondary_structure(s, { model = model, classes = 3 }), {}
  for _, chain in ipairs(s:chains(model)) do
    local names = ATOMS[chain.polymer]
    if names and chain.residues > 0 then
      local atoms, present = s:atoms(chain.index, names)
      local x, mask, n = atoms:values(), present:values(), chain.residues
      local columns = {}
      for k = 1, #names do columns[k] = points_of(x, mask, k, n, #names) end
      local class, kind = letters[chain.index], chain.polymer == "protein" and "protein" or "rna"
      local run
      for i = 1, n do
        if columns[1][i] then
          if not run or gap_before(chain, i, columns[1][i], run.trace[#run.trace], ribbon.FAR[kind]) then
            run = { kind = kind, trace = {}, bases = {}, letters = {}, first = i, of = n }
            if kind == "protein" then run.oxygen = {} end
            list[#list + 1] = run
          end
          local k = #run.trace + 1
          run.trace[k] = columns[1][i]
          if run.oxygen then run.oxygen[k] = columns[2][i]
          else run.bases[k] = columns[2][i] and columns[3][i] and { columns[2][i], columns[3][i] } or false end
          run.letters[k] = class and class:sub(i, i):gsub("%?", "C") or "C"
        else
          run = nil
        end
      end
    end
  end
  for _, run in ipairs(list) do run.classes = table.concat(run.letters) end
  return list
end

-- From blue over green and yellow to red.
local STOPS = {
  { 0.16, 0.27, 0.80 }, { 0.10, 0.58, 0.87 }, { 0.12, 0.70, 0.52 }, { 0.55, 0.76, 0.22 }, { 0.98, 0.78, 0.16 },
  { 0.95, 0.48, 0.13 }, { 0.80, 0.15, 0.17 },
}
local BROKEN, THIN = { 0.62, 0.62, 0.62 }, 0.12         -- colour and half width in angstrom of what cannot be bonded
local CLASSES = { H = { 0.82, 0.22, 0.30 }, E = { 0.93, 0.72, 0.16 }, C = { 0.55, 0.60, 0.66 } }

local function rainbow(share)
  local at = math.max(0, math.min(share, 1)) * (#STOPS - 1)
  local k = math.min(math.floor(at), #STOPS - 2)
  local a, b, u = STOPS[k + 1], STOPS[k + 2], at - k
  return { a[1] + u * (b[1] - a[1]), a[2] + u * (b[2] - a[2]), a[3] + u * (b[3] - a[3]) }
end

local LEAST = 0.3           -- angstrom: half of what is seen of a ribbon from its edge
local BASE = 3.2            -- angstrom from N9 or N1 to about the end of a base

-- To the left of a direction, in the picture.
local function beside_of(along)
  local length = math.sqrt(along[1] ^ 2 + along[2] ^ 2)
  return length > 1e-6 and { -along[2] / length, along[1] / length } or { 1, 0 }
end

-- Both edges of a piece at one of its ends: a tube shows its width to the eye, a ribbon its own, but never less than its thickness.
local function corners(p, stop, across, beside, sign, broken)
  if broken then
    local x, y = THIN * beside[1], THIN * beside[2]
    return { p[1] + x, p[2] + y, p[3] }, { p[1] - x, p[2] - y, p[3] }
  end
  local x = stop.width * (stop.flat * across[1] + (1 - stop.flat) * sign * beside[1])
  local y = stop.width * (stop.flat * across[2] + (1 - stop.flat) * sign * beside[2])
  local wide = sign * (x * beside[1] + y * beside[2])
  if wide < LEAST then x, y = x + sign * (LEAST - wide) * beside[1], y + sign * (LEAST - wide) * beside[2] end
  return { p[1] + x, p[2] + y, p[3] }, { p[1] - x, p[2] - y, p[3] }
end

-- A rung from the trace toward the end of each base.
local function add_rungs(put, run, seen, paint)
  for i, base in ipairs(run.bases) do
    if base then
      local tip = ribbon.add(base[2], ribbon.unit(ribbon.sub(base[2], base[1]), { 0, 0, 0 }), BASE)
      local p, q = seen(run.trace[i]), seen(tip)
      local share = #run.trace > 1 and (i - 1) / (#run.trace - 1) or 0
      put { points = { p, q }, z = (p[3] + q[3]) / 2, colour = paint(share, "C"), rung = true }
    end
  end
end

-- The four corners of each piece of a run's ribbon, and how light it is.
local function add_ribbon(put, run, seen, turned, paint, steps)
  for _, piece in ipairs(ribbon.pieces(run, steps)) do
    local a, b = seen(piece.from.at), seen(piece.to.at)
    local across = { turned(piece.from.across), turned(piece.to.across) }
    local beside = { beside_of(turned(piece.from.along)), beside_of(turned(piece.to.along)) }
    local turns = 0
    for k = 1, 2 do turns = turns + across[k][1] * beside[k][1] + across[k][2] * beside[k][2] end
    local sign = turns >= 0 and 1 or -1
    local a1, a2 = corners(a, piece.from, across[1], beside[1], sign, piece.broken)
    local b1, b2 = corners(b, piece.to, across[2], beside[2], sign, piece.broken)
    local normal = ribbon.unit(ribbon.cross(ribbon.sub(b, a), across[1]), { 0, 0, 1 })
    local flat = (piece.from.flat + piece.to.flat) / 2
    local shade = 1 - 0.38 * flat * (1 - math.abs(normal[3]))           -- a face turned away from the eye is darker
    -- and the side toward the inside of the bend, so that one sees which way a helix turns
    local inside = ribbon.dot(normal, turned(piece.inward)) * normal[3] > 0
    if flat > 0.5 and piece.class == "H" and inside then shade = 0.72 * shade end
    local colour = piece.broken and BROKEN or paint(piece.share, piece.class)
    put { points = { a1, b1, b2, a2 }, z = (a[3] + b[3]) / 2, colour = colour, shade = shade }
  end
end

--- What is drawn of a model of a structure, in the picture's axes: x across, y up, z toward the eye, angstrom.
-- @tparam Structure s read or built
-- @tparam number model
-- @tparam number steps pieces between two residues
-- @tparam string colour "chain" or "class"
-- @treturn table items, the farthest first: `points` (four corners, or the ends of a rung), `z`, `colour` (three shares of 1),
--   `shade` (of the colour, 1 by default), `rung`
-- @treturn table the box around them: least x, y, z, largest x, y, z
function M.of(s, model, steps, colour)
  local runs, points = chains_of(s, model), {}
  for _, run in ipairs(runs) do
    for _, p in ipairs(run.trace) do points[#points + 1] = p end
  end
  if #points == 0 then fail "picture: the model has no residue with CA or C4'" end
  local R, centre = view.of(points)
  local function turned(v) return { ribbon.dot(R[1], v), ribbon.dot(R[2], v), ribbon.dot(R[3], v) } end
  local function seen(p) return turned(ribbon.sub(p, centre)) end
  local items, box = {}, { math.huge, math.huge, math.huge, -math.huge, -math.huge, -math.huge }
  local function put(item)
    items[#items + 1] = item
    for _, p in ipairs(item.points) do
      for a = 1, 3 do box[a], box[a + 3] = math.min(box[a], p[a]), math.max(box[a + 3], p[a]) end
    end
  end
  for _, run in ipairs(runs) do
    local function paint(share, class)
      if colour == "class" then return CLASSES[class] end
      return rainbow(run.of > 1 and (run.first - 1 + share * (#run.trace - 1)) / (run.of - 1) or 0)
    end
    add_rungs(put, run, seen, paint)
    add_ribbon(put, run, seen, turned, paint, steps)
  end
  if #items == 0 then      -- one residue: a dot where it stands
    for _, run in ipairs(runs) do
      local p = seen(run.trace[1])
      put { points = { p, p }, z = p[3], colour = rainbow(0), rung = true }
    end
  end
  table.sort(items, function(a, b) return a.z < b.z end)
  return items, box
end

return M
