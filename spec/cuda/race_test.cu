/* race_test.cu: what compute-sanitizer's racecheck makes of hand-overs that are right, and of two that are not.
 *
 *     nvcc -std=c++20 -O3 -lineinfo -gencode arch=compute_90a,code=sm_90a -cudart static -o race_test spec/cuda/race_test.cu
 *     compute-sanitizer --tool racecheck race_test CASE [LAUNCHES]
 *
 * In every case warps write rows of 16-bit elements into one of two stages of shared memory, warps read them with ldmatrix, and the stage is
 * written again; a case says who tells whom that a stage is full, and that it is free. The sum of all that was read says whether the values
 * came through: the program exits with 1 where they did not. `make check-gpu-racecheck` runs all cases, by themselves and under the tool;
 * cuda/README.md has what came of it. */
#include "../../cuda/hopper.cuh"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda/barrier>

constexpr int ROWS = 64, STRIDE = 72, STAGES = 2, TILES = 13, STAGE_BYTES = ROWS * STRIDE * 2, BLOCKS = 40;
enum way {
    STORES,                       /* by all warps, __syncthreads between */
    STORES_UNGUARDED,             /* nothing between: wrong */
    COPIES,                       /* cp.async by all warps, a wait for it and __syncthreads between, as in flash_forward.cu */
    COPIES_NOT_AWAITED,           /* without the wait: wrong */
    COPIES_PARTLY,                /* the last rows filled with zeros */
    COPIES_AND_TEAMS,             /* pairs of warps meet at a named barrier as well, as in flash_forward.cu */
    COPIES_AND_IDLE_WARPS,        /* two of four warps read nothing: they copy and wait for the others at __syncthreads */
    COPIES_IDLE_AND_TEAMS,        /* the same where the two that read meet at a named barrier, as in flash_backward.cu */
    MBARRIERS,                    /* a warp writes, the others read; a lane arrives for its warp after __syncwarp, as in hopper_*.cu */
    MBARRIERS_BY_LANE,            /* every lane arrives itself */
    LIBRARY_BARRIERS,             /* cuda::barrier, a lane for its warp */
    LIBRARY_BARRIERS_BY_LANE,     /* every lane itself */
    WAYS
};
static const char *const names[WAYS] = {"stores", "stores-unguarded", "copies", "copies-not-awaited", "copies-partly", "copies-and-teams", "copies-and-idle-warps",
                                        "copies-idle-and-teams", "mbarriers", "mbarriers-by-lane", "library-barriers", "library-barriers-by-lane"};

/* The sum of the elements of rows [from, to) of a stage that this lane gets. */
static __device__ __forceinline__ uint32_t sum_of(mf_address stage, int from = 0, int to = ROWS) {
    const int lane = threadIdx.x & 31;
    uint32_t sum = 0;
    for (int row = from; row < to; row += 16)
        for (int column = 0; column < 64; column += 16) {
            uint32_t r[4];
            mf__load4(r, stage + 2 * ((row + (lane & 15)) * STRIDE + column + (lane >> 4) * 8));
            for (int i = 0; i < 4; i++) sum += (r[i] & 0xffff) + (r[i] >> 16);
        }
    return sum;
}

/* Writes this thread's part of a tile: rows from `from` on in steps of `step`, 8 lanes a row. */
template <int WAY> static __device__ __forceinline__ void write_tile(mf_address base, const uint16_t *x, int tile, int from, int step) {
    for (int row = from; row < ROWS; row += step) {
        const uint16_t *source = x + (tile * ROWS + row) * 64 + threadIdx.x % 8 * 8;
        const mf_address to = base + tile % STAGES * STAGE_BYTES + 2 * (row * STRIDE + threadIdx.x % 8 * 8);
        if (WAY >= COPIES && WAY < MBARRIERS) mf__copy16(to, source, WAY != COPIES_PARTLY || row < ROWS - 3);      /* x has zeros there */
        else {
            float bits[4];
            memcpy(bits, source, 16);
            mf__write16(to, bits);
        }
    }
}

/* All warps write the next tile, then read this one. */
template <int WAY> static __device__ __forceinline__ uint32_t in_step(mf_address base, const uint16_t *x) {
    const int warp = threadIdx.x / 32, from = threadIdx.x / 8;
    const bool idle = (WAY == COPIES_AND_IDLE_WARPS || WAY == COPIES_IDLE_AND_TEAMS) && warp >= 2;
    uint32_t sum = 0;
    write_tile<WAY>(base, x, 0, from, 16);
    mf__copy_commit();
    for (int tile = 0; tile < TILES; tile++) {
        if (WAY != COPIES_NOT_AWAITED) mf__copy_wait<0>();
        if (WAY != STORES_UNGUARDED) __syncthreads();
        if (tile + 1 < TILES) write_tile<WAY>(base, x, tile + 1, from, 16);
        mf__copy_commit();
        if (idle) continue;
        const mf_address here = base + tile % STAGES * STAGE_BYTES;
        sum += sum_of(here, 0, ROWS / 2);
        if (WAY == COPIES_AND_TEAMS || WAY == COPIES_IDLE_AND_TEAMS) mf__barrier(1 + warp / 2, 64);
        sum += sum_of(here, ROWS / 2, ROWS);
    }
    return sum;
}

