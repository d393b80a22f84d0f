--- The manifest of a data set: what went in, what became of it, and by which rules; JSON with a line for each input.
--
--     set, set_bytes, set_sha256   the file it tells of
--     kind, profile, options, versions
--     entries, residues, counts    how many, and the reasons (their part before ':') with how often
--     steps                        what was left after each filter
--     plan                         a hash of options, versions and the inputs' names and sizes: a second run with the same plan,
--                                  inputs and set has nothing to do
--     inputs                       path, bytes and sha256 as stored, method, resolution, `skipped` (why nothing was read), and
--                                  chains: `name` of the entry, or `skipped` and `step`, the filter
-- @module moonfold.data.prepare.manifest

local files = require "moonfold.files"
local json = require "moonfold.json"
local options = require "moonfold.options"

local M = {}

--- Writes a manifest, input by input.
-- @tparam string path
-- @tparam table head
-- @tparam function records iterator over the inputs' records
function M.write(path, head, records)
  local file, reason = io.open(path, "wb")
  if not file then error("data.prepare: " .. reason, 0) end
  local function put(text)
    local ok, message = file:write(text)
    if not ok then
      file:close()
      os.remove(path)
      error(("data.prepare: %s: %s"):format(path, message), 0)
    end
  end
  put "{\n"
  for _, key in ipairs(options.sorted_keys(head)) do put((" %s: %s,\n"):format(json.encode(key), json.encode(head[key]))) end
  put ' "inputs": ['
  local first = true
  for record in records do
    put((first and "\n  " or ",\n  ") .. json.encode(record))
    first = false
  end
  put "\n ]\n}\n"
  local ok, message = file:close()
  if not ok then
    os.remove(path)
    error(("data.prepare: %s: %s"):format(path, message), 0)
  end
end

--- Reads the head of a manifest that `write` wrote.
-- @tparam string path
-- @treturn ?table nil where there is none of ours
-- @treturn function iterator over the inputs' records, then nil
function M.read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local lines = { "{" }
  local line = file:read "*l"
  if line ~= "{" then
    file:close()
    return nil
  end
  for text in file:lines() do
    if text:match '^ "inputs": %[' then break end
    lines[#lines + 1] = text
  end
  local head = json.decode((table.concat(lines, "\n"):gsub(",%s*$", "")) .. "}")
  if not head then
    file:close()
    return nil
  end
  return head, function()
    local text = file:read "*l"
    local record = text and text:match "^  ({.*}),?$"
    if record then return json.decode(record) end
    file:close()
    return nil
  end
end

--- Whether a set is already what a plan would make.
-- @tparam string path of the manifest
-- @tparam string set its path
-- @tparam ?string plan
-- @tparam table inputs
-- @treturn ?table the manifest's head
function M.current(path, set, plan, inputs)
  if not plan then return nil end
  local head, records = M.read(path)
  if not head then return nil end
  local current = head.plan == plan
  if current and head.entries > 0 then
    local hash, bytes = files.sha256(set)
    current = hash == head.set_sha256 and bytes == head.set_bytes
  end
  if not current or head.entries == 0 then
    while records() do end
    return nil
  end
  local i = 0
  for record in records do
    i = i + 1
    local input = inputs[i]
    current = current and input ~= nil and record.path == input.path
      and record.sha256 == files.sha256(input.file, input.offset, input.offset and input.bytes)
  end
  return current and i == #inputs and head or nil
end

return M
