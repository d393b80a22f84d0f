/* softmax.c: logsumexp, softmax, log softmax and their gradient over the middle of (outer, middle, inner).
 *
 *     m = max x        s = sum exp(x - m)        lse = m + log s        y = exp(x - m) / s   or   x - lse
 *     dx = y (dy - sum y dy)                     logarithm: dx = dy - exp(y) sum dy
 *
 * Lines whose x are all -inf (every key masked) have m = -inf, and x - m would be NaN: they get zeros, a logarithm
 * and a logsumexp of -inf, and a gradient of zero through y = 0. NaN spreads over its line.
 *
 * float takes mf__expf and pairwise sums along contiguous lines; for inner > 1 lines run side by side,
 * MF__COLUMNS at a time, with their sums in double. */
#include "cpu.h"
#include "sum.h"

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline double exp_f64(double x) { return exp(x); }
static inline float exp_f32(float x) { return mf__expf(x); }
static inline double log_f64(double x) { return log(x); }
static inline float log_f32(float x) { return logf(x); }

enum { COST = 16, LANES = 32 };   /* of one exponential, for mf__threads; chains of a maximum */
#define HIGHER(a, b) ((a) > (b) || (a) != (a))  /* a NaN takes the place and keeps it */

/* The loops below are generated for f32 and f64:
 *     highest_<name>             largest of a line, NaN if there is one
 *     shifted_<name>             y = exp(x - m), in blocks whose sums are added pairwise; returns the sum
 *     line_<name>, columns_<name>, line_grad_<name>, columns_grad_<name>
 *     logsumexp_<name>, softmax_<name>, softmax_grad_<name>     over all lines */
