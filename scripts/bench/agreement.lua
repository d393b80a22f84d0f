-- How far fused FlashIPA in 16 bits on the device is from float64 on the CPU, beside the CPU's operator in the same precision,
-- forward and gradients, and the same of bare attention on random operands: the device's may be twice as wrong, gradients three
-- times. Errors are the largest over a tensor, relative to its largest number. `factor` is the device's over the CPU's; of the
-- gradients the worst, with its name. For the longest chain of each of structures=FILE,... and for random chains as compact as a
-- protein.
local mf = require "moonfold"

local HEADS, HIDDEN, POINTS, VALUES, RANK, DOWN = 8, 128, 8, 12, 2, 32
local KINDS = { { "fp16" }, { "fp16", "split" }, { "bf16" } }

-- Results and gradients of f(leaves), by name, in float64 on the CPU.
local function all(inputs, where, f)
  local leaves, list = {}, {}
  for name, x in pairs(inputs) do leaves[name] = x:to(where):detach():clone():require_grad() end
  local out = f(leaves)
  out:backward(mf.randn(out:shape(), { rng = mf.rng(5) }):to { dtype = out:dtype(), device = out:device() })
  for name, x in pairs(leaves) do list[name] = x:grad():to { dtype = "float64", device = "cpu" } end
  list.out = out:detach():to { dtype = "float64", device = "cpu" }
  return list
end

local function worst(a, b) return ((a - b):abs():max() / b:abs():max()):item() end

local function compare(report, case, kind, mine, naive, exact)
  local gradient = { factor = 0 }
  for name, truth in pairs(exact) do
    local ours, theirs = worst(mine[name], truth), worst(naive[name], truth)
    if name ~= "out" and (ours / theirs > gradient.factor or ours ~= ours) then
      gradient = { name = name, factor = ours / theirs, error = ours }
    end
  end
  local error_of = worst(mine.out, exact.out)
  report {
    "agreement", case, "type", kind, "error", error_of, "factor", error_of / worst(naive.out, exact.out),
    "grad_error", gradient.error, "grad_factor", gradient.factor, "of", gradient.name,
  }
end

local function fused(o, report, chain)
  local n, packing, rng = chain.length, mf.packing { chain.length }, mf.rng(11)
  local function x(...) return mf.randn(..., { rng = rng }) end
  local inputs = {
    q = x { n, HEADS * HIDDEN }, kv = x { n, 2 * HEADS * HIDDEN }, q_points = x { n, 3 * HEADS * POINTS },
    kv_points = x { n, 3 * HEADS * (POINTS + VALUES) }, pair_bias = x { n, 2, RANK, HEADS }, pair_value = x { n, 2, RANK, DOWN },
    head_weights = x { HEADS }, R = chain.frames.R, t = chain.frames.t,
  }
  local function run(kind, split)
    return function(leaves)
      local mask = chain.mask and chain.mask:to(leaves.q:device())
      local call = { packing = packing, heads = HEADS, precision = kind, split = split, mask = mask }
      for name, leaf in pairs(leaves) do call[name] = leaf end
      return mf.flash_ipa(call)
    end
  end
  local exact = all(inputs, "float64", run("exact", false))
  for _, kind in ipairs(KINDS) do
    local f = run(kind[1], kind[2] ~= nil)
    compare(report, "FlashIPA " .. chain.name, table.concat(kind, " "), all(inputs, o.device, f), all(inputs, "cpu", f), exact)
  end
end

local function bare(o, report, n, dqk, dv)
  local packing, rng = mf.packing { n }, mf.rng(12)
  local function x(width) return mf.randn({ n, HEADS, width }, { rng = rng }) * 0.3 end
  local inputs = { q = x(dqk), k = x(dqk), v = x(dv), key_bias = mf.randn({ n, HEADS }, { rng = rng }) }
  local function run(kind) return function(l) return mf.attention(l.q, l.k, l.v, l.key_bias, packing, kind) end end
  local exact = all(inputs, "float64", run "exact")
  for _, kind in ipairs { "fp16", "bf16" } do
    local f = run(kind)
    compare(report, ("attention %dx%d L=%d"):format(dqk, dv, n), kind, all(inputs, o.device, f), all(inputs, "cpu", f), exact)
  end
end

return function(o, report)
  local lengths = o.lengths or o.structures and {} or { 512, 2048 }
  for _, chain in ipairs(o.chains.list(o.structures, lengths)) do mf.scope(fused, o, report, chain) end
  for _, n in ipairs(lengths) do
    for _, width in ipairs(o.widths or { "158x228", "206x264", "64x64", "384x512" }) do
      mf.scope(bare, o, report, n, tonumber(width:match "^%d+"), tonumber(width:match "%d+$"))
    end
  end
end
