/* sum.h: pairwise sums, the one place where the order of every sum of this backend is decided.
 *
 *     sum(x, n) = sum(x, h) + sum(x + h, n - h)        h: half of the blocks, a block is summed straight
 *
 * The rounding error grows with log n instead of n, and the order depends on n alone: not on threads, not on
 * where the data lies. A block's loop has independent chains, so it runs at the speed of the loads.
 *
 * Generated for f32, f64, i32, i64, u8, f16, bf16; LOAD gives the accumulator's type. 16-bit floats accumulate in
 * float; integers in 64 bits, unsigned because those wrap without undefined behaviour:
 *     mf__sum_<name>(x, n)                                     the sum of a line
 *     mf__columns_<name>(x, rows, stride, width, total)        total[j] = sum over rows of x[row * stride + j] */
#ifndef MF_CPU_SUM_H
#define MF_CPU_SUM_H
#include "vector.h"

enum { MF__SUM_BLOCK = 512, MF__SUM_SHORT = 16, MF__SUM_ROWS = 32, MF__COLUMNS = 64 };  /* elements; rows; most columns of one call */

#define MF__LOAD_REAL(v) (v)
#define MF__LOAD_INT(v) ((uint64_t)(int64_t)(v))

#define MF__SUM_LIST(X) \
    X(f32,  float,    float,    MF__LOAD_REAL) \
    X(f64,  double,   double,   MF__LOAD_REAL) \
    X(i32,  int32_t,  uint64_t, MF__LOAD_INT) \
    X(i64,  int64_t,  uint64_t, MF__LOAD_INT) \
    X(u8,   uint8_t,  uint64_t, MF__LOAD_INT) \
    X(f16,  uint16_t, float,    mf__half_to_float) \
    X(bf16, uint16_t, float,    mf__bf16_to_float)

#define MF__DEFINE_SUM(name, T, A, LOAD) \
    static inline A mf__sum_##name(const T *x, int64_t n) { \
        if (n > MF__SUM_BLOCK) { \
            const int64_t blocks = (n + MF__SUM_BLOCK - 1) / MF__SUM_BLOCK, half = blocks / 2 * MF__SUM_BLOCK; \
            return mf__sum_##name(x, half) + mf__sum_##name(x + half, n - half); \
        } \
        A a = 0, b = 0, c = 0, e = 0; \
        if (n < MF__SUM_SHORT) { \
            for (int64_t i = 0; i < n; i++) a += LOAD(x[i]); \
            return a; \
        } \
        const int64_t quarter = n / 4; \
        const T *p = x, *q = x + quarter, *r = q + quarter, *s = r + quarter; \
        _Pragma("omp simd reduction(+ : a, b, c, e)") \
        for (int64_t i = 0; i < quarter; i++) { \
            a += LOAD(p[i]); \
            b += LOAD(q[i]); \
            c += LOAD(r[i]); \
            e += LOAD(s[i]); \
        } \
        for (int64_t i = quarter * 4; i < n; i++) a += LOAD(x[i]); \
        return (a + b) + (c + e); \
    } \
    static inline void mf__columns_##name(const T *x, int64_t rows, int64_t stride, int64_t width, A *total) { \
        if (rows > MF__SUM_ROWS) { \
            const int64_t blocks = (rows + MF__SUM_ROWS - 1) / MF__SUM_ROWS, half = blocks / 2 * MF__SUM_ROWS; \
            A rest[MF__COLUMNS]; \
            mf__columns_##name(x, half, stride, width, total); \
            mf__columns_##name(x + half * stride, rows - half, stride, width, rest); \
            for (int64_t j = 0; j < width; j++) total[j] += rest[j]; \
            return; \
        } \
        for (int64_t j = 0; j < width; j++) total[j] = 0; \
        int64_t i = 0; \
        for (; i + 4 <= rows; i += 4) { \
            const T *p = x + i * stride, *q = p + stride, *r = q + stride, *s = r + stride; \
            _Pragma("omp simd") \
            for (int64_t j = 0; j < width; j++) total[j] += (LOAD(p[j]) + LOAD(q[j])) + (LOAD(r[j]) + LOAD(s[j])); \
        } \
        for (; i < rows; i++) \
            for (int64_t j = 0; j < width; j++) total[j] += LOAD(x[i * stride + j]); \
    }
MF__SUM_LIST(MF__DEFINE_SUM)
#endif
