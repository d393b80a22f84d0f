/* mmcif.c: from the tables of an mmCIF or BinaryCIF file to rows of atoms: the few categories that a structure needs.
 *
 * The first block with atoms is read. Chain: auth_asym_id; number: auth_seq_id; label: label_seq_id; with fall-backs where
 * a column is missing. Models are numbered 1, 2, ... in order of appearance. Save frames are passed over.
 *
 * Most of an mmCIF file is _atom_site, and in it most names repeat: a name of up to 8 characters is one number, which
 * is compared with the last of its column and then looked up in a table of 1024 before the structure's names are asked. */
#include "mmcif.h"
#include "cif.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    A_GROUP, A_ID, A_SYMBOL, A_NAME, A_ALT, A_COMP, A_ASYM, A_ENTITY, A_SEQ, A_INS, A_X, A_Y, A_Z, A_OCC, A_B,
    A_AUTH_SEQ, A_AUTH_COMP, A_AUTH_ASYM, A_AUTH_ATOM, A_MODEL, A_CHARGE, CELLS
};
enum { CACHED = 1024 };

typedef struct cached { uint64_t key; int32_t name; } cached;    /* key 0 is the empty text, whose name is 0 */

struct mf__mmcif {
    mf__cif *cif;
    mf__rows *rows;
    mf__cif_event event;
    const struct category *category;    /* of the table; NULL: not wanted */
    int held;                           /* the row that came last begins the next run */
    int atoms, in_frame, finished;
    cached last[CELLS], cache[CACHED];
    mf__names models;                   /* texts of model numbers, whose names count from 1 */
    int32_t model;                      /* of the run */
    int32_t asym;
    uint64_t model_key;
    int32_t last_model;
    double refine, em, reflns;
    char id[64], date[32], title[1024], method[1024];
    uint64_t given[16];                 /* items of each category that the block has given */
};

typedef mf_status (*row_reader)(mf__mmcif *m, const mf_cif_cell *cells);

/* ---- cells ---- */

/* Up to 8 characters as one number, 0 for none. What is looked at past the end is the window's (window.h). */
static uint64_t pack(const mf__span *t) {
    if (t->bytes == 0) return 0;    /* of no window */
    uint64_t key;
    memcpy(&key, t->at, sizeof key);
    return key << (64 - 8 * t->bytes);    /* little-endian: the last character is on top */
}

/* A name of a column of atoms, whose texts repeat. */
static mf_status name_of(mf__mmcif *m, int32_t *out, const mf_cif_cell *cell, int column) {
    char room[32] = "";
    mf__span t = mf__cell_text(cell, room);
    if (t.bytes > 8) return mf__names_add(&m->rows->s->names, out, t.at, t.bytes);
    uint64_t key = pack(&t);
    cached *last = &m->last[column];
    if (last->key != key) {
        cached *c = &m->cache[key * 0x9e3779b97f4a7c15u >> 54];
        if (c->key != key) {
            MF_TRY(mf__names_add(&m->rows->s->names, &c->name, t.at, t.bytes));
            c->key = key;
        }
        *last = *c;
    }
    *out = last->name;
    return MF_OK;
}

static mf_status bad_cell(const mf__mmcif *m, const mf_cif_cell *cell, const char *item, const char *message) {
    char room[32], text[128];
    mf__span t = mf__cell_text(cell, room);
    int known = mf__cell_has(cell);
    snprintf(text, sizeof text, "%s '%.*s' %s", item, known ? (int)(t.bytes < 40 ? t.bytes : 40) : 1, known ? t.at : "?", message);
    return mf__cif_fail(m->cif, cell->kind == MF__CIF_ABSENT ? m->event.line : mf__cif_line(m->cif, cell), text);
}

static char one_letter(const mf_cif_cell *cell) {
    char room[32];
    mf__span t = mf__cell_text(cell, room);
    return t.bytes > 0 ? *t.at : '\0';
}

static int is_text(const mf_cif_cell *cell, const char *text) {
    return cell->kind <= MF_CIF_QUOTED && cell->bytes == (int64_t)strlen(text) && strncasecmp(cell->text, text, (size_t)cell->bytes) == 0;
}

