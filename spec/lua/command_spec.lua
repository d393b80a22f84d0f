-- Command lines: types, defaults, help, and errors that name the nearest key. A refusal ends the program, so those are
-- read from a child process.
local command = require "moonfold.command"
local files = require "moonfold.files"
local options = require "moonfold.options"

local program = {
  name = "toy", summary = "a program of this spec.",
  { "data", "path", command.REQUIRED, "where from" },
  { "steps", "integer", 10, "how many" },
  { "lr", "number", 0.5, "how fast" },
  { "dry_run", "boolean", false, "or not" },
  { "lengths", "integers", { 1, 2 }, "of each" },
  { "model.blocks", "integer", 4, "of the trunk" },
  { "note", "string", options.OPTIONAL, "free" },
}

local function parse(...) return command.parse({ ... }, program) end

-- Runs the same program as a child; returns what it wrote.
local function child(words)
  local name = os.tmpname()
  local path = name .. ".lua"
  os.remove(name)
  files.replace(path, [[
    local command, options = require "moonfold.command", require "moonfold.options"
    local o = command.parse(arg, { name = "toy", summary = "a program of this spec.",
      { "data", "path", command.REQUIRED, "where from" }, { "steps", "integer", 10, "how many" },
      { "model.blocks", "integer", 4, "of the trunk" }, { "note", "string", options.OPTIONAL, "free" } })
    local faults = {
      raised = function() error("toy.lua:3: no such thing", 0) end, asserted = function() assert(io.open "/nowhere/at all") end,
      library = function() require("moonfold").precision "fp7" end, fault = function() return o.note.no.such end,
      again = function() require("moonfold").no_grad(function() return o.note.no.such end) end,
    }
    command.run({ name = "toy" }, faults[o.note] or function() end)
    print("went on", o.steps)
  ]])
  local pipe = io.popen(("LUA_PATH='lua/?.lua;lua/?/init.lua;;' luajit '%s' %s 2>&1; echo \"status $?\""):format(path, words))
  local text = pipe:read "*a"
  pipe:close()
  os.remove(path)
  return text
end

describe("a command line", function()
  it("gives defaults, types and nested keys", function()
    local o = parse("data=x.pdb", "steps=3", "lr=1e-3", "dry_run=yes", "lengths=5,6,7", "model.blocks=2", "note=a=b c")
    assert.equal("x.pdb", o.data)
    assert.equal(3, o.steps)
    assert.equal(1e-3, o.lr)
    assert.is_true(o.dry_run)
    assert.equal("5,6,7", table.concat(o.lengths, ","))
    assert.equal(2, o.model.blocks)
    assert.equal("a=b c", o.note)
    local plain = parse "data=y"
    assert.same({ 10, 0.5, false, 4 }, { plain.steps, plain.lr, plain.dry_run, plain.model.blocks })
    assert.is_nil(plain.note)
  end)

  it("takes --flags for booleans alone", function()
    assert.is_true(parse("data=x", "--dry-run").dry_run)
    assert.is_truthy(child("data=x --steps"):find("toy: '--steps' needs a value: steps=...\nstatus 2", 1, true))
    assert.is_truthy(child("data=x --stepz"):find("unknown option 'stepz', did you mean 'steps'?", 1, true))
  end)

  it("reads saved options first, and the command line wins", function()
    local path = os.tmpname()
    command.save(path, parse("data=x", "steps=3", "model.blocks=7", "lengths=8,9", "dry_run=true"))
    local o = parse("config=" .. path, "steps=5")
    os.remove(path)
    assert.same({ "x", 5, 7, true }, { o.data, o.steps, o.model.blocks, o.dry_run })
    assert.equal("8,9", table.concat(o.lengths, ","))
  end)

  it("names the nearest key of an unknown one", function()
    local text = child "data=x model.block=3"
    assert.is_truthy(text:find("toy: command line: unknown option 'model.block', did you mean 'model.blocks'?", 1, true))
    assert.is_truthy(text:find("status 2", 1, true))
    assert.is_nil(text:find("went on", 1, true))
  end)

  it("says what a value should have been", function()
    assert.is_truthy(child("data=x steps=many"):find("steps=many is not a whole number", 1, true))
    assert.is_truthy(child("data=x steps=1.5"):find("steps=1.5 is not a whole number", 1, true))
  end)

  it("asks for what is required and for key=value", function()
    assert.is_truthy(child("steps=1"):find("toy: data is required (where from)", 1, true))
    assert.is_truthy(child("data=x fast"):find("'fast' is not key=value", 1, true))
    assert.is_truthy(child("config=/absent/file data=x"):find("toy: config: /absent/file", 1, true))
  end)

  it("prints every option for --help and ends well", function()
    local text = child "--help"
    local words = { "toy: a program of this spec.", "data", "required", "model.blocks", "of the trunk", "config", "status 0" }
    for _, word in ipairs(words) do
      assert.is_truthy(text:find(word, 1, true), word)
    end
  end)

  it("ends in one line and status 2 over what the user asked for, with a traceback over its own faults", function()
    assert.equal("toy: no such thing\nstatus 2\n", child "data=x note=raised")
    assert.equal("toy: /nowhere/at all: No such file or directory\nstatus 2\n", child "data=x note=asserted")
    local text = child "data=x note=library"
    assert.is_truthy(text:find("^toy: precision: unknown precision 'fp7' [^\n]*\nstatus 2\n$"), text)
    for _, note in ipairs { "fault", "again" } do
      text = child("data=x note=" .. note)
      assert.is_truthy(text:find "^toy: [^\n]*:%d+: attempt to index [^\n]*\nstack traceback:\n.*\nstatus 1\n$", text)
    end
    assert.is_truthy(child("data=x"):find "went on")
  end)
end)
