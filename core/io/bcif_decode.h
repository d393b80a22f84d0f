/* bcif_decode.h: the columns of BinaryCIF. */
#ifndef MF_IO_BCIF_DECODE_H
#define MF_IO_BCIF_DECODE_H
#include "msgpack.h"

typedef struct mf__bcif_column {
    int kind;                    /* MF_CIF_INTEGER, MF_CIF_REAL, MF_CIF_TEXT */
    int64_t count;
    int64_t *whole;              /* TEXT: which string, -1: the empty one */
    double *real;
    int64_t *offset;             /* TEXT: of each string in `strings`, and of the end of the last */
    const char *strings;
    int64_t n_strings;
    int64_t *mask;               /* NULL: all present; 1: '.', 2: '?' */
} mf__bcif_column;

/* The column whose data (and mask, where that is not NULL) begin at these places of `p`, as `rows` values. What is allocated
 * is taken from *budget bytes. *out is to be freed also after a failure. `where` is its tag, for errors. */
mf_status mf__bcif_decode(mf__bcif_column *out, const mf__msgpack *p, const char *data, const char *mask, int64_t rows, int64_t *budget,
                          const char *where);
void mf__bcif_column_free(mf__bcif_column *column);
#endif
