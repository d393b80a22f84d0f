/* graph.c: capturing a device's work and replaying it, and the generators that must move on with every replay.
 *
 *     capture   rng at 100, the step draws 30: kernels are recorded with counter 100, the host's generator ends at 130
 *     replay    kernels add `advance` to the counter they know: rng now at 500 -> advance 400, then rng moves to 530
 *
 * Kernels find their advance by seed and stream, so two generators of one capture may not share both. The host keeps every
 * generator alive that a graph drew from. */
#include "graph.h"
#include "../ops/kernels.h"
#include "../tensor/tensor.h"
#include "error.h"
#include <stdlib.h>

enum { MOST_GENERATORS = 8 };

struct mf_graph {
    mf_ctx *ctx;
    mf_device *device;
    void *graph;                  /* the backend's; NULL until the end of the capture */
    int n_generators;
    struct { mf_rng *rng; uint64_t at, drawn; } generator[MOST_GENERATORS];
};

mf_status mf_graph_begin(mf_graph **out, mf_ctx *ctx, int device, mf_graph *sibling) {
    *out = NULL;
    mf_device *d;
    MF_TRY(mf__ctx_device(&d, ctx, device));
    if (!d->backend->capture_begin)
        return mf__fail(MF_ESUPPORT, "graph: %s cannot capture; only CUDA devices can", d->backend->name);
    if (ctx->graph) return mf__fail(MF_ESTATE, "graph: a capture is under way already");
    mf_graph *g = calloc(1, sizeof *g);
    if (!g) return mf__fail(MF_ENOMEM, "graph: out of memory");
    g->graph = sibling && sibling->device == d ? sibling->graph : NULL;
    mf_status status = d->backend->capture_begin(d, &g->graph);
    if (status != MF_OK) {
        free(g);
        return status;
    }
    g->ctx = mf__ctx_retain(ctx);
    g->device = d;
    ctx->graph = *out = g;
    return MF_OK;
}

mf_status mf_graph_end(mf_graph *g, int keep) {
    if (g->ctx->graph != g) return mf__fail(MF_ESTATE, "graph: this capture has ended already");
    g->ctx->graph = NULL;
    for (int i = 0; i < g->n_generators; i++) {      /* nothing was drawn yet: the first replay draws what was recorded */
        g->generator[i].drawn = g->generator[i].rng->counter - g->generator[i].at;
        g->generator[i].rng->counter = g->generator[i].at;
    }
    mf_status status = g->device->backend->capture_end(g->device, keep);
    if (status != MF_OK || !keep) {
        g->device->backend->graph_release(g->device, g->graph);
        g->graph = NULL;
    }
    return status;
}

mf_status mf_graph_replay(mf_graph *g) {
    if (!g->graph || g->ctx->graph == g) return mf__fail(MF_ESTATE, "graph: there is nothing to replay; the capture did not end well");
    uint64_t advance[MOST_GENERATORS];
    for (int i = 0; i < g->n_generators; i++) advance[i] = g->generator[i].rng->counter - g->generator[i].at;
    MF_TRY(g->device->backend->graph_replay(g->device, g->graph, advance));
    for (int i = 0; i < g->n_generators; i++) g->generator[i].rng->counter += g->generator[i].drawn;
    return MF_OK;
}

void mf_graph_release(mf_graph *g) {
    if (!g) return;
    if (g->ctx->graph == g) (void)mf_graph_end(g, 0);
    if (g->graph) g->device->backend->graph_release(g->device, g->graph);
    mf_ctx_release(g->ctx);
    free(g);
}

int mf_graph_capturing(const mf_ctx *ctx) { return ctx->graph != NULL; }

mf_status mf__graph_draws(const mf_tensor *x, mf_rng *rng) {
    mf_graph *g = x->ctx->graph;
    if (!g) return MF_OK;
    if (x->device != g->device)
        return mf__fail(MF_ESTATE, "graph: random numbers on %s cannot be captured; make them on the captured device", x->device->backend->name);
    for (int i = 0; i < g->n_generators; i++) {
        const mf_rng *other = g->generator[i].rng;
        if (other == rng) return MF_OK;
        if (other->seed == rng->seed && other->stream == rng->stream)
            return mf__fail(MF_ESTATE, "graph: two generators of seed %llu and stream %llu draw in one capture; give one another stream",
                            (unsigned long long)rng->seed, (unsigned long long)rng->stream);
    }
    if (g->n_generators == MOST_GENERATORS) return mf__fail(MF_ESTATE, "graph: more than %d generators draw in one capture", MOST_GENERATORS);
    MF_TRY(g->device->backend->capture_draw(g->device, *rng));
    g->generator[g->n_generators].rng = rng;
    g->generator[g->n_generators++].at = rng->counter;
    return MF_OK;
}

mf_status mf_profile_begin(mf_ctx *ctx, int device) {
    mf_device *d;
    MF_TRY(mf__ctx_device(&d, ctx, device));
    if (!d->backend->profile_begin) return mf__fail(MF_ESUPPORT, "profile: %s does not time its kernels; only CUDA devices do", d->backend->name);
    return d->backend->profile_begin(d);
}

mf_status mf_profile_end(mf_profile_row *rows, int64_t most, int64_t *count, mf_ctx *ctx, int device) {
    *count = 0;
    mf_device *d;
    MF_TRY(mf__ctx_device(&d, ctx, device));
    if (!d->backend->profile_end) return mf__fail(MF_ESUPPORT, "profile: %s does not time its kernels; only CUDA devices do", d->backend->name);
    return d->backend->profile_end(d, rows, most, count);
}
