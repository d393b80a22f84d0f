/* hopper_wide_forward.cu: attention's forward on sm_90a for widths beyond those of hopper_forward.cu, up to 512.
 *
 *   S = Q K' + key_bias,  lse = log sum exp S,  out = exp(S - max) V / sum exp(S - max)      per sequence and head
 *
 * Work 2 L^2 (d_qk + d_v) operations a head, nothing twice. A block owns 64 queries of one sequence and head and goes over the keys in
 * tiles of 64; two warpgroups share both products:
 *
 *   scores     64 queries x 32 keys each; they agree on a row's maximum and exchange weights, in 16 bits, through shared memory
 *   result     all weights by COLUMNS = 128, 192 or 256 columns of V each: 64 x 256 of `out` are 128 registers
 *
 * Scores of the next tile are made while the weights of this one are multiplied, and the maximum and exp meanwhile. Each warpgroup has
 * rings of its own for what only it reads: its keys of K, its columns of V by 32 keys; a producer warp fills each.
 *
 * At (384, 512) a tile takes 1792 cycles of the matrix unit, and of shared memory 896 to write K and V, 640 to read V and the weights,
 * 1152 to read Q and K: 2688. Two warpgroups of 64 queries each on half the columns of V would make S twice: 2560 of the matrix unit.
 * A block reads 112 KB a tile, at L = 8192 15 GB for 8 heads: that from L2 is what bounds it. Times: cuda/README.md.
 *
 * Numerics as in flash_forward.cu; the sum of the rounded weights is taken in float32 by the threads that make them, for V's column of
 * ones may lie beyond what is multiplied. Deterministic, bit for bit: no atomics. */
#include "hopper_wide.cuh"
#include <climits>

[[maybe_unused]] static constexpr int ROWS = 64, KEYS = 64, OWN = 32, THREADS = 384;           /* queries; keys of a tile; of a warpgroup */

/* Shared memory: Q, weights twice, the rings, then vectors and barriers. */
struct mf_wide_plan {
    int panels;                   /* of 64 columns of Q and K */
    int k_count, v_count;         /* stages of 32 keys, for each warpgroup */
    int k_bytes, v_bytes;
    int p, k, v, bias, most, bars, bytes;
};
static mf_wide_plan wide_plan(int dqk, int columns, int64_t limit) {
    mf_wide_plan x = {};
    x.panels = (dqk + 63) / 64;
    x.k_bytes = x.panels * OWN * 128;
    x.v_bytes = columns / 64 * OWN * 128;
    auto lay = [&](int k_count, int v_count) {
        mf_wide_plan y = x;
        y.k_count = k_count, y.v_count = v_count;
        y.p = x.panels * ROWS * 128;
        y.k = y.p + 2 * ROWS * 128;
        y.v = y.k + 2 * k_count * x.k_bytes;
        y.bias = y.v + 2 * v_count * x.v_bytes;
        y.most = y.bias + 2 * k_count * OWN * 4;
        y.bars = y.most + 2 * ROWS * 4;
        y.bytes = y.bars + mf_stages::bars_bytes(1) + 2 * mf_stages::bars_bytes(k_count) + 2 * mf_stages::bars_bytes(v_count);
        return y;
    };
    int k_count = 1, v_count = 2;
    for (int round = 0; round < 4; round++) {                                 /* K and V in turn */
        if (k_count < 3 && lay(k_count + 1, v_count).bytes <= limit) k_count++;
        if (v_count < 4 && lay(k_count, v_count + 1).bytes <= limit) v_count++;
    }
    return lay(k_count, v_count);
}

/* The sum of a pair as it was rounded. */
template <bool BF16> static __device__ __forceinline__ float wide_pair_sum(uint32_t pair) {
    mf_half<BF16> x[2];
    memcpy((void *)x, &pair, 4);
    return mf__to<float>(x[0]) + mf__to<float>(x[1]);
}

