/* neighbours.cu: the k nearest residues of each residue within its sequence, and the features made of distances and positions.
 *
 *   x (N, 3), mask (N) or NULL  ->  index (N, k), distance (N, k): the order of core/cpu/neighbours.c to the last bit: distances in the
 *   tensor's type, each operation rounded by itself, equal ones by position
 *
 * Two launches. `neighbours_pack` writes every residue's position from its sequence's first one in float32 (16 bytes), and for each tile
 * of 32 consecutive residues its box and how far from that origin it reaches. `neighbours_search` gives a warp two residues, or one in
 * packs of up to FEW, where a warp's latency is what there is to wait for. Its lanes test the boxes of 32 tiles at a time against the
 * k-th neighbours so far, exactly, and read, a lane a candidate, what is left.
 *
 *   filter     d~^2 <= r^2 in float32 on the packed positions, where r is the k-th distance and all that rounding may have taken: a
 *              coordinate is off by u (reach), so a distance by 2 u (reach of query + reach of tile) at most. Nothing is lost.
 *   exact      what passes is queued in shared memory; 32 at a time get their distance in the tensor's type, are sorted by
 *              (distance, position) in the warp and merged into the 32 nearest so far, one a lane
 *
 * Work      8 operations a pair in float32, also for float64, which many cards are slow in: some k (1 + ln(L / k)) candidates a residue
 *           pass the filter and cost 9 in the tensor's type, and so does a box for 1024 candidates. Chains are compact, so boxes leave
 *           a few tiles of each; on a cloud without order all pairs remain.
 * Traffic   16 bytes a candidate for two residues, from the caches: a sequence of 8192 is 128 KB
 * Memory    18 bytes a residue besides the result
 * k         32 places are filled in one pass over the tiles; for larger k the next pass takes what comes after the last place.
 * Bitwise   deterministic, and the same as on the CPU: the result does not depend on the order of the search. */
#include "table.cuh"
#include "tiles.cuh"
#define MF_DEVICE_FUNCTION __host__ __device__
#include "../core/geometry/features.h"
#include <climits>

enum { THREADS = 128, WARPS = THREADS / 32, QUEUE = 64, FEW = 4096 };
static constexpr unsigned ALL = 0xffffffffu;

/* The smallest box of a tile's residues as they are given (inverted when nobody is there), and the largest packed |coordinate|. */
template <class T> struct __align__(16) tile_box {
    T lo[3], hi[3];
    float reach, unused[sizeof(T) == 8 ? 3 : 1];   /* loads take whole vectors: no byte may be unset */
};

template <class T>
static __global__ void __launch_bounds__(THREADS)
neighbours_pack_kernel(const int32_t *__restrict__ offsets, int count, int64_t slots, const T *__restrict__ x, const T *__restrict__ mask,
                       float4 *__restrict__ packed, tile_box<T> *__restrict__ boxes, mf_fault *fault, const char *sentence) {
    const int lane = threadIdx.x & 31;
    const int64_t slot = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (slot >= slots) return;
    const int s = mf__slot_sequence(offsets, 1, count, slot, 32);
    const int64_t begin = offsets[s], end = offsets[s + 1], i = begin + (slot - mf__slot_of(begin, s, 32)) * 32 + lane;
    const float nan = __int_as_float(0x7fffffff);
    bool there = i < end && !(mask && mask[i] == T(0));
    float p[3] = {nan, nan, nan}, reach = 0;
    T given[3] = {};
    if (there) {
        const bool origin = !(mask && mask[begin] == T(0));
#pragma unroll
        for (int j = 0; j < 3; j++) {
            T from = origin ? x[3 * begin + j] : T(0);
            if (!isfinite(from)) from = T(0);
            given[j] = x[3 * i + j];
            there = there && isfinite(given[j]);
            p[j] = (float)(given[j] - from);
            reach = fmaxf(reach, fabsf(p[j]) > 1e18f ? INFINITY : fabsf(p[j]));   /* beyond, nothing is filtered out */
            p[j] = fminf(fmaxf(p[j], -1e18f), 1e18f);
        }
        if (!there) {
            mf__raise_finite(fault, sentence, i - begin + 1, s + 1);
            p[0] = p[1] = p[2] = nan;
        }
    }
    if (i < end) packed[i] = make_float4(p[0], p[1], p[2], 0);
    tile_box<T> box = {};
#pragma unroll
    for (int j = 0; j < 3; j++) {
        box.lo[j] = mf__warp_all(there ? given[j] : (T)INFINITY, [](T a, T b) { return a < b ? a : b; });
        box.hi[j] = mf__warp_all(there ? given[j] : (T)-INFINITY, [](T a, T b) { return a > b ? a : b; });
    }
    box.reach = mf__warp_max(reach);
    if (lane == 0) boxes[slot] = box;
}

