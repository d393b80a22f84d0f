-- Checkpoints that real PyTorch wrote (spec/tools/torch_fixtures.py), and what is wrong with those that it did not.
local mf = require "moonfold"
local json = require "moonfold.json"
local pickle = require "moonfold.pickle"
local zip = require "moonfold.zip"
local support = require "spec.support"

local torch = mf.torch

local folder
before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(support.shell("mkdir " .. folder))
end)
after_each(function() support.shell("rm -rf " .. folder) end)

local function fixture(name) return torch.load("spec/fixtures/torch_" .. name) end

local function write(name, text)
  local path = folder .. "/" .. name
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

-- Element k of n as the script makes it.
local function values(shape, dtype)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  local list = {}
  for k = 0, n - 1 do list[k + 1] = (37 * k + n) % 101 - 50 end
  local x = mf.tensor(list, { dtype = "float64" }):reshape(shape)
  if dtype and not dtype:find "float" then return x end
  return (x / 8):to(dtype or "float32")
end

-- A checkpoint around a pickle of ours: what PyTorch itself would not write.
local function checkpoint(data, storages)
  local parts = { { name = "archive/data.pkl", data = data } }
  for key, bytes in pairs(storages or {}) do parts[#parts + 1] = { name = "archive/data/" .. key, data = bytes } end
  zip.write(folder .. "/made.pth", parts, 64)
  return folder .. "/made.pth"
end

-- _rebuild_tensor_v2 over storage "0"; each argument is a piece of pickle.
local function tensor(o)
  o = o or {}
  local storage = "(X\7\0\0\0storagectorch\n" .. (o.class or "FloatStorage") .. "\nX\1\0\0\0" .. (o.key or "0") .. "X\3\0\0\0cpu"
    .. (o.numel or "K\6") .. "tQ"
  return "\128\2ctorch._utils\n_rebuild_tensor_v2\n(" .. (o.storage or storage) .. (o.offset or "K\0") .. (o.size or "K\2K\3\134")
    .. (o.stride or "K\3K\1\134") .. "\137ccollections\nOrderedDict\n)RtR."
end
local function integer(n)
  local text = ""
  for _ = 1, 8 do
    text = text .. string.char(n % 256)
    n = math.floor(n / 256)
  end
  return "\138\8" .. text
end
local FLOATS = ("\0\0\128\63"):rep(6)

describe("a checkpoint of PyTorch", function()
  for _, name in ipairs { "plain.pth", "plain5.pth", "old.pth" } do
    it("gives its tensors, containers and numbers: " .. name, function()
      local c = fixture(name)
      assert.are.same({ "model", "conf", "optimizer", "epoch", "step" }, pickle.order(c))
      assert.are.equal(3, c.epoch)
      assert.are.equal(1200, c.step)
      assert.are.same({
        "module.embedding_layer.node_embedder.0.weight", "module.score_model.trunk.ipa_0.head_weights",
        "module.score_model.trunk.ipa_0.linear_q.weight", "module.score_model.trunk.ipa_0.linear_q.bias",
      }, pickle.order(c.model))
      support.same_bits(c.model["module.score_model.trunk.ipa_0.linear_q.weight"], values { 6, 4 })
      support.same_bits(c.model["module.score_model.trunk.ipa_0.head_weights"], values { 2 })
      assert.are.equal(1e-4, c.optimizer.param_groups[1].lr)
      assert.are.equal(1, c.optimizer.state[0].step:item())
      assert.are.equal(json.null, c.optimizer.param_groups[1].foreach)
      -- a class that the script defines: data, with its state
      assert.is_true(torch.is_inert(c.conf))
      assert.are.equal("__main__.Config", c.conf.class)
      assert.are.equal(2, c.conf.state._content.model.state._content.ipa.state._content.no_heads.state._val)
    end)
  end

  it("of Lightning gives what stands around the weights", function()
    local c = fixture "lightning.ckpt"
    support.same_bits(c.state_dict["model.node_embedder.linear.weight"], values { 4, 4 })
    assert.is_true(torch.is_inert(c.hyper_parameters.cfg))
    local callback = c.callbacks.ModelCheckpoint
    assert.are.same({ 0.25, "a/b.ckpt", 7 }, { callback.best_model_score, callback.best_model_path, callback.seen })
    assert.are.same({ { 0, 1, 2 }, { 3, 4, 5 } }, c.array:totable())
    assert.are.same({ { 0, 1, 2 }, { 3, 4, 5 } }, c.fortran:totable())
    assert.is_true(c.seed == 2LL ^ 62 + 1)
    assert.are.equal("builtins.int", c.huge.class)
    assert.are.equal(json.null, c.nothing)
    assert.is_true(c.flag)
    assert.are.same({ 1, "a" }, { unpack(c.tuple) })
    assert.are.same({ { { 1, 2 }, "a tuple for a key" } }, pickle.others(c))
    assert.are.equal(1, c.loops.fit.state._val.epoch)
  end)

  it("gives views as they look", function()
    local c = fixture "views.pth"
    local x, y = values { 3, 4 }, values { 2, 3, 4 }
    local expected = {
      whole = x, transposed = x:t(), row = x:select(1, 2), column = x:select(2, 3), corner = x:narrow(1, 2, 2):narrow(2, 2, 2),
      every_other = mf.cat({ x:narrow(2, 1, 1), x:narrow(2, 3, 1) }, 2), permuted = y:permute(3, 1, 2),
      expanded = values({ 3, 1 }):expand(3, 5), scalar = mf.tensor(1.25), empty = mf.zeros(0, 3), tied = values { 2, 2 },
      tied_again = values { 2, 2 },
    }
    for name, wanted in pairs(expected) do
      support.same_bits(c[name], wanted, name)
      assert.are.same(wanted:shape(), c[name]:shape(), name)
      c[name] = nil
    end
    assert.is_nil(next(c))
  end)

  it("gives every type, widened exactly where ours lack it, and says so", function()
    local c, notes = fixture "types.pth"
    for _, dtype in ipairs { "float64", "float32", "float16", "bfloat16" } do
      support.same_bits(c[dtype], values({ 7 }, dtype), dtype)
    end
    local whole = values({ 7 }, "whole")
    for name, dtype in pairs { int64 = "int64", int32 = "int32", int16 = "int32", int8 = "int32" } do
      support.same_bits(c[name], whole:to(dtype), name)
    end
    support.same_bits(c.uint8, whole:abs():to "int32")
    support.same_bits(c.bool, whole:gt(0))
    assert.are.same({ 0, 1, 2 ^ 15 - 1 }, c.uint16:totable())
    assert.are.same({ 0, 1, 2 ^ 31 - 1 }, c.uint32:totable())
    -- beyond what a number of Lua holds: the bytes
    assert.are.equal("\255\255\255\255\255\255\255\127", c.uint64:bytes():sub(-8))
    assert.are.same({ -32768, 32767 }, c.int16_low:totable())
    assert.are.same({ -128, 127 }, c.int8_low:totable())
    assert.is_true(torch.is_inert(c.complex64))
    assert.are.equal("complex64", c.complex64.dtype)
    local told = {}
    for _, note in ipairs(notes) do told[note.text] = note.count end
    assert.are.same({
      ["int16 became int32, exactly"] = 2, ["int8 became int32, exactly"] = 2, ["uint8 became int32, exactly"] = 1,
      ["uint16 became int32, exactly"] = 1, ["uint32 became int64, exactly"] = 1, ["uint64 became int64, exactly"] = 1,
      ["complex64, which Moonfold has no type for, was kept as inert data"] = 1,
    }, told)
  end)

  it("comes back from a file of ours", function()
    local c = fixture "plain.pth"
    c.conf = nil
    local path = folder .. "/ours.pth"
    torch.save(path, c)
    local d = torch.load(path)
    assert.are.same(pickle.order(c.model), pickle.order(d.model))
    for name, x in pairs(c.model) do support.same_bits(d.model[name], x, name) end
    c.model, d.model = nil, nil
    support.same_bits(d.optimizer.state[0].exp_avg, c.optimizer.state[0].exp_avg)
    c.optimizer.state, d.optimizer.state = nil, nil
    assert.are.same(c, d)
    assert.are.equal("little", zip.open(path):read "archive/byteorder")
    local text = support.read_file(path)
    local data = zip.open(path):read "archive/data/0"
    assert.are.equal(1, text:find(data, 1, true) % 64)
  end)

  it("holds a tensor that occurs twice once", function()
    local x = mf.ones(3)
    torch.save(folder .. "/x.pth", { a = x, b = { x, mf.ones(3) } })
    local z = zip.open(folder .. "/x.pth")
    assert.are.same({ "archive/data.pkl", "archive/byteorder", "archive/data/0", "archive/data/1", "archive/version" }, z.names)
    assert.are.same({ 1, 1, 1 }, torch.load(folder .. "/x.pth").b[1]:totable())
  end)

  it("cannot hold everything, and says what and where", function()
    local function fails(value, message)
      support.error_matches(function() torch.save(folder .. "/x.pth", value) end, message, true)
    end
    fails({ a = { print } }, "the value.a[1] is a function")
    fails({ a = "\255" }, "the value.a is not text of UTF-8")
    fails(fixture("plain.pth"), "the value.conf is an inert __main__.Config")
    fails(fixture("lightning.ckpt"), "keys that are neither text nor numbers")
    local loop = {}
    loop.loop = loop
    fails(loop, "the value.loop contains itself")
    support.error_matches(function() torch.save(folder .. "/x.pth") end, "argument 2 must be a value, got nil")
    support.error_matches(function() torch.load() end, "argument 1 must be a path")
    assert.is_nil(io.open(folder .. "/x.pth"))
  end)
end)

describe("what is no checkpoint", function()
  it("is refused with what it is", function()
    local function fails(path, message) support.error_matches(function() torch.load(path) end, message, true) end
    fails("spec/fixtures/torch_legacy.pth", "format before 1.6, which is not read")
    fails("spec/fixtures/torch_none.pth", "No such file")
    fails("spec/fixtures/1ubq.pdb.gz", "it is no ZIP archive")
    fails("spec/fuzz/corpus/zip/deflated", "without data.pkl")
    zip.write(folder .. "/script.pt", { { name = "m/data.pkl", data = "N." }, { name = "m/constants.pkl", data = "N." } })
    fails(folder .. "/script.pt", "a TorchScript program")
    zip.write(folder .. "/two.pt", { { name = "a/data.pkl", data = "N." }, { name = "b/data.pkl", data = "N." } })
    fails(folder .. "/two.pt", "holds two checkpoints")
  end)

  it("is refused at every length that it is cut to", function()
    for _, name in ipairs { "views.pth", "lightning.ckpt", "plain5.pth" } do
      local text = support.read_file("spec/fixtures/torch_" .. name)
      for n = 0, #text - 1 do
        assert.is_false((pcall(torch.load, write("cut", text:sub(1, n)))), ("%s, %d bytes"):format(name, n))
      end
    end
  end)

  it("is refused or unchanged whatever byte of its pickle is another", function()
    local z = zip.open "spec/fixtures/torch_views.pth"
    local data, storages = z:read "torch_views/data.pkl", {}
    for _, name in ipairs(z.names) do
      local key = name:match "/data/(%d+)$"
      if key then storages[key] = z:read(name) end
    end
    assert.truthy(torch.load(checkpoint(data, storages)).whole)
    local refused = 0
    for at = 1, #data, 5 do
      for _, byte in ipairs { 0, 0x52, 0x62 } do
        local path = checkpoint(data:sub(1, at - 1) .. string.char(byte) .. data:sub(at + 1), storages)
        local ok, message = pcall(torch.load, path)
        if not ok then
          refused = refused + 1
          -- every refusal is one of ours, that names the file; none is an error of Lua
          assert.truthy(message:find("made.pth", 1, true), message)
        end
      end
    end
    assert.is_true(refused > 100)
  end)

  it("runs nothing, and what it wanted to run is there to see", function()
    local marker = folder .. "/marker"
    local payload = "touch " .. marker
    local command = "X" .. string.char(#payload) .. "\0\0\0" .. payload
    for class, text in pairs {
      ["os.system"] = "\128\2cos\nsystem\n" .. command .. "\133R.",
      ["posix.system"] = "\128\2cposix\nsystem\n" .. command .. "\133R.",
      ["builtins.eval"] = "\128\2cbuiltins\neval\n" .. command .. "\133R.",
      ["torch.storage._load_from_bytes"] = "\128\2ctorch.storage\n_load_from_bytes\nU\2N.\133R.",
      ["io.popen"] = "\128\2cio\npopen\n" .. command .. "\133R.",
      ["torch._utils._rebuild_tensor_v2x"] = "\128\2ctorch._utils\n_rebuild_tensor_v2x\n)R.",
    } do
      local value = torch.load(checkpoint(text))
      assert.is_true(torch.is_inert(value))
      assert.are.equal(class, value.class)
    end
    -- state for a dictionary that pretends to be a tensor, a class's attributes, a rule's own name as data
    support.error_matches(function() torch.load(checkpoint "\128\2ccollections\nOrderedDict\n}b.") end, "what is no object")
    assert.are.same({}, torch.load(checkpoint "\128\2ccollections\nOrderedDict\n)R}X\9\0\0\0__class__cos\nsystem\nsb."))
    assert.is_nil(io.open(marker))
  end)

  local cases = {
    { "a storage that is missing", { key = "1" }, "storage '1' is missing" },
    { "a storage of another size", { numel = "K\7" }, "has 24 bytes, expected 7 elements of 4" },
    { "a storage of negative size", { numel = "J\255\255\255\255" }, "has 24 bytes, expected -1 elements" },
    { "a class of storage that is none", { class = "Tensor" }, "a storage of class torch.Tensor" },
    { "a reference that is no tuple", { storage = "K\1Q" }, "a reference to something that is no storage" },
    { "a storage that is no reference", { storage = "K\1" }, "a tensor without a storage" },
    { "a size past the storage", { size = "K\3K\3\134" }, "the last element is number 9, the storage has 6" },
    { "a stride past the storage", { stride = "K\5K\1\134" }, "the last element is number 8, the storage has 6" },
    { "a stride past memory", { stride = integer(2 ^ 52) .. "K\1\134" }, "the last element" },
    { "a stride past whole numbers", { stride = integer(2 ^ 62) .. "K\1\134" }, "the stride of a tensor is not of whole numbers" },
    { "a storage made of a dictionary", { storage = "}(X\5\0\0\0entryX\1\0\0\0aX\5\0\0\0dtypeX\7\0\0\0float32u" },
      "a tensor without a storage" },
    { "a negative stride", { stride = "J\255\255\255\255K\1\134" }, "a negative stride" },
    { "a negative size", { size = "J\255\255\255\255K\3\134" }, "a negative size" },
    { "a negative offset", { offset = "J\255\255\255\255" }, "the offset lies outside the storage" },
    { "an offset past the storage", { offset = "K\7" }, "the offset lies outside the storage" },
    { "an offset that is no number", { offset = "N" }, "the offset of a tensor is not of whole numbers" },
    { "a size that is no number", { size = "K\2N\134" }, "the shape of a tensor is not of whole numbers" },
    { "a fractional size", { size = "K\2G\63\248\0\0\0\0\0\0\134" }, "the shape of a tensor is not of whole numbers" },
    { "a shape that is no tuple", { size = "K\2" }, "the shape of a tensor is not a tuple" },
    { "more strides than axes", { stride = "K\1\133" }, "a tensor of 2 axes has 1 strides" },
    { "nine axes", { size = "(" .. ("K\1"):rep(9) .. "t", stride = "(" .. ("K\1"):rep(9) .. "t" }, "9 axes" },
    { "elements by the billion of six", { size = integer(2 ^ 31) .. "K\1\134", stride = "K\0K\1\134" },
      "are more than 16 times the file" },
  }
  for _, case in ipairs(cases) do
    it("is a tensor with " .. case[1], function()
      assert.are.same({ { 1, 1, 1 }, { 1, 1, 1 } }, torch.load(checkpoint(tensor(), { ["0"] = FLOATS })):totable())
      local path = checkpoint(tensor(case[2]), { ["0"] = FLOATS })
      local message = support.error_matches(function() torch.load(path) end, case[3], true)
      assert.truthy(message:find("made.pth", 1, true), message)
    end)
  end

  it("is read as big endian when it says so", function()
    zip.write(folder .. "/b.pth", {
      { name = "x/data.pkl", data = tensor() }, { name = "x/byteorder", data = "big" },
      { name = "x/data/0", data = ("\63\128\0\0"):rep(6) },
    })
    assert.are.same({ { 1, 1, 1 }, { 1, 1, 1 } }, torch.load(folder .. "/b.pth"):totable())
  end)

  it("is a file whose tensors are many copies of its storage", function()
    -- 2 MB of storage, each of 200 tensors all of it: 400 MB, of a file of 2 MB
    local one = tensor({ numel = integer(2 ^ 19), size = integer(2 ^ 19) .. "\133", stride = "K\1\133" }):sub(3, -2)
    local path = checkpoint("\128\2](" .. one:rep(200) .. "e.", { ["0"] = ("\0"):rep(2 ^ 21) })
    support.error_matches(function() torch.load(path) end, "more than 16 times the file")
  end)
end)

describe("what repeats itself without end", function()
  -- dictionaries of two, each holding the one before twice: 2^60 paths to one tensor
  local function laughs(inner)
    local text = { "\128\2(" .. inner .. "q\0" }
    for level = 1, 60 do
      local before = "h" .. string.char(level - 1)
      text[#text + 1] = "}(X\1\0\0\0a" .. before .. "X\1\0\0\0b" .. before .. "uq" .. string.char(level)
    end
    return table.concat(text) .. "t."
  end

  it("is read, and refused where it would have to be written out", function()
    local value = torch.load(checkpoint(laughs "}"))
    assert.are.equal(value[60], value[61].a)
    support.error_matches(function() torch.flatten(value[61]) end, "more than 1048576 names")
    support.error_matches(function() torch.save(folder .. "/x.pth", value) end, "more than 4194304 values")
    support.error_matches(function() mf.convert.read(folder .. "/made.pth") end, "more than 1048576 names")
    assert.truthy(require("moonfold.convert.config").plain(value[61]))
  end)

  it("is not copied by the functions on the list either", function()
    local bytes = "B\0\0\32\0" .. ("\0"):rep(2 ^ 21) .. "q\0"
    local array = "cnumpy.core.numeric\n_frombuffer\n(h\0cnumpy\ndtype\nX\2\0\0\0i1\137\136\135RJ\0\0\32\0\133X\1\0\0\0CtR"
    local path = checkpoint("\128\2](" .. bytes .. array:rep(200) .. "e.")
    support.error_matches(function() torch.load(path) end, "more than 16 times the file")
    local text = "X\0\0\32\0" .. ("\0"):rep(2 ^ 21) .. "q\0"
    path = checkpoint("\128\2](" .. text .. ("c_codecs\nencode\nh\0X\6\0\0\0latin1\134R"):rep(200) .. "e.")
    support.error_matches(function() torch.load(path) end, "more than 16 times the file")
    local pairs = "](" .. ("NK\1\134"):rep(2 ^ 16) .. "eq\0"
    path = checkpoint("\128\2](" .. pairs .. ("ccollections\nOrderedDict\nh\0\133R"):rep(2000) .. "e.")
    support.error_matches(function() torch.load(path) end, "more than 16 times the file")
  end)
end)

describe("names of a checkpoint", function()
  it("are joined by dots in its own order", function()
    local tensors, names = torch.flatten(fixture "plain.pth")
    assert.are.equal("model.module.embedding_layer.node_embedder.0.weight", names[1])
    assert.truthy(tensors["optimizer.state.0.exp_avg"])
  end)
end)
