--- Counting what became of files and chains, while the parts come in whatever order.
-- @module moonfold.data.prepare.tally

local files = require "moonfold.files"
local filters = require "moonfold.data.prepare.filters"
local json = require "moonfold.json"

local M = {}
local Tally = {}
Tally.__index = Tally

--- A tally of a run.
-- @tparam table o resolved options
-- @tparam number n files
function M.new(o, n)
  return setmetatable({ o = o, files = n, read = 0, chains = 0, counts = { kept = 0 }, dropped = {}, parts = {} }, Tally)
end

local function add(t, key) t[key] = (t[key] or 0) + 1 end

local function reason_of(text) return text:match "^[^:]*" end

--- Counts the records of a part; what is still in the run of it is kept in `parts[k]`: entries as text, sequences as hashes, which
-- is what hundreds of thousands of them take the least memory as.
function Tally:part(k, records)
  local items, row = {}, 1
  for _, record in ipairs(records) do
    if record.skipped then add(self.counts, reason_of(record.skipped)) end
    if not record.skipped or #record.chains > 0 or record.skipped:match "^no %a+ chain" then self.read = self.read + 1 end
    for _, info in ipairs(record.chains) do
      self.chains = self.chains + 1
      local entry = info.entry
      if entry then
        items[#items + 1] = {
          part = k, row = row, length = entry.length, radius = entry.radius_of_gyration, resolution = entry.resolution,
          sequence = self.o.unique and files.sha256_of(entry.sequence) or nil, name = entry.name, text = json.encode(entry),
        }
        row = row + entry.length
      else
        add(self.counts, reason_of(info.skipped))
        add(self.dropped, info.step)
      end
    end
  end
  self.parts[k] = items
end

--- What is left, in the order of the set.
-- @treturn table
function Tally:ordered()
  local list = {}
  for _, items in ipairs(self.parts) do
    for _, item in ipairs(items) do
      list[#list + 1] = item
      item.place = #list
    end
  end
  if self.o.order == "length" then
    table.sort(list, function(a, b) return a.length > b.length or (a.length == b.length and a.place < b.place) end)
  end
  return list
end

--- Counts what was decided over all entries.
function Tally:decided(list)
  for _, item in ipairs(list) do
    if item.skipped then
      add(self.counts, reason_of(item.skipped))
      add(self.dropped, item.step)
    else
      self.counts.kept = self.counts.kept + 1
    end
  end
end

local function turned_on(o)
  return {
    size = o.min_bytes > 0 or o.max_bytes < math.huge, resolution = o.need_resolution or o.max_resolution < math.huge,
    assembly = o.oligomeric ~= "any", ["one chain"] = o.one_chain, homomer = o.homomer, ["no protein"] = o.no_protein,
    frames = true, length = true, ["radius of gyration"] = o.gyration_quantile ~= nil, ["own filters"] = o.filters ~= nil,
    ["secondary structure"] = o.max_helix < math.huge or o.max_coil < math.huge or o.min_strand >= 0,
    duplicates = o.unique, most = o.most ~= nil,
  }
end

--- What was left after each step.
-- @treturn table a list of { `step`, `left`, `dropped` }: files, then chains (entries)
function Tally:steps()
  local list = json.array { { step = "files", left = self.files, dropped = 0 },
                            { step = "files read", left = self.read, dropped = self.files - self.read } }
  local left, on = self.chains, turned_on(self.o)
  list[3] = { step = self.o.polymer .. " chains", left = left, dropped = 0 }
  if self.o.chains == "join" then list[3].step = "files with " .. self.o.polymer end
  for _, step in ipairs(filters.steps) do
    local dropped = self.dropped[step] or 0
    left = left - dropped
    if on[step] or dropped > 0 then list[#list + 1] = { step = step, left = left, dropped = dropped } end
  end
  return list
end

return M
