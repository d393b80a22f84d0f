--- The FFI line: the only file that declares C and loads the library.
-- `C` is the library, `ctx` the context. A function of the library leaves its result in the box `out`; `adopt` makes
-- the owning handle of it, a reference whose finalizer is a C function. A tensor *is* that handle.
--
--     local status = C.mf_exp(out, x)
--     if status ~= 0 and again(status) then check(C.mf_exp(out, x)) end
--     return adopt(out[0])
--
-- Memory has three valves: scopes and release (moonfold.scope), the soft limit polled in `adopt`, and `again`, which
-- collects and lets an allocation that failed be tried once more.
-- @module moonfold.ffi
local ffi = require "ffi"
local fail = require "moonfold.fail"

-- C types keep their metatables as long as the process runs, so when a test runner empties package.loaded the
-- second require has to meet the modules of the first.
local registry = debug.getregistry()
if registry["moonfold.ffi"] then
  local first = registry["moonfold.ffi"]
  for name, module in pairs(first.modules) do package.loaded[name] = package.loaded[name] or module end
  return first
end

local M = { modules = {}, metatypes = {} }

local here = debug.getinfo(1, "S").source:match("^@(.*)ffi%.lua$") or ""

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

local function first_of(candidates)
  for _, path in ipairs(candidates) do
    if exists(path) then return path end
  end
end

-- Source tree; PREFIX/share/moonfold/moonfold/; PREFIX/share/lua/5.1/moonfold/.
local header = os.getenv("MOONFOLD_HEADER")
  or first_of { here .. "../../core/moonfold.h", here .. "moonfold.h", here .. "../../../include/moonfold.h",
    here .. "../../../../include/moonfold.h" }
local library = os.getenv("MOONFOLD_LIBRARY")
  or first_of { here .. "../../build/libmoonfold.so", here .. "libmoonfold.so", here .. "../../../lib/libmoonfold.so",
    here .. "../../../../lib/libmoonfold.so" }
  or "moonfold"

