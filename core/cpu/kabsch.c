/* kabsch.c: the rigid motion that best superposes each sequence of points on another (metrics.md 1).
 *
 *   minimise sum_i w_i |R p_i + t - q_i|^2:  t = q0 - R p0 (weighted centroids), R = R(quaternion),
 *   the quaternion being the eigenvector of the largest eigenvalue of K(H'), H = sum_i w_i (p_i - p0)(q_i - q0)'
 *
 * All in double. The quaternion route needs no branch on the sign of a determinant: whatever H is (planar,
 * collinear, one point, zero) the result is a proper rotation, and Jacobi picks the same one every time. The
 * rmsd is measured on the moved points, since the closed form loses half the digits when the fit is good.
 *
 * Pairs are turned about the origin, where the caller has put them, and their mean distance is measured. */
#include "../geometry/rows.h"
#include "cpu.h"

static inline double at(int dtype, const void *x, int64_t i) {
    return dtype == MF_FLOAT32 ? (double)((const float *)x)[i] : ((const double *)x)[i];
}

static inline void put(int dtype, void *x, int64_t i, double value) {
    if (dtype == MF_FLOAT32) ((float *)x)[i] = (float)value;
    else ((double *)x)[i] = value;
}

typedef struct superposition { double R[9], t[3], rmsd; } superposition;

static superposition superpose(int dtype, int64_t first, int64_t last, const void *p, const void *q, const void *w) {
    superposition s = {{1, 0, 0, 0, 1, 0, 0, 0, 1}, {0, 0, 0}, 0};
    double total = 0, p0[3] = {0, 0, 0}, q0[3] = {0, 0, 0}, H[9] = {0}, quaternion[4];
    for (int64_t i = first; i < last; i++) {
        double wi = w ? at(dtype, w, i) : 1;
        if (wi == 0) continue;  /* a missing residue may hold anything, NaN too */
        total += wi;
        for (int j = 0; j < 3; j++) {
            p0[j] += wi * at(dtype, p, 3 * i + j);
            q0[j] += wi * at(dtype, q, 3 * i + j);
        }
    }
    if (total == 0) return s;
    for (int j = 0; j < 3; j++) {
        p0[j] /= total;
        q0[j] /= total;
    }
    for (int64_t i = first; i < last; i++) {
        double wi = w ? at(dtype, w, i) : 1;
        if (wi == 0) continue;
        for (int j = 0; j < 3; j++)  /* the transpose of H: K(M) maximises <M, R>, and R = sum q p' when exact */
            for (int k = 0; k < 3; k++) H[3 * j + k] += wi * (at(dtype, q, 3 * i + j) - q0[j]) * (at(dtype, p, 3 * i + k) - p0[k]);
    }
    mf__row_rot_to_quat(H, quaternion);
    mf__row_quat_to_rot(quaternion, s.R);
    for (int j = 0; j < 3; j++) s.t[j] = q0[j] - mf__dot3(s.R + 3 * j, p0);
    double square = 0;
    for (int64_t i = first; i < last; i++) {
        double wi = w ? at(dtype, w, i) : 1;
        if (wi == 0) continue;
        double a[3] = {at(dtype, p, 3 * i) - p0[0], at(dtype, p, 3 * i + 1) - p0[1], at(dtype, p, 3 * i + 2) - p0[2]};
        for (int j = 0; j < 3; j++) {
            double e = mf__dot3(s.R + 3 * j, a) - (at(dtype, q, 3 * i + j) - q0[j]);
            square += wi * e * e;
        }
    }
    s.rmsd = sqrt(square / total);
    return s;
}

mf_status mf__cpu_kabsch(mf_device *d, int dtype, const mf_packing *packing, const void *moving, const void *fixed, const void *weight, void *R, void *t, void *rmsd) {
    if (dtype != MF_FLOAT32 && dtype != MF_FLOAT64)
        return mf__fail(MF_ESUPPORT, "cpu.kabsch: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
#pragma omp parallel for num_threads(mf__threads(d, packing->total, 60)) schedule(static)
    for (int64_t i = 0; i < packing->count; i++) {
        superposition s = superpose(dtype, packing->offsets[i], packing->offsets[i + 1], moving, fixed, weight);
        for (int j = 0; j < 9; j++) put(dtype, R, 9 * i + j, s.R[j]);
        for (int j = 0; j < 3; j++) put(dtype, t, 3 * i + j, s.t[j]);
        put(dtype, rmsd, i, s.rmsd);
    }
    return MF_OK;
}

/* The rotation of n points p onto q, and the weighted mean of the distances that are left. */
static double turn(int dtype, int64_t n, int64_t from, int64_t to, const void *p, const void *q, const void *w, double *R) {
    double total = 0, sum = 0, H[9] = {0}, quaternion[4];
    for (int64_t i = 0; i < n; i++) {
        const double wi = w ? at(dtype, w, to + i) : 1;
        if (wi == 0) continue;
        total += wi;
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 3; k++) H[3 * j + k] += wi * at(dtype, q, 3 * (to + i) + j) * at(dtype, p, 3 * (from + i) + k);
    }
    mf__row_rot_to_quat(H, quaternion);
    mf__row_quat_to_rot(quaternion, R);
    for (int64_t i = 0; i < n; i++) {
        const double wi = w ? at(dtype, w, to + i) : 1;
        if (wi == 0) continue;
        const double a[3] = {at(dtype, p, 3 * (from + i)), at(dtype, p, 3 * (from + i) + 1), at(dtype, p, 3 * (from + i) + 2)};
        double square = 0;
        for (int j = 0; j < 3; j++) {
            const double e = mf__dot3(R + 3 * j, a) - at(dtype, q, 3 * (to + i) + j);
            square += e * e;
        }
        sum += wi * sqrt(square);
    }
    return total == 0 ? 0 : sum / total;
}

mf_status mf__cpu_kabsch_pairs(mf_device *d, int dtype, const mf_packing *packing, int64_t n, const int32_t *pairs, const void *moving, const void *fixed, const void *weight, void *R, void *distance) {
    if (dtype != MF_FLOAT32 && dtype != MF_FLOAT64)
        return mf__fail(MF_ESUPPORT, "cpu.kabsch_pairs: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
    const int64_t *offsets = packing->offsets;
    for (int64_t i = 0; i < n; i++) {
        const int32_t a = pairs[2 * i], b = pairs[2 * i + 1];
        if (a < 0 || a >= packing->count || b < 0 || b >= packing->count)
            return mf__fail(MF_EVALUE, "kabsch_pairs: sequence %d is out of range for %lld", a < 0 || a >= packing->count ? a : b, (long long)packing->count);
        if (offsets[a + 1] - offsets[a] != offsets[b + 1] - offsets[b])
            return mf__fail(MF_EVALUE, "kabsch_pairs: pair %lld is of sequences of two lengths", (long long)i + 1);
    }
#pragma omp parallel for num_threads(mf__threads(d, n * (1 + packing->longest), 60)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const int64_t from = offsets[pairs[2 * i]], to = offsets[pairs[2 * i + 1]], length = offsets[pairs[2 * i] + 1] - from;
        double turned[9];
        put(dtype, distance, i, turn(dtype, length, from, to, moving, fixed, weight, turned));
        for (int j = 0; j < 9; j++) put(dtype, R, 9 * i + j, turned[j]);
    }
    return MF_OK;
}
