/* tape.c: recording operations. The backward pass is in walk.c. */
#include "tape.h"
#include "../base/graph.h"
#include <stdlib.h>
#include <string.h>

static int wants_gradient(const mf_tensor *x) { return x && x->requires_grad; }

/* Frees what backward would have needed; the node itself stays while somebody points at it. */
static void node_free_kept(mf_node *n) {
    for (int i = 0; i < n->n_in; i++) {
        mf_tensor_release(n->in[i]);
        n->in[i] = NULL;
    }
    for (int i = 0; i < n->n_out; i++) {
        mf_tensor_release(n->out[i]);
        n->out[i] = NULL;
    }
    for (int i = 0; i < MF__MAX_SAVED; i++) {
        mf_tensor_release(n->saved[i]);
        n->saved[i] = NULL;
    }
    mf_packing_release((mf_packing *)n->p.packing);
    n->p.packing = NULL;
}

static void report_dropped(mf_ctx *ctx, int64_t function) {
    if (ctx->n_dropped == ctx->dropped_capacity) {
        int64_t capacity = ctx->dropped_capacity ? 2 * ctx->dropped_capacity : 16;
        int64_t *grown = realloc(ctx->dropped, (size_t)capacity * sizeof *grown);
        if (!grown) return;       /* the host keeps one table entry too long; nothing else is lost */
        ctx->dropped = grown;
        ctx->dropped_capacity = capacity;
    }
    ctx->dropped[ctx->n_dropped++] = function;
}

int64_t mf_function_dropped(mf_ctx *ctx) { return ctx->n_dropped > 0 ? ctx->dropped[--ctx->n_dropped] : 0; }

static void free_edges(mf_node *n, mf_node **pending) {
    for (int i = 0; i < n->n_in; i++) {
        mf_edge *e = &n->edges[i];
        mf_tensor_release(e->leaf);           /* a leaf has no node: no recursion */
        if (e->node && --e->node->references == 0) {
            e->node->next_free = *pending;
            *pending = e->node;
        }
        *e = (mf_edge){0};
    }
}

static void free_nodes(mf_node *pending) {
    while (pending) {
        mf_node *n = pending;
        pending = n->next_free;
        node_free_kept(n);
        free_edges(n, &pending);
        mf_ctx *ctx = n->ctx;
        if (n->function) report_dropped(ctx, n->function);
        free(n->cotangent);
        free(n);
        mf_ctx_release(ctx);
    }
}

void mf__node_release(mf_node *node) {
    if (!node || --node->references > 0) return;
    node->next_free = NULL;
    free_nodes(node);
}

/* After a walk has passed: nothing can be differentiated through this node again, so the graph behind it may go. */
void mf__node_spend(mf_node *n) {
    mf_node *pending = NULL;
    node_free_kept(n);
    free_edges(n, &pending);
    n->spent = 1;
    free_nodes(pending);
}

/* One block: the node, its edges, its kept pointers and their versions. */
static mf_node *node_new(mf_ctx *ctx, mf_device *device, int n_in, int n_out) {
    size_t edges = sizeof(mf_node), in = edges + (size_t)n_in * sizeof(mf_edge);
    size_t out = in + (size_t)n_in * sizeof(mf_tensor *), versions = out + (size_t)n_out * sizeof(mf_tensor *);
    size_t bytes = versions + (size_t)(n_in + n_out) * sizeof(int64_t);
    char *block = mf__host_alloc(ctx, bytes);
    if (!block) return NULL;
    memset(block, 0, bytes);
    mf_node *n = (mf_node *)block;
    n->order = ctx->next_id++;
    n->ctx = mf__ctx_retain(ctx);
    n->device = device;
    n->n_in = n_in;
    n->n_out = n_out;
    n->edges = (mf_edge *)(void *)(block + edges);
    n->in = (mf_tensor **)(void *)(block + in);
    n->out = (mf_tensor **)(void *)(block + out);
    n->versions = (int64_t *)(void *)(block + versions);
    return n;
}

static mf_status keep(mf_tensor **kept, int64_t *version, const mf_tensor *x, int values) {
    if (!x) return MF_OK;
    MF_TRY(values ? mf__alias(kept, x) : mf__shape_only(kept, x));
    if (values) *version = x->storage->version;
    return MF_OK;
}

static void connect(mf_edge *e, const mf_tensor *x) {
    if (!wants_gradient(x)) return;
    if (x->node) {
        e->node = x->node;
        e->node->references++;
        e->slot = x->slot;
    } else {
        e->leaf = mf_tensor_retain((mf_tensor *)x);
    }
}

static void attach(mf_node *n, mf_tensor *x, int slot) {
    if (!x || !mf__is_float(x->dtype)) return;  /* index results carry no gradient */
    x->node = n;
    x->slot = slot;
    x->requires_grad = 1;
    n->references++;
}

