-- Packed attention alone, 8 heads, by widths of queries and values, in operations a second that the result needs: 158 and 228 are
-- the default layer's columns, 206 and 264 those of the layer with split points, 64 the sequence transformer's.
--
-- On a GPU each kernel is timed by events (mf.profile): `forward_ms` and `backward_ms` are attention itself on operands of 16 bits,
-- as a layer has them; `rounds_ms` is what mf.attention, which takes float32, spends on making those, dout's included; in
-- deterministic mode backward has other kernels. On the CPU the rate stands beside that of a large matrix product.
local mf = require "moonfold"

local HEADS, SIDE = 8, 1536

-- What a GPU is asked for unless the command says: widths and packs.
local TABLE = {
  { "158x228", { "512", "2048", "8192", "32768", "39x512", "64x64-512" } },
  { "206x264", { "8192", "39x512" } },
  { "64x64", { "8192", "39x512" } },
  { "256x256", { "8192" } },
  { "384x512", { "8192" } },
}
-- Kernels that make operands.
local ROUNDS = { copy = true, fill = true, cast = true, operands_kernel = true, prepare_kernel = true }

local function pair_of(width)
  local dqk, dv = width:match "^(%d+)x(%d+)$"
  if not dqk then error(("bench: widths: '%s' is not like 158x228"):format(width), 0) end
  return tonumber(dqk), tonumber(dv)
end

-- Backward multiplies five times: S again, dP, dV, dQ, dK.
local function work(packing, dqk, dv)
  local pairs_of = 2 * packing:pairs() * HEADS
  return pairs_of * (dqk + dv), pairs_of * (3 * dqk + 2 * dv)
end

local function inputs(o, pack, dqk, dv)
  local packing = mf.packing(pack)
  local n = packing:total()
  local function leaf(width) return (mf.randn(n, HEADS, width) * 0.3):to(o.device):detach():require_grad() end
  return packing, leaf(dqk), leaf(dqk), leaf(dv), mf.randn(n, HEADS):to(o.device), mf.randn(n, HEADS, dv):to(o.device)
end

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

local function on_gpu(o, report, name, pack, dqk, dv, kind)
  local packing, q, k, v, bias, g = inputs(o, pack, dqk, dv)
  -- Median seconds of attention's kernels in f, and of those before it.
  local function measured(f)
    local own, before = {}, {}
    for i = 0, o.repeats do
      mf.scope(function()
        local profile = f()
        if i == 0 then return end          -- the first warms up
        own[i], before[i] = 0, 0
        for _, row in ipairs(profile) do
          local list = ROUNDS[row.name:match "^[%w_]+"] and before or own
          list[i] = list[i] + row.seconds
        end
      end)
    end
    return median(own), median(before)
  end
  local function forward()
    return mf.no_grad(function() return (mf.profile(function() mf.attention(q, k, v, bias, packing, kind) end)) end)
  end
  local function backward()
    local out = mf.attention(q, k, v, bias, packing, kind)
    local profile = mf.profile(function() out:backward(g) end)
    q:zero_grad() k:zero_grad() v:zero_grad()
    return profile
  end
  local function try(f)
    local ok, own, before = pcall(measured, f)
    if ok then return own, before end
    io.stderr:write(("bench: %s: %s\n"):format(name, tostring(own)))
    return "-", "-"
  end
  local f, f_rounds = try(forward)
  local b, b_rounds = try(backward)
  local fixed = mf.deterministic(true, function() return (try(backward)) end)
  local f_work, b_work = work(packing, dqk, dv)
  local function rate(operations, seconds) return type(seconds) == "number" and operations / seconds / 1e12 or "-" end
  local ms = o.measure.ms
  report {
    "attention", ("%dx%d %s %s"):format(dqk, dv, kind, name), "forward_ms", ms(f), "TFLOP/s", rate(f_work, f), "backward_ms", ms(b),
    "bwd_TFLOP/s", rate(b_work, b), "determ_ms", ms(fixed), "det_TFLOP/s", rate(b_work, fixed),
    "rounds_ms", ms(f_rounds), "bwd_rounds", ms(b_rounds),
  }
end

local function on_cpu(o, report, name, pack, dqk, dv, kind, peak)
  local measure = o.measure
  local packing, q, k, v, bias, g = inputs(o, pack, dqk, dv)
  local forward = mf.no_grad(measure.try, name, function() mf.attention(q, k, v, bias, packing, kind) end)
  local both = measure.try(name, function()
    mf.attention(q, k, v, bias, packing, kind):backward(g)
    q:zero_grad() k:zero_grad() v:zero_grad()
  end)
  local f, b = work(packing, dqk, dv)
  local function rate(operations, seconds) return type(seconds) == "number" and operations / seconds / 1e9 or "-" end
  local function share(operations, seconds) return type(seconds) == "number" and operations / seconds / peak or "-" end
  local backward = type(both) == "number" and type(forward) == "number" and both - forward or "-"
  report {
    "kernel", ("%dx%d %s %s"):format(dqk, dv, kind, name), "forward_ms", measure.ms(forward), "both_ms", measure.ms(both),
    "fwd_GFLOP/s", rate(f, forward), "both_GFLOP/s", rate(f + b, both), "bwd_GFLOP/s", rate(b, backward),
    "fwd_share", share(f, forward), "both_share", share(f + b, both),
  }
end

return function(o, report)
  local precision = o.precision == "float32" and "exact" or o.precision == "split" and "fp16" or o.precision
  if o.gpu then
    local kinds = precision == "fp16" and { "fp16", "bf16" } or { precision }
    local asked = {}
    for _, length in ipairs(o.lengths or {}) do asked[#asked + 1] = ("%d"):format(length) end
    for _, text in ipairs(o.batches or {}) do asked[#asked + 1] = text end
    local list = TABLE
    if o.widths then
      list = {}
      for i, width in ipairs(o.widths) do list[i] = { width, TABLE[1][2] } end
    end
    for _, kind in ipairs(kinds) do
      for _, entry in ipairs(list) do
        local dqk, dv = pair_of(entry[1])
        for _, text in ipairs(#asked > 0 and asked or entry[2]) do
          local name = text:match "^%d+$" and "L=" .. text or text
          mf.scope(on_gpu, o, report, name, o.measure.pack(text), dqk, dv, kind)
        end
      end
    end
    return
  end
  local a, b = mf.randn(SIDE, SIDE), mf.randn(SIDE, SIDE)
  local peak = 2 * SIDE ^ 3 / mf.no_grad(o.measure.time, function() a:linear(b) end)
  for _, width in ipairs(o.widths or { "158x228", "64x64", "256x256" }) do
    local dqk, dv = pair_of(width)
    for _, pack in ipairs(o.measure.packs({ 256, 512, 1024, 2048 })) do
      mf.scope(on_cpu, o, report, pack[1], pack[2], dqk, dv, precision, peak)
    end
  end
end
