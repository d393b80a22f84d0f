--- Frames moved by six numbers a residue: v turns, tau shifts (nm), (v, tau) = Lin(s); a fresh one moves nothing.
--
--     q' = q (1, m v) / |q (1, m v)|        t' = t + m R tau, R from before the update        m: mask, 0 keeps the frame
--
-- Frames are carried as quaternions between blocks: products of matrices would drift. The first update starts from the
-- matrix itself: its quaternion is the nearest one, and R is that very matrix, orthogonal or not. `renormalise` divides by
-- |q| where m = 0 too, as FoldFlow does; elsewhere a frame that keeps still keeps its quaternion as it is.
-- @module moonfold.nn.backbone_update
local mf = require "moonfold"
local module = require "moonfold.nn.module"
local linear = require "moonfold.nn.linear"
local mask_of = require "moonfold.nn.mask"

-- `frame` is (N, 3, 3) rotations or (N, 4) quaternions; gives q' (N, 4) and t' (N, 3).
local function compose(frame, t, update, mask, renormalise)
  local column = mask_of.column(mask)
  if renormalise then update, column = mask_of.apply(update, column), nil end
  local m = column and column:reshape(-1)
  if frame:ndim() == 2 then return mf.geometry.frames_update(frame, t, update, m) end
  local q = mf.geometry.frames_update(mf.geometry.rot_to_quat(frame), t, update, m)
  local shift = mask_of.apply(update:narrow(2, 4, 3), column)
  return q, mf.geometry.apply(frame, t, shift)
end

local constructor = module.define("backbone_update",
  { dim = module.REQUIRED, renormalise = false, rng = module.OPTIONAL },
  function(self, o) self.linear = linear { input = o.dim, output = 6, init = "final", rng = o.rng } end,
  function(self, s, frame, t, mask) return compose(frame, t, self.linear(s), mask, self._options.renormalise) end)

--- Applies a given 6-vector to frames: `(frame, t, update, mask, renormalise) -> q', t'`.
-- @function compose
constructor.compose = compose

--- The update of frames from nodes; called with (s, frame, t, mask), frame a matrix (N, 3, 3) or quaternion (N, 4).
-- @tparam table o `dim`, `renormalise` (false), `rng`
-- @usage local q, t = nn.backbone_update { dim = 256 }(s, R, t, mask)
return constructor
