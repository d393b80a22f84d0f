local mf = require "moonfold"
local support = require "spec.support"

describe("a scope", function()
  it("frees what was made inside at its end, without a collection", function()
    collectgarbage()
    collectgarbage("stop")
    local before = mf.memory().live
    local result = mf.scope(function()
      local x = mf.ones(1000)
      for _ = 1, 10 do x = x + x end
      return x:sum()
    end)
    local after = mf.memory().live
    collectgarbage("restart")
    assert.equal(1000 * 1024, result:item())
    assert.equal(before + 4, after)
  end)

  it("spares results inside returned tables, and other values pass through", function()
    local t, n, nothing, text = mf.scope(function() return { a = mf.ones(2), b = 7 }, 5, nil, "x" end)
    assert.equal(2, t.a:sum():item())
    assert.same({ 7, 5, "x" }, { t.b, n, text })
    assert.is_nil(nothing)
  end)

  it("says so when a freed tensor is used", function()
    local leaked
    mf.scope(function() leaked = mf.ones(3) end)
    assert.is_true(leaked:is_released())
    assert.equal("tensor (released)", tostring(leaked))
    support.error_matches(function() return (leaked + 1) end, "released")
  end)

  it("spares what was kept", function()
    local kept
    mf.scope(function() kept = mf.ones(3):keep() end)
    assert.equal(3, kept:sum():item())
  end)

  it("frees at the end of the outer scope what left the inner one", function()
    local inner
    mf.scope(function()
      inner = mf.scope(function() return mf.ones(3) end)
      assert.is_false(inner:is_released())
    end)
    assert.is_true(inner:is_released())
  end)

  it("frees and closes after an error too, and raises it unchanged", function()
    local made
    local ok, message = pcall(mf.scope, function()
      made = mf.ones(3)
      error({ code = 7 })
    end)
    assert.is_false(ok)
    assert.equal(7, message.code)
    assert.is_true(made:is_released())
    local outside = mf.ones(2)
    assert.is_false(outside:is_released())
  end)

  it("leaves the gradients of leaves and what a returned result needs for backward", function()
    local w = mf.ones(4):require_grad()
    local loss = mf.scope(function() return ((w * 3):exp() * w):sum() end)
    loss:backward()
    support.close(w:grad(), mf.full({ 4 }, math.exp(3) * 4), 1e-5)
    w:zero_grad()
    mf.scope(function()
      (w * w):sum():backward()
      assert.equal(8, w:grad():sum():item())
    end)
    assert.equal(8, w:grad():sum():item())
  end)

  it("works with checkpoints and Lua functions whose backward comes after the scope", function()
    local cube = mf.differentiable {
      forward = function(saved, x)
        saved.x = x
        return x * x * x
      end,
      backward = function(saved, dy) return dy * saved.x * saved.x * 3 end,
    }
    local w = mf.full({ 3 }, 2):require_grad()
    local loss = mf.scope(function()
      local h = mf.checkpoint(function(x) return x * x end, w * 1)
      return cube(h):sum()
    end)
    loss:backward()
    support.close(w:grad(), mf.full({ 3 }, 6 * 32), 1e-6)
  end)

  it("releases by hand", function()
    local x = mf.ones(3)
    local view = x:reshape(3, 1)
    x:release()
    assert.is_true(x:is_released())
    assert.equal(3, view:sum():item())
  end)

  it("leaks nothing", function()
    support.no_leaks(function()
      for _ = 1, 5 do mf.scope(function() return (mf.ones(100) * 2):sum() end) end
    end)
  end)
end)
