/* hopper_slopes_pair.cu: dK, dV and dkey_bias for sm_90a at widths where one warpgroup cannot hold both.
 *
 * A block owns 64 keys of one sequence and head; the queries pass in tiles of 64. Both warpgroups work on the same keys:
 *
 *   the first    S' = K Q',  P' = exp(S' + bias - lse),  hands P' over,  dV += P' dO         d_qk + d_v columns of products
 *   the second   dP' = V dO',  dS' = P' (dP' - delta),  row sums,  dK += dS' Q               d_v + d_qk
 *
 * P' goes from one to the other through shared memory in float32, each thread to the one with the same place in the other warpgroup, so that no
 * layout matters: 16 bytes at a time, every thread its own column. K and V are operands in registers: they come through the same stages as
 * what passes, as the first tile of a work, and leave the shared memory to four stages. Queued behind S (or dP) of a tile is the second product
 * of the tile before, and exponentials are taken while that runs.
 *
 * Registers, default widths: the first dV 116, K 40, S 32, P 16; the second dK 80, V 60, dP 32, dS 16. Shared memory 4 x (20 + 32) KB, P 16 KB. Per
 * tile of 64 x 64: 1584 cycles of products, 1464 of shared memory. Deterministic. Numerics: hopper_slopes.cu. */
#include "hopper_slopes.cuh"

/* Bytes in shared memory: COPIES of tiles that pass, P, floats, the board, barriers. */
template <int DQK, int DV, int N, int COPIES> struct mf_slopes_pair {
    static constexpr int rows = 64, one = (DQK + 15) / 16 * 16, two = (DV + 63) / 64 * 64, two_steps = (DV + 15) / 16;
    static constexpr int wide = slopes_wide(DQK), across = (DQK + wide - 1) / wide * wide;
    static constexpr int pass_one = 2 * across * N, pass_two = mf_panels<two>::bytes(N);
    static constexpr int own_one = mf_panels<one>::bytes(rows), own_two = mf_panels<two>::bytes(rows);
    static constexpr int at_two = COPIES * pass_one, weights = at_two + COPIES * pass_two, floats = weights + N * 64 * 4,
                         board = floats + COPIES * 2 * N * 4, bars = board + mf_board::bytes, bytes = bars + 16 * (2 + 2 * COPIES);
    static_assert(N % 16 == 0 && N >= rows && pass_one % 1024 == 0 && pass_two % 1024 == 0 && bytes <= 227 << 10);
};

