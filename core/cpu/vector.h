/* vector.h: scalar functions that gcc and clang turn into vector code: the exponential and the 16-bit floats.
 *
 * No branches and no tables: every choice is a select, so a plain loop under -O3 (or `omp simd`) becomes AVX
 * without -ffast-math. CUDA kernels compile this same text. The 16-bit conversions round to nearest, ties to even, and keep subnormals, infinities
 * and NaN; those from double round once. */
#ifndef MF_CPU_VECTOR_H
#define MF_CPU_VECTOR_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef MF_DEVICE_FUNCTION
#define MF_DEVICE_FUNCTION           /* a CUDA file defines it as __host__ __device__ first */
#endif

MF_DEVICE_FUNCTION static inline uint32_t mf__float_bits(float x) { uint32_t u; memcpy(&u, &x, sizeof u); return u; }
MF_DEVICE_FUNCTION static inline float mf__bits_float(uint32_t u) { float x; memcpy(&x, &u, sizeof x); return x; }
MF_DEVICE_FUNCTION static inline uint64_t mf__double_bits(double x) { uint64_t u; memcpy(&u, &x, sizeof u); return u; }
MF_DEVICE_FUNCTION static inline double mf__bits_double(uint64_t u) { double x; memcpy(&x, &u, sizeof x); return x; }

/* a b + c: fused where the machine does that in one instruction, never a library call. */
MF_DEVICE_FUNCTION static inline float mf__madd(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDA_ARCH__)
    return fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

/* r with x = n log(2) + r; n stands in the low bits of what is returned, x / log(2) + 1.5 * 2^23. */
MF_DEVICE_FUNCTION static inline float mf__exp_reduce(float *r, float x) {
    const float shifted = mf__madd(x, 1.44269504f, 12582912.0f);
    const float n = shifted - 12582912.0f;
    *r = mf__madd(n, 2.12194440e-4f, mf__madd(n, -0.693359375f, x));
    return shifted;
}

/* (exp(r) - 1 - r) / r^2 by its Taylor series: 1/2 + r/6 + ... + r^5/5040. */
MF_DEVICE_FUNCTION static inline float mf__exp_tail(float r) {
    float p = 1.0f / 5040;
    p = mf__madd(p, r, 1.0f / 720);
    p = mf__madd(p, r, 1.0f / 120);
    p = mf__madd(p, r, 1.0f / 24);
    p = mf__madd(p, r, 1.0f / 6);
    return mf__madd(p, r, 0.5f);
}

/* exp(x) = 2^n exp(r), |r| <= log(2) / 2, with n from the low bits of x / log(2) + 1.5 * 2^23, log(2) in two parts and
 * the Taylor series to r^7 (its remainder, r^8 / 8!, is 5e-9). 2^n goes in as two factors because n reaches 128
 * and -150. Relative error below 1.5e-7 on normal results; 0 for -inf, inf above 88.72, NaN stays. */
MF_DEVICE_FUNCTION static inline float mf__expf(float x) {
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float r;
    const float shifted = mf__exp_reduce(&r, x);
    float p = mf__exp_tail(r);
    p = mf__madd(p, r, 1.0f);
    p = mf__madd(p, r, 1.0f);
    /* bit patterns: 1.5 * 2^23 is 0x4b400000, so the difference is n, and halving it by a shift of the biased value
     * keeps everything unsigned */
    const uint32_t biased = mf__float_bits(shifted) - 0x4b400000u + 254u;
    const uint32_t half = biased >> 1;
    return p * mf__bits_float(half << 23) * mf__bits_float((biased - half) << 23);
}

MF_DEVICE_FUNCTION static inline float mf__half_to_float(uint16_t h) {
    const uint32_t magnitude = h & 0x7fffu;
    /* moving the exponent by a product also normalises subnormals */
    uint32_t u = mf__float_bits(mf__bits_float(magnitude << 13) * 0x1p112f);
    u = magnitude >= 0x7c00u ? u | 0x7f800000u : u;
    return mf__bits_float(u | (uint32_t)(h & 0x8000u) << 16);
}

MF_DEVICE_FUNCTION static inline uint16_t mf__float_to_half(float x) {
    const uint32_t u = mf__float_bits(x), a = u & 0x7fffffffu;
    const uint32_t normal = (a - (112u << 23) + 0xfffu + (a >> 13 & 1u)) >> 13;
    /* 0.5 has the spacing of a half's subnormals, 2^-24: the addition rounds */
    const uint32_t small = mf__float_bits(mf__bits_float(a) + 0.5f) - 0x3f000000u;
    uint32_t h = a < 0x38800000u ? small : normal;
    h = a >= 0x477ff000u ? 0x7c00u : h;                              /* 65520 and more: past the middle of 65504 and 2^16 */
    h = a > 0x7f800000u ? 0x7e00u | (a >> 13 & 0x3ffu) : h;
    return (uint16_t)(h | (u >> 16 & 0x8000u));
}

MF_DEVICE_FUNCTION static inline float mf__bf16_to_float(uint16_t b) { return mf__bits_float((uint32_t)b << 16); }

MF_DEVICE_FUNCTION static inline uint16_t mf__float_to_bf16(float x) {
    const uint32_t u = mf__float_bits(x);
    const uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16 | 0x40u) : rounded);
}

/* The nearest float16 or bfloat16 value, as a float. */
MF_DEVICE_FUNCTION static inline float mf__round_half(float x) { return mf__half_to_float(mf__float_to_half(x)); }
MF_DEVICE_FUNCTION static inline float mf__round_bf16(float x) { return mf__bf16_to_float(mf__float_to_bf16(x)); }

/* The same from a double, rounded once: adding and subtracting 1.5 * 2^52 spacings of the target leaves a multiple of
 * one spacing. `lowest` is the exponent of the least normal number, `largest` the last finite value. */
MF_DEVICE_FUNCTION static inline double mf__round_spacing(double x, int64_t fraction_bits, int64_t lowest, double largest) {
    int64_t exponent = (int64_t)(mf__double_bits(x) >> 52 & 0x7ff) - 1023;
    exponent = exponent < lowest ? lowest : exponent;
    exponent = exponent > 128 ? 128 : exponent;                     /* beyond both ranges: infinite in any case */
    const double magic = mf__bits_double((uint64_t)(exponent - fraction_bits + 52 + 1023) << 52) * 1.5;
    double y = (x + magic) - magic;
    y = y > largest ? INFINITY : y;
    y = y < -largest ? -INFINITY : y;
    y = fabs(x) > 2 * largest ? x * INFINITY : y;                    /* the magic sum has lost such an x */
    return copysign(y, x);
}
MF_DEVICE_FUNCTION static inline double mf__round_half_double(double x) { return mf__round_spacing(x, 10, -14, 65504.0); }
MF_DEVICE_FUNCTION static inline double mf__round_bf16_double(double x) { return mf__round_spacing(x, 7, -126, 0x1.fep127); }
MF_DEVICE_FUNCTION static inline uint16_t mf__double_to_half(double x) { return mf__float_to_half((float)mf__round_half_double(x)); }
MF_DEVICE_FUNCTION static inline uint16_t mf__double_to_bf16(double x) { return mf__float_to_bf16((float)mf__round_bf16_double(x)); }
#endif
