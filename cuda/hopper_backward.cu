/* hopper_backward.cu: fused attention for sm_90a, backward of widths up to 64, five products, parts of dQ added by atomics.
 *
 *   P = exp(Q K' + key_bias - lse),  dP = dO V',  dS = P (dP - delta)
 *   dV = P' dO,  dK = dS' Q,  dQ = dS K,  dkey_bias = column sums of dS             per sequence and head; all written with '='
 *
 * A block owns 128 keys, 64 a warpgroup: K and V stay in shared memory, dK and dV in registers; queries pass in tiles of 64. S and dP are made
 * transposed, keys down, so that weights are operands of dV and dK in the registers in which their product left them. Only dS goes through
 * shared memory, for dQ: both warpgroups meet once a tile, then each makes half of the columns of dQ's part from all 128 keys.
 *
 *   tile      S' = K Q', dP' = V dO' | dV += P' dO, dK += dS' Q | dQ part = dS K        5 x 128 x 64 x 64: 1280 cycles of the matrix unit
 *   behind    exp of this tile behind dP; S of the next tile is queued before dS is taken; additions to dQ between the next exponentials
 *   registers dK, dV 32 each, S, P, dP 32 each, dQ 16, operands 32; 232 a thread, no spills
 *   memory    K, V 32 KB, Q and dO three tiles each 48 KB, dS two tiles 32 KB, lse and delta 1.5 KB
 *
 * Work 2 L^2 (3 d_qk + 2 d_v) operations a head; L2 takes L / 128 additions to every element of dQ, as the matrix unit holds it
 * (flash_sums.cuh: zeroed before, gathered after). The order of those varies, and so do the last bits of dQ: where they must not,
 * hopper_slopes.cu makes dQ in blocks of its own.
 *
 * Threads: a warpgroup that fetches (Q; lse and delta; dO; what to do next, a warp each) and two that multiply. Blocks stay and take one
 * (sequence, head, keys) after another.
 *
 * Rows beyond a sequence's end are those of the next one, whatever they hold: keys and queries of a last tile are zeroed in shared memory, keys
 * have a bias of -inf, queries an lse of +inf. Numerics as in flash_backward.cu. Times and what they are bounded by: cuda/README.md. */
#include "flash_sums.cuh"
#include "hopper_tile.cuh"

struct fused_layout {
    static constexpr int width = 64, keys = 128, queries = 64, stages = 3, threads = 384;
    static constexpr int own = 2 * keys * width, pass = 2 * queries * width, weights = 2 * keys * queries;    /* bytes of a tile */
    static constexpr int v = own, q = v + own, dout = q + stages * pass, ds = dout + stages * pass, rows = ds + 2 * weights,
                         board = rows + stages * 2 * 4 * queries, bars = board + mf_board::bytes, bytes = bars + 8 * (4 + 4 * stages);
    static_assert(own % 1024 == 0 && pass % 1024 == 0 && weights % 1024 == 0 && board % 16 == 0 && bytes <= 227 << 10);
};
struct fused_maps {
    mf_map k, v, q, dout;
};

/* Barriers: full when copies have landed, free when all eight warps that read are done. */
struct fused_bars {
    mf_address at;
    __device__ __forceinline__ mf_address k_full() const { return at; }
    __device__ __forceinline__ mf_address k_free() const { return at + 8; }
    __device__ __forceinline__ mf_address v_full() const { return at + 16; }
    __device__ __forceinline__ mf_address v_free() const { return at + 24; }
    __device__ __forceinline__ mf_address q_full(int stage) const { return at + 32 + 32 * stage; }
    __device__ __forceinline__ mf_address q_free(int stage) const { return at + 40 + 32 * stage; }
    __device__ __forceinline__ mf_address dout_full(int stage) const { return at + 48 + 32 * stage; }
    __device__ __forceinline__ mf_address dout_free(int stage) const { return at + 56 + 32 * stage; }
    /* Q's is full when lse and delta are there too, which a warp writes. */
    __device__ __forceinline__ void init() const {
        mf__bar_init(k_full(), 1);
        mf__bar_init(k_free(), 8);
        mf__bar_init(v_full(), 1);
        mf__bar_init(v_free(), 8);
        for (int stage = 0; stage < fused_layout::stages; stage++) {
            mf__bar_init(q_full(stage), 33);
            mf__bar_init(q_free(stage), 8);
            mf__bar_init(dout_full(stage), 1);
            mf__bar_init(dout_free(stage), 8);
        }
    }
};

