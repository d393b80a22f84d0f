/* mmcif.h: the rows of an mmCIF or BinaryCIF file, a chain at a time or all together. */
#ifndef MF_IO_MMCIF_H
#define MF_IO_MMCIF_H
#include "source.h"
#include "structure.h"

typedef struct mf__mmcif mf__mmcif;
/* The source stays the caller's, and open. */
mf_status mf__mmcif_open(mf__mmcif **out, mf__source *source);
/* Appends the rows of the next run of one model and label_asym_id, or with `whole` all that are left of the first block with
 * atoms; *got of them, 0 at the end. `rows` may be another at each call. What was read so far of the header (id, title, method,
 * date, resolution) is put into rows->s; polymers and parents are appended to the `rows` of the call that met them. */
mf_status mf__mmcif_rows(int64_t *got, mf__mmcif *m, mf__rows *rows, int whole);
void mf__mmcif_close(mf__mmcif *m);
#endif
