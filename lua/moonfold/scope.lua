--- Freeing tensors at known places.
-- The collector frees what is unreachable when it comes by; a scope frees at its end, `release` at once.
-- @module moonfold.scope
local F = require "moonfold.ffi"
local T = require "moonfold.types"

local C, is_tensor, recorder = F.C, F.is_tensor, F.recorder

local M, methods = {}, {}

-- Weak: what the collector frees before the scope ends needs no freeing by us.
local weak = { __mode = "v" }

local function spare(spared, value, deep)
  if is_tensor(value) then
    spared[tonumber(C.mf_tensor_id(value))] = true
  elseif deep and type(value) == "table" then
    for _, inner in pairs(value) do spare(spared, inner, false) end
  end
end

local function close(list, kept, outer, outer_kept, ok, ...)
  recorder.list, recorder.kept = outer, outer_kept
  local spared, n = {}, select("#", ...)
  if ok then
    for i = 1, n do spare(spared, (select(i, ...)), true) end
  end
  for _, x in pairs(list) do
    local id = tonumber(C.mf_tensor_id(x))
    if spared[id] then
      -- What leaves an inner scope belongs to the one around it.
      if outer then
        local at = recorder.count + 1
        outer[at], recorder.count = x, at
      end
    elseif not kept[id] then
      C.mf_tensor_drop(x)
    end
  end
  if not ok then error((...), 0) end
  return ...
end

--- Calls a function and frees the values of every tensor made inside, except those it returns (also in tables, one
-- level deep) and those it kept. Leaves' gradients and what a recorded result needs for backward stay.
-- @tparam function fn
-- @param ... its arguments
-- @return what fn returns
-- @usage local loss = mf.scope(function() return model(batch):mean() end)
function M.scope(fn, ...)
  T.callable_argument("scope", 1, fn)
  local outer, outer_kept, list, kept = recorder.list, recorder.kept, setmetatable({}, weak), {}
  recorder.list, recorder.kept = list, kept
  return close(list, kept, outer, outer_kept, pcall(fn, ...))
end

--- Frees the values now; using the tensor afterwards is an error that says so.
function methods.release(x)
  C.mf_tensor_drop(T.tensor_argument("release", 0, x))
end

--- Was this tensor released, by hand or by a scope?
-- @treturn boolean
function methods.is_released(x) return C.mf_tensor_dropped(T.tensor_argument("is_released", 0, x)) ~= 0 end

--- Lets a tensor survive the scope it was made in.
-- @treturn tensor x
function methods.keep(x)
  T.tensor_argument("keep", 0, x)
  if recorder.kept then recorder.kept[tonumber(C.mf_tensor_id(x))] = true end
  return x
end

return { functions = M, methods = methods }
