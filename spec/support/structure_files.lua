--- Structure files that specs make themselves.
local mf = require "moonfold"
local chemistry = require "moonfold.chemistry"
local files = require "moonfold.files"

local M = {}

local rng = mf.rng(5)

local function folder_of(path) files.make_folder(path:match "^(.*)/" or ".") end

-- N, CA, C, CB, O of ideal geometry with given torsions; `bend`: that many residues at the end are extended.
local function ideal(n, o)
  local rows = {}
  for i = 1, n do
    local extended = o.bend and i > n - o.bend
    rows[i] = { phi = extended and -120 or o.phi, psi = extended and 20 or o.psi, omega = 180 }
  end
  return mf.cat({ chemistry.backbone(rows):narrow(2, 1, 3), chemistry.backbone(rows):narrow(2, 5, 1),
                  chemistry.backbone(rows):narrow(2, 4, 1) }, 2):float()
end

-- Frames anywhere, backbones within them.
local function scattered(n)
  local R, t = mf.random.rotations(n, { rng = rng }), mf.randn(n, 3, { rng = rng }) * 10 + 40
  local angle = mf.rand(n, 1, { rng = rng }) * 6
  return mf.atoms.protein.build(R, t, mf.stack({ angle:sin(), angle:cos() }, 3))
end

--- A protein file.
-- @tparam string path
-- @tparam number n residues
-- @tparam ?table o `residue` ("ALA"), `names` (position -> residue), `drop` (residues without C), `phi` and `psi` (degrees; frames
--   anywhere without them), `bend`, `copies` (chains)
function M.protein(path, n, o)
  o = o or {}
  folder_of(path)
  local copies, names = o.copies or 1, {}
  local x = o.phi and ideal(n, o) or scattered(n)
  local all, lengths = {}, {}
  for c = 1, copies do
    all[c], lengths[c] = x + 60 * (c - 1), n
    for i = 1, n do names[#names + 1] = o.names and o.names[i] or o.residue or "ALA" end
  end
  local mask = mf.ones(n * copies, 5):totable()
  for _, i in ipairs(o.drop or {}) do mask[i][3] = 0 end
  mf.structure.from_atoms {
    atoms = mf.cat(all, 1), names = mf.atoms.protein.names, elements = mf.atoms.protein.elements, residue_names = names,
    mask = mf.tensor(mask):bool(), lengths = lengths, polymer = "protein", id = path:match "([^/.]*)%.[^/]*$",
  }:write(path)
end

--- An RNA file: chains of so many nucleotides, all of A; `protein`: a protein chain of so many residues beside them.
function M.rna(path, lengths, o)
  folder_of(path)
  local rna, n, chains = mf.atoms.rna, 0, {}
  for _, length in ipairs(lengths) do n = n + length end
  local x = rna.build(mf.random.rotations(n, { rng = rng }), mf.randn(n, 3, { rng = rng }) * 10 + 40, nil, { o2_prime = true })
  local values, names, at = x:totable(), {}, 0
  for k, name in ipairs(rna.names) do names[k] = name end
  names[#names + 1] = "O2'"
  for c, length in ipairs(lengths) do
    local chain = { id = ("ABCDEF"):sub(c, c), polymer = "rna", residues = {} }
    for i = 1, length do
      at = at + 1
      local atoms = {}
      for k, name in ipairs(names) do
        local p = values[at][k]
        atoms[k] = { name = name, element = name:sub(1, 1), x = p[1], y = p[2], z = p[3] }
      end
      chain.residues[i] = { name = "A", number = i, atoms = atoms }
    end
    chains[c] = chain
  end
  if o and o.protein then
    local chain = { id = "P", polymer = "protein", residues = {} }
    local backbone = scattered(o.protein):totable()
    for i = 1, o.protein do
      local atoms = {}
      for k, name in ipairs(mf.atoms.protein.names) do
        local p = backbone[i][k]
        atoms[k] = { name = name, element = name:sub(1, 1), x = p[1], y = p[2], z = p[3] }
      end
      chain.residues[i] = { name = "ALA", number = i, atoms = atoms }
    end
    chains[#chains + 1] = chain
  end
  mf.structure.build { chains = chains }:write(path)
end

return M
