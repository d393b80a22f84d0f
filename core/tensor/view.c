/* view.c: operators that rearrange without arithmetic: views (reshape, permute, narrow, select, expand, split), and
 * the copies contiguous, cast and cat. Views share storage; their gradients are views where they can be. */
#include "../ops/op.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- reshape ---- */

/* Strides that let `shape` look at x without a copy: each run of x's axes that is contiguous in itself may be cut
 * anew. Returns 0 when there are none. */
static int reshaped_strides(int64_t *stride, const mf_tensor *x, int ndim, const int64_t *shape) {
    if (mf__count(x->ndim, x->shape) == 0) {
        mf__contiguous_strides(stride, ndim, shape);
        return 1;
    }
    int view = ndim - 1;
    for (int i = x->ndim - 1; i >= 0;) {
        int64_t base = x->stride[i], run = x->shape[i];
        for (i--; i >= 0 && (x->shape[i] == 1 || x->stride[i] == run * base); i--) run *= x->shape[i];
        int64_t cut = 1;
        while (view >= 0 && cut < run) {
            stride[view] = base * cut;
            cut *= shape[view--];
        }
        if (cut != run) return 0;
        while (view >= 0 && shape[view] == 1) stride[view--] = base * cut;
    }
    while (view >= 0) stride[view--] = 1;
    return 1;
}

mf_status mf__reshape_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    int ndim = (int)c->p.i[0];
    const int64_t *shape = c->p.i + 1;
    int64_t stride[MF_MAX_DIMS];
    if (reshaped_strides(stride, x, ndim, shape)) return mf__view(&c->out[0], x, ndim, shape, stride, x->offset);
    mf_tensor *flat;
    MF_TRY(mf__contiguous(&flat, x));
    mf__contiguous_strides(stride, ndim, shape);
    mf_status status = mf__view(&c->out[0], flat, ndim, shape, stride, flat->offset);
    mf_tensor_release(flat);
    return status;
}

mf_status mf__reshape_bwd(mf_grad_call *g) { return mf_reshape(&g->din[0], g->dout[0], g->in[0]->ndim, g->in[0]->shape); }

static void shape_words(char *text, size_t size, int ndim, const int64_t *shape) {
    size_t at = (size_t)snprintf(text, size, "(");
    for (int i = 0; i < ndim && at < size - 24; i++)
        at += (size_t)snprintf(text + at, size - at, i ? ", %" PRId64 : "%" PRId64, shape[i]);
    snprintf(text + at, size - at, ")");
}

mf_status mf_reshape(mf_tensor **out, const mf_tensor *x, int ndim, const int64_t *shape) {
    *out = NULL;
    MF_TRY(mf__usable("reshape", x));
    if (ndim < 0 || ndim > MF_MAX_DIMS) return mf__fail(MF_ESHAPE, "reshape: %d axes, at most %d", ndim, MF_MAX_DIMS);
    mf_params p = {.i = {ndim}};
    int64_t n = mf_tensor_count(x);
    int open = -1;
    char words[128];
    shape_words(words, sizeof words, ndim, shape);
    for (int i = 0; i < ndim; i++) {
        p.i[1 + i] = shape[i];
        if (shape[i] == -1 && open < 0) open = i;
        else if (shape[i] < 0) return mf__fail(MF_ESHAPE, "reshape: %s: sizes are 0 or more, and one may be -1", words);
    }
    if (open >= 0) p.i[1 + open] = 1;
    MF_TRY(mf__check_shape("reshape", ndim, p.i + 1));
    const int64_t known = mf__count(ndim, p.i + 1);
    if (open >= 0) p.i[1 + open] = known > 0 ? n / known : 0;
    if (mf__count(ndim, p.i + 1) != n)
        return mf__fail(MF_ESHAPE, "reshape: %s has %" PRId64 " elements, which do not fit %s", mf__shape(x).text, n, words);
    return mf__run1(out, MF_OP_reshape, (const mf_tensor *[]){x}, 1, &p);
}

/* ---- permute ---- */

mf_status mf__permute_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    int64_t shape[MF_MAX_DIMS], stride[MF_MAX_DIMS];
    for (int i = 0; i < x->ndim; i++) {
        shape[i] = x->shape[c->p.i[i]];
        stride[i] = x->stride[c->p.i[i]];
    }
    return mf__view(&c->out[0], x, x->ndim, shape, stride, x->offset);
}

