/* cif.h: CIF pulled from a source, one event at a time: text (CIF 1.1) or BinaryCIF, told apart by the first byte.
 *
 *     block  table row row ... table row ...  frame  table row ...  frame end  block ...  end
 *
 * A loop is a table; so are consecutive tags and values of one category, with one row. A reader may stop between any two
 * events and go on later: the text is never held, only a window of it. */
#ifndef MF_IO_CIF_H
#define MF_IO_CIF_H
#include "source.h"

typedef struct mf__cif mf__cif;
typedef struct mf__span { char *at; int64_t bytes; } mf__span;

enum { MF__CIF_BLOCK, MF__CIF_FRAME, MF__CIF_FRAME_END, MF__CIF_TABLE, MF__CIF_ROW, MF__CIF_END };
enum { MF__CIF_ABSENT = MF_CIF_UNKNOWN + 1 };    /* kind of a cell that no column was chosen for */

/* What pointers lead to stands until the next event. */
typedef struct mf__cif_event {
    int kind;
    int loop;                  /* table: given as a loop, not as tags and values */
    int64_t line;              /* where it begins; BinaryCIF: 0, of a row its number from 1 */
    mf__span name;             /* block, frame: without data_ or save_ */
    const mf__span *tags;      /* table: such as _atom_site.id, as the file writes them */
    int64_t columns;
    const mf_cif_cell *cells;  /* row: of each column, or of each slot that was chosen */
} mf__cif_event;

/* The source stays the caller's, and open. `what` begins error texts: "cif.read". */
mf_status mf__cif_open(mf__cif **out, mf__source *source, const char *what);
mf_status mf__cif_next(mf__cif_event *event, mf__cif *cif);
/* After a table: column c of its rows is to come as cell slots[c] < count, or not at all where that is negative. Slots
 * without a column are MF__CIF_ABSENT. With a count of 0 the rows are passed over and not seen. */
mf_status mf__cif_choose(mf__cif *cif, const int *slots, int count);
void mf__cif_close(mf__cif *cif);
/* A map of MessagePack begins BinaryCIF; no text begins with such a byte. */
static inline int mf__cif_is_binary(const char *data) {
    const unsigned char first = (unsigned char)*data;
    return (first & 0xf0) == 0x80 || first == 0xde || first == 0xdf;
}

/* The line of a cell of the row that came last (BinaryCIF: the number of the row). */
int64_t mf__cif_line(const mf__cif *cif, const mf_cif_cell *cell);
mf_status mf__cif_fail(const mf__cif *cif, int64_t line, const char *message);    /* MF_EFORMAT, with path and line */
const char *mf__cif_place(const mf__cif *cif);                                    /* "line" or "row" */

/* The value in another form. 1 when it has one, else 0; `room` has space for 32 characters. */
int mf__cell_int(int *out, const mf_cif_cell *cell);
int mf__cell_real(double *out, const mf_cif_cell *cell);
mf__span mf__cell_text(const mf_cif_cell *cell, char *room);                      /* 0 bytes where it is absent, . or ? */
static inline int mf__cell_has(const mf_cif_cell *cell) { return cell->kind < MF_CIF_INAPPLICABLE; }
/* Whether a tag is `name`, whatever the case. */
int mf__tag_is(const mf__span *tag, const char *name);
#endif
