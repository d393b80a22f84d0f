-- Charts of several series: outlines of histograms and points, as SVG and by gnuplot as PNG.
local chart = require "moonfold.chart"
local support = require "spec.support"

local panels = {
  { title = "a < b", x = "angstrom", from = 2, width = 0.5,
    series = { { name = "data", values = { 0, 4, 8, 2 } }, { name = "samples", values = { 1, 1, 1, 1 } } } },
  { title = "points", y = "Rg", series = { { name = "data", x = { 10, 20 }, y = { 1, 2 } }, { name = "none", x = {}, y = {} } } },
  { title = "bars", from = 0, width = 1, values = { 1, 2 } },
}

local function drawn(ending)
  local path = os.tmpname() .. ending
  chart.draw(path, "title", panels)
  local text = support.read_file(path)
  os.remove(path)
  return text
end

describe("chart", function()
  it("draws outlines to scale, points where they are, and names", function()
    local text = drawn ".svg"
    for _, name in ipairs { "a &lt; b", ">data<", ">samples<", ">none<", ">points<" } do
      assert.truthy(text:find(name, 1, true), name)
    end
    -- the first outline: 0, half of the highest, the highest, a quarter of it, over bars of equal width
    local left, bottom, steps = text:match '<path d="M([%d.]+) ([%d.]+)(V[^"]*)"'
    local x, heights = {}, {}
    for y, at in steps:gmatch "V([%d.]+)H([%d.]+)" do
      heights[#heights + 1], x[#x + 1] = bottom - y, at - left
    end
    assert.equal(4, #heights)
    for k, share in ipairs { 0, 0.5, 1, 0.25 } do
      assert.is_true(math.abs(heights[k] - share * heights[3]) < 0.2)
      assert.is_true(math.abs(x[k] - k * x[1]) < 0.3)
    end
    local circles = {}
    for cx, cy in text:gmatch '<circle cx="([%d.]+)" cy="([%d.]+)"' do circles[#circles + 1] = { tonumber(cx), tonumber(cy) } end
    assert.equal(2, #circles)
    assert.is_true(circles[1][1] < circles[2][1] and circles[1][2] > circles[2][2])
  end)

  it("draws the same by gnuplot", function()
    if os.execute "command -v gnuplot >/dev/null" ~= 0 then return pending "gnuplot is not there" end
    assert.equal("\137PNG", drawn ".png":sub(1, 4))
  end)
end)
