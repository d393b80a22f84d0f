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
 * Mapping   readout: a block a residue at a time, a warp a head, a lane a point or a channel of the pair, through shared memory (ipa.cuh).
 *           The gradient: a warp a residue, its heads one after the other, frames, factors and all sums over heads in its registers;
 *           where residues are too few to fill the device a block a residue, its warps the heads in turn. A lane is four scalar
 *           columns, a point and a channel of two factors, loaded a head ahead; what is beyond is loaded where it is used. Rows of 16
 *           bits are put together in shared memory and written 16 bytes at a time. (As readout does it, the gradient takes 100 us for
 *           88 at L = 8192; readout as the gradient does it 51 for 37.)
 * Numerics  everything in the tensor's type, float32 or float64; what is gathered is never rounded to 16 bits
 * Bitwise   deterministic: heads are added in order, points by shuffles. */
#include "table.cuh"
#include "ipa.cuh"
#include "scale.cuh"

enum { READOUT_BLOCKS = 5, EXTENTS_BLOCKS = 4, READOUT_GRAD_BLOCKS = 2 };   /* a multiprocessor */

static __host__ __device__ inline int features_of(const mf_ipa_sizes &s) { return s.heads * (s.hidden + 4 * s.value_points + s.dz); }

/* x: the gathered point, then less the frame's origin; back = R' x. */
template <class R> static __device__ __forceinline__ void take_back(R *x, R *back, const mf_frame<R> &f) {
#pragma unroll
    for (int j = 0; j < 3; j++) x[j] -= f.x[9 + j];
#pragma unroll
    for (int j = 0; j < 3; j++) back[j] = f.x[j] * x[0] + f.x[3 + j] * x[1] + f.x[6 + j] * x[2];
}
template <class R> static __device__ __forceinline__ R norm_of(const R *x) {
    return sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2] + R(1e-8));
}
template <class R> static __device__ __forceinline__ void load_point(R *x, const mf_ipa_sizes &s, const R *from, int p) {
#pragma unroll
    for (int j = 0; j < 3; j++)
        x[j] = from[s.hidden + 3 * p + j] + (s.split ? from[s.hidden + 3 * (s.value_points + p) + j] : R(0));
}

struct readout_rooms {
    int attended, frame, factors, in;                         /* `in` twice, then results */
    int to;
};