/* The first of two that is there; else one without text. */
static const mf_cif_cell *either(const mf_cif_cell *cells, int a, int b) { return mf__cell_has(&cells[a]) ? &cells[a] : &cells[b]; }

/* One line of text, whatever the text field was. */
static void one_line(char *text, size_t room, const mf_cif_cell *cell) {
    char digits[32];
    mf__span t = mf__cell_text(cell, digits);
    mf__one_line(text, (int64_t)room, t.at, t.bytes);
}

static mf_status add_line(const mf__mmcif *m, int32_t *out, const mf_cif_cell *cell) {
    char text[1024];
    one_line(text, sizeof text, cell);
    return mf__names_add(&m->rows->s->names, out, text, (int64_t)strlen(text));
}

/* ---- atoms ---- */

static const char *const atom_items[] = {
    "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id", "label_entity_id", "label_seq_id",
    "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "auth_seq_id", "auth_comp_id",
    "auth_asym_id", "auth_atom_id", "pdbx_PDB_model_num", "pdbx_formal_charge", NULL
};

static mf_status find_model(mf__mmcif *m, int32_t *out, const mf_cif_cell *cell) {
    char room[32] = "";
    mf__span t = mf__cell_text(cell, room);
    uint64_t key = t.bytes <= 8 ? pack(&t) : 0;
    if (m->last_model == 0 || key == 0 || key != m->model_key) {
        const char *text = t.bytes ? t.at : "1";
        MF_TRY(mf__names_add(&m->models, &m->last_model, text, t.bytes ? t.bytes : 1));
        m->model_key = key;
    }
    *out = m->last_model;
    return MF_OK;
}

static mf_status coordinate(const mf__mmcif *m, double *out, const mf_cif_cell *cell, int item) {
    return mf__cell_real(out, cell) ? MF_OK : bad_cell(m, cell, atom_items[item], "is not a finite number");
}

/* A number that may be absent, and then stays as it is. */
static mf_status optional_real(const mf__mmcif *m, double *out, const mf_cif_cell *cell, int item) {
    return !mf__cell_has(cell) || mf__cell_real(out, cell) ? MF_OK : bad_cell(m, cell, atom_items[item], "is not a number");
}

static mf_status optional_int(const mf__mmcif *m, int *out, const mf_cif_cell *cell, int item) {
    return !mf__cell_has(cell) || mf__cell_int(out, cell) ? MF_OK : bad_cell(m, cell, atom_items[item], "is not a whole number");
}

static mf_status find_element(mf__mmcif *m, mf__row *row, const mf_cif_cell *cells) {
    mf__names *names = &m->rows->s->names;
    const mf_cif_cell *symbol = &cells[A_SYMBOL];
    if (symbol->kind <= MF_CIF_QUOTED && symbol->bytes > 0 && symbol->bytes <= 2) {
        char upper[8] = "";
        for (int64_t i = 0; i < symbol->bytes; i++)
            upper[i] = symbol->text[i] >= 'a' && symbol->text[i] <= 'z' ? (char)(symbol->text[i] - 'a' + 'A') : symbol->text[i];
        return name_of(m, &row->atom.element, &(mf_cif_cell){.text = upper, .bytes = symbol->bytes}, A_SYMBOL);
    }
    char columns[4] = "    ";    /* as PDB would align it: a symbol of two letters begins in the first column */
    const char *name = mf__name(names, row->atom.name);
    const int two = (row->hetero && row->atom.name == row->residue) || mf__two_letter_name(name);
    for (int i = 0; name[i] && i < (two ? 4 : 3); i++) columns[i + !two] = name[i];
    return mf__guess_element(&row->atom.element, names, columns, mf__name(names, row->residue), row->hetero);
}

