--- Counter-based random numbers: the same on every device, saved in three numbers.
-- @module moonfold.random
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local capture = require "moonfold.capture"
local make = require "moonfold.make"
local fail = require "moonfold.fail"

local C, ctx, check, is_tensor = F.C, F.ctx, F.check, F.is_tensor

local M, functions, methods = {}, {}, {}

local generator_t = ffi.typeof("mf_rng")

local function whole(name, position, value, default)
  value = T.integer_argument(name, position, value, default)
  if value < 0 or value > 2^53 then fail("%s: argument %d must lie in 0 .. 2^53, got %g", name, position, value) end
  return value
end

--- A generator of random numbers. Equal seeds and streams give equal numbers.
-- @tparam number seed a whole number
-- @tparam[opt=0] number stream separates uses of one seed
-- @treturn rng
-- @usage local rng = mf.rng(7)
--        local x = mf.randn(4, { rng = rng })
function functions.rng(seed, stream)
  return generator_t(whole("rng", 1, seed), whole("rng", 2, stream, 0), 0)
end

--- A generator that goes on from a saved state.
-- @tparam table state what `rng:state()` returned
-- @treturn rng
function functions.rng_from(state)
  if type(state) ~= "table" then T.bad_argument("rng_from", 1, "a table", state) end
  return generator_t(whole("rng_from", 1, state.seed), whole("rng_from", 1, state.stream),
    whole("rng_from", 1, state.counter))
end

--- Seeds the context's own generator, which draws when no other is given.
-- @tparam number seed
function functions.seed(seed)
  local own = C.mf_ctx_rng(ctx)
  own.seed, own.stream, own.counter = whole("seed", 1, seed), 0, 0
end

--- The context's own generator.
-- @treturn rng
function functions.default_rng() return C.mf_ctx_rng(ctx) end

--- What is needed to go on later: seed, stream and counter.
-- @treturn table
function methods.state(rng)
  return { seed = tonumber(rng.seed), stream = tonumber(rng.stream), counter = tonumber(rng.counter) }
end

--- Goes on from a saved state.
-- @tparam table state
-- @treturn rng
function methods.load(rng, state)
  local from = functions.rng_from(state)
  rng.seed, rng.stream, rng.counter = from.seed, from.stream, from.counter
  return rng
end

-- A number for the host would be frozen in a captured graph.
local function number(name, rng)
  if capture.active() then fail("%s: a number for the host cannot be captured in a graph; draw it before, and pass it in", name) end
  return C.mf_random_number(rng)
end

--- One number in [0, 1).
-- @treturn number
function methods.number(rng) return (number("number", rng)) end

--- One whole number in lo .. hi.
-- @tparam number lo
-- @tparam number hi
-- @treturn number
function methods.integer(rng, lo, hi)
  T.integer_argument("integer", 1, lo)
  T.integer_argument("integer", 2, hi)
  if hi < lo then fail("integer: the range %d .. %d is empty", lo, hi) end
  return lo + math.floor(number("integer", rng) * (hi - lo + 1))
end

local function drawn(name, n, given, default_dtype, ...)
  whole(name, 1, n)
  local dtype, device, requires_grad, rng = T.tensor_options(name, given, default_dtype)
  local box, axes = T.shape(name, n, ...)
  return make.new(device, dtype, box, axes), make.generator(name, rng), requires_grad
end

local function finish(x, requires_grad)
  if requires_grad then x:require_grad() end
  return x
end

--- Rotations uniform over SO(3).
-- @tparam number n
-- @tparam ?table options `dtype`, `device`, `rng`, `requires_grad`
-- @treturn tensor (n, 3, 3)
function M.rotations(n, given)
  local x, rng, requires_grad = drawn("random.rotations", n, given, nil, 3, 3)
  check(C.mf_random_rotations(x, rng))
  return finish(x, requires_grad)
end

--- The numbers 0 .. n - 1 in random order.
-- @tparam number n
-- @tparam ?table options `dtype` ("int32"), `device`, `rng`
-- @treturn tensor (n)
function M.permutation(n, given)
  local x, rng = drawn("random.permutation", n, given, T.dtype_code.int32)
  check(C.mf_random_permutation(x, rng))
  return x
end

