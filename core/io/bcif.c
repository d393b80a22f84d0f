/* bcif.c: BinaryCIF as events.
 *
 *     {version, encoder, dataBlocks: [{header, categories: [{name, rowCount, columns: [{name, data, mask}]}]}]}
 *
 * The format writes a column after another, so the file is in memory as a whole. Opening it finds where everything
 * stands; a category is decoded when its first row is asked for, of its columns only those that were chosen. */
#include "bcif.h"
#include "bcif_decode.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct column { mf__pack name; const char *data, *mask; } column;
typedef struct table { mf__pack name; int64_t rows, first_column, columns; } table;
typedef struct block { mf__pack name; int64_t first_table, tables; } block;

struct mf__bcif {
    mf__msgpack p;
    int64_t limit;
    block *blocks;
    table *tables;
    column *columns;
    int64_t n_blocks, n_tables, n_columns, block_room, table_room, column_room;
    int64_t at_block, at_table, row;      /* the next of each; row -1: the table has not been told of */
    mf__span *tags;                       /* of the table */
    char *tag_text;
    mf__bcif_column *decoded;
    mf_cif_cell *cells;
    int *slots;                           /* of each column */
    int64_t n_decoded;
    int n_cells, chosen, ready;           /* chosen: by the reader; ready: decoded */
};

static mf_status no_memory(const mf__bcif *b) { return mf__fail(MF_ENOMEM, "%s: '%s': no memory", b->p.what, b->p.name); }

/* ---- where everything stands ---- */

static mf_status one_more(const mf__bcif *b, void *items, int64_t count, int64_t *room, size_t size) {
    void **list = items;
    if (count < *room) return MF_OK;
    int64_t wanted = *room ? 2 * *room : 64;
    void *grown = realloc(*list, (size_t)wanted * size);
    if (!grown) return no_memory(b);
    *list = grown;
    *room = wanted;
    return MF_OK;
}

static mf_status find_column(mf__bcif *b) {
    mf__pack map, key;
    column c = {.data = NULL};
    MF_TRY(mf__msgpack_expect(&map, &b->p, MF__PACK_MAP, "a column"));
    for (int64_t i = 0; i < map.size; i++) {
        MF_TRY(mf__msgpack_expect(&key, &b->p, MF__PACK_TEXT, "a key of a column"));
        if (mf__pack_is(&key, "name")) {
            MF_TRY(mf__msgpack_expect(&c.name, &b->p, MF__PACK_TEXT, "the name of a column"));
            continue;
        }
        if (mf__pack_is(&key, "data")) c.data = b->p.at;
        if (mf__pack_is(&key, "mask")) c.mask = b->p.at;
        MF_TRY(mf__msgpack_skip(&b->p));
    }
    if (!c.data || c.name.size == 0) return mf__msgpack_fail(&b->p, "a column without name or data");
    MF_TRY(one_more(b, &b->columns, b->n_columns, &b->column_room, sizeof c));
    b->columns[b->n_columns++] = c;
    return MF_OK;
}

static mf_status find_table(mf__bcif *b) {
    mf__pack map, key, v;
    table t = {.rows = -1, .first_column = b->n_columns};
    MF_TRY(mf__msgpack_expect(&map, &b->p, MF__PACK_MAP, "a category"));
    for (int64_t i = 0; i < map.size; i++) {
        MF_TRY(mf__msgpack_expect(&key, &b->p, MF__PACK_TEXT, "a key of a category"));
        if (mf__pack_is(&key, "name")) {
            MF_TRY(mf__msgpack_expect(&t.name, &b->p, MF__PACK_TEXT, "the name of a category"));
        } else if (mf__pack_is(&key, "rowCount")) {
            MF_TRY(mf__msgpack_next(&v, &b->p));
            t.rows = (v.kind == MF__PACK_INTEGER || v.kind == MF__PACK_REAL) && v.number >= 0 && v.number < 1e15 ? (int64_t)v.number : -1;
        } else if (mf__pack_is(&key, "columns")) {
            MF_TRY(mf__msgpack_expect(&v, &b->p, MF__PACK_ARRAY, "the columns of a category"));
            for (int64_t k = 0; k < v.size; k++) MF_TRY(find_column(b));
        } else {
            MF_TRY(mf__msgpack_skip(&b->p));
        }
    }
    t.columns = b->n_columns - t.first_column;
    if (t.name.size == 0 || t.rows < 0) return mf__msgpack_fail(&b->p, "a category without name or rowCount");
    if (t.columns == 0) return MF_OK;
    MF_TRY(one_more(b, &b->tables, b->n_tables, &b->table_room, sizeof t));
    b->tables[b->n_tables++] = t;
    return MF_OK;
}

