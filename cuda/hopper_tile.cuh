/* hopper_tile.cuh: what the attention kernels for sm_90a share: tiles in shared memory as the copy engine lays them and wgmma reads them.
 *
 * A tile of ROWS rows and COLUMNS columns of 16 bits is COLUMNS / 64 panels of 64 columns one after the other (ROWS x 128 bytes), and for the
 * rest of 32 or 16 columns a panel of that width, for 48 one of each: so 160 columns take 320 bytes a row, not 384. The tile begins at a
 * multiple of 1024 bytes, ROWS is a multiple of 8. Columns beyond the array's rows are zeros; rows beyond a sequence's end are those of the next
 * sequence, which who reads them has to mask. */
#ifndef MF_CUDA_HOPPER_TILE_CUH
#define MF_CUDA_HOPPER_TILE_CUH
#include "flash_tile.cuh"
#include "hopper.cuh"
#include <climits>

template <int COLUMNS> struct mf_panels {
    static constexpr int whole = COLUMNS / 64;                            /* panels of 64 columns; columns of the next two */
    static constexpr int rest = COLUMNS % 64 == 48 ? 32 : COLUMNS % 64, last = COLUMNS % 64 == 48 ? 16 : 0;
    static_assert(rest == 0 || rest == 16 || rest == 32);
    static __host__ __device__ constexpr int bytes(int rows) { return rows * COLUMNS * 2; }
    /* Where panel p of a tile of `rows` begins. */
    static __host__ __device__ constexpr int at(int p, int rows) { return p <= whole ? p * rows * 128 : rows * (whole * 128 + 64); }
};

/* The maps of an array that is read in such tiles. */
struct mf_maps {
    mf_map whole, rest, last;
};
template <int COLUMNS> static mf_status mf__maps_make(mf_maps *to, const void *base, int64_t heads, int64_t rows, int64_t ld, int box_rows) {
    using panels = mf_panels<COLUMNS>;
    if (panels::whole > 0) MF_TRY(mf__map_make(&to->whole, base, ld, heads, rows, ld, 64, box_rows));
    if (panels::rest > 0) MF_TRY(mf__map_make(&to->rest, base, ld, heads, rows, ld, panels::rest, box_rows));
    if (panels::last > 0) MF_TRY(mf__map_make(&to->last, base, ld, heads, rows, ld, panels::last, box_rows));
    return MF_OK;
}
/* One thread: begins to copy a tile of ROWS (the maps' box_rows); `bar` is to expect panels::bytes(ROWS). */
template <int COLUMNS, int ROWS>
static __device__ __forceinline__ void mf__tile_fetch(mf_address to, const mf_maps *maps, mf_address bar, int head, int64_t row) {
    using panels = mf_panels<COLUMNS>;
#pragma unroll
    for (int p = 0; p < panels::whole; p++) mf__map_copy(to + panels::at(p, ROWS), &maps->whole, bar, 64 * p, head, row);
    if (panels::rest > 0) mf__map_copy(to + panels::at(panels::whole, ROWS), &maps->rest, bar, 64 * panels::whole, head, row);
    if (panels::last > 0) mf__map_copy(to + panels::at(panels::whole + 1, ROWS), &maps->last, bar, 64 * panels::whole + 32, head, row);
}

