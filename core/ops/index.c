/* index.c: selecting and adding by index. Positions in an index count from 0; one out of range is an error.
 *
 *     index_select   y = x[index] along an axis       dx = zeros, dy added at index
 *     index_add      y = x, s added at index          dx = dy, ds = dy[index]
 *     gather, scatter_add: the same, with an index for every element
 *
 * Backward needs the index alone. */
#include "index.h"

enum { AXIS = 0, X = 0, INDEX = 1, SOURCE = 2 };

static mf_status copy_of(mf_tensor **out, const mf_tensor *x) {
    MF_TRY(mf__new_like(out, x));
    mf_iter it;
    mf__iter_make(&it, x->ndim, x->shape, (const mf_tensor *[]){*out, x}, 2);
    return mf__kernels(x)->copy(x->device, &it);
}

/* Resolves the axis and checks the type of the index. */
static mf_status check_index(mf_call *c) {
    int axis;
    const mf_tensor *index = c->in[INDEX];
    MF_TRY(mf__usable(c->op->name, c->in[X]));
    MF_TRY(mf__usable(c->op->name, index));
    MF_TRY(mf__axis(&axis, c->op->name, c->in[X], (int)c->p.i[AXIS]));
    c->p.i[AXIS] = axis;
    if (!mf__is_index(index->dtype))
        return mf__fail(MF_EDTYPE, "%s: the index is %s, int32 or int64 expected", c->op->name, mf_dtype_name(index->dtype));
    return MF_OK;
}

static mf_status check_line(mf_call *c) {
    MF_TRY(check_index(c));
    if (c->in[INDEX]->ndim == 1) return MF_OK;
    return mf__fail(MF_ESHAPE, "%s: the index %s must have one axis", c->op->name, mf__shape(c->in[INDEX]).text);
}

/* y like x but for the axis of the call, where it has m; what: its name in the text. */
static mf_status check_shape(const mf_call *c, const char *what, const mf_tensor *y, int64_t m) {
    const mf_tensor *x = c->in[X];
    const int axis = (int)c->p.i[AXIS];
    int same = y->ndim == x->ndim;
    for (int i = 0; same && i < x->ndim; i++) same = y->shape[i] == (i == axis ? m : x->shape[i]);
    if (same) return MF_OK;
    return mf__fail(MF_ESHAPE, "%s: %s %s must be like x %s with %lld along axis %d", c->op->name, what, mf__shape(y).text, mf__shape(x).text,
                    (long long)m, axis + 1);
}

/* As check_shape, with any size along the axis. */
static mf_status check_each(const mf_call *c) {
    const mf_tensor *index = c->in[INDEX], *x = c->in[X];
    const int axis = (int)c->p.i[AXIS];
    if (index->ndim == x->ndim) return check_shape(c, "the index", index, index->shape[axis]);
    return mf__fail(MF_ESHAPE, "%s: the index %s must have as many axes as x %s", c->op->name, mf__shape(index).text, mf__shape(x).text);
}

static mf_status check_source(const mf_call *c, int64_t m) {
    const mf_tensor *x = c->in[X], *source = c->in[SOURCE];
    MF_TRY(mf__usable(c->op->name, source));
    if (source->dtype != x->dtype)
        return mf__fail(MF_EDTYPE, "%s: the source is %s, x is %s", c->op->name, mf_dtype_name(source->dtype), mf_dtype_name(x->dtype));
    return check_shape(c, "the source", source, m);
}

/* index_select (each = 0) or gather (each = 1) into a new tensor. */
static mf_status take(mf_tensor **out, const mf_tensor *x, int axis, const mf_tensor *index, int each) {
    int64_t shape[MF_MAX_DIMS], outer, size, inner;
    const mf_backend *kernels = mf__kernels(x);
    const int64_t m = each ? index->shape[axis] : index->shape[0], bytes = mf_dtype_bytes(x->dtype);
    mf_tensor *from = NULL, *places = NULL;
    mf_status status;
    *out = NULL;
    mf__around(x, axis, &outer, &size, &inner);
    for (int i = 0; i < x->ndim; i++) shape[i] = i == axis ? m : x->shape[i];
    MF_TRY_OUT(mf__contiguous(&from, x));
    MF_TRY_OUT(mf__contiguous(&places, index));
    MF_TRY_OUT(mf__new(out, x->device, x->dtype, x->ndim, shape));
    status = (each ? kernels->gather : kernels->index_select)(x->device, bytes, outer, size, inner, m, index->dtype, mf__data(places),
                                                              mf__data(from), mf__data(*out));
out:
    mf_tensor_release(from);
    mf_tensor_release(places);
    return status;
}