mf_status mf__permute_bwd(mf_grad_call *g) {
    int inverse[MF_MAX_DIMS] = {0};
    for (int i = 0; i < g->in[0]->ndim; i++) inverse[g->p->i[i]] = i;
    return mf_permute(&g->din[0], g->dout[0], inverse);
}

mf_status mf_permute(mf_tensor **out, const mf_tensor *x, const int *axes) {
    *out = NULL;
    MF_TRY(mf__usable("permute", x));
    mf_params p = {0};
    int seen = 0;
    for (int i = 0; i < x->ndim; i++) {
        int axis;
        MF_TRY(mf__axis(&axis, "permute", x, axes[i]));
        if (seen & 1 << axis) return mf__fail(MF_EVALUE, "permute: axis %d is named twice", axis + 1);
        seen |= 1 << axis;
        p.i[i] = axis;
    }
    return mf__run1(out, MF_OP_permute, (const mf_tensor *[]){x}, 1, &p);
}

/* ---- narrow, select ---- */

/* A position as error texts count it; any value may be asked for, so the addition wraps. */
static int64_t from_one(int64_t position) { return (int64_t)((uint64_t)position + 1); }

static mf_status narrowed(mf_tensor **out, const mf_tensor *x, int axis, int64_t start, int64_t length) {
    MF_TRY(mf__view(out, x, x->ndim, x->shape, x->stride, x->offset + start * x->stride[axis]));
    (*out)->shape[axis] = length;
    return MF_OK;
}

/* A zero tensor shaped like `like` with `part` put at start..start+length of `axis`. */
static mf_status put_back(mf_tensor **out, const mf_tensor *like, const mf_tensor *part, int axis, int64_t start, int64_t length) {
    MF_TRY(mf__new_zeros(out, like->device, like->dtype, like->ndim, like->shape));
    mf_tensor *place;
    mf_status status = narrowed(&place, *out, axis, start, length);
    if (status == MF_OK) {
        status = mf_tensor_copy(place, part);
        mf_tensor_release(place);
    }
    if (status != MF_OK) {
        mf_tensor_release(*out);
        *out = NULL;
    }
    return status;
}

mf_status mf__narrow_fwd(mf_call *c) { return narrowed(&c->out[0], c->in[0], (int)c->p.i[0], c->p.i[1], c->p.i[2]); }

mf_status mf__narrow_bwd(mf_grad_call *g) {
    return put_back(&g->din[0], g->in[0], g->dout[0], (int)g->p->i[0], g->p->i[1], g->p->i[2]);
}

mf_status mf_narrow(mf_tensor **out, const mf_tensor *x, int axis, int64_t start, int64_t length) {
    *out = NULL;
    MF_TRY(mf__usable("narrow", x));
    MF_TRY(mf__axis(&axis, "narrow", x, axis));
    if (start < 0 || length < 0 || start > x->shape[axis] - length)
        return mf__fail(MF_EVALUE, "narrow: %" PRId64 " from position %" PRId64 " do not fit axis %d of %s", length, from_one(start), axis + 1, mf__shape(x).text);
    return mf__run1(out, MF_OP_narrow, (const mf_tensor *[]){x}, 1, &(mf_params){.i = {axis, start, length}});
}

mf_status mf__select_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    int axis = (int)c->p.i[0];
    int64_t shape[MF_MAX_DIMS], stride[MF_MAX_DIMS];
    for (int i = 0, at = 0; i < x->ndim; i++) {
        if (i == axis) continue;
        shape[at] = x->shape[i];
        stride[at++] = x->stride[i];
    }
    return mf__view(&c->out[0], x, x->ndim - 1, shape, stride, x->offset + c->p.i[1] * x->stride[axis]);
}

mf_status mf__select_bwd(mf_grad_call *g) {
    const mf_tensor *x = g->in[0];
    int axis = (int)g->p->i[0];
    int64_t shape[MF_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[axis] = 1;
    mf_tensor *part;
    MF_TRY(mf_reshape(&part, g->dout[0], x->ndim, shape));
    mf_status status = put_back(&g->din[0], x, part, axis, g->p->i[1], 1);
    mf_tensor_release(part);
    return status;
}

mf_status mf_select(mf_tensor **out, const mf_tensor *x, int axis, int64_t index) {
    *out = NULL;
    MF_TRY(mf__usable("select", x));
    MF_TRY(mf__axis(&axis, "select", x, axis));
    if (index < 0 || index >= x->shape[axis])
        return mf__fail(MF_EVALUE, "select: position %" PRId64 " is outside axis %d of %s", from_one(index), axis + 1, mf__shape(x).text);
    return mf__run1(out, MF_OP_select, (const mf_tensor *[]){x}, 1, &(mf_params){.i = {axis, index}});
}

/* ---- expand ---- */

mf_status mf__expand_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    int ndim = (int)c->p.i[0], extra = ndim - x->ndim;
    int64_t stride[MF_MAX_DIMS];
    for (int i = 0; i < ndim; i++) stride[i] = i < extra || x->shape[i - extra] == 1 ? 0 : x->stride[i - extra];
    return mf__view(&c->out[0], x, ndim, c->p.i + 1, stride, x->offset);
}

