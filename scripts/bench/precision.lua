-- The table of the 16-bit lay-outs: how much a FlashIPA layer's output changes under a rotation and a 100 angstrom shift,
-- and how far it is from float64, both relative, for a chain of residues 3.8 angstrom apart and as compact as a protein
-- of its length (radius of gyration 2.2 N^0.38 angstrom). Last, dense-pair IPA in float32 on a Gaussian cloud of unit size.
local mf = require "moonfold"

local layouts = {
  { "as published (5P columns, no centring)", { layout = "published", gauge = "none" } },
  { "3P, key bias in float32, centred", { layout = "3p", gauge = "centred" } },
  { "3P, key bias, canonical gauge", { layout = "3p", gauge = "canonical" } },
  { "the same, points split", { layout = "3p", gauge = "canonical", split = true } },
}

local function relative(a, b)
  return ((a:double() - b:double()):norm() / b:double():norm()):item()
end

local function clone_options(o, extra)
  local copy = { dim = 256, edge = 128 }
  for key, value in pairs(o) do if key ~= "split" then copy[key] = value end end
  for key, value in pairs(extra) do copy[key] = value end
  return copy
end

local function moved(frames, R, shift)
  return { R = R:expand(frames.t:size(1), 3, 3):matmul(frames.R), t = frames.t:matmul(R:reshape(3, 3):t()) + shift }
end

-- A random walk pulled back to the origin: each coordinate is an autoregressive process of the wanted variance. In nm.
local function compact_chain(length)
  local radius, step = 0.22 * length ^ 0.38, 0.38
  local keep = 1 - step ^ 2 / (2 * radius ^ 2)
  local rng, at, rows = mf.rng(7), { 0, 0, 0 }, {}
  for i = 1, length do
    local direction = mf.randn(3, { rng = rng }):totable()
    local norm = math.sqrt(direction[1] ^ 2 + direction[2] ^ 2 + direction[3] ^ 2)
    for axis = 1, 3 do at[axis] = keep * at[axis] + step * direction[axis] / norm end
    rows[i] = { at[1], at[2], at[3] }
  end
  return mf.tensor(rows)
end

return function(o, report)
  local length = math.min(512, o.lengths[#o.lengths] or 512)
  local packing = mf.packing { length }
  mf.seed(7)
  local s = mf.randn(length, 256)
  local z1, z2 = mf.randn(length, 2, 128), mf.randn(length, 2, 128)
  local frames = { R = mf.random.rotations(length), t = compact_chain(length) }
  local R, shift = mf.random.rotations(1), mf.tensor { { 5.77, -5.77, 5.77 } }   -- 10 nm
  local reference = mf.nn.ipa(clone_options({}, { precision = "float32" }))
  mf.no_grad(function() reference.linear_out.weight:normal_(0, 0.02) end)
  local state = reference:state()

  local function run(layer, at, convert)
    local f = convert or function(x) return x end
    return mf.no_grad(function()
      return layer { s = f(s), frames = { R = f(at.R), t = f(at.t) }, pair = { f(z1), f(z2) }, packing = packing }
    end)
  end
  local exact = mf.nn.ipa(clone_options({}, { precision = "float32" }))
  exact:load(state)
  exact:to "float64"
  local truth = run(exact, frames, function(x) return x:double() end)
  local there = moved(frames, R, shift)

  local full = run(reference, frames)
  report { "layout", "float32 operands", "type", "float32", "change", relative(run(reference, there), full),
    "error", relative(full, truth) }
  for _, entry in ipairs(layouts) do
    for _, kind in ipairs { "bf16", "fp16" } do
      local extra = entry[2].split and { precision = "split", split_type = kind } or { precision = kind }
      local layer = mf.nn.ipa(clone_options(entry[2], extra))
      layer:load(state)
      local out = run(layer, frames)
      report { "layout", entry[1], "type", kind, "change", relative(run(layer, there), out),
        "error", relative(out, truth) }
    end
  end

  local n = 128
  local dense = mf.nn.dense_ipa { dim = 256, edge = 128 }
  mf.no_grad(function() dense:state()["linear_out.weight"]:normal_(0, 0.02) end)
  local cloud = { R = mf.random.rotations(n), t = mf.randn(n, 3) }
  local nodes, pairs = mf.randn(n, 256), mf.randn(n * n, 128)
  local function at(place)
    return mf.no_grad(function() return dense { s = nodes, frames = place, pair = pairs, packing = mf.packing { n } } end)
  end
  report { "layout", "dense IPA, unit Gaussian cloud", "type", "float32",
    "change", relative(at(moved(cloud, R, shift * 0.1)), at(cloud)), "error", "-" }
end
