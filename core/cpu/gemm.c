/* gemm.c: matrix products on the CPU: C = activation(alpha op(A) op(B) + beta C + bias), row-major, batched.
 *
 * Two paths:
 *   direct      float32 and float64, exact: OpenBLAS on the operands where they lie
 *   converted   16-bit storage, or operands rounded to `precision`: tiles of A and B are converted into a
 *               workspace, multiplied there, and the finished tile of C is converted back once
 *
 * OpenBLAS runs single-threaded and we divide the work ourselves: whole matrices of the batch when they go
 * evenly over the threads, else rows and columns of C, never the sum over k. So a value of C is always one
 * thread's sum in one order. The cut that packs least is taken: each part packs its own rows of A and columns
 * of B, m pn + n pm elements times k for pm x pn parts.
 *
 * Products too small for OpenBLAS's call (a 3x3 costs it 20 times the arithmetic) are plain loops, and those
 * under 2^19 multiplications in all never fork. */
#include <cblas.h>
#include <limits.h>
#include <stdlib.h>
#include "tile.h"

enum {
    SMALL = 512,               /* multiplications up to which plain loops beat a library call */
    FORK = 1 << 19,            /* multiplications from which threads are worth it: about 10 us of one core */
    MOST_ROWS = 1 << 30,       /* of one library call, whose sizes are int */
    TILE_M = 256, TILE_N = 256, TILE_K = 256
};

/* One piece of work: a rectangle of C in one matrix of the batch. */
typedef struct part {
    int64_t batch, row, rows, column, columns;
} part;

/* c = beta c + bias over a rectangle. beta = 0 does not read c, which may hold NaN. */
#define START(R, suffix)                                                                                    \
    static void start_##suffix(R *c, int64_t ldc, int64_t rows, int64_t columns, R beta, const R *bias) {   \
        for (int64_t i = 0; i < rows; i++) {                                                                \
            R *row = c + i * ldc;                                                                           \
            if (beta == 0) {                                                                                \
                if (bias) memcpy(row, bias, (size_t)columns * sizeof(R));                                   \
                else memset(row, 0, (size_t)columns * sizeof(R));                                           \
            } else {                                                                                        \
                for (int64_t j = 0; j < columns; j++) row[j] = beta * row[j] + (bias ? bias[j] : 0);        \
            }                                                                                               \
        }                                                                                                   \
    }
START(float, f32)
START(double, f64)

/* c = relu(c) over a rectangle; NaN stays. */
#define RELU(R, suffix)                                                                                     \
    static void relu_##suffix(R *c, int64_t ldc, int64_t rows, int64_t columns) {                           \
        for (int64_t i = 0; i < rows; i++)                                                                  \
            for (int64_t j = 0; j < columns; j++) c[i * ldc + j] = c[i * ldc + j] < 0 ? 0 : c[i * ldc + j]; \
    }
RELU(float, f32)
RELU(double, f64)

/* c += alpha op(A) op(B) by loops; the strides say which way op goes. */
#define LOOPS(R, suffix)                                                                                    \
    static void loops_##suffix(R *c, int64_t ldc, int64_t m, int64_t n, int64_t k, R alpha, const R *a,     \
                               int64_t ai, int64_t ak, const R *b, int64_t bk, int64_t bj) {                \
        for (int64_t i = 0; i < m; i++)                                                                     \
            for (int64_t j = 0; j < n; j++) {                                                               \
                R sum = 0;                                                                                  \
                for (int64_t l = 0; l < k; l++) sum += a[i * ai + l * ak] * b[l * bk + j * bj];             \
                c[i * ldc + j] += alpha * sum;                                                              \
            }                                                                                               \
    }
LOOPS(float, f32)
LOOPS(double, f64)

