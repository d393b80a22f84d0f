/* flash_wide.cu: fused attention for the widths that are in no list: any, in slabs of 64 columns.
 *
 * A block of 8 warps owns 128 rows (queries forward and for dQ, keys for dV and dK) of one sequence and head and 256 columns of the
 * result, and goes over the other axis in tiles of 64:
 *
 *   forward   S = Q K',                     out += exp(S - max) V         dv / 256 blocks make S again
 *   dV        S' = K Q',                    dV += P' dO
 *   dK        S' = K Q',  dP' = V dO',      dK += dS' Q, dkey_bias
 *   dQ        S  = Q K',  dP  = dO V',      dQ += dS K
 *
 * The four are one kernel: S of a warp's 16 rows is summed slab by slab from two tiles that cp.async copies one slab ahead, turns
 * into an operand in registers and meets the 256 columns. At d_qk = 384, d_v = 512 that is 1.4 times the necessary work forward and 2.6
 * times backward, and tiles of Q are read again for every tile of keys; it is there so that no width fails. 90 KB of shared memory.
 * Numerics as in flash_forward.cu and flash_backward.cu. Deterministic in both modes. */
#include "flash_tile.cuh"

enum { FLASH_OUT, FLASH_DV, FLASH_DK, FLASH_DQ };
static constexpr int WIDE_ROWS = 128, WIDE_OTHERS = 64, WIDE_SLAB = 64, WIDE_COLUMNS = 256;
struct mf_wide_layout {
    static constexpr int right = mf__tile_bytes(WIDE_ROWS, WIDE_SLAB), buffer = right + mf__tile_bytes(WIDE_OTHERS, WIDE_SLAB),
        y = 2 * buffer,
                         vectors = y + mf__tile_bytes(WIDE_OTHERS, WIDE_COLUMNS), bytes = vectors + 8 * WIDE_OTHERS;
};