/* Warp 0 writes, the others read. arrive(full), await(full, parity): of a stage's two barriers. */
template <int WAY, class ARRIVE, class AWAIT>
static __device__ __forceinline__ uint32_t handed_over(mf_address base, const uint16_t *x, ARRIVE arrive, AWAIT await) {
    uint32_t sum = 0;
    for (int tile = 0; tile < TILES; tile++) {
        const int stage = tile % STAGES, round = tile / STAGES;
        if (threadIdx.x < 32) {
            if (round > 0) await(false, stage, (round + 1) & 1);
            write_tile<WAY>(base, x, tile, threadIdx.x / 8, 4);
            arrive(true, stage);
        } else {
            await(true, stage, round & 1);
            sum += sum_of(base + stage * STAGE_BYTES);
            arrive(false, stage);
        }
    }
    return sum;
}

template <int WAY> static __global__ void __launch_bounds__(128, 1) hand_over(const uint16_t *x, uint32_t *out) {
    __shared__ __align__(128) unsigned char shared[STAGES * STAGE_BYTES];
    __shared__ __align__(8) uint64_t bars[2 * STAGES];
    const mf_address base = mf__address(shared), bar = mf__address(bars);
    const int lane = threadIdx.x & 31;
    constexpr int each = WAY == MBARRIERS_BY_LANE || WAY == LIBRARY_BARRIERS_BY_LANE ? 32 : 1;       /* arrivals of a warp */
    uint32_t sum;
    if (WAY == MBARRIERS || WAY == MBARRIERS_BY_LANE) {
        if (threadIdx.x == 0) {
            for (int s = 0; s < STAGES; s++) {
                mf__bar_init(bar + 8 * s, each);
                mf__bar_init(bar + 8 * (STAGES + s), 3 * each);
            }
            mf__bar_init_seen();
        }
        __syncthreads();
        sum = handed_over<WAY>(base, x, [&](bool full, int stage) {
            const mf_address at = bar + 8 * (full ? stage : STAGES + stage);
            if (each == 32) mf__bar_arrive(at);
            else mf__bar_release(at);
        }, [&](bool full, int stage, int parity) { mf__bar_await(bar + 8 * (full ? stage : STAGES + stage), parity); });
    } else if (WAY == LIBRARY_BARRIERS || WAY == LIBRARY_BARRIERS_BY_LANE) {
        auto *barriers = reinterpret_cast<cuda::barrier<cuda::thread_scope_block> *>(bars);
        if (threadIdx.x < 2 * STAGES) init(barriers + threadIdx.x, threadIdx.x < STAGES ? each : 3 * each);
        __syncthreads();
        sum = handed_over<WAY>(base, x, [&](bool full, int stage) {
            __syncwarp();
            if (each == 32 || lane == 0) (void)barriers[full ? stage : STAGES + stage].arrive();
        }, [&](bool full, int stage, int parity) { barriers[full ? stage : STAGES + stage].wait_parity(parity); });
    } else sum = in_step<WAY>(base, x);
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == 0) atomicAdd(out + blockIdx.x, sum);
}

#define CHECK(x)                                                                                    \
    do {                                                                                            \
        const cudaError_t error_ = (x);                                                             \
        if (error_ != cudaSuccess) {                                                                \
            printf("%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(error_));                  \
            exit(99);                                                                               \
        }                                                                                           \
    } while (0)

extern "C" mf_status mf__fail(mf_status status, const char *, ...) { return status; }
mf_status mf__cuda_status(cudaError_t error, const char *) { return error == cudaSuccess ? MF_OK : MF_EDEVICE; }

template <int WAY> static bool run(const char *name, int launches, const uint16_t *x, uint32_t *out, uint32_t all) {
    if constexpr (WAY == WAYS) {
        printf("race_test: no case '%s'\n", name);
        return false;
    } else {
        if (strcmp(name, names[WAY])) return run<WAY + 1>(name, launches, x, out, all);
        const uint32_t readers = WAY >= MBARRIERS ? 3 : WAY == COPIES_AND_IDLE_WARPS || WAY == COPIES_IDLE_AND_TEAMS ? 2 : 4;
        int wrong = 0;
        for (int i = 0; i < launches; i++) {
            CHECK(cudaMemset(out, 0, BLOCKS * sizeof *out));
            hand_over<WAY><<<BLOCKS, 128>>>(x, out);
            CHECK(cudaGetLastError());
            uint32_t sums[BLOCKS];
            CHECK(cudaMemcpy(sums, out, sizeof sums, cudaMemcpyDeviceToHost));
            for (uint32_t sum : sums) wrong += sum != readers * all;
        }
        printf("%-26s %5d of %d sums wrong\n", name, wrong, launches * BLOCKS);
        return wrong == 0;
    }
}

int main(int argc, char **argv) {
    if (argc < 2) {
        for (const char *name : names) printf("%s\n", name);
        return 0;
    }
    static uint16_t x[TILES * ROWS * 64];
    uint32_t all = 0;
    for (int i = 0; i < TILES * ROWS * 64; i++) {
        x[i] = i / 64 % ROWS >= ROWS - 3 ? 0 : (uint16_t)(i * 40503u >> 4);
        all += x[i];
    }
    uint16_t *there;
    uint32_t *out;
    CHECK(cudaMalloc(&there, sizeof x));
    CHECK(cudaMalloc(&out, BLOCKS * sizeof *out));
    CHECK(cudaMemcpy(there, x, sizeof x, cudaMemcpyHostToDevice));
    return run<0>(argv[1], argc > 2 ? atoi(argv[2]) : 1, there, out, all) ? 0 : 1;
}
