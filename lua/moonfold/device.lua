--- Devices, their memory, threads, the operator table, the precision of matrix products.
-- @module moonfold.device
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"

local C, ctx, check = F.C, F.ctx, F.check

local M = {}

local memory_box = ffi.new("mf_memory[1]")

--- What a device holds, in bytes: live, peak, storages, allocations, limit, soft_limit.
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
  for i = 0, 15 do
    local code = tonumber(C.MF_CUDA) + i
    if C.mf_tensor_empty(F.out, ctx, code, 0, 0, nil) ~= 0 then break end
    F.adopt_shared(F.out[0])
    list[#list + 1] = "cuda:" .. i
  end
  return list
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

local known = { float32 = true, fp16 = true, bf16 = true, split = true }
local precision = "float32"

local function restore(before, ok, ...)
  precision = before
  if not ok then error((...), 0) end
  return ...
end

--- What attention layers round the operands of their products to: "float32" (not at all), "fp16", "bf16", or "split"
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
    fail("precision: unknown precision '%s' (known: bf16, float32, fp16, split)", tostring(name))
  end
  if fn == nil then
    precision = name
    return precision
  end
  local before = precision
  precision = name
  return restore(before, pcall(fn, ...))
end

return M
