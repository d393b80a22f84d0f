--- Which of the public models a table of tensors is, and the sizes that its shapes tell.
--
--     vectorfield.trunk.*                                    foldflow
--     bb_encoder.trunk.*                                     foldflow2, which Moonfold does not have
--     trunk.*, node_embedder.linear, angle_pred_net          rna_frameflow
--     trunk.*, edge_embedder.*                               flash_ipa
--
-- The mode is told by the pair embedder: `linear_t_distogram` is FlashIPA's (its shape gives the neighbours and the rank), a
-- `factorizer` the factorized one, `linear_s_p` alone the dense one, none of them no pairs at all.
-- @module moonfold.convert.recognise
local fail = require "moonfold.fail"

local Shapes = {}
Shapes.__index = Shapes

-- Sizes of a tensor that has to be there.
function Shapes:of(name, axes)
  local x = self.tensors[name]
  if not x then fail("convert: %s: '%s' is missing, without which the model's sizes cannot be told", self.path, name) end
  local shape = x:shape()
  if #shape ~= axes then fail("convert: %s: '%s' has %d axes, expected %d", self.path, name, #shape, axes) end
  return unpack(shape)
end

function Shapes:columns(name)
  local _, columns = self:of(name, 2)
  return columns
end

function Shapes:whole(value, what)
  if value ~= value or value % 1 ~= 0 or value < 0 then
    fail("convert: %s: %s comes out as %g: the shapes are not this model's", self.path, what, value)
  end
  return value
end

-- One more than the largest number that stands in the names.
function Shapes:count(prefix, suffix)
  local most = -1
  for name in pairs(self.tensors) do
    local middle = name:sub(1, #prefix) == prefix and name:sub(#prefix + 1):match("^(%d%d?%d?)" .. suffix)
    if middle then most = math.max(most, tonumber(middle)) end
  end
  return most + 1
end

local function trunk_sizes(shapes, prefix)
  local heads = shapes:of(prefix .. "ipa_0.head_weights", 1)
  local query, node = shapes:of(prefix .. "ipa_0.linear_q.weight", 2)
  local points = shapes:whole(shapes:of(prefix .. "ipa_0.linear_q_points.weight", 2) / (3 * heads), "the number of query points")
  local both = shapes:whole(shapes:of(prefix .. "ipa_0.linear_kv_points.weight", 2) / (3 * heads), "the number of points")
  return {
    node = node, heads = heads, hidden = shapes:whole(query / heads, "the width of a head"), query_points = points,
    value_points = shapes:whole(both - points, "the number of value points"), blocks = shapes:count(prefix .. "ipa_", "%."),
    transformer_layers = shapes:count(prefix .. "seq_tfmr_0.layers.", "%."),
  }
end

-- Sizes of the pair embedder of flash_ipa and RNA-FrameFlow, whose perceptron takes 3 feat + 2 bins.
local function pair_sizes(o, shapes, prefix)
  local tensors = shapes.tensors
  local edge, input = shapes:of(prefix .. "edge_embedder.0.weight", 2)
  o.edge = edge
  if not tensors[prefix .. "linear_s_p.weight"] then
    o.mode = "flash_no_bias"
    -- the perceptron stands there unused: any two sizes do that make its width, the usual ones where they do
    o.feat = input == 236 and 64 or 2
    o.bins = shapes:whole((input - 3 * o.feat) / 2, "the number of bins")
    return
  end
  o.feat = shapes:columns(prefix .. "linear_relpos.weight")
  o.bins = shapes:whole((input - 3 * o.feat) / 2, "the number of bins")
  if tensors[prefix .. "linear_t_distogram.weight"] then
    o.mode = "flash_1d_bias"
    local rows, columns = shapes:of(prefix .. "linear_t_distogram.weight", 2)
    o.rank = shapes:whole(rows / (2 * o.bins), "the rank")
    o.neighbours = shapes:whole(columns / (o.bins + o.feat), "the number of neighbours")
  elseif tensors[prefix .. "factorizer.length_compressor.weight"] then
    o.mode = "flash_2d_factorize_bias"
    o.rank, o.max_len = shapes:of(prefix .. "factorizer.length_compressor.weight", 2)
  else
    o.mode = "orig_2d_bias"
  end
end

local function foldflow(shapes)
  local o = trunk_sizes(shapes, "vectorfield.trunk.")
  o.skip = shapes:of("vectorfield.trunk.skip_embed_0.weight", 2)
  o.position = shapes:whole((shapes:columns "embedding_layer.node_embedder.0.weight" - 1) / 2, "the width of the index embedding")
  if shapes.tensors["embedding_layer.edge_embedder.edge_embedder.0.weight"] then
    pair_sizes(o, shapes, "embedding_layer.edge_embedder.")
    return o
  end
  local edge, input = shapes:of("embedding_layer.edge_embedder.0.weight", 2)
  local bins = shapes:whole(input - 3 * o.position - 2, "the number of bins")
  o.mode, o.edge, o.self_condition = "orig_2d_bias", edge, bins > 0
  if bins > 0 then o.bins = bins end
  return o
end

local function rna_frameflow(shapes)
  local o = trunk_sizes(shapes, "trunk.")
  pair_sizes(o, shapes, "edge_embedder.")
  local input = shapes:columns "node_embedder.linear.weight"
  -- position and time stand side by side, and shapes do not say where one ends: they are of one width in every configuration
  o.position = shapes:whole(input / 2, "the width of the position embedding")
  o.time = o.position
  return o
end

local function flash_ipa(shapes)
  local o = trunk_sizes(shapes, "trunk.")
  pair_sizes(o, shapes, "edge_embedder.")
  return o
end

--- Recognises a model.
-- @tparam table tensors name -> tensor, without the prefixes of their writer
-- @tparam string path for messages
-- @treturn ?string kind: "foldflow", "rna_frameflow", "flash_ipa", "foldflow2"; nil where it is none of them
-- @treturn ?table options of the constructor, as far as shapes tell
return function(tensors, path)
  local shapes = setmetatable({ tensors = tensors, path = path }, Shapes)
  if tensors["vectorfield.trunk.ipa_0.head_weights"] then return "foldflow", foldflow(shapes) end
  if tensors["bb_encoder.trunk.ipa_0.head_weights"] then return "foldflow2", {} end
  if not tensors["trunk.ipa_0.head_weights"] then return nil end
  if tensors["node_embedder.linear.weight"] then return "rna_frameflow", rna_frameflow(shapes) end
  return "flash_ipa", flash_ipa(shapes)
end
