--- Rows of a table by index: y = weight[index], `weight` (count, dim) from N(0, 1). Indices are 0-based.
-- @module moonfold.nn.embedding
local mf = require "moonfold"
local module = require "moonfold.nn.module"

--- A table of learned vectors.
-- @tparam table o `count`, `dim`, `rng`
-- @usage local residues = nn.embedding { count = 21, dim = 64 }
--        s = residues(types)     -- int32 tensor of 0 ... 20
return module.define("embedding",
  { count = module.REQUIRED, dim = module.REQUIRED, rng = module.OPTIONAL },
  function(self, o) self.weight = module.parameter(mf.empty(o.count, o.dim):normal_(0, 1, o.rng)) end,
  function(self, index) return mf.embedding(index, self.weight) end,
  { describe = function(self) return self.weight:size(1) .. " x " .. self.weight:size(2) end })
