/* activation.h: the functions behind the unary kernels, in float (vectorised, relative error below 2e-7, Phi 3.3e-7) and in double
 * (libm): names end in _f32 and _f64. CUDA kernels compile this same text.
 *
 *     mf__expm1, mf__tanh, mf__sigmoid
 *     mf__cdf       Phi(x), the normal distribution function     mf__density   phi(x) = exp(-x^2 / 2) / sqrt(2 pi)
 *     mf__softplus  log(1 + exp(x)), x above 20
 */
#ifndef MF_CPU_ACTIVATION_H
#define MF_CPU_ACTIVATION_H
#include "vector.h"

/* exp(x) - 1 for x >= 0 (NaN stays): 2^n (1 + p) - 1 = (2^n - 1) + 2^n p with p = exp(r) - 1 free of cancellation.
 * Above 40 the caller does not see the difference from exp(40), so n stays far from overflow. */
MF_DEVICE_FUNCTION static inline float mf__expm1_positive(float x) {
    x = x > 40.0f ? 40.0f : x;
    float r;
    const float shifted = mf__exp_reduce(&r, x);
    float p = mf__exp_tail(r);
    p = mf__madd(p * r, r, r);
    const float power = mf__bits_float((mf__float_bits(shifted) - 0x4b400000u + 127u) << 23);
    return mf__madd(power, p, power - 1.0f);
}

/* tanh(x) = e / (e + 2), e = exp(2 |x|) - 1. */
MF_DEVICE_FUNCTION static inline float mf__tanh_f32(float x) {
    const float e = mf__expm1_positive(2 * fabsf(x));
    return copysignf(e / (e + 2.0f), x);
}
MF_DEVICE_FUNCTION static inline double mf__tanh_f64(double x) { return tanh(x); }

/* exp(-|x|) only: 1 / (1 + exp(-x)) would give 0 where exp(-x) overflows before the result underflows. */
MF_DEVICE_FUNCTION static inline float mf__sigmoid_f32(float x) {
    const float e = mf__expf(-fabsf(x));
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}
MF_DEVICE_FUNCTION static inline double mf__sigmoid_f64(double x) {
    const double e = exp(-fabs(x));
    return (x < 0 ? e : 1.0) / (1.0 + e);
}

/* exp(-x^2 / 2) = e - e r / 2 with e from the rounded square and r its rounding error: left out, r would cost x^2 / 2
 * units. The high part of x has 12 bits, so its square and the difference from the rounded one are exact. */
MF_DEVICE_FUNCTION static inline float mf__gauss_f32(float x) {
    const float high = mf__bits_float(mf__float_bits(x) & 0xfffff000u), square = x * x;
    const float r = mf__madd(high, high, -square) + (x - high) * (x + high);
    const float e = mf__expf(-0.5f * square);
    return mf__madd(-0.5f * r, e, e);
}
MF_DEVICE_FUNCTION static inline float mf__density_f32(float x) {
    x = x > 20.0f ? 20.0f : x;           /* 0 by then; and inf - inf must not arise */
    x = x < -20.0f ? -20.0f : x;
    return 0.39894228f * mf__gauss_f32(x);
}
MF_DEVICE_FUNCTION static inline double mf__density_f64(double x) { return 0.3989422804014327 * exp(-0.5 * x * x); }

/* Phi(-x) = exp(-x^2 / 2) M(x) for x >= 0; M(x) (x + 3) is smooth in t = (x - 3) / (x + 3) in [-1, 1], and a
 * polynomial of degree 11 (Chebyshev interpolation, written out in powers) has it to 1e-8. */
MF_DEVICE_FUNCTION static inline float mf__cdf_f32(float x) {
    float a = fabsf(x);
    a = a > 20.0f ? 20.0f : a;
    const float t = (a - 3.0f) / (a + 3.0f);
    float p = -1.52034828e-05f;
    p = mf__madd(p, t, 3.54506383e-05f);
    p = mf__madd(p, t, 0.000153866335f);
    p = mf__madd(p, t, -0.000214277454f);
    p = mf__madd(p, t, -0.001044777f);
    p = mf__madd(p, t, 0.00100724754f);
    p = mf__madd(p, t, 0.00697220286f);
    p = mf__madd(p, t, -0.0104583127f);
    p = mf__madd(p, t, -0.0472629645f);
    p = mf__madd(p, t, 0.230017341f);
    p = mf__madd(p, t, -0.509331984f);
    p = mf__madd(p, t, 0.729083695f);
    const float below = p / (a + 3.0f) * mf__gauss_f32(a);
    return x > 0 ? 1.0f - below : below;
}
MF_DEVICE_FUNCTION static inline double mf__cdf_f64(double x) { return 0.5 * erfc(-0.7071067811865476 * x); }

/* max(x, 0) + log(1 + u), u = exp(-|x|), and log(1 + u) = 2 atanh(s), s = u / (2 + u) <= 1/3, by its series, whose
 * first term is written 2 s = u - s u. */
MF_DEVICE_FUNCTION static inline float mf__softplus_f32(float x) {
    const float u = mf__expf(-fabsf(x)), s = u / (2.0f + u), z = s * s;
    float p = 2.0f / 17;
    p = mf__madd(p, z, 2.0f / 15);
    p = mf__madd(p, z, 2.0f / 13);
    p = mf__madd(p, z, 2.0f / 11);
    p = mf__madd(p, z, 2.0f / 9);
    p = mf__madd(p, z, 2.0f / 7);
    p = mf__madd(p, z, 2.0f / 5);
    p = mf__madd(p, z, 2.0f / 3);
    const float y = u + s * (p * z - u) + (x < 0 ? 0.0f : x);
    return x > 20.0f ? x : y;
}
MF_DEVICE_FUNCTION static inline double mf__softplus_f64(double x) {
    return x > 20 ? x : (x < 0 ? 0 : x) + log1p(exp(-fabs(x)));
}

/* The rest by one name for both types. */
#define MF__BOTH(name, float_call, double_call)                          \
    MF_DEVICE_FUNCTION static inline float mf__##name##_f32(float x) { return float_call; } \
    MF_DEVICE_FUNCTION static inline double mf__##name##_f64(double x) { return double_call; }
MF__BOTH(exp, mf__expf(x), exp(x))
MF__BOTH(log, logf(x), log(x))
MF__BOTH(sqrt, sqrtf(x), sqrt(x))
MF__BOTH(sin, sinf(x), sin(x))
MF__BOTH(cos, cosf(x), cos(x))
MF__BOTH(acos, acosf(x), acos(x))
MF__BOTH(floor, floorf(x), floor(x))
#undef MF__BOTH
MF_DEVICE_FUNCTION static inline float mf__pow_f32(float x, float y) { return powf(x, y); }
MF_DEVICE_FUNCTION static inline double mf__pow_f64(double x, double y) { return pow(x, y); }
MF_DEVICE_FUNCTION static inline float mf__atan2_f32(float y, float x) { return atan2f(y, x); }
MF_DEVICE_FUNCTION static inline double mf__atan2_f64(double y, double x) { return atan2(y, x); }
#endif
