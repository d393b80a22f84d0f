/* neighbour_linear.c: a linear layer over the features of nearest neighbours, which are never made for the whole batch.
 *
 *   out_i = bias + sum_j W[:, j, bin(d_ij)] + sum_j W[:, j, bins ..] E(p_ij)         j < k: slots, nearest first
 *
 *   index p, distance d (N, k), weight W (O, k (bins + feat)), in each slot first the bins of the distance, then the embedding of the
 *   neighbour's position; bias (O) or NULL. A distance in no bin adds nothing. The same as
 *   linear(cat(distogram(d), index_embedding(p))), whose input has k (bins + feat) numbers a residue: 6.9 KB at the usual k = 20.
 *
 * Of a one-hot row and the weight a product is but one column, so the first sum gathers rows of the transposed weights, and its
 * gradient sums rows of dout by bin. The second is a product with the embeddings of as many residues as fit CHUNK_BYTES, made
 * again in backward, rounded as products of linear layers are. What a step holds for backward is the index and the distance.
 *
 * The weight is split first into what is gathered, (k, bins, O), and what is multiplied, (O, k feat); its gradient put together. */
#include "features.h"
#include "geometry.h"
#include <string.h>

enum { CHUNK_BYTES = 16 << 20, LEAST_ROUNDED = 16 };

/* Sizes of one call, from its operands and parameters. */
typedef struct sizes {
    int64_t n, k, bins, feat, outputs;
    int64_t rows;                 /* of a chunk */
    double max_len;
    int dtype, precision;
} sizes;

static sizes sizes_of(const mf_tensor *index, const mf_tensor *weight, const mf_params *p) {
    sizes s = {.n = index->shape[0], .k = index->shape[1], .bins = p->i[0], .feat = p->i[1], .outputs = weight->shape[0], .max_len = p->f[2],
               .dtype = weight->dtype};
    int rounded = s.dtype == MF_FLOAT32 && s.outputs >= LEAST_ROUNDED && s.k * s.feat >= LEAST_ROUNDED;
    int64_t most = CHUNK_BYTES / (int64_t)sizeof(float) / (s.k * s.feat), chunks;
    s.precision = rounded ? (int)p->i[2] : MF_EXACT;
    if (most < 1) most = 1;
    chunks = (s.n + most - 1) / most;
    s.rows = chunks > 0 ? (s.n + chunks - 1) / chunks : 0;
    return s;
}

/* The bins' part of a contiguous (O, k (bins + feat)) as (k, bins, O), and the rest as (O, k, feat). */
static mf_status bins_of(mf_tensor **out, const mf_tensor *weight, const sizes *s) {
    const int64_t slot = s->bins + s->feat;
    return mf__view(out, weight, 3, (int64_t[]){s->k, s->bins, s->outputs}, (int64_t[]){slot, 1, s->k * slot}, weight->offset);
}
static mf_status rest_of(mf_tensor **out, const mf_tensor *weight, const sizes *s) {
    const int64_t slot = s->bins + s->feat;
    return mf__view(out, weight, 3, (int64_t[]){s->outputs, s->k, s->feat}, (int64_t[]){s->k * slot, slot, 1}, weight->offset + s->bins);
}

static void *past(const mf_tensor *x, int64_t elements) {
    char *data = mf__data(x);
    return data ? data + elements * mf_dtype_bytes(x->dtype) : NULL;
}

/* Embeddings of the residues from `first` on, (rows, k feat), in the weight's type: `embedded`, by way of `narrow` where that is not float32. */
static mf_status embed(const sizes *s, const mf_tensor *index, int64_t first, int64_t rows, mf_tensor *narrow, mf_tensor *embedded) {
    mf_device *d = index->device;
    MF_TRY(d->backend->index_embedding(d, rows * s->k, past(index, first * s->k), s->feat, s->max_len, mf__data(narrow)));
    return narrow == embedded ? MF_OK : mf_tensor_copy(embedded, narrow);
}

/* Room for one chunk; `embedded` is `narrow`, retained, for float32. */
static mf_status make_room(const sizes *s, mf_device *d, mf_tensor **narrow, mf_tensor **embedded) {
    const int64_t shape[] = {s->rows, s->k * s->feat};
    MF_TRY(mf__new(narrow, d, MF_FLOAT32, 2, shape));
    if (s->dtype != MF_FLOAT32) return mf__new(embedded, d, s->dtype, 2, shape);
    *embedded = mf_tensor_retain(*narrow);
    return MF_OK;
}

