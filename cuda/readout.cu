/* readout.cu: from what attention gathered to the features of linear_out, and the adjoint (core/ipa/flash_ipa.c has the equations).
 *
 *   readout       o | R'^T (o_p - t')  x, y, z | sqrt(|.|^2 + 1e-8) | sum_rho y1 w
 *   readout_grad  dattended, dframes, dy1 (the first half of dpair_value's rows), all written with '='; lift_grad adds to dframes and
 *                 writes the second half
 *
 * Traffic   7.5 KB in and 6.7 KB out a residue at the default widths in float32, backward 10 KB in and 7.6 KB out; some 3
 *           operations a number: bound by bandwidth
 * Mapping   a block a residue, a warp a head, a lane a point or a channel of the pair (ipa.cuh); dy1 = sum over heads is a second
 *           look, a warp a factor, at what the first has just brought into the cache
 * Numerics  everything in the tensor's type, float32 or float64; what is gathered is never rounded to 16 bits
 * Bitwise   deterministic: heads are added in order, points by shuffles. */
#include "table.cuh"
#include "ipa.cuh"

/* x = the gathered point less the frame's origin, back = R' x. */
template <class R> static __device__ __forceinline__ void gathered(R *x, R *back, const mf_frame<R> &f, const R *columns, int low) {
#pragma unroll
    for (int j = 0; j < 3; j++) x[j] = columns[j] + (low ? columns[low + j] : R(0)) - f.x[9 + j];
#pragma unroll
    for (int j = 0; j < 3; j++) back[j] = f.x[j] * x[0] + f.x[3 + j] * x[1] + f.x[6 + j] * x[2];
}
template <class R> static __device__ __forceinline__ R norm_of(const R *x) {
    return sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2] + R(1e-8));
}

template <class R>
static __global__ void __launch_bounds__(256) readout_kernel(mf_ipa_sizes s, const R *__restrict__ attended, const R *__restrict__ frames,
                                                             const R *__restrict__ pair_value, R *__restrict__ features) {
    const int64_t i = blockIdx.x;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, c = s.hidden, V = s.value_points;
    const int H = s.heads, low = s.split ? 3 * V : 0;
    R *to = features + i * H * (c + 4 * V + s.dz), *points = to + H * c, *pairs = points + 4 * H * V;
    const R *y = pair_value + 2 * i * s.rank * s.dz;
    const mf_frame<R> f = mf__load_frame(frames, i);
    for (int h = warp; h < H; h += warps) {
        const R *from = attended + (i * H + h) * s.dv, *w = from + c + s.values;
        R x[3], back[3] = {}, total = 0;
        if (lane < V) gathered(x, back, f, from + c + 3 * lane, low);
        for (int rho = 0; lane < s.dz && rho < s.rank; rho++) total += y[rho * s.dz + lane] * w[rho * s.dz + lane];
        mf__copy_rows<1, 4, R, R>({to + h * c}, {from}, {R(1)}, c);
        for (int p = lane; p < V; p += 32) {
            if (p != lane) gathered(x, back, f, from + c + 3 * p, low);
#pragma unroll
            for (int j = 0; j < 3; j++) points[(j * H + h) * V + p] = back[j];
            points[(3 * H + h) * V + p] = norm_of(back);
        }
        for (int j = lane; j < s.dz; j += 32) {
            if (j != lane) {
                total = 0;
                for (int rho = 0; rho < s.rank; rho++) total += y[rho * s.dz + j] * w[rho * s.dz + j];
            }
            pairs[h * s.dz + j] = total;
        }
    }
}

