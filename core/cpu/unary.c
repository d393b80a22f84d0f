/* unary.c: y = f(x) and dx = dy f'(x) for every row of MF_UNARY_LIST, and dropout and rounding to 16 bits.
 *
 * For each name of the table in unary.h it makes <name>_f32, <name>_f64 (forward rows) and <name>_grad_f32,
 * <name>_grad_f64 (backward rows). */
#include "unary.h"
#include "each_row.h"
#include "../base/philox.h"

#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed"   /* rows that call libm stay scalar */
#endif

typedef struct unary_params { double p0, p1; } unary_params;

/* Forward and backward rows: stride 1 in a loop of its own so that it is vectorised. */
#define ROWS(T, s, name, f, df)                                                                               \
    static inline T name##_of_##s(T x, T p0, T p1) { (void)p0; (void)p1; return (f); }                        \
    static inline T name##_slope_##s(T x, T p0, T p1) { const T y = x; (void)y; (void)p0; (void)p1; return (df); } \
    static void name##_##s(int64_t n, void *const *data, const int64_t *stride, const void *context) {        \
        const unary_params *p = context;                                                                      \
        const T p0 = (T)p->p0, p1 = (T)p->p1;                                                                 \
        T *y = data[0];                                                                                       \
        const T *x = data[1];                                                                                 \
        const int64_t sy = stride[0], sx = stride[1];                                                         \
        if (sy == 1 && sx == 1)                                                                               \
            _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = name##_of_##s(x[i], p0, p1);           \
        else                                                                                                  \
            for (int64_t i = 0; i < n; i++) y[i * sy] = name##_of_##s(x[i * sx], p0, p1);                     \
    }                                                                                                         \
    static void name##_grad_##s(int64_t n, void *const *data, const int64_t *stride, const void *context) {   \
        const unary_params *p = context;                                                                      \
        const T p0 = (T)p->p0, p1 = (T)p->p1;                                                                 \
        T *dx = data[0];                                                                                      \
        const T *dy = data[1], *v = data[2];                                                                  \
        const int64_t s0 = stride[0], s1 = stride[1], s2 = stride[2];                                         \
        if (s0 == 1 && s1 == 1 && s2 == 1)                                                                    \
            _Pragma("omp simd") for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * name##_slope_##s(v[i], p0, p1); \
        else                                                                                                  \
            for (int64_t i = 0; i < n; i++) dx[i * s0] = dy[i * s1] * name##_slope_##s(v[i * s2], p0, p1);    \
    }
MF_UNARY_TABLE(ROWS, float, f32)
MF_UNARY_TABLE(ROWS, double, f64)

/* Price of an element in elementary operations, for the decision to fork. */
static int64_t cost_of(int op) {
    switch (op) {
    case MF_UNARY_affine: case MF_UNARY_clamp: case MF_UNARY_neg: case MF_UNARY_abs: case MF_UNARY_sign:
    case MF_UNARY_floor: case MF_UNARY_square: case MF_UNARY_relu: return 1;
    case MF_UNARY_pow_scalar: case MF_UNARY_log: case MF_UNARY_sin: case MF_UNARY_cos: case MF_UNARY_acos: return 16;
    default: return 4;
    }
}

/* Integers: wrapping arithmetic in 64 bits, so no value is undefined. */
static int64_t integer_of(int op, int64_t x, int64_t p0, int64_t p1) {
    const uint64_t u = (uint64_t)x;
    switch (op) {
    case MF_UNARY_affine: return (int64_t)((uint64_t)p0 * u + (uint64_t)p1);
    case MF_UNARY_clamp: return x < p0 ? p0 : x > p1 ? p1 : x;
    case MF_UNARY_neg: return (int64_t)(0 - u);
    case MF_UNARY_abs: return x < 0 ? (int64_t)(0 - u) : x;
    case MF_UNARY_sign: return (x > 0) - (x < 0);
    default: return (int64_t)(u * u);
    }
}

typedef struct integer_params { int op; int64_t p0, p1; } integer_params;

static void integer_i32(int64_t n, void *const *data, const int64_t *stride, const void *context) {
    const integer_params *p = context;
    int32_t *y = data[0];
    const int32_t *x = data[1];
    for (int64_t i = 0; i < n; i++) y[i * stride[0]] = (int32_t)(uint32_t)integer_of(p->op, x[i * stride[1]], p->p0, p->p1);
}

static void integer_i64(int64_t n, void *const *data, const int64_t *stride, const void *context) {
    const integer_params *p = context;
    int64_t *y = data[0];
    const int64_t *x = data[1];
    for (int64_t i = 0; i < n; i++) y[i * stride[0]] = integer_of(p->op, x[i * stride[1]], p->p0, p->p1);
}

/* Clamp's bounds may be infinite: they saturate. */
static int64_t whole(double x) {
    return x >= 0x1p63 ? INT64_MAX : x < -0x1p63 ? INT64_MIN : (int64_t)x;
}

static mf_status unary_integer(mf_device *d, const mf_iter *it, int op, double p0, double p1) {
    if (op != MF_UNARY_affine && op != MF_UNARY_clamp && op != MF_UNARY_neg && op != MF_UNARY_abs && op != MF_UNARY_sign
        && op != MF_UNARY_square)
        return mf__fail(MF_ESUPPORT, "cpu: unary function %d has no kernel for %s", op, mf_dtype_name(it->operand[0].dtype));
    const integer_params p = {op, whole(op == MF_UNARY_clamp ? ceil(p0) : p0), whole(op == MF_UNARY_clamp ? floor(p1) : p1)};
    mf__each_row(d, it, 1, it->operand[0].dtype == MF_INT32 ? integer_i32 : integer_i64, &p);
    return MF_OK;
}

