/* base_pairs.c: canonical and wobble pairs of nucleic acids, from coordinates.
 *
 *   G-C   O6-N4  N1-N3  N2-O2        A-U, A-T   N6-O4  N1-N3        G-U   O6-N3  N1-O2
 *
 * Two bases pair when each of these hydrogen bonds is at most 4.0 angstrom long and their mean at most 3.4, their planes meet at
 * less than 50 degrees, one's centre is at most 2.5 angstrom out of the other's plane, and their C1' are 9.4 to 12 apart. The
 * bonds fix the edges and the cis arrangement. A base is in one pair at most: the better mean wins, then the earlier pair.
 * Modified bases count as their parents where they have the atoms; pseudouridine, which hangs on C5, shows O2 where uridine
 * shows O4. */
#include "chemistry.h"
#include "near.h"
#include <stdlib.h>
#include <string.h>

enum { N1, N2, N3, N4, N6, O2, O4, O6, C2, C4, C6, ATOMS };
static const char *const names[ATOMS] = {"N1", "N2", "N3", "N4", "N6", "O2", "O4", "O6", "C2", "C4", "C6"};

typedef struct base {
    double x[ATOMS][3], c1[3], centre[3], normal[3];
    unsigned there;      /* bit k: atom k */
    int32_t residue, chain;
    char code;
} base;

typedef struct pair { double length; int32_t a, b; int kind; } pair;

static const struct rule { char a, b; int kind, bonds, bond[3][2]; } rules[] = {
    {'G', 'C', MF_PAIR_GC, 3, {{O6, N4}, {N1, N3}, {N2, O2}}},
    {'A', 'U', MF_PAIR_AU, 2, {{N6, O4}, {N1, N3}}},
    {'G', 'U', MF_PAIR_GU, 2, {{O6, N3}, {N1, O2}}},
};

/* 0 when the ring is not all there. */
static int load(base *b, const mf_structure *s, const mf_residue_info *residue) {
    b->there = 0;
    for (int k = 0; k < ATOMS; k++)
        if (mf__atom_of(b->x[k], s, residue, names[k])) b->there |= 1u << k;
    unsigned ring = 1u << C2 | 1u << C4 | 1u << C6;
    if ((b->there & ring) != ring || !mf__atom_of(b->c1, s, residue, "C1'")) return 0;
    double u[3], v[3], norm = 0;
    for (int k = 0; k < 3; k++) {
        u[k] = b->x[C4][k] - b->x[C2][k];
        v[k] = b->x[C6][k] - b->x[C2][k];
        b->centre[k] = (b->x[C2][k] + b->x[C4][k] + b->x[C6][k]) / 3;
    }
    for (int k = 0; k < 3; k++) {
        int p = (k + 1) % 3, q = (k + 2) % 3;
        b->normal[k] = u[p] * v[q] - u[q] * v[p];
        norm += b->normal[k] * b->normal[k];
    }
    if (!(norm > 0)) return 0;
    for (int k = 0; k < 3; k++) b->normal[k] /= sqrt(norm);
    b->code = residue->code == 'T' ? 'U' : residue->code;
    if (b->code == 'U' && mf__carbon_glycoside(s, residue))
        for (int k = 0; k < 3; k++) {
            double swap = b->x[O2][k];
            b->x[O2][k] = b->x[O4][k];
            b->x[O4][k] = swap;
        }
    return 1;
}

static int coplanar(const base *a, const base *b) {
    double dot = 0, over_a = 0, over_b = 0;
    for (int k = 0; k < 3; k++) {
        double d = b->centre[k] - a->centre[k];
        dot += a->normal[k] * b->normal[k];
        over_a += a->normal[k] * d;
        over_b += b->normal[k] * d;
    }
    return fabs(dot) >= cos(50 * 3.14159265358979323846 / 180) && (fabs(over_a) <= 2.5 || fabs(over_b) <= 2.5);
}

/* The mean length of the bonds of the rule between a and b, infinite where they do not pair. */
static double bonded(const struct rule *rule, const base *a, const base *b) {
    double sum = 0;
    for (int k = 0; k < rule->bonds; k++) {
        int p = rule->bond[k][0], q = rule->bond[k][1];
        if (!(a->there >> p & 1) || !(b->there >> q & 1)) return INFINITY;
        double d = mf__distance(a->x[p], b->x[q]);
        if (d > 4.0) return INFINITY;
        sum += d;
    }
    return sum <= 3.4 * rule->bonds ? sum / rule->bonds : INFINITY;
}

static int try_pair(pair *out, const base *list, int32_t i, int32_t j) {
    const base *a = &list[i], *b = &list[j];
    if ((a->chain == b->chain && b->residue - a->residue < 3) || mf__distance(a->c1, b->c1) < 9.4) return 0;
    for (size_t k = 0; k < sizeof rules / sizeof *rules; k++) {
        const struct rule *rule = &rules[k];
        int straight = a->code == rule->a && b->code == rule->b, crossed = a->code == rule->b && b->code == rule->a;
        if ((!straight && !crossed) || !coplanar(a, b)) continue;
        double length = straight ? bonded(rule, a, b) : bonded(rule, b, a);
        if (isinf(length)) continue;
        *out = (pair){length, i, j, rule->kind};
        return 1;
    }
    return 0;
}

