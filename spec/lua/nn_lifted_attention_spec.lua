-- Attention from terms: a term written in Lua is as good as one of ours.
local mf = require "moonfold"
local nn = mf.nn
local help = require "spec.support.nn"

-- A compiled trace keeps the closures it has met, and they the tensors they captured: let go before live bytes are counted.
teardown(function() jit.flush() end)

-- The example of the file's head: residues whose frames point the same way attract each other.
local Orientation = {}
Orientation.__index = Orientation

function Orientation:attach(o)
  self.weight = nn.parameter(mf.full({ o.heads }, 0.3))
  return 0
end

function Orientation:lift(_, context)
  local n, h = context.R:size(1), context.heads
  local axes = context.R:reshape(n, 1, 9):expand(n, h, 9)
  return { q = axes, k = axes * self.weight:reshape(1, h, 1) }
end

-- A term that only shifts the logits of keys and reads nothing.
local Preference = { lift = function(_, inputs) return { key_bias = inputs.preference } end }

-- A term with a value of its own and a readout.
local Mean = {
  attach = function() return 1 end,
  lift = function(_, inputs, context)
    local n = inputs.s:size(1)
    return { v = inputs.s:narrow(2, 1, 1):reshape(n, 1, 1):expand(n, context.heads, 1) }
  end,
  readout = function(_, columns) return columns:mean(2) end,
}

local function build(terms, o)
  local options = { node = 16, heads = 2, terms = terms, init = "default", rng = mf.rng(51) }
  for key, value in pairs(o or {}) do options[key] = value end
  return nn.lifted_attention(options)
end

local function inputs_of(n, rng)
  local R, t = help.chain(n, rng)
  return { s = mf.randn(n, 16, { rng = rng }), frames = { R = R, t = t }, packing = mf.packing { n } }
end

describe("lifted attention", function()
  it("is ipa when its terms are those of ipa", function()
    local o = { dim = 16, edge = 8, rank = 2, heads = 2, hidden = 4, query_points = 3, value_points = 4, init = "default" }
    local ipa = nn.ipa(o):to "float64"
    local ours = build({
      nn.term.scalar { dim = 4 }, nn.term.points { query = 3, value = 4 }, nn.term.pair { rank = 2, dim = 8 },
    }):to "float64"
    local state, place = {}, {
      linear_q = "terms.0.", linear_kv = "terms.0.", linear_q_points = "terms.1.", linear_kv_points = "terms.1.",
      head_weights = "terms.1.", linear_b = "terms.2.", down_z = "terms.2.", linear_out = "",
    }
    for name, x in pairs(ipa:state()) do state[place[name:match "^[^.]+"] .. name] = x end
    ours:load(state)
    local inputs = inputs_of(9, mf.rng(52))
    inputs.s, inputs.pair = inputs.s:double(), mf.randn(9, 2, 2, 8, { rng = mf.rng(53) }):double()
    inputs.frames = { R = inputs.frames.R:double(), t = inputs.frames.t:double() }
    -- rounding of a few hundred terms, summed in another order
    help.close(ours(inputs), ipa(inputs), 1e-14)
  end)

  it("trains a term written in Lua, which leaves the layer invariant", function()
    local rng = mf.rng(54)
    local layer = build { nn.term.scalar { dim = 8 }, setmetatable({}, Orientation) }
    local inputs = inputs_of(17, rng)
    assert.is_truthy(layer:state()["terms.1.weight"])
    local before = layer(inputs)
    local R, t = help.moved(inputs.frames.R, inputs.frames.t, 3, rng)
    local there = { s = inputs.s, packing = inputs.packing, frames = { R = R, t = t } }
    help.close(layer(there), before, 1e-5)
    before:square():sum():backward()
    assert.is_true(layer.terms[2].weight:grad():norm():item() > 0)
    layer:freeze("weight$")
    mf.no_grad(function() layer.terms[2].weight:zero_() end)
    assert.is_true(help.relative(layer(inputs), before) > 1e-4)
  end)

  it("differentiates a term written in Lua as differences do #grad", function()
    local rng = mf.rng(55)
    local layer = build({ nn.term.scalar { dim = 3 }, setmetatable({}, Orientation) }, { gauge = "none" }):to("float64")
    local inputs = inputs_of(6, rng)
    inputs.s = inputs.s:to("float64")
    inputs.frames = { R = inputs.frames.R:to("float64"), t = inputs.frames.t:to("float64") }
    local w = layer.terms[2].weight
    local function loss() return layer(inputs):square():sum() end
    loss():backward()
    local ours = w:grad():totable()
    local h = 1e-5
    for i = 1, 2 do
      local shift = mf.tensor { i == 1 and h or 0, i == 2 and h or 0 }:to("float64")
      local up = mf.no_grad(function() w:add_(shift) return loss():item() end)
      local down = mf.no_grad(function() w:add_(shift, -2) return loss():item() end)
      mf.no_grad(function() w:add_(shift) end)
      -- central differences: h^2 of the third derivative, and 1e-16 / h of rounding
      assert.near((up - down) / (2 * h), ours[i], 1e-6 * math.max(1, math.abs(ours[i])))
    end
  end)

  it("adds key biases, so that a strong preference leaves one key", function()
    local layer = build { nn.term.scalar { dim = 8 }, Preference, Mean }
    local inputs = inputs_of(7, mf.rng(56))
    local bias = mf.zeros(7, 2)
    bias:narrow(1, 4, 1):fill_(200)
    inputs.preference = bias
    local kv = layer.terms[1].linear_kv(inputs.s):reshape(7, 2, 16):narrow(3, 9, 8):reshape(7, 16)
    local only = mf.cat({ kv, inputs.s:narrow(2, 1, 1) }, 2):narrow(1, 4, 1):expand(7, 17)
    help.close(layer(inputs), layer.linear_out(only), 1e-6)
  end)

  it("orders the features as asked", function()
    local terms = { nn.term.scalar { dim = 8 }, Mean }
    local layer = build(terms, { order = { 2, 1 } })
    local inputs = inputs_of(5, mf.rng(57))
    local swapped = layer(inputs)
    local weight = layer.linear_out.weight
    mf.no_grad(function() weight:copy_(mf.cat({ weight:narrow(2, 2, 16), weight:narrow(2, 1, 1) }, 2)) end)
    layer._options.order = nil
    help.close(layer(inputs), swapped, 1e-6)
  end)

  it("says which term does not fit", function()
    local wrong = { lift = function(_, inputs) return { q = inputs.s, k = inputs.s } end }
    local ok, message = pcall(build { nn.term.scalar { dim = 8 }, wrong }, inputs_of(5, mf.rng(58)))
    assert.is_false(ok)
    assert.matches("term 2 lifts q (5, 16), expected (5 residues, 2 heads, width)", message, 1, true)
    assert.has_error(function() build { {} } end)
    ok, message = pcall(build { nn.term.points {} }, { s = mf.zeros(3, 16), packing = mf.packing { 3 } })
    assert.is_false(ok)
    assert.matches("no frames", message, 1, true)
  end)
end)
