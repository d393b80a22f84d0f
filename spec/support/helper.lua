--- Run by busted before the specs: after each file, collect, and live bytes are what they were before it.
local busted = require "busted"
local mf = require "moonfold"
local support = require "spec.support"

local before = 0

busted.subscribe({ "file", "start" }, function()
  before = support.live_bytes()
  return nil, true
end)

busted.subscribe({ "file", "end" }, function(file)
  local after = support.live_bytes()
  if after > before then
    busted.publish({ "failure", "file" }, file, busted.context.parent(file),
      ("%s leaves %d bytes in live tensors\n%s"):format(file.name, after - before, mf.memory_report()), {})
  end
  return nil, true
end)
