/* flash_forward.cu: fused attention, forward.
 *
 *   S = Q K' + key_bias,  lse = log sum exp S,  out = exp(S - max) V / sum exp(S - max)      per sequence and head
 *
 * A block owns 16 WARPS queries of one sequence and head, a warp 16 of them with all columns of out in registers, and goes over the
 * keys in tiles of KEYS, copied STAGES - 1 tiles ahead by cp.async. The weights go from the accumulators of S into operands of the
 * second product without leaving the registers.
 *
 * Numerics. Operands are 16 bits; S, the maximum, the sum and out are float32. The weights are rounded to 16 bits and the sum
 * is of the rounded ones, taken by the matrix unit itself as one more column of V that holds ones: rows then add up to one, whatever
 * rounding did. The maximum that is subtracted follows the true one only when that is more than 6 ahead (weights up to e^6), so that
 * `out` is hardly ever rescaled; every result is divided by the sum in the end.
 *
 * Deterministic, bit for bit: no atomics; the order of sums depends on the sizes only. */
#include "flash_tile.cuh"

template <int DQK, int DV, int KEYS> struct mf_forward_stage {
    static constexpr int v = mf__tile_bytes(KEYS, DQK), bias = v + mf__tile_bytes(KEYS, DV), bytes = (bias + 4 * KEYS + 15) / 16 * 16;
};
template <int DQK, int DV, int WARPS, int KEYS, int STAGES, bool QREG> static constexpr int forward_shared() {
    return STAGES * mf_forward_stage<DQK, DV, KEYS>::bytes + (QREG ? 0 : mf__tile_bytes(16 * WARPS, DQK));
}

template <bool BF16, int DQK, int DV, int WARPS, int KEYS, int STAGES, bool QREG, bool STAGGER, int BLOCKS>
static __global__ void __launch_bounds__(WARPS * 32, BLOCKS) flash_forward_kernel(const mf_flash f) {
    constexpr int ahead = STAGGER ? STAGES - 2 : STAGES - 1;      /* tiles that are fetched before they are used */
    constexpr int threads = WARPS * 32, rows = WARPS * 16, ldq = mf__tile_stride(DQK), ldv = mf__tile_stride(DV);
    using stage = mf_forward_stage<DQK, DV, KEYS>;
    static_assert(!QREG || (STAGES - 1) * stage::bytes >= mf__tile_bytes(rows, DQK), "the queries pass through the later stages");
    static_assert((!QREG || DQK % 16 == 0) && KEYS <= threads);
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared), q_tile = base + (QREG ? stage::bytes : STAGES * stage::bytes);
    const int64_t slots = f.total / rows + f.sequences;
    const int head = (int)(blockIdx.x / slots);
    const mf_place place = mf__flash_place(f, blockIdx.x % slots, rows);
    if (place.start >= place.length) return;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int tiles = (place.length + KEYS - 1) / KEYS;
    const bool active = place.start + warp * 16 < place.length;
    const int64_t q_stride = f.heads * f.ldq, v_stride = f.heads * f.ldv;
    const uint16_t *k_rows = (const uint16_t *)f.k + (place.first * f.heads + head) * f.ldq;
    const uint16_t *v_rows = (const uint16_t *)f.v + (place.first * f.heads + head) * f.ldv;
    const float *bias = f.key_bias ? f.key_bias + place.first * f.heads + head : nullptr;

    auto fetch = [&](int tile) {
        const mf_address to = base + tile % STAGES * stage::bytes;
        const int j = tile * KEYS, left = place.length - j;
        mf__tile_copy<KEYS, DQK, threads>(to, k_rows + j * q_stride, q_stride, left, (int)f.ldq);
        mf__tile_copy<KEYS, DV, threads>(to + stage::v, v_rows + j * v_stride, v_stride, left, (int)f.ldv);
        const int i = threadIdx.x;
        if (bias && i < KEYS) mf__copy4(to + stage::bias + 4 * i, bias + (int64_t)(j + (i < left ? i : 0)) * f.heads, i < left);
    };
    mf__tile_copy<rows, DQK, threads>(q_tile, (const uint16_t *)f.q + ((place.first + place.start) * f.heads + head) * f.ldq, q_stride,
                                      place.length - place.start, (int)f.ldq);
    fetch(0);
    mf__copy_commit();
    const mf_address q_mine = q_tile + 2 * warp * 16 * ldq + mf__lane_a(ldq);
    uint32_t q[QREG ? DQK / 16 : 1][4];
    if constexpr (QREG) {
        mf__copy_wait<0>();
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DQK / 16; k++) mf__load4(q[k], q_mine + 32 * k);
        __syncthreads();
    }
