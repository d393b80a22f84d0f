/* pdb_header.c: the records of a PDB file before its atoms.
 *
 *     HEADER date, id    TITLE    EXPDTA method    REMARK   2 resolution    CRYST1 cell, space group    MODRES parents
 *     SEQRES             the sequence of each chain
 *     COMPND             molecules: MOL_ID, MOLECULE, CHAIN
 *     HETNAM, FORMUL     ligands and water
 *     REMARK 350         assemblies: BIOMOLECULE, and how many of what
 *
 * Entities are made of them as the archive's mmCIF files have them: chains of one molecule and one sequence are one polymer entity, each
 * ligand is one, and water. They are numbered in this order; without COMPND and SEQRES there are none. What they leave out gets entities
 * when a file is read whole (polymer.c). */
#include "pdb.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAST = 80, TEXT = 1024, COMPOUND = 1 << 20 };

typedef struct entry { int32_t chain, name; } entry;                  /* of SEQRES: chain by number, residue by name */
typedef struct chain { int32_t id, molecule; int64_t first, count; } chain;    /* molecule 0: COMPND does not name it */
typedef struct ligand { int32_t id, text; } ligand;

struct mf__pdb_header {
    char title[TEXT], method[TEXT];
    char *compound;                    /* COMPND, line after line */
    int64_t compound_bytes, compound_room;
    entry *entries;
    chain *chains;
    ligand *ligands;
    int32_t *molecules;                /* their names */
    int64_t n_entries, n_chains, n_ligands, n_molecules, entry_room, chain_room, ligand_room, molecule_room;
    mf__map chain_of, same;            /* id -> chain; sequence and molecule -> entity */
    int water;
};

static void upper_case(char *p, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (p[i] >= 'a' && p[i] <= 'z') p[i] = (char)(p[i] - 'a' + 'A');
}

/* A text is one line, as in mmCIF: what stands between words is one blank. */
static mf_status add_line(mf_structure *s, int32_t *out, const char *text, int64_t bytes) {
    char line[TEXT];
    return mf__names_add(&s->names, out, line, mf__one_line(line, sizeof line, text, bytes));
}

/* Appends columns first.. to a text that goes over several lines. */
static void append(char *text, size_t room, const char *at, int first) {
    int64_t n;
    const char *p = mf__pdb_field(at, first, LAST - 1, &n);
    size_t used = strlen(text);
    if (n > 0 && used + 2 < room) snprintf(text + used, room - used, "%s%.*s", used ? " " : "", (int)n, p);
}

/* dd-MMM-yy to yyyy-mm-dd; the archive began in 1971. */
static mf_status read_header(mf_structure *s, const char *at) {
    static const char months[] = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC";
    int64_t n;
    const char *p = mf__pdb_field(at, 63, 66, &n);
    MF_TRY(add_line(s, &s->id, p, n));
    char month[4] = {0};
    int day, year;
    p = at + 51;
    memcpy(month, p + 3, 3);
    upper_case(month, 3);
    const char *found = strstr(months, month);
    const char *tens = p[0] == ' ' ? p + 1 : p;
    if (!found || (found - months) % 3 || p[2] != '-' || p[6] != '-' || !mf__parse_int(&day, tens, p + 2 - tens) || !mf__parse_int(&year, p + 7, 2)) return MF_OK;
    char date[32];
    int bytes = snprintf(date, sizeof date, "%04d-%02d-%02d", year + (year > 70 ? 1900 : 2000), (int)(found - months) / 3 + 1, day);
    return mf__names_add(&s->names, &s->date, date, bytes);
}

static mf_status read_cell(mf_structure *s, const char *at) {
    static const int columns[6][2] = {{7, 15}, {16, 24}, {25, 33}, {34, 40}, {41, 47}, {48, 54}};
    double cell[6];
    int64_t n;
    for (int i = 0; i < 6; i++) {
        const char *p = mf__pdb_field(at, columns[i][0], columns[i][1], &n);
        if (!mf__parse_real(&cell[i], p, n)) return MF_OK;    /* cut short, or without a cell */
    }
    if (!mf__set_cell(s, cell)) return MF_OK;
    const char *p = mf__pdb_field(at, 56, 66, &n);
    return add_line(s, &s->space_group, p, n);
}

