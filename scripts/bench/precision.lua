-- The table of the 16-bit lay-outs: how much a FlashIPA layer's output changes under a rotation and a 100 angstrom shift,
-- and how far it is from float64, both relative, for the longest chain of each of structures=FILE,... or for chains of residues 3.8
-- angstrom apart and as compact as a protein of their length (radius of gyration 2.2 N^0.38 angstrom). Last, dense-pair IPA in
-- float32 on a Gaussian cloud of unit size.
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

local function all(o, report)
  local function on(x) return x:to(o.device) end
  local widths = { dim = 256, edge = 128 }
  local R, shift = on(mf.random.rotations(1)), on(mf.tensor { { 5.77, -5.77, 5.77 } })   -- 10 nm
  local original = mf.nn.ipa(clone_options({}, { precision = "float32" }))
  mf.no_grad(function() original.linear_out.weight:normal_(0, 0.02) end)
  local state = original:state()

  local function layouts_of(chain)
    local length = chain.length
    local packing = mf.packing { length }
    mf.seed(7)
    local s = on(mf.randn(length, widths.dim))
    local z1, z2 = on(mf.randn(length, 2, widths.edge)), on(mf.randn(length, 2, widths.edge))
    local frames = { R = on(chain.frames.R), t = on(chain.frames.t) }
    local mask = chain.mask and on(chain.mask)

    local function layer(extra)
      local made = mf.nn.ipa(clone_options(extra, {}))
      made:load(state)
      return made:to(o.device)
    end
    local function run(made, at, convert)
      local f = convert or function(x) return x end
      return mf.no_grad(function()
        return made { s = f(s), frames = { R = f(at.R), t = f(at.t) }, pair = { f(z1), f(z2) }, mask = mask, packing = packing }
      end)
    end
    local truth = run(layer({ precision = "float32" }):to "float64", frames, function(x) return x:double() end)
    local there = moved(frames, R, shift)

    local reference = layer { precision = "float32" }
    local full = run(reference, frames)
    report { "layout", "float32 operands", "chain", chain.name, "type", "float32", "change", relative(run(reference, there), full),
      "error", relative(full, truth) }
    for _, entry in ipairs(layouts) do
      for _, kind in ipairs { "bf16", "fp16" } do
        local extra = entry[2].split and { precision = "split", split_type = kind } or { precision = kind }
        local made = layer(clone_options(entry[2], extra))
        local out = run(made, frames)
        report { "layout", entry[1], "chain", chain.name, "type", kind, "change", relative(run(made, there), out),
          "error", relative(out, truth) }
      end
    end
  end
  local lengths = o.lengths or o.structures and {} or o.gpu and { 512, 2048 } or { 512 }
  for _, chain in ipairs(o.chains.list(o.structures, lengths)) do mf.scope(layouts_of, chain) end

  local n = 128
  local dense = mf.nn.dense_ipa { dim = 256, edge = 128 }
  mf.no_grad(function() dense:state()["linear_out.weight"]:normal_(0, 0.02) end)
  dense:to(o.device)
  local cloud = { R = on(mf.random.rotations(n)), t = on(mf.randn(n, 3)) }
  local nodes, pairs = on(mf.randn(n, 256)), on(mf.randn(n * n, 128))
  local function at(place)
    return mf.no_grad(function() return dense { s = nodes, frames = place, pair = pairs, packing = mf.packing { n } } end)
  end
  report { "layout", "dense IPA, unit Gaussian cloud", "chain", ("N=%d"):format(n), "type", "float32",
    "change", relative(at(moved(cloud, R, shift * 0.1)), at(cloud)), "error", "-" }
end

-- The layers' own products stay in float32: what is measured is attention.
return function(o, report) mf.products("float32", all, o, report) end
