/* hopper_forward.cu: fused attention, forward, for sm_90a.
 *
 *   S = Q K' + key_bias,  lse = log sum exp S,  out = exp(S - max) V / sum exp(S - max)      per sequence and head
 *
 * Work 2 L^2 (d_qk + d_v) operations a head. A tile of 128 queries goes over the keys and reads K and V once, 784 bytes a key of the
 * default widths, out of L2: 128 operations a byte.
 *
 * A block stays on its multiprocessor and takes every gridDim.x-th slot of (sequence, head, tile of queries), in three or four warpgroups:
 *
 *   the last   one warp copies: Q of a slot, K and V of KEYS keys two stages ahead (tensor copies), key bias (cp.async); 24 registers
 *   the others 64 queries each and all columns of `out`; 240 registers (160 where three)
 *
 *   wait K(j + 1)   S = Q K(j + 1)' begins, then out += P(j) V(j)          behind the warps' back, in this order
 *   wait S          maximum and exponentials of S while out is still added to
 *   wait out        out rescaled (hardly ever), P(j + 1) = S rounded, in the registers where the next product takes it from
 *
 * so that a warpgroup leaves the matrix unit idle only while it rounds, and then the other one's products are there. Accumulators of S
 * begin as the key bias. Registers of the default widths, 96 keys: out 116, S 48, P 24. Shared memory: Q 40 KB, K 2 x 30, V 2 x 48.
 *
 * The last tile of keys may reach into the next sequence. Its scores there become -inf, and of V the rows that the last 16 keys
 * reach beyond the end become zeros, for 0 NaN is not 0; each warpgroup zeros them itself before it reads them.
 *
 * Numerics: flash_forward.cu's. The sum of the rounded weights is column d_v of the second product: V has ones there.
 *
 * Deterministic, bit for bit: no atomics; the order of sums depends on the lengths only. */
#include "hopper_tile.cuh"

struct forward_maps {
    mf_maps q, k;
    mf_map v;
};
struct forward_slot {
    int length, start;            /* residues of the sequence, negative: there are no more slots; the tile's first */
    int head, first;              /* first row of the sequence */
};

/* Bytes in shared memory, from a multiple of 1024 on. NV: columns of V that are multiplied, the ones among them. */
template <int DQK, int NV, int GROUPS, int KEYS, int STAGES> struct hopper_forward_layout {
    static constexpr int rows = 64 * GROUPS, threads = 128 * GROUPS + 128, panels = (NV + 63) / 64;
    static constexpr int round(int bytes) { return (bytes + 1023) / 1024 * 1024; }
    static constexpr int q_bytes = mf_panels<DQK>::bytes(rows), k_bytes = mf_panels<DQK>::bytes(KEYS);
    static constexpr int k_stage = round(k_bytes), v_stage = KEYS * panels * 128;
    static constexpr int k = round(q_bytes), v = k + STAGES * k_stage, bias = v + STAGES * v_stage;
    static constexpr int bytes = bias + STAGES * KEYS * 4 + 1023;
    static_assert(KEYS % 16 == 0 && NV % 8 == 0 && bytes <= (227 << 10) - 256);
};

/* Slots go by sequence, head, tile: what runs at the same time shares K and V, and rows of the arrays. even: tiles of each sequence, all
 * of one length, or 0. All lanes of a warp call it together; start >= length: nothing to do. */
[[maybe_unused]] static __device__ inline forward_slot forward_place(const mf_flash &f, int64_t slot, int rows, int even) {
    if (even) {
        const int64_t pair = slot / even;
        return {(int)f.longest, (int)(slot % even) * rows, (int)(pair % f.heads), (int)(pair / f.heads * f.longest)};
    }
    const mf_place place = mf__flash_place(f, slot / f.heads, rows);
    const int64_t before = place.first / rows + place.sequence;
    const int local = (int)(slot - before * f.heads), tiles = (int)((place.first + place.length) / rows + place.sequence + 1 - before);
    return {place.length, local % tiles * rows, local / tiles, (int)place.first};
}

