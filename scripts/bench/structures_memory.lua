-- For scripts/bench/structures.lua: reads a file whole or by chains and prints the megabytes at the peak, and before.
local structure = require "moonfold.structure_file"

local function peak()
  for line in io.lines "/proc/self/status" do
    local kilobytes = line:match "^VmHWM:%s+(%d+)"
    if kilobytes then return tonumber(kilobytes) / 1024 end
  end
end

local before = peak()
if arg[2] == "whole" then structure.read(arg[1]) end
if arg[2] == "chains" then
  for s in structure.chains(arg[1]) do s:release() end
end
print(peak(), before)
