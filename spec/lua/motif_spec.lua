-- Motifs: contigs, training with fixed spans, sampling around what is given.
local mf = require "moonfold"
local contigs = require "moonfold.motif.contig"
local files = require "moonfold.files"
local help = require "spec.support.flow"
local segments = require "moonfold.flow.segments"
local spans = require "moonfold.flow.spans"
local support = require "spec.support"

local FILE = "spec/fixtures/1ubq.pdb.gz"

teardown(function() jit.flush() end)

local function small(kind)
  local o = {
    node = 16, edge = 8, position = 8, hidden = 4, heads = 2, query_points = 2, value_points = 2, blocks = 2,
    transformer_heads = 2, transformer_layers = 1, neighbours = 4, feat = 4, preset = "flash", rng = mf.rng(5),
  }
  if kind == "protein" then o.skip = 8 return mf.models.foldflow(o) end
  o.time = 8
  return mf.models.rna_frameflow(o)
end

local function stirred(model) return help.stir(model, 6) end

describe("a contig", function()
  it("has parts of the file, parts to generate and ends of chains", function()
    local written = { "10-40,A163-181,12,B7", "[10-40/A163-181/12/B7]", "'10-40, A163-181 ,12 B7'" }
    for _, text in ipairs(written) do
      assert.same({
        { first = 10, last = 40 }, { chain = "A", first = 163, last = 181 }, { first = 12, last = 12 },
        { chain = "B", first = 7, last = 7 },
      }, contigs.parse(text))
    end
    assert.same({ { chain = "A", first = -3, last = 5 }, { ends = true }, { first = 0, last = 4 } }, contigs.parse "A-3-5/0 0-4")
  end)

  it("is refused where it says nothing", function()
    for text, message in pairs {
      ["10-5"] = "the range 10-5 runs backwards", ["A9-2"] = "the range A9-2 runs backwards",
      ["5,x!"] = "'x!' is no part of a contig", ["A"] = "'A' is no part of a contig", ["-5"] = "'-5' is no part of a contig",
      [""] = "the contig is empty", ["0,5"] = "a chain ends before it has begun", ["5,0"] = "the last chain is empty",
    } do
      support.error_matches(function() contigs.parse(text) end, message, true)
    end
    support.error_matches(function() contigs.parse(7) end, "the contig is a number", true)
  end)

  it("leaves open what a draw decides, every choice within the length as likely as any other", function()
    local parts = contigs.parse "0-3,A1-5,1-4,0,2"
    local free, bound = contigs.choices(parts), contigs.choices(parts, "10-11")
    assert.same({ 8, 14 }, { free:range() })
    assert.same({ 10, 11 }, { bound:range() })
    local rng, n = mf.rng(8), 4000
    for choices, ways in pairs { [free] = 16, [bound] = 7 } do
      local seen, different = {}, 0
      for _ = 1, n do
        local counts = choices:draw(rng)
        local least, most = choices:range()
        local sum = counts[1] + counts[2] + counts[3] + counts[4] + counts[5]
        assert.is_true(sum >= least and sum <= most)
        assert.same({ 5, 0, 2 }, { counts[2], counts[4], counts[5] })
        local key = counts[1] .. " " .. counts[3]
        if not seen[key] then different = different + 1 end
        seen[key] = (seen[key] or 0) + 1
      end
      assert.equal(ways, different)
      -- five standard errors of a binomial count
      for _, count in pairs(seen) do assert.is_true(math.abs(count - n / ways) < 5 * math.sqrt(n / ways)) end
    end
    support.error_matches(function() contigs.choices(parts, 20) end, "makes 8 to 14 residues, the length asks for 20", true)
    support.error_matches(function() contigs.choices(parts, "many") end, "length is many, expected residues in all", true)
  end)
end)

