-- The embedders on a GPU never visit the host: a graph captures them, and replays give what the layers do.
local mf = require "moonfold"
local support = require "spec.support"

local nn = mf.nn

describe("embedders on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end
  local sizes = { neighbours = 5, node = 16, edge = 8, feat = 8, bins = 6, max_len = 18 }

  local function embedder(mode)
    local o = { mode = mode, rng = mf.rng(3) }
    for key, value in pairs(sizes) do o[key] = value end
    return nn.edge_embedder(o)
  end

  local function inputs(seed)
    local rng = mf.rng(seed)
    return mf.rand(2, { rng = rng }), mf.randn(30, 3, { rng = rng }) * 5, mf.randn(30, 3, { rng = rng }) * 5
  end

  for _, mode in ipairs { "flash_1d_bias", "orig_2d_bias", "flash_2d_factorize_bias" } do
    it("are captured: " .. mode, function()
      local packing = mf.packing { 18, 12 }
      local mask = mf.rand(30, { rng = mf.rng(4) }):gt(0.2)
      local nodes, edges = nn.node_embedder { dim = 16, position = 8, time = 9, rng = mf.rng(2) }, embedder(mode)
      local function embed(t, x, trans_sc)
        return edges {
          s = nodes(t, packing, mask:to(t:device())), translations = x, trans_sc = trans_sc, packing = packing,
          mask = mask:to(t:device()),
        }
      end
      local want = { mf.no_grad(embed, inputs(1)), mf.no_grad(embed, inputs(2)) }
      nodes, edges, mask = nodes:to(device), edges:to(device), mask:to(device)
      local graph = mf.graph(embed)
      for i = 1, 2 do
        local t, x, trans_sc = inputs(i)
        local z = mf.no_grad(graph, t:to(device), x:to(device), trans_sc:to(device))
        -- layers of 8 to 60 terms in float32, another order of sums
        support.close(z:to "cpu", want[i], 1e-5, mode)
      end
      graph:release()
    end)
  end

  it("have angles of times in float64", function()
    local t = mf.tensor { 0, 0.013, 0.5, 0.999, 1 }
    support.close(nn.features.time(t:to(device), 65, 10000):to "cpu", nn.features.time(t, 65, 10000), 2 ^ -23)
  end)
end)
