--- Indexing by tensors, products, normalisation, attention, conversions.
-- Tensors of indices hold positions counted from 0, int32 or int64.
-- @module moonfold.tensor.index
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local fail = require "moonfold.fail"

local C, out, out2, again, check, adopt, is_tensor = F.C, F.out, F.out2, F.again, F.check, F.adopt, F.is_tensor

local M, functions = {}, {}

--- The given positions of an axis, in their order.
-- @tparam number axis
-- @tparam tensor index (m) positions from 0
-- @treturn tensor
function M.index_select(x, axis, index)
  T.tensor_argument("index_select", 0, x)
  axis = T.axis("index_select", axis)
  T.tensor_argument("index_select", 2, index)
  local status = C.mf_index_select(out, x, axis, index)
  if status ~= 0 and again(status) then check(C.mf_index_select(out, x, axis, index)) end
  return adopt(out[0])
end

--- x plus the rows of `source`, each added at its position of an axis; equal positions add up.
-- @tparam number axis
-- @tparam tensor index (m) positions from 0
-- @tparam tensor source
-- @treturn tensor a new tensor
function M.index_add(x, axis, index, source)
  T.tensor_argument("index_add", 0, x)
  axis = T.axis("index_add", axis)
  T.tensor_argument("index_add", 2, index)
  T.tensor_argument("index_add", 3, source)
  local status = C.mf_index_add(out, x, axis, index, source)
  if status ~= 0 and again(status) then check(C.mf_index_add(out, x, axis, index, source)) end
  return adopt(out[0])
end

--- One element of the axis for each element of the index.
-- @tparam number axis
-- @tparam tensor index positions from 0
-- @treturn tensor shaped like the index
function M.gather(x, axis, index)
  T.tensor_argument("gather", 0, x)
  axis = T.axis("gather", axis)
  T.tensor_argument("gather", 2, index)
  local status = C.mf_gather(out, x, axis, index)
  if status ~= 0 and again(status) then check(C.mf_gather(out, x, axis, index)) end
  return adopt(out[0])
end

--- x plus each element of `source` at the position that the index gives; equal positions add up.
-- @tparam number axis
-- @tparam tensor index positions from 0
-- @tparam tensor source shaped like the index
-- @treturn tensor a new tensor
function M.scatter_add(x, axis, index, source)
  T.tensor_argument("scatter_add", 0, x)
  axis = T.axis("scatter_add", axis)
  T.tensor_argument("scatter_add", 2, index)
  T.tensor_argument("scatter_add", 3, source)
  local status = C.mf_scatter_add(out, x, axis, index, source)
  if status ~= 0 and again(status) then check(C.mf_scatter_add(out, x, axis, index, source)) end
  return adopt(out[0])
end