template <bool BF16, int COLUMNS>
static __global__ void __launch_bounds__(THREADS, 1) hopper_wide_forward_kernel(const mf_flash f, const mf_wide_plan plan,
    const __grid_constant__ mf_map q, const __grid_constant__ mf_map k, const __grid_constant__ mf_map v) {
#if MF_HAS_WGMMA
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared);
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 & 3, lane = threadIdx.x & 31;
    const int64_t slots = f.total / ROWS + f.sequences, blocks = slots * f.heads;
    mf_stages q_ring(base, base + plan.bars, plan.panels * ROWS * 128, 1);
    auto k_ring_of = [&](int member) {
        return mf_stages(base + plan.k + member * plan.k_count * plan.k_bytes, q_ring.bars + mf_stages::bars_bytes(1) +
            member * mf_stages::bars_bytes(plan.k_count), plan.k_bytes, plan.k_count);
    };
    auto v_ring_of = [&](int member) {
        return mf_stages(base + plan.v + member * plan.v_count * plan.v_bytes, q_ring.bars + mf_stages::bars_bytes(1) +
            2 * mf_stages::bars_bytes(plan.k_count) + member * mf_stages::bars_bytes(plan.v_count), plan.v_bytes, plan.v_count);
    };
    if (threadIdx.x == 0) {
        q_ring.init(1, 8);
        for (int m = 0; m < 2; m++) k_ring_of(m).init(f.key_bias ? 33 : 1, 4), v_ring_of(m).init(1, 4);
        mf__bar_init_seen();
    }
    __syncthreads();
    if (group == 0) {
        mf__registers_less<40>();
        const int member = warp & 1;                                          /* whose K, or whose V */
        mf_stages k_ring = k_ring_of(member), v_ring = v_ring_of(member);
        for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
            const int head = (int)(block / slots);
            const mf_place place = mf__flash_place(f, block % slots, ROWS);
            if (place.start >= place.length) continue;
            if (warp == 0 && lane == 0) {
                q_ring.await_empty();
                mf__bar_expect(q_ring.full(), q_ring.bytes);
                for (int p = 0; p < plan.panels; p++)
                    mf__map_copy(base + p * ROWS * 128, &q, q_ring.full(), 64 * p, head, place.first + place.start);
                q_ring.next();
            }
            __syncwarp();
            const int most = (place.length + KEYS - 1) / KEYS * KEYS;
            if (warp < 2) {
                for (int j = member * OWN; j < most; j += KEYS) {
                    k_ring.await_empty();
                    if (lane == 0) {
                        mf__bar_expect(k_ring.full(), k_ring.bytes);
                        for (int p = 0; p < plan.panels; p++)
                            mf__map_copy(k_ring.stage() + p * OWN * 128, &k, k_ring.full(), 64 * p, head, place.first + j);
                    }
                    if (f.key_bias) {
                        const int key = j + lane < place.length ? j + lane : place.length - 1;
                        mf__copy4(base + plan.bias + 4 * ((member * plan.k_count + k_ring.at) * OWN + lane), f.key_bias +
                            (place.first + key) * f.heads + head, true);
                        mf__bar_copied(k_ring.full());
                    }
                    __syncwarp();             /* no lane may miss a phase */
                    k_ring.next();
                }
            } else if (lane == 0) {
                for (int j = 0; j < most; j += OWN) {
                    v_ring.await_empty();
                    mf__bar_expect(v_ring.full(), v_ring.bytes);
#pragma unroll
                    for (int p = 0; p < COLUMNS / 64; p++)
                        mf__map_copy(v_ring.stage() + p * OWN * 128, &v, v_ring.full(), member * COLUMNS + 64 * p, head, place.first + j);
                    v_ring.next();
                }
            }
            __syncwarp();
        }
    } else {
        mf__registers_more<232>();
        const int member = group - 1, g = lane >> 2, t = lane & 3, row = warp * 16 + g;       /* and row + 8 */
        mf_stages k_ring = k_ring_of(member), v_ring = v_ring_of(member);
        const mf_address most = base + plan.most, p_write = base + plan.p + row * 128 + 4 * t;
        for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
            const int head = (int)(block / slots);
            const mf_place place = mf__flash_place(f, block % slots, ROWS);
            if (place.start >= place.length) continue;
            const int tiles = (place.length + KEYS - 1) / KEYS;
            float out[COLUMNS / 2], s[OWN / 2], top[2] = {-INFINITY, -INFINITY}, sum[2] = {}, shrink[2];
            bool moved = false;
            q_ring.await_full();

            auto scores = [&] {               /* begins S */
                k_ring.await_full();
                const mf_address keys = k_ring.stage();
#pragma unroll
                for (int i = 0; i < OWN / 2; i++) s[i] = 0;                   /* not by the product: ptxas would run them one by one */
                mf__keep(s);
                mf__wgmma_fence();
                for (int p = 0; p < plan.panels; p++) {
                    const mf_matrix left = mf__matrix_rows<128>(base + p * ROWS * 128), right = mf__matrix_rows<128>(keys + p * OWN * 128);
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        mf__wgmma<BF16, OWN, 0, 0>(s, mf__matrix_on(left, 32 * i), mf__matrix_on(right, 32 * i), true);
                }
                mf__wgmma_commit();
            };
            auto maximum = [&](int tile) {    /* of S, once it is there; tells the other */
                mf__keep(s);
                const int left = place.length - tile * KEYS - member * OWN - 2 * t;
                if (f.key_bias) {
                    const mf_address bias = base + plan.bias + 4 * ((member * plan.k_count + k_ring.at) * OWN + 2 * t);
#pragma unroll
                    for (int j = 0; j < OWN / 8; j++) {
                        const float2 b = mf__read2(bias + 32 * j);
                        s[4 * j] += b.x, s[4 * j + 1] += b.y, s[4 * j + 2] += b.x, s[4 * j + 3] += b.y;
                    }
                }
                __syncwarp();
                mf__bar_release(k_ring.empty());
                k_ring.next();
                if ((tile + 1) * KEYS > place.length)                         /* whatever another sequence left there */
#pragma unroll
                    for (int i = 0; i < OWN / 2; i++)
                        if (i / 4 * 8 + i % 2 >= left) s[i] = -INFINITY;
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float x = -INFINITY;
#pragma unroll
                    for (int j = 0; j < OWN / 8; j++) x = fmaxf(x, fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
                    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
                    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
                    shrink[h] = x;
                    if (t == 0) mf__write(most + 4 * (member * ROWS + row + 8 * h), x);
                }
                mf__barrier(1, 256);
            };
            auto weights = [&](int tile) {    /* P, for both */
                moved = false;
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const float x = fmaxf(shrink[h], mf__read(most + 4 * ((member ^ 1) * ROWS + row + 8 * h)));
                    const float now = x > top[h] + 6.0f ? x : top[h];         /* also from -inf */
                    shrink[h] = now == top[h] ? 1.0f : mf__exp2((top[h] - now) * MF_LOG2E);
                    moved |= now != top[h];
                    top[h] = now;
                    const float base2 = now == -INFINITY ? 0.0f : now * MF_LOG2E;       /* all masked so far: exp(-inf - 0) = 0, no NaN */
                    float more = 0;
#pragma unroll
                    for (int j = 0; j < OWN / 8; j++) {
                        const uint32_t pair = mf__pack<BF16>(mf__exp2(fmaf(s[4 * j + 2 * h], MF_LOG2E, -base2)),
                            mf__exp2(fmaf(s[4 * j + 2 * h + 1], MF_LOG2E, -base2)));
                        more += wide_pair_sum<BF16>(pair);
                        mf__store4(p_write + (tile & 1) * ROWS * 128 + h * 8 * 128 + ((4 * member + j) ^ g) * 16, pair);
                    }
                    sum[h] = sum[h] * shrink[h] + more;
                }
            };
            auto multiply = [&](int tile, bool last) {         /* begins P V, two groups */
                const mf_matrix left = mf__matrix_rows<128>(base + plan.p + (tile & 1) * ROWS * 128);
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    v_ring.await_full();
                    const int from = place.length - tile * KEYS - c * OWN;
                    if (last && from < OWN) {
                        mf__tile_clear<COLUMNS, OWN>(v_ring.stage(), from > 0 ? from : 0, (int)threadIdx.x & 127, 128);
                        mf__proxy_fence();
                        mf__barrier(3 + member, 128);
                    }
                    const mf_matrix right = mf__matrix_columns<128>(v_ring.stage(), OWN * 128);
                    mf__keep(out);
                    mf__wgmma_fence();
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        mf__wgmma<BF16, COLUMNS, 0, 1>(out, mf__matrix_on(left, 64 * c + 32 * i), mf__matrix_on(right, i * 16 * 128),
                            tile > 0 || c > 0 || i > 0);
                    mf__wgmma_commit();
                    v_ring.next();
                }
            };
            mf_stages v_read = v_ring;        /* what is read and to be given back */
            auto release_v = [&] {
                mf__bar_release(v_read.empty());
                v_read.next();
            };

            scores();
            mf__wgmma_wait<0>();
            maximum(0);
            weights(0);
            mf__proxy_fence();
            mf__barrier(2, 256);
            for (int tile = 0; tile + 1 < tiles; tile++) {
                scores();
                multiply(tile, false);
                mf__wgmma_wait<2>();
                maximum(tile + 1);
                weights(tile + 1);
                mf__proxy_fence();
                mf__wgmma_wait<1>();
                release_v();
                mf__wgmma_wait<0>();
                mf__keep(out);
                release_v();
                if (__any_sync(0xffffffffu, moved))
#pragma unroll
                    for (int i = 0; i < COLUMNS / 2; i++) out[i] *= shrink[i / 2 % 2];
                mf__barrier(2, 256);
            }
            mf__bar_release(q_ring.empty());
            q_ring.next();
            multiply(tiles - 1, true);
