--- A backbone that was made, not read: frames, torsions, atoms, and the way it came about.
--
--     structure.kind, structure.length, structure.rotations, structure.translations, structure.torsions
--     structure:atoms()  structure:save "sample_1.pdb"  structure:save_trajectory("x0_traj_1.pdb", "clean")

local mf = require "moonfold"
local atoms = require "moonfold.atoms"
local fail = require "moonfold.fail"
local file = require "moonfold.structure_file"
local options = require "moonfold.options"

local M = {}
local Structure = {}
Structure.__index = Structure

local OPTIONAL, REQUIRED = options.OPTIONAL, options.REQUIRED

local defaults = {
  kind = REQUIRED, rotations = REQUIRED, translations = REQUIRED,
  torsions = OPTIONAL, mask = OPTIONAL, fixed = OPTIONAL, chains = OPTIONAL,
  trajectory = OPTIONAL, name = "sample", number = 1, seed = OPTIONAL,
}

--- A structure of frames.
-- @tparam table o `kind` ("protein" or "rna"), `rotations` (N, 3, 3), `translations` (N, 3) angstrom; `torsions` (N, K, 2),
--   `mask` (N) bool, `fixed` (N) bool (motif residues, for their B factor), `chains`: residues of each (one
--   chain), `trajectory`: lists `state` and `clean` of
--   { rotations, translations, torsions } in the order of time, `name`, `number`, `seed`
function M.new(o)
  o = options("structure", defaults, o)
  atoms.of(o.kind)
  o.length = o.translations:size(1)
  return setmetatable(o, Structure)
end

function Structure:__tostring()
  return ("structure %s: %s of %d residues"):format(self.name, self.kind, self.length)
end

local function build(self, frame)
  local rules = atoms.of(self.kind)
  local torsions = frame.torsions or self.torsions
  return mf.no_grad(function()
    return rules.build(frame.rotations:to("cpu"), frame.translations:to("cpu"), torsions and torsions:to("cpu"))
  end)
end

--- Coordinates of the backbone atoms.
-- @treturn tensor (N, A, 3) angstrom, on the CPU
-- @treturn table their names
function Structure:atoms()
  return build(self, self), atoms.of(self.kind).names
end

-- What the writer needs beside coordinates. The B factor tells what was generated (100) from what was given (0); RNA
-- files carry 0, as the tools that read them expect.
local function record(self)
  local rules = atoms.of(self.kind)
  local b = 0
  if self.kind == "protein" then
    b = 100
    if self.fixed then
      b = {}
      for i, fixed in ipairs(self.fixed:float():values()) do b[i] = fixed > 0 and 0 or 100 end
    end
  end
  local o = {
    names = rules.names, elements = rules.elements, residue_names = rules.residue, polymer = self.kind, b = b, id = self.name,
  }
  if self.mask then o.mask = rules.present(self.mask:to("cpu")) end
  o.lengths = self.chains
  return o
end

--- The atoms as a structure like those that are read: everything that looks at one does for a sample too.
-- @treturn Structure of moonfold.structure_file
-- @usage local letters = sample:as_file():secondary_structure()[1]
function Structure:as_file()
  local o = record(self)
  o.atoms = build(self, self)
  return file.from_atoms(o)
end

--- Sequence and secondary structure as text: see moonfold.structure_show.
-- @treturn string
-- @usage print(sample:show())
function Structure:show(o) return self:as_file():show(o) end

--- Draws which residues are near each other: see moonfold.structure_show.
-- @tparam table|string o a path that ends in .png or .svg, or options
-- @usage sample:contact_map "map.png"
function Structure:contact_map(o) return self:as_file():contact_map(o) end

--- Draws the fold: see moonfold.picture.
-- @tparam string|table o a path that ends in .svg, or options
-- @usage sample:picture "fold.svg"
function Structure:picture(o)
  local s = self:as_file()
  s:picture(o)
  s:release()
end

--- Writes the atoms as PDB or mmCIF, by the name of the file.
-- @tparam string path
-- @tparam[opt="auto"] string format "pdb" or "mmcif" whatever the name
-- @usage structure:save "sample_1.pdb"
function Structure:save(path, format)
  local s = self:as_file()
  s:write(path, format)
end

--- Writes a trajectory, a MODEL for each step, in the memory of one of them.
-- @tparam string path
-- @tparam[opt="state"] string which "state": what was integrated; "clean": what the network predicted at each step
-- @tparam[opt] string format
function Structure:save_trajectory(path, which, format)
  local list = self.trajectory and self.trajectory[which or "state"]
  if not list then fail("structure: no trajectory '%s' was kept (sample with trajectory = true)", tostring(which or "state")) end
  local o, writer = record(self), file.writer(path, { format = format })
  for k = 1, #list do
    -- the peers' protein files begin with the final structure, the RNA files with the noise
    o.atoms = build(self, list[self.kind == "protein" and #list + 1 - k or k])
    local model = file.from_atoms(o)
    writer:add(model)
    model:release()
  end
  writer:commit()
end

--- Reading, building and writing structures of any kind: see moonfold.structure_file.
M.read, M.parse, M.chains = file.read, file.parse, file.chains
M.build, M.from_atoms, M.writer = file.build, file.from_atoms, file.writer

return M
