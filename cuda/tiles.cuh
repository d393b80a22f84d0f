/* tiles.cuh: packed sequences cut into tiles, and distances that have the CPU's bits; for neighbours.cu and pair_loss.cu.
 *
 * A tile is `unit` consecutive rows of one sequence. Tiles are numbered by slots that a kernel finds without a table of theirs:
 * sequence s has those from offset / unit + s on, ceil(length / unit) of them are used and at most one is not. */
#ifndef MF_CUDA_TILES_CUH
#define MF_CUDA_TILES_CUH
#include "common.cuh"

static __host__ __device__ __forceinline__ int64_t mf__slot_of(int64_t offset, int64_t sequence, int unit) { return offset / unit + sequence; }

/* The sequence that a slot belongs to; a residue is `rows` rows. */
static __device__ __forceinline__ int mf__slot_sequence(const int32_t *__restrict__ offsets, int64_t rows, int count, int64_t slot, int unit) {
    int lo = 0, hi = count;
    while (hi - lo > 1) {
        const int middle = lo + (hi - lo) / 2;
        if (mf__slot_of(offsets[middle] * rows, middle, unit) <= slot) lo = middle;
        else hi = middle;
    }
    return lo;
}

/* Arithmetic in which no two operations are contracted: what decides the order of neighbours, and which pairs count. */
static __device__ __forceinline__ float mf__subtract(float a, float b) { return __fadd_rn(a, -b); }
static __device__ __forceinline__ double mf__subtract(double a, double b) { return __dadd_rn(a, -b); }
static __device__ __forceinline__ float mf__square(float x, float y, float z) {
    return __fadd_rn(__fadd_rn(__fmul_rn(x, x), __fmul_rn(y, y)), __fmul_rn(z, z));
}
static __device__ __forceinline__ double mf__square(double x, double y, double z) {
    return __dadd_rn(__dadd_rn(__dmul_rn(x, x), __dmul_rn(y, y)), __dmul_rn(z, z));
}
static __device__ __forceinline__ float mf__root(float x) { return __fsqrt_rn(x); }
static __device__ __forceinline__ double mf__root(double x) { return __dsqrt_rn(x); }
#endif
