-- What memory alone bounds: sums, softmax, layer norms, losses and sorting of the shapes that training has, large and small.
-- Microseconds of one call, the bytes that it must read and write over that time, and the share of what a copy of as much reaches.
-- On a GPU calls are repeated in a graph; what fits into its cache may beat the copy of a large array.
local mf = require "moonfold"

local TOTAL = 2 ^ 30                   -- bytes that the calls of one measurement move at most

return function(o, report)
  local measure = o.measure
  local copy_rate

  local function one(name, shape, bytes, f, ...)
    local repeats = o.gpu and math.max(1, math.min(20, math.floor(TOTAL / bytes))) or 1
    local inputs = { ... }             -- not the graph's own: those are copied at every replay
    local function step(tick)
      for _ = 1, repeats do mf.scope(function() f(unpack(inputs)) end) end
      return tick * 1
    end
    local what, tick = name .. " " .. shape, mf.zeros(1):to(o.device)
    local seconds = o.graph and measure.graph(what, step, tick) or measure.try(what, step, tick)
    local rate = type(seconds) == "number" and bytes * repeats / seconds
    copy_rate = copy_rate or rate
    report {
      "rows", name, "shape", shape, "us", rate and seconds / repeats * 1e6 or "-", "GB/s", rate and rate * 1e-9 or "-",
      "of copy", rate and copy_rate and rate / copy_rate or "-",
    }
  end

  local function array(...) return mf.randn(...):to(o.device) end
  local function text(...) return table.concat({ ... }, "x") end

  local function sums(rows, columns)
    local x = array(rows, columns)
    local bytes = x:nbytes()
    if not copy_rate then one("copy", text(rows, columns), 2 * bytes, function(a) return a:clone() end, x) end
    one("sum of all", text(rows, columns), bytes, function(a) return a:sum() end, x)
    one("sum of columns", text(rows, columns), bytes, function(a) return a:sum(1) end, x)
    one("sum of rows", text(rows, columns), bytes, function(a) return a:sum(2) end, x)
    one("argmax of rows", text(rows, columns), bytes, function(a) return a:argmax(2) end, x)
    one("softmax of rows", text(rows, columns), 2 * bytes, function(a) return a:softmax(2) end, x)
    one("cumsum of columns", text(rows, columns), 2 * bytes, function(a) return a:cumsum(1) end, x)
    one("squared error", text(rows, columns), 2 * bytes, function(a, b) return a:squared_error(b) end, x, array(rows, columns))
  end

  local function norms(rows, columns)
    local x, dy = array(rows, columns), array(rows, columns)
    local w, c = array(columns):require_grad(), array(columns):require_grad()
    local leaf = x:clone():require_grad()
    local bytes = x:nbytes()
    one("layer_norm", text(rows, columns), 2 * bytes, function(a, u, v) return mf.no_grad(a.layer_norm, a, u, v) end, x, w, c)
    one("layer_norm both", text(rows, columns), 5 * bytes, function(a, d, u, v)
      a:layer_norm(u, v):backward(d)
      for _, t in ipairs { a, u, v } do t:zero_grad() end
    end, leaf, dy, w, c)
    one("add_layer_norm", text(rows, columns), 3 * bytes, function(a, b, u, v)
      return mf.no_grad(a.add_layer_norm, a, b, u, v)
    end, x, dy, w, c)
  end

  for _, shape in ipairs {
    { 400000, 256 }, { 20000, 1664 }, { 1000000, 32 }, { 1000000, 3 }, { 8192, 256 }, { 512, 256 }, { 128, 3 },
  } do
    mf.scope(sums, unpack(shape))
  end
  mf.scope(function()
    local x = array(128, 20, 256)
    one("sum of the middle", "128x20x256", x:nbytes(), function(a) return a:sum(2) end, x)
  end)
  for _, shape in ipairs { { 128, 256 }, { 512, 256 }, { 8192, 256 }, { 200000, 256 }, { 16384, 128 } } do
    mf.scope(norms, unpack(shape))
  end
  for _, shape in ipairs { { 1, 1000000, 1000000 }, { 1, 1000000, 20 }, { 8192, 512, 20 }, { 100000, 32, 32 } } do
    local rows, columns, k = unpack(shape)
    mf.scope(function()
      local x = array(rows, columns)
      one(k == columns and "sort" or "topk " .. k, text(rows, columns), x:nbytes() + rows * k * 8, function(a)
        return a:topk(k, 2)
      end, x)
    end)
  end
end