#pragma unroll
            for (int h = 0; h < 2; h++) {     /* everybody has read the maxima: now sums lie there */
                sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
                sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
                if (t == 0) mf__write(most + 4 * (member * ROWS + row + 8 * h), sum[h]);
            }
            mf__wgmma_wait<0>();
            mf__keep(out);
            release_v();
            release_v();
            mf__barrier(1, 256);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int r = place.start + row + 8 * h;
                const float all = mf__read(most + 4 * (row + 8 * h)) + mf__read(most + 4 * (ROWS + row + 8 * h)), scale = 1.0f / all;
                if (r >= place.length) continue;
                const int64_t to = (place.first + r) * f.heads + head;
                if (member == 0 && t == 0) f.lse[to] = all == 0 ? -INFINITY : top[h] + logf(all);
#pragma unroll
                for (int j = 0; j < COLUMNS / 8; j++)          /* no key: zeros, also where a masked value was infinite */
                    mf__put2(f.out + to * f.dv, member * COLUMNS + 8 * j + 2 * t, f.dv, all == 0 ? 0.0f : out[4 * j + 2 * h] * scale,
                        all == 0 ? 0.0f : out[4 * j + 2 * h + 1] * scale);
            }
            mf__barrier(2, 256);              /* the sums are read */
        }
    }
