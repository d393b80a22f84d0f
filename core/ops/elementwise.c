/* elementwise.c: operators that work element by element, with broadcasting, and their gradients.
 *
 * A binary operator takes two tensors of one type: a hidden promotion would hide a copy of a large tensor. The gradient
 * of a broadcast input is summed over the axes along which it was repeated (mf__sum_to). Backwards are written with the
 * operators themselves, which record nothing there. */
#include "op.h"
#include "../base/graph.h"

#include <math.h>

_Static_assert((int)MF_OP_affine == (int)MF_UNARY_affine && (int)MF_OP_softplus == (int)MF_UNARY_softplus,
               "ops.def begins with the rows of MF_UNARY_LIST");
_Static_assert((int)MF_OP_minimum - (int)MF_OP_add == (int)MF_BINARY_minimum
                   && (int)MF_OP_logical_or - (int)MF_OP_add == (int)MF_BINARY_logical_or,
               "ops.def has the binary operators in the order of MF_BINARY");

static int op_index(const mf_op *op) { return (int)(op - mf__ops); }

static mf_status needs_float(const char *op, const mf_tensor *x) {
    if (mf__is_float(x->dtype)) return MF_OK;
    return mf__fail(MF_EDTYPE, "%s: needs a floating type, not %s; cast it with :to", op, mf_dtype_name(x->dtype));
}

static mf_status same_dtype(const char *op, const mf_tensor *a, const mf_tensor *b) {
    if (a->dtype == b->dtype) return MF_OK;
    return mf__fail(MF_EDTYPE, "%s: one side is %s, the other %s; cast one with :to", op, mf_dtype_name(a->dtype), mf_dtype_name(b->dtype));
}

/* Sums `full`, the gradient at the output's shape, to the shape of `like`; releases it. */
static mf_status sum_into(mf_tensor **din, mf_tensor *full, const mf_tensor *like) {
    const mf_status status = mf__sum_to(din, full, like);
    mf_tensor_release(full);
    return status;
}

static void release_all(mf_tensor **t, int n) {
    for (int i = 0; i < n; i++) mf_tensor_release(t[i]);
}

/* ---- one input ---- */

/* Which functions have a kernel for integers. */
static int takes_integers(int op) {
    return op == MF_OP_affine || op == MF_OP_clamp || op == MF_OP_neg || op == MF_OP_abs || op == MF_OP_sign || op == MF_OP_square;
}

mf_status mf__unary_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    const int op = op_index(c->op);
    if (!takes_integers(op) || x->dtype == MF_BOOL) MF_TRY(needs_float(c->op->name, x));
    if (mf__is_index(x->dtype) && op == MF_OP_affine)
        for (int i = 0; i < 2; i++)
            if (c->p.f[i] != floor(c->p.f[i]) || fabs(c->p.f[i]) > 0x1p53)
                return mf__fail(MF_EVALUE, "%s: %g is not a whole number, as %s needs; cast the tensor with :to", c->op->name, c->p.f[i],
                                mf_dtype_name(x->dtype));
    MF_TRY(mf__new_like(&c->out[0], x));
    mf_iter it;
    mf__iter_make(&it, x->ndim, x->shape, (const mf_tensor *[]){c->out[0], x}, 2);
    return mf__kernels(x)->unary(c->device, &it, op, c->p.f[0], c->p.f[1]);
}

mf_status mf__unary_bwd(mf_grad_call *g) {
    const mf_tensor *dy = g->dout[0];
    const mf_tensor *kept = g->op->keep & KEEP_OUT ? g->out[0] : g->in[0];
    MF_TRY(mf__new_like(&g->din[0], g->in[0]));
    mf_iter it;
    mf__iter_make(&it, dy->ndim, dy->shape, (const mf_tensor *[]){g->din[0], dy, kept}, g->op->keep == KEEP_NONE ? 2 : 3);
    return mf__kernels(dy)->unary_grad(g->device, &it, op_index(g->op), g->p->f[0], g->p->f[1]);
}

