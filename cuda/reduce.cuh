/* reduce.cuh: reductions over the middle of (outer, middle, inner) by any associative rule, for every shape.
 *
 * A rule says what an element contributes, how two contributions merge, and what becomes of a total:
 *
 *     struct rule {
 *         using State = ...;                    plain data; State of nothing: neutral()
 *         using Element = ...;                  of the array with the strictest alignment
 *         enum { VECTOR, READS, MAPS };         elements that one load may take (1, 2, 4); arrays read; see map
 *         template <int V> fetch(at, o, m)      loads V elements from offset `at`, middle index m on, of outer index o
 *         template <int V> value(raw, j, m)     the State of the j-th of them
 *         static merge(a, b), shuffle(a, bits)  bits: of __shfl_xor_sync
 *         finish(out, total)                    writes result number out = o * inner + i
 *         template <int V> map(at, total), map_columns(at, totals)
 *                                               MAPS: instead of finish, a second pass over what was reduced (softmax): V elements
 *                                               of one line, of V columns
 *     };
 *
 * Work      one merge an element          Traffic   every element once (MAPS: twice, the second time from a cache where it fits)
 * Mapping   four shapes of grid, chosen from the sizes alone:
 *             lines    inner = 1: a power of two of lanes, or a block, for each line
 *             columns  inner > 1: a block takes 128 bytes of columns; its threads go down the rows side by side
 *             serial   inner > 1, short middle: a thread for each V results
 *             chunks   long middle, few results: lines or columns over pieces of the middle leave their States in scratch, a
 *                      second launch merges those
 * Order     a thread has four chains of whole vectors, merged as a tree, then lanes, warps and chunks as trees: a chain of n
 *           elements on t threads is n / (4 V t) long. It depends on the sizes (and on 16-byte alignment) and nothing else, so
 *           results are bitwise repeatable, on every GPU alike. */
#ifndef MF_CUDA_REDUCE_CUH
#define MF_CUDA_REDUCE_CUH
#include "common.cuh"

template <class T, int V> struct alignas(sizeof(T) * V) mf_pack {
    T v[V];
};
template <int V, class T> static __device__ inline mf_pack<T, V> mf__pack_at(const T *p) { return *reinterpret_cast<const mf_pack<T, V> *>(p); }

/* V values in order as a tree. */
template <int V, class Rule, class Raw> static __device__ inline typename Rule::State mf__fold(const Rule &rule, const Raw &raw, int64_t m) {
    typename Rule::State s[V];
#pragma unroll
    for (int j = 0; j < V; j++) s[j] = rule.template value<V>(raw, j, m + j);
#pragma unroll
    for (int width = V / 2; width > 0; width /= 2)
#pragma unroll
        for (int j = 0; j < width; j++) s[j] = Rule::merge(s[2 * j], s[2 * j + 1]);
    return s[0];
}

/* The total of one State a lane, given to all: over `group` lanes, a power of two up to 32, or over the block. */
template <class Rule> static __device__ inline typename Rule::State mf__group_total(typename Rule::State x, int group, typename Rule::State *slots) {
    for (int bits = (group < 32 ? group : 32) / 2; bits > 0; bits /= 2) x = Rule::merge(x, Rule::shuffle(x, bits));
    if (group <= 32) return x;
    const int lane = threadIdx.x & 31;
    __syncthreads();
    if (lane == 0) slots[threadIdx.x >> 5] = x;
    __syncthreads();
    x = lane < (int)(blockDim.x >> 5) ? slots[lane] : Rule::neutral();
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) x = Rule::merge(x, Rule::shuffle(x, bits));
    return x;
}

