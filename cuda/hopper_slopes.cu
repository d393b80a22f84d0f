/* hopper_slopes.cu: fused attention for sm_90a, backward, every bit the same each time.
 *
 *   P = exp(Q K' + key_bias - lse),  dP = dO V',  dS = P (dP - delta)
 *   dQ = dS K,  dK = dS' Q,  dV = P' dO,  dkey_bias = column sums of dS             per sequence and head; all written with '='
 *
 * Each gradient is made as the forward makes `out`: a block owns rows of one side, the rows of the other side pass in tiles, weights become
 * operands in the registers in which their product left them, and nothing is added by atomics.
 *
 *   block owns          passing           makes, a tile                                          columns of products     widths
 *   128 queries Q, dO   keys K, V         S = Q K',  dP = dO V',   dQ += dS K                    2 d_qk + d_v            all
 *   128 keys K, V       queries Q, dO     S' = K Q', dP' = V dO',  dV += P' dO, dK += dS' Q      2 d_qk + 2 d_v          narrow
 *   64 keys K, V        queries Q, dO     the same by two warpgroups (hopper_slopes_pair.cu)     2 d_qk + 2 d_v          middle
 *   128 keys K, V       queries Q, dO     S', dP', dK += dS' Q                                   2 d_qk + d_v            large
 *   128 keys K          queries Q, dO     S', dV += P' dO                                        d_qk + d_v              large
 *
 * so 4 d_qk + 3 d_v columns (large: 5 d_qk + 3 d_v) where sums by atomics need 3 d_qk + 2 d_v; operations are 2 L^2 times that a head. A block
 * reads the passing rows once, 784 bytes each of the default widths, out of L2.
 *
 * Threads. Of a warpgroup that fetches, one warp copies tiles of width d_qk, one those of d_v, one writes the floats that go with rows (bias,
 * or lse and delta), one announces which tile of which head is next. Two warpgroups multiply, 64 owned rows each. Blocks stay; who fetches
 * runs ahead of who multiplies by what the shared memory holds. A warpgroup takes exponentials of S while its dP is under way; the rest of
 * the time that it spends on dS the matrix unit has the other one's products. Rows of the last tile that lie past the end of the sequence
 * become zeros in shared memory before they are read: 0 NaN is not 0.
 *
 * Numerics as in flash_backward.cu: sums, P, dS, lse float32; P and dS rounded when they become operands, in float16 P times 2^15 where it
 * becomes one. Times: cuda/README.md. */
#include "hopper_slopes.cuh"

/* What a block makes of its rows. */
enum mf_slopes_role { MF_SLOPES_Q, MF_SLOPES_K, MF_SLOPES_V, MF_SLOPES_KV };

/* Bytes in shared memory: tiles that stay, FIRST and SECOND copies of tiles one and two that pass, floats, the board, barriers. */
template <int DQK, int DV, int N, int FIRST, int SECOND, mf_slopes_role ROLE> struct mf_slopes_layout {
    static constexpr bool slope = ROLE != MF_SLOPES_V, weight = ROLE == MF_SLOPES_V || ROLE == MF_SLOPES_KV;   /* multiplies dS, P */
    static constexpr int rows = 128, one = (DQK + 15) / 16 * 16, two = weight && DV <= 256 ? (DV + 63) / 64 * 64 : (DV + 15) / 16 * 16;
    static __host__ __device__ constexpr int up(int bytes) { return (bytes + 1023) / 1024 * 1024; }
    static constexpr int own_one = mf_panels<one>::bytes(rows), own_two = slope ? mf_panels<two>::bytes(rows) : 0;
    static constexpr int wide = slopes_wide(DQK), across = (DQK + wide - 1) / wide * wide;
    static constexpr int pass_one = 2 * across * N, pass_two = mf_panels<two>::bytes(N), step_one = up(pass_one), step_two = up(pass_two);
    static constexpr int at_own_two = up(own_one), at_one = at_own_two + up(own_two), at_two = at_one + FIRST * step_one;
    static constexpr int floats = at_two + (SECOND - 1) * step_two + pass_two, board = floats + FIRST * 2 * N * 4;
    static constexpr int bars = board + mf_board::bytes, bytes = bars + 16 * (2 + FIRST + SECOND);
    static_assert(N % 16 == 0 && bytes <= 227 << 10);
};

