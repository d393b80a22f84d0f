-- Files of many models, written one model at a time.
local mf = require "moonfold"
local structure = require "moonfold.structure_file"
local difference = require("spec.support.structures").difference
local support = require "spec.support"
local shell, read = support.shell, support.read_file

local folder

before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(shell("mkdir " .. folder))
end)
after_each(function() shell("rm -rf " .. folder) end)

local NAMES = { "N", "CA", "C", "O", "CB" }

local function listing()
  local pipe = io.popen("ls -A " .. folder)
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function frame(k, o)
  local given = { names = NAMES, residue_names = "ALA", lengths = { 4, 3 }, id = "TEST", title = "steps" }
  given.atoms = mf.randn({ 7, 5, 3 }, { rng = mf.rng(k) }) * 10
  for key, value in pairs(o or {}) do given[key] = value end
  return structure.from_atoms(given)
end

local function stream(path, frames, o)
  local w = structure.writer(path, o)
  for _, s in ipairs(frames) do w:add(s) end
  w:commit()
end

describe("a structure writer", function()
  it("makes the file that would be written at once", function()
    local frames, models = {}, {}
    for k = 1, 4 do
      frames[k] = frame(k)
      models[k] = mf.randn({ 7, 5, 3 }, { rng = mf.rng(k) }) * 10
    end
    local whole = frame(1, { models = models })
    for _, ending in ipairs { ".pdb", ".cif", ".cif.gz" } do
      stream(folder .. "/a" .. ending, frames)
      whole:write(folder .. "/b" .. ending)
      if ending ~= ".cif.gz" then assert.are.equal(read(folder .. "/b" .. ending), read(folder .. "/a" .. ending)) end
      local back = structure.read(folder .. "/a" .. ending)
      assert.are.same({ 4, 8, 140 }, { back:counts().models, back:counts().chains, back:counts().atoms })
      assert.is_nil(difference(whole, back, "pdb"))
      support.close(back:atoms(back:chains(3)[1].index, NAMES), models[3]:narrow(1, 1, 4), 1e-4)
    end
    local text = read(folder .. "/a.pdb")
    for k = 1, 4 do assert.truthy(text:find(("\nMODEL     %4d"):format(k), 1, true)) end
    assert.are.equal(4, select(2, text:gsub("\nENDMDL", "")))
    assert.are.equal(1, select(2, text:gsub("\nSEQRES   1 A", "")))
    assert.truthy(read(folder .. "/a.cif"):find("\nATOM 140 C CB . ALA B 2 3 ", 1, true)) -- ids go on over models
  end)

  it("takes structures of several models and numbers on", function()
    local two = frame(1, { models = { mf.ones(7, 5, 3), mf.ones(7, 5, 3) * 2 } })
    stream(folder .. "/a.cif", { frame(1), two, frame(2) })
    assert.are.equal(4, structure.read(folder .. "/a.cif"):counts().models)
    stream(folder .. "/a.pdb", { frame(1) })
    assert.truthy(read(folder .. "/a.pdb"):find "\nMODEL        1 ")
  end)

  it("replaces the file at commit, not before, and leaves nothing without it", function()
    for _, ending in ipairs { ".pdb", ".cif" } do
      local path = folder .. "/x" .. ending
      stream(path, { frame(1) })
      local old = read(path)
      local w = structure.writer(path)
      w:add(frame(2))
      assert.are.equal(old, read(path))
      w:abandon()
      assert.are.equal(old, read(path))
      w:abandon()
      support.error_matches(function() w:add(frame(2)) end, "is closed", true)
      support.error_matches(function() w:commit() end, "is closed", true)
      w = structure.writer(path)
      w:add(frame(2))
      w = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert.are.equal(old, read(path))
      os.remove(path)
      assert.are.equal("", listing())
    end
  end)

  it("says what it cannot write, and what was wrong stays wrong", function()
    local path = folder .. "/x.cif"
    local function refused(s, text)
      local w = structure.writer(path)
      w:add(frame(1))
      support.error_matches(function() w:add(s) end, text, true)
      support.error_matches(function() w:commit() end, "is closed", true)
      assert.are.equal("", listing())
    end
    refused(frame(2, { chain_ids = { "A", "C" } }), "the chain 'C' is not in the first model")
    refused(frame(2, { residue_names = "GLY" }), "the sequence of chain 'A' is not in the first model")
    refused(structure.build { chains = {} }, "the structure has no atoms")
    path = folder .. "/x.pdb"
    refused(frame(2, { atoms = mf.full({ 7, 5, 3 }, 1e4) }), "the coordinate '10000' does not fit the columns of PDB")
    path = folder .. "/x" -- the first structure settles the format
    refused(frame(2, { atoms = mf.full({ 7, 5, 3 }, 1e4) }), "does not fit the columns of PDB")
    support.error_matches(function() structure.writer(path):commit() end, "no model was added", true)
    support.error_matches(function() structure.writer(path):add(7) end, "add takes a structure", true)
    support.error_matches(function() structure.writer(folder .. "/none/x.pdb") end, "No such file", true)
    support.error_matches(function() structure.writer(path, { formal = "pdb" }) end, "did you mean 'format'", true)
    support.error_matches(function() structure.writer(path, { format = "xyz" }) end, "cannot write the format 'xyz'", true)
    support.error_matches(function() structure.writer(folder .. "/x.bcif") end, "BinaryCIF cannot be written", true)
    collectgarbage() -- the writer that was given 7
    assert.are.equal("", listing())
  end)

  it("takes the memory of one model", function()
    if os.getenv "ASAN_OPTIONS" then return pending "the sanitizer keeps what was freed" end
    local n = 4000
    local function resident()
      return tonumber(read("/proc/self/status"):match "VmRSS:%s*(%d+)") -- kB
    end
    local x = mf.randn({ n, 5, 3 }, { rng = mf.rng(3) })
    local w = structure.writer(folder .. "/long.cif")
    local function add()
      local s = structure.from_atoms { atoms = x, names = NAMES, residue_names = "ALA" }
      w:add(s)
      s:release()
    end
    for _ = 1, 3 do add() end
    collectgarbage()
    local before = resident()
    for _ = 1, 25 do add() end
    collectgarbage()
    -- 25 models of 20,000 atoms of 72 bytes are 36 MB as structures, more as text
    local grown = resident() - before
    w:abandon()
    assert.is_true(grown < 8000, grown .. " kB more after 25 models")
  end)

  it("writes what a sample went through", function()
    local rotations, translations = mf.random.rotations(5, { rng = mf.rng(1) }), mf.randn({ 5, 3 }, { rng = mf.rng(2) }) * 9
    local function oracle() return { rotations = rotations, translations = translations, torsions = mf.ones(5, 1, 2) * 0.7 } end
    local _, s = mf.sample(oracle, mf.flow.se3 { profile = "protein" }, { length = 5, steps = 4, trajectory = true })()
    for _, format in ipairs { "pdb", "mmcif" } do
      local path = folder .. "/traj." .. (format == "pdb" and "pdb" or "cif")
      s:save_trajectory(path, "state")
      local back = mf.structure.read(path)
      assert.are.equal(5, back:counts().models)
      local names = { "N", "CA", "C" }
      support.close(back:atoms(1, names), s:as_file():atoms(1, names), 1e-6)  -- the final structure comes first
      s:save_trajectory(path, "clean")
      assert.are.equal(4, mf.structure.read(path):counts().models)
    end
    s:save_trajectory(folder .. "/named", "clean", "cif")
    assert.are.equal("data_sample_1\n", read(folder .. "/named"):sub(1, 14))
    local w = mf.structure.writer(folder .. "/samples.cif")
    w:add(s)
    w:add(s)
    w:commit()
    assert.are.equal(2, mf.structure.read(folder .. "/samples.cif"):counts().models)
  end)
end)