template <class R, bool STAGED>
static __global__ void __launch_bounds__(256, STAGED && sizeof(R) == 4 ? READOUT_BLOCKS : 1)
readout_kernel(mf_ipa_sizes s, readout_rooms at, int64_t n, const R *attended, const R *frames, const R *pair_value, R *features) {
    MF_SHARED(unsigned char, shared);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5, c = s.hidden, V = s.value_points;
    const int H = s.heads, pairs = s.rank * s.dz, width = features_of(s);
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
        const R *gather = mf__room<STAGED>(room, at.attended, attended + i * H * s.dv);
        const mf_frame<R> f = mf__load_frame(mf__room<STAGED>(room, at.frame, frames + 12 * i), 0);
        const R *y = mf__room<STAGED>(room, at.factors, pair_value + 2 * i * pairs);
        R *to = mf__room<STAGED>(shared, at.to, features + i * width), *points = to + H * c, *mixed = points + 4 * H * V;
        for (int h = warp; h < H; h += warps) {
            const R *from = gather + h * s.dv, *w = from + c + s.values;
            mf__copy_rows<1, 4, R, R>({to + h * c}, {from}, {R(1)}, c);
            for (int p = lane; p < V; p += 32) {
                R x[3], back[3];
                load_point(x, s, from, p);
                take_back(x, back, f);
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

/* Residues and heads of a warp. */
struct share_of {
    int64_t i, step;
    int head, heads;              /* first, and from one to the next */
    __device__ __forceinline__ explicit share_of(bool spread) {
        const int warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
        i = spread ? (int64_t)blockIdx.x : (int64_t)blockIdx.x * warps + warp;
        step = spread ? (int64_t)gridDim.x : (int64_t)gridDim.x * warps;
        head = spread ? warp : 0;
        heads = spread ? warps : 1;
    }
};

/* What a lane holds of one head of `attended`. */
template <class R, int N> struct gathered_part {
    mf_pack<R, N> scalars;
    R point[3], low[3], pair[2];
    __device__ __forceinline__ void load(const mf_ipa_sizes &s, const R *from, int lane) {
        if (lane * N < s.hidden) scalars = *(const mf_pack<R, N> *)(from + lane * N);
#pragma unroll
        for (int j = 0; j < 3; j++) {
            point[j] = lane < s.value_points ? from[s.hidden + 3 * lane + j] : R(0);
            low[j] = s.split && lane < s.value_points ? from[s.hidden + 3 * (s.value_points + lane) + j] : R(0);
        }
#pragma unroll
        for (int rho = 0; rho < 2; rho++) pair[rho] = lane < s.dz && rho < s.rank ? from[s.hidden + s.values + rho * s.dz + lane] : R(0);
    }
};
/* And of a head of features or their gradient: the parts lie apart there. */
template <class R, int N> struct feature_part {
    mf_pack<R, N> scalars;
    R point[4], pair;
    __device__ __forceinline__ void load(const mf_ipa_sizes &s, const R *features, int h, int lane) {
        const int H = s.heads, V = s.value_points;
        const R *points = features + H * s.hidden;
        if (lane * N < s.hidden) scalars = *(const mf_pack<R, N> *)(features + h * s.hidden + lane * N);
#pragma unroll
        for (int j = 0; j < 4; j++) point[j] = lane < V ? points[(j * H + h) * V + lane] : R(0);
        pair = lane < s.dz ? points[4 * H * V + h * s.dz + lane] : R(0);
    }
};
template <class R> static __device__ __forceinline__ void load_factors(R *y, const mf_ipa_sizes &s, const R *factors, int lane) {
#pragma unroll
    for (int rho = 0; rho < 2; rho++) y[rho] = lane < s.dz && rho < s.rank ? factors[rho * s.dz + lane] : R(0);
}

/* The squared norm of one head's dout, or a bound of it; S: what it is summed in. */
template <class S, class R, int N>
static __device__ __forceinline__ S dout_square(const mf_ipa_sizes &s, const feature_part<R, N> &now, const R *y, const R *features,
                                                const R *factors, int h, int lane) {
    const int c = s.hidden, V = s.value_points, H = s.heads;
    const R *points = features + H * c, *pairs = points + 4 * H * V;
    S sum = 0;
    const auto add = [&](S x) { sum += x * x; };
    if (lane * N < c)
#pragma unroll
        for (int l = 0; l < N; l++) add((S)now.scalars.x[l]);
    for (int j = (lane + 32) * N; j < c; j += 32 * N)
        for (int l = 0; l < N; l++) add((S)features[h * c + j + l]);
    S turned = 0;
    for (int p = lane; p < V; p += 32) {
        R g[4];
#pragma unroll
        for (int j = 0; j < 4; j++) g[j] = p == lane ? now.point[j] : points[(j * H + h) * V + p];
        const S most = sqrt((S)g[0] * (S)g[0] + (S)g[1] * (S)g[1] + (S)g[2] * (S)g[2]) + fabs((S)g[3]);
        turned += most * most;
    }
    sum += s.split ? 2 * turned : turned;
    for (int j = lane; j < s.dz; j += 32)
        for (int rho = 0; rho < s.rank; rho++) {
            const bool ahead = j == lane && rho < 2;
            add((S)(ahead ? now.pair : pairs[h * s.dz + j]) * (S)(ahead ? rho ? y[1] : y[0] : factors[rho * s.dz + j]));
        }
    return mf__warp_sum(sum);
}

template <class R, int N>
static __global__ void __launch_bounds__(256, EXTENTS_BLOCKS)
readout_extents_kernel(mf_ipa_sizes s, int64_t n, bool spread, const R *__restrict__ dfeatures, const R *__restrict__ pair_value,
                       const float *__restrict__ v_square, double *__restrict__ extents) {
    __shared__ double slots[32];
    const int lane = threadIdx.x & 31, H = s.heads;
    const share_of mine(spread);
    double largest = 0, v_largest = 0;
    for (int64_t i = mine.i; i < n; i += mine.step) {
        const R *features = dfeatures + i * features_of(s), *factors = pair_value + 2 * i * s.rank * s.dz;
        R y[2];
        load_factors(y, s, factors, lane);
        for (int h = lane; h < H; h += 32) v_largest = fmax(v_largest, (double)v_square[i * H + h]);
        feature_part<R, N> next;
        if (mine.head < H) next.load(s, features, mine.head, lane);
        for (int h = mine.head; h < H; h += mine.heads) {
            const feature_part<R, N> now = next;
            if (h + mine.heads < H) next.load(s, features, h + mine.heads, lane);
            const float square = dout_square<float>(s, now, y, features, factors, h, lane);
            const bool fits = square > 1e-30f && square < 1e30f;       /* else again in double; NaN is passed over */
            largest = fmax(largest, fits ? (double)square : dout_square<double>(s, now, y, features, factors, h, lane));
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

/* D: the type of dattended. `staged`: a row of it is put together in shared memory. */
template <class R, class D, int N>
static __global__ void __launch_bounds__(256, sizeof(R) == 4 ? READOUT_GRAD_BLOCKS : 1)
readout_grad_kernel(mf_ipa_sizes s, int64_t n, bool spread, bool staged, const R *__restrict__ dfeatures, const R *__restrict__ attended,
                    const R *__restrict__ frames, const R *__restrict__ pair_value, D *__restrict__ dattended, readout_results<R> out) {
    constexpr bool rounds = !std::is_same_v<D, R>;
    MF_SHARED(D, rows);
    __shared__ double slots[32];
    __shared__ R parts[8][12 + 64];                           /* sums of the warps of a residue: of frames, of two factors */
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, c = s.hidden, V = s.value_points, H = s.heads, low = s.split ? 3 * V : 0;
    const int ld = rounds ? s.ldv : s.dv;
    const R scale = rounds && out.extents ? (R)mf__dout_scale(out.extents, out.blocks, slots) : R(1);
    if (rounds && blockIdx.x == 0 && threadIdx.x == 0) *out.scale = (float)scale;
    const share_of mine(spread);
    for (int64_t i = mine.i; i < n; i += mine.step) {
        const R *features = dfeatures + i * features_of(s), *points = features + H * c, *pairs = points + 4 * H * V;
        const R *from = attended + (i * H + mine.head) * s.dv, *factors = pair_value + 2 * i * s.rank * s.dz;
        const mf_frame<R> f = mf__load_frame(frames, i);
        R y[2], dy[2] = {}, sum[12] = {};
        load_factors(y, s, factors, lane);
        gathered_part<R, N> o_next;
        feature_part<R, N> g_next;
        if (mine.head < H) {
            o_next.load(s, from, lane);
            g_next.load(s, features, mine.head, lane);
        }
        for (int h = mine.head; h < H; h += mine.heads, from += mine.heads * s.dv) {
            const gathered_part<R, N> o = o_next;
            const feature_part<R, N> g = g_next;
            if (h + mine.heads < H) {
                o_next.load(s, from + mine.heads * s.dv, lane);
                g_next.load(s, features, h + mine.heads, lane);
            }
            D *const row = dattended + (i * H + h) * ld, *const to = staged ? rows + warp * ld : row;
            R delta = 0;
            const auto put = [&](int column, R x, R met) {
                const D rounded = mf__to<D>(scale * x);
                to[column] = rounded;
                if (rounds) delta += mf__to<R>(rounded) * met;
            };
            const auto put_pack = [&](int column, const mf_pack<R, N> &x, const mf_pack<R, N> &met) {
                mf_pack<D, N> rounded;
#pragma unroll
                for (int l = 0; l < N; l++) {
                    rounded.x[l] = mf__to<D>(scale * x.x[l]);
                    if (rounds) delta += mf__to<R>(rounded.x[l]) * met.x[l];
                }
                *(mf_pack<D, N> *)(to + column) = rounded;
            };
            if (lane * N < c) put_pack(lane * N, g.scalars, o.scalars);
            for (int j = (lane + 32) * N; j < c; j += 32 * N)
                put_pack(j, *(const mf_pack<R, N> *)(features + h * c + j), *(const mf_pack<R, N> *)(from + j));
            for (int p = lane; p < V; p += 32) {
                R x[3] = {o.point[0] + o.low[0], o.point[1] + o.low[1], o.point[2] + o.low[2]}, back[3];
                R t[4] = {g.point[0], g.point[1], g.point[2], g.point[3]};
                if (p != lane) {
                    load_point(x, s, from, p);
#pragma unroll
                    for (int j = 0; j < 4; j++) t[j] = points[(j * H + h) * V + p];
                }
                const R met[3] = {x[0], x[1], x[2]};          /* hi and lo met the same gradient */
                take_back(x, back, f);
                const R along = t[3] / norm_of(back);
#pragma unroll
                for (int j = 0; j < 3; j++) t[j] += along * back[j];
#pragma unroll
                for (int j = 0; j < 3; j++) {
                    const R turned = f.x[3 * j] * t[0] + f.x[3 * j + 1] * t[1] + f.x[3 * j + 2] * t[2];
                    put(c + 3 * p + j, turned, met[j]);
                    if (low) put(c + low + 3 * p + j, turned, R(0));
                    sum[9 + j] -= turned;
#pragma unroll
                    for (int k = 0; k < 3; k++) sum[3 * j + k] += x[j] * t[k];
                }
            }
            for (int j = lane; j < s.dz; j += 32) {
                const R by = j == lane ? g.pair : pairs[h * s.dz + j];
                if (j == lane)
#pragma unroll
                    for (int rho = 0; rho < 2; rho++)
                        if (rho < s.rank) {
                            put(c + s.values + rho * s.dz + j, by * y[rho], o.pair[rho]);
                            dy[rho] += by * o.pair[rho];
                        }
                for (int rho = j == lane ? 2 : 0; rho < s.rank; rho++)
                    put(c + s.values + rho * s.dz + j, by * factors[rho * s.dz + j], from[c + s.values + rho * s.dz + j]);
            }
            if constexpr (rounds) {
                for (int j = s.dv + lane; j < ld; j += 32) to[j] = mf__to<D>(0.0f);
                delta = mf__warp_sum(delta);
                if (lane == 0) out.delta[i * H + h] = delta;
                __syncwarp();
                for (int j = lane; staged && j < ld / 8; j += 32) ((mf_pack<D, 8> *)row)[j] = ((const mf_pack<D, 8> *)to)[j];
                __syncwarp();
            }
        }
        R frame_sum = 0;
#pragma unroll
        for (int j = 0; j < 12; j++) {
            const R total = mf__warp_sum(sum[j]);
            if (lane == j) frame_sum = total;
        }
        if (spread) {
            if (lane < 12) parts[warp][lane] = frame_sum;
            parts[warp][12 + lane] = dy[0];
            parts[warp][44 + lane] = dy[1];
            __syncthreads();
            frame_sum = dy[0] = dy[1] = 0;
            for (int w = 0; warp == 0 && w < (int)(blockDim.x >> 5); w++) {
                if (lane < 12) frame_sum += parts[w][lane];
                dy[0] += parts[w][12 + lane];
                dy[1] += parts[w][44 + lane];
            }
            __syncthreads();
            if (warp > 0) continue;
        }
        if (lane < 12) out.dframes[12 * i + lane] = frame_sum;
        R *dfactors = out.dpair_value ? out.dpair_value + 2 * i * s.rank * s.dz : nullptr;
        for (int rho = 0; dfactors && rho < s.rank; rho++)
            for (int j = lane; j < s.dz; j += 32) {
                R total = rho == 0 ? dy[0] : dy[1];
                if (j != lane || rho >= 2) {
                    total = 0;
                    for (int h = 0; h < H; h++) total += pairs[h * s.dz + j] * attended[(i * H + h) * s.dv + c + s.values + rho * s.dz + j];
                }
                dfactors[rho * s.dz + j] = total;
            }
    }
}

/* ---- launchers ---- */

static void work(mf_device *d, const mf_ipa_args *a, double elements, double halves, double operations) {
    const double n = (double)a->packing->total;
    mf__cuda_work(d, operations * n * (double)(a->heads * a->dv), n * ((double)mf_dtype_bytes(a->dtype) * elements + 2 * halves));
}

template <class R> static mf_status launch_readout(mf_device *d, const mf_ipa_sizes &s, const mf_ipa_args *a) {
    const int64_t n = a->packing->total;
    const unsigned threads = mf__ipa_threads(a);
    const R *attended = (const R *)a->attended, *frames = (const R *)a->frames, *pair_value = (const R *)a->pair_value;
    mf_rooms r;
    readout_rooms at;
    at.attended = r.add(s.heads * s.dv, (int)sizeof(R));
    at.frame = r.add(12, (int)sizeof(R));
    at.factors = r.add(s.rank * s.dz, (int)sizeof(R));
    at.in = (int)r.bytes;
    r.bytes *= 2;
    at.to = r.add(features_of(s), (int)sizeof(R));
    work(d, a, (double)(features_of(s) + s.heads * s.dv + 12), 0, 3);
    if (r.bytes + 1024 <= mf__cuda(d)->shared_limit)
        return MF_LAUNCH(d, (readout_kernel<R, true>), mf__ipa_blocks(d, n, r.bytes, READOUT_BLOCKS), threads, r.bytes, s, at, n, attended, frames,
                         pair_value, (R *)a->features);
    return MF_LAUNCH(d, (readout_kernel<R, false>), (unsigned)n, threads, 0, s, at, n, attended, frames, pair_value, (R *)a->features);
}

/* Scalar columns that a lane takes at once: 16 bytes of them where every row allows it. */
static bool wide(const mf_ipa_sizes &s, const mf_ipa_args *a) {
    const int most = a->dtype == MF_FLOAT64 ? 2 : 4;
    return s.hidden % most == 0 && s.dv % most == 0 && features_of(s) % most == 0 && ((uintptr_t)a->dfeatures | (uintptr_t)a->attended) % 16 == 0;
}
/* Warps and blocks for n residues, at most `blocks` a multiprocessor; a block a residue where a warp each would leave it idle. */
struct shape_of {
    bool spread;
    int warps;
    unsigned blocks;
    shape_of(const mf_device *d, const mf_ipa_args *a, int most) {
        const int64_t n = a->packing->total, processors = mf__cuda(d)->multiprocessors;
        spread = n < 16 * processors;
        warps = spread ? (int)mf__ipa_threads(a) / 32 : 8;
        const int64_t wanted = spread ? n : mf__blocks(n, warps);
        blocks = (unsigned)(wanted < most * processors ? wanted : most * processors);
    }
};

template <class R, class D, int N> static mf_status launch_grad(mf_device *d, const mf_ipa_sizes &s, const mf_ipa_args *a) {
    constexpr bool rounds = !std::is_same_v<D, R>;
    const int64_t n = a->packing->total;
    const shape_of shape(d, a, READOUT_GRAD_BLOCKS);
    readout_results<R> out = {(R *)a->dframes, (R *)a->dpair_value, (R *)a->delta, (float *)a->dout_scale, nullptr, 0};
    mf_scratch extents;
    if constexpr (std::is_same_v<D, __half>) {
        const shape_of before(d, a, EXTENTS_BLOCKS);
        out.blocks = (int)before.blocks;
        MF_TRY(extents.take(d, 3 * (int64_t)sizeof(double) * out.blocks));
        out.extents = extents.as<double>();
        work(d, a, (double)features_of(s), 0, 2);
        MF_TRY(MF_LAUNCH(d, (readout_extents_kernel<R, N>), before.blocks, 32 * before.warps, 0, s, n, before.spread, (const R *)a->dfeatures,
                         (const R *)a->pair_value, (const float *)a->v_square, extents.as<double>()));
    }
    const int64_t staging = rounds ? shape.warps * a->ldv * (int64_t)sizeof(D) : 0;
    const bool staged = rounds && staging <= 32 * 1024;
    work(d, a, (double)features_of(s) + (double)(a->heads * a->dv) * (rounds ? 1 : 2) + 24, rounds ? (double)(a->heads * a->ldv) : 0, 8);
    return MF_LAUNCH(d, (readout_grad_kernel<R, D, N>), shape.blocks, 32 * shape.warps, staged ? staging : 0, s, n, shape.spread, staged,
                     (const R *)a->dfeatures, (const R *)a->attended, (const R *)a->frames, (const R *)a->pair_value, (D *)a->dattended, out);
}

mf_status mf__cuda_readout(mf_device *d, const mf_ipa_args *a) {
    mf_ipa_sizes s{};
    MF_TRY(mf__ipa_sizes(&s, "readout", a));
    return a->dtype == MF_FLOAT64 ? launch_readout<double>(d, s, a) : launch_readout<float>(d, s, a);
}

mf_status mf__cuda_readout_grad(mf_device *d, const mf_ipa_args *a) {
    mf_ipa_sizes s{};
    MF_TRY(mf__ipa_sizes(&s, "readout_grad", a));
    const bool packs = wide(s, a);
    if (a->dtype == MF_FLOAT64) return packs ? launch_grad<double, double, 2>(d, s, a) : launch_grad<double, double, 1>(d, s, a);
    if (a->operand == MF_FLOAT16) return packs ? launch_grad<float, __half, 4>(d, s, a) : launch_grad<float, __half, 1>(d, s, a);
    if (a->operand == MF_BFLOAT16) return packs ? launch_grad<float, __nv_bfloat16, 4>(d, s, a) : launch_grad<float, __nv_bfloat16, 1>(d, s, a);
    return packs ? launch_grad<float, float, 4>(d, s, a) : launch_grad<float, float, 1>(d, s, a);
}