/* Warps 0 to 2 of the warpgroup that fetches. */
template <bool BF16>
static __device__ __forceinline__ void fused_fetch(const mf_flash &f, const fused_maps &maps, mf_address base, const fused_bars &bars, mf_board board,
    int warp) {
    using at = fused_layout;
    const int lane = threadIdx.x & 31;
    mf_ring<at::stages> ring;
    mf_ring<1> turn;
    for (mf_work work = board.next(); work.length > 0; work = board.next(), turn.next()) {
        if (warp == 0 && lane == 0) {
            mf__bar_await(bars.k_free(), turn.phase ^ 1);
            mf__bar_expect(bars.k_full(), at::own);
            mf__even_fetch<at::width, 16, at::keys>(base, &maps.k, bars.k_full(), work.head, work.first + work.start);
        }
        if (warp == 2 && lane == 0) {
            mf__bar_await(bars.v_free(), turn.phase ^ 1);
            mf__bar_expect(bars.v_full(), at::own);
            mf__map_copy(base + at::v, &maps.v, bars.v_full(), 0, work.head, work.first + work.start);
        }
        for (int i = 0; i < work.length; i += at::queries, ring.next()) {
            if (warp == 0 && lane == 0) {
                mf__bar_await(bars.q_free(ring.stage), ring.phase ^ 1);
                mf__bar_expect(bars.q_full(ring.stage), at::pass);
                mf__map_copy(base + at::q + ring.stage * at::pass, &maps.q, bars.q_full(ring.stage), 0, work.head, work.first + i);
            }
            if (warp == 1) {
                const mf_address to = base + at::rows + ring.stage * 8 * at::queries + 4 * lane;
                float lse[2], delta[2];
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const bool inside = i + 32 * half + lane < work.length;
                    const int64_t from = (int64_t)(work.first + (inside ? i + 32 * half + lane : 0)) * f.heads + work.head;
                    const mf_backward_row<BF16> row(f.lse[from], inside ? f.delta[from] : 0.0f, inside);
                    lse[half] = row.lse, delta[half] = row.delta;
                }
                mf__bar_await(bars.q_free(ring.stage), ring.phase ^ 1);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    mf__write(to + 128 * half, lse[half]);
                    mf__write(to + 4 * at::queries + 128 * half, delta[half]);
                }
                mf__bar_arrive(bars.q_full(ring.stage));
            }
            if (warp == 2 && lane == 0) {
                mf__bar_await(bars.dout_free(ring.stage), ring.phase ^ 1);
                mf__bar_expect(bars.dout_full(ring.stage), at::pass);
                mf__map_copy(base + at::dout + ring.stage * at::pass, &maps.dout, bars.dout_full(ring.stage), 0, work.head, work.first + i);
            }
        }
        __syncwarp();
    }
}

