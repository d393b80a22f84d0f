/* hopper_slopes.cuh: what the two kernels of the deterministic backward for sm_90a share (hopper_slopes.cu says how it works).
 *
 * One: the operands of width d_qk, two: those of d_v; own: rows that stay with a block, the others pass in tiles of N. */
#ifndef MF_CUDA_HOPPER_SLOPES_CUH
#define MF_CUDA_HOPPER_SLOPES_CUH
#include "hopper_tile.cuh"

/* Padded (d_qk, d_v), smaller first: a problem takes the first pair that covers it. NARROW: dK and dV in the registers of one warpgroup;
 * MIDDLE: of two, hopper_slopes_pair.cu; LARGE: one after the other. */
#ifndef MF_HOPPER_SLOPES_NARROW
#define MF_HOPPER_SLOPES_NARROW(X) X(64, 64) X(96, 128)
#define MF_HOPPER_SLOPES_MIDDLE(X) X(128, 128) X(160, 160) X(160, 232) X(192, 192)
#define MF_HOPPER_SLOPES_LARGE(X) X(208, 272) X(256, 256)
#endif
/* dK, dV and dkey_bias for MIDDLE widths; any of them may be NULL. */
mf_status mf__hopper_slopes_pair(mf_device *d, const mf_flash *f);

/* Panels of tile one that the second product multiplies as a whole: 64 columns, or 32 where those would be too many. */
static __host__ __device__ constexpr int slopes_wide(int columns) { return columns % 64 == 0 ? 64 : 32; }

/* Barriers of a piece of shared memory: it is full, then free again. */
struct mf_slopes_piece {
    mf_address full, free;
};

struct mf_slopes_maps {
    mf_maps own_one, own_two, two;
    mf_map one;
};

/* One warp writes what goes with the N rows from j on: of keys that pass the bias; of queries lse, and delta where dS is made. WEIGHT: P
 * becomes an operand, so in float16 it is in units of 2^-15. Rows past the end get P = 0. */
template <bool BF16, int N, bool KEYS_OWN, bool SLOPE, bool WEIGHT>
static __device__ __forceinline__ void slopes_floats(const mf_flash &f, const mf_work &work, int j, mf_slopes_piece to, int phase,
    mf_address floats) {
    constexpr int each = (N + 31) / 32;
    const int lane = threadIdx.x & 31;
    float x[each], y[each];
#pragma unroll
    for (int r = 0; r < each; r++) {
        const int i = j + lane + 32 * r;
        const int64_t row = (int64_t)(work.first + i) * f.heads + work.head;
        x[r] = KEYS_OWN ? INFINITY : -INFINITY, y[r] = 0.0f;
        if (i >= work.length) continue;
        if constexpr (KEYS_OWN) {
            const float lse = f.lse[row];
            if (lse != -INFINITY) x[r] = fmaf(lse, MF_LOG2E, WEIGHT && !BF16 ? -15.0f : 0.0f);
            if (SLOPE) y[r] = f.delta[row];
        } else x[r] = f.key_bias ? f.key_bias[row] * MF_LOG2E : 0.0f;
    }
    mf__bar_await(to.free, phase ^ 1);
#pragma unroll
    for (int r = 0; r < each; r++)
        if (N % 32 == 0 || lane + 32 * r < N) {
            mf__write(floats + 128 * r + 4 * lane, x[r]);
            if (KEYS_OWN && SLOPE) mf__write(floats + 4 * N + 128 * r + 4 * lane, y[r]);
        }
    mf__bar_release(to.full);
}
#endif
