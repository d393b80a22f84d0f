-- What a user gets wrong, and what they are told: one line that names the operator, what was wrong and the shapes, at
-- their own line; nothing is lost and nothing crashes.
local ffi = require "ffi"
local mf = require "moonfold"
local F = require "moonfold.ffi"
local support = require "spec.support"

local g = mf.geometry
local null = { device = "null" }
local function int32(list) return mf.tensor(list, { dtype = "int32" }) end
local function released()
  local x = mf.ones(3, 4)
  x:release()
  return x
end
local function packing() return mf.packing { 3, 2 } end
local function leaf(...) return mf.ones(...):require_grad() end

-- Rows: what the message says after its position, and the mistake. The position must be within the mistake.
local mistakes = {
  ["an operator refuses"] = {
    { "add: shapes (3, 4) and (3, 5) do not broadcast: 4 against 5", function(x) return x + mf.ones(3, 5) end },
    { "add: input 1 is on cpu, input 2 on null; move one with :to", function(x) return x + mf.ones({ 3, 4 }, null) end },
    { "add: argument 1 must be a tensor or a number, got a string", function(x) return x + "a" end },
    { "add: argument 1 must be a tensor or a number, got nil", function(x) return (x:add()) end },
    { "add: this tensor (3, 4) was released", function(x) return x + released() end },
    { "exp: this tensor (3, 4) was released", function() return (released():exp()) end },
    { "read: this tensor (3, 4) was released", function() return (released():totable()) end },
    { "exp: needs a floating type, not int32; cast it with :to", function() return (mf.arange(3):exp()) end },
    { "clamp: the lower bound 2 is not below the upper bound 1", function(x) return (x:clamp(2, 1)) end },
    { "clamp: the lower bound", function(x) return (x:clamp(0 / 0, 1)) end },
    { 'round_to: precision must be "fp16" or "bf16"', function(x) return (x:round_to "fp8") end },
    { "dropout: rate 1 must lie in [0, 1)", function(x) return (x:dropout(1)) end },
    { "dropout: argument 1 must be a number, got a string", function(x) return (x:dropout "a") end },
    { "dropout: rng must be a generator (mf.rng), got a number", function(x) return (x:dropout(0.5, 3)) end },
    { "unknown dtype 'flaot32', did you mean 'float32'?", function(x) return (x:to "flaot32") end },
    { "cuda:", function(x) return (x:to "cuda:99") end },      -- not built, no driver, or so many GPUs are not there
    { "sum: axes count from 1 (or from -1 at the end), got 0", function(x) return (x:sum(0)) end },
    { "sum: there is no axis 3 in shape (3, 4)", function(x) return (x:sum(3)) end },
    { "sum: there is no axis 4294967297", function(x) return (x:sum(2 ^ 32 + 1)) end },
    { "sum: axis 1 of (3, 4) is listed twice", function(x) return (x:sum { 1, -2 }) end },
    { "sum: an axis must be a whole number", function(x) return (x:sum(1.5)) end },
    { "mean: shape (0) has no elements to average", function() return (mf.zeros(0):mean()) end },
    { "max: axis 1 of (0, 2) is empty", function() return (mf.zeros(0, 2):max(1)) end },
    { "topk: 5 elements of axis 2 of (3, 4), which has 4", function(x) return (x:topk(5, 2)) end },
    { "topk: argument 1 is 4294967297, beyond 2147483647", function(x) return (x:topk(2 ^ 32 + 1, 2)) end },
    { "segment_sum: shape (3, 4) does not begin with the 5 residues", function(x) return (x:segment_sum(packing())) end },
    { "segment_expand: (3, 4) must have 2 along axis 1", function(x) return (x:segment_expand(packing())) end },
    { "matmul: (3, 4) by (3, 4): axis 2 of the first is 4, axis 1 of the second 3", function(x) return (x:matmul(x)) end },
    { "matmul: argument 1 must be a tensor, got nil", function(x) return (x:matmul()) end },
    { "linear: x (3, 4) and weight (2, 3)", function(x) return (x:linear(mf.ones(2, 3))) end },
    { "linear: bias (3) must be (2)", function(x) return (x:linear(mf.ones(2, 4), mf.ones(3))) end },
    { "softmax: there is no axis 3 in shape (3, 4)", function(x) return (x:softmax(3)) end },
    { "layer_norm: weight (3) must be (4)", function(x) return (x:layer_norm(mf.ones(3), mf.ones(4))) end },
  },
  ["a change of shape refuses"] = {
    { "reshape: (3, 4) has 12 elements, which do not fit (5, -1)", function(x) return (x:reshape(5, -1)) end },
    { "reshape: (-1, -1): sizes are 0 or more, and one may be -1", function(x) return (x:reshape(-1, -1)) end },
    { "reshape: shape (1099511627776, 1099511627776) has too many", function(x) return (x:reshape(2 ^ 40, 2 ^ 40)) end },
    { "expand: shape (1099511627776, 1099511627776) has too many", function() return (mf.ones(1):expand(2 ^ 40, 2 ^ 40)) end },
    { "expand: (3, 4) does not expand to (3, 5)", function(x) return (x:expand(3, 5)) end },
    { "permute: axis 1 is named twice", function(x) return (x:permute(1, 1)) end },
    { "narrow: 4 from position 3 do not fit axis 2 of (3, 4)", function(x) return (x:narrow(2, 3, 4)) end },
    { "narrow: positions count from 1", function(x) return (x:narrow(2, 0, 1)) end },
    { "narrow: argument 2 is 1e+300, beyond", function(x) return (x:narrow(2, 1e300, 1)) end },
    { "select: position 5 is outside axis 2 of (3, 4)", function(x) return (x:select(2, 5)) end },
    { "transpose: axis 3 does not exist, the tensor has 2 axes", function(x) return (x:transpose(1, 3)) end },
    { "split: the sizes add up to 2, axis 2 has 4", function(x) return (x:split({ 1, 1 }, 2)) end },
    { "cat: the table of tensors is empty", function() return (mf.cat({}, 1)) end },
    { "cat: tensor 2 is (2, 3), expected (3, 4) but for axis 1", function(x) return (mf.cat({ x, mf.ones(2, 3) }, 1)) end },
    { "cat: element 2 must be a tensor, got a number", function(x) return (mf.cat({ x, 3 }, 1)) end },
  },
  ["an index refuses"] = {
    { "index_select: the index is float32", function(x) return (x:index_select(1, mf.ones(2))) end },
    { "index_select: index 3 (entry 2 of the index tensor)", function(x) return (x:index_select(1, int32 { 0, 3 })) end },
    { "index_select: index -1 (entry 1 of the index tensor)", function(x) return (x:index_select(1, int32 { -1 })) end },
    { "index 0 (entry 1 of the index tensor)", function() return (mf.zeros(0, 2):index_select(1, int32 { 0 })) end },
    { "index_add: the source (2, 4) must be like x (3, 4)", function(x) return (x:index_add(1, int32 { 0 }, mf.ones(2, 4))) end },
    { "gather: index 9 (entry 4 of", function(x) return (x:gather(1, int32 { { 0, 0, 0, 9 } })) end },
    { "gather: the index (1, 2) must be like x (3, 4)", function(x) return (x:gather(1, int32 { { 0, 0 } })) end },
    { "scatter_add: index 3", function(x) return (x:scatter_add(1, int32 { { 0, 0, 0, 3 } }, mf.ones(1, 4))) end },
    { "index 5 (entry 1 of the index tensor) must be at least 0", function(x) return (mf.embedding(int32 { 5 }, x)) end },
  },
  ["a maker refuses"] = {
    { "tensor: the nested tables are ragged: element [2]", function() return (mf.tensor { { 1, 2 }, { 3 } }) end },
    { "tensor: element [2] must be a number or a boolean, got a string", function() return (mf.tensor { 1, "a" }) end },
    { "unknown option 'dytpe', did you mean 'dtype'?", function() return (mf.tensor({ 1 }, { dytpe = "float32" })) end },
    { "unknown device 'gpu'", function() return (mf.zeros(2, { device = "gpu" })) end },
    { "tensor: axis 1 has size -1, expected 0 or more", function() return (mf.zeros(-1)) end },
    { "zeros: a size must be a whole number, got nan", function() return (mf.zeros(0 / 0)) end },
    { "zeros: a size of 1e+300 is beyond", function() return (mf.zeros(1e300)) end },
    { "has too many elements", function() return (mf.zeros(2 ^ 40, 2 ^ 40)) end },
    { "has too many elements", function() return (mf.zeros(0, 2 ^ 40, 2 ^ 40)) end },
    { "bytes could not be allocated", function() return (mf.zeros(2 ^ 50)) end },
    { "arange: 1099511627776 numbers, expected fewer", function() return (mf.arange(2 ^ 40)) end },
    { "eye: 1048576 rows, expected fewer", function() return (mf.eye(2 ^ 20)) end },
    { "arange: the count must not be negative, got -1", function() return (mf.arange(-1)) end },
    { "randn: rng must be a generator", function() return (mf.randn(2, { rng = 5 })) end },
    { "needs a floating type, not int32", function() return (mf.randn(2, { dtype = "int32" })) end },
    { "random.uniform: [1, 0) is not a finite interval", function(x) return (x:uniform_(1, 0)) end },
    { "the deviation at least 0", function(x) return (x:normal_(0, -1)) end },
    { "item: shape (3, 4) has 12 elements, expected 1", function(x) return (x:item()) end },
    { "item: the null device holds shapes, not values", function() return (mf.ones({ 1 }, null):item()) end },
    { "read: the null device holds shapes, not values", function() return (mf.ones({ 1 }, null):totable()) end },
  },
  ["writing in place refuses"] = {
    { "copy: (7) does not broadcast to (3, 4)", function(x) return (x:copy_(mf.ones(7))) end },
    { "add_: (7) does not broadcast to (3, 4)", function(x) return (x:add_(mf.ones(7))) end },
    { "add_: tensors live on cpu and null", function(x) return (x:add_(mf.ones({ 3, 4 }, null))) end },
    { "copy: axis 1 of (3) is expanded", function() return (mf.ones(1):expand(3):copy_(mf.ones(3))) end },
    { "mul_: int32 cannot be scaled by 0.5", function() return (int32({ 1, 2 }):mul_(0.5)) end },
    { "fill: a tensor that requires a gradient can only be written", function() return (leaf(2):fill_(2)) end },
  },
  ["a gradient refuses"] = {
    { "require_grad: int32 has no gradient", function() return (mf.arange(3):require_grad()) end },
    { "require_grad: this tensor is the result of an operation", function() return ((leaf(2) * 2):require_grad(false)) end },
    { "backward: this tensor does not depend on anything", function(x) x:sum():backward() end },
    { "backward: shape (2) is not a scalar; give a cotangent", function() (leaf(2) * 2):backward() end },
    { "backward: cotangent (3) float32 for a tensor (2) float32", function() (leaf(2) * 2):backward(mf.ones(3)) end },
    { "backward: the cotangent is on null", function() (leaf(2) * 2):backward(mf.ones({ 2 }, null)) end },
    { "backward: argument 1 must be a tensor or nil", function() (leaf(2) * 2):backward "a" end },
    { "unknown option 'retian', did you mean 'retain'?", function() (leaf(1) * 2):backward { retian = true } end },
    { "checkpoint: argument 1 must be a function", function() return (mf.checkpoint(3)) end },
    { "option 'backward' is required", function() return (mf.differentiable { forward = print }) end },
  },
  ["a packing refuses"] = {
    { "packing: sequence 1 has length -1", function() return (mf.packing { -1 }) end },
    { "packing: length 1 must be a whole number, got a string", function() return (mf.packing { "a" }) end },
    { "more than 2147483647 residues in one batch", function() return (mf.packing { 2 ^ 31 - 1, 1 }) end },
    { "more than 2147483647 residues in one batch", function() return (mf.packing { 2 ^ 40, 2 ^ 52 }) end },
    { "offset: sequence 9 does not exist, the packing has 2", function() return (packing():offset(9)) end },
    { "pad: the tensor has 3 rows, the packing has 5 residues", function(x) return (mf.pad(x, packing())) end },
    { "unpad: the mask (2, 2) must be (3, 4)", function(x) return (mf.unpad(x, mf.ones(2, 2):bool())) end },
  },
  ["attention refuses"] = {
    { "q (5, 2, 3), k (5, 2, 4), v (5, 2, 3); expected",
      function() return (mf.attention(mf.ones(5, 2, 3), mf.ones(5, 2, 4), mf.ones(5, 2, 3), nil, packing())) end },
    { "key_bias (5) must be (5, 2), residues and heads",
      function() return (mf.attention(mf.ones(5, 2, 3), mf.ones(5, 2, 3), mf.ones(5, 2, 3), mf.ones(5), packing())) end },
    { "unknown precision 'fp8' (known: exact",
      function() return (mf.attention(mf.ones(5, 2, 3), mf.ones(5, 2, 3), mf.ones(5, 2, 3), nil, packing(), "fp8")) end },
    { "argument 5 must be a packing",
      function() return (mf.attention(mf.ones(5, 2, 3), mf.ones(5, 2, 3), mf.ones(5, 2, 3))) end },
    { "input 1 is on null, input 2 on cpu",
      function() return (mf.attention(mf.ones({ 5, 2, 3 }, null), mf.ones(5, 2, 3), mf.ones(5, 2, 3), nil, packing())) end },
    { "pair_bias (5, 2) must be (13, 2), the packing's pairs and the heads",
      function()
        local q = mf.ones(5, 2, 3)
        return (mf.pair_attention(q, q, q, nil, mf.ones(5, 2), nil, packing()))
      end },
  },
  ["geometry refuses"] = {
    { "points (5, 4, 2) must be (5, 4, 3)", function() return (g.apply(mf.ones(5, 3, 3), mf.ones(5, 3), mf.ones(5, 4, 2))) end },
    { "t (4, 3) must be (5, 3)", function() return (g.apply(mf.ones(5, 3, 3), mf.ones(4, 3), mf.ones(5, 4, 3))) end },
    { "R is int32; geometry takes", function() return (g.apply(mf.ones(5, 3, 3):int(), mf.ones(5, 3), mf.ones(5, 4, 3))) end },
    { "quat_to_rot: q (3) must be (..., 4)", function() return (g.quat_to_rot(mf.ones(3))) end },
    { "so3_exp: v (3, 4) must be (..., 3)", function() return (g.so3_exp(mf.ones(3, 4))) end },
    { "dihedral: points (3, 3, 3) must be (..., 4, 3)", function() return (g.dihedral(mf.ones(3, 3, 3))) end },
    { "kabsch: fixed (4, 3) must be (5, 3)", function() return (g.kabsch(mf.ones(5, 3), mf.ones(4, 3), nil, packing())) end },
    { "k is 3, but sequence 2 has 2 residues", function() return (g.neighbours(mf.ones(5, 3), nil, 3, packing())) end },
    { "k is 0, expected at least 1", function() return (g.neighbours(mf.ones(5, 3), nil, 0, packing())) end },
    { "edges go from 2 to 1", function() return (g.distogram(mf.ones(5), 2, 1, 3)) end },
    { "width is 7, expected an even number", function() return (g.index_embedding(mf.arange(3), 7)) end },
    { "rotary: index (4) must be (5)", function() return (g.rotary(mf.ones(5, 2, 6), mf.arange(4), 4)) end },
    { "rotary: dim is 8, x (5, 2, 6) has 6 columns", function() return (g.rotary(mf.ones(5, 2, 6), mf.arange(5), 8)) end },
    { "rotary: argument 3 must be a whole number", function() return (g.rotary(mf.ones(5, 2, 6), mf.arange(5), 2.5)) end },
    { "truth (5, 3, 3) must be (5, 2, 3)",
      function() return (g.pair_distance_loss(mf.ones(5, 2, 3), mf.ones(5, 3, 3), nil, 0, packing())) end },
    { "update (5, 5) must be (5, 6)", function() return (g.frames_update(mf.ones(5, 4), mf.ones(5, 3), mf.ones(5, 5))) end },
  },
  ["an optimizer refuses"] = {
    { "adamw: there are no parameters", function() return (mf.optim.adamw {}) end },
    { "unknown option 'rl', did you mean 'lr'?", function() return (mf.optim.adamw({ leaf(1) }, { rl = 1 })) end },
    { "no parameter has a gradient; call backward first", function() return (mf.optim.adamw({ leaf(1) }):step()) end },
    { "ema: the decay must lie in 0 .. 1, got 2", function() return (mf.optim.ema({ mf.ones(1) }, 2)) end },
  },
  ["a file refuses"] = {
    { "'/nonexistent': No such file or directory", function() return (mf.load "/nonexistent") end },
    { "'/tmp': Is a directory", function() return (mf.load "/tmp") end },
    { "argument 1 must be a path, got nil", function() return (mf.load()) end },
    { "'/nonexistent/x': No such file or directory", function(x) return (mf.save("/nonexistent/x", { a = x })) end },
    { "'/dev/full': No space left on device", function(x) return (mf.save("/dev/full", { a = x })) end },
    { "'a' must be a tensor, got a number", function() return (mf.save("/nonexistent/x", { a = 1 })) end },
  },
  ["a setting refuses"] = {
    { "unknown device 'gpu'", function() return (mf.memory "gpu") end },
    { "-1 bytes is negative", function() return (mf.memory_limit(-1)) end },
    { "threads: -1 is not in 0..4096", function() return (mf.threads(-1)) end },
    { "unknown precision 'fp8'", function() return (mf.precision "fp8") end },
    { "has no member named 'nosuch'", function(x) return (x:nosuch()) end },
  },
}

