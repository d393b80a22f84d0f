--- TM-score, GDT and superposed distances of structures whose residues correspond one to one (metrics.md 2).
--
-- For structures without a correspondence see metrics.align.

local ffi = require "ffi"
local binding = require "moonfold.ffi"
local fail = require "moonfold.fail"
local options = require "moonfold.options"

local C, check = binding.C, binding.check
local M = {}

local POLYMERS = { protein = C.MF_POLYMER_PROTEIN, rna = C.MF_POLYMER_RNA, dna = C.MF_POLYMER_DNA }
local ATOMS = { protein = "CA", rna = "C3'", dna = "C3'" }

local function polymer_of(kind, what)
  return POLYMERS[kind] or fail("%s: kind is '%s', expected 'protein', 'rna' or 'dna'", what, tostring(kind))
end

--- The scale d0 of the TM-score: by one rule for proteins (of CA), by another for RNA and DNA (of C3').
-- @tparam number length residues
-- @tparam[opt="protein"] string kind "protein", "rna" or "dna"
-- @treturn number angstrom
-- @usage mf.metrics.tm_d0(150)          --> 4.561
--        mf.metrics.tm_d0(150, "rna")   --> 4.836
function M.tm_d0(length, kind)
  if type(length) ~= "number" or length < 1 or length % 1 ~= 0 then
    fail("metrics.tm_d0: length is %s, expected a number of residues", tostring(length))
  end
  return C.mf_tm_d0(length, polymer_of(kind or "protein", "metrics.tm_d0"))
end

-- Flat coordinates of what is compared, and its kind where it tells one.
local function trace_of(x, what, position)
  if binding.is_tensor(x) then
    if x:ndim() ~= 2 or x:size(2) ~= 3 then fail("%s: argument %d is %s, expected (N, 3)", what, position, tostring(x)) end
    return x:values()
  end
  if type(x) == "table" and x.kind and x.atoms and x.translations then
    local atoms, names = x:atoms()
    for k, name in ipairs(names) do
      if name == ATOMS[x.kind] then return atoms:select(2, k):contiguous():values(), x.kind end
    end
  end
  fail("%s: argument %d must be a tensor (N, 3) or a sampled structure, got %s", what, position, type(x))
end

local defaults = { kind = options.OPTIONAL, length = options.OPTIONAL, d0 = options.OPTIONAL }

--- How alike two structures are, residue i of one against residue i of the other.
-- The search is that of the program TMscore, every start of it, and gives its digits.
-- @param a tensor (N, 3) of CA (C3' of nucleic acids) in angstrom, or a structure that was sampled
-- @param b the same for the other, which stays in place
-- @tparam ?table o `kind` ("protein", or what the structures are): whose d0; `length` (N): residues that the shares are of, the
--   longer structure's when only N of its residues correspond; `d0` in angstrom, by kind and length otherwise
-- @treturn table `tm`; `gdt_ts`, `gdt_ha`: largest shares within 1, 2, 4, 8 (0.5, 1, 2, 4) angstrom, averaged; after the one
--   superposition of all pairs: `rmsd`, `mean_distance` (what FrameDiff and FoldFlow call rmsd), `gdt_superposed` (what the RNA
--   suite calls GDT); `rotation`, `translation`: lists, the TM-score's own motion of a
-- @usage local s = mf.metrics.tm_score(mf.randn(20, 3), mf.randn(20, 3))
--        print(s.tm, s.gdt_ts, s.rmsd)
function M.tm_score(a, b, o)
  o = options("metrics.tm_score", defaults, o or {})
  local p, kind = trace_of(a, "metrics.tm_score", 1)
  local q, other = trace_of(b, "metrics.tm_score", 2)
  if kind and other and kind ~= other then fail("metrics.tm_score: a %s and a %s are not compared", kind, other) end
  kind = o.kind or kind or other or "protein"
  local polymer, n = polymer_of(kind, "metrics.tm_score"), #p / 3
  if #q ~= #p then fail("metrics.tm_score: %d residues against %d; they must correspond one to one", n, #q / 3) end
  local length = o.length or n
  if type(length) ~= "number" or length % 1 ~= 0 then
    fail("metrics.tm_score: length is %s, expected a whole number", tostring(length))
  end
  local result = ffi.new "mf_tm_result"
  check(C.mf_tm_score(result, ffi.new("double[?]", #p + 1, p), ffi.new("double[?]", #q + 1, q), n, length,
    o.d0 or C.mf_tm_d0(length, polymer)))
  local out = { rotation = {}, translation = {} }
  for _, name in ipairs { "tm", "gdt_ts", "gdt_ha", "gdt_superposed", "rmsd", "mean_distance" } do out[name] = result[name] end
  for k = 1, 9 do out.rotation[k] = result.rotation[k - 1] end
  for k = 1, 3 do out.translation[k] = result.translation[k - 1] end
  return out
end

return M