mf_status mf__expand_bwd(mf_grad_call *g) { return mf__sum_to(&g->din[0], g->dout[0], g->in[0]); }

mf_status mf_expand(mf_tensor **out, const mf_tensor *x, int ndim, const int64_t *shape) {
    *out = NULL;
    MF_TRY(mf__usable("expand", x));
    int extra = ndim - x->ndim, fits = extra >= 0 && ndim <= MF_MAX_DIMS;
    mf_params p = {.i = {ndim}};
    for (int i = 0; fits && i < ndim; i++) {
        int64_t own = i < extra ? 1 : x->shape[i - extra];
        p.i[1 + i] = shape[i] == -1 ? own : shape[i];
        fits = (own == 1 || own == p.i[1 + i]) && p.i[1 + i] >= 0;
    }
    if (!fits) {
        char words[128];
        shape_words(words, sizeof words, ndim < MF_MAX_DIMS ? ndim : MF_MAX_DIMS, shape);
        return mf__fail(MF_ESHAPE, "expand: %s does not expand to %s (an axis of size 1, or a new one in front, may grow)", mf__shape(x).text, words);
    }
    MF_TRY(mf__check_shape("expand", ndim, p.i + 1));
    return mf__run1(out, MF_OP_expand, (const mf_tensor *[]){x}, 1, &p);
}

/* ---- contiguous, cast ---- */

mf_status mf__contiguous_fwd(mf_call *c) { return mf__contiguous(&c->out[0], c->in[0]); }

mf_status mf_contiguous(mf_tensor **out, const mf_tensor *x) {
    *out = NULL;
    MF_TRY(mf__usable("contiguous", x));
    if (mf_tensor_contiguous(x)) {
        *out = mf_tensor_retain((mf_tensor *)x);
        return MF_OK;
    }
    return mf__run1(out, MF_OP_contiguous, (const mf_tensor *[]){x}, 1, NULL);
}

mf_status mf__cast_fwd(mf_call *c) {
    const mf_tensor *x = c->in[0];
    MF_TRY(mf__new(&c->out[0], c->device, (int)c->p.i[0], x->ndim, x->shape));
    mf_iter it;
    mf__iter_make(&it, x->ndim, x->shape, (const mf_tensor *[]){c->out[0], x}, 2);
    return c->device->backend->copy(c->device, &it);
}

mf_status mf__cast_bwd(mf_grad_call *g) { return mf_cast(&g->din[0], g->dout[0], g->in[0]->dtype); }

mf_status mf_cast(mf_tensor **out, const mf_tensor *x, int dtype) {
    *out = NULL;
    MF_TRY(mf__usable("cast", x));
    if (dtype < 0 || dtype >= MF_DTYPE_COUNT) return mf__fail(MF_EDTYPE, "cast: %d is not an element type", dtype);
    if (x->dtype == dtype) {
        *out = mf_tensor_retain((mf_tensor *)x);
        return MF_OK;
    }
    return mf__run1(out, MF_OP_cast, (const mf_tensor *[]){x}, 1, &(mf_params){.i = {dtype}});
}

/* ---- cat, split ---- */

mf_status mf__cat_fwd(mf_call *c) {
    const mf_tensor *first = c->in[0];
    int axis = (int)c->p.i[0];
    int64_t shape[MF_MAX_DIMS], at = 0;
    memcpy(shape, first->shape, sizeof shape);
    shape[axis] = 0;
    for (int i = 0; i < c->n_in; i++) {
        if (c->in[i]->shape[axis] > INT64_MAX - shape[axis]) return mf__fail(MF_ESHAPE, "cat: axis %d has too many elements", axis + 1);
        shape[axis] += c->in[i]->shape[axis];
    }
    MF_TRY(mf__new(&c->out[0], c->device, first->dtype, first->ndim, shape));
    for (int i = 0; i < c->n_in; i++) {
        mf_tensor *place;
        MF_TRY(narrowed(&place, c->out[0], axis, at, c->in[i]->shape[axis]));
        mf_iter it;
        mf__iter_make(&it, place->ndim, place->shape, (const mf_tensor *[]){place, c->in[i]}, 2);
        mf_status status = c->device->backend->copy(c->device, &it);
        mf_tensor_release(place);
        if (status != MF_OK) return status;
        at += c->in[i]->shape[axis];
    }
    return MF_OK;
}

