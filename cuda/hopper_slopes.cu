/* hopper_slopes.cu: fused attention for sm_90a, backward, every bit the same each time.
 *
 *   P = exp(Q K' + key_bias - lse),  dP = dO V',  dS = P (dP - delta)
 *   dQ = dS K,  dK = dS' Q,  dV = P' dO,  dkey_bias = column sums of dS             per sequence and head; all written with '='
 *
 * Each gradient is made as the forward makes `out`: a block owns 128 rows of one side, the rows of the other side pass in tiles, weights
 * become operands in the registers in which their product left them, and nothing goes through shared memory twice or by atomics.
 *
 *   block owns         passing            makes, a tile                                         columns of products
 *   queries Q, dO      keys K, V          S = Q K',  dP = dO V',   dQ += dS K                   2 d_qk + d_v
 *   keys K, V          queries Q, dO      S' = K Q', dP' = V dO',  dK += dS' Q, row sums        2 d_qk + d_v
 *   keys K             queries Q, dO      S' = K Q',               dV += P' dO                  d_qk + d_v
 *   keys K, V          queries Q, dO      dK and dV at once, where both fit into registers      2 d_qk + 2 d_v
 *
 * so 5 d_qk + 3 d_v columns (narrow: 4 d_qk + 3 d_v) where sums by atomics need 3 d_qk + 2 d_v; operations are 2 L^2 times that a head.
 *
 * Threads. A warpgroup that fetches: one warp the tiles of width d_qk, one those of d_v, by bulk copies, one what goes with a row that passes
 * (bias, or lse and delta). Two warpgroups that multiply, 64 owned rows each. Blocks stay and take one (tile, head) after another; who
 * fetches runs ahead of who multiplies by what the shared memory holds.
 *
 * Within a tile a warpgroup takes exponentials of S while dP is under way, and queues S and dP of the next tile behind the last product, so
 * that the matrix unit is never without work for long.
 *
 * Numerics as in flash_backward.cu: sums, P, dS, lse float32; P and dS rounded when they become operands, in float16 P times 2^15. */
#include "hopper_tile.cuh"
#include <climits>

/* What a block makes of its rows. */
enum mf_slopes_role { MF_SLOPES_Q, MF_SLOPES_K, MF_SLOPES_V, MF_SLOPES_KV };

/* Panels of what the second product multiplies as a whole: 64 columns, or 32 where those would be too many. */
static __host__ __device__ constexpr int slopes_wide(int columns) { return columns % 64 == 0 ? 64 : 32; }

/* One: the operands of width d_qk, two: those of d_v; own: 128 rows that stay, else N that pass, in FIRST and SECOND copies. */
template <int DQK, int DV, int N, int FIRST, int SECOND, mf_slopes_role ROLE> struct mf_slopes_layout {
    static constexpr bool slope = ROLE != MF_SLOPES_V, weight = ROLE == MF_SLOPES_V || ROLE == MF_SLOPES_KV;   /* multiplies dS, P */
    static constexpr int rows = 128, one = (DQK + 15) / 16 * 16, two = weight && DV <= 256 ? (DV + 63) / 64 * 64 : (DV + 15) / 16 * 16;
    static __host__ __device__ constexpr int up(int bytes) { return (bytes + 1023) / 1024 * 1024; }
    static constexpr int own_one = mf_panels<one>::bytes(rows), own_two = slope ? mf_panels<two>::bytes(rows) : 0;
    static constexpr int wide = slopes_wide(DQK), across = (DQK + wide - 1) / wide * wide;        /* panels of tile one that passes */
    static constexpr int pass_one = 2 * across * N, pass_two = mf_panels<two>::bytes(N);
    static constexpr int step_one = up(pass_one), step_two = up(pass_two);
    static constexpr int at_own_two = up(own_one), at_one = at_own_two + up(own_two), at_two = at_one + FIRST * step_one;
    static constexpr int floats = at_two + (SECOND - 1) * step_two + pass_two, works = floats + FIRST * 2 * N * 4;
    static constexpr int bars = works + 32, pieces = 2 + FIRST + SECOND, bytes = bars + 16 * (pieces + 2);
    static_assert(N % 16 == 0 && bars % 8 == 0 && bytes <= 227 << 10);
};

/* Barriers of the pieces of a block's shared memory: each is full, then free again. */
struct mf_slopes_piece {
    mf_address full, free;
};
/* Which copy of a piece comes next, and the parity of its full barrier. */
template <int COPIES> struct mf_slopes_turn {
    int copy = 0, parity = 0;
    __device__ __forceinline__ void next() {
        if (++copy == COPIES) copy = 0, parity ^= 1;
    }
};

struct mf_slopes_maps {
    mf_maps own_one, own_two, one, two;
};

