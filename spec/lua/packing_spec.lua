local mf = require "moonfold"
local support = require "spec.support"

describe("a packing", function()
  it("knows its sequences", function()
    local p = mf.packing { 2, 0, 3 }
    assert.equal(3, p:count())
    assert.equal(5, p:total())
    assert.equal(3, p:longest())
    assert.equal(13, p:pairs())
    assert.same({ 2, 0, 3 }, p:lengths())
    assert.same({ 0, 2, 2, 5 }, { p:offset(1), p:offset(2), p:offset(3), p:offset(4) })
    assert.equal("packing of 3 sequences, 5 residues, longest 3", tostring(p))
  end)

  it("gives index tensors from 0", function()
    local p = mf.packing { 2, 0, 3 }
    assert.same({ 0, 2, 2, 5 }, p:offsets():totable())
    assert.same({ 0, 0, 2, 2, 2 }, p:sequence():totable())
    assert.same({ 0, 1, 0, 1, 2 }, p:position():totable())
    assert.same({ 0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4 }, p:pair_row():totable())
    assert.same({ 0, 1, 0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4 }, p:pair_column():totable())
    assert.same({ 0, 1, -1, 0, 0, 1, 2, -1, 0, 1, -2, -1, 0 }, p:pair_offset():totable())
    assert.equal("int32", p:offsets():dtype())
  end)

  it("may be empty", function()
    local p = mf.packing {}
    assert.equal(0, p:total())
    assert.same({ 0 }, p:offsets():totable())
  end)

  it("refuses lengths that are none", function()
    support.error_matches(function() mf.packing { 1, -2 } end, "packing", true)
    support.error_matches(function() mf.packing { 1, 2.5 } end, "packing: length 2 must be a whole number", true)
    support.error_matches(function() mf.packing(3) end, "packing: argument 1 must be a table of lengths, got a number", true)
    support.error_matches(function() mf.ones(3):segment_sum(mf.packing { 2 }) end, "segment_sum", true)
    support.error_matches(function() mf.ones(3):segment_sum({ 3 }) end,
      "segment_sum: argument 1 must be a packing (mf.packing), got a table", true)
    support.error_matches(function() mf.packing({ 2 }):offset(3) end, "offset: sequence 3 does not exist", true)
  end)

  it("sums, averages and spreads over sequences, with gradients #grad", function()
    local p = mf.packing { 2, 0, 3 }
    local x = mf.tensor({ 1, 2, 3, 4, 5 }, { dtype = "float64" })
    assert.same({ 3, 0, 12 }, x:segment_sum(p):totable())
    assert.same({ 1.5, 0, 4 }, x:segment_mean(p):totable())
    assert.same({ 3, 3, 12, 12, 12 }, x:segment_sum(p):segment_expand(p):totable())
    local y = support.random.normal(5, 3)
    support.gradients_match(function(a) return a:segment_mean(p):square(), a:segment_sum(p):sin() end, { y })
    support.gradients_match(function(a) return a:segment_expand(p):square() end, { support.random.normal(3, 2) })
  end)

  it("converts to padded tensors and back", function()
    for _, lengths in ipairs { { 2, 0, 3 }, { 1 }, { 31, 33, 7 } } do
      local p = mf.packing(lengths)
      local x = support.random.normal(p:total(), 2)
      local padded, mask = mf.pad(x, p, -9)
      assert.same({ #lengths, p:longest(), 2 }, padded:shape())
      assert.equal(p:total(), mask:float():sum():item())
      assert.equal((#lengths * p:longest() - p:total()) * 2, padded:eq(-9):float():sum():item())
      local back, q = mf.unpad(padded, lengths)
      support.same_bits(back, x)
      assert.same(lengths, q:lengths())
      support.same_bits((mf.unpad(padded, mask)), x)
    end
  end)

  it("unpads by a mask with gaps", function()
    local x = mf.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    local rows, p = mf.unpad(x, mf.tensor { { true, false, true }, { false, true, false } })
    assert.same({ 1, 3, 5 }, rows:totable())
    assert.same({ 2, 1 }, p:lengths())
  end)

  it("pads with gradients #grad", function()
    local p = mf.packing { 2, 0, 3 }
    support.gradients_match(function(x) return (mf.pad(x, p)):square() end, { support.random.normal(5, 2) })
    support.gradients_match(function(x) return (mf.unpad(x, { 1, 3 })):square() end, { support.random.normal(2, 3, 2) })
  end)

  it("pads whole numbers and names what does not fit", function()
    local padded = mf.pad(mf.arange(3), mf.packing { 1, 2 })
    assert.same({ { 0, 0 }, { 1, 2 } }, padded:totable())
    assert.equal("int32", padded:dtype())
    support.error_matches(function() mf.pad(mf.ones(4), mf.packing { 1, 2 }) end, "pad: the tensor has 4 rows", true)
    support.error_matches(function() mf.unpad(mf.ones(2, 3), { 1, 4 }) end, "unpad: length 2 is 4", true)
  end)
end)
