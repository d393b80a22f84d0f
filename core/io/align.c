/* align.c: where the residues of a chain stand in its sequence.
 *
 * Three ways, the first that places every residue is taken:
 *   numbers    position = number + constant, every name as the sequence has it, bonded residues side by side
 *   pieces     stretches of bonded residues, each where its number or else the order says first, every name as it must be
 *   costs      the cheapest alignment with affine gaps: a gap between bonded residues is dear, one at a break cheap; other names
 *              at a quarter of the places at most. n m steps, so it is not tried where that is over CELLS
 * The first two take time in proportion to n + m on any but a malicious chain, whose steps are counted. */
#include "build.h"
#include <stdlib.h>
#include <string.h>

enum { CELLS = 1 << 24, FAR = 1 << 28 };
enum { OTHER_NAME = 6, LEFT_OUT = 2, GAP_IN_BOND = 12, GAP = 6, GAP_AT_BREAK = 2 };

typedef struct search {
    const mf__observed *seen;
    const int32_t *sequence;
    int64_t n, m, steps;
} search;

static int is_at(search *q, int64_t i, int64_t p) {
    q->steps--;
    return p >= 0 && p < q->m && (q->sequence[p] == q->seen[i].name || q->sequence[p] == q->seen[i].also);
}

/* Does the chain go on without a gap from i - 1 to i? */
static int follows(const search *q, int64_t i) {
    int difference = q->seen[i].number - q->seen[i - 1].number;
    return q->seen[i].linked < 0 ? difference == 0 || difference == 1 : q->seen[i].linked;
}

static int by_offset(search *q, int32_t *at, int64_t offset) {
    int64_t last = -1;
    for (int64_t i = 0; i < q->n; i++) {
        int64_t p = q->seen[i].number + offset;
        int fits = p > last && is_at(q, i, p) && (i == 0 || at[i - 1] < 0 || q->seen[i].linked != 1 || p == last + 1);
        if (!fits && q->seen[i].must) return 0;
        at[i] = fits ? (int32_t)p : -1;
        if (fits) last = p;
    }
    return 1;
}

static int by_numbers(search *q, int32_t *at) {
    int64_t first = 0;
    while (first < q->n && !q->seen[first].must) first++;
    if (first == q->n) first = 0;
    if (is_at(q, first, q->seen[first].number - 1) && by_offset(q, at, -1)) return 1;
    for (int64_t p = 0; p < q->m && q->steps > 0; p++)
        if (is_at(q, first, p) && by_offset(q, at, p - q->seen[first].number)) return 1;
    return 0;
}

static int piece_at(search *q, int64_t i, int64_t count, int64_t p) {
    int64_t k = 0;
    while (k < count && is_at(q, i + k, p + k)) k++;
    return k == count;
}

static int by_pieces(search *q, int32_t *at, int numbers) {
    int64_t next = 0;    /* the first free position */
    for (int64_t i = 0, end; i < q->n; i = end) {
        int must = q->seen[i].must;
        for (end = i + 1; end < q->n && follows(q, end); end++) must |= q->seen[end].must;
        int64_t count = end - i, p = q->seen[i].number - 1;
        if (i > 0) p = at[i - 1] >= 0 ? at[i - 1] + (int64_t)q->seen[i].number - q->seen[i - 1].number : -1;
        if (!numbers || p < next || !piece_at(q, i, count, p))
            for (p = next; p + count <= q->m && q->steps > 0 && !piece_at(q, i, count, p);) p++;
        int fits = p + count <= q->m && q->steps > 0;
        if (!fits && must) return 0;
        for (int64_t k = 0; k < count; k++) at[i + k] = fits ? (int32_t)(p + k) : -1;
        if (fits) next = p + count;
    }
    return 1;
}

/* trace: how the best way comes to residue i with j positions used so far; HERE: no way with fewer is as cheap. */
enum { BESIDE, AFTER_GAP, FIRST, OUT, WAY = 3, HERE = 4 };