/* A tile of one head that a block owns: the first row and the length of its sequence, where in it the tile starts. length 0: no more. */
struct mf_slopes_work {
    int first, length, start, head;
};
/* The board in shared memory on which one warp announces what the block does next, two works ahead; `bars`: two pieces. */
struct mf_slopes_board {
    mf_address works, bars;
    mf_slopes_turn<2> turn;
    __device__ __forceinline__ mf_address full() const { return bars + 16 * turn.copy; }
    __device__ __forceinline__ mf_address free() const { return bars + 16 * turn.copy + 8; }
    /* All lanes of a warp that is to know. */
    __device__ __forceinline__ mf_slopes_work next() {
        mf__bar_await(full(), turn.parity);
        const float4 bits = mf__read4(works + 16 * turn.copy);
        mf_slopes_work work;
        memcpy(&work, &bits, 16);
        __syncwarp();
        if ((threadIdx.x & 31) == 0) mf__bar_arrive(free());
        turn.next();
        return work;
    }
    /* One warp: every gridDim.x-th tile, by sequence, head and tile, sequences of `rows` a tile. */
    __device__ __forceinline__ void announce(const mf_flash &f, int rows) {
        const int lane = threadIdx.x & 31;
        int base = 0, before = 0;             /* sequences from base on are looked at; tiles of those before it */
        for (int at = (int)blockIdx.x;; at += (int)gridDim.x) {
            mf_slopes_work work = {};
            while (base < f.sequences) {
                const int s = base + lane, first = s < f.sequences ? f.offsets[s] : 0, length = s < f.sequences ? f.offsets[s + 1] - first : 0;
                const int tiles = (length + rows - 1) / rows;
                int sum = tiles * f.heads;
                for (int step = 1; step < 32; step *= 2) {
                    const int other = __shfl_up_sync(0xffffffffu, sum, step);
                    if (lane >= step) sum += other;
                }
                const uint32_t beyond = __ballot_sync(0xffffffffu, before + sum > at);
                if (beyond) {
                    const int owner = __ffs(beyond) - 1, across = __shfl_sync(0xffffffffu, tiles, owner);
                    const int local = at - before - (__shfl_sync(0xffffffffu, sum, owner) - across * f.heads);
                    work = {__shfl_sync(0xffffffffu, first, owner), __shfl_sync(0xffffffffu, length, owner), local % across * rows, local / across};
                    break;
                }
                before += __shfl_sync(0xffffffffu, sum, 31);
                base += 32;
            }
            mf__bar_await(free(), turn.parity ^ 1);
            if (lane == 0) {
                float bits[4];
                memcpy(bits, &work, 16);
                mf__write16(works + 16 * turn.copy, bits);
                mf__bar_arrive(full());
            }
            __syncwarp();
            turn.next();
            if (work.length == 0) return;
        }
    }
};

