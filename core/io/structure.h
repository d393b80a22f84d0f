/* structure.h: a structure from the inside, and how readers hand over what they found.
 *
 *     models > chains > residues > atoms, four flat arrays; each level names the range of the next
 *
 * A reader appends one mf__row per atom record, in file order, and mf__assemble makes the structure of them: it
 * groups rows into chains and residues wherever they lie in the file, keeps one location per atom, and decides
 * what is polymer. Strings are numbers of `names`. */
#ifndef MF_IO_STRUCTURE_H
#define MF_IO_STRUCTURE_H
#include "names.h"

typedef struct mf__chain {
    int32_t id, entity;
    int64_t first_residue, residues;
    int model, polymer;
} mf__chain;

typedef struct mf__residue {
    int32_t name, asym, entity;
    int number, label;            /* label 0: not of the polymer */
    int64_t first_atom, atoms;
    char insertion, code;
    unsigned char hetero;
} mf__residue;

typedef struct mf__atom {
    double x, y, z, occupancy, b;
    int32_t name, element;
    int serial;
    char altloc;                  /* 0: none */
    signed char charge;
} mf__atom;

/* What a chain or a ligand is one of. Its sequence is `monomers` names from first_monomer on in mf_structure.monomers;
 * residue `label` of a chain of it is the monomer of that number, from 1. */
typedef struct mf__entity {
    int32_t id, description;
    int kind, polymer;            /* MF_ENTITY_, MF_POLYMER_ */
    int64_t first_monomer, monomers;
} mf__entity;

typedef struct mf__assembly {
    int32_t id, details, oligomer;
    int count;                    /* oligomeric_count, 0 where absent */
} mf__assembly;

struct mf_structure {
    mf__names names;
    int32_t id, title, method, date, space_group;
    double resolution;            /* angstrom, 0 where absent */
    double cell[6];               /* angstrom and degrees; a is 0 where absent */
    int models;
    int64_t records, alternates;  /* of the file, kept or not */
    mf__chain *chains;
    mf__residue *residues;
    mf__atom *atoms;
    mf__entity *entities;
    int32_t *monomers;            /* names */
    mf__assembly *assemblies;
    int64_t n_entities, n_monomers, n_assemblies, entity_room, monomer_room, assembly_room;
    int64_t n_chains, n_residues, n_atoms;
    int64_t chain_room, residue_room, atom_room;
};

typedef struct mf__row {
    mf__atom atom;
    int32_t chain, asym, entity, residue;   /* names */
    int model;                        /* from 1 */
    int number, label;                /* label 0: absent */
    char insertion;
    unsigned char hetero, ter;        /* ter: a TER record follows */
} mf__row;

typedef struct mf__parent { int32_t name; mf__kind kind; } mf__parent;       /* a modified residue of this file */
typedef struct mf__polymer { int32_t entity; int polymer; } mf__polymer;     /* _entity_poly */

typedef struct mf__rows {
    mf_structure *s;              /* names are added here while reading */
    const char *path;             /* for error texts */
    mf__row *rows;
    mf__parent *parents;
    mf__polymer *polymers;
    int64_t count, room, n_parents, parent_room, n_polymers, polymer_room;
    int labelled;                 /* the file says which residues are of a polymer (label_seq_id) */
    int altlocs;                  /* MF_ALTLOC_ */
    int models;                   /* later ones are left out; 0: none are */
} mf__rows;

mf_status mf__rows_add(mf__rows *rows, mf__row **out);
mf_status mf__rows_add_parent(mf__rows *rows, const char *name, int64_t bytes, const char *parent, int64_t parent_bytes);
mf_status mf__rows_add_polymer(mf__rows *rows, int32_t entity, int polymer);
void mf__rows_free(mf__rows *rows);
mf_status mf__assemble(mf__rows *rows);

/* Entities, their sequences and assemblies, in the order of the file. An entity is made when it is first named. */
mf_status mf__find_entity(mf__entity **out, mf_structure *s, const char *id, int64_t bytes);
mf_status mf__add_monomer(mf_structure *s, mf__entity *entity, const char *name, int64_t bytes);    /* of the entity added to last */
mf_status mf__add_assembly(mf__assembly **out, mf_structure *s, const char *id, int64_t bytes);

/* Readers: `text` has no zero bytes and ends with one. */
mf_status mf__read_pdb(mf__rows *rows, const char *text, int64_t bytes);
mf_status mf__read_mmcif(mf__rows *rows, const char *text, int64_t bytes);

/* Room for one more element at the end of an array; the old block survives a failure. */
mf_status mf__reserve(void **items, int64_t count, int64_t *room, size_t size);
/* "N" of "NA" is not sodium: the symbol that an atom name in PDB columns 13-16 stands for, as a name number. */
mf_status mf__guess_element(int32_t *out, mf__names *names, const char columns[4], const char *residue, int hetero);
#endif