#define UNARY(name) \
    mf_status mf_##name(mf_tensor **out, const mf_tensor *x) { return mf__run1(out, MF_OP_##name, (const mf_tensor *[]){x}, 1, NULL); }
UNARY(neg)
UNARY(abs)
UNARY(sign)
UNARY(floor)
UNARY(exp)
UNARY(log)
UNARY(sqrt)
UNARY(rsqrt)
UNARY(square)
UNARY(reciprocal)
UNARY(sin)
UNARY(cos)
UNARY(acos)
UNARY(tanh)
UNARY(sigmoid)
UNARY(relu)
UNARY(gelu)
UNARY(silu)
UNARY(softplus)
UNARY(logical_not)

mf_status mf_affine(mf_tensor **out, const mf_tensor *x, double scale, double shift) {
    return mf__run1(out, MF_OP_affine, (const mf_tensor *[]){x}, 1, &(mf_params){.f = {scale, shift}});
}

mf_status mf_pow_scalar(mf_tensor **out, const mf_tensor *x, double exponent) {
    if (exponent == 2) return mf_square(out, x);
    if (exponent == 0.5) return mf_sqrt(out, x);
    if (exponent == -1) return mf_reciprocal(out, x);
    return mf__run1(out, MF_OP_pow_scalar, (const mf_tensor *[]){x}, 1, &(mf_params){.f = {exponent}});
}

mf_status mf_clamp(mf_tensor **out, const mf_tensor *x, double lo, double hi) {
    *out = NULL;
    if (!(lo <= hi)) return mf__fail(MF_EVALUE, "clamp: the lower bound %g is not below the upper bound %g", lo, hi);
    return mf__run1(out, MF_OP_clamp, (const mf_tensor *[]){x}, 1, &(mf_params){.f = {lo, hi}});
}

mf_status mf__logical_not_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    if (x->dtype != MF_BOOL) return mf__fail(MF_EDTYPE, "%s: needs bool, not %s; compare it first", c->op->name, mf_dtype_name(x->dtype));
    MF_TRY(mf__new_like(&c->out[0], x));
    mf_iter it;
    mf__iter_make(&it, x->ndim, x->shape, (const mf_tensor *[]){c->out[0], x}, 2);
    return mf__kernels(x)->logical_not(c->device, &it);
}

mf_status mf__round_to_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    MF_TRY(needs_float(c->op->name, x));
    MF_TRY(mf__new_like(&c->out[0], x));
    mf_iter it;
    mf__iter_make(&it, x->ndim, x->shape, (const mf_tensor *[]){c->out[0], x}, 2);
    return mf__kernels(x)->round_to(c->device, &it, (int)c->p.i[0]);
}

mf_status mf_round_to(mf_tensor **out, const mf_tensor *x, int precision) {
    *out = NULL;
    if (precision != MF_FP16 && precision != MF_BF16)
        return mf__fail(MF_EVALUE, "round_to: precision %d is neither fp16 (%d) nor bf16 (%d)", precision, MF_FP16, MF_BF16);
    return mf__run1(out, MF_OP_round_to, (const mf_tensor *[]){x}, 1, &(mf_params){.i = {precision}});
}

/* The gradient passes unchanged. */
mf_status mf__pass_bwd(mf_grad_call *g) {
    g->din[0] = mf_tensor_retain((mf_tensor *)g->dout[0]);
    return MF_OK;
}

/* y = dropout(x): forward on the input, backward on the cotangent, with the same draws. */
static mf_status dropped(mf_tensor **out, const mf_tensor *x, double rate, mf_rng rng) {
    if (rate == 0) return mf__alias(out, x);
    mf_tensor *flat = NULL;
    MF_TRY(mf__contiguous(&flat, x));
    mf_status status;
    MF_TRY_OUT(mf__new_like(out, x));
    status = mf__kernels(x)->dropout(x->device, x->dtype, mf_tensor_count(x), mf__data(flat), mf__data(*out), rate, rng);
out:
    mf_tensor_release(flat);
    return status;
}

