/* random.cu: draws from Philox (core/base/philox.h): one block an element, as on the CPU.
 *
 *   uniform      lo + (hi - lo) u, from 24 bits for 16- and 32-bit types and 53 for double; never hi itself
 *   normal, truncated, rotations: computed in double and rounded once
 *   IGSO(3)      angle by the inverse of its distribution function (core/base/igso3.h), axis uniform on the sphere
 *   permutation  the CPU's Fisher-Yates, bit for bit
 *
 * Uniform draws and permutations have the CPU's bits, the rest the CPU's formula with the device's log, sin, cos and exp in double.
 *
 * Work      60 integer operations a Philox block; a normal number some 150 in double, so not bandwidth bound
 * Mapping   an element (a rotation, a vector) to a thread. IGSO(3): a block takes 128 elements and makes the table of 1000 knots
 *           in shared memory once for each run of equal sigmas, all threads together: one table a block where sigma is one number or
 *           constant along a sequence
 * Permutation   step i of the loop is x[i] = x[j_i], x[j_i] = i. So x[k] is the last i > k with j_i = k, or k itself when j_k = k and
 *           no later one; when there is neither, it is what x[j_k] was before step k: the same question for j_k among i < k. Kernel one
 *           draws all j and chains the i of each place in lists, the second asks; lists are log n long at most on average, questions
 *           two. The order in a list varies, its largest element does not.
 * Of a packing    each sequence has a generator of its own: an element finds its sequence among the offsets
 * While a graph is captured the counter comes from the device, so each replay draws anew.
 * Bitwise deterministic. Refused: permutations of 2^32 and more. */
#include "common.cuh"
#include "table.cuh"

#define MF_DEVICE_FUNCTION __host__ __device__
#include "../core/base/igso3.h"
#include "../core/base/philox.h"

/* Which generator an element draws from, and at which position: one for all, or each sequence its own. */
struct source {
    mf_draw draw;
    const int64_t *streams;       /* NULL: one for all */
    const int32_t *offsets;
    int sequences;
    int64_t per_residue;
};
static __device__ inline mf_words words_of(const source &from, const mf_rng &rng, int64_t i) {
    if (!from.streams) return mf__philox(rng.seed, rng.stream, rng.counter + (uint64_t)i);
    const int64_t residue = i / from.per_residue;
    int low = 0, high = from.sequences;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (from.offsets[middle] <= residue) low = middle;
        else high = middle;
    }
    const int64_t first = (int64_t)from.offsets[low] * from.per_residue;
    return mf__philox(rng.seed, rng.stream + (uint64_t)from.streams[low], rng.counter + (uint64_t)(i - first));
}

/* Rounding up to the type may reach hi, which the interval excludes: such a value goes back to lo. */
template <class T> static __device__ inline T below(double value, double lo, double hi) {
    const T rounded = mf__to<T>(value);
    return mf__to<double>(rounded) < hi ? rounded : mf__to<T>(lo);
}

template <class T>
static __global__ void __launch_bounds__(256) random_kernel(int kind, int64_t n, T *x, source from, double p0, double p1) {
    const mf_rng rng = mf__draw_rng(from.draw);
    MF_GRID_LOOP(i, n) {
        const mf_words b = words_of(from, rng, i);
        if (kind == MF_RANDOM_UNIFORM) {
            const double u = std::is_same_v<T, double> ? mf__uniform53(b.w[0], b.w[1]) : (double)mf__uniform24(b);
            x[i] = below<T>(p0 + (p1 - p0) * u, p0, p1);
        } else if (kind == MF_RANDOM_NORMAL) x[i] = mf__to<T>(p0 + p1 * mf__normal(b));
        else x[i] = mf__to<T>(p0 * mf__truncated_normal(b));
    }
}

static mf_status draw_numbers(mf_device *d, int kind, int dtype, int64_t n, void *x, source from, double p0, double p1) {
    mf__cuda_work(d, 200.0 * (double)n, (double)(n * mf_dtype_bytes(dtype)), MF_UNIT_FP64);
    MF_DISPATCH_FLOAT(dtype, T, return MF_LAUNCH(d, random_kernel<T>, mf__grid(d, n, 256), 256, 0, kind, n, (T *)x, from, p0, p1));
    return MF_OK;
}

mf_status mf__cuda_random(mf_device *d, int kind, int dtype, int64_t n, void *x, mf_rng rng, double p0, double p1) {
    if (!mf__is_float(dtype)) return mf__fail(MF_ESUPPORT, "cuda: random draws have no kernel for %s", mf_dtype_name(dtype));
    if (n == 0) return MF_OK;
    return draw_numbers(d, kind, dtype, n, x, {mf__cuda_draw(d, rng)}, p0, p1);
}

template <class T> static __global__ void __launch_bounds__(128) random_rotations_kernel(int64_t n, T *R, source from) {
    const mf_rng rng = mf__draw_rng(from.draw);
    MF_GRID_LOOP(i, n) {
        double m[9];
        mf__uniform_rotation(m, words_of(from, rng, i));
        for (int k = 0; k < 9; k++) R[9 * i + k] = (T)m[k];
    }
}

