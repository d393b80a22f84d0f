/* mmcif.c: reading mmCIF: a tokeniser for CIF 1.1 and the few categories a structure needs.
 *
 *     data_1ABC                      a data block
 *     _entry.id 1ABC                 a tag and its value
 *     loop_ _a.x _a.y 1 2 3 4        tags, then rows of values
 *     'quoted' "quoted" ;text field  a quote ends only before a blank; a text field begins and ends with ; first in a line
 *     # comment                      . and ? unquoted: absent
 *
 * Tags and keywords ignore case. A category given as tags and values is a loop of one row. The first block with
 * atoms is read. Chain: auth_asym_id; number: auth_seq_id; label: label_seq_id; with fall-backs where a column is
 * missing. Models are numbered 1, 2, ... in order of appearance. */
#include "structure.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { T_END, T_VALUE, T_QUOTED, T_TAG, T_LOOP, T_DATA, T_SAVE };

typedef struct token { const char *at; int64_t bytes, line; int kind; } token;

typedef struct lexer {
    const char *begin, *at, *end;
    int64_t line;
    const char *path;
} lexer;

static int is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }
static int line_begins(const lexer *x, const char *p) { return p == x->begin || p[-1] == '\n' || p[-1] == '\r'; }

/* Counts the line that a newline at p ends: \n, \r\n, or \r alone. */
static int ends_line(const char *p) { return *p == '\n' || (*p == '\r' && p[1] != '\n'); }

static mf_status bad_line(const lexer *x, int64_t line, const char *message) {
    return mf__fail(MF_EFORMAT, "structure.read: '%s': line %lld: %s", x->path, (long long)line, message);
}

static mf_status text_field(lexer *x, token *t) {
    const char *p = x->at + 1;
    t->kind = T_QUOTED;
    t->at = p;
    for (; p < x->end; p++) {
        if (*p == ';' && line_begins(x, p)) {
            t->bytes = p - t->at;    /* without the newline before the ; */
            if (t->bytes > 0 && p[-1] == '\n') t->bytes--;
            if (t->bytes > 0 && t->at[t->bytes - 1] == '\r') t->bytes--;
            x->at = p + 1;
            return MF_OK;
        }
        x->line += ends_line(p);
    }
    return bad_line(x, t->line, "a text field (;) does not end");
}

static mf_status quoted(lexer *x, token *t) {
    char quote = *x->at;
    t->kind = T_QUOTED;
    t->at = x->at + 1;
    for (const char *p = t->at; p < x->end && *p != '\n' && *p != '\r'; p++) {
        if (*p != quote || !(p + 1 == x->end || is_blank(p[1]))) continue;
        t->bytes = p - t->at;
        x->at = p + 1;
        return MF_OK;
    }
    return bad_line(x, t->line, "a quoted value does not end in its line");
}

static mf_status next(lexer *x, token *t) {
    const char *p = x->at, *end = x->end;
    for (;;) {
        while (p < end && is_blank(*p)) {
            x->line += ends_line(p);
            p++;
        }
        if (p == end || *p != '#') break;
        while (p < end && *p != '\n' && *p != '\r') p++;
    }
    x->at = p;
    *t = (token){.at = p, .line = x->line, .kind = T_END};
    if (p == end) return MF_OK;
    if (*p == ';' && line_begins(x, p)) return text_field(x, t);
    if (*p == '\'' || *p == '"') return quoted(x, t);
    while (p < end && !is_blank(*p)) p++;
    t->bytes = p - x->at;
    x->at = p;
    t->kind = T_VALUE;
    if (*t->at == '_') {
        t->kind = T_TAG;
    } else if (t->bytes >= 5) {    /* loop_ data_x save_x global_ stop_ */
        if (t->bytes == 5 && strncasecmp(t->at, "loop_", 5) == 0) t->kind = T_LOOP;
        else if (strncasecmp(t->at, "data_", 5) == 0) t->kind = T_DATA;
        else if (strncasecmp(t->at, "save_", 5) == 0) t->kind = T_SAVE;
        else if (t->bytes == 5 && strncasecmp(t->at, "stop_", 5) == 0) t->kind = T_SAVE;
    }
    return MF_OK;
}

