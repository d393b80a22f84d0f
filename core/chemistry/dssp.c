/* dssp.c: secondary structure by the rule of Kabsch and Sander (1983), as DSSP 4 applies it.
 *
 *   H of a peptide   N + (C - O) / |C - O| of the residue before it in the list, over a break too; prolines and the
 *                    first residue have none
 *   bond CO <- HN    27.888 (1/d_ON + 1/d_CH - 1/d_OH - 1/d_CN) < -0.5 kcal/mol, CA nearer than 9; each HN keeps its two best
 *   n-turn at i      CO_i <- HN_i+n unbroken; two in a row make a helix of n residues: 4 H, 3 G, 5 I
 *   bridge (i, j)    two bonds between three residues each, parallel or antiparallel; a ladder of several is E, one alone B
 *   bulge            ladders of one kind with at most 4 residues between on one side and 1 on the other are one
 *   bend S           CA_i-2, CA_i, CA_i+2 turn by more than 70 degrees
 *   P                phi in -75 +- 29 and psi in 145 +- 29, `ppii` residues in a row, where nothing else is
 *
 * Precedence: E and B first, H over them, then G where it is free, then I where it is free or H (DSSP 4 prefers pi
 * helices), then T inside a turn, S, P. Distances are taken in float and energies rounded to 0.001 as the reference
 * program does: what is near a threshold falls on the same side.
 *
 * A bridge's partner is within one of a bond's ends, so bridges are found from bonds, and the whole takes n log n. */
#include "chemistry.h"
#include "near.h"
#include <stdlib.h>
#include <string.h>

typedef struct site { float n[3], ca[3], c[3], o[3], h[3]; } site;
typedef struct bonds { int32_t to[2]; double energy[2]; } bonds;    /* the two best acceptors of one HN; -1 where none */
typedef struct ladder { int32_t i1, i2, j1, j2, size; int parallel; } ladder;

/* All residues with a whole backbone, of every chain, in order. */
typedef struct peptide {
    int64_t n;
    site *at;
    bonds *bond;
    int32_t *segment;        /* grows at every break */
    int32_t *position;       /* label: a gap in it bends nothing */
    int64_t *row;            /* whose letter it is */
    unsigned char *proline;
    unsigned char *turn;     /* bit k: a turn of 3 + k residues starts here */
    double *ca;
    ladder *ladders;
    int64_t n_ladders, room;
} peptide;

static float distance(const float *a, const float *b) {
    float u = a[0] - b[0], v = a[1] - b[1], w = a[2] - b[2];
    return sqrtf(u * u + v * v + w * w);
}

static mf_status reserve(peptide *p, int64_t n) {
    size_t count = (size_t)(n ? n : 1);
    p->at = malloc(count * sizeof *p->at);
    p->bond = malloc(count * sizeof *p->bond);
    p->segment = malloc(count * sizeof *p->segment);
    p->position = malloc(count * sizeof *p->position);
    p->row = malloc(count * sizeof *p->row);
    p->proline = malloc(count);
    p->turn = calloc(count, 1);
    p->ca = malloc(3 * count * sizeof *p->ca);
    if (p->at && p->bond && p->segment && p->position && p->row && p->proline && p->turn && p->ca) return MF_OK;
    return mf__fail(MF_ENOMEM, "secondary structure: no memory for %lld residues", (long long)n);
}

static void release(peptide *p) {
    free(p->at);
    free(p->bond);
    free(p->segment);
    free(p->position);
    free(p->row);
    free(p->proline);
    free(p->turn);
    free(p->ca);
    free(p->ladders);
}

/* Appends a residue, backbone N CA C O; one that is not all there is passed over. */
static void append(peptide *p, int64_t row, const double *backbone, int new_chain, int64_t position, int proline) {
    for (int k = 0; k < 12; k++)
        if (!isfinite(backbone[k]) || fabs(backbone[k]) > 1e9) return;
    site *x = &p->at[p->n];
    for (int k = 0; k < 3; k++) {
        x->n[k] = x->h[k] = (float)backbone[k];
        x->ca[k] = (float)backbone[3 + k];
        x->c[k] = (float)backbone[6 + k];
        x->o[k] = (float)backbone[9 + k];
        p->ca[3 * p->n + k] = backbone[3 + k];
    }
    p->segment[p->n] = 0;
    if (p->n) {
        const site *before = x - 1;
        float length = distance(before->c, before->o);
        p->segment[p->n] = p->segment[p->n - 1] + (new_chain || distance(before->c, x->n) > (float)MF__JOINED);
        if (!proline && length > 0)
            for (int k = 0; k < 3; k++) x->h[k] += (before->c[k] - before->o[k]) / length;
    }
    p->position[p->n] = (int32_t)position;
    p->proline[p->n] = (unsigned char)proline;
    p->row[p->n] = row;
    p->bond[p->n++] = (bonds){{-1, -1}, {0, 0}};
}

