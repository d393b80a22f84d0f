--- Node embeddings of a network that generates: position in the sequence and time.
--
--     s_i = Lin( E_position(i) m_i | tau_time(t; scale) m_i ) m_i
--
-- A residue may have a time of its own: one that is fixed in a motif is as clean as the data.
-- @module moonfold.nn.node_embedder
local mf = require "moonfold"
local module = require "moonfold.nn.module"
local linear = require "moonfold.nn.linear"
local features = require "moonfold.nn.features"
local mask_of = require "moonfold.nn.mask"

-- (N, position + time), the input of the linear layer; parameter-free, so other networks use it alone.
local function embed(o, t, packing, device, residue_t)
  local position = features.index(packing:position(device), o.position)
  local time = features.time(residue_t or t, o.time, o.scale):to(device)
  return mf.cat({ position, residue_t and time or time:segment_expand(packing) }, 2)
end

--- The node embedder; called with (t (n), packing, mask or nil, residue_t (N) or nil), gives (N, dim).
-- @tparam table o `dim` (256), `position` (128) and `time` (128) widths, `scale` (2056), `rng`
-- @usage local s = nn.node_embedder { dim = 256 }(t, packing)
local constructor = module.define("node_embedder",
  { dim = 256, position = 128, time = 128, scale = 2056, rng = module.OPTIONAL },
  function(self, o) self.linear = linear { input = o.position + o.time, output = o.dim, rng = o.rng } end,
  function(self, t, packing, mask, residue_t)
    local column = mask_of.column(mask)
    local weight = self.linear.weight
    local x = embed(self._options, t, packing, weight:device(), residue_t):to(weight:dtype())
    return mask_of.apply(self.linear(mask_of.apply(x, column)), column)
  end)

--- The features alone: `(o, t, packing, device, residue_t) -> (N, position + time)`, `o` = `{ position, time, scale }`.
constructor.features = embed

return constructor