/* ---- sequences, molecules, ligands ---- */

static mf_status find_chain(mf__pdb_header *h, chain **out, int32_t id) {
    int64_t *found;
    MF_TRY(mf__reserve((void **)&h->chains, h->n_chains, &h->chain_room, sizeof *h->chains));
    MF_TRY(mf__map_get(&h->chain_of, &found, (mf__key){(uint64_t)id, 0, 0}, h->n_chains));
    *out = &h->chains[*found];
    if (*found < h->n_chains) return MF_OK;
    h->chains[h->n_chains++] = (chain){.id = id};
    return MF_OK;
}

static mf_status read_seqres(mf__pdb_header *h, mf_structure *s, const char *at) {
    int64_t n;
    int32_t id;
    chain *c;
    const char *p = mf__pdb_field(at, 12, 12, &n);
    MF_TRY(mf__names_add(&s->names, &id, p, n));
    MF_TRY(find_chain(h, &c, id));
    for (int first = 20; first <= 68; first += 4) {
        p = mf__pdb_field(at, first, first + 2, &n);
        if (n == 0) continue;
        MF_TRY(mf__reserve((void **)&h->entries, h->n_entries, &h->entry_room, sizeof *h->entries));
        entry *e = &h->entries[h->n_entries];
        MF_TRY(mf__names_add(&s->names, &e->name, p, n));
        e->chain = (int32_t)(c - h->chains);
        h->n_entries++;
        c->count++;
    }
    return MF_OK;
}

static mf_status read_compound(mf__pdb_header *h, const char *at) {
    int64_t n;
    const char *p = mf__pdb_field(at, 11, LAST, &n);
    for (int64_t i = 0; i <= n && h->compound_bytes < COMPOUND; i++) {
        MF_TRY(mf__reserve((void **)&h->compound, h->compound_bytes, &h->compound_room, 1));
        h->compound[h->compound_bytes++] = i < n ? p[i] : ' ';
    }
    return MF_OK;
}

static mf_status read_hetnam(mf__pdb_header *h, mf_structure *s, const char *at) {
    int64_t n, m;
    int32_t id;
    const char *p = mf__pdb_field(at, 12, 14, &n), *name = mf__pdb_field(at, 16, 70, &m);
    MF_TRY(mf__names_add(&s->names, &id, p, n));
    ligand *last = h->n_ligands ? &h->ligands[h->n_ligands - 1] : NULL;
    if (!last || last->id != id) {
        MF_TRY(mf__reserve((void **)&h->ligands, h->n_ligands, &h->ligand_room, sizeof *h->ligands));
        last = &h->ligands[h->n_ligands];
        *last = (ligand){.id = id};
        h->n_ligands++;
    }
    char text[TEXT];
    const char *before = mf__name(&s->names, last->text);
    size_t used = strlen(before);
    if (used + (size_t)m + 1 >= sizeof text) return MF_OK;
    int hyphen = used > 0 && before[used - 1] == '-';    /* chemical names are cut there, without a blank */
    int bytes = snprintf(text, sizeof text, "%s%s%.*s", before, used && !hyphen ? " " : "", (int)m, name);
    return add_line(s, &last->text, text, bytes);
}

static mf_status read_modres(mf__rows *rows, const char *at) {
    int64_t n, m;
    const char *name = mf__pdb_field(at, 13, 15, &n), *parent = mf__pdb_field(at, 25, 27, &m);
    return mf__rows_add_parent(rows, name, n, parent, m);
}

static void read_resolution(mf_structure *s, const char *at) {
    double value;
    int64_t n;
    if (s->resolution > 0 || memcmp(at + 12, "RESOLUTION.", 11) != 0) return;
    const char *p = mf__pdb_field(at, 24, 30, &n), *blank = memchr(p, ' ', (size_t)n);
    if (mf__parse_real(&value, p, blank ? blank - p : n) && value > 0) s->resolution = value;
}

static int begins(const char *text, int64_t bytes, const char *with) {
    int64_t n = (int64_t)strlen(with);
    return bytes >= n && memcmp(text, with, (size_t)n) == 0;
}

