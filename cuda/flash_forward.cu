/* flash_forward.cu: fused attention, forward.
 *
 *   S = Q K' + key_bias,  lse = log sum exp S,  out = exp(S - max) V / sum exp(S - max)      per sequence and head
 *
 * Work 2 L^2 (d_qk + d_v) operations a head; a block reads K and V once, 784 bytes a key of the default widths.
 *
 * A block owns QUERIES queries for every team of warps, of one sequence and head, and goes over the keys in tiles of KEYS, which
 * cp.async copies STAGES - 1 tiles ahead. Q is held in registers for KEEP steps of 16 columns, the rest in shared memory.
 *
 *   teams of 1    a warp has 16 queries and all columns of `out` in registers (116 for 232 columns); weights become operands where they are
 *   larger teams  the warps share 32 queries, so that an operand that was read meets twice as many others: each makes S for KEYS / TEAM of
 *                 the keys, they agree on a row's maximum and exchange weights, in 16 bits, through shared memory; each multiplies all
 *                 weights by 1 / TEAM of the columns of V: first its own from registers, then, after a barrier, the others'
 *
 * For a tile of 64 keys of the default widths a warp alone does 200 products for 98 ldmatrix, one of a team of 2 for 60 to 80. Alone wins
 * up to d_qk + d_v = 400 (no barriers), teams of 2 beyond, teams of 4 where there are few blocks. Times: cuda/README.md.
 *
 * Numerics. Operands are 16 bits; S, the maximum, the sum and out are float32. The weights are rounded to 16 bits and the sum
 * is of the rounded ones, taken by the matrix unit itself as one more column of V that holds ones: rows then add up to one, whatever
 * rounding did. The maximum that is subtracted follows the true one only when that is more than 6 ahead (weights up to e^6), so that
 * `out` is hardly ever rescaled; every result is divided by the sum in the end.
 *
 * Deterministic, bit for bit: no atomics; the order of sums depends on the sizes only. */
#include "flash_tile.cuh"

/* Bytes in shared memory: Q, the stages, then what a team exchanges. */
template <int DQK, int DV, int WARPS, int TEAM, int QUERIES, int KEYS, int STAGES> struct mf_forward_layout {
    static constexpr int rows = WARPS / TEAM * QUERIES, own = KEYS / TEAM, ldp = mf__tile_stride(own);
    static constexpr int v = mf__tile_bytes(KEYS, DQK), bias = v + mf__tile_bytes(KEYS, DV), stage = bias + 4 * KEYS;
    static constexpr int stages = mf__tile_bytes(rows, DQK), p = stages + STAGES * stage, weights = TEAM > 1 ? 2 * QUERIES * ldp : 0,
        most = p + WARPS * weights,
                         bytes = most + WARPS * QUERIES * 4;
    static_assert(own % 16 == 0 && QUERIES % 16 == 0 && DQK % 16 == 0 && DV % 8 == 0 && KEYS <= WARPS * 32 && stage % 16 == 0);
};