template <class R>
static __global__ void __launch_bounds__(256) readout_grad_kernel(mf_ipa_sizes s, const R *__restrict__ dfeatures, const R *__restrict__ attended,
                                                                  const R *__restrict__ frames, const R *__restrict__ pair_value,
                                                                  R *__restrict__ dattended, R *__restrict__ dframes, R *__restrict__ dpair_value) {
    __shared__ R sums[8][12];
    const int64_t i = blockIdx.x;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, c = s.hidden, V = s.value_points;
    const int H = s.heads, low = s.split ? 3 * V : 0;
    const R *from = dfeatures + i * H * (c + 4 * V + s.dz), *points = from + H * c, *pairs = points + 4 * H * V;
    const R *y = pair_value + 2 * i * s.rank * s.dz;
    const mf_frame<R> f = mf__load_frame(frames, i);
    R sum[12] = {};
    for (int h = warp; h < H; h += warps) {
        const R *o = attended + (i * H + h) * s.dv;
        R *to = dattended + (i * H + h) * s.dv, *dw = to + c + s.values;
        R x[3], back[3], g[4];
        if (lane < V) {
            gathered(x, back, f, o + c + 3 * lane, low);
#pragma unroll
            for (int j = 0; j < 4; j++) g[j] = points[(j * H + h) * V + lane];
        }
        mf__copy_rows<1, 4, R, R>({to}, {from + h * c}, {R(1)}, c);
        for (int p = lane; p < V; p += 32) {
            if (p != lane) {
                gathered(x, back, f, o + c + 3 * p, low);
#pragma unroll
                for (int j = 0; j < 4; j++) g[j] = points[(j * H + h) * V + p];
            }
            const R along = g[3] / norm_of(back);
#pragma unroll
            for (int j = 0; j < 3; j++) g[j] += along * back[j];
#pragma unroll
            for (int j = 0; j < 3; j++) {
                const R turned = f.x[3 * j] * g[0] + f.x[3 * j + 1] * g[1] + f.x[3 * j + 2] * g[2];
                to[c + 3 * p + j] = turned;
                if (low) to[c + low + 3 * p + j] = turned;
                sum[9 + j] -= turned;
#pragma unroll
                for (int k = 0; k < 3; k++) sum[3 * j + k] += x[j] * g[k];
            }
        }
        for (int rho = 0; rho < s.rank; rho++)
            for (int j = lane; j < s.dz; j += 32) dw[rho * s.dz + j] = pairs[h * s.dz + j] * y[rho * s.dz + j];
    }
#pragma unroll
    for (int j = 0; j < 12; j++) {
        const R total = mf__warp_sum(sum[j]);
        if (lane == 0) sums[warp][j] = total;
    }
    for (int rho = warp; dpair_value && rho < s.rank; rho += warps)
        for (int j = lane; j < s.dz; j += 32) {
            const R *w = attended + i * H * s.dv + c + s.values + rho * s.dz + j;
            R total = 0;
            for (int h = 0; h < H; h++) total += pairs[h * s.dz + j] * w[(int64_t)h * s.dv];
            dpair_value[(2 * i * s.rank + rho) * s.dz + j] = total;
        }
    __syncthreads();
    if (threadIdx.x < 12) {
        R total = 0;
        for (int w = 0; w < warps; w++) total += sums[w][threadIdx.x];
        dframes[12 * i + threadIdx.x] = total;
    }
}

/* ---- launchers ---- */

static void work(mf_device *d, const mf_ipa_args *a, int backward) {
    const double features = (double)(a->heads * (a->hidden + 4 * a->value_points + a->dz)), attended = (double)(a->heads * a->dv);
    const double gathered = (double)(a->heads * (a->dv - a->hidden)), n = (double)a->packing->total;
    mf__cuda_work(d, (backward ? 8 : 3) * n * attended,
                  (double)mf_dtype_bytes(a->dtype) * n * (features + attended + (backward ? gathered : 0) + 12));
}

mf_status mf__cuda_readout(mf_device *d, const mf_ipa_args *a) {
    mf_ipa_sizes s{};
    MF_TRY(mf__ipa_sizes(&s, "readout", a));
    work(d, a, 0);
    MF_DISPATCH_REAL(a->dtype, R,
                     return MF_LAUNCH(d, readout_kernel<R>, (unsigned)a->packing->total, mf__ipa_threads(a), 0, s, (const R *)a->attended,
                                      (const R *)a->frames, (const R *)a->pair_value, (R *)a->features));
}

mf_status mf__cuda_readout_grad(mf_device *d, const mf_ipa_args *a) {
    mf_ipa_sizes s{};
    MF_TRY(mf__ipa_sizes(&s, "readout_grad", a));
    work(d, a, 1);
    MF_DISPATCH_REAL(a->dtype, R,
                     return MF_LAUNCH(d, readout_grad_kernel<R>, (unsigned)a->packing->total, mf__ipa_threads(a), 0, s, (const R *)a->dfeatures,
                                      (const R *)a->attended, (const R *)a->frames, (const R *)a->pair_value, (R *)a->dattended, (R *)a->dframes,
                                      (R *)a->dpair_value));
}