/* ---- lines ---- */
template <class Rule, int V> static __global__ void __launch_bounds__(1024)
reduce_lines_kernel(Rule rule, int64_t lines, int64_t middle, int64_t chunk, int64_t chunks, int group, typename Rule::State *parts) {
    using State = typename Rule::State;
    __shared__ State slots[32];
    const int member = threadIdx.x & (group - 1);
    const int64_t per_block = blockDim.x / group, items = lines * chunks;
    for (int64_t start = blockIdx.x * per_block; start < items; start += gridDim.x * per_block) {
        const int64_t item = start + threadIdx.x / group;
        const bool there = item < items;
        const int64_t line = chunks == 1 ? item : item / chunks, base = line * middle, begin = chunks == 1 ? 0 : item % chunks * chunk;
        const int64_t end = there ? (begin + chunk < middle ? begin + chunk : middle) : begin, stride = (int64_t)group * V;
        State t[4] = {Rule::neutral(), Rule::neutral(), Rule::neutral(), Rule::neutral()};
        int64_t m = begin + (int64_t)member * V;
        for (; m + 3 * stride + V <= end; m += 4 * stride) {
            decltype(rule.template fetch<V>(0, 0, 0)) raw[4];
#pragma unroll
            for (int u = 0; u < 4; u++) raw[u] = rule.template fetch<V>(base + m + u * stride, line, m + u * stride);
#pragma unroll
            for (int u = 0; u < 4; u++) t[u] = Rule::merge(t[u], mf__fold<V>(rule, raw[u], m + u * stride));
        }
#pragma unroll
        for (int u = 0; u < 3; u++) {
            if (m + V <= end) t[u] = Rule::merge(t[u], mf__fold<V>(rule, rule.template fetch<V>(base + m, line, m), m));
            m += stride;
        }
        const int64_t tail = begin + (end - begin) / V * V + member;
        if constexpr (V > 1)
            for (m = tail; m < end; m += group) t[3] = Rule::merge(t[3], mf__fold<1>(rule, rule.template fetch<1>(base + m, line, m), m));
        const State total = mf__group_total<Rule>(Rule::merge(Rule::merge(t[0], t[1]), Rule::merge(t[2], t[3])), group, slots);

        if (parts) {
            if (there && member == 0) parts[item] = total;
        } else if constexpr (Rule::MAPS) {
            for (m = begin + (int64_t)member * V; m + V <= end; m += stride) rule.template map<V>(base + m, total);
            if constexpr (V > 1)
                for (m = tail; m < end; m += group) rule.template map<1>(base + m, total);
        } else if (there && member == 0) {
            rule.finish(line, total);
        }
    }
}

/* ---- columns ---- */

/* Rows of the middle that belong to outer index o: all of it, or those of a sequence. */
struct mf_rows {
    int64_t outer, middle, inner;
    int64_t chunk, chunks;
    const int32_t *offsets;       /* NULL, or outer + 1 of them: then middle is the longest */
};

/* V States of a column tile, down the rows begin, begin + step, ... */
template <class Rule, int V> static __device__ inline void mf__down(typename Rule::State *total, const Rule &rule, int64_t base, int64_t o,
                                                                   int64_t begin, int64_t end, int64_t step, int64_t inner) {
    using State = typename Rule::State;
#pragma unroll
    for (int j = 0; j < V; j++) total[j] = Rule::neutral();
    int64_t m = begin;
    for (; m + 3 * step < end; m += 4 * step) {
        decltype(rule.template fetch<V>(0, 0, 0)) raw[4];
#pragma unroll
        for (int u = 0; u < 4; u++) raw[u] = rule.template fetch<V>(base + (m + u * step) * inner, o, m + u * step);
#pragma unroll
        for (int j = 0; j < V; j++) {
            State s[4];
#pragma unroll
            for (int u = 0; u < 4; u++) s[u] = rule.template value<V>(raw[u], j, m + u * step);
            total[j] = Rule::merge(total[j], Rule::merge(Rule::merge(s[0], s[1]), Rule::merge(s[2], s[3])));
        }
    }
    for (; m < end; m += step) {
        const auto raw = rule.template fetch<V>(base + m * inner, o, m);
#pragma unroll
        for (int j = 0; j < V; j++) total[j] = Rule::merge(total[j], rule.template value<V>(raw, j, m));
    }
}

/* Totals of a block's tile of columns, from rows begin to end, into the first V * across of `slots`: thread (row, x) of (down, across)
 * takes every down-th row of V columns. Threads outside the tile are not active; all meet here. */
template <class Rule, int V> static __device__ inline void mf__tile_totals(typename Rule::State *slots, const Rule &rule, int64_t base, int64_t o,
                                                                          int64_t begin, int64_t end, int64_t inner, int across, bool active) {
    const int down = blockDim.x / across, row = threadIdx.x / across;
    typename Rule::State *mine = slots + (int64_t)threadIdx.x * V;
    if (active) {
        typename Rule::State total[V];
        mf__down<Rule, V>(total, rule, base, o, begin + row, end, down, inner);
#pragma unroll
        for (int j = 0; j < V; j++) mine[j] = total[j];
    }
    for (int n = down, half; n > 1; n = half) {
        half = (n + 1) / 2;
        __syncthreads();
        if (active && row < n - half) {
#pragma unroll
            for (int j = 0; j < V; j++) mine[j] = Rule::merge(mine[j], mine[(int64_t)half * across * V + j]);
        }
    }
}