template <bool BF16, int DQK, int DV, int WARPS, int TEAM, int QUERIES, int KEYS, int STAGES, int KEEP, int BLOCKS>
static __global__ void __launch_bounds__(WARPS * 32, BLOCKS) flash_forward_kernel(const mf_flash f) {
    using at = mf_forward_layout<DQK, DV, WARPS, TEAM, QUERIES, KEYS, STAGES>;
    constexpr int MT = QUERIES / 16, threads = WARPS * 32, ldq = mf__tile_stride(DQK), ldv = mf__tile_stride(DV), own = at::own,
        ldp = at::ldp;
    constexpr int columns = DV / 8, slots_of = (columns + TEAM) / TEAM;           /* 8 columns each, and one that holds ones */
    constexpr int ones_slot = columns % slots_of, ones_member = columns / slots_of;
    constexpr uint32_t ones = BF16 ? 0x3f803f80u : 0x3c003c00u;
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared);
    const int64_t slots = f.total / at::rows + f.sequences;
    const int head = (int)(blockIdx.x / slots);
    const mf_place place = mf__flash_place(f, blockIdx.x % slots, at::rows);
    if (place.start >= place.length) return;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, team = warp / TEAM, member = warp % TEAM;
    const int tiles = (place.length + KEYS - 1) / KEYS, first_row = place.start + team * QUERIES;
    const bool active = first_row < place.length;
    const int64_t q_stride = f.heads * f.ldq, v_stride = f.heads * f.ldv, row0 = place.first * f.heads + head;

    auto fetch = [&](int tile) {
        const mf_address to = base + at::stages + tile % STAGES * at::stage;
        const int j = tile * KEYS, left = place.length - j, i = threadIdx.x;
        mf__tile_copy<KEYS, DQK, threads>(to, (const uint16_t *)f.k + row0 * f.ldq + j * q_stride, q_stride, left, (int)f.ldq);
        mf__tile_copy<KEYS, DV, threads>(to + at::v, (const uint16_t *)f.v + row0 * f.ldv + j * v_stride, v_stride, left, (int)f.ldv);
        if (f.key_bias && i < KEYS) mf__copy4(to + at::bias + 4 * i, f.key_bias + row0 + (int64_t)(j + (i < left ? i : 0)) * f.heads,
            i < left);
    };
    mf__tile_copy<at::rows, DQK, threads>(base, (const uint16_t *)f.q + row0 * f.ldq + place.start * q_stride, q_stride,
        place.length - place.start, (int)f.ldq);
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < tiles) fetch(s);
        mf__copy_commit();
    }
    const mf_address q_mine = base + 2 * team * QUERIES * ldq + mf__lane_a(ldq), most_team = base + at::most + 4 * team * TEAM * QUERIES;
    const mf_address p_lane = base + at::p + mf__lane_a(ldp), p_write = base + at::p + warp * at::weights + 2 * (g * ldp + 2 * t);
    uint32_t q[KEEP > 0 ? KEEP : 1][MT][4];
    float out[MT][slots_of][4] = {}, top[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) top[m][0] = top[m][1] = -INFINITY;

    for (int tile = 0; tile < tiles; tile++) {
        mf__copy_wait<STAGES - 2>();
        __syncthreads();                      /* this tile is here, and nobody reads the one before it any more */
        if (tile + STAGES - 1 < tiles) fetch(tile + STAGES - 1);
        mf__copy_commit();
        if (!active) continue;
        const mf_address here = base + at::stages + tile % STAGES * at::stage;
        if (KEEP > 0 && tile == 0)
#pragma unroll
            for (int k = 0; k < KEEP; k++)
#pragma unroll
                for (int m = 0; m < MT; m++) mf__load4(q[k][m], q_mine + 2 * (m * 16 * ldq + k * 16));

        float s[MT][own / 8][4] = {};
        const mf_address k_mine = here + 2 * member * own * ldq + mf__lane_b(ldq);
#pragma unroll
        for (int k = 0; k < DQK / 16; k++) {
            uint32_t left[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++) {
                if (k < KEEP) memcpy(left[m], q[k < KEEP ? k : 0][m], sizeof left[m]);
                else mf__load4(left[m], q_mine + 2 * (m * 16 * ldq + k * 16));
            }
#pragma unroll
            for (int n = 0; n < own / 16; n++) {
                uint32_t right[4];
                mf__load4(right, k_mine + 2 * (n * 16 * ldq + k * 16));
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    mf__mma<BF16>(s[m][2 * n], left[m], right[0], right[1]);
                    mf__mma<BF16>(s[m][2 * n + 1], left[m], right[2], right[3]);
                }
            }
        }
        if (f.key_bias) {
#pragma unroll
            for (int n = 0; n < own / 8; n++) {
                const float2 b = mf__read2(here + at::bias + 4 * (member * own + n * 8 + 2 * t));
#pragma unroll
                for (int m = 0; m < MT; m++) s[m][n][0] += b.x, s[m][n][1] += b.y, s[m][n][2] += b.x, s[m][n][3] += b.y;
            }
        }
        if ((tile + 1) * KEYS > place.length) {
            const int left = place.length - tile * KEYS - member * own - 2 * t;
#pragma unroll
            for (int n = 0; n < own / 8; n++)
#pragma unroll
                for (int m = 0; m < MT; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        if (n * 8 + (i & 1) >= left) s[m][n][i] = -INFINITY;
        }

        float most[MT][2];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float x = -INFINITY;
#pragma unroll
                for (int n = 0; n < own / 8; n++) x = fmaxf(x, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
                x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
                x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
                most[m][h] = x;
                if (TEAM > 1 && t == 0) mf__write(most_team + 4 * (member * QUERIES + m * 16 + h * 8 + g), x);
            }
        if (TEAM > 1) mf__barrier(1 + team, TEAM * 32);
        float shrink[MT][2];
        bool moved = false;
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
#pragma unroll
                for (int w = 1; w < TEAM; w++)
                    most[m][h] = fmaxf(most[m][h], mf__read(most_team + 4 * ((member ^ w) * QUERIES + m * 16 + h * 8 + g)));
                const float now = most[m][h] > top[m][h] + 6.0f ? most[m][h] : top[m][h];      /* also from -inf */
                shrink[m][h] = now == top[m][h] ? 1.0f : mf__exp2((top[m][h] - now) * MF_LOG2E);
                moved |= now != top[m][h];
                top[m][h] = now;
            }
        if (__any_sync(0xffffffffu, moved)) {
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int n = 0; n < slots_of; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) out[m][n][i] *= shrink[m][i / 2];
        }
        uint32_t p[own / 16][MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float base2 = top[m][h] == -INFINITY ? 0.0f : top[m][h] * MF_LOG2E;       /* all masked so far: exp(-inf - 0) = 0, no NaN */
#pragma unroll
                for (int n = 0; n < own / 8; n++) {
                    const float x = mf__exp2(fmaf(s[m][n][2 * h], MF_LOG2E, -base2)), y = mf__exp2(fmaf(s[m][n][2 * h + 1], MF_LOG2E, -base2));
                    const uint32_t pair = mf__pack<BF16>(x, y);
                    p[n / 2][m][n % 2 * 2 + h] = pair;
                    if (TEAM > 1) mf__store4(p_write + 2 * ((m * 16 + h * 8) * ldp + n * 8), pair);
                }
            }
        auto multiply = [&](const uint32_t (&left)[MT][4], mf_address v_rows) {
#pragma unroll
            for (int n = 0; n < slots_of; n += 2) {
                /* slots past the column of ones, in the last member of a larger team, are not worth a branch of their own */
                uint32_t right[4];
                mf__load4_t(right, v_rows + 16 * n);
#pragma unroll
                for (int e = 0; e < 2 && n + e < slots_of; e++) {
                    const bool is_ones = n + e == ones_slot && member == ones_member;
                    const uint32_t b0 = is_ones ? ones : right[2 * e], b1 = is_ones ? ones : right[2 * e + 1];
#pragma unroll
                    for (int m = 0; m < MT; m++) mf__mma<BF16>(out[m][n + e], left[m], b0, b1);
                }
            }
        };
        const mf_address v_mine = here + at::v + 16 * member * slots_of + mf__lane_b_t(ldv);
