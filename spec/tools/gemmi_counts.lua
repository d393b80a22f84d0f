--- Holds what is read of every file against gemmi (Debian package python3-gemmi): models, chains, residues, atoms, alternate
-- locations, and of each atom its place in these, coordinates to the last digit, B, occupancy, element and charge.
--
--     moonfold spec/tools/gemmi_counts.lua [folder or file ...]      -- ../shared/data/protein, rna and edge
--
-- Ends with status 1 for a difference that known_differences.lua does not justify, and for one listed there that is gone.
local ffi = require "ffi"
local mf = require "moonfold"
local binding = require "moonfold.ffi"
local files = require "moonfold.files"
local pythons = require "spec.tools.pythons"

local C = binding.C
local here = arg[0]:match "^(.*)/[^/]*$" or "."
local known = dofile(here .. "/known_differences.lua")
local given = #arg > 0
local folders = given and arg or { "../shared/data/protein", "../shared/data/rna", "../shared/data/edge" }

ffi.cdef [[
  typedef struct { double x[3]; float occupancy, b; char atom[8], residue[8], chain[8], element[4]; int32_t model, number;
                   char altloc, insertion, hetero, pad; int8_t charge; char rest[3]; } spec_gemmi_atom;
]]
local SIZE = ffi.sizeof "spec_gemmi_atom"
assert(SIZE == 80, "the record of gemmi_counts.py")

