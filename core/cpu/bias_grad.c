/* bias_grad.c: the way back through the bias and the activation of a linear layer, in one pass over dy.
 *
 *     dz = dy where y > 0, else 0      dbias_j = sum over i of dz_ij
 *
 * Rows are taken ROW_CHUNK at a time, so that what was just written is summed while it is in the cache; the chunks' sums are summed
 * pairwise (sum.h). The order depends on the sizes alone. */
#include <stdlib.h>
#include "cpu.h"
#include "sum.h"

enum { ROW_CHUNK = 512 };

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

#define POSITIVE_REAL(y) ((y) > 0)
#define POSITIVE_BITS(y) ((y) > 0 && (y) < 0x8000)            /* 16 bits without the sign; */
#define POSITIVE_HALF(y) (POSITIVE_BITS(y) && (y) <= 0x7c00)  /* NaN is not positive */
#define POSITIVE_BF16(y) (POSITIVE_BITS(y) && (y) <= 0x7f80)

/* One chunk of rows and MF__COLUMNS columns; `total` NULL when nobody asks for sums. */
#define CHUNK(name, T, A, POSITIVE)                                                                                  \
    static void chunk_##name(int64_t rows, int64_t columns, int64_t ld, int64_t width, const T *dy, const T *y, T *dz, A *total) { \
        if (y) {                                                                                                     \
            for (int64_t i = 0; i < rows; i++) {                                                                     \
                const T *from = dy + i * ld, *kept = y + i * columns;                                                \
                T *to = dz + i * columns;                                                                            \
                for (int64_t j = 0; j < width; j++) to[j] = POSITIVE(kept[j]) ? from[j] : 0;                         \
            }                                                                                                        \
        }                                                                                                            \
        if (total) mf__columns_##name(y ? dz : dy, rows, y ? columns : ld, width, total);                            \
    }
CHUNK(f32, float, float, POSITIVE_REAL)
CHUNK(f64, double, double, POSITIVE_REAL)
CHUNK(f16, uint16_t, float, POSITIVE_HALF)
CHUNK(bf16, uint16_t, float, POSITIVE_BF16)

static void chunk(int dtype, int64_t rows, int64_t columns, int64_t ld, int64_t width, const void *dy, const void *y, void *dz,
                  void *total) {
    switch (dtype) {
    case MF_FLOAT64: chunk_f64(rows, columns, ld, width, dy, y, dz, total); break;
    case MF_FLOAT16: chunk_f16(rows, columns, ld, width, dy, y, dz, total); break;
    case MF_BFLOAT16: chunk_bf16(rows, columns, ld, width, dy, y, dz, total); break;
    default: chunk_f32(rows, columns, ld, width, dy, y, dz, total);
    }
}

/* dbias from the sums of the chunks. */
static void finish(int dtype, int64_t chunks, int64_t columns, const void *parts, void *dbias) {
    for (int64_t from = 0; from < columns; from += MF__COLUMNS) {
        const int64_t width = smaller(columns - from, MF__COLUMNS);
        if (dtype == MF_FLOAT64) {
            mf__columns_f64((const double *)parts + from, chunks, columns, width, (double *)dbias + from);
            continue;
        }
        float total[MF__COLUMNS];
        mf__columns_f32((const float *)parts + from, chunks, columns, width, total);
        for (int64_t j = 0; j < width; j++) {
            if (dtype == MF_FLOAT32) ((float *)dbias)[from + j] = total[j];
            else ((uint16_t *)dbias)[from + j] = dtype == MF_FLOAT16 ? mf__float_to_half(total[j]) : mf__float_to_bf16(total[j]);
        }
    }
}

mf_status mf__cpu_bias_grad(mf_device *d, int dtype, int64_t rows, int64_t columns, int64_t ld, const void *dy, const void *y, void *dz,
                            void *dbias) {
    if (!y && !dbias) return MF_OK;
    const int64_t bytes = mf_dtype_bytes(dtype), wide = dtype == MF_FLOAT64 ? 8 : 4;
    const int64_t chunks = (rows + ROW_CHUNK - 1) / ROW_CHUNK, blocks = (columns + MF__COLUMNS - 1) / MF__COLUMNS;
    char *parts = NULL;
    if (dbias) {
        parts = mf__host_alloc(d->ctx, (size_t)(chunks * columns * wide));
        if (!parts) return MF_ENOMEM;
    }
#pragma omp parallel for num_threads(mf__threads(d, rows, columns)) schedule(static)
    for (int64_t item = 0; item < chunks * blocks; item++) {
        const int64_t c = item / blocks, row = c * ROW_CHUNK, from = item % blocks * MF__COLUMNS;
        const int64_t at = (row * columns + from) * bytes;
        chunk(dtype, smaller(rows - row, ROW_CHUNK), columns, ld, smaller(columns - from, MF__COLUMNS), (const char *)dy + (row * ld + from) * bytes, y ? (const char *)y + at : NULL,
              y ? (char *)dz + at : NULL, parts ? parts + (c * columns + from) * wide : NULL);
    }
    if (dbias) finish(dtype, chunks, columns, parts, dbias);
    free(parts);
    return MF_OK;
}