mf_status mf__dropout_fwd(mf_call *c) {
    MF_TRY(needs_float(c->op->name, c->in[0]));
    return dropped(&c->out[0], c->in[0], c->p.f[0], c->p.rng);
}

mf_status mf__dropout_bwd(mf_grad_call *g) {
    if (g->p->f[0] == 0) return mf__pass_bwd(g);
    return dropped(&g->din[0], g->dout[0], g->p->f[0], g->p->rng);
}

mf_status mf_dropout(mf_tensor **out, const mf_tensor *x, double rate, mf_rng *rng) {
    *out = NULL;
    MF_TRY(mf__usable("dropout", x));
    if (!(rate >= 0 && rate < 1)) return mf__fail(MF_EVALUE, "dropout: rate %g must lie in [0, 1)", rate);
    if (!rng) rng = mf_ctx_rng(x->ctx);
    if (rate > 0) MF_TRY(mf__graph_draws(x, rng));
    MF_TRY(mf__run1(out, MF_OP_dropout, (const mf_tensor *[]){x}, 1, &(mf_params){.f = {rate}, .rng = *rng}));
    if (rate > 0) rng->counter += (uint64_t)mf_tensor_count(x);
    return MF_OK;
}

/* ---- two inputs ---- */

static mf_status binary_forward(mf_call *c, int dtype) {
    const mf_tensor *a = c->in[0], *b = c->in[1];
    int ndim;
    int64_t shape[MF_MAX_DIMS];
    MF_TRY(mf__broadcast_shape(&ndim, shape, c->op->name, a, b));
    MF_TRY(mf__new(&c->out[0], c->device, dtype, ndim, shape));
    mf_iter it;
    mf__iter_make(&it, ndim, shape, (const mf_tensor *[]){c->out[0], a, b}, 3);
    return mf__kernels(a)->binary(c->device, &it, op_index(c->op) - MF_OP_add);
}

static mf_status both_given(const mf_call *c) {
    for (int i = 0; i < c->n_in; i++) MF_TRY(mf__usable(c->op->name, c->in[i]));
    return MF_OK;
}

mf_status mf__binary_fwd(mf_call *c) {
    MF_TRY(both_given(c));
    MF_TRY(same_dtype(c->op->name, c->in[0], c->in[1]));
    const int op = op_index(c->op);
    if (op == MF_OP_div || op == MF_OP_pow || op == MF_OP_atan2 || c->in[0]->dtype == MF_BOOL)
        MF_TRY(needs_float(c->op->name, c->in[0]));
    return binary_forward(c, c->in[0]->dtype);
}

mf_status mf__compare_fwd(mf_call *c) {
    MF_TRY(both_given(c));
    MF_TRY(same_dtype(c->op->name, c->in[0], c->in[1]));
    const int op = op_index(c->op), is_bool = c->in[0]->dtype == MF_BOOL;
    const char *name = mf_dtype_name(c->in[0]->dtype);
    if ((op == MF_OP_logical_and || op == MF_OP_logical_or) && !is_bool)
        return mf__fail(MF_EDTYPE, "%s: needs bool, not %s; compare it first", c->op->name, name);
    if ((op == MF_OP_less || op == MF_OP_less_equal) && is_bool)
        return mf__fail(MF_EDTYPE, "%s: bool has no order; cast it with :to", c->op->name);
    return binary_forward(c, MF_BOOL);
}

#define BINARY(name, a, b)                                                          \
    mf_status mf_##name(mf_tensor **out, const mf_tensor *a, const mf_tensor *b) {  \
        return mf__run1(out, MF_OP_##name, (const mf_tensor *[]){a, b}, 2, NULL);   \
    }
BINARY(add, a, b)
BINARY(sub, a, b)
BINARY(mul, a, b)
BINARY(div, a, b)
BINARY(pow, a, b)
BINARY(atan2, y, x)
BINARY(maximum, a, b)
BINARY(minimum, a, b)
BINARY(equal, a, b)
BINARY(less, a, b)
BINARY(less_equal, a, b)
BINARY(logical_and, a, b)
BINARY(logical_or, a, b)

