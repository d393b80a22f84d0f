/* elementwise.c: two and more operands: arithmetic, comparisons, choice, a x + b y. Unary functions are in unary.c, casts
 * in copy.c.
 *
 * Every row function has loops of its own for the strides that matter, stride 1 everywhere and one operand
 * repeated (a column or a scalar), because only those are vectorised. `omp simd` states that rows do not overlap except
 * where they coincide, which elementwise operands promise.
 * For each binary name the macros make <name>_f32, <name>_f64, and for those on integers <name>_i32, <name>_i64. */
#include "activation.h"
#include "each_row.h"

#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed"   /* rows that call libm stay scalar */
#endif

#define LOOPS(R, A, f)                                                                                     \
    R *y = data[0];                                                                                        \
    const A *p = data[1], *q = data[2];                                                                    \
    const int64_t sy = stride[0], sp = stride[1], sq = stride[2];                                          \
    (void)context;                                                                                         \
    if (sy == 1 && sp == 1 && sq == 1) {                                                                   \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) { const A a = p[i], b = q[i]; y[i] = (R)(f); } \
    } else if (sy == 1 && sp == 1 && sq == 0) {                                                            \
        const A b = q[0];                                                                                  \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) { const A a = p[i]; y[i] = (R)(f); }           \
    } else if (sy == 1 && sp == 0 && sq == 1) {                                                            \
        const A a = p[0];                                                                                  \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++) { const A b = q[i]; y[i] = (R)(f); }           \
    } else {                                                                                               \
        for (int64_t i = 0; i < n; i++) { const A a = p[i * sp], b = q[i * sq]; y[i * sy] = (R)(f); }      \
    }
#define ROW(R, A, name, f) \
    static void name(int64_t n, void *const *data, const int64_t *stride, const void *context) { LOOPS(R, A, f) }