describe("bad input:", function()
  teardown(function() mistakes = nil end)

  for subject, rows in pairs(mistakes) do
    it(subject, function()
      support.no_leaks(function()
        for _, row in ipairs(rows) do
          local text, mistake = row[1], row[2]
          local x = mf.full({ 3, 4 }, 1.5)
          local ok, message = pcall(mistake, x)
          assert.is_false(ok, "no error: " .. text)
          assert.is_truthy(message:find(text, 1, true), ("%s\n  is not in\n%s"):format(text, message))
          local where = debug.getinfo(mistake, "S")
          local file, line = message:match "^(.-):(%d+): "
          assert.equal(where.short_src, file)
          assert.is_true(tonumber(line) >= where.linedefined and tonumber(line) <= where.lastlinedefined, message)
          assert.same({ 1.5, 1.5 }, { x:min():item(), x:max():item() })
          assert.is_true(mf.grad_enabled())
        end
      end)
    end)
  end

  it("an error within a scope, no_grad or a checkpoint leaves them", function()
    support.no_leaks(function()
      local x = mf.ones(3)
      assert.has_error(function() mf.scope(function() return x + mf.ones(4) end) end)
      assert.has_error(function() mf.no_grad(function() return x + mf.ones(4) end) end)
      assert.has_error(function() mf.checkpoint(function(y) return y + mf.ones(4) end, x:require_grad()) end)
      assert.is_true(mf.grad_enabled())
      local kept
      mf.scope(function() kept = x * 2 end)
      assert.is_true(kept:is_released())
      local free = x * 2  -- in no scope: nothing frees it
      assert.is_false(free:is_released())
    end)
  end)
end)

