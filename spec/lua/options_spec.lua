local options = require "moonfold.options"
local support = require "spec.support"
local REQUIRED, OPTIONAL = options.REQUIRED, options.OPTIONAL

local defaults = { dim = REQUIRED, heads = 8, bias = true, rng = OPTIONAL }

describe("an option table", function()
  it("takes what is given over the defaults", function()
    local o = options("layer", defaults, { dim = 4, bias = false })
    assert.same({ dim = 4, heads = 8, bias = false }, o)
  end)

  it("leaves the given table as it was", function()
    local given = { dim = 4 }
    options("layer", defaults, given)
    assert.same({ dim = 4 }, given)
  end)

  it("names the nearest option and lists the known ones", function()
    support.error_matches(function() options("layer", defaults, { dim = 4, head = 2 }) end,
      "layer: unknown option 'head', did you mean 'heads'? (known: bias, dim, heads, rng)", true)
  end)

  it("does not guess at a name that is far from all", function()
    support.error_matches(function() options("layer", defaults, { dim = 4, wavelength = 2 }) end,
      "layer: unknown option 'wavelength' (known:", true)
  end)

  it("asks for required options", function()
    support.error_matches(function() options("layer", defaults, {}) end, "layer: option 'dim' is required", true)
    support.error_matches(function() options("layer", defaults) end, "layer: option 'dim' is required", true)
  end)

  it("asks for the type of the default", function()
    support.error_matches(function() options("layer", defaults, { dim = 1, heads = "8" }) end,
      "layer: option 'heads' must be a number, got string", true)
    support.error_matches(function() options("layer", defaults, 5) end, "layer: takes one table of options, got number", true)
  end)

  it("can point at the caller of a constructor outside Moonfold", function()
    local function constructor(o) return (options("mine", defaults, o, 2)) end
    local ok, message = pcall(function()
      local made = constructor { dmi = 3 }
      return made
    end)
    local line = debug.getinfo(1, "l").currentline - 3
    assert.is_false(ok)
    assert.truthy(message:find(":" .. line .. ": mine: unknown option 'dmi', did you mean 'dim'?", 1, true))
  end)
end)
