/* index.c: selecting and adding by index, along an axis (index_select, index_add) or element by element (gather,
 * scatter_add). x is (outer, size, inner).
 *
 *     index_select   y[o, j, i] = x[o, index[j], i]             index_add     y[o, index[j], i] += s[o, j, i]
 *     gather         y[o, j, i] = x[o, index[o, j, i], i]       scatter_add   y[o, index[o, j, i], i] += s[o, j, i]
 *
 * Every index is checked before anything is written. Additions are deterministic: the elements of y are divided among
 * threads, never those of s, and each is added to in the order of j. When neither outer nor inner has enough to
 * divide, each thread reads all of the index and takes what falls into its part of the axis. */
#include "cpu.h"
#include <string.h>

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* check_<type>: the first index outside 0..size-1 fails. */
#define DEFINE_CHECK(name, T) \
    static mf_status check_##name(mf_device *d, const char *op, int64_t size, int64_t n, const T *index) { \
        int64_t bad = n; \
        _Pragma("omp parallel for num_threads(mf__threads(d, n, 1)) schedule(static) reduction(min : bad)") \
        for (int64_t i = 0; i < n; i++) \
            if (index[i] < 0 || index[i] >= size) bad = smaller(bad, i); \
        if (bad == n) return MF_OK; \
        return mf__fail(MF_EVALUE, "%s: index %lld (entry %lld of the index tensor) must be at least 0 and below %lld, the size of the axis", \
                        op, (long long)index[bad], (long long)bad + 1, (long long)size); \
    }
DEFINE_CHECK(i32, int32_t)
DEFINE_CHECK(i64, int64_t)

static mf_status check(mf_device *d, const char *op, int64_t size, int64_t n, int dtype, const void *index) {
    if (dtype == MF_INT32) return check_i32(d, op, size, n, index);
    if (dtype == MF_INT64) return check_i64(d, op, size, n, index);
    return mf__fail(MF_ESUPPORT, "%s: an index is int32 or int64, not %s", op, mf_dtype_name(dtype));
}

static inline int64_t at(int dtype, const void *index, int64_t i) {
    return dtype == MF_INT32 ? ((const int32_t *)index)[i] : ((const int64_t *)index)[i];
}

mf_status mf__cpu_index_select(mf_device *d, int64_t element_bytes, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype,
                               const void *index, const void *x, void *y) {
    MF_TRY(check(d, "index_select", size, m, index_dtype, index));
    const int64_t bytes = inner * element_bytes;
    if (bytes == 0) return MF_OK;
    #pragma omp parallel for num_threads(mf__threads(d, outer * m, bytes / 8 + 1)) schedule(static)
    for (int64_t row = 0; row < outer * m; row++) {
        const char *from = (const char *)x + (row / m * size + at(index_dtype, index, row % m)) * bytes;
        char *to = (char *)y + row * bytes;
        /* fixed sizes become single moves */
        if (bytes == 4) memcpy(to, from, 4);
        else if (bytes == 8) memcpy(to, from, 8);
        else memcpy(to, from, (size_t)bytes);
    }
    return MF_OK;
}

mf_status mf__cpu_gather(mf_device *d, int64_t element_bytes, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype,
                         const void *index, const void *x, void *y) {
    const int64_t n = outer * m * inner;
    MF_TRY(check(d, "gather", size, n, index_dtype, index));
    #pragma omp parallel for num_threads(mf__threads(d, outer * m, inner)) schedule(static)
    for (int64_t row = 0; row < outer * m; row++) {
        const char *from = (const char *)x + row / m * size * inner * element_bytes;
        char *to = (char *)y + row * inner * element_bytes;
        for (int64_t i = 0; i < inner; i++) {
            const char *element = from + (at(index_dtype, index, row * inner + i) * inner + i) * element_bytes;
            switch (element_bytes) {
            case 1: memcpy(to + i, element, 1); break;
            case 2: memcpy(to + 2 * i, element, 2); break;
            case 4: memcpy(to + 4 * i, element, 4); break;
            default: memcpy(to + 8 * i, element, 8); break;
            }
        }
    }
    return MF_OK;
}