static mf_status read_atom(mf__mmcif *m, const mf_cif_cell *cells) {
    mf__rows *rows = m->rows;
    mf__row *row;
    if (cells[A_X].kind == MF__CIF_ABSENT || cells[A_Y].kind == MF__CIF_ABSENT || cells[A_Z].kind == MF__CIF_ABSENT)
        return mf__cif_fail(m->cif, m->event.line, "_atom_site has no Cartn_x, Cartn_y, Cartn_z: not a macromolecular mmCIF");
    MF_TRY(mf__rows_add(rows, &row));
    MF_TRY(coordinate(m, &row->atom.x, &cells[A_X], A_X));
    MF_TRY(coordinate(m, &row->atom.y, &cells[A_Y], A_Y));
    MF_TRY(coordinate(m, &row->atom.z, &cells[A_Z], A_Z));
    MF_TRY(name_of(m, &row->atom.name, either(cells, A_NAME, A_AUTH_ATOM), A_NAME));
    if (row->atom.name == 0) return mf__cif_fail(m->cif, m->event.line, "an atom has no name");
    MF_TRY(name_of(m, &row->residue, either(cells, A_COMP, A_AUTH_COMP), A_COMP));
    MF_TRY(name_of(m, &row->chain, either(cells, A_AUTH_ASYM, A_ASYM), A_AUTH_ASYM));
    MF_TRY(name_of(m, &row->entity, &cells[A_ENTITY], A_ENTITY));
    row->asym = m->asym;
    MF_TRY(name_of(m, &row->asym, &cells[A_ASYM], A_ASYM));
    row->model = m->model;
    row->hetero = is_text(&cells[A_GROUP], "HETATM") != 0;
    MF_TRY(optional_int(m, &row->label, &cells[A_SEQ], A_SEQ));
    if (row->label != 0 && !rows->labelled) {    /* a label of water says nothing */
        mf__kind kind;
        MF_TRY(mf__rows_kind(rows, &kind, row->residue));
        rows->labelled = kind.polymer != MF__WATER;
    }
    int number = mf__cell_has(&cells[A_AUTH_SEQ]) ? A_AUTH_SEQ : A_SEQ;
    MF_TRY(optional_int(m, &row->number, &cells[number], number));
    row->insertion = one_letter(&cells[A_INS]);
    row->atom.altloc = one_letter(&cells[A_ALT]);
    if (!mf__cell_int(&row->atom.serial, &cells[A_ID])) row->atom.serial = 0;
    row->atom.occupancy = 1;
    MF_TRY(optional_real(m, &row->atom.occupancy, &cells[A_OCC], A_OCC));
    MF_TRY(optional_real(m, &row->atom.b, &cells[A_B], A_B));
    int charge = 0;
    MF_TRY(optional_int(m, &charge, &cells[A_CHARGE], A_CHARGE));
    if (charge < -99 || charge > 99) return bad_cell(m, &cells[A_CHARGE], atom_items[A_CHARGE], "is no charge of an atom");
    row->atom.charge = (signed char)charge;
    return find_element(m, row, cells);
}

/* The row's model and asym; *same: they are those of the run, which the first row begins. */
static mf_status same_run(mf__mmcif *m, int *same, const mf_cif_cell *cells, int first) {
    int32_t model, asym;
    MF_TRY(find_model(m, &model, &cells[A_MODEL]));
    MF_TRY(name_of(m, &asym, either(cells, A_ASYM, A_AUTH_ASYM), A_ASYM));
    *same = first || (model == m->model && asym == m->asym);
    if (*same) m->model = model, m->asym = asym;
    return MF_OK;
}

/* ---- what else a structure needs ---- */

static mf_status read_entry(mf__mmcif *m, const mf_cif_cell *cells) { one_line(m->id, sizeof m->id, cells); return MF_OK; }
static mf_status read_title(mf__mmcif *m, const mf_cif_cell *cells) { one_line(m->title, sizeof m->title, cells); return MF_OK; }
static mf_status read_date(mf__mmcif *m, const mf_cif_cell *cells) { one_line(m->date, sizeof m->date, cells); return MF_OK; }

static mf_status read_method(mf__mmcif *m, const mf_cif_cell *cells) {
    const size_t used = strlen(m->method), blanks = used ? 2 : 0;
    if (used + blanks + 1 >= sizeof m->method) return MF_OK;
    one_line(m->method + used + blanks, sizeof m->method - used - blanks, cells);
    if (blanks && m->method[used + blanks]) memcpy(m->method + used, "; ", 2);
    return MF_OK;
}