#pragma unroll
    for (int s = 1; s < ahead; s++) {
        if (s < tiles) fetch(s);
        mf__copy_commit();
    }

    float out[1][DV / 8][4] = {}, sum[4] = {}, top[2] = {-INFINITY, -INFINITY};
    constexpr uint32_t ones = BF16 ? 0x3f803f80u : 0x3c003c00u;
    /* Half of the warps multiply the weights by V one tile later, so that on every quarter of the multiprocessor one warp's exponentials
     * meet another's products. */
    const bool late = STAGGER && warp >= WARPS / 2;
    uint32_t p[KEYS / 16][1][4];
    auto multiply = [&](int tile) {
        const mf_address v_mine = base + tile % STAGES * stage::bytes + stage::v + mf__lane_b_t(ldv);
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            mf__mma<BF16>(sum, p[k][0], ones, ones);
            mf__product_step<BF16, 16, DV / 8>(out, p[k], v_mine + 2 * k * 16 * ldv, true);
        }
    };
    for (int tile = 0; tile < tiles; tile++) {
        mf__copy_wait<ahead - 1>();
        __syncthreads();                      /* this tile is here, and nobody reads the one before it (STAGGER: before that) any more */
        if (tile + ahead < tiles) fetch(tile + ahead);
        mf__copy_commit();
        if (!active) continue;
        if (late && tile > 0) multiply(tile - 1);
        const mf_address here = base + tile % STAGES * stage::bytes;

        float s[1][KEYS / 8][4] = {};
        const mf_address k_mine = here + mf__lane_b(ldq);
        if constexpr (QREG) {
#pragma unroll
            for (int k = 0; k < DQK / 16; k++)
#pragma unroll
                for (int n = 0; n < KEYS / 16; n++) {
                    uint32_t right[4];
                    mf__load4(right, k_mine + 2 * (n * 16 * ldq + k * 16));
                    mf__mma<BF16>(s[0][2 * n], q[k], right[0], right[1]);
                    mf__mma<BF16>(s[0][2 * n + 1], q[k], right[2], right[3]);
                }
        } else {
            mf__product_nt<BF16, 16, KEYS, DQK, ldq, ldq>(s, q_mine, k_mine);
        }

        if (bias) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
                const float2 b = mf__read2(here + stage::bias + 4 * (n * 8 + 2 * t));
                s[0][n][0] += b.x, s[0][n][1] += b.y, s[0][n][2] += b.x, s[0][n][3] += b.y;
            }
        }
        if ((tile + 1) * KEYS > place.length) {
            const int left = place.length - tile * KEYS - 2 * t;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (n * 8 + (i & 1) >= left) s[0][n][i] = -INFINITY;
        }
        float most[2] = {-INFINITY, -INFINITY}, base2[2], shrink[2];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) most[i / 2] = fmaxf(most[i / 2], s[0][n][i]);
        bool moved = false;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            most[i] = fmaxf(most[i], __shfl_xor_sync(0xffffffffu, most[i], 1));
            most[i] = fmaxf(most[i], __shfl_xor_sync(0xffffffffu, most[i], 2));
            const float now = most[i] > top[i] + 6.0f ? most[i] : top[i];          /* also from -inf */
            shrink[i] = now == top[i] ? 1.0f : mf__exp2((top[i] - now) * MF_LOG2E);
            moved |= now != top[i];
            top[i] = now;
            base2[i] = now == -INFINITY ? 0.0f : now * MF_LOG2E;                   /* all masked so far: exp(-inf - 0) = 0, no NaN */
        }
        if (__any_sync(0xffffffffu, moved)) {
#pragma unroll
            for (int n = 0; n < DV / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) out[0][n][i] *= shrink[i / 2];
#pragma unroll
            for (int i = 0; i < 4; i++) sum[i] *= shrink[i / 2];
        }
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float *pair = &s[0][2 * k + i / 2][i % 2 * 2];
                p[k][0][i] = mf__pack<BF16>(mf__exp2(fmaf(pair[0], MF_LOG2E, -base2[i % 2])), mf__exp2(fmaf(pair[1], MF_LOG2E, -base2[i % 2])));
            }
        if (!late) multiply(tile);
    }
    if (!active) return;
    if (late) multiply(tiles - 1);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = place.start + warp * 16 + g + 8 * i;
        if (row >= place.length) continue;
        const int64_t at = (place.first + row) * f.heads + head;
        const float total = sum[2 * i], scale = 1.0f / total;
        if (t == 0) f.lse[at] = total == 0 ? -INFINITY : top[i] + logf(total);
