/* index.cu: selecting and adding by index; x is (outer, size, inner).
 *
 *   index_select   y[o, j, i] = x[o, index[j], i]             index_add     y[o, index[j], i] += s[o, j, i]
 *   gather         y[o, j, i] = x[o, index[o, j, i], i]       scatter_add   y[o, index[o, j, i], i] += s[o, j, i]
 *
 * An index outside 0 .. size-1 is skipped and noted; the host raises it when it next waits for the device.
 *
 * Traffic   index once, what is moved twice, what is added three times; bandwidth bound
 * Mapping   selecting moves a row in the largest words (16 bytes and less) that divide it, threadIdx.x along the row; gather and
 *           scatter_add give an element to a thread
 * Adding    Integers: atomics, which in integers are order-free. Floats: atomics, four at once from sm_90 on, unless
 *           mf.deterministic(true) forbids them: their order varies. Then every element of y is added to by one thread at a time,
 *           in the order of j within a piece and of the pieces:
 *             up to 2048 rows    a block belongs to a row j; it goes on if no earlier row has the same index, lists all later ones
 *                                that have it, and adds them in order: m^2 comparisons, one launch
 *             more               a stable sort of the index; the sorted rows are cut into pieces of about sqrt(m), so that neither
 *                                many targets nor a single one make a long chain; a run inside a piece is added to y at once,
 *                                runs across pieces leave a sum in each, which the piece where they begin adds up in order
 *           scatter_add is the second with the address in y as index.
 * Numerics  sums in the type of y, as on the CPU
 * Refused   adding 2^31 and more rows (scatter_add: elements) of floats deterministically */
#include "iterate.cuh"
#include "table.cuh"

/* Division by a fixed number, in 32 bits where they are enough. */
struct long_divider {
    int64_t divisor;
    __device__ int64_t quotient(int64_t n) const { return n / divisor; }
};

static mf_status check_index(const char *op, int dtype) {
    if (mf__is_index(dtype)) return MF_OK;
    return mf__fail(MF_ESUPPORT, "%s: an index is int32 or int64, not %s", op, mf_dtype_name(dtype));
}

template <class I> static __device__ inline bool in_range(I k, int64_t size, mf_fault *fault, const char *op, bool report) {
    if (k >= 0 && k < size) return true;
    if (report) mf__raise_index(fault, op, k, size);
    return false;
}

/* threadIdx.x along a row of `width` items, threadIdx.y over rows */
static dim3 row_block(int64_t width) {
    unsigned x = 1;
    while (x < 256 && x < width) x *= 2;
    return dim3(x, 256 / x);
}

/* ---- select ---- */
template <class U, class I>
static __global__ void __launch_bounds__(256) index_select_kernel(int64_t rows, int64_t size, int64_t units, int64_t m, const I *index,
                                                                  const U *x, U *y, mf_fault *fault, const char *op) {
    for (int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += (int64_t)gridDim.x * blockDim.y) {
        const int64_t o = row < m ? 0 : row / m;
        const I k = index[row - o * m];
        if (!in_range(k, size, fault, op, threadIdx.x == 0)) continue;
        const U *from = x + (o * size + k) * units;
        for (int64_t u = threadIdx.x; u < units; u += blockDim.x) y[row * units + u] = from[u];
    }
}

struct alignas(16) sixteen_bytes { uint32_t word[4]; };

template <class U, class I>
static mf_status select_rows(mf_device *d, int64_t bytes, int64_t outer, int64_t size, int64_t m, const void *index, const void *x, void *y) {
    const int64_t rows = outer * m, units = bytes / (int64_t)sizeof(U);
    const dim3 block = row_block(units);
    mf__cuda_work(d, 0, 2.0 * (double)(rows * bytes) + (double)(m * (int64_t)sizeof(I)));
    return MF_LAUNCH(d, (index_select_kernel<U, I>), mf__grid(d, rows, block.y), block, 0, rows, size, units, m, (const I *)index, (const U *)x,
                     (U *)y, mf__cuda(d)->fault_device, "index_select");
}

