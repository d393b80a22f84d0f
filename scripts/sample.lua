-- sample: draws backbones from trained weights.
--
--   moonfold scripts/sample.lua weights=runs/a/weights.safetensors out=samples lengths=100,200,300 n=8
--   moonfold scripts/sample.lua weights=runs/a/weights.safetensors motif=5tpn.pdb contig=10-40,A163-181,10-40 total=56-75 n=8
--
-- Writes <out>/length_L/sample_i/{sample_1.pdb, bb_traj_1.pdb, x0_traj_1.pdb}; samples that are there already are skipped. With a
-- motif the folder is <out>/NAME, after its file, and NAME/motif.csv tells of each sample its length, contig and motif RMSD.
local mf = require "moonfold"
local command = require "moonfold.command"
local files = require "moonfold.files"
local journal = require "moonfold.journal"
local options = require "moonfold.options"
local progress = require "moonfold.progress"
local weights = require "moonfold.weights"

local program = {
  name = "sample", summary = "draws backbones from trained weights.",
  { "weights", "path", command.REQUIRED, "weights.safetensors of a training run" },
  { "out", "path", "samples", "folder of the structures" },
  { "lengths", "integers", options.OPTIONAL, "residues; by default those of the weights' preset, or 100,150,200,250,300" },
  { "motif", "path", options.OPTIONAL, "structure with a motif to scaffold" },
  { "contig", "string", options.OPTIONAL, "its residues and how many between them: 10-40,A163-181,10-40; by default of the file" },
  { "total", "string", options.OPTIONAL, "residues in all with a motif: 60 or 55-80" },
  { "guidance", "path", options.OPTIONAL, "Lua file that returns a function: see ? guidance" },
  { "guidance_weight", "number", 1, "of the gradient of its energy" },
  { "n", "integer", options.OPTIONAL, "samples of each length; by default the preset's, or 8" },
  { "steps", "integer", options.OPTIONAL, "points of the time grid; by default the preset's, or 50" },
  { "seed", "integer", 123, "of the noise" },
  { "trajectory", "boolean", false, "write every step's state and prediction too" },
  { "format", "string", "pdb", "or cif" },
  { "noise_scale", "number", options.OPTIONAL, "of a stochastic flow" },
  { "self_condition", "boolean", true, "feed the last prediction back" },
  { "residues", "integer", 20000, "integrate at most so many at once" },
  { "device", "string", "cpu", "where tensors live" },
  { "threads", "integer", 0, "CPU threads, 0 for all cores" },
  { "precision", "string", "float32", "of attention: float32, tf32, fp16, bf16, split" },
  { "products", "string", options.OPTIONAL, "of matrices: float32, tf32, bf16; by default tf32 on a GPU, float32 elsewhere" },
}
local o = command.parse(arg, program)

command.run(program, function()
  mf.threads(o.threads)
  mf.precision(o.precision)
  o.products = mf.products(o.products or o.device:find "^cuda" and "tf32" or "float32")
  local model, flow, about = weights.open(o.weights)
  model:to(o.device)
  local motif = o.motif and mf.motif.new { file = o.motif, contig = o.contig, length = o.total }
  if not motif and (o.contig or o.total) then command.stop(program, "contig and total belong to a motif=file") end
  if motif and o.lengths then command.stop(program, "lengths and motif exclude each other: total says how long") end
  local guidance = o.guidance and command.attempt(program, dofile, o.guidance)
  if o.guidance and type(guidance) ~= "function" then command.stop(program, "%s does not return a function", o.guidance) end
  local published = about.sample or { lengths = { 100, 150, 200, 250, 300 }, n = 8, steps = 50 }
  for key, value in pairs(published) do if o[key] == nil then o[key] = value end end
  files.make_folder(o.out)
  command.save(o.out .. "/inference_conf.json", o)

  local jobs = {}
  if motif then
    local at = files.make_folder(("%s/%s"):format(o.out, o.motif:match("[^/]*$"):gsub("%..*$", "")))
    jobs[1] = { folder = at, motif = motif, seed = o.seed }
    print(motif)
  else
    for k, length in ipairs(o.lengths) do
      jobs[k] = { folder = ("%s/length_%d"):format(o.out, length), length = length, seed = o.seed + 1000003 * length }
    end
  end

  local bar = progress { label = "sample", total = #jobs * o.n, unit = "residues" }
  local done, made = 0, 0
  for _, job in ipairs(jobs) do
    local function folder(i) return ("%s/sample_%d"):format(job.folder, i) end
    local first = 1
    while first <= o.n and files.exists(("%s/sample_1.%s"):format(folder(first), o.format)) do first = first + 1 end
    done = done + first - 1
    if first <= o.n then
      local samples = mf.sample(model, flow, {
        length = job.length, motif = job.motif, n = o.n, first = first, steps = o.steps, seed = job.seed, trajectory = o.trajectory,
        guidance = guidance, guidance_weight = o.guidance_weight,
        noise_scale = o.noise_scale, self_condition = o.self_condition, residues = o.residues, device = o.device,
      })
      local report = motif
        and journal.open(job.folder .. "/motif", { "sample", "num_res", "motif_rmsd", "contig", "sample_path" }, first - 1)
      for i, structure in samples do
        local at = files.make_folder(folder(i))
        if o.trajectory then
          structure:save_trajectory(("%s/bb_traj_1.%s"):format(at, o.format), "state")
          structure:save_trajectory(("%s/x0_traj_1.%s"):format(at, o.format), "clean")
        end
        if report then
          report:write { sample = i, num_res = structure.length, motif_rmsd = structure.motif_rmsd,
            contig = (structure.contig:gsub(",", "/")), sample_path = ("%s/sample_1.%s"):format(at, o.format) }
        end
        structure:save(("%s/sample_1.%s"):format(at, o.format))   -- last: what is there is complete
        done, made = done + 1, made + 1
        bar:update(done, {
          amount = structure.length,
          text = structure.contig and ("%s, motif at %.3f A"):format(structure.contig, structure.motif_rmsd)
            or ("length %d"):format(structure.length),
        })
      end
      if report then report:close() end
    end
  end
  bar:done(("%d structures in %s%s"):format(made, o.out, made < done and (", %d were there"):format(done - made) or ""))
end)
