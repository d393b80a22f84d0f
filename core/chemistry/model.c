/* model.c: finding one's way in a structure from the outside. */
#include "chemistry.h"
#include <string.h>

mf_status mf__model_chains(int64_t *first, int64_t *last, const mf_structure *s, int model, const char *what) {
    mf_structure_counts counts;
    mf_structure_count(s, &counts);
    if (model < 1 || model > counts.models)
        return mf__fail(MF_EVALUE, "%s: there is no model %d, the structure has %lld", what, model, (long long)counts.models);
    mf_chain_info chain;
    *first = 0;
    for (; *first < counts.chains; ++*first) {
        MF_TRY(mf_structure_chain(s, *first, &chain));
        if (chain.model == model) break;
    }
    for (*last = *first; *last < counts.chains; ++*last) {
        MF_TRY(mf_structure_chain(s, *last, &chain));
        if (chain.model != model) break;
    }
    return MF_OK;
}

static int same_name(const char *a, const char *b) {
    for (; *a && *b; a++, b++)
        if (*a != *b && !((*a == '\'' || *a == '*') && (*b == '\'' || *b == '*'))) return 0;
    return *a == *b;
}

int mf__atom_of(double xyz[3], const mf_structure *s, const mf_residue_info *residue, const char *name) {
    for (int64_t a = residue->first_atom; a < residue->first_atom + residue->atoms; a++) {
        mf_atom_info atom;
        if (!same_name(mf_structure_text(s, MF_TEXT_ATOM, a), name) || mf_structure_atom(s, a, &atom) != MF_OK) continue;
        xyz[0] = atom.x;
        xyz[1] = atom.y;
        xyz[2] = atom.z;
        return 1;
    }
    return 0;
}

int mf__representative(double xyz[3], const mf_structure *s, const mf_residue_info *residue, int polymer) {
    return mf__atom_of(xyz, s, residue, polymer == MF_POLYMER_PROTEIN ? "CA" : "C4'");
}

int mf__carbon_glycoside(const mf_structure *s, const mf_residue_info *residue) {
    double c1[3], c5[3];
    return mf__atom_of(c1, s, residue, "C1'") && mf__atom_of(c5, s, residue, "C5") && mf__distance(c1, c5) < 1.9;
}

double mf__dihedral(const double *a, const double *b, const double *c, const double *d) {
    double u[3], v[3], w[3], m[3], n[3];
    for (int k = 0; k < 3; k++) {
        u[k] = b[k] - a[k];
        v[k] = c[k] - b[k];
        w[k] = d[k] - c[k];
    }
    for (int k = 0; k < 3; k++) {
        int p = (k + 1) % 3, q = (k + 2) % 3;
        m[k] = u[p] * v[q] - u[q] * v[p];
        n[k] = v[p] * w[q] - v[q] * w[p];
    }
    double length = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    double sine = length * (u[0] * n[0] + u[1] * n[1] + u[2] * n[2]), cosine = m[0] * n[0] + m[1] * n[1] + m[2] * n[2];
    if (sine == 0 && cosine == 0) return NAN;
    return atan2(sine, cosine) * (180 / 3.14159265358979323846);
}
