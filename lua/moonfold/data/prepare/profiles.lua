--- What a data set is made for: the options of data.prepare and what each profile sets them to.
--
--     none      every chain of the kind, of one sequence the best resolved
--     protein   monomers of 60 to 512 residues (spec: the protein recipe)
--     rna       homomers of 40 to 150 nucleotides, the chains of a file together (the RNA recipe)
--
-- An option that the user gives stands over the profile's. `compat` turns to what the peers' scripts do where they differ from
-- their papers: radii of gyration are held against the polynomial at length - 1, positions of proteins are author numbers, files
-- of several protein chains pass, chains of an RNA follow one another without a gap, of chains whose ids differ in case alone the
-- last stands for all, and one atom makes a residue valid: CA, or C2' where C4' was meant.
-- @module moonfold.data.prepare.profiles

local fail = require "moonfold.fail"
local options = require "moonfold.options"

local M = {}
local OPTIONAL, REQUIRED = options.OPTIONAL, options.REQUIRED

--- Options of `prepare` and their defaults without a profile.
M.defaults = {
  inputs = REQUIRED,           -- list of files, folders, archives (.tar, .tar.gz) and lists of them ("@paths.txt")
  out = REQUIRED,              -- the data set to write
  manifest = OPTIONAL,         -- by default the name of the set with .manifest.json
  profile = "none",            -- or "protein", "rna"
  polymer = OPTIONAL,          -- "protein" (default without a profile) or "rna"
  compat = false,              -- as the peers' scripts do, see above

  -- files
  min_bytes = 0,               -- of the text, inflated
  max_bytes = math.huge,
  max_resolution = math.huge,  -- angstrom; a file that states none passes unless need_resolution
  need_resolution = false,
  oligomeric = "any",          -- or what every assembly must be, such as "monomeric"
  one_chain = false,           -- one polymer chain in the file
  homomer = false,             -- the polymer chains of the file have one sequence
  no_protein = false,          -- no protein chain in the file

  -- chains
  chains = "each",             -- an entry each; "join": an entry of all chains of a file
  chain_gap = 64,              -- of the positions between joined chains
  fold_chains = false,         -- of chains whose ids differ in case alone the last stands for all
  valid_by = "frame",          -- residues are valid that have the atoms of a frame; "atom": that have CA, of RNA C2', which is
                               -- the centre then too. What else a frame lacks is taken to be at the centre
  trim = "frames",             -- ends without frames go; "types": ends of residues of no known type
  types = "parents",           -- residue types of modified residues; "standard": of no known type, but for MSE
  positions = "numbers",       -- residue numbers, gaps are visible: label_seq_id, in PDB files author numbers where they grow;
                               -- "author": author numbers; "rows": 0, 1, 2, ...
  min_length = 1,
  max_length = math.huge,      -- after trimming
  max_rows = math.huge,        -- before
  min_valid = 0.9,             -- share of residues that have a frame
  max_helix = math.huge,       -- shares by DSSP; less than this passes
  max_coil = math.huge,
  min_strand = -1,             -- more than this passes
  gyration_quantile = OPTIONAL,-- radius of gyration below the polynomial through this quantile of each length ...
  gyration_margin = 1,         -- ... and this many angstrom
  filters = OPTIONAL,          -- list of function(entry) -> reason to leave it out, or nil
  unique = OPTIONAL,           -- of entries with one sequence keep the best resolved, then the first; true without a profile
  most = OPTIONAL,             -- no more entries than this, the first in order
  order = "path",              -- of the entries: by the files' paths; "length": longest first; "given": as the inputs were

  -- what is written
  atoms = "backbone",          -- atoms of each residue in the set; "heavy": all of a standard residue; "none"
  clusters = OPTIONAL,         -- path of a cluster file (RCSB clusters-by-entity), or function(entry) -> name or number
  split = "none",              -- "cluster", "date", "length": gives entries a `split`, see prepare.split
  valid = 0.05, test = 0,      -- shares of split = "cluster"
  valid_from = OPTIONAL,       -- first date or length of "valid"
  test_from = OPTIONAL,        -- and of "test"
  seed = 123,                  -- of split = "cluster"

  -- how
  workers = OPTIONAL,          -- processes, by default as many as there are cores; 0: work in this one
  program = OPTIONAL,          -- what runs a worker: an interpreter and its arguments; by default this program
  work = OPTIONAL,             -- folder of what is under way, by default the name of the set with .work
  log = OPTIONAL,              -- function(line)
  progress = OPTIONAL,         -- function(done, total, path, residues), called for each file
  dry_run = false,             -- count only: write nothing
}

