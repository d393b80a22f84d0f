/* hopper_wide_backward.cu: attention's backward on sm_90a for widths whose results do not fit into registers.
 *
 *   P = exp(Q K' + key_bias - lse),  dP = dO V',  dS = P (dP - delta)
 *   dV = P' dO,  dK = dS' Q,  dQ = dS K,  dkey_bias = column sums of dS             per sequence and head; all written with '='
 *
 * A warpgroup has registers for 64 x 256 of a result. A kernel that makes P and dS where it uses them would have to make them again for
 * every 256 columns of dV, dK and dQ: 2.6 times the work at (384, 512), 1.6 times if two warpgroups share them. Here they are made once,
 * in the 16 bits in which they are operands, and written to memory for as many queries as WIDE_BUDGET holds:
 *
 *   scores      P and dS of 128 queries x KEYS keys a block: Q K', then dO V', by stages of 64 columns
 *   products    dV, dK or dQ: 128 rows x N columns a block, by stages of 64 residues along the other axis
 *
 * Work 2 L^2 (3 d_qk + 2 d_v) operations a head, each once. Traffic 10 bytes for every pair of residues: at (384, 512) 435 operations a
 * byte, where the chip does 165, so the matrix unit stays the bound. Memory: WIDE_BUDGET at most, less where there is less (down to the
 * tiles of 128 queries of one head); so some heads, or for long sequences some queries, come after others, and dK and dV of a later part
 * of a sequence are added to those of the earlier.
 *
 * Blocks of 384 threads stay on their multiprocessor and go over the tiles. Of one warpgroup a warp copies stages ahead, also of the next
 * tile (in scores another one reads key bias, lse and delta for it); two warpgroups of 64 rows each multiply. Tiles of P and dS are whole:
 * zeros where a query or a key lies beyond the sequence. Rows of the other operand beyond it are those of the next sequence and are
 * zeroed in the last stage, for 0 * NaN is NaN. Shared memory 195 to 206 KB. Times: cuda/README.md.
 *
 * Numerics as in flash_backward.cu: sums, P, dS and lse are float32; P and dS are rounded when they become operands, in float16 P times
 * 2^15. Deterministic, bit for bit: no atomics; the order of sums depends on the sizes only. Any widths. */
#include "hopper_wide.cuh"
#include <climits>

enum { WIDE_DV, WIDE_DK, WIDE_DQ };
static constexpr int WIDE_TILE = 128, WIDE_DEPTH = 64, WIDE_THREADS = 384;   /* rows of a tile; columns or residues of a stage */
static constexpr int64_t WIDE_BUDGET = (int64_t)512 << 20;

/* P and dS of the query tiles of some heads. A tile is a slot of mf__flash_slots; rows of one that lie beyond its sequence are zeros. */
struct mf_wide_scores {
    uint16_t *p, *ds;             /* (128 slots, heads, keys) */
    float *sums;                  /* (2 slots, heads, keys): of dS over 64 queries, or NULL */
    int64_t first_slot, slots;
    int first_head, heads;
    int keys;                     /* of the longest sequence, in whole tiles */
};

/* The tile of 128 rows in a slot, and its sequence's first slot. */
struct mf_wide_place : mf_place {
    int64_t first_slot;
    __device__ __forceinline__ explicit mf_wide_place(const mf_place &place) : mf_place(place), first_slot(first / WIDE_TILE + sequence) {}
    __device__ __forceinline__ mf_wide_place(const mf_flash &f, int64_t slot) : mf_wide_place(mf__flash_place(f, slot, WIDE_TILE)) {}
};

/* Shared memory of the scores: stages, then two of what a tile needs beside them, made by a warp of the producers: where it lies, and
 * vectors as the epilogue takes them. */
