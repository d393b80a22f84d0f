--- What specs share: random inputs, comparisons, gradient checks, leak checks.
-- @module spec.support
local busted = require "busted"
local ffi = require "ffi"
local mf = require "moonfold"

ffi.cdef "int setenv(const char *name, const char *value, int overwrite);"

local M = { random = {} }

local rng = mf.rng(20240607)

--- Begins the same sequence of random inputs again; every spec file may do so to pass alone.
function M.seed(seed) rng:load { seed = seed, stream = 0, counter = 0 } end

local function with_options(count, given)
  local options = {}
  for key, value in pairs(given or {}) do options[key] = value end
  options.dtype, options.rng = options.dtype or "float64", rng
  return count, options
end

--- Standard normal values, float64 unless the last argument says otherwise.
-- @usage local x = support.random.normal(5, 3)
function M.random.normal(...)
  local sizes = { ... }
  local given = type(sizes[#sizes]) == "table" and table.remove(sizes) or nil
  local _, options = with_options(0, given)
  return mf.randn(sizes, options)
end

--- Values uniform in [lo, hi).
function M.random.uniform(lo, hi, ...)
  local x = mf.rand({ ... }, { dtype = "float64", rng = rng })
  return x * (hi - lo) + lo
end

--- Whole numbers in 0 .. n - 1: an index.
function M.random.index(n, ...) return M.random.uniform(0, n, ...):floor():int() end

--- Rotations and translations of n frames: R (n, 3, 3), t (n, 3).
function M.random.frames(n, given)
  local _, options = with_options(n, given)
  return mf.random.rotations(n, options), mf.randn({ n, 3 }, options) * 5
end

--- One rigid motion as R (1, 3, 3) and t (1, 3), some 10 angstrom far.
function M.random.rigid(given)
  local _, options = with_options(1, given)
  return mf.random.rotations(1, options), mf.randn({ 1, 3 }, options) * 10
end

--- x with the same values but gaps between its elements: what an operator must not take for contiguous.
function M.strided(x)
  local shape = x:shape()
  shape[#shape + 1] = 2
  return mf.stack({ x, x * 0 - 7 }, -1):reshape(shape):select(-1, 1)
end

--- The largest |a - b| over the largest |b| (or 1): infinite when shapes differ or only one is finite.
function M.difference(a, b)
  if type(a) == "number" then a = mf.tensor(a, { dtype = "float64" }) end
  if type(b) == "number" then b = mf.full(a:shape(), b, { dtype = "float64" }) end
  if type(b) == "table" then b = mf.tensor(b, { dtype = "float64" }) end
  if table.concat(a:shape(), "x") ~= table.concat(b:shape(), "x") then return math.huge end
  local x, y = a:detach():double():values(), b:detach():double():values()
  local worst, scale = 0, 0
  for i = 1, #x do
    local d = math.abs(x[i] - y[i])
    if x[i] == y[i] or (x[i] ~= x[i] and y[i] ~= y[i]) then d = 0 end
    if d ~= d then d = math.huge end
    worst = math.max(worst, d)
    if math.abs(y[i]) < math.huge then scale = math.max(scale, math.abs(y[i])) end
  end
  return worst / math.max(scale, 1e-300)
end

--- Fails unless a and b have one shape and differ by at most `relative` times the largest |b|.
function M.close(a, b, relative, what)
  local d = M.difference(a, b)
  if d ~= d or d > relative then
    local function text(x) return type(x) == "cdata" and x:show() or tostring(x) end
    error(("%s: relative difference %.3g, allowed %.3g\n%s\n%s"):format(what or "close", d, relative, text(a), text(b)), 2)
  end
end

--- Fails unless both tensors hold the same bits.
function M.same_bits(a, b, what)
  if a:dtype() ~= b:dtype() or a:bytes() ~= b:bytes() then
    error(("%s: not the same bits\n%s\n%s"):format(what or "same_bits", a:show(), b:show()), 2)
  end
end

--- Fails unless fn raises an error whose text contains `text` (a pattern unless plain).
-- The message must begin with the position of a line in the spec itself.
function M.error_matches(fn, text, plain)
  local ok, message = pcall(fn)
  if ok then error("an error was expected: " .. text, 2) end
  message = tostring(message)
  if not message:find(text, 1, plain) then
    error(("the error\n  %s\ndoes not match\n  %s"):format(message, text), 2)
  end
  local caller = debug.getinfo(2, "S").short_src
  if message:sub(1, #caller + 1) ~= caller .. ":" then
    error(("the error does not point at %s:\n  %s"):format(caller, message), 2)
  end
  return message
end

-- The outputs of fn as a list of tensors.
local function outputs_of(fn, inputs)
  local list = {}
  for _, x in ipairs { fn(unpack(inputs)) } do
    if mf.is_tensor(x) then list[#list + 1] = x end
  end
  return list
end

-- sum over outputs of (output * cotangent), as a number.
local function contracted(fn, inputs, cotangents)
  local total = 0
  mf.no_grad(function()
    for i, out in ipairs(outputs_of(fn, inputs)) do
      if cotangents[i] then total = total + (out * cotangents[i]):sum():item() end
    end
  end)
  return total
end

local function analytic(fn, inputs, wanted, cotangents)
  local leaves = {}
  for i, x in ipairs(inputs) do
    leaves[i] = mf.is_tensor(x) and wanted[i] and x:detach():clone():require_grad() or x
  end
  local total
  for i, out in ipairs(outputs_of(fn, leaves)) do
    if cotangents[i] and out:requires_grad() then
      local part = (out * cotangents[i]):sum()
      total = total and total + part or part
    end
  end
  if not total then error("gradients_match: no output depends on an input that requires a gradient", 3) end
  total:backward()
  local gradients = {}
  for i in pairs(wanted) do
    gradients[i] = leaves[i]:grad() or leaves[i]:detach() * 0
  end
  return gradients
end

-- (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h along a direction of one input: error of order h^4.
local function numeric(fn, inputs, i, direction, h, cotangents)
  local function at(scale)
    local moved = { unpack(inputs) }
    moved[i] = inputs[i] + direction * (scale * h)
    return contracted(fn, moved, cotangents)
  end
  return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h)
end

local EVERY_ELEMENT, DIRECTIONS = 40, 6

--- Fails unless the gradients of fn agree with central differences in float64, and two runs with each other bit for bit.
-- Small inputs are checked element by element, others along random directions. Outputs are contracted with fixed
-- random cotangents.
-- @tparam function fn inputs -> tensors
-- @tparam table inputs float64 tensors are differentiated; anything else is passed on
-- @tparam ?table options `h` (1e-3), `tolerance` (1e-7, relative to the largest derivative), `skip` ({ [i] = true })
function M.gradients_match(fn, inputs, options)
  options = options or {}
  local h, tolerance = options.h or 1e-3, options.tolerance or 1e-7
  local wanted = {}
  for i, x in ipairs(inputs) do
    if mf.is_tensor(x) and x:dtype() == "float64" and not (options.skip and options.skip[i]) then wanted[i] = true end
  end
  local cotangents = {}
  for i, out in ipairs(outputs_of(fn, inputs)) do
    if out:dtype() == "float64" then cotangents[i] = M.random.normal(unpack(out:shape())) end
    if out:dtype() == "float64" and out:ndim() == 0 then cotangents[i] = mf.tensor(1.25, { dtype = "float64" }) end
  end
  local gradients, again = analytic(fn, inputs, wanted, cotangents), analytic(fn, inputs, wanted, cotangents)
  for i in pairs(wanted) do
    M.same_bits(gradients[i], again[i], ("gradient of input %d, run twice"):format(i))
    local x, n = inputs[i], inputs[i]:count()
    local shape = x:shape()
    local pairs_of, scale = {}, 0
    if n <= EVERY_ELEMENT then
      local values = gradients[i]:values()
      for j = 1, n do
        local unit = {}
        for k = 1, n do unit[k] = k == j and 1 or 0 end
        local direction = mf.tensor(unit, { dtype = "float64" }):reshape(shape)
        pairs_of[j] = { values[j], numeric(fn, inputs, i, direction, h, cotangents), ("element %d"):format(j) }
      end
    else
      for j = 1, DIRECTIONS do
        local direction = mf.randn(shape, { dtype = "float64", rng = rng })
        direction = direction * (1 / direction:norm():item())
        pairs_of[j] = {
          (gradients[i] * direction):sum():item(), numeric(fn, inputs, i, direction, h, cotangents),
          ("direction %d"):format(j),
        }
      end
    end
    for _, p in ipairs(pairs_of) do scale = math.max(scale, math.abs(p[2])) end
    for _, p in ipairs(pairs_of) do
      local d = math.abs(p[1] - p[2])
      if d ~= d or d > tolerance * math.max(scale, 1) then
        error(("gradient of input %d, %s: backward gives %.12g, differences give %.12g (scale %.3g)")
          :format(i, p[3], p[1], p[2], scale), 2)
      end
    end
  end
end

--- Bytes in live tensors after full collections.
function M.live_bytes()
  require("moonfold.constant").forget()   -- tables uploaded once and for all
  jit.flush()      -- compiled traces hold closures and cdata as constants, and those their tensors
  collectgarbage()
  mf.memory()  -- forgets functions in Lua whose graph went; what they saved goes with the next collection
  collectgarbage()
  return mf.memory().live
end

--- Runs fn and fails unless live bytes return to where they were.
function M.no_leaks(fn)
  local before = M.live_bytes()
  fn()
  local after = M.live_bytes()
  if after ~= before then error(("live bytes went from %d to %d\n%s"):format(before, after, mf.memory_report()), 2) end
end

--- The CUDA device that specs run on, "cuda:0", opened in guard mode: blocks of its memory hold NaN when they are taken and lie
-- between canaries. Without one: nil, and a pending entry that says why.
-- @usage describe("norms #gpu", function()
--          local device = support.cuda()
--          if not device then return end
function M.cuda()
  ffi.C.setenv("MOONFOLD_CUDA_GUARD", "1", 0)
  local list, reason = mf.cuda()
  if not list then busted.pending("no CUDA device: " .. reason) end
  return list and list[1]
end

--- Whether the CUDA device is emulated: thousands of times slower than a real one.
function M.emulated() return (os.getenv "MOONFOLD_CUDA" or ""):find("emulated", 1, true) ~= nil end

--- Runs a command of the shell.
-- @treturn boolean whether it ended well
function M.shell(command)
  local status = os.execute(command)
  return status == true or status == 0
end

--- The bytes of a file.
function M.read_file(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

return M
