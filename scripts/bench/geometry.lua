-- What is computed from positions: nearest neighbours of a chain, of a cloud without order and of one spot, the linear
-- layer over their features, rotary positions, the pair-distance loss with and without a cutoff; milliseconds.
local mf = require "moonfold"

local K, BINS, FEAT, OUTPUTS, ATOMS, CUTOFF = 20, 22, 64, 88, 3, 6
local HEADS, DIM = 8, 128                                     -- keys and values of a layer: DIM of 2 DIM columns are turned

return function(o, report)
  local measure = o.measure
  local g = mf.geometry

  local function one(name, pack)
    local packing = mf.packing(pack)
    local n = packing:total()
    local chain = measure.walk(n, 1):double()
    local cloud = (mf.randn(n, 3) * 30):to(o.device):double()
    local spot = mf.zeros({ n, 3 }, { dtype = "float64", device = o.device })     -- before there is self-conditioning
    local weight = (mf.randn(OUTPUTS, K * (BINS + FEAT)) * 0.1):to(o.device):require_grad()
    local bias = mf.zeros(OUTPUTS):to(o.device):require_grad()
    local index, distance = g.neighbours(chain, nil, K, packing)
    local dy = mf.randn(n, OUTPUTS):to(o.device)
    local keys, place = mf.randn(n, HEADS, 2 * DIM):to(o.device):require_grad(), packing:position(o.device)
    local truth = (chain:float():unsqueeze(2) + mf.randn(n, ATOMS, 3):to(o.device)):contiguous()
    local predicted = (truth + mf.randn(n, ATOMS, 3):to(o.device)):detach():require_grad()

    local function search(x) return function() g.neighbours(x, nil, K, packing) end end
    local sizes = { lo = 1e-3, hi = 20, bins = BINS, feat = FEAT }
    local function layer() return g.neighbour_linear(index, distance, weight, bias, sizes) end
    local function turn() return g.rotary(keys, place, DIM) end
    local function loss(cutoff) return (g.pair_distance_loss(predicted, truth, nil, cutoff, packing)) end
    local function ms(what, f) return measure.ms(measure.try(name .. ", " .. what, f)) end
    local function forward(what, f, ...)
      local arguments = { ... }
      return mf.no_grad(ms, what, function() f(unpack(arguments)) end)
    end
    local function both(what, f, ...)
      local arguments = { ... }
      return ms(what, function()
        local y = f(unpack(arguments))
        y:backward(y:ndim() == 3 and keys:detach() or y:ndim() == 2 and dy or mf.ones(packing:count(), { device = o.device }))
        for _, leaf in ipairs { weight, bias, keys, predicted } do leaf:zero_grad() end
      end)
    end
    report {
      "geometry", name, "chain", ms("neighbours", search(chain)), "cloud", ms("neighbours", search(cloud)),
      "spot", ms("neighbours", search(spot)),
      "layer", forward("layer", layer), "layer_both", both("layer", layer),
      "turn", forward("turn", turn), "turn_both", both("turn", turn),
      "loss", forward("loss", loss, CUTOFF), "loss_both", both("loss", loss, CUTOFF),
      "all_pairs", n * packing:longest() <= 2 ^ 28 and forward("loss", loss, 0) or "-",
      "all_pairs_both", n * packing:longest() <= 2 ^ 28 and both("loss", loss, 0) or "-",
    }
  end

  for _, pack in ipairs(measure.packs(o.gpu and { 128, 512, 8192, 131072, 400000 } or { 128, 512, 2048 }, { "39x512" })) do
    mf.scope(one, unpack(pack))
  end
end
