/* bins.cu: sums over neighbours by the bin of their distance (core/geometry/neighbour_linear.c).
 *
 *   gather    y_i = bias + sum_j table[j, bin(d_ij)]               scatter   dtable[j, b] = sum of dy_i over d_ij in bin b
 *
 *   d (N, k), table, dtable (k, bins, O), bias (O) or NULL, y, dy (N, O); a distance in no bin counts for nothing
 *
 * Work      N k O additions each; a bin costs 5 steps of a search, once for a row and slot (gather), once for O / 32 columns (scatter)
 * Traffic   gather: N (8 k + 4 O) bytes from memory, N k O 4 from the caches, where the table stays (155 KB at k = 20, 22 bins, O = 88);
 *           scatter: dy k times, from the second cache
 * Mapping   gather: a block has some rows, keeps their bins in shared memory, and gives a thread up to four columns of a row.
 *           scatter: a block has one slot and a part of the rows, a thread one column, whose sums by bin it keeps in shared memory: no
 *           two threads add to one place. A second kernel adds the parts.
 * Numerics  gather sums in the table's type in order of the slots, as the CPU; scatter in double
 * Bitwise   deterministic: parts depend on N alone and are added in order
 * Refuses   bins so many that 32 columns of them do not fit shared memory (880 on most cards) */
#include "table.cuh"
#define MF_DEVICE_FUNCTION __host__ __device__
#include "../core/geometry/features.h"

enum { THREADS = 256, SLOTS = 32, ROWS = 32, PARTS = 64, PART_ROWS = 64, AHEAD = 16 };

template <class T, int V> struct __align__(sizeof(T) * V) vec {
    T at[V];
};

template <class T, class D, int V>
static __global__ void __launch_bounds__(THREADS)
bins_gather_kernel(int64_t n, int64_t k, int64_t width, mf_bins bins, int rows, const D *__restrict__ distance, const vec<T, V> *__restrict__ table,
                   const vec<T, V> *__restrict__ bias, vec<T, V> *__restrict__ y) {
    __shared__ int bin[ROWS][SLOTS];
    const int64_t columns = width / V, first = (int64_t)blockIdx.x * rows, here = n - first < rows ? n - first : rows, items = here * columns;
    for (int64_t start = 0; start < items; start += THREADS) {      /* once, but for rows wider than a block */
        const int64_t item = start + threadIdx.x, row = item / columns, column = item - row * columns;
        const bool there = item < items;
        vec<T, V> sum = {};
        if (there && bias) sum = bias[column];
        for (int64_t j0 = 0; j0 < k; j0 += SLOTS) {
            const int slots = k - j0 < SLOTS ? (int)(k - j0) : SLOTS;
            __syncthreads();
            for (int i = threadIdx.x; i < here * SLOTS; i += THREADS) {
                const int r = i / SLOTS, j = i % SLOTS;
                if (j < slots) bin[r][j] = mf__bin_of(bins, (double)distance[(first + r) * k + j0 + j]);
            }
            __syncthreads();
            if (!there) continue;
#pragma unroll 4
            for (int j = 0; j < slots; j++) {
                const int b = bin[row][j];
                if (b < 0) continue;
                const vec<T, V> from = table[((j0 + j) * bins.count + b) * columns + column];
#pragma unroll
                for (int v = 0; v < V; v++) sum.at[v] += from.at[v];
            }
        }
        if (there) y[(first + row) * columns + column] = sum;
    }
}

/* blockIdx: part of the rows, slot, columns. */
template <class T, class D>
static __global__ void bins_scatter_kernel(int64_t n, int64_t k, int64_t width, int64_t part, mf_bins bins, const D *__restrict__ distance,
                                           const T *__restrict__ dy, T *__restrict__ partial) {
    MF_SHARED(double, sums);      /* bins, blockDim.x */
    __shared__ int bin[PART_ROWS];
    const int threads = blockDim.x;
    const int64_t first = blockIdx.x * part, last = first + part < n ? first + part : n, j = blockIdx.y;
    const int64_t column = (int64_t)blockIdx.z * threads + threadIdx.x;
    const bool there = column < width;
    for (int b = 0; b < bins.count; b++) sums[b * threads + threadIdx.x] = 0;
    for (int64_t start = first; start < last; start += PART_ROWS) {
        const int rows = last - start < PART_ROWS ? (int)(last - start) : PART_ROWS;
        __syncthreads();
        for (int r = threadIdx.x; r < rows; r += threads) bin[r] = mf__bin_of(bins, (double)distance[(start + r) * k + j]);
        __syncthreads();
        for (int r = 0; r < rows; r += AHEAD) {
            T value[AHEAD];
#pragma unroll
            for (int a = 0; a < AHEAD; a++) value[a] = there && r + a < rows ? dy[(start + r + a) * width + column] : T(0);
#pragma unroll
            for (int a = 0; a < AHEAD; a++)
                if (r + a < rows && bin[r + a] >= 0) sums[bin[r + a] * threads + threadIdx.x] += (double)value[a];
        }
    }
    if (!there) return;
    T *to = partial + (blockIdx.x * k + j) * bins.count * width + column;
    for (int b = 0; b < bins.count; b++) to[b * width] = (T)sums[b * threads + threadIdx.x];
}

