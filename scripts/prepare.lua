-- prepare: makes a data set of structure files.
--
--   moonfold scripts/prepare.lua in=pdb/,extra/1ubq.cif.gz out=train.safetensors min_length=60 max_length=512
--   moonfold scripts/prepare.lua in=pdb/ profile=protein clusters=clusters-by-entity-30.txt split=cluster out=protein.safetensors
--   moonfold scripts/prepare.lua in=rna.tar.gz profile=rna out=rna.safetensors --dry-run
--   moonfold scripts/prepare.lua in=@files.txt out=train.safetensors
--
-- Beside the set stands its manifest: every file with its hash, every chain, and why each that is missing was left out. A run
-- that was stopped or killed goes on when the same command is given again; one that is finished changes nothing.
local mf = require "moonfold"
local columns = require "moonfold.columns"
local command = require "moonfold.command"
local options = require "moonfold.options"
local progress = require "moonfold.progress"

local OPTIONAL = options.OPTIONAL

-- Where the profile decides, the default is left to it.
local program = {
  name = "prepare", summary = "makes a data set of PDB, mmCIF and BinaryCIF files, gzip or not, in folders or tar archives.",
  { "in", "paths", command.REQUIRED, "files, folders, .tar and .tar.gz; @FILE is a list of them, one a line" },
  { "out", "path", "train.safetensors", "the data set" },
  { "profile", "string", "none", "or protein, rna: filters and rules of a recipe" },
  { "kind", "string", OPTIONAL, "protein or rna chains; by default the profile's, or protein" },
  { "compat", "boolean", false, "as the peers' scripts do where they differ from their papers" },
  { "min_length", "integer", OPTIONAL, "residues of an entry, after trimming" },
  { "max_length", "integer", OPTIONAL, "residues; the bound before trimming too" },
  { "resolution", "number", OPTIONAL, "angstrom at most; files that state none pass unless need_resolution" },
  { "need_resolution", "boolean", OPTIONAL, "leave out files that state none" },
  { "max_bytes", "number", OPTIONAL, "of a file's text" },
  { "oligomeric", "string", OPTIONAL, "what every assembly must be, such as monomeric; any" },
  { "one_chain", "boolean", OPTIONAL, "only files of one polymer chain" },
  { "homomer", "boolean", OPTIONAL, "only files whose chains have one sequence" },
  { "chains", "string", OPTIONAL, "each: an entry a chain; join: one of all chains of a file" },
  { "valid_frames", "number", OPTIONAL, "share of residues that must have a frame" },
  { "max_coil", "number", OPTIONAL, "share of residues, less than this passes" },
  { "max_helix", "number", OPTIONAL, "share of residues, less than this passes" },
  { "gyration_quantile", "number", OPTIONAL, "drop what is wider than this quantile of its length" },
  { "dedup", "boolean", OPTIONAL, "of entries with one sequence keep the best resolved" },
  { "most", "integer", OPTIONAL, "entries" },
  { "atoms", "string", "backbone", "or heavy, none: atoms that are written beside the frames" },
  { "clusters", "path", OPTIONAL, "a line a cluster of ENTRY_ENTITY (RCSB clusters-by-entity)" },
  { "split", "string", "none", "cluster, date or length: gives each entry train, valid or test" },
  { "valid", "number", 0.05, "share of clusters" },
  { "test", "number", 0, "share of clusters" },
  { "valid_from", "string", OPTIONAL, "first date (2023-10-31) or length that is valid" },
  { "test_from", "string", OPTIONAL, "first date or length that is test" },
  { "seed", "integer", 123, "of split=cluster" },
  { "order", "string", OPTIONAL, "of the entries: path, length or given" },
  { "workers", "integer", OPTIONAL, "processes; by default one a core, 0: work in this one" },
  { "work", "path", OPTIONAL, "folder of what is under way; by default beside the set" },
  { "manifest", "path", OPTIONAL, "by default the name of the set with .manifest.json" },
  { "dry_run", "boolean", false, "tell what would be kept, write nothing" },
}
local o = command.parse(arg, program)

local NAMES = {
  ["in"] = "inputs", kind = "polymer", resolution = "max_resolution", valid_frames = "min_valid", dedup = "unique",
}

local given, bar = {}, nil
for key, value in pairs(o) do given[NAMES[key] or key] = value end
if o.max_length then given.max_rows = o.max_length end
given.progress = function(done, total, path, residues)
  bar = bar or progress { label = "prepare", total = total, unit = "residues" }
  bar:update(done, { amount = residues, text = path:match "[^/]*$" })
end

local ok, result = pcall(mf.data.prepare, given)
if not ok then
  if bar then io.stderr:write "\n" end
  local reason = command.reason(program, result):gsub("^data%.prepare: ", "")
  if not reason:find("stopped by SIG", 1, true) then command.stop(program, "%s", reason) end
  io.stderr:write("prepare: ", reason, "\n")
  os.exit(130, true)
end
if bar then bar:done(("%d files"):format(result.files)) end

local rows = {}
for i, step in ipairs(result.steps) do
  rows[i] = { step.step, step.left, step.dropped > 0 and "-" .. step.dropped or "" }
end
print(columns({ "after", "left", "" }, rows))
rows = {}
for _, reason in ipairs(options.sorted_keys(result.counts)) do
  if reason ~= "kept" then rows[#rows + 1] = { reason, result.counts[reason] } end
end
if #rows > 0 then print("\n" .. columns({ "left out", "count" }, rows)) end
print(("\n%d entries, %d residues"):format(result.entries, result.residues))
if o.dry_run then
  print "nothing was written (dry_run)"
elseif result.unchanged then
  print(("nothing to do: %s is what these files and options make"):format(o.out))
else
  print(("%s\n%s"):format(o.out, result.manifest))
end