struct mf_wide_tile {
    int64_t slot;
    int head, key, start, length; /* length 0: no more tiles */
};
template <int KEYS, int STAGES> struct mf_scores_layout {
    static constexpr int right = WIDE_TILE * 128, stage = right + KEYS * 128;
    static constexpr int bias = sizeof(mf_wide_tile), lse = bias + KEYS * 4, delta = lse + WIDE_TILE * 4, vectors = delta + WIDE_TILE * 4;
    static constexpr int beside = STAGES * stage, sums = beside + 2 * vectors, bars = sums + 8 * KEYS * 4,
        bytes = bars + mf_stages::bars_bytes(STAGES) + mf_stages::bars_bytes(2);
    static_assert(stage % 1024 == 0 && vectors % 8 == 0);
};

/* Sums x over the 8 lanes with the same t. Lane 4 g + t keeps the sums of x[g COUNT / 8 ...]. */
template <int HALF, int STEP, int COUNT> static __device__ __forceinline__ void wide_sum_rows(float (&x)[COUNT]) {
    const bool upper = threadIdx.x & STEP;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        const float low = x[i], high = x[i + HALF];
        x[i] = (upper ? high : low) + __shfl_xor_sync(0xffffffffu, upper ? low : high, STEP);
    }
    if constexpr (STEP > 4) wide_sum_rows<HALF / 2, STEP / 2>(x);
}