/* The first value of the category that is a number above 0. */
static mf_status take_resolution(double *out, const mf_cif_cell *cell) {
    double value;
    if (*out == 0 && mf__cell_real(&value, cell) && value > 0) *out = value;
    return MF_OK;
}

static mf_status read_refine(mf__mmcif *m, const mf_cif_cell *cells) { return take_resolution(&m->refine, cells); }
static mf_status read_em(mf__mmcif *m, const mf_cif_cell *cells) { return take_resolution(&m->em, cells); }
static mf_status read_reflns(mf__mmcif *m, const mf_cif_cell *cells) { return take_resolution(&m->reflns, cells); }

/* Nothing can refer to an entity without an id, nor to one whose id is ''. */
static int has_id(const mf_cif_cell *cell) {
    char room[32];
    return mf__cell_has(cell) && mf__cell_text(cell, room).bytes > 0;
}

static mf_status find_entity(const mf__mmcif *m, mf__entity **out, const mf_cif_cell *id) {
    char room[32];
    mf__span t = mf__cell_text(id, room);
    return mf__find_entity(out, m->rows->s, t.at, t.bytes);
}

static mf_status read_entity(mf__mmcif *m, const mf_cif_cell *cells) {
    static const struct { const char *type; int kind; } types[] = {
        {"polymer", MF_ENTITY_POLYMER}, {"non-polymer", MF_ENTITY_NONPOLYMER}, {"branched", MF_ENTITY_BRANCHED},
        {"water", MF_ENTITY_WATER}, {"macrolide", MF_ENTITY_MACROLIDE},
    };
    if (!has_id(&cells[0])) return MF_OK;
    mf__entity *entity;
    MF_TRY(find_entity(m, &entity, &cells[0]));
    for (size_t i = 0; i < sizeof types / sizeof *types && entity->kind != MF_ENTITY_POLYMER; i++)
        if (is_text(&cells[1], types[i].type)) entity->kind = types[i].kind;
    MF_TRY(mf__rows_add_ligand(m->rows, entity->id, entity->kind != MF_ENTITY_UNKNOWN && entity->kind != MF_ENTITY_POLYMER));
    return add_line(m, &entity->description, &cells[2]);
}

static mf_status read_entity_poly(mf__mmcif *m, const mf_cif_cell *cells) {
    static const struct { const char *type; int polymer; } types[] = {
        {"polypeptide(L)", MF_POLYMER_PROTEIN}, {"polypeptide(D)", MF_POLYMER_PROTEIN}, {"cyclic-pseudo-peptide", MF_POLYMER_PROTEIN},
        {"polyribonucleotide", MF_POLYMER_RNA}, {"polydeoxyribonucleotide", MF_POLYMER_DNA},
    };
    if (!has_id(&cells[0])) return MF_OK;
    mf__entity *entity;
    MF_TRY(find_entity(m, &entity, &cells[0]));
    entity->kind = MF_ENTITY_POLYMER;    /* whatever _entity calls it */
    MF_TRY(mf__rows_add_ligand(m->rows, entity->id, 0));
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (is_text(&cells[1], types[i].type)) entity->polymer = types[i].polymer;
    return entity->polymer == MF_POLYMER_NONE ? MF_OK : mf__rows_add_polymer(m->rows, entity->id, entity->polymer);
}

/* Of the monomers of one number (microheterogeneity) the first stands in the sequence. */
static mf_status read_monomer(mf__mmcif *m, const mf_cif_cell *cells) {
    mf_structure *s = m->rows->s;
    mf__entity *entity;
    char room[32];
    int number;
    if (!has_id(&cells[0])) return MF_OK;
    MF_TRY(find_entity(m, &entity, &cells[0]));
    if (!mf__cell_int(&number, &cells[1])) return bad_cell(m, &cells[1], "_entity_poly_seq.num", "is not a whole number");
    if (number >= 1 && number <= entity->monomers) return MF_OK;
    if (number != entity->monomers + 1 || (number > 1 && entity->first_monomer + entity->monomers != s->n_monomers))
        return bad_cell(m, &cells[1], "_entity_poly_seq.num", "is not the next of its entity");
    mf__span t = mf__cell_text(&cells[2], room);
    return mf__add_monomer(s, entity, t.at, t.bytes);
}