template <bool BF16, int DQK, int DV, int N, int FIRST, int SECOND, mf_slopes_role ROLE>
static __global__ void __launch_bounds__(384, 1) hopper_slopes_kernel(const mf_flash f, const __grid_constant__ mf_slopes_maps maps) {
#if MF_HAS_WGMMA
    using at = mf_slopes_layout<DQK, DV, N, FIRST, SECOND, ROLE>;
    constexpr bool keys = ROLE != MF_SLOPES_Q;
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared);
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
        for (int i = 0; i < 2; i++) {
            mf__bar_init(piece(at::pieces + i).full, 1);
            mf__bar_init(piece(at::pieces + i).free, 11);     /* warps that fetch or multiply */
        }
        mf__bar_init_seen();
    }
    __syncthreads();
    mf_slopes_board board = {base + at::works, base + at::bars + 16 * at::pieces, {}};

    if (group == 0) {
        mf__registers_less<24>();
        if (warp < 2) {                                                           /* tiles: warp 0 those of d_qk, warp 1 those of d_v */
            mf_slopes_turn<1> own;
            mf_slopes_turn<FIRST> turn_one;
            mf_slopes_turn<SECOND> turn_two;
            for (mf_slopes_work place = board.next(); place.length > 0; place = board.next()) {
                if (lane == 0 && warp == 0) {
                    mf__bar_await(own_one.free, own.parity ^ 1);
                    mf__bar_expect(own_one.full, at::own_one);
                    mf__tile_fetch<at::one, at::rows>(base, &maps.own_one, own_one.full, place.head, place.first + place.start);
#pragma unroll 1
                    for (int j = 0; j < place.length; j += N) {
                        const mf_slopes_piece to = one(turn_one.copy);
                        mf__bar_await(to.free, turn_one.parity ^ 1);
                        mf__bar_expect(to.full, at::pass_one);
                        mf__even_fetch<at::across, at::wide, N>(base + at::at_one + turn_one.copy * at::step_one, &maps.one.whole, to.full, place.head,
                            place.first + j);
                        turn_one.next();
                    }
                }
                if (lane == 0 && warp == 1) {
                    if constexpr (at::slope) {
                        mf__bar_await(own_two.free, own.parity ^ 1);
                        mf__bar_expect(own_two.full, at::own_two);
                        mf__tile_fetch<at::two, at::rows>(base + at::at_own_two, &maps.own_two, own_two.full, place.head, place.first + place.start);
                    }
#pragma unroll 1
                    for (int j = 0; j < place.length; j += N) {
                        const mf_slopes_piece to = two(turn_two.copy);
                        mf__bar_await(to.free, turn_two.parity ^ 1);
                        mf__bar_expect(to.full, at::pass_two);
                        mf__tile_fetch<at::two, N>(base + at::at_two + turn_two.copy * at::step_two, &maps.two, to.full, place.head,
                            place.first + j);
                        turn_two.next();
                    }
                }
                __syncwarp();
                own.next();
            }
        } else if (warp == 2) {                                                   /* floats: bias of keys, or lse and delta of queries */
            mf_slopes_turn<FIRST> turn;
            for (mf_slopes_work place = board.next(); place.length > 0; place = board.next()) {
#pragma unroll 1
                for (int j = 0; j < place.length; j += N) {
                    float x[(N + 31) / 32], y[(N + 31) / 32];
#pragma unroll
                    for (int r = 0; r < (N + 31) / 32; r++) {
                        const int i = j + lane + 32 * r;
                        const int64_t row = (int64_t)(place.first + i) * f.heads + place.head;
                        if (i < place.length) {
                            if constexpr (keys) {
                                const float lse = f.lse[row];
                                x[r] = lse == -INFINITY ? INFINITY : fmaf(lse, MF_LOG2E, at::weight && !BF16 ? -15.0f : 0.0f);
                                y[r] = at::slope ? f.delta[row] : 0.0f;
                            } else x[r] = f.key_bias ? f.key_bias[row] * MF_LOG2E : 0.0f, y[r] = 0.0f;
                        } else x[r] = keys ? INFINITY : -INFINITY, y[r] = 0.0f;
                    }
                    mf__bar_await(one(turn.copy).free, turn.parity ^ 1);
                    const mf_address to = base + at::floats + turn.copy * 8 * N + 4 * lane;
#pragma unroll
                    for (int r = 0; r < (N + 31) / 32; r++)
                        if (N % 32 == 0 || lane + 32 * r < N) {
                            mf__write(to + 128 * r, x[r]);
                            if (keys && at::slope) mf__write(to + 4 * N + 128 * r, y[r]);
                        }
                    __syncwarp();
                    if (lane == 0) mf__bar_arrive(one(turn.copy).full);
                    turn.next();
                }
            }
        } else if (warp == 3) board.announce(f, at::rows);
    } else {
        mf__registers_more<240>();
        const int g = lane >> 2, t = lane & 3, consumer = group - 1;
        const float unit = at::weight && !BF16 ? 1.0f / 32768 : 1.0f, back = 1.0f / *f.scale;     /* of P */
        mf_slopes_turn<1> own;
        mf_slopes_turn<FIRST> turn_one;
        mf_slopes_turn<SECOND> turn_two;
        auto release = [&](mf_address bar) {
            __syncwarp();
            if (lane == 0) mf__bar_arrive(bar);
        };
        for (mf_slopes_work place = board.next(); place.length > 0; place = board.next()) {
            const int first = place.start + consumer * 64 + warp * 16 + g, tiles = (place.length + N - 1) / N;
            const int64_t row0 = (int64_t)place.first * f.heads + place.head;
            float shift[2], delta[2], sum[2] = {0, 0};          /* keys: of the bias; queries: of lse */
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int i = first + 8 * h;
                const int64_t row = row0 + (int64_t)i * f.heads;
                const bool inside = i < place.length;
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
            mf__bar_await(own_one.full, own.parity);
            if constexpr (at::slope) mf__bar_await(own_two.full, own.parity);
            for (int tile = 0; tile < tiles; tile++) {
                const mf_slopes_piece this_one = one(turn_one.copy), this_two = two(turn_two.copy);
                const mf_address tile_one = base + at::at_one + turn_one.copy * at::step_one;
                const mf_address tile_two = base + at::at_two + turn_two.copy * at::step_two;
                mf__bar_await(this_one.full, turn_one.parity);
                if (const int left = place.length - tile * N; left < N) {         /* rows past the end become zeros */
                    mf__bar_await(this_two.full, turn_two.parity);
                    mf__even_clear<at::across, at::wide, N>(tile_one, left, threadIdx.x - 128, 256);
                    mf__tile_clear<at::two, N>(tile_two, left, threadIdx.x - 128, 256);
                    mf__proxy_fence();
                    mf__barrier(1, 256);
                }
                float s[N / 2], dp[at::slope ? N / 2 : 1];
                mf__wgmma_fence();
                #pragma unroll
                for (int k = 0; k < at::one / 16; k++)
                    mf__wgmma<BF16, N, 0, 0>(s, mf__tile_rows<at::one, at::rows>(base, 64 * consumer, k), mf__even_rows<at::wide, N>(tile_one, 0, k), k > 0);
                mf__wgmma_commit();
                if constexpr (at::slope) {
                    mf__bar_await(this_two.full, turn_two.parity);
                    mf__wgmma_fence();
                    mf__tiles_nt<BF16, N, at::two, at::rows, N>(dp, base + at::at_own_two, 64 * consumer, tile_two, 0, false);
                    mf__wgmma_commit();
                }
                mf__wgmma_wait<at::slope ? 1 : 0>();
                mf__keep(s);
                const mf_address floats = base + at::floats + turn_one.copy * 8 * N + 8 * t;
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
                if constexpr (!at::slope) release(this_one.free);
                if (tile + 1 == tiles) release(own_one.free);
                uint32_t p[N / 16][4], ds[N / 16][4];
                if constexpr (at::weight) {
#pragma unroll
                    for (int i = 0; i < N / 4; i++) p[i / 4][i % 4] = mf__pack<BF16>(s[2 * i], s[2 * i + 1]);
                    if constexpr (!at::slope) mf__bar_await(this_two.full, turn_two.parity);
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
                    if constexpr (!at::weight) release(this_two.free);
                    if (tile + 1 == tiles) release(own_two.free);
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
                    release(this_one.free);
                }
                if constexpr (at::weight) {
                    mf__keep(weights);
                    release(this_two.free);
                }
                turn_one.next();
                turn_two.next();
            }
            own.next();

#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int i = first + 8 * h;
                if constexpr (keys && at::slope) {
                    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
                    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
                }
                if (i >= place.length) continue;
                const int64_t row = row0 + (int64_t)i * f.heads;
                float *const to = keys ? f.dk : f.dq;
                if (at::slope && to)
#pragma unroll
                    for (int n = 0; n < DQK / 8; n++)
                        mf__put2(to + row * f.dqk, n * 8 + 2 * t, f.dqk, slopes[at::slope ? 4 * n + 2 * h : 0] * back,
                            slopes[at::slope ? 4 * n + 2 * h + 1 : 0] * back);
                if (at::weight && f.dv_)
#pragma unroll
                    for (int n = 0; n < DV / 8; n++)
                        mf__put2(f.dv_ + row * f.dv, n * 8 + 2 * t, f.dv, weights[at::weight ? 4 * n + 2 * h : 0] * (back * unit),
                            weights[at::weight ? 4 * n + 2 * h + 1 : 0] * (back * unit));
                if (keys && at::slope && f.dkey_bias && t == 0) f.dkey_bias[row] = sum[h] * back;
            }
        }
    }
