/* broadcast.c: shapes of elementwise operators: joining them, walking them, summing a gradient back over them.
 *
 * Shapes are aligned at their last axis; an axis of 1, or one that is missing, repeats:
 *
 *     a (8, 1, 3)        strides in an iteration over (8, 5, 3):  a (3, 0, 1)
 *     b    (5, 1)                                                 b (0, 1, 0)
 */
#include "op.h"

mf_status mf__broadcast_shape(int *ndim, int64_t *shape, const char *op, const mf_tensor *a, const mf_tensor *b) {
    const int n = a->ndim > b->ndim ? a->ndim : b->ndim;
    for (int i = 0; i < n; i++) {
        const int ia = i - (n - a->ndim), ib = i - (n - b->ndim);
        const int64_t sa = ia < 0 ? 1 : a->shape[ia], sb = ib < 0 ? 1 : b->shape[ib];
        if (sa != sb && sa != 1 && sb != 1)
            return mf__fail(MF_ESHAPE, "%s: shapes %s and %s do not broadcast: %lld against %lld, %d from the last axis", op,
                            mf__shape(a).text, mf__shape(b).text, (long long)sa, (long long)sb, n - 1 - i);
        shape[i] = sa == 1 ? sb : sa;
    }
    *ndim = n;
    return MF_OK;
}

/* Kernels go along the innermost axis. Coordinates and rotation matrices make it 3 long, which costs more in turning
 * round than in elements: then the nearest axis of some length takes its place. */
static void lengthen_rows(mf_iter *it) {
    enum { SHORT = 8, LONG = 16 };
    const int inner = it->ndim - 1;
    if (inner == 0 || it->shape[inner] >= SHORT) return;
    int axis = inner - 1;
    while (axis >= 0 && it->shape[axis] < LONG) axis--;
    if (axis < 0) return;
    const int64_t size = it->shape[inner];
    it->shape[inner] = it->shape[axis];
    it->shape[axis] = size;
    for (int k = 0; k < it->n_operands; k++) {
        int64_t *stride = it->operand[k].stride, step = stride[inner];
        stride[inner] = stride[axis];
        stride[axis] = step;
    }
}

void mf__iter_make(mf_iter *it, int ndim, const int64_t *shape, const mf_tensor *const *operands, int n) {
    *it = (mf_iter){.n_operands = n};
    for (int k = 0; k < n; k++) it->operand[k] = (mf_operand){.data = mf__data(operands[k]), .dtype = operands[k]->dtype};
    if (mf__count(ndim, shape) == 0) {
        it->ndim = 1;
        return;
    }
    int64_t merged = 0;                        /* axes written so far */
    for (int axis = 0; axis < ndim; axis++) {
        if (shape[axis] == 1) continue;
        int64_t stride[MF__MAX_OPERANDS];
        int joins = merged > 0;                /* with the axis before: every operand steps on evenly */
        for (int k = 0; k < n; k++) {
            const mf_tensor *x = operands[k];
            const int own = axis - (ndim - x->ndim);
            stride[k] = own < 0 || x->shape[own] == 1 ? 0 : x->stride[own];
            if (joins) joins = it->operand[k].stride[merged - 1] == stride[k] * shape[axis];
        }
        if (joins) it->shape[merged - 1] *= shape[axis];
        else it->shape[merged++] = shape[axis];
        for (int k = 0; k < n; k++) it->operand[k].stride[merged - 1] = stride[k];
    }
    it->ndim = (int)merged;
    if (merged == 0) {                         /* one element: an axis of size 1 keeps kernels free of a special case */
        it->ndim = 1;
        it->shape[0] = 1;
    }
    lengthen_rows(it);
}

mf_status mf__sum_to(mf_tensor **out, const mf_tensor *g, const mf_tensor *like) {
    *out = NULL;
    int axes[MF_MAX_DIMS], n = 0;
    const int leading = g->ndim - like->ndim;
    for (int i = 0; i < g->ndim; i++)
        if (i < leading || (like->shape[i - leading] == 1 && g->shape[i] != 1)) axes[n++] = i;
    if (n == 0) {
        *out = mf_tensor_retain((mf_tensor *)g);
        return MF_OK;
    }
    if (leading == 0) return mf_sum(out, g, axes, n, 1);
    mf_tensor *sum = NULL;
    MF_TRY(mf_sum(&sum, g, axes, n, 1));
    const mf_status status = mf_reshape(out, sum, like->ndim, like->shape);
    mf_tensor_release(sum);
    return status;
}

mf_status mf__fits(const char *op, const mf_tensor *x, const mf_packing *packing) {
    if (!packing) return mf__fail(MF_EVALUE, "%s: no packing given", op);
    if (x->ndim < 1 || x->shape[0] != packing->total)
        return mf__fail(MF_ESHAPE, "%s: shape %s does not begin with the %lld residues of the packing", op, mf__shape(x).text,
                        (long long)packing->total);
    return MF_OK;
}
