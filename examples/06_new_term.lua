--- A new kind of attention, written in Lua: logits that depend on how two residues are turned to each other.
--
-- A term of `nn.lifted_attention` adds columns to queries and keys. The one below adds sum_a w_ha (R_i e_a) . (R_j e_a) to
-- the logits of head h, nine columns and three learned weights a head; gradients, precision and packing come with the kernel.
--
-- The task: each residue has one of four colours and must name the colour of the residue whose z axis is most opposite to its
-- own. Prints loss and accuracy after the same training with scalars alone; with points, which can learn it the long way, for
-- far-away points feel turns; and with the new term, twelve more numbers to train instead of a thousand.
--
--     moonfold examples/06_new_term.lua
local mf = require "moonfold"
local nn = mf.nn

mf.threads(1)      -- small tensors: a second core would mostly wait

local COLOURS, SEQUENCES, LENGTH, STEPS = 4, 16, 24, 300
local lengths = {}
for i = 1, SEQUENCES do lengths[i] = LENGTH end
local packing = mf.packing(lengths)
local N = packing:total()

local Orientation = {}
Orientation.__index = Orientation

function Orientation:attach(o)
  self.weight = nn.parameter(mf.zeros(o.heads, 3))     -- trained and saved like any other, as "terms.1.weight"
  return 0                                             -- it reads no features out
end

function Orientation:lift(_, context)
  local n, heads = context.R:size(1), context.heads
  local axes = context.R:transpose(2, 3):reshape(n, 1, 3, 3):expand(n, heads, 3, 3)     -- R e_a, one in each row
  local keys = axes * self.weight:reshape(1, heads, 3, 1)
  return { q = axes:reshape(n, heads, 9), k = keys:reshape(n, heads, 9) }
end

local eye = mf.eye(COLOURS)

-- Random frames and colours, and the colour that each residue must name.
local function example(rng)
  local R = mf.random.rotations(N, { rng = rng })
  local colour = (mf.rand(SEQUENCES, LENGTH, { rng = rng }) * COLOURS):floor():int()
  local z = R:select(3, 3):reshape(SEQUENCES, LENGTH, 3)
  local opposite = z:matmul(z:transpose(2, 3)):argmin(3)
  return {
    s = mf.embedding(colour:reshape(-1), eye),
    frames = { R = R, t = mf.randn(N, 3, { rng = rng }) },
    wanted = mf.embedding(colour:gather(2, opposite):reshape(-1), eye), packing = packing,
  }
end

local function train(name, terms)
  local attend = nn.lifted_attention {
    heads = 4, node = COLOURS, terms = terms, init = "default", precision = "float32", rng = mf.rng(2),
  }
  local optimizer = mf.optim.adam(attend:parameters(), { lr = 0.06 })
  local rng = mf.rng(1)                                -- every model sees the same examples
  local loss, correct = 0, 0
  for step = 1, STEPS do
    local value, right = mf.scope(function()
      local x = example(rng)
      local score = attend(x):log_softmax(2)
      local l = -(score * x.wanted):sum(2):mean()
      optimizer:step(l)
      return l:item(), score:argmax(2):eq(x.wanted:argmax(2)):float():mean():item()
    end)
    -- the mean over the last fifty steps: each sees new examples, so nothing can be learned by heart
    if step > STEPS - 50 then loss, correct = loss + value / 50, correct + right / 50 end
  end
  print(("%-22s loss %.3f   accuracy %4.1f %%   %d numbers trained"):format(name, loss, 100 * correct, attend:count(true)))
  return correct
end

print(("guessing               loss %.3f   accuracy %4.1f %%"):format(math.log(COLOURS), 100 / COLOURS))
local scalar = train("scalar", { nn.term.scalar { dim = 8 } })
train("scalar, points", { nn.term.scalar { dim = 8 }, nn.term.points { query = 4, value = 4 } })
local turned = train("scalar, orientation", { nn.term.scalar { dim = 8 }, setmetatable({}, Orientation) })
assert(turned > scalar + 0.2, "the term must pay")
