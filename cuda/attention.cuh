/* attention.cuh: products of tiles on ordinary arithmetic, for exact attention and for attention with dense pairs.
 *
 * A block of 256 threads makes a tile of 64 rows; 16 x 16 threads, each 4 rows by 4 columns of every group of 64 columns:
 *
 *     thread (ty, tx)    rows 4 ty ... 4 ty + 3,    columns 64 g + 4 tx ... + 3,    g < NC        acc[4][4 NC]
 *     warp               4 of ty by 8 of tx: a step of the sum reads 64 bytes of one operand, 128 bytes a group of the other
 *
 * Operands lie in shared memory with the summed axis first, `depth` of it at a time in two buffers: the next piece is on its way
 * from global memory, in registers, while one is multiplied. Sums run along the axis in order: bitwise repeatable. */
#ifndef MF_CUDA_ATTENTION_CUH
#define MF_CUDA_ATTENTION_CUH
#include "common.cuh"

template <class R> struct mf_tile {
    static constexpr int threads = 256, rows = 64, stride = 68;     /* stride: of a row of an operand of 64, in elements */
    static constexpr int groups = sizeof(R) == 4 ? 2 : 1;           /* of 64 columns of a tile of scores */
    static constexpr int columns = 64 * groups;
    static constexpr int depth = sizeof(R) == 4 ? 16 : 8;
    static constexpr int row_values = rows * depth / threads;       /* a thread's share of a piece of 64 */
};
template <int NC> static constexpr int mf__wide_stride = 64 * NC + 4;

/* Four neighbours, read or written in 16-byte accesses. */
template <class R> struct alignas(16) mf_quad {
    R x[4];
};

static __device__ inline int mf__tile_x() { return (int)(threadIdx.x >> 5 & 1) * 8 + (int)(threadIdx.x & 7); }
static __device__ inline int mf__tile_y() { return (int)(threadIdx.x >> 6) * 4 + (int)(threadIdx.x >> 3 & 3); }

/* acc += a' b, a piece (depth, 64) and b (depth, 64 NC) in shared memory. */
template <int NC, class R> static __device__ inline void mf__tile_multiply(R (&acc)[4][4 * NC], const R *a, const R *b, int b_stride) {
    a += 4 * mf__tile_y();
    b += 4 * mf__tile_x();
#pragma unroll
    for (int n = 0; n < mf_tile<R>::depth; n++) {
        const mf_quad<R> x = *(const mf_quad<R> *)(a + n * mf_tile<R>::stride);
#pragma unroll
        for (int g = 0; g < NC; g++) {
            const mf_quad<R> y = *(const mf_quad<R> *)(b + n * b_stride + 64 * g);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) acc[i][4 * g + j] += x.x[i] * y.x[j];
        }
    }
}

/* A piece whose summed axis is the inner one in memory: rows of `depth` elements, turned on the way to shared memory. What lies
 * outside (rows, width) is 0. */
template <class R, int N, class F>
static __device__ inline void mf__fetch_turned(R (&value)[N], const R *from, int64_t stride, int64_t rows, int width, F convert) {
    const int c = (int)threadIdx.x % mf_tile<R>::depth, r = (int)threadIdx.x / mf_tile<R>::depth;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const int row = r + i * (mf_tile<R>::threads / mf_tile<R>::depth);
        value[i] = row < rows && c < width ? convert(from[row * stride + c]) : R(0);
    }
}
template <class R, int N> static __device__ inline void mf__put_turned(R *to, int to_stride, const R (&value)[N]) {
    const int c = (int)threadIdx.x % mf_tile<R>::depth, r = (int)threadIdx.x / mf_tile<R>::depth;
#pragma unroll
    for (int i = 0; i < N; i++) to[c * to_stride + r + i * (mf_tile<R>::threads / mf_tile<R>::depth)] = value[i];
}

/* A piece whose summed axis is the outer one: `depth` rows of 64 NC elements. */
template <int NC, class R, class F>
static __device__ inline void mf__fetch_plain(R (&value)[NC * mf_tile<R>::depth / 4], const R *from, int64_t stride, int64_t rows,
                                              int64_t width, F convert) {
    const int c = (int)threadIdx.x % 64, r = (int)threadIdx.x / 64;
#pragma unroll
    for (int i = 0; i < mf_tile<R>::depth / 4; i++)
#pragma unroll
        for (int g = 0; g < NC; g++) {
            const int row = r + 4 * i, column = 64 * g + c;
            value[i * NC + g] = row < rows && column < width ? convert(from[row * stride + column]) : R(0);
        }
}
template <int NC, class R>
static __device__ inline void mf__put_plain(R *to, int to_stride, const R (&value)[NC * mf_tile<R>::depth / 4]) {
    const int c = (int)threadIdx.x % 64, r = (int)threadIdx.x / 64;
#pragma unroll
    for (int i = 0; i < mf_tile<R>::depth / 4; i++)
#pragma unroll
        for (int g = 0; g < NC; g++) to[(r + 4 * i) * to_stride + 64 * g + c] = value[i * NC + g];
}

/* to += from, which becomes 0. */
template <int N, class R> static __device__ inline void mf__add_up(R (&to)[4][N], R (&from)[4][N]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < N; j++) {
            to[i][j] += from[i][j];
            from[i][j] = 0;
        }
}

/* s += a b' over `width`: a (a_rows, width) and b (b_rows, width) in global memory, at most 64 and 64 G rows of them count.
 * `left` (2, depth, stride) and `right` (2, depth, wide stride of G) are shared; all threads are done with them on return. */