static mf_status draw_rotations(mf_device *d, int dtype, int64_t n, void *R, source from) {
    mf__cuda_work(d, 300.0 * (double)n, 9.0 * (double)(n * mf_dtype_bytes(dtype)), MF_UNIT_FP64);
    MF_DISPATCH_REAL(dtype, T, return MF_LAUNCH(d, random_rotations_kernel<T>, mf__grid(d, n, 128), 128, 0, n, (T *)R, from));
    return MF_OK;
}

mf_status mf__cuda_random_rotations(mf_device *d, int dtype, int64_t n, void *R, mf_rng rng) {
    if (n == 0) return MF_OK;
    return draw_rotations(d, dtype, n, R, {mf__cuda_draw(d, rng)});
}

/* ---- IGSO(3) ---- */
enum { GROUP = 128, SHARE = (MF__IGSO3_KNOTS + GROUP - 1) / GROUP };   /* elements of a block; knots of a thread */

/* cdf at the knots, by all threads: each sums the trapezoids of its knots, then what lies before them is added. */
static __device__ inline void make_table(double *cdf, double *sums, double sigma) {
    const double largest = mf__igso3_largest(sigma);
    const int first = 1 + (int)threadIdx.x * SHARE;
    double part[SHARE], sum = 0;
    double from = mf__igso3_knot(largest, first - 1), last = first > MF__IGSO3_KNOTS ? 0 : mf__igso3_density(from, sigma);
#pragma unroll
    for (int k = 0; k < SHARE; k++) {
        if (first + k <= MF__IGSO3_KNOTS) {
            const double at = mf__igso3_knot(largest, first + k), density = mf__igso3_density(at, sigma);
            sum += 0.5 * (density + last) * (at - from);
            last = density;
            from = at;
        }
        part[k] = sum;
    }
    __syncthreads();
    sums[threadIdx.x] = sum;
    __syncthreads();
    double before = 0, all = 0;
    for (int t = 0; t < GROUP; t++) {
        before += t < (int)threadIdx.x ? sums[t] : 0;
        all += sums[t];
    }
#pragma unroll
    for (int k = 0; k < SHARE; k++)
        if (first + k < MF__IGSO3_KNOTS) cdf[first + k] = (before + part[k]) / all;
    if (threadIdx.x == 0) {
        cdf[0] = 0;
        cdf[MF__IGSO3_KNOTS] = 1;
    }
    __syncthreads();
}

template <class T>
static __global__ void __launch_bounds__(GROUP) random_igso3_kernel(int64_t n, T *v, source from, const T *sigma, int64_t n_sigma, mf_fault *fault,
                                                                    const char *sentence) {
    __shared__ double cdf[MF__IGSO3_KNOTS + 1], sums[GROUP], sigmas[GROUP];
    const mf_rng rng = mf__draw_rng(from.draw);
    const int64_t base = (int64_t)blockIdx.x * GROUP;
    const int count = n - base < GROUP ? (int)(n - base) : GROUP, mine = threadIdx.x;
    if (mine < count) {
        const double s = (double)sigma[n_sigma == 1 ? 0 : base + mine];
        const bool good = s >= 0 && s <= 1.7976931348623157e308;
        if (!good) mf__raise_finite(fault, sentence, n_sigma == 1 ? 1 : base + mine + 1, 0);
        sigmas[mine] = good ? s : 0;
    }
    __syncthreads();
    for (int at = 0; at < count;) {
        const double s = sigmas[at];
        int end = at + 1;
        while (end < count && sigmas[end] == s) end++;
        const double tabled = mf__igso3_tabled(s);
        if (s > 0) make_table(cdf, sums, tabled);
        if (mine >= at && mine < end) {
            const mf_words b = words_of(from, rng, base + mine);
            double axis[3], angle = 0;
            mf__uniform_axis(axis, b);
            if (s > 0) angle = mf__igso3_angle(cdf, mf__igso3_largest(tabled), mf__uniform53(b.w[0], b.w[1]));
            if (s < tabled) angle *= s / tabled;
            for (int c = 0; c < 3; c++) v[3 * (base + mine) + c] = (T)(angle * axis[c]);
        }
        at = end;
        __syncthreads();
    }
}

static mf_status draw_igso3(mf_device *d, int dtype, int64_t n, void *v, source from, const void *sigma, int64_t n_sigma) {
    mf__cuda_work(d, 300.0 * (double)n + 200.0 * (double)MF__IGSO3_KNOTS * (double)mf__blocks(n, GROUP), 3.0 * (double)(n * mf_dtype_bytes(dtype)),
                  MF_UNIT_FP64);
    MF_DISPATCH_REAL(dtype, T,
                     return MF_LAUNCH(d, random_igso3_kernel<T>, (unsigned)mf__blocks(n, GROUP), GROUP, 0, n, (T *)v, from, (const T *)sigma, n_sigma,
                                      mf__cuda(d)->fault_device, "random.igso3: sigma of element %lld must be finite and at least 0"));
    return MF_OK;
}

