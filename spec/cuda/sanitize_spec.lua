--- sanitize.c on the device: every operator from C, every block of the device's memory an allocation of its own.
local F = require "moonfold.ffi"
local support = require "spec.support"

describe("sanitize.c #gpu", function()
  if not support.cuda() then return end

  it("finds every operator on the GPU as on the CPU", function()
    local folder = os.tmpname()
    os.remove(folder)
    local library = F.library:match "^/" and F.library or "./" .. F.library
    local command = ("mkdir %s && %s -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -o %s/sanitize spec/cuda/sanitize.c %s -lm "
      .. "-Wl,-rpath,\"$(cd %s && pwd)\" && MOONFOLD_CUDA_GUARD=apart %s/sanitize cuda:0 2>&1"):format(
      folder, os.getenv "CC" or "cc", folder, library, library:match "^(.*)/", folder)
    local pipe = io.popen(command .. "; echo status $?; rm -r " .. folder)
    local text = pipe:read "*a"
    pipe:close()
    assert.is_truthy(text:find("status 0\n", 1, true), text)
    assert.is_truthy(text:find(" runs on cuda:0, 0 wrong\n", 1, true), text)
  end)
end)