enum { C_NONE, C_ENTRY, C_STRUCT, C_EXPTL, C_STATUS, C_REFINE, C_EM, C_REFLNS, C_ENTITY_POLY, C_MODIFIED, C_ATOM };
enum {
    A_GROUP, A_ID, A_SYMBOL, A_NAME, A_ALT, A_COMP, A_ASYM, A_ENTITY, A_SEQ, A_INS, A_X, A_Y, A_Z, A_OCC, A_B,
    A_AUTH_SEQ, A_AUTH_COMP, A_AUTH_ASYM, A_AUTH_ATOM, A_MODEL, CELLS
};

/* Columns of other categories count from 0 within theirs. */
static const struct { const char *tag; int category, cell; } tags[] = {
    {"_atom_site.group_PDB", C_ATOM, A_GROUP}, {"_atom_site.id", C_ATOM, A_ID}, {"_atom_site.type_symbol", C_ATOM, A_SYMBOL},
    {"_atom_site.label_atom_id", C_ATOM, A_NAME}, {"_atom_site.label_alt_id", C_ATOM, A_ALT}, {"_atom_site.label_comp_id", C_ATOM, A_COMP},
    {"_atom_site.label_asym_id", C_ATOM, A_ASYM}, {"_atom_site.label_entity_id", C_ATOM, A_ENTITY}, {"_atom_site.label_seq_id", C_ATOM, A_SEQ},
    {"_atom_site.pdbx_PDB_ins_code", C_ATOM, A_INS}, {"_atom_site.Cartn_x", C_ATOM, A_X}, {"_atom_site.Cartn_y", C_ATOM, A_Y},
    {"_atom_site.Cartn_z", C_ATOM, A_Z}, {"_atom_site.occupancy", C_ATOM, A_OCC}, {"_atom_site.B_iso_or_equiv", C_ATOM, A_B},
    {"_atom_site.auth_seq_id", C_ATOM, A_AUTH_SEQ}, {"_atom_site.auth_comp_id", C_ATOM, A_AUTH_COMP},
    {"_atom_site.auth_asym_id", C_ATOM, A_AUTH_ASYM}, {"_atom_site.auth_atom_id", C_ATOM, A_AUTH_ATOM},
    {"_atom_site.pdbx_PDB_model_num", C_ATOM, A_MODEL},
    {"_entry.id", C_ENTRY, 0}, {"_struct.title", C_STRUCT, 0}, {"_exptl.method", C_EXPTL, 0},
    {"_pdbx_database_status.recvd_initial_deposition_date", C_STATUS, 0}, {"_refine.ls_d_res_high", C_REFINE, 0},
    {"_em_3d_reconstruction.resolution", C_EM, 0}, {"_reflns.d_resolution_high", C_REFLNS, 0},
    {"_entity_poly.entity_id", C_ENTITY_POLY, 0}, {"_entity_poly.type", C_ENTITY_POLY, 1},
    {"_pdbx_struct_mod_residue.label_comp_id", C_MODIFIED, 0}, {"_pdbx_struct_mod_residue.parent_comp_id", C_MODIFIED, 1},
};

typedef struct reader {
    lexer x;
    mf__rows *rows;
    token cell[CELLS];        /* the row being read; bytes -1: no such column, or absent */
    unsigned char given[CELLS];
    int category;             /* of the row */
    int64_t row_line;
    double refine, em, reflns;
    char method[256];
    int models, in_block;
    mf__map model_of;         /* of each model text */
} reader;

static int known_tag(const token *t) {
    for (int i = 0; i < (int)(sizeof tags / sizeof *tags); i++)
        if (strncasecmp(tags[i].tag, t->at, (size_t)t->bytes) == 0 && tags[i].tag[t->bytes] == '\0') return i;
    return -1;
}

static int has(const reader *r, int cell) { return r->cell[cell].bytes >= 0; }

/* The first of two cells that is there. */
static const token *either(const reader *r, int a, int b) {
    static const token absent = {.at = "", .bytes = 0};
    return has(r, a) ? &r->cell[a] : has(r, b) ? &r->cell[b] : &absent;
}

static mf_status bad_cell(const reader *r, int cell, const char *message) {
    const token *t = &r->cell[cell];
    return mf__fail(MF_EFORMAT, "structure.read: '%s': line %lld: %s '%.*s' %s", r->x.path, (long long)(has(r, cell) ? t->line : r->row_line),
                    strchr(tags[cell].tag, '.') + 1, has(r, cell) ? (int)(t->bytes < 40 ? t->bytes : 40) : 1, has(r, cell) ? t->at : "?", message);
}

