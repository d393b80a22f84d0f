/* pair_loss_real.h: the loops of pair_loss.c for one real type; included once for float and once for double.
 * Needs REAL, SQRT and NAME(x); makes NAME(cloud), NAME(load), NAME(tile_sum), NAME(tile_grad). */

/* The atoms of one sequence that are there: six arrays of n, in the order of the tree or as they came. */
typedef struct NAME(cloud) {
    const REAL *t0, *t1, *t2;  /* true coordinates */
    const REAL *p0, *p1, *p2;  /* predicted ones */
    REAL cutoff;               /* infinity for none */
} NAME(cloud);

static NAME(cloud) NAME(load)(REAL *room, int64_t n, const int32_t *order, const REAL *truth, const REAL *predicted, double cutoff) {
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < 3; j++) {
            room[j * n + i] = truth[3 * (int64_t)order[i] + j];
            room[(3 + j) * n + i] = predicted[3 * (int64_t)order[i] + j];
        }
    return (NAME(cloud)){room, room + n, room + 2 * n, room + 3 * n, room + 4 * n, room + 5 * n,
                         cutoff > 0 ? (REAL)cutoff : (REAL)INFINITY};
}

/* Adds the pairs of rows [a0, a1) with later columns of [c0, c1), a tile at most wide, to total[0..1]. */
static void NAME(tile_sum)(const NAME(cloud) *x, int64_t a0, int64_t a1, int64_t c0, int64_t c1, double *total) {
    for (int64_t a = a0; a < a1; a++) {
        REAL t0 = x->t0[a], t1 = x->t1[a], t2 = x->t2[a], p0 = x->p0[a], p1 = x->p1[a], p2 = x->p2[a];
        REAL sum = 0, count = 0, cutoff = x->cutoff;
#pragma omp simd reduction(+ : sum, count)
        for (int64_t b = c0 > a ? c0 : a + 1; b < c1; b++) {
            REAL e0 = t0 - x->t0[b], e1 = t1 - x->t1[b], e2 = t2 - x->t2[b];
            REAL f0 = p0 - x->p0[b], f1 = p1 - x->p1[b], f2 = p2 - x->p2[b];
            REAL truth = SQRT(e0 * e0 + e1 * e1 + e2 * e2), error = truth - SQRT(f0 * f0 + f1 * f1 + f2 * f2);
            sum += truth < cutoff ? error * error : 0;
            count += truth < cutoff ? (REAL)1 : 0;
        }
        total[0] += (double)sum;
        total[1] += (double)count;
    }
}

/* Adds sum_b (D' - D)(p'_a - p'_b) / D' over the columns to the three sums of each row. A row's own column gives 0. */
static void NAME(tile_grad)(const NAME(cloud) *x, int64_t a0, int64_t a1, int64_t c0, int64_t c1, double *total) {
    for (int64_t a = a0; a < a1; a++) {
        REAL t0 = x->t0[a], t1 = x->t1[a], t2 = x->t2[a], p0 = x->p0[a], p1 = x->p1[a], p2 = x->p2[a];
        REAL g0 = 0, g1 = 0, g2 = 0, cutoff = x->cutoff;
#pragma omp simd reduction(+ : g0, g1, g2)
        for (int64_t b = c0; b < c1; b++) {
            REAL e0 = t0 - x->t0[b], e1 = t1 - x->t1[b], e2 = t2 - x->t2[b];
            REAL f0 = p0 - x->p0[b], f1 = p1 - x->p1[b], f2 = p2 - x->p2[b];
            REAL truth = SQRT(e0 * e0 + e1 * e1 + e2 * e2), guess = SQRT(f0 * f0 + f1 * f1 + f2 * f2);
            REAL pull = (guess - truth) / guess;
            pull = truth < cutoff && !(guess < (REAL)1e-8) ? pull : 0;
            g0 += pull * f0;
            g1 += pull * f1;
            g2 += pull * f2;
        }
        total[3 * (a - a0)] += (double)g0;
        total[3 * (a - a0) + 1] += (double)g1;
        total[3 * (a - a0) + 2] += (double)g2;
    }
}