#pragma unroll
        for (int k = 0; k < own / 16; k++) multiply(p[k], v_mine + 2 * (member * own + k * 16) * ldv);
        if (TEAM > 1) mf__barrier(1 + team, TEAM * 32);
#pragma unroll
        for (int w = 1; w < TEAM; w++) {
            const int other = member ^ w;
#pragma unroll
            for (int k = 0; k < own / 16; k++) {
                uint32_t left[MT][4];
#pragma unroll
                for (int m = 0; m < MT; m++) mf__load4(left[m], p_lane + (team * TEAM + other) * at::weights + 2 * (m * 16 * ldp + k * 16));
                multiply(left, v_mine + 2 * (other * own + k * 16) * ldv);
            }
        }
    }
    if (!active) return;
    __syncwarp();
    if (TEAM > 1) mf__barrier(1 + team, TEAM * 32);                 /* everybody has read the maxima: now sums lie there */
    if (member == ones_member && t == 0)
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) mf__write(most_team + 4 * (m * 16 + h * 8 + g), out[m][ones_slot][2 * h]);
    __syncwarp();
    if (TEAM > 1) mf__barrier(1 + team, TEAM * 32);
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = m * 16 + h * 8 + g;
            if (first_row + row >= place.length) continue;
            const int64_t to = row0 + (int64_t)(first_row + row) * f.heads;
            const float sum = mf__read(most_team + 4 * row), scale = 1.0f / sum;
            if (member == 0 && t == 0) f.lse[to] = sum == 0 ? -INFINITY : top[m][h] + logf(sum);
