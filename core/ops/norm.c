/* norm.c: softmax and log softmax along any axis, layer normalisation over the last.
 *
 *     softmax      y = exp(x) / sum exp(x)       dx = y (dy - sum y dy)
 *     log_softmax  y = x - log sum exp(x)        dx = dy - exp(y) sum dy
 *     layer_norm   y = (x - mean) rstd w + b     equations in cpu/norm.c; mean and rstd of each row are saved
 *     add_layer_norm   the same of x = a + m b, which is never stored: backward adds a and b again. Without a mask m the
 *                      gradients of a and b are one tensor */
#include "op.h"
#include <string.h>

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

static mf_status check_affine(const char *op, const char *what, const mf_tensor *w, const mf_tensor *x) {
    if (!w) return MF_OK;
    const int64_t columns = x->shape[x->ndim - 1];
    if (w->dtype != x->dtype)
        return mf__fail(MF_EDTYPE, "%s: %s is %s, x is %s", op, what, mf_dtype_name(w->dtype), mf_dtype_name(x->dtype));
    if (w->ndim != 1 || w->shape[0] != columns)
        return mf__fail(MF_ESHAPE, "%s: %s %s must be (%lld), the last axis of x %s", op, what, mf__shape(w).text, (long long)columns,
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
    MF_TRY(check_affine("layer_norm", "weight", c->in[1], x));
    MF_TRY(check_affine("layer_norm", "bias", c->in[2], x));
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

/* ---- layer norm of a sum ---- */
enum { A, B, ROW_MASK, WEIGHT, BIAS, ADD_INPUTS };

static mf_status check_addend(const mf_call *c) {
    const mf_tensor *a = c->in[A], *b = c->in[B], *mask = c->in[ROW_MASK];
    MF_TRY(mf__usable("add_layer_norm", a));
    MF_TRY(mf__usable("add_layer_norm", b));
    MF_TRY(check_real("add_layer_norm", a));
    if (a->ndim == 0) return mf__fail(MF_ESHAPE, "add_layer_norm: x () has no axis to normalise");
    if (b->dtype != a->dtype)
        return mf__fail(MF_EDTYPE, "add_layer_norm: %s to be added to %s", mf_dtype_name(b->dtype), mf_dtype_name(a->dtype));
    if (b->ndim != a->ndim || memcmp(b->shape, a->shape, (size_t)a->ndim * sizeof *a->shape))
        return mf__fail(MF_ESHAPE, "add_layer_norm: %s cannot be added to %s, the shapes must be equal", mf__shape(b).text, mf__shape(a).text);
    MF_TRY(check_affine("add_layer_norm", "weight", c->in[WEIGHT], a));
    MF_TRY(check_affine("add_layer_norm", "bias", c->in[BIAS], a));
    if (!mask) return MF_OK;
    const int64_t rows = mf__count(a->ndim - 1, a->shape);
    if (mask->dtype != a->dtype)
        return mf__fail(MF_EDTYPE, "add_layer_norm: mask is %s, x is %s", mf_dtype_name(mask->dtype), mf_dtype_name(a->dtype));
    if (mf_tensor_count(mask) != rows)
        return mf__fail(MF_ESHAPE, "add_layer_norm: mask %s must have %lld elements, one for each row of x %s", mf__shape(mask).text,
                        (long long)rows, mf__shape(a).text);
    if (mask->requires_grad && c->recording)
        return mf__fail(MF_ESUPPORT, "add_layer_norm: the mask takes no gradient; detach it");
    return MF_OK;
}

/* Fills in what both passes read; *flat owns it. */
static mf_status add_norm_args(mf_add_norm_args *args, mf_tensor **flat, const mf_tensor *const *in) {
    for (int i = 0; i < ADD_INPUTS; i++) MF_TRY(contiguous_or_null(&flat[i], in[i]));
    const mf_tensor *a = in[A];
    *args = (mf_add_norm_args){.dtype = a->dtype, .rows = mf__count(a->ndim - 1, a->shape), .columns = a->shape[a->ndim - 1], .a = mf__data(flat[A]),
                               .b = mf__data(flat[B]), .mask = data_or_null(flat[ROW_MASK]), .weight = data_or_null(flat[WEIGHT]),
                               .bias = data_or_null(flat[BIAS])};
    return MF_OK;
}

mf_status mf__add_layer_norm_fwd(mf_call *c) {
    MF_TRY(check_addend(c));
    const mf_tensor *a = c->in[A];
    mf_tensor *flat[ADD_INPUTS] = {NULL};
    mf_add_norm_args args;
    mf_status status;
    MF_TRY_OUT(add_norm_args(&args, flat, c->in));
    MF_TRY_OUT(mf__new_like(&c->out[0], a));
    for (int i = 0; i < 2; i++) MF_TRY_OUT(mf__new(&c->saved[i], a->device, a->dtype, 1, &args.rows));
    args.epsilon = c->p.f[0];
    args.y = mf__data(c->out[0]);
    args.mean = mf__data(c->saved[0]);
    args.rstd = mf__data(c->saved[1]);
    status = mf__kernels(a)->add_layer_norm(a->device, &args);
out:
    for (int i = 0; i < ADD_INPUTS; i++) mf_tensor_release(flat[i]);
    return status;
}

mf_status mf__add_layer_norm_bwd(mf_grad_call *g) {
    const mf_tensor *a = g->in[A];
    const int affine = g->wanted[WEIGHT] || g->wanted[BIAS], masked = g->in[ROW_MASK] != NULL;
    const mf_tensor *in[ADD_INPUTS] = {g->in[A], g->in[B], g->in[ROW_MASK], g->in[WEIGHT], NULL};
    mf_tensor *flat[ADD_INPUTS] = {NULL}, *dy = NULL, *da = NULL, *db = NULL, *dweight = NULL, *dbias = NULL;
    mf_add_norm_args args;
    mf_status status;
    MF_TRY_OUT(add_norm_args(&args, flat, in));
    MF_TRY_OUT(mf__contiguous(&dy, g->dout[0]));
    if (g->wanted[A] || (g->wanted[B] && !masked)) MF_TRY_OUT(mf__new_like(&da, a));
    if (g->wanted[B] && masked) MF_TRY_OUT(mf__new_like(&db, a));
    if (affine) MF_TRY_OUT(mf__new(&dweight, g->device, a->dtype, 1, &args.columns));
    if (affine) MF_TRY_OUT(mf__new(&dbias, g->device, a->dtype, 1, &args.columns));
    args.mean = mf__data(g->saved[0]);
    args.rstd = mf__data(g->saved[1]);
    args.dy = mf__data(dy);
    args.da = data_or_null(da);
    args.db = data_or_null(db);
    args.dweight = data_or_null(dweight);
    args.dbias = data_or_null(dbias);
    MF_TRY_OUT(mf__kernels(a)->add_layer_norm_grad(g->device, &args));
    if (g->wanted[A]) g->din[A] = mf_tensor_retain(da);
    if (g->wanted[B]) g->din[B] = mf_tensor_retain(masked ? db : da);
    if (g->wanted[WEIGHT]) g->din[WEIGHT] = mf_tensor_retain(dweight);
    if (g->wanted[BIAS]) g->din[BIAS] = mf_tensor_retain(dbias);
out:
    for (int i = 0; i < ADD_INPUTS; i++) mf_tensor_release(flat[i]);
    mf_tensor_release(dy);
    mf_tensor_release(da);
    mf_tensor_release(db);
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

/* a and b are added first, b times a number a row when there is a mask. */
mf_status mf_add_layer_norm(mf_tensor **out, const mf_tensor *a, const mf_tensor *b, const mf_tensor *mask, const mf_tensor *weight,
                            const mf_tensor *bias, double epsilon) {
    return mf__run1(out, MF_OP_add_layer_norm, (const mf_tensor *[]){a, b, mask, weight, bias}, ADD_INPUTS, &(mf_params){.f = {epsilon}});
}
