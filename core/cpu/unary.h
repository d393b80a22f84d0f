/* unary.h: MF_UNARY_LIST as expressions of one type, for the CPU's rows and for CUDA kernels.
 *
 * `x` is the input, `y` the output, of which the derivative gets the one that the list keeps; p0 and p1 are of the type.
 * NaN passes through every one, also through comparisons. */
#ifndef MF_CPU_UNARY_H
#define MF_CPU_UNARY_H
#include "activation.h"

#define MF_UNARY_TABLE(X, T, s) \
    X(T, s, affine, p0 * x + p1, p0) \
    X(T, s, pow_scalar, mf__pow_##s(x, p0), p0 == 0 ? 0 : p0 * mf__pow_##s(x, p0 - 1)) \
    X(T, s, clamp, x < p0 ? p0 : x > p1 ? p1 : x, x < p0 || x > p1 ? 0 : 1) \
    X(T, s, neg, -x, -1) \
    X(T, s, abs, x < 0 ? -x : x + 0, x > 0 ? 1 : x < 0 ? -1 : x) \
    X(T, s, sign, x > 0 ? 1 : x < 0 ? -1 : x, 0) \
    X(T, s, floor, mf__floor_##s(x), 0) \
    X(T, s, exp, mf__exp_##s(x), y) \
    X(T, s, log, mf__log_##s(x), 1 / x) \
    X(T, s, sqrt, mf__sqrt_##s(x), (T)0.5 / y) \
    X(T, s, rsqrt, 1 / mf__sqrt_##s(x), (T)-0.5 * y * y * y) \
    X(T, s, square, x * x, 2 * x) \
    X(T, s, reciprocal, 1 / x, -y * y) \
    X(T, s, sin, mf__sin_##s(x), mf__cos_##s(x)) \
    X(T, s, cos, mf__cos_##s(x), -mf__sin_##s(x)) \
    X(T, s, acos, mf__acos_##s(x), -1 / mf__sqrt_##s((1 - x) * (1 + x))) \
    X(T, s, tanh, mf__tanh_##s(x), (1 - y) * (1 + y)) \
    X(T, s, sigmoid, mf__sigmoid_##s(x), y * (1 - y)) \
    X(T, s, relu, x < 0 ? 0 : x, y > 0 ? 1 : 0) \
    X(T, s, gelu, x < -20 ? 0 : x * mf__cdf_##s(x), mf__cdf_##s(x) + (x < -20 || x > 20 ? 0 : x * mf__density_##s(x))) \
    X(T, s, silu, x < -100 ? 0 : x * mf__sigmoid_##s(x), mf__silu_derivative_##s(x)) \
    X(T, s, softplus, mf__softplus_##s(x), x > 20 ? 1 : mf__sigmoid_##s(x))

/* s (1 + x (1 - s)); 1 - sigmoid(x) is sigmoid(-x), and x stops where that product is 0. */
MF_DEVICE_FUNCTION static inline float mf__silu_derivative_f32(float x) {
    const float s = mf__sigmoid_f32(x), bounded = x < -100 ? -100 : x > 100 ? 100 : x;
    return s * (1 + bounded * mf__sigmoid_f32(-x));
}
MF_DEVICE_FUNCTION static inline double mf__silu_derivative_f64(double x) {
    const double s = mf__sigmoid_f64(x), bounded = x < -700 ? -700 : x > 700 ? 700 : x;
    return s * (1 + bounded * mf__sigmoid_f64(-x));
}
#endif
