--- Gradients: the backward pass, functions that differentiate in Lua, checkpoints.
-- The record of operations lives in C. When the backward pass reaches a function written in Lua it stops and names
-- it; we compute its gradients here, hand them in, and the pass goes on: C never calls back.
-- @module moonfold.grad
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"
local check_options = require("moonfold.options").options
local scope = require("moonfold.scope").functions.scope

local C, ctx, out, again, check, adopt, is_tensor = F.C, F.ctx, F.out, F.again, F.check, F.adopt, F.is_tensor

local M, methods = {}, {}

-- Functions on the tape: id -> { backward(record, cotangents) -> gradients, ... }.
local recorded, forget_dropped = F.recorded, F.forget_dropped

local id_box = ffi.new("int64_t[1]")
local walk_box = ffi.new("mf_walk *[1]")
local inputs_box = ffi.typeof("const mf_tensor *[?]")
local outputs_box = ffi.typeof("mf_tensor *[?]")

local function restore(before, ok, ...)
  C.mf_grad_enable(ctx, before)
  if not ok then error((...), 0) end
  return ...
end

local function with_grad(enabled, fn, ...)
  return restore(C.mf_grad_enable(ctx, enabled), pcall(fn, ...))
end

--- Calls a function without recording its operations.
-- @tparam function fn
-- @param ... its arguments
-- @return what fn returns
-- @usage local sample = mf.no_grad(function() return model(noise) end)
function M.no_grad(fn, ...)
  T.callable_argument("no_grad", 1, fn)
  return with_grad(0, fn, ...)
end

--- Calls a function recording its operations, also inside `no_grad`.
-- @tparam function fn
-- @param ... its arguments
-- @return what fn returns
-- @usage local slope = mf.enable_grad(function() energy(x):backward(); return x:grad() end)
function M.enable_grad(fn, ...)
  T.callable_argument("enable_grad", 1, fn)
  return with_grad(1, fn, ...)
end

--- Are operations being recorded?
-- @treturn boolean
function M.grad_enabled() return C.mf_grad_enabled(ctx) ~= 0 end

--- Marks a leaf as one whose gradient is wanted.
-- @tparam[opt=true] boolean required
-- @treturn tensor x
function methods.require_grad(x, required)
  T.tensor_argument("require_grad", 0, x)
  check(C.mf_tensor_require_grad(x, required == false and 0 or 1))
  return x
end

--- Will operations on this tensor be recorded?
-- @treturn boolean
function methods.requires_grad(x) return C.mf_tensor_requires_grad(T.tensor_argument("requires_grad", 0, x)) ~= 0 end

--- The gradient that backward passes have added up, or nil.
-- @treturn ?tensor
function methods.grad(x)
  check(C.mf_tensor_grad(out, T.tensor_argument("grad", 0, x)))
  if out[0] == nil then return nil end
  return F.adopt_shared(out[0])
end

--- Forgets the gradient.
-- @treturn tensor x
function methods.zero_grad(x)
  check(C.mf_tensor_set_grad(T.tensor_argument("zero_grad", 0, x), nil))
  return x
end

--- The same values without history.
-- @treturn tensor
function methods.detach(x)
  T.tensor_argument("detach", 0, x)
  local status = C.mf_detach(out, x)
  if status ~= 0 and again(status) then check(C.mf_detach(out, x)) end
  return adopt(out[0])
end

-- Another handle of the same values that no scope frees: what a function keeps for its backward,
-- and the gradients lent to it, which it may release without taking them from others.
local function alias(x)
  local status = C.mf_detach(out, x)
  if status ~= 0 and again(status) then check(C.mf_detach(out, x)) end
  return F.adopt_shared(out[0])
end

-- Our turn: the gradients of one recorded function.
local function hand_back(walk, id, retain)
  local record = recorded[id]
  if not record then fail("backward: the record of a function in Lua is gone (its graph was used before)") end
  local cotangents = {}
  for i = 1, record.outputs do
    local borrowed = C.mf_walk_cotangent(walk, i - 1)
    if borrowed ~= nil then
      cotangents[i] = alias(borrowed)
    end
  end
  local gradients = record.backward(record, cotangents)
  for i, position in ipairs(record.positions) do
    local gradient = gradients[position]
    if gradient ~= nil and not is_tensor(gradient) then
      fail("%s: gradient %d must be a tensor or nil, got %s", record.name, position, T.kind(gradient))
    end
    check(C.mf_walk_give(walk, i - 1, gradient))
  end
  if not retain then
    recorded[id] = nil
    if record.forget then record.forget(record.saved, cotangents, gradients) end
  end
end

local known_options = { retain = false }

local function run_walk(walk, retain)
  while true do
    -- Not to be tried again: a step that failed may have delivered a part of its gradients.
    check(C.mf_walk_step(walk, id_box))
    local id = tonumber(id_box[0])
    if id == 0 then return end
    hand_back(walk, id, retain)
  end
