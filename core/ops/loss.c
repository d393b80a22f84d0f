/* loss.c: squared errors and cross entropies, one value for each element of the first axis or for each row.
 *
 *     squared_error   (N, ...), (N, ...) -> (N): sum of w (a - b)^2 over all axes but the first
 *     cross_entropy   (N, C), (N) -> (N): log sum exp(x_i) - x_i,target(i)
 *
 * Equations in cpu/loss.c. The weight's shape is the first axes of a's, so that it counts for all that lies behind them. */
#include "op.h"
#include <string.h>

enum { A, B, WEIGHT };
enum { LOGITS, TARGET };

static mf_status check_real(const char *op, const mf_tensor *x) {
    MF_TRY(mf__usable(op, x));
    if (mf__is_real(x->dtype)) return MF_OK;
    return mf__fail(MF_EDTYPE, "%s: %s, float32 or float64 expected", op, mf_dtype_name(x->dtype));
}

/* Sizes as the kernels see them: rows, columns, weights of a row (0 without weights). */
static void sizes(int64_t *rows, int64_t *columns, int64_t *groups, const mf_tensor *a, const mf_tensor *weight) {
    *rows = a->shape[0];
    *columns = mf__count(a->ndim - 1, a->shape + 1);
    *groups = weight ? mf__count(weight->ndim - 1, weight->shape + 1) : 0;
}

static mf_status check_errors(const mf_call *c) {
    const mf_tensor *a = c->in[A], *b = c->in[B], *weight = c->in[WEIGHT];
    MF_TRY(check_real("squared_error", a));
    MF_TRY(mf__usable("squared_error", b));
    if (b->dtype != a->dtype)
        return mf__fail(MF_EDTYPE, "squared_error: %s against %s, the types must be equal", mf_dtype_name(a->dtype), mf_dtype_name(b->dtype));
    if (a->ndim == 0) return mf__fail(MF_ESHAPE, "squared_error: shape () has no rows");
    if (b->ndim != a->ndim || memcmp(b->shape, a->shape, (size_t)a->ndim * sizeof *a->shape))
        return mf__fail(MF_ESHAPE, "squared_error: shapes %s and %s must be equal", mf__shape(a).text, mf__shape(b).text);
    if (!weight) return MF_OK;
    if (weight->dtype != a->dtype)
        return mf__fail(MF_EDTYPE, "squared_error: weight is %s, the values are %s", mf_dtype_name(weight->dtype), mf_dtype_name(a->dtype));
    if (weight->ndim == 0 || weight->ndim > a->ndim || memcmp(weight->shape, a->shape, (size_t)weight->ndim * sizeof *a->shape))
        return mf__fail(MF_ESHAPE, "squared_error: weight %s must be the first axes of %s", mf__shape(weight).text, mf__shape(a).text);
    if (weight->requires_grad && c->recording) return mf__fail(MF_ESUPPORT, "squared_error: the weight takes no gradient; detach it");
    return MF_OK;
}

mf_status mf__squared_error_fwd(mf_call *c) {
    MF_TRY(check_errors(c));
    const mf_tensor *a = c->in[A], *weight = c->in[WEIGHT];
    int64_t rows, columns, groups;
    sizes(&rows, &columns, &groups, a, weight);
    mf_tensor *flat[3] = {NULL};
    mf_status status;
    for (int i = 0; i < 3; i++)
        if (c->in[i]) MF_TRY_OUT(mf__contiguous(&flat[i], c->in[i]));
    MF_TRY_OUT(mf__new(&c->out[0], a->device, a->dtype, 1, &rows));
    status = mf__kernels(a)->squared_error(a->device, a->dtype, rows, columns, groups, mf__data(flat[A]), mf__data(flat[B]),
                                           weight ? mf__data(flat[WEIGHT]) : NULL, mf__data(c->out[0]));
out:
    for (int i = 0; i < 3; i++) mf_tensor_release(flat[i]);
    return status;
}

