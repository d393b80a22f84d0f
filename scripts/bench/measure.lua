-- What the cases share: timing on the device of the run, eager and as a graph; packs to measure; weights that are not zero.
local mf = require "moonfold"
local stopwatch = require "moonfold.stopwatch"

return function(o)
  local M = {}

  -- Median seconds of f(...).
  function M.time(f, ...)
    local n, arguments = select("#", ...), { ... }
    return stopwatch.median(o.repeats, function() f(unpack(arguments, 1, n)) end, o.device)
  end

  local function complain(what, message)
    io.stderr:write(("bench: %s: %s\n"):format(what, tostring(message):gsub("\nstack.*", "")))
    return "-"
  end

  -- f's seconds, or "-" with the reason on stderr: a length that does not fit must not end the run.
  function M.try(what, f, ...)
    local ok, seconds = pcall(M.time, f, ...)
    if ok then return seconds end
    collectgarbage()
    collectgarbage()
    return complain(what, seconds)
  end

  -- The same through mf.graph; f's arguments must be what a graph takes.
  function M.graph(what, f, ...)
    if not o.graph then return "-" end
    local step = mf.graph(f, { keep = 1 })
    local seconds = M.try(what .. ", graph", step, ...)
    step:release()
    return seconds
  end

  -- Milliseconds, or what there is instead.
  function M.ms(seconds) return type(seconds) == "number" and seconds * 1e3 or seconds end

  -- Peak bytes of one call: in all, and above what was there before.
  function M.peak(f, ...)
    collectgarbage()
    collectgarbage()
    local before = mf.memory(o.device).live
    mf.reset_peak(o.device)
    local n, arguments = select("#", ...), { ... }
    mf.scope(function() f(unpack(arguments, 1, n)) end)
    local peak = mf.memory(o.device).peak
    return peak, peak - before
  end

  -- The lengths of 39x512, thirty-nine chains, or 64x64-512, from the one to the other; of 512 alone, one chain.
  function M.pack(text)
    local n, first, last = text:match "^(%d+)x(%d+)%-?(%d*)$"
    if not n then n, first, last = "1", text:match "^(%d+)$", "" end
    if not first then error(("bench: batches: '%s' is not like 39x512 or 64x64-512"):format(text), 0) end
    n, first, last = tonumber(n), tonumber(first), tonumber(last) or tonumber(first)
    local pack = {}
    for i = 1, n do pack[i] = math.floor(first + (last - first) * (i - 1) / math.max(n - 1, 1) + 0.5) end
    return pack
  end

  -- The packs of a case: one chain of each length, then the batches. A list of { name, lengths }.
  function M.packs(lengths, batches)
    local list = {}
    for _, length in ipairs(o.lengths or lengths) do list[#list + 1] = { ("L=%d"):format(length), { length } } end
    for _, text in ipairs(o.batches or o.gpu and batches or {}) do
      list[#list + 1] = { text, M.pack(text) }
    end
    return list
  end

  -- Gives every matrix of a fresh model values; layers that start as zeros would hide what they cost and what they do.
  function M.fill(model, scale)
    mf.no_grad(function()
      for _, p in ipairs(model:parameters()) do
        if p:ndim() > 1 then p:normal_(0, scale * p:size(p:ndim()) ^ -0.5) end
      end
    end)
    return model:to(o.device)
  end

  function M.clear(model, leaves)
    for _, p in ipairs(model:parameters()) do p:zero_grad() end
    for _, leaf in ipairs(leaves or {}) do leaf:zero_grad() end
  end

  -- Chains whose residues are 3.8 angstrom apart, in that unit times `scale`.
  function M.walk(n, scale)
    local step = mf.randn(n, 3)
    return (step / step:norm(2, true) * (3.8 * scale)):cumsum(1):to(o.device)
  end

  -- What the network is asked for a pack: chains in space, frames and nodes at random.
  function M.call(pack)
    local packing = mf.packing(pack)
    local n = packing:total()
    return {
      node_embeddings = mf.randn(n, o.node):to(o.device), packing = packing, translations = M.walk(n, 1),
      rotations = mf.random.rotations(n):to(o.device),
    }
  end

  -- A loss of the network's frames, as the peers' bench has it.
  function M.loss(model, call)
    local out = model(call)
    return out.translations:square():mean() + out.rotations:square():mean()
  end

  -- What small=yes makes of a preset's model.
  M.small = {
    node = 32, edge = 16, hidden = 8, heads = 2, query_points = 2, value_points = 4, blocks = 4, neighbours = 8, feat = 16,
    transformer_heads = 2, transformer_layers = 1,
  }

  -- The default layer; what one is asked for a pack, dense pairs or factors, and a cotangent of its result.
  M.widths = { dim = 256, edge = 128, heads = 8, hidden = 128, query_points = 8, value_points = 12, rank = 2 }
  function M.layer_call(pack, pairs)
    local function leaf(...) return mf.randn(...):to(o.device):require_grad() end
    local packing = mf.packing(pack)
    local n = packing:total()
    local frames = { R = mf.random.rotations(n):to(o.device), t = M.walk(n, 0.1) }
    local pair = pairs and leaf(packing:pairs(), 128) or { leaf(n, 2, 128), leaf(n, 2, 128) }
    return { s = leaf(n, 256), frames = frames, packing = packing, pair = pair }, mf.randn(n, 256):to(o.device)
  end
  function M.layer_both(layer, call, cotangent)
    layer(call):backward(cotangent)
    local pair = call.pair
    M.clear(layer, { call.s, unpack(mf.is_tensor(pair) and { pair } or pair) })
  end

  return M
end
