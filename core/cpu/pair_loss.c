/* pair_loss.c: how far predicted distances between atoms are from the true ones, without a matrix (flow.md 2.4).
 *
 *   sum = sum over ordered pairs a != b, both there, D_ab < cutoff, of (D_ab - D'_ab)^2      pairs = how many
 *   d sum / d p'_a = 4 sum_b (D'_ab - D_ab) (p'_a - p'_b) / D'_ab     (a term with D' < 1e-8 is 0)
 *
 * D are the true distances, D' the predicted. With a cutoff, columns come from a tree of boxes over the true atoms
 * (tree.h): the rows of one leaf visit the leaves within reach, runs of neighbouring leaves as one, O(N) pairs.
 * Without, every column is visited. Either way a tile is at most 512 columns against 16 rows, summed in the tensor's type
 * over one row of the tile and in double beyond. Forward visits a pair once (b after a) and doubles; backward visits
 * it from both sides, so that each atom's gradient belongs to one thread. Order is fixed by the input alone.
 *
 * Memory: 6 numbers and 50 bytes an atom of the longest sequence. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "cpu.h"
#include "tree.h"

enum { TILE = 512, ROWS = MF__TREE_LEAF };

#define BODY "pair_loss_real.h"
#include "both_reals.h"

/* One sequence, ready to be visited. */
typedef struct scene {
    int dtype, backward;
    int64_t n;                   /* atoms that are there */
    double reach;                /* the cutoff and what rounding may add to it; 0 for none */
    const mf_tree_node *nodes;
    int32_t *leaves;             /* with a cutoff: the node of each block of rows */
    int64_t blocks;
    cloud_f32 f32;
    cloud_f64 f64;
} scene;

static void visit(const scene *x, int64_t a0, int64_t a1, int64_t c0, int64_t c1, double *total) {
    for (int64_t from = c0; from < c1; from += TILE) {
        int64_t to = from + TILE < c1 ? from + TILE : c1;
        if (x->backward) {
            if (x->dtype == MF_FLOAT32) tile_grad_f32(&x->f32, a0, a1, from, to, total);
            else tile_grad_f64(&x->f64, a0, a1, from, to, total);
        } else if (to > a0) {
            if (x->dtype == MF_FLOAT32) tile_sum_f32(&x->f32, a0, a1, from, to, total);
            else tile_sum_f64(&x->f64, a0, a1, from, to, total);
        }
    }
}

static int apart(const mf_tree_node *a, const mf_tree_node *b, double reach) {
    double square = 0;
    for (int j = 0; j < 3; j++) {
        double gap = a->lo[j] - b->hi[j] > b->lo[j] - a->hi[j] ? a->lo[j] - b->hi[j] : b->lo[j] - a->hi[j];
        square += gap > 0 ? gap * gap : 0;
    }
    return square > reach * reach;
}

/* All columns within reach of a block of rows: total[0..1] forward, three sums a row backward. */
static void gather(const scene *x, int64_t block, int64_t *a0, int64_t *a1, double *total) {
    if (x->reach == 0) {
        *a0 = block * ROWS;
        *a1 = *a0 + ROWS < x->n ? *a0 + ROWS : x->n;
        visit(x, *a0, *a1, 0, x->n, total);
        return;
    }
    const mf_tree_node *rows = &x->nodes[x->leaves[block]];
    int32_t stack[MF__TREE_DEPTH], top = 1;
    int64_t c0 = 0, c1 = 0;  /* the run of leaves so far */
    *a0 = rows->first;
    *a1 = rows->first + rows->count;
    stack[0] = 0;
    while (top > 0) {
        int32_t at = stack[--top];
        const mf_tree_node *node = &x->nodes[at];
        if (apart(rows, node, x->reach) || (!x->backward && node->first + node->count <= *a0)) continue;
        if (node->right) {
            stack[top++] = node->right;
            stack[top++] = at + 1;
            continue;
        }
        if (node->first != c1) {
            visit(x, *a0, *a1, c0, c1, total);
            c0 = node->first;
        }
        c1 = node->first + node->count;
    }
    visit(x, *a0, *a1, c0, c1, total);
}

static double at(int dtype, const void *x, int64_t i) {
    return dtype == MF_FLOAT32 ? (double)((const float *)x)[i] : ((const double *)x)[i];
}

static void put(int dtype, void *x, int64_t i, double value) {
    if (dtype == MF_FLOAT32) ((float *)x)[i] = (float)value;
    else ((double *)x)[i] = value;
}

