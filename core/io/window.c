/* window.c: the buffer between a source and a tokenizer. */
#include "window.h"
#include <stdlib.h>
#include <string.h>

/* A build with -DMF_WINDOW_BYTES=32 has every token fall on the window's end. */
#ifndef MF_WINDOW_BYTES
#define MF_WINDOW_BYTES (1 << 17)
#endif
enum { FIRST = MF_WINDOW_BYTES, SLACK = 16 };

static void mark_end(mf__window *w) { memset(w->end, 0, SLACK); }

mf_status mf__window_open(mf__window *w, mf__source *source, int64_t bound) {
    *w = (mf__window){.source = source, .capacity = FIRST, .bound = bound};
    w->begin = w->end = malloc(FIRST + SLACK);
    if (!w->begin) return mf__fail(MF_ENOMEM, "file.read: '%s': no memory", mf__source_name(source));
    mark_end(w);
    return MF_OK;
}

/* Text is moved only when the buffer is full, and by half of it at least: in all it is moved once. */
mf_status mf__window_more(mf__window *w, const char *keep, int64_t *moved, const char *what, int64_t line) {
    *moved = 0;
    if (w->end == w->begin + w->capacity) {
        int64_t kept = w->end - keep, before = keep - w->begin;
        if (kept <= w->capacity / 2) {
            memmove(w->begin, keep, (size_t)kept);
            *moved = -before;
        } else {
            if (kept >= w->bound)
                return mf__fail(MF_EFORMAT, "%s: '%s': line %lld: a value, row or loop header of more than %lld bytes", what,
                                mf__source_name(w->source), (long long)line, (long long)w->bound);
            int64_t wanted = w->capacity < w->bound / 2 ? 2 * w->capacity : w->bound;
            if (wanted < w->capacity) wanted = w->capacity;
            char *grown = malloc((size_t)wanted + SLACK);
            if (!grown)
                return mf__fail(MF_ENOMEM, "%s: '%s': no memory for %lld bytes", what, mf__source_name(w->source), (long long)wanted);
            memcpy(grown, keep, (size_t)kept);
            *moved = (int64_t)((intptr_t)grown - (intptr_t)keep);
            free(w->begin);
            w->begin = grown;
            w->capacity = wanted;
        }
        w->end = w->begin + kept;
        mark_end(w);
    }
    int64_t got;
    MF_TRY(mf__source_read(&got, w->source, w->end, w->begin + w->capacity - w->end));
    w->end += got;
    mark_end(w);
    w->last = got == 0;
    return MF_OK;
}

void mf__window_close(mf__window *w) { free(w->begin); }