/* "MONOMERIC" is 1, ..., "12-MERIC" is 12; 0 where it is something else. */
static int oligomeric_count(const char *text, int64_t bytes) {
    static const char *const names[] = {
        "MONOMERIC", "DIMERIC", "TRIMERIC", "TETRAMERIC", "PENTAMERIC", "HEXAMERIC", "HEPTAMERIC", "OCTAMERIC", "NONAMERIC", "DECAMERIC",
        "UNDECAMERIC", "DODECAMERIC",
    };
    for (int i = 0; i < 12; i++)
        if (bytes == (int64_t)strlen(names[i]) && memcmp(text, names[i], (size_t)bytes) == 0) return i + 1;
    const char *hyphen = memchr(text, '-', (size_t)bytes);
    int count;
    return hyphen && begins(hyphen, bytes - (hyphen - text), "-MERIC") && mf__parse_int(&count, text, hyphen - text) ? count : 0;
}

/* What the author found outranks what software did. */
static mf_status read_assembly(mf_structure *s, const char *at) {
    static const struct { const char *text, *details; } kinds[] = {
        {"AUTHOR DETERMINED BIOLOGICAL UNIT:", "author_defined_assembly"}, {"SOFTWARE DETERMINED QUATERNARY STRUCTURE:", "software_defined_assembly"},
    };
    int64_t n;
    const char *p = mf__pdb_field(at, 12, LAST, &n);
    mf__assembly *a = s->n_assemblies ? &s->assemblies[s->n_assemblies - 1] : NULL;
    if (begins(p, n, "BIOMOLECULE:")) {
        p += 12, n -= 12;
        while (n > 0 && *p == ' ') p++, n--;
        return mf__add_assembly(&a, s, p, n);
    }
    for (int i = 0; i < 2 && a; i++) {
        int64_t length = (int64_t)strlen(kinds[i].text);
        if (!begins(p, n, kinds[i].text)) continue;
        p += length, n -= length;
        while (n > 0 && *p == ' ') p++, n--;
        if (a->details) return mf__names_add(&s->names, &a->details, "author_and_software_defined_assembly", 36);
        MF_TRY(mf__names_add(&s->names, &a->details, kinds[i].details, (int64_t)strlen(kinds[i].details)));
        char lower[64];
        a->count = oligomeric_count(p, n);
        if (n >= (int64_t)sizeof lower) return MF_OK;
        for (int64_t k = 0; k < n; k++) lower[k] = p[k] >= 'A' && p[k] <= 'Z' ? (char)(p[k] - 'A' + 'a') : p[k];
        return add_line(s, &a->oligomer, lower, n);
    }
    return MF_OK;
}

mf_status mf__pdb_header_record(mf__pdb_header *h, mf__rows *rows, const char *at) {
    mf_structure *s = rows->s;
    const char *name = at + 1;
    if (memcmp(name, "REMARK", 6) == 0) {
        if (memcmp(at + 8, "  2", 3) == 0) read_resolution(s, at);
        else if (memcmp(at + 8, "350", 3) == 0) return read_assembly(s, at);
    } else if (memcmp(name, "SEQRES", 6) == 0) {
        return read_seqres(h, s, at);
    } else if (memcmp(name, "HEADER", 6) == 0) {
        return read_header(s, at);
    } else if (memcmp(name, "TITLE ", 6) == 0) {
        append(h->title, sizeof h->title, at, 11);
    } else if (memcmp(name, "EXPDTA", 6) == 0) {
        append(h->method, sizeof h->method, at, 11);
    } else if (memcmp(name, "COMPND", 6) == 0) {
        return read_compound(h, at);
    } else if (memcmp(name, "HETNAM", 6) == 0) {
        return read_hetnam(h, s, at);
    } else if (memcmp(name, "FORMUL", 6) == 0) {
        int64_t n;
        const char *p = mf__pdb_field(at, 13, 15, &n);
        h->water |= n == 3 && (memcmp(p, "HOH", 3) == 0 || memcmp(p, "DOD", 3) == 0 || memcmp(p, "WAT", 3) == 0);
    } else if (memcmp(name, "CRYST1", 6) == 0) {
        return read_cell(s, at);
    } else if (memcmp(name, "MODRES", 6) == 0) {
        return read_modres(rows, at);
    }
    return MF_OK;
}

/* ---- entities ---- */

