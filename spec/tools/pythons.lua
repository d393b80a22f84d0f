--- The Pythons that have a module: the one that is asked for, alone, or python3 of the path, then Debian's.
--
--     local python = pythons "gemmi" [1]
--
-- @tparam string module
-- @tparam[opt] string only an interpreter; by default $PYTHON, where that is set
-- @treturn table a list of commands
return function(module, only)
  only = only or os.getenv "PYTHON"
  local list = {}
  for _, candidate in ipairs(only and { only } or { "python3", "/usr/bin/python3" }) do
    if os.execute(("%s -c 'import %s' 2>/dev/null"):format(candidate, module)) == 0 then list[#list + 1] = candidate end
  end
  return list
end
