--- Weights of the public FlashIPA code, loaded by name.
--
-- Layers name their parameters as the public PyTorch code does, so a safetensors file of its state dict needs no
-- conversion. Reads a file that was made there (parameters, inputs and outputs of an edge transition), prints what a
-- load of the wrong model reports, loads the right one and prints how far its output is from the recorded one.
--
--     moonfold examples/07_peer_weights.lua [file]
local mf = require "moonfold"

local here = arg[0]:match "^(.*/)" or "./"
local tensors, about = mf.load(arg[1] or here .. "../spec/fixtures/edge_transition_1d_a.safetensors")

local options = { node = tonumber(about.c_s), edge = tonumber(about.c_z), rank = tonumber(about.z_factor_rank) }
local layer = mf.nn.edge_transition(options)

-- The file holds other things too: keep what begins with "param.", the name under which the peer's parameters were saved.
local weights = {}
for name, x in pairs(tensors) do
  local parameter = name:match "^param%.(.*)$"
  if parameter then weights[parameter] = x end
end

-- A state that does not fit, as one that was renamed or came from another version: nothing is loaded silently.
local wrong = {}
for name, x in pairs(weights) do wrong[name] = x end
wrong["trunk.2.weight"], wrong["trunk.3.weight"] = nil, weights["trunk.2.weight"]
wrong["layer_norm.bias"] = mf.zeros(5)
print("strict:", select(2, pcall(layer.load, layer, wrong)))
local report = layer:load(wrong, { strict = false })
print("loaded:", report.loaded)
for _, what in ipairs { "missing", "extra", "mismatched" } do
  print(what .. ":", table.concat(report[what], ", "))
end

print("right:", layer:load(weights).loaded .. " tensors")
local s = tensors["in.node_embed"]:flatten(1, 2)
local z = mf.stack({ tensors["in.z_factor_1"]:flatten(1, 2), tensors["in.z_factor_2"]:flatten(1, 2) }, 2)
local out = layer(s, z)
local worst = 0
for f = 1, 2 do
  local wanted = tensors["out.z_factor_" .. f]:flatten(1, 2)
  worst = math.max(worst, ((out:select(2, f) - wanted):norm() / wanted:norm()):item())
end
print(("relative difference from the public code's output: %.1e"):format(worst))
assert(worst < 1e-5)
