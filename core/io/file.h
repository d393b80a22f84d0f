/* file.h: writing a file so that it is either the old one or the whole new one. */
#ifndef MF_IO_FILE_H
#define MF_IO_FILE_H
#include "../base/error.h"

/* Bytes collect in a temporary file beside `path`, compressed when the name ends in .gz; commit syncs it and
 * renames it over `path`. A device or a pipe is written directly: there is nothing to replace. */
typedef struct mf__writer mf__writer;
mf_status mf__writer_open(mf__writer **out, const char *path);
/* After a failure further calls do nothing and return the first status: check where it is convenient. */
mf_status mf__writer_put(mf__writer *w, const void *data, int64_t bytes);
/* Bytes at a place of their own, in any order; what was put before goes first. Not where the name ends in .gz. */
mf_status mf__writer_place(mf__writer *w, int64_t offset, const void *data, int64_t bytes);
mf_status mf__writer_print(mf__writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
mf_status mf__writer_commit(mf__writer *w);    /* frees w, also on failure, when the temporary is removed */
void mf__writer_abandon(mf__writer *w);        /* frees w and removes the temporary; NULL is legal */
#endif
