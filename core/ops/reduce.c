/* reduce.c: reductions over axes, sorting and sums over the sequences of a packing.
 *
 *     sum, mean        dx = dy, dy / n, repeated along the reduced axes (a view, no memory)
 *     max, min         dx = dy at the first extreme element, whose index forward saved
 *     logsumexp        dx = dy softmax(x)
 *     cumsum           dx = dy summed from the other end
 *     sort, topk       dx = d values scattered by index
 *     segment_sum and segment_expand are each other's adjoint
 *
 * Parameters in mf_params.i: axis (resolved by forward), then KEEP, K or DESCENDING as named below. */
#include "index.h"
#include <math.h>

enum { AXIS = 0, KEEP = 1, K = 1, DESCENDING = 2 };
enum { MASK = 0, N_AXES = 2, AXES = 3 };  /* sum and mean: a bit per reduced axis, made by forward from a list */

/* The axis of a call, counted from 0 from here on. */
static mf_status resolve(mf_call *c) {
    int axis;
    MF_TRY(mf__axis(&axis, c->op->name, c->in[0], (int)c->p.i[AXIS]));
    c->p.i[AXIS] = axis;
    return MF_OK;
}

static mf_status resolve_axes(mf_call *c) {
    const mf_tensor *x = c->in[0];
    unsigned mask = 0;
    for (int i = 0; i < c->p.i[N_AXES]; i++) {
        int axis;
        MF_TRY(mf__axis(&axis, c->op->name, x, (int)c->p.i[AXES + i]));
        if (mask >> axis & 1) return mf__fail(MF_EVALUE, "%s: axis %d of %s is listed twice", c->op->name, axis + 1, mf__shape(x).text);
        mask |= 1u << axis;
    }
    if (c->p.i[N_AXES] == 0) mask = (1u << x->ndim) - 1;
    c->p.i[MASK] = mask;
    return MF_OK;
}

static int reduced_shape(int64_t *shape, const mf_tensor *x, unsigned mask, int keep) {
    int ndim = 0;
    for (int i = 0; i < x->ndim; i++) {
        if (!(mask >> i & 1)) shape[ndim++] = x->shape[i];
        else if (keep) shape[ndim++] = 1;
    }
    return ndim;
}

static int64_t reduced_count(const mf_tensor *x, unsigned mask) {
    int64_t n = 1;
    for (int i = 0; i < x->ndim; i++)
        if (mask >> i & 1) n *= x->shape[i];
    return n;
}

/* y, a result over the axes of `mask`, with those axes as 1 again. */
static mf_status with_axes(mf_tensor **out, const mf_tensor *y, const mf_tensor *x, unsigned mask) {
    int64_t shape[MF_MAX_DIMS];
    const int ndim = reduced_shape(shape, x, mask, 1);
    return mf_reshape(out, y, ndim, shape);
}

/* y repeated along the axes of `mask`, shaped like x: a view. */
static mf_status repeat(mf_tensor **out, const mf_tensor *y, const mf_tensor *x, unsigned mask) {
    mf_tensor *kept;
    MF_TRY(with_axes(&kept, y, x, mask));
    const mf_status status = mf_expand(out, kept, x->ndim, x->shape);
    mf_tensor_release(kept);
    return status;
}

/* ---- sum and mean ---- */

/* Where the axes of `mask` lie side by side (axes of size 1 do not count) x is (outer, middle, inner) as it is;
 * otherwise they are moved to the end. */
static mf_status gather_axes(mf_tensor **out, int64_t *outer, int64_t *middle, int64_t *inner, const mf_tensor *x, unsigned mask) {
    int first = x->ndim, last = -1, between = 0, order[MF_MAX_DIMS], n = 0;
    for (int i = 0; i < x->ndim; i++) {
        if (!(mask >> i & 1) || x->shape[i] == 1) continue;
        if (last < 0) first = i;
        last = i;
    }
    for (int i = first; i < last; i++) between |= !(mask >> i & 1) && x->shape[i] != 1;
    *middle = reduced_count(x, mask);
    if (!between) {
        *outer = mf__count(first, x->shape);
        *inner = last < 0 ? 1 : mf__count(x->ndim - last - 1, x->shape + last + 1);
        return mf__contiguous(out, x);
    }
    *outer = 1;
    *inner = 1;
    for (int reduced = 0; reduced < 2; reduced++)
        for (int i = 0; i < x->ndim; i++)
            if ((int)(mask >> i & 1) == reduced) {
                order[n++] = i;
                if (!reduced) *outer *= x->shape[i];
            }
    mf_tensor *moved;
    MF_TRY(mf_permute(&moved, x, order));
    const mf_status status = mf__contiguous(out, moved);
    mf_tensor_release(moved);
    return status;
}