/* ---- 32 (distance, position) pairs, one a lane; empty: (inf, INT_MAX) ---- */
template <class T> struct entry {
    T d;
    int i;
};
template <class T> static __device__ __forceinline__ entry<T> nobody() { return {(T)INFINITY, INT_MAX}; }
template <class T> static __device__ __forceinline__ bool before(entry<T> a, entry<T> b) { return a.d < b.d || (a.d == b.d && a.i < b.i); }
template <class T> static __device__ __forceinline__ entry<T> exchange(entry<T> a, int with, bool smaller) {
    const entry<T> b = {__shfl_xor_sync(ALL, a.d, with), __shfl_xor_sync(ALL, a.i, with)};
    return before(a, b) == smaller ? a : b;
}
template <class T> static __device__ __forceinline__ entry<T> merged(entry<T> a, int lane) {   /* a rises and then falls, or the like */
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) a = exchange(a, step, (lane & step) == 0);
    return a;
}
template <class T> static __device__ __forceinline__ entry<T> sorted(entry<T> a, int lane) {
#pragma unroll
    for (int size = 2; size < 32; size <<= 1)
#pragma unroll
        for (int step = size >> 1; step > 0; step >>= 1) a = exchange(a, step, ((lane & step) == 0) == ((lane & size) == 0));
    return merged(a, lane);
}

/* One residue's search: `best` is one entry a lane, the rest is the same in all. */
template <class T> struct query {
    T x[3];                     /* as given */
    float p[3], limit;          /* packed; what the filter compares with */
    entry<T> best, kth, last;   /* kth: of the places to fill; last: of the pass before, only what comes after it counts */
    int self, queued;
    bool active;
};

/* What the filter compares squares with: the k-th distance, rounded up, and what packing may take; the last term is for squares
 * that underflow. */
template <class T> static __device__ __forceinline__ float limit_of(entry<T> kth, float slack) {
    const float r = (float)kth.d * 1.000001f + slack;
    return fmaf(r * r, 1.000001f, 1e-37f);
}

/* No residue of the box is nearer: rounding is monotone, the box touches its residues, and this is the expression of the distances.
 * So a tile comes after the k-th to the last bit when (bound, its first number) does: many residues on one spot cost nothing. */
template <class T> static __device__ __forceinline__ T bound_of(const tile_box<T> &box, const T *x) {
    T e[3];
#pragma unroll
    for (int j = 0; j < 3; j++) {
        const T below = mf__subtract(box.lo[j], x[j]), above = mf__subtract(x[j], box.hi[j]), outside = below > above ? below : above;
        e[j] = outside > T(0) ? outside : T(0);
    }
    return mf__root(mf__square(e[0], e[1], e[2]));
}

template <class T>
static __device__ void flush(query<T> &q, const int *queue, int n, int places, int64_t begin, const T *__restrict__ x, int lane) {
    entry<T> a = nobody<T>();
    if (lane < n) {
        const int64_t c = begin + queue[lane];
        const T dx = mf__subtract(x[3 * c], q.x[0]), dy = mf__subtract(x[3 * c + 1], q.x[1]), dz = mf__subtract(x[3 * c + 2], q.x[2]);
        const entry<T> e = {mf__root(mf__square(dx, dy, dz)), queue[lane]};
        if (before(q.last, e)) a = e;
    }
    a = sorted(a, lane);
    const entry<T> reversed = {__shfl_xor_sync(ALL, a.d, 31), __shfl_xor_sync(ALL, a.i, 31)};
    q.best = merged(before(q.best, reversed) ? q.best : reversed, lane);
    q.kth = {__shfl_sync(ALL, q.best.d, places - 1), __shfl_sync(ALL, q.best.i, places - 1)};
}

