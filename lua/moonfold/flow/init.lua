--- Flows: what a model of frames is trained and sampled with.
local se3 = require "moonfold.flow.se3"
return { se3 = se3.se3, defaults = se3.defaults }