/* y += source by index_add (each = 0) or scatter_add (each = 1); y is contiguous and ours. */
static mf_status put(mf_tensor *y, int axis, const mf_tensor *index, const mf_tensor *source, int each) {
    int64_t outer, size, inner;
    const mf_backend *kernels = mf__kernels(y);
    const int64_t m = each ? index->shape[axis] : index->shape[0];
    mf_tensor *from = NULL, *places = NULL;
    mf_status status;
    mf__around(y, axis, &outer, &size, &inner);
    MF_TRY_OUT(mf__contiguous(&from, source));
    MF_TRY_OUT(mf__contiguous(&places, index));
    status = (each ? kernels->scatter_add : kernels->index_add)(y->device, y->dtype, outer, size, inner, m, index->dtype, mf__data(places),
                                                                mf__data(from), mf__data(y));
out:
    mf_tensor_release(from);
    mf_tensor_release(places);
    return status;
}

static mf_status zeros_plus(mf_tensor **out, const mf_tensor *like, int axis, const mf_tensor *index, const mf_tensor *source, int each) {
    mf_tensor *y;
    *out = NULL;
    MF_TRY(mf__new_zeros(&y, source->device, like->dtype, like->ndim, like->shape));
    const mf_status status = put(y, axis, index, source, each);
    if (status == MF_OK) *out = y;
    else mf_tensor_release(y);
    return status;
}

mf_status mf__scatter(mf_tensor **out, const mf_tensor *like, int axis, const mf_tensor *index, const mf_tensor *source) {
    return zeros_plus(out, like, axis, index, source, 1);
}

mf_status mf__index_select_fwd(mf_call *c) {
    MF_TRY(check_line(c));
    return take(&c->out[0], c->in[X], (int)c->p.i[AXIS], c->in[INDEX], 0);
}

mf_status mf__index_select_bwd(mf_grad_call *g) {
    return zeros_plus(&g->din[X], g->in[X], (int)g->p->i[AXIS], g->in[INDEX], g->dout[0], 0);
}

mf_status mf__gather_fwd(mf_call *c) {
    MF_TRY(check_index(c));
    MF_TRY(check_each(c));
    return take(&c->out[0], c->in[X], (int)c->p.i[AXIS], c->in[INDEX], 1);
}

mf_status mf__gather_bwd(mf_grad_call *g) {
    return zeros_plus(&g->din[X], g->in[X], (int)g->p->i[AXIS], g->in[INDEX], g->dout[0], 1);
}

/* out = x + source by index. */
static mf_status added(mf_call *c, int each) {
    MF_TRY(copy_of(&c->out[0], c->in[X]));
    return put(c->out[0], (int)c->p.i[AXIS], c->in[INDEX], c->in[SOURCE], each);
}

static mf_status added_bwd(mf_grad_call *g, int each) {
    if (g->wanted[SOURCE]) MF_TRY(take(&g->din[SOURCE], g->dout[0], (int)g->p->i[AXIS], g->in[INDEX], each));
    if (g->wanted[X]) g->din[X] = mf_tensor_retain((mf_tensor *)g->dout[0]);
    return MF_OK;
}

mf_status mf__index_add_fwd(mf_call *c) {
    MF_TRY(check_line(c));
    MF_TRY(check_source(c, c->in[INDEX]->shape[0]));
    return added(c, 0);
}

mf_status mf__index_add_bwd(mf_grad_call *g) { return added_bwd(g, 0); }

mf_status mf__scatter_add_fwd(mf_call *c) {
    MF_TRY(check_index(c));
    MF_TRY(check_each(c));
    MF_TRY(check_source(c, c->in[INDEX]->shape[c->p.i[AXIS]]));
    return added(c, 1);
}

mf_status mf__scatter_add_bwd(mf_grad_call *g) { return added_bwd(g, 1); }

static mf_status run(mf_tensor **out, int op, const mf_tensor *x, int axis, const mf_tensor *index, const mf_tensor *source, int n_in) {
    return mf__run1(out, op, (const mf_tensor *[]){x, index, source}, n_in, &(mf_params){.i = {[AXIS] = axis}});
}

mf_status mf_index_select(mf_tensor **out, const mf_tensor *x, int axis, const mf_tensor *index) {
    return run(out, MF_OP_index_select, x, axis, index, NULL, 2);
}
mf_status mf_index_add(mf_tensor **out, const mf_tensor *x, int axis, const mf_tensor *index, const mf_tensor *source) {
    return run(out, MF_OP_index_add, x, axis, index, source, 3);
}
mf_status mf_gather(mf_tensor **out, const mf_tensor *x, int axis, const mf_tensor *index) {
    return run(out, MF_OP_gather, x, axis, index, NULL, 2);
}
mf_status mf_scatter_add(mf_tensor **out, const mf_tensor *x, int axis, const mf_tensor *index, const mf_tensor *source) {
    return run(out, MF_OP_scatter_add, x, axis, index, source, 3);
}
