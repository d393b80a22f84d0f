/* write.h: a structure file while it is written, one model after another.
 *
 *     open > add, add, ... > commit or abandon
 *
 * The heading comes of the first structure added; each model of each structure becomes the next MODEL. */
#ifndef MF_IO_WRITE_H
#define MF_IO_WRITE_H
#include "file.h"
#include "plan.h"

struct mf_structure_writer {
    mf__writer *file;
    char *path;              /* for error texts */
    int format;              /* MF_FORMAT_AUTO until the first structure is there */
    int models;              /* written so far */
    int alone;               /* one structure is all that comes: a single model needs no MODEL record */
    int64_t serial;          /* of the last atom of the file (mmCIF), -1 before the first */
    mf_status status;        /* the first failure: the file is broken from there on */
    mf__plan plan;           /* of mmCIF; of a PDB file, for its SEQRES */
};

/* Writes every model of s; in front of the first one the heading. */
mf_status mf__write_pdb(mf_structure_writer *w, const mf_structure *s);
mf_status mf__write_mmcif(mf_structure_writer *w, const mf_structure *s);
mf_status mf__end_pdb(mf_structure_writer *w);
mf_status mf__end_mmcif(mf_structure_writer *w);

/* What the columns of PDB cannot hold of s, as an error that names it. `decimal`: neither hybrid-36. */
mf_status mf__pdb_holds(const mf_structure *s, int decimal);
int mf__format_of_name(const char *path);    /* MF_FORMAT_AUTO when the name does not say */

/* The standard residue that a modified one of a polymer derives from; NULL for those that are standard or have no parent. */
const char *mf__parent_of(const char *name, char code, int polymer);
/* The chains of the model that begins with chain `first` end before this one. */
int64_t mf__model_end(const mf_structure *s, int64_t first);

/* The residues of a model as the archive lays them out: the chains' polymers one after the other (whole chains, where they have none
 * but a polymer follows), then what else the chains hold. Readers make the same structure of it. */
typedef struct mf__item { int64_t chain, residue; int ter; } mf__item;    /* ter: a TER follows */
typedef struct mf__order { mf__item *items; int64_t count; } mf__order;   /* items are for the caller to free */
mf_status mf__order_model(mf__order *order, const mf_structure *s, int64_t first, int64_t end);
/* Do serials rise along it from above `last` to `most`, so that they can be kept? ters: with one left for each TER. */
int mf__serials_rise(const mf__order *order, const mf_structure *s, int64_t last, int64_t most, int ters);
#endif
