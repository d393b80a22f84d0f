--- Motifs to scaffold: which residues of a structure are given, and how many lie between them.
--
--     local motif = mf.motif { file = "5tpn.pdb", contig = "10-40,A163-181,10-40", length = "56-75" }
--     for i, s in mf.sample(model, flow, { motif = motif, n = 8 }) do print(i, s.contig, s.motif_rmsd) end
--
-- A contig is written as for RFdiffusion. Its parts stand between "," or "/", in the order of the chain that is made:
--
--     10-40        from 10 to 40 residues that are generated, drawn anew for every sample; 12: so many
--     A163-181     residues of the file by chain letter and number, both ends included; A170: one
--     0            the chain ends here and another begins
--
-- `length` bounds the residues of all chains together: every choice that keeps to it is equally likely. A PDB file with Genie 2's
-- `REMARK 999 INPUT` records says both itself. The frames of the motif are placed with the centre of their CA (C4') at the origin,
-- where training has them (flow.se3), and a sampler leaves them there bit for bit.
-- @module moonfold.motif
local mf = require "moonfold"
local atoms = require "moonfold.atoms"
local contigs = require "moonfold.motif.contig"
local fail = require "moonfold.fail"
local options = require "moonfold.options"
local streams = require "moonfold.flow.streams"

local OPTIONAL, REQUIRED = options.OPTIONAL, options.REQUIRED

local M = {}
local Motif = {}
Motif.__index = Motif

--- Options of a motif and their defaults.
M.defaults = {
  file = REQUIRED,        -- a structure, as mf.structure.read takes it
  contig = OPTIONAL,      -- by default what the file's REMARK 999 INPUT say
  length = OPTIONAL,      -- residues in all: 60 or "55-80"
}

-- A gap in the residue index where one chain ends and the next begins, as RFdiffusion has it.
local BREAK = 200

-- ---- reading ------------------------------------------------------------------------------------------------

local function chain_of(s, id, path)
  local known = {}
  for _, chain in ipairs(s:chains(1)) do
    if chain.residues > 0 then
      if chain.id == id then return chain end
      known[#known + 1] = chain.id
    end
  end
  fail("motif: %s has no chain '%s' (known: %s)", path, id, table.concat(known, ", "))
end

-- The rows of the residues first..last of a chain.
local function rows_of(chain, part, path)
  local at, rows = {}, {}
  for row, number in ipairs(chain.numbers) do at[number] = at[number] or row end
  for number = part.first, part.last do
    rows[#rows + 1] = at[number] or fail("motif: %s has no residue %s%d", path, part.chain, number)
  end
  return rows
end

-- Frames and torsions of every part that comes from the file, and their kind.
local function read_parts(s, parts, path)
  local kind, columns = nil, { translations = {}, rotations = {}, torsions = {}, torsion_mask = {} }
  for _, part in ipairs(parts) do
    if part.chain then
      local chain = chain_of(s, part.chain, path)
      if chain.polymer ~= "protein" and chain.polymer ~= "rna" then
        fail("motif: chain %s of %s is %s, expected protein or rna", part.chain, path, chain.polymer)
      end
      if kind and kind ~= chain.polymer then fail("motif: the chains of %s are %s and %s", path, kind, chain.polymer) end
      kind = chain.polymer
      local rules = atoms.of(kind)
      local x, present = s:atoms(chain.index, rules.inputs)
      local rows = rows_of(chain, part, path)
      for i, row in ipairs(rows) do rows[i] = row - 1 end
      local index = mf.tensor(rows, { dtype = "int32" })
      local f = rules.features(x:index_select(1, index), present:index_select(1, index))
      for i, valid in ipairs(f.mask:float():values()) do
        if valid == 0 then
          fail("motif: residue %s%d of %s has no frame: backbone atoms are missing", part.chain, part.first + i - 1, path)
        end
      end
      for name, list in pairs(columns) do list[#list + 1] = f[name] end
    end
  end
  if not kind then fail "motif: the contig names no residue of the file (for lengths alone, sample with lengths)" end
  for name, list in pairs(columns) do columns[name] = mf.cat(list, 1) end
  return kind, columns
end

-- ---- drawing ------------------------------------------------------------------------------------------------

-- Rows of the motif at their places, zeros elsewhere.
local function placed(x, index, length)
  local shape = x:shape()
  shape[1] = length
  return mf.zeros(shape, { dtype = x:dtype() }):index_add(1, index, x)
end

local function lay_out(self, counts)
  local places, fixed, numbers, chain, said = {}, {}, {}, {}, {}
  local chains, n, gap = { 0 }, 0, 0
  for k, part in ipairs(self.parts) do
    if part.ends then
      gap = gap + BREAK
      chains[#chains + 1] = 0
    else
      for _ = 1, counts[k] do
        n = n + 1
        fixed[n], numbers[n], chain[n] = part.chain and 1 or 0, n - 1 + gap, #chains - 1
        if part.chain then places[#places + 1] = n - 1 end
      end
      chains[#chains] = chains[#chains] + counts[k]
    end
    if part.ends or counts[k] > 0 then said[#said + 1] = contigs.text(part, counts[k]) end
  end
  for c = #chains, 1, -1 do if chains[c] == 0 then table.remove(chains, c) end end
  local at = mf.tensor(places, { dtype = "int32" })
  local whole = {
    length = n, contig = table.concat(said, ","), chains = chains, places = at, motif = self,
    fixed = mf.tensor(fixed):gt(0.5),
    index = mf.tensor(numbers, { dtype = "int32" }), chain = mf.tensor(chain, { dtype = "int32" }),
    translations = placed(self.translations, at, n), rotations = placed(self.rotations, at, n),
    torsions = placed(self.torsions, at, n), torsion_mask = placed(self.torsion_mask:float(), at, n):gt(0.5),
  }
  -- where nothing is fixed any rotation will do, but it must be one
  local eye = mf.eye(3):unsqueeze(1):expand(n, 3, 3)
  whole.rotations = mf.where(whole.fixed:reshape(n, 1, 1), whole.rotations, eye)
  return whole
end

--- One way to lay the motif out: a function of the seed and the number of the sample.
-- @tparam number seed
-- @tparam number number
-- @treturn table `length`, `contig` (what became of it: "17,A163-181,24"), `chains` (residues of each), and for each residue
--   `fixed` bool, `index` from 0 and `chain` from 0 int32; for the fixed ones `translations` (L, 3) angstrom, `rotations`
--   (L, 3, 3), `torsions` (L, K, 2), `torsion_mask` (L, K)
-- @usage local plan = motif:draw(123, 1); print(plan.contig, plan.length)
function Motif:draw(seed, number)
  return mf.no_grad(lay_out, self, self.choices:draw(streams.rng(seed, "motif", 0, number)))
end
Motif.__call = Motif.draw

--- Root mean square distance of the motif's CA (C4') from where the file has them, after superposition.
-- @tparam tensor translations (L, 3) angstrom, of a sample
-- @tparam table plan from `draw`
-- @treturn number angstrom
function Motif:rmsd(translations, plan)
  local given = translations:to("cpu"):index_select(1, plan.places)
  local _, _, rmsd = mf.geometry.kabsch(given, self.translations, nil, mf.packing { given:size(1) })
  return rmsd:item()
end

function Motif:__tostring()
  local least, most = self.choices:range()
  return ("motif of %s: %s, %d residues given, %s in all"):format(self.file, self.contig, self.translations:size(1),
    least == most and tostring(least) or ("%d to %d"):format(least, most))
end

--- A motif.
-- @tparam table o see `defaults`
-- @treturn Motif called with (seed, number), it is `draw`; `kind` is "protein" or "rna"
-- @usage local motif = mf.motif { file = "1abc.cif.gz", contig = "5-15,A42-50,10-20", length = 35 }
function M.new(o)
  o = options("motif", M.defaults, o)
  if not o.contig then
    o.contig, o.length = contigs.of_remarks(o.file, o.length)
  end
  local parts = contigs.parse(o.contig)
  local self = setmetatable({ file = o.file, contig = o.contig, parts = parts }, Motif)
  self.choices = contigs.choices(parts, o.length)
  local kind, columns = read_parts(mf.structure.read(o.file), parts, o.file)
  self.kind = kind
  for name, tensor in pairs(columns) do self[name] = tensor end
  self.translations = (self.translations:double() - self.translations:double():mean(1, true)):float()
  return self
end

return setmetatable(M, { __call = function(_, o) return M.new(o) end })
