--- The option names of the public code, translated to ours.
-- @module moonfold.models.names
local fail = require "moonfold.fail"
local options = require "moonfold.options"

local M = {}

--- Peer's name -> ours.
M.ours = {
  node_embed_size = "node", c_s = "node", edge_embed_size = "edge", c_p = "edge", c_z = "edge", c_hidden = "hidden",
  no_heads = "heads", no_qk_points = "query_points", no_v_points = "value_points", z_factor_rank = "rank",
  seq_tfmr_num_heads = "transformer_heads", seq_tfmr_num_layers = "transformer_layers", num_blocks = "blocks",
  feat_dim = "feat", num_bins = "bins", k = "neighbours", attn_dtype = "precision",
  c_pos_emb = "position", c_timestep_emb = "time", index_embed_size = "position", c_skip = "skip",
  embed_self_conditioning = "self_condition",
}

--- A table of options with every peer's name replaced by ours.
-- @tparam string name of the model, for messages
-- @tparam ?table o
-- @treturn ?table
function M.translate(name, o)
  if type(o) ~= "table" then return o end
  local out, written = {}, {}
  for _, key in ipairs(options.sorted_keys(o)) do
    local ours = M.ours[key] or key
    if out[ours] ~= nil and out[ours] ~= o[key] then
      fail("%s: options '%s' and '%s' are two names of one thing", name, written[ours], key)
    end
    out[ours], written[ours] = o[key], key
  end
  return out
end

return M
