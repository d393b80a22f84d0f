/* cif_document.c: a CIF file as a whole, for whoever wants any category of it.
 *
 * A value is 8 bytes: its kind and where its text stands in one block of text, each text ended by a zero. A value that
 * repeats the one above it shares its text. What the grammar asks of a whole block is checked here: no tag, no block
 * and no frame is there twice (the pull parser knows a table at a time). */
#include "cif.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A name is looked for in a scope: the file's blocks, or the frames, tags or categories of a block. */
enum { BLOCKS = -1, FRAMES = 0, TAGS = 1, CATEGORIES = 2, SCOPES = 3 };

typedef struct key { int64_t scope, text, value; } key;    /* value -1: a free slot */

typedef struct block { int64_t name, parent; } block;
typedef struct table {
    int64_t block, rows, columns, n_values, tag_room, value_room;
    int loop;
    int64_t *tags;        /* where their texts stand */
    uint64_t *values;     /* row by row: place of the text << 3 | kind */
} table;

struct mf_cif {
    char *text;
    block *blocks;
    table *tables;
    key *keys;            /* open addressing; a power of two */
    int64_t used, room, n_blocks, block_room, n_tables, table_room, n_keys, key_room;
    int64_t n_values, limit;
    const char *path;     /* while it is read */
};

/* ---- growing ---- */

static mf_status reserve(const mf_cif *c, void *items, int64_t wanted, int64_t *room, size_t size) {
    void **list = items;
    if (wanted <= *room) return MF_OK;
    int64_t larger = 2 * wanted + 8;
    void *grown = realloc(*list, (size_t)larger * size);
    if (!grown) return mf__fail(MF_ENOMEM, "cif.read: '%s': no memory", c->path);
    *list = grown;
    *room = larger;
    return MF_OK;
}

static mf_status add_text(mf_cif *c, int64_t *place, const char *text, int64_t bytes) {
    MF_TRY(reserve(c, &c->text, c->used + bytes + 1, &c->room, 1));
    *place = c->used;
    memcpy(c->text + c->used, text, (size_t)bytes);
    c->text[c->used + bytes] = '\0';
    c->used += bytes + 1;
    return MF_OK;
}

static uint64_t hash(int64_t scope, const char *text) {
    uint64_t h = 14695981039346656037u ^ (uint64_t)scope * 0x9e3779b97f4a7c15u;
    for (; *text; text++) h = (h ^ ((unsigned char)*text | 0x20)) * 1099511628211u;
    return h ^ h >> 29;
}

static key *find_key(const mf_cif *c, key *keys, int64_t room, int64_t scope, int64_t place) {
    const char *text = c->text + place;
    for (uint64_t i = hash(scope, text);; i++) {
        key *k = &keys[i & (uint64_t)(room - 1)];
        if (k->value < 0 || (k->scope == scope && strcasecmp(c->text + k->text, text) == 0)) return k;
    }
}

/* The value of a name in its scope, put there as `fresh` where it is new. */
static mf_status look_up(mf_cif *c, int64_t *value, int64_t scope, int64_t place, int64_t fresh) {
    if (2 * c->n_keys >= c->key_room) {
        int64_t larger = c->key_room ? 2 * c->key_room : 256;
        key *keys = malloc((size_t)larger * sizeof *keys);
        if (!keys) return mf__fail(MF_ENOMEM, "cif.read: '%s': no memory", c->path);
        for (int64_t i = 0; i < larger; i++) keys[i].value = -1;
        for (int64_t i = 0; i < c->key_room; i++)
            if (c->keys[i].value >= 0) *find_key(c, keys, larger, c->keys[i].scope, c->keys[i].text) = c->keys[i];
        free(c->keys);
        c->keys = keys;
        c->key_room = larger;
    }
    key *k = find_key(c, c->keys, c->key_room, scope, place);
    if (k->value < 0) {
        *k = (key){scope, place, fresh};
        c->n_keys++;
    }
    *value = k->value;
    return MF_OK;
}

static mf_status twice(const mf_cif *c, const mf__cif *p, int64_t line, const char *what, int64_t place) {
    const char *text = c->text + place;
    return mf__fail(MF_EFORMAT, "cif.read: '%s': %s %lld: the %s %.80s is given twice", c->path, mf__cif_place(p), (long long)line, what, text);
}

/* ---- reading ---- */

