--- Pairs of points nearer than a cutoff, by a grid of cells: time and memory grow with the number of points.

local M = {}

local floor = math.floor
local SPAN = 2 ^ 17          -- cells along an axis that keep apart; farther points share keys and are told apart by distance
local HALF = SPAN / 2

--- Calls visit(i, j, squared distance) for every pair i < j nearer than the cutoff, in no promised order.
-- @tparam table x flat coordinates, x[3 i - 2], x[3 i - 1], x[3 i] of point i
-- @tparam number cutoff
-- @tparam function visit
-- @tparam ?function skip skip(i) -> true leaves a point out
function M.pairs(x, cutoff, visit, skip)
  local n, near2 = #x / 3, cutoff * cutoff
  local heads, next_in = {}, {}
  for i = 1, n do
    local a, b, c = x[3 * i - 2], x[3 * i - 1], x[3 * i]
    local sum = a + b + c
    if sum - sum == 0 and not (skip and skip(i)) then       -- neither infinite nor not a number
      local ka, kb, kc = floor(a / cutoff), floor(b / cutoff), floor(c / cutoff)
      -- only earlier points are in the grid, so each pair is met once
      for da = -1, 1 do
        for db = -1, 1 do
          for dc = -1, 1 do
            local j = heads[(ka + da) % SPAN + SPAN * ((kb + db) % SPAN + SPAN * ((kc + dc) % HALF))]
            while j do
              local u, v, w = a - x[3 * j - 2], b - x[3 * j - 1], c - x[3 * j]
              local d2 = u * u + v * v + w * w
              if d2 < near2 then visit(j, i, d2) end
              j = next_in[j]
            end
          end
        end
      end
      local key = ka % SPAN + SPAN * (kb % SPAN + SPAN * (kc % HALF))
      next_in[i], heads[key] = heads[key], i
    end
  end
end

return M