static mf_status find_block(mf__bcif *b) {
    mf__pack map, key, v;
    block found = {.first_table = b->n_tables};
    MF_TRY(mf__msgpack_expect(&map, &b->p, MF__PACK_MAP, "a data block"));
    for (int64_t i = 0; i < map.size; i++) {
        MF_TRY(mf__msgpack_expect(&key, &b->p, MF__PACK_TEXT, "a key of a data block"));
        if (mf__pack_is(&key, "header")) {
            MF_TRY(mf__msgpack_expect(&found.name, &b->p, MF__PACK_TEXT, "the header of a data block"));
        } else if (mf__pack_is(&key, "categories")) {
            MF_TRY(mf__msgpack_expect(&v, &b->p, MF__PACK_ARRAY, "the categories of a data block"));
            for (int64_t k = 0; k < v.size; k++) MF_TRY(find_table(b));
        } else {
            MF_TRY(mf__msgpack_skip(&b->p));
        }
    }
    found.tables = b->n_tables - found.first_table;
    MF_TRY(one_more(b, &b->blocks, b->n_blocks, &b->block_room, sizeof found));
    b->blocks[b->n_blocks++] = found;
    return MF_OK;
}

static mf_status find_blocks(mf__bcif *b) {
    mf__pack map, key, v;
    int some = 0;
    MF_TRY(mf__msgpack_expect(&map, &b->p, MF__PACK_MAP, "the file"));
    for (int64_t i = 0; i < map.size; i++) {
        MF_TRY(mf__msgpack_expect(&key, &b->p, MF__PACK_TEXT, "a key of the file"));
        if (!mf__pack_is(&key, "dataBlocks")) {
            MF_TRY(mf__msgpack_skip(&b->p));
            continue;
        }
        some = 1;
        MF_TRY(mf__msgpack_expect(&v, &b->p, MF__PACK_ARRAY, "dataBlocks"));
        for (int64_t k = 0; k < v.size; k++) MF_TRY(find_block(b));
    }
    return some ? MF_OK : mf__msgpack_fail(&b->p, "no dataBlocks: not a BinaryCIF file");
}

mf_status mf__bcif_open(mf__bcif **out, const char *data, int64_t bytes, const char *name, int64_t limit, const char *what) {
    *out = NULL;
    mf__bcif *b = calloc(1, sizeof *b);
    if (!b) return mf__fail(MF_ENOMEM, "%s: '%s': no memory", what, name);
    b->p = (mf__msgpack){.begin = data, .at = data, .end = data + bytes, .what = what, .name = name};
    b->limit = limit;
    b->row = -1;
    mf_status status = find_blocks(b);
    if (status == MF_OK) *out = b;
    else mf__bcif_close(b);
    return status;
}

/* ---- one table ---- */

static void forget_table(mf__bcif *b) {
    for (int64_t i = 0; i < b->n_decoded; i++) mf__bcif_column_free(&b->decoded[i]);
    free(b->decoded);
    free(b->tags);
    free(b->tag_text);
    free(b->cells);
    free(b->slots);
    b->decoded = NULL;
    b->tags = NULL;
    b->tag_text = NULL;
    b->cells = NULL;
    b->slots = NULL;
    b->n_decoded = 0;
    b->chosen = b->ready = 0;
}

/* _category.column; an encoder may have left out the underscore. */
static mf_status table_event(mf__bcif *b, mf__cif_event *e) {
    const table *t = &b->tables[b->at_table];
    const column *columns = &b->columns[t->first_column];
    int64_t bytes = 0;
    for (int64_t i = 0; i < t->columns; i++) bytes += t->name.size + columns[i].name.size + 3;
    b->tags = malloc((size_t)t->columns * sizeof *b->tags);
    b->tag_text = malloc((size_t)bytes);
    if (!b->tags || !b->tag_text) return no_memory(b);
    char *p = b->tag_text;
    for (int64_t i = 0; i < t->columns; i++) {
        b->tags[i].at = p;
        if (*t->name.data != '_') *p++ = '_';
        memcpy(p, t->name.data, (size_t)t->name.size);
        p += t->name.size;
        *p++ = '.';
        memcpy(p, columns[i].name.data, (size_t)columns[i].name.size);
        p += columns[i].name.size;
        b->tags[i].bytes = p - b->tags[i].at;
        *p++ = '\0';
    }
    b->row = 0;
    *e = (mf__cif_event){.kind = MF__CIF_TABLE, .loop = t->rows != 1, .tags = b->tags, .columns = t->columns};
    return MF_OK;
}

