--- One FlashIPA layer, and how far its output moves when the molecule is turned and shifted.
--
-- In exact arithmetic invariant point attention gives the same features wherever the molecule lies. Prints how much
-- rounding breaks that in float32, fp16 and "split" (fp16 with points in a high and a low half), for frames used as they
-- come and for frames in the canonical gauge, which is the default; and the error of each against float64.
--
--     moonfold examples/02_flash_ipa.lua
local mf = require "moonfold"
local nn = mf.nn

local LENGTH, rng = 256, mf.rng(5)
local packing = mf.packing { LENGTH }

-- A random walk of 0.38 nm steps: positions as far apart as those of a real chain.
local t = (mf.randn(LENGTH, 3, { rng = rng }) * (0.38 / math.sqrt(3))):cumsum(1)
local R = mf.random.rotations(LENGTH, { rng = rng })
local s = mf.randn(LENGTH, 128, { rng = rng })
local z = mf.randn(LENGTH, 2, 2, 64, { rng = rng })

-- One rigid motion of everything: 10 nm away, turned.
local turn = mf.random.rotations(1, { rng = rng })
local shift = mf.tensor { { 10, -3, 4 } }
local function moved(x) return (x:matmul(turn:select(1, 1):t()) + shift) end

-- init = "default" instead of the zeros that training begins with, so that there is an output to look at.
local function layer(precision, gauge)
  return nn.ipa {
    dim = 128, edge = 64, hidden = 64, init = "default", precision = precision, gauge = gauge, rng = mf.rng(9),
  }
end

local function change(a, b)
  return ((a:double() - b:double()):norm() / b:double():norm()):item()
end

local shown
mf.no_grad(function()
  local attend = layer("float32", "canonical"):to("float64")
  local exact = attend { s = s:double(), frames = { R = R:double(), t = t:double() }, pair = z:double(), packing = packing }
  print("precision  gauge       change under a rigid motion   error against float64")
  for _, precision in ipairs { "float32", "fp16", "split" } do
    for _, gauge in ipairs { "none", "canonical" } do
      attend = layer(precision, gauge)
      local here = attend { s = s, frames = { R = R, t = t }, pair = z, packing = packing }
      local there = attend { s = s, frames = { R = turn:matmul(R), t = moved(t) }, pair = z, packing = packing }
      print(("%-9s  %-10s  %27.1e  %22.1e"):format(precision, gauge, change(there, here), change(here, exact)))
      shown = change(there, here)
    end
  end
end)
assert(shown < 1e-4, "split in the canonical gauge")