mf_status mf__cuda_random_igso3(mf_device *d, int dtype, int64_t n, void *v, mf_rng rng, const void *sigma, int64_t n_sigma) {
    if (n == 0) return MF_OK;
    return draw_igso3(d, dtype, n, v, {mf__cuda_draw(d, rng)}, sigma, n_sigma);
}

/* ---- each sequence from a generator of its own ---- */
mf_status mf__cuda_random_each(mf_device *d, const mf_random_each_args *a) {
    mf_status status;
    const int32_t *offsets = mf__cuda_offsets(d, a->packing, &status);
    MF_TRY(status);
    const source from = {{a->rng, nullptr}, a->streams, offsets, (int)a->packing->count, a->per_residue};
    const int64_t n = a->packing->total * a->per_residue;
    switch (a->kind) {
    case MF_EACH_NORMAL: return draw_numbers(d, MF_RANDOM_NORMAL, a->dtype, n, a->x, from, 0, 1);
    case MF_EACH_ROTATIONS: return draw_rotations(d, a->dtype, n, a->x, from);
    default: return draw_igso3(d, a->dtype, n, a->x, from, a->sigma, a->n_sigma);
    }
}

/* ---- permutation ---- */
/* Uniform on [0, range), as in core/cpu/random.c. */
static __device__ inline uint64_t uniform_below(uint64_t range, mf_rng rng, uint64_t position) {
    for (uint64_t attempt = 0;; attempt++) {
        const mf_words b = mf__philox(rng.seed + attempt, rng.stream, position);
        for (int k = 0; k < 4; k += 2) {
            const unsigned __int128 product = (unsigned __int128)((uint64_t)b.w[k] << 32 | b.w[k + 1]) * range;
            if ((uint64_t)product >= (0 - range) % range) return (uint64_t)(product >> 64);
        }
    }
}

static const uint32_t NONE = 0xffffffffu;

static __global__ void __launch_bounds__(256) no_lists_kernel(uint32_t n, uint32_t *first) {
    MF_GRID_LOOP(i, (int64_t)n) first[i] = NONE;
}
static __global__ void __launch_bounds__(256) chain_kernel(uint32_t n, uint32_t *place, uint32_t *first, uint32_t *next, mf_draw draw) {
    const mf_rng rng = mf__draw_rng(draw);
    MF_GRID_LOOP(i, (int64_t)n) {
        const uint32_t j = (uint32_t)uniform_below((uint64_t)i + 1, rng, rng.counter + (uint64_t)i);
        place[i] = j;
        next[i] = atomicExch(&first[j], (uint32_t)i);
    }
}
template <class T>
static __global__ void __launch_bounds__(256) settle_kernel(uint32_t n, T *x, const uint32_t *place, const uint32_t *first, const uint32_t *next) {
    MF_GRID_LOOP(k, (int64_t)n) {
        uint32_t at = (uint32_t)k, end = n, last;      /* what place `at` holds before step `end` */
        for (;;) {
            last = NONE;
            for (uint32_t i = first[at]; i != NONE; i = next[i])
                if (i < end && (last == NONE || i > last)) last = i;
            if (last != NONE) break;
            end = at;
            at = place[at];
        }
        x[k] = (T)last;
    }
}

mf_status mf__cuda_random_permutation(mf_device *d, int dtype, int64_t n, void *x, mf_rng rng) {
    if (n == 0) return MF_OK;
    if (n >= (int64_t)NONE) return mf__fail(MF_ESUPPORT, "random.permutation: %lld positions, the GPU's kernel takes fewer than 2^32 - 1", (long long)n);
    const mf_draw draw = mf__cuda_draw(d, rng);
    mf_scratch lists;
    MF_TRY(lists.take(d, 3 * n * (int64_t)sizeof(uint32_t)));
    uint32_t *place = lists.as<uint32_t>(), *first = place + n, *next = first + n;
    const unsigned grid = mf__grid(d, n, 256);
    MF_TRY(MF_LAUNCH(d, no_lists_kernel, grid, 256, 0, (uint32_t)n, first));
    mf__cuda_work(d, 100.0 * (double)n, 16.0 * (double)n);
    MF_TRY(MF_LAUNCH(d, chain_kernel, grid, 256, 0, (uint32_t)n, place, first, next, draw));
    mf__cuda_work(d, 0, 40.0 * (double)n);
    if (dtype == MF_INT32) return MF_LAUNCH(d, settle_kernel<int32_t>, grid, 256, 0, (uint32_t)n, (int32_t *)x, place, first, next);
    return MF_LAUNCH(d, settle_kernel<int64_t>, grid, 256, 0, (uint32_t)n, (int64_t *)x, place, first, next);
}
