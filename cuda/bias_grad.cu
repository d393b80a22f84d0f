/* bias_grad.cu: the way back through the bias and the activation of a linear layer, in one pass over dy.
 *
 *     dz_ij = dy_ij where y_ij > 0, else 0 (without y: dy, not written)      dbias_j = sum over i of dz_ij
 *
 * Traffic   rows columns (1 read, with y 2 reads and 1 write); nothing else but the sums of each band of rows
 * Mapping   a block takes a strip of 32 columns and a band of rows. A thread has V columns of every (32 V)th row; lanes of one row lie
 *           side by side, so that a warp reads whole lines. Sums meet by shuffles over the rows of a warp, then one warp a column
 *           over the 32 warps. Up to 1024 rows are one band: latency is all there, and 8 strips of 256 columns are 8 blocks. More
 *           are cut so that the device is full, the sums go to scratch, and a second, small launch adds the bands up. The cut
 *           depends on the sizes (and the GPU) alone
 * Numerics  float32 and 16-bit types sum in float32 along a band, the bands in double; bitwise repeatable, no atomics */
#include "table.cuh"

enum { STRIP = 32, THREADS = 1024, ONE_BAND = 1024, LEAST_BAND = 256 };   /* columns; threads; rows of one band, of each of several */

template <class T, int V> struct alignas(sizeof(T) * V) vector_of { T x[V]; };

/* out: (bands, columns) of the accumulator, or dbias itself when there is one band. */
template <class T, class Out, int V, bool MASKED>
static __global__ void __launch_bounds__(THREADS) bias_grad_kernel(int64_t rows, int64_t columns, int64_t ld, int64_t band, const T *dy,
                                                                   const T *y, T *dz, Out *out) {
    using W = mf_wide_t<T>;
    using vector = vector_of<T, V>;
    constexpr int LANES = STRIP / V, ROWS = THREADS / LANES;      /* threads of a row; rows at a time */
    __shared__ W sums[32][STRIP + 1];                             /* of each warp; one more against bank conflicts */
    const int x = threadIdx.x % LANES, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int64_t column = (int64_t)blockIdx.x * STRIP + x * V;
    const int64_t first = (int64_t)blockIdx.y * band, end = first + band < rows ? first + band : rows;
    W total[V] = {};
    if (column < columns) {
#pragma unroll 4
        for (int64_t i = first + threadIdx.x / LANES; i < end; i += ROWS) {
            vector v = *(const vector *)(dy + i * ld + column);
            if constexpr (MASKED) {
                const vector kept = *(const vector *)(y + i * columns + column);
#pragma unroll
                for (int j = 0; j < V; j++)
                    if (!(mf__to<W>(kept.x[j]) > W(0))) v.x[j] = mf__to<T>(W(0));
                *(vector *)(dz + i * columns + column) = v;
            }
#pragma unroll
            for (int j = 0; j < V; j++) total[j] += mf__to<W>(v.x[j]);
        }
    }
    if (!out) return;
#pragma unroll
    for (int j = 0; j < V; j++) {
#pragma unroll
        for (int step = 16; step >= LANES; step >>= 1) total[j] += __shfl_xor_sync(0xffffffffu, total[j], step);
        if (lane < LANES) sums[warp][x * V + j] = total[j];
    }
    __syncthreads();
    const W sum = mf__warp_sum(sums[lane][warp]);                 /* this warp's column */
    const int64_t to = (int64_t)blockIdx.x * STRIP + warp;
    if (lane == 0 && to < columns) out[blockIdx.y * columns + to] = mf__to<Out>(sum);
}

/* dbias from the sums of the bands: 32 columns a block, 8 threads a column. */
enum { BANDS_ROWS = 8 };
template <class T, class W> static __global__ void bands_kernel(int64_t bands, int64_t columns, const W *parts, T *dbias) {
    __shared__ double sums[BANDS_ROWS][STRIP];
    const int64_t column = (int64_t)blockIdx.x * STRIP + threadIdx.x;
    double total = 0;
    if (column < columns)
#pragma unroll 4
        for (int64_t b = threadIdx.y; b < bands; b += BANDS_ROWS) total += (double)parts[b * columns + column];
    sums[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y != 0 || column >= columns) return;
#pragma unroll
    for (int r = 1; r < BANDS_ROWS; r++) total += sums[r][threadIdx.x];
    dbias[column] = mf__to<T>(total);
}

template <class T, class Out, int V>
static mf_status pass(mf_device *d, dim3 grid, int64_t rows, int64_t columns, int64_t ld, int64_t band, const T *dy, const T *y, T *dz,
                      Out *out) {
    mf__cuda_work(d, (double)rows * (double)columns, (double)rows * (double)columns * (y ? 3 : 1) * sizeof(T));
    if (y) return MF_LAUNCH(d, (bias_grad_kernel<T, Out, V, true>), grid, THREADS, 0, rows, columns, ld, band, dy, y, dz, out);
    return MF_LAUNCH(d, (bias_grad_kernel<T, Out, V, false>), grid, THREADS, 0, rows, columns, ld, band, dy, y, dz, out);
}

template <class T, int V>
static mf_status run(mf_device *d, int64_t rows, int64_t columns, int64_t ld, const T *dy, const T *y, T *dz, T *dbias) {
    using W = mf_wide_t<T>;
    const int64_t strips = mf__blocks(columns, STRIP);
    int64_t bands = mf__blocks((int64_t)mf__cuda(d)->multiprocessors * 2, strips);
    if (bands > rows / LEAST_BAND) bands = rows / LEAST_BAND;
    if (rows <= ONE_BAND || bands < 1) bands = 1;
    const int64_t band = mf__blocks(rows, bands);
    if (rows > 0) bands = mf__blocks(rows, band);
    const dim3 grid((unsigned)strips, (unsigned)bands);
    if (!dbias || bands == 1) return pass<T, T, V>(d, grid, rows, columns, ld, band, dy, y, dz, dbias);
    mf_scratch parts;
    MF_TRY(parts.take(d, bands * columns * (int64_t)sizeof(W)));
    MF_TRY((pass<T, W, V>(d, grid, rows, columns, ld, band, dy, y, dz, parts.as<W>())));
    return MF_LAUNCH(d, (bands_kernel<T, W>), (unsigned)strips, dim3(STRIP, BANDS_ROWS), 0, bands, columns,
                     (const W *)parts.as<W>(), dbias);
}

mf_status mf__cuda_bias_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t ld, const void *dy, const void *y, void *dz,
                             void *dbias) {
    if (columns <= 0 || (!y && !dbias)) return MF_OK;
    MF_DISPATCH_FLOAT(dtype, T, {
        constexpr int V = sizeof(T) == 2 ? 4 : 16 / (int)sizeof(T);
        const uintptr_t low = (uintptr_t)dy | (y ? (uintptr_t)y | (uintptr_t)dz : 0);
        const bool whole = columns % V == 0 && (ld % V == 0 || rows <= 1) && low % (V * sizeof(T)) == 0;
        if (whole) return run<T, V>(d, rows, columns, ld, (const T *)dy, (const T *)y, (T *)dz, (T *)dbias);
        return run<T, 1>(d, rows, columns, ld, (const T *)dy, (const T *)y, (T *)dz, (T *)dbias);
    });
    return MF_OK;
}
