/* base_frames.c: the standard reference frame of a base: Olson et al. (2001) J Mol Biol 313, 229-237.
 *
 *          y |   the base, C1' at (-2.5, 5.4)
 *            |
 *     -------+------- x, into the major groove        z = x cross y, toward the reader: 5' to 3' of the base's strand
 *            |
 *            |   its partner
 *
 * Standard bases lie in z = 0 of an ideal Watson-Crick pair (table 1 of the paper); the other base of the pair is turned about x. The
 * frame of a residue is the rigid motion that superposes the ring of the standard base on its own, atoms weighted equally: nine atoms of
 * a purine, six of a pyrimidine, at least five or three of them. With so many the points span a plane; where a file puts them on a line
 * or a spot there is no frame. Modified bases count as their parents, by the names of the ring that they share. The ring of
 * pseudouridine, which hangs on C5, is read from its other side: C5 stands where uridine has N1. */
#include "chemistry.h"
#include <stdlib.h>
#include <string.h>

enum { RING = 9, PURINE = 9, PYRIMIDINE = 6 };

static const char *const purine_names[PURINE] = {"N9", "C8", "N7", "C5", "C6", "N1", "C2", "N3", "C4"};
static const char *const pyrimidine_names[PYRIMIDINE] = {"N1", "C2", "N3", "C4", "C5", "C6"};
static const char *const turned_names[PYRIMIDINE] = {"C5", "C4", "N3", "C2", "N1", "C6"};

/* x and y of the ring in the order of the names, angstrom. */
static const struct standard { char code; int atoms; double xy[RING][2]; } standards[] = {
    {'A', PURINE, {{-1.291, 4.498}, {0.024, 4.897}, {0.877, 3.902}, {0.071, 2.771}, {0.369, 1.398}, {-0.668, 0.532}, {-1.912, 1.023},
                   {-2.320, 2.290}, {-1.267, 3.124}}},
    {'G', PURINE, {{-1.289, 4.551}, {0.023, 4.962}, {0.870, 3.969}, {0.071, 2.833}, {0.424, 1.460}, {-0.700, 0.641}, {-1.999, 1.087},
                   {-2.342, 2.364}, {-1.265, 3.177}}},
    {'C', PYRIMIDINE, {{-1.285, 4.542}, {-1.472, 3.158}, {-0.391, 2.344}, {0.837, 2.868}, {1.056, 4.275}, {-0.023, 5.068}}},
    {'T', PYRIMIDINE, {{-1.284, 4.500}, {-1.462, 3.135}, {-0.298, 2.407}, {0.994, 2.897}, {1.106, 4.338}, {-0.024, 5.057}}},
    {'U', PYRIMIDINE, {{-1.284, 4.500}, {-1.462, 3.131}, {-0.302, 2.397}, {0.989, 2.884}, {1.089, 4.311}, {-0.024, 5.053}}},
};

static const struct standard *standard_of(char code) {
    for (size_t k = 0; k < sizeof standards / sizeof *standards; k++)
        if (standards[k].code == code) return &standards[k];
    return NULL;
}

/* Do the points of weight one span a plane? The sum of the principal 2x2 minors of their scatter is the sum of its pairs of eigenvalues. */
static int spread(const double *x, const double *weight, int atoms) {
    double centre[3] = {0}, S[6] = {0}, n = 0;
    for (int k = 0; k < atoms; k++) {
        n += weight[k];
        for (int a = 0; a < 3; a++) centre[a] += weight[k] * x[3 * k + a];
    }
    for (int k = 0; k < atoms; k++) {
        double d[3];
        for (int a = 0; a < 3; a++) d[a] = weight[k] * (x[3 * k + a] - centre[a] / n);
        for (int a = 0; a < 3; a++) {
            S[a] += d[a] * d[a];
            S[3 + a] += d[a] * d[(a + 1) % 3];
        }
    }
    double trace = S[0] + S[1] + S[2];
    return S[0] * S[1] - S[3] * S[3] + S[1] * S[2] - S[4] * S[4] + S[2] * S[0] - S[5] * S[5] > 1e-6 * trace * trace;
}