template <bool BF16, int KEYS, int STAGES>
static __global__ void __launch_bounds__(WIDE_THREADS, 1) hopper_wide_scores_kernel(const mf_flash f, const mf_wide_scores to,
    const __grid_constant__ mf_map q, const __grid_constant__ mf_map k, const __grid_constant__ mf_map v,
    const __grid_constant__ mf_map dout) {
#if MF_HAS_WGMMA
    using at = mf_scores_layout<KEYS, STAGES>;
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared);
    mf_stages ring(base, base + at::bars, at::stage, STAGES);
    mf_stages beside(base + at::beside, base + at::bars + mf_stages::bars_bytes(STAGES), at::vectors, 2);
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 & 3, lane = threadIdx.x & 31;
    const int q_slabs = (f.dqk + 63) / 64, v_slabs = (f.dv + 63) / 64, key_tiles = to.keys / KEYS;
    const int64_t tiles = to.slots * to.heads * key_tiles;
    if (threadIdx.x == 0) {
        ring.init(1, 8);
        beside.init(32, 8);
        mf__bar_init_seen();
    }
    __syncthreads();
    if (group == 0) {
        mf__registers_less<40>();
        if (warp < 2) {
            for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
                const int head = (int)(tile / key_tiles % to.heads), key = (int)(tile % key_tiles) * KEYS;
                const int64_t slot = tile / key_tiles / to.heads;
                const mf_wide_place place(f, to.first_slot + slot);
                if (place.start >= place.length || key >= place.length) continue;
                if (warp == 1) {
                    const int64_t row0 = place.first * f.heads + to.first_head + head;
                    beside.await_empty();
                    if (lane == 0)
                        *(mf_wide_tile *)(shared + at::beside + beside.at * at::vectors) = {slot, head, key, place.start, place.length};
                    for (int i = lane; i < KEYS; i += 32)
                        mf__write(beside.stage() + at::bias + 4 * i, key + i >= place.length ? -INFINITY :
                            f.key_bias ? f.key_bias[row0 + (int64_t)(key + i) * f.heads] * MF_LOG2E : 0.0f);
                    for (int i = lane; i < WIDE_TILE; i += 32) {
                        const bool inside = place.start + i < place.length;
                        const int64_t row = row0 + (int64_t)(place.start + i) * f.heads;
                        mf__write(beside.stage() + at::lse + 4 * i, inside ? f.lse[row] : -INFINITY);
                        mf__write(beside.stage() + at::delta + 4 * i, inside ? f.delta[row] : 0.0f);
                    }
                    mf__bar_arrive(beside.full());
                    beside.next();
                } else if (lane == 0)
                    for (int n = 0; n < q_slabs + v_slabs; n++) {
                        const bool first = n < q_slabs;
                        const int column = 64 * (first ? n : n - q_slabs), h = to.first_head + head;
                        ring.await_empty();
                        mf__bar_expect(ring.full(), at::stage);
                        mf__map_copy(ring.stage(), first ? &q : &dout, ring.full(), column, h, place.first + place.start);
                        mf__map_copy(ring.stage() + at::right, first ? &k : &v, ring.full(), column, h, place.first + key);
                        ring.next();
                    }
                __syncwarp();
            }
            if (warp == 1) {
                beside.await_empty();
                if (lane == 0) *(mf_wide_tile *)(shared + at::beside + beside.at * at::vectors) = {};
                mf__bar_arrive(beside.full());
            }
        }
    } else {
        mf__registers_more<232>();
        const int member = group - 1, g = lane >> 2, t = lane & 3, own = member * 64 + warp * 16 + g;       /* and 8 on: this lane's rows */
        const mf_address sums = base + at::sums + member * 4 * KEYS * 4;
        for (;;) {
            beside.await_full();
            const mf_address vectors = beside.stage(), bias = vectors + at::bias;
            const mf_wide_tile *const tile = (const mf_wide_tile *)(shared + at::beside + beside.at * at::vectors);
            if (tile->length == 0) break;
            float s[KEYS / 2], dp[KEYS / 2];
            mf_address last = ring.empty();
            auto multiply = [&](float (&c)[KEYS / 2], int slabs, bool first) {
                for (int n = 0; n < slabs; n++) {
                    ring.await_full();
                    const mf_matrix left = mf__matrix_rows<128>(ring.stage() + member * 64 * 128),
                        right = mf__matrix_rows<128>(ring.stage() + at::right);
                    mf__wgmma_fence();
#pragma unroll
                    for (int step = 0; step < 4; step++)
                        mf__wgmma<BF16, KEYS, 0, 0>(c, mf__matrix_on(left, 32 * step), mf__matrix_on(right, 32 * step), n > 0 || step > 0);
                    mf__wgmma_commit();
                    mf__wgmma_wait<1>();
                    if (lane == 0 && !(first && n == 0)) mf__bar_arrive(last);
                    last = ring.empty();
                    ring.next();
                }
            };
            mf__keep(s);
            multiply(s, q_slabs, true);
            mf__keep(dp);
            multiply(dp, v_slabs, false);
            mf__wgmma_wait<0>();
            mf__keep(s);
            mf__keep(dp);
            if (lane == 0) mf__bar_arrive(last);

            const int key = tile->key, keys = tile->length - key, rows = tile->length - tile->start;          /* that are left */
            const int64_t slot = tile->slot;
            const int head = tile->head;
            if (KEYS > keys || WIDE_TILE > rows) {                            /* what other sequences left there */
#pragma unroll
                for (int i = 0; i < KEYS / 2; i++)
                    if (i / 4 * 8 + 2 * t + i % 2 >= keys || own + i / 2 % 2 * 8 >= rows) s[i] = dp[i] = 0;
            }
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int mine = own + 8 * h;
                const mf_backward_row<BF16> row(mf__read(vectors + at::lse + 4 * mine), mf__read(vectors + at::delta + 4 * mine), true);
                const bool odd = t & 1;
                const int64_t line = ((slot * WIDE_TILE + mine) * to.heads + head) * to.keys + key;
#pragma unroll
                for (int j = 0; j < KEYS / 8; j += 2) {
                    uint32_t p[2], ds[2];
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        const float2 b = mf__read2(bias + 4 * (8 * (j + i) + 2 * t));
                        float *x = &s[4 * (j + i) + 2 * h], *y = &dp[4 * (j + i) + 2 * h];
                        x[0] = row.p(x[0], b.x), x[1] = row.p(x[1], b.y);
                        y[0] = row.ds(x[0], y[0]), y[1] = row.ds(x[1], y[1]);
                        p[i] = mf__pack<BF16>(x[0], x[1]);
                        ds[i] = mf__pack<BF16>(y[0], y[1]);
                    }
                    /* Neighbours exchange halves: 4 columns each of one of the two groups of 8. */
                    const uint32_t p_other = __shfl_xor_sync(0xffffffffu, odd ? p[0] : p[1], 1),
                        ds_other = __shfl_xor_sync(0xffffffffu, odd ? ds[0] : ds[1], 1);
                    const int64_t here = line + 8 * (j + odd) + 2 * (t & 2);
                    if (to.p) *(uint2 *)(to.p + here) = odd ? make_uint2(p_other, p[1]) : make_uint2(p[0], p_other);
                    if (to.ds) *(uint2 *)(to.ds + here) = odd ? make_uint2(ds_other, ds[1]) : make_uint2(ds[0], ds_other);
                }
            }
            mf__bar_release(beside.empty());
            beside.next();
            if (to.sums) {
                float x[KEYS / 4];
#pragma unroll
                for (int i = 0; i < KEYS / 4; i++) x[i] = dp[i / 2 * 4 + i % 2] + dp[i / 2 * 4 + 2 + i % 2];
                wide_sum_rows<KEYS / 8, 16>(x);
                const int from = g * (KEYS / 32);
                mf__barrier(1 + member, 128);                                 /* the last tile's sums are read */
#pragma unroll
                for (int i = 0; i < KEYS / 32; i++)
                    mf__write(sums + 4 * (warp * KEYS + (from + i) / 2 * 8 + 2 * t + (from + i) % 2), x[i]);
                mf__barrier(1 + member, 128);
                for (int i = threadIdx.x & 127; i < KEYS; i += 128)
                    to.sums[((2 * slot + member) * to.heads + head) * to.keys + key + i] = (mf__read(sums + 4 * i) +
                        mf__read(sums + 4 * (KEYS + i))) + (mf__read(sums + 4 * (2 * KEYS + i)) + mf__read(sums + 4 * (3 * KEYS + i)));
            }
        }
    }
