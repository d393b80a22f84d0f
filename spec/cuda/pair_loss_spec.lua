local mf = require "moonfold"
local agree = require "spec.support.agree"
local support = require "spec.support"

local g = mf.geometry

describe("the pair-distance loss on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function normal(seed, ...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end

  local function chain(n, atoms) return (normal(1, n, 1, 3):cumsum(1) * 3 + normal(2, n, atoms, 3)) end

  for _, case in ipairs { { { 1 }, 1 }, { { 2, 33 }, 3 }, { { 31, 0, 5 }, 1 }, { { 64, 1, 70 }, 2 }, { { 130 }, 4 } } do
    local lengths, atoms = unpack(case)
    for _, cutoff in ipairs { 0, 6, 2, 1e3 } do
      it(("of %s residues of %d atoms, cutoff %g"):format(table.concat(lengths, ", "), atoms, cutoff), function()
        local packing = mf.packing(lengths)
        local n = packing:total()
        local truth = chain(n, atoms)
        local predicted = truth + normal(3, n, atoms, 3)
        local present = normal(4, n, atoms):gt(-1)
        for _, mask in ipairs { present, false } do
          local function loss(p)
            return g.pair_distance_loss(p, truth:to(p:dtype()):to(p:device()), mask and mask:to(p:device()) or nil, cutoff, packing)
          end
          agree(device, loss, { predicted }, { gradients = true })
          -- which pairs count is decided with the CPU's bits
          for _, dtype in ipairs { "float32", "float64" } do
            local _, pairs_ = loss(predicted:to(dtype))
            local _, ours = loss(predicted:to(dtype):to(device))
            support.same_bits(ours:to "cpu", pairs_)
          end
        end
      end)
    end
  end

  it("counts pairs on a lattice at the cutoff as the CPU does", function()
    local packing = mf.packing { 60 }
    local truth = normal(1, 60, 2, 3):mul(2):floor():float()
    for _, cutoff in ipairs { 1, 2, math.sqrt(2), 3 } do
      local _, want = g.pair_distance_loss(truth, truth, nil, cutoff, packing)
      local sum, pairs_ = g.pair_distance_loss(truth:to(device), truth:to(device), nil, cutoff, packing)
      assert.equal(want:item(), pairs_:item())
      assert.equal(0, sum:item())
    end
  end)

  it("has no gradient where atoms meet, and none for those that are missing", function()
    local packing = mf.packing { 3 }
    local truth = mf.tensor { { { 0, 0, 0 } }, { { 3, 0, 0 } }, { { 0, 4, 0 } } }
    local predicted = mf.tensor { { { 1, 1, 1 } }, { { 1, 1, 1 } }, { { 0 / 0, 0, 0 } } }:to(device):require_grad()
    local mask = mf.tensor { { 1 }, { 1 }, { 0 } }:bool():to(device)
    local sum = g.pair_distance_loss(predicted, truth:to(device), mask, 0, packing)
    assert.equal(18, sum:item())
    sum:sum():backward()
    assert.same({ 0, 0, 0, 0, 0, 0, 0, 0, 0 }, predicted:grad():values())
  end)

  it("names a true atom that is not finite", function()
    local truth = mf.zeros(5, 2, 3)
    truth:select(1, 4):fill_(1 / 0)
    support.error_matches(function()
      g.pair_distance_loss(mf.zeros(5, 2, 3):to(device), truth:to(device), nil, 0, mf.packing { 2, 3 }):values()
    end, "pair_distance_loss: a true atom of residue 2 of sequence 2 is not finite; mask it", true)
  end)

  it("is the same bits twice", function()
    local packing = mf.packing { 90, 40 }
    local truth = chain(130, 3):float():to(device)
    local function once()
      local p = (chain(130, 3) + normal(9, 130, 3, 3)):float():to(device):require_grad()
      local sum = g.pair_distance_loss(p, truth, nil, 9, packing)
      sum:sum():backward()
      return sum:to "cpu", p:grad():to "cpu"
    end
    local a, da = once()
    local b, db = once()
    support.same_bits(a, b)
    support.same_bits(da, db)
  end)
end)
