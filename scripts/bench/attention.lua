-- Packed attention at the default layer's widths (8 heads, query/key 154, value 228), forward and backward, in GFLOP/s
-- beside the rate of a large matrix product.
local mf = require "moonfold"
local stopwatch = require "moonfold.stopwatch"

local HEADS, DQK, DV = 8, 154, 228

return function(o, report)
  local a, b = mf.randn(1536, 1536), mf.randn(1536, 1536)
  local peak = 2 * 1536 ^ 3 / mf.no_grad(stopwatch.median, o.repeats, function() a:linear(b) end)
  for _, length in ipairs(o.lengths) do
    local packing = mf.packing { length }
    local function leaf(width) return (mf.randn(length, HEADS, width) * 0.3):detach():require_grad() end
    local q, k, v, bias = leaf(DQK), leaf(DQK), leaf(DV), mf.randn(length, HEADS)
    local forward = mf.no_grad(stopwatch.median, o.repeats, function() mf.attention(q, k, v, bias, packing, "exact") end)
    local both = stopwatch.median(o.repeats, function()
      mf.attention(q, k, v, bias, packing, "exact"):sum():backward()
      q:zero_grad() k:zero_grad() v:zero_grad()
    end)
    -- backward multiplies five times: S again, dP, dV, dQ, dK
    local work = 2 * length * length * HEADS
    local f, fb = work * (DQK + DV), work * (DQK + DV) + work * (3 * DQK + 2 * DV)
    report {
      "attention", ("L=%d"):format(length), "forward_ms", forward * 1e3, "both_ms", both * 1e3,
      "fwd_GFLOP/s", f / forward / 1e9, "both_GFLOP/s", fb / both / 1e9,
      "fwd_share", f / forward / peak, "both_share", fb / both / peak,
    }
  end
end