template <class Rule, int V> static __global__ void __launch_bounds__(1024)
reduce_columns_kernel(Rule rule, mf_rows r, int across, typename Rule::State *parts) {
    using State = typename Rule::State;
    MF_SHARED(State, slots);      /* V for each thread */
    const int down = blockDim.x / across, row = threadIdx.x / across, x = threadIdx.x % across;
    const int64_t tiles = (r.inner / V + across - 1) / across;
    for (int64_t item = blockIdx.x; item < r.outer * r.chunks * tiles; item += gridDim.x) {
        const int64_t column = (item % tiles * across + x) * V, rest = item / tiles, c = rest % r.chunks, o = rest / r.chunks;
        const int64_t first = r.offsets ? r.offsets[o] : o * r.middle, rows = r.offsets ? r.offsets[o + 1] - first : r.middle;
        const int64_t begin = c * r.chunk, end = begin + r.chunk < rows ? begin + r.chunk : rows, base = first * r.inner + column;
        const bool active = row < down && column < r.inner;
        mf__tile_totals<Rule, V>(slots, rule, base, o, begin, end, r.inner, across, active);
        if (parts) {
            if (active && row == 0)
                for (int j = 0; j < V; j++) parts[(o * r.chunks + c) * r.inner + column + j] = slots[x * V + j];
        } else if constexpr (Rule::MAPS) {
            __syncthreads();
            if (active)
                for (int64_t m = begin + row; m < end; m += down) rule.template map_columns<V>(base + m * r.inner, slots + x * V);
        } else if (active && row == 0) {
            for (int j = 0; j < V; j++) rule.finish(o * r.inner + column + j, slots[x * V + j]);
        }
        __syncthreads();
    }
}

template <class Rule, int V> static __global__ void __launch_bounds__(256) reduce_serial_kernel(Rule rule, int64_t outer, int64_t middle, int64_t inner) {
    const int64_t vectors = inner / V;
    MF_GRID_LOOP(i, outer * vectors) {
        const int64_t o = i / vectors, column = i % vectors * V, base = o * middle * inner + column;
        typename Rule::State total[V];
        mf__down<Rule, V>(total, rule, base, o, 0, middle, 1, inner);
        if constexpr (Rule::MAPS) {
            for (int64_t m = 0; m < middle; m++) rule.template map_columns<V>(base + m * inner, total);
        } else {
#pragma unroll
            for (int j = 0; j < V; j++) rule.finish(o * inner + column + j, total[j]);
        }
    }
}

/* ---- what is left of a long middle ---- */

/* The rule again, over States that it left; its totals are finished, or kept as States where it maps. */
template <class Rule> struct mf_parts {
    using State = typename Rule::State;
    using Element = State;
    enum { VECTOR = 1, READS = 1, MAPS = 0 };
    Rule rule;
    const State *from;
    State *totals;                /* NULL: finish */
    template <int V> __device__ State fetch(int64_t at, int64_t, int64_t) const { return from[at]; }
    template <int V> __device__ State value(const State &x, int, int64_t) const { return x; }
    static __device__ State neutral() { return Rule::neutral(); }
    static __device__ State merge(State a, State b) { return Rule::merge(a, b); }
    static __device__ State shuffle(State a, int bits) { return Rule::shuffle(a, bits); }
    __device__ void finish(int64_t out, State total) const {
        if (totals) totals[out] = total;
        else if constexpr (!Rule::MAPS) rule.finish(out, total);
    }
};

template <class Rule> static __global__ void reduce_map_kernel(Rule rule, int64_t outer, int64_t middle, int64_t inner, const typename Rule::State *totals) {
    MF_GRID_LOOP(at, outer * middle * inner) rule.template map<1>(at, totals[inner == 1 ? at / middle : at / (middle * inner) * inner + at % inner]);
}

/* ---- launching ---- */
enum {
    MF__REDUCE_ALONE = 256 << 10,   /* bytes that one block may take */
    MF__REDUCE_PIECE = 32 << 10,    /* of a chunk, at least */
    MF__REDUCE_BLOCKS = 2112        /* chunks in all, at most: twice the blocks of 256 threads that 132 multiprocessors hold */
};

/* Chunks of a middle: few enough blocks without, long enough to pay. */
static inline int64_t mf__reduce_chunks(int64_t blocks, int64_t block_bytes, int64_t middle) {
    if (block_bytes <= MF__REDUCE_ALONE || blocks >= MF__REDUCE_BLOCKS / 4) return 1;
    const int64_t most = MF__REDUCE_BLOCKS / blocks, wanted = mf__blocks(block_bytes, MF__REDUCE_PIECE);
    const int64_t chunks = wanted < most ? wanted : most;
    return chunks < 1 ? 1 : chunks < middle ? chunks : middle;
}

