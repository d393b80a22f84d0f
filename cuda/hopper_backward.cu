/* hopper_backward.cu: fused attention for sm_90a, backward, parts of dQ added by atomics: for widths up to 64, and long sequences of default widths.
 *
 *   P = exp(Q K' + key_bias - lse),  dP = dO V',  dS = P (dP - delta)
 *   dV = P' dO,  dK = dS' Q,  dQ = dS K,  dkey_bias = column sums of dS             per sequence and head; all written with '='
 *
 * A block owns 128 keys, 64 a warpgroup: K and V stay in shared memory, dK and dV in registers; queries pass in tiles of 64. S and dP are made
 * transposed, keys down, so that weights are operands of dV and dK in the registers in which their product left them. Only dS goes through
 * shared memory, for dQ: both warpgroups meet once a tile, then each makes half of the columns of dQ's part from all 128 keys.
 *
 *   widths    a kernel makes   products of a tile of 128 x 64 (matrix unit)                      accumulators; shared memory
 *   64, 64    all              S' = K Q', dP' = V dO', dV, dK, dQ              1280 cycles       dK 32, dV 32, dQ 16; 114 KB
 *   160, 232  dK and dQ        S' = K Q', dP' = V dO', dK, dQ                  2880              dK 80, dQ 40; 226 KB
 *             dV               S' = K Q', dV                                   1568              dV 116; 145 KB
 *
 * besides 32 each for S, P, dP and the next S; 232 registers a thread, no spills. Registers do not hold dK and dV of 64 x 392, hence the two
 * kernels: 4 d_qk + 2 d_v columns of products where 3 d_qk + 2 d_v would do, and 5 d_qk + 3 d_v are needed without atomics.
 *
 * Order within a tile: dP is queued, behind it exponentials are taken; S of the next tile is queued before dS is taken; dV, dQ, dK follow. So
 * the matrix unit has work while the others do theirs.
 *
 * dQ. L2 takes L / 128 additions to each element, kept as the matrix unit holds it (flash_sums.cuh: zeroed before, gathered after), at once or,
 * where registers allow, between the next exponentials. Their order varies, and so do the last bits of dQ: where they must not, and where
 * sequences are too short to pay for zeroing and gathering, hopper_slopes.cu makes dQ in blocks of its own.
 *
 * Threads: a warpgroup that fetches (Q; lse and delta; dO; what to do next, a warp each) and two that multiply. Blocks stay and take one
 * (sequence, head, keys) after another.
 *
 * Rows beyond a sequence's end are those of the next one, whatever they hold: keys and queries of a last tile are zeroed in shared memory, keys
 * have a bias of -inf, queries an lse of +inf. Numerics as in flash_backward.cu. Times and what they are bounded by: cuda/README.md. */
#include "flash_sums.cuh"
#include "hopper_tile.cuh"

/* What one kernel makes: dV, or dK and dQ, or all. */
enum fused_role { FUSED_V = 1, FUSED_KQ = 2, FUSED_ALL = 3 };

template <int DQK, int DV, fused_role ROLE> struct fused_layout {
    static constexpr bool weight = ROLE & FUSED_V, slope = ROLE & FUSED_KQ;                  /* multiplies P, dS */
    static constexpr int keys = 128, queries = 64, threads = 384;
    static constexpr int deep = (DV + 15) / 16 * 16, wide = (DV + 63) / 64 * 64;             /* columns of V, of dO */
    static constexpr int q_stages = slope ? 3 : 2, dout_stages = !slope ? 2 : DQK + DV > 256 ? 1 : 3;
    static constexpr int k_bytes = 2 * keys * DQK, v_bytes = slope ? 2 * keys * deep : 0, q_bytes = 2 * queries * DQK, dout_bytes = 2 * queries * wide,
                         ds_bytes = slope ? 2 * keys * queries : 0;
    static constexpr int v = k_bytes, q = v + v_bytes, dout = q + q_stages * q_bytes, ds = dout + dout_stages * dout_bytes, rows = ds + 2 * ds_bytes,
                         board = rows + q_stages * 2 * 4 * queries, bars = board + mf_board::bytes,
                         bytes = bars + 8 * (4 + 2 * q_stages + 2 * dout_stages);
    static_assert(v % 1024 == 0 && q % 1024 == 0 && q_bytes % 1024 == 0 && rows % 1024 == 0 && bytes <= 227 << 10);
};
struct fused_maps {
    mf_map k, v, dout;
    mf_maps q;
};

