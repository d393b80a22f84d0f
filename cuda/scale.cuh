/* scale.cuh: the power of two that dout is multiplied by before it is rounded to float16 (core/cpu/attention.c says why).
 *
 * Whoever has seen v and dout leaves, a block each, three numbers: the largest |dout|, the largest squared norm of a row of dout and of
 * v; upper bounds serve as well. Whoever rounds dout combines them. Maxima do not depend on their order: bitwise repeatable. */
#ifndef MF_CUDA_SCALE_CUH
#define MF_CUDA_SCALE_CUH
#include "common.cuh"

/* All threads of a block call it; `slots` is shared, 32 values. */
static __device__ inline void mf__leave_extents(double *extents, double largest, double dout_square, double v_square, double *slots) {
    const auto most = [](double a, double b) { return a > b ? a : b; };
    const double all[3] = {mf__block_all(largest, slots, 0.0, most), mf__block_all(dout_square, slots, 0.0, most),
                           mf__block_all(v_square, slots, 0.0, most)};
    if (threadIdx.x < 3) extents[3 * (int64_t)blockIdx.x + threadIdx.x] = all[threadIdx.x];
}

/* From what `count` blocks left: 1 where dout is zero or not finite. All threads of a block call it and get it. */
static __device__ inline float mf__dout_scale(const double *extents, int count, double *slots) {
    const auto most = [](double a, double b) { return a > b ? a : b; };
    double part[3] = {0, 0, 0};
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x)
#pragma unroll
        for (int j = 0; j < 3; j++) part[j] = most(extents[3 * i + j], part[j]);
#pragma unroll
    for (int j = 0; j < 3; j++) part[j] = mf__block_all(part[j], slots, 0.0, most);
    const double bound = most(part[0], sqrt(part[1]) * sqrt(part[2]) / 2);
    if (!(bound > 0 && bound < 1e300)) return 1;
    int exponent;
    frexp(bound, &exponent);                                /* bound < 2^exponent */
    exponent = 15 - exponent;
    return ldexpf(1, exponent > 100 ? 100 : exponent < -100 ? -100 : exponent);
}
#endif