template <bool BF16, int DQK, int DV, int N, int COPIES>
static __global__ void __launch_bounds__(384, 1) hopper_slopes_pair_kernel(const mf_flash f, const __grid_constant__ mf_slopes_maps maps) {
#if MF_HAS_WGMMA
    using at = mf_slopes_pair<DQK, DV, N, COPIES>;
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared);
    mf_board board = {base + at::board, {}};
    auto piece = [&](int i) { return mf_slopes_piece{base + at::bars + 16 * i, base + at::bars + 16 * i + 8}; };
    const mf_slopes_piece weights = piece(0);
    auto one = [&](int copy) { return piece(1 + copy); };
    auto two = [&](int copy) { return piece(1 + COPIES + copy); };
    const mf_address cleared = piece(1 + 2 * COPIES).full;
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0), warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0) % 4;
    const int lane = threadIdx.x & 31;
    if (threadIdx.x == 0) {
        mf__bar_init(weights.full, 4);
        mf__bar_init(weights.free, 4);
        mf__bar_init(cleared, 8);
        for (int i = 0; i < COPIES; i++) {
            mf__bar_init(one(i).full, 2);                     /* copies; the floats of a row */
            mf__bar_init(one(i).free, 8);
            mf__bar_init(two(i).full, 1);
            mf__bar_init(two(i).free, 8);
        }
        board.init(3 + 8);                                    /* warps that fetch or multiply */
        mf__bar_init_seen();
    }
    __syncthreads();

    if (group == 0) {
        mf__registers_less<24>();
        mf_ring<COPIES> ring;
        if (warp < 2) {
            for (mf_work work = board.next(); work.length > 0; work = board.next()) {
                if (lane == 0)
#pragma unroll 1
                    for (int j = -N; j < work.length; j += N, ring.next()) {      /* the first tile is the block's own rows */
                        const mf_slopes_piece to = warp == 0 ? one(ring.stage) : two(ring.stage);
                        mf__bar_await(to.free, ring.phase ^ 1);
                        if (warp == 0) {
                            const mf_address tile = base + ring.stage * at::pass_one;
                            mf__bar_expect(to.full, j < 0 ? at::own_one : at::pass_one);
                            if (j < 0) mf__tile_fetch<at::one, at::rows>(tile, &maps.own_one, to.full, work.head, work.first + work.start);
                            else mf__even_fetch<at::across, at::wide, N>(tile, &maps.one, to.full, work.head, work.first + j);
                        } else {
                            const mf_address tile = base + at::at_two + ring.stage * at::pass_two;
                            mf__bar_expect(to.full, j < 0 ? at::own_two : at::pass_two);
                            if (j < 0) mf__tile_fetch<at::two, at::rows>(tile, &maps.own_two, to.full, work.head, work.first + work.start);
                            else mf__tile_fetch<at::two, N>(tile, &maps.two, to.full, work.head, work.first + j);
                        }
                    }
                __syncwarp();
            }
        } else if (warp == 2) {
            for (mf_work work = board.next(); work.length > 0; work = board.next()) {
                mf__bar_await(one(ring.stage).free, ring.phase ^ 1);
                mf__bar_release(one(ring.stage).full);
                ring.next();
#pragma unroll 1
                for (int j = 0; j < work.length; j += N, ring.next())
                    slopes_floats<BF16, N, true, true, true>(f, work, j, one(ring.stage), ring.phase, base + at::floats + ring.stage * 8 * N);
            }
        } else board.announce(f, at::rows);
    } else {
        mf__registers_more<240>();
        const int g = lane >> 2, t = lane & 3, thread = threadIdx.x % 128;
        constexpr float unit = BF16 ? 1.0f : 1.0f / 32768;
        const float back = 1.0f / *f.scale;
        mf_ring<COPIES> ring;
        mf_ring<1> exchange;
        auto tile_one = [&](int copy) { return base + copy * at::pass_one; };
        auto tile_two = [&](int copy) { return base + at::at_two + copy * at::pass_two; };
        int clears = 0;                                       /* parity of the times that `cleared` has ended */
        /* Waits for both tiles of a turn where rows past the end become zeros. The warpgroups meet at an mbarrier, not at a named barrier: they
         * come from different places, to which synccheck objects. */
        auto whole = [&](int left) {
            if (left >= N) return;
            mf__bar_await(one(ring.stage).full, ring.phase);
            mf__bar_await(two(ring.stage).full, ring.phase);
            mf__even_clear<at::across, at::wide, N>(tile_one(ring.stage), left, threadIdx.x - 128, 256);
            mf__tile_clear<at::two, N>(tile_two(ring.stage), left, threadIdx.x - 128, 256);
            mf__proxy_fence();
            mf__bar_release(cleared);
            mf__bar_await(cleared, clears);
            clears ^= 1;
        };
        /* The block's own rows are in registers: their stages may be filled again. Loads and copies are of different proxies: without the fence a
         * copy overwrites what a load is still to bring (on an H200, in 3 of 60 launches). */
        auto own_read = [&] {
            mf__bar_await(one(ring.stage).full, ring.phase);
            mf__bar_await(two(ring.stage).full, ring.phase);
            mf__proxy_fence();
            mf__bar_release(one(ring.stage).free);
            mf__bar_release(two(ring.stage).free);
            ring.next();
        };
        for (mf_work work = board.next(); work.length > 0; work = board.next()) {
            const int first = work.start + warp * 16 + g, tiles = (work.length + N - 1) / N;
            const int64_t row0 = (int64_t)work.first * f.heads + work.head;
            if (group == 1) {
                float shift[2], dv[DV / 2];
#pragma unroll
                for (int h = 0; h < 2; h++)
                    shift[h] = f.key_bias && first + 8 * h < work.length ? f.key_bias[row0 + (int64_t)(first + 8 * h) * f.heads] * MF_LOG2E : 0.0f;
                uint32_t k[at::one / 16][4], p[N / 16][4];
                mf__bar_await(one(ring.stage).full, ring.phase);
#pragma unroll
                for (int i = 0; i < at::one / 16; i++) mf__tile_operand<at::one, at::rows>(k[i], tile_one(ring.stage), 16 * warp, i);
                own_read();
#pragma unroll
                for (float &x : dv) x = 0;
                auto step = [&](int tile, auto more) {        /* more: there is a tile before, whose P waits in p */
                    whole(work.length - tile * N);
                    const int before = ring.before();
                    float s[N / 2];
#pragma unroll
                    for (float &x : s) x = 0;
                    mf__bar_await(one(ring.stage).full, ring.phase);
                    mf__wgmma_fence();
#pragma unroll
                    for (int i = 0; i < at::one / 16; i++) mf__wgmma_r<BF16, N, 0>(s, k[i], mf__even_rows<at::wide, N>(tile_one(ring.stage), 0, i));
                    mf__wgmma_commit();
                    if constexpr (decltype(more)::value) {
#pragma unroll
                        for (int i = 0; i < N / 16; i++) mf__tile_step<BF16, DV, N>(dv, p[i], tile_two(before), i);
                        mf__wgmma_commit();
                    }
                    mf__wgmma_wait<decltype(more)::value>();
                    mf__keep(s);
                    const mf_address floats = base + at::floats + ring.stage * 8 * N + 8 * t;
#pragma unroll
                    for (int n = 0; n < N / 8; n++) {
                        const float2 lse = mf__read2(floats + 32 * n);
#pragma unroll
                        for (int h = 0; h < 2; h++) {
                            s[4 * n + 2 * h] = mf__exp2(fmaf(s[4 * n + 2 * h], MF_LOG2E, shift[h]) - lse.x);
                            s[4 * n + 2 * h + 1] = mf__exp2(fmaf(s[4 * n + 2 * h + 1], MF_LOG2E, shift[h]) - lse.y);
                        }
                    }
                    mf__bar_release(one(ring.stage).free);
                    mf__bar_await(weights.free, exchange.phase ^ 1);
#pragma unroll
                    for (int i = 0; i < N / 8; i++)
                        mf__write16(base + at::weights + 2048 * i + 16 * thread, {s[4 * i], s[4 * i + 1], s[4 * i + 2], s[4 * i + 3]});
                    mf__bar_release(weights.full);
                    exchange.next();
                    if constexpr (decltype(more)::value) {
                        mf__wgmma_wait<0>();
                        mf__keep(dv);
                        mf__bar_release(two(before).free);
                    }
#pragma unroll
                    for (int i = 0; i < N / 4; i++) p[i / 4][i % 4] = mf__pack<BF16>(s[2 * i], s[2 * i + 1]);
                    mf__bar_await(two(ring.stage).full, ring.phase);
                    ring.next();
                };
                step(0, std::false_type());
                for (int tile = 1; tile < tiles; tile++) step(tile, std::true_type());
                const int last = ring.before();
                mf__wgmma_fence();
#pragma unroll
                for (int i = 0; i < N / 16; i++) mf__tile_step<BF16, DV, N>(dv, p[i], tile_two(last), i);
                mf__wgmma_commit();
                mf__wgmma_wait<0>();
                mf__keep(dv);
                mf__bar_release(two(last).free);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    if (first + 8 * h >= work.length || !f.dv_) continue;
                    mf__row_put<DV>(f.dv_ + (row0 + (int64_t)(first + 8 * h) * f.heads) * f.dv, f.dv, dv, h, back * unit);
                }
            } else {
                float sum[2] = {0, 0}, dk[DQK / 2];
                uint32_t v[at::two_steps][4], ds[N / 16][4];
                mf__bar_await(two(ring.stage).full, ring.phase);
#pragma unroll
                for (int i = 0; i < at::two_steps; i++) mf__tile_operand<at::two, at::rows>(v[i], tile_two(ring.stage), 16 * warp, i);
                own_read();
#pragma unroll
                for (float &x : dk) x = 0;
                auto step = [&](int tile, auto more) {
                    whole(work.length - tile * N);
                    const int before = ring.before();
                    float dp[N / 2];
#pragma unroll
                    for (float &x : dp) x = 0;
                    mf__bar_await(two(ring.stage).full, ring.phase);
                    mf__wgmma_fence();
#pragma unroll
                    for (int i = 0; i < at::two_steps; i++) mf__tile_step_nt<BF16, N, at::two, N>(dp, v[i], tile_two(ring.stage), i);
                    mf__wgmma_commit();
                    if constexpr (decltype(more)::value) {
#pragma unroll
                        for (int i = 0; i < N / 16; i++) mf__wgmma_r<BF16, DQK, 1>(dk, ds[i], mf__even_columns<at::wide, N>(tile_one(before), i));
                        mf__wgmma_commit();
                    }
                    mf__wgmma_wait<decltype(more)::value>();
                    mf__keep(dp);
                    mf__bar_release(two(ring.stage).free);
                    mf__bar_await(one(ring.stage).full, ring.phase);
                    mf__bar_await(weights.full, exchange.phase);
                    const mf_address floats = base + at::floats + ring.stage * 8 * N + 4 * N + 8 * t;
#pragma unroll
                    for (int n = 0; n < N / 8; n++) {
                        const float2 delta = mf__read2(floats + 32 * n);
                        const float4 p = mf__read4(base + at::weights + 2048 * n + 16 * thread);
                        dp[4 * n] = p.x * unit * (dp[4 * n] - delta.x);
                        dp[4 * n + 1] = p.y * unit * (dp[4 * n + 1] - delta.y);
                        dp[4 * n + 2] = p.z * unit * (dp[4 * n + 2] - delta.x);
                        dp[4 * n + 3] = p.w * unit * (dp[4 * n + 3] - delta.y);
                        sum[0] += dp[4 * n] + dp[4 * n + 1];
                        sum[1] += dp[4 * n + 2] + dp[4 * n + 3];
                    }
                    mf__bar_release(weights.free);
                    exchange.next();
                    if constexpr (decltype(more)::value) {
                        mf__wgmma_wait<0>();
                        mf__keep(dk);
                        mf__bar_release(one(before).free);
                    }
#pragma unroll
                    for (int i = 0; i < N / 4; i++) ds[i / 4][i % 4] = mf__pack<BF16>(dp[2 * i], dp[2 * i + 1]);
                    ring.next();
                };
                step(0, std::false_type());
                for (int tile = 1; tile < tiles; tile++) step(tile, std::true_type());
                const int last = ring.before();
                mf__wgmma_fence();
#pragma unroll
                for (int i = 0; i < N / 16; i++) mf__wgmma_r<BF16, DQK, 1>(dk, ds[i], mf__even_columns<at::wide, N>(tile_one(last), i));
                mf__wgmma_commit();
                mf__wgmma_wait<0>();
                mf__keep(dk);
                mf__bar_release(one(last).free);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
                    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
                    if (first + 8 * h >= work.length) continue;
                    const int64_t row = row0 + (int64_t)(first + 8 * h) * f.heads;
                    if (f.dk) mf__row_put<DQK>(f.dk + row * f.dqk, f.dqk, dk, h, back);
                    if (f.dkey_bias && t == 0) f.dkey_bias[row] = sum[h] * back;
                }
            }
        }
    }
