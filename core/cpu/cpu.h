/* cpu.h: the CPU's kernels, one family a file; backend.c puts them into the table of ops/kernels.h, whose
 * comments are their contract. */
#ifndef MF_CPU_CPU_H
#define MF_CPU_CPU_H
#include "../base/error.h"
#include "../ops/kernels.h"
#include "../tensor/tensor.h"

/* threads for a loop over n items of `cost` elementary operations each: 1 when a fork would cost more than it saves */
static inline int mf__threads(const mf_device *d, int64_t n, int64_t cost) {
    return n * cost < 32768 ? 1 : d->threads;
}

/* The last sequence that begins at or before residue i: the one that holds it, empty ones hold none. */
static inline int64_t mf__sequence_at(const mf_packing *packing, int64_t i) {
    int64_t low = 0, high = packing->count;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (packing->offsets[middle] <= i) low = middle;
        else high = middle;
    }
    return low;
}
mf_status mf__cpu_copy(mf_device *d, const mf_iter *it);
mf_status mf__cpu_fill(mf_device *d, const mf_iter *it, double value);
mf_status mf__cpu_axpy(mf_device *d, const mf_iter *it, double a, double b);
mf_status mf__cpu_unary(mf_device *d, const mf_iter *it, int op, double p0, double p1);
mf_status mf__cpu_unary_grad(mf_device *d, const mf_iter *it, int op, double p0, double p1);
mf_status mf__cpu_binary(mf_device *d, const mf_iter *it, int op);
mf_status mf__cpu_where(mf_device *d, const mf_iter *it);
mf_status mf__cpu_logical_not(mf_device *d, const mf_iter *it);
mf_status mf__cpu_round_to(mf_device *d, const mf_iter *it, int precision);
mf_status mf__cpu_dropout(mf_device *d, int dtype, int64_t n, const void *x, void *y, double rate, mf_rng rng);
mf_status mf__cpu_reduce(mf_device *d, int op, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y);
mf_status mf__cpu_cumsum(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y, int reverse);
mf_status mf__cpu_logsumexp(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y);
mf_status mf__cpu_softmax(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y, int logarithm);
mf_status mf__cpu_softmax_grad(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *y, const void *dy, void *dx, int logarithm);
mf_status mf__cpu_sort(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, int64_t k, const void *x, void *values, int32_t *index, int descending);
mf_status mf__cpu_segment_sum(mf_device *d, int dtype, const mf_packing *packing, int64_t inner, const void *x, void *y);
mf_status mf__cpu_segment_expand(mf_device *d, int64_t row_bytes, const mf_packing *packing, const void *x, void *y);
mf_status mf__cpu_gemm(mf_device *d, const mf_gemm *g);
mf_status mf__cpu_layer_norm(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *x, const void *weight, const void *bias, double epsilon, void *y, void *mean, void *rstd);
mf_status mf__cpu_layer_norm_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *dy, const void *x, const void *weight, const void *mean, const void *rstd, void *dx, void *dweight, void *dbias);
mf_status mf__cpu_index_select(mf_device *d, int64_t element_bytes, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *x, void *y);
mf_status mf__cpu_index_add(mf_device *d, int dtype, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *source, void *y);
mf_status mf__cpu_gather(mf_device *d, int64_t element_bytes, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *x, void *y);
mf_status mf__cpu_scatter_add(mf_device *d, int dtype, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index, const void *source, void *y);
mf_status mf__cpu_random(mf_device *d, int kind, int dtype, int64_t n, void *x, mf_rng rng, double p0, double p1);
mf_status mf__cpu_random_rotations(mf_device *d, int dtype, int64_t n, void *R, mf_rng rng);
mf_status mf__cpu_random_igso3(mf_device *d, int dtype, int64_t n, void *v, mf_rng rng, const void *sigma, int64_t n_sigma);
mf_status mf__cpu_random_permutation(mf_device *d, int dtype, int64_t n, void *x, mf_rng rng);
mf_status mf__cpu_attention(mf_device *d, const mf_attention_args *a);
mf_status mf__cpu_attention_grad(mf_device *d, const mf_attention_args *a);
mf_status mf__cpu_pair_attention(mf_device *d, const mf_attention_args *a);
mf_status mf__cpu_pair_attention_grad(mf_device *d, const mf_attention_args *a);
mf_status mf__cpu_rowwise(mf_device *d, int kind, int dtype, int64_t rows, const void *const *in, void *const *out);
mf_status mf__cpu_frames_apply(mf_device *d, int dtype, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x, void *y);
mf_status mf__cpu_frames_apply_grad(mf_device *d, int dtype, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x, const void *dy, void *dR, void *dt, void *dx);
mf_status mf__cpu_frames_gauge(mf_device *d, int dtype, const mf_packing *packing, const void *R, const void *t, const void *mask, void *gauge_R, void *gauge_t);
mf_status mf__cpu_kabsch_pairs(mf_device *d, int dtype, const mf_packing *packing, int64_t n, const int32_t *pairs, const void *moving, const void *fixed, const void *weight, void *R, void *distance);
mf_status mf__cpu_kabsch(mf_device *d, int dtype, const mf_packing *packing, const void *moving, const void *fixed, const void *weight, void *R, void *t, void *rmsd);
mf_status mf__cpu_neighbours(mf_device *d, int dtype, const mf_packing *packing, int64_t k, const void *x, const void *mask, int32_t *index, void *distance);
mf_status mf__cpu_distogram(mf_device *d, int dtype, int64_t n, const void *distance, double lo, double hi, int64_t bins, void *y);
mf_status mf__cpu_index_embedding(mf_device *d, int64_t n, const int32_t *index, int64_t width, double max_len, float *y);
mf_status mf__cpu_rotary(mf_device *d, const mf_rotary_args *a);
mf_status mf__cpu_pair_loss(mf_device *d, const mf_pair_loss_args *a);
mf_status mf__cpu_pair_loss_grad(mf_device *d, const mf_pair_loss_args *a);
mf_status mf__cpu_adam(mf_device *d, int dtype, int64_t n, void *p, void *m, void *v, const void *g, const mf_adam_params *params);
mf_status mf__cpu_sgd(mf_device *d, int dtype, int64_t n, void *p, void *velocity, const void *g, double lr, double momentum, double weight_decay);
mf_status mf__cpu_sum_squares(mf_device *d, int dtype, int64_t n, const void *x, double *out);
mf_status mf__cpu_optim_norm(mf_device *d, double *control, const mf_optim_item *items, int64_t count);
mf_status mf__cpu_adam_many(mf_device *d, const double *control, int group, const mf_optim_item *items, int64_t count, const mf_adam_params *params, double decay);
mf_status mf__cpu_sgd_many(mf_device *d, const double *control, int group, const mf_optim_item *items, int64_t count, double momentum, double weight_decay, double decay);
mf_status mf__cpu_ema_many(mf_device *d, const mf_optim_item *items, int64_t count, double decay);
mf_status mf__cpu_bias_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t ld, const void *dy, const void *y, void *dz, void *dbias);
mf_status mf__cpu_lift(mf_device *d, const mf_ipa_args *a);
mf_status mf__cpu_lift_grad(mf_device *d, const mf_ipa_args *a);
mf_status mf__cpu_readout(mf_device *d, const mf_ipa_args *a);
mf_status mf__cpu_readout_grad(mf_device *d, const mf_ipa_args *a);
mf_status mf__cpu_bins_gather(mf_device *d, const mf_bins_args *a);
mf_status mf__cpu_bins_scatter(mf_device *d, const mf_bins_args *a);
mf_status mf__cpu_add_layer_norm(mf_device *d, const mf_add_norm_args *a);
mf_status mf__cpu_add_layer_norm_grad(mf_device *d, const mf_add_norm_args *a);
mf_status mf__cpu_squared_error(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t groups, const void *a, const void *b, const void *weight, void *y);
mf_status mf__cpu_squared_error_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t groups, const void *a, const void *b, const void *weight, const void *dy, void *da, void *db);
mf_status mf__cpu_cross_entropy(mf_device *d, int dtype, int64_t rows, int64_t columns, int index_dtype, const void *target, const void *x, void *y, void *lse);
mf_status mf__cpu_cross_entropy_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int index_dtype, const void *target, const void *x, const void *lse, const void *dy, void *dx);
#endif