/* A tile in panels of WIDTH columns throughout, so that one product takes all of its columns as MN-major operand: (COLUMNS / WIDTH, ROWS, WIDTH). */
template <int COLUMNS, int WIDTH, int ROWS>
static __device__ __forceinline__ void mf__even_fetch(mf_address to, const mf_map *map, mf_address bar, int head, int64_t row) {
    static_assert(COLUMNS % WIDTH == 0);
#pragma unroll
    for (int p = 0; p < COLUMNS / WIDTH; p++) mf__map_copy(to + p * ROWS * 2 * WIDTH, map, bar, WIDTH * p, head, row);
}
/* Step k of 16 columns of its rows from `row` (a multiple of 8) on; step k of 16 rows of its columns. */
template <int WIDTH, int ROWS> static __device__ __forceinline__ mf_matrix mf__even_rows(mf_address tile, int row, int k) {
    const int column = 16 * k;
    return mf__matrix_on(mf__matrix_rows<2 * WIDTH>(tile + column / WIDTH * ROWS * 2 * WIDTH + row * 2 * WIDTH), 2 * (column % WIDTH));
}
template <int WIDTH, int ROWS> static __device__ __forceinline__ mf_matrix mf__even_columns(mf_address tile, int k) {
    return mf__matrix_on(mf__matrix_columns<2 * WIDTH>(tile, ROWS * 2 * WIDTH), k * 16 * 2 * WIDTH);
}
/* Zeros its rows [from, ROWS), as mf__tile_clear. */
template <int COLUMNS, int WIDTH, int ROWS>
static __device__ __forceinline__ void mf__even_clear(mf_address tile, int from, int thread, int threads) {
    const float zeros[4] = {};
    const int each = (ROWS - from) * (WIDTH / 8);            /* of a panel, and one after the other in it */
#pragma unroll 1
    for (int i = thread; i < COLUMNS / WIDTH * each; i += threads)
        mf__write16(tile + i / each * ROWS * 2 * WIDTH + from * 2 * WIDTH + i % each * 16, zeros);
}
/* Step k of 16 columns of a tile's rows from `row` (a multiple of 8) on. */
template <int COLUMNS, int ROWS> static __device__ __forceinline__ mf_matrix mf__tile_rows(mf_address tile, int row, int k) {
    using panels = mf_panels<COLUMNS>;
    constexpr int bytes = panels::rest == 16 ? 32 : 64;
    if (k < 4 * panels::whole) return mf__matrix_on(mf__matrix_rows<128>(tile + panels::at(k / 4, ROWS) + row * 128), 32 * (k % 4));
    if (k < 4 * panels::whole + panels::rest / 16)
        return mf__matrix_on(mf__matrix_rows<bytes>(tile + panels::at(panels::whole, ROWS) + row * bytes), 32 * (k - 4 * panels::whole));
    return mf__matrix_rows<32>(tile + panels::at(panels::whole + 1, ROWS) + row * 32);
}

/* c (+)= a b' on 64 x N over K columns of both: rows from a_row on (a multiple of 8) of tile a (A_ROWS rows), from b_row on of tile b. */
template <bool BF16, int N, int K, int A_ROWS, int B_ROWS>
static __device__ __forceinline__ void mf__tiles_nt(float (&c)[N / 2], mf_address a, int a_row, mf_address b, int b_row, bool add) {
#pragma unroll
    for (int k = 0; k < K / 16; k++)
        mf__wgmma<BF16, N, 0, 0>(c, mf__tile_rows<K, A_ROWS>(a, a_row, k), mf__tile_rows<K, B_ROWS>(b, b_row, k), add || k > 0);
}

/* Step k of 16 columns of 16 rows, from `row` (a multiple of 8) on, as operand a in this warp's registers. */
template <int COLUMNS, int ROWS>
static __device__ __forceinline__ void mf__tile_operand(uint32_t (&a)[4], mf_address tile, int row, int k) {
    using panels = mf_panels<COLUMNS>;
    const int p = k < 4 * panels::whole + panels::rest / 16 ? k / 4 : panels::whole + 1, lane = threadIdx.x & 31;
    const int bytes = p < panels::whole ? 128 : p == panels::whole ? 2 * panels::rest : 2 * panels::last;
    const int step = p <= panels::whole ? k - 4 * p : 0, at = (row + (lane & 15)) * bytes + 32 * step + 16 * (lane >> 4);
    mf__load4(a, tile + panels::at(p, ROWS) + (at ^ (at >> 3 & (bytes - 16))));
}
/* Step k of c += a b' on 64 x N: a in registers, rows of b a tile of ROWS. */
template <bool BF16, int N, int COLUMNS, int ROWS>
static __device__ __forceinline__ void mf__tile_step_nt(float (&c)[N / 2], const uint32_t (&a)[4], mf_address b, int k) {
    mf__wgmma_r<BF16, N, 0>(c, a, mf__tile_rows<COLUMNS, ROWS>(b, 0, k));
}