local function read_header()
  local file, reason = io.open(header or "moonfold.h", "rb")
  if not file then
    error(("moonfold: the header is missing (%s); set MOONFOLD_HEADER to the path of moonfold.h"):format(reason), 0)
  end
  local lines = {}
  for line in file:lines() do
    lines[#lines + 1] = line:sub(1, 1) == "#" and "" or line
  end
  file:close()
  return table.concat(lines, "\n")
end

ffi.cdef(read_header())

-- Under plain luajit the library brings OpenMP's runtime with it, which reads this once, when it is loaded: on a shared
-- machine spinning workers starve whoever has the next piece of work (measured in core/program/main.c).
local function keep_workers_from_spinning()
  if os.getenv "GOMP_SPINCOUNT" or os.getenv "OMP_WAIT_POLICY" then return end
  ffi.cdef "int setenv(const char *name, const char *value, int overwrite);"
  ffi.C.setenv("GOMP_SPINCOUNT", "1000", 1)
end
keep_workers_from_spinning()

local function load_library()
  local ok, loaded = pcall(ffi.load, library)
  if ok then return loaded end
  error(("moonfold: %s (run `make`, or set MOONFOLD_LIBRARY to the path of libmoonfold.so)"):format(loaded), 0)
end

--- The library. Call `C.mf_add`, never a cached copy of it: the namespace is what LuaJIT resolves once.
M.C = load_library()
local C = M.C
--- The paths that were used.
M.library, M.header = library, header

local MF_ENOMEM = C.MF_ENOMEM

local function error_text() return ffi.string(C.mf_error_text()) end

local ctx
do
  local box = ffi.new("mf_ctx *[1]")
  if C.mf_ctx_open(box) ~= 0 then error("moonfold: " .. error_text(), 0) end
  -- Finalizers at exit run in any order; the library keeps a released context until its last tensor goes.
  ctx = ffi.gc(box[0], C.mf_ctx_release)
end
--- The context that every tensor of this process belongs to.
M.ctx = ctx

--- Boxes for results: `mf_tensor *[1]` each.
M.out = ffi.new("mf_tensor *[1]")
M.out2 = ffi.new("mf_tensor *[1]")
M.out3 = ffi.new("mf_tensor *[1]")

-- A handle is a reference (mf_tensor &), not a pointer: the compiler of LuaJIT takes a pointer plus a number for
-- pointer arithmetic where the interpreter takes the metamethod, and goes astray.
local tensor_t = ffi.typeof("mf_tensor &")
local packing_t = ffi.typeof("mf_packing *")
M.tensor_t, M.packing_t = tensor_t, packing_t

--- Is this a tensor?
function M.is_tensor(x) return ffi.istype(tensor_t, x) end

--- Is this a packing?
function M.is_packing(x) return ffi.istype(packing_t, x) end

--- The largest live tensors as lines of text.
-- @treturn string
function M.memory_report()
  local bytes = 4096
  local text = ffi.new("char[?]", bytes)
  C.mf_memory_report(ctx, text, bytes)
  return ffi.string(text)
end

--- Functions in Lua on the tape, by the id that C knows them by (moonfold.grad fills it).
M.recorded = {}

--- Forgets functions whose graph is gone, and with them what they saved.
function M.forget_dropped()
  local id = tonumber(C.mf_function_dropped(ctx))
  while id ~= 0 do
    M.recorded[id] = nil
    id = tonumber(C.mf_function_dropped(ctx))
  end
end

--- Releases every tensor that nobody reaches any more.
-- The first collection releases handles; what functions had saved goes with the second.
function M.collect()
  collectgarbage()
  if next(M.recorded) then
    M.forget_dropped()
    collectgarbage()
  end
end
local collect = M.collect

local tried = false

--- After a failed call: true when it is worth calling again (memory ran out and the collector has now run), else
-- raises the library's message at the user's line.
-- @tparam number status
function M.again(status)
  if status == MF_ENOMEM and not tried then
    tried = true
    collect()
    return true
  end
  M.check(status)
  return false
end

--- Raises the library's message at the user's line unless the status is MF_OK.
-- @tparam number status
function M.check(status)
  if status == 0 then
    tried = false
    return
  end
  tried = false
  local message = error_text()
  if status == MF_ENOMEM then
    local report = M.memory_report()
    if report ~= "" then message = message .. "\n" .. report end
  end
  fail("%s", message)
end

-- Collects because the library says so. A function of its own, so that the compiled path of adopt stays a call away.
local function relieve()
  collect()
  C.mf_memory_collected(ctx)
end

--- What adoption appends handles to while a scope is open (moonfold.scope owns it). The list is weak, so its holes
-- make # useless: `count` numbers the handles of the process.
M.recorder = { list = nil, kept = nil, count = 0 }
local recorder = M.recorder

--- The owning handle of a tensor that the library returned.
-- @param pointer read from a box; the cdata that is returned carries the finalizer
-- @treturn tensor
function M.adopt(pointer)
  local x = ffi.gc(ffi.cast(tensor_t, pointer), C.mf_tensor_release)
  if C.mf_memory_pressure(ctx) ~= 0 then relieve() end
  local list = recorder.list
  if list then
    local at = recorder.count + 1
    list[at], recorder.count = x, at
  end
  return x
end

--- The owning handle of a tensor that somebody else holds as well (a leaf's gradient): no scope frees it.
-- @param pointer a reference of our own, read from a box
-- @treturn tensor
function M.adopt_shared(pointer) return ffi.gc(ffi.cast(tensor_t, pointer), C.mf_tensor_release) end

--- The owning handle of a packing.
function M.adopt_packing(pointer) return ffi.gc(pointer, C.mf_packing_release) end

--- Gives a C type its methods; the first call of the process wins.
-- @tparam string name of the struct
-- @tparam table metatable
function M.metatype(name, metatable)
  if not M.metatypes[name] then
    ffi.metatype(name, metatable)
    M.metatypes[name] = metatable
  end
  return M.metatypes[name]
end

--- Remembers the modules loaded so far, for a second require after package.loaded was emptied.
function M.anchor()
  for name, module in pairs(package.loaded) do
    if name == "moonfold" or name:sub(1, 9) == "moonfold." then M.modules[name] = module end
  end
end

registry["moonfold.ffi"] = M
return M
