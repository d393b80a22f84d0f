--- Devices, their memory, threads, the operator table, the precision of matrix products.
-- @module moonfold.device
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"

local C, ctx, check = F.C, F.ctx, F.check

local M = {}

local memory_box = ffi.new("mf_memory[1]")

--- What a device holds, in bytes: live, peak, storages, allocations, limit, soft_limit; and of a GPU what it keeps from the
-- system (reserved) and has in all (total).
-- @tparam[opt="cpu"] string device
-- @treturn table
-- @usage print(mf.memory().peak)
function M.memory(device)
  F.forget_dropped()
  check(C.mf_memory_get(memory_box, ctx, T.device("memory", device or "cpu")))
  local m = memory_box[0]
  return {
    live = tonumber(m.live), peak = tonumber(m.peak), storages = tonumber(m.storages),
    allocations = tonumber(m.allocations), limit = tonumber(m.limit), soft_limit = tonumber(m.soft_limit),
    reserved = tonumber(m.reserved), total = tonumber(m.total),
  }
end

--- Begins a new measurement of the peak.
-- @tparam[opt="cpu"] string device
function M.reset_peak(device) check(C.mf_memory_reset_peak(ctx, T.device("reset_peak", device or "cpu"))) end

--- Sets the most that a device may hold; beyond it, allocations fail. 0 for no limit.
-- @tparam number bytes
-- @tparam[opt="cpu"] string device
function M.memory_limit(bytes, device)
  T.integer_argument("memory_limit", 1, bytes)
  check(C.mf_memory_limit(ctx, T.device("memory_limit", device or "cpu"), bytes))
end

--- The largest live tensors, as text.
-- @treturn string
function M.memory_report() return F.memory_report() end

