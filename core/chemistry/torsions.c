/* torsions.c: backbone torsions as IUPAC names them, sugar pucker, and a protein backbone made of its torsions.
 *
 *   protein   phi C- N CA C   psi N CA C N+   omega CA C N+ CA+ (of the residue before the bond, as psi is)
 *   nucleic   alpha O3'- P O5' C5'   beta P O5' C5' C4'   gamma O5' C5' C4' C3'   delta C5' C4' C3' O3'
 *             epsilon C4' C3' O3' P+   zeta C3' O3' P+ O5'+   chi O4' C1' N9 C4, O4' C1' N1 C2, of pseudouridine O4' C1' C5 C4
 *   pucker    phase P and amplitude nu_max of Altona and Sundaralingam (1972), from the five torsions of the ring
 *
 * - and + are the residues before and after in the polymer, where a bond of at most 2.5 angstrom leads there. The torsions
 * that models use are others (lua/moonfold/atoms); these are for looking at structures. */
#include "chemistry.h"
#include <string.h>

enum { RESIDUES = 3 };    /* the one before, the residue itself, the one after */
typedef struct window {
    const mf_structure *s;
    mf_residue_info residue[RESIDUES];
    int there[RESIDUES];
} window;

/* The dihedral of four atoms; "-" and "+" before a name: of the residue before and after. */
static double measure(const window *w, const char *const names[4]) {
    double x[4][3];
    for (int k = 0; k < 4; k++) {
        int at = names[k][0] == '-' ? 0 : names[k][0] == '+' ? 2 : 1;
        if (!w->there[at] || !mf__atom_of(x[k], w->s, &w->residue[at], names[k] + (at != 1))) return NAN;
    }
    return mf__dihedral(x[0], x[1], x[2], x[3]);
}

static void protein(double *out, const window *w) {
    out[MF_TORSION_PHI] = measure(w, (const char *const[]){"-C", "N", "CA", "C"});
    out[MF_TORSION_PSI] = measure(w, (const char *const[]){"N", "CA", "C", "+N"});
    out[MF_TORSION_OMEGA] = measure(w, (const char *const[]){"CA", "C", "+N", "+CA"});
}

static void pucker(double *out, const window *w) {
    static const char *const ring[5][4] = {
        {"C4'", "O4'", "C1'", "C2'"}, {"O4'", "C1'", "C2'", "C3'"}, {"C1'", "C2'", "C3'", "C4'"},
        {"C2'", "C3'", "C4'", "O4'"}, {"C3'", "C4'", "O4'", "C1'"},
    };
    const double degree = 3.14159265358979323846 / 180;
    double nu[5];
    for (int k = 0; k < 5; k++) nu[k] = measure(w, ring[k]);
    double sine = (nu[4] + nu[1] - nu[3] - nu[0]) / (2 * (sin(36 * degree) + sin(72 * degree)));
    if (!isfinite(sine) || !isfinite(nu[2])) return;
    double phase = atan2(sine, nu[2]) / degree;
    out[MF_TORSION_PUCKER] = phase < 0 ? phase + 360 : phase;
    out[MF_TORSION_PUCKER_AMPLITUDE] = sqrt(sine * sine + nu[2] * nu[2]);
}

static void nucleic(double *out, const window *w) {
    static const char *const quartets[6][4] = {
        {"-O3'", "P", "O5'", "C5'"}, {"P", "O5'", "C5'", "C4'"}, {"O5'", "C5'", "C4'", "C3'"},
        {"C5'", "C4'", "C3'", "O3'"}, {"C4'", "C3'", "O3'", "+P"}, {"C3'", "O3'", "+P", "+O5'"},
    };
    for (int k = 0; k < 6; k++) out[MF_TORSION_ALPHA + k] = measure(w, quartets[k]);
    double n9[3];
    int purine = mf__atom_of(n9, w->s, &w->residue[1], "N9"), by_carbon = !purine && mf__carbon_glycoside(w->s, &w->residue[1]);
    out[MF_TORSION_CHI] = purine      ? measure(w, (const char *const[]){"O4'", "C1'", "N9", "C4"})
                          : by_carbon ? measure(w, (const char *const[]){"O4'", "C1'", "C5", "C4"})
                                      : measure(w, (const char *const[]){"O4'", "C1'", "N1", "C2"});
    pucker(out, w);
}

static int joined(const mf_structure *s, const mf_residue_info *a, const mf_residue_info *b, int polymer) {
    double x[3], y[3];
    int is_protein = polymer == MF_POLYMER_PROTEIN;
    return mf__atom_of(x, s, a, is_protein ? "C" : "O3'") && mf__atom_of(y, s, b, is_protein ? "N" : "P") && mf__distance(x, y) <= MF__JOINED;
}

