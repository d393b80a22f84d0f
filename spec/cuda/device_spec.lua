local mf = require "moonfold"
local support = require "spec.support"

describe("a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  it("is named among the devices", function()
    assert.equal("cuda:0", mf.cuda()[1])
    assert.equal("cuda:0", mf.devices()[3])
    assert.truthy(#mf.hardware(device) > 0 and mf.hardware(device) ~= "cuda")
  end)

  it("carries values there and back, whatever their size and type", function()
    for _, dtype in ipairs { "float32", "float64", "int64", "bool" } do
      for _, n in ipairs { 0, 1, 33, 70001 } do
        local x = mf.randn(n, { rng = mf.rng(n) }):to(dtype)
        assert.is_true(x:eq(x:to(device):to("cpu")):all())
      end
    end
    local large = mf.randn(5000003, { rng = mf.rng(1) })   -- several pieces of the staging
    assert.is_true(large:eq(large:to(device):to("cpu")):all())
  end)

  it("counts what it holds, and what its kernels work in, in the peak", function()
    collectgarbage()
    mf.reset_peak(device)
    local before = mf.memory(device)
    local x = mf.ones(1000, 1000, { device = device })
    local after = mf.memory(device)
    assert.equal(4000000, after.live - before.live)
    assert.is_true(after.peak >= after.live and after.reserved >= after.live and after.total > after.reserved)
    x:release()
    assert.equal(before.live, mf.memory(device).live)
  end)

  it("hands freed memory out again instead of asking for more", function()
    local function work() mf.ones(300, 1000, { device = device }):release() end
    work()
    local reserved = mf.memory(device).reserved
    for _ = 1, 50 do work() end
    assert.equal(reserved, mf.memory(device).reserved)
  end)

  it("gives cached memory back", function()
    mf.ones(5000, 1000, { device = device }):release()
    local before = mf.memory(device).reserved
    mf.flush(device)
    assert.is_true(mf.memory(device).reserved <= before - 20000000)
  end)

  it("says what is large when memory runs out, and goes on", function()
    local x = mf.ones(123, 1000, { device = device })
    local ok, message = pcall(mf.empty, 200 * 1024, 1024, 1024, { device = device })
    assert.is_false(ok)
    assert.matches("out of memory: 858993%d+ bytes wanted on cuda:0", message)
    assert.matches("123x1000 +float32 +492000 bytes on cuda", message)
    assert.equal(123000, x:sum():item())
  end)

  it("keeps to a limit", function()
    collectgarbage()
    collectgarbage()
    mf.memory_limit(mf.memory(device).live + 1000, device)
    local ok, message = pcall(mf.zeros, 1000, { device = device })
    mf.memory_limit(0, device)
    assert.is_false(ok)
    assert.matches("out of memory: 4000 bytes wanted on cuda", message)
    assert.equal(0, mf.zeros(1000, { device = device }):sum():item())
  end)

  it("raises an index out of range when the program next waits", function()
    local x, at = mf.ones(5, 2, { device = device }), mf.tensor({ 1, 7 }, { dtype = "int32" }):to(device)
    local y = x:index_select(1, at)
    local ok, message = pcall(mf.synchronize, device)
    assert.is_false(ok)
    assert.matches("index 7 must be at least 0 and below 5", message)
    assert.is_true(pcall(mf.synchronize, device))
    assert.same({ 2, 2 }, y:shape())
    assert.equal(10, x:sum():item())
  end)

  it("says what is on which device", function()
    assert.error_matches(function() return mf.ones(3, { device = device }) + mf.ones(3) end, "input 1 is on cuda, input 2 on cpu")
    assert.error_matches(function() return mf.ones(3, { device = "cuda:15" }) end,
      "cuda:15 is not there %(this machine has %d+ GPU")
  end)

  it("times its kernels", function()
    local profile, result = mf.profile(function()
      local x = mf.ones(200, 300, { device = device })
      return (x * x):sum():item()
    end)
    assert.equal(60000, result)
    assert.is_true(profile.calls >= 3 and profile.seconds > 0)
    assert.matches("kernel +calls +ms", tostring(profile))
    assert.error_matches(function() mf.profile(function() error "inside" end) end, "inside")
    assert.is_true(mf.profile(function() end).calls == 0)
  end)

  it("makes the index tensors of a packing itself", function()
    local packing = mf.packing { 3, 0, 1, 40, 5 }
    for _, name in ipairs { "offsets", "sequence", "position", "pair_row", "pair_column", "pair_offset" } do
      assert.same(packing[name](packing):values(), packing[name](packing, device):values(), name)
    end
  end)

  it("is told when to be deterministic", function()
    assert.is_false(mf.deterministic())
    assert.is_true(mf.deterministic(true, function() return mf.deterministic() end))
    assert.is_false(mf.deterministic())
  end)
end)

describe("without a GPU", function()
  it("the reason is one line", function()
    if mf.cuda() then return pending "there is one" end
    local none, reason = mf.cuda()
    assert.is_nil(none)
    assert.is_true(#reason > 0 and not reason:find "\n")
    assert.error_matches(function() mf.ones(3, { device = "cuda" }) end, reason, 1, true)
    assert.error_matches(function() mf.profile(function() end) end, reason, 1, true)
  end)
end)

describe("two GPUs #gpu", function()
  local list = mf.cuda()
  if not list or #list < 2 then return it("are not here", function() pending "one GPU or none" end) end

  it("work side by side, and tensors move between them", function()
    local x = mf.randn(40, 30, { rng = mf.rng(1) })
    local a, b = x:to("cuda:0"), x:to("cuda:1")
    local left, right = a:matmul(a:t()), b:matmul(b:t())
    support.same_bits(left:to("cpu"), right:to("cpu"))
    support.same_bits(left:to("cuda:1"):to("cpu"), right:to("cpu"))
    assert.equal("cuda:1", (b * 2):device())
    assert.error_matches(function() return a + b end, "input 1 is on cuda, input 2 on cuda:1")
  end)

  it("carry gradients across", function()
    local x = mf.ones(3, { device = "cuda:0", requires_grad = true })
    local y = (x * 2):to("cuda:1"):square():sum()
    y:backward()
    assert.same({ 8, 8, 8 }, x:grad():values())
  end)

  it("count their memory apart", function()
    local before = mf.memory("cuda:1").live
    local x = mf.zeros(1000, { device = "cuda:0" })
    assert.equal(before, mf.memory("cuda:1").live)
    assert.equal(1000, x:count())
  end)
end)