/* Barriers: full when copies have landed, free when all eight warps that read are done. */
template <class at> struct fused_bars {
    mf_address start;
    __device__ __forceinline__ mf_address k_full() const { return start; }
    __device__ __forceinline__ mf_address k_free() const { return start + 8; }
    __device__ __forceinline__ mf_address v_full() const { return start + 16; }
    __device__ __forceinline__ mf_address v_free() const { return start + 24; }
    __device__ __forceinline__ mf_address q_full(int stage) const { return start + 32 + 16 * stage; }
    __device__ __forceinline__ mf_address q_free(int stage) const { return q_full(stage) + 8; }
    __device__ __forceinline__ mf_address dout_full(int stage) const { return start + 32 + 16 * at::q_stages + 16 * stage; }
    __device__ __forceinline__ mf_address dout_free(int stage) const { return dout_full(stage) + 8; }
    /* Q's is full when lse and delta are there too, which a warp writes. */
    __device__ __forceinline__ void init() const {
        mf__bar_init(k_full(), 1);
        mf__bar_init(k_free(), 8);
        mf__bar_init(v_full(), 1);
        mf__bar_init(v_free(), 8);
        for (int stage = 0; stage < at::q_stages; stage++) {
            mf__bar_init(q_full(stage), 33);
            mf__bar_init(q_free(stage), 8);
        }
        for (int stage = 0; stage < at::dout_stages; stage++) {
            mf__bar_init(dout_full(stage), 1);
            mf__bar_init(dout_free(stage), 8);
        }
    }
};

/* Warps 0 to 2 of the warpgroup that fetches. */
template <bool BF16, int DQK, int DV, fused_role ROLE, class at>
static __device__ __forceinline__ void fused_fetch(const mf_flash &f, const fused_maps &maps, mf_address base, const fused_bars<at> &bars,
    mf_board board, int warp) {
    const int lane = threadIdx.x & 31;
    mf_ring<at::q_stages> ring;
    mf_ring<at::dout_stages> dout_ring;
    mf_ring<1> turn;
    for (mf_work work = board.next(); work.length > 0; work = board.next(), turn.next()) {
        if (warp == 0 && lane == 0) {
            mf__bar_await(bars.k_free(), turn.phase ^ 1);
            mf__bar_expect(bars.k_full(), at::k_bytes);
            mf__even_fetch<DQK, 16, at::keys>(base, &maps.k, bars.k_full(), work.head, work.first + work.start);
        }
        if (at::slope && warp == 2 && lane == 0) {
            mf__bar_await(bars.v_free(), turn.phase ^ 1);
            mf__bar_expect(bars.v_full(), at::v_bytes);
            mf__even_fetch<at::deep, 16, at::keys>(base + at::v, &maps.v, bars.v_full(), work.head, work.first + work.start);
        }
        for (int i = 0; i < work.length; i += at::queries, ring.next(), dout_ring.next()) {
            if (warp == 0 && lane == 0) {
                mf__bar_await(bars.q_free(ring.stage), ring.phase ^ 1);
                mf__bar_expect(bars.q_full(ring.stage), at::q_bytes);
                mf__tile_fetch<DQK, at::queries>(base + at::q + ring.stage * at::q_bytes, &maps.q, bars.q_full(ring.stage), work.head, work.first + i);
            }
            if (warp == 1) {
                const mf_address to = base + at::rows + ring.stage * 8 * at::queries + 4 * lane;
                float lse[2], delta[2];
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const bool inside = i + 32 * half + lane < work.length;
                    const int64_t from = (int64_t)(work.first + (inside ? i + 32 * half + lane : 0)) * f.heads + work.head;
                    const mf_backward_row<BF16> row(f.lse[from], at::slope && inside ? f.delta[from] : 0.0f, inside);
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
                const mf_address full = bars.dout_full(dout_ring.stage);
                mf__bar_await(bars.dout_free(dout_ring.stage), dout_ring.phase ^ 1);
                mf__bar_expect(full, at::dout_bytes);
                mf__even_fetch<at::wide, 64, at::queries>(base + at::dout + dout_ring.stage * at::dout_bytes, &maps.dout, full, work.head, work.first + i);
            }
        }
        __syncwarp();
    }
}

