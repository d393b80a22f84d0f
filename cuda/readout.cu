/* readout.cu: from what attention gathered to the features of linear_out, and the adjoint (core/ipa/flash_ipa.c has the equations).
 *
 *   readout       o | R'^T (o_p - t')  x, y, z | sqrt(|.|^2 + 1e-8) | sum_rho y1 w
 *   readout_grad  dattended, dframes, dy1 (the first half of dpair_value's rows), all written with '='; lift_grad adds to dframes and
 *                 writes the second half
 *
 * Where operands have 16 bits, dattended is what the kernels of attention take: rounded, in float16 times a power of two, with
 * delta = rowsum(dout out) of the rounded. The power needs the largest dout and v first (scale.cuh); so a kernel before goes over
 * dfeatures and takes a bound of dout from it, for which it needs neither what was gathered nor the frames: a point's gradient is
 * at most |(x, y, z)| + |norm's|. Norms of v's rows come from lift.
 *
 * Traffic   7.5 KB in and 6.7 KB out a residue at the default widths in float32, backward 6.7 and 14.2 KB in, 3.7 KB out; some 3
 *           operations a number: bound by bandwidth
 * Mapping   a block a residue at a time, a warp a head, a lane a point or a channel of the pair, through shared memory (ipa.cuh)
 * Numerics  everything in the tensor's type, float32 or float64; what is gathered is never rounded to 16 bits
 * Bitwise   deterministic: heads are added in order, points by shuffles. */
#include "table.cuh"
#include "ipa.cuh"
#include "scale.cuh"

enum { READOUT_BLOCKS = 5, EXTENTS_BLOCKS = 5, READOUT_GRAD_BLOCKS = 4 };   /* a multiprocessor, where they fit */

/* x = the gathered point less the frame's origin, back = R' x; `met` the point itself. */
template <class R> static __device__ __forceinline__ void gathered(R *met, R *x, R *back, const R *frame, const R *columns, int low) {
#pragma unroll
    for (int j = 0; j < 3; j++) {
        met[j] = columns[j] + (low ? columns[low + j] : R(0));
        x[j] = met[j] - frame[9 + j];
    }
#pragma unroll
    for (int j = 0; j < 3; j++) back[j] = frame[j] * x[0] + frame[3 + j] * x[1] + frame[6 + j] * x[2];
}
template <class R> static __device__ __forceinline__ R norm_of(const R *x) {
    return sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2] + R(1e-8));
}
static __host__ __device__ inline int features_of(const mf_ipa_sizes &s) { return s.heads * (s.hidden + 4 * s.value_points + s.dz); }

struct readout_rooms {
    int features, attended, frame, factors, in;               /* `in` twice, then results */
    int to;
};

