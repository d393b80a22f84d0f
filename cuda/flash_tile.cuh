/* flash_tile.cuh: what the fused attention kernels share: where a block works, tiles of rows in shared memory, products of a warp on them.
 *
 * A tile is rows of `columns` 16-bit elements. Its rows lie an odd number of 16 bytes apart in shared memory, so that the 8 rows of an
 * ldmatrix are in different banks whatever the width: no swizzle, and every address of a tile is one register plus a constant.
 *
 *     width 160: 21 x 16 bytes, one of them never touched        width 232: 29 x 16 bytes
 *
 * Products, on accumulators c[rows / 16][columns / 8][4] of a warp:
 *
 *   mf__product_nt   c += a b'    a (m, k), b (n, k)    S = Q K', dP = dO V'
 *   mf__product_nn   c += a b     a (m, k), b (k, n)    dQ = dS K
 *   mf__product_tn   c += a' b    a (k, m), b (k, n)    dV = P' dO, dK = dS' Q */
#ifndef MF_CUDA_FLASH_TILE_CUH
#define MF_CUDA_FLASH_TILE_CUH
#include "flash.cuh"
#include "mma.cuh"

/* Padded (d_qk, d_v) that kernels are made for, smaller first; a problem takes the first pair that covers it. 160, 232 are the default
 * layer, 208, 264 the layer with points in two halves, 64, 64 the sequence transformer. */
#ifndef MF_FLASH_DIMS
#define MF_FLASH_DIMS(X) X(64, 64) X(96, 128) X(160, 232) X(208, 264) X(256, 256)
#endif

static constexpr float MF_LOG2E = 1.44269504088896340736f;

/* Elements from row to row of a tile. */
static __host__ __device__ constexpr int mf__tile_stride(int columns) { return (columns / 8 | 1) * 8; }
static __host__ __device__ constexpr int mf__tile_bytes(int rows, int columns) { return rows * mf__tile_stride(columns) * 2; }

/* Blocks that cut every sequence into tiles of `rows`: sequence s has the slots from offsets[s] / rows + s on, which is never too
 * few and at most one too many, so that neither side needs a table. */
static inline int64_t mf__flash_slots(const mf_flash *f, int rows) { return f->total / rows + f->sequences; }

struct mf_place {
    int64_t first;                /* row of the sequence's first residue */
    int length, start;            /* residues of the sequence; the tile's first */
    int sequence;
};
/* All lanes of a warp call it together. start >= length: nothing to do. */
static __device__ inline mf_place mf__flash_place(const mf_flash &f, int64_t slot, int rows) {
    const int lane = threadIdx.x & 31;
    int low = 0, high = (int)f.sequences;     /* the last sequence whose first slot is not after `slot` lies in [low, high) */
    while (high - low > 1) {
        const int step = (high - low + 31) / 32, probe = low + step * (lane + 1);
        const bool before = probe < high && f.offsets[probe] / rows + (int64_t)probe <= slot;
        low += step * __popc(__ballot_sync(0xffffffffu, before));
        high = high < low + step ? high : low + step;
    }
    mf_place p;
    p.first = f.offsets[low];
    p.length = (int)(f.offsets[low + 1] - p.first);
    p.start = (int)(slot - (p.first / rows + low)) * rows;
    p.sequence = low;
    return p;
}

/* Begins to copy a tile; rows from `valid` on and columns from `ld` on become zeros. */
template <int ROWS, int COLUMNS, int THREADS>
static __device__ __forceinline__ void mf__tile_copy(mf_address to, const void *from, int64_t stride, int valid, int ld) {
    constexpr int chunks = COLUMNS / 8, lanes = chunks > 16 ? 32 : chunks > 8 ? 16 : chunks > 4 ? 8 : chunks > 2 ? 4 : 2;
    constexpr int pass = THREADS / lanes;
    const int lane = threadIdx.x % lanes, row = threadIdx.x / lanes;
    const char *source = (const char *)from + 2 * (row * stride + lane * 8);
    to += 2 * (row * mf__tile_stride(COLUMNS) + lane * 8);
#pragma unroll
    for (int r = 0; r < ROWS; r += pass) {
#pragma unroll
        for (int c = 0; c < chunks; c += lanes)
            if ((ROWS % pass == 0 || r + row < ROWS) && (c + lanes <= chunks || lane + c < chunks))
                mf__copy16(to + 2 * (r * mf__tile_stride(COLUMNS) + c * 8), source + 2 * (c * 8), r + row < valid && (lane + c) * 8 < ld);
        source += 2 * pass * stride;
    }
}