#else
    __trap();
#endif
}
template <bool BF16, int DQK, int DV, int N, int COPIES> static mf_status slopes_pair_launch(mf_device *d, const mf_flash *f) {
    using at = mf_slopes_pair<DQK, DV, N, COPIES>;
    mf_slopes_maps maps = {};
    MF_TRY((mf__maps_make<at::one>(&maps.own_one, f->k, f->heads, f->total, f->ldq, at::rows)));
    MF_TRY((mf__maps_make<at::two>(&maps.own_two, f->v, f->heads, f->total, f->ldv, at::rows)));
    MF_TRY(mf__map_make(&maps.one, f->q, f->ldq, f->heads, f->total, f->ldq, at::wide, N));
    MF_TRY((mf__maps_make<at::two>(&maps.two, f->dout, f->heads, f->total, f->ldv, N)));
    const int64_t works = mf__flash_slots(f, at::rows) * f->heads, blocks = mf__cuda(d)->multiprocessors;
    return MF_LAUNCH(d, (hopper_slopes_pair_kernel<BF16, DQK, DV, N, COPIES>), (unsigned)(works < blocks ? works : blocks), 384, at::bytes, *f, maps);
}

mf_status mf__hopper_slopes_pair(mf_device *d, const mf_flash *f) {
#define MF_PAIR(dqk_, dv__) \
    if (f->dqk <= dqk_ && f->dv <= dv__) \
        return f->bf16 ? slopes_pair_launch<true, dqk_, dv__, 64, 4>(d, f) : slopes_pair_launch<false, dqk_, dv__, 64, 4>(d, f);
    MF_HOPPER_SLOPES_MIDDLE(MF_PAIR)
#undef MF_PAIR
    return mf__fail(MF_ESUPPORT, "attention: widths %d and %d: no pair of MF_HOPPER_SLOPES_MIDDLE covers them", f->dqk, f->dv);
}
