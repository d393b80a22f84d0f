/* walk.c: the backward pass.
 *
 * Nodes wait in a heap ordered by when they were recorded; the latest is differentiated next, its gradients go
 * along its edges, and what it kept is freed. A host's function stops the walk: the host looks at the cotangents,
 * gives the gradients, and steps on, so C never calls into the host. A host may run another walk meanwhile
 * (checkpointing does); a node waiting in one walk refuses to be walked by another. */
#include "../base/memory.h"
#include "tape.h"
#include "../base/graph.h"
#include <stdlib.h>
#include <string.h>

struct mf_walk {
    mf_ctx *ctx;
    int retain;
    int failed;                   /* gradients were lost on the way: it cannot go on */
    mf_node **heap;               /* the largest order first; each entry holds a reference */
    int64_t n, capacity;
    mf_node *stopped;             /* the host's function being differentiated */
    mf_tensor **given;            /* its gradients, n_in of them */
};

static mf_status heap_push(mf_walk *w, mf_node *node) {
    if (w->n == w->capacity) {
        int64_t capacity = w->capacity ? 2 * w->capacity : 64;
        mf_node **grown = mf__may_allocate(w->ctx) ? realloc(w->heap, (size_t)capacity * sizeof *grown) : NULL;
        if (!grown) return mf__fail(MF_ENOMEM, "backward: out of memory");
        w->heap = grown;
        w->capacity = capacity;
    }
    int64_t i = w->n++;
    for (; i > 0 && w->heap[(i - 1) / 2]->order < node->order; i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = node;
    node->references++;
    return MF_OK;
}

static mf_node *heap_pop(mf_walk *w) {
    mf_node *top = w->heap[0], *last = w->heap[--w->n];
    int64_t i = 0;
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= w->n) break;
        if (child + 1 < w->n && w->heap[child + 1]->order > w->heap[child]->order) child++;
        if (w->heap[child]->order <= last->order) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    if (w->n > 0) w->heap[i] = last;
    return top;
}

/* Nobody else can see it change. */
static int is_private(const mf_tensor *x) {
    return x->references == 1 && x->storage && x->storage->references == 1 && mf_tensor_contiguous(x);
}

/* *slot += gradient, taking over the reference to `gradient`, also on failure. In place where it is private. */
static mf_status accumulate(mf_tensor **slot, mf_tensor *gradient) {
    mf_tensor *sum = *slot;
    if (!sum) {
        *slot = gradient;
        return MF_OK;
    }
    mf_status status;
    if (is_private(sum)) {
        status = mf_tensor_axpy(sum, 1.0, gradient);
    } else {
        mf_tensor *fresh;
        status = mf_add(&fresh, sum, gradient);
        if (status == MF_OK) {
            mf_tensor_release(sum);
            *slot = fresh;
        }
    }
    mf_tensor_release(gradient);
    return status;
}

static mf_status wait_for(mf_walk *w, mf_node *node) {
    if (node->spent)
        return mf__fail(MF_ESTATE, "backward: the graph was already walked and freed; give retain to walk it twice");
    if (node->walk == w) return MF_OK;
    if (node->walk)
        return mf__fail(MF_ESTATE, "backward: a function being differentiated uses a tensor from outside that has a history; "
                        "pass it as an argument");
    mf_tensor **cotangent = mf__host_alloc(w->ctx, (size_t)node->n_out * sizeof *cotangent);
    if (!cotangent) return MF_ENOMEM;
    memset(cotangent, 0, (size_t)node->n_out * sizeof *cotangent);
    mf_status status = heap_push(w, node);
    if (status != MF_OK) {
        free(cotangent);
        return status;
    }
    node->walk = w;
    node->cotangent = cotangent;
    return MF_OK;
}

/* A leaf's gradient is its own plain array: optimizers read it as one, users write to it, and a view would keep all of what
 * it is a part of. Takes over the reference. */
static mf_status deliver_to_leaf(mf_tensor *leaf, mf_tensor *gradient) {
    if (leaf->grad && leaf->grad->storage) return accumulate(&leaf->grad, gradient);
    mf_tensor_release(leaf->grad);            /* values that the user released count for nothing */
    leaf->grad = NULL;
    mf__graph_gradient(leaf->ctx, 1);
    if (is_private(gradient)) {
        leaf->grad = gradient;
        return MF_OK;
    }
    mf_status status = mf__new_like(&leaf->grad, gradient);
    if (status == MF_OK) {
        status = mf_tensor_copy(leaf->grad, gradient);
        if (status != MF_OK) {
            mf_tensor_release(leaf->grad);
            leaf->grad = NULL;
        }
    }
    mf_tensor_release(gradient);
    return status;
}

