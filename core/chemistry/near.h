/* near.h: which of a cloud's points lie within a distance of one of them, by the box tree of the CPU's neighbours. */
#ifndef MF_CHEMISTRY_NEAR_H
#define MF_CHEMISTRY_NEAR_H
#include "../base/error.h"
#include "../cpu/tree.h"

typedef struct mf__near {
    const double *xyz;      /* n rows of three, finite */
    mf_tree_node *nodes;
    int32_t *order;
    int32_t *found;         /* the answer to the last question */
    int64_t n;
} mf__near;

/* `xyz` is borrowed. On failure nothing is held; closing a zeroed one is legal. */
mf_status mf__near_open(mf__near *near, const double *xyz, int64_t n);
void mf__near_close(mf__near *near);
/* The points after i, ascending, whose distance from it is at most `cutoff`: how many, their numbers in found. */
int64_t mf__near_after(mf__near *near, int64_t i, double cutoff);
#endif
