-- What the weights in examples/weights make: a few backbones of each network, measured and drawn.
local mf = require "moonfold"
local columns = require "moonfold.columns"
local files = require "moonfold.files"
local progress = require "moonfold.progress"
local weights = require "moonfold.weights"

local M = {}

-- How each kind is measured: the columns of its table, and the metrics that fill them.
local NETWORKS = {
  {
    name = "foldflow", lengths = { 60, 100 },
    heading = { "protein", "CA-CA off", "3.8+-0.1", "clashes", "Rg", "helix", "strand" },
    row = function(m)
      return { m.ca_ca_bond_dev, m.ca_ca_valid_two_sided, m.num_ca_steric_clashes, 10 * m.radius_gyration, m.helix_percent,
        m.strand_percent }
    end,
  },
  {
    name = "rna_frameflow", lengths = { 40, 70 },
    heading = { "RNA", "C4'-C4'", "6.12+-0.1", "clashes", "Rg", "O3'-P" },
    row = function(m)
      return { m.c4_c4_mean, m.c4_c4_valid_two_sided, m.num_c4_steric_clashes, m.radius_gyration, m.o3_p_mean }
    end,
  },
}

--- Samples `n` backbones of each length from each network and writes them to folder/NAME/length_L/sample_i/sample_1.pdb and
-- folder/NAME.svg.
-- @tparam string from folder of the weights
-- @tparam string folder
-- @tparam table o `n`, `steps`, `seed`
function M.run(from, folder, o)
  for _, network in ipairs(NETWORKS) do
    local model, flow = weights.open(("%s/%s.safetensors"):format(from, network.name))
    local bar = progress { label = network.name, total = o.n * #network.lengths, unit = "residues" }
    local rows, panels, count = {}, {}, 0
    for i, s in mf.sample(model, flow, { lengths = network.lengths, n = o.n, steps = o.steps, seed = o.seed }) do
      local at = files.make_folder(("%s/%s/length_%d/sample_%d"):format(folder, network.name, s.length, (i - 1) % o.n + 1))
      s:save(at .. "/sample_1.pdb")
      rows[i] = { ("%d residues"):format(s.length), unpack(network.row(mf.metrics.backbone(s))) }
      panels[i] = { structure = mf.structure.read(at .. "/sample_1.pdb"), label = rows[i][1] }
      count = count + 1
      bar:update(count, { amount = s.length })
    end
    local picture = ("%s/%s.svg"):format(folder, network.name)
    mf.picture.sheet(picture, panels)
    bar:done(("%d backbones of %d parameters; %s"):format(count, model:count(), picture))
    print(columns(network.heading, rows) .. "\n")
  end
end

return M
