--- Tables of numbers about sets of structures: means, quantiles, distances between distributions.

local M = {}

local function sorted(values)
  local list = {}
  for _, v in ipairs(values) do
    if v == v then list[#list + 1] = v end
  end
  table.sort(list)
  return list
end

local function at(list, q)
  if #list == 0 then return 0 / 0 end
  local position = 1 + (#list - 1) * q
  local low = math.floor(position)
  local high = math.min(low + 1, #list)
  return list[low] + (list[high] - list[low]) * (position - low)
end

--- A quantile, by linear interpolation between the two nearest values.
-- @tparam table values numbers; those that are not numbers are left out
-- @tparam number q in [0, 1]
-- @treturn number nan of an empty list
function M.quantile(values, q)
  return at(sorted(values), q)
end

--- Count, mean, standard deviation and quantiles.
-- @tparam table values numbers
-- @treturn table `n`, `mean`, `sd`, `min`, `q25`, `median`, `q75`, `max`
function M.describe(values)
  local list = sorted(values)
  local n, sum, square = #list, 0, 0
  for _, v in ipairs(list) do sum = sum + v end
  local mean = sum / n
  for _, v in ipairs(list) do square = square + (v - mean) ^ 2 end
  local sd = n > 0 and math.sqrt(square / math.max(n - 1, 1)) or 0 / 0
  return { n = n, mean = mean, sd = sd, min = at(list, 0), q25 = at(list, 0.25),
           median = at(list, 0.5), q75 = at(list, 0.75), max = at(list, 1) }
end

--- Each metric of a set of structures, described.
-- @tparam table rows a table name -> number for each structure
-- @treturn table name -> what `describe` gives
-- @usage local t = mf.metrics.summary(rows); print(t.radius_gyration.median)
function M.summary(rows)
  local columns = {}
  for _, row in ipairs(rows) do
    for name, value in pairs(row) do
      if type(value) == "number" then
        columns[name] = columns[name] or {}
        table.insert(columns[name], value)
      end
    end
  end
  local result = {}
  for name, values in pairs(columns) do result[name] = M.describe(values) end
  return result
end

-- The pieces of |F_a - F_b|: a list of { signed difference, width } between consecutive values of the union.
local function pieces(a, b, last)
  local list, i, j, x = {}, 0, 0, nil
  while i < #a or j < #b do
    local u, v = a[i + 1] or math.huge, b[j + 1] or math.huge
    local next_x = math.min(u, v)
    if x then list[#list + 1] = { i / #a - j / #b, next_x - x } end
    x = next_x
    while a[i + 1] == x do i = i + 1 end
    while b[j + 1] == x do j = j + 1 end
  end
  if last and x then list[#list + 1] = { 0, last - x } end
  return list
end

--- Wasserstein-1 distance of two samples on the line: the area between their distribution functions.
-- @tparam table a numbers
-- @tparam table b numbers
-- @treturn number nan when one is empty
function M.wasserstein(a, b)
  a, b = sorted(a), sorted(b)
  if #a == 0 or #b == 0 then return 0 / 0 end
  local sum = 0
  for _, piece in ipairs(pieces(a, b)) do sum = sum + math.abs(piece[1]) * piece[2] end
  return sum
end

--- Wasserstein-1 distance of two samples on a circle: with the constant taken off the difference of the distribution
-- functions that makes the area least, which is its weighted median.
-- @tparam table a angles
-- @tparam table b angles
-- @tparam[opt=2 pi] number period
-- @treturn number
function M.circular_wasserstein(a, b, period)
  period = period or 2 * math.pi
  local function wrapped(values)
    local list = {}
    for k, v in ipairs(values) do list[k] = v % period end
    return sorted(list)
  end
  a, b = wrapped(a), wrapped(b)
  if #a == 0 or #b == 0 then return 0 / 0 end
  local list = pieces(a, b, period)
  -- before the first value the difference is 0, as after the last
  list[#list + 1] = { 0, math.min(a[1], b[1]) }
  table.sort(list, function(p, q) return p[1] < q[1] end)
  local half, seen, median = period / 2, 0, 0
  for _, piece in ipairs(list) do
    seen, median = seen + piece[2], piece[1]
    if seen >= half then break end
  end
  local sum = 0
  for _, piece in ipairs(list) do sum = sum + math.abs(piece[1] - median) * piece[2] end
  return sum
end

return M