#endif
}

template <bool BF16, int DQK, int DV, int N, int FIRST, int SECOND, mf_slopes_role ROLE>
static mf_status slopes_launch(mf_device *d, const mf_flash *f) {
    using at = mf_slopes_layout<DQK, DV, N, FIRST, SECOND, ROLE>;
    constexpr bool keys = ROLE != MF_SLOPES_Q;
    static_assert(at::bytes > 0);
    mf_slopes_maps maps = {};
    MF_TRY((mf__maps_make<at::one>(&maps.own_one, keys ? f->k : f->q, f->heads, f->total, f->ldq, at::rows)));
    MF_TRY((mf__maps_make<at::two>(&maps.own_two, keys ? f->v : f->dout, f->heads, f->total, f->ldv, at::rows)));
    MF_TRY(mf__map_make(&maps.one.whole, keys ? f->q : f->k, f->ldq, f->heads, f->total, f->ldq, at::wide, N));
    MF_TRY((mf__maps_make<at::two>(&maps.two, keys ? f->dout : f->v, f->heads, f->total, f->ldv, N)));
    const int64_t works = mf__flash_slots(f, at::rows) * f->heads, blocks = mf__cuda(d)->multiprocessors;
    return MF_LAUNCH(d, (hopper_slopes_kernel<BF16, DQK, DV, N, FIRST, SECOND, ROLE>), (unsigned)(works < blocks ? works : blocks), 384, at::bytes,
                     *f, maps);
}

/* dK and dV of 64 keys by two warpgroups: the first makes S', P', dV += P' dO, the second dP', dS', dK += dS' Q; P goes from one to the
 * other through shared memory, thread by thread. K and V are operands in registers. */
