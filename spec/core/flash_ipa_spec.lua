-- Flash IPA as one operator against the same attention assembled from small ones.
local mf = require "moonfold"
local naive = require "spec.support.naive"
local support = require "spec.support"
local ipa = require "spec.support.ipa"
local compose = require("moonfold.nn.lifted_attention").methods.forward

teardown(function() jit.flush() end)

local gauges = { "canonical", "centred", "none" }
local precisions = { { "float32" }, { "fp16" }, { "bf16" }, { "split", "fp16" }, { "split", "bf16" } }

local function name_of(precision) return table.concat(precision, " ") end

describe("flash_ipa", function()
  for _, gauge in ipairs(gauges) do
    for _, precision in ipairs(precisions) do
      for _, rank in ipairs { 0, 2 } do
        local kind = ("gauge %s, %s, rank %d"):format(gauge, name_of(precision), rank)
        it("is what its parts are composed to, in float64: " .. kind .. " #grad", function()
          local layer = ipa.layer { gauge = gauge, precision = precision[1], split_type = precision[2], rank = rank }:to "float64"
          for _, mask in ipairs { false, true } do
            local inputs = ipa.to(ipa.inputs(layer, { mask = mask }), "float64")
            local function composed(x) return compose(layer, x) end
            -- the same roundings of the same numbers, summed in another order: a few hundred terms
            ipa.same(ipa.all(layer, layer, inputs), ipa.all(layer, composed, inputs), 1e-13)
          end
        end)
      end
    end
  end

  for _, precision in ipairs(precisions) do
    it(("is as near to the truth in float32 as its parts are: %s #grad"):format(name_of(precision)), function()
      local layer = ipa.layer { precision = precision[1], split_type = precision[2] }
      local inputs, fast, slow, truth = {}, {}, {}, {}
      for k = 1, 8 do
        inputs[k] = ipa.inputs(layer, { lengths = { 33, 0, 64 }, mask = true, seed = 62 + k })
        fast[k], slow[k] = ipa.all(layer, layer, inputs[k]), ipa.all(layer, function(x) return compose(layer, x) end, inputs[k])
      end
      layer._options.precision = "float32"
      layer:to "float64"
      for k = 1, 8 do truth[k] = ipa.all(layer, layer, ipa.to(inputs[k], "float64")) end
      ipa.as_good(fast, slow, truth, 2 ^ -24)
    end)
  end

  it("takes views as they come #grad", function()
    local layer = ipa.layer():to "float64"
    local inputs = ipa.to(ipa.inputs(layer), "float64")
    ipa.same(ipa.all(layer, layer, inputs, naive.strided), ipa.all(layer, layer, inputs), 0)
  end)

  it("gives the same bits twice #grad", function()
    local layer = ipa.layer { precision = "fp16" }
    local inputs = ipa.inputs(layer, { lengths = { 130, 70 } })
    ipa.same(ipa.all(layer, layer, inputs), ipa.all(layer, layer, inputs), 0)
  end)

  it("takes frames that are no rotations, as the first block of a network may give them #grad", function()
    local layer = ipa.layer():to "float64"
    local inputs = ipa.to(ipa.inputs(layer), "float64")
    inputs.frames.R = inputs.frames.R * 1.5 + 0.2
    ipa.same(ipa.all(layer, layer, inputs), ipa.all(layer, function(x) return compose(layer, x) end, inputs), 1e-12)
  end)

  it("works on no residues at all", function()
    local layer = ipa.layer()
    for _, lengths in ipairs { {}, { 0 }, { 0, 0 } } do
      local results = ipa.all(layer, layer, ipa.inputs(layer, { lengths = lengths }))
      assert.same({ 0, 12 }, results.out:shape())
      assert.equal(0, results.dhead_weights:abs():sum():item())
    end
  end)

  -- The operator itself, H 2, c 3, P 2, Pv 3, r 2, dz 4.
  local function arguments(o)
    local n = 6
    local function x(...) return mf.randn(..., { rng = mf.rng(65) }) end
    local list = {
      q = x { n, 6 }, kv = x { n, 12 }, q_points = x { n, 12 }, kv_points = x { n, 30 }, pair_bias = x { n, 2, 2, 2 },
      pair_value = x { n, 2, 2, 4 }, head_weights = x { 2 }, R = mf.random.rotations(n, { rng = mf.rng(66) }), t = x { n, 3 },
      packing = mf.packing { 4, 2 }, heads = 2,
    }
    for key, value in pairs(o or {}) do list[key] = value or nil end
    return list
  end

  it("goes on from attention that was done before, to the bit #grad", function()
    for _, precision in ipairs { "exact", "fp16" } do
      local function gradients(o)
        o.q:require_grad()
        o.t:require_grad()
        local out = mf.flash_ipa(o)
        out:square():sum():backward()
        return out, o.q:grad(), o.t:grad()
      end
      local features, attended, lse = mf.flash_ipa_attend(arguments { precision = precision })
      assert.same({ 6, 2, 3 + 9 + 8 }, attended:shape())
      assert.is_false(features:requires_grad())
      local whole = { gradients(arguments { precision = precision }) }
      local resumed = { gradients(arguments { precision = precision, attended = attended, lse = lse }) }
      support.same_bits(features, whole[1])
      for i = 1, 3 do support.same_bits(resumed[i], whole[i]) end
    end
  end)

  it("keeps what its note says, and less where operands have 16 bits", function()
    local function kept(device, precision)
      local layer = mf.nn.ipa { precision = precision }:to(device)
      local n = 64
      local function x(...) return mf.empty(..., { device = device }) end
      local o = {
        q = x { n, 1024 }, kv = x { n, 2048 }, q_points = x { n, 192 }, kv_points = x { n, 480 }, pair_bias = x { n, 2, 2, 8 },
        pair_value = x { n, 2, 2, 32 }, head_weights = layer.points.head_weights, R = x { n, 3, 3 }, t = x { n, 3 },
        packing = mf.packing { n }, heads = 8, precision = precision == "float32" and "exact" or precision,
      }
      collectgarbage()
      local before = mf.memory(device).live
      local out = mf.flash_ipa(o)
      local inputs = 4 * (192 + 480 + 128)
      local gauge = mf.memory(device).live - before - out:nbytes() - 36         -- one rotation
      out:release()
      return gauge / n + inputs
    end
    assert.equal(19600, kept("null", "fp16"))
    assert.equal(27760, kept("null", "float32"))
    assert.equal(27760 + 2 * 4 * 8 * 4, kept("cpu", "fp16"))     -- float32 there, and four columns more for the halves
  end)

  it("says what does not fit", function()
    local function fails(o, text)
      support.error_matches(function() mf.flash_ipa(arguments(o)) end, text, true)
    end
    fails({ q = mf.randn(6, 7) }, "q (6, 7) does not divide into 2 heads")
    fails({ kv = mf.randn(6, 11) }, "kv (6, 11) must be (6, 12)")
    fails({ q = mf.randn(5, 6) }, "q (5, 6) must be (6, width), a row a residue")
    fails({ q_points = mf.randn(6, 13) }, "q_points (6, 13) are no points of three numbers in 2 heads")
    fails({ kv_points = mf.randn(6, 6) }, "kv_points (6, 6) must hold 2 key points and the value points of 2 heads")
    fails({ pair_bias = false }, "pair_bias and pair_value come together")
    fails({ pair_value = mf.randn(6, 2, 3, 4) }, "pair_value (6, 2, 3, 4) must be (6, 2, 2, 4)")
    fails({ head_weights = mf.randn(3) }, "head_weights (3) must be (2)")
    fails({ t = mf.randn(6, 2) }, "t (6, 2) must be (6, 3)")
    fails({ R = mf.randn(6, 9) }, "R (6, 9) must be (6, 3, 3)")
    fails({ mask = mf.randn(6) }, "mask is float32, expected bool")
    fails({ mask = mf.ones(5):bool() }, "mask (5) must be (6)")
    fails({ t = mf.randn(6, 3):double() }, "q is float32, t float64; one type expected")
    fails({ q = mf.randn(6, 6):int() }, "q is int32, expected float32 or float64")
    fails({ heads = 0 }, "0 heads, expected 1 or more")
    fails({ heads = 1.5 }, "heads must be a whole number, got 1.5")
    fails({ gauge = "own" }, "unknown gauge 'own' (known: canonical, centred, none)")
    fails({ precision = "int8" }, "unknown precision 'int8' (known: exact, fp16, bf16, tf32)")
    fails({ split = true }, "split points need precision fp16 or bf16")
    fails({ lse = mf.randn(6, 2) }, "attended and lse come together")
    fails({ lse = mf.randn(6, 2), attended = mf.randn(6, 2, 3) }, "attended (6, 2, 3) must be (6, 2, 20)")
    fails({ packing = 6 }, "packing must be a packing (mf.packing), got a number")
    fails({ R = 6 }, "R must be a tensor, got a number")
    fails({ query = 6 }, "unknown option 'query'")
    local o = arguments()
    local _, attended, lse = mf.flash_ipa_attend(o)
    o.attended, o.lse = attended:require_grad(), lse
    support.error_matches(function() mf.flash_ipa(o):sum():backward() end, "attended and lse are constants of a call before", true)
  end)
end)
