/* norm.c: layer normalisation of rows and its gradient.
 *
 *     mu = mean x      var = mean (x - mu)^2      r = 1 / sqrt(var + epsilon)      h = (x - mu) r
 *     y = h w + b      g = dy w      dx = r (g - mean g - h mean(g h))      dw = sum dy h      db = sum dy
 *
 * The variance is taken in a second pass over the row (still in cache): the one-pass formula loses every digit when
 * |mu| is far above the deviation. dw and db are summed over GRAD_ROWS rows at a time; the parts, (parts, columns),
 * then go through the pairwise sum of reduce.c, so their order does not depend on threads. */
#include "cpu.h"
#include "sum.h"
#include <stdlib.h>

enum { GRAD_ROWS = 64, COST = 8 };

/* Generated for f32 and f64: squares_<name> and products_<name> sum along a row, pairwise over blocks; norm_<name>, dx_<name>
 * and parts_<name> go over all rows. weight and bias may be NULL: 1 and 0. */
#define DEFINE_NORM(name, T) \
    static T squares_##name(const T *x, T shift, int64_t n) { \
        if (n > MF__SUM_BLOCK) { \
            const int64_t half = (n + MF__SUM_BLOCK - 1) / MF__SUM_BLOCK / 2 * MF__SUM_BLOCK; \
            const T first = squares_##name(x, shift, half); \
            return first + squares_##name(x + half, shift, n - half); \
        } \
        T total = 0; \
        _Pragma("omp simd reduction(+ : total)") \
        for (int64_t i = 0; i < n; i++) total += (x[i] - shift) * (x[i] - shift); \
        return total; \
    } \
    static void norm_##name(mf_device *d, int64_t rows, int64_t n, const T *x, const T *w, const T *b, double epsilon, \
                            T *y, T *mean, T *rstd) { \
        _Pragma("omp parallel for num_threads(mf__threads(d, rows, n * COST)) schedule(static)") \
        for (int64_t i = 0; i < rows; i++) { \
            const T *from = x + i * n; \
            T *to = y + i * n; \
            const T mu = mf__sum_##name(from, n) / (T)n; \
            const T r = (T)(1 / sqrt((double)squares_##name(from, mu, n) / (double)n + epsilon)); \
            mean[i] = mu; \
            rstd[i] = r; \
            if (w && b) for (int64_t j = 0; j < n; j++) to[j] = (from[j] - mu) * r * w[j] + b[j]; \
            else for (int64_t j = 0; j < n; j++) to[j] = (from[j] - mu) * r * (w ? w[j] : 1) + (b ? b[j] : 0); \
        } \
    } \
    static inline void products_##name(const T *dy, const T *x, const T *w, T mu, T r, int64_t n, T *g_sum, T *gh_sum) { \
        if (n > MF__SUM_BLOCK) { \
            const int64_t half = (n + MF__SUM_BLOCK - 1) / MF__SUM_BLOCK / 2 * MF__SUM_BLOCK; \
            T g_rest, gh_rest; \
            products_##name(dy, x, w, mu, r, half, g_sum, gh_sum); \
            products_##name(dy + half, x + half, w ? w + half : NULL, mu, r, n - half, &g_rest, &gh_rest); \
            *g_sum += g_rest; \
            *gh_sum += gh_rest; \
            return; \
        } \
        T s = 0, t = 0; \
        _Pragma("omp simd reduction(+ : s, t)") \
        for (int64_t j = 0; j < n; j++) { \
            const T g = dy[j] * (w ? w[j] : 1); \
            s += g; \
            t += g * ((x[j] - mu) * r); \
        } \
        *g_sum = s; \
        *gh_sum = t; \
    } \
    static void dx_##name(mf_device *d, int64_t rows, int64_t n, const T *dy, const T *x, const T *w, const T *mean, const T *rstd, T *dx) { \
        _Pragma("omp parallel for num_threads(mf__threads(d, rows, n * COST)) schedule(static)") \
        for (int64_t i = 0; i < rows; i++) { \
            const T *from = x + i * n, *dout = dy + i * n, mu = mean[i], r = rstd[i]; \
            T *to = dx + i * n, g_mean, gh_mean; \
            products_##name(dout, from, w, mu, r, n, &g_mean, &gh_mean); \
            g_mean /= (T)n; \
            gh_mean /= (T)n; \
            for (int64_t j = 0; j < n; j++) \
                to[j] = r * (dout[j] * (w ? w[j] : 1) - g_mean - (from[j] - mu) * r * gh_mean); \
        } \
    } \
    static void parts_##name(mf_device *d, int64_t rows, int64_t n, int64_t parts, const T *dy, const T *x, const T *mean, \
                             const T *rstd, T *dw, T *db) { \
        _Pragma("omp parallel for num_threads(mf__threads(d, rows, n * COST)) schedule(static)") \
        for (int64_t p = 0; p < parts; p++) { \
            const int64_t first = p * GRAD_ROWS, end = first + GRAD_ROWS < rows ? first + GRAD_ROWS : rows; \
            T *restrict w = dw + p * n, *restrict b = db + p * n; \
            memset(w, 0, (size_t)n * sizeof *w); \
            memset(b, 0, (size_t)n * sizeof *b); \
            for (int64_t i = first; i < end; i++) { \
                const T *dout = dy + i * n, *from = x + i * n, mu = mean[i], r = rstd[i]; \
                for (int64_t j = 0; j < n; j++) { \
                    w[j] += dout[j] * ((from[j] - mu) * r); \
                    b[j] += dout[j]; \
                } \
            } \
        } \
    }
