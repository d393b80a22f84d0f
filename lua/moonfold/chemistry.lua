--- What a structure is made of: secondary structure, torsions, contacts, clashes, base pairs, base frames.
--
-- Every function is a method of structures too, and looks at one model (`model`, default 1).
--
--     local s = mf.structure.read "1ubq.pdb.gz"
--     s:secondary_structure()[1]                --> "-EEEEEETTS-EEEEE-TTSBHHHHHHHHHHHH---GGGEEEEETTEE-..."
--     s:torsions()[1][2].phi                    --> -91.02 (degrees)
--     s:contacts { cutoff = 8 }                 --> pairs (K, 2), distances (K)
--     s:base_pairs(), s:dot_bracket()
--     mf.chemistry.residue("MSE").parent        --> "MET", with code, polymer and the heavy atoms
--     s:base_frames()[1].translations           --> (N, 3), with rotations, mask and rmsd
--     print(s:show())  s:contact_map "map.png"
--
-- Results for polymer residues are lists by chain index, of one entry a residue as in `chain.sequence`. Residues and atoms
-- are counted from 1 over the whole structure, as `structure:residues` counts them; tensors of indices hold positions from 0.
-- @module moonfold.chemistry

local ffi = require "ffi"
local binding = require "moonfold.ffi"
local fail = require "moonfold.fail"
local heavy = require "moonfold.atoms.heavy"
local options = require "moonfold.options"

local C, check = binding.C, binding.check
local M = {}

local OPTIONAL = options.OPTIONAL

local function handle_of(s, what)
  if type(s) ~= "table" or type(s.handle) ~= "cdata" then fail("%s: takes a structure that was read or built", what) end
  return s.handle
end

local function read_options(what, defaults, o)
  if type(o) == "number" then o = { model = o } end
  return options(what, defaults, o or {})
end

-- visit(chain record, residue index from 0) for the polymer residues of a model.
local function each_residue(s, model, visit)
  local chain, residue = ffi.new "mf_chain_info", ffi.new "mf_residue_info"
  for c = 0, s:counts().chains - 1 do
    check(C.mf_structure_chain(s.handle, c, chain))
    if chain.model == model then
      local first = tonumber(chain.first_residue)
      for r = first, first + tonumber(chain.residues) - 1 do
        check(C.mf_structure_residue(s.handle, r, residue))
        if residue.label ~= 0 then visit(c + 1, chain.polymer, r) end
      end
    end
  end
end

local function check_model(s, what, model)
  local models = s:counts().models
  if type(model) ~= "number" or model < 1 or model > models or model % 1 ~= 0 then
    fail("%s: there is no model %s, the structure has %d", what, tostring(model), models)
  end
end

local KINDS = { [0] = "unknown", "protein", "rna", "dna", "nucleic", "cap", "water" }

--- What a residue's name means, by the wwPDB's Chemical Component Dictionary and the names that force fields use.
-- @tparam string name "ALA", "MSE", "DG", "PSU"
-- @treturn table `name`; `polymer` ("protein", "rna", "dna", "nucleic" of either sugar, "cap", "water", "unknown"); `code`: one
--   letter, the parent's where modified, "X" unknown; `standard`; `parent`: the standard residue that it is or derives from and
--   `atoms`: the names of that one's heavy atoms, without OXT and OP3, both nil without a parent
-- @usage chemistry.residue("ALA").atoms --> { "N", "CA", "C", "O", "CB" }
-- @usage chemistry.residue("MSE").parent --> "MET"
function M.residue(name)
  if type(name) ~= "string" then fail("chemistry.residue: takes the name of a residue, not a %s", type(name)) end
  local kind = ffi.new "mf_residue_kind"
  C.mf_residue_describe(kind, name)
  local parent = ffi.string(kind.parent)
  local atoms = heavy[parent]
  return {
    name = name, polymer = KINDS[kind.kind], code = string.char(kind.code), standard = kind.standard ~= 0,
    parent = parent ~= "" and parent or nil, atoms = atoms and { unpack(atoms) },
  }
end

local CLASSES = { H = "H", G = "H", I = "H", E = "E", B = "E", ["?"] = "?" }

--- Reduces the letters of DSSP to helix H (of H, G, I), strand E (of E, B) and coil C.
-- @tparam string letters
-- @treturn string of H, E, C, and "?" where it was
-- @usage chemistry.three_classes "HHTGE-" --> "HHCHEC"
function M.three_classes(letters)
  return (letters:gsub(".", function(letter) return CLASSES[letter] or "C" end))
end

local dssp_defaults = { model = 1, ppii = 3, classes = 8 }

