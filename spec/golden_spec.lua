-- The layers and networks against vectors made by the public code in float64: outputs within 1e-5, gradients within 1e-4
-- (norm of the difference over norm of the reference, valid residues only), in float32 and in float64.
--
-- The folder is MOONFOLD_GOLDEN, else ../shared/golden, else the small files kept in spec/fixtures. Every file of it whose
-- name is known is a case; sizes come from its metadata. Padded positions of the files are real numbers: they are no
-- residues to masked layers, but count as neighbours and as positions elsewhere, so each case runs in the padded layout
-- (B sequences of L, with a mask) and, where padding cannot matter, packed. On a GPU the same, and outputs within 1e-3 where
-- attention rounds to float16, within 1e-2 where it rounds to bfloat16.
local mf = require "moonfold"
local files = require "moonfold.files"
local support = require "spec.support"
local nn, models = mf.nn, mf.models

-- A compiled trace keeps the closures it has met, and they the tensors they captured: let go before live bytes are counted.
teardown(function() jit.flush() end)

local OUTPUT, GRADIENT = { float32 = 1e-5, fp16 = 1e-3, bf16 = 1e-2 }, 1e-4
-- A gradient that vanishes because its terms cancel (a bias before a normalisation) is known in float32 to the rounding of
-- those terms: 2^-24 of the layer's largest gradient, times the root of some hundred terms. In float64 there is no such excuse.
local CANCELLED = { float32 = 1e-6, float64 = 0 }

local function exists(path)
  local f = io.open(path, "rb")
  if f then f:close() end
  return f ~= nil
end

local function golden_folder()
  local given = os.getenv "MOONFOLD_GOLDEN"
  if given then return given end
  for _, folder in ipairs { "../shared/golden", "spec/fixtures" } do
    if exists(folder .. "/index_embedding_a.safetensors") then return folder end
  end
end

-- ---- layouts ------------------------------------------------------------------------------------------------

