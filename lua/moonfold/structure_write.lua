--- Writing structures: at once, or a trajectory one model at a time.
-- @module moonfold.structure_write

local ffi = require "ffi"
local binding = require "moonfold.ffi"
local fail = require "moonfold.fail"
local options = require "moonfold.options"

local C, check = binding.C, binding.check
local M = {}
local Writer = {}
Writer.__index = Writer

local FORMATS = { auto = C.MF_FORMAT_AUTO, pdb = C.MF_FORMAT_PDB, mmcif = C.MF_FORMAT_MMCIF, cif = C.MF_FORMAT_MMCIF }

local function format_code(format)
  local code = FORMATS[format or "auto"]
  if not code then fail("structure: cannot write the format '%s' (known: auto, cif, mmcif, pdb)", tostring(format)) end
  return code
end

--- Writes the structure, atomically; a name that ends in .gz is compressed.
-- @tparam Structure s
-- @tparam string path .pdb and .ent are PDB, .cif and .mmcif mmCIF; other names PDB while its columns suffice
-- @tparam[opt="auto"] string format
-- @usage s:write "sample_1.pdb"
function M.write(s, path, format)
  local code = format_code(format)
  check(C.mf_structure_write(s.handle, path, code))
end

--- Opens a file of many models that come one at a time, in the memory of one.
-- The heading (sequences, entities, title) is that of the first structure; mmCIF needs the later ones to have the same
-- chains. Until `commit` the old file stays as it is; a writer that is abandoned, or forgotten, leaves nothing.
-- @tparam string path as for `write`
-- @tparam[opt] table o `format` ("auto"; a name that does not say is settled by the first structure)
-- @treturn Writer with `add(s)`, `commit()`, `abandon()`
-- @usage local w = mf.structure.writer "trajectory.cif"
--        for k = 1, 50 do w:add(frames[k]) end
--        w:commit()
function M.writer(path, o)
  o = options("structure.writer", { format = "auto" }, o)
  local code = format_code(o.format)
  local out = ffi.new "mf_structure_writer *[1]"
  check(C.mf_structure_writer_open(out, path, code))
  return setmetatable({ path = path, handle = ffi.gc(out[0], C.mf_structure_writer_abandon), models = 0 }, Writer)
end

function Writer.__tostring(w)
  return ("structure writer %s: %d structures%s"):format(w.path, w.models, w.handle and "" or ", closed")
end

local function alive(w)
  if not w.handle then fail("structure.writer: '%s' is closed", w.path) end
  return w.handle
end

-- The handle without its finalizer: the next call frees it.
local function give_up(w)
  local handle = ffi.gc(alive(w), nil)
  w.handle = nil
  return handle
end

--- Appends every model of a structure, or a sample.
-- @tparam Structure s of this module's kind, or what `mf.sample` makes
function Writer.add(w, s)
  local handle = alive(w)
  local sample = type(s) == "table" and s.as_file
  local written = sample and s:as_file() or s
  if type(written) ~= "table" or not written.handle then fail "structure.writer: add takes a structure" end
  local status = C.mf_structure_writer_add(handle, written.handle)
  if sample then written:release() end
  if status ~= 0 then w:abandon() end    -- nothing can follow half a model
  check(status)
  w.models = w.models + 1
end

--- Puts the file in its place.
function Writer.commit(w) check(C.mf_structure_writer_commit(give_up(w))) end

--- Drops what was written.
function Writer.abandon(w)
  if w.handle then C.mf_structure_writer_abandon(give_up(w)) end
end

return M
