/* unary.cu: y = f(x) and dx = dy f'(x) for every row of MF_UNARY_LIST, rounding to 16 bits, and dropout.
 *
 *   unary     y = f(x)                              unary_grad   dx = dy f'(x or y), as the list says
 *   round_to  y = the nearest float16 or bfloat16   dropout      y = x / (1 - rate) where draw i >= rate, 0 elsewhere
 *
 * Work      1 to 40 operations an element; bandwidth bound in float, the functions of double are not
 * Traffic   operands once; mapping as iterate.cuh says; dropout draws one Philox block an element, in the element's thread
 * Numerics  the expressions of core/cpu/unary.h and activation.h, the same text as the CPU's, with the device's log, sin, cos,
 *           acos and pow; 16-bit floats are computed in float and rounded once; integers wrap
 * Kernels   float with vector rows has one for each function; other types and rows share one that asks (a uniform branch)
 * Bitwise deterministic. Any size. */
#include "iterate.cuh"
#include "table.cuh"

#define MF_DEVICE_FUNCTION __host__ __device__
#include "../core/base/philox.h"
#include "../core/cpu/unary.h"

#define VALUE(T, s, name, f, df) case MF_UNARY_##name: return (T)(f);
#define SLOPE(T, s, name, f, df) case MF_UNARY_##name: return (T)(df);
static __device__ inline float value_of(int op, float x, float p0, float p1) {
    switch (op) { MF_UNARY_TABLE(VALUE, float, f32) }
    return x;
}
static __device__ inline double value_of(int op, double x, double p0, double p1) {
    switch (op) { MF_UNARY_TABLE(VALUE, double, f64) }
    return x;
}
/* x: the input or the output, whichever the list keeps */
static __device__ inline float slope_of(int op, float x, float p0, float p1) {
    const float y = x;
    switch (op) { MF_UNARY_TABLE(SLOPE, float, f32) }
    return y;
}
static __device__ inline double slope_of(int op, double x, double p0, double p1) {
    const double y = x;
    switch (op) { MF_UNARY_TABLE(SLOPE, double, f64) }
    return y;
}

template <class T> using computed_in = std::conditional_t<sizeof(T) == 2, float, T>;

template <class T> struct any_value {
    using W = computed_in<T>;
    int op;
    W p0, p1;
    __device__ T operator()(T x) const { return mf__to<T>(value_of(op, mf__to<W>(x), p0, p1)); }
};
template <class T> struct any_slope {
    using W = computed_in<T>;
    int op;
    W p0, p1;
    __device__ T operator()(T dy, T x) const { return mf__to<T>(mf__to<W>(dy) * slope_of(op, mf__to<W>(x), p0, p1)); }
};
template <int OP> struct one_value {
    float p0, p1;
    __device__ float operator()(float x) const { return value_of(OP, x, p0, p1); }
};
template <int OP> struct one_slope {
    float p0, p1;
    __device__ float operator()(float dy, float x) const { return dy * slope_of(OP, x, p0, p1); }
};

template <class T> struct integer_value {
    int op;
    int64_t p0, p1;
    __device__ T operator()(T from) const {
        const int64_t x = from;
        const uint64_t u = (uint64_t)x;
        switch (op) {
        case MF_UNARY_affine: return (T)((uint64_t)p0 * u + (uint64_t)p1);
        case MF_UNARY_clamp: return (T)(x < p0 ? p0 : x > p1 ? p1 : x);
        case MF_UNARY_neg: return (T)(0 - u);
        case MF_UNARY_abs: return (T)(x < 0 ? 0 - u : u);
        case MF_UNARY_sign: return (T)((x > 0) - (x < 0));
        default: return (T)(u * u);
        }
    }
};

#define NAME(name, f, df, kept) #name,
static const char *const names[] = {MF_UNARY_LIST(NAME)};
#define GRADIENT_NAME(name, f, df, kept) #name " backward",
static const char *const gradient_names[] = {MF_UNARY_LIST(GRADIENT_NAME)};

/* Price of an element in elementary operations. */
static double cost_of(int op) {
    switch (op) {
    case MF_UNARY_affine: case MF_UNARY_clamp: case MF_UNARY_neg: case MF_UNARY_abs: case MF_UNARY_sign: case MF_UNARY_floor:
    case MF_UNARY_square: case MF_UNARY_relu: return 1;
    case MF_UNARY_sqrt: case MF_UNARY_rsqrt: case MF_UNARY_reciprocal: return 5;
    case MF_UNARY_pow_scalar: return 40;
    default: return 20;
    }
}

/* Clamp's bounds may be infinite: they saturate. */
static int64_t whole(double x) {
    return x >= 0x1p63 ? INT64_MAX : x < -0x1p63 ? INT64_MIN : (int64_t)x;
}

template <class T> static mf_status integers(mf_device *d, const mf_iter *it, int op, double p0, double p1) {
    const integer_value<T> f = {op, whole(op == MF_UNARY_clamp ? ceil(p0) : p0), whole(op == MF_UNARY_clamp ? floor(p1) : p1)};
    return mf__each<T, T, mf_nothing, mf_nothing>(d, names[op], it, f, f, 1);
}

/* ANY is any_value with B = mf_nothing, or any_slope with B = T: what is read besides x. */
template <template <class> class ANY, class T, class B>
static mf_status any_of(mf_device *d, const char *const *name, const mf_iter *it, int op, double p0, double p1) {
    using W = computed_in<T>;
    const ANY<T> any = {op, (W)p0, (W)p1};
    return mf__each<T, T, B, mf_nothing>(d, name[op], it, any, any, cost_of(op));
}