static void try_bond(peptide *p, int64_t donor, int64_t acceptor) {
    if (p->proline[donor]) return;
    const site *d = &p->at[donor], *a = &p->at[acceptor];
    double ho = distance(d->h, a->o), hc = distance(d->h, a->c), nc = distance(d->n, a->c), no = distance(d->n, a->o), energy = -9.9;
    if (ho >= 0.5 && hc >= 0.5 && nc >= 0.5 && no >= 0.5) {
        const float coupling = -27.888f;
        energy = round((coupling / ho - coupling / hc + coupling / nc - coupling / no) * 1000) / 1000;
        if (energy < -9.9) energy = -9.9;
    }
    bonds *b = &p->bond[donor];
    if (energy < b->energy[0]) {
        b->to[1] = b->to[0];
        b->energy[1] = b->energy[0];
        b->to[0] = (int32_t)acceptor;
        b->energy[0] = energy;
    } else if (energy < b->energy[1]) {
        b->to[1] = (int32_t)acceptor;
        b->energy[1] = energy;
    }
}

static mf_status find_bonds(peptide *p) {
    mf__near near;
    MF_TRY(mf__near_open(&near, p->ca, p->n));
    for (int64_t i = 0; i < p->n; i++) {
        int64_t count = mf__near_after(&near, i, 9.001);
        for (int64_t k = 0; k < count; k++) {
            int64_t j = near.found[k];
            if (distance(p->at[i].ca, p->at[j].ca) >= 9.0f) continue;
            try_bond(p, i, j);
            if (j != i + 1) try_bond(p, j, i);
        }
    }
    mf__near_close(&near);
    for (int64_t i = 0; i < p->n; i++)
        for (int k = 0; k < 2; k++)
            if (p->bond[i].energy[k] >= -0.5) p->bond[i].to[k] = -1;
    return MF_OK;
}

static int bound(const peptide *p, int64_t donor, int64_t acceptor) {
    return p->bond[donor].to[0] == acceptor || p->bond[donor].to[1] == acceptor;
}

/* 0 none, 1 antiparallel, 2 parallel. */
static int bridge(const peptide *p, int64_t i, int64_t j) {
    if (p->segment[i - 1] != p->segment[i + 1] || p->segment[j - 1] != p->segment[j + 1]) return 0;
    if ((bound(p, i + 1, j) && bound(p, j, i - 1)) || (bound(p, j + 1, i) && bound(p, i, j - 1))) return 2;
    return (bound(p, i + 1, j - 1) && bound(p, j + 1, i - 1)) || (bound(p, j, i) && bound(p, i, j));
}

static mf_status add_ladder(peptide *p, int64_t i, int64_t j, int parallel) {
    if (p->n_ladders == p->room) {
        int64_t room = p->room ? 2 * p->room : 64;
        ladder *grown = realloc(p->ladders, (size_t)room * sizeof *grown);
        if (!grown) return mf__fail(MF_ENOMEM, "secondary structure: no memory for %lld ladders", (long long)room);
        p->ladders = grown;
        p->room = room;
    }
    p->ladders[p->n_ladders++] = (ladder){(int32_t)i, (int32_t)i, (int32_t)j, (int32_t)j, 1, parallel};
    return MF_OK;
}

/* Bridges in order of (i, j), each put to the ladder that ends beside it. */
static mf_status find_ladders(peptide *p) {
    int64_t open[8] = {0}, next[8] = {0}; /* ladders with a bridge at i - 1, and at i: a residue is in a few bridges at most */
    int n_open = 0, n_next = 0;
    for (int64_t i = 1; i + 4 < p->n; i++, n_open = n_next, memcpy(open, next, sizeof open)) {
        int32_t partner[8];
        int partners = 0;
        n_next = 0;
        for (int k = 0; k < 8; k++) {
            int32_t acceptor = p->bond[i + (k & 1)].to[k >> 1 & 1], j = acceptor + (k >> 2), at = partners;
            if (acceptor < 0 || j < i + 3 || j + 1 >= p->n) continue;
            while (at > 0 && partner[at - 1] > j) at--;
            if (at > 0 && partner[at - 1] == j) continue;
            memmove(partner + at + 1, partner + at, (size_t)(partners++ - at) * sizeof *partner);
            partner[at] = j;
        }
        for (int k = 0; k < partners; k++) {
            int32_t j = partner[k];
            int kind = bridge(p, i, j), grown = 0;
            if (!kind) continue;
            for (int l = 0; l < n_open && !grown; l++) {
                ladder *a = &p->ladders[open[l]];
                if (a->parallel != (kind == 2) || a->i2 != i - 1 || (a->parallel ? a->j2 + 1 : a->j1 - 1) != j) continue;
                a->i2 = (int32_t)i;
                if (a->parallel) a->j2 = j;
                else a->j1 = j;
                a->size++;
                next[n_next++] = open[l];
                grown = 1;
            }
            if (grown) continue;
            MF_TRY(add_ladder(p, i, j, kind == 2));
            next[n_next++] = p->n_ladders - 1;
        }
    }
    return MF_OK;
}