template <class T>
static __global__ void __launch_bounds__(THREADS) bins_combine_kernel(int64_t n, int64_t parts, const T *__restrict__ partial, T *__restrict__ dtable) {
    MF_GRID_LOOP(i, n) {
        double sum = 0;
        for (int64_t p = 0; p < parts; p++) sum += (double)partial[p * n + i];
        dtable[i] = (T)sum;
    }
}

template <class T, class D, int V> static mf_status gather_by(mf_device *d, const mf_bins_args *a) {
    const int64_t columns = a->width / V;
    int64_t rows = THREADS / columns;
    rows = rows < 1 ? 1 : rows > ROWS ? ROWS : rows;
    return MF_LAUNCH(d, (bins_gather_kernel<T, D, V>), (unsigned)mf__blocks(a->n, rows), THREADS, 0, a->n, a->k, a->width,
                     mf__bins(a->lo, a->hi, a->bins), (int)rows, (const D *)a->distance, (const vec<T, V> *)a->table, (const vec<T, V> *)a->bias,
                     (vec<T, V> *)a->y);
}

template <class T, class D> static mf_status gather(mf_device *d, const mf_bins_args *a) {
    constexpr int V = 16 / sizeof(T);
    if (a->width == 0) return MF_OK;
    if (a->width % V == 0 && (((uintptr_t)a->table | (uintptr_t)a->bias | (uintptr_t)a->y) & 15) == 0) return gather_by<T, D, V>(d, a);
    return gather_by<T, D, 1>(d, a);
}

template <class T, class D> static mf_status scatter(mf_device *d, const mf_bins_args *a) {
    const int64_t size = a->k * a->bins * a->width, part = mf__blocks(a->n, PARTS) > PART_ROWS ? mf__blocks(a->n, PARTS) : PART_ROWS;
    const int64_t parts = mf__blocks(a->n, part);
    int threads = a->width > 96 ? 128 : a->width > 64 ? 96 : a->width > 32 ? 64 : 32;
    while (threads > 32 && a->bins * threads * (int64_t)sizeof(double) > 48 << 10) threads -= 32;
    mf_scratch partial;
    MF_TRY(partial.take(d, (parts * size + 1) * (int64_t)sizeof(T)));
    if (a->k > 65535 || mf__blocks(a->width, threads) > 65535)
        return mf__fail(MF_ESUPPORT, "bins_scatter: k is %lld and the width %lld; the grid of a GPU takes 65535", (long long)a->k, (long long)a->width);
    mf__cuda_work(d, (double)(a->n * a->k * a->width), (double)(a->n * (a->k * (int64_t)sizeof(D) + a->width * (int64_t)sizeof(T))));
    if (size > 0)
        MF_TRY(MF_LAUNCH(d, (bins_scatter_kernel<T, D>), dim3((unsigned)parts, (unsigned)a->k, (unsigned)mf__blocks(a->width, threads)), threads,
                         a->bins * threads * (int64_t)sizeof(double), a->n, a->k, a->width, part, mf__bins(a->lo, a->hi, a->bins),
                         (const D *)a->distance, (const T *)a->dy, partial.as<T>()));
    mf__cuda_work(d, (double)(parts * size), (double)((parts + 1) * size * (int64_t)sizeof(T)));
    return MF_LAUNCH(d, bins_combine_kernel<T>, mf__grid(d, size, THREADS), THREADS, 0, size, parts, partial.as<T>(), (T *)a->dtable);
}

mf_status mf__cuda_bins_gather(mf_device *d, const mf_bins_args *a) {
    mf__cuda_work(d, (double)(a->n * a->k * a->width),
                  (double)(a->n * (a->k * mf_dtype_bytes(a->distance_dtype) + a->width * mf_dtype_bytes(a->dtype))));
    MF_DISPATCH_REAL(a->dtype, T, MF_DISPATCH_REAL(a->distance_dtype, D, return (gather<T, D>(d, a))));
}

mf_status mf__cuda_bins_scatter(mf_device *d, const mf_bins_args *a) {
    MF_DISPATCH_REAL(a->dtype, T, MF_DISPATCH_REAL(a->distance_dtype, D, return (scatter<T, D>(d, a))));
}