/* costs[j] of i - 1 become those of i. */
static void next_costs(const search *q, int64_t i, int *costs, unsigned char *trace) {
    const mf__observed *o = &q->seen[i];
    int gap = i == 0 ? GAP : o->linked == 1 ? GAP_IN_BOND : o->linked == 0 || !follows(q, i) ? GAP_AT_BREAK : GAP;
    int beside = i > 0 && o->linked == 0 && o->number - q->seen[i - 1].number > 1 ? GAP_AT_BREAK : 0;    /* something is missing there */
    int none = costs[0], left = costs[0], reach = FAR, best = FAR;    /* left: costs[j - 1], reach: the least up to j - 2 */
    int leave = o->must ? FAR : LEFT_OUT;
    costs[0] = none + leave < FAR ? none + leave : FAR;
    trace[0] = OUT;
    for (int64_t j = 1; j <= q->m; j++) {
        int was = costs[j], way = FIRST, cost = none;
        if (j > 1 && left + beside <= cost) cost = left + beside, way = BESIDE;
        if (reach + gap < cost) cost = reach + gap, way = AFTER_GAP;
        int named = q->sequence[j - 1] == o->name || q->sequence[j - 1] == o->also;
        cost += named ? 0 : o->must ? OTHER_NAME : FAR;
        if (was + leave < cost) cost = was + leave, way = OUT;
        if (cost > FAR) cost = FAR;
        trace[j] = (unsigned char)(way | (cost < best ? HERE : 0));
        if (cost < best) best = cost;
        if (j > 1 && left < reach) reach = left;
        left = was;
        costs[j] = cost;
    }
}

static mf_status by_costs(int *fits, int32_t *at, search *q) {
    const int64_t width = q->m + 1;
    int *costs = malloc((size_t)width * sizeof *costs);
    unsigned char *trace = malloc((size_t)(q->n * width));
    mf_status status = MF_OK;
    *fits = 0;
    if (!costs || !trace) { status = mf__fail(MF_ENOMEM, "structure.read: no memory to align %lld residues", (long long)q->n); goto out; }
    for (int64_t j = 1; j <= q->m; j++) costs[j] = FAR;
    costs[0] = 0;
    for (int64_t i = 0; i < q->n; i++) next_costs(q, i, costs, trace + i * width);
    int64_t j = 0, must = 0, wrong = 0;
    for (int64_t k = 1; k <= q->m; k++)
        if (costs[k] < costs[j]) j = k;
    if (costs[j] >= FAR) goto out;
    for (int64_t i = q->n - 1; i >= 0; i--) {
        int way = trace[i * width + j] & WAY;
        at[i] = way == OUT ? -1 : (int32_t)j - 1;
        must += q->seen[i].must;
        wrong += way != OUT && q->sequence[j - 1] != q->seen[i].name && q->sequence[j - 1] != q->seen[i].also;
        if (way == BESIDE) j--;
        else if (way == FIRST) j = 0;
        else if (way == AFTER_GAP)
            for (j -= 2; !(trace[(i - 1) * width + j] & HERE);) j--;
    }
    *fits = 4 * wrong <= must;
out:
    free(costs);
    free(trace);
    return status;
}

mf_status mf__align(int *fits, int32_t *at, const mf__observed *seen, int64_t n, const int32_t *sequence, int64_t m) {
    search q = {seen, sequence, n, m, 64 * (n + m) + 4096};
    *fits = by_numbers(&q, at) && q.steps > 0;
    if (*fits) return MF_OK;
    for (int numbers = 1; numbers >= 0 && !*fits; numbers--) {
        q.steps = 64 * (n + m) + 4096;
        *fits = by_pieces(&q, at, numbers);
    }
    if (*fits || n > CELLS / (m + 1)) return MF_OK;
    return by_costs(fits, at, &q);
}
