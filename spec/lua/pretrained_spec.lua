-- The weights that come with Moonfold: they open, are as large as is said, and make chains with bonds of the right length.
local mf = require "moonfold"
local files = require "moonfold.files"

local NETWORKS = {
  { "foldflow", 7884574, 48, "ca_ca_valid_two_sided", 0.8 },
  { "rna_frameflow", 8301784, 40, "c4_c4_valid_two_sided", 0.2 },
}

for _, network in ipairs(NETWORKS) do
  local name, parameters, length, bond, least = unpack(network)

  describe("examples/weights/" .. name, function()
    local path = ("examples/weights/%s.safetensors"):format(name)

    it("is no larger than 20 MB and says how it is built", function()
      assert.is_true(#files.read(path) <= 20e6)
      local model, flow, about = mf.weights.open(path)
      assert.equal(parameters, model:count())
      assert.equal(name, about.model.kind)
      assert.equal(name == "foldflow" and "protein" or "rna", flow.kind)
    end)

    it("has pairs in every block and knows offsets along the chain", function()
      local model, _, about = mf.weights.open(path)
      assert.is_true(about.model.rotary)
      local transitions = 0
      for _, entry in ipairs(model:named_parameters()) do
        if entry[1]:match "edge_transition_%d+%.final_layer%.weight$" then
          transitions = transitions + 1
          assert.is_true(entry[2]:detach():abs():max():item() > 1e-3, entry[1])
        end
      end
      assert.equal(about.model.blocks - 1, transitions)
    end)

    it("samples a backbone whose neighbours stand as in real chains", function()
      local model, flow = mf.weights.open(path)
      local count = 0
      for _, s in mf.sample(model, flow, { length = length, n = 2, steps = 30, seed = 7 }) do
        local m = mf.metrics.backbone(s)
        assert.is_true(m[bond] >= least, m[bond])       -- of untrained weights below 0.05
        assert.is_true(m.radius_gyration > 0)
        count = count + 1
      end
      assert.equal(2, count)
    end)
  end)
end