template <bool BF16, int ROLE> static __global__ void __launch_bounds__(256, 1) flash_wide_kernel(const mf_flash f, int chunks) {
    using at = mf_wide_layout;
    constexpr bool own_keys = ROLE == FLASH_DV || ROLE == FLASH_DK, two = ROLE == FLASH_DK || ROLE == FLASH_DQ;
    constexpr int threads = 256, lds = mf__tile_stride(WIDE_SLAB), ldy = mf__tile_stride(WIDE_COLUMNS), others = WIDE_OTHERS;
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared);
    const int64_t slots = f.total / WIDE_ROWS + f.sequences;
    const int chunk = (int)(blockIdx.x % chunks);
    const int64_t block = blockIdx.x / chunks;
    const int head = (int)(block / slots);
    const mf_place place = mf__flash_place(f, block % slots, WIDE_ROWS);
    if (place.start >= place.length) return;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int64_t q_stride = f.heads * f.ldq, v_stride = f.heads * f.ldv, row0 = place.first * f.heads + head;
    const uint16_t *q = (const uint16_t *)f.q + row0 * f.ldq, *k = (const uint16_t *)f.k + row0 * f.ldq;
    const uint16_t *v = (const uint16_t *)f.v + row0 * f.ldv, *dout = (const uint16_t *)f.dout + row0 * f.ldv;
    const uint16_t *y = ROLE == FLASH_OUT ? v : ROLE == FLASH_DV ? dout : ROLE == FLASH_DK ? q : k;
    constexpr bool y_is_v = ROLE == FLASH_OUT || ROLE == FLASH_DV;
    const int64_t y_stride = y_is_v ? v_stride : q_stride;
    const int y_left = (int)(y_is_v ? f.ldv : f.ldq) - chunk * WIDE_COLUMNS;
    const int q_slabs = ((int)f.ldq + WIDE_SLAB - 1) / WIDE_SLAB, slabs = q_slabs + (two ? ((int)f.ldv + WIDE_SLAB - 1) / WIDE_SLAB : 0);
    const int tiles = (place.length + others - 1) / others;

    auto fetch = [&](int tile, int n) {       /* a slab of the rows and of the others; which of the two buffers goes round */
        const bool first = n < q_slabs;
        const int column = (first ? n : n - q_slabs) * WIDE_SLAB, left = (int)(first ? f.ldq : f.ldv) - column;
        const int64_t stride = first ? q_stride : v_stride;
        const uint16_t *mine = (first ? (own_keys ? k : q) : (own_keys ? v : dout)) + place.start * stride + column;
        const uint16_t *theirs = (first ? (own_keys ? q : k) : (own_keys ? dout : v)) + (int64_t)tile * others * stride + column;
        const mf_address to = base + ((tile * slabs + n) & 1) * at::buffer;
        mf__tile_copy<WIDE_ROWS, WIDE_SLAB, threads>(to, mine, stride, place.length - place.start, left);
        mf__tile_copy<others, WIDE_SLAB, threads>(to + at::right, theirs, stride, place.length - tile * others, left);
    };
    auto fetch_y = [&](int tile) {
        const int j = tile * others, left = place.length - j, i = threadIdx.x % others, which = threadIdx.x / others;
        mf__tile_copy<others, WIDE_COLUMNS, threads>(base + at::y, y + j * y_stride + chunk * WIDE_COLUMNS, y_stride, left, y_left);
        const int64_t from = row0 + (int64_t)(j + (i < left ? i : 0)) * f.heads;
        const float *vector = own_keys ? (which == 0 ? f.lse : which == 1 && two ? f.delta : nullptr) : which == 0 ? f.key_bias : nullptr;
        if (vector) mf__copy4(base + at::vectors + 4 * threadIdx.x, vector + from, i < left);
    };
    fetch(0, 0);
    mf__copy_commit();

    float result[1][WIDE_COLUMNS / 8][4] = {}, sum[4] = {}, top[2] = {-INFINITY, -INFINITY};   /* sum: weights, or dkey_bias */
    float lse[2], delta[2], bias[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int r = place.start + warp * 16 + h * 8 + g;
        const int64_t row = row0 + (int64_t)r * f.heads;
        const bool inside = r < place.length;
        lse[h] = ROLE == FLASH_DQ && inside ? f.lse[row] : -INFINITY;
        delta[h] = ROLE == FLASH_DQ && inside ? f.delta[row] : 0.0f;
        bias[h] = !own_keys || !f.key_bias ? 0.0f : inside ? f.key_bias[row] * MF_LOG2E : -INFINITY;
    }
    for (int tile = 0; tile < tiles; tile++) {
        float s[1][others / 8][4] = {}, dp[1][others / 8][4] = {};
        for (int n = 0; n < slabs; n++) {
            mf__copy_wait<0>();
            __syncthreads();
            if (n == 0) fetch_y(tile);
            if (n + 1 < slabs) fetch(tile, n + 1);
            else if (tile + 1 < tiles) fetch(tile + 1, 0);
            mf__copy_commit();
            const mf_address here = base + ((tile * slabs + n) & 1) * at::buffer;
            const mf_address a = here + 2 * warp * 16 * lds + mf__lane_a(lds), b = here + at::right + mf__lane_b(lds);
            if (!two || n < q_slabs) mf__product_nt<BF16, 16, others, WIDE_SLAB, lds, lds>(s, a, b);
            else mf__product_nt<BF16, 16, others, WIDE_SLAB, lds, lds>(dp, a, b);
        }
        mf__copy_wait<0>();
        __syncthreads();
        const mf_address vectors = base + at::vectors;
        const int left = place.length - tile * others;
        uint32_t a[others / 16][1][4];
        if constexpr (ROLE == FLASH_OUT) {
            float most[2] = {-INFINITY, -INFINITY};
#pragma unroll
            for (int n = 0; n < others / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int c = n * 8 + 2 * t + (i & 1);
                    if (f.key_bias) s[0][n][i] += mf__read(vectors + 4 * c);
                    if (c >= left) s[0][n][i] = -INFINITY;
                    most[i / 2] = fmaxf(most[i / 2], s[0][n][i]);
                }
            float shrink[2], base2[2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                most[h] = fmaxf(most[h], __shfl_xor_sync(0xffffffffu, most[h], 1));
                most[h] = fmaxf(most[h], __shfl_xor_sync(0xffffffffu, most[h], 2));
                const float now = most[h] > top[h] + 6.0f ? most[h] : top[h];
                shrink[h] = now == top[h] ? 1.0f : mf__exp2((top[h] - now) * MF_LOG2E);
                top[h] = now;
                base2[h] = now == -INFINITY ? 0.0f : now * MF_LOG2E;
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                sum[i] *= shrink[i / 2];
#pragma unroll
                for (int n = 0; n < WIDE_COLUMNS / 8; n++) result[0][n][i] *= shrink[i / 2];
            }
#pragma unroll
            for (int step = 0; step < others / 16; step++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float *pair = &s[0][2 * step + i / 2][i % 2 * 2];
                    const float x = mf__exp2(fmaf(pair[0], MF_LOG2E, -base2[i % 2])), z = mf__exp2(fmaf(pair[1], MF_LOG2E, -base2[i % 2]));
                    a[step][0][i] = mf__pack<BF16>(x, z);
                }
        } else {
#pragma unroll
            for (int step = 0; step < others / 16; step++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int n = 2 * step + i / 2, h = i % 2;
                    float p[2], ds[2] = {};
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        const int c = n * 8 + 2 * t + e;
                        const float key = own_keys ? bias[h] : f.key_bias ? mf__read(vectors + 4 * c) * MF_LOG2E : 0.0f;
                        const mf_backward_row<BF16> row(own_keys ? mf__read(vectors + 4 * c) : lse[h],
                                                        own_keys && two ? mf__read(vectors + 4 * (others + c)) : delta[h], c < left);
                        p[e] = row.p(s[0][n][2 * h + e], key);
                        if (two) ds[e] = row.ds(p[e], dp[0][n][2 * h + e]);
                        if (ROLE == FLASH_DK) sum[2 * h] += ds[e];
                    }
                    a[step][0][i] = two ? mf__pack<BF16>(ds[0], ds[1]) : mf__pack<BF16>(p[0], p[1]);
                }
        }