#else
    __trap();
#endif
}

template <int N, int STAGES> struct mf_products_layout {
    static constexpr int right = 2 * WIDE_DEPTH * 128, stage = right + N / 64 * WIDE_DEPTH * 128, bars = STAGES * stage, 
        bytes = bars + mf_stages::bars_bytes(STAGES);
};

/* What a tile of a result is summed over: residues [from, end) of the sequence, and the row of P or dS where its first residue lies. */
struct mf_wide_range {
    int from, end;
    int64_t row0;
    template <int ROLE> static __device__ __forceinline__ mf_wide_range of(const mf_wide_scores &x, const mf_wide_place &place) {
        const int64_t row0 = (place.first_slot - x.first_slot) * WIDE_TILE;
        if (ROLE == WIDE_DQ) return {0, place.length, row0};
        const int64_t from = row0 < 0 ? -row0 : 0, end = x.slots * WIDE_TILE - row0;
        return {(int)(from < place.length ? from : place.length), (int)(end < place.length ? end : place.length), row0};
    }
};

/* scores: P for dV, else dS. result (N, H, width). */
template <bool BF16, int ROLE, int N, int STAGES>
static __global__ void __launch_bounds__(WIDE_THREADS, 1) hopper_wide_products_kernel(const mf_flash f, const mf_wide_scores x,
    float *result, int width, const __grid_constant__ mf_map scores, const __grid_constant__ mf_map operand) {
#if MF_HAS_WGMMA
    using at = mf_products_layout<N, STAGES>;
    MF_SHARED(unsigned char, shared);
    const mf_address base = mf__address(shared);
    mf_stages ring(base, base + at::bars, at::stage, STAGES);
    const int group = threadIdx.x / 128, warp = threadIdx.x / 32 & 3, lane = threadIdx.x & 31;
    const int chunks = (width + N - 1) / N;
    const int64_t slots = ROLE == WIDE_DQ ? x.slots : f.total / WIDE_TILE + f.sequences, slot0 = ROLE == WIDE_DQ ? x.first_slot : 0;
    const int64_t tiles = slots * x.heads * chunks;
    if (threadIdx.x == 0) {
        ring.init(1, 8);
        mf__bar_init_seen();
    }
    __syncthreads();
    if (group == 0) {
        mf__registers_less<40>();
        if (warp == 0)
            for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
                const int column = (int)(tile % chunks) * N, head = (int)(tile / chunks / slots);
                const mf_wide_place place(f, slot0 + tile / chunks % slots);
                const mf_wide_range range = mf_wide_range::of<ROLE>(x, place);
                if (place.start >= place.length || range.from >= range.end) continue;
                if (lane == 0)
                    for (int i = range.from; i < range.end; i += WIDE_DEPTH) {
                        ring.await_empty();
                        mf__bar_expect(ring.full(), at::stage);
#pragma unroll
                        for (int m = 0; m < 2; m++) {
                            const int mine = place.start + 64 * m;
                            mf__map_copy(ring.stage() + m * WIDE_DEPTH * 128, &scores, ring.full(), ROLE == WIDE_DQ ? i : mine, head,
                                range.row0 + (ROLE == WIDE_DQ ? mine : i));
                        }
#pragma unroll
                        for (int p = 0; p < N / 64; p++)
                            mf__map_copy(ring.stage() + at::right + p * WIDE_DEPTH * 128, &operand, ring.full(), column + 64 * p,
                                x.first_head + head, place.first + i);
                        ring.next();
                    }
                __syncwarp();
            }
    } else {
        mf__registers_more<232>();
        const int member = group - 1, g = lane >> 2, t = lane & 3;
        const float back = (ROLE == WIDE_DV ? mf_backward_row<BF16>::unit : 1.0f) / *f.scale;
        for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            const int column = (int)(tile % chunks) * N, head = (int)(tile / chunks / slots);
            const mf_wide_place place(f, slot0 + tile / chunks % slots);
            const mf_wide_range range = mf_wide_range::of<ROLE>(x, place);
            if (place.start >= place.length || range.from >= range.end) continue;
            float c[N / 2];
            mf_address last = ring.empty();
            mf__keep(c);
            for (int i = range.from; i < range.end; i += WIDE_DEPTH) {
                ring.await_full();
                if (i + WIDE_DEPTH > place.length) {
                    mf__tile_clear<N, WIDE_DEPTH>(ring.stage() + at::right, place.length - i, (int)threadIdx.x - 128, 256);
                    mf__proxy_fence();
                    mf__barrier(3, 256);
                }
                const mf_address mine = ring.stage() + member * WIDE_DEPTH * 128;
                const mf_matrix left = ROLE == WIDE_DQ ? mf__matrix_rows<128>(mine) : mf__matrix_columns<128>(mine, 0),
                    right = mf__matrix_columns<128>(ring.stage() + at::right, WIDE_DEPTH * 128);
                mf__wgmma_fence();
#pragma unroll
                for (int step = 0; step < 4; step++)
                    mf__wgmma<BF16, N, ROLE != WIDE_DQ, 1>(c, mf__matrix_on(left, step * (ROLE == WIDE_DQ ? 32 : 16 * 128)),
                        mf__matrix_on(right, step * 16 * 128), i > range.from || step > 0);
                mf__wgmma_commit();
                mf__wgmma_wait<1>();
                if (lane == 0 && i > range.from) mf__bar_arrive(last);
                last = ring.empty();
                ring.next();
            }
            mf__wgmma_wait<0>();
            mf__keep(c);
            if (lane == 0) mf__bar_arrive(last);
            const bool more = ROLE != WIDE_DQ && range.from > 0;              /* an earlier part of the queries was here */
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int r = place.start + member * 64 + warp * 16 + 8 * h + g;
                if (r >= place.length) continue;
                float *to = result + ((place.first + r) * f.heads + x.first_head + head) * width;
#pragma unroll
                for (int j = 0; j < N / 8; j++) {
                    const int at = column + 8 * j + 2 * t;
                    float a = c[4 * j + 2 * h] * back, b = c[4 * j + 2 * h + 1] * back;
                    if (more) a += at < width ? to[at] : 0.0f, b += at + 1 < width ? to[at + 1] : 0.0f;
                    mf__put2(to, at, width, a, b);
                }
            }
        }
    }
