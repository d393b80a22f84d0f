--- Every operator of the table on the GPU against the CPU (see support/agreement.lua for the rule), on the cases of
-- support/cases.lua and support/awkward.lua: forward, and backward where there is one; in float32 and float64, on contiguous
-- tensors, on views with gaps and on views that begin off alignment. Memory of the device lies between canaries and holds NaN
-- when it is taken.
local mf = require "moonfold"
local agreement = require "spec.support.agreement"
local support = require "spec.support"

describe("the operator #gpu", function()
  local device = support.cuda()
  if not device then return end
  local small, awkward = require "spec.support.cases", require "spec.support.awkward"(not support.emulated())

  teardown(function()
    awkward = nil   -- tensors must not outlive the file,
    jit.flush()     -- in compiled traces either
  end)

  local function check(build, number, differentiable)
    local dtypes = build(function(x) return x end).dtypes or { "float32", "float64" }
    for _, dtype in ipairs(dtypes) do
      for view, gradients in pairs { plain = true, strided = false, shifted = true } do
        if view == "plain" or dtype ~= "float64" then
          local ok, message = pcall(mf.scope, agreement.check, device, build, dtype, view, differentiable and gradients)
          if not ok then error(("case %s, %s"):format(number, tostring(message)), 0) end
        end
      end
    end
  end

  for _, row in ipairs(mf.operators()) do
    it(row.name .. " agrees with the CPU", function()
      local first, more = small()[row.name] or {}, awkward[row.name] or {}
      assert.is_true(#first + #more > 0, "no case for the operator " .. row.name)
      for i = 1, #first do check(function(place) return small(place)[row.name][i] end, i, row.differentiable) end
      for i, build in ipairs(more) do check(build, "awkward " .. i, row.differentiable) end
      assert.has_no.errors(function() mf.synchronize(device) end)
    end)
  end

  it("has no cases for what is no operator", function()
    local known = {}
    for _, row in ipairs(mf.operators()) do known[row.name] = true end
    for name in pairs(awkward) do assert.is_true(known[name], name .. " is not an operator") end
  end)
end)