/* The direct path for one part. A vector on either side goes to gemv, which reads the matrix once and packs nothing. */
#define MULTIPLY(R, suffix, letter)                                                                         \
    static void multiply_##suffix(const mf_gemm *g, const part *p) {                                        \
        const int ta = g->transpose_a, tb = g->transpose_b;                                                 \
        const int m = (int)p->rows, n = (int)p->columns, k = (int)g->k;                                     \
        const int lda = (int)g->lda, ldb = (int)g->ldb, ldc = (int)g->ldc;                                  \
        const R *a = (const R *)g->a + p->batch * g->stride_a + p->row * (ta ? 1 : g->lda);                 \
        const R *b = (const R *)g->b + p->batch * g->stride_b + p->column * (tb ? g->ldb : 1);              \
        R *c = (R *)g->c + p->batch * g->stride_c + p->row * g->ldc + p->column;                            \
        const R *bias = g->bias ? (const R *)g->bias + p->column : NULL;                                    \
        const R alpha = (R)g->alpha;                                                                        \
        R beta = (R)g->beta;                                                                                \
        const int small = (double)m * n * k <= SMALL;                                                       \
        if (bias || small || k == 0 || m == 1 || n == 1) {                                                  \
            start_##suffix(c, g->ldc, m, n, beta, bias);                                                    \
            beta = 1;                                                                                       \
        }                                                                                                   \
        if (small)                                                                                          \
            loops_##suffix(c, ldc, m, n, k, alpha, a, ta ? 1 : lda, ta ? lda : 1, b, tb ? 1 : ldb, tb ? ldb : 1); \
        else if (n == 1)                                                                                    \
            cblas_##letter##gemv(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, ta ? k : m, ta ? m : k, alpha, \
                                 a, lda, b, tb ? 1 : ldb, beta, c, ldc);                                    \
        else if (m == 1)                                                                                    \
            cblas_##letter##gemv(CblasRowMajor, tb ? CblasNoTrans : CblasTrans, tb ? n : k, tb ? k : n, alpha, \
                                 b, ldb, a, ta ? lda : 1, beta, c, 1);                                      \
        else                                                                                                \
            cblas_##letter##gemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, \
                                 m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);                             \
        if (g->activation == MF_ACTIVATION_RELU) relu_##suffix(c, ldc, m, n);                               \
    }
MULTIPLY(float, f32, s)
MULTIPLY(double, f64, d)

