-- The program is driven through pipes, as a user's shell would.
local build = os.getenv("MOONFOLD_BUILD") or "build"
local program = build .. "/moonfold"

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

local function read(path)
  local file = assert(io.open(path, "r"))
  local text = file:read("*a")
  file:close()
  os.remove(path)
  return text
end

-- What the program prints on both streams, and its status.
local function run(arguments, input)
  local base = os.tmpname()
  write(base, input or "")
  local command = ("LUA_PATH='lua/?.lua;lua/?/init.lua;;' %s %s < %s > %s.out 2> %s.err; echo $? > %s.rc")
    :format(program, arguments, base, base, base, base)
  os.execute(command)
  os.remove(base)
  return read(base .. ".out"), read(base .. ".err"), tonumber(read(base .. ".rc"))
end

describe("the prompt in a pipe", function()
  it("prints values and nothing else", function()
    local out, err, status = run("", "x = mf.ones(2, 2)\nx * 2\n1 + 1\nx:sum():item(), 'two'\n")
    assert.equal("tensor 2x2 float32 cpu\n  2  2\n  2  2\n2\n4\ntwo\n", out)
    assert.equal("", err)
    assert.equal(0, status)
  end)

  it("is muted by a semicolon, and keeps the last value as _", function()
    assert.equal("9\n", (run("", "3 * 3;\n_\n")))
  end)

  it("reads on where a statement is not complete", function()
    assert.equal("1\n2\n", (run("", "for i = 1, 2 do\n  print(i)\nend\n")))
  end)

  it("goes on after an error and says so at the end", function()
    local out, err, status = run("", "nothing.here\nmf.zeros(2):sum(3)\nmf.zeros(2) +\n+ 1\n7\n")
    assert.equal("7\n", out)
    assert.truthy(err:find("attempt to index", 1, true))
    assert.truthy(err:find("axis 3", 1, true) or err:find("sum", 1, true))
    assert.equal(1, status)
    local _, unfinished, code = run("", "for i = 1, 2 do\n")
    assert.truthy(unfinished:find("<eof>", 1, true))
    assert.equal(1, code)
  end)

  it("lists variables with shapes, types and bytes", function()
    local out = run("", "x = mf.zeros(4, 3)\nn = 7\nwho()\n")
    assert.truthy(out:find("x  tensor  4x3  float32 cpu  48 B", 1, true))
    assert.truthy(out:find("n  number  7", 1, true))
    assert.is_nil(out:find("who", 1, true))
  end)

  it("shows help on what a file returns by the name of the file: layers, models, terms", function()
    local help = require "moonfold.help"
    for _, name in ipairs { "mf.nn.ipa", "mf.nn.linear", "mf.models.denoiser", "mf.nn.term.points" } do
      assert.equal(name .. " { ... }", help.about(name):match("^[^\n]*"))
    end
  end)

  it("shows help from the comments, and names the nearest", function()
    local out = run("", "? mf.zeros\n? x:softmax\n? softmaks\n? adamw\n")
    assert.truthy(out:find("mf.zeros(...)\n\n  A tensor of zeros.", 1, true))
    assert.truthy(out:find("x:softmax(axis)", 1, true))
    assert.truthy(out:find("did you mean 'softmax'?", 1, true))
    assert.truthy(out:find("mf.optim.adamw(params, given)", 1, true))
  end)

  it("leaves the globals alone", function()
    local out = run("", table.concat({
      "rawget(_G, 'mf'), rawget(_G, 'who'), rawget(_G, '_')",
      "getmetatable(_G)",
    }, "\n") .. "\n")
    assert.equal("nil\nnil\nnil\nnil\n", out)
  end)

  it("prints tables two levels deep", function()
    assert.equal("{ 1, 2, a = \"b\" }\n", (run("", "{ 1, 2, a = 'b' }\n")))
    assert.truthy((run("", "{ { { { 1 } } } }\n")):find("{ ... }", 1, true))
    assert.truthy((run("", "t = {}; t.t = t; \nt\n")):find("itself", 1, true))
  end)
end)