template <class I>
static mf_status select(mf_device *d, int64_t bytes, int64_t outer, int64_t size, int64_t m, const void *index, const void *x, void *y) {
    const uint64_t all = (uint64_t)bytes | (uintptr_t)x | (uintptr_t)y;
    if (all % 16 == 0) return select_rows<sixteen_bytes, I>(d, bytes, outer, size, m, index, x, y);
    if (all % 8 == 0) return select_rows<uint64_t, I>(d, bytes, outer, size, m, index, x, y);
    if (all % 4 == 0) return select_rows<uint32_t, I>(d, bytes, outer, size, m, index, x, y);
    if (all % 2 == 0) return select_rows<uint16_t, I>(d, bytes, outer, size, m, index, x, y);
    return select_rows<uint8_t, I>(d, bytes, outer, size, m, index, x, y);
}

mf_status mf__cuda_index_select(mf_device *d, int64_t element_bytes, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype,
                                const void *index, const void *x, void *y) {
    MF_TRY(check_index("index_select", index_dtype));
    if (outer * m * inner == 0) return MF_OK;
    if (index_dtype == MF_INT32) return select<int32_t>(d, inner * element_bytes, outer, size, m, index, x, y);
    return select<int64_t>(d, inner * element_bytes, outer, size, m, index, x, y);
}

/* ---- one index an element: gather, scatter_add and the addresses of the deterministic scatter_add ---- */
template <class D> struct element_place {
    int64_t count, size, inner;
    D by_line, by_inner;          /* division by m inner and by inner */
    template <class I> __device__ int64_t of(int64_t i, I k) const {
        const auto n = (std::conditional_t<std::is_same_v<D, mf_divider>, uint32_t, int64_t>)i;
        const int64_t o = by_line.quotient(n), column = i - (int64_t)by_inner.quotient(n) * inner;
        return (o * size + k) * inner + column;
    }
};

template <class D> static element_place<D> places(int64_t outer, int64_t size, int64_t inner, int64_t m) {
    if constexpr (std::is_same_v<D, mf_divider>)
        return {outer * m * inner, size, inner, mf__divider((uint32_t)(m * inner)), mf__divider((uint32_t)inner)};
    else return {outer * m * inner, size, inner, {m * inner}, {inner}};
}

template <class U, class I, class D>
static __global__ void __launch_bounds__(256) gather_kernel(const element_place<D> place, const I *index, const U *x, U *y, mf_fault *fault,
                                                            const char *op) {
    MF_GRID_LOOP(i, place.count) {
        const I k = index[i];
        if (in_range(k, place.size, fault, op, true)) y[i] = x[place.of(i, k)];
    }
}

template <class U, class I, class D>
static mf_status gather_by(mf_device *d, int64_t outer, int64_t size, int64_t inner, int64_t m, const void *index, const void *x, void *y) {
    const element_place<D> place = places<D>(outer, size, inner, m);
    mf__cuda_work(d, 0, (double)place.count * (2.0 * sizeof(U) + sizeof(I)));
    return MF_LAUNCH(d, (gather_kernel<U, I, D>), mf__grid(d, place.count, 256), 256, 0, place, (const I *)index, (const U *)x, (U *)y,
                     mf__cuda(d)->fault_device, "gather");
}

/* Runs the statements with I the type of the index and D a divider that is wide enough for n. */
#define DISPATCH_PLACE(index_dtype, n, I, D, ...)                                                  \
    do {                                                                                           \
        if ((n) < MF_ITER_MOST) {                                                                  \
            using D = mf_divider;                                                                  \
            if ((index_dtype) == MF_INT32) { using I = int32_t; __VA_ARGS__; }                     \
            else { using I = int64_t; __VA_ARGS__; }                                               \
        } else {                                                                                   \
            using D = long_divider;                                                                \
            if ((index_dtype) == MF_INT32) { using I = int32_t; __VA_ARGS__; }                     \
            else { using I = int64_t; __VA_ARGS__; }                                               \
        }                                                                                          \
    } while (0)

