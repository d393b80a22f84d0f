-- What data sets take: opening 40,000 entries, planning an epoch, batches of 20,000 residues out of the page cache, read when
-- asked for and read ahead. `wait` is what a batch costs a program that works between batches: what a GPU would stand still for.
-- ms/batch is the mean of batch after batch with nothing between, wait a median; reading ahead takes a core that is free.
local mf = require "moonfold"
local C = require("moonfold.ffi").C
local json = require "moonfold.json"
local stopwatch = require "moonfold.stopwatch"

local ENTRIES, RESIDUES, STEPS, WORK = 40000, 20000, 150, 10e-3

-- Entries as prepare writes them; chains of 60 to 400 residues, more short ones than long ones.
local function make(path)
  local rng, entries, offsets = mf.rng(3), json.array(), { 0 }
  for i = 1, ENTRIES do
    local n = math.floor(60 + 340 * rng:number() ^ 1.5 + 0.5)
    offsets[i + 1] = offsets[i] + n
    entries[i] = {
      name = ("%05x_A"):format(i), source = "pdb/xy/entry.cif.gz", entry = ("%05x"):format(i), chain = "A", entity = "1",
      length = n, sequence = ("ACDEFGHIKLMNPQRSTVWY"):rep(20):sub(1, n), resolution = 1 + math.floor(300 * rng:number()) / 100,
      date = "2019-05-01", method = "X-RAY DIFFRACTION", cluster = math.floor(rng:number() * ENTRIES / 3),
      split = rng:number() < 0.9 and "train" or "test", helix = 0.3, strand = 0.25, coil = 0.45, radius_of_gyration = 17.25,
      chains_in_entry = 1, quaternary = "monomeric",
    }
  end
  local total = offsets[#offsets]
  mf.save(path, {
    offsets = mf.tensor(offsets, { dtype = "int64" }), translations = mf.zeros(total, 3), rotations = mf.zeros(total, 3, 3),
    torsions = mf.zeros(total, 1, 2), torsion_mask = mf.zeros(total, 1, { dtype = "bool" }),
    mask = mf.zeros(total, { dtype = "bool" }),
    aatype = mf.zeros(total, { dtype = "int32" }), index = mf.zeros(total, { dtype = "int32" }),
    chain = mf.zeros(total, { dtype = "int32" }),
  }, { format = "moonfold data set 1", kind = "protein", entries = json.encode(entries) })
end

return function(o, report)
  local path = os.tmpname()
  mf.scope(make, path)
  local set
  local function seconds(f) return o.measure.time(function() mf.scope(f) end) end
  report { "batches", "open 40,000 entries", "ms", 1e3 * seconds(function() set = mf.data.open(path) end) }
  report { "batches", "the same, and a column", "ms", 1e3 * seconds(function() mf.data.open(path):column "split" end) }
  local viewed = seconds(function() set:view { split = "train", max_length = 256 } end)
  report { "batches", "a view by split and length", "ms", 1e3 * viewed }

  local plan
  local planned = seconds(function() plan = set:batches({ residues = RESIDUES, prefetch = 0 }):plan(1) end)
  report { "batches", "plan an epoch, packed", "ms", 1e3 * planned, "filled", set:residues() / (#plan * RESIDUES) }

  -- Steps of an epoch, between which the host is busy for `work` seconds: mean seconds of a step, median seconds that its batch
  -- took, mean residues.
  local function go(work, prefetch, threads)
    local batches = set:batches {
      residues = RESIDUES, seed = 7, steps = STEPS, prefetch = prefetch, threads = threads, device = o.device,
    }
    local took, residues, start = {}, 0, C.mf_clock()
    for step = 1, STEPS do
      mf.scope(function()
        local began = C.mf_clock()
        local _, batch = batches()
        local now = C.mf_clock()
        took[step], residues = now - began, residues + batch.packing:total()
        while C.mf_clock() - now < work do mf.rand(64, 64):matmul(mf.rand(64, 64)) end
      end)
    end
    return (C.mf_clock() - start) / STEPS, stopwatch.middle(took), residues / STEPS
  end
  go(0, 0, 1)                             -- now the pages are in the cache
  for _, ahead in ipairs { { 0, 1 }, { 2, 1 }, { 4, 2 } } do
    local each, _, residues = go(0, ahead[1], ahead[2])
    local _, wait = go(WORK, ahead[1], ahead[2])
    report { "batches", ("prefetch %d, threads %d"):format(ahead[1], ahead[2]), "ms/batch", 1e3 * each, "Mresidues/s",
             residues / each / 1e6, "wait ms", 1e3 * wait }
  end
  os.remove(path)
end