mf_status mf__cpu_unary(mf_device *d, const mf_iter *it, int op, double p0, double p1) {
#define ROW(T, s, name, f, df) name##_##s,
    static mf__row *const f32[] = {MF_UNARY_TABLE(ROW, float, f32)};
    static mf__row *const f64[] = {MF_UNARY_TABLE(ROW, double, f64)};
#undef ROW
    _Static_assert(sizeof f32 / sizeof *f32 == MF_UNARY_COUNT, "MF_UNARY_TABLE has the rows of MF_UNARY_LIST");
    const unary_params p = {p0, p1};
    switch (mf__computed_in(it->operand[0].dtype)) {
    case MF_FLOAT32: mf__each_row_float(d, it, cost_of(op), f32[op], &p, 0); return MF_OK;
    case MF_FLOAT64: mf__each_row(d, it, 2 * cost_of(op), f64[op], &p); return MF_OK;
    case MF_INT32: case MF_INT64: return unary_integer(d, it, op, p0, p1);
    default: return mf__fail(MF_ESUPPORT, "cpu: unary functions have no kernel for %s", mf_dtype_name(it->operand[0].dtype));
    }
}

mf_status mf__cpu_unary_grad(mf_device *d, const mf_iter *it, int op, double p0, double p1) {
#define ROW(T, s, name, f, df) name##_grad_##s,
    static mf__row *const f32[] = {MF_UNARY_TABLE(ROW, float, f32)};
    static mf__row *const f64[] = {MF_UNARY_TABLE(ROW, double, f64)};
#undef ROW
    const unary_params p = {p0, p1};
    mf_iter full = *it;
    if (full.n_operands == 2) {               /* the list keeps nothing: any readable third operand will do */
        full.operand[2] = full.operand[1];
        full.n_operands = 3;
    }
    switch (mf__computed_in(it->operand[0].dtype)) {
    case MF_FLOAT32: mf__each_row_float(d, &full, cost_of(op), f32[op], &p, 0); return MF_OK;
    case MF_FLOAT64: mf__each_row(d, &full, 2 * cost_of(op), f64[op], &p); return MF_OK;
    default: return mf__fail(MF_ESUPPORT, "cpu: gradients have no kernel for %s", mf_dtype_name(it->operand[0].dtype));
    }
}

/* Rounding rows: to float16 and bfloat16, from float and double. */
#define ROUND_ROW(T, name, f)                                                                             \
    static void name(int64_t n, void *const *data, const int64_t *stride, const void *context) {          \
        (void)context;                                                                                    \
        T *y = data[0];                                                                                   \
        const T *x = data[1];                                                                             \
        const int64_t sy = stride[0], sx = stride[1];                                                     \
        if (sy == 1 && sx == 1)                                                                           \
            _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = f(x[i]);                           \
        else                                                                                              \
            for (int64_t i = 0; i < n; i++) y[i * sy] = f(x[i * sx]);                                     \
    }
ROUND_ROW(float, round_half_f32, mf__round_half)
ROUND_ROW(float, round_bf16_f32, mf__round_bf16)
ROUND_ROW(double, round_half_f64, mf__round_half_double)
ROUND_ROW(double, round_bf16_f64, mf__round_bf16_double)

mf_status mf__cpu_round_to(mf_device *d, const mf_iter *it, int precision) {
    const int half = precision == MF_FP16;
    switch (mf__computed_in(it->operand[0].dtype)) {
    case MF_FLOAT32: mf__each_row_float(d, it, 2, half ? round_half_f32 : round_bf16_f32, NULL, 0); return MF_OK;
    case MF_FLOAT64: mf__each_row(d, it, 2, half ? round_half_f64 : round_bf16_f64, NULL); return MF_OK;
    default: return mf__fail(MF_ESUPPORT, "cpu: rounding has no kernel for %s", mf_dtype_name(it->operand[0].dtype));
    }
}

/* y = x / (1 - rate) where draw i is at least `rate`, 0 elsewhere. */
mf_status mf__cpu_dropout(mf_device *d, int dtype, int64_t n, const void *x, void *y, double rate, mf_rng rng) {
    if (!mf__is_float(dtype)) return mf__fail(MF_ESUPPORT, "cpu: dropout has no kernel for %s", mf_dtype_name(dtype));
    const float limit = (float)rate, scale = (float)(1 / (1 - rate));
#pragma omp parallel for num_threads(mf__threads(d, n, 16)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const int kept = mf__uniform24(mf__philox(rng.seed, rng.stream, rng.counter + (uint64_t)i)) >= limit;
        switch (dtype) {
        case MF_FLOAT32: ((float *)y)[i] = kept ? ((const float *)x)[i] * scale : 0; break;
        case MF_FLOAT64: ((double *)y)[i] = kept ? ((const double *)x)[i] / (1 - rate) : 0; break;
        default: {
            float v = 0;
            if (kept) mf__float_from_16(&v, dtype, (const uint16_t *)x + i, 1, 1);
            v *= scale;
            mf__16_from_float((uint16_t *)y + i, 1, dtype, &v, 1);
        }
        }
    }
    return MF_OK;
}
