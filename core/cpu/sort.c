/* sort.c: the first k of the stable order along the middle axis of (outer, middle, inner).
 *
 * Elements become unsigned keys whose order is the wanted one, so that one merge sort serves every type and both
 * directions:
 *     integers   flip the sign bit              floats   flip all bits of negatives, the sign bit of others
 *     -0 is made +0 first: they are equal       descending: complement       NaN: the largest key, last in both
 * Equal keys keep the order of their indices. All of a line is merge sorted; when k is small, a heap of the k best
 * passes over the line once instead, middle log k. */
#include "cpu.h"
#include "vector.h"
#include <omp.h>
#include <stdlib.h>

typedef struct item { uint64_t key; int64_t index; } item;

static inline int before(item a, item b) { return a.key < b.key || (a.key == b.key && a.index < b.index); }

static inline uint64_t ordered(uint64_t bits, int descending) {
    const uint64_t sign = (uint64_t)1 << 63, key = bits & sign ? ~bits : bits | sign;
    return descending ? ~key : key;
}

/* load_<name>: the keys of a strided line. float goes through double: exact, and order is kept. */
#define DEFINE_LOAD_FLOAT(name, T) \
    static void load_##name(const T *x, int64_t n, int64_t stride, int descending, item *items) { \
        for (int64_t i = 0; i < n; i++) { \
            const double v = (double)x[i * stride]; \
            items[i] = (item){v != v ? UINT64_MAX : ordered(mf__double_bits(v + 0.0), descending), i}; \
        } \
    }
#define DEFINE_LOAD_INT(name, T) \
    static void load_##name(const T *x, int64_t n, int64_t stride, int descending, item *items) { \
        for (int64_t i = 0; i < n; i++) { \
            const uint64_t key = (uint64_t)(int64_t)x[i * stride] ^ (uint64_t)1 << 63; \
            items[i] = (item){descending ? ~key : key, i}; \
        } \
    }
DEFINE_LOAD_FLOAT(f32, float)
DEFINE_LOAD_FLOAT(f64, double)
DEFINE_LOAD_INT(i32, int32_t)
DEFINE_LOAD_INT(i64, int64_t)

static void load(int dtype, const void *x, int64_t first, int64_t n, int64_t stride, int descending, item *items) {
    switch (dtype) {
    case MF_FLOAT32: load_f32((const float *)x + first, n, stride, descending, items); break;
    case MF_FLOAT64: load_f64((const double *)x + first, n, stride, descending, items); break;
    case MF_INT32: load_i32((const int32_t *)x + first, n, stride, descending, items); break;
    default: load_i64((const int64_t *)x + first, n, stride, descending, items); break;
    }
}

enum { RUN = 16 };                /* sorted by insertion before merging */

/* Sorts items; `other` has the same length. Returns which of the two holds the result. */
static item *merge_sort(item *items, item *other, int64_t n) {
    for (int64_t first = 0; first < n; first += RUN) {
        const int64_t end = first + RUN < n ? first + RUN : n;
        for (int64_t i = first + 1; i < end; i++) {
            const item v = items[i];
            int64_t j = i;
            for (; j > first && before(v, items[j - 1]); j--) items[j] = items[j - 1];
            items[j] = v;
        }
    }
    for (int64_t width = RUN; width < n; width *= 2) {
        for (int64_t first = 0; first < n; first += 2 * width) {
            const int64_t middle = first + width < n ? first + width : n, end = middle + width < n ? middle + width : n;
            int64_t a = first, b = middle;
            for (int64_t to = first; to < end; to++) {
                if (b >= end || (a < middle && before(items[a], items[b]))) other[to] = items[a++];
                else other[to] = items[b++];
            }
        }
        item *swap = items;
        items = other;
        other = swap;
    }
    return items;
}

/* Restores the heap (the last in order on top) below `i`. */
static void sink(item *heap, int64_t n, int64_t i) {
    const item v = heap[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child], heap[child + 1])) child++;
        if (!before(v, heap[child])) break;
        heap[i] = heap[child];
    }
    heap[i] = v;
}

/* Brings the first k of the order to the front, in order. */
static void select_first(item *items, int64_t n, int64_t k) {
    for (int64_t i = k / 2 - 1; i >= 0; i--) sink(items, k, i);
    for (int64_t i = k; i < n; i++) {
        if (!before(items[i], items[0])) continue;
        items[0] = items[i];
        sink(items, k, 0);
    }
    for (int64_t last = k - 1; last > 0; last--) {
        const item v = items[0];
        items[0] = items[last];
        items[last] = v;
        sink(items, last, 0);
    }
}

mf_status mf__cpu_sort(mf_device *d, int dtype, int64_t outer, int64_t middle, int64_t inner, int64_t k, const void *x, void *values, int32_t *index,
                       int descending) {
    if (!mf__is_real(dtype) && !mf__is_index(dtype)) return mf__fail(MF_ESUPPORT, "sort: no kernel for %s", mf_dtype_name(dtype));
    if (outer == 0 || inner == 0 || k == 0) return MF_OK;
    const int partial = k <= middle / 8;
    const int threads = mf__threads(d, outer * middle * inner, 16);
    const int64_t room = partial ? middle : 2 * middle, bytes = mf_dtype_bytes(dtype);
    item *all = mf__host_alloc(d->ctx, (size_t)(threads * room) * sizeof *all);
    if (!all) return MF_ENOMEM;

    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < outer * inner; line++) {
        const int64_t first = line / inner * middle * inner + line % inner, out = line / inner * k * inner + line % inner;
        item *items = all + omp_get_thread_num() * room;
        load(dtype, x, first, middle, inner, descending, items);
        if (partial) select_first(items, middle, k);
        else items = merge_sort(items, items + middle, middle);
        for (int64_t j = 0; j < k; j++) {
            const char *from = (const char *)x + (first + items[j].index * inner) * bytes;
            memcpy((char *)values + (out + j * inner) * bytes, from, (size_t)bytes);
            index[out + j * inner] = (int32_t)items[j].index;
        }
    }
    free(all);
    return MF_OK;
}
