-- Row-wise geometry on a GPU: the functions are the CPU's, so what may differ is a last bit.
local mf = require "moonfold"
local agree = require "spec.support.agree"
local support = require "spec.support"

local g = mf.geometry

describe("row-wise geometry on a GPU #gpu", function()
  local device = support.cuda()
  if not device then return end

  local function normal(seed, ...) return mf.randn({ ... }, { dtype = "float64", rng = mf.rng(seed) }) end

  for _, n in ipairs { 0, 1, 33, 257 } do
    local function rotations() return g.so3_exp(normal(1, n, 3)) end
    local cases = {
      { "quat_to_rot", { normal(1, n, 4) } },
      { "rot_to_quat", { rotations() } },
      { "quat_multiply", { normal(1, n, 4), normal(2, n, 4) } },
      { "so3_exp", { normal(1, n, 3) } },
      { "so3_log", { rotations() } },
      { "frames_from_points", { normal(1, n, 3), normal(2, n, 3), normal(3, n, 3) } },
      { "frames_update", { normal(1, n, 4), normal(2, n, 3), normal(3, n, 6), nil } },
      { "dihedral", { normal(1, n, 4, 3) } },
    }
    for _, case in ipairs(cases) do
      local name, inputs = unpack(case)
      it(("%s of %d rows is the CPU's"):format(name, n), function() agree(device, g[name], inputs, { gradients = true }) end)
    end
  end

  it("passes masked rows of an update on unchanged", function()
    local q, t, u = normal(1, 5, 4), normal(2, 5, 3), normal(3, 5, 6)
    local mask = mf.tensor({ 1, 0, 1, 0, 0 }, { dtype = "float64" })
    local function update(a, b, c) return g.frames_update(a, b, c, mask:to(a:device()):to(a:dtype())) end
    agree(device, update, { q, t, u }, { gradients = true })
    local q2 = g.frames_update(q:to(device), t:to(device), u:to(device), mask:to(device)):to "cpu"
    support.same_bits(q2:select(1, 2):contiguous(), q:select(1, 2):contiguous())
  end)

  it("takes the sign and the axis of the CPU at a turn of pi", function()
    local about_z, about_x = { { -1, 0, 0 }, { 0, -1, 0 }, { 0, 0, 1 } }, { { 1, 0, 0 }, { 0, -1, 0 }, { 0, 0, -1 } }
    local R = mf.tensor({ about_z, about_x }, { dtype = "float64" })
    support.same_bits(g.so3_log(R:to(device)):to "cpu", g.so3_log(R))
    support.same_bits(g.rot_to_quat(R:to(device)):to "cpu", g.rot_to_quat(R))
  end)

  it("reads views", function()
    local v = normal(4, 7, 3)
    support.close(g.so3_exp(support.strided(v):to(device)):to "cpu", g.so3_exp(v), 2 ^ -50)
    support.close(g.so3_exp(normal(4, 3, 7):to(device):t()):to "cpu", g.so3_exp(normal(4, 3, 7):t()), 2 ^ -50)
  end)
end)