describe("a motif", function()
  it("is the frames of the residues that it names, centred", function()
    local motif = mf.motif { file = FILE, contig = "3-5,A42-50,2,A10,4", length = 20 }
    assert.equal("protein", motif.kind)
    assert.matches("3%-5,A42%-50,2,A10,4, 10 residues given, 20 in all", tostring(motif))
    local s = mf.structure.read(FILE)
    local f = mf.atoms.protein.features(s:atoms(1, mf.atoms.protein.inputs))
    local rows = mf.tensor({ 41, 42, 43, 44, 45, 46, 47, 48, 49, 9 }, { dtype = "int32" })
    support.same_bits(motif.rotations, f.rotations:index_select(1, rows))
    local x = f.translations:index_select(1, rows)
    support.close(motif.translations, x - x:mean(1, true), 1e-5)

    local plan = motif:draw(1, 1)
    assert.equal("4,A42-50,2,A10,4", plan.contig)
    assert.same({ 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0 }, plan.fixed:float():values())
    support.same_bits(plan.translations:narrow(1, 5, 9):contiguous(), motif.translations:narrow(1, 1, 9):contiguous())
    support.same_bits(plan.rotations:select(1, 16), motif.rotations:select(1, 10))
    assert.equal(19, plan.index:values()[20])
    assert.same({ 20 }, plan.chains)
  end)

  it("lays itself out by seed and number", function()
    local motif = mf.motif { file = FILE, contig = "5-60,A42-50,5-60" }
    local function contig(seed, number) return motif:draw(seed, number).contig end
    assert.equal(contig(1, 2), contig(1, 2))
    local different = {}
    for i = 1, 20 do different[contig(1, i)], different[contig(2, i)] = true, true end
    local count = 0
    for _ in pairs(different) do count = count + 1 end
    assert.is_true(count > 30)
  end)

  it("jumps by 200 in the index where a chain ends", function()
    local plan = mf.motif { file = FILE, contig = "2,A42-43,0,A60,3" }:draw(1, 1)
    assert.same({ 0, 1, 2, 3, 204, 205, 206, 207 }, plan.index:values())
    assert.same({ 0, 0, 0, 0, 1, 1, 1, 1 }, plan.chain:values())
    assert.same({ 4, 4 }, plan.chains)
    assert.equal("2,A42-43,0,A60,3", plan.contig)
  end)

  it("says what the file lacks", function()
    local function refused(message, o)
      o.file = o.file or FILE
      support.error_matches(function() mf.motif(o) end, message, true)
    end
    refused("has no chain 'B' (known: A)", { contig = "5,B1-4" })
    refused("has no residue A77", { contig = "5,A70-80" })
    refused("names no residue of the file", { contig = "5-10" })
    refused("unknown option 'contigs', did you mean 'contig'?", { contigs = "5" })
    refused("has no REMARK 999 INPUT", {})
    refused("is.not.there", { file = "is.not.there" })
  end)

  it("reads the problems of Genie 2", function()
    local path = os.tmpname()
    local function problem(...)
      local lines = { ... }
      lines[#lines + 1] = files.read(FILE)
      local file = assert(io.open(path, "w"))
      file:write(table.concat(lines, "\n"))
      file:close()
      return { file = path }
    end
    local o = problem("REMARK 999 NAME   1UBQ_loop", "REMARK 999 INPUT     5  20", "REMARK 999 INPUT  A  42  50 A",
      "REMARK 999 INPUT    10  25", "REMARK 999 MINIMUM TOTAL LENGTH      30", "REMARK 999 MAXIMUM TOTAL LENGTH      45")
    local motif = mf.motif(o)
    assert.equal("5-20,A42-50,10-25", motif.contig)
    assert.same({ 30, 45 }, { motif.choices:range() })
    o.length = 40
    assert.same({ 40, 40 }, { mf.motif(o).choices:range() })
    o = problem("REMARK 999 INPUT  A  42  50 A", "REMARK 999 INPUT     5  20", "REMARK 999 INPUT  A  60  65 B")
    support.error_matches(function() mf.motif(o) end, "groups A and B may move apart, which is not supported", true)
    os.remove(path)
  end)
end)

describe("training with motifs", function()
  it("draws spans within 5 to 50 per cent, apart from each other, every place in turn", function()
    local rng, hits, total = mf.rng(3), {}, 0
    for i = 1, 40 do hits[i] = 0 end
    for _ = 1, 3000 do
      local list, sum, last = spans.draw(40, rng), 0, -1
      assert.is_true(#list >= 1 and #list <= 6)
      for _, span in ipairs(list) do
        assert.is_true(span[1] > last + 1 and span[2] >= span[1] and span[2] <= 40)
        last, sum = span[2], sum + span[2] - span[1] + 1
        for i = span[1], span[2] do hits[i] = hits[i] + 1 end
      end
      assert.is_true(sum >= 2 and sum <= 20)
      total = total + sum
    end
    assert.is_true(math.abs(total / 3000 - 11) < 0.5)               -- uniform on 2..20: standard error 0.1
    for i = 1, 40 do assert.is_true(hits[i] > 300, i) end
    assert.same({}, spans.draw(1, rng))
    for n = 2, 12 do for _ = 1, 50 do assert.is_true(#spans.draw(n, rng) >= 1) end end
  end)

  for _, kind in ipairs { "protein", "rna" } do
    it(kind .. ": fixes spans of as many examples as asked, the same for the same step", function()
      local flow = mf.flow.se3 { profile = kind, motif = 0.5 }
      local lengths = {}
      for i = 1, 100 do lengths[i] = 10 + i % 5 end
      local batch = help.random_batch(kind, lengths)
      local noisy = flow:corrupt(batch)
      support.same_bits(noisy.fixed, flow:corrupt(batch).fixed)
      local some = noisy.fixed:float():segment_sum(noisy.packing):gt(0):float():sum():item()
      assert.is_true(some > 30 and some < 70)                        -- 50, standard deviation 5
      batch.step = 2
      assert.is_true(support.difference(noisy.fixed:float(), flow:corrupt(batch).fixed:float()) > 0)
      assert.is_nil(mf.flow.se3 { profile = kind }:corrupt(batch).fixed)
    end)

    it(kind .. ": puts the centre of a motif at the origin and leaves the motif there", function()
      local flow = mf.flow.se3 { profile = kind, stochastic = true }
      local batch = help.random_batch(kind, { 9, 12 }, { times = { 0.4, 0.7 } })
      batch.fixed = mf.tensor { 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }      -- of the first only
      local noisy = flow:corrupt(batch)
      local motif = noisy.translations:narrow(1, 3, 3)
      assert.is_true(motif:mean(1):abs():max(1):item() < 1e-5)
      support.same_bits(motif:contiguous(), noisy.targets.translations:narrow(1, 3, 3):contiguous())
      support.same_bits(noisy.rotations:narrow(1, 3, 3):contiguous(), batch.rotations:narrow(1, 3, 3):contiguous())
      -- the other example is what it would be without
      batch.fixed = nil
      support.close(noisy.translations:narrow(1, 10, 12), flow:corrupt(batch).translations:narrow(1, 10, 12), 1e-5)
      -- where the whole is, is not told: only where its parts are
      local wanted = batch.translations:narrow(1, 1, 9) - batch.translations:narrow(1, 3, 3):mean(1, true)
      support.close(noisy.targets.translations:narrow(1, 1, 9), wanted, 1e-5)
      support.close(noisy.residue_t:narrow(1, 3, 3), mf.full({ 3 }, kind == "protein" and 0 or 1), 0)
      support.close(noisy.residue_t:narrow(1, 6, 4), mf.full({ 4 }, 0.4), 1e-7)
    end)

    it(kind .. ": makes a difference to the network, and none to fixed frames", function()
      local flow, model = mf.flow.se3 { profile = kind }, stirred(small(kind))
      local batch = help.random_batch(kind, { 12 }, { times = { 0.5 } })
      local free = model(flow:corrupt(batch)).translations
      batch.fixed = mf.tensor { 0, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0 }
      local noisy = flow:corrupt(batch)
      local out = model(noisy)
      support.close(out.translations:narrow(1, 2, 3), noisy.translations:narrow(1, 2, 3), 1e-5)
      assert.is_true(support.difference(out.translations, free) > 0.01)
      -- a free residue's answer depends on being told which are fixed: FoldFlow by a feature, the others by their times
      if kind == "protein" then noisy.fixed = nil else noisy.residue_t = nil end
      assert.is_true(support.difference(model(noisy).translations:select(1, 6), out.translations:select(1, 6)) > 1e-4)
    end)
  end

  it("wants a probability", function()
    support.error_matches(function() mf.flow.se3 { motif = 2 } end, "motif is a probability, got 2", true)
  end)
end)

describe("sampling around a motif", function()
  local function list_of(model, flow, o)
    local list = {}
    for i, s in mf.sample(model, flow, o) do list[i] = s end
    return list
  end

  it("keeps its frames bit for bit, and tells how far it is from the file", function()
    local motif = mf.motif { file = FILE, contig = "3-9,A42-50,2-6,A10,1-4" }
    local model = stirred(small "protein")
    for _, rotation in ipairs { "exp", "linear" } do
      local flow = mf.flow.se3 { profile = "protein", rotation = rotation, stochastic = true, noise_scale = 1 }
      local list = list_of(model, flow, { motif = motif, n = 4, steps = 5, seed = 11, trajectory = true })
      assert.equal(4, #list)
      for i, s in ipairs(list) do
        local plan = motif:draw(11, i)
        assert.equal(plan.contig, s.contig)
        assert.equal(plan.length, s.length)
        support.same_bits(s.fixed, plan.fixed)
        for _, name in ipairs { "translations", "rotations" } do
          support.same_bits(s[name]:index_select(1, plan.places), motif[name])
        end
        support.same_bits(s.torsions:index_select(1, plan.places), motif.torsions)
        assert.is_true(s.motif_rmsd < 1e-5)
        for _, frames in ipairs { s.trajectory.state, s.trajectory.clean } do
          for _, frame in ipairs(frames) do
            support.same_bits(frame.translations:index_select(1, plan.places), motif.translations)
          end
        end
        assert.is_true(support.difference(s.trajectory.state[1].translations, s.translations) > 0.1)
      end
    end
  end)

  it("measures the motif where a model of one's own moved it", function()
    local motif = mf.motif { file = FILE, contig = "3,A42-50,2" }
    local plan = motif:draw(1, 1)
    local moved = plan.translations:totable()
    assert.is_true(motif:rmsd(mf.tensor(moved), plan) < 1e-6)
    -- turned and shifted it is the same motif
    local Q = mf.random.rotations(1, { rng = mf.rng(2) })
    assert.is_true(motif:rmsd(plan.translations:matmul(Q:select(1, 1)) + 7, plan) < 1e-5)
    -- two ends apart by 1 angstrom each along their distance, of nine
    local x = motif.translations
    local toward = x:select(1, 9) - x:select(1, 1)
    local stretched = plan.translations:totable()
    for a, d in ipairs((toward / toward:norm()):values()) do
      stretched[4][a], stretched[12][a] = stretched[4][a] - d, stretched[12][a] + d
    end
    local rmsd = motif:rmsd(mf.tensor(stretched), plan)
    assert.is_true(rmsd > 0.3 and rmsd <= math.sqrt(2 / 9), rmsd)
  end)

  it("lands on the data of an oracle that knows the motif's place", function()
    for _, kind in ipairs { "protein", "rna" } do
      local rng = mf.rng(9)
      local x, r = mf.randn(14, 3, { rng = rng }) * 8, mf.random.rotations(14, { rng = rng })
      local fixed = mf.tensor { 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0 }:gt(0.5)
      local anchor = segments.anchors(mf.ones(14), fixed, mf.packing { 14 })
      x = segments.centre(x, anchor, mf.packing { 14 }, mf.ones(14))
      local function motif() return { length = 14, fixed = fixed, translations = x, rotations = r } end
      local function oracle() return { translations = x, rotations = r } end
      for _, steps in ipairs { 2, 20 } do
        local s = list_of(oracle, mf.flow.se3 { profile = kind }, { motif = motif, steps = steps, trajectory = true })[1]
        support.close(s.translations, x, 1e-6)
        support.close(s.rotations, r, 1e-6)
        assert.is_nil(s.motif_rmsd)
        -- on a straight way: the state half-way is between noise and data, and was not moved as a whole
        local t = s.trajectory.state
        local first, second, last = t[1].translations:select(1, 1), t[2].translations:select(1, 1), x:select(1, 1)
        local along = ((second - first) * (last - first)):sum() / (second - first):norm() / (last - first):norm()
        assert.is_true(along:item() > 1 - 1e-5)
      end
    end
  end)

  it("is the same sample alone and beside others, whatever the model", function()
    local motif = mf.motif { file = FILE, contig = "3-9,A42-50,2-6" }
    local model, flow = stirred(small "protein"), mf.flow.se3 {}
    local together = list_of(model, flow, { motif = motif, n = 3, steps = 4, seed = 2 })
    local apart = list_of(model, flow, { motif = motif, n = 3, steps = 4, seed = 2, residues = 1 })
    for i = 1, 3 do
      assert.equal(together[i].contig, apart[i].contig)
      support.close(apart[i].translations, together[i].translations, 1e-4)
    end
  end)

  it("hands index and chain to the model, and writes chains", function()
    local seen
    local function model(noisy)
      seen = noisy
      return { translations = noisy.translations, rotations = noisy.rotations }
    end
    local motif = mf.motif { file = FILE, contig = "2,A42-43,0,A60,3" }
    local s = list_of(model, mf.flow.se3 {}, { motif = motif, steps = 3 })[1]
    assert.same({ 0, 1, 2, 3, 204, 205, 206, 207 }, seen.index:values())
    assert.same({ 0, 0, 0, 0, 1, 1, 1, 1 }, seen.chain:values())
    assert.same({ 0, 0, 1, 1, 1, 0, 0, 0 }, seen.fixed:float():values())
    local chains = s:as_file():chains()
    assert.same({ "A", "B", 4, 4 }, { chains[1].id, chains[2].id, chains[1].residues, chains[2].residues })
    -- no motif: only what the user's function says
    list_of(model, mf.flow.se3 {}, { steps = 2, motif = function()
      return { length = 2, index = mf.tensor({ 5, 9 }, { dtype = "int32" }) }
    end })
    assert.same({ 5, 9 }, seen.index:values())
    assert.is_nil(seen.fixed)
  end)

  it("is a command, with a table, which goes on where it stopped", function()
    local moonfold = (os.getenv "MOONFOLD_BUILD" or "build") .. "/moonfold"
    if not files.exists(moonfold) then return pending "the program is not built" end
    local folder = os.tmpname()
    os.remove(folder)
    files.make_folder(folder)
    local model = stirred(small "protein")
    mf.save(folder .. "/w.safetensors", model:state(), mf.weights.metadata(mf.weights.about(model, { profile = "protein" })))
    files.replace(folder .. "/compact.lua", "return function(p) return p.translations:square():sum() end")
    local function run(more)
      local command = "'%s' scripts/sample.lua weights='%s/w.safetensors' out='%s/out' steps=3 threads=1 %s 2>&1"
      local pipe = io.popen(command:format(moonfold, folder, folder, more) .. "; echo \"status $?\"")
      local text = pipe:read "*a"
      pipe:close()
      return text, tonumber(text:match "status (%d+)%s*$")
    end
    local ask = ("motif=%s contig=3-9,A42-50,2-6 total=16-20 guidance='%s/compact.lua' guidance_weight=0.1 "):format(FILE, folder)
    local text, status = run(ask .. "n=2")
    assert.equal(0, status, text)
    assert.matches("motif of spec/fixtures/1ubq.pdb.gz: 3%-9,A42%-50,2%-6, 9 residues given, 16 to 20 in all", text)
    text, status = run(ask .. "n=4")
    assert.equal(0, status, text)
    assert.matches("2 structures in .*, 2 were there", text)
    local motif, rows = mf.motif { file = FILE, contig = "3-9,A42-50,2-6", length = "16-20" }, {}
    for line in files.read(folder .. "/out/1ubq/motif.csv"):gmatch "[^\n]+" do rows[#rows + 1] = line end
    assert.equal("sample,num_res,motif_rmsd,contig,sample_path", rows[1])
    assert.equal(5, #rows)
    for i = 1, 4 do
      local plan = motif:draw(123, i)
      local number, length, rmsd, contig, path = rows[i + 1]:match "^(%d+),(%d+),([^,]+),([^,]+),(.*)$"
      assert.same({ tostring(i), tostring(plan.length), (plan.contig:gsub(",", "/")) }, { number, length, contig })
      assert.is_true(tonumber(rmsd) < 1e-4)
      -- the file's CA are those of the motif, to its three decimals
      local back = mf.structure.read(path)
      local x = back:atoms(1, { "CA" }):reshape(-1, 3):index_select(1, plan.places)
      assert.is_true((x - motif.translations):abs():max(1):max():item() <= 5.1e-4)
    end
    for more, message in pairs {
      ["motif=" .. FILE .. " contig=9-3"] = "sample: motif: the range 9-3 runs backwards",
      ["contig=5"] = "sample: contig and total belong", [ask .. "lengths=5"] = "sample: lengths and motif exclude each other",
      ["guidance=none.lua"] = "cannot open none.lua",
    } do
      text, status = run(more)
      assert.equal(2, status, text)
      assert.is_truthy(text:find(message, 1, true), text)
    end
    os.execute("rm -r '" .. folder .. "'")
  end)

  it("refuses what does not belong together", function()
    local motif = mf.motif { file = FILE, contig = "3,A42-50,2" }
    local model = small "rna"
    support.error_matches(function() mf.sample(model, mf.flow.se3 { profile = "rna" }, { motif = motif }) end,
      "the motif is protein, the flow rna", true)
    support.error_matches(function() mf.sample(model, mf.flow.se3 {}, { motif = motif, length = 5 }) end,
      "give one of length, lengths and motif", true)
    support.error_matches(function()
      mf.sample(model, mf.flow.se3 {}, { motif = function() return { length = 2, fixed = mf.zeros(2):bool() } end })()
    end, "must give translations and rotations", true)
  end)
end)