mf_status mf__cuda_gather(mf_device *d, int64_t element_bytes, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype,
                          const void *index, const void *x, void *y) {
    MF_TRY(check_index("gather", index_dtype));
    const int64_t n = outer * m * inner;
    if (n == 0) return MF_OK;
    DISPATCH_PLACE(index_dtype, n, I, D, switch (element_bytes) {
        case 1: return gather_by<uint8_t, I, D>(d, outer, size, inner, m, index, x, y);
        case 2: return gather_by<uint16_t, I, D>(d, outer, size, inner, m, index, x, y);
        case 4: return gather_by<uint32_t, I, D>(d, outer, size, inner, m, index, x, y);
        default: return gather_by<uint64_t, I, D>(d, outer, size, inner, m, index, x, y);
    });
    return MF_OK;
}

/* ---- adding by atomics ---- */
static __device__ inline void add_to(float *p, float x) { atomicAdd(p, x); }
static __device__ inline void add_to(double *p, double x) { atomicAdd(p, x); }
static __device__ inline void add_to(int32_t *p, int32_t x) { atomicAdd((unsigned *)p, (unsigned)x); }
static __device__ inline void add_to(int64_t *p, int64_t x) { atomicAdd((unsigned long long *)p, (unsigned long long)x); }

template <class T, int V> static __device__ inline void add_vector(T *p, const T *x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if constexpr (V == 4) atomicAdd((float4 *)p, *(const float4 *)x);
    else add_to(p, *x);
#else
#pragma unroll
    for (int k = 0; k < V; k++) add_to(p + k, x[k]);
#endif
}

template <class T, class I, int V>
static __global__ void __launch_bounds__(256) index_add_kernel(int64_t rows, int64_t size, int64_t units, int64_t m, const I *index, const T *s,
                                                               T *y, mf_fault *fault, const char *op) {
    for (int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += (int64_t)gridDim.x * blockDim.y) {
        const int64_t o = row < m ? 0 : row / m;
        const I k = index[row - o * m];
        if (!in_range(k, size, fault, op, threadIdx.x == 0)) continue;
        T *to = y + (o * size + k) * units * V;
        for (int64_t u = threadIdx.x; u < units; u += blockDim.x) add_vector<T, V>(to + u * V, s + (row * units + u) * V);
    }
}

template <class T, class I, int V>
static mf_status add_rows(mf_device *d, int64_t outer, int64_t size, int64_t inner, int64_t m, const void *index, const void *s, void *y) {
    const int64_t rows = outer * m, units = inner / V;
    const dim3 block = row_block(units);
    mf__cuda_work(d, (double)(rows * inner), 3.0 * (double)(rows * inner) * sizeof(T) + (double)m * sizeof(I));
    return MF_LAUNCH(d, (index_add_kernel<T, I, V>), mf__grid(d, rows, block.y), block, 0, rows, size, units, m, (const I *)index, (const T *)s,
                     (T *)y, mf__cuda(d)->fault_device, "index_add");
}

template <class T, class I, class D>
static __global__ void __launch_bounds__(256) scatter_add_kernel(const element_place<D> place, const I *index, const T *s, T *y, mf_fault *fault,
                                                                 const char *op) {
    MF_GRID_LOOP(i, place.count) {
        const I k = index[i];
        if (in_range(k, place.size, fault, op, true)) add_to(y + place.of(i, k), s[i]);
    }
}

/* ---- adding in a fixed order, few rows: the first row with an index owns its target ---- */
enum { FEW = 2048 };

