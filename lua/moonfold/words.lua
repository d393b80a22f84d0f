--- Numbers as people read them.
-- @module moonfold.words
local M = {}

--- Bytes in words: "12.5 MiB".
-- @tparam number bytes
-- @treturn string
function M.bytes(bytes)
  if bytes < 1024 then return ("%d B"):format(bytes) end
  for _, unit in ipairs { "KiB", "MiB", "GiB" } do
    bytes = bytes / 1024
    if bytes < 1024 then return ("%.1f %s"):format(bytes, unit) end
  end
  return ("%.1f TiB"):format(bytes / 1024)
end

--- A whole number with commas: "1,234,567".
-- @tparam number n
-- @treturn string
function M.thousands(n)
  local s = ("%d"):format(n)
  repeat
    local count
    s, count = s:gsub("^(%-?%d+)(%d%d%d)", "%1,%2")
  until count == 0
  return s
end

return M