mf_status mf__record(mf_call *c) {
    mf_node *n = node_new(c->ctx, c->device, c->n_in, c->n_out);
    if (!n) return MF_ENOMEM;
    unsigned keeps = c->keep;
    mf_status status = MF_OK;
    n->op = c->op;
    n->p = c->p;
    n->p.packing = mf__packing_retain(c->p.packing);
    for (int i = 0; i < c->n_in && status == MF_OK; i++)
        status = keep(&n->in[i], &n->versions[i], c->in[i], (keeps & KEEP_INS) >> (i < 15 ? i : 15) & 1);
    for (int i = 0; i < c->n_out && status == MF_OK; i++)
        status = keep(&n->out[i], &n->versions[c->n_in + i], c->out[i], (keeps & KEEP_OUT) != 0);
    n->references = 1;
    if (status == MF_OK) {
        for (int i = 0; i < c->n_in; i++) connect(&n->edges[i], c->in[i]);
        for (int i = 0; i < c->n_out; i++) attach(n, c->out[i], i);
        for (int i = 0; i < MF__MAX_SAVED; i++) {
            n->saved[i] = c->saved[i];
            c->saved[i] = NULL;
        }
    }
    mf__node_release(n);
    return status;
}

mf_status mf_function_record(mf_ctx *ctx, int64_t *id, const mf_tensor *const *in, int n_in, mf_tensor *const *out, int n_out) {
    *id = 0;
    for (int i = 0; i < n_out; i++) {
        MF_TRY(mf__usable("function", out[i]));
        if (out[i]->node || out[i]->requires_grad)
            return mf__fail(MF_ESTATE, "function: output %d already has a history; compute it under no_grad or detach it", i + 1);
        for (int j = 0; j < i; j++)
            if (out[j] == out[i]) return mf__fail(MF_ESTATE, "function: outputs %d and %d are one tensor; return a detached view", j + 1, i + 1);
        for (int j = 0; j < n_in; j++)
            if (in[j] == out[i]) return mf__fail(MF_ESTATE, "function: output %d is input %d itself; return a detached view", i + 1, j + 1);
    }
    if (!ctx->grad_enabled || n_out == 0) return MF_OK;
    mf_node *n = node_new(ctx, out[0]->device, n_in, n_out);
    if (!n) return MF_ENOMEM;
    mf_status status = MF_OK;
    for (int i = 0; i < n_in && status == MF_OK; i++) status = keep(&n->in[i], &n->versions[i], in[i], 0);
    for (int i = 0; i < n_out && status == MF_OK; i++) status = keep(&n->out[i], &n->versions[n_in + i], out[i], 0);
    n->references = 1;
    if (status == MF_OK) {
        *id = n->function = ctx->next_function++;
        for (int i = 0; i < n_in; i++) connect(&n->edges[i], in[i]);
        for (int i = 0; i < n_out; i++) attach(n, out[i], i);
    }
    mf__node_release(n);
    return status;
}

/* ---- what the public API says of gradients ---- */

int mf_tensor_requires_grad(const mf_tensor *x) { return x->requires_grad; }

mf_status mf_tensor_require_grad(mf_tensor *x, int required) {
    MF_TRY(mf__usable("require_grad", x));
    if (x->node) return mf__fail(MF_ESTATE, "require_grad: this tensor is the result of an operation; detach it first");
    if (required && !mf__is_float(x->dtype))
        return mf__fail(MF_EDTYPE, "require_grad: %s has no gradient, expected a floating type", mf_dtype_name(x->dtype));
    x->requires_grad = required != 0;
    return MF_OK;
}

mf_status mf_tensor_grad(mf_tensor **out, const mf_tensor *x) {
    *out = x->grad && x->grad->storage ? mf_tensor_retain(x->grad) : NULL;   /* its values may have been released */
    return MF_OK;
}

mf_status mf_tensor_set_grad(mf_tensor *x, const mf_tensor *grad) {
    if (grad) {
        MF_TRY(mf__usable("set_grad", grad));
        if (grad->dtype != x->dtype || grad->ndim != x->ndim || memcmp(grad->shape, x->shape, (size_t)x->ndim * sizeof *x->shape))
            return mf__fail(MF_ESHAPE, "set_grad: gradient %s %s for a tensor %s %s", mf__shape(grad).text, mf_dtype_name(grad->dtype),
                            mf__shape(x).text, mf_dtype_name(x->dtype));
        if (grad->device != x->device) return mf__fail(MF_EDEVICE, "set_grad: the gradient is on another device than the tensor");
    }
    mf_tensor *kept = NULL;
    if (grad) MF_TRY(mf__alias(&kept, grad));
    mf__graph_gradient(x->ctx, (kept != NULL) - (x->grad && x->grad->storage));
    mf_tensor_release(x->grad);
    x->grad = kept;
    return MF_OK;
}

mf_status mf_detach(mf_tensor **out, const mf_tensor *x) {
    *out = NULL;
    MF_TRY(mf__usable("detach", x));
    return mf__alias(out, x);
}