template <class T, class I>
static __global__ void __launch_bounds__(256) add_owned_kernel(int64_t outer, int64_t size, int64_t inner, int m, const I *index, const T *s, T *y,
                                                               mf_fault *fault, const char *op) {
    __shared__ int found[FEW];
    __shared__ int count;
    const int j = blockIdx.x;
    const I k = index[j];
    if (!in_range(k, size, fault, op, threadIdx.x == 0)) return;
    if (threadIdx.x < 32) {
        int have = 0;
        for (int base = 0; base < m; base += 32) {
            const int at = base + (int)threadIdx.x;
            const bool equal = at < m && index[at] == k;
            const unsigned all = __ballot_sync(0xffffffffu, equal);
            if (equal) found[have + __popc(all & ((1u << threadIdx.x) - 1))] = at;
            have += __popc(all);
            __syncwarp();
            if (have > 0 && found[0] < j) break;
        }
        if (threadIdx.x == 0) count = found[0] < j ? 0 : have;
    }
    __syncthreads();
    const int rows = count;
    if (rows == 0) return;
    for (int64_t c = (int64_t)blockIdx.y * blockDim.x + threadIdx.x; c < outer * inner; c += (int64_t)gridDim.y * blockDim.x) {
        const int64_t o = c / inner, i = c - o * inner;
        T *to = y + (o * size + k) * inner + i;
        const T *from = s + o * m * inner + i;
        T sum = *to;
#pragma unroll 4
        for (int n = 0; n < rows; n++) sum += from[found[n] * inner];
        *to = sum;
    }
}

template <class T, class I>
static mf_status add_owned(mf_device *d, int64_t outer, int64_t size, int64_t inner, int64_t m, const void *index, const void *s, void *y,
                           const char *op) {
    const int64_t columns = outer * inner, share = (int64_t)mf__cuda(d)->multiprocessors * 4 / m + 1, most = mf__blocks(columns, 256);
    mf__cuda_work(d, (double)(m * columns), 3.0 * (double)(m * columns) * sizeof(T) + (double)m * sizeof(I));
    return MF_LAUNCH(d, (add_owned_kernel<T, I>), dim3((unsigned)m, (unsigned)(share < most ? share : most)), 256, 0, outer, size, inner, (int)m,
                     (const I *)index, (const T *)s, (T *)y, mf__cuda(d)->fault_device, op);
}

/* ---- adding in a fixed order, many rows: sorted ---- */
struct sorted_rows {
    int64_t m, piece, pieces;     /* rows in all and of a piece */
    int64_t outer, size, inner;
};

/* sums (pieces, 2, outer inner): of the run that came from the piece before, and of the run that goes on into the next. */
template <class T, class I>
static __global__ void __launch_bounds__(256) add_pieces_kernel(const sorted_rows r, const I *key, const int32_t *order, const T *s, T *y, T *sums,
                                                                mf_fault *fault, const char *op) {
    const int64_t columns = r.outer * r.inner;
    for (int64_t p = (int64_t)blockIdx.x * blockDim.y + threadIdx.y; p < r.pieces; p += (int64_t)gridDim.x * blockDim.y) {
        const int64_t first = p * r.piece, end = first + r.piece < r.m ? first + r.piece : r.m;
        const bool enters = first > 0 && key[first - 1] == key[first], leaves = end < r.m && key[end] == key[end - 1];
        for (int64_t c = (int64_t)blockIdx.y * blockDim.x + threadIdx.x; c < columns; c += (int64_t)gridDim.y * blockDim.x) {
            const int64_t o = c / r.inner, i = c - o * r.inner;
            const T *from = s + o * r.m * r.inner + i;
            T *sum_of = sums + 2 * p * columns + c;
            int64_t at = first;
            while (at < end) {
                const I k = key[at];
                const bool began = at == first && enters;
                T sum = from[order[at++] * r.inner];
                while (at < end && key[at] == k) sum += from[order[at++] * r.inner];
                if (began) sum_of[0] = sum;
                else if (at == end && leaves) sum_of[columns] = sum;
                else if (in_range(k, r.size, fault, op, c == 0)) y[(o * r.size + k) * r.inner + i] += sum;
            }
        }
    }
}