static mf_status sum_axes(mf_tensor **out, const mf_tensor *x, int reduction, unsigned mask, int keep) {
    int64_t shape[MF_MAX_DIMS], outer, middle, inner;
    const int ndim = reduced_shape(shape, x, mask, keep);
    mf_tensor *flat;
    *out = NULL;
    MF_TRY(gather_axes(&flat, &outer, &middle, &inner, x, mask));
    mf_status status = mf__new(out, x->device, mf__is_float(x->dtype) ? x->dtype : MF_INT64, ndim, shape);
    if (status == MF_OK) status = mf__kernels(x)->reduce(x->device, reduction, x->dtype, outer, middle, inner, mf__data(flat), mf__data(*out));
    mf_tensor_release(flat);
    return status;                /* mf__run releases *out on failure */
}

mf_status mf__sum_fwd(mf_call *c) {
    MF_TRY(resolve_axes(c));
    return sum_axes(&c->out[0], c->in[0], MF_REDUCE_sum, (unsigned)c->p.i[MASK], (int)c->p.i[KEEP]);
}

mf_status mf__sum_bwd(mf_grad_call *g) {
    return repeat(&g->din[0], g->dout[0], g->in[0], (unsigned)g->p->i[MASK]);
}

mf_status mf__mean_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    MF_TRY(resolve_axes(c));
    const unsigned mask = (unsigned)c->p.i[MASK];
    if (!mf__is_float(x->dtype))
        return mf__fail(MF_EDTYPE, "mean: %s has no mean in its own type; cast it to a floating type first", mf_dtype_name(x->dtype));
    if (reduced_count(x, mask) == 0) return mf__fail(MF_ESHAPE, "mean: shape %s has no elements to average", mf__shape(x).text);
    return sum_axes(&c->out[0], x, MF_REDUCE_mean, mask, (int)c->p.i[KEEP]);
}

mf_status mf__mean_bwd(mf_grad_call *g) {
    const unsigned mask = (unsigned)g->p->i[MASK];
    mf_tensor *share;
    MF_TRY(mf_affine(&share, g->dout[0], 1 / (double)reduced_count(g->in[0], mask), 0));
    const mf_status status = repeat(&g->din[0], share, g->in[0], mask);
    mf_tensor_release(share);
    return status;
}

/* ---- extremes ---- */

/* One reduction of x along an axis into a new tensor. */
static mf_status along(mf_tensor **out, const mf_tensor *x, int reduction, int dtype, int axis, int keep) {
    int64_t shape[MF_MAX_DIMS], outer, middle, inner;
    const int ndim = reduced_shape(shape, x, 1u << axis, keep);
    mf_tensor *flat;
    mf__around(x, axis, &outer, &middle, &inner);
    MF_TRY(mf__contiguous(&flat, x));
    mf_status status = mf__new(out, x->device, dtype, ndim, shape);
    if (status == MF_OK)
        status = mf__kernels(x)->reduce(x->device, reduction, x->dtype, outer, middle, inner, mf__data(flat), mf__data(*out));
    mf_tensor_release(flat);
    return status;
}

static mf_status check_extreme(mf_call *c) {
    MF_TRY(resolve(c));
    const mf_tensor *x = c->in[0];
    const int axis = (int)c->p.i[AXIS];
    if (x->shape[axis] == 0)
        return mf__fail(MF_ESHAPE, "%s: axis %d of %s is empty, it has no such element", c->op->name, axis + 1, mf__shape(x).text);
    if (x->shape[axis] > INT32_MAX)
        return mf__fail(MF_ESHAPE, "%s: axis %d of %s is too long for int32 indices", c->op->name, axis + 1, mf__shape(x).text);
    return MF_OK;
}