/* Lists the atoms of sequence s that are there, with their true positions in double. */
static mf_status collect(const mf_pair_loss_args *a, int64_t s, int32_t *order, double *wide, int64_t *n) {
    int64_t first = a->packing->offsets[s] * a->atoms, count = a->packing->offsets[s + 1] * a->atoms - first;
    *n = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!a->mask[first + i]) continue;
        order[(*n)++] = (int32_t)i;
        for (int j = 0; j < 3; j++) {
            wide[3 * i + j] = at(a->dtype, a->truth, 3 * (first + i) + j);
            if (!isfinite(wide[3 * i + j]))
                return mf__fail(MF_EVALUE, "pair_distance_loss: true atom %lld of residue %lld of sequence %lld is not finite; mask it",
                                (long long)(i % a->atoms) + 1, (long long)(i / a->atoms) + 1, (long long)s + 1);
        }
    }
    return MF_OK;
}

static mf_status run(mf_device *d, const mf_pair_loss_args *a, int backward) {
    size_t real = a->dtype == MF_FLOAT32 ? sizeof(float) : sizeof(double);
    int64_t most = a->packing->longest * a->atoms, capacity = mf__tree_capacity(most);
    if (!mf__is_real(a->dtype))
        return mf__fail(MF_ESUPPORT, "pair_distance_loss: geometry takes float32 or float64, not %s", mf_dtype_name(a->dtype));
    if (most > INT32_MAX)
        return mf__fail(MF_ESUPPORT, "pair_distance_loss: a sequence of %lld atoms; they are counted in 32 bits", (long long)most);
    mf_status status = MF_ENOMEM;
    int32_t *order = mf__host_alloc(d->ctx, (size_t)(most + 1) * sizeof *order);
    int32_t *leaves = mf__host_alloc(d->ctx, (size_t)capacity * sizeof *leaves);
    double *wide = mf__host_alloc(d->ctx, (size_t)(3 * most + 1) * sizeof *wide);
    double *totals = mf__host_alloc(d->ctx, (size_t)(2 * capacity) * sizeof *totals);
    mf_tree_node *nodes = mf__host_alloc(d->ctx, (size_t)capacity * sizeof *nodes);
    void *room = mf__host_alloc(d->ctx, (size_t)(6 * most + 1) * real);
    if (!order || !leaves || !wide || !totals || !nodes || !room) goto out;
    if (backward && most > 0) memset(a->dpredicted, 0, (size_t)(a->packing->total * a->atoms * 3) * real);
    for (int64_t s = 0; s < a->packing->count; s++) {
        int64_t first = a->packing->offsets[s] * a->atoms;
        scene x = {.dtype = a->dtype, .backward = backward, .nodes = nodes, .leaves = leaves};
        MF_TRY_OUT(collect(a, s, order, wide, &x.n));
        if (a->cutoff > 0 && x.n > 0) {
            x.reach = a->cutoff * (1 + 1e-5);
            int32_t made = mf__tree_build(nodes, order, wide, x.n);
            for (int32_t i = 0; i < made; i++)
                if (!nodes[i].right) leaves[x.blocks++] = i;
        } else {
            x.blocks = (x.n + ROWS - 1) / ROWS;
        }
        if (a->dtype == MF_FLOAT32)
            x.f32 = load_f32(room, x.n, order, (const float *)a->truth + 3 * first, (const float *)a->predicted + 3 * first, a->cutoff);
        else
            x.f64 = load_f64(room, x.n, order, (const double *)a->truth + 3 * first, (const double *)a->predicted + 3 * first, a->cutoff);
        double scale = backward ? 4 * at(a->dtype, a->dsum, s) : 0;
#pragma omp parallel for num_threads(mf__threads(d, x.n, a->cutoff > 0 ? 500 : x.n)) schedule(static, 1)
        for (int64_t block = 0; block < x.blocks; block++) {
            double total[3 * ROWS] = {0};
            int64_t a0, a1;
            gather(&x, block, &a0, &a1, total);
            if (!backward) memcpy(totals + 2 * block, total, 2 * sizeof *total);
            for (int64_t i = a0; backward && i < a1; i++)
                for (int j = 0; j < 3; j++)
                    put(a->dtype, a->dpredicted, 3 * (first + order[i]) + j, scale * total[3 * (i - a0) + j]);
        }
        if (backward) continue;
        double sum = 0, pairs = 0;
        for (int64_t block = 0; block < x.blocks; block++) {
            sum += totals[2 * block];
            pairs += totals[2 * block + 1];
        }
        put(a->dtype, a->sum, s, 2 * sum);
        put(a->dtype, a->pairs, s, 2 * pairs);
    }
    status = MF_OK;
out:
    free(order);
    free(leaves);
    free(wide);
    free(totals);
    free(nodes);
    free(room);
    return status;
}

mf_status mf__cpu_pair_loss(mf_device *d, const mf_pair_loss_args *a) { return run(d, a, 0); }

mf_status mf__cpu_pair_loss_grad(mf_device *d, const mf_pair_loss_args *a) { return run(d, a, 1); }