#define FLOATS(T, s)                                            \
    ROW(T, T, add_##s, a + b)                                   \
    ROW(T, T, sub_##s, a - b)                                   \
    ROW(T, T, mul_##s, a * b)                                   \
    ROW(T, T, div_##s, a / b)                                   \
    ROW(T, T, pow_##s, mf__pow_##s(a, b))                       \
    ROW(T, T, atan2_##s, mf__atan2_##s(a, b))                   \
    ROW(T, T, maximum_##s, a >= b || a != a ? a : b)            \
    ROW(T, T, minimum_##s, a <= b || a != a ? a : b)
FLOATS(float, f32)
FLOATS(double, f64)

/* Unsigned inside: overflow wraps and is not undefined. */
#define INTEGERS(T, U, s)                                       \
    ROW(T, T, add_##s, (U)a + (U)b)                             \
    ROW(T, T, sub_##s, (U)a - (U)b)                             \
    ROW(T, T, mul_##s, (U)a * (U)b)                             \
    ROW(T, T, maximum_##s, a >= b ? a : b)                      \
    ROW(T, T, minimum_##s, a <= b ? a : b)
INTEGERS(int32_t, uint32_t, i32)
INTEGERS(int64_t, uint64_t, i64)

#define COMPARISONS(T, s)                                       \
    ROW(unsigned char, T, equal_##s, a == b)                    \
    ROW(unsigned char, T, less_##s, a < b)                      \
    ROW(unsigned char, T, less_equal_##s, a <= b)
COMPARISONS(float, f32)
COMPARISONS(double, f64)
COMPARISONS(int32_t, i32)
COMPARISONS(int64_t, i64)

ROW(unsigned char, unsigned char, equal_bool, !a == !b)
ROW(unsigned char, unsigned char, and_bool, a && b)
ROW(unsigned char, unsigned char, or_bool, a || b)

mf_status mf__cpu_binary(mf_device *d, const mf_iter *it, int op) {
    enum { OPS = MF_BINARY_logical_or + 1 };
    static mf__row *const rows[MF_DTYPE_COUNT][OPS] = {
        [MF_FLOAT32] = {add_f32, sub_f32, mul_f32, div_f32, pow_f32, atan2_f32, maximum_f32, minimum_f32, equal_f32, less_f32,
                        less_equal_f32, NULL, NULL},
        [MF_FLOAT64] = {add_f64, sub_f64, mul_f64, div_f64, pow_f64, atan2_f64, maximum_f64, minimum_f64, equal_f64, less_f64,
                        less_equal_f64, NULL, NULL},
        [MF_INT32] = {add_i32, sub_i32, mul_i32, NULL, NULL, NULL, maximum_i32, minimum_i32, equal_i32, less_i32,
                      less_equal_i32, NULL, NULL},
        [MF_INT64] = {add_i64, sub_i64, mul_i64, NULL, NULL, NULL, maximum_i64, minimum_i64, equal_i64, less_i64,
                      less_equal_i64, NULL, NULL},
        [MF_BOOL] = {[MF_BINARY_equal] = equal_bool, [MF_BINARY_logical_and] = and_bool, [MF_BINARY_logical_or] = or_bool},
    };
    const int dtype = it->operand[1].dtype;
    mf__row *const row = rows[mf__computed_in(dtype)][op];
    if (!row) return mf__fail(MF_ESUPPORT, "cpu: binary function %d has no kernel for %s", op, mf_dtype_name(dtype));
    mf__each_row_float(d, it, op == MF_BINARY_pow || op == MF_BINARY_atan2 ? 32 : 1, row, NULL, 0);
    return MF_OK;
}

static void not_bool(int64_t n, void *const *data, const int64_t *stride, const void *context) {
    (void)context;
    unsigned char *y = data[0];
    const unsigned char *x = data[1];
    for (int64_t i = 0; i < n; i++) y[i * stride[0]] = !x[i * stride[1]];
}

mf_status mf__cpu_logical_not(mf_device *d, const mf_iter *it) {
    mf__each_row(d, it, 1, not_bool, NULL);
    return MF_OK;
}

/* Choice moves elements unchanged, so it goes by their size: where_1, where_2, where_4, where_8. */
#define WHERE_ROW(T, name)                                                                                \
    static void name(int64_t n, void *const *data, const int64_t *stride, const void *context) {          \
        (void)context;                                                                                    \
        T *y = data[0];                                                                                   \
        const unsigned char *c = data[1];                                                                 \
        const T *a = data[2], *b = data[3];                                                               \
        const int64_t sy = stride[0], sc = stride[1], sa = stride[2], sb = stride[3];                     \
        if (sy == 1 && sc == 1 && sa == 1 && sb == 1) {                                                   \
            _Pragma("omp simd") for (int64_t i = 0; i < n; i++) { const T u = a[i], v = b[i]; y[i] = c[i] ? u : v; } \
        } else {                                                                                          \
            for (int64_t i = 0; i < n; i++) y[i * sy] = c[i * sc] ? a[i * sa] : b[i * sb];                \
        }                                                                                                 \
    }
WHERE_ROW(uint8_t, where_1)
WHERE_ROW(uint16_t, where_2)
WHERE_ROW(uint32_t, where_4)
WHERE_ROW(uint64_t, where_8)

mf_status mf__cpu_where(mf_device *d, const mf_iter *it) {
    switch (mf_dtype_bytes(it->operand[0].dtype)) {
    case 1: mf__each_row(d, it, 1, where_1, NULL); break;
    case 2: mf__each_row(d, it, 1, where_2, NULL); break;
    case 4: mf__each_row(d, it, 1, where_4, NULL); break;
    default: mf__each_row(d, it, 1, where_8, NULL); break;
    }
    return MF_OK;
}

/* x = a x + b y. A factor of 0 means that its operand is not read, so NaN and unset memory do not spread. */
typedef struct axpy_params { double a, b; } axpy_params;

#define AXPY_ROW(T, name)                                                                                 \
    static void name(int64_t n, void *const *data, const int64_t *stride, const void *context) {          \
        const axpy_params *p = context;                                                                   \
        const T a = (T)p->a, b = (T)p->b;                                                                 \
        T *x = data[0];                                                                                   \
        const T *y = data[1];                                                                             \
        const int64_t sx = stride[0], sy = stride[1];                                                     \
        if (b == 0) {                                                                                     \
            for (int64_t i = 0; i < n; i++) x[i * sx] = a == 0 ? 0 : (T)(a * x[i * sx]);                  \
        } else if (a == 0) {                                                                              \
            for (int64_t i = 0; i < n; i++) x[i * sx] = (T)(b * y[i * sy]);                               \
        } else if (sx == 1 && sy == 1) {                                                                  \
            _Pragma("omp simd") for (int64_t i = 0; i < n; i++) x[i] = (T)(a * x[i] + b * y[i]);          \
        } else {                                                                                          \
            for (int64_t i = 0; i < n; i++) x[i * sx] = (T)(a * x[i * sx] + b * y[i * sy]);               \
        }                                                                                                 \
    }
AXPY_ROW(float, axpy_f32)
AXPY_ROW(double, axpy_f64)

static int64_t axpy_whole(double a, int64_t x, double b, int64_t y) {
    return (int64_t)((uint64_t)(int64_t)a * (uint64_t)x + (uint64_t)(int64_t)b * (uint64_t)y);
}
#define AXPY_WHOLE_ROW(T, U, name)                                                                        \
    static void name(int64_t n, void *const *data, const int64_t *stride, const void *context) {          \
        const axpy_params *p = context;                                                                   \
        T *x = data[0];                                                                                   \
        const T *y = data[1];                                                                             \
        for (int64_t i = 0; i < n; i++)                                                                   \
            x[i * stride[0]] = (T)(U)axpy_whole(p->a, x[i * stride[0]], p->b, y[i * stride[1]]);          \
    }
AXPY_WHOLE_ROW(int32_t, uint32_t, axpy_i32)
AXPY_WHOLE_ROW(int64_t, uint64_t, axpy_i64)

mf_status mf__cpu_axpy(mf_device *d, const mf_iter *it, double a, double b) {
    mf_iter two = *it;
    if (two.n_operands == 1) {                 /* a scaling */
        two.operand[1] = two.operand[0];
        two.n_operands = 2;
    }
    const int dtype = two.operand[0].dtype;
    if (two.operand[1].dtype != dtype)
        return mf__fail(MF_EDTYPE, "cpu: axpy of %s and %s", mf_dtype_name(dtype), mf_dtype_name(two.operand[1].dtype));
    const axpy_params p = {a, b};
    switch (mf__computed_in(dtype)) {
    case MF_FLOAT32: mf__each_row_float(d, &two, 1, axpy_f32, &p, 1); return MF_OK;
    case MF_FLOAT64: mf__each_row(d, &two, 1, axpy_f64, &p); return MF_OK;
    case MF_INT32: case MF_INT64:
        if (a != floor(a) || b != floor(b) || fabs(a) > 0x1p53 || fabs(b) > 0x1p53)
            return mf__fail(MF_EVALUE, "cpu: factors %g and %g of %s must be whole numbers", a, b, mf_dtype_name(dtype));
        mf__each_row(d, &two, 1, dtype == MF_INT32 ? axpy_i32 : axpy_i64, &p);
        return MF_OK;
    default: return mf__fail(MF_ESUPPORT, "cpu: axpy has no kernel for %s", mf_dtype_name(dtype));
    }
}
