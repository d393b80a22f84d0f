-- data.prepare as a run: the same bytes whatever the workers, the order, kills and crashes; a full disk; a second run; Ctrl-C.
local mf = require "moonfold"
local binding = require "moonfold.ffi"
local files = require "moonfold.files"
local json = require "moonfold.json"
local made = require "spec.support.structure_files"
local process = require "moonfold.process"
local support = require "spec.support"

local folder
local ENVIRONMENT = { LUA_PATH = package.path, MOONFOLD_LIBRARY = binding.library, MOONFOLD_HEADER = binding.header }

-- Many small files, some of them bad.
setup(function()
  folder = os.tmpname()
  os.remove(folder)
  for i = 1, 40 do
    made.protein(("%s/in/%02d/%dabc.pdb.gz"):format(folder, i % 4, i), 20 + i * 7 % 13, { phi = -60, psi = -40 })
  end
  files.replace(folder .. "/in/00/bad.pdb", "ATOM   no atom\n")
  files.replace(folder .. "/in/01/bad.cif", "data_x\nloop_\n_atom_site.id\n1\n")
end)
teardown(function() support.shell("rm -rf " .. folder) end)

local function options_of(o)
  o.inputs, o.split, o.test_from = o.inputs or { folder .. "/in" }, "length", 25
  return o
end

local function contents(out)
  return support.read_file(out), support.read_file((out:gsub("%.safetensors$", "") .. ".manifest.json"))
end

local function same(out, set, manifest)
  local other_set, other_manifest = contents(out)
  assert.is_true(set == other_set, "the sets differ")
  -- a manifest names its set
  local function nameless(text) return (text:gsub("[%w_]+%.safetensors", "x")) end
  assert.is_true(nameless(manifest) == nameless(other_manifest), "the manifests differ")
end

local function exists(path) return os.rename(path, path) ~= nil end

-- A script that prepares, as a process of its own; the words go before its command.
local function host(o, ...)
  local script = os.tmpname()
  local text = "require('moonfold').data.prepare(require('moonfold.json').decode(%q))"
  files.replace(script, text:format(json.encode(o)))
  local words = { "luajit", script }
  for i, word in ipairs { ... } do table.insert(words, i, word) end
  return process.start(words, ENVIRONMENT), script
end

local reference_set, reference_manifest
local function reference()
  if not reference_set then
    mf.data.prepare(options_of { out = folder .. "/reference.safetensors", workers = 0 })
    reference_set, reference_manifest = contents(folder .. "/reference.safetensors")
  end
  return reference_set, reference_manifest
end

-- Kills a run `kills` times at moments that the generator chooses, then lets it finish.
local function killed_run(name, kills, seed)
  local set, manifest = reference()
  local out, rng = ("%s/%s.safetensors"):format(folder, name), mf.rng(seed)
  local started = binding.C.mf_clock()
  local p, script = host(options_of { out = folder .. "/time.safetensors", workers = 2 })
  assert.equal(0, p:wait())
  os.remove(script)
  os.remove(folder .. "/time.safetensors")
  os.remove(folder .. "/time.manifest.json")
  local whole, struck = binding.C.mf_clock() - started, 0
  for _ = 1, kills do
    p, script = host(options_of { out = out, workers = 2 })
    process.poll({ p }, rng:number() * whole)
    p:kill(9)
    local code = p:wait()
    if not code then struck = struck + 1 end
    os.remove(script)
    if code == 0 then                          -- it was done before: begin anew
      os.remove(out)
    end
  end
  local report = mf.data.prepare(options_of { out = out, workers = 2 })
  assert.equal(40, report.entries + (report.counts["same sequence"] or 0))
  same(out, set, manifest)
  assert.is_false(exists(folder .. "/" .. name .. ".work"))
  return struck
end

