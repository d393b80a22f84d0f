/* attention.h: what packed attention and pair attention share on the CPU: products on rows, the masked maximum, checks. */
#ifndef MF_CPU_ATTENTION_H
#define MF_CPU_ATTENTION_H
#include <cblas.h>
#include <limits.h>
#include "tile.h"

/* BLAS refuses a leading dimension of 0, also for empty operands. */
static inline int mf__leading(int64_t n) { return n < 1 ? 1 : (int)n; }

/* c = alpha op(a) op(b) + beta c, row-major, by the BLAS function that the including file names. */
#define MF__GEMM(blas, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)                                         \
    blas(CblasRowMajor, (ta) ? CblasTrans : CblasNoTrans, (tb) ? CblasTrans : CblasNoTrans, (int)(m), (int)(n), (int)(k), \
         alpha, a, mf__leading(lda), b, mf__leading(ldb), beta, c, mf__leading(ldc))

/* max(top, row + bias), NaN passed over: no reduction that compilers know without -ffast-math, so by vector extensions,
 * where m ? x : most is spelled in bits because C has no ?: of vectors. */
#define MF__TOP_OF(R, BITS, suffix)                                                                            \
    typedef R mf__lanes_##suffix __attribute__((vector_size(32)));                                             \
    typedef BITS mf__mask_##suffix __attribute__((vector_size(32)));                                           \
    static inline R mf__top_of_##suffix(const R *row, const R *bias, int64_t n, R top) {                       \
        const int64_t width = 32 / (int64_t)sizeof(R);                                                         \
        mf__lanes_##suffix most, x, b;                                                                         \
        for (int64_t l = 0; l < width; l++) most[l] = top;                                                     \
        int64_t j = 0;                                                                                         \
        for (; j + width <= n; j += width) {                                                                   \
            memcpy(&x, row + j, sizeof x);                                                                     \
            memcpy(&b, bias + j, sizeof b);                                                                    \
            x += b;                                                                                            \
            const mf__mask_##suffix m = x > most;                                                              \
            most = (mf__lanes_##suffix)(((mf__mask_##suffix)x & m) | ((mf__mask_##suffix)most & ~m));          \
        }                                                                                                      \
        for (; j < n; j++) top = row[j] + bias[j] > top ? row[j] + bias[j] : top;                              \
        for (int64_t l = 0; l < width; l++) top = most[l] > top ? most[l] : top;                               \
        return top;                                                                                            \
    }
MF__TOP_OF(float, int32_t, f32)
MF__TOP_OF(double, int64_t, f64)

static inline mf_status mf__attention_check(const char *op, const mf_attention_args *a) {
    const int64_t width = mf__max_i64(a->dqk, mf__max_i64(a->dv, a->dz));
    if (!mf__is_real(a->dtype))
        return mf__fail(MF_EDTYPE, "%s: element type %s, expected float32 or float64", op, mf_dtype_name(a->dtype));
    if (a->operand) return mf__fail(MF_ESUPPORT, "%s: operands of 16 bits are taken on a GPU only", op);
    if (width > 0 && a->heads > INT_MAX / width)
        return mf__fail(MF_ESUPPORT, "%s: %lld heads of width %lld: a residue's row must stay under 2^31 elements", op,
                        (long long)a->heads, (long long)width);
    if (a->packing->longest > INT_MAX)
        return mf__fail(MF_ESUPPORT, "%s: a sequence of %lld residues, at most 2^31 - 1", op, (long long)a->packing->longest);
    return MF_OK;
}

/* Threads for a call: 1 while all of it is about 10 us of one core. */
static inline int64_t mf__attention_threads(const mf_device *d, const mf_attention_args *a) {
    return (double)a->packing->pairs * (double)a->heads * (double)(a->dqk + a->dv + a->dz) < 1 << 19 ? 1 : d->threads;
}
#endif
