/* sort.cu: the first k of the stable order along the middle axis of (outer, middle, inner).
 *
 * Elements become unsigned keys whose order is the wanted one, with their index behind them, so that no two are equal and any
 * network or merge is stable:
 *     integers   flip the sign bit              floats   flip all bits of negatives, the sign bit of others
 *     -0 is made +0 first: they are equal       descending: complement       NaN: the largest key, last in both
 *
 * Work      n log^2 of a tile in shared memory, then n log(n / tile) by merges; for k < n a run keeps k items: n + k log(n / tile)
 * Traffic   x once; each merge reads and writes the runs that are left (8 bytes an item of 32 bits, 16 of 64), about all in the L2
 * Mapping   tiles of 4096 (32-bit types) or 2048 items: a bitonic network in shared memory, short lines several to a block. Merges:
 *           a block makes 2048 items of the merged run, whose places in both it finds by the diagonal, each thread 8 of them
 * Order     exact, so repeatable. Sizes: a line has fewer than 2^31 elements. */
#include "common.cuh"
#include "table.cuh"

enum { SORT_SHARED = 32 << 10, SORT_THREADS = 512, MERGE_THREADS = 256, MERGE_EACH = 8, MERGE_TILE = MERGE_THREADS * MERGE_EACH };

/* ---- items ---- */
struct mf_item32 {
    uint64_t both;                /* key, index */
    static __device__ mf_item32 of(uint32_t key, uint32_t index) { return {(uint64_t)key << 32 | index}; }
    static __device__ mf_item32 last() { return {UINT64_MAX}; }
    __device__ uint32_t index() const { return (uint32_t)both; }
    static __device__ bool before(mf_item32 a, mf_item32 b) { return a.both < b.both; }
};
struct mf_item64 {
    uint64_t key;
    uint64_t at;
    static __device__ mf_item64 of(uint64_t key, uint32_t index) { return {key, index}; }
    static __device__ mf_item64 last() { return {UINT64_MAX, UINT64_MAX}; }
    __device__ uint32_t index() const { return (uint32_t)at; }
    static __device__ bool before(mf_item64 a, mf_item64 b) { return a.key < b.key || (a.key == b.key && a.at < b.at); }
};
template <class T> using mf_item = std::conditional_t<sizeof(T) == 4, mf_item32, mf_item64>;

template <class T> static __device__ inline mf_item<T> item_of(T v, uint32_t index, bool descending) {
    using U = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    constexpr U sign = U(1) << (sizeof(U) * 8 - 1);
    if constexpr (std::is_integral_v<T>) {
        const U key = (U)v ^ sign;
        return mf_item<T>::of(descending ? ~key : key, index);
    } else {
        if (v != v) return mf_item<T>::of(~U(0), index);
        U bits;
        if constexpr (sizeof(T) == 4) bits = __float_as_uint(v + 0.0f);
        else bits = (U)__double_as_longlong(v + 0.0);
        const U key = bits & sign ? ~bits : bits | sign;
        return mf_item<T>::of(descending ? ~key : key, index);
    }
}

/* Where an item of a line ends: values and indices, or items for the next merge. */
template <class T> struct mf_sorted {
    int64_t middle, inner, k;
    const T *x;
    T *values;
    int32_t *index;
    __device__ int64_t first(int64_t line) const { return line / inner * middle * inner + line % inner; }
    __device__ void emit(int64_t line, int64_t j, mf_item<T> item) const {
        const int64_t out = (line / inner * k + j) * inner + line % inner;
        values[out] = x[first(line) + (int64_t)item.index() * inner];
        index[out] = (int32_t)item.index();
    }
};

/* ---- tiles ---- */

/* A block sorts `together` lines, or one tile of a line (tiles > 1, together = 1), padded to a power of two. kept: items of a
 * tile that go on; to NULL: they are results. */