/* Where this lane points ldmatrix: the four matrices of a 16 x 16 block in the order of operand a (a0 a1 a2 a3) or of two operands
 * b side by side (b0 b1 of columns 0 to 7, b0 b1 of 8 to 15), stored as named or transposed. */
static __device__ __forceinline__ int mf__lane_a(int stride) {
    const int l = threadIdx.x & 31;
    return 2 * ((l & 15) * stride + (l >> 4) * 8);
}
static __device__ __forceinline__ int mf__lane_a_t(int stride) {
    const int l = threadIdx.x & 31;
    return 2 * (((l & 7) + (l >> 4) * 8) * stride + (l >> 3 & 1) * 8);
}
static __device__ __forceinline__ int mf__lane_b(int stride) { return mf__lane_a_t(stride); }
static __device__ __forceinline__ int mf__lane_b_t(int stride) { return mf__lane_a(stride); }

/* c += a b'; a and b already with this lane's offset (lane_a, lane_b). A width that is 8 past a multiple of 16 ends with products of depth 8. */
template <bool BF16, int M, int N, int K, int LDA, int LDB>
static __device__ __forceinline__ void mf__product_nt(float (&c)[M / 16][N / 8][4], mf_address a, mf_address b) {
    static_assert(M % 16 == 0 && N % 16 == 0 && K % 8 == 0);
#pragma unroll
    for (int k = 0; k + 16 <= K; k += 16) {
        uint32_t left[M / 16][4];
#pragma unroll
        for (int m = 0; m < M / 16; m++) mf__load4(left[m], a + 2 * (m * 16 * LDA + k));
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            uint32_t right[4];
            mf__load4(right, b + 2 * (n * 16 * LDB + k));
#pragma unroll
            for (int m = 0; m < M / 16; m++) {
                mf__mma<BF16>(c[m][2 * n], left[m], right[0], right[1]);
                mf__mma<BF16>(c[m][2 * n + 1], left[m], right[2], right[3]);
            }
        }
    }
    if constexpr (K % 16 == 8) {
        /* The first 8 columns of the block only: lanes 0 to 15 point to the matrices that are read. Lanes of b point to b0 b1 b0 b1, so
         * b's own order is undone: lanes 8 to 15 must go to rows 8 to 15 of the first columns. */
        constexpr int k = K / 16 * 16;
        const int lane = threadIdx.x & 31, undo = (lane >> 3 & 1) * 2 * (8 * LDB - 8);
        uint32_t left[M / 16][2];
#pragma unroll
        for (int m = 0; m < M / 16; m++) mf__load2(left[m], a + 2 * (m * 16 * LDA + k));
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            uint32_t right[2];
            mf__load2(right, b + undo + 2 * (n * 16 * LDB + k));
#pragma unroll
            for (int m = 0; m < M / 16; m++) {
                mf__mma8<BF16>(c[m][2 * n], left[m], right[0]);
                mf__mma8<BF16>(c[m][2 * n + 1], left[m], right[1]);
            }
        }
    }
}

/* Columns [0, 8 `tiles`) of c += a b for one step of 16 along k, with a in registers; b with lane_b_t. TILES at compile time; the last
 * is left out where `all` is false. */
template <bool BF16, int M, int TILES>
static __device__ __forceinline__ void mf__product_step(float (&c)[M / 16][TILES][4], const uint32_t (&left)[M / 16][4], mf_address b,
    bool all) {
#pragma unroll
    for (int n = 0; n + 2 <= TILES; n += 2) {
        uint32_t right[4];
        mf__load4_t(right, b + 2 * (n * 8));
#pragma unroll
        for (int m = 0; m < M / 16; m++) mf__mma<BF16>(c[m][n], left[m], right[0], right[1]);
        if (n + 2 < TILES || all)
#pragma unroll
            for (int m = 0; m < M / 16; m++) mf__mma<BF16>(c[m][n + 1], left[m], right[2], right[3]);
    }
    if constexpr (TILES % 2 == 1) {
        if (all) {
            uint32_t right[2];
            mf__load2_t(right, b + 2 * (TILES - 1) * 8);
#pragma unroll
            for (int m = 0; m < M / 16; m++) mf__mma<BF16>(c[m][TILES - 1], left[m], right[0], right[1]);
        }
    }
}

