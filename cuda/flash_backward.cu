/* flash_backward.cu: fused attention, backward.
 *
 *   P = exp(Q K' + key_bias - lse),  dP = dO V',  dS = P (dP - delta)
 *   dV = P' dO,  dK = dS' Q,  dQ = dS K,  dkey_bias = column sums of dS             per sequence and head; all written with '='
 *
 * Keys. A block of 8 warps owns N keys of one sequence and head: K and V stay in shared memory, dK and dV in registers, and the
 * queries pass in tiles of M. The same 8 warps cut every product anew: S and dP in WM x 8 / WM pieces; P and dS go through shared memory
 * in 16 bits; dV and dK in N / 32 x columns, dQ in M / 32 x columns. Of the 227 KB of an sm_90 block the default widths need 187 KB at
 * M = 128, N = 64, and 40 KB for parts of dQ, so Q and dO have one tile each: dO is fetched again once dV has used it, behind dK and dQ;
 * Q behind the next dP.
 *
 * Queries. Either that block adds its part of dQ by atomics: five products, and the bits of dQ vary from run to run. On sm_90 parts of
 * dQ go through shared memory and are added by the bulk engine, which leaves the warps' own loads alone.
 * Or other blocks of the same launch own M queries and go over the keys in tiles of N, dQ in registers: seven products, no atomics, every
 * bit the same each time. The second is the deterministic mode, and the faster one where there are few tiles.
 *
 * Work 2 L^2 (3 d_qk + 2 d_v) operations a head; a block reads Q and dO once, 784 bytes a query of the default widths. Per tile of 128 x 64
 * a warp does 472 products of 16 x 8 x 16 for 216 ldmatrix.x4; 104 registers hold dK and dV, 64 S and dP. Times: cuda/README.md.
 *
 * Numerics. Sums, P, dS and lse are float32; P and dS are rounded when they become operands, in float16 P times 2^15 (see
 * core/cpu/attention.c, as for the scale of dO). */
#include "flash_sums.cuh"

/* Where blocks of keys add their parts of dQ (flash_sums.cuh). */
struct mf_flash_sums {
    float *data;                  /* NULL: other blocks make dQ, or nobody */
    int64_t key_blocks;           /* blocks of the launch that own keys; the others own queries */
};

/* One axis of columns cut over `groups`, in tiles of 8: the first groups may have one more. */
template <int WIDTH, int GROUPS> struct mf_columns {
    static constexpr int whole = WIDTH / 8 / GROUPS, rest = WIDTH / 8 % GROUPS, tiles = whole + (rest > 0);
    int start;                    /* column */
    bool all;                     /* has `tiles` tiles, not one less */
    __device__ __forceinline__ explicit mf_columns(int group) : start((group * whole + (group < rest ? group : rest)) * 8),
        all(rest == 0 || group < rest) {}
    __device__ __forceinline__ bool has(int tile) const { return tile + 1 < tiles || all; }
};

template <int DQK, int DV, int M, int N, bool BULK> struct mf_backward_keys_layout {
    static constexpr int v = mf__tile_bytes(N, DQK), q = v + mf__tile_bytes(N, DV), dout = q + mf__tile_bytes(M, DQK),
                         p = dout + mf__tile_bytes(M, DV), ds = p + mf__tile_bytes(M, N), lse = ds + mf__tile_bytes(M, N),
                         delta = lse + 4 * M, sums = delta + 4 * M;
    static constexpr int part = 2 * 128 * 4 * ((DQK / 8 + 512 / M - 1) / (512 / M)), bytes = sums + (BULK ? 8 * part : 0);   /* of dQ,
        a warp */
};
template <int DQK, int DV, int M, int N> struct mf_backward_queries_layout {
    static constexpr int team = 256 / M, own = N / team, ldp = mf__tile_stride(own), piece = 2 * 32 * ldp;   /* of dS, a warp */
    static constexpr int dout = mf__tile_bytes(M, DQK), stages = dout + mf__tile_bytes(M, DV);
    static constexpr int v = mf__tile_bytes(N, DQK), bias = v + mf__tile_bytes(N, DV), stage = bias + 4 * N, ds = stages + 2 * stage,
        bytes = ds + 8 * piece;
    static_assert(own % 16 == 0);
};