/* Sends a gradient along an edge; takes over the reference. */
static mf_status deliver(mf_walk *w, const mf_edge *e, mf_tensor *gradient) {
    if (e->leaf) return deliver_to_leaf(e->leaf, gradient);
    mf_status status = e->node ? wait_for(w, e->node) : MF_OK;
    if (!e->node || status != MF_OK) {
        mf_tensor_release(gradient);
        return status;
    }
    return accumulate(&e->node->cotangent[e->slot], gradient);
}

static void leave(mf_node *node) {
    for (int i = 0; node->cotangent && i < node->n_out; i++) mf_tensor_release(node->cotangent[i]);
    free(node->cotangent);
    node->cotangent = NULL;
    node->walk = NULL;
    mf__node_release(node);
}

static mf_status check_versions(const mf_node *n) {
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        const mf_tensor *x = i < n->n_in ? n->in[i] : n->out[i - n->n_in];
        if (x && x->storage && x->storage->version != n->versions[i])
            return mf__fail(MF_ESTATE, "backward: %s %d %s of %s was written in place by %s after it was recorded; clone it first",
                            i < n->n_in ? "input" : "output", i < n->n_in ? i + 1 : i - n->n_in + 1, mf__shape(x).text, n->op->name,
                            x->storage->writer);
    }
    return MF_OK;
}

static mf_status distribute(mf_walk *w, mf_node *n, mf_tensor **din) {
    mf_status status = MF_OK;
    for (int i = 0; i < n->n_in; i++) {
        if (!din[i]) continue;
        if (status == MF_OK) status = deliver(w, &n->edges[i], din[i]);
        else mf_tensor_release(din[i]);
        din[i] = NULL;
    }
    return status;
}

static mf_status differentiate(mf_walk *w, mf_node *n) {
    MF_TRY(check_versions(n));
    mf_tensor **din = mf__host_alloc(w->ctx, (size_t)n->n_in * (2 * sizeof *din + 1));
    if (!din) return MF_ENOMEM;
    mf_tensor **into = din + n->n_in;
    unsigned char *wanted = (unsigned char *)(into + n->n_in);
    for (int i = 0; i < n->n_in; i++) {
        const mf_edge *e = &n->edges[i];
        mf_tensor *sum = e->node && e->node->cotangent ? e->node->cotangent[e->slot] : NULL;
        din[i] = NULL;
        into[i] = sum && is_private(sum) ? sum : NULL;
        wanted[i] = e->node || e->leaf;
    }
    mf_grad_call g = {.op = n->op, .ctx = n->ctx, .device = n->device, .n_in = n->n_in, .n_out = n->n_out, .in = n->in, .out = n->out,
                      .saved = n->saved, .dout = (const mf_tensor *const *)n->cotangent, .din = din, .into = into, .wanted = wanted, .p = &n->p};
    int before = mf_grad_enable(w->ctx, 0);
    mf_status status = n->op->backward(&g);
    if (status == MF_OK) {
        status = distribute(w, n, din);
    } else {
        for (int i = 0; i < n->n_in; i++) mf_tensor_release(din[i]);
    }
    mf_grad_enable(w->ctx, before);
    free(din);
    return status;
}

static mf_status same_device(const char *what, const mf_tensor *gradient, const mf_tensor *x) {
    if (gradient->device == x->device) return MF_OK;
    return mf__fail(MF_EDEVICE, "backward: %s is on %s, the tensor on %s; move it with :to", what, gradient->device->name,
                    x->device->name);
}

