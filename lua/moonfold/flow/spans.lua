--- Random spans of residues that are held fixed in training, so that a model learns to scaffold a motif.
--
-- As FrameFlow trains for motifs: the share of residues is drawn first, then the number of spans, then their lengths and places.
-- Here every division of the residues into so many spans, and of the others into what lies around them, is equally likely.

local M = {}

local LEAST, MOST = 0.05, 0.5      -- shares of the residues
local MOST_SPANS = 6

-- `total` as a sum of `parts` whole numbers of at least 1, every sum equally likely: cuts at parts - 1 of total - 1 places.
local function divided(total, parts, rng)
  local cuts, taken = { 0 }, {}
  for k = 1, parts - 1 do
    -- Floyd's way of drawing a set without repetition
    local last = total - parts + k
    local cut = rng:integer(1, last)
    if taken[cut] then cut = last end
    taken[cut] = true
    cuts[k + 1] = cut
  end
  cuts[parts + 1] = total
  table.sort(cuts)
  local result = {}
  for k = 1, parts do result[k] = cuts[k + 1] - cuts[k] end
  return result
end

--- Spans of one sequence.
-- @tparam number length residues
-- @param rng
-- @treturn table a list of { first, last }, from 1, at least one residue apart
function M.draw(length, rng)
  if length < 2 then return {} end
  local most = math.max(1, math.floor(MOST * length))
  local total = rng:integer(math.min(most, math.max(1, math.ceil(LEAST * length))), most)
  local count = rng:integer(1, math.min(MOST_SPANS, total))
  local lengths = divided(total, count, rng)
  -- before the first and after the last span there may be nothing, between two there is something
  local gaps = divided(length - total + 2, count + 1, rng)
  gaps[1] = gaps[1] - 1
  local spans, at = {}, 0
  for k = 1, count do
    local first = at + gaps[k] + 1
    spans[k] = { first, first + lengths[k] - 1 }
    at = first + lengths[k] - 1
  end
  return spans
end

return M