describe("degenerate input", function()
  it("of no residues and of one goes through every packed operator and back", function()
    support.no_leaks(function()
      for _, lengths in ipairs { {}, { 0 }, { 0, 1, 0 }, { 1 } } do
        local p = mf.packing(lengths)
        local n = p:total()
        local q, t = mf.randn(n, 2, 3):require_grad(), mf.randn(n, 3):require_grad()
        local R = g.so3_exp(t)
        local y = mf.attention(q, q, q, nil, p):sum() + g.apply(R, t, q):sum() + t:segment_sum(p):sum()
        y = y + mf.pair_attention(q, q, q, nil, mf.randn(p:pairs(), 2), mf.randn(p:pairs(), 4), p):sum()
        y = y + g.pair_distance_loss(q, q:detach(), nil, 0, p):sum() + t:softmax(1):sum() + t:cumsum(1):sum()
        y:backward()
        assert.same({ n, 2, 3 }, q:grad():shape())
        g.gauge(R:detach(), t:detach(), nil, p)
        g.kabsch(t:detach(), t:detach(), nil, p)
        if n > 0 then g.neighbours(t:detach(), nil, 1, p) end
        assert.same({ n, 3 }, { t:sort(1):size(1), t:size(2) })
      end
    end)
  end)

  it("of NaN comes out as NaN and stops nothing", function()
    support.no_leaks(function()
      local nan = 0 / 0
      for _, dtype in ipairs { "float32", "float64" } do
        local options = { dtype = dtype }
        local p, t, R = mf.packing { 6 }, mf.full({ 6, 3 }, nan, options), mf.full({ 6, 3, 3 }, nan, options)
        local function is_nan(x)
          local value = x:values()[1]
          assert.is_true(value ~= value)
        end
        is_nan(g.so3_log(R))
        is_nan(g.so3_exp(t))
        is_nan(g.rot_to_quat(R))
        is_nan(g.frames_from_points(t, t, t))
        is_nan(g.apply(R, t, t))
        is_nan((g.gauge(R, t, nil, p)))
        is_nan((g.kabsch(t, t, nil, p)))
        is_nan((g.pair_distance_loss(mf.full({ 6, 2, 3 }, nan, options), mf.zeros({ 6, 2, 3 }, options), nil, 0, p)))
        local q = mf.full({ 6, 2, 3 }, nan, options)
        is_nan(mf.attention(q, mf.zeros({ 6, 2, 3 }, options), mf.ones({ 6, 2, 3 }, options), nil, p))
        support.error_matches(function() local _ = g.neighbours(t, nil, 3, p) end,
          "neighbours: residue 1 of sequence 1 has a coordinate that is not finite", true)
        local _, order = t:sort(1)
        for _, i in ipairs(order:values()) do assert.is_true(i >= 0 and i < 6) end
        g.distogram(t, 0, 1, 4)
        assert.equal(0, t:int():values()[1])
      end
    end)
  end)
end)