/* The two warpgroups that multiply. */
template <bool BF16, int DQK, int DV, fused_role ROLE, class at>
static __device__ __forceinline__ void fused_multiply(const mf_flash &f, float *sums, mf_address base, const fused_bars<at> &bars, mf_board board,
    int group, int warp) {
    constexpr float unit = mf_backward_row<BF16>::unit;
    constexpr bool slope = at::slope, weight = at::weight, spread = slope && weight;      /* additions to dQ go between exponentials */
    const int thread = threadIdx.x, lane = thread & 31, g = lane >> 2, t = lane & 3;
    const mf_address ds_mine = base + at::ds + (64 * group + 16 * warp + g) * 128 + 4 * t;
    const mf_matrix k_mine = mf__even_rows<16, at::keys>(base, 64 * group, 0), v_mine = mf__even_rows<16, at::keys>(base + at::v, 64 * group, 0);
    mf_ring<at::q_stages> ring;
    mf_ring<at::dout_stages> dout_ring;
    mf_ring<2> ds_ring;
    mf_ring<1> turn;
    auto meet = [&] {
        mf__proxy_fence();
        mf__barrier(1, 256);
    };
    for (mf_work work = board.next(); work.length > 0; work = board.next(), turn.next()) {
        const int length = work.length;
        float s[32], dp[slope ? 32 : 4], dq[slope ? DQK / 4 : 4], dk[slope ? DQK / 2 : 4], dv[weight ? DV / 2 : 4], bias[2], dbias[2] = {};
        uint32_t p16[weight ? 4 : 1][4], ds16[slope ? 4 : 1][4];
#pragma unroll
        for (int i = 0; i < (slope ? DQK / 2 : 4); i++) dk[i] = 0;
#pragma unroll
        for (int i = 0; i < (weight ? DV / 2 : 4); i++) dv[i] = 0;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int j = work.start + 64 * group + 16 * warp + 8 * h + g;
            bias[h] = j >= length ? -INFINITY : f.key_bias ? f.key_bias[(int64_t)(work.first + j) * f.heads + work.head] * MF_LOG2E : 0.0f;
        }
        /* Where this lane's share of dQ's next part goes. */
        const mf_place place = {work.first, length, work.start, work.sequence};
        float *to = sums ? mf__sums_at(sums, f, place, 16 * warp, work.head, DQK) + group * (DQK / 16) * 128 + 4 * lane : nullptr;
        auto add_part = [&](int tile, int n) {
            if (sums && tile >= 0 && tile * at::queries + 16 * warp < length) mf__add4(to + n * 128, reinterpret_cast<const float (&)[4]>(dq[4 * n]));
        };
        auto part_next = [&] { to += (int64_t)(at::queries / 16) * f.heads * (DQK / 8) * 128; };

        /* S of a tile begins to be made. */
        auto score = [&](int tile, const mf_ring<at::q_stages> &here) {
            const mf_address q = base + at::q + here.stage * at::q_bytes;
            mf__bar_await(bars.q_full(here.stage), here.phase);
            if ((tile + 1) * at::queries > length) {
                mf__tile_clear<DQK, at::queries>(q, length % at::queries, thread, 256);
                meet();
            }
            mf__keep(s);
            mf__wgmma_fence();
#pragma unroll
            for (int k = 0; k < DQK / 16; k++)
                mf__wgmma<BF16, 64, 0, 0>(s, mf__matrix_on(k_mine, k * at::keys * 32), mf__tile_rows<DQK, at::queries>(q, 0, k), k > 0);
            mf__wgmma_commit();
        };
        auto take_dout = [&](int tile) {
            const mf_address dout = base + at::dout + dout_ring.stage * at::dout_bytes;
            mf__bar_await(bars.dout_full(dout_ring.stage), dout_ring.phase);
            if ((tile + 1) * at::queries > length) {
                mf__tile_clear<at::wide, at::queries>(dout, length % at::queries, thread, 256);
                meet();
            }
            return dout;
        };
        auto make_dv = [&](mf_address dout) {
            if constexpr (weight) {
                mf__wgmma_fence();
#pragma unroll
                for (int k = 0; k < 4; k++) mf__tile_step<BF16, DV, at::queries>(dv, p16[k], dout, k);
                mf__wgmma_commit();
            }
        };

        mf__bar_await(bars.k_full(), turn.phase);
        if (work.start + at::keys > length) {
            mf__even_clear<DQK, 16, at::keys>(base, length - work.start, thread, 256);
            if constexpr (slope) {
                mf__bar_await(bars.v_full(), turn.phase);
                mf__even_clear<at::deep, 16, at::keys>(base + at::v, length - work.start, thread, 256);
            }
            meet();
        }
        score(0, ring);
        if (slope) mf__bar_await(bars.v_full(), turn.phase);
        mf__wgmma_wait<0>();
        mf__keep(s);

        /* S of the tile is here; dK of the tile before under way, or dV. */
        auto step = [&](int tile, auto last) {
            constexpr bool more = !decltype(last)::value;
            if constexpr (slope) {
                const mf_address dout = take_dout(tile);
                mf__keep(dp);
                mf__wgmma_fence();
#pragma unroll
                for (int k = 0; k < at::deep / 16; k++)
                    mf__wgmma<BF16, 64, 0, 0>(dp, mf__matrix_on(v_mine, k * at::keys * 32),
                        mf__matrix_on(mf__matrix_rows<128>(dout), k / 4 * at::queries * 128 + k % 4 * 32), k > 0);
                mf__wgmma_commit();
            }
            const mf_address rows = base + at::rows + ring.stage * 8 * at::queries + 8 * t;
            float p[32];
#pragma unroll
            for (int j = 0; j < 8; j++) {
                if constexpr (spread)
#pragma unroll
                    for (int n = j * (DQK / 16) / 8; n < (j + 1) * (DQK / 16) / 8; n++) add_part(tile - 1, n);
                const float2 lse = mf__read2(rows + 32 * j);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    p[4 * j + 2 * h] = mf__exp2(fmaf(s[4 * j + 2 * h], MF_LOG2E, bias[h]) - lse.x);
                    p[4 * j + 2 * h + 1] = mf__exp2(fmaf(s[4 * j + 2 * h + 1], MF_LOG2E, bias[h]) - lse.y);
                }
            }
            mf__keep(p);
            if (spread && tile > 0) part_next();
            auto pack_p = [&] {
                if constexpr (weight)
#pragma unroll
                    for (int j = 0; j < 8; j++)
#pragma unroll
                        for (int h = 0; h < 2; h++) p16[j / 2][j % 2 * 2 + h] = mf__pack<BF16>(p[4 * j + 2 * h], p[4 * j + 2 * h + 1]);
            };
            if constexpr (!slope) {
                mf__bar_release(bars.q_free(ring.stage));
                mf__wgmma_wait<0>();
                mf__keep(dv);
                if (tile > 0) mf__bar_release(bars.dout_free(dout_ring.before()));
                pack_p();
                if constexpr (more) score(tile + 1, ring.after());
                make_dv(take_dout(tile));
                mf__wgmma_wait<more ? 1 : 0>();
                mf__keep(s);
            } else {
                mf__wgmma_wait<1>();
                if (tile > 0) mf__bar_release(bars.q_free(ring.before()));
                if constexpr (more) score(tile + 1, ring.after());
                mf__wgmma_wait<more ? 1 : 0>();
                mf__keep(dp);
                if constexpr (!weight) mf__bar_release(bars.dout_free(dout_ring.stage));
                if constexpr (!more) mf__bar_release(bars.v_free());
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    const float2 delta = mf__read2(rows + 4 * at::queries + 32 * j);
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        const int c = 4 * j + 2 * h;
                        const float x = p[c] * fmaf(dp[c], unit, -delta.x), y = p[c + 1] * fmaf(dp[c + 1], unit, -delta.y);
                        dbias[h] += x + y;
                        ds16[j / 2][j % 2 * 2 + h] = mf__pack<BF16>(x, y);
                        mf__store4(ds_mine + ds_ring.stage * at::ds_bytes + h * 1024 + ((j ^ g) << 4), ds16[j / 2][j % 2 * 2 + h]);
                    }
                }
                mf__keep(dbias);
                mf__proxy_fence();
                pack_p();
                make_dv(base + at::dout + dout_ring.stage * at::dout_bytes);
                mf__barrier(2, 256);          /* dS is whole; nobody reads the other tile of it any more */
                const mf_address ds = base + at::ds + ds_ring.stage * at::ds_bytes;
                mf__keep(dq);
                mf__wgmma_fence();
