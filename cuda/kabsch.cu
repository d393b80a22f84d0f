/* kabsch.cu: the rigid motion that best superposes each sequence of points on another (core/cpu/kabsch.c has the equations).
 *
 *   moving p, fixed q (N, 3), weight w (N) or NULL  ->  R (n, 3, 3), t (n, 3), rmsd (n)
 *   pairs (P, 2) of sequences, turned about the origin  ->  R (P, 3, 3), mean distance (P): one warp a pair, two readings
 *
 * Work      50 operations a point and an eigenvector of a 4 x 4 matrix a sequence, in double as on the CPU
 * Traffic   the points three times: sums about the origin would lose to cancellation what the second reading keeps
 * Mapping   one block a sequence: centroids, covariance, rmsd are a reduction each; the eigenvector is one thread's
 * Bitwise   deterministic: the tree of a reduction follows from the length. Points without weight may hold anything. */
#include "table.cuh"
#define MF_DEVICE_FUNCTION __host__ __device__
#include "../core/geometry/rows.h"

/* Sums `n` numbers of every thread over the block. */
static __device__ void sum_all(double *x, int n, double *slots) {
    for (int i = 0; i < n; i++) x[i] = mf__block_sum(x[i], slots);
}

template <class T>
static __global__ void __launch_bounds__(256)
kabsch_kernel(const int32_t *__restrict__ offsets, const T *__restrict__ p, const T *__restrict__ q, const T *__restrict__ w, T *__restrict__ R,
              T *__restrict__ t, T *__restrict__ rmsd) {
    __shared__ double slots[32], motion[12];
    const int64_t s = blockIdx.x, begin = offsets[s], end = offsets[s + 1];
    double sum[7] = {0, 0, 0, 0, 0, 0, 0}, H[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0}, square = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const double wi = w ? (double)w[i] : 1;
        if (wi == 0) continue;
        sum[0] += wi;
#pragma unroll
        for (int j = 0; j < 3; j++) {
            sum[1 + j] += wi * (double)p[3 * i + j];
            sum[4 + j] += wi * (double)q[3 * i + j];
        }
    }
    sum_all(sum, 7, slots);
    const double total = sum[0];
    double *p0 = sum + 1, *q0 = sum + 4;
    for (int j = 0; j < 6; j++) sum[1 + j] = total == 0 ? 0 : sum[1 + j] / total;
    if (total != 0)
        for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
            const double wi = w ? (double)w[i] : 1;
            if (wi == 0) continue;
#pragma unroll
            for (int j = 0; j < 3; j++)   /* the transpose of H: K(M) maximises <M, R>, and R = sum q p' when exact */
#pragma unroll
                for (int k = 0; k < 3; k++) H[3 * j + k] += wi * ((double)q[3 * i + j] - q0[j]) * ((double)p[3 * i + k] - p0[k]);
        }
    sum_all(H, 9, slots);
    if (threadIdx.x == 0) {
        double quaternion[4], r[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
        if (total != 0) {
            mf__row_rot_to_quat(H, quaternion);
            mf__row_quat_to_rot(quaternion, r);
        }
        for (int j = 0; j < 9; j++) motion[j] = r[j];
        for (int j = 0; j < 3; j++) motion[9 + j] = q0[j] - mf__dot3(r + 3 * j, p0);
    }
    __syncthreads();
    if (total != 0)
        for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
            const double wi = w ? (double)w[i] : 1;
            if (wi == 0) continue;
            const double a[3] = {(double)p[3 * i] - p0[0], (double)p[3 * i + 1] - p0[1], (double)p[3 * i + 2] - p0[2]};
#pragma unroll
            for (int j = 0; j < 3; j++) {
                const double e = mf__dot3(motion + 3 * j, a) - ((double)q[3 * i + j] - q0[j]);
                square += wi * e * e;
            }
        }
    square = mf__block_sum(square, slots);
    if (threadIdx.x < 9) R[9 * s + threadIdx.x] = (T)motion[threadIdx.x];
    if (threadIdx.x < 3) t[3 * s + threadIdx.x] = (T)motion[9 + threadIdx.x];
    if (threadIdx.x == 0) rmsd[s] = (T)(total == 0 ? 0 : sqrt(square / total));
}