describe("the library itself refuses", function()
  local C, ctx = F.C, F.ctx
  local out = ffi.new "mf_tensor *[4]"
  local function refused(status, text, given)
    assert.equal(status, given)
    assert.is_truthy(ffi.string(C.mf_error_text()):find(text, 1, true), ffi.string(C.mf_error_text()))
    assert.is_true(out[0] == nil)
  end

  it("missing tensors, wild numbers and unknown codes", function()
    support.no_leaks(function()
      local x, shape = mf.ones(3, 4), ffi.new("int64_t[9]", 1, 1, 1, 1, 1, 1, 1, 1, 1)
      refused(C.MF_EVALUE, "a tensor is missing", C.mf_exp(out, nil))
      refused(C.MF_EVALUE, "add: a tensor is missing", C.mf_add(out, x, nil))
      refused(C.MF_EVALUE, "add: a tensor is missing", C.mf_add(out, nil, x))
      refused(C.MF_EVALUE, "where: a tensor is missing", C.mf_where(out, nil, x, x))
      refused(C.MF_EVALUE, "matmul: a tensor is missing", C.mf_matmul(out, x, nil))
      refused(C.MF_EVALUE, "no packing", C.mf_segment_sum(out, x, nil))
      refused(C.MF_EDTYPE, "99 is not an element type", C.mf_tensor_empty(out, ctx, 0, 99, 0, nil))
      refused(C.MF_EDEVICE, "7 is not a device code", C.mf_tensor_empty(out, ctx, 7, 0, 0, nil))
      refused(C.MF_ESHAPE, "9 axes, at most 8", C.mf_tensor_empty(out, ctx, 0, 0, 9, shape))
      refused(C.MF_ESHAPE, "-1 axes", C.mf_tensor_empty(out, ctx, 0, 0, -1, shape))
      refused(C.MF_EDTYPE, "cast: -1 is not", C.mf_cast(out, x, -1))
      refused(C.MF_EVALUE, "there is no axis 2147483648", C.mf_softmax(out, x, 2147483647))
      refused(C.MF_EVALUE, "there is no axis -2147483648", C.mf_softmax(out, x, -2147483648))
      local most = 0x7fffffffffffffffLL
      refused(C.MF_EVALUE, "do not fit axis 1", C.mf_narrow(out, x, 0, most, most))
      refused(C.MF_EVALUE, "outside axis 1", C.mf_select(out, x, 0, most))
      refused(C.MF_EVALUE, "piece 2", C.mf_split(out, x, 0, ffi.new("int64_t[3]", 1, most, most), 3))
      refused(C.MF_EVALUE, "no tensors given", C.mf_cat(out, nil, 0, 0))
      local q = mf.ones(5, 1, 1)
      refused(C.MF_EVALUE, "precision 9", C.mf_attention(out, q, q, q, nil, packing(), 9))
      refused(C.MF_EVALUE, "no tensor of a packing", C.mf_packing_tensor(out, packing(), 0, 6))
      local p = ffi.new "mf_packing *[1]"
      assert.equal(C.MF_EVALUE, C.mf_packing_create(p, ctx, ffi.new("int64_t[2]", 5, most), 2))
      assert.is_true(p[0] == nil)
    end)
  end)

  it("functions whose outputs are one tensor, or an input", function()
    support.no_leaks(function()
      local id, a, y = ffi.new "int64_t[1]", leaf(2), mf.ones(2)
      local inputs = ffi.new("const mf_tensor *[1]", { a })
      assert.equal(C.MF_ESTATE, C.mf_function_record(ctx, id, inputs, 1, ffi.new("mf_tensor *[2]", { y, y }), 2))
      inputs[0] = y
      assert.equal(C.MF_ESTATE, C.mf_function_record(ctx, id, inputs, 1, ffi.new("mf_tensor *[1]", { y }), 1))
      assert.is_false(y:requires_grad())
    end)
  end)

  it("more bytes on the null device than can be counted", function()
    support.no_leaks(function()
      local all = {}
      support.error_matches(function()
        for i = 1, 20 do all[i] = mf.zeros({ 2 ^ 52, 2 ^ 6 }, { device = "null", dtype = "float64" }) end
      end, "out of memory", true)
      assert.is_true(#all > 2)
    end)
  end)
end)

describe("a file", function()
  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder) == 0)
  end)
  after_each(function() os.execute("rm -r " .. folder) end)

  it("cut at any byte is refused by name", function()
    support.no_leaks(function()
      local path = folder .. "/w"
      mf.save(path, { weight = mf.ones(3, 4), bias = mf.zeros(5) }, { note = "x" })
      local file = assert(io.open(path, "rb"))
      local text = file:read "*a"
      file:close()
      for length = 0, #text - 1, 7 do
        local cut = assert(io.open(path, "wb"))
        cut:write(text:sub(1, length))
        cut:close()
        support.error_matches(function() local _ = mf.load(path) end, path, true)
      end
    end)
  end)

  it("keeps its old content when the disk is full", function()
    local path = folder .. "/w"
    mf.save(path, { a = mf.full({ 4 }, 3) })
    local script = ("local mf = require 'moonfold'; print(pcall(mf.save, '%s', { a = mf.ones(100000) }))"):format(path)
    local limits = "trap '' XFSZ; ulimit -f 8; LUA_PATH='lua/?.lua;lua/?/init.lua;;'"
    local pipe = io.popen(("%s MOONFOLD_LIBRARY='%s' luajit -e \"%s\" 2>&1"):format(limits, F.library, script))
    local text = pipe:read "*a"
    pipe:close()
    assert.is_truthy(text:find "^false.*File too large", text)
    assert.same({ 3, 3, 3, 3 }, mf.load(path).a:values())
    local list = io.popen("ls -A " .. folder)
    assert.equal("w\n", list:read "*a")
    list:close()
  end)
end)