template <bool BF16, int DQK, int DV, int M, int N, int WM, bool BULK>
static __device__ __forceinline__ void flash_backward_keys(const mf_flash &f, const mf_flash_sums &sums, int64_t block,
    unsigned char *shared) {
    using at = mf_backward_keys_layout<DQK, DV, M, N, BULK>;
    constexpr int threads = 256, ldq = mf__tile_stride(DQK), ldv = mf__tile_stride(DV), ldp = mf__tile_stride(N);
    constexpr int WN = 8 / WM, SM = M / WM, SN = N / WN;          /* pieces of S and dP */
    constexpr int groups = 256 / N;                               /* of columns of dK and dV; 32 keys each */
    constexpr int q_groups = 256 / M;                             /* of columns of dQ; 32 queries each */
    using k_columns = mf_columns<DQK, groups>;
    using v_columns = mf_columns<DV, groups>;
    constexpr int parts = 2;                                      /* of dQ in turn */
    using q_columns = mf_columns<DQK, q_groups * parts>;
    const int64_t slots = f.total / N + f.sequences;
    const int head = (int)(block / slots);
    const mf_place place = mf__flash_place(f, block % slots, N);
    if (place.start >= place.length) return;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int64_t q_stride = f.heads * f.ldq, v_stride = f.heads * f.ldv, row0 = place.first * f.heads + head;
    const mf_address base = mf__address(shared);
    const float back = 1.0f / *f.scale;

    auto fetch_dout = [&](int i) {
        const int left = place.length - i;
        mf__tile_copy<M, DV, threads>(base + at::dout, (const uint16_t *)f.dout + row0 * f.ldv + i * v_stride, v_stride, left, (int)f.ldv);
        const int r = threadIdx.x % M, which = threadIdx.x / M;
        const int64_t from = row0 + (int64_t)(i + (r < left ? r : 0)) * f.heads;
        if (which < 2) mf__copy4(base + at::lse + 4 * (which * M + r), (which ? f.delta : f.lse) + from, r < left);
    };
    auto fetch_q = [&](int i) {
        mf__tile_copy<M, DQK, threads>(base + at::q, (const uint16_t *)f.q + row0 * f.ldq + i * q_stride, q_stride, place.length - i,
            (int)f.ldq);
    };
    mf__tile_copy<N, DV, threads>(base + at::v, (const uint16_t *)f.v + row0 * f.ldv + place.start * v_stride, v_stride,
        place.length - place.start, (int)f.ldv);
    fetch_dout(0);
    mf__copy_commit();
    mf__tile_copy<N, DQK, threads>(base, (const uint16_t *)f.k + row0 * f.ldq + place.start * q_stride, q_stride,
        place.length - place.start, (int)f.ldq);
    fetch_q(0);
    mf__copy_commit();

    const int s_row = warp / WN * SM, s_column = warp % WN * SN;
    float bias[SN / 8][2], dbias[SN / 8][2] = {};
#pragma unroll
    for (int n = 0; n < SN / 8; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int j = place.start + s_column + n * 8 + 2 * t + e;
            bias[n][e] = j >= place.length ? -INFINITY : f.key_bias ? f.key_bias[row0 + (int64_t)j * f.heads] * MF_LOG2E : 0.0f;
        }
    const int key_group = warp / groups;
    const int column_group = (warp + key_group) % groups;         /* longer groups on different quarters of the multiprocessor */
    const k_columns kc(column_group);
    const v_columns vc(column_group);
    const int q_row = warp / q_groups * 32, q_group = (warp + warp / q_groups) % q_groups;
    float dk[2][k_columns::tiles][4] = {}, dv[2][v_columns::tiles][4] = {};

    auto dq_sums = [&](int i, int m) {        /* of 16 queries */
        return mf__sums_at(sums.data, f, place, i + q_row + 16 * m, head, DQK);
    };
    auto dq_part = [&](int i, int which) {
        const q_columns qc(q_group * parts + which);
        float part[2][q_columns::tiles][4] = {};
        mf__product_nn<BF16, 32, q_columns::tiles, N, ldp, ldq>(part, base + at::ds + 2 * q_row * ldp + mf__lane_a(ldp),
                                                                base + 2 * qc.start + mf__lane_b_t(ldq), qc.all);
        if constexpr (BULK && MF_HAS_BULK) {
            const mf_address mine = base + at::sums + warp * at::part;
            if (lane < 2) mf__add_wait();
            __syncwarp();
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int n = 0; n < q_columns::tiles; n++) mf__write16(mine + 16 * lane + 512 * (m * q_columns::tiles + n), part[m][n]);
            mf__proxy_fence();
            __syncwarp();
            if (lane < 2 && i + q_row + lane * 16 < place.length)
                mf__add_bulk(dq_sums(i, lane) + qc.start / 8 * 128, mine + lane * 512 * q_columns::tiles,
                    128 * (q_columns::tiles - !qc.all));
            mf__add_commit();
        } else {
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int n = 0; n < q_columns::tiles; n++)
                    if (i + q_row + m * 16 < place.length && qc.has(n)) mf__add4(dq_sums(i, m) + (qc.start / 8 + n) * 128 + 4 * lane,
                        part[m][n]);
        }
    };

    for (int i = 0; i < place.length; i += M) {
        mf__copy_wait<1>();
        __syncthreads();                      /* dO, lse and delta are here */
        float s[SM / 16][SN / 8][4] = {}, dp[SM / 16][SN / 8][4] = {};
        mf__product_nt<BF16, SM, SN, DV, ldv, ldv>(dp, base + at::dout + 2 * s_row * ldv + mf__lane_a(ldv),
            base + at::v + 2 * s_column * ldv + mf__lane_b(ldv));
        mf__copy_wait<0>();
        __syncthreads();                      /* and Q */
        mf__product_nt<BF16, SM, SN, DQK, ldq, ldq>(s, base + at::q + 2 * s_row * ldq + mf__lane_a(ldq),
            base + 2 * s_column * ldq + mf__lane_b(ldq));
#pragma unroll
        for (int m = 0; m < SM / 16; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int r = s_row + m * 16 + h * 8 + g;
                const mf_backward_row<BF16> row(mf__read(base + at::lse + 4 * r), mf__read(base + at::delta + 4 * r), i + r < place.length);
                const mf_address to = base + at::p + 2 * (r * ldp + s_column + 2 * t);
#pragma unroll
                for (int n = 0; n < SN / 8; n++) {
                    float p[2], ds[2];
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        p[e] = row.p(s[m][n][2 * h + e], bias[n][e]);
                        ds[e] = row.ds(p[e], dp[m][n][2 * h + e]);
                        dbias[n][e] += ds[e];
                    }
                    mf__store4(to + 16 * n, mf__pack<BF16>(p[0], p[1]));
                    mf__store4(to + 16 * n + (at::ds - at::p), mf__pack<BF16>(ds[0], ds[1]));
                }
            }
        __syncthreads();                      /* P and dS are whole */
        if (sums.data) dq_part(i, 0);
        mf__product_tn<BF16, 32, v_columns::tiles, M, ldp, ldv>(dv, base + at::p + 2 * key_group * 32 + mf__lane_a_t(ldp),
                                                                base + at::dout + 2 * vc.start + mf__lane_b_t(ldv), vc.all);
        __syncthreads();
        if (i + M < place.length) fetch_dout(i + M);
        mf__copy_commit();
        if (sums.data) dq_part(i, 1);
        mf__product_tn<BF16, 32, k_columns::tiles, M, ldp, ldq>(dk, base + at::ds + 2 * key_group * 32 + mf__lane_a_t(ldp),
                                                                base + at::q + 2 * kc.start + mf__lane_b_t(ldq), kc.all);
        __syncthreads();
        if (i + M < place.length) fetch_q(i + M);
        mf__copy_commit();
    }

    if (BULK && MF_HAS_BULK && sums.data && lane < 2) mf__add_wait();
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int j = place.start + key_group * 32 + m * 16 + h * 8 + g;
            if (j >= place.length) continue;
            const int64_t row = row0 + (int64_t)j * f.heads;
            if (f.dk)
