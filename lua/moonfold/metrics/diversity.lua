--- Diversity and novelty of a set of samples (metrics.md 7).

local align = require "moonfold.metrics.align"
local fail = require "moonfold.fail"
local options = require "moonfold.options"

local M = {}

local SINGLE = 5            -- residues; what is no longer is a cluster of its own, as in qTMclust

local cluster_defaults = { cut = options.REQUIRED, similar = options.OPTIONAL, jobs = 2, progress = options.OPTIONAL }

--- Clusters by the rule of qTMclust: the longest structure founds the first cluster; every other, from long to short, joins the
-- latest cluster whose founder is at least `cut` like it, by the TM-score as a share of the longer one's residues, or founds its
-- own.
-- @tparam table traces what metrics.align.trace gives, or anything with a `length` where `similar` is given
-- @tparam table o `cut` in (0, 1); `similar(one, others)`: a list of TM-scores (by metrics.align); `jobs` (2); `progress(done,
--   total)`
-- @treturn table a list of clusters, each a list of positions in `traces`, the founder first
-- @usage local clusters = diversity.clusters(traces, { cut = 0.5 }); print(#clusters / #traces)
function M.clusters(traces, o)
  o = options("metrics.clusters", cluster_defaults, o)
  if type(o.cut) ~= "number" or not (o.cut > 0 and o.cut < 1) then
    fail("metrics.clusters: cut is %s, expected a TM-score between 0 and 1", tostring(o.cut))
  end
  local similar = o.similar or function(one, others)
    local list, scores = {}, {}
    for k, other in ipairs(others) do list[k] = { other, one } end           -- others are at least as long
    for k, result in ipairs(align.pairs(list, { jobs = o.jobs })) do scores[k] = result and result.tm1 or 0 end
    return scores
  end
  local order, clusters = {}, {}
  for k = 1, #traces do order[k] = k end
  table.sort(order, function(a, b)
    if traces[a].length ~= traces[b].length then return traces[a].length > traces[b].length end
    return a < b
  end)
  for done, k in ipairs(order) do
    local one, candidates, founders = traces[k], {}, {}
    for c = #clusters, 1, -1 do
      local founder = traces[clusters[c][1]]
      -- what aligns is at most the whole of the shorter one
      if one.length > SINGLE and one.length / founder.length >= o.cut then
        candidates[#candidates + 1], founders[#founders + 1] = clusters[c], founder
      end
    end
    local home
    for c, score in ipairs(#founders > 0 and similar(one, founders) or {}) do
      if score >= o.cut then home = candidates[c] break end
    end
    if home then home[#home + 1] = k else clusters[#clusters + 1] = { k } end
    if o.progress then o.progress(done, #order) end
  end
  return clusters
end

local nearest_defaults = { jobs = 2, progress = options.OPTIONAL, most = options.OPTIONAL }

--- The nearest of some references to each sample, by structural alignment.
-- @tparam table traces of samples
-- @tparam table references traces
-- @tparam ?table o `most`: only so many references for each sample, the nearest in length (all); `jobs` (2); `progress(done,
--   total)`
-- @treturn table for each sample { `tm`, `reference`: the largest TM-score as a share of the sample's residues and the position of
--   the reference that has it; `tm_reference`: the largest as a share of the reference's residues, what pdbTM is the mean of: a
--   short reference inside a long sample scores high there }; false where nothing could be aligned
-- @usage local novelty = diversity.nearest(samples, train, { most = 100, jobs = 8 })
function M.nearest(traces, references, o)
  o = options("metrics.nearest", nearest_defaults, o or {})
  if #references == 0 then fail "metrics.nearest: no references" end
  local list, of = {}, {}
  for k, one in ipairs(traces) do
    local order = {}
    for r = 1, #references do order[r] = r end
    if o.most and o.most < #order then
      table.sort(order, function(a, b)
        local u, v = math.abs(references[a].length - one.length), math.abs(references[b].length - one.length)
        if u ~= v then return u < v end
        return a < b
      end)
    end
    for i = 1, math.min(o.most or #order, #order) do
      list[#list + 1], of[#of + 1] = { one, references[order[i]] }, { k, order[i] }
    end
  end
  local best = {}
  for k = 1, #traces do best[k] = false end
  for i, result in ipairs(align.pairs(list, { jobs = o.jobs, progress = o.progress })) do
    local k, r = of[i][1], of[i][2]
    if result then
      local b = best[k] or { tm = -1, tm_reference = -1 }
      if result.tm1 > b.tm then b.tm, b.reference = result.tm1, r end
      b.tm_reference = math.max(b.tm_reference, result.tm2)
      best[k] = b
    end
  end
  return best
end

return M
