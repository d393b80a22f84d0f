-- Rows of an archive read ahead on threads: the same bits as rows read one by one, errors where their rows are taken.
local mf = require "moonfold"
local support = require "spec.support"

local ROWS = 400

describe("a row reader", function()
  local path, archive, whole
  setup(function()
    path = os.tmpname()
    local rng = mf.rng(11)
    whole = {
      x = mf.randn(ROWS, 3, { rng = rng }), r = mf.randn(ROWS, 3, 3, { rng = rng, dtype = "float64" }), i = mf.arange(ROWS),
      m = mf.rand(ROWS, 2, { rng = rng }):gt(0.5), empty = mf.zeros(ROWS, 0),
    }
    mf.save(path, whole)
    archive = mf.archive(path)
  end)
  teardown(function() os.remove(path) end)

  local names = { "x", "m", "r", "empty", "i" }

  -- Runs of all kinds: none, empty ones, the same again, neighbours, everything.
  local function some_runs(rng)
    local first, count = {}, {}
    for k = 1, math.floor(rng:number() * 12) do
      local kind = rng:number()
      if k > 1 and kind < 0.3 then first[k], count[k] = first[k - 1], count[k - 1]
      elseif k > 1 and kind < 0.4 and first[k - 1] + count[k - 1] <= ROWS then first[k], count[k] = first[k - 1] + count[k - 1], 1
      elseif kind < 0.5 then first[k], count[k] = 1 + math.floor(rng:number() * (ROWS + 1)), 0
      else
        first[k] = 1 + math.floor(rng:number() * ROWS)
        count[k] = math.floor(rng:number() * (ROWS + 2 - first[k]))
      end
    end
    return first, count
  end

  local function expected(name, first, count)
    local parts = {}
    for k = 1, #first do parts[k] = whole[name]:narrow(1, first[k], count[k]) end
    return #parts > 0 and mf.cat(parts, 1) or whole[name]:narrow(1, 1, 0):contiguous()
  end

  it("gives what rows one by one would, in the order of asking, for any number of threads", function()
    for _, threads in ipairs { 0, 1, 2, 7 } do
      local reader, rng, asked = archive:reader(names, threads), mf.rng(5), {}
      for step = 1, 60 do
        if #asked < 9 and rng:number() < 0.6 then
          local first, count = some_runs(rng)
          reader:submit(first, count)
          table.insert(asked, { first, count })
        elseif #asked > 0 then
          local job, rows = table.remove(asked, 1), reader:next()
          for _, name in ipairs(names) do
            assert.equal(whole[name]:dtype(), rows[name]:dtype())
            support.same_bits(rows[name], expected(name, job[1], job[2]))
          end
        end
        assert.equal(#asked, reader:pending(), "after step " .. step)
      end
      reader:close()
    end
  end)

  it("outlives its archive's handle", function()
    local own = mf.archive(path)
    local reader = own:reader({ "x" }, 1)
    own:close()
    reader:submit({ 3 }, { 2 })
    support.same_bits(reader:next().x, expected("x", { 3 }, { 2 }))
    reader:close()
    support.error_matches(function() reader:next() end, "row reader: it is closed", true)
    support.error_matches(function() own:reader({ "x" }, 1) end, "is closed", true)
  end)

  it("refuses what does not fit", function()
    local reader = archive:reader({ "x" }, 1)
    for _, run in ipairs { { 0, 1 }, { 1, -1 }, { ROWS + 2, 0 }, { ROWS, 2 }, { 1, ROWS + 1 } } do
      support.error_matches(function() reader:submit({ 1, run[1] }, { 1, run[2] }) end, "'x' has 400 rows", true)
    end
    assert.equal(0, reader:pending())
    support.error_matches(function() reader:next() end, "row_reader.next: nothing was submitted", true)
    support.error_matches(function() archive:reader({ "y" }, 1) end, "has no tensor 'y'", true)
    support.error_matches(function() archive:reader({}, 1) end, "0 tensors, expected at least 1", true)
    support.error_matches(function() archive:reader({ "x" }, 65) end, "65 threads, expected 0 to 64", true)
  end)

  it("raises at the user's line what a thread found, for the rows that have it alone", function()
    local other = os.tmpname()
    mf.save(other, { x = mf.arange(4000), m = mf.ones(4000):bool() })
    local bytes = assert(io.open(other, "rb")):read "*a"
    local broken = assert(io.open(other, "wb"))       -- the masks stand last: one of them, row 3001, becomes a 7
    broken:write(bytes:sub(1, #bytes - 1000), "\7", bytes:sub(#bytes - 998))
    broken:close()
    for threads = 0, 2 do
      local reader = mf.archive(other):reader({ "x", "m" }, threads)
      reader:submit({ 1 }, { 3000 })
      reader:submit({ 2900 }, { 200 })
      reader:submit({ 3002 }, { 999 })
      assert.equal(3000, reader:next().x:count())
      local here = debug.getinfo(1, "l").currentline
      local ok, message = pcall(function() reader:next() end)
      assert.is_false(ok)
      local expected_text = ("row_reader_spec.lua:%d: rows: '%s': tensor 'm' is BOOL and holds a 7"):format(here + 1, other)
      assert.is_truthy(message:find(expected_text, 1, true), message)
      assert.equal(999, reader:next().x:count())
    end
    os.remove(other)
  end)

  it("says so when the file has become shorter", function()
    local other = os.tmpname()
    mf.save(other, { x = mf.arange(100000) })
    for threads = 0, 1 do
      local own = mf.archive(other)
      local reader = own:reader({ "x" }, threads)
      assert.equal(0, os.execute(("truncate -s 4096 '%s'"):format(other)))
      reader:submit({ 90000 }, { 1000 })
      support.error_matches(function() reader:next() end, "ends too early: the file has changed since it was opened", true)
      reader:close()
      mf.save(other, { x = mf.arange(100000) })
    end
    os.remove(other)
  end)

  it("leaves nothing behind when it is abandoned", function()
    support.no_leaks(function()
      for k = 1, 20 do
        local reader = archive:reader(names, 1 + k % 3)
        for _ = 1, 5 do reader:submit({ 1 }, { ROWS }) end
        if k % 2 == 0 then reader:next() end
      end
    end)
  end)
end)
