-- Pictures of folds: what is in them, where it stands, and what is refused.
local mf = require "moonfold"
local support = require "spec.support"
local view = require "moonfold.picture.view"

local ubiquitin = "spec/fixtures/1ubq.pdb.gz"

local function text_of(draw)
  local path = os.tmpname() .. ".svg"
  draw(path)
  local text = support.read_file(path)
  os.remove(path)
  return text
end

local function count(text, pattern) return select(2, text:gsub(pattern, "")) end

-- Corners of the ribbons' pieces.
local function corners(text)
  local list = {}
  for path in text:gmatch '<path d="(M[^"]*z)"' do
    for x, y in path:gmatch "(%-?[%d.]+) (%-?[%d.]+)" do list[#list + 1] = { tonumber(x), tonumber(y) } end
  end
  return list
end

-- An ideal helix as a structure that was built; mirrored on demand.
local function helix(n, mirror)
  local rows = {}
  for i = 1, n do rows[i] = { phi = -57.8, psi = -47, omega = 180 } end
  local x = mf.chemistry.backbone(rows)
  if mirror then x = x * mf.tensor({ 1, 1, -1 }, { dtype = "float64" }) end
  return mf.structure.from_atoms { atoms = x, names = { "N", "CA", "C", "O", "CB" }, residue_names = "ALA" }
end

describe("structure:picture", function()
  it("draws every piece of the chain inside the picture, coloured from blue to red, far ones pale", function()
    local s = mf.structure.read(ubiquitin)
    local text = text_of(function(path) s:picture { path = path, title = "a < b" } end)
    assert.truthy(text:find("<svg xmlns=", 1, true) == 1 and text:find "</svg>%s*$")
    assert.truthy(text:find("a &lt; b", 1, true))
    assert.equal(75 * 6, count(text, "z\" fill=\"#"))
    for _, p in ipairs(corners(text)) do assert.is_true(p[1] >= 19 and p[1] <= 781 and p[2] >= 49 and p[2] <= 561) end
    local colours = {}
    for r, b in text:gmatch 'fill="#(%x%x)%x%x(%x%x)" stroke' do
      local red, blue = tonumber(r, 16), tonumber(b, 16)
      colours[red > blue + 60 and "red" or blue > red + 60 and "blue" or "other"] = true
    end
    assert.is_true(colours.red and colours.blue and colours.other)
  end)

  it("draws helices wider than coils, and strands with arrows", function()
    local pieces = require("moonfold.picture.ribbon").pieces
    local trace = {}
    for i = 1, 12 do trace[i] = { 3.4 * i, i % 2, 0 } end
    local list = pieces({ trace = trace, classes = "CCHHHCCEEEEC", kind = "protein" }, 4)
    assert.equal(44, #list)
    local function widest(first, last)
      local most = 0
      for k = 4 * (first - 1) + 1, 4 * (last - 1) do most = math.max(most, list[k].from.width) end
      return most
    end
    assert.is_true(widest(1, 2) < 0.5 and widest(3, 5) > 1.2)
    assert.is_true(widest(10, 11) > widest(8, 10))                    -- the arrow's barbs
    assert.is_true(list[4 * 10].to.width < 0.5)                       -- its point
    assert.equal(0, list[1].from.flat)
    assert.equal(1, list[4 * 3].from.flat)
  end)

  it("joins what is too far apart to be bonded by a thin grey line", function()
    local s = helix(12)
    local x = s:atoms(1, { "N", "CA", "C", "O" }) + mf.cat({ mf.zeros(6, 1, 3), mf.full({ 6, 1, 3 }, 5) }, 1)
    local torn = mf.structure.from_atoms { atoms = x, names = { "N", "CA", "C", "O" }, residue_names = "ALA" }
    local function grey(text)
      local n = 0
      for r, g, b in text:gmatch 'z" fill="#(%x%x)(%x%x)(%x%x)"' do n = n + (r == g and g == b and 1 or 0) end
      return n
    end
    assert.equal(0, grey(text_of(function(path) s:picture(path) end)))
    assert.equal(6, grey(text_of(function(path) torn:picture(path) end)))
  end)

  it("never looks at a mirror image", function()
    for _, mirrored in ipairs { false, true } do
      local s = helix(20, mirrored)
      local rows = s:atoms(1, { "CA" }):select(2, 1):totable()
      local R, centre = view.of(rows)
      local d = R[1][1] * (R[2][2] * R[3][3] - R[2][3] * R[3][2]) - R[1][2] * (R[2][1] * R[3][3] - R[2][3] * R[3][1])
        + R[1][3] * (R[2][1] * R[3][2] - R[2][2] * R[3][1])
      assert.is_true(math.abs(d - 1) < 1e-9)
      -- along the picture's x a right-handed helix turns from y to z
      local turn = 0
      local function seen(p, axis)
        return R[axis][1] * (p[1] - centre[1]) + R[axis][2] * (p[2] - centre[2]) + R[axis][3] * (p[3] - centre[3])
      end
      for i = 1, 19 do
        local along = seen(rows[20], 1) - seen(rows[1], 1) > 0 and 1 or -1
        turn = turn + along * (seen(rows[i], 2) * seen(rows[i + 1], 3) - seen(rows[i], 3) * seen(rows[i + 1], 2))
      end
      assert.is_true(mirrored and turn < 0 or not mirrored and turn > 0)
    end
  end)

  it("draws RNA with a rung for each base, and samples as what they are", function()
    local rng, t = mf.rng(2), {}
    for i = 1, 12 do t[i] = { 9 * math.cos(i * 0.57), 9 * math.sin(i * 0.57), 2.8 * i } end
    local function rotations(n) return mf.random.rotations(n, { rng = rng }) end
    local sample = mf.structure.new { kind = "rna", rotations = rotations(12), translations = mf.tensor(t) }
    local text = text_of(function(path) sample:picture(path) end)
    assert.equal(2 * 12, count(text, "stroke%-linecap"))
    assert.equal(11 * 6, count(text, "z\" fill=\"#"))
    local one = mf.structure.new { kind = "protein", rotations = rotations(1), translations = mf.zeros(1, 3) }
    assert.equal(2, count(text_of(function(path) one:picture(path) end), "stroke%-linecap"))      -- a dot
  end)

  it("leaves a gap where residues are missing, and none where only numbers jump", function()
    local function two(numbers, apart)
      local x = helix(20):atoms(1, { "N", "CA", "C", "O" })
      local shift = mf.zeros(20, 1, 3)
      if apart then shift = mf.cat({ mf.zeros(10, 1, 3), mf.full({ 10, 1, 3 }, 9) }, 1) end
      local s = mf.structure.from_atoms {
        atoms = x + shift, names = { "N", "CA", "C", "O" }, residue_names = "ALA", numbers = numbers,
      }
      return count(text_of(function(path) s:picture(path) end), "z\" fill=\"#") / 6
    end
    local jump = {}
    for i = 1, 20 do jump[i] = i <= 10 and i or i + 30 end
    assert.same({ 19, 19, 18 }, { two(nil, true), two(jump, false), two(jump, true) })
  end)

  it("says what is wrong", function()
    local s = mf.structure.read(ubiquitin)
    support.error_matches(function() s:picture "x.png" end, "'x.png' does not end in .svg", true)
    support.error_matches(function() s:picture { path = "x.svg", colour = "pink" } end, "colour is 'pink', expected", true)
    support.error_matches(function() s:picture { path = "x.svg", hue = 1 } end, "unknown option 'hue'", true)
    support.error_matches(function() s:picture { path = "x.svg", model = 7 } end, "model 7", true)
    support.error_matches(function() mf.picture.sheet("x.svg", {}) end, "picture.sheet: no structures", true)
    support.error_matches(function() mf.picture.sheet("x.svg", { { structure = 3 } }) end, "takes structures, got a number", true)
  end)
end)

describe("picture.sheet", function()
  it("puts each structure into its own cell, with its label", function()
    local s, list = mf.structure.read(ubiquitin), {}
    for k = 1, 5 do list[k] = { structure = s, label = "no " .. k } end
    local text = text_of(function(path) mf.picture.sheet(path, list, { columns = 3, cell = 100 }) end)
    assert.truthy(text:find('width="300" height="250"', 1, true))
    for k = 1, 5 do assert.truthy(text:find("no " .. k, 1, true)) end
    local cell, at = {}, 0
    for _, p in ipairs(corners(text)) do
      at = at + 1
      local k = math.floor((at - 1) / (75 * 4 * 4))
      local x, y = 100 * (k % 3), 6 + 122 * math.floor(k / 3)
      cell[k] = true
      assert.is_true(p[1] >= x + 9 and p[1] <= x + 91 and p[2] >= y + 9 and p[2] <= y + 91)
    end
    assert.equal(4, #cell)
  end)
end)