template <class R, bool STAGED>
static __global__ void __launch_bounds__(256, STAGED && sizeof(R) == 4 ? READOUT_BLOCKS : 1)
readout_kernel(mf_ipa_sizes s, readout_rooms at, int64_t n, const R *attended, const R *frames, const R *pair_value, R *features) {
    MF_SHARED(unsigned char, shared);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, c = s.hidden, V = s.value_points;
    const int H = s.heads, low = s.split ? 3 * V : 0, pairs = s.rank * s.dz, width = features_of(s);
    const auto fetch = [&](int64_t i, int buffer) {
        unsigned char *to = shared + buffer * at.in;
        mf__fetch(to + at.attended, attended + i * H * s.dv, H * s.dv);
        mf__fetch(to + at.frame, frames + 12 * i, 12);
        mf__fetch(to + at.factors, pair_value + 2 * i * pairs, pairs);
        mf__copy_commit();
    };
    if (STAGED) fetch(blockIdx.x, 0);
    int buffer = 0;
    for (int64_t i = blockIdx.x; i < n; i += gridDim.x, buffer ^= 1) {
        if (STAGED) {
            mf__copy_wait<0>();
            __syncthreads();                                   /* this residue is there; of the one before nothing is in use */
            if (i + gridDim.x < n) fetch(i + gridDim.x, buffer ^ 1);
        }
        unsigned char *room = shared + buffer * at.in;
        const R *gather = mf__room<STAGED>(room, at.attended, attended + i * H * s.dv), *frame = mf__room<STAGED>(room, at.frame, frames + 12 * i);
        const R *y = mf__room<STAGED>(room, at.factors, pair_value + 2 * i * pairs);
        R *to = mf__room<STAGED>(shared, at.to, features + i * width), *points = to + H * c, *mixed = points + 4 * H * V;
        for (int h = warp; h < H; h += warps) {
            const R *from = gather + h * s.dv, *w = from + c + s.values;
            mf__copy_rows<1, 4, R, R>({to + h * c}, {from}, {R(1)}, c);
            for (int p = lane; p < V; p += 32) {
                R met[3], x[3], back[3];
                gathered(met, x, back, frame, from + c + 3 * p, low);
#pragma unroll
                for (int j = 0; j < 3; j++) points[(j * H + h) * V + p] = back[j];
                points[(3 * H + h) * V + p] = norm_of(back);
            }
            for (int j = lane; j < s.dz; j += 32) {
                R total = 0;
                for (int rho = 0; rho < s.rank; rho++) total += y[rho * s.dz + j] * w[rho * s.dz + j];
                mixed[h * s.dz + j] = total;
            }
        }
        if (!STAGED) continue;
        __syncthreads();
        mf__write_out(features + i * width, to, width);
    }
}

/* ---- backward ---- */

/* The squared norm of one head's dout, or a bound of it; S: what it is summed in. */
template <class S, class R>
static __device__ __forceinline__ S dout_square(const mf_ipa_sizes &s, const R *features, const R *factors, int h, int lane) {
    const int c = s.hidden, V = s.value_points, H = s.heads;
    const R *points = features + H * c, *mixed = points + 4 * H * V;
    S sum = 0, turned = 0;
    for (int j = lane; j < c; j += 32) sum += (S)features[h * c + j] * (S)features[h * c + j];
    for (int p = lane; p < V; p += 32) {
        S g[4];
#pragma unroll
        for (int j = 0; j < 4; j++) g[j] = (S)points[(j * H + h) * V + p];
        const S most = sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2]) + fabs(g[3]);
        turned += most * most;
    }
    for (int j = lane; j < s.dz; j += 32) {
        const S by = (S)mixed[h * s.dz + j];
        for (int rho = 0; rho < s.rank; rho++) {
            const S x = by * (S)factors[rho * s.dz + j];
            sum += x * x;
        }
    }
    return mf__warp_sum(s.split ? sum + 2 * turned : sum + turned);
}