/* c += a' b over K rows of both; a with lane_a_t, b with lane_b_t. */
template <bool BF16, int M, int TILES, int K, int LDA, int LDB>
static __device__ __forceinline__ void mf__product_tn(float (&c)[M / 16][TILES][4], mf_address a, mf_address b, bool all) {
#pragma unroll
    for (int k = 0; k < K; k += 16) {
        uint32_t left[M / 16][4];
#pragma unroll
        for (int m = 0; m < M / 16; m++) mf__load4_t(left[m], a + 2 * (k * LDA + m * 16));
        mf__product_step<BF16, M, TILES>(c, left, b + 2 * k * LDB, all);
    }
}

/* c += a b; a with lane_a, b with lane_b_t. */
template <bool BF16, int M, int TILES, int K, int LDA, int LDB>
static __device__ __forceinline__ void mf__product_nn(float (&c)[M / 16][TILES][4], mf_address a, mf_address b, bool all) {
#pragma unroll
    for (int k = 0; k < K; k += 16) {
        uint32_t left[M / 16][4];
#pragma unroll
        for (int m = 0; m < M / 16; m++) mf__load4(left[m], a + 2 * (m * 16 * LDA + k));
        mf__product_step<BF16, M, TILES>(c, left, b + 2 * k * LDB, all);
    }
}

/* P in units of 2^-15 and dS in units of dO's scale, from S and dP. */
template <bool BF16> struct mf_backward_row {
    static constexpr float unit = BF16 ? 1.0f : 1.0f / 32768;
    float lse, delta;
    __device__ __forceinline__ mf_backward_row(float lse_, float delta_, bool inside)
        : lse(inside && lse_ != -INFINITY ? fmaf(lse_, MF_LOG2E, BF16 ? 0.0f : -15.0f) : INFINITY), delta(delta_ * unit) {}
    __device__ __forceinline__ float p(float s, float bias) const { return mf__exp2(fmaf(s, MF_LOG2E, bias) - lse); }
    __device__ __forceinline__ float ds(float p, float dp) const { return p * fmaf(dp, unit, -delta); }
};

/* For mf.profile: operations that the result needs; operands, results and statistics read or written once. */
static inline void mf__flash_work(mf_device *d, const mf_flash *f, bool backward) {
    const double pairs = (double)f->pairs * f->heads, rows = (double)f->total * f->heads, widths = f->dqk + f->dv;
    if (backward) mf__cuda_work(d, 2 * pairs * (2 * widths + f->dqk), rows * (4 * widths + 4 * (widths + f->dqk) + 16), MF_UNIT_FP16);
    else mf__cuda_work(d, 2 * pairs * widths, rows * (2 * (widths + f->dqk) + 4.0 * f->dv + 8), MF_UNIT_FP16);
}

/* The kernels that flash.cu chooses from; false: not for these widths or this device. */
bool mf__hopper_forward(mf_device *d, const mf_flash *f, mf_status *status);
bool mf__hopper_backward_fused(mf_device *d, const mf_flash *f, mf_status *status);
bool mf__hopper_backward_apart(mf_device *d, const mf_flash *f, mf_status *status);
bool mf__flash_listed_forward(mf_device *d, const mf_flash *f, mf_status *status);
bool mf__flash_listed_backward(mf_device *d, const mf_flash *f, mf_status *status);
bool mf__hopper_wide_forward(mf_device *d, const mf_flash *f, mf_status *status);
bool mf__hopper_wide_backward(mf_device *d, const mf_flash *f, mf_status *status);
mf_status mf__flash_wide_forward(mf_device *d, const mf_flash *f);
mf_status mf__flash_wide_backward(mf_device *d, const mf_flash *f);

/* Writes the pair (x, y) of columns c, c + 1 of a row of `width` floats. */
static __device__ __forceinline__ void mf__put2(float *row, int c, int width, float x, float y) {
    if (c + 1 < width && (width & 1) == 0) *(float2 *)(row + c) = make_float2(x, y);
    else {
        if (c < width) row[c] = x;
        if (c + 1 < width) row[c + 1] = y;
    }
}
#endif
