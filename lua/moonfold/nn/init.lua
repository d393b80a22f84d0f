--- Layers: what they compute is in each file's head; how they behave, in `moonfold.nn.module`.
--
-- Every layer is a callable constructor that takes one table; layers load when first named, so that
-- `nn.ipa` reads only what it needs.
-- @module moonfold.nn
-- @usage local nn = mf.nn
--        local net = nn.sequential { nn.linear { input = 64, output = 128 }, nn.relu, nn.layer_norm { dim = 128 } }
local files = {
  module = "module", tree = "tree", initial = "initial", mask = "mask", lift = "lift", features = "features", rotary = "rotary",
  linear = "linear", layer_norm = "layer_norm", embedding = "embedding", dropout = "dropout", sequential = "sequential",
  mlp = "mlp", activations = "activations", lifted_attention = "lifted_attention", ipa = "ipa", dense_ipa = "dense_ipa",
  edge_embedder = "edge_embedder", factorizer = "factorizer", edge_transition = "edge_transition",
  node_transition = "node_transition", backbone_update = "backbone_update",
  sequence_transformer = "sequence_transformer", torsion_angles = "torsion_angles",
  torsion_head = "torsion_head", node_embedder = "node_embedder", indexed_embedder = "indexed_embedder",
}
local activations = { relu = true, gelu = true, silu = true, tanh = true, sigmoid = true, softplus = true }

local terms = { scalar = true, points = true, pair = true }

local function lazy(resolve)
  return setmetatable({}, {
    __index = function(self, key)
      local value = resolve(key)
      if value ~= nil then rawset(self, key, value) end
      return value
    end,
  })
end

local term = lazy(function(key)
  return terms[key] and require("moonfold.nn.term." .. key) or nil
end)

return lazy(function(key)
  if key == "term" then return term end
  if key == "define" then return require("moonfold.nn.module").define end
  if key == "parameter" then return require("moonfold.nn.module").parameter end
  if activations[key] then return require("moonfold.nn.activations")[key] end
  return files[key] and require("moonfold.nn." .. files[key]) or nil
end)
