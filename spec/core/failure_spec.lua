-- Every public function that can allocate, with its first allocation failing, then its second, and so on until it has
-- none left: each failure says MF_ENOMEM, leaves results NULL, arguments as they were and live bytes where they were.
-- A prototype of the header without a case here must have a reason.
local ffi = require "ffi"
local mf = require "moonfold"
local F = require "moonfold.ffi"
local bcif = require "spec.support.bcif"
local naive = require "spec.support.naive"
local support = require "spec.support"
local C, ctx = F.C, F.ctx

local MOST = 400        -- allocations of one call; more means that the walk does not end
local tensors_box = ffi.typeof "mf_tensor *[?]"
local borrowed_box = ffi.typeof "const mf_tensor *[?]"

-- Cases: name -> list of functions that make the arguments after the results.
local cases = {}
local function case(names, make)
  for name in names:gmatch "%S+" do
    cases[name] = cases[name] or {}
    table.insert(cases[name], make)
  end
end

local rng = mf.rng(77)
local function x(...) return mf.randn({ ... }, { dtype = "float64", rng = rng }) end
local function leaf(...) return x(...):require_grad() end
local function single(...) return x(...):float() end
local function positive(...) return (x(...):abs() + 0.5):require_grad() end
local function inside(...) return (x(...):tanh() * 0.8):require_grad() end
local function whole(list) return mf.tensor(list, { dtype = "int32" }) end
local function bool(...) return x(...):gt(0) end
local function packing() return mf.packing { 3, 1, 2 } end
local function rotations(n) return mf.geometry.so3_exp(x(n, 3)):require_grad() end
local function axes(...) return ffi.new("int[?]", select("#", ...), ...) end
local function sizes(...) return ffi.new("int64_t[?]", select("#", ...), ...) end
local function shape(...) return select("#", ...), sizes(...) end
local function generator() return ffi.new("mf_rng[1]", { { seed = 5 } }) end

case("mf_tensor_empty", function() return ctx, 0, 0, shape(3, 2) end)
case("mf_tensor_full", function() return ctx, 0, 1, 2, sizes(3, 2), 1.5 end)
case("mf_tensor_from", function() return ctx, 0, 1, 1, sizes(2), ffi.new("double[2]") end)
case("mf_tensor_read", function() return ffi.new("double[6]"), 48, x(3, 2) end)
case("mf_tensor_write", function() return x(3, 2), ffi.new("double[6]"), 48 end)
case("mf_tensor_item", function() return ffi.new("double[1]"), single(1, 1) end)
case("mf_tensor_fill", function() return x(3, 2), 2 end)
case("mf_tensor_copy", function() return x(3, 2), single(2) end)
case("mf_tensor_copy", function()
  local t = x(3, 3)
  return t, t:t()
end)
case("mf_tensor_axpy", function()
  local t = x(3, 3)
  return t, 2, t:t()
end)
case("mf_tensor_scale", function() return x(3, 2), 2 end)
case("mf_tensor_set_grad", function() return leaf(3, 2), x(3, 2) end)
case("mf_detach", function() return leaf(3, 2) end)

case("mf_packing_create", function() return ctx, sizes(3, 0, 2), 3 end)
for what = 0, 5 do case("mf_packing_tensor", function() return packing(), 0, what end) end

case("mf_add mf_sub mf_mul mf_maximum mf_minimum", function() return leaf(3, 1, 2), leaf(4, 1) end)
case("mf_div mf_pow mf_atan2", function() return positive(3, 2), positive(2) end)
case("mf_equal mf_less mf_less_equal", function() return x(3, 2), x(2) end)
case("mf_logical_and mf_logical_or", function() return bool(3, 2), bool(2) end)
case("mf_logical_not", function() return bool(3, 2) end)
case("mf_where", function() return bool(3, 1), leaf(3, 2), leaf(2) end)
case("mf_affine", function() return leaf(3, 2), 2, 1 end)
case("mf_pow_scalar", function() return positive(3, 2), 1.5 end)
case("mf_clamp", function() return leaf(3, 2), -1, 1 end)
case("mf_neg mf_abs mf_sign mf_floor mf_exp mf_square mf_sin mf_cos mf_tanh mf_sigmoid mf_relu mf_gelu mf_silu mf_softplus",
  function() return leaf(3, 2) end)