mf_status mf__squared_error_bwd(mf_grad_call *g) {
    const mf_tensor *a = g->in[A], *weight = g->in[WEIGHT];
    int64_t rows, columns, groups;
    sizes(&rows, &columns, &groups, a, weight);
    mf_tensor *flat[3] = {NULL}, *dy = NULL;
    mf_status status;
    for (int i = 0; i < 3; i++)
        if (g->in[i]) MF_TRY_OUT(mf__contiguous(&flat[i], g->in[i]));
    MF_TRY_OUT(mf__contiguous(&dy, g->dout[0]));
    for (int i = A; i <= B; i++)
        if (g->wanted[i]) MF_TRY_OUT(mf__new_like(&g->din[i], a));
    status = mf__kernels(a)->squared_error_grad(g->device, a->dtype, rows, columns, groups, mf__data(flat[A]), mf__data(flat[B]),
                                                weight ? mf__data(flat[WEIGHT]) : NULL, mf__data(dy), g->din[A] ? mf__data(g->din[A]) : NULL,
                                                g->din[B] ? mf__data(g->din[B]) : NULL);
out:
    for (int i = 0; i < 3; i++) mf_tensor_release(flat[i]);
    mf_tensor_release(dy);
    return status;
}

mf_status mf__cross_entropy_fwd(mf_call *c) {
    const mf_tensor *x = c->in[LOGITS], *target = c->in[TARGET];
    MF_TRY(check_real("cross_entropy", x));
    MF_TRY(mf__usable("cross_entropy", target));
    if (!mf__is_index(target->dtype))
        return mf__fail(MF_EDTYPE, "cross_entropy: target is %s, int32 or int64 expected", mf_dtype_name(target->dtype));
    if (x->ndim != 2 || target->ndim != 1 || target->shape[0] != x->shape[0])
        return mf__fail(MF_ESHAPE, "cross_entropy: logits %s and target %s, (N, C) and (N) expected", mf__shape(x).text, mf__shape(target).text);
    mf_tensor *logits = NULL, *index = NULL;
    mf_status status;
    MF_TRY_OUT(mf__contiguous(&logits, x));
    MF_TRY_OUT(mf__contiguous(&index, target));
    MF_TRY_OUT(mf__new(&c->out[0], x->device, x->dtype, 1, x->shape));
    MF_TRY_OUT(mf__new(&c->saved[0], x->device, x->dtype, 1, x->shape));
    status = mf__kernels(x)->cross_entropy(x->device, x->dtype, x->shape[0], x->shape[1], index->dtype, mf__data(index), mf__data(logits),
                                           mf__data(c->out[0]), mf__data(c->saved[0]));
out:
    mf_tensor_release(logits);
    mf_tensor_release(index);
    return status;
}

mf_status mf__cross_entropy_bwd(mf_grad_call *g) {
    const mf_tensor *x = g->in[LOGITS];
    mf_tensor *logits = NULL, *index = NULL, *dy = NULL;
    mf_status status;
    MF_TRY_OUT(mf__contiguous(&logits, x));
    MF_TRY_OUT(mf__contiguous(&index, g->in[TARGET]));
    MF_TRY_OUT(mf__contiguous(&dy, g->dout[0]));
    MF_TRY_OUT(mf__new_like(&g->din[LOGITS], x));
    status = mf__kernels(x)->cross_entropy_grad(g->device, x->dtype, x->shape[0], x->shape[1], index->dtype, mf__data(index), mf__data(logits),
                                                mf__data(g->saved[0]), mf__data(dy), mf__data(g->din[LOGITS]));
out:
    mf_tensor_release(logits);
    mf_tensor_release(index);
    mf_tensor_release(dy);
    return status;
}

mf_status mf_squared_error(mf_tensor **out, const mf_tensor *a, const mf_tensor *b, const mf_tensor *weight) {
    return mf__run1(out, MF_OP_squared_error, (const mf_tensor *[]){a, b, weight}, 3, NULL);
}

mf_status mf_cross_entropy(mf_tensor **out, const mf_tensor *logits, const mf_tensor *target) {
    return mf__run1(out, MF_OP_cross_entropy, (const mf_tensor *[]){logits, target}, 2, NULL);
}
