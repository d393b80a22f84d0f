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

#define REAL float
#define SQRT sqrtf
#define NAME(x) x##_f32
#include "neighbours_real.h"
#undef REAL
#undef SQRT
#undef NAME
#define REAL double
#define SQRT sqrt
#define NAME(x) x##_f64
#include "neighbours_real.h"
#undef REAL
#undef SQRT
#undef NAME

mf_status mf__cpu_neighbours(mf_device *d, int dtype, const mf_packing *packing, int64_t k, const void *x, const void *mask, int32_t *index, void *distance) {
    if (packing->longest > INT32_MAX)
        return mf__fail(MF_ESUPPORT, "neighbours: a sequence of %lld residues; positions are 32-bit", (long long)packing->longest);
    if (dtype == MF_FLOAT32) return search_f32(d, packing, k, x, mask, index, distance);
    if (dtype == MF_FLOAT64) return search_f64(d, packing, k, x, mask, index, distance);
    return mf__fail(MF_ESUPPORT, "neighbours: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
}

/* Edges as the layers define them, in float32 whatever the distances are: lo + b step in the lower half and
 * hi - (bins - 1 - b) step in the upper. The product is rounded by itself (a statement of its own: compilers
 * contract into a fused multiply-add only within one). */
static float edge(int64_t b, float lo, float hi, float step, int64_t bins) {
    float offset = step * (float)(b < bins / 2 ? b : bins - 1 - b);
    return b < bins / 2 ? lo + offset : hi - offset;
}

mf_status mf__cpu_distogram(mf_device *d, int dtype, int64_t n, const void *distance, double lo, double hi, int64_t bins, void *y) {
    if (dtype != MF_FLOAT32 && dtype != MF_FLOAT64)
        return mf__fail(MF_ESUPPORT, "distogram: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
    float first = (float)lo, last = (float)hi, step = bins > 1 ? (last - first) / (float)(bins - 1) : 0;
    double *edges = mf__host_alloc(d->ctx, (size_t)(bins + 1) * sizeof *edges);
    if (!edges) return MF_ENOMEM;
    for (int64_t b = 0; b < bins; b++) edges[b] = (double)(bins > 1 ? edge(b, first, last, step, bins) : first);
    edges[bins] = 1e8;
#pragma omp parallel for num_threads(mf__threads(d, n, bins + 8)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        double x = dtype == MF_FLOAT32 ? (double)((const float *)distance)[i] : ((const double *)distance)[i];
        int64_t bin = 0, end = bins;  /* the last bin whose lower edge is below x */
        while (end - bin > 1) {
            int64_t middle = bin + (end - bin) / 2;
            if (edges[middle] < x) bin = middle;
            else end = middle;
        }
        int inside = edges[bin] < x && x < edges[bin + 1];
        if (dtype == MF_FLOAT32)
            for (int64_t b = 0; b < bins; b++) ((float *)y)[i * bins + b] = inside && b == bin;
        else
            for (int64_t b = 0; b < bins; b++) ((double *)y)[i * bins + b] = inside && b == bin;
    }
    free(edges);
    return MF_OK;
}

/* sin and cos of (n pi) / max_len^(2 c / width), each operation rounded to float32 in that order: at channel 0 the
 * sine is rounding noise that trained weights have seen, so it must be the same noise. */
mf_status mf__cpu_index_embedding(mf_device *d, int64_t n, const int32_t *index, int64_t width, double max_len, float *y) {
    int64_t half = width / 2;
    float *power = mf__host_alloc(d->ctx, (size_t)(half + 1) * sizeof *power);
    if (!power) return MF_ENOMEM;
    for (int64_t c = 0; c < half; c++) power[c] = (float)pow((double)(float)max_len, (double)((float)(2 * c) / (float)width));
#pragma omp parallel for num_threads(mf__threads(d, n, 20 * width)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float turn = (float)index[i] * 3.14159265358979f;
        for (int64_t c = 0; c < half; c++) {
            float angle = turn / power[c];
            y[i * width + c] = sinf(angle);
            y[i * width + half + c] = cosf(angle);
        }
    }
    free(power);
    return MF_OK;
}
