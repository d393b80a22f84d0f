/* chemistry.h: what the files of this room share: a model's residues, atoms by name, angles. The room stands on the
 * public structure functions, so it sees a structure as any other program does. */
#ifndef MF_CHEMISTRY_CHEMISTRY_H
#define MF_CHEMISTRY_CHEMISTRY_H
#include "../base/error.h"
#include <math.h>

/* The chains [first, last) of a model, which stand together. `what` names the caller in the error text. */
mf_status mf__model_chains(int64_t *first, int64_t *last, const mf_structure *s, int model, const char *what);
/* Coordinates of the residue's atom of this name (' also as *), the first if there are several; 0 where it has none. */
int mf__atom_of(double xyz[3], const mf_structure *s, const mf_residue_info *residue, const char *name);
/* A polymer's representative atom: CA, or C4' of nucleotides. */
int mf__representative(double xyz[3], const mf_structure *s, const mf_residue_info *residue, int polymer);

/* A base that hangs on C5, as pseudouridine's: its C1' is bonded there. O2 and O4, C2 and C4, N1 and C5 have changed places. */
int mf__carbon_glycoside(const mf_structure *s, const mf_residue_info *residue);

/* Dihedral a-b-c-d in degrees, IUPAC sign, (-180, 180]; NaN where three points are in line. */
double mf__dihedral(const double *a, const double *b, const double *c, const double *d);

static inline double mf__distance(const double *a, const double *b) {
    double u = a[0] - b[0], v = a[1] - b[1], w = a[2] - b[2];
    return sqrt(u * u + v * v + w * w);
}

/* A longer C-N or O3'-P distance is a break in the chain. */
#define MF__JOINED 2.5
#endif
