--- Scaffolding a motif: a loop of ubiquitin is given, and a model learns to make the rest around it.
--
-- A contig says which residues come from the file and how many may lie between them; each sample draws its own lengths. The model
-- is a tiny FoldFlow trained for some seconds with `motif`, the probability that spans of an example are held fixed: far too short
-- for a protein, but the given frames are kept exactly from the first step on. Prints contig, length and motif RMSD of each sample.
--
--     moonfold examples/11_motif.lua [file.pdb contig [total]]
--     moonfold examples/11_motif.lua 5tpn.pdb 10-40,A163-181,10-40 56-75
local mf = require "moonfold"

mf.threads(1)      -- small tensors: a second core would mostly wait
mf.seed(11)

local here = arg[0]:match "^(.*/)" or "./"
local FILE = arg[1] or here .. "../spec/fixtures/1ubq.pdb.gz"
local motif = mf.motif { file = FILE, contig = arg[2] or "5-20,A42-50,5-20", length = arg[3] or not arg[2] and "25-40" or nil }
print(motif)
for number = 1, 3 do print(("  laid out: %s"):format(motif:draw(1, number).contig)) end

-- ---- a model that has met motifs ----

local s = mf.structure.read(here .. "../spec/fixtures/1ubq.pdb.gz")
local features = mf.atoms.protein.features(s:atoms(1, mf.atoms.protein.inputs))
local COPIES, lengths, batch = 2, {}, { examples = {}, seed = 1 }
for i = 1, COPIES do lengths[i], batch.examples[i] = features.translations:size(1), i end
batch.packing = mf.packing(lengths)
for _, name in ipairs { "translations", "rotations", "torsions", "torsion_mask" } do
  batch[name] = mf.cat({ features[name], features[name] }, 1)
end

local model = mf.models.foldflow {
  preset = "flash", node = 32, edge = 16, hidden = 8, heads = 4, query_points = 4, value_points = 4, blocks = 2, skip = 8,
  transformer_heads = 2, transformer_layers = 1, neighbours = 8, feat = 8,
}
local flow = mf.flow.se3 { profile = "protein", motif = 0.8 }
local optimizer = mf.optim.adam(model:parameters(), { lr = 2e-3, clip = 1 })
local first, last = 0, 0
for step = 1, 60 do
  batch.step = step
  local loss = mf.scope(function()
    local noisy = flow:corrupt(batch)
    flow:self_condition(model, noisy)
    local l = flow:loss(model(noisy), noisy)
    optimizer:step(l)
    return l:item()
  end)
  if step <= 20 then first = first + loss / 20 elseif step > 40 then last = last + loss / 20 end
end
print(("60 steps with spans of residues held fixed: loss %.2f, then %.2f"):format(first, last))

-- ---- samples around it ----

for i, made in mf.sample(model, flow, { motif = motif, n = 4, steps = 20, seed = 1 }) do
  local plan = motif:draw(1, i)
  local kept = made.translations:index_select(1, plan.places)
  print(("sample %d: %3d residues, %s, motif RMSD %.4f A"):format(i, made.length, made.contig, made.motif_rmsd))
  assert(made.length == plan.length and made.motif_rmsd < 1e-4)
  assert(kept:eq(motif.translations):all(), "the motif is where it was, bit for bit")
end
