-- convert: reads checkpoints of the public models and writes them for Moonfold, for PyTorch or for NumPy.
--
--   moonfold scripts/convert.lua in=foldflow-sfm.pth out=foldflow-sfm.safetensors
--   moonfold scripts/convert.lua in=rna_frameflow_public_weights.ckpt              tells what it is, writes nothing
--   moonfold scripts/convert.lua in=ours.safetensors out=ours.pth                  torch.load reads it
--   moonfold scripts/convert.lua in=ours.safetensors out=half.safetensors type=float16
--
-- What the file is follows from its tensors. Tells what matched, what is missing, what is left over; a file that lacks
-- tensors of its model is not written, and the status is 1.
local mf = require "moonfold"
local columns = require "moonfold.columns"
local command = require "moonfold.command"
local options = require "moonfold.options"

local program = {
  name = "convert", summary = "reads checkpoints of FoldFlow, RNA-FrameFlow and flash_ipa.",
  { "in", "path", command.REQUIRED, ".pth, .ckpt, .npz or .safetensors" },
  { "out", "path", options.OPTIONAL, ".safetensors, .npz, .pth or .ckpt; without it the report alone" },
  { "to", "string", options.OPTIONAL, "safetensors, npz or torch, where the name of out does not tell" },
  { "type", "string", options.OPTIONAL, "of floating numbers in out: float32, float16 (half the bytes), bfloat16, float64" },
  { "names", "boolean", false, "list every tensor with its shape and type" },
}
local o = command.parse(arg, program)

local function list(title, names)
  if #names == 0 then return end
  print(("%s (%d):"):format(title, #names))
  for _, name in ipairs(names) do print("  " .. name) end
end

local c = command.attempt(program, mf.convert.read, o["in"])
print(c)
if c.model then
  local rows = {}
  for _, key in ipairs(options.sorted_keys(c.model._options)) do
    local value = c.model._options[key]
    if type(value) ~= "table" and type(value) ~= "cdata" then rows[#rows + 1] = { key, tostring(value) } end
  end
  print(columns({ "option", "value" }, rows))
end
if o.names then
  local rows = {}
  for _, pair in ipairs(c.names) do
    local x = c.tensors[pair[2]]
    rows[#rows + 1] = { pair[2], table.concat(x:shape(), "x"), x:dtype(), pair[1] ~= pair[2] and pair[1] or "" }
  end
  print(columns({ "tensor", "shape", "type", "was" }, rows))
end
for _, note in ipairs(c.notes) do print(("note: %s (%d)"):format(note.text, note.count)) end
list("missing", c.report.missing)
list("of another shape", c.report.mismatched)
list("unknown, left out", c.report.extra)

if #c.report.missing + #c.report.mismatched > 0 then
  io.stderr:write "convert: the file lacks tensors of its model: nothing is written\n"
  os.exit(1, true)
end
if o.out then
  local count = command.attempt(program, c.save, c, o.out, { to = o.to, type = o.type })
  print(("%s: %d tensors"):format(o.out, count))
end
