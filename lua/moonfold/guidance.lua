--- Guidance: a function of yours that sees what the network predicts at each step of sampling, and changes it.
--
--     local function compact(prediction, state)                       -- an energy: pull the radius of gyration to 12 angstrom
--       local x, n = prediction.translations, state.packing:total()
--       local rg = ((x - x:mean(1, true)):square():sum() / n):sqrt()
--       return (rg - 12):square() * n
--     end
--     mf.sample(model, flow, { length = 80, guidance = compact, guidance_weight = 0.5 })
--
-- The function is called as guidance(prediction, state) and returns one of two things:
--
--   * a tensor: an energy. What it sums to is differentiated by the tape with respect to the predicted end point, and the end point
--     goes down the slope, x <- x - w dE/dx, with w = `guidance_weight`, a number or a function of the state (for a schedule over
--     t). In the same way R <- R exp(-w g), g the gradient along the rotations, where the energy depends on `prediction.rotations`
--     (atoms.of(kind).build makes atoms of a prediction). The samples of a pack are one call: an energy adds terms of
--     sequences, so that none moves another (`x:segment_sum(state.packing)`).
--   * a table: the prediction to go on with, `translations`, `rotations`, `torsions`, as the network would have made it.
--
-- `state` tells `t` (the profile's own time), `step`, `packing`, what was integrated so far (`translations`, `rotations`) and
-- `fixed`. Fixed residues do not move, whatever is returned.
-- @module moonfold.guidance
local mf = require "moonfold"
local fail = require "moonfold.fail"
local F = require "moonfold.ffi"

local M = {}

local function weight_of(weight, state)
  if weight == nil then return 1 end
  if type(weight) == "function" then weight = weight(state) end
  if type(weight) ~= "number" or weight ~= weight then
    fail("sample: guidance_weight is %s, expected a number or a function of the state that returns one", tostring(weight))
  end
  return weight
end

-- The gradient of a rotation along its own group: g_k = <G, R hat(e_k)>, from M = R' G.
local function along_rotation(r, gradient)
  local m = r:transpose(2, 3):matmul(gradient)
  local function at(i, j) return m:select(2, i):select(2, j):unsqueeze(2) end
  return mf.cat({ at(3, 2) - at(2, 3), at(1, 3) - at(3, 1), at(2, 1) - at(1, 2) }, 2)
end

local function down_the_slope(prediction, leaves, energy, w)
  local moved = { torsions = prediction.torsions, translations = prediction.translations, rotations = prediction.rotations }
  if not energy:requires_grad() then return moved end                -- of nothing that was predicted: no slope
  local dx, dr = mf.enable_grad(function()
    energy:sum():backward()
    return leaves.translations:grad(), leaves.rotations:grad()
  end)
  if dx then moved.translations = moved.translations - dx * w end
  if dr then
    local turn = along_rotation(moved.rotations, dr) * -w
    moved.rotations = moved.rotations:matmul(mf.geometry.so3_exp(turn))
  end
  return moved
end

--- Applies a guidance to a prediction.
-- @tparam function fn
-- @tparam ?number|function weight 1 by default
-- @tparam table prediction `translations` (N, 3) angstrom, `rotations` (N, 3, 3), `torsions` (N, K, 2) or nil
-- @tparam table state
-- @treturn table the prediction to go on with
function M.apply(fn, weight, prediction, state)
  local seen = { torsions = prediction.torsions, node = prediction.node }
  local result = mf.enable_grad(function()
    for _, name in ipairs { "translations", "rotations" } do seen[name] = prediction[name]:detach():require_grad() end
    return fn(seen, state)
  end)
  if F.is_tensor(result) then return down_the_slope(prediction, seen, result, weight_of(weight, state)) end
  if type(result) ~= "table" or not result.translations or not result.rotations then
    fail("sample: guidance returned %s, expected an energy (a tensor) or a prediction (a table with translations and rotations)",
      type(result) == "table" and "a table without them" or type(result))
  end
  local detached = {}
  for _, name in ipairs { "translations", "rotations", "torsions" } do
    detached[name] = result[name] and result[name]:detach()
  end
  return detached
end

return M
