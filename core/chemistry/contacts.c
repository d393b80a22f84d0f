/* contacts.c: residues that touch, atoms that overlap, and the radius of gyration, of the polymers of one model.
 *
 * Ligands, water and hydrogens are left out. Two atoms clash when they are nearer than their van der Waals radii less the
 * overlap that is allowed: 1.5 angstrom between proteins (AlphaFold's), 0.6 where a nucleic acid takes part (RNA-FrameFlow's).
 * Residues next to each other in a chain are bonded and never clash; neither do two sulphurs. */
#include "chemistry.h"
#include "near.h"
#include <stdlib.h>
#include <string.h>

typedef struct cloud {
    int64_t n;
    double *xyz;
    int32_t *atom, *residue, *chain;    /* of the structure, from 0 */
    unsigned char *polymer, *kind;      /* kind: its radius */
} cloud;

enum { CARBON, NITROGEN, OXYGEN, PHOSPHORUS, SULPHUR, SELENIUM, HYDROGEN };
static const double radii[] = {1.7, 1.55, 1.52, 1.8, 1.8, 1.9};

static void cloud_free(cloud *x) {
    free(x->xyz);
    free(x->atom);
    free(x->residue);
    free(x->chain);
    free(x->polymer);
    free(x->kind);
}

static unsigned char kind_of(const mf_structure *s, int64_t atom) {
    const char *element = mf_structure_text(s, MF_TEXT_ELEMENT, atom);
    if (!*element) element = mf_structure_text(s, MF_TEXT_ATOM, atom);
    while (*element >= '0' && *element <= '9') element++;
    switch (*element) {
    case 'H': case 'D': return HYDROGEN;
    case 'N': return NITROGEN;
    case 'O': return OXYGEN;
    case 'P': return PHOSPHORUS;
    case 'S': return element[1] == 'E' || element[1] == 'e' ? SELENIUM : SULPHUR;
    default: return CARBON;
    }
}

/* Every heavy atom of the polymers of the model, or one of each residue. */
static mf_status collect(cloud *x, const mf_structure *s, int model, int each_atom, const char *what) {
    memset(x, 0, sizeof *x);
    int64_t first, last;
    MF_TRY(mf__model_chains(&first, &last, s, model, what));
    mf_structure_counts counts;
    mf_structure_count(s, &counts);
    int64_t most = each_atom ? counts.atoms : counts.residues;
    size_t room = (size_t)(most ? most : 1);
    x->xyz = malloc(3 * room * sizeof *x->xyz);
    x->atom = malloc(room * sizeof *x->atom);
    x->residue = malloc(room * sizeof *x->residue);
    x->chain = malloc(room * sizeof *x->chain);
    x->polymer = malloc(room);
    x->kind = malloc(room);
    if (!x->xyz || !x->atom || !x->residue || !x->chain || !x->polymer || !x->kind)
        return mf__fail(MF_ENOMEM, "%s: no memory for %lld atoms", what, (long long)most);
    for (int64_t c = first; c < last; c++) {
        mf_chain_info chain;
        MF_TRY(mf_structure_chain(s, c, &chain));
        if (chain.polymer == MF_POLYMER_NONE) continue;
        for (int64_t r = chain.first_residue; r < chain.first_residue + chain.residues; r++) {
            mf_residue_info residue;
            MF_TRY(mf_structure_residue(s, r, &residue));
            if (residue.label == 0) continue;
            for (int64_t a = residue.first_atom; a < residue.first_atom + (each_atom ? residue.atoms : 1); a++) {
                double *to = x->xyz + 3 * x->n;
                unsigned char kind = CARBON;
                if (each_atom) {
                    mf_atom_info atom;
                    kind = kind_of(s, a);
                    MF_TRY(mf_structure_atom(s, a, &atom));
                    to[0] = atom.x;
                    to[1] = atom.y;
                    to[2] = atom.z;
                }
                if (kind == HYDROGEN || (!each_atom && !mf__representative(to, s, &residue, chain.polymer))) continue;
                x->atom[x->n] = (int32_t)a;
                x->residue[x->n] = (int32_t)r;
                x->chain[x->n] = (int32_t)c;
                x->polymer[x->n] = (unsigned char)chain.polymer;
                x->kind[x->n++] = kind;
            }
        }
    }
    return MF_OK;
}

mf_status mf_structure_gyration(double *radius, const mf_structure *s, int model) {
    *radius = 0;
    cloud x;
    mf_status status = collect(&x, s, model, 1, "radius of gyration");
    if (status == MF_OK && x.n > 0) {
        double centre[3] = {0, 0, 0}, sum = 0;
        for (int64_t i = 0; i < 3 * x.n; i++) centre[i % 3] += x.xyz[i] / (double)x.n;
        for (int64_t i = 0; i < 3 * x.n; i++) sum += (x.xyz[i] - centre[i % 3]) * (x.xyz[i] - centre[i % 3]);
        *radius = sqrt(sum / (double)x.n);
    }
    cloud_free(&x);
    return status;
}

/* Pairs as they are found, with a number each. */
typedef struct findings {
    int32_t *pair;
    float *value;
    int64_t n, room;
} findings;