mf_status mf_structure_torsions(double *angles, const mf_structure *s, int model) {
    int64_t first, last;
    MF_TRY(mf__model_chains(&first, &last, s, model, "torsions"));
    mf_structure_counts counts;
    mf_structure_count(s, &counts);
    for (int64_t k = 0; k < counts.residues * MF_TORSION_COUNT; k++) angles[k] = NAN;
    for (int64_t c = first; c < last; c++) {
        mf_chain_info chain;
        MF_TRY(mf_structure_chain(s, c, &chain));
        if (chain.polymer == MF_POLYMER_NONE) continue;
        window w = {.s = s};
        int64_t row = -1;    /* of the residue in the middle of the window */
        for (int64_t r = chain.first_residue; r <= chain.first_residue + chain.residues; r++) {
            mf_residue_info next = {0};
            int end = r == chain.first_residue + chain.residues;
            if (!end) {
                MF_TRY(mf_structure_residue(s, r, &next));
                if (next.label == 0) continue;
            }
            w.residue[2] = next;
            w.there[2] = !end && w.there[1] && joined(s, &w.residue[1], &next, chain.polymer);
            if (w.there[1]) (chain.polymer == MF_POLYMER_PROTEIN ? protein : nucleic)(angles + MF_TORSION_COUNT * row, &w);
            w.residue[0] = w.residue[1];
            w.there[0] = w.there[2];    /* joined to what is now the middle */
            w.residue[1] = next;
            w.there[1] = !end;
            row = r;
        }
    }
    return MF_OK;
}

/* d such that c-d is `bond` long, b-c-d makes `angle` and a-b-c-d the torsion, both in degrees. */
static void place(double *d, const double *a, const double *b, const double *c, double bond, double angle, double torsion) {
    const double degree = 3.14159265358979323846 / 180;
    double x[3], y[3], z[3], length = mf__distance(b, c), norm = 0, along = -bond * cos(angle * degree);
    double up = bond * sin(angle * degree) * cos(torsion * degree), side = bond * sin(angle * degree) * sin(torsion * degree);
    for (int k = 0; k < 3; k++) x[k] = (c[k] - b[k]) / length;
    for (int k = 0; k < 3; k++) {
        int p = (k + 1) % 3, q = (k + 2) % 3;
        z[k] = (b[p] - a[p]) * x[q] - (b[q] - a[q]) * x[p];
        norm += z[k] * z[k];
    }
    for (int k = 0; k < 3; k++) z[k] /= sqrt(norm);
    for (int k = 0; k < 3; k++) {
        int p = (k + 1) % 3, q = (k + 2) % 3;
        y[k] = z[p] * x[q] - z[q] * x[p];
    }
    for (int k = 0; k < 3; k++) d[k] = c[k] + along * x[k] + up * y[k] + side * z[k];
}

mf_status mf_backbone_build(double *xyz, const double *torsions, int64_t n) {
    for (int64_t i = 0; i < 3 * n; i++)
        if (isinf(torsions[i])) return mf__fail(MF_EVALUE, "backbone: torsion %lld of residue %lld is infinite", (long long)(i % 3 + 1), (long long)(i / 3 + 1));
    for (int64_t i = 0; i < n; i++) {
        const double *t = torsions + 3 * i, *before = t - 3;
        double *atom = xyz + 15 * i, *N = atom, *CA = atom + 3, *C = atom + 6, *O = atom + 9, *CB = atom + 12;
        if (i == 0) {
            static const double start[9] = {0, 0, 0, 1.458, 0, 0, 1.458 + 0.5465, 1.4237, 0};    /* 111.0 degrees at CA, 1.525 long */
            memcpy(N, start, sizeof start);
        } else {
            double *n0 = N - 15, *ca0 = CA - 15, *c0 = C - 15;
            place(N, n0, ca0, c0, 1.329, 117.2, isnan(before[1]) ? 180 : before[1]);
            place(CA, ca0, c0, N, 1.458, 121.7, isnan(before[2]) ? 180 : before[2]);
            place(C, c0, N, CA, 1.525, 111.0, isnan(t[0]) ? 180 : t[0]);
        }
        place(O, N, CA, C, 1.231, 120.1, isnan(t[1]) ? 0 : t[1] + 180);
        place(CB, C, N, CA, 1.530, 110.4, -122.6);
    }
    return MF_OK;
}
