/* copy.c: copies between every two element types, and fill.
 *
 * A cast is a load to a wide type and a store from it: 16-bit floats and float go through float, double through
 * double, integers and bool through int64. Rounding is to nearest, ties to even, and happens once; only int64 beyond
 * 2^53 to bfloat16 rounds twice. Floats become integers by dropping the fraction; what an integer type cannot hold
 * becomes its nearest bound and NaN becomes 0, so a bad index stays out of range. Anything but 0 is true.
 * CASTS makes <from>_to_<to> for every pair of f32, f64, bf16, f16, i32, i64, bool. */
#include "vector.h"
#include "each_row.h"

static inline int64_t i64_of(double x) {
    return x >= 0x1p63 ? INT64_MAX : x < -0x1p63 ? INT64_MIN : x != x ? 0 : (int64_t)x;
}
static inline int32_t i32_of(double x) {
    return x >= 2147483647.0 ? INT32_MAX : x <= -2147483648.0 ? INT32_MIN : x != x ? 0 : (int32_t)x;
}
static inline int32_t i32_of_i64(int64_t x) { return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : (int32_t)x; }

/* <target>_from_<wide>: wide is f (float), d (double) or i (int64). */
static inline float f32_from_f(float x) { return x; }
static inline float f32_from_d(double x) { return (float)x; }
static inline float f32_from_i(int64_t x) { return (float)x; }
static inline double f64_from_f(float x) { return x; }
static inline double f64_from_d(double x) { return x; }
static inline double f64_from_i(int64_t x) { return (double)x; }
static inline uint16_t bf16_from_f(float x) { return mf__float_to_bf16(x); }
static inline uint16_t bf16_from_d(double x) { return mf__double_to_bf16(x); }
static inline uint16_t bf16_from_i(int64_t x) { return mf__double_to_bf16((double)x); }
static inline uint16_t f16_from_f(float x) { return mf__float_to_half(x); }
static inline uint16_t f16_from_d(double x) { return mf__double_to_half(x); }
static inline uint16_t f16_from_i(int64_t x) { return mf__double_to_half((double)x); }
static inline int32_t i32_from_f(float x) { return i32_of(x); }
static inline int32_t i32_from_d(double x) { return i32_of(x); }
static inline int32_t i32_from_i(int64_t x) { return i32_of_i64(x); }
static inline int64_t i64_from_f(float x) { return i64_of(x); }
static inline int64_t i64_from_d(double x) { return i64_of(x); }
static inline int64_t i64_from_i(int64_t x) { return x; }
static inline unsigned char bool_from_f(float x) { return x != 0; }
static inline unsigned char bool_from_d(double x) { return x != 0; }
static inline unsigned char bool_from_i(int64_t x) { return x != 0; }

#define CAST(from, A, W, w, load, to, T)                                                                       \
    static void from##_to_##to(int64_t n, void *const *data, const int64_t *stride, const void *context) {     \
        (void)context;                                                                                         \
        T *y = data[0];                                                                                        \
        const A *x = data[1];                                                                                  \
        const int64_t sy = stride[0], sx = stride[1];                                                          \
        if (sy == 1 && sx == 1)                                                                                \
            _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = to##_from_##w((W)load(x[i]));           \
        else                                                                                                   \
            for (int64_t i = 0; i < n; i++) y[i * sy] = to##_from_##w((W)load(x[i * sx]));                     \
    }
#define CASTS(from, A, W, w, load)               \
    CAST(from, A, W, w, load, f32, float)        \
    CAST(from, A, W, w, load, f64, double)       \
    CAST(from, A, W, w, load, bf16, uint16_t)    \
    CAST(from, A, W, w, load, f16, uint16_t)     \
    CAST(from, A, W, w, load, i32, int32_t)      \
    CAST(from, A, W, w, load, i64, int64_t)      \
    CAST(from, A, W, w, load, bool, unsigned char)
#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed"   /* a few casts have no vector form */
#endif
CASTS(f32, float, float, f, )
CASTS(f64, double, double, d, )
CASTS(bf16, uint16_t, float, f, mf__bf16_to_float)
CASTS(f16, uint16_t, float, f, mf__half_to_float)
CASTS(i32, int32_t, int64_t, i, )
CASTS(i64, int64_t, int64_t, i, )
CASTS(bool, unsigned char, int64_t, i, 0 != )

/* The same type: bits move unchanged. */
#define MOVE(T, name)                                                                                    \
    static void name(int64_t n, void *const *data, const int64_t *stride, const void *context) {         \
        (void)context;                                                                                   \
        T *y = data[0];                                                                                  \
        const T *x = data[1];                                                                            \
        if (stride[0] == 1 && stride[1] == 1) memmove(y, x, (size_t)n * sizeof(T));                      \
        else if (stride[0] == 1 && stride[1] == 0) for (int64_t i = 0; i < n; i++) y[i] = x[0];          \
        else for (int64_t i = 0; i < n; i++) y[i * stride[0]] = x[i * stride[1]];                        \
    }
MOVE(uint8_t, move_1)
MOVE(uint16_t, move_2)
MOVE(uint32_t, move_4)
MOVE(uint64_t, move_8)

static mf__row *move_row(int dtype) {
    switch (mf_dtype_bytes(dtype)) {
    case 1: return move_1;
    case 2: return move_2;
    case 4: return move_4;
    default: return move_8;
    }
}

mf_status mf__cpu_copy(mf_device *d, const mf_iter *it) {
#define TO_ALL(from) {from##_to_f32, from##_to_f64, from##_to_bf16, from##_to_f16, from##_to_i32, from##_to_i64, from##_to_bool}
    static mf__row *const rows[MF_DTYPE_COUNT][MF_DTYPE_COUNT] = {
        [MF_FLOAT32] = TO_ALL(f32), [MF_FLOAT64] = TO_ALL(f64), [MF_BFLOAT16] = TO_ALL(bf16), [MF_FLOAT16] = TO_ALL(f16),
        [MF_INT32] = TO_ALL(i32), [MF_INT64] = TO_ALL(i64), [MF_BOOL] = TO_ALL(bool),
    };
    const int to = it->operand[0].dtype, from = it->operand[1].dtype;
    mf__each_row(d, it, 1, to == from ? move_row(to) : rows[from][to], NULL);
    return MF_OK;
}

mf_status mf__cpu_fill(mf_device *d, const mf_iter *it, double value) {
    union { float f; double d; uint16_t h; int32_t i; int64_t l; unsigned char b; } one;
    switch (it->operand[0].dtype) {
    case MF_FLOAT32: one.f = f32_from_d(value); break;
    case MF_FLOAT64: one.d = value; break;
    case MF_BFLOAT16: one.h = bf16_from_d(value); break;
    case MF_FLOAT16: one.h = f16_from_d(value); break;
    case MF_INT32: one.i = i32_from_d(value); break;
    case MF_INT64: one.l = i64_from_d(value); break;
    default: one.b = bool_from_d(value); break;
    }
    mf_iter both = *it;                        /* a copy of one repeated element */
    both.n_operands = 2;
    both.operand[1] = (mf_operand){.data = &one, .dtype = it->operand[0].dtype};
    mf__each_row(d, &both, 1, move_row(it->operand[0].dtype), NULL);
    return MF_OK;
}