mf_status mf__extreme_fwd(mf_call *c) {
    MF_TRY(check_extreme(c));
    const int axis = (int)c->p.i[AXIS], largest = c->op == &mf__ops[MF_OP_max];
    MF_TRY(along(&c->out[0], c->in[0], largest ? MF_REDUCE_max : MF_REDUCE_min, c->in[0]->dtype, axis, (int)c->p.i[KEEP]));
    if (!c->recording) return MF_OK;
    return along(&c->saved[0], c->in[0], largest ? MF_REDUCE_argmax : MF_REDUCE_argmin, MF_INT32, axis, 1);
}

mf_status mf__extreme_bwd(mf_grad_call *g) {
    const int axis = (int)g->p->i[AXIS];
    mf_tensor *dy;
    MF_TRY(with_axes(&dy, g->dout[0], g->in[0], 1u << axis));
    const mf_status status = mf__scatter(&g->din[0], g->in[0], axis, g->saved[0], dy);
    mf_tensor_release(dy);
    return status;
}

mf_status mf__arg_fwd(mf_call *c) {
    MF_TRY(check_extreme(c));
    const int reduction = c->op == &mf__ops[MF_OP_argmax] ? MF_REDUCE_argmax : MF_REDUCE_argmin;
    return along(&c->out[0], c->in[0], reduction, MF_INT32, (int)c->p.i[AXIS], (int)c->p.i[KEEP]);
}

/* ---- logsumexp and cumsum ---- */

mf_status mf__logsumexp_fwd(mf_call *c) {
    MF_TRY(resolve(c));
    const mf_tensor *x = c->in[0];
    const int axis = (int)c->p.i[AXIS];
    if (!mf__is_real(x->dtype)) return mf__fail(MF_EDTYPE, "logsumexp: %s, float32 or float64 expected", mf_dtype_name(x->dtype));
    int64_t shape[MF_MAX_DIMS], outer, middle, inner;
    const int ndim = reduced_shape(shape, x, 1u << axis, (int)c->p.i[KEEP]);
    mf__around(x, axis, &outer, &middle, &inner);
    MF_TRY(mf__new(&c->out[0], x->device, x->dtype, ndim, shape));
    if (middle == 0) return mf_tensor_fill(c->out[0], -INFINITY);
    mf_tensor *flat;
    MF_TRY(mf__contiguous(&flat, x));
    const mf_status status = mf__kernels(x)->logsumexp(x->device, x->dtype, outer, middle, inner, mf__data(flat), mf__data(c->out[0]));
    mf_tensor_release(flat);
    return status;
}

mf_status mf__logsumexp_bwd(mf_grad_call *g) {
    const int axis = (int)g->p->i[AXIS];
    mf_tensor *y = NULL, *dy = NULL;
    mf_status status;
    MF_TRY_OUT(with_axes(&dy, g->dout[0], g->in[0], 1u << axis));
    MF_TRY_OUT(mf_softmax(&y, g->in[0], axis));  /* exp(x - lse), guarded where both are -inf */
    status = mf_mul(&g->din[0], y, dy);
out:
    mf_tensor_release(y);
    mf_tensor_release(dy);
    return status;
}

static mf_status cumsum(mf_tensor **out, const mf_tensor *x, int axis, int reverse) {
    int64_t outer, middle, inner;
    mf_tensor *flat;
    mf__around(x, axis, &outer, &middle, &inner);
    MF_TRY(mf__contiguous(&flat, x));
    mf_status status = mf__new_like(out, x);
    if (status == MF_OK)
        status = mf__kernels(x)->cumsum(x->device, x->dtype, outer, middle, inner, mf__data(flat), mf__data(*out), reverse);
    mf_tensor_release(flat);
    return status;
}

mf_status mf__cumsum_fwd(mf_call *c) {
    MF_TRY(resolve(c));
    const int dtype = c->in[0]->dtype;
    if (!mf__is_real(dtype) && !mf__is_index(dtype))
        return mf__fail(MF_EDTYPE, "cumsum: %s, float32, float64, int32 or int64 expected", mf_dtype_name(dtype));
    return cumsum(&c->out[0], c->in[0], (int)c->p.i[AXIS], 0);
}