/* The lanes that share a line of so many vectors, and the threads of a block; whole: no chunks. */
struct mf_lanes { int group, threads; };
static inline mf_lanes mf__reduce_lanes(int64_t lines, int64_t vectors, bool whole) {
    mf_lanes l = {1, 256};
    if (vectors > (lines < 1024 ? 64 : 512)) {
        if (whole && vectors > 1024 && lines < 528) l.threads = 1024;
        l.group = l.threads;
    } else {
        while (l.group < 32 && l.group * 2 < vectors) l.group *= 2;
    }
    return l;
}

template <class Rule, int V> static mf_status mf__reduce_lines(mf_device *d, const Rule &rule, int64_t lines, int64_t middle, int64_t chunk,
                                                              typename Rule::State *parts) {
    const int64_t chunks = middle ? mf__blocks(middle, chunk) : 1;
    const mf_lanes l = mf__reduce_lanes(lines * chunks, mf__blocks(chunk, V), chunks == 1);
    const int64_t blocks = mf__blocks(lines * chunks, l.threads / l.group);
    return MF_LAUNCH(d, (reduce_lines_kernel<Rule, V>), (unsigned)(blocks < INT32_MAX ? blocks : INT32_MAX), l.threads, 0, rule, lines, middle,
                     chunk, chunks, l.group, parts);
}

/* Threads across a tile of columns: 128 bytes of them, tiles of equal width. */
template <class Rule, int V> static int mf__reduce_across(int64_t inner) {
    const int64_t vectors = inner / V, most = 128 / (int64_t)sizeof(typename Rule::Element) / V;
    const int64_t widest = most < 1 ? 1 : most < 32 ? most : 32;
    return (int)mf__blocks(vectors, mf__blocks(vectors, widest));
}

template <class Rule, int V> static mf_status mf__reduce_columns(mf_device *d, const Rule &rule, const mf_rows &r, typename Rule::State *parts) {
    const int across = mf__reduce_across<Rule, V>(r.inner);
    const int64_t items = r.outer * r.chunks * mf__blocks(r.inner / V, across);
    const int threads = items < 528 && r.chunk > 8 * (256 / across) ? 1024 : 256;
    return MF_LAUNCH(d, (reduce_columns_kernel<Rule, V>), (unsigned)(items < INT32_MAX ? items : INT32_MAX), threads,
                     (int64_t)threads * V * (int64_t)sizeof(typename Rule::State), rule, r, across, parts);
}

/* Merges parts (outer, chunks, inner). */
template <class Rule> static mf_status mf__reduce_parts(mf_device *d, const Rule &rule, const typename Rule::State *parts, int64_t outer, int64_t chunks,
                                                       int64_t inner, typename Rule::State *totals) {
    const mf_parts<Rule> again = {rule, parts, totals};
    mf__cuda_work(d, (double)(outer * chunks * inner), (double)(outer * chunks * inner) * sizeof(typename Rule::State));
    if (inner == 1) return mf__reduce_lines<mf_parts<Rule>, 1>(d, again, outer, chunks, chunks, nullptr);
    const mf_rows r = {outer, chunks, inner, chunks, 1, nullptr};
    return mf__reduce_columns<mf_parts<Rule>, 1>(d, again, r, nullptr);
}

template <class Rule, int V> static mf_status mf__reduce_shaped(mf_device *d, const Rule &rule, int64_t outer, int64_t middle, int64_t inner,
                                                               const int32_t *offsets, int64_t rows) {
    using State = typename Rule::State;
    constexpr int64_t element = sizeof(typename Rule::Element) * Rule::READS;
    const double all = (double)rows * (double)inner;
    mf__cuda_work(d, all, all * (double)element * (Rule::MAPS ? 2 : 1));
    const bool lines = inner == 1 && !offsets;
    const int64_t vectors = inner / V;
    if (!lines && !offsets && (middle <= 16 || (middle <= 64 && outer * vectors >= 1 << 17)))
        return MF_LAUNCH(d, (reduce_serial_kernel<Rule, V>), mf__grid(d, outer * vectors, 256), 256, 0, rule, outer, middle, inner);

    const int64_t width = lines ? 1 : (int64_t)V * mf__reduce_across<Rule, V>(inner), blocks = lines ? outer : outer * mf__blocks(inner, width);
    int64_t chunks = mf__reduce_chunks(blocks, middle * width * element, middle), chunk = middle;
    if (chunks > 1) {
        chunk = mf__blocks(mf__blocks(middle, chunks), 64) * 64;    /* whole vectors */
        chunks = mf__blocks(middle, chunk);
    }
    mf_scratch parts, totals;
    if (chunks > 1) MF_TRY(parts.take(d, outer * chunks * inner * (int64_t)sizeof(State)));
    const mf_rows r = {outer, middle, inner, chunk, chunks, offsets};
    if (lines) MF_TRY((mf__reduce_lines<Rule, V>(d, rule, outer, middle, chunk, parts.as<State>())));
    else MF_TRY((mf__reduce_columns<Rule, V>(d, rule, r, parts.as<State>())));
    if (chunks == 1) return MF_OK;
    if constexpr (Rule::MAPS) {
        MF_TRY(totals.take(d, outer * inner * (int64_t)sizeof(State)));
        MF_TRY(mf__reduce_parts(d, rule, parts.as<State>(), outer, chunks, inner, totals.as<State>()));
        mf__cuda_work(d, all, all * (double)element * 2);
        return MF_LAUNCH(d, reduce_map_kernel<Rule>, mf__grid(d, outer * middle * inner, 256), 256, 0, rule, outer, middle, inner, totals.as<State>());
    } else {
        return mf__reduce_parts(d, rule, parts.as<State>(), outer, chunks, inner, (State *)nullptr);
    }
}

