/* source.h: bytes as they come: of a file, of a part of one, or of memory; gzip is inflated on the way. */
#ifndef MF_IO_SOURCE_H
#define MF_IO_SOURCE_H
#include "../base/error.h"

typedef struct mf__source mf__source;
/* `bytes` of the file from `offset` on, -1 for all that follow: a member of a tar archive is such a part. Gzip is told by
 * its magic bytes; its members follow one another as one text. More than `limit` bytes to be given is MF_EFORMAT. */
mf_status mf__source_open(mf__source **out, const char *path, int64_t offset, int64_t bytes, int64_t limit);
/* The same of memory, which must stay as long as the source; `name` stands in errors. */
mf_status mf__source_memory(mf__source **out, const void *data, int64_t bytes, const char *name, int64_t limit);
/* *got is at most `room` (> 0), and 0 at the end alone. After a failure the source can only be closed. */
mf_status mf__source_read(int64_t *got, mf__source *s, void *data, int64_t room);
/* The first bytes of the text, `wanted` at most, which will be read all the same. Before any read or skip, once. */
mf_status mf__source_peek(const char **at, int64_t *bytes, mf__source *s, int64_t wanted);
/* Passes over `bytes`: by seeking where that is possible. Fewer that are left are no error: the next read says so. */
mf_status mf__source_skip(mf__source *s, int64_t bytes);
const char *mf__source_name(const mf__source *s);
int64_t mf__source_limit(const mf__source *s);
int mf__source_compressed(const mf__source *s);
int64_t mf__source_expected(const mf__source *s);   /* how many bytes will come, a guess where it is gzip or a pipe */
/* Everything that is left, with a zero after it; free it. */
mf_status mf__source_whole(char **text, int64_t *bytes, mf__source *s);
void mf__source_close(mf__source *s);               /* NULL is legal */
#endif
