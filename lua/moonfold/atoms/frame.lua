--- Residue frames and dihedrals from coordinates, with a flag for what is degenerate.
--
-- Everything here is computed in float64 and rounded once at the end: a difference of two coordinates of a large structure
-- has lost digits in float32 before the frame is even begun.

local mf = require "moonfold"
local constant = require "moonfold.constant"

local M = {}

M.IDENTITY = { { 1, 0, 0 }, { 0, 1, 0 }, { 0, 0, 1 } }

-- Three atoms span a plane when |x| |y| sin(x, y) exceeds this, in square angstrom: a real backbone has about 2, and
-- at 0.01 a coordinate's last printed digit (0.001 A) already turns the frame by several degrees.
local PLANE = 0.01

--- Frames at `origin`, x toward `x_axis`, y on the side of `xy`.
-- @tparam tensor x_axis positions (N, 3)
-- @tparam tensor xy positions (N, 3)
-- @tparam tensor origin positions (N, 3)
-- @treturn tensor rotations (N, 3, 3), float32; the identity where degenerate
-- @treturn tensor bool (N), false where the three points are equal, collinear or not numbers
function M.from_points(x_axis, xy, origin)
  x_axis, xy, origin = x_axis:double(), xy:double(), origin:double()
  local x, y = x_axis - origin, xy - origin
  local dot = (x * y):sum(2)
  local area = x:square():sum(2) * y:square():sum(2) - dot:square()
  local ok = area:gt(PLANE * PLANE)
  local rotations = mf.geometry.frames_from_points(x_axis, xy, origin)
  local n = origin:size(1)
  local eye = constant(M.IDENTITY, { dtype = "float64", device = origin:device() }):unsqueeze(1):expand(n, 3, 3)
  return mf.where(ok:reshape(n, 1, 1), rotations, eye):float(), ok
end

--- (sin, cos) of the dihedral of four atoms; (0, 0) where one is missing.
-- @tparam tensor points (N, 4, 3)
-- @tparam tensor valid bool (N)
-- @treturn tensor (N, 2), float32
function M.dihedral(points, valid)
  local pair = mf.geometry.dihedral(points:double():contiguous()):float()
  return mf.where(valid:reshape(valid:size(1), 1), pair, 0)
end

--- Logical and of some columns of a mask.
-- @tparam tensor mask bool (N, A)
-- @tparam table columns positions from 1
-- @treturn tensor bool (N)
function M.all_of(mask, columns)
  local result = mask:select(2, columns[1])
  for i = 2, #columns do result = result:logical_and(mask:select(2, columns[i])) end
  return result
end

--- Positions of `names` inside `list`, an error where one is absent.
function M.columns(list, names)
  local at = {}
  for i, name in ipairs(list) do at[name] = i end
  local result = {}
  for i, name in ipairs(names) do result[i] = at[name] or error("no atom " .. name, 2) end
  return result
end

return M
