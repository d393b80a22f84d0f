--- What samples of some length are compared with: entries of a data set about as long, then windows of longer ones.

local specimen = require "moonfold.metrics.specimen"
local options = require "moonfold.options"
local streams = require "moonfold.flow.streams"

local M = {}

local defaults = { n = 30, tolerance = 0.1, seed = 123, exact = false }

-- The numbers 1 to n in random order.
local function shuffled(n, rng)
  local list = {}
  for i = 1, n do list[i] = i end
  for i = n, 2, -1 do
    local j = 1 + math.floor(rng:number() * i)
    list[i], list[j] = list[j], list[i]
  end
  return list
end

--- References for one length. Whole entries whose length is nearly that one come first, in random order; where they are too few,
-- windows without a gap of longer entries, at random places. A chain's window is less compact than a chain of that length: how
-- many are whole is told.
-- @tparam Set set
-- @tparam number length residues
-- @tparam ?table o `n` (30), `tolerance` (0.1) of the length of whole entries, `seed` (123), `exact`: see specimen.of_window
-- @treturn table specimens
-- @treturn number how many of them are whole entries
-- @usage local list, whole = references.choose(set, 100)
function M.choose(set, length, o)
  o = options("metrics.references", defaults, o or {})
  local rng, list = streams.rng(o.seed, "crop", 0, length), {}
  local order = shuffled(set.count, rng)
  for _, i in ipairs(order) do
    if #list >= o.n then break end
    if math.abs(set:length(i) - length) <= o.tolerance * length then
      local whole = specimen.of_window(set, i, nil, nil, o.exact)
      if whole.length > 0 then list[#list + 1] = whole end
    end
  end
  local whole, longer = #list, {}
  for _, i in ipairs(order) do
    if set:length(i) > (1 + o.tolerance) * length then longer[#longer + 1] = i end
  end
  for try = 1, #longer > 0 and 20 * o.n or 0 do
    if #list >= o.n then break end
    local i = longer[(try - 1) % #longer + 1]
    local window = specimen.of_window(set, i, 1 + math.floor(rng:number() * (set:length(i) - length + 1)), length, o.exact)
    if window.length == length and window.run[length] == 1 then list[#list + 1] = window end
  end
  return list, whole
end

return M