template <bool BF16, int DQK, int DV, int N, int FIRST, int SECOND, mf_slopes_role ROLE>
static __global__ void __launch_bounds__(384, 1) hopper_slopes_kernel(const mf_flash f, const __grid_constant__ mf_slopes_maps maps) {
#if MF_HAS_WGMMA
    using at = mf_slopes_layout<DQK, DV, N, FIRST, SECOND, ROLE>;
    constexpr bool keys = ROLE != MF_SLOPES_Q;
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared);
    mf_board board = {base + at::board, {}};
    auto piece = [&](int i) { return mf_slopes_piece{base + at::bars + 16 * i, base + at::bars + 16 * i + 8}; };
    const mf_slopes_piece own_one = piece(0), own_two = piece(1);
    auto one = [&](int copy) { return piece(2 + copy); };
    auto two = [&](int copy) { return piece(2 + FIRST + copy); };
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0), warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0) % 4;
    const int lane = threadIdx.x & 31;
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2 + FIRST + SECOND; i++) {
            mf__bar_init(piece(i).full, i >= 2 && i < 2 + FIRST ? 2 : 1);         /* copies; the floats of a row */
            mf__bar_init(piece(i).free, 8);
        }
        board.init(3 + 8);                                                        /* warps that fetch or multiply */
        mf__bar_init_seen();
    }
    __syncthreads();

    if (group == 0) {
        mf__registers_less<24>();
        if (warp < 2) {                                                           /* tiles: warp 0 those of d_qk, warp 1 those of d_v */
            mf_ring<1> own;
            mf_ring<FIRST> ring_one;
            mf_ring<SECOND> ring_two;
            for (mf_work work = board.next(); work.length > 0; work = board.next()) {
                if (lane == 0 && warp == 0) {
                    mf__bar_await(own_one.free, own.phase ^ 1);
                    mf__bar_expect(own_one.full, at::own_one);
                    mf__tile_fetch<at::one, at::rows>(base, &maps.own_one, own_one.full, work.head, work.first + work.start);
#pragma unroll 1
                    for (int j = 0; j < work.length; j += N) {
                        const mf_slopes_piece to = one(ring_one.stage);
                        mf__bar_await(to.free, ring_one.phase ^ 1);
                        mf__bar_expect(to.full, at::pass_one);
                        mf__even_fetch<at::across, at::wide, N>(base + at::at_one + ring_one.stage * at::step_one, &maps.one, to.full, work.head,
                            work.first + j);
                        ring_one.next();
                    }
                }
                if (lane == 0 && warp == 1) {
                    if constexpr (at::slope) {
                        mf__bar_await(own_two.free, own.phase ^ 1);
                        mf__bar_expect(own_two.full, at::own_two);
                        mf__tile_fetch<at::two, at::rows>(base + at::at_own_two, &maps.own_two, own_two.full, work.head, work.first + work.start);
                    }
#pragma unroll 1
                    for (int j = 0; j < work.length; j += N) {
                        const mf_slopes_piece to = two(ring_two.stage);
                        mf__bar_await(to.free, ring_two.phase ^ 1);
                        mf__bar_expect(to.full, at::pass_two);
                        mf__tile_fetch<at::two, N>(base + at::at_two + ring_two.stage * at::step_two, &maps.two, to.full, work.head,
                            work.first + j);
                        ring_two.next();
                    }
                }
                __syncwarp();
                own.next();
            }
        } else if (warp == 2) {                                                   /* floats: bias of keys, or lse and delta of queries */
            mf_ring<FIRST> ring;
            for (mf_work work = board.next(); work.length > 0; work = board.next()) {
#pragma unroll 1
                for (int j = 0; j < work.length; j += N) {
                    slopes_floats<BF16, N, keys, at::slope, at::weight>(f, work, j, one(ring.stage), ring.phase,
                        base + at::floats + ring.stage * 8 * N);
                    ring.next();
                }
            }
        } else board.announce(f, at::rows);
    } else {
        mf__registers_more<240>();
        const int g = lane >> 2, t = lane & 3, consumer = group - 1;
        const float unit = at::weight && !BF16 ? 1.0f / 32768 : 1.0f, back = 1.0f / *f.scale;     /* of P */
        mf_ring<1> own;
        mf_ring<FIRST> ring_one;
        mf_ring<SECOND> ring_two;
        for (mf_work work = board.next(); work.length > 0; work = board.next()) {
            const int first = work.start + consumer * 64 + warp * 16 + g, tiles = (work.length + N - 1) / N;
            const int64_t row0 = (int64_t)work.first * f.heads + work.head;
            float shift[2], delta[2], sum[2] = {0, 0};          /* keys: of the bias; queries: of lse */
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int i = first + 8 * h;
                const int64_t row = row0 + (int64_t)i * f.heads;
                const bool inside = i < work.length;
                if constexpr (keys) {
                    shift[h] = inside && f.key_bias ? f.key_bias[row] * MF_LOG2E : 0.0f;
                    delta[h] = 0.0f;
                } else {
                    const mf_backward_row<true> query(inside ? f.lse[row] : 0.0f, inside ? f.delta[row] : 0.0f, inside);
                    shift[h] = query.lse;
                    delta[h] = query.delta;
                }
            }
            float slopes[at::slope ? DQK / 2 : 1], weights[at::weight ? DV / 2 : 1];
#pragma unroll
            for (float &x : slopes) x = 0;
#pragma unroll
            for (float &x : weights) x = 0;
            mf__bar_await(own_one.full, own.phase);
            for (int tile = 0; tile < tiles; tile++) {
                const mf_slopes_piece this_one = one(ring_one.stage), this_two = two(ring_two.stage);
                const mf_address tile_one = base + at::at_one + ring_one.stage * at::step_one;
                const mf_address tile_two = base + at::at_two + ring_two.stage * at::step_two;
                mf__bar_await(this_one.full, ring_one.phase);
                if (const int left = work.length - tile * N; left < N) {         /* rows past the end become zeros */
                    mf__bar_await(this_two.full, ring_two.phase);
                    mf__even_clear<at::across, at::wide, N>(tile_one, left, threadIdx.x - 128, 256);
                    mf__tile_clear<at::two, N>(tile_two, left, threadIdx.x - 128, 256);
                    mf__proxy_fence();
                    mf__barrier(1, 256);
                }
                float s[N / 2], dp[at::slope ? N / 2 : 1];
                mf__wgmma_fence();
#pragma unroll
                for (int k = 0; k < at::one / 16; k++)
                    mf__wgmma<BF16, N, 0, 0>(s, mf__tile_rows<at::one, at::rows>(base, 64 * consumer, k), mf__even_rows<at::wide, N>(tile_one, 0, k),
                        k > 0);
                mf__wgmma_commit();
                if constexpr (at::slope) {
                    if (tile == 0) mf__bar_await(own_two.full, own.phase);
                    mf__bar_await(this_two.full, ring_two.phase);
                    mf__wgmma_fence();
                    mf__tiles_nt<BF16, N, at::two, at::rows, N>(dp, base + at::at_own_two, 64 * consumer, tile_two, 0, false);
                    mf__wgmma_commit();
                }
                mf__wgmma_wait<at::slope ? 1 : 0>();
                mf__keep(s);
                const mf_address floats = base + at::floats + ring_one.stage * 8 * N + 8 * t;
#pragma unroll
                for (int n = 0; n < N / 8; n++) {
                    const float2 column = mf__read2(floats + 32 * n);
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        float *x = s + 4 * n + 2 * h;
                        x[0] = mf__exp2(fmaf(x[0], MF_LOG2E, keys ? shift[h] : column.x) - (keys ? column.x : shift[h]));
                        x[1] = mf__exp2(fmaf(x[1], MF_LOG2E, keys ? shift[h] : column.y) - (keys ? column.y : shift[h]));
                    }
                }
                if constexpr (!at::slope) mf__bar_release(this_one.free);
                if (tile + 1 == tiles) mf__bar_release(own_one.free);
                uint32_t p[N / 16][4], ds[N / 16][4];
                if constexpr (at::weight) {
#pragma unroll
                    for (int i = 0; i < N / 4; i++) p[i / 4][i % 4] = mf__pack<BF16>(s[2 * i], s[2 * i + 1]);
                    if constexpr (!at::slope) mf__bar_await(this_two.full, ring_two.phase);
                    mf__wgmma_fence();
#pragma unroll
                    for (int k = 0; k < N / 16; k++) {
                        if constexpr (DV <= 256) mf__tile_step<BF16, DV, N>(weights, p[k], tile_two, k);
                        else mf__panels_step<BF16, DV, N>(weights, p[k], tile_two, k);
                    }
                    mf__wgmma_commit();
                }
                if constexpr (at::slope) {
                    mf__wgmma_wait<at::weight ? 1 : 0>();
                    mf__keep(dp);
                    if constexpr (!at::weight) mf__bar_release(this_two.free);
                    if (tile + 1 == tiles) mf__bar_release(own_two.free);
#pragma unroll
                    for (int n = 0; n < N / 8; n++) {
                        const float2 column = keys ? mf__read2(floats + 4 * N + 32 * n) : make_float2(0, 0);
#pragma unroll
                        for (int h = 0; h < 2; h++) {
                            const float *x = s + 4 * n + 2 * h, *y = dp + 4 * n + 2 * h;
                            const float a = x[0] * unit * (y[0] - (keys ? column.x : delta[h]));
                            const float b = x[1] * unit * (y[1] - (keys ? column.y : delta[h]));
                            if constexpr (keys) sum[h] += a + b;
                            ds[n / 2][n % 2 * 2 + h] = mf__pack<BF16>(a, b);
                        }
                    }
                    mf__wgmma_fence();
#pragma unroll
                    for (int k = 0; k < N / 16; k++) mf__wgmma_r<BF16, DQK, 1>(slopes, ds[k], mf__even_columns<at::wide, N>(tile_one, k));
                    mf__wgmma_commit();
                }
                mf__wgmma_wait<0>();
                if constexpr (at::slope) {
                    mf__keep(slopes);
                    mf__bar_release(this_one.free);
                }
                if constexpr (at::weight) {
                    mf__keep(weights);
                    mf__bar_release(this_two.free);
                }
                ring_one.next();
                ring_two.next();
            }
            own.next();