#pragma unroll
                for (int k = 0; k < at::keys / 16; k++)
                    mf__wgmma<BF16, DQK / 2, 1, 1>(dq, mf__even_columns<64, at::keys>(ds, k),
                        mf__even_columns<16, at::keys>(base + group * (DQK / 32) * at::keys * 32, k), k > 0);
                mf__wgmma_commit();
#pragma unroll
                for (int k = 0; k < 4; k++) mf__panels_step<BF16, DQK, at::queries>(dk, ds16[k], base + at::q + ring.stage * at::q_bytes, k);
                mf__wgmma_commit();
                mf__wgmma_wait<1>();          /* all but dK */
                mf__keep(dq);
                mf__keep(s);
                if constexpr (weight) mf__bar_release(bars.dout_free(dout_ring.stage));
                if constexpr (!more) mf__bar_release(bars.k_free());
                if constexpr (!spread) {
#pragma unroll
                    for (int n = 0; n < DQK / 16; n++) add_part(tile, n);
                    part_next();
                }
                ds_ring.next();
            }
            ring.next();
            dout_ring.next();
        };
        int tile = 0;
        for (; (tile + 1) * at::queries < length; tile++) step(tile, std::false_type());
        step(tile, std::true_type());
        mf__wgmma_wait<0>();
        mf__keep(dk);
        mf__keep(dv);
        if constexpr (slope) mf__bar_release(bars.q_free(ring.before()));
        else {
            mf__bar_release(bars.dout_free(dout_ring.before()));
            mf__bar_release(bars.k_free());
        }
        if constexpr (spread)
