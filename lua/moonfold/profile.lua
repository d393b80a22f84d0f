--- What each kernel of a GPU took, beside what the device could do.
-- @module moonfold.profile
local ffi = require "ffi"
local F = require "moonfold.ffi"
local T = require "moonfold.types"
local columns = require "moonfold.columns"

local C, ctx, check = F.C, F.ctx, F.check

local MOST = 512                       -- kernels of different names
local rows_t = ffi.typeof("mf_profile_row[?]")
local count_box = ffi.new("int64_t[1]")

local Profile = {}
Profile.__index = Profile

-- Not a number where the kernel does not say: the table shows a dash.
local function share(amount, seconds) return amount > 0 and seconds > 0 and amount / seconds or 0 / 0 end

--- The table as text: kernel, calls, milliseconds, share of the time, GB/s, GFLOP/s, share of the roofline.
function Profile:__tostring()
  local lines = {}
  for i, row in ipairs(self) do
    lines[i] = {
      row.name, row.calls, row.seconds * 1e3, 100 * row.seconds / self.seconds, row.seconds / row.calls * 1e6,
      share(row.bytes * 1e-9, row.seconds), share(row.operations * 1e-9, row.seconds), share(100 * row.bound, row.seconds),
    }
  end
  lines[#lines + 1] = { "all", self.calls, self.seconds * 1e3, 100, self.seconds / math.max(self.calls, 1) * 1e6 }
  local text = columns({ "kernel", "calls", "ms", "%", "us/call", "GB/s", "GFLOP/s", "% of roof" }, lines)
  for _, row in ipairs(self) do
    if row.name:find("^flash_wide_kernel") then
      return text .. "\nflash_wide_kernel: attention of widths that no faster kernel of this device takes (cuda/README.md)"
    end
  end
  return text
end

local function finish(device, ok, ...)
  local rows = rows_t(MOST)
  local status = C.mf_profile_end(rows, MOST, count_box, ctx, device)
  if not ok then error((...), 0) end
  check(status)
  local profile = setmetatable({ seconds = 0, calls = 0 }, Profile)
  for i = 0, math.min(tonumber(count_box[0]), MOST) - 1 do
    local row = rows[i]
    profile[i + 1] = {
      name = ffi.string(row.name), calls = tonumber(row.calls), seconds = row.seconds, operations = row.operations,
      bytes = row.bytes, bound = row.bound,
    }
    profile.seconds, profile.calls = profile.seconds + row.seconds, profile.calls + tonumber(row.calls)
  end
  return profile, ...
end

local M = {}

--- Calls a function and times every kernel that it puts on a GPU, one event before and one after each.
-- The time of a kernel includes the gap that its launch leaves, some microseconds: what small kernels cost without a graph.
-- @tparam function fn
-- @param ... its arguments
-- @treturn table a list of { name, calls, seconds, operations, bytes, bound }, the longest first, with `seconds` and `calls`
--   in all; print it. `bound` is the seconds that the device's peak rates allow, 0 where a kernel does not say what it does
-- @return what fn returns
-- @usage print((mf.profile(function() model(batch) end)))
function M.profile(fn, ...)
  T.callable_argument("profile", 1, fn)
  local device = tonumber(C.MF_CUDA)
  check(C.mf_profile_begin(ctx, device))
  return finish(device, pcall(fn, ...))
end

return M
