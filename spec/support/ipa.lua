-- What the specs of fused flash IPA share: layers, inputs, all gradients of a call, and the rule that compares roundings.
local mf = require "moonfold"
local nn = mf.nn
local help = require "spec.support.nn"

local M = {}

-- Heads of 5 and points of odd counts, so that no row is a multiple of a vector; an empty sequence, one of a single residue.
M.lengths = { 7, 0, 1, 12 }

function M.layer(o)
  local options = {
    dim = 12, edge = 8, rank = 2, heads = 3, hidden = 5, query_points = 4, value_points = 3, init = "default", rng = mf.rng(61),
  }
  for key, value in pairs(o or {}) do options[key] = value end
  return help.stir(nn.ipa(options), mf.rng(62))
end

--- Inputs of a layer as float32 on the CPU. `o`: lengths, mask (true: a few residues and one whole sequence are absent), seed.
function M.inputs(layer, o)
  o = o or {}
  local p, rng = layer._options, mf.rng(o.seed or 63)
  local packing = mf.packing(o.lengths or M.lengths)
  local n = packing:total()
  local R, t = help.chain(n, rng)
  local inputs = { s = mf.randn(n, p.dim, { rng = rng }), frames = { R = R, t = t }, packing = packing }
  if p.rank > 0 then inputs.pair = mf.randn(n, 2, p.rank, p.edge, { rng = rng }) end
  if o.mask then
    local list = {}
    for i = 1, n do list[i] = (i == 1 or i == 8 or i % 5 == 0) and 0 or 1 end
    inputs.mask = mf.tensor(list)
  end
  return inputs
end

--- The same inputs in another type or on another device.
function M.to(inputs, where)
  local function move(x) return x and x:to(where) end
  return {
    s = move(inputs.s), pair = move(inputs.pair), packing = inputs.packing, mask = move(inputs.mask),
    frames = { R = move(inputs.frames.R), t = move(inputs.frames.t) },
  }
end

--- The output of run(inputs) and the gradients of inputs and parameters, by name, as float64 on the CPU.
function M.all(layer, run, inputs, view)
  local leaves, list = { s = inputs.s, pair = inputs.pair, R = inputs.frames.R, t = inputs.frames.t }, {}
  for key, x in pairs(leaves) do leaves[key] = x:detach():clone():require_grad() end
  local function seen(x) return x and view and view(x) or x end
  for _, p in ipairs(layer:parameters()) do p:zero_grad() end
  local out = run {
    s = seen(leaves.s), pair = seen(leaves.pair), frames = { R = seen(leaves.R), t = seen(leaves.t) },
    packing = inputs.packing, mask = inputs.mask,
  }
  local cotangent = mf.randn(out:shape(), { rng = mf.rng(64) })
  out:backward(cotangent:to { dtype = out:dtype(), device = out:device() })
  list.out = out:detach()
  for key, x in pairs(leaves) do list["d" .. key] = x:grad() end
  for _, p in ipairs(layer:named_parameters()) do list["d" .. p[1]] = p[2]:grad() end
  for key, x in pairs(list) do list[key] = x:to { dtype = "float64", device = "cpu" } end
  return list
end

-- By name: how far results are from the oracle, in norm, the root of the mean square of all runs. A gradient that cancels to
-- nothing is held against the largest one.
local function distances(runs, oracles)
  local squares = {}
  for i, oracle in ipairs(oracles) do
    local largest = 0
    for _, x in pairs(oracle) do largest = math.max(largest, x:norm():item()) end
    for key, truth in pairs(oracle) do
      local off = (runs[i][key] - truth):norm():item() / math.max(truth:norm():item(), 1e-3 * largest)
      squares[key] = (squares[key] or 0) + off * off
    end
  end
  for key, sum in pairs(squares) do squares[key] = math.sqrt(sum / #oracles) end
  return squares
end

--- Raises unless every result is at most twice (gradients three times) as far from the oracle as the naive one, both in norm.
-- `floor`: what rounding of a result to its own type may be off by, relative to it; a few steps of it are luck, not error.
-- Each may be a list of the results of several inputs: three numbers, as the gradient of the heads' weights, have luck too.
function M.as_good(fast, naive, oracle, floor)
  if not oracle[1] then fast, naive, oracle = { fast }, { naive }, { oracle } end
  local theirs = distances(naive, oracle)
  for key, ours in pairs(distances(fast, oracle)) do
    local bound = (key == "out" and 2 or 3) * math.max(theirs[key], floor)
    if ours > bound or ours ~= ours then
      error(("%s: off by %.3g, the naive one by %.3g"):format(key, ours, theirs[key]), 2)
    end
  end
end

--- Raises unless all results agree in norm, each relative to itself or, where it cancels, to a thousandth of the largest.
function M.same(a, b, bound)
  local largest = 0
  for _, x in pairs(b) do largest = math.max(largest, x:norm():item()) end
  for key, x in pairs(b) do
    local off = (a[key] - x):norm():item() / math.max(x:norm():item(), 1e-3 * largest)
    if off > bound or off ~= off then error(("%s: off by %.3g, allowed %.3g"):format(key, off, bound), 2) end
  end
end

return M