--- Rows of a table of vectors, for indices of any shape.
-- @tparam tensor index positions from 0
-- @tparam tensor weight (rows, width)
-- @treturn tensor the shape of the index, then width
function functions.embedding(index, weight)
  T.tensor_argument("embedding", 1, index)
  T.tensor_argument("embedding", 2, weight)
  local shape = index:shape()
  if #shape == 1 then return M.index_select(weight, 1, index) end
  shape[#shape + 1] = weight:size(-1)
  return M.index_select(weight, 1, index:reshape(-1)):reshape(shape)
end

--- Matrix product of the last two axes; leading axes broadcast.
-- @tparam tensor b
-- @treturn tensor
-- @usage local c = a:matmul(b)
function M.matmul(a, b)
  T.tensor_argument("matmul", 0, a)
  T.tensor_argument("matmul", 1, b)
  local status = C.mf_matmul(out, a, b)
  if status ~= 0 and again(status) then check(C.mf_matmul(out, a, b)) end
  return adopt(out[0])
end

local activations = { none = C.MF_ACTIVATION_NONE, relu = C.MF_ACTIVATION_RELU }

--- x W' + b over the last axis, and an activation of it in the same kernel.
-- @tparam tensor weight (outputs, inputs)
-- @tparam ?tensor bias (outputs)
-- @tparam[opt="none"] string activation "none" or "relu"
-- @treturn tensor
function M.linear(x, weight, bias, activation)
  T.tensor_argument("linear", 0, x)
  T.tensor_argument("linear", 1, weight)
  T.optional_tensor("linear", 2, bias)
  local code = activations[activation or "none"]
  if not code then fail("linear: unknown activation '%s' (known: none, relu)", tostring(activation)) end
  local status = C.mf_linear_act(out, x, weight, bias, code)
  if status ~= 0 and again(status) then check(C.mf_linear_act(out, x, weight, bias, code)) end
  return adopt(out[0])
end

--- Normalises the last axis to mean 0 and variance 1, then scales and shifts.
-- @tparam tensor weight
-- @tparam tensor bias
-- @tparam[opt=1e-5] number epsilon
-- @treturn tensor
function M.layer_norm(x, weight, bias, epsilon)
  T.tensor_argument("layer_norm", 0, x)
  T.tensor_argument("layer_norm", 1, weight)
  T.tensor_argument("layer_norm", 2, bias)
  epsilon = T.number_argument("layer_norm", 3, epsilon, 1e-5)
  local status = C.mf_layer_norm(out, x, weight, bias, epsilon)
  if status ~= 0 and again(status) then check(C.mf_layer_norm(out, x, weight, bias, epsilon)) end
  return adopt(out[0])
end

--- The layer norm of x + b, or of x + mask b, in one pass.
-- @tparam tensor b shaped like x
-- @tparam tensor weight
-- @tparam tensor bias
-- @tparam[opt=1e-5] number epsilon
-- @tparam ?tensor mask one number or truth value for each row of x, without gradient
-- @treturn tensor
-- @usage local y = x:add_layer_norm(x:relu(), mf.ones(x:size(-1)), mf.zeros(x:size(-1)))
function M.add_layer_norm(x, b, weight, bias, epsilon, mask)
  T.tensor_argument("add_layer_norm", 0, x)
  T.tensor_argument("add_layer_norm", 1, b)
  T.tensor_argument("add_layer_norm", 2, weight)
  T.tensor_argument("add_layer_norm", 3, bias)
  epsilon = T.number_argument("add_layer_norm", 4, epsilon, 1e-5)
  T.optional_tensor("add_layer_norm", 5, mask)
  if mask and mask:dtype() ~= x:dtype() then mask = mask:to(x:dtype()) end
  local status = C.mf_add_layer_norm(out, x, b, mask, weight, bias, epsilon)
  if status ~= 0 and again(status) then check(C.mf_add_layer_norm(out, x, b, mask, weight, bias, epsilon)) end
  return adopt(out[0])
end

local precisions = { exact = C.MF_EXACT, fp16 = C.MF_FP16, bf16 = C.MF_BF16, tf32 = C.MF_TF32 }

-- Inside mf.recompute: the first time what attention gives is kept, the second time it is not computed again.
local function logged(log, q, k, v, key_bias, packing, code)
  local entry = log:next()
  if entry then
    local status = C.mf_attention_resume(out, q, k, v, key_bias, entry[1], entry[2], packing, code)
    if status ~= 0 and again(status) then
      check(C.mf_attention_resume(out, q, k, v, key_bias, entry[1], entry[2], packing, code))
    end
    return adopt(out[0])
  end
  local status = C.mf_attention_attend(out, out2, q, k, v, key_bias, packing, code)
  if status ~= 0 and again(status) then check(C.mf_attention_attend(out, out2, q, k, v, key_bias, packing, code)) end
  local lse = adopt(out2[0])
  local attended = adopt(out[0])
  log:keep(attended, lse)
  return attended
end

--- softmax(q k' + key_bias) v within each packed sequence; nothing of size L x L is stored.
-- @tparam tensor q (N, heads, width)
-- @tparam tensor k (N, heads, width)
-- @tparam tensor v (N, heads, value width)
-- @tparam ?tensor key_bias (N, heads); -inf masks a key
-- @tparam packing packing
-- @tparam[opt="exact"] string precision "exact", "fp16" or "bf16": what q, k and v are rounded to in products
-- @treturn tensor (N, heads, value width)
function functions.attention(q, k, v, key_bias, packing, precision)
  T.tensor_argument("attention", 1, q)
  T.tensor_argument("attention", 2, k)
  T.tensor_argument("attention", 3, v)
  T.optional_tensor("attention", 4, key_bias)
  T.packing_argument("attention", 5, packing)
  local code = precisions[precision or "exact"]
  if not code then fail("attention: unknown precision '%s' (known: exact, fp16, bf16, tf32)", tostring(precision)) end
  local log = F.attention_log
  if log then return logged(log, q, k, v, key_bias, packing, code) end
  local status = C.mf_attention(out, q, k, v, key_bias, packing, code)
  if status ~= 0 and again(status) then check(C.mf_attention(out, q, k, v, key_bias, packing, code)) end
  return adopt(out[0])
end

--- Attention with dense pairs: softmax(q k' + key_bias + pair_bias), applied to v and to the pair values.
-- @tparam tensor q (N, heads, width)
-- @tparam tensor k (N, heads, width)
-- @tparam tensor v (N, heads, value width)
-- @tparam ?tensor key_bias (N, heads)
-- @tparam ?tensor pair_bias (pairs, heads)
-- @tparam ?tensor pair_value (pairs, pair width)
-- @tparam packing packing
-- @treturn tensor (N, heads, value width)
-- @treturn ?tensor (N, heads, pair width), nil without pair values
function functions.pair_attention(q, k, v, key_bias, pair_bias, pair_value, packing)
  T.tensor_argument("pair_attention", 1, q)
  T.tensor_argument("pair_attention", 2, k)
  T.tensor_argument("pair_attention", 3, v)
  T.optional_tensor("pair_attention", 4, key_bias)
  T.optional_tensor("pair_attention", 5, pair_bias)
  T.optional_tensor("pair_attention", 6, pair_value)
  T.packing_argument("pair_attention", 7, packing)
  local status = C.mf_pair_attention(out, out2, q, k, v, key_bias, pair_bias, pair_value, packing)
  if status ~= 0 and again(status) then
    check(C.mf_pair_attention(out, out2, q, k, v, key_bias, pair_bias, pair_value, packing))
  end
  local pair_out = out2[0]
  local attended = adopt(out[0])
  if pair_out == nil then return attended end
  return attended, adopt(pair_out)
end

local code = T.dtype_code

local function to_device(x, device)
  if C.mf_tensor_device(x) == device then return x end
  local status = C.mf_to_device(out, x, device)
  if status ~= 0 and again(status) then check(C.mf_to_device(out, x, device)) end
  return adopt(out[0])
end

--- x in another element type or on another device; x itself when nothing changes. Gradients flow back.
-- @tparam string|table target a dtype, a device, or `{ dtype =, device = }`
-- @treturn tensor
-- @usage local y = x:to("float64")
--        local z = x:to { dtype = "float32", device = "cpu" }
function M.to(x, target)
  T.tensor_argument("to", 0, x)
  if type(target) == "table" then
    local dtype, device = T.tensor_options("to", target, C.mf_tensor_dtype(x))
    x = T.cast(x, dtype)
    return target.device and to_device(x, device) or x
  end
  if type(target) ~= "string" then T.bad_argument("to", 1, "a dtype, a device or a table", target) end
  if code[target] then return T.cast(x, code[target]) end
  if target == "cpu" or target == "null" or target:sub(1, 4) == "cuda" then
    return to_device(x, T.device("to", target))
  end
  return T.cast(x, T.dtype("to", target))
end

--- x as float32.
-- @treturn tensor
function M.float(x) return T.cast(T.tensor_argument("float", 0, x), code.float32) end

--- x as float64.
-- @treturn tensor
function M.double(x) return T.cast(T.tensor_argument("double", 0, x), code.float64) end

--- x as int32.
-- @treturn tensor
function M.int(x) return T.cast(T.tensor_argument("int", 0, x), code.int32) end

--- x as int64.
-- @treturn tensor
function M.long(x) return T.cast(T.tensor_argument("long", 0, x), code.int64) end

--- x as bool: true where it is not 0.
-- @treturn tensor
function M.bool(x) return T.cast(T.tensor_argument("bool", 0, x), code.bool) end

functions.is_tensor = is_tensor

return { methods = M, functions = functions }
