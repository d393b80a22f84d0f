/* elementwise.cu: two and more operands: arithmetic, comparisons, choice, a x + b y. Unary functions are in unary.cu, casts
 * in copy.cu.
 *
 *   binary   y = a op b, comparisons into bool      where   y = c ? a : b       logical_not   y = not x
 *   axpy     x = a x + b y; a factor of 0 means that its operand is not read
 *
 * Work      one operation an element (pow and atan2 some 40), so bandwidth bound; traffic and mapping as iterate.cuh says
 * Numerics  16-bit floats are computed in float and rounded once; integers wrap
 * Kernels   + - * / are compiled one by one, the rest of a type is one kernel that asks which (a uniform branch): half the
 *           code, and nothing is lost where memory is waited for
 * Bitwise deterministic. Any size. */
#include "iterate.cuh"
#include "table.cuh"

#define MF_DEVICE_FUNCTION __host__ __device__
#include "../core/cpu/activation.h"

static __device__ inline float power(float a, float b) { return mf__pow_f32(a, b); }
static __device__ inline double power(double a, double b) { return mf__pow_f64(a, b); }
static __device__ inline float angle(float a, float b) { return mf__atan2_f32(a, b); }
static __device__ inline double angle(double a, double b) { return mf__atan2_f64(a, b); }

/* T is what is stored, W what is computed in. */
template <class T> struct arithmetic {
    using W = std::conditional_t<sizeof(T) == 2, float, T>;
    static __device__ inline W of(int op, W a, W b) {
        if constexpr (std::is_integral_v<T>) {
            using U = std::make_unsigned_t<T>;
            switch (op) {
            case MF_BINARY_add: return (T)((U)a + (U)b);
            case MF_BINARY_sub: return (T)((U)a - (U)b);
            case MF_BINARY_mul: return (T)((U)a * (U)b);
            case MF_BINARY_maximum: return a >= b ? a : b;
            default: return a <= b ? a : b;
            }
        } else {
            switch (op) {
            case MF_BINARY_add: return a + b;
            case MF_BINARY_sub: return a - b;
            case MF_BINARY_mul: return a * b;
            case MF_BINARY_div: return a / b;
            case MF_BINARY_pow: return power(a, b);
            case MF_BINARY_atan2: return angle(a, b);
            case MF_BINARY_maximum: return a >= b || a != a ? a : b;
            default: return a <= b || a != a ? a : b;
            }
        }
    }
};

template <class T> struct any_op {
    int op;
    __device__ T operator()(T a, T b) const {
        using W = typename arithmetic<T>::W;
        return mf__to<T>(arithmetic<T>::of(op, mf__to<W>(a), mf__to<W>(b)));
    }
};
template <class T, int OP> struct one_op {
    __device__ T operator()(T a, T b) const { return any_op<T>{OP}(a, b); }
};
template <class T> struct compare_op {
    int op;
    __device__ uint8_t operator()(T a, T b) const {
        using W = typename arithmetic<T>::W;
        const W u = mf__to<W>(a), v = mf__to<W>(b);
        return op == MF_BINARY_equal ? u == v : op == MF_BINARY_less ? u < v : u <= v;
    }
};
struct logical_op {
    int op;
    __device__ uint8_t operator()(uint8_t a, uint8_t b) const {
        return op == MF_BINARY_equal ? !a == !b : op == MF_BINARY_logical_and ? a && b : a || b;
    }
};
struct not_op {
    __device__ uint8_t operator()(uint8_t x) const { return !x; }
};

static const char *const names[] = {"add", "sub", "mul", "div", "pow", "atan2", "maximum", "minimum", "equal", "less", "less_equal",
                                    "logical_and", "logical_or"};

template <class T> static mf_status numbers(mf_device *d, const mf_iter *it, int op) {
    if (op >= MF_BINARY_equal)
        return mf__each<uint8_t, T, T, mf_nothing>(d, names[op], it, compare_op<T>{op}, compare_op<T>{op}, 1);
    const any_op<T> any = {op};
    if constexpr (!std::is_integral_v<T>) {
        switch (op) {
        case MF_BINARY_add: return mf__each<T, T, T, mf_nothing>(d, names[op], it, one_op<T, MF_BINARY_add>{}, any, 1);
        case MF_BINARY_sub: return mf__each<T, T, T, mf_nothing>(d, names[op], it, one_op<T, MF_BINARY_sub>{}, any, 1);
        case MF_BINARY_mul: return mf__each<T, T, T, mf_nothing>(d, names[op], it, one_op<T, MF_BINARY_mul>{}, any, 1);
        case MF_BINARY_div: return mf__each<T, T, T, mf_nothing>(d, names[op], it, one_op<T, MF_BINARY_div>{}, any, 1);
        default: break;
        }
    }
    return mf__each<T, T, T, mf_nothing>(d, names[op], it, any, any, op == MF_BINARY_pow || op == MF_BINARY_atan2 ? 40 : 1);
}

