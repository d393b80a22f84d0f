--- Pictures of folds: SVG of a structure's ribbons, and sheets of many structures.
--
--     mf.structure.read("1ubq.pdb.gz"):picture "1ubq.svg"
--     mf.picture.sheet("samples.svg", { { structure = s, label = "100 residues" }, ... })
--
-- Proteins: helices are wide ribbons, strands arrows, the rest a tube, by DSSP. Nucleic acids: a tube along C4' with a rung toward
-- each base. What is too far apart to be bonded is joined by a thin grey line. Colours run from blue at the first residue (N or 5'
-- end) to red at the last; what is far is pale. The eye looks along the axis of least spread.
-- @module moonfold.picture

local chemistry = require "moonfold.chemistry"
local fail = require "moonfold.fail"
local files = require "moonfold.files"
local options = require "moonfold.options"
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

-- A colour made darker by `shade` and, `fog` being the distance, paler.
local function hex(colour, shade, fog)
  local text = "#"
  for a = 1, 3 do
    local value = colour[a] * shade
    text = text .. ("%02x"):format(math.floor(255 * (value + fog * (1 - value)) + 0.5))
  end
  return text
end

local FOG = 0.5             -- of what is farthest
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

-- What is drawn: pieces in the picture's axes with their depth; and the box around them.
local function scene(s, model, steps, colour)
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
    for i, base in ipairs(run.bases) do
      if base then
        local tip = ribbon.add(base[2], ribbon.unit(ribbon.sub(base[2], base[1]), { 0, 0, 0 }), BASE)
        local p, q = seen(run.trace[i]), seen(tip)
        local share = #run.trace > 1 and (i - 1) / (#run.trace - 1) or 0
        put { points = { p, q }, z = (p[3] + q[3]) / 2, colour = paint(share, "C"), rung = true }
      end
    end
    for _, piece in ipairs(ribbon.pieces(run, steps)) do
      local a, b = seen(piece.from.at), seen(piece.to.at)
      local across = { turned(piece.from.across), turned(piece.to.across) }
      local beside = { beside_of(turned(piece.from.along)), beside_of(turned(piece.to.along)) }
      local turns = 0
      for k = 1, 2 do turns = turns + across[k][1] * beside[k][1] + across[k][2] * beside[k][2] end
      local sign = turns >= 0 and 1 or -1
      local a1, a2 = corners(a, piece.from, across[1], beside[1], sign, piece.broken)
      local b1, b2 = corners(b, piece.to, across[2], beside[2], sign, piece.broken)
      local along = ribbon.sub(b, a)
      local normal = ribbon.unit(ribbon.cross(along, across[1]), { 0, 0, 1 })
      local flat = (piece.from.flat + piece.to.flat) / 2
      local facing = math.abs(normal[3])
      local shade = 1 - flat * (1 - (0.62 + 0.38 * facing))
      -- the side toward the inside of the bend is darker, so that one sees which way a helix turns
      local inside = ribbon.dot(normal, turned(piece.inward)) * normal[3] > 0
      if flat > 0.5 and piece.class == "H" and inside then shade = 0.72 * shade end
      local tint = piece.broken and BROKEN or paint(piece.share, piece.class)
      put { points = { a1, b1, b2, a2 }, z = (a[3] + b[3]) / 2, colour = tint, shade = shade }
    end
  end
  table.sort(items, function(a, b) return a.z < b.z end)
  return items, box
end

