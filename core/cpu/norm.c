/* norm.c: layer normalisation of rows, of a sum of two rows too, and its gradient.
 *
 *     x = a or a + m b, m a number a row or 1
 *     mu = mean x      var = mean (x - mu)^2      r = 1 / sqrt(var + epsilon)      h = (x - mu) r
 *     y = h w + b      g = dy w      dx = r (g - mean g - h mean(g h))      dw = sum dy h      db = sum dy
 *     da = dx      d of b = m dx
 *
 * The variance is taken in a second pass over the row (still in cache): the one-pass formula loses every digit when
 * |mu| is far above the deviation. dw and db are summed over GRAD_ROWS rows at a time; the parts, (parts, columns),
 * then go through the pairwise sum of reduce.c, so their order does not depend on threads. */
#include "cpu.h"
#include "sum.h"
#include <stdlib.h>

enum { GRAD_ROWS = 64, COST = 8 };

/* Generated for f32 and f64: squares_<name> and products_<name> sum along a row, pairwise over blocks; norm_<name>, dx_<name>
 * and parts_<name> go over all rows. weight and bias may be NULL: 1 and 0; add may be NULL, then there is no m either. The sum of
 * two rows is made where their result will stand. */
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
    static inline void sum_##name(const T *a, const T *add, T m, int64_t n, T *to) { \
        for (int64_t j = 0; j < n; j++) to[j] = a[j] + m * add[j]; \
    } \
    static void norm_##name(mf_device *d, int64_t rows, int64_t n, const T *x, const T *add, const T *mask, const T *w, const T *b, \
                            double epsilon, T *y, T *mean, T *rstd) { \
        _Pragma("omp parallel for num_threads(mf__threads(d, rows, n * COST)) schedule(static)") \
        for (int64_t i = 0; i < rows; i++) { \
            T *to = y + i * n; \
            const T *from = add ? to : x + i * n; \
            if (add) sum_##name(x + i * n, add + i * n, mask ? mask[i] : 1, n, to); \
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
    static void dx_##name(mf_device *d, int64_t rows, int64_t n, const T *dy, const T *x, const T *add, const T *mask, const T *w, \
                          const T *mean, const T *rstd, T *dx, T *dadd) { \
        _Pragma("omp parallel for num_threads(mf__threads(d, rows, n * COST)) schedule(static)") \
        for (int64_t i = 0; i < rows; i++) { \
            T *to = (dx ? dx : dadd) + i * n, g_mean, gh_mean; \
            const T *from = add ? to : x + i * n, *dout = dy + i * n, mu = mean[i], r = rstd[i], m = mask ? mask[i] : 1; \
            if (add) sum_##name(x + i * n, add + i * n, m, n, to); \
            products_##name(dout, from, w, mu, r, n, &g_mean, &gh_mean); \
            g_mean /= (T)n; \
            gh_mean /= (T)n; \
            for (int64_t j = 0; j < n; j++) \
                to[j] = r * (dout[j] * (w ? w[j] : 1) - g_mean - (from[j] - mu) * r * gh_mean); \
            for (int64_t j = 0; dadd && j < n; j++) dadd[i * n + j] = m * to[j]; \
        } \
    } \
    static void parts_##name(mf_device *d, int64_t rows, int64_t n, int64_t parts, const T *dy, const T *x, const T *add, const T *mask, \
                             const T *mean, const T *rstd, T *dw, T *db) { \
        _Pragma("omp parallel for num_threads(mf__threads(d, rows, n * COST)) schedule(static)") \
        for (int64_t p = 0; p < parts; p++) { \
            const int64_t first = p * GRAD_ROWS, end = first + GRAD_ROWS < rows ? first + GRAD_ROWS : rows; \
            T *restrict w = dw + p * n, *restrict b = db + p * n; \
            memset(w, 0, (size_t)n * sizeof *w); \
            memset(b, 0, (size_t)n * sizeof *b); \
            for (int64_t i = first; i < end; i++) { \
                const T *dout = dy + i * n, *from = x + i * n, *other = add ? add + i * n : NULL, mu = mean[i], r = rstd[i]; \
                const T m = mask ? mask[i] : 1; \
                if (other) for (int64_t j = 0; j < n; j++) w[j] += dout[j] * ((from[j] + m * other[j] - mu) * r); \
                else for (int64_t j = 0; j < n; j++) w[j] += dout[j] * ((from[j] - mu) * r); \
                for (int64_t j = 0; j < n; j++) b[j] += dout[j]; \
            } \
        } \
    }
