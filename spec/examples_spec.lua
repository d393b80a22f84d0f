-- Every example runs as a user would run it: as a process of its own, which must end well and print what its head says.
local files = require "moonfold.files"
local F = require "moonfold.ffi"

local LUA_PATH = "lua/?.lua;lua/?/init.lua;;"

-- Runs a command with the library under test; its exit status and all that it printed.
local function run(command)
  local pipe = io.popen(("MOONFOLD_LIBRARY='%s' LUA_PATH='%s' timeout 300 %s 2>&1; echo \"status $?\"")
    :format(F.library, LUA_PATH, command))
  local text = pipe:read "*a"
  pipe:close()
  local status = tonumber(text:match "status (%d+)%s*$")
  return status, text
end

local function temporary()
  local path = os.tmpname()
  os.remove(path)
  return path
end

local expected = {
  ["01_tensors"] = { "gradient%s+2 4 6", "slope%s+1%.49" },
  ["02_flash_ipa"] = { "float32 +canonical +%d%.%de%-0[678]", "split +canonical" },
  ["03_length"] = { "1024 +[%d.]+ +[%d.]+ %( ?[34]%.%d%) +[%d.]+ +[%d.]+ %( ?[12]%.%d%)" },
  ["04_memorise"] = { "samples at 0%.%d+", "sample 8: %d" },
  ["05_schedule"] = { "cosine +t = 1%.00", "guided 10%.0" },
  ["06_new_term"] = { "scalar, orientation +loss" },
  ["07_peer_weights"] = { "missing:%s+trunk%.2%.weight", "right:%s+12 tensors" },
  ["08_memory_plan"] = { "20000 +%d+%.%d+ +%d+%.%d+ +%d+%.%d+" },
  ["09_train"] = { "foldflow/flash: %d+ parameters, loss", "rna_frameflow/flash: %d+ parameters", "trans  t 0%.00%-0%.25: %d" },
  ["10_sample"] = { "100 residues: radius of gyration %d+%.%d A free, 10%.0 A guided", "11 states, 10 predictions" },
  ["11_motif"] = { "9 residues given, 25 to 40 in all", "sample 4: +%d+ residues, %d+,A42%-50,%d+, motif RMSD 0%.0000" },
  ["12_fine_tune"] = { "init: %d+ tensors of", "unlimited: .*chains of 76, 152, 608 residues", "32768 residues: +%d+%.%d MiB" },
}

describe("examples", function()
  for _, path in ipairs(files.list("examples", { ".lua" })) do
    local name = path:match "^examples/(%d%d_[%w_]+)%.lua$"
    if name then
      it(("run %s"):format(name), function()
        local folder = temporary()
        local status, text = run(("luajit %s %s"):format(path, name == "03_length" and folder or ""))
        assert.equal(0, status, text)
        assert.truthy(expected[name], "no line is expected of " .. path)
        for _, line in ipairs(expected[name]) do assert.truthy(text:find(line), line .. " is not in\n" .. text) end
        if name == "03_length" and text:find("pictures in", 1, true) then
          assert.truthy(files.read(folder .. "/memory.svg"):find("<svg", 1, true))
        end
        os.execute("rm -rf '" .. folder .. "'")
      end)
    end
  end

  it("embed a Lua model in a C program", function()
    local probe = io.popen "pkg-config --cflags --libs luajit 2>/dev/null"
    local flags = probe:read "*l"
    probe:close()
    if not flags or flags == "" then return pending "libluajit's headers are not installed" end
    local program = temporary()
    local folder = F.library:match "^(.*)/[^/]*$" or "."
    local status, text = run(("cc -std=c11 -Wall -Wextra -Werror -Icore examples/embed/main.c -o %s %s -L'%s' -lmoonfold -lm "
      .. "-Wl,-rpath,\"$(cd '%s' && pwd)\""):format(program, flags, folder, folder))
    assert.equal(0, status, text)
    status, text = run(program .. " examples/embed/model.lua")
    os.remove(program)
    assert.equal(0, status, text)
    assert.truthy(text:find("features (8, 16), float32, 512 bytes", 1, true), text)
    assert.truthy(text:find "largest change after a shift of 5.3 nm: %d%.%de%-%d+", text)
  end)
end)