--- Secondary structure by the rule of DSSP 4, over all protein chains of a model together.
-- @tparam Structure s
-- @tparam ?table o `model`; `ppii` (3): residues a polyproline helix takes, 2 or 3, 0 for none; `classes` (8): 3 gives H, E, C
-- @treturn table by chain index, for protein chains: one letter for each residue of `chain.sequence`: H alpha, G 3-10, I pi helix,
--   E strand, B bridge, T turn, S bend, P polyproline, - other, ? where N, CA, C or O is missing
-- @usage s:secondary_structure { ppii = 0 }[1]
function M.secondary_structure(s, o)
  local handle = handle_of(s, "secondary_structure")
  o = read_options("secondary_structure", dssp_defaults, o)
  if o.classes ~= 8 and o.classes ~= 3 then fail("secondary_structure: classes is %s, expected 8 or 3", tostring(o.classes)) end
  local letters = ffi.new("char[?]", s:counts().residues + 1)
  check(C.mf_structure_dssp(letters, handle, o.model, o.ppii))
  local lists, result = {}, {}
  each_residue(s, o.model, function(c, polymer, r)
    if polymer ~= C.MF_POLYMER_PROTEIN then return end
    lists[c] = lists[c] or {}
    table.insert(lists[c], string.char(letters[r]))
  end)
  for c, list in pairs(lists) do
    result[c] = table.concat(list)
    if o.classes == 3 then result[c] = M.three_classes(result[c]) end
  end
  return result
end

--- Letters for coordinates that are no structure file's.
-- @tparam table x `N`, `CA`, `C`, `O`: flat lists of coordinates in angstrom, three numbers a residue
-- @tparam[opt] table o `chain`: a list with a value for each residue, a break where it changes (long C-N distances are
--   breaks in any case); `proline`: a list, true where the nitrogen has no hydrogen; `ppii` (0)
-- @treturn string one letter a residue
function M.backbone_letters(x, o)
  o = o or {}
  local n = #x.CA / 3
  local xyz = ffi.new("double[?]", math.max(12 * n, 1))
  for k, name in ipairs { "N", "CA", "C", "O" } do
    local from = x[name]
    if not from or #from ~= 3 * n then fail("dssp: %d coordinates of %s for %d residues", from and #from or 0, name, n) end
    for i = 0, n - 1 do
      for a = 0, 2 do xyz[12 * i + 3 * (k - 1) + a] = from[3 * i + a + 1] end
    end
  end
  local chain, proline
  if o.chain then
    chain = ffi.new("int32_t[?]", math.max(n, 1))
    for i = 1, n - 1 do chain[i] = chain[i - 1] + (o.chain[i + 1] ~= o.chain[i] and 1 or 0) end
  end
  if o.proline then
    proline = ffi.new("unsigned char[?]", math.max(n, 1))
    for i = 1, n do proline[i - 1] = o.proline[i] and 1 or 0 end
  end
  local letters = ffi.new("char[?]", math.max(n, 1))
  check(C.mf_backbone_dssp(letters, xyz, chain, proline, n, o.ppii or 0))
  return ffi.string(letters, n)
end

local TORSIONS = {
  "phi", "psi", "omega", "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "chi", "pucker", "pucker_amplitude",
}

--- Backbone torsions by their IUPAC names, in degrees.
-- omega is of the bond to the next residue, as psi is; epsilon and zeta reach into it too. chi is the glycosidic one. `pucker` is
-- the phase (0 to 360; C3'-endo about 18, C2'-endo about 162).
-- @tparam Structure s
-- @tparam ?table o `model`
-- @treturn table by chain index: a list for the residues of `chain.sequence` of tables with `phi`, `psi`, `omega`, or `alpha`,
--   `beta`, `gamma`, `delta`, `epsilon`, `zeta`, `chi`, `pucker`, `pucker_amplitude`; absent where atoms or neighbours are
-- @usage s:torsions()[1][2].phi
function M.torsions(s, o)
  local handle = handle_of(s, "torsions")
  o = read_options("torsions", { model = 1 }, o)
  local width = tonumber(C.MF_TORSION_COUNT)
  local angles = ffi.new("double[?]", math.max(s:counts().residues * width, 1))
  check(C.mf_structure_torsions(angles, handle, o.model))
  local result = {}
  each_residue(s, o.model, function(c, polymer, r)
    if polymer == C.MF_POLYMER_NONE then return end
    local row = {}
    for k, name in ipairs(TORSIONS) do
      local value = angles[r * width + k - 1]
      if value == value then row[name] = value end
    end
    result[c] = result[c] or {}
    table.insert(result[c], row)
  end)
  return result
end

