--- Errors that point at the user's own line.
-- Moonfold's layers call each other at any depth, so a fixed level would name one of our files. `fail` walks the
-- stack to the first Lua function whose source lies outside this folder.
-- @module moonfold.fail
local getinfo = debug.getinfo

local own = getinfo(1, "S").source:match("^(@.*)fail%.lua$") or "@moonfold/"

-- The level, counted for a function that calls error() itself, of the first caller outside this folder; 0 without one.
local function user_level()
  local level = 3
  while true do
    local info = getinfo(level, "S")
    if not info then return 0 end
    if info.what ~= "C" and info.source:sub(1, #own) ~= own then return level - 1 end
    level = level + 1
  end
end

--- Raises an error at the user's line.
-- @tparam string message a text, or a format when more arguments follow
-- @param ... values for the format
local function fail(message, ...)
  if select("#", ...) > 0 then message = message:format(...) end
  error(message, user_level())
end

return fail
