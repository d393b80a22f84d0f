/* reduce.c: sums, extremes, cumulative sums and segment sums over the middle of (outer, middle, inner).
 *
 *     element (o, m, i) lies at (o * middle + m) * inner + i
 *
 * Sums are pairwise (sum.h). A long middle is cut into chunks of a fixed length, whose sums are reduced again, so that
 * one long sum uses every thread and still has an order that depends on the sizes alone. Columns (inner > 1) are taken
 * MF__COLUMNS at a time, so that rows are read in whole cache lines.
 *
 * NaN counts as more extreme than every number: max and min give NaN where there is one, and the arg functions the
 * first NaN. Equal elements: the first. */
#include "cpu.h"
#include "sum.h"
#include <stdlib.h>

enum { LINE_CHUNK = 16384, ROW_CHUNK = 512 };  /* elements or rows that one thread takes at a time */

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* How (outer, middle, inner) is cut into pieces for threads. */
typedef struct pieces {
    int64_t chunk, chunks;        /* of the middle */
    int64_t blocks;               /* of columns */
    int64_t count;                /* outer * chunks * blocks */
} pieces;

static pieces cut(int64_t outer, int64_t middle, int64_t inner, int whole) {
    pieces c = {.chunk = inner == 1 ? LINE_CHUNK : ROW_CHUNK};
    if (whole || middle <= c.chunk) c.chunk = middle;
    c.chunks = c.chunk ? ceil_div(middle, c.chunk) : 1;
    c.blocks = ceil_div(inner, MF__COLUMNS);
    c.count = outer * c.chunks * c.blocks;
    return c;
}

/* The piece of number `item`: rows first .. first + rows of the outer index, columns from .. from + width. */
typedef struct piece { int64_t outer, chunk, first, rows, from, width; } piece;

static inline piece piece_of(const pieces *c, int64_t middle, int64_t inner, int64_t item) {
    piece p = {.outer = item, .rows = middle, .width = inner};
    if (c->blocks == 1 && c->chunks == 1) return p;  /* short lines: the divisions would cost more than the sums */
    p.from = item % c->blocks * MF__COLUMNS;
    p.width = smaller(inner - p.from, MF__COLUMNS);
    item /= c->blocks;
    p.chunk = item % c->chunks;
    p.outer = item / c->chunks;
    p.first = p.chunk * c->chunk;
    p.rows = smaller(middle - p.first, c->chunk);
    return p;
}

/* fn: `of(from, rows, inner, width, to)` of every piece, from `rows` rows of `width` columns that are `inner` apart; where the middle
 * was cut, `again`, the fn of the results' type, over what the chunks gave. */
#define DEFINE_PARTED(fn, T, A, of, again) \
    static mf_status fn(mf_device *d, int64_t outer, int64_t middle, int64_t inner, const T *x, A *y) { \
        const pieces c = cut(outer, middle, inner, 0); \
        A *part = y; \
        if (c.chunks > 1) { \
            part = mf__host_alloc(d->ctx, (size_t)(outer * c.chunks * inner) * sizeof *part); \
            if (!part) return MF_ENOMEM; \
        } \
        _Pragma("omp parallel for num_threads(mf__threads(d, outer * middle, inner)) schedule(static)") \
        for (int64_t item = 0; item < c.count; item++) { \
            const piece p = piece_of(&c, middle, inner, item); \
            const T *from = x + (p.outer * middle + p.first) * inner + p.from; \
            of(from, p.rows, inner, p.width, part + (p.outer * c.chunks + p.chunk) * inner + p.from); \
        } \
        if (c.chunks == 1) return MF_OK; \
        const mf_status status = again(d, outer, c.chunks, inner, part, y); \
        free(part); \
        return status; \
    }

/* rows_<name> and sum_<name>: generated for the names of MF__SUM_LIST. The accumulators' own come first: the others end in them. */
#define DECLARE_SUM(name, T, A) \
    static mf_status sum_##name(mf_device *d, int64_t outer, int64_t middle, int64_t inner, const T *x, A *y);
DECLARE_SUM(f32, float, float)
DECLARE_SUM(f64, double, double)
DECLARE_SUM(u64, uint64_t, uint64_t)