static void trim(const char **p, const char **end) {
    while (*p < *end && **p == ' ') ++*p;
    while (*end > *p && (*end)[-1] == ' ') --*end;
}

/* One "KEY: VALUE" of COMPND. A molecule begins with its MOL_ID. */
static mf_status read_token(mf__pdb_header *h, mf_structure *s, const char *p, const char *end) {
    const char *colon = memchr(p, ':', (size_t)(end - p));
    if (!colon) return MF_OK;
    const char *key_end = colon, *value = colon + 1;
    trim(&p, &key_end);
    trim(&value, &end);
    int64_t n = key_end - p;
    if (n == 6 && memcmp(p, "MOL_ID", 6) == 0) {
        MF_TRY(mf__reserve((void **)&h->molecules, h->n_molecules, &h->molecule_room, sizeof *h->molecules));
        h->molecules[h->n_molecules++] = 0;
    } else if (n == 8 && memcmp(p, "MOLECULE", 8) == 0 && h->n_molecules) {
        return add_line(s, &h->molecules[h->n_molecules - 1], value, end - value);
    } else if (n == 5 && memcmp(p, "CHAIN", 5) == 0 && h->n_molecules) {
        while (value < end) {
            const char *comma = memchr(value, ',', (size_t)(end - value)), *stop = comma ? comma : end;
            const char *next = comma ? comma + 1 : end;
            int32_t id;
            chain *c;
            trim(&value, &stop);
            if (stop - value == 4 && memcmp(value, "NULL", 4) == 0) stop = value;    /* the blank chain */
            MF_TRY(mf__names_add(&s->names, &id, value, stop - value));
            MF_TRY(find_chain(h, &c, id));
            c->molecule = (int32_t)h->n_molecules;
            value = next;
        }
    }
    return MF_OK;
}

static mf_status read_molecules(mf__pdb_header *h, mf_structure *s) {
    if (h->compound_bytes == 0) return MF_OK;
    const char *p = h->compound, *end = p + h->compound_bytes;
    while (p < end) {
        const char *semicolon = memchr(p, ';', (size_t)(end - p)), *stop = semicolon ? semicolon : end;
        MF_TRY(read_token(h, s, p, stop));
        p = stop + 1;
    }
    return MF_OK;
}

/* What a sequence is made of, by the names of its residues. */
static mf_status polymer_of(mf__rows *rows, int *out, const int32_t *names, int64_t count) {
    int64_t amino = 0, rna = 0, dna = 0, thymine = 0, uracil = 0;
    for (int64_t i = 0; i < count; i++) {
        mf__kind kind;
        MF_TRY(mf__rows_kind(rows, &kind, names[i]));
        amino += kind.polymer == MF__AMINO;
        rna += kind.polymer == MF__RNA;
        dna += kind.polymer == MF__DNA;
        thymine += kind.code == 'T';
        uracil += kind.code == 'U';
    }
    if (thymine > 0 && uracil == 0 && amino == 0) dna += rna, rna = 0;    /* A, C, G and T, as DNA was before 2007 */
    *out = amino + rna + dna == 0 ? MF_POLYMER_NONE : amino >= rna + dna ? MF_POLYMER_PROTEIN : rna >= dna ? MF_POLYMER_RNA : MF_POLYMER_DNA;
    return MF_OK;
}

/* The entity of a chain with this sequence, made if there is none like it. */
static mf_status sequence_entity(mf__pdb_header *h, mf__rows *rows, const chain *c, const int32_t *names) {
    mf_structure *s = rows->s;
    uint64_t hash[2] = {14695981039346656037u, 0};    /* 128 bits: two sequences of one value are not met */
    for (int64_t i = 0; i < c->count; i++) {
        hash[0] = (hash[0] ^ (uint64_t)names[i]) * 1099511628211u;
        hash[1] = (hash[1] + (uint64_t)names[i] + 1) * 0x9e3779b97f4a7c15u;
        hash[1] ^= hash[1] >> 29;
    }
    int64_t *found;
    mf__fact *fact;
    MF_TRY(mf__map_get(&h->same, &found, (mf__key){hash[0], hash[1], (uint64_t)c->count << 32 | (uint32_t)c->molecule}, s->n_entities));
    if (*found == s->n_entities) {
        int32_t number;
        MF_TRY(mf__new_entity(s, &number, MF_ENTITY_POLYMER, c->molecule ? h->molecules[c->molecule - 1] : 0));
        mf__entity *entity = &s->entities[number - 1];
        for (int64_t i = 0; i < c->count; i++) {
            const char *text = mf__name(&s->names, names[i]);
            MF_TRY(mf__add_monomer(s, entity, text, (int64_t)strlen(text)));
        }
        MF_TRY(polymer_of(rows, &entity->polymer, names, c->count));
    }
    int32_t entity = (int32_t)*found + 1;
    MF_TRY(mf__rows_fact(rows, &fact, c->id));
    fact->chain_entity = entity;
    return MF_OK;
}

