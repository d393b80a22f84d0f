--- Secondary structure by the rules of Kabsch and Sander (DSSP).
--
-- A hydrogen bond CO_j <- HN_i counts when 27.888 (1/d_ON + 1/d_CH - 1/d_OH - 1/d_CN) < -0.5 kcal/mol; each NH keeps its two
-- best. A turn of n is a bond CO_i <- HN_i+n; two turns in a row make a helix (H for 4, G for 3, I for 5). Bonds between
-- stretches make bridges; two or more in a row, bulges allowed, a ladder (E), one alone B. Precedence H, E, B, G, I. Turns and
-- bends are not told apart from coil: the letter of everything else is "-".

local cells = require "moonfold.metrics.cells"

local M = {}

local COUPLING, BOND, CA_NEAR = 27.888, -0.5, 9
local PEPTIDE = 2.5             -- a longer C-N distance is a break in the chain
local LEAST_DISTANCE, LEAST_ENERGY = 0.5, -9.9

-- Residues as a table: x[atom] is a flat list of coordinates; chain[i] grows by one at every break.
local function distance(a, i, b, j)
  local u, v, w = a[3 * i - 2] - b[3 * j - 2], a[3 * i - 1] - b[3 * j - 1], a[3 * i] - b[3 * j]
  return math.sqrt(u * u + v * v + w * w)
end

local function find_breaks(c, n, length, given)
  local chain, number = {}, 1
  for i = 1, length do
    local joined = i == 1 or distance(c, i - 1, n, i) <= PEPTIDE       -- a distance that is no number joins nothing
    if not joined or (given and i > 1 and given[i] ~= given[i - 1]) then number = number + 1 end
    chain[i] = number
  end
  return chain
end

-- The hydrogen of each peptide nitrogen, one angstrom along the carbonyl before it; on N itself where there is none.
local function hydrogens(x, chain, length)
  local h = {}
  for i = 1, length do
    local from = i > 1 and chain[i] == chain[i - 1]
    local d = from and distance(x.C, i - 1, x.O, i - 1) or 1
    for a = -2, 0 do
      local k = 3 * i + a
      h[k] = x.N[k] + (from and d > 0 and (x.C[k - 3] - x.O[k - 3]) / d or 0)
    end
  end
  return h
end

-- best[i] holds the two acceptors that NH of i binds best: { j, energy, j, energy }.
local function bonds(x, chain, length, proline)
  local h, best = hydrogens(x, chain, length), {}
  for i = 1, length do best[i] = { 0, 0, 0, 0 } end
  local function try(donor, acceptor)
    if proline[donor] then return end
    local ho, hc = distance(h, donor, x.O, acceptor), distance(h, donor, x.C, acceptor)
    local nc, no = distance(x.N, donor, x.C, acceptor), distance(x.N, donor, x.O, acceptor)
    local energy = LEAST_ENERGY
    if math.min(ho, hc, nc, no) >= LEAST_DISTANCE then
      energy = math.max(LEAST_ENERGY, COUPLING * (1 / no + 1 / hc - 1 / ho - 1 / nc))
      energy = math.floor(energy * 1000 + 0.5) / 1000
    end
    local list = best[donor]
    if energy < list[2] then
      list[1], list[2], list[3], list[4] = acceptor, energy, list[1], list[2]
    elseif energy < list[4] then
      list[3], list[4] = acceptor, energy
    end
  end
  cells.pairs(x.CA, CA_NEAR, function(i, j)
    try(i, j)
    if j ~= i + 1 then try(j, i) end
  end)
  return function(donor, acceptor)
    local list = best[donor]
    return list and (list[1] == acceptor and list[2] < BOND or list[3] == acceptor and list[4] < BOND) or false
  end
end

local function bridge_type(bond, chain, i, j)
  if not (chain[i - 1] == chain[i + 1] and chain[j - 1] == chain[j + 1]) then return nil end
  if (bond(i + 1, j) and bond(j, i - 1)) or (bond(j + 1, i) and bond(i, j - 1)) then return "parallel" end
  if (bond(i + 1, j - 1) and bond(j + 1, i - 1)) or (bond(j, i) and bond(i, j)) then return "antiparallel" end
end