case("mf_log mf_sqrt mf_rsqrt mf_reciprocal", function() return positive(3, 2) end)
case("mf_acos", function() return inside(3, 2) end)
case("mf_round_to", function() return leaf(3, 2), C.MF_FP16 end)
case("mf_dropout", function() return leaf(3, 2), 0.5, generator() end)
case("mf_dropout", function() return leaf(3, 2), 0, nil end)
case("mf_cast", function() return leaf(3, 2), C.MF_FLOAT32 end)
case("mf_to_device", function() return leaf(3, 2), C.MF_NULL end)

for _, list in ipairs { { 0, 2 }, { 1 }, { 0, 1, 2 } } do
  case("mf_sum mf_mean", function() return leaf(3, 4, 2), axes(unpack(list)), #list, 0 end)
end
case("mf_mean", function() return x(3, 4):to "bfloat16":require_grad(), nil, 0, 1 end)
case("mf_sum", function() return x(3, 4):to "float16", nil, 0, 1 end)
case("mf_sum", function() return mf.randn(9, 40000, { dtype = "float16" }), axes(0), 1, 0 end)
case("mf_max mf_min mf_logsumexp", function() return leaf(3, 4), 0, 1 end)
case("mf_argmax mf_argmin", function() return x(3, 4), 1, 0 end)
case("mf_cumsum", function() return leaf(3, 4), 0 end)
case("mf_sort", function() return leaf(3, 4), 0, 1 end)
case("mf_topk", function() return leaf(3, 4), 2, 1, 1 end)
case("mf_segment_sum", function() return leaf(6, 2), packing() end)
case("mf_segment_expand", function() return leaf(3, 2), packing() end)

case("mf_matmul", function() return leaf(3, 2, 4), leaf(4, 5) end)
case("mf_matmul", function() return leaf(2, 1, 2, 4), leaf(3, 4, 5) end)
case("mf_linear", function() return leaf(2, 3, 4), leaf(5, 4), leaf(5) end)
for activation = 0, 1 do
  case("mf_linear_act", function() return leaf(2, 3, 4), leaf(5, 4), leaf(5), activation end)
  case("mf_linear_act", function() return x(2, 3, 4), leaf(5, 4), leaf(5), activation end)
  case("mf_linear_act", function() return leaf(3, 4), x(5, 4), leaf(5), activation end)
end
case("mf_linear_act", function() return single(30, 20):require_grad(), single(18, 20):require_grad(), nil, 1 end)
case("mf_softmax mf_log_softmax", function() return leaf(3, 4, 2), 1 end)
case("mf_layer_norm", function() return leaf(3, 4), leaf(4), leaf(4), 1e-5 end)
case("mf_add_layer_norm", function() return leaf(3, 4), leaf(3, 4), x(3), leaf(4), leaf(4), 1e-5 end)
case("mf_squared_error", function() return leaf(3, 4), leaf(3, 4), x(3) end)
case("mf_cross_entropy", function() return leaf(3, 4), whole { 2, 0, 3 } end)

case("mf_reshape", function() return leaf(3, 4), shape(2, -1) end)
case("mf_permute", function() return leaf(3, 4), axes(1, 0) end)
case("mf_narrow", function() return leaf(3, 4), 1, 1, 2 end)
case("mf_select", function() return leaf(3, 4), 1, 2 end)
case("mf_expand", function() return leaf(3, 1), shape(2, 3, 4) end)
case("mf_contiguous", function() return leaf(4, 3) end)
case("mf_index_select", function() return leaf(3, 2), 0, whole { 2, 0, 2 } end)
case("mf_index_add", function() return leaf(3, 2), 0, whole { 2, 0, 2, 1 }, leaf(4, 2) end)
case("mf_gather", function() return leaf(3, 2), 0, whole { { 2, 0 }, { 1, 1 } } end)
case("mf_scatter_add", function() return leaf(3, 2), 0, whole { { 2, 0 }, { 1, 1 } }, leaf(2, 2) end)

case("mf_frames_from_points", function() return leaf(4, 3), leaf(4, 3), leaf(4, 3) end)
case("mf_frames_apply mf_frames_invert_apply", function() return rotations(4), leaf(4, 3), leaf(4, 5, 3) end)
case("mf_quat_to_rot", function() return leaf(4, 4) end)
case("mf_rot_to_quat mf_so3_log", function() return rotations(4) end)
case("mf_quat_multiply", function() return leaf(4, 4), leaf(4, 4) end)
case("mf_so3_exp", function() return leaf(4, 3) end)
case("mf_frames_update", function() return leaf(4, 4), leaf(4, 3), leaf(4, 6), nil end)
case("mf_frames_gauge", function() return rotations(6), leaf(6, 3), bool(6), packing() end)
case("mf_dihedral", function() return leaf(4, 4, 3) end)
case("mf_kabsch", function() return x(6, 3), x(6, 3), x(6):abs(), packing() end)
case("mf_kabsch_pairs", function() return x(6, 3), x(6, 3), x(6):abs(), whole { { 0, 0 }, { 2, 2 } }, packing() end)
case("mf_neighbours", function() return x(6, 3), bool(6), 1, packing() end)
case("mf_neighbours", function() return x(600, 3), nil, 7, mf.packing { 600 } end)
case("mf_distogram", function() return x(6, 3):abs(), 0.1, 2, 5 end)
case("mf_index_embedding", function() return whole { { 1, 2 }, { 3, 4 } }, 8, 100 end)
case("mf_rotary", function() return leaf(2, 3, 7), whole { 1, 5 }, 4, 100 end)
case("mf_neighbour_linear", function()
  return whole { { 1, 2 }, { 3, 4 }, { 0, 1 } }, x(3, 2):abs(), leaf(5, 2 * (3 + 4)), leaf(5),
    ffi.new("mf_neighbour_params[1]", { { lo = 0.1, hi = 2, max_len = 100, bins = 3, feat = 4 } })
end)
case("mf_pair_distance_loss", function() return leaf(6, 2, 3), x(6, 2, 3), bool(6, 2), 1.5, packing() end)
case("mf_pair_distance_loss", function() return leaf(6, 2, 3), x(6, 2, 3), nil, 0, packing() end)

for _, precision in ipairs { "MF_EXACT", "MF_FP16" } do
  case("mf_attention mf_attention_attend", function()
    return leaf(6, 2, 3), leaf(6, 2, 3), leaf(6, 2, 4), leaf(6, 2), packing(), C[precision]
  end)
  case("mf_attention_resume", function()
    return leaf(6, 2, 3), leaf(6, 2, 3), leaf(6, 2, 4), leaf(6, 2), x(6, 2, 4), x(6, 2), packing(), C[precision]
  end)
end
case("mf_pair_attention", function()
  return leaf(6, 2, 3), leaf(6, 2, 3), leaf(6, 2, 4), leaf(6, 2), leaf(14, 2), leaf(14, 3), packing()
end)
case("mf_pair_attention", function() return leaf(6, 2, 3), leaf(6, 2, 3), leaf(6, 2, 4), nil, nil, nil, packing() end)

-- The tensors come after what the function takes, to be found and kept.
local function flash_ipa(gaps, kind, gauge, precision)
  local function number(...)
    local t = x(...)
    if kind == "float32" then t = t:float() end
    return (gaps and naive.strided(t) or t):require_grad()
  end
  local R, m = rotations(6):detach(), bool(6)
  if kind == "float32" then R = R:float() end
  local list = {
    q = number(6, 6), kv = number(6, 12), q_points = number(6, 12), kv_points = number(6, 30), pair_bias = number(6, 2, 2, 2),
    pair_value = number(6, 2, 2, 2), R = R:require_grad(), t = number(6, 3), mask = m,
  }
  list.head_weights = kind == "float32" and x(2):float():require_grad() or leaf(2)
  local inputs, order = ffi.new("mf_flash_ipa_inputs[1]"), {}
  for key, t in pairs(list) do
    inputs[0][key] = t
    order[#order + 1] = t
  end
  local params = ffi.new("mf_flash_ipa_params[1]", {
    { heads = 2, gauge = gauge, precision = precision, split = precision > 0 and 1 or 0 },
  })
  return inputs, packing(), params, unpack(order)
end
for _, gaps in ipairs { false, true } do
  case("mf_flash_ipa mf_flash_ipa_attend", function() return flash_ipa(gaps, "float64", C.MF_GAUGE_CANONICAL, C.MF_EXACT) end)
  case("mf_flash_ipa mf_flash_ipa_attend", function() return flash_ipa(gaps, "float32", C.MF_GAUGE_CENTRED, C.MF_FP16) end)
end

case("mf_random_uniform", function() return x(4, 3), generator(), 0, 1 end)
case("mf_random_normal", function() return x(4, 3), generator(), 0, 1 end)
case("mf_random_truncated", function() return x(4, 3), generator(), 1 end)
case("mf_random_rotations", function() return x(4, 3, 3), generator() end)
case("mf_random_igso3", function() return x(4, 3), generator(), x(4):abs() end)
local function streams() return mf.tensor({ 4, 9, 2 }, { dtype = "int64" }) end
case("mf_random_normal_each", function() return x(12, 3), generator(), streams(), packing() end)
case("mf_random_rotations_each", function() return x(6, 3, 3), generator(), streams(), packing() end)
case("mf_random_igso3_each", function() return x(6, 3), generator(), streams(), packing(), x(6):abs() end)
case("mf_random_permutation", function() return mf.arange(9), generator() end)

local function adam()
  return ffi.new("mf_adam_params[1]", { {
    lr = 1e-3, beta1 = 0.9, beta2 = 0.99, epsilon = 1e-8, scale = 1, step = 1, decoupled = 1,
  } })
end
case("mf_adam_step", function() return leaf(4, 3), x(4, 3), x(4, 3):abs(), x(3, 4):t(), adam() end)
case("mf_sgd_step", function() return leaf(4, 3), x(4, 3), x(3, 4):t(), 0.1, 0.9, 0 end)
case("mf_ema_step", function() return x(4, 3), x(4, 3), 0.9 end)
case("mf_grad_norm", function()
  local list = { x(4, 3), x(3, 4):t() }
  return ffi.new("double[1]"), tensors_box(2, list), 2, list
end)
case("mf_optim_norm", function()
  local list = { x(4, 3), x(3, 4):t() }
  return x(C.MF_CONTROL_RATE + 1):abs(), tensors_box(2, list), 2, list
end)
-- An mf_optim_list of one parameter, and what it points to.
local function optim_list(averaged)
  local held = { leaf(4, 3), x(3, 4):t(), x(4, 3), x(4, 3):abs(), x(4, 3) }
  local boxes = {}
  for i, t in ipairs(held) do boxes[i] = tensors_box(1, { t }) end
  local list = ffi.new("mf_optim_list[1]", { {
    count = 1, parameters = boxes[1], gradients = boxes[2], m = boxes[3], v = boxes[4],
    averages = averaged and boxes[5] or nil, decay = 0.9,
  } })
  return list, { held, boxes }
end
case("mf_adam_many", function()
  local list, held = optim_list(true)
  return x(C.MF_CONTROL_RATE + 1):abs(), list, adam(), held
end)
case("mf_sgd_many", function()
  local list, held = optim_list()
  list[0].v = nil
  return x(C.MF_CONTROL_RATE + 1):abs(), list, 0.9, 0, held
end)
case("mf_ema_many", function() return optim_list(true) end)

-- Why a prototype has no case. Where the context does not count allocations a program of C fails malloc itself.
local reasons = {}
local function because(reason, names)
  for name in names:gmatch "%S+" do reasons[name] = reason end
end
because("only looks", [[mf_cif_count mf_cif_block mf_cif_table mf_cif_tag mf_cif_value
  mf_error_text mf_version mf_status_name mf_dtype_name mf_dtype_bytes mf_clock mf_is_terminal
  mf_ctx_thread_count mf_ctx_product_precision mf_grad_enabled mf_memory_get mf_memory_pressure mf_ctx_rng mf_tensor_dropped
  mf_tensor_id
  mf_tensor_ctx mf_tensor_device mf_tensor_dtype mf_tensor_ndim mf_tensor_size mf_tensor_stride mf_tensor_count
  mf_tensor_bytes mf_tensor_version mf_tensor_contiguous mf_tensor_requires_grad mf_walk_cotangent mf_op_count mf_op_name
  mf_op_differentiable mf_op_keeps mf_packing_count mf_packing_total mf_packing_pairs mf_packing_longest mf_packing_offset
  mf_archive_count mf_archive_name mf_archive_info mf_archive_bytes mf_archive_metadata_count mf_archive_metadata_key
  mf_row_reader_pending
  mf_archive_metadata_value mf_structure_count mf_structure_text mf_structure_resolution mf_structure_chain
  mf_structure_residue mf_structure_atom mf_structure_entity mf_structure_assembly mf_structure_cell mf_read_params_init
  mf_cuda_count mf_is_deterministic mf_graph_capturing]])
because("changes a setting, a counter or a reference", [[mf_ctx_threads mf_ctx_products mf_grad_enable mf_memory_collected
  mf_memory_fail_at
  mf_tensor_retain mf_tensor_require_grad mf_tensor_grad mf_function_dropped mf_random_number mf_deterministic]])
because("opens a device at most, once", [[mf_memory_reset_peak mf_memory_limit mf_memory_flush mf_synchronize
  mf_packing_prepare mf_device_hardware]])
because("only looks", "mf_residue_describe mf_zip_count mf_zip_name mf_zip_size mf_pickle_root mf_pickle_get mf_pickle_children")
because("only computes", "mf_tm_d0")
because("frees", "mf_zip_close mf_pickle_release")
because("failing_malloc.c walks it", [[mf_zip_open mf_zip_read mf_zip_tensor mf_zip_npy mf_zip_write mf_layout_tensor mf_npy_read
  mf_npy_write mf_npz_write mf_pickle_parse]])
because("is for a GPU alone: spec/cuda/graph_spec.lua",
  "mf_graph_begin mf_graph_end mf_graph_replay mf_profile_begin mf_profile_end")
because("frees", [[mf_cif_release mf_tar_close
  mf_ctx_release mf_tensor_release mf_tensor_drop mf_walk_end mf_packing_release mf_archive_close
  mf_row_reader_close mf_file_free mf_process_release mf_process_kill mf_process_close_input mf_archive_stream_abandon
  mf_structure_release mf_chain_reader_close mf_graph_release]])
because("has a test of its own below", [[mf_walk_begin mf_walk_step mf_walk_give mf_function_record mf_cat mf_split
  mf_archive_tensor mf_archive_rows mf_row_reader_open mf_row_reader_submit mf_structure_atoms]])
because("failing_malloc.c walks it", [[mf_ctx_open mf_memory_report mf_assignment mf_tm_score
  mf_archive_open mf_archive_write mf_file_read
  mf_file_replace mf_file_move mf_file_inflate mf_file_sha256 mf_process_start mf_process_write mf_process_line mf_process_poll
  mf_process_wait
  mf_archive_stream_open mf_archive_stream_declare mf_archive_stream_metadata mf_archive_stream_append mf_archive_stream_put
  mf_archive_stream_copy mf_archive_stream_commit mf_structure_read mf_structure_parse mf_structure_create mf_structure_add_chain
  mf_chain_reader_open mf_chain_reader_next
  mf_structure_add_residue mf_structure_add_atom mf_structure_write mf_structure_dssp mf_backbone_dssp mf_structure_gyration
  mf_structure_contacts mf_structure_clashes mf_structure_base_pairs mf_structure_base_frames mf_image_png mf_cif_read mf_cif_parse
  mf_tar_open mf_tar_next mf_tar_read]])
because("failing_malloc.c walks it", "mf_structure_writer_open mf_structure_writer_add mf_structure_writer_commit")
because("frees", "mf_structure_writer_abandon")
because("allocates nothing", [[mf_row_reader_next mf_process_ended mf_process_errors mf_sha256 mf_structure_torsions
  mf_backbone_build]])

-- name -> { outs = kinds of the leading pointers to pointers }
local function prototypes()
  local file = assert(io.open(assert(F.header), "rb"))
  local text = file:read "*a":gsub("/%*.-%*/", ""):gsub("#[^\n]*", "")
  file:close()
  local found = {}
  for name, parameters in text:gmatch "(mf_[%w_]+)%(([^;{}]*)%)%s*;" do
    local outs = {}
    for parameter in parameters:gmatch "[^,]+" do
      local kind = parameter:match "^%s*(mf_%a+) %*%*"
      if not kind then break end
      outs[#outs + 1] = kind
    end
    found[name] = outs
  end
  return found
end

-- The same values with gaps, where a tensor has axes enough.
local function strided(t)
  if not mf.is_tensor(t) or t:ndim() < 2 or not t:is_contiguous() then return t end
  local wanted = t:requires_grad()
  local y = naive.strided(t:detach())
  return wanted and y:require_grad() or y
end

local function bytes_of(arguments, n)
  local all = {}
  for i = 1, n do
    local t = arguments[i]
    all[i] = mf.is_tensor(t) and t:bytes() or ffi.istype("mf_rng[1]", t) and tonumber(t[0].counter) or false
  end
  return all
end

local release = { mf_tensor = C.mf_tensor_release, mf_packing = C.mf_packing_release }

-- Calls f with the nth allocation failing for n = 1, 2, ... until it returns MF_OK; returns that n. f may return the
-- error text with its status, where it calls on after the failure.
local function walk(f, check)
  collectgarbage()
  collectgarbage "stop"  -- what it frees would be counted
  for n = 1, MOST do
    local before = mf.memory()
    C.mf_memory_fail_at(ctx, n)
    local status, text = f()
    C.mf_memory_fail_at(ctx, 0)
    text = text or ffi.string(C.mf_error_text())
    if status == C.MF_OK then
      collectgarbage "restart"
      return n
    end
    if status ~= C.MF_ENOMEM then
      error(("allocation %d: status %d: %s"):format(n, status, text), 2)
    end
    assert.is_truthy(text:find("out of memory", 1, true), text)
    if check then check(n) end
    local after = mf.memory()
    assert.equal(before.live, after.live, "live bytes after failing allocation " .. n)
    assert.equal(before.storages, after.storages)
  end
  error(("still failing after %d allocations"):format(MOST))
end

-- Roots of one call, walked back with failures. The graph is retained, so a pass that failed can be taken again.
local function walk_back(outs, kinds, leaves, gaps)
  local steps = 0
  for i = 1, #kinds do
    local root = outs[i][0]
    if kinds[i] == "mf_tensor" and C.mf_tensor_requires_grad(root) ~= 0 and C.mf_tensor_device(root) == 0 then
      local dims = {}
      for axis = 1, C.mf_tensor_ndim(root) do dims[axis] = tonumber(C.mf_tensor_size(root, axis - 1)) end
      local cotangent = mf.ones(dims, { dtype = ffi.string(C.mf_dtype_name(C.mf_tensor_dtype(root))) })
      if gaps then cotangent = strided(cotangent) end
      local box, id = ffi.new "mf_walk *[1]", ffi.new "int64_t[1]"
      local function pass(retain)
        box[0] = nil
        local status = C.mf_walk_begin(box, root, cotangent, retain)
        local text
        if status == C.MF_OK then
          status = C.mf_walk_step(box[0], id)
          text = ffi.string(C.mf_error_text())
          if status ~= C.MF_OK then assert.equal(C.MF_ESTATE, C.mf_walk_step(box[0], id)) end
        end
        C.mf_walk_end(box[0])
        if status ~= C.MF_OK then
          for _, t in ipairs(leaves) do t:zero_grad() end
        end
        return status, text
      end
      steps = steps + walk(function() return pass(1) end)
      for _, t in ipairs(leaves) do t:zero_grad() end
      if i == #kinds or kinds[i + 1] ~= "mf_tensor" then assert.equal(C.MF_OK, pass(0)) end
      for _, t in ipairs(leaves) do t:zero_grad() end
    end
  end
  return steps
end

local function pack(...) return { ... }, select("#", ...) end

-- What functions take of all that they are given.
local taken = {
  mf_grad_norm = 3, mf_optim_norm = 3, mf_adam_many = 3, mf_sgd_many = 4, mf_ema_many = 1,
  mf_flash_ipa = 3, mf_flash_ipa_attend = 3,
}

local function run(name, kinds, make, gaps)
  local arguments, n = pack(make())
  if gaps then
    for i = 1, taken[name] or n do arguments[i] = strided(arguments[i]) end
  end
  local leaves = {}
  for i = 1, n do
    if mf.is_tensor(arguments[i]) and arguments[i]:requires_grad() then leaves[#leaves + 1] = arguments[i] end
  end
  n = taken[name] or n
  local boxes, all = {}, {}
  for i, kind in ipairs(kinds) do
    boxes[i] = ffi.new(kind .. " *[1]")
    all[i] = boxes[i]
  end
  for i = 1, n do all[#kinds + i] = arguments[i] end
  local before = bytes_of(arguments, n)
  local count = walk(function()
    for i, kind in ipairs(kinds) do boxes[i][0] = ffi.cast(kind .. " *", 8) end
    return C[name](unpack(all, 1, #kinds + n))
  end, function()
    for i = 1, #kinds do assert.is_true(boxes[i][0] == nil, "result " .. i .. " after a failure") end
    assert.same(before, bytes_of(arguments, n))
  end)
  walk_back(boxes, kinds, leaves, gaps)
  for i, kind in ipairs(kinds) do release[kind](boxes[i][0]) end
  return count
end

-- Written where they are, gaps or not.
local never = { mf_tensor_fill = true, mf_tensor_scale = true, mf_ema_step = true, mf_random_permutation = true }

describe("failing allocations one by one,", function()
  teardown(function()
    cases = nil
    jit.flush()
  end)
  after_each(function()
    C.mf_memory_fail_at(ctx, 0)
    collectgarbage "restart"
  end)

  for name, outs in pairs(prototypes()) do
    if cases[name] then
      it(name .. " gives back what it took", function()
        support.no_leaks(function()
          local most = 1
          for _, make in ipairs(cases[name]) do
            most = math.max(most, run(name, outs, make, false))
            -- Parameters have no gaps.
            if name ~= "mf_adam_step" and name ~= "mf_sgd_step" then most = math.max(most, run(name, outs, make, true)) end
          end
          assert.is_true(most > 1 or never[name] ~= nil, "no allocation was failed")
        end)
      end)
    else
      it(name .. " has a reason to have no case", function() assert.is_truthy(reasons[name]) end)
    end
  end

  it("reasons and cases are about functions of the header", function()
    local known, count = prototypes(), 0
    for name in pairs(reasons) do assert.is_truthy(known[name], name) end
    for name in pairs(cases) do assert.is_truthy(known[name], name) end
    for _ in pairs(known) do count = count + 1 end
    assert.is_true(count > 150, count .. " prototypes")
  end)

  it("mf_cat and mf_split give back what they took #grad", function()
    support.no_leaks(function()
      local a, b = leaf(3, 2), leaf(3, 4)
      local list, out = borrowed_box(2, { a, b }), { tensors_box(1) }
      walk(function() return C.mf_cat(out[1], list, 2, 1) end, function() assert.is_true(out[1][0] == nil) end)
      walk_back(out, { "mf_tensor" }, { a, b }, true)
      C.mf_tensor_release(out[1][0])
      local pieces, whole_one = tensors_box(3), leaf(3, 6)
      walk(function() return C.mf_split(pieces, whole_one, 1, sizes(1, 0, 5), 3) end, function()
        for i = 0, 2 do assert.is_true(pieces[i] == nil) end
      end)
      walk_back({ pieces }, { "mf_tensor" }, { whole_one }, true)
      for i = 0, 2 do C.mf_tensor_release(pieces[i]) end
    end)
  end)

  it("a long chain with shared leaves can be walked back again after every failure #grad", function()
    support.no_leaks(function()
      local a, b = leaf(4, 3), leaf(3)
      local y = a
      for _ = 1, 5 do y = (y * b + a):tanh() + y:matmul(a:t()):matmul(a) end
      y:sum():backward(nil, { retain = true })
      local want_a, want_b = a:grad():bytes(), b:grad():bytes()
      a:zero_grad()
      b:zero_grad()
      local root = y:sum()
      local box = ffi.new "mf_tensor *[1]"
      box[0] = root
      local n = walk_back({ box }, { "mf_tensor" }, { a, b }, false)
      assert.is_true(n > 50)
      y = a
      for _ = 1, 5 do y = (y * b + a):tanh() + y:matmul(a:t()):matmul(a) end
      y:sum():backward()
      assert.equal(want_a, a:grad():bytes())
      assert.equal(want_b, b:grad():bytes())
    end)
  end)

  it("the host's functions give back what they took #grad", function()
    support.no_leaks(function()
      local a = leaf(3, 2)
      local y = mf.no_grad(function() return a * 2 end)
      local inputs, outputs, id = borrowed_box(1, { a }), tensors_box(1, { y }), ffi.new "int64_t[1]"
      walk(function() return C.mf_function_record(ctx, id, inputs, 1, outputs, 1) end,
        function() assert.is_false(y:requires_grad()) end)
      assert.is_true(y:requires_grad())
      local root = y:sum()
      local function pass()
        local box, function_box = ffi.new "mf_walk *[1]", ffi.new "int64_t[1]"
        local status = C.mf_walk_begin(box, root, nil, 1)
        if status == C.MF_OK then status = C.mf_walk_step(box[0], function_box) end
        if status == C.MF_OK then
          assert.equal(tonumber(id[0]), tonumber(function_box[0]))
          local cotangent = C.mf_walk_cotangent(box[0], 0)
          status = C.mf_walk_give(box[0], 0, cotangent)
          if status == C.MF_OK then status = C.mf_walk_step(box[0], function_box) end
        end
        C.mf_walk_end(box[0])
        if status ~= C.MF_OK then a:zero_grad() end
        return status
      end
      assert.is_true(walk(pass) > 5)
      assert.same({ 1, 1, 1, 1, 1, 1 }, a:grad():values())
    end)
    while tonumber(C.mf_function_dropped(ctx)) ~= 0 do end
  end)

  it("files, structures and the rest give back what malloc gave", function()
    if os.getenv "ASAN_OPTIONS" then return pending "the sanitizer's malloc cannot be replaced" end
    local folder = os.tmpname()
    os.remove(folder)
    local library = F.library:match "^/" and F.library or "./" .. F.library
    local where = library:match "^(.*)/"
    local long = ("long"):rep(30) -- past what a header of tar holds
    assert(support.shell(("mkdir %s && cd %s && echo 1 > %s && tar --format=gnu -cf a.tar %s"):format(folder, folder, long, long)))
    local number = bcif.numbers({ 1.5 }, { { kind = "FixedPoint", factor = 10 }, { kind = "IntegerPacking", byteCount = 1 } })
    local columns = {}
    for _, item in ipairs { "Cartn_x", "Cartn_y", "Cartn_z" } do columns[#columns + 1] = { name = item, data = number } end
    for _, item in ipairs { "id", "label_atom_id", "label_comp_id", "label_asym_id" } do
      columns[#columns + 1] = { name = item, data = bcif.strings { "C" }, mask = bcif.mask { 0 } }
    end
    local file = assert(io.open(folder .. "/a.bcif", "wb"))
    file:write(bcif.file { { header = "X", categories = { { name = "_atom_site", rowCount = 1, columns = columns } } } })
    file:close()
    local command = ("%s -std=c11 -o %s/walk spec/core/failing_malloc.c %s -Wl,-rpath,\"$(cd %s && pwd)\" && "
      .. "OMP_NUM_THREADS=1 %s/walk %s 2>&1"):format(os.getenv "CC" or "cc", folder, library, where, folder, folder)
    local pipe = io.popen(command .. "; echo status $?; rm -r " .. folder)
    local text = pipe:read "*a"
    pipe:close()
    assert.is_truthy(text:find "status 0\n$", text)
    for name in pairs(reasons) do
      if reasons[name]:find("failing_malloc", 1, true) and not name:find("_add_", 1, true) then
        assert.is_truthy(text:find(name, 1, true), name .. " is missing in\n" .. text)
      end
    end
  end)

  it("tensors out of files give back what they took", function()
    local path = os.tmpname()
    mf.save(path, { w = single(4, 3) })
    local archive = ffi.new "mf_archive *[1]"
    assert.equal(C.MF_OK, C.mf_archive_open(archive, path))
    local out, mask = tensors_box(1), tensors_box(1)
    support.no_leaks(function()
      walk(function() return C.mf_archive_tensor(out, archive[0], ctx, 0) end, function() assert.is_true(out[0] == nil) end)
      C.mf_tensor_release(out[0])
      walk(function() return C.mf_archive_rows(out, archive[0], ctx, 0, 1, 2) end, function() assert.is_true(out[0] == nil) end)
      C.mf_tensor_release(out[0])
    end)
    local reader, two = ffi.new "mf_row_reader *[1]", tensors_box(2)
    local numbers, first, count = ffi.new("int64_t[2]", 0, 0), ffi.new("int64_t[2]", 1, 0), ffi.new("int64_t[2]", 2, 4)
    support.no_leaks(function()
      for threads = 0, 3 do
        walk(function() return C.mf_row_reader_open(reader, archive[0], ctx, numbers, 2, threads) end,
          function() assert.is_true(reader[0] == nil) end)
        walk(function() return C.mf_row_reader_submit(reader[0], first, count, 2) end,
          function() assert.equal(0, tonumber(C.mf_row_reader_pending(reader[0]))) end)
        assert.equal(C.MF_OK, C.mf_row_reader_submit(reader[0], first, count, 2))
        assert.equal(C.MF_OK, C.mf_row_reader_next(two, reader[0]))
        C.mf_tensor_release(two[0])
        C.mf_tensor_release(two[1])
        C.mf_row_reader_close(reader[0])      -- with one job under way
      end
    end)
    C.mf_archive_close(archive[0])
    os.remove(path)
    local structure = ffi.new "mf_structure *[1]"
    assert.equal(C.MF_OK, C.mf_structure_create(structure, "x", "y"))
    assert.equal(C.MF_OK, C.mf_structure_add_chain(structure[0], 1, "A", C.MF_POLYMER_PROTEIN))
    assert.equal(C.MF_OK, C.mf_structure_add_residue(structure[0], "GLY", 1))
    assert.equal(C.MF_OK, C.mf_structure_add_atom(structure[0], "CA", "C", ffi.new("double[3]", 1, 2, 3), 0))
    local names = ffi.new("const char *[2]", { "CA", "N" })
    support.no_leaks(function()
      walk(function() return C.mf_structure_atoms(out, mask, structure[0], ctx, 0, names, 2) end,
        function() assert.is_true(out[0] == nil and mask[0] == nil) end)
      C.mf_tensor_release(out[0])
      C.mf_tensor_release(mask[0])
    end)
    C.mf_structure_release(structure[0])
  end)
end)