static int by_start(const void *a, const void *b) {
    const ladder *x = a, *y = b;
    return x->i1 != y->i1 ? (x->i1 > y->i1) - (x->i1 < y->i1) : (x->j1 > y->j1) - (x->j1 < y->j1);
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t most(int32_t a, int32_t b) { return a > b ? a : b; }

static void join_bulges(peptide *p) {
    ladder *l = p->ladders;
    if (p->n_ladders) qsort(l, (size_t)p->n_ladders, sizeof *l, by_start);
    for (int64_t k = 0; k < p->n_ladders; k++) {
        if (l[k].size == 0) continue;    /* joined to an earlier one */
        ladder *a = &l[k];
        for (int64_t m = k + 1; m < p->n_ladders && l[m].i1 - a->i2 < 6; m++) {
            ladder *b = &l[m];
            int32_t gap = b->i1 - a->i2, across = a->parallel ? b->j1 - a->j2 : a->j1 - b->j2;
            if (b->size == 0 || a->parallel != b->parallel || gap <= 0 || across < 0) continue;
            if (p->segment[least(a->i1, b->i1)] != p->segment[most(a->i2, b->i2)]) continue;
            if (p->segment[least(a->j1, b->j1)] != p->segment[most(a->j2, b->j2)]) continue;
            if (!((across < 6 && gap < 3) || across < 3)) continue;
            a->i2 = b->i2;
            if (a->parallel) a->j2 = b->j2;
            else a->j1 = b->j1;
            a->size += b->size;
            b->size = 0;
        }
    }
}

static void mark(char *ss, int32_t first, int32_t last, char letter) {
    for (int32_t i = first; i <= last; i++)
        if (ss[i] != 'E') ss[i] = letter;
}

static void mark_helices(const peptide *p, char *ss, int stride, char letter, const char *over) {
    unsigned char bit = (unsigned char)(1 << (stride - 3));
    for (int64_t i = 1; i + stride < p->n; i++) {
        if (!(p->turn[i] & bit) || !(p->turn[i - 1] & bit)) continue;
        int free = 1;
        for (int k = 0; k < stride && free && over; k++) free = strchr(over, ss[i + k]) != NULL;
        if (free) memset(ss + i, letter, (size_t)stride);
    }
}

static int bent(const peptide *p, int64_t i) {
    if (i < 2 || i + 2 >= p->n || p->segment[i - 2] != p->segment[i + 2] || p->position[i - 2] + 4 != p->position[i + 2]) return 0;
    const double *a = p->ca + 3 * (i - 2), *b = a + 6, *c = a + 12;
    double dot = 0, uu = 0, vv = 0;
    for (int k = 0; k < 3; k++) {
        double u = b[k] - a[k], v = c[k] - b[k];
        dot += u * v;
        uu += u * u;
        vv += v * v;
    }
    return uu > 0 && vv > 0 && dot < cos(70 * 3.14159265358979323846 / 180) * sqrt(uu * vv);
}

static int extended(const peptide *p, int64_t i) {
    if (i < 1 || i + 1 >= p->n || p->segment[i - 1] != p->segment[i + 1]) return 0;
    double x[5][3];    /* C before, N, CA, C, N after */
    for (int k = 0; k < 3; k++) {
        x[0][k] = p->at[i - 1].c[k];
        x[1][k] = p->at[i].n[k];
        x[2][k] = p->at[i].ca[k];
        x[3][k] = p->at[i].c[k];
        x[4][k] = p->at[i + 1].n[k];
    }
    return fabs(mf__dihedral(x[0], x[1], x[2], x[3]) + 75) <= 29 && fabs(mf__dihedral(x[1], x[2], x[3], x[4]) - 145) <= 29;
}

static void mark_turns(const peptide *p, char *ss) {
    for (int64_t i = 1; i + 1 < p->n; i++) {
        if (ss[i] != '-') continue;
        int inside = 0;
        for (int stride = 3; stride <= 5; stride++)
            for (int k = 1; k < stride && k <= i; k++) inside |= p->turn[i - k] >> (stride - 3) & 1;
        if (inside) ss[i] = 'T';
        else if (bent(p, i)) ss[i] = 'S';
    }
}

static mf_status assign(peptide *p, char *ss, int ppii) {
    MF_TRY(find_bonds(p));
    MF_TRY(find_ladders(p));
    join_bulges(p);
    memset(ss, '-', (size_t)p->n);
    for (int64_t k = 0; k < p->n_ladders; k++) {
        const ladder *l = &p->ladders[k];
        if (l->size == 0) continue;
        mark(ss, l->i1, l->i2, l->size > 1 ? 'E' : 'B');
        mark(ss, l->j1, l->j2, l->size > 1 ? 'E' : 'B');
    }
    for (int stride = 3; stride <= 5; stride++)
        for (int64_t i = 0; i + stride < p->n; i++)
            if (p->segment[i] == p->segment[i + stride] && bound(p, i + stride, i)) p->turn[i] |= (unsigned char)(1 << (stride - 3));
    mark_helices(p, ss, 4, 'H', NULL);
    mark_helices(p, ss, 3, 'G', "-G");
    mark_helices(p, ss, 5, 'I', "-IH");
    mark_turns(p, ss);
    if (ppii == 0) return MF_OK;
    int64_t run = 0;    /* extended residues up to i; the reference program looks no further than the last but two start */
    for (int64_t i = 1; i < p->n; i++) {
        run = extended(p, i) ? run + 1 : 0;
        if (run < ppii || i - ppii + 1 + 3 >= p->n) continue;
        for (int64_t k = i - ppii + 1; k <= i; k++)
            if (ss[k] == '-') ss[k] = 'P';
    }
    return MF_OK;
}

static mf_status check_ppii(int ppii) {
    if (ppii == 0 || ppii == 2 || ppii == 3) return MF_OK;
    return mf__fail(MF_EVALUE, "secondary structure: a polyproline helix takes 2 or 3 residues (0: none are looked for), not %d", ppii);
}

mf_status mf_backbone_dssp(char *letters, const double *backbone, const int32_t *chain, const unsigned char *proline, int64_t n, int ppii) {
    MF_TRY(check_ppii(ppii));
    if (n < 0 || n >= INT32_MAX) return mf__fail(MF_EVALUE, "secondary structure: %lld residues", (long long)n);
    peptide p = {0};
    char *ss = malloc((size_t)(n ? n : 1));
    mf_status status = MF_OK;
    if (!ss) { status = mf__fail(MF_ENOMEM, "secondary structure: no memory for %lld residues", (long long)n); goto out; }
    MF_TRY_OUT(reserve(&p, n));
    for (int64_t i = 0, last = 0; i < n; i++) {
        int64_t before = p.n;
        append(&p, i, backbone + 12 * i, chain && chain[i] != chain[last], i, proline && proline[i]);
        if (p.n > before) last = i;
    }
    MF_TRY_OUT(assign(&p, ss, ppii));
    memset(letters, '?', (size_t)n);
    for (int64_t k = 0; k < p.n; k++) letters[p.row[k]] = ss[k];
out:
    release(&p);
    free(ss);
    return status;
}

mf_status mf_structure_dssp(char *letters, const mf_structure *s, int model, int ppii) {
    MF_TRY(check_ppii(ppii));
    int64_t first, last;
    MF_TRY(mf__model_chains(&first, &last, s, model, "secondary structure"));
    mf_structure_counts counts;
    mf_structure_count(s, &counts);
    peptide p = {0};
    mf_status status = MF_OK;
    char *ss = malloc((size_t)(counts.residues + 1));
    if (!ss) { status = mf__fail(MF_ENOMEM, "secondary structure: no memory for %lld residues", (long long)counts.residues); goto out; }
    MF_TRY_OUT(reserve(&p, counts.residues));
    memset(letters, ' ', (size_t)counts.residues);
    for (int64_t c = first, last_chain = -1; c < last; c++) {
        mf_chain_info chain;
        MF_TRY_OUT(mf_structure_chain(s, c, &chain));
        if (chain.polymer != MF_POLYMER_PROTEIN) continue;
        for (int64_t r = chain.first_residue; r < chain.first_residue + chain.residues; r++) {
            mf_residue_info residue;
            double backbone[12];
            int64_t before = p.n;
            MF_TRY_OUT(mf_structure_residue(s, r, &residue));
            if (residue.label == 0) continue;
            letters[r] = '?';
            if (!mf__atom_of(backbone, s, &residue, "N") || !mf__atom_of(backbone + 3, s, &residue, "CA") ||
                !mf__atom_of(backbone + 6, s, &residue, "C") || !mf__atom_of(backbone + 9, s, &residue, "O")) continue;
            append(&p, r, backbone, c != last_chain, residue.label, strcmp(mf_structure_text(s, MF_TEXT_RESIDUE, r), "PRO") == 0);
            if (p.n > before) last_chain = c;
        }
    }
    MF_TRY_OUT(assign(&p, ss, ppii));
    for (int64_t k = 0; k < p.n; k++) letters[p.row[k]] = ss[k];
out:
    release(&p);
    free(ss);
    return status;
}
