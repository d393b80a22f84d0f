/* bias_grad.cu: the way back through the bias and the activation of a linear layer, in one pass over dy.
 *
 *     dz_ij = dy_ij where y_ij > 0, else 0 (without y: dy, not written)      dbias_j = sum over i of dz_ij
 *
 * Traffic   rows columns (1 read, with y 2 reads and 1 write); nothing else but the sums of each band of rows
 * Mapping   a block of 1024 threads takes a strip of 32 vectors of V columns and a band of rows; thread (x, y) the columns of vector x
 *           and every 32nd row; the partial sums meet in shared memory, as a tree. Up to 1024 rows are one band in strips of 8
 *           vectors and every 128th row: four times the blocks, and few rows one after the other. More are cut so that the device is
 *           full, the sums go to scratch, and a second, small launch adds the bands up. The cut depends on the sizes (and the GPU) alone
 * Numerics  float32 and 16-bit types sum in float32 along a band, the bands in double; bitwise repeatable, no atomics */
#include "table.cuh"

enum { THREADS = 1024, WIDE = 32, NARROW = 8, ONE_BAND = 1024, LEAST_BAND = 128 };   /* threads; along columns; rows of one band, of each */

template <class T, int V> struct alignas(sizeof(T) * V) vector_of { T x[V]; };

/* out: (bands, columns) of the accumulator, or dbias itself when there is one band. */
template <class T, class Out, int V, bool MASKED, int LANES>
static __global__ void __launch_bounds__(THREADS) bias_grad_kernel(int64_t rows, int64_t columns, int64_t ld, int64_t band, const T *dy, const T *y, T *dz, Out *out) {
    using W = mf_wide_t<T>;
    using vector = vector_of<T, V>;
    constexpr int ROWS = THREADS / LANES;
    __shared__ W sums[ROWS][LANES * V];
    const int64_t column = ((int64_t)blockIdx.x * LANES + threadIdx.x) * V;
    const int64_t first = (int64_t)blockIdx.y * band, end = first + band < rows ? first + band : rows;
    W total[V] = {};
    if (column < columns) {
#pragma unroll 4
        for (int64_t i = first + threadIdx.y; i < end; i += ROWS) {
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
    for (int j = 0; j < V; j++) sums[threadIdx.y][threadIdx.x * V + j] = total[j];
    for (int half = ROWS / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.y < half) {
#pragma unroll
            for (int j = 0; j < V; j++) sums[threadIdx.y][threadIdx.x * V + j] += sums[threadIdx.y + half][threadIdx.x * V + j];
        }
    }
    if (threadIdx.y != 0 || column >= columns) return;
#pragma unroll
    for (int j = 0; j < V; j++) out[blockIdx.y * columns + column + j] = mf__to<Out>(sums[0][threadIdx.x * V + j]);
}

/* dbias from the sums of the bands: 32 columns a block, 32 threads a column. */
template <class T, class W> static __global__ void bands_kernel(int64_t bands, int64_t columns, const W *parts, T *dbias) {
    constexpr int LANES = WIDE, ROWS = THREADS / WIDE;
    __shared__ double sums[ROWS][LANES];
    const int64_t column = (int64_t)blockIdx.x * LANES + threadIdx.x;
    double total = 0;
    if (column < columns)
        for (int64_t b = threadIdx.y; b < bands; b += ROWS) total += (double)parts[b * columns + column];
    sums[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y != 0 || column >= columns) return;
    for (int r = 1; r < ROWS; r++) total += sums[r][threadIdx.x];
    dbias[column] = mf__to<T>(total);
}

template <class T, class Out, int V, int LANES>
static mf_status pass(mf_device *d, dim3 grid, int64_t rows, int64_t columns, int64_t ld, int64_t band, const T *dy, const T *y, T *dz,
                      Out *out) {
    mf__cuda_work(d, (double)rows * (double)columns, (double)rows * (double)columns * (y ? 3 : 1) * sizeof(T));
    const dim3 block(LANES, THREADS / LANES);
    if (y) return MF_LAUNCH(d, (bias_grad_kernel<T, Out, V, true, LANES>), grid, block, 0, rows, columns, ld, band, dy, y, dz, out);
    return MF_LAUNCH(d, (bias_grad_kernel<T, Out, V, false, LANES>), grid, block, 0, rows, columns, ld, band, dy, y, dz, out);
}

template <class T, int V>
static mf_status run(mf_device *d, int64_t rows, int64_t columns, int64_t ld, const T *dy, const T *y, T *dz, T *dbias) {
    using W = mf_wide_t<T>;
    if (rows <= ONE_BAND) {
        const dim3 few((unsigned)mf__blocks(columns, NARROW * V));
        return pass<T, T, V, NARROW>(d, few, rows, columns, ld, rows, dy, y, dz, dbias);
    }
    const int64_t strips = mf__blocks(columns, WIDE * V);
    int64_t bands = mf__blocks((int64_t)mf__cuda(d)->multiprocessors * 2, strips);
    if (bands > rows / LEAST_BAND) bands = rows / LEAST_BAND;
    const int64_t band = mf__blocks(rows, bands);
    bands = mf__blocks(rows, band);
    const dim3 grid((unsigned)strips, (unsigned)bands);
    if (!dbias || bands == 1) return pass<T, T, V, WIDE>(d, grid, rows, columns, ld, band, dy, y, dz, dbias);
    mf_scratch parts;
    MF_TRY(parts.take(d, bands * columns * (int64_t)sizeof(W)));
    MF_TRY((pass<T, W, V, WIDE>(d, grid, rows, columns, ld, band, dy, y, dz, parts.as<W>())));
    return MF_LAUNCH(d, (bands_kernel<T, W>), (unsigned)mf__blocks(columns, WIDE), dim3(WIDE, THREADS / WIDE), 0, bands, columns,
                     (const W *)parts.as<W>(), dbias);
}

mf_status mf__cuda_bias_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t ld, const void *dy, const void *y, void *dz,
                             void *dbias) {
    if (columns <= 0 || (!y && !dbias)) return MF_OK;
    MF_DISPATCH_FLOAT(dtype, T, {
        constexpr int V = sizeof(T) == 2 ? 4 : 16 / (int)sizeof(T);   /* 8 or 16 bytes a load */
        const uintptr_t low = (uintptr_t)dy | (y ? (uintptr_t)y | (uintptr_t)dz : 0);
        const bool whole = columns % V == 0 && (ld % V == 0 || rows <= 1) && low % (V * sizeof(T)) == 0;
        if (whole) return run<T, V>(d, rows, columns, ld, (const T *)dy, (const T *)y, (T *)dz, (T *)dbias);
        return run<T, 1>(d, rows, columns, ld, (const T *)dy, (const T *)y, (T *)dz, (T *)dbias);
    });
    return MF_OK;
}