static mf_status check(mf_call *c) {
    const char *op = c->op->name;
    const mf_tensor *index = c->in[0], *distance = c->in[1], *weight = c->in[2], *bias = c->in[3];
    const double lo = c->p.f[0], hi = c->p.f[1], max_len = c->p.f[2];
    const int64_t bins = c->p.i[0], feat = c->p.i[1];
    if (!index) return mf__fail(MF_EVALUE, "%s: index is missing", op);
    if (!mf__is_index(index->dtype)) return mf__fail(MF_EDTYPE, "%s: index is %s, expected int32 or int64", op, mf_dtype_name(index->dtype));
    if (index->ndim != 2 || index->shape[1] < 1) return mf__fail(MF_ESHAPE, "%s: index %s must be (N, k), k at least 1", op, mf__shape(index).text);
    MF_TRY(mf__geometric(op, "distance", distance, distance));
    MF_TRY(mf__shaped(op, "distance", distance, 2, index->shape));
    if (bins < 1) return mf__fail(MF_EVALUE, "%s: bins is %lld, expected at least 1", op, (long long)bins);
    if (feat < 2 || feat % 2) return mf__fail(MF_EVALUE, "%s: feat is %lld, expected an even number of at least 2", op, (long long)feat);
    if (!isfinite(lo) || !isfinite(hi) || !(lo < hi) || !(hi < 1e8))
        return mf__fail(MF_EVALUE, "%s: edges go from %g to %g, expected lo < hi < 1e8", op, lo, hi);
    if (!isfinite(max_len) || !(max_len > 0)) return mf__fail(MF_EVALUE, "%s: max_len is %g, expected a positive number", op, max_len);
    MF_TRY(mf__geometric(op, "weight", weight, weight));
    if (weight->ndim != 2 || weight->shape[1] != index->shape[1] * (bins + feat))
        return mf__fail(MF_ESHAPE, "%s: weight %s must be (outputs, %lld): %lld neighbours of %lld bins and %lld features", op,
                        mf__shape(weight).text, (long long)(index->shape[1] * (bins + feat)), (long long)index->shape[1], (long long)bins,
                        (long long)feat);
    if (!bias) return MF_OK;
    MF_TRY(mf__geometric(op, "bias", bias, weight));
    return mf__shaped(op, "bias", bias, 1, weight->shape);
}

mf_status mf__neighbour_linear_fwd(mf_call *c) {
    MF_TRY(check(c));
    mf_device *d = c->device;
    const sizes s = sizes_of(c->in[0], c->in[2], &c->p);
    mf_tensor *index = NULL, *distance = NULL, *weight = NULL, *bias = NULL, *view = NULL, *table = NULL, *rest = NULL, *narrow = NULL,
              *embedded = NULL;
    mf_status status = MF_OK;
    MF_TRY_OUT(mf__plain(&index, c->in[0], MF_INT32));
    MF_TRY_OUT(mf__contiguous(&distance, c->in[1]));
    MF_TRY_OUT(mf__contiguous(&weight, c->in[2]));
    if (c->in[3]) MF_TRY_OUT(mf__contiguous(&bias, c->in[3]));
    MF_TRY_OUT(bins_of(&view, weight, &s));
    MF_TRY_OUT(mf__contiguous(&table, view));
    mf_tensor_release(view);
    view = NULL;
    MF_TRY_OUT(rest_of(&view, weight, &s));
    MF_TRY_OUT(mf__contiguous(&rest, view));
    MF_TRY_OUT(mf__new(&c->out[0], d, s.dtype, 2, (int64_t[]){s.n, s.outputs}));
    mf_bins_args a = {.dtype = s.dtype, .distance_dtype = distance->dtype, .n = s.n, .k = s.k, .width = s.outputs, .bins = s.bins,
                      .lo = c->p.f[0], .hi = c->p.f[1], .distance = mf__data(distance), .table = mf__data(table),
                      .bias = mf__data_or_null(bias), .y = mf__data(c->out[0])};
    MF_TRY_OUT(d->backend->bins_gather(d, &a));
    MF_TRY_OUT(make_room(&s, d, &narrow, &embedded));
    for (int64_t first = 0; first < s.n; first += s.rows) {
        const int64_t rows = s.n - first < s.rows ? s.n - first : s.rows;
        MF_TRY_OUT(embed(&s, index, first, rows, narrow, embedded));
        const mf_gemm g = {.dtype = s.dtype, .transpose_b = 1, .precision = s.precision, .m = rows, .n = s.outputs, .k = s.k * s.feat, .batch = 1,
                           .lda = s.k * s.feat, .ldb = s.k * s.feat, .ldc = s.outputs > 0 ? s.outputs : 1, .alpha = 1, .beta = 1,
                           .a = mf__data(embedded), .b = mf__data(rest), .c = past(c->out[0], first * s.outputs)};
        MF_TRY_OUT(d->backend->gemm(d, &g));
    }
out:
    mf_tensor_release(index);
    mf_tensor_release(distance);
    mf_tensor_release(weight);
    mf_tensor_release(bias);
    mf_tensor_release(view);
    mf_tensor_release(table);
    mf_tensor_release(rest);
    mf_tensor_release(narrow);
    mf_tensor_release(embedded);
    return status;
}

