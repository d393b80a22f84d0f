--- How many examples of one length make a batch.
--
--     size = round(budget / N^2)  "quadratic"      round(budget / N)  "linear"      budget  "fixed"
--
-- plus `plus`, at least 1, at most `cap`. A "global" size is what all ranks share: its budget grows with the
-- number of ranks, and each takes as even a part as can be.

local fail = require "moonfold.fail"
local options = require "moonfold.options"

local M = {}
local Rule = {}
Rule.__index = Rule

M.defaults = {
  kind = "linear", budget = options.REQUIRED, round = "floor", scope = "rank", cap = options.OPTIONAL, plus = 0,
}

--- Rules by name: those of the two recipes.
M.named = {
  ["protein-ipa"] = { kind = "quadratic", budget = 5e5, cap = 256 },
  ["protein-flash"] = { kind = "linear", budget = 2e4, round = "nearest", scope = "global" },
  ["rna-ipa"] = { kind = "quadratic", budget = 375000, plus = 1, cap = 28 },
  ["rna-flash"] = { kind = "linear", budget = 19000, plus = 1, cap = 28 },
}

local POWER = { quadratic = 2, linear = 1, fixed = 0 }
local ROUNDS = { floor = true, nearest = true }
local SCOPES = { rank = true, global = true }

-- To the nearest whole number, ties to the even one, as Python's round.
local function nearest(x)
  local low = math.floor(x)
  local rest = x - low
  if rest > 0.5 or (rest == 0.5 and low % 2 == 1) then return low + 1 end
  return low
end

--- A batch rule.
-- @tparam table|string o `kind`, `budget`, `round` ("floor" or "nearest"), `scope` ("rank" or "global"), `cap`, `plus`; or the
--   name of one of `named`
-- @usage local rule = rules.rule "protein-flash"; rule:size(512, 4) --> 156
function M.rule(o)
  if getmetatable(o) == Rule then return o end
  if type(o) == "string" then
    o = M.named[o] or fail("batch rule: no rule '%s' (known: %s)", o, table.concat(options.sorted_keys(M.named), ", "))
  end
  local rule = options("batch rule", M.defaults, o)
  if not POWER[rule.kind] then fail("batch rule: kind '%s' (known: fixed, linear, quadratic)", tostring(rule.kind)) end
  if not ROUNDS[rule.round] then fail("batch rule: round '%s' (known: floor, nearest)", tostring(rule.round)) end
  if not SCOPES[rule.scope] then fail("batch rule: scope '%s' (known: global, rank)", tostring(rule.scope)) end
  return setmetatable(rule, Rule)
end

function Rule:__tostring()
  return ("%s %.17g %s %s, cap %s, plus %g"):format(self.kind, self.budget, self.round, self.scope, tostring(self.cap), self.plus)
end

--- Examples in a batch: of one rank, or of all together when the scope is global.
-- @tparam number length residues
-- @tparam[opt=1] number ranks
function Rule:size(length, ranks)
  local budget = self.budget * (self.scope == "global" and ranks or 1)
  local ratio = budget / math.max(length, 1) ^ POWER[self.kind]
  local size = (self.round == "floor" and math.floor(ratio) or nearest(ratio)) + self.plus
  return math.max(1, math.min(size, self.cap or math.huge))
end

--- Examples that one rank takes, and how many the ranks before it take.
-- @tparam number length residues
-- @tparam[opt=1] number rank from 1
-- @tparam[opt=1] number ranks
-- @treturn number may be 0 when a global batch has fewer examples than ranks
-- @treturn number
function Rule:share(length, rank, ranks)
  rank, ranks = rank or 1, ranks or 1
  local size = self:size(length, ranks)
  if self.scope == "rank" then return size, size * (rank - 1) end
  local base, rest = math.floor(size / ranks), size % ranks
  return base + (rank <= rest and 1 or 0), base * (rank - 1) + math.min(rank - 1, rest)
end

return M