--- A protein backbone of ideal bonds and angles from its torsions: what `torsions` gives, the other way round.
-- @tparam table rows a list of `phi`, `psi`, `omega` in degrees; an absent one is 180
-- @treturn tensor (N, 5, 3) float64: N, CA, C, O, CB in angstrom; N of the first residue is the origin
-- @usage local helix = {} for i = 1, 20 do helix[i] = { phi = -57, psi = -47, omega = 180 } end
--        local x = chemistry.backbone(helix)
function M.backbone(rows)
  local n = #rows
  local torsions, xyz = ffi.new("double[?]", math.max(3 * n, 1)), ffi.new("double[?]", math.max(15 * n, 1))
  for i, row in ipairs(rows) do
    for k = 1, 3 do torsions[3 * i - 4 + k] = row[TORSIONS[k]] or 0 / 0 end
  end
  check(C.mf_backbone_build(xyz, torsions, n))
  local out = ffi.new "mf_tensor *[1]"
  check(C.mf_tensor_from(out, binding.ctx, C.MF_CPU, C.MF_FLOAT64, 3, ffi.new("int64_t[3]", n, 5, 3), xyz))
  return binding.adopt(out[0])
end

--- Radius of gyration of the polymers' heavy atoms, equal masses.
-- @tparam Structure s
-- @tparam ?table o `model`
-- @treturn number angstrom, 0 without atoms
function M.radius_of_gyration(s, o)
  local handle = handle_of(s, "radius_of_gyration")
  o = read_options("radius_of_gyration", { model = 1 }, o)
  local radius = ffi.new "double[1]"
  check(C.mf_structure_gyration(radius, handle, o.model))
  return radius[0]
end

local function two_tensors(call, ...)
  local a, b = ffi.new "mf_tensor *[1]", ffi.new "mf_tensor *[1]"
  check(call(a, b, ...))
  return binding.adopt(a[0]), binding.adopt(b[0])
end

local contact_defaults = { model = 1, cutoff = 8, atoms = "representative", separation = 1 }

