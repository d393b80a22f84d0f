/* frames.cu: rigid frames applied to points, the adjoint, and the canonical frame of each sequence.
 *
 *   y = R x + t            dR = sum_p dy x'          dt = sum_p dy          dx = R' dy
 *   y = R' (x - t)         dR = sum_p (x - t) dy'    dt = -R sum_p dy       dx = R dy        (all are =)
 *
 *   R (n, 3, 3), t (n, 3), x, y (n, P, 3); gauge: per sequence the mean of its valid t and the R of its first valid residue,
 *   identity and zero where none is valid
 *
 * Work      18 operations a point forward, 48 backward
 * Traffic   forward 48 + 24 P bytes a frame in float32, backward 132 + 36 P: bound by bandwidth (P = 8: 0.6 operations a byte)
 * Mapping   forward a thread a point; backward 1 to 32 lanes a frame, as many as its points can use, sums by shuffles;
 *           gauge a block a sequence
 * Numerics  in the tensor's own type; a sum over points is a tree of at most ceil(P / 32) + 5 terms in depth. The mean of the
 *           gauge is in double, as on the CPU.
 * Bitwise   deterministic: sums belong to one frame and their order follows from P. */
#include "table.cuh"

enum { THREADS = 256 };

template <class T> static __device__ __forceinline__ void turn(const T *r, bool transpose, T a, T b, T c, T *y) {
#pragma unroll
    for (int j = 0; j < 3; j++)
        y[j] = transpose ? r[j] * a + r[3 + j] * b + r[6 + j] * c : r[3 * j] * a + r[3 * j + 1] * b + r[3 * j + 2] * c;
}

/* I: the type in which n P fits; 64-bit division is slow. */
template <class T, class I>
static __global__ void __launch_bounds__(THREADS)
frames_apply_kernel(I count, I points, bool inverse, const T *__restrict__ R, const T *__restrict__ t, const T *__restrict__ x, T *__restrict__ y) {
    for (I i = (I)blockIdx.x * THREADS + (I)threadIdx.x; i < count; i += (I)gridDim.x * THREADS) {
        const int64_t frame = (int64_t)(i / points), at = 3 * (int64_t)i;
        T r[9], p[3], o[3], out[3];
#pragma unroll
        for (int j = 0; j < 3; j++) {
            p[j] = x[at + j];
            o[j] = t[3 * frame + j];
        }
#pragma unroll
        for (int j = 0; j < 9; j++) r[j] = R[9 * frame + j];
        if (inverse) {
            turn(r, true, p[0] - o[0], p[1] - o[1], p[2] - o[2], out);
        } else {
            turn(r, false, p[0], p[1], p[2], out);
            for (int j = 0; j < 3; j++) out[j] += o[j];
        }
#pragma unroll
        for (int j = 0; j < 3; j++) y[at + j] = out[j];
    }
}

/* LANES share a frame; every lane of a warp takes part in the shuffles, also where its frame is past the end. */
template <class T, int LANES>
static __global__ void __launch_bounds__(THREADS)
frames_apply_grad_kernel(int64_t n, int64_t points, bool inverse, const T *__restrict__ R, const T *__restrict__ t, const T *__restrict__ x,
                         const T *__restrict__ dy, T *__restrict__ dR, T *__restrict__ dt, T *__restrict__ dx) {
    constexpr int FRAMES = THREADS / LANES;
    const int lane = threadIdx.x % LANES;
    for (int64_t first = (int64_t)blockIdx.x * FRAMES; first < n; first += (int64_t)gridDim.x * FRAMES) {
        const int64_t frame = first + threadIdx.x / LANES;
        const bool there = frame < n;
        T r[9] = {}, o[3] = {}, total[3] = {}, s[9] = {};   /* s[3 j + k] = sum of dy_j (x_k, less t_k in the inverse) */
        if (there && R)
#pragma unroll
            for (int j = 0; j < 9; j++) r[j] = R[9 * frame + j];
        if (there && dR && inverse)
#pragma unroll
            for (int j = 0; j < 3; j++) o[j] = t[3 * frame + j];
        for (int64_t p = lane; there && p < points; p += LANES) {
            const int64_t at = 3 * (frame * points + p);
            const T g[3] = {dy[at], dy[at + 1], dy[at + 2]};
#pragma unroll
            for (int j = 0; j < 3; j++) total[j] += g[j];
            if (dR) {
                const T q[3] = {x[at] - o[0], x[at + 1] - o[1], x[at + 2] - o[2]};
#pragma unroll
                for (int j = 0; j < 3; j++)
#pragma unroll
                    for (int k = 0; k < 3; k++) s[3 * j + k] += g[j] * q[k];
            }
            if (dx) {
                T out[3];
                turn(r, !inverse, g[0], g[1], g[2], out);
#pragma unroll
                for (int j = 0; j < 3; j++) dx[at + j] = out[j];
            }
        }
#pragma unroll
        for (int step = LANES / 2; step > 0; step >>= 1) {
#pragma unroll
            for (int j = 0; j < 3; j++) total[j] += __shfl_xor_sync(0xffffffffu, total[j], step);
            if (dR)
#pragma unroll
                for (int j = 0; j < 9; j++) s[j] += __shfl_xor_sync(0xffffffffu, s[j], step);
        }
        if (!there || lane != 0) continue;
        if (dR)
#pragma unroll
            for (int j = 0; j < 3; j++)
#pragma unroll
                for (int k = 0; k < 3; k++) dR[9 * frame + 3 * j + k] = inverse ? s[3 * k + j] : s[3 * j + k];
        if (dt) {
            T moved[3];
            turn(r, false, total[0], total[1], total[2], moved);
#pragma unroll
            for (int j = 0; j < 3; j++) dt[3 * frame + j] = inverse ? -moved[j] : total[j];
        }
    }
}

