-- Whether two runs of a training step's gradients have the same bits, and what mf.deterministic(true) costs in time.
local mf = require "moonfold"

return function(o, report)
  local measure = o.measure
  local model = measure.fill(mf.models.flash_ipa { blocks = o.blocks, node = o.node, neighbours = o.neighbours }, 0.3)

  local function one(name, pack)
    local call = measure.call(pack)
    local function gradients(x)
      local loss = measure.loss(model, x)
      loss:backward()
      return loss:detach()
    end
    local function both(x)
      local loss = gradients(x)
      measure.clear(model)
      return loss
    end
    local function bits()
      measure.clear(model)
      local parts = { gradients(call):bytes() }
      for _, p in ipairs(model:parameters()) do
        local g = p:grad()
        parts[#parts + 1] = g and g:bytes() or ""
      end
      measure.clear(model)
      return table.concat(parts)
    end
    local row = { "determinism", name }
    for _, setting in ipairs { false, true } do
      mf.deterministic(setting, function()
        local label = setting and "deterministic" or "free"
        local first = mf.scope(bits)
        local equal = first == mf.scope(bits) and first == mf.scope(bits)
        local seconds, graph = measure.try(name, both, call), measure.graph(name, both, call)
        row[#row + 1], row[#row + 2] = label .. "_same_bits", equal and "yes" or "no"
        row[#row + 1], row[#row + 2] = label .. "_ms", measure.ms(seconds)
        if o.gpu then row[#row + 1], row[#row + 2] = label .. "_graph_ms", measure.ms(graph) end
      end)
    end
    report(row)
  end

  for _, pack in ipairs(measure.packs({ 512, 2048 }, { "39x512" })) do mf.scope(one, unpack(pack)) end
end
