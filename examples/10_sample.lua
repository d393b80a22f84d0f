--- Sampling: mixed lengths in one call, a trajectory, guidance by an energy, and the same structure whatever it is sampled beside.
--
-- Samples FoldFlow and RNA-FrameFlow, tiny and untrained: what comes out is no molecule, but every step is the one that a trained
-- network takes. Prints the radius of gyration of three proteins of different lengths, free and pulled to 10 angstrom; how much one
-- of them changes when it is sampled alone; and writes a trajectory of an RNA with a MODEL for each step.
--
--     moonfold examples/10_sample.lua [folder]      files stay in that folder
local mf = require "moonfold"

mf.threads(1)      -- small tensors: a second core would mostly wait

local folder = arg[1] or os.tmpname()
if not arg[1] then os.remove(folder) end
require("moonfold.files").make_folder(folder)

local TINY = {
  node = 32, edge = 16, hidden = 8, heads = 4, query_points = 4, value_points = 4, blocks = 1, transformer_heads = 2,
  transformer_layers = 1, neighbours = 8, feat = 8, preset = "flash",
}

local function tiny(kind, more)
  local o = { rng = mf.rng(3) }
  for key, value in pairs(TINY) do o[key] = value end
  for key, value in pairs(more or {}) do o[key] = value end
  return mf.models[kind](o)
end

local function radius(s)
  local x = s.translations
  return ((x - x:mean(1, true)):square():sum() / s.length):sqrt():item()
end

-- An energy: for each sequence of the pack, its residues times the squared distance of its radius of gyration from the target.
-- Its slope is 2 (rg - target) / rg (x - centre), so that half of it is the whole way.
local function compact(target)
  return function(prediction, state)
    local p, x = state.packing, prediction.translations
    local rg = (x - x:segment_mean(p):segment_expand(p)):square():sum(2):segment_mean(p):sqrt()
    return (rg - target):square() * mf.tensor(p:lengths())
  end
end

local foldflow, protein = tiny("foldflow", { skip = 8 }), mf.flow.se3 { profile = "protein" }
local LENGTHS = { 40, 70, 100 }

local function proteins(o)
  o.steps, o.seed = 10, 5
  local list = {}
  for i, s in mf.sample(foldflow, protein, o) do list[i] = s end
  return list
end

local free = proteins { lengths = LENGTHS }
local pulled = proteins { lengths = LENGTHS, guidance = compact(10), guidance_weight = 0.5 }
for i, s in ipairs(free) do
  print(("%3d residues: radius of gyration %.1f A free, %.1f A guided"):format(s.length, radius(s), radius(pulled[i])))
  assert(math.abs(radius(pulled[i]) - 10) < 0.1)
end

-- residues = 1: each in a pack of its own
local alone = proteins { lengths = LENGTHS, residues = 1 }[2]
local apart = (alone.translations - free[2].translations):abs():max(1):max():item()
print(("70 residues, alone or in the pack: %.0e A apart"):format(apart))
assert(apart < 1e-3)

local flow = mf.flow.se3 { profile = "rna" }
local _, rna = mf.sample(tiny("rna_frameflow", { time = 32 }), flow, { length = 30, steps = 10, seed = 5, trajectory = true })()
rna:save(folder .. "/rna.pdb")
rna:save_trajectory(folder .. "/rna_traj.pdb", "state")
rna:save_trajectory(folder .. "/rna_clean.cif", "clean")
print(("RNA of %d nucleotides: %d states, %d predictions"):format(rna.length,
  mf.structure.read(folder .. "/rna_traj.pdb"):counts().models, mf.structure.read(folder .. "/rna_clean.cif"):counts().models))
print(arg[1] and "files in " .. folder or "the files were deleted: name a folder to keep them")
if not arg[1] then os.execute("rm -r '" .. folder .. "'") end
