-- Packed attention alone, 8 heads, by widths of queries and values (154 and 228 are the default layer's), forward and backward, in
-- GFLOP/s; on the CPU beside the rate of a large matrix product.
local mf = require "moonfold"

local HEADS, SIDE = 8, 1536

return function(o, report)
  local measure = o.measure
  local precision = o.precision == "float32" and "exact" or o.precision == "split" and "fp16" or o.precision
  local a, b = mf.randn(SIDE, SIDE):to(o.device), mf.randn(SIDE, SIDE):to(o.device)
  local peak = 2 * SIDE ^ 3 / mf.no_grad(measure.time, function() a:linear(b) end)

  local function one(name, pack, dqk, dv, kind)
    local packing = mf.packing(pack)
    local n = packing:total()
    local function leaf(width) return (mf.randn(n, HEADS, width) * 0.3):to(o.device):detach():require_grad() end
    local q, k, v, bias = leaf(dqk), leaf(dqk), leaf(dv), mf.randn(n, HEADS):to(o.device)
    local g = mf.randn(n, HEADS, dv):to(o.device)
    local forward = mf.no_grad(measure.try, name, function() mf.attention(q, k, v, bias, packing, kind) end)
    local both = measure.try(name, function()
      mf.attention(q, k, v, bias, packing, kind):backward(g)
      q:zero_grad() k:zero_grad() v:zero_grad()
    end)
    -- backward multiplies five times: S again, dP, dV, dQ, dK
    local work = 2 * packing:pairs() * HEADS
    local f, fb = work * (dqk + dv), work * (dqk + dv) + work * (3 * dqk + 2 * dv)
    local function rate(operations, seconds) return type(seconds) == "number" and operations / seconds / 1e9 or "-" end
    local function share(operations, seconds) return type(seconds) == "number" and operations / seconds / peak or "-" end
    local backward = type(both) == "number" and type(forward) == "number" and both - forward or "-"
    local row = {
      "kernel", ("%dx%d %s %s"):format(dqk, dv, kind, name), "forward_ms", measure.ms(forward), "both_ms", measure.ms(both),
      "fwd_GFLOP/s", rate(f, forward), "both_GFLOP/s", rate(fb, both), "bwd_GFLOP/s", rate(fb - f, backward),
    }
    if not o.gpu then
      for _, x in ipairs { "fwd_share", share(f, forward), "both_share", share(fb, both) } do row[#row + 1] = x end
    end
    report(row)
  end

  local kinds = o.gpu and precision ~= "exact" and { precision, "exact" } or { precision }
  for _, kind in ipairs(kinds) do
    for _, width in ipairs(o.widths) do
      local dqk, dv = width:match "^(%d+)x(%d+)$"
      if not dqk then error(("bench: widths: '%s' is not like 154x228"):format(width), 0) end
      for _, pack in ipairs(measure.packs(o.gpu and { 512, 2048, 8192, 16384 } or { 256, 512, 1024, 2048 }, { "39x512" })) do
        local name, list = unpack(pack)
        if kind ~= "exact" or not o.gpu or o.lengths or list[1] <= 8192 then
          mf.scope(one, name, list, tonumber(dqk), tonumber(dv), kind)
        end
      end
    end
  end
end
