-- prepare: makes a data set of structure files.
--
--   moonfold scripts/prepare.lua in=pdb/,extra/1ubq.cif.gz out=train.safetensors min_length=60 max_length=512
--   moonfold scripts/prepare.lua in=rna/ kind=rna out=rna.safetensors resolution=4 dry_run=yes
--
-- Beside the set stands its manifest: every file with its hash, every chain, and why each that is missing was left out.
local mf = require "moonfold"
local columns = require "moonfold.columns"
local command = require "moonfold.command"
local options = require "moonfold.options"
local progress = require "moonfold.progress"

local o = command.parse(arg, {
  name = "prepare", summary = "makes a data set of PDB and mmCIF files, gzip or not.",
  { "in", "paths", command.REQUIRED, "files and folders" },
  { "out", "path", "train.safetensors", "the data set" },
  { "kind", "string", "protein", "or rna" },
  { "min_length", "integer", 1, "residues of a chain, after trimming ends without frames" },
  { "max_length", "integer", options.OPTIONAL, "residues" },
  { "resolution", "number", options.OPTIONAL, "angstrom at most; files that state none pass" },
  { "need_resolution", "boolean", false, "leave out files that state none" },
  { "valid", "number", 0.9, "share of residues that must have a frame" },
  { "dedup", "boolean", true, "of chains with one sequence keep the best resolved" },
  { "manifest", "path", options.OPTIONAL, "by default the name of the set with .manifest.json" },
  { "dry_run", "boolean", false, "tell what would be kept, write nothing" },
})

if o.kind ~= "protein" and o.kind ~= "rna" then
  io.stderr:write(("prepare: kind=%s is neither protein nor rna\n"):format(o.kind))
  os.exit(2, true)
end

local bar
local ok, result = pcall(mf.data.prepare, {
  inputs = o["in"], out = o.out, manifest = o.manifest, polymer = o.kind, min_length = o.min_length,
  max_length = o.max_length, max_resolution = o.resolution, need_resolution = o.need_resolution, min_valid = o.valid,
  unique = o.dedup, dry_run = o.dry_run,
  progress = function(done, total, path)
    bar = bar or progress { label = "prepare", total = total, unit = "files" }
    bar:update(done, { amount = 1, text = path:match "[^/]*$" })
  end,
})
if not ok then
  io.stderr:write("prepare: ", (tostring(result):gsub("^[^:]*%.lua:%d+: ", "")), "\n")
  os.exit(1, true)
end
bar:done(("%d files"):format(result.files))

local rows = {}
for _, reason in ipairs(options.sorted_keys(result.counts)) do
  if reason ~= "kept" then rows[#rows + 1] = { "left out", reason, result.counts[reason] } end
end
table.insert(rows, 1, { "kept", ("%d residues"):format(result.residues), result.counts.kept })
print(columns({ "chains", "", "count" }, rows))
if o.dry_run then print("nothing was written (dry_run)")
else print(("%s\n%s"):format(o.out, result.manifest)) end