-- Bridges grown into ladders; every ladder is a range in i and a range in j, running together or against each other.
local function find_ladders(bond, chain, x, length)
  local candidates = {}
  cells.pairs(x.CA, CA_NEAR, function(i, j)
    if j - i >= 3 and i > 1 and j < length and i < length - 3 then candidates[#candidates + 1] = { i, j } end
  end)
  table.sort(candidates, function(p, q) return p[1] < q[1] or (p[1] == q[1] and p[2] < q[2]) end)
  local ladders = {}
  for _, pair in ipairs(candidates) do
    local i, j = pair[1], pair[2]
    local kind = bridge_type(bond, chain, i, j)
    if kind then
      local grown = false
      for _, l in ipairs(ladders) do
        if l.kind == kind and i == l.i2 + 1 then
          if kind == "parallel" and j == l.j2 + 1 then
            l.i2, l.j2, grown = i, j, true
          elseif kind == "antiparallel" and j == l.j1 - 1 then
            l.i2, l.j1, grown = i, j, true
          end
          if grown then l.size = l.size + 1; break end
        end
      end
      if not grown then ladders[#ladders + 1] = { kind = kind, i1 = i, i2 = i, j1 = j, j2 = j, size = 1 } end
    end
  end
  table.sort(ladders, function(p, q) return p.i1 < q.i1 or (p.i1 == q.i1 and p.j1 < q.j1) end)
  return ladders
end

-- Joins ladders across a bulge: at most four extra residues on one side and one on the other.
local function join_bulges(ladders, chain)
  local k = 1
  while k <= #ladders do
    local a, m = ladders[k], k + 1
    while m <= #ladders do
      local b = ladders[m]
      local gap = b.i1 - a.i2
      local apart = a.kind ~= b.kind or chain[math.min(a.i1, b.i1)] ~= chain[math.max(a.i2, b.i2)]
        or chain[math.min(a.j1, b.j1)] ~= chain[math.max(a.j2, b.j2)] or gap >= 6 or (a.i2 >= b.i1 and a.i1 <= b.i2)
      local across = a.kind == "parallel" and b.j1 - a.j2 or a.j1 - b.j2
      if not apart and across >= 0 and ((across < 6 and gap < 3) or across < 3) then
        a.i2, a.size = b.i2, a.size + b.size
        if a.kind == "parallel" then a.j2 = b.j2 else a.j1 = b.j1 end
        table.remove(ladders, m)
      else
        m = m + 1
      end
    end
    k = k + 1
  end
end

local function mark_ladders(ss, ladders)
  local function mark(first, last, letter)
    for i = first, last do
      if ss[i] ~= "E" then ss[i] = letter end
    end
  end
  for _, l in ipairs(ladders) do
    local letter = l.size > 1 and "E" or "B"
    mark(l.i1, l.i2, letter)
    mark(l.j1, l.j2, letter)
  end
end

local function mark_helix(ss, bond, chain, length, stride, letter)
  local function starts(i) return i + stride <= length and chain[i] == chain[i + stride] and bond(i + stride, i) end
  for i = 2, length - stride do
    if starts(i) and starts(i - 1) then
      local free = true
      for j = i, i + stride - 1 do
        free = free and (letter == "H" or ss[j] == "-" or ss[j] == letter)
      end
      if free then
        for j = i, i + stride - 1 do ss[j] = letter end
      end
    end
  end
end

--- Letters H, G, I, E, B or - of each residue.
-- @tparam table x `N`, `CA`, `C`, `O`: flat lists of coordinates in angstrom, three numbers a residue
-- @tparam[opt] table o `chain`: a list with a value for each residue, a break where it changes (long C-N distances are
--   breaks in any case); `proline`: a list, true where the nitrogen has no hydrogen
-- @treturn string one letter a residue
-- @usage dssp.assign(x):gsub("[^HGI]", "")   -- the helical residues
function M.assign(x, o)
  local length = #x.CA / 3
  if length == 0 then return "" end
  local chain = find_breaks(x.C, x.N, length, o and o.chain)
  local bond = bonds(x, chain, length, o and o.proline or {})
  local ss = {}
  for i = 1, length do ss[i] = "-" end
  local ladders = find_ladders(bond, chain, x, length)
  join_bulges(ladders, chain)
  mark_ladders(ss, ladders)
  mark_helix(ss, bond, chain, length, 4, "H")
  mark_helix(ss, bond, chain, length, 3, "G")
  mark_helix(ss, bond, chain, length, 5, "I")
  return table.concat(ss)
end

--- Shares of helix (H, G, I), strand (E, B) and coil.
-- @tparam string letters from `assign`
-- @treturn table `helix`, `strand`, `coil`, `non_coil`
function M.shares(letters)
  local n = math.max(#letters, 1)
  local _, helix = letters:gsub("[HGI]", "")
  local _, strand = letters:gsub("[EB]", "")
  return { helix = helix / n, strand = strand / n, coil = (#letters - helix - strand) / n, non_coil = (helix + strand) / n }
end

return M