#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int i = first + 8 * h;
                if constexpr (keys && at::slope) {
                    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
                    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
                }
                if (i >= work.length) continue;
                const int64_t row = row0 + (int64_t)i * f.heads;
                if constexpr (at::slope)
                    if (float *const to = keys ? f.dk : f.dq) mf__row_put<DQK>(to + row * f.dqk, f.dqk, slopes, h, back);
                if constexpr (at::weight)
                    if (f.dv_) mf__row_put<DV>(f.dv_ + row * f.dv, f.dv, weights, h, back * unit);
                if (keys && at::slope && f.dkey_bias && t == 0) f.dkey_bias[row] = sum[h] * back;
            }
        }
    }
#else
    __trap();
#endif
}

template <bool BF16, int DQK, int DV, int N, int FIRST, int SECOND, mf_slopes_role ROLE>
static mf_status slopes_launch(mf_device *d, const mf_flash *f) {
    using at = mf_slopes_layout<DQK, DV, N, FIRST, SECOND, ROLE>;
    constexpr bool keys = ROLE != MF_SLOPES_Q;
    mf_slopes_maps maps = {};
    MF_TRY((mf__maps_make<at::one>(&maps.own_one, keys ? f->k : f->q, f->heads, f->total, f->ldq, at::rows)));
    MF_TRY((mf__maps_make<at::two>(&maps.own_two, keys ? f->v : f->dout, f->heads, f->total, f->ldv, at::rows)));
    MF_TRY(mf__map_make(&maps.one, keys ? f->q : f->k, f->ldq, f->heads, f->total, f->ldq, at::wide, N));
    MF_TRY((mf__maps_make<at::two>(&maps.two, keys ? f->dout : f->v, f->heads, f->total, f->ldv, N)));
    const int64_t works = mf__flash_slots(f, at::rows) * f->heads, blocks = mf__cuda(d)->multiprocessors;
    return MF_LAUNCH(d, (hopper_slopes_kernel<BF16, DQK, DV, N, FIRST, SECOND, ROLE>), (unsigned)(works < blocks ? works : blocks), 384, at::bytes,
                     *f, maps);
}

