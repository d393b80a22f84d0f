/* same.h: two structures held against each other, field by field, as the C interface shows them.
 *
 * What is compared of a chain is a set of fields: a format or a way of reading may not hold all of them. A difference is a
 * finding: it is told, and the program ends. */
#ifndef MF_FUZZ_SAME_H
#define MF_FUZZ_SAME_H
#include "../../core/io/structure.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIELD_LABELLED = 1,     /* which residues are of the polymer */
    FIELD_LABEL = 2,        /* and their numbers along it */
    FIELD_POLYMER = 4,
    FIELD_CODE = 8,
    FIELD_ASYM = 16,        /* where the first has one: a writer gives one to all */
    FIELD_ENTITY = 32,      /* likewise */
    FIELD_SERIAL = 64,
    FIELD_COLUMNS = 128,    /* numbers are rounded as the columns of PDB do, a charge has one digit, an element that is none may be another */
    FIELD_FILE = FIELD_LABELLED | FIELD_LABEL | FIELD_POLYMER | FIELD_CODE | FIELD_ASYM | FIELD_ENTITY | FIELD_SERIAL
};

typedef struct same { const mf_structure *a, *b; const char *trip; } same;

static void differ(const same *p, const char *what, int64_t i, const char *field, const char *x, const char *y) {
    fprintf(stderr, "%s: %s %lld: %s '%s' became '%s'\n", p->trip, what, (long long)i + 1, field, x, y);
    abort();
}

static void same_number(const same *p, const char *what, int64_t i, const char *field, double x, double y) {
    char text[2][40];
    if (x == y) return;
    for (int k = 0; k < 2; k++) snprintf(text[k], sizeof text[k], "%.17g", k ? y : x);
    differ(p, what, i, field, text[0], text[1]);
}

static void same_text(const same *p, const char *what, const char *field, int text, int64_t i, int64_t k) {
    const char *x = mf_structure_text(p->a, text, i), *y = mf_structure_text(p->b, text, k);
    if (strcmp(x, y) != 0) differ(p, what, i, field, x, y);
}

/* As so many decimals print it. */
static double rounded(double x, int decimals) {
    const double ten = pow(10, decimals);
    return round(x * ten) / ten;
}

static double in_six_columns(double x) { return rounded(x, x < 999.995 && x > -99.995 ? 2 : x < 9999.95 && x > -999.95 ? 1 : 0); }

static void same_atom(const same *p, int64_t i, int64_t k, int fields) {
    mf_atom_info x, y;
    if (mf_structure_atom(p->a, i, &x) != MF_OK || mf_structure_atom(p->b, k, &y) != MF_OK) abort();
    if (fields & FIELD_COLUMNS) {
        x.x = rounded(x.x, 3);
        x.y = rounded(x.y, 3);
        x.z = rounded(x.z, 3);
        x.occupancy = in_six_columns(x.occupancy);
        x.b = in_six_columns(x.b);
        if (abs(x.charge) > 9) x.charge = 0;
    }
    same_text(p, "atom", "name", MF_TEXT_ATOM, i, k);
    const char *element = mf_structure_text(p->a, MF_TEXT_ELEMENT, i);
    const int guessed = *element == '\0' || (fields & FIELD_COLUMNS && !mf__is_element(element, (int64_t)strlen(element)));
    if (!guessed) same_text(p, "atom", "element", MF_TEXT_ELEMENT, i, k);
    same_number(p, "atom", i, "x", x.x, y.x);
    same_number(p, "atom", i, "y", x.y, y.y);
    same_number(p, "atom", i, "z", x.z, y.z);
    same_number(p, "atom", i, "occupancy", x.occupancy, y.occupancy);
    same_number(p, "atom", i, "B", x.b, y.b);
    same_number(p, "atom", i, "altloc", x.altloc, y.altloc);
    same_number(p, "atom", i, "charge", x.charge, y.charge);
    if (fields & FIELD_SERIAL) same_number(p, "atom", i, "serial", x.serial, y.serial);
}

static void same_residue(const same *p, int64_t i, int64_t k, int fields) {
    mf_residue_info x, y;
    if (mf_structure_residue(p->a, i, &x) != MF_OK || mf_structure_residue(p->b, k, &y) != MF_OK) abort();
    same_text(p, "residue", "name", MF_TEXT_RESIDUE, i, k);
    same_number(p, "residue", i, "number", x.number, y.number);
    same_number(p, "residue", i, "insertion code", x.insertion, y.insertion);
    same_number(p, "residue", i, "hetero", x.hetero, y.hetero);
    if (fields & FIELD_LABEL) same_number(p, "residue", i, "label", x.label, y.label);
    if (fields & FIELD_LABELLED) same_number(p, "residue", i, "of the polymer", x.label != 0, y.label != 0);
    if (fields & FIELD_CODE) same_number(p, "residue", i, "code", x.code, y.code);
    if (fields & FIELD_ASYM && *mf_structure_text(p->a, MF_TEXT_ASYM, i)) same_text(p, "residue", "asym", MF_TEXT_ASYM, i, k);
    if (fields & FIELD_ENTITY && *mf_structure_text(p->a, MF_TEXT_RESIDUE_ENTITY, i)) same_text(p, "residue", "entity", MF_TEXT_RESIDUE_ENTITY, i, k);
    same_number(p, "residue", i, "atoms", (double)x.atoms, (double)y.atoms);
    for (int64_t n = 0; n < x.atoms; n++) same_atom(p, x.first_atom + n, y.first_atom + n, fields);
}

