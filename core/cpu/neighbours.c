/* neighbours.c: the k nearest residues of each residue within its sequence, and the features made of them (layers.md 3).
 *
 * Distances are sqrt(dx^2 + dy^2 + dz^2) in the tensor's type, rounded; the order is by that number, equal ones by
 * position, as a stable sort of the row of the L x L matrix would give, which is never made. A residue is no neighbour of
 * its own; places that no valid neighbour fills hold the residue itself at 1e6, as adding 1e6 to the diagonal
 * does at k = L. Masked residues are neither searched nor found.
 *
 * The search descends a tree of boxes (tree.h), nearer box first, and skips a box when its (smallest possible
 * distance, smallest number) comes after the k-th entry so far: exact, ties included, whatever the cloud.
 * Memory: 56 bytes a residue besides the result (68 in double). Rows are independent of each other and of the thread count. */
#include <math.h>
#include <stdlib.h>
#include "../geometry/features.h"
#include "cpu.h"
#include "tree.h"

/* A fused multiply-add would give distances a last bit that depends on the compiler, and so would equal ones. */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

/* Fills the places of a row from `found` on with the residue itself, far away. */
static void alone(int64_t k, int32_t self, int64_t found, int32_t *index, void *distance, size_t bytes) {
    for (int64_t i = found; i < k; i++) {
        index[i] = self;
        if (bytes == sizeof(float)) ((float *)distance)[i] = 1e6f;
        else ((double *)distance)[i] = 1e6;
    }
}

#define BODY "neighbours_real.h"
#include "both_reals.h"

mf_status mf__cpu_neighbours(mf_device *d, int dtype, const mf_packing *packing, int64_t k, const void *x, const void *mask, int32_t *index, void *distance) {
    if (packing->longest > INT32_MAX)
        return mf__fail(MF_ESUPPORT, "neighbours: a sequence of %lld residues; positions are 32-bit", (long long)packing->longest);
    if (dtype == MF_FLOAT32) return search_f32(d, packing, k, x, mask, index, distance);
    if (dtype == MF_FLOAT64) return search_f64(d, packing, k, x, mask, index, distance);
    return mf__fail(MF_ESUPPORT, "neighbours: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
}

mf_status mf__cpu_distogram(mf_device *d, int dtype, int64_t n, const void *distance, double lo, double hi, int64_t count, void *y) {
    if (!mf__is_real(dtype)) return mf__fail(MF_ESUPPORT, "distogram: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
    mf_bins bins = mf__bins(lo, hi, count);
#pragma omp parallel for num_threads(mf__threads(d, n, count + 40)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        int bin = mf__bin_of(bins, dtype == MF_FLOAT32 ? (double)((const float *)distance)[i] : ((const double *)distance)[i]);
        if (dtype == MF_FLOAT32)
            for (int64_t b = 0; b < count; b++) ((float *)y)[i * count + b] = b == bin;
        else
            for (int64_t b = 0; b < count; b++) ((double *)y)[i * count + b] = b == bin;
    }
    return MF_OK;
}

mf_status mf__cpu_index_embedding(mf_device *d, int64_t n, const int32_t *index, int64_t width, double max_len, float *y) {
    int64_t half = width / 2;
    float *power = mf__host_alloc(d->ctx, (size_t)(half + 1) * sizeof *power);
    if (!power) return MF_ENOMEM;
    for (int64_t c = 0; c < half; c++) power[c] = mf__embedding_power(c, width, max_len);
#pragma omp parallel for num_threads(mf__threads(d, n, 20 * width)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float turn = mf__embedding_turn(index[i]);
        for (int64_t c = 0; c < half; c++) {
            float angle = turn / power[c];
            y[i * width + c] = sinf(angle);
            y[i * width + half + c] = cosf(angle);
        }
    }
    free(power);
    return MF_OK;
}