#pragma unroll
        for (int n = 0; n < DV / 8; n++)                        /* no key: zeros, also where a masked value was infinite */
            mf__put2(f.out + at * f.dv, n * 8 + 2 * t, f.dv, total == 0 ? 0.0f : out[0][n][2 * i] * scale, total == 0 ? 0.0f : out[0][n][2 * i + 1] * scale);
    }
}

template <bool BF16, int DQK, int DV, int WARPS, int KEYS, int STAGES, bool QREG, bool STAGGER, int BLOCKS>
static mf_status forward_launch(mf_device *d, const mf_flash *f) {
    constexpr int shared = forward_shared<DQK, DV, WARPS, KEYS, STAGES, QREG>();
    mf__flash_work(d, f, false);
    return MF_LAUNCH(d, (flash_forward_kernel<BF16, DQK, DV, WARPS, KEYS, STAGES, QREG, STAGGER, BLOCKS>),
                     (unsigned)(mf__flash_slots(f, 16 * WARPS) * f->heads), WARPS * 32, shared, *f);
}

/* Tiles of one pair of widths: 128 queries where they fill the device and fit, else 32. */
template <bool BF16, int DQK, int DV> static bool forward_pair(mf_device *d, const mf_flash *f, mf_status *status) {
    constexpr bool keep = DQK + DV <= 400;    /* queries in registers, beside `out` */
    constexpr int large = forward_shared<DQK, DV, 8, 64, 2, keep>(), small = forward_shared<DQK, DV, 2, 32, 2, keep>();
    const mf_cuda *c = mf__cuda(d);
    const bool many = mf__flash_slots(f, 128) * f->heads > c->multiprocessors;
    if (large <= c->shared_limit && many) *status = forward_launch<BF16, DQK, DV, 8, 64, 2, keep, false, 1>(d, f);
    else if (small <= c->shared_limit) *status = forward_launch<BF16, DQK, DV, 2, 32, 2, keep, false, 1>(d, f);
    else return false;
    return true;
}

bool mf__flash_listed_forward([[maybe_unused]] mf_device *d, [[maybe_unused]] const mf_flash *f, [[maybe_unused]] mf_status *status) {
#define MF_PAIR(dqk_, dv_) \
    if (f->dqk <= dqk_ && f->dv <= dv_) return f->bf16 ? forward_pair<true, dqk_, dv_>(d, f, status) : forward_pair<false, dqk_, dv_>(d, f, status);
    MF_FLASH_DIMS(MF_PAIR)
#undef MF_PAIR
    return false;
}