/* Step k of 16 rows of c += a b on 64 x N: a in registers; b the columns from 0 on of a tile of ROWS rows, all in panels of 64. */
template <bool BF16, int N, int ROWS>
static __device__ __forceinline__ void mf__tile_step(float (&c)[N / 2], const uint32_t (&a)[4], mf_address b, int k) {
    mf__wgmma_r<BF16, N, 1>(c, a, mf__matrix_on(mf__matrix_columns<128>(b, ROWS * 128), k * 16 * 128));
}
/* The same where the tile's last columns are in narrower panels: two or three products. */
template <bool BF16, int COLUMNS, int ROWS>
static __device__ __forceinline__ void mf__panels_step(float (&c)[COLUMNS / 2], const uint32_t (&a)[4], mf_address b, int k) {
    using panels = mf_panels<COLUMNS>;
    constexpr int most = panels::whole * 64, bytes = 2 * panels::rest;
    if constexpr (most > 0) mf__tile_step<BF16, most, ROWS>(reinterpret_cast<float (&)[most / 2]>(c), a, b, k);
    if constexpr (panels::rest > 0)
        mf__wgmma_r<BF16, panels::rest, 1>(reinterpret_cast<float (&)[panels::rest / 2]>(c[most / 2]), a,
            mf__matrix_on(mf__matrix_columns<bytes>(b + panels::at(panels::whole, ROWS), 0), k * 16 * bytes));
    if constexpr (panels::last > 0)
        mf__wgmma_r<BF16, 16, 1>(reinterpret_cast<float (&)[8]>(c[most / 2 + 16]), a,
            mf__matrix_on(mf__matrix_columns<32>(b + panels::at(panels::whole + 1, ROWS), 0), k * 16 * 32));
}

/* Zeros rows [from, to) of a tile, by `threads` threads numbered `thread`; then each must mf__proxy_fence and meet who reads. */
template <int COLUMNS, int ROWS>
static __device__ __forceinline__ void mf__tile_clear(mf_address tile, int from, int thread, int threads, int to = ROWS) {
    using panels = mf_panels<COLUMNS>;
#pragma unroll 1
    for (int i = thread; i < (to - from) * (COLUMNS / 8); i += threads) {
        const int row = from + i / (COLUMNS / 8), piece = i % (COLUMNS / 8);                      /* rows move only within themselves */
        const int p = piece < 8 * panels::whole + panels::rest / 8 ? piece / 8 : panels::whole + 1;
        const int bytes = p < panels::whole ? 128 : p == panels::whole ? 2 * panels::rest : 2 * panels::last;
        const int first = p <= panels::whole ? 8 * p : 8 * panels::whole + panels::rest / 8;
        const float zeros[4] = {};
        mf__write16(tile + panels::at(p, ROWS) + row * bytes + (piece - first) * 16, zeros);
    }
}
/* Where the next of STAGES slots is, and how often the slots have been gone through. */
template <int STAGES> struct mf_ring {
    int stage = 0, phase = 0;
    __device__ __forceinline__ void next() {
        if (STAGES == 1 || ++stage == STAGES) stage = 0, phase ^= 1;
    }
    __device__ __forceinline__ mf_ring after() const {
        mf_ring ring = *this;
        ring.next();
        return ring;
    }
    __device__ __forceinline__ int before() const { return stage ? stage - 1 : STAGES - 1; }
};

