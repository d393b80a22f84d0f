/* pool.c: the CPU's memory.
 *
 * Every operator writes to fresh memory. malloc gives large blocks back to the kernel when they are freed, and the next
 * one is handed out page by page as it is touched: in a layer of 256 residues that took longer than the copies it was
 * for. So blocks of 16 KiB and more are kept when they are freed, by size class (eight to a power of two, so at most an
 * eighth is wasted), up to CACHE_BYTES in all, and given out again, the last freed first: it may still be in cache.
 *
 *   class of n bytes    0 .. 7      16, 18, 20 .. 30 KiB
 *                       8 .. 15     32, 36, 40 .. 60 KiB      and so on
 *
 * A block in the pool holds the pointer to the next one in its first bytes. Under a sanitizer nothing is kept, so that
 * a use after free is seen. When the system has no memory left the pool is emptied and it is asked once more. */
#include "pool.h"
#include <stdlib.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, LARGE = 4 << 20, PAGE = 2 << 20, LEAST_LOG2 = 14, CLASSES = 8 * (48 - LEAST_LOG2) };
#ifndef __has_feature
#define __has_feature(name) 0     /* clang's way of telling; gcc has a macro */
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
static const int64_t CACHE_BYTES = 0;
#else
static const int64_t CACHE_BYTES = (int64_t)1 << 30;
#endif

typedef struct block { struct block *next; } block;
typedef struct pool {
    block *free[CLASSES];
    int64_t cached;
} pool;

/* The class of a size and the bytes that its blocks have; -1 for what is not pooled. */
static int class_of(int64_t *rounded, int64_t bytes) {
    *rounded = bytes;
    if (bytes < (int64_t)1 << LEAST_LOG2) return -1;
    int log2 = 63 - __builtin_clzll((unsigned long long)bytes);
    const int64_t step = (int64_t)1 << (log2 - 3);
    int64_t eighths = (bytes + step - 1) / step;      /* 8 .. 16 */
    if (eighths == 16) {
        log2++;
        eighths = 8;
    }
    const int class = 8 * (log2 - LEAST_LOG2) + (int)eighths - 8;
    if (class >= CLASSES) return -1;
    *rounded = eighths << (log2 - 3);
    return class;
}

static void empty(pool *p) {
    for (int i = 0; i < CLASSES; i++)
        while (p->free[i]) {
            block *b = p->free[i];
            p->free[i] = b->next;
            free(b);
        }
    p->cached = 0;
}

mf_status mf__pool_open(mf_device *d) {
    d->state = calloc(1, sizeof(pool));
    return d->state ? MF_OK : mf__fail(MF_ENOMEM, "cpu: out of memory");
}

void mf__pool_close(mf_device *d) {
    empty(d->state);
    free(d->state);
}

mf_status mf__pool_alloc(mf_device *d, void **data, int64_t bytes) {
    *data = NULL;
    if (bytes == 0) return MF_OK;
    pool *p = d->state;
    int64_t rounded;
    const int class = class_of(&rounded, bytes);
    if (class >= 0 && p->free[class]) {
        block *b = p->free[class];
        p->free[class] = b->next;
        p->cached -= rounded;
        *data = b;
        return MF_OK;
    }
    /* large blocks ask for pages of 2 MiB instead of 4 KiB */
    const size_t alignment = rounded >= LARGE ? PAGE : ALIGNMENT;
    if (posix_memalign(data, alignment, (size_t)rounded) != 0) {
        empty(p);
        if (posix_memalign(data, alignment, (size_t)rounded) != 0) {
            *data = NULL;
            return mf__fail(MF_ENOMEM, "cpu: %lld bytes could not be allocated", (long long)bytes);
        }
    }
    if (alignment == PAGE) madvise(*data, (size_t)rounded & ~((size_t)PAGE - 1), MADV_HUGEPAGE);
    return MF_OK;
}

void mf__pool_free(mf_device *d, void *data, int64_t bytes) {
    pool *p = d->state;
    int64_t rounded;
    const int class = class_of(&rounded, bytes);
    if (!data) return;
    if (class < 0 || p->cached + rounded > CACHE_BYTES) {
        free(data);
        return;
    }
    block *b = data;
    b->next = p->free[class];
    p->free[class] = b;
    p->cached += rounded;
}