static int64_t gcd(int64_t a, int64_t b) {
    while (b) {
        int64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* How many row and column parts each matrix is cut into. */
static void cut(int64_t *pm, int64_t *pn, const mf_gemm *g, int64_t threads) {
    int64_t parts = g->batch >= 4 * threads ? 1 : threads / gcd(threads, g->batch);
    double least = -1;
    *pm = *pn = 1;
    for (int64_t columns = 1; columns <= parts; columns++) {
        if (parts % columns) continue;
        int64_t rows = parts / columns;
        double packed = (double)g->m * (double)columns + (double)g->n * (double)rows;
        if (least < 0 || packed < least) {
            least = packed;
            *pm = rows;
            *pn = columns;
        }
    }
    *pm = mf__max_i64(*pm, mf__ceil_div(g->m, MOST_ROWS));
    *pn = mf__max_i64(*pn, mf__ceil_div(g->n, MOST_ROWS));
}

/* The size of each of `parts` pieces of n, a multiple of the microkernel's 16 where that leaves no thread idle. */
static int64_t piece(int64_t n, int64_t parts) {
    int64_t size = mf__ceil_div(n, parts);
    return size >= 64 && parts > 1 ? (size + 15) / 16 * 16 : mf__max_i64(size, 1);
}

/* The cut of the direct path, and one item of it. */
typedef struct grid {
    int64_t pm, pn, rows, columns;
} grid;

static void direct_item(const mf_gemm *g, const grid *parts, int64_t i) {
    part p = {.batch = i / (parts->pm * parts->pn), .row = i / parts->pn % parts->pm * parts->rows,
        .column = i % parts->pn * parts->columns};
    p.rows = mf__min_i64(parts->rows, g->m - p.row);
    p.columns = mf__min_i64(parts->columns, g->n - p.column);
    if (p.rows <= 0 || p.columns <= 0) return;
    if (g->dtype == MF_FLOAT32) multiply_f32(g, &p);
    else multiply_f64(g, &p);
}

static void direct(const mf_gemm *g, int64_t threads) {
    grid parts;
    cut(&parts.pm, &parts.pn, g, threads);
    parts.rows = piece(g->m, parts.pm);
    parts.columns = piece(g->n, parts.pn);
    const int64_t items = g->batch * parts.pm * parts.pn;
    if (threads == 1) {                       /* outside any parallel region: entering one alone costs 400 ns */
        for (int64_t i = 0; i < items; i++) direct_item(g, &parts, i);
        return;
    }
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (int64_t i = 0; i < items; i++) direct_item(g, &parts, i);
}

/* A rectangle of an operand, from `offset` with leading dimension `ld`, into `to` with leading dimension `columns`. */
static void load_f32(float *to, const void *from, int dtype, int precision, int64_t offset, int64_t ld, int64_t rows,
                    int64_t columns) {
    for (int64_t i = 0; i < rows; i++) {
        float *row = to + i * columns;
        const int64_t at = offset + i * ld;
        if (dtype == MF_FLOAT32) {
            mf__round_row_f32(row, (const float *)from + at, columns, precision, 1);
            continue;
        }
        const uint16_t *source = (const uint16_t *)from + at;
        if (dtype == MF_FLOAT16) for (int64_t j = 0; j < columns; j++) row[j] = mf__half_to_float(source[j]);
        else for (int64_t j = 0; j < columns; j++) row[j] = mf__bf16_to_float(source[j]);
        if (precision != MF_EXACT) mf__round_row_f32(row, row, columns, precision, 1);
    }
}

static void load_f64(double *to, const void *from, int dtype, int precision, int64_t offset, int64_t ld, int64_t rows,
                    int64_t columns) {
    (void)dtype;
    for (int64_t i = 0; i < rows; i++)
        mf__round_row_f64(to + i * columns, (const double *)from + offset + i * ld, columns, precision, 1);
}

/* n values of C: c = sum + beta c + bias, at least `least`, computed in the wider type and rounded once. */
static void store_f32(void *c, int dtype, int64_t at, const float *sum, int64_t n, float beta, const void *bias, int64_t column,
                      float least) {
    for (int64_t j = 0; j < n; j++) {
        float y = sum[j];
        if (dtype == MF_FLOAT32) {
            float *to = (float *)c + at + j;
            y += (beta != 0 ? beta * *to : 0) + (bias ? ((const float *)bias)[column + j] : 0);
            *to = y < least ? least : y;
        } else if (dtype == MF_FLOAT16) {
            uint16_t *to = (uint16_t *)c + at + j;
            y += (beta != 0 ? beta * mf__half_to_float(*to) : 0) + (bias ? mf__half_to_float(((const uint16_t *)bias)[column + j]) : 0);
            *to = mf__float_to_half(y < least ? least : y);
        } else {
            uint16_t *to = (uint16_t *)c + at + j;
            y += (beta != 0 ? beta * mf__bf16_to_float(*to) : 0) + (bias ? mf__bf16_to_float(((const uint16_t *)bias)[column + j]) : 0);
            *to = mf__float_to_bf16(y < least ? least : y);
        }
    }
}

static void store_f64(void *c, int dtype, int64_t at, const double *sum, int64_t n, double beta, const void *bias, int64_t column,
                      double least) {
    (void)dtype;
    double *to = (double *)c + at;
    for (int64_t j = 0; j < n; j++) {
        const double y = sum[j] + (beta != 0 ? beta * to[j] : 0) + (bias ? ((const double *)bias)[column + j] : 0);
        to[j] = y < least ? least : y;
    }
}

/* One tile of C: its sum over k runs through the workspace panel by panel. */
#define CONVERT(R, suffix, letter)                                                                          \
    static void convert_##suffix(const mf_gemm *g, const part *p, R *a, R *b, R *c) {                       \
        const int ta = g->transpose_a, tb = g->transpose_b;                                                 \
        const int64_t m = p->rows, n = p->columns;                                                          \
        const int64_t a0 = p->batch * g->stride_a, b0 = p->batch * g->stride_b, c0 = p->batch * g->stride_c; \
        memset(c, 0, (size_t)(m * n) * sizeof(R));                                                          \
        for (int64_t l = 0; l < g->k; l += TILE_K) {                                                        \
            const int64_t k = mf__min_i64(TILE_K, g->k - l);                                                \
            if (ta) load_##suffix(a, g->a, g->dtype, g->precision, a0 + l * g->lda + p->row, g->lda, k, m); \
            else load_##suffix(a, g->a, g->dtype, g->precision, a0 + p->row * g->lda + l, g->lda, m, k);    \
            if (tb) load_##suffix(b, g->b, g->dtype, g->precision, b0 + p->column * g->ldb + l, g->ldb, n, k); \
            else load_##suffix(b, g->b, g->dtype, g->precision, b0 + l * g->ldb + p->column, g->ldb, k, n); \
            cblas_##letter##gemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, \
                                 (int)m, (int)n, (int)k, (R)g->alpha, a, (int)(ta ? m : k), b, (int)(tb ? k : n), 1, c, (int)n); \
        }                                                                                                   \
        for (int64_t i = 0; i < m; i++)                                                                     \
            store_##suffix(g->c, g->dtype, c0 + (p->row + i) * g->ldc + p->column, c + i * n, n, (R)g->beta, g->bias, p->column, \
                           g->activation == MF_ACTIVATION_RELU ? 0 : -(R)INFINITY);                         \
    }