static int better(const void *a, const void *b) {
    const pair *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? -1 : 1;
    return x->a != y->a ? (x->a > y->a) - (x->a < y->a) : (x->b > y->b) - (x->b < y->b);
}

static int in_order(const void *a, const void *b) {
    const pair *x = a, *y = b;
    return (x->a > y->a) - (x->a < y->a);
}

/* The bases of the model, and where their C1' are. */
static mf_status collect(base *list, double *c1, int64_t *n, const mf_structure *s, int64_t first, int64_t last) {
    for (int64_t c = first; c < last; c++) {
        mf_chain_info chain;
        MF_TRY(mf_structure_chain(s, c, &chain));
        if (chain.polymer != MF_POLYMER_RNA && chain.polymer != MF_POLYMER_DNA) continue;
        for (int64_t r = chain.first_residue; r < chain.first_residue + chain.residues; r++) {
            mf_residue_info residue;
            MF_TRY(mf_structure_residue(s, r, &residue));
            if (residue.label == 0 || !load(&list[*n], s, &residue)) continue;
            memcpy(c1 + 3 * *n, list[*n].c1, sizeof list[*n].c1);
            list[*n].residue = (int32_t)r;
            list[*n].chain = (int32_t)c;
            ++*n;
        }
    }
    return MF_OK;
}

/* Residues of the model's nucleic chains: room for the bases. */
static mf_status count_bases(int64_t *n, const mf_structure *s, int64_t first, int64_t last) {
    *n = 0;
    for (int64_t c = first; c < last; c++) {
        mf_chain_info chain;
        MF_TRY(mf_structure_chain(s, c, &chain));
        if (chain.polymer == MF_POLYMER_RNA || chain.polymer == MF_POLYMER_DNA) *n += chain.residues;
    }
    return MF_OK;
}

mf_status mf_structure_base_pairs(mf_tensor **pairs, mf_tensor **kinds, const mf_structure *s, mf_ctx *ctx, int model) {
    *pairs = *kinds = NULL;
    int64_t first, last, most, n = 0, n_found = 0, room = 0, kept = 0;
    MF_TRY(mf__model_chains(&first, &last, s, model, "base pairs"));
    MF_TRY(count_bases(&most, s, first, last));
    mf_status status = MF_OK;
    mf__near near = {0};
    pair *found = NULL;
    size_t slots = (size_t)(most ? most : 1);
    base *list = malloc(slots * sizeof *list);
    double *c1 = malloc(3 * slots * sizeof *c1);
    unsigned char *taken = calloc(slots, 1);
    int32_t *ends = malloc(2 * slots * sizeof *ends), *kind = malloc(slots * sizeof *kind);
    if (!list || !c1 || !taken || !ends || !kind) { status = mf__fail(MF_ENOMEM, "base pairs: no memory for %lld bases", (long long)most); goto out; }
    MF_TRY_OUT(collect(list, c1, &n, s, first, last));
    MF_TRY_OUT(mf__near_open(&near, c1, n));
    for (int64_t i = 0; i < n; i++) {
        int64_t count = mf__near_after(&near, i, 12);
        for (int64_t k = 0; k < count; k++) {
            pair p;
            if (!try_pair(&p, list, (int32_t)i, near.found[k])) continue;
            if (n_found == room) {
                pair *grown = realloc(found, (size_t)(room ? 2 * room : 256) * sizeof *grown);
                if (!grown) { status = mf__fail(MF_ENOMEM, "base pairs: no memory for %lld pairs", (long long)room); goto out; }
                found = grown;
                room = room ? 2 * room : 256;
            }
            found[n_found++] = p;
        }
    }
    if (n_found) qsort(found, (size_t)n_found, sizeof *found, better);
    for (int64_t k = 0; k < n_found; k++) {
        if (taken[found[k].a] || taken[found[k].b]) continue;
        taken[found[k].a] = taken[found[k].b] = 1;
        found[kept++] = found[k];
    }
    if (kept) qsort(found, (size_t)kept, sizeof *found, in_order);
    for (int64_t k = 0; k < kept; k++) {
        ends[2 * k] = list[found[k].a].residue;
        ends[2 * k + 1] = list[found[k].b].residue;
        kind[k] = found[k].kind;
    }
    MF_TRY_OUT(mf_tensor_from(pairs, ctx, MF_CPU, MF_INT32, 2, (int64_t[]){kept, 2}, ends));
    status = mf_tensor_from(kinds, ctx, MF_CPU, MF_INT32, 1, (int64_t[]){kept}, kind);
    if (status != MF_OK) {
        mf_tensor_release(*pairs);
        *pairs = NULL;
    }
out:
    free(list);
    free(c1);
    free(taken);
    free(ends);
    free(kind);
    free(found);
    mf__near_close(&near);
    return status;
}