/* c += p v on 64 x NV, 16 keys from 16 k on. */
template <bool BF16, int NV, int KEYS>
static __device__ __forceinline__ void forward_step(float (&out)[NV / 2], const uint32_t (&p)[4], mf_address v, int k) {
    constexpr int first = NV <= 256 ? NV : 128;
    mf__tile_step<BF16, first, KEYS>(reinterpret_cast<float (&)[first / 2]>(out), p, v, k);
    if constexpr (NV > 256)
        mf__tile_step<BF16, NV - first, KEYS>(reinterpret_cast<float (&)[(NV - first) / 2]>(out[first / 2]), p, v + first / 64 * KEYS * 128, k);
}

template <bool BF16, int DQK, int NV, int GROUPS, int KEYS, int STAGES>
static __global__ void __launch_bounds__(128 * GROUPS + 128, 1)
hopper_forward_kernel(const mf_flash f, const __grid_constant__ forward_maps maps, const int even, const int64_t slots_all) {
#if MF_HAS_WGMMA
    using at = hopper_forward_layout<DQK, NV, GROUPS, KEYS, STAGES>;
    MF_SHARED(unsigned char, shared);
    __shared__ forward_slot slots[2];
    __shared__ __align__(8) uint64_t bars[2 + 4 * STAGES];
    const mf_address base = mf__address(shared + (1024 - (uintptr_t)shared % 1024) % 1024), bar = mf__address(bars);
    const mf_address q_full = bar, q_empty = bar + 8, k_full = bar + 16, k_empty = k_full + 8 * STAGES, v_full = k_empty + 8 * STAGES;
    const mf_address v_empty = v_full + 8 * STAGES;
    const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0), warp = __shfl_sync(0xffffffffu, (int)threadIdx.x / 32 % 4, 0);
    const int lane = threadIdx.x & 31;
    const bool biased = f.key_bias != nullptr;
    if (threadIdx.x == 0) {
        mf__bar_init(q_full, 1);
        mf__bar_init(q_empty, 4 * GROUPS);
        for (int s = 0; s < STAGES; s++) {
            mf__bar_init(k_full + 8 * s, biased ? 33 : 1);
            mf__bar_init(k_empty + 8 * s, 4 * GROUPS);
            mf__bar_init(v_full + 8 * s, 1);
            mf__bar_init(v_empty + 8 * s, 4 * GROUPS);
        }
        mf__bar_init_seen();
    }
    __syncthreads();

    if (group == GROUPS) {
        mf__registers_less<(GROUPS == 2 ? 24 : 32)>();
        if (warp == 0) {
            if (lane == 0) {
                mf__map_prefetch(&maps.q.whole);
                mf__map_prefetch(&maps.k.whole);
                mf__map_prefetch(&maps.v);
            }
            int count = 0;
            unsigned n = 0;
            for (int64_t round = 0; round * gridDim.x < slots_all; round++) {
                const int64_t slot = round * gridDim.x + (blockIdx.x + round) % gridDim.x;       /* turned: empty slots come at intervals */
                if (slot >= slots_all) continue;
                const forward_slot here = forward_place(f, slot, at::rows, even);
                const int head = here.head;
                if (here.start >= here.length) continue;
                for (int j = 0; j < here.length; j += KEYS, n++) {
                    const int s = n % STAGES, ended = (n / STAGES % 2) ^ 1;
                    const mf_address to = base + at::k + s * at::k_stage;
                    mf__bar_await(k_empty + 8 * s, ended);
                    __syncwarp();                     /* all have seen it before one goes on: the phase could end once more */
                    if (lane == 0) {
                        mf__bar_expect(k_full + 8 * s, at::k_bytes);
                        mf__tile_fetch<DQK, KEYS>(to, &maps.k, k_full + 8 * s, head, here.first + j);
                    }
                    if (biased) {
#pragma unroll
                        for (int i = lane; i < KEYS; i += 32) {
                            const int from = here.first + (j + i < here.length ? j + i : 0);
                            mf__copy4(base + at::bias + 4 * (s * KEYS + i), f.key_bias + (int64_t)from * f.heads + head, true);
                        }
                        mf__bar_copied(k_full + 8 * s);
                    }
                    if (j == 0) {
                        mf__bar_await(q_empty, (count & 1) ^ 1);
                        __syncwarp();
                        if (lane == 0) {
                            slots[count & 1] = here;
                            mf__bar_expect(q_full, at::q_bytes);
                            mf__tile_fetch<DQK, at::rows>(base, &maps.q, q_full, head, here.first + here.start);
                        }
                        count++;
                    }
                    mf__bar_await(v_empty + 8 * s, ended);
                    __syncwarp();
                    if (lane == 0) {
                        mf__bar_expect(v_full + 8 * s, at::v_stage);
#pragma unroll
                        for (int p = 0; p < at::panels; p++)
                            mf__map_copy(base + at::v + s * at::v_stage + p * KEYS * 128, &maps.v, v_full + 8 * s, 64 * p, head, here.first + j);
                    }
                    __syncwarp();
                }
            }
            mf__bar_await(q_empty, (count & 1) ^ 1);
            __syncwarp();
            if (lane == 0) {
                slots[count & 1].length = -1;
                mf__bar_arrive(q_full);
            }
        }
    } else {
        mf__registers_more<(GROUPS == 2 ? 240 : 160)>();
        const int g = lane >> 2, t = lane & 3;
        unsigned n = 0;
        for (int count = 0;; count++) {
            mf__bar_await(q_full, count & 1);
            const forward_slot here = slots[count & 1];
            if (here.length < 0) break;
            const int tiles = (here.length + KEYS - 1) / KEYS, last = here.length - (tiles - 1) * KEYS;
            float s[KEYS / 2], out[NV / 2], top[2] = {-INFINITY, -INFINITY}, shrink[2];
            uint32_t p[KEYS / 16][4];
#pragma unroll
            for (int i = 0; i < NV / 2; i++) out[i] = 0;

            /* Scores of this warpgroup's queries with the keys of a stage begin to be made. */
            auto score = [&](int stage) {
                const mf_address bias = base + at::bias + 4 * (stage * KEYS + 2 * t);
                if (biased) {
#pragma unroll
                    for (int j = 0; j < KEYS / 8; j++) {
                        const float2 b = mf__read2(bias + 32 * j);
                        s[4 * j] = s[4 * j + 2] = b.x, s[4 * j + 1] = s[4 * j + 3] = b.y;
                    }
                }
                mf__keep(s);
                mf__wgmma_fence();
                mf__tiles_nt<BF16, KEYS, DQK, at::rows, KEYS>(s, base, 64 * group, base + at::k + stage * at::k_stage, 0, biased);
                mf__wgmma_commit();
            };
            /* The scores become exp(score - top), in float32. */
            auto soften = [&](int valid) {
                if (valid < KEYS) {
#pragma unroll
                    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            if (8 * j + 2 * t + (i & 1) >= valid) s[4 * j + i] = -INFINITY;
                }
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float most = fmaxf(s[2 * h], s[2 * h + 1]);
#pragma unroll
                    for (int j = 1; j < KEYS / 8; j++) most = fmaxf(most, fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
                    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
                    const float now = most > top[h] + 6.0f ? most : top[h];          /* also from -inf */
                    shrink[h] = now == top[h] ? 1.0f : mf__exp2((top[h] - now) * MF_LOG2E);
                    top[h] = now;
                    const float base2 = now == -INFINITY ? 0.0f : now * MF_LOG2E;    /* all masked so far: exp(-inf - 0) = 0, no NaN */
#pragma unroll
                    for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                        for (int e = 0; e < 2; e++) s[4 * j + 2 * h + e] = mf__exp2(fmaf(s[4 * j + 2 * h + e], MF_LOG2E, -base2));
                }
            };
            auto rescale = [&] {
                if (!__any_sync(0xffffffffu, shrink[0] != 1.0f || shrink[1] != 1.0f)) return;
#pragma unroll
                for (int j = 0; j < NV / 8; j++)
#pragma unroll
                    for (int i = 0; i < 4; i++) out[4 * j + i] *= shrink[i / 2];
            };
            auto round = [&] {
#pragma unroll
                for (int k = 0; k < KEYS / 16; k++)
#pragma unroll
                    for (int i = 0; i < 4; i++) p[k][i] = mf__pack<BF16>(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
            };
            auto multiply = [&](int stage, int valid) {
#pragma unroll
                for (int k = 0; k < KEYS / 16; k++)
                    if (16 * k < valid) forward_step<BF16, NV, KEYS>(out, p[k], base + at::v + stage * at::v_stage, k);
                mf__wgmma_commit();
            };

            mf__bar_await(k_full + n % STAGES * 8, n / STAGES % 2);
            score(n % STAGES);
            mf__wgmma_wait<0>();
            mf__keep(s);
            soften(tiles == 1 ? last : KEYS);
            mf__bar_release(k_empty + n % STAGES * 8);
            mf__bar_await(v_full + n % STAGES * 8, n / STAGES % 2);
            round();
            for (int tile = 1; tile < tiles; tile++, n++) {
                const int now = (int)(n % STAGES), next = (int)((n + 1) % STAGES);
                mf__bar_await(k_full + next * 8, (n + 1) / STAGES % 2);
                mf__keep(out);
                score(next);
                multiply(now, KEYS);
                mf__wgmma_wait<1>();
                mf__keep(s);
                soften(tile == tiles - 1 ? last : KEYS);
                mf__bar_release(k_empty + next * 8);
                mf__keep(s);
                mf__bar_await(v_full + next * 8, (n + 1) / STAGES % 2);      /* also keeps the compiler from waiting before the exponentials */
                mf__wgmma_wait<0>();
                mf__keep(out);
                mf__bar_release(v_empty + now * 8);
                rescale();
                round();
            }
            mf__bar_release(q_empty);
            if (last < KEYS) {                        /* rows of the next sequence: weights are zero, but 0 NaN is not */
                mf__tile_clear<64 * at::panels, KEYS>(base + at::v + n % STAGES * at::v_stage, last, (int)threadIdx.x % 128, 128,
                    (last + 15) / 16 * 16);
                mf__proxy_fence();
                mf__barrier(1 + group, 128);
            }
            mf__keep(out);
            mf__wgmma_fence();
            multiply(n % STAGES, last);
            mf__wgmma_wait<0>();
            mf__keep(out);
            mf__bar_release(v_empty + n % STAGES * 8);
            n++;

            float sum[2] = {};
#pragma unroll
            for (int j = 0; j < NV / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (8 * j + 2 * t + (i & 1) == f.dv) sum[i / 2] = out[4 * j + i];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int row = here.start + 64 * group + 16 * warp + 8 * h + g;
                const bool valid = row < here.length;
                const int64_t to = (int64_t)(here.first + row) * f.heads + here.head;
                const float total = __shfl_sync(0xffffffffu, sum[h], (lane & ~3) | f.dv % 8 / 2), scale = total == 0 ? 0.0f : 1.0f / total;
                if (valid && t == 0) f.lse[to] = total == 0 ? -INFINITY : top[h] + logf(total);
                if (total == 0) {                 /* no key: zeros, also where a masked value was infinite */
#pragma unroll
                    for (int j = 0; j < NV / 8; j++) out[4 * j + 2 * h] = out[4 * j + 2 * h + 1] = 0;
                }
                if (f.dv % 4 == 0) {              /* neighbours exchange pairs: even lanes have 4 columns of j, odd ones of j + 1 */
                    const int column = 8 * (t & 1) + 4 * (t >> 1);
                    float *out_row = f.out + to * f.dv + column;
#pragma unroll
                    for (int j = 0; j < NV / 8; j += 2) {
                        const int next = j + 1 < NV / 8 ? j + 1 : j;
                        const float a = out[4 * j + 2 * h] * scale, b = out[4 * j + 2 * h + 1] * scale;
                        const float c = out[4 * next + 2 * h] * scale, e = out[4 * next + 2 * h + 1] * scale;
                        const float x = __shfl_xor_sync(0xffffffffu, t & 1 ? a : c, 1), y = __shfl_xor_sync(0xffffffffu, t & 1 ? b : e, 1);
                        if (valid && 8 * j + column < f.dv) *(float4 *)(out_row + 8 * j) = t & 1 ? make_float4(x, y, c, e) : make_float4(a, b, x, y);
                    }
                } else {
                    float *out_row = f.out + to * f.dv + 2 * t;
                    const int left = valid ? f.dv - 2 * t : 0;
#pragma unroll
                    for (int j = 0; j < NV / 8; j++)
#pragma unroll
                        for (int e = 0; e < 2; e++)
                            if (8 * j + e < left) out_row[8 * j + e] = out[4 * j + 2 * h + e] * scale;
                }
            }
        }
    }
#else
    __trap();
#endif
}

