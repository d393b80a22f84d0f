-- The fused operator on the device: lift, attention and readout, forward and backward, held against its parts there and the CPU.
local mf = require "moonfold"
local naive = require "spec.support.naive"
local support = require "spec.support"
local ipa = require "spec.support.ipa"
local compose = require("moonfold.nn.lifted_attention").methods.forward

teardown(function() jit.flush() end)

local precisions = { { "float32" }, { "fp16" }, { "bf16" }, { "split", "fp16" }, { "split", "bf16" } }
local shapes = {
  { "odd widths" },
  { "rows of vectors", { hidden = 16, query_points = 8, value_points = 12, heads = 8, edge = 32 } },
  { "more heads than warps", { hidden = 4, heads = 11, query_points = 1, value_points = 33, rank = 1 } },
  { "no pairs, no query points of its own", { rank = 0, heads = 1, hidden = 8, query_points = 40, value_points = 1 } },
}

describe("flash_ipa on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function layer_of(shape, o)
    local options = { precision = o[1], split_type = o[2], gauge = o.gauge }
    for key, value in pairs(shape or {}) do options[key] = value end
    return ipa.layer(options)
  end

  -- The operator and what its parts are composed to, both on the device, against float64.
  local function as_good_as_composed(layer, inputs, floor)
    layer:to(device)
    local there = ipa.to(inputs, device)
    local fused, composed = ipa.all(layer, layer, there), ipa.all(layer, function(x) return compose(layer, x) end, there)
    layer._options.precision = "float32"
    layer:to("cpu"):to "float64"
    ipa.as_good(fused, composed, ipa.all(layer, layer, ipa.to(inputs, "float64")), floor)
  end

  for _, shape in ipairs(shapes) do
    for _, precision in ipairs(precisions) do
      it(("is as good as what its parts are composed to: %s, %s #grad"):format(shape[1], table.concat(precision, " ")), function()
        local layer = layer_of(shape[2], precision)
        local inputs = ipa.inputs(layer, { mask = true })
        as_good_as_composed(layer, inputs, 2 ^ -23)
      end)
    end
  end

  -- Enough residues that blocks take several, and readout's gradient one a warp. Gradients are sums over them then, and biases'
  -- cancel: at 2900 residues two float32 paths of the CPU are both 4e-6 to 1.7e-5 off linear_b's, by the chain.
  for _, precision in ipairs(precisions) do
    it("is as good where residues are many: " .. table.concat(precision, " ") .. " #grad", function()
      local layer = layer_of({ heads = 2, hidden = 8, query_points = 2, value_points = 4 }, precision)
      local inputs = ipa.inputs(layer, { lengths = support.emulated() and { 40, 3, 0, 61 } or { 2100, 3, 0, 811 } })
      as_good_as_composed(layer, inputs, precision[1] == "float32" and 2 ^ -17 or 2 ^ -20)
    end)
  end

  it("takes residues that do not fit into shared memory #grad", function()
    local layer = layer_of({ heads = 24, hidden = 800, query_points = 1, value_points = 2 }, { "fp16" })
    local inputs = ipa.inputs(layer, { lengths = { 2 } })
    as_good_as_composed(layer, inputs, 2 ^ -23)
  end)

  for _, gauge in ipairs { "canonical", "centred", "none" } do
    it("is the CPU's in float64, gauge " .. gauge .. " #grad", function()
      local layer = layer_of(nil, { "float32", gauge = gauge }):to "float64"
      local inputs = ipa.to(ipa.inputs(layer, { lengths = { 3, 0, 40, 1, 1, 6 } }), "float64")
      local cpu = ipa.all(layer, layer, inputs)
      layer:to(device)
      ipa.same(ipa.all(layer, layer, ipa.to(inputs, device)), cpu, 1e-13)
    end)
  end

  it("finds each residue's sequence among many", function()
    local layer = layer_of({ heads = 1, hidden = 1, query_points = 1, value_points = 1, rank = 0 }, { "float32" }):to "float64"
    local lengths = {}
    for i = 1, 70 do lengths[i] = i % 4 == 0 and 0 or i % 3 end
    local inputs = ipa.to(ipa.inputs(layer, { lengths = lengths }), "float64")
    local cpu = ipa.all(layer, layer, inputs)
    layer:to(device)
    ipa.same(ipa.all(layer, layer, ipa.to(inputs, device)), cpu, 1e-13)
  end)

  it("takes views, gives the same bits twice, and works on nothing #grad", function()
    local layer = layer_of(nil, { "fp16" }):to(device)
    local inputs = ipa.to(ipa.inputs(layer, { mask = true }), device)
    mf.deterministic(true, function()            -- attention's backward may add with atomics otherwise
      local once = ipa.all(layer, layer, inputs)
      ipa.same(ipa.all(layer, layer, inputs), once, 0)
      -- products of rows that lie apart may be another algorithm of cuBLASLt: sums in another order, sixteen roundings
      ipa.same(ipa.all(layer, layer, inputs, function(x) return naive.strided(x) end), once, 2 ^ -20)
    end)
    local none = ipa.all(layer, layer, ipa.to(ipa.inputs(layer, { lengths = { 0, 0 } }), device))
    assert.equal(0, none.dhead_weights:abs():sum():item())
  end)

  it("goes on from attention that was done before, to the bit", function()
    local n = 9
    local function x(...) return mf.randn(..., { rng = mf.rng(67) }):to(device) end
    local o = {
      q = x { n, 8 }, kv = x { n, 16 }, q_points = x { n, 12 }, kv_points = x { n, 30 }, head_weights = x { 2 },
      R = mf.random.rotations(n, { rng = mf.rng(66) }):to(device), t = x { n, 3 }, packing = mf.packing { 5, 4 }, heads = 2,
      precision = "fp16",
    }
    local features, attended, lse = mf.flash_ipa_attend(o)
    o.attended, o.lse = attended, lse
    support.same_bits(mf.flash_ipa(o):to "cpu", features:to "cpu")
  end)
end)
