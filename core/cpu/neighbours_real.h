/* neighbours_real.h: the search of neighbours.c in one real type; included once for float and once for double.
 * Needs REAL, SQRT and NAME(x); makes NAME(farther), NAME(sift), NAME(bound), NAME(nearest), NAME(search). */

/* The order of neighbours: by distance, equal ones by position. */
static inline int NAME(farther)(REAL d, int32_t i, REAL e, int32_t j) { return d > e || (d == e && i > j); }

/* Restores the heap (farthest on top) of n entries below `at`. */
static void NAME(sift)(REAL *distance, int32_t *index, int64_t n, int64_t at) {
    REAL d = distance[at];
    int32_t i = index[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && NAME(farther)(distance[child + 1], index[child + 1], distance[child], index[child])) child++;
        if (!NAME(farther)(distance[child], index[child], d, i)) break;
        distance[at] = distance[child];
        index[at] = index[child];
    }
    distance[at] = d;
    index[at] = i;
}

/* No point of the box is nearer. Rounding is monotone and the box touches its points, so this holds to the last bit
 * as long as the expression is that of the distances below. */
static inline REAL NAME(bound)(const mf_tree_node *node, const REAL *x) {
    REAL e[3];
    for (int j = 0; j < 3; j++) {
        REAL below = (REAL)node->lo[j] - x[j], above = x[j] - (REAL)node->hi[j];
        REAL outside = below > above ? below : above;
        e[j] = outside > 0 ? outside : 0;
    }
    return SQRT(e[0] * e[0] + e[1] * e[1] + e[2] * e[2]);
}

/* The k nearest of the point `self` at x: row of indices and distances, used as the heap while it fills. Returns how
 * many were found; xs, ys, zs are the coordinates in the tree's order. */
static int64_t NAME(nearest)(const mf_tree_node *nodes, const int32_t *order, const REAL *xs, const REAL *ys, const REAL *zs,
                             int32_t self, const REAL *x, int64_t k, int32_t *index, REAL *distance) {
    int32_t stack[MF__TREE_DEPTH], top = 0;
    REAL bounds[MF__TREE_DEPTH], d[MF__TREE_LEAF];
    int64_t found = 0;
    stack[0] = 0;
    bounds[0] = 0;
    for (int more = 1; more; more = top-- > 0) {
        const mf_tree_node *node = &nodes[stack[top]];
        if (found == k && !NAME(farther)(distance[0], index[0], bounds[top], node->least)) continue;
        if (node->right) {  /* the nearer child is left on top */
            int32_t left = stack[top] + 1, right = node->right;
            REAL to_left = NAME(bound)(&nodes[left], x), to_right = NAME(bound)(&nodes[right], x);
            int swap = NAME(farther)(to_left, nodes[left].least, to_right, nodes[right].least);
            stack[top] = swap ? left : right;
            bounds[top++] = swap ? to_left : to_right;
            stack[top] = swap ? right : left;
            bounds[top++] = swap ? to_right : to_left;
            continue;
        }
        for (int32_t j = 0, c = node->first; j < node->count; j++, c++) {
            REAL dx = xs[c] - x[0], dy = ys[c] - x[1], dz = zs[c] - x[2];
            d[j] = SQRT(dx * dx + dy * dy + dz * dz);
        }
        for (int32_t j = 0; j < node->count; j++) {
            int32_t candidate = order[node->first + j];
            if (candidate == self) continue;
            if (found < k) {
                distance[found] = d[j];
                index[found++] = candidate;
                if (found == k)
                    for (int64_t i = k / 2; i-- > 0;) NAME(sift)(distance, index, k, i);
            } else if (NAME(farther)(distance[0], index[0], d[j], candidate)) {
                distance[0] = d[j];
                index[0] = candidate;
                NAME(sift)(distance, index, k, 0);
            }
        }
    }
    if (found < k)
        for (int64_t i = found / 2; i-- > 0;) NAME(sift)(distance, index, found, i);
    for (int64_t n = found; n-- > 1;) {  /* heap sort: nearest first */
        REAL far = distance[0];
        int32_t far_index = index[0];
        distance[0] = distance[n];
        index[0] = index[n];
        distance[n] = far;
        index[n] = far_index;
        NAME(sift)(distance, index, n, 0);
    }
    return found;
}

static mf_status NAME(search)(mf_device *d, const mf_packing *packing, int64_t k, const REAL *x, const REAL *mask, int32_t *index, REAL *distance) {
    mf_status status = MF_OK;
    int64_t n = packing->total, capacity = 0;
    for (int64_t s = 0; s < packing->count; s++) capacity += mf__tree_capacity(packing->offsets[s + 1] - packing->offsets[s]);
    mf_tree_node *nodes = mf__host_alloc(d->ctx, (size_t)(capacity + 1) * sizeof *nodes);
    int32_t *order = mf__host_alloc(d->ctx, (size_t)(n + 1) * sizeof *order);
    double *wide = mf__host_alloc(d->ctx, (size_t)(3 * n + 1) * sizeof *wide);
    REAL *sorted = mf__host_alloc(d->ctx, (size_t)(3 * n + 1) * sizeof *sorted);
    if (!nodes || !order || !wide || !sorted) {
        status = MF_ENOMEM;
        goto out;
    }
    for (int64_t i = 0; i < 3 * n; i++) wide[i] = (double)x[i];
    int64_t base = 0;
    for (int64_t s = 0; s < packing->count; s++) {
        int64_t first = packing->offsets[s], length = packing->offsets[s + 1] - first, valid = 0;
        for (int64_t i = 0; i < length; i++) {
            if (mask && mask[first + i] == 0) continue;
            for (int j = 0; j < 3; j++)
                if (!isfinite(wide[3 * (first + i) + j])) {
                    status = mf__fail(MF_EVALUE, "neighbours: residue %lld of sequence %lld has a coordinate that is not finite",
                                      (long long)i + 1, (long long)s + 1);
                    goto out;
                }
            order[first + valid++] = (int32_t)i;
        }
        mf_tree_node *tree = nodes + base;
        REAL *xs = sorted + 3 * first, *ys = xs + valid, *zs = ys + valid;
        if (valid > 0) mf__tree_build(tree, order + first, wide + 3 * first, valid);
        for (int64_t i = 0; i < valid; i++) {
            const REAL *from = x + 3 * (first + order[first + i]);
            xs[i] = from[0];
            ys[i] = from[1];
            zs[i] = from[2];
        }
        for (int64_t i = first; mask && i < first + length; i++)
            if (mask[i] == 0) alone(k, (int32_t)(i - first), 0, index + k * i, distance + k * i, sizeof(REAL));
#pragma omp parallel for num_threads(mf__threads(d, valid, 400 + 20 * k)) schedule(static)
        for (int64_t i = 0; i < valid; i++) {  /* in the tree's order: neighbours in space share the cache */
            int32_t self = order[first + i];
            int64_t row = k * (first + self);
            int64_t found = NAME(nearest)(tree, order + first, xs, ys, zs, self, x + 3 * (first + self), k, index + row, distance + row);
            alone(k, self, found, index + row, distance + row, sizeof(REAL));
        }
        base += mf__tree_capacity(length);
    }
out:
    free(nodes);
    free(order);
    free(wide);
    free(sorted);
    return status;
}