/* Those of COMPND in its order, then the others. */
static int by_molecule(const void *a, const void *b) {
    const chain *x = a, *y = b;
    int64_t i = x->molecule ? x->molecule : INT32_MAX, k = y->molecule ? y->molecule : INT32_MAX;
    return i != k ? (i > k) - (i < k) : (x->first > y->first) - (x->first < y->first);
}

static mf_status declare(mf__pdb_header *h, mf__rows *rows) {
    mf_structure *s = rows->s;
    mf_status status = MF_OK;
    int32_t *names = malloc((size_t)(h->n_entries + 1) * sizeof *names);    /* chain after chain */
    if (!names) return mf__fail(MF_ENOMEM, "structure.read: '%s': no memory", rows->path);
    for (int64_t i = 0, first = 0; i < h->n_chains; i++) {
        h->chains[i].first = first;
        first += h->chains[i].count;
        h->chains[i].count = 0;
    }
    for (int64_t i = 0; i < h->n_entries; i++) {
        chain *c = &h->chains[h->entries[i].chain];
        names[c->first + c->count++] = h->entries[i].name;
    }
    qsort(h->chains, (size_t)h->n_chains, sizeof *h->chains, by_molecule);
    for (int64_t i = 0; i < h->n_chains; i++) MF_TRY_OUT(sequence_entity(h, rows, &h->chains[i], names + h->chains[i].first));
    for (int64_t i = 0; i < h->n_entries; i++) {
        mf__fact *fact;
        MF_TRY_OUT(mf__rows_fact(rows, &fact, h->entries[i].name));
        if (fact->entity == 0) fact->entity = -1;    /* of a sequence, not a ligand of its own */
    }
    for (int64_t i = 0; i < h->n_ligands; i++) {
        mf__fact *fact;
        MF_TRY_OUT(mf__rows_fact(rows, &fact, h->ligands[i].id));
        if (fact->entity == 0) MF_TRY_OUT(mf__new_entity(s, &fact->entity, MF_ENTITY_NONPOLYMER, h->ligands[i].text));
    }
    for (int64_t i = 0; i < h->n_entries; i++) {
        mf__fact *fact;
        MF_TRY_OUT(mf__rows_fact(rows, &fact, h->entries[i].name));
        if (fact->entity < 0) fact->entity = 0;
    }
    if (h->water) {
        int32_t text;
        MF_TRY_OUT(mf__names_add(&s->names, &text, "water", 5));
        MF_TRY_OUT(mf__new_entity(s, &rows->water, MF_ENTITY_WATER, text));
    }
    rows->declared = 1;
out:
    free(names);
    return status;
}

mf_status mf__pdb_header_end(mf__pdb_header *h, mf__rows *rows) {
    mf_structure *s = rows->s;
    MF_TRY(add_line(s, &s->title, h->title, (int64_t)strlen(h->title)));
    MF_TRY(add_line(s, &s->method, h->method, (int64_t)strlen(h->method)));
    MF_TRY(read_molecules(h, s));
    return h->n_chains ? declare(h, rows) : MF_OK;
}

mf_status mf__pdb_header_open(mf__pdb_header **out) {
    *out = calloc(1, sizeof **out);
    return *out ? MF_OK : mf__fail(MF_ENOMEM, "structure.read: no memory");
}

void mf__pdb_header_close(mf__pdb_header *h) {
    if (!h) return;
    free(h->compound);
    free(h->entries);
    free(h->chains);
    free(h->ligands);
    free(h->molecules);
    mf__map_free(&h->chain_of);
    mf__map_free(&h->same);
    free(h);
}