DEFINE_NORM(f32, float)
DEFINE_NORM(f64, double)

static mf_status unsupported(int dtype) {
    return mf__fail(MF_ESUPPORT, "layer_norm: no kernel for %s", mf_dtype_name(dtype));
}

mf_status mf__cpu_layer_norm(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *x, const void *weight, const void *bias,
                             double epsilon, void *y, void *mean, void *rstd) {
    if (rows == 0 || columns == 0) return MF_OK;
    if (dtype == MF_FLOAT32) norm_f32(d, rows, columns, x, weight, bias, epsilon, y, mean, rstd);
    else if (dtype == MF_FLOAT64) norm_f64(d, rows, columns, x, weight, bias, epsilon, y, mean, rstd);
    else return unsupported(dtype);
    return MF_OK;
}

mf_status mf__cpu_layer_norm_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *dy, const void *x, const void *weight,
                                  const void *mean, const void *rstd, void *dx, void *dweight, void *dbias) {
    if (dtype != MF_FLOAT32 && dtype != MF_FLOAT64) return unsupported(dtype);
    if (columns == 0) return MF_OK;
    if (dx && dtype == MF_FLOAT32) dx_f32(d, rows, columns, dy, x, weight, mean, rstd, dx);
    else if (dx) dx_f64(d, rows, columns, dy, x, weight, mean, rstd, dx);
    if (!dweight) return MF_OK;

    const int64_t count = (rows + GRAD_ROWS - 1) / GRAD_ROWS, bytes = count * columns * mf_dtype_bytes(dtype);
    char *parts = mf__host_alloc(d->ctx, (size_t)(bytes ? 2 * bytes : 1));
    if (!parts) return MF_ENOMEM;
    if (dtype == MF_FLOAT32) parts_f32(d, rows, columns, count, dy, x, mean, rstd, (float *)parts, (float *)(parts + bytes));
    else parts_f64(d, rows, columns, count, dy, x, mean, rstd, (double *)parts, (double *)(parts + bytes));
    mf_status status = mf__cpu_reduce(d, MF_REDUCE_sum, dtype, 1, count, columns, parts, dweight);
    if (status == MF_OK) status = mf__cpu_reduce(d, MF_REDUCE_sum, dtype, 1, count, columns, parts + bytes, dbias);
    free(parts);
    return status;
}