#pragma unroll
                for (int n = 0; n < k_columns::tiles; n++)
                    if (kc.has(n)) mf__put2(f.dk + row * f.dqk, kc.start + n * 8 + 2 * t, f.dqk, dk[m][n][2 * h] * back,
                        dk[m][n][2 * h + 1] * back);
            const float back_p = back * mf_backward_row<BF16>::unit;
            if (f.dv_)
#pragma unroll
                for (int n = 0; n < v_columns::tiles; n++)
                    if (vc.has(n)) mf__put2(f.dv_ + row * f.dv, vc.start + n * 8 + 2 * t, f.dv, dv[m][n][2 * h] * back_p,
                        dv[m][n][2 * h + 1] * back_p);
        }
    if (f.dkey_bias) {
        __syncthreads();
#pragma unroll
        for (int n = 0; n < SN / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float sum = dbias[n][e];
                sum += __shfl_xor_sync(0xffffffffu, sum, 4);
                sum += __shfl_xor_sync(0xffffffffu, sum, 8);
                sum += __shfl_xor_sync(0xffffffffu, sum, 16);
                if (g == 0) ((float *)(shared + at::p))[warp / WN * N + s_column + n * 8 + 2 * t + e] = sum;
            }
        __syncthreads();
        const int j = threadIdx.x;
        if (j < N && place.start + j < place.length) {
            float sum = 0;
            for (int w = 0; w < WM; w++) sum += ((float *)(shared + at::p))[w * N + j];
            f.dkey_bias[row0 + (int64_t)(place.start + j) * f.heads] = sum * back;
        }
    }
}

