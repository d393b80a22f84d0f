--- Rows of an archive's tensors, read ahead of time on threads.
--
--     local reader = archive:reader({ "translations", "mask" }, 1)
--     reader:submit({ 1, 501 }, { 120, 80 })            -- rows 1 .. 120, then 501 .. 580
--     local rows = reader:next()                        -- { translations = (200, 3), mask = (200) }
--
-- What was submitted first comes first, the same bits for any number of threads. What a thread finds to be wrong is raised by the
-- `next` whose rows they are.
-- @module moonfold.row_reader
local ffi = require "ffi"
local F = require "moonfold.ffi"
local fail = require "moonfold.fail"

local C, ctx, again, check, adopt = F.C, F.ctx, F.again, F.check, F.adopt

local M = {}
local Reader = {}
Reader.__index = Reader

local box = ffi.new "mf_row_reader *[1]"
local list_of = ffi.typeof "int64_t[?]"

--- A reader; `archive:reader(names, threads)` is the same.
-- @param archive the C handle, which the reader keeps open as long as it needs it
-- @tparam table names of tensors
-- @tparam table positions their numbers in the archive, from 0
-- @tparam number threads 0: `next` reads what it returns
-- @treturn table
function M.new(archive, names, positions, threads)
  local n = #names
  local numbers = list_of(n, positions)
  local status = C.mf_row_reader_open(box, archive, ctx, numbers, n, threads)
  if status ~= 0 and again(status) then check(C.mf_row_reader_open(box, archive, ctx, numbers, n, threads)) end
  return setmetatable({
    names = names, handle = ffi.gc(box[0], C.mf_row_reader_close), results = ffi.new("mf_tensor *[?]", n),
  }, Reader)
end

local function open(self)
  if not self.handle then fail "row reader: it is closed" end
  return self.handle
end

--- Asks for runs of rows, to be returned end to end by a later `next`.
-- @tparam table first first row of each run, from 1
-- @tparam table count rows of each run
function Reader:submit(first, count)
  local handle, n = open(self), #first
  local from, rows = list_of(n), list_of(n)
  for k = 1, n do from[k - 1], rows[k - 1] = first[k] - 1, count[k] end
  local status = C.mf_row_reader_submit(handle, from, rows, n)
  if status ~= 0 and again(status) then check(C.mf_row_reader_submit(handle, from, rows, n)) end
end

--- The rows of the oldest `submit` that were not taken yet; waits until they are there.
-- @treturn table name -> tensor on the CPU
function Reader:next()
  check(C.mf_row_reader_next(self.results, open(self)))
  local rows = {}
  for i, name in ipairs(self.names) do rows[name] = adopt(self.results[i - 1]) end
  return rows
end

--- How many were submitted and not taken.
-- @treturn number
function Reader:pending() return tonumber(C.mf_row_reader_pending(open(self))) end

--- Stops the threads and forgets what is under way. A reader that nobody holds is closed by the collector.
function Reader:close()
  if self.handle then
    C.mf_row_reader_close(ffi.gc(self.handle, nil))
    self.handle = nil
  end
end

return M
