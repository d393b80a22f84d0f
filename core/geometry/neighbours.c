/* neighbours.c: nearest residues, the features made of their distances and positions, and the pair-distance loss.
 *
 * None of these makes anything of size L x L: neighbours are (N, k), features (N, k, bins) and (N, k, width), and the
 * loss is two numbers a sequence. Only the loss is differentiable, in the predicted atoms. */
#include "geometry.h"
#include <math.h>
#include <string.h>

mf_status mf__neighbours_fwd(mf_call *c) {
    const char *op = c->op->name;
    const mf_tensor *x = c->in[0], *mask = c->in[1];
    const mf_packing *packing = c->p.packing;
    int64_t k = c->p.i[0];
    mf_tensor *flat[2] = {NULL};
    mf_status status = MF_OK;
    MF_TRY(mf__geometric(op, "x", x, x));
    MF_TRY(mf__packed(op, x, packing));
    MF_TRY(mf__shaped(op, "x", x, 2, (int64_t[]){packing->total, 3}));
    if (mask) MF_TRY(mf__shaped(op, "mask", mask, 1, (int64_t[]){packing->total}));
    if (k < 1) return mf__fail(MF_EVALUE, "%s: k is %lld, expected at least 1", op, (long long)k);
    for (int64_t s = 0; s < packing->count; s++) {
        int64_t length = packing->offsets[s + 1] - packing->offsets[s];
        if (length > 0 && k > length)
            return mf__fail(MF_EVALUE, "%s: k is %lld, but sequence %lld has %lld residues", op, (long long)k, (long long)s + 1, (long long)length);
    }
    for (int i = 0; i < 2; i++) MF_TRY_OUT(mf__plain(&flat[i], c->in[i], x->dtype));
    MF_TRY_OUT(mf__new(&c->out[0], c->device, MF_INT32, 2, (int64_t[]){packing->total, k}));
    MF_TRY_OUT(mf__new(&c->out[1], c->device, x->dtype, 2, (int64_t[]){packing->total, k}));
    status = c->device->backend->neighbours(c->device, x->dtype, packing, k, mf__data(flat[0]), mf__data_or_null(flat[1]),
                                            mf__data(c->out[0]), mf__data(c->out[1]));
out:
    for (int i = 0; i < 2; i++) mf_tensor_release(flat[i]);
    return status;
}

/* x with one axis more, of this size. */
static mf_status widen(int64_t *shape, const char *op, const mf_tensor *x, int64_t size) {
    if (x->ndim == MF_MAX_DIMS) return mf__fail(MF_ESHAPE, "%s: %s has no room for another axis", op, mf__shape(x).text);
    memcpy(shape, x->shape, (size_t)x->ndim * sizeof *shape);
    shape[x->ndim] = size;
    return MF_OK;
}

mf_status mf__distogram_fwd(mf_call *c) {
    const char *op = c->op->name;
    const mf_tensor *x = c->in[0];
    int64_t shape[MF_MAX_DIMS], bins = c->p.i[0];
    double lo = c->p.f[0], hi = c->p.f[1];
    mf_tensor *flat = NULL;
    MF_TRY(mf__geometric(op, "distance", x, x));
    if (bins < 1) return mf__fail(MF_EVALUE, "%s: bins is %lld, expected at least 1", op, (long long)bins);
    if (!isfinite(lo) || !isfinite(hi) || !(lo < hi) || !(hi < 1e8))
        return mf__fail(MF_EVALUE, "%s: edges go from %g to %g, expected lo < hi < 1e8", op, lo, hi);
    MF_TRY(widen(shape, op, x, bins));
    MF_TRY(mf__contiguous(&flat, x));
    mf_status status = mf__new(&c->out[0], c->device, x->dtype, x->ndim + 1, shape);
    if (status == MF_OK)
        status = c->device->backend->distogram(c->device, x->dtype, mf_tensor_count(x), mf__data(flat), lo, hi, bins, mf__data(c->out[0]));
    mf_tensor_release(flat);
    return status;
}

mf_status mf__index_embedding_fwd(mf_call *c) {
    const char *op = c->op->name;
    const mf_tensor *x = c->in[0];
    int64_t shape[MF_MAX_DIMS], width = c->p.i[0];
    double max_len = c->p.f[0];
    mf_tensor *flat = NULL;
    if (!mf__is_index(x->dtype)) return mf__fail(MF_EDTYPE, "%s: index is %s, expected int32 or int64", op, mf_dtype_name(x->dtype));
    if (width < 2 || width % 2) return mf__fail(MF_EVALUE, "%s: width is %lld, expected an even number of at least 2", op, (long long)width);
    if (!isfinite(max_len) || !(max_len > 0)) return mf__fail(MF_EVALUE, "%s: max_len is %g, expected a positive number", op, max_len);
    MF_TRY(widen(shape, op, x, width));
    MF_TRY(mf__plain(&flat, x, MF_INT32));
    mf_status status = mf__new(&c->out[0], c->device, MF_FLOAT32, x->ndim + 1, shape);
    if (status == MF_OK)
        status = c->device->backend->index_embedding(c->device, mf_tensor_count(x), mf__data(flat), width, max_len, mf__data(c->out[0]));
    mf_tensor_release(flat);
    return status;
}

