/* tree.h: a tree of boxes over the points of one sequence, for neighbours and for pairs within a distance. */
#ifndef MF_CPU_TREE_H
#define MF_CPU_TREE_H
#include <stdint.h>

/* A node's points are order[first .. first + count). Nodes stand in preorder: the left child of node i is i + 1. */
typedef struct mf_tree_node {
    double lo[3], hi[3];    /* the smallest box around its points, exactly */
    int32_t first, count;
    int32_t right;          /* the right child, 0 in a leaf */
    int32_t least;          /* the smallest point number below */
} mf_tree_node;

enum { MF__TREE_LEAF = 16, MF__TREE_DEPTH = 64 };  /* points in a leaf at most; more levels than 2^31 points need */

/* Nodes that n points may take. */
static inline int64_t mf__tree_capacity(int64_t n) { return n / 4 + 2; }

/* Builds the tree of n >= 1 points, n < 2^31. `order` comes in as the numbers of the points, which index xyz
 * (a row of three each), and leaves permuted. Returns the number of nodes. */
int32_t mf__tree_build(mf_tree_node *nodes, int32_t *order, const double *xyz, int64_t n);
#endif
