--- Pictures of folds: SVG of a structure's ribbons, and sheets of many structures.
--
--     mf.structure.read("1ubq.pdb.gz"):picture "1ubq.svg"
--     mf.picture.sheet("samples.svg", { { structure = s, label = "100 residues" }, ... })
--
-- Proteins: helices are wide ribbons, strands arrows, the rest a tube, by DSSP. Nucleic acids: a tube along C4' with a rung toward
-- each base. What is too far apart to be bonded is joined by a thin grey line. Colours run from blue at the first residue (N or 5'
-- end) to red at the last; what is far is pale. The eye looks along the axis of least spread.
-- @module moonfold.picture

local fail = require "moonfold.fail"
local files = require "moonfold.files"
local options = require "moonfold.options"
local scene = require "moonfold.picture.scene"

local M = {}

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

-- Draws a scene into a rectangle.
local function render(out, s, o)
  local items, box = scene.of(s, o.model, o.steps, o.colour)
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
