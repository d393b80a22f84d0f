/* norm.c: softmax and log softmax along any axis, layer normalisation over the last.
 *
 *     softmax      y = exp(x) / sum exp(x)       dx = y (dy - sum y dy)
 *     log_softmax  y = x - log sum exp(x)        dx = dy - exp(y) sum dy
 *     layer_norm   y = (x - mean) rstd w + b     equations in cpu/norm.c; mean and rstd of each row are saved */
#include "op.h"

enum { AXIS = 0 };

static mf_status check_real(const char *op, const mf_tensor *x) {
    if (mf__is_real(x->dtype)) return MF_OK;
    return mf__fail(MF_EDTYPE, "%s: %s, float32 or float64 expected", op, mf_dtype_name(x->dtype));
}

mf_status mf__softmax_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    int axis;
    int64_t outer, middle, inner;
    MF_TRY(mf__axis(&axis, c->op->name, x, (int)c->p.i[AXIS]));
    MF_TRY(check_real(c->op->name, x));
    c->p.i[AXIS] = axis;
    mf__around(x, axis, &outer, &middle, &inner);
    mf_tensor *flat;
    MF_TRY(mf__contiguous(&flat, x));
    mf_status status = mf__new_like(&c->out[0], x);
    if (status == MF_OK)
        status = mf__kernels(x)->softmax(x->device, x->dtype, outer, middle, inner, mf__data(flat), mf__data(c->out[0]),
                                         c->op == &mf__ops[MF_OP_log_softmax]);
    mf_tensor_release(flat);
    return status;
}

mf_status mf__softmax_bwd(mf_grad_call *g) {
    const mf_tensor *y = g->out[0];
    int64_t outer, middle, inner;
    mf__around(y, (int)g->p->i[AXIS], &outer, &middle, &inner);
    mf_tensor *dy;
    MF_TRY(mf__contiguous(&dy, g->dout[0]));
    mf_status status = mf__new_like(&g->din[0], y);
    if (status == MF_OK)
        status = mf__kernels(y)->softmax_grad(g->device, y->dtype, outer, middle, inner, mf__data(y), mf__data(dy), mf__data(g->din[0]),
                                              g->op == &mf__ops[MF_OP_log_softmax]);
    mf_tensor_release(dy);
    return status;
}

static mf_status check_affine(const char *what, const mf_tensor *w, const mf_tensor *x) {
    if (!w) return MF_OK;
    const int64_t columns = x->shape[x->ndim - 1];
    if (w->dtype != x->dtype)
        return mf__fail(MF_EDTYPE, "layer_norm: %s is %s, x is %s", what, mf_dtype_name(w->dtype), mf_dtype_name(x->dtype));
    if (w->ndim != 1 || w->shape[0] != columns)
        return mf__fail(MF_ESHAPE, "layer_norm: %s %s must be (%lld), the last axis of x %s", what, mf__shape(w).text, (long long)columns,
                        mf__shape(x).text);
    return MF_OK;
}

/* An absent input stays NULL. */
static mf_status contiguous_or_null(mf_tensor **out, const mf_tensor *x) {
    *out = NULL;
    return x ? mf__contiguous(out, x) : MF_OK;
}
static void *data_or_null(const mf_tensor *x) { return x ? mf__data(x) : NULL; }

mf_status mf__layer_norm_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    MF_TRY(mf__usable("layer_norm", x));
    MF_TRY(check_real("layer_norm", x));
    if (x->ndim == 0) return mf__fail(MF_ESHAPE, "layer_norm: x () has no axis to normalise");
    MF_TRY(check_affine("weight", c->in[1], x));
    MF_TRY(check_affine("bias", c->in[2], x));
    const int64_t columns = x->shape[x->ndim - 1], rows = mf__count(x->ndim - 1, x->shape);
    mf_tensor *flat = NULL, *weight = NULL, *bias = NULL;
    mf_status status;
    MF_TRY_OUT(mf__contiguous(&flat, x));
    MF_TRY_OUT(contiguous_or_null(&weight, c->in[1]));
    MF_TRY_OUT(contiguous_or_null(&bias, c->in[2]));
    MF_TRY_OUT(mf__new_like(&c->out[0], x));
    for (int i = 0; i < 2; i++) MF_TRY_OUT(mf__new(&c->saved[i], x->device, x->dtype, 1, &rows));
    status = mf__kernels(x)->layer_norm(x->device, x->dtype, rows, columns, mf__data(flat), data_or_null(weight), data_or_null(bias), c->p.f[0],
                                        mf__data(c->out[0]), mf__data(c->saved[0]), mf__data(c->saved[1]));
out:
    mf_tensor_release(flat);
    mf_tensor_release(weight);
    mf_tensor_release(bias);
    return status;
}

mf_status mf__layer_norm_bwd(mf_grad_call *g) {
    const mf_tensor *x = g->in[0];
    const int64_t columns = x->shape[x->ndim - 1], rows = mf__count(x->ndim - 1, x->shape);
    const int affine = g->wanted[1] || g->wanted[2];
    mf_tensor *flat = NULL, *weight = NULL, *dy = NULL, *dweight = NULL, *dbias = NULL;
    mf_status status;
    MF_TRY_OUT(mf__contiguous(&flat, x));
    MF_TRY_OUT(contiguous_or_null(&weight, g->in[1]));
    MF_TRY_OUT(mf__contiguous(&dy, g->dout[0]));
    if (g->wanted[0]) MF_TRY_OUT(mf__new_like(&g->din[0], x));
    if (affine) MF_TRY_OUT(mf__new(&dweight, g->device, x->dtype, 1, &columns));
    if (affine) MF_TRY_OUT(mf__new(&dbias, g->device, x->dtype, 1, &columns));
    status = mf__kernels(x)->layer_norm_grad(g->device, x->dtype, rows, columns, mf__data(dy), mf__data(flat), data_or_null(weight),
                                             mf__data(g->saved[0]), mf__data(g->saved[1]), data_or_null(g->din[0]), data_or_null(dweight),
                                             data_or_null(dbias));
    if (status == MF_OK && g->wanted[1]) g->din[1] = mf_tensor_retain(dweight);
    if (status == MF_OK && g->wanted[2]) g->din[2] = mf_tensor_retain(dbias);
out:
    mf_tensor_release(flat);
    mf_tensor_release(weight);
    mf_tensor_release(dy);
    mf_tensor_release(dweight);
    mf_tensor_release(dbias);
    return status;
}

mf_status mf_softmax(mf_tensor **out, const mf_tensor *x, int axis) {
    return mf__run1(out, MF_OP_softmax, &x, 1, &(mf_params){.i = {[AXIS] = axis}});
}

mf_status mf_log_softmax(mf_tensor **out, const mf_tensor *x, int axis) {
    return mf__run1(out, MF_OP_log_softmax, &x, 1, &(mf_params){.i = {[AXIS] = axis}});
}

/* weight and bias may be NULL: 1 and 0. */
mf_status mf_layer_norm(mf_tensor **out, const mf_tensor *x, const mf_tensor *weight, const mf_tensor *bias, double epsilon) {
    return mf__run1(out, MF_OP_layer_norm, (const mf_tensor *[]){x, weight, bias}, 3, &(mf_params){.f = {epsilon}});
}
