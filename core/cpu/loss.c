/* loss.c: squared errors and cross entropies of rows, and their gradients.
 *
 *     squared_error   y_i = sum over j of w_ij (a_ij - b_ij)^2      w: one number for each of `groups` equal parts of a row, or 1
 *                     da = 2 w (a - b) dy_i      db = -da
 *     cross_entropy   y_i = lse_i - x_i,t(i)     lse_i = log sum exp(x_i)
 *                     dx = (exp(x - lse_i) - [j = t(i)]) dy_i
 *
 * Differences are taken before they are squared and summed pairwise, block by block (sum.h). A row of logits that are all -inf has
 * the loss inf and the gradient 0 of its softmax. */
#include "cpu.h"
#include "sum.h"

enum { COST = 4, EXP_COST = 16 };

/* Generated for f32 and f64: errors_<name> one row, or a block of it; the others go over all rows. A row of weights begins at w. */
#define DEFINE_LOSS(name, T, EXP) \
    static T errors_##name(const T *a, const T *b, const T *w, int64_t first, int64_t n, int64_t part) { \
        if (n > MF__SUM_BLOCK) { \
            const int64_t half = (n + MF__SUM_BLOCK - 1) / MF__SUM_BLOCK / 2 * MF__SUM_BLOCK; \
            const T left = errors_##name(a, b, w, first, half, part); \
            return left + errors_##name(a, b, w, first + half, n - half, part); \
        } \
        T block[MF__SUM_BLOCK]; \
        for (int64_t j = 0; j < n; j++) block[j] = (a[first + j] - b[first + j]) * (a[first + j] - b[first + j]); \
        for (int64_t j = 0; w && j < n; j++) block[j] *= w[(first + j) / part]; \
        return mf__sum_##name(block, n); \
    } \
    static void squared_error_##name(mf_device *d, int64_t rows, int64_t n, int64_t groups, const T *a, const T *b, const T *w, T *y) { \
        const int64_t part = groups ? n / groups : 1; \
        _Pragma("omp parallel for num_threads(mf__threads(d, rows, n * COST)) schedule(static)") \
        for (int64_t i = 0; i < rows; i++) { \
            if (w && groups == 1) y[i] = w[i] * errors_##name(a + i * n, b + i * n, NULL, 0, n, 1); \
            else y[i] = errors_##name(a + i * n, b + i * n, w ? w + i * groups : NULL, 0, n, part); \
        } \
    } \
    static void squared_error_grad_##name(mf_device *d, int64_t rows, int64_t n, int64_t groups, const T *a, const T *b, const T *w, \
                                          const T *dy, T *da, T *db) { \
        const int64_t part = groups ? n / groups : 1; \
        _Pragma("omp parallel for num_threads(mf__threads(d, rows, n * COST)) schedule(static)") \
        for (int64_t i = 0; i < rows; i++) { \
            const T by = 2 * dy[i]; \
            for (int64_t j = 0; j < n; j++) { \
                const T g = by * (w ? w[i * groups + j / part] : 1) * (a[i * n + j] - b[i * n + j]); \
                if (da) da[i * n + j] = g; \
                if (db) db[i * n + j] = -g; \
            } \
        } \
    } \
    static void cross_entropy_##name(mf_device *d, int64_t rows, int64_t n, int index_dtype, const void *target, const T *x, const T *lse, T *y) { \
        _Pragma("omp parallel for num_threads(mf__threads(d, rows, 1)) schedule(static)") \
        for (int64_t i = 0; i < rows; i++) \
            y[i] = lse[i] == (T)-INFINITY ? (T)INFINITY : lse[i] - x[i * n + target_at(index_dtype, target, i)]; \
    } \
    static void cross_entropy_grad_##name(mf_device *d, int64_t rows, int64_t n, int index_dtype, const void *target, const T *x, const T *lse, \
                                          const T *dy, T *dx) { \
        _Pragma("omp parallel for num_threads(mf__threads(d, rows, n * EXP_COST)) schedule(static)") \
        for (int64_t i = 0; i < rows; i++) { \
            const T *from = x + i * n, low = lse[i], by = dy[i]; \
            T *to = dx + i * n; \
            for (int64_t j = 0; j < n; j++) to[j] = low == (T)-INFINITY ? 0 : EXP(from[j] - low) * by; \
            to[target_at(index_dtype, target, i)] -= by; \
        } \
    }

static inline int64_t target_at(int dtype, const void *target, int64_t i) {
    return dtype == MF_INT32 ? ((const int32_t *)target)[i] : ((const int64_t *)target)[i];
}
DEFINE_LOSS(f32, float, mf__expf)
DEFINE_LOSS(f64, double, exp)

static mf_status check(const char *op, int dtype) {
    if (dtype == MF_FLOAT32 || dtype == MF_FLOAT64) return MF_OK;
    return mf__fail(MF_ESUPPORT, "%s: no kernel for %s", op, mf_dtype_name(dtype));
}

mf_status mf__cpu_squared_error(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t groups, const void *a, const void *b,
                                const void *weight, void *y) {
    MF_TRY(check("squared_error", dtype));
    if (dtype == MF_FLOAT32) squared_error_f32(d, rows, columns, groups, a, b, weight, y);
    else squared_error_f64(d, rows, columns, groups, a, b, weight, y);
    return MF_OK;
}

mf_status mf__cpu_squared_error_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t groups, const void *a, const void *b,
                                     const void *weight, const void *dy, void *da, void *db) {
    MF_TRY(check("squared_error", dtype));
    if (dtype == MF_FLOAT32) squared_error_grad_f32(d, rows, columns, groups, a, b, weight, dy, da, db);
    else squared_error_grad_f64(d, rows, columns, groups, a, b, weight, dy, da, db);
    return MF_OK;
}

mf_status mf__cpu_cross_entropy(mf_device *d, int dtype, int64_t rows, int64_t columns, int index_dtype, const void *target, const void *x,
                                void *y, void *lse) {
    MF_TRY(check("cross_entropy", dtype));
    for (int64_t i = 0; i < rows; i++) {
        const int64_t t = target_at(index_dtype, target, i);
        if (t < 0 || t >= columns)
            return mf__fail(MF_EVALUE, "cross_entropy: target %lld (row %lld) must be at least 0 and below %lld, the number of classes", (long long)t,
                            (long long)i + 1, (long long)columns);
    }
    if (rows == 0) return MF_OK;
    MF_TRY(mf__cpu_logsumexp(d, dtype, rows, columns, 1, x, lse));
    if (dtype == MF_FLOAT32) cross_entropy_f32(d, rows, columns, index_dtype, target, x, lse, y);
    else cross_entropy_f64(d, rows, columns, index_dtype, target, x, lse, y);
    return MF_OK;
}

mf_status mf__cpu_cross_entropy_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int index_dtype, const void *target, const void *x,
                                     const void *lse, const void *dy, void *dx) {
    MF_TRY(check("cross_entropy", dtype));
    if (dtype == MF_FLOAT32) cross_entropy_grad_f32(d, rows, columns, index_dtype, target, x, lse, dy, dx);
    else cross_entropy_grad_f64(d, rows, columns, index_dtype, target, x, lse, dy, dx);
    return MF_OK;
}