mf_status mf_walk_begin(mf_walk **out, const mf_tensor *root, const mf_tensor *cotangent, int retain) {
    *out = NULL;
    MF_TRY(mf__usable("backward", root));
    if (!root->requires_grad)
        return mf__fail(MF_ESTATE, "backward: this tensor does not depend on anything that requires a gradient");
    mf_tensor *seed = NULL;
    if (cotangent) {
        MF_TRY(mf__usable("backward", cotangent));
        if (cotangent->dtype != root->dtype || cotangent->ndim != root->ndim ||
            memcmp(cotangent->shape, root->shape, (size_t)root->ndim * sizeof *root->shape))
            return mf__fail(MF_ESHAPE, "backward: cotangent %s %s for a tensor %s %s", mf__shape(cotangent).text,
                            mf_dtype_name(cotangent->dtype), mf__shape(root).text, mf_dtype_name(root->dtype));
        MF_TRY(same_device("the cotangent", cotangent, root));
        MF_TRY(mf__alias(&seed, cotangent));
    } else {
        if (mf_tensor_count(root) != 1)
            return mf__fail(MF_ESHAPE, "backward: shape %s is not a scalar; give a cotangent of that shape", mf__shape(root).text);
        MF_TRY(mf__new_like(&seed, root));
        mf_status status = mf_tensor_fill(seed, 1);
        if (status != MF_OK) { mf_tensor_release(seed); return status; }
    }
    mf_walk *w = mf__host_alloc(root->ctx, sizeof *w);
    if (!w) { mf_tensor_release(seed); return MF_ENOMEM; }
    *w = (mf_walk){.ctx = mf__ctx_retain(root->ctx), .retain = retain};
    mf_edge e = {.node = root->node, .slot = root->slot, .leaf = root->node ? NULL : (mf_tensor *)root};
    int before = mf_grad_enable(w->ctx, 0);
    mf_status status = deliver(w, &e, seed);
    mf_grad_enable(w->ctx, before);
    if (status != MF_OK) { mf_walk_end(w); return status; }
    *out = w;
    return MF_OK;
}

static mf_status resume(mf_walk *w) {
    mf_node *n = w->stopped;
    int before = mf_grad_enable(w->ctx, 0);
    mf_status status = distribute(w, n, w->given);
    mf_grad_enable(w->ctx, before);
    if (status == MF_OK && !w->retain) mf__node_spend(n);
    free(w->given);
    w->given = NULL;
    w->stopped = NULL;
    leave(n);
    return status;
}

static mf_status step(mf_walk *w, int64_t *function) {
    if (w->stopped) MF_TRY(resume(w));
    while (w->n > 0) {
        mf_node *n = heap_pop(w);
        if (!n->op) {
            w->given = mf__host_alloc(w->ctx, (size_t)n->n_in * sizeof *w->given);
            if (!w->given) { leave(n); return MF_ENOMEM; }
            memset(w->given, 0, (size_t)n->n_in * sizeof *w->given);
            w->stopped = n;
            *function = n->function;
            return MF_OK;
        }
        mf_status status = differentiate(w, n);
        if (status == MF_OK && !w->retain) mf__node_spend(n);
        leave(n);
        if (status != MF_OK) return status;
    }
    return MF_OK;
}

mf_status mf_walk_step(mf_walk *w, int64_t *function) {
    *function = 0;
    if (w->failed) return mf__fail(MF_ESTATE, "backward: this pass has failed; begin another");
    mf_status status = step(w, function);
    w->failed = status != MF_OK;
    return status;
}

const mf_tensor *mf_walk_cotangent(const mf_walk *w, int output) {
    return w->stopped && output >= 0 && output < w->stopped->n_out ? w->stopped->cotangent[output] : NULL;
}

mf_status mf_walk_give(mf_walk *w, int input, const mf_tensor *gradient) {
    mf_node *n = w->stopped;
    if (!n) return mf__fail(MF_ESTATE, "backward: no function is waiting for its gradients");
    if (input < 0 || input >= n->n_in) return mf__fail(MF_EVALUE, "backward: the function has %d inputs, not %d", n->n_in, input + 1);
    if (!gradient || (!n->edges[input].node && !n->edges[input].leaf)) return MF_OK;
    MF_TRY(mf__usable("backward", gradient));
    const mf_tensor *x = n->in[input];
    if (gradient->dtype != x->dtype || gradient->ndim != x->ndim || memcmp(gradient->shape, x->shape, (size_t)x->ndim * sizeof *x->shape))
        return mf__fail(MF_ESHAPE, "backward: the function gave a gradient %s %s for its input %d %s %s", mf__shape(gradient).text,
                        mf_dtype_name(gradient->dtype), input + 1, mf__shape(x).text, mf_dtype_name(x->dtype));
    MF_TRY(same_device("the function's gradient", gradient, x));
    mf_tensor *alias;
    MF_TRY(mf__alias(&alias, gradient));
    mf_tensor_release(w->given[input]);
    w->given[input] = alias;
    return MF_OK;
}

void mf_walk_end(mf_walk *w) {
    if (!w) return;
    if (w->stopped) {
        for (int i = 0; i < w->stopped->n_in; i++) mf_tensor_release(w->given[i]);
        free(w->given);
        leave(w->stopped);
    }
    while (w->n > 0) leave(heap_pop(w));
    free(w->heap);
    mf_ctx *ctx = w->ctx;
    free(w);
    mf_ctx_release(ctx);
}
