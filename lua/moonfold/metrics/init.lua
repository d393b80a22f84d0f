--- What generated backbones are judged by, one structure or a set at a time.

local align = require "moonfold.metrics.align"
local backbone = require "moonfold.metrics.backbone"
local distributions = require "moonfold.metrics.distributions"
local diversity = require "moonfold.metrics.diversity"
local dssp = require "moonfold.metrics.dssp"
local references = require "moonfold.metrics.references"
local specimen = require "moonfold.metrics.specimen"
local summary = require "moonfold.metrics.summary"
local tm_score = require "moonfold.metrics.tm_score"

return {
  backbone = backbone.backbone,
  trace = backbone.trace,
  peptide_violations = backbone.peptide_violations,
  radius_of_gyration = backbone.radius_of_gyration,
  dssp = dssp.assign,
  dssp_shares = dssp.shares,
  tm_score = tm_score.tm_score,
  tm_d0 = tm_score.tm_d0,
  specimen = specimen,
  references = references.choose,
  distributions = distributions,
  align = align,
  clusters = diversity.clusters,
  nearest = diversity.nearest,
  summary = summary.summary,
  describe = summary.describe,
  quantile = summary.quantile,
  wasserstein = summary.wasserstein,
  circular_wasserstein = summary.circular_wasserstein,
}