--- Rotation vectors from the isotropic normal distribution on SO(3): `igso3(n, sigma)` or `igso3(sigmas)`.
-- @tparam number|tensor n how many, or one sigma for each
-- @tparam ?number|tensor sigma one width for all, or (n)
-- @tparam ?table options `dtype`, `device`, `rng`, `requires_grad`
-- @treturn tensor (n, 3)
function M.igso3(n, sigma, given)
  if is_tensor(n) then
    n, sigma, given = n:count(), n, sigma
  end
  if not is_tensor(sigma) and type(sigma) ~= "number" then
    T.bad_argument("random.igso3", 2, "a number or a tensor", sigma)
  end
  local x, rng, requires_grad = drawn("random.igso3", n, given, nil, 3)
  if not is_tensor(sigma) then sigma = make.tensor({ sigma }, { dtype = x:dtype(), device = x:device() }) end
  check(C.mf_random_igso3(x, rng, sigma))
  return finish(x, requires_grad)
end

-- What the three functions below share: the result, the generator, and the streams as a tensor beside it.
local function each(name, rng, streams, packing, rows, given, ...)
  if not ffi.istype(generator_t, rng) then T.bad_argument(name, 1, "a generator (mf.rng)", rng) end
  T.packing_argument(name, 3, packing)
  local dtype, device, requires_grad = T.tensor_options(name, given)
  local box, axes = T.shape(name, packing:total() * rows, ...)
  local x = finish(make.new(device, dtype, box, axes), requires_grad)
  if type(streams) == "table" then streams = make.tensor(streams, { dtype = "int64", device = x:device() }) end
  T.tensor_argument(name, 2, streams)
  return x, streams
end

-- Rows of a residue, and the other options.
local function split_rows(name, given)
  local o = {}
  for key, value in pairs(given or {}) do o[key] = value end
  local rows = T.integer_argument(name .. ": rows", 1, o.rows, 1)
  o.rows = nil
  return rows, o
end

--- Standard normal numbers of a packing, each sequence from a generator of its own: sequence s gets what `mf.randn` draws of
-- stream `rng.stream + streams[s]`, whatever stands beside it. The generator does not move on.
-- @tparam rng rng seed, first stream and counter
-- @tparam table|tensor streams a whole number for each sequence, or int64 (n)
-- @tparam packing packing
-- @tparam number columns
-- @tparam ?table options `dtype`, `device`, `rows` (1) of a residue
-- @treturn tensor (rows N, columns)
-- @usage local noise = mf.random.normal_each(mf.rng(7, 2), { 16, 32, 48 }, batch.packing, 3)
function M.normal_each(rng, streams, packing, columns, given)
  local rows, o = split_rows("random.normal_each", given)
  T.integer_argument("random.normal_each", 4, columns)
  local x, list = each("random.normal_each", rng, streams, packing, rows, o, columns)
  check(C.mf_random_normal_each(x, rng, list, packing))
  return x
end

--- Rotations uniform over SO(3), each sequence of a packing from a generator of its own.
-- @tparam rng rng seed, first stream and counter
-- @tparam table|tensor streams a whole number for each sequence, or int64 (n)
-- @tparam packing packing
-- @tparam ?table options `dtype`, `device`, `rows` (1) of a residue
-- @treturn tensor (rows N, 3, 3)
function M.rotations_each(rng, streams, packing, given)
  local rows, o = split_rows("random.rotations_each", given)
  local x, list = each("random.rotations_each", rng, streams, packing, rows, o, 3, 3)
  check(C.mf_random_rotations_each(x, rng, list, packing))
  return x
end

--- Rotation vectors of IGSO(3), each sequence of a packing from a generator of its own.
-- @tparam rng rng seed, first stream and counter
-- @tparam table|tensor streams a whole number for each sequence, or int64 (n)
-- @tparam packing packing
-- @tparam tensor sigma (N) or (1)
-- @tparam ?table options `dtype`, `device`
-- @treturn tensor (N, 3)
function M.igso3_each(rng, streams, packing, sigma, given)
  T.tensor_argument("random.igso3_each", 4, sigma)
  local x, list = each("random.igso3_each", rng, streams, packing, 1, given, 3)
  check(C.mf_random_igso3_each(x, rng, list, packing, sigma))
  return x
end

F.metatype("mf_rng", {
  __index = methods,
  __tostring = function(rng)
    return ("rng seed %.0f stream %.0f counter %.0f"):format(tonumber(rng.seed), tonumber(rng.stream), tonumber(rng.counter))
  end,
})

return { functions = functions, methods = methods, random = M }