#pragma unroll
            for (int n = 0; n < slots_of; n++)                  /* no key: zeros, also where a masked value was infinite */
                mf__put2(f.out + to * f.dv, (member * slots_of + n) * 8 + 2 * t, f.dv, sum == 0 ? 0.0f : out[m][n][2 * h] * scale,
                         sum == 0 ? 0.0f : out[m][n][2 * h + 1] * scale);
        }
}

template <bool BF16, int DQK, int DV, int WARPS, int TEAM, int QUERIES, int KEYS, int STAGES, int KEEP, int BLOCKS>
static mf_status forward_launch(mf_device *d, const mf_flash *f) {
    using at = mf_forward_layout<DQK, DV, WARPS, TEAM, QUERIES, KEYS, STAGES>;
    mf__flash_work(d, f, false);
    return MF_LAUNCH(d, (flash_forward_kernel<BF16, DQK, DV, WARPS, TEAM, QUERIES, KEYS, STAGES, KEEP, BLOCKS>),
                     (unsigned)(mf__flash_slots(f, at::rows) * f->heads), WARPS * 32, at::bytes, *f);
}

/* The tiles of one pair of widths; times for them are in cuda/README.md. */
template <bool BF16, int DQK, int DV> static bool forward_pair(mf_device *d, const mf_flash *f, mf_status *status) {
    constexpr int steps = DQK / 16, some = steps < 4 ? steps : 4, wide = DQK + DV;
    constexpr int warps = wide <= 256 ? 4 : 8, team = wide <= 400 ? 1 : 2, queries = 16 * team, keys = wide <= 128 ? 128 : 64;
    constexpr int keep = wide <= 400 ? steps : DQK + DV <= 480 ? 3 : 0, blocks = wide <= 256 ? 2 : 1;
    constexpr int large = mf_forward_layout<DQK, DV, warps, team, queries, keys, 2>::bytes, few = mf_forward_layout<DQK, DV, 4, 4, 32,
        64, 2>::bytes,
                  small = mf_forward_layout<DQK, DV, 2, 2, 32, 32, 2>::bytes;
    const mf_cuda *c = mf__cuda(d);
    const bool fills = f->total / 32 * f->heads > c->multiprocessors;         /* blocks of 32 queries would come in two waves */
    if (large <= c->shared_limit && fills) *status = forward_launch<BF16, DQK, DV, warps, team, queries, keys, 2, keep, blocks>(d, f);
    else if (few <= c->shared_limit) *status = forward_launch<BF16, DQK, DV, 4, 4, 32, 64, 2, some, 1>(d, f);
    else if (small <= c->shared_limit) *status = forward_launch<BF16, DQK, DV, 2, 2, 32, 32, 2, some, 1>(d, f);
    else return false;
    return true;
}

bool mf__flash_listed_forward([[maybe_unused]] mf_device *d, [[maybe_unused]] const mf_flash *f, [[maybe_unused]] mf_status *status) {
#define MF_PAIR(dqk_, dv_) \
    if (f->dqk <= dqk_ && f->dv <= dv_) \
        return f->bf16 ? forward_pair<true, dqk_, dv_>(d, f, status) : forward_pair<false, dqk_, dv_>(d, f, status);
    MF_FLASH_DIMS(MF_PAIR)
#undef MF_PAIR
    return false;
}
