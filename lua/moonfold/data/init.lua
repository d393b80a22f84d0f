--- Data sets: opening, writing, preparing.

local M = {}

local set = require "moonfold.data.set"
local rules = require "moonfold.data.rules"

M.open, M.write = set.open, set.write
M.rule = rules.rule

--- Makes a data set of structure files; see data.prepare.
function M.prepare(o)
  return require("moonfold.data.prepare").prepare(o)
end

return M