static mf_status coordinate(const reader *r, double *out, int cell) {
    if (has(r, cell) && mf__parse_real(out, r->cell[cell].at, r->cell[cell].bytes)) return MF_OK;
    return bad_cell(r, cell, "is not a finite number");
}

static mf_status add_name(reader *r, int32_t *out, const token *t) { return mf__names_add(&r->rows->s->names, out, t->at, t->bytes); }

static mf_status find_model(reader *r, int *out) {
    const token *t = &r->cell[A_MODEL];
    if (!has(r, A_MODEL)) {
        r->models = *out = 1;
        return MF_OK;
    }
    int32_t name;
    MF_TRY(add_name(r, &name, t));
    int64_t *slot;
    MF_TRY(mf__map_get(&r->model_of, &slot, (mf__key){(uint64_t)name, 0, 0}, r->models + 1));
    if (*slot > r->models) r->models++;
    *out = (int)*slot;
    return MF_OK;
}

static char one_letter(const reader *r, int cell) { return has(r, cell) && r->cell[cell].bytes > 0 ? r->cell[cell].at[0] : '\0'; }

static mf_status read_atom(reader *r) {
    mf__rows *rows = r->rows;
    if (!r->given[A_X] || !r->given[A_Y] || !r->given[A_Z]) return bad_line(&r->x, r->row_line, "_atom_site has no Cartn_x, Cartn_y, Cartn_z: not a macromolecular mmCIF");
    mf__row *row;
    MF_TRY(mf__rows_add(rows, &row));
    MF_TRY(coordinate(r, &row->atom.x, A_X));
    MF_TRY(coordinate(r, &row->atom.y, A_Y));
    MF_TRY(coordinate(r, &row->atom.z, A_Z));
    const token *name = either(r, A_NAME, A_AUTH_ATOM), *residue = either(r, A_COMP, A_AUTH_COMP);
    if (name->bytes == 0) return bad_line(&r->x, r->row_line, "an atom has no name");
    MF_TRY(add_name(r, &row->atom.name, name));
    MF_TRY(add_name(r, &row->residue, residue));
    MF_TRY(add_name(r, &row->chain, either(r, A_AUTH_ASYM, A_ASYM)));
    if (has(r, A_ENTITY)) MF_TRY(add_name(r, &row->entity, &r->cell[A_ENTITY]));
    MF_TRY(find_model(r, &row->model));
    row->hetero = has(r, A_GROUP) && r->cell[A_GROUP].bytes == 6 && strncasecmp(r->cell[A_GROUP].at, "HETATM", 6) == 0;
    if (has(r, A_SEQ) && !mf__parse_int(&row->label, r->cell[A_SEQ].at, r->cell[A_SEQ].bytes)) return bad_cell(r, A_SEQ, "is not a whole number");
    rows->labelled |= row->label != 0;
    int number = has(r, A_AUTH_SEQ) ? A_AUTH_SEQ : A_SEQ;
    if (has(r, number) && !mf__parse_int(&row->number, r->cell[number].at, r->cell[number].bytes)) return bad_cell(r, number, "is not a whole number");
    row->insertion = one_letter(r, A_INS);
    row->atom.altloc = one_letter(r, A_ALT);
    if (has(r, A_ID)) mf__parse_int(&row->atom.serial, r->cell[A_ID].at, r->cell[A_ID].bytes);
    row->atom.occupancy = 1;
    if (has(r, A_OCC) && !mf__parse_real(&row->atom.occupancy, r->cell[A_OCC].at, r->cell[A_OCC].bytes)) return bad_cell(r, A_OCC, "is not a number");
    if (has(r, A_B) && !mf__parse_real(&row->atom.b, r->cell[A_B].at, r->cell[A_B].bytes)) return bad_cell(r, A_B, "is not a number");

    const token *symbol = &r->cell[A_SYMBOL];
    if (has(r, A_SYMBOL) && symbol->bytes > 0 && symbol->bytes <= 2) {
        char upper[2];
        for (int i = 0; i < symbol->bytes; i++) upper[i] = symbol->at[i] >= 'a' && symbol->at[i] <= 'z' ? (char)(symbol->at[i] - 'a' + 'A') : symbol->at[i];
        return mf__names_add(&rows->s->names, &row->atom.element, upper, symbol->bytes);
    }
    char columns[4] = "    ";    /* as PDB would align it: only a lone ion fills the first column */
    int ion = row->hetero && name->bytes == residue->bytes && strncmp(name->at, residue->at, (size_t)name->bytes) == 0;
    for (int64_t i = 0; i < name->bytes && i < (ion ? 4 : 3); i++) columns[i + !ion] = name->at[i];
    return mf__guess_element(&row->atom.element, &rows->s->names, columns, mf__name(&rows->s->names, row->residue), row->hetero);
}

