--- How far backbones rebuilt from frames and torsions are from the real ones: RMSD of each chain, and of each atom name.
--
--     luajit spec/tools/rebuild.lua [folder [every]]       -- ../shared/data/protein and rna
--
-- Proteins: N, CA, C, CB, O; CB is compared where the residue has one. RNA: 13 atoms. No superposition: frames place atoms.
-- Ends with status 1 where the median over protein chains is above 0.1 angstrom.
local mf = require "moonfold"
local files = require "moonfold.files"

local folders = arg[1] and { arg[1] } or { "../shared/data/protein", "../shared/data/rna" }
local every = tonumber(arg[2]) or 1

local SPELLED = { N9 = "N9|N1", OP1 = "OP1|O1P", OP2 = "OP2|O2P" }

-- Rebuilt and real positions, and which can be compared.
local function rebuilt(s, chain)
  local rules = mf.atoms.of(chain.polymer)
  local x, mask = s:atoms(chain.index, rules.inputs)
  local f = rules.features(x, mask)
  local names = { unpack(rules.names) }
  if chain.polymer == "rna" then names[13] = "O2'" end
  local built = rules.build(f.rotations, f.translations, f.torsions, { o2_prime = true })
  local present = rules.present(f.mask, f.torsion_mask)
  if chain.polymer == "rna" then     -- O2' hangs on C2' and C1'
    local hangs = f.mask:logical_and(f.torsion_mask:select(2, 1)):logical_and(f.torsion_mask:select(2, 2))
    present = mf.cat({ present, hangs:unsqueeze(2):contiguous() }, 2)
  end
  local spelled = {}
  for k, name in ipairs(names) do spelled[k] = SPELLED[name] or name end
  local real, there = s:atoms(chain.index, spelled)
  return built, real, present:logical_and(there), names
end

local function quantile(list, q)
  if #list == 0 then return 0 / 0 end
  return list[math.max(1, math.ceil(q * #list))]
end

local kinds = { protein = { rmsd = {}, atoms = {}, residues = 0 }, rna = { rmsd = {}, atoms = {}, residues = 0 } }
for _, folder in ipairs(folders) do
  local list = files.list(folder, { ".pdb", ".pdb.gz", ".cif", ".cif.gz" })
  table.sort(list)
  if #list == 0 then print("skipped: no structures in " .. folder) end
  for k = 1, #list, every do
    local ok, s = pcall(mf.structure.read, list[k])
    for _, chain in ipairs(ok and s:chains(1) or {}) do
      local kind = kinds[chain.polymer]
      if kind and chain.residues >= 18 then
        mf.scope(function()
          local built, real, both, names = mf.no_grad(rebuilt, s, chain)
          local d = (built - real):square():sum(3):values()
          local mask, sum, count = both:values(), 0, 0
          for at = 1, #d do
            if mask[at] ~= 0 and mask[at] ~= false then
              local name = names[(at - 1) % #names + 1]
              local sums = kind.atoms[name] or { 0, 0 }
              sums[1], sums[2] = sums[1] + d[at], sums[2] + 1
              kind.atoms[name] = sums
              sum, count = sum + d[at], count + 1
            end
          end
          if count > 0 then table.insert(kind.rmsd, math.sqrt(sum / count)) end
          kind.residues, kind.names = kind.residues + chain.residues, names
        end)
      end
    end
  end
end

local median = 0
for _, name in ipairs { "protein", "rna" } do
  local kind = kinds[name]
  if #kind.rmsd > 0 then
    table.sort(kind.rmsd)
    print(("%s: %d chains of at least 18 residues, %d residues; RMSD in angstrom: median %.4f, 5 %% %.4f, 25 %% %.4f, 75 %% %.4f, "
      .. "95 %% %.4f, most %.4f"):format(name, #kind.rmsd, kind.residues, quantile(kind.rmsd, 0.5), quantile(kind.rmsd, 0.05),
      quantile(kind.rmsd, 0.25), quantile(kind.rmsd, 0.75), quantile(kind.rmsd, 0.95), kind.rmsd[#kind.rmsd]))
    local parts = {}
    for _, atom in ipairs(kind.names) do
      local sums = kind.atoms[atom] or { 0, 0 }
      parts[#parts + 1] = ("%s %.3f"):format(atom, math.sqrt(sums[1] / math.max(sums[2], 1)))
    end
    print("  by atom: " .. table.concat(parts, "  "))
    if name == "protein" then median = quantile(kind.rmsd, 0.5) end
  end
end
os.exit(median <= 0.1 and 0 or 1)
