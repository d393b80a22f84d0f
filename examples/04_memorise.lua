--- One small protein, learned by heart: training ends when what is sampled from noise is that protein.
--
-- The protein is a helix, a turn and a helix, built from ideal bonds and backbone dihedrals. Each training step corrupts
-- sixteen copies of it, each to a time of its own, packed into one batch. Every hundred steps four backbones are sampled
-- from noise and superposed on the original (Kabsch, CA atoms). Prints the loss and the four distances until each is below
-- one angstrom, then those of eight fresh samples with other seeds.
--
--     moonfold examples/04_memorise.lua
local mf = require "moonfold"

mf.threads(1)      -- small tensors: a second core would mostly wait
mf.seed(7)

local COPIES, MOST_STEPS, RATE, CLOSE = 16, 1500, 5e-3, 1.0

-- ---- the protein ----

local rad, cos, sin = math.rad, math.cos, math.sin

local function unit(v)
  local n = math.sqrt(v[1] ^ 2 + v[2] ^ 2 + v[3] ^ 2)
  return { v[1] / n, v[2] / n, v[3] / n }
end

local function minus(a, b) return { a[1] - b[1], a[2] - b[2], a[3] - b[3] } end

local function cross(a, b)
  return { a[2] * b[3] - a[3] * b[2], a[3] * b[1] - a[1] * b[3], a[1] * b[2] - a[2] * b[1] }
end

-- The atom bonded to c: bond length in angstrom, angle b-c-d and dihedral a-b-c-d in degrees.
local function place(a, b, c, bond, angle, dihedral)
  local x = unit(minus(c, b))
  local z = unit(cross(minus(b, a), x))
  local y = cross(z, x)
  local along, across = -bond * cos(rad(angle)), bond * sin(rad(angle))
  local up, side = across * cos(rad(dihedral)), across * sin(rad(dihedral))
  return { c[1] + along * x[1] + up * y[1] + side * z[1], c[2] + along * x[2] + up * y[2] + side * z[2],
           c[3] + along * x[3] + up * y[3] + side * z[3] }
end

-- Frames of a chain with these (phi, psi), by its N, CA and C atoms.
local function chain(dihedrals)
  local atoms = { { 1.458, 0, 0 }, { 0, 0, 0 }, { -0.55, 1.42, 0 } }
  for i = 2, #dihedrals do
    local n = #atoms
    atoms[n + 1] = place(atoms[n - 2], atoms[n - 1], atoms[n], 1.329, 116.2, dihedrals[i - 1][2])       -- N
    atoms[n + 2] = place(atoms[n - 1], atoms[n], atoms[n + 1], 1.458, 121.7, 180)                       -- CA
    atoms[n + 3] = place(atoms[n], atoms[n + 1], atoms[n + 2], 1.525, 111.0, dihedrals[i][1])           -- C
  end
  local x = mf.tensor(atoms):reshape(-1, 3, 3)
  local ca = x:select(2, 2):contiguous()
  return mf.geometry.frames_from_points(x:select(2, 3), x:select(2, 1), ca), ca
end

local HELIX = { -60, -45 }
local dihedrals = {}
for i = 1, 16 do dihedrals[i] = HELIX end
dihedrals[7], dihedrals[8], dihedrals[9], dihedrals[10] = { -60, -40 }, { -90, 0 }, { -120, 120 }, { -70, 150 }
local rotations, positions = chain(dihedrals)
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

local model = mf.models.denoiser {
  node = 32, edge = 32, hidden = 16, heads = 4, query_points = 4, value_points = 4, blocks = 3, transformer_layers = 1,
  feat = 16, position = 64, time = 32,
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
  mean = mean + mf.scope(train) / 100
  if step % 100 == 0 then
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
