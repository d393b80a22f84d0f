-- evaluate: measures sampled backbones beside the data that they were learnt from, and draws them.
--
--   moonfold scripts/evaluate.lua samples=samples data=train.safetensors out=evaluation
--   moonfold scripts/evaluate.lua samples=samples data=train.safetensors nearest=yes nearest_n=200 diversity=yes jobs=16
--
-- Reads the folder that sample writes, or any folder of PDB and mmCIF files of one kind (trajectories are passed over). Writes to
--   <out>: samples.csv         a row for each sample
--   summary.json        everything that is printed, and more
--   samples.svg         pictures of samples; data.svg: of the data, as many of each length
--   distributions.svg   bonds, angles and torsions, samples and data
--   lengths.svg         radius of gyration and other numbers against length
-- The data are measured by the same code: entries about as long as the samples, then windows of longer ones.
local mf = require "moonfold"
local command = require "moonfold.command"
local files = require "moonfold.files"
local options = require "moonfold.options"
local pool = require "moonfold.data.prepare.pool"
local progress = require "moonfold.progress"

local here = arg[0]:match "^(.*/)[^/]*$" or "./"
local read_samples = dofile(here .. "evaluate/samples.lua")
local measure = dofile(here .. "evaluate/measure.lua")
local report = dofile(here .. "evaluate/report.lua")

local OPTIONAL = options.OPTIONAL
local program = {
  name = "evaluate", summary = "measures and draws sampled backbones beside the data they were learnt from.",
  { "samples", "path", command.REQUIRED, "folder that sample wrote, or one of structure files" },
  { "data", "path", command.REQUIRED, "data set made by prepare, of the samples' kind" },
  { "out", "path", "evaluation", "folder of tables and pictures" },
  { "split", "string", OPTIONAL, "only entries of it: train, valid, test" },
  { "references", "integer", 30, "entries or windows of the data for each length" },
  { "reference", "string", "frames", "their atoms: built of frames and torsions as samples are (frames), or the files' (atoms)" },
  { "pictures", "integer", 4, "samples drawn of each length" },
  { "diversity", "boolean", false, "cluster the samples by structural alignment (TMalign)" },
  { "cut", "number", OPTIONAL, "TM-score of a cluster; 0.5 for proteins, 0.45 for RNA" },
  { "nearest", "boolean", false, "nearest data to each sample by TMalign; RNA: of C3' traces, an approximation of RNA-align" },
  { "nearest_n", "integer", 100, "entries each sample is aligned with: those nearest in length; 0 for all" },
  { "jobs", "integer", 0, "alignments at once, 0 for one a core" },
  { "seed", "integer", 123, "of the choice of references" },
}
local o = command.parse(arg, program)

command.run(program, function()
  if o.reference ~= "frames" and o.reference ~= "atoms" then
    command.stop(program, "reference=%s is neither frames nor atoms", o.reference)
  end
  if (o.diversity or o.nearest) and not mf.metrics.align.available() then
    command.stop(program, "diversity and nearest need TMalign, which is not on the PATH (Debian package tm-align)")
  end
  if o.jobs < 1 then o.jobs = pool.cores() end

  local samples, kind = read_samples(o.samples)
  local set = mf.data.open(o.data)
  if set.kind ~= kind then command.stop(program, "the samples are %s, %s holds %s", kind, o.data, set.kind) end
  if o.split then set = set:view { split = o.split } end
  if o.reference == "atoms" and not set.container.atom_names then
    command.stop(program, "reference=atoms: %s has no atoms (prepare writes them with atoms=backbone)", o.data)
  end
  files.make_folder(o.out)
  print(("%d %s samples of %s, %s"):format(#samples, kind, o.samples, tostring(set)))

  local bar
  local function show(label)
    bar = progress { label = label, total = 1 }
    return function(done, total)
      bar.total = total
      bar:update(done)
    end
  end

  local lengths = measure.lengths(samples, set, o, show "measure")
  bar:done(("%d lengths"):format(#lengths))
  local result = { kind = kind, options = o, count = #samples, lengths = lengths, distributions = measure.compare(kind, lengths) }
  if o.diversity then
    result.diversity = measure.diversity(samples, kind, o, show "clusters")
    bar:done(("%d clusters"):format(result.diversity.clusters))
  end
  if o.nearest then
    result.nearest = measure.nearest(samples, set, o, show "align")
    bar:done()
  end

  print(report.text(result))
  print()
  for _, path in ipairs(report.write(o.out, samples, result)) do print(path) end
  for _, path in ipairs(report.draw(o.out, result, o.pictures)) do print(path) end
end)