/* Teams of 256 / M warps share 32 queries: each makes dS for its part of the keys of a tile, then its part of the columns of dQ, as
 * in flash_forward.cu. */
template <bool BF16, int DQK, int DV, int M, int N>
static __device__ __forceinline__ void flash_backward_queries(const mf_flash &f, int64_t block, unsigned char *shared) {
    using at = mf_backward_queries_layout<DQK, DV, M, N>;
    constexpr int threads = 256, ldq = mf__tile_stride(DQK), ldv = mf__tile_stride(DV), own = at::own, ldp = at::ldp;
    using q_columns = mf_columns<DQK, at::team>;
    const int64_t slots = f.total / M + f.sequences;
    const int head = (int)(block / slots);
    const mf_place place = mf__flash_place(f, block % slots, M);
    if (place.start >= place.length) return;
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, team = warp / at::team,
        member = warp % at::team;
    const int64_t q_stride = f.heads * f.ldq, v_stride = f.heads * f.ldv, row0 = place.first * f.heads + head;
    const mf_address base = mf__address(shared);
    const int tiles = (place.length + N - 1) / N;
    auto fetch = [&](int tile) {
        const mf_address to = base + at::stages + (tile & 1) * at::stage;
        const int j = tile * N, left = place.length - j;
        mf__tile_copy<N, DQK, threads>(to, (const uint16_t *)f.k + row0 * f.ldq + j * q_stride, q_stride, left, (int)f.ldq);
        mf__tile_copy<N, DV, threads>(to + at::v, (const uint16_t *)f.v + row0 * f.ldv + j * v_stride, v_stride, left, (int)f.ldv);
        const int i = threadIdx.x;
        if (f.key_bias && i < N) mf__copy4(to + at::bias + 4 * i, f.key_bias + row0 + (int64_t)(j + (i < left ? i : 0)) * f.heads,
            i < left);
    };
    mf__tile_copy<M, DQK, threads>(base, (const uint16_t *)f.q + row0 * f.ldq + place.start * q_stride, q_stride,
        place.length - place.start, (int)f.ldq);
    mf__tile_copy<M, DV, threads>(base + at::dout, (const uint16_t *)f.dout + row0 * f.ldv + place.start * v_stride, v_stride,
        place.length - place.start, (int)f.ldv);
    fetch(0);
    mf__copy_commit();

    const int first_row = place.start + team * 32;
    const bool active = first_row < place.length;
    float lse[2][2], delta[2][2];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int r = first_row + m * 16 + h * 8 + g;
            lse[m][h] = r < place.length ? f.lse[row0 + (int64_t)r * f.heads] : -INFINITY;
            delta[m][h] = r < place.length ? f.delta[row0 + (int64_t)r * f.heads] : 0.0f;
        }
    const q_columns qc(member);
    const mf_address q_mine = base + 2 * team * 32 * ldq + mf__lane_a(ldq),
        dout_mine = base + at::dout + 2 * team * 32 * ldv + mf__lane_a(ldv);
    const mf_address ds_write = base + at::ds + warp * at::piece + 2 * (g * ldp + 2 * t),
        ds_team = base + at::ds + team * at::team * at::piece + mf__lane_a(ldp);
    float dq[2][q_columns::tiles][4] = {};
    for (int tile = 0; tile < tiles; tile++) {
        mf__copy_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles) fetch(tile + 1);
        mf__copy_commit();
        if (!active) continue;
        const mf_address here = base + at::stages + (tile & 1) * at::stage;
        float s[2][own / 8][4] = {}, dp[2][own / 8][4] = {};
        mf__product_nt<BF16, 32, own, DQK, ldq, ldq>(s, q_mine, here + 2 * member * own * ldq + mf__lane_b(ldq));
        mf__product_nt<BF16, 32, own, DV, ldv, ldv>(dp, dout_mine, here + at::v + 2 * member * own * ldv + mf__lane_b(ldv));
        const int left = place.length - tile * N - member * own - 2 * t;
        uint32_t ds[own / 16][2][4];
