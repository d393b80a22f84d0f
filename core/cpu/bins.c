/* bins.c: sums over neighbours by the bin of their distance (geometry/neighbour_linear.c).
 *
 *   gather    y_i = bias + sum_j table[j, bin(d_ij)]               scatter   dtable[j, b] = sum of dy_i over d_ij in bin b
 *
 * A distance in no bin counts for nothing. Gathering sums a row's slots in order, in the table's type. Scattering gives each slot to
 * one thread, which sums the rows in order, in double. Neither depends on the thread count. */
#include <stdlib.h>
#include <string.h>
#include "../geometry/features.h"
#include "cpu.h"

static inline int bin_at(const mf_bins_args *a, mf_bins bins, int64_t i) {
    return mf__bin_of(bins, a->distance_dtype == MF_FLOAT32 ? (double)((const float *)a->distance)[i] : ((const double *)a->distance)[i]);
}

#define GATHER(REAL, suffix)                                                                                        \
    static void gather_##suffix(const mf_device *d, const mf_bins_args *a, mf_bins bins) {                          \
        const REAL *table = a->table, *bias = a->bias;                                                              \
        REAL *y = a->y;                                                                                             \
        _Pragma("omp parallel for num_threads(mf__threads(d, a->n, a->k * (a->width + 40))) schedule(static)")      \
        for (int64_t i = 0; i < a->n; i++) {                                                                        \
            REAL *to = y + i * a->width;                                                                            \
            for (int64_t o = 0; o < a->width; o++) to[o] = bias ? bias[o] : 0;                                      \
            for (int64_t j = 0; j < a->k; j++) {                                                                    \
                int bin = bin_at(a, bins, i * a->k + j);                                                            \
                if (bin < 0) continue;                                                                              \
                const REAL *from = table + (j * a->bins + bin) * a->width;                                          \
                for (int64_t o = 0; o < a->width; o++) to[o] += from[o];                                            \
            }                                                                                                       \
        }                                                                                                           \
    }
GATHER(float, f32)
GATHER(double, f64)

#define SCATTER(REAL, suffix)                                                                                       \
    static void scatter_##suffix(const mf_device *d, const mf_bins_args *a, mf_bins bins, double *sums) {           \
        const REAL *dy = a->dy;                                                                                     \
        REAL *dtable = a->dtable;                                                                                   \
        int64_t size = a->bins * a->width;                                                                          \
        _Pragma("omp parallel for num_threads(mf__threads(d, a->k, a->n * (a->width + 40))) schedule(static)")      \
        for (int64_t j = 0; j < a->k; j++) {                                                                        \
            double *total = sums + j * size;                                                                        \
            memset(total, 0, (size_t)size * sizeof *total);                                                         \
            for (int64_t i = 0; i < a->n; i++) {                                                                    \
                int bin = bin_at(a, bins, i * a->k + j);                                                            \
                if (bin < 0) continue;                                                                              \
                for (int64_t o = 0; o < a->width; o++) total[bin * a->width + o] += (double)dy[i * a->width + o];   \
            }                                                                                                       \
            for (int64_t o = 0; o < size; o++) dtable[j * size + o] = (REAL)total[o];                               \
        }                                                                                                           \
    }
SCATTER(float, f32)
SCATTER(double, f64)

mf_status mf__cpu_bins_gather(mf_device *d, const mf_bins_args *a) {
    mf_bins bins = mf__bins(a->lo, a->hi, a->bins);
    if (a->dtype == MF_FLOAT32) gather_f32(d, a, bins);
    else gather_f64(d, a, bins);
    return MF_OK;
}

mf_status mf__cpu_bins_scatter(mf_device *d, const mf_bins_args *a) {
    mf_bins bins = mf__bins(a->lo, a->hi, a->bins);
    double *sums = mf__host_alloc(d->ctx, (size_t)(a->k * a->bins * a->width + 1) * sizeof *sums);
    if (!sums) return MF_ENOMEM;
    if (a->dtype == MF_FLOAT32) scatter_f32(d, a, bins, sums);
    else scatter_f64(d, a, bins, sums);
    free(sums);
    return MF_OK;
}
