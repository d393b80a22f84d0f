/* reduce.cu: sums, means, extremes and running sums over the middle of (outer, middle, inner).
 *
 * Work      one addition or comparison an element          Traffic   each element once (running sums: read twice when cut)
 * Mapping   reduce.cuh for reductions. Running sums: a block scans a line 1024 elements at a time, or a thread goes down each column;
 *           where lines are few and long they are cut in chunks, whose totals a first launch makes (reduce.cuh); every chunk
 *           adds up the totals before it by itself.
 * Numerics  float and 16-bit sums accumulate in float by trees; running sums of float in double, as the CPU's: their error grows
 *           with the length. Extremes: NaN counts as more extreme than every number, the first of equals wins.
 * Order     depends on the sizes alone: bitwise repeatable. */
#include "reduce.cuh"
#include "table.cuh"

/* ---- extremes ---- */
template <class T> using mf_order_t = std::conditional_t<std::is_same_v<T, bool>, int, std::conditional_t<std::is_integral_v<T> || sizeof(T) == 8, T, float>>;

/* The largest (or smallest) and where: writes either. */
template <class T> struct mf_extreme {
    using Value = mf_order_t<T>;
    struct State {
        Value value;
        int index;                /* -1: none yet */
    };
    using Element = T;
    enum { VECTOR = std::is_integral_v<T> ? 1 : sizeof(T) == 8 ? 2 : 4, READS = 1, MAPS = 0 };
    const T *x;
    T *values;                    /* NULL: indices */
    int *indices;
    int64_t middle, inner;
    int64_t smallest;             /* then values are negated on the way: complemented where integer */
    template <int V> __device__ mf_pack<T, V> fetch(int64_t at, int64_t, int64_t) const { return mf__pack_at<V>(x + at); }
    template <int V> __device__ State value(const mf_pack<T, V> &raw, int j, int64_t m) const {
        const Value v = mf__to<Value>(raw.v[j]);
        if constexpr (std::is_integral_v<Value>) return {smallest ? ~v : v, (int)m};
        else return {smallest ? -v : v, (int)m};
    }
    static __device__ State neutral() { return {Value(0), -1}; }
    static __device__ State merge(State a, State b) {
        if (b.index < 0) return a;
        if (a.index < 0) return b;
        const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
        const bool equal = a.value == b.value || (a_nan && b_nan);
        const bool first = equal ? a.index < b.index : a.value > b.value || (a_nan && !b_nan);
        return first ? a : b;
    }
    static __device__ State shuffle(State a, int bits) {
        return {__shfl_xor_sync(0xffffffffu, a.value, bits), __shfl_xor_sync(0xffffffffu, a.index, bits)};
    }
    __device__ void finish(int64_t out, State total) const {
        if (values) values[out] = x[(out / inner * middle + total.index) * inner + out % inner];
        else indices[out] = total.index;
    }
};

/* ---- running sums ---- */
template <class T> using mf_running_t = std::conditional_t<std::is_integral_v<T>, unsigned long long, double>;

/* Where a chunk is, and what lies before it in the direction of the sum. */
struct mf_scan {
    int64_t outer, middle, inner, chunk, chunks, reverse;
};

enum { SCAN_EACH = 4, SCAN_THREADS = 256 };

/* inner = 1: a block a chunk. */
template <class T> static __global__ void __launch_bounds__(SCAN_THREADS) cumsum_lines_kernel(mf_scan s, const T *x, T *y, const mf_running_t<T> *totals) {
    using A = mf_running_t<T>;
    __shared__ A slots[32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int64_t item = blockIdx.x; item < s.outer * s.chunks; item += gridDim.x) {
        const int64_t line = item / s.chunks, c = item % s.chunks, begin = c * s.chunk;
        const int64_t n = begin + s.chunk < s.middle ? s.chunk : s.middle - begin;
        const T *from = x + line * s.middle + begin;
        T *to = y + line * s.middle + begin;
        A carry = 0;
        if (totals) {
            for (int64_t i = threadIdx.x; i < s.chunks; i += SCAN_THREADS)
                if (s.reverse ? i > c : i < c) carry += totals[line * s.chunks + i];
            carry = mf__block_sum(carry, slots);
        }
        for (int64_t tile = 0; tile < n; tile += SCAN_THREADS * SCAN_EACH) {
            const int64_t first = tile + threadIdx.x * SCAN_EACH;
            A sum[SCAN_EACH], running = 0;
#pragma unroll
            for (int j = 0; j < SCAN_EACH; j++) {
                const int64_t i = first + j;
                if (i < n) running += (A)from[s.reverse ? n - 1 - i : i];
                sum[j] = running;
            }
            A before = running;   /* within the warp */
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const A other = __shfl_up_sync(0xffffffffu, before, step);
                if (lane >= step) before += other;
            }
            __syncthreads();
            if (lane == 31) slots[warp] = before;
            __syncthreads();
            before = __shfl_up_sync(0xffffffffu, before, 1);
            if (lane == 0) before = 0;
            A total = 0, offset = 0;
            for (int w = 0; w < SCAN_THREADS / 32; w++) {
                if (w == warp) offset = total;
                total += slots[w];
            }
            offset += carry;
#pragma unroll
            for (int j = 0; j < SCAN_EACH; j++) {
                const int64_t i = first + j;
                if (i < n) to[s.reverse ? n - 1 - i : i] = (T)(offset + (before + sum[j]));
            }
            carry += total;
        }
        __syncthreads();
    }
}