template <bool BF16, int DQK, int NV, int GROUPS, int KEYS, int STAGES>
static mf_status hopper_forward_launch(mf_device *d, const mf_flash *f) {
    using at = hopper_forward_layout<DQK, NV, GROUPS, KEYS, STAGES>;
    forward_maps maps = {};
    MF_TRY(mf__maps_make<DQK>(&maps.q, f->q, f->heads, f->total, f->ldq, at::rows));
    MF_TRY(mf__maps_make<DQK>(&maps.k, f->k, f->heads, f->total, f->ldq, KEYS));
    MF_TRY(mf__map_make(&maps.v, f->v, f->ldv < NV ? f->ldv : NV, f->heads, f->total, f->ldv, 64, KEYS));
    const bool same = f->total == f->sequences * f->longest;
    const int64_t even = same ? mf__blocks(f->longest, at::rows) : 0;
    const int64_t slots = (same ? f->sequences * even : mf__flash_slots(f, at::rows)) * f->heads;
    const int64_t most = mf__cuda(d)->multiprocessors;
    mf__flash_work(d, f, false);
    return MF_LAUNCH(d, (hopper_forward_kernel<BF16, DQK, NV, GROUPS, KEYS, STAGES>), (unsigned)(slots < most ? slots : most), at::threads,
        at::bytes, *f, maps, (int)even, slots);
}