CONVERT(float, f32, s)
CONVERT(double, f64, d)

static mf_status converted(mf_device *d, const mf_gemm *g, int64_t threads) {
    const int64_t tm = mf__min_i64(g->m, TILE_M), tn = mf__min_i64(g->n, TILE_N), tk = mf__min_i64(g->k, TILE_K);
    const int64_t pm = mf__ceil_div(g->m, tm), pn = mf__ceil_div(g->n, tn), items = g->batch * pm * pn;
    const int64_t size = g->dtype == MF_FLOAT64 ? 8 : 4;
    const int64_t a_bytes = (tm * tk * size + 63) / 64 * 64, b_bytes = (tk * tn * size + 63) / 64 * 64;
    const int64_t bytes = a_bytes + b_bytes + (tm * tn * size + 63) / 64 * 64;
    void *block;
    char *first;
    threads = mf__min_i64(threads, items);
    MF_TRY(mf__workspaces(&block, &first, d, threads, bytes));
#pragma omp parallel for num_threads((int)threads) schedule(static) if (threads > 1)
    for (int64_t w = 0; w < threads; w++) {
        char *a = first + w * bytes, *b = a + a_bytes, *c = b + b_bytes;
        for (int64_t i = items * w / threads; i < items * (w + 1) / threads; i++) {
            part p = {.batch = i / (pm * pn), .row = i / pn % pm * tm, .column = i % pn * tn};
            p.rows = mf__min_i64(tm, g->m - p.row);
            p.columns = mf__min_i64(tn, g->n - p.column);
            if (size == 8) convert_f64(g, &p, (double *)(void *)a, (double *)(void *)b, (double *)(void *)c);
            else convert_f32(g, &p, (float *)(void *)a, (float *)(void *)b, (float *)(void *)c);
        }
    }
    free(block);
    return MF_OK;
}

mf_status mf__cpu_gemm(mf_device *d, const mf_gemm *g) {
    if (!mf__is_float(g->dtype))
        return mf__fail(MF_EDTYPE, "matmul: element type %s is not a floating one", mf_dtype_name(g->dtype));
    if (g->m <= 0 || g->n <= 0 || g->batch <= 0) return MF_OK;
    if (g->k > INT_MAX || g->lda > INT_MAX || g->ldb > INT_MAX || g->ldc > INT_MAX)
        return mf__fail(MF_ESUPPORT, "matmul: the common size %lld and row strides %lld, %lld, %lld must stay under 2^31",
                        (long long)g->k, (long long)g->lda, (long long)g->ldb, (long long)g->ldc);
    /* 64: what a product costs that is next to nothing */
    const double work = (double)g->batch * ((double)g->m * (double)g->n * (double)g->k + 64);
    const int64_t threads = work < FORK ? 1 : d->threads;
    if (mf__is_real(g->dtype) && g->precision == MF_EXACT) {
        direct(g, threads);
        return MF_OK;
    }
    return converted(d, g, threads);
}