static mf_status read_assembly(mf__mmcif *m, const mf_cif_cell *cells) {
    mf__assembly *assembly;
    char room[32];
    mf__span id = mf__cell_text(&cells[0], room);
    MF_TRY(mf__add_assembly(&assembly, m->rows->s, id.at, id.bytes));
    MF_TRY(add_line(m, &assembly->details, &cells[1]));
    MF_TRY(add_line(m, &assembly->oligomer, &cells[2]));
    if (!mf__cell_int(&assembly->count, &cells[3])) assembly->count = 0;
    return MF_OK;
}

/* Where one of the six is absent there is no cell. */
static mf_status read_cell(mf__mmcif *m, const mf_cif_cell *cells) {
    double cell[6];
    int known = 0;
    for (int i = 0; i < 6; i++) known += mf__cell_real(&cell[i], &cells[i]);
    if (known == 6) mf__set_cell(m->rows->s, cell);
    return MF_OK;
}

static mf_status read_space_group(mf__mmcif *m, const mf_cif_cell *cells) {
    return mf__cell_has(&cells[0]) ? add_line(m, &m->rows->s->space_group, &cells[0]) : MF_OK;
}

static mf_status read_modified(mf__mmcif *m, const mf_cif_cell *cells) {
    char room[2][32];
    mf__span name = mf__cell_text(&cells[0], room[0]), parent = mf__cell_text(&cells[1], room[1]);
    return mf__rows_add_parent(m->rows, name.at, name.bytes, parent.at, parent.bytes);
}

#define ITEMS(...) (const char *const[]){__VA_ARGS__, NULL}
static const struct category {
    const char *name;
    const char *const *items;    /* cell i of a row is item i */
    row_reader read;
} categories[] = {
    {"_atom_site", atom_items, read_atom},
    {"_entry", ITEMS("id"), read_entry},
    {"_struct", ITEMS("title"), read_title},
    {"_exptl", ITEMS("method"), read_method},
    {"_pdbx_database_status", ITEMS("recvd_initial_deposition_date"), read_date},
    {"_refine", ITEMS("ls_d_res_high"), read_refine},
    {"_em_3d_reconstruction", ITEMS("resolution"), read_em},
    {"_reflns", ITEMS("d_resolution_high"), read_reflns},
    {"_entity", ITEMS("id", "type", "pdbx_description"), read_entity},
    {"_entity_poly", ITEMS("entity_id", "type"), read_entity_poly},
    {"_entity_poly_seq", ITEMS("entity_id", "num", "mon_id"), read_monomer},
    {"_pdbx_struct_assembly", ITEMS("id", "details", "oligomeric_details", "oligomeric_count"), read_assembly},
    {"_cell", ITEMS("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"), read_cell},
    {"_symmetry", ITEMS("space_group_name_H-M"), read_space_group},
    {"_space_group", ITEMS("name_H-M_alt"), read_space_group},
    {"_pdbx_struct_mod_residue", ITEMS("label_comp_id", "parent_comp_id"), read_modified},
};

/* ---- tables ---- */

static int item_of(const struct category *category, const mf__span *tag, int64_t point) {
    mf__span item = {tag->at + point + 1, tag->bytes - point - 1};
    for (int i = 0; category->items[i]; i++)
        if (mf__tag_is(&item, category->items[i])) return i;
    return -1;
}

static const struct category *find_category(const mf__span *tag, int64_t *point) {
    const char *found = memchr(tag->at, '.', (size_t)tag->bytes);
    if (!found) return NULL;
    *point = found - tag->at;
    for (size_t i = 0; i < sizeof categories / sizeof *categories; i++)
        if (mf__tag_is(&(mf__span){tag->at, *point}, categories[i].name)) return &categories[i];
    return NULL;
}