/* `aligned`: every array of the rule begins at a multiple of 16 bytes. */
template <class Rule> static mf_status mf__reduce(mf_device *d, const Rule &rule, int64_t outer, int64_t middle, int64_t inner, bool aligned) {
    if (outer == 0 || inner == 0) return MF_OK;
    const bool vectors = Rule::VECTOR > 1 && aligned && (inner > 1 ? inner % Rule::VECTOR == 0 : outer == 1 || middle % Rule::VECTOR == 0);
    if (vectors) return mf__reduce_shaped<Rule, Rule::VECTOR>(d, rule, outer, middle, inner, nullptr, outer * middle);
    return mf__reduce_shaped<Rule, 1>(d, rule, outer, middle, inner, nullptr, outer * middle);
}

/* The same over the sequences of a packing, (total, inner) to (count, inner). */
template <class Rule> static mf_status mf__reduce_segments(mf_device *d, const Rule &rule, const mf_packing *packing, int64_t inner, bool aligned) {
    if (packing->count == 0 || inner == 0) return MF_OK;
    mf_status status = MF_OK;
    const int32_t *offsets = mf__cuda_offsets(d, packing, &status);
    MF_TRY(status);
    if (Rule::VECTOR > 1 && aligned && inner % Rule::VECTOR == 0)
        return mf__reduce_shaped<Rule, Rule::VECTOR>(d, rule, packing->count, packing->longest, inner, offsets, packing->total);
    return mf__reduce_shaped<Rule, 1>(d, rule, packing->count, packing->longest, inner, offsets, packing->total);
}

static inline bool mf__aligned16(const void *p) { return ((uintptr_t)p & 15) == 0; }

/* ---- sums ---- */
template <class T> using mf_sum_t = std::conditional_t<std::is_same_v<T, double>, double,
                                    std::conditional_t<std::is_integral_v<T>, unsigned long long, float>>;
template <class A> struct mf_total_base {
    using State = A;
    static __device__ A neutral() { return A(0); }
    static __device__ A merge(A a, A b) { return a + b; }
    static __device__ A shuffle(A a, int bits) { return __shfl_xor_sync(0xffffffffu, a, bits); }
};

/* y = sum x, times scale: of T in A; integers wrap in 64 bits. */
template <class T, class A = mf_sum_t<T>> struct mf_total : mf_total_base<A> {
    using Element = T;
    enum { VECTOR = std::is_integral_v<T> ? 1 : sizeof(T) == 8 ? 2 : 4, READS = 1, MAPS = 0 };
    using Result = std::conditional_t<std::is_integral_v<T>, int64_t, T>;
    const T *x;
    Result *y;
    A scale;                      /* floating types only */
    mf_total(const void *from, void *to, double by = 1) : x((const T *)from), y((Result *)to), scale((A)by) {}
    template <int V> __device__ mf_pack<T, V> fetch(int64_t at, int64_t, int64_t) const { return mf__pack_at<V>(x + at); }
    template <int V> __device__ A value(const mf_pack<T, V> &raw, int j, int64_t) const {
        if constexpr (std::is_integral_v<T>) return (A)(long long)raw.v[j];
        else return mf__to<A>(raw.v[j]);
    }
    __device__ void finish(int64_t out, A total) const {
        if constexpr (std::is_integral_v<T>) y[out] = (int64_t)total;
        else y[out] = mf__to<T>(total * scale);
    }
};
#endif