template <int DQK, int DV, int N, int COPIES, bool KEPT, bool HALF> struct mf_slopes_pair {
    static constexpr int rows = 64, one = (DQK + 15) / 16 * 16, two = (DV + 63) / 64 * 64, two_steps = (DV + 15) / 16;
    static constexpr int two_own = KEPT ? two : two_steps * 16;
    static constexpr int wide = slopes_wide(DQK), across = (DQK + wide - 1) / wide * wide;
    static constexpr int pass_one = 2 * across * N, pass_two = mf_panels<two>::bytes(N);
    static constexpr int own_one = mf_panels<one>::bytes(rows), own_two = mf_panels<two_own>::bytes(rows);
    static constexpr int at_own_two = KEPT ? 0 : own_one, at_one = KEPT ? 0 : own_one + (own_two + 1023) / 1024 * 1024;
    static constexpr int at_two = at_one + COPIES * pass_one, weights = at_two + COPIES * pass_two, floats = weights + N * 64 * (HALF ? 2 : 4),
        works = floats + COPIES * 2 * N * 4, bars = works + 32, pieces = 3 + 2 * COPIES, bytes = bars + 16 * (pieces + 2);
    static_assert(N % 16 == 0 && (N >= rows || !KEPT) && pass_one % 1024 == 0 && pass_two % 1024 == 0 && bytes <= 227 << 10);
};
template <bool BF16, int DQK, int DV, int N, int COPIES, bool KEPT, bool HALF>
static __global__ void __launch_bounds__(384, 1) hopper_slopes_pair_kernel(const mf_flash f, const __grid_constant__ mf_slopes_maps maps) {
#if MF_HAS_WGMMA
    using at = mf_slopes_pair<DQK, DV, N, COPIES, KEPT, HALF>;
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared);
    auto piece = [&](int i) { return mf_slopes_piece{base + at::bars + 16 * i, base + at::bars + 16 * i + 8}; };
    const mf_slopes_piece weights = piece(0), own_one = piece(1), own_two = piece(2);
    auto one = [&](int copy) { return piece(3 + copy); };
    auto two = [&](int copy) { return piece(3 + COPIES + copy); };
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0), warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0) % 4;
    const int lane = threadIdx.x & 31;
    if (threadIdx.x == 0) {
        mf__bar_init(weights.full, 4);
        mf__bar_init(weights.free, 4);
        mf__bar_init(own_one.full, 1);
        mf__bar_init(own_one.free, 4);
        mf__bar_init(own_two.full, 1);
        mf__bar_init(own_two.free, 4);
        for (int i = 0; i < COPIES; i++) {
            mf__bar_init(one(i).full, 2);                     /* copies; the floats of a row */
            mf__bar_init(one(i).free, 8);
            mf__bar_init(two(i).full, 1);
            mf__bar_init(two(i).free, 8);
        }
        for (int i = 0; i < 2; i++) {
            mf__bar_init(piece(at::pieces + i).full, 1);
            mf__bar_init(piece(at::pieces + i).free, 11);     /* warps that fetch or multiply */
        }
        mf__bar_init_seen();
    }
    __syncthreads();
    mf_slopes_board board = {base + at::works, base + at::bars + 16 * at::pieces, {}};

    if (group == 0) {
        mf__registers_less<24>();
        if (warp == 3) board.announce(f, at::rows);
        else {
        mf_slopes_turn<COPIES> turn;                          /* KEPT: the first tile of a work is its own rows */
        mf_slopes_turn<1> own;
        for (mf_slopes_work place = board.next(); place.length > 0; place = board.next()) {
            if (!KEPT && warp < 2 && lane == 0) {
                const mf_slopes_piece to = warp == 0 ? own_one : own_two;
                mf__bar_await(to.free, own.parity ^ 1);
                mf__bar_expect(to.full, warp == 0 ? at::own_one : at::own_two);
                if (warp == 0) mf__tile_fetch<at::one, at::rows>(base, &maps.own_one, to.full, place.head, place.first + place.start);
                else mf__tile_fetch<at::two_own, at::rows>(base + at::at_own_two, &maps.own_two, to.full, place.head, place.first + place.start);
            }
            own.next();
            if (warp < 2 && lane == 0) {
#pragma unroll 1
                for (int j = KEPT ? -N : 0; j < place.length; j += N) {
                    const mf_slopes_piece to = warp == 0 ? one(turn.copy) : two(turn.copy);
                    mf__bar_await(to.free, turn.parity ^ 1);
                    if (warp == 0) {
                        const mf_address tile = base + at::at_one + turn.copy * at::pass_one;
                        mf__bar_expect(to.full, j < 0 ? at::own_one : at::pass_one);
                        if (j < 0) mf__tile_fetch<at::one, at::rows>(tile, &maps.own_one, to.full, place.head, place.first + place.start);
                        else mf__even_fetch<at::across, at::wide, N>(tile, &maps.one.whole, to.full, place.head, place.first + j);
                    } else {
                        const mf_address tile = base + at::at_two + turn.copy * at::pass_two;
                        mf__bar_expect(to.full, j < 0 ? at::own_two : at::pass_two);
                        if (j < 0) mf__tile_fetch<at::two_own, at::rows>(tile, &maps.own_two, to.full, place.head, place.first + place.start);
                        else mf__tile_fetch<at::two, N>(tile, &maps.two, to.full, place.head, place.first + j);
                    }
                    turn.next();
                }
            }
            if (warp == 2) {
#pragma unroll 1
                for (int j = KEPT ? -N : 0; j < place.length; j += N) {
                    float x[(N + 31) / 32], y[(N + 31) / 32];
#pragma unroll
                    for (int r = 0; r < (N + 31) / 32; r++) {
                        const int i = j + lane + 32 * r;
                        const int64_t row = (int64_t)(place.first + i) * f.heads + place.head;
                        x[r] = INFINITY, y[r] = 0.0f;
                        if (j >= 0 && i < place.length) {
                            const float lse = f.lse[row];
                            x[r] = lse == -INFINITY ? INFINITY : fmaf(lse, MF_LOG2E, BF16 ? 0.0f : -15.0f);
                            y[r] = f.delta[row];
                        }
                    }
                    mf__bar_await(one(turn.copy).free, turn.parity ^ 1);
                    const mf_address to = base + at::floats + turn.copy * 8 * N + 4 * lane;
#pragma unroll
                    for (int r = 0; r < (N + 31) / 32; r++)
                        if (N % 32 == 0 || lane + 32 * r < N) {
                            mf__write(to + 128 * r, x[r]);
                            mf__write(to + 4 * N + 128 * r, y[r]);
                        }
                    __syncwarp();
                    if (lane == 0) mf__bar_arrive(one(turn.copy).full);
                    turn.next();
                }
            }
            __syncwarp();
        }
        }
    } else {
        mf__registers_more<240>();
        const int g = lane >> 2, t = lane & 3, thread = threadIdx.x % 128;
        constexpr float unit = BF16 ? 1.0f : 1.0f / 32768;
        const float back = 1.0f / *f.scale;
        mf_slopes_turn<COPIES> turn;
        mf_slopes_turn<1> exchange, own;
        auto release = [&](mf_address bar) {
            __syncwarp();
            if (lane == 0) mf__bar_arrive(bar);
        };
        auto tile_one = [&](int copy) { return base + at::at_one + copy * at::pass_one; };
        auto tile_two = [&](int copy) { return base + at::at_two + copy * at::pass_two; };
        auto whole = [&](int left) {                          /* waits for both tiles of a turn where rows past the end become zeros */
            if (left >= N) return;
            mf__bar_await(one(turn.copy).full, turn.parity);
            mf__bar_await(two(turn.copy).full, turn.parity);
            mf__even_clear<at::across, at::wide, N>(tile_one(turn.copy), left, threadIdx.x - 128, 256);
            mf__tile_clear<at::two, N>(tile_two(turn.copy), left, threadIdx.x - 128, 256);
            mf__proxy_fence();
            mf__barrier(1, 256);
        };
        for (mf_slopes_work place = board.next(); place.length > 0; place = board.next()) {
            const int first = place.start + warp * 16 + g, tiles = (place.length + N - 1) / N;
            const int64_t row0 = (int64_t)place.first * f.heads + place.head;
            if (group == 1) {
                float shift[2], dv[DV / 2];
#pragma unroll
                for (int h = 0; h < 2; h++)
                    shift[h] = f.key_bias && first + 8 * h < place.length ? f.key_bias[row0 + (int64_t)(first + 8 * h) * f.heads] * MF_LOG2E : 0.0f;
                uint32_t k[KEPT ? at::one / 16 : 1][4], p[N / 16][4];
                if constexpr (KEPT) {
                    mf__bar_await(one(turn.copy).full, turn.parity);
#pragma unroll
                    for (int i = 0; i < at::one / 16; i++) mf__tile_operand<at::one, at::rows>(k[i], tile_one(turn.copy), 16 * warp, i);
                    release(one(turn.copy).free);
                    release(two(turn.copy).free);
                    turn.next();
                } else mf__bar_await(own_one.full, own.parity);
#pragma unroll
                for (float &x : dv) x = 0;
                auto step = [&](int tile, auto more) {        /* more: there is a tile before, whose P waits in p */
                    whole(place.length - tile * N);
                    const int before = (turn.copy + COPIES - 1) % COPIES;
                    float s[N / 2];
                    if constexpr (KEPT)
#pragma unroll
                        for (float &x : s) x = 0;
                    mf__bar_await(one(turn.copy).full, turn.parity);
                    mf__wgmma_fence();
#pragma unroll
                    for (int i = 0; i < at::one / 16; i++) {
                        const mf_matrix right = mf__even_rows<at::wide, N>(tile_one(turn.copy), 0, i);
                        if constexpr (KEPT) mf__wgmma_r<BF16, N, 0>(s, k[i], right);
                        else mf__wgmma<BF16, N, 0, 0>(s, mf__tile_rows<at::one, at::rows>(base, 0, i), right, i > 0);
                    }
                    mf__wgmma_commit();
                    if constexpr (decltype(more)::value) {
#pragma unroll
                        for (int i = 0; i < N / 16; i++) mf__tile_step<BF16, DV, N>(dv, p[i], tile_two(before), i);
                        mf__wgmma_commit();
                    }
                    mf__wgmma_wait<decltype(more)::value>();
                    mf__keep(s);
                    if (!KEPT && tile + 1 == tiles) release(own_one.free);
                    const mf_address floats = base + at::floats + turn.copy * 8 * N + 8 * t;
#pragma unroll
                    for (int n = 0; n < N / 8; n++) {
                        const float2 lse = mf__read2(floats + 32 * n);
#pragma unroll
                        for (int h = 0; h < 2; h++) {
                            s[4 * n + 2 * h] = mf__exp2(fmaf(s[4 * n + 2 * h], MF_LOG2E, shift[h]) - lse.x);
                            s[4 * n + 2 * h + 1] = mf__exp2(fmaf(s[4 * n + 2 * h + 1], MF_LOG2E, shift[h]) - lse.y);
                        }
                    }
                    release(one(turn.copy).free);
                    mf__bar_await(weights.free, exchange.parity ^ 1);
                    if constexpr (HALF) {
#pragma unroll
                        for (int i = 0; i < N / 16; i++) {
                            float bits[4];
                            const uint32_t pairs[4] = {mf__pack<BF16>(s[8 * i], s[8 * i + 1]), mf__pack<BF16>(s[8 * i + 2], s[8 * i + 3]),
                                mf__pack<BF16>(s[8 * i + 4], s[8 * i + 5]), mf__pack<BF16>(s[8 * i + 6], s[8 * i + 7])};
                            memcpy(bits, pairs, 16);
                            mf__write16(base + at::weights + 2048 * i + 16 * thread, bits);
                        }
                    } else {
#pragma unroll
                        for (int i = 0; i < N / 8; i++)
                            mf__write16(base + at::weights + 2048 * i + 16 * thread, {s[4 * i], s[4 * i + 1], s[4 * i + 2], s[4 * i + 3]});
                    }
                    release(weights.full);
                    exchange.next();
                    if constexpr (decltype(more)::value) {
                        mf__wgmma_wait<0>();
                        mf__keep(dv);
                        release(two(before).free);
                    }
                    mf__keep(s);                              /* so that nothing is rounded into registers of a product under way */
#pragma unroll
                    for (int i = 0; i < N / 4; i++) p[i / 4][i % 4] = mf__pack<BF16>(s[2 * i], s[2 * i + 1]);
                    mf__bar_await(two(turn.copy).full, turn.parity);
                    turn.next();
                };
                step(0, std::false_type());
                for (int tile = 1; tile < tiles; tile++) step(tile, std::true_type());
                const int last = (turn.copy + COPIES - 1) % COPIES;
                mf__wgmma_fence();
#pragma unroll
                for (int i = 0; i < N / 16; i++) mf__tile_step<BF16, DV, N>(dv, p[i], tile_two(last), i);
                mf__wgmma_commit();
                mf__wgmma_wait<0>();
                mf__keep(dv);
                release(two(last).free);
                own.next();
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    if (first + 8 * h >= place.length || !f.dv_) continue;
                    float *to = f.dv_ + (row0 + (int64_t)(first + 8 * h) * f.heads) * f.dv;
#pragma unroll
                    for (int n = 0; n < DV / 8; n++)
                        mf__put2(to, n * 8 + 2 * t, f.dv, dv[4 * n + 2 * h] * (back * unit), dv[4 * n + 2 * h + 1] * (back * unit));
                }
            } else {
                float sum[2] = {0, 0}, dk[DQK / 2];
                uint32_t v[KEPT ? at::two_steps : 1][4], ds[N / 16][4];
                if constexpr (KEPT) {
                    mf__bar_await(two(turn.copy).full, turn.parity);
#pragma unroll
                    for (int i = 0; i < at::two_steps; i++) mf__tile_operand<at::two, at::rows>(v[i], tile_two(turn.copy), 16 * warp, i);
                    release(one(turn.copy).free);
                    release(two(turn.copy).free);
                    turn.next();
                } else mf__bar_await(own_two.full, own.parity);
#pragma unroll
                for (float &x : dk) x = 0;
                auto step = [&](int tile, auto more) {
                    whole(place.length - tile * N);
                    const int before = (turn.copy + COPIES - 1) % COPIES;
                    float dp[N / 2];
                    if constexpr (KEPT)
#pragma unroll
                        for (float &x : dp) x = 0;
                    mf__bar_await(two(turn.copy).full, turn.parity);
                    mf__wgmma_fence();
#pragma unroll
                    for (int i = 0; i < at::two_steps; i++) {
                        const mf_matrix right = mf__tile_rows<at::two, N>(tile_two(turn.copy), 0, i);
                        if constexpr (KEPT) mf__wgmma_r<BF16, N, 0>(dp, v[i], right);
                        else mf__wgmma<BF16, N, 0, 0>(dp, mf__tile_rows<at::two_own, at::rows>(base + at::at_own_two, 0, i), right, i > 0);
                    }
                    mf__wgmma_commit();
                    if constexpr (decltype(more)::value) {
#pragma unroll
                        for (int i = 0; i < N / 16; i++) mf__wgmma_r<BF16, DQK, 1>(dk, ds[i], mf__even_columns<at::wide, N>(tile_one(before), i));
                        mf__wgmma_commit();
                    }
                    mf__wgmma_wait<decltype(more)::value>();
                    mf__keep(dp);
                    if (!KEPT && tile + 1 == tiles) release(own_two.free);
                    release(two(turn.copy).free);
                    mf__bar_await(one(turn.copy).full, turn.parity);
                    mf__bar_await(weights.full, exchange.parity);
                    const mf_address floats = base + at::floats + turn.copy * 8 * N + 4 * N + 8 * t;
#pragma unroll
                    for (int n = 0; n < N / 8; n++) {
                        const float2 delta = mf__read2(floats + 32 * n);
                        float4 p;
                        if constexpr (HALF) {
                            const float2 bits = mf__read2(base + at::weights + 2048 * (n / 2) + 16 * thread + 8 * (n % 2));
                            mf_half<BF16> q[4];
                            memcpy(q, &bits, 8);
                            p = make_float4(mf__to<float>(q[0]), mf__to<float>(q[1]), mf__to<float>(q[2]), mf__to<float>(q[3]));
                        } else p = mf__read4(base + at::weights + 2048 * n + 16 * thread);
                        dp[4 * n] = p.x * unit * (dp[4 * n] - delta.x);
                        dp[4 * n + 1] = p.y * unit * (dp[4 * n + 1] - delta.y);
                        dp[4 * n + 2] = p.z * unit * (dp[4 * n + 2] - delta.x);
                        dp[4 * n + 3] = p.w * unit * (dp[4 * n + 3] - delta.y);
                        sum[0] += dp[4 * n] + dp[4 * n + 1];
                        sum[1] += dp[4 * n + 2] + dp[4 * n + 3];
                    }
                    release(weights.free);
                    exchange.next();
                    if constexpr (decltype(more)::value) {
                        mf__wgmma_wait<0>();
                        mf__keep(dk);
                        release(one(before).free);
                    }
#pragma unroll
                    for (int i = 0; i < N / 4; i++) ds[i / 4][i % 4] = mf__pack<BF16>(dp[2 * i], dp[2 * i + 1]);
                    turn.next();
                };
                step(0, std::false_type());
                for (int tile = 1; tile < tiles; tile++) step(tile, std::true_type());
                const int last = (turn.copy + COPIES - 1) % COPIES;
                mf__wgmma_fence();
#pragma unroll
                for (int i = 0; i < N / 16; i++) mf__wgmma_r<BF16, DQK, 1>(dk, ds[i], mf__even_columns<at::wide, N>(tile_one(last), i));
                mf__wgmma_commit();
                mf__wgmma_wait<0>();
                mf__keep(dk);
                release(one(last).free);
                own.next();
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 1);
                    sum[h] += __shfl_xor_sync(0xffffffffu, sum[h], 2);
                    if (first + 8 * h >= place.length) continue;
                    const int64_t row = row0 + (int64_t)(first + 8 * h) * f.heads;
                    if (f.dk)
#pragma unroll
                        for (int n = 0; n < DQK / 8; n++)
                            mf__put2(f.dk + row * f.dqk, n * 8 + 2 * t, f.dqk, dk[4 * n + 2 * h] * back, dk[4 * n + 2 * h + 1] * back);
                    if (f.dkey_bias && t == 0) f.dkey_bias[row] = sum[h] * back;
                }
            }
        }
    }
