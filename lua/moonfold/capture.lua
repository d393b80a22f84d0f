--- A capture under way, as the rest of the library sees it: whether there is one, and what the host must do before replays.
--
-- A captured step runs without the host, so whatever the host changes from step to step (a learning rate, a count) must
-- be written into a tensor before each replay: `on_replay` says how. Values that the step reads stay what they were when
-- it was captured; generators are kept alive by `hold`.
-- @module moonfold.capture
local M = {}

local current

--- Whether a graph is being captured.
-- @treturn boolean
function M.active() return current ~= nil end

--- Registers what the host does before each replay of the graph being captured.
-- @tparam function fn
function M.on_replay(fn) current.hooks[#current.hooks + 1] = fn end

--- Keeps a value alive as long as the graph being captured; nothing to do when there is none.
-- @param value
-- @return value
function M.hold(value)
  if current then current.held[#current.held + 1] = value end
  return value
end

--- Begins noting for a graph (moonfold.graph).
-- @treturn table `hooks`, `held`
function M.begin()
  current = { hooks = {}, held = {} }
  return current
end

--- Ends noting.
function M.finish() current = nil end

return M