/* ---- pair-distance loss: in (predicted, truth, mask or NULL for all), out (sum, pairs) ---- */

mf_status mf__pair_distance_loss_fwd(mf_call *c) {
    const char *op = c->op->name;
    const mf_tensor *predicted = c->in[0], *truth = c->in[1], *mask = c->in[2];
    const mf_packing *packing = c->p.packing;
    double cutoff = c->p.f[0];
    mf_tensor *flat[3] = {NULL};
    mf_status status = MF_OK;
    MF_TRY(mf__geometric(op, "predicted", predicted, predicted));
    MF_TRY(mf__geometric(op, "truth", truth, predicted));
    MF_TRY(mf__packed(op, predicted, packing));
    if (predicted->ndim != 3 || predicted->shape[2] != 3)
        return mf__fail(MF_ESHAPE, "%s: predicted %s must be (%lld, atoms, 3)", op, mf__shape(predicted).text, (long long)packing->total);
    MF_TRY(mf__shaped(op, "truth", truth, 3, predicted->shape));
    if (mask) MF_TRY(mf__shaped(op, "mask", mask, 2, predicted->shape));
    if (!isfinite(cutoff) || cutoff < 0) return mf__fail(MF_EVALUE, "%s: cutoff is %g, expected angstrom, or 0 for none", op, cutoff);
    MF_TRY_OUT(mf__contiguous(&flat[0], predicted));
    MF_TRY_OUT(mf__contiguous(&flat[1], truth));
    MF_TRY_OUT(mf__mask(&flat[2], mask, c->device, MF_BOOL, 2, predicted->shape));
    for (int i = 0; i < 2; i++) MF_TRY_OUT(mf__new(&c->out[i], c->device, predicted->dtype, 1, &packing->count));
    mf_pair_loss_args a = {.dtype = predicted->dtype, .atoms = predicted->shape[1], .cutoff = cutoff, .packing = packing,
                           .predicted = mf__data(flat[0]), .truth = mf__data(flat[1]), .mask = mf__data(flat[2]),
                           .sum = mf__data(c->out[0]), .pairs = mf__data(c->out[1])};
    status = c->device->backend->pair_loss(c->device, &a);
out:
    for (int i = 0; i < 3; i++) mf_tensor_release(flat[i]);
    return status;
}

/* The number of pairs does not move, so only the sum's cotangent counts; the truth is data and gets no gradient. */
mf_status mf__pair_distance_loss_bwd(mf_grad_call *g) {
    const mf_tensor *predicted = g->in[0];
    mf_tensor *flat[4] = {NULL};
    mf_status status = MF_OK;
    if (!g->wanted[0]) return MF_OK;
    if (!g->dout[0]) return mf__new_zeros(&g->din[0], g->device, predicted->dtype, predicted->ndim, predicted->shape);
    MF_TRY_OUT(mf__contiguous(&flat[0], predicted));
    MF_TRY_OUT(mf__contiguous(&flat[1], g->in[1]));
    MF_TRY_OUT(mf__mask(&flat[2], g->in[2], g->device, MF_BOOL, 2, predicted->shape));
    MF_TRY_OUT(mf__contiguous(&flat[3], g->dout[0]));
    MF_TRY_OUT(mf__new_like(&g->din[0], predicted));
    mf_pair_loss_args a = {.dtype = predicted->dtype, .atoms = predicted->shape[1], .cutoff = g->p->f[0], .packing = g->p->packing,
                           .predicted = mf__data(flat[0]), .truth = mf__data(flat[1]), .mask = mf__data(flat[2]),
                           .dsum = mf__data(flat[3]), .dpredicted = mf__data(g->din[0])};
    status = g->device->backend->pair_loss_grad(g->device, &a);
out:
    for (int i = 0; i < 4; i++) mf_tensor_release(flat[i]);
    return status;
}

/* ---- public ---- */

mf_status mf_neighbours(mf_tensor **index, mf_tensor **distance, const mf_tensor *x, const mf_tensor *mask, int k, const mf_packing *packing) {
    mf_tensor *out[2];
    mf_status status = mf__run(out, 2, MF_OP_neighbours, (const mf_tensor *[]){x, mask}, 2, &(mf_params){.i = {k}, .packing = packing});
    *index = out[0];
    *distance = out[1];
    return status;
}

mf_status mf_distogram(mf_tensor **out, const mf_tensor *distance, double lo, double hi, int bins) {
    return mf__run1(out, MF_OP_distogram, &distance, 1, &(mf_params){.f = {lo, hi}, .i = {bins}});
}

mf_status mf_index_embedding(mf_tensor **out, const mf_tensor *index, int width, double max_len) {
    return mf__run1(out, MF_OP_index_embedding, &index, 1, &(mf_params){.f = {max_len}, .i = {width}});
}

mf_status mf_pair_distance_loss(mf_tensor **sum, mf_tensor **pairs, const mf_tensor *predicted, const mf_tensor *truth, const mf_tensor *mask, double cutoff, const mf_packing *packing) {
    mf_tensor *out[2];
    mf_status status = mf__run(out, 2, MF_OP_pair_distance_loss, (const mf_tensor *[]){predicted, truth, mask}, 3,
                               &(mf_params){.f = {cutoff}, .packing = packing});
    *sum = out[0];
    *pairs = out[1];
    return status;
}
