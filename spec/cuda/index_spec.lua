-- Indexing on a GPU: sums by index in both modes, short and long, with many targets and one; indices out of range.
local mf = require "moonfold"
local support = require "spec.support"

describe("indexing on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  after_each(function() mf.deterministic(false) end)

  local function index(n, m, seed, dtype) return (mf.rand(m, { rng = mf.rng(seed) }) * n):floor():to(dtype or "int32") end
  local function normal(seed, ...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end

  for _, deterministic in ipairs { false, true } do
    -- up to 2048 rows are owned, more are sorted; 5000 rows make pieces of 128, which one target spans and 3000 do not
    for _, m in ipairs { 1, 33, 2048, 2049, 5000 } do
      it(("adds %d rows, deterministic: %s"):format(m, deterministic), function()
        mf.deterministic(deterministic)
        for _, size in ipairs { 1, 7, 3000 } do
          for _, inner in ipairs { 1, 5, 8 } do
            local places, s, y = index(size, m, m + size), normal(1, m, inner), normal(2, size, inner)
            local function add(dtype, to)
              return y:to(dtype):to(to):index_add(1, places:to(to), s:to(dtype):to(to)):to "cpu"
            end
            -- m rows at most are added to one element: m roundings of a sum no larger than m times the largest
            support.close(add("float64", device), add("float64", "cpu"), m * 2 ^ -52)
            support.close(add("float32", device), add("float64", "cpu"), 0.5 * math.sqrt(m + 1) * 2 ^ -20)
            if deterministic then support.same_bits(add("float32", device), add("float32", device)) end
            support.same_bits(
              (y * 100):to("int32"):to(device):index_add(1, places:to(device), (s * 100):to("int32"):to(device)):to "cpu",
              (y * 100):to("int32"):index_add(1, places, (s * 100):to "int32"))
          end
        end
      end)
    end

    it(("adds along middle axes and element by element, deterministic: %s"):format(deterministic), function()
      mf.deterministic(deterministic)
      local y, s = normal(3, 4, 6, 5), normal(4, 4, 300, 5)
      for _, dtype in ipairs { "int32", "int64" } do
        local places = index(6, 300, 5, dtype)
        support.close(y:to(device):index_add(2, places:to(device), s:to(device)):to "cpu", y:index_add(2, places, s), 300 * 2 ^ -52)
        local each = index(6, 4 * 300 * 5, 6, dtype):reshape(4, 300, 5)
        local sum = y:to(device):scatter_add(2, each:to(device), s:to(device)):to "cpu"
        support.close(sum, y:scatter_add(2, each, s), 300 * 2 ^ -52)
        if deterministic then support.same_bits(y:to(device):scatter_add(2, each:to(device), s:to(device)):to "cpu", sum) end
      end
    end)
  end

  it("selects and gathers rows of every width", function()
    for _, dtype in ipairs { "bool", "float16", "float32", "float64" } do
      for _, inner in ipairs { 1, 2, 3, 4, 8, 300 } do
        local a, places = (normal(1, 3, 9, inner) * 3):to(dtype), index(9, 40, 2)
        support.same_bits(a:to(device):index_select(2, places:to(device)):to "cpu", a:index_select(2, places))
        local each = index(9, 3 * 7 * inner, 3, "int64"):reshape(3, 7, inner)
        support.same_bits(a:to(device):gather(2, each:to(device)):to "cpu", a:gather(2, each))
      end
    end
  end)

  it("raises an index out of range when the host next waits, and writes nothing for it", function()
    local y = normal(1, 5, 3):to(device)
    local bad = mf.tensor({ 0, 5, -1 }, { dtype = "int32" }):to(device)
    local cases = {
      { "index_select", function() return y:index_select(1, bad) end },
      { "gather", function() return y:gather(1, bad:unsqueeze(2):expand(3, 3)) end },
      { "index_add", function() return y:index_add(1, bad, normal(2, 3, 3):to(device)) end },
      { "scatter_add", function() return y:scatter_add(1, bad:unsqueeze(2):expand(3, 3), normal(2, 3, 3):to(device)) end },
    }
    for _, deterministic in ipairs { false, true } do
      mf.deterministic(deterministic)
      for _, case in ipairs(cases) do
        local result = case[2]()
        local message = support.error_matches(function() mf.synchronize(device) end, case[1] .. ": index ", true)
        assert.is_truthy(message:find("must be at least 0 and below 5", 1, true), message)
        assert.has_no.errors(function() mf.synchronize(device) end)
        if case[1]:find "add" then   -- rows 2 to 5 got nothing
          support.same_bits(result:narrow(1, 2, 4):to "cpu", y:narrow(1, 2, 4):to "cpu")
        end
      end
    end
  end)
end)