#endif
}
template <bool BF16, int DQK, int DV, int N, int COPIES, bool KEPT = true, bool HALF = false> static mf_status slopes_pair_launch(mf_device *d, const mf_flash *f) {
    using at = mf_slopes_pair<DQK, DV, N, COPIES, KEPT, HALF>;
    static_assert(at::bytes > 0);
    mf_slopes_maps maps = {};
    MF_TRY((mf__maps_make<at::one>(&maps.own_one, f->k, f->heads, f->total, f->ldq, at::rows)));
    MF_TRY((mf__maps_make<at::two_own>(&maps.own_two, f->v, f->heads, f->total, f->ldv, at::rows)));
    MF_TRY(mf__map_make(&maps.one.whole, f->q, f->ldq, f->heads, f->total, f->ldq, at::wide, N));
    MF_TRY((mf__maps_make<at::two>(&maps.two, f->dout, f->heads, f->total, f->ldv, N)));
    const int64_t works = mf__flash_slots(f, at::rows) * f->heads, blocks = mf__cuda(d)->multiprocessors;
    return MF_LAUNCH(d, (hopper_slopes_pair_kernel<BF16, DQK, DV, N, COPIES, KEPT, HALF>), (unsigned)(works < blocks ? works : blocks), 384, at::bytes, *f, maps);
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
        else return slopes_pair_launch<BF16, DQK, DV, 64, wide <= 392 ? 4 : 3>(d, f);
    } else {
        if (keys) {
            work(widths + f->dqk, f->dqk);
            MF_TRY((slopes_launch<BF16, DQK, DV, 64, 2, 1, MF_SLOPES_K>(d, f)));
        }
        work(f->dv + (keys ? 0 : f->dqk), f->dv);
        return f->dv_ ? slopes_launch<BF16, DQK, DV, 80, 2, 2, MF_SLOPES_V>(d, f) : MF_OK;
    }
}

/* Columns of Q and K, of V and dO; smaller first: a problem takes the first pair that covers it. */
#ifndef MF_HOPPER_SLOPES
#define MF_HOPPER_SLOPES(X) X(64, 64) X(96, 128) X(128, 128) X(160, 160) X(160, 232) X(192, 192) X(208, 272) X(256, 256)
#endif

bool mf__hopper_backward_apart([[maybe_unused]] mf_device *d, [[maybe_unused]] const mf_flash *f, [[maybe_unused]] mf_status *status) {
    const mf_cuda *c = mf__cuda(d);
    if (c->capability != 90 || f->total > INT_MAX / 2 || mf__flash_slots(f, 64) * f->heads > INT_MAX / 2) return false;
    if (2 * (f->total * f->heads / 128) < c->multiprocessors) return false;           /* most multiprocessors would have nothing to do */
#define MF_PAIR(dqk_, dv__) \
    if (f->dqk <= dqk_ && f->dv <= dv__) { \
        *status = f->bf16 ? slopes_backward<true, dqk_, dv__>(d, f) : slopes_backward<false, dqk_, dv__>(d, f); \
        return true; \
    }
    MF_HOPPER_SLOPES(MF_PAIR)
#undef MF_PAIR
    return false;
}