/* How the elements of y are divided: `parts` pieces along outer, columns or the axis itself. */
typedef struct division { int64_t outer, columns, sizes; } division;

static division divide(int threads, int64_t outer, int64_t size, int64_t inner) {
    division v = {1, 1, 1};
    if (outer >= threads) v.outer = threads;
    else if (inner >= (int64_t)threads * 32) v.columns = threads;
    else v.sizes = smaller(threads, size);
    return v;
}

typedef struct range { int64_t first, end; } range;
static inline range part(int64_t n, int64_t parts, int64_t i) {
    return (range){n * i / parts, n * (i + 1) / parts};
}

/* add_<name> for f32, f64, i32, i64: index_add (each = 0) and scatter_add (each = 1). Integers wrap. */
#define DEFINE_ADD(name, T, U) \
    static void add_##name(mf_device *d, int each, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, \
                           const void *index, const T *s, T *y) { \
        const int threads = mf__threads(d, outer * m, inner); \
        const division v = divide(threads, outer, size, inner); \
        const int64_t parts = v.outer * v.columns * v.sizes; \
        _Pragma("omp parallel for num_threads(threads) schedule(static)") \
        for (int64_t p = 0; p < parts; p++) { \
            const range lines = part(outer, v.outer, v.outer > 1 ? p : 0), columns = part(inner, v.columns, v.columns > 1 ? p : 0); \
            const range places = part(size, v.sizes, v.sizes > 1 ? p : 0); \
            for (int64_t row = lines.first * m; row < lines.end * m; row++) { \
                const T *from = s + row * inner; \
                T *base = y + row / m * size * inner; \
                if (each) { \
                    for (int64_t i = columns.first; i < columns.end; i++) { \
                        const int64_t k = at(index_dtype, index, row * inner + i); \
                        if (k < places.first || k >= places.end) continue; \
                        base[k * inner + i] = (T)((U)base[k * inner + i] + (U)from[i]); \
                    } \
                } else { \
                    const int64_t k = at(index_dtype, index, row % m); \
                    if (k < places.first || k >= places.end) continue; \
                    T *to = base + k * inner; \
                    for (int64_t i = columns.first; i < columns.end; i++) to[i] = (T)((U)to[i] + (U)from[i]); \
                } \
            } \
        } \
    }
DEFINE_ADD(f32, float, float)
DEFINE_ADD(f64, double, double)
DEFINE_ADD(i32, int32_t, uint32_t)
DEFINE_ADD(i64, int64_t, uint64_t)

static mf_status add(mf_device *d, const char *op, int each, int dtype, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype,
                     const void *index, const void *source, void *y) {
    MF_TRY(check(d, op, size, each ? outer * m * inner : m, index_dtype, index));
    if (outer * m * inner == 0) return MF_OK;
    switch (dtype) {
    case MF_FLOAT32: add_f32(d, each, outer, size, inner, m, index_dtype, index, source, y); return MF_OK;
    case MF_FLOAT64: add_f64(d, each, outer, size, inner, m, index_dtype, index, source, y); return MF_OK;
    case MF_INT32: add_i32(d, each, outer, size, inner, m, index_dtype, index, source, y); return MF_OK;
    case MF_INT64: add_i64(d, each, outer, size, inner, m, index_dtype, index, source, y); return MF_OK;
    default: return mf__fail(MF_ESUPPORT, "%s: no kernel for %s", op, mf_dtype_name(dtype));
    }
}

mf_status mf__cpu_index_add(mf_device *d, int dtype, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index,
                            const void *source, void *y) {
    return add(d, "index_add", 0, dtype, outer, size, inner, m, index_dtype, index, source, y);
}

mf_status mf__cpu_scatter_add(mf_device *d, int dtype, int64_t outer, int64_t size, int64_t inner, int64_t m, int index_dtype, const void *index,
                              const void *source, void *y) {
    return add(d, "scatter_add", 1, dtype, outer, size, inner, m, index_dtype, index, source, y);
}
