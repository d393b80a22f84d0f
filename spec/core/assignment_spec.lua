local mf = require "moonfold"
local support = require "spec.support.geometry"

local assignment = mf.geometry.assignment

local function costs(n, rng, whole)
  local cost = {}
  for i = 1, n do
    cost[i] = {}
    for j = 1, n do cost[i][j] = whole and math.floor(rng:number() * 6) - 3 or rng:number() end
  end
  return cost
end

-- The cheapest permutation, by trying all of them.
local function cheapest(cost)
  local n, used, best = #cost, {}, math.huge
  local function place(j, total)
    if j > n then
      best = math.min(best, total)
      return
    end
    for i = 1, n do
      if not used[i] then
        used[i] = true
        place(j + 1, total + cost[i][j])
        used[i] = false
      end
    end
  end
  place(1, 0)
  return best
end

local function total(cost, row_of)
  local sum, seen = 0, {}
  for j, i in ipairs(row_of) do
    assert(not seen[i] and i >= 1 and i <= #cost, "not a permutation")
    seen[i] = true
    sum = sum + cost[i][j]
  end
  assert(#row_of == #cost)
  return sum
end

describe("assignment", function()
  it("is as cheap as the best of all permutations", function()
    local rng = mf.rng(3)
    for n = 1, 7 do
      for trial = 1, n < 6 and 30 or 5 do
        local cost = costs(n, rng, trial % 2 == 0)
        assert.near(cheapest(cost), total(cost, assignment(cost)), 1e-12)
      end
    end
  end)

  it("is a certified optimum of a large table", function()
    -- a table u_i + v_j + slack, slack >= 0 and 0 along a hidden permutation, costs sum u + sum v at best
    local rng, n = mf.rng(4), 101
    local hidden, u, v, cost, best = mf.random.permutation(n, { rng = rng }):values(), {}, {}, {}, 0
    for i = 1, n do
      u[i], v[i] = rng:number() * 100, rng:number() * 100
      best = best + u[i] + v[i]
    end
    for i = 1, n do
      cost[i] = {}
      for j = 1, n do cost[i][j] = u[i] + v[j] + (hidden[j] + 1 == i and 0 or rng:number()) end
    end
    assert.near(best, total(cost, assignment(cost)), 1e-9)
  end)

  it("takes nothing, one, and equal costs", function()
    assert.same({}, assignment {})
    assert.same({ 1 }, assignment { { -5 } })
    local cost = { { 1, 1, 1 }, { 1, 1, 1 }, { 1, 1, 1 } }
    assert.same(assignment(cost), assignment(cost))
    assert.equal(3, total(cost, assignment(cost)))
  end)

  it("names the cost that is no number", function()
    local table_of = mf.randn(7, 7, { dtype = "float64", rng = mf.rng(3) })
    assert.same(assignment(table_of:totable()), assignment(table_of))
    assert.same(assignment(table_of:float():totable()), assignment(table_of:float()))
    support.fails(function() assignment(mf.zeros(2, 3)) end, "assignment: shape (2, 3) must be (n, n)")
    support.fails(function() assignment(mf.zeros(4)) end, "assignment: shape (4) must be (n, n)")
    support.fails(function() assignment { { 1, 2 }, { 0 / 0, 4 } } end, "assignment: the cost of row 2, column 1 is")
    support.fails(function() assignment { { 1, math.huge }, { 3, 4 } } end, "row 1, column 2 is inf")
  end)
end)
