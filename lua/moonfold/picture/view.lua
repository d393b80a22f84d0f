--- Where one looks from: along the axis of least spread, the longest axis of the points across the picture.

local M = {}

-- Eigenvectors of a symmetric 3 x 3 matrix by Jacobi's rotations: rows of the result, the largest eigenvalue first.
local function principal(S)
  local V = { { 1, 0, 0 }, { 0, 1, 0 }, { 0, 0, 1 } }
  for _ = 1, 30 do
    for p = 1, 2 do
      for q = p + 1, 3 do
        if math.abs(S[p][q]) > 1e-12 then
          local theta = (S[q][q] - S[p][p]) / (2 * S[p][q])
          local t = (theta >= 0 and 1 or -1) / (math.abs(theta) + math.sqrt(theta * theta + 1))
          local c = 1 / math.sqrt(t * t + 1)
          local s = t * c
          for k = 1, 3 do
            local a, b = S[k][p], S[k][q]
            S[k][p], S[k][q] = c * a - s * b, s * a + c * b
          end
          for k = 1, 3 do
            local a, b = S[p][k], S[q][k]
            S[p][k], S[q][k] = c * a - s * b, s * a + c * b
            a, b = V[p][k], V[q][k]
            V[p][k], V[q][k] = c * a - s * b, s * a + c * b
          end
        end
      end
    end
  end
  local order = { 1, 2, 3 }
  table.sort(order, function(a, b) return S[a][a] > S[b][b] end)
  return { V[order[1]], V[order[2]], V[order[3]] }
end

--- A rotation that lays points out for a picture: x across, y up, z toward the eye.
-- @tparam table points a list of { x, y, z }
-- @treturn table rows of the rotation; never a mirror, so that right-handed helices stay so
-- @treturn table centre of the points
function M.of(points)
  local centre, S = { 0, 0, 0 }, { { 0, 0, 0 }, { 0, 0, 0 }, { 0, 0, 0 } }
  for _, p in ipairs(points) do
    for a = 1, 3 do centre[a] = centre[a] + p[a] / #points end
  end
  for _, p in ipairs(points) do
    for a = 1, 3 do
      for b = 1, 3 do S[a][b] = S[a][b] + (p[a] - centre[a]) * (p[b] - centre[b]) end
    end
  end
  local R = principal(S)
  -- signs: the first point is at the left and below, and z follows by the right hand
  local first = points[1]
  for a = 1, 2 do
    local along = 0
    for b = 1, 3 do along = along + R[a][b] * (first[b] - centre[b]) end
    if along > 0 then for b = 1, 3 do R[a][b] = -R[a][b] end end
  end
  local x, y = R[1], R[2]
  R[3] = { x[2] * y[3] - x[3] * y[2], x[3] * y[1] - x[1] * y[3], x[1] * y[2] - x[2] * y[1] }
  return R, centre
end

return M