mf_status mf__cumsum_bwd(mf_grad_call *g) {
    return cumsum(&g->din[0], g->dout[0], (int)g->p->i[AXIS], 1);
}

/* ---- sorting ---- */

mf_status mf__sort_fwd(mf_call *c) {
    MF_TRY(resolve(c));
    const mf_tensor *x = c->in[0];
    const int axis = (int)c->p.i[AXIS];
    int64_t shape[MF_MAX_DIMS], outer, middle, inner;
    mf__around(x, axis, &outer, &middle, &inner);
    if (c->op == &mf__ops[MF_OP_sort]) c->p.i[K] = middle;
    const int64_t k = c->p.i[K];
    if (!mf__is_real(x->dtype) && !mf__is_index(x->dtype))
        return mf__fail(MF_EDTYPE, "%s: %s, float32, float64, int32 or int64 expected", c->op->name, mf_dtype_name(x->dtype));
    if (k < 0 || k > middle)
        return mf__fail(MF_EVALUE, "topk: %lld elements of axis %d of %s, which has %lld", (long long)k, axis + 1, mf__shape(x).text, (long long)middle);
    if (middle > INT32_MAX)
        return mf__fail(MF_ESHAPE, "%s: axis %d of %s is too long for int32 indices", c->op->name, axis + 1, mf__shape(x).text);
    for (int i = 0; i < x->ndim; i++) shape[i] = i == axis ? k : x->shape[i];
    mf_tensor *flat;
    mf_status status;
    MF_TRY(mf__contiguous(&flat, x));
    MF_TRY_OUT(mf__new(&c->out[0], x->device, x->dtype, x->ndim, shape));
    MF_TRY_OUT(mf__new(&c->out[1], x->device, MF_INT32, x->ndim, shape));
    status = mf__kernels(x)->sort(x->device, x->dtype, outer, middle, inner, k, mf__data(flat), mf__data(c->out[0]), mf__data(c->out[1]),
                                  (int)c->p.i[DESCENDING]);
out:
    mf_tensor_release(flat);
    return status;
}

mf_status mf__sort_bwd(mf_grad_call *g) {
    const mf_tensor *x = g->in[0];
    if (!g->dout[0]) return mf__new_zeros(&g->din[0], g->device, x->dtype, x->ndim, x->shape);
    return mf__scatter(&g->din[0], x, (int)g->p->i[AXIS], g->out[1], g->dout[0]);
}

/* ---- sequences of a packing ---- */

static mf_status segment(mf_tensor **out, const mf_tensor *x, const mf_packing *packing, int expand) {
    int64_t shape[MF_MAX_DIMS];
    const int64_t inner = mf__count(x->ndim - 1, x->shape + 1);
    mf_tensor *flat;
    *out = NULL;
    for (int i = 0; i < x->ndim; i++) shape[i] = x->shape[i];
    shape[0] = expand ? packing->total : packing->count;
    MF_TRY(mf__contiguous(&flat, x));
    mf_status status = mf__new(out, x->device, expand || mf__is_float(x->dtype) ? x->dtype : MF_INT64, x->ndim, shape);
    if (status == MF_OK && expand)
        status = mf__kernels(x)->segment_expand(x->device, inner * mf_dtype_bytes(x->dtype), packing, mf__data(flat), mf__data(*out));
    else if (status == MF_OK)
        status = mf__kernels(x)->segment_sum(x->device, x->dtype, packing, inner, mf__data(flat), mf__data(*out));
    mf_tensor_release(flat);
    return status;
}

mf_status mf__segment_sum_fwd(mf_call *c) {
    MF_TRY(mf__fits("segment_sum", c->in[0], c->p.packing));
    return segment(&c->out[0], c->in[0], c->p.packing, 0);
}

mf_status mf__segment_sum_bwd(mf_grad_call *g) { return segment(&g->din[0], g->dout[0], g->p->packing, 1); }