describe("a run of data.prepare", function()
  it("gives the same bytes whatever the number of workers and the order of the inputs", function()
    local set, manifest = reference()
    for workers = 1, 3 do
      local out = ("%s/w%d.safetensors"):format(folder, workers)
      local seen, last = 0, nil
      local report = mf.data.prepare(options_of {
        out = out, workers = workers, inputs = workers == 2 and { folder .. "/in/03", folder .. "/in" } or nil,
        progress = function(done, total, path)
          seen, last = seen + 1, done
          assert.equal(42, total)
          assert.is_truthy(path:find(folder, 1, true))
        end,
      })
      assert.is_nil(report.unchanged)
      assert.equal(42, seen)
      assert.equal(42, last)
      same(out, set, manifest)
      assert.is_false(exists(out:gsub("%.safetensors", ".work")))
    end
  end)

  it("has nothing to do the second time, and does what changed", function()
    local out = folder .. "/twice.safetensors"
    local o = function() return options_of { out = out, workers = 1 } end
    local first = mf.data.prepare(o())
    local set, manifest = contents(out)
    local stat = io.popen(("stat -c %%i:%%Y %s"):format(out))
    local before = stat:read "*a"
    stat:close()
    local second = mf.data.prepare(o())
    assert.is_true(second.unchanged)
    assert.same(first.counts, second.counts)
    assert.equal(first.entries, second.entries)
    stat = io.popen(("stat -c %%i:%%Y %s"):format(out))
    assert.equal(before, stat:read "*a")
    stat:close()
    -- a set that was touched is made again
    files.replace(out, set .. " ")
    assert.is_nil(mf.data.prepare(o()).unchanged)
    assert.equal(set, (contents(out)))
    -- a file of the same size and other contents
    local path = folder .. "/in/00/bad.pdb"
    files.replace(path, "ATOM   NO ATOM\n")
    local third = mf.data.prepare(o())
    files.replace(path, "ATOM   no atom\n")
    assert.is_nil(third.unchanged)
    assert.are_not.equal(manifest, select(2, contents(out)))
    -- other options
    assert.is_nil(mf.data.prepare(o()).unchanged)
    local other = o()
    other.min_length = 22
    assert.is_nil(mf.data.prepare(other).unchanged)
  end)

  it("killed at any moment, gives the same bytes when it is run again", function()
    assert.is_true(killed_run("killed", 5, 11) >= 1)
  end)

  it("killed at 20 moments, gives the same bytes when it is run again #slow", function()
    assert.is_true(killed_run("killed20", 20, 12) >= 10)
  end)

  it("uses the parts that a killed run left, and drops those that no longer fit", function()
    local set, manifest = reference()
    local out, work = folder .. "/parts.safetensors", folder .. "/parts.work"
    support.error_matches(function()
      mf.data.prepare(options_of { out = out, workers = 0, progress = function(done) assert(done < 30, "enough") end })
    end, "enough.*the same call goes on from there")
    local parts = files.list(work, { ".safetensors" })
    assert.is_true(#parts >= 10)
    -- one is cut, one is of another content
    files.replace(parts[1], support.read_file(parts[1]):sub(1, 1000))
    files.replace(parts[2], support.read_file(parts[3]))
    local reused, made_anew = 0, 0
    mf.data.prepare(options_of { out = out, workers = 2, log = function(line)
      if line:find "reused" then reused = reused + 1 else made_anew = made_anew + 1 end
    end })
    assert.equal(#parts - 2, reused)
    assert.is_true(made_anew >= 2)
    same(out, set, manifest)
  end)

  -- A worker whose reader dies at some files.
  local function crashing(how)
    local script = os.tmpname()
    files.replace(script, ([[
      local ffi = require "ffi"
      ffi.cdef "int raise(int); int remove(const char *); void _exit(int);"
      local structure = require "moonfold.structure_file"
      local read = structure.read
      function structure.read(path, o)
        %s
        return read(path, o)
      end
      require("moonfold.data.prepare.worker").serve()
    ]]):format(how))
    return { "luajit", script }, script
  end

  it("goes on when a worker dies, with the file's name and the signal in the manifest", function()
    local out = folder .. "/crash.safetensors"
    local program, script = crashing [[if path:find "/17abc" or path:find "/18abc" then ffi.C.raise(9) end]]
    local report = mf.data.prepare(options_of { out = out, workers = 2, program = program })
    os.remove(script)
    assert.equal(2, report.counts["reader crashed"])
    local _, manifest = contents(out)
    local found = 0
    for _, record in ipairs(assert(json.decode(manifest)).inputs) do
      if record.skipped == "reader crashed: SIGKILL" then
        found = found + 1
        assert.is_truthy(record.path:find "/1[78]abc")
        assert.equal(64, #record.sha256)
      end
    end
    assert.equal(2, found)
    assert.equal(42, report.files)
  end)

  it("tries a file again before it passes over it", function()
    local set, manifest = reference()
    local out = folder .. "/again.safetensors"
    local mark = folder .. "/mark"
    files.replace(mark, "")
    local program, script = crashing(([[if path:find "/17abc" and ffi.C.remove(%q) == 0 then ffi.C._exit(3) end]]):format(mark))
    mf.data.prepare(options_of { out = out, workers = 2, program = program })
    os.remove(script)
    assert.is_false(exists(mark))
    local other_set, other_manifest = contents(out)
    assert.is_true(set == other_set)
    -- the sets' names differ, the records do not
    local function inputs_of(text) return text:match '"inputs": .*' end
    assert.is_true(inputs_of(manifest) == inputs_of(other_manifest))
  end)

  it("leaves out no file for a failure that does not repeat, and logs it", function()
    local set, manifest = reference()
    local out, mark, noted = folder .. "/moment.safetensors", folder .. "/moment", {}
    files.replace(mark, "")
    local once = ([[if path:find "/17abc" and ffi.C.remove(%q) == 0 then error "a bad moment" end]]):format(mark)
    local program, script = crashing(once)
    mf.data.prepare(options_of { out = out, workers = 2, program = program, log = function(line)
      if line:find "second time" then noted[#noted + 1] = line end
    end })
    os.remove(script)
    same(out, set, manifest)
    assert.equal(1, #noted)
    assert.is_truthy(noted[1]:find "/17abc.pdb.gz: read the second time only: malformed: a bad moment")
  end)

  it("says when the program is no worker", function()
    local out = folder .. "/program.safetensors"
    support.error_matches(function()
      mf.data.prepare(options_of { out = out, workers = 1, program = { "echo", "hello" } })
    end, "'echo hello' does not run as a worker: it says 'hello'", true)
    support.error_matches(function()
      mf.data.prepare(options_of { out = out, workers = 1, program = { "sh", "-c", "echo why >&2; exit 4" } })
    end, "ended before its first file: exit status 4: why", true)
    support.error_matches(function()
      mf.data.prepare(options_of { out = out, workers = 1, program = { "no-such-program" } })
    end, "No such file", true)
    assert.is_false(exists(out))
  end)

  it("leaves the old set when the disk is full, and goes on when there is room", function()
    local set, manifest = reference()
    local out = folder .. "/full.safetensors"
    mf.data.prepare(options_of { out = out, workers = 0, min_length = 30 })
    local old_set, old_manifest = contents(out)
    -- no file may pass this size: in the middle of the set, then in the parts
    for _, blocks in ipairs { math.floor(#set / 1024 / 2), 4 } do
      local limit = ("trap '' XFSZ; ulimit -f %d; exec \"$@\""):format(2 * blocks)
      local p, script = host(options_of { out = out, workers = 2 }, "sh", "-c", limit, "sh")
      local code = p:wait()
      os.remove(script)
      assert.equal(1, code)
      assert.is_truthy(p:errors():find("File too large", 1, true), p:errors())
      assert.is_truthy(p:errors():find("goes on from there", 1, true), p:errors())
      local now_set, now_manifest = contents(out)
      assert.is_true(old_set == now_set and old_manifest == now_manifest)
    end
    mf.data.prepare(options_of { out = out, workers = 2 })
    same(out, set, manifest)
    -- /dev/full says it at once
    support.error_matches(function()
      mf.data.prepare(options_of { out = folder .. "/no/x.safetensors", work = "/dev/full", workers = 0 })
    end, "cannot make the folder /dev/full", true)
  end)

  it("stops at Ctrl-C, says how to go on, and goes on", function()
    local program = binding.library:match "^(.*)/libmoonfold%.so$"
    program = program and program .. "/moonfold"
    if not program or not exists(program) then return pending "the program is not built" end
    local set = reference()
    local out = folder .. "/stopped.safetensors"
    local slow, script = crashing "os.execute 'sleep 0.2'"
    local o = json.encode(options_of { out = out, workers = 2, program = slow })
    local main = os.tmpname()
    files.replace(main, ("require('moonfold').data.prepare(require('moonfold.json').decode(%q))"):format(o))
    local p = process.start({ program, main }, ENVIRONMENT)
    local work = folder .. "/stopped.work"
    local function parts() return exists(work) and #files.list(work, { ".safetensors" }) or 0 end
    while parts() < 3 and not p:ended() do process.poll({ p }, 0.05) end
    p:kill(2)
    assert.are_not.equal(0, p:wait())
    os.remove(main)
    os.remove(script)
    assert.is_truthy(p:errors():find("stopped by SIGINT; %d+ of %d+ parts are in"), p:errors())
    assert.is_false(exists(out))
    assert.is_true(parts() >= 3)
    local reused = 0
    mf.data.prepare(options_of {
      out = out, workers = 2, log = function(line) reused = reused + (line:find "reused" and 1 or 0) end,
    })
    assert.is_true(reused >= 3)
    assert.is_true(set == (contents(out)))
  end)
end)

describe("scripts/prepare.lua", function()
  local function run(...)
    local p = process.start({ "luajit", "scripts/prepare.lua", ... }, ENVIRONMENT)
    local lines = {}
    for line in p:lines() do lines[#lines + 1] = line end
    return p:wait(), table.concat(lines, "\n"), p:errors()
  end

  it("makes a set, tells what each filter left, and then has nothing to do", function()
    local out = folder .. "/script.safetensors"
    local code, text, errors = run("in=" .. folder .. "/in", "out=" .. out, "min_length=25", "workers=2", "--dry-run")
    assert.equal(0, code, errors)
    assert.is_truthy(text:find("nothing was written", 1, true), text)
    assert.is_false(exists(out))
    code, text = run("in=" .. folder .. "/in", "out=" .. out, "min_length=25", "workers=2")
    assert.equal(0, code)
    assert.is_truthy(text:find "files%s+42" and text:find "files read%s+40%s+%-2" and text:find "length%s+%d+", text)
    assert.is_truthy(text:find("too short", 1, true) and text:find(out, 1, true), text)
    code, text = run("in=" .. folder .. "/in", "out=" .. out, "min_length=25", "workers=1")
    assert.equal(0, code)
    assert.is_truthy(text:find("nothing to do", 1, true), text)
  end)

  it("says what is wrong in one line", function()
    local code, _, errors = run("in=" .. folder .. "/nowhere")
    assert.equal(2, code)
    assert.is_truthy(errors:find("prepare: input '" .. folder .. "/nowhere' cannot be opened", 1, true), errors)
    code, _, errors = run("in=" .. folder .. "/in", "profile=proteins", "out=" .. folder .. "/x.safetensors")
    assert.equal(2, code)
    assert.is_truthy(errors:find("profile 'proteins' (known: none, protein, rna)", 1, true), errors)
    code, _, errors = run("in=" .. folder, "--out")
    assert.equal(2, code)
    assert.is_truthy(errors:find("'--out' needs a value", 1, true), errors)
  end)
end)