/* Which columns are to come. An item that two tables of a block give is refused: either could be meant. */
static mf_status choose(mf__mmcif *m) {
    const mf__cif_event *e = &m->event;
    int64_t point = 0;
    const struct category *category = m->in_frame ? NULL : find_category(&e->tags[0], &point);
    m->category = category;
    if (!category) return mf__cif_choose(m->cif, NULL, 0);
    int *slots = malloc((size_t)e->columns * sizeof *slots), count = 0;
    if (!slots) return mf__fail(MF_ENOMEM, "structure.read: no memory for %lld columns", (long long)e->columns);
    mf_status status = MF_OK;
    uint64_t *given = &m->given[category - categories];
    while (category->items[count]) count++;
    for (int64_t i = 0; i < e->columns; i++) {
        slots[i] = memchr(e->tags[i].at, '.', (size_t)e->tags[i].bytes) == e->tags[i].at + point ? item_of(category, &e->tags[i], point) : -1;
        if (slots[i] < 0) continue;
        uint64_t bit = (uint64_t)1 << slots[i];
        if (*given & bit) {
            char text[128];
            snprintf(text, sizeof text, "the tag %.*s is given twice in its block", (int)(e->tags[i].bytes < 80 ? e->tags[i].bytes : 80), e->tags[i].at);
            status = mf__cif_fail(m->cif, e->line, text);
            goto out;
        }
        *given |= bit;
    }
    status = mf__cif_choose(m->cif, slots, count);
out:
    free(slots);
    return status;
}

static mf_status put_header(const mf__mmcif *m) {
    mf_structure *s = m->rows->s;
    MF_TRY(mf__names_add(&s->names, &s->id, m->id, (int64_t)strlen(m->id)));
    MF_TRY(mf__names_add(&s->names, &s->title, m->title, (int64_t)strlen(m->title)));
    MF_TRY(mf__names_add(&s->names, &s->date, m->date, (int64_t)strlen(m->date)));
    if (s->cell[0] == 0) s->space_group = 0;    /* of no crystal */
    s->resolution = m->refine > 0 ? m->refine : m->em > 0 ? m->em : m->reflns;
    return mf__names_add(&s->names, &s->method, m->method, (int64_t)strlen(m->method));
}

static mf_status read_row(mf__mmcif *m, int first, int whole) {
    const mf_cif_cell *cells = m->event.cells;
    if (m->category->read == read_atom) {
        int same;
        MF_TRY(same_run(m, &same, cells, first || whole));
        m->held = !same;
        if (!same) return MF_OK;
        m->atoms = 1;
    }
    return m->category->read(m, cells);
}

mf_status mf__mmcif_rows(int64_t *got, mf__mmcif *m, mf__rows *rows, int whole) {
    const int64_t before = rows->count;
    *got = 0;
    m->rows = rows;
    memset(m->last, 0, sizeof m->last);
    memset(m->cache, 0, sizeof m->cache);
    if (m->held) MF_TRY(read_row(m, 1, whole));    /* its cells still stand */
    while (!m->finished && !m->held) {
        MF_TRY(mf__cif_next(&m->event, m->cif));
        switch (m->event.kind) {
        case MF__CIF_BLOCK:
            m->finished = m->atoms;
            memset(m->given, 0, sizeof m->given);
            break;
        case MF__CIF_FRAME: m->in_frame = 1; break;
        case MF__CIF_FRAME_END: m->in_frame = 0; break;
        case MF__CIF_TABLE: MF_TRY(choose(m)); break;
        case MF__CIF_ROW: MF_TRY(read_row(m, rows->count == before, whole)); break;
        default: m->finished = 1;
        }
    }
    *got = rows->count - before;
    return put_header(m);
}

mf_status mf__mmcif_open(mf__mmcif **out, mf__source *source) {
    *out = NULL;
    mf__mmcif *m = calloc(1, sizeof *m);
    if (!m) return mf__fail(MF_ENOMEM, "structure.read: '%s': no memory", mf__source_name(source));
    mf_status status = mf__names_init(&m->models);
    if (status == MF_OK) status = mf__cif_open(&m->cif, source, "structure.read");
    if (status == MF_OK) *out = m;
    else mf__mmcif_close(m);
    return status;
}

void mf__mmcif_close(mf__mmcif *m) {
    if (!m) return;
    mf__names_free(&m->models);
    mf__cif_close(m->cif);
    free(m);
}