/* The rows of one residue: standard ring, own ring, weights. Returns 0, and weights of 0, where they fix no frame. */
static int load(double *standard, double *own, double *weight, const mf_structure *s, const mf_residue_info *residue) {
    const struct standard *base = standard_of(residue->code);
    if (!base) return 0;
    const char *const *names = base->atoms == PURINE ? purine_names : mf__carbon_glycoside(s, residue) ? turned_names : pyrimidine_names;
    int found = 0;
    for (int k = 0; k < base->atoms; k++) {
        memcpy(standard + 3 * k, base->xy[k], sizeof base->xy[k]);
        int there = mf__atom_of(own + 3 * k, s, residue, names[k]);
        weight[k] = there;
        found += there;
    }
    if (2 * found >= base->atoms && spread(own, weight, base->atoms)) return 1;
    memset(weight, 0, RING * sizeof *weight);
    return 0;
}

/* Tensors of the rings and the packing that says which nine rows are a residue's; then one superposition of them all. */
static mf_status superpose(mf_tensor **R, mf_tensor **t, mf_tensor **rmsd, mf_ctx *ctx, const double *rows, int64_t n) {
    mf_tensor *standard = NULL, *own = NULL, *weight = NULL;
    mf_packing *packing = NULL;
    mf_status status = MF_OK;
    int64_t *lengths = malloc((size_t)(n ? n : 1) * sizeof *lengths);
    if (!lengths) return mf__fail(MF_ENOMEM, "base frames: no memory for %lld residues", (long long)n);
    for (int64_t i = 0; i < n; i++) lengths[i] = RING;
    MF_TRY_OUT(mf_packing_create(&packing, ctx, lengths, n));
    MF_TRY_OUT(mf_tensor_from(&standard, ctx, MF_CPU, MF_FLOAT64, 2, (int64_t[]){RING * n, 3}, rows));
    MF_TRY_OUT(mf_tensor_from(&own, ctx, MF_CPU, MF_FLOAT64, 2, (int64_t[]){RING * n, 3}, rows + 3 * RING * n));
    MF_TRY_OUT(mf_tensor_from(&weight, ctx, MF_CPU, MF_FLOAT64, 1, (int64_t[]){RING * n}, rows + 6 * RING * n));
    status = mf_kabsch(R, t, rmsd, standard, own, weight, packing);
out:
    free(lengths);
    mf_tensor_release(standard);
    mf_tensor_release(own);
    mf_tensor_release(weight);
    mf_packing_release(packing);
    return status;
}

mf_status mf_structure_base_frames(mf_tensor **R, mf_tensor **t, mf_tensor **rmsd, mf_tensor **mask, const mf_structure *s, mf_ctx *ctx, int64_t chain) {
    *R = *t = *rmsd = *mask = NULL;
    mf_chain_info info;
    MF_TRY(mf_structure_chain(s, chain, &info));
    mf_status status = MF_OK;
    int64_t n = 0, room = info.residues ? info.residues : 1;
    for (int64_t r = info.first_residue; r < info.first_residue + info.residues; r++) {
        mf_residue_info residue;
        MF_TRY(mf_structure_residue(s, r, &residue));
        n += residue.label != 0;
    }
    double *rows = calloc((size_t)room, 7 * RING * sizeof *rows);
    unsigned char *present = calloc((size_t)room, 1);
    if (!rows || !present) { status = mf__fail(MF_ENOMEM, "base frames: no memory for %lld residues", (long long)n); goto out; }
    int nucleic = info.polymer == MF_POLYMER_RNA || info.polymer == MF_POLYMER_DNA;
    for (int64_t r = info.first_residue, row = 0; nucleic && r < info.first_residue + info.residues; r++) {
        mf_residue_info residue;
        MF_TRY_OUT(mf_structure_residue(s, r, &residue));
        if (residue.label == 0) continue;
        present[row] = (unsigned char)load(rows + 3 * RING * row, rows + 3 * RING * (n + row), rows + RING * (6 * n + row), s, &residue);
        row++;
    }
    MF_TRY_OUT(mf_tensor_from(mask, ctx, MF_CPU, MF_BOOL, 1, (int64_t[]){n}, present));
    status = superpose(R, t, rmsd, ctx, rows, n);
    if (status != MF_OK) {
        mf_tensor_release(*mask);
        *mask = NULL;
    }
out:
    free(rows);
    free(present);
    return status;
}