#pragma unroll
        for (int n = 0; n < own / 8; n++) {
            const float2 b = f.key_bias ? mf__read2(here + at::bias + 4 * (member * own + n * 8 + 2 * t)) : make_float2(0, 0);
            const float b0 = n * 8 < left ? b.x * MF_LOG2E : -INFINITY, b1 = n * 8 + 1 < left ? b.y * MF_LOG2E : -INFINITY;
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const mf_backward_row<BF16> row(lse[m][h], delta[m][h], true);
                    const float *x = &s[m][n][2 * h], *y = &dp[m][n][2 * h];
                    const uint32_t pair = mf__pack<BF16>(row.ds(row.p(x[0], b0), y[0]), row.ds(row.p(x[1], b1), y[1]));
                    ds[n / 2][m][n % 2 * 2 + h] = pair;
                    mf__store4(ds_write + 2 * ((m * 16 + h * 8) * ldp + n * 8), pair);
                }
        }
        const mf_address k_mine = here + 2 * qc.start + mf__lane_b_t(ldq);
#pragma unroll
        for (int k = 0; k < own / 16; k++)
            mf__product_step<BF16, 32, q_columns::tiles>(dq, ds[k], k_mine + 2 * (member * own + k * 16) * ldq, qc.all);
        mf__barrier(1 + team, at::team * 32);
#pragma unroll
        for (int w = 1; w < at::team; w++)
            mf__product_nn<BF16, 32, q_columns::tiles, own, ldp, ldq>(dq, ds_team + (member ^ w) * at::piece,
                k_mine + 2 * (member ^ w) * own * ldq, qc.all);
    }
    if (!active) return;
    const float back = 1.0f / *f.scale;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int r = first_row + m * 16 + h * 8 + g;
            if (r >= place.length) continue;
#pragma unroll
            for (int n = 0; n < q_columns::tiles; n++)
                if (qc.has(n))
                    mf__put2(f.dq + (row0 + (int64_t)r * f.heads) * f.dqk, qc.start + n * 8 + 2 * t, f.dqk, dq[m][n][2 * h] * back,
                        dq[m][n][2 * h + 1] * back);
        }
}

