/* tile.h: what the product kernels share: rounding to the operand types of matrix units, aligned workspaces. */
#ifndef MF_CPU_TILE_H
#define MF_CPU_TILE_H
#include "cpu.h"
#include "vector.h"

/* The nearest value with 10 fraction bits, ties to even; infinities and NaN stay. */
static inline float mf__round_tf32(float x) {
    const uint32_t u = mf__float_bits(x);
    const uint32_t rounded = (u + 0xfffu + (u >> 13 & 1u)) & ~0x1fffu;
    return mf__bits_float((u & 0x7f800000u) == 0x7f800000u ? u : rounded);
}
static inline double mf__round_tf32_double(double x) { return mf__round_spacing(x, 10, -126, 0x1.ffcp127); }

/* exp(x) in double as mf__expf does it in float: the Taylor series to r^13, whose remainder is below 1e-17. For loops, where
 * libm's exp would keep them scalar. 0 under -745.2, inf above 709.79, NaN stays. */
static inline double mf__exp_double(double x) {
    x = x < -746.0 ? -746.0 : x;
    x = x > 710.0 ? 710.0 : x;
    const double shifted = x * 1.4426950408889634 + 0x1.8p52, n = shifted - 0x1.8p52;
    double r = x - n * 0x1.62e42feep-1;                     /* log(2) in two parts: the first has 29 bits, so n times it is exact */
    r -= n * 0x1.a39ef35793c76p-33;
    static const double c[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
                               1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1, 1};
    double p = c[0];
    for (int i = 1; i < 14; i++) p = p * r + c[i];
    const uint64_t biased = mf__double_bits(shifted) - 0x4338000000000000u + 2046u, half = biased >> 1;
    return p * mf__bits_double(half << 52) * mf__bits_double((biased - half) << 52);
}

/* to = round(scale from), n values; `scale` is a power of two, so that it does not round itself. */
#define MF__ROUND_ROW(R, suffix, half, bf16, tf32)                                                            \
    static inline void mf__round_row_##suffix(R *to, const R *from, int64_t n, int precision, R scale) {      \
        switch (precision) {                                                                                  \
        case MF_FP16: _Pragma("omp simd") for (int64_t i = 0; i < n; i++) to[i] = half(scale * from[i]); break; \
        case MF_BF16: _Pragma("omp simd") for (int64_t i = 0; i < n; i++) to[i] = bf16(scale * from[i]); break; \
        case MF_TF32: _Pragma("omp simd") for (int64_t i = 0; i < n; i++) to[i] = tf32(scale * from[i]); break; \
        default:      _Pragma("omp simd") for (int64_t i = 0; i < n; i++) to[i] = scale * from[i];              \
        }                                                                                                     \
    }
MF__ROUND_ROW(float, f32, mf__round_half, mf__round_bf16, mf__round_tf32)
MF__ROUND_ROW(double, f64, mf__round_half_double, mf__round_bf16_double, mf__round_tf32_double)

static inline int64_t mf__min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t mf__max_i64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t mf__ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* One block for `parts` workspaces of `bytes` each, a multiple of 64, so that no two share a cache line. Free *block. */
static inline mf_status mf__workspaces(void **block, char **first, mf_device *d, int64_t parts, int64_t bytes) {
    *block = mf__host_alloc(d->ctx, (size_t)(parts * bytes + 64));
    if (!*block) return MF_ENOMEM;
    *first = (char *)(((uintptr_t)*block + 63) & ~(uintptr_t)63);
    return MF_OK;
}
#endif
