/* assignment.c: the exact linear assignment, by shortest augmenting paths with potentials (Jonker and Volgenant 1987).
 *
 *   minimise sum_j cost[row_of[j]][j] over permutations
 *
 * Rows enter one by one. For each, Dijkstra's search over columns with the reduced costs
 * cost[i][j] - u[i] - v[j] >= 0 finds the cheapest way to free a column, and the potentials are moved so that
 * reduced costs stay non-negative and are zero along the matching: its optimality is its invariant. O(n^3) time,
 * O(n) memory. Equal paths go to the lowest column, so the result is determined. */
#include "../base/error.h"
#include <math.h>
#include <stdlib.h>

mf_status mf_assignment(int32_t *row_of, const double *cost, int64_t n) {
    if (n < 0 || n > INT32_MAX) return mf__fail(MF_EVALUE, "assignment: n is %lld", (long long)n);
    for (int64_t i = 0; i < n * n; i++)
        if (!isfinite(cost[i]))
            return mf__fail(MF_EVALUE, "assignment: the cost of row %lld, column %lld is %g", (long long)(i / n) + 1, (long long)(i % n) + 1, cost[i]);

    /* Column n is a stand-in that holds the row being inserted. */
    size_t m = (size_t)n + 1;
    double *u = calloc(m, sizeof *u), *v = calloc(m, sizeof *v), *reach = malloc(m * sizeof *reach);
    int64_t *row = malloc(m * sizeof *row), *from = malloc(m * sizeof *from);
    char *done = malloc(m);
    mf_status status = MF_OK;
    if (!u || !v || !reach || !row || !from || !done) {
        status = mf__fail(MF_ENOMEM, "assignment: no memory for n = %lld", (long long)n);
        goto out;
    }
    for (int64_t j = 0; j < n; j++) row[j] = -1;
    for (int64_t i = 0; i < n; i++) {
        int64_t column = n;
        row[n] = i;
        for (int64_t j = 0; j <= n; j++) {
            reach[j] = INFINITY;
            from[j] = n;
            done[j] = 0;
        }
        while (row[column] >= 0) {  /* until a free column is reached */
            int64_t r = row[column], next = -1;
            double step = INFINITY;
            done[column] = 1;
            for (int64_t j = 0; j < n; j++) {
                if (done[j]) continue;
                double reduced = cost[r * n + j] - u[r] - v[j];
                if (reduced < reach[j]) {
                    reach[j] = reduced;
                    from[j] = column;
                }
                if (next < 0 || reach[j] < step) {
                    step = reach[j];
                    next = j;
                }
            }
            for (int64_t j = 0; j <= n; j++) {
                if (done[j]) {
                    u[row[j]] += step;
                    v[j] -= step;
                } else {
                    reach[j] -= step;
                }
            }
            column = next;
        }
        for (int64_t back; column != n; column = back) {  /* shift the rows along the path */
            back = from[column];
            row[column] = row[back];
        }
    }
    for (int64_t j = 0; j < n; j++) row_of[j] = (int32_t)row[j];
out:
    free(u);
    free(v);
    free(reach);
    free(row);
    free(from);
    free(done);
    return status;
}
