-- Runs side by side: logs read back, groups of seeds, what is worse beyond their spread, the picture, the program.
local compare = require "moonfold.compare"
local files = require "moonfold.files"
local json = require "moonfold.json"
local loss_log = require "moonfold.loss_log"
local support = require "spec.support"

local build = os.getenv "MOONFOLD_BUILD" or "build"

describe("runs side by side", function()
  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    files.make_folder(folder)
  end)
  after_each(function() os.execute("rm -r '" .. folder .. "'") end)

  -- A run of `steps` steps of 0.5 s and 100 residues; its loss is `final` in the last tenth and 10 before.
  local function write(name, final, o)
    o = o or {}
    local at = files.make_folder(folder .. "/" .. name)
    local steps = o.steps or 40
    local lines = { "step,loss,gradient,rate,residues,sequences,seconds,bb,trans" }
    for step = 1, steps do
      local clock = 0.5 * (step > 20 and step - 20 or step)        -- resumed after step 20
      local loss = step > 0.9 * steps and final or 10
      lines[#lines + 1] = ("%d,%.9g,1,0.1,100,4,%.9g,%s,%.9g"):format(step, loss, clock, step % 2 == 0 and "3" or "", loss / 2)
    end
    files.replace(at .. "/loss.csv", table.concat(lines, "\n") .. "\n")
    if o.options then files.replace(at .. "/options.json", json.encode(o.options)) end
    return at
  end

  local function options_of(preset, seed, more)
    local o = { preset = preset, seed = seed, out = "runs/" .. seed, threads = seed, lr = 1e-4, model = { blocks = 2, mode = "m" },
      flow = { gate = 0.25, weights = { bb = 1, trans = 2 } } }
    for key, value in pairs(more or {}) do o[key] = value end
    return o
  end

  local function seeds(preset, finals, o)
    local list = {}
    for seed, final in ipairs(finals) do
      local given = { steps = o and o.steps, options = options_of(preset, seed, o and o.more) }
      list[seed] = write(preset:gsub("/", "_") .. seed .. (o and o.suffix or ""), final, given)
    end
    return list
  end

  local function joined(...)
    local all = {}
    for _, list in ipairs { ... } do
      for _, item in ipairs(list) do all[#all + 1] = item end
    end
    return all
  end

  it("have their last values, and speeds over a clock that began anew", function()
    local c = compare.runs({ write("a", 2) })
    local run = c.runs[1]
    assert.equal(40, run.steps)
    assert.equal(4, run.window)
    assert.equal(2, run.loss)
    assert.equal(1, run.terms.trans)
    assert.equal(3, run.terms.bb)                 -- every other step has none
    assert.near(20, run.seconds, 1e-9)
    assert.near(2, run.steps_per_second, 1e-9)
    assert.near(200, run.residues_per_second, 1e-9)
    assert.equal("a", run.name)
    assert.near(2 + 8 * 36 / 40, compare.runs({ folder .. "/a" }, { window = 1000 }).runs[1].loss, 1e-9)
    assert.equal(10, compare.runs({ folder .. "/a" }, { steps = 30 }).runs[1].loss)
  end)

  it("are grouped where their seeds alone differ, and named by what differs", function()
    local c = compare.runs(joined(seeds("x/base", { 1, 2, 3 }), seeds("x/flash", { 4, 5, 6 })))
    assert.equal(2, #c.groups)
    assert.equal("x/base", c.groups[1].name)
    assert.equal("x/flash seed 2", c.runs[5].name)
    assert.same({ "bb", "trans" }, c.terms)
    assert.same({ n = 3, mean = 5, deviation = 1 }, c.groups[2].loss)
    assert.same({ n = 3, mean = 1, deviation = 0.5 }, c.groups[1].terms.trans)
    c = compare.runs(joined(seeds("x/base", { 1, 2 }), seeds("x/base", { 1, 2 }, { suffix = "s", more = { lr = 1e-3 } })))
    assert.equal("lr=0.0001", c.groups[1].name)
    assert.equal("lr=0.001 seed 1", c.runs[3].name)
    c = compare.runs(joined(seeds("x/base", { 1, 2, 3 })), { names = { "a", "b", "a" } })
    assert.equal(2, #c.groups)
    assert.equal("a seed 3", c.runs[3].name)
  end)

  it("are worse beyond the spread of seeds, or within it", function()
    local base = seeds("x/base", { 1, 2, 3 })
    local function against(...) return compare.runs(joined(base, ...)).groups[2].against end
    local worse = against(seeds("x/flash", { 4, 5, 6 }))
    assert.equal("worse", worse.verdict)
    assert.equal(3, worse.difference)
    assert.near(math.sqrt(2 / 3), worse.error, 1e-12)
    assert.equal("within the spread of seeds", against(seeds("x/near", { 2, 3, 4 })).verdict)
    assert.equal("better", against(seeds("x/good", { 0.1, 0.2, 0.3 })).verdict)
    assert.equal("unknown", against(seeds("x/one", { 9 })).verdict)
  end)

  it("are judged by Student's distribution as tables have it", function()
    -- upper quantiles of t: 0.025 at 4 degrees of freedom, 0.05 at 2; two groups of one spread have 2 (n - 1)
    for _, row in ipairs { { 3, 2.7764451, 0.025 }, { 2, 2.9199856, 0.05 } } do
      local n, t, p = unpack(row)
      local a, b = { n = n, mean = 0, deviation = 1 }, { n = n, mean = t * math.sqrt(2 / n), deviation = 1 }
      assert.near(p, compare.welch(a, b).p, 1e-6)
      assert.near(1 - p, compare.welch(b, a).p, 1e-6)
    end
    local exact = { n = 2, mean = 1, deviation = 0 }
    assert.equal(0.5, compare.welch(exact, exact).p)
    assert.equal(0, compare.welch(exact, { n = 2, mean = 1.1, deviation = 0 }).p)
  end)

  it("are not compared where the losses are not of one kind", function()
    local base = seeds("x/base", { 1, 2 })
    local function reason(list) return compare.runs(joined(base, list)).groups[2].against.reason end
    assert.equal("40 and 20 steps: give steps=20", reason(seeds("x/short", { 1, 2 }, { steps = 20 })))
    local flow = { gate = 0.5, weights = { bb = 1, trans = 2 } }
    assert.equal("the losses differ in flow.gate", reason(seeds("x/gate", { 1, 2 }, { more = { flow = flow } })))
    flow = { gate = 0.25, weights = { bb = 1, trans = 3 } }
    assert.equal("the losses differ in flow.weights.trans", reason(seeds("x/weights", { 1, 2 }, { more = { flow = flow } })))
  end)

  it("are curves: the mean of seeds between the least and the greatest, one run's own values pale", function()
    local c = compare.runs(joined(seeds("x/base", { 1, 2, 6 }), seeds("x/flash", { 4 })))
    local panels = compare.panels(c)
    assert.equal(3, #panels)
    local last = panels[1].curves[1].points[40]
    assert.near(3, last.y, 1e-9)
    assert.near(1, last.low, 1e-9)
    assert.near(6, last.high, 1e-9)
    assert.is_nil(last.pale)
    assert.equal(39.5, last.x)
    local one = panels[1].curves[2].points
    assert.is_nil(one[40].low)
    assert.equal(4, one[37].pale)
    assert.equal(10, one[36].pale)
    assert.is_true(one[37].y > 4 and one[37].y < 10)        -- the running mean sees both sides
    assert.equal(20, #panels[2].curves[1].points)           -- steps without a term leave gaps
  end)

  it("that cannot be read are named", function()
    local function refused(text, ...)
      local ok, message = pcall(...)
      assert.is_false(ok)
      assert.truthy(message:find(text, 1, true), message)
    end
    refused(folder .. "/none holds no loss.csv", compare.runs, { folder .. "/none" })
    local at = write("a", 1)
    local function with(text)
      files.replace(at .. "/loss.csv", text)
      return at
    end
    refused("loss.csv is empty", loss_log.read, with "")
    refused("no column 'seconds'", loss_log.read, with "step,loss,residues\n1,2,3\n")
    refused("loss.csv:3: 3 cells, expected 4", loss_log.read, with "step,loss,residues,seconds\n1,2,3,4\n2,3,4\n")
    refused("loss.csv:2: 'x' in column loss is not a number", loss_log.read, with "step,loss,residues,seconds\n1,x,3,4\n")
    refused("holds no step", compare.runs, { with "step,loss,residues,seconds\n" })
    assert.equal(1, loss_log.read(with "step,loss,residues,seconds\n1,2,3,4\n2,3,").steps)       -- a line being written
    files.replace(at .. "/options.json", "[")
    refused("options.json is not a JSON object", compare.runs, { at })
    refused("names: 1 for 2 runs", compare.runs, { at, at }, { names = { "a" } })
    refused("window must be at least 1", compare.runs, { at }, { window = 0 })
  end)

  describe("as a program", function()
    local function run(words)
      local pipe = io.popen(("'%s/moonfold' scripts/compare.lua %s 2>&1; echo \"status $?\""):format(build, words))
      local text = pipe:read "*a"
      pipe:close()
      return text, tonumber(text:match "status (%d+)%s*$")
    end

    it("print a table, write it as JSON and draw a picture", function()
      if not files.exists(build .. "/moonfold") then return pending "the program is not built" end
      local all = joined(seeds("x/base", { 1, 2, 3 }), seeds("x/flash", { 4, 5, 6 }))
      files.replace(all[1] .. "/summary.json", json.encode { parameters = 1234567, peak_bytes = 2 ^ 30, outcome = "done" })
      local text, status = run(("runs='%s' out='%s/curves.svg'"):format(table.concat(all, ","), folder))
      assert.equal(0, status, text)
      assert.truthy(text:find("x/base seed 1 +1,234,567 +40 +1 .* 2 +200 +1.0 GiB +done"), text)
      assert.truthy(text:find("x/flash +3 +5.0000 %+%- 1.0000"), text)
      assert.truthy(text:find("x/flash against x/base: worse by +3.0000 (standard error 0.8165, p = 0.0107)", 1, true), text)
      local told = json.decode(files.read(folder .. "/curves.json"))
      assert.equal(1234567, told.runs[1].parameters)
      assert.equal(5, told.groups[2].loss.mean)
      assert.equal("worse", told.groups[2].against.verdict)
      assert.equal("x/base seed 3", told.runs[3].name)
      assert.equal("x/base", told.runs[3].group)
      if not support.shell "command -v gnuplot >/dev/null 2>&1" then return pending "gnuplot is not there" end
      local picture = files.read(folder .. "/curves.svg")
      for _, word in ipairs { "<svg", "x/base", "x/flash", "trans" } do assert.truthy(picture:find(word, 1, true), word) end
    end)

    it("refuse what they cannot do", function()
      if not files.exists(build .. "/moonfold") then return pending "the program is not built" end
      local text, status = run(("runs='%s/none'"):format(folder))
      assert.equal(2, status)
      assert.truthy(text:find("compare: " .. folder .. "/none holds no loss.csv", 1, true), text)
      text, status = run(("runs='%s' out=curves.txt"):format(folder))
      assert.equal(2, status)
      assert.truthy(text:find("ends neither in .svg nor in .png", 1, true), text)
    end)
  end)
end)
