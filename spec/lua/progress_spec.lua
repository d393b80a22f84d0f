-- Progress in a pipe: plain lines, not too many, with what is left to do.
local progress = require "moonfold.progress"

-- A stream that keeps what is written.
local function sink()
  return { text = "", write = function(self, ...) self.text = self.text .. table.concat { ... } end, flush = function() end }
end

local function lines(stream)
  local list = {}
  for line in stream.text:gmatch "[^\n]*\n" do list[#list + 1] = line end
  return list
end

describe("a progress line in a pipe", function()
  it("is plain text without control characters", function()
    local stream = sink()
    local bar = progress { label = "train", total = 3, unit = "residues", stream = stream }
    for step = 1, 3 do bar:update(step, { amount = 10, text = "loss 1.0" }) end
    bar:done "saved"
    assert.is_nil(stream.text:find "[\r\27]")
    assert.is_truthy(stream.text:find("train  3/3", 1, true))
    assert.is_truthy(stream.text:find("loss 1.0", 1, true))
    assert.is_truthy(lines(stream)[#lines(stream)]:find "^train  saved in %d+:%d%d\n$")
  end)

  it("tells the first and the last step, and the others only now and then", function()
    local stream = sink()
    local bar = progress { label = "train", total = 1000, stream = stream, every = 1000 }
    for step = 1, 1000 do bar:update(step) end
    assert.equal(2, #lines(stream))
  end)

  it("tells every step when asked to", function()
    local stream = sink()
    local bar = progress { label = "train", total = 5, stream = stream, every = 0 }
    for step = 1, 5 do bar:update(step) end
    assert.equal(5, #lines(stream))
  end)

  it("counts what is left from where a resumed run began", function()
    local stream = sink()
    local bar = progress { label = "train", total = 100, first = 99, stream = stream }
    bar:update(100)
    assert.is_truthy(stream.text:find("100/100  0:00 left", 1, true))
  end)

  it("takes a total of nothing", function()
    local stream = sink()
    progress { label = "train", total = 0, stream = stream }:done()
    assert.is_truthy(stream.text:find("train  done in 0:00", 1, true))
  end)

  it("knows its options", function()
    assert.has_error(function() progress { label = "train", total = 1, units = "x" } end)
  end)
end)