template <class T, int QUERIES>
static __global__ void __launch_bounds__(THREADS)
neighbours_search_kernel(const int32_t *__restrict__ offsets, int count, int64_t slots, int k, const T *__restrict__ x, const T *__restrict__ mask,
                         const float4 *__restrict__ packed, const tile_box<T> *__restrict__ boxes, int32_t *__restrict__ index,
                         T *__restrict__ distance) {
    __shared__ int queues[WARPS][QUERIES][QUEUE];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int64_t slot = (int64_t)blockIdx.x * WARPS + warp;
    if (slot >= slots) return;
    const int s = mf__slot_sequence(offsets, 1, count, slot, QUERIES);
    const int64_t begin = offsets[s];
    const int size = offsets[s + 1] - (int)begin, own = (int)(slot - mf__slot_of(begin, s, QUERIES)) * QUERIES;
    if (own >= size) return;
    const int tiles = (size + 31) / 32;
    const tile_box<T> *__restrict__ box = boxes + mf__slot_of(begin, s, 32);
    const float reach = box[own / 32].reach;

    query<T> q[QUERIES];
#pragma unroll
    for (int n = 0; n < QUERIES; n++) {
        q[n].self = own + n;
        const int64_t i = begin + (q[n].self < size ? q[n].self : own);
        const float4 p = packed[i];
        q[n].p[0] = p.x;
        q[n].p[1] = p.y;
        q[n].p[2] = p.z;
        for (int j = 0; j < 3; j++) q[n].x[j] = x[3 * i + j];
        q[n].active = q[n].self < size && !(mask && mask[i] == T(0));
        q[n].last = {T(-1), 0};
    }
    for (int done = 0; done < k; done += 32) {
        const int places = k - done < 32 ? k - done : 32;
#pragma unroll
        for (int n = 0; n < QUERIES; n++) {
            q[n].best = nobody<T>();
            q[n].kth = nobody<T>();
            q[n].queued = 0;
        }
        for (int first = 0; first < tiles; first += 32) {   /* from the residues' own tile on, and around */
            int mine = own / 32 + first + lane;
            if (mine >= tiles) mine -= tiles;
            tile_box<T> b = {};
            if (first + lane < tiles) b = box[mine];
            const float slack = 2.4e-7f * (reach + mf__warp_max(b.reach));   /* 4 u; u = 2^-24 */
            T bound[QUERIES];
            bool near = false;
#pragma unroll
            for (int n = 0; n < QUERIES; n++) {
                bound[n] = bound_of(b, q[n].x);
                q[n].limit = q[n].active ? limit_of(q[n].kth, slack) : -1.0f;
                near = near || (q[n].active && before({bound[n], mine * 32}, q[n].kth));
            }
            unsigned left = __ballot_sync(ALL, near && first + lane < tiles);
            while (left) {
                const int at = __ffs((int)left) - 1;
                left &= left - 1;
                const int tile = __shfl_sync(ALL, mine, at), c = tile * 32 + lane;
                const float4 p = c < size ? packed[begin + c] : make_float4(__int_as_float(0x7fffffff), 0, 0, 0);
                bool flushed = false;
#pragma unroll
                for (int n = 0; n < QUERIES; n++) {
                    const float dx = p.x - q[n].p[0], dy = p.y - q[n].p[1], dz = p.z - q[n].p[2];
                    const bool passes = fmaf(dz, dz, fmaf(dy, dy, dx * dx)) <= q[n].limit && c != q[n].self;
                    const unsigned who = __ballot_sync(ALL, passes);
                    if (who == 0) continue;
                    int *queue = queues[warp][n];
                    if (passes) queue[q[n].queued + __popc(who & ((1u << lane) - 1))] = c;
                    q[n].queued += __popc(who);
                    __syncwarp();
                    if (q[n].queued < 32) continue;
                    flush(q[n], queue, 32, places, begin, x, lane);
                    q[n].queued -= 32;
                    const int rest = lane < q[n].queued ? queue[32 + lane] : 0;
                    __syncwarp();
                    queue[lane] = rest;
                    __syncwarp();
                    q[n].limit = limit_of(q[n].kth, slack);
                    flushed = true;
                }
                if (flushed) {
                    near = false;
#pragma unroll
                    for (int n = 0; n < QUERIES; n++) near = near || (q[n].active && before({bound[n], mine * 32}, q[n].kth));
                    left &= __ballot_sync(ALL, near);
                }
            }
        }
#pragma unroll
        for (int n = 0; n < QUERIES; n++) {
            if (q[n].queued > 0) flush(q[n], queues[warp][n], q[n].queued, places, begin, x, lane);
            if (q[n].self < size && lane < places) {
                const bool found = q[n].best.i != INT_MAX;
                const int64_t to = (begin + q[n].self) * k + done + lane;
                index[to] = found ? q[n].best.i : q[n].self;
                distance[to] = found ? q[n].best.d : T(1e6);
            }
            q[n].last = {__shfl_sync(ALL, q[n].best.d, 31), __shfl_sync(ALL, q[n].best.i, 31)};
            __syncwarp();
        }
    }
}