mf_status mf__cuda_kabsch(mf_device *d, int dtype, const mf_packing *packing, const void *moving, const void *fixed, const void *weight, void *R,
                          void *t, void *rmsd) {
    if (!mf__is_real(dtype)) return mf__fail(MF_ESUPPORT, "cuda.kabsch: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
    mf_status status;
    const int32_t *offsets = mf__cuda_offsets(d, packing, &status);
    MF_TRY(status);
    mf__cuda_work(d, 50.0 * (double)packing->total, (double)(3 * packing->total * (weight ? 7 : 6) + 13 * packing->count) * (double)mf_dtype_bytes(dtype),
                  MF_UNIT_FP64);
    const int threads = packing->longest <= 128 ? 128 : 256;
    MF_DISPATCH_REAL(dtype, T, return MF_LAUNCH(d, kabsch_kernel<T>, (unsigned)packing->count, threads, 0, offsets, (const T *)moving, (const T *)fixed,
                                                (const T *)weight, (T *)R, (T *)t, (T *)rmsd));
}

enum { PAIRS = 4 };               /* of a block, a warp each */

template <class T>
static __global__ void __launch_bounds__(32 * PAIRS)
kabsch_pairs_kernel(const int32_t *__restrict__ offsets, int sequences, int64_t n, const int32_t *__restrict__ pairs, const T *__restrict__ p,
                    const T *__restrict__ q, const T *__restrict__ w, T *__restrict__ R, T *__restrict__ distance, mf_fault *fault, const char *op,
                    const char *sentence) {
    const int64_t pair = (int64_t)blockIdx.x * PAIRS + threadIdx.x / 32;
    const int lane = (int)threadIdx.x % 32;
    if (pair >= n) return;
    const int a = pairs[2 * pair], b = pairs[2 * pair + 1];
    if (a < 0 || a >= sequences || b < 0 || b >= sequences) {
        if (lane == 0) mf__raise_index(fault, op, a < 0 || a >= sequences ? a : b, sequences);
        return;
    }
    const int64_t from = offsets[a], to = offsets[b], length = offsets[a + 1] - from;
    if (offsets[b + 1] - to != length) {
        if (lane == 0) mf__raise_finite(fault, sentence, pair + 1, 0);
        return;
    }
    double H[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0}, quaternion[4], turn[9], total = 0, sum = 0;
    for (int64_t i = lane; i < length; i += 32) {
        const double wi = w ? (double)w[to + i] : 1;
        if (wi == 0) continue;
        total += wi;
#pragma unroll
        for (int j = 0; j < 3; j++)
#pragma unroll
            for (int k = 0; k < 3; k++) H[3 * j + k] += wi * (double)q[3 * (to + i) + j] * (double)p[3 * (from + i) + k];
    }
    for (int j = 0; j < 9; j++) H[j] = mf__warp_sum(H[j]);
    total = mf__warp_sum(total);
    mf__row_rot_to_quat(H, quaternion);          /* by every lane: the same instructions for one as for all */
    mf__row_quat_to_rot(quaternion, turn);
    for (int64_t i = lane; i < length; i += 32) {
        const double wi = w ? (double)w[to + i] : 1;
        if (wi == 0) continue;
        const double x[3] = {(double)p[3 * (from + i)], (double)p[3 * (from + i) + 1], (double)p[3 * (from + i) + 2]};
        double square = 0;
#pragma unroll
        for (int j = 0; j < 3; j++) {
            const double e = mf__dot3(turn + 3 * j, x) - (double)q[3 * (to + i) + j];
            square += e * e;
        }
        sum += wi * sqrt(square);
    }
    sum = mf__warp_sum(sum);
    for (int j = 0; j < 9; j++)
        if (lane == j) R[9 * pair + j] = (T)turn[j];
    if (lane == 0) distance[pair] = (T)(total == 0 ? 0 : sum / total);
}

mf_status mf__cuda_kabsch_pairs(mf_device *d, int dtype, const mf_packing *packing, int64_t n, const int32_t *pairs, const void *moving,
                                const void *fixed, const void *weight, void *R, void *distance) {
    if (!mf__is_real(dtype)) return mf__fail(MF_ESUPPORT, "cuda.kabsch_pairs: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
    mf_status status;
    const int32_t *offsets = mf__cuda_offsets(d, packing, &status);
    MF_TRY(status);
    const double points = (double)n * (double)packing->total / (double)(packing->count ? packing->count : 1);
    mf__cuda_work(d, 50.0 * points + 2000.0 * (double)n, (7.0 * points + 10.0 * (double)n) * (double)mf_dtype_bytes(dtype), MF_UNIT_FP64);
    MF_DISPATCH_REAL(dtype, T, return MF_LAUNCH(d, kabsch_pairs_kernel<T>, (unsigned)mf__blocks(n, PAIRS), 32 * PAIRS, 0, offsets, (int)packing->count, n,
                                                pairs, (const T *)moving, (const T *)fixed, (const T *)weight, (T *)R, (T *)distance,
                                                mf__cuda(d)->fault_device, "kabsch_pairs", "kabsch_pairs: pair %lld is of sequences of two lengths"));
    return MF_OK;
}