mf_status mf__cuda_binary(mf_device *d, const mf_iter *it, int op) {
    const int dtype = it->operand[1].dtype;
    const bool whole = mf__is_index(dtype), logical = op == MF_BINARY_logical_and || op == MF_BINARY_logical_or;
    const bool known = dtype == MF_BOOL ? logical || op == MF_BINARY_equal
                                        : !logical && !(whole && (op == MF_BINARY_div || op == MF_BINARY_pow || op == MF_BINARY_atan2));
    if (!known) return mf__fail(MF_ESUPPORT, "cuda: binary function %d has no kernel for %s", op, mf_dtype_name(dtype));
    switch (dtype) {
    case MF_FLOAT32: return numbers<float>(d, it, op);
    case MF_FLOAT64: return numbers<double>(d, it, op);
    case MF_BFLOAT16: return numbers<__nv_bfloat16>(d, it, op);
    case MF_FLOAT16: return numbers<__half>(d, it, op);
    case MF_INT32: return numbers<int32_t>(d, it, op);
    case MF_INT64: return numbers<int64_t>(d, it, op);
    default: return mf__each<uint8_t, uint8_t, uint8_t, mf_nothing>(d, names[op], it, logical_op{op}, logical_op{op}, 1);
    }
}

mf_status mf__cuda_logical_not(mf_device *d, const mf_iter *it) {
    return mf__each<uint8_t, uint8_t, mf_nothing, mf_nothing>(d, "logical_not", it, not_op{}, not_op{}, 1);
}

/* Choice moves elements unchanged, so it goes by their size. */
template <class T> struct choice {
    __device__ T operator()(uint8_t c, T a, T b) const { return c ? a : b; }
};
template <class T> static mf_status choose(mf_device *d, const mf_iter *it) {
    return mf__each<T, uint8_t, T, T>(d, "where", it, choice<T>{}, choice<T>{}, 1);
}

mf_status mf__cuda_where(mf_device *d, const mf_iter *it) {
    switch (mf_dtype_bytes(it->operand[0].dtype)) {
    case 1: return choose<uint8_t>(d, it);
    case 2: return choose<uint16_t>(d, it);
    case 4: return choose<uint32_t>(d, it);
    default: return choose<uint64_t>(d, it);
    }
}

/* x = a x + b y, and a x alone. W: float for 16-bit floats; int64, wrapping, for integers. */
template <class T> struct scaled_sum {
    using W = std::conditional_t<sizeof(T) == 2, float, std::conditional_t<std::is_integral_v<T>, uint64_t, T>>;
    W a, b;
    static __device__ W in(T x) {
        if constexpr (std::is_integral_v<T>) return (uint64_t)(int64_t)x;
        else return mf__to<W>(x);
    }
    static __device__ T out(W x) {
        if constexpr (std::is_integral_v<T>) return (T)x;
        else return mf__to<T>(x);
    }
    __device__ T operator()(T x, T y) const { return out(a * in(x) + b * in(y)); }
    __device__ T operator()(T x) const { return out(a * in(x)); }
};

template <class T> static mf_status add_scaled(mf_device *d, const mf_iter *it, double a, double b) {
    using W = typename scaled_sum<T>::W;
    const auto factor = [](double x) { return std::is_integral_v<T> ? (W)(int64_t)x : (W)x; };
    mf_iter now = *it;
    if (a == 0 && b == 0) return mf__cuda_fill(d, it, 0);
    if (b == 0 || it->n_operands == 1) {
        now.n_operands = 2;
        now.operand[1] = it->operand[0];
        const scaled_sum<T> f = {factor(it->n_operands == 1 ? a + b : a), 0};
        return mf__each<T, T, mf_nothing, mf_nothing>(d, "scale", &now, f, f, 1);
    }
    if (a == 0) {
        const scaled_sum<T> f = {factor(b), 0};
        return mf__each<T, T, mf_nothing, mf_nothing>(d, "scale", &now, f, f, 1);
    }
    now.n_operands = 3;
    now.operand[1] = it->operand[0];
    now.operand[2] = it->operand[1];
    const scaled_sum<T> f = {factor(a), factor(b)};
    return mf__each<T, T, T, mf_nothing>(d, "axpy", &now, f, f, 2);
}

mf_status mf__cuda_axpy(mf_device *d, const mf_iter *it, double a, double b) {
    const int dtype = it->operand[0].dtype;
    if (it->n_operands > 1 && it->operand[1].dtype != dtype)
        return mf__fail(MF_EDTYPE, "cuda: axpy of %s and %s", mf_dtype_name(dtype), mf_dtype_name(it->operand[1].dtype));
    if (mf__is_index(dtype) && (a != floor(a) || b != floor(b) || fabs(a) > 0x1p53 || fabs(b) > 0x1p53))
        return mf__fail(MF_EVALUE, "cuda: factors %g and %g of %s must be whole numbers", a, b, mf_dtype_name(dtype));
    switch (dtype) {
    case MF_FLOAT32: return add_scaled<float>(d, it, a, b);
    case MF_FLOAT64: return add_scaled<double>(d, it, a, b);
    case MF_BFLOAT16: return add_scaled<__nv_bfloat16>(d, it, a, b);
    case MF_FLOAT16: return add_scaled<__half>(d, it, a, b);
    case MF_INT32: return add_scaled<int32_t>(d, it, a, b);
    case MF_INT64: return add_scaled<int64_t>(d, it, a, b);
    default: return mf__fail(MF_ESUPPORT, "cuda: axpy has no kernel for %s", mf_dtype_name(dtype));
    }
}