static mf_status add_block(mf_cif *c, const mf__cif *p, const mf__cif_event *e, int64_t parent) {
    int64_t place, index = c->n_blocks, found;
    MF_TRY(reserve(c, &c->blocks, index + 1, &c->block_room, sizeof *c->blocks));
    MF_TRY(add_text(c, &place, e->name.at, e->name.bytes));
    MF_TRY(look_up(c, &found, parent < 0 ? BLOCKS : SCOPES * parent + FRAMES, place, index));
    if (found != index) return twice(c, p, e->line, parent < 0 ? "data block" : "save frame", place);
    c->blocks[c->n_blocks++] = (block){place, parent};
    return MF_OK;
}

/* Where a table goes: tags and values of one category, wherever they stand in the block, to one. */
static mf_status find_table(mf_cif *c, int64_t *out, const mf__cif_event *e, int64_t now) {
    *out = c->n_tables;
    if (!e->loop) {
        const char *tag = e->tags[0].at, *point = memchr(tag, '.', (size_t)e->tags[0].bytes);
        int64_t place;
        MF_TRY(add_text(c, &place, tag, point ? point - tag : 0));
        MF_TRY(look_up(c, out, SCOPES * now + CATEGORIES, place, c->n_tables));
    }
    if (*out < c->n_tables) return MF_OK;
    MF_TRY(reserve(c, &c->tables, c->n_tables + 1, &c->table_room, sizeof *c->tables));
    c->tables[c->n_tables++] = (table){.block = now, .loop = e->loop};
    return MF_OK;
}

static mf_status add_tags(mf_cif *c, table *t, const mf__cif *p, const mf__cif_event *e) {
    MF_TRY(reserve(c, &t->tags, t->columns + e->columns, &t->tag_room, sizeof *t->tags));
    for (int64_t i = 0; i < e->columns; i++) {
        int64_t place, found, index = t->columns;
        MF_TRY(add_text(c, &place, e->tags[i].at, e->tags[i].bytes));
        MF_TRY(look_up(c, &found, SCOPES * t->block + TAGS, place, place));
        if (found != place) return twice(c, p, e->line, "tag", place);
        t->tags[index] = place;
        t->columns++;
    }
    return MF_OK;
}

/* As the value above it, where that is the same text. */
static mf_status add_value(mf_cif *c, uint64_t *out, const mf_cif_cell *cell, const uint64_t *above) {
    int64_t place = 0;
    if (cell->kind <= MF_CIF_QUOTED) {
        int64_t old = above ? (int64_t)(*above >> 3) : 0;
        int shares = old && (int)(*above & 7) <= MF_CIF_QUOTED && c->used - old > cell->bytes && c->text[old + cell->bytes] == '\0' &&
                     memcmp(c->text + old, cell->text, (size_t)cell->bytes) == 0;
        if (shares) place = old;
        else MF_TRY(add_text(c, &place, cell->text, cell->bytes));
    } else if (cell->kind <= MF_CIF_REAL) {
        MF_TRY(add_text(c, &place, (const char *)&cell->number, sizeof cell->number));
    }
    *out = (uint64_t)place << 3 | (uint64_t)cell->kind;
    return MF_OK;
}

static mf_status add_row(mf_cif *c, table *t, const mf_cif_cell *cells, int64_t columns) {
    c->n_values += columns;    /* in text a value takes two bytes at least, and in BinaryCIF next to none */
    if (c->n_values > c->limit / 2 || c->used / 2 > c->limit)
        return mf__fail(MF_EFORMAT, "cif.read: '%s': more values than a text of %lld bytes, the limit, could hold", c->path, (long long)c->limit);
    MF_TRY(reserve(c, &t->values, t->n_values + columns, &t->value_room, sizeof *t->values));
    for (int64_t i = 0; i < columns; i++) {
        uint64_t *value = &t->values[t->n_values + i];
        MF_TRY(add_value(c, value, &cells[i], t->loop && t->rows ? value - t->columns : NULL));
    }
    t->n_values += columns;
    return MF_OK;
}