template <class T, int QUERIES>
static mf_status search_by(mf_device *d, const int32_t *offsets, const mf_packing *packing, int64_t k, const T *x, const T *mask, const float4 *packed,
                           const tile_box<T> *boxes, int32_t *index, T *distance) {
    const int64_t slots = mf__slot_of(packing->total, packing->count, QUERIES);
    mf__cuda_work(d, 8.0 * (double)packing->pairs, (double)(packing->total * (16 + k * (4 + (int64_t)sizeof(T)))));
    return MF_LAUNCH(d, (neighbours_search_kernel<T, QUERIES>), (unsigned)mf__blocks(slots, WARPS), THREADS, 0, offsets, (int)packing->count, slots,
                     (int)k, x, mask, packed, boxes, index, distance);
}

template <class T>
static mf_status search(mf_device *d, const mf_packing *packing, int64_t k, const T *x, const T *mask, int32_t *index, T *distance) {
    mf_status status;
    const int32_t *offsets = mf__cuda_offsets(d, packing, &status);
    MF_TRY(status);
    const int64_t n = packing->total, tiles = mf__slot_of(n, packing->count, 32);
    if (n == 0) return MF_OK;
    mf_scratch room;
    MF_TRY(room.take(d, n * (int64_t)sizeof(float4) + tiles * (int64_t)sizeof(tile_box<T>)));
    float4 *packed = room.as<float4>();
    tile_box<T> *boxes = (tile_box<T> *)(packed + n);
    mf__cuda_work(d, 20.0 * (double)n, (double)(n * (3 * (int64_t)sizeof(T) + 17)));
    MF_TRY(MF_LAUNCH(d, neighbours_pack_kernel<T>, (unsigned)mf__blocks(tiles, WARPS), THREADS, 0, offsets, (int)packing->count, tiles, x, mask, packed,
                     boxes, mf__cuda(d)->fault_device, "neighbours: residue %lld of sequence %lld has a coordinate that is not finite"));
    if (n <= FEW) return search_by<T, 1>(d, offsets, packing, k, x, mask, packed, boxes, index, distance);
    return search_by<T, 2>(d, offsets, packing, k, x, mask, packed, boxes, index, distance);
}