#else
    __trap();
#endif
}

/* dkey_bias from the sums over 64 queries: 32 keys a block, whose warps share the queries. */
static __global__ void __launch_bounds__(1024) hopper_wide_bias_kernel(const mf_flash f, const mf_wide_scores x) {
    __shared__ float parts[32][32];
    const int64_t slots = f.total / 32 + f.sequences;
    const int head = (int)(blockIdx.x / slots), warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    mf_wide_place place(mf__flash_place(f, blockIdx.x % slots, 32));
    const mf_wide_range range = mf_wide_range::of<WIDE_DK>(x, place);
    if (place.start >= place.length || range.from >= range.end) return;
    const int key = place.start + lane;
    float sum = 0;
    for (int i = range.from + 64 * warp; i < range.end; i += 64 * 32)
        if (key < place.length) sum += x.sums[((range.row0 + i) / 64 * x.heads + head) * x.keys + key];
    parts[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || key >= place.length) return;
    sum = 0;
    for (int w = 0; w < 32; w++) sum += parts[w][lane];
    float *to = f.dkey_bias + (place.first + key) * f.heads + x.first_head + head;
    sum /= *f.scale;
    *to = range.from > 0 ? *to + sum : sum;
}

template <bool BF16, int ROLE, int N>
static mf_status wide_products_launch(mf_device *d, const mf_flash *f, const mf_wide_scores *x, float *result, int width) {
    constexpr int stages = N > 192 ? 4 : N > 128 ? 5 : 6;
    using at = mf_products_layout<N, stages>;
    mf_map scores, operand;
    const bool by_q = ROLE != WIDE_DV;
    MF_TRY(mf__map_make(&scores, ROLE == WIDE_DV ? x->p : x->ds, x->keys, x->heads, x->slots * WIDE_TILE, x->keys, 64, WIDE_DEPTH));
    MF_TRY(mf__map_make(&operand, ROLE == WIDE_DV ? f->dout : ROLE == WIDE_DK ? f->q : f->k, by_q ? f->ldq : f->ldv, f->heads, f->total,
        by_q ? f->ldq : f->ldv, 64, WIDE_DEPTH));
    const double pairs = (double)f->pairs * x->heads * (double)x->slots / (double)mf__flash_slots(f, WIDE_TILE);
    mf__cuda_work(d, 2 * pairs * width, 2 * pairs + (double)f->total * x->heads * width * 6, MF_UNIT_FP16);
    const int64_t tiles = (ROLE == WIDE_DQ ? x->slots : mf__flash_slots(f, WIDE_TILE)) * x->heads * mf__blocks(width, N);
    const int most = mf__cuda(d)->multiprocessors;
    return MF_LAUNCH(d, (hopper_wide_products_kernel<BF16, ROLE, N, stages>), (unsigned)(tiles < most ? tiles : most), WIDE_THREADS,
        at::bytes, *f, *x, result, width, scores, operand);
}
template <bool BF16, int ROLE>
static mf_status wide_products(mf_device *d, const mf_flash *f, const mf_wide_scores *x, float *result, int width) {
    if (!result || width == 0) return MF_OK;
    const int64_t each = mf__blocks(width, mf__blocks(width, 256));           /* columns of a block */
    return each > 192 ? wide_products_launch<BF16, ROLE, 256>(d, f, x, result, width) :
        each > 128 ? wide_products_launch<BF16, ROLE, 192>(d, f, x, result, width) :
        wide_products_launch<BF16, ROLE, 128>(d, f, x, result, width);
}