/* The two warpgroups that multiply. */
template <bool BF16>
static __device__ __forceinline__ void fused_multiply(const mf_flash &f, float *sums, mf_address base, const fused_bars &bars, mf_board board, int group,
    int warp) {
    using at = fused_layout;
    constexpr int W = at::width;
    constexpr float unit = mf_backward_row<BF16>::unit;
    const int thread = threadIdx.x, lane = thread & 31, g = lane >> 2, t = lane & 3;
    const mf_address ds_mine = base + at::ds + (64 * group + 16 * warp + g) * 128 + 4 * t;
    mf_ring<at::stages> ring;
    mf_ring<2> ds_ring;
    mf_ring<1> turn;
    auto meet = [&] {
        mf__proxy_fence();
        mf__barrier(1, 256);
    };
    auto release = [&](mf_address bar) {
        __syncwarp();
        if (lane == 0) mf__bar_arrive(bar);
    };
    for (mf_work work = board.next(); work.length > 0; work = board.next(), turn.next()) {
        const int length = work.length;
        float s[32], dp[32], dq[W / 4], dk[W / 2], dv[W / 2], bias[2], dbias[2] = {};
        uint32_t p16[4][4], ds16[4][4];
#pragma unroll
        for (int i = 0; i < W / 2; i++) dk[i] = dv[i] = 0;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int j = work.start + 64 * group + 16 * warp + 8 * h + g;
            bias[h] = j >= length ? -INFINITY : f.key_bias ? f.key_bias[(int64_t)(work.first + j) * f.heads + work.head] * MF_LOG2E : 0.0f;
        }
        /* Where this lane's share of dQ's part of the tile before goes. */
        const mf_place place = {work.first, length, work.start, work.sequence};
        const int64_t on = (int64_t)(at::queries / 16) * f.heads * (W / 8) * 128;
        float *to = sums ? mf__sums_at(sums, f, place, 16 * warp, work.head, W) + group * (W / 16) * 128 + 4 * lane - on : nullptr;
        auto add_part = [&](int tile, int n) {
            if (sums && tile >= 0 && tile * at::queries + 16 * warp < length) mf__add4(to + n * 128, reinterpret_cast<const float (&)[4]>(dq[4 * n]));
        };
        /* Waits for tile `tile` of Q or dO. */
        auto take = [&](mf_address full, int phase, mf_address from, int tile) {
            mf__bar_await(full, phase);
            if ((tile + 1) * at::queries > length) {
                mf__tile_clear<W, at::queries>(from, length % at::queries, thread, 256);
                meet();
            }
        };
        auto score = [&](int tile, const mf_ring<at::stages> &here) {
            const mf_address q = base + at::q + here.stage * at::pass;
            take(bars.q_full(here.stage), here.phase, q, tile);
            const mf_matrix k_mine = mf__even_rows<16, at::keys>(base, 64 * group, 0);
            mf__keep(s);
            mf__wgmma_fence();
#pragma unroll
            for (int k = 0; k < W / 16; k++)
                mf__wgmma<BF16, 64, 0, 0>(s, mf__matrix_on(k_mine, k * at::keys * 32), mf__tile_rows<W, at::queries>(q, 0, k), k > 0);
            mf__wgmma_commit();
        };

        mf__bar_await(bars.k_full(), turn.phase);
        if (work.start + at::keys > length) {
            mf__bar_await(bars.v_full(), turn.phase);
            mf__even_clear<W, 16, at::keys>(base, length - work.start, thread, 256);
            mf__tile_clear<W, at::keys>(base + at::v, length - work.start, thread, 256);
            meet();
        }
        score(0, ring);
        mf__bar_await(bars.v_full(), turn.phase);
        mf__wgmma_wait<0>();
        mf__keep(s);

        /* S of the tile is here, dK of the tile before under way. */
        auto step = [&](int tile, auto last) {
            constexpr bool more = !decltype(last)::value;
            const mf_address q = base + at::q + ring.stage * at::pass, dout = base + at::dout + ring.stage * at::pass;
            take(bars.dout_full(ring.stage), ring.phase, dout, tile);
            mf__keep(dp);
            mf__wgmma_fence();
            mf__tiles_nt<BF16, 64, W, at::keys, at::queries>(dp, base + at::v, 64 * group, dout, 0, false);
            mf__wgmma_commit();

            const mf_address rows = base + at::rows + ring.stage * 8 * at::queries + 8 * t;
            float p[32];
#pragma unroll
            for (int j = 0; j < 8; j++) {
                if (j % 2 == 1) add_part(tile - 1, j / 2);
                const float2 lse = mf__read2(rows + 32 * j);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    p[4 * j + 2 * h] = mf__exp2(fmaf(s[4 * j + 2 * h], MF_LOG2E, bias[h]) - lse.x);
                    p[4 * j + 2 * h + 1] = mf__exp2(fmaf(s[4 * j + 2 * h + 1], MF_LOG2E, bias[h]) - lse.y);
                }
            }
            mf__keep(p);
            to += on;
            mf__wgmma_wait<1>();
            if (tile > 0) release(bars.q_free(ring.before()));
            if constexpr (more) score(tile + 1, ring.after());
            mf__wgmma_wait<more ? 1 : 0>();
            mf__keep(dp);
            if constexpr (!more) release(bars.v_free());
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float2 delta = mf__read2(rows + 4 * at::queries + 32 * j);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const int c = 4 * j + 2 * h;
                    const float x = p[c] * fmaf(dp[c], unit, -delta.x), y = p[c + 1] * fmaf(dp[c + 1], unit, -delta.y);
                    dbias[h] += x + y;
                    p16[j / 2][j % 2 * 2 + h] = mf__pack<BF16>(p[c], p[c + 1]);
                    ds16[j / 2][j % 2 * 2 + h] = mf__pack<BF16>(x, y);
                    mf__store4(ds_mine + ds_ring.stage * at::weights + h * 1024 + ((j ^ g) << 4), ds16[j / 2][j % 2 * 2 + h]);
                }
            }
            mf__keep(dbias);
            mf__proxy_fence();
            mf__wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; k++) mf__tile_step<BF16, W, at::queries>(dv, p16[k], dout, k);
            mf__wgmma_commit();
            mf__barrier(2, 256);              /* dS is whole; nobody reads the other tile of it any more */
            const mf_address ds = base + at::ds + ds_ring.stage * at::weights;
            mf__keep(dq);
            mf__wgmma_fence();