/* M x N tiles of the blocks that own keys, QM x QN of those that own queries. */
template <bool BF16, int DQK, int DV, int M, int N, int WM, int QM, int QN, bool BULK>
static __global__ void __launch_bounds__(256, 1) flash_backward_kernel(const mf_flash f, const mf_flash_sums sums) {
    MF_SHARED(unsigned char, shared);
    if (blockIdx.x < sums.key_blocks) flash_backward_keys<BF16, DQK, DV, M, N, WM, BULK>(f, sums, blockIdx.x, shared);
    else flash_backward_queries<BF16, DQK, DV, QM, QN>(f, blockIdx.x - sums.key_blocks, shared);
}

/* own: dQ by blocks of its own; else the blocks of keys add their parts. */
template <bool BF16, int DQK, int DV, int M, int N, int WM, int QM, int QN, bool BULK>
static mf_status backward_launch(mf_device *d, const mf_flash *f, bool own) {
    constexpr int keys = mf_backward_keys_layout<DQK, DV, M, N, BULK>::bytes, queries = mf_backward_queries_layout<DQK, DV, QM, QN>::bytes;
    const int64_t k_blocks = f->dk || f->dv_ || f->dkey_bias || !own ? mf__flash_slots(f, N) * f->heads : 0;
    const int64_t q_blocks = f->dq && own ? mf__flash_slots(f, QM) * f->heads : 0;
    const bool add = f->dq && !own;
    mf_scratch scratch;
    if (add) {
        MF_TRY(scratch.take(d, mf__sums_floats(f, DQK) * 4));
        MF_TRY(mf__sums_zero(d, f, scratch.as<float>(), DQK));
    }
    mf__flash_work(d, f, true);
    MF_TRY(MF_LAUNCH(d, (flash_backward_kernel<BF16, DQK, DV, M, N, WM, QM, QN, BULK>), (unsigned)(k_blocks + q_blocks), 256,
                     q_blocks && queries > keys ? queries : keys, *f, mf_flash_sums{add ? scratch.as<float>() : nullptr, k_blocks}));
    return add ? mf__sums_gather<DQK>(d, f, scratch.as<float>()) : MF_OK;
}

/* The tiles of one pair of widths; times for them are in cuda/README.md. */
template <bool BF16, int DQK, int DV> static bool backward_pair(mf_device *d, const mf_flash *f, mf_status *status) {
    constexpr int wide = DQK + DV, M = wide <= 400 ? 128 : 64, N = wide <= 128 ? 128 : 64, WM = M == 128 ? 4 : 2;
    constexpr bool bulk = wide > 128;
    constexpr int large = mf_backward_keys_layout<DQK, DV, M, N, bulk>::bytes, large_q = mf_backward_queries_layout<DQK, DV, M, 64>::bytes;
    constexpr int small = mf_backward_keys_layout<DQK, DV, 64, 32, false>::bytes, small_q = mf_backward_queries_layout<DQK, DV, 64,
        64>::bytes;
    const mf_cuda *c = mf__cuda(d);
    const int64_t limit = c->shared_limit;
    const bool few = (f->total / 32 + f->total / 64) * f->heads <= c->multiprocessors && small_q <= limit;
    /* Sums of dQ cost two launches more and are padded to 16 rows a sequence. */
    const bool own = few || f->longest <= 256 || f->deterministic || !(f->dk || f->dv_ || f->dkey_bias) || mf__flash_slots(f,
        16) * 16 > 2 * f->total + 4096;
    if (!few && large <= limit && (!own || large_q <= limit)) *status = backward_launch<BF16, DQK, DV, M, N, WM, M, 64, bulk>(d, f, own);
    else if (small <= limit && (!own || small_q <= limit)) *status = backward_launch<BF16, DQK, DV, 64, 32, 4, 64, 64, false>(d, f, own);
    else return false;
    return true;
}

bool mf__flash_listed_backward([[maybe_unused]] mf_device *d, [[maybe_unused]] const mf_flash *f, [[maybe_unused]] mf_status *status) {
#define MF_PAIR(dqk_, dv__) \
    if (f->dqk <= dqk_ && f->dv <= dv__) \
        return f->bf16 ? backward_pair<true, dqk_, dv__>(d, f, status) : backward_pair<false, dqk_, dv__>(d, f, status);
    MF_FLASH_DIMS(MF_PAIR)
#undef MF_PAIR
    return false;
}
