-- Cases of scripts/bench.lua that have rules of their own: run once at tiny sizes, as a user would run them.
local files = require "moonfold.files"
local json = require "moonfold.json"

local build = os.getenv "MOONFOLD_BUILD" or "build"

describe("scripts/bench.lua", function()
  local path
  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  -- The rows of a case by the value of their first column, and what was printed.
  local function run(words)
    os.remove(path)
    local pipe = io.popen(("'%s/moonfold' scripts/bench.lua threads=1 repeats=1 json='%s' %s 2>&1; echo \"status $?\""):format(
      build, path, words))
    local text = pipe:read "*a"
    pipe:close()
    local rows = {}
    for line in (files.read(path) or ""):gmatch "[^\n]+" do rows[#rows + 1] = json.decode(line) end
    return rows, text, tonumber(text:match "status (%d+)%s*$")
  end

  local function has_program() return files.exists(build .. "/moonfold") end

  it("sets published models beside each other at a length", function()
    if not has_program() then return pending "the program is not built" end
    local rows, text, status = run "cases=lengths small=yes lengths=24 presets=foldflow/flash,foldflow/base"
    assert.equal(0, status, text)
    assert.equal(3, #rows)
    for i = 1, 2 do
      assert.is_true(rows[i].step_ms > 0 and rows[i].sampling_s > 0, text)
      assert.equal("eager", rows[i].how)
      -- the plan is of the model; the chain itself and its corruption are beside it
      assert.is_true(rows[i].step_MB >= rows[i].step_plan_MB and rows[i].step_MB < 1.5 * rows[i].step_plan_MB + 1, text)
    end
    assert.equal("foldflow L=24", rows[3]["dense / FlashIPA"])
    assert.near(rows[2].step_ms / rows[1].step_ms, rows[3].step_time, 1e-6 * rows[3].step_time)
    assert.near(rows[2].sampling_s / rows[1].sampling_s, rows[3].sampling_time, 1e-6 * rows[3].sampling_time)
  end)

  it("tells how long a step waits for data, whatever is read ahead", function()
    if not has_program() then return pending "the program is not built" end
    local rows, text, status = run "cases=prefetch small=yes presets=foldflow/flash"
    assert.equal(0, status, text)
    for i, ahead in ipairs { 0, 1, 2, 4 } do
      assert.equal(ahead, rows[i].ahead)
      assert.is_true(rows[i].wait_ms > 0 and rows[i].step_ms > rows[i].wait_ms, text)
      assert.near(100 * rows[i].wait_ms / rows[i].step_ms, rows[i]["waiting_%"], 1e-9)
      -- the same batches: residues a second times seconds
      assert.near(rows[1]["residues/s"] * rows[1].step_ms, rows[i]["residues/s"] * rows[i].step_ms, 1e-3)
    end
  end)

  it("does not try what does not fit, and recomputes blocks where that does", function()
    if not has_program() then return pending "the program is not built" end
    local rows, text, status = run "cases=lengths small=yes lengths=96 presets=rna_frameflow/base memory=0.03"
    assert.equal(0, status, text)
    assert.equal(2, #rows)
    assert.equal("step does not fit (plan: 36.8 MiB)", rows[1].note)
    assert.equal("-", rows[1].step_ms)
    assert.is_true(rows[1].sampling_s > 0)
    assert.equal("blocks", rows[2].recompute)
    assert.is_true(rows[2].step_ms > 0 and rows[2].step_MB * 1e6 < 0.03 * 2 ^ 30, text)
    assert.is_true(math.abs(rows[2].step_MB / rows[2].step_plan_MB - 1) < 0.02, text)
  end)
end)