-- Draws a scene into a rectangle.
local function render(out, s, o)
  local items, box = scene(s, o.model, o.steps, o.colour)
  local wide, tall, deep = box[4] - box[1], box[5] - box[2], math.max(box[6] - box[3], 1e-6)
  local scale = math.min(o.width / math.max(wide, 12), o.height / math.max(tall, 12))
  local cx, cy = (box[1] + box[4]) / 2, (box[2] + box[5]) / 2
  local function place(p) return o.x + o.width / 2 + scale * (p[1] - cx), o.y + o.height / 2 - scale * (p[2] - cy) end
  local line = math.max(0.3, math.min(1.1, 0.11 * scale))
  out[#out + 1] = ('<g stroke-linejoin="round" stroke-width="%.2f">'):format(line)
  for _, item in ipairs(items) do
    local fog = FOG * (box[6] - item.z) / deep
    local p, fill = item.points, hex(item.colour, item.shade or 1, fog)
    local x1, y1 = place(p[1])
    local x2, y2 = place(p[2])
    if item.rung then
      local form = '<path d="M%.1f %.1fL%.1f %.1f" stroke="%s" stroke-width="%.1f" stroke-linecap="round"/>'
      out[#out + 1] = form:format(x1, y1, x2, y2, hex(item.colour, 0.55, fog), 0.85 * scale + 2 * line)
      out[#out + 1] = form:format(x1, y1, x2, y2, hex(item.colour, 1, fog + (1 - fog) * 0.35), 0.85 * scale)
    else
      local x3, y3 = place(p[3])
      local x4, y4 = place(p[4])
      out[#out + 1] = ('<path d="M%.1f %.1fL%.1f %.1fL%.1f %.1fL%.1f %.1fz" fill="%s" stroke="%s"/>')
        :format(x1, y1, x2, y2, x3, y3, x4, y4, fill, fill)
      out[#out + 1] = ('<path d="M%.1f %.1fL%.1f %.1fM%.1f %.1fL%.1f %.1f" stroke="%s"/>')
        :format(x1, y1, x2, y2, x4, y4, x3, y3, hex(item.colour, 0.45, fog))
    end
  end
  out[#out + 1] = "</g>"
  return scale
end

local function escaped(text)
  return (tostring(text):gsub("[&<>]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }))
end

local function scale_bar(out, x, y, scale)
  out[#out + 1] = ('<path d="M%.1f %.1fv-3m0 3h%.1fm0 0v-3" stroke="#777" fill="none"/>'):format(x, y, 10 * scale)
  out[#out + 1] = ('<text x="%.1f" y="%.1f" fill="#777" font-size="9">10 &#197;</text>'):format(x + 10 * scale + 4, y + 1)
end

local function page(width, height)
  return {
    ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">')
      :format(width, height, width, height),
    '<rect width="100%" height="100%" fill="white"/>',
  }
end

local function check_path(path, what)
  if type(path) ~= "string" or not path:find "%.svg$" then fail("%s: '%s' does not end in .svg", what, tostring(path)) end
end

-- A structure that was read or built, of one or of a sample.
local function as_file(s, what)
  if type(s) ~= "table" or not (s.as_file or s.handle) then fail("%s: takes structures, got a %s", what, type(s)) end
  return s.as_file and s:as_file() or s
end

local COLOURS = { chain = true, class = true }
local defaults = { path = options.REQUIRED, model = 1, width = 800, height = 600, title = "", colour = "chain" }

--- Draws the fold of a structure.
-- @tparam Structure s read, built or sampled
-- @tparam string|table o a path that ends in .svg, or `path`, `model` (1), `width` (800) and `height` (600) in points, `title`,
--   `colour`: "chain" (blue to red along each chain) or "class" (helix, strand, coil)
-- @usage mf.structure.read("spec/fixtures/1ubq.pdb.gz"):picture "1ubq.svg"
function M.picture(s, o)
  o = options("structure:picture", defaults, type(o) == "string" and { path = o } or o)
  check_path(o.path, "structure:picture")
  if not COLOURS[o.colour] then fail("structure:picture: colour is '%s', expected 'chain' or 'class'", tostring(o.colour)) end
  local out, head = page(o.width, o.height), o.title ~= "" and 30 or 0
  local scale = render(out, as_file(s, "structure:picture"), {
    model = o.model, colour = o.colour, steps = 6, x = 20, y = 20 + head, width = o.width - 40, height = o.height - 60 - head,
  })
  if head > 0 then
    out[#out + 1] = ('<text x="%g" y="26" text-anchor="middle" font-size="15">%s</text>'):format(o.width / 2, escaped(o.title))
  end
  scale_bar(out, 20, o.height - 16, scale)
  out[#out + 1] = "</svg>\n"
  files.replace(o.path, table.concat(out, "\n"))
end

local sheet_defaults = { columns = 6, cell = 220, title = "", colour = "chain" }

--- Draws several structures on one sheet, row by row.
-- @tparam string path ends in .svg
-- @tparam table list of { `structure`, `label` }
-- @tparam ?table o `columns` (6), `cell`: its side in points (220), `title`, `colour` as of `structure:picture`
-- @usage mf.picture.sheet("sheet.svg", { { structure = mf.structure.read "spec/fixtures/1ubq.pdb.gz", label = "ubiquitin" } })
function M.sheet(path, list, o)
  o = options("picture.sheet", sheet_defaults, o or {})
  check_path(path, "picture.sheet")
  if type(list) ~= "table" or #list == 0 then fail "picture.sheet: no structures" end
  if not COLOURS[o.colour] then fail("picture.sheet: colour is '%s', expected 'chain' or 'class'", tostring(o.colour)) end
  local columns, head, foot = math.min(o.columns, #list), o.title ~= "" and 34 or 6, 22
  local width, height = columns * o.cell, head + math.ceil(#list / columns) * (o.cell + foot)
  local out = page(width, height)
  if o.title ~= "" then
    out[#out + 1] = ('<text x="%g" y="22" text-anchor="middle" font-size="15">%s</text>'):format(width / 2, escaped(o.title))
  end
  for k, item in ipairs(list) do
    local x, y = o.cell * ((k - 1) % columns), head + (o.cell + foot) * math.floor((k - 1) / columns)
    local s = as_file(item.structure, "picture.sheet")
    local scale = render(out, s, {
      model = 1, colour = o.colour, steps = 4, x = x + 10, y = y + 10, width = o.cell - 20, height = o.cell - 20,
    })
    out[#out + 1] = ('<text x="%g" y="%g" text-anchor="middle">%s</text>')
      :format(x + o.cell / 2, y + o.cell + 12, escaped(item.label or ""))
    scale_bar(out, x + 8, y + o.cell - 2, scale)
    if item.structure.as_file then s:release() end
  end
  out[#out + 1] = "</svg>\n"
  files.replace(path, table.concat(out, "\n"))
end

return M