template <class T>
static __global__ void __launch_bounds__(1024)
frames_gauge_kernel(const int32_t *__restrict__ offsets, const T *__restrict__ R, const T *__restrict__ t, const T *__restrict__ mask,
                    T *__restrict__ gauge_R, T *__restrict__ gauge_t) {
    __shared__ double slots[32];
    __shared__ int first_slots[32];
    const int64_t s = blockIdx.x;
    const int begin = offsets[s], end = offsets[s + 1];
    double sum[3] = {0, 0, 0}, valid = 0;
    int first = end;
    for (int64_t i = (int64_t)begin + threadIdx.x; i < end; i += blockDim.x) {
        if (mask && mask[i] == T(0)) continue;
        first = first < i ? first : (int)i;
        valid += 1;
#pragma unroll
        for (int j = 0; j < 3; j++) sum[j] += (double)t[3 * i + j];
    }
    first = mf__block_all(first, first_slots, end, [](int a, int b) { return a < b ? a : b; });
    valid = mf__block_sum(valid, slots);
    for (int j = 0; j < 3; j++) sum[j] = mf__block_sum(sum[j], slots);
    if (threadIdx.x < 3) gauge_t[3 * s + threadIdx.x] = valid > 0 ? (T)(sum[threadIdx.x] / valid) : T(0);
    if (threadIdx.x < 9) gauge_R[9 * s + threadIdx.x] = valid > 0 ? R[9 * (int64_t)first + threadIdx.x] : T(threadIdx.x % 4 == 0);
}

static mf_status refuse(const char *name, int dtype) {
    return mf__fail(MF_ESUPPORT, "cuda.%s: geometry takes float32 or float64, not %s", name, mf_dtype_name(dtype));
}

template <class T>
static mf_status apply(mf_device *d, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x, void *y) {
    const int64_t count = n * points;
    mf__cuda_work(d, 18.0 * (double)count, (double)(12 * n + 6 * count) * sizeof(T), sizeof(T) == 8 ? MF_UNIT_FP64 : MF_UNIT_FP32);
    const unsigned grid = mf__grid(d, count, THREADS);
    if (count <= (int64_t)1 << 31)    /* the last step of the loop does not leave 32 bits */
        return MF_LAUNCH(d, (frames_apply_kernel<T, uint32_t>), grid, THREADS, 0, (uint32_t)count, (uint32_t)points, inverse != 0, (const T *)R,
                         (const T *)t, (const T *)x, (T *)y);
    return MF_LAUNCH(d, (frames_apply_kernel<T, uint64_t>), grid, THREADS, 0, (uint64_t)count, (uint64_t)points, inverse != 0, (const T *)R,
                     (const T *)t, (const T *)x, (T *)y);
}

mf_status mf__cuda_frames_apply(mf_device *d, int dtype, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x, void *y) {
    if (!mf__is_real(dtype)) return refuse("frames_apply", dtype);
    MF_DISPATCH_REAL(dtype, T, return apply<T>(d, n, points, inverse, R, t, x, y));
}

template <class T, int LANES>
static mf_status apply_grad(mf_device *d, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x, const void *dy,
                            void *dR, void *dt, void *dx) {
    return MF_LAUNCH(d, (frames_apply_grad_kernel<T, LANES>), mf__grid(d, n, THREADS / LANES), THREADS, 0, n, points, inverse != 0, (const T *)R,
                     (const T *)t, (const T *)x, (const T *)dy, (T *)dR, (T *)dt, (T *)dx);
}

mf_status mf__cuda_frames_apply_grad(mf_device *d, int dtype, int64_t n, int64_t points, int inverse, const void *R, const void *t, const void *x,
                                     const void *dy, void *dR, void *dt, void *dx) {
    if (!mf__is_real(dtype)) return refuse("frames_apply_grad", dtype);
    const double moved = (R ? 9 : 0) + (dR ? 9 : 0) + (dt ? 3 : 0) + (double)points * (3 + (dR ? 3 : 0) + (dx ? 3 : 0));
    mf__cuda_work(d, 48.0 * (double)(n * points), (double)n * moved * (double)mf_dtype_bytes(dtype),
                  dtype == MF_FLOAT64 ? MF_UNIT_FP64 : MF_UNIT_FP32);
    MF_DISPATCH_REAL(dtype, T, {
        if (points <= 2) return apply_grad<T, 1>(d, n, points, inverse, R, t, x, dy, dR, dt, dx);
        if (points <= 12) return apply_grad<T, 8>(d, n, points, inverse, R, t, x, dy, dR, dt, dx);
        return apply_grad<T, 32>(d, n, points, inverse, R, t, x, dy, dR, dt, dx);
    });
}

mf_status mf__cuda_frames_gauge(mf_device *d, int dtype, const mf_packing *packing, const void *R, const void *t, const void *mask, void *gauge_R,
                                void *gauge_t) {
    if (!mf__is_real(dtype)) return refuse("frames_gauge", dtype);
    mf_status status;
    const int32_t *offsets = mf__cuda_offsets(d, packing, &status);
    MF_TRY(status);
    mf__cuda_work(d, 3.0 * (double)packing->total, (double)(packing->total * (mask ? 4 : 3) + packing->count * 21) * (double)mf_dtype_bytes(dtype),
                  MF_UNIT_FP64);
    const int threads = packing->longest > 1024 ? 1024 : 256;
    MF_DISPATCH_REAL(dtype, T, return MF_LAUNCH(d, frames_gauge_kernel<T>, (unsigned)packing->count, threads, 0, offsets, (const T *)R, (const T *)t,
                                                (const T *)mask, (T *)gauge_R, (T *)gauge_t));
}