mf_status mf__add_bwd(mf_grad_call *g) {
    for (int i = 0; i < 2; i++)
        if (g->wanted[i]) MF_TRY(mf__sum_to(&g->din[i], g->dout[0], g->in[i]));
    return MF_OK;
}

mf_status mf__sub_bwd(mf_grad_call *g) {
    if (g->wanted[0]) MF_TRY(mf__sum_to(&g->din[0], g->dout[0], g->in[0]));
    if (!g->wanted[1]) return MF_OK;
    mf_tensor *sum = NULL;                     /* summed first: less to negate */
    MF_TRY(mf__sum_to(&sum, g->dout[0], g->in[1]));
    const mf_status status = mf_neg(&g->din[1], sum);
    mf_tensor_release(sum);
    return status;
}

mf_status mf__mul_bwd(mf_grad_call *g) {
    for (int i = 0; i < 2; i++) {
        if (!g->wanted[i]) continue;
        mf_tensor *full = NULL;
        MF_TRY(mf_mul(&full, g->dout[0], g->in[1 - i]));
        MF_TRY(sum_into(&g->din[i], full, g->in[i]));
    }
    return MF_OK;
}

/* da = dy / b, db = -da y. */
mf_status mf__div_bwd(mf_grad_call *g) {
    mf_tensor *t[3] = {NULL};
    mf_status status;
    MF_TRY_OUT(mf_div(&t[0], g->dout[0], g->in[1]));
    if (g->wanted[0]) MF_TRY_OUT(mf__sum_to(&g->din[0], t[0], g->in[0]));
    if (g->wanted[1]) {
        MF_TRY_OUT(mf_mul(&t[1], t[0], g->out[0]));
        MF_TRY_OUT(mf__sum_to(&t[2], t[1], g->in[1]));
        MF_TRY_OUT(mf_neg(&g->din[1], t[2]));
    }
    status = MF_OK;
out:
    release_all(t, 3);
    return status;
}

static mf_status zero_like(mf_tensor **out, const mf_tensor *x) {
    const int64_t none[1] = {0};
    return mf__new_zeros(out, x->device, x->dtype, 0, none);
}

/* da = dy b a^(b - 1), 0 where b is 0; db = dy y log(a), 0 where a is 0: both limits, where the formulas give NaN. */
mf_status mf__pow_bwd(mf_grad_call *g) {
    const mf_tensor *a = g->in[0], *b = g->in[1];
    mf_tensor *t[12] = {NULL};
    mf_status status;
    MF_TRY_OUT(zero_like(&t[0], a));
    if (g->wanted[0]) {
        MF_TRY_OUT(mf_affine(&t[1], b, 1, -1));
        MF_TRY_OUT(mf_pow(&t[2], a, t[1]));
        MF_TRY_OUT(mf_mul(&t[3], t[2], b));
        MF_TRY_OUT(mf_mul(&t[4], t[3], g->dout[0]));
        MF_TRY_OUT(mf_equal(&t[5], b, t[0]));
        MF_TRY_OUT(mf_where(&t[6], t[5], t[0], t[4]));
        MF_TRY_OUT(mf__sum_to(&g->din[0], t[6], a));
    }
    if (g->wanted[1]) {
        MF_TRY_OUT(mf_log(&t[7], a));
        MF_TRY_OUT(mf_mul(&t[8], t[7], g->out[0]));
        MF_TRY_OUT(mf_mul(&t[9], t[8], g->dout[0]));
        MF_TRY_OUT(mf_equal(&t[10], a, t[0]));
        MF_TRY_OUT(mf_where(&t[11], t[10], t[0], t[9]));
        MF_TRY_OUT(mf__sum_to(&g->din[1], t[11], b));
    }
    status = MF_OK;
out:
    release_all(t, 12);
    return status;
}