template <class R, bool STAGED>
static __global__ void __launch_bounds__(256, STAGED ? EXTENTS_BLOCKS : 1)
readout_extents_kernel(mf_ipa_sizes s, readout_rooms at, int64_t n, const R *dfeatures, const R *pair_value, const float *v_square,
                       double *extents) {
    MF_SHARED(unsigned char, shared);
    __shared__ double slots[32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, H = s.heads, pairs = s.rank * s.dz, width = features_of(s);
    const auto fetch = [&](int64_t i, int buffer) {
        unsigned char *to = shared + buffer * at.in;
        mf__fetch(to + at.features, dfeatures + i * width, width);
        mf__fetch(to + at.factors, pair_value + 2 * i * pairs, pairs);
        mf__copy_commit();
    };
    if (STAGED) fetch(blockIdx.x, 0);
    double largest = 0, v_largest = 0;
    int buffer = 0;
    for (int64_t i = blockIdx.x; i < n; i += gridDim.x, buffer ^= 1) {
        for (int h = (int)threadIdx.x; h < H; h += (int)blockDim.x) v_largest = fmax(v_largest, (double)v_square[i * H + h]);
        if (STAGED) {
            mf__copy_wait<0>();
            __syncthreads();
            if (i + gridDim.x < n) fetch(i + gridDim.x, buffer ^ 1);
        }
        unsigned char *room = shared + buffer * at.in;
        const R *features = mf__room<STAGED>(room, at.features, dfeatures + i * width);
        const R *factors = mf__room<STAGED>(room, at.factors, pair_value + 2 * i * pairs);
        for (int h = warp; h < H; h += warps) {
            const float square = dout_square<float>(s, features, factors, h, lane);
            const bool fits = square > 1e-30f && square < 1e30f;       /* else again in double; NaN is passed over */
            largest = fmax(largest, fits ? (double)square : dout_square<double>(s, features, factors, h, lane));
        }
    }
    mf__leave_extents(extents, sqrt(largest), largest, v_largest, slots);
}

template <class R> struct readout_results {
    R *dframes, *dpair_value;
    R *delta;                     /* with these where dattended has 16 bits */
    float *scale;
    const double *extents;        /* NULL: not scaled */
    int blocks;
};

/* D: the type of dattended. */
template <class R, class D, bool STAGED>
static __global__ void __launch_bounds__(256, STAGED && sizeof(R) == 4 ? READOUT_GRAD_BLOCKS : 1)
readout_grad_kernel(mf_ipa_sizes s, readout_rooms at, int64_t n, const R *dfeatures, const R *attended, const R *frames, const R *pair_value,
                    D *dattended, readout_results<R> out) {
    constexpr bool rounds = !std::is_same_v<D, R>;
    MF_SHARED(unsigned char, shared);
    __shared__ double slots[32];
    __shared__ R sums[8][12];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, c = s.hidden, V = s.value_points;
    const int H = s.heads, low = s.split ? 3 * V : 0, pairs = s.rank * s.dz, width = features_of(s), ld = rounds ? s.ldv : s.dv;
    const auto fetch = [&](int64_t i, int buffer) {
        unsigned char *to = shared + buffer * at.in;
        mf__fetch(to + at.features, dfeatures + i * width, width);
        mf__fetch(to + at.attended, attended + i * H * s.dv, H * s.dv);
        mf__fetch(to + at.frame, frames + 12 * i, 12);
        mf__fetch(to + at.factors, pair_value + 2 * i * pairs, pairs);
        mf__copy_commit();
    };
    if (STAGED) fetch(blockIdx.x, 0);
    const R scale = rounds && out.extents ? (R)mf__dout_scale(out.extents, out.blocks, slots) : R(1);
    if (rounds && blockIdx.x == 0 && threadIdx.x == 0) *out.scale = (float)scale;
    int buffer = 0;
    for (int64_t i = blockIdx.x; i < n; i += gridDim.x, buffer ^= 1) {
        if (STAGED) mf__copy_wait<0>();
        __syncthreads();                                       /* this residue is there; of the one before nothing is in use */
        if (STAGED && i + gridDim.x < n) fetch(i + gridDim.x, buffer ^ 1);
        unsigned char *room = shared + buffer * at.in;
        const R *features = mf__room<STAGED>(room, at.features, dfeatures + i * width), *points = features + H * c, *mixed = points + 4 * H * V;
        const R *gather = mf__room<STAGED>(room, at.attended, attended + i * H * s.dv), *frame = mf__room<STAGED>(room, at.frame, frames + 12 * i);
        const R *y = mf__room<STAGED>(room, at.factors, pair_value + 2 * i * pairs);
        D *rows = mf__room<STAGED>(shared, at.to, dattended + i * H * ld);
        R sum[12] = {};
        for (int h = warp; h < H; h += warps) {
            const R *from = gather + h * s.dv, *g_from = features + h * c;
            D *to = rows + h * ld;
            R delta = 0;
            const auto give = [&](int column, R x, R met) {
                const D rounded = mf__to<D>(scale * x);
                to[column] = rounded;
                if (rounds) delta += mf__to<R>(rounded) * met;
            };
            for (int j = lane; j < c; j += 32) give(j, g_from[j], from[j]);
            for (int p = lane; p < V; p += 32) {
                R met[3], x[3], back[3], g[3];
                gathered(met, x, back, frame, from + c + 3 * p, low);
                const R along = points[(3 * H + h) * V + p] / norm_of(back);
#pragma unroll
                for (int j = 0; j < 3; j++) g[j] = points[(j * H + h) * V + p] + along * back[j];
#pragma unroll
                for (int j = 0; j < 3; j++) {
                    const R turned = frame[3 * j] * g[0] + frame[3 * j + 1] * g[1] + frame[3 * j + 2] * g[2];
                    give(c + 3 * p + j, turned, met[j]);                        /* hi and lo met the same gradient */
                    if (low) give(c + low + 3 * p + j, turned, R(0));
                    sum[9 + j] -= turned;
#pragma unroll
                    for (int k = 0; k < 3; k++) sum[3 * j + k] += x[j] * g[k];
                }
            }
            for (int rho = 0; rho < s.rank; rho++)
                for (int j = lane; j < s.dz; j += 32) {
                    const int column = c + s.values + rho * s.dz + j;
                    give(column, mixed[h * s.dz + j] * y[rho * s.dz + j], from[column]);
                }
            if constexpr (rounds) {
                for (int j = s.dv + lane; j < ld; j += 32) to[j] = mf__to<D>(0.0f);
                delta = mf__warp_sum(delta);
                if (lane == 0) out.delta[i * H + h] = delta;
            }
        }
#pragma unroll
        for (int j = 0; j < 12; j++) {
            const R total = mf__warp_sum(sum[j]);
            if (lane == 0) sums[warp][j] = total;
        }
        for (int j = (int)threadIdx.x; out.dpair_value && j < pairs; j += (int)blockDim.x) {
            R total = 0;
            for (int h = 0; h < H; h++) total += mixed[h * s.dz + j % s.dz] * gather[h * s.dv + c + s.values + j];
            out.dpair_value[2 * i * pairs + j] = total;
        }
        __syncthreads();
        if (STAGED) mf__write_out(dattended + i * H * ld, rows, H * ld);
        if (threadIdx.x < 12) {
            R total = 0;
            for (int w = 0; w < warps; w++) total += sums[w][threadIdx.x];
            out.dframes[12 * i + threadIdx.x] = total;
        }
    }
}

/* ---- launchers ---- */

static void work(mf_device *d, const mf_ipa_args *a, double elements, double halves, double operations) {
    const double n = (double)a->packing->total;
    mf__cuda_work(d, operations * n * (double)(a->heads * a->dv), n * ((double)mf_dtype_bytes(a->dtype) * elements + 2 * halves));
}

/* Rooms for what a kernel takes, then for `results` elements. */
static readout_rooms rooms_of(mf_rooms *r, const mf_ipa_sizes &s, int size, bool features, bool attended, int64_t results, int result_size) {
    readout_rooms at;
    at.features = r->add(features ? features_of(s) : 0, size);
    at.attended = r->add(attended ? s.heads * s.dv : 0, size);
    at.frame = r->add(12, size);
    at.factors = r->add(s.rank * s.dz, size);
    at.in = (int)r->bytes;
    r->bytes *= 2;
    at.to = r->add(results, result_size);
    return at;
}
static bool fits(const mf_device *d, const mf_rooms &r) { return r.bytes + 1024 <= mf__cuda(d)->shared_limit; }

template <class R> static mf_status launch_readout(mf_device *d, const mf_ipa_sizes &s, const mf_ipa_args *a) {
    const int64_t n = a->packing->total;
    const unsigned threads = mf__ipa_threads(a);
    const R *attended = (const R *)a->attended, *frames = (const R *)a->frames, *pair_value = (const R *)a->pair_value;
    mf_rooms r;
    const readout_rooms at = rooms_of(&r, s, (int)sizeof(R), false, true, features_of(s), (int)sizeof(R));
    work(d, a, (double)(features_of(s) + s.heads * s.dv + 12), 0, 3);
    if (fits(d, r))
        return MF_LAUNCH(d, (readout_kernel<R, true>), mf__ipa_blocks(d, n, r.bytes, READOUT_BLOCKS), threads, r.bytes, s, at, n, attended, frames,
                         pair_value, (R *)a->features);
    return MF_LAUNCH(d, (readout_kernel<R, false>), (unsigned)n, threads, 0, s, at, n, attended, frames, pair_value, (R *)a->features);
}

template <class R, class D> static mf_status launch_grad(mf_device *d, const mf_ipa_sizes &s, const mf_ipa_args *a) {
    constexpr bool rounds = !std::is_same_v<D, R>;
    const int64_t n = a->packing->total, results = (int64_t)s.heads * (rounds ? s.ldv : s.dv);
    const unsigned threads = mf__ipa_threads(a);
    const R *dfeatures = (const R *)a->dfeatures, *attended = (const R *)a->attended, *frames = (const R *)a->frames;
    const R *pair_value = (const R *)a->pair_value;
    readout_results<R> out = {(R *)a->dframes, (R *)a->dpair_value, (R *)a->delta, (float *)a->dout_scale, nullptr, 0};
    mf_scratch extents;
    if constexpr (std::is_same_v<D, __half>) {
        mf_rooms r;
        const readout_rooms at = rooms_of(&r, s, (int)sizeof(R), true, false, 0, 0);
        const bool staged = fits(d, r);
        const int64_t shared = staged ? r.bytes : 0;
        const unsigned blocks = mf__ipa_blocks(d, n, shared, EXTENTS_BLOCKS);
        MF_TRY(extents.take(d, 3 * (int64_t)sizeof(double) * blocks));
        out.blocks = (int)blocks;
        out.extents = extents.as<double>();
        work(d, a, (double)features_of(s), 0, 2);
        MF_TRY(staged ? MF_LAUNCH(d, (readout_extents_kernel<R, true>), blocks, threads, shared, s, at, n, dfeatures, pair_value,
                                  (const float *)a->v_square, extents.as<double>())
                      : MF_LAUNCH(d, (readout_extents_kernel<R, false>), blocks, threads, shared, s, at, n, dfeatures, pair_value,
                                  (const float *)a->v_square, extents.as<double>()));
    }
    mf_rooms r;
    const readout_rooms at = rooms_of(&r, s, (int)sizeof(R), true, true, results, (int)sizeof(D));
    work(d, a, (double)(features_of(s) + s.heads * s.dv * (rounds ? 1 : 2) + 24), rounds ? (double)results : 0, 8);
    if (fits(d, r))
        return MF_LAUNCH(d, (readout_grad_kernel<R, D, true>), mf__ipa_blocks(d, n, r.bytes, READOUT_GRAD_BLOCKS), threads, r.bytes, s, at, n,
                         dfeatures, attended, frames, pair_value, (D *)a->dattended, out);
    return MF_LAUNCH(d, (readout_grad_kernel<R, D, false>), (unsigned)n, threads, 0, s, at, n, dfeatures, attended, frames, pair_value,
                     (D *)a->dattended, out);
}

mf_status mf__cuda_readout(mf_device *d, const mf_ipa_args *a) {
    mf_ipa_sizes s{};
    MF_TRY(mf__ipa_sizes(&s, "readout", a));
    return a->dtype == MF_FLOAT64 ? launch_readout<double>(d, s, a) : launch_readout<float>(d, s, a);
}

mf_status mf__cuda_readout_grad(mf_device *d, const mf_ipa_args *a) {
    mf_ipa_sizes s{};
    MF_TRY(mf__ipa_sizes(&s, "readout_grad", a));
    if (a->dtype == MF_FLOAT64) return launch_grad<double, double>(d, s, a);
    if (a->operand == MF_FLOAT16) return launch_grad<float, __half>(d, s, a);
    if (a->operand == MF_BFLOAT16) return launch_grad<float, __nv_bfloat16>(d, s, a);
    return launch_grad<float, float>(d, s, a);
}
