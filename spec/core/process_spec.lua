-- Child processes: lines in both directions without anyone waiting for ever, ends and errors told apart, nothing left behind.
local ffi = require "ffi"
local process = require "moonfold.process"
local support = require "spec.support"
local C = require("moonfold.ffi").C

local function shell(script, environment) return process.start({ "sh", "-c", script }, environment) end

local function all_lines(p)
  local list = {}
  for line in p:lines() do list[#list + 1] = line end
  return list
end

describe("a child process", function()
  it("takes text and gives lines, the last one without an end too", function()
    local p = shell "cat; printf 'end'"
    p:write "one\n\ntwo\n"
    p:close_input()
    assert.same({ "one", "", "two", "end" }, all_lines(p))
    assert.is_true(p:ended())
    assert.equal(0, p:wait())
    assert.equal(0, p:wait())          -- again
    support.error_matches(function() p:write "x" end, "the input of 'sh' is closed", true)
  end)

  it("neither side waits for ever when both pipes are full", function()
    local p, sent = process.start { "cat" }, {}
    for i = 1, 200 do sent[i] = ("%d "):format(i):rep(2000) end        -- 1.4 MB; a pipe holds 64 KB
    p:write(table.concat(sent, "\n"))
    p:close_input()
    assert.same(sent, all_lines(p))
  end)

  it("never waits for a line", function()
    local p = shell "sleep 0.2; echo late"
    assert.is_nil(p:line())
    assert.is_false(p:ended())
    assert.is_nil(process.poll({ p }, 0.01))
    assert.equal(p, process.poll({ p }, 20))
    assert.equal("late", p:line())
  end)

  it("says which of several has something to say", function()
    local slow, fast = shell "sleep 20; echo slow", shell "echo fast"
    assert.equal(fast, process.poll({ slow, fast }, 20))
    assert.equal("fast", fast:line())
    assert.equal(fast, process.poll({ slow, fast }, 20))   -- now at its end
    assert.is_true(fast:ended())
    local before = C.mf_clock()
    slow:release()                                          -- killed, not waited for
    assert.is_true(C.mf_clock() - before < 5)
    support.error_matches(function() slow:line() end, "was released", true)
    assert.is_nil(process.poll({}, 0))
  end)

  it("tells its exit status from the signal that ended it", function()
    assert.equal(7, shell("exit 7"):wait())
    local code, signal = shell("kill -KILL $$"):wait()
    assert.is_nil(code)
    assert.equal("SIGKILL", signal)
    local p = shell "sleep 20"
    p:kill()
    assert.same({ nil, "SIGTERM" }, { p:wait() })
  end)

  it("ends although a grandchild holds its pipes", function()
    local before = C.mf_clock()
    assert.equal(3, shell("sleep 20 & exit 3"):wait())
    assert.is_true(C.mf_clock() - before < 10)
  end)

  it("keeps the last of what it writes to stderr", function()
    local p = shell "i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1"
    assert.equal(1, p:wait())
    local text = p:errors()
    assert.equal(4096, #text)
    assert.equal("line 2998\nline 2999\n", text:sub(-20))
  end)

  it("has our environment and what is set over it", function()
    local p = shell("echo $MF_ADDED; echo $HOME; echo $PATH | wc -c", { MF_ADDED = "a=b c", HOME = "/none" })
    local lines = all_lines(p)
    assert.equal("a=b c", lines[1])
    assert.equal("/none", lines[2])
    assert.is_true(tonumber(lines[3]) > 2)
  end)

  it("says why a program cannot be run", function()
    support.error_matches(function() process.start { "no-such-program-here" } end, "'no-such-program-here': No such file", true)
    support.error_matches(function() process.start { "/" } end, "'/': Permission denied", true)
    support.error_matches(function() process.start {} end, "the program first", true)
    support.error_matches(function() process.start { "sh", 3 } end, "word 2 is a number", true)
    support.error_matches(function() process.start({ "sh" }, { [""] = "x" }) end, "is not NAME=value", true)
  end)

  it("survives a child that stops reading", function()
    local p = shell "exec 0<&-; echo closed; sleep 0.1"
    assert.equal("closed", p:lines()())
    support.error_matches(function() p:write(("x"):rep(200000)) end, "Broken pipe", true)
  end)

  it("does not hear the terminal's Ctrl-C: it has a group of its own", function()
    local p = shell "read pid name state parent group rest < /proc/$$/stat; echo $group; echo $$"
    local lines = all_lines(p)
    assert.equal(tonumber(lines[2]), tonumber(lines[1]))
  end)

  it("dies with the process that started it", function()
    local library = require("moonfold.ffi").library
    local host = process.start({ "luajit", "-e", [[
      local p = require("moonfold.process").start { "sh", "-c", "echo $$; sleep 30" }
      print(p:lines()())
      io.stdout:flush()
      p:lines()()
    ]] }, { LUA_PATH = package.path, MOONFOLD_LIBRARY = library })
    local pid = host:lines()()
    assert.is_truthy(tonumber(pid), host:errors())
    host:kill(9)
    host:wait()
    local gone = false
    for _ = 1, 100 do
      gone = not os.rename("/proc/" .. pid, "/proc/" .. pid) and io.open("/proc/" .. pid .. "/cmdline", "r") == nil
      if gone then break end
      os.execute "sleep 0.05"
    end
    assert.is_true(gone)
  end)

  it("refuses output that has no end of line", function()
    local p = shell "head -c 70000000 /dev/zero | tr '\\0' x"
    support.error_matches(function()
      while not p:ended() do
        p:line()
        process.poll({ p }, 1)
      end
    end, "without an end of line", true)
    p:release()
  end)

  it("refuses a wait of no time", function()
    local ready = ffi.new "int64_t[1]"
    assert.equal(C.MF_EVALUE, C.mf_process_poll(ready, nil, 0, -1))
    assert.equal(C.MF_EVALUE, C.mf_process_poll(ready, nil, 2, 1))
  end)
end)
