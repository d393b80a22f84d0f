/* tree.c: builds the tree of boxes of tree.h.
 *
 * A range of more than a leaf's points is halved at its median along its longest axis, equal coordinates by number.
 * Halving by rank and not by position is why this is a tree and no grid of cells: its depth is log2(n) and its
 * leaves are full for any cloud: an extended chain, tight clusters far apart, all points on one spot. There the
 * halves have disjoint ranges of numbers, so that `least` prunes what distances cannot. */
#include "tree.h"
#include <math.h>

/* A total order, so that the halves and with them every result are determined. */
static inline int before(const double *xyz, int axis, int32_t a, int32_t b) {
    double x = xyz[3 * (int64_t)a + axis], y = xyz[3 * (int64_t)b + axis];
    return x < y || (x == y && a < b);
}

/* Puts the element of rank `middle` there, lesser ones before it: quickselect with the median of three. */
static void halve(int32_t *order, int64_t n, int64_t middle, const double *xyz, int axis) {
    int64_t lo = 0, hi = n - 1;
    while (lo < hi) {
        int32_t a = order[lo], b = order[lo + (hi - lo) / 2], c = order[hi], pivot;
        if (before(xyz, axis, a, b)) pivot = before(xyz, axis, b, c) ? b : before(xyz, axis, a, c) ? c : a;
        else pivot = before(xyz, axis, a, c) ? a : before(xyz, axis, b, c) ? c : b;
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (before(xyz, axis, order[i], pivot)) i++;
            while (before(xyz, axis, pivot, order[j])) j--;
            if (i > j) break;
            int32_t swap = order[i];
            order[i++] = order[j];
            order[j--] = swap;
        }
        if (middle <= j) hi = j;
        else if (middle >= i) lo = i;
        else return;
    }
}

static int32_t build(mf_tree_node *nodes, int32_t at, int32_t *order, const double *xyz, int64_t first, int64_t n) {
    mf_tree_node *node = &nodes[at];
    node->first = (int32_t)first;
    node->count = (int32_t)n;
    node->right = 0;
    node->least = order[first];
    for (int j = 0; j < 3; j++) {
        node->lo[j] = INFINITY;
        node->hi[j] = -INFINITY;
    }
    for (int64_t i = first; i < first + n; i++) {
        const double *x = xyz + 3 * (int64_t)order[i];
        if (order[i] < node->least) node->least = order[i];
        for (int j = 0; j < 3; j++) {
            node->lo[j] = x[j] < node->lo[j] ? x[j] : node->lo[j];
            node->hi[j] = x[j] > node->hi[j] ? x[j] : node->hi[j];
        }
    }
    if (n <= MF__TREE_LEAF) return at + 1;
    int axis = 0;
    for (int j = 1; j < 3; j++)
        if (node->hi[j] - node->lo[j] > node->hi[axis] - node->lo[axis]) axis = j;
    int64_t middle = n / 2;
    halve(order + first, n, middle, xyz, axis);
    int32_t right = build(nodes, at + 1, order, xyz, first, middle);
    node->right = right;
    return build(nodes, right, order, xyz, first + middle, n - middle);
}

int32_t mf__tree_build(mf_tree_node *nodes, int32_t *order, const double *xyz, int64_t n) {
    return build(nodes, 0, order, xyz, 0, n);
}