#define DEFINE_SUM(name, T, A, again) \
    static inline void rows_##name(const T *from, int64_t rows, int64_t inner, int64_t width, A *to) { \
        if (inner == 1) *to = mf__sum_##name(from, rows); \
        else mf__columns_##name(from, rows, inner, width, to); \
    } \
    DEFINE_PARTED(sum_##name, T, A, rows_##name, sum_##again)
MF__DEFINE_SUM(u64, uint64_t, uint64_t, MF__LOAD_REAL)
DEFINE_SUM(f32, float, float, f32)
DEFINE_SUM(f64, double, double, f64)
DEFINE_SUM(u64, uint64_t, uint64_t, u64)
DEFINE_SUM(i32, int32_t, uint64_t, u64)
DEFINE_SUM(i64, int64_t, uint64_t, u64)
DEFINE_SUM(u8, uint8_t, uint64_t, u64)
DEFINE_SUM(f16, uint16_t, float, f32)
DEFINE_SUM(bf16, uint16_t, float, f32)

static void store_halves(int dtype, int64_t n, const float *x, uint16_t *y) {
    if (dtype == MF_FLOAT16)
        for (int64_t i = 0; i < n; i++) y[i] = mf__float_to_half(x[i]);
    else
        for (int64_t i = 0; i < n; i++) y[i] = mf__float_to_bf16(x[i]);
}

/* The sum, times `scale` where the type is floating. */
static mf_status sum(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y, double scale) {
    const int64_t n = outer * inner;
    switch (dtype) {
    case MF_FLOAT32:
        MF_TRY(sum_f32(d, outer, middle, inner, x, y));
        for (int64_t i = 0; scale != 1 && i < n; i++) ((float *)y)[i] *= (float)scale;
        return MF_OK;
    case MF_FLOAT64:
        MF_TRY(sum_f64(d, outer, middle, inner, x, y));
        for (int64_t i = 0; scale != 1 && i < n; i++) ((double *)y)[i] *= scale;
        return MF_OK;
    case MF_INT32: return sum_i32(d, outer, middle, inner, x, y);
    case MF_INT64: return sum_i64(d, outer, middle, inner, x, y);
    case MF_BOOL: return sum_u8(d, outer, middle, inner, x, y);
    default: break;
    }
    float *wide = mf__host_alloc(d->ctx, (size_t)n * sizeof *wide);
    if (!wide) return MF_ENOMEM;
    const mf_status status = dtype == MF_FLOAT16 ? sum_f16(d, outer, middle, inner, x, wide)
                                                 : sum_bf16(d, outer, middle, inner, x, wide);
    if (status == MF_OK) {
        for (int64_t i = 0; scale != 1 && i < n; i++) wide[i] *= (float)scale;
        store_halves(dtype, n, wide, y);
    }
    free(wide);
    return status;
}

/* `a` takes the place of `b`. A comparison with NaN is false, so a NaN that got in stays. */
#define NAN_REAL(v) ((v) != (v))
#define NAN_INT(v) 0
#define ABOVE(a, b, IS_NAN) ((a) > (b) || (IS_NAN(a) && !IS_NAN(b)))
#define BELOW(a, b, IS_NAN) ((a) < (b) || (IS_NAN(a) && !IS_NAN(b)))

/* best_<max|min>_<name>, extreme_<max|min>_<name> and arg_<max|min>_<name> for f32, f64, i32, i64, u8, f16, bf16. The arg functions
 * keep the middle whole: their order matters, and a long single line of them is rare. */
#define DEFINE_EXTREME(which, TAKES, name, T, LOAD, IS_NAN) \
    static inline void best_##which##_##name(const T *from, int64_t rows, int64_t inner, int64_t width, T *to) { \
        T best[MF__COLUMNS]; \
        if (inner == 1) { \
            const int64_t lanes = smaller(rows, MF__COLUMNS); \
            memcpy(best, from, (size_t)lanes * sizeof *best); \
            int64_t i = lanes; \
            for (; i + MF__COLUMNS <= rows; i += MF__COLUMNS) \
                for (int64_t j = 0; j < MF__COLUMNS; j++) \
                    best[j] = TAKES(LOAD(from[i + j]), LOAD(best[j]), IS_NAN) ? from[i + j] : best[j]; \
            for (; i < rows; i++) \
                if (TAKES(LOAD(from[i]), LOAD(best[0]), IS_NAN)) best[0] = from[i]; \
            for (int64_t j = 1; j < lanes; j++) \
                if (TAKES(LOAD(best[j]), LOAD(best[0]), IS_NAN)) best[0] = best[j]; \
        } else { \
            memcpy(best, from, (size_t)width * sizeof *best); \
            for (int64_t i = 1; i < rows; i++) { \
                const T *row = from + i * inner; \
                for (int64_t j = 0; j < width; j++) \
                    best[j] = TAKES(LOAD(row[j]), LOAD(best[j]), IS_NAN) ? row[j] : best[j]; \
            } \
        } \
        memcpy(to, best, (size_t)width * sizeof *best); \
    } \
    DEFINE_PARTED(extreme_##which##_##name, T, T, best_##which##_##name, extreme_##which##_##name) \
    static mf_status arg_##which##_##name(mf_device *d, int64_t outer, int64_t middle, int64_t inner, const T *x, int32_t *y) { \
        const pieces c = cut(outer, middle, inner, 1); \
        _Pragma("omp parallel for num_threads(mf__threads(d, outer * middle, inner)) schedule(static)") \
        for (int64_t item = 0; item < c.count; item++) { \
            const piece p = piece_of(&c, middle, inner, item); \
            const T *from = x + p.outer * middle * inner + p.from; \
            int32_t *to = y + p.outer * inner + p.from; \
            T best[MF__COLUMNS]; \
            memcpy(best, from, (size_t)p.width * sizeof *best); \
            for (int64_t j = 0; j < p.width; j++) to[j] = 0; \
            for (int64_t i = 1; i < middle; i++) { \
                const T *row = from + i * inner; \
                for (int64_t j = 0; j < p.width; j++) { \
                    if (!TAKES(LOAD(row[j]), LOAD(best[j]), IS_NAN)) continue; \
                    best[j] = row[j]; \
                    to[j] = (int32_t)i; \
                } \
            } \
        } \
        return MF_OK; \
    }
