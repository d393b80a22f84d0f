/* bcif.h: BinaryCIF as events of cif.h. */
#ifndef MF_IO_BCIF_H
#define MF_IO_BCIF_H
#include "cif.h"

typedef struct mf__bcif mf__bcif;
/* `data` must stay. What one table decodes to is bounded by `limit` bytes. */
mf_status mf__bcif_open(mf__bcif **out, const char *data, int64_t bytes, const char *name, int64_t limit, const char *what);
mf_status mf__bcif_next(mf__cif_event *event, mf__bcif *b);
mf_status mf__bcif_choose(mf__bcif *b, const int *slots, int count);
int64_t mf__bcif_row(const mf__bcif *b);
void mf__bcif_close(mf__bcif *b);
#endif