-- 0-based rows of (B, L) that are real, and of (B, L, L).
local function valid_rows(lens, L)
  local rows, pair_rows = {}, {}
  for b, n in ipairs(lens) do
    for i = 0, n - 1 do
      rows[#rows + 1] = (b - 1) * L + i
      for j = 0, n - 1 do pair_rows[#pair_rows + 1] = ((b - 1) * L + i) * L + j end
    end
  end
  return mf.tensor(rows, { dtype = "int32" }), mf.tensor(pair_rows, { dtype = "int32" })
end

local function flatten(x, axes)
  local shape, first = x:shape(), 1
  for i = 1, axes do first = first * shape[i] end
  local flat = { first }
  for i = axes + 1, #shape do flat[#flat + 1] = shape[i] end
  return x:reshape(flat)
end

-- How tensors of the file become ours: `rows` for (B, L, ...), `pairs` for (B, L, L, ...); `valid` keeps real rows of ours.
local function layout(kind, lens, L, device)
  local rows, pair_rows = valid_rows(lens, L)
  rows, pair_rows = rows:to(device), pair_rows:to(device)
  local lengths = lens
  if kind == "padded" then
    lengths = {}
    for b = 1, #lens do lengths[b] = L end
  end
  local packed = kind == "packed"
  return {
    kind = kind, packing = mf.packing(lengths),
    rows = function(x) return packed and flatten(x, 2):index_select(1, rows) or flatten(x, 2) end,
    pairs = function(x) return packed and flatten(x, 3):index_select(1, pair_rows) or flatten(x, 3) end,
    valid = function(x) return packed and x or x:index_select(1, rows) end,
    valid_pairs = function(x) return packed and x or x:index_select(1, pair_rows) end,
  }
end

-- ---- cases --------------------------------------------------------------------------------------------------

-- Each runner takes the file and a layout and returns outputs (name -> tensor), leaves (input name -> tensor) and the layer.
-- Names ending in "edge_embed" or "z", and the dense outputs, are over pairs.
local function number(meta, key, default) return tonumber(meta[key]) or default end

local function leaf(g, lay, name, over_pairs)
  local x = g.tensors["in." .. name]
  return (over_pairs and lay.pairs or lay.rows)(x):clone():require_grad()
end

local function mask_of(g, lay)
  if lay.kind == "packed" then return nil end
  return lay.rows(g.tensors["in.node_mask"] or g.tensors["in.res_mask"])
end

local function load(layer, g)
  local state = {}
  for name, x in pairs(g.tensors) do
    local key = name:match "^param%.(.*)$"
    if key then state[key] = x end
  end
  layer:load(state)
  return layer:to { dtype = g.dtype, device = g.device }
end

local function ipa_options(m)
  return {
    dim = number(m, "c_s"), edge = number(m, "c_z"), heads = number(m, "no_heads"), hidden = number(m, "c_hidden"),
    query_points = number(m, "no_qk_points"), value_points = number(m, "no_v_points"),
  }
end

local function frame_leaves(g, lay)
  return leaf(g, lay, "rotations"), leaf(g, lay, "translations")
end

local runners = {}

function runners.flash_ipa(g, lay)
  local o = ipa_options(g.meta)
  o.rank = number(g.meta, "z_factor_rank")
  local layer = nn.ipa(o)
  local s, z1, z2 = leaf(g, lay, "s"), leaf(g, lay, "z_factor_1"), leaf(g, lay, "z_factor_2")
  local R, t = frame_leaves(g, lay)
  load(layer, g)
  local out = layer { s = s, frames = { R = R, t = t }, pair = { z1, z2 }, packing = lay.packing, mask = mask_of(g, lay) }
  return { out = out }, { s = s, z_factor_1 = z1, z_factor_2 = z2, rotations = R, translations = t }, layer
end

function runners.ipa(g, lay)
  local layer = nn.dense_ipa(ipa_options(g.meta))
  local s, z = leaf(g, lay, "s"), leaf(g, lay, "z", true)
  local R, t = frame_leaves(g, lay)
  load(layer, g)
  local out = layer { s = s, frames = { R = R, t = t }, pair = z, packing = lay.packing, mask = mask_of(g, lay) }
  return { out = out }, { s = s, z = z, rotations = R, translations = t }, layer, { z = true }
end

function runners.edge_embedder(g, lay)
  local m = g.meta
  local layer = nn.edge_embedder {
    mode = m.mode, node = number(m, "c_s"), edge = number(m, "c_z"), feat = number(m, "feat_dim"), bins = number(m, "num_bins"),
    rank = number(m, "z_factor_rank"), neighbours = number(m, "k"), max_len = number(m, "max_len"), compat = true,
  }
  load(layer, g)
  local s = leaf(g, lay, "node_embed")
  local z = layer {
    s = s, translations = lay.rows(g.tensors["in.translations"]), trans_sc = lay.rows(g.tensors["in.trans_sc"]),
    mask = mask_of(g, lay), packing = lay.packing,
  }
  if m.mode == "orig_2d_bias" then return { edge_embed = z }, { node_embed = s }, layer, { edge_embed = true } end
  return { z_factor_1 = z:select(2, 1), z_factor_2 = z:select(2, 2) }, { node_embed = s }, layer
end

function runners.edge_transition_1d(g, lay)
  local m = g.meta
  local layer = nn.edge_transition { node = number(m, "c_s"), edge = number(m, "c_z"), rank = number(m, "z_factor_rank") }
  load(layer, g)
  local s, z1, z2 = leaf(g, lay, "node_embed"), leaf(g, lay, "z_factor_1"), leaf(g, lay, "z_factor_2")
  local z = layer(s, mf.stack({ z1, z2 }, 2))
  return { z_factor_1 = z:select(2, 1), z_factor_2 = z:select(2, 2) },
    { node_embed = s, z_factor_1 = z1, z_factor_2 = z2 }, layer
end

function runners.edge_transition_2d(g, lay)
  local layer = nn.edge_transition { node = number(g.meta, "c_s"), edge = number(g.meta, "c_z"), dense = true }
  load(layer, g)
  local s, z = leaf(g, lay, "node_embed"), leaf(g, lay, "edge_embed", true)
  return { out = layer(s, z, lay.packing) }, { node_embed = s, edge_embed = z }, layer, { out = true, edge_embed = true }
end

function runners.compose_q_update(g, lay)
  local R, t = frame_leaves(g, lay)
  local update = leaf(g, lay, "update")
  local q, moved = nn.backbone_update.compose(R, t, update, mask_of(g, lay))
  return { rotations = mf.geometry.quat_to_rot(q), translations = moved },
    { rotations = R, translations = t, update = update }
end

function runners.node_transition(g, lay)
  local layer = nn.node_transition { dim = number(g.meta, "c_s") }
  load(layer, g)
  local s = leaf(g, lay, "s")
  return { out = layer(s) }, { s = s }, layer
end

local function model_options(g)
  local m, columns = g.meta, g.tensors["param.edge_embedder.factorizer.length_compressor.weight"]
  return {
    mode = m.mode == "orig" and "orig_2d_bias" or m.mode, node_embed_size = number(m, "c_s"), edge_embed_size = number(m, "c_z"),
    c_hidden = number(m, "c_hidden"), no_heads = number(m, "no_heads"), no_qk_points = number(m, "no_qk_points"),
    no_v_points = number(m, "no_v_points"), z_factor_rank = number(m, "z_factor_rank"), feat_dim = number(m, "feat_dim"),
    num_bins = number(m, "num_bins"), k = number(m, "k"), num_blocks = number(m, "num_blocks"),
    max_len = columns and columns:size(2),
    seq_tfmr_num_heads = number(m, "seq_tfmr_num_heads"), seq_tfmr_num_layers = number(m, "seq_tfmr_num_layers"), compat = true,
  }
end

function runners.model(g, lay)
  local model = models.flash_ipa(model_options(g))
  load(model, g)
  local s = leaf(g, lay, "node_embeddings")
  local out = model {
    node_embeddings = s, translations = lay.rows(g.tensors["in.translations"]), rotations = lay.rows(g.tensors["in.rotations"]),
    trans_sc = lay.rows(g.tensors["in.trans_sc"]), packing = lay.packing, mask = mask_of(g, lay),
  }
  return { pred_trans = out.translations, pred_rotmats = out.rotations }, { node_embeddings = s }, model
end

function runners.rna_flow_model(g, lay)
  local o = model_options(g)
  o.c_pos_emb, o.c_timestep_emb = number(g.meta, "c_pos_emb"), number(g.meta, "c_timestep_emb")
  local model = models.rna_frameflow(o)
  load(model, g)
  local out = model {
    t = g.tensors["in.t"]:reshape(-1), translations = lay.rows(g.tensors["in.trans_t"]),
    rotations = lay.rows(g.tensors["in.rotmats_t"]), trans_sc = lay.rows(g.tensors["in.trans_sc"]),
    packing = lay.packing, mask = mask_of(g, lay),
  }
  return { pred_trans = out.translations, pred_rotmats = out.rotations, pred_torsions = out.torsions }, {}, model
end

-- What the file does not name follows from its shapes.
local function foldflow_options(g)
  local m, edge = g.meta, g.tensors["param.embedding_layer.edge_embedder.0.weight"]
  local position = number(m, "index_embed_size")
  local bins = edge:size(2) - 3 * position - 2
  return {
    c_s = number(m, "c_s"), c_z = number(m, "c_z"), index_embed_size = position, c_hidden = number(m, "c_hidden"),
    c_skip = number(m, "c_skip"), no_heads = number(m, "no_heads"), no_qk_points = number(m, "no_qk_points"),
    no_v_points = number(m, "no_v_points"), num_blocks = number(m, "num_blocks"),
    num_bins = bins, embed_self_conditioning = bins > 0,
    seq_tfmr_num_heads = number(m, "seq_tfmr_num_heads"), seq_tfmr_num_layers = number(m, "seq_tfmr_num_layers"),
  }
end

-- FoldFlow's network on the file's inputs; `compat` gives the transformer's padding as the peer does.
local function run_foldflow(g, lay, compat)
  local o = foldflow_options(g)
  o.compat = compat
  local model = load(models.foldflow(o), g)
  local rigids = lay.rows(g.tensors["in.rigids_t"])
  local out = model {
    t = g.tensors["in.t"], rotations = rigids:narrow(2, 1, 4):contiguous(), translations = rigids:narrow(2, 5, 3):contiguous(),
    index = lay.rows(g.tensors["in.seq_idx"]):to "int32" - 1, trans_sc = lay.rows(g.tensors["in.sc_ca_t"]),
    fixed = lay.rows(g.tensors["in.fixed_mask"]), torsions = lay.rows(g.tensors["in.torsion_angles_sin_cos"]):narrow(2, 3, 1),
    packing = lay.packing, mask = mask_of(g, lay),
  }
  local rules = mf.atoms.of "protein"
  return {
    rigids = mf.cat({ out.quaternions, out.translations }, 2), psi = out.torsions:squeeze(2),
    atom37 = rules.atom37(rules.build(out.rotations, out.translations, out.torsions)),
  }, model
end

function runners.foldflow(g, lay)
  local outputs, model = run_foldflow(g, lay, true)
  return outputs, {}, model
end

-- ---- comparison ---------------------------------------------------------------------------------------------

local function relative(x, reference)
  local norm, difference = reference:norm():item(), (x:detach() - reference):norm():item()
  -- A reference that vanishes (to the rounding of its own file) is compared absolutely.
  return norm > 1e-6 and difference / norm or difference
end

local function expect(name, x, reference, bound, floor)
  assert.is_truthy(x, name .. " is missing")
  assert.same(reference:shape(), x:shape(), name)
  if reference:count() == 0 then return end
  local error_of = relative(x, reference)
  if error_of < bound then return end
  local difference = (x:detach() - reference):norm():item()
  assert.is_true(difference < (floor or 0), ("%s is off by %.3g of its norm, allowed %.3g"):format(name, error_of, bound))
end

local function largest_gradient(g)
  local largest = 0
  for name, x in pairs(g.tensors) do
    if name:find "^grad%." and x:count() > 0 then largest = math.max(largest, x:norm():item()) end
  end
  return largest
end

-- The network's gradients of parameters with every parameter off by up to one rounding of float32, on the CPU.
local function wobbled(g, kind, seed)
  local tensors, rng = {}, mf.rng(seed)
  for name, x in pairs(g.tensors) do
    x = x:to("cpu")
    if name:find "^param%." then x = x * (mf.rand(x:shape(), { rng = rng }) - 0.5):affine(2^-22, 1) end
    tensors[name] = x
  end
  local h = setmetatable({ tensors = tensors, device = "cpu" }, { __index = g })
  local lay = layout(kind, h.lens, h.L, "cpu")
  local outputs, _, layer = h.run(h, lay)
  local loss
  for name, x in pairs(outputs) do
    local part = (x * lay.rows(tensors["cot." .. name])):sum()
    loss = loss and loss + part or part
  end
  loss:backward()
  return layer:state()
end

-- A relu takes either side of a number within rounding of 0, and its gradient jumps: a network of thousands of them has no
-- gradient that is known better than by such jumps. What one rounding of the parameters does to the CPU's own says how much:
-- a GPU that adds in another order may be off by twice the largest of eight.
local function within_jumps(g, kind, name, key, x)
  local reference, most = g.tensors[name]:to("cpu"), 0
  for seed = 1, 8 do
    most = math.max(most, (wobbled(g, kind, seed)[key]:grad() - reference):norm():item())
  end
  return (x:to("cpu") - reference):norm():item() <= 2 * most
end

local function check(g, kind)
  local lay = layout(kind, g.lens, g.L, g.device)
  local outputs, leaves, layer, over_pairs = g.run(g, lay)
  over_pairs = over_pairs or {}
  local function placed(name, x) return (over_pairs[name] and lay.pairs or lay.rows)(x) end
  local bound = OUTPUT[mf.precision()]
  local function valid(name, x) return (over_pairs[name] and lay.valid_pairs or lay.valid)(x) end
  local loss
  for name, x in pairs(outputs) do
    expect("out." .. name, valid(name, x), valid(name, placed(name, g.tensors["out." .. name])), bound)
    local cotangent = g.tensors["cot." .. name]
    if cotangent then
      local part = (x * placed(name, cotangent)):sum()
      loss = loss and loss + part or part
    end
  end
  if not loss or mf.precision() ~= "float32" then return end
  loss:backward()
  local floor = CANCELLED[g.dtype] * largest_gradient(g)
  for name, x in pairs(leaves) do
    local reference = g.tensors["grad.in." .. name]
    if reference then
      expect("grad.in." .. name, valid(name, x:grad()), valid(name, placed(name, reference)), GRADIENT, floor)
    end
  end
  local state = layer and layer:state() or {}
  for name, reference in pairs(g.tensors) do
    local key = name:match "^grad%.param%.(.*)$"
    if key then
      local x = state[key] and state[key]:grad()
      local jumps = g.device ~= "cpu" and g.dtype == "float32" and g.meta.num_blocks and x
        and relative(x, reference) >= GRADIENT and within_jumps(g, kind, name, key, x)
      if not jumps then expect(name, x, reference, GRADIENT, floor) end
    end
  end
end

-- Longest prefix first: "ipa" must not take "ipa_..." from a longer name.
local function runner_of(name)
  local best
  for prefix in pairs(runners) do
    if name:sub(1, #prefix + 1) == prefix .. "_" and (not best or #prefix > #best) then best = prefix end
  end
  return best
end

local function sizes(meta)
  local lens = {}
  for n in (meta.lens or ""):gmatch "%d+" do lens[#lens + 1] = tonumber(n) end
  return { meta = meta, lens = lens, L = tonumber(meta.L) }
end

local function read(path, dtype, device)
  local tensors, meta = mf.load(path)
  local g = sizes(meta)
  for name, x in pairs(tensors) do
    tensors[name] = (dtype and x:dtype() == "float32" and x:to(dtype) or x):to(device)
  end
  g.tensors, g.dtype, g.device = tensors, dtype, device
  return g
end

-- Padding cannot be seen by a layer that masks it and asks for no neighbours; where every position is real there is none.
local function runs_packed(prefix, g)
  local full = true
  for _, n in ipairs(g.lens) do full = full and n == g.L end
  if full then return true end
  if prefix == "foldflow" then return false end          -- the peer attends to padding: its own case, below
  if prefix == "node_transition" or prefix:find "^edge_transition" then return false end
  return g.meta.mode ~= "flash_1d_bias"
end

-- ---- the specs ----------------------------------------------------------------------------------------------

local folder = golden_folder()

local function feature_case(path, prefix, device)
  local g = read(path, nil, device)
  if prefix == "index_embedding" then
    local out = mf.geometry.index_embedding(g.tensors["in.index"], number(g.meta, "embed_size"), number(g.meta, "max_len"))
    expect("out", out, g.tensors["out.out"], OUTPUT.float32)
    return
  end
  local lay = layout("padded", g.lens, g.L, device)
  local m, x = g.meta, lay.rows(g.tensors["in.pos"]):to("float64")
  local index, distance = mf.geometry.neighbours(x, nil, number(m, "k"), lay.packing)
  local one_hot = mf.geometry.distogram(distance, number(m, "min_bin"), number(m, "max_bin"), number(m, "num_bins"))
  assert.same(lay.rows(g.tensors["out.index"]):totable(), index:totable())
  expect("distogram", one_hot, lay.rows(g.tensors["out.distogram"]), OUTPUT.float32)
end

-- Without compat nothing sees padding: sequences that have none are as in the file, and those that have are the same
-- in either layout, with their gradients.
local function foldflow_case(path, device, dtype)
  local g, out, gradients = read(path, dtype, device), {}, {}
  for _, kind in ipairs { "packed", "padded" } do
    local lay = layout(kind, g.lens, g.L, device)
    local outputs, model = run_foldflow(g, lay, false)
    local loss
    out[kind] = {}
    for name, x in pairs(outputs) do
      out[kind][name] = lay.valid(x):detach()
      local part = (lay.valid(x) * lay.valid(lay.rows(g.tensors["cot." .. name]))):sum()
      loss = loss and loss + part or part
    end
    loss:backward()
    gradients[kind] = {}
    for _, p in ipairs(model:named_parameters()) do gradients[kind][p[1]] = p[2]:grad() end
  end
  local whole, at = {}, 0
  for _, n in ipairs(g.lens) do
    for i = at, at + n - 1 do if n == g.L then whole[#whole + 1] = i end end
    at = at + n
  end
  local rows = mf.tensor(whole, { dtype = "int32" }):to(device)
  local packed = layout("packed", g.lens, g.L, device)
  for name, x in pairs(out.packed) do
    expect(name, out.padded[name], x, OUTPUT.float32)
    if #whole > 0 then
      expect("out." .. name, x:index_select(1, rows), packed.rows(g.tensors["out." .. name]):index_select(1, rows), OUTPUT.float32)
    end
  end
  -- A GPU adds in another order in each layout, and a relu within rounding of 0 may take its other side (see within_jumps).
  if device ~= "cpu" and dtype == "float32" then return end
  local largest = 0
  for _, x in pairs(gradients.packed) do largest = math.max(largest, x:norm():item()) end
  for name, x in pairs(gradients.packed) do
    expect(name, gradients.padded[name], x, GRADIENT, CANCELLED[dtype] * largest + 1e-12)
  end
end

local function golden(device)
  local cases = 0
  for _, path in ipairs(folder and files.list(folder, { ".safetensors" }) or {}) do
    local name = path:match "([^/]+)%.safetensors$"
    local prefix = runner_of(name)
    if prefix then
      cases = cases + 1
      local layouts = { "padded" }
      if runs_packed(prefix, sizes(mf.archive(path):metadata())) then layouts[2] = "packed" end
      for _, kind in ipairs(layouts) do
        local function case(dtype, precision)
          it(("agree with %s, %s, %s"):format(name, kind, precision or dtype), function()
            local g = read(path, dtype, device)
            g.run = runners[prefix]
            mf.precision(precision or "float32", check, g, kind)
          end)
        end
        case "float32"
        case "float64"
        if prefix == "foldflow" then
          for _, dtype in ipairs { "float32", "float64" } do
            it(("agree with %s, padding left out, %s"):format(name, dtype), function() foldflow_case(path, device, dtype) end)
          end
        end
        if device ~= "cpu" then
          case("float32", "fp16")
          case("float32", "bf16")
        end
      end
    elseif name:find "^index_embedding" or name:find "^distogram_knn" then
      cases = cases + 1
      it(("agree with %s"):format(name), function() feature_case(path, name:match "^(.*)_%a+$", device) end)
    end
  end
  if cases == 0 then pending("skipped: no shared data") end
end

describe("the golden vectors", function() golden "cpu" end)
describe("the golden vectors on a GPU #gpu", function()
  local device = support.cuda()
  if device then golden(device) end
end)
