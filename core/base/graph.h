/* graph.h: a capture under way, as the rest of the core sees it. */
#ifndef MF_BASE_GRAPH_H
#define MF_BASE_GRAPH_H
#include "context.h"

struct mf_storage;

/* Before x is filled from `rng`: while a graph is captured, its replays will advance the generator. */
mf_status mf__graph_draws(const mf_tensor *x, mf_rng *rng);
/* While a graph is captured, what its kernels touch lives as long as it does. Both do nothing otherwise. */
mf_status mf__graph_holds(mf_ctx *ctx, struct mf_storage *storage);
mf_status mf__graph_holds_packing(mf_ctx *ctx, const mf_packing *packing);
/* A leaf got its first gradient (+1) or lost it (-1): a step must leave as it came, or replays would not do what it says. */
void mf__graph_gradient(mf_ctx *ctx, int change);
#endif
