/* near.c: points within a distance, one at a time and in order, so that whoever asks sees pairs as a double loop would. */
#include "near.h"
#include <stdlib.h>
#include <string.h>

mf_status mf__near_open(mf__near *near, const double *xyz, int64_t n) {
    memset(near, 0, sizeof *near);
    if (n >= INT32_MAX) return mf__fail(MF_EVALUE, "chemistry: %lld points are too many", (long long)n);
    near->xyz = xyz;
    near->n = n;
    near->nodes = malloc((size_t)mf__tree_capacity(n) * sizeof *near->nodes);
    near->order = malloc((size_t)(n ? n : 1) * sizeof *near->order);
    near->found = malloc((size_t)(n ? n : 1) * sizeof *near->found);
    if (!near->nodes || !near->order || !near->found) {
        mf__near_close(near);
        return mf__fail(MF_ENOMEM, "chemistry: no memory for the neighbours of %lld points", (long long)n);
    }
    for (int64_t i = 0; i < n; i++) near->order[i] = (int32_t)i;
    if (n) mf__tree_build(near->nodes, near->order, xyz, n);
    return MF_OK;
}

void mf__near_close(mf__near *near) {
    free(near->nodes);
    free(near->order);
    free(near->found);
    memset(near, 0, sizeof *near);
}

static int by_number(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

int64_t mf__near_after(mf__near *near, int64_t i, double cutoff) {
    const double *x = near->xyz + 3 * i;
    double square = cutoff * cutoff;
    int32_t stack[MF__TREE_DEPTH + 1], top = 0;
    int64_t found = 0;
    stack[0] = 0;
    while (top >= 0) {
        int32_t at = stack[top--];
        const mf_tree_node *node = &near->nodes[at];
        double outside = 0;
        for (int k = 0; k < 3; k++) {
            double below = node->lo[k] - x[k], above = x[k] - node->hi[k], e = below > above ? below : above;
            if (e > 0) outside += e * e;
        }
        if (outside > square) continue;
        if (node->right) {
            stack[++top] = node->right;
            stack[++top] = at + 1;
            continue;
        }
        for (int32_t c = node->first; c < node->first + node->count; c++) {
            int32_t j = near->order[c];
            const double *y = near->xyz + 3 * (int64_t)j;
            double u = x[0] - y[0], v = x[1] - y[1], w = x[2] - y[2];
            if (j > i && u * u + v * v + w * w <= square) near->found[found++] = j;
        }
    }
    qsort(near->found, (size_t)found, sizeof *near->found, by_number);
    return found;
}