#define DEFINE_SOFTMAX(name, T) \
    static inline T highest_##name(const T *x, int64_t n) { \
        T best[LANES]; \
        for (int64_t j = 0; j < LANES; j++) best[j] = (T)-INFINITY; \
        int64_t i = 0; \
        for (; i + LANES <= n; i += LANES) \
            for (int64_t j = 0; j < LANES; j++) best[j] = HIGHER(x[i + j], best[j]) ? x[i + j] : best[j]; \
        for (; i < n; i++) best[0] = HIGHER(x[i], best[0]) ? x[i] : best[0]; \
        for (int64_t j = 1; j < LANES; j++) best[0] = HIGHER(best[j], best[0]) ? best[j] : best[0]; \
        return best[0]; \
    } \
    static T shifted_##name(const T *x, T m, T *y, int64_t n) { \
        if (n > MF__SUM_BLOCK) { \
            const int64_t half = (n + MF__SUM_BLOCK - 1) / MF__SUM_BLOCK / 2 * MF__SUM_BLOCK; \
            const T first = shifted_##name(x, m, y, half); \
            return first + shifted_##name(x + half, m, y ? y + half : NULL, n - half); \
        } \
        T block[MF__SUM_BLOCK]; \
        for (int64_t i = 0; i < n; i++) block[i] = exp_##name(x[i] - m); \
        if (y) memcpy(y, block, (size_t)n * sizeof *y); \
        return mf__sum_##name(block, n); \
    } \
    static inline T line_lse_##name(const T *x, int64_t n) { \
        const T m = highest_##name(x, n); \
        return m == (T)-INFINITY ? m : m + log_##name(shifted_##name(x, m, NULL, n)); \
    } \
    static void line_##name(const T *x, T *y, int64_t n, int logarithm) { \
        if (logarithm) { \
            const T m = highest_##name(x, n); \
            const T shift = m == (T)-INFINITY ? 0 : m, rest = m == (T)-INFINITY ? 0 : log_##name(shifted_##name(x, m, NULL, n)); \
            for (int64_t i = 0; i < n; i++) y[i] = (x[i] - shift) - rest; \
            return; \
        } \
        const T m = highest_##name(x, n); \
        if (m == (T)-INFINITY) { \
            memset(y, 0, (size_t)n * sizeof *y); \
            return; \
        } \
        const T scale = 1 / shifted_##name(x, m, y, n); \
        for (int64_t i = 0; i < n; i++) y[i] *= scale; \
    } \
    static inline void column_sums_##name(const T *x, int64_t n, int64_t stride, int64_t width, T *m, double *total) { \
        for (int64_t j = 0; j < width; j++) { \
            m[j] = (T)-INFINITY; \
            total[j] = 0; \
        } \
        for (int64_t i = 0; i < n; i++) { \
            const T *row = x + i * stride; \
            for (int64_t j = 0; j < width; j++) m[j] = HIGHER(row[j], m[j]) ? row[j] : m[j]; \
        } \
        for (int64_t i = 0; i < n; i++) { \
            const T *row = x + i * stride; \
            for (int64_t j = 0; j < width; j++) total[j] += (double)exp_##name(row[j] - (m[j] == (T)-INFINITY ? 0 : m[j])); \
        } \
    } \
    static void columns_##name(const T *x, T *y, int64_t n, int64_t stride, int64_t width, int logarithm) { \
        T m[MF__COLUMNS], by[MF__COLUMNS]; \
        double total[MF__COLUMNS]; \
        column_sums_##name(x, n, stride, width, m, total); \
        for (int64_t j = 0; j < width; j++) { \
            const int none = m[j] == (T)-INFINITY; \
            by[j] = none ? 0 : (T)(logarithm ? log(total[j]) : 1 / total[j]); \
            if (none) m[j] = 0; \
        } \
        for (int64_t i = 0; i < n; i++) { \
            const T *from = x + i * stride; \
            T *to = y + i * stride; \
            if (logarithm) for (int64_t j = 0; j < width; j++) to[j] = (from[j] - m[j]) - by[j]; \
            else for (int64_t j = 0; j < width; j++) to[j] = exp_##name(from[j] - m[j]) * by[j]; \
        } \
    } \
    static void columns_lse_##name(const T *x, T *y, int64_t n, int64_t stride, int64_t width) { \
        T m[MF__COLUMNS]; \
        double total[MF__COLUMNS]; \
        column_sums_##name(x, n, stride, width, m, total); \
        for (int64_t j = 0; j < width; j++) y[j] = m[j] == (T)-INFINITY ? m[j] : (T)((double)m[j] + log(total[j])); \
    } \
    static void line_grad_##name(const T *y, const T *dy, T *dx, int64_t n, int logarithm) { \
        if (logarithm) { \
            const T sum = mf__sum_##name(dy, n); \
            for (int64_t i = 0; i < n; i++) dx[i] = dy[i] - exp_##name(y[i]) * sum; \
            return; \
        } \
        for (int64_t i = 0; i < n; i++) dx[i] = y[i] * dy[i]; \
        const T sum = mf__sum_##name(dx, n); \
        for (int64_t i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - sum); \
    } \
    static void columns_grad_##name(const T *y, const T *dy, T *dx, int64_t n, int64_t stride, int64_t width, int logarithm) { \
        double total[MF__COLUMNS] = {0}; \
        T sum[MF__COLUMNS]; \
        for (int64_t i = 0; i < n; i++) { \
            const T *a = y + i * stride, *b = dy + i * stride; \
            for (int64_t j = 0; j < width; j++) total[j] += logarithm ? (double)b[j] : (double)a[j] * (double)b[j]; \
        } \
        for (int64_t j = 0; j < width; j++) sum[j] = (T)total[j]; \
        for (int64_t i = 0; i < n; i++) { \
            const T *a = y + i * stride, *b = dy + i * stride; \
            T *to = dx + i * stride; \
            if (logarithm) for (int64_t j = 0; j < width; j++) to[j] = b[j] - exp_##name(a[j]) * sum[j]; \
            else for (int64_t j = 0; j < width; j++) to[j] = a[j] * (b[j] - sum[j]); \
        } \
    } \
    static void logsumexp_##name(mf_device *d, int64_t outer, int64_t n, int64_t inner, const T *x, T *y) { \
        const int64_t blocks = (inner + MF__COLUMNS - 1) / MF__COLUMNS; \
        _Pragma("omp parallel for num_threads(mf__threads(d, outer * n, inner * COST)) schedule(static)") \
        for (int64_t item = 0; item < outer * blocks; item++) { \
            const int64_t o = item / blocks, from = item % blocks * MF__COLUMNS, at = o * n * inner + from; \
            if (inner == 1) y[o] = line_lse_##name(x + at, n); \
            else columns_lse_##name(x + at, y + o * inner + from, n, inner, smaller(inner - from, MF__COLUMNS)); \
        } \
    } \
    static void softmax_##name(mf_device *d, int64_t outer, int64_t n, int64_t inner, const T *x, T *y, int logarithm) { \
        const int64_t blocks = (inner + MF__COLUMNS - 1) / MF__COLUMNS; \
        _Pragma("omp parallel for num_threads(mf__threads(d, outer * n, inner * COST)) schedule(static)") \
        for (int64_t item = 0; item < outer * blocks; item++) { \
            const int64_t from = item % blocks * MF__COLUMNS, at = item / blocks * n * inner + from; \
            if (inner == 1) line_##name(x + at, y + at, n, logarithm); \
            else columns_##name(x + at, y + at, n, inner, smaller(inner - from, MF__COLUMNS), logarithm); \
        } \
    } \
    static void softmax_grad_##name(mf_device *d, int64_t outer, int64_t n, int64_t inner, const T *y, const T *dy, T *dx, int logarithm) { \
        const int64_t blocks = (inner + MF__COLUMNS - 1) / MF__COLUMNS; \
        _Pragma("omp parallel for num_threads(mf__threads(d, outer * n, inner * COST)) schedule(static)") \
        for (int64_t item = 0; item < outer * blocks; item++) { \
            const int64_t from = item % blocks * MF__COLUMNS, at = item / blocks * n * inner + from; \
            if (inner == 1) line_grad_##name(y + at, dy + at, dx + at, n, logarithm); \
            else columns_grad_##name(y + at, dy + at, dx + at, n, inner, smaller(inner - from, MF__COLUMNS), logarithm); \
        } \
    }