DEFINE_NORM(f32, float)
DEFINE_NORM(f64, double)

static mf_status unsupported(int dtype) {
    return mf__fail(MF_ESUPPORT, "layer_norm: no kernel for %s", mf_dtype_name(dtype));
}

mf_status mf__cpu_add_layer_norm(mf_device *d, const mf_add_norm_args *p) {
    if (p->rows == 0 || p->columns == 0) return MF_OK;
    if (p->dtype == MF_FLOAT32)
        norm_f32(d, p->rows, p->columns, p->a, p->b, p->mask, p->weight, p->bias, p->epsilon, p->y, p->mean, p->rstd);
    else if (p->dtype == MF_FLOAT64)
        norm_f64(d, p->rows, p->columns, p->a, p->b, p->mask, p->weight, p->bias, p->epsilon, p->y, p->mean, p->rstd);
    else return unsupported(p->dtype);
    return MF_OK;
}

mf_status mf__cpu_add_layer_norm_grad(mf_device *d, const mf_add_norm_args *p) {
    const int f32 = p->dtype == MF_FLOAT32;
    if (!f32 && p->dtype != MF_FLOAT64) return unsupported(p->dtype);
    if (p->columns == 0) return MF_OK;
    if (p->da || p->db) {
        if (f32) dx_f32(d, p->rows, p->columns, p->dy, p->a, p->b, p->mask, p->weight, p->mean, p->rstd, p->da, p->db);
        else dx_f64(d, p->rows, p->columns, p->dy, p->a, p->b, p->mask, p->weight, p->mean, p->rstd, p->da, p->db);
    }
    if (!p->dweight) return MF_OK;

    const int64_t count = (p->rows + GRAD_ROWS - 1) / GRAD_ROWS, bytes = count * p->columns * mf_dtype_bytes(p->dtype);
    char *parts = mf__host_alloc(d->ctx, (size_t)(bytes ? 2 * bytes : 1));
    if (!parts) return MF_ENOMEM;
    void *dw = parts, *db = parts + bytes;
    if (f32) parts_f32(d, p->rows, p->columns, count, p->dy, p->a, p->b, p->mask, p->mean, p->rstd, dw, db);
    else parts_f64(d, p->rows, p->columns, count, p->dy, p->a, p->b, p->mask, p->mean, p->rstd, dw, db);
    mf_status status = mf__cpu_reduce(d, MF_REDUCE_sum, p->dtype, 1, count, p->columns, dw, p->dweight);
    if (status == MF_OK) status = mf__cpu_reduce(d, MF_REDUCE_sum, p->dtype, 1, count, p->columns, db, p->dbias);
    free(parts);
    return status;
}

mf_status mf__cpu_layer_norm(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *x, const void *weight, const void *bias,
                             double epsilon, void *y, void *mean, void *rstd) {
    return mf__cpu_add_layer_norm(d, &(mf_add_norm_args){.dtype = dtype, .rows = rows, .columns = columns, .a = x, .weight = weight, .bias = bias,
                                                         .epsilon = epsilon, .y = y, .mean = mean, .rstd = rstd});
}

mf_status mf__cpu_layer_norm_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, const void *dy, const void *x, const void *weight,
                                  const void *mean, const void *rstd, void *dx, void *dweight, void *dbias) {
    return mf__cpu_add_layer_norm_grad(d, &(mf_add_norm_args){.dtype = dtype, .rows = rows, .columns = columns, .dy = dy, .a = x, .weight = weight,
                                                              .mean = (void *)mean, .rstd = (void *)rstd, .da = dx, .dweight = dweight,
                                                              .dbias = dbias});
}