/* float: ONE is one_value or one_slope. */
template <template <class> class ANY, template <int> class ONE, class B>
static mf_status each_of(mf_device *d, const char *const *name, const mf_iter *it, int op, double p0, double p1) {
    const ANY<float> any = {op, (float)p0, (float)p1};
#define CASE(row, f, df, kept) \
    case MF_UNARY_##row:       \
        return mf__each<float, float, B, mf_nothing>(d, name[op], it, ONE<MF_UNARY_##row>{any.p0, any.p1}, any, cost_of(op));
    switch (op) { MF_UNARY_LIST(CASE) }
#undef CASE
    return MF_OK;
}

mf_status mf__cuda_unary(mf_device *d, const mf_iter *it, int op, double p0, double p1) {
    const int dtype = it->operand[0].dtype;
    if (dtype == MF_BOOL) return mf__fail(MF_ESUPPORT, "cuda: unary functions have no kernel for %s", mf_dtype_name(dtype));
    if (mf__is_index(dtype) && op != MF_UNARY_affine && op != MF_UNARY_clamp && op != MF_UNARY_neg && op != MF_UNARY_abs
        && op != MF_UNARY_sign && op != MF_UNARY_square)
        return mf__fail(MF_ESUPPORT, "cuda: unary function %d has no kernel for %s", op, mf_dtype_name(dtype));
    switch (dtype) {
    case MF_FLOAT32: return each_of<any_value, one_value, mf_nothing>(d, names, it, op, p0, p1);
    case MF_FLOAT64: return any_of<any_value, double, mf_nothing>(d, names, it, op, p0, p1);
    case MF_BFLOAT16: return any_of<any_value, __nv_bfloat16, mf_nothing>(d, names, it, op, p0, p1);
    case MF_FLOAT16: return any_of<any_value, __half, mf_nothing>(d, names, it, op, p0, p1);
    case MF_INT32: return integers<int32_t>(d, it, op, p0, p1);
    default: return integers<int64_t>(d, it, op, p0, p1);
    }
}

mf_status mf__cuda_unary_grad(mf_device *d, const mf_iter *it, int op, double p0, double p1) {
    const int dtype = it->operand[0].dtype;
    mf_iter full = *it;
    if (full.n_operands == 2) {
        /* the list keeps nothing: f' is p0, -1 or 0, so this is f(dy) without the shift; -0 leaves every sum as it is, 0
         * would turn -0 to 0 */
        const bool flat = op == MF_UNARY_sign || op == MF_UNARY_floor;
        return mf__cuda_unary(d, it, flat ? MF_UNARY_affine : op, flat ? 0 : p0, -0.0);
    }
    switch (dtype) {
    case MF_FLOAT32: return each_of<any_slope, one_slope, float>(d, gradient_names, &full, op, p0, p1);
    case MF_FLOAT64: return any_of<any_slope, double, double>(d, gradient_names, &full, op, p0, p1);
    case MF_BFLOAT16: return any_of<any_slope, __nv_bfloat16, __nv_bfloat16>(d, gradient_names, &full, op, p0, p1);
    case MF_FLOAT16: return any_of<any_slope, __half, __half>(d, gradient_names, &full, op, p0, p1);
    default: return mf__fail(MF_ESUPPORT, "cuda: gradients have no kernel for %s", mf_dtype_name(dtype));
    }
}

/* ---- rounding ---- */
template <class T> struct rounded {
    int half;
    __device__ T operator()(T x) const {
        if (half) return mf__to<T>(mf__to<__half>(x));
        return mf__to<T>(mf__to<__nv_bfloat16>(x));
    }
};
template <class T> static mf_status round_all(mf_device *d, const mf_iter *it, int half) {
    return mf__each<T, T, mf_nothing, mf_nothing>(d, "round_to", it, rounded<T>{half}, rounded<T>{half}, 1);
}

mf_status mf__cuda_round_to(mf_device *d, const mf_iter *it, int precision) {
    const int dtype = it->operand[0].dtype;
    if (!mf__is_float(dtype)) return mf__fail(MF_ESUPPORT, "cuda: rounding has no kernel for %s", mf_dtype_name(dtype));
    MF_DISPATCH_FLOAT(dtype, T, return round_all<T>(d, it, precision == MF_FP16));
    return MF_OK;
}

/* ---- dropout ---- */
template <class T> static __device__ inline T kept(T x, double rate) {
    if constexpr (std::is_same_v<T, double>) return x / (1 - rate);
    else return mf__to<T>(mf__to<float>(x) * (float)(1 / (1 - rate)));
}

template <class T> static __global__ void __launch_bounds__(256) dropout_kernel(int64_t n, const T *x, T *y, double rate, mf_draw draw) {
    const mf_rng rng = mf__draw_rng(draw);
    const float limit = (float)rate;
    MF_GRID_LOOP(i, n) {
        const bool keep = mf__uniform24(mf__philox(rng.seed, rng.stream, rng.counter + (uint64_t)i)) >= limit;
        y[i] = keep ? kept(x[i], rate) : mf__to<T>(0.0f);
    }
}

mf_status mf__cuda_dropout(mf_device *d, int dtype, int64_t n, const void *x, void *y, double rate, mf_rng rng) {
    if (!mf__is_float(dtype)) return mf__fail(MF_ESUPPORT, "cuda: dropout has no kernel for %s", mf_dtype_name(dtype));
    if (n == 0) return MF_OK;
    const mf_draw draw = mf__cuda_draw(d, rng);
    mf__cuda_work(d, 80.0 * (double)n, 2.0 * (double)(n * mf_dtype_bytes(dtype)));
    MF_DISPATCH_FLOAT(dtype, T, return MF_LAUNCH(d, dropout_kernel<T>, mf__grid(d, n, 256), 256, 0, n, (const T *)x, (T *)y, rate, draw));
    return MF_OK;
}