mf_status mf__cat_bwd(mf_grad_call *g) {
    int axis = (int)g->p->i[0];
    int64_t at = 0;
    for (int i = 0; i < g->n_in; i++) {
        int64_t length = g->in[i]->shape[axis];
        if (g->wanted[i]) MF_TRY(mf_narrow(&g->din[i], g->dout[0], axis, at, length));
        at += length;
    }
    return MF_OK;
}

mf_status mf_cat(mf_tensor **out, const mf_tensor *const *in, int n_in, int axis) {
    *out = NULL;
    if (n_in < 1) return mf__fail(MF_EVALUE, "cat: no tensors given");
    for (int i = 0; i < n_in; i++) MF_TRY(mf__usable("cat", in[i]));
    MF_TRY(mf__axis(&axis, "cat", in[0], axis));
    for (int i = 1; i < n_in; i++) {
        int fits = in[i]->ndim == in[0]->ndim;
        for (int d = 0; fits && d < in[0]->ndim; d++) fits = d == axis || in[i]->shape[d] == in[0]->shape[d];
        if (!fits)
            return mf__fail(MF_ESHAPE, "cat: tensor %d is %s, expected %s but for axis %d", i + 1, mf__shape(in[i]).text, mf__shape(in[0]).text, axis + 1);
        if (in[i]->dtype != in[0]->dtype)
            return mf__fail(MF_EDTYPE, "cat: tensor %d is %s, the first is %s", i + 1, mf_dtype_name(in[i]->dtype), mf_dtype_name(in[0]->dtype));
    }
    return mf__run1(out, MF_OP_cat, in, n_in, &(mf_params){.i = {axis}});
}

mf_status mf__split_fwd(mf_call *c) {
    int axis = (int)c->p.f[0];
    int64_t at = 0;
    for (int i = 0; i < c->n_out; i++) {
        MF_TRY(narrowed(&c->out[i], c->in[0], axis, at, c->p.i[i]));
        at += c->p.i[i];
    }
    return MF_OK;
}

/* One new tensor filled piece by piece: cheaper than adding up a padded gradient for every piece. */
mf_status mf__split_bwd(mf_grad_call *g) {
    int axis = (int)g->p->f[0];
    int64_t at = 0;
    MF_TRY(mf__new_like(&g->din[0], g->in[0]));
    for (int i = 0; i < g->n_out; i++) {
        mf_tensor *place;
        MF_TRY(narrowed(&place, g->din[0], axis, at, g->p->i[i]));
        mf_status status = g->dout[i] ? mf_tensor_copy(place, g->dout[i]) : mf_tensor_fill(place, 0);
        mf_tensor_release(place);
        MF_TRY(status);
        at += g->p->i[i];
    }
    return MF_OK;
}

mf_status mf_split(mf_tensor **outs, const mf_tensor *x, int axis, const int64_t *sizes, int n) {
    for (int i = 0; i < n; i++) outs[i] = NULL;
    MF_TRY(mf__usable("split", x));
    MF_TRY(mf__axis(&axis, "split", x, axis));
    if (n < 1 || n > MF__MAX_OUT) return mf__fail(MF_EVALUE, "split: %d pieces, expected 1 to %d", n, MF__MAX_OUT);
    mf_params p = {.f = {axis}};
    int64_t sum = 0;
    for (int i = 0; i < n; i++) {
        if (sizes[i] < 0 || sizes[i] > x->shape[axis] - sum)
            return mf__fail(MF_EVALUE, "split: piece %d of size %" PRId64 " does not fit axis %d of %s", i + 1, sizes[i], axis + 1, mf__shape(x).text);
        p.i[i] = sizes[i];
        sum += sizes[i];
    }
    if (sum != x->shape[axis])
        return mf__fail(MF_ESHAPE, "split: the pieces add up to %" PRId64 ", axis %d of %s does not", sum, axis + 1, mf__shape(x).text);
    return mf__run(outs, n, MF_OP_split, (const mf_tensor *[]){x}, 1, &p);
}