template <int G, class R, class F, class H>
static __device__ inline void mf__tile_scores(R (&s)[4][4 * G], const R *a, int64_t a_stride, int64_t a_rows, F a_convert, const R *b,
                                              int64_t b_stride, int64_t b_rows, H b_convert, int width, R *left, R *right) {
    using tile = mf_tile<R>;
    constexpr int wide = mf__wide_stride<G>, left_size = tile::depth * tile::stride, right_size = tile::depth * wide;
    R x[tile::row_values], y[G * tile::row_values];
    if (width <= 0) return;
    mf__fetch_turned(x, a, a_stride, a_rows, width, a_convert);
    mf__fetch_turned(y, b, b_stride, b_rows, width, b_convert);
    mf__put_turned(left, tile::stride, x);
    mf__put_turned(right, wide, y);
    __syncthreads();
    /* float: sums of 32 products are added up, so that rounding grows with the root of the width's root */
    constexpr bool staged = sizeof(R) == 4;
    R part[4][4 * G] = {};
    int buffer = 0;
    for (int c = 0; c < width; c += tile::depth, buffer ^= 1) {
        const int next = c + tile::depth;
        if (next < width) {
            mf__fetch_turned(x, a + next, a_stride, a_rows, width - next, a_convert);
            mf__fetch_turned(y, b + next, b_stride, b_rows, width - next, b_convert);
        }
        mf__tile_multiply<G>(staged ? part : s, left + buffer * left_size, right + buffer * right_size, wide);
        if (staged && (buffer || next >= width)) mf__add_up(s, part);
        if (next < width) {
            mf__put_turned(left + (buffer ^ 1) * left_size, tile::stride, x);
            mf__put_turned(right + (buffer ^ 1) * right_size, wide, y);
        }
        __syncthreads();
    }
}

/* acc += t' x over `rows`: t (rows, 64) lies in shared memory, x (rows, width) in global memory. Begins by waiting for t. */
template <int NC, class R, class F>
static __device__ inline void mf__tile_gather(R (&acc)[4][4 * NC], const R *t, const R *x, int64_t x_stride, int rows, int64_t width,
                                              F convert, R *right) {
    using tile = mf_tile<R>;
    constexpr int wide = mf__wide_stride<NC>, right_size = tile::depth * wide;
    R value[NC * tile::depth / 4];
    mf__fetch_plain<NC>(value, x, x_stride, rows, width, convert);
    mf__put_plain<NC>(right, wide, value);
    __syncthreads();
    int buffer = 0;
    for (int n = 0; n < rows; n += tile::depth, buffer ^= 1) {
        const int next = n + tile::depth;
        if (next < rows) mf__fetch_plain<NC>(value, x + next * x_stride, x_stride, rows - next, width, convert);
        mf__tile_multiply<NC>(acc, t + n * tile::stride, right + buffer * right_size, wide);
        if (next < rows) mf__put_plain<NC>(right + (buffer ^ 1) * right_size, wide, value);
        __syncthreads();
    }
}

/* Tile number `tile` of all sequences cut into tiles of 64: those of sequence s begin at number offsets[s] / 64 + s, so that a
 * block finds its own by bisection and few blocks are idle. False for a number that no tile has. */
struct mf_tile_place {
    int64_t first;                /* residue where the sequence begins */
    int64_t length;
    int64_t start;                /* of the tile, within the sequence */
    int sequence;
};
static inline int64_t mf__tile_count(const mf_packing *packing) { return packing->total / 64 + packing->count; }
static __device__ inline bool mf__tile_find(mf_tile_place *place, const int32_t *offsets, int sequences, int64_t tile) {
    int low = 0, high = sequences;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (offsets[middle] / 64 + middle <= tile) low = middle;
        else high = middle;
    }
    place->sequence = low;
    place->first = offsets[low];
    place->length = offsets[low + 1] - place->first;
    place->start = (tile - (place->first / 64 + low)) * 64;
    return place->start < place->length;
}

/* Columns of a product cut into pieces of at most `most` (256), each `groups` groups of 64. */
struct mf_pieces {
    int count, groups;
};
static inline mf_pieces mf__pieces(int64_t width, int most = 256) {
    mf_pieces p;
    p.count = (int)(width > most ? mf__blocks(width, most) : 1);
    const int64_t groups = mf__blocks(mf__blocks(width, p.count), 64);
    p.groups = (int)(groups < 1 ? 1 : groups);
    return p;
}

/* What the kernels of both files are told: sequences, tiles and what forward reads. */
template <class R> struct mf_tile_inputs {
    const int32_t *offsets;
    int sequences, heads, dqk, dv;
    int64_t tiles;
    const R *q, *k, *v, *key_bias;

    mf_status fill(mf_device *d, const mf_attention_args *a) {
        mf_status status = MF_OK;
        offsets = mf__cuda_offsets(d, a->packing, &status);
        sequences = (int)a->packing->count;
        heads = (int)a->heads;
        dqk = (int)a->dqk;
        dv = (int)a->dv;
        tiles = mf__tile_count(a->packing);
        q = (const R *)a->q;
        k = (const R *)a->k;
        v = (const R *)a->v;
        key_bias = (const R *)a->key_bias;
        return status;
    }
};

static __device__ inline float mf__exponential(float x) { return expf(x); }
static __device__ inline double mf__exponential(double x) { return exp(x); }

static inline int mf__unit_of(const mf_attention_args *a) { return a->dtype == MF_FLOAT64 ? MF_UNIT_FP64 : MF_UNIT_FP32; }

/* attention_exact.cu. delta (N, H) is rowsum(dout out); with rounding (float64 only), dout is multiplied by *scale (NULL: 1). */
mf_status mf__cuda_attention_exact(mf_device *d, const mf_attention_args *a);
mf_status mf__cuda_attention_exact_grad(mf_device *d, const mf_attention_args *a, const void *delta, const float *scale);
#endif
