--- Tables of text for programs: the first column to the left, numbers to the right.
-- @module moonfold.columns

local function cell(value)
  if type(value) ~= "number" then return tostring(value) end
  if value ~= value then return "-" end
  if value == math.floor(value) and math.abs(value) < 1e15 then return ("%d"):format(value) end
  return ("%.3f"):format(value)
end

--- Lays out rows under a heading.
-- @tparam table heading names of the columns
-- @tparam table rows lists of strings and numbers (three decimals, whole ones none; no number is "-")
-- @treturn string lines without a last newline
-- @usage print(columns({ "backbones", "helix" }, { { "data", 0.4 } }))
return function(heading, rows)
  local lines, width, numeric = { heading }, {}, {}
  for k, row in ipairs(rows) do
    lines[k + 1] = {}
    for j, value in ipairs(row) do
      lines[k + 1][j] = cell(value)
      numeric[j] = numeric[j] or type(value) == "number"
    end
  end
  for _, line in ipairs(lines) do
    for j, text in ipairs(line) do width[j] = math.max(width[j] or 0, #text) end
  end
  for k, line in ipairs(lines) do
    local parts = {}
    for j, text in ipairs(line) do parts[j] = ("%" .. (numeric[j] and "" or "-") .. width[j] .. "s"):format(text) end
    lines[k] = ("  " .. table.concat(parts, "  ")):gsub("%s+$", "")
  end
  return table.concat(lines, "\n")
end
