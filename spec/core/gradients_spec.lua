-- Every differentiable row of core/ops/ops.def against central differences. A row without a case fails.
local mf = require "moonfold"
local gradients_match = require "spec.support.gradients"

local cases = require "spec.support.cases"()

-- Rows whose gradient no difference can show here, and the spec that does.
local elsewhere = { to_device = "needs two devices that compute" }

describe("the gradient of #grad", function()
  teardown(function()
    cases = nil   -- their tensors must not outlive the file,
    jit.flush()   -- in compiled traces either, which hold them as constants
  end)

  for _, row in ipairs(mf.operators()) do
    if row.differentiable and not elsewhere[row.name] then
      it(row.name .. " agrees with differences", function()
        local list = cases[row.name]
        assert.is_truthy(list, "no case for the operator " .. row.name)
        for _, c in ipairs(list) do gradients_match(c.f, c.inputs, c.options) end
      end)
    end
  end

  it("nothing that is not an operator has a case", function()
    local known = {}
    for _, row in ipairs(mf.operators()) do known[row.name] = row.differentiable end
    for name in pairs(cases) do assert.is_true(known[name], name .. " is not a differentiable operator") end
    for name in pairs(elsewhere) do assert.is_true(known[name], name .. " is not a differentiable operator") end
  end)
end)
