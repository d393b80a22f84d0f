-- Rotary positions: attention knows offsets alone by them, in every layer and layout. What they compute: spec/core/rotary_spec.lua.
local mf = require "moonfold"
local nn = mf.nn
local rotary = nn.rotary
local help = require "spec.support.nn"

local function int32(list) return mf.tensor(list, { dtype = "int32" }) end

describe("rotary", function()
  it("makes the product of a query and a key depend on how far apart they are alone", function()
    local dim, x, y = 16, mf.randn(1, 3, 16, { rng = mf.rng(2) }), mf.randn(1, 3, 16, { rng = mf.rng(3) })
    local function product(i, j) return (rotary.turn(x, dim, int32 { i }) * rotary.turn(y, dim, int32 { j })):sum(3) end
    assert.is_true(help.apart(product(3, 5), product(103, 105)) < 1e-4)
    assert.is_true(help.apart(product(3, 5), product(3, 6)) > 1e-2)
  end)

  for _, kind in ipairs { "ipa", "published", "dense_ipa" } do
    it("reaches attention: " .. kind, function()
      local n, packing = 7, mf.packing { 7 }
      local function out(rotates, index)
        local o = { dim = 16, edge = 8, heads = 2, hidden = 6, query_points = 2, value_points = 2, rotary = rotates,
          init = "default", rng = mf.rng(4) }
        if kind == "published" then o.layout = kind end
        local layer = nn[kind == "dense_ipa" and kind or "ipa"](o)
        local s = mf.randn(n, 16, { rng = mf.rng(5) })
        local pair = kind == "dense_ipa" and mf.randn(n * n, 8, { rng = mf.rng(6) }) or mf.randn(n, 2, 2, 8, { rng = mf.rng(6) })
        local R, t = help.chain(n, mf.rng(7))
        return layer { s = s, frames = { R = R, t = t }, pair = pair, packing = packing,
          index = index and int32(index) }
      end
      local plain, turned = out(false), out(true)
      assert.is_true(help.apart(plain, turned) > 1e-3)
      assert.equal(0, help.apart(turned, out(true, { 0, 1, 2, 3, 4, 5, 6 })))
      assert.is_true(help.apart(turned, out(true, { 50, 51, 52, 53, 54, 55, 56 })) < 1e-4)     -- offsets alone
      assert.is_true(help.apart(turned, out(true, { 0, 1, 2, 3, 14, 15, 16 })) > 1e-3)         -- a gap is seen
    end)
  end

  it("is an option of every network, of no parameter", function()
    for name, o in pairs { foldflow = { preset = "flash" }, rna_frameflow = { preset = "base" }, flash_ipa = {} } do
      o.blocks, o.rotary = 1, true
      local with = mf.models[name](o)
      o.rotary = false
      assert.equal(mf.models[name](o):count(), with:count())
    end
  end)

  -- The embedder sees indices too: it is made blind, so that only attention is left to see a gap.
  it("counts residues as FoldFlow does: a gap in their numbers is one for attention", function()
    local n = 6
    local R, t = help.chain(n, mf.rng(9))
    local function out(rotates, gap)
      local model = help.stir(mf.models.foldflow { preset = "small", mode = "flash_1d_bias", neighbours = 3, rotary = rotates,
        rng = mf.rng(10) }, mf.rng(11))
      for _, entry in ipairs(model:named_parameters()) do
        if entry[1]:match "^embedding_layer" and entry[2]:ndim() == 2 then entry[2]:detach():zero_() end
      end
      local index = int32 { 0, 1, 2, 3 + gap, 4 + gap, 5 + gap }
      return model { t = mf.tensor { 0.5 }, packing = mf.packing { n }, translations = t * 10, rotations = R, index = index }.node
    end
    assert.equal(0, help.apart(out(false, 0), out(false, 9)))
    assert.is_true(help.apart(out(true, 0), out(true, 9)) > 1e-4)
  end)

  it("refuses odd widths", function()
    local ok, message = pcall(nn.ipa, { hidden = 7, rotary = true })
    assert.is_false(ok)
    assert.matches("rotary: 7 channels a head, expected an even number", message)
  end)
end)