template <class T, class I>
static __global__ void __launch_bounds__(256) add_runs_kernel(const sorted_rows r, const I *key, const T *sums, T *y, mf_fault *fault, const char *op) {
    const int64_t columns = r.outer * r.inner;
    for (int64_t p = (int64_t)blockIdx.x * blockDim.y + threadIdx.y; p < r.pieces - 1; p += (int64_t)gridDim.x * blockDim.y) {
        const int64_t first = p * r.piece, end = first + r.piece;
        const I k = key[end - 1];
        const bool all = key[first] == k;
        /* the run that leaves this piece is added up here if it began here */
        if (key[end] != k || (all && first > 0 && key[first - 1] == k)) continue;
        if (!in_range(k, r.size, fault, op, threadIdx.x == 0 && blockIdx.y == 0)) continue;
        for (int64_t c = (int64_t)blockIdx.y * blockDim.x + threadIdx.x; c < columns; c += (int64_t)gridDim.y * blockDim.x) {
            const int64_t o = c / r.inner, i = c - o * r.inner;
            T sum = sums[(2 * p + 1) * columns + c];
            for (int64_t q = p + 1; q < r.pieces && key[q * r.piece] == k; q++) sum += sums[2 * q * columns + c];
            y[(o * r.size + k) * r.inner + i] += sum;
        }
    }
}

template <class T, class I>
static mf_status add_sorted(mf_device *d, int64_t outer, int64_t size, int64_t inner, int64_t m, const void *index, const void *s, void *y,
                            const char *op) {
    if (m >= MF_ITER_MOST) return mf__fail(MF_ESUPPORT, "cuda: %s of %lld rows, below 2^31 in deterministic mode", op, (long long)m);
    mf_scratch keys, order, sums;
    sorted_rows r = {m, 32, 0, outer, size, inner};
    while (r.piece * r.piece < m) r.piece *= 2;
    r.pieces = mf__blocks(m, r.piece);
    const int64_t columns = outer * inner;
    MF_TRY(keys.take(d, m * (int64_t)sizeof(I)));
    MF_TRY(order.take(d, m * (int64_t)sizeof(int32_t)));
    MF_TRY(sums.take(d, 2 * r.pieces * columns * (int64_t)sizeof(T)));
    MF_TRY(mf__cuda_sort(d, sizeof(I) == 4 ? MF_INT32 : MF_INT64, 1, m, 1, m, index, keys.data, order.as<int32_t>(), 0));
    const dim3 block = row_block(columns);
    const dim3 grid(mf__grid(d, r.pieces, block.y), (unsigned)(columns < 256 * 64 ? mf__blocks(columns, block.x) : 64));
    mf__cuda_work(d, (double)(m * columns), 3.0 * (double)(m * columns) * sizeof(T));
    MF_TRY(MF_LAUNCH(d, (add_pieces_kernel<T, I>), grid, block, 0, r, keys.as<I>(), order.as<int32_t>(), (const T *)s, (T *)y, sums.as<T>(),
                     mf__cuda(d)->fault_device, op));
    if (r.pieces == 1) return MF_OK;
    return MF_LAUNCH(d, (add_runs_kernel<T, I>), grid, block, 0, r, keys.as<I>(), sums.as<T>(), (T *)y, mf__cuda(d)->fault_device, op);
}

/* Addresses in y of the elements of scatter_add; -1 for an index out of range. */
template <class I, class D>
static __global__ void __launch_bounds__(256) address_kernel(const element_place<D> place, const I *index, int64_t *address, mf_fault *fault,
                                                             const char *op) {
    MF_GRID_LOOP(i, place.count) {
        const I k = index[i];
        address[i] = in_range(k, place.size, fault, op, true) ? place.of(i, k) : -1;
    }
}