/* Chain i of a and chain k of b, with all that is in them. */
static void same_chain(const same *p, int64_t i, int64_t k, int fields) {
    mf_chain_info x, y;
    if (mf_structure_chain(p->a, i, &x) != MF_OK || mf_structure_chain(p->b, k, &y) != MF_OK) abort();
    same_text(p, "chain", "id", MF_TEXT_CHAIN, i, k);
    same_number(p, "chain", i, "model", x.model, y.model);
    if (fields & FIELD_POLYMER) same_number(p, "chain", i, "polymer", x.polymer, y.polymer);
    if (fields & FIELD_ENTITY && *mf_structure_text(p->a, MF_TEXT_ENTITY, i)) same_text(p, "chain", "entity", MF_TEXT_ENTITY, i, k);
    same_number(p, "chain", i, "residues", (double)x.residues, (double)y.residues);
    for (int64_t n = 0; n < x.residues; n++) same_residue(p, x.first_residue + n, y.first_residue + n, fields);
}

/* Title, method and date; id, resolution, cell and space group are the caller's where the format rounds them. */
static void same_heading(const same *p) {
    double x[6], y[6];
    mf_structure_cell(x, p->a);
    mf_structure_cell(y, p->b);
    for (int i = 0; i < 6; i++) same_number(p, "cell", i, "number", x[i], y[i]);
    same_number(p, "structure", 0, "resolution", mf_structure_resolution(p->a), mf_structure_resolution(p->b));
    same_text(p, "structure", "id", MF_TEXT_ID, 0, 0);
    same_text(p, "structure", "title", MF_TEXT_TITLE, 0, 0);
    same_text(p, "structure", "method", MF_TEXT_METHOD, 0, 0);
    same_text(p, "structure", "date", MF_TEXT_DATE, 0, 0);
    same_text(p, "structure", "space group", MF_TEXT_SPACE_GROUP, 0, 0);
}

static void same_assemblies(const same *p) {
    mf_structure_counts n, m;
    mf_structure_count(p->a, &n);
    mf_structure_count(p->b, &m);
    same_number(p, "structure", 0, "assemblies", (double)n.assemblies, (double)m.assemblies);
    for (int64_t i = 0; i < n.assemblies; i++) {
        int x, y;
        if (mf_structure_assembly(p->a, i, &x) != MF_OK || mf_structure_assembly(p->b, i, &y) != MF_OK) abort();
        same_text(p, "assembly", "id", MF_TEXT_ASSEMBLY, i, i);
        same_text(p, "assembly", "details", MF_TEXT_ASSEMBLY_DETAILS, i, i);
        same_text(p, "assembly", "oligomer", MF_TEXT_OLIGOMER, i, i);
        same_number(p, "assembly", i, "count", x, y);
    }
}

/* Of an entity that was written: how far its sequence goes (-1: it is not known how far); is it of polymers of several kinds? */
typedef struct same_written { int64_t (*reach)(const mf_structure *s, int64_t entity); int (*is_torn)(const mf_structure *s, int64_t entity); } same_written;

/* The entities of a are the first of b: residues that had none may have made more. With `written`, of a structure that was, those that
 * lacked a kind, a polymer or a sequence may have one, and what is no polymer has none. */
static void same_entities(const same *p, int fields, const same_written *written) {
    mf_structure_counts n, m;
    mf_structure_count(p->a, &n);
    mf_structure_count(p->b, &m);
    if (m.entities < n.entities) same_number(p, "structure", 0, "entities", (double)n.entities, (double)m.entities);
    for (int64_t i = 0; i < n.entities; i++) {
        mf_entity_info x, y;
        if (mf_structure_entity(p->a, i, &x) != MF_OK || mf_structure_entity(p->b, i, &y) != MF_OK) abort();
        same_text(p, "entity", "id", MF_TEXT_ENTITY_ID, i, i);
        same_text(p, "entity", "name", MF_TEXT_ENTITY_NAME, i, i);
        if (!written || x.kind != MF_ENTITY_UNKNOWN) same_number(p, "entity", i, "kind", x.kind, y.kind);
        if (fields & FIELD_POLYMER && (!written || (x.polymer != MF_POLYMER_NONE && !written->is_torn(p->a, i)))) same_number(p, "entity", i, "polymer", x.polymer, y.polymer);
        if (written && (x.monomers == 0 || y.kind != MF_ENTITY_POLYMER)) continue;
        const int64_t least = written ? written->reach(p->a, i) : 0;
        if (least >= 0) same_number(p, "entity", i, "monomers", (double)(x.monomers > least ? x.monomers : least), (double)y.monomers);
        for (int64_t k = 0; k < x.monomers; k++) same_text(p, "monomer", "name", MF_TEXT_MONOMER, x.first_monomer + k, y.first_monomer + k);
    }
}
#endif
