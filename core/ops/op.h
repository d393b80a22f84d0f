/* op.h: what an operator is, and how one is applied and differentiated.
 *
 * A row of ops.def names an operator's forward, its backward and what backward needs. A public function fills
 * an mf_call and hands it to mf__run, which checks that inputs are usable and on one device, runs forward, and
 * records a node when an input requires a gradient:
 *
 *     mf_status mf_exp(mf_tensor **out, const mf_tensor *x) {
 *         return mf__run1(out, MF_OP_exp, (const mf_tensor *[]){x}, 1, NULL);
 *     }
 *     mf_status mf__exp_fwd(mf_call *c);        checks shapes, makes c->out[0], calls the kernel
 *     mf_status mf__exp_bwd(mf_grad_call *g);   makes g->din[0] from g->dout[0] and what was kept
 *
 * Inside forward and backward nothing is recorded: call public operators on tensors freely, and release
 * what they return. din[i] is an owned reference (a new tensor or mf_tensor_retain of one), its shape that of
 * in[i]; make it only where wanted[i]. On failure mf__run and the walk release whatever was already made. */
#ifndef MF_OPS_OP_H
#define MF_OPS_OP_H
#include "../tensor/tensor.h"
#include "kernels.h"

typedef struct mf_params {
    double f[4];
    int64_t i[2 * MF_MAX_DIMS];
    const mf_packing *packing;    /* the node keeps a reference */
    mf_rng rng;                   /* as it was before the draw */
} mf_params;

enum { MF__MAX_OUT = 16, MF__MAX_SAVED = 9 };

typedef struct mf_op mf_op;

typedef struct mf_call {
    const mf_op *op;
    mf_ctx *ctx;
    mf_device *device;
    int n_in, n_out;
    const mf_tensor *const *in;   /* borrowed; an absent optional input is NULL */
    mf_tensor *out[MF__MAX_OUT];  /* made by forward */
    mf_tensor *saved[MF__MAX_SAVED]; /* made by forward when `recording`: what backward needs beyond inputs and outputs */
    mf_params p;
    int recording;                /* a node will be made */
    unsigned keep;                /* of the row; forward may ask for less */
} mf_call;

typedef struct mf_grad_call {
    const mf_op *op;
    mf_ctx *ctx;
    mf_device *device;
    int n_in, n_out;
    mf_tensor *const *in;         /* without storage unless kept; NULL where the input was absent */
    mf_tensor *const *out;        /* without storage unless kept */
    mf_tensor *const *saved;
    const mf_tensor *const *dout; /* NULL where no gradient came (only for operators of several outputs) */
    mf_tensor **din;
    mf_tensor *const *into;       /* what came to input i so far, where nobody else sees it: backward may add to that and leave din[i] NULL */
    const unsigned char *wanted;
    const mf_params *p;
} mf_grad_call;

enum { KEEP_NONE = 0, KEEP_OUT = 1 << 16, KEEP_SAVED = 1 << 17 };  /* shapes are always kept */
#define KEEP_IN(i) (1 << (i))
#define KEEP_INS 0xffff

struct mf_op {
    const char *name;
    mf_status (*forward)(mf_call *c);
    mf_status (*backward)(mf_grad_call *g);  /* mf__no_bwd: not differentiable */
    unsigned keep;
};

enum mf__op_index {
#define OP(name, forward, backward, keep) MF_OP_##name,
#include "ops.def"
#undef OP
    MF__OP_COUNT
};
extern const mf_op mf__ops[MF__OP_COUNT];

#define OP(name, forward, backward, keep) mf_status forward(mf_call *c); mf_status backward(mf_grad_call *g);
#include "ops.def"
#undef OP
static inline int mf__differentiable(const mf_op *op) { return op->backward != mf__no_bwd; }

/* Applies an operator: n_out results into outs. `params` may be NULL. An optional input is NULL in `in`. */
mf_status mf__run(mf_tensor **outs, int n_out, int op, const mf_tensor *const *in, int n_in, const mf_params *params);
static inline mf_status mf__run1(mf_tensor **out, int op, const mf_tensor *const *in, int n_in, const mf_params *params) {
    return mf__run(out, 1, op, in, n_in, params);
}

/* The table of the call's device; `mf__kernels(x)` of a tensor's. */
static inline const mf_backend *mf__kernels(const mf_tensor *x) { return x->device->backend; }

/* Sums g over the axes along which a tensor shaped like `like` was broadcast to g's shape. New reference. */
mf_status mf__sum_to(mf_tensor **out, const mf_tensor *g, const mf_tensor *like);
/* The broadcast shape of two tensors, or MF_ESHAPE naming op and both shapes. */
mf_status mf__broadcast_shape(int *ndim, int64_t *shape, const char *op, const mf_tensor *a, const mf_tensor *b);
/* An iteration over tensors broadcast to `shape` (operand 0 is the result), axes merged where strides allow. */
void mf__iter_make(mf_iter *it, int ndim, const int64_t *shape, const mf_tensor *const *operands, int n);
/* Views x as (outer, middle, inner) around `axis`. */
static inline void mf__around(const mf_tensor *x, int axis, int64_t *outer, int64_t *middle, int64_t *inner) {
    *outer = mf__count(axis, x->shape);
    *middle = x->shape[axis];
    *inner = mf__count(x->ndim - axis - 1, x->shape + axis + 1);
}
/* Checks that x (N, ...) fits the packing: MF_ESHAPE otherwise. */
mf_status mf__fits(const char *op, const mf_tensor *x, const mf_packing *packing);
#endif