static mf_status read_entity_poly(reader *r) {
    if (!has(r, 0) || !has(r, 1)) return MF_OK;
    static const struct { const char *type; int polymer; } types[] = {
        {"polypeptide(L)", MF_POLYMER_PROTEIN}, {"polypeptide(D)", MF_POLYMER_PROTEIN}, {"cyclic-pseudo-peptide", MF_POLYMER_PROTEIN},
        {"polyribonucleotide", MF_POLYMER_RNA}, {"polydeoxyribonucleotide", MF_POLYMER_DNA},
    };
    const token *t = &r->cell[1];
    int32_t entity;
    MF_TRY(add_name(r, &entity, &r->cell[0]));
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if ((int64_t)strlen(types[i].type) == t->bytes && strncasecmp(types[i].type, t->at, (size_t)t->bytes) == 0)
            return mf__rows_add_polymer(r->rows, entity, types[i].polymer);
    return MF_OK;
}

/* The first value of the category that is a number above 0. */
static void take_resolution(const reader *r, double *out) {
    double value;
    if (*out == 0 && has(r, 0) && mf__parse_real(&value, r->cell[0].at, r->cell[0].bytes) && value > 0) *out = value;
}

static mf_status read_row(reader *r) {
    mf_structure *s = r->rows->s;
    switch (r->category) {
    case C_ATOM: return read_atom(r);
    case C_ENTRY: return has(r, 0) ? add_name(r, &s->id, &r->cell[0]) : MF_OK;
    case C_STATUS: return has(r, 0) ? add_name(r, &s->date, &r->cell[0]) : MF_OK;
    case C_STRUCT: {
        if (!has(r, 0)) return MF_OK;
        char title[1024];    /* one line, whatever the text field was */
        int64_t n = r->cell[0].bytes < (int64_t)sizeof title ? r->cell[0].bytes : (int64_t)sizeof title, used = 0;
        for (int64_t i = 0; i < n; i++) {
            char c = r->cell[0].at[i];
            if (is_blank(c)) c = ' ';
            if (c != ' ' || (used > 0 && title[used - 1] != ' ')) title[used++] = c;
        }
        while (used > 0 && title[used - 1] == ' ') used--;
        return mf__names_add(&s->names, &s->title, title, used);
    }
    case C_EXPTL: {
        size_t used = strlen(r->method);
        if (has(r, 0) && used + (size_t)r->cell[0].bytes + 3 < sizeof r->method) {
            if (used) memcpy(r->method + used, "; ", 3), used += 2;
            memcpy(r->method + used, r->cell[0].at, (size_t)r->cell[0].bytes);
            r->method[used + (size_t)r->cell[0].bytes] = '\0';
        }
        return MF_OK;
    }
    case C_REFINE: take_resolution(r, &r->refine); return MF_OK;
    case C_EM: take_resolution(r, &r->em); return MF_OK;
    case C_REFLNS: take_resolution(r, &r->reflns); return MF_OK;
    case C_ENTITY_POLY: return read_entity_poly(r);
    case C_MODIFIED:
        if (!has(r, 0) || !has(r, 1)) return MF_OK;
        return mf__rows_add_parent(r->rows, r->cell[0].at, r->cell[0].bytes, r->cell[1].at, r->cell[1].bytes);
    default: return MF_OK;
    }
}

static void clear_row(reader *r, int category) {
    r->category = category;
    memset(r->given, 0, sizeof r->given);
    for (int i = 0; i < CELLS; i++) r->cell[i] = (token){.at = "", .bytes = -1};
}

static void set_cell(reader *r, int cell, const token *value) {
    r->cell[cell] = *value;
    r->given[cell] = 1;
    if (value->kind == T_VALUE && value->bytes == 1 && (*value->at == '.' || *value->at == '?')) r->cell[cell].bytes = -1;
}

