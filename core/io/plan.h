/* plan.h: entities and asyms: how mmCIF names the parts of a structure, settled before the first atom is written.
 *
 *     part      an entity: polymer chains of one kind and one sequence; each kind of ligand; water
 *     asym      a polymer chain (the same in all models), a ligand, or the waters of a chain
 *     unit      a monomer of a part's sequence
 *
 * What the structure names itself keeps its name. Else parts are numbered, a polymer's asym has its chain's id where that is free, and
 * others get A, B, ..., AA, ... that nobody has. Strings are numbers of the plan's own names: it outlives the structures. */
#ifndef MF_IO_PLAN_H
#define MF_IO_PLAN_H
#include "structure.h"

typedef struct mf__unit {
    int32_t name;
    int number;                   /* label_seq_id; the same for several names at one place */
    char code;                    /* one letter, 'X' unknown */
} mf__unit;

typedef struct mf__part {
    int32_t id, description;
    int kind, polymer;            /* MF_ENTITY_, MF_POLYMER_ */
    int seen, own;                /* MF_POLYMER_ of the first chain that has it, of those that are one of it (own) if there are any */
    int64_t first, units;         /* its sequence */
} mf__part;

typedef struct mf__asym {
    int32_t id, chain;            /* chain: the author's id */
    int polymer;                  /* has residues with labels */
    int64_t part, chain_index;    /* chain_index: where it was first seen */
} mf__asym;

/* A residue of a polymer at its place in the sequence of its part. */
typedef struct mf__site { int64_t part, residue; int number; } mf__site;

typedef struct mf__plan {
    mf__names names;
    mf__part *parts;
    mf__asym *asyms;
    mf__unit *units;
    int64_t n_parts, n_asyms, n_units, part_room, asym_room, unit_room;
    int64_t next_part, next_asym; /* numbers and letters tried so far */
    int frozen;                   /* the heading is written: no part or asym may come */
    mf__map by_id, by_content, by_asym, states;
    mf__map taken;                /* ids of entities that residues name */
    /* of the structure at hand */
    int32_t *text;                /* of each of its names: the plan's number */
    signed char *water;           /* of each of its names: is it one of water; -1: not asked yet */
    int64_t *asym, *part;         /* of each residue; a file may count one asym to several entities */
    int *label;                   /* of each residue, as written */
    mf__map alike;                /* how many residues of a name and number a chain has had */
    mf__site *sites;              /* of the part or parts at hand */
    int64_t n_sites, site_room;
} mf__plan;

/* Plans s; or, when a first call has planned and `frozen` is set, finds the parts of s in that: MF_EVALUE for what is not there. */
mf_status mf__plan_take(mf__plan *p, const mf_structure *s);
void mf__plan_free(mf__plan *p);
#endif