#define DEFINE_EXTREMES(name, T, LOAD, IS_NAN) \
    DEFINE_EXTREME(max, ABOVE, name, T, LOAD, IS_NAN) \
    DEFINE_EXTREME(min, BELOW, name, T, LOAD, IS_NAN)
DEFINE_EXTREMES(f32, float, MF__LOAD_REAL, NAN_REAL)
DEFINE_EXTREMES(f64, double, MF__LOAD_REAL, NAN_REAL)
DEFINE_EXTREMES(i32, int32_t, MF__LOAD_REAL, NAN_INT)
DEFINE_EXTREMES(i64, int64_t, MF__LOAD_REAL, NAN_INT)
DEFINE_EXTREMES(u8, uint8_t, MF__LOAD_REAL, NAN_INT)
DEFINE_EXTREMES(f16, uint16_t, mf__half_to_float, NAN_REAL)
DEFINE_EXTREMES(bf16, uint16_t, mf__bf16_to_float, NAN_REAL)

static mf_status extreme(mf_device *d, int op, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y) {
#define EXTREME_CASE(code, name) \
    case code: \
        switch (op) { \
        case MF_REDUCE_max: return extreme_max_##name(d, outer, middle, inner, x, y); \
        case MF_REDUCE_min: return extreme_min_##name(d, outer, middle, inner, x, y); \
        case MF_REDUCE_argmax: return arg_max_##name(d, outer, middle, inner, x, y); \
        default: return arg_min_##name(d, outer, middle, inner, x, y); \
        }
    switch (dtype) {
    EXTREME_CASE(MF_FLOAT32, f32)
    EXTREME_CASE(MF_FLOAT64, f64)
    EXTREME_CASE(MF_INT32, i32)
    EXTREME_CASE(MF_INT64, i64)
    EXTREME_CASE(MF_BOOL, u8)
    EXTREME_CASE(MF_FLOAT16, f16)
    EXTREME_CASE(MF_BFLOAT16, bf16)
    default: return mf__fail(MF_ESUPPORT, "reduce: no kernel for %s", mf_dtype_name(dtype));
    }
#undef EXTREME_CASE
}

mf_status mf__cpu_reduce(mf_device *d, int op, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y) {
    if (outer == 0 || inner == 0) return MF_OK;
    if (op == MF_REDUCE_sum && middle == 0) {
        memset(y, 0, (size_t)(outer * inner * mf_dtype_bytes(mf__is_float(dtype) ? dtype : MF_INT64)));
        return MF_OK;
    }
    if (op == MF_REDUCE_sum) return sum(d, dtype, outer, middle, inner, x, y, 1);
    if (op == MF_REDUCE_mean) return sum(d, dtype, outer, middle, inner, x, y, 1 / (double)middle);
    if (middle == 0) return mf__fail(MF_ESHAPE, "reduce: an empty axis has no largest or smallest element");
    return extreme(d, op, dtype, outer, middle, inner, x, y);
}

/* cumsum_<name> for f32, f64, i32, i64. float runs in double: the error of a running sum grows with its length. Every
 * ROW_CHUNK elements begin a sum of their own on top of those before, so that it grows with n / ROW_CHUNK + ROW_CHUNK instead of n. */