template <class T> static __global__ void __launch_bounds__(SORT_THREADS)
sort_tiles_kernel(mf_sorted<T> s, int64_t lines, int64_t tiles, int padded, int together, int descending, int64_t kept, mf_item<T> *to) {
    MF_SHARED(mf_item<T>, items);
    const int count = padded * together;
    const int64_t groups = (lines + together - 1) / together;
    for (int64_t work = blockIdx.x; work < groups * tiles; work += gridDim.x) {
        const int64_t line0 = work / tiles * together, tile = work % tiles, begin = tile * padded;
        const int64_t n = s.middle - begin < padded ? s.middle - begin : padded;
        for (int t = threadIdx.x; t < count; t += blockDim.x) {
            const bool beside = s.inner > 1 && together > 1;       /* then lines lie side by side in memory */
            const int l = beside ? t % together : t / padded, m = beside ? t / together : t % padded;
            const int64_t line = line0 + l;
            items[l * padded + m] = line < lines && m < n
                ? item_of<T>(s.x[s.first(line) + (begin + m) * s.inner], (uint32_t)(begin + m), descending) : mf_item<T>::last();
        }
        for (int size = 2; size <= padded; size *= 2)
            for (int stride = size / 2; stride > 0; stride /= 2) {
                __syncthreads();
                for (int t = threadIdx.x; t < count / 2; t += blockDim.x) {
                    const int i = 2 * t - (t & (stride - 1)), j = i + stride;
                    const bool up = (i & (padded - 1) & size) == 0;
                    const mf_item<T> a = items[i], b = items[j];
                    if (mf_item<T>::before(b, a) == up) {
                        items[i] = b;
                        items[j] = a;
                    }
                }
            }
        __syncthreads();
        const int most = (int)(kept < n ? kept : n);
        for (int t = threadIdx.x; t < most * together; t += blockDim.x) {
            const int l = t / most, j = t % most;
            if (line0 + l >= lines) continue;
            if (to) to[(line0 * tiles + tile) * kept + j] = items[j];
            else s.emit(line0 + l, j, items[l * padded + j]);
        }
        __syncthreads();
    }
}

/* ---- merges ---- */

/* How many of the first d items of the merged order are a's. */
template <class Item> static __device__ inline int64_t diagonal(const Item *a, int64_t na, const Item *b, int64_t nb, int64_t d) {
    int64_t lo = d > nb ? d - nb : 0, hi = d < na ? d : na;
    while (lo < hi) {
        const int64_t middle = (lo + hi) / 2;
        if (Item::before(b[d - 1 - middle], a[middle])) hi = middle;
        else lo = middle + 1;
    }
    return lo;
}

/* Runs of a line: number j holds the first `room` of elements j * span to (j + 1) * span. */
struct mf_runs {
    int64_t count, span, room;
    __device__ int64_t length(int64_t j, int64_t middle) const {
        const int64_t left = middle - j * span, all = left < 0 ? 0 : left < span ? left : span;
        return all < room ? all : room;
    }
};

template <class T> static __global__ void __launch_bounds__(MERGE_THREADS)
sort_merge_kernel(mf_sorted<T> s, int64_t lines, mf_runs in, mf_runs out, const mf_item<T> *from, mf_item<T> *to) {
    using Item = mf_item<T>;
    __shared__ int64_t places[2];
    MF_SHARED(Item, tile);        /* MERGE_TILE */
    const int64_t pieces = (out.room + MERGE_TILE - 1) / MERGE_TILE;
    for (int64_t work = blockIdx.x; work < lines * out.count * pieces; work += gridDim.x) {
        const int64_t piece = work % pieces, q = work / pieces % out.count, line = work / pieces / out.count;
        const Item *a = from + (line * in.count + 2 * q) * in.room, *b = a + in.room;
        const int64_t na = in.length(2 * q, s.middle), nb = 2 * q + 1 < in.count ? in.length(2 * q + 1, s.middle) : 0;
        const int64_t length = out.length(q, s.middle), begin = piece * MERGE_TILE < length ? piece * MERGE_TILE : length;
        const int64_t end = begin + MERGE_TILE < length ? begin + MERGE_TILE : length;
        if (threadIdx.x < 2) places[threadIdx.x] = diagonal(a, na, b, nb, threadIdx.x ? end : begin);
        __syncthreads();
        const int64_t a0 = places[0], b0 = begin - a0;
        const int ma = (int)(places[1] - a0), n = (int)(end - begin), mb = n - ma;
        for (int t = threadIdx.x; t < n; t += MERGE_THREADS) tile[t] = t < ma ? a[a0 + t] : b[b0 + t - ma];
        __syncthreads();
        const int d = (int)threadIdx.x * MERGE_EACH;
        Item mine[MERGE_EACH];
        if (d < n) {
            int i = (int)diagonal(tile, ma, tile + ma, mb, d), j = d - i;
#pragma unroll
            for (int u = 0; u < MERGE_EACH; u++) {
                if (d + u >= n) break;
                const bool first = j >= mb || (i < ma && Item::before(tile[i], tile[ma + j]));
                mine[u] = first ? tile[i] : tile[ma + j];
                i += first;
                j += !first;
            }
        }
        __syncthreads();
#pragma unroll
        for (int u = 0; u < MERGE_EACH; u++)
            if (d + u < n) tile[d + u] = mine[u];
        __syncthreads();
        for (int t = threadIdx.x; t < n; t += MERGE_THREADS) {
            if (to) to[(line * out.count + q) * out.room + begin + t] = tile[t];
            else s.emit(line, begin + t, tile[t]);
        }
        __syncthreads();
    }
}

