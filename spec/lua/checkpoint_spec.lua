-- Checkpoints: a tree comes back as it was, bit for bit.
local mf = require "moonfold"
local support = require "spec.support"
local checkpoint = require "moonfold.checkpoint"

describe("a checkpoint", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  local function round(tree)
    checkpoint.save(path, tree)
    return checkpoint.load(path)
  end

  it("gives tensors, numbers, texts and booleans back", function()
    local x, y = mf.randn(3, 5), mf.arange(7)
    local back = round { step = 12, share = 1 / 3, big = 2 ^ 40 + 0.5, name = "a\nb", on = true, off = false,
                         model = { ["trunk.0.weight"] = x }, deep = { list = { 1, 2, 3 }, moments = { y, x } } }
    assert.equal(12, back.step)
    assert.equal(1 / 3, back.share)
    assert.equal(2 ^ 40 + 0.5, back.big)
    assert.equal("a\nb", back.name)
    assert.is_true(back.on)
    assert.is_false(back.off)
    assert.same({ 1, 2, 3 }, back.deep.list)
    support.same_bits(x, back.model["trunk.0.weight"])
    support.same_bits(y, back.deep.moments[1])
    support.same_bits(x, back.deep.moments[2])
    assert.equal("int32", back.deep.moments[1]:dtype())
  end)

  it("carries an optimizer, its average and a generator", function()
    local w = mf.randn(4, 4):require_grad()
    local opt, average = mf.optim.adamw({ w = w }, { lr = 0.1 }), mf.optim.ema({ w = w }, 0.9)
    for _ = 1, 3 do
      opt:step((w * w):sum())
      average:update()
    end
    local rng = mf.rng(5)
    rng:number()
    local back = round { optimizer = opt:state(), average = average:state(), rng = rng:state(), model = { w = w:detach():clone() } }
    local v = mf.zeros(4, 4):require_grad()
    local other, other_average = mf.optim.adamw({ w = v }, { lr = 0.1 }), mf.optim.ema({ w = v }, 0.9)
    mf.no_grad(function() v:copy_(back.model.w) end)
    other:load(back.optimizer)
    other_average:load(back.average)
    for _ = 1, 2 do
      opt:step((w * w):sum())
      other:step((v * v):sum())
      average:update()
      other_average:update()
    end
    support.same_bits(w:detach(), v:detach())
    support.same_bits(average:state().w, other_average:state().w)
    assert.equal(rng:number(), mf.rng_from(back.rng):number())
  end)

  it("refuses a file that is no checkpoint, and names it", function()
    mf.save(path, { x = mf.zeros(2) })
    support.error_matches(function() checkpoint.load(path) end, path .. " is not a checkpoint", true)
  end)

  it("refuses what it could not give back", function()
    support.error_matches(function() checkpoint.save(path, { ["a/b"] = 1 }) end, "the key 'a/b'", true)
    support.error_matches(function() checkpoint.save(path, { list = { mf.zeros(1), 5 } }) end, "the list 'list'", true)
  end)
end)