/* What tags and values gave, as a row of one category. */
static mf_status flush(reader *r) {
    int some = r->category != C_NONE;
    mf_status status = some ? read_row(r) : MF_OK;
    clear_row(r, C_NONE);
    return status;
}

/* After loop_; leaves in *t the token that ends the loop. */
static mf_status read_loop(reader *r, token *t) {
    int64_t loop_line = t->line, columns = 0, room = 0, values = 0, last_line = t->line;
    int *cells = NULL, category = C_NONE;
    mf_status status = MF_OK;
    MF_TRY_OUT(next(&r->x, t));
    for (; t->kind == T_TAG; columns++) {
        MF_TRY_OUT(mf__reserve((void **)&cells, columns, &room, sizeof *cells));
        int known = known_tag(t);
        cells[columns] = known < 0 ? -1 : tags[known].cell;
        if (known >= 0) category = tags[known].category;
        MF_TRY_OUT(next(&r->x, t));
    }
    if (columns == 0) { status = bad_line(&r->x, loop_line, "loop_ without tags"); goto out; }
    clear_row(r, category);
    for (int64_t column = 0; t->kind == T_VALUE || t->kind == T_QUOTED; values++) {
        if (column == 0) r->row_line = t->line;
        if (category != C_NONE && cells[column] >= 0) set_cell(r, cells[column], t);
        last_line = t->line;
        if (++column == columns) {
            if (category != C_NONE) MF_TRY_OUT(read_row(r));
            column = 0;
        }
        MF_TRY_OUT(next(&r->x, t));
    }
    if (values % columns)
        status = mf__fail(MF_EFORMAT, "structure.read: '%s': line %lld: the loop of %lld columns that begins in line %lld ends in the middle of a row (%lld values)",
                          r->x.path, (long long)last_line, (long long)columns, (long long)loop_line, (long long)values);
    clear_row(r, C_NONE);
out:
    free(cells);
    return status;
}

/* A tag and its value. */
static mf_status read_pair(reader *r, token *t) {
    int known = known_tag(t);
    token tag = *t;
    MF_TRY(next(&r->x, t));
    if (t->kind != T_VALUE && t->kind != T_QUOTED)
        return mf__fail(MF_EFORMAT, "structure.read: '%s': line %lld: %.*s has no value", r->x.path, (long long)tag.line,
                        (int)(tag.bytes < 80 ? tag.bytes : 80), tag.at);
    if (known >= 0) {    /* other tags may stand between those of a category */
        if (tags[known].category != r->category) {
            MF_TRY(flush(r));
            clear_row(r, tags[known].category);
            r->row_line = tag.line;
        }
        set_cell(r, tags[known].cell, t);
    }
    return next(&r->x, t);
}

static mf_status read_blocks(reader *r) {
    token t;
    MF_TRY(next(&r->x, &t));
    while (t.kind != T_END) {
        switch (t.kind) {
        case T_LOOP:
            MF_TRY(flush(r));
            MF_TRY(read_loop(r, &t));
            break;
        case T_TAG:
            if (!r->in_block) return bad_line(&r->x, t.line, "a tag before any data_ block");
            MF_TRY(read_pair(r, &t));
            break;
        case T_DATA:
            MF_TRY(flush(r));
            if (r->rows->count > 0) return MF_OK;    /* the first block with atoms was the one */
            r->in_block = 1;
            MF_TRY(next(&r->x, &t));
            break;
        case T_SAVE: MF_TRY(next(&r->x, &t)); break;
        default: return bad_line(&r->x, t.line, r->in_block ? "a value without a tag" : "a value before any data_ block: not a CIF file");
        }
    }
    return flush(r);
}

mf_status mf__read_mmcif(mf__rows *rows, const char *text, int64_t bytes) {
    reader r = {.x = {.begin = text, .at = text, .end = text + bytes, .line = 1, .path = rows->path}, .rows = rows};
    clear_row(&r, C_NONE);
    mf_status status = read_blocks(&r);
    mf__map_free(&r.model_of);
    if (status != MF_OK) return status;
    mf_structure *s = rows->s;
    s->resolution = r.refine > 0 ? r.refine : r.em > 0 ? r.em : r.reflns;
    return mf__names_add(&s->names, &s->method, r.method, (int64_t)strlen(r.method));
}
