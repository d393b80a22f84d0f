/* pdb.h: the rows of a PDB file, a chain at a time or all together. */
#ifndef MF_IO_PDB_H
#define MF_IO_PDB_H
#include "source.h"
#include "structure.h"

typedef struct mf__pdb mf__pdb;
/* The source stays the caller's, and open. */
mf_status mf__pdb_open(mf__pdb **out, mf__source *source);
/* Appends the rows of the next run of one model and chain id, up to a TER, or with `whole` all that are left; *got of them, 0 at the end.
 * What the header says is in rows->s, and in the facts of `rows`, from the first call on. */
mf_status mf__pdb_rows(int64_t *got, mf__pdb *r, mf__rows *rows, int whole);
void mf__pdb_close(mf__pdb *r);

/* pdb_header.c: records that say nothing about atoms. Columns first..last of the line are at[first]..at[last], padded with blanks. */
typedef struct mf__pdb_header mf__pdb_header;
mf_status mf__pdb_header_open(mf__pdb_header **out);
mf_status mf__pdb_header_record(mf__pdb_header *h, mf__rows *rows, const char *at);
mf_status mf__pdb_header_end(mf__pdb_header *h, mf__rows *rows);    /* texts and entities go to rows->s */
void mf__pdb_header_close(mf__pdb_header *h);
/* Columns first..last without the blanks around them. */
const char *mf__pdb_field(const char *at, int first, int last, int64_t *bytes);
#endif