mf_status mf__cuda_neighbours(mf_device *d, int dtype, const mf_packing *packing, int64_t k, const void *x, const void *mask, int32_t *index,
                              void *distance) {
    if (dtype == MF_FLOAT32) return search<float>(d, packing, k, (const float *)x, (const float *)mask, index, (float *)distance);
    if (dtype == MF_FLOAT64) return search<double>(d, packing, k, (const double *)x, (const double *)mask, index, (double *)distance);
    return mf__fail(MF_ESUPPORT, "neighbours: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
}

/* ---- one-hot bins: traffic alone; a thread an element ---- */

/* I: the type in which the number of elements fits; 64-bit division is slow. */
template <class T, class I>
static __global__ void __launch_bounds__(THREADS) distogram_kernel(I elements, const T *__restrict__ distance, mf_bins bins, T *__restrict__ y) {
    for (I i = (I)blockIdx.x * THREADS + (I)threadIdx.x; i < elements; i += (I)gridDim.x * THREADS) {
        const I row = i / (I)bins.count;
        const int b = (int)(i - row * (I)bins.count);
        const double x = (double)distance[row];
        y[i] = (T)(mf__bin_edge(bins, b) < x && x < mf__bin_edge(bins, b + 1));
    }
}

mf_status mf__cuda_distogram(mf_device *d, int dtype, int64_t n, const void *distance, double lo, double hi, int64_t count, void *y) {
    if (!mf__is_real(dtype)) return mf__fail(MF_ESUPPORT, "distogram: geometry takes float32 or float64, not %s", mf_dtype_name(dtype));
    const mf_bins bins = mf__bins(lo, hi, count);
    const int64_t elements = n * count;
    const unsigned grid = mf__grid(d, elements, THREADS);
    mf__cuda_work(d, 8.0 * (double)elements, (double)(elements + n) * (double)mf_dtype_bytes(dtype));
    MF_DISPATCH_REAL(dtype, T, {
        if (elements <= (int64_t)1 << 31)   /* the last step of the loop does not leave 32 bits */
            return MF_LAUNCH(d, (distogram_kernel<T, uint32_t>), grid, THREADS, 0, (uint32_t)elements, (const T *)distance, bins, (T *)y);
        return MF_LAUNCH(d, (distogram_kernel<T, uint64_t>), grid, THREADS, 0, (uint64_t)elements, (const T *)distance, bins, (T *)y);
    });
}

/* ---- sines and cosines of positions ---- */

enum { CHANNELS = 128 };

/* blockIdx.y takes CHANNELS of the width / 2 channels, whose powers it keeps; a thread makes a sine and its cosine. */
template <class I>
static __global__ void __launch_bounds__(THREADS)
index_embedding_kernel(int64_t n, const int32_t *__restrict__ index, int64_t width, double max_len, float *__restrict__ y) {
    __shared__ float power[CHANNELS];
    const int64_t half = width / 2, first = (int64_t)blockIdx.y * CHANNELS, channels = half - first < CHANNELS ? half - first : CHANNELS;
    for (int64_t c = threadIdx.x; c < channels; c += THREADS) power[c] = mf__embedding_power(first + c, width, max_len);
    __syncthreads();
    const I elements = (I)(n * channels);
    for (I i = (I)blockIdx.x * THREADS + (I)threadIdx.x; i < elements; i += (I)gridDim.x * THREADS) {
        const I row = i / (I)channels, c = i - row * (I)channels;
        float sine, cosine, *to = y + (int64_t)row * width + first + (int64_t)c;
        sincosf(mf__embedding_turn(index[row]) / power[c], &sine, &cosine);
        to[0] = sine;
        to[half] = cosine;
    }
}

mf_status mf__cuda_index_embedding(mf_device *d, int64_t n, const int32_t *index, int64_t width, double max_len, float *y) {
    const int64_t half = width / 2, most = n * (half < CHANNELS ? half : CHANNELS);
    const dim3 grid(mf__grid(d, most, 2 * THREADS), (unsigned)mf__blocks(half, CHANNELS));
    if (grid.y > 65535) return mf__fail(MF_ESUPPORT, "index_embedding: width %lld is more than the grid of a GPU takes", (long long)width);
    mf__cuda_work(d, 30.0 * (double)(n * half), (double)(n * (1 + width)) * 4);
    if (most <= (int64_t)1 << 31) return MF_LAUNCH(d, index_embedding_kernel<uint32_t>, grid, THREADS, 0, n, index, width, max_len, y);
    return MF_LAUNCH(d, index_embedding_kernel<uint64_t>, grid, THREADS, 0, n, index, width, max_len, y);
}