/* A tile of one head that a block owns: first row and length of its sequence, where in it the tile starts. length 0: no more. */
struct mf_work {
    int first, length, start, head, sequence;
};
/* The board in shared memory, at a multiple of 16 bytes, on which one warp announces what its block does next, two works ahead. */
struct mf_board {
    mf_address at;
    mf_ring<2> ring;
    static constexpr int bytes = 2 * 32 + 2 * 16;
    __device__ __forceinline__ mf_address full() const { return at + 64 + 16 * ring.stage; }
    __device__ __forceinline__ mf_address free() const { return full() + 8; }
    /* One thread, before the block meets: `warps` call next. */
    __device__ __forceinline__ void init(int warps) const {
        for (int i = 0; i < 2; i++) {
            mf__bar_init(at + 64 + 16 * i, 1);
            mf__bar_init(at + 72 + 16 * i, warps);
        }
    }
    /* All lanes of a warp that is to know. */
    __device__ __forceinline__ mf_work next() {
        mf__bar_await(full(), ring.phase);
        const float4 bits = mf__read4(at + 32 * ring.stage);
        const float more = mf__read(at + 32 * ring.stage + 16);
        mf_work work;
        memcpy(&work, &bits, 16);
        memcpy(&work.sequence, &more, 4);
        mf__bar_release(free());
        ring.next();
        return work;
    }
    /* One warp: every gridDim.x-th tile of `rows` rows, by sequence, head and place in the sequence; no empty ones. */
    __device__ __forceinline__ void announce(const mf_flash &f, int rows) {
        const int lane = threadIdx.x & 31;
        int base = 0, before = 0;             /* sequences from base on are looked at; tiles of those before it */
        for (int tile = (int)blockIdx.x;; tile += (int)gridDim.x) {
            mf_work work = {};
            while (base < f.sequences) {
                const int s = base + lane, first = s < f.sequences ? f.offsets[s] : 0, length = s < f.sequences ? f.offsets[s + 1] - first : 0;
                const int tiles = (length + rows - 1) / rows;
                int sum = tiles * f.heads;
                for (int step = 1; step < 32; step *= 2) {
                    const int other = __shfl_up_sync(0xffffffffu, sum, step);
                    if (lane >= step) sum += other;
                }
                const uint32_t beyond = __ballot_sync(0xffffffffu, before + sum > tile);
                if (beyond) {
                    const int owner = __ffs(beyond) - 1, across = __shfl_sync(0xffffffffu, tiles, owner);
                    const int local = tile - before - (__shfl_sync(0xffffffffu, sum, owner) - across * f.heads);
                    work = {__shfl_sync(0xffffffffu, first, owner), __shfl_sync(0xffffffffu, length, owner), local % across * rows, local / across,
                        base + owner};
                    break;
                }
                before += __shfl_sync(0xffffffffu, sum, 31);
                base += 32;
            }
            mf__bar_await(free(), ring.phase ^ 1);
            __syncwarp();
            if (lane == 0) {
                float bits[4], more;
                memcpy(bits, &work, 16);
                memcpy(&more, &work.sequence, 4);
                mf__write16(at + 32 * ring.stage, bits);
                mf__write(at + 32 * ring.stage + 16, more);
                mf__bar_arrive(full());
            }
            __syncwarp();
            ring.next();
            if (work.length == 0) return;
        }
    }
};

/* Writes half h of this thread's accumulators, a row of `width` floats, times `factor`. */
template <int COLUMNS> static __device__ __forceinline__ void mf__row_put(float *row, int width, const float (&c)[COLUMNS / 2], int h, float factor) {
    const int t = threadIdx.x & 3;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++) mf__put2(row, n * 8 + 2 * t, width, c[4 * n + 2 * h] * factor, c[4 * n + 2 * h + 1] * factor);
}

/* Whether the device is one for these kernels, and has enough to do: with less than one tile for `share` multiprocessors most would idle. */
static inline bool mf__hopper_fills(const mf_device *d, const mf_flash *f, int share = 2) {
    const mf_cuda *c = mf__cuda(d);
    return c->capability == 90 && f->total <= INT_MAX / 2 && mf__flash_slots(f, 64) * f->heads <= INT_MAX / 2 &&
        share * (f->total * f->heads / 128) >= c->multiprocessors;
}
#endif
