-- Journals: rows as CSV and JSON lines, cut on resuming, drawn where gnuplot is.
local files = require "moonfold.files"
local journal = require "moonfold.journal"
local json = require "moonfold.json"

local function exists(command) return os.execute("command -v " .. command .. " >/dev/null 2>&1") == 0 end

describe("a journal", function()
  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    files.make_folder(folder)
  end)
  after_each(function() os.execute("rm -r '" .. folder .. "'") end)

  local function write(keep, first, last)
    local log = journal.open(folder .. "/loss", { "step", "loss", "note" }, keep)
    for step = first, last do log:write { step = step, loss = 1 / step, other = 7 } end
    log:close()
    return files.read(folder .. "/loss.csv"), files.read(folder .. "/loss.jsonl")
  end

  it("writes a heading, a row a line, and blanks for what is missing", function()
    local csv, lines = write(nil, 1, 2)
    assert.equal("step,loss,note\n1,1,\n2,0.5,\n", csv)
    assert.same({ step = 2, loss = 0.5 }, json.decode(lines:match "\n(.-)\n"))
  end)

  it("is, after resuming, what an uninterrupted run would have written", function()
    local csv, lines = write(nil, 1, 9)
    write(nil, 1, 7)
    local resumed, resumed_lines = write(4, 5, 9)      -- the checkpoint was at step 4, rows 5 to 7 are written again
    assert.equal(csv, resumed)
    assert.equal(lines, resumed_lines)
  end)

  it("drops a line that a crash left half written", function()
    write(nil, 1, 3)
    local path = folder .. "/loss.jsonl"
    files.replace(path, files.read(path) .. '{"loss":0.2')
    assert.equal("step,loss,note\n1,1,\n2,0.5,\n3,0.333333333,\n4,0.25,\n", (write(3, 4, 4)))
  end)

  it("keeps JSON valid when a value is no number", function()
    local log = journal.open(folder .. "/loss", { "step", "loss" })
    log:write { step = 1, loss = 0 / 0 }
    log:write { step = 2, loss = math.huge }
    log:close()
    for line in files.read(folder .. "/loss.jsonl"):gmatch "[^\n]+" do assert.is_number(json.decode(line).step) end
  end)

  it("draws columns and histograms", function()
    if not exists "gnuplot" then return pending "gnuplot is not there" end
    write(nil, 1, 50)
    assert.is_true(journal.plot(folder .. "/loss.csv", folder .. "/loss.svg", { x = "step", y = { "loss" }, log = "y" }))
    assert.is_truthy(files.read(folder .. "/loss.svg"):find("<svg", 1, true))
    local samples = { { name = "a", values = { 1, 2, 2, 9 } } }
    assert.is_true(journal.histograms(folder .. "/h.png", samples, { lo = 0, hi = 5, bins = 10 }))
    assert.equal("\137PNG", files.read(folder .. "/h.png"):sub(1, 4))
  end)

  it("says false when a picture cannot be drawn", function()
    assert.is_false(journal.plot(folder .. "/absent.csv", folder .. "/loss.svg", { x = "step", y = { "loss" } }))
  end)
end)