mf_status mf__bcif_choose(mf__bcif *b, const int *slots, int count) {
    const int64_t columns = b->tables[b->at_table].columns;
    b->slots = malloc((size_t)columns * sizeof *b->slots);
    b->cells = malloc((size_t)(count ? count : 1) * sizeof *b->cells);
    if (!b->slots || !b->cells) return no_memory(b);
    for (int i = 0; i < count; i++) b->cells[i] = (mf_cif_cell){.text = "", .kind = MF__CIF_ABSENT};
    for (int64_t i = 0; i < columns; i++) b->slots[i] = count ? slots[i] : -1;
    b->chosen = 1;
    b->n_cells = count;
    return MF_OK;
}

static mf_status choose_all(mf__bcif *b) {
    const int64_t columns = b->tables[b->at_table].columns;
    if (columns > INT32_MAX) return mf__msgpack_fail(&b->p, "too many columns");
    int *slots = malloc((size_t)columns * sizeof *slots);
    if (!slots) return no_memory(b);
    for (int64_t i = 0; i < columns; i++) slots[i] = (int)i;
    mf_status status = mf__bcif_choose(b, slots, (int)columns);
    free(slots);
    return status;
}

static mf_status decode_table(mf__bcif *b) {
    const table *t = &b->tables[b->at_table];
    int64_t budget = b->limit;
    b->decoded = calloc((size_t)t->columns, sizeof *b->decoded);
    if (!b->decoded) return no_memory(b);
    b->n_decoded = t->columns;
    b->ready = 1;
    for (int64_t i = 0; i < t->columns; i++) {
        if (b->slots[i] < 0) continue;
        const column *c = &b->columns[t->first_column + i];
        MF_TRY(mf__bcif_decode(&b->decoded[i], &b->p, c->data, c->mask, t->rows, &budget, b->tags[i].at));
    }
    return MF_OK;
}

static void read_cell(mf_cif_cell *out, const mf__bcif_column *c, int64_t row) {
    *out = (mf_cif_cell){.text = "", .kind = c->kind};
    if (c->mask && c->mask[row]) {
        out->kind = c->mask[row] == 1 ? MF_CIF_INAPPLICABLE : MF_CIF_UNKNOWN;
    } else if (c->kind == MF_CIF_REAL) {
        out->number = c->real[row];
    } else if (c->kind == MF_CIF_INTEGER) {
        out->number = (double)c->whole[row];
    } else if (c->whole[row] >= 0) {
        const int64_t *offset = &c->offset[c->whole[row]];
        out->text = c->strings + offset[0];
        out->bytes = offset[1] - offset[0];
    }
}

static mf_status row_event(mf__bcif *b, mf__cif_event *e) {
    if (!b->chosen) MF_TRY(choose_all(b));
    if (!b->ready) MF_TRY(decode_table(b));
    for (int64_t i = 0; i < b->n_decoded; i++)
        if (b->slots[i] >= 0) read_cell(&b->cells[b->slots[i]], &b->decoded[i], b->row);
    b->row++;
    *e = (mf__cif_event){.kind = MF__CIF_ROW, .line = b->row, .cells = b->cells};
    return MF_OK;
}

mf_status mf__bcif_next(mf__cif_event *e, mf__bcif *b) {
    if (b->row >= 0) {
        int passed_over = b->chosen && b->n_cells == 0;
        if (!passed_over && b->row < b->tables[b->at_table].rows) return row_event(b, e);
        forget_table(b);
        b->row = -1;
        b->at_table++;
    }
    const block *now = b->at_block ? &b->blocks[b->at_block - 1] : NULL;
    if (now && b->at_table < now->first_table + now->tables) return table_event(b, e);
    if (b->at_block == b->n_blocks) {
        *e = (mf__cif_event){.kind = MF__CIF_END};
        return MF_OK;
    }
    const mf__pack *name = &b->blocks[b->at_block++].name;
    *e = (mf__cif_event){.kind = MF__CIF_BLOCK, .name = {(char *)(uintptr_t)(name->data ? name->data : ""), name->size}};
    return MF_OK;
}

int64_t mf__bcif_row(const mf__bcif *b) { return b->row; }

void mf__bcif_close(mf__bcif *b) {
    if (!b) return;
    forget_table(b);
    free(b->blocks);
    free(b->tables);
    free(b->columns);
    free(b);
}
