--- Run by busted before the specs: after each file, collect, and live bytes must be what they were before it.
local busted = require "busted"
local mf = require "moonfold"
local support = require "spec.support"

-- Busted forgets after each file what the file loaded, but `mf` holds on to the parts that load when first named: without
-- this, a later file would meet them beside second copies of what they require.
local list = io.popen "cd lua/moonfold && find nn models flow data metrics -name '*.lua'"
for path in list:lines() do require("moonfold." .. (path:gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", "."))) end
list:close()
for name in getmetatable(mf).__pairs(mf) do assert(mf[name]) end

local before = 0

-- Busted keeps its tree to the end; what the functions in it capture would live as long.
local function forget(element)
  element.run = nil
  for _, kind in ipairs {
    "before_each", "after_each", "strict_setup", "strict_teardown", "lazy_setup", "lazy_teardown",
  } do
    element[kind] = nil
  end
  for _, child in ipairs(busted.children(element)) do forget(child) end
end

busted.subscribe({ "file", "start" }, function()
  before = support.live_bytes()
  return nil, true
end)

busted.subscribe({ "file", "end" }, function(file)
  for _, child in ipairs(busted.children(file)) do forget(child) end
  local after = support.live_bytes()
  if after > before then
    busted.publish({ "failure", "file" }, file, busted.parent(file),
      ("%s leaves %d bytes in live tensors\n%s"):format(file.name, after - before, mf.memory_report()), {})
  end
  return nil, true
end)