template <class T, class I, class D>
static mf_status scatter_sorted(mf_device *d, int64_t outer, int64_t size, int64_t inner, int64_t m, const void *index, const void *s, void *y) {
    const element_place<D> place = places<D>(outer, size, inner, m);
    mf_scratch address;
    MF_TRY(address.take(d, place.count * (int64_t)sizeof(int64_t)));
    MF_TRY(MF_LAUNCH(d, (address_kernel<I, D>), mf__grid(d, place.count, 256), 256, 0, place, (const I *)index, address.as<int64_t>(),
                     mf__cuda(d)->fault_device, "scatter_add"));
    return add_sorted<T, int64_t>(d, 1, outer * size * inner, 1, place.count, address.data, s, y, "scatter_add");
}

/* ---- the two additions ---- */
template <class T, class I>
static mf_status index_add(mf_device *d, int64_t outer, int64_t size, int64_t inner, int64_t m, const void *index, const void *s, void *y) {
    if constexpr (std::is_floating_point_v<T>)
        if (mf__cuda_deterministic(d))
            return (m <= FEW ? add_owned<T, I> : add_sorted<T, I>)(d, outer, size, inner, m, index, s, y, "index_add");
    if constexpr (std::is_same_v<T, float>)
        if (inner % 4 == 0 && ((uintptr_t)s | (uintptr_t)y) % 16 == 0) return add_rows<T, I, 4>(d, outer, size, inner, m, index, s, y);
    return add_rows<T, I, 1>(d, outer, size, inner, m, index, s, y);
}

/* Runs the statements with T the type that is added. */
#define DISPATCH_SUM(op, dtype, T, ...)                                                        \
    do {                                                                                       \
        switch (dtype) {                                                                       \
        case MF_FLOAT32: { using T = float; __VA_ARGS__; break; }                              \
        case MF_FLOAT64: { using T = double; __VA_ARGS__; break; }                             \
        case MF_INT32: { using T = int32_t; __VA_ARGS__; break; }                              \
        case MF_INT64: { using T = int64_t; __VA_ARGS__; break; }                              \
        default: return mf__fail(MF_ESUPPORT, "%s: no kernel for %s", op, mf_dtype_name(dtype)); \
        }                                                                                      \
    } while (0)

mf_status mf__cuda_index_add(mf_device *d, int dtype, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index,
                             const void *source, void *y) {
    MF_TRY(check_index("index_add", index_dtype));
    if (outer * m * inner == 0) return MF_OK;
    DISPATCH_SUM("index_add", dtype, T, {
        if (index_dtype == MF_INT32) return index_add<T, int32_t>(d, outer, size, inner, m, index, source, y);
        return index_add<T, int64_t>(d, outer, size, inner, m, index, source, y);
    });
    return MF_OK;
}

template <class T, class I, class D>
static mf_status scatter_add(mf_device *d, int64_t outer, int64_t size, int64_t inner, int64_t m, const void *index, const void *s, void *y) {
    if constexpr (std::is_floating_point_v<T>)
        if (mf__cuda_deterministic(d)) return scatter_sorted<T, I, D>(d, outer, size, inner, m, index, s, y);
    const element_place<D> place = places<D>(outer, size, inner, m);
    mf__cuda_work(d, (double)place.count, (double)place.count * (3.0 * sizeof(T) + sizeof(I)));
    return MF_LAUNCH(d, (scatter_add_kernel<T, I, D>), mf__grid(d, place.count, 256), 256, 0, place, (const I *)index, (const T *)s, (T *)y,
                     mf__cuda(d)->fault_device, "scatter_add");
}

mf_status mf__cuda_scatter_add(mf_device *d, int dtype, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index,
                               const void *source, void *y) {
    MF_TRY(check_index("scatter_add", index_dtype));
    const int64_t n = outer * m * inner;
    if (n == 0) return MF_OK;
    DISPATCH_SUM("scatter_add", dtype, T, DISPATCH_PLACE(index_dtype, n, I, D, return (scatter_add<T, I, D>)(d, outer, size, inner, m, index, source, y)));
    return MF_OK;
}