#define DEFINE_CUMSUM(name, T, A) \
    static void cumsum_##name(mf_device *d, int64_t outer, int64_t middle, int64_t inner, const T *x, T *y, int reverse) { \
        const pieces c = cut(outer, middle, inner, 1); \
        _Pragma("omp parallel for num_threads(mf__threads(d, outer * middle, inner)) schedule(static)") \
        for (int64_t item = 0; item < c.count; item++) { \
            const piece p = piece_of(&c, middle, inner, item); \
            const int64_t base = p.outer * middle * inner + p.from; \
            A before[MF__COLUMNS] = {0}, total[MF__COLUMNS] = {0}; \
            for (int64_t i = 0; i < middle; i++) { \
                const int64_t at = base + (reverse ? middle - 1 - i : i) * inner; \
                for (int64_t j = 0; i % ROW_CHUNK == 0 && j < p.width; j++) { \
                    before[j] += total[j]; \
                    total[j] = 0; \
                } \
                for (int64_t j = 0; j < p.width; j++) { \
                    total[j] += (A)x[at + j]; \
                    y[at + j] = (T)(before[j] + total[j]); \
                } \
            } \
        } \
    }
DEFINE_CUMSUM(f32, float, double)
DEFINE_CUMSUM(f64, double, double)
DEFINE_CUMSUM(i32, int32_t, uint32_t)
DEFINE_CUMSUM(i64, int64_t, uint64_t)

mf_status mf__cpu_cumsum(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, const void *x, void *y, int reverse) {
    if (outer == 0 || inner == 0 || middle == 0) return MF_OK;
    switch (dtype) {
    case MF_FLOAT32: cumsum_f32(d, outer, middle, inner, x, y, reverse); return MF_OK;
    case MF_FLOAT64: cumsum_f64(d, outer, middle, inner, x, y, reverse); return MF_OK;
    case MF_INT32: cumsum_i32(d, outer, middle, inner, x, y, reverse); return MF_OK;
    case MF_INT64: cumsum_i64(d, outer, middle, inner, x, y, reverse); return MF_OK;
    default: return mf__fail(MF_ESUPPORT, "cumsum: no kernel for %s", mf_dtype_name(dtype));
    }
}

/* segments_<name>: one sum per sequence; the types of the results are those of reduce. */
#define DEFINE_SEGMENTS(name, T, A, LOAD) \
    static void segments_##name(mf_device *d, const mf_packing *packing, int64_t inner, const T *x, A *y) { \
        const int64_t blocks = ceil_div(inner, MF__COLUMNS); \
        _Pragma("omp parallel for num_threads(mf__threads(d, packing->total, inner)) schedule(dynamic)") \
        for (int64_t item = 0; item < packing->count * blocks; item++) { \
            const int64_t s = item / blocks, from = item % blocks * MF__COLUMNS, first = packing->offsets[s]; \
            const int64_t rows = packing->offsets[s + 1] - first; \
            rows_##name(x + first * inner + from, rows, inner, smaller(inner - from, MF__COLUMNS), y + s * inner + from); \
        } \
    }
MF__SUM_LIST(DEFINE_SEGMENTS)

mf_status mf__cpu_segment_sum(mf_device *d, int dtype, const mf_packing *packing, int64_t inner, const void *x, void *y) {
    const int64_t n = packing->count * inner;
    if (n == 0) return MF_OK;
    switch (dtype) {
    case MF_FLOAT32: segments_f32(d, packing, inner, x, y); return MF_OK;
    case MF_FLOAT64: segments_f64(d, packing, inner, x, y); return MF_OK;
    case MF_INT32: segments_i32(d, packing, inner, x, y); return MF_OK;
    case MF_INT64: segments_i64(d, packing, inner, x, y); return MF_OK;
    case MF_BOOL: segments_u8(d, packing, inner, x, y); return MF_OK;
    default: break;
    }
    float *wide = mf__host_alloc(d->ctx, (size_t)n * sizeof *wide);
    if (!wide) return MF_ENOMEM;
    if (dtype == MF_FLOAT16) segments_f16(d, packing, inner, x, wide);
    else segments_bf16(d, packing, inner, x, wide);
    store_halves(dtype, n, wide, y);
    free(wide);
    return MF_OK;
}

mf_status mf__cpu_segment_expand(mf_device *d, int64_t row_bytes, const mf_packing *packing, const void *x, void *y) {
    if (packing->total == 0 || row_bytes == 0) return MF_OK;
    /* by residue, not by sequence: one long sequence should keep every thread busy too */
    const int64_t chunks = ceil_div(packing->total, ROW_CHUNK);
    #pragma omp parallel for num_threads(mf__threads(d, packing->total, row_bytes / 8 + 1)) schedule(static)
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const int64_t first = chunk * ROW_CHUNK, end = smaller(first + ROW_CHUNK, packing->total);
        int64_t s = mf__sequence_at(packing, first);
        for (int64_t i = first; i < end; i++) {
            while (packing->offsets[s + 1] <= i) s++;
            memcpy((char *)y + i * row_bytes, (const char *)x + s * row_bytes, (size_t)row_bytes);
        }
    }
    return MF_OK;
}
