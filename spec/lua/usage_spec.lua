-- The `@usage` fragments of the sources are Lua that compiles: what the prompt shows for `? name` can be typed.
local help = require "moonfold.help"
local files = require "moonfold.files"

-- Fragments of every comment that begins with three dashes, module comments too, with the line they begin at.
local function fragments(path)
  local list, fragment, inside = {}, nil, false
  local number = 0
  for line in ((files.read(path) or "") .. "\n"):gmatch "(.-)\r?\n" do
    number = number + 1
    local text = line:match "^%s*%-%-%-?%s?(.*)$"
    if line:match "^%s*%-%-%-[^-]" or line:match "^%s*%-%-%-$" then inside = true end
    if not text then inside = false end
    local usage = inside and text:match "^@usage%s*(.*)$"
    if usage then
      fragment = { path = path, line = number, text = { usage } }
      list[#list + 1] = fragment
    elseif not inside or text:match "^@" then
      fragment = nil
    elseif fragment then
      fragment.text[#fragment.text + 1] = text
    end
  end
  return list
end

-- A fragment is statements or one expression.
local function compiles(code, name)
  local chunk, reason = loadstring("local mf, nn = ...\n" .. code, name)
  if chunk then return true end
  if loadstring("local mf, nn = ...\nreturn " .. code, name) then return true end
  return false, reason
end

describe("usage fragments", function()
  local all = {}
  for _, path in ipairs(files.list("lua/moonfold", { ".lua" })) do
    for _, fragment in ipairs(fragments(path)) do all[#all + 1] = fragment end
  end

  it("are found", function()
    -- fewer would mean that the scanner above no longer sees them
    assert.truthy(#all > 60, #all .. " fragments")
  end)

  it("compile", function()
    local wrong = {}
    for _, fragment in ipairs(all) do
      local ok, reason = compiles(table.concat(fragment.text, "\n"), "=usage")
      if not ok then wrong[#wrong + 1] = ("%s:%d: %s"):format(fragment.path, fragment.line, reason) end
    end
    assert.equal("", table.concat(wrong, "\n"))
  end)

  it("name functions of the library that exist", function()
    local mf = require "moonfold"
    local wrong = {}
    for _, fragment in ipairs(all) do
      local code = table.concat(fragment.text, "\n")
      for path in code:gmatch "%f[%w_.]mf%.([%w_.]+)" do
        local value = mf
        for key in path:gmatch "[%w_]+" do value = type(value) == "table" and value[key] or nil end
        if value == nil then wrong[#wrong + 1] = ("%s:%d: mf.%s"):format(fragment.path, fragment.line, path) end
      end
    end
    assert.equal("", table.concat(wrong, "\n"))
  end)

  it("are what help shows", function()
    local text = help.about "zeros"
    assert.truthy(text:find("mf.zeros", 1, true))
  end)
end)
