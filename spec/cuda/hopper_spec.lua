--- Attention by warpgroups (sm_90a): that these kernels answer where they should, and what only they can get wrong: tiles of one
-- sequence that reach into the next, a maximum that moves from tile to tile, tiles without a key, blocks that go on to other work.
local mf = require "moonfold"
local common = require "spec.support"
local support = require "spec.support.attention"
local relative = require("spec.support.nn").relative
local normal, each, with_gradients = support.normal, support.each, support.with_gradients

local inf = math.huge

local function is_hopper()
  if common.emulated() then return (os.getenv "MOONFOLD_EMULATE_CAPABILITY" or "90") == "90" end
  local pipe = io.popen "nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null"
  local first = pipe and pipe:read "*l" or ""
  if pipe then pipe:close() end
  return first == "9.0"
end

describe("attention by warpgroups #gpu", function()
  local device = common.cuda()
  if not device then return end
  if not is_hopper() then return pending "not a GPU of compute capability 9.0" end

  -- more tiles than multiprocessors
  local small = common.emulated()
  local lengths, heads = small and { 130, 0, 200 } or { 700, 0, 900, 513 }, small and 2 or 8

  -- Of the kernels that ran, or that f starts, how many are named so.
  local function count(kernels, pattern)
    local calls = 0
    for _, row in ipairs(kernels) do
      if row.name:find(pattern) then calls = calls + row.calls end
    end
    return calls
  end
  local function started(pattern, f) return count((mf.profile(f)), pattern) end
  -- x, but `many` rows from `first` on hold `value`
  local function in_part(x, first, many, value)
    local shape = x:shape()
    shape[1] = many
    local rest = x:size(1) - first - many + 1
    return mf.cat({ x:narrow(1, 1, first - 1), mf.full(shape, value), x:narrow(1, first + many, rest) }, 1)
  end
  local function inputs_of(widths, n, h)
    return { normal({ n, h, widths[1] }, 1, "float32") / math.sqrt(widths[1]), normal({ n, h, widths[1] }, 2, "float32"),
      normal({ n, h, widths[2] }, 3, "float32"), normal({ n, h }, 4, "float32") }
  end

  for _, widths in ipairs { { 64, 64 }, { 154, 228 }, { 160, 200 }, { 208, 264 }, { 384, 512 } } do
    local text = ("widths %d and %d"):format(widths[1], widths[2])
    it("answers, and agrees, for " .. text, function()
      local packing = mf.packing(lengths)
      local inputs = each(inputs_of(widths, packing:total(), heads), function(x) return x:to(device):require_grad() end)
      local out
      local function forward() out = mf.attention(inputs[1], inputs[2], inputs[3], inputs[4], packing, "fp16") end
      assert.equal(1, started("hopper_.*forward", forward))
      -- parts of dq are added where that is allowed, and faster: for long sequences, which in the emulator are these
      local adds = widths[2] == 64 or small and widths[1] > 128 and widths[1] <= 160
      local function backward() out:sum():backward() end
      assert.equal(adds, started("hopper_fused", backward) > 0)
      forward()
      mf.deterministic(true, function()
        local kernels = mf.profile(backward)
        assert.equal(0, count(kernels, "hopper_fused"))
        assert.is_true(count(kernels, "hopper_") > 0)
      end)
      support.agrees(device, { lengths = lengths, heads = heads, dqk = widths[1], dv = widths[2], precision = "fp16", masked = 5 })
    end)
  end

  it("agrees in bf16, and where the maximum moves from tile to tile", function()
    support.agrees(device, { lengths = lengths, heads = heads, dqk = 154, dv = 228, precision = "bf16" })
    support.agrees(device, { lengths = lengths, heads = heads, dqk = 154, dv = 228, precision = "fp16", sharp = 8 })
  end)

  it("agrees for sequences that end at, before and after a tile", function()
    local ends = { 1, 64, 65, 127, 0, 128, 129, 2 }
    if not small then for i = 1, 40 do ends[#ends + 1] = i * 37 % 131 end end
    for _, widths in ipairs { { 64, 64 }, { 154, 228 }, { 300, 270 } } do
      local h = small and 1 or 8
      support.agrees(device, { lengths = ends, heads = h, dqk = widths[1], dv = widths[2], precision = "fp16", masked = 2 })
    end
  end)

  it("takes no key bias, and gives each gradient alone as it gives all of them", function()
    local packing = mf.packing(lengths)
    for _, widths in ipairs { { 64, 64 }, { 154, 228 }, { 384, 512 } } do
      local inputs, g = inputs_of(widths, packing:total(), heads), normal({ packing:total(), heads, widths[2] }, 5, "float32")
      inputs[4] = mf.zeros(packing:total(), heads)
      local function fused(q, k, v, b) return mf.attention(q, k, v, b, packing, "fp16") end
      mf.deterministic(true, function()
        local all = with_gradients(fused, inputs, { g }, device)
        local without = with_gradients(fused, { inputs[1], inputs[2], inputs[3] }, { g }, device)
        for i, x in ipairs(without) do assert.is_true(x:bytes() == all[i]:bytes()) end
        for wanted = 1, 4 do
          local list = each(inputs, function(x) return x:to(device):detach() end)
          list[wanted]:require_grad()
          fused(unpack(list)):backward(g:to(device))
          assert.is_true(all[1 + wanted]:bytes() == list[wanted]:grad():to("cpu"):bytes())
        end
      end)
    end
  end)

  it("is not for widths beyond 512, and mf.profile says so", function()
    local packing = mf.packing { 20 }
    local function profiled(widths)
      local x = each(inputs_of(widths, 20, 1), function(y) return y:to(device) end)
      return tostring((mf.profile(function() mf.attention(x[1], x[2], x[3], x[4], packing, "fp16") end)))
    end
    assert.matches("\nflash_wide_kernel: attention of widths", profiled { 16, 520 })
    assert.is_nil(profiled({ 16, 512 }):find("flash_wide_kernel", 1, true))
  end)

  it("leaves the small to the others", function()
    local packing = mf.packing { 20 }
    local x = each(inputs_of({ 154, 228 }, 20, 1), function(y) return y:to(device) end)
    assert.equal(0, started("hopper_", function() mf.attention(x[1], x[2], x[3], x[4], packing, "fp16") end))
  end)

  -- rows behind the end of a sequence are read with its last tile
  it("sees nothing of the sequences beside", function()
    for _, widths in ipairs { { 64, 64 }, { 154, 228 }, { 384, 512 } } do
      local many = small and { 130, 70, 129 } or { 700, 650, 900 }
      local packing, h = mf.packing(many), heads
      local first, middle = many[1], many[2]
      local n = packing:total()
      local inputs, g = inputs_of(widths, n, h), normal({ n, h, widths[2] }, 5, "float32")
      local function run(list)
        return with_gradients(function(q, k, v, b) return mf.attention(q, k, v, b, packing, "fp16") end, list, { g }, device)
      end
      local function rest(y) return in_part(y, first + 1, middle, 0) end
      -- no infinities: they would move the scale of all cotangents
      local spoilt = each(inputs, function(x) return in_part(x, first + 1, middle, 0 / 0) end)
      for _, x in ipairs(run(spoilt)) do assert.is_true(rest(x):abs():sum():item() < inf) end
      mf.deterministic(true, function()
        local clean = run(inputs)
        for i, x in ipairs(run(spoilt)) do assert.is_true(rest(clean[i]):bytes() == rest(x):bytes()) end
      end)
    end
  end)

  it("leaves masked keys out: whole tiles of them, and whole sequences", function()
    for _, precision in ipairs { "fp16", "bf16" } do
      local packing = mf.packing(lengths)
      local n, last = packing:total(), lengths[#lengths]
      local inputs = inputs_of({ 154, 228 }, n, heads)
      local g = normal({ n, heads, 228 }, 5, "float32")
      -- the first sequence, and all but the last three of the last one
      local bias = in_part(in_part(mf.zeros(n, heads), 1, lengths[1], -inf), n - last + 1, last - 3, -inf)
      local on_device = bias:to(device)
      local function fused(q, k, v) return mf.attention(q, k, v, on_device, packing, precision) end
      local lists = with_gradients(fused, { inputs[1], inputs[2], inputs[3] }, { g }, device)
      for i, x in ipairs(lists) do
        assert.equal(0, x:narrow(1, 1, lengths[1]):abs():max(1):max():item())
        assert.is_true(x:abs():sum():item() < inf)
        if i > 2 then assert.equal(0, x:narrow(1, n - last + 1, last - 3):abs():max(1):max():item()) end
      end
      local function part(x) return x:narrow(1, n - 2, 3):contiguous() end
      local q = inputs[1]:narrow(1, n - last + 1, last)
      local s = q:transpose(1, 2):matmul(part(inputs[2]):permute(2, 3, 1)):softmax(3)
      local expected = s:matmul(part(inputs[3]):transpose(1, 2)):transpose(1, 2)
      assert.is_true(relative(lists[1]:narrow(1, n - last + 1, last), expected) < (precision == "fp16" and 2e-3 or 1.6e-2))
    end
  end)
end)