static mf_status read_all(mf_cif *c, mf__cif *p) {
    mf__cif_event e;
    int64_t now = -1, at = 0, columns = 0, place;
    MF_TRY(add_text(c, &place, "", 0));    /* place 0 is no value's */
    for (;;) {
        MF_TRY(mf__cif_next(&e, p));
        switch (e.kind) {
        case MF__CIF_BLOCK: MF_TRY(add_block(c, p, &e, -1)); now = c->n_blocks - 1; break;
        case MF__CIF_FRAME: MF_TRY(add_block(c, p, &e, now)); now = c->n_blocks - 1; break;
        case MF__CIF_FRAME_END: now = c->blocks[now].parent; break;
        case MF__CIF_TABLE:
            MF_TRY(find_table(c, &at, &e, now));
            columns = e.columns;
            MF_TRY(add_tags(c, &c->tables[at], p, &e));
            break;
        case MF__CIF_ROW:
            MF_TRY(add_row(c, &c->tables[at], e.cells, columns));
            if (c->tables[at].loop) c->tables[at].rows++;
            else c->tables[at].rows = 1;
            break;
        default: return MF_OK;
        }
    }
}

static mf_status read_source(mf_cif **out, mf__source *source) {
    mf__cif *p = NULL;
    mf_cif *c = calloc(1, sizeof *c);
    if (!c) return mf__fail(MF_ENOMEM, "cif.read: '%s': no memory", mf__source_name(source));
    c->path = mf__source_name(source);
    c->limit = mf__source_limit(source);
    mf_status status = mf__cif_open(&p, source, "cif.read");
    if (status == MF_OK) status = read_all(c, p);
    mf__cif_close(p);
    c->path = NULL;
    if (status == MF_OK) *out = c;
    else mf_cif_release(c);
    return status;
}

mf_status mf_cif_read(mf_cif **out, const char *path, int64_t max_bytes) {
    *out = NULL;
    mf__source *source;
    if (max_bytes < 0) return mf__fail(MF_EVALUE, "cif.read: max_bytes %lld is negative", (long long)max_bytes);
    MF_TRY(mf__source_open(&source, path, 0, -1, max_bytes ? max_bytes : (int64_t)1 << 30));
    mf_status status = read_source(out, source);
    mf__source_close(source);
    return status;
}

mf_status mf_cif_parse(mf_cif **out, const void *data, int64_t bytes, const char *name) {
    *out = NULL;
    mf__source *source;
    MF_TRY(mf__source_memory(&source, data, bytes, name, (int64_t)1 << 30));
    mf_status status = read_source(out, source);
    mf__source_close(source);
    return status;
}

void mf_cif_release(mf_cif *c) {
    if (!c) return;
    for (int64_t i = 0; i < c->n_tables; i++) {
        free(c->tables[i].tags);
        free(c->tables[i].values);
    }
    free(c->text);
    free(c->blocks);
    free(c->tables);
    free(c->keys);
    free(c);
}

/* ---- looking ---- */

void mf_cif_count(mf_cif_counts *out, const mf_cif *c) { *out = (mf_cif_counts){c->n_blocks, c->n_tables}; }

const char *mf_cif_block(const mf_cif *c, int64_t i, int64_t *parent) {
    if (i < 0 || i >= c->n_blocks) return NULL;
    *parent = c->blocks[i].parent;
    return c->text + c->blocks[i].name;
}

mf_status mf_cif_table(mf_cif_table_info *out, const mf_cif *c, int64_t i) {
    if (i < 0 || i >= c->n_tables) return mf__fail(MF_EVALUE, "cif.table: no table %lld of %lld", (long long)i, (long long)c->n_tables);
    const table *t = &c->tables[i];
    *out = (mf_cif_table_info){.block = t->block, .rows = t->rows, .columns = t->columns, .loop = t->loop};
    return MF_OK;
}

const char *mf_cif_tag(const mf_cif *c, int64_t i, int64_t column) {
    if (i < 0 || i >= c->n_tables || column < 0 || column >= c->tables[i].columns) return NULL;
    return c->text + c->tables[i].tags[column];
}

mf_status mf_cif_value(mf_cif_cell *out, const mf_cif *c, int64_t i, int64_t row, int64_t column) {
    if (i < 0 || i >= c->n_tables || row < 0 || row >= c->tables[i].rows || column < 0 || column >= c->tables[i].columns)
        return mf__fail(MF_EVALUE, "cif.value: no row %lld and column %lld of table %lld", (long long)row + 1, (long long)column + 1, (long long)i + 1);
    const uint64_t value = c->tables[i].values[row * c->tables[i].columns + column];
    const char *text = c->text + (value >> 3);
    *out = (mf_cif_cell){.text = text, .kind = (int)(value & 7)};
    if (out->kind == MF_CIF_INTEGER || out->kind == MF_CIF_REAL) memcpy(&out->number, text, sizeof out->number), out->text = "";
    else out->bytes = (int64_t)strlen(text);
    return MF_OK;
}