end

--- Adds to every leaf the gradient of this tensor, and frees what was recorded.
-- @tparam ?tensor cotangent where the tensor has more than one element
-- @tparam ?table options `retain`: keep what was recorded for another pass
-- @usage loss:backward()
function methods.backward(x, cotangent, options)
  T.tensor_argument("backward", 0, x)
  if type(cotangent) == "table" and options == nil then cotangent, options = nil, cotangent end
  T.optional_tensor("backward", 1, cotangent)
  local retain = check_options("backward", known_options, options, nil).retain
  local status = C.mf_walk_begin(walk_box, x, cotangent, retain and 1 or 0)
  if status ~= 0 and again(status) then check(C.mf_walk_begin(walk_box, x, cotangent, retain and 1 or 0)) end
  -- A pass inside this one (a checkpoint) uses the box again: the pointer is ours from here.
  local walk = walk_box[0]
  local ok, message = pcall(run_walk, walk, retain)
  C.mf_walk_end(walk)
  forget_dropped()
  if not ok then error(message, 0) end
end

-- Puts a function on the tape. `arguments` may mix tensors and other values; `extra` is one more input or nil.
-- Returns the outputs as tensors that belong to the function.
local function record(name, backward, arguments, n, results, n_results, extra, saved, forget)
  local inputs, positions = inputs_box(n + 1), {}
  for i = 1, n do
    if is_tensor(arguments[i]) then
      positions[#positions + 1] = i
      inputs[#positions - 1] = arguments[i]
    end
  end
  local n_in = #positions
  if extra then
    inputs[n_in] = extra
    n_in = n_in + 1
  end
  local outputs, n_out = outputs_box(n_results + 1), 0
  for i = 1, n_results do
    if is_tensor(results[i]) then
      -- An output of its own, even where the function returned an input.
      results[i] = results[i]:detach()
      outputs[n_out] = results[i]
      n_out = n_out + 1
    end
  end
  forget_dropped()
  local wanted = false
  for i = 0, n_in - 1 do wanted = wanted or C.mf_tensor_requires_grad(inputs[i]) ~= 0 end
  if n_out > 0 and wanted and M.grad_enabled() then
    local status = C.mf_function_record(ctx, id_box, inputs, n_in, outputs, n_out)
    if status ~= 0 and again(status) then check(C.mf_function_record(ctx, id_box, inputs, n_in, outputs, n_out)) end
    recorded[tonumber(id_box[0])] = {
      name = name, backward = backward, outputs = n_out, positions = positions, saved = saved, count = n,
      forget = forget,
    }
  end
  return unpack(results, 1, n_results)
end

local function pack(...) return select("#", ...), { ... } end

local function user_backward(entry, cotangents)
  local _, gradients = pack(with_grad(0, entry.saved.fn, entry.saved.store, unpack(cotangents, 1, entry.outputs)))
  return gradients
end

--- Makes a differentiable function out of two Lua functions.
-- `forward(saved, ...)` computes the outputs and puts into `saved` what backward will need; nothing in it is recorded.
-- `backward(saved, ...)` gets the gradient of each output (nil where none came) and returns the gradient of each
-- argument of forward, nil for those that have none.
-- @tparam table definition `forward`, `backward`, and a `name` for messages
-- @treturn function
-- @usage local double = mf.differentiable {
--          forward = function(_, x) return x * 2 end,
--          backward = function(_, dy) return dy * 2 end,
--        }
function M.differentiable(definition)
  local options = require "moonfold.options"
  local o = check_options("differentiable",
    { forward = options.REQUIRED, backward = options.REQUIRED, name = "a function in Lua" }, definition)
  return function(...)
    local n, arguments = pack(...)
    local store = {}
    local n_results, results = pack(with_grad(0, o.forward, store, ...))
    for key, value in pairs(store) do
      if is_tensor(value) then store[key] = alias(value) end
    end
    return record(o.name, user_backward, arguments, n, results, n_results, nil, { fn = o.backward, store = store })
  end
end

-- What attention gave inside mf.recompute: written down in the first call, read in the second (F.attention_log while fn runs).
local Log = {}
Log.__index = Log

-- What was kept next, or nil while writing.
function Log:next()
  if not self.reading then return nil end
  self.at = self.at + 1
  return self[self.at] or fail("recompute: attention is called more often than the first time")
end

function Log:keep(attended, lse) self[#self + 1] = { alias(attended), alias(lse) } end

local function with_log(log, reading, fn, ...)
  local before = F.attention_log
  local function restore_log(ok, ...)
    F.attention_log = before
    if not ok then error((...), 0) end
    return ...
  end
  if log then log.reading, log.at = reading, 0 end
  F.attention_log = log
  return restore_log(pcall(fn, ...))
end

local function drop_all(list)
  for _, x in pairs(list) do
    if is_tensor(x) then C.mf_tensor_drop(x) end
  end
end

-- Values are let go when the pass has gone by; the collector would come later. All of them are handles of our own.
local function forget_checkpoint(saved, cotangents, gradients)
  drop_all(saved.arguments)
  drop_all(cotangents)
  drop_all(gradients)
  for _, entry in ipairs(saved.log or {}) do drop_all(entry) end
end

local function checkpoint_backward(entry, cotangents)
  local saved = entry.saved
  local rng = C.mf_ctx_rng(ctx)
  local now = { rng.seed, rng.stream, rng.counter }
  local products = C.mf_ctx_product_precision(ctx)
  local gradients = {}
  local function again_forward()
    C.mf_ctx_products(ctx, saved.products)
    rng.seed, rng.stream, rng.counter = saved.seed, saved.stream, saved.counter
    local arguments = {}
    for i = 1, entry.count do
      local argument = saved.arguments[i]
      if is_tensor(argument) then
        argument = argument:detach()
        if saved.required[i] then argument:require_grad() end
      end
      arguments[i] = argument
    end
    local n_results, results = pack(with_log(saved.log, true, saved.fn, unpack(arguments, 1, entry.count)))
    rng.seed, rng.stream, rng.counter = now[1], now[2], now[3]
    C.mf_ctx_products(ctx, products)
    -- One root for all outputs: the derivative of sum(output * cotangent) is the cotangent.
    local roots, at = {}, 0
    for i = 1, n_results do
      if is_tensor(results[i]) then
        at = at + 1
        if cotangents[at] and results[i]:requires_grad() then roots[#roots + 1] = { results[i], cotangents[at] } end
      end
    end
    if #roots == 1 then
      roots[1][1]:backward(roots[1][2])
    elseif #roots > 1 then
      local total
      for _, root in ipairs(roots) do
        local part = (root[1] * root[2]):sum()
        total = total and total + part or part
      end
      total:backward()
    end
    for i = 1, entry.count do
      if is_tensor(arguments[i]) then
        gradients[i] = arguments[i]:grad()
        arguments[i]:zero_grad()
      end
    end
  end
  local ok, message = pcall(with_grad, 1, scope, again_forward)
  if not ok then
    rng.seed, rng.stream, rng.counter = now[1], now[2], now[3]
    C.mf_ctx_products(ctx, products)
    error(message, 0)
  end
  return gradients
end

-- A checkpoint inside a recompute leaves the log to that one.
local function call(log, fn, ...)
  if log then return with_log(log, false, fn, ...) end
  return fn(...)
end

local function recorded_call(name, log, fn, ...)
  if type(fn) ~= "function" and not (getmetatable(fn) or {}).__call then T.bad_argument(name, 1, "a function", fn) end
  if not M.grad_enabled() then return fn(...) end
  local rng = C.mf_ctx_rng(ctx)
  local n, arguments = pack(...)
  local kept, required = {}, {}
  for i = 1, n do
    kept[i] = arguments[i]
    if is_tensor(kept[i]) then
      required[i] = C.mf_tensor_requires_grad(kept[i]) ~= 0
      kept[i] = alias(kept[i])
    end
  end
  local saved = {
    fn = fn, arguments = kept, required = required, log = log,
    seed = rng.seed, stream = rng.stream, counter = rng.counter, products = C.mf_ctx_product_precision(ctx),
  }
  local n_results, results = pack(with_grad(0, scope, call, log, fn, ...))
  -- What fn captures may require gradients where its arguments do not: one input that always does puts it on the tape.
  local anchor = require("moonfold.make").zeros({}, { requires_grad = true })
  return record(name, checkpoint_backward, arguments, n, results, n_results, anchor, saved, forget_checkpoint)
end

--- Calls a function without keeping what its backward needs: the backward pass calls it again.
-- Each call is a scope (mf.scope): what fn makes and does not return is freed at its end.
-- Random draws from the context's generator repeat. Parameters that fn captures get their gradients too.
-- @tparam function fn
-- @param ... its arguments
-- @return what fn returns
-- @usage local y = mf.checkpoint(function(x) return block(x) end, x)
function M.checkpoint(fn, ...) return recorded_call("checkpoint", nil, fn, ...) end

--- The same, but what attention gives inside (mf.attention, mf.flash_ipa) is kept: nothing quadratic is computed twice.
-- @tparam function fn calls attention as often, and in the same order, whenever it is called with the same arguments
-- @param ... its arguments
-- @return what fn returns
-- @usage local y = mf.recompute(function(x) return block(x) end, x)
function M.recompute(fn, ...)
  if F.attention_log then return fn(...) end       -- inside another one, which does it all
  return recorded_call("recompute", setmetatable({}, Log), fn, ...)
end

return { functions = M, methods = methods }
