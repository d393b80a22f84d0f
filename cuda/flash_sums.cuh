/* flash_sums.cuh: dQ as a sum of parts that blocks of keys add to in any order, kept as the matrix unit holds them: 16 x 8 blocks, 128 floats
 * in the order of lanes, so that a warp adds 512 neighbouring bytes at once: (16 rows of a sequence by mf__flash_slots, head, 8
 * columns). Zeroed before, gathered after. */
#ifndef MF_CUDA_FLASH_SUMS_CUH
#define MF_CUDA_FLASH_SUMS_CUH
#include "flash_tile.cuh"

static inline int64_t mf__sums_floats(const mf_flash *f, int width) { return mf__flash_slots(f, 16) * f->heads * 16 * width; }
/* The blocks of 16 rows from `row` of the sequence on, `width` columns. */
static __device__ __forceinline__ float *mf__sums_at(float *data, const mf_flash &f, const mf_place &place, int row, int head, int width) {
    return data + ((place.first / 16 + place.sequence + row / 16) * f.heads + head) * (width / 8) * 128;
}

static __global__ void flash_zero_kernel(float4 *x, int64_t n) {
    MF_GRID_LOOP(i, n) x[i] = make_float4(0, 0, 0, 0);
}
/* dq (rows, width): a warp takes one head of the 16 rows of a slot. */
template <int DQK> static __global__ void __launch_bounds__(128) flash_gather_kernel(const mf_flash f, const float *sums) {
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const int64_t block = ((int64_t)blockIdx.x * 128 + threadIdx.x) / 32;
    const int head = (int)(block % f.heads);
    if (block / f.heads >= f.total / 16 + f.sequences) return;
    const mf_place place = mf__flash_place(f, block / f.heads, 16);
    if (place.start >= place.length) return;
    const float back = 1.0f / *f.scale;
    const float4 *from = (const float4 *)(sums + block * (DQK / 8) * 128) + lane;
    float *to = f.dq + ((place.first + place.start + g) * f.heads + head) * f.dqk;
    float4 x[DQK / 8];
#pragma unroll
    for (int n = 0; n < DQK / 8; n++) x[n] = from[32 * n];
#pragma unroll
    for (int n = 0; n < DQK / 8; n++) {
        if (place.start + g < place.length) mf__put2(to, n * 8 + 2 * t, f.dqk, x[n].x * back, x[n].y * back);
        if (place.start + g + 8 < place.length) mf__put2(to + 8 * f.heads * f.dqk, n * 8 + 2 * t, f.dqk, x[n].z * back, x[n].w * back);
    }
}

static inline mf_status mf__sums_zero(mf_device *d, const mf_flash *f, float *sums, int width) {
    const int64_t floats = mf__sums_floats(f, width);
    mf__cuda_work(d, 0, 4.0 * (double)floats);
    return MF_LAUNCH(d, flash_zero_kernel, mf__grid(d, floats / 4, 256), 256, 0, (float4 *)sums, floats / 4);
}
template <int DQK> static mf_status mf__sums_gather(mf_device *d, const mf_flash *f, const float *sums) {
    mf__cuda_work(d, 0, 4.0 * (double)mf__sums_floats(f, DQK) + 4.0 * (double)(f->total * f->heads * f->dqk));
    return MF_LAUNCH(d, flash_gather_kernel<DQK>, (unsigned)mf__blocks(mf__flash_slots(f, 16) * f->heads, 4), 128, 0, *f, sums);
}
#endif