describe("the program", function()
  it("runs scripts with arguments", function()
    local path = os.tmpname()
    write(path, "local mf = require 'moonfold'\nprint(arg[0] ~= nil, mf.ones(3):sum():item(), ...)\n")
    local out, err, status = run(path .. " first second")
    os.remove(path)
    assert.equal("", err)
    assert.equal("true\t3\tfirst\tsecond\n", out)
    assert.equal(0, status)
  end)

  it("reports a script's error with its line and fails", function()
    local path = os.tmpname()
    write(path, "local mf = require 'moonfold'\nlocal x = mf.ones(3)\nlocal y = x:sum(5)\n")
    local _, err, status = run(path)
    os.remove(path)
    assert.truthy(err:find(path .. ":3: sum", 1, true))
    assert.equal(1, status)
    local _, missing, code = run("/nowhere/none.lua")
    assert.truthy(missing:find("cannot open", 1, true))
    assert.equal(1, code)
  end)

  it("runs code from the command line", function()
    assert.equal("6\ta\n", (run("-e 'print(mf.full({ 3 }, 2):sum():item(), ...)' a")))
    local _, err, status = run("-e 'x ='")
    assert.truthy(err:find("-e:1:", 1, true))
    assert.equal(1, status)
  end)

  it("tells about itself", function()
    local info = run("--info")
    for _, word in ipairs { "moonfold", "luajit", "library", "devices", "threads", "cuda" } do
      assert.truthy(info:find(word, 1, true), word)
    end
    assert.truthy((run("--help")):find("usage: moonfold", 1, true))
    assert.truthy((run("--version")):find("^moonfold %d"))
    local _, err, status = run("--nonsense")
    assert.truthy(err:find("unknown option '--nonsense'", 1, true))
    assert.equal(2, status)
  end)

  it("is interrupted without losing the session", function()
    local base = os.tmpname()
    os.remove(base)
    os.execute(("mkfifo %s.in; LUA_PATH='lua/?.lua;lua/?/init.lua;;' %s < %s.in > %s.out 2> %s.err & echo $! > %s.pid")
      :format(base, program, base, base, base, base))
    local input = assert(io.open(base .. ".in", "w"))
    input:setvbuf("no")
    input:write("print('ready')\nwhile true do end\n")
    local function wait_for(path, text)
      for _ = 1, 100 do
        local file = io.open(path, "r")
        local found = file and file:read("*a"):find(text, 1, true)
        if file then file:close() end
        if found then return true end
        os.execute("sleep 0.05")
      end
    end
    assert.is_true(wait_for(base .. ".out", "ready"))
    os.execute("sleep 0.3")
    local pid = tonumber(read(base .. ".pid"))
    os.execute("kill -INT " .. pid)
    assert.is_true(wait_for(base .. ".err", "interrupted"))
    input:write("print('alive')\n")
    input:close()
    assert.is_true(wait_for(base .. ".out", "alive"))
    for _, ending in ipairs { ".in", ".out", ".err" } do os.remove(base .. ending) end
  end)
end)

describe("completion", function()
  local complete = require("moonfold.repl.complete").complete
  local mf = require "moonfold"

  local function at(line, environment, folder)
    local first = #line - #line:match("[%w_.:/-]*$")
    local globals = setmetatable(environment or { mf = mf }, { __index = _G })
    return complete(globals, line, first, #line, function() return folder or {} end)
  end

  it("offers globals, nested names and methods", function()
    assert.same({ "mf.zeros" }, at("y = mf.zer"))
    assert.same({ "string.format" }, at("string.form"))
    assert.same({ "x:sub", "x:sum" }, at("x:su", { x = mf.ones(1) }))
    assert.same({ "mf.nn.linear" }, at("mf.nn.line"))
    assert.same({ "a.b.inner" }, at("a.b.i", { a = { b = { inner = 1 } } }))
    assert.same({}, at("nothing.at.all"))
    assert.same({ "x:lengths", "x:longest" }, at("x:l", { x = mf.packing { 1 } }))
  end)

  it("offers file names inside quotes", function()
    assert.same({ "data/train.pdb" }, at("mf.load(\"data/tr", nil, { "train.pdb", "other", ".tr" }))
  end)
end)
