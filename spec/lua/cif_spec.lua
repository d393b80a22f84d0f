-- mf.cif: a CIF file at the prompt. What its text means is spec/core/cif_spec.lua's.
local mf = require "moonfold"

local TEXT = [[
data_1ABC
_entry.id 1ABC
_refine.ls_d_res_high ?
loop_
_entity.id
_entity.type
_entity.pdbx_description
1 polymer 'Lysozyme C'
2 water .
save_frame
_a.b 1
save_
data_other
loop_ _atom_site_label _atom_site_fract_x C1 0.25(1) N2 0.5
]]

describe("mf.cif", function()
  local file = mf.cif.parse(TEXT, "1abc.cif")

  it("finds blocks by place and by name", function()
    assert.are.same({ "1ABC", "other" }, { file[1].name, file[2].name })
    assert.are.equal(file[1], file["1abc"])
    assert.are.same({ nil, nil }, { file[3], file["2abc"] })
    assert.are.equal("1", file[1].frames[1]:value "_a.b")
  end)

  it("gives values, columns and rows", function()
    local block = file[1]
    assert.are.equal("1ABC", block:value "_entry.id")
    assert.is_false(block:value "_refine.ls_d_res_high")
    assert.is_nil(block:value "_refine.none")
    local entity = block:category "_entity"
    assert.are.same({ "_entity", 2, true, { "id", "type", "pdbx_description" } },
      { entity.name, entity.rows, entity.loop, entity.columns })
    assert.are.same({ "Lysozyme C", false }, entity:column "pdbx_description")
    assert.are.same({ "Lysozyme C", false }, block:column "_entity.pdbx_description")
    assert.are.equal("water", entity:value(2, "type"))
    assert.are.same({ "quoted", "inapplicable" }, { entity:kind(1, "pdbx_description"), entity:kind(2, "pdbx_description") })
    local seen = {}
    for row in entity:each() do seen[#seen + 1] = row end
    assert.are.same({
      { id = "1", type = "polymer", pdbx_description = "Lysozyme C" }, { id = "2", type = "water", pdbx_description = false },
    }, seen)
  end)

  it("gives the tags of small molecules by themselves", function()
    local sites = file.other:category_of "_atom_site_label"
    assert.are.same({ "", 2 }, { sites.name, sites.rows })
    assert.are.same({ "C1", "N2" }, sites:column "_atom_site_label")
    assert.are.same({ "0.25(1)", "0.5" }, file.other:column "_Atom_Site_Fract_X")
  end)

  it("outlives what it was made of", function()
    local entity = mf.cif.parse(TEXT)[1]:category "_entity"
    collectgarbage()
    collectgarbage()
    assert.are.equal("polymer", entity:value(1, "type"))
  end)

  local function raised(f)
    local ok, message = pcall(f)
    assert.is_false(ok)
    return message
  end

  it("says at the user's line what is not there", function()
    local entity = file[1]:category "_entity"
    for wanted, f in pairs {
      ["cif: _entity has no column 'kind' (known: id, type, pdbx_description)"] = function() entity:value(1, "kind") end,
      ["cif: _entity has no column 'nil'"] = function() entity:column() end,
      ["cif: _entity has no row 3 (rows: 2)"] = function() entity:value(3, "id") end,
      ["cif: _entity has no row 1.5"] = function() entity:kind(1.5, "id") end,
      ["file.read: 'no/such.cif': No such file"] = function() mf.cif.read "no/such.cif" end,
      ["cif.read: the path is a nil, expected a string"] = function() mf.cif.read() end,
      ["cif.read: max_bytes -1 is negative"] = function() mf.cif.read("x.cif", -1) end,
      ["cif.parse: the text is a table, expected a string"] = function() mf.cif.parse {} end,
      ["cif.read: 'text': line 1: a value before any data_ block: not a CIF file"] = function() mf.cif.parse "HEADER" end,
    } do
      local message = raised(f)
      assert.truthy(message:find(wanted, 1, true), message)
      assert.truthy(message:find("spec/lua/cif_spec.lua:%d+: "), message)
    end
  end)
end)