#pragma unroll
            for (int n = 0; n < DQK / 16; n++) add_part(tile, n);

        const float back = 1.0f / *f.scale;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int j = work.start + 64 * group + 16 * warp + 8 * h + g;
            const int64_t row = (int64_t)(work.first + j) * f.heads + work.head;
            float sum = dbias[h];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            if (j >= length) continue;
            if constexpr (slope) {
                if (f.dkey_bias && t == 0) f.dkey_bias[row] = sum * back;
                if (f.dk) mf__row_put<DQK>(f.dk + row * f.dqk, f.dqk, dk, h, back);
            }
            if constexpr (weight)
                if (f.dv_) mf__row_put<DV>(f.dv_ + row * f.dv, f.dv, dv, h, back * unit);
        }
    }
}

template <bool BF16, int DQK, int DV, fused_role ROLE>
static __global__ void __launch_bounds__(384, 1)
hopper_fused_backward_kernel(const mf_flash f, const __grid_constant__ fused_maps maps, float *sums) {
#if MF_HAS_WGMMA
    using at = fused_layout<DQK, DV, ROLE>;
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared);
    const fused_bars<at> bars = {base + at::bars};
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
        if (warp < 3) fused_fetch<BF16, DQK, DV, ROLE>(f, maps, base, bars, board, warp);
        else mf_board(board).announce(f, at::keys);
    } else {
        mf__registers_more<232>();
        fused_multiply<BF16, DQK, DV, ROLE>(f, sums, base, bars, board, group, warp);
    }