/* The tiles of one pair of widths; times for them are in cuda/README.md. */
template <bool BF16, int DQK, int DV> static mf_status slopes_backward(mf_device *d, const mf_flash *f) {
    constexpr int wide = DQK + DV, queries = wide <= 128 ? 128 : wide <= 320 ? 96 : wide <= 400 ? 80 : 64;
    const double pairs = 2.0 * (double)f->pairs * f->heads, rows = (double)f->total * f->heads, widths = f->dqk + f->dv;
    auto work = [&](double columns, double results) { mf__cuda_work(d, pairs * columns, rows * (4 * widths + 4 * results + 12), MF_UNIT_FP16); };
    const bool keys = f->dk || f->dkey_bias;
    if (f->dq) {
        work(f->dqk + (keys || f->dv_ ? 0 : widths), f->dqk);       /* S and dP count once */
        MF_TRY((slopes_launch<BF16, DQK, DV, queries, 2, wide <= 400 ? 2 : 1, MF_SLOPES_Q>(d, f)));
    }
    if (!keys && !f->dv_) return MF_OK;
    if constexpr (wide <= 400) {
        work(widths + widths, widths);
        if constexpr (wide <= 224) return slopes_launch<BF16, DQK, DV, wide <= 128 ? 80 : 64, 2, 2, MF_SLOPES_KV>(d, f);
        else return mf__hopper_slopes_pair(d, f);
    } else {
        if (keys) {
            work(widths + f->dqk, f->dqk);
            MF_TRY((slopes_launch<BF16, DQK, DV, 64, 2, 1, MF_SLOPES_K>(d, f)));
        }
        work(f->dv + (keys ? 0 : f->dqk), f->dv);
        return f->dv_ ? slopes_launch<BF16, DQK, DV, 80, 2, 2, MF_SLOPES_V>(d, f) : MF_OK;
    }
}

bool mf__hopper_backward_apart([[maybe_unused]] mf_device *d, [[maybe_unused]] const mf_flash *f, [[maybe_unused]] mf_status *status) {
    if (!mf__hopper_fills(d, f)) return false;
#define MF_PAIR(dqk_, dv__) \
    if (f->dqk <= dqk_ && f->dv <= dv__) { \
        *status = f->bf16 ? slopes_backward<true, dqk_, dv__>(d, f) : slopes_backward<false, dqk_, dv__>(d, f); \
        return true; \
    }
    MF_HOPPER_SLOPES_NARROW(MF_PAIR)
    MF_HOPPER_SLOPES_MIDDLE(MF_PAIR)
    MF_HOPPER_SLOPES_LARGE(MF_PAIR)
#undef MF_PAIR
    return false;
}