#pragma unroll
        for (int step = 0; step < others / 16; step++) {
            if (ROLE == FLASH_OUT) mf__mma<BF16>(sum, a[step][0], BF16 ? 0x3f803f80u : 0x3c003c00u, BF16 ? 0x3f803f80u : 0x3c003c00u);
            mf__product_step<BF16, 16, WIDE_COLUMNS / 8>(result, a[step], base + at::y + 2 * step * 16 * ldy + mf__lane_b_t(ldy), true);
        }
    }
    const int width = y_is_v ? f.dv : f.dqk;
    float *const to = ROLE == FLASH_OUT ? f.out : ROLE == FLASH_DV ? f.dv_ : ROLE == FLASH_DK ? f.dk : f.dq;
    const float back = ROLE == FLASH_OUT ? 1.0f : (ROLE == FLASH_DV ? mf_backward_row<BF16>::unit : 1.0f) / *f.scale;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (ROLE == FLASH_DK) {
            sum[2 * h] += __shfl_xor_sync(0xffffffffu, sum[2 * h], 1);
            sum[2 * h] += __shfl_xor_sync(0xffffffffu, sum[2 * h], 2);
        }
        const int r = place.start + warp * 16 + h * 8 + g;
        if (r >= place.length) continue;
        const int64_t row = row0 + (int64_t)r * f.heads;
        const bool empty = ROLE == FLASH_OUT && sum[2 * h] == 0;
        const float factor = ROLE == FLASH_OUT ? 1.0f / sum[2 * h] : back;
        if (ROLE == FLASH_OUT && chunk == 0 && t == 0) f.lse[row] = empty ? -INFINITY : top[h] + logf(sum[2 * h]);
        if (ROLE == FLASH_DK && chunk == 0 && t == 0 && f.dkey_bias) f.dkey_bias[row] = sum[2 * h] * back;
        if (!to) continue;
#pragma unroll
        for (int n = 0; n < WIDE_COLUMNS / 8; n++)
            mf__put2(to + row * width, chunk * WIDE_COLUMNS + n * 8 + 2 * t, width, empty ? 0.0f : result[0][n][2 * h] * factor,
                     empty ? 0.0f : result[0][n][2 * h + 1] * factor);
    }
}

template <bool BF16, int ROLE> static mf_status wide_launch(mf_device *d, const mf_flash *f, int64_t width) {
    const int64_t chunks = width > 0 ? mf__blocks(width, WIDE_COLUMNS) : 1;
    return MF_LAUNCH(d, (flash_wide_kernel<BF16, ROLE>), (unsigned)(mf__flash_slots(f, WIDE_ROWS) * f->heads * chunks), 256,
        mf_wide_layout::bytes, *f,
                     (int)chunks);
}

mf_status mf__flash_wide_forward(mf_device *d, const mf_flash *f) {
    mf__flash_work(d, f, false);
    return f->bf16 ? wide_launch<true, FLASH_OUT>(d, f, f->dv) : wide_launch<false, FLASH_OUT>(d, f, f->dv);
}
mf_status mf__flash_wide_backward(mf_device *d, const mf_flash *f) {
    mf__flash_work(d, f, true);
    if (f->dv_) MF_TRY((f->bf16 ? wide_launch<true, FLASH_DV>(d, f, f->dv) : wide_launch<false, FLASH_DV>(d, f, f->dv)));
    if (f->dk || f->dkey_bias) MF_TRY((f->bf16 ? wide_launch<true, FLASH_DK>(d, f, f->dqk) : wide_launch<false, FLASH_DK>(d, f, f->dqk)));
    if (f->dq) MF_TRY((f->bf16 ? wide_launch<true, FLASH_DQ>(d, f, f->dqk) : wide_launch<false, FLASH_DQ>(d, f, f->dqk)));
    return MF_OK;
}
