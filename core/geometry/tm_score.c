/* tm_score.c: how alike two structures are whose residues correspond one to one (metrics.md 2).
 *
 *   TM   max over rigid motions of  1/L sum_i 1 / (1 + (d_i / d0)^2)        Zhang and Skolnick (2004) Proteins 57, 702
 *   GDT  mean over cut-offs of the largest share of pairs within the cut-off: TS 1, 2, 4, 8 angstrom, HA 0.5, 1, 2, 4
 *
 * No closed form is known. The search is the one of the program TMscore, every start of it, so that both give the same digits: fragments
 * of n, n/2, n/4, ... down to 4 pairs, from every position; superpose the fragment, take the pairs nearer than ds - 1, then superpose
 * those and take the pairs nearer than ds + 1 until the same are taken again, 20 times at the most; ds = d0 within [4.5, 8]. Every
 * superposition on the way counts, for each of the scores. The work grows with n^2 (about 10 ms for n = 150, 0.1 s for 500).
 *
 * Superpositions are by quaternions in double, as mf_kabsch's: a proper rotation whatever the points are, the same each time. */
#include "../base/error.h"
#include "rows.h"
#include <stdlib.h>
#include <string.h>

enum { SHORTEST = 4, FRAGMENTS = 6, ROUNDS = 20, CUTOFFS = 5 };
static const double cutoffs[CUTOFFS] = {0.5, 1, 2, 4, 8};

typedef struct motion { double R[9], t[3]; } motion;

typedef struct search {
    const double *p, *q;         /* (n, 3): what is moved, and onto what */
    double *squares;             /* (n) squared distances after the last motion */
    int64_t *chosen, *before;    /* pairs that the next superposition takes, and those that the last one took */
    int64_t n, count;            /* pairs; how many of them are chosen */
    double d0, ds;
    double best;                 /* sum of the TM-score's terms, largest so far, and its motion */
    motion at;
    int64_t within[CUTOFFS];     /* most pairs within each cut-off so far */
} search;

/* The best superposition of `count` of the pairs. */
static motion superpose(const search *s, const int64_t *chosen, int64_t count) {
    motion m;
    double p0[3] = {0}, q0[3] = {0}, H[9] = {0}, quaternion[4];
    for (int64_t k = 0; k < count; k++)
        for (int a = 0; a < 3; a++) {
            p0[a] += s->p[3 * chosen[k] + a];
            q0[a] += s->q[3 * chosen[k] + a];
        }
    for (int a = 0; a < 3; a++) {
        p0[a] /= (double)count;
        q0[a] /= (double)count;
    }
    for (int64_t k = 0; k < count; k++)
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++) H[3 * a + b] += (s->q[3 * chosen[k] + a] - q0[a]) * (s->p[3 * chosen[k] + b] - p0[b]);
    mf__row_rot_to_quat(H, quaternion);
    mf__row_quat_to_rot(quaternion, m.R);
    for (int a = 0; a < 3; a++) m.t[a] = q0[a] - mf__dot3(m.R + 3 * a, p0);
    return m;
}

static void measure(search *s, const motion *m) {
    for (int64_t i = 0; i < s->n; i++) {
        double square = 0;
        for (int a = 0; a < 3; a++) {
            double e = mf__dot3(m->R + 3 * a, s->p + 3 * i) + m->t[a] - s->q[3 * i + a];
            square += e * e;
        }
        s->squares[i] = square;
    }
}

/* Scores a motion, and chooses the pairs nearer than `near`: at least three of them where there are more than three. */
static void try_motion(search *s, const motion *m, double near) {
    double sum = 0, scale = 1 / (s->d0 * s->d0);
    int64_t within[CUTOFFS] = {0};
    measure(s, m);
    for (int64_t i = 0; i < s->n; i++) {
        sum += 1 / (1 + s->squares[i] * scale);
        for (int c = 0; c < CUTOFFS; c++) within[c] += s->squares[i] <= cutoffs[c] * cutoffs[c];
    }
    for (int c = 0; c < CUTOFFS; c++)
        if (within[c] > s->within[c]) s->within[c] = within[c];
    if (sum > s->best) {
        s->best = sum;
        s->at = *m;
    }
    do {
        s->count = 0;
        for (int64_t i = 0; i < s->n; i++)
            if (s->squares[i] < near * near) s->chosen[s->count++] = i;
        near += 0.5;
    } while (s->count < 3 && s->n > 3);
}

static int same(const search *s, int64_t count) {
    return s->count == count && memcmp(s->chosen, s->before, (size_t)count * sizeof *s->chosen) == 0;
}

