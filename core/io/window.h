/* window.h: a stretch of a source's text that moves along it and grows when what has to stay whole is longer. */
#ifndef MF_IO_WINDOW_H
#define MF_IO_WINDOW_H
#include "source.h"

typedef struct mf__window {
    mf__source *source;      /* borrowed */
    char *begin, *end;       /* the text; *end is 0, and so are the 15 bytes after it: a reader may look at 16 bytes at once */
    int64_t capacity, bound; /* what must stay whole is at most `bound` bytes */
    int last;                /* the text ends here */
} mf__window;

mf_status mf__window_open(mf__window *w, mf__source *source, int64_t bound);
/* Appends some text, or sets `last`. What stands before `keep` may go; *moved is to be added to every pointer into the rest.
 * MF_EFORMAT where the text from `keep` on is over the bound already: `what` is the beginning of the error. */
mf_status mf__window_more(mf__window *w, const char *keep, int64_t *moved, const char *what, int64_t line);
void mf__window_close(mf__window *w);
#endif
