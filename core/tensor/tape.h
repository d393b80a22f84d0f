/* tape.h: the record of operations.
 *
 * Each recorded operation is a node. Nodes are counted and owned by the tensors they made and by later nodes, so a
 * forward pass whose results nobody keeps frees itself; there is no tape to reset, and several graphs may live side
 * by side. (A flat array of records was the first design; it kept every forward pass alive until someone cleared
 * it.) `order` grows with time, so the largest order among the nodes waiting is always safe to differentiate next:
 *
 *     x --\                          edges point from a node to what made its inputs
 *          mul(1) --> exp(2) --> sum(3) = loss       walk: 3, 2, 1, then x and w accumulate
 *     w --/                          each node's kept tensors are freed as the walk passes
 *
 * Kept tensors are aliases without history, with the version their storage had: a later write in place is found
 * when backward needs them. Inputs and outputs that backward does not need are kept as bare shapes. */
#ifndef MF_TENSOR_TAPE_H
#define MF_TENSOR_TAPE_H
#include "../ops/op.h"

typedef struct mf_edge {          /* where the gradient of one input goes: a node's output, a leaf, or nowhere */
    mf_node *node;
    int slot;
    mf_tensor *leaf;
} mf_edge;

struct mf_node {
    int64_t references;
    int64_t order;
    const mf_op *op;              /* NULL: a differentiable function of the host */
    int64_t function;             /* its id then */
    mf_ctx *ctx;
    mf_device *device;
    int n_in, n_out;
    mf_edge *edges;               /* n_in */
    mf_tensor **in, **out;        /* kept aliases or bare shapes; NULL where an optional input was absent */
    int64_t *versions;            /* n_in + n_out: of the storages kept */
    mf_tensor *saved[MF__MAX_SAVED];
    mf_params p;
    int spent;                    /* a walk has passed and freed what was kept */
    mf_walk *walk;                /* the pass this node is waiting in */
    mf_tensor **cotangent;        /* n_out, while it waits */
    mf_node *next_free;
};

void mf__node_release(mf_node *node);     /* NULL is a no-op; never recursive however long the graph */
void mf__node_spend(mf_node *node);       /* frees what it kept and the graph behind it */
/* Records one application whose results are in c->out. The results then point at the node. */
mf_status mf__record(mf_call *c);
#endif
