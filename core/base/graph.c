/* graph.c: capturing a device's work and replaying it, and the generators that must move on with every replay.
 *
 *     capture   rng at 100, the step draws 30: kernels are recorded with counter 100, the host's generator ends at 130
 *     replay    kernels add `advance` to the counter they know: rng now at 500 -> advance 400, then rng moves to 530
 *
 * Kernels find their advance by seed and stream, so two generators of one capture may not share both. The host keeps every
 * generator alive that a graph drew from.
 *
 * A graph knows addresses, not tensors: it holds every storage from before the capture that an operator touched, and every
 * packing whose offsets went to the device, so that nobody else is given their places. */
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
    int64_t first_id;             /* tensors made since are in the graph's own memory */
    struct mf_storage **held;
    int64_t n_held, held_capacity;
    mf_packing **packings;
    int64_t n_packings;
    int gradients;                /* leaves that have a gradient now and had none before, less those that lost one */
    int n_generators;
    struct { mf_rng *rng; uint64_t at, drawn; } generator[MOST_GENERATORS];
};

mf_status mf_graph_begin(mf_graph **out, mf_ctx *ctx, int device, mf_graph *sibling) {
    *out = NULL;
    mf_device *d;
    MF_TRY(mf__ctx_device(&d, ctx, device));
    if (!d->backend->capture_begin)
        return mf__fail(MF_ESUPPORT, "graph: %s cannot capture; only CUDA devices can", d->name);
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
    g->first_id = ctx->next_id;
    ctx->graph = *out = g;
    return MF_OK;
}

/* Gives back the recorded work and what it held. */
static void forget(mf_graph *g) {
    if (g->graph) g->device->backend->graph_release(g->device, g->graph);
    g->graph = NULL;
    for (int64_t i = 0; i < g->n_held; i++) mf__storage_release(g->held[i]);
    for (int64_t i = 0; i < g->n_packings; i++) mf_packing_release(g->packings[i]);
    free(g->held);
    free(g->packings);
    g->held = NULL;
    g->packings = NULL;
    g->n_held = g->n_packings = 0;
}

mf_status mf_graph_end(mf_graph *g, int keep) {
    if (g->ctx->graph != g) return mf__fail(MF_ESTATE, "graph: this capture has ended already");
    g->ctx->graph = NULL;
    for (int i = 0; i < g->n_generators; i++) {      /* nothing was drawn yet: the first replay draws what was recorded */
        g->generator[i].drawn = g->generator[i].rng->counter - g->generator[i].at;
        g->generator[i].rng->counter = g->generator[i].at;
    }
    const int uneven = keep && g->gradients != 0;
    mf_status status = g->device->backend->capture_end(g->device, keep && !uneven);
    if (status != MF_OK || !keep || uneven) forget(g);
    if (status == MF_OK && uneven)
        return mf__fail(MF_ESTATE, "graph: the step %s gradients of %d tensors; forget those that it makes inside it (opt:step does, or zero_grad)",
                        g->gradients > 0 ? "leaves" : "takes", abs(g->gradients));
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
    forget(g);
    mf_ctx_release(g->ctx);
    free(g);
}

mf_status mf__graph_holds(mf_ctx *ctx, struct mf_storage *s) {
    mf_graph *g = ctx->graph;
    if (!g || s->id >= g->first_id || s->graph == g) return MF_OK;
    if (g->n_held == g->held_capacity) {
        const int64_t capacity = g->held_capacity ? 2 * g->held_capacity : 256;
        struct mf_storage **held = realloc(g->held, (size_t)capacity * sizeof *held);
        if (!held) return mf__fail(MF_ENOMEM, "graph: out of memory");
        g->held = held;
        g->held_capacity = capacity;
    }
    s->graph = g;
    s->references++;
    g->held[g->n_held++] = s;
    return MF_OK;
}

mf_status mf__graph_holds_packing(mf_ctx *ctx, const mf_packing *packing) {
    mf_graph *g = ctx->graph;
    if (!g) return MF_OK;
    for (int64_t i = 0; i < g->n_packings; i++)
        if (g->packings[i] == packing) return MF_OK;
    mf_packing **packings = realloc(g->packings, (size_t)(g->n_packings + 1) * sizeof(mf_packing *));
    if (!packings) return mf__fail(MF_ENOMEM, "graph: out of memory");
    g->packings = packings;
    g->packings[g->n_packings++] = mf__packing_retain(packing);
    return MF_OK;
}

void mf__graph_gradient(mf_ctx *ctx, int change) {
    if (ctx->graph) ctx->graph->gradients += change;
}

int mf_graph_capturing(const mf_ctx *ctx) { return ctx->graph != NULL; }

mf_status mf__graph_draws(const mf_tensor *x, mf_rng *rng) {
    mf_graph *g = x->ctx->graph;
    if (!g) return MF_OK;
    if (x->device != g->device)
        return mf__fail(MF_ESTATE, "graph: random numbers on %s cannot be captured; make them on the captured device", x->device->name);
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
