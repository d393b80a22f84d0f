/* build.h: a structure while its rows come in: rows.c adds to it, polymer.c decides what is polymer. */
#ifndef MF_IO_BUILD_H
#define MF_IO_BUILD_H
#include "structure.h"

/* What atom names say of their residue. */
enum { HAS_CA = 1, HAS_N = 2, HAS_C = 4, HAS_O2 = 8, HAS_C4 = 16, HAS_C1 = 32, HAS_C3 = 64, HAS_P = 128 };

/* Stands beside each residue, in order of first appearance. */
typedef struct mf__draft {
    int32_t chain;
    int32_t rival;               /* the first residue at the same place, of another name; or itself */
    int segment;                 /* TER records of the chain before it */
    unsigned char flags;         /* HAS_ */
    unsigned char loser;         /* another name at its place is kept */
    unsigned char polymer;
    unsigned char again;         /* it went on after others: its atoms are found through mf__build.atoms */
    uint64_t altlocs;            /* bit c & 63 of each location c */
    double best;                 /* the highest occupancy */
} mf__draft;

typedef struct mf__run { int32_t residue, atoms; int64_t first; } mf__run;    /* atoms of one residue, one after the other */
typedef struct mf__state { int32_t current, segments; } mf__state;            /* of a chain: its last residue, TER records so far */
typedef struct mf__slots { int32_t *at; int64_t room, count; } mf__slots;     /* open addressing: number + 1, 0 is free */

struct mf__build {
    mf__draft *drafts;           /* of s->residues */
    mf__state *states;           /* of s->chains */
    mf__run *runs;
    int64_t draft_room, state_room, n_runs, run_room;
    int32_t chain, residue;      /* of the last row, -1: none */
    mf__slots chains, residues, places;
    mf__map atoms;               /* (residue, name) of residues with `again` */
};

/* Which residues are of a polymer, their labels and entities, and the kinds of the chains. */
mf_status mf__find_polymers(mf__rows *rows);
/* Places n residues in a sequence of m monomers: at[i] is a position from 0, rising, or -1 for a residue that is not of it. `also`
 * holds second names that count too. must[i]: the residue may not be left out. linked[i]: i - 1 and i are bonded (1), are not
 * (0), or nobody knows (-1); then their numbers tell. *fits 0: there is no way; so it is where finding one would take long. */
typedef struct mf__observed { int32_t name, also; int number; signed char linked; unsigned char must; } mf__observed;
mf_status mf__align(int *fits, int32_t *at, const mf__observed *seen, int64_t n, const int32_t *sequence, int64_t m);
#endif