/* ---- launchers ---- */
static unsigned grid_of(int64_t blocks) { return (unsigned)(blocks < INT32_MAX ? blocks : INT32_MAX); }

template <class T> static mf_status sort(mf_device *d, int64_t lines, const mf_sorted<T> &s, int descending) {
    using Item = mf_item<T>;
    constexpr int64_t tile = SORT_SHARED / (int64_t)sizeof(Item);
    const double all = (double)lines * (double)s.middle, out = (double)lines * (double)s.k;
    mf__cuda_work(d, all, all * sizeof(T) + out * (sizeof(T) + 4));
    if (s.middle <= tile) {
        int padded = 1;
        while (padded < s.middle) padded *= 2;
        int together = 1024 / padded;
        if (together < 1) together = 1;
        if (together > lines) together = (int)lines;
        const int half = padded * together / 2, threads = half > SORT_THREADS ? SORT_THREADS : half < 32 ? 32 : (half + 31) / 32 * 32;
        return MF_LAUNCH(d, sort_tiles_kernel<T>, grid_of(mf__blocks(lines, together)), threads, padded * together * (int64_t)sizeof(Item), s, lines,
                         (int64_t)1, padded, together, descending, s.k, (Item *)nullptr);
    }

    mf_runs runs = {mf__blocks(s.middle, tile), tile, s.k < tile ? s.k : tile};
    int64_t most = 0;             /* items of a line in any generation of runs but the last: whole runs, so it may grow */
    for (int64_t count = runs.count, room = runs.room; count > 1; count = mf__blocks(count, 2), room = s.k < 2 * room ? s.k : 2 * room)
        if (count * room > most) most = count * room;
    mf_scratch buffers[2];
    MF_TRY(buffers[0].take(d, lines * most * (int64_t)sizeof(Item)));
    if (runs.count > 2) MF_TRY(buffers[1].take(d, lines * most * (int64_t)sizeof(Item)));
    MF_TRY(MF_LAUNCH(d, sort_tiles_kernel<T>, grid_of(lines * runs.count), SORT_THREADS, SORT_SHARED, s, lines, runs.count, (int)tile, 1, descending,
                     runs.room, buffers[0].as<Item>()));
    for (int now = 0; runs.count > 1; now = !now) {
        const int64_t room = s.k < 2 * runs.room ? s.k : 2 * runs.room;
        const mf_runs next = {mf__blocks(runs.count, 2), 2 * runs.span, room};
        const double moved = (double)(lines * next.count) * (double)next.room;
        mf__cuda_work(d, moved, 2 * moved * sizeof(Item));
        MF_TRY(MF_LAUNCH(d, sort_merge_kernel<T>, grid_of(lines * next.count * mf__blocks(next.room, MERGE_TILE)), MERGE_THREADS,
                         MERGE_TILE * (int64_t)sizeof(Item), s, lines, runs, next, buffers[now].as<Item>(),
                         next.count > 1 ? buffers[!now].as<Item>() : nullptr));
        runs = next;
    }
    return MF_OK;
}

mf_status mf__cuda_sort(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, int64_t k, const void *x, void *values, int32_t *index,
                        int descending) {
#define SORT_CASE(code, T) \
    case code: return sort<T>(d, outer * inner, {middle, inner, k, (const T *)x, (T *)values, index}, descending)
    if (!mf__is_real(dtype) && !mf__is_index(dtype)) return mf__fail(MF_ESUPPORT, "sort: no kernel for %s", mf_dtype_name(dtype));
    if (outer == 0 || inner == 0 || k == 0) return MF_OK;
    switch (dtype) {
    SORT_CASE(MF_FLOAT32, float);
    SORT_CASE(MF_FLOAT64, double);
    SORT_CASE(MF_INT32, int32_t);
    SORT_CASE(MF_INT64, int64_t);
    default: return MF_OK;
    }
#undef SORT_CASE
}
