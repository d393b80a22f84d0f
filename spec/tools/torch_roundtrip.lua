--- Holds mf.torch against PyTorch itself: a checkpoint that it makes is read and written here, and read there again.
--
--     luajit spec/tools/torch_roundtrip.lua [python]
--
-- Every tensor has to come back bit for bit. Skipped where no Python has torch (Debian: python3-torch).
local mf = require "moonfold"

local here = arg[0]:match "^(.*)/[^/]*$" or "."
local pythons = {}
for _, candidate in ipairs { arg[1] or "python3", "/usr/bin/python3" } do
  if os.execute(candidate .. " -c 'import torch' 2>/dev/null") == 0 then pythons[#pythons + 1] = candidate end
  if arg[1] then break end
end
if #pythons == 0 then
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

for _, python in ipairs(pythons) do
  local folder = os.tmpname()
  os.remove(folder)
  run("mkdir %s", folder)
  run("%s %s/torch_roundtrip.py make %s", python, here, folder)
  mf.torch.save(folder .. "/ours.pth", (mf.torch.load(folder .. "/theirs.pth")))
  run("%s %s/torch_roundtrip.py check %s", python, here, folder)
  run("rm -r %s", folder)
end