template <bool BF16> static mf_status wide_backward(mf_device *d, const mf_flash *f, int64_t budget) {
    constexpr int KEYS = 128, STAGES = 6;
    using at = mf_scores_layout<KEYS, STAGES>;
    mf_wide_scores x = {};
    x.keys = (int)mf__blocks(f->longest, KEYS) * KEYS;
    const int64_t all = mf__flash_slots(f, WIDE_TILE), each = (int64_t)WIDE_TILE * x.keys * 2, p_bytes = f->dv_ ? each : 0,
        ds_bytes = f->dk || f->dq || f->dkey_bias ? each : 0, sums_bytes = f->dkey_bias ? 2 * x.keys * 4 : 0,
        bytes = p_bytes + ds_bytes + sums_bytes;                              /* of a tile of queries */
    if (bytes == 0) return MF_OK;
    mf_scratch memory;
    int64_t heads, slots;         /* at a time: whole heads, or a part of one */
    for (;; budget /= 2) {
        const int64_t most = budget > bytes ? budget / bytes : 1;
        heads = most < all ? 1 : mf__blocks(f->heads, mf__blocks(f->heads, most / all));
        slots = most < all ? mf__blocks(all, mf__blocks(all, most)) : all;
        const mf_status status = memory.take(d, heads * slots * bytes);
        if (status == MF_OK) break;
        /* Else with half of it; but parts of a sequence are added in an order of their own. */
        if (status != MF_ENOMEM || heads * slots == 1 || (heads == 1 && f->deterministic)) return status;
        budget = heads * slots * bytes;
    }
    x.p = f->dv_ ? memory.as<uint16_t>() : nullptr;
    x.ds = ds_bytes > 0 ? memory.as<uint16_t>() + heads * slots * p_bytes / 2 : nullptr;
    x.sums = f->dkey_bias ? memory.as<float>() + heads * slots * (p_bytes + ds_bytes) / 4 : nullptr;
    mf_map q, k, v, dout;
    MF_TRY(mf__map_make(&q, f->q, f->ldq, f->heads, f->total, f->ldq, 64, WIDE_TILE));
    MF_TRY(mf__map_make(&k, f->k, f->ldq, f->heads, f->total, f->ldq, 64, KEYS));
    MF_TRY(mf__map_make(&v, f->v, f->ldv, f->heads, f->total, f->ldv, 64, KEYS));
    MF_TRY(mf__map_make(&dout, f->dout, f->ldv, f->heads, f->total, f->ldv, 64, WIDE_TILE));
    const int blocks = mf__cuda(d)->multiprocessors;
    for (x.first_head = 0; x.first_head < f->heads; x.first_head += (int)heads)
        for (x.first_slot = 0; x.first_slot < all; x.first_slot += slots) {
            x.heads = (int)(f->heads - x.first_head < heads ? f->heads - x.first_head : heads);
            x.slots = all - x.first_slot < slots ? all - x.first_slot : slots;
            const double pairs = (double)f->pairs * x.heads * (double)x.slots / (double)all;
            mf__cuda_work(d, 2 * pairs * (f->dqk + f->dv), 4 * pairs + 4.0 * (double)f->total * x.heads * (f->dqk + f->dv), MF_UNIT_FP16);
            const int64_t tiles = x.slots * x.heads * (x.keys / KEYS);
            MF_TRY(MF_LAUNCH(d, (hopper_wide_scores_kernel<BF16, KEYS, STAGES>), (unsigned)(tiles < blocks ? tiles : blocks), WIDE_THREADS,
                at::bytes, *f, x, q, k, v, dout));
            MF_TRY((wide_products<BF16, WIDE_DV>(d, f, &x, f->dv_, f->dv)));
            MF_TRY((wide_products<BF16, WIDE_DK>(d, f, &x, f->dk, f->dqk)));
            MF_TRY((wide_products<BF16, WIDE_DQ>(d, f, &x, f->dq, f->dqk)));
            if (f->dkey_bias)
                MF_TRY(MF_LAUNCH(d, hopper_wide_bias_kernel, (unsigned)(mf__flash_slots(f, 32) * x.heads), 1024, 0, *f, x));
        }
    return MF_OK;
}

bool mf__hopper_wide_backward(mf_device *d, const mf_flash *f, mf_status *status) {
    if (mf__cuda(d)->capability != 90 || f->longest == 0 || f->total > INT_MAX / 2 || f->dqk < 1 || f->dv < 1) return false;
    *status = f->bf16 ? wide_backward<true>(d, f, WIDE_BUDGET) : wide_backward<false>(d, f, WIDE_BUDGET);
    return true;
}