--- Pairs of residues of the polymers that are near each other.
-- @tparam Structure s
-- @tparam ?table o `model`; `cutoff` (8 angstrom); `atoms` ("representative": CA or C4'; "any": the nearest heavy atoms);
--   `separation` (1): pairs of one chain from so many residues apart on
-- @treturn tensor pairs (K, 2) int32, residues of the structure from 0, ascending
-- @treturn tensor distances (K) float32, angstrom
-- @usage local pairs, distances = s:contacts { cutoff = 5, atoms = "any", separation = 4 }
function M.contacts(s, o)
  local handle = handle_of(s, "contacts")
  o = read_options("contacts", contact_defaults, o)
  if o.atoms ~= "representative" and o.atoms ~= "any" then
    fail("contacts: atoms is '%s', expected 'representative' or 'any'", tostring(o.atoms))
  end
  local params = ffi.new("mf_contact_params[1]", { { cutoff = o.cutoff, model = o.model, each_atom = o.atoms == "any" and 1 or 0,
    separation = o.separation } })
  return two_tensors(function(...) return C.mf_structure_contacts(...) end, handle, binding.ctx, params)
end

local clash_defaults = { model = 1, overlap = OPTIONAL }

--- Pairs of heavy atoms of the polymers that are too near each other.
-- @tparam Structure s
-- @tparam ?table o `model`; `overlap`: how much nearer than the sum of the radii is no clash (1.5 between proteins, else 0.6)
-- @treturn tensor pairs (K, 2) int32, atoms of the structure from 0
-- @treturn tensor depths (K) float32: by how much, angstrom
function M.clashes(s, o)
  local handle = handle_of(s, "clashes")
  o = read_options("clashes", clash_defaults, o)
  if o.overlap and o.overlap < 0 then fail("clashes: overlap is %g, expected 0 or more", o.overlap) end
  return two_tensors(function(...) return C.mf_structure_clashes(...) end, handle, binding.ctx, o.model, o.overlap or -1)
end

local PAIR_KINDS = { [0] = "GC", "AU", "GU" }

--- Canonical and wobble base pairs of the nucleic chains of a model, by geometry.
-- @tparam Structure s
-- @tparam ?table o `model`
-- @treturn table a list of { `first`, `second`: residues of the structure from 1, `kind`: "GC", "AU" (A-T too) or "GU" }
-- @usage for _, p in ipairs(s:base_pairs()) do print(p.first, p.second, p.kind) end
function M.base_pairs(s, o)
  local handle = handle_of(s, "base_pairs")
  o = read_options("base_pairs", { model = 1 }, o)
  local pairs_, kinds = two_tensors(function(...) return C.mf_structure_base_pairs(...) end, handle, binding.ctx, o.model)
  local ends, kind, list = pairs_:values(), kinds:values(), {}
  for k = 1, #kind do list[k] = { first = ends[2 * k - 1] + 1, second = ends[2 * k] + 1, kind = PAIR_KINDS[kind[k]] } end
  pairs_:release()
  kinds:release()
  return list
end

--- Standard reference frames of the bases of nucleic chains.
-- The origin lies between the bases of an ideal pair, x points into the major groove, y along the pair toward the base's own
-- strand, z along the strand from 5' to 3': the partner's frame is that of the base, turned by half a turn about x. The frame
-- is the rigid motion that lays the ring of the standard base on the residue's. Modified bases count as their parents.
-- Source: Olson et al. (2001) J Mol Biol 313, 229.
-- @tparam Structure s
-- @tparam ?table o `model`
-- @treturn table by chain index, for RNA and DNA: `rotations` (N, 3, 3) whose columns are x, y, z, `translations` (N, 3) in
--   angstrom and `rmsd` (N) of the fit, float64, a row for each residue of `chain.sequence`; `mask` (N) bool, false where
--   less than half of a base's ring is there (the identity, 0 and 0 then)
-- @usage local f = s:base_frames()[1]
--        local normals = f.rotations:select(3, 3)      -- (N, 3)
function M.base_frames(s, o)
  local handle = handle_of(s, "base_frames")
  o = read_options("base_frames", { model = 1 }, o)
  check_model(s, "base_frames", o.model)
  local chain, result = ffi.new "mf_chain_info", {}
  local R, t, rmsd, mask = ffi.new "mf_tensor *[1]", ffi.new "mf_tensor *[1]", ffi.new "mf_tensor *[1]", ffi.new "mf_tensor *[1]"
  for c = 0, s:counts().chains - 1 do
    check(C.mf_structure_chain(handle, c, chain))
    if chain.model == o.model and (chain.polymer == C.MF_POLYMER_RNA or chain.polymer == C.MF_POLYMER_DNA) then
      check(C.mf_structure_base_frames(R, t, rmsd, mask, handle, binding.ctx, c))
      result[c + 1] = {
        rotations = binding.adopt(R[0]), translations = binding.adopt(t[0]), rmsd = binding.adopt(rmsd[0]),
        mask = binding.adopt(mask[0]),
      }
    end
  end
  return result
end

local BRACKETS = { "()", "[]", "{}", "<>" }
for k = 0, 25 do BRACKETS[#BRACKETS + 1] = string.char(65 + k) .. string.char(97 + k) end

-- Helices of pairs that stack: { i, j, length } with i, i + 1, ... to j, j - 1, ...
local function helices_of(list, place)
  local helices, open = {}, {}
  for _, p in ipairs(list) do
    local i, j = place[p.first], place[p.second]
    local before = open[(i - 1) .. "," .. (j + 1)]
    if before then before.length = before.length + 1
    else
      before = { i = i, j = j, length = 1 }
      helices[#helices + 1] = before
    end
    open[i .. "," .. j] = before
  end
  table.sort(helices, function(a, b) return a.length > b.length or (a.length == b.length and a.i < b.i) end)
  return helices
end

--- Base pairs in dot-bracket notation; helices that cross longer ones take [], {}, <>, Aa, ...
-- @tparam Structure s
-- @tparam ?table o `model`
-- @treturn string chains with "&" between, one character for each residue of `chain.sequence`
-- @treturn string the sequences in the same way
-- @usage print((s:dot_bracket()))
function M.dot_bracket(s, o)
  o = read_options("dot_bracket", { model = 1 }, o)
  local list = M.base_pairs(s, o)
  local place, marks, letters, last, residue = {}, {}, {}, nil, ffi.new "mf_residue_info"
  each_residue(s, o.model, function(c, polymer, r)
    if polymer ~= C.MF_POLYMER_RNA and polymer ~= C.MF_POLYMER_DNA then return end
    if last and last ~= c then marks[#marks + 1], letters[#letters + 1] = "&", "&" end
    last = c
    check(C.mf_structure_residue(s.handle, r, residue))
    marks[#marks + 1], letters[#letters + 1] = ".", string.char(residue.code)
    place[r + 1] = #marks
  end)
  local levels = {}
  for _, h in ipairs(helices_of(list, place)) do
    local level = 1
    local function crosses(other)
      return (h.i < other.i and other.i < h.j and h.j < other.j) or (other.i < h.i and h.i < other.j and other.j < h.j)
    end
    while level <= #BRACKETS do
      local free = true
      for _, other in ipairs(levels[level] or {}) do free = free and not crosses(other) end
      if free then break end
      level = level + 1
    end
    if level <= #BRACKETS then
      levels[level] = levels[level] or {}
      table.insert(levels[level], h)
      for k = 0, h.length - 1 do marks[h.i + k], marks[h.j - k] = BRACKETS[level]:sub(1, 1), BRACKETS[level]:sub(2, 2) end
    end
  end
  return table.concat(marks), table.concat(letters)
end

return M
