--- Holds mf.torch against PyTorch itself: a checkpoint that it makes is read and written here, and read there again.
--
--     luajit spec/tools/torch_roundtrip.lua [python]
--
-- Every tensor has to come back bit for bit. Skipped where no Python has torch (Debian: python3-torch).
local mf = require "moonfold"
local pythons = require "spec.tools.pythons"

local here = arg[0]:match "^(.*)/[^/]*$" or "."
local list = pythons("torch", arg[1])
if #list == 0 then
  print "skipped: no PyTorch for python3"
  os.exit(0)
end

local function run(command, ...)
  command = command:format(...)
  if os.execute(command) ~= 0 then
    io.stderr:write("failed: ", command, "\n")
    os.exit(1, true)
  end
end

for _, python in ipairs(list) do
  local folder = os.tmpname()
  os.remove(folder)
  run("mkdir %s", folder)
  run("%s %s/torch_roundtrip.py make %s", python, here, folder)
  mf.torch.save(folder .. "/ours.pth", (mf.torch.load(folder .. "/theirs.pth")))
  run("%s %s/torch_roundtrip.py check %s", python, here, folder)
  run("rm -r %s", folder)
end
