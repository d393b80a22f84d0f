-- What one operation costs beside its arithmetic: scalars through the prompt's own path, with and without a record.
local mf = require "moonfold"
local C = require("moonfold.ffi").C

return function(_, report)
  local x, y = mf.randn(1), mf.randn(1)
  local w = mf.randn(1):require_grad()
  local many = 20000
  local function each(name, f)
    for _ = 1, 2000 do f() end
    collectgarbage()
    local began = C.mf_clock()
    for _ = 1, many do f() end
    report { "overhead", name, "microseconds", (C.mf_clock() - began) / many * 1e6 }
  end
  each("x + y", function() return x + y end)
  each("x * w, recorded", function() return x * w end)
  each("x:reshape(1, 1), a view", function() return x:reshape(1, 1) end)
  each("(x * w):sum():backward()", function() (x * w):sum():backward() end)
end