mf_status mf__segment_expand_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    const mf_packing *packing = c->p.packing;
    if (!packing) return mf__fail(MF_EVALUE, "segment_expand: no packing given");
    if (x->ndim == 0 || x->shape[0] != packing->count)
        return mf__fail(MF_ESHAPE, "segment_expand: %s must have %lld along axis 1, one per sequence of the packing", mf__shape(x).text,
                        (long long)packing->count);
    return segment(&c->out[0], x, packing, 1);
}

mf_status mf__segment_expand_bwd(mf_grad_call *g) { return segment(&g->din[0], g->dout[0], g->p->packing, 0); }

/* ---- public ---- */

static mf_status over_axes(mf_tensor **out, int op, const mf_tensor *x, const int *axes, int n_axes, int keep) {
    mf_params p = {.i = {[KEEP] = keep != 0, [N_AXES] = n_axes}};
    *out = NULL;
    if (n_axes < 0 || n_axes > MF_MAX_DIMS)
        return mf__fail(MF_EVALUE, "%s: %d axes, at most %d expected", mf_op_name(op), n_axes, MF_MAX_DIMS);
    for (int i = 0; i < n_axes; i++) p.i[AXES + i] = axes[i];
    return mf__run1(out, op, &x, 1, &p);
}

static mf_status over_axis(mf_tensor **out, int op, const mf_tensor *x, int axis, int keep) {
    return mf__run1(out, op, &x, 1, &(mf_params){.i = {[AXIS] = axis, [KEEP] = keep != 0}});
}

mf_status mf_sum(mf_tensor **out, const mf_tensor *x, const int *axes, int n_axes, int keep) { return over_axes(out, MF_OP_sum, x, axes, n_axes, keep); }
mf_status mf_mean(mf_tensor **out, const mf_tensor *x, const int *axes, int n_axes, int keep) { return over_axes(out, MF_OP_mean, x, axes, n_axes, keep); }
mf_status mf_max(mf_tensor **out, const mf_tensor *x, int axis, int keep) { return over_axis(out, MF_OP_max, x, axis, keep); }
mf_status mf_min(mf_tensor **out, const mf_tensor *x, int axis, int keep) { return over_axis(out, MF_OP_min, x, axis, keep); }
mf_status mf_argmax(mf_tensor **out, const mf_tensor *x, int axis, int keep) { return over_axis(out, MF_OP_argmax, x, axis, keep); }
mf_status mf_argmin(mf_tensor **out, const mf_tensor *x, int axis, int keep) { return over_axis(out, MF_OP_argmin, x, axis, keep); }
mf_status mf_logsumexp(mf_tensor **out, const mf_tensor *x, int axis, int keep) { return over_axis(out, MF_OP_logsumexp, x, axis, keep); }
mf_status mf_cumsum(mf_tensor **out, const mf_tensor *x, int axis) { return over_axis(out, MF_OP_cumsum, x, axis, 0); }

static mf_status order(mf_tensor **values, mf_tensor **index, int op, const mf_tensor *x, int axis, int64_t k, int descending) {
    mf_tensor *outs[2];
    const mf_status status = mf__run(outs, 2, op, &x, 1, &(mf_params){.i = {[AXIS] = axis, [K] = k, [DESCENDING] = descending != 0}});
    *values = outs[0];
    *index = outs[1];
    return status;
}

mf_status mf_sort(mf_tensor **values, mf_tensor **index, const mf_tensor *x, int axis, int descending) {
    return order(values, index, MF_OP_sort, x, axis, 0, descending);
}

mf_status mf_topk(mf_tensor **values, mf_tensor **index, const mf_tensor *x, int k, int axis, int largest) {
    return order(values, index, MF_OP_topk, x, axis, k, largest);
}

mf_status mf_segment_sum(mf_tensor **out, const mf_tensor *x, const mf_packing *packing) {
    return mf__run1(out, MF_OP_segment_sum, &x, 1, &(mf_params){.packing = packing});
}

mf_status mf_segment_expand(mf_tensor **out, const mf_tensor *x, const mf_packing *packing) {
    return mf__run1(out, MF_OP_segment_expand, &x, 1, &(mf_params){.packing = packing});
}
