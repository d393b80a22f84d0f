--- A progress line: a bar that redraws itself on a terminal, plain lines now and then in a pipe.
--
--     local bar = progress { label = "train", total = 1000, unit = "residues" }
--     bar:update(step, { amount = n, text = "loss 0.812" })
--     bar:done "saved to runs/a"
-- @module moonfold.progress
local C = require("moonfold.ffi").C
local options = require "moonfold.options"

local Progress = {}
Progress.__index = Progress

local defaults = { label = options.REQUIRED, total = options.REQUIRED, unit = "", every = 10, stream = options.OPTIONAL }

local function duration(seconds)
  if seconds >= 3600 then return ("%d:%02d:%02d"):format(seconds / 3600, seconds / 60 % 60, seconds % 60) end
  return ("%d:%02d"):format(seconds / 60, seconds % 60)
end

local function rate(amount)
  if amount >= 1e6 then return ("%.1fM"):format(amount / 1e6) end
  if amount >= 1e4 then return ("%.0fk"):format(amount / 1e3) end
  return ("%.0f"):format(amount)
end

--- Reports that `step` of the total is done.
-- @tparam number step
-- @tparam ?table o `amount` done since the last update, in the bar's unit; `text` to show
function Progress:update(step, o)
  o = o or {}
  local now = C.mf_clock()
  self.step, self.amount, self.text = step, self.amount + (o.amount or 0), o.text or self.text
  if now - self.shown < (self.terminal and 0.1 or self.every) and step < self.total then return end
  self.shown = now
  local elapsed = now - self.began
  local left = step > self.first and elapsed / (step - self.first) * (self.total - step) or 0
  local words = ("%d/%d"):format(step, self.total)
  if self.unit ~= "" and elapsed > 0.5 then words = ("%s  %s %s/s"):format(words, rate(self.amount / elapsed), self.unit) end
  words = ("%s  %s left  %s"):format(words, duration(left), self.text)
  if self.terminal then
    local width = 24
    local full = math.floor(width * step / math.max(self.total, 1))
    self.stream:write(("\r\27[K%s [%s%s] %s"):format(self.label, ("#"):rep(full), ("."):rep(width - full), words))
  else
    self.stream:write(("%s  %s\n"):format(self.label, words))
  end
  self.stream:flush()
end

--- Ends the line.
-- @tparam ?string text what to leave in its place
function Progress:done(text)
  local line = ("%s  %s in %s"):format(self.label, text or "done", duration(C.mf_clock() - self.began))
  self.stream:write(self.terminal and "\r\27[K" or "", line, "\n")
  self.stream:flush()
end

--- Starts a progress line.
-- @tparam table o `label`, `total` steps, `unit` of the amounts ("residues"), `every` seconds between lines in a pipe,
--   `first` step already done by an earlier run
-- @treturn table
local function new(o)
  local first = o.first or 0
  o.first = nil
  local self = setmetatable(options("progress", defaults, o), Progress)
  self.stream = self.stream or io.stderr
  self.terminal = self.stream == io.stderr and C.mf_is_terminal(2) == 1
  self.began, self.shown, self.amount, self.text, self.step, self.first = C.mf_clock(), -math.huge, 0, "", first, first
  return self
end

return new