/* dweight's two parts into their places. */
static mf_status put_together(mf_tensor *dweight, const mf_tensor *table, const mf_tensor *rest, const sizes *s) {
    mf_tensor *view;
    MF_TRY(bins_of(&view, dweight, s));
    mf_status status = mf_tensor_copy(view, table);
    mf_tensor_release(view);
    if (status == MF_OK) status = rest_of(&view, dweight, s);
    if (status != MF_OK) return status;
    status = mf_tensor_copy(view, rest);
    mf_tensor_release(view);
    return status;
}

/* Distances and positions are data and get no gradient. */
mf_status mf__neighbour_linear_bwd(mf_grad_call *g) {
    mf_device *d = g->device;
    const sizes s = sizes_of(g->in[0], g->in[2], g->p);
    const int wants_bias = g->in[3] && g->wanted[3];
    mf_tensor *index = NULL, *distance = NULL, *dout = NULL, *table = NULL, *rest = NULL, *narrow = NULL, *embedded = NULL;
    mf_status status = MF_OK;
    MF_TRY_OUT(mf__contiguous(&dout, g->dout[0]));
    if (wants_bias) MF_TRY_OUT(mf__new(&g->din[3], d, s.dtype, 1, &s.outputs));
    if (g->wanted[2]) {
        MF_TRY_OUT(mf__plain(&index, g->in[0], MF_INT32));
        MF_TRY_OUT(mf__contiguous(&distance, g->in[1]));
        MF_TRY_OUT(mf__new(&table, d, s.dtype, 3, (int64_t[]){s.k, s.bins, s.outputs}));
        mf_bins_args a = {.dtype = s.dtype, .distance_dtype = distance->dtype, .n = s.n, .k = s.k, .width = s.outputs, .bins = s.bins,
                          .lo = g->p->f[0], .hi = g->p->f[1], .distance = mf__data(distance), .dy = mf__data(dout), .dtable = mf__data(table)};
        MF_TRY_OUT(d->backend->bins_scatter(d, &a));
        MF_TRY_OUT(mf__new(&rest, d, s.dtype, 3, (int64_t[]){s.outputs, s.k, s.feat}));
        if (s.n == 0) MF_TRY_OUT(mf_tensor_fill(rest, 0));
        MF_TRY_OUT(make_room(&s, d, &narrow, &embedded));
        for (int64_t first = 0; first < s.n; first += s.rows) {
            const int64_t rows = s.n - first < s.rows ? s.n - first : s.rows;
            MF_TRY_OUT(embed(&s, index, first, rows, narrow, embedded));
            const mf_gemm product = {.dtype = s.dtype, .transpose_a = 1, .precision = s.precision, .m = s.outputs, .n = s.k * s.feat, .k = rows,
                                     .batch = 1, .lda = s.outputs > 0 ? s.outputs : 1, .ldb = s.k * s.feat, .ldc = s.k * s.feat, .alpha = 1,
                                     .beta = first > 0, .a = past(dout, first * s.outputs), .b = mf__data(embedded), .c = mf__data(rest)};
            MF_TRY_OUT(d->backend->gemm(d, &product));
        }
        MF_TRY_OUT(mf__new(&g->din[2], d, s.dtype, 2, g->in[2]->shape));
        MF_TRY_OUT(put_together(g->din[2], table, rest, &s));
    }
    if (wants_bias)
        status = d->backend->bias_grad(d, s.dtype, s.n, s.outputs, s.outputs, mf__data(dout), NULL, NULL, mf__data(g->din[3]));
out:
    mf_tensor_release(index);
    mf_tensor_release(distance);
    mf_tensor_release(dout);
    mf_tensor_release(table);
    mf_tensor_release(rest);
    mf_tensor_release(narrow);
    mf_tensor_release(embedded);
    return status;
}

mf_status mf_neighbour_linear(mf_tensor **out, const mf_tensor *index, const mf_tensor *distance, const mf_tensor *weight, const mf_tensor *bias,
                              const mf_neighbour_params *params) {
    const int products = weight ? weight->ctx->products : MF_EXACT;
    return mf__run1(out, MF_OP_neighbour_linear, (const mf_tensor *[]){index, distance, weight, bias}, 4,
                    &(mf_params){.f = {params->lo, params->hi, params->max_len}, .i = {params->bins, params->feat, products}});
}