static mf_status add(findings *f, int32_t a, int32_t b, double value) {
    if (f->n == f->room) {
        int64_t room = f->room ? 2 * f->room : 1024;
        int32_t *pair = realloc(f->pair, (size_t)(2 * room) * sizeof *pair);
        if (pair) f->pair = pair;
        float *grown = pair ? realloc(f->value, (size_t)room * sizeof *grown) : NULL;
        if (!grown) return mf__fail(MF_ENOMEM, "contacts: no memory for %lld pairs", (long long)room);
        f->value = grown;
        f->room = room;
    }
    f->pair[2 * f->n] = a;
    f->pair[2 * f->n + 1] = b;
    f->value[f->n++] = (float)value;
    return MF_OK;
}

static mf_status hand_over(mf_tensor **pairs, mf_tensor **values, const findings *f, mf_ctx *ctx) {
    static const int32_t nothing[2];
    MF_TRY(mf_tensor_from(pairs, ctx, MF_CPU, MF_INT32, 2, (int64_t[]){f->n, 2}, f->n ? f->pair : nothing));
    mf_status status = mf_tensor_from(values, ctx, MF_CPU, MF_FLOAT32, 1, (int64_t[]){f->n}, f->n ? (const void *)f->value : nothing);
    if (status != MF_OK) {
        mf_tensor_release(*pairs);
        *pairs = NULL;
    }
    return status;
}

static int by_number(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

mf_status mf_structure_contacts(mf_tensor **pairs, mf_tensor **distances, const mf_structure *s, mf_ctx *ctx, const mf_contact_params *params) {
    *pairs = *distances = NULL;
    if (!(params->cutoff > 0) || params->cutoff > 1e6) return mf__fail(MF_EVALUE, "contacts: a cutoff of %g angstrom, expected more than 0", params->cutoff);
    cloud x;
    mf__near near = {0};
    findings f = {0};
    mf_structure_counts counts;
    mf_structure_count(s, &counts);
    double *nearest = NULL;
    int32_t *touched = NULL;
    mf_status status = collect(&x, s, params->model, params->each_atom, "contacts");
    if (status != MF_OK) goto out;
    MF_TRY_OUT(mf__near_open(&near, x.xyz, x.n));
    nearest = malloc((size_t)(counts.residues + 1) * sizeof *nearest);
    touched = malloc((size_t)(counts.residues + 1) * sizeof *touched);
    if (!nearest || !touched) { status = mf__fail(MF_ENOMEM, "contacts: no memory for %lld residues", (long long)counts.residues); goto out; }
    for (int64_t r = 0; r < counts.residues; r++) nearest[r] = INFINITY;
    /* atoms stand in the order of their residues, so one residue's contacts are complete before the next begins */
    for (int64_t i = 0, n_touched = 0; i < x.n; i++) {
        int64_t found = mf__near_after(&near, i, params->cutoff);
        for (int64_t k = 0; k < found; k++) {
            int32_t j = near.found[k], r = x.residue[j];
            if (r == x.residue[i] || (x.chain[i] == x.chain[j] && r - x.residue[i] < params->separation)) continue;
            if (isinf(nearest[r])) touched[n_touched++] = r;
            double d = mf__distance(x.xyz + 3 * i, x.xyz + 3 * (int64_t)j);
            if (d < nearest[r]) nearest[r] = d;
        }
        if (i + 1 < x.n && x.residue[i + 1] == x.residue[i]) continue;
        qsort(touched, (size_t)n_touched, sizeof *touched, by_number);
        for (int64_t k = 0; k < n_touched; k++) {
            MF_TRY_OUT(add(&f, x.residue[i], touched[k], nearest[touched[k]]));
            nearest[touched[k]] = INFINITY;
        }
        n_touched = 0;
    }
    status = hand_over(pairs, distances, &f, ctx);
out:
    cloud_free(&x);
    mf__near_close(&near);
    free(f.pair);
    free(f.value);
    free(nearest);
    free(touched);
    return status;
}

mf_status mf_structure_clashes(mf_tensor **pairs, mf_tensor **depths, const mf_structure *s, mf_ctx *ctx, int model, double allowed) {
    *pairs = *depths = NULL;
    cloud x;
    mf__near near = {0};
    findings f = {0};
    mf_status status = collect(&x, s, model, 1, "clashes");
    if (status != MF_OK) goto out;
    MF_TRY_OUT(mf__near_open(&near, x.xyz, x.n));
    double reach = 2 * radii[SELENIUM] - (allowed >= 0 ? allowed : 0.6);
    for (int64_t i = 0; i < x.n; i++) {
        int64_t found = reach > 0 ? mf__near_after(&near, i, reach) : 0;
        for (int64_t k = 0; k < found; k++) {
            int32_t j = near.found[k];
            if (x.chain[i] == x.chain[j] && x.residue[j] - x.residue[i] <= 1) continue;
            if (x.kind[i] == SULPHUR && x.kind[j] == SULPHUR) continue;
            int proteins = x.polymer[i] == MF_POLYMER_PROTEIN && x.polymer[j] == MF_POLYMER_PROTEIN;
            double overlap = radii[x.kind[i]] + radii[x.kind[j]] - (allowed >= 0 ? allowed : proteins ? 1.5 : 0.6);
            double depth = overlap - mf__distance(x.xyz + 3 * i, x.xyz + 3 * (int64_t)j);
            if (depth > 0) MF_TRY_OUT(add(&f, x.atom[i], x.atom[j], depth));
        }
    }
    status = hand_over(pairs, depths, &f, ctx);
out:
    cloud_free(&x);
    mf__near_close(&near);
    free(f.pair);
    free(f.value);
    return status;
}
