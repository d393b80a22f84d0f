/* structure.h: a structure from the inside, and how readers hand over what they found.
 *
 *     models > chains > residues > atoms, four flat arrays; each level names the range of the next
 *
 * A reader hands over one mf__row per atom record, in file order; it goes into the structure at once (rows.c). mf__assemble
 * decides what is polymer and puts residues and atoms in order. Strings are numbers of `names`. */
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

typedef struct mf__header mf__header;
struct mf_structure {
    mf__names names;
    mf__header *header;           /* what `names` stands on, and whose entities, monomers and assemblies are used; or NULL */
    mf__map entity_of;            /* of a name: the entity with that id */
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

/* An atom record on its way into the structure. */
typedef struct mf__row {
    mf__atom atom;
    int32_t chain, asym, entity, residue;   /* names */
    int model;                        /* from 1 */
    int number, label;                /* label 0: absent */
    char insertion;
    unsigned char hetero;
} mf__row;

/* What is known of a name, by its number; all zero where nothing is. */
typedef struct mf__fact {
    int64_t residue;                  /* the last residue with an atom of the name, counted over all pieces, + 1 */
    int32_t atom;                     /* that atom */
    int32_t chain_entity, entity;     /* what PDB's header declares of a chain id and a residue name: an entity's number + 1 */
    int32_t own_entity;               /* of a chain id: made since what the header declares is not of its atoms */
    unsigned char flags;              /* what an atom of that name says of its residue */
    unsigned char knows_flags, knows_kind;
    signed char polymer;              /* of an entity's id: _entity_poly's type, MF_POLYMER_ */
    unsigned char ligand;             /* of an entity's id: _entity's type says that it is no polymer */
    mf__kind kind;                    /* of a residue's name */
} mf__fact;

typedef struct mf__build mf__build;
typedef struct mf__rows {
    mf_structure *s;                  /* what is being made */
    const char *path;                 /* for error texts */
    int64_t count;                    /* atom records so far, those of earlier pieces too */
    int labelled;                     /* the file says which residues are of a polymer (label_seq_id, not only of water) */
    int declared;                     /* PDB's header says which entity a chain or a ligand is of */
    int32_t water;                    /* the entity of water that it declares, number + 1 */
    int altlocs;                      /* MF_ALTLOC_ */
    int complete;                     /* residues that the header says nothing of get entities too */
    int models;                       /* later ones are left out; 0: none are */
    int ended;                        /* the chain of the piece that comes had its TER already */
    mf__fact *facts;
    int64_t n_facts, fact_room;
    int64_t passed;                   /* residues of earlier pieces */
    mf__build *build;
    mf__row row;                      /* the last, which is not in the structure yet */
    int pending;
} mf__rows;

/* A row to be filled in, all zero; it goes into the structure when the next one is asked for. */
mf_status mf__rows_add(mf__rows *rows, mf__row **out);
mf_status mf__rows_ter(mf__rows *rows);    /* the chain of the last row ends here */
mf_status mf__rows_add_parent(mf__rows *rows, const char *name, int64_t bytes, const char *parent, int64_t parent_bytes);
mf_status mf__rows_add_polymer(mf__rows *rows, int32_t entity, int polymer);
mf_status mf__rows_add_ligand(mf__rows *rows, int32_t entity, int ligand);
mf_status mf__rows_fact(mf__rows *rows, mf__fact **out, int32_t name);    /* stands until another is asked for */
mf_status mf__rows_kind(mf__rows *rows, mf__kind *out, int32_t name);      /* of a residue's name: known, or what the file says of it */
mf_status mf__assemble(mf__rows *rows);    /* after the last row */
/* A further structure is to be made of the rows that come: one that stands on the names of rows->s (mf__structure_like). */
void mf__rows_continue(mf__rows *rows, mf_structure *s);
void mf__rows_free(mf__rows *rows);

/* The header of s moves to where structures like s share it: names so far, entities, monomers and assemblies. */
mf_status mf__share_header(mf_structure *s);
mf_status mf__structure_like(mf_structure **out, const mf_structure *s);    /* without chains; s has been shared */

/* 0 for a cube of 1 angstrom, which says that there is no crystal, and where a length is not above 0. */
int mf__set_cell(mf_structure *s, const double cell[6]);
/* Entities, their sequences and assemblies, in the order of the file. An entity is made when it is first named. */
mf_status mf__find_entity(mf__entity **out, mf_structure *s, const char *id, int64_t bytes);
mf_status mf__new_entity(mf_structure *s, int32_t *number, int kind, int32_t description);    /* its id and *number: how many there are */
mf_status mf__add_monomer(mf_structure *s, mf__entity *entity, const char *name, int64_t bytes);    /* of the entity added to last */
mf_status mf__add_assembly(mf__assembly **out, mf_structure *s, const char *id, int64_t bytes);

/* Room for one more element at the end of an array; the old block survives a failure. */
mf_status mf__reserve(void **items, int64_t count, int64_t *room, size_t size);
int mf__is_element(const char *symbol, int64_t bytes);    /* in capitals */
int mf__two_letter_name(const char *name);                /* "BR" and "CL1" of bromine and chlorine, whatever the residue */
/* "N" of "NA" is not sodium: the symbol that an atom name in PDB columns 13-16 stands for, as a name number. */
mf_status mf__guess_element(int32_t *out, mf__names *names, const char columns[4], const char *residue, int hetero);
#endif