#pragma unroll
            for (int k = 0; k < at::keys / 16; k++)
                mf__wgmma<BF16, W / 2, 1, 1>(dq, mf__even_columns<64, at::keys>(ds, k),
                    mf__even_columns<16, at::keys>(base + group * (W / 32) * at::keys * 32, k), k > 0);
            mf__wgmma_commit();
#pragma unroll
            for (int k = 0; k < 4; k++) mf__tile_step<BF16, W, at::queries>(dk, ds16[k], q, k);
            mf__wgmma_commit();
            mf__wgmma_wait<1>();              /* all but dK */
            mf__keep(dq);
            mf__keep(s);
            release(bars.dout_free(ring.stage));
            if constexpr (!more) release(bars.k_free());
            ring.next();
            ds_ring.next();
        };
        int tile = 0;
        for (; (tile + 1) * at::queries < length; tile++) step(tile, std::false_type());
        step(tile, std::true_type());
        mf__wgmma_wait<0>();
        mf__keep(dk);
        mf__keep(dv);
        release(bars.q_free(ring.before()));
#pragma unroll
        for (int n = 0; n < W / 16; n++) add_part(tile, n);

        const float back = 1.0f / *f.scale;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int j = work.start + 64 * group + 16 * warp + 8 * h + g;
            const int64_t row = (int64_t)(work.first + j) * f.heads + work.head;
            float sum = dbias[h];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            if (j >= length) continue;
            if (f.dkey_bias && t == 0) f.dkey_bias[row] = sum * back;
            if (f.dk) mf__row_put<W>(f.dk + row * f.dqk, f.dqk, dk, h, back);
            if (f.dv_) mf__row_put<W>(f.dv_ + row * f.dv, f.dv, dv, h, back * unit);
        }
    }
}

template <bool BF16>
static __global__ void __launch_bounds__(fused_layout::threads, 1)
hopper_fused_backward_kernel(const mf_flash f, const __grid_constant__ fused_maps maps, float *sums) {
#if MF_HAS_WGMMA
    using at = fused_layout;
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared);
    const fused_bars bars = {base + at::bars};
    const mf_board board = {base + at::board, {}};
    const int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0), warp = __shfl_sync(0xffffffffu, (int)threadIdx.x / 32 % 4, 0);
    if (threadIdx.x == 0) {
        bars.init();
        board.init(11);
        mf__bar_init_seen();
    }
    __syncthreads();
    if (group == 2) {
        mf__registers_less<40>();
        if (warp < 3) fused_fetch<BF16>(f, maps, base, bars, board, warp);
        else mf_board(board).announce(f, at::keys);
    } else {
        mf__registers_more<232>();
        fused_multiply<BF16>(f, sums, base, bars, board, group, warp);
    }
#else
    __trap();
#endif
}

template <bool BF16> static mf_status fused_launch(mf_device *d, const mf_flash *f) {
    using at = fused_layout;
    fused_maps maps;
    MF_TRY(mf__map_make(&maps.k, f->k, f->ldq, f->heads, f->total, f->ldq, 16, at::keys));
    MF_TRY(mf__map_make(&maps.v, f->v, f->ldv, f->heads, f->total, f->ldv, 64, at::keys));
    MF_TRY(mf__map_make(&maps.q, f->q, f->ldq, f->heads, f->total, f->ldq, 64, at::queries));
    MF_TRY(mf__map_make(&maps.dout, f->dout, f->ldv, f->heads, f->total, f->ldv, 64, at::queries));
    mf_scratch scratch;
    if (f->dq) {
        MF_TRY(scratch.take(d, mf__sums_floats(f, at::width) * 4));
        MF_TRY(mf__sums_zero(d, f, scratch.as<float>(), at::width));
    }
    const int64_t tiles = mf__flash_slots(f, at::keys) * f->heads, most = mf__cuda(d)->multiprocessors;
    mf__flash_work(d, f, true);
    MF_TRY(MF_LAUNCH(d, hopper_fused_backward_kernel<BF16>, (unsigned)(tiles < most ? tiles : most), at::threads, at::bytes, *f, maps,
        scratch.as<float>()));
    return f->dq ? mf__sums_gather<at::width>(d, f, scratch.as<float>()) : MF_OK;
}

bool mf__hopper_backward_fused(mf_device *d, const mf_flash *f, mf_status *status) {
    /* Sums of dQ are padded to 16 rows a sequence. */
    if (f->deterministic || f->dqk > 64 || f->dv > 64 || !mf__hopper_fills(d, f) || mf__flash_slots(f, 16) * 16 > 2 * f->total + 4096) return false;
    *status = f->bf16 ? fused_launch<true>(d, f) : fused_launch<false>(d, f);
    return true;
}