/* Columns of Q and K, columns of V with the one of ones, warpgroups of queries, keys a tile, keys a tile of short sequences of different
 * lengths, or of one length that it fits better; smaller first: a problem takes the first row that covers it. Times: cuda/README.md. */
#ifndef MF_HOPPER_FORWARD
#define MF_HOPPER_FORWARD(X) \
    X(64, 72, 3, 128, 128) X(96, 104, 2, 128, 128) X(96, 136, 2, 128, 128) X(128, 136, 2, 128, 128) X(128, 168, 2, 128, 128) \
    X(128, 200, 2, 128, 128) X(160, 168, 2, 128, 128) X(160, 200, 2, 96, 96) X(160, 232, 2, 96, 112) X(192, 200, 2, 96, 96) \
    X(192, 264, 2, 80, 80) X(208, 272, 2, 80, 80) X(256, 264, 2, 64, 64)
#endif

template <bool BF16, int DQK, int NV, int GROUPS, int KEYS, int SHORT> static mf_status forward_row(mf_device *d, const mf_flash *f) {
    const bool mixed = f->total != f->sequences * f->longest;
    const bool fits = mf__blocks(f->longest, SHORT) * SHORT < mf__blocks(f->longest, KEYS) * KEYS;
    return f->longest <= 1024 && (mixed || fits) ? hopper_forward_launch<BF16, DQK, NV, GROUPS, SHORT, 2>(d, f)
                                                 : hopper_forward_launch<BF16, DQK, NV, GROUPS, KEYS, 2>(d, f);
}

bool mf__hopper_forward([[maybe_unused]] mf_device *d, [[maybe_unused]] const mf_flash *f, [[maybe_unused]] mf_status *status) {
    if (!mf__hopper_fills(d, f, 5)) return false;
#define MF_PAIR(dqk_, nv_, groups_, keys_, short_) \
    if (f->dqk <= dqk_ && f->dv < nv_) { \
        *status = f->bf16 ? forward_row<true, dqk_, nv_, groups_, keys_, short_>(d, f) \
                          : forward_row<false, dqk_, nv_, groups_, keys_, short_>(d, f); \
        return true; \
    }
    MF_HOPPER_FORWARD(MF_PAIR)
#undef MF_PAIR
    return false;
}