local python = pythons("gemmi")[1]
local list = {}
for _, folder in ipairs(folders) do
  local found = folder:find "%.[%a.]+$" and { folder } or files.list(folder, { ".pdb", ".pdb.gz", ".cif", ".cif.gz" })
  for _, path in ipairs(found) do list[#list + 1] = path end
end
if not python or #list == 0 then
  print(python and "skipped: no structures in " .. folders[1] or "skipped: no gemmi for python3")
  os.exit(0)
end
table.sort(list)

local function put(field, room, text) ffi.copy(field, text, math.min(#text, room)) end

-- Ours as the same records, and the counts.
local function ours(path)
  local ok, s = pcall(mf.structure.read, path, { altlocs = "all" })
  if not ok then return nil, (s:gsub("^[^']*'[^']*': ", "")) end
  local n, read = s:counts(), s:read_counts()
  local records = ffi.new("spec_gemmi_atom[?]", math.max(n.atoms, 1))
  local chain, residue, atom = ffi.new "mf_chain_info", ffi.new "mf_residue_info", ffi.new "mf_atom_info"
  local function text(what, i) return ffi.string(C.mf_structure_text(s.handle, what, i)) end
  local k = 0
  for c = 0, n.chains - 1 do
    C.mf_structure_chain(s.handle, c, chain)
    local chain_id = text(C.MF_TEXT_CHAIN, c)
    for r = tonumber(chain.first_residue), tonumber(chain.first_residue + chain.residues) - 1 do
      C.mf_structure_residue(s.handle, r, residue)
      local name = text(C.MF_TEXT_RESIDUE, r)
      for a = tonumber(residue.first_atom), tonumber(residue.first_atom + residue.atoms) - 1 do
        C.mf_structure_atom(s.handle, a, atom)
        local o = records[k]
        k = k + 1
        o.x[0], o.x[1], o.x[2], o.occupancy, o.b = atom.x, atom.y, atom.z, atom.occupancy, atom.b
        put(o.atom, 8, text(C.MF_TEXT_ATOM, a))
        put(o.residue, 8, name)
        put(o.chain, 8, chain_id)
        local element = text(C.MF_TEXT_ELEMENT, a)
        put(o.element, 4, element == "" and "X" or element)
        o.model, o.number, o.altloc, o.insertion = chain.model, residue.number, atom.altloc, residue.insertion
        o.hetero, o.charge = residue.hetero ~= 0 and 72 or 65, atom.charge
      end
    end
  end
  return { n.models, n.chains, n.residues, n.atoms, read.alternates }, ffi.string(records, SIZE * n.atoms)
end

local NAMES = { "models", "chains", "residues", "atoms", "alternates" }
local function show(bytes)
  local a = ffi.cast("const spec_gemmi_atom *", bytes)
  local function word(field, room) return (ffi.string(field, room):gsub("%z.*", "")) end
  local function letter(c) return c == 0 and "" or string.char(c) end
  return ("model %d chain '%s' %s %d%s %s%s %s (%.17g %.17g %.17g) occupancy %g B %g charge %d %s"):format(a.model,
    word(a.chain, 8), word(a.residue, 8), a.number, letter(a.insertion), word(a.atom, 8), letter(a.altloc), word(a.element, 4),
    a.x[0], a.x[1], a.x[2], a.occupancy, a.b, a.charge, letter(a.hetero))
end

-- Records of one that the other lacks, whatever their order.
local function missing(from, other)
  local count, example, n = {}, nil, 0
  for i = 1, #other, SIZE do
    local r = other:sub(i, i + SIZE - 1)
    count[r] = (count[r] or 0) + 1
  end
  for i = 1, #from, SIZE do
    local r = from:sub(i, i + SIZE - 1)
    if (count[r] or 0) > 0 then count[r] = count[r] - 1 else n, example = n + 1, example or r end
  end
  return n, example
end

-- Where the columns of B are absent or blank it is 0 here and 20 in gemmi: those become 0 too. How many there were.
local function without_b(data, theirs)
  local n = 0
  if #data ~= #theirs then return theirs, n end
  local copy = ffi.new("char[?]", #theirs + 1, theirs)
  local a, b = ffi.cast("const spec_gemmi_atom *", data), ffi.cast("spec_gemmi_atom *", copy)
  for k = 0, #data / SIZE - 1 do
    if a[k].b == 0 and b[k].b == 20 then b[k].b, n = 0, n + 1 end
  end
  return ffi.string(copy, #theirs), n
end

-- The first difference, or nil.
local function difference(counts, data, their_counts, theirs)
  for i, name in ipairs(NAMES) do
    if counts[i] ~= their_counts[i] then return ("%d %s, gemmi %d"):format(counts[i], name, their_counts[i]) end
  end
  if data == theirs then return nil end
  local more, mine = missing(data, theirs)
  local _, other = missing(theirs, data)
  if more == 0 then return "another order" end
  return ("%d atoms differ: %s; gemmi: %s"):format(more, show(mine), show(other))
end

local names = os.tmpname()
local out = assert(io.open(names, "w"))
out:write(table.concat(list, "\n"), "\n")
out:close()
local pipe = io.popen(("%s %s/gemmi_counts.py < %s"):format(python, here, names))
local totals = { files = 0, equal = 0, refused = 0, justified = 0, without_b = 0 }
local sums, bad, met = { 0, 0, 0, 0, 0 }, {}, {}
local verbose = os.getenv "MOONFOLD_LONG"

for _, path in ipairs(list) do
  local head = pipe:read "*l"
  local reason, their_counts, theirs = head:match "^! (.*)$", {}, ""
  if not reason then
    for word in head:gmatch "%d+" do their_counts[#their_counts + 1] = tonumber(word) end
    theirs = their_counts[4] > 0 and pipe:read(SIZE * their_counts[4]) or ""
  end
  local counts, data = ours(path)
  local found
  if not counts then found = "refused: " .. data .. (reason and "; gemmi too" or ("; gemmi: %d atoms"):format(their_counts[4]))
  elseif reason then found = "gemmi refuses: " .. reason
  else
    local same_b, n = without_b(data, theirs)
    if n > 0 then totals.without_b = totals.without_b + 1 end
    found = difference(counts, data, their_counts, same_b)
  end
  totals.files = totals.files + 1
  if counts then for i = 1, 5 do sums[i] = sums[i] + counts[i] end end
  local name = path:match "([^/]*/[^/]*)$" or path
  local entry = known[name]
  if entry then met[name] = true end
  if not found then
    totals.equal = totals.equal + 1
    if entry then bad[#bad + 1] = name .. ": is equal now, but listed" end
  elseif not entry or not found:find(entry[1], 1, true) then
    bad[#bad + 1] = ("%s: %s%s"):format(name, found, entry and (" (listed: %s)"):format(entry[1]) or "")
  else
    totals[counts and "justified" or "refused"] = totals[counts and "justified" or "refused"] + 1
    if verbose then print(("%s: %s: %s"):format(name, entry[1], entry[2])) end
  end
end
pipe:close()
os.remove(names)
for name in pairs(known) do
  if not given and not met[name] then bad[#bad + 1] = name .. ": listed, but not there" end
end
table.sort(bad)
for _, text in ipairs(bad) do print("different: " .. text) end
print(("structures: %d files: %d equal to gemmi's, %d differ as listed, %d refused as listed, %d unexplained"):format(totals.files,
  totals.equal, totals.justified, totals.refused, #bad))
print(("  %d models, %d chains, %d residues, %d atoms, %d with an alternate location"):format(unpack(sums)))
print(("  %d of them without B factors in some line: 0 here, 20 in gemmi"):format(totals.without_b))
os.exit(#bad == 0 and 0 or 1)
