--- Which entries are too wide for their length: radii of gyration held against a polynomial through a quantile of each length.
--
--     q(N)   = quantile of the radii of the entries of N residues, linear between ranks
--     p      = least-squares polynomial of degree 4 through the points (N, q(N)), one a distinct length, unweighted
--     keep   radius < p(N) + margin
--
-- N is scaled to [-1, 1] first: raw powers up to 8800^4 leave no digits. With fewer than five lengths the degree falls to what the
-- points determine.
-- @module moonfold.data.prepare.gyration

local M = {}

--- A quantile, linear between the ranks around it.
-- @tparam table sorted ascending, not empty
-- @tparam number q 0 to 1
function M.quantile(sorted, q)
  local at = (#sorted - 1) * q
  local low = math.floor(at)
  local below, above = sorted[low + 1], sorted[math.min(low + 2, #sorted)]
  return below + (above - below) * (at - low)
end

-- Least squares of rows (1, x, x^2, ...) by Householder reflections.
local function solve(xs, ys, count)
  local n, a = #xs, {}
  for i = 1, n do
    a[i] = { 1 }
    for k = 2, count do a[i][k] = a[i][k - 1] * xs[i] end
    a[i][count + 1] = ys[i]
  end
  for k = 1, count do
    local norm = 0
    for i = k, n do norm = norm + a[i][k] ^ 2 end
    norm = math.sqrt(norm)
    local alpha = a[k][k] > 0 and -norm or norm
    local v, square = {}, 0
    for i = k, n do
      v[i] = a[i][k] - (i == k and alpha or 0)
      square = square + v[i] ^ 2
    end
    for j = k, count + 1 do
      local dot = 0
      for i = k, n do dot = dot + v[i] * a[i][j] end
      for i = k, n do a[i][j] = a[i][j] - 2 * dot / square * v[i] end
    end
  end
  local c = {}
  for k = count, 1, -1 do
    local rest = a[k][count + 1]
    for j = k + 1, count do rest = rest - a[k][j] * c[j] end
    c[k] = rest / a[k][k]
  end
  return c
end

--- Fits a polynomial.
-- @tparam table xs distinct
-- @tparam table ys
-- @tparam number degree at the most
-- @treturn function(x) its value
-- @treturn table `coefficients` of the powers of the scaled x; `low`, `high`: what is scaled to -1 and 1
function M.fit(xs, ys, degree)
  local low, high = math.huge, -math.huge
  for _, x in ipairs(xs) do low, high = math.min(low, x), math.max(high, x) end
  local function scaled(x) return high > low and (2 * x - low - high) / (high - low) or 0 end
  local at = {}
  for i, x in ipairs(xs) do at[i] = scaled(x) end
  local c = solve(at, ys, math.min(degree + 1, #xs))
  return function(x)
    local value, t = 0, scaled(x)
    for k = #c, 1, -1 do value = value * t + c[k] end
    return value
  end, { coefficients = c, low = low, high = high }
end

--- The largest radius for each length.
-- @tparam table lengths of the entries
-- @tparam table radii of the entries
-- @tparam number q the quantile
-- @treturn function(length) radius
-- @treturn table the fit's coefficients
function M.limit(lengths, radii, q)
  local by_length, xs, ys = {}, {}, {}
  for i, n in ipairs(lengths) do
    if not by_length[n] then
      by_length[n] = {}
      xs[#xs + 1] = n
    end
    table.insert(by_length[n], radii[i])
  end
  table.sort(xs)
  for i, n in ipairs(xs) do
    table.sort(by_length[n])
    ys[i] = M.quantile(by_length[n], q)
  end
  return M.fit(xs, ys, 4)
end

return M