#else
    __trap();
#endif
}

template <bool BF16, int COLUMNS> static mf_status wide_forward_launch(mf_device *d, const mf_flash *f) {
    const mf_cuda *c = mf__cuda(d);
    const mf_wide_plan plan = wide_plan(f->dqk, COLUMNS, c->shared_limit);
    mf_map q, k, v;
    MF_TRY(mf__map_make(&q, f->q, f->ldq, f->heads, f->total, f->ldq, 64, ROWS));
    MF_TRY(mf__map_make(&k, f->k, f->ldq, f->heads, f->total, f->ldq, 64, OWN));
    MF_TRY(mf__map_make(&v, f->v, f->ldv, f->heads, f->total, f->ldv, 64, OWN));
    mf__flash_work(d, f, false);
    const int64_t blocks = mf__flash_slots(f, ROWS) * f->heads, most = c->multiprocessors;
    return MF_LAUNCH(d, (hopper_wide_forward_kernel<BF16, COLUMNS>), (unsigned)(blocks < most ? blocks : most), THREADS,
        plan.bytes, *f, plan, q, k, v);
}
template <bool BF16> static mf_status wide_forward(mf_device *d, const mf_flash *f) {
    return f->dv <= 256 ? wide_forward_launch<BF16, 128>(d, f) : f->dv <= 384 ? wide_forward_launch<BF16, 192>(d, f) :
        wide_forward_launch<BF16, 256>(d, f);
}

bool mf__hopper_wide_forward(mf_device *d, const mf_flash *f, mf_status *status) {
    if (mf__cuda(d)->capability != 90 || f->longest == 0 || f->total > INT_MAX / 2) return false;
    if (f->dqk < 1 || f->dqk > 512 || f->dv < 1 || f->dv > 512) return false;
    *status = f->bf16 ? wide_forward<true>(d, f) : wide_forward<false>(d, f);
    return true;
}