/* inner > 1: a thread goes down a column of a chunk. */
template <class T> static __global__ void cumsum_columns_kernel(mf_scan s, const T *x, T *y, const mf_running_t<T> *totals) {
    using A = mf_running_t<T>;
    MF_GRID_LOOP(item, s.outer * s.chunks * s.inner) {
        const int64_t column = item % s.inner, rest = item / s.inner, c = rest % s.chunks, o = rest / s.chunks, begin = c * s.chunk;
        const int64_t n = begin + s.chunk < s.middle ? s.chunk : s.middle - begin, base = (o * s.middle + begin) * s.inner + column;
        A sum = 0;
        if (totals)
            for (int64_t i = s.reverse ? c + 1 : 0; i < (s.reverse ? s.chunks : c); i++) sum += totals[(o * s.chunks + i) * s.inner + column];
        const int64_t step = s.reverse ? -s.inner : s.inner, start = s.reverse ? base + (n - 1) * s.inner : base;
        int64_t i = 0;
        for (; i + 4 <= n; i += 4) {
            T v[4];
#pragma unroll
            for (int u = 0; u < 4; u++) v[u] = x[start + (i + u) * step];
#pragma unroll
            for (int u = 0; u < 4; u++) y[start + (i + u) * step] = (T)(sum += (A)v[u]);
        }
        for (; i < n; i++) y[start + i * step] = (T)(sum += (A)x[start + i * step]);
    }
}

/* Totals of chunks for a running sum: the sum above, in its accumulator. */
template <class T> static mf_status chunk_totals(mf_device *d, const mf_scan &s, const T *x, mf_running_t<T> *totals) {
    const mf_total<T, mf_running_t<T>> rule(x, nullptr);
    mf__cuda_work(d, (double)(s.outer * s.middle * s.inner), (double)(s.outer * s.middle * s.inner) * sizeof(T));
    if (s.inner == 1) return mf__reduce_lines<mf_total<T, mf_running_t<T>>, 1>(d, rule, s.outer, s.middle, s.chunk, totals);
    const mf_rows r = {s.outer, s.middle, s.inner, s.chunk, s.chunks, nullptr};
    return mf__reduce_columns<mf_total<T, mf_running_t<T>>, 1>(d, rule, r, totals);
}

template <class T> static mf_status cumsum(mf_device *d, int64_t outer, int64_t middle, int64_t inner, const T *x, T *y, int reverse) {
    const int64_t threads = outer * inner, n = threads * middle, least = inner == 1 ? 4096 : 32, room = inner == 1 ? 1056 : 1 << 17;
    int64_t chunks = mf__blocks(middle, least), most = room / threads < 1024 ? room / threads : 1024;
    if (chunks > most) chunks = most < 1 ? 1 : most;
    if (chunks == 2) chunks = 1;                        /* a launch more would cost as much */
    const mf_scan s = {outer, middle, inner, mf__blocks(middle, chunks), mf__blocks(middle, mf__blocks(middle, chunks)), reverse};
    mf_scratch totals;
    if (s.chunks > 1) {
        MF_TRY(totals.take(d, outer * s.chunks * inner * (int64_t)sizeof(mf_running_t<T>)));
        MF_TRY(chunk_totals<T>(d, s, x, totals.as<mf_running_t<T>>()));
    }
    mf__cuda_work(d, (double)n, 2.0 * (double)n * sizeof(T));
    if (inner == 1)
        return MF_LAUNCH(d, cumsum_lines_kernel<T>, (unsigned)(outer * s.chunks < INT32_MAX ? outer * s.chunks : INT32_MAX), SCAN_THREADS, 0, s, x, y,
                         totals.as<mf_running_t<T>>());
    return MF_LAUNCH(d, cumsum_columns_kernel<T>, mf__grid(d, outer * s.chunks * inner, 128), 128, 0, s, x, y, totals.as<mf_running_t<T>>());
}

/* ---- launchers ---- */
mf_status mf__cuda_reduce(mf_device *d, int op, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y) {
    if (outer == 0 || inner == 0) return MF_OK;
    const bool aligned = mf__aligned16(x);
    if (op == MF_REDUCE_sum || op == MF_REDUCE_mean) {
        const double scale = op == MF_REDUCE_mean ? 1 / (double)middle : 1;
        MF_DISPATCH_ALL(dtype, T, return mf__reduce(d, mf_total<T>(x, y, scale), outer, middle, inner, aligned));
    }
    if (middle == 0) return mf__fail(MF_ESHAPE, "reduce: an empty axis has no largest or smallest element");
    const bool values = op == MF_REDUCE_max || op == MF_REDUCE_min, smallest = op == MF_REDUCE_min || op == MF_REDUCE_argmin;
    MF_DISPATCH_ALL(dtype, T, {
        const mf_extreme<T> rule = {(const T *)x, values ? (T *)y : nullptr, (int *)y, middle, inner, smallest};
        return mf__reduce(d, rule, outer, middle, inner, aligned);
    });
    return MF_OK;
}

mf_status mf__cuda_cumsum(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y, int reverse) {
    if (outer == 0 || inner == 0 || middle == 0) return MF_OK;
    switch (dtype) {
    case MF_FLOAT32: return cumsum<float>(d, outer, middle, inner, (const float *)x, (float *)y, reverse);
    case MF_FLOAT64: return cumsum<double>(d, outer, middle, inner, (const double *)x, (double *)y, reverse);
    case MF_INT32: return cumsum<int32_t>(d, outer, middle, inner, (const int32_t *)x, (int32_t *)y, reverse);
    case MF_INT64: return cumsum<int64_t>(d, outer, middle, inner, (const int64_t *)x, (int64_t *)y, reverse);
    default: return mf__fail(MF_ESUPPORT, "cumsum: no kernel for %s", mf_dtype_name(dtype));
    }
}