#else
    __trap();
#endif
}

template <bool BF16, int DQK, int DV, fused_role ROLE>
static mf_status fused_part(mf_device *d, const mf_flash *f, const fused_maps &maps, float *sums) {
    using at = fused_layout<DQK, DV, ROLE>;
    const int64_t tiles = mf__flash_slots(f, at::keys) * f->heads, most = mf__cuda(d)->multiprocessors;
    return MF_LAUNCH(d, (hopper_fused_backward_kernel<BF16, DQK, DV, ROLE>), (unsigned)(tiles < most ? tiles : most), at::threads, at::bytes, *f, maps,
        sums);
}

template <bool BF16, int DQK, int DV> static mf_status fused_launch(mf_device *d, const mf_flash *f) {
    using at = fused_layout<DQK, DV, FUSED_V>;
    fused_maps maps = {};
    MF_TRY(mf__map_make(&maps.k, f->k, f->ldq, f->heads, f->total, f->ldq, 16, at::keys));
    MF_TRY(mf__map_make(&maps.v, f->v, f->ldv, f->heads, f->total, f->ldv, 16, at::keys));
    MF_TRY(mf__map_make(&maps.dout, f->dout, f->ldv, f->heads, f->total, f->ldv, 64, at::queries));
    MF_TRY(mf__maps_make<DQK>(&maps.q, f->q, f->heads, f->total, f->ldq, at::queries));
    mf_scratch scratch;
    if (f->dq) {
        MF_TRY(scratch.take(d, mf__sums_floats(f, DQK) * 4));
        MF_TRY(mf__sums_zero(d, f, scratch.as<float>(), DQK));
    }
    mf__flash_work(d, f, true);
    if constexpr (DQK + DV <= 128) MF_TRY((fused_part<BF16, DQK, DV, FUSED_ALL>(d, f, maps, scratch.as<float>())));
    else {
        if (f->dq || f->dk || f->dkey_bias) MF_TRY((fused_part<BF16, DQK, DV, FUSED_KQ>(d, f, maps, scratch.as<float>())));
        if (f->dv_) MF_TRY((fused_part<BF16, DQK, DV, FUSED_V>(d, f, maps, nullptr)));
    }
    return f->dq ? mf__sums_gather<DQK>(d, f, scratch.as<float>()) : MF_OK;
}

bool mf__hopper_backward_fused(mf_device *d, const mf_flash *f, mf_status *status) {
    /* Sums of dQ are padded to 16 rows a sequence. */
    if (f->deterministic || !mf__hopper_fills(d, f) || mf__flash_slots(f, 16) * 16 > 2 * f->total + 4096) return false;
    if (f->dqk <= 64 && f->dv <= 64) *status = f->bf16 ? fused_launch<true, 64, 64>(d, f) : fused_launch<false, 64, 64>(d, f);
    /* Two kernels and sums of dQ pay in long sequences only, and where little of these widths is padding. */
    else if (f->dqk > 128 && f->dqk <= 160 && f->dv > 192 && f->dv <= 232 && 5 * (f->longest / 128) >= mf__cuda(d)->multiprocessors)
        *status = f->bf16 ? fused_launch<true, 160, 232>(d, f) : fused_launch<false, 160, 232>(d, f);
    else return false;
    return true;
}