/* From one fragment on until the pairs that are near stay the same. */
static void climb(search *s, int64_t first, int64_t length) {
    for (int64_t k = 0; k < length; k++) s->chosen[k] = first + k;
    motion m = superpose(s, s->chosen, length);
    try_motion(s, &m, s->ds - 1);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t count = s->count, *swap = s->before;
        if (count == 0) return;      /* up to three pairs, all of them far */
        s->before = s->chosen;
        s->chosen = swap;
        m = superpose(s, s->before, count);
        try_motion(s, &m, s->ds + 1);
        if (same(s, count)) return;
    }
}

static void finish(mf_tm_result *out, const search *s, int64_t reference) {
    int64_t ts = 0, ha = 0;
    out->tm = s->best / (double)reference;
    memcpy(out->rotation, s->at.R, sizeof s->at.R);
    memcpy(out->translation, s->at.t, sizeof s->at.t);
    for (int c = 0; c < CUTOFFS; c++) {
        if (c > 0) ts += s->within[c];
        if (c < CUTOFFS - 1) ha += s->within[c];
    }
    out->gdt_ts = (double)ts / (4 * (double)reference);
    out->gdt_ha = (double)ha / (4 * (double)reference);
}

/* What the one superposition of all pairs says. */
static void all_pairs(mf_tm_result *out, search *s) {
    for (int64_t i = 0; i < s->n; i++) s->chosen[i] = i;
    motion m = superpose(s, s->chosen, s->n);
    int64_t within = 0;
    measure(s, &m);
    for (int64_t i = 0; i < s->n; i++) {
        out->rmsd += s->squares[i] / (double)s->n;
        out->mean_distance += sqrt(s->squares[i]) / (double)s->n;
        for (int c = 1; c < CUTOFFS; c++) within += s->squares[i] <= cutoffs[c] * cutoffs[c];
    }
    out->gdt_superposed = (double)within / (4 * (double)s->n);
    out->rmsd = sqrt(out->rmsd);
}

double mf_tm_d0(int64_t length, int polymer) {
    static const struct { int64_t most; double d0; } small[] = {{11, 0.3}, {15, 0.4}, {19, 0.5}, {23, 0.6}, {29, 0.7}};
    double L = (double)length;
    if (polymer != MF_POLYMER_RNA && polymer != MF_POLYMER_DNA) return length <= 21 ? 0.5 : fmax(0.5, 1.24 * cbrt(L - 15) - 1.8);
    for (size_t k = 0; k < sizeof small / sizeof *small; k++)
        if (length <= small[k].most) return small[k].d0;
    return 0.6 * sqrt(L - 0.5) - 2.5;
}

mf_status mf_tm_score(mf_tm_result *out, const double *moving, const double *fixed, int64_t n, int64_t reference, double d0) {
    memset(out, 0, sizeof *out);
    if (n < 1 || n > INT32_MAX) return mf__fail(MF_EVALUE, "tm_score: %lld pairs of residues", (long long)n);
    if (reference < n) return mf__fail(MF_EVALUE, "tm_score: a reference of %lld residues, but %lld pairs", (long long)reference, (long long)n);
    if (!(d0 > 0) || !isfinite(d0)) return mf__fail(MF_EVALUE, "tm_score: d0 is %g, expected a positive number of angstrom", d0);
    for (int64_t i = 0; i < 3 * n; i++) {
        /* a square that overflows would leave no pair near any other, however far one looks */
        const double *bad = !(fabs(moving[i]) < 1e9) ? moving : !(fabs(fixed[i]) < 1e9) ? fixed : NULL;
        if (bad)
            return mf__fail(MF_EVALUE, "tm_score: residue %lld of the %s structure is at %g, no coordinate in angstrom", (long long)(i / 3) + 1,
                            bad == moving ? "first" : "second", bad[i]);
    }
    search s = {.p = moving, .q = fixed, .n = n, .d0 = d0, .ds = fmin(fmax(d0, 4.5), 8), .best = -1};
    mf_status status = MF_OK;
    s.squares = malloc((size_t)n * sizeof *s.squares);
    s.chosen = malloc((size_t)n * sizeof *s.chosen);
    s.before = malloc((size_t)n * sizeof *s.before);
    if (!s.squares || !s.chosen || !s.before) { status = mf__fail(MF_ENOMEM, "tm_score: no memory for %lld pairs", (long long)n); goto out; }
    int64_t shortest = n < SHORTEST ? n : SHORTEST;
    for (int k = 0; k < FRAGMENTS; k++) {
        int64_t length = n >> k;
        if (length < shortest || k == FRAGMENTS - 1) length = shortest;
        for (int64_t first = 0; first + length <= n; first++) climb(&s, first, length);
        if (length == shortest) break;
    }
    finish(out, &s, reference);
    all_pairs(out, &s);
out:
    free(s.squares);
    free(s.chosen);
    free(s.before);
    return status;
}
