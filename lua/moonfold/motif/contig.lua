--- Contigs: reading them, and drawing the lengths that they leave open.
-- @module moonfold.motif.contig
local fail = require "moonfold.fail"
local files = require "moonfold.files"

local M = {}

local function range(text, what)
  local first, last = text:match "^(%-?%d+)%-(%-?%d+)$"
  first, last = tonumber(first or text:match "^%-?%d+$"), tonumber(last or text:match "^%-?%d+$")
  if first and last < first then fail("motif: the range %s%s runs backwards", what or "", text) end
  return first, last
end

local function parse_part(text)
  if text == "0" then return { ends = true } end
  local chain, rest = text:match "^(%a+)(%-?%d.*)$"
  local first, last = range(rest or text, chain)
  if not first or not chain and first < 0 then
    fail("motif: '%s' is no part of a contig: expected residues to generate (10-40 or 12), of the file (A254-277), or 0", text)
  end
  return { chain = chain, first = first, last = last }
end

--- The parts of a contig.
-- @tparam string text
-- @treturn table a list: `chain`, `first`, `last` of residues of the file; `first`, `last` of how many to generate; `ends` = true
-- @usage contig.parse "10-40,A163-181,10-40"
function M.parse(text)
  if type(text) ~= "string" then fail("motif: the contig is a %s, expected a text like 10-40,A163-181,10-40", type(text)) end
  local parts, open = {}, false
  for word in text:gsub("[%[%]'\"]", ""):gmatch "[^,/%s]+" do
    local part = parse_part(word)
    if part.ends and not open then fail("motif: '%s': a chain ends before it has begun", text) end
    open = not part.ends
    parts[#parts + 1] = part
  end
  if not open then fail("motif: '%s': %s", text, #parts == 0 and "the contig is empty" or "the last chain is empty") end
  return parts
end

--- A part as text, with the number of residues that was drawn for it.
function M.text(part, count)
  if part.ends then return "0" end
  if not part.chain then return tostring(count) end
  if part.first == part.last then return part.chain .. part.first end
  return ("%s%d-%d"):format(part.chain, part.first, part.last)
end

-- ---- lengths ------------------------------------------------------------------------------------------------

local Choices = {}
Choices.__index = Choices

-- How many residues a part may have.
local function bounds(part)
  if part.ends then return 0, 0 end
  if part.chain then return part.last - part.first + 1, part.last - part.first + 1 end
  return part.first, part.last
end

-- ways[k][s]: in how many ways the parts k, k + 1, ... can have s residues together.
local function ways_of(parts)
  local ways = { [#parts + 1] = { [0] = 1 } }
  for k = #parts, 1, -1 do
    local least, most = bounds(parts[k])
    ways[k] = {}
    for sum, count in pairs(ways[k + 1]) do
      for n = least, most do ways[k][sum + n] = (ways[k][sum + n] or 0) + count end
    end
  end
  return ways
end

--- The choices that parts leave open, within a total length.
-- @tparam table parts
-- @tparam ?number|string length 60 or "55-80"
-- @treturn table with `draw(rng)` and `range()`
function M.choices(parts, length)
  local least, most = 0, 0
  for _, part in ipairs(parts) do
    local a, b = bounds(part)
    least, most = least + a, most + b
  end
  local from, to = least, most
  if length ~= nil then
    from, to = range(tostring(length))
    if not from or from < 1 then fail("motif: length is %s, expected residues in all: 60 or 55-80", tostring(length)) end
    if to < least or from > most then
      fail("motif: the contig makes %d to %d residues, the length asks for %s", least, most, tostring(length))
    end
  end
  local self = setmetatable({ parts = parts, from = math.max(from, least), to = math.min(to, most) }, Choices)
  if self.to < 1 then fail "motif: the contig makes no residues" end
  self.ways = ways_of(parts)
  return self
end

--- Fewest and most residues.
function Choices:range() return self.from, self.to end

-- One of the keys lo..hi of `weights`, in proportion to its weight.
local function pick(weight, lo, hi, rng)
  local total, sum = 0, 0
  for n = lo, hi do total = total + weight(n) end
  local at = rng:number() * total
  for n = lo, hi do
    sum = sum + weight(n)
    if at < sum then return n end
  end
  -- rounding: the last that is possible
  for n = hi, lo, -1 do if weight(n) > 0 then return n end end
end

--- How many residues each part has: every choice within the length is equally likely.
-- @param rng
-- @treturn table a number for each part
function Choices:draw(rng)
  local left = pick(function(n) return self.ways[1][n] or 0 end, self.from, self.to, rng)
  local counts = {}
  for k, part in ipairs(self.parts) do
    local least, most = bounds(part)
    counts[k] = pick(function(n) return self.ways[k + 1][left - n] or 0 end, least, most, rng)
    left = left - counts[k]
  end
  return counts
end

-- ---- Genie 2 ------------------------------------------------------------------------------------------------

--- The contig and the length that REMARK 999 records of a PDB file state, in the columns of Genie 2's problem files:
--
--     REMARK 999 INPUT     5  20              residues to generate
--     REMARK 999 INPUT  A  16  35 A           of chain A, and the group that moves together
--     REMARK 999 MINIMUM TOTAL LENGTH      60
--
-- @tparam string path plain or gzip
-- @tparam ?number|string length over that of the file
-- @treturn string
-- @treturn ?string
function M.of_remarks(path, length)
  local contents, reason = files.read(path)
  if not contents then fail("motif: %s", reason) end
  local parts, group, least, most = {}, nil, nil, nil
  for line in contents:gmatch "[^\r\n]+" do
    local rest = line:match "^REMARK 999 INPUT(.*)$"
    if rest then
      local chain, first, last = rest:sub(3, 3), tonumber(rest:sub(4, 7)), tonumber(rest:sub(8, 11))
      if not first or not last then fail("motif: %s: '%s' has no two numbers in columns 20-27", path, line) end
      local of = rest:sub(13, 13):match "%S" or "A"
      if chain:match "%S" then
        if group and group ~= of then
          fail("motif: %s: groups %s and %s may move apart, which is not supported: the motif is one rigid body", path, group, of)
        end
        group = of
      end
      parts[#parts + 1] = ("%s%d-%d"):format(chain:match "%S" or "", first, last)
    end
    least = least or tonumber(line:match "^REMARK 999 MINIMUM TOTAL LENGTH%s+(%d+)")
    most = most or tonumber(line:match "^REMARK 999 MAXIMUM TOTAL LENGTH%s+(%d+)")
  end
  if #parts == 0 then fail("motif: give a contig (%s has no REMARK 999 INPUT to take it from)", path) end
  return table.concat(parts, ","), length or least and most and ("%d-%d"):format(least, most) or nil
end

return M