DEFINE_SOFTMAX(f32, float)
DEFINE_SOFTMAX(f64, double)

static mf_status unsupported(const char *op, int dtype) {
    return mf__fail(MF_ESUPPORT, "%s: no kernel for %s", op, mf_dtype_name(dtype));
}

mf_status mf__cpu_logsumexp(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y) {
    if (outer == 0 || inner == 0) return MF_OK;
    if (dtype == MF_FLOAT32) logsumexp_f32(d, outer, middle, inner, x, y);
    else if (dtype == MF_FLOAT64) logsumexp_f64(d, outer, middle, inner, x, y);
    else return unsupported("logsumexp", dtype);
    return MF_OK;
}

mf_status mf__cpu_softmax(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y, int logarithm) {
    if (outer == 0 || middle == 0 || inner == 0) return MF_OK;
    if (dtype == MF_FLOAT32) softmax_f32(d, outer, middle, inner, x, y, logarithm);
    else if (dtype == MF_FLOAT64) softmax_f64(d, outer, middle, inner, x, y, logarithm);
    else return unsupported("softmax", dtype);
    return MF_OK;
}

mf_status mf__cpu_softmax_grad(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *y, const void *dy, void *dx, int logarithm) {
    if (outer == 0 || middle == 0 || inner == 0) return MF_OK;
    if (dtype == MF_FLOAT32) softmax_grad_f32(d, outer, middle, inner, y, dy, dx, logarithm);
    else if (dtype == MF_FLOAT64) softmax_grad_f64(d, outer, middle, inner, y, dy, dx, logarithm);
    else return unsupported("softmax", dtype);
    return MF_OK;
}
