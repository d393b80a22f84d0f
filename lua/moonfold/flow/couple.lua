--- Which noise goes with which example: optimal transport among the examples of a batch that have equal length.
--
-- Three rules beside independent draws. `kabsch` turns noise a onto data b by the best rotation Q_ab, costs the mean distance
-- that is left and gives b the noise of the cheapest assignment, already turned (translations only). `squared` assigns
-- whole noise frames by the summed squared distances of rotations and translations, in groups of at most `group`.
-- `sinkhorn` draws the partner from the entropic plan of that same cost instead.
--
-- Where a batch is one protein many times over, there is nothing in it to tell apart: `beside` couples each of its examples, by
-- the cost and the rules of `squared` and `sinkhorn`, among other proteins of the same length, with as much noise of its own.

local ffi = require "ffi"
local mf = require "moonfold"
local segments = require "moonfold.flow.segments"

local M = {}

-- Sequences by length: lists of positions, in order of first appearance, split to at most `most`.
local function groups(packing, most)
  local by_length, result = {}, {}
  for i, length in ipairs(packing:lengths()) do
    local list = by_length[length]
    if not list or #list >= most then
      list = { length = length }
      by_length[length] = list
      result[#result + 1] = list
    end
    list[#list + 1] = i
  end
  return result
end

local function stack(x, list, packing)
  local parts = {}
  for k, i in ipairs(list) do parts[k] = x:narrow(1, packing:offset(i) + 1, list.length) end
  return mf.stack(parts, 1)
end

local function inverse(permutation)
  local result = {}
  for i, j in ipairs(permutation) do result[j] = i end
  return result
end

-- Joins blocks of residues, given by sequence, back in the order of the packing.
local function unstack(blocks, packing)
  local parts = {}
  for i = 1, packing:count() do parts[#parts + 1] = blocks[i] end
  return mf.cat(parts, 1)
end

--- Noise translations matched and turned onto the data; both centred. All pairs of all groups are turned in one call, and one read
-- brings their distances: a sequence alone in its length is only turned.
-- @tparam tensor noise (N, 3)
-- @tparam tensor data (N, 3)
-- @tparam tensor weights (N)
-- @tparam packing packing
-- @tparam boolean compat give data b the noise of the inverse permutation, as the original did
-- @treturn tensor (N, 3)
function M.kabsch(noise, data, weights, packing, compat)
  local device, list = noise:device(), groups(packing, math.huge)
  local count, matched = 0, false
  for _, group in ipairs(list) do
    group.first = count
    count, matched = count + #group * #group, matched or #group > 1
  end
  -- a buffer, not a table: 512 sequences of one length are 262,144 pairs
  local buffer, at_pair = ffi.new("int32_t[?]", 2 * count + 1), 0
  for _, group in ipairs(list) do
    for _, a in ipairs(group) do
      for _, b in ipairs(group) do
        buffer[at_pair], buffer[at_pair + 1] = a - 1, b - 1
        at_pair = at_pair + 2
      end
    end
  end
  local pairs = mf.from_bytes(ffi.string(buffer, 8 * count), { count, 2 }, { dtype = "int32", device = device })
  local rotations, distances = mf.geometry.kabsch_pairs(noise, data, weights, packing, pairs)
  distances = matched and distances:to "cpu"

  -- of each sequence: the residue where its noise begins, and the pair that says how it is turned
  local starts, turns = {}, {}
  for _, group in ipairs(list) do
    local n, row_of = #group, { 1 }
    if n > 1 then
      row_of = mf.geometry.assignment(distances:narrow(1, group.first + 1, n * n):reshape(n, n))
      if compat then row_of = inverse(row_of) end
    end
    for b, i in ipairs(group) do
      local a = row_of[b]
      starts[i], turns[i] = packing:offset(group[a]), group.first + (a - 1) * n + b - 1
    end
  end
  local function at(numbers) return mf.tensor(numbers, { dtype = "int32", device = device }) end
  local rows = at(starts):segment_expand(packing) + packing:position(device)
  local turn = rotations:index_select(1, at(turns)):segment_expand(packing)
  local still = mf.zeros(packing:total(), 3, { dtype = noise:dtype(), device = device })
  local turned = mf.geometry.apply(turn, still, noise:index_select(1, rows))
  return segments.centre(turned, weights, packing)
end

-- Summed squared distances between frames (..., L, 3), (..., L, 3, 3), translations in nanometres; w (..., L) weighs residues.
local function frame_cost(x0, r0, w, x1, r1)
  local relative = r0:transpose(-1, -2):matmul(r1)
  local angle2 = mf.geometry.so3_log(relative):square():sum(-1)
  local distance2 = (x1 - x0):mul(0.1):square():sum(-1)
  return ((angle2 + distance2) * w):sum(-1)
end

-- Costs between data j and noise k of the sequences of a list.
local function frame_costs(list, packing, o)
  local x0, r0, w = stack(o.data, list, packing), stack(o.data_rotations, list, packing), stack(o.weights, list, packing)
  local x1, r1 = stack(o.noise, list, packing), stack(o.noise_rotations, list, packing)
  local rows = {}
  for j = 1, #list do
    rows[j] = frame_cost(x0:narrow(1, j, 1), r0:narrow(1, j, 1), w:narrow(1, j, 1), x1, r1)
  end
  return mf.stack(rows, 1):totable()
end

--- The entropic transport plan of a cost matrix between uniform weights, by log-domain Sinkhorn iterations.
-- @tparam table cost n x n numbers
-- @tparam number regularisation relative to the largest cost
-- @treturn table n x n; rows and columns sum to 1/n
function M.sinkhorn(cost, regularisation)
  local n, largest = #cost, 0
  for _, row in ipairs(cost) do largest = math.max(largest, unpack(row)) end
  local scale = 1 / (regularisation * math.max(largest, 1e-30))
  local f, g = {}, {}
  for i = 1, n do f[i], g[i] = 0, 0 end
  local function soften(into, other, transposed)
    local change = 0
    for i = 1, n do
      local most = -math.huge
      local function at(j) return other[j] - (transposed and cost[j][i] or cost[i][j]) * scale end
      for j = 1, n do most = math.max(most, at(j)) end
      local sum = 0
      for j = 1, n do sum = sum + math.exp(at(j) - most) end
      local value = -math.log(n) - most - math.log(sum)
      change = math.max(change, math.abs(value - into[i]))
      into[i] = value
    end
    return change
  end
  for _ = 1, 1000 do
    local change = soften(f, g, false)
    if math.max(change, soften(g, f, true)) < 1e-9 then break end
  end
  local plan = {}
  for i = 1, n do
    plan[i] = {}
    for j = 1, n do plan[i][j] = math.exp(f[i] + g[j] - cost[i][j] * scale) end
  end
  return plan
end

-- For each row a column, drawn in proportion to the row of the plan.
local function draw(plan, numbers)
  local result = {}
  for i, row in ipairs(plan) do
    local total, sum = 0, 0
    for _, p in ipairs(row) do total = total + p end
    result[i] = #row
    for j, p in ipairs(row) do
      sum = sum + p
      if sum > numbers[i] * total then result[i] = j; break end
    end
  end
  return result
end

-- For each row of a table of costs a column: all different and cheapest together, or drawn from the entropic plan.
local function noise_of(cost, regularisation, numbers)
  if regularisation then return draw(M.sinkhorn(cost, regularisation), numbers) end
  return inverse(mf.geometry.assignment(cost))
end

--- Noise frames assigned to the data within groups of equal length.
-- @tparam table o `data`, `data_rotations`, `noise`, `noise_rotations`, `weights`, `group` (10), and for the entropic plan
--   `regularisation` and `numbers` (one draw for each sequence)
-- @treturn tensor translations (N, 3)
-- @treturn tensor rotations (N, 3, 3)
function M.squared(o, packing)
  local translations, rotations = {}, {}
  for _, list in ipairs(groups(packing, o.group or 10)) do
    local partner = {}
    if #list == 1 or list.length == 0 then
      for j in ipairs(list) do partner[j] = j end
    else
      local numbers = {}
      for j, i in ipairs(list) do numbers[j] = o.numbers and o.numbers[i] end
      partner = noise_of(frame_costs(list, packing, o), o.regularisation, numbers)
    end
    for j, i in ipairs(list) do
      local first = packing:offset(list[partner[j]]) + 1
      translations[i] = o.noise:narrow(1, first, list.length)
      rotations[i] = o.noise_rotations:narrow(1, first, list.length)
    end
  end
  return unstack(translations, packing), unstack(rotations, packing)
end

--- Noise frames assigned to n examples of one length L, each among P other proteins of that length, with P + 1 draws of noise of
-- its own: an example takes the noise that the plan of all P + 1 gives it.
-- @tparam table o as for `squared`, and `others`: `translations` (P, L, 3) centred, `rotations` (P, L, 3, 3), `weights` (P, L);
--   `more_noise` (n P L, 3) and `more_noise_rotations` (n P L, 3, 3), example by example
-- @treturn tensor translations (n L, 3)
-- @treturn tensor rotations (n L, 3, 3)
function M.beside(o, packing)
  local others, n, length = o.others, packing:count(), packing:longest()
  local most = others.translations:size(1) + 1
  local function all(first, rest, ...)
    return mf.cat({ first:reshape(n, 1, length, ...), rest:reshape(n, most - 1, length, ...) }, 2)
  end
  local x1, r1 = all(o.noise, o.more_noise, 3), all(o.noise_rotations, o.more_noise_rotations, 3, 3)
  local costs = { frame_cost(o.data:reshape(n, 1, length, 3), o.data_rotations:reshape(n, 1, length, 3, 3),
    o.weights:reshape(n, 1, length), x1, r1) }
  for j = 1, most - 1 do
    local function other(x) return x:narrow(1, j, 1):unsqueeze(1) end
    costs[j + 1] = frame_cost(other(others.translations), other(others.rotations), other(others.weights), x1, r1)
  end
  local rows = {}
  for i, cost in ipairs(mf.stack(costs, 2):totable()) do
    local numbers = { o.numbers and o.numbers[i] }
    for j = 2, most do numbers[j] = 0 end                    -- which noise the others get does not matter
    rows[i] = (i - 1) * most + noise_of(cost, o.regularisation, numbers)[1] - 1
  end
  local at = mf.tensor(rows, { dtype = "int32", device = x1:device() })
  return x1:reshape(n * most, length, 3):index_select(1, at):reshape(n * length, 3),
    r1:reshape(n * most, length, 3, 3):index_select(1, at):reshape(n * length, 3, 3)
end

return M