M.profiles = {
  none = { polymer = "protein", unique = true },
  protein = {
    polymer = "protein", min_bytes = 1000, max_bytes = 3e6, need_resolution = true, max_resolution = 5, oligomeric = "monomeric",
    one_chain = true, trim = "types", types = "standard", min_length = 60, max_length = 512, max_rows = 512, min_valid = 0,
    max_helix = 1, max_coil = 0.5, min_strand = -1, gyration_quantile = 0.96, order = "length", unique = false,
  },
  rna = {
    polymer = "rna", chains = "join", trim = "types", positions = "rows", min_length = 40, max_length = 150, min_valid = 0,
    homomer = true, no_protein = true, order = "length", unique = false,
  },
}

local COMPAT = {
  protein = { one_chain = false, positions = "author", fold_chains = true, valid_by = "atom" },
  rna = { chain_gap = 0, fold_chains = true, valid_by = "atom" },
  none = {},
}

local CHOICES = {
  polymer = { "protein", "rna" }, chains = { "each", "join" }, trim = { "frames", "types" }, types = { "parents", "standard" },
  positions = { "numbers", "author", "rows" }, order = { "path", "length", "given" }, atoms = { "backbone", "heavy", "none" },
  split = { "none", "cluster", "date", "length" }, valid_by = { "frame", "atom" },
}

--- The names of the profiles.
M.names = options.sorted_keys(M.profiles)

--- The options of a run: what the user gave over the profile over the defaults.
-- @tparam table given
-- @treturn table
function M.resolve(given)
  local o = options("data.prepare", M.defaults, given)
  local profile = M.profiles[o.profile]
  if not profile then fail("data.prepare: profile '%s' (known: %s)", tostring(o.profile), table.concat(M.names, ", ")) end
  for _, layer in ipairs { o.compat and COMPAT[o.profile] or {}, profile } do
    for key, value in pairs(layer) do
      if given[key] == nil then
        o[key] = value
        given = setmetatable({ [key] = value }, { __index = given })
      end
    end
  end
  for _, key in ipairs(options.sorted_keys(CHOICES)) do
    local known = false
    for _, choice in ipairs(CHOICES[key]) do known = known or o[key] == choice end
    if not known then fail("data.prepare: %s is '%s' (known: %s)", key, tostring(o[key]), table.concat(CHOICES[key], ", ")) end
  end
  return o
end

--- What the files' own results depend on, as plain values: these options make the key of a part.
M.local_keys = {
  "polymer", "min_bytes", "max_bytes", "max_resolution", "need_resolution", "oligomeric", "one_chain", "homomer", "no_protein",
  "chains", "chain_gap", "trim", "types", "positions", "min_length", "max_length", "max_rows", "min_valid", "max_helix", "max_coil",
  "min_strand", "atoms", "fold_chains", "valid_by",
}

--- Options as plain values for JSON: infinite ones and functions are left out.
-- @tparam table o
-- @tparam table keys
-- @treturn table
function M.plain(o, keys)
  local result = {}
  for _, key in ipairs(keys) do
    local value = o[key]
    local kind = type(value)
    if kind == "string" or kind == "boolean" or (kind == "number" and math.abs(value) < math.huge) then result[key] = value end
  end
  return result
end

return M