--- The devices of this machine.
-- @treturn table of names: "cpu", "null", and "cuda:0" onward where GPUs can be used
function M.devices()
  local list = { "cpu", "null" }
  for i = 0, C.mf_cuda_count() - 1 do list[#list + 1] = "cuda:" .. i end
  return list
end

--- The GPUs that can be used, or why there are none.
-- @treturn ?table names: "cuda:0", ...
-- @treturn ?string the reason, one line
-- @usage local device = mf.cuda() and "cuda" or "cpu"
function M.cuda()
  local list, count = {}, C.mf_cuda_count()
  if count == 0 then return nil, (ffi.string(C.mf_error_text()):gsub("^cuda: ", "")) end
  for i = 0, count - 1 do list[i + 1] = "cuda:" .. i end
  return list
end

local text_box = ffi.new "const char *[1]"

--- What the machine calls a device: "NVIDIA H100 80GB HBM3".
-- @tparam[opt="cpu"] string device
-- @treturn string
-- @usage print(mf.hardware())
function M.hardware(device)
  check(C.mf_device_hardware(text_box, ctx, T.device("hardware", device or "cpu")))
  return ffi.string(text_box[0])
end

--- Waits until a device has done all that it was asked, and raises what it found to be wrong on the way.
-- Work on a GPU runs behind the program; reading a value waits by itself.
-- @tparam[opt="cuda"] string device
function M.synchronize(device) check(C.mf_synchronize(ctx, T.device("synchronize", device or "cuda"))) end

--- Gives memory that a device keeps for later back to the system.
-- @tparam[opt="cuda"] string device
function M.flush(device)
  collectgarbage()
  check(C.mf_memory_flush(ctx, T.device("flush", device or "cuda")))
end

--- How many CPU threads kernels use; sets it first when a number is given (0 for all cores).
-- @tparam ?number n
-- @treturn number
function M.threads(n)
  if n ~= nil then check(C.mf_ctx_threads(ctx, T.integer_argument("threads", 1, n, nil, T.INT_MAX))) end
  return C.mf_ctx_thread_count(ctx)
end

--- The operators: a table of { name, differentiable, keeps }, `keeps` saying what each holds for backward.
-- @treturn table
function M.operators()
  local list = {}
  for i = 0, C.mf_op_count() - 1 do
    list[i + 1] = {
      name = ffi.string(C.mf_op_name(i)),
      differentiable = C.mf_op_differentiable(i) ~= 0,
      keeps = ffi.string(C.mf_op_keeps(i)),
    }
  end
  return list
end

--- The version of the library.
-- @treturn string
function M.version() return ffi.string(C.mf_version()) end

local known = { float32 = true, tf32 = true, fp16 = true, bf16 = true, split = true }
local precision = "float32"

local function restore(before, ok, ...)
  precision = before
  if not ok then error((...), 0) end
  return ...
end

--- What attention layers round the operands of their products to: "float32" (not at all), "tf32", "fp16", "bf16", or "split"
-- (fp16, points in a high and a low half). Without arguments it tells; with a name it sets, for the calls of `fn` only
-- when a function is given.
-- @tparam ?string name
-- @tparam ?function fn
-- @param ... arguments of fn
-- @return the precision, or what fn returns
-- @usage mf.precision("bf16", function() return model(batch) end)
function M.precision(name, fn, ...)
  if name == nil then return precision end
  if not known[name] then
    fail("precision: unknown precision '%s' (known: bf16, float32, fp16, split, tf32)", tostring(name))
  end
  if fn == nil then
    precision = name
    return precision
  end
  local before = precision
  precision = name
  return restore(before, pcall(fn, ...))
end

local products = { float32 = C.MF_EXACT, tf32 = C.MF_TF32, bf16 = C.MF_BF16 }
local product_name = { [tonumber(C.MF_EXACT)] = "float32", [tonumber(C.MF_TF32)] = "tf32", [tonumber(C.MF_BF16)] = "bf16" }

local function products_again(before, ok, ...)
  C.mf_ctx_products(ctx, before)
  if not ok then error((...), 0) end
  return ...
end

--- What matrix products of float32 tensors (`matmul`, `linear` and their gradients) round their operands to: "float32" (not at
-- all), "tf32" (10 bits after the first, what tensor cores of GPUs read) or "bf16" (7 bits); sums are in float32 always. Matrices
-- with a side under 16 are never rounded: rotations, coordinates and the heads that make them stay exact. A gradient is taken in
-- the precision of its forward product. Without arguments it tells; with a name it sets, for the calls of `fn` only when a
-- function is given.
-- @tparam ?string name
-- @tparam ?function fn
-- @param ... arguments of fn
-- @return the precision, or what fn returns
-- @usage mf.products "tf32"
function M.products(name, fn, ...)
  local before = C.mf_ctx_product_precision(ctx)
  if name == nil then return product_name[before] end
  local code = products[name]
  if not code then fail("products: unknown precision '%s' (known: bf16, float32, tf32)", tostring(name)) end
  check(C.mf_ctx_products(ctx, code))
  if fn == nil then return name end
  return products_again(before, pcall(fn, ...))
end

local function deterministic_again(before, ok, ...)
  C.mf_deterministic(ctx, before)
  if not ok then error((...), 0) end
  return ...
end

--- Whether only kernels that give the same bits every time are used. On a GPU gradients of attention and of indexing are
-- otherwise added in the order in which blocks happen to finish. Without arguments it tells; with one it sets, for the calls
-- of `fn` only when a function is given.
-- @tparam ?boolean enabled
-- @tparam ?function fn
-- @param ... arguments of fn
-- @return the setting, or what fn returns
-- @usage mf.deterministic(true)
function M.deterministic(enabled, fn, ...)
  if enabled == nil then return C.mf_is_deterministic(ctx) ~= 0 end
  local before = C.mf_deterministic(ctx, enabled and 1 or 0)
  if fn == nil then return enabled and true or false end
  return deterministic_again(before, pcall(fn, ...))
end

return M
