/* backend.c: the null device: every kernel succeeds without touching anything, so a program runs for its shapes and
 * bytes alone. A user asks it what a model of 20,000 residues would take before renting the machine for it; memory
 * is counted exactly as on a real device, because operators allocate the same tensors in the same order. */
#include "../base/error.h"
#include "../ops/kernels.h"

#define UNUSED(x) ((void)(x))

static mf_status null_open(mf_device *d) { UNUSED(d); return MF_OK; }
static void null_close(mf_device *d) { UNUSED(d); }
static mf_status null_alloc(mf_device *d, void **data, int64_t bytes) { UNUSED(d); UNUSED(data); UNUSED(bytes); *data = NULL; return MF_OK; }
static void null_release(mf_device *d, void *data, int64_t bytes) { UNUSED(d); UNUSED(data); UNUSED(bytes); }
static mf_status null_upload(mf_device *d, void *to, const void *host, int64_t bytes) { UNUSED(d); UNUSED(to); UNUSED(host); UNUSED(bytes); return MF_OK; }
static mf_status null_download(mf_device *d, void *host, const void *from, int64_t bytes) { UNUSED(d); UNUSED(host); UNUSED(from); UNUSED(bytes); return mf__fail(MF_EDEVICE, "read: the null device holds shapes, not values"); }
static mf_status null_synchronize(mf_device *d) { UNUSED(d); return MF_OK; }
static mf_status null_copy(mf_device *d, const mf_iter *it) { UNUSED(d); UNUSED(it); return MF_OK; }
static mf_status null_fill(mf_device *d, const mf_iter *it, double value) { UNUSED(d); UNUSED(it); UNUSED(value); return MF_OK; }
static mf_status null_axpy(mf_device *d, const mf_iter *it, double a, double b) { UNUSED(d); UNUSED(it); UNUSED(a); UNUSED(b); return MF_OK; }
static mf_status null_unary(mf_device *d, const mf_iter *it, int op, double p0, double p1) { UNUSED(d); UNUSED(it); UNUSED(op); UNUSED(p0); UNUSED(p1); return MF_OK; }
static mf_status null_unary_grad(mf_device *d, const mf_iter *it, int op, double p0, double p1) { UNUSED(d); UNUSED(it); UNUSED(op); UNUSED(p0); UNUSED(p1); return MF_OK; }
static mf_status null_binary(mf_device *d, const mf_iter *it, int op) { UNUSED(d); UNUSED(it); UNUSED(op); return MF_OK; }
static mf_status null_where(mf_device *d, const mf_iter *it) { UNUSED(d); UNUSED(it); return MF_OK; }
static mf_status null_logical_not(mf_device *d, const mf_iter *it) { UNUSED(d); UNUSED(it); return MF_OK; }
static mf_status null_round_to(mf_device *d, const mf_iter *it, int precision) { UNUSED(d); UNUSED(it); UNUSED(precision); return MF_OK; }
static mf_status null_dropout(mf_device *d, int dtype, int64_t n, const void *x, void *y, double rate, mf_rng rng) { UNUSED(d); UNUSED(dtype); UNUSED(n); UNUSED(x); UNUSED(y); UNUSED(rate); UNUSED(rng); return MF_OK; }
static mf_status null_reduce(mf_device *d, int op, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y) { UNUSED(d); UNUSED(op); UNUSED(dtype); UNUSED(outer); UNUSED(middle); UNUSED(inner); UNUSED(x); UNUSED(y); return MF_OK; }
static mf_status null_cumsum(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y, int reverse) { UNUSED(d); UNUSED(dtype); UNUSED(outer); UNUSED(middle); UNUSED(inner); UNUSED(x); UNUSED(y); UNUSED(reverse); return MF_OK; }
static mf_status null_logsumexp(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y) { UNUSED(d); UNUSED(dtype); UNUSED(outer); UNUSED(middle); UNUSED(inner); UNUSED(x); UNUSED(y); return MF_OK; }
static mf_status null_softmax(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y, int logarithm) { UNUSED(d); UNUSED(dtype); UNUSED(outer); UNUSED(middle); UNUSED(inner); UNUSED(x); UNUSED(y); UNUSED(logarithm); return MF_OK; }
static mf_status null_softmax_grad(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *y, const void *dy, void *dx, int logarithm) { UNUSED(d); UNUSED(dtype); UNUSED(outer); UNUSED(middle); UNUSED(inner); UNUSED(y); UNUSED(dy); UNUSED(dx); UNUSED(logarithm); return MF_OK; }
static mf_status null_sort(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, int64_t k, const void *x, void *values, int32_t *index, int descending) { UNUSED(d); UNUSED(dtype); UNUSED(outer); UNUSED(middle); UNUSED(inner); UNUSED(k); UNUSED(x); UNUSED(values); UNUSED(index); UNUSED(descending); return MF_OK; }
static mf_status null_segment_sum(mf_device *d, int dtype, const mf_packing *packing, int64_t inner, const void *x, void *y) { UNUSED(d); UNUSED(dtype); UNUSED(packing); UNUSED(inner); UNUSED(x); UNUSED(y); return MF_OK; }
static mf_status null_segment_expand(mf_device *d, int64_t row_bytes, const mf_packing *packing, const void *x, void *y) { UNUSED(d); UNUSED(row_bytes); UNUSED(packing); UNUSED(x); UNUSED(y); return MF_OK; }
static mf_status null_gemm(mf_device *d, const mf_gemm *g) { UNUSED(d); UNUSED(g); return MF_OK; }
static mf_status null_layer_norm(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *x, const void *weight, const void *bias, double epsilon, void *y, void *mean, void *rstd) { UNUSED(d); UNUSED(dtype); UNUSED(rows); UNUSED(columns); UNUSED(x); UNUSED(weight); UNUSED(bias); UNUSED(epsilon); UNUSED(y); UNUSED(mean); UNUSED(rstd); return MF_OK; }
static mf_status null_layer_norm_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *dy, const void *x, const void *weight, const void *mean, const void *rstd, void *dx, void *dweight, void *dbias) { UNUSED(d); UNUSED(dtype); UNUSED(rows); UNUSED(columns); UNUSED(dy); UNUSED(x); UNUSED(weight); UNUSED(mean); UNUSED(rstd); UNUSED(dx); UNUSED(dweight); UNUSED(dbias); return MF_OK; }
static mf_status null_index_select(mf_device *d, int64_t element_bytes, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *x, void *y) { UNUSED(d); UNUSED(element_bytes); UNUSED(outer); UNUSED(size); UNUSED(inner); UNUSED(m); UNUSED(index_dtype); UNUSED(index); UNUSED(x); UNUSED(y); return MF_OK; }
static mf_status null_index_add(mf_device *d, int dtype, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *source, void *y) { UNUSED(d); UNUSED(dtype); UNUSED(outer); UNUSED(size); UNUSED(inner); UNUSED(m); UNUSED(index_dtype); UNUSED(index); UNUSED(source); UNUSED(y); return MF_OK; }
static mf_status null_gather(mf_device *d, int64_t element_bytes, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *x, void *y) { UNUSED(d); UNUSED(element_bytes); UNUSED(outer); UNUSED(size); UNUSED(inner); UNUSED(m); UNUSED(index_dtype); UNUSED(index); UNUSED(x); UNUSED(y); return MF_OK; }
static mf_status null_scatter_add(mf_device *d, int dtype, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *source, void *y) { UNUSED(d); UNUSED(dtype); UNUSED(outer); UNUSED(size); UNUSED(inner); UNUSED(m); UNUSED(index_dtype); UNUSED(index); UNUSED(source); UNUSED(y); return MF_OK; }
static mf_status null_random(mf_device *d, int kind, int dtype, int64_t n, void *x, mf_rng rng, double p0, double p1) { UNUSED(d); UNUSED(kind); UNUSED(dtype); UNUSED(n); UNUSED(x); UNUSED(rng); UNUSED(p0); UNUSED(p1); return MF_OK; }
static mf_status null_random_rotations(mf_device *d, int dtype, int64_t n, void *R, mf_rng rng) { UNUSED(d); UNUSED(dtype); UNUSED(n); UNUSED(R); UNUSED(rng); return MF_OK; }
static mf_status null_random_igso3(mf_device *d, int dtype, int64_t n, void *v, mf_rng rng, const void *sigma, int64_t n_sigma) { UNUSED(d); UNUSED(dtype); UNUSED(n); UNUSED(v); UNUSED(rng); UNUSED(sigma); UNUSED(n_sigma); return MF_OK; }
static mf_status null_random_permutation(mf_device *d, int dtype, int64_t n, void *x, mf_rng rng) { UNUSED(d); UNUSED(dtype); UNUSED(n); UNUSED(x); UNUSED(rng); return MF_OK; }
static mf_status null_attention(mf_device *d, const mf_attention_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_attention_grad(mf_device *d, const mf_attention_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_pair_attention(mf_device *d, const mf_attention_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_pair_attention_grad(mf_device *d, const mf_attention_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_rowwise(mf_device *d, int kind, int dtype, int64_t rows, const void *const *in, void *const *out) { UNUSED(d); UNUSED(kind); UNUSED(dtype); UNUSED(rows); UNUSED(in); UNUSED(out); return MF_OK; }
static mf_status null_frames_apply(mf_device *d, int dtype, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x, void *y) { UNUSED(d); UNUSED(dtype); UNUSED(n); UNUSED(points); UNUSED(inverse); UNUSED(R); UNUSED(t); UNUSED(x); UNUSED(y); return MF_OK; }
static mf_status null_frames_apply_grad(mf_device *d, int dtype, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x, const void *dy, void *dR, void *dt, void *dx) { UNUSED(d); UNUSED(dtype); UNUSED(n); UNUSED(points); UNUSED(inverse); UNUSED(R); UNUSED(t); UNUSED(x); UNUSED(dy); UNUSED(dR); UNUSED(dt); UNUSED(dx); return MF_OK; }
static mf_status null_frames_gauge(mf_device *d, int dtype, const mf_packing *packing, const void *R, const void *t, const void *mask, void *gauge_R, void *gauge_t) { UNUSED(d); UNUSED(dtype); UNUSED(packing); UNUSED(R); UNUSED(t); UNUSED(mask); UNUSED(gauge_R); UNUSED(gauge_t); return MF_OK; }
static mf_status null_kabsch(mf_device *d, int dtype, const mf_packing *packing, const void *moving, const void *fixed, const void *weight, void *R, void *t, void *rmsd) { UNUSED(d); UNUSED(dtype); UNUSED(packing); UNUSED(moving); UNUSED(fixed); UNUSED(weight); UNUSED(R); UNUSED(t); UNUSED(rmsd); return MF_OK; }
static mf_status null_kabsch_pairs(mf_device *d, int dtype, const mf_packing *packing, int64_t n, const int32_t *pairs, const void *moving, const void *fixed, const void *weight, void *R, void *distance) { UNUSED(d); UNUSED(dtype); UNUSED(packing); UNUSED(n); UNUSED(pairs); UNUSED(moving); UNUSED(fixed); UNUSED(weight); UNUSED(R); UNUSED(distance); return MF_OK; }
static mf_status null_random_each(mf_device *d, const mf_random_each_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_neighbours(mf_device *d, int dtype, const mf_packing *packing, int64_t k, const void *x, const void *mask, int32_t *index, void *distance) { UNUSED(d); UNUSED(dtype); UNUSED(packing); UNUSED(k); UNUSED(x); UNUSED(mask); UNUSED(index); UNUSED(distance); return MF_OK; }
static mf_status null_distogram(mf_device *d, int dtype, int64_t n, const void *distance, double lo, double hi, int64_t bins, void *y) { UNUSED(d); UNUSED(dtype); UNUSED(n); UNUSED(distance); UNUSED(lo); UNUSED(hi); UNUSED(bins); UNUSED(y); return MF_OK; }
static mf_status null_index_embedding(mf_device *d, int64_t n, const int32_t *index, int64_t width, double max_len, float *y) { UNUSED(d); UNUSED(n); UNUSED(index); UNUSED(width); UNUSED(max_len); UNUSED(y); return MF_OK; }
static mf_status null_rotary(mf_device *d, const mf_rotary_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_pair_loss(mf_device *d, const mf_pair_loss_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_pair_loss_grad(mf_device *d, const mf_pair_loss_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_adam(mf_device *d, int dtype, int64_t n, void *p, void *m, void *v, const void *g, const mf_adam_params *params) { UNUSED(d); UNUSED(dtype); UNUSED(n); UNUSED(p); UNUSED(m); UNUSED(v); UNUSED(g); UNUSED(params); return MF_OK; }
static mf_status null_sgd(mf_device *d, int dtype, int64_t n, void *p, void *velocity, const void *g, double lr, double momentum, double weight_decay) { UNUSED(d); UNUSED(dtype); UNUSED(n); UNUSED(p); UNUSED(velocity); UNUSED(g); UNUSED(lr); UNUSED(momentum); UNUSED(weight_decay); return MF_OK; }
static mf_status null_sum_squares(mf_device *d, int dtype, int64_t n, const void *x, double *out) { UNUSED(d); UNUSED(dtype); UNUSED(n); UNUSED(x); UNUSED(out); *out += 1; return MF_OK; }   /* a norm that clips nothing by accident */
static mf_status null_optim_norm(mf_device *d, double *control, const mf_optim_item *items, int64_t count) { UNUSED(d); UNUSED(control); UNUSED(items); UNUSED(count); return MF_OK; }
static mf_status null_adam_many(mf_device *d, const double *control, int group, const mf_optim_item *items, int64_t count, const mf_adam_params *params, double decay) { UNUSED(d); UNUSED(control); UNUSED(group); UNUSED(items); UNUSED(count); UNUSED(params); UNUSED(decay); return MF_OK; }
static mf_status null_sgd_many(mf_device *d, const double *control, int group, const mf_optim_item *items, int64_t count, double momentum, double weight_decay, double decay) { UNUSED(d); UNUSED(control); UNUSED(group); UNUSED(items); UNUSED(count); UNUSED(momentum); UNUSED(weight_decay); UNUSED(decay); return MF_OK; }
static mf_status null_ema_many(mf_device *d, const mf_optim_item *items, int64_t count, double decay) { UNUSED(d); UNUSED(items); UNUSED(count); UNUSED(decay); return MF_OK; }
static mf_status null_bias_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t ld, const void *dy, const void *y, void *dz, void *dbias) { UNUSED(d); UNUSED(dtype); UNUSED(rows); UNUSED(columns); UNUSED(ld); UNUSED(dy); UNUSED(y); UNUSED(dz); UNUSED(dbias); return MF_OK; }
static mf_status null_add_norm(mf_device *d, const mf_add_norm_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_squared_error(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t groups, const void *a, const void *b, const void *weight, void *y) { UNUSED(d); UNUSED(dtype); UNUSED(rows); UNUSED(columns); UNUSED(groups); UNUSED(a); UNUSED(b); UNUSED(weight); UNUSED(y); return MF_OK; }
static mf_status null_squared_error_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t groups, const void *a, const void *b, const void *weight, const void *dy, void *da, void *db) { UNUSED(d); UNUSED(dtype); UNUSED(rows); UNUSED(columns); UNUSED(groups); UNUSED(a); UNUSED(b); UNUSED(weight); UNUSED(dy); UNUSED(da); UNUSED(db); return MF_OK; }
static mf_status null_cross_entropy(mf_device *d, int dtype, int64_t rows, int64_t columns, int index_dtype, const void *target, const void *x, void *y, void *lse) { UNUSED(d); UNUSED(dtype); UNUSED(rows); UNUSED(columns); UNUSED(index_dtype); UNUSED(target); UNUSED(x); UNUSED(y); UNUSED(lse); return MF_OK; }
static mf_status null_cross_entropy_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int index_dtype, const void *target, const void *x, const void *lse, const void *dy, void *dx) { UNUSED(d); UNUSED(dtype); UNUSED(rows); UNUSED(columns); UNUSED(index_dtype); UNUSED(target); UNUSED(x); UNUSED(lse); UNUSED(dy); UNUSED(dx); return MF_OK; }
static mf_status null_bins(mf_device *d, const mf_bins_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_lift(mf_device *d, const mf_ipa_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_lift_grad(mf_device *d, const mf_ipa_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_readout(mf_device *d, const mf_ipa_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }
static mf_status null_readout_grad(mf_device *d, const mf_ipa_args *a) { UNUSED(d); UNUSED(a); return MF_OK; }

const mf_backend mf__null_backend = {
    .name = "null",
    .open = null_open,
    .close = null_close,
    .alloc = null_alloc,
    .release = null_release,
    .upload = null_upload,
    .download = null_download,
    .synchronize = null_synchronize,
    .copy = null_copy,
    .fill = null_fill,
    .axpy = null_axpy,
    .unary = null_unary,
    .unary_grad = null_unary_grad,
    .binary = null_binary,
    .where = null_where,
    .logical_not = null_logical_not,
    .round_to = null_round_to,
    .dropout = null_dropout,
    .reduce = null_reduce,
    .cumsum = null_cumsum,
    .logsumexp = null_logsumexp,
    .softmax = null_softmax,
    .softmax_grad = null_softmax_grad,
    .sort = null_sort,
    .segment_sum = null_segment_sum,
    .segment_expand = null_segment_expand,
    .gemm = null_gemm,
    .layer_norm = null_layer_norm,
    .layer_norm_grad = null_layer_norm_grad,
    .index_select = null_index_select,
    .index_add = null_index_add,
    .gather = null_gather,
    .scatter_add = null_scatter_add,
    .random = null_random,
    .random_rotations = null_random_rotations,
    .random_igso3 = null_random_igso3,
    .random_permutation = null_random_permutation,
    .attention = null_attention,
    .attention_grad = null_attention_grad,
    .pair_attention = null_pair_attention,
    .pair_attention_grad = null_pair_attention_grad,
    .rowwise = null_rowwise,
    .frames_apply = null_frames_apply,
    .frames_apply_grad = null_frames_apply_grad,
    .frames_gauge = null_frames_gauge,
    .kabsch = null_kabsch,
    .kabsch_pairs = null_kabsch_pairs,
    .random_each = null_random_each,
    .neighbours = null_neighbours,
    .distogram = null_distogram,
    .index_embedding = null_index_embedding,
    .rotary = null_rotary,
    .pair_loss = null_pair_loss,
    .pair_loss_grad = null_pair_loss_grad,
    .adam = null_adam,
    .sgd = null_sgd,
    .sum_squares = null_sum_squares,
    .optim_norm = null_optim_norm,
    .adam_many = null_adam_many,
    .sgd_many = null_sgd_many,
    .ema_many = null_ema_many,
    .bias_grad = null_bias_grad,
    .stores_16_bits = 1,          /* it plans for GPUs */
    .lift = null_lift,
    .lift_grad = null_lift_grad,
    .readout = null_readout,
    .readout_grad = null_readout_grad,
    .bins_gather = null_bins,
    .bins_scatter = null_bins,
    .add_layer_norm = null_add_norm,
    .add_layer_norm_grad = null_add_norm,
    .squared_error = null_squared_error,
    .squared_error_grad = null_squared_error_grad,
    .cross_entropy = null_cross_entropy,
    .cross_entropy_grad = null_cross_entropy_grad,
};
