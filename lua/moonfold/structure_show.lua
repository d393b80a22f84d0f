--- Structures to look at: sequence and secondary structure in the terminal, contact maps as PNG and SVG.
-- @module moonfold.structure_show

local ffi = require "ffi"
local binding = require "moonfold.ffi"
local chemistry = require "moonfold.chemistry"
local fail = require "moonfold.fail"
local options = require "moonfold.options"

local C, check = binding.C, binding.check
local M = {}

local function terminal_width() return tonumber(os.getenv "COLUMNS") or 80 end

local function counted(n, what) return ("%d %s%s"):format(n, what, n == 1 and "" or "s") end

--- A structure in one line: the polymers of its first model, how much of everything there is.
-- @tparam Structure s
-- @treturn string
-- @usage print(s) --> structure 1UBQ: A protein 76; 1 model, 1 chain, 134 residues, 660 atoms
function M.line(s)
  local n, polymers, more = s:counts(), {}, 0
  for _, chain in ipairs(s:chains(1)) do
    if chain.polymer ~= "none" and chain.residues > 0 then
      if #polymers < 4 then polymers[#polymers + 1] = ("%s %s %d"):format(chain.id, chain.polymer, chain.residues)
      else more = more + 1 end
    end
  end
  if more > 0 then polymers[#polymers + 1] = ("%d more"):format(more) end
  return ("structure %s: %s%s, %s, %s, %s"):format(s.id ~= "" and s.id or "?",
    #polymers > 0 and table.concat(polymers, ", ") .. "; " or "", counted(n.models, "model"), counted(n.chains, "chain"),
    counted(n.residues, "residue"), counted(n.atoms, "atom"))
end

local function mark_at(line, at, text) return line:sub(1, at - 1) .. text .. line:sub(at + #text) end

-- Where residues are missing: before these positions the sequence number jumps, or the author's does and no bond leads over.
local function find_gaps(chain, torsions)
  local gaps, count = {}, 0
  for k = 2, chain.residues do
    local bonded = torsions[k - 1].psi or torsions[k - 1].epsilon
    if chain.labels[k] - chain.labels[k - 1] > 1 or (chain.numbers[k] - chain.numbers[k - 1] > 1 and not bonded) then
      gaps[k], count = true, count + 1
    end
  end
  return gaps, count
end

-- Three lines a block: numbers every ten residues, letters with "~" where residues are missing, secondary structure.
local function blocks(lines, chain, letters, gaps, width)
  local shown, below, numbers = {}, {}, {}
  for k = 1, chain.residues do
    if gaps[k] then
      shown[#shown + 1], below[#below + 1], numbers[#numbers + 1] = "~", "~", false
    end
    shown[#shown + 1] = chain.sequence:sub(k, k)
    below[#below + 1] = letters and letters:sub(k, k) or " "
    numbers[#numbers + 1] = chain.numbers[k]
  end
  local step = math.max(10, math.floor((width - 2) / 10) * 10)
  for first = 1, #shown, step do
    local last = math.min(first + step - 1, #shown)
    local ruler = (" "):rep(last - first + 1)
    for at = first, last, 10 do
      local text = numbers[at] and tostring(numbers[at]) or ""
      if #text < 10 then ruler = mark_at(ruler, at - first + 1, text) end
    end
    lines[#lines + 1] = ("  " .. ruler):gsub("%s+$", "")
    lines[#lines + 1] = "  " .. table.concat(shown, "", first, last)
    if letters then lines[#lines + 1] = "  " .. table.concat(below, "", first, last) end
  end
end

-- The letters of each nucleic chain out of the dot-bracket line of all.
local function brackets_of(s, chains, model)
  local result, pieces = {}, {}
  for piece in (s:dot_bracket { model = model }):gmatch "[^&]+" do pieces[#pieces + 1] = piece end
  for _, chain in ipairs(chains) do
    if chain.residues > 0 and (chain.polymer == "rna" or chain.polymer == "dna") then
      result[chain.index] = table.remove(pieces, 1)
    end
  end
  return result
end

--- A structure as text: its chains with sequence, secondary structure (DSSP; dot-bracket of nucleic acids) and gaps.
-- @tparam Structure s
-- @tparam ?table o `model` (1), `width` of the terminal (COLUMNS, or 80)
-- @treturn string lines; "~" stands where the numbering says that residues are missing
-- @usage print(s:show())
function M.show(s, o)
  if type(o) == "number" then o = { model = o } end
  o = options("structure:show", { model = 1, width = options.OPTIONAL }, o or {})
  local letters = chemistry.secondary_structure(s, { model = o.model })
  local torsions = chemistry.torsions(s, { model = o.model })
  local chains = s:chains(o.model)
  local brackets = brackets_of(s, chains, o.model)
  local lines = { tostring(s) }
  local width = o.width or terminal_width()
  if s.title ~= "" then
    lines[#lines + 1] = "  " .. (#s.title > width - 2 and s.title:sub(1, math.max(width - 5, 1)) .. "..." or s.title)
  end
  local facts = {}
  if s.method ~= "" then facts[#facts + 1] = s.method:lower() end
  if s.resolution then facts[#facts + 1] = ("%.2f A"):format(s.resolution) end
  if s.date ~= "" then facts[#facts + 1] = s.date end
  if #facts > 0 then lines[#lines + 1] = "  " .. table.concat(facts, ", ") end
  for _, chain in ipairs(chains) do
    if chain.polymer ~= "none" and chain.residues > 0 then
      local gaps, count = find_gaps(chain, torsions[chain.index])
      lines[#lines + 1] = ("chain %s: %s, %s%s"):format(chain.id, chain.polymer, counted(chain.residues, "residue"),
        count > 0 and ", " .. counted(count, "gap") or "")
      blocks(lines, chain, letters[chain.index] or brackets[chain.index], gaps, width)
    end
  end
  return table.concat(lines, "\n")
end

local map_defaults = { path = options.REQUIRED, model = 1, cutoff = 8, atoms = "representative", scale = options.OPTIONAL }

-- Rows of the map: polymer residues of the model, and where chains begin.
local function rows_of(s, model)
  local place, starts, n = {}, {}, 0
  for _, chain in ipairs(s:chains(model)) do
    if chain.polymer ~= "none" and chain.residues > 0 then
      starts[#starts + 1] = n
      for _, residue in ipairs(s:residues(chain.index)) do
        if residue.polymer then
          place[residue.index - 1] = n
          n = n + 1
        end
      end
    end
  end
  return place, starts, n
end

-- Dark blue where near, light at the cutoff.
local function colour(share) return 20 + 180 * share, 60 + 150 * share, 140 + 90 * share end

local function png(o, n, starts, cells)
  local scale = o.scale or math.max(1, math.floor(800 / math.max(n, 1)))
  local size = n * scale
  local pixels = ffi.new("unsigned char[?]", math.max(3 * size * size, 1))
  ffi.fill(pixels, 3 * size * size, 255)
  local function paint(row, column, r, g, b)
    for y = row * scale, row * scale + scale - 1 do
      for x = column * scale, column * scale + scale - 1 do
        local at = 3 * (y * size + x)
        pixels[at], pixels[at + 1], pixels[at + 2] = r, g, b
      end
    end
  end
  for k = 2, #starts do
    local at = starts[k] * scale
    for x = 0, size - 1 do
      for c = 0, 2 do pixels[3 * (at * size + x) + c], pixels[3 * (x * size + at) + c] = 200, 200 end
    end
  end
  for k = 0, n - 1 do paint(k, k, 90, 90, 90) end
  for _, cell in ipairs(cells) do
    local r, g, b = colour(cell[3])
    paint(cell[1], cell[2], r, g, b)
    paint(cell[2], cell[1], r, g, b)
  end
  check(C.mf_image_png(o.path, pixels, size, size, 3))
end

local function svg(o, n, starts, cells)
  local lines = {
    ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="800" height="800" '):format(n, n)
      .. 'shape-rendering="crispEdges">',
    ('<rect width="%d" height="%d" fill="#fff"/>'):format(n, n),
    ('<path d="M0 0L%d %d" stroke="#5a5a5a"/>'):format(n, n),
  }
  for k = 2, #starts do
    lines[#lines + 1] = ('<path d="M0 %dH%dM%d 0V%d" stroke="#c8c8c8" stroke-width="0.3"/>'):format(starts[k], n, starts[k], n)
  end
  for _, cell in ipairs(cells) do
    local fill = ("#%02x%02x%02x"):format(colour(cell[3]))
    lines[#lines + 1] = ('<path d="M%d %dh1v1h-1zM%d %dh1v1h-1z" fill="%s"/>'):format(cell[2], cell[1], cell[1], cell[2], fill)
  end
  lines[#lines + 1] = "</svg>\n"
  local text = table.concat(lines, "\n")
  check(C.mf_file_replace(o.path, text, #text))
end

--- Draws which residues are near each other, a pixel or more a residue; grey lines part chains.
-- @tparam Structure s
-- @tparam table|string o a path, or `path` (.png or .svg), `model` (1), `cutoff` (8 angstrom), `atoms` ("representative" or "any"),
--   `scale`: pixels a residue, PNG only (default: about 800 in all)
-- @treturn number pairs drawn
-- @usage s:contact_map "map.png"
function M.contact_map(s, o)
  if type(o) == "string" then o = { path = o } end
  o = options("structure:contact_map", map_defaults, o or {})
  local ending = tostring(o.path):match "%.(%w+)$"
  if ending ~= "png" and ending ~= "svg" then
    fail("structure:contact_map: '%s' ends neither in .png nor in .svg", tostring(o.path))
  end
  local place, starts, n = rows_of(s, o.model)
  if o.scale and (o.scale < 1 or o.scale % 1 ~= 0) then
    fail("structure:contact_map: scale is %s, expected 1, 2, ...", tostring(o.scale))
  end
  local pairs_, distances = chemistry.contacts(s, { model = o.model, cutoff = o.cutoff, atoms = o.atoms })
  if n == 0 then fail "structure:contact_map: the model has no polymer" end
  if n * (o.scale or 1) > 32767 then fail("structure:contact_map: %d residues are more than 32767 pixels", n) end
  local ends, d, cells = pairs_:values(), distances:values(), {}
  for k = 1, #d do cells[k] = { place[ends[2 * k - 1]], place[ends[2 * k]], d[k] / o.cutoff } end
  pairs_:release()
  distances:release()
  local draw = ending == "png" and png or svg
  draw(o, n, starts, cells)
  return #cells
end

return M
