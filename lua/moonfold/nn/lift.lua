--- What every attention over lifted columns shares: the gauge, collecting the terms, handing the output back.
--
-- The softmax of lifted attention is that of q_i . k_j + bias_j, where q and k are the columns of all terms side by
-- side. Anything constant in j cancels, so a term never needs columns for it; anything that depends on j alone is a
-- key bias, which stays in float32 whatever the products are rounded to.
--
-- The gauge: the layer does not depend on the global frame but rounding does, so each sequence is first written in a
-- frame of its own (origin at its mean, axes of its first residue). The frame is a constant: because the function
-- is invariant, its derivative with respect to the gauge is zero and nothing is lost.
-- @module moonfold.nn.lift
local mf = require "moonfold"
local fail = require "moonfold.fail"
local mask_of = require "moonfold.nn.mask"

local M = {}

local GAUGES = { canonical = true, centred = true, none = true }
local PRECISIONS = { exact = "exact", float32 = "exact", fp16 = "fp16", bf16 = "bf16", tf32 = "tf32", split = "split" }

--- Checks the name of a gauge.
-- @tparam string name "canonical", "centred" or "none"
function M.check_gauge(name)
  if not GAUGES[name] then fail("unknown gauge '%s' (known: canonical, centred, none)", tostring(name)) end
end

--- Which rounding a layer works with: its own option, or the global `mf.precision()`.
-- @tparam ?string name "float32", "fp16", "bf16" or "split"
-- @treturn string
function M.precision(name)
  name = name or mf.precision()
  return PRECISIONS[name] or fail("unknown precision '%s' (known: float32, fp16, bf16, tf32, split)", tostring(name))
end

--- Frames as the terms see them.
-- @param R (N, 3, 3)
-- @param t (N, 3)
-- @tparam string kind "canonical": origin and axes of each sequence; "centred": its origin; "none"
-- @param mask bool (N) or nil: which residues place the origin
-- @param packing
-- @return R, t
function M.gauge(R, t, kind, mask, packing)
  if kind == "none" then return R, t end
  local axes, origin = mf.geometry.gauge(R:detach(), t:detach(), mask, packing)
  origin = origin:segment_expand(packing)
  if kind == "centred" then return R, t - origin end
  -- A frame that is not quite orthogonal (or not at all) must still give a rigid motion: the nearest rotation.
  axes = mf.geometry.quat_to_rot(mf.geometry.rot_to_quat(axes)):segment_expand(packing)
  local zero = mf.zeros(t:size(1), 3, { dtype = t:dtype(), device = t:device() })
  local columns = mf.geometry.invert_apply(axes, zero, R:transpose(2, 3))
  return columns:transpose(2, 3), mf.geometry.invert_apply(axes, origin, t)
end

--- Raises unless a layer was called with one table that says which residues belong together.
-- @tparam table inputs
-- @treturn table inputs
function M.check(inputs)
  if type(inputs) ~= "table" then fail("expected a table { s =, frames =, packing = }, got %s", type(inputs)) end
  if not inputs.packing then fail("packing is missing: which residues belong together (mf.packing { 120, 80 })") end
  return inputs
end

--- What the terms of one call may know.
-- @tparam table o `heads`, `gauge`, `precision`, `split_type` of the layer
-- @tparam table inputs what the caller passed: `s`, `frames`, `pair`, `packing`, `mask`
-- @treturn table `heads`, `R`, `t` (in the gauge), `mask` (bool or nil), `packing`, `precision`, `split_type`;
--   a term may keep its own notes for readout under the key of itself
function M.context(o, inputs)
  local packing = M.check(inputs).packing
  local context = {
    heads = o.heads, packing = packing, mask = mask_of.bool(inputs.mask),
    precision = M.precision(o.precision), split_type = o.split_type,
  }
  if inputs.frames then
    context.R, context.t = M.gauge(inputs.frames.R, inputs.frames.t, o.gauge, context.mask, packing)
  end
  return context
end

local function joined(list, axis)
  if #list == 0 then return nil end
  return #list == 1 and list[1] or mf.cat(list, axis)
end

local function check(columns, what, position, rows, heads)
  if columns:ndim() ~= 3 or columns:size(1) ~= rows or columns:size(2) ~= heads then
    fail("term %d lifts %s (%s), expected (%d residues, %d heads, width)", position, what,
      table.concat(columns:shape(), ", "), rows, heads)
  end
end

--- Lifts every term and puts the columns side by side.
-- @tparam table terms
-- @tparam table inputs
-- @tparam table context
-- @return q (N, H, w), k (N, H, w), v (N, H, wv), key_bias (N, H) or nil; and the width of each term's values
function M.gather(terms, inputs, context)
  local q, k, v, widths, bias = {}, {}, {}, {}, nil
  local rows, heads = context.packing:total(), context.heads
  for i, term in ipairs(terms) do
    local lifted = term:lift(inputs, context)
    if (lifted.q == nil) ~= (lifted.k == nil) then fail("term %d lifts only one of q and k", i) end
    if lifted.q then
      check(lifted.q, "q", i, rows, heads)
      check(lifted.k, "k", i, rows, heads)
      q[#q + 1], k[#k + 1] = lifted.q, lifted.k
    end
    if lifted.v then
      check(lifted.v, "v", i, rows, heads)
      v[#v + 1] = lifted.v
    end
    widths[i] = lifted.v and lifted.v:size(3) or 0
    if lifted.key_bias then bias = bias and bias + lifted.key_bias or lifted.key_bias end
  end
  if #q == 0 then fail("no term lifts a query and a key") end
  if #v == 0 then fail("no term lifts a value") end
  if context.mask then
    bias = bias or mf.zeros(rows, heads, { device = q[1]:device(), dtype = q[1]:dtype() })
    bias = bias:masked_fill(context.mask:logical_not():reshape(-1, 1), -math.huge)
  end
  return joined(q, 3), joined(k, 3), joined(v, 3), bias, widths
end

--- Hands each term its slice of the attention's output and joins what they read out of it.
-- @tparam table terms
-- @param out (N, H, wv)
-- @tparam table widths from `gather`
-- @tparam table inputs
-- @tparam table context
-- @tparam ?table order positions of the terms in the order of their features; as listed by default
-- @treturn table a list of tensors (N, features)
function M.hand_back(terms, out, widths, inputs, context, order)
  local slices, read = out:split(widths, 3), {}
  for i, term in ipairs(terms) do
    local columns = widths[i] > 0 and slices[i] or nil
    read[i] = term.readout and term:readout(columns, inputs, context) or false
  end
  local features = {}
  for position = 1, #terms do
    local x = read[order and order[position] or position]
    if x then features[#features + 1] = x end
  end
  return features
end

--- What the attention kernel is asked to round to.
-- @tparam table context
-- @treturn string "exact", "fp16", "bf16" or "tf32"
function M.kernel_precision(context)
  return context.precision == "split" and context.split_type or context.precision
end

return M
