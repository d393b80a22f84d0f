local ffi = require "ffi"
local mf = require "moonfold"
local F = require "moonfold.ffi"
local support = require "spec.support"

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

-- The header without comments.
local function header() return (read(F.header):gsub("/%*.-%*/", "")) end

-- Struct name -> field names; enum constants.
local function declared()
  local structs, constants = {}, {}
  for body, name in header():gmatch("typedef struct [%w_]+ (%b{}) ([%w_]+);") do
    local fields = {}
    for declaration in body:sub(2, -2):gmatch("[^;]+") do
      local names = declaration:gsub("%f[%w_]const%f[^%w_]", ""):gsub("%b[]", ""):gsub("^%s*[%w_]+", "")
      for field in names:gmatch("[%w_]+") do fields[#fields + 1] = field end
    end
    structs[name] = fields
  end
  for body in header():gmatch("enum (%b{})") do
    for constant in body:gmatch("(MF_[%w_]+)") do constants[#constants + 1] = constant end
  end
  return structs, constants
end

describe("the FFI's view of the header", function()
  it("agrees with a C compiler on every size, offset and constant", function()
    local structs, constants = declared()
    assert.truthy(structs.mf_memory and structs.mf_adam_params and structs.mf_atom_info)
    assert.is_true(#constants > 40)
    local program, expected = { "#include <stdio.h>\n#include \"moonfold.h\"\nint main(void) {" }, {}
    local function ask(name, expression, value)
      program[#program + 1] = ("  printf(\"%s %%lld\\n\", (long long)(%s));"):format(name, expression)
      expected[name] = tonumber(value)
    end
    for name, fields in pairs(structs) do
      ask(name, ("sizeof(%s)"):format(name), ffi.sizeof(name))
      for _, field in ipairs(fields) do
        ask(name .. "." .. field, ("offsetof(%s, %s)"):format(name, field), ffi.offsetof(name, field))
      end
    end
    for _, constant in ipairs(constants) do ask(constant, constant, F.C[constant]) end
    program[#program + 1] = "  return 0;\n}"
    local base = os.tmpname()
    local file = assert(io.open(base .. ".c", "w"))
    file:write(table.concat(program, "\n"))
    file:close()
    local folder = F.header:match("^(.*)/[^/]*$") or "."
    local status = os.execute(("%s -std=c11 -I%s -o %s %s.c"):format(os.getenv("CC") or "cc", folder, base, base))
    assert.is_true(status == 0 or status == true)
    local pipe, seen = io.popen(base), 0
    for line in pipe:lines() do
      local name, value = line:match("^(%S+) (%-?%d+)$")
      assert.equal(expected[name], tonumber(value), name)
      seen = seen + 1
    end
    pipe:close()
    os.remove(base)
    os.remove(base .. ".c")
    assert.equal(#program - 2, seen)
  end)

  it("finds every declared function in the library", function()
    local count = 0
    for name in header():gmatch("[%s*](mf_[%w_]+)%(") do
      assert.is_true(pcall(function() return F.C[name] end), name)
      count = count + 1
    end
    assert.is_true(count > 150)
  end)

  it("keeps arithmetic with numbers right in compiled loops", function()
    -- With pointers for handles LuaJIT compiles x + 1 as pointer arithmetic: see moonfold.ffi.
    local x, wrong = mf.tensor(1.5), 0
    for i = 1, 500 do
      if (x:square() + 1):item() ~= 3.25 or (i - x):item() ~= i - 1.5 or (x - 1):item() ~= 0.5 or (1 + x):item() ~= 2.5 then
        wrong = wrong + 1
      end
    end
    assert.equal(0, wrong)
  end)

  it("survives a second require after package.loaded was emptied", function()
    local saved = {}
    for name, module in pairs(package.loaded) do
      if name == "moonfold" or name:sub(1, 9) == "moonfold." then saved[name] = module end
    end
    for name in pairs(saved) do package.loaded[name] = nil end
    local ok, again = pcall(require, "moonfold")
    local sum = ok and (again.ones(2) + again.ones(2)):sum():item()
    for name, module in pairs(saved) do package.loaded[name] = module end
    assert.is_true(ok, again)
    assert.equal(4, sum)
  end)
end)

describe("a device", function()
  it("tells which hardware it is", function()
    local file = io.open "/proc/cpuinfo"
    local model = file and file:read("*a"):match "model name%s*: ([^\n]*)"
    if file then file:close() end
    assert.equal(model or "cpu", mf.hardware())
    assert.equal("null", mf.hardware "null")
    local ok, message = pcall(mf.hardware, "tpu")
    assert.is_false(ok)
    assert.truthy(message:find "ffi_spec.lua:%d+: hardware: unknown device 'tpu'", message)
  end)
end)

describe("memory", function()
  it("collects when the library asks, so that dropped tensors do not pile up", function()
    collectgarbage()
    local F_ctx, C = F.ctx, F.C
    local before = mf.memory()
    mf.reset_peak()
    local ceiling = math.max(before.soft_limit, 2 ^ 20) * 1.5
    local bytes = 4 * 2 ^ 20
    local rounds = math.ceil(4 * ceiling / bytes)
    for _ = 1, math.min(rounds, 2000) do mf.empty(bytes / 4) end
    assert.is_true(C.mf_memory_pressure(F_ctx) == 0 or mf.memory().live < ceiling + bytes)
    assert.is_true(mf.memory().peak <= ceiling + bytes)
  end)

  it("collects and tries again when an allocation fails", function()
    collectgarbage()
    local live = mf.memory().live
    mf.memory_limit(live + 3 * 2 ^ 20)
    local ok, message = pcall(function()
      -- Each is garbage at once; together they are far over the limit.
      for _ = 1, 20 do mf.zeros(2 ^ 18) end
    end)
    mf.memory_limit(0)
    assert.is_true(ok, message)
  end)

  it("lists the largest tensors when there is no more memory", function()
    collectgarbage()
    mf.memory_limit(mf.memory().live + 2 ^ 20)
    local held = mf.zeros(1000, 100)
    local ok, message = pcall(function()
      local x = mf.zeros(2 ^ 20)
      return x
    end)
    mf.memory_limit(0)
    assert.is_false(ok)
    assert.truthy(message:find("ffi_spec.lua:%d+: .*out of memory"))
    assert.truthy(message:find("1000x100", 1, true))
    held:release()
  end)

  it("leaves nothing behind when any allocation of an expression fails", function()
    local x, w = support.random.normal(5, 3), support.random.normal(4, 3)
    x:require_grad()
    local function work()
      local loss = ((x:linear(w):softmax(2) + 1):log() * 2):sum()
      loss:backward()
      x:zero_grad()
    end
    work()
    for nth = 1, 400 do
      support.no_leaks(function()
        F.C.mf_memory_fail_at(F.ctx, nth)
        pcall(work)
        F.C.mf_memory_fail_at(F.ctx, 0)
        x:zero_grad()
      end)
    end
  end)
end)