/* With y = in[0], x = in[1] and s = d / (x^2 + y^2): dy = s x, dx = -s y. */
mf_status mf__atan2_bwd(mf_grad_call *g) {
    const mf_tensor *y = g->in[0], *x = g->in[1];
    mf_tensor *t[7] = {NULL};
    mf_status status;
    MF_TRY_OUT(mf_square(&t[0], y));
    MF_TRY_OUT(mf_square(&t[1], x));
    MF_TRY_OUT(mf_add(&t[2], t[0], t[1]));
    MF_TRY_OUT(mf_div(&t[3], g->dout[0], t[2]));
    if (g->wanted[0]) {
        MF_TRY_OUT(mf_mul(&t[4], t[3], x));
        MF_TRY_OUT(mf__sum_to(&g->din[0], t[4], y));
    }
    if (g->wanted[1]) {
        MF_TRY_OUT(mf_mul(&t[5], t[3], y));
        MF_TRY_OUT(mf__sum_to(&t[6], t[5], x));
        MF_TRY_OUT(mf_neg(&g->din[1], t[6]));
    }
    status = MF_OK;
out:
    release_all(t, 7);
    return status;
}

/* The gradients of where(second, b, a): each input gets the cotangent where it was taken. */
static mf_status split_by(const mf_grad_call *g, const mf_tensor *second, int a, int b) {
    mf_tensor *zero = NULL, *full = NULL;
    mf_status status;
    MF_TRY_OUT(zero_like(&zero, g->dout[0]));
    if (g->wanted[a]) {
        MF_TRY_OUT(mf_where(&full, second, zero, g->dout[0]));
        MF_TRY_OUT(mf__sum_to(&g->din[a], full, g->in[a]));
        mf_tensor_release(full);
        full = NULL;
    }
    if (g->wanted[b]) {
        MF_TRY_OUT(mf_where(&full, second, g->dout[0], zero));
        MF_TRY_OUT(mf__sum_to(&g->din[b], full, g->in[b]));
    }
    status = MF_OK;
out:
    mf_tensor_release(full);
    mf_tensor_release(zero);
    return status;
}

/* Serves minimum as well: b was taken where it is strictly beyond a. */
mf_status mf__maximum_bwd(mf_grad_call *g) {
    const int largest = op_index(g->op) == MF_OP_maximum;
    mf_tensor *second = NULL;
    MF_TRY(mf_less(&second, g->in[largest ? 0 : 1], g->in[largest ? 1 : 0]));
    const mf_status status = split_by(g, second, 0, 1);
    mf_tensor_release(second);
    return status;
}

/* ---- choice ---- */

mf_status mf__where_fwd(mf_call *c) {
    MF_TRY(both_given(c));
    const mf_tensor *condition = c->in[0], *a = c->in[1], *b = c->in[2];
    if (condition->dtype != MF_BOOL)
        return mf__fail(MF_EDTYPE, "%s: the condition is %s, needed bool", c->op->name, mf_dtype_name(condition->dtype));
    MF_TRY(same_dtype(c->op->name, a, b));
    mf_tensor joined = {.ndim = 0};            /* carries the shape of a and b, for the second join and its error text */
    MF_TRY(mf__broadcast_shape(&joined.ndim, joined.shape, c->op->name, a, b));
    int ndim;
    int64_t shape[MF_MAX_DIMS];
    MF_TRY(mf__broadcast_shape(&ndim, shape, c->op->name, condition, &joined));
    MF_TRY(mf__new(&c->out[0], c->device, a->dtype, ndim, shape));
    mf_iter it;
    mf__iter_make(&it, ndim, shape, (const mf_tensor *[]){c->out[0], condition, a, b}, 4);
    return mf__kernels(a)->where(c->device, &it);
}

mf_status mf__where_bwd(mf_grad_call *g) { return split_by(g, g->in[0], 2, 1); }

mf_status mf_where(mf_tensor **out, const mf_tensor *condition, const mf_tensor *a, const mf_tensor *b) {
    return mf__run1(out, MF_OP_where, (const mf_tensor *[]){condition, a, b}, 3, NULL);
}
