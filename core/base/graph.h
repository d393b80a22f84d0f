/* graph.h: a capture under way, as the rest of the core sees it. */
#ifndef MF_BASE_GRAPH_H
#define MF_BASE_GRAPH_H
#include "context.h"

/* Before x is filled from `rng`: while a graph is captured, its replays will advance the generator. */
mf_status mf__graph_draws(const mf_tensor *x, mf_rng *rng);
#endif
